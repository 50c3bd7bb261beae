//! From the agreed topology to the routing view of one node. Pure.

use super::routing::{
    CopyList, PreferredEndpoint, RoutingError, RoutingNode, RoutingParts, RoutingView, Service, SlotPlace,
};
use super::topology::slot_records::Slots;
use super::topology::{Copies, NodeState, Phase, SlotRecord, Topology};
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
/// `former`: the view before, of this node in the same life with the same options, and what it was made from.
///
/// # Errors
/// See [`RoutingError`]; the topology's state machine allows none of them but too many nodes.
pub fn routing_view(
    topology: &Topology,
    this_node: NodeId,
    incarnation: Option<Incarnation>,
    options: ViewOptions,
    former: Option<(&Topology, &RoutingView)>,
) -> Result<RoutingView, RoutingError> {
    let current = is_current(topology, this_node, incarnation);
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
        service: Service::All,
    };
    let mut shown = ShownCopies { topology, last: Default::default() };
    let place = |slot: Slot| {
        let record = topology.slot(slot);
        let primary =
            record.primary.filter(|primary| record.phase != Phase::Dead && (*primary != this_node || current));
        // Both ends keep requests until the hand-off is committed or off.
        let handing_off = match record.phase {
            Phase::HandingOff { to, .. } => primary == Some(this_node) || (current && to == this_node),
            Phase::Electing => topology.has_candidate(record),
            _ => false,
        };
        SlotPlace { primary, copies: shown.of(record), last_owner: last_owner(topology, record), handing_off }
    };
    let view = match former {
        // Whether this life is meant decides about all slots of the node, and who is up about the copies of all slots.
        Some((before, view))
            if is_current(before, this_node, incarnation) == current && shows_copies_alike(before, topology) =>
        {
            let changed = topology.slots().changed_since(before.slots());
            view.followed_by(parts, changed.flat_map(Slots::iter), place)?
        }
        _ => RoutingView::new(parts, place)?,
    };
    let service = match (options.require_full_coverage && !view.is_covered(), options.allow_reads_when_down) {
        (false, _) => Service::All,
        (true, true) => Service::Reads,
        (true, false) => Service::Nothing,
    };
    Ok(view.with_service(service))
}

/// Who is shown as the owner of a slot that nobody serves: its primary that is down; of one that is being elected, a copy that
/// may be the next, for clients that want every slot to have an owner.
fn last_owner(topology: &Topology, record: &SlotRecord) -> Option<NodeId> {
    record.primary.or_else(|| topology.candidates(record).map(|copy| copy.node).next())
}

/// What clients are shown of the copies of slots, one slot after the other.
struct ShownCopies<'a> {
    topology: &'a Topology,
    /// The slot before: neighbours mostly have the same copies.
    last: (Copies, CopyList),
}

impl ShownCopies<'_> {
    /// Who has everything, and is up. By id: the order in which copies came means nothing, and would make ranges shorter.
    fn of(&mut self, record: &SlotRecord) -> CopyList {
        if record.copies.is_empty() {
            return CopyList::new();
        }
        if self.last.0 != record.copies {
            let up = |node: NodeId| self.topology.nodes.get(&node).is_some_and(|node| node.state == NodeState::Active);
            let survivors = self.topology.survivors(record).map(|copy| copy.node);
            let mut shown: CopyList = survivors.filter(|node| up(*node)).collect();
            shown.sort_unstable();
            self.last = (record.copies.clone(), shown);
        }
        self.last.1.iter().copied().filter(|node| record.primary != Some(*node)).collect()
    }
}

/// Whether records that are the same show the same copies in both: their nodes are as they were, or there are no copies.
fn shows_copies_alike(before: &Topology, after: &Topology) -> bool {
    let lives = |topology: &Topology| {
        let life = |node: &super::topology::Node| (node.id, node.incarnation, node.state);
        topology.nodes.values().map(life).collect::<Vec<_>>()
    };
    let has_copies = |topology: &Topology| topology.slots().iter().any(|record| !record.copies.is_empty());
    lives(before) == lives(after) || !(has_copies(before) || has_copies(after))
}

#[cfg(test)]
mod tests;
