use super::*;
use crate::base::identity::ClusterId;
use crate::cluster::topology::{Node, sample};

const PATIENCE_US: u64 = 10_000_000;

/// A cluster whose first node owns everything and drains.
struct Cluster {
    topology: Topology,
    draining: Draining,
    now_us: u64,
}

impl Cluster {
    fn of(nodes: u16) -> Cluster {
        let draining = Draining::new(NodeId(1), Incarnation(1), PATIENCE_US, 0);
        let mut cluster = Cluster { topology: Topology::default(), draining, now_us: 0 };
        cluster.agree(TopologyChange::InitCluster { cluster: ClusterId(1), hash_key: 1 });
        for number in 1..=nodes {
            let node = sample::node(NodeId(number.into()));
            cluster.agree(TopologyChange::RegisterNode { node });
        }
        cluster.agree(TopologyChange::Revive { slots: Slot::all().collect(), to: NodeId(1) });
        cluster
    }

    fn agree(&mut self, change: TopologyChange) {
        self.topology.apply(self.topology.version + 1, &change);
    }

    /// A copy of these slots is to take them over. Gives the number of that.
    fn hand_over(&mut self, slots: &SlotRanges, node: NodeId, incarnation: Incarnation) -> u64 {
        self.agree(TopologyChange::CopyJoin { slots: slots.clone(), node, incarnation });
        let number = self.topology.version;
        self.agree(TopologyChange::CopyInSync { slots: slots.clone(), node, incarnation, number });
        self.agree(TopologyChange::HandOver { slots: slots.clone(), node, incarnation });
        self.topology.version
    }

    fn leaves(&mut self, number: u16) {
        let (node, incarnation) = (NodeId(number.into()), Incarnation(number.into()));
        self.agree(TopologyChange::Leaving { node, incarnation });
    }

    fn goes_down(&mut self, number: u16) {
        self.agree(self.topology.fence_of(NodeId(number.into()), 0).expect("a member"));
    }

    fn look(&mut self) -> Next {
        self.draining.look(&self.topology, false, self.now_us)
    }

    /// Looks for so long, often enough; gives how long it took to end.
    fn run(&mut self, at_most_us: u64) -> Option<(u64, Drained)> {
        let began_us = self.now_us;
        while self.now_us - began_us < at_most_us {
            if let Next::End(drained) = self.look() {
                return Some((self.now_us - began_us, drained));
            }
            self.now_us += STOOD_STILL_US / 2;
        }
        None
    }
}

fn all_left() -> Drained {
    Drained::Left { slots: Slot::all().collect(), reason: Reason::NobodyTakesThem }
}

#[test]
fn while_somebody_can_take_them_it_never_ends_with_slots() {
    let mut cluster = Cluster::of(2);
    assert!(matches!(cluster.look(), Next::Propose(TopologyChange::Leaving { .. })));
    assert_eq!(cluster.run(3 * PATIENCE_US), None);
    cluster.leaves(1);
    assert_eq!(cluster.run(3 * PATIENCE_US), None);
}

#[test]
fn while_nothing_moves_it_warns_now_and_then() {
    let mut cluster = Cluster::of(2);
    cluster.leaves(1);
    let mut warned = 0;
    for _ in 0..4 * (3 * PATIENCE_US / STOOD_STILL_US) {
        warned += usize::from(matches!(cluster.look(), Next::Warn { slots } if slots == Slot::all().count()));
        cluster.now_us += STOOD_STILL_US / 4;
    }
    assert_eq!(warned, 2);
}

#[test]
fn alone_it_ends_at_once_and_says_what_is_left() {
    assert_eq!(Cluster::of(1).run(PATIENCE_US), Some((0, all_left())));
}

#[test]
fn an_arbiter_takes_nothing_and_is_not_waited_for() {
    let mut cluster = Cluster::of(1);
    let node = Node { arbiter: true, ..sample::node(NodeId(2)) };
    cluster.agree(TopologyChange::RegisterNode { node });
    assert_eq!(cluster.run(PATIENCE_US), Some((0, all_left())));
}

#[test]
fn where_all_leave_it_stays_until_the_others_have_learned_it() {
    let mut cluster = Cluster::of(2);
    cluster.leaves(2);
    assert!(cluster.run(LINGER_US + LINGER_US).is_none(), "not before its own wish is known");
    cluster.leaves(1);
    let (took_us, drained) = cluster.run(PATIENCE_US).expect("it ends");
    assert!(took_us <= LINGER_US, "{took_us}");
    assert_eq!(drained, all_left());
}

#[test]
fn it_waits_for_members_that_are_down_as_long_as_it_runs() {
    let mut cluster = Cluster::of(2);
    cluster.leaves(1);
    cluster.goes_down(2);
    for _ in 0..5 {
        assert_eq!(cluster.run(PATIENCE_US / 10), None);
        cluster.now_us += 10 * PATIENCE_US;
        assert!(!matches!(cluster.look(), Next::End(_)), "it stood still for that long");
    }
    let (_, drained) = cluster.run(PATIENCE_US).expect("it ends when it has waited long enough");
    assert_eq!(drained, all_left());
}

