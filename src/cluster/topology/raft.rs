//! Agreement on the topology: a small raft group, and everybody else following it.
//!
//! ```text
//!  propose(change) --> raft leader --> voters' logs --> applied --> Published --> subscribers
//!       (any node forwards)                                 ^
//!  other nodes: ping the voters, pull what they lack -------+
//! ```
//!
//! Every node runs an openraft instance; where it is no voter it sleeps until the raft leader makes it one. Who votes is
//! decided by `voters` and changed by the raft leader. A node that does not vote follows by pulling and is never a
//! learner for longer than it takes to become a voter. Raft is never on the path of a read or a write.

use super::change::{Applied, TopologyChange};
use super::heard::{LOST_AFTER, Said};
use super::published::{Published, TopologyUpdate};
use super::raft_disk::{RaftDisk, Record, Write};
use super::raft_network::{self, RaftLinks};
use super::raft_storage::{LogStore, StateStore};
use super::recovery::{GivenUp, Recovery, RecoveryError};
use super::state::Topology;
use crate::base::identity;
use crate::cluster::hints::LinksHeard;
use crate::cluster::support::Promises;
use crate::transport::messages::{GroupView, Heartbeat, LeaseReport, Voter, Whereabouts};
use crate::transport::{Blob, Handler, Peer, Purpose, Request, Response, Sender, Transport};
use arc_swap::ArcSwap;
use async_trait::async_trait;
use openraft::error::{ClientWriteError, InitializeError, RaftError};
use openraft::{BasicNode, Raft, ServerState, SnapshotPolicy};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io::{self, Cursor};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

pub use super::consensus::{Consensus, Proposal, ProposeError};
pub use super::raft_storage::RaftLog;

openraft::declare_raft_types!(
    /// What openraft agrees on here.
    pub(super) TypeConfig:
        D = TopologyChange,
        R = Applied,
        NodeId = u128,
        Node = BasicNode,
        SnapshotData = Cursor<Vec<u8>>,
);

pub(super) type NodeId = u128;
pub(super) type LogId = openraft::LogId<NodeId>;
pub(super) type Vote = openraft::Vote<NodeId>;
pub(super) type Entry = openraft::Entry<TypeConfig>;
pub(super) type Membership = openraft::StoredMembership<NodeId, BasicNode>;
pub(super) type SnapshotMeta = openraft::SnapshotMeta<NodeId, BasicNode>;

const HEARTBEAT_MS: u64 = 100;
const ELECTION_MIN_MS: u64 = 500;
const ELECTION_MAX_MS: u64 = 1000;
/// A raft snapshot is taken after this many entries, and this many stay for voters that are a little behind.
const ENTRIES_PER_SNAPSHOT: u64 = 1000;
const ENTRIES_KEPT: u64 = 500;
/// One attempt at a proposal; the whole proposal.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(8);
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// What the part is made of.
pub struct RaftOptions {
    pub node: identity::NodeId,
    /// Where other nodes reach this one: its cluster port.
    pub address: std::net::SocketAddr,
    /// When this life of the node began, ms since 1970.
    pub start_ms: u64,
    /// What the node has on its disk; opened for the same node.
    pub log: RaftLog,
    /// Forced recoveries of its cluster, as far as it knows.
    pub generation: u32,
    pub transport: Arc<dyn Transport>,
    /// Whom to ask where no raft leader is found: who let this node in, or whom an operator named.
    pub seeds: Vec<Peer>,
}

/// The topology's raft group, seen from one node. Cloned handles share it.
#[derive(Clone)]
pub struct RaftTopology {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) own: Voter,
    /// Replaced where another generation begins.
    instance: ArcSwap<Instance>,
    pub(super) published: Arc<Published>,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) disk: RaftDisk,
    pub(super) start_ms: u64,
    /// Forced recoveries of the cluster.
    pub(super) generation: watch::Sender<u32>,
    /// A later generation, in which this node is no member.
    pub(super) given_up: watch::Sender<Option<GivenUp>>,
    /// It has asked whether it still may, see `recovery`.
    pub(super) may_vote: AtomicBool,
    /// Held while this node passes into another generation.
    pub(super) changing: tokio::sync::Mutex<()>,
    /// Where raft's tasks run.
    runtime: tokio::runtime::Handle,
    pub(super) seeds: Mutex<Vec<Peer>>,
    /// What this node has promised as a lease voter.
    pub(super) report: Mutex<LeaseReport>,
    /// What was on the disk of that when it started.
    promises: Promises,
    /// When the raft leader last answered; `None`: never.
    pub(super) led_at: Mutex<Option<Instant>>,
    /// What each other node last said of itself, in pings and their answers.
    pub(super) heard_of: Mutex<BTreeMap<identity::NodeId, Said>>,
    /// What others told of the group, the newest.
    pub(super) heard: Mutex<GroupView>,
    pub(super) nudge: Notify,
    pub(super) hint: Notify,
    /// A version that is known to exist.
    pub(super) wanted: AtomicU64,
    stop: watch::Sender<bool>,
}

