//! Leases: until when a node may answer for its slots. Its own part and the messages; decided without a network.
//!
//! ```text
//!   holder (every node)              lease voters                            raft leader
//!     Beat{support, config, sent} ->   supported: remembers when
//!     Supported{sent}             <-
//!                                      nothing for WITHDRAW: withdrawn,  ->    a majority has withdrawn this support:
//!                                      written to disk, never taken back       FenceNode
//!     Withdrawn                   <-   (asked again)
//!     RaiseSupport is agreed           supports the new number
//! ```
//!
//! A lease is valid while a majority of the lease voters has supported a beat that was *sent* less than [`LEASE_US`] ago. A
//! voter waits [`WITHDRAW_US`] before it withdraws: longer by the tenth by which two boot-time clocks may run apart. So
//! whoever is fenced has no lease any more, without having heard of it. Numbers of supports and of the voters' list are
//! the raft indices of the changes that gave them.
//!
//! Pings carry what a voter has withdrawn to the raft leader (`LeaseReport`).

use super::topology::{NodeState, Topology};
use crate::base::identity::{Incarnation, NodeId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// How long a beat keeps a lease valid after it was sent, by the holder's clock.
pub const LEASE_US: u64 = 600_000;
/// How long a voter waits, by its own clock, after the last beat that it supported.
pub const WITHDRAW_US: u64 = 660_000;
/// Between beats.
pub const BEAT_US: u64 = 100_000;
/// Between proposals to raise the support: doubled with every one in a row, up to the last.
const RAISE_PAUSE_MIN_US: u64 = 200_000;
const RAISE_PAUSE_MAX_US: u64 = 3_000_000;

/// A node asks for support.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Beat {
    pub node: NodeId,
    pub incarnation: Incarnation,
    /// The number of the support that it asks for, and of the list of voters, as it has learned them.
    pub support: u64,
    pub config: u64,
    /// By the holder's clock, in microseconds. It comes back with the answer.
    pub sent_us: u64,
}

/// What a voter answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum BeatAnswer {
    Supported {
        sent_us: u64,
    },
    /// This support is withdrawn for good: it has to be raised.
    Withdrawn {
        support: u64,
    },
    /// This node does not vote, as far as it knows, or the other is behind, or unknown yet.
    NotNow,
}

/// The lease of this life of a node.
#[derive(Debug)]
pub struct Lease {
    own: NodeId,
    /// By voter, when the newest beat that it supported was sent.
    supported: BTreeMap<NodeId, u64>,
    /// The greatest support that some voter has withdrawn.
    withdrawn: u64,
    raise_at_us: u64,
    /// Proposals to raise the support, in a row.
    raises: u32,
}

impl Lease {
    /// A node that nobody supports yet.
    pub fn new(own: NodeId) -> Lease {
        Lease { own, supported: BTreeMap::new(), withdrawn: 0, raise_at_us: 0, raises: 0 }
    }

    /// What this life asks every voter for, by what it has learned; `None`: it is not registered, or fenced.
    pub fn beat(&self, topology: &Topology, incarnation: Option<Incarnation>, now_us: u64) -> Option<Beat> {
        let node = topology.nodes.get(&self.own).filter(|node| Some(node.incarnation) == incarnation)?;
        Some(Beat {
            node: self.own,
            incarnation: node.incarnation,
            support: node.support,
            config: topology.lease_voters.config,
            sent_us: now_us,
        })
    }

    /// A voter has answered.
    pub fn answered(&mut self, voter: NodeId, answer: BeatAnswer) {
        match answer {
            BeatAnswer::Supported { sent_us } => {
                let newest = self.supported.entry(voter).or_default();
                *newest = sent_us.max(*newest);
            }
            BeatAnswer::Withdrawn { support } => self.withdrawn = self.withdrawn.max(support),
            BeatAnswer::NotNow => {}
        }
    }

    /// When the lease ends, by this node's clock; 0: there is none.
    pub fn until_us(&self, topology: &Topology, incarnation: Option<Incarnation>) -> u64 {
        let Some(node) = topology.nodes.get(&self.own) else { return 0 };
        if Some(node.incarnation) != incarnation || node.state == NodeState::Down {
            return 0;
        }
        let votes = &topology.lease_voters.votes;
        // Its own vote it has for good.
        let until = |voter: &NodeId| match self.supported.get(voter) {
            _ if *voter == self.own => u64::MAX,
            Some(sent_us) => sent_us + LEASE_US,
            None => 0,
        };
        let mut ends: Vec<u64> = votes.iter().map(until).collect();
        ends.sort_unstable_by(|one, other| other.cmp(one));
        // Of a majority the first that ends decides.
        ends.get(votes.len() / 2).copied().unwrap_or(0)
    }

