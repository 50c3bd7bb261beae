//! The keyspace: what a data handler sees of the engine.
//!
//! It holds the locks of the shards that the command may touch, for the time of the command (or of the whole EXEC). A
//! handler reads and changes keys only through it, and every change is counted, published to the effect log and told to
//! those who watch the key: there is no other way to change a key.

use super::effect::{Cause, Effect};
use super::entry::{Entry, Kind};
use super::lookup::{Lookup, discard};
use super::reclaim::Discarded;
use super::shard::{Shard, SlotState, SlotTable, add};
use super::watches::Watch;
use super::{Engine, lock::Locks};
use crate::base::slot::Slot;
use crate::values::hashing::table_hash;
use crate::values::segments::Index;
use crate::values::{Limits, Value};

/// The key holds a value of another kind than the command works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongKind;

/// What a write does to the key's deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    Keep,
    Clear,
    /// Unix milliseconds.
    At(u64),
}

/// Where a key lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) shard: usize,
    pub(super) slot_in_shard: usize,
    pub(super) slot: Slot,
    pub(super) hash: u64,
}

/// The place of the key that routing has computed already; compared by address, for it lies in the request.
#[derive(Clone, Copy, Debug)]
struct Hint {
    address: usize,
    length: usize,
    place: Place,
}

/// Locked shards, seen as databases of keys.
pub struct Keyspace<'e> {
    pub(super) engine: &'e Engine,
    pub(super) locks: Locks<'e>,
    /// Values that were replaced or deleted: dropped behind `locks`, so that freeing them holds nobody up.
    pub(super) garbage: Discarded<'e>,
    pub(super) database: usize,
    pub(super) now_ms: u64,
    pub(super) cause: Cause,
    hint: Option<Hint>,
    pub(super) changes: u64,
}

