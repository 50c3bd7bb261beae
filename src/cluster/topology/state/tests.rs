use super::super::COPIES_MAX;
use super::super::sample;
use super::super::slot_records::Slots;
use super::*;
use proptest::prelude::*;
use std::net::Ipv4Addr;

const CLUSTER: ClusterId = ClusterId(7);

fn node(number: u8) -> Node {
    Node {
        ip: Ipv4Addr::new(127, 0, 0, number).into(),
        port: 6379,
        cluster_port: 16379,
        ..sample::node(NodeId(u128::from(number)))
    }
}

fn slots(first: u16, last: u16) -> SlotRanges {
    (first..=last).filter_map(|number| Slot::new(u64::from(number))).collect()
}

/// Applies changes one after the other, and checks the invariants behind each.
struct Log {
    topology: Topology,
    index: u64,
    epochs: Vec<(Epoch, Option<NodeId>)>,
}

impl Log {
    fn new() -> Log {
        let topology = Topology::default();
        let epochs = topology.slots().iter().map(|record| (record.epoch, record.primary)).collect();
        Log { topology, index: 0, epochs }
    }

    fn apply(&mut self, change: TopologyChange) -> Applied {
        self.index += 1;
        let before = self.topology.clone();
        let applied = self.topology.apply(self.index, &change);
        self.check_records(&before);
        for (slot, (record, (epoch, primary))) in Slot::all().zip(self.topology.slots().iter().zip(&mut self.epochs)) {
            assert!(record.epoch >= *epoch, "{slot}: an epoch went back");
            // Invariant: one primary per slot and epoch, ever; it may only be forgotten.
            if record.epoch == *epoch && record.primary.is_some() {
                assert_eq!(record.primary, *primary, "{slot}: two primaries in one epoch");
            }
            (*epoch, *primary) = (record.epoch, record.primary);
        }
        applied
    }

    fn fence(&mut self, node: NodeId) -> Applied {
        self.apply(self.topology.fence_of(node, 0).expect("a member"))
    }

    fn raise(&mut self, node: NodeId) -> Applied {
        self.apply(self.topology.raise_of(node).expect("a member"))
    }

    /// What versions share is the same, and the list of what moves is complete.
    fn check_records(&self, before: &Topology) {
        let changed: SlotRanges = self.topology.slots().changed_since(before.slots()).flat_map(Slots::iter).collect();
        for slot in Slot::all().filter(|slot| !changed.contains(*slot)) {
            assert_eq!(self.topology.slot(slot), before.slot(slot), "{slot} has changed unnoticed");
        }
        let rests = |phase| matches!(phase, Phase::Normal | Phase::Dead | Phase::Electing);
        let is_moving = |slot: &Slot| !rests(self.topology.slot(*slot).phase);
        let moving = self.topology.slots().moving().map(|(slot, _)| slot);
        assert_eq!(moving.collect::<SlotRanges>(), Slot::all().filter(is_moving).collect());
    }

    /// A cluster of two, in which the first owns everything.
    fn of_two() -> (Log, Incarnation, Incarnation) {
        let mut log = Log::new();
        log.apply(TopologyChange::InitCluster { cluster: CLUSTER, hash_key: 1 });
        let first = log.register(1);
        let second = log.register(2);
        log.apply(TopologyChange::Revive { slots: SlotRanges::all(), to: NodeId(1) });
        (log, first, second)
    }

    /// A node has a copy of these slots, with everything, and is to take them over. Gives the number of the hand-over.
    fn hand_over(&mut self, slots: &SlotRanges, node: NodeId) -> u64 {
        let (slots, incarnation) = (|| slots.clone(), self.topology.nodes[&node].incarnation);
        self.apply(TopologyChange::CopyJoin { slots: slots(), node, incarnation });
        let number =
            self.topology.slot(slots().slots().next().expect("a slot")).copies.on(node).expect("a copy").number;
        self.apply(TopologyChange::CopyInSync { slots: slots(), node, incarnation, number });
        let change = TopologyChange::HandOver { slots: slots(), node, incarnation };
        assert_eq!(self.apply(change), Applied::Done);
        self.index
    }

