//! Whole databases and whole slots: counting, walking, emptying, exchanging them.

use super::effect::encode;
use super::entry::Entry;
use super::keyspace::{Keyspace, Place};
use super::reclaim::Garbage;
use super::shard::{Placement, Shard, SlotTable, add, hash_of_entry};
use super::waiters::ReadyKey;
use super::watches::{BATCH, WatchedKey};
use crate::base::slot::Slot;
use crate::base::slot_ranges::SlotRanges;
use smallvec::SmallVec;
use std::hint::black_box;
use std::sync::atomic::Ordering;

impl Keyspace<'_> {
    /// Deletes every key of a database, or of all, in the slots of the locked shards that are held. Returns how many.
    pub fn flush(&mut self, database: Option<usize>) -> u64 {
        let placement = self.engine.placement();
        let mut locked = vec![false; self.engine.shard_count()];
        self.locks.indexes().for_each(|index| locked[index] = true);
        let locks = &mut self.locks;
        let is_held = |slot: &Slot| {
            let index = placement.shard(*slot);
            locked[index] && locks.shard(index).is_held(placement.slot_in_shard(*slot))
        };
        let held: SlotRanges = Slot::all().filter(is_held).collect();
        self.flush_slots(database, &held)
    }

    /// Deletes every key of a database, or of all, in these slots of locked shards. Returns how many.
    pub(super) fn flush_slots(&mut self, database: Option<usize>, slots: &SlotRanges) -> u64 {
        let (now_ms, placement) = (self.now_ms, self.engine.placement());
        let databases = database.map_or(0..self.engine.database_count(), |database| database..database + 1);
        let (mut count, mut ready) = (0, Vec::new());
        for index in self.locks.indexes() {
            let shard = self.locks.shard(index);
            // Who reads for a group is told that its stream has gone.
            for database in databases.clone() {
                ready
                    .extend(waited_for(shard, index, placement, database).filter(|key| slots.contains(key.place.slot)));
            }
            raise_present(shard, now_ms, placement, |watched_in| {
                [databases.contains(&watched_in).then_some(watched_in), None]
            });
        }
        if !ready.is_empty() {
            self.pending().ready.extend(ready);
        }
        for slot in slots.slots() {
            let slot_in_shard = placement.slot_in_shard(slot);
            self.locks.shard(placement.shard(slot)).advance(slot_in_shard);
            for database in databases.clone() {
                let shard = self.locks.shard(placement.shard(slot));
                let Some(taken) = shard.take_slot(database, slot_in_shard) else { continue };
                add(&shard.counters.changes, taken.entries.len() as i64);
                count += taken.entries.len() as u64;
                self.discard_slot(slot, database, taken);
            }
        }
        if self.engine.log.is_read() {
            let database = database.map(|database| database as u32);
            self.record(None, |out| encode::flush(out, database, slots));
        }
        count
    }

    /// Frees the keys of a slot that were taken out whole, unless a snapshot needs them.
    pub(super) fn discard_slot(&mut self, slot: Slot, database: usize, taken: SlotTable) {
        let taken = match self.engine.access.load().has_snapshot() {
            true => self.engine.save_table(slot, database, taken),
            false => Some(taken),
        };
        self.afterwards.add(taken.map(Garbage::Slot));
    }

    /// Exchanges two databases; all shards must be locked.
    pub fn swap_databases(&mut self, first: usize, second: usize) {
        let (now_ms, placement) = (self.now_ms, self.engine.placement());
        let mut ready = Vec::new();
        for index in self.locks.indexes() {
            let shard = self.locks.shard(index);
            // A watched key changes where it exists before or after.
            raise_present(shard, now_ms, placement, |watched_in| match watched_in == first || watched_in == second {
                true => [Some(first), Some(second)],
                false => [None, None],
            });
            shard.swap(first, second);
            add(&shard.counters.changes, 1);
            // What somebody waits for may have come with the other database.
            for database in [first, second] {
                ready.extend(waited_for(shard, index, placement, database));
            }
        }
        if !ready.is_empty() {
            self.pending().ready.extend(ready);
        }
        if self.engine.access.load().has_snapshot() {
            self.engine.snapshots.swap(first, second);
        }
        if self.engine.log.is_read() {
            self.record(None, |out| encode::swap_databases(out, first as u32, second as u32));
        }
    }

    /// How many keys the selected database has in the locked shards.
    pub fn key_count(&mut self) -> u64 {
        self.show_all();
        self.locks.indexes().map(|index| self.held_keys(index)).sum()
    }

    /// How many keys of a shard are held in the selected database: by its counters, or under its lock where some of them
    /// are somebody else's.
    fn held_keys(&mut self, index: usize) -> u64 {
        let (database, counters) = (self.database, &self.engine.counters[index]);
        match counters.elsewhere.load(Ordering::Relaxed) {
            0 => counters.databases[database].keys.load(Ordering::Relaxed),
            _ => self.locks.shard(index).held_keys(database),
        }
    }

    /// Whether whoever walks over all slots had better stop before this one: somebody holds it for long.
    pub fn is_busy(&mut self, slot: Slot) -> bool {
        self.locks.is_busy(self.engine.placement().shard(slot))
    }

    /// How many keys a slot has in the selected database; 0 where it is somebody else's.
    pub fn slot_key_count(&mut self, slot: Slot) -> usize {
        self.held_table(slot).map_or(0, |table| table.entries.len())
    }

    /// The keys of a slot that is not somebody else's.
    fn held_table(&mut self, slot: Slot) -> Option<&mut SlotTable> {
        let place = self.place_in(slot, 0);
        self.show(place);
        self.shard(place).is_held(place.slot_in_shard).then(|| self.table(place)).flatten()
    }

    /// Visits the entries of a slot whose hash positions begin at `position`, expired ones left out, until about `count`
    /// were visited. Returns where to go on; `None` at the end of the slot.
    pub fn scan_slot(&mut self, slot: Slot, position: u32, count: usize, mut visit: impl FnMut(&Entry)) -> Option<u32> {
        let now_ms = self.now_ms;
        self.held_table(slot)?.entries.scan(position, count, hash_of_entry, |entry| {
            if !entry.is_expired(now_ms) {
                visit(entry);
            }
        })
    }

    /// Visits every entry of a slot, expired ones left out.
    pub fn visit_slot(&mut self, slot: Slot, mut visit: impl FnMut(&Entry)) {
        let now_ms = self.now_ms;
        if let Some(table) = self.held_table(slot) {
            table.entries.iter().filter(|entry| !entry.is_expired(now_ms)).for_each(&mut visit);
        }
    }

    /// A key at random, each about as likely; `None` where the locked shards hold none.
    pub fn random_key(&mut self) -> Option<Vec<u8>> {
        // Expired keys that nobody has removed yet are passed over, as often as Redis does.
        const TRIES: usize = 100;
        let (now_ms, database, placement) = (self.now_ms, self.database, self.engine.placement());
        for attempt in 0..TRIES {
            let total = self.key_count();
            if total == 0 {
                return None;
            }
            let mut left = self.random() % total;
            let bits = self.random();
            for index in self.locks.indexes() {
                let held = self.held_keys(index);
                if left >= held {
                    left -= held;
                    continue;
                }
                // Another one will do as well, unless all keys are where somebody else is.
                if attempt < TRIES / 2 && self.locks.is_busy(index) {
                    break;
                }
                let shard = self.locks.shard(index);
                for slot_in_shard in 0..shard.slot_count() {
                    let Some(table) = shard.table(database, slot_in_shard) else { break };
                    if !shard.is_held(slot_in_shard) {
                        continue;
                    }
                    if left >= table.entries.len() as u64 {
                        left -= table.entries.len() as u64;
                        continue;
                    }
                    debug_assert_eq!(placement.shard(placement.slot(index, slot_in_shard)), index);
                    match table.entries.random(bits) {
                        Some(entry) if !entry.is_expired(now_ms) => return Some(entry.key().to_vec()),
                        _ => break,
                    }
                }
                break;
            }
        }
        None
    }
}

