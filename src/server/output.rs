//! What a connection has to send: replies in the order of the requests, of which some may still be to come.
//!
//! It is one queue. At its front stand bytes that may be sent, in chunks that are freed one by one as they are sent;
//! behind the first reply that is still to come everything waits for it. Replies that are there, and are held back until
//! what they show is kept, wait in the same queue: whatever was made after them follows them.

use crate::commands::context::LaterReply;
use crate::engine::log::LogOffset;
use crate::engine::log::gate::{Gate, Needed, Shown};
use crate::resp::reply::Protocol;
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Replies that may be outstanding at a time; a connection with more waits before it reads on.
pub const LATER_MAX: usize = 1024;
/// What is shorter is copied together into chunks of this size; what is longer becomes a chunk as it is.
const CHUNK_BYTES: usize = 16 * 1024;

/// Bytes in the order in which they are sent, and the memory that holds them.
#[derive(Debug, Default)]
struct Chunks {
    queue: VecDeque<Chunk>,
    held: usize,
}

#[derive(Debug)]
enum Chunk {
    Own(Vec<u8>),
    /// A message that others are sent too.
    Shared(Bytes),
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match self {
            Chunk::Own(bytes) => bytes,
            Chunk::Shared(bytes) => bytes,
        }
    }

    fn held(&self) -> usize {
        match self {
            Chunk::Own(bytes) => bytes.capacity(),
            Chunk::Shared(bytes) => bytes.len(),
        }
    }
}

impl Chunks {
    fn push(&mut self, chunk: Chunk) {
        self.held += chunk.held();
        self.queue.push_back(chunk);
    }

    fn pop(&mut self) {
        self.held -= self.queue.pop_front().map_or(0, |chunk| chunk.held());
    }

    /// Appends a copy.
    fn copy(&mut self, mut bytes: &[u8]) {
        if let Some(Chunk::Own(last)) = self.queue.back_mut() {
            let fitting = bytes.len().min(last.capacity() - last.len());
            last.extend_from_slice(&bytes[..fitting]);
            bytes = &bytes[fitting..];
        }
        if !bytes.is_empty() {
            let mut chunk = Vec::with_capacity(bytes.len().max(CHUNK_BYTES));
            chunk.extend_from_slice(bytes);
            self.push(Chunk::Own(chunk));
        }
    }

    /// Appends bytes that are owned: as they are where that is worth a chunk, and most of their block is in use.
    fn append(&mut self, bytes: Vec<u8>) {
        if bytes.len() < CHUNK_BYTES || bytes.capacity() / 2 > bytes.len() {
            self.copy(&bytes);
        } else {
            self.push(Chunk::Own(bytes));
        }
    }

    fn append_all(&mut self, other: Chunks) {
        for chunk in other.queue {
            match chunk {
                Chunk::Own(bytes) => self.append(bytes),
                shared => self.push(shared),
            }
        }
    }
}

/// What is awaited, and what is sent behind it.
struct Later {
    awaited: Awaited,
    behind: Chunks,
}

enum Awaited {
    /// A reply that is still to come; CLIENT REPLY may have silenced it.
    Reply { reply: LaterReply, is_wanted: bool },
    /// Replies that are held back, and where it is told of them once it has asked.
    Gate { held: Held, asked: Option<Verdict> },
}

/// What a reply tells of the slots of this node, for which it needs a lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Told {
    /// Nothing, or that nothing was executed.
    #[default]
    Nothing,
    Read,
    Wrote,
    /// It was executed under a lease that may have ended since.
    Doubtful,
}

/// A reply in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Where it ends.
    pub end: usize,
    pub shown: Shown,
    pub told: Told,
}

impl Reply {
    /// Instead of this reply, where the log is kept to here only and will be no further.
    fn unkept(self, open_to: LogOffset, reason: &str) -> Option<String> {
        let what = match self.shown.wrote {
            true => "INDOUBT The command was executed, and may be lost",
            false => "UNKEPT Nothing was written, and what was read may be lost",
        };
        (self.shown.gate > open_to).then(|| format!("{what}: {reason}"))
    }

    /// Instead of this reply, where the lease under which it was executed has ended.
    pub fn without_lease(self) -> Option<String> {
        let what = match self.told {
            Told::Nothing => return None,
            Told::Read => "CLUSTERDOWN Nothing was written, and another node may know more",
            Told::Wrote | Told::Doubtful => "INDOUBT The command was executed, and may be lost",
        };
        Some(format!("{what}: this node was not heard for a while"))
    }
}