    /// Another process of the node starts.
    fn register(&mut self, number: u8) -> Incarnation {
        let known_ms = self.topology.nodes.get(&NodeId(u128::from(number))).map_or(0, |node| node.start_ms);
        let node = Node { start_ms: known_ms + 1, ..node(number) };
        match self.apply(TopologyChange::RegisterNode { node }) {
            Applied::Registered(incarnation) => incarnation,
            other => panic!("not registered: {other:?}"),
        }
    }
}

#[test]
fn slots_move_step_by_step_and_in_a_new_epoch() {
    let (mut log, _, incarnation) = Log::of_two();
    let (from, to, moving) = (NodeId(1), NodeId(2), slots(0, 99));
    let epoch = log.topology.slot(Slot::default()).epoch;
    let join = TopologyChange::CopyJoin { slots: moving.clone(), node: to, incarnation };
    assert_eq!(log.apply(join), Applied::Done);
    let early = TopologyChange::HandOver { slots: moving.clone(), node: to, incarnation };
    assert_eq!(log.apply(early), Applied::Refused(Refused::WrongPhase), "it has nothing yet");
    let begun = log.hand_over(&moving, to);
    let handoff = TopologyChange::Handoff { slots: moving.clone(), to, incarnation, begun };
    assert_eq!(log.apply(handoff.clone()), Applied::Done);
    assert_eq!(log.apply(handoff), Applied::Refused(Refused::WrongPhase), "a change that comes twice does nothing");
    assert_eq!(log.apply(TopologyChange::Settled { slots: moving.clone(), from, begun }), Applied::Done);
    let record = log.topology.slot(Slot::default());
    assert_eq!((record.primary, record.phase), (Some(to), Phase::Normal));
    assert!(record.epoch > epoch);
    assert!(record.copies.on(from).is_some_and(|copy| copy.ready), "{record:?}");
    assert_eq!(log.topology.owned_by(to), moving);
}

#[test]
fn a_restarted_node_begins_its_slots_anew_and_stale_messages_do_nothing() {
    let (mut log, first, second) = Log::of_two();
    let (from, to) = (NodeId(1), NodeId(2));
    let begun = log.hand_over(&slots(0, 9), to);
    log.register(2);
    assert_eq!(log.topology.slot(Slot::default()).phase, Phase::Normal, "the hand-over to it is off");
    let stale = TopologyChange::Handoff { slots: slots(0, 9), to, incarnation: second, begun };
    assert_eq!(log.apply(stale), Applied::Refused(Refused::StaleIncarnation));
    let epoch = log.topology.slot(Slot::default()).epoch;
    log.register(1);
    assert!(log.topology.slot(Slot::default()).epoch > epoch, "its keys are gone");
    let (support, config) = (log.topology.nodes[&from].support, log.topology.lease_voters.config);
    let stale = TopologyChange::FenceNode { node: from, incarnation: first, support, config, at_ms: 0 };
    assert_eq!(log.apply(stale), Applied::Refused(Refused::StaleIncarnation));
}

#[test]
fn a_node_with_slots_or_copies_becomes_no_arbiter() {
    let (mut log, _, incarnation) = Log::of_two();
    let refused = Applied::Refused(Refused::OwnsSlots);
    let arbiter = |number| Node { start_ms: 9, arbiter: true, ..node(number) };
    for number in 1..=2 {
        log.apply(TopologyChange::CopyJoin { slots: slots(0, 9), node: NodeId(2), incarnation });
        let before = log.topology.nodes.clone();
        assert_eq!(log.apply(TopologyChange::RegisterNode { node: arbiter(number) }), refused);
        assert_eq!(log.apply(TopologyChange::ReturnNode { node: arbiter(number), kept: SlotRanges::all() }), refused);
        assert_eq!(log.topology.nodes, before);
    }
    let number = log.topology.slot(Slot::default()).copies.on(NodeId(2)).expect("a copy").number;
    log.apply(TopologyChange::CopyLeave { slots: slots(0, 9), node: NodeId(2), number });
    let registered = log.apply(TopologyChange::RegisterNode { node: arbiter(2) });
    let Applied::Registered(incarnation) = registered else { panic!("{registered:?}") };
    let join = TopologyChange::CopyJoin { slots: slots(0, 9), node: NodeId(2), incarnation };
    assert_eq!(log.apply(join), Applied::Refused(Refused::NotActive));
    // Its next life may be another.
    let incarnation = log.register(2);
    let join = TopologyChange::CopyJoin { slots: slots(0, 9), node: NodeId(2), incarnation };
    assert_eq!(log.apply(join), Applied::Done);
}

