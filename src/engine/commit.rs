//! What follows a change of a key: who is told, and the group of effects that the command leaves in the log.
//!
//! ```text
//!  changed: counted; watches raised; keys with waiters noted; a position in the slot; the effect added to the group
//!  commit:  the group appended to the log; waiters served, each with a group of its own; the locks are released behind it
//! ```

use super::effect::Cause;
use super::event::{self, Event, KeyEvent};
use super::group::Draft;
use super::keyspace::{Keyspace, Place, Wanted};
use super::log::copied::Groups;
use super::log::gate::{self, Shown};
use super::shard::add;
use super::waiters::ReadyKey;
use crate::base::identity::Position;
use crate::base::slot::Slot;
use std::cell::Cell;

/// What a commit has to do.
#[derive(Default)]
pub(super) struct Pending {
    /// The effects of what has changed, where somebody reads them.
    draft: Draft,
    /// Keys that have changed, and that somebody waits for.
    pub(super) ready: Vec<ReadyKey>,
    /// What has happened, where somebody listens.
    events: Vec<KeyEvent>,
    /// What the command waits for.
    pub(super) wanted: Option<Wanted>,
}

thread_local! {
    /// The buffers of the thread's last commit.
    static SCRATCH: Cell<Option<Box<Pending>>> = const { Cell::new(None) };
}

impl Drop for Keyspace<'_> {
    #[inline]
    fn drop(&mut self) {
        // Also while a panic unwinds: the memory has changed.
        if self.pending.is_some() {
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
    pub(super) fn changed(&mut self, place: Place, key: &[u8], event: Event, encode: impl FnOnce(&mut Vec<u8>)) {
        self.changed_by(1, place, key, event, encode);
    }

    /// The same for so many changes, as Redis counts them, that are one effect.
    #[inline]
    pub(super) fn changed_by(
        &mut self,
        count: usize,
        place: Place,
        key: &[u8],
        event: Event,
        encode: impl FnOnce(&mut Vec<u8>),
    ) {
        let database = self.database as u32;
        let shard = self.locks.shard(place.shard);
        add(&shard.counters.changes, count as i64);
        if shard.is_watched() {
            shard.watches.raise(place.hash, database, key);
        }
        let is_waited_for = !shard.waiters.is_empty() && shard.waiters.has(place.hash, self.database, key);
        let position = shard.advance(place.slot_in_shard);
        if is_waited_for {
            self.ready(place, key, self.database);
        }
        if self.engine.log.is_followed() {
            self.followed((place.slot, position), key, event, encode);
        }
    }

    #[inline(never)]
    fn followed(&mut self, slot: (Slot, Position), key: &[u8], event: Event, encode: impl FnOnce(&mut Vec<u8>)) {
        if self.engine.log.is_listened_to() {
            self.happened_if_new(self.database, key);
            self.happened(key, event);
            if std::mem::take(&mut self.has_emptied) {
                self.happened(key, event::DELETE);
            }
        }
        if self.engine.log.is_read() {
            self.record(Some(slot), encode);
        }
    }

    /// Whether a change of a key that is not needed may be made by who only reads: the log has room, and the key is this
    /// node's to change.
    pub fn may_note(&mut self, key: &[u8]) -> bool {
        let place = self.place(key);
        !self.engine.log.is_full() && self.shard(place).is_held(place.slot_in_shard)
    }

    /// Something happened to a key of the selected database, for whoever listens.
    pub fn happened(&mut self, key: &[u8], event: Event) {
        self.happened_in(self.database, key, event);
    }

    /// The same, in another database.
    pub(super) fn happened_in(&mut self, database: usize, key: &[u8], event: Event) {
        // What a slot brings along that moves here has not happened now.
        if self.engine.log.is_listened_to() && self.cause != Cause::Move && self.engine.events.wants(event.class) {
            self.pending().events.push(KeyEvent { database, key: key.into(), event });
        }
    }

    /// The last look may have made this key.
    pub(super) fn happened_if_new(&mut self, database: usize, key: &[u8]) {
        if std::mem::take(&mut self.has_created) {
            self.happened_in(database, key, event::NEW);
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
            self.ready(place, key, database);
        }
    }

    /// Somebody waits for a key that has changed.
    #[cold]
    fn ready(&mut self, place: Place, key: &[u8], database: usize) {
        self.pending().ready.push(ReadyKey { place, database, key: key.into() });
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
    pub(super) fn record(&mut self, slot: Option<(Slot, Position)>, encode: impl FnOnce(&mut Vec<u8>)) {
        let (slot, position) = slot.map_or((None, Position::default()), |(slot, position)| (Some(slot), position));
        let (cause, database) = (self.cause, self.database as u32);
        self.pending().draft.add(slot, position, cause, database, encode);
        if self.locks.is_passing() {
            // The shard will be let go of before the command ends.
            self.commit();
        }
    }

    /// Appends the group of what has changed so far to the log, and serves those who wait for keys that have; what changes
    /// later is another group. Called when the keyspace is dropped, before the locks are released.
    pub fn commit(&mut self) {
        self.append_group();
        self.tell_events();
        if self.pending.as_ref().is_some_and(|pending| !pending.ready.is_empty()) {
            self.serve_ready();
        }
        if let Some(pending) = self.pending.take_if(|pending| pending.wanted.is_none()) {
            SCRATCH.set(Some(pending));
        }
    }

    /// What the commit has to do.
    pub(super) fn pending(&mut self) -> &mut Pending {
        self.pending.get_or_insert_with(|| SCRATCH.take().unwrap_or_default())
    }

    /// Hands on what has happened.
    pub(super) fn tell_events(&mut self) {
        if let Some(pending) = self.pending.as_mut().filter(|pending| !pending.events.is_empty()) {
            self.engine.events.tell(&std::mem::take(&mut pending.events));
        }
    }

    /// Appends the group of what has changed so far.
    pub(super) fn append_group(&mut self) {
        let Some(pending) = self.pending.as_mut().filter(|pending| !pending.draft.is_empty()) else { return };
        let draft = &mut pending.draft;
        let appended = self.engine.log.append(draft, self.now_ms, self.cause != Cause::Move);
        let placement = self.engine.placement();
        let mut groups = if draft.has_node_effect() { Groups::ALL } else { Groups::NONE };
        if draft.has_node_effect() {
            for index in self.locks.indexes() {
                self.locks.shard(index).set_all_last(appended.end);
            }
        }
        for slot in draft.slots() {
            self.locks.shard(placement.shard(slot)).set_last(placement.slot_in_shard(slot), appended.end);
            if self.is_gated {
                groups = groups.and(self.engine.log.copied.group(slot));
            }
        }
        draft.clear();
        if appended.is_sealed {
            self.afterwards.ask_readers();
        }
        self.shown = self.shown.and(Shown { gate: appended.end, groups, wrote: true });
    }
}
