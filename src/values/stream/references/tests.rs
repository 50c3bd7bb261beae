use super::*;
use crate::values::Limits;
use crate::values::stream::Fields;

/// A stream of the entries 1-0 to `count`-0, three in a node, with groups: what each has had, and what is pending there.
fn stream(count: u64, groups: &[(&str, u64, &[u64])]) -> Stream {
    let limits = Limits { stream_node_max_entries: 3, ..Limits::default() };
    let mut stream = Stream::new();
    for ms in 1..=count {
        let fields = Fields::of_items(b"").expect("no fields");
        assert!(stream.apply(&Edit::Add { id: Id::new(ms, 0), fields }, &limits));
    }
    for (name, last, pending) in groups {
        let group = name.as_bytes();
        stream.apply(&Edit::Group { group, last: Id::new(*last, 0), read: None }, &limits);
        for ms in *pending {
            let edit = Edit::Pending { group, consumer: b"c", id: Id::new(*ms, 0), delivered: 1, count: 1 };
            stream.apply(&edit, &limits);
        }
    }
    stream
}

/// The entries that trimming takes.
fn trimmed(stream: &Stream, keep: Keep, precision: Precision) -> (Vec<u64>, bool) {
    let unneeded = stream.trim_unneeded(keep, precision).unwrap_or_default();
    (unneeded.ids.iter().map(|id| id.ms).collect(), unneeded.is_front)
}

#[test]
fn an_entry_is_needed_where_it_is_pending_and_where_it_has_not_been_read() {
    let stream = stream(9, &[("a", 7, &[2, 4]), ("b", 5, &[4])]);
    let ids: Vec<Id> = (0..12).map(|ms| Id::new(ms, 0)).collect();
    let pendings = stream.pendings(&ids);
    let needed: Vec<u64> = ids.iter().filter(|id| pendings.needs(**id, None)).map(|id| id.ms).collect();
    assert_eq!(needed, [2, 4, 6, 7, 8, 9, 10, 11]);
    assert!(!pendings.needs(Id::new(2, 0), Some(b"a")) && pendings.needs(Id::new(4, 0), Some(b"a")));
    assert_eq!(pendings.groups(Id::new(4, 0)).collect::<Vec<_>>(), [b"a", b"b"]);
    // A few ids, of which many are pending.
    assert_eq!(stream.pendings(&[Id::new(4, 0)]).groups(Id::new(4, 0)).count(), 2);
}

#[test]
fn trimming_takes_what_nobody_needs_until_the_length_is_right() {
    let stream = stream(9, &[("a", 9, &[2, 4]), ("b", 7, &[])]);
    let exact = |keep| trimmed(&stream, keep, Precision::Exact);
    assert_eq!(exact(Keep::Newest(8)), (vec![1], true));
    assert_eq!(exact(Keep::Newest(6)), (vec![1, 3, 5], false));
    assert_eq!(exact(Keep::Newest(0)), (vec![1, 3, 5, 6, 7], false));
    assert_eq!(exact(Keep::From(Id::new(4, 0))), (vec![1, 3], false));
    assert_eq!(exact(Keep::Newest(9)), (vec![], false));
    let whole = |keep, most| trimmed(&stream, keep, Precision::Nodes(most));
    assert_eq!(whole(Keep::Newest(2), None), (vec![1, 3, 5, 6], false));
    assert_eq!(whole(Keep::Newest(2), Some(4)), (vec![1, 3], false));
}

#[test]
fn without_groups_trimming_takes_what_it_would_take() {
    let stream = stream(3000, &[]);
    let (ids, is_front) = trimmed(&stream, Keep::Newest(10), Precision::Exact);
    assert_eq!((ids.len(), is_front), (2990, true));
}