#[test]
fn a_node_that_returns_has_its_slots_as_they_were() {
    let (mut log, first, second) = Log::of_two();
    let (from, to) = (NodeId(1), NodeId(2));
    let begun = log.hand_over(&slots(0, 9), to);
    log.fence(from);
    log.apply(TopologyChange::MarkDead { slots: slots(100, 200), node: from, incarnation: first });
    let epoch = log.topology.slot(Slot::default()).epoch;
    let returned =
        log.apply(TopologyChange::ReturnNode { node: Node { start_ms: 5, ..node(1) }, kept: SlotRanges::all() });
    assert!(matches!(returned, Applied::Registered(incarnation) if incarnation > first), "{returned:?}");
    let elsewhere = slots(0, 9);
    assert_eq!(log.topology.owned_by(from), SlotRanges::all().difference(&elsewhere));
    for slot in Slot::all() {
        let record = log.topology.slot(slot);
        match elsewhere.contains(slot) {
            true => assert_eq!(record.phase, Phase::Electing, "{slot}: another has it"),
            false => assert_eq!((record.epoch, record.phase), (epoch, Phase::Normal), "{slot}"),
        }
    }
    let late = TopologyChange::Handoff { slots: slots(0, 9), to, incarnation: second, begun };
    assert_eq!(log.apply(late), Applied::Refused(Refused::WrongPhase));
    // One that nobody knows joins as any other.
    let new = log.apply(TopologyChange::ReturnNode { node: node(3), kept: SlotRanges::all() });
    assert!(matches!(new, Applied::Registered(_)), "{new:?}");
    assert!(log.topology.owned_by(NodeId(3)).is_empty());
}

#[test]
fn slots_of_a_member_that_may_come_back_are_given_to_nobody_else() {
    let (mut log, first, _) = Log::of_two();
    let (node, incarnation) = (NodeId(1), first);
    log.fence(node);
    log.apply(TopologyChange::MarkDead { slots: slots(0, 9), node, incarnation });
    assert_eq!(log.topology.slot(Slot::default()).phase, Phase::Dead);
    let revive = TopologyChange::Revive { slots: slots(0, 9), to: NodeId(2) };
    assert_eq!(log.apply(revive.clone()), Applied::Refused(Refused::NotThePrimary), "it may be alive, with its keys");
    assert_eq!(log.apply(TopologyChange::ForgetNode { node, incarnation, decided_by: u64::MAX }), Applied::Done);
    assert_eq!(log.apply(revive.clone()), Applied::Done);
    assert_eq!(log.topology.owned_by(NodeId(2)), slots(0, 9));
    assert_eq!(log.apply(revive), Applied::Refused(Refused::NotThePrimary), "said twice it would empty them");
}

#[test]
fn a_late_word_of_its_death_does_nothing_to_a_node_that_is_back() {
    let (mut log, first, _) = Log::of_two();
    let (node, incarnation) = (NodeId(1), first);
    let dead = TopologyChange::MarkDead { slots: SlotRanges::all(), node, incarnation };
    assert_eq!(log.apply(dead.clone()), Applied::Refused(Refused::NotDown));
    log.fence(node);
    assert_eq!(log.apply(dead.clone()), Applied::Done);
    assert_eq!(log.apply(dead.clone()), Applied::Refused(Refused::NoChange), "and no second event");
    log.raise(node);
    assert_eq!(log.apply(dead), Applied::Refused(Refused::NotDown));
    assert_eq!(log.topology.slot(Slot::default()).phase, Phase::Normal);
}

