use super::*;
use crate::base::identity::ClusterId;
use crate::cluster::topology::{Applied, Node, TopologyChange, sample};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);

/// Three nodes; the first has all slots, the others are ready copies of some.
struct Three {
    topology: Topology,
    slots: SlotRanges,
}

impl Three {
    fn new() -> Three {
        let mut three = Three { topology: Topology::default(), slots: Slot::all().take(10).collect() };
        three.agree(TopologyChange::InitCluster { cluster: ClusterId(1), hash_key: 1 });
        [A, B, C].into_iter().for_each(|id| three.start(id, 1));
        three.agree(TopologyChange::Revive { slots: SlotRanges::all(), to: A });
        for id in [B, C] {
            let number = three.join(id);
            assert_eq!(three.in_sync(id, number), Applied::Done);
        }
        three
    }

    fn agree(&mut self, change: TopologyChange) -> Applied {
        self.topology.apply(self.topology.version + 1, &change)
    }

    fn start(&mut self, id: NodeId, start_ms: u64) {
        self.agree(TopologyChange::RegisterNode { node: Node { start_ms, ..sample::node(id) } });
    }

    fn life(&self, id: NodeId) -> Incarnation {
        self.topology.nodes[&id].incarnation
    }

    fn join(&mut self, id: NodeId) -> u64 {
        let (slots, incarnation) = (self.slots.clone(), self.life(id));
        assert_eq!(self.agree(TopologyChange::CopyJoin { slots, node: id, incarnation }), Applied::Done);
        self.topology.version
    }

    fn in_sync(&mut self, id: NodeId, number: u64) -> Applied {
        let (slots, incarnation) = (self.slots.clone(), self.life(id));
        self.agree(TopologyChange::CopyInSync { slots, node: id, incarnation, number })
    }

    fn fence(&mut self, id: NodeId) {
        let fence = self.topology.fence_of(id, 0).expect("a member");
        assert_eq!(self.agree(fence), Applied::Done);
    }

    fn elect(&mut self) -> Applied {
        let incarnation = self.life(A);
        self.agree(TopologyChange::BeginElection { slots: self.slots.clone(), node: A, incarnation })
    }

    fn promote(&mut self, id: NodeId) -> Applied {
        let (slots, epoch, incarnation) = (self.slots.clone(), self.first().epoch, self.life(id));
        self.agree(TopologyChange::Promote { slots, epoch, node: id, incarnation })
    }

    fn first(&self) -> &SlotRecord {
        self.topology.slot(Slot::default())
    }
}

const REFUSED: Applied = Applied::Refused(Refused::WrongPhase);

#[test]
fn a_copy_takes_the_place_of_a_fenced_primary_in_a_new_epoch() {
    let mut three = Three::new();
    let epoch = three.first().epoch;
    assert_eq!(three.elect(), Applied::Refused(Refused::NotDown), "nobody is deposed");
    three.fence(A);
    assert_eq!(three.elect(), Applied::Done);
    assert_eq!((three.first().phase, three.first().primary), (Phase::Electing, None));
    assert_eq!(three.elect(), REFUSED, "it is under way");
    assert_eq!(three.promote(B), Applied::Done);
    let record = three.first();
    assert_eq!((record.phase, record.primary), (Phase::Normal, Some(B)));
    assert!(record.epoch > epoch);
    assert_eq!(record.copies.iter().map(|copy| copy.node).collect::<Vec<_>>(), [C, A]);
    assert_eq!(three.promote(C), REFUSED, "there is a primary");
    // What has no copies is as before.
    assert_eq!(three.topology.owned_by(A).len(), Slot::all().count() - 10);
    // The former primary is back, and takes nothing.
    let raise = three.topology.raise_of(A).expect("a member");
    three.agree(raise);
    assert_eq!(three.first().primary, Some(B));
}

#[test]
fn only_a_memory_that_had_everything_and_still_has_it_is_promoted() {
    let mut three = Three::new();
    three.fence(A);
    three.elect();
    three.start(B, 2);
    assert_eq!(three.promote(B), REFUSED, "it has started again");
    three.fence(C);
    assert_eq!(three.promote(C), Applied::Refused(Refused::NotActive));
    let raise = three.topology.raise_of(C).expect("a member");
    three.agree(raise);
    assert_eq!(three.promote(C), Applied::Done);
    let number = three.join(B);
    assert!(!three.first().copies.on(B).expect("it joined").ready);
    assert_eq!(three.in_sync(B, number - 1), REFUSED, "the word is of another copy");
    assert_eq!(three.in_sync(B, number), Applied::Done);
}

