//! The topology as this node's other parts see it, and the changes that others may still pull.
//!
//! A voter learns changes from raft, every other node by pulling. Both come here; the one that is further wins, and
//! because the state machine is deterministic, equal versions are equal topologies.

use super::change::TopologyChange;
use super::places::Places;
use super::state::Topology;
use crate::base::identity::NodeId;
use crate::transport::messages::Whereabouts;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::watch;

/// Changes that are kept for nodes that pull. Who is further behind gets the whole topology.
const CHANGES_MAX: usize = 1024;
/// Changes in one answer, so that it fits a frame: a change names at most 16384 ranges of slots, some 100 KB.
const CHANGES_PER_ANSWER_MAX: usize = 100;

/// What a node is sent that pulls.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum TopologyUpdate {
    /// Everything after this version, in order; or the first part of it.
    Changes { since: u64, changes: Vec<(u64, TopologyChange)> },
    /// All of it, because the changes are not kept that long.
    Whole(Box<Topology>),
}

/// Why an update was not taken. Nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UpdateError {
    Malformed,
    /// It begins later than this node's topology ends.
    Gap,
}

impl TopologyUpdate {
    /// Reads what another node sent.
    pub fn decode(bytes: &[u8]) -> Result<TopologyUpdate, UpdateError> {
        postcard::from_bytes(bytes).map_err(|_| UpdateError::Malformed)
    }

    pub fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("plain values are encoded")
    }
}

/// Publishes the newest topology.
#[derive(Debug)]
pub struct Published {
    /// Where nodes are that the topology knows elsewhere, or not at all.
    places: Places,
    sender: watch::Sender<Arc<Topology>>,
    history: Mutex<History>,
}

/// Invariant: `changes` are all those with `base < index <= version` of the published topology, ascending.
#[derive(Debug, Default)]
struct History {
    base: u64,
    changes: VecDeque<(u64, TopologyChange)>,
}

impl Default for Published {
    fn default() -> Published {
        Published { sender: watch::Sender::new(Arc::default()), history: Mutex::default(), places: Places::default() }
    }
}

impl Published {
    pub fn subscribe(&self) -> watch::Receiver<Arc<Topology>> {
        self.sender.subscribe()
    }

    pub fn current(&self) -> Arc<Topology> {
        Arc::clone(&self.sender.borrow())
    }

    /// Where a node's links are answered: as it registered last, or as was heard of it since.
    pub fn address(&self, node: NodeId) -> Option<SocketAddr> {
        self.places.address(&self.current(), node)
    }

    /// Somebody says where a node is. Whether that is news.
    pub(super) fn learn_place(&self, heard: Whereabouts) -> bool {
        self.places.learn(&self.current(), heard)
    }

    /// Nodes that are elsewhere than the topology says.
    pub(super) fn moved(&self) -> Vec<Whereabouts> {
        self.places.moved(&self.current())
    }

    /// Raft has applied these changes, and this is the topology now.
    pub(super) fn on_applied(&self, changes: Vec<(u64, TopologyChange)>, topology: &Topology) {
        let mut history = self.history.lock();
        let version = self.current().version;
        if topology.version > version {
            history.extend(changes.into_iter().filter(|(index, _)| *index > version));
            self.sender.send_replace(Arc::new(topology.clone()));
        }
    }

    /// The topology from somewhere that says nothing of changes: a raft snapshot.
    pub(super) fn on_whole(&self, topology: &Topology) {
        let mut history = self.history.lock();
        if topology.version > self.current().version {
            *history = History { base: topology.version, changes: VecDeque::new() };
            self.sender.send_replace(Arc::new(topology.clone()));
        }
    }

    /// Another node has sent what was missing.
    pub fn on_pulled(&self, update: TopologyUpdate) -> Result<(), UpdateError> {
        match update {
            TopologyUpdate::Whole(topology) => {
                self.on_whole(&topology);
                Ok(())
            }
            TopologyUpdate::Changes { since, changes } => self.on_pulled_changes(since, changes),
        }
    }