#[test]
fn a_member_that_owns_slots_is_not_forgotten_by_mistake() {
    let (mut log, first, _) = Log::of_two();
    assert_eq!(
        log.apply(TopologyChange::ForgetNode { node: NodeId(1), incarnation: first, decided_by: u64::MAX }),
        Applied::Refused(Refused::NotDown)
    );
    log.fence(NodeId(1));
    assert_eq!(
        log.apply(TopologyChange::ForgetNode { node: NodeId(1), incarnation: first, decided_by: u64::MAX }),
        Applied::Done
    );
    assert_eq!(log.topology.slot(Slot::default()).primary, None);
}

#[test]
fn a_registration_said_twice_is_one_registration() {
    let (mut log, first, _) = Log::of_two();
    let epoch = log.topology.slot(Slot::default()).epoch;
    let again = TopologyChange::RegisterNode { node: node(1) };
    assert_eq!(log.apply(again.clone()), Applied::Registered(first));
    assert_eq!(log.topology.slot(Slot::default()).epoch, epoch);
    assert!(log.register(1) > first);
    assert_eq!(log.apply(again), Applied::Refused(Refused::StaleIncarnation), "an earlier life says it late");
}

#[test]
fn what_comes_late_from_one_hand_over_does_nothing_to_the_next() {
    let (mut log, _, second) = Log::of_two();
    let (to, moving) = (NodeId(2), slots(0, 9));
    let early = log.hand_over(&moving, to);
    log.apply(TopologyChange::AbortHandoff { slots: slots(0, 9), to, begun: early });
    log.hand_over(&moving, to);
    let late = [
        TopologyChange::Handoff { slots: slots(0, 9), to, incarnation: second, begun: early },
        TopologyChange::AbortHandoff { slots: slots(0, 9), to, begun: early },
    ];
    for change in late {
        assert_eq!(log.apply(change.clone()), Applied::Refused(Refused::WrongPhase), "{change:?}");
    }
}

#[test]
fn a_member_that_was_back_meanwhile_is_not_forgotten() {
    let (mut log, incarnation, _) = Log::of_two();
    let node = NodeId(1);
    log.fence(node);
    let forget = |decided_by| TopologyChange::ForgetNode { node, incarnation, decided_by };
    let early = log.index;
    log.raise(node);
    log.fence(node);
    assert_eq!(log.apply(forget(early)), Applied::Refused(Refused::DecidedBefore));
    // Its slots are marked after somebody saw it down, and has decided.
    let now = log.index;
    log.apply(TopologyChange::MarkDead { slots: SlotRanges::all(), node, incarnation });
    assert_eq!(log.apply(forget(early)), Applied::Refused(Refused::DecidedBefore));
    assert_eq!(log.apply(forget(now)), Applied::Done);
}

#[test]
fn a_node_that_was_alive_all_the_time_has_its_slots_back() {
    let (mut log, first, _) = Log::of_two();
    let epoch = log.topology.slot(Slot::default()).epoch;
    log.fence(NodeId(1));
    log.apply(TopologyChange::MarkDead { slots: SlotRanges::all(), node: NodeId(1), incarnation: first });
    assert_eq!(log.topology.slot(Slot::default()).phase, Phase::Dead);
    assert_eq!(log.raise(NodeId(1)), Applied::Done);
    let record = log.topology.slot(Slot::default());
    assert_eq!((record.phase, record.epoch), (Phase::Normal, epoch));
}

#[test]
fn a_member_that_is_down_and_comes_back_still_wants_to_leave() {
    let (mut log, first, _) = Log::of_two();
    let (node, incarnation) = (NodeId(1), first);
    let leaving = TopologyChange::Leaving { node, incarnation };
    assert_eq!(log.apply(leaving.clone()), Applied::Done);
    assert_eq!(log.apply(leaving), Applied::Refused(Refused::NoChange));
    for change in [Log::fence, Log::raise] {
        assert_eq!(change(&mut log, node), Applied::Done);
        assert!(log.topology.nodes[&node].leaving && !log.topology.nodes[&node].takes_slots());
    }
    let to_it = TopologyChange::CopyJoin { slots: slots(0, 9), node, incarnation };
    assert_eq!(log.apply(to_it), Applied::Refused(Refused::NotActive));
    log.register(1);
    assert!(!log.topology.nodes[&node].leaving, "its next life has not said so");
}

