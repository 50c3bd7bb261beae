//! The cluster as connections see it: who owns which slot, whom gossip hears, and the way to propose a change.
//!
//! ```text
//!  topology (agreed) --> View, swapped in whole --> dispatch, CLUSTER commands
//!                          a newer one wakes the requests that wait for a hand-off
//! ```

use crate::base::identity::{Incarnation, NodeId};
use crate::base::slot_ranges::SlotRanges;
use crate::cluster::duties::replicas;
use crate::cluster::lease::LeaseTerm;
use crate::cluster::membership::socket::MembershipHandle;
use crate::cluster::routing::{NodeIndex, PreferredEndpoint, RoutingError, RoutingView};
use crate::cluster::topology::raft::Consensus;
use crate::cluster::topology::{Phase, SlotRecord, Topology};
use crate::cluster::view::{self, ViewOptions};
use crate::config::Config;
use crate::transport::Transport;
use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;

/// One version of the topology, ready for requests. Never changes.
pub struct View {
    pub routing: RoutingView,
    pub topology: Arc<Topology>,
    /// Whether the topology means this life of this node.
    pub is_member: bool,
    /// CLUSTER SLOTS in RESP2 and RESP3, made when it is first asked for: clients ask often, and it is long.
    pub slots_reply: [OnceLock<Box<[u8]>>; 2],
    slots_by_node: OnceLock<BTreeMap<NodeId, SlotRanges>>,
    epochs_by_node: OnceLock<BTreeMap<NodeId, u32>>,
}

impl View {
    fn new(
        topology: Arc<Topology>,
        node: NodeId,
        incarnation: Option<Incarnation>,
        options: ViewOptions,
        former: Option<&View>,
    ) -> Result<View, RoutingError> {
        let former = former.map(|view| (view.topology.as_ref(), &view.routing));
        let routing = view::routing_view(&topology, node, incarnation, options, former)?;
        let is_member = view::is_current(&topology, node, incarnation);
        Ok(View {
            routing,
            topology,
            is_member,
            slots_reply: Default::default(),
            slots_by_node: OnceLock::new(),
            epochs_by_node: OnceLock::new(),
        })
    }

    /// The slots that a node serves, and those that nobody serves since it did.
    pub fn slots_of(&self, node: NodeId) -> &SlotRanges {
        static NONE: SlotRanges = SlotRanges::new();
        let by_node = self.slots_by_node.get_or_init(|| {
            let mut by_node: BTreeMap<NodeId, SlotRanges> = BTreeMap::new();
            for range in self.routing.shown_ranges() {
                let Some(primary) = range.owners.first() else { continue };
                let slots = SlotRanges::between(range.first, range.last);
                by_node.entry(self.routing.node(*primary).id).or_default().extend(slots.slots());
            }
            by_node
        });
        by_node.get(&node).unwrap_or(&NONE)
    }

    /// The greatest epoch of the slots that a node owns: what Redis calls its config epoch. 0: it owns none.
    pub fn epoch_of(&self, node: NodeId) -> u32 {
        let by_node = self.epochs_by_node.get_or_init(|| {
            let mut by_node: BTreeMap<NodeId, u32> = BTreeMap::new();
            for record in self.topology.slots().iter() {
                let Some(primary) = record.primary else { continue };
                let epoch = by_node.entry(primary).or_default();
                *epoch = record.epoch.0.max(*epoch);
            }
            by_node
        });
        by_node.get(&node).copied().unwrap_or(0)
    }

    /// How many slots somebody serves.
    pub fn served_count(&self) -> usize {
        self.routing.ranges().map(|range| range.slot_count()).sum()
    }

    /// How many slots have an owner, dead or alive, or are to have one of their copies.
    pub fn assigned_count(&self) -> usize {
        self.count(|record| record.primary.is_some() || record.phase == Phase::Electing)
    }

    /// How many slots are dead with their owner.
    pub fn dead_count(&self) -> usize {
        self.count(|record| record.primary.is_some() && record.phase == Phase::Dead)
    }

    /// How many slots wait until one of their copies takes the place of a primary that is gone.
    pub fn electing_count(&self) -> usize {
        self.count(|record| record.phase == Phase::Electing)
    }

