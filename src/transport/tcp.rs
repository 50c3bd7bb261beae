//! The transport over TCP: one connection per peer and purpose, opened when it is first needed and kept.
//!
//! A link that cannot be made fails its requests at once and waits before it is tried again: 50 ms, doubling to 2 s.
//! Requests are pipelined; answers find their request by its id. Tasks run on the runtimes given at creation, so that
//! callers on other threads may come and go; links for slots on one of their own: a piece of 8 MB is read, copied and
//! written for milliseconds, in which a heartbeat would wait.

use super::handshake::{self, LinkSecret, LocalIdentity, Nonce};
use super::messages::Frame;
use super::refusals::Refusals;
use super::{
    Direction, Handler, LinkReport, Peer, Purpose, Refusal, Request, Response, Transport, TransportError, frame,
    incoming, link,
};
use crate::base::clock::Clock;
use crate::base::identity::{Incarnation, NodeId};
use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::BytesMut;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};

/// Links to other nodes; more are refused. A hundred nodes and four purposes make 400.
const LINKS_MAX: usize = 4096;
/// Requests that wait to be sent on one link.
const QUEUE_MAX: usize = 1024;
/// Bytes that wait to be sent on one link: a few of the longest frames.
const QUEUE_BYTES_MAX: u64 = 64 << 20;

/// Makes the random bytes of a handshake.
pub type NonceSource = Arc<dyn Fn() -> io::Result<Nonce> + Send + Sync>;

/// What a transport is made of.
pub struct TcpOptions {
    pub identity: LocalIdentity,
    /// Without one, links are made with loopback addresses only.
    pub secret: Option<LinkSecret>,
    pub clock: Arc<dyn Clock>,
    pub nonces: NonceSource,
    /// Where its tasks run.
    pub runtime: tokio::runtime::Handle,
    /// Where links of [`Purpose::Copies`] run, from the end of their greeting on, and their requests are handled.
    pub slots: tokio::runtime::Handle,
}

/// Nonces from the system's random source.
pub fn system_nonces() -> NonceSource {
    Arc::new(|| {
        let mut nonce = [0; 32];
        getrandom::fill(&mut nonce).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(nonce)
    })
}

/// Links over TCP.
pub struct TcpTransport {
    shared: Arc<Shared>,
    links: Mutex<HashMap<(Peer, Purpose), Arc<link::Link>>>,
    stop: watch::Sender<bool>,
}

/// What all links of a transport use.
pub(super) struct Shared {
    pub(super) identity: ArcSwap<LocalIdentity>,
    pub(super) secret: Option<LinkSecret>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) nonces: NonceSource,
    pub(super) incoming: Mutex<HashMap<u64, Arc<LinkState>>>,
    pub(super) stopped: watch::Receiver<bool>,
    /// That of `identity`, for links to end when it changes.
    generation: watch::Sender<u32>,
    pub(super) refusals: Refusals,
    runtime: tokio::runtime::Handle,
    slots: tokio::runtime::Handle,
}

impl Shared {
    /// Where links for this purpose run.
    pub(super) fn runtime(&self, purpose: Purpose) -> &tokio::runtime::Handle {
        if purpose.is_about_slots() { &self.slots } else { &self.runtime }
    }

    /// A link with this peer was refused by either end.
    pub(super) fn on_refused(&self, direction: Direction, peer: SocketAddr, refusal: Refusal) {
        // The other end of an incoming link has another port each time.
        let key = match direction {
            Direction::Outgoing => peer,
            Direction::Incoming => SocketAddr::new(peer.ip(), 0),
        };
        let Some(times) = self.refusals.note(key, refusal, self.clock.boot_us()) else { return };
        let direction = match direction {
            Direction::Outgoing => "to",
            Direction::Incoming => "from",
        };
        if refusal.is_passing() {
            tracing::info!(%peer, %refusal, times, "no link {direction} a node");
        } else {
            tracing::warn!(%peer, %refusal, times, "no link {direction} a node");
        }
    }

    /// Ends when this node is of another generation than at this moment.
    pub(super) fn until_other_generation(&self) -> impl Future<Output = ()> + use<> {
        let mut generations = self.generation.subscribe();
        async move {
            // An error means that the transport is gone, which ends links too.
            let _ = generations.changed().await;
        }
    }