    /// Until when requests may be answered that see the slots as they were in `shown`; `topology`: the newest that is known. A node that
    /// was fenced, and has a support again, may own slots there that others have been given since.
    pub fn until_as_shown_us(&self, topology: &Topology, shown: &Topology, incarnation: Option<Incarnation>) -> u64 {
        let support = |topology: &Topology| topology.nodes.get(&self.own).map(|node| (node.incarnation, node.support));
        if support(topology) == support(shown) { self.until_us(topology, incarnation) } else { 0 }
    }

    /// Whether its support is to be raised now: a voter has withdrawn it, or the node is fenced. A proposal whose outcome is
    /// unknown is made again after a pause; it names the support, so that it is agreed once.
    pub fn raise(&mut self, topology: &Topology, incarnation: Option<Incarnation>, now_us: u64) -> bool {
        let node = topology.nodes.get(&self.own).filter(|node| Some(node.incarnation) == incarnation);
        let Some(node) = node else { return false };
        if node.support > self.withdrawn && node.state == NodeState::Active {
            self.raises = 0;
            return false;
        }
        if now_us < self.raise_at_us {
            return false;
        }
        self.raise_at_us = now_us + (RAISE_PAUSE_MIN_US << self.raises.min(8)).min(RAISE_PAUSE_MAX_US);
        self.raises += 1;
        true
    }
}

/// Until when this node has a lease and under which support, for those who answer clients. One thread sets it.
#[derive(Debug, Default)]
pub struct LeaseTerm {
    until_us: AtomicU64,
    support: AtomicU64,
}

impl LeaseTerm {
    /// The lease of a node that needs nobody.
    pub fn endless() -> LeaseTerm {
        LeaseTerm { until_us: AtomicU64::new(u64::MAX), support: AtomicU64::new(1) }
    }

    /// What holds from now on, by the boot-time clock.
    pub fn set(&self, until_us: u64, support: u64) {
        // In this order: who finds the new end finds the new support.
        self.support.store(support, Ordering::Release);
        self.until_us.store(until_us, Ordering::Release);
    }

    /// The support under which something may be executed at this time.
    #[inline]
    pub fn begin(&self, now_us: u64) -> Option<u64> {
        let support = self.support.load(Ordering::Acquire);
        (now_us < self.until_us.load(Ordering::Acquire)).then_some(support)
    }

