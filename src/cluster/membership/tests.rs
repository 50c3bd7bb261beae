//! Two or three nodes on a perfect network with a clock moved by hand. Faults are for the simulation.

use super::*;
use std::collections::VecDeque;

const SECOND_US: u64 = 1_000_000;

struct Nodes {
    nodes: Vec<Option<Membership>>,
    now_us: u64,
    events: Vec<(usize, MembershipEvent)>,
    cut: Vec<(usize, usize)>,
    sent_bytes: u64,
}

fn address(number: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 17_000 + number as u16))
}

fn options(number: usize, start_ms: u64) -> MembershipOptions {
    MembershipOptions {
        identity: MemberIdentity {
            node: NodeId(number as u128 + 1),
            address: address(number),
            life: Life { start_ms, renewals: 0 },
            metadata: MemberMetadata { client_port: 7000 + number as u16, ..MemberMetadata::default() },
        },
        cluster: ClusterId(1),
        generation: 0,
        secret: ClusterSecret::new(b"secret"),
        seeds: vec![address(0)],
        random_seed: number as u64 * 1000 + start_ms,
    }
}

impl Nodes {
    fn new(count: usize) -> Nodes {
        let nodes = (0..count).map(|number| Some(Membership::new(options(number, 100), 0))).collect();
        Nodes { nodes, now_us: 0, events: Vec::new(), cut: Vec::new(), sent_bytes: 0 }
    }

    fn perform(&mut self, number: usize, outputs: Outputs) {
        let mut queue = VecDeque::from([(number, outputs)]);
        while let Some((from, outputs)) = queue.pop_front() {
            self.events.extend(outputs.events.into_iter().map(|event| (from, event)));
            for (to, bytes) in outputs.datagrams {
                self.sent_bytes += bytes.len() as u64;
                // A damaged message may name any port.
                let Some(to) = usize::from(to.port()).checked_sub(17_000) else { continue };
                if self.cut.contains(&(from, to)) {
                    continue;
                }
                let input = Input::Datagram { from: address(from), bytes: &bytes };
                if let Some(node) = self.nodes.get_mut(to).and_then(Option::as_mut) {
                    queue.push_back((to, node.step(input, self.now_us)));
                }
            }
        }
    }

    fn step(&mut self, number: usize, input: Input<'_>) {
        let outputs = self.nodes[number].as_mut().expect("a node that runs").step(input, self.now_us);
        self.perform(number, outputs);
    }

    fn run_secs(&mut self, seconds: u64) {
        let end_us = self.now_us + seconds * SECOND_US;
        while self.now_us < end_us {
            self.now_us += 50_000;
            for number in 0..self.nodes.len() {
                let due = self.nodes[number].as_ref().and_then(Membership::next_due_us);
                if due.is_some_and(|due| due <= self.now_us) {
                    self.step(number, Input::TimersDue);
                }
            }
        }
    }

    fn live(&self, number: usize) -> Vec<u128> {
        let view = self.nodes[number].as_ref().expect("a node that runs").view();
        view.live().map(|member| member.identity.node.0).collect()
    }

    fn happened(&self, number: usize, wanted: impl Fn(&MembershipEvent) -> bool) -> usize {
        self.events.iter().filter(|(node, event)| *node == number && wanted(event)).count()
    }

    fn clear(&mut self) {
        self.events.clear();
    }
}

#[test]
fn nodes_that_know_one_address_find_each_other() {
    let mut nodes = Nodes::new(3);
    nodes.run_secs(3);
    assert_eq!((nodes.live(0), nodes.live(1), nodes.live(2)), (vec![2, 3], vec![1, 3], vec![1, 2]));
    assert_eq!(nodes.happened(1, |event| matches!(event, MembershipEvent::MemberUp(_))), 2);
    let metadata = nodes.nodes[1].as_ref().expect("runs").view().member(NodeId(3)).expect("known").identity.metadata;
    assert_eq!(metadata.client_port, 7002);
}

