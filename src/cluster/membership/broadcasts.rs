//! Small messages that gossip passes to every member: who sent what, and what has been heard before.
//!
//! foca repeats a broadcast that it is told is new and drops the others, so remembering what was heard is all that ends
//! an epidemic. Each origin numbers its own; per origin the greatest number and a window of 128 below it are kept, which
//! is exact while an origin has fewer than 128 underway, and what falls out of the window counts as heard.

use super::settings::{BROADCAST_BACKLOG_MAX, BROADCAST_BYTES_MAX};
use super::{Life, MemberIdentity};
use crate::base::identity::NodeId;
use foca::{BroadcastHandler, Invalidates};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

/// Origins remembered at most: those heard longest ago are forgotten first.
const ORIGINS_MAX: usize = 1024;

/// A message from one member to all.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Broadcast {
    pub origin: NodeId,
    /// The origin's start, ms since 1970: its numbers begin again in each life.
    pub origin_start_ms: u64,
    /// Its number among the broadcasts of that life, from 1.
    pub sequence: u64,
    /// At most [`BROADCAST_BYTES_MAX`].
    pub payload: Vec<u8>,
}

impl Broadcast {
    /// The bytes that travel, for a message of this node.
    pub(super) fn encode(origin: NodeId, life: Life, sequence: u64, payload: &[u8]) -> Vec<u8> {
        let broadcast = Broadcast { origin, origin_start_ms: life.start_ms, sequence, payload: payload.to_vec() };
        postcard::to_stdvec(&broadcast).expect("a struct of numbers and bytes has an encoding")
    }
}

/// Why a broadcast was not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BroadcastError {
    /// Its payload is longer than [`BROADCAST_BYTES_MAX`], or empty.
    Size(usize),
    /// [`BROADCAST_BACKLOG_MAX`] are on their way already.
    Busy,
    /// This node has left the cluster.
    Left,
}

impl fmt::Display for BroadcastError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BroadcastError::Size(bytes) => {
                write!(f, "a broadcast holds 1 to {BROADCAST_BYTES_MAX} bytes, this one {bytes}")
            }
            BroadcastError::Busy => write!(f, "{BROADCAST_BACKLOG_MAX} broadcasts are on their way already"),
            BroadcastError::Left => f.write_str("this node has left the cluster"),
        }
    }
}

impl std::error::Error for BroadcastError {}

/// How many broadcasts foca still has to pass on, as known at the start of a step; more are not taken up.
#[derive(Clone, Debug, Default)]
pub(super) struct Backlog {
    length: Arc<AtomicUsize>,
}

impl Backlog {
    pub(super) fn set(&self, length: usize) {
        self.length.store(length, Ordering::Relaxed);
    }

    fn take_place(&self) -> bool {
        let taken = |length: usize| (length < BROADCAST_BACKLOG_MAX).then_some(length + 1);
        self.length.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }
}

/// foca's view of broadcasts: decides which are new, and hands those of others over.
pub(super) struct BroadcastFilter {
    heard: BTreeMap<NodeId, Heard>,
    /// Counts what was heard, to tell which origin was silent longest.
    ticks: u64,
    backlog: Backlog,
    /// Drained after every step; a step adds no more than one datagram holds.
    inbox: mpsc::Sender<Broadcast>,
}

impl BroadcastFilter {
    pub(super) fn new(backlog: Backlog, inbox: mpsc::Sender<Broadcast>) -> BroadcastFilter {
        BroadcastFilter { heard: BTreeMap::new(), ticks: 0, backlog, inbox }
    }

    /// Whether this one is heard for the first time.
    fn is_new(&mut self, broadcast: &Broadcast) -> bool {
        self.ticks += 1;
        if !self.heard.contains_key(&broadcast.origin) && self.heard.len() >= ORIGINS_MAX {
            let silent = self.heard.iter().min_by_key(|(_, heard)| heard.tick).map(|(&origin, _)| origin);
            silent.map(|origin| self.heard.remove(&origin));
        }
        let heard = self.heard.entry(broadcast.origin).or_default();
        heard.tick = self.ticks;
        if broadcast.origin_start_ms > heard.start_ms {
            *heard = Heard { start_ms: broadcast.origin_start_ms, tick: self.ticks, ..Heard::default() };
        }
        broadcast.origin_start_ms == heard.start_ms && heard.mark(broadcast.sequence)
    }
}

