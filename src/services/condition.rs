//! What is wrong with the node as a whole, and makes it refuse commands: one byte that a batch of requests reads once.

use super::{Services, eviction};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// Memory is over its limit, and nothing may be evicted. Found out by each batch.
const OUT_OF_MEMORY: u8 = 1;
/// A file is being loaded.
const LOADING: u8 = 1 << 1;
/// The last snapshot failed, and writes shall stop then.
const SNAPSHOTS_BROKEN: u8 = 1 << 2;
/// The log cannot be written.
const LOG_BROKEN: u8 = 1 << 3;
/// Writes ask for copies: whether there are enough is found out by each batch.
const ASKS_FOR_COPIES: u8 = 1 << 4;
/// There are not.
const LACKS_COPIES: u8 = 1 << 5;

/// What is wrong, as it was when a batch began; nothing, as a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Condition(u8);

impl Condition {
    /// Makes room where memory is over its limit, and says what is wrong then.
    #[inline]
    pub fn of(services: &Services) -> Condition {
        let bits = services.conditions.bits.load(Ordering::Relaxed);
        // What is read back from a log may not be changed by anything else.
        let is_over = bits & LOADING == 0 && eviction::is_out_of_memory(services);
        let mut bits = bits | if is_over { OUT_OF_MEMORY } else { 0 };
        if bits & ASKS_FOR_COPIES != 0 {
            bits &= !ASKS_FOR_COPIES;
            bits |= if lacks_copies(services) { LACKS_COPIES } else { 0 };
        }
        Condition(bits)
    }

    /// Nothing is wrong.
    #[inline]
    pub fn is_well(self) -> bool {
        self.0 == 0
    }

    pub fn is_out_of_memory(self) -> bool {
        self.0 & OUT_OF_MEMORY != 0
    }

    pub fn is_loading(self) -> bool {
        self.0 & LOADING != 0
    }

    /// Fewer copies than `min-replicas-to-write` asks for have been heard lately.
    pub fn lacks_copies(self) -> bool {
        self.0 & LACKS_COPIES != 0
    }

    /// What is written is not kept, and may not be written then.
    pub fn refuses_writes(self) -> bool {
        self.0 & (SNAPSHOTS_BROKEN | LOG_BROKEN) != 0
    }
}

/// How many copies have been heard within `min-replicas-max-lag`, of the slots that have the fewest.
pub fn good_copies(services: &Services) -> usize {
    let within = Duration::from_secs(services.settings.load().min_replicas_max_lag);
    services.engine.log.copied.count_heard(within, Instant::now())
}

/// As in Redis, either parameter may be 0, and then nothing is asked for.
fn lacks_copies(services: &Services) -> bool {
    good_copies(services) < services.settings.load().min_replicas_to_write
}

/// What is wrong now, but for memory.
#[derive(Debug, Default)]
pub struct Conditions {
    bits: AtomicU8,
    /// What came of the last write to the log that failed.
    log_error: Mutex<String>,
}

impl Conditions {
    pub fn is_loading(&self) -> bool {
        self.bits.load(Ordering::Relaxed) & LOADING != 0
    }

    pub fn set_loading(&self, is_loading: bool) {
        self.set(LOADING, is_loading);
    }

    /// Says whether writes stop because snapshots fail.
    pub fn set_snapshots_broken(&self, is_broken: bool) {
        self.set(SNAPSHOTS_BROKEN, is_broken);
    }

    /// Says whether writes ask for copies.
    pub fn set_asks_for_copies(&self, asks: bool) {
        self.set(ASKS_FOR_COPIES, asks);
    }

    /// Says that the log cannot be written, and why; or that it can again.
    pub fn set_log_broken(&self, error: Option<String>) {
        let is_broken = error.is_some();
        *self.log_error.lock() = error.unwrap_or_default();
        self.set(LOG_BROKEN, is_broken);
    }

    /// Why writes are refused, in Redis's words.
    pub fn reason(&self) -> String {
        if self.bits.load(Ordering::Relaxed) & LOG_BROKEN != 0 {
            return format!("MISCONF Errors writing to the AOF file: {}", self.log_error.lock());
        }
        "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk. Commands that may \
         modify the data set are disabled, because this instance is configured to report errors during writes if RDB \
         snapshotting fails (stop-writes-on-bgsave-error option). Please check the Redis logs for details about the RDB \
         error."
            .to_owned()
    }

    fn set(&self, bit: u8, is_set: bool) {
        match is_set {
            true => self.bits.fetch_or(bit, Ordering::Relaxed),
            false => self.bits.fetch_and(!bit, Ordering::Relaxed),
        };
    }
}
