//! Transactions on another node.
//!
//! The client's MULTI and what it queues stay on this node until EXEC. All keys must be in one slot, so the whole block
//! goes to one owner, over the shared link: MULTI, the commands and EXEC stand together there, and nothing comes between.
//! WATCH is a state of its connection, so a client that watches gets a link of its own, and EXEC goes over that one.

use super::forward::{Forward, Goal, Job, UNKNOWN_OUTCOME};
use super::lane::{Lane, Way};
use super::link::{Link, LinkError};
use super::reply::{self, Elsewhere};
use super::{Peer, Proxy};
use crate::base::slot::Slot;
use crate::resp::arguments::OwnedArguments;
use crate::resp::reply::{Protocol, ReplyWriter};
use std::cell::Cell;
use std::rc::Rc;

const UNREACHABLE: &str = "CLUSTERDOWN The node that owns the key cannot be reached; the command was not executed";

/// Executes queued commands at the owner of their slot.
pub fn execute(
    proxy: &Rc<Proxy>,
    lane: &Rc<Lane>,
    peer: Peer,
    slot: Slot,
    queue: Vec<OwnedArguments>,
    protocol: Protocol,
) -> impl Future<Output = Vec<u8>> + use<> {
    let job = Job { goal: Goal::Owner(slot), requests: block(queue), protocol, writes: true, blocks: false };
    let forward = Forward::start(proxy, lane.enter(proxy.way(protocol)), peer, job);
    async move { last(forward.finish().await) }
}

/// A link of its own over which a client watches keys of one slot on another node. Without it they are watched no more.
pub struct WatchLink {
    link: Link,
    pub slot: Slot,
    protocol: Protocol,
    /// It did not come about, or is lost: EXEC must not be executed.
    is_void: Rc<Cell<bool>>,
}

impl WatchLink {
    /// A link to the owner of the slot, for this client alone.
    pub fn open(proxy: &Proxy, peer: Peer, slot: Slot, protocol: Protocol) -> WatchLink {
        let link = proxy.links.own(&*proxy.home, peer, protocol);
        WatchLink { link, slot, protocol, is_void: Rc::default() }
    }

    /// Watches keys. The client's next requests have to wait for the answer: they go by another link.
    pub fn add(&self, lane: &Rc<Lane>, way: Way, request: OwnedArguments) -> impl Future<Output = Vec<u8>> + use<> {
        let ticket = lane.enter(way);
        lane.close();
        let answer = self.link.submit(&[request], lane);
        let is_void = Rc::clone(&self.is_void);
        async move {
            let _ticket = ticket;
            let reply = answer.await;
            if !matches!(&reply, Ok(bytes) if bytes == b"+OK\r\n") {
                is_void.set(true);
            }
            match reply {
                Ok(bytes) if matches!(reply::elsewhere(&bytes), Some(Elsewhere::Moved(_))) => {
                    super::error("TRYAGAIN The slot has just moved; nothing is watched")
                }
                Ok(bytes) => bytes,
                Err(_) => super::error(UNREACHABLE),
            }
        }
    }

    /// Executes queued commands unless a watched key has changed. Where the slot has moved, or the link is lost, nobody
    /// knows whether one has: then nothing is executed, as if it had.
    ///
    /// The client's next requests have to wait for the answer: they go by another link, and would overtake it.
    pub fn execute(
        &self,
        lane: &Rc<Lane>,
        way: Way,
        queue: Vec<OwnedArguments>,
    ) -> impl Future<Output = Vec<u8>> + use<> {
        let ticket = lane.enter(way);
        lane.close();
        let mut requests = block(queue);
        if way.protocol != self.protocol {
            // The client has said HELLO since.
            let hello = [b"HELLO".as_slice(), reply::version(way.protocol)];
            requests.insert(0, hello.into_iter().collect());
        }
        let answer = (!self.is_void.get()).then(|| self.link.submit(&requests, lane));
        async move {
            let _ticket = ticket;
            let Some(answer) = answer else { return aborted(way.protocol) };
            match answer.await {
                Err(LinkError::NotSent) => aborted(way.protocol),
                Err(LinkError::Lost) => super::error(UNKNOWN_OUTCOME),
                Ok(replies) => {
                    let is_elsewhere = |reply: &&[u8]| reply::elsewhere(reply).is_some();
                    if reply::split(&replies).unwrap_or_default().iter().any(is_elsewhere) {
                        aborted(way.protocol)
                    } else {
                        last(replies)
                    }
                }
            }
        }
    }
}

fn block(queue: Vec<OwnedArguments>) -> Vec<OwnedArguments> {
    let word = |word: &'static [u8]| std::iter::once(word).collect::<OwnedArguments>();
    std::iter::once(word(b"MULTI")).chain(queue).chain(std::iter::once(word(b"EXEC"))).collect()
}

/// EXEC's reply among those to the block; an error that stands for all of them is itself.
fn last(replies: Vec<u8>) -> Vec<u8> {
    let start = reply::split(&replies).and_then(|found| found.last().map(|last| replies.len() - last.len()));
    match start {
        Some(0) | None => replies,
        Some(start) => replies[start..].to_vec(),
    }
}

/// What EXEC answers when a watched key has changed.
pub fn aborted(protocol: Protocol) -> Vec<u8> {
    let mut bytes = Vec::new();
    ReplyWriter::new(&mut bytes, protocol).null_array();
    bytes
}