impl<'e> Keyspace<'e> {
    pub(super) fn new(engine: &'e Engine, locks: Locks<'e>, database: usize, now_ms: u64) -> Keyspace<'e> {
        let garbage = Discarded::new(&engine.reclaimer);
        Keyspace { engine, locks, garbage, database, now_ms, cause: Cause::Client, hint: None, changes: 0 }
    }

    /// The moment of this command, in Unix milliseconds: the same for all its keys.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The number of the selected database.
    pub fn database(&self) -> usize {
        self.database
    }

    /// How many databases there are.
    pub fn database_count(&self) -> usize {
        self.engine.database_count()
    }

    /// Works on another database from here on (SELECT, and commands that name one).
    pub fn select(&mut self, database: usize) {
        debug_assert!(database < self.engine.database_count());
        self.database = database;
    }

    /// Changes since the locks were taken.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Random bits.
    pub fn random(&mut self) -> u64 {
        self.engine.random()
    }

    /// Thresholds of the packed encodings.
    pub fn limits(&self) -> Limits {
        self.engine.limits()
    }

    /// Says why keys change from here on; client commands need not.
    pub fn set_cause(&mut self, cause: Cause) {
        self.cause = cause;
    }

    /// Remembers the slot and table hash of a key that lies in the request, so that they are not computed again.
    pub fn hint(&mut self, key: &[u8], slot: Slot, hash: u64) {
        let place = self.place_in(slot, hash);
        self.hint = Some(Hint { address: key.as_ptr().addr(), length: key.len(), place });
    }

    pub(super) fn place_in(&self, slot: Slot, hash: u64) -> Place {
        let placement = self.engine.placement();
        Place { shard: placement.shard(slot), slot_in_shard: placement.slot_in_shard(slot), slot, hash }
    }

    #[inline]
    pub(super) fn place(&self, key: &[u8]) -> Place {
        match self.hint {
            Some(hint) if hint.address == key.as_ptr().addr() && hint.length == key.len() => hint.place,
            _ => self.place_in(Slot::of_key(key), table_hash(key)),
        }
    }

    #[inline]
    pub(super) fn shard(&mut self, place: Place) -> &mut Shard {
        self.locks.shard(place.shard)
    }

    #[inline]
    pub(super) fn table(&mut self, place: Place) -> Option<&mut SlotTable> {
        let database = self.database;
        self.locks.shard(place.shard).table_mut(database, place.slot_in_shard)
    }

    /// Whether commands may be executed on these slots: the least favourable of their states.
    #[inline]
    pub fn slots_state(&mut self, slots: &[Slot]) -> SlotState {
        let placement = self.engine.placement();
        let mut state = SlotState::Serving;
        for slot in slots {
            match self.locks.shard(placement.shard(*slot)).meta(placement.slot_in_shard(*slot)).state {
                SlotState::Serving => {}
                SlotState::Frozen if state == SlotState::Serving => state = SlotState::Frozen,
                SlotState::Frozen => {}
                SlotState::Elsewhere => return SlotState::Elsewhere,
            }
        }
        state
    }

    /// Whether so much of these slots waits to be sent elsewhere that their writers have to wait too.
    #[inline]
    pub fn is_congested(&mut self, slots: &[Slot]) -> bool {
        let placement = self.engine.placement();
        slots.iter().any(|slot| {
            let log = &self.locks.shard(placement.shard(*slot)).log;
            log.is_read() && log.is_congested(*slot)
        })
    }

    /// Whether a slot of the locked shards is being handed over: what may change any key has to wait.
    pub fn has_frozen(&mut self) -> bool {
        self.locks.indexes().any(|index| self.locks.shard(index).has_frozen())
    }

    // ---- reading ----

    /// The entry of a key, expired ones removed. Counts a hit or a miss and winds the access clock.
    #[inline]
    pub fn read(&mut self, key: &[u8]) -> Option<&Entry> {
        let place = self.place(key);
        let at = self.find(place, key);
        let (database, clock) = (self.database, self.engine.access_clock());
        let (table, counters) = self.locks.shard(place.shard).split(database, place.slot_in_shard);
        match at.and_then(|at| table?.entries.get_mut(at)) {
            Some(entry) => {
                add(&counters.hits, 1);
                entry.set_access(clock);
                Some(entry)
            }
            None => {
                add(&counters.misses, 1);
                None
            }
        }
    }

    /// The entry of a key, for a command that asks about it and does not read its content: counted as hit or miss, but
    /// no access.
    pub fn look(&mut self, key: &[u8]) -> Option<&Entry> {
        let place = self.place(key);
        let at = self.find(place, key);
        let database = self.database;
        let (table, counters) = self.locks.shard(place.shard).split(database, place.slot_in_shard);
        add(if at.is_some() { &counters.hits } else { &counters.misses }, 1);
        table?.entries.get(at?)
    }

    /// The entry of a key, expired ones removed, without a trace: for EXISTS-like questions and for writers.
    pub fn peek(&mut self, key: &[u8]) -> Option<&Entry> {
        let place = self.place(key);
        let at = self.find(place, key)?;
        self.table(place)?.entries.get(at)
    }

    /// Whether the key exists.
    pub fn exists(&mut self, key: &[u8]) -> bool {
        self.peek(key).is_some()
    }

    // ---- finding ----

    /// Where the entry of a key stands. One that has expired is removed first, and is not there.
    #[inline]
    fn find(&mut self, place: Place, key: &[u8]) -> Option<Index> {
        let now_ms = self.now_ms;
        let entries = &self.table(place)?.entries;
        let at = entries.find_index(place.hash, |entry| entry.key() == key)?;
        if entries.get(at)?.is_expired(now_ms) {
            self.expire(place, key);
            return None;
        }
        Some(at)
    }

    /// One look for a key that may be written: all changes of single entries begin with it.
    #[inline]
    pub(super) fn lookup(&mut self, place: Place, key: &[u8]) -> Lookup<'_, 'e> {
        let at = self.find(place, key);
        self.lookup_at(place, at)
    }

    /// The same for a change of a key that must be there: where there is none, nothing is made for it.
    #[inline]
    fn lookup_present(&mut self, place: Place, key: &[u8]) -> Option<Lookup<'_, 'e>> {
        let at = self.find(place, key)?;
        Some(self.lookup_at(place, Some(at)))
    }

    #[inline]
    fn lookup_at(&mut self, place: Place, at: Option<Index>) -> Lookup<'_, 'e> {
        let (database, access_clock) = (self.database, self.engine.access_clock());
        let (table, counters) = self.locks.shard(place.shard).split_for_write(database, place.slot_in_shard);
        Lookup { table, counters, garbage: &mut self.garbage, database, hash: place.hash, at, access_clock }
    }

    // ---- writing ----

    /// Deletes the key. False where there was none.
    pub fn delete(&mut self, key: &[u8]) -> bool {
        self.take(key).is_some()
    }

    /// Sets or clears the key's deadline, in Unix milliseconds. False where there is no such key.
    pub fn set_deadline(&mut self, key: &[u8], deadline: Option<u64>) -> bool {
        let place = self.place(key);
        let Some(mut found) = self.lookup_present(place, key) else { return false };
        found.change_unseen(|entry| entry.set_deadline(deadline));
        self.changed(place, key, |key| Effect::SetDeadline { key, deadline });
        true
    }

    /// Takes the key's entry out of the keyspace, as a deletion.
    pub fn take(&mut self, key: &[u8]) -> Option<TakenEntry<'_, 'e>> {
        let place = self.place(key);
        let entry = self.lookup_present(place, key)?.take()?;
        self.changed(place, key, |key| Effect::Delete { key });
        Some(TakenEntry { keyspace: self, entry: Some(entry) })
    }

    /// Puts an entry into the keyspace under the key it carries, in place of what was there.
    pub fn put(&mut self, entry: Entry) {
        let place = self.place(entry.key());
        let read = self.shard(place).log.is_slot_read(place.slot);
        let key: Box<[u8]> = entry.key().into();
        let mut image = Vec::new();
        let deadline = entry.deadline();
        let string = match entry.as_value() {
            Some(value) if read => {
                value.write_image(&mut image);
                None
            }
            None if read => entry.as_string().map(|string| string.to_vec()),
            _ => None,
        };
        let mut found = self.lookup(place, &key);
        if found.at.is_some() {
            found.replace(entry);
        } else {
            found.insert(entry);
        }
        self.changed(place, &key, |key| match &string {
            Some(bytes) => Effect::SetString { key, bytes, deadline },
            None => Effect::PutValue { key, image: &image, deadline },
        });
    }

    /// Removes a key whose deadline has passed.
    #[cold]
    pub(super) fn expire(&mut self, place: Place, key: &[u8]) {
        let database = self.database;
        let (Some(table), counters) = self.locks.shard(place.shard).split(database, place.slot_in_shard) else {
            return;
        };
        let Some(at) = table.entries.find_index(place.hash, |entry| entry.key() == key) else { return };
        if let Some(entry) = table.remove(counters, database, at) {
            add(&counters.expired, 1);
            discard(&mut self.garbage, entry);
            let cause = std::mem::replace(&mut self.cause, Cause::Expire);
            self.publish(place, key, |key| Effect::Delete { key });
            self.cause = cause;
        }
    }

    /// Everything that follows a change of a key.
    #[inline]
    pub(super) fn changed<'k>(&mut self, place: Place, key: &'k [u8], effect: impl FnOnce(&'k [u8]) -> Effect<'k>) {
        self.changes += 1;
        add(&self.shard(place).counters.changes, 1);
        self.publish(place, key, effect);
    }

    #[inline]
    fn publish<'k>(&mut self, place: Place, key: &'k [u8], effect: impl FnOnce(&'k [u8]) -> Effect<'k>) {
        let (cause, database) = (self.cause, self.database as u32);
        let shard = self.locks.shard(place.shard);
        let position = shard.advance(place.slot_in_shard);
        if shard.log.is_read() && shard.log.is_slot_read(place.slot) {
            shard.log.publish(place.slot, position, cause, database, Some(place.hash), &effect(key));
        }
        if shard.is_watched() {
            shard.watches.raise(place.hash, database, key);
        }
    }

    /// Raises the flag when the key changes.
    pub fn watch(&mut self, key: &[u8], watch: Watch) {
        let place = self.place(key);
        let database = self.database as u32;
        self.shard(place).watches.add(place.hash, database, key, watch);
    }

    /// Forgets a watch.
    pub fn unwatch(&mut self, key: &[u8], watch: &Watch) {
        let place = self.place(key);
        let database = self.database as u32;
        self.shard(place).watches.remove(place.hash, database, key, watch);
    }

    /// Changes the key's collection of this kind through `edit`, which says whether it changed anything.
    pub(super) fn edit_entry<R>(
        &mut self,
        key: &[u8],
        kind: Kind,
        create: Option<fn() -> Value>,
        edit: impl FnOnce(&mut Value, &Limits) -> R,
        is_empty: fn(&Value) -> bool,
    ) -> Result<Option<R>, WrongKind> {
        let place = self.place(key);
        let limits = self.engine.limits();
        let Some(create) = create else {
            let Some(mut found) = self.lookup_present(place, key) else { return Ok(None) };
            return edit_found(&mut found, kind, &limits, edit, is_empty);
        };
        let mut found = self.lookup(place, key);
        if found.at.is_some() {
            return edit_found(&mut found, kind, &limits, edit, is_empty);
        }
        let mut value = create();
        let result = edit(&mut value, &limits);
        if !is_empty(&value) {
            found.insert(Entry::value(key, value, None, found.access_clock));
        }
        Ok(Some(result))
    }
}