#[test]
fn a_late_removal_takes_no_slots_with_it() {
    let (mut log, first, _) = Log::of_two();
    let (node, incarnation) = (NodeId(1), first);
    let remove = TopologyChange::RemoveNode { node, incarnation };
    assert_eq!(log.apply(remove.clone()), Applied::Refused(Refused::NotLeaving));
    log.apply(TopologyChange::Leaving { node, incarnation });
    assert_eq!(log.apply(remove.clone()), Applied::Refused(Refused::OwnsSlots));
    log.fence(node);
    log.apply(TopologyChange::MarkDead { slots: SlotRanges::all(), node, incarnation });
    assert_eq!(log.apply(remove), Applied::Refused(Refused::OwnsSlots), "it may come back, with its keys");
    assert_eq!(log.topology.owned_by(node), SlotRanges::all());
}

#[test]
fn an_address_has_one_member() {
    let (mut log, ..) = Log::of_two();
    let impostor = Node { ip: node(1).ip, ..node(3) };
    let applied = log.apply(TopologyChange::RegisterNode { node: impostor });
    assert_eq!(applied, Applied::Refused(Refused::AddressTaken));
}

#[test]
fn nothing_happens_before_there_is_a_cluster() {
    let mut log = Log::new();
    let applied = log.apply(TopologyChange::RegisterNode { node: node(1) });
    assert_eq!(applied, Applied::Refused(Refused::NoCluster));
    log.apply(TopologyChange::InitCluster { cluster: CLUSTER, hash_key: 1 });
    let other = TopologyChange::InitCluster { cluster: ClusterId(8), hash_key: 2 };
    assert_eq!(log.apply(other), Applied::Refused(Refused::OtherCluster));
}

