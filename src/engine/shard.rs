//! A shard: a group of slots under one lock, in all databases.

use super::entry::{Entry, Timing};
use super::log::LogOffset;
use super::waiters::Waiters;
use super::watches::Watches;
use crate::base::identity::{Epoch, Position};
use crate::base::slot::Slot;
use crate::values::hashing::table_hash;
use crate::values::segments::{Index, Segments};
use crossbeam::utils::CachePadded;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// An entry with so many bytes, or more, is *large*: a snapshot reads it in parts, and its writers wait for that, for it takes
/// too long to read or to copy it under one lock. Tests have large entries all the time.
const LARGE_BYTES: usize = if cfg!(all(test, debug_assertions)) { 64 } else { 256 * 1024 };

/// Whether an entry of so many bytes is large.
#[inline]
pub(super) fn is_large(bytes: usize) -> bool {
    bytes >= LARGE_BYTES
}

/// The keys of one slot in one database.
#[derive(Debug, Default)]
pub struct SlotTable {
    pub entries: Segments<Entry>,
    /// How many of them have a deadline.
    pub volatile: u32,
    /// How many are hashes of which fields have deadlines.
    pub(super) timed: u32,
    /// How many of them take `LARGE_BYTES` or more.
    pub(super) large: u32,
    /// Bytes of the entries and of what hangs on them; the table's own are not in it.
    pub bytes: u64,
}

impl SlotTable {
    /// Adds an entry whose key is known to be absent, and counts it.
    #[inline]
    pub(super) fn insert(&mut self, counters: &Counters, database: usize, hash: u64, entry: Entry) {
        let (timing, bytes) = (entry.timing(), entry.memory_bytes());
        let before = self.entries.allocation_bytes();
        self.entries.insert_unique(hash, entry, hash_of_entry);
        let table_change = self.entries.allocation_bytes() as i64 - before as i64;
        self.large += u32::from(is_large(bytes));
        self.bytes += bytes as u64;
        add(&counters.databases[database].keys, 1);
        self.count_timing(counters, database, Timing::default(), timing);
        counters.count_bytes(bytes as i64, table_change);
    }

    /// Takes the entry that stands there out, and counts it.
    #[inline]
    pub(super) fn remove(&mut self, counters: &Counters, database: usize, at: Index) -> Option<Entry> {
        let before = self.entries.allocation_bytes();
        let entry = self.entries.remove_at(at, hash_of_entry)?;
        let table_change = self.entries.allocation_bytes() as i64 - before as i64;
        let bytes = entry.memory_bytes();
        self.large -= u32::from(is_large(bytes));
        self.bytes -= bytes as u64;
        add(&counters.databases[database].keys, -1);
        self.count_timing(counters, database, entry.timing(), Timing::default());
        counters.count_bytes(-(bytes as i64), table_change);
        Some(entry)
    }

    /// Counts what a change of an entry has made of its bytes.
    #[inline]
    pub(super) fn resize(&mut self, counters: &Counters, before: usize, now: usize) {
        let change = now as i64 - before as i64;
        self.bytes = self.bytes.wrapping_add_signed(change);
        self.large = self.large + u32::from(is_large(now)) - u32::from(is_large(before));
        counters.count_bytes(change, 0);
    }

    /// Counts what a change of an entry has made of its deadlines.
    #[inline]
    pub(super) fn count_timing(&mut self, counters: &Counters, database: usize, had: Timing, has: Timing) {
        if had != has {
            let counters = &counters.databases[database];
            let change = |had: bool, has: bool| i32::from(has) - i32::from(had);
            let (volatile, timed) = (change(had.key, has.key), change(had.fields, has.fields));
            self.volatile = self.volatile.wrapping_add_signed(volatile);
            self.timed = self.timed.wrapping_add_signed(timed);
            add(&counters.volatile, i64::from(volatile));
            add(&counters.timed, i64::from(timed));
        }
    }
}

/// The table hash of an entry's key.
#[inline]
pub(super) fn hash_of_entry(entry: &Entry) -> u64 {
    table_hash(entry.key())
}

/// The slots of one shard in one database.
#[derive(Debug)]
pub struct Database {
    slots: Box<[SlotTable]>,
}

/// May this node execute commands on a slot? Decided by the cluster layer, read under the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SlotState {
    /// It executes.
    #[default]
    Serving,
    /// It is being handed over: requests wait until it is decided who serves it.
    Frozen,
    /// It belongs to somebody else.
    Elsewhere,
}

