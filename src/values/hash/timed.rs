//! A packed hash of which some fields have deadlines: these in a list of their own, in the order of the pairs.
//!
//! Each method is a call of its own, so that it costs hashes without deadlines nothing.

use super::Stored;
use crate::values::packed::{Needle, Packed, size_class};

/// In the place of a deadline, for a field that has none.
pub(super) const NEVER: u64 = u64::MAX;

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Timed {
    pub(super) pairs: Packed<false>,
    /// In Unix milliseconds; one for each pair.
    deadlines: Vec<u64>,
}

impl Timed {
    /// Of pairs of which none has a deadline yet.
    #[cold]
    pub(super) fn new(pairs: Packed<false>) -> Self {
        let mut timed = Self { deadlines: Vec::new(), pairs };
        timed.make_room(timed.len());
        timed.deadlines.resize(timed.len(), NEVER);
        timed
    }

    #[inline(never)]
    pub(super) fn len(&self) -> usize {
        self.pairs.len() / 2
    }

    #[inline(never)]
    pub(super) fn memory_bytes(&self) -> usize {
        self.pairs.allocation_bytes() + size_class(self.deadlines.capacity() * size_of::<u64>())
    }

    /// Deadlines in the order of the pairs, `NEVER` among them.
    pub(super) fn deadlines(&self) -> &[u64] {
        &self.deadlines
    }

    /// When the first field expires, or `NEVER`.
    #[inline(never)]
    pub(super) fn first(&self) -> u64 {
        self.deadlines.iter().copied().min().unwrap_or(NEVER)
    }

    /// The deadline of a field, or `NEVER`.
    #[inline(never)]
    pub(super) fn deadline(&self, field: &[u8]) -> u64 {
        self.find(field).map_or(NEVER, |(_, number)| self.deadlines[number])
    }

    /// Gives a field this deadline, or `NEVER`; false where there is no such field.
    #[inline(never)]
    pub(super) fn set_deadline(&mut self, field: &[u8], deadline: u64) -> bool {
        let Some((_, number)) = self.find(field) else { return false };
        self.deadlines[number] = deadline;
        true
    }

    /// Sets a field, which then has no deadline. One that has expired at this moment counts as added.
    #[inline(never)]
    pub(super) fn set(&mut self, field: &[u8], value: &[u8], now_ms: u64) -> Stored {
        if let Some((offset, number)) = self.find(field) {
            self.pairs.replace(self.pairs.next(offset), value);
            let old = std::mem::replace(&mut self.deadlines[number], NEVER);
            return if old <= now_ms { Stored::Added } else { Stored::Replaced };
        }
        self.pairs.push(field);
        self.pairs.push(value);
        self.make_room(1);
        self.deadlines.push(NEVER);
        Stored::Added
    }

    #[inline(never)]
    pub(super) fn remove(&mut self, field: &[u8]) -> bool {
        let Some((offset, number)) = self.find(field) else { return false };
        self.pairs.remove(offset, 2);
        self.deadlines.remove(number);
        true
    }

    /// Offset and number of a pair.
    fn find(&self, field: &[u8]) -> Option<(usize, usize)> {
        let offset = self.pairs.find(0, &Needle::new(field), 2)?;
        let (mut passed, mut number) = (0, 0);
        while passed < offset {
            passed = self.pairs.skip(passed, 2);
            number += 1;
        }
        Some((offset, number))
    }

    /// Room for so many more deadlines, up to the allocator's next size class.
    fn make_room(&mut self, additional: usize) {
        let needed = self.deadlines.len() + additional;
        if needed > self.deadlines.capacity() {
            let capacity = size_class(needed * size_of::<u64>()) / size_of::<u64>();
            self.deadlines.reserve_exact(capacity - self.deadlines.len());
        }
    }
}
