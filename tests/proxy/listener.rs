//! A node's proxy listener, through sockets: the first third of the slots is this node's own, the others are those of two
//! other nodes.

use crate::client::Client;
use crate::nodes::Node;
use async_trait::async_trait;
use starling::base::clock::SystemClock;
use starling::base::identity::{ClusterId, Incarnation, NodeId};
use starling::base::slot::Slot;
use starling::base::slot_ranges::SlotRanges;
use starling::cluster::datagram::ClusterSecret;
use starling::cluster::lease::LeaseTerm;
use starling::cluster::membership::socket::{MembershipHandle, SocketOptions};
use starling::cluster::membership::{Life, MemberIdentity, MemberMetadata, MembershipOptions};
use starling::cluster::topology::raft::{Consensus, Proposal, ProposeError};
use starling::cluster::topology::{self, NodeState, Topology, TopologyChange};
use starling::config::Config;
use starling::engine::Engine;
use starling::proxy::{Peer, reply};
use starling::server::{listener, worker};
use starling::services::Services;
use starling::services::cluster::{Cluster, ClusterParts};
use starling::transport::messages::GroupView;
use starling::transport::{self, Purpose, Request, Response, Transport, TransportError};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Nothing is proposed, and no link between nodes is needed: the test says what is agreed.
struct Nothing;

#[async_trait]
impl Consensus for Nothing {
    async fn propose(&self, _: TopologyChange) -> Result<Proposal, ProposeError> {
        Err(ProposeError::NoLeader)
    }

    fn subscribe(&self) -> tokio::sync::watch::Receiver<Arc<Topology>> {
        tokio::sync::watch::Sender::new(Arc::default()).subscribe()
    }

    fn group(&self) -> GroupView {
        GroupView::default()
    }
}

#[async_trait]
impl Transport for Nothing {
    async fn request(
        &self,
        _: transport::Peer,
        _: Purpose,
        _: Request,
        _: Duration,
    ) -> Result<Response, TransportError> {
        Err(TransportError::Busy)
    }

    fn links(&self) -> Vec<transport::LinkReport> {
        Vec::new()
    }
}

/// A node in this process with a proxy listener, and two others.
pub(crate) struct Trio {
    pub(crate) address: SocketAddr,
    pub(crate) services: Arc<Services>,
    cluster: Arc<Cluster>,
    others: [Node; 2],
}

impl Trio {
    pub(crate) fn start() -> Trio {
        let others = [Node::start(&[]), Node::start(&[])];
        let socket = listener::bind(SocketAddr::from(([127, 0, 0, 1], 0)), 128).expect("a socket");
        let address = socket.local_addr().expect("an address");
        let (membership, _events) = membership();
        let parts = ClusterParts {
            node: NodeId(1),
            lease: Arc::new(LeaseTerm::endless()),
            consensus: Arc::new(Nothing),
            membership: Arc::new(membership),
            transport: Arc::new(Nothing),
            options: Default::default(),
        };
        let cluster = Arc::new(Cluster::new(parts, Arc::default()).expect("a view"));
        let services = Arc::new(services(Arc::clone(&cluster)));
        let served = Arc::clone(&services);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let worker = worker::start(Arc::clone(&served), 0, 1).expect("a worker");
            runtime.block_on(listener::accept(socket, served, [worker].into(), true))
        });
        let trio = Trio { address, services, cluster, others };
        trio.show(2, [0, 1, 2]);
        trio
    }

    /// Says who owns which third of the slots: 0 is the node in this process.
    pub(crate) fn show(&self, version: u64, owners: [usize; 3]) {
        self.show_with_down(version, owners, None);
    }

    /// Likewise; one of the nodes is down.
    fn show_with_down(&self, version: u64, owners: [usize; 3], down: Option<usize>) {
        let peers = [self.address, self.others[0].peer, self.others[1].peer];
        let mut topology = Topology::default();
        let mut index = 0;
        let mut apply = |change| {
            index += 1;
            topology.apply(index, &change);
        };
        apply(TopologyChange::InitCluster { cluster: ClusterId(1), hash_key: 0 });
        for (number, peer) in peers.into_iter().enumerate() {
            apply(TopologyChange::RegisterNode { node: node(number, peer) });
        }
        for (third, owner) in owners.into_iter().enumerate() {
            let slots: SlotRanges = Slot::all().filter(|slot| slot.index() * 3 / 16384 == third).collect();
            let (to, incarnation) = (NodeId(owner as u128 + 1), Incarnation(owner as u64 + 1));
            apply(TopologyChange::Revive { slots: slots.clone(), to });
            if down == Some(owner) {
                apply(TopologyChange::FenceNode {
                    node: to,
                    incarnation,
                    support: owner as u64 + 2,
                    config: 2,
                    at_ms: 0,
                });
                apply(TopologyChange::MarkDead { slots, node: to, incarnation });
            }
        }
        topology.version = 100 + version;
        self.cluster.show(Arc::new(topology), Some(Incarnation(1)));
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address)
    }
}

