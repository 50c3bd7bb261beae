use super::*;
use crate::values::{Limits, List};
use proptest::prelude::*;

/// What an entry should hold.
#[derive(Clone, Debug)]
struct Model {
    key: Vec<u8>,
    bytes: Vec<u8>,
    deadline: Option<u64>,
    access: u32,
}

#[derive(Clone, Debug)]
enum Step {
    Set(Vec<u8>, Option<u64>),
    SetInteger(i64),
    Append(Vec<u8>),
    SetDeadline(Option<u64>),
    SetAccess(u32),
    Rename(Vec<u8>),
    Copy(Vec<u8>),
}

fn any_step() -> impl Strategy<Value = Step> {
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        any::<i64>().prop_map(|value| value.to_string().into_bytes()),
        (INLINE_BYTES_MAX - 2..INLINE_BYTES_MAX + 3).prop_map(|length| vec![b'x'; length]),
    ];
    let key = prop::collection::vec(any::<u8>(), 0..100);
    let deadline = prop::option::of(any::<u64>());
    prop_oneof![
        (bytes.clone(), deadline.clone()).prop_map(|(bytes, deadline)| Step::Set(bytes, deadline)),
        any::<i64>().prop_map(Step::SetInteger),
        bytes.prop_map(Step::Append),
        deadline.prop_map(Step::SetDeadline),
        (0..1u32 << 24).prop_map(Step::SetAccess),
        key.clone().prop_map(Step::Rename),
        key.prop_map(Step::Copy),
    ]
}

fn compare(entry: &Entry, model: &Model) {
    assert_eq!(entry.key(), model.key);
    assert_eq!(entry.as_string().map(|string| string.to_vec()).as_ref(), Some(&model.bytes));
    assert_eq!(entry.as_string().map(|string| string.len()), Some(model.bytes.len()));
    assert_eq!(entry.deadline(), model.deadline);
    assert_eq!(entry.access(), model.access);
    assert_eq!(entry.kind(), Kind::String);
    assert!(entry.as_value().is_none());
    assert!(entry.memory_bytes() >= size_of::<Header>() + model.key.len());
}

fn apply(entry: Entry, model: &mut Model, step: Step) -> Entry {
    let mut entry = entry;
    match step {
        Step::Set(bytes, deadline) => {
            entry.set_string(&bytes, deadline);
            (model.bytes, model.deadline) = (bytes, deadline);
        }
        Step::SetInteger(value) => {
            entry.set_integer(value);
            model.bytes = value.to_string().into_bytes();
        }
        Step::Append(bytes) => {
            entry.as_buffer_mut().expect("a string").extend_from_slice(&bytes);
            model.bytes.extend_from_slice(&bytes);
        }
        Step::SetDeadline(deadline) => {
            entry.set_deadline(deadline);
            model.deadline = deadline;
        }
        Step::SetAccess(access) => {
            entry.set_access(access);
            model.access = access;
        }
        Step::Rename(key) => {
            entry = entry.renamed(&key);
            model.key = key;
        }
        Step::Copy(key) => {
            let copy = entry.copied(&key);
            compare(&entry, model);
            entry = copy;
            model.key = key;
        }
    }
    entry
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever is done to a string, in whatever form it is held.
    #[test]
    fn an_entry_is_a_key_a_string_and_a_deadline(steps in prop::collection::vec(any_step(), 1..30)) {
        let mut model = Model { key: b"key".to_vec(), bytes: b"value".to_vec(), deadline: None, access: 7 };
        let mut entry = Entry::string(&model.key, &model.bytes, None, 7);
        for step in steps {
            entry = apply(entry, &mut model, step);
            compare(&entry, &model);
        }
    }
}

#[test]
fn a_collection_keeps_its_elements_through_every_rebuild() {
    let mut list = List::new();
    for element in [b"one".as_slice(), b"two", &[b'x'; 300]] {
        list.push(crate::values::list::End::Tail, element, &Limits::default());
    }
    let mut entry = Entry::value(b"list", Value::List(list), None, 1);
    entry.set_deadline(Some(5));
    let mut entry = entry.copied(b"other").renamed(b"a longer name than before");
    entry.set_deadline(None);
    let Some(Value::List(list)) = entry.as_value_mut() else { panic!("a list") };
    list.push(crate::values::list::End::Head, b"zero", &Limits::default());
    assert_eq!(list.len(), 4);
    assert_eq!((entry.key(), entry.kind()), (b"a longer name than before".as_slice(), Kind::List));
    assert!(entry.as_string().is_none());
    // A string takes the place of a collection.
    entry.set_string(b"text", Some(9));
    assert_eq!(entry.as_string(), Some(StringRef::Bytes(b"text")));
}

#[test]
fn encodings_have_the_names_of_redis() {
    let encoding = |bytes: &[u8]| Entry::string(b"k", bytes, None, 0).encoding();
    assert_eq!(encoding(b"12"), "int");
    assert_eq!(encoding(&[b'x'; 44]), "embstr");
    assert_eq!(encoding(&[b'x'; 45]), "raw");
    let mut entry = Entry::string(b"k", b"short", None, 0);
    entry.as_buffer_mut().expect("a string").push(b'!');
    assert_eq!(entry.encoding(), "raw");
}

#[test]
fn size_classes_are_those_of_the_allocator() {
    for (length, class) in [(1, 16), (16, 16), (17, 32), (128, 128), (129, 160), (161, 192), (1025, 1280)] {
        assert_eq!(size_class(length), class, "{length}");
    }
}