/// The keys of a shard that are waited for in a database.
fn waited_for(shard: &Shard, index: usize, placement: Placement, database: usize) -> impl Iterator<Item = ReadyKey> {
    shard.waiters.of_database(database).map(move |(hash, slot, key)| ReadyKey {
        place: Place { shard: index, slot_in_shard: placement.slot_in_shard(slot), slot, hash },
        database,
        key: key.into(),
    })
}

/// Tells those who watch keys that exist, unexpired, in one of the databases that `databases` gives for the one in which
/// they are watched: only those change.
fn raise_present(
    shard: &mut Shard,
    now_ms: u64,
    placement: Placement,
    databases: impl Fn(usize) -> [Option<usize>; 2],
) {
    if !shard.is_watched() {
        return;
    }
    let mut watches = std::mem::take(&mut shard.watches);
    watches.raise_batches(|batch| present(batch, shard, now_ms, placement, &databases));
    shard.watches = watches;
}

/// Which of the watched keys are there, one bit for each. A lookup waits for memory three times; each of these steps is done
/// for all keys before the next one, so that the waits overlap.
fn present(
    batch: &[&mut WatchedKey],
    shard: &Shard,
    now_ms: u64,
    placement: Placement,
    databases: impl Fn(usize) -> [Option<usize>; 2],
) -> u32 {
    let mut lookups: SmallVec<[(usize, &SlotTable); 2 * BATCH]> = SmallVec::new();
    for (place, watched) in batch.iter().enumerate() {
        let slot_in_shard = placement.slot_in_shard(watched.slot);
        let databases = databases(watched.database as usize).into_iter().flatten();
        let tables = databases.filter_map(|database| shard.table(database, slot_in_shard));
        lookups.extend(tables.filter(|table| !table.entries.is_empty()).map(|table| (place, table)));
    }
    let mut candidates: SmallVec<[&Entry; 2 * BATCH]> = SmallVec::new();
    candidates.extend(lookups.iter().filter_map(|(place, table)| table.entries.candidate(batch[*place].hash)));
    // Touched, and nothing else: the loads do not wait for each other.
    for (place, _) in &lookups {
        black_box(batch[*place].key.first().copied());
    }
    for candidate in candidates {
        black_box(candidate.key().first().copied());
    }
    let is_there = |watched: &WatchedKey, table: &SlotTable| {
        let entry = table.entries.find(watched.hash, |entry| entry.key() == &*watched.key);
        entry.is_some_and(|entry| !entry.is_expired(now_ms))
    };
    let found = lookups.iter().filter(|(place, table)| is_there(batch[*place], table));
    found.fold(0, |bits, (place, _)| bits | 1 << place)
}

