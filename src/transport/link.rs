//! The opening end of a link: connects when there is something to send, sends requests, gives answers to who asked.

use super::handshake;
use super::messages::{Frame, Response};
use super::tcp::{FrameReader, LinkState, Shared};
use super::{Direction, Peer, TransportError, frame};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

/// Connection and greeting together must be done in this time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// Requests without an answer on one link.
const PENDING_MAX: usize = 1024;
/// A peer that owes an answer and says nothing for this long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// A link that nobody used for this many times [`SILENCE_MAX`] is closed.
const IDLE_ROUNDS: u32 = 6;
/// What is sent by one write, if that much is waiting.
const WRITE_BYTES: usize = 256 << 10;

type Answer = oneshot::Sender<Result<Response, TransportError>>;

/// A request that waits to be sent.
pub(super) struct Outbound {
    pub(super) id: u64,
    pub(super) frame: Vec<u8>,
    pub(super) answer: Answer,
}

/// What callers hold.
pub(super) struct Link {
    pub(super) queue: mpsc::Sender<Outbound>,
    pub(super) state: Arc<LinkState>,
    pub(super) next_id: AtomicU64,
}

/// Connects, converses, and begins again, until nobody holds the link.
pub(super) async fn drive(shared: Arc<Shared>, state: Arc<LinkState>, peer: Peer, mut queue: mpsc::Receiver<Outbound>) {
    let mut backoff = BACKOFF_MIN;
    let mut retry: Option<(Instant, TransportError)> = None;
    loop {
        let first = tokio::select! {
            first = queue.recv() => first,
            () = shared.until_stopped() => None,
        };
        let Some(first) = first else { return };
        if let Some((at, error)) = &retry
            && Instant::now() < *at
        {
            refuse(&state, first, error.clone());
            continue;
        }
        let other_generation = shared.until_other_generation();
        let connected = timeout(CONNECT_TIMEOUT, connect(&shared, &state, peer)).await;
        match connected.unwrap_or_else(|_| Err(TransportError::Unreachable("no connection in time".into()))) {
            Ok((reader, writer)) => {
                (backoff, retry) = (BACKOFF_MIN, None);
                state.on_connected(shared.clock.unix_ms());
                tokio::select! {
                    () = converse(&state, reader, writer, first, &mut queue) => {}
                    () = shared.until_stopped() => {}
                    () = other_generation => {}
                }
                state.on_disconnected();
            }
            Err(error) => {
                match error {
                    TransportError::Refused(refusal) => {
                        shared.on_refused(Direction::Outgoing, peer.address, refusal);
                    }
                    _ => tracing::debug!(address = %peer.address, %error, "no link"),
                }
                refuse(&state, first, error.clone());
                while let Ok(waiting) = queue.try_recv() {
                    refuse(&state, waiting, error.clone());
                }
                retry = Some((Instant::now() + backoff, error));
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        }
    }
}

fn refuse(state: &LinkState, outbound: Outbound, error: TransportError) {
    state.bytes_queued.fetch_sub(outbound.frame.len() as u64, Ordering::Relaxed);
    // Who asked may have given up.
    let _ = outbound.answer.send(Err(error));
}

type Connection = (FrameReader<OwnedReadHalf>, OwnedWriteHalf);

/// Connects and greets (the drawing is in `handshake`).
async fn connect(shared: &Shared, state: &LinkState, peer: Peer) -> Result<Connection, TransportError> {
    let unreachable = |error: io::Error| TransportError::Unreachable(error.to_string());
    let stream = TcpStream::connect(peer.address).await.map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    let (read, mut write) = stream.into_split();
    let mut reader = FrameReader::for_greeting(read);
    let own = **shared.identity.load();
    let hello = handshake::hello(&own, peer.node, state.purpose, (shared.nonces)().map_err(unreachable)?);
    send(&mut write, state, &Frame::Hello(hello)).await.map_err(unreachable)?;
    let welcome = match reader.next(state).await.map_err(unreachable)? {
        Some(Frame::Welcome(welcome)) => welcome,
        other => return Err(unexpected(other)),
    };
    let proof = match handshake::prove_opener(&own, shared.secret.as_ref(), &hello, &welcome) {
        Ok(proof) => proof,
        Err(refusal) => {
            // So that its log says it too.
            send(&mut write, state, &Frame::Refusal(refusal)).await.map_err(unreachable)?;
            return Err(TransportError::Refused(refusal));
        }
    };
    send(&mut write, state, &Frame::Proof(proof)).await.map_err(unreachable)?;
    match reader.next(state).await.map_err(unreachable)? {
        Some(Frame::Open) => {}
        other => return Err(unexpected(other)),
    }
    reader.allow_long_frames();
    Ok((reader, write))
}

fn unexpected(frame: Option<Frame>) -> TransportError {
    match frame {
        Some(Frame::Refusal(refusal)) => TransportError::Refused(refusal),
        Some(_) => TransportError::Unreachable("it does not greet as a node does".into()),
        None => TransportError::Unreachable("it closed the connection".into()),
    }
}

/// Encodes a frame and writes it.
pub(super) async fn send<W: AsyncWrite + Unpin>(write: &mut W, state: &LinkState, frame: &Frame) -> io::Result<()> {
    let bytes = frame::encode(frame).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    write.write_all(&bytes).await?;
    state.messages_sent.fetch_add(1, Ordering::Relaxed);
    state.bytes_sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    Ok(())
}

/// Sends and receives until the connection breaks or is idle. Writing and reading go on side by side: two nodes that
/// send each other long frames must not wait for each other.
async fn converse(
    state: &LinkState,
    reader: FrameReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    first: Outbound,
    queue: &mut mpsc::Receiver<Outbound>,
) {
    let pending: Mutex<HashMap<u64, Answer>> = Mutex::default();
    let result = tokio::select! {
        result = write_requests(state, writer, first, queue, &pending) => result,
        result = read_answers(state, reader, &pending) => result,
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a link broke");
    }
    for (_, answer) in pending.into_inner() {
        let _ = answer.send(Err(TransportError::Disconnected));
    }
}

async fn write_requests(
    state: &LinkState,
    mut writer: OwnedWriteHalf,
    first: Outbound,
    queue: &mut mpsc::Receiver<Outbound>,
    pending: &Mutex<HashMap<u64, Answer>>,
) -> io::Result<()> {
    let mut bytes = Vec::new();
    let mut next = Some(first);
    loop {
        let Some(outbound) = next.take() else { return Ok(()) };
        bytes.clear();
        take_up(state, outbound, &mut bytes, pending);
        while bytes.len() < WRITE_BYTES {
            let Ok(outbound) = queue.try_recv() else { break };
            take_up(state, outbound, &mut bytes, pending);
        }
        writer.write_all(&bytes).await?;
        state.bytes_sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        next = queue.recv().await;
    }
}

/// Puts a request among those that await an answer, and its frame behind what is to be written.
fn take_up(state: &LinkState, outbound: Outbound, bytes: &mut Vec<u8>, pending: &Mutex<HashMap<u64, Answer>>) {
    let mut pending = pending.lock();
    if pending.len() >= PENDING_MAX {
        pending.retain(|_, answer| !answer.is_closed());
    }
    if pending.len() >= PENDING_MAX {
        refuse(state, outbound, TransportError::Busy);
        return;
    }
    state.bytes_queued.fetch_sub(outbound.frame.len() as u64, Ordering::Relaxed);
    state.messages_sent.fetch_add(1, Ordering::Relaxed);
    bytes.extend_from_slice(&outbound.frame);
    pending.insert(outbound.id, outbound.answer);
}

async fn read_answers(
    state: &LinkState,
    mut reader: FrameReader<OwnedReadHalf>,
    pending: &Mutex<HashMap<u64, Answer>>,
) -> io::Result<()> {
    let mut idle_rounds = 0;
    loop {
        let Ok(frame) = timeout(SILENCE_MAX, reader.next(state)).await else {
            idle_rounds += 1;
            if !pending.lock().is_empty() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the peer is silent"));
            }
            if idle_rounds >= IDLE_ROUNDS {
                return Ok(());
            }
            continue;
        };
        idle_rounds = 0;
        match frame? {
            Some(Frame::Response { id, response }) => {
                if let Some(answer) = pending.lock().remove(&id) {
                    let _ = answer.send(Ok(response));
                }
            }
            Some(_) => return Err(io::Error::new(io::ErrorKind::InvalidData, "not an answer")),
            None => return Ok(()),
        }
    }
}
