use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Fields and values in turn, as an edit has them.
fn items(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut items = Vec::new();
    for (field, value) in pairs {
        put_bytes(&mut items, field.as_bytes());
        put_bytes(&mut items, value.as_bytes());
    }
    items
}

fn add(stream: &mut Stream, id: Id, pairs: &[(&str, &str)], limits: &Limits) -> bool {
    let items = items(pairs);
    stream.apply(&Edit::Add { id, fields: Fields::of_items(&items).expect("items") }, limits)
}

type Shown = (Id, Vec<(String, String)>);

fn show(entry: Entry<'_>) -> Shown {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (entry.id, entry.fields.iter().map(|(field, value)| (text(field), text(value))).collect())
}

/// What a stream is, with all that its groups hold.
fn edits(stream: &Stream) -> Vec<Vec<u8>> {
    let mut edits = Vec::new();
    stream.read(&Cursor::default(), usize::MAX, usize::MAX, &mut |edit| edits.push(edit.to_vec()));
    edits
}

#[derive(Clone, Debug)]
enum Step {
    Add(u8, u8),
    Delete(u16),
    Trim(u64, u8),
    From(u16, u8),
    Group(u8, u16),
    DropGroup(u8),
    Consumer(u8, u8, u8),
    DropConsumer(u8, u8),
    Pending(u8, u8, u16, u8),
    Acknowledge(u8, u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..5u8, 0..6u8).prop_map(|(gap, shape)| Step::Add(gap, shape)),
        4 => (0..200u16).prop_map(Step::Delete),
        1 => (0..60u64, 0..3u8).prop_map(|(length, precision)| Step::Trim(length, precision)),
        1 => (0..200u16, 0..3u8).prop_map(|(id, precision)| Step::From(id, precision)),
        1 => (0..3u8, 0..200u16).prop_map(|(group, last)| Step::Group(group, last)),
        1 => (0..9u8).prop_map(Step::DropGroup),
        2 => (0..3u8, 0..4u8, any::<u8>()).prop_map(|(group, consumer, seen)| Step::Consumer(group, consumer, seen)),
        1 => (0..3u8, 0..9u8).prop_map(|(group, consumer)| Step::DropConsumer(group, consumer)),
        6 => (0..3u8, 0..4u8, 0..200u16, 0..9u8).prop_map(|(g, c, id, count)| Step::Pending(g, c, id, count)),
        3 => (0..3u8, 0..200u16).prop_map(|(group, id)| Step::Acknowledge(group, id)),
    ]
}

fn id(number: u16) -> Id {
    Id::new(u64::from(number / 3), u64::from(number % 3))
}

/// The edit of a step, encoded, as a command would make it of the stream.
fn edit_of(step: &Step, stream: &Stream) -> Option<Vec<u8>> {
    let names: [&[u8]; 9] = [b"g", b"a", b"", b"x", b"y", b"z", b"u", b"v", b"w"];
    let name = |number: u8| names[number as usize % 9];
    let precision = |number: u8| match number {
        0 => Precision::Exact,
        1 => Precision::Nodes(None),
        _ => Precision::Nodes(Some(7)),
    };
    let edit = match *step {
        Step::Add(gap, shape) => {
            let last = stream.last_id();
            let id = if gap == 0 { last.next()? } else { Id::new(last.ms + u64::from(gap), 1) };
            let value = "v".repeat(shape as usize * 3);
            let pairs = [("field", value.as_str()), ("other", "2"), ("third", "")];
            let items = items(&pairs[..1 + shape as usize % 3]);
            return Some(Edit::Add { id, fields: Fields::of_items(&items)? }.to_bytes());
        }
        Step::Delete(number) => Edit::Delete { id: id(number) },
        Step::Trim(length, number) => {
            Edit::Trim { through: stream.trim_bound(Keep::Newest(length), precision(number))? }
        }
        Step::From(from, number) => Edit::Trim { through: stream.trim_bound(Keep::From(id(from)), precision(number))? },
        Step::Group(group, last) => Edit::Group { group: name(group), last: id(last), read: None },
        Step::DropGroup(group) => Edit::DropGroup { group: name(group) },
        Step::Consumer(group, consumer, seen) => {
            Edit::Consumer { group: name(group), consumer: name(consumer), seen: u64::from(seen), active: None }
        }
        Step::DropConsumer(group, consumer) => Edit::DropConsumer { group: name(group), consumer: name(consumer) },
        Step::Pending(group, consumer, number, count) => {
            let (group, consumer, count) = (name(group), name(consumer), u64::from(count));
            Edit::Pending { group, consumer, id: id(number), delivered: 5, count }
        }
        Step::Acknowledge(group, number) => Edit::Acknowledge { group: name(group), id: id(number) },
    };
    Some(edit.to_bytes())
}

