//! The keyspace: what a data handler sees of the engine.
//!
//! It holds the locks of the shards that the command may touch, for the time of the command (or of the whole EXEC). A
//! handler reads and changes keys only through it, and every change is counted, published to the effect log and told to
//! those who watch the key: there is no other way to change a key.

use super::effect::{Cause, Effect};
use super::entry::{Entry, Kind, StringRef};
use super::reclaim::{Discarded, Garbage};
use super::shard::{Shard, SlotState, SlotTable, add};
use super::watches::Watch;
use super::{Engine, lock::Locks};
use crate::base::slot::Slot;
use crate::values::Limits;
use crate::values::hashing::table_hash;

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

/// Values smaller than this are freed on the spot.
const GARBAGE_BYTES_MIN: usize = 4096;

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
    pub fn read(&mut self, key: &[u8]) -> Option<&Entry> {
        let place = self.place(key);
        self.expire_if_due(place, key);
        let clock = self.engine.access_clock();
        let database = self.database;
        let (table, counters) = self.locks.shard(place.shard).split(database, place.slot_in_shard);
        let entry = table.and_then(|table| table.entries.find_mut(place.hash, |entry| entry.key() == key));
        match entry {
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
        self.expire_if_due(place, key);
        let database = self.database;
        let (table, counters) = self.locks.shard(place.shard).split(database, place.slot_in_shard);
        let entry = table.and_then(|table| table.entries.find(place.hash, |entry| entry.key() == key));
        add(if entry.is_some() { &counters.hits } else { &counters.misses }, 1);
        entry
    }

    /// The entry of a key, expired ones removed, without a trace: for EXISTS-like questions and for writers.
    pub fn peek(&mut self, key: &[u8]) -> Option<&Entry> {
        let place = self.place(key);
        self.expire_if_due(place, key);
        self.table(place)?.entries.find(place.hash, |entry| entry.key() == key)
    }

    /// Whether the key exists.
    pub fn exists(&mut self, key: &[u8]) -> bool {
        self.peek(key).is_some()
    }

    /// The key's string, for a command that reads it.
    #[inline]
    pub fn read_string(&mut self, key: &[u8]) -> Result<Option<StringRef<'_>>, WrongKind> {
        match self.read(key) {
            None => Ok(None),
            Some(entry) => entry.as_string().map(Some).ok_or(WrongKind),
        }
    }

    /// The key's string, for a command that will write it.
    pub fn peek_string(&mut self, key: &[u8]) -> Result<Option<StringRef<'_>>, WrongKind> {
        match self.peek(key) {
            None => Ok(None),
            Some(entry) => entry.as_string().map(Some).ok_or(WrongKind),
        }
    }

    // ---- writing ----

    /// Makes the key this string, whatever it was. True where the key is new.
    pub fn set_string(&mut self, key: &[u8], bytes: &[u8], deadline: Deadline) -> bool {
        let place = self.place(key);
        let clock = self.engine.access_clock();
        let now_ms = self.now_ms;
        let database = self.database;
        let shard = self.locks.shard(place.shard);
        let (table, counters) = shard.split_for_write(database, place.slot_in_shard);
        let mut is_new = false;
        let kept = match table.entries.find_mut(place.hash, |entry| entry.key() == key) {
            Some(entry) => {
                let was = entry.deadline();
                let expired = was.is_some_and(|at| at <= now_ms);
                let set = match deadline {
                    Deadline::Keep if expired => None,
                    Deadline::Keep => was,
                    Deadline::Clear => None,
                    Deadline::At(at) => Some(at),
                };
                let before = entry.memory_bytes();
                if before >= GARBAGE_BYTES_MIN {
                    let fresh = Entry::string(key, bytes, set, clock);
                    self.garbage.push(Garbage::Entry(std::mem::replace(entry, fresh)));
                } else {
                    entry.set_string(bytes, set);
                    entry.set_access(clock);
                }
                let now = entry.memory_bytes();
                table.resize(counters, before, now);
                table.count_deadline(counters, database, was.is_some(), set.is_some());
                set
            }
            None => {
                is_new = true;
                let set = if let Deadline::At(at) = deadline { Some(at) } else { None };
                let entry = Entry::string(key, bytes, set, clock);
                table.insert(counters, database, place.hash, entry);
                set
            }
        };
        self.changed(place, key, |key| Effect::SetString { key, bytes, deadline: kept });
        is_new
    }

    /// Makes the key this integer as a string; a deadline it has stays.
    pub fn set_integer(&mut self, key: &[u8], value: i64) {
        let place = self.place(key);
        self.expire_if_due(place, key);
        let clock = self.engine.access_clock();
        let database = self.database;
        let shard = self.locks.shard(place.shard);
        let (table, counters) = shard.split_for_write(database, place.slot_in_shard);
        let deadline = match table.entries.find_mut(place.hash, |entry| entry.key() == key) {
            Some(entry) => {
                let before = entry.memory_bytes();
                entry.set_integer(value);
                entry.set_access(clock);
                let (now, deadline) = (entry.memory_bytes(), entry.deadline());
                table.resize(counters, before, now);
                deadline
            }
            None => {
                table.insert(counters, database, place.hash, Entry::integer(key, value, None, clock));
                None
            }
        };
        let mut digits = itoa::Buffer::new();
        let bytes = digits.format(value).as_bytes();
        self.changed(place, key, |key| Effect::SetString { key, bytes, deadline });
    }

    /// Appends to the key's string, or creates it. Returns its length.
    pub fn append(&mut self, key: &[u8], bytes: &[u8]) -> Result<usize, WrongKind> {
        let length = self.modify_buffer(key, |buffer| {
            buffer.extend_from_slice(bytes);
            buffer.len()
        })?;
        let place = self.place(key);
        self.changed(place, key, |key| Effect::Append { key, bytes });
        Ok(length)
    }

    /// Overwrites the key's string from `offset` on, filling a gap with zeros. Returns its length.
    pub fn set_range(&mut self, key: &[u8], offset: usize, bytes: &[u8]) -> Result<usize, WrongKind> {
        let length = self.modify_buffer(key, |buffer| {
            if buffer.len() < offset + bytes.len() {
                buffer.resize(offset + bytes.len(), 0);
            }
            buffer[offset..offset + bytes.len()].copy_from_slice(bytes);
            buffer.len()
        })?;
        let place = self.place(key);
        self.changed(place, key, |key| Effect::SetRange { key, offset: offset as u64, bytes });
        Ok(length)
    }

    /// Holds the key's string as a buffer, as a command that modifies strings in place leaves it; its bytes stay.
    pub fn hold_as_buffer(&mut self, key: &[u8]) -> Result<(), WrongKind> {
        self.modify_buffer(key, |buffer| buffer.len()).map(|_| ())
    }

    fn modify_buffer(&mut self, key: &[u8], modify: impl FnOnce(&mut Vec<u8>) -> usize) -> Result<usize, WrongKind> {
        let place = self.place(key);
        self.expire_if_due(place, key);
        let clock = self.engine.access_clock();
        let database = self.database;
        let shard = self.locks.shard(place.shard);
        let (table, counters) = shard.split_for_write(database, place.slot_in_shard);
        if let Some(entry) = table.entries.find_mut(place.hash, |entry| entry.key() == key) {
            let before = entry.memory_bytes();
            let length = modify(entry.as_buffer_mut().ok_or(WrongKind)?);
            entry.set_access(clock);
            let now = entry.memory_bytes();
            table.resize(counters, before, now);
            return Ok(length);
        }
        let mut buffer = Vec::new();
        let length = modify(&mut buffer);
        table.insert(counters, database, place.hash, Entry::buffer(key, buffer, None, clock));
        Ok(length)
    }

    /// Deletes the key. False where there was none.
    pub fn delete(&mut self, key: &[u8]) -> bool {
        self.take(key).is_some()
    }

    /// Sets or clears the key's deadline, in Unix milliseconds. False where there is no such key.
    pub fn set_deadline(&mut self, key: &[u8], deadline: Option<u64>) -> bool {
        let place = self.place(key);
        self.expire_if_due(place, key);
        let database = self.database;
        let shard = self.locks.shard(place.shard);
        let (Some(table), counters) = shard.split(database, place.slot_in_shard) else { return false };
        let Some(entry) = table.entries.find_mut(place.hash, |entry| entry.key() == key) else { return false };
        let (before, had) = (entry.memory_bytes(), entry.deadline().is_some());
        entry.set_deadline(deadline);
        let now = entry.memory_bytes();
        table.resize(counters, before, now);
        table.count_deadline(counters, database, had, deadline.is_some());
        self.changed(place, key, |key| Effect::SetDeadline { key, deadline });
        true
    }

    /// Takes the key's entry out of the keyspace, as a deletion.
    pub fn take(&mut self, key: &[u8]) -> Option<TakenEntry<'_, 'e>> {
        let place = self.place(key);
        self.expire_if_due(place, key);
        let entry = self.remove(place, key)?;
        self.changed(place, key, |key| Effect::Delete { key });
        Some(TakenEntry { keyspace: self, entry: Some(entry) })
    }

    /// Puts an entry into the keyspace under the key it carries, in place of what was there.
    pub fn put(&mut self, entry: Entry) {
        let place = self.place(entry.key());
        if let Some(old) = self.remove(place, entry.key()) {
            self.discard(old);
        }
        let database = self.database;
        let shard = self.locks.shard(place.shard);
        let read = shard.log.is_slot_read(place.slot);
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
        let (table, counters) = shard.split_for_write(database, place.slot_in_shard);
        table.insert(counters, database, place.hash, entry);
        self.changed(place, &key, |key| match &string {
            Some(bytes) => Effect::SetString { key, bytes, deadline },
            None => Effect::PutValue { key, image: &image, deadline },
        });
    }

    /// Removes the entry without a word to anybody.
    fn remove(&mut self, place: Place, key: &[u8]) -> Option<Entry> {
        let database = self.database;
        let shard = self.locks.shard(place.shard);
        let (table, counters) = shard.split(database, place.slot_in_shard);
        table?.remove(counters, database, place.hash, key)
    }

    /// Frees an entry that was taken out: a small one now, others when the locks are released.
    fn discard(&mut self, entry: Entry) {
        if entry.memory_bytes() >= GARBAGE_BYTES_MIN {
            self.garbage.push(Garbage::Entry(entry));
        }
    }

    /// Removes the key if its deadline has passed.
    #[inline]
    pub(super) fn expire_if_due(&mut self, place: Place, key: &[u8]) {
        let now_ms = self.now_ms;
        let due = match self.table(place) {
            Some(table) if table.volatile > 0 => {
                table.entries.find(place.hash, |entry| entry.key() == key).is_some_and(|entry| entry.is_expired(now_ms))
            }
            _ => false,
        };
        if due {
            self.expire(place, key);
        }
    }

    #[cold]
    pub(super) fn expire(&mut self, place: Place, key: &[u8]) {
        if let Some(entry) = self.remove(place, key) {
            add(&self.shard(place).counters.expired, 1);
            let cause = std::mem::replace(&mut self.cause, Cause::Expire);
            self.publish(place, key, |key| Effect::Delete { key });
            self.cause = cause;
            self.discard(entry);
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
        create: Option<fn() -> crate::values::Value>,
        edit: impl FnOnce(&mut crate::values::Value, &Limits) -> R,
        is_empty: fn(&crate::values::Value) -> bool,
    ) -> Result<Option<R>, WrongKind> {
        let place = self.place(key);
        self.expire_if_due(place, key);
        let clock = self.engine.access_clock();
        let database = self.database;
        let limits = self.engine.limits();
        let shard = self.locks.shard(place.shard);
        let (table, counters) = shard.split_for_write(database, place.slot_in_shard);
        let mut emptied = false;
        let result = match table.entries.find_mut(place.hash, |entry| entry.key() == key) {
            Some(entry) => {
                if entry.kind() != kind {
                    return Err(WrongKind);
                }
                let before = entry.memory_bytes();
                let value = entry.as_value_mut().ok_or(WrongKind)?;
                let result = edit(value, &limits);
                emptied = is_empty(value);
                entry.set_access(clock);
                let now = entry.memory_bytes();
                table.resize(counters, before, now);
                Some(result)
            }
            None => match create {
                None => None,
                Some(create) => {
                    let mut value = create();
                    let result = edit(&mut value, &limits);
                    if !is_empty(&value) {
                        table.insert(counters, database, place.hash, Entry::value(key, value, None, clock));
                    }
                    Some(result)
                }
            },
        };
        if emptied && let Some(entry) = self.remove(place, key) {
            self.discard(entry);
        }
        Ok(result)
    }
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
            self.keyspace.discard(entry);
        }
    }
}