#[cfg(test)]
mod tests {
    use crate::base::slot::Slot;
    use crate::engine::effect::Side;
    use crate::engine::event;
    use crate::engine::shard::DatabaseCounters;
    use crate::engine::watches::Watch;
    use crate::engine::{Deadline, Engine, Increment, Keyspace, WrongKind};
    use std::sync::Arc;
    use std::sync::atomic::Ordering;
    use std::time::{Duration, Instant};

    /// Bytes of entries and of tables, walked.
    fn walk(engine: &Engine, databases: usize) -> (u64, u64) {
        // At time 0 nothing has expired: what is there is seen.
        let mut keyspace = engine.lock_all(0, 0);
        let (mut entries, mut tables, mut timed) = (0, 0, 0);
        for (database, slot) in (0..databases).flat_map(|database| Slot::all().map(move |slot| (database, slot))) {
            keyspace.select(database);
            keyspace.visit_slot(slot, |entry| {
                entries += entry.memory_bytes() as u64;
                timed += u64::from(entry.timing().fields);
            });
            let place = keyspace.place_in(slot, 0);
            tables += keyspace.table(place).map_or(0, |table| table.entries.allocation_bytes() as u64);
        }
        let counted = |counters: &DatabaseCounters| counters.timed.load(Ordering::Relaxed);
        let counted: u64 = engine.counters.iter().flat_map(|shard| shard.databases.iter()).map(counted).sum();
        assert_eq!(counted, timed, "hashes of which fields have deadlines");
        (entries, tables)
    }

    /// Whatever happens to keys, the bytes counted by deltas are those that a walk finds, and the total follows.
    #[test]
    fn bytes_counted_are_those_of_the_entries() {
        const DATABASES: usize = 2;
        let engine = Engine::new(DATABASES);
        for round in 0..20_000u64 {
            let bits = engine.random();
            // One slot in three rounds, so that its table is split into segments.
            let tag = if bits.is_multiple_of(3) { "{a}" } else { "" };
            let key = format!("{tag}{}", (bits >> 8) % 4000).into_bytes();
            let value = vec![b'x'; (bits >> 32) as usize % 6000 / (1 + (bits >> 16) as usize % 50)];
            let mut keyspace = engine.lock_slot(Slot::of_key(&key), (bits >> 60) as usize % DATABASES, 1);
            match (bits >> 48) % 10 {
                0 | 1 => keyspace.set_string(&key, &value, Deadline::At(1 + bits % 5)),
                2 => drop(keyspace.append(&key, &value)),
                3 => drop(keyspace.list_push(&key, Side::Back, std::iter::repeat_n(&value[..], 5))),
                4 => drop(keyspace.set_add(&key, [&value[..], &key].into_iter())),
                5 => drop(keyspace.set_deadline(&key, Some(100))),
                6 => drop(keyspace.delete(&key)),
                7 | 8 => {
                    let fields = [&key[..key.len() - 1], &key].into_iter();
                    let _ = keyspace.hash_set(&key, fields.clone().map(|field| (field, &value[..])));
                    let timed = fields.map(|field| (field, (!bits.is_multiple_of(7)).then_some(1 + bits % 3)));
                    let _ = keyspace.hash_set_deadlines(&key, timed, 1, event::HASH_EXPIRE);
                }
                _ => drop(
                    keyspace.update_integer(&key, |_| Ok::<_, WrongKind>(Increment { change: 0, result: bits as i64 })),
                ),
            }
            drop(keyspace);
            if round % 5000 == 4999 {
                let counted = engine.statistics();
                assert_eq!((counted.entry_bytes, counted.table_bytes), walk(&engine, DATABASES), "round {round}");
                let all = counted.entry_bytes + counted.table_bytes;
                assert!(engine.memory_bytes().abs_diff(all) <= 2 << 20, "{} of {all}", engine.memory_bytes());
            }
        }
        engine.lock_all(0, 1).flush(None);
        let counted = engine.statistics();
        assert_eq!((counted.entry_bytes, counted.table_bytes), walk(&engine, DATABASES), "after the flush");
        assert_eq!(counted.entry_bytes, 0);
    }

