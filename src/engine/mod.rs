//! The engine: 16384 slots in shards, each under a lock; databases of keys in them; the log of their effects.
//!
//! It knows neither RESP nor the cluster, neither files nor sockets. Any thread may take any shard: a command takes the
//! locks of the slots of its keys, in order, works through a [`Keyspace`], and lets go. Nothing waits under a lock.

mod access;
#[cfg(test)]
mod changes;
pub mod collections;
mod commit;
pub mod database;
pub mod effect;
pub mod entry;
pub mod event;
pub mod expiry;
pub mod export;
mod group;
pub mod keyspace;
mod lock;
pub mod log;
mod lookup;
mod portion;
mod prefetch;
mod reclaim;
pub mod shard;
pub mod snapshot;
mod strings;
pub mod transfer;
pub mod waiters;
pub mod watches;

pub use group::{Group, Run};
pub use keyspace::{Admission, Deadline, Keyspace, Wanted, WrongKind};
pub use lock::Wait;
pub use portion::Elements;
pub use strings::Increment;

use crate::base::clock;
use crate::base::slot::Slot;
use crate::values::Limits;
use access::Access;
use arc_swap::ArcSwap;
use crossbeam::utils::CachePadded;
use lock::Locks;
use log::Log;
use parking_lot::Mutex;
use reclaim::Reclaimer;
use shard::{Counters, Placement, Shard, SlotState, TotalBytes};
use smallvec::SmallVec;
use snapshot::Snapshots;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

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
    events: event::Events,
    placement: Placement,
    databases: usize,
    limits: ArcSwap<Limits>,
    /// What entries remember of their last access, and the mark of the last snapshot.
    access: Access,
    snapshots: Snapshots,
}

/// What the engine has counted, over all shards.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    pub hits: u64,
    pub misses: u64,
    pub expired: u64,
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
            events: Default::default(),
            placement,
            databases,
            limits: ArcSwap::from_pointee(Limits::default()),
            access: Access::default(),
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

    /// Allocations that were given up and wait to be freed, and those that were freed in the background.
    pub fn reclaimed_objects(&self) -> (u64, u64) {
        self.reclaimer.objects()
    }

    /// Bytes that were given up and wait to be freed.
    pub fn unreclaimed_bytes(&self) -> u64 {
        self.reclaimer.bytes()
    }

    /// Sets hits, misses and expired keys to zero (CONFIG RESETSTAT). Takes no lock, because a transaction may hold
    /// them: a shard that counts in this very moment may keep its count.
    pub fn reset_statistics(&self) {
        for counters in &self.counters {
            counters.hits.store(0, Ordering::Relaxed);
            counters.misses.store(0, Ordering::Relaxed);
            counters.expired.store(0, Ordering::Relaxed);
        }
    }

    /// Seconds of the access clock: 24 bits, wraps after 194 days, as Redis's LRU clock.
    #[inline]
    pub fn access_clock(&self) -> u32 {
        self.access.load().clock()
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

fn seed() -> u64 {
    getrandom::u64().unwrap_or_else(|_| clock::unix_us())
}