    /// Ends when the transport is closed.
    pub(super) async fn until_stopped(&self) {
        let mut stopped = self.stopped.clone();
        // An error means that the transport is gone, which is a stop too.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    }
}

impl TcpTransport {
    pub fn new(options: TcpOptions) -> TcpTransport {
        let (stop, stopped) = watch::channel(false);
        let shared = Shared {
            generation: watch::Sender::new(options.identity.generation),
            identity: ArcSwap::from_pointee(options.identity),
            secret: options.secret,
            clock: options.clock,
            nonces: options.nonces,
            incoming: Mutex::default(),
            stopped,
            refusals: Refusals::default(),
            runtime: options.runtime,
            slots: options.slots,
        };
        TcpTransport { shared: Arc::new(shared), links: Mutex::default(), stop }
    }

    /// What this node says of itself from now on: after it has joined.
    pub fn set_identity(&self, identity: LocalIdentity) {
        self.shared.identity.store(Arc::new(identity));
        self.begin_links_about_slots_anew();
    }

    /// The life of this node from now on: after it has registered. Links on which it is asked which life asks begin anew; what is under
    /// way on them is still answered.
    pub fn set_incarnation(&self, incarnation: Incarnation) {
        self.shared.identity.rcu(|identity| LocalIdentity { incarnation, ..**identity });
        self.begin_links_about_slots_anew();
    }

    fn begin_links_about_slots_anew(&self) {
        // A raft leader asks copies, in an election, before its own life is registered; to a link that has begun so its life
        // would be unknown for as long as it stands.
        self.links.lock().retain(|(_, purpose), _| !purpose.is_about_slots());
    }

    /// What this node says of itself.
    pub fn identity(&self) -> LocalIdentity {
        **self.shared.identity.load()
    }

    /// Answers whoever connects to this socket. Returns its address.
    pub fn listen(&self, socket: std::net::TcpListener, handler: Arc<dyn Handler>) -> io::Result<SocketAddr> {
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        let _guard = self.shared.runtime.enter();
        let socket = tokio::net::TcpListener::from_std(socket)?;
        self.shared.runtime.spawn(incoming::accept(Arc::clone(&self.shared), socket, handler));
        Ok(address)
    }

    /// Ends every link and stops listening. Requests under way fail.
    pub fn close(&self) {
        self.stop.send_replace(true);
        self.links.lock().clear();
    }

    fn link(&self, peer: Peer, purpose: Purpose) -> Result<Arc<link::Link>, TransportError> {
        let mut links = self.links.lock();
        if let Some(link) = links.get(&(peer, purpose)) {
            return Ok(Arc::clone(link));
        }
        if *self.shared.stopped.borrow() {
            return Err(TransportError::Unreachable("the transport is closed".into()));
        }
        if links.len() >= LINKS_MAX {
            links.retain(|_, link| link.state.is_connected());
            if links.len() >= LINKS_MAX {
                return Err(TransportError::Busy);
            }
        }
        let state = Arc::new(LinkState::new(Direction::Outgoing, peer.node, peer.address, purpose));
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let driver = link::drive(Arc::clone(&self.shared), Arc::clone(&state), peer, waiting);
        self.shared.runtime(purpose).spawn(driver);
        let link = Arc::new(link::Link { queue, state, next_id: AtomicU64::new(1) });
        links.insert((peer, purpose), Arc::clone(&link));
        Ok(link)
    }
}

impl Drop for TcpTransport {
    fn drop(&mut self) {
        self.close();
    }
}

#[async_trait]
impl Transport for TcpTransport {
    async fn request(
        &self,
        peer: Peer,
        purpose: Purpose,
        request: Request,
        timeout: Duration,
    ) -> Result<Response, TransportError> {
        if let Err(refusal) = handshake::check_address(self.shared.secret.as_ref(), peer.address.ip()) {
            self.shared.on_refused(Direction::Outgoing, peer.address, refusal);
            return Err(TransportError::Refused(refusal));
        }
        let link = self.link(peer, purpose)?;
        let id = link.next_id.fetch_add(1, Ordering::Relaxed);
        let frame = frame::encode(&Frame::Request { id, request }).map_err(|_| TransportError::TooLarge)?;
        let length = frame.len() as u64;
        if link.state.bytes_queued.fetch_add(length, Ordering::Relaxed) > QUEUE_BYTES_MAX {
            link.state.bytes_queued.fetch_sub(length, Ordering::Relaxed);
            return Err(TransportError::Busy);
        }
        let (answer, answered) = tokio::sync::oneshot::channel();
        if let Err(error) = link.queue.try_send(link::Outbound { id, frame, answer }) {
            link.state.bytes_queued.fetch_sub(length, Ordering::Relaxed);
            return Err(match error {
                mpsc::error::TrySendError::Full(_) => TransportError::Busy,
                mpsc::error::TrySendError::Closed(_) => TransportError::Disconnected,
            });
        }
        match tokio::time::timeout(timeout, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(TransportError::Disconnected),
            Err(_) => Err(TransportError::TimedOut),
        }
    }

