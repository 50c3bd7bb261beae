//! A majority of the voters is lost for good: a person lets one member begin the next generation, and the others that live follow.
//!
//! ```text
//!  the one that knows the most                          a member that lives
//!    Standing?  to every member, whichever generation -->
//!                                                   <--  version, life, raft leader
//!    a raft log anew, on its disk at once: the newest
//!    state it can make, itself the only voter
//!    links of the generation before end             -->  finds no raft leader, and is refused: OtherGeneration
//!                                                   <--  Standing?
//!    a later generation, and whether that is a member -> yes: an empty raft log of that generation; it follows
//!                                                         no: it was given up, says so and takes no part
//! ```
//!
//! Who follows asks for it, as often as it takes, so no message can be lost. A node that finds a raft leader in its own generation never
//! asks. Nothing but [`Standing`] passes between generations (`Purpose::Recovery`).

use super::generations::{Kept, VERSIONS_SKIPPED};
use super::raft::{Instance, Shared};
use super::raft_disk::Record;
use super::raft_storage::{Newest, newest, records_of_one, renewed};
use super::state::Topology;
use crate::base::identity::NodeId;
use crate::transport::messages::{GroupView, Standing};
use crate::transport::{Peer, Purpose, Request, Response};
use openraft::ServerState;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinSet;

/// How long a member has to say where it stands.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// The same before this node votes. Where all others answer, or their ports are closed, it takes milliseconds.
const ANSWER_BEFORE_VOTING_LIMIT: Duration = Duration::from_secs(1);
/// How long a group of one may take to elect itself: a few syncs of its disk.
const ELECTED_LIMIT: Duration = Duration::from_secs(10);

/// What a recovery by this node does, or has done.
#[derive(Clone, Debug)]
pub struct Recovery {
    /// What was agreed, as far as this node knows.
    pub before: Arc<Topology>,
    /// What the members that answer go on with.
    pub after: Arc<Topology>,
}

/// This node is no member in a later generation of its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GivenUp {
    pub generation: u32,
    /// It has found a raft leader in this life, and may have served.
    pub was_led: bool,
}

/// Why a node does not begin a generation. Nothing has changed, but for [`RecoveryError::Failed`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecoveryError {
    /// There is a raft leader.
    Led(NodeId),
    /// So many of so many voters answer, and will elect one of them.
    VotersAnswer(usize, usize),
    /// This member answers, and knows of later changes; or it knows as much, and its id is lower.
    OtherIsFirst(NodeId),
    /// This member is in a later generation: this node follows it, or was given up.
    LaterGeneration(NodeId),
    /// This node is no member, as far as it knows.
    NoMember,
    /// It is doing so, or follows another that has.
    UnderWay,
    /// Its raft log could not be written, or it did not elect itself in time. It takes no part before it is started again.
    Failed(String),
}

impl fmt::Display for RecoveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecoveryError::Led(node) => write!(
                f,
                "Nothing is to be recovered: {node} leads the raft group. A node that is down is given up by CLUSTER FORGET"
            ),
            RecoveryError::VotersAnswer(answer, of) => write!(
                f,
                "Nothing is to be recovered: {answer} of {of} voters answer, and will agree on a raft leader. Try again in a few \
                 seconds if they do not"
            ),
            RecoveryError::OtherIsFirst(node) => {
                write!(f, "Another node answers that knows as much or more, and begins: say it to {node}")
            }
            RecoveryError::LaterGeneration(node) => {
                write!(f, "The cluster was recovered already: {node} is in a later generation")
            }
            RecoveryError::NoMember => f.write_str("This node is no member of a cluster, as far as it knows"),
            RecoveryError::UnderWay => f.write_str("A recovery is under way on this node"),
            RecoveryError::Failed(why) => write!(f, "The recovery did not end well, start this node again: {why}"),
        }
    }
}

impl std::error::Error for RecoveryError {}

impl Shared {
    /// Where this node stands, told to that one.
    pub(super) fn standing(&self, asked_by: NodeId) -> Standing {
        let leader = self.group().leader.filter(|_| !self.is_lost());
        let topology = self.published.current();
        Standing {
            generation: self.generation(),
            start_ms: self.start_ms,
            version: self.newest().version(),
            can_write: self.is_running(),
            has_member: topology.nodes.contains_key(&asked_by),
            group: GroupView { leader, ..self.group() },
        }
    }