/// Counted memory is that of what is there.
fn check_memory(stream: &Stream) {
    let nodes: usize = stream.nodes.values().map(|node| NODE_BYTES + node.memory_bytes()).sum();
    let groups: usize = stream.groups.iter().map(|(name, group)| name.len() + group.memory_bytes()).sum();
    assert_eq!(stream.memory, nodes + groups);
    let elements: usize = stream.groups.values().map(Group::element_count).sum();
    assert_eq!(stream.group_elements, elements);
    assert_eq!(stream.length, stream.nodes.values().map(Node::live_count).sum::<usize>());
    for group in stream.groups.values() {
        let of_consumers: usize = group.consumers().map(Consumer::pending_count).sum();
        assert_eq!(of_consumers, group.pending_count());
        let mut by_time: Vec<_> = group.pending_between(Id::MIN, Id::MAX).map(|it| (it.delivered, it.id)).collect();
        by_time.sort_unstable();
        assert_eq!(group.pending_until(u64::MAX).map(|it| (it.delivered, it.id)).collect::<Vec<_>>(), by_time);
        assert_eq!(group.next_delivery(3), by_time.iter().map(|(delivered, _)| *delivered).find(|time| *time > 3));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 64 } else { 512 }))]

    #[test]
    fn a_stream_is_what_a_map_of_entries_is(
        steps in prop::collection::vec(step(), 1..150),
        entries in 0..6usize,
        bytes in prop_oneof![Just(0), Just(40), Just(4096)],
        bounds in prop::collection::vec((0..200u16, 0..200u16), 4),
    ) {
        let limits = Limits { stream_node_max_entries: entries, stream_node_max_bytes: bytes, ..Limits::default() };
        let (mut stream, mut model) = (Stream::new(), BTreeMap::new());
        for step in &steps {
            let Some(bytes) = edit_of(step, &stream) else { continue };
            let edit = Edit::decode(&bytes).expect("what was encoded");
            let length = stream.len();
            let has_changed = stream.apply(&edit, &limits);
            match edit {
                Edit::Add { id, fields } => {
                    prop_assert!(has_changed);
                    model.insert(id, show(Entry { id, fields }));
                }
                Edit::Delete { id } => prop_assert_eq!(model.remove(&id).is_some(), has_changed),
                Edit::Trim { through } => {
                    model.retain(|id, _| *id > through);
                    match step {
                        Step::Trim(kept, 0) => prop_assert_eq!(stream.len() as u64, *kept),
                        Step::Trim(kept, _) => prop_assert!(stream.len() as u64 >= *kept && stream.len() < length),
                        Step::From(from, 0) => prop_assert!(stream.first().is_none_or(|entry| entry.id >= id(*from))),
                        _ => prop_assert!(stream.len() < length),
                    }
                }
                _ => {}
            }
            prop_assert_eq!(stream.len(), model.len());
            check_memory(&stream);
        }
        for (first, last) in bounds {
            let (first, last) = (id(first), id(last));
            let expected: Vec<Shown> =
                model.values().filter(|entry| first <= entry.0 && entry.0 <= last).cloned().collect();
            prop_assert_eq!(stream.range(first, last).map(show).collect::<Vec<_>>(), expected.clone());
            let mut back: Vec<Shown> = stream.range_back(first, last).map(show).collect();
            back.reverse();
            prop_assert_eq!(back, expected);
            prop_assert_eq!(stream.get(first).map(show), model.get(&first).cloned());
        }
        let mut copy = Stream::new();
        for edit in edits(&stream) {
            copy.apply(&Edit::decode(&edit).expect("an edit"), &Limits::default());
        }
        prop_assert_eq!(edits(&copy), edits(&stream));
    }

    /// Read piece by piece, while edits go on of which those are passed on that concern what has been read.
    #[test]
    fn pieces_and_edits_in_between_make_the_same_stream(
        before in prop::collection::vec(step(), 1..120),
        between in prop::collection::vec((step(), 0..4usize), 0..80),
    ) {
        let limits = Limits { stream_node_max_entries: 3, ..Limits::default() };
        let (mut stream, mut copy) = (Stream::new(), Stream::new());
        for step in &before {
            if let Some(bytes) = edit_of(step, &stream) {
                stream.apply(&Edit::decode(&bytes).expect("an edit"), &limits);
            }
        }
        let (mut cursor, mut is_read) = (Cursor::default(), false);
        for (step, pieces) in &between {
            for _ in 0..*pieces {
                if !is_read {
                    let mut put = |edit: &[u8]| _ = copy.apply(&Edit::decode(edit).expect("an edit"), &limits);
                    match stream.read(&cursor, 2, 30, &mut put) {
                        Some(next) => cursor = next,
                        None => is_read = true,
                    }
                }
            }
            let Some(bytes) = edit_of(step, &stream) else { continue };
            let edit = Edit::decode(&bytes).expect("an edit");
            if is_read || cursor.is_behind(&edit) {
                copy.apply(&edit, &limits);
            }
            stream.apply(&edit, &limits);
        }
        if !is_read {
            let mut put = |edit: &[u8]| _ = copy.apply(&Edit::decode(edit).expect("an edit"), &limits);
            prop_assert_eq!(stream.read(&cursor, usize::MAX, usize::MAX, &mut put), None);
        }
        prop_assert_eq!(edits(&copy), edits(&stream));
    }

    #[test]
    fn damaged_edits_are_refused_or_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..40), tag in 0..12u8) {
        let bytes = [&[tag], &bytes[..]].concat();
        if let Some(edit) = Edit::decode(&bytes) {
            Stream::new().apply(&edit, &Limits::default());
        }
    }
}