/// A raft instance, and what it keeps.
pub(super) struct Instance {
    pub(super) raft: Raft<TypeConfig>,
    pub(super) log: LogStore,
    pub(super) state: StateStore,
}

impl Instance {
    /// On the current runtime.
    pub(super) async fn start(own: NodeId, links: RaftLinks, log: LogStore, state: StateStore) -> io::Result<Instance> {
        let config = Arc::new(config()?);
        let raft = Raft::new(own, config, links, log.clone(), state.clone()).await.map_err(io::Error::other)?;
        Ok(Instance { raft, log, state })
    }
}

impl RaftTopology {
    /// Takes part from now on, on the current runtime. That should be one that nothing else keeps busy: see
    /// `ControlThread`.
    pub async fn start(options: RaftOptions) -> io::Result<RaftTopology> {
        let RaftLog { log, state, disk, stored, published } = options.log;
        let heard = stored.record(Record::Group).and_then(|bytes| postcard::from_bytes(bytes).ok()).unwrap_or_default();
        let promises = stored.record(Record::Promises).map(decode_promises).transpose()?.unwrap_or_default();
        let links = RaftLinks {
            own: options.node.0,
            transport: Arc::clone(&options.transport),
            published: Arc::clone(&published),
        };
        let instance = Instance::start(options.node.0, links, log, state).await?;
        let shared = Arc::new(Shared {
            own: Voter { node: options.node, address: options.address },
            instance: ArcSwap::from_pointee(instance),
            published,
            transport: options.transport,
            disk,
            start_ms: options.start_ms,
            generation: watch::Sender::new(options.generation),
            given_up: watch::Sender::new(None),
            may_vote: AtomicBool::new(false),
            changing: tokio::sync::Mutex::default(),
            runtime: tokio::runtime::Handle::current(),
            seeds: Mutex::new(options.seeds),
            report: Mutex::default(),
            promises,
            led_at: Mutex::new(None),
            heard_of: Mutex::default(),
            heard: Mutex::new(heard),
            nudge: Notify::new(),
            hint: Notify::new(),
            wanted: AtomicU64::new(0),
            stop: watch::Sender::new(false),
        });
        shared.refresh_right_to_elect();
        if shared.published.current().nodes.keys().all(|node| *node == options.node) {
            shared.ask_before_voting().await;
        } else {
            let asking = Arc::clone(&shared);
            tokio::spawn(async move { asking.ask_before_voting().await });
        }
        tokio::spawn(super::following::follow(Arc::clone(&shared)));
        tokio::spawn(super::following::lead(Arc::clone(&shared)));
        Ok(RaftTopology { shared })
    }

