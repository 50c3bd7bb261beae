use super::*;
use crate::base::identity::ClusterId;
use crate::cluster::topology::Node;
use std::net::{IpAddr, Ipv4Addr};

const PATIENCE: Duration = Duration::from_secs(10);

/// A cluster whose first node owns everything and drains.
struct Cluster {
    topology: Topology,
    draining: Draining,
    now: Instant,
}

impl Cluster {
    fn of(nodes: u16) -> Cluster {
        let now = Instant::now();
        let draining = Draining::new(NodeId(1), Incarnation(1), PATIENCE, now);
        let mut cluster = Cluster { topology: Topology::default(), draining, now };
        cluster.agree(TopologyChange::InitCluster { cluster: ClusterId(1), hash_key: 1 });
        for number in 1..=nodes {
            let node = Node {
                id: NodeId(number.into()),
                incarnation: Incarnation(0),
                ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
                port: number,
                cluster_port: 100 + number,
                hostname: String::new(),
                weight: 1,
                zone: String::new(),
                proxy_port: 0,
                start_ms: 1,
                state: NodeState::Active,
                leaving: false,
            };
            cluster.agree(TopologyChange::RegisterNode { node });
        }
        cluster.agree(TopologyChange::Revive { slots: Slot::all().collect(), to: NodeId(1) });
        cluster
    }

    fn agree(&mut self, change: TopologyChange) {
        self.topology.apply(self.topology.version + 1, &change);
    }

    fn leaves(&mut self, number: u16) {
        let (node, incarnation) = (NodeId(number.into()), Incarnation(number.into()));
        self.agree(TopologyChange::Leaving { node, incarnation });
    }

    fn goes_down(&mut self, number: u16) {
        let (node, incarnation) = (NodeId(number.into()), Incarnation(number.into()));
        self.agree(TopologyChange::SetMemberState { node, incarnation, state: NodeState::Down });
    }

    fn look(&mut self) -> Next {
        self.draining.look(&self.topology, false, self.now)
    }

    /// Looks for so long, often enough; gives how long it took to end.
    fn run(&mut self, at_most: Duration) -> Option<(Duration, Drained)> {
        let began = self.now;
        while self.now - began < at_most {
            if let Next::End(drained) = self.look() {
                return Some((self.now - began, drained));
            }
            self.now += STOOD_STILL / 2;
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
    assert_eq!(cluster.run(3 * PATIENCE), None);
    cluster.leaves(1);
    assert_eq!(cluster.run(3 * PATIENCE), None);
}

#[test]
fn alone_it_ends_at_once_and_says_what_is_left() {
    assert_eq!(Cluster::of(1).run(PATIENCE), Some((Duration::ZERO, all_left())));
}

#[test]
fn where_all_leave_it_stays_until_the_others_have_learned_it() {
    let mut cluster = Cluster::of(2);
    cluster.leaves(2);
    assert!(cluster.run(LINGER + LINGER).is_none(), "not before its own wish is known");
    cluster.leaves(1);
    let (took, drained) = cluster.run(PATIENCE).expect("it ends");
    assert!(took <= LINGER, "{took:?}");
    assert_eq!(drained, all_left());
}

#[test]
fn it_waits_for_members_that_are_down_as_long_as_it_runs() {
    let mut cluster = Cluster::of(2);
    cluster.leaves(1);
    cluster.goes_down(2);
    for _ in 0..5 {
        assert_eq!(cluster.run(PATIENCE / 10), None);
        cluster.now += 10 * PATIENCE;
        assert!(!matches!(cluster.look(), Next::End(_)), "it stood still for that long");
    }
    let (_, drained) = cluster.run(PATIENCE).expect("it ends when it has waited long enough");
    assert_eq!(drained, all_left());
}

#[test]
fn it_goes_when_it_holds_nothing() {
    let mut cluster = Cluster::of(2);
    cluster.leaves(1);
    cluster.look();
    let slots: SlotRanges = Slot::all().collect();
    let (from, to) = (NodeId(1), NodeId(2));
    cluster.agree(TopologyChange::CopyAdd { slots: slots.clone(), from, to });
    let begun = cluster.topology.version;
    let incarnation = Incarnation(2);
    cluster.agree(TopologyChange::CopyReady { slots: slots.clone(), to, incarnation, begun });
    cluster.agree(TopologyChange::BeginHandoff { slots: slots.clone(), to, begun });
    cluster.agree(TopologyChange::Handoff { slots: slots.clone(), to, incarnation, begun });
    assert_eq!(cluster.look(), Next::Wait, "its keys are still here");
    cluster.agree(TopologyChange::CopyRemove { slots, node: from, begun });
    let remove = TopologyChange::RemoveNode { node: from, incarnation: Incarnation(1) };
    assert_eq!(cluster.look(), Next::Propose(remove.clone()));
    cluster.agree(remove);
    assert_eq!(cluster.look(), Next::End(Drained::Everything));
}

#[test]
fn it_is_told_when_it_was_forgotten_with_its_slots() {
    let mut cluster = Cluster::of(2);
    cluster.leaves(1);
    cluster.look();
    cluster.goes_down(1);
    cluster.agree(TopologyChange::ForgetNode { node: NodeId(1), incarnation: Incarnation(1) });
    let slots = Slot::all().collect();
    assert_eq!(cluster.look(), Next::End(Drained::Left { slots, reason: Reason::Forgotten }));
}
