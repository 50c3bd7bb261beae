//! How a node gives away what it holds and leaves the topology, and when it may end without.
//!
//! ```text
//!   says that it leaves -> its slots move -> gives up its vote -> out of the topology
//! ```
//!
//! It never ends with slots that only it holds, unless it is told to a second time, or nobody is there to take them.
//! The raft leader moves the slots; the node itself proposes no more than that it leaves and that it is gone. What became
//! of either proposal may be unknown: both are said again until the topology shows them, and said twice they do nothing.

use crate::base::identity::{Incarnation, NodeId};
use crate::base::slot::Slot;
use crate::base::slot_ranges::SlotRanges;
use crate::cluster::topology::raft::Consensus;
use crate::cluster::topology::{NodeState, Topology, TopologyChange};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Between looks at the voters, who change without a change of the topology, and at the clock.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// A look that comes later than this shows that the process stood still: that time was nobody's to act in.
const STOOD_STILL: Duration = Duration::from_secs(1);
/// Where everybody leaves: how long a node stays, so that the others learn of its wish too.
const LINGER: Duration = Duration::from_secs(2);
/// Before something is proposed again: doubled with every failure in a row, up to the last.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(100);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(3);

/// How a drain ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Drained {
    /// Nothing is held here any more.
    Everything,
    /// These slots were held here until the end, and by nobody else.
    Left { slots: SlotRanges, reason: Reason },
}

/// Why slots were left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    ToldAgain,
    NobodyTakesThem,
    /// Somebody gave this member up while it was leaving.
    Forgotten,
}

/// Gives away what this node holds, and leaves the topology. `patience`: how long it waits for a member that could take
/// slots, and for being let go once it holds nothing. `told_again` becomes true when it shall end at once.
pub(super) async fn drain(
    node: NodeId,
    incarnation: Incarnation,
    consensus: &Arc<dyn Consensus>,
    patience: Duration,
    mut told_again: watch::Receiver<bool>,
) -> Drained {
    let mut topologies = consensus.subscribe();
    let mut draining = Draining::new(node, incarnation, patience, Instant::now());
    let mut proposals: JoinSet<bool> = JoinSet::new();
    let (mut failures, mut propose_at) = (0, Instant::now());
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let topology = Arc::clone(&topologies.borrow_and_update());
        if *told_again.borrow_and_update() {
            return draining.left(&topology, Reason::ToldAgain);
        }
        let votes = consensus.group().voters.iter().any(|voter| voter.node == node);
        match draining.look(&topology, votes, Instant::now()) {
            Next::End(drained) => return drained,
            // One at a time, and aside: the looks go on while nobody answers.
            Next::Propose(change) if proposals.is_empty() && Instant::now() >= propose_at => {
                let consensus = Arc::clone(consensus);
                proposals.spawn(async move {
                    let proposed = consensus.propose(change).await;
                    proposed.inspect_err(|error| tracing::info!(%error, "leaving was not agreed on yet")).is_ok()
                });
            }
            Next::Propose(_) | Next::Wait => {}
        }
        tokio::select! {
            Some(proposed) = proposals.join_next() => {
                failures = if matches!(proposed, Ok(true)) { 0 } else { failures + 1 };
                propose_at = Instant::now() + (RETRY_PAUSE_MIN * (1 << failures.min(5))).min(RETRY_PAUSE_MAX);
            }
            changed = topologies.changed() => if changed.is_err() {
                return draining.left(&topology, Reason::ToldAgain);
            },
            _ = looks.tick() => {}
            Ok(()) = told_again.changed() => {}
        }
    }
}

/// What a look at the topology comes to.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Wait,
    Propose(TopologyChange),
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
struct Draining {
    node: NodeId,
    incarnation: Incarnation,
    patience: Duration,
    clock: RunningClock,
    waiting: Waiting,
    held: SlotRanges,
    /// Since when, by the clock, this is waited for and nothing has moved.
    since: Duration,
}

impl Draining {
    fn new(node: NodeId, incarnation: Incarnation, patience: Duration, now: Instant) -> Draining {
        let clock = RunningClock { seen: now, ran: Duration::ZERO };
        let (waiting, held) = (Waiting::Moves, SlotRanges::default());
        Draining { node, incarnation, patience, clock, waiting, held, since: Duration::ZERO }
    }

    fn look(&mut self, topology: &Topology, votes: bool, now: Instant) -> Next {
        let (node, incarnation) = (self.node, self.incarnation);
        let ran = self.clock.tick(now);
        let Some(own) = topology.nodes.get(&node) else {
            // Removed by its own wish it holds nothing: that was seen before it was proposed.
            let gone = self.held.is_empty();
            let slots = self.held.clone();
            return Next::End(if gone {
                Drained::Everything
            } else {
                Drained::Left { slots, reason: Reason::Forgotten }
            });
        };
        let held = held(topology, node);
        let waiting = waiting(topology, node, &held);
        if waiting != self.waiting || held.len() < self.held.len() {
            self.since = ran;
        }
        (self.waiting, self.held) = (waiting, held);
        let limit = match waiting {
            Waiting::Moves => None,
            Waiting::OthersToLearn if own.leaving => Some(LINGER),
            Waiting::Nobody => Some(Duration::ZERO),
            Waiting::OthersToLearn | Waiting::Release | Waiting::Somebody => Some(self.patience),
        };
        if limit.is_some_and(|limit| ran - self.since >= limit) {
            return Next::End(self.left(topology, Reason::NobodyTakesThem));
        }
        if limit.is_none() && ran - self.since >= self.patience.max(LINGER) {
            self.since = ran;
            let slots = self.held.len();
            tracing::warn!(
                slots,
                "slots are still here and nothing moves; a second SIGTERM ends this node, and loses them"
            );
        }
        if !own.leaving {
            return Next::Propose(TopologyChange::Leaving { node, incarnation });
        }
        if self.held.is_empty() && !votes {
            return Next::Propose(TopologyChange::RemoveNode { node, incarnation });
        }
        Next::Wait
    }

    /// What it ends with now.
    fn left(&self, topology: &Topology, reason: Reason) -> Drained {
        let slots = held(topology, self.node);
        if slots.is_empty() { Drained::Everything } else { Drained::Left { slots, reason } }
    }
}

fn waiting(topology: &Topology, node: NodeId, held: &SlotRanges) -> Waiting {
    let others = || topology.nodes.values().filter(|other| other.id != node);
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

/// The slots that a node serves, or may still hold.
fn held(topology: &Topology, node: NodeId) -> SlotRanges {
    let records = Slot::all().zip(topology.slots().iter());
    let held =
        records.filter(|(_, record)| record.primary == Some(node) || record.phase.releasing_from() == Some(node));
    held.map(|(slot, _)| slot).collect()
}

/// The time in which this process ran: what it spent stopped, or its machine asleep, does not count.
struct RunningClock {
    seen: Instant,
    ran: Duration,
}

impl RunningClock {
    /// Asked often; how long it has run since the beginning.
    fn tick(&mut self, now: Instant) -> Duration {
        let step = now.saturating_duration_since(std::mem::replace(&mut self.seen, now));
        if step < STOOD_STILL {
            self.ran += step;
        }
        self.ran
    }
}

#[cfg(test)]
mod tests;
