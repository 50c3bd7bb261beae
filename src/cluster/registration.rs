//! How a life of a node comes into the topology and stays in it, decided without a network or a clock.
//!
//! ```text
//!   not in the topology, or another life is    RegisterNode, and wait for the version that shows it
//!   refused, unknown                           again, after a pause that doubles
//!   the topology has it at another address,    waits until that life is fenced
//!   and not down
//! ```
//!
//! A life at another address may still hold a lease: registered beside it, this one would take its slots away from it (PROTOCOL, a
//! cloned directory). If it has ended it is fenced in a moment, for nobody hears it; if it goes on this one never registers. At
//! the same address there is no other. Where the other voters cannot fence it, as in a cluster of one, nobody waits.
//!
//! A registration whose outcome is unknown may be committed at any later time: the same start said twice changes nothing,
//! a later life refuses it, and nothing is served before the topology shows it. Where another member is said to be at its address, that
//! one has no lease for long: it is fenced in a moment, and then its address is free.

use super::topology::{Node, NodeState, Topology};
use super::view::is_current;
use crate::base::identity::Incarnation;

/// Between registrations: doubled with every failure in a row, up to the last.
const PAUSE_MIN_US: u64 = 200_000;
const PAUSE_MAX_US: u64 = 5_000_000;

/// What this node has heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// There may be a newer topology, or time has passed.
    Look,
    /// It is registered, in the topology of this version.
    Registered { incarnation: Incarnation, version: u64 },
    /// It was refused, or may be committed yet.
    Failed,
}

/// The registration of one life.
#[derive(Debug)]
pub struct Registration {
    node: Node,
    incarnation: Option<Incarnation>,
    /// Nothing is proposed before this version is known here.
    awaited: u64,
    is_proposing: bool,
    propose_at_us: u64,
    /// Registrations without success, in a row.
    failures: u32,
}

impl Registration {
    /// A life of which nobody knows.
    pub fn new(node: Node) -> Registration {
        Registration { node, incarnation: None, awaited: 0, is_proposing: false, propose_at_us: 0, failures: 0 }
    }

    /// This life, as it describes itself.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// What the topology calls this life, as far as it is known.
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.incarnation
    }

    /// Whether this life is to be registered now, after an event, by the newest topology; the outcome is the next event.
    pub fn on(&mut self, event: Event, topology: &Topology, now_us: u64) -> bool {
        match event {
            Event::Look => {}
            Event::Registered { incarnation, version } => {
                self.incarnation = Some(incarnation);
                self.awaited = version;
                self.failures = 0;
                self.pause(now_us);
            }
            Event::Failed => self.pause(now_us),
        }
        let registers = self.is_due(topology) && now_us >= self.propose_at_us;
        self.is_proposing |= registers;
        registers
    }

    /// When it wants to look again, if nothing else happens.
    pub fn wake_at_us(&self, topology: &Topology) -> Option<u64> {
        self.is_due(topology).then_some(self.propose_at_us)
    }

    fn is_due(&self, topology: &Topology) -> bool {
        let is_registered = is_current(topology, self.node.id, self.incarnation);
        !self.is_proposing && topology.version >= self.awaited && !is_registered && !self.is_elsewhere(topology)
    }

    /// Whether a life of this node at another address may have a lease, and the others can take it away.
    pub fn is_elsewhere(&self, topology: &Topology) -> bool {
        let own = &self.node;
        let other = topology.nodes.get(&own.id).filter(|other| other.state == NodeState::Active);
        let is_other = other.is_some_and(|other| (other.ip, other.cluster_port) != (own.ip, own.cluster_port));
        is_other && topology.lease_voters.has_majority(|voter| *voter != own.id)
    }

    fn pause(&mut self, now_us: u64) {
        self.is_proposing = false;
        self.propose_at_us = now_us + (PAUSE_MIN_US << self.failures.min(10)).min(PAUSE_MAX_US);
        self.failures += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::identity::{ClusterId, NodeId};
    use crate::cluster::topology::{TopologyChange, sample};

    fn node(id: u128, start_ms: u64) -> Node {
        Node { port: 6379, cluster_port: 16379, start_ms, ..sample::node(NodeId(id)) }
    }

    fn cluster() -> Topology {
        let mut topology = Topology::default();
        topology.apply(1, &TopologyChange::InitCluster { cluster: ClusterId(1), hash_key: 1 });
        topology
    }

    #[test]
    fn pauses_double_up_to_a_bound_while_nobody_agrees() {
        let (topology, mut now_us, mut pauses) = (cluster(), 0, Vec::new());
        let mut registration = Registration::new(node(1, 10));
        for _ in 0..8 {
            assert!(registration.on(Event::Look, &topology, now_us));
            assert!(!registration.on(Event::Look, &topology, now_us), "one at a time");
            assert!(!registration.on(Event::Failed, &topology, now_us));
            let at_us = registration.wake_at_us(&topology).expect("it tries again");
            pauses.push((at_us - now_us) / 1000);
            now_us = at_us;
        }
        assert_eq!(pauses, [200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
    }

    #[test]
    fn it_waits_until_a_life_at_another_address_is_fenced() {
        let mut topology = cluster();
        let at = |cluster_port, node: Node| Node { cluster_port, ..node };
        let mut registration = Registration::new(at(20_000, node(2, 20)));
        topology.apply(2, &TopologyChange::RegisterNode { node: node(1, 10) });
        topology.apply(3, &TopologyChange::RegisterNode { node: at(17_000, node(2, 10)) });
        assert!(!registration.on(Event::Look, &topology, 0), "it may answer there");
        assert_eq!(registration.wake_at_us(&topology), None, "until the topology changes");
        let mut same_address = Registration::new(at(17_000, node(2, 20)));
        assert!(same_address.on(Event::Look, &topology, 0), "there is one process at one address");
        let mut only_voter = Registration::new(at(20_000, node(1, 20)));
        assert!(only_voter.on(Event::Look, &topology, 0), "nobody else could fence it");
        let fence = topology.fence_of(NodeId(2), 0).expect("a member");
        topology.apply(4, &fence);
        assert!(registration.on(Event::Look, &topology, 1));
    }

    #[test]
    fn it_registers_once_and_again_when_the_topology_means_another_life() {
        let mut topology = cluster();
        let mut registration = Registration::new(node(1, 10));
        assert!(registration.on(Event::Look, &topology, 0));
        let registered = Event::Registered { incarnation: Incarnation(1), version: 2 };
        assert!(!registration.on(registered, &topology, 0));
        assert_eq!(registration.wake_at_us(&topology), None, "not before that version is known");
        topology.apply(2, &TopologyChange::RegisterNode { node: node(1, 10) });
        assert!(!registration.on(Event::Look, &topology, 10_000_000));
        let support = topology.nodes[&NodeId(1)].support;
        let config = topology.lease_voters.config;
        topology.apply(
            3,
            &TopologyChange::FenceNode { node: NodeId(1), incarnation: Incarnation(1), support, config, at_ms: 0 },
        );
        topology.apply(
            4,
            &TopologyChange::ForgetNode { node: NodeId(1), incarnation: Incarnation(1), decided_by: u64::MAX },
        );
        assert!(registration.on(Event::Look, &topology, 10_000_000));
    }
}
