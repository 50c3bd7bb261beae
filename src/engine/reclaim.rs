//! Freeing: what was deleted or replaced is dropped after the locks are released, and what takes long on a thread of its
//! own, so that neither the worker nor anybody who waits for a shard pays for it.
//!
//! Redis calls this lazy freeing and leaves the choice to the command (UNLINK, FLUSHALL ASYNC); here every command frees
//! so. The memory counts as free at once for `maxmemory`, and is free a little later for the allocator.

use super::Engine;
use super::entry::Entry;
use super::shard::SlotTable;
use super::waiters::{LaterServed, Waiter};
use crate::values::segments::Segments;
use crossbeam::channel::{Receiver, Sender, unbounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What has so many allocations is freed on the thread; handing it over costs as much as freeing a few dozen (Redis: 64).
const ALLOCATIONS_MIN: usize = 64;
/// Bytes that may wait to be freed before whoever makes more of it frees by itself: the thread must not be outrun.
const PENDING_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Something that nobody can reach any more.
#[derive(Debug)]
pub(super) enum Garbage {
    Entry(Entry),
    Slot(SlotTable),
}

impl Garbage {
    /// About how many allocations it has.
    fn allocations(&self) -> usize {
        match self {
            Garbage::Entry(entry) => entry.allocation_count(),
            Garbage::Slot(table) => table.entries.len(),
        }
    }

    /// How many keys had it.
    fn objects(&self) -> u64 {
        match self {
            Garbage::Entry(_) => 1,
            Garbage::Slot(table) => table.entries.len() as u64,
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Garbage::Entry(entry) => entry.memory_bytes() as u64,
            Garbage::Slot(table) => table.bytes + table.entries.allocation_bytes() as u64,
        }
    }
}

/// What waits to be freed, and what has been freed by the thread.
#[derive(Debug, Default)]
struct Progress {
    objects: AtomicU64,
    bytes: AtomicU64,
    freed: AtomicU64,
}

/// The way to the thread that frees. The thread ends with it.
#[derive(Debug)]
pub(super) struct Reclaimer {
    /// `None` where the system gave no thread: everybody frees by himself then.
    loads: Option<Sender<Vec<Garbage>>>,
    progress: Arc<Progress>,
}

impl Reclaimer {
    pub(super) fn start() -> Reclaimer {
        let progress = Arc::new(Progress::default());
        let (sender, loads) = unbounded();
        let counted = Arc::clone(&progress);
        let thread = std::thread::Builder::new().name("reclaim".into()).spawn(move || reclaim(&loads, &counted));
        Reclaimer { loads: thread.ok().map(|_| sender), progress }
    }

    /// Frees all of it, here or on the thread. No lock may be held.
    fn free(&self, garbage: &mut Vec<Garbage>) {
        let allocations: usize = garbage.iter().map(Garbage::allocations).sum();
        let pending = self.progress.bytes.load(Ordering::Relaxed);
        let Some(loads) = self.loads.as_ref().filter(|_| allocations >= ALLOCATIONS_MIN && pending < PENDING_BYTES_MAX)
        else {
            return garbage.clear();
        };
        let bytes = garbage.iter().map(Garbage::bytes).sum();
        let objects = garbage.iter().map(Garbage::objects).sum();
        self.progress.objects.fetch_add(objects, Ordering::Relaxed);
        self.progress.bytes.fetch_add(bytes, Ordering::Relaxed);
        // The thread lives as long as the sender; a load that it cannot take is dropped here.
        let _ = loads.send(std::mem::take(garbage));
    }

    /// Bytes that wait to be freed.
    pub(super) fn bytes(&self) -> u64 {
        self.progress.bytes.load(Ordering::Relaxed)
    }

    /// Forgets what the thread has freed so far.
    pub(super) fn reset(&self) {
        self.progress.freed.store(0, Ordering::Relaxed);
    }

    /// Values that wait to be freed, and those that the thread has freed.
    pub(super) fn objects(&self) -> (u64, u64) {
        (self.progress.objects.load(Ordering::Relaxed), self.progress.freed.load(Ordering::Relaxed))
    }
}

/// The thread: one piece after the other. A piece does not count as waiting any more once its turn has come, so that what
/// is shown as waiting is never already free.
fn reclaim(loads: &Receiver<Vec<Garbage>>, progress: &Progress) {
    yield_to_workers();
    for load in loads {
        for garbage in load {
            let objects = garbage.objects();
            progress.objects.fetch_sub(objects, Ordering::Relaxed);
            progress.bytes.fetch_sub(garbage.bytes(), Ordering::Relaxed);
            match garbage {
                Garbage::Slot(table) => free_table(table.entries),
                Garbage::Entry(entry) => drop(entry),
            }
            progress.freed.fetch_add(objects, Ordering::Relaxed);
        }
    }
}

/// One segment at a time: each table's memory is given back before the next is walked.
fn free_table(entries: Segments<Entry>) {
    entries.into_segments().for_each(drop);
}

/// Where there are fewer cores than threads, those that serve clients go first.
fn yield_to_workers() {
    const NICE: i32 = 10;
    let own = rustix::thread::gettid();
    // Refused at worst: then it competes as everybody does.
    let _ = rustix::process::setpriority_process(Some(own), NICE);
}

/// What the holder of some locks leaves to be done when they are released: stands behind them, so that it is dropped
/// after them.
pub(super) struct Afterwards<'e> {
    engine: &'e Engine,
    /// Mostly there is nothing.
    left: Option<Box<Left>>,
}