#[test]
fn a_member_that_leaves_is_down_at_once_and_stays_silent() {
    let mut nodes = Nodes::new(3);
    nodes.run_secs(3);
    nodes.step(2, Input::Leave);
    assert_eq!((nodes.live(0), nodes.live(1)), (vec![2], vec![1]));
    nodes.run_secs(30);
    assert_eq!((nodes.live(0), nodes.live(1)), (vec![2], vec![1]));
    assert_eq!(nodes.nodes[2].as_ref().expect("kept").next_due_us(), None);
}

#[test]
fn a_member_that_dies_is_suspected_then_down() {
    let mut nodes = Nodes::new(3);
    nodes.run_secs(3);
    nodes.nodes[2] = None;
    nodes.run_secs(10);
    assert_eq!(nodes.live(0), vec![2]);
    assert_eq!(nodes.happened(0, |event| matches!(event, MembershipEvent::MemberSuspected(_))), 1);
    assert_eq!(nodes.happened(0, |event| matches!(event, MembershipEvent::MemberDown(_))), 1);
}

#[test]
fn a_restart_is_one_event_and_its_earlier_life_is_refused() {
    let mut nodes = Nodes::new(3);
    nodes.run_secs(3);
    nodes.clear();
    nodes.nodes[2] = Some(Membership::new(options(2, 200), nodes.now_us));
    nodes.run_secs(3);
    assert_eq!(nodes.live(0), vec![2, 3]);
    assert_eq!(nodes.happened(0, |event| matches!(event, MembershipEvent::MemberRestarted { .. })), 1);
    assert_eq!(nodes.happened(0, |event| matches!(event, MembershipEvent::MemberDown(_))), 0);
    let mut stale = Membership::new(options(2, 100), nodes.now_us);
    let outputs = stale.step(Input::TimersDue, nodes.now_us);
    for (to, bytes) in outputs.datagrams {
        nodes.step(to.port() as usize - 17_000, Input::Datagram { from: address(2), bytes: &bytes });
    }
    let stale = |event: &MembershipEvent| matches!(event, MembershipEvent::Rejected { reason: Reject::StaleLife, .. });
    assert_eq!(nodes.happened(0, stale), 1);
}

#[test]
fn a_node_whose_clock_was_set_back_overtakes_its_earlier_life() {
    let mut nodes = Nodes::new(3);
    nodes.run_secs(3);
    nodes.nodes[2] = None;
    nodes.run_secs(20);
    nodes.clear();
    nodes.nodes[2] = Some(Membership::new(options(2, 50), nodes.now_us));
    nodes.run_secs(10);
    assert_eq!((nodes.live(0), nodes.live(2)), (vec![2, 3], vec![1, 2]));
    let life = nodes.nodes[2].as_ref().expect("runs").view().own.life;
    assert_eq!(life, Life { start_ms: 101, renewals: 0 });
}

#[test]
fn two_halves_of_a_split_find_each_other_again() {
    let mut nodes = Nodes::new(2);
    nodes.run_secs(3);
    nodes.cut = vec![(0, 1), (1, 0)];
    nodes.run_secs(15);
    assert_eq!((nodes.live(0), nodes.live(1)), (vec![], vec![]));
    assert_eq!(nodes.happened(0, |event| *event == MembershipEvent::Alone), 1);
    nodes.cut.clear();
    nodes.run_secs(6);
    assert_eq!((nodes.live(0), nodes.live(1)), (vec![2], vec![1]));
}

/// The promises of CLUSTER: 100 nodes, discovery under 30 s, a failure noticed under 60 s, about 1 KB/s per node.
#[test]
fn a_hundred_nodes_with_one_seed_know_each_other_in_30_seconds() {
    const COUNT: usize = 100;
    let mut nodes = Nodes::new(COUNT);
    let all_know = |nodes: &Nodes| (0..COUNT).all(|number| nodes.live(number).len() == COUNT - 1);
    let known_after = (1..=30).find(|_| {
        nodes.run_secs(1);
        all_know(&nodes)
    });
    println!("100 nodes know each other after {known_after:?} s");
    assert!(known_after.is_some());
    nodes.run_secs(20);
    let before = nodes.sent_bytes;
    nodes.run_secs(20);
    println!("quiet: {} bytes per node and second", (nodes.sent_bytes - before) / 20 / COUNT as u64);
    nodes.nodes[70] = None;
    let noticed_after = (1..=60).find(|_| {
        nodes.run_secs(1);
        (0..COUNT).filter(|&number| number != 70).all(|number| nodes.live(number).len() == COUNT - 2)
    });
    println!("all believe a dead node dead after {noticed_after:?} s");
    assert!(noticed_after.is_some());
}

