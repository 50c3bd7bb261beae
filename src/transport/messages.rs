//! Every message between nodes.
//!
//! The order of variants is the encoding (postcard numbers them): new ones go to the end, and where one is removed the
//! version rises. What upper layers define (raft messages, topology changes, copies of slots, events) travels as a [`Blob`].

use super::handshake::{Hello, Proof, Refusal, Welcome};
use crate::base::identity::NodeId;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// The version of this protocol. Nodes of different versions have no links.
pub const VERSION: u16 = 12;

/// What a link is for. Purposes do not share a connection, so that a heartbeat never waits behind a slot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Purpose {
    /// A node without a cluster asks to be let in.
    Join,
    /// Pings, proposals, topology, events.
    Control,
    /// The raft group.
    Raft,
    /// Copies of slots.
    Copies,
    /// Where another node stands, whichever generation of the cluster it is of. Nothing else.
    Recovery,
}

impl Purpose {
    /// Whether a link for this purpose may carry this request.
    pub fn allows(self, request: &Request) -> bool {
        match (self, request) {
            (Purpose::Join, Request::Ping(_) | Request::Join(_)) => true,
            (Purpose::Join, _) => false,
            (Purpose::Raft, Request::RaftAppend(_) | Request::RaftVote(_) | Request::RaftSnapshot(_)) => true,
            (_, Request::RaftAppend(_) | Request::RaftVote(_) | Request::RaftSnapshot(_)) => false,
            (Purpose::Copies, Request::Copy(_)) => true,
            (Purpose::Copies, _) | (_, Request::Copy(_)) => false,
            (Purpose::Recovery, Request::Standing) => true,
            (Purpose::Recovery, _) | (_, Request::Standing) => false,
            (Purpose::Control, _) => true,
            (Purpose::Raft, _) => false,
        }
    }

    /// Whether its links are about slots: pieces of them are long, and which life of a node asks for them matters.
    pub fn is_about_slots(self) -> bool {
        self == Purpose::Copies
    }
}

/// Everything that travels on a link, one to a frame.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Frame {
    Hello(Hello),
    Welcome(Welcome),
    Proof(Proof),
    /// Instead of a welcome or a proof, or after a proof; then the link is closed.
    Refusal(Refusal),
    /// After a good proof.
    Open,
    Request {
        id: u64,
        request: Request,
    },
    /// The answer to the request with this id.
    Response {
        id: u64,
        response: Response,
    },
}

/// What a node asks of another.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Request {
    Ping(Heartbeat),
    RaftAppend(Blob),
    RaftVote(Blob),
    RaftSnapshot(Blob),
    /// A topology change for the raft leader; not passed on by others.
    Propose(Blob),
    /// The changes of the topology after this version.
    PullTopology {
        since: u64,
    },
    /// A node without a cluster asks for the way in.
    Join(Blob),
    /// Events for the receiver's subscribers; not passed on.
    Event(Blob),
    /// A node asks for a lease voter's support.
    Beat(Blob),
    /// A message about copies of slots.
    Copy(Blob),
    /// A node that finds no raft leader asks what another knows.
    Standing,
}

/// What a node answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Response {
    /// It has been done, and there is nothing to say.
    Done,
    Pong(Heartbeat),
    Raft(Blob),
    /// What the proposal came to.
    Proposed(Blob),
    /// Nothing was proposed: this node does not lead the raft group.
    NotLeader(GroupView),
    Topology(Blob),
    Join(Blob),
    /// Why it could not be done.
    Failed(String),
    /// A lease voter's answer.
    Beat(Blob),
    Copy(Blob),
    Standing(Box<Standing>),
}

/// Where a node stands, whatever the generation of the one that asks.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Standing {
    /// Forced recoveries of its cluster.
    pub generation: u32,
    /// When its process started, ms since 1970.
    pub start_ms: u64,
    /// The latest change that it knows of, agreed or only in its raft log.
    pub version: u64,
    /// Its raft log can be written: it may vote.
    pub can_write: bool,
    /// It takes the one that asks for a member.
    pub has_member: bool,
    /// The raft group as it knows it; a leader only where it finds one.
    pub group: GroupView,
}

