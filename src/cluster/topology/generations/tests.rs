use super::*;
use crate::base::identity::{ClusterId, Incarnation};
use crate::cluster::duties::ACKNOWLEDGE;
use crate::cluster::election::electorates;
use crate::cluster::topology::{Applied, Node, NodeState, TopologyChange, sample};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);
const D: NodeId = NodeId(4);

/// Four nodes, the first of which has all slots.
struct Four {
    topology: Topology,
}

impl Four {
    fn new() -> Four {
        let mut four = Four { topology: Topology::default() };
        four.agree(TopologyChange::InitCluster { cluster: ClusterId(1), hash_key: 1 });
        [A, B, C, D].into_iter().for_each(|id| four.start(id, 1));
        four.agree(TopologyChange::Revive { slots: SlotRanges::all(), to: A });
        four
    }

    fn agree(&mut self, change: TopologyChange) -> Applied {
        self.topology.apply(self.topology.version + 1, &change)
    }

    fn start(&mut self, id: NodeId, start_ms: u64) {
        self.agree(TopologyChange::RegisterNode { node: Node { start_ms, ..sample::node(id) } });
    }

    fn copy(&mut self, number: u64, node: NodeId) {
        let slots = || slot(number);
        let incarnation = self.topology.nodes[&node].incarnation;
        self.agree(TopologyChange::CopyJoin { slots: slots(), node, incarnation });
        let number = self.topology.version;
        assert_eq!(self.agree(TopologyChange::CopyInSync { slots: slots(), node, incarnation, number }), Applied::Done);
    }

    fn next(&self, kept: &[(NodeId, u64)]) -> Topology {
        let version = self.topology.version + VERSIONS_SKIPPED;
        self.topology.next_generation(kept[0].0, &kept.iter().copied().collect(), version)
    }
}

fn slot(number: u64) -> SlotRanges {
    Slot::new(number).into_iter().collect()
}

fn record(topology: &Topology, number: u64) -> &SlotRecord {
    topology.slot(Slot::new(number).expect("a slot"))
}

#[test]
fn slots_go_on_with_whoever_has_them_and_the_others_begin_anew() {
    let mut four = Four::new();
    for node in [B, C] {
        four.copy(1, node);
    }
    four.copy(2, D);
    let before = record(&four.topology, 1).epoch;
    let next = four.next(&[(B, 1), (C, 1)]);
    assert!(next.nodes.keys().eq([&B, &C]));
    assert_eq!((next.generation, next.lease_voters.votes.as_slice()), (1, [B, B].as_slice()));
    let elected = record(&next, 1);
    assert_eq!((elected.phase, elected.primary), (Phase::Electing, None));
    assert!(elected.epoch > Epoch(before.0 + 1), "one that nobody can have been given unheard");
    assert_eq!(electorates(&next).len(), 1);
    for number in [2, 3] {
        let lost = record(&next, number);
        assert_eq!((lost.phase, lost.primary, lost.copies.len()), (Phase::Dead, None, 0));
    }
    // As slots that are nobody's they begin anew by themselves.
    let mut next = Four { topology: next };
    let incarnation = next.topology.nodes[&C].incarnation;
    assert_eq!(next.agree(TopologyChange::Revive { slots: slot(3), to: B }), Applied::Done);
    let (slots, epoch) = (slot(1), record(&next.topology, 1).epoch);
    assert_eq!(next.agree(TopologyChange::Promote { slots, epoch, node: C, incarnation }), Applied::Done);
}

#[test]
fn a_primary_that_goes_on_serves_as_it_did_and_hands_nothing_over() {
    let mut four = Four::new();
    four.copy(1, B);
    four.copy(1, C);
    let incarnation = four.topology.nodes[&B].incarnation;
    let change = TopologyChange::HandOver { slots: slot(1), node: B, incarnation };
    assert_eq!(four.agree(change), Applied::Done);
    let next = four.next(&[(A, 1), (B, 1)]);
    let (was, is) = (record(&four.topology, 1), record(&next, 1));
    assert_eq!((is.primary, is.epoch, is.phase), (Some(A), was.epoch, Phase::Normal));
    assert!(is.copies.on(B).is_some_and(|copy| copy.ready) && is.copies.on(C).is_none());
    assert!(next.nodes.values().all(|node| node.support == next.version && node.state == NodeState::Active));
}

#[test]
fn what_is_of_the_generation_before_is_refused_and_no_number_is_given_twice() {
    let mut four = Four::new();
    four.copy(1, B);
    let fence = four.topology.fence_of(B, 0).expect("a member");
    let begun = four.topology.version;
    let mut next = Four { topology: four.next(&[(A, 1), (B, 1)]) };
    assert!(next.topology.version > begun + 1000);
    assert!(matches!(next.agree(fence), Applied::Refused(_)), "its support has another number");
    next.start(C, 2);
    assert!(next.topology.nodes[&C].incarnation > Incarnation(1000));
}

/// All were killed, and a node comes back with what its disk has: nobody lives who has more.
#[test]
fn a_copy_that_has_started_again_is_the_primary_when_it_registers() {
    let mut four = Four::new();
    four.copy(1, B);
    let next = four.next(&[(B, 9)]);
    let waiting = record(&next, 1);
    assert_eq!((waiting.primary, waiting.phase), (Some(B), Phase::Dead));
    assert_eq!(waiting.epoch, record(&four.topology, 1).epoch, "that of its log");
    let mut next = Four { topology: next };
    let node = Node { start_ms: 9, ..sample::node(B) };
    assert!(matches!(next.agree(TopologyChange::ReturnNode { node, kept: SlotRanges::all() }), Applied::Registered(_)));
    let returned = record(&next.topology, 1);
    assert_eq!((returned.primary, returned.phase), (Some(B), Phase::Normal));
}

#[test]
fn an_election_waits_for_nobody_who_is_gone() {
    let mut four = Four::new();
    let quorum = ("quorum".to_owned(), ACKNOWLEDGE.to_owned());
    four.agree(TopologyChange::SetConfig { name: quorum.1, value: quorum.0 });
    for node in [B, C, D] {
        four.copy(1, node);
    }
    let next = four.next(&[(B, 1)]);
    let open = electorates(&next);
    let [one] = open.as_slice() else { panic!("one election: {open:?}") };
    assert_eq!((one.needed, one.survivors), (1, 1));
    // Who is left of its members may have been given up before the rest was.
    assert!(next.slots().iter().all(|record| record.copies.iter().all(|copy| copy.node == B)));
}
