//! What a change has to know of the moment, in one word: one load says whether a snapshot runs.
//!
//! ```text
//!  bit 33 accesses are counted | bit 32 a snapshot runs | bits 31..24 the mark | bits 23..0 access bits of a new entry
//! ```
//! The low 32 bits are the access word of a new entry. The clock is wound at any time; the rest changes while all shards
//! are locked, but for the end of a snapshot, so whoever has locked a shard reads the mark that holds until he lets go.
//!
//! The access bits are Redis's: the second of the last access (LRU), or, where maxmemory-policy goes by frequency (LFU),
//! the minute of it in 16 bits and a counter in 8.

use super::frequency;
use std::sync::atomic::{AtomicU64, Ordering};

const CLOCK: u64 = 0x00ff_ffff;
const MARK_SHIFT: u32 = 24;
const RUNS: u64 = 1 << 32;
const COUNTS: u64 = 1 << 33;
/// Of a moment alone: nothing that is looked at is touched.
const KEEPS: u64 = 1 << 34;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Access(AtomicU64);

/// What it said under the lock of a shard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment(u64);

impl Moment {
    /// The access word of an entry that is made now: mark and clock.
    #[inline]
    pub(super) fn word(self) -> u32 {
        self.0 as u32
    }

    /// The access bits of an entry that is made now.
    #[inline]
    pub(super) fn clock(self) -> u32 {
        (self.0 & CLOCK) as u32
    }

    /// The mark of what is made now, where an access word has it.
    #[inline]
    pub(super) fn mark_bits(self) -> u32 {
        self.word() & !(CLOCK as u32)
    }

    /// The same moment for who leaves no trace (CLIENT NO-TOUCH).
    #[inline]
    pub(super) fn keeping(self, keeps: bool) -> Moment {
        if keeps { Moment(self.0 | KEEPS) } else { self }
    }

    /// Whether an access is more than to write down when it was: it is counted, or leaves no trace.
    #[inline]
    pub(super) fn is_special(self) -> bool {
        self.0 & (COUNTS | KEEPS) != 0
    }

    /// Whether an access leaves no trace.
    #[inline]
    pub(super) fn keeps(self) -> bool {
        self.0 & KEEPS != 0
    }

    /// Whether accesses are counted (LFU).
    #[inline]
    pub(super) fn counts(self) -> bool {
        self.0 & COUNTS != 0
    }

    /// Whether a snapshot runs that may need what is changed now.
    #[inline]
    pub(super) fn has_snapshot(self) -> bool {
        self.0 & RUNS != 0
    }
}

impl Access {
    #[inline]
    pub(super) fn load(&self) -> Moment {
        Moment(self.0.load(Ordering::Relaxed))
    }

    /// Sets the clock: seconds, of which 24 bits are kept, or their minutes.
    pub(super) fn wind(&self, seconds: u64) {
        self.update(|word| {
            let bits = if word & COUNTS == 0 { seconds } else { u64::from(frequency::of_new(seconds / 60)) };
            word & !CLOCK | bits & CLOCK
        });
    }

    /// Says whether accesses are counted from here on. What entries remember is read the other way from then on, and is
    /// right again after their next accesses, as in Redis.
    pub(super) fn set_counting(&self, counts: bool, seconds: u64) {
        self.update(|word| if counts { word | COUNTS } else { word & !COUNTS });
        self.wind(seconds);
    }

    /// A snapshot begins, and what is made from here on carries its mark. All shards must be locked.
    pub(super) fn begin(&self, mark: u8) {
        self.update(|word| word & (CLOCK | COUNTS) | u64::from(mark) << MARK_SHIFT | RUNS);
    }

    /// No snapshot runs any more. The mark stays.
    pub(super) fn end(&self) {
        self.0.fetch_and(!RUNS, Ordering::Relaxed);
    }

    fn update(&self, change: impl Fn(u64) -> u64) {
        let mut word = self.0.load(Ordering::Relaxed);
        while let Err(now) = self.0.compare_exchange_weak(word, change(word), Ordering::Relaxed, Ordering::Relaxed) {
            word = now;
        }
    }
}
