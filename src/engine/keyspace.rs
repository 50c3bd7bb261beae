//! The keyspace: what a data handler sees of the engine.
//!
//! It holds the locks of the shards that the command may touch, for the time of the command (or of the whole EXEC). A
//! handler reads and changes keys only through it, and every change is counted, published to the effect log and told to
//! those who watch the key: there is no other way to change a key.

use super::commit::Pending;
use super::effect::{Cause, encode};
use super::entry::{Entry, Kind, Life};
use super::event::{self, Event};
use super::log::copied::Groups;
use super::log::gate::Shown;
use super::lookup::Lookup;
use super::reclaim::Afterwards;
use super::shard::{Shard, SlotTable, add};
use super::waiters::Waiter;
use super::watches::Watch;
use super::{Engine, lock::Locks};
use crate::base::slot::Slot;
use crate::values::hashing::table_hash;
use crate::values::segments::Index;
use crate::values::{Limits, Value};
use smallvec::SmallVec;
use std::sync::Arc;

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

/// What a command waits for that found nothing.
#[derive(Debug)]
pub struct Wanted {
    pub waiter: Arc<Waiter>,
    /// When it gives up, in Unix milliseconds.
    pub until_ms: Option<u64>,
    /// When it is executed again, if nothing has served it by then, in Unix milliseconds: what serves it may be time.
    pub again_ms: Option<u64>,
    /// Its reply when it gives up.
    pub given_up: Vec<u8>,
    /// Its reply at once, where nothing may wait (MULTI).
    pub without_waiting: Vec<u8>,
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
    /// What is done when the locks are released: it is dropped behind them.
    pub(super) afterwards: Afterwards<'e>,
    pub(super) database: usize,
    pub(super) now_ms: u64,
    pub(super) cause: Cause,
    /// Nothing is touched (CLIENT NO-TOUCH).
    keeps_access: bool,
    hint: Option<Hint>,
    /// What the commit has to do, if anything.
    pub(super) pending: Option<Box<Pending>>,
    /// The last look has made its key, or has taken the last of it.
    pub(super) has_created: bool,
    pub(super) has_emptied: bool,
    /// Keys that the request does not name may be touched, wherever they are.
    spans_slots: bool,
    /// What is shown is noted: replies wait until it is kept.
    pub(super) is_gated: bool,
    pub(super) shown: Shown,
}

impl<'e> Keyspace<'e> {
    pub(super) fn new(engine: &'e Engine, locks: Locks<'e>, database: usize, now_ms: u64) -> Keyspace<'e> {
        let afterwards = Afterwards::new(engine);
        let (is_gated, shown) = (engine.log.is_gated(), Shown::default());
        let cause = Cause::Client;
        Keyspace {
            engine,
            locks,
            afterwards,
            database,
            now_ms,
            cause,
            keeps_access: false,
            hint: None,
            pending: None,
            has_created: false,
            has_emptied: false,
            spans_slots: false,
            is_gated,
            shown,
        }
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

    /// Says that a command may touch keys which its request does not name, wherever they are: all shards are locked, and all
    /// keys are here.
    pub fn span_slots(&mut self) {
        self.spans_slots = true;
    }

    /// Whether a command may; else those in the slots of the keys that it names.
    pub fn spans_slots(&self) -> bool {
        self.spans_slots
    }

    /// Random bits.
    pub fn random(&mut self) -> u64 {
        self.engine.random()
    }

    /// See [`Engine::idle_seconds`].
    pub fn idle_seconds(&self, access: u32) -> Option<u32> {
        self.engine.idle_seconds(access)
    }

    /// See [`Engine::frequency`].
    pub fn frequency(&self, access: u32) -> Option<u8> {
        self.engine.frequency(access)
    }

    /// Thresholds of the packed encodings.
    pub fn limits(&self) -> Limits {
        self.engine.limits()
    }

    /// The command has no reply yet: it waits. Its handler has written none.
    pub fn want(&mut self, wanted: Wanted) {
        self.pending().wanted = Some(wanted);
    }