fn node(number: usize, peer: Peer) -> topology::Node {
    topology::Node {
        id: NodeId(number as u128 + 1),
        incarnation: Incarnation(0),
        ip: peer.ip(),
        port: peer.port(),
        cluster_port: number as u16 + 1,
        hostname: String::new(),
        weight: 1,
        zone: String::new(),
        arbiter: false,
        proxy_port: 0,
        start_ms: 1,
        support: 0,
        state: NodeState::Active,
        leaving: false,
        probation: topology::Probation::default(),
    }
}

fn membership() -> (MembershipHandle, impl Sized) {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let life = Life { start_ms: 1, renewals: 0 };
    let identity = MemberIdentity { node: NodeId(1), address: any, life, metadata: MemberMetadata::default() };
    let secret = ClusterSecret::new(b"secret");
    let membership =
        MembershipOptions { identity, cluster: ClusterId(1), generation: 0, secret, seeds: Vec::new(), random_seed: 1 };
    let options = SocketOptions { bind: any, membership, clock: Arc::new(SystemClock) };
    MembershipHandle::start(options).expect("a free port")
}

fn services(cluster: Arc<Cluster>) -> Services {
    let mut config = Config::default();
    config.cluster_enabled = true;
    Services {
        cluster: Some(cluster),
        engine: Arc::new(Engine::new(1)),
        settings: starling::services::settings::Settings::new(config),
        clients: Default::default(),
        pubsub: Default::default(),
        slowlog: Default::default(),
        hotkeys: Default::default(),
        latency: Default::default(),
        statistics: Default::default(),
        held: Default::default(),
        pause: Default::default(),
        conditions: Default::default(),
        snapshots: Default::default(),
        append_log: Default::default(),
        eviction: Default::default(),
        notifications: Default::default(),
        log_reader: Default::default(),
        run_id: String::new(),
        started_at_ms: 0,
        shutdown: tokio::sync::Notify::new(),
    }
}

/// One key for each third of the slots: `a` is here, `b` and `c` are elsewhere.
pub(crate) fn keys_of_thirds(stem: &str) -> [String; 3] {
    [0, 1, 2].map(|third| {
        let mut keys = (0..).map(|number| format!("{stem}:{number}"));
        keys.find(|key| Slot::of_key(key.as_bytes()).index() * 3 / 16384 == third).expect("every slot has keys")
    })
}

#[test]
fn a_pipeline_is_answered_in_order_wherever_its_keys_are() {
    let trio = Trio::start();
    let mut client = trio.client();
    let requests: Vec<String> = (0..5000)
        .map(|number| match number % 3 {
            0 => format!("APPEND key:{} x", number / 3 % 100),
            1 => format!("STRLEN key:{}", number / 3 % 100),
            _ => "PING".to_owned(),
        })
        .collect();
    client.send(&requests);
    for number in 0..5000 {
        let expected = if number % 3 == 2 { "+PONG\r\n".to_owned() } else { format!(":{}\r\n", number / 300 + 1) };
        assert_eq!(client.receive(), expected, "reply {number}");
    }
    client.check("DBSIZE", ":100");
    for other in &trio.others {
        let held = Client::connect(other.peer).ask("DBSIZE");
        assert!(reply::integer(held.as_bytes()).is_some_and(|held| held > 10), "every node has its share: {held}");
    }
    assert!(client.ask("HELLO 3").starts_with('%'));
    for key in keys_of_thirds("missing") {
        client.check(&format!("GET {key}"), "_");
    }
}