#[test]
fn a_broadcast_reaches_everyone_else_once() {
    let mut nodes = Nodes::new(3);
    nodes.run_secs(3);
    let outputs = nodes.nodes[1].as_mut().expect("runs").broadcast(b"hello", nodes.now_us).expect("sent");
    nodes.perform(1, outputs);
    nodes.run_secs(5);
    for (number, times) in [(0, 1), (1, 0), (2, 1)] {
        let hello = |event: &MembershipEvent| matches!(event, MembershipEvent::BroadcastReceived(broadcast) if broadcast.payload == b"hello");
        assert_eq!(nodes.happened(number, hello), times, "node {number}");
    }
}

#[test]
fn broadcasts_are_bounded_in_size_and_number() {
    let mut nodes = Nodes::new(1);
    let node = nodes.nodes[0].as_mut().expect("runs");
    assert_eq!(node.broadcast(&[0; 901], 0).err(), Some(BroadcastError::Size(901)));
    assert_eq!(node.broadcast(&[], 0).err(), Some(BroadcastError::Size(0)));
    for _ in 0..BROADCAST_BACKLOG_MAX {
        assert!(node.broadcast(&[0; 900], 0).is_ok());
    }
    assert_eq!(node.broadcast(&[0; 900], 0).err(), Some(BroadcastError::Busy));
}

#[test]
fn the_longest_broadcast_fits_a_datagram() {
    let mut nodes = Nodes::new(2);
    nodes.run_secs(3);
    let outputs = nodes.nodes[0].as_mut().expect("runs").broadcast(&[7; 900], nodes.now_us).expect("sent");
    assert!(outputs.datagrams.iter().all(|(_, bytes)| bytes.len() <= datagram::DATAGRAM_BYTES_MAX));
    nodes.perform(0, outputs);
    assert_eq!(nodes.happened(1, |event| matches!(event, MembershipEvent::BroadcastReceived(_))), 1);
}

#[test]
fn a_newer_topology_version_is_noticed_once() {
    let mut nodes = Nodes::new(3);
    nodes.run_secs(3);
    nodes.clear();
    nodes.step(0, Input::TopologyVersion(9));
    nodes.run_secs(5);
    let seen = MembershipEvent::TopologyVersionSeen { member: NodeId(1), version: 9 };
    assert_eq!((nodes.happened(1, |event| *event == seen), nodes.happened(2, |event| *event == seen)), (1, 1));
    assert_eq!(nodes.nodes[1].as_ref().expect("runs").view().member(NodeId(1)).map(|m| m.topology_version), Some(9));
}

#[test]
fn strangers_change_nothing_and_are_counted() {
    let mut nodes = Nodes::new(2);
    nodes.run_secs(3);
    nodes.clear();
    let mut other = options(2, 100);
    other.cluster = ClusterId(2);
    let mut guesser = options(2, 100);
    guesser.secret = ClusterSecret::new(b"guess");
    for stranger in [other, guesser] {
        for (_, bytes) in Membership::new(stranger, 0).step(Input::TimersDue, 0).datagrams {
            nodes.step(0, Input::Datagram { from: address(2), bytes: &bytes });
        }
    }
    assert_eq!(nodes.live(0), vec![2]);
    assert_eq!(nodes.happened(0, |event| matches!(event, MembershipEvent::Rejected { .. })), 2);
    assert_eq!(nodes.nodes[0].as_ref().expect("runs").rejects().iter().sum::<u64>(), 2);
}