#[derive(Default)]
struct Left {
    /// Values that were replaced or deleted: freeing them holds nobody up.
    garbage: Vec<Garbage>,
    /// The readers of the log are asked to read: nobody is told anything under a lock.
    asks_readers: bool,
    /// Waiters that wait no more.
    woken: Vec<Arc<Waiter>>,
    /// Waiters that are to be served with other locks.
    later: Vec<LaterServed>,
}

impl<'e> Afterwards<'e> {
    #[inline]
    pub(super) fn new(engine: &'e Engine) -> Afterwards<'e> {
        Afterwards { engine, left: None }
    }

    /// Adds garbage, if there is any.
    #[inline]
    pub(super) fn add(&mut self, garbage: Option<Garbage>) {
        if let Some(garbage) = garbage {
            self.left().garbage.push(garbage);
        }
    }

    pub(super) fn ask_readers(&mut self) {
        self.left().asks_readers = true;
    }

    pub(super) fn wake(&mut self, waiter: Arc<Waiter>) {
        self.left().woken.push(waiter);
    }

    pub(super) fn serve(&mut self, later: LaterServed) {
        self.left().later.push(later);
    }

    fn left(&mut self) -> &mut Left {
        self.left.get_or_insert_default()
    }

    #[cold]
    fn finish(&mut self, mut left: Left) {
        if !left.garbage.is_empty() {
            self.engine.reclaimer.free(&mut left.garbage);
        }
        if left.asks_readers {
            self.engine.log.ask();
        }
        left.later.into_iter().for_each(|later| later.serve(self.engine));
        left.woken.iter().for_each(|waiter| waiter.wake());
    }
}

impl Drop for Afterwards<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(left) = self.left.take() {
            self.finish(*left);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::base::slot::Slot;
    use crate::engine::Engine;
    use std::time::{Duration, Instant};

    /// A large value is handed to the thread, and what waits there is counted until it is gone.
    #[test]
    fn large_values_are_freed_by_the_thread() {
        let engine = Engine::new(1);
        let members: Vec<String> = (0..50_000).map(|number| format!("member {number}")).collect();
        let slot = Slot::of_key(b"set");
        let mut keyspace = engine.lock_slot(slot, 0, 1);
        keyspace.set_add(b"set", members.iter().map(|member| member.as_bytes())).expect("a set");
        keyspace.set_string(b"{set}small", b"value", crate::engine::Deadline::Clear);
        keyspace.delete(b"{set}small");
        drop(keyspace);
        assert_eq!(engine.reclaimed_objects(), (0, 0), "what is small is freed on the spot");
        assert!(engine.lock_slot(slot, 0, 1).delete(b"set"));
        let until = Instant::now() + Duration::from_secs(20);
        while engine.reclaimed_objects().0 > 0 || engine.reclaimed_objects().1 < 1 {
            assert!(Instant::now() < until, "pending and freed: {:?}", engine.reclaimed_objects());
            std::thread::yield_now();
        }
    }
}
