//! Where a request belongs: here, on another node, or nowhere. Pure: a look at an immutable view of the slot table.
//!
//! ```text
//!  Topology --(every new version)--> RoutingView, shared as Arc --> route(slots of the request's keys) --> Route
//! ```
//!
//! The answers are Redis Cluster's (specification, "MOVED Redirection", "Multiple keys operations"), and so is their order.
//! There is no ASK: a slot changes hands in one committed step, so a connection's ASKING is accepted and has nothing to
//! change. What a client may read at copies (READONLY) is asked after it is known that the primary is another node.

mod building;

use crate::base::identity::NodeId;
use crate::base::slot::{SLOT_COUNT, Slot};
use crate::base::slot_ranges::SlotRanges;
use building::Building;
use smallvec::SmallVec;
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

/// Nodes a view can hold; the greatest number is kept for "nobody".
pub const NODES_MAX: usize = NOBODY as usize;

/// In the table: no node owns the slot.
const NOBODY: u16 = u16::MAX;

/// A node, by its place in one view. It means nothing in another view.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeIndex(u16);

/// A node as clients are told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutingNode {
    pub id: NodeId,
    pub ip: IpAddr,
    /// Where clients connect.
    pub port: u16,
    /// Empty: it announces none.
    pub hostname: String,
}

/// What clients are told to connect to (`cluster-preferred-endpoint-type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PreferredEndpoint {
    #[default]
    Ip,
    Hostname,
    /// Whatever they connected to already, with another port (`unknown-endpoint`).
    Unknown,
}

/// What the cluster as a whole lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Service {
    /// Every slot that has an owner.
    #[default]
    All,
    /// Only commands that do not write (`cluster-allow-reads-when-down`).
    Reads,
    /// Only commands without keys.
    Nothing,
}

/// Nodes that have copies of one slot.
pub type CopyList = SmallVec<[NodeId; 4]>;

/// Where one slot is: what a view is made from.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SlotPlace {
    /// `None`: nobody serves the slot.
    pub primary: Option<NodeId>,
    /// Who else has it. Neighbouring slots share a range only where they have the same copies in the same order.
    pub copies: CopyList,
    /// Of a slot that nobody serves: who was the last to. Clients that want every slot to have an owner are still shown it.
    pub last_owner: Option<NodeId>,
    /// This node is one end of a hand-off that is being committed, or a copy is being elected that will be the primary in a
    /// moment: it answers no request until that is done or off.
    pub handing_off: bool,
}

/// The parts of a view besides the slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutingParts {
    /// Of the topology that the view shows.
    pub version: u64,
    /// The node that asks. It need not be in `nodes`: until it is registered nothing is local.
    pub this_node: NodeId,
    /// In any order.
    pub nodes: Vec<RoutingNode>,
    pub preferred_endpoint: PreferredEndpoint,
    pub service: Service,
}

/// Why no view can be made. The caller keeps the one it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoutingError {
    /// There are more than [`NODES_MAX`] nodes.
    TooManyNodes(usize),
    /// Two of the nodes have this id.
    NodeListedTwice(NodeId),
    /// A slot is said to be with a node that is not among the nodes.
    UnknownOwner(Slot, NodeId),
}

impl fmt::Display for RoutingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RoutingError::TooManyNodes(count) => write!(f, "{count} nodes are more than a view can hold"),
            RoutingError::NodeListedTwice(node) => write!(f, "two nodes are called {node}"),
            RoutingError::UnknownOwner(slot, node) => write!(f, "slot {slot} is with an unknown node, {node}"),
        }
    }
}

impl std::error::Error for RoutingError {}

/// Consecutive slots with the same owners in the same order; one entry of CLUSTER SLOTS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnedRange<'a> {
    pub first: Slot,
    /// Included.
    pub last: Slot,
    /// The primary first. Never empty: slots without a primary are in no range.
    pub owners: &'a [NodeIndex],
}

impl OwnedRange<'_> {
    /// How many slots it has.
    pub fn slot_count(&self) -> usize {
        self.last.index() - self.first.index() + 1
    }
}

/// What a request is, as far as routing cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RequestTraits {
    /// It may change keys. For EXEC: one of the queued commands may.
    pub write: bool,
}

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Execute it here.
    Local,
    /// The slot is about to leave this node, or to come to it: keep the request until the view has changed, then ask
    /// again.
    Wait(Slot),
    /// Answer -MOVED; not executed. [`RoutingView::address`] has the text.
    Moved { slot: Slot, node: NodeIndex },
    /// Answer -CROSSSLOT; not executed.
    CrossSlot,
    /// Answer -CLUSTERDOWN; not executed.
    Down(DownReason),
}

