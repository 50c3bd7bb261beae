//! A key's place in its table, looked up once: what a change there does to the counts.
//!
//! The only place where entries come, change and go one by one: bytes, keys and deadlines are counted here, large values
//! leave through the garbage, and what a change replaces is seen before it is gone.

use super::Engine;
use super::access::Moment;
use super::entry::Entry;
use super::reclaim::{Afterwards, Garbage};
use super::shard::{Counters, SlotTable, is_large};
use crate::values::segments::Index;

/// Values smaller than this are freed on the spot.
const GARBAGE_BYTES_MIN: usize = 4096;

/// What was found under a key, in its table.
pub(super) struct Lookup<'k, 'e> {
    pub(super) table: &'k mut SlotTable,
    pub(super) counters: &'k Counters,
    pub(super) garbage: &'k mut Afterwards<'e>,
    pub(super) database: usize,
    /// Table hash of the key.
    pub(super) hash: u64,
    /// Where the entry stands; `None`: there is no such key.
    pub(super) at: Option<Index>,
    /// What a touched entry gets of the moment.
    pub(super) moment: Moment,
    /// Set where the key is new.
    pub(super) created: &'k mut bool,
    pub(super) engine: &'e Engine,
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
        let (engine, moment) = (self.engine, self.moment);
        self.change_unseen(|entry| {
            let result = change(entry);
            touch(engine, moment, entry);
            result
        })
    }

    /// Changes the entry that was found, as no access, and counts what has become of it.
    #[inline]
    pub(super) fn change_unseen<R>(&mut self, change: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        let mark = self.mark();
        let entry = self.table.entries.get_mut(self.at?)?;
        if self.moment.has_snapshot() {
            self.engine.save_copy_of(mark, self.database, entry);
        }
        self.change_unsaved(change)
    }

    /// Changes the entry that was found, which a snapshot gets as a whole or has already, and counts what has become of it.
    #[inline]
    fn change_unsaved<R>(&mut self, change: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        let entry = self.table.entries.get_mut(self.at?)?;
        let (bytes, timing) = (entry.memory_bytes(), entry.timing());
        let result = change(entry);
        let (bytes_now, timing_now) = (entry.memory_bytes(), entry.timing());
        self.table.resize(self.counters, bytes, bytes_now);
        self.table.count_timing(self.counters, self.database, timing, timing_now);
        Some(result)
    }

    /// Makes the entry that was found another one under the same key, in its place.
    pub(super) fn replace(&mut self, entry: Entry) {
        debug_assert_eq!(entry.mark(), self.mark(), "a new entry is part of no snapshot");
        let old = self.change_unsaved(|place| std::mem::replace(place, entry));
        if let Some(old) = old {
            self.discard(old);
        }
    }

    /// Gives the key a new value, as an access: the entry that was found is changed, an absent one is added. It is replaced
    /// by what `make` makes where its value is large, so that it is not freed under a lock, or a snapshot may have it as it
    /// is.
    #[inline]
    pub(super) fn set(&mut self, make: impl FnOnce(u32) -> Entry, change: impl FnOnce(&mut Entry)) {
        let (engine, moment, mark) = (self.engine, self.moment, self.mark());
        let Some(entry) = self.at.and_then(|at| self.table.entries.get_mut(at)) else {
            return self.insert(make(moment.word()));
        };
        let (bytes, timing) = (entry.memory_bytes(), entry.timing());
        if bytes >= GARBAGE_BYTES_MIN || moment.has_snapshot() && entry.mark() != mark {
            let access = moment.mark_bits() | engine.touched(moment, entry.access());
            return self.replace(make(access));
        }
        change(entry);
        touch(engine, moment, entry);
        let (bytes_now, timing_now) = (entry.memory_bytes(), entry.timing());
        self.table.resize(self.counters, bytes, bytes_now);
        self.table.count_timing(self.counters, self.database, timing, timing_now);
    }

    /// Adds an entry where none was found.
    #[inline]
    pub(super) fn insert(&mut self, entry: Entry) {
        debug_assert!(self.at.is_none(), "the key is absent");
        debug_assert_eq!(entry.mark(), self.mark(), "a new entry is part of no snapshot");
        *self.created = true;
        self.table.insert(self.counters, self.database, self.hash, entry);
    }

    /// Puts an entry there, in place of the one that was found.
    pub(super) fn put(&mut self, mut entry: Entry) {
        entry.set_mark(self.mark());
        if self.at.is_some() { self.replace(entry) } else { self.insert(entry) }
    }

    /// Takes the entry that was found out of the table, to be put elsewhere.
    pub(super) fn take(&mut self) -> Option<Entry> {
        let mut entry = self.table.remove(self.counters, self.database, self.at.take()?)?;
        if self.moment.has_snapshot() {
            self.engine.save_copy_of(self.mark(), self.database, &mut entry);
        }
        Some(entry)
    }

    /// Takes the entry that was found out of the table, and frees it.
    pub(super) fn remove(&mut self) {
        let taken = self.at.take().and_then(|at| self.table.remove(self.counters, self.database, at));
        if let Some(entry) = taken {
            self.discard(entry);
        }
    }

    /// Whether a change of the entry that was found would copy much for a snapshot.
    pub(super) fn is_owed_and_large(&self) -> bool {
        let is_owed = |entry: &Entry| entry.mark() != self.mark() && is_large(entry.memory_bytes());
        self.moment.has_snapshot() && self.entry().is_some_and(is_owed)
    }

    /// The mark of what is made now.
    #[inline]
    fn mark(&self) -> u8 {
        (self.moment.word() >> 24) as u8
    }

    /// Gives an entry that was taken out to the snapshot that needs it, or frees it: a small one now, others when the locks
    /// are released.
    fn discard(&mut self, entry: Entry) {
        let entry = match self.moment.has_snapshot() {
            true => self.engine.save_entry(self.mark(), self.database, entry),
            false => Some(entry),
        };
        let large = entry.filter(|entry| entry.memory_bytes() >= GARBAGE_BYTES_MIN);
        self.garbage.add(large.map(Garbage::Entry));
    }
}

/// Notes an access, where it leaves a trace; an entry keeps its counter where accesses are counted.
#[inline]
fn touch(engine: &Engine, moment: Moment, entry: &mut Entry) {
    let word =
        if moment.is_special() { moment.mark_bits() | engine.touched(moment, entry.access()) } else { moment.word() };
    entry.set_access_word(word);
}