#[test]
fn spread_commands_are_put_together() {
    let trio = Trio::start();
    let mut client = trio.client();
    let [a, b, c] = keys_of_thirds("k");
    client.check(&format!("MSET {a} 1 {b} 2 {c} 3"), "+OK");
    client.check(&format!("MGET {c} missing {a} {b} {a}"), "*5 $1 3 $-1 $1 1 $1 2 $1 1");
    client.check(&format!("MSET {a} 1 {b}"), "-ERR wrong number of arguments for 'mset' command");
    client.check(&format!("EXISTS {a} {b} {c} {c} missing"), ":4");
    client.check(&format!("TOUCH {a} {b} missing"), ":2");
    client.check("DBSIZE", ":3");
    assert_eq!(client.ask("KEYS k:*").split("\r\n").filter(|line| line.starts_with("k:")).count(), 3);
    client.check(&format!("UNLINK {a} missing"), ":1");
    client.check(&format!("DEL {a} {b} {c}"), ":2");
    client.check("DBSIZE", ":0");
    let many: Vec<String> = (0..1000).map(|number| format!("SET key:{number} v")).collect();
    client.send(&many);
    many.iter().for_each(|_| assert_eq!(client.receive(), "+OK\r\n"));
    let seen = client.scan(50);
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len(), "no key comes twice");
    assert_eq!(seen.len(), 1000);
    client.check("SCAN nonsense", "-ERR invalid cursor");
    client.check("FLUSHALL", "+OK");
    client.check("DBSIZE", ":0");
}

#[test]
fn keys_of_several_slots_are_refused_where_nothing_is_spread() {
    let trio = Trio::start();
    let mut client = trio.client();
    let [a, b, c] = keys_of_thirds("k");
    let crossing = "-CROSSSLOT Keys in request don't hash to the same slot";
    client.check(&format!("RENAME {a} {b}"), crossing);
    client.check(&format!("RENAME {b} {c}"), crossing);
    client.check(&format!("RENAME {b} {{{b}}}2"), "-ERR no such key");
    client.check("MULTI", "+OK");
    client.check(&format!("MGET {b} {c}"), crossing);
    client.check("EXEC", "-EXECABORT Transaction discarded because of previous errors.");
    client.check("MULTI", "+OK");
    client.check(&format!("SET {b} 1"), "+QUEUED");
    client.check(&format!("SET {c} 1"), "+QUEUED");
    client.check("EXEC", crossing);
    client.check("EXEC", "-ERR EXEC without MULTI");
    client.check(&format!("WATCH {a} {b}"), crossing);
}

#[test]
fn transactions_are_executed_by_the_owner() {
    let trio = Trio::start();
    let (mut client, mut other) = (trio.client(), trio.client());
    for key in keys_of_thirds("k") {
        client.check("MULTI", "+OK");
        client.check(&format!("SET {key} 1"), "+QUEUED");
        client.check("PING", "+QUEUED");
        client.check(&format!("INCR {key}"), "+QUEUED");
        client.check("EXEC", "*3 +OK +PONG :2");
        for (interference, expected) in [("PING", "*1 :3"), ("INCR", "*-1")] {
            client.check(&format!("WATCH {key}"), "+OK");
            client.check(&format!("GET {key}"), if expected == "*-1" { "$1 3" } else { "$1 2" });
            let interference = if interference == "PING" { "PING".into() } else { format!("{interference} {key}") };
            other.ask(&interference);
            client.check("MULTI", "+OK");
            client.check(&format!("INCR {key}"), "+QUEUED");
            client.check("EXEC", expected);
        }
        // What no longer watches is executed, whatever has changed.
        for ending in ["UNWATCH", "RESET"] {
            client.check(&format!("WATCH {key}"), "+OK");
            other.ask(&format!("INCR {key}"));
            assert!(client.ask(ending).starts_with('+'));
            client.check("MULTI", "+OK");
            client.check(&format!("EXISTS {key}"), "+QUEUED");
            client.check("EXEC", "*1 :1");
        }
        // The same in one go: each waits for what it needs.
        let pipeline =
            [format!("SET {key} 7"), format!("WATCH {key}"), "MULTI".into(), format!("INCR {key}"), "EXEC".into()];
        client.send(&pipeline);
        for expected in ["+OK\r\n", "+OK\r\n", "+OK\r\n", "+QUEUED\r\n", "*1\r\n:8\r\n"] {
            assert_eq!(client.receive(), expected);
        }
    }
}

