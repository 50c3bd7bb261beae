//! Hybrid logical time: stamps that follow the wall clock and yet always rise.
//!
//! ```text
//! 63                      16 15        0
//! ├── ms since 1970 (48) ────┼─ counter ─┤
//! ```
//!
//! A stamp is later than every stamp that its node gave or believed before, so what happened because of something has a
//! later stamp, on whatever node (Kulkarni and others, "Logical Physical Clocks", 2014). It decides between concurrent
//! writes after a partition; leases never use it.
//!
//! **Across restarts** stamps rise because of a mark on disk: none is given at or above the mark until a higher mark is
//! durable, and a restarted clock begins at the mark. The clock does no I/O: [`HybridClock::mark_due`] says what to write,
//! [`HybridClock::marked`] is told that it is durable. Writing ahead by two seconds makes that one write a second.
//!
//! **From others** it believes nothing that is more than 500 ms ahead of its own wall clock, or one node with a wrong
//! clock would drag everybody's along.

use std::fmt;

/// A stamp of another node further ahead of the wall clock than this is not believed, in ms.
pub const AHEAD_MAX_MS: u64 = 500;
/// How far ahead of the wall clock the mark on disk is set, in ms. A node that restarts faster than this gives stamps
/// from the future for the rest of it: see [`HybridClock::ahead_ms`].
pub const MARK_AHEAD_MS: u64 = 2000;

const COUNTER_BITS: u32 = 16;

/// A moment in hybrid logical time. Two nodes may give equal stamps; compare (stamp, node id) where that matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp(u64);

impl Stamp {
    /// The first stamp of this millisecond since 1970. What does not fit 48 bits (the year 10889) is cut off.
    pub const fn at_ms(ms: u64) -> Stamp {
        Stamp(ms << COUNTER_BITS)
    }

    /// The stamp that [`Stamp::bits`] wrote.
    pub const fn from_bits(bits: u64) -> Stamp {
        Stamp(bits)
    }

    /// As one number, ordered as the stamps are: for files and messages.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Its milliseconds since 1970.
    pub const fn ms(self) -> u64 {
        self.0 >> COUNTER_BITS
    }

    /// Its place within the millisecond.
    pub const fn counter(self) -> u16 {
        self.0 as u16
    }

    /// The next one: more than 65,536 in a millisecond go on in the next.
    const fn next(self) -> Stamp {
        Stamp(self.0.saturating_add(1))
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.ms(), self.counter())
    }
}

/// No stamp can be given before this mark is durable. The clock has not changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MarkNeeded {
    /// What to write, then to tell [`HybridClock::marked`].
    pub mark_ms: u64,
}

/// A stamp of another node was not believed. The clock has not changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooFarAhead {
    /// How far ahead of the wall clock it is.
    pub by_ms: u64,
}

impl fmt::Display for TooFarAhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a stamp {} ms ahead of this node's clock; at most {AHEAD_MAX_MS} are believed", self.by_ms)
    }
}

impl std::error::Error for TooFarAhead {}

/// One node's hybrid logical clock.
#[derive(Clone, Debug)]
pub struct HybridClock {
    /// The latest stamp given or believed.
    last: Stamp,
    /// Invariant: every stamp given so far, in any life of the node, is below this, and it is on disk.
    mark_ms: u64,
}

impl HybridClock {
    /// The clock of a node that finds this mark on its disk: 0 where there is none.
    pub fn restore(mark_ms: u64) -> HybridClock {
        // One below the first stamp that may be given.
        HybridClock { last: Stamp(Stamp::at_ms(mark_ms).0.saturating_sub(1)), mark_ms }
    }

    /// A stamp later than all before. `unix_ms` is the wall clock.
    pub fn stamp(&mut self, unix_ms: u64) -> Result<Stamp, MarkNeeded> {
        let stamp = self.last.next().max(Stamp::at_ms(unix_ms));
        if stamp.ms() >= self.mark_ms {
            return Err(MarkNeeded { mark_ms: stamp.ms() + MARK_AHEAD_MS });
        }
        self.last = stamp;
        Ok(stamp)
    }

    /// The latest stamp given or believed.
    pub fn last(&self) -> Stamp {
        self.last
    }

    /// Believes a stamp that came from another node: every later one of this node is above it.
    pub fn observe(&mut self, stamp: Stamp, unix_ms: u64) -> Result<(), TooFarAhead> {
        let by_ms = stamp.ms().saturating_sub(unix_ms);
        if by_ms > AHEAD_MAX_MS {
            return Err(TooFarAhead { by_ms });
        }
        self.last = self.last.max(stamp);
        Ok(())
    }

    /// The mark to write now, if half of the one on disk is used up: asked about twice a second, no stamp ever waits.
    pub fn mark_due(&self, unix_ms: u64) -> Option<u64> {
        let now_ms = self.last.ms().max(unix_ms);
        (now_ms + MARK_AHEAD_MS / 2 >= self.mark_ms).then_some(now_ms + MARK_AHEAD_MS)
    }

    /// This mark is durable.
    pub fn marked(&mut self, mark_ms: u64) {
        self.mark_ms = self.mark_ms.max(mark_ms);
    }

