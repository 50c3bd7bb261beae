//! Moves between two nodes over an agreement that a test decides about: at once, later, or never.

mod with_copies;

use super::*;
use crate::base::clock;
use crate::base::identity::ClusterId;
use crate::base::slot::SLOT_COUNT;
use crate::base::slot_ranges::SlotRanges;
use crate::cluster::topology::raft::{Proposal, ProposeError};
use crate::cluster::topology::sample::node;
use crate::cluster::topology::{Applied, Phase, SlotRecord};
use crate::engine::keyspace::Deadline;
use crate::transport::messages::GroupView;
use crate::transport::{LinkReport, Peer, Purpose, Request, TransportError};
use async_trait::async_trait;
use std::net::{IpAddr, Ipv4Addr};

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(20);
const SOURCE: NodeId = NodeId(1);
const TARGET: NodeId = NodeId(2);
const KEYS: usize = 3000;

/// Which proposals are given up by their proposer, and committed when the test says so.
type Withheld = fn(&TopologyChange) -> bool;

struct Agreement {
    topology: watch::Sender<Arc<Topology>>,
    withheld: Mutex<Withheld>,
    given_up: watch::Sender<Vec<TopologyChange>>,
}

impl Agreement {
    fn commit(&self, change: &TopologyChange) -> Proposal {
        let mut topology = Topology::clone(&self.topology.borrow());
        let index = topology.version + 1;
        let applied = topology.apply(index, change);
        self.topology.send_replace(Arc::new(topology));
        Proposal { index, applied }
    }

    /// Waits until such a change has been proposed and given up, and gives it.
    async fn given_up(&self) -> TopologyChange {
        let mut changes = self.given_up.subscribe();
        let seen = tokio::time::timeout(LIMIT, changes.wait_for(|changes| !changes.is_empty())).await;
        seen.expect("it is proposed").expect("the agreement lives")[0].clone()
    }
}

#[async_trait]
impl Consensus for Agreement {
    async fn propose(&self, change: TopologyChange) -> Result<Proposal, ProposeError> {
        if (*self.withheld.lock())(&change) {
            self.given_up.send_modify(|changes| changes.push(change));
            return Err(ProposeError::Unknown);
        }
        Ok(self.commit(&change))
    }

    fn subscribe(&self) -> watch::Receiver<Arc<Topology>> {
        self.topology.subscribe()
    }

    fn group(&self) -> GroupView {
        GroupView::default()
    }
}

/// Links that bring messages to whom they are for.
struct Links {
    source: Mutex<Option<Moves>>,
    target: Mutex<Option<Moves>>,
    /// Who asks the source, since it started last.
    target_life: Mutex<Incarnation>,
    /// What happens between two questions to the source; false: the question does not get there.
    between: Mutex<Box<dyn FnMut() -> bool + Send>>,
}

#[async_trait]
impl Transport for Links {
    async fn request(&self, to: Peer, _: Purpose, request: Request, _: Duration) -> Result<Response, TransportError> {
        let Request::Copy(question) = &request else { return Err(TransportError::Disconnected) };
        let to_source = to.node == Some(SOURCE);
        if to_source && !(*self.between.lock())() {
            return Err(TransportError::Disconnected);
        }
        let (at, node) = if to_source { (&self.source, TARGET) } else { (&self.target, SOURCE) };
        let at = at.lock().clone().ok_or(TransportError::Disconnected)?;
        let mut sender = sender(node);
        if to_source {
            sender.incarnation = *self.target_life.lock();
        }
        Ok(at.answer(&sender, question).await)
    }

    fn links(&self) -> Vec<LinkReport> {
        Vec::new()
    }
}

fn sender(node: NodeId) -> Sender {
    Sender {
        node,
        incarnation: Incarnation(node.0 as u64),
        cluster: Some(ClusterId(1)),
        ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        purpose: Purpose::Copies,
    }
}

struct Pair {
    agreement: Arc<Agreement>,
    source: Arc<Engine>,
    target: Arc<Engine>,
    /// Versions that the target has followed.
    followed: watch::Receiver<u64>,
    links: Arc<Links>,
    lives: [watch::Sender<Option<Incarnation>>; 2],
}

fn moving() -> SlotRanges {
    Slot::all().take(200).collect()
}

/// The keys that are written, and their slots.
fn keys() -> impl Iterator<Item = (String, Slot)> {
    let key = |number: usize| format!("key:{number}");
    let keys = (0..).map(move |number| (key(number), Slot::of_key(key(number).as_bytes())));
    keys.filter(|(_, slot)| slot.index() < 200).take(KEYS)
}