/// The replies in a buffer, some of them replaced by errors; what stands behind the last of them stays.
pub fn replace(bytes: &mut Vec<u8>, replies: &mut [Reply], error: impl Fn(Reply) -> Option<String>) {
    let (mut replaced, mut start) = (Vec::with_capacity(bytes.len()), 0);
    for reply in replies {
        let before = &bytes[start..reply.end];
        start = reply.end;
        match error(*reply).filter(|_| !before.is_empty()) {
            Some(text) => {
                replaced.extend(error_bytes(&text));
                (reply.shown, reply.told) = (Shown::default(), Told::Nothing);
            }
            None => replaced.extend_from_slice(before),
        }
        reply.end = replaced.len();
    }
    replaced.extend_from_slice(&bytes[start..]);
    *bytes = replaced;
}

/// Makes errors of the replies for which a lease is needed that has ended since; `may_answer` says whether it has.
pub fn keep_leased(bytes: &mut Vec<u8>, replies: &mut [Reply], may_answer: impl FnOnce() -> bool) {
    if replies.iter().all(|reply| reply.told == Told::Nothing) {
        return;
    }
    let may_answer = may_answer();
    if !may_answer || replies.iter().any(|reply| reply.told == Told::Doubtful) {
        let has_ended = |reply: &Reply| !may_answer || reply.told == Told::Doubtful;
        replace(bytes, replies, |reply| Some(reply).filter(has_ended).and_then(Reply::without_lease));
    }
}

/// What became of a gate that was closed: once it is known that a reply may leave it stays so, whatever is known of copies
/// later.
#[derive(Clone, Debug, Default)]
pub struct Verdict(Rc<RefCell<Option<Gate>>>);

impl Verdict {
    /// It is decided, unless the gate is closed.
    pub fn decide(&self, gate: Gate) {
        self.0.replace(Some(gate).filter(|gate| *gate != Gate::Closed));
    }

    /// What was decided; closed until then.
    pub fn gate(&self) -> Gate {
        self.0.borrow().clone().unwrap_or(Gate::Closed)
    }
}

/// Replies that are held back.
#[derive(Debug)]
pub struct Held {
    pub needed: Needed,
    pub bytes: Vec<u8>,
    pub replies: Vec<Reply>,
    /// The support under which they were made, where that matters.
    pub support: Option<u64>,
}

/// How what was awaited has ended.
enum Opened {
    Reply(Vec<u8>),
    Held,
    Refused(Arc<str>, LogOffset),
}

/// The output of one connection.
#[derive(Default)]
pub struct Output {
    /// May be sent now; of the first chunk, `sent` bytes have been.
    ready: Chunks,
    sent: usize,
    later: VecDeque<Later>,
    /// Memory of what is behind replies that are still to come.
    held_behind: usize,
}

