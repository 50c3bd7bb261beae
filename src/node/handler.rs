//! What this node answers to other nodes: each request goes to the part that it is for.

use super::lease::Leases;
use crate::base::identity::ClusterId;
use crate::cluster::forming::{Forming, JoinAnswer, Welcome};
use crate::cluster::topology::raft::{Consensus, RaftTopology};
use crate::moves::Moves;
use crate::transport::{Handler, Refusal, Request, Response, Sender};
use async_trait::async_trait;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

/// Members that a new node is told of.
const WELCOME_MEMBERS_MAX: usize = 64;

/// The parts that answer; those that are missing have not started yet.
pub(super) struct NodeHandler {
    pub(super) forming: Forming,
    pub(super) topology: OnceLock<RaftTopology>,
    pub(super) moves: OnceLock<Moves>,
    pub(super) leases: OnceLock<Arc<Leases>>,
}

impl NodeHandler {
    pub(super) fn new(forming: Forming) -> Arc<NodeHandler> {
        Arc::new(NodeHandler { forming, topology: OnceLock::new(), moves: OnceLock::new(), leases: OnceLock::new() })
    }

    /// What lets another node in, once this one is a member itself.
    fn welcome(&self) -> Option<Welcome> {
        let raft = self.topology.get()?;
        let topology = raft.published().current();
        let cluster: ClusterId = topology.cluster?;
        let own = self.forming.own().address;
        let voters = raft.group().voters.into_iter().map(|voter| voter.address);
        let nodes = topology.nodes.values().map(|node| SocketAddr::new(node.ip, node.cluster_port));
        let mut members: Vec<SocketAddr> = Vec::new();
        for address in std::iter::once(own).chain(voters).chain(nodes) {
            if !members.contains(&address) && members.len() < WELCOME_MEMBERS_MAX {
                members.push(address);
            }
        }
        Some(Welcome { cluster, generation: topology.generation, hash_key: topology.hash_key, members })
    }
}

#[async_trait]
impl Handler for NodeHandler {
    fn admit(&self, sender: &Sender) -> Result<(), Refusal> {
        let Some(raft) = self.topology.get() else { return Ok(()) };
        let topology = raft.published().current();
        let known = topology.nodes.get(&sender.node).map(|node| node.incarnation);
        // 0: it has not registered in this life, and does so over this link.
        match known {
            Some(known) if sender.incarnation.0 != 0 && sender.incarnation < known => Err(Refusal::StaleIncarnation),
            _ => Ok(()),
        }
    }

    async fn handle(&self, sender: &Sender, request: Request) -> Response {
        let starting = || Response::Failed("the node is starting".into());
        match request {
            Request::Join(blob) => match self.welcome() {
                Some(welcome) => Response::Join(JoinAnswer::Welcome(welcome).encode()),
                None => self.forming.answer(&blob),
            },
            Request::Copy(blob) => match self.moves.get() {
                Some(moves) => moves.answer(sender, &blob).await,
                None => starting(),
            },
            Request::Beat(beat) => match self.leases.get() {
                Some(leases) => leases.answer(sender, &beat),
                None => starting(),
            },
            request => match self.topology.get() {
                Some(raft) => {
                    raft.answer(sender, request).await.unwrap_or_else(|_| Response::Failed("not served".into()))
                }
                None => starting(),
            },
        }
    }
}
