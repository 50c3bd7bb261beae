//! Real sockets on the loopback address: a few nodes in one process, each with its thread.

use super::*;
use crate::base::clock::{SystemClock, boot_us};
use crate::base::identity::ClusterId;
use crate::cluster::datagram::ClusterSecret;
use crate::cluster::membership::{Life, MemberMetadata};

type Node = (MembershipHandle, mpsc::Receiver<MembershipEvent>);

fn start(number: usize, seeds: Vec<SocketAddr>) -> Node {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let identity = MemberIdentity {
        node: NodeId(number as u128 + 1),
        address: any,
        life: Life { start_ms: 1 + number as u64, renewals: 0 },
        metadata: MemberMetadata::default(),
    };
    let membership = MembershipOptions {
        identity,
        cluster: ClusterId(5),
        generation: 0,
        secret: ClusterSecret::new(b"secret"),
        seeds,
        random_seed: number as u64,
    };
    let options = SocketOptions { bind: any, membership, clock: Arc::new(SystemClock) };
    MembershipHandle::start(options).expect("a free port on the loopback address")
}

fn start_many(count: usize) -> Vec<Node> {
    let mut nodes = vec![start(0, Vec::new())];
    let seed = nodes[0].0.members().own.address;
    nodes.extend((1..count).map(|number| start(number, vec![seed])));
    nodes
}

fn await_event(node: &mut Node, wanted: impl Fn(&MembershipEvent) -> bool) {
    let limit = boot_us() + 20_000_000;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    while boot_us() < limit {
        let event = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), node.1.recv()).await });
        if event.is_ok_and(|event| event.is_some_and(|event| wanted(&event))) {
            return;
        }
    }
    panic!("the event has not come in 20 s");
}

#[test]
fn nodes_join_talk_and_leave_over_udp() {
    let mut nodes = start_many(3);
    for node in &mut nodes[1..] {
        await_event(node, |event| *event == MembershipEvent::Connected);
    }
    await_event(&mut nodes[0], |event| matches!(event, MembershipEvent::MemberUp(member) if member.node == NodeId(3)));
    nodes[0].0.broadcast(b"hello".to_vec()).expect("sent");
    let hello = |event: &MembershipEvent| matches!(event, MembershipEvent::BroadcastReceived(_));
    await_event(&mut nodes[1], hello);
    await_event(&mut nodes[2], hello);
    let leaver = nodes.pop().expect("three nodes");
    leaver.0.leave();
    let down =
        |event: &MembershipEvent| matches!(event, MembershipEvent::MemberDown(member) if member.node == NodeId(3));
    await_event(&mut nodes[0], down);
    assert_eq!(leaver.0.broadcast(b"late".to_vec()), Err(BroadcastError::Left));
    assert!(nodes[0].0.counters().bytes_out.load(Ordering::Relaxed) > 0);
}

#[test]
fn an_address_that_nobody_can_reach_is_refused() {
    let mut node = start(0, Vec::new()).0.members().own;
    node.address = SocketAddr::from(([0, 0, 0, 0], 0));
    let membership = MembershipOptions {
        identity: node,
        cluster: ClusterId(5),
        generation: 0,
        secret: None,
        seeds: Vec::new(),
        random_seed: 0,
    };
    let options = SocketOptions { bind: node.address, membership, clock: Arc::new(SystemClock) };
    assert_eq!(MembershipHandle::start(options).err().map(|error| error.kind()), Some(io::ErrorKind::InvalidInput));
}

/// Prints what one node sends and receives per second when nothing happens. Not a test: `cargo nextest run --run-ignored
/// only --no-capture gossip_traffic`.
#[test]
#[ignore = "measures for a minute"]
fn gossip_traffic() {
    for count in [3, 20] {
        let mut nodes = start_many(count);
        let started = boot_us();
        for node in &mut nodes {
            for _ in 1..count {
                await_event(node, |event| matches!(event, MembershipEvent::MemberUp(_)));
            }
        }
        println!("{count} members: all know all after {} ms", (boot_us() - started) / 1000);
        std::thread::sleep(Duration::from_secs(20));
        let total = |read: fn(&MembershipCounters) -> &AtomicU64| -> u64 {
            nodes.iter().map(|node| read(node.0.counters()).load(Ordering::Relaxed)).sum()
        };
        let before = [total(|c| &c.bytes_out), total(|c| &c.datagrams_out), total(|c| &c.bytes_in)];
        std::thread::sleep(Duration::from_secs(30));
        let after = [total(|c| &c.bytes_out), total(|c| &c.datagrams_out), total(|c| &c.bytes_in)];
        let per_second = |at: usize| (after[at] - before[at]) as f64 / 30.0 / count as f64;
        let (out, datagrams, bytes_in) = (per_second(0), per_second(1), per_second(2));
        println!(
            "{count} members: per node and second {out:.0} bytes out, {bytes_in:.0} in, {datagrams:.1} datagrams out; \
             {:.0} bytes out with IPv4 and UDP headers",
            out + datagrams * 28.0
        );
    }
}