/// Changes the collection that was found; one that becomes empty goes.
fn edit_found<R>(
    found: &mut Lookup<'_, '_>,
    kind: Kind,
    limits: &Limits,
    edit: impl FnOnce(&mut Value, &Limits) -> R,
    is_empty: fn(&Value) -> bool,
) -> Result<Option<R>, WrongKind> {
    if found.entry().is_none_or(|entry| entry.kind() != kind) {
        return Err(WrongKind);
    }
    let edited = found.change(|entry| {
        let value = entry.as_value_mut()?;
        let result = edit(value, limits);
        Some((result, is_empty(value)))
    });
    let (result, emptied) = edited.flatten().ok_or(WrongKind)?;
    if emptied {
        found.remove();
    }
    Ok(Some(result))
}

/// An entry that was taken out; it is freed when the locks have been released, unless somebody keeps it.
pub struct TakenEntry<'k, 'e> {
    keyspace: &'k mut Keyspace<'e>,
    entry: Option<Entry>,
}

impl TakenEntry<'_, '_> {
    /// Keeps it.
    pub fn keep(mut self) -> Entry {
        self.entry.take().expect("it is taken only here and on drop")
    }
}

impl Drop for TakenEntry<'_, '_> {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            discard(&mut self.keyspace.garbage, entry);
        }
    }
}
