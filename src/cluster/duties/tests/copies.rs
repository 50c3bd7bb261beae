//! Copies of every slot: who has them, whose role it is, and what a node that goes leaves behind.

use super::*;
use crate::cluster::topology::SlotCopy;

impl Cluster {
    /// A cluster of so many nodes, in which every slot has so many copies besides its primary.
    pub(super) fn with_copies(nodes: u8, replicas: usize) -> Cluster {
        let mut cluster = Cluster::new();
        cluster.apply(&TopologyChange::SetConfig { name: REPLICAS.into(), value: replicas.to_string() });
        for number in 1..=nodes {
            cluster.start(number);
            cluster.settle();
        }
        cluster
    }

    fn is_up(&self, node: NodeId) -> bool {
        !self.gone.contains(&node) && self.topology.nodes.contains_key(&node)
    }

    /// What copies say that have everything.
    pub(super) fn synced(&self) -> Vec<TopologyChange> {
        let mut new: BTreeMap<(NodeId, u64), SlotRanges> = BTreeMap::new();
        for (slot, record) in Slot::all().zip(self.topology.slots().iter()) {
            let primary_is_up = record.primary.is_some_and(|primary| self.is_up(primary));
            let is_new = |copy: &&SlotCopy| !copy.ready && !self.topology.is_lost(copy) && self.is_up(copy.node);
            for copy in record.copies.iter().filter(|copy| primary_is_up && is_new(copy)) {
                new.entry((copy.node, copy.number)).or_default().extend([slot]);
            }
        }
        let in_sync = |((node, number), slots)| {
            let incarnation = self.topology.nodes[&node].incarnation;
            TopologyChange::CopyInSync { slots, node, incarnation, number }
        };
        new.into_iter().map(in_sync).collect()
    }

    pub(super) fn elected(&self) -> Vec<TopologyChange> {
        let mut won: BTreeMap<(Epoch, NodeId), SlotRanges> = BTreeMap::new();
        for (slot, record) in Slot::all().zip(self.topology.slots().iter()) {
            let winner = self.topology.candidates(record).find(|copy| self.is_up(copy.node));
            if let Some(winner) = winner.filter(|_| record.phase == Phase::Electing) {
                won.entry((record.epoch, winner.node)).or_default().extend([slot]);
            }
        }
        let promote = |((epoch, node), slots)| {
            let incarnation = self.topology.nodes[&node].incarnation;
            TopologyChange::Promote { slots, epoch, node, incarnation }
        };
        won.into_iter().map(promote).collect()
    }

    /// What primaries say of copies that are to go, when the others have everything.
    pub(super) fn retired(&self) -> Vec<TopologyChange> {
        let mut gone: BTreeMap<(NodeId, u64), SlotRanges> = BTreeMap::new();
        for (slot, record) in Slot::all().zip(self.topology.slots().iter()) {
            let is_served = record.phase == Phase::Normal && record.primary.is_some_and(|primary| self.is_up(primary));
            for copy in record.copies.iter().filter(|copy| is_served && copy.retiring) {
                gone.entry((copy.node, copy.number)).or_default().extend([slot]);
            }
        }
        gone.into_iter().map(|((node, number), slots)| TopologyChange::CopyLeave { slots, node, number }).collect()
    }

    /// Ready copies of each slot, its primary among them, at least and at most.
    pub(super) fn holders(&self) -> (usize, usize) {
        let count = |record: &SlotRecord| {
            let ready = self.topology.survivors(record).filter(|copy| self.is_up(copy.node)).count();
            usize::from(record.primary.is_some_and(|primary| self.is_up(primary))) + ready
        };
        let counts = || self.topology.slots().iter().map(count);
        (counts().min().unwrap_or(0), counts().max().unwrap_or(0))
    }

