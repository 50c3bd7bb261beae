//! Who may have a lease, as far as it is agreed: the voters' list, fences, and supports that are raised.

use super::change::{Refused, TopologyChange};
use super::state::{EventKind, NodeState, Phase, SlotRecord, Topology};
use crate::base::identity::{Incarnation, NodeId};
use crate::base::slot::Slot;
use crate::base::slot_ranges::SlotRanges;
use serde::{Deserialize, Serialize};

/// Who supports leases.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LeaseVoters {
    /// The number of this list: the index of the change that gave it.
    pub config: u64,
    /// One entry for each vote, sorted. A node may have two, while others come or go.
    pub votes: Vec<NodeId>,
}

impl LeaseVoters {
    /// The first member of a cluster supports its own lease. Two votes: one more or less does not change who decides.
    pub(super) fn begin(&mut self, first: NodeId, index: u64) {
        if self.votes.is_empty() {
            *self = LeaseVoters::alone(first, index);
        }
    }

    /// One member that supports leases, by the list of that number.
    pub(super) fn alone(voter: NodeId, index: u64) -> LeaseVoters {
        LeaseVoters { config: index, votes: vec![voter, voter] }
    }

    /// Whether those of whom this holds have most of the votes.
    pub fn has_majority(&self, holds: impl Fn(&NodeId) -> bool) -> bool {
        let votes = self.votes.iter().filter(|voter| holds(voter)).count();
        votes * 2 > self.votes.len()
    }

    /// Whether a list has one vote more or less.
    fn is_beside(&self, votes: &[NodeId]) -> bool {
        let (longer, shorter) =
            if votes.len() > self.votes.len() { (votes, &self.votes[..]) } else { (&self.votes[..], votes) };
        let mut rest = longer.to_vec();
        let is_within = shorter.iter().all(|voter| match rest.iter().position(|other| other == voter) {
            Some(at) => {
                rest.remove(at);
                true
            }
            None => false,
        });
        is_within && rest.len() == 1 && !shorter.is_empty() && votes.is_sorted()
    }
}

impl Topology {
    /// What fences a member as it is now; to be proposed only when a majority of the lease voters has given it up. `at_ms`: now,
    /// ms since 1970.
    pub fn fence_of(&self, id: NodeId, at_ms: u64) -> Option<TopologyChange> {
        let node = self.nodes.get(&id)?;
        let (incarnation, support, config) = (node.incarnation, node.support, self.lease_voters.config);
        Some(TopologyChange::FenceNode { node: id, incarnation, support, config, at_ms })
    }

    /// What asks for the next support of a member as it is now.
    pub fn raise_of(&self, id: NodeId) -> Option<TopologyChange> {
        let node = self.nodes.get(&id)?;
        Some(TopologyChange::RaiseSupport { node: id, incarnation: node.incarnation, support: node.support })
    }

    pub(super) fn fence(
        &mut self,
        id: NodeId,
        incarnation: Incarnation,
        (support, config): (u64, u64),
        at_ms: u64,
    ) -> Result<(), Refused> {
        self.current(id, incarnation)?;
        if config != self.lease_voters.config {
            return Err(Refused::OtherNumber);
        }
        let node = self.nodes.get_mut(&id).ok_or(Refused::UnknownNode)?;
        if node.support != support {
            return Err(Refused::OtherNumber);
        }
        if std::mem::replace(&mut node.state, NodeState::Down) == NodeState::Down {
            return Err(Refused::NoChange);
        }
        self.record(EventKind::NodeDown, Some(id), SlotRanges::default());
        self.begin_probation(id, at_ms);
        Ok(())
    }

    pub(super) fn raise_support(&mut self, id: NodeId, incarnation: Incarnation, support: u64) -> Result<(), Refused> {
        self.current(id, incarnation)?;
        let version = self.version;
        let node = self.nodes.get_mut(&id).ok_or(Refused::UnknownNode)?;
        if node.support != support {
            return Err(Refused::OtherNumber);
        }
        node.support = version;
        if std::mem::replace(&mut node.state, NodeState::Active) == NodeState::Down {
            self.wake(id);
            self.record(EventKind::NodeJoined, Some(id), SlotRanges::default());
        }
        Ok(())
    }

    pub(super) fn set_lease_voters(&mut self, config: u64, votes: &[NodeId]) -> Result<(), Refused> {
        if config != self.lease_voters.config || !self.lease_voters.is_beside(votes) {
            return Err(Refused::OtherNumber);
        }
        if votes.iter().any(|voter| !self.nodes.contains_key(voter) && !self.lease_voters.votes.contains(voter)) {
            return Err(Refused::UnknownNode);
        }
        self.lease_voters = LeaseVoters { config: self.version, votes: votes.to_vec() };
        Ok(())
    }

    /// The node was alive all the time, and nobody else has served what it owns.
    fn wake(&mut self, id: NodeId) {
        let mut woken = SlotRanges::default();
        for slot in Slot::all() {
            let SlotRecord { primary, phase, .. } = *self.slot(slot);
            if primary != Some(id) {
                continue;
            }
            // Those too that nobody had marked yet: they have changed.
            self.set_phase(slot, if phase == Phase::Dead { Phase::Normal } else { phase });
            if phase == Phase::Dead {
                woken.extend([slot]);
            }
        }
        if !woken.is_empty() {
            self.record(EventKind::SlotsRevived, Some(id), woken);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_beside_each_other_differ_by_one_vote() {
        let list = |votes: &[u128]| -> Vec<NodeId> { votes.iter().copied().map(NodeId).collect() };
        let check = |one: &[u128], other: &[u128], expected| {
            let voters = LeaseVoters { config: 1, votes: list(one) };
            assert_eq!(voters.is_beside(&list(other)), expected, "{one:?} and {other:?}");
        };
        check(&[1, 1], &[1, 1, 2], true);
        check(&[1, 1, 2], &[1, 1], true);
        check(&[1, 1, 2, 3], &[1, 2, 3], true);
        check(&[1, 2, 3], &[1, 2, 2, 3], true);
        check(&[1, 1], &[1, 2], false);
        check(&[1, 2, 3], &[1, 2, 3], false);
        check(&[1, 2, 3], &[1, 2, 4, 5], false);
        check(&[1], &[], false);
        check(&[1, 2], &[2, 1, 3], false);
    }
}
