//! Active expiry: keys that nobody asks for are removed too.
//!
//! Goal: memory of expired keys comes back soon, at a bounded cost. Method: every cycle goes on where the last one
//! stopped, slot by slot in hash order, and looks only into slots that hold keys with deadlines. It holds a shard's lock
//! for one step of a few dozen entries at a time. It stops when its time is used up, or when it has looked at enough
//! entries and found few of them expired: then the next cycle is early enough.

use super::Engine;
use super::keyspace::{Keyspace, hash_of_entry};
use crate::base::clock;

/// Entries with a deadline that are looked at under one lock.
const STEP_ENTRIES: usize = 64;
/// Going on is worth it while at least one in this many was expired (Redis: 10 % may be stale).
const STALE_ONE_IN: usize = 10;
/// Entries looked at in any case, per shard and cycle.
const ENTRIES_MIN: usize = 128;
/// Slots passed over per shard and cycle, at most: empty ones cost a few nanoseconds.
const SLOTS_MAX: usize = 1024;

impl Engine {
    /// One cycle over a thread's share of the shards, `first`, `first + step`, ... It begins at the `turn`th of them, ends
    /// when all have had theirs or `budget_us` after its start, and leaves in `turn` where the next one goes on: with too
    /// little time for all, none is forgotten. Returns the number of keys it removed.
    pub fn expire_cycle(&self, first: usize, step: usize, turn: &mut usize, now_ms: u64, budget_us: u64) -> usize {
        let until = clock::boot_us() + budget_us;
        let step = step.max(1);
        let share = (self.shard_count().saturating_sub(first)).div_ceil(step);
        let mut removed = 0;
        for _ in 0..share {
            let shard = first + (*turn % share) * step;
            *turn = (*turn + 1) % share;
            if self.counters[shard].databases.iter().all(|d| d.volatile.load(std::sync::atomic::Ordering::Relaxed) == 0)
            {
                continue;
            }
            removed += self.expire_shard(shard, now_ms, until);
            if clock::boot_us() >= until {
                break;
            }
        }
        removed
    }

    fn expire_shard(&self, shard: usize, now_ms: u64, until_us: u64) -> usize {
        let (mut removed, mut seen, mut passed) = (0, 0, 0);
        loop {
            let mut keyspace = self.lock_shard(shard, 0, now_ms);
            let (looked_at, expired, slots) = keyspace.expire_step(shard);
            drop(keyspace);
            removed += expired;
            seen += looked_at;
            passed += slots;
            let few = seen >= ENTRIES_MIN && removed * STALE_ONE_IN < seen;
            if few || passed >= SLOTS_MAX || clock::boot_us() >= until_us {
                return removed;
            }
        }
    }
}

impl Keyspace<'_> {
    /// Goes on at the shard's expiry cursor. Returns entries with a deadline looked at, keys removed, slots passed.
    fn expire_step(&mut self, index: usize) -> (usize, usize, usize) {
        let now_ms = self.now_ms;
        let shard = self.locks.shard(index);
        let (database, slot_in_shard, position) = shard.expiry_cursor;
        let mut due: Vec<Box<[u8]>> = Vec::new();
        let mut looked_at = 0;
        let next = match shard.table(database, slot_in_shard) {
            // Only a slot's primary removes what has expired: what is being copied here is not touched.
            Some(table) if table.volatile > 0 && shard.is_held(slot_in_shard) => {
                table.entries.scan(position, STEP_ENTRIES, hash_of_entry, |entry| {
                    if let Some(deadline) = entry.deadline() {
                        looked_at += 1;
                        if deadline <= now_ms {
                            due.push(entry.key().into());
                        }
                    }
                })
            }
            _ => None,
        };
        shard.expiry_cursor = match next {
            Some(position) => (database, slot_in_shard, position),
            None if shard.table(database, slot_in_shard).is_some() && slot_in_shard + 1 < shard.slot_count() => {
                (database, slot_in_shard + 1, 0)
            }
            None => ((database + 1) % shard.database_count(), 0, 0),
        };
        if !due.is_empty() {
            self.select(database);
            for key in &due {
                let place = self.place(key);
                self.expire(place, key);
            }
        }
        (looked_at, due.len(), usize::from(next.is_none()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Deadline;

    /// A cycle without time for more than one shard must not begin at the same one every time.
    #[test]
    fn short_cycles_reach_every_shard() {
        let engine = Engine::new(1);
        for number in 0..2000 {
            let key = format!("key {number}").into_bytes();
            let slot = crate::base::slot::Slot::of_key(&key);
            engine.lock_slot(slot, 0, 1).set_string(&key, b"", Deadline::At(5));
        }
        let (mut turn, mut removed) = (0, 0);
        // One step per cycle: 128 shards of 128 slots each.
        for _ in 0..20_000 {
            removed += engine.expire_cycle(0, 1, &mut turn, 10, 0);
        }
        assert_eq!(removed, 2000);
    }
}
