//! How a node gives away what it holds and leaves the topology, and when it may end without. Decided without a clock.
//!
//! ```text
//!   says that it leaves -> its slots move -> gives up its votes -> out of the topology
//! ```
//!
//! It never ends with slots that only it holds, unless it is told to a second time, or nobody is there to take them: then its
//! log has them for its next start, where it keeps one, or they are lost.
//! The raft leader moves the slots; the node itself proposes no more than that it leaves and that it is gone. What became
//! of either proposal may be unknown: both are said again until the topology shows them, and said twice they do nothing.

use super::topology::{NodeState, Phase, SlotRecord, Topology, TopologyChange};
use crate::base::identity::{Incarnation, NodeId};
use crate::base::slot::Slot;
use crate::base::slot_ranges::SlotRanges;

/// A look that comes later than this shows that the process stood still: that time was nobody's to act in.
const STOOD_STILL_US: u64 = 1_000_000;
/// Where everybody leaves: how long a node stays, so that the others learn of its wish too.
const LINGER_US: u64 = 2_000_000;

/// How a drain ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Nothing is held here any more.
    Everything,
    /// These slots were held here until the end, and by nobody else.
    Left { slots: SlotRanges, reason: Reason },
}

/// Why slots were left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    ToldAgain,
    NobodyTakesThem,
    /// Somebody gave this member up while it was leaving.
    Forgotten,
}

impl Reason {
    /// Whether others, or so many keys, lose by this end. `is_kept`: the node's log has all of them, for its next start.
    pub fn loses(self, keys: usize, is_kept: bool) -> bool {
        match self {
            // The others have to do without these slots until it is back.
            Reason::ToldAgain => true,
            // What its log has is dropped at its next start.
            Reason::Forgotten => true,
            // An empty cluster that ends loses nothing.
            Reason::NobodyTakesThem => keys > 0 && !is_kept,
        }
    }
}

/// What a look at the topology comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Wait,
    Propose(TopologyChange),
    /// Nothing has moved for long: an operator should know. Said seldom.
    Warn {
        slots: usize,
    },
    End(Drained),
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    /// Slots are to be taken by members that can: for as long as it takes.
    Moves,
    /// Nothing is held: being let go.
    Release,
    /// Those who could take slots are believed to be down.
    Somebody,
    /// Everybody leaves.
    OthersToLearn,
    /// There is nobody else.
    Nobody,
}

/// The decisions of a drain.
#[derive(Debug)]
pub struct Draining {
    node: NodeId,
    incarnation: Incarnation,
    patience_us: u64,
    clock: RunningClock,
    waiting: Waiting,
    held: SlotRanges,
    /// Since when, by the clock, this is waited for and nothing has moved.
    since_us: u64,
}

impl Draining {
    /// A life that shall end. `patience_us`: how long it waits for a member that could take slots, and for being let go
    /// once it holds nothing.
    pub fn new(node: NodeId, incarnation: Incarnation, patience_us: u64, now_us: u64) -> Draining {
        let clock = RunningClock { seen_us: now_us, ran_us: 0 };
        let (waiting, held) = (Waiting::Moves, SlotRanges::default());
        Draining { node, incarnation, patience_us, clock, waiting, held, since_us: 0 }
    }

    /// What follows from the newest topology, at this time. `votes`: whether it is a voter of Raft, whom the lease voters follow.
    /// To be asked often.
    pub fn look(&mut self, topology: &Topology, votes: bool, now_us: u64) -> Next {
        let (node, incarnation) = (self.node, self.incarnation);
        let ran_us = self.clock.tick(now_us);
        // Another incarnation is not this life: it was removed, and somebody has registered it late.
        let Some(own) = topology.nodes.get(&node).filter(|own| own.incarnation == incarnation) else {
            // Removed by its own wish it holds nothing: that was seen before it was proposed.
            let gone = self.held.is_empty();
            let slots = self.held.clone();
            return Next::End(if gone {
                Drained::Everything
            } else {
                Drained::Left { slots, reason: Reason::Forgotten }
            });
        };
        let held = topology.held_by(node);
        let waiting = waiting(topology, node, &held);
        if waiting != self.waiting || held.len() < self.held.len() {
            self.since_us = ran_us;
        }
        (self.waiting, self.held) = (waiting, held);
        let limit_us = match waiting {
            Waiting::Moves => None,
            Waiting::OthersToLearn if own.leaving => Some(LINGER_US),
            Waiting::Nobody => Some(0),
            Waiting::OthersToLearn | Waiting::Release | Waiting::Somebody => Some(self.patience_us),
        };
        if limit_us.is_some_and(|limit_us| ran_us - self.since_us >= limit_us) {
            return Next::End(self.left(topology, Reason::NobodyTakesThem));
        }
        if limit_us.is_none() && ran_us - self.since_us >= self.patience_us.max(LINGER_US) {
            self.since_us = ran_us;
            return Next::Warn { slots: self.held.len() };
        }
        if !own.leaving {
            return Next::Propose(TopologyChange::Leaving { node, incarnation });
        }
        let supports = topology.lease_voters.votes.contains(&node);
        if self.held.is_empty() && !votes && !supports {
            return Next::Propose(TopologyChange::RemoveNode { node, incarnation });
        }
        Next::Wait
    }

    /// What it ends with now.
    pub fn left(&self, topology: &Topology, reason: Reason) -> Drained {
        // What is a copy is with its primary too; unless it is just changing hands, for nobody can tell then.
        let is_copied = |slot: &Slot| {
            let SlotRecord { primary, phase, .. } = topology.slot(*slot);
            let is_owned = primary.is_some() && *primary != Some(self.node);
            is_owned
                && !matches!(phase, Phase::HandingOff { to, .. } | Phase::Settling { from: to, .. } if *to == self.node)
        };
        let slots: SlotRanges = topology.held_by(self.node).slots().filter(|slot| !is_copied(slot)).collect();
        if slots.is_empty() { Drained::Everything } else { Drained::Left { slots, reason } }
    }
}

fn waiting(topology: &Topology, node: NodeId, held: &SlotRanges) -> Waiting {
    // An arbiter takes no slots, whatever happens.
    let others = || topology.nodes.values().filter(|other| other.id != node && !other.arbiter);
    if others().next().is_none() {
        Waiting::Nobody
    } else if others().any(|other| other.takes_slots()) {
        if held.is_empty() { Waiting::Release } else { Waiting::Moves }
    } else if others().all(|other| other.state == NodeState::Active) {
        Waiting::OthersToLearn
    } else {
        Waiting::Somebody
    }
}

/// The time in which this process ran: what it spent stopped, or its machine asleep, does not count.
#[derive(Debug)]
struct RunningClock {
    seen_us: u64,
    ran_us: u64,
}

impl RunningClock {
    /// Asked often; how long it has run since the beginning, in microseconds.
    fn tick(&mut self, now_us: u64) -> u64 {
        let step_us = now_us.saturating_sub(std::mem::replace(&mut self.seen_us, now_us));
        if step_us < STOOD_STILL_US {
            self.ran_us += step_us;
        }
        self.ran_us
    }
}

#[cfg(test)]
mod tests;
