//! What the raft leader does with the reports of the lease voters: fences whom a majority has given up, and keeps the list of
//! voters like the raft group. Pure: time is given.
//!
//! Two lists that follow each other differ by one vote, so that any majority of one meets any majority of the other; and the
//! next comes only when a majority of the last one has learned it, and for [`WITHDRAW_US`] nobody can have a lease by the
//! one before. The number of votes is odd, but for one voter alone, who has two: with two voters of one vote each, as they would be
//! for a moment on the way to three, the end of either would be the end of all leases. Who leaves supports nobody any
//! more, long before it gives its vote in the raft group away.

use super::lease::WITHDRAW_US;
use super::topology::{NodeState, Topology, TopologyChange};
use crate::base::identity::NodeId;
use crate::transport::messages::LeaseReport;
use std::collections::{BTreeMap, BTreeSet};

/// What the voters have reported since this node leads.
#[derive(Debug, Default)]
pub struct Fencing {
    reports: BTreeMap<NodeId, LeaseReport>,
    /// The list that a majority of it has learned, and since when that is known.
    settled: Option<(u64, u64)>,
}

impl Fencing {
    /// A voter has reported.
    pub fn heard(&mut self, voter: NodeId, report: LeaseReport) {
        // A late word takes nothing back.
        let known = self.reports.entry(voter).or_default();
        known.config = known.config.max(report.config);
        for (node, support) in report.withdrawn {
            known.withdrawn.retain(|(other, _)| *other != node);
            known.withdrawn.push((node, support));
        }
    }

    /// Whom a majority of the voters has given up. `now_ms`: since 1970.
    pub fn fences(&self, topology: &Topology, now_ms: u64) -> Vec<TopologyChange> {
        let active = topology.nodes.values().filter(|node| node.state == NodeState::Active);
        let given_up = active.filter(|node| {
            let has_withdrawn = |voter: &NodeId| {
                let report = self.reports.get(voter);
                report.is_some_and(|report| {
                    report.withdrawn.iter().any(|(id, support)| *id == node.id && *support >= node.support)
                })
            };
            topology.lease_voters.has_majority(has_withdrawn)
        });
        given_up.filter_map(|node| topology.fence_of(node.id, now_ms)).collect()
    }

    /// The next step towards a list of the voters of the raft group.
    pub fn next_voters(
        &mut self,
        topology: &Topology,
        raft_voters: &BTreeSet<NodeId>,
        now_us: u64,
    ) -> Option<TopologyChange> {
        let known = &topology.lease_voters;
        let has_learned = |voter: &NodeId| self.reports.get(voter).is_some_and(|report| report.config >= known.config);
        if self.settled.is_none_or(|(config, _)| config != known.config) {
            self.settled = known.has_majority(has_learned).then_some((known.config, now_us));
        }
        let (_, since_us) = self.settled?;
        if now_us < since_us + WITHDRAW_US {
            return None;
        }
        let members: BTreeSet<NodeId> =
            raft_voters.iter().filter(|id| topology.nodes.get(id).is_some_and(|node| !node.leaving)).copied().collect();
        let votes = step(&known.votes, &members)?;
        Some(TopologyChange::SetLeaseVoters { config: known.config, votes })
    }
}