impl Output {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.ready.queue.is_empty() && self.later.is_empty()
    }

    /// Bytes of memory that hold what waits: the block of a chunk counts until its last byte is sent.
    pub fn held_bytes(&self) -> usize {
        self.ready.held + self.held_behind
    }

    /// How many replies are still to come.
    pub fn later_count(&self) -> usize {
        self.later.len()
    }

    fn write(&mut self, write: impl FnOnce(&mut Chunks)) {
        let Some(later) = self.later.back_mut() else { return write(&mut self.ready) };
        let before = later.behind.held;
        write(&mut later.behind);
        self.held_behind += later.behind.held - before;
    }

    /// Appends a copy of these bytes.
    pub fn copy(&mut self, bytes: &[u8]) {
        self.write(|chunks| chunks.copy(bytes));
    }

    /// Appends a message that others are sent too.
    pub fn share(&mut self, bytes: Bytes) {
        self.write(|chunks| match bytes.len() {
            ..CHUNK_BYTES => chunks.copy(&bytes),
            _ => chunks.push(Chunk::Shared(bytes)),
        });
    }

    /// Appends what is in the buffer, `sent` bytes of which have left already, and empties it. A large reply is not
    /// copied: the buffer's block is taken over.
    pub fn take_over(&mut self, buffer: &mut Vec<u8>, sent: usize) {
        let left = buffer.len() - sent;
        if sent < buffer.len() && left >= CHUNK_BYTES && left >= buffer.capacity() / 2 && (sent == 0 || self.is_empty())
        {
            let taken = std::mem::take(buffer);
            self.write(|chunks| chunks.push(Chunk::Own(taken)));
            // Only an empty output has sent something of it.
            if sent > 0 {
                self.sent = sent;
            }
        } else {
            self.copy(&buffer[sent..]);
            buffer.clear();
        }
    }

    /// Appends a reply that is still to come.
    pub fn push_later(&mut self, reply: LaterReply, is_wanted: bool) {
        self.later.push_back(Later { awaited: Awaited::Reply { reply, is_wanted }, behind: Chunks::default() });
    }

    /// Appends replies that are held back.
    pub fn hold(&mut self, held: Held) {
        self.held_behind += held.bytes.capacity();
        self.later.push_back(Later { awaited: Awaited::Gate { held, asked: None }, behind: Chunks::default() });
    }

    /// Whether replies are held back.
    pub fn is_holding(&self) -> bool {
        self.later.iter().any(|later| matches!(later.awaited, Awaited::Gate { .. }))
    }

    /// Takes in the replies that have come, and those that may leave, in order. `look` says whether a gate is open, and keeps
    /// where it is told; where it is not, this is polled again when that is decided.
    pub fn poll_later(
        &mut self,
        context: &mut Context<'_>,
        mut look: impl FnMut(Needed, &mut Option<Verdict>, &mut Context<'_>) -> Gate,
        may_answer: impl Fn(u64) -> bool,
    ) {
        while let Some(later) = self.later.front_mut() {
            let opened = match &mut later.awaited {
                Awaited::Reply { reply, .. } => match reply.as_mut().poll(context) {
                    Poll::Ready(bytes) => Opened::Reply(bytes),
                    Poll::Pending => return,
                },
                Awaited::Gate { held, asked } => match look(held.needed, asked, context) {
                    Gate::Open => Opened::Held,
                    Gate::Failed(reason, open_to) => Opened::Refused(reason, open_to),
                    Gate::Closed => return,
                },
            };
            let Some(Later { awaited, behind }) = self.later.pop_front() else { return };
            match (awaited, opened) {
                (Awaited::Reply { is_wanted, .. }, Opened::Reply(bytes)) if is_wanted => self.ready.append(bytes),
                (Awaited::Gate { mut held, .. }, opened) => {
                    self.held_behind -= held.bytes.capacity();
                    if let Opened::Refused(reason, open_to) = opened {
                        replace(&mut held.bytes, &mut held.replies, |reply| reply.unkept(open_to, &reason));
                    }
                    if held.support.is_some_and(|support| !may_answer(support)) {
                        replace(&mut held.bytes, &mut held.replies, Reply::without_lease);
                    }
                    self.ready.append(held.bytes);
                }
                _ => {}
            }
            self.held_behind -= behind.held;
            self.ready.append_all(behind);
        }
    }

    /// The beginning of what may be sent now, and how many slices of it are filled.
    pub fn sendable<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut count = 0;
        for (slice, chunk) in slices.iter_mut().zip(&self.ready.queue) {
            let skipped = if count == 0 { self.sent } else { 0 };
            *slice = IoSlice::new(&chunk.bytes()[skipped..]);
            count += 1;
        }
        count
    }

    /// Says that this many of the bytes that may be sent were sent.
    pub fn consume(&mut self, bytes: usize) {
        self.sent += bytes;
        while let Some(first) = self.ready.queue.front() {
            let length = first.bytes().len();
            if self.sent < length {
                return;
            }
            self.sent -= length;
            self.ready.pop();
        }
    }
}