#[test]
fn a_primary_that_starts_again_gives_way_to_its_copies_and_begins_anew_where_there_are_none() {
    let mut three = Three::new();
    three.start(A, 2);
    assert_eq!(three.first().phase, Phase::Electing);
    assert!(three.first().copies.on(A).is_none(), "its memory is gone");
    assert_eq!(three.topology.owned_by(A).len(), Slot::all().count() - 10);
    // Nobody has them any more: they may begin anew.
    let revive = TopologyChange::Revive { slots: three.slots.clone(), to: A };
    assert_eq!(three.agree(revive.clone()), REFUSED);
    three.start(B, 2);
    assert_eq!(three.agree(revive.clone()), REFUSED, "one has them");
    three.start(C, 2);
    assert_eq!(three.agree(revive), Applied::Done);
}

#[test]
fn a_primary_that_returns_with_its_disk_is_one_of_those_who_are_asked() {
    let mut three = Three::new();
    three.agree(TopologyChange::ReturnNode { node: Node { start_ms: 2, ..sample::node(A) }, kept: SlotRanges::all() });
    let copy = *three.first().copies.on(A).expect("it has something");
    assert!(copy.ready && !three.topology.is_lost(&copy));
    assert_eq!(three.promote(A), Applied::Done);
    assert_eq!((three.first().primary, three.first().moved), (Some(A), Some(copy.number)));
}

/// Killed again while an election is under way: what their logs have was dropped, and the slots began empty.
#[test]
fn members_that_all_start_again_during_an_election_are_elected_by_what_their_logs_have() {
    let mut three = Three::new();
    three.fence(A);
    assert_eq!(three.elect(), Applied::Done);
    let come_back = |three: &mut Three, id, kept: &SlotRanges| {
        let start_ms = three.topology.nodes[&id].start_ms + 1;
        three.agree(TopologyChange::ReturnNode { node: Node { start_ms, ..sample::node(id) }, kept: kept.clone() });
    };
    for _ in 0..2 {
        [B, C, A].into_iter().for_each(|id| come_back(&mut three, id, &SlotRanges::all()));
        assert_eq!(three.first().phase, Phase::Electing);
        assert_eq!(
            (three.topology.candidates(three.first()).count(), three.topology.survivors(three.first()).count()),
            (3, 0)
        );
        let revive = TopologyChange::Revive { slots: three.slots.clone(), to: A };
        assert_eq!(three.agree(revive), REFUSED, "somebody has them");
    }
    // Its log has lost them since.
    come_back(&mut three, B, &SlotRanges::default());
    assert_eq!(three.promote(B), REFUSED);
    assert_eq!(three.promote(C), Applied::Done);
    let others: Vec<_> = three.first().copies.iter().map(|copy| (copy.node, three.topology.is_lost(copy))).collect();
    assert_eq!(others, [(B, true), (A, true)], "they join anew");
    let number = three.join(B);
    assert_eq!(three.in_sync(B, number), Applied::Done);
    assert_eq!(three.first().copies.on(B).expect("a copy").kept, None);
}

#[test]
fn a_copy_that_came_back_with_its_log_is_asked_in_an_election_that_begins_later() {
    let mut three = Three::new();
    three.agree(TopologyChange::ReturnNode { node: Node { start_ms: 2, ..sample::node(B) }, kept: SlotRanges::all() });
    let nodes = |three: &Three| three.topology.candidates(three.first()).map(|copy| copy.node).collect::<Vec<_>>();
    assert_eq!((nodes(&three), three.topology.survivors(three.first()).count()), (vec![B, C], 1), "it does not follow");
    three.fence(A);
    assert_eq!(three.elect(), Applied::Done);
    assert_eq!(nodes(&three), [B, C, A]);
    assert_eq!(three.promote(B), Applied::Done);
}

#[test]
fn who_is_forgotten_or_leaves_is_no_copy_any_more() {
    let mut three = Three::new();
    three.fence(A);
    let (node, incarnation) = (A, three.life(A));
    three.agree(TopologyChange::ForgetNode { node, incarnation, decided_by: u64::MAX });
    assert_eq!(three.first().phase, Phase::Electing, "others have its slots");
    assert_eq!(three.topology.slot(Slot::all().last().expect("a slot")).phase, Phase::Dead);
    three.promote(B);
    let incarnation = three.life(C);
    three.agree(TopologyChange::Leaving { node: C, incarnation });
    let remove = TopologyChange::RemoveNode { node: C, incarnation };
    assert_eq!(three.agree(remove.clone()), Applied::Refused(Refused::OwnsSlots));
    let number = three.first().copies.on(C).expect("a copy").number;
    let leave = TopologyChange::CopyLeave { slots: three.slots.clone(), node: C, number };
    assert_eq!(three.agree(leave.clone()), Applied::Done);
    assert_eq!(three.agree(leave), REFUSED);
    assert_eq!(three.agree(remove), Applied::Done);
}

