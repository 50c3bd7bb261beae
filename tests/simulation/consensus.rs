//! Agreement, abstracted: one log, to which a change is added when a majority of the voters can talk to each other.
//!
//! What is left out is how Raft gets there (openraft has its own tests). What is kept is what the rest of the cluster can
//! see of it: changes are agreed in one order, every node knows some prefix of it, late and unevenly, a minority learns
//! nothing new, and a proposal may be lost, come twice, or be agreed without its proposer hearing so.

use crate::node::node_id;
use starling::base::identity::NodeId;
use starling::cluster::topology::TopologyChange;
use std::collections::BTreeSet;

/// Who votes at first.
const FIRST_VOTERS: [usize; 3] = [0, 1, 2];

pub(crate) struct Consensus {
    log: Vec<TopologyChange>,
    /// Who votes: a node that has lost its disk is another one, which does not.
    voters: BTreeSet<NodeId>,
}

impl Consensus {
    pub(crate) fn new() -> Consensus {
        Consensus { log: Vec::new(), voters: FIRST_VOTERS.into_iter().map(|number| node_id(number, 0)).collect() }
    }

    pub(crate) fn voters(&self) -> &BTreeSet<NodeId> {
        &self.voters
    }

    /// Others vote from now on. A majority of those before and of these have agreed on it.
    pub(crate) fn change_voters(&mut self, voters: BTreeSet<NodeId>) {
        self.voters = voters;
    }

    /// How many changes are agreed. The first has index 1.
    pub(crate) fn length(&self) -> u64 {
        self.log.len() as u64
    }

    /// The next agreed change. Its index.
    pub(crate) fn add(&mut self, change: TopologyChange) -> u64 {
        self.log.push(change);
        self.length()
    }

    /// The changes after this index, up to and with that one, with their indices.
    pub(crate) fn entries(&self, after: u64, to: u64) -> Vec<(u64, TopologyChange)> {
        let entries = (after + 1..=to.min(self.length())).map(|index| (index, &self.log[index as usize - 1]));
        entries.map(|(index, change)| (index, change.clone())).collect()
    }
}

/// Whether so many of the voters are most of them.
pub(crate) fn is_majority(of_them: usize, voters: usize) -> bool {
    of_them * 2 > voters
}
