//! What the process has of memory: the allocator's figures and the system's.
//!
//! Where another allocator than jemalloc is linked (some tests), the allocator's figures are 0.

use super::Services;
use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use tikv_jemalloc_ctl::{Access, AsName, arenas, epoch, stats};

/// The allocator's figures, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocator {
    /// Handed out to the program.
    pub allocated: u64,
    /// Pages with something allocated in them.
    pub active: u64,
    /// Mapped and in physical memory.
    pub resident: u64,
    /// Kept back from the system for later, not in physical memory.
    pub retained: u64,
}

/// What all connections of a node hold, in bytes: requests that have arrived, replies that wait, queues of transactions.
#[derive(Debug, Default)]
pub struct Held(AtomicI64);

impl Held {
    /// The total, as far as the workers have told of it.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed).max(0) as u64
    }
}

/// What the connections of one worker hold. It tells of changes when they are worth a write to what all share.
#[derive(Debug, Default)]
pub struct HeldHere {
    untold: Cell<i64>,
}

impl HeldHere {
    /// A connection holds `now` bytes, and held `before`.
    #[inline]
    pub fn change(&self, held: &Held, before: usize, now: usize) {
        const TOLD_BYTES: i64 = 16 * 1024;
        if before == now {
            return;
        }
        let untold = self.untold.get() + now as i64 - before as i64;
        if untold.abs() < TOLD_BYTES {
            self.untold.set(untold);
        } else {
            self.untold.set(0);
            held.0.fetch_add(untold, Ordering::Relaxed);
        }
    }
}

static STARTUP: OnceLock<u64> = OnceLock::new();
/// What the process has allocated besides keys and what connections hold, when it was last looked at.
static ELSE: AtomicU64 = AtomicU64::new(0);
/// What lies unused between allocations, as far as it is counted.
static BETWEEN: AtomicU64 = AtomicU64::new(0);
/// [`ELSE`] at the last look, before anything was left out.
static SEEN: AtomicU64 = AtomicU64::new(0);

/// The figures of this moment.
pub fn allocator() -> Allocator {
    // Figures stand still between two epochs.
    if epoch::advance().is_err() {
        return Allocator::default();
    }
    let read = |figure: Result<usize, tikv_jemalloc_ctl::Error>| figure.map_or(0, |bytes| bytes as u64);
    Allocator {
        allocated: read(stats::allocated::read()),
        active: read(stats::active::read()),
        resident: read(stats::resident::read()),
        retained: read(stats::retained::read()),
    }
}

/// Bytes allocated when the node began to serve.
pub fn startup_bytes() -> u64 {
    STARTUP.get().copied().unwrap_or(0)
}

/// What `maxmemory` is compared with: all keys with their tables, what connections hold, what else the process has
/// allocated, and what lies unused between allocations. Kept by every change, to within 2 MB, so that a look costs a few
/// loads.
#[inline]
pub fn counted_bytes(services: &Services) -> u64 {
    let [beside, between] = [&ELSE, &BETWEEN].map(|bytes| bytes.load(Ordering::Relaxed));
    services.engine.memory_bytes() + services.held.bytes() + beside + between
}

/// Bytes in pages with something allocated in them that nothing is allocated in, as far as `maxmemory` counts them.
pub fn between_bytes() -> u64 {
    BETWEEN.load(Ordering::Relaxed)
}

/// The same, exact to within what changes meanwhile: a load for each shard. What INFO calls used_memory.
pub fn used_bytes(services: &Services) -> u64 {
    services.engine.exact_memory_bytes() + services.held.bytes() + ELSE.load(Ordering::Relaxed)
}

/// Looks at the memory in use now: the first look is what the start took, the greatest is the peak; and what neither keys
/// nor connections account for is taken over into the total where it has grown much, or is less. Called by the node's timer.
pub fn observe(services: &Services) {
    // The allocator's caches, and what a connection is besides what it holds, come and go by about so much: keys are not
    // to be evicted for it.
    const NOISE_BYTES: u64 = 4 * 1024 * 1024;
    // Of the limit, so much goes to what lies between allocations at most: where many keys have gone at once, nearly all of
    // their pages lie so, and the keys that are left are not to go for it.
    const BETWEEN_ONE_IN: u64 = 8;
    let Allocator { allocated, active, .. } = allocator();
    let most = services.settings.load().maxmemory / BETWEEN_ONE_IN;
    BETWEEN.store(active.saturating_sub(allocated).saturating_sub(NOISE_BYTES).min(most), Ordering::Relaxed);
    let is_first = STARTUP.set(allocated).is_ok();
    let counted = services.engine.exact_memory_bytes() + services.held.bytes() + services.engine.unreclaimed_bytes();
    let now = allocated.saturating_sub(counted);
    // What is freed between the two looks is in one of them only: the next time will tell.
    let lasting = now.min(SEEN.swap(now, Ordering::Relaxed));
    let before = ELSE.load(Ordering::Relaxed);
    if is_first || lasting < before || lasting > before + NOISE_BYTES {
        ELSE.store(if is_first { now } else { lasting }, Ordering::Relaxed);
    }
    services.statistics.peak_memory_bytes.fetch_max(used_bytes(services), Ordering::Relaxed);
}

/// Bytes of the process in physical memory; 0 where the system does not say.
pub fn process_resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|value| value.split_ascii_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// Bytes of memory the machine has.
pub fn machine_bytes() -> u64 {
    let system = rustix::system::sysinfo();
    system.totalram as u64 * u64::from(system.mem_unit)
}

/// The allocator's figures for people, a line each.
pub fn allocator_report() -> String {
    let Allocator { allocated, active, resident, retained } = allocator();
    let arenas = arenas::narenas::read().unwrap_or(0);
    let version = tikv_jemalloc_ctl::version::read().unwrap_or("none");
    let figures = |read: Result<usize, tikv_jemalloc_ctl::Error>| read.unwrap_or(0);
    let (metadata, mapped) = (figures(stats::metadata::read()), figures(stats::mapped::read()));
    format!(
        "jemalloc {version}\nArenas: {arenas}\nAllocated: {allocated}\nActive: {active}\nMetadata: {metadata}\n\
         Resident: {resident}\nMapped: {mapped}\nRetained: {retained}\n"
    )
}

/// Makes the allocator give unused pages back to the system: they decay at once, then as slowly as before. Arenas that
/// nobody has used do not know the setting, and have nothing to give back.
pub fn purge() {
    let count = arenas::narenas::read().unwrap_or(0);
    for arena in 0..count {
        for kind in ["dirty", "muzzy"] {
            let name = format!("arena.{arena}.{kind}_decay_ms\0");
            let name = name.as_bytes().name();
            let before: Result<isize, _> = name.update(0);
            if let Ok(before) = before {
                // It was just accepted, and a failure would only make later frees return their pages sooner.
                let _ = name.write(before);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_workers_hold_is_told_in_large_steps_and_never_drifts() {
        let held = Held::default();
        let workers = [HeldHere::default(), HeldHere::default()];
        for (step, worker) in workers.iter().cycle().take(2000).enumerate() {
            worker.change(&held, step * 10, step * 10 + 1000);
        }
        assert!((2_000_000 - 2 * 16 * 1024..=2_000_000).contains(&held.bytes()), "{}", held.bytes());
        for worker in workers.iter().cycle().take(2000) {
            worker.change(&held, 1000, 0);
        }
        assert!(held.bytes() < 2 * 16 * 1024, "{}", held.bytes());
    }
}
