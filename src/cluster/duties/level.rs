//! Whether a plan would change nothing, told for a hundredth of what a plan costs. Most looks are such.

use super::copies::replicas;
use super::kept::kept_roles;
use crate::base::identity::NodeId;
use crate::cluster::quota::{self, Claim, Member};
use crate::cluster::topology::{Node, NodeState, SlotRecord, Topology};
use std::collections::BTreeMap;

/// What a member has of all slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    /// In any role.
    slots: usize,
    as_primary: usize,
}

/// Whether every slot has the holders that it should have, and nobody holds more than its share of slots and of roles, where
/// roles are shared by the plan. False may also mean that only a plan can tell.
pub(super) fn is_level(topology: &Topology) -> bool {
    let able = topology.nodes.values().filter(|node| node.takes_slots()).count();
    if able == 0 {
        // Nobody is there to take anything.
        return topology.slots().iter().all(|record| record.primary.is_some());
    }
    let wanted = (1 + replicas(topology)).min(able);
    // What a member has that is down stays with it; its copies are another matter.
    if wanted > 1 && topology.nodes.values().any(|node| node.state == NodeState::Down && !node.arbiter) {
        return false;
    }
    let Some(held) = held(topology, wanted) else { return false };
    let is_led_as_asked = || wanted == 1 || kept_roles(topology).is_some() || leads_its_share(topology, &held);
    holds_its_share(topology, &held, wanted) && is_led_as_asked()
}

/// What each member has; `None`: some slot has not the holders that it should have.
fn held(topology: &Topology, wanted: usize) -> Option<BTreeMap<NodeId, Held>> {
    let mut held: BTreeMap<NodeId, Held> = topology.nodes.keys().map(|id| (*id, Held::default())).collect();
    let mut records = topology.slots().iter().peekable();
    while let Some(record) = records.next() {
        let primary = record.primary.filter(|_| has_its_holders(topology, record, wanted))?;
        // Neighbours mostly have the same holders.
        let mut length = 1;
        let is_alike = |other: &&SlotRecord| {
            (other.primary, &other.copies, other.phase) == (record.primary, &record.copies, record.phase)
        };
        while records.next_if(is_alike).is_some() {
            length += 1;
        }
        let one = held.entry(primary).or_default();
        (one.slots, one.as_primary) = (one.slots + length, one.as_primary + length);
        for copy in record.copies.iter() {
            held.entry(copy.node).or_default().slots += length;
        }
    }
    Some(held)
}

fn has_its_holders(topology: &Topology, record: &SlotRecord, wanted: usize) -> bool {
    let is_counted =
        1 + record.copies.len() == wanted && !record.copies.iter().any(|copy| copy.retiring || topology.is_lost(copy));
    let zone = |node: NodeId| topology.nodes.get(&node).map_or("", |node| node.zone.as_str());
    let holders = || record.primary.into_iter().chain(record.copies.iter().map(|copy| copy.node));
    let mut zones: Vec<&str> = holders().map(zone).collect();
    zones.sort_unstable();
    zones.dedup();
    // Where some stand in the same zone only a plan can tell whether there is another.
    let is_apart = zones.len() == wanted || topology.nodes.values().all(|node| node.arbiter || node.zone == zones[0]);
    is_counted && record.phase.target().is_none() && is_apart
}

fn holds_its_share(topology: &Topology, held: &BTreeMap<NodeId, Held>, wanted: usize) -> bool {
    let member = |(id, held): (&NodeId, &Held)| {
        let node = topology.nodes.get(id);
        let zone = node.map_or("", |node| node.zone.as_str());
        Member { weight: weight(topology, *id), zone, held: held.slots }
    };
    let members: Vec<Member<'_>> = held.iter().map(member).collect();
    let is_there = |id: &NodeId| topology.nodes.get(id).is_some_and(|node| node.state == NodeState::Active);
    let quotas = quota::quotas(&members, wanted);
    held.iter().zip(quotas).all(|((id, held), quota)| held.slots <= quota || !is_there(id))
}

fn leads_its_share(topology: &Topology, held: &BTreeMap<NodeId, Held>) -> bool {
    // Where everybody is gone too often, somebody has to lead.
    let some_lead = topology.nodes.values().any(Node::leads_slots);
    let leads = |id: &NodeId| !some_lead || topology.nodes.get(id).is_some_and(Node::leads_slots);
    let claim = |(id, held): (&NodeId, &Held)| Claim {
        weight: if leads(id) { weight(topology, *id) } else { 0 },
        least: 0,
        most: held.slots,
        held: held.as_primary,
    };
    let claims: Vec<Claim> = held.iter().map(claim).collect();
    let goals = quota::divide(claims.iter().map(|claim| claim.held).sum(), &claims);
    claims.iter().zip(goals).all(|(claim, goal)| claim.held <= goal)
}

/// Its share relative to the others'; none where it gives everything away.
fn weight(topology: &Topology, node: NodeId) -> u64 {
    topology.nodes.get(&node).filter(|node| Node::takes_slots(node)).map_or(0, |node| u64::from(node.weight))
}