    /// The newest state that can be made of what this node knows.
    fn newest(&self) -> Newest {
        let instance = self.instance();
        let mut newest = newest(&instance.log, &instance.state);
        let published = self.published.current();
        // It need not vote; and who has learned what is agreed may know more than its own log.
        if published.version > newest.topology.version {
            newest.topology = Topology::clone(&published);
        }
        newest
    }

    /// What this node would begin now.
    ///
    /// # Errors
    /// It must not: a raft leader is or will be there, or another member has to.
    pub(super) async fn survey(&self) -> Result<Recovery, RecoveryError> {
        self.plan().await.map(|(recovery, _)| recovery)
    }

    async fn plan(&self) -> Result<(Recovery, Newest), RecoveryError> {
        let own = self.own.node;
        if let Some(leader) = self.group().leader.filter(|_| !self.is_lost()) {
            return Err(RecoveryError::Led(leader));
        }
        let newest = self.newest();
        if !newest.topology.nodes.contains_key(&own) {
            return Err(RecoveryError::NoMember);
        }
        let answers = self.ask_all(&newest.topology, ANSWER_LIMIT).await;
        for (node, said) in &answers {
            if said.generation > self.generation() {
                return Err(RecoveryError::LaterGeneration(*node));
            }
            if let Some(leader) = said.group.leader {
                return Err(RecoveryError::Led(leader));
            }
        }
        // Of several that know as much the same one is named by all: two that began at the same time would be two clusters.
        let rank = |node: NodeId, version| (version, Reverse(node));
        let first = answers.iter().map(|(node, said)| rank(*node, said.version)).max();
        if let Some((_, Reverse(node))) = first.filter(|first| *first > rank(own, newest.version())) {
            return Err(RecoveryError::OtherIsFirst(node));
        }
        let voters = self.group().voters;
        let can_vote = |node: &NodeId| match answers.get(node) {
            Some(said) => said.can_write,
            None => *node == own && self.is_running(),
        };
        let answer = voters.iter().filter(|voter| can_vote(&voter.node)).count();
        if answer * 2 > voters.len() {
            return Err(RecoveryError::VotersAnswer(answer, voters.len()));
        }
        let mut kept: Kept = answers.iter().map(|(node, said)| (*node, said.start_ms)).collect();
        kept.insert(own, self.start_ms);
        let version = newest.version().saturating_add(VERSIONS_SKIPPED);
        let after = Arc::new(newest.topology.next_generation(own, &kept, version));
        Ok((Recovery { before: Arc::new(newest.topology.clone()), after }, newest))
    }

    /// Asks every other member at once. Those that answer, in this generation or a later one.
    async fn ask_all(&self, topology: &Topology, limit: Duration) -> BTreeMap<NodeId, Standing> {
        let mut asked = JoinSet::new();
        for node in topology.nodes.keys().copied().filter(|node| *node != self.own.node) {
            let Some(address) = self.published.address(node) else { continue };
            let transport = Arc::clone(&self.transport);
            asked.spawn(async move {
                let peer = Peer { node: Some(node), address };
                let answer = transport.request(peer, Purpose::Recovery, Request::Standing, limit).await;
                answered(answer).map(|said| (node, said))
            });
        }
        let answers = asked.join_all().await.into_iter().flatten();
        answers.filter(|(_, said)| said.generation >= self.generation()).collect()
    }