    pub(super) fn check_shares(&self, nodes: usize) {
        let owned: Vec<usize> = self.owned().into_iter().filter(|count| *count > 0).collect();
        let (least, most) = (SLOT_COUNT / nodes, SLOT_COUNT.div_ceil(nodes));
        assert_eq!((owned.len(), owned.iter().sum::<usize>()), (nodes, SLOT_COUNT), "{owned:?}");
        assert!(owned.iter().all(|count| (least..=most).contains(count)), "{owned:?}");
    }
}

#[test]
fn every_slot_has_its_copies_and_roles_are_shared() {
    for nodes in 1..=4 {
        let cluster = Cluster::with_copies(nodes, 2);
        cluster.check_shares(usize::from(nodes));
        let expected = usize::from(nodes.min(3));
        assert_eq!(cluster.holders(), (expected, expected), "{nodes} nodes");
    }
}

#[test]
fn a_node_that_is_killed_is_replaced_by_its_copies_and_has_its_share_when_it_is_back() {
    let mut cluster = Cluster::with_copies(3, 2);
    cluster.kill(1);
    cluster.settle();
    assert_eq!(cluster.owned()[0], 0);
    assert_eq!(cluster.owned().iter().sum::<usize>(), SLOT_COUNT, "nothing is lost");
    assert_eq!(cluster.holders(), (2, 2));
    // In another life: nothing of what it had counts.
    cluster.start(1);
    cluster.settle();
    cluster.check_shares(3);
    assert_eq!(cluster.holders(), (3, 3));
}

#[test]
fn a_member_on_probation_has_copies_and_leads_nothing_until_that_is_over() {
    let mut cluster = Cluster::with_copies(3, 2);
    for _ in 0..3 {
        cluster.check_shares(3);
        cluster.kill(2);
        cluster.settle();
        cluster.start(2);
        cluster.settle();
    }
    assert_eq!((cluster.owned()[1], cluster.holders()), (0, (3, 3)));
    cluster.check_shares(2);
    assert_eq!(cluster.topology.probations_over(FENCED_MS), []);
    for over in cluster.topology.probations_over(2 * FENCED_MS) {
        assert_eq!(cluster.apply(&over), Applied::Done);
    }
    cluster.settle();
    cluster.check_shares(3);
}

#[test]
fn an_arbiter_has_nothing_whoever_dies_or_leaves() {
    let arbiter = |node: Node| Node { arbiter: true, zone: "c".into(), ..node };
    let mut cluster = Cluster::with_copies(2, 1);
    let before = cluster.topology.slots().clone();
    cluster.start_as(3, arbiter);
    cluster.settle();
    assert!(cluster.topology.slots().iter().eq(before.iter()), "nothing moves for it");
    cluster.kill(3);
    assert_eq!(leader_duties(&cluster.topology, false, &BTreeSet::new()), []);
    assert!(level::is_level(&cluster.topology), "nobody waits for its slots");
    cluster.back(3);
    cluster.kill(1);
    cluster.settle();
    assert_eq!(cluster.owned(), [0, SLOT_COUNT, 0]);
    let given_up = [NodeId(1)].into();
    let goes = |change: &TopologyChange| matches!(change, TopologyChange::CopyLeave { node, .. } if *node == NodeId(1));
    assert!(leader_duties(&cluster.topology, false, &given_up).iter().all(goes), "nobody is there to have copies");
    cluster.start(1);
    cluster.settle();
    assert_eq!((cluster.owned()[2], cluster.holders()), (0, (2, 2)));
    cluster.leave(1);
    cluster.settle();
    assert_eq!((cluster.owned(), cluster.holders()), (vec![0, SLOT_COUNT, 0], (1, 1)));
    // With the last of those who can have slots they stay.
    cluster.leave(2);
    cluster.settle();
    assert_eq!(cluster.owned(), [0, SLOT_COUNT, 0]);
}

