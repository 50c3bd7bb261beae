//! Active expiry: keys that nobody asks for are removed too.
//!
//! Goal: memory of expired keys comes back as fast as clients make such keys, at a bounded cost. Method: a cycle goes on
//! where the last one stopped, slot by slot in hash order, and looks only into slots that hold keys with deadlines. It
//! holds a shard's lock for one step of a few dozen entries at a time. It stops when its time is used up, or when it has
//! looked at enough entries of each shard and found few of them expired. Whoever calls it comes back soon where it says
//! that it is behind, and late where it is not: the effort follows the share of stale keys.

use super::Engine;
use super::Wait;
use super::keyspace::Keyspace;
use super::shard::hash_of_entry;
use crate::base::clock;
use std::sync::atomic::Ordering;

/// Entries with a deadline that are looked at under one lock, about.
const STEP_ENTRIES: usize = 64;
/// Slots passed under one lock, at most: without keys they cost a few nanoseconds.
const STEP_SLOTS: usize = 32;
/// Going on is worth it while at least one in this many was expired (Redis: 10 % may be stale).
const STALE_ONE_IN: usize = 10;
/// Entries looked at in any case, per shard and cycle.
const ENTRIES_MIN: usize = 128;
/// Slots passed over per shard and cycle, at most.
const SLOTS_MAX: usize = 1024;

/// What a cycle has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cycle {
    /// Keys it removed.
    pub removed: usize,
    /// It stopped although it kept finding expired keys: the next one should not wait.
    pub is_behind: bool,
}

/// What was done under one lock, or under all those of one shard.
#[derive(Clone, Copy, Debug, Default)]
struct Step {
    /// Entries with a deadline.
    looked_at: usize,
    removed: usize,
    slots: usize,
}

impl Step {
    /// Whether so many of the entries were expired that it is worth looking at more.
    fn is_stale(self) -> bool {
        self.removed > 0 && self.removed * STALE_ONE_IN >= self.looked_at
    }
}

impl Engine {
    /// One cycle over a thread's share of the shards, `first`, `first + step`, ... It begins at the `turn`th of them, ends
    /// when all have had theirs or `budget_us` after its start, and leaves in `turn` where the next one goes on: with too
    /// little time for all, none is forgotten.
    pub fn expire_cycle(&self, first: usize, step: usize, turn: &mut usize, now_ms: u64, budget_us: u64) -> Cycle {
        let until = clock::boot_us() + budget_us;
        let step = step.max(1);
        let share = (self.shard_count().saturating_sub(first)).div_ceil(step);
        let mut cycle = Cycle::default();
        // What it removes would wait for those readers too for whom writers wait.
        if self.log.is_full() {
            return cycle;
        }
        for _ in 0..share {
            // Expiry writes too, and waits as others do.
            if self.log.is_full() {
                break;
            }
            let shard = first + (*turn % share) * step;
            *turn = (*turn + 1) % share;
            if self.counters[shard].databases.iter().all(|database| database.volatile.load(Ordering::Relaxed) == 0) {
                continue;
            }
            let seen = self.expire_shard(shard, now_ms, until);
            cycle.removed += seen.removed;
            cycle.is_behind |= seen.is_stale();
            if clock::boot_us() >= until {
                break;
            }
        }
        cycle
    }

    fn expire_shard(&self, shard: usize, now_ms: u64, until_us: u64) -> Step {
        let mut seen = Step::default();
        loop {
            // Who holds it for long is passed over: its turn comes again.
            let Some(mut keyspace) = self.try_lock_shard(Wait::Shortly, shard, 0, now_ms) else { return seen };
            let done = keyspace.expire_step(shard);
            drop(keyspace);
            seen.removed += done.removed;
            seen.looked_at += done.looked_at;
            seen.slots += done.slots;
            let few = seen.looked_at >= ENTRIES_MIN && !seen.is_stale();
            if few || seen.slots >= SLOTS_MAX || clock::boot_us() >= until_us {
                return seen;
            }
        }
    }
}

impl Keyspace<'_> {
    /// Goes on at the shard's expiry cursor.
    fn expire_step(&mut self, index: usize) -> Step {
        let mut done = Step::default();
        let mut due: Vec<Box<[u8]>> = Vec::new();
        while done.looked_at < STEP_ENTRIES && done.slots < STEP_SLOTS {
            let (database, at_end, looked_at) = self.find_due(index, &mut due);
            done.looked_at += looked_at;
            done.removed += due.len();
            done.slots += usize::from(at_end);
            if !due.is_empty() {
                self.select(database);
                for key in due.drain(..) {
                    let place = self.place(&key);
                    self.expire(place, &key);
                }
            }
        }
        done
    }

    /// Collects expired keys of the slot at the shard's expiry cursor, and moves the cursor on. Gives the database, whether
    /// it has come to the slot's end, and how many entries with a deadline were looked at.
    fn find_due(&mut self, index: usize, due: &mut Vec<Box<[u8]>>) -> (usize, bool, usize) {
        let now_ms = self.now_ms;
        let shard = self.locks.shard(index);
        let (database, slot_in_shard, position) = shard.expiry_cursor;
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
        let has_more = slot_in_shard + 1 < shard.slot_count()
            && shard.counters.databases[database].volatile.load(Ordering::Relaxed) > 0;
        shard.expiry_cursor = match next {
            Some(position) => (database, slot_in_shard, position),
            None if has_more => (database, slot_in_shard + 1, 0),
            None => ((database + 1) % shard.database_count(), 0, 0),
        };
        (database, next.is_none(), looked_at)
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
            removed += engine.expire_cycle(0, 1, &mut turn, 10, 0).removed;
        }
        assert_eq!(removed, 2000);
    }

    /// A database full of expired keys keeps the cycles coming; one with few of them lets them rest.
    #[test]
    fn cycles_are_behind_while_many_keys_are_stale() {
        let engine = Engine::new(1);
        let set = |range: std::ops::Range<usize>, deadline| {
            for number in range {
                let key = format!("key {number}").into_bytes();
                let slot = crate::base::slot::Slot::of_key(&key);
                engine.lock_slot(slot, 0, 1).set_string(&key, b"", Deadline::At(deadline));
            }
        };
        set(0..10_000, 5);
        let (mut turn, mut removed, mut cycles) = (0, 0, 0);
        while removed < 9_000 {
            let cycle = engine.expire_cycle(0, 1, &mut turn, 10, 0);
            removed += cycle.removed;
            cycles += 1;
            assert!(cycle.removed == 0 || cycle.is_behind, "cycle {cycles} removed {} and rests", cycle.removed);
            assert!(cycles < 20_000, "{removed} keys after {cycles} cycles");
        }
        while engine.statistics().databases[0].0 > 0 {
            engine.expire_cycle(0, 1, &mut turn, 10, 1_000_000);
        }
        set(0..10_000, 1_000);
        assert_eq!(engine.expire_cycle(0, 1, &mut turn, 10, 1_000_000), Cycle { removed: 0, is_behind: false });
    }
}