    fn count(&self, is_counted: impl Fn(&SlotRecord) -> bool) -> usize {
        self.topology.slots().iter().filter(|record| is_counted(record)).count()
    }

    /// How many copies are there besides primaries, and how many are wanted and not there, over all slots.
    pub fn copy_counts(&self) -> CopyCounts {
        let replicas = replicas(&self.topology);
        let mut counts = CopyCounts { replicas, ready: 0, missing: 0 };
        for range in self.routing.shown_ranges() {
            let copies = range.owners.len() - 1;
            counts.ready += range.slot_count() * copies;
            counts.missing += range.slot_count() * replicas.saturating_sub(copies);
        }
        counts
    }

    /// Who has copies of a node's slots, and of how many.
    pub fn copies_of(&self, node: NodeId) -> BTreeMap<NodeId, usize> {
        let mut held = BTreeMap::new();
        for range in self.routing.ranges() {
            let Some((primary, copies)) = range.owners.split_first() else { continue };
            if self.routing.node(*primary).id == node {
                for copy in copies {
                    *held.entry(self.routing.node(*copy).id).or_default() += range.slot_count();
                }
            }
        }
        held
    }

    /// Where clients reach a node, as -MOVED names it.
    pub fn address(&self, node: NodeIndex) -> &str {
        self.routing.address(node)
    }
}

/// Copies of slots besides their primaries, as requests see them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyCounts {
    /// How many each slot shall have.
    pub replicas: usize,
    /// Those that have everything, and are up.
    pub ready: usize,
    /// How many more there should be, whether or not there are nodes for them.
    pub missing: usize,
}

/// What the parts of the cluster give to connections.
pub struct ClusterParts {
    pub node: NodeId,
    pub lease: Arc<LeaseTerm>,
    pub consensus: Arc<dyn Consensus>,
    pub membership: Arc<MembershipHandle>,
    pub transport: Arc<dyn Transport>,
    pub options: ViewOptions,
}

/// How a node's own configuration says that the cluster is shown.
pub fn view_options(config: &Config) -> ViewOptions {
    let own = &config.cluster;
    ViewOptions {
        preferred_endpoint: match own.preferred_endpoint_type.as_str() {
            "hostname" => PreferredEndpoint::Hostname,
            "unknown-endpoint" => PreferredEndpoint::Unknown,
            _ => PreferredEndpoint::Ip,
        },
        require_full_coverage: own.require_full_coverage,
        allow_reads_when_down: own.allow_reads_when_down,
    }
}

/// The cluster, seen from this node.
pub struct Cluster {
    parts: ClusterParts,
    /// What the view was made with; held while it is made.
    shown: Mutex<(ViewOptions, Option<Incarnation>)>,
    view: ArcSwap<View>,
    versions: watch::Sender<u64>,
}

impl Cluster {
    /// A node that serves nothing yet.
    ///
    /// # Errors
    /// The topology has more nodes than a view can hold.
    pub fn new(parts: ClusterParts, topology: Arc<Topology>) -> Result<Cluster, RoutingError> {
        let versions = watch::Sender::new(topology.version);
        let view = View::new(topology, parts.node, None, parts.options, None)?;
        let shown = Mutex::new((parts.options, None));
        Ok(Cluster { parts, shown, view: ArcSwap::from_pointee(view), versions })
    }

    /// This node's name.
    pub fn node(&self) -> NodeId {
        self.parts.node
    }

    /// Until when this node may answer for its slots.
    #[inline]
    pub fn lease(&self) -> &LeaseTerm {
        &self.parts.lease
    }

    /// Who this node is, for files.
    pub fn names(&self) -> Vec<(&'static str, String)> {
        vec![("starling-node", self.node().to_string())]
    }

    /// The newest view; not to be held while waiting.
    #[inline]
    pub fn view(&self) -> Guard<Arc<View>> {
        self.view.load()
    }

