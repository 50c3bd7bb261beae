//! The large form of a hash: a table of pairs, each of which has its deadline with it.

use super::Stored;
use super::order::{Key, Order};
use super::pair::Pair;
use crate::values::hashing::table_hash;
use crate::values::packed::size_class;
use crate::values::segments::Segments;

/// See the module.
#[derive(Debug, Default, Clone)]
pub(super) struct Table {
    pub(super) pairs: Segments<Pair>,
    /// Allocations of all pairs.
    pub(super) bytes: usize,
    /// Of those that have deadlines, where some do.
    pub(super) order: Option<Box<Order>>,
}

impl Table {
    #[inline]
    pub(super) fn find(&self, field: &[u8]) -> Option<&Pair> {
        self.pairs.find(table_hash(field), |pair| pair.field() == field)
    }

    /// Bytes allocated, not walked.
    #[inline]
    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes + self.pairs.allocation_bytes() + self.order.as_ref().map_or(0, |order| order.memory_bytes())
    }

    pub(super) fn allocation_count(&self) -> usize {
        self.pairs.len() + self.order.as_ref().map_or(0, |order| order.allocation_count())
    }

    /// Sets a field, which then has no deadline. One that has expired at this moment counts as added.
    pub(super) fn set(&mut self, field: &[u8], value: &[u8], now_ms: u64) -> Stored {
        if let Some(pair) = self.pairs.find_mut(table_hash(field), |pair| pair.field() == field) {
            let old = pair.value_mut();
            let deadline = if old.len() == value.len() {
                old.copy_from_slice(value);
                pair.deadline()
            } else {
                let deadline = pair.deadline();
                self.bytes -= pair.allocation_bytes();
                *pair = Pair::new(field, value).with_deadline(deadline);
                self.bytes += pair.allocation_bytes();
                deadline
            };
            return deadline.map_or(Stored::Replaced, |deadline| self.lose_deadline(field, deadline, now_ms));
        }
        self.insert_unique(Pair::new(field, value));
        Stored::Added
    }

    /// Adds a pair without a deadline, whose field is known to be absent.
    pub(super) fn insert_unique(&mut self, pair: Pair) {
        self.bytes += pair.allocation_bytes();
        self.pairs.insert_unique(pair.hash(), pair, Pair::hash);
    }

    /// Removes a field, and its deadline; whether it existed.
    pub(super) fn remove(&mut self, field: &[u8]) -> bool {
        let hash = table_hash(field);
        let Some(pair) = self.pairs.remove(hash, |pair| pair.field() == field, Pair::hash) else { return false };
        self.bytes -= pair.allocation_bytes();
        if let Some(deadline) = pair.deadline() {
            self.forget(Key::new(deadline, hash));
        }
        true
    }

    // ---- deadlines ----

    /// When the first field expires, in Unix milliseconds.
    #[inline]
    pub(super) fn first_deadline(&self) -> Option<u64> {
        self.order.as_ref()?.first().map(Key::deadline)
    }

    /// Sets or clears the deadline of a field; false where there is no such field.
    pub(super) fn set_deadline(&mut self, field: &[u8], deadline: Option<u64>) -> bool {
        let hash = table_hash(field);
        let Some(pair) = self.pairs.find_mut(hash, |pair| pair.field() == field) else { return false };
        let old = pair.deadline();
        if old == deadline {
            return true;
        }
        self.bytes -= pair.allocation_bytes();
        *pair = std::mem::take(pair).with_deadline(deadline);
        self.bytes += pair.allocation_bytes();
        if let Some(deadline) = deadline {
            self.order.get_or_insert_default().insert(Key::new(deadline, hash));
        }
        if let Some(old) = old {
            self.forget(Key::new(old, hash));
        }
        true
    }

    /// Removes the field whose deadline has passed first at this moment; its name.
    pub(super) fn remove_first_due(&mut self, now_ms: u64) -> Option<Box<[u8]>> {
        let key = self.order.as_ref()?.first().filter(|key| key.deadline() <= now_ms)?;
        let is_it = |pair: &Pair| pair.deadline().is_some_and(|deadline| Key::new(deadline, pair.hash()) == key);
        let found = self.pairs.find(key.hash(), is_it).map(|pair| Box::from(pair.field()));
        // Invariant: for each key there is a pair.
        debug_assert!(found.is_some(), "a deadline of no field");
        match &found {
            Some(field) => _ = self.remove(field),
            None => self.forget(key),
        }
        found
    }

    #[cold]
    #[inline(never)]
    fn lose_deadline(&mut self, field: &[u8], deadline: u64, now_ms: u64) -> Stored {
        self.set_deadline(field, None);
        if deadline <= now_ms { Stored::Added } else { Stored::Replaced }
    }

    fn forget(&mut self, key: Key) {
        if let Some(order) = &mut self.order {
            order.remove(key);
            // A hash without any does not pay for them.
            if order.is_empty() {
                self.order = None;
            }
        }
    }
}

impl Pair {
    #[inline]
    fn allocation_bytes(&self) -> usize {
        size_class(self.byte_len())
    }
}
