//! A connection: one task that reads, executes and writes, one batch per wake.
//!
//! What has arrived is read into a buffer that all connections of the thread share, executed, and the replies, built in
//! another shared buffer, are sent with one write. Only what is left over (half a request, what the socket did not take)
//! goes into buffers of the connection's own, so an idle connection holds almost nothing.

use super::ahead::Ahead;
use super::dispatch::{self, Batch};
use super::forwarding::Proxied;
use super::output::{Held, LATER_MAX, Output, Reply, Told, keep_leased};
use super::socket::Socket;
use super::timing::Timing;
use super::worker::{Seat, Worker};
use crate::base::clock;
use crate::commands::context::{Flow, LaterReply, Wait};
use crate::commands::session::{ReplyMode, Session};
use crate::commands::spec::PUSHES;
use crate::commands::table;
use crate::engine::log::gate::{self, Gate};
use crate::resp::decoder::{Decoder, Limits, ProtocolError};
use crate::resp::reply::ReplyWriter;
use crate::services::clients::Client;
use crate::services::condition::Condition;
use crate::services::inbox::Message;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// A connection with this many unsent bytes is not read from until it takes some: a client that only sends cannot make
/// the node hold its replies without bound.
const UNSENT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What a connection may do before the others of the thread get their turn. A worker with one busy connection answers
/// the others after one such turn: less than a millisecond of small requests, and no less than one full read.
const TURN_REQUESTS_MAX: usize = 1024;
const TURN_INPUT_BYTES_MAX: usize = 64 * 1024;
const TURN_REPLY_BYTES_MAX: usize = 1024 * 1024;
/// Replies up to here never count against the output limit by themselves: Redis has a fixed buffer of this size.
const UNLIMITED_REPLY_BYTES: usize = 16 * 1024;
/// Chunks of the output that one write may send.
const SLICES: usize = 16;

/// How the connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// Sends what waits, then closes.
    Closing,
}

/// What a connection has done since it was woken.
#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    requests: usize,
    input_bytes: usize,
    reply_bytes: usize,
}

impl Turn {
    /// Whether the others are next.
    fn is_over(self) -> bool {
        self.requests >= TURN_REQUESTS_MAX
            || self.input_bytes >= TURN_INPUT_BYTES_MAX
            || self.reply_bytes >= TURN_REPLY_BYTES_MAX
    }
}

/// One client's connection.
pub struct Connection {
    stream: Socket,
    worker: Rc<Worker>,
    session: Session,
    decoder: Decoder,
    /// Bytes that have arrived and are not executed; `consumed` of them are.
    input: Vec<u8>,
    consumed: usize,
    output: Output,
    /// Bytes it holds, as its worker has counted them.
    held: usize,
    /// Nothing more is executed until this is over.
    wait: Option<Wait>,
    /// While it waits with much input held: over when the client has gone.
    hang_up: Option<Wait>,
    stage: Stage,
    turn: Turn,
    /// When the output went over its soft limit, in Unix milliseconds.
    over_soft_limit_since: Option<u64>,
    /// What it has under way on other nodes; made when its requests are first forwarded.
    proxied: Option<Rc<Proxied>>,
    _seat: Seat,
}

impl Connection {
    pub fn new(stream: Socket, worker: Rc<Worker>, session: Session, seat: Seat) -> Connection {
        Connection {
            stream,
            worker,
            session,
            decoder: Decoder::default(),
            input: Vec::new(),
            consumed: 0,
            output: Output::default(),
            held: 0,
            wait: None,
            hang_up: None,
            stage: Stage::Open,
            turn: Turn::default(),
            over_soft_limit_since: None,
            proxied: None,
            _seat: seat,
        }
    }

    /// The connection's side of the proxy, if its requests are forwarded.
    fn proxied(&mut self) -> Option<Rc<Proxied>> {
        let proxy = self.worker.proxy.as_ref().filter(|_| self.session.is_proxied)?;
        Some(Rc::clone(self.proxied.get_or_insert_with(|| Rc::new(Proxied::new(Rc::clone(proxy))))))
    }

    /// Serves the connection until it closes.
    pub async fn run(mut self) {
        poll_fn(|context| {
            let poll = self.poll(context);
            self.count_held();
            poll
        })
        .await;
    }