    /// The newest view, to keep.
    pub fn view_full(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Shows a newer topology to connections, or another life of this node. One caller at a time.
    pub fn show(&self, topology: Arc<Topology>, incarnation: Option<Incarnation>) {
        let mut shown = self.shown.lock();
        let is_same_life = shown.1 == incarnation;
        shown.1 = incarnation;
        let former = is_same_life.then(|| self.view.load_full());
        self.show_with(topology, *shown, former.as_deref());
    }

    /// Shows the topology as these options say, from now on.
    pub fn set_options(&self, options: ViewOptions) {
        let mut shown = self.shown.lock();
        if shown.0 != options {
            shown.0 = options;
            self.show_with(Arc::clone(&self.view.load().topology), *shown, None);
        }
    }

    fn show_with(
        &self,
        topology: Arc<Topology>,
        (options, incarnation): (ViewOptions, Option<Incarnation>),
        former: Option<&View>,
    ) {
        let version = topology.version;
        match View::new(topology, self.parts.node, incarnation, options, former) {
            Ok(view) => {
                self.view.store(Arc::new(view));
                self.versions.send_replace(version);
            }
            Err(error) => tracing::error!(%error, version, "the topology cannot be shown to clients"),
        }
    }

    /// The nodes that have copies of this node's slots: where clients reach each, and of how many slots.
    pub fn own_replicas(&self) -> Vec<(NodeId, IpAddr, u16, usize)> {
        let view = self.view();
        let place = |(id, slots): (&NodeId, &usize)| {
            let node = view.topology.nodes.get(id)?;
            Some((node.id, node.ip, node.port, *slots))
        };
        view.copies_of(self.node()).iter().filter_map(place).collect()
    }

    /// Ends when there is another view than the one of this version, or after a while.
    pub fn until_newer(&self, version: u64, at_most: Duration) -> impl Future<Output = ()> + 'static {
        let mut versions = self.versions.subscribe();
        async move {
            // An error means that the node ends.
            let _ = tokio::time::timeout(at_most, versions.wait_for(|shown| *shown != version)).await;
        }
    }

    /// Ends when the view is of this version or a newer one, or after a while.
    pub async fn until_shown(&self, version: u64, at_most: Duration) {
        let mut versions = self.versions.subscribe();
        // An error means that the node ends.
        let _ = tokio::time::timeout(at_most, versions.wait_for(|shown| *shown >= version)).await;
    }

    pub fn consensus(&self) -> &Arc<dyn Consensus> {
        &self.parts.consensus
    }

    pub fn membership(&self) -> &Arc<MembershipHandle> {
        &self.parts.membership
    }

    pub fn transport(&self) -> &Arc<dyn Transport> {
        &self.parts.transport
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::identity::ClusterId;
    use crate::cluster::duties::REPLICAS;
    use crate::cluster::topology::{Applied, Node, TopologyChange, sample};

    #[test]
    fn copies_are_counted_by_slot_and_by_node() {
        let [a, b, c] = [1, 2, 3].map(NodeId);
        let mut topology = Topology::default();
        let mut agree = |change: TopologyChange| {
            let version = topology.version + 1;
            (version, topology.apply(version, &change))
        };
        agree(TopologyChange::InitCluster { cluster: ClusterId(1), hash_key: 1 });
        agree(TopologyChange::SetConfig { name: REPLICAS.to_owned(), value: "2".to_owned() });
        let lives = [a, b, c].map(|id| {
            let node: Node = sample::node(id);
            let (_, Applied::Registered(life)) = agree(TopologyChange::RegisterNode { node }) else {
                panic!("it is refused")
            };
            life
        });
        let all = SlotRanges::all();
        let some: SlotRanges = all.slots().take(100).collect();
        agree(TopologyChange::Revive { slots: all.clone(), to: a });
        for (slots, node, incarnation) in [(all.clone(), b, lives[1]), (some.clone(), c, lives[2])] {
            let (number, _) = agree(TopologyChange::CopyJoin { slots: slots.clone(), node, incarnation });
            agree(TopologyChange::CopyInSync { slots, node, incarnation, number });
        }
        let view = View::new(Arc::new(topology), a, Some(lives[0]), ViewOptions::default(), None).expect("a view");
        let (ready, missing) = (all.len() + some.len(), all.len() - some.len());
        assert_eq!(view.copy_counts(), CopyCounts { replicas: 2, ready, missing });
        assert_eq!(view.copies_of(a), BTreeMap::from([(b, all.len()), (c, some.len())]));
        assert!(view.copies_of(b).is_empty());
        assert_eq!((view.assigned_count(), view.electing_count()), (all.len(), 0));
    }
}
