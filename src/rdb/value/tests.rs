use super::{read, write};
use crate::rdb::payload::{self, Form, Refusal};
use crate::rdb::{Content, Damaged, Reader, Reading, checksum, kind, length, listpack};
use crate::values::list::End;
use crate::values::stream::{Edit, Fields, Id, put_bytes};
use crate::values::{Element, Hash, Limits, List, Set, SortedSet, Stream, Value};
use proptest::prelude::*;

/// A value in a line, in an order of its own.
fn text(content: &Content) -> String {
    let value = match content {
        Content::String(bytes) => return format!("string {}", bytes.escape_ascii()),
        Content::Collection(value) => value,
    };
    let show = |element: Element<'_>| element.to_vec().escape_ascii().to_string();
    let mut parts: Vec<String> = match value {
        Value::List(list) => list.iter().map(show).collect(),
        Value::Hash(hash) => hash
            .iter()
            .map(|(field, value)| {
                let deadline = hash.deadline(&field.to_vec()).map_or(String::new(), |at| format!("@{at}"));
                format!("{}={}{deadline}", show(field), show(value))
            })
            .collect(),
        Value::Set(set) => set.iter().map(show).collect(),
        Value::SortedSet(set) => set.iter().map(|(member, score)| format!("{}:{score:?}", show(member))).collect(),
        Value::Stream(stream) => stream_parts(stream),
    };
    if !matches!(value, Value::List(_) | Value::Stream(_)) {
        parts.sort_unstable();
    }
    format!("{} {}", value.type_name(), parts.join(" "))
}

fn stream_parts(stream: &Stream) -> Vec<String> {
    let bytes = |bytes: &[u8]| bytes.escape_ascii().to_string();
    let mut parts: Vec<String> = stream
        .range(Id::MIN, Id::MAX)
        .map(|entry| {
            let fields = entry.fields.iter().map(|(field, value)| format!("{}={}", bytes(field), bytes(value)));
            format!("{}:{}", entry.id, fields.collect::<Vec<_>>().join(","))
        })
        .collect();
    parts.push(format!("last {} deleted {} added {}", stream.last_id(), stream.max_deleted_id(), stream.added()));
    for (name, group) in stream.groups() {
        parts.push(format!("group {} {} {:?}", bytes(name), group.last, group.read));
        parts.extend(group.pending_between(Id::MIN, Id::MAX).map(|pending| {
            format!("{} {} {} {}", pending.id, bytes(pending.consumer), pending.delivered, pending.count)
        }));
        parts.extend(group.consumers().map(|consumer| {
            format!("consumer {} {} {}", bytes(&consumer.name), consumer.seen, consumer.pending_count())
        }));
    }
    parts
}

fn reading(limits: &Limits) -> Reading<'_> {
    Reading { limits, now_ms: 1000, by_valkey: false }
}

/// What the bytes behind a kind are.
fn check(kind: u8, bytes: &[u8], expected: &str) {
    let limits = Limits::default();
    let mut reader = Reader::new(bytes);
    let content = read::read(kind, &mut reader, &reading(&limits));
    assert_eq!(content.map(|content| text(&content)).as_deref(), Ok(expected), "{kind} {}", bytes.escape_ascii());
    assert!(reader.is_empty());
}

fn refused(kind: u8, bytes: &[u8]) {
    let limits = Limits::default();
    let content = read::read(kind, &mut Reader::new(bytes), &reading(&limits));
    assert!(content.is_err(), "{kind} {}: {content:?}", bytes.escape_ascii());
}

/// As a string with its length in front.
fn string(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    length::write(&mut out, bytes.len() as u64);
    out.extend_from_slice(bytes);
    out
}

fn packed(elements: &[&str]) -> Vec<u8> {
    let mut builder = listpack::Builder::default();
    elements.iter().for_each(|element| builder.push(Element::Bytes(element.as_bytes())));
    builder.finish()
}

/// "a", 1, 300 and -70000.
const ZIPLIST: &[u8] = b"\x19\0\0\0\x13\0\0\0\x04\0\
    \0\x01a\
    \x03\xf2\
    \x02\xc0\x2c\x01\
    \x04\xf0\x90\xee\xfe\
    \xff";

#[test]
fn strings_are_read_in_every_form() {
    check(kind::STRING, b"\x03abc", "string abc");
    check(kind::STRING, b"\x40\x03abc", "string abc");
    check(kind::STRING, b"\x80\0\0\0\x03abc", "string abc");
    check(kind::STRING, b"\x81\0\0\0\0\0\0\0\x03abc", "string abc");
    check(kind::STRING, b"\xc0\xff", "string -1");
    check(kind::STRING, b"\xc1\0\x80", "string -32768");
    check(kind::STRING, b"\xc2\xff\xff\xff\x7f", "string 2147483647");
    check(kind::STRING, b"\xc3\x05\x05\x01ab\x20\x01", "string ababa");
    for bytes in [b"".as_slice(), b"\x04abc", b"\x81\xff\xff\xff\xff\xff\xff\xff\xffa", b"\xc4", b"\x82", b"\xc1\0"] {
        refused(kind::STRING, bytes);
    }
}

