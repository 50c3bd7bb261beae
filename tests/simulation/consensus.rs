//! Agreement, abstracted: one log, to which a change is added when a majority of the voters can talk to each other.
//!
//! What is left out is how Raft gets there (openraft has its own tests). What is kept is what the rest of the cluster can
//! see of it: changes are agreed in one order, every node knows some prefix of it, late and unevenly, a minority learns
//! nothing new, and a proposal may be lost, come twice, or be agreed without its proposer hearing so.

use starling::cluster::topology::TopologyChange;

/// The voters: always these, which changes nothing for those who follow.
pub(crate) const VOTERS: [usize; 3] = [0, 1, 2];

#[derive(Default)]
pub(crate) struct Consensus {
    log: Vec<TopologyChange>,
}

impl Consensus {
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

/// A voter that can talk to a majority, itself included.
pub(crate) fn leader(can_talk: impl Fn(usize, usize) -> bool) -> Option<usize> {
    VOTERS.into_iter().find(|&voter| {
        let reached = VOTERS.iter().filter(|&&other| can_talk(voter, other)).count();
        reached * 2 > VOTERS.len()
    })
}
