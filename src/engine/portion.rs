//! A portion of a value: as much as is read under one lock, from a place that depends on nothing but the elements.
//!
//! Such a place means the same in a copy of the value, and whatever its table has been through since.

use super::entry::Entry;
use crate::values::Value;
use crate::values::element::{Digits, Element};
use crate::values::stream::Cursor;
use std::ops::Range;

/// What is read under one lock, at most: a lock is held for well below a millisecond then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Portion {
    /// Elements of collections; a string counts as one.
    pub(super) elements: usize,
    pub(super) bytes: usize,
}

pub(super) const PORTION: Portion = Portion { elements: 512, bytes: 128 * 1024 };

/// Where reading goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Resume {
    /// An index in a list, an offset in a string, or a hash position.
    At(u64),
    /// In a stream.
    Stream(Cursor),
}

/// Elements that were read, one behind the other: of a hash each field and its value, of a string some of its
/// bytes, of a stream the edits that make it.
#[derive(Debug, Default)]
pub struct Elements {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// Of the members of a sorted set.
    scores: Vec<f64>,
    /// Of the fields of a hash of which some have deadlines.
    deadlines: Vec<Option<u64>>,
}

impl Portion {
    /// Reads what is next in a value from a place on; `None` at first. Returns where to go on; `None` at the end.
    pub(super) fn read(self, entry: &Entry, from: Option<&Resume>, elements: &mut Elements) -> Option<Resume> {
        if let Some(Value::Stream(stream)) = entry.as_value() {
            let begin = Cursor::default();
            let from = if let Some(Resume::Stream(from)) = from { from } else { &begin };
            let mut put = |edit: &[u8]| elements.put(Element::Bytes(edit));
            return stream.read(from, self.elements, self.bytes, &mut put).map(Resume::Stream);
        }
        let from = if let Some(Resume::At(from)) = from { *from } else { 0 };
        self.read_at(entry, from, elements).map(Resume::At)
    }

    /// The same from an index in a list, an offset in a string, or else a hash position. Packed collections, which are
    /// small, come whole.
    fn read_at(self, entry: &Entry, from: u64, elements: &mut Elements) -> Option<u64> {
        let Some(value) = entry.as_value() else { return self.read_string(entry, from, elements) };
        let element_bytes = value.memory_bytes() / value.len().max(1);
        let count = (self.bytes / element_bytes.max(1)).clamp(1, self.elements);
        // What is no position is behind the last of them.
        let position = u32::try_from(from);
        match value {
            Value::List(list) => {
                let mut next = from;
                for element in list.range(usize::try_from(from).unwrap_or(usize::MAX), self.elements) {
                    elements.put(element);
                    next += 1;
                    if elements.bytes.len() >= self.bytes {
                        break;
                    }
                }
                (next < list.len() as u64).then_some(next)
            }
            Value::Set(set) => set.scan(position.ok()?, count, |member| elements.put(member)).map(u64::from),
            Value::Hash(hash) => {
                let is_timed = hash.first_deadline().is_some();
                let put = |field: Element<'_>, value: Element<'_>, deadline: Option<u64>| {
                    if is_timed {
                        elements.deadlines.push(deadline);
                    }
                    elements.put(field);
                    elements.put(value);
                };
                hash.scan_timed(position.ok()?, count, put).map(u64::from)
            }
            Value::SortedSet(sorted) => {
                let put = |member: Element<'_>, score: f64| {
                    elements.put(member);
                    elements.scores.push(score);
                };
                sorted.scan(position.ok()?, count, put).map(u64::from)
            }
            Value::Stream(_) => None,
        }
    }

    fn read_string(self, entry: &Entry, from: u64, elements: &mut Elements) -> Option<u64> {
        entry.as_string()?.with_bytes(|bytes| {
            let rest = bytes.get(usize::try_from(from).ok()?..)?;
            let read = &rest[..rest.len().min(self.bytes)];
            elements.put(Element::Bytes(read));
            (read.len() < rest.len()).then_some(from + read.len() as u64)
        })
    }
}

impl Elements {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The elements, in the order in which they were read.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.some(0..self.len())
    }

    /// Some of them.
    pub(super) fn some(&self, some: Range<usize>) -> impl Iterator<Item = &[u8]> {
        let mut start = some.start.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.ends[some].iter().map(move |end| &self.bytes[std::mem::replace(&mut start, *end)..*end])
    }

    /// The scores of the members of a sorted set, in the same order.
    pub fn scores(&self) -> &[f64] {
        &self.scores
    }

    /// The deadlines of the fields of a hash, in Unix milliseconds and in the same order; empty where no field has one.
    pub fn deadlines(&self) -> &[Option<u64>] {
        &self.deadlines
    }

    /// Empties it; its memory stays.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.scores.clear();
        self.deadlines.clear();
    }

    fn put(&mut self, element: Element<'_>) {
        self.bytes.extend_from_slice(element.bytes(&mut Digits::new()));
        self.ends.push(self.bytes.len());
    }
}
