//! A link: one connection to another node over which the requests of many clients go, one behind the other.
//!
//! ```text
//!  submit() appends the request and remembers who waits --> task: writes what there is, matches replies in order
//! ```
//!
//! A link that breaks fails what is under way and is of no more use; whether a request may have been executed is known,
//! for it is known how much was sent. What is under way is bounded: who submits asks for room first.

use super::lane::Lane;
use super::reply::{self, Framer};
use super::{Credentials, Peer, encoding};
use crate::resp::arguments::OwnedArguments;
use crate::resp::reply::Protocol;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, Interval, MissedTickBehavior};

/// Requests under way from which on a link has no more room.
const REQUESTS_MAX: usize = 8192;
/// Their bytes, likewise.
const REQUEST_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A link without requests for this long is closed.
const IDLE: Duration = Duration::from_secs(60);
/// How often a link looks at its clocks.
const TICK: Duration = Duration::from_millis(250);
/// Requests at the end of the greeting that may be refused.
const REMARKS: usize = 2;
/// Bytes that one read may take in.
const READ_BYTES: usize = 64 * 1024;

/// Why a request was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkError {
    /// It was not sent, at least not completely: it was not executed.
    NotSent,
    /// It was sent: it may have been executed.
    Lost,
}

/// Where a link leads, and as whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LinkKey {
    pub peer: Peer,
    /// Whether replies are those of RESP3.
    pub resp3: bool,
    pub credentials: Credentials,
}

impl LinkKey {
    fn protocol(&self) -> Protocol {
        if self.resp3 { Protocol::Resp3 } else { Protocol::Resp2 }
    }
}

/// What comes of a request: the bytes of its replies.
///
/// It keeps the link: who still waits is answered, though nobody has a handle any more.
pub struct Answer {
    receiver: oneshot::Receiver<Result<Vec<u8>, LinkError>>,
    _link: Rc<Shared>,
}

impl Future for Answer {
    type Output = Result<Vec<u8>, LinkError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.receiver).poll(context).map(|answer| answer.unwrap_or(Err(LinkError::Lost)))
    }
}

/// A handle to a link; the link closes when the last one is dropped and nobody waits for an answer.
pub struct Link {
    shared: Rc<Shared>,
}

struct Shared {
    state: RefCell<State>,
    established: Cell<bool>,
}

#[derive(Default)]
struct State {
    is_closed: bool,
    /// Bytes to send; `sent` of them are.
    outgoing: Vec<u8>,
    sent: usize,
    /// All bytes that were ever to be sent.
    submitted_bytes: u64,
    /// Of the requests under way.
    waiting_bytes: usize,
    waiting: VecDeque<Waiting>,
    task: Option<Waker>,
    /// Who waits for room.
    crowd: Vec<Waker>,
}

/// A request under way.
struct Waiting {
    answer: oneshot::Sender<Result<Vec<u8>, LinkError>>,
    lane: Rc<Lane>,
    /// Replies that are still to come; a transaction has several.
    replies: usize,
    /// Those that have come.
    received: Vec<u8>,
    bytes: usize,
    /// Where it ends among all bytes of the link.
    end: u64,
    since: Instant,
}

impl Link {
    /// Connects in the background; requests may be submitted at once. `patience`: how long an answer may take; `None`:
    /// as long as it likes.
    pub fn open(key: LinkKey, patience: Option<Duration>) -> Link {
        let shared = Rc::new(Shared { state: RefCell::default(), established: Cell::new(false) });
        tokio::task::spawn_local(run(Rc::downgrade(&shared), key, patience));
        Link { shared }
    }

    /// Whether it is of no more use.
    pub fn is_closed(&self) -> bool {
        self.shared.state.borrow().is_closed
    }

    /// Whether the peer has ever let it in.
    pub fn was_established(&self) -> bool {
        self.shared.established.get()
    }

    /// Whether another request fits in. One that is submitted nevertheless is taken: a client's request that is spread
    /// is many.
    pub fn has_room(&self) -> bool {
        self.shared.state.borrow().has_room()
    }

    /// Ends when there is room, or the link is closed.
    pub fn until_room(&self) -> impl Future<Output = ()> + 'static {
        let shared = Rc::clone(&self.shared);
        poll_fn(move |context| {
            let mut state = shared.state.borrow_mut();
            if state.is_closed || state.has_room() {
                return Poll::Ready(());
            }
            state.crowd.push(context.waker().clone());
            Poll::Pending
        })
    }

    /// Sends requests that belong together, nothing of others between them. Their replies come together.
    pub fn submit(&self, requests: &[OwnedArguments], lane: &Rc<Lane>) -> Answer {
        let (answer, receiver) = oneshot::channel();
        let receiver = Answer { receiver, _link: Rc::clone(&self.shared) };
        let mut state = self.shared.state.borrow_mut();
        if state.is_closed {
            lane.disturb();
            let _ = answer.send(Err(LinkError::NotSent));
            return receiver;
        }
        let before = state.outgoing.len();
        state.outgoing.reserve(requests.iter().map(|request| encoding::encoded_bytes(request.borrow())).sum());
        for request in requests {
            encoding::encode(request.borrow().from(0), &mut state.outgoing);
        }
        let bytes = state.outgoing.len() - before;
        state.submitted_bytes += bytes as u64;
        state.waiting_bytes += bytes;
        let end = state.submitted_bytes;
        state.waiting.push_back(Waiting {
            answer,
            lane: Rc::clone(lane),
            replies: requests.len(),
            received: Vec::new(),
            bytes,
            end,
            since: Instant::now(),
        });
        if let Some(task) = state.task.take() {
            task.wake();
        }
        receiver
    }
}

