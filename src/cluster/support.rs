//! What a lease voter has promised: whom it supports, and whose support it has withdrawn. Decided without a network or a disk.
//!
//! A voter supports a node that asks in time; where a node is silent for [`WITHDRAW_US`] it withdraws the support for good. That
//! is on its disk before anybody hears of it, so that a voter that starts again keeps its word; and a voter that has just
//! started does not know whom it supported before, so it waits as long before it withdraws anything. Its own support it
//! never withdraws: it would be the one to know.

use super::lease::{Beat, BeatAnswer, WITHDRAW_US};
use super::topology::{NodeState, Topology};
use crate::base::identity::NodeId;
use crate::transport::messages::LeaseReport;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A look that comes later than this after the one before shows that the voter itself stood still: what was sent to it meanwhile
/// may lie unread.
const STOOD_STILL_US: u64 = 200_000;
/// How long members may take to follow into a generation that begins: they are there, and cannot ask before they have.
pub const FOLLOWED_US: u64 = 10_000_000;

/// What a voter stands by, whatever becomes of its process.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Promises {
    /// The newest list of voters that it has learned: nobody is supported by an older one.
    pub config: u64,
    /// By node, the greatest support that it has withdrawn.
    pub withdrawn: BTreeMap<NodeId, u64>,
}

/// The supports of one voter.
#[derive(Debug)]
pub struct Support {
    own: NodeId,
    /// When it began to hear, or to hear again.
    hearing_us: u64,
    looked_us: u64,
    /// Of the cluster, as of the last look; `None`: there was none.
    generation: Option<u32>,
    /// By node: the support that was asked for or seen last, and when.
    heard: BTreeMap<NodeId, (u64, u64)>,
    promises: Promises,
    /// Those that are on the disk.
    kept: Promises,
}

impl Support {
    /// A voter that starts now, with what its disk says that it has promised.
    pub fn new(own: NodeId, kept: Promises, now_us: u64) -> Support {
        let (heard, promises) = (BTreeMap::new(), kept.clone());
        Support { own, hearing_us: now_us, looked_us: now_us, generation: None, heard, promises, kept }
    }

    /// A node asks for support, and this is the newest topology here.
    pub fn on_beat(&mut self, beat: &Beat, topology: &Topology, now_us: u64) -> BeatAnswer {
        if self.has_withdrawn(beat.node, beat.support) {
            return BeatAnswer::Withdrawn { support: beat.support };
        }
        let voters = &topology.lease_voters;
        let is_known = topology.nodes.get(&beat.node).is_some_and(|node| node.incarnation <= beat.incarnation);
        if !is_known || beat.config < voters.config.max(self.promises.config) || !voters.votes.contains(&self.own) {
            return BeatAnswer::NotNow;
        }
        self.heard.insert(beat.node, (beat.support, now_us));
        BeatAnswer::Supported { sent_us: beat.sent_us }
    }

    /// Promises what is due, by the newest topology; what is to be written to the disk, if that is something new. To be asked
    /// several times in [`STOOD_STILL_US`].
    pub fn look(&mut self, topology: &Topology, now_us: u64) -> Option<Promises> {
        if now_us.saturating_sub(std::mem::replace(&mut self.looked_us, now_us)) > STOOD_STILL_US {
            self.hearing_us = self.hearing_us.max(now_us);
        }
        if self.generation.replace(topology.generation).is_some_and(|former| former != topology.generation) {
            self.hearing_us = now_us + FOLLOWED_US;
        }
        self.heard.retain(|node, _| topology.nodes.contains_key(node));
        if !topology.lease_voters.votes.contains(&self.own) {
            return None;
        }
        self.promises.config = self.promises.config.max(topology.lease_voters.config);
        for node in topology.nodes.values().filter(|node| node.id != self.own && node.state == NodeState::Active) {
            if self.has_withdrawn(node.id, node.support) {
                continue;
            }
            // A support that is new here has not been asked for yet.
            let (support, at_us) = *self.heard.entry(node.id).or_insert((node.support, now_us));
            if support < node.support {
                self.heard.insert(node.id, (node.support, now_us));
            } else if now_us.saturating_sub(at_us.max(self.hearing_us)) >= WITHDRAW_US {
                self.promises.withdrawn.insert(node.id, node.support);
            }
        }
        (self.promises != self.kept).then(|| {
            // Numbers are never given twice: whoever is no member has none that could come back.
            self.promises.withdrawn.retain(|node, _| topology.nodes.contains_key(node));
            self.promises.clone()
        })
    }

    /// These are on the disk.
    pub fn kept(&mut self, promises: Promises) {
        self.kept = promises;
    }

    /// What the raft leader is told: what is on the disk, of members that are not fenced yet.
    pub fn report(&self, topology: &Topology) -> LeaseReport {
        let is_open = |(node, support): &(&NodeId, &u64)| {
            topology.nodes.get(node).is_some_and(|node| node.state == NodeState::Active && node.support <= **support)
        };
        let withdrawn = self.kept.withdrawn.iter().filter(is_open).map(|(node, support)| (*node, *support)).collect();
        LeaseReport { config: self.kept.config, withdrawn }
    }

