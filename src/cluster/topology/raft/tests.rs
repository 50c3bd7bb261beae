//! Groups of nodes in this process, over real connections and real files.

use super::*;
use crate::base::clock::SystemClock;
use crate::base::identity::{ClusterId, Incarnation};
use crate::cluster::topology::control_thread::ControlThread;
use crate::cluster::topology::sample;
use crate::cluster::topology::state::Node;
use crate::transport::tcp::{TcpOptions, system_nonces};
use crate::transport::{LinkSecret, LocalIdentity, TcpTransport};
use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use tempfile::TempDir;

const CLUSTER: ClusterId = ClusterId(0xC1);
const LIMIT: Duration = Duration::from_secs(60);

/// A node's part in agreement, on a control thread of its own.
struct TestNode {
    id: identity::NodeId,
    address: SocketAddr,
    raft: RaftTopology,
    /// Last, so that the runtime is there while handles are dropped.
    control: ControlThread,
}

impl TestNode {
    async fn start(id: u128, address: Option<SocketAddr>, directory: &TempDir, seeds: Vec<Peer>) -> TestNode {
        TestNode::start_in(0, id, address, directory, seeds).await
    }

    /// In a generation, or in a later one that its raft log is of.
    async fn start_in(
        joined: u32,
        id: u128,
        address: Option<SocketAddr>,
        directory: &TempDir,
        seeds: Vec<Peer>,
    ) -> TestNode {
        let control = ControlThread::start("control").expect("a thread");
        let id = identity::NodeId(id);
        let bind = address.unwrap_or(([127, 0, 0, 1], 0).into());
        let socket = eventually("the port is free", || TcpListener::bind(bind).ok()).await;
        let address = socket.local_addr().expect("an address");
        let path = directory.path().join(format!("node-{:x}", id.0));
        std::fs::create_dir_all(&path).expect("a directory");
        // The file is closed a moment after its last user has gone.
        let log = eventually("the file is closed", || RaftLog::open(&path, id, false).ok()).await;
        let generation = log.generation().expect("it is read").max(joined);
        let transport = Arc::new(TcpTransport::new(TcpOptions {
            identity: LocalIdentity { node: id, cluster: Some(CLUSTER), generation, incarnation: Incarnation(0) },
            secret: LinkSecret::new(b"secret"),
            clock: Arc::new(SystemClock),
            nonces: system_nonces(),
            runtime: control.handle().clone(),
            slots: control.handle().clone(),
        }));
        let transport_too = Arc::clone(&transport) as Arc<dyn Transport>;
        let start_ms = crate::base::clock::unix_us();
        let options = RaftOptions { node: id, address, start_ms, log, generation, transport: transport_too, seeds };
        let raft = control.run(RaftTopology::start(options)).await.expect("not stopped").expect("started");
        let (handler, listening) = (Arc::new(raft.clone()), Arc::clone(&transport));
        control.run(async move { listening.listen(socket, handler).expect("listening") }).await.expect("not stopped");
        TestNode { id, address, raft, control }
    }

    fn peer(&self) -> Peer {
        Peer { node: Some(self.id), address: self.address }
    }

    async fn propose(&self, change: TopologyChange) -> Proposal {
        let raft = self.raft.clone();
        self.control.run(async move { raft.propose(change).await }).await.expect("not stopped").expect("committed")
    }

    async fn register(&self) -> Incarnation {
        let node = Node {
            ip: self.address.ip(),
            port: self.address.port() - 1,
            cluster_port: self.address.port(),
            start_ms: self.raft.shared.start_ms,
            ..sample::node(self.id)
        };
        match self.propose(TopologyChange::RegisterNode { node }).await.applied {
            Applied::Registered(incarnation) => incarnation,
            other => panic!("not registered: {other:?}"),
        }
    }

    async fn set(&self, value: &str) -> u64 {
        let name = format!("from-{:?}", self.id);
        self.propose(TopologyChange::SetConfig { name, value: value.into() }).await.index
    }

