//! What follows a change of a key: who is told, and the group of effects that the command leaves in the log.
//!
//! ```text
//!  changed: counted; watches raised; keys with waiters noted; a position in the slot; the effect added to the group
//!  commit:  the group appended to the log; waiters served, each with a group of its own; the locks are released behind it
//! ```

use super::group::Draft;
use super::keyspace::{Keyspace, Place};
use super::log::gate::{self, Shown};
use super::shard::add;
use super::waiters::ReadyKey;
use crate::base::identity::Position;
use crate::base::slot::Slot;
use std::cell::Cell;

thread_local! {
    /// The buffers of the thread's last group.
    static SCRATCH: Cell<Option<Box<Draft>>> = const { Cell::new(None) };
}

impl Drop for Keyspace<'_> {
    #[inline]
    fn drop(&mut self) {
        // Also while a panic unwinds: the memory has changed.
        if self.draft.is_some() || !self.ready.is_empty() {
            self.commit();
        }
        if self.is_gated {
            gate::note(self.shown);
        }
    }
}

impl Keyspace<'_> {
    /// Everything that follows a change of a key. `encode` appends the effect; it is called where somebody reads.
    #[inline]
    pub(super) fn changed(&mut self, place: Place, key: &[u8], encode: impl FnOnce(&mut Vec<u8>)) {
        self.changed_by(1, place, key, encode);
    }

    /// The same for so many changes, as Redis counts them, that are one effect.
    #[inline]
    pub(super) fn changed_by(&mut self, count: usize, place: Place, key: &[u8], encode: impl FnOnce(&mut Vec<u8>)) {
        let database = self.database as u32;
        let shard = self.locks.shard(place.shard);
        add(&shard.counters.changes, count as i64);
        if shard.is_watched() {
            shard.watches.raise(place.hash, database, key);
        }
        if !shard.waiters.is_empty() && shard.waiters.has(place.hash, self.database, key) {
            self.ready.push(ReadyKey { place, database: self.database, key: key.into() });
        }
        let position = shard.advance(place.slot_in_shard);
        if self.engine.log.is_read() {
            self.record(Some((place.slot, position)), encode);
        }
    }

    /// Everything that follows one change of two keys (place, key, database).
    pub(super) fn changed_two(
        &mut self,
        (place, key, database): (Place, &[u8], usize),
        (to_place, to, to_database): (Place, &[u8], usize),
        encode: impl FnOnce(&mut Vec<u8>),
    ) {
        add(&self.shard(to_place).counters.changes, 1);
        self.raise_watches(place, key, database);
        self.raise_watches(to_place, to, to_database);
        self.publish_two(place, to_place, encode);
    }

    /// Tells those who watch a key, and notes those who wait for it.
    pub(super) fn raise_watches(&mut self, place: Place, key: &[u8], database: usize) {
        let shard = self.locks.shard(place.shard);
        if shard.is_watched() {
            shard.watches.raise(place.hash, database as u32, key);
        }
        if !shard.waiters.is_empty() && shard.waiters.has(place.hash, database, key) {
            self.ready.push(ReadyKey { place, database, key: key.into() });
        }
    }

    /// Gives a change its position in its slot, and adds its effect to the group.
    #[inline]
    pub(super) fn publish(&mut self, place: Place, encode: impl FnOnce(&mut Vec<u8>)) {
        let position = self.locks.shard(place.shard).advance(place.slot_in_shard);
        if self.engine.log.is_read() {
            self.record(Some((place.slot, position)), encode);
        }
    }

    /// The same for a change that may concern two slots: it has a position in each then, and its effect is the node's.
    pub(super) fn publish_two(&mut self, place: Place, to_place: Place, encode: impl FnOnce(&mut Vec<u8>)) {
        if place.slot == to_place.slot {
            return self.publish(place, encode);
        }
        self.locks.shard(place.shard).advance(place.slot_in_shard);
        self.locks.shard(to_place.shard).advance(to_place.slot_in_shard);
        if self.engine.log.is_read() {
            self.record(None, encode);
        }
    }

    /// Adds an effect, of a slot or of the node, to the group of the command.
    #[cold]
    pub(super) fn record(&mut self, slot: Option<(Slot, Position)>, encode: impl FnOnce(&mut Vec<u8>)) {
        let draft = self.draft.get_or_insert_with(|| SCRATCH.take().unwrap_or_default());
        let (slot, position) = slot.map_or((None, Position::default()), |(slot, position)| (Some(slot), position));
        draft.add(slot, position, self.cause, self.database as u32, encode);
        if self.locks.is_passing() {
            // The shard will be let go of before the command ends.
            self.commit();
        }
    }

    /// Appends the group of what has changed so far to the log, and serves those who wait for keys that have; what changes
    /// later is another group. Called when the keyspace is dropped, before the locks are released.
    pub fn commit(&mut self) {
        self.append_group();
        if !self.ready.is_empty() {
            self.serve_ready();
        }
    }

    /// Appends the group of what has changed so far.
    pub(super) fn append_group(&mut self) {
        let Some(mut draft) = self.draft.take() else { return };
        let appended = self.engine.log.append(&mut draft, self.now_ms);
        let placement = self.engine.placement();
        if draft.has_node_effect() {
            for index in self.locks.indexes() {
                self.locks.shard(index).set_all_last(appended.end);
            }
        }
        for slot in draft.slots() {
            self.locks.shard(placement.shard(slot)).set_last(placement.slot_in_shard(slot), appended.end);
        }
        if appended.is_sealed {
            self.afterwards.ask_readers();
        }
        self.shown = Shown { gate: appended.end, wrote: true };
        draft.clear();
        SCRATCH.set(Some(draft));
    }
}