/// How many of them are there, whoever serves their slots.
fn count(engine: &Engine) -> usize {
    keys().filter(|(key, slot)| engine.lock_slot(*slot, 0, 0).exists(key.as_bytes())).count()
}

/// Starts the moves of a life of a node. Gives what ends it, and the versions that it has followed.
fn start(
    agreement: &Arc<Agreement>,
    links: &Arc<Links>,
    engine: &Arc<Engine>,
    (node, incarnation): (NodeId, Incarnation),
    held: Vec<Option<Epoch>>,
) -> (Moves, watch::Sender<Option<Incarnation>>, watch::Receiver<u64>) {
    let (life, incarnation) = watch::channel(Some(incarnation));
    let (shown, followed) = watch::channel(0);
    let options = MovesOptions {
        node,
        engine: Arc::clone(engine),
        consensus: Arc::clone(agreement) as Arc<_>,
        transport: Arc::clone(links) as Arc<_>,
        incarnation,
        held,
        nudge: Arc::new(|_| {}),
        show: Box::new(move |topology: &Arc<Topology>, _| {
            shown.send_replace(topology.version);
        }),
    };
    (Moves::start(options, tokio::runtime::Handle::current()), life, followed)
}

impl Pair {
    /// The source owns every slot and has all the keys; the target has registered.
    async fn start(withheld: Withheld) -> Pair {
        let agreement = Arc::new(Agreement {
            topology: watch::Sender::new(Arc::default()),
            withheld: Mutex::new(withheld),
            given_up: watch::Sender::default(),
        });
        agreement.commit(&TopologyChange::InitCluster { cluster: ClusterId(1), hash_key: 1 });
        agreement.commit(&TopologyChange::RegisterNode { node: node(SOURCE) });
        agreement.commit(&TopologyChange::Revive { slots: Slot::all().collect(), to: SOURCE });
        agreement.commit(&TopologyChange::RegisterNode { node: node(TARGET) });
        let links = Arc::new(Links {
            source: Mutex::default(),
            target: Mutex::default(),
            target_life: Mutex::new(Incarnation(2)),
            between: Mutex::new(Box::new(|| true)),
        });
        let [source, target] = [(), ()].map(|()| Arc::new(Engine::new(1)));
        let start = |id: NodeId, engine: &Arc<Engine>| {
            start(&agreement, &links, engine, (id, Incarnation(id.0 as u64)), vec![None; SLOT_COUNT])
        };
        let (source_moves, first, mut is_ready) = start(SOURCE, &source);
        let (target_moves, second, followed) = start(TARGET, &target);
        *links.source.lock() = Some(source_moves);
        *links.target.lock() = Some(target_moves);
        is_ready.wait_for(|shown| *shown > 0).await.expect("the source lives");
        for (key, slot) in keys() {
            source.lock_slot(slot, 0, clock::unix_us() / 1000).set_string(key.as_bytes(), b"v", Deadline::Clear);
        }
        Pair { agreement, source, target, followed, links, lives: [first, second] }
    }

    /// Waits until the target has acted on everything that is agreed.
    async fn settle(&mut self) {
        let version = self.agreement.topology.borrow().version;
        let seen = tokio::time::timeout(LIMIT, self.followed.wait_for(|shown| *shown >= version)).await;
        seen.expect("the target follows").expect("the target lives");
        // What follows the showing is done before its task waits again.
        tokio::task::yield_now().await;
    }

    /// The target becomes a copy of the moving slots.
    fn join(&self) {
        let (node, incarnation) = (TARGET, *self.links.target_life.lock());
        let join = TopologyChange::CopyJoin { slots: moving(), node, incarnation };
        assert_eq!(self.agreement.commit(&join).applied, Applied::Done);
    }

    /// Waits until the copy on a node is agreed to be in sync, in all slots.
    async fn until_ready(&self, node: NodeId) {
        let mut topologies = self.agreement.subscribe();
        let is_ready = |topology: &Topology, slot| {
            topology.slot(slot).copies.on(node).is_some_and(|copy: &crate::cluster::topology::SlotCopy| copy.ready)
        };
        let ready = topologies.wait_for(|topology| moving().slots().all(|slot| is_ready(topology, slot)));
        tokio::time::timeout(LIMIT, ready).await.expect("it gets in sync").expect("the agreement lives");
    }