/// Why nobody serves a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DownReason {
    /// The slot has no owner.
    Unserved,
    /// The cluster serves no keys.
    Cluster,
    /// The cluster serves reads, and this is none.
    ReadsOnly,
}

/// Decides about a request by the slots of all its keys, in the order of the keys; repeated slots are fine.
///
/// Redis looks at the first key's owner before it compares the slots, and at the state of the cluster after both; a
/// client sees which error comes first, so the order here is the same. Requests without keys are always local.
pub fn route(slots: &[Slot], view: &RoutingView, request: RequestTraits) -> Route {
    let Some((&slot, others)) = slots.split_first() else { return Route::Local };
    let primary = view.primaries[slot.index()];
    let waits = view.this_node.is_some() && view.handing_off.contains(slot);
    if primary == NOBODY && !waits {
        return Route::Down(DownReason::Unserved);
    }
    if others.iter().any(|&other| other != slot) {
        return Route::CrossSlot;
    }
    if let Some(reason) = view.service.down(request) {
        return Route::Down(reason);
    }
    if waits {
        return Route::Wait(slot);
    }
    if view.this_node == Some(NodeIndex(primary)) {
        return Route::Local;
    }
    Route::Moved { slot, node: NodeIndex(primary) }
}

/// Why a request that concerns every slot cannot be executed; `None`: all slots are served.
pub fn down_for_all(view: &RoutingView, request: RequestTraits) -> Option<DownReason> {
    if view.is_covered() { view.service.down(request) } else { Some(DownReason::Unserved) }
}

impl Service {
    /// Why the cluster as a whole lets a request with keys not through.
    fn down(self, request: RequestTraits) -> Option<DownReason> {
        match self {
            Service::All => None,
            Service::Reads if !request.write => None,
            Service::Reads => Some(DownReason::ReadsOnly),
            Service::Nothing => Some(DownReason::Cluster),
        }
    }
}

impl DownReason {
    /// The error as Redis words it, without the leading `-`.
    pub const fn message(self) -> &'static str {
        match self {
            DownReason::Unserved => "CLUSTERDOWN Hash slot not served",
            DownReason::Cluster => "CLUSTERDOWN The cluster is down",
            DownReason::ReadsOnly => "CLUSTERDOWN The cluster is down and only accepts read commands",
        }
    }
}

/// Who owns which slot and where they are reached, at one version of the topology. Never changes; share it as an `Arc`.
pub struct RoutingView {
    version: u64,
    this_node: Option<NodeIndex>,
    preferred_endpoint: PreferredEndpoint,
    service: Service,
    /// Ascending by id.
    nodes: Vec<RoutingNode>,
    /// Per node, what -MOVED says: endpoint, colon, port.
    addresses: Vec<String>,
    /// Per slot, the primary's index or [`NOBODY`].
    primaries: Box<[u16]>,
    handing_off: SlotRanges,
    /// Ascending. Invariant: disjoint, and neighbours that touch have different owners.
    ranges: Vec<Range>,
    /// Slots that nobody serves, with their last owners, likewise.
    lost: Vec<Range>,
    /// The owners of all ranges, one list behind the other.
    owners: Vec<NodeIndex>,
}

/// An [`OwnedRange`] whose owners are a piece of the view's list.
struct Range {
    first: Slot,
    last: Slot,
    owners_start: usize,
    owners_end: usize,
}

impl RoutingView {
    /// Makes a view; asks `place` about every slot once, in order. Copies of a slot without a primary are left out.
    ///
    /// # Errors
    /// See [`RoutingError`]: the parts contradict each other.
    pub fn new(parts: RoutingParts, place: impl FnMut(Slot) -> SlotPlace) -> Result<RoutingView, RoutingError> {
        let mut building = Building::new(parts)?;
        building.ask(Slot::all(), place)?;
        Ok(building.finish())
    }

    /// Makes the view that follows this one; asks `place` only about the slots that may be elsewhere than they were.
    /// Nodes may have come and gone.
    ///
    /// # Errors
    /// As [`RoutingView::new`].
    pub fn followed_by(
        &self,
        parts: RoutingParts,
        changed: impl Iterator<Item = Slot>,
        mut place: impl FnMut(Slot) -> SlotPlace,
    ) -> Result<RoutingView, RoutingError> {
        let mut building = Building::new(parts)?;
        let mut kept_from = 0;
        for slot in changed {
            building.keep(self, kept_from, slot.index())?;
            building.ask(std::iter::once(slot), &mut place)?;
            kept_from = slot.index() + 1;
        }
        building.keep(self, kept_from, SLOT_COUNT)?;
        Ok(building.finish())
    }

    /// The version of the topology that this shows.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The node that asks, if it is a member.
    pub fn this_node(&self) -> Option<NodeIndex> {
        self.this_node
    }

