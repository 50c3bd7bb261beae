//! Streams: entries with ascending ids, and the groups of consumers that read them.
//!
//! ```text
//!   first id -> Node (packed entries)         sorted by id; the last one is added to
//!   name     -> Group: pending id -> delivery, consumers
//! ```
//! Every change is an [`Edit`]. The greatest id, the greatest deleted id and the count of all entries ever added outlive
//! the entries, so a stream without any stays.

mod codec;
mod cursor;
pub mod edit;
pub mod group;
pub mod id;
mod node;
pub mod references;

use super::Limits;
pub use codec::put_bytes;
pub use cursor::Cursor;
pub use edit::Edit;
pub use group::{Consumer, Group, Pending};
pub use id::Id;
use node::Node;
pub use node::{Entry, Fields};
pub use references::References;
use std::collections::BTreeMap;

/// What a node takes beside its bytes, about: its place in the tree.
const NODE_BYTES: usize = 72;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    nodes: BTreeMap<Id, Node>,
    length: usize,
    /// The greatest id that was ever given.
    pub(super) last: Id,
    max_deleted: Id,
    added: u64,
    groups: BTreeMap<Box<[u8]>, Group>,
    /// Groups, consumers and pending entries.
    group_elements: usize,
    memory: usize,
}

/// How far a stream is trimmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// So many of the newest entries.
    Newest(u64),
    /// Entries from this id on.
    From(Id),
}

/// How exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    Exact,
    /// Whole nodes only, and no more than so many entries; `None`: without limit.
    Nodes(Option<u64>),
}

impl Stream {
    pub fn new() -> Stream {
        Stream::default()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The greatest id that was ever given.
    pub fn last_id(&self) -> Id {
        self.last
    }

    /// The greatest id of a deleted entry (by XDEL; trimming does not count).
    pub fn max_deleted_id(&self) -> Id {
        self.max_deleted
    }

    /// How many entries were ever added.
    pub fn added(&self) -> u64 {
        self.added
    }

    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// The name of the encoding, for OBJECT ENCODING.
    pub fn encoding(&self) -> &'static str {
        "stream"
    }

    /// Entries, groups, consumers and pending entries together: what there is to read.
    pub fn element_count(&self) -> usize {
        self.length + self.group_elements
    }