    /// Whether what was executed under that support may be answered at this time.
    #[inline]
    pub fn allows(&self, support: u64, now_us: u64) -> bool {
        now_us < self.until_us.load(Ordering::Acquire) && support == self.support.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::identity::ClusterId;
    use crate::base::slot_ranges::SlotRanges;
    use crate::cluster::topology::{Applied, TopologyChange, sample};

    const OWN: NodeId = NodeId(1);
    const OTHERS: [NodeId; 2] = [NodeId(2), NodeId(3)];

    /// Three members with a vote each.
    fn topology() -> Topology {
        let mut topology = Topology::default();
        let agree = |topology: &mut Topology, change: TopologyChange| topology.apply(topology.version + 1, &change);
        agree(&mut topology, TopologyChange::InitCluster { cluster: ClusterId(1), hash_key: 1 });
        for node in [OWN, OTHERS[0], OTHERS[1]] {
            agree(&mut topology, TopologyChange::RegisterNode { node: sample::node(node) });
        }
        for votes in [vec![1, 1, 2], vec![1, 1, 2, 3], vec![1, 2, 3]] {
            let votes = votes.into_iter().map(NodeId).collect();
            let config = topology.lease_voters.config;
            assert_eq!(agree(&mut topology, TopologyChange::SetLeaseVoters { config, votes }), Applied::Done);
        }
        topology
    }

    #[test]
    fn a_lease_lasts_from_the_sending_of_the_beat_that_makes_the_majority() {
        let topology = topology();
        let life = Some(topology.nodes[&OWN].incarnation);
        let mut lease = Lease::new(OWN);
        assert_eq!(lease.until_us(&topology, life), 0, "its own vote is not enough");
        let mut check = |voter, sent_us, until_us| {
            lease.answered(voter, BeatAnswer::Supported { sent_us });
            assert_eq!(lease.until_us(&topology, life), until_us, "{voter:?} supports what was sent at {sent_us}");
        };
        check(OTHERS[0], 1_000, 1_000 + LEASE_US);
        check(OTHERS[1], 500, 1_000 + LEASE_US);
        check(OTHERS[1], 2_000, 2_000 + LEASE_US);
        check(OTHERS[1], 1_500, 2_000 + LEASE_US);
        assert_eq!(lease.until_us(&topology, None), 0, "it has not registered");
        let mut fenced = topology.clone();
        fenced.apply(100, &fenced.fence_of(OWN, 0).expect("a member"));
        assert_eq!(lease.until_us(&fenced, life), 0);
    }

    #[test]
    fn a_lease_waits_until_requests_see_the_slots_that_it_is_for() {
        let mut newest = topology();
        let life = Some(newest.nodes[&OWN].incarnation);
        let shown = newest.clone();
        let mut lease = Lease::new(OWN);
        lease.answered(OTHERS[0], BeatAnswer::Supported { sent_us: 1_000 });
        let check = |newest: &Topology, shown: &Topology, life, until_us| {
            assert_eq!(lease.until_as_shown_us(newest, shown, life), until_us);
        };
        check(&newest, &shown, life, 1_000 + LEASE_US);
        let mut agree = |change| assert_eq!(newest.apply(newest.version + 1, &change), Applied::Done);
        agree(TopologyChange::Revive { slots: SlotRanges::all(), to: OTHERS[1] });
        check(&newest, &shown, life, 1_000 + LEASE_US);
        // Fenced and raised: somebody may have been given what it owned.
        for change in [newest.fence_of(OWN, 0), newest.raise_of(OWN)] {
            let change = change.expect("a member");
            newest.apply(newest.version + 1, &change);
        }
        check(&newest, &shown, life, 0);
        check(&newest, &newest, life, 1_000 + LEASE_US);
        // Forgotten and registered anew.
        let mut again = topology();
        let node = again.nodes.get_mut(&OWN).expect("a member");
        node.incarnation = Incarnation(node.incarnation.0 + 1);
        let next = Some(node.incarnation);
        check(&again, &shown, next, 0);
        check(&again, &again, next, 1_000 + LEASE_US);
    }

    #[test]
    fn who_has_all_votes_needs_nobody() {
        let mut topology = Topology::default();
        topology.apply(1, &TopologyChange::InitCluster { cluster: ClusterId(1), hash_key: 1 });
        topology.apply(2, &TopologyChange::RegisterNode { node: sample::node(OWN) });
        assert_eq!(Lease::new(OWN).until_us(&topology, Some(topology.nodes[&OWN].incarnation)), u64::MAX);
    }

    #[test]
    fn a_support_that_is_withdrawn_is_raised_with_pauses_until_that_is_known() {
        let mut topology = topology();
        let life = Some(topology.nodes[&OWN].incarnation);
        let mut lease = Lease::new(OWN);
        assert!(!lease.raise(&topology, life, 0));
        lease.answered(OTHERS[0], BeatAnswer::Withdrawn { support: topology.nodes[&OWN].support });
        let raises: Vec<u64> =
            (0..2_000).map(|ms| ms * 1000).filter(|now_us| lease.raise(&topology, life, *now_us)).collect();
        assert_eq!(raises, [0, 200_000, 600_000, 1_400_000]);
        topology.apply(topology.version + 1, &topology.raise_of(OWN).expect("a member"));
        assert!(!lease.raise(&topology, life, 10_000_000));
    }

    #[test]
    fn an_answer_needs_the_support_of_its_execution() {
        let term = LeaseTerm::default();
        assert_eq!(term.begin(0), None);
        term.set(100, 7);
        assert_eq!((term.begin(99), term.begin(100)), (Some(7), None));
        assert!(term.allows(7, 99) && !term.allows(7, 100));
        term.set(1_000, 8);
        assert!(!term.allows(7, 99), "fenced and raised meanwhile");
        assert_eq!(LeaseTerm::endless().begin(u64::MAX - 1), Some(1));
    }
}