    /// Agrees that the target, which has everything, is to take the slots over. Gives the number of that.
    fn begin_hand_over(&self) -> u64 {
        let change = TopologyChange::HandOver { slots: moving(), node: TARGET, incarnation: Incarnation(2) };
        let Proposal { index, applied } = self.agreement.commit(&change);
        assert_eq!(applied, Applied::Done);
        index
    }

    /// Agrees that the copy on a node is none any more.
    fn leave(&self, node: NodeId) {
        let slot = Slot::all().next().expect("a slot");
        let number = self.agreement.topology.borrow().slot(slot).copies.on(node).expect("a copy").number;
        let leave = TopologyChange::CopyLeave { slots: moving(), node, number };
        assert_eq!(self.agreement.commit(&leave).applied, Applied::Done);
    }

    /// Waits until the target owns the slots and keeps them, and until the source has dropped them.
    async fn until_moved(&mut self) {
        let mut topologies = self.agreement.subscribe();
        let is_done = |record: &SlotRecord| record.primary == Some(TARGET) && record.phase == Phase::Normal;
        let moved = topologies.wait_for(|topology| moving().slots().all(|slot| is_done(topology.slot(slot))));
        tokio::time::timeout(LIMIT, moved).await.expect("the slots move").expect("the agreement lives");
        self.leave(SOURCE);
        self.settle().await;
        let source = Arc::clone(&self.source);
        eventually(|| count(&source) == 0).await;
    }
}

/// Waits until it is so.
async fn eventually(mut is_so: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(LIMIT, async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    });
    waited.await.expect("it is so some time");
}

#[tokio::test]
async fn a_hand_off_that_commits_long_after_its_proposer_gave_up_keeps_all_keys() {
    let mut pair = Pair::start(|change| matches!(change, TopologyChange::Handoff { .. })).await;
    pair.join();
    pair.until_ready(TARGET).await;
    pair.begin_hand_over();
    let hand_off = pair.agreement.given_up().await;
    // Whatever its proposer does when it has given up, it has done now.
    let mut again = pair.agreement.given_up.subscribe();
    let proposed = tokio::time::timeout(LIMIT, again.wait_for(|changes| changes.len() >= 3)).await;
    proposed.expect("the same is proposed again").expect("the agreement lives");
    assert_eq!(count(&pair.target), KEYS, "what has arrived stays");
    pair.agreement.commit(&hand_off);
    pair.until_moved().await;
    assert_eq!((count(&pair.source), count(&pair.target)), (0, KEYS));
}

#[tokio::test]
async fn after_an_abort_the_source_serves_and_a_late_hand_off_does_nothing() {
    let mut pair = Pair::start(|change| matches!(change, TopologyChange::Handoff { .. })).await;
    pair.join();
    pair.until_ready(TARGET).await;
    let begun = pair.begin_hand_over();
    let hand_off = pair.agreement.given_up().await;
    pair.agreement.commit(&TopologyChange::AbortHandoff { slots: moving(), to: TARGET, begun });
    let (slot, source) = (Slot::all().next().expect("a slot"), Arc::clone(&pair.source));
    eventually(|| source.slot_state(slot) == SlotState::Serving).await;
    assert!(matches!(pair.agreement.commit(&hand_off).applied, Applied::Refused(_)));
    pair.leave(TARGET);
    pair.settle().await;
    assert_eq!((count(&pair.source), count(&pair.target)), (KEYS, 0));
    // Slots that begin anew have the epoch that the hand-off would have made.
    let change = pair.agreement.topology.borrow().fence_of(SOURCE, 0).expect("a member");
    pair.agreement.commit(&change);
    pair.agreement.commit(&TopologyChange::ForgetNode {
        node: SOURCE,
        incarnation: Incarnation(1),
        decided_by: u64::MAX,
    });
    pair.agreement.commit(&TopologyChange::Revive { slots: moving(), to: TARGET });
    pair.settle().await;
    assert_eq!((pair.target.slot_state(slot), count(&pair.target)), (SlotState::Serving, 0));
}

#[tokio::test]
async fn a_copy_that_is_agreed_late_to_have_everything_is_not_sent_again() {
    let mut pair = Pair::start(|change| matches!(change, TopologyChange::CopyInSync { .. })).await;
    pair.join();
    let step = pair.agreement.given_up().await;
    assert_eq!(count(&pair.target), KEYS);
    pair.agreement.commit(&step);
    pair.until_ready(TARGET).await;
    pair.begin_hand_over();
    pair.until_moved().await;
    assert_eq!((count(&pair.source), count(&pair.target)), (0, KEYS));
}

