//! Active expiry: keys that nobody asks for are removed too.
//!
//! Goal: memory of expired keys comes back as fast as clients make such keys, at a bounded cost. Method: a cycle goes on
//! where the last one stopped, slot by slot in hash order, and looks only into slots that hold keys with deadlines. It
//! holds a shard's lock for one step of a few dozen entries at a time. It stops when its time is used up, or when it has
//! looked at enough entries of each shard and found few of them expired. Whoever calls it comes back soon where it says
//! that it is behind, and late where it is not: the effort follows the share of stale keys.
//!
//! Fields of hashes expire by their own deadlines. They are gone at their moment for every command, which sees a hash only
//! as of its own moment; they are removed by whoever finds the hash, and by the cycle, so many at a time. What looks at
//! time 0, as whoever applies effects does, removes nothing: only a slot's primary does, and says so by an effect.

use super::Engine;
use super::Wait;
use super::effect::{Cause, encode};
use super::entry::{Entry, Life, Timing};
use super::event;
use super::keyspace::{Keyspace, Place};
use super::shard::{SlotTable, add, hash_of_entry};
use crate::base::clock;
use crate::values::segments::Index;
use crate::values::{Hash, Value};
use std::sync::atomic::Ordering;

/// Fields of one hash that are removed under one lock, at most.
const FIELDS: usize = 256;
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
    /// Until this moment, in Unix milliseconds, readers and the cycle leave in place what has expired: writers are told to
    /// wait until then (CLIENT PAUSE), and an expiry is a write. It is not there for readers all the same.
    pub fn keep_expired_until(&self, until_ms: u64) {
        self.expired_stay_until_ms.store(until_ms, Ordering::Relaxed);
    }

    /// Whether what has expired may be removed at this moment by who was not let through to write.
    pub(super) fn removes_expired(&self, now_ms: u64) -> bool {
        now_ms >= self.expired_stay_until_ms.load(Ordering::Relaxed) && !self.log.is_full()
    }

    /// One cycle over a thread's share of the shards, `first`, `first + step`, ... It begins at the `turn`th of them, ends
    /// when all have had theirs or `budget_us` after its start, and leaves in `turn` where the next one goes on: with too
    /// little time for all, none is forgotten.
    pub fn expire_cycle(&self, first: usize, step: usize, turn: &mut usize, now_ms: u64, budget_us: u64) -> Cycle {
        let until = clock::boot_us() + budget_us;
        let step = step.max(1);
        let share = (self.shard_count().saturating_sub(first)).div_ceil(step);
        let mut cycle = Cycle::default();
        // What it removes would wait for those readers too for whom writers wait.
        if !self.removes_expired(now_ms) {
            return cycle;
        }
        for _ in 0..share {
            // Expiry writes too, and waits as others do.
            if self.log.is_full() {
                break;
            }
            let shard = first + (*turn % share) * step;
            *turn = (*turn + 1) % share;
            if !self.counters[shard].databases.iter().any(|database| database.expires()) {
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
    /// Where the entry of a key stands of which something has expired, without that: what is to stay while writers wait, or
    /// because it is a copy, is as good as gone.
    #[cold]
    pub(super) fn find_aged(
        &mut self,
        place: Place,
        key: &[u8],
        (at, life): (Index, Life),
        may_write: bool,
    ) -> Option<Index> {
        // A copy changes by its primary alone.
        let may_write = may_write && self.shard(place).is_held(place.slot_in_shard);
        match life {
            Life::Whole => Some(at),
            Life::Parted if !may_write || self.expire_fields(place, key) == 0 => Some(at),
            Life::Parted => self.table(place)?.entries.find_index(place.hash, |entry| entry.key() == key),
            Life::Expired => {
                if may_write {
                    self.expire(place, key);
                }
                None
            }
        }
    }

    /// Removes a key whose deadline has passed.
    #[cold]
    fn expire(&mut self, place: Place, key: &[u8]) {
        if self.drop_key(place, key, Cause::Expire, event::EXPIRED) {
            add(&self.shard(place).counters.expired, 1);
        }
    }

    /// Removes fields whose deadlines have passed, the first `FIELDS` of them, and the key with the last one. Returns how
    /// many: none where a snapshot would have to copy much of what stays.
    fn expire_fields(&mut self, place: Place, key: &[u8]) -> usize {
        let (now_ms, database) = (self.now_ms, self.database);
        let find = |table: &mut SlotTable| table.entries.find_index(place.hash, |entry| entry.key() == key);
        let Some(at) = self.table(place).and_then(find) else { return 0 };
        let mut found = self.lookup_at(place, Some(at));
        if found.is_owed_and_large() {
            return 0;
        }
        let removed = found.change_unseen(|entry| match entry.as_value_mut() {
            Some(Value::Hash(hash)) => hash.remove_due(now_ms, FIELDS),
            _ => Vec::new(),
        });
        let is_emptied = found.entry().and_then(Entry::as_hash).is_some_and(Hash::is_empty);
        if is_emptied {
            found.remove();
        }
        let Some(removed) = removed.filter(|removed| !removed.is_empty()) else { return 0 };
        let cause = std::mem::replace(&mut self.cause, Cause::Expire);
        self.raise_watches(place, key, database);
        self.publish(place, |out| encode::hash_remove(out, key, removed.iter().map(|field| &**field)));
        self.happened(key, event::HASH_EXPIRED);
        if is_emptied {
            self.happened(key, event::DELETE);
        }
        self.cause = cause;
        add(&self.shard(place).counters.expired_fields, removed.len() as i64);
        removed.len()
    }

    /// Goes on at the shard's expiry cursor.
    fn expire_step(&mut self, index: usize) -> Step {
        let mut done = Step::default();
        let mut due: Vec<(Box<[u8]>, Life)> = Vec::new();
        while done.looked_at < STEP_ENTRIES && done.slots < STEP_SLOTS {
            let (database, at_end, looked_at) = self.find_due(index, &mut due);
            done.looked_at += looked_at;
            done.removed += due.len();
            done.slots += usize::from(at_end);
            if !due.is_empty() {
                self.select(database);
                for (key, life) in due.drain(..) {
                    let place = self.place(&key);
                    match life {
                        Life::Whole => {}
                        Life::Parted => drop(self.expire_fields(place, &key)),
                        Life::Expired => self.expire(place, &key),
                    }
                }
            }
        }
        done
    }

    /// Collects keys of the slot at the shard's expiry cursor of which something has expired, and moves the cursor on. Gives
    /// the database, whether it has come to the slot's end, and how many entries with deadlines were looked at.
    fn find_due(&mut self, index: usize, due: &mut Vec<(Box<[u8]>, Life)>) -> (usize, bool, usize) {
        let now_ms = self.now_ms;
        let shard = self.locks.shard(index);
        let (database, slot_in_shard, position) = shard.expiry_cursor;
        let mut looked_at = 0;
        let next = match shard.table(database, slot_in_shard) {
            // Only a slot's primary removes what has expired: what is being copied here is not touched.
            Some(table) if table.volatile + table.timed > 0 && shard.is_held(slot_in_shard) => {
                table.entries.scan(position, STEP_ENTRIES, hash_of_entry, |entry| {
                    looked_at += usize::from(entry.timing() != Timing::default());
                    match entry.life(now_ms) {
                        Life::Whole => {}
                        life => due.push((entry.key().into(), life)),
                    }
                })
            }
            _ => None,
        };
        let has_more = slot_in_shard + 1 < shard.slot_count() && shard.counters.databases[database].expires();
        shard.expiry_cursor = match next {
            Some(position) => (database, slot_in_shard, position),
            None if has_more => (database, slot_in_shard + 1, 0),
            None => ((database + 1) % shard.database_count(), 0, 0),
        };
        (database, next.is_none(), looked_at)
    }
}

#[cfg(test)]
mod tests;