/// Nobody has a handle any more, and nobody waits: its task ends.
impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(task) = self.state.get_mut().task.take() {
            task.wake();
        }
    }
}

impl State {
    fn has_room(&self) -> bool {
        self.waiting.len() < REQUESTS_MAX && self.waiting_bytes < REQUEST_BYTES_MAX
    }

    /// Takes in a complete reply; false: nobody waits for it.
    fn deliver(&mut self, bytes: &[u8]) -> bool {
        if reply::is_push(bytes) {
            return true;
        }
        let Some(waiting) = self.waiting.front_mut() else { return false };
        waiting.replies = waiting.replies.saturating_sub(1);
        if reply::elsewhere(bytes).is_some() {
            waiting.lane.disturb();
        }
        waiting.received.extend_from_slice(bytes);
        if waiting.replies > 0 {
            return true;
        }
        if let Some(waiting) = self.waiting.pop_front() {
            self.waiting_bytes -= waiting.bytes;
            waiting.lane.note_reply(waiting.received.len());
            // The client may have gone.
            let _ = waiting.answer.send(Ok(waiting.received));
        }
        if self.has_room() {
            self.crowd.drain(..).for_each(Waker::wake);
        }
        true
    }

    /// Ends the link: everything under way is told.
    fn fail(&mut self) {
        self.is_closed = true;
        let written = self.submitted_bytes - (self.outgoing.len() - self.sent) as u64;
        for waiting in self.waiting.drain(..) {
            waiting.lane.disturb();
            let error = if waiting.end <= written { LinkError::Lost } else { LinkError::NotSent };
            let _ = waiting.answer.send(Err(error));
        }
        (self.outgoing, self.sent, self.waiting_bytes) = (Vec::new(), 0, 0);
        self.crowd.drain(..).for_each(Waker::wake);
    }
}

/// The task of a link. It holds no handle, so that it ends when nobody has one.
async fn run(shared: Weak<Shared>, key: LinkKey, patience: Option<Duration>) {
    let result = serve(&shared, &key, patience).await;
    if let Err(error) = result {
        tracing::debug!(peer = %key.peer, %error, "a link to another node has ended");
    }
    if let Some(shared) = shared.upgrade() {
        shared.state.borrow_mut().fail();
    }
}

async fn serve(shared: &Weak<Shared>, key: &LinkKey, patience: Option<Duration>) -> io::Result<()> {
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(key.peer)).await??;
    stream.set_nodelay(true)?;
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (greeting, replies) = greeting(key);
    let mut wire = Wire {
        stream,
        framer: Framer::default(),
        scratch: vec![0; READ_BYTES].into_boxed_slice(),
        input: Vec::new(),
        greeting,
        greeting_replies: replies,
        patience,
        ticks,
        idle_since: Instant::now(),
        connected_at: Instant::now(),
    };
    poll_fn(|context| {
        let Some(shared) = shared.upgrade() else { return Poll::Ready(Ok(())) };
        wire.poll(context, &shared)
    })
    .await
}

/// The first requests of a link, and how many replies they have: who it is, and that it wants to be told where keys are
/// instead of being forwarded once more.
fn greeting(key: &LinkKey) -> (Vec<u8>, usize) {
    let Credentials { user, password } = &key.credentials;
    let mut requests: Vec<Vec<&[u8]>> = Vec::new();
    if key.resp3 {
        let mut hello = vec![b"HELLO".as_slice(), reply::version(key.protocol())];
        if !password.is_empty() {
            let user = if user.is_empty() { "default" } else { user };
            hello.extend([b"AUTH".as_slice(), user.as_bytes(), password.as_bytes()]);
        }
        requests.push(hello);
    } else if !password.is_empty() {
        let mut auth = vec![b"AUTH".as_slice()];
        if !user.is_empty() {
            auth.push(user.as_bytes());
        }
        auth.push(password.as_bytes());
        requests.push(auth);
    }
    requests.push(vec![b"CLIENT", b"SETINFO", b"LIB-NAME", b"starling-proxy"]);
    requests.push(vec![b"CLIENT", b"ROUTING", b"REDIRECT"]);
    let mut bytes = Vec::new();
    requests.iter().for_each(|request| encoding::encode(request.iter().copied(), &mut bytes));
    (bytes, requests.len())
}