    /// Begins the next generation, as soon as nobody can prevent it.
    async fn recover(&self) -> Recovery {
        let deadline = Instant::now() + LIMIT;
        loop {
            match self.raft.recover().await {
                Ok(recovery) => return recovery,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn generation(&self) -> u32 {
        self.raft.shared.generation()
    }

    fn voters(&self) -> BTreeSet<u128> {
        self.raft.group().voters.iter().map(|voter| voter.node.0).collect()
    }

    fn leads(&self) -> bool {
        self.raft.shared.is_leader()
    }

    /// Ends it in the middle of whatever it does.
    fn kill(self) {
        let TestNode { raft, control, .. } = self;
        drop(control);
        drop(raft);
    }
}

async fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn start_cluster(directory: &TempDir, count: u128) -> Vec<TestNode> {
    let first = TestNode::start(1, None, directory, vec![]).await;
    let raft = first.raft.clone();
    let created = first.control.run(async move { raft.create(CLUSTER, 42).await }).await.expect("not stopped");
    assert_eq!(created.expect("created").applied, Applied::Done);
    first.register().await;
    let mut nodes = vec![first];
    join(&mut nodes, directory, count).await;
    nodes
}

async fn join(nodes: &mut Vec<TestNode>, directory: &TempDir, upto: u128) {
    for id in nodes.len() as u128 + 1..=upto {
        let node = TestNode::start(id, None, directory, vec![nodes[0].peer()]).await;
        node.register().await;
        nodes.push(node);
    }
}

async fn all_equal(nodes: &[TestNode], version: u64) {
    let equal = || {
        let first = nodes[0].raft.published().current();
        let equal = nodes.iter().all(|node| *node.raft.published().current() == *first);
        (first.version >= version && equal).then_some(())
    };
    eventually("all topologies are equal", equal).await;
}

async fn voters_are(nodes: &[TestNode], voters: &[u128]) {
    let voters: BTreeSet<u128> = voters.iter().copied().collect();
    eventually(&format!("all know the voters {voters:?}"), || {
        nodes.iter().all(|node| node.voters() == voters).then_some(())
    })
    .await;
}

/// Stops the node at this place and starts it again from its files.
async fn restart(nodes: &mut Vec<TestNode>, directory: &TempDir, at: usize) {
    let node = nodes.remove(at);
    let (id, address) = (node.id.0, node.address);
    node.kill();
    let node = TestNode::start(id, Some(address), directory, vec![]).await;
    nodes.insert(at, node);
}

#[tokio::test]
async fn a_cluster_of_one_goes_on_after_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut nodes = start_cluster(&directory, 1).await;
    let index = nodes[0].set("before").await;
    for round in 0..3 {
        restart(&mut nodes, &directory, 0).await;
        all_equal(&nodes, index).await;
        nodes[0].set(&format!("round {round}")).await;
    }
    assert_eq!(nodes[0].register().await, Incarnation(2));
    voters_are(&nodes, &[1]).await;
}

#[tokio::test]
async fn three_nodes_agree_and_each_can_fail_and_return() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut nodes = start_cluster(&directory, 3).await;
    voters_are(&nodes, &[1, 2, 3]).await;
    for at in 0..3 {
        let index = nodes[at].set("one").await;
        all_equal(&nodes, index).await;
    }
    for at in 0..3 {
        restart(&mut nodes, &directory, at).await;
        let index = nodes[(at + 1) % 3].set(&format!("without {at}")).await;
        all_equal(&nodes, index).await;
        voters_are(&nodes, &[1, 2, 3]).await;
    }
}

#[tokio::test]
async fn four_nodes_go_on_without_their_raft_leader() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut nodes = start_cluster(&directory, 4).await;
    voters_are(&nodes, &[1, 2, 3]).await;
    for node in &nodes {
        node.set("all").await;
    }
    let leader = eventually("there is a raft leader", || nodes.iter().position(TestNode::leads)).await;
    let lost = nodes.remove(leader);
    let (id, address) = (lost.id.0, lost.address);
    lost.kill();
    let mut index = 0;
    for node in &nodes {
        index = index.max(node.set("without a leader").await);
    }
    all_equal(&nodes, index).await;
    assert!(nodes.iter().any(TestNode::leads));
    let back = TestNode::start(id, Some(address), &directory, vec![]).await;
    assert_eq!(back.register().await, Incarnation(5));
    nodes.insert(leader, back);
    all_equal(&nodes, index + 1).await;
    // A voter that is down is replaced, and may leave its place to the other for good.
    let down = nodes[leader].id;
    let current = nodes[leader].raft.published().current();
    let change = current.fence_of(down, 0).expect("a member");
    assert_eq!(nodes[(leader + 1) % 4].propose(change).await.applied, Applied::Done);
    let expected: Vec<u128> = [1, 2, 3, 4].into_iter().filter(|other| *other != down.0).collect();
    voters_are(&nodes, &expected).await;
    let index = nodes[leader].set("from one that lost its vote").await;
    all_equal(&nodes, index).await;
}

