//! Roles that an operator has placed by CLUSTER FAILOVER.
//!
//! ```text
//!  CLUSTER FAILOVER --> the node is handed each slot that it had a copy of --> roles stay where they are
//!                                       |                                          |
//!                                       +------------------------------------------+--> the plan levels roles again:
//!                                 CLUSTER REBALANCE, or a member that starts, leaves, or is forgotten
//! ```
//!
//! It is agreed on as a value of the setting [`REBALANCE`]. What ends it follows from the members, so nobody has to take it
//! back. Copies are not its matter: they come, go and are levelled as ever, and elections go on.

use super::copies::REBALANCE;
use crate::base::identity::{Incarnation, NodeId};
use crate::base::slot::Slot;
use crate::base::slot_ranges::SlotRanges;
use crate::cluster::planner::{Move, MoveKind, Owners};
use crate::cluster::topology::{Node, Phase, SlotRecord, Topology};
use std::collections::BTreeMap;

/// The first word of the value.
const KEPT: &str = "roles-kept";

/// What CLUSTER FAILOVER on a node asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptRoles {
    /// Who is to be the primary of every slot that it had a copy of.
    pub node: NodeId,
    /// The version of the topology that it was asked in. Copies of a greater number have begun since, the one among them
    /// that a primary becomes which gives a role away: so nothing is handed over twice.
    asked_in: u64,
    /// The last life that a member had begun.
    latest: Incarnation,
    members: usize,
}

impl KeptRoles {
    /// What the node would ask for now; `None`: there is no slot that it could be handed.
    pub fn asked(topology: &Topology, node: NodeId) -> Option<KeptRoles> {
        let takes_slots = topology.nodes.get(&node).is_some_and(Node::takes_slots);
        let (asked_in, latest, members) = (topology.version, latest(topology), topology.nodes.len());
        let kept = KeptRoles { node, asked_in, latest, members };
        let may =
            takes_slots && kept.is_of(topology) && topology.slots().iter().any(|record| kept.asks(topology, record));
        may.then_some(kept)
    }

    /// The value of the setting.
    pub fn value(&self) -> String {
        format!("{KEPT} {} {} {} {}", self.node, self.asked_in, self.latest.0, self.members)
    }

    fn of_value(value: &str) -> Option<KeptRoles> {
        let mut words = value.split(' ');
        let is_kept = words.next() == Some(KEPT);
        let node = words.next()?.parse().ok()?;
        let asked_in = words.next()?.parse().ok()?;
        let latest = Incarnation(words.next()?.parse().ok()?);
        let members = words.next()?.parse().ok()?;
        is_kept.then_some(KeptRoles { node, asked_in, latest, members })
    }

    /// Whether the members are those of then. One that was believed to be down is.
    fn is_of(&self, topology: &Topology) -> bool {
        let is_same = topology.nodes.len() == self.members && latest(topology) == self.latest;
        is_same && !topology.nodes.values().any(|node| node.leaving)
    }

    /// Whether this slot is yet to be handed to it.
    fn asks(&self, topology: &Topology, record: &SlotRecord) -> bool {
        let is_asked = |copy: &crate::cluster::topology::SlotCopy| {
            copy.node == self.node && copy.number <= self.asked_in && !copy.retiring
        };
        record.phase == Phase::Normal && record.primary.is_some() && topology.survivors(record).any(is_asked)
    }
}

/// The last life that a member has begun: lives are numbered in the order in which they begin.
fn latest(topology: &Topology) -> Incarnation {
    topology.nodes.values().map(|node| node.incarnation).max().unwrap_or(Incarnation(0))
}

/// What an operator has asked for, as long as it stands.
pub fn kept_roles(topology: &Topology) -> Option<KeptRoles> {
    let kept = topology.config.get(REBALANCE).and_then(|value| KeptRoles::of_value(value))?;
    kept.is_of(topology).then_some(kept)
}

/// The roles that are yet to be handed over, by who has them.
pub(super) fn asked_moves(topology: &Topology) -> Vec<Move> {
    let Some(kept) = kept_roles(topology) else { return Vec::new() };
    let mut asked: BTreeMap<NodeId, SlotRanges> = BTreeMap::new();
    for (slot, record) in Slot::all().zip(topology.slots().iter()) {
        if let Some(primary) = record.primary.filter(|_| kept.asks(topology, record)) {
            asked.entry(primary).or_default().extend([slot]);
        }
    }
    let hand_over = |(from, slots)| Move { slots, from: Some(from), to: kept.node, kind: MoveKind::Primary };
    asked.into_iter().map(hand_over).collect()
}

/// What of a plan to this table is more than levelling: who shall keep a slot keeps its role.
pub(super) fn without_levelling(planned: Vec<Move>, table: &[Owners]) -> Vec<Move> {
    let leaves = |from: Option<NodeId>, slot: &Slot| {
        let keeps = |from| table.get(slot.index()).is_some_and(|owners| owners.contains(&from));
        !from.is_some_and(keeps)
    };
    let moved = |one: Move| match one.kind {
        MoveKind::Primary => Move { slots: one.slots.slots().filter(|slot| leaves(one.from, slot)).collect(), ..one },
        MoveKind::Copy | MoveKind::Revive => one,
    };
    planned.into_iter().map(moved).filter(|one| !one.slots.is_empty()).collect()
}
