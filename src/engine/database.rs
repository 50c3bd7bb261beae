//! Whole databases and whole slots: counting, walking, emptying, exchanging them.

use super::effect::Effect;
use super::entry::Entry;
use super::keyspace::{Garbage, Keyspace, hash_of_entry};
use super::shard::{Placement, Shard, SlotTable, add};
use crate::base::slot::Slot;
use crate::values::hashing::table_hash;

impl Keyspace<'_> {
    /// Deletes every key of a database in the locked shards. Returns how many.
    pub fn flush(&mut self, database: usize) -> u64 {
        let now_ms = self.now_ms;
        let mut count = 0;
        for index in self.locks.indexes() {
            let placement = self.engine.placement();
            let cause = self.cause;
            let shard = self.locks.shard(index);
            let mut watched = Vec::new();
            if shard.is_watched() {
                watched = watched_and_present(shard, database, now_ms, placement);
            }
            for slot_in_shard in 0..shard.slot_count() {
                if !shard.is_held(slot_in_shard) {
                    continue;
                }
                let Some(taken) = shard.take_slot(database, slot_in_shard) else { continue };
                add(&shard.counters.changes, taken.entries.len() as i64);
                count += taken.entries.len() as u64;
                let slot = placement.slot(index, slot_in_shard);
                let position = shard.advance(slot_in_shard);
                shard.log.publish(slot, position, cause, database as u32, None, &Effect::FlushSlot);
                self.garbage.push(Garbage::Slot(taken));
            }
            shard.raise_watches_where(|db, key| db as usize == database && watched.iter().any(|w| **w == *key));
        }
        self.changes += count;
        count
    }

    /// Exchanges two databases; all shards must be locked.
    pub fn swap_databases(&mut self, first: usize, second: usize) {
        let (now_ms, placement) = (self.now_ms, self.engine.placement());
        for index in self.locks.indexes() {
            let shard = self.locks.shard(index);
            if shard.is_watched() {
                // A watched key changes where it exists before or after.
                let exists = |shard: &Shard, key: &[u8]| {
                    [first, second].iter().any(|&database| is_present(shard, database, key, now_ms, placement))
                };
                let watched: Vec<Box<[u8]>> = [first, second]
                    .iter()
                    .flat_map(|&database| shard.watched_keys(database as u32))
                    .filter(|key| exists(shard, key))
                    .map(Box::from)
                    .collect();
                shard.raise_watches_where(|database, key| {
                    [first, second].contains(&(database as usize)) && watched.iter().any(|w| **w == *key)
                });
            }
            shard.swap(first, second);
            add(&shard.counters.changes, 1);
        }
        self.changes += 1;
    }

    /// How many keys the selected database has in the locked shards.
    pub fn key_count(&mut self) -> u64 {
        let database = self.database;
        self.locks.indexes().map(|index| self.locks.shard(index).held_keys(database)).sum()
    }

    /// How many keys a slot has in the selected database; 0 where it is somebody else's.
    pub fn slot_key_count(&mut self, slot: Slot) -> usize {
        self.held_table(slot).map_or(0, |table| table.entries.len())
    }

    /// The keys of a slot that is not somebody else's.
    fn held_table(&mut self, slot: Slot) -> Option<&mut SlotTable> {
        let place = self.place_in(slot, 0);
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
        for _ in 0..TRIES {
            let total = self.key_count();
            if total == 0 {
                return None;
            }
            let mut left = self.random() % total;
            let bits = self.random();
            for index in self.locks.indexes() {
                let shard = self.locks.shard(index);
                let held = shard.held_keys(database);
                if left >= held {
                    left -= held;
                    continue;
                }
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

/// Whether a key is there, and has not expired.
fn is_present(shard: &Shard, database: usize, key: &[u8], now_ms: u64, placement: Placement) -> bool {
    let slot_in_shard = placement.slot_in_shard(Slot::of_key(key));
    shard
        .table(database, slot_in_shard)
        .and_then(|table| table.entries.find(table_hash(key), |entry| entry.key() == key))
        .is_some_and(|entry| !entry.is_expired(now_ms))
}

/// The watched keys that exist: only those change when the database is flushed.
fn watched_and_present(shard: &Shard, database: usize, now_ms: u64, placement: Placement) -> Vec<Box<[u8]>> {
    shard
        .watched_keys(database as u32)
        .filter(|key| is_present(shard, database, key, now_ms, placement))
        .map(Box::from)
        .collect()
}