#[test]
fn lists_are_read_in_every_form() {
    let listpack = packed(&["a", "1", "300", "-70000"]);
    let plain = b"\x04\x01a\xc0\x01\xc1\x2c\x01\xc2\x90\xee\xfe\xff";
    let node = |container: u8, bytes: &[u8]| [&[1, container], &string(bytes)[..]].concat();
    check(kind::LIST, plain, "list a 1 300 -70000");
    check(kind::LIST_ZIPLIST, &string(ZIPLIST), "list a 1 300 -70000");
    check(kind::LIST_QUICKLIST, &[b"\x01", &string(ZIPLIST)[..]].concat(), "list a 1 300 -70000");
    check(kind::LIST_QUICKLIST_2, &node(2, &listpack), "list a 1 300 -70000");
    check(kind::LIST_QUICKLIST_2, &node(1, b"plain"), "list plain");
    refused(kind::LIST_QUICKLIST_2, &node(3, &listpack));
    refused(kind::LIST_QUICKLIST_2, &node(1, b""));
    refused(kind::LIST_QUICKLIST_2, &node(2, &packed(&[])));
    refused(kind::LIST, b"\0");
    refused(kind::LIST, b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\x01a");
}

#[test]
fn sets_are_read_in_every_form() {
    check(kind::SET, b"\x02\x01b\x01a", "set a b");
    check(kind::SET_INTSET, &string(b"\x02\0\0\0\x02\0\0\0\xff\xff\x05\0"), "set -1 5");
    check(kind::SET_LISTPACK, &string(&packed(&["x", "7"])), "set 7 x");
    refused(kind::SET, b"\x02\x01a\x01a");
    refused(kind::SET_INTSET, &string(b"\x02\0\0\0\x02\0\0\0\x05\0\x05\0"));
    refused(kind::SET_INTSET, &string(b"\x02\0\0\0\xff\xff\xff\xff\x05\0"));
    refused(kind::SET_INTSET, &string(b"\x03\0\0\0\x01\0\0\0\x05\0\0"));
    refused(kind::SET_LISTPACK, &string(&packed(&["x", "x"])));
}

#[test]
fn sorted_sets_are_read_in_every_form() {
    check(kind::SORTED_SET_TEXT, b"\x02\x01a\x031.5\x01b\xfe", "zset a:1.5 b:inf");
    check(kind::SORTED_SET, b"\x01\x01a\0\0\0\0\0\0\xf8\x3f", "zset a:1.5");
    check(kind::SORTED_SET_ZIPLIST, &string(ZIPLIST), "zset 300:-70000.0 a:1.0");
    check(kind::SORTED_SET_LISTPACK, &string(&packed(&["a", "-inf", "b", "2"])), "zset a:-inf b:2.0");
    refused(kind::SORTED_SET_TEXT, b"\x01\x01a\xfd");
    refused(kind::SORTED_SET, b"\x01\x01a\0\0\0\0\0\0\xf8\x7f");
    refused(kind::SORTED_SET_LISTPACK, &string(&packed(&["a", "1", "a", "2"])));
    refused(kind::SORTED_SET_LISTPACK, &string(&packed(&["a", "one"])));
    refused(kind::SORTED_SET_LISTPACK, &string(&packed(&["a"])));
}

#[test]
fn hashes_are_read_in_every_form() {
    check(kind::HASH, b"\x01\x01a\xc0\x01", "hash a=1");
    check(kind::HASH_ZIPMAP, &string(b"\x02\x01a\x01\x02xyz\x01b\xfe\x01\0\0\0\0w\xff"), "hash a=x b=w");
    check(kind::HASH_ZIPLIST, &string(ZIPLIST), "hash 300=-70000 a=1");
    check(kind::HASH_LISTPACK, &string(&packed(&["a", "1"])), "hash a=1");
    refused(kind::HASH_ZIPMAP, &string(b"\x01\x01a\x01\0x"));
    refused(kind::HASH_LISTPACK, &string(&packed(&["a", "1", "b"])));
    refused(99, b"\x01\x01a\x01b");
}

#[test]
fn fields_whose_deadline_has_passed_are_left_out() {
    let from = 500u64.to_le_bytes();
    check(kind::HASH_DEADLINES, b"\x03\0\x01a\x011\x43\xe8\x01b\x012\x47\xd0\x01c\x013", "hash a=1 c=3@2000");
    check(kind::HASH_DEADLINES_FROM, &[&from[..], b"\x02\x01\x01a\x011\x47\xd0\x01c\x013"].concat(), "hash c=3@2499");
    let triples = string(&packed(&["b", "2", "999", "c", "3", "1001", "a", "1", "0"]));
    check(kind::HASH_LISTPACK_DEADLINES_EARLY, &triples, "hash a=1 c=3@1001");
    check(kind::HASH_LISTPACK_DEADLINES, &[&from[..], &triples].concat(), "hash a=1 c=3@1001");
    refused(kind::HASH_DEADLINES, b"\x01\x81\0\x01\0\0\0\0\0\0\x01a\x011");
    let valkey = [b"\x02\x01a\x011", &u64::MAX.to_le_bytes()[..], b"\x01b\x012", &999u64.to_le_bytes()].concat();
    let limits = Limits::default();
    let reading = Reading { by_valkey: true, ..reading(&limits) };
    let content = read::read(kind::HASH_DEADLINES, &mut Reader::new(&valkey), &reading);
    assert_eq!(content.map(|content| text(&content)).as_deref(), Ok("hash a=1"));
}

#[test]
fn deadlines_of_fields_come_back_from_the_form_of_each_server() {
    let limits = Limits::default();
    let (never, soon, later) = (u64::MAX.to_le_bytes(), 2000u64.to_le_bytes(), 3000u64.to_le_bytes());
    let bytes = [&b"\x03\x01a\x011"[..], &never, b"\x01b\x012", &soon, b"\x01c\x013", &later].concat();
    let reading = Reading { by_valkey: true, ..reading(&limits) };
    let content = read::read(kind::HASH_DEADLINES, &mut Reader::new(&bytes), &reading);
    let Ok(Content::Collection(hash)) = content else { panic!("it is read") };
    for (form, kind, version) in
        [(Form::Redis, kind::HASH_DEADLINES_FROM, 10), (Form::Valkey, kind::HASH_DEADLINES, 80)]
    {
        let payload = payload::of_value_as(&hash, form);
        assert_eq!((payload[0], payload[payload.len() - 10]), (kind, version));
        let found = payload::read(&payload, &limits, 0).map(|content| text(&content));
        assert_eq!(found.as_deref(), Ok("hash a=1 b=2@2000 c=3@3000"));
    }
}

#[test]
fn packed_forms_that_contradict_themselves_are_refused() {
    for at in 0..ZIPLIST.len() {
        let mut damaged = ZIPLIST.to_vec();
        damaged[at] ^= 0x80;
        // The bytes of contents may be others.
        let is_content = matches!(at, 12 | 17 | 18 | 21..=23);
        if !is_content {
            refused(kind::LIST_ZIPLIST, &string(&damaged));
        }
    }
    let listpack = packed(&["a", "300"]);
    for damage in [0, 4, 6, 8, listpack.len() - 1] {
        let mut damaged = listpack.clone();
        damaged[damage] ^= 0x80;
        refused(kind::SET_LISTPACK, &string(&damaged));
    }
}

#[test]
fn payloads_of_other_versions_and_changed_ones_are_refused() {
    let with_version = |version: u16| {
        let mut out = b"\0\x01a".to_vec();
        out.extend_from_slice(&version.to_le_bytes());
        out.extend_from_slice(&checksum::of(&out).to_le_bytes());
        out
    };
    let limits = Limits::default();
    let result = |payload: &[u8]| payload::read(payload, &limits, 0).map(|content| text(&content));
    for version in [6, 9, 10, 11, 12, 80] {
        assert_eq!(result(&with_version(version)).as_deref(), Ok("string a"), "{version}");
    }
    for version in [17, 79, 90, u16::MAX] {
        assert_eq!(result(&with_version(version)), Err(Refusal::VersionOrChecksum), "{version}");
        let unchecked = payload::read_unchecked(&with_version(version), &limits, 0).map(|content| text(&content));
        assert_eq!(unchecked, Err(Refusal::VersionOrChecksum), "{version}");
    }
    let payload = payload::of_string(b"some bytes");
    for at in 0..payload.len() {
        let mut changed = payload.clone();
        changed[at] ^= 1;
        assert_eq!(result(&changed), Err(Refusal::VersionOrChecksum), "{at}");
        if at >= payload.len() - 8 {
            let unchecked = payload::read_unchecked(&changed, &limits, 0).map(|content| text(&content));
            assert_eq!(unchecked.as_deref(), Ok("string some bytes"), "{at}");
        }
        assert_eq!(result(&payload[..at]), Err(Refusal::VersionOrChecksum), "{at}");
    }
    // What redis-server 7.0 answers.
    assert_eq!(payload::of_string(b"10"), b"\0\xc0\n\n\0n\x9fWE\x0e\xaec\xbb");
}

fn elements() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let element = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        any::<i64>().prop_map(|it| it.to_string().into_bytes()),
        any::<i16>().prop_map(|it| it.to_string().into_bytes()),
    ];
    prop::collection::vec(element, 1..300)
}

