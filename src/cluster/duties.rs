//! What has to be done about members and slots: pure functions of the agreed topology.
//!
//! ```text
//!  raft leader:  elections, dead slots, hand-overs without a target, ownerless slots, the next hand-overs, copies that
//!                begin or end (who is gone: `fencing`)
//!  each node:    the hand-overs that it is one end of
//! ```
//!
//! The same topology gives the same list, and nothing to do gives none, so it may be asked at any time and by any leader;
//! a change that was proposed already is refused when it is applied again.

mod copies;
mod kept;
mod level;

pub use copies::{ACKNOWLEDGE, REBALANCE, REPLICAS, acknowledge, is_paused, is_quorum, replicas};
pub use kept::{KeptRoles, kept_roles};

use super::planner::{self, PlanInput, PlanNode};
use super::topology::{Node, NodeState, Phase, SlotRecord, Topology, TopologyChange};
use crate::base::identity::NodeId;
use crate::base::slot::Slot;
use crate::base::slot_ranges::SlotRanges;
use std::collections::{BTreeMap, BTreeSet};

/// Slots that change hands together at most: nobody serves them for the moment that it takes.
const SLOTS_HANDED_OVER: usize = 1024;

/// How far a hand-over is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    HandingOff,
    /// Done, but nobody knows whether the new primary's log has the keys.
    Settling,
}

/// Slots that change hands, all at the same stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotMove {
    /// The number of the hand-over: the index of its `HandOver`.
    pub begun: u64,
    pub stage: Stage,
    pub from: NodeId,
    pub to: NodeId,
    pub slots: SlotRanges,
}

/// Every hand-over that is under way, by number.
pub fn moves(topology: &Topology) -> Vec<SlotMove> {
    let mut found: BTreeMap<(u64, Stage, NodeId, NodeId), SlotRanges> = BTreeMap::new();
    // Neighbours are mostly in the same one, so it is looked up once for each run of slots.
    let mut moving = topology.slots().moving().filter_map(|(slot, record)| Some((slot, move_of(record)?))).peekable();
    while let Some((slot, key)) = moving.next() {
        let slots = found.entry(key).or_default();
        slots.extend([slot]);
        while let Some((slot, _)) = moving.next_if(|(_, next)| *next == key) {
            slots.extend([slot]);
        }
    }
    let one = |((begun, stage, from, to), slots)| SlotMove { begun, stage, from, to, slots };
    found.into_iter().map(one).collect()
}

/// The hand-over that a slot is in: its number, its stage, its ends.
fn move_of(record: &SlotRecord) -> Option<(u64, Stage, NodeId, NodeId)> {
    let primary = record.primary?;
    match record.phase {
        Phase::Normal | Phase::Dead | Phase::Electing => None,
        Phase::HandingOff { to, begun } => Some((begun, Stage::HandingOff, primary, to)),
        Phase::Settling { from, begun } => Some((begun, Stage::Settling, from, primary)),
    }
}

/// What the raft leader should propose, most urgent first. `gathering`: members are still coming, so nothing moves that is
/// served already; it would move again with the next of them. `given_up`: members that are down for so long that others
/// take their place as copies.
pub fn leader_duties(topology: &Topology, gathering: bool, given_up: &BTreeSet<NodeId>) -> Vec<TopologyChange> {
    if topology.cluster.is_none() {
        return Vec::new();
    }
    let moves = moves(topology);
    let mut changes = copies::elections(topology);
    changes.extend(dead(topology));
    changes.extend(moves.iter().filter_map(|one| end_of(topology, one)));
    // What has an owner does not move while members are coming: it would move again with the next of them. Nor while slots
    // change hands: nobody serves those, and a plan takes time that is theirs.
    let waits = gathering || moves.iter().any(|one| one.stage == Stage::HandingOff);
    let waits = waits && topology.slots().iter().all(|record| record.primary.is_some());
    if changes.is_empty() && !waits && !gathering {
        changes.extend(hand_overs(topology, &kept::asked_moves(topology)));
    }
    if changes.is_empty() && !waits && !level::is_level(topology) {
        let planner::Plan { moves: mut planned, table } = planner::plan(&plan_input(topology));
        changes.extend(revivals(topology, &planned));
        if !gathering {
            if kept_roles(topology).is_some() {
                planned = kept::without_levelling(planned, &table);
            }
            changes.extend(hand_overs(topology, &planned));
            changes.extend(copies::next_copies(topology, given_up, &table));
        }
    }
    changes
}