    /// Begins the next generation, with the members that answer now.
    ///
    /// # Errors
    /// As [`Shared::survey`]; or it failed in the middle.
    pub(super) async fn recover(&self) -> Result<Recovery, RecoveryError> {
        let _only = self.changing.try_lock().map_err(|_| RecoveryError::UnderWay)?;
        let (recovery, newest) = self.plan().await?;
        let node = &self.own;
        tracing::warn!(
            generation = recovery.after.generation,
            kept = recovery.after.nodes.len(),
            given_up = recovery.before.nodes.len() - recovery.after.nodes.len(),
            "this node begins the next generation of the cluster"
        );
        let records = records_of_one(&recovery.after, node.node.0, node.address, newest.term + 1);
        let begun = self.begin(recovery.after.generation, GroupView::default(), records).await;
        begun.map_err(|error| RecoveryError::Failed(error.to_string()))?;
        self.elect_at_once_if_alone().await;
        let mut metrics = self.raft().metrics();
        let elected = metrics.wait_for(|metrics| metrics.state == ServerState::Leader);
        match tokio::time::timeout(ELECTED_LIMIT, elected).await {
            Ok(Ok(_)) => Ok(recovery),
            _ => Err(RecoveryError::Failed("it did not elect itself in time".to_owned())),
        }
    }

    /// A node of another generation has refused a link. Where this one finds no raft leader it asks that one, and follows it into a later
    /// generation in which it is a member.
    pub(super) async fn on_other_generation(&self, peer: Peer) {
        let is_known = |node| self.published.current().nodes.contains_key(&node) || self.votes(node);
        if !self.is_lost() || !peer.node.is_some_and(is_known) {
            return;
        }
        let Ok(_only) = self.changing.try_lock() else { return };
        let answer = self.transport.request(peer, Purpose::Recovery, Request::Standing, ANSWER_LIMIT).await;
        let Some(said) = answered(answer).filter(|said| said.generation > self.generation()) else { return };
        self.heed(said).await;
    }

    /// Before this life votes: asks whoever is known whether the cluster was recovered without this node, or with it. All that were given
    /// up may start at once, and be a majority of what was.
    pub(super) async fn ask_before_voting(&self) {
        let answers = self.ask_all(&self.published.current(), ANSWER_BEFORE_VOTING_LIMIT).await;
        let later = answers.into_values().filter(|said| said.generation > self.generation());
        if let Some(said) = later.max_by_key(|said| said.generation) {
            let _only = self.changing.lock().await;
            self.heed(said).await;
        }
        self.may_vote.store(true, Ordering::Release);
        self.refresh_right_to_elect();
        self.elect_at_once_if_alone().await;
    }

    /// A member is in a later generation, and this node finds no raft leader in its own.
    async fn heed(&self, said: Standing) {
        // It may have been led meanwhile. A later generation that does not decide yet is waited for.
        if !self.is_lost() || said.group.leader.is_none() || said.generation <= self.generation() {
            return;
        }
        if !said.has_member {
            let was_led = self.led_at.lock().is_some() || self.leads();
            self.given_up.send_replace(Some(GivenUp { generation: said.generation, was_led }));
            self.refresh_right_to_elect();
            return;
        }
        tracing::warn!(
            generation = said.generation,
            "the cluster was recovered without most of its voters: this node follows"
        );
        let group = postcard::to_stdvec(&said.group).expect("plain values are encoded");
        let records = vec![(Record::Group, group)];
        if let Err(error) = self.begin(said.generation, said.group, records).await {
            tracing::error!(%error, "this node could not follow into the next generation: start it again");
        }
    }

    /// Whether a node votes, as far as is known.
    fn votes(&self, node: NodeId) -> bool {
        self.group().voters.iter().any(|voter| voter.node == node)
    }

    /// From now on this node is of that generation, with nothing in its raft log but these records.
    async fn begin(&self, generation: u32, group: GroupView, records: Vec<(Record, Vec<u8>)>) -> io::Result<()> {
        // In this order: who is of the generation before hears nothing of the new group, and its last words do not reach it.
        self.transport.begin_generation(generation);
        let former = self.instance();
        if let Err(error) = former.raft.shutdown().await {
            tracing::warn!(%error, "raft did not stop cleanly");
        }
        let (log, state) = renewed(&former.log, generation, records, &self.published).await?;
        let instance = Instance::start(self.own.node.0, self.links(), log, state).await?;
        *self.heard.lock() = group;
        *self.led_at.lock() = None;
        self.heard_of.lock().clear();
        self.replace(instance);
        self.generation.send_replace(generation);
        Ok(())
    }
}

fn answered(answer: Result<Response, crate::transport::TransportError>) -> Option<Standing> {
    match answer {
        Ok(Response::Standing(said)) => Some(*said),
        _ => None,
    }
}