fn contents(elements: &[Vec<u8>], limits: &Limits) -> Vec<Content> {
    let (mut list, mut hash, mut set, mut sorted_set) = (List::new(), Hash::new(), Set::new(), SortedSet::new());
    let (mut integers, mut timed) = (Set::new(), Hash::new());
    for (number, element) in elements.iter().enumerate() {
        list.push(End::Tail, element, limits);
        hash.set(element, number.to_string().as_bytes(), limits);
        timed.set(element, number.to_string().as_bytes(), limits);
        timed.set_deadline(element, (number % 3 > 0).then_some(5000 + number as u64 * element.len() as u64));
        set.add(element, limits);
        sorted_set.insert(element, number as f64 / 3.0 - 5.0, limits);
        integers.add(element.len().to_string().as_bytes(), limits);
    }
    let mut contents = vec![
        Content::String(elements.concat()),
        Content::Collection(Value::Stream(Box::new(stream_of(elements, limits)))),
    ];
    let (hash, timed) = (Value::Hash(hash), Value::Hash(timed));
    let collections =
        [Value::List(list), hash, timed, Value::Set(set), Value::SortedSet(sorted_set), Value::Set(integers)];
    contents.extend(collections.map(Content::Collection));
    contents
}

/// A stream with entries that have the fields of the first one and others, deleted ones, and groups.
fn stream_of(elements: &[Vec<u8>], limits: &Limits) -> Stream {
    let mut stream = Stream::new();
    for (number, element) in elements.iter().enumerate() {
        let mut items = Vec::new();
        for part in element.chunks(1 + element.len() % 50).take(1 + number % 3) {
            put_bytes(&mut items, if number % 2 == 0 { b"field" } else { part });
            put_bytes(&mut items, part);
        }
        if let Some(fields) = Fields::of_items(&items).filter(|fields| !fields.is_empty()) {
            let id = Id::new(5 + number as u64 * element.len() as u64, number as u64 % 7);
            stream.apply(&Edit::Add { id: id.max(stream.last_id().next().unwrap_or(Id::MAX)), fields }, limits);
        }
    }
    let ids: Vec<Id> = stream.range(Id::MIN, Id::MAX).map(|entry| entry.id).collect();
    for id in ids.iter().step_by(5) {
        stream.apply(&Edit::Delete { id: *id }, limits);
    }
    for (number, group) in elements.iter().take(2).enumerate() {
        let last = ids.get(ids.len() / 2).copied().unwrap_or(Id::MIN);
        stream.apply(&Edit::Group { group, last, read: (number > 0).then_some(ids.len() as u64) }, limits);
        for (at, id) in ids.iter().enumerate() {
            let consumer = if at % 2 == 0 { b"one".as_slice() } else { b"two" };
            let (delivered, count) = (1000 + at as u64, 1 + at as u64 % 3);
            stream.apply(&Edit::Pending { group, consumer, id: *id, delivered, count }, limits);
        }
    }
    stream
}