/// Changes that mostly make sense, and often come too late, too early or twice.
fn any_change() -> impl Strategy<Value = TopologyChange> {
    let range = (0u16..40, 0u16..10).prop_map(|(first, more)| slots(first, first + more));
    (0u8..19, range, 1u8..4, 1u8..4, (1u64..8, 4u64..64)).prop_map(|(kind, slots, a, b, (life, begun))| {
        let (from, to) = (NodeId(u128::from(a)), NodeId(u128::from(b)));
        let incarnation = Incarnation(life);
        match kind {
            0 => TopologyChange::RegisterNode { node: Node { start_ms: life, ..node(a) } },
            1 | 2 => TopologyChange::CopyJoin { slots, node: to, incarnation },
            3 | 4 => TopologyChange::CopyInSync { slots, node: to, incarnation, number: begun },
            5 => TopologyChange::HandOver { slots, node: to, incarnation },
            6 => TopologyChange::Handoff { slots, to, incarnation, begun },
            7 => TopologyChange::AbortHandoff { slots, to, begun },
            8 => TopologyChange::Settled { slots, from, begun },
            9 => TopologyChange::MarkDead { slots, node: from, incarnation },
            10 => TopologyChange::Revive { slots, to },
            11 if begun % 2 == 0 => {
                TopologyChange::FenceNode { node: from, incarnation, support: begun, config: 2, at_ms: begun }
            }
            11 => TopologyChange::RaiseSupport { node: from, incarnation, support: begun },
            12 => TopologyChange::Leaving { node: from, incarnation },
            13 => TopologyChange::ForgetNode { node: from, incarnation, decided_by: begun },
            14 => TopologyChange::CopyLeave { slots, node: to, number: begun },
            15 => TopologyChange::BeginElection { slots, node: from, incarnation },
            16 => TopologyChange::Promote { slots, epoch: Epoch(begun as u32 % 8), node: to, incarnation },
            17 => TopologyChange::GiveUpSlots { slots, decided_by: begun },
            _ => TopologyChange::RemoveNode { node: from, incarnation },
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// Whatever comes in whatever order: epochs never go back, no epoch has two primaries, who owns a living slot is a
    /// member, and two nodes that applied the same changes are equal.
    #[test]
    fn invariants_hold_in_any_order(changes in prop::collection::vec(any_change(), 1..60)) {
        let mut log = Log::of_two().0;
        let start = log.topology.clone();
        for change in &changes {
            log.apply(change.clone());
            let is_served = |record: &&SlotRecord| !matches!(record.phase, Phase::Dead | Phase::Electing);
            for record in log.topology.slots().iter().filter(is_served) {
                let primary = record.primary.expect("a living slot has a primary");
                prop_assert!(log.topology.nodes.contains_key(&primary));
            }
            for record in log.topology.slots().iter() {
                let on: std::collections::BTreeSet<NodeId> = record.copies.iter().map(|copy| copy.node).collect();
                prop_assert!(on.len() == record.copies.len() && record.copies.len() <= COPIES_MAX + 1);
                prop_assert!(record.primary.is_none_or(|primary| !on.contains(&primary)), "{record:?}");
                prop_assert!(record.phase != Phase::Electing || record.primary.is_none());
            }
            for record in log.topology.slots().iter().filter(|record| record.phase == Phase::Dead) {
                let down = |id| log.topology.nodes.get(&id).is_some_and(|node| node.state == NodeState::Down);
                prop_assert!(record.primary.is_none_or(down), "a dead slot is nobody's, or of a member that is down");
            }
        }
        let mut other = start;
        for (index, change) in (other.version + 1..).zip(&changes) {
            other.apply(index, change);
            other.apply(index, change);
        }
        prop_assert_eq!(other, log.topology);
    }
}

/// A fence that was decided by another support, or by other voters, comes too late; so does a support that was raised already.
#[test]
fn fences_and_supports_name_what_they_are_about() {
    let (mut log, _, _) = Log::of_two();
    let (node, other) = (NodeId(1), NodeId(2));
    let (fence, raise) =
        (log.topology.fence_of(node, 0).expect("a member"), log.topology.raise_of(node).expect("a member"));
    let of_other = log.topology.fence_of(other, 0).expect("a member");
    assert_eq!(log.topology.lease_voters.votes, [node, node], "the first of a cluster decides alone");
    assert_eq!(log.raise(node), Applied::Done, "a support is raised before anybody fences");
    assert_eq!(log.apply(fence), Applied::Refused(Refused::OtherNumber));
    assert_eq!(log.apply(raise), Applied::Refused(Refused::OtherNumber));
    let config = log.topology.lease_voters.config;
    let set = |config, votes: &[NodeId]| TopologyChange::SetLeaseVoters { config, votes: votes.to_vec() };
    assert_eq!(log.apply(set(config, &[node, other])), Applied::Refused(Refused::OtherNumber), "one vote at a time");
    assert_eq!(log.apply(set(config, &[node, node, NodeId(9)])), Applied::Refused(Refused::UnknownNode));
    assert_eq!(log.apply(set(config, &[node, node, other])), Applied::Done);
    assert_eq!(log.apply(set(config, &[node, node])), Applied::Refused(Refused::OtherNumber));
    assert_eq!(log.apply(of_other), Applied::Refused(Refused::OtherNumber), "others voted then");
    assert_eq!(log.fence(other), Applied::Done);
    assert_eq!(log.fence(other), Applied::Refused(Refused::NoChange));
    let support = log.topology.nodes[&other].support;
    assert_eq!(log.raise(other), Applied::Done);
    assert!(log.topology.nodes[&other].support > support);
}

#[test]
fn a_member_that_supports_leases_is_not_removed() {
    let (mut log, _, second) = Log::of_two();
    let (first, node) = (NodeId(1), NodeId(2));
    let config = log.topology.lease_voters.config;
    log.apply(TopologyChange::SetLeaseVoters { config, votes: vec![first, first, node] });
    log.apply(TopologyChange::Leaving { node, incarnation: second });
    let remove = TopologyChange::RemoveNode { node, incarnation: second };
    assert_eq!(log.apply(remove.clone()), Applied::Refused(Refused::SupportsLeases));
    let config = log.topology.lease_voters.config;
    log.apply(TopologyChange::SetLeaseVoters { config, votes: vec![first, first] });
    assert_eq!(log.apply(remove), Applied::Done);
}