    fn has_withdrawn(&self, node: NodeId, support: u64) -> bool {
        self.promises.withdrawn.get(&node).is_some_and(|withdrawn| support <= *withdrawn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::identity::{ClusterId, Incarnation};
    use crate::cluster::topology::{TopologyChange, sample};

    const OWN: NodeId = NodeId(1);
    const OTHER: NodeId = NodeId(2);

    /// Two members, of which the first votes.
    fn topology() -> Topology {
        let mut topology = Topology::default();
        topology.apply(1, &TopologyChange::InitCluster { cluster: ClusterId(1), hash_key: 1 });
        topology.apply(2, &TopologyChange::RegisterNode { node: sample::node(OWN) });
        topology.apply(3, &TopologyChange::RegisterNode { node: sample::node(OTHER) });
        topology
    }

    fn beat(topology: &Topology, sent_us: u64) -> Beat {
        let node = &topology.nodes[&OTHER];
        let config = topology.lease_voters.config;
        Beat { node: OTHER, incarnation: node.incarnation, support: node.support, config, sent_us }
    }

    /// Looks ten times a second, from here to there; what it wants to write at the end.
    fn look(support: &mut Support, topology: &Topology, from_us: u64, to_us: u64) -> Option<Promises> {
        let mut due = None;
        for now_us in (from_us..=to_us).step_by(100_000).chain([to_us]) {
            due = support.look(topology, now_us);
            if let Some(due) = due.as_ref().filter(|due| due.withdrawn.is_empty()) {
                support.kept(due.clone());
            }
        }
        due
    }

    #[test]
    fn a_silent_node_loses_its_support_for_good_and_gets_the_next_one() {
        let mut topology = topology();
        let mut support = Support::new(OWN, Promises::default(), 1_000_000);
        let supported = |sent_us| BeatAnswer::Supported { sent_us };
        const HEARD_US: u64 = 1_300_000;
        look(&mut support, &topology, 1_000_000, HEARD_US);
        assert_eq!(support.on_beat(&beat(&topology, 7), &topology, HEARD_US), supported(7));
        let end_us = HEARD_US + WITHDRAW_US;
        let early = look(&mut support, &topology, HEARD_US, end_us - 1);
        assert!(early.is_none_or(|early| early.withdrawn.is_empty()));
        let due = look(&mut support, &topology, end_us, end_us).expect("it is due");
        let withdrawn = topology.nodes[&OTHER].support;
        assert_eq!(due.withdrawn, [(OTHER, withdrawn)].into(), "of itself it withdraws nothing");
        assert_eq!(support.report(&topology).withdrawn, [], "not before it is on the disk");
        assert_eq!(
            support.on_beat(&beat(&topology, 8), &topology, 2_700_000),
            BeatAnswer::Withdrawn { support: withdrawn }
        );
        support.kept(due.clone());
        assert_eq!(support.report(&topology).withdrawn, [(OTHER, withdrawn)]);
        let mut again = Support::new(OWN, due, 3_000_000);
        assert_eq!(
            again.on_beat(&beat(&topology, 9), &topology, 3_000_000),
            BeatAnswer::Withdrawn { support: withdrawn }
        );
        topology.apply(4, &topology.raise_of(OTHER).expect("a member"));
        assert_eq!(again.on_beat(&beat(&topology, 9), &topology, 3_000_000), supported(9));
        assert_eq!(again.report(&topology).withdrawn, []);
    }

    #[test]
    fn a_voter_that_has_started_or_stood_still_waits_before_it_withdraws() {
        let topology = topology();
        let mut support = Support::new(OWN, Promises::default(), 5_000_000);
        let is_silent = |due: Option<Promises>| due.is_none_or(|due| due.withdrawn.is_empty());
        assert!(is_silent(look(&mut support, &topology, 5_000_000, 5_000_000 + WITHDRAW_US - 1)));
        assert!(is_silent(look(&mut support, &topology, 9_000_000, 9_000_000 + WITHDRAW_US - 1)), "it stood still");
        assert!(!is_silent(look(&mut support, &topology, 9_000_000 + WITHDRAW_US, 9_000_000 + WITHDRAW_US)));
    }

    #[test]
    fn where_a_generation_begins_members_have_the_time_to_follow() {
        let mut topology = topology();
        let mut support = Support::new(OWN, Promises::default(), 1_000_000);
        let is_silent = |due: Option<Promises>| due.is_none_or(|due| due.withdrawn.is_empty());
        look(&mut support, &topology, 1_000_000, 1_200_000);
        topology.generation += 1;
        let end_us = 1_200_000 + FOLLOWED_US + WITHDRAW_US;
        assert!(is_silent(look(&mut support, &topology, 1_200_000, end_us - 1)));
        assert!(!is_silent(look(&mut support, &topology, end_us, end_us)));
    }

    #[test]
    fn who_is_behind_or_unknown_is_not_supported() {
        let mut topology = topology();
        let mut support = Support::new(OWN, Promises { config: 2, ..Promises::default() }, 0);
        let known = beat(&topology, 1);
        let mut check = |beat: Beat, topology: &Topology| {
            assert_eq!(support.on_beat(&beat, topology, 0), BeatAnswer::NotNow, "{beat:?}");
        };
        check(Beat { config: 1, ..known }, &topology);
        check(Beat { node: NodeId(9), ..known }, &topology);
        check(Beat { incarnation: Incarnation(1), ..known }, &topology);
        check(known, &Topology::default());
        let votes = vec![OWN, OWN, OTHER];
        topology.apply(4, &TopologyChange::SetLeaseVoters { config: 2, votes });
        check(known, &topology);
    }
}