    /// How far its next stamp is ahead of the wall clock, in ms. While that is above [`AHEAD_MAX_MS`], after a restart
    /// of less than two seconds or when the clock was set back, other nodes do not believe its stamps.
    pub fn ahead_ms(&self, unix_ms: u64) -> u64 {
        self.last.next().ms().saturating_sub(unix_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn clock(unix_ms: u64) -> HybridClock {
        let mut clock = HybridClock::restore(0);
        clock.marked(clock.mark_due(unix_ms).expect("a new clock needs a mark"));
        clock
    }

    #[test]
    fn a_stamp_is_the_wall_clock_and_a_counter() {
        let mut clock = clock(1000);
        let stamps: Vec<_> = [1000, 1000, 1001, 900].map(|ms| clock.stamp(ms)).into_iter().flatten().collect();
        let parts: Vec<_> = stamps.iter().map(|stamp| (stamp.ms(), stamp.counter())).collect();
        assert_eq!(parts, [(1000, 0), (1000, 1), (1001, 0), (1001, 1)]);
        assert_eq!(Stamp::from_bits(stamps[1].bits()), stamps[1]);
    }

    #[test]
    fn a_full_counter_goes_on_in_the_next_millisecond() {
        let mut clock = clock(1000);
        for _ in 0..65_536 {
            assert_eq!(clock.stamp(1000).map(Stamp::ms), Ok(1000));
        }
        assert_eq!(clock.stamp(1000), Ok(Stamp::at_ms(1001)));
    }

    #[test]
    fn no_stamp_without_a_mark_above_it() {
        let mut clock = HybridClock::restore(0);
        assert_eq!(clock.stamp(1000), Err(MarkNeeded { mark_ms: 3000 }));
        clock.marked(3000);
        assert_eq!(clock.stamp(2999), Ok(Stamp::at_ms(2999)));
        assert_eq!(clock.stamp(3000), Err(MarkNeeded { mark_ms: 5000 }));
        assert_eq!(clock.mark_due(1999), Some(4999));
    }

    #[test]
    fn half_of_the_mark_is_left_when_the_next_is_due() {
        let clock = clock(1000);
        assert_eq!((clock.mark_due(1999), clock.mark_due(2000)), (None, Some(4000)));
    }

    #[test]
    fn a_restart_begins_at_the_mark() {
        let mut clock = HybridClock::restore(3000);
        assert_eq!(clock.ahead_ms(1200), 1800);
        clock.marked(clock.mark_due(1200).expect("nothing left of the old mark"));
        assert_eq!(clock.stamp(1200), Ok(Stamp::at_ms(3000)));
        assert_eq!(clock.ahead_ms(9000), 0);
    }

    #[test]
    fn a_stamp_far_ahead_is_not_believed() {
        let mut clock = clock(1000);
        assert_eq!(clock.observe(Stamp::at_ms(1501), 1000), Err(TooFarAhead { by_ms: 501 }));
        assert_eq!(clock.stamp(1000), Ok(Stamp::at_ms(1000)));
        assert_eq!(clock.observe(Stamp::at_ms(1500), 1000), Ok(()));
        assert_eq!(clock.stamp(1000), Ok(Stamp::at_ms(1500).next()));
    }

    #[derive(Clone, Debug)]
    enum Action {
        Stamp,
        Observe(u64),
        Clock(u64),
        /// Writes the mark that is due; whether the node crashes before it is durable.
        Mark(bool),
        Restart,
    }

    fn actions() -> impl Strategy<Value = Vec<Action>> {
        let action = prop_oneof![
            5 => Just(Action::Stamp),
            2 => (0u64..20_000).prop_map(Action::Observe),
            2 => (0u64..20_000).prop_map(Action::Clock),
            3 => any::<bool>().prop_map(Action::Mark),
            1 => Just(Action::Restart),
        ];
        proptest::collection::vec(action, 1..200)
    }

    proptest! {
        #[test]
        fn stamps_rise_whatever_the_clock_the_others_and_the_crashes_do(actions in actions()) {
            let (mut clock, mut disk_ms, mut unix_ms) = (HybridClock::restore(0), 0, 10_000u64);
            let mut last = None;
            for action in actions {
                match action {
                    Action::Stamp => {
                        if let Ok(stamp) = clock.stamp(unix_ms) {
                            prop_assert!(Some(stamp) > last, "{stamp:?} after {last:?}");
                            prop_assert!(stamp.ms() >= unix_ms);
                            last = Some(stamp);
                        }
                    }
                    Action::Observe(ms) => {
                        let believed = clock.observe(Stamp::at_ms(ms), unix_ms).is_ok();
                        prop_assert_eq!(believed, ms <= unix_ms + AHEAD_MAX_MS);
                    }
                    Action::Clock(ms) => unix_ms = ms,
                    Action::Mark(crash) => {
                        if let Some(mark_ms) = clock.mark_due(unix_ms).filter(|_| !crash) {
                            disk_ms = disk_ms.max(mark_ms);
                            clock.marked(mark_ms);
                        }
                    }
                    Action::Restart => clock = HybridClock::restore(disk_ms),
                }
            }
        }
    }
}