/// Clients that write one key in each of some slots, as often as the node lets them.
struct Writers {
    engine: Arc<Engine>,
    keys: Vec<(String, Slot)>,
    value: Vec<u8>,
    written: u64,
    /// They had to wait before.
    have_waited: bool,
    /// Bytes that the source's log kept, at most.
    kept: u64,
}

impl Writers {
    const VALUE_BYTES: usize = 64 * 1024;

    /// Writes until all have to wait; or 1 MB, several times what a piece takes.
    fn write(&mut self) {
        let mut bytes = 0;
        while bytes < 1024 * 1024 {
            let before = bytes;
            for (key, slot) in &self.keys {
                let mut keyspace = self.engine.lock_slot(*slot, 0, clock::unix_us() / 1000);
                if keyspace.slots_state(&[*slot]) == SlotState::Serving && !keyspace.is_congested(&[*slot]) {
                    self.written += 1;
                    self.value[..8].copy_from_slice(&self.written.to_le_bytes());
                    keyspace.set_string(key.as_bytes(), &self.value, Deadline::Clear);
                    bytes += self.value.len();
                }
            }
            self.kept = self.kept.max(self.engine.log.kept_bytes());
            if bytes == before {
                self.have_waited = true;
                break;
            }
        }
    }
}

impl Writers {
    /// They write between the questions of the target, while `is_heard`.
    fn start(pair: &Pair, mut is_heard: impl FnMut() -> bool + Send + 'static) -> Arc<Mutex<Writers>> {
        let writers = Arc::new(Mutex::new(Writers {
            engine: Arc::clone(&pair.source),
            // Their slots are the first to be copied.
            keys: keys().filter(|(_, slot)| slot.index() < 3).collect(),
            value: vec![7; Writers::VALUE_BYTES],
            written: 0,
            have_waited: false,
            kept: 0,
        }));
        let between = Arc::clone(&writers);
        *pair.links.between.lock() = Box::new(move || {
            between.lock().write();
            is_heard()
        });
        writers
    }
}

#[tokio::test]
async fn writers_faster_than_the_link_wait_and_the_move_ends() {
    let mut pair = Pair::start(|_| false).await;
    let writers = Writers::start(&pair, || true);
    pair.join();
    pair.until_ready(TARGET).await;
    pair.begin_hand_over();
    pair.until_moved().await;
    assert_eq!((count(&pair.source), count(&pair.target)), (0, KEYS));
    let writers = writers.lock();
    assert!(writers.have_waited);
    // What they write in one turn, and a chunk that somebody holds.
    assert!((1..3 << 20).contains(&writers.kept), "{} bytes of log were kept", writers.kept);
    let newest = writers.keys.iter().map(|(key, slot)| {
        let mut keyspace = pair.target.lock_slot(*slot, 0, 0);
        let value = keyspace.read_string(key.as_bytes()).expect("a string").expect("it has moved");
        let mut number = [0; 8];
        value.with_bytes(|bytes| number.copy_from_slice(&bytes[..8]));
        u64::from_le_bytes(number)
    });
    assert_eq!(newest.max(), Some(writers.written), "the last write has moved too");
}

#[tokio::test]
async fn writers_do_not_wait_for_a_copy_that_asks_no_more() {
    let pair = Pair::start(|_| false).await;
    let (cut, is_cut) = watch::channel(false);
    let writers = Writers::start(&pair, move || !*is_cut.borrow());
    pair.join();
    eventually(|| writers.lock().have_waited).await;
    cut.send_replace(true);
    let waiting = || {
        let writers = writers.lock();
        let waits = |slot: Slot| pair.source.lock_slot(slot, 0, 0).is_congested(&[slot]);
        writers.keys.iter().any(|(_, slot)| waits(*slot))
    };
    writers.lock().write();
    assert!(waiting());
    {
        let moves = pair.links.source.lock().clone().expect("started");
        let shared = &moves.shared;
        let mut source = shared.source.lock();
        let Source { exports, feeds } = &mut *source;
        feeds.give_up_silent(exports, Instant::now() + copies::SILENT_LIMIT);
    }
    assert!(!waiting());
    cut.send_replace(false);
    pair.until_ready(TARGET).await;
}