impl BroadcastHandler<MemberIdentity> for BroadcastFilter {
    type Key = BroadcastKey;
    type Error = postcard::Error;

    fn receive_item(
        &mut self,
        data: &[u8],
        sender: Option<&MemberIdentity>,
    ) -> Result<Option<BroadcastKey>, Self::Error> {
        let broadcast: Broadcast = postcard::from_bytes(data)?;
        let length = broadcast.payload.len();
        if length > BROADCAST_BYTES_MAX || !self.is_new(&broadcast) {
            return Ok(None);
        }
        let key = BroadcastKey { origin: broadcast.origin, sequence: broadcast.sequence };
        if sender.is_some() {
            // The receiving end lives as long as the filter: both belong to one Membership.
            let _ = self.inbox.send(broadcast);
        }
        Ok(self.backlog.take_place().then_some(key))
    }
}

/// Names a broadcast in foca's backlog. No broadcast replaces another.
pub(super) struct BroadcastKey {
    origin: NodeId,
    sequence: u64,
}

impl Invalidates for BroadcastKey {
    fn invalidates(&self, other: &BroadcastKey) -> bool {
        self.origin == other.origin && self.sequence == other.sequence
    }
}

/// What was heard of one origin.
#[derive(Default)]
struct Heard {
    start_ms: u64,
    greatest: u64,
    /// Bit `i` stands for `greatest - i`.
    window: u128,
    tick: u64,
}

impl Heard {
    /// Notes a number; whether it was new.
    fn mark(&mut self, sequence: u64) -> bool {
        if sequence > self.greatest {
            let ahead = sequence - self.greatest;
            self.window = if ahead < 128 { self.window << ahead } else { 0 };
            self.window |= 1;
            self.greatest = sequence;
            return true;
        }
        let behind = self.greatest - sequence;
        let bit = if behind < 128 { 1u128 << behind } else { return false };
        let new = self.window & bit == 0;
        self.window |= bit;
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter() -> (BroadcastFilter, mpsc::Receiver<Broadcast>) {
        let (sender, receiver) = mpsc::channel();
        (BroadcastFilter::new(Backlog::default(), sender), receiver)
    }

    fn broadcast(origin: u128, start_ms: u64, sequence: u64) -> Broadcast {
        Broadcast { origin: NodeId(origin), origin_start_ms: start_ms, sequence, payload: vec![1] }
    }

    #[test]
    fn each_is_new_once_in_any_order() {
        let (mut filter, _inbox) = filter();
        for sequence in [3, 1, 2, 200, 100, 73] {
            assert!(filter.is_new(&broadcast(1, 5, sequence)), "first {sequence}");
            assert!(!filter.is_new(&broadcast(1, 5, sequence)), "second {sequence}");
        }
        assert!(!filter.is_new(&broadcast(1, 5, 72)), "out of the window counts as heard");
    }

    #[test]
    fn a_new_life_numbers_from_the_start_and_the_old_is_silent() {
        let (mut filter, _inbox) = filter();
        assert!(filter.is_new(&broadcast(1, 5, 9)));
        assert!(filter.is_new(&broadcast(1, 6, 1)));
        assert!(!filter.is_new(&broadcast(1, 5, 10)));
    }

    #[test]
    fn origins_are_bounded() {
        let (mut filter, _inbox) = filter();
        for origin in 0..3000 {
            assert!(filter.is_new(&broadcast(origin, 1, 1)));
        }
        assert_eq!(filter.heard.len(), ORIGINS_MAX);
        assert!(!filter.is_new(&broadcast(2999, 1, 1)));
    }

    #[test]
    fn a_full_backlog_hears_and_does_not_pass_on() {
        let (mut filter, inbox) = filter();
        filter.backlog.set(BROADCAST_BACKLOG_MAX);
        let bytes = postcard::to_stdvec(&broadcast(1, 1, 1)).expect("encodes");
        let sender = MemberIdentity::seed("127.0.0.1:1".parse().expect("an address"));
        assert!(filter.receive_item(&bytes, Some(&sender)).expect("decodes").is_none());
        assert_eq!(inbox.try_recv(), Ok(broadcast(1, 1, 1)));
    }
}