    /// Creates a cluster of one: this node votes alone. Does nothing where it has a raft log already.
    pub async fn create(&self, cluster: identity::ClusterId, hash_key: u128) -> Result<Proposal, ProposeError> {
        let node = BasicNode::new(self.shared.own.address);
        match self.shared.raft().initialize(BTreeMap::from([(self.shared.own.node.0, node)])).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
            Err(error) => return Err(ProposeError::Stopped(error.to_string())),
        }
        self.propose(TopologyChange::InitCluster { cluster, hash_key }).await
    }

    /// The topology and the way to serve it to others.
    pub fn published(&self) -> &Arc<Published> {
        &self.shared.published
    }

    /// What this node tells in pings and their answers.
    pub fn heartbeat(&self) -> Heartbeat {
        self.shared.heartbeat()
    }

    /// Somebody says where a node is.
    pub fn learn_place(&self, heard: Whereabouts) {
        self.shared.on_place(heard);
    }

    /// Whether this node finds no raft leader.
    pub fn is_lost(&self) -> bool {
        self.shared.is_lost()
    }

    /// The generation of this node. Whoever listens keeps it on the disk, where the raft log has it already.
    pub fn generation(&self) -> watch::Receiver<u32> {
        self.shared.generation.subscribe()
    }

    /// In which generation of the cluster this node is no member, once it is known that there is one.
    pub fn given_up(&self) -> watch::Receiver<Option<GivenUp>> {
        self.shared.given_up.subscribe()
    }

    /// Whom to ask from now on where no raft leader is found.
    pub fn set_seeds(&self, seeds: Vec<Peer>) {
        *self.shared.seeds.lock() = seeds;
    }

    /// Fetches this version at once, where that would be done soon anyway: somebody has told of it.
    pub fn nudge(&self, version: u64) {
        self.shared.wanted.fetch_max(version, Ordering::Relaxed);
        self.shared.nudge.notify_one();
    }

    /// Gossip has told of this version: fetched soon. Everybody hears that at the same moment, and must not ask at it.
    pub fn hint(&self, version: u64) {
        if version > self.shared.published.current().version {
            self.shared.hint.notify_one();
        }
    }

    /// What this node had promised as a lease voter when it started.
    pub fn promises(&self) -> &Promises {
        &self.shared.promises
    }

    /// Keeps what it promises; done when it is on the disk, or has failed.
    pub async fn keep_promises(&self, promises: &Promises) -> io::Result<()> {
        let (done, is_done) = tokio::sync::oneshot::channel();
        let bytes = postcard::to_stdvec(promises).expect("plain values are encoded");
        self.shared.disk.write(Write::Put(Record::Promises, bytes), |written| drop(done.send(written)));
        is_done.await.unwrap_or_else(|_| Err(io::Error::other("the thread that writes has ended")))
    }

    /// Tells others from now on what this node has promised.
    pub fn set_report(&self, report: LeaseReport) {
        *self.shared.report.lock() = report;
    }

    /// Answers pings, proposals, pulls and raft's own messages; other requests come back.
    pub async fn answer(&self, sender: &Sender, request: Request) -> Result<Response, Request> {
        let shared = &self.shared;
        match request {
            Request::Ping(heartbeat) => {
                // Who belongs to no cluster yet may ask, and has nothing to tell.
                if sender.cluster.is_some() {
                    shared.on_called(sender.node, &heartbeat);
                    shared.on_heard(heartbeat.group);
                }
                Ok(Response::Pong(shared.heartbeat()))
            }
            Request::Propose(Blob(bytes)) => Ok(match postcard::from_bytes(&bytes) {
                Ok(change) => shared.on_proposed(change).await,
                Err(_) => Response::Failed("a malformed topology change".into()),
            }),
            Request::PullTopology { since } => {
                Ok(Response::Topology(Blob(shared.published.update_since(since).encode())))
            }
            Request::Standing => Ok(Response::Standing(Box::new(shared.standing(sender.node)))),
            // Not only votes: whoever led when it ended goes on to, and would be followed.
            Request::RaftAppend(_) | Request::RaftVote(_) | Request::RaftSnapshot(_) if !shared.votes_now() => {
                Ok(Response::Failed("this node does not know yet whether it takes part".into()))
            }
            // Raft would answer each with the same error, and log it.
            Request::RaftAppend(_) | Request::RaftVote(_) | Request::RaftSnapshot(_) if !shared.is_running() => {
                Ok(Response::Failed("this node's raft log cannot be written".into()))
            }
            other => raft_network::answer(&shared.raft(), other).await,
        }
    }

    /// Stops taking part. The raft log is closed when the last handle is gone.
    pub async fn shutdown(&self) {
        self.shared.stop.send_replace(true);
        if let Err(error) = self.shared.raft().shutdown().await {
            tracing::warn!(%error, "raft did not stop cleanly");
        }
    }
}

fn decode_promises(bytes: &[u8]) -> io::Result<Promises> {
    postcard::from_bytes(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "what it promised is damaged"))
}