    /// One wake: everything that can be done now. Ready when the connection is over.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.session.client.inbox.register(context.waker());
        self.turn = Turn::default();
        loop {
            self.take_messages();
            let worker = &self.worker;
            let look = |needed, asked: &mut _, context: &mut Context<'_>| worker.look(needed, asked, context);
            let may_answer = |support| worker.may_answer(support);
            self.output.poll_later(context, look, may_answer);
            match self.poll_send(context) {
                Err(_) => return Poll::Ready(()),
                Ok(()) if self.stage == Stage::Closing && self.output.is_empty() => return Poll::Ready(()),
                Ok(()) if self.output.is_empty() => self.over_soft_limit_since = None,
                Ok(()) => {
                    self.check_output_limit(0, clock::unix_us() / 1000);
                }
            }
            if let Some(wait) = &mut self.wait {
                match wait.as_mut().poll(context) {
                    Poll::Ready(()) => {
                        self.wait = None;
                        self.hang_up = None;
                    }
                    // What arrives meanwhile stays in the socket, but a client that has gone is noticed.
                    Poll::Pending => return self.poll_gone(context),
                }
            }
            if self.stage == Stage::Closing || self.is_congested() {
                return if self.session.client.inbox.is_filled() { continue_soon(context) } else { Poll::Pending };
            }
            if self.turn.is_over() {
                return continue_soon(context);
            }
            if self.consumed < self.input.len() && self.has_work() {
                self.execute_own();
                continue;
            }
            match ready!(self.poll_receive(context)) {
                Ok(true) => {}
                // It sends no more, and may still wait for what is under way.
                Ok(false)
                    if self.output.is_holding()
                        || self.proxied.as_ref().is_some_and(|proxied| proxied.is_answering()) =>
                {
                    self.stage = Stage::Closing;
                }
                Ok(false) | Err(_) => return Poll::Ready(()),
            }
        }
    }

    /// Tells the worker how much this connection holds now.
    fn count_held(&mut self) {
        let buffers = self.input.capacity() + self.decoder.memory_bytes() + self.output.held_bytes();
        let held = buffers + self.session.queue_bytes();
        self.worker.held.change(&self.worker.services.held, self.held, held);
        self.held = held;
    }

    /// Whether the client must take replies before more are made.
    fn is_congested(&self) -> bool {
        self.output.held_bytes() > UNSENT_BYTES_MAX || self.output.later_count() >= LATER_MAX
    }

    /// Whether a complete request may lie in the input.
    fn has_work(&self) -> bool {
        !self.decoder.is_starved()
    }

    /// Takes what others have put into the inbox.
    fn take_messages(&mut self) {
        for message in self.session.client.inbox.take() {
            match message {
                Message::Push(bytes) => self.output.share(bytes),
                Message::Close => {
                    self.stage = Stage::Closing;
                    self.output = Output::default();
                }
            }
        }
    }

    /// Sends what the socket takes.
    fn poll_send(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        loop {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let count = self.output.sendable(&mut slices);
            if count == 0 {
                break;
            }
            match Pin::new(&mut self.stream).poll_write_vectored(context, &slices[..count]) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(sent)) => {
                    self.worker.counters.sent(sent);
                    self.output.consume(sent);
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        // What a limit has just thrown away stays in sight until the client is struck out, or CLIENT LIST would show one
        // that holds nothing and is closed for what it holds.
        if !matches!(self.stage, Stage::Closing) {
            self.session.client.output_bytes.store(self.output.held_bytes(), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Notices, while nothing is executed, that the client has gone: by reading up to a bound, then without reading.
    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        const HELD_BYTES_MAX: usize = 64 * 1024;
        while self.input.len() - self.consumed <= HELD_BYTES_MAX {
            let worker = Rc::clone(&self.worker);
            let mut shared = worker.input.borrow_mut();
            let mut buffer = ReadBuf::new(&mut shared);
            match ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer)) {
                Ok(()) if buffer.filled().is_empty() => return Poll::Ready(()),
                Ok(()) => {
                    worker.counters.received(buffer.filled().len());
                    self.decoder.more();
                    self.input.extend_from_slice(buffer.filled());
                }
                Err(_) => return Poll::Ready(()),
            }
        }
        let stream = &self.stream;
        let hang_up = self.hang_up.get_or_insert_with(|| Box::pin(hang_up(stream.as_fd().try_clone_to_owned())));
        hang_up.as_mut().poll(context)
    }

    /// Reads once and executes what has arrived. False: the client has closed.
    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let worker = Rc::clone(&self.worker);
        let mut shared = worker.input.borrow_mut();
        let mut buffer = ReadBuf::new(&mut shared);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
        let received = buffer.filled().len();
        if received == 0 {
            return Poll::Ready(Ok(false));
        }
        self.worker.counters.received(received);
        self.turn.input_bytes += received;
        let received = buffer.filled();
        self.decoder.more();
        if self.consumed == self.input.len() {
            // Nothing is left from before: execute where the bytes lie, keep the rest.
            let used = self.execute(received);
            self.input.clear();
            self.input.extend_from_slice(&received[used..]);
            self.consumed = 0;
        } else {
            let room = self.decoder.missing_bytes(self.input.len() - self.consumed);
            // The client has announced this much, but not sent it: believe it step by step.
            self.input.reserve(room.min(self.input.len().max(1024 * 1024)));
            self.input.extend_from_slice(received);
            drop(shared);
            self.execute_own();
        }
        self.check_input_limit();
        Poll::Ready(Ok(true))
    }

    /// Executes from the connection's own buffer.
    fn execute_own(&mut self) {
        let input = std::mem::take(&mut self.input);
        let start = self.consumed;
        let used = self.execute(&input[start..]);
        self.input = input;
        self.consumed += used;
        let left = self.input.len() - self.consumed;
        if left == 0 {
            self.consumed = 0;
            self.input.clear();
            if self.input.capacity() > 64 * 1024 {
                self.input = Vec::new();
            }
        } else if self.consumed > 64 * 1024 {
            self.input.drain(..self.consumed);
            self.consumed = 0;
        }
    }

    /// Executes the complete requests at the front of `bytes`; returns how many bytes they were.
    fn execute(&mut self, bytes: &[u8]) -> usize {
        let worker = Rc::clone(&self.worker);
        let (services, config) = (&worker.services, worker.services.settings.load());
        let is_gated = services.engine.log.is_gated();
        let support = services.cluster.as_ref().map_or(Some(0), |cluster| cluster.lease().begin(clock::boot_us()));
        let mut batch = Batch {
            services,
            counters: &worker.counters,
            now_ms: clock::unix_us() / 1000,
            condition: Condition::of(services),
            timing: Timing::default(),
            view: services.cluster.as_ref().map(|cluster| cluster.view()),
            proxied: self.proxied(),
            support,
            told: Told::Nothing,
            replies: (is_gated || services.cluster.is_some())
                .then(|| std::mem::take(&mut *worker.replies.borrow_mut())),
            is_gated,
            asks: self.session.acknowledge(),
        };
        if is_gated {
            // What others on this thread have shown is theirs.
            gate::take_shown();
        }
        self.session.client.active_at_ms.store(batch.now_ms, Ordering::Relaxed);
        self.session.client.input_bytes.store(bytes.len(), Ordering::Relaxed);
        let bulk_bytes_max = config.proto_max_bulk_len as i64;
        drop(config);
        let mut shared = worker.output.borrow_mut();
        let mut ahead = worker.ahead.borrow_mut();
        let mut used = 0;
        while self.wait.is_none() && self.stage == Stage::Open {
            let limits = Limits { bulk_bytes_max, unauthenticated: !self.session.is_authenticated };
            let error = ahead.fill(&mut self.decoder, bytes, used, &limits);
            if ahead.is_empty() && error.is_none() {
                break;
            }
            ahead.fetch(&services.engine, self.session.database);
            let count = ahead.len();
            batch.timing.begin_group(count);
            let done = self.execute_ahead(&mut ahead, &mut batch, bytes, &mut shared, &mut used);
            self.turn.requests += count;
            if !done {
                // What was decoded behind is decoded again, when its turn comes.
                self.decoder.restart();
                break;
            }
            self.decoder.forget();
            if let Some(error) = error {
                self.refuse(error, &mut shared);
                used = bytes.len();
                break;
            }
            let mut turn = self.turn;
            turn.reply_bytes += shared.len();
            if turn.is_over() {
                break;
            }
        }
        self.turn.reply_bytes += shared.len();
        self.decoder.shrink();
        if !shared.is_empty() {
            self.send_shared(&mut shared, &mut batch);
        }
        if let Some(mut replies) = batch.replies.take().filter(|replies| replies.capacity() <= 2 * TURN_REQUESTS_MAX) {
            replies.clear();
            worker.replies.replace(replies);
        }
        drop(shared);
        self.check_output_limit(0, batch.now_ms);
        used
    }

    /// Executes the requests that were decoded ahead, in order; false where it stopped before the last of them.
    fn execute_ahead(
        &mut self,
        ahead: &mut Ahead,
        batch: &mut Batch<'_>,
        bytes: &[u8],
        shared: &mut Vec<u8>,
        used: &mut usize,
    ) -> bool {
        for request in ahead.drain() {
            batch.timing.next();
            if self.wait.is_some() || self.stage != Stage::Open {
                return false;
            }
            let arguments = self.decoder.arguments(request.decoded, &bytes[request.start..request.end]);
            if arguments.is_empty() {
                *used = request.end;
                continue;
            }
            let mark = shared.len();
            let mut reply = ReplyWriter::new(shared, self.session.protocol);
            let flow = dispatch::dispatch(batch, &mut self.session, arguments, request.prepared, &mut reply);
            let wanted = is_reply_wanted(&mut self.session);
            if !wanted {
                shared.truncate(mark);
            }
            let told = std::mem::take(&mut batch.told);
            if let Some(replies) = &mut batch.replies {
                let shown = if batch.is_gated { gate::take_shown() } else { gate::Shown::default() };
                replies.push(Reply { end: shared.len(), shown, told });
            }
            match flow {
                Flow::Continue => {}
                Flow::Close => self.stage = Stage::Closing,
                Flow::Abort => {
                    self.stage = Stage::Closing;
                    self.output = Output::default();
                    shared.clear();
                    batch.replies.iter_mut().for_each(Vec::clear);
                }
                Flow::After(wait) => self.wait = Some(wait),
                Flow::Later(later) => self.push_later(later, wanted, shared, batch),
                Flow::Alone(later) => {
                    let (come, has_come) = tokio::sync::oneshot::channel::<()>();
                    let reply = Box::pin(async move {
                        let reply = later.await;
                        drop(come);
                        reply
                    });
                    self.push_later(reply, wanted, shared, batch);
                    self.wait = Some(Box::pin(async move { drop(has_come.await) }));
                }
                Flow::Retry(wait) => {
                    self.wait = Some(wait);
                    return false;
                }
            }
            // It may have been served at once when it was executed again: the next one waits for as long as it says itself.
            self.session.gives_up_at = None;
            *used = request.end;
        }
        true
    }

    /// A reply comes later; those before it go ahead of it.
    fn push_later(&mut self, later: LaterReply, is_wanted: bool, shared: &mut Vec<u8>, batch: &mut Batch<'_>) {
        if !self.hold(shared, batch) {
            self.output.take_over(shared, 0);
        }
        self.output.push_later(later, is_wanted);
    }

    /// Answers bytes that are no request; the connection closes.
    fn refuse(&mut self, error: ProtocolError, shared: &mut Vec<u8>) {
        let text = [b"ERR Protocol error: ", error.text().as_slice()].concat();
        self.worker.counters.count_error("ERR");
        ReplyWriter::new(shared, self.session.protocol).error(text);
        self.stage = Stage::Closing;
    }

    /// Sends the thread's buffer, and keeps what the socket does not take.
    fn send_shared(&mut self, shared: &mut Vec<u8>, batch: &mut Batch<'_>) {
        // A reply over the limit is not sent in part.
        if shared.len() > UNLIMITED_REPLY_BYTES && self.check_output_limit(shared.len(), batch.now_ms) {
            shared.clear();
        }
        if self.hold(shared, batch) {
            return;
        }
        let sent = if self.output.is_empty() { self.stream.try_write(shared).unwrap_or(0) } else { 0 };
        self.worker.counters.sent(sent);
        self.output.take_over(shared, sent);
        if shared.capacity() > 4 * TURN_REPLY_BYTES_MAX {
            *shared = Vec::new();
        }
    }

    /// Holds the buffer back where the log is not kept as far as what it shows. Replies whose lease has ended become errors.
    fn hold(&mut self, shared: &mut Vec<u8>, batch: &mut Batch<'_>) -> bool {
        let log = &self.worker.services.engine.log;
        // It began before anybody asked for gates, and nobody knows which of its requests came later.
        let is_late = !batch.is_gated && log.is_gated();
        let mut replies = batch.replies.take().unwrap_or_default();
        replies.truncate(if shared.is_empty() { 0 } else { usize::MAX });
        if self.worker.services.cluster.is_some() {
            keep_leased(shared, &mut replies, || batch.support.is_some_and(|support| self.worker.may_answer(support)));
        }
        if is_late {
            replies.push(Reply { end: shared.len(), shown: gate::Shown::default(), told: Told::Nothing });
            replies.iter_mut().for_each(|reply| reply.shown = gate::Shown::all(log.end()));
        }
        let is_held = (batch.is_gated || is_late) && self.hold_back(shared, &mut replies, batch);
        replies.clear();
        batch.replies = (batch.is_gated || self.worker.services.cluster.is_some()).then_some(replies);
        is_held
    }

    /// Takes the buffer into the output, where its replies may not leave yet.
    fn hold_back(&mut self, shared: &mut Vec<u8>, replies: &mut Vec<Reply>, batch: &Batch<'_>) -> bool {
        let log = &self.worker.services.engine.log;
        let needed = log.needed(replies.iter().map(|reply| reply.shown).collect(), batch.asks);
        let is_held = !shared.is_empty() && log.look(needed) != Gate::Open;
        if is_held {
            // A copy: the buffer serves the next batch, and most of its block may be unused.
            let (bytes, replies) = (shared.as_slice().to_vec(), std::mem::take(replies));
            self.output.hold(Held { needed, bytes, replies, support: batch.support });
            shared.clear();
        }
        is_held
    }

    /// Closes a connection that has sent more of one request than the query buffer may hold.
    fn check_input_limit(&mut self) {
        let held = self.input.len() - self.consumed + self.decoder.memory_bytes();
        self.session.client.input_bytes.store(held, Ordering::Relaxed);
        if held as u64 > self.worker.services.settings.load().client_query_buffer_limit {
            self.worker.services.statistics.input_limit_disconnections.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                client = self.session.client.id,
                bytes = held,
                "closing a client over its query buffer limit"
            );
            self.stage = Stage::Closing;
            self.output = Output::default();
        }
    }

    /// Closes a connection that is over its client-output-buffer-limit with this many more bytes to send, at once: what
    /// waits is dropped. Whether it was over.
    fn check_output_limit(&mut self, more: usize, now_ms: u64) -> bool {
        let waiting = self.output.held_bytes() + self.session.client.inbox.bytes() + more;
        self.session.client.output_bytes.store(self.output.held_bytes(), Ordering::Relaxed);
        if waiting == 0 {
            self.over_soft_limit_since = None;
            return false;
        }
        let over = self.worker.services.settings.output_limit(&self.session.client).exceeded(
            waiting,
            now_ms,
            &mut self.over_soft_limit_since,
        );
        if over {
            self.worker.services.statistics.output_limit_disconnections.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(client = self.session.client.id, bytes = waiting, "closing a client over its output limit");
            self.stage = Stage::Closing;
            self.output = Output::default();
            self.session.client.inbox.wake();
        }
        over
    }

    /// Whom others know it as.
    pub fn client(&self) -> &Client {
        &self.session.client
    }
}

