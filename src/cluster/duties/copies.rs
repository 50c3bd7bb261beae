//! What has to be done about copies: who shall have one, who no more, and where a copy takes the primary's place.

use crate::base::acknowledge::Acknowledge;
use crate::base::identity::NodeId;
use crate::base::slot::{SLOT_COUNT, Slot};
use crate::base::slot_ranges::SlotRanges;
use crate::cluster::planner::Owners;
use crate::cluster::topology::{COPIES_MAX, NodeState, Phase, SlotCopy, SlotRecord, Topology, TopologyChange};
use std::collections::{BTreeMap, BTreeSet};

/// The setting of the cluster that says how many copies there shall be besides the primary.
pub const REPLICAS: &str = "replicas";

/// The setting of the cluster that says what an acknowledgement means.
pub const ACKNOWLEDGE: &str = "acknowledge";

/// The setting of the cluster that says whether slots are moved by the plan.
pub const REBALANCE: &str = "rebalance";

/// Whether an operator has said that nothing is to be moved by the plan. Elections go on.
pub fn is_paused(topology: &Topology) -> bool {
    topology.config.get(REBALANCE).is_some_and(|value| value == "paused")
}

/// What an acknowledgement means, for all connections.
pub fn acknowledge(topology: &Topology) -> Acknowledge {
    let set = topology.config.get(ACKNOWLEDGE).and_then(|value| Acknowledge::of_name(value.as_bytes()));
    set.unwrap_or_default()
}

/// Whether replies wait until a quorum of the members of a slot has what they show.
pub fn is_quorum(topology: &Topology) -> bool {
    acknowledge(topology) >= Acknowledge::Quorum
}

/// How many copies of a slot there shall be besides the primary, where there are as many members.
pub fn replicas(topology: &Topology) -> usize {
    let set = topology.config.get(REPLICAS).and_then(|value| value.parse().ok());
    set.unwrap_or(0).min(COPIES_MAX - 1)
}

/// Slots whose primary is fenced, and that somebody has who answers.
pub(super) fn elections(topology: &Topology) -> Vec<TopologyChange> {
    let down = topology.nodes.values().filter(|node| node.state == NodeState::Down);
    let elected = down.map(|node| {
        let slots = Slot::all().zip(topology.slots().iter());
        let of_it = slots.filter(|(_, record)| record.primary == Some(node.id) && topology.has_candidate(record));
        (node, of_it.map(|(slot, _)| slot).collect::<SlotRanges>())
    });
    let begin = |(node, slots): (&crate::cluster::topology::Node, SlotRanges)| TopologyChange::BeginElection {
        slots,
        node: node.id,
        incarnation: node.incarnation,
    };
    elected.filter(|(_, slots)| !slots.is_empty()).map(begin).collect()
}

/// Slots that move to a node at the same time at most, where there are no copies: what a move has brought is lost where its
/// target ends before it is done. A copy that shall stay begins in all its slots at once: plans for a part of them would
/// cut the slots into more ranges.
pub(super) const SLOTS_COMING: usize = 1024;

/// Copies that begin, and copies that end. `given_up`: members that have been down for so long that others take their place.
/// `table`: who should have each slot.
pub(super) fn next_copies(topology: &Topology, given_up: &BTreeSet<NodeId>, table: &[Owners]) -> Vec<TopologyChange> {
    let mut coming = coming(topology);
    let most = if replicas(topology) == 0 { SLOTS_COMING } else { SLOT_COUNT };
    let mut joins: BTreeMap<NodeId, SlotRanges> = BTreeMap::new();
    let mut leaves: BTreeMap<(Leave, NodeId, u64), SlotRanges> = BTreeMap::new();
    for ((slot, record), want) in Slot::all().zip(topology.slots().iter()).zip(table) {
        if record.phase != Phase::Normal || record.primary.is_none() {
            continue;
        }
        let look = Look { topology, record, want, given_up };
        for node in look.joining() {
            let coming = coming.entry(node).or_default();
            if *coming < most {
                *coming += 1;
                joins.entry(node).or_default().extend([slot]);
            }
        }
        for (leave, copy) in look.leaving() {
            leaves.entry((leave, copy.node, copy.number)).or_default().extend([slot]);
        }
    }
    let join = |(node, slots)| {
        let incarnation = topology.nodes.get(&node)?.incarnation;
        Some(TopologyChange::CopyJoin { slots, node, incarnation })
    };
    let leave = |((leave, node, number), slots)| match leave {
        Leave::Goes => TopologyChange::CopyLeave { slots, node, number },
        Leave::Retires => TopologyChange::CopyRetire { slots, node, number },
        Leave::Stays => TopologyChange::CopyKeep { slots, node, number },
    };
    joins.into_iter().filter_map(join).chain(leaves.into_iter().map(leave)).collect()
}