/// The reply of a request of which the protocol matters, as an error.
pub fn error_bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    crate::resp::reply::ReplyWriter::new(&mut bytes, Protocol::Resp2).error(text);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;
    use std::task::Waker;

    /// Sends at most this many bytes; what was sent.
    fn send(output: &mut Output, most: usize) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 4];
        let count = output.sendable(&mut slices);
        let mut bytes: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect();
        bytes.truncate(most);
        output.consume(bytes.len());
        bytes
    }

    fn send_all(output: &mut Output) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let sent = send(output, 10_000);
            if sent.is_empty() {
                return all;
            }
            all.extend(sent);
        }
    }

    #[test]
    fn sent_chunks_are_freed_though_the_output_is_never_empty() {
        let mut output = Output::default();
        let large = vec![b'x'; 1 << 20];
        output.copy(&large);
        for _ in 0..100 {
            output.copy(&large);
            let mut left = 1 << 20;
            while left > 0 {
                left -= send(&mut output, left).len();
            }
            assert!(!output.is_empty());
            assert!(output.held_bytes() <= 3 << 20, "{} bytes", output.held_bytes());
        }
        send_all(&mut output);
        assert!(output.is_empty());
        assert_eq!(output.held_bytes(), 0);
    }

    #[test]
    fn a_large_buffer_is_handed_over_and_a_small_one_is_kept() {
        let mut output = Output::default();
        let mut buffer = vec![b'x'; 1 << 20];
        let place = buffer.as_ptr();
        output.take_over(&mut buffer, 5);
        let mut slices = [IoSlice::new(&[]); 1];
        assert_eq!(output.sendable(&mut slices), 1);
        assert_eq!(slices[0].as_ptr(), place.wrapping_add(5));
        assert_eq!((slices[0].len(), buffer.capacity()), ((1 << 20) - 5, 0));
        let mut buffer = Vec::with_capacity(1 << 20);
        buffer.extend_from_slice(b"small");
        output.take_over(&mut buffer, 0);
        assert_eq!((buffer.len(), buffer.capacity()), (0, 1 << 20));
        let sent = send_all(&mut output);
        assert_eq!(sent.len(), (1 << 20) - 5 + 5);
        assert!(sent.ends_with(b"xsmall"));
    }

    #[test]
    fn what_is_behind_a_reply_to_come_waits_for_it_and_counts() {
        let mut output = Output::default();
        let mut context = Context::from_waker(Waker::noop());
        let has_come = Rc::new(Cell::new(false));
        let come = Rc::clone(&has_come);
        output.copy(b"1");
        output.push_later(
            Box::pin(std::future::poll_fn(move |_| match come.get() {
                true => Poll::Ready(b"2".to_vec()),
                false => Poll::Pending,
            })),
            true,
        );
        output.share(Bytes::from(vec![b'3'; CHUNK_BYTES]));
        output.push_later(Box::pin(std::future::ready(b"silent".to_vec())), false);
        output.copy(b"4");
        output.poll_later(&mut context, |_, _, _| Gate::Open, |_| true);
        assert_eq!(send_all(&mut output), b"1");
        assert!(!output.is_empty() && output.held_bytes() > CHUNK_BYTES);
        has_come.set(true);
        output.poll_later(&mut context, |_, _, _| Gate::Open, |_| true);
        assert_eq!(send_all(&mut output), [b"2", vec![b'3'; CHUNK_BYTES].as_slice(), b"4"].concat());
        assert!(output.is_empty());
        assert_eq!((output.held_bytes(), output.held_behind), (0, 0));
    }
    /// Held replies leave in their place, or as errors that say what has happened.
    #[test]
    fn held_replies_wait_for_their_gate() {
        let shown = |gate: u64, wrote: bool| Shown { gate: LogOffset(gate), wrote, ..Shown::default() };
        let fill = |output: &mut Output| {
            output.copy(b"+1\r\n");
            let bytes = b"+old\r\n+read\r\n+written\r\n".to_vec();
            let reply = |end, shown: Shown| {
                let told = if shown.wrote { Told::Wrote } else { Told::Read };
                Reply { end, shown, told }
            };
            let replies = vec![
                reply(6, shown(3, false)),
                reply(13, shown(9, false)),
                reply(23, shown(10, true)),
                reply(23, shown(10, true)),
            ];
            let needed = Needed { shown: shown(10, true), copies_until: None, on_disk: false };
            output.hold(Held { needed, bytes, replies, support: Some(7) });
            output.copy(b"+2\r\n");
        };
        let mut context = Context::from_waker(Waker::noop());
        let mut check = |gate: Gate, has_lease: bool, expected: &[u8], is_empty: bool| {
            let mut output = Output::default();
            fill(&mut output);
            output.poll_later(&mut context, |_, _, _| gate.clone(), |_| has_lease);
            assert_eq!(String::from_utf8_lossy(&send_all(&mut output)), String::from_utf8_lossy(expected));
            assert_eq!((output.is_empty(), output.is_holding()), (is_empty, !is_empty));
            assert_eq!(output.held_bytes() == 0, is_empty);
        };
        check(Gate::Closed, true, b"+1\r\n", false);
        check(Gate::Open, true, b"+1\r\n+old\r\n+read\r\n+written\r\n+2\r\n", true);
        let refused = b"+1\r\n+old\r\n-UNKEPT Nothing was written, and what was read may be lost: no disk\r\n\
            -INDOUBT The command was executed, and may be lost: no disk\r\n+2\r\n";
        check(Gate::Failed("no disk".into(), LogOffset(5)), true, refused, true);
        let without = b"+1\r\n-CLUSTERDOWN Nothing was written, and another node may know more: this node was not heard for a \
            while\r\n-CLUSTERDOWN Nothing was written, and another node may know more: this node was not heard for a while\r\n\
            -INDOUBT The command was executed, and may be lost: this node was not heard for a while\r\n+2\r\n";
        check(Gate::Open, false, without, true);
    }
}
