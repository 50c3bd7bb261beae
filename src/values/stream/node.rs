//! A node: some entries one behind the other in one allocation.
//!
//! ```text
//!  count of master fields, field ... | entry | entry | ...
//!
//!  entry:  flags | ms, seq, less those of the first | SAME: value ...
//!                                                   | else: count, field, value ...
//! ```
//! The master fields are those of the first entry: one that has the same, in the same order, does not repeat them. Numbers
//! are LEB128, strings have their length in front. A deleted entry is marked and stays until all of its node are.

use super::codec::{put_bytes, put_integer, take_byte, take_bytes, take_integer};
use super::id::Id;
use crate::values::Limits;

const DELETED: u8 = 1;
/// It has the master fields.
const SAME: u8 = 2;

/// What a node may hold whatever its limits say: it is read from its front to find an entry.
const ENTRIES_MAX: usize = 4096;
const BYTES_MAX: usize = 1 << 20;

#[derive(Clone, Debug)]
pub(super) struct Node {
    bytes: Vec<u8>,
    /// Where the first entry begins.
    entries_at: u32,
    /// Entries, and how many of them are deleted.
    count: u32,
    deleted: u32,
}

/// Fields and their values, as they lie in a node or in an edit.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    count: usize,
    /// Where the fields are, if not each in front of its value.
    masters: Option<&'a [u8]>,
    items: &'a [u8],
}

/// An entry that lies in a stream.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    pub id: Id,
    pub fields: Fields<'a>,
}

/// An entry and where its flags are.
pub(super) struct Placed<'a> {
    at: usize,
    pub(super) is_deleted: bool,
    pub(super) entry: Entry<'a>,
}

impl<'a> Fields<'a> {
    /// Fields and values in turn, each with its length in front; `None` where the bytes are not that.
    pub fn of_items(items: &'a [u8]) -> Option<Fields<'a>> {
        let (mut rest, mut count) = (items, 0);
        while !rest.is_empty() {
            take_bytes(&mut rest)?;
            take_bytes(&mut rest)?;
            count += 1;
        }
        Some(Fields { count, masters: None, items })
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Fields with their values.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let (mut masters, mut items) = (self.masters, self.items);
        let next = move || {
            let field = take_bytes(masters.as_mut().unwrap_or(&mut items)).unwrap_or_default();
            (field, take_bytes(&mut items).unwrap_or_default())
        };
        std::iter::repeat_with(next).take(self.count)
    }

    /// Appends fields and values in turn.
    pub(super) fn put_items(&self, out: &mut Vec<u8>) {
        if self.masters.is_none() {
            return out.extend_from_slice(self.items);
        }
        for (field, value) in self.iter() {
            put_bytes(out, field);
            put_bytes(out, value);
        }
    }
}

impl Node {
    /// Of one entry.
    pub(super) fn new(first: Id, fields: Fields<'_>) -> Node {
        let mut bytes = Vec::with_capacity(64 + fields.items.len());
        put_integer(&mut bytes, fields.len() as u64);
        fields.iter().for_each(|(field, _)| put_bytes(&mut bytes, field));
        let mut node = Node { entries_at: bytes.len() as u32, bytes, count: 0, deleted: 0 };
        node.push(first, first, fields);
        node
    }

    /// Whether one more entry belongs in it.
    pub(super) fn has_room(&self, fields: Fields<'_>, limits: &Limits) -> bool {
        let at_most = |limit: usize, most: usize| if limit == 0 { most } else { limit.min(most) };
        let bytes_max = at_most(limits.stream_node_max_bytes, BYTES_MAX);
        (self.count as usize) < at_most(limits.stream_node_max_entries, ENTRIES_MAX)
            && self.bytes.len() + fields.items.len() < bytes_max
    }

    /// Appends an entry.
    pub(super) fn push(&mut self, first: Id, id: Id, fields: Fields<'_>) {
        let is_same = self.masters().eq(fields.iter().map(|(field, _)| field));
        self.bytes.push(if is_same { SAME } else { 0 });
        put_integer(&mut self.bytes, id.ms.wrapping_sub(first.ms));
        put_integer(&mut self.bytes, id.seq.wrapping_sub(first.seq));
        if is_same {
            fields.iter().for_each(|(_, value)| put_bytes(&mut self.bytes, value));
        } else {
            put_integer(&mut self.bytes, fields.len() as u64);
            fields.put_items(&mut self.bytes);
        }
        self.count += 1;
    }

    fn master_items(&self) -> (usize, &[u8]) {
        let mut bytes = &self.bytes[..self.entries_at as usize];
        (take_integer(&mut bytes).unwrap_or(0) as usize, bytes)
    }

    fn masters(&self) -> impl Iterator<Item = &[u8]> {
        let (count, mut bytes) = self.master_items();
        std::iter::repeat_with(move || take_bytes(&mut bytes).unwrap_or_default()).take(count)
    }

    /// All entries, deleted ones too, in their order.
    pub(super) fn all(&self, first: Id) -> impl Iterator<Item = Placed<'_>> {
        let mut rest = &self.bytes[self.entries_at as usize..];
        let masters = self.master_items();
        std::iter::from_fn(move || {
            let at = self.bytes.len() - rest.len();
            let flags = take_byte(&mut rest)?;
            let ms = take_integer(&mut rest)?.wrapping_add(first.ms);
            let seq = take_integer(&mut rest)?.wrapping_add(first.seq);
            let (count, strings) = match flags & SAME {
                0 => take_integer(&mut rest).map(|count| (count as usize, 2 * count as usize))?,
                _ => (masters.0, masters.0),
            };
            let items = rest;
            for _ in 0..strings {
                take_bytes(&mut rest)?;
            }
            let items = &items[..items.len() - rest.len()];
            let masters = (flags & SAME != 0).then_some(masters.1);
            let entry = Entry { id: Id { ms, seq }, fields: Fields { count, masters, items } };
            Some(Placed { at, is_deleted: flags & DELETED != 0, entry })
        })
    }

    /// Entries that are not deleted.
    pub(super) fn live(&self, first: Id) -> impl Iterator<Item = Entry<'_>> {
        self.all(first).filter(|placed| !placed.is_deleted).map(|placed| placed.entry)
    }

    pub(super) fn live_count(&self) -> usize {
        (self.count - self.deleted) as usize
    }

    /// Marks entries that `is_chosen` as deleted, up to the first for which it is `None`. Returns how many.
    pub(super) fn delete(&mut self, first: Id, mut is_chosen: impl FnMut(Id) -> Option<bool>) -> usize {
        let mut marked: Vec<usize> = Vec::new();
        for placed in self.all(first).filter(|placed| !placed.is_deleted) {
            match is_chosen(placed.entry.id) {
                Some(true) => marked.push(placed.at),
                Some(false) => {}
                None => break,
            }
        }
        marked.iter().for_each(|at| self.bytes[*at] |= DELETED);
        self.deleted += marked.len() as u32;
        marked.len()
    }

    /// Nothing is added any more.
    pub(super) fn close(&mut self) {
        self.bytes.shrink_to_fit();
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes.capacity()
    }
}
