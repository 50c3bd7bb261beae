//! A key's place in its table, looked up once: what a change there does to the counts.
//!
//! The only place where entries come, change and go one by one: bytes, keys and deadlines are counted here, large values
//! leave through the garbage, and what a change replaces is seen before it is gone.

use super::entry::Entry;
use super::reclaim::{Discarded, Garbage};
use super::shard::{Counters, SlotTable};
use crate::values::segments::Index;

/// Values smaller than this are freed on the spot.
const GARBAGE_BYTES_MIN: usize = 4096;

/// What was found under a key, in its table.
pub(super) struct Lookup<'k, 'e> {
    pub(super) table: &'k mut SlotTable,
    pub(super) counters: &'k Counters,
    pub(super) garbage: &'k mut Discarded<'e>,
    pub(super) database: usize,
    /// Table hash of the key.
    pub(super) hash: u64,
    /// Where the entry stands; `None`: there is no such key.
    pub(super) at: Option<Index>,
    pub(super) access_clock: u32,
}

impl Lookup<'_, '_> {
    /// The entry that was found.
    #[inline]
    pub(super) fn entry(&self) -> Option<&Entry> {
        self.table.entries.get(self.at?)
    }

    /// Changes the entry that was found, as an access, and counts what has become of it.
    #[inline]
    pub(super) fn change<R>(&mut self, change: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        let access_clock = self.access_clock;
        self.change_unseen(|entry| {
            let result = change(entry);
            entry.set_access(access_clock);
            result
        })
    }

    /// Changes the entry that was found, as no access, and counts what has become of it.
    #[inline]
    pub(super) fn change_unseen<R>(&mut self, change: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        let entry = self.table.entries.get_mut(self.at?)?;
        let (bytes, deadline) = (entry.memory_bytes(), entry.deadline().is_some());
        let result = change(entry);
        let (bytes_now, deadline_now) = (entry.memory_bytes(), entry.deadline().is_some());
        self.table.resize(self.counters, bytes, bytes_now);
        self.table.count_deadline(self.counters, self.database, deadline, deadline_now);
        Some(result)
    }

    /// Makes the entry that was found another one under the same key, in its place.
    pub(super) fn replace(&mut self, entry: Entry) {
        let old = self.change_unseen(|place| std::mem::replace(place, entry));
        if let Some(old) = old {
            discard(self.garbage, old);
        }
    }

    /// Whether the entry that was found is better replaced as a whole, so that its value is not freed under a lock.
    #[inline]
    pub(super) fn is_large(&self) -> bool {
        self.entry().is_some_and(|entry| entry.memory_bytes() >= GARBAGE_BYTES_MIN)
    }

    /// Adds an entry where none was found.
    #[inline]
    pub(super) fn insert(&mut self, entry: Entry) {
        debug_assert!(self.at.is_none(), "the key is absent");
        self.table.insert(self.counters, self.database, self.hash, entry);
    }

    /// Puts an entry there, in place of the one that was found.
    pub(super) fn put(&mut self, entry: Entry) {
        if self.at.is_some() { self.replace(entry) } else { self.insert(entry) }
    }

    /// Takes the entry that was found out of the table.
    pub(super) fn take(&mut self) -> Option<Entry> {
        self.table.remove(self.counters, self.database, self.at.take()?)
    }

    /// Takes the entry that was found out of the table, and frees it.
    pub(super) fn remove(&mut self) {
        if let Some(entry) = self.take() {
            discard(self.garbage, entry);
        }
    }
}

/// Frees an entry that was taken out: a small one now, others when the locks are released.
pub(super) fn discard(garbage: &mut Discarded<'_>, entry: Entry) {
    if entry.memory_bytes() >= GARBAGE_BYTES_MIN {
        garbage.push(Garbage::Entry(entry));
    }
}
