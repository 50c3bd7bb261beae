//! The accepting end of links: greets, then gives each request to the handler and sends its answer back.

use super::handshake::{self, Refusal};
use super::link::send;
use super::messages::{Frame, Response};
use super::tcp::{FrameReader, LinkState, Shared};
use super::{Direction, Handler, Sender, frame};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Connections of other nodes, greeted or not.
const INCOMING_MAX: usize = 4096;
/// A greeting must be done in this time.
const GREETING_TIMEOUT: Duration = Duration::from_secs(2);
/// Requests of one link that are handled at the same time; more are not read yet.
const HANDLED_MAX: usize = 128;
/// After an error of the listening socket (too many files, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until the transport is closed.
pub(super) async fn accept(shared: Arc<Shared>, socket: TcpListener, handler: Arc<dyn Handler>) {
    let places = Arc::new(Semaphore::new(INCOMING_MAX));
    let numbers = AtomicU64::new(0);
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = shared.until_stopped() => return,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a node's connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        let (shared, handler) = (Arc::clone(&shared), Arc::clone(&handler));
        let other_generation = shared.until_other_generation();
        tokio::spawn(async move {
            let ended = tokio::select! {
                ended = connection(&shared, number, stream, address, handler) => ended,
                () = shared.until_stopped() => Ok(()),
                () = other_generation => Ok(()),
            };
            shared.incoming.lock().remove(&number);
            if let Err(error) = ended {
                tracing::debug!(%address, %error, "a node's link ended");
            }
            drop(place);
        });
    }
}

async fn connection(
    shared: &Arc<Shared>,
    number: u64,
    stream: TcpStream,
    address: SocketAddr,
    handler: Arc<dyn Handler>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (read, write) = stream.into_split();
    let greeting = greet(shared, FrameReader::for_greeting(read), write, address, handler.as_ref());
    let greeted = timeout(GREETING_TIMEOUT, greeting).await?;
    let (sender, reader, writer) = match greeted? {
        Ok(link) => link,
        Err(refusal) => {
            shared.on_refused(Direction::Incoming, address, refusal);
            return Ok(());
        }
    };
    let state = Arc::new(LinkState::new(Direction::Incoming, Some(sender.node), address, sender.purpose));
    state.on_connected(shared.clock.unix_ms());
    shared.incoming.lock().insert(number, Arc::clone(&state));
    // Ends with this connection, wherever it runs.
    let mut link = JoinSet::new();
    link.spawn_on(converse(state, sender, reader, writer, handler), shared.runtime(sender.purpose));
    match link.join_next().await {
        Some(Ok(ended)) => ended,
        _ => Err(io::Error::other("its thread has ended")),
    }
}

/// Answers requests until the link ends, on the runtime of its purpose.
async fn converse(
    state: Arc<LinkState>,
    sender: Sender,
    reader: FrameReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    handler: Arc<dyn Handler>,
) -> io::Result<()> {
    let (mut reader, writer) = reader.adopt(writer)?;
    reader.allow_long_frames();
    let (answers, waiting) = mpsc::channel(HANDLED_MAX);
    tokio::select! {
        ended = write_answers(&state, writer, waiting) => ended,
        ended = read_requests(&state, sender, reader, handler, answers) => ended,
    }
}

type Greeted = Result<(Sender, FrameReader<OwnedReadHalf>, OwnedWriteHalf), Refusal>;

/// The acceptor's part of the handshake.
async fn greet(
    shared: &Shared,
    mut reader: FrameReader<OwnedReadHalf>,
    mut writer: OwnedWriteHalf,
    address: SocketAddr,
    handler: &dyn Handler,
) -> io::Result<Greeted> {
    let foreign = || io::Error::new(io::ErrorKind::InvalidData, "it does not greet as a node does");
    // Until the peer has proved who it is, its traffic belongs to no link.
    let state = LinkState::new(Direction::Incoming, None, address, super::Purpose::Join);
    let Some(Frame::Hello(hello)) = reader.next(&state).await? else { return Err(foreign()) };
    let own = **shared.identity.load();
    let secret = shared.secret.as_ref();
    let nonce = (shared.nonces)()?;
    let allowed = handshake::check_address(secret, address.ip());
    let welcome = match allowed.and_then(|()| handshake::welcome(&own, secret, &hello, nonce)) {
        Ok(welcome) => welcome,
        Err(refusal) => return refused(writer, &state, refusal).await,
    };
    send(&mut writer, &state, &Frame::Welcome(welcome.clone())).await?;
    let proof = match reader.next(&state).await? {
        Some(Frame::Proof(proof)) => proof,
        Some(Frame::Refusal(refusal)) => return Ok(Err(refusal)),
        _ => return Err(foreign()),
    };
    let sender = Sender {
        node: hello.from.node,
        incarnation: hello.from.incarnation,
        cluster: hello.from.cluster,
        ip: address.ip(),
        purpose: hello.purpose,
    };
    let proved = handshake::check_opener(secret, &hello, &welcome, &proof);
    if let Err(refusal) = proved.and_then(|()| handler.admit(&sender)) {
        return refused(writer, &state, refusal).await;
    }
    send(&mut writer, &state, &Frame::Open).await?;
    Ok(Ok((sender, reader, writer)))
}

async fn refused(mut writer: OwnedWriteHalf, state: &LinkState, refusal: Refusal) -> io::Result<Greeted> {
    send(&mut writer, state, &Frame::Refusal(refusal)).await?;
    Ok(Err(refusal))
}

async fn read_requests(
    state: &LinkState,
    sender: Sender,
    mut reader: FrameReader<OwnedReadHalf>,
    handler: Arc<dyn Handler>,
    answers: mpsc::Sender<Vec<u8>>,
) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(HANDLED_MAX));
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return Ok(()) };
        let (id, request) = match reader.next(state).await? {
            Some(Frame::Request { id, request }) if sender.purpose.allows(&request) => (id, request),
            Some(_) => return Err(io::Error::new(io::ErrorKind::InvalidData, "not a request for such a link")),
            None => return Ok(()),
        };
        let (handler, answers) = (Arc::clone(&handler), answers.clone());
        tokio::spawn(async move {
            let response = handler.handle(&sender, request).await;
            // The link may be gone by now.
            let _ = answers.send(encoded(id, response)).await;
            drop(place);
        });
    }
}

fn encoded(id: u64, response: Response) -> Vec<u8> {
    frame::encode(&Frame::Response { id, response }).unwrap_or_else(|error| {
        let response = Response::Failed(format!("the answer cannot be sent: {error}"));
        frame::encode(&Frame::Response { id, response }).expect("a short text fits a frame")
    })
}

async fn write_answers(
    state: &LinkState,
    mut writer: OwnedWriteHalf,
    mut waiting: mpsc::Receiver<Vec<u8>>,
) -> io::Result<()> {
    while let Some(mut bytes) = waiting.recv().await {
        let mut messages = 1;
        while bytes.len() < 64 << 10 {
            let Ok(more) = waiting.try_recv() else { break };
            bytes.extend_from_slice(&more);
            messages += 1;
        }
        writer.write_all(&bytes).await?;
        state.messages_sent.fetch_add(messages, Ordering::Relaxed);
        state.bytes_sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }
    // The reader holds a sender, so this is not reached while the link lives.
    Ok(())
}