    /// What clients are told to connect to.
    pub fn preferred_endpoint(&self) -> PreferredEndpoint {
        self.preferred_endpoint
    }

    /// The same view where the cluster lets this through.
    pub fn with_service(self, service: Service) -> RoutingView {
        RoutingView { service, ..self }
    }

    /// Whether somebody serves every slot.
    pub fn is_covered(&self) -> bool {
        self.ranges().map(|range| range.slot_count()).sum::<usize>() == SLOT_COUNT
    }

    /// What the cluster lets through.
    pub fn service(&self) -> Service {
        self.service
    }

    /// The nodes, ascending by id.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = (NodeIndex, &RoutingNode)> {
        self.nodes.iter().enumerate().map(|(index, node)| (NodeIndex(index as u16), node))
    }

    /// A node of this view.
    pub fn node(&self, node: NodeIndex) -> &RoutingNode {
        &self.nodes[node.0 as usize]
    }

    /// A node's `endpoint:port`, as it stands in -MOVED. With a hostname preferred and none announced the endpoint is
    /// `?`; an unknown endpoint is empty, and clients then keep the host that they are connected to.
    pub fn address(&self, node: NodeIndex) -> &str {
        &self.addresses[node.0 as usize]
    }

    /// Who owns a slot.
    pub fn primary(&self, slot: Slot) -> Option<NodeIndex> {
        let primary = self.primaries[slot.index()];
        (primary != NOBODY).then_some(NodeIndex(primary))
    }

    /// Everyone who has a slot, the primary first; empty if it has none.
    pub fn owners(&self, slot: Slot) -> &[NodeIndex] {
        let behind = self.ranges.partition_point(|range| range.first <= slot);
        match self.ranges[..behind].last() {
            Some(range) if slot <= range.last => &self.owners[range.owners_start..range.owners_end],
            _ => &[],
        }
    }

    /// The slots that have an owner, ascending, in as few ranges as their owners allow.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = OwnedRange<'_>> {
        self.ranges.iter().map(|range| self.owned(range))
    }

    /// Those, and the slots that nobody serves with their last owners: ascending, as clients are shown them.
    pub fn shown_ranges(&self) -> Vec<OwnedRange<'_>> {
        let mut shown: Vec<OwnedRange<'_>> =
            self.ranges.iter().chain(&self.lost).map(|range| self.owned(range)).collect();
        shown.sort_unstable_by_key(|range| range.first);
        shown
    }

    /// Those as CLUSTER SLOTS lists them. Every node is the primary of some slots and has copies of others, and clients
    /// (redis-py, node-redis) take a node for what it is where they first read of it. So each primary is introduced as such,
    /// with one slot in a range without copies, before any copy is named: else FLUSHALL on all primaries would miss nodes.
    pub fn listed_ranges(&self) -> Vec<OwnedRange<'_>> {
        let shown = self.shown_ranges();
        if shown.iter().all(|range| range.owners.len() == 1) {
            return shown;
        }
        let (mut listed, mut others) = (Vec::new(), Vec::new());
        let mut introduced = BTreeSet::new();
        for range in shown {
            if !introduced.insert(range.owners[0]) {
                others.push(range);
                continue;
            }
            listed.push(OwnedRange { last: range.first, owners: &range.owners[..1], ..range });
            let next = Slot::new(range.first.index() as u64 + 1).filter(|next| *next <= range.last);
            others.extend(next.map(|first| OwnedRange { first, ..range }));
        }
        listed.extend(others);
        listed
    }

    fn owned(&self, range: &Range) -> OwnedRange<'_> {
        let owners = &self.owners[range.owners_start..range.owners_end];
        OwnedRange { first: range.first, last: range.last, owners }
    }

    /// The slots whose primary a node is.
    pub fn slots_of(&self, node: NodeIndex) -> SlotRanges {
        Slot::all().filter(|slot| self.primaries[slot.index()] == node.0).collect()
    }
}

/// Without the table, which would fill pages.
impl fmt::Debug for RoutingView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoutingView")
            .field("version", &self.version)
            .field("this_node", &self.this_node)
            .field("nodes", &self.nodes.len())
            .field("ranges", &self.ranges.len())
            .finish_non_exhaustive()
    }
}

/// IPv6 addresses stand without brackets, as Redis writes them: clients split at the last colon.
fn address(node: &RoutingNode, preferred: PreferredEndpoint) -> String {
    match preferred {
        PreferredEndpoint::Ip => format!("{}:{}", node.ip, node.port),
        PreferredEndpoint::Hostname if node.hostname.is_empty() => format!("?:{}", node.port),
        PreferredEndpoint::Hostname => format!("{}:{}", node.hostname, node.port),
        PreferredEndpoint::Unknown => format!(":{}", node.port),
    }
}

#[cfg(test)]
mod tests;
