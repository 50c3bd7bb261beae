//! Transactions on another node.
//!
//! The client's MULTI and what it queues stay on this node until EXEC. All keys must be in one slot, so the whole block
//! goes to one owner, over the shared link: MULTI, the commands and EXEC stand together there, and nothing comes between.
//! WATCH is a state of its connection, so a client that watches gets a link of its own, and EXEC goes over that one.

use super::forward::{Forward, Goal, Job, UNKNOWN_OUTCOME};
use super::lane::{Lane, Ticket};
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
    let forward = Forward::start(proxy, lane.enter(proxy.home.version()), peer, job);
    async move { last(forward.finish().await) }
}

/// What a client watches on another node: all in one slot.
pub struct Watch {
    link: Rc<Link>,
    pub slot: Slot,
    /// It did not come about, or is lost: EXEC must not be executed.
    is_void: Rc<Cell<bool>>,
}

impl Watch {
    /// A link to the owner of the slot, for this client alone.
    pub fn open(proxy: &Proxy, peer: Peer, slot: Slot, protocol: Protocol) -> Watch {
        Watch { link: proxy.links.own(&*proxy.home, peer, protocol), slot, is_void: Rc::default() }
    }

    /// Watches keys. The client's next requests have to wait for the answer: they go by another link.
    pub fn add(&self, lane: &Rc<Lane>, version: u64, request: OwnedArguments) -> impl Future<Output = Vec<u8>> + use<> {
        let ticket = lane.enter(version);
        lane.close();
        let answer = self.link.submit(&[request], lane);
        let is_void = Rc::clone(&self.is_void);
        async move {
            let _ticket = ticket;
            let reply = answer.await.unwrap_or(Err(LinkError::Lost));
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
    pub fn execute(
        self,
        lane: &Rc<Lane>,
        version: u64,
        queue: Vec<OwnedArguments>,
        protocol: Protocol,
    ) -> impl Future<Output = Vec<u8>> + use<> {
        let ticket = lane.enter(version);
        let answer = (!self.is_void.get()).then(|| self.link.submit(&block(queue), lane));
        async move {
            // The link is needed until the answer is there.
            let (_ticket, _link): (Ticket, Rc<Link>) = (ticket, self.link);
            let Some(answer) = answer else { return aborted(protocol) };
            match answer.await.unwrap_or(Err(LinkError::Lost)) {
                Err(LinkError::NotSent) => aborted(protocol),
                Err(LinkError::Lost) => super::error(UNKNOWN_OUTCOME),
                Ok(replies) => {
                    let is_elsewhere = |reply: &&[u8]| reply::elsewhere(reply).is_some();
                    if reply::split(&replies).unwrap_or_default().iter().any(is_elsewhere) {
                        aborted(protocol)
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
