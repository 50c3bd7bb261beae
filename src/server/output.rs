//! What a connection has to send: replies in the order of the requests, of which some may still be to come.

use crate::commands::context::LaterReply;
use crate::resp::reply::Protocol;
use std::collections::VecDeque;
use std::task::{Context, Poll};

/// Replies that may be outstanding at a time; a connection with more waits before it reads on.
pub const LATER_MAX: usize = 1024;

/// A reply that comes later, and the bytes of the replies behind it.
struct Later {
    reply: LaterReply,
    /// How many bytes the client wants of it: CLIENT REPLY may have silenced it.
    is_wanted: bool,
    behind: Vec<u8>,
}

/// The output of one connection.
#[derive(Default)]
pub struct Output {
    /// Bytes that may be sent now; `sent` of them have been.
    ready: Vec<u8>,
    sent: usize,
    later: VecDeque<Later>,
}

impl Output {
    /// The buffer to which the next reply is appended.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        match self.later.back_mut() {
            Some(later) => &mut later.behind,
            None => &mut self.ready,
        }
    }

    /// Whether nothing waits, so that replies may be built elsewhere and sent at once.
    pub fn is_empty(&self) -> bool {
        self.later.is_empty() && self.sent == self.ready.len()
    }

    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.ready.len() - self.sent + self.later.iter().map(|later| later.behind.len()).sum::<usize>()
    }

    /// How many replies are still to come.
    pub fn later_count(&self) -> usize {
        self.later.len()
    }

    /// Appends a reply that is still to come.
    pub fn push_later(&mut self, reply: LaterReply, is_wanted: bool) {
        self.later.push_back(Later { reply, is_wanted, behind: Vec::new() });
    }

    /// Takes in the replies that have come, in order.
    pub fn poll_later(&mut self, context: &mut Context<'_>) {
        while let Some(later) = self.later.front_mut() {
            let Poll::Ready(bytes) = later.reply.as_mut().poll(context) else { return };
            if let Some(later) = self.later.pop_front() {
                if later.is_wanted {
                    self.ready.extend_from_slice(&bytes);
                }
                self.ready.extend_from_slice(&later.behind);
            }
        }
    }

    /// The bytes that may be sent now.
    pub fn sendable(&self) -> &[u8] {
        &self.ready[self.sent..]
    }

    /// Says that this many of them were sent.
    pub fn consume(&mut self, bytes: usize) {
        // Buffers that a large reply has grown are given back.
        const KEPT_BYTES_MAX: usize = 64 * 1024;
        self.sent += bytes;
        if self.sent >= self.ready.len() {
            self.sent = 0;
            self.ready.clear();
            if self.ready.capacity() > KEPT_BYTES_MAX {
                self.ready = Vec::new();
            }
        }
    }

    /// Bytes of the buffers.
    pub fn memory_bytes(&self) -> usize {
        self.ready.capacity() + self.later.iter().map(|later| later.behind.capacity()).sum::<usize>()
    }
}

/// The reply of a request of which the protocol matters, as an error.
pub fn error_bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    crate::resp::reply::ReplyWriter::new(&mut bytes, Protocol::Resp2).error(text);
    bytes
}
