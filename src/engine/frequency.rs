//! How often an entry is accessed, in 24 bits: Redis's logarithmic counter, which decays (LFU).
//!
//! ```text
//!  bits 23..8 the minute of the last access | bits 7..0 the counter
//! ```
//! The greater the counter is, the more seldom an access raises it: with a factor of 10 it stands at 255 after about a
//! million accesses. A new entry has a few for a start, or it would be the first to go. See redis.conf: lfu-log-factor,
//! lfu-decay-time.

use std::sync::atomic::{AtomicU32, Ordering};

/// The counter of a new entry.
const NEW: u32 = 5;
const COUNTER: u32 = 0xff;
const MINUTES: u32 = 0xffff;

/// How counters rise and decay.
#[derive(Debug)]
pub(super) struct Frequency {
    log_factor: AtomicU32,
    /// Minutes in which a counter loses one; 0: never.
    decay_minutes: AtomicU32,
}

impl Default for Frequency {
    fn default() -> Frequency {
        Frequency { log_factor: AtomicU32::new(10), decay_minutes: AtomicU32::new(1) }
    }
}

/// The access bits of an entry that is made in this minute.
pub(super) fn of_new(minutes: u64) -> u32 {
    (minutes as u32 & MINUTES) << 8 | NEW
}

impl Frequency {
    pub(super) fn set(&self, log_factor: u32, decay_minutes: u32) {
        self.log_factor.store(log_factor, Ordering::Relaxed);
        self.decay_minutes.store(decay_minutes, Ordering::Relaxed);
    }

    /// The counter of an entry with these access bits, in the minute of `now`, the access bits of a new one.
    pub(super) fn counter(&self, bits: u32, now: u32) -> u8 {
        let elapsed = (now >> 8).wrapping_sub(bits >> 8) & MINUTES;
        let lost = elapsed.checked_div(self.decay_minutes.load(Ordering::Relaxed)).unwrap_or(0);
        (bits & COUNTER).saturating_sub(lost) as u8
    }

    /// The access bits after an access.
    pub(super) fn touched(&self, bits: u32, now: u32, random: u64) -> u32 {
        let counter = u32::from(self.counter(bits, now));
        // It rises in one of so many accesses.
        let one_in = u64::from(counter.saturating_sub(NEW)) * u64::from(self.log_factor.load(Ordering::Relaxed)) + 1;
        let rises = counter < COUNTER && random.is_multiple_of(one_in);
        now & !COUNTER | (counter + u32::from(rises))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table in redis.conf: the counter after so many accesses, by factor; it is random, hence the margins.
    #[test]
    fn counters_rise_as_the_table_of_redis_says() {
        let cases = [(0, 100, 105..=105), (1, 1000, 30..=70), (10, 1000, 12..=24), (10, 100_000, 120..=165)];
        for (log_factor, accesses, expected) in cases {
            let frequency = Frequency::default();
            frequency.set(log_factor, 1);
            let (mut bits, mut state) = (of_new(1), 7u64);
            for _ in 0..accesses {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                bits = frequency.touched(bits, of_new(1), state >> 20);
            }
            assert!(expected.contains(&(bits & COUNTER)), "factor {log_factor}, {accesses}: {}", bits & COUNTER);
        }
    }

    #[test]
    fn counters_decay_by_the_minute_also_where_minutes_wrap() {
        let bits = of_new(65_530) & !COUNTER | 100;
        for (decay_minutes, minutes, counter) in [(1, 65_530, 100), (1, 65_546, 84), (10, 65_555, 98), (0, 65_555, 100)]
        {
            let frequency = Frequency::default();
            frequency.set(10, decay_minutes);
            assert_eq!(frequency.counter(bits, of_new(minutes)), counter, "{decay_minutes} {minutes}");
        }
    }
}