/// A message goes to who has subscribed on the node that executes PUBLISH, and to nobody on another node.
#[test]
fn a_message_stays_within_the_node_that_executes_publish() {
    let trio = Trio::start();
    let (mut here, mut there) = (trio.client(), Client::connect(trio.others[0].peer));
    for subscriber in [&mut here, &mut there] {
        subscriber.check("SUBSCRIBE news", "*3 $9 subscribe $4 news :1");
    }
    let mut client = trio.client();
    client.check("PUBLISH news near", ":1");
    client.check("PUBSUB NUMSUB news", "*2 $4 news :1");
    // A transaction is executed, and publishes, where its keys are.
    let [a, b, _] = keys_of_thirds("k");
    for (key, message) in [(a, "home"), (b, "away")] {
        client.check("MULTI", "+OK");
        client.check(&format!("SET {key} 1"), "+QUEUED");
        client.check(&format!("PUBLISH news {message}"), "+QUEUED");
        client.check("EXEC", "*2 +OK :1");
    }
    Client::connect(trio.others[0].peer).check("PUBLISH news far", ":1");
    for (subscriber, messages) in [(&mut here, ["near", "home"]), (&mut there, ["away", "far"])] {
        for message in messages {
            let expected = format!("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n${}\r\n{message}\r\n", message.len());
            assert_eq!(subscriber.receive(), expected);
        }
    }
}

#[test]
fn order_is_kept_while_slots_change_hands() {
    let trio = Trio::start();
    let [a, b, c] = keys_of_thirds("list");
    let mut client = trio.client();
    // Nobody moves keys here: each owner has the part that was pushed while it was the owner, in order.
    let owners = [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 2, 1]];
    for round in 0..40u64 {
        let requests: Vec<String> =
            (0..100).flat_map(|n| [&a, &b, &c].map(|key| format!("RPUSH {key} {}", round * 100 + n))).collect();
        client.send(&requests);
        trio.show(3 + round, owners[round as usize % owners.len()]);
    }
    for _ in 0..40 * 100 * 3 {
        assert!(client.receive().starts_with(':'));
    }
    let mut pushed = 0;
    trio.show(50, [0, 0, 0]);
    for address in [trio.address, trio.others[0].peer, trio.others[1].peer] {
        for key in [&a, &b, &c] {
            let answer = Client::connect(address).ask(&format!("LRANGE {key} 0 -1"));
            let numbers: Vec<u64> = reply::elements(answer.as_bytes())
                .expect("an array")
                .iter()
                .map(|element| {
                    String::from_utf8_lossy(reply::bulk(element).expect("a string")).parse().expect("a number")
                })
                .collect();
            assert!(numbers.is_sorted(), "{key} on {address}");
            pushed += numbers.len();
        }
    }
    assert_eq!(pushed, 40 * 100 * 3, "each was executed once");
}

#[test]
fn a_connection_chooses_for_itself() {
    let trio = Trio::start();
    let mut client = trio.client();
    let [_, b, _] = keys_of_thirds("k");
    client.send(&["CLIENT ROUTING REDIRECT".into(), "CLIENT ROUTING PROXY".into(), format!("SET {b} 1")]);
    for _ in 0..3 {
        assert_eq!(client.receive(), "+OK\r\n");
    }
    client.check("CLIENT ROUTING SIDEWAYS", "-ERR syntax error");
    let elsewhere = Client::connect(trio.others[0].peer).ask(&format!("GET {b}"));
    assert_eq!(elsewhere, "$1\r\n1\r\n");
}

#[test]
fn who_sends_no_more_is_still_answered() {
    let trio = Trio::start();
    for key in keys_of_thirds("k") {
        let mut client = trio.client();
        client.send(&[format!("INCR {key}"), format!("INCR {key}")]);
        client.end();
        assert_eq!(client.receive(), ":1\r\n");
        assert_eq!(client.receive(), ":2\r\n");
    }
}