#[tokio::test]
async fn the_group_grows_to_five_and_survives_two_losses() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut nodes = start_cluster(&directory, 7).await;
    voters_are(&nodes, &[1, 2, 3, 4, 5]).await;
    for _ in 0..2 {
        nodes.remove(0).kill();
    }
    let mut index = 0;
    for node in &nodes {
        index = index.max(node.set("five of seven").await);
    }
    all_equal(&nodes, index).await;
}

#[tokio::test]
async fn voters_that_all_come_back_elsewhere_find_each_other_by_one_seed() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut nodes = start_cluster(&directory, 4).await;
    voters_are(&nodes, &[1, 2, 3]).await;
    let index = nodes[3].set("before").await;
    all_equal(&nodes, index).await;
    let count = nodes.len() as u128;
    nodes.drain(..).for_each(TestNode::kill);
    for id in 1..=count {
        let seeds = nodes.first().map(|first: &TestNode| Peer { node: None, address: first.address });
        nodes.push(TestNode::start(id, None, &directory, seeds.into_iter().collect()).await);
    }
    let mut index = 0;
    for node in &nodes {
        node.register().await;
        index = node.set("from elsewhere").await;
    }
    all_equal(&nodes, index).await;
    assert_eq!(nodes[3].raft.published().moved(), [], "the topology knows where they are");
}

#[tokio::test]
async fn voters_hear_who_lives_over_links_and_not_who_is_gone() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut nodes = start_cluster(&directory, 4).await;
    let hears = |node: &TestNode, other: u128| node.raft.links_heard().contains_key(&identity::NodeId(other));
    eventually("the first voter hears all", || (2..=4).all(|id| hears(&nodes[0], id)).then_some(())).await;
    nodes.remove(3).kill();
    eventually("and not who was killed", || (!hears(&nodes[0], 4)).then_some(())).await;
}

#[tokio::test]
async fn voters_whose_disk_fails_are_replaced_the_raft_leader_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let nodes = start_cluster(&directory, 7).await;
    voters_are(&nodes, &[1, 2, 3, 4, 5]).await;
    let mut voters = BTreeSet::from([1u128, 2, 3, 4, 5]);
    for (round, spare) in [6u128, 7].into_iter().enumerate() {
        let leader = eventually("there is a raft leader", || nodes.iter().position(TestNode::leads)).await;
        // First one that follows, then the raft leader.
        let broken = if round == 0 { (0..5).find(|at| *at != leader).expect("five vote") } else { leader };
        nodes[broken].raft.shared.disk.break_it();
        nodes[leader].set("more to write").await;
        voters.remove(&nodes[broken].id.0);
        voters.insert(spare);
        voters_are(&nodes, &voters.iter().copied().collect::<Vec<_>>()).await;
        assert!(nodes[broken].raft.write_failures() > 0 && !nodes[broken].leads());
        // It follows, and can propose, as every node does that has no vote.
        let index = nodes[broken].set("without a vote").await;
        all_equal(&nodes, index).await;
    }
}

