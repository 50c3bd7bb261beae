//! Who watches which keys of a shard (WATCH).
//!
//! Found by the table hash that every write has at hand, so that a write beside watches of other keys allocates nothing
//! and compares at most the keys of equal hash.

use crate::base::slot::Slot;
use hashbrown::HashTable;
use smallvec::SmallVec;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that is raised when a watched key changes.
pub type Watch = Arc<AtomicBool>;

/// Watches of one key before those of connections that are gone are looked for.
const SWEEP_FROM: usize = 16;

/// Watched keys that are judged together.
pub(super) const BATCH: usize = 32;

/// A key that somebody watches.
#[derive(Debug)]
pub(super) struct WatchedKey {
    pub(super) hash: u64,
    pub(super) database: u32,
    pub(super) slot: Slot,
    /// They have been told: it is to be forgotten.
    is_raised: bool,
    pub(super) key: Box<[u8]>,
    watches: SmallVec<[Watch; 1]>,
    /// The length at which dead watches are looked for next: doubled each time, so that many watches of one key cost
    /// each of them the same.
    sweep_at: usize,
}

impl WatchedKey {
    fn is(&self, hash: u64, database: u32, key: &[u8]) -> bool {
        self.hash == hash && self.database == database && *self.key == *key
    }

    fn raise(&self) {
        self.watches.iter().for_each(|watch| watch.store(true, Ordering::Release));
    }
}

/// The watched keys of one shard.
#[derive(Debug, Default)]
pub(super) struct Watches {
    keys: HashTable<WatchedKey>,
}

impl Watches {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Raises the flag when this key changes.
    pub(super) fn add(&mut self, hash: u64, database: u32, key: &[u8], watch: Watch) {
        let found = self.keys.entry(hash, |other| other.is(hash, database, key), |other| other.hash);
        let mut entry = found.or_insert_with(|| WatchedKey {
            hash,
            database,
            slot: Slot::of_key(key),
            is_raised: false,
            key: key.into(),
            watches: SmallVec::new(),
            sweep_at: SWEEP_FROM,
        });
        let watched = entry.get_mut();
        if watched.watches.len() >= watched.sweep_at {
            // A flag that nobody else holds belongs to a connection that is gone.
            watched.watches.retain(|watch| Arc::strong_count(watch) > 1);
            watched.sweep_at = SWEEP_FROM.max(watched.watches.len() * 2);
        }
        watched.watches.push(watch);
    }

    /// Forgets a watch.
    pub(super) fn remove(&mut self, hash: u64, database: u32, key: &[u8], watch: &Watch) {
        let Ok(mut entry) = self.keys.find_entry(hash, |other| other.is(hash, database, key)) else { return };
        entry.get_mut().watches.retain(|other| !Arc::ptr_eq(other, watch));
        if entry.get().watches.is_empty() {
            entry.remove();
        }
    }

    /// Tells those who watch the key, and forgets them.
    #[inline]
    pub(super) fn raise(&mut self, hash: u64, database: u32, key: &[u8]) {
        if let Ok(entry) = self.keys.find_entry(hash, |other| other.is(hash, database, key)) {
            entry.remove().0.raise();
        }
    }

    /// Tells those who watch a key (database, key, table hash) for which `has_changed` is true, and forgets them.
    pub(super) fn raise_where(&mut self, has_changed: impl Fn(u32, &[u8], u64) -> bool) {
        self.keys.retain(|watched| {
            let raised = has_changed(watched.database, &watched.key, watched.hash);
            if raised {
                watched.raise();
            }
            !raised
        });
    }

    /// The same, where judging a key means waiting for memory: `have_changed` gets up to [`BATCH`] keys, whose waits can
    /// overlap, and sets the bit of each that has changed.
    pub(super) fn raise_batches(&mut self, have_changed: impl Fn(&[&mut WatchedKey]) -> u32) {
        const { assert!(BATCH <= u32::BITS as usize) };
        let (mut rest, mut is_any_raised) = (self.keys.iter_mut(), false);
        let mut batch: SmallVec<[&mut WatchedKey; BATCH]> = SmallVec::new();
        loop {
            batch.extend(rest.by_ref().take(BATCH));
            if batch.is_empty() {
                break;
            }
            let changed = have_changed(&batch);
            is_any_raised |= changed != 0;
            for (place, watched) in batch.drain(..).enumerate() {
                if changed & (1 << place) != 0 {
                    watched.raise();
                    watched.is_raised = true;
                }
            }
        }
        drop(batch);
        if is_any_raised {
            self.keys.retain(|watched| !watched.is_raised);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::hashing::table_hash;

    fn flag() -> Watch {
        Arc::new(AtomicBool::new(false))
    }

    fn is_raised(watch: &Watch) -> bool {
        watch.load(Ordering::Acquire)
    }

    #[test]
    fn only_watches_of_the_key_in_its_database_are_raised() {
        let mut watches = Watches::default();
        let (a, b, other_database) = (flag(), flag(), flag());
        let add = |watches: &mut Watches, database, key: &[u8], watch: &Watch| {
            watches.add(table_hash(key), database, key, Arc::clone(watch));
        };
        add(&mut watches, 0, b"a", &a);
        add(&mut watches, 0, b"b", &b);
        add(&mut watches, 1, b"a", &other_database);
        watches.raise(table_hash(b"a"), 0, b"a");
        assert_eq!([is_raised(&a), is_raised(&b), is_raised(&other_database)], [true, false, false]);
        watches.raise_where(|database, key, hash| database == 1 && key == b"a" && hash == table_hash(b"a"));
        assert!(is_raised(&other_database));
        watches.remove(table_hash(b"b"), 0, b"b", &b);
        assert!(watches.is_empty());
    }

    /// Watches of connections that are gone do not pile up on a key that never changes, and living ones stay.
    #[test]
    fn dead_watches_are_swept_and_living_ones_stay() {
        let mut watches = Watches::default();
        let living: Vec<Watch> = (0..100).map(|_| flag()).collect();
        for watch in &living {
            watches.add(1, 0, b"key", Arc::clone(watch));
        }
        for _ in 0..10_000 {
            watches.add(1, 0, b"key", flag());
        }
        let kept = watches.keys.find(1, |_| true).map_or(0, |watched| watched.watches.len());
        assert!(kept <= 4 * living.len(), "{kept} watches are kept for {}", living.len());
        watches.raise(1, 0, b"key");
        assert!(living.iter().all(is_raised));
    }
}
