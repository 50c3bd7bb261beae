//! Time, passed in: the same code runs by the system's clock and by a simulation's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Where a part of the node reads the time.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970, by the wall clock; it may jump. For deadlines of keys and for stamps.
    fn unix_ms(&self) -> u64;
    /// Microseconds since some fixed moment before the process started, never going back, counting while the machine
    /// sleeps. For intervals, timeouts and leases.
    fn boot_us(&self) -> u64;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn unix_ms(&self) -> u64 {
        unix_us() / 1000
    }

    fn boot_us(&self) -> u64 {
        boot_us()
    }
}

/// Microseconds since 1970 by the machine's wall clock; 0 if it stands before 1970.
pub fn unix_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_micros() as u64)
}

/// Microseconds of the machine's boot-time clock.
pub fn boot_us() -> u64 {
    boot_ns() / 1000
}

/// Nanoseconds of the same clock.
pub fn boot_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// A clock that stands still until it is told: for tests and simulations.
#[derive(Debug)]
pub struct ManualClock {
    us: AtomicU64,
}

impl ManualClock {
    /// A clock that shows this many milliseconds since 1970.
    pub fn at_unix_ms(ms: u64) -> ManualClock {
        ManualClock { us: AtomicU64::new(ms * 1000) }
    }

    /// Moves both of its hands forward.
    pub fn advance_ms(&self, ms: u64) {
        self.us.fetch_add(ms * 1000, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn unix_ms(&self) -> u64 {
        self.us.load(Ordering::Relaxed) / 1000
    }

    fn boot_us(&self) -> u64 {
        self.us.load(Ordering::Relaxed)
    }
}