fn config() -> io::Result<openraft::Config> {
    let config = openraft::Config {
        cluster_name: "starling".into(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MIN_MS,
        election_timeout_max: ELECTION_MAX_MS,
        install_snapshot_timeout: 2000,
        max_payload_entries: 64,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(ENTRIES_PER_SNAPSHOT),
        max_in_snapshot_log_to_keep: ENTRIES_KEPT,
        ..openraft::Config::default()
    };
    config.validate().map_err(io::Error::other)
}

#[async_trait]
impl Consensus for RaftTopology {
    async fn propose(&self, change: TopologyChange) -> Result<Proposal, ProposeError> {
        let deadline = Instant::now() + PROPOSE_TIMEOUT;
        let mut failure = ProposeError::NoLeader;
        loop {
            match self.shared.propose_once(&change).await {
                Ok(proposal) => {
                    self.nudge(proposal.index);
                    return Ok(proposal);
                }
                // Once unknown, always unknown.
                Err(ProposeError::Unknown) => failure = ProposeError::Unknown,
                Err(_) => {}
            }
            if Instant::now() >= deadline {
                return Err(failure);
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    fn subscribe(&self) -> watch::Receiver<Arc<Topology>> {
        self.shared.published.subscribe()
    }

    fn group(&self) -> GroupView {
        self.shared.group()
    }

    fn links_heard(&self) -> LinksHeard {
        self.shared.links_heard()
    }

    fn lease_reports(&self) -> BTreeMap<identity::NodeId, LeaseReport> {
        self.shared.lease_reports()
    }

    fn write_failures(&self) -> u64 {
        self.shared.disk.write_failures()
    }

    async fn survey(&self) -> Result<Recovery, RecoveryError> {
        self.shared.survey().await
    }

    async fn recover(&self) -> Result<Recovery, RecoveryError> {
        let shared = Arc::clone(&self.shared);
        // Elsewhere than on the caller's runtime: raft's tasks are to outlive it.
        let recovered = self.shared.runtime.spawn(async move { shared.recover().await });
        recovered.await.unwrap_or_else(|error| Err(RecoveryError::Failed(error.to_string())))
    }
}

/// For nodes whose links serve nothing but agreement, as in tests.
#[async_trait]
impl Handler for RaftTopology {
    async fn handle(&self, sender: &Sender, request: Request) -> Response {
        self.answer(sender, request).await.unwrap_or_else(|_| Response::Failed("not served here".into()))
    }
}

impl Shared {
    pub(super) fn instance(&self) -> Arc<Instance> {
        self.instance.load_full()
    }

    /// The raft instance of this moment.
    pub(super) fn raft(&self) -> Raft<TypeConfig> {
        self.instance.load().raft.clone()
    }

    /// Another instance takes the place of the one that was, which has been shut down.
    pub(super) fn replace(&self, instance: Instance) {
        self.instance.store(Arc::new(instance));
    }

    pub(super) fn links(&self) -> RaftLinks {
        RaftLinks {
            own: self.own.node.0,
            transport: Arc::clone(&self.transport),
            published: Arc::clone(&self.published),
        }
    }

    pub(super) fn generation(&self) -> u32 {
        *self.generation.borrow()
    }

    /// A group of one need not wait for an election timeout after a restart.
    pub(super) async fn elect_at_once_if_alone(&self) {
        let raft = self.raft();
        let metrics = raft.metrics().borrow().clone();
        if metrics.membership_config.voter_ids().eq([self.own.node.0])
            && let Err(error) = raft.trigger().elect().await
        {
            tracing::warn!(%error, "raft could not begin an election");
        }
    }

    /// Ends when the part is shut down.
    pub(super) async fn until_stopped(&self) {
        let mut stopped = self.stop.subscribe();
        // The sender lives as long as self.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    }

    /// What this node knows of the group: its own committed knowledge, or what it heard, if that is newer.
    pub(super) fn group(&self) -> GroupView {
        let own = self.own_view();
        let heard = self.heard.lock();
        let is_newest = own.voters_index >= heard.voters_index && (self.is_running() || heard.voters.is_empty());
        if is_newest && !own.voters.is_empty() { own } else { heard.clone() }
    }

    pub(super) fn own_view(&self) -> GroupView {
        let instance = self.instance();
        let membership = instance.state.membership();
        let metrics = instance.raft.metrics().borrow().clone();
        // A leader that has lost the others is not told, and decides nothing.
        let is_there = |leader: &NodeId| self.is_running() && (*leader != self.own.node.0 || self.leads());
        let voter = |id| {
            let first_address = membership.membership().get_node(&id)?.addr.parse().ok()?;
            let node = identity::NodeId(id);
            Some(Voter { node, address: self.published.address(node).unwrap_or(first_address) })
        };
        GroupView {
            term: metrics.current_term,
            voters_index: membership.log_id().map_or(0, |id| id.index),
            leader: metrics.current_leader.filter(is_there).map(identity::NodeId),
            voters: membership.voter_ids().filter_map(voter).collect(),
        }
    }

    pub(super) fn heartbeat(&self) -> Heartbeat {
        let Voter { node, address } = self.own;
        Heartbeat {
            topology_version: self.published.current().version,
            group: self.group(),
            from: Some(Whereabouts { node, start_ms: self.start_ms, address }),
            moved: self.published.moved(),
            cannot_write: !self.is_running(),
            lease: self.report.lock().clone(),
        }
    }

    /// Whether this node takes part in agreement: raft stops for good when the disk fails.
    pub(super) fn is_running(&self) -> bool {
        self.disk.write_failures() == 0 && self.raft().metrics().borrow().running_state.is_ok()
    }

    /// Whether a node may vote, as far as it has said.
    pub(super) fn can_write(&self, node: identity::NodeId) -> bool {
        if node == self.own.node {
            return self.is_running();
        }
        self.heard_of.lock().get(&node).is_none_or(|said| !said.cannot_write)
    }

    pub(super) fn is_leader(&self) -> bool {
        self.is_running() && self.raft().metrics().borrow().state == ServerState::Leader
    }

    /// Whether it is the raft leader, and a majority has heard so lately.
    pub(super) fn leads(&self) -> bool {
        let silent_ms = self.raft().metrics().borrow().millis_since_quorum_ack;
        self.is_leader() && silent_ms.is_some_and(|silent_ms| silent_ms < LOST_AFTER.as_millis() as u64)
    }

    async fn propose_once(&self, change: &TopologyChange) -> Result<Proposal, ProposeError> {
        if self.is_leader()
            && let Some(result) = self.propose_here(change.clone()).await
        {
            return result;
        }
        let request = Request::Propose(Blob(postcard::to_stdvec(change).expect("plain values are encoded")));
        let mut failure = ProposeError::NoLeader;
        for peer in self.peers() {
            match self.transport.request(peer, Purpose::Control, request.clone(), ATTEMPT_TIMEOUT).await {
                Ok(Response::Proposed(Blob(bytes))) => {
                    return postcard::from_bytes(&bytes).map_err(|_| ProposeError::Unknown);
                }
                Ok(Response::NotLeader(group)) => self.on_heard(group),
                Ok(_) => failure = ProposeError::Unknown,
                Err(crate::transport::TransportError::TimedOut | crate::transport::TransportError::Disconnected) => {
                    failure = ProposeError::Unknown;
                }
                Err(_) => {}
            }
        }
        Err(failure)
    }

    /// Writes to this node's raft instance; `None`: it does not lead the group.
    async fn propose_here(&self, change: TopologyChange) -> Option<Result<Proposal, ProposeError>> {
        if !self.is_running() {
            return None;
        }
        let raft = self.raft();
        let written = tokio::select! {
            biased;
            written = timeout(ATTEMPT_TIMEOUT, raft.client_write(change)) => written,
            () = leads_no_more(&raft) => return Some(Err(ProposeError::Unknown)),
        };
        match written {
            Ok(Ok(written)) => Some(Ok(Proposal { index: written.log_id.index, applied: written.data })),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => None,
            Ok(Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(_)))) | Err(_) => {
                Some(Err(ProposeError::Unknown))
            }
            // The disk has failed meanwhile; others may have the entry, and lead.
            Ok(Err(RaftError::Fatal(_))) => Some(Err(ProposeError::Unknown)),
        }
    }

    async fn on_proposed(&self, change: TopologyChange) -> Response {
        match self.propose_here(change).await {
            Some(Ok(proposal)) => {
                Response::Proposed(Blob(postcard::to_stdvec(&proposal).expect("plain values are encoded")))
            }
            Some(Err(error)) => Response::Failed(error.to_string()),
            None => Response::NotLeader(self.group()),
        }
    }

    /// Takes an update that another node sent.
    pub(super) fn on_update(&self, bytes: &[u8]) {
        let taken = TopologyUpdate::decode(bytes).and_then(|update| self.published.on_pulled(update));
        if let Err(error) = taken {
            tracing::warn!(?error, "an update of the topology was not taken");
        }
    }
}

/// Ends a moment after this node leads no more: its proposals may yet be agreed, and who votes no more is not told.
async fn leads_no_more(raft: &Raft<TypeConfig>) {
    let _ = raft.metrics().wait_for(|metrics| metrics.state != ServerState::Leader).await;
    tokio::time::sleep(RETRY_PAUSE).await;
}

#[cfg(test)]
mod tests;
