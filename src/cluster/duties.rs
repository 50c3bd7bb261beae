//! What has to be done about members and slots: pure functions of the agreed topology.
//!
//! ```text
//!  raft leader:  dead slots, moves without a target, ownerless slots, the next moves (who is gone: `fencing`)
//!  each node:    the moves that it is one end of
//! ```
//!
//! The same topology gives the same list, and nothing to do gives none, so it may be asked at any time and by any leader;
//! a change that was proposed already is refused when it is applied again.

mod copies;

pub use copies::{ACKNOWLEDGE, QUORUM, REPLICAS, is_quorum, replicas};

use super::planner::{self, PlanInput, PlanNode};
use super::quota::{self, Member};
use super::topology::{Node, NodeState, Phase, SlotRecord, Topology, TopologyChange};
use crate::base::identity::{Incarnation, NodeId};
use crate::base::slot::Slot;
use crate::base::slot_ranges::SlotRanges;
use std::collections::{BTreeMap, BTreeSet};

/// Slots that move together at most: all of them stand still for the moment of their hand-off.
const SLOTS_PER_MOVE: usize = 256;
/// The same where the role goes to a copy: nothing but the last word of its stream is waited for.
const SLOTS_PER_HAND_OVER: usize = 2048;
/// Moves that bring slots to one node at a time; and moves from one node, which with many newcomers has them all.
const MOVES_TO_NODE: usize = 2;
const MOVES_FROM_NODE: usize = 4;

/// How far a move is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Copying,
    Ready,
    HandingOff,
    /// Done, but its former primary may still hold the keys.
    Releasing,
}

/// Slots on their way from one node to another, all at the same stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotMove {
    /// The number of the move: the index of its `CopyAdd`.
    pub begun: u64,
    pub stage: Stage,
    pub from: NodeId,
    pub to: NodeId,
    pub slots: SlotRanges,
}

