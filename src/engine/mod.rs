//! The engine: 16384 slots in shards, each under a lock; databases of keys in them; the log of their effects.
//!
//! It knows neither RESP nor the cluster, neither files nor sockets. Any thread may take any shard: a command takes the
//! locks of the slots of its keys, in order, works through a [`Keyspace`], and lets go. Nothing waits under a lock.

mod access;
mod admission;
#[cfg(test)]
pub(crate) mod changes;
pub mod collections;
mod commit;
pub mod database;
pub mod digest;
pub mod effect;
pub mod entry;
pub mod event;
pub mod eviction;
pub mod expiry;
pub mod export;
mod frequency;
mod group;
pub mod keyspace;
pub mod loading;
mod lock;
pub mod log;
mod lookup;
mod portion;
mod prefetch;
mod reclaim;
mod remembering;
pub mod shard;
pub mod snapshot;
mod strings;
pub mod transfer;
pub mod waiters;
pub mod watches;

pub use admission::Admission;
pub use group::{Group, Run};
pub use keyspace::{Deadline, Keyspace, Wanted, WrongKind};
pub use lock::Wait;
pub use portion::Elements;
pub use strings::{Increment, STRING_BYTES_MAX};

use crate::base::clock;
use crate::base::slot::Slot;
use crate::values::Limits;
use access::{Access, Moment};
use arc_swap::ArcSwap;
use crossbeam::utils::CachePadded;
use frequency::Frequency;
use lock::Locks;
use log::Log;
use parking_lot::Mutex;
use reclaim::Reclaimer;
use shard::{Counters, Placement, Shard, SlotState, TotalBytes};
use smallvec::SmallVec;
use snapshot::Snapshots;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Locks over the 16384 slots. More than any machine here has cores; FLUSHALL and the like take them all.
const SHARD_COUNT: usize = 128;

/// The keys of this node.
#[derive(Debug)]
pub struct Engine {
    shards: Box<[CachePadded<Mutex<Shard>>]>,
    counters: Box<[Arc<CachePadded<Counters>>]>,
    total_bytes: Arc<TotalBytes>,
    reclaimer: Reclaimer,
    /// What has changed, for whoever reads it.
    pub log: Log,
    /// How copies compare with their primaries.
    pub compared: digest::Compared,
    /// Bytes of the entries of slots that may be sent to copies in a second; 0: as many as there are.
    pub move_rate: AtomicU64,
    events: event::Events,
    placement: Placement,
    databases: usize,
    limits: ArcSwap<Limits>,
    skips_checksums: AtomicBool,
    /// Until then nothing is removed because it has expired, in Unix milliseconds.
    expired_stay_until_ms: AtomicU64,
    /// What entries remember of their last access, and the mark of the last snapshot.
    access: Access,
    frequency: Frequency,
    snapshots: Snapshots,
}

/// What the engine has counted, over all shards.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    pub hits: u64,
    pub misses: u64,
    pub expired: u64,
    /// Fields of hashes.
    pub expired_fields: u64,
    pub evicted: u64,
    pub changes: u64,
    pub entry_bytes: u64,
    /// Bytes of the tables in which the entries stand.
    pub table_bytes: u64,
    /// Keys, and keys with a deadline, by database.
    pub databases: Vec<(u64, u64)>,
}

impl Engine {
    /// An engine with this many databases.
    pub fn new(databases: usize) -> Engine {
        let placement = Placement::new(SHARD_COUNT);
        let slots = crate::base::slot::SLOT_COUNT / SHARD_COUNT;
        let total_bytes = Arc::new(TotalBytes::default());
        let shard = || CachePadded::new(Mutex::new(Shard::new(databases, slots, Arc::clone(&total_bytes))));
        let shards: Box<[_]> = (0..SHARD_COUNT).map(|_| shard()).collect();
        let counters = shards.iter().map(|shard| Arc::clone(&shard.lock().counters)).collect();
        let engine = Engine {
            shards,
            counters,
            total_bytes,
            reclaimer: Reclaimer::start(),
            log: Log::default(),
            compared: digest::Compared::default(),
            events: Default::default(),
            placement,
            databases,
            limits: ArcSwap::from_pointee(Limits::default()),
            skips_checksums: AtomicBool::new(false),
            expired_stay_until_ms: AtomicU64::new(0),
            move_rate: AtomicU64::new(0),
            access: Access::default(),
            frequency: Frequency::default(),
            snapshots: Snapshots::default(),
        };
        engine.wind_access_clock(clock::unix_us() / 1000);
        engine
    }

    pub fn database_count(&self) -> usize {
        self.databases
    }

    pub fn shard_count(&self) -> usize {
        self.shards.len()
    }

    pub(crate) fn placement(&self) -> Placement {
        self.placement
    }

    /// Thresholds of the packed encodings.
    pub fn limits(&self) -> Limits {
        // A copy: the guard would be one more thing to hold, a counted reference a word that all cores write.
        **self.limits.load()
    }

    /// Changes the thresholds of the packed encodings; values change their encoding when they are next written.
    pub fn set_limits(&self, limits: Limits) {
        self.limits.store(Arc::new(limits));
    }