/// Slots of members that are down: served by nobody until they are back, or forgotten.
fn dead(topology: &Topology) -> Vec<TopologyChange> {
    let down = topology.nodes.values().filter(|node| node.state == NodeState::Down);
    let slots_of = |node: &Node| -> SlotRanges {
        let owned = Slot::all().zip(topology.slots().iter()).filter(|(_, record)| record.primary == Some(node.id));
        let is_dead = |record: &SlotRecord| record.phase != Phase::Dead && !topology.has_candidate(record);
        owned.filter(|(_, record)| is_dead(record)).map(|(slot, _)| slot).collect()
    };
    down.map(|node| (node, slots_of(node)))
        .filter(|(_, slots)| !slots.is_empty())
        .map(|(node, slots)| TopologyChange::MarkDead { slots, node: node.id, incarnation: node.incarnation })
        .collect()
}

/// How a hand-over ends of which an end is gone.
fn end_of(topology: &Topology, one: &SlotMove) -> Option<TopologyChange> {
    let is_gone = |node: NodeId| topology.nodes.get(&node).is_none_or(|node| node.state == NodeState::Down);
    let takes_slots = |node: NodeId| topology.nodes.get(&node).is_some_and(Node::takes_slots);
    let SlotMove { begun, stage, from, to, ref slots } = *one;
    match stage {
        Stage::Settling if is_gone(from) => Some(TopologyChange::Settled { slots: slots.clone(), from, begun }),
        Stage::HandingOff if !takes_slots(to) => Some(TopologyChange::AbortHandoff { slots: slots.clone(), to, begun }),
        _ => None,
    }
}

/// The plan for the members as they are now.
///
/// A member that is down is planned as one that gives everything away: nobody is given more on its account than it held,
/// and nothing is given to it. What it owns stays where it is all the same: only it, or a person, brings that back.
pub fn plan_input(topology: &Topology) -> PlanInput {
    let node = |node: &Node| PlanNode {
        id: node.id,
        weight: node.weight,
        zone: node.zone.clone(),
        state: match node.takes_slots() {
            false => planner::NodeState::Draining,
            true if node.probation.is_on => planner::NodeState::Following,
            true => planner::NodeState::Live,
        },
    };
    // A slot that is on its way counts as being there: a plan must not send it again.
    let holders = |record: &SlotRecord| {
        let primary = record.phase.target().or(record.primary);
        if primary.is_none() && topology.candidates(record).next().is_none() {
            // Whoever is to have a copy has nothing: it begins anew.
            return planner::Owners::default();
        }
        let copies = record.copies.iter().filter(|copy| !topology.is_lost(copy)).map(|copy| copy.node);
        primary.into_iter().chain(copies.filter(|node| Some(*node) != primary)).collect()
    };
    PlanInput {
        nodes: topology.nodes.values().map(node).collect(),
        copies: 1 + copies::replicas(topology),
        table: topology.slots().iter().map(holders).collect(),
    }
}

/// Slots that are nobody's begin anew.
fn revivals(topology: &Topology, planned: &[planner::Move]) -> Vec<TopologyChange> {
    let is_nobodys = |slot: &Slot| {
        let record = topology.slot(*slot);
        record.primary.is_none() && topology.candidates(record).next().is_none()
    };
    let to_none = planned.iter().filter(|one| one.from.is_none() && one.kind != planner::MoveKind::Copy);
    let revive = |one: &planner::Move| {
        let slots: SlotRanges = one.slots.slots().filter(is_nobodys).collect();
        let may = !slots.is_empty() && topology.nodes.get(&one.to).is_some_and(Node::takes_slots);
        may.then_some(TopologyChange::Revive { slots, to: one.to })
    };
    to_none.filter_map(revive).collect()
}

/// Roles go to copies that have everything, a few at a time; who has nothing of a slot becomes a copy first.
fn hand_overs(topology: &Topology, planned: &[planner::Move]) -> Vec<TopologyChange> {
    let handing_off = |record: &&SlotRecord| matches!(record.phase, Phase::HandingOff { .. });
    let mut room = SLOTS_HANDED_OVER.saturating_sub(topology.slots().iter().filter(handing_off).count());
    let hand_over = |one: &planner::Move| {
        let to = topology.nodes.get(&one.to).filter(|node| node.takes_slots())?;
        let is_ready = |slot: &Slot| {
            let record = topology.slot(*slot);
            let is_still = record.phase == Phase::Normal && record.primary.is_some() && record.primary == one.from;
            is_still && topology.survivors(record).any(|copy| copy.node == to.id)
        };
        let slots: SlotRanges = one.slots.slots().filter(is_ready).take(room).collect();
        room -= slots.len();
        let (node, incarnation) = (to.id, to.incarnation);
        (!slots.is_empty()).then_some(TopologyChange::HandOver { slots, node, incarnation })
    };
    planned.iter().filter(|one| one.kind == planner::MoveKind::Primary).filter_map(hand_over).collect()
}

#[cfg(test)]
mod tests;