#[test]
fn entries_with_the_same_fields_do_not_repeat_them() {
    let limits = Limits::default();
    let (mut same, mut other) = (Stream::new(), Stream::new());
    for number in 1..=80 {
        add(&mut same, Id::new(number, 0), &[("a long name of a field", "1"), ("b", "2")], &limits);
        add(&mut other, Id::new(number, 0), &[(&format!("a long name of a fiel{number}"), "1"), ("b", "2")], &limits);
    }
    let bytes = |stream: &Stream| stream.nodes.values().map(Node::memory_bytes).sum::<usize>();
    assert!(bytes(&same) * 2 < bytes(&other), "{} {}", bytes(&same), bytes(&other));
    assert_eq!(same.node_count(), 1);
    assert!(same.range(Id::MIN, Id::MAX).all(|entry| show(entry).1[1] == ("b".to_owned(), "2".to_owned())));
}

#[test]
fn ids_only_rise() {
    let (mut stream, limits) = (Stream::new(), Limits::default());
    assert!(add(&mut stream, Id::new(5, 5), &[("a", "1")], &limits));
    assert!(!add(&mut stream, Id::new(5, 5), &[("a", "1")], &limits));
    assert!(stream.apply(&Edit::Delete { id: Id::new(5, 5) }, &limits));
    assert!(!add(&mut stream, Id::new(5, 4), &[("a", "1")], &limits));
    assert_eq!((stream.len(), stream.last_id(), stream.added(), stream.node_count()), (0, Id::new(5, 5), 1, 0));
}