#[test]
fn members_that_are_down_are_waited_for_before_others_take_their_place() {
    let mut cluster = Cluster::with_copies(4, 1);
    cluster.kill(2);
    cluster.settle();
    // Where its copy was the only one nobody is waited for.
    assert_eq!(cluster.holders(), (2, 2));
    let mut cluster = Cluster::with_copies(5, 2);
    cluster.kill(2);
    cluster.settle();
    assert_eq!(cluster.holders().0, 2);
    let given_up = [NodeId(2)].into();
    let changes = leader_duties(&cluster.topology, false, &given_up);
    assert!(changes.iter().any(|change| matches!(change, TopologyChange::CopyJoin { .. })), "{changes:?}");
}

#[test]
fn a_node_that_leaves_leaves_as_many_copies_behind() {
    let mut cluster = Cluster::with_copies(4, 2);
    cluster.leave(3);
    cluster.settle();
    assert!(cluster.topology.held_by(NodeId(3)).is_empty());
    cluster.check_shares(3);
    assert_eq!(cluster.holders(), (3, 3));
    // With fewer nodes than copies as many as there are nodes.
    cluster.apply(&TopologyChange::RemoveNode {
        node: NodeId(3),
        incarnation: cluster.topology.nodes[&NodeId(3)].incarnation,
    });
    cluster.leave(1);
    cluster.settle();
    assert!(cluster.topology.held_by(NodeId(1)).is_empty());
    assert_eq!(cluster.holders(), (2, 2));
}

#[test]
fn fewer_copies_are_asked_for() {
    for acknowledge in ["async", "quorum"] {
        let mut cluster = Cluster::with_copies(3, 2);
        cluster.apply(&TopologyChange::SetConfig { name: ACKNOWLEDGE.into(), value: acknowledge.into() });
        cluster.apply(&TopologyChange::SetConfig { name: REPLICAS.into(), value: "0".into() });
        cluster.settle();
        assert_eq!(cluster.holders(), (1, 1), "{acknowledge}");
        cluster.check_shares(3);
    }
}

#[test]
fn with_a_quorum_copies_come_and_go_as_without() {
    let mut cluster = Cluster::with_copies(3, 2);
    cluster.apply(&TopologyChange::SetConfig { name: ACKNOWLEDGE.into(), value: "quorum".into() });
    cluster.start(4);
    cluster.settle();
    assert_eq!(cluster.holders(), (3, 3));
    cluster.check_shares(4);
    cluster.leave(2);
    cluster.settle();
    assert!(cluster.topology.held_by(NodeId(2)).is_empty());
    assert_eq!(cluster.holders(), (3, 3));
}

/// A copy that is not ready has nothing. The plan took it for the slot's owner, and the slot was served by nobody for ever.
#[test]
fn a_slot_that_only_a_beginning_copy_is_left_of_begins_anew() {
    let mut cluster = Cluster::with_copies(3, 1);
    let one = NodeId(1);
    let first = cluster.topology.owned_by(one).slots().next().expect("a slot");
    // Who has the ready copy, and who begins one.
    let (two, three) =
        if cluster.topology.slot(first).copies.on(NodeId(2)).is_some() { (2, NodeId(3)) } else { (3, NodeId(2)) };
    let on_two = |slot: &Slot| cluster.topology.slot(*slot).copies.on(NodeId(two)).is_some();
    let slots: SlotRanges = cluster.topology.owned_by(one).slots().filter(on_two).collect();
    let incarnation = cluster.topology.nodes[&three].incarnation;
    cluster.apply(&TopologyChange::CopyJoin { slots: slots.clone(), node: three, incarnation });
    cluster.kill(1);
    for change in leader_duties(&cluster.topology, false, &BTreeSet::new()) {
        cluster.apply(&change);
    }
    cluster.start(two as u8);
    cluster.start(1);
    let record = |cluster: &Cluster| cluster.topology.slot(slots.slots().next().expect("a slot")).clone();
    assert!(record(&cluster).phase == Phase::Electing && record(&cluster).copies.on(three).is_some());
    cluster.settle();
    assert!(cluster.topology.slots().iter().all(|record| record.phase == Phase::Normal && record.copies.len() == 1));
}
