//! What changes save for a snapshot, and what it has done of the slots: shared by whoever writes and the walk.

use super::Record;
use super::walk::Part;
use crate::base::slot::Slot;
use crate::engine::Engine;
use crate::engine::entry::Entry;
use crate::engine::shard::SlotTable;
use crate::values::hashing::table_hash;
use parking_lot::Mutex;
use std::collections::BTreeSet;

/// Bytes of old values that may wait to be taken before writers wait. Above it comes what those change who execute already.
const SAVED_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What changes have to save for a snapshot.
#[derive(Debug, Default)]
pub(in crate::engine) struct Snapshots {
    pub(super) state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) runs: bool,
    /// The number of the last snapshot.
    pub(super) number: u8,
    /// The last one that was read to its end: since then every mark lies from this number to `number`.
    pub(super) complete: u8,
    /// By the number of a database now: the one it had at the cut.
    pub(super) origins: Vec<usize>,
    /// One bit for every slot and database of the cut: nothing in it is owed any more.
    pub(super) done: Vec<u64>,
    /// One bit for every slot: nothing large in it is owed any more.
    pub(super) large_done: Vec<u64>,
    /// Slots whose writers wait for that.
    pub(super) wanted: BTreeSet<Slot>,
    pub(super) saved: Vec<Saved>,
    /// Bytes of saved entries. Tables are not in it: they are no more than was there at the cut.
    pub(super) bytes: u64,
    /// Writers wait.
    pub(super) is_full: bool,
}

/// Values that were there at the cut, and have changed or gone since. Their databases are those of the cut.
#[derive(Debug)]
pub(super) enum Saved {
    Entry(usize, Slot, Entry),
    /// Entries with the snapshot's own mark in it are not part of it.
    Table(usize, Slot, SlotTable),
}

impl Saved {
    /// Hands out what is owed of it. What has been handed out carries the snapshot's mark.
    pub(super) fn hand_out(&self, mark: u8, visit: &mut impl FnMut(Record<'_>)) {
        match self {
            Saved::Entry(_, _, entry) if entry.mark() == mark => {}
            Saved::Entry(database, slot, entry) => visit(Record::Entry { database: *database, slot: *slot, entry }),
            Saved::Table(database, slot, table) => {
                let owed = table.entries.iter().filter(|entry| entry.mark() != mark);
                owed.for_each(|entry| visit(Record::Entry { database: *database, slot: *slot, entry }));
            }
        }
    }

    /// The entry that was being read in parts, if it is this one, or in it.
    pub(super) fn find(&mut self, mark: u8, part: &Part) -> Option<&mut Entry> {
        let is_it = |entry: &Entry| entry.mark() != mark && entry.key() == &*part.key;
        match self {
            Saved::Entry(database, _, entry) => (*database == part.database && is_it(entry)).then_some(entry),
            Saved::Table(database, slot, table) if (*database, *slot) == (part.database, part.slot) => {
                table.entries.find_mut(table_hash(&part.key), is_it)
            }
            Saved::Table(..) => None,
        }
    }
}

impl State {
    fn done_bit(&self, slot: usize, origin: usize) -> (usize, u64) {
        let bit = slot * self.origins.len() + origin;
        (bit / 64, 1 << (bit % 64))
    }

    fn is_done(&self, slot: usize, origin: usize) -> bool {
        let (word, bit) = self.done_bit(slot, origin);
        self.done[word] & bit != 0
    }

    pub(super) fn set_done(&mut self, slot: usize, origin: usize) {
        let (word, bit) = self.done_bit(slot, origin);
        self.done[word] |= bit;
    }

    fn is_large_done(&self, slot: Slot) -> bool {
        self.large_done[slot.index() / 64] & 1 << (slot.index() % 64) != 0
    }
}

impl Engine {
    /// Saves a copy of an entry that is going to change, if it is still owed. The shard is locked.
    #[cold]
    pub(in crate::engine) fn save_copy_of(&self, mark: u8, database: usize, entry: &mut Entry) {
        if entry.mark() != mark {
            let copy = entry.copied(entry.key());
            entry.set_mark(mark);
            drop(self.push_saved(database, copy));
        }
    }

    /// Saves an entry that was taken out, if it is still owed; else gives it back. The shard is locked.
    #[cold]
    pub(in crate::engine) fn save_entry(&self, mark: u8, database: usize, entry: Entry) -> Option<Entry> {
        if entry.mark() == mark { Some(entry) } else { self.push_saved(database, entry) }
    }

    fn push_saved(&self, database: usize, entry: Entry) -> Option<Entry> {
        let (slot, bytes) = (Slot::of_key(entry.key()), entry.memory_bytes() as u64);
        let mut state = self.snapshots.state.lock();
        if !state.runs {
            return Some(entry);
        }
        let origin = state.origins[database];
        state.bytes += bytes;
        if state.bytes > SAVED_BYTES_MAX && !state.is_full {
            state.is_full = true;
            self.log.set_saved_full(true);
        }
        state.saved.push(Saved::Entry(origin, slot, entry));
        None
    }

    /// Saves the keys of a slot that were taken out, if any of them is still owed; else gives them back. The shard is
    /// locked.
    #[cold]
    pub(in crate::engine) fn save_table(&self, slot: Slot, database: usize, table: SlotTable) -> Option<SlotTable> {
        let mut state = self.snapshots.state.lock();
        if !state.runs {
            return Some(table);
        }
        let origin = state.origins[database];
        if state.is_done(slot.index(), origin) {
            return Some(table);
        }
        // What comes to this place from here on carries the mark.
        state.set_done(slot.index(), origin);
        state.saved.push(Saved::Table(origin, slot, table));
        None
    }
}

impl Snapshots {
    /// Two databases are exchanged. All shards are locked.
    #[cold]
    pub(in crate::engine) fn swap(&self, first: usize, second: usize) {
        let mut state = self.state.lock();
        if state.runs {
            state.origins.swap(first, second);
        }
    }

    /// The number that a database of the cut has now, unless nothing of it is owed any more in this slot.
    pub(super) fn owed(&self, slot: usize, origin: usize) -> Option<usize> {
        let state = self.state.lock();
        if state.is_done(slot, origin) { None } else { state.origins.iter().position(|&it| it == origin) }
    }

    /// Whether something large in a slot may be owed. It is read next then.
    #[cold]
    pub(in crate::engine) fn wants(&self, slot: Slot) -> bool {
        let mut state = self.state.lock();
        let wants = state.runs && !state.is_large_done(slot);
        if wants {
            state.wanted.insert(slot);
        }
        wants
    }

    pub(super) fn next_wanted(&self) -> Option<Slot> {
        self.state.lock().wanted.first().copied()
    }

    /// Nothing large in a slot is owed any more. Whether somebody waits for that, and has to be told.
    pub(super) fn set_large_done(&self, slot: Slot) -> bool {
        let mut state = self.state.lock();
        state.large_done[slot.index() / 64] |= 1 << (slot.index() % 64);
        state.wanted.remove(&slot)
    }
}