/// How many slots each member is being sent.
fn coming(topology: &Topology) -> BTreeMap<NodeId, usize> {
    let is_up = |node: NodeId| topology.nodes.get(&node).is_some_and(|node| node.state == NodeState::Active);
    let mut coming = BTreeMap::new();
    // Of a slot whose primary is down nothing comes.
    for record in topology.slots().iter().filter(|record| record.primary.is_some_and(is_up)) {
        for copy in record.copies.iter().filter(|copy| !copy.ready && !topology.is_lost(copy)) {
            *coming.entry(copy.node).or_default() += 1;
        }
    }
    coming
}

/// How a copy leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Leave {
    Goes,
    /// What is acknowledged by it is to be elsewhere first: its primary removes it then.
    Retires,
    /// It was to go, and is needed.
    Stays,
}

/// One slot, and who shall have it.
struct Look<'a> {
    topology: &'a Topology,
    record: &'a SlotRecord,
    want: &'a Owners,
    given_up: &'a BTreeSet<NodeId>,
}

impl<'a> Look<'a> {
    fn is_up(&self, node: NodeId) -> bool {
        self.topology.nodes.get(&node).is_some_and(|node| node.state == NodeState::Active)
    }

    fn takes_slots(&self, node: NodeId) -> bool {
        self.topology.nodes.get(&node).is_some_and(crate::cluster::topology::Node::takes_slots)
    }

    /// Who has it, or will soon: also a member that is down, for a while.
    fn counts(&self, copy: &SlotCopy) -> bool {
        !self.topology.is_lost(copy) && (self.is_up(copy.node) || !self.given_up.contains(&copy.node))
    }

    /// Who has it now, and answers.
    fn has(&self, node: NodeId) -> bool {
        let is_ready = |copy: &&SlotCopy| copy.node == node && !self.topology.is_lost(copy) && copy.ready;
        self.is_up(node) && (self.record.primary == Some(node) || self.record.copies.iter().any(|copy| is_ready(&copy)))
    }

    fn joining(&self) -> impl Iterator<Item = NodeId> + use<'a> {
        let counted = || self.record.copies.iter().filter(|copy| self.counts(copy));
        let down = counted().filter(|copy| !self.is_up(copy.node)).count();
        let (known, up) = (1 + counted().count(), 1 + counted().count() - down);
        // A member that is down is waited for, unless only the primary is left.
        let missing = if down > 0 && up > 1 { self.want.len().saturating_sub(known) } else { COPIES_MAX };
        let is_new = |node: &NodeId| {
            let known = self.record.copies.on(*node).filter(|copy| !self.topology.is_lost(copy));
            self.record.primary != Some(*node) && known.is_none() && self.takes_slots(*node)
        };
        let joining: Vec<NodeId> = self.want.iter().copied().filter(is_new).take(missing).collect();
        joining.into_iter()
    }

    fn leaving(&self) -> Vec<(Leave, SlotCopy)> {
        let is_complete = self.want.iter().all(|node| self.has(*node));
        let goes = |copy: &SlotCopy| {
            let is_lost = self.topology.is_lost(copy);
            // What is lost goes when its node does not take it up again; who is down is waited for.
            let waits = !self.is_up(copy.node) && !self.given_up.contains(&copy.node);
            !self.want.contains(&copy.node) && !waits && (is_lost || is_complete)
        };
        let (is_quorum, mut retires) = (is_quorum(self.topology), self.record.copies.iter().any(|copy| copy.retiring));
        let leave = |copy: &SlotCopy| match (goes(copy), copy.retiring) {
            (false, false) => None,
            (false, true) => Some((Leave::Stays, *copy)),
            (true, _) if !is_quorum || !copy.counts => Some((Leave::Goes, *copy)),
            // One at a time.
            (true, _) if !std::mem::replace(&mut retires, true) => Some((Leave::Retires, *copy)),
            (true, _) => None,
        };
        self.record.copies.iter().filter_map(leave).collect()
    }
}