/// What a slot has besides its keys.
#[derive(Clone, Copy, Debug, Default)]
pub struct SlotMeta {
    pub position: Position,
    /// The end of its last group in the log: what a reply that shows any of it may have to wait for.
    pub last: LogOffset,
    pub state: SlotState,
    /// Who may read copies is answered: everything up to the position is here. Invariant: only of a slot that is elsewhere.
    pub has_copy: bool,
    /// So much of it waits to be sent elsewhere that its writers wait.
    pub is_throttled: bool,
}

/// Counters that are written under the lock and read without it.
#[derive(Debug, Default)]
pub struct DatabaseCounters {
    pub keys: AtomicU64,
    pub volatile: AtomicU64,
    /// Hashes of which fields have deadlines.
    pub timed: AtomicU64,
}

impl DatabaseCounters {
    /// Whether there is anything that expires.
    pub(super) fn expires(&self) -> bool {
        self.volatile.load(Ordering::Relaxed) > 0 || self.timed.load(Ordering::Relaxed) > 0
    }
}

/// Adds to a counter that has one writer at a time: cheaper than an atomic addition.
#[inline]
pub fn add(counter: &AtomicU64, change: i64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add_signed(change), Ordering::Relaxed);
}

/// What a shard has counted since the start.
#[derive(Debug)]
pub struct Counters {
    pub databases: Box<[DatabaseCounters]>,
    pub hits: AtomicU64,
    pub misses: AtomicU64,
    pub expired: AtomicU64,
    /// Fields of hashes.
    pub expired_fields: AtomicU64,
    pub evicted: AtomicU64,
    /// Changes to keys.
    pub changes: AtomicU64,
    /// Bytes of entries and of what hangs on them.
    pub entry_bytes: AtomicU64,
    /// Bytes of the tables in which they stand.
    pub table_bytes: AtomicU64,
    /// Slots that are somebody else's.
    pub elsewhere: AtomicU64,
    /// Bytes that the total has not been told of yet: a signed number.
    untold_bytes: AtomicU64,
    total_bytes: Arc<TotalBytes>,
}

/// Bytes of all shards together: written seldom, read by every batch of commands.
pub type TotalBytes = CachePadded<AtomicU64>;

/// So far may a shard's bytes be from what the total knows: with 128 shards at most 2 MB in all.
const UNTOLD_BYTES_MAX: u64 = 16 * 1024;

impl Counters {
    /// Counts bytes of entries, and of the tables in which they stand.
    #[inline]
    fn count_bytes(&self, entries: i64, tables: i64) {
        add(&self.entry_bytes, entries);
        if tables != 0 {
            add(&self.table_bytes, tables);
        }
        let untold = self.untold_bytes.load(Ordering::Relaxed).cast_signed() + entries + tables;
        if untold.unsigned_abs() < UNTOLD_BYTES_MAX {
            self.untold_bytes.store(untold.cast_unsigned(), Ordering::Relaxed);
        } else {
            self.untold_bytes.store(0, Ordering::Relaxed);
            self.total_bytes.fetch_add(untold.cast_unsigned(), Ordering::Relaxed);
        }
    }

    fn new(databases: usize, total_bytes: Arc<TotalBytes>) -> Counters {
        Counters {
            databases: (0..databases).map(|_| DatabaseCounters::default()).collect(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            expired_fields: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            entry_bytes: AtomicU64::new(0),
            table_bytes: AtomicU64::new(0),
            elsewhere: AtomicU64::new(0),
            untold_bytes: AtomicU64::new(0),
            total_bytes,
        }
    }
}

/// What the lock of a shard protects.
#[derive(Debug)]
pub struct Shard {
    databases: Box<[Option<Database>]>,
    slots_per_shard: usize,
    metas: Box<[SlotMeta]>,
    /// How many slots are in each state but the usual one.
    frozen: usize,
    elsewhere: usize,
    throttled: usize,
    pub(super) watches: Watches,
    pub(super) waiters: Waiters,
    pub counters: Arc<CachePadded<Counters>>,
    /// Where the active expiry goes on: database, slot, hash position.
    pub expiry_cursor: (usize, usize, u32),
}

impl Shard {
    pub fn new(databases: usize, slots_per_shard: usize, total_bytes: Arc<TotalBytes>) -> Shard {
        Shard {
            databases: (0..databases).map(|_| None).collect(),
            slots_per_shard,
            metas: vec![SlotMeta::default(); slots_per_shard].into_boxed_slice(),
            frozen: 0,
            elsewhere: 0,
            throttled: 0,
            watches: Watches::default(),
            waiters: Waiters::default(),
            counters: Arc::new(CachePadded::new(Counters::new(databases, total_bytes))),
            expiry_cursor: (0, 0, 0),
        }
    }