    /// What the command waits for, if it waits.
    pub fn take_wanted(&mut self) -> Option<Wanted> {
        self.pending.as_mut()?.wanted.take()
    }

    /// Leaves the access bits of entries alone from here on, or touches what is read and written (CLIENT NO-TOUCH).
    pub fn keep_access(&mut self, keeps: bool) {
        self.keeps_access = keeps;
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

    /// The same for a key that several steps in a row work on, computed here; for those steps only.
    pub fn hinted<R>(&mut self, key: &[u8], steps: impl FnOnce(&mut Self) -> R) -> R {
        self.hint(key, Slot::of_key(key), table_hash(key));
        let result = steps(self);
        self.hint = None;
        result
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

    // ---- reading ----

    /// The entry of a key, expired ones removed. Counts a hit or a miss and winds the access clock.
    #[inline]
    pub fn read(&mut self, key: &[u8]) -> Option<&Entry> {
        self.read_at(self.place(key), key)
    }

    #[inline]
    fn read_at(&mut self, place: Place, key: &[u8]) -> Option<&Entry> {
        let Some(at) = self.find(place, key) else { return self.missed(place, key) };
        let (database, engine) = (self.database, self.engine);
        let moment = engine.access.load().keeping(self.keeps_access);
        let (table, counters) = self.locks.shard(place.shard).split(database, place.slot_in_shard);
        let entry = table?.entries.get_mut(at)?;
        add(&counters.hits, 1);
        entry.set_access(engine.touched(moment, entry.access()));
        Some(entry)
    }

    /// Counts a miss.
    fn missed(&mut self, place: Place, key: &[u8]) -> Option<&Entry> {
        add(&self.shard(place).counters.misses, 1);
        if self.engine.log.is_listened_to() {
            self.happened(key, event::MISSED);
        }
        None
    }

    /// The entries of several keys at the same time, each read as by [`Keyspace::read`].
    pub fn read_all<'a>(&mut self, keys: impl Iterator<Item = &'a [u8]>) -> SmallVec<[Option<&Entry>; 4]> {
        let places: SmallVec<[(Place, &[u8]); 4]> = keys.map(|key| (self.place(key), key)).collect();
        for (place, key) in &places {
            self.read_at(*place, key);
        }
        places
            .into_iter()
            .map(|(place, key)| {
                let table = self.locks.shard_ref(place.shard).table(self.database, place.slot_in_shard)?;
                let entry = table.entries.get(table.entries.find_index(place.hash, |entry| entry.key() == key)?)?;
                Some(entry).filter(|entry| !entry.is_expired(self.now_ms))
            })
            .collect()
    }

    /// The entry of a key, for a command that asks about it and does not read its content: counted as hit or miss, but
    /// no access.
    pub fn look(&mut self, key: &[u8]) -> Option<&Entry> {
        let place = self.place(key);
        let Some(at) = self.find(place, key) else { return self.missed(place, key) };
        add(&self.shard(place).counters.hits, 1);
        self.table(place)?.entries.get(at)
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

    /// Where the entry of a key stands, for who reads it. One that has expired is removed first, and is not there; while
    /// writers have to wait it stays, and is not there either.
    #[inline(always)]
    fn find(&mut self, place: Place, key: &[u8]) -> Option<Index> {
        match self.find_any(place, key)? {
            (at, Life::Whole) => Some(at),
            (at, life) => self.find_aged(place, key, (at, life), self.engine.removes_expired(self.now_ms)),
        }
    }

    /// The same for who writes it, and was let through: what has expired is removed.
    #[inline(always)]
    fn find_to_write(&mut self, place: Place, key: &[u8]) -> Option<Index> {
        match self.find_any(place, key)? {
            (at, Life::Whole) => Some(at),
            (at, life) => self.find_aged(place, key, (at, life), true),
        }
    }

    /// Where the entry of a key stands, and what of it has expired.
    #[inline(always)]
    fn find_any(&mut self, place: Place, key: &[u8]) -> Option<(Index, Life)> {
        let now_ms = self.now_ms;
        self.show(place);
        let entries = &self.table(place)?.entries;
        let at = entries.find_index(place.hash, |entry| entry.key() == key)?;
        Some((at, entries.get(at)?.life(now_ms)))
    }

    /// Notes that something of a slot is shown. What a copy shows waits for nobody.
    #[inline]
    pub(super) fn show(&mut self, place: Place) {
        if self.is_gated {
            let meta = self.locks.shard(place.shard).meta(place.slot_in_shard);
            if !meta.has_copy {
                self.shown.show(meta.last, self.engine.log.copied.group(place.slot));
            }
        }
    }

    /// Notes that something of all slots is shown.
    #[inline]
    pub(super) fn show_all(&mut self) {
        if self.is_gated {
            self.shown.show(self.engine.log.end(), Groups::ALL);
        }
    }

    /// One look for a key that may be written: all changes of single entries begin with it.
    #[inline(always)]
    pub(super) fn lookup(&mut self, place: Place, key: &[u8]) -> Lookup<'_, 'e> {
        let at = self.find_to_write(place, key);
        self.lookup_at(place, at)
    }

    /// The same for a change of a key that must be there: where there is none, nothing is made for it.
    #[inline]
    fn lookup_present(&mut self, place: Place, key: &[u8]) -> Option<Lookup<'_, 'e>> {
        let at = self.find_to_write(place, key)?;
        Some(self.lookup_at(place, Some(at)))
    }

    #[inline(always)]
    pub(super) fn lookup_at(&mut self, place: Place, at: Option<Index>) -> Lookup<'_, 'e> {
        let (database, moment) = (self.database, self.engine.access.load().keeping(self.keeps_access));
        let (table, counters) = self.locks.shard(place.shard).split_for_write(database, place.slot_in_shard);
        (self.has_created, self.has_emptied) = (false, false);
        let (engine, hash) = (self.engine, place.hash);
        let (garbage, created) = (&mut self.afterwards, &mut self.has_created);
        Lookup { table, counters, garbage, database, hash, at, moment, engine, created }
    }

    // ---- writing ----

    /// Deletes the key. False where there was none.
    pub fn delete(&mut self, key: &[u8]) -> bool {
        let place = self.place(key);
        let Some(mut found) = self.lookup_present(place, key) else { return false };
        found.remove();
        self.changed(place, key, event::DELETE, |out| encode::delete(out, key));
        true
    }

    /// Sets or clears the key's deadline, in Unix milliseconds. False where there is no such key.
    pub fn set_deadline(&mut self, key: &[u8], deadline: Option<u64>) -> bool {
        let place = self.place(key);
        let Some(mut found) = self.lookup_present(place, key) else { return false };
        found.change_unseen(|entry| entry.set_deadline(deadline));
        let event = if deadline.is_some() { event::EXPIRE } else { event::PERSIST };
        self.changed(place, key, event, |out| encode::set_deadline(out, key, deadline));
        true
    }

    /// Makes a collection what the key holds, and nothing else; one that is empty takes the key away (SUNIONSTORE and its
    /// kin). Returns how many elements it has.
    pub fn store(&mut self, key: &[u8], value: Value, event: Event) -> usize {
        let count = value.len();
        match count {
            0 => drop(self.delete(key)),
            _ => self.put_value(key, value, None, event),
        }
        count
    }

    /// Puts a collection, which is not empty, into the keyspace, in place of what was there.
    pub fn put_value(&mut self, key: &[u8], value: Value, deadline: Option<u64>, event: Event) {
        let place = self.place(key);
        let entry = Entry::value(key, value, deadline, self.engine.access_clock());
        self.lookup(place, key).put(entry);
        // Encoded from where it lies, and only if somebody reads it.
        if self.engine.log.is_read()
            && let Some(at) = self.find(place, key)
        {
            let mut encoded = Vec::new();
            let entry = self.table(place).and_then(|table| table.entries.get(at));
            if let Some(value) = entry.and_then(Entry::as_value) {
                encode::put_value(&mut encoded, key, deadline, |out| value.write_image(out));
            }
            self.changed(place, key, event, |out| out.extend_from_slice(&encoded));
        } else {
            self.changed(place, key, event, |_| {});
        }
    }

    /// Gives what a key holds another name, in place of what has it. False where there is no such key.
    pub fn rename(&mut self, key: &[u8], to: &[u8]) -> bool {
        let (place, to_place) = (self.place(key), self.place(to));
        let taken = self.lookup_present(place, key).and_then(|mut found| found.take());
        let Some(entry) = taken else { return false };
        self.lookup(to_place, to).put(entry.renamed(to));
        let database = self.database;
        self.changed_two((place, key, database), (to_place, to, database), |out| encode::rename(out, key, to));
        self.happened_if_new(database, to);
        self.happened(key, event::RENAMED_FROM);
        self.happened(to, event::RENAMED_TO);
        true
    }

    /// Copies what a key holds to another name, or to another database, in place of what is there. False where there is
    /// no such key.
    pub fn copy(&mut self, key: &[u8], to: &[u8], database: usize) -> bool {
        let (here, place, to_place) = (self.database, self.place(key), self.place(to));
        let at = self.find_to_write(place, key);
        let Some(copied) = at.and_then(|at| Some(self.table(place)?.entries.get(at)?.copied(to))) else { return false };
        self.database = database;
        self.lookup(to_place, to).put(copied);
        self.database = here;
        // What was read has not changed.
        add(&self.shard(to_place).counters.changes, 1);
        self.raise_watches(to_place, to, database);
        self.publish_two(place, to_place, |out| encode::copy(out, key, to, database as u32));
        self.happened_if_new(database, to);
        self.happened_in(database, to, event::COPIED_TO);
        true
    }

    /// Takes what a key holds to another database, where there is no such key. False where there is none here.
    pub fn move_to(&mut self, key: &[u8], database: usize) -> bool {
        let (here, place) = (self.database, self.place(key));
        let taken = self.lookup_present(place, key).and_then(|mut found| found.take());
        let Some(entry) = taken else { return false };
        self.database = database;
        self.lookup(place, key).put(entry);
        self.database = here;
        let (from, to) = ((place, key, here), (place, key, database));
        self.changed_two(from, to, |out| encode::move_to(out, key, database as u32));
        self.happened_if_new(database, key);
        self.happened(key, event::MOVED_FROM);
        self.happened_in(database, key, event::MOVED_TO);
        true
    }

    /// Removes a key that no client has asked to remove. False where there is none.
    pub(super) fn drop_key(&mut self, place: Place, key: &[u8], cause: Cause, event: Event) -> bool {
        let database = self.database;
        let find = |table: &mut SlotTable| table.entries.find_index(place.hash, |entry| entry.key() == key);
        let Some(at) = self.table(place).and_then(find) else { return false };
        self.lookup_at(place, Some(at)).remove();
        let cause = std::mem::replace(&mut self.cause, cause);
        self.raise_watches(place, key, database);
        self.publish(place, |out| encode::delete(out, key));
        self.happened(key, event);
        self.cause = cause;
        true
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
            let edited = edit_found(&mut found, kind, &limits, edit, is_empty)?;
            self.has_emptied = edited.1;
            return Ok(Some(edited.0));
        };
        let mut found = self.lookup(place, key);
        if found.at.is_some() {
            let edited = edit_found(&mut found, kind, &limits, edit, is_empty)?;
            self.has_emptied = edited.1;
            return Ok(Some(edited.0));
        }
        let mut value = create();
        let result = edit(&mut value, &limits);
        if !is_empty(&value) {
            found.insert(Entry::value(key, value, None, found.moment.word()));
        }
        Ok(Some(result))
    }
}

/// Changes the collection that was found; one that becomes empty goes, which is said too.
fn edit_found<R>(
    found: &mut Lookup<'_, '_>,
    kind: Kind,
    limits: &Limits,
    edit: impl FnOnce(&mut Value, &Limits) -> R,
    is_empty: fn(&Value) -> bool,
) -> Result<(R, bool), WrongKind> {
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
    Ok((result, emptied))
}
