//! Links between nodes: framed requests and answers over TCP.
//!
//! ```text
//! caller -> Transport::request -> link (one per peer and purpose) -> TCP -> listener -> Handler::handle
//! ```
//!
//! A link proves at its start that both ends belong to the same cluster and know its secret (`handshake`). Messages are
//! in `messages`; what they carry of upper layers is opaque here. Everything is bounded: frames, queues, links,
//! requests under way, time. Links of slots have a runtime of their own. The trait [`Transport`] is what a simulation
//! replaces.

pub mod frame;
pub mod handshake;
mod incoming;
mod link;
pub mod messages;
mod refusals;
pub mod tcp;

pub use handshake::{LinkSecret, LocalIdentity, Refusal};
pub use messages::{Blob, Purpose, Request, Response};
pub use tcp::TcpTransport;

use crate::base::identity::{ClusterId, Incarnation, NodeId};
use async_trait::async_trait;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Where a request goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Peer {
    /// Whom it must reach there; `None` while that is not known (joining).
    pub node: Option<NodeId>,
    /// Its cluster port.
    pub address: SocketAddr,
}

/// Who sent a request, as it proved when the link began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sender {
    pub node: NodeId,
    /// 0: it has not registered in this life.
    pub incarnation: Incarnation,
    /// `None`: it belongs to no cluster yet, and may only ask to join.
    pub cluster: Option<ClusterId>,
    pub ip: IpAddr,
    pub purpose: Purpose,
}

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TransportError {
    /// No connection: nothing was sent.
    Unreachable(String),
    /// The other end refused the link, or this node refuses the other end: nothing was sent.
    Refused(Refusal),
    /// The link has as much to do as it may: nothing was sent.
    Busy,
    /// The request is longer than a frame may be: nothing was sent.
    TooLarge,
    /// The link broke before the answer came; the other end may have acted on the request.
    Disconnected,
    /// No answer in time; the other end may have acted on the request, or still do.
    TimedOut,
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TransportError::Unreachable(why) => write!(f, "unreachable: {why}"),
            TransportError::Refused(refusal) => write!(f, "link refused: {refusal}"),
            TransportError::Busy => f.write_str("too many requests under way"),
            TransportError::TooLarge => f.write_str("request longer than a frame"),
            TransportError::Disconnected => f.write_str("the link broke before the answer"),
            TransportError::TimedOut => f.write_str("no answer in time"),
        }
    }
}

impl std::error::Error for TransportError {}

/// Sends requests to other nodes.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Sends a request and waits for its answer, at most this long. Requests to one peer for one purpose leave in the
    /// order in which they are first polled.
    async fn request(
        &self,
        peer: Peer,
        purpose: Purpose,
        request: Request,
        timeout: Duration,
    ) -> Result<Response, TransportError>;

    /// This node is of that generation from now on: all its links end, and those that follow are of the same one.
    fn begin_generation(&self, _generation: u32) {}

    /// Every link there is (CLUSTER LINKS).
    fn links(&self) -> Vec<LinkReport>;

    /// How many links this node and others have refused each other so far.
    fn refusals(&self) -> u64 {
        0
    }
}

/// Answers the requests of other nodes.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Whether this peer may have a link, after it has proved who it is: an upper layer knows stale incarnations.
    fn admit(&self, _sender: &Sender) -> Result<(), Refusal> {
        Ok(())
    }

    /// Answers a request. Many of one link are answered at once.
    async fn handle(&self, sender: &Sender, request: Request) -> Response;
}

/// Which end opened a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// This node: CLUSTER LINKS calls it "to".
    Outgoing,
    /// The other one: "from".
    Incoming,
}

/// A link, for CLUSTER LINKS and metrics.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkReport {
    pub direction: Direction,
    pub node: Option<NodeId>,
    pub address: SocketAddr,
    pub purpose: Purpose,
    /// Milliseconds since 1970 when its connection was made; 0: not connected.
    pub connected_at_ms: u64,
    /// Connections made for it so far.
    pub connections: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub messages_sent: u64,
    pub messages_received: u64,
    /// Bytes that wait to be sent.
    pub bytes_queued: u64,
}
