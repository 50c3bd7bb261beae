//! How fast the entries of slots are sent that copies lack (`cluster-move-rate`).
//!
//! What is sent is a debt that time pays off. While there is more of it than a moment pays nothing is read; a long entry is sent as
//! a whole, and paid off afterwards. What happens to slots that a copy has already is not held up.

use std::time::{Duration, Instant};

/// So much time's worth may be sent at once.
const MOMENT: Duration = Duration::from_millis(50);

/// What a node has sent to all of its copies.
#[derive(Debug)]
pub(super) struct Pace {
    debt: f64,
    at: Instant,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { debt: 0.0, at: Instant::now() }
    }
}

impl Pace {
    /// Whether more entries may be read, at so many bytes a second; 0: always.
    pub(super) fn may_send(&mut self, rate: u64, now: Instant) -> bool {
        let rate = rate as f64;
        let elapsed = now.saturating_duration_since(std::mem::replace(&mut self.at, now));
        self.debt = (self.debt - elapsed.as_secs_f64() * rate).max(0.0);
        if rate == 0.0 {
            self.debt = 0.0;
        }
        self.debt <= rate * MOMENT.as_secs_f64()
    }

    /// Entries of so many bytes were read.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.debt += bytes as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that are sent in two seconds, in entries of this length, looked at every millisecond.
    fn check(rate: u64, entry: usize, least: usize, most: usize) {
        let begun = Instant::now();
        let (mut pace, mut sent) = (Pace { debt: 0.0, at: begun }, 0);
        for ms in 0..2000 {
            let now = begun + Duration::from_millis(ms);
            let mut looks = 0;
            while looks < 100 && pace.may_send(rate, now) {
                pace.sent(entry);
                sent += entry;
                looks += 1;
            }
        }
        assert!((least..=most).contains(&sent), "{rate} bytes a second, entries of {entry}: {sent} sent");
    }

    #[test]
    fn so_many_bytes_are_sent_in_a_second() {
        check(0, 1000, 200_000_000, 200_000_000);
        check(100_000, 100, 195_000, 206_000);
        check(100_000, 100_000, 200_000, 300_000);
        check(1, 1, 1, 4);
    }
}