    /// Whether payloads are taken whatever their checksum is: for tests.
    pub fn set_skips_checksums(&self, skips: bool) {
        self.skips_checksums.store(skips, Ordering::Relaxed);
    }

    /// Locks the shard of one slot; `None` where it stays busy for longer than `wait`.
    #[inline]
    pub fn try_lock_slot(&self, wait: Wait, slot: Slot, database: usize, now_ms: u64) -> Option<Keyspace<'_>> {
        self.try_lock_shard(wait, self.placement.shard(slot), database, now_ms)
    }

    /// Locks one shard; `None` where it stays busy.
    #[inline]
    fn try_lock_shard(&self, wait: Wait, index: usize, database: usize, now_ms: u64) -> Option<Keyspace<'_>> {
        let guard = wait.lock(&self.shards[index])?;
        Some(Keyspace::new(self, Locks::One(index, guard), database, now_ms))
    }

    /// Locks the shards of several slots; `None`, and none of them, where one stays busy.
    pub fn try_lock_slots(
        &self,
        wait: Wait,
        slots: impl Iterator<Item = Slot>,
        database: usize,
        now_ms: u64,
    ) -> Option<Keyspace<'_>> {
        let mut indexes: SmallVec<[usize; 8]> = slots.map(|slot| self.placement.shard(slot)).collect();
        indexes.sort_unstable();
        indexes.dedup();
        if let [index] = indexes[..] {
            return self.try_lock_shard(wait, index, database, now_ms);
        }
        let guard = |index: usize| Some((index, wait.lock(&self.shards[index])?));
        let locks = Locks::Some(indexes.into_iter().map(guard).collect::<Option<_>>()?);
        Some(Keyspace::new(self, locks, database, now_ms))
    }

    /// Locks everything; `None`, and nothing, where a shard stays busy.
    pub fn try_lock_all(&self, wait: Wait, database: usize, now_ms: u64) -> Option<Keyspace<'_>> {
        let guards = self.shards.iter().map(|shard| wait.lock(shard)).collect::<Option<_>>()?;
        Some(Keyspace::new(self, Locks::All(guards), database, now_ms))
    }

    /// Locks nothing yet: every shard is locked when its keys are looked at, and let go before the next. For commands
    /// that read all keys and promise no common moment.
    pub fn walk(&self, database: usize, now_ms: u64) -> Keyspace<'_> {
        Keyspace::new(self, Locks::Each { shards: &self.shards, current: None }, database, now_ms)
    }

    /// Locks the shard of one slot, however long that takes.
    pub fn lock_slot(&self, slot: Slot, database: usize, now_ms: u64) -> Keyspace<'_> {
        let index = self.placement.shard(slot);
        Keyspace::new(self, Locks::One(index, self.shards[index].lock()), database, now_ms)
    }

    /// Locks the shards of several slots, however long that takes.
    pub fn lock_slots(&self, slots: impl Iterator<Item = Slot>, database: usize, now_ms: u64) -> Keyspace<'_> {
        let mut indexes: SmallVec<[usize; 8]> = slots.map(|slot| self.placement.shard(slot)).collect();
        indexes.sort_unstable();
        indexes.dedup();
        let locks = Locks::Some(indexes.into_iter().map(|index| (index, self.shards[index].lock())).collect());
        Keyspace::new(self, locks, database, now_ms)
    }

    /// Locks everything, however long that takes.
    pub fn lock_all(&self, database: usize, now_ms: u64) -> Keyspace<'_> {
        let guards = self.shards.iter().map(|shard| shard.lock()).collect();
        Keyspace::new(self, Locks::All(guards), database, now_ms)
    }

    /// Says who executes commands on these slots.
    pub fn set_slot_states(&self, states: impl Iterator<Item = (Slot, SlotState)>) {
        for (slot, state) in states {
            let mut shard = self.shards[self.placement.shard(slot)].lock();
            shard.set_state(self.placement.slot_in_shard(slot), state);
        }
    }

    /// Makes the writers of a slot wait, or lets them go on: they are to be told by the log then.
    fn set_throttled(&self, slot: Slot, is_throttled: bool) {
        let mut shard = self.shards[self.placement.shard(slot)].lock();
        shard.set_throttled(self.placement.slot_in_shard(slot), is_throttled);
    }

    /// The counters of all shards, added up. Takes no lock.
    pub fn statistics(&self) -> Statistics {
        let mut sum = Statistics { databases: vec![(0, 0); self.databases], ..Statistics::default() };
        for counters in &self.counters {
            sum.hits += counters.hits.load(Ordering::Relaxed);
            sum.misses += counters.misses.load(Ordering::Relaxed);
            sum.expired += counters.expired.load(Ordering::Relaxed);
            sum.expired_fields += counters.expired_fields.load(Ordering::Relaxed);
            sum.evicted += counters.evicted.load(Ordering::Relaxed);
            sum.changes += counters.changes.load(Ordering::Relaxed);
            sum.entry_bytes += counters.entry_bytes.load(Ordering::Relaxed);
            sum.table_bytes += counters.table_bytes.load(Ordering::Relaxed);
            for (database, counted) in sum.databases.iter_mut().zip(&counters.databases) {
                database.0 += counted.keys.load(Ordering::Relaxed);
                database.1 += counted.volatile.load(Ordering::Relaxed);
            }
        }
        sum
    }

    /// Bytes of all entries and their tables, to within 2 MB: kept by every change, never added up.
    #[inline]
    pub fn memory_bytes(&self) -> u64 {
        // Shards tell the total what they took and what they gave back at different times.
        self.total_bytes.load(Ordering::Relaxed).cast_signed().max(0).cast_unsigned()
    }

    /// The same, exact to within what is changed meanwhile: added up over all shards.
    pub fn exact_memory_bytes(&self) -> u64 {
        let bytes = |counters: &Arc<CachePadded<Counters>>| {
            counters.entry_bytes.load(Ordering::Relaxed).wrapping_add(counters.table_bytes.load(Ordering::Relaxed))
        };
        self.counters.iter().map(bytes).fold(0, u64::wrapping_add)
    }

    /// Values that were given up and wait to be freed, and those that were freed in the background.
    pub fn reclaimed_objects(&self) -> (u64, u64) {
        self.reclaimer.objects()
    }

    /// Bytes that were given up and wait to be freed.
    pub fn unreclaimed_bytes(&self) -> u64 {
        self.reclaimer.bytes()
    }

    /// Sets hits, misses, expired and evicted keys to zero (CONFIG RESETSTAT). Takes no lock, because a transaction may hold
    /// them: a shard that counts in this very moment may keep its count.
    pub fn reset_statistics(&self) {
        self.reclaimer.reset();
        for counters in &self.counters {
            counters.hits.store(0, Ordering::Relaxed);
            counters.misses.store(0, Ordering::Relaxed);
            counters.expired.store(0, Ordering::Relaxed);
            counters.expired_fields.store(0, Ordering::Relaxed);
            counters.evicted.store(0, Ordering::Relaxed);
        }
    }

    /// The access bits of an entry that is made now.
    #[inline]
    fn access_clock(&self) -> u32 {
        self.access.load().clock()
    }

    /// The access bits of an entry that had these, after an access.
    #[inline]
    fn touched(&self, moment: Moment, bits: u32) -> u32 {
        if !moment.is_special() {
            return moment.clock();
        }
        if moment.keeps() { bits } else { self.frequency.touched(bits, moment.clock(), self.random()) }
    }

    /// Seconds since the last access of an entry with these access bits; `None` where accesses are counted instead. Wraps
    /// after 194 days, as Redis's LRU clock.
    pub fn idle_seconds(&self, access: u32) -> Option<u32> {
        let moment = self.access.load();
        (!moment.counts()).then(|| idle_seconds(moment.clock(), access))
    }

    /// How often an entry with these access bits is accessed, as Redis's LFU counts; `None` where that is not counted.
    pub fn frequency(&self, access: u32) -> Option<u8> {
        let moment = self.access.load();
        moment.counts().then(|| self.frequency.counter(access, moment.clock()))
    }

    /// Says whether accesses are counted, and how (maxmemory-policy, lfu-log-factor, lfu-decay-time in minutes).
    pub fn set_frequency(&self, counts: bool, log_factor: u32, decay_minutes: u32, now_ms: u64) {
        self.frequency.set(log_factor, decay_minutes);
        self.access.set_counting(counts, now_ms / 1000);
    }

    /// Sets the access clock from the time.
    pub fn wind_access_clock(&self, now_ms: u64) {
        self.access.wind(now_ms / 1000);
    }

    /// Random bits, for choosing keys and elements: fast, not secret.
    pub fn random(&self) -> u64 {
        thread_local! {
            static STATE: Cell<u64> = Cell::new(seed());
        }
        // SplitMix64 (Steele, Lea, Flood 2014).
        STATE.with(|state| {
            let next = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
            state.set(next);
            let mut bits = next;
            bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            bits ^ (bits >> 31)
        })
    }
}

/// Seconds between an access and the access clock, of 24 bits. It is wound by several threads: an access slightly ahead of
/// it is of this very moment, and not of 194 days ago.
fn idle_seconds(clock: u32, access: u32) -> u32 {
    const CLOCK_MASK: u32 = 0x00ff_ffff;
    const AHEAD_MAX: u32 = 3600;
    let idle = clock.wrapping_sub(access) & CLOCK_MASK;
    if idle > CLOCK_MASK - AHEAD_MAX { 0 } else { idle }
}

fn seed() -> u64 {
    getrandom::u64().unwrap_or_else(|_| clock::unix_us())
}

#[cfg(test)]
mod tests {
    use super::idle_seconds;

    #[test]
    fn a_clock_that_is_ahead_is_no_idle_time() {
        for (clock, access, idle) in [(1000, 990, 10), (1000, 1000, 0), (1000, 1001, 0), (0, 0x00ff_fffe, 2), (5, 6, 0)]
        {
            assert_eq!(idle_seconds(clock, access), idle, "at {clock}, marked {access}");
        }
    }
}
