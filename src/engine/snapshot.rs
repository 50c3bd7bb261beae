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
//! What is *large* would be read and copied for too long under one lock. It is handed out in parts, each under a lock of its
//! own, and who writes in its slot waits until that is done; readers do not. The walk takes such slots first. What changes a
//! large value nevertheless (effects from elsewhere; a client that is served behind another one's command) copies it whole,
//! and expiry moves it here: its parts go on from there, for their places depend on nothing but its elements. Until its last
//! part nothing else is handed out.
//!
//! Marks wrap. After a walk to the end all marks are equal; a snapshot that is given up leaves several. Before there are
//! no numbers left that no entry carries, one walk is made for their sake alone.

mod saved;
mod walk;

pub(super) use saved::Snapshots;

use super::Engine;
use super::entry::{Entry, Kind};
use super::log::LogOffset;
use super::portion::Elements;
use crate::base::identity::Position;
use crate::base::slot::{SLOT_COUNT, Slot};
use saved::State;
use std::sync::Arc;
use walk::{Part, Place};

/// What a snapshot hands out. Databases are named by their numbers at the cut. A deadline may have passed: whoever uses it
/// decides.
#[derive(Clone, Copy, Debug)]
pub enum Record<'a> {
    /// A key with its value and deadline at the cut.
    Entry { database: usize, slot: Slot, entry: &'a Entry },
    /// A key with a large value: its parts follow, and nothing comes in between.
    Begin(Head<'a>),
    /// The next elements of that value: a list's from its front, a string's bytes from its first, others in hash order.
    Part(&'a Elements),
    /// It is complete.
    End,
}

/// A key of which the value comes in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    /// The number that its database had at the cut.
    pub database: usize,
    pub slot: Slot,
    pub key: &'a [u8],
    pub kind: Kind,
    /// Elements of a collection (pairs of a hash), or bytes of a string.
    pub length: usize,
    /// In Unix milliseconds.
    pub deadline: Option<u64>,
    /// Its access bits.
    pub access: u32,
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
    /// Where the walk goes on.
    place: Place,
    /// Where it goes on in a slot of which it reads what is large ahead of its turn.
    ahead: Option<Place>,
    /// The large value that is being handed out.
    part: Option<Part>,
    elements: Elements,
    has_ended: bool,
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
                large_done: vec![0; SLOT_COUNT / 64],
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
        self.log.set_snapshot(true);
        drop(keyspace);
        Ok(Snapshot {
            engine: Arc::clone(self),
            mark,
            offset,
            positions,
            place: Place::default(),
            ahead: None,
            part: None,
            elements: Elements::default(),
            has_ended: false,
        })
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

    /// Goes on: hands out what has been saved, and then some entries where they stand, or a part of a large one. False at the
    /// end; every key has been handed out once then. `visit` may be called while a shard is locked: it is to copy what it
    /// wants, and no more.
    pub fn step(&mut self, mut visit: impl FnMut(Record<'_>)) -> bool {
        if self.has_ended {
            return false;
        }
        if let Some(part) = self.part.take() {
            self.read_part(part, &mut visit);
            return true;
        }
        // Before the walk has ended, or nothing more can come: a change saves nothing where all are marked.
        let is_walked = self.place.slot == SLOT_COUNT;
        self.take_saved().iter().for_each(|saved| saved.hand_out(self.mark, &mut visit));
        if is_walked {
            self.end();
            return false;
        }
        if !self.read_ahead(&mut visit) {
            self.walk(&mut visit);
        }
        true
    }

    fn take_saved(&self) -> Vec<saved::Saved> {
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

    /// Whether the next number is one that entries may carry already.
    fn is_last_number(&self) -> bool {
        self.mark.wrapping_sub(self.engine.snapshots.state.lock().complete) == u8::MAX
    }

    /// Lets changes go on without saving anything.
    fn end(&mut self) {
        self.has_ended = true;
        self.engine.access.end();
        self.engine.log.set_snapshot(false);
        let mut state = self.engine.snapshots.state.lock();
        if self.place.slot == SLOT_COUNT {
            state.complete = self.mark;
        }
        let has_waiters = self.make_room(&mut state) || !state.wanted.is_empty();
        let (number, complete) = (state.number, state.complete);
        let ended = std::mem::replace(&mut *state, State { number, complete, ..State::default() });
        drop(state);
        if has_waiters {
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

#[cfg(test)]
mod tests;