/// The votes that follow these on the way to one for each of these voters, and one more for the first of one or of an even number;
/// `None`: that is what they are.
fn step(votes: &[NodeId], voters: &BTreeSet<NodeId>) -> Option<Vec<NodeId>> {
    let first = voters.first()?;
    let has_more = voters.len() == 1 || voters.len().is_multiple_of(2);
    let wanted = |id: &NodeId| usize::from(voters.contains(id)) + usize::from(id == first && has_more);
    let count = |id: &NodeId| votes.iter().filter(|vote| *vote == id).count();
    let mut next = votes.to_vec();
    if let Some(more) = voters.iter().find(|id| count(id) < wanted(id)) {
        next.push(*more);
        next.sort_unstable();
    } else {
        let at = votes.iter().position(|id| count(id) > wanted(id))?;
        next.remove(at);
    }
    Some(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::identity::ClusterId;
    use crate::cluster::topology::{Applied, sample};

    fn ids(numbers: &[u128]) -> Vec<NodeId> {
        numbers.iter().copied().map(NodeId).collect()
    }

    fn topology(members: u128) -> Topology {
        let mut topology = Topology::default();
        topology.apply(1, &TopologyChange::InitCluster { cluster: ClusterId(1), hash_key: 1 });
        for id in 1..=members {
            topology.apply(topology.version + 1, &TopologyChange::RegisterNode { node: sample::node(NodeId(id)) });
        }
        topology
    }

    /// Every list on the way is one vote from the one before, and any majority of one meets any of the next.
    #[test]
    fn the_votes_go_to_other_voters_step_by_step() {
        let check = |from: &[u128], voters: &[u128], expected: &[&[u128]]| {
            let voters = ids(voters).into_iter().collect();
            let (mut votes, mut course) = (ids(from), Vec::new());
            while let Some(next) = step(&votes, &voters) {
                votes.clone_from(&next);
                course.push(next);
                assert!(course.len() < 20, "it goes in circles: {course:?}");
            }
            assert_eq!(course, expected.iter().map(|votes| ids(votes)).collect::<Vec<_>>(), "{from:?} to {voters:?}");
        };
        check(&[1, 1], &[1], &[]);
        check(&[1, 1], &[1, 2, 3], &[&[1, 1, 2], &[1, 1, 2, 3], &[1, 2, 3]]);
        check(&[1, 2, 3], &[2], &[&[1, 2, 2, 3], &[2, 2, 3], &[2, 2]]);
        check(&[1, 2, 3], &[1, 2, 4], &[&[1, 2, 3, 4], &[1, 2, 4]]);
        check(&[1, 1], &[2], &[&[1, 1, 2], &[1, 1, 2, 2], &[1, 2, 2], &[2, 2]]);
        check(&[1, 2, 3], &[2, 3], &[&[1, 2, 2, 3], &[2, 2, 3]]);
        check(&[2, 2, 3], &[3], &[&[2, 2, 3, 3], &[2, 3, 3], &[3, 3]]);
        check(&[1, 2, 3], &[], &[]);
    }

    #[test]
    fn the_next_list_waits_until_the_last_is_known_and_older_leases_are_over() {
        let mut topology = topology(3);
        let (mut fencing, voters) = (Fencing::default(), ids(&[1, 2, 3]).into_iter().collect());
        let report = |config| LeaseReport { config, withdrawn: Vec::new() };
        let config = topology.lease_voters.config;
        assert_eq!(fencing.next_voters(&topology, &voters, 0), None, "nobody has said that it knows");
        fencing.heard(NodeId(1), report(config));
        assert_eq!(fencing.next_voters(&topology, &voters, 1_000), None);
        assert_eq!(fencing.next_voters(&topology, &voters, 1_000 + WITHDRAW_US - 1), None);
        let next = fencing.next_voters(&topology, &voters, 1_000 + WITHDRAW_US).expect("it is time");
        assert_eq!(next, TopologyChange::SetLeaseVoters { config, votes: ids(&[1, 1, 2]) });
        assert_eq!(topology.apply(topology.version + 1, &next), Applied::Done);
        let long_after = 10 * WITHDRAW_US;
        assert_eq!(fencing.next_voters(&topology, &voters, long_after), None, "of the last list nothing is known");
    }

    #[test]
    fn a_member_is_fenced_when_most_votes_are_withdrawn_from_its_support() {
        let mut topology = topology(3);
        for votes in [ids(&[1, 1, 2]), ids(&[1, 1, 2, 3]), ids(&[1, 2, 3])] {
            let config = topology.lease_voters.config;
            topology.apply(topology.version + 1, &TopologyChange::SetLeaseVoters { config, votes });
        }
        let mut fencing = Fencing::default();
        let support = topology.nodes[&NodeId(3)].support;
        let report = |support| LeaseReport { config: 0, withdrawn: vec![(NodeId(3), support)] };
        fencing.heard(NodeId(1), report(support));
        assert_eq!(fencing.fences(&topology, 7), []);
        fencing.heard(NodeId(2), report(support - 1));
        assert_eq!(fencing.fences(&topology, 7), [], "it has raised that one");
        fencing.heard(NodeId(2), report(support));
        assert_eq!(fencing.fences(&topology, 7), [topology.fence_of(NodeId(3), 7).expect("a member")]);
        topology.apply(topology.version + 1, &topology.fence_of(NodeId(3), 7).expect("a member"));
        assert_eq!(fencing.fences(&topology, 7), []);
    }
}
