//! A snapshot: all keys of the node as they were at one moment, read while they change, without a fork.
//!
//! ```text
//!  cut: all locks for a moment       walk: slot by slot, a few entries under a lock      end
//!   | number + 1, place in the log    |  mark is older: handed out, and marked            | what was saved last
//!   v                                 v  mark is the number: new, saved or read already   v
//!  ------------------------------------------------------------------------------------------> time
//!       a change meets an older mark: the old value is saved first, or moved here as it goes
//! ```
//! Goal: exactly the keys of the cut, each once; no lock held for long, nothing copied that need not be. Method: every
//! entry carries the number (8 bits) of the snapshot that it is not part of any more. What is made, saved or read carries
//! the running number, so a mark alone says whether an entry is still owed. Deleting and overwriting move the entry here,
//! changes in place copy it first, flushes move whole tables. SWAPDB exchanges only names: a database is handed out under
//! the number that it had at the cut.
//!
//! What is saved waits for the walk, up to a limit: then writers wait before they execute, as for a slow reader of the log.
//! The walk takes all of it at once, so twice the limit may be in memory, and tables, which are no more than there was at
//! the cut.
//!
//! An entry is handed out whole, and copied whole before its first change in place, RENAME or MOVE, under the lock of its
//! shard: for a collection of many thousand elements that is longer than anything else here takes.
//!
//! Marks wrap. After a walk to the end all marks are equal; a snapshot that is given up leaves several. Before there are
//! no numbers left that no entry carries, one walk is made for their sake alone.

use super::Engine;
use super::entry::Entry;
use super::log::LogOffset;
use super::shard::SlotTable;
use crate::base::identity::Position;
use crate::base::slot::{SLOT_COUNT, Slot};
use parking_lot::Mutex;
use std::sync::Arc;

/// Entries that are read under one lock, at most.
const STEP_ENTRIES: usize = 256;
/// Bytes of entries after which no more are read under a lock.
const STEP_BYTES: usize = 256 * 1024;
/// Bytes of old values that may wait to be taken before writers wait. Above it comes what those change who execute already.
const SAVED_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Slots that one step visits, at most, each under its own lock.
const STEP_SLOTS: usize = 64;

/// One key of a snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The number that its database had at the cut.
    pub database: usize,
    pub slot: Slot,
    /// Its value and deadline at the cut. A deadline may have passed: whoever uses it decides.
    pub entry: &'a Entry,
}

/// Another snapshot has not ended yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotRuns;

impl std::fmt::Display for SnapshotRuns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("another snapshot is running")
    }
}

impl std::error::Error for SnapshotRuns {}

/// A snapshot that is being read. Dropped before its end, it is given up, and leaves nothing behind.
#[derive(Debug)]
pub struct Snapshot {
    engine: Arc<Engine>,
    mark: u8,
    offset: LogOffset,
    positions: Vec<Position>,
    /// Where the walk goes on: slot, database (its number at the cut), position in hash order.
    slot: usize,
    database: usize,
    position: u32,
    has_ended: bool,
}

/// What changes have to save for a snapshot.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    runs: bool,
    /// The number of the last snapshot.
    number: u8,
    /// The last one that was read to its end: since then every mark lies from this number to `number`.
    complete: u8,
    /// By the number of a database now: the one it had at the cut.
    origins: Vec<usize>,
    /// One bit for every slot and database of the cut: nothing in it is owed any more.
    done: Vec<u64>,
    saved: Vec<Saved>,
    /// Bytes of saved entries. Tables are not in it: they are no more than was there at the cut.
    bytes: u64,
    /// Writers wait.
    is_full: bool,
}

/// Values that were there at the cut, and have changed or gone since. Their databases are those of the cut.
#[derive(Debug)]
enum Saved {
    Entry(usize, Slot, Entry),
    /// Entries with the snapshot's own mark in it are not part of it.
    Table(usize, Slot, SlotTable),
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

    fn set_done(&mut self, slot: usize, origin: usize) {
        let (word, bit) = self.done_bit(slot, origin);
        self.done[word] |= bit;
    }
}

