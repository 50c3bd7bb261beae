//! What the raft leader has to see for a while before it acts on it. Pure: time is given.

use super::duties::{self, Hint, SlotMove, Stage};
use super::hints::{self, LinksHeard};
use super::membership::MembersView;
use super::topology::{Topology, TopologyChange};
use crate::base::identity::NodeId;
use std::collections::BTreeMap;
use std::time::Duration;

/// A hand-off that takes longer than this is called off: nobody serves its slots meanwhile.
const HAND_OFF_LIMIT_US: u64 = 3_000_000;

/// What a leader has seen since it leads.
#[derive(Debug, Default)]
pub struct Watching {
    /// Since when members are missing from gossip.
    absent: BTreeMap<NodeId, u64>,
    /// Heard over links only, at the last look.
    unheard: Vec<NodeId>,
    /// Since when hand-offs are under way.
    handing_off: BTreeMap<u64, u64>,
}

impl Watching {
    /// What gossip and links say of the members.
    pub fn hints(
        &mut self,
        own: NodeId,
        topology: &Topology,
        members: &MembersView,
        heard: &LinksHeard,
        now_us: u64,
    ) -> BTreeMap<NodeId, Hint> {
        let mut found = BTreeMap::new();
        for node in topology.nodes.values().filter(|node| node.id != own) {
            let member = members.member(node.id);
            let absent_us = match member {
                Some(_) => {
                    self.absent.remove(&node.id);
                    0
                }
                None => now_us - *self.absent.entry(node.id).or_insert(now_us),
            };
            let absent = Duration::from_micros(absent_us);
            if let Some(hint) = hints::hint(node, member, absent, heard.get(&node.id)) {
                found.insert(node.id, hint);
            }
        }
        found
    }

    /// Members whose gossip does not come through, each of them once.
    pub fn newly_unheard(
        &mut self,
        topology: &Topology,
        members: &MembersView,
        heard: &LinksHeard,
        unix_ms: u64,
    ) -> Vec<NodeId> {
        let unheard = hints::heard_by_links_only(topology, members, heard, unix_ms);
        let before = std::mem::replace(&mut self.unheard, unheard);
        self.unheard.iter().filter(|node| !before.contains(node)).copied().collect()
    }

    /// Hand-offs that take too long.
    pub fn overdue(&mut self, topology: &Topology, now_us: u64) -> Vec<TopologyChange> {
        let moves = duties::moves(topology);
        let open: Vec<SlotMove> = moves.into_iter().filter(|one| one.stage == Stage::HandingOff).collect();
        self.handing_off.retain(|begun, _| open.iter().any(|one| one.begun == *begun));
        let late = open.into_iter().filter(|one| {
            let since_us = *self.handing_off.entry(one.begun).or_insert(now_us);
            now_us - since_us > HAND_OFF_LIMIT_US
        });
        late.map(|one| TopologyChange::AbortHandoff { slots: one.slots, to: one.to, begun: one.begun }).collect()
    }
}
