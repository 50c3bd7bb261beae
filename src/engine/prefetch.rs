//! Fetching the places of several keys into the processor's cache.
//!
//! A lookup waits for memory three times in a row: for the slot's control bytes, for the bucket, for the entry. The
//! lookups of different keys do not depend on each other, so each of these steps is done for all keys before the next
//! one, and the waits overlap. The locks are taken first, because an atomic operation between two loads would keep the
//! second from starting early.
//!
//! The prefetch instruction has no effect but on the cache, whatever its address: that is all the `unsafe` here.

#![allow(unsafe_code)]

use super::Engine;
use super::entry::Entry;
use super::shard::Shard;
use crate::base::slot::Slot;
use parking_lot::MutexGuard;
use smallvec::SmallVec;

/// Keys that are fetched together.
const KEYS_MAX: usize = 32;

impl Engine {
    /// Fetches the entries of these keys, given by slot and table hash, into the cache. Changes nothing.
    pub fn prefetch(&self, keys: &[(Slot, u64)], database: usize) {
        for keys in keys.chunks(KEYS_MAX) {
            self.prefetch_chunk(keys, database);
        }
    }

    fn prefetch_chunk(&self, keys: &[(Slot, u64)], database: usize) {
        let placement = self.placement();
        let mut indexes: SmallVec<[u16; KEYS_MAX]> =
            keys.iter().map(|(slot, _)| placement.shard(*slot) as u16).collect();
        indexes.sort_unstable();
        indexes.dedup();
        // A shard that another thread holds is passed over: its keys are merely not fetched.
        let mut guards: SmallVec<[(u16, MutexGuard<'_, Shard>); KEYS_MAX]> = SmallVec::new();
        for index in indexes {
            if let Some(guard) = self.shards[index as usize].try_lock() {
                guards.push((index, guard));
            }
        }
        let mut tables: SmallVec<[_; KEYS_MAX]> = SmallVec::new();
        for (slot, hash) in keys {
            let shard = placement.shard(*slot) as u16;
            let Ok(at) = guards.binary_search_by_key(&shard, |(index, _)| *index) else { continue };
            if let Some(table) = guards[at].1.table(database, placement.slot_in_shard(*slot)) {
                fetch(std::ptr::from_ref(table).cast());
                tables.push((table, *hash));
            }
        }
        let mut buckets: SmallVec<[&Entry; KEYS_MAX]> = SmallVec::new();
        for (table, hash) in tables {
            if let Some(bucket) = table.entries.candidate(hash) {
                fetch(std::ptr::from_ref(bucket).cast());
                buckets.push(bucket);
            }
        }
        for entry in buckets {
            let address = entry.address();
            fetch(address);
            fetch(address.wrapping_add(64));
        }
    }
}

/// Asks for the cache line of an address.
#[inline(always)]
fn fetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing that the program could see, and does not fault.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