    /// Bytes allocated, from counters.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Stream>() + self.memory
    }

    pub fn allocation_count(&self) -> usize {
        1 + 2 * self.nodes.len() + 2 * self.group_elements
    }

    // ---- entries ----

    /// The entry with this id.
    pub fn get(&self, id: Id) -> Option<Entry<'_>> {
        let (first, node) = self.nodes.range(..=id).next_back()?;
        node.live(*first).take_while(|entry| entry.id <= id).find(|entry| entry.id == id)
    }

    /// Entries between two ids, both included, in order.
    pub fn range(&self, first: Id, last: Id) -> impl Iterator<Item = Entry<'_>> {
        let begin = self.nodes.range(..=first).next_back().map_or(first, |(id, _)| *id);
        let nodes = self.nodes.range(begin..=last.max(begin));
        nodes
            .flat_map(|(id, node)| node.live(*id))
            .skip_while(move |entry| entry.id < first)
            .take_while(move |entry| entry.id <= last)
    }

    /// The same from the last to the first.
    pub fn range_back(&self, first: Id, last: Id) -> impl Iterator<Item = Entry<'_>> {
        let begin = self.nodes.range(..=first).next_back().map_or(first, |(id, _)| *id);
        let nodes = self.nodes.range(begin..=last.max(begin)).rev();
        nodes
            .flat_map(|(id, node)| node.live(*id).collect::<Vec<_>>().into_iter().rev())
            .skip_while(move |entry| entry.id > last)
            .take_while(move |entry| entry.id >= first)
    }

    pub fn first(&self) -> Option<Entry<'_>> {
        self.range(Id::MIN, Id::MAX).next()
    }

    /// The entry with the greatest id.
    pub fn last(&self) -> Option<Entry<'_>> {
        self.range_back(Id::MIN, Id::MAX).next()
    }

    /// Up to which entry a stream is to be trimmed; `None`: not at all.
    pub fn trim_bound(&self, keep: Keep, precision: Precision) -> Option<Id> {
        let (mut removed, mut through, mut whole) = (0u64, None, None);
        let most = if let Precision::Nodes(Some(most)) = precision { most } else { u64::MAX };
        for (first, node) in &self.nodes {
            let count = node.live_count() as u64;
            let excess = match keep {
                Keep::Newest(kept) => (self.length as u64).saturating_sub(removed).saturating_sub(kept),
                Keep::From(_) => u64::MAX,
            };
            let last = || node.live(*first).last().map(|entry| entry.id);
            let goes_whole = match keep {
                Keep::Newest(_) => excess >= count,
                Keep::From(id) => *first < id && last().is_none_or(|last| last < id),
            };
            if goes_whole && excess > 0 {
                if removed + count > most {
                    break;
                }
                removed += count;
                whole = Some((*first, node));
                continue;
            }
            if precision == Precision::Exact {
                let goes = |entry: &Entry<'_>| !matches!(keep, Keep::From(id) if entry.id >= id);
                let some = usize::try_from(excess).unwrap_or(usize::MAX);
                through = node.live(*first).take(some).take_while(goes).last().map(|entry| entry.id);
            }
            break;
        }
        through.or_else(|| whole.and_then(|(first, node)| node.live(first).last().map(|entry| entry.id)))
    }

    // ---- groups ----

    pub fn group(&self, name: &[u8]) -> Option<&Group> {
        self.groups.get(name)
    }

    /// In the order of their names.
    pub fn groups(&self) -> impl Iterator<Item = (&[u8], &Group)> {
        self.groups.iter().map(|(name, group)| (&**name, group))
    }

    pub fn group_count(&self) -> usize {
        self.groups.len()
    }

    /// Whether an entry from this id on has been deleted, among those that are left.
    pub fn has_gap_from(&self, from: Id) -> bool {
        self.max_deleted != Id::MIN
            && from <= self.max_deleted
            && self.first().is_some_and(|first| first.id <= self.max_deleted)
    }

    /// How many entries were added up to this one, where that can be known.
    pub fn count_through(&self, id: Id) -> Option<u64> {
        if self.added == 0 {
            return Some(0);
        }
        if id == self.last || self.length == 0 && id < self.last {
            return Some(self.added);
        }
        let first = self.first().map_or(Id::MIN, |entry| entry.id);
        if id > self.last || self.max_deleted != Id::MIN && self.max_deleted >= first {
            return None;
        }
        let before = self.added.saturating_sub(self.length as u64);
        match id.cmp(&first) {
            std::cmp::Ordering::Less => Some(before),
            std::cmp::Ordering::Equal => Some(before + 1),
            std::cmp::Ordering::Greater => None,
        }
    }

    // ---- changing ----

    /// Makes one change. False where there was nothing to change.
    pub fn apply(&mut self, edit: &Edit<'_>, limits: &Limits) -> bool {
        match *edit {
            Edit::Add { id, fields } => self.add(id, fields, limits),
            Edit::Counters { last, max_deleted, added } => {
                (self.last, self.max_deleted, self.added) = (last, max_deleted, added);
                true
            }
            Edit::Delete { id } => self.delete(id),
            Edit::Trim { through } => self.trim(through) > 0,
            Edit::Group { group, last, read } => {
                if !self.groups.contains_key(group) {
                    self.add_group(group);
                }
                self.change_group(group, |group| (group.last, group.read) = (last, read)).is_some()
            }
            Edit::DropGroup { group } => self.drop_group(group),
            Edit::Consumer { group, consumer, seen, active } => {
                self.change_group(group, |group| group.put_consumer(consumer, seen, active)).is_some()
            }
            Edit::DropConsumer { group, consumer } => {
                self.change_group(group, |group| group.drop_consumer(consumer)).unwrap_or(false)
            }
            Edit::Pending { group, consumer, id, delivered, count } => {
                self.change_group(group, |group| group.put_pending(consumer, id, delivered, count)).is_some()
            }
            Edit::Acknowledge { group, id } => self.change_group(group, |group| group.acknowledge(id)).unwrap_or(false),
        }
    }

    fn add(&mut self, id: Id, fields: Fields<'_>, limits: &Limits) -> bool {
        if id <= self.last {
            return false;
        }
        match self.nodes.last_entry() {
            Some(mut last) if last.get().has_room(fields, limits) => {
                let (first, node) = (*last.key(), last.get_mut());
                let before = node.memory_bytes();
                node.push(first, id, fields);
                self.memory = self.memory - before + node.memory_bytes();
            }
            full => {
                if let Some(mut full) = full {
                    let before = full.get().memory_bytes();
                    full.get_mut().close();
                    self.memory = self.memory - before + full.get().memory_bytes();
                }
                let node = Node::new(id, fields);
                self.memory += NODE_BYTES + node.memory_bytes();
                self.nodes.insert(id, node);
            }
        }
        self.last = id;
        self.length += 1;
        self.added += 1;
        true
    }

    fn delete(&mut self, id: Id) -> bool {
        let Some((&first, node)) = self.nodes.range_mut(..=id).next_back() else { return false };
        let deleted = node.delete(first, |other| (other <= id).then_some(other == id));
        if deleted == 0 {
            return false;
        }
        self.length -= 1;
        self.max_deleted = self.max_deleted.max(id);
        if node.live_count() == 0 {
            self.drop_node(first);
        }
        true
    }

    fn drop_node(&mut self, first: Id) {
        if let Some(node) = self.nodes.remove(&first) {
            self.memory -= NODE_BYTES + node.memory_bytes();
        }
    }

    /// Removes all entries up to an id. Returns how many there were.
    fn trim(&mut self, through: Id) -> usize {
        let before = self.length;
        while let Some(mut oldest) = self.nodes.first_entry()
            && *oldest.key() <= through
        {
            let (first, node) = (*oldest.key(), oldest.get_mut());
            self.length -= node.delete(first, |id| (id <= through).then_some(true));
            if node.live_count() > 0 {
                break;
            }
            self.drop_node(first);
        }
        before - self.length
    }

    fn add_group(&mut self, name: &[u8]) {
        let group = Group::default();
        self.memory += name.len() + group.memory_bytes();
        self.group_elements += group.element_count();
        self.groups.insert(name.into(), group);
    }

    fn drop_group(&mut self, name: &[u8]) -> bool {
        let Some(group) = self.groups.remove(name) else { return false };
        self.memory -= name.len() + group.memory_bytes();
        self.group_elements -= group.element_count();
        true
    }

    fn change_group<R>(&mut self, name: &[u8], change: impl FnOnce(&mut Group) -> R) -> Option<R> {
        let group = self.groups.get_mut(name)?;
        let before = (group.memory_bytes(), group.element_count());
        let result = change(group);
        self.memory = self.memory - before.0 + group.memory_bytes();
        self.group_elements = self.group_elements - before.1 + group.element_count();
        Some(result)
    }
}

#[cfg(test)]
mod tests;