impl Engine {
    /// Saves a copy of an entry that is going to change, if it is still owed. The shard is locked.
    #[cold]
    pub(super) fn save_copy_of(&self, mark: u8, database: usize, entry: &mut Entry) {
        if entry.mark() != mark {
            let copy = entry.copied(entry.key());
            entry.set_mark(mark);
            drop(self.push_saved(database, copy));
        }
    }

    /// Saves an entry that was taken out, if it is still owed; else gives it back. The shard is locked.
    #[cold]
    pub(super) fn save_entry(&self, mark: u8, database: usize, entry: Entry) -> Option<Entry> {
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
    pub(super) fn save_table(&self, slot: Slot, database: usize, table: SlotTable) -> Option<SlotTable> {
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
    pub(super) fn swap(&self, first: usize, second: usize) {
        let mut state = self.state.lock();
        if state.runs {
            state.origins.swap(first, second);
        }
    }

    /// The number that a database of the cut has now, unless nothing of it is owed any more in this slot.
    fn owed(&self, slot: usize, origin: usize) -> Option<usize> {
        let state = self.state.lock();
        if state.is_done(slot, origin) { None } else { state.origins.iter().position(|&it| it == origin) }
    }
}

impl Engine {
    /// Begins a snapshot of this moment. All shards are locked together, for as long as it takes to note where the
    /// slots' histories stand.
    pub fn begin_snapshot(self: &Arc<Engine>) -> Result<Snapshot, SnapshotRuns> {
        let mut snapshot = self.cut()?;
        if snapshot.is_last_number() {
            while snapshot.step(|_| {}) {}
            snapshot = self.cut()?;
        }
        Ok(snapshot)
    }

    /// Bytes of old values that wait for a snapshot to take them.
    pub fn saved_bytes(&self) -> u64 {
        self.snapshots.state.lock().bytes
    }

    fn cut(self: &Arc<Engine>) -> Result<Snapshot, SnapshotRuns> {
        let databases = self.database_count();
        let mark;
        {
            let mut state = self.snapshots.state.lock();
            if state.runs {
                return Err(SnapshotRuns);
            }
            mark = state.number.wrapping_add(1);
            *state = State {
                runs: true,
                number: mark,
                complete: state.complete,
                origins: (0..databases).collect(),
                done: vec![0; (SLOT_COUNT * databases).div_ceil(64)],
                ..State::default()
            };
        }
        // Written once before the locks are taken: nobody waits for the pages.
        let mut positions = vec![Position::default(); SLOT_COUNT];
        let mut keyspace = self.lock_all(0, 0);
        let placement = self.placement();
        for index in keyspace.locks.indexes() {
            let shard = keyspace.locks.shard(index);
            for slot_in_shard in 0..shard.slot_count() {
                positions[placement.slot(index, slot_in_shard).index()] = shard.meta(slot_in_shard).position;
            }
        }
        let offset = self.log.cut();
        self.access.begin(mark);
        drop(keyspace);
        let engine = Arc::clone(self);
        Ok(Snapshot { engine, mark, offset, positions, slot: 0, database: 0, position: 0, has_ended: false })
    }
}

impl Snapshot {
    /// The place in the log where what is not part of the snapshot begins: a chunk begins there.
    pub fn offset(&self) -> LogOffset {
        self.offset
    }

    /// Where a slot's history stood at the cut.
    pub fn slot_position(&self, slot: Slot) -> Position {
        self.positions[slot.index()]
    }

    /// Goes on: hands out what has been saved, and then some entries where they stand. False at the end; every key has
    /// been handed out once then. `visit` may be called while a shard is locked: it is to copy what it wants, and no more.
    pub fn step(&mut self, mut visit: impl FnMut(Record<'_>)) -> bool {
        if self.has_ended {
            return false;
        }
        // Before the walk has ended, or nothing more can come: a change saves nothing where all are marked.
        let is_walked = self.slot == SLOT_COUNT;
        for saved in self.take_saved() {
            match saved {
                Saved::Entry(database, slot, entry) => visit(Record { database, slot, entry: &entry }),
                Saved::Table(database, slot, table) => {
                    let owed = table.entries.iter().filter(|entry| entry.mark() != self.mark);
                    owed.for_each(|entry| visit(Record { database, slot, entry }));
                }
            }
        }
        if is_walked {
            self.end();
            return false;
        }
        self.walk(&mut visit);
        true
    }

    fn take_saved(&self) -> Vec<Saved> {
        let mut state = self.engine.snapshots.state.lock();
        state.bytes = 0;
        let (saved, was_full) = (std::mem::take(&mut state.saved), self.make_room(&mut state));
        drop(state);
        if was_full {
            self.engine.log.tell_room();
        }
        saved
    }

    /// Lets writers go on. Whether they waited, and have to be told.
    fn make_room(&self, state: &mut State) -> bool {
        let was_full = std::mem::take(&mut state.is_full);
        if was_full {
            self.engine.log.set_saved_full(false);
        }
        was_full
    }

    /// Reads entries where they stand until there are enough for one step.
    fn walk(&mut self, visit: &mut impl FnMut(Record<'_>)) {
        let mut budget = Budget { entries: STEP_ENTRIES, bytes: STEP_BYTES };
        for _ in 0..STEP_SLOTS {
            let Some(slot) = Slot::new(self.slot as u64) else { return };
            if !self.walk_slot(slot, &mut budget, visit) {
                return;
            }
            (self.slot, self.database, self.position) = (self.slot + 1, 0, 0);
        }
    }

    /// Reads entries of a slot under its lock. False where the budget is used up before its end.
    fn walk_slot(&mut self, slot: Slot, budget: &mut Budget, visit: &mut impl FnMut(Record<'_>)) -> bool {
        let (engine, mark) = (&self.engine, self.mark);
        let mut keyspace = engine.lock_slot(slot, 0, 0);
        let slot_in_shard = engine.placement().slot_in_shard(slot);
        let shard = keyspace.locks.shard(engine.placement().shard(slot));
        while self.database < engine.database_count() {
            let origin = self.database;
            let number = engine.snapshots.owed(slot.index(), origin);
            if let Some(table) = number.and_then(|number| shard.table_mut(number, slot_in_shard)) {
                let mut next = Some(self.position);
                while let Some(position) = next {
                    self.position = position;
                    next = table.entries.visit_segment(position, |entry| {
                        if entry.mark() != mark && budget.spend(entry) {
                            visit(Record { database: origin, slot, entry });
                            entry.set_mark(mark);
                        }
                    });
                    if budget.is_exceeded() {
                        return false;
                    }
                }
            }
            engine.snapshots.state.lock().set_done(slot.index(), origin);
            (self.database, self.position) = (self.database + 1, 0);
        }
        true
    }

    /// Whether the next number is one that entries may carry already.
    fn is_last_number(&self) -> bool {
        self.mark.wrapping_sub(self.engine.snapshots.state.lock().complete) == u8::MAX
    }

    /// Lets changes go on without saving anything.
    fn end(&mut self) {
        self.has_ended = true;
        self.engine.access.end();
        let mut state = self.engine.snapshots.state.lock();
        if self.slot == SLOT_COUNT {
            state.complete = self.mark;
        }
        let was_full = self.make_room(&mut state);
        let (number, complete) = (state.number, state.complete);
        let ended = std::mem::replace(&mut *state, State { number, complete, ..State::default() });
        drop(state);
        if was_full {
            self.engine.log.tell_room();
        }
        // What nobody takes any more is freed without a lock.
        drop(ended);
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if !self.has_ended {
            self.end();
        }
    }
}

/// What may still be read under one lock. One entry more than it has bytes for: an entry is read whole.
#[derive(Debug)]
struct Budget {
    entries: usize,
    bytes: usize,
}

impl Budget {
    /// Whether the entry may be read. If not, the budget is exceeded.
    fn spend(&mut self, entry: &Entry) -> bool {
        if self.entries == 0 || self.bytes == 0 {
            self.entries = usize::MAX;
            return false;
        }
        if self.is_exceeded() {
            return false;
        }
        self.entries -= 1;
        self.bytes = self.bytes.saturating_sub(entry.memory_bytes());
        true
    }

    /// Whether something was not read for its sake.
    fn is_exceeded(&self) -> bool {
        self.entries == usize::MAX
    }
}

#[cfg(test)]
mod tests;