#[test]
fn a_ready_copy_and_the_primary_change_their_roles() {
    let mut three = Three::new();
    let (node, incarnation) = (B, three.life(B));
    let hand_over = TopologyChange::HandOver { slots: three.slots.clone(), node, incarnation };
    assert_eq!(three.agree(hand_over.clone()), Applied::Done);
    let begun = three.topology.version;
    assert_eq!(three.first().phase, Phase::HandingOff { to: B, begun });
    assert_eq!(three.agree(hand_over.clone()), REFUSED);
    let abort = TopologyChange::AbortHandoff { slots: three.slots.clone(), to: B, begun };
    assert_eq!(three.agree(abort), Applied::Done);
    assert_eq!((three.first().primary, three.first().phase), (Some(A), Phase::Normal));
    let done = |begun, slots: &SlotRanges| TopologyChange::Handoff { slots: slots.clone(), to: B, incarnation, begun };
    let late = done(begun, &three.slots);
    assert_eq!(three.agree(late), REFUSED, "it was called off");
    let (epoch, number) = (three.first().epoch, three.first().copies.on(B).expect("a copy").number);
    three.agree(hand_over);
    let change = done(three.topology.version, &three.slots);
    assert_eq!(three.agree(change), Applied::Done);
    let record = three.first();
    let begun = three.topology.version;
    let phase = Phase::Settling { from: A, begun: begun - 1 };
    assert_eq!((record.primary, record.phase, record.moved), (Some(B), phase, Some(number)));
    assert!(record.epoch > epoch);
    assert!(record.copies.on(A).expect("it stays").ready && record.copies.on(B).is_none());
    // Nobody else has it for sure until its primary says that it is kept.
    let slots = three.slots.clone();
    let leave = TopologyChange::CopyLeave { slots: slots.clone(), node: A, number: begun };
    assert_eq!(three.agree(leave.clone()), REFUSED);
    let kept = |begun| TopologyChange::Settled { slots: slots.clone(), from: A, begun };
    assert_eq!(three.agree(kept(begun)), REFUSED, "it is the number of the hand-over");
    assert_eq!(three.agree(kept(begun - 1)), Applied::Done);
    assert_eq!((three.first().phase, three.agree(leave)), (Phase::Normal, Applied::Done));
}

impl Three {
    fn with_quorum() -> Three {
        let mut three = Three::new();
        three.agree(TopologyChange::SetConfig { name: "acknowledge".into(), value: "quorum".into() });
        three
    }

    fn copy(&self, node: NodeId) -> SlotCopy {
        *self.first().copies.on(node).expect("a copy")
    }

    /// Whether an election could be held now, how many answers it would need, and of how many.
    fn needed(&self) -> Option<(usize, usize)> {
        let open = crate::cluster::election::electorates(&self.topology);
        open.first().map(|one| (one.needed, one.survivors))
    }
}

#[test]
fn with_a_quorum_a_copy_retires_before_it_leaves() {
    let mut three = Three::with_quorum();
    let slots = three.slots.clone();
    let (b, c) = (three.copy(B).number, three.copy(C).number);
    let leave = |node, number| TopologyChange::CopyLeave { slots: slots.clone(), node, number };
    let retire = |node, number| TopologyChange::CopyRetire { slots: slots.clone(), node, number };
    let keep = |node, number| TopologyChange::CopyKeep { slots: slots.clone(), node, number };
    assert_eq!(three.agree(leave(C, c)), REFUSED);
    assert_eq!(three.agree(keep(C, c)), REFUSED);
    assert_eq!(three.agree(retire(C, b)), REFUSED, "another copy is meant");
    assert_eq!(three.agree(retire(C, c)), Applied::Done);
    assert_eq!(three.agree(retire(B, b)), REFUSED, "one at a time");
    assert_eq!(three.agree(keep(C, c)), Applied::Done);
    let number = three.topology.version;
    assert_eq!((three.copy(C).number, three.copy(C).retiring, three.copy(C).counts), (number, false, true));
    assert_eq!(three.agree(leave(C, c)), REFUSED, "it comes late");
    assert_eq!(three.agree(retire(C, number)), Applied::Done);
    assert_eq!(three.agree(leave(C, number)), Applied::Done);
    assert_eq!(three.first().copies.len(), 1);
    // What was never ready goes at once.
    let number = three.join(C);
    assert_eq!(three.agree(leave(C, number)), Applied::Done);
}