/// Every move that is under way, by number.
pub fn moves(topology: &Topology) -> Vec<SlotMove> {
    let mut found: BTreeMap<(u64, Stage, NodeId, NodeId), SlotRanges> = BTreeMap::new();
    // Neighbours are mostly in the same move, so a move is looked up once for each run of slots.
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

/// The move that a slot is in: its number, its stage, its ends.
fn move_of(record: &SlotRecord) -> Option<(u64, Stage, NodeId, NodeId)> {
    let primary = record.primary?;
    match record.phase {
        Phase::Normal | Phase::Dead | Phase::Electing => None,
        Phase::Copying { to, begun } => Some((begun, Stage::Copying, primary, to)),
        Phase::Ready { to, begun } => Some((begun, Stage::Ready, primary, to)),
        Phase::HandingOff { to, begun } => Some((begun, Stage::HandingOff, primary, to)),
        Phase::Releasing { from, begun } => Some((begun, Stage::Releasing, from, primary)),
    }
}

/// Where the topology has a move; `None`: it is off, or it is done and its former primary has dropped the keys.
pub fn stage_of(topology: &Topology, one: &SlotMove) -> Option<Stage> {
    let stage = |slot: Slot| {
        let (begun, stage, ..) = move_of(topology.slot(slot))?;
        (begun == one.begun).then_some(stage)
    };
    // Every change takes all slots of a move along, so they are all at the same stage; `None` comes first.
    one.slots.slots().map(stage).min().flatten()
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
    if changes.is_empty() {
        let planned;
        (changes, planned) = next_moves(topology, &moves, gathering);
        if !gathering {
            changes.extend(copies::next_copies(topology, given_up, planned));
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

/// How a move ends of which an end is gone.
fn end_of(topology: &Topology, one: &SlotMove) -> Option<TopologyChange> {
    let is_gone = |node: NodeId| topology.nodes.get(&node).is_none_or(|node| node.state == NodeState::Down);
    let takes_slots = |node: NodeId| topology.nodes.get(&node).is_some_and(Node::takes_slots);
    let SlotMove { begun, stage, from, to, ref slots } = *one;
    match stage {
        Stage::Releasing if is_gone(from) => {
            Some(TopologyChange::CopyRemove { slots: slots.clone(), node: from, begun })
        }
        Stage::Copying | Stage::Ready | Stage::HandingOff if !takes_slots(to) => {
            Some(TopologyChange::AbortHandoff { slots: slots.clone(), to, begun })
        }
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
        state: if node.takes_slots() { planner::NodeState::Live } else { planner::NodeState::Draining },
    };
    // A slot that is on its way counts as being there: a plan must not send it again.
    let holders = |record: &SlotRecord| {
        let primary = record.phase.target().or(record.primary);
        if primary.is_none() && topology.survivors(record).next().is_none() {
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

/// Members that hold more than their share, or are to hold nothing; `None`: some slot has no owner. Where a plan would
/// move nothing this tells so for a hundredth of its cost, and most looks are such.
fn givers(topology: &Topology) -> Option<Vec<NodeId>> {
    let mut held: BTreeMap<NodeId, usize> = topology.nodes.keys().map(|id| (*id, 0)).collect();
    let mut run: Option<(NodeId, usize)> = None;
    for record in topology.slots().iter() {
        let holder = record.phase.target().or(record.primary)?;
        match &mut run {
            Some((node, length)) if *node == holder => *length += 1,
            _ => {
                if let Some((node, length)) = run.replace((holder, 1)) {
                    *held.entry(node).or_default() += length;
                }
            }
        }
    }
    if let Some((node, length)) = run {
        *held.entry(node).or_default() += length;
    }
    let member = |(id, held): (&NodeId, &usize)| {
        let node = topology.nodes.get(id);
        let weight = node.filter(|node| node.takes_slots()).map_or(0, |node| u64::from(node.weight));
        Member { weight, zone: node.map_or("", |node| node.zone.as_str()), held: *held }
    };
    let members: Vec<Member<'_>> = held.iter().map(member).collect();
    if members.iter().all(|member| member.weight == 0) {
        return Some(Vec::new());
    }
    // What a member has that is down stays with it.
    let is_there = |id: &NodeId| topology.nodes.get(id).is_some_and(|node| node.state == NodeState::Active);
    let quotas = quota::quotas(&members, 1);
    let above = held.iter().zip(quotas).filter(|((id, held), quota)| **held > *quota && is_there(id));
    Some(above.map(|((id, _), _)| *id).collect())
}

/// The next steps towards the plan: ownerless slots begin anew, others move a few at a time.
fn next_moves(
    topology: &Topology,
    moves: &[SlotMove],
    gathering: bool,
) -> (Vec<TopologyChange>, Option<Vec<planner::Owners>>) {
    let (mut giving, mut taking): (BTreeMap<NodeId, usize>, BTreeMap<NodeId, usize>) = Default::default();
    for one in moves {
        *giving.entry(one.from).or_default() += 1;
        *taking.entry(one.to).or_default() += 1;
    }
    let is_below = |counts: &BTreeMap<NodeId, usize>, node, most| counts.get(&node).is_none_or(|count| *count < most);
    let can_give = |giving: &BTreeMap<NodeId, usize>, node| is_below(giving, node, MOVES_FROM_NODE);
    let has_copies = copies::replicas(topology) > 0;
    if !has_copies
        && givers(topology).is_some_and(|givers| gathering || !givers.iter().any(|giver| can_give(&giving, *giver)))
    {
        return (Vec::new(), None);
    }
    let planner::Plan { moves: planned, table } = planner::plan(&plan_input(topology));
    let mut changes = Vec::new();
    let takes_slots = |node: NodeId| topology.nodes.get(&node).is_some_and(Node::takes_slots);
    let of_role = |one: &planner::Move| one.kind != planner::MoveKind::Copy && takes_slots(one.to);
    for one in planned.into_iter().filter(of_role) {
        let is_still = |slot: &Slot| {
            let record = topology.slot(*slot);
            match one.from {
                Some(from) => record.phase == Phase::Normal && record.primary == Some(from),
                None => record.primary.is_none() && topology.survivors(record).next().is_none(),
            }
        };
        let slots = one.slots.slots().filter(is_still);
        let Some(from) = one.from else {
            let slots: SlotRanges = slots.collect();
            if !slots.is_empty() {
                changes.push(TopologyChange::Revive { slots, to: one.to });
            }
            continue;
        };
        if gathering {
            continue;
        }
        // Where there are copies the role goes to one that is ready; who has none is made one first.
        let most = if has_copies { SLOTS_PER_HAND_OVER } else { SLOTS_PER_MOVE };
        let is_ready = |slot: &Slot| topology.survivors(topology.slot(*slot)).any(|copy| copy.node == one.to);
        let slots: SlotRanges = slots.filter(|slot| !has_copies || is_ready(slot)).take(most).collect();
        let underway = moves.iter().any(|other| other.from == from && other.to == one.to);
        let is_room = can_give(&giving, from) && is_below(&taking, one.to, MOVES_TO_NODE);
        if !slots.is_empty() && !underway && is_room {
            *giving.entry(from).or_default() += 1;
            *taking.entry(one.to).or_default() += 1;
            changes.push(if has_copies {
                let incarnation = topology.nodes.get(&one.to).map_or(Incarnation(0), |node| node.incarnation);
                TopologyChange::HandOver { slots, node: one.to, incarnation }
            } else {
                TopologyChange::CopyAdd { slots, from, to: one.to, decided_by: topology.version }
            });
        }
    }
    (changes, Some(table))
}

#[cfg(test)]
mod tests;