    fn links(&self) -> Vec<LinkReport> {
        let mut reports: Vec<LinkReport> = self.links.lock().values().map(|link| link.state.report()).collect();
        reports.extend(self.shared.incoming.lock().values().map(|state| state.report()));
        reports
    }

    fn refusals(&self) -> u64 {
        self.shared.refusals.total()
    }

    fn begin_generation(&self, generation: u32) {
        self.shared.identity.rcu(|identity| LocalIdentity { generation, ..**identity });
        self.shared.generation.send_replace(generation);
        // Behind that: a link that is made from here on greets with the new one.
        self.links.lock().clear();
    }
}

/// Counters of a link; written by its tasks, read by whoever asks.
pub(super) struct LinkState {
    direction: Direction,
    node: Option<NodeId>,
    address: SocketAddr,
    pub(super) purpose: Purpose,
    connected_at_ms: AtomicU64,
    connections: AtomicU64,
    pub(super) bytes_sent: AtomicU64,
    pub(super) bytes_received: AtomicU64,
    pub(super) messages_sent: AtomicU64,
    pub(super) messages_received: AtomicU64,
    pub(super) bytes_queued: AtomicU64,
}

impl LinkState {
    pub(super) fn new(direction: Direction, node: Option<NodeId>, address: SocketAddr, purpose: Purpose) -> LinkState {
        LinkState {
            direction,
            node,
            address,
            purpose,
            connected_at_ms: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            bytes_sent: AtomicU64::new(0),
            bytes_received: AtomicU64::new(0),
            messages_sent: AtomicU64::new(0),
            messages_received: AtomicU64::new(0),
            bytes_queued: AtomicU64::new(0),
        }
    }

    pub(super) fn on_connected(&self, unix_ms: u64) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.connected_at_ms.store(unix_ms.max(1), Ordering::Relaxed);
    }

    pub(super) fn on_disconnected(&self) {
        self.connected_at_ms.store(0, Ordering::Relaxed);
    }

    fn is_connected(&self) -> bool {
        self.connected_at_ms.load(Ordering::Relaxed) != 0
    }

    fn report(&self) -> LinkReport {
        LinkReport {
            direction: self.direction,
            node: self.node,
            address: self.address,
            purpose: self.purpose,
            connected_at_ms: self.connected_at_ms.load(Ordering::Relaxed),
            connections: self.connections.load(Ordering::Relaxed),
            bytes_sent: self.bytes_sent.load(Ordering::Relaxed),
            bytes_received: self.bytes_received.load(Ordering::Relaxed),
            messages_sent: self.messages_sent.load(Ordering::Relaxed),
            messages_received: self.messages_received.load(Ordering::Relaxed),
            bytes_queued: self.bytes_queued.load(Ordering::Relaxed),
        }
    }
}

/// Reads frames from one direction of a connection.
pub(super) struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
    length_max: usize,
}

impl FrameReader<OwnedReadHalf> {
    /// The same connection, on the runtime that calls this: until then it was on the one that accepted it.
    pub(super) fn adopt(self, writer: OwnedWriteHalf) -> io::Result<(FrameReader<OwnedReadHalf>, OwnedWriteHalf)> {
        let FrameReader { stream, buffer, length_max } = self;
        let whole = stream.reunite(writer).map_err(io::Error::other)?;
        let (stream, writer) = tokio::net::TcpStream::from_std(whole.into_std()?)?.into_split();
        Ok((FrameReader { stream, buffer, length_max }, writer))
    }
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// For the greeting: short frames only.
    pub(super) fn for_greeting(stream: R) -> FrameReader<R> {
        FrameReader { stream, buffer: BytesMut::with_capacity(1024), length_max: frame::GREETING_BYTES_MAX }
    }

    /// Both ends have proved who they are: frames may be long.
    pub(super) fn allow_long_frames(&mut self) {
        self.length_max = frame::FRAME_BYTES_MAX;
    }

    /// The next frame; `None` at the end of the stream. May be cancelled between frames and in them.
    pub(super) async fn next(&mut self, state: &LinkState) -> io::Result<Option<Frame>> {
        loop {
            match frame::decode(&mut self.buffer, self.length_max) {
                Ok(Some(frame)) => {
                    state.messages_received.fetch_add(1, Ordering::Relaxed);
                    return Ok(Some(frame));
                }
                Ok(None) => {}
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
            self.buffer.reserve(4096);
            let count = self.stream.read_buf(&mut self.buffer).await?;
            if count == 0 {
                return Ok(None);
            }
            state.bytes_received.fetch_add(count as u64, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