    /// The keys of a slot; `None` while the database has never been written to.
    #[inline]
    pub fn table(&self, database: usize, slot_in_shard: usize) -> Option<&SlotTable> {
        self.databases.get(database)?.as_ref().map(|database| &database.slots[slot_in_shard])
    }

    /// The keys of a slot.
    #[inline]
    pub fn table_mut(&mut self, database: usize, slot_in_shard: usize) -> Option<&mut SlotTable> {
        self.databases.get_mut(database)?.as_mut().map(|database| &mut database.slots[slot_in_shard])
    }

    /// The keys of a slot, and the counters beside them.
    #[inline]
    pub fn split(&mut self, database: usize, slot_in_shard: usize) -> (Option<&mut SlotTable>, &Counters) {
        let database = self.databases.get_mut(database).and_then(Option::as_mut);
        (database.map(|database| &mut database.slots[slot_in_shard]), &self.counters)
    }

    /// The same for writing: makes the database if need be.
    #[inline]
    pub fn split_for_write(&mut self, database: usize, slot_in_shard: usize) -> (&mut SlotTable, &Counters) {
        let slots = self.slots_per_shard;
        let database = self.databases[database]
            .get_or_insert_with(|| Database { slots: (0..slots).map(|_| SlotTable::default()).collect() });
        (&mut database.slots[slot_in_shard], &self.counters)
    }

    /// Whether a slot has large entries, in any database.
    pub(super) fn has_large(&self, slot_in_shard: usize) -> bool {
        let databases = self.databases.iter().flatten();
        databases.map(|database| &database.slots[slot_in_shard]).any(|table| table.large > 0)
    }

    pub fn database_count(&self) -> usize {
        self.databases.len()
    }

    pub fn slot_count(&self) -> usize {
        self.slots_per_shard
    }

    /// Exchanges two databases (SWAPDB).
    pub fn swap(&mut self, first: usize, second: usize) {
        self.databases.swap(first, second);
        let counters = &self.counters.databases;
        let (a, b) = (&counters[first], &counters[second]);
        for (a, b) in [(&a.keys, &b.keys), (&a.volatile, &b.volatile), (&a.timed, &b.timed)] {
            let kept = a.load(Ordering::Relaxed);
            a.store(b.load(Ordering::Relaxed), Ordering::Relaxed);
            b.store(kept, Ordering::Relaxed);
        }
    }

    #[inline]
    pub fn state(&self, slot_in_shard: usize) -> SlotState {
        self.metas[slot_in_shard].state
    }

    pub fn meta(&self, slot_in_shard: usize) -> SlotMeta {
        self.metas[slot_in_shard]
    }

    /// Whether commands may be executed on a slot, or may have to wait.
    #[inline]
    pub fn is_held(&self, slot_in_shard: usize) -> bool {
        self.elsewhere == 0 || self.metas[slot_in_shard].state != SlotState::Elsewhere
    }

    /// Whether all slots are held: the only state outside of a cluster.
    #[inline]
    pub fn holds_all(&self) -> bool {
        self.elsewhere == 0
    }

    /// How many keys a database has in the slots that are held.
    pub fn held_keys(&self, database: usize) -> u64 {
        let all = self.counters.databases[database].keys.load(Ordering::Relaxed);
        if self.holds_all() {
            return all;
        }
        let not_held = (0..self.slots_per_shard).filter(|slot_in_shard| !self.is_held(*slot_in_shard));
        let elsewhere: usize =
            not_held.filter_map(|slot_in_shard| self.table(database, slot_in_shard)).map(|t| t.entries.len()).sum();
        all - elsewhere as u64
    }

    /// Whether a slot is being handed over.
    pub fn has_frozen(&self) -> bool {
        self.frozen > 0
    }