fn payload_of(content: &Content) -> Vec<u8> {
    match content {
        Content::String(bytes) => payload::of_string(bytes),
        Content::Collection(value) => payload::of_value(value),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_value_comes_back_from_its_payload(elements in elements()) {
        let limits = Limits::default();
        for content in contents(&elements, &limits) {
            let back = payload::read(&payload_of(&content), &limits, 0).expect("a whole payload");
            prop_assert_eq!(text(&back), text(&content));
        }
    }

    /// Behind a right checksum: who damages on purpose computes it too.
    #[test]
    fn damage_does_no_harm(
        elements in elements(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        kind in prop::option::of(0u8..30),
    ) {
        let limits = Limits::default();
        for content in contents(&elements, &limits) {
            let payload = payload_of(&content);
            let mut body = payload[..payload.len() - 10].to_vec();
            for (at, byte) in &damage {
                let at = at.index(body.len());
                body[at] = *byte;
            }
            if let Some(kind) = kind {
                body[0] = kind;
            }
            let result = read::read(body[0], &mut Reader::new(&body[1..]), &reading(&limits));
            if let Ok(Content::Collection(value)) = result {
                prop_assert!(!value.is_empty());
                let mut out = Vec::new();
                write::write(&mut out, &value);
            }
        }
    }

    #[test]
    fn any_bytes_do_no_harm(kind in 0u8..30, bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let limits = Limits::default();
        let _: Result<Content, Damaged> = read::read(kind, &mut Reader::new(&bytes), &reading(&limits));
        let _ = read::read(kind, &mut Reader::new(&string(&bytes)), &reading(&limits));
    }
}
