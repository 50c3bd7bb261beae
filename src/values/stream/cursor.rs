//! Reading a stream in pieces, as the edits that make it: entries, counters, then group by group.
//!
//! A cursor says where to go on, by ids and names alone: so it means the same whatever has happened to the stream since, and
//! tells which later edits concern what has been read.

use super::edit::Edit;
use super::id::Id;
use super::{Group, Stream};
use std::cmp::Ordering;
use std::ops::Bound;

/// Where reading goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// With the entries from this id on.
    Entries(Id),
    /// With the first group that has this name or a greater one.
    Group(Box<[u8]>),
    /// With the consumers of a group from this name on.
    Consumers(Box<[u8]>, Box<[u8]>),
    /// With what is pending in a group from this id on.
    Pending(Box<[u8]>, Id),
}

impl Default for Cursor {
    fn default() -> Self {
        Cursor::Entries(Id::MIN)
    }
}

impl Cursor {
    /// Whether an edit, made after what is before the cursor was read, changes something of that.
    pub fn is_behind(&self, edit: &Edit<'_>) -> bool {
        let Cursor::Entries(from) = self else { return self.is_behind_in_groups(edit) };
        match edit {
            Edit::Delete { id } => id < from,
            Edit::Trim { .. } => true,
            _ => false,
        }
    }

    fn is_behind_in_groups(&self, edit: &Edit<'_>) -> bool {
        let Some(group) = edit.group() else { return true };
        let (Cursor::Group(reached) | Cursor::Consumers(reached, _) | Cursor::Pending(reached, _)) = self else {
            return false;
        };
        match (group.cmp(reached), self) {
            (Ordering::Less, _) => true,
            (Ordering::Greater, _) | (_, Cursor::Group(_) | Cursor::Entries(_)) => false,
            (Ordering::Equal, Cursor::Consumers(_, from)) => match edit {
                Edit::Consumer { consumer, .. } | Edit::DropConsumer { consumer, .. } => *consumer < &**from,
                Edit::Pending { .. } | Edit::Acknowledge { .. } => false,
                _ => true,
            },
            (Ordering::Equal, Cursor::Pending(_, from)) => match edit {
                Edit::Pending { id, .. } | Edit::Acknowledge { id, .. } => id < from,
                _ => true,
            },
        }
    }
}

/// How much is read at once.
struct Budget {
    edits: usize,
    bytes: usize,
    buffer: Vec<u8>,
}

impl Budget {
    /// Hands out an edit. False where that was the last one.
    fn put(&mut self, edit: Edit<'_>, put: &mut dyn FnMut(&[u8])) -> bool {
        self.buffer.clear();
        edit.encode(&mut self.buffer);
        put(&self.buffer);
        self.edits = self.edits.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(self.buffer.len());
        self.edits > 0 && self.bytes > 0
    }
}

impl Stream {
    /// Hands out encoded edits from a cursor on: so many, and so many bytes, about. Returns where to go on; `None` at the end.
    pub fn read(&self, from: &Cursor, edits: usize, bytes: usize, put: &mut dyn FnMut(&[u8])) -> Option<Cursor> {
        let mut budget = Budget { edits, bytes, buffer: Vec::new() };
        let mut cursor = from.clone();
        loop {
            let (next, has_room) = match &cursor {
                Cursor::Entries(from) => self.read_entries(*from, &mut budget, put),
                Cursor::Group(from) => self.read_group(from, &mut budget, put),
                Cursor::Consumers(name, from) => match self.groups.get(name) {
                    Some(group) => read_consumers(group, name, from, &mut budget, put),
                    None => (Some(Cursor::Group(name.clone())), true),
                },
                Cursor::Pending(name, from) => match self.groups.get(name) {
                    Some(group) => read_pending(group, name, *from, &mut budget, put),
                    None => (Some(Cursor::Group(name.clone())), true),
                },
            };
            cursor = next?;
            if !has_room {
                return Some(cursor);
            }
        }
    }

    fn read_entries(&self, from: Id, budget: &mut Budget, put: &mut dyn FnMut(&[u8])) -> (Option<Cursor>, bool) {
        for entry in self.range(from, Id::MAX) {
            if !budget.put(Edit::Add { id: entry.id, fields: entry.fields }, put)
                && let Some(next) = entry.id.next()
            {
                return (Some(Cursor::Entries(next)), false);
            }
        }
        let counters = Edit::Counters { last: self.last, max_deleted: self.max_deleted, added: self.added };
        let has_room = budget.put(counters, put);
        (Some(Cursor::Group(Box::default())), has_room)
    }

    fn read_group(&self, from: &[u8], budget: &mut Budget, put: &mut dyn FnMut(&[u8])) -> (Option<Cursor>, bool) {
        let mut groups = self.groups.range::<[u8], _>((Bound::Included(from), Bound::Unbounded));
        let Some((name, group)) = groups.next() else { return (None, false) };
        let has_room = budget.put(Edit::Group { group: name, last: group.last, read: group.read }, put);
        (Some(Cursor::Consumers(name.clone(), Box::default())), has_room)
    }
}

fn read_consumers(
    group: &Group,
    name: &[u8],
    from: &[u8],
    budget: &mut Budget,
    put: &mut dyn FnMut(&[u8]),
) -> (Option<Cursor>, bool) {
    for consumer in group.consumers_from(from) {
        let (seen, active) = (consumer.seen, consumer.active);
        if !budget.put(Edit::Consumer { group: name, consumer: &consumer.name, seen, active }, put) {
            return (Some(Cursor::Consumers(name.into(), successor(&consumer.name))), false);
        }
    }
    (Some(Cursor::Pending(name.into(), Id::MIN)), true)
}

fn read_pending(
    group: &Group,
    name: &[u8],
    from: Id,
    budget: &mut Budget,
    put: &mut dyn FnMut(&[u8]),
) -> (Option<Cursor>, bool) {
    for pending in group.pending_between(from, Id::MAX) {
        let (consumer, id, delivered, count) = (pending.consumer, pending.id, pending.delivered, pending.count);
        if !budget.put(Edit::Pending { group: name, consumer, id, delivered, count }, put)
            && let Some(next) = id.next()
        {
            return (Some(Cursor::Pending(name.into(), next)), false);
        }
    }
    (Some(Cursor::Group(successor(name))), true)
}

/// The least name above.
fn successor(name: &[u8]) -> Box<[u8]> {
    [name, &[0]].concat().into()
}
