//! From the agreed topology to the routing view of one node. Pure.

use super::routing::{PreferredEndpoint, RoutingError, RoutingNode, RoutingParts, RoutingView, Service, SlotPlace};
use super::topology::{Phase, Topology};
use crate::base::identity::{Incarnation, NodeId};
use crate::base::slot::Slot;

/// What a node's own settings say about its view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ViewOptions {
    pub preferred_endpoint: PreferredEndpoint,
    /// Serve nothing while a slot is served by nobody (`cluster-require-full-coverage`).
    pub require_full_coverage: bool,
    /// Then still serve reads (`cluster-allow-reads-when-down`).
    pub allow_reads_when_down: bool,
}

/// Whether the topology means this life of the node.
pub fn is_current(topology: &Topology, node: NodeId, incarnation: Option<Incarnation>) -> bool {
    incarnation.is_some() && topology.nodes.get(&node).map(|node| node.incarnation) == incarnation
}

/// The view of `this_node` in this life. What the topology gives to an earlier or later life of it is served by nobody.
///
/// # Errors
/// See [`RoutingError`]; the topology's state machine allows none of them but too many nodes.
pub fn routing_view(
    topology: &Topology,
    this_node: NodeId,
    incarnation: Option<Incarnation>,
    options: ViewOptions,
) -> Result<RoutingView, RoutingError> {
    let current = is_current(topology, this_node, incarnation);
    let served_by = |slot: Slot| {
        let record = topology.slot(slot);
        record.primary.filter(|primary| record.phase != Phase::Dead && (*primary != this_node || current))
    };
    let is_covered = || Slot::all().all(|slot| served_by(slot).is_some());
    let service = match (options.require_full_coverage && !is_covered(), options.allow_reads_when_down) {
        (false, _) => Service::All,
        (true, true) => Service::Reads,
        (true, false) => Service::Nothing,
    };
    let node = |node: &super::topology::Node| RoutingNode {
        id: node.id,
        ip: node.ip,
        port: node.port,
        hostname: node.hostname.clone(),
    };
    let parts = RoutingParts {
        version: topology.version,
        this_node,
        nodes: topology.nodes.values().map(node).collect(),
        preferred_endpoint: options.preferred_endpoint,
        service,
    };
    RoutingView::new(parts, |slot| {
        let primary = served_by(slot);
        // Both ends keep requests until the hand-off is committed or off.
        let handing_off = match topology.slot(slot).phase {
            Phase::HandingOff { to, .. } => primary == Some(this_node) || (current && to == this_node),
            _ => false,
        };
        SlotPlace { primary, copies: &[], last_owner: topology.slot(slot).primary, handing_off }
    })
}