    /// Says who executes commands on a slot.
    pub fn set_state(&mut self, slot_in_shard: usize, state: SlotState) {
        let before = std::mem::replace(&mut self.metas[slot_in_shard].state, state);
        for (counted, count) in [(SlotState::Frozen, &mut self.frozen), (SlotState::Elsewhere, &mut self.elsewhere)] {
            *count = *count + usize::from(state == counted) - usize::from(before == counted);
        }
        self.counters.elsewhere.store(self.elsewhere as u64, Ordering::Relaxed);
        self.metas[slot_in_shard].has_copy &= state == SlotState::Elsewhere;
    }

    /// Says whether a slot that is elsewhere has a copy here that readers are shown.
    pub fn set_copy(&mut self, slot_in_shard: usize, has_copy: bool) {
        let meta = &mut self.metas[slot_in_shard];
        meta.has_copy = has_copy && meta.state == SlotState::Elsewhere;
    }

    /// Whether the writers of a slot have to wait until more of it was sent elsewhere.
    #[inline]
    pub fn is_throttled(&self, slot_in_shard: usize) -> bool {
        self.throttled > 0 && self.metas[slot_in_shard].is_throttled
    }

    /// Makes the writers of a slot wait, or lets them go on.
    pub fn set_throttled(&mut self, slot_in_shard: usize, is_throttled: bool) {
        let before = std::mem::replace(&mut self.metas[slot_in_shard].is_throttled, is_throttled);
        self.throttled = self.throttled + usize::from(is_throttled) - usize::from(before);
    }

    /// Says where the slot's last group ends in the log.
    #[inline]
    pub fn set_last(&mut self, slot_in_shard: usize, last: LogOffset) {
        self.metas[slot_in_shard].last = last;
    }

    /// Says the same of all slots.
    pub fn set_all_last(&mut self, last: LogOffset) {
        self.metas.iter_mut().for_each(|meta| meta.last = last);
    }

    /// Says where the slot's history stands: it goes on elsewhere, or has come from there.
    pub fn set_position(&mut self, slot_in_shard: usize, position: Position) {
        self.metas[slot_in_shard].position = position;
    }

    /// Counts an effect of the slot and returns its position.
    #[inline]
    pub fn advance(&mut self, slot_in_shard: usize) -> Position {
        let position = &mut self.metas[slot_in_shard].position;
        position.seq += 1;
        *position
    }

    /// Begins a new epoch of the slot: the sequence numbers start again.
    pub fn begin_epoch(&mut self, slot_in_shard: usize, epoch: Epoch) {
        self.metas[slot_in_shard].position = Position { epoch, seq: 0 };
    }

    /// Takes all keys of a slot, in one database, out of the shard; the caller drops them when the lock is released.
    pub fn take_slot(&mut self, database: usize, slot_in_shard: usize) -> Option<SlotTable> {
        let table = self.table_mut(database, slot_in_shard)?;
        if table.entries.is_empty() {
            return None;
        }
        let taken = std::mem::take(table);
        let counters = &self.counters.databases[database];
        add(&counters.keys, -(taken.entries.len() as i64));
        add(&counters.volatile, -i64::from(taken.volatile));
        add(&counters.timed, -i64::from(taken.timed));
        self.counters.count_bytes(-(taken.bytes as i64), -(taken.entries.allocation_bytes() as i64));
        Some(taken)
    }

    #[inline]
    pub fn is_watched(&self) -> bool {
        !self.watches.is_empty()
    }
}

/// Which shard a slot is in, and which of the shard's slots it is.
#[derive(Clone, Copy, Debug)]
pub struct Placement {
    mask: usize,
    shift: u32,
}

impl Placement {
    /// `shards` must be a power of two.
    pub fn new(shards: usize) -> Placement {
        assert!(shards.is_power_of_two(), "the number of shards is a power of two");
        Placement { mask: shards - 1, shift: shards.trailing_zeros() }
    }

    #[inline]
    pub fn shard(self, slot: Slot) -> usize {
        slot.index() & self.mask
    }

    #[inline]
    pub fn slot_in_shard(self, slot: Slot) -> usize {
        slot.index() >> self.shift
    }

    /// The slot that stands at this place of this shard.
    pub fn slot(self, shard: usize, slot_in_shard: usize) -> Slot {
        Slot::new((slot_in_shard << self.shift | shard) as u64).expect("a place inside the shard")
    }
}