#[test]
fn an_owner_that_dies_takes_only_its_slots_with_it() {
    let mut trio = Trio::start();
    let mut client = trio.client();
    let [a, b, c] = keys_of_thirds("k");
    client.check(&format!("MSET {a} 1 {b} 1 {c} 1"), "+OK");
    trio.others[1] = Node::start(&[]);
    client.check(&format!("GET {a}"), "$1 1");
    client.check(&format!("GET {b}"), "$1 1");
    assert!(client.ask(&format!("GET {c}")).starts_with("-CLUSTERDOWN"));
    assert!(client.ask(&format!("MGET {a} {b} {c}")).starts_with("-CLUSTERDOWN"));
    trio.show(3, [0, 1, 2]);
    client.check(&format!("GET {c}"), "$-1");
    client.check(&format!("MGET {a} {b} {c}"), "*3 $1 1 $1 1 $-1");
}

#[test]
fn what_concerns_all_keys_fails_while_some_are_served_by_nobody() {
    let mut trio = Trio::start();
    let mut client = trio.client();
    let [a, b, c] = keys_of_thirds("k");
    client.check(&format!("MSET {a} 1 {b} 1 {c} 1"), "+OK");
    let requests = ["DBSIZE", "KEYS *", "FLUSHALL", "FLUSHDB"];
    // The owner is gone, and nobody has noticed.
    trio.others[1] = Node::start(&[]);
    for request in &requests[..2] {
        assert!(client.ask(request).starts_with("-CLUSTERDOWN"), "{request}");
    }
    // It is agreed that it is down.
    trio.show_with_down(3, [0, 1, 2], Some(2));
    for request in requests {
        client.check(request, "-CLUSTERDOWN Hash slot not served");
    }
    client.check(&format!("MGET {a} {b}"), "*2 $1 1 $1 1");
    assert!(client.ask("SCAN 0 COUNT 100000").starts_with("-CLUSTERDOWN"), "nor is a walk over the rest all there is");
    // Somebody else serves the rest.
    trio.show(4, [0, 1, 1]);
    client.check("DBSIZE", ":2");
    client.check("FLUSHALL", "+OK");
    client.check("DBSIZE", ":0");
}

#[test]
fn slots_of_a_node_that_is_down_are_shown_with_it() {
    let trio = Trio::start();
    let mut client = trio.client();
    let [_, _, c] = keys_of_thirds("k");
    let third = "10923-16383";
    let whole = client.ask("CLUSTER SLOTS");
    trio.show_with_down(3, [0, 1, 2], Some(2));
    client.check(&format!("GET {c}"), "-CLUSTERDOWN Hash slot not served");
    assert_eq!(client.ask("CLUSTER SLOTS"), whole, "clients that want all slots to be covered start");
    let port = trio.others[1].peer.port();
    let nodes = client.ask("CLUSTER NODES");
    let line = nodes.lines().find(|line| line.contains(&format!(":{port}@"))).expect("its line");
    assert!(line.contains(" master,fail ") && line.ends_with(&format!(" disconnected {third}")), "{line}");
    let shards = client.ask("CLUSTER SHARDS").replace("\r\n", " ");
    let (before, failed) = shards.split_once("$4 fail").expect("it is flagged");
    assert!(before.contains(":10923 :16383") && !failed.contains(":10923 :16383"), "{shards}");
    let info = client.ask("CLUSTER INFO");
    for field in ["cluster_slots_assigned:16384", "cluster_slots_fail:5461", "cluster_slots_pfail:0", "cluster_size:3"]
    {
        assert!(info.contains(&format!("{field}\r\n")), "{field}: {info}");
    }
    // Clients split each line at every colon.
    let (_, lines) = info.split_once("\r\n").expect("a bulk string");
    let odd = lines.lines().find(|line| !line.is_empty() && line.matches(':').count() != 1);
    assert_eq!(odd, None, "{info}");
    // Until somebody else owns them.
    trio.show(4, [0, 1, 1]);
    assert!(!client.ask("CLUSTER SLOTS").contains(&format!(":{port}\r\n")));
}