#[tokio::test]
async fn one_of_three_goes_on_alone_when_two_are_lost_and_forgets_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut nodes = start_cluster(&directory, 3).await;
    voters_are(&nodes, &[1, 2, 3]).await;
    let index = nodes[0].set("before").await;
    all_equal(&nodes, index).await;
    let led = nodes[1].raft.recover().await.expect_err("there is a raft leader");
    assert!(matches!(led, RecoveryError::Led(_)), "{led}");
    let leader = eventually("there is a raft leader", || nodes.iter().position(TestNode::leads)).await;
    let left = nodes.remove(leader);
    nodes.drain(..).for_each(TestNode::kill);
    // Written by the raft leader, and heard by nobody: the others may have agreed, for all that is known.
    let (name, value) = ("unheard".to_owned(), "kept".to_owned());
    let raft = left.raft.shared.raft();
    let change = TopologyChange::SetConfig { name: name.clone(), value: value.clone() };
    left.control.handle().spawn(async move { raft.client_write(change).await });
    let is_written = || left.raft.shared.raft().metrics().borrow().last_log_index > Some(index);
    eventually("it is in the log", || is_written().then_some(())).await;
    let recovery = left.recover().await;
    assert!(recovery.after.nodes.keys().eq([&left.id]), "{:?}", recovery.after.nodes);
    assert_eq!(recovery.before.nodes.len(), 3);
    let id = left.id.0;
    let mut nodes = vec![left];
    for round in 1..=2 {
        assert_eq!(nodes[0].generation(), 1);
        nodes[0].set(&format!("alone {round}")).await;
        voters_are(&nodes, &[id]).await;
        let current = nodes[0].raft.published().current();
        assert_eq!((current.generation, current.nodes.len()), (1, 1));
        assert_eq!(current.config.get(&name), Some(&value));
        assert_eq!(current.lease_voters.votes, [identity::NodeId(id); 2]);
        restart(&mut nodes, &directory, 0).await;
    }
}

#[tokio::test]
async fn who_lives_follows_into_the_next_generation_and_who_was_given_up_does_not() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut nodes = start_cluster(&directory, 5).await;
    voters_are(&nodes, &[1, 2, 3, 4, 5]).await;
    let index = nodes[0].set("before").await;
    all_equal(&nodes, index).await;
    let lost: Vec<(u128, SocketAddr)> = nodes[..3].iter().map(|node| (node.id.0, node.address)).collect();
    nodes.drain(..3).for_each(TestNode::kill);
    eventually("no raft leader is found", || nodes.iter().all(|node| node.raft.is_lost()).then_some(())).await;
    let first = nodes[1].raft.recover().await.expect_err("the other knows as much");
    assert_eq!(first, RecoveryError::OtherIsFirst(nodes[0].id));
    nodes[0].recover().await;
    eventually("the other follows", || (nodes[1].generation() == 1).then_some(())).await;
    voters_are(&nodes, &[4]).await;
    let mut index = 0;
    for node in &nodes {
        index = node.set("two of five").await;
    }
    all_equal(&nodes, index).await;
    // All of them are a majority of the generation before, and decide nothing.
    let mut back = Vec::new();
    for (id, address) in lost {
        back.push(TestNode::start(id, Some(address), &directory, vec![]).await);
    }
    for node in &back {
        eventually("it is told", || {
            node.raft.given_up().borrow().is_some_and(|it| it.generation == 1 && !it.was_led).then_some(())
        })
        .await;
    }
    assert!(back.iter().all(|node| node.generation() == 0));
    back.into_iter().for_each(TestNode::kill);
    // New ones join, and vote with those that went on, which start again as ever.
    for id in 6..=7 {
        let seeds = vec![nodes[0].peer()];
        let node = TestNode::start_in(1, id, None, &directory, seeds).await;
        node.register().await;
        nodes.push(node);
    }
    voters_are(&nodes, &[4, 5, 6]).await;
    restart(&mut nodes, &directory, 0).await;
    restart(&mut nodes, &directory, 1).await;
    let index = nodes[0].set("and on").await;
    all_equal(&nodes, index).await;
}
