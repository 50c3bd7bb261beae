//! What happens in the cluster, in this node's log: what is agreed, and what gossip hears.

use crate::cluster::membership::{MemberIdentity, MembershipEvent};
use crate::cluster::topology::Topology;
use crate::cluster::topology::raft::RaftTopology;
use crate::cluster::topology::state::{Event, EventKind};
use crate::transport::messages::Whereabouts;
use tokio::sync::mpsc;

/// What was agreed after that version.
pub(super) fn log_events(topology: &Topology, after: u64) {
    let newer = topology.events.partition_point(|event| event.id <= after);
    for event in topology.events.range(newer..) {
        let Event { id, kind, node, slots } = event.as_ref();
        let node = node.map(|node| node.to_string()).unwrap_or_default();
        match kind {
            EventKind::SlotsDead
            | EventKind::SlotsGivenUp
            | EventKind::NodeDown
            | EventKind::ProbationBegun
            | EventKind::GenerationBegun => {
                tracing::warn!(id, ?kind, node, slots = %slots, "cluster");
            }
            EventKind::MoveBegun | EventKind::MoveDone => tracing::debug!(id, ?kind, node, slots = %slots, "cluster"),
            _ => tracing::info!(id, ?kind, node, slots = %slots, "cluster"),
        }
    }
}

/// Listens to gossip: a newer topology is fetched at once, the rest is for the log.
pub(super) async fn hear(mut events: mpsc::Receiver<MembershipEvent>, raft: RaftTopology) {
    while let Some(event) = events.recv().await {
        // Before the topology knows, gossip does.
        if let MembershipEvent::MemberUp(member) | MembershipEvent::MemberRestarted { member, .. } = &event {
            let MemberIdentity { node, address, life, .. } = *member;
            raft.learn_place(Whereabouts { node, start_ms: life.start_ms, address });
        }
        match event {
            MembershipEvent::TopologyVersionSeen { version, .. } => raft.hint(version),
            MembershipEvent::Rejected { reason, from, count } => {
                tracing::warn!(peer = %from, %reason, times = count, "gossip was dropped");
            }
            MembershipEvent::MemberUp(member) => tracing::info!(node = %member.node, at = %member.address, "heard of"),
            MembershipEvent::MemberDown(member) => tracing::warn!(node = %member.node, "does not answer any more"),
            MembershipEvent::MemberSuspected(member) => tracing::info!(node = %member.node, "does not answer"),
            other => tracing::debug!(?other, "gossip"),
        }
    }
}
