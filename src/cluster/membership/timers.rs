//! foca's timers, by the moment they are due. One that is late is handled late; none is ever lost.

use super::MemberIdentity;
use foca::Timer;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Timers in the order in which foca wants them: by due time, and where several are due at once by foca's own order.
#[derive(Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Armed>,
    armed: u64,
}

impl Timers {
    pub(super) fn arm(&mut self, due_us: u64, timer: Timer<MemberIdentity>) {
        self.armed += 1;
        self.heap.push(Armed { due_us, number: self.armed, timer });
    }

    pub(super) fn next_due_us(&self) -> Option<u64> {
        self.heap.peek().map(|armed| armed.due_us)
    }

    /// The next timer that is due by now.
    pub(super) fn take_due(&mut self, now_us: u64) -> Option<Timer<MemberIdentity>> {
        if self.next_due_us()? > now_us {
            return None;
        }
        self.heap.pop().map(|armed| armed.timer)
    }
}

struct Armed {
    due_us: u64,
    number: u64,
    timer: Timer<MemberIdentity>,
}

impl Ord for Armed {
    /// The heap gives the greatest first: the earliest is the greatest.
    fn cmp(&self, other: &Armed) -> Ordering {
        (other.due_us.cmp(&self.due_us))
            .then_with(|| other.timer.cmp(&self.timer))
            .then_with(|| other.number.cmp(&self.number))
    }
}

impl PartialOrd for Armed {
    fn partial_cmp(&self, other: &Armed) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Armed {
    fn eq(&self, other: &Armed) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Armed {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_come_by_due_time_then_by_kind_and_not_early() {
        let mut timers = Timers::default();
        timers.arm(20, Timer::PeriodicGossip(0));
        timers.arm(10, Timer::PeriodicAnnounce(1));
        timers.arm(10, Timer::ProbeRandomMember(1));
        timers.arm(10, Timer::PeriodicAnnounce(2));
        assert_eq!(timers.take_due(9), None);
        assert_eq!(timers.next_due_us(), Some(10));
        assert_eq!(timers.take_due(30), Some(Timer::ProbeRandomMember(1)));
        assert_eq!(timers.take_due(30), Some(Timer::PeriodicAnnounce(1)));
        assert_eq!(timers.take_due(30), Some(Timer::PeriodicAnnounce(2)));
        assert_eq!(timers.take_due(30), Some(Timer::PeriodicGossip(0)));
        assert_eq!(timers.take_due(u64::MAX), None);
    }
}
