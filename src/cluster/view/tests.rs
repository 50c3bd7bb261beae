use super::*;
use crate::base::identity::ClusterId;
use crate::base::slot::SLOT_COUNT;
use crate::base::slot_ranges::SlotRanges;
use crate::cluster::duties::{self, leader_duties};
use crate::cluster::routing::{RequestTraits, Route, route};
use crate::cluster::topology::{Applied, Node, TopologyChange, sample};
use std::collections::BTreeSet;

/// A cluster in which everything that was begun is done.
struct Cluster(Topology);

impl Cluster {
    fn of(nodes: u128, replicas: usize) -> Cluster {
        let mut cluster = Cluster(Topology::default());
        cluster.agree(&TopologyChange::InitCluster { cluster: ClusterId(1), hash_key: 1 });
        let (name, value) = (duties::REPLICAS.to_owned(), replicas.to_string());
        cluster.agree(&TopologyChange::SetConfig { name, value });
        (1..=nodes).for_each(|id| cluster.start(id, 1));
        cluster.settle();
        cluster
    }

    fn agree(&mut self, change: &TopologyChange) -> Applied {
        self.0.apply(self.0.version + 1, change)
    }

    fn start(&mut self, id: u128, start_ms: u64) {
        let node = Node { start_ms, ..sample::node(NodeId(id)) };
        assert!(matches!(self.agree(&TopologyChange::RegisterNode { node }), Applied::Registered(_)));
    }

    fn fence(&mut self, id: u128) {
        let fence = self.0.fence_of(NodeId(id), 0).expect("a member");
        assert_eq!(self.agree(&fence), Applied::Done);
    }

    /// Does what the leader has to do; who shall have copies has them at once.
    fn settle(&mut self) {
        for _ in 0..100 {
            let changes = leader_duties(&self.0, false, &BTreeSet::new());
            if changes.is_empty() {
                return;
            }
            for change in changes {
                self.agree(&change);
                let begun = self.0.version;
                match change {
                    TopologyChange::CopyJoin { slots, node, incarnation } => {
                        self.agree(&TopologyChange::CopyInSync { slots, node, incarnation, number: begun });
                    }
                    TopologyChange::HandOver { slots, node: to, incarnation } => {
                        let from = self.0.slot(slots.slots().next().expect("a slot")).primary.expect("its primary");
                        self.agree(&TopologyChange::Handoff { slots: slots.clone(), to, incarnation, begun });
                        self.agree(&TopologyChange::Settled { slots, from, begun });
                    }
                    _ => {}
                }
            }
        }
        panic!("the leader never ends");
    }

    fn view(&self, former: Option<(&Topology, &RoutingView)>) -> RoutingView {
        let incarnation = Some(self.0.nodes[&NodeId(1)].incarnation);
        routing_view(&self.0, NodeId(1), incarnation, ViewOptions::default(), former).expect("a topology fits a view")
    }
}

/// How many slots each number of nodes has, as clients are shown it.
fn shown(view: &RoutingView) -> Vec<(usize, usize)> {
    let mut counts = std::collections::BTreeMap::<usize, usize>::new();
    for range in view.shown_ranges() {
        *counts.entry(range.owners.len()).or_default() += range.slot_count();
    }
    counts.into_iter().collect()
}

#[test]
fn copies_stand_behind_their_primary_and_clients_read_few_ranges() {
    for (nodes, replicas, ranges_max) in [(1, 2, 1), (2, 2, 2), (3, 2, 4), (3, 1, 4), (10, 2, 24), (10, 0, 10)] {
        let cluster = Cluster::of(nodes, replicas);
        let view = cluster.view(None);
        assert_eq!(shown(&view), [((1 + replicas).min(nodes as usize), SLOT_COUNT)], "{nodes} nodes");
        let ranges = view.shown_ranges().len();
        assert!(ranges <= ranges_max, "{nodes} nodes, {replicas} replicas: {ranges} ranges");
    }
}

#[test]
fn who_is_down_or_has_lost_everything_is_shown_as_no_copy() {
    let mut cluster = Cluster::of(3, 2);
    let before = cluster.0.clone();
    let full = cluster.view(None);
    cluster.fence(3);
    let fenced = cluster.view(Some((&before, &full)));
    let own = full.slots_of(full.this_node().expect("a member"));
    let owners = |view: &RoutingView| view.owners(own.slots().next().expect("a slot")).len();
    assert_eq!((owners(&full), owners(&fenced)), (3, 2), "the records are the same, and the view is not");
    // It is back in another life, with nothing.
    let before = cluster.0.clone();
    cluster.start(3, 2);
    assert_eq!(owners(&cluster.view(Some((&before, &fenced)))), 2);
    cluster.settle();
    assert_eq!(owners(&cluster.view(None)), 3);
}

#[test]
fn a_slot_that_is_being_elected_is_shown_with_who_may_be_next_and_served_by_nobody() {
    let mut cluster = Cluster::of(3, 2);
    cluster.fence(2);
    let lost: SlotRanges = cluster.0.owned_by(NodeId(2));
    let slot = lost.slots().next().expect("a slot");
    let incarnation = cluster.0.nodes[&NodeId(2)].incarnation;
    let election = TopologyChange::BeginElection { slots: lost.clone(), node: NodeId(2), incarnation };
    assert_eq!(cluster.agree(&election), Applied::Done);
    let view = cluster.view(None);
    assert_eq!((view.primary(slot), view.is_covered()), (None, false));
    assert_eq!(route(&[slot], &view, RequestTraits { write: false }), Route::Wait(slot));
    let covered: usize = view.shown_ranges().iter().map(|range| range.slot_count()).sum();
    assert_eq!(covered, SLOT_COUNT);
    let survivor = cluster.0.survivors(cluster.0.slot(slot)).next().expect("two").node;
    let shown = view.shown_ranges();
    let range = shown.iter().find(|range| range.first <= slot && slot <= range.last).expect("it is shown");
    assert_eq!(view.node(range.owners[0]).id, survivor);
}