/// However it ends, the client is struck out everywhere.
impl Drop for Connection {
    fn drop(&mut self) {
        self.wait = None;
        let services = &self.worker.services;
        crate::commands::control::connection::forget(&mut self.session, services);
        services.clients.leave(self.session.client.id);
        self.worker.held.change(&services.held, self.held, 0);
    }
}

/// Whether the reply to the command just executed is sent; CLIENT REPLY SKIP counts down here.
#[inline]
fn is_reply_wanted(session: &mut Session) -> bool {
    match session.reply_mode {
        ReplyMode::On => true,
        ReplyMode::Off => is_push(session),
        ReplyMode::SkipNext => {
            session.reply_mode = ReplyMode::Skip;
            false
        }
        ReplyMode::Skip => {
            session.reply_mode = ReplyMode::On;
            is_push(session)
        }
    }
}

/// Whether the command just executed answered with messages.
fn is_push(session: &Session) -> bool {
    let last = session.client.command.load(Ordering::Relaxed) as usize;
    table::all().get(last).is_some_and(|command| command.spec.has(PUSHES))
}

/// Over when the other side of a socket has closed, or the connection is broken; what it has sent stays in the socket. The
/// descriptor is one of its own: the runtime's notice that there is something to read must not be used up here. It is only
/// waited for, so a Unix socket is watched in the same way.
async fn hang_up(descriptor: io::Result<OwnedFd>) {
    let watched = descriptor.and_then(|descriptor| TcpStream::from_std(descriptor.into()));
    // Without a descriptor to spare, the client is found gone when the wait is over.
    let Ok(watched) = watched else { return std::future::pending().await };
    // Nobody sends urgent data: this interest is over with the reading side alone.
    let _ = watched.ready(Interest::PRIORITY).await;
}

/// Lets the other tasks of the thread run, those among them that what has arrived in the meantime wakes, and comes back.
/// To be woken at once would not do: the runtime looks at its sockets only after dozens of tasks that are ready.
fn continue_soon(context: &mut Context<'_>) -> Poll<()> {
    let _ = pin!(tokio::task::yield_now()).poll(context);
    Poll::Pending
}