/// The socket of a link, and what was read of it.
struct Wire {
    stream: TcpStream,
    framer: Framer,
    /// Where reads go.
    scratch: Box<[u8]>,
    /// Received, and no complete reply.
    input: Vec<u8>,
    /// Sent before anything else.
    greeting: Vec<u8>,
    greeting_replies: usize,
    patience: Option<Duration>,
    ticks: Interval,
    idle_since: Instant,
    connected_at: Instant,
}

impl Wire {
    /// One wake. Ready when the link is over.
    fn poll(&mut self, context: &mut Context<'_>, shared: &Rc<Shared>) -> Poll<io::Result<()>> {
        let mut state = shared.state.borrow_mut();
        loop {
            self.poll_write(context, &mut state)?;
            match self.poll_read(context, &mut state, shared)? {
                Poll::Ready(()) => {}
                Poll::Pending => break,
            }
        }
        while self.ticks.poll_tick(context).is_ready() {
            self.check_clocks(&state)?;
        }
        state.task = Some(context.waker().clone());
        Poll::Pending
    }

    fn poll_write(&mut self, context: &mut Context<'_>, state: &mut State) -> io::Result<()> {
        while !self.greeting.is_empty() {
            match Pin::new(&mut self.stream).poll_write(context, &self.greeting)? {
                Poll::Ready(written) => drop(self.greeting.drain(..written)),
                Poll::Pending => return Ok(()),
            }
        }
        // Before the peer has let the link in, no request is sent: it would be refused.
        while self.greeting_replies == 0 && state.sent < state.outgoing.len() {
            match Pin::new(&mut self.stream).poll_write(context, &state.outgoing[state.sent..])? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(written) => state.sent += written,
                Poll::Pending => break,
            }
        }
        const KEPT_BYTES_MAX: usize = 256 * 1024;
        if state.sent == state.outgoing.len() {
            state.sent = 0;
            state.outgoing.clear();
            if state.outgoing.capacity() > KEPT_BYTES_MAX {
                state.outgoing = Vec::new();
            }
        } else if state.sent > KEPT_BYTES_MAX {
            state.outgoing.drain(..state.sent);
            state.sent = 0;
        }
        Ok(())
    }

    /// Reads once. Pending: nothing is there.
    fn poll_read(&mut self, context: &mut Context<'_>, state: &mut State, shared: &Shared) -> io::Result<Poll<()>> {
        let mut buffer = ReadBuf::new(&mut self.scratch);
        match Pin::new(&mut self.stream).poll_read(context, &mut buffer)? {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(()) => {}
        }
        if buffer.filled().is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the node has closed it"));
        }
        self.input.extend_from_slice(buffer.filled());
        self.idle_since = Instant::now();
        self.take_replies(state, shared)?;
        Ok(Poll::Ready(()))
    }

    fn take_replies(&mut self, state: &mut State, shared: &Shared) -> io::Result<()> {
        let invalid = |error: reply::InvalidReply| io::Error::new(io::ErrorKind::InvalidData, error);
        let mut start = 0;
        while let Some(length) = self.framer.end(&self.input[start..]).map_err(invalid)? {
            let bytes = &self.input[start..start + length];
            start += length;
            if self.greeting_replies > 0 {
                self.greeting_replies -= 1;
                // What only informs the other node may be unknown there; everything else must be accepted.
                let is_refusal = |text: &&[u8]| self.greeting_replies >= REMARKS || text.starts_with(b"NOAUTH");
                if let Some(refusal) = reply::error_text(bytes).filter(is_refusal) {
                    let text = String::from_utf8_lossy(refusal).into_owned();
                    tracing::warn!(refusal = text, "a node refuses a link: do masterauth and masteruser fit it?");
                    return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
                }
                shared.established.set(self.greeting_replies == 0);
            } else if !state.deliver(bytes) {
                return Err(invalid(reply::InvalidReply));
            }
        }
        self.input.drain(..start);
        if self.input.is_empty() && self.input.capacity() > 4 * READ_BYTES {
            self.input = Vec::new();
        }
        Ok(())
    }

    fn check_clocks(&self, state: &State) -> io::Result<()> {
        let timed_out = |what: &str| Err(io::Error::new(io::ErrorKind::TimedOut, what));
        if self.greeting_replies > 0 && self.connected_at.elapsed() > CONNECT_TIMEOUT {
            return timed_out("the node does not let it in");
        }
        match state.waiting.front() {
            None if self.idle_since.elapsed() > IDLE => timed_out("it was not used"),
            Some(oldest) if self.patience.is_some_and(|patience| self.waited(oldest) > patience) => {
                timed_out("the node does not answer")
            }
            _ => Ok(()),
        }
    }

    /// How long nothing has come for a request: those behind a slow one have only waited since that was answered.
    fn waited(&self, oldest: &Waiting) -> Duration {
        Instant::now().saturating_duration_since(oldest.since.max(self.idle_since))
    }
}