    /// A flush and an exchange raise the watches of exactly those keys that are there, unexpired, in a database concerned.
    #[test]
    fn flushes_and_exchanges_raise_the_watches_of_keys_that_exist() {
        const NOW: u64 = 1000;
        // Not there; there; expired, and not removed yet; there with a deadline to come.
        const LIVES: [Option<Deadline>; 4] =
            [None, Some(Deadline::Clear), Some(Deadline::At(NOW - 1)), Some(Deadline::At(NOW + 1))];
        let exists = |life: Option<Deadline>| matches!(life, Some(Deadline::Clear | Deadline::At(NOW..)));
        type Act = fn(&mut Keyspace<'_>);
        // And where a key that is watched in one of three databases has to exist to change.
        let acts: [(Act, [&[usize]; 3]); 4] = [
            (|keyspace| _ = keyspace.flush(Some(0)), [&[0], &[], &[]]),
            (|keyspace| _ = keyspace.flush(Some(1)), [&[], &[1], &[]]),
            (|keyspace| _ = keyspace.flush(None), [&[0], &[1], &[2]]),
            (|keyspace| keyspace.swap_databases(0, 1), [&[0, 1], &[0, 1], &[]]),
        ];
        for (act, wheres) in acts {
            let engine = Engine::new(3);
            let mut watched = Vec::new();
            // Many of them in one slot, and one in each of many.
            for number in 0..3000usize {
                let tag = if number.is_multiple_of(2) { "{a}" } else { "" };
                let key = format!("{tag}{number}").into_bytes();
                let lives = [number / 2 % 4, number / 8 % 4, 1].map(|life| LIVES[life]);
                for (database, life) in lives.into_iter().enumerate() {
                    let mut keyspace = engine.lock_slot(Slot::of_key(&key), database, 1);
                    if let Some(deadline) = life {
                        keyspace.set_string(&key, b"v", deadline);
                    }
                    let watch = Watch::default();
                    keyspace.watch(&key, Arc::clone(&watch));
                    let changes = wheres[database].iter().any(|&other| exists(lives[other]));
                    watched.push((key.clone(), database, watch, changes));
                }
            }
            act(&mut engine.lock_all(0, NOW));
            for (key, database, watch, changes) in &watched {
                let place = format!("{} in {database}", String::from_utf8_lossy(key));
                assert_eq!(watch.load(Ordering::Acquire), *changes, "{place}");
                // One that was told is forgotten.
                assert_eq!(Arc::strong_count(watch), 2 - usize::from(*changes), "{place}");
            }
        }
    }

    /// A measure, in an optimized build: `cargo test --release --lib -- --ignored --nocapture flush_takes`.
    #[test]
    #[ignore = "a measure, not a check"]
    fn how_long_a_flush_takes_where_keys_are_watched() {
        const KEYS: usize = 200_000;
        for (name, there, watched) in [("none", KEYS, 0), ("all", KEYS, KEYS), ("as many that are not there", 0, KEYS)]
        {
            let mut least = Duration::MAX;
            for _ in 0..5 {
                let (engine, watch) = (Engine::new(1), Watch::default());
                let key = |number: usize| format!("key:{number}").into_bytes();
                for key in (0..there).map(key) {
                    engine.lock_slot(Slot::of_key(&key), 0, 1).set_string(&key, b"value", Deadline::Clear);
                }
                for key in (0..watched).map(key) {
                    engine.lock_slot(Slot::of_key(&key), 0, 1).watch(&key, Arc::clone(&watch));
                }
                let mut keyspace = engine.lock_all(0, 1);
                let began = Instant::now();
                keyspace.flush(Some(0));
                least = least.min(began.elapsed());
            }
            println!("{name} watched: {least:?}");
        }
    }
}
