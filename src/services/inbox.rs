//! The inbox of a connection: what others want it to send or to do.
//!
//! Any thread may put a message in; the connection's task is woken and takes them all. The bytes that wait count as the
//! client's output buffer, and a client over its limit is closed, so the inbox is bounded by configuration.

use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Waker;

/// Something for a connection to do.
#[derive(Clone, Debug)]
pub enum Message {
    /// RESP to send as it is, between two replies.
    Push(Bytes),
    /// Close the connection; what waits is not sent: the client may never take it.
    Close,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: Vec<Message>,
    waker: Option<Waker>,
}

/// Messages that wait for a connection.
#[derive(Debug, Default)]
pub struct Inbox {
    waiting: Mutex<Waiting>,
    filled: AtomicBool,
    bytes: AtomicUsize,
}

impl Inbox {
    /// Puts a message in and wakes the connection. Returns the bytes that wait now.
    pub fn put(&self, message: Message) -> usize {
        let added = if let Message::Push(bytes) = &message { bytes.len() } else { 0 };
        let mut waiting = self.waiting.lock();
        waiting.messages.push(message);
        let total = self.bytes.fetch_add(added, Ordering::Relaxed) + added;
        self.filled.store(true, Ordering::Release);
        let waker = waiting.waker.take();
        drop(waiting);
        if let Some(waker) = waker {
            waker.wake();
        }
        total
    }

    /// Wakes the connection without a message: something it waits for may have happened.
    pub fn wake(&self) {
        self.filled.store(true, Ordering::Release);
        if let Some(waker) = self.waiting.lock().waker.take() {
            waker.wake();
        }
    }

    /// Takes the messages, in order. Costs one load where there are none.
    pub fn take(&self) -> Vec<Message> {
        if !self.filled.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut waiting = self.waiting.lock();
        self.filled.store(false, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
        std::mem::take(&mut waiting.messages)
    }

    /// Takes the messages to send, in order, unless the connection is told to close: then nothing is sent any more.
    /// Costs one load where there are none.
    pub fn take_pushes(&self) -> Vec<Bytes> {
        if !self.is_filled() {
            return Vec::new();
        }
        let mut waiting = self.waiting.lock();
        if waiting.messages.iter().any(|message| matches!(message, Message::Close)) {
            return Vec::new();
        }
        self.bytes.store(0, Ordering::Relaxed);
        let messages = std::mem::take(&mut waiting.messages);
        let pushes = messages.into_iter().filter_map(|message| match message {
            Message::Push(bytes) => Some(bytes),
            Message::Close => None,
        });
        pushes.collect()
    }

    /// Whether something waits.
    pub fn is_filled(&self) -> bool {
        self.filled.load(Ordering::Acquire)
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Says whom to wake. Must be called before the connection looks for messages a last time and goes to sleep.
    pub fn register(&self, waker: &Waker) {
        let mut waiting = self.waiting.lock();
        match &mut waiting.waker {
            Some(known) if known.will_wake(waker) => {}
            other => *other = Some(waker.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_early_does_not_count_and_a_close_stays() {
        let inbox = Inbox::default();
        assert_eq!(inbox.put(Message::Push(Bytes::from_static(b"1"))), 1);
        assert_eq!(inbox.put(Message::Push(Bytes::from_static(b"22"))), 3);
        assert_eq!(inbox.take_pushes(), [&b"1"[..], b"22"]);
        assert_eq!(inbox.bytes(), 0);
        assert!(inbox.take_pushes().is_empty());
        inbox.put(Message::Push(Bytes::from_static(b"3")));
        inbox.put(Message::Close);
        assert!(inbox.take_pushes().is_empty());
        assert!(matches!(inbox.take()[..], [Message::Push(_), Message::Close]));
        assert!(!inbox.is_filled());
    }
}