/// What pings and their answers carry.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The newest version of the topology that the sender has applied.
    pub topology_version: u64,
    pub group: GroupView,
    /// The sender itself; `None` where nobody can reach it.
    pub from: Option<Whereabouts>,
    /// Nodes that have moved since they registered, as far as the sender knows.
    pub moved: Vec<Whereabouts>,
    /// The sender's raft log cannot be written: it must not vote.
    pub cannot_write: bool,
    /// What the sender has promised as a lease voter.
    pub lease: LeaseReport,
}

/// What a lease voter tells the raft leader. It stays true.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct LeaseReport {
    /// The newest list of voters that it has learned.
    pub config: u64,
    /// The supports that it has withdrawn for good, of members that are not fenced yet.
    pub withdrawn: Vec<(NodeId, u64)>,
}

/// Where a node can be reached in the life that it began then. Of two the later life is right.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Whereabouts {
    pub node: NodeId,
    /// When its process started, ms since 1970: greater than in any life before.
    pub start_ms: u64,
    /// Its cluster port.
    pub address: std::net::SocketAddr,
}

/// What a node knows of the raft group: who votes, and who leads. Later knowledge replaces earlier, see
/// [`GroupView::is_newer_than`].
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct GroupView {
    /// The raft term of this knowledge.
    pub term: u64,
    /// The raft index of the voters' list.
    pub voters_index: u64,
    pub leader: Option<NodeId>,
    pub voters: Vec<Voter>,
}

impl GroupView {
    /// Whether this one should replace another.
    pub fn is_newer_than(&self, other: &GroupView) -> bool {
        !self.voters.is_empty()
            && (self.voters_index, self.term, self.leader.is_some())
                > (other.voters_index, other.term, other.leader.is_some())
    }
}

/// A member of the raft group.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Voter {
    pub node: NodeId,
    /// Its cluster port, as the group knew it when it became a member.
    pub address: std::net::SocketAddr,
}

/// Bytes whose meaning another layer knows. Encoded as one piece, not byte by byte.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Blob(pub Vec<u8>);

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Blob, D::Error> {
        deserializer.deserialize_byte_buf(BlobVisitor)
    }
}

struct BlobVisitor;

impl<'de> Visitor<'de> for BlobVisitor {
    type Value = Blob;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Blob, E> {
        Ok(Blob(bytes.to_vec()))
    }

    fn visit_byte_buf<E: serde::de::Error>(self, bytes: Vec<u8>) -> Result<Blob, E> {
        Ok(Blob(bytes))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Blob, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = sequence.next_element()? {
            bytes.push(byte);
        }
        Ok(Blob(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_joining_node_may_only_join() {
        assert!(Purpose::Join.allows(&Request::Join(Blob::default())));
        assert!(!Purpose::Join.allows(&Request::Propose(Blob::default())));
        assert!(!Purpose::Control.allows(&Request::RaftVote(Blob::default())));
        assert!(!Purpose::Raft.allows(&Request::Propose(Blob::default())));
        assert!(Purpose::Copies.allows(&Request::Copy(Blob::default())));
        assert!(!Purpose::Copies.allows(&Request::Ping(Heartbeat::default())));
        assert!(Purpose::Recovery.allows(&Request::Standing) && !Purpose::Control.allows(&Request::Standing));
        assert!(!Purpose::Recovery.allows(&Request::Ping(Heartbeat::default())));
    }

    #[test]
    fn later_voters_replace_earlier_ones_and_nothing_replaces_nothing() {
        let voter = Voter { node: NodeId(1), address: ([127, 0, 0, 1], 1).into() };
        let old = GroupView { term: 5, voters_index: 3, leader: Some(NodeId(1)), voters: vec![voter] };
        let new = GroupView { voters_index: 4, term: 5, leader: None, ..old.clone() };
        assert!(new.is_newer_than(&old) && !old.is_newer_than(&new) && !old.is_newer_than(&old));
        assert!(!GroupView { term: 9, voters_index: 9, ..GroupView::default() }.is_newer_than(&old));
    }
}
