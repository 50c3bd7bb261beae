//! Where nodes are that have moved: the newest that was heard.
//!
//! A node may come back at another address. Everybody learns that from the topology, but the topology is agreed over links,
//! and links need addresses: where the voters themselves have moved nothing could be agreed any more. So an address counts
//! as soon as it is heard: from the node itself, from gossip, or passed on by others. What is heard is only where to try:
//! a link makes sure of the node's id.

use super::state::{Node, Topology};
use crate::base::identity::NodeId;
use crate::transport::Peer;
use crate::transport::messages::Whereabouts;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Nodes that are remembered here; those that have registered where they are need no place.
const PLACES_MAX: usize = 1024;
/// Passed on in one heartbeat.
pub(super) const MOVED_MAX: usize = 64;

/// The addresses that are newer than the topology's.
#[derive(Debug, Default)]
pub(super) struct Places {
    heard: Mutex<BTreeMap<NodeId, Whereabouts>>,
}

impl Places {
    /// Keeps what was heard, where it is news. Whether it is.
    pub(super) fn learn(&self, topology: &Topology, one: Whereabouts) -> bool {
        let is_newer = |start_ms: u64| one.start_ms > start_ms;
        if topology.nodes.get(&one.node).is_some_and(|node| !is_newer(node.start_ms)) {
            return false;
        }
        let mut heard = self.heard.lock();
        if heard.get(&one.node).is_some_and(|known| !is_newer(known.start_ms)) {
            return false;
        }
        heard.retain(|_, known| topology.nodes.get(&known.node).is_none_or(|node| node.start_ms < known.start_ms));
        if heard.len() >= PLACES_MAX && !heard.contains_key(&one.node) {
            return false;
        }
        heard.insert(one.node, one);
        true
    }

    /// Where a node is: what is newest.
    pub(super) fn address(&self, topology: &Topology, node: NodeId) -> Option<SocketAddr> {
        let agreed = topology.nodes.get(&node);
        match self.heard.lock().get(&node) {
            Some(heard) if agreed.is_none_or(|node| node.start_ms < heard.start_ms) => Some(heard.address),
            _ => agreed.map(registered),
        }
    }

    /// What the topology does not know yet.
    pub(super) fn moved(&self, topology: &Topology) -> Vec<Whereabouts> {
        let heard = self.heard.lock();
        let is_news =
            |one: &&Whereabouts| topology.nodes.get(&one.node).is_none_or(|node| node.start_ms < one.start_ms);
        heard.values().filter(is_news).take(MOVED_MAX).copied().collect()
    }
}

fn registered(node: &Node) -> SocketAddr {
    SocketAddr::new(node.ip, node.cluster_port)
}

/// Takes a few of many in turn, so that each comes up, however many there are.
#[derive(Debug, Default)]
pub(super) struct Rota {
    last: Option<Peer>,
}

impl Rota {
    /// The next of these, `count` at most.
    pub(super) fn next(&mut self, mut peers: Vec<Peer>, count: usize) -> Vec<Peer> {
        peers.sort_unstable();
        peers.dedup();
        let from = peers.partition_point(|peer| Some(*peer) <= self.last);
        peers.rotate_left(from);
        peers.truncate(count);
        self.last = peers.last().copied();
        peers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(node: u128, start_ms: u64, port: u16) -> Whereabouts {
        Whereabouts { node: NodeId(node), start_ms, address: ([127, 0, 0, 1], port).into() }
    }

    #[test]
    fn the_latest_life_says_where_a_node_is() {
        let (places, topology) = (Places::default(), Topology::default());
        let port = |node| places.address(&topology, NodeId(node)).map(|address| address.port());
        assert_eq!(port(1), None);
        assert!(places.learn(&topology, at(1, 10, 7)));
        assert!(!places.learn(&topology, at(1, 9, 6)), "an earlier life");
        assert!(!places.learn(&topology, at(1, 10, 7)), "no news");
        assert_eq!(port(1), Some(7));
        assert!(places.learn(&topology, at(1, 11, 8)));
        assert_eq!(port(1), Some(8));
        assert_eq!(places.moved(&topology), [at(1, 11, 8)]);
    }

    #[test]
    fn everybody_is_asked_in_turn() {
        let peer = |port| Peer { node: None, address: ([127, 0, 0, 1], port).into() };
        let all: Vec<Peer> = [3, 1, 2, 5, 4].map(peer).to_vec();
        let mut rota = Rota::default();
        assert_eq!(rota.next(all.clone(), 2), [1, 2].map(peer));
        assert_eq!(rota.next(all.clone(), 2), [3, 4].map(peer));
        assert_eq!(rota.next(all.clone(), 2), [5, 1].map(peer));
        // Who comes and goes does not disturb the order of the others.
        assert_eq!(rota.next(vec![peer(1), peer(4)], 2), [4, 1].map(peer));
        assert_eq!(rota.next(Vec::new(), 2), []);
        assert_eq!(rota.next(vec![peer(9)], 2), [9].map(peer));
    }
}
