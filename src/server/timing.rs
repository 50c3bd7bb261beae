//! How long commands take: measured where a look at the clock costs little beside them, sampled where it would show.
//!
//! Deep in a pipeline a small command takes a quarter of a microsecond, and two looks at the clock a fifth of that. There,
//! of each command of a thread one call in [`SAMPLED`] is measured and stands for those since the last one that was, so
//! that sums and histograms keep their meaning: an estimate, but of all calls. The number has no factor in common with
//! usual depths of pipelines, so every place in a pipeline is met. Everything else is measured: what is not FAST, few
//! requests at a time, many arguments, the first calls of a command, and every call while the slow log asks for less than
//! a millisecond, or HOTKEYS for each.
//!
//! What is slow is found all the same: where a reply is large, and at the end of a group of requests, the clock is looked
//! at, and what has passed since the last look is told to the slow log. It contains the small commands of the group before
//! it: some microseconds, where a millisecond is the least that is asked for.

use crate::base::clock;
use crate::commands::spec::FAST;
use crate::commands::table::Command;
use crate::services::statistics::{CommandCounters, bump};
use std::sync::atomic::Ordering;

/// Of so many calls one is measured.
const SAMPLED: u64 = 31;
/// So many first calls of a command are all measured: of what is rarely called an estimate would be worth nothing.
const FIRST_CALLS: u64 = 32;
/// In a group of fewer requests, what the system takes to receive them and to answer outweighs the looks.
const GROUP_MIN: usize = 8;
/// A FAST command with more arguments may take long.
const ARGUMENTS_MAX: usize = 16;
/// So may one with a larger reply.
const REPLY_BYTES_MAX: usize = 16 * 1024;
/// While the slow log asks for less, each call is measured by itself.
const SLOW_US_MIN: u64 = 1000;

/// The times of the requests that a thread works off together.
#[derive(Debug, Default)]
pub struct Timing {
    /// Requests of the group that have not begun.
    left: usize,
    is_small: bool,
    /// The last look at the clock, in a group that is not small.
    looked_at_ns: u64,
}

/// A call that has begun, and whether it is measured.
#[derive(Clone, Copy, Debug)]
pub struct Begun {
    started_ns: Option<u64>,
    /// Calls that it stands for.
    weight: u64,
    reply_bytes: usize,
}

impl Timing {
    /// A group of requests comes next.
    pub fn begin_group(&mut self, requests: usize) {
        self.left = requests;
        self.is_small = requests < GROUP_MIN;
        if !self.is_small {
            self.looked_at_ns = clock::boot_ns();
        }
    }

    /// The next request of the group comes next.
    #[inline]
    pub fn next(&mut self) {
        self.left = self.left.saturating_sub(1);
    }

    /// A call begins. `slow_us` is what the slow log asks for.
    #[inline]
    pub fn begin(
        &self,
        command: &Command,
        counters: &CommandCounters,
        arguments: usize,
        slow_us: u64,
        reply_bytes: usize,
    ) -> Begun {
        let is_cheap = self.is_small || !command.spec.has(FAST) || arguments > ARGUMENTS_MAX;
        let unmeasured = counters.unmeasured.load(Ordering::Relaxed);
        let weight = if is_cheap || slow_us < SLOW_US_MIN || counters.calls.load(Ordering::Relaxed) < FIRST_CALLS {
            1
        } else if unmeasured + 1 >= SAMPLED {
            unmeasured + 1
        } else {
            0
        };
        Begun { started_ns: (weight > 0).then(clock::boot_ns), weight, reply_bytes }
    }

    /// A call has ended and was counted. What it took, in nanoseconds, where that may be slow and is known; `is_tracked`:
    /// the histogram gets it too.
    #[inline]
    pub fn end(
        &mut self,
        begun: Begun,
        counters: &CommandCounters,
        is_tracked: bool,
        reply_bytes: usize,
    ) -> Option<u64> {
        let Some(started_ns) = begun.started_ns else {
            bump(&counters.unmeasured, 1);
            let is_large = reply_bytes.saturating_sub(begun.reply_bytes) > REPLY_BYTES_MAX;
            return (self.left == 0 || is_large).then(|| self.look());
        };
        let now_ns = clock::boot_ns();
        let took_ns = now_ns.saturating_sub(started_ns);
        self.looked_at_ns = now_ns;
        if begun.weight > 1 {
            counters.unmeasured.store(0, Ordering::Relaxed);
        }
        bump(&counters.nanoseconds, took_ns * begun.weight);
        if is_tracked {
            counters.latencies.record(took_ns, begun.weight);
        }
        Some(took_ns)
    }

    /// Nanoseconds since the last look at the clock.
    #[cold]
    fn look(&mut self) -> u64 {
        let now_ns = clock::boot_ns();
        now_ns.saturating_sub(std::mem::replace(&mut self.looked_at_ns, now_ns))
    }
}
