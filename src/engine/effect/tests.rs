use super::encode;
use super::*;

/// What was written is read back, whole only, and may be followed by another effect.
fn check(write: impl Fn(&mut Vec<u8>), expected: &str) {
    let mut bytes = Vec::new();
    write(&mut bytes);
    let length = bytes.len();
    write(&mut bytes);
    let mut rest = &bytes[..];
    for _ in 0..2 {
        let read = Effect::decode(&mut rest).expect("an effect");
        assert_eq!(show(&read), expected);
    }
    assert!(rest.is_empty());
    for cut in 0..length {
        assert_eq!(Effect::decode(&mut &bytes[..cut]), None, "{expected} cut at {cut}");
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn show(effect: &Effect<'_>) -> String {
    let items = |items: &Items<'_>| items.iter().map(text).collect::<Vec<_>>().join(",");
    match effect {
        Effect::ListPush { key, side, elements } => format!("push {} {side:?} {}", text(key), items(elements)),
        Effect::ListRemove { key, indexes } => format!("remove {} {:?}", text(key), indexes.iter().collect::<Vec<_>>()),
        Effect::HashSet { key, pairs } => {
            let pairs: Vec<_> = pairs.pairs().map(|(field, value)| text(field) + "=" + &text(value)).collect();
            format!("hash {} {}", text(key), pairs.join(","))
        }
        Effect::HashDeadlines { key, fields } => {
            let fields: Vec<_> = fields.iter().map(|(field, at)| format!("{}@{at:?}", text(field))).collect();
            format!("deadlines {} {}", text(key), fields.join(","))
        }
        Effect::SetAdd { key, members } => format!("add {} {}", text(key), items(members)),
        Effect::StreamEdit { key, edits } => format!("edit {} {}", text(key), items(edits)),
        Effect::SortedSetPut { key, members } => {
            format!("scores {} {:?}", text(key), members.iter().collect::<Vec<_>>())
        }
        Effect::Flush { database, slots } => format!("flush {database:?} {slots}"),
        other => format!("{other:?}"),
    }
}

#[test]
fn every_effect_reads_back() {
    check(
        |out| encode::set_string(out, b"k", b"value", Some(7)),
        &format!("{:?}", Effect::SetString { key: b"k", bytes: b"value", deadline: Some(7) }),
    );
    for (change, result) in [(1, 2), (-1, -300), (i64::MIN, i64::MAX)] {
        let expected = format!("{:?}", Effect::Increment { key: b"k", change, result });
        check(|out| encode::increment(out, b"k", change, result), &expected);
    }
    check(|out| encode::append(out, b"", b"x"), &format!("{:?}", Effect::Append { key: b"", bytes: b"x" }));
    let range = Effect::SetRange { key: b"k", offset: 1 << 40, bytes: b"x" };
    check(|out| encode::set_range(out, b"k", 1 << 40, b"x"), &format!("{range:?}"));
    let deadline = Effect::SetDeadline { key: b"k", deadline: None };
    check(|out| encode::set_deadline(out, b"k", None), &format!("{deadline:?}"));
    check(|out| encode::delete(out, b"k"), &format!("{:?}", Effect::Delete { key: b"k" }));
    check(|out| encode::list_push(out, b"k", Side::Back, [&b"a"[..], b""].into_iter()), "push k Back a,");
    let pop = Effect::ListPop { key: b"k", side: Side::Front, count: 3 };
    check(|out| encode::list_pop(out, b"k", Side::Front, 3), &format!("{pop:?}"));
    let insert = Effect::ListInsert { key: b"k", index: 300, element: b"x" };
    check(|out| encode::list_insert(out, b"k", 300, b"x"), &format!("{insert:?}"));
    let set = Effect::ListSet { key: b"k", index: 0, element: b"" };
    check(|out| encode::list_set(out, b"k", 0, b""), &format!("{set:?}"));
    check(|out| encode::list_remove(out, b"k", [0, 1, 500].into_iter()), "remove k [0, 1, 500]");
    check(|out| encode::hash_set(out, b"k", [(&b"a"[..], &b"1"[..]), (b"b", b"2")].into_iter()), "hash k a=1,b=2");
    let deadlines = [(&b"a"[..], Some(0)), (b"b", None), (b"", Some(1 << 50))];
    check(
        |out| encode::hash_deadlines(out, b"k", deadlines.into_iter()),
        "deadlines k a@Some(0),b@None,@Some(1125899906842624)",
    );
    check(|out| encode::set_add(out, b"k", std::iter::empty()), "add k ");
    check(
        |out| encode::sorted_set_put(out, b"k", [(&b"a"[..], 1.5), (b"b", f64::NEG_INFINITY)].into_iter()),
        &format!("scores k {:?}", [(&b"a"[..], 1.5), (b"b", f64::NEG_INFINITY)]),
    );
    check(|out| encode::stream_edit(out, b"k", [&b"a"[..], b"b"].into_iter()), "edit k a,b");
    let put = Effect::PutValue { key: b"k", image: b"image", deadline: Some(0) };
    check(|out| encode::put_value(out, b"k", Some(0), |out| out.extend(b"image")), &format!("{put:?}"));
    check(|out| encode::rename(out, b"k", b"l"), &format!("{:?}", Effect::Rename { key: b"k", to: b"l" }));
    let copy = Effect::Copy { key: b"k", to: b"l", database: 300 };
    check(|out| encode::copy(out, b"k", b"l", 300), &format!("{copy:?}"));
    check(|out| encode::move_to(out, b"k", 2), &format!("{:?}", Effect::Move { key: b"k", database: 2 }));
    check(encode::flush_slot, "FlushSlot");
    check(encode::clear_slot, "ClearSlot");
    let slots: SlotRanges = [0, 1, 2, 500, 16383].into_iter().filter_map(Slot::new).collect();
    check(|out| encode::flush(out, None, &slots), "flush None 0-2 500 16383");
    check(|out| encode::flush(out, Some(0), &SlotRanges::all()), "flush Some(0) 0-16383");
    let swap = Effect::SwapDatabases { first: 1, second: 200 };
    check(|out| encode::swap_databases(out, 1, 200), &format!("{swap:?}"));
    let after = Position { epoch: Epoch(300), seq: u64::MAX };
    check(|out| encode::begin_epoch(out, after), &format!("{:?}", Effect::BeginEpoch { after }));
}

/// A count or a length that takes more than one byte is moved in behind what is there already.
#[test]
fn long_lists_and_images_read_back() {
    for count in [127, 128, 20_000] {
        let elements: Vec<String> = (0..count).map(|number| number.to_string()).collect();
        let encoded = |out: &mut Vec<u8>| {
            encode::list_push(out, b"key", Side::Front, elements.iter().map(|element| element.as_bytes()));
            encode::put_value(out, b"key", None, |out| out.resize(out.len() + count, b'x'));
        };
        let mut bytes = b"before".to_vec();
        encoded(&mut bytes);
        let mut rest = &bytes[6..];
        let Some(Effect::ListPush { elements: read, .. }) = Effect::decode(&mut rest) else { panic!("a push") };
        assert!(read.iter().eq(elements.iter().map(|element| element.as_bytes())));
        let Some(Effect::PutValue { image, .. }) = Effect::decode(&mut rest) else { panic!("a value") };
        assert!(image.len() == count && image.iter().all(|byte| *byte == b'x') && rest.is_empty());
    }
}

#[test]
fn bytes_that_are_no_effect_are_refused() {
    let mut odd = Vec::new();
    encode::list_push(&mut odd, b"k", Side::Front, [&b"a"[..]].into_iter());
    odd[0] = tags::HASH_SET;
    odd.remove(3);
    let mut not_a_number = Vec::new();
    encode::sorted_set_put(&mut not_a_number, b"k", [(&b"a"[..], f64::NAN)].into_iter());
    let mut descending = vec![tags::FLUSH, 0, 2];
    descending.extend([9, 9, 3, 3]);
    let cases = [&[][..], &[0], &[6, 1, b'k'], &[255, 1, b'k'], &odd, &not_a_number, &descending];
    for bytes in cases {
        assert_eq!(Effect::decode(&mut &bytes[..]), None, "{bytes:?}");
    }
    // A count that promises more than there is costs nothing.
    assert_eq!(Effect::decode(&mut &[tags::SET_ADD, 1, b'k', 0xff, 0xff, 0xff, 0xff, 0x7f][..]), None);
}