    fn on_pulled_changes(&self, since: u64, changes: Vec<(u64, TopologyChange)>) -> Result<(), UpdateError> {
        if !changes.is_sorted_by(|(a, _), (b, _)| a < b) {
            return Err(UpdateError::Malformed);
        }
        let mut history = self.history.lock();
        let mut topology = Topology::clone(&self.current());
        if since > topology.version {
            return Err(UpdateError::Gap);
        }
        let version = topology.version;
        let news: Vec<_> = changes.into_iter().filter(|(index, _)| *index > version).collect();
        if news.is_empty() {
            return Ok(());
        }
        for (index, change) in &news {
            topology.apply(*index, change);
        }
        history.extend(news);
        self.sender.send_replace(Arc::new(topology));
        Ok(())
    }

    /// What a node with this version lacks.
    pub fn update_since(&self, since: u64) -> TopologyUpdate {
        let history = self.history.lock();
        if since < history.base {
            return TopologyUpdate::Whole(Box::new(Topology::clone(&self.current())));
        }
        let from = history.changes.partition_point(|(index, _)| *index <= since);
        let changes = history.changes.range(from..).take(CHANGES_PER_ANSWER_MAX).cloned().collect();
        TopologyUpdate::Changes { since, changes }
    }
}

impl History {
    fn extend(&mut self, changes: impl IntoIterator<Item = (u64, TopologyChange)>) {
        self.changes.extend(changes);
        while self.changes.len() > CHANGES_MAX {
            if let Some((index, _)) = self.changes.pop_front() {
                self.base = index;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::identity::ClusterId;

    fn change(number: u64) -> TopologyChange {
        match number {
            1 => TopologyChange::InitCluster { cluster: ClusterId(1), hash_key: 5 },
            _ => TopologyChange::SetConfig { name: "name".into(), value: number.to_string() },
        }
    }

    /// A source that has applied this many changes.
    fn source(count: u64) -> Published {
        let (published, mut topology) = (Published::default(), Topology::default());
        for index in 1..=count {
            topology.apply(index, &change(index));
            published.on_applied(vec![(index, change(index))], &topology);
        }
        published
    }

    fn pull(from: &Published, to: &Published) -> usize {
        let mut rounds = 0;
        while to.current().version < from.current().version {
            let update = from.update_since(to.current().version).encode();
            to.on_pulled(TopologyUpdate::decode(&update).expect("well formed")).expect("no gap");
            rounds += 1;
        }
        assert_eq!(*to.current(), *from.current());
        rounds
    }

    #[test]
    fn who_pulls_arrives_at_the_same_topology() {
        let (from, to) = (source(50), Published::default());
        assert_eq!(pull(&from, &to), 1);
        // A node that has pulled serves others just as well.
        assert_eq!(pull(&to, &Published::default()), 1);
        assert_eq!(pull(&source(950), &to), 9);
    }

    #[test]
    fn who_is_far_behind_gets_all_of_it() {
        let (from, to) = (source(CHANGES_MAX as u64 + 10), Published::default());
        assert!(matches!(from.update_since(0), TopologyUpdate::Whole(_)));
        assert_eq!(pull(&from, &to), 1);
        assert!(matches!(to.update_since(3), TopologyUpdate::Whole(_)));
    }

    #[test]
    fn old_updates_change_nothing_and_gaps_are_noticed() {
        let (from, to) = (source(9), source(20));
        let before = to.current();
        to.on_pulled(from.update_since(0)).expect("old, not wrong");
        assert_eq!(before, to.current());
        let late = TopologyUpdate::Changes { since: 30, changes: vec![(31, change(31))] };
        assert_eq!(to.on_pulled(late), Err(UpdateError::Gap));
        let mixed = TopologyUpdate::Changes { since: 20, changes: vec![(22, change(2)), (21, change(3))] };
        assert_eq!(to.on_pulled(mixed), Err(UpdateError::Malformed));
        assert_eq!(TopologyUpdate::decode(&[1, 2, 3]), Err(UpdateError::Malformed));
    }
}