#[test]
fn with_a_quorum_members_that_have_lost_their_memory_are_reckoned_with() {
    let mut three = Three::with_quorum();
    three.start(C, 2);
    assert!(three.copy(C).counts && three.topology.is_lost(&three.copy(C)));
    let number = three.join(C);
    assert!(three.copy(C).counts && !three.copy(C).ready, "it takes the place of what was lost");
    three.fence(A);
    three.elect();
    assert_eq!(three.needed(), Some((2, 2)), "B alone does not decide: A may have what only C had besides");
    let mut three = Three::with_quorum();
    three.start(A, 2);
    assert_eq!((three.first().phase, three.needed()), (Phase::Electing, Some((2, 2))));
    three.start(C, 2);
    assert_eq!(three.needed(), Some((1, 1)), "there is nobody else");
    three.promote(B);
    for id in [A, C] {
        let number = three.join(id);
        three.in_sync(id, number);
    }
    assert!(three.copy(C).ready && three.copy(A).ready);
    assert_eq!(three.in_sync(C, number), REFUSED, "of a copy that is over");
}

#[test]
fn a_topology_reads_back_with_its_copies() {
    let three = Three::new();
    let bytes = postcard::to_stdvec(&three.topology).expect("it is encoded");
    assert!(bytes.len() < 2000, "{} bytes", bytes.len());
    assert_eq!(postcard::from_bytes::<Topology>(&bytes).expect("it reads back"), three.topology);
}

/// Its copy was of a former life. It stayed in the list for ever, and counted as one where the slot's copies are counted.
#[test]
fn who_becomes_the_primary_otherwise_than_by_its_copy_is_no_copy_any_more() {
    let mut three = Three::new();
    let slot = Slot::all().next().expect("a slot");
    for id in [B, C] {
        three.start(id, 2);
    }
    three.fence(A);
    let (incarnation, decided_by) = (three.life(A), three.topology.version);
    three.agree(TopologyChange::ForgetNode { node: A, incarnation, decided_by });
    assert!(three.topology.slot(slot).copies.on(B).is_some(), "it is lost");
    assert_eq!(three.agree(TopologyChange::Revive { slots: SlotRanges::all(), to: B }), Applied::Done);
    assert!(three.topology.slot(slot).copies.on(B).is_none());
}

#[test]
fn slots_that_wait_for_members_that_are_down_are_given_up_all_or_none() {
    const D: NodeId = NodeId(4);
    let give_up = |slots: &SlotRanges, decided_by| TopologyChange::GiveUpSlots { slots: slots.clone(), decided_by };
    let mut three = Three::new();
    let (slots, rest) = (three.slots.clone(), SlotRanges::all().difference(&three.slots));
    assert_eq!(three.agree(give_up(&rest, u64::MAX)), REFUSED, "they are served");
    three.fence(A);
    assert_eq!(three.agree(give_up(&slots, u64::MAX)), REFUSED, "copies can be elected");
    assert_eq!(three.agree(give_up(&SlotRanges::all(), u64::MAX)), REFUSED, "those of some can");
    assert_eq!(three.topology.owned_by(A), SlotRanges::all());
    assert_eq!(three.elect(), Applied::Done);
    three.fence(B);
    assert_eq!(three.topology.awaited_by(three.first()), [], "one is left");
    three.fence(C);
    assert_eq!(three.topology.awaited_by(three.first()), [B, C, A]);
    assert_eq!(three.agree(give_up(&slots, u64::MAX)), Applied::Refused(Refused::NotActive), "nobody takes them");
    three.start(D, 1);
    let (seen, epoch) = (three.topology.version, three.first().epoch);
    assert_eq!(three.agree(give_up(&slots, seen)), Applied::Done);
    assert!(three.topology.awaited_by(three.first()).is_empty() && three.first().copies.is_empty());
    assert_eq!(three.agree(give_up(&slots, u64::MAX)), REFUSED, "they are nobody's");
    assert_eq!(three.agree(TopologyChange::Revive { slots: slots.clone(), to: D }), Applied::Done);
    assert!(three.first().epoch > epoch);
    // Who comes back in the same life has what nobody gave up, and no more.
    let raise = three.topology.raise_of(A).expect("a member");
    three.agree(raise);
    assert_eq!((three.topology.owned_by(A), three.topology.owned_by(D)), (rest.clone(), slots.clone()));
    three.fence(A);
    assert_eq!(three.agree(give_up(&rest, seen)), Applied::Refused(Refused::DecidedBefore), "it was back meanwhile");
    let raise = three.topology.raise_of(B).expect("a member");
    three.agree(raise);
    three.fence(D);
    assert_eq!(three.agree(give_up(&slots, seen)), Applied::Refused(Refused::DecidedBefore), "they have begun anew");
    assert_eq!(three.agree(give_up(&slots, three.topology.version)), Applied::Done);
}