#[test]
fn a_member_that_is_down_can_be_forgotten() {
    let mut nodes = Nodes::new(3);
    nodes.run_secs(3);
    nodes.step(0, Input::Forget(NodeId(3)));
    assert_eq!(nodes.live(0), vec![2, 3], "one that lives is kept");
    nodes.step(2, Input::Leave);
    nodes.step(0, Input::Forget(NodeId(3)));
    assert!(nodes.nodes[0].as_ref().expect("runs").view().member(NodeId(3)).is_none());
}

#[test]
fn learned_members_need_no_seed() {
    let mut nodes = Nodes::new(2);
    let mut lonely = options(2, 100);
    lonely.seeds.clear();
    nodes.nodes.push(Some(Membership::new(lonely, 0)));
    nodes.run_secs(3);
    assert_eq!(nodes.live(2), Vec::<u128>::new());
    let members = [options(0, 100).identity, options(1, 100).identity];
    nodes.step(2, Input::Learn { members: &members });
    nodes.run_secs(3);
    assert_eq!((nodes.live(0), nodes.live(2)), (vec![2, 3], vec![1, 2]));
}

/// Somebody was told of it while the member was cut off, and nobody measures how long it lasts.
#[test]
fn a_suspicion_that_nobody_ends_is_over_all_the_same() {
    let mut nodes = Nodes::new(3);
    nodes.run_secs(5);
    let suspected = options(2, 100).identity;
    for number in [0, 1] {
        let node = nodes.nodes[number].as_mut().expect("runs");
        let state = node.foca.iter_membership_state().find(|member| *member.id() == suspected).expect("known");
        let suspect = Member::new(suspected, state.incarnation(), State::Suspect);
        node.foca.apply_many([suspect].into_iter(), false, &mut node.runtime).expect("applied");
        let mut outputs = Outputs::default();
        node.settle(nodes.now_us, &mut outputs);
        nodes.perform(number, outputs);
    }
    let health = |nodes: &Nodes, number: usize| {
        let view = nodes.nodes[number].as_ref().expect("runs").view();
        view.member(NodeId(3)).map(|member| member.health)
    };
    assert_eq!(health(&nodes, 0), Some(MemberHealth::Suspected));
    nodes.run_secs(20);
    assert_eq!((health(&nodes, 0), health(&nodes, 1)), (Some(MemberHealth::Alive), Some(MemberHealth::Alive)));
    assert_eq!((nodes.live(0), nodes.live(1), nodes.live(2)), (vec![2, 3], vec![1, 3], vec![1, 2]));
}

proptest::proptest! {
    #[test]
    fn any_payload_under_a_right_envelope_is_survived(payload in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
        let mut node = Membership::new(options(0, 100), 0);
        let envelope = Envelope {
            cluster: ClusterId(1), generation: 0, sender: NodeId(2), sender_start_ms: 100, topology_version: 0,
        };
        let mut bytes = Vec::new();
        datagram::seal(&envelope, &payload, ClusterSecret::new(b"secret").as_ref(), &mut bytes);
        node.step(Input::Datagram { from: address(1), bytes: &bytes }, 0);
    }

    #[test]
    fn a_damaged_message_is_survived(at in 0usize..1000, byte: u8, count in 1usize..6) {
        let mut nodes = Nodes::new(3);
        nodes.run_secs(2);
        let outputs = nodes.nodes[1].as_mut().expect("runs").broadcast(b"hello", nodes.now_us).expect("sent");
        for (_, bytes) in outputs.datagrams {
            let expected = Expected { cluster: ClusterId(1), generation: 0, secret: ClusterSecret::new(b"secret") };
            let (envelope, payload) = datagram::open(&bytes, address(1).ip(), &expected).expect("opens");
            let mut payload = payload.to_vec();
            for step in 0..count {
                let length = payload.len();
                payload[(at + step * 7) % length] = byte.wrapping_add(step as u8);
            }
            let mut damaged = Vec::new();
            datagram::seal(&envelope, &payload, expected.secret.as_ref(), &mut damaged);
            nodes.step(0, Input::Datagram { from: address(1), bytes: &damaged });
        }
        nodes.run_secs(1);
    }
}