#[test]
fn it_goes_when_it_holds_nothing() {
    let mut cluster = Cluster::of(2);
    cluster.leaves(1);
    cluster.look();
    let slots: SlotRanges = Slot::all().collect();
    let (from, to) = (NodeId(1), NodeId(2));
    let incarnation = Incarnation(2);
    let begun = cluster.hand_over(&slots, to, incarnation);
    cluster.agree(TopologyChange::Handoff { slots: slots.clone(), to, incarnation, begun });
    let number = cluster.topology.version;
    assert_eq!(cluster.look(), Next::Wait, "its keys are still here");
    cluster.agree(TopologyChange::Settled { slots: slots.clone(), from, begun });
    assert_eq!(cluster.look(), Next::Wait, "it is a copy");
    cluster.agree(TopologyChange::CopyLeave { slots, node: from, number });
    for votes in [vec![from, from, to], vec![from, from, to, to], vec![from, to, to], vec![to, to]] {
        assert_eq!(cluster.look(), Next::Wait, "it supports leases");
        let config = cluster.topology.lease_voters.config;
        cluster.agree(TopologyChange::SetLeaseVoters { config, votes });
    }
    let remove = TopologyChange::RemoveNode { node: from, incarnation: Incarnation(1) };
    assert_eq!(cluster.look(), Next::Propose(remove.clone()));
    cluster.agree(remove);
    assert_eq!(cluster.look(), Next::End(Drained::Everything));
}

/// A hand-over to it may be agreed without its hearing so, and then it has the only keys.
#[test]
fn it_waits_to_know_what_becomes_of_slots_on_their_way_to_it() {
    let mut cluster = Cluster::of(2);
    let (to, incarnation) = (NodeId(2), Incarnation(2));
    cluster.draining = Draining::new(to, incarnation, PATIENCE_US, 0);
    let slots: SlotRanges = Slot::all().take(4).collect();
    let begun = cluster.hand_over(&slots, to, incarnation);
    let number = cluster.topology.slot(Slot::default()).copies.on(to).expect("a copy").number;
    cluster.leaves(2);
    assert_eq!(cluster.run(2 * PATIENCE_US), None);
    let (reason, lost) = (Reason::ToldAgain, slots.clone());
    assert_eq!(cluster.draining.left(&cluster.topology, reason), Drained::Left { slots: lost, reason });
    cluster.agree(TopologyChange::AbortHandoff { slots: slots.clone(), to, begun });
    assert_eq!(cluster.draining.left(&cluster.topology, Reason::ToldAgain), Drained::Everything, "it is a copy");
    assert!(!matches!(cluster.look(), Next::Propose(_) | Next::End(_)), "there are others to have it");
    cluster.agree(TopologyChange::CopyLeave { slots, node: to, number });
    assert_eq!(cluster.look(), Next::Propose(TopologyChange::RemoveNode { node: to, incarnation }));
}

#[test]
fn it_ends_though_a_late_registration_brings_it_back() {
    let mut cluster = Cluster::of(2);
    cluster.leaves(1);
    let own = cluster.topology.nodes[&NodeId(1)].clone();
    let (slots, node, incarnation) = (Slot::all().collect::<SlotRanges>(), NodeId(1), Incarnation(1));
    cluster.look();
    cluster.goes_down(1);
    cluster.agree(TopologyChange::ForgetNode { node, incarnation, decided_by: u64::MAX });
    cluster.agree(TopologyChange::RegisterNode { node: own });
    assert_eq!(cluster.look(), Next::End(Drained::Left { slots, reason: Reason::Forgotten }));
}

#[test]
fn it_is_told_when_it_was_forgotten_with_its_slots() {
    let mut cluster = Cluster::of(2);
    cluster.leaves(1);
    cluster.look();
    cluster.goes_down(1);
    cluster.agree(TopologyChange::ForgetNode { node: NodeId(1), incarnation: Incarnation(1), decided_by: u64::MAX });
    let slots = Slot::all().collect();
    assert_eq!(cluster.look(), Next::End(Drained::Left { slots, reason: Reason::Forgotten }));
}

#[test]
fn what_is_left_is_lost_unless_the_log_has_it_and_nobody_waits_for_it() {
    let cases = [
        (Reason::NobodyTakesThem, 1, true, false),
        (Reason::NobodyTakesThem, 1, false, true),
        (Reason::NobodyTakesThem, 0, false, false),
        (Reason::ToldAgain, 0, true, true),
        (Reason::Forgotten, 1, true, true),
    ];
    for (reason, keys, is_kept, loses) in cases {
        assert_eq!(reason.loses(keys, is_kept), loses, "{reason:?}, {keys} keys, kept: {is_kept}");
    }
}
