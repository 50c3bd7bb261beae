//! A request for several nodes: what each is sent, and one reply out of theirs.
//!
//! Keys are grouped by slot, for an owner refuses keys of several slots; the parts for one node go out together, so that
//! a spread request costs as many round trips as one. It is not atomic: parts are executed when they arrive, and when
//! one fails, its error is the reply and the others stay executed.

use super::forward::{Forward, Goal, Job};
use super::lane::{Lane, Ticket};
use super::reply;
use super::{HOPS_MAX, Place, Proxy};
use crate::base::slot::Slot;
use crate::resp::arguments::{Arguments, OwnedArguments};
use crate::resp::reply::{Protocol, ReplyWriter};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;

/// Bytes that the parts of one reply may have together.
const REPLY_BYTES_MAX: usize = 512 * 1024 * 1024;
const TOO_LARGE: &str = "ERR the replies of all nodes together are too large";
const UNSETTLED: &str = "TRYAGAIN Slots are changing hands; some nodes may have executed the command";
/// How long a hand-off may last.
const SETTLED_AFTER: Duration = Duration::from_secs(1);
/// How long to wait for a newer view before the next try.
const PAUSE: Duration = Duration::from_millis(20);
const INCOMPREHENSIBLE: &str = "ERR a node has sent a reply of another kind than expected";

/// How the replies of the parts become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// Numbers that are added up.
    Sum,
    /// OK, if all say so.
    AllOk,
    /// Arrays with one element per key, in the order of the keys.
    ByKey,
    /// Arrays in any order.
    Concatenate,
}

/// A request whose keys are in several slots.
pub struct Keyed<'a> {
    pub arguments: Arguments<'a>,
    /// The places of the keys among the arguments, and their slots.
    pub keys: Vec<(usize, Slot)>,
    /// Arguments that belong to a key, with the key itself.
    pub step: usize,
    pub merge: Merge,
    pub protocol: Protocol,
    pub writes: bool,
}

/// A part of a spread request: keys by their place among all keys, and how the reply is come by.
struct Part {
    keys: Vec<usize>,
    reply: Pending,
}

enum Pending {
    Here(Vec<u8>),
    There(Box<Forward>),
}

/// Why a request cannot be spread now. Nothing was executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A slot of it is changing hands: again, when the view is newer.
    Soon,
    /// A slot of it is served by nobody.
    Down(&'static str),
    /// A link to an owner is full.
    Full(super::Peer),
}

/// Sends a request with keys in several slots to all that own them, and executes here what is here. The reply comes by
/// the future.
///
/// # Errors
/// See [`Refusal`].
pub fn keyed(
    proxy: &Rc<Proxy>,
    lane: &Rc<Lane>,
    request: Keyed<'_>,
) -> Result<impl Future<Output = Vec<u8>> + use<>, Refusal> {
    let home = &proxy.home;
    let mut here = Vec::new();
    let mut there: BTreeMap<Slot, (super::Peer, Vec<usize>)> = BTreeMap::new();
    for (number, &(_, slot)) in request.keys.iter().enumerate() {
        if let Some((_, keys)) = there.get_mut(&slot) {
            keys.push(number);
            continue;
        }
        match home.place(slot, request.writes) {
            Place::Here => here.push(number),
            Place::At(peer) if !proxy.links.get(&**home, peer, request.protocol).has_room() => {
                return Err(Refusal::Full(peer));
            }
            Place::At(peer) => drop(there.insert(slot, (peer, vec![number]))),
            Place::Soon => return Err(Refusal::Soon),
            Place::Nowhere(text) => return Err(Refusal::Down(text)),
        }
    }
    let mut parts = Vec::with_capacity(there.len() + 1);
    if !here.is_empty() {
        // First, for it is the only part that may still turn out to have to wait.
        let part = part_of(&request, &here);
        match home.execute(part.borrow(), request.protocol) {
            Some(reply) => parts.push(Part { keys: here, reply: Pending::Here(reply) }),
            None => {
                let own = own_link(proxy, request.protocol)?;
                for number in here {
                    there.entry(request.keys[number].1).or_insert_with(|| (own, Vec::new())).1.push(number);
                }
            }
        }
    }
    let ticket = lane.enter(proxy.way(request.protocol));
    for (slot, (peer, keys)) in there {
        let requests = vec![part_of(&request, &keys)];
        let job = Job {
            goal: Goal::Owner(slot),
            requests,
            protocol: request.protocol,
            writes: request.writes,
            blocks: false,
        };
        let forward = Box::new(Forward::start(proxy, ticket.another(), peer, job));
        parts.push(Part { keys, reply: Pending::There(forward) });
    }
    let (merge, count, protocol) = (request.merge, request.keys.len(), request.protocol);
    Ok(async move {
        let _ticket = ticket;
        let mut merged = Merged::new(merge, count);
        for part in parts {
            let reply = match part.reply {
                Pending::Here(reply) => reply,
                Pending::There(forward) => forward.finish().await,
            };
            merged.add(&part.keys, &reply);
        }
        merged.finish(protocol)
    })
}

/// Where this node is for itself: over a link to itself a request waits for its slot, and its reply until it may leave.
fn own_link(proxy: &Rc<Proxy>, protocol: Protocol) -> Result<super::Peer, Refusal> {
    let own = proxy.home.own_address().ok_or(Refusal::Soon)?;
    let has_room = proxy.links.get(&*proxy.home, own, protocol).has_room();
    has_room.then_some(own).ok_or(Refusal::Full(own))
}

/// The command with some of its keys.
fn part_of(request: &Keyed<'_>, keys: &[usize]) -> OwnedArguments {
    let mut part = OwnedArguments::default();
    part.push(request.arguments.at(0));
    for &number in keys {
        let (at, _) = request.keys[number];
        (at..at + request.step).for_each(|index| part.push(request.arguments.at(index)));
    }
    part
}

/// A request without keys that all nodes execute.
pub struct Everywhere {
    pub request: OwnedArguments,
    pub merge: Merge,
    pub protocol: Protocol,
    pub writes: bool,
}

/// Sends a request to all that own slots, and executes it here too. Where slots changed hands meanwhile it is done once
/// more, so that no slot is left out; therefore the client's next requests wait. Where a slot is served by nobody, it is
/// not executed at all: what the others have is not the answer.
///
/// # Errors
/// See [`Refusal`].
pub fn everywhere(
    proxy: &Rc<Proxy>,
    lane: &Rc<Lane>,
    request: Everywhere,
) -> Result<impl Future<Output = Vec<u8>> + use<>, Refusal> {
    let mut version = proxy.home.version();
    let ticket = lane.enter(proxy.way(request.protocol));
    let round = send_everywhere(proxy, &ticket, &request)?;
    lane.close();
    let proxy = Rc::clone(proxy);
    Ok(async move {
        let mut reply = request.merged(round).await;
        for _ in 1..HOPS_MAX {
            if proxy.home.version() == version {
                break;
            }
            version = proxy.home.version();
            reply = match send_again(&proxy, &ticket, &request).await {
                Ok(round) => request.merged(round).await,
                Err(error) => return error,
            };
        }
        reply
    })
}

/// Another round, or the error that is the reply instead.
async fn send_again(proxy: &Rc<Proxy>, ticket: &Ticket, request: &Everywhere) -> Result<Round, Vec<u8>> {
    let until = Instant::now() + SETTLED_AFTER;
    loop {
        match send_everywhere(proxy, ticket, request) {
            Ok(round) => return Ok(round),
            Err(Refusal::Down(text)) => return Err(super::error(text)),
            Err(_) if Instant::now() >= until => return Err(super::error(UNSETTLED)),
            Err(Refusal::Soon) => proxy.home.until_newer(proxy.home.version(), PAUSE).await,
            Err(Refusal::Full(peer)) => {
                let link = proxy.links.get(&*proxy.home, peer, request.protocol);
                let _ = tokio::time::timeout_at(until, link.until_room()).await;
            }
        }
    }
}

impl Everywhere {
    /// One reply out of those of a round.
    async fn merged(&self, round: Round) -> Vec<u8> {
        let (here, there) = round;
        let mut merged = Merged::new(self.merge, 0);
        if let Some(here) = here {
            merged.add(&[], &here);
        }
        for forward in there {
            merged.add(&[], &forward.finish().await);
        }
        merged.finish(self.protocol)
    }
}

/// One round: the reply of this node, if it is there, and those to come.
type Round = (Option<Vec<u8>>, Vec<Forward>);

fn send_everywhere(proxy: &Rc<Proxy>, ticket: &Ticket, request: &Everywhere) -> Result<Round, Refusal> {
    let home = &proxy.home;
    if let Some(text) = home.unserved(request.writes) {
        return Err(Refusal::Down(text));
    }
    let mut peers = home.peers();
    let is_full = |peer: &&super::Peer| !proxy.links.get(&**home, **peer, request.protocol).has_room();
    if let Some(full) = peers.iter().find(is_full) {
        return Err(Refusal::Full(*full));
    }
    let here = home.execute(request.request.borrow(), request.protocol);
    if here.is_none() {
        peers.push(own_link(proxy, request.protocol)?);
    }
    let there = peers.into_iter().map(|peer| {
        let requests = vec![request.request.clone()];
        let job =
            Job { goal: Goal::Node(peer), requests, protocol: request.protocol, writes: request.writes, blocks: false };
        Forward::start(proxy, ticket.another(), peer, job)
    });
    Ok((here, there.collect()))
}

/// The reply that is put together.
struct Merged {
    merge: Merge,
    error: Option<Vec<u8>>,
    sum: i64,
    count: usize,
    bytes: Vec<u8>,
    by_key: Vec<Vec<u8>>,
}

impl Merged {
    fn new(merge: Merge, keys: usize) -> Merged {
        let by_key = if merge == Merge::ByKey { vec![Vec::new(); keys] } else { Vec::new() };
        Merged { merge, error: None, sum: 0, count: 0, bytes: Vec::new(), by_key }
    }

    /// Takes in the reply to a part with these keys.
    fn add(&mut self, keys: &[usize], reply: &[u8]) {
        if self.error.is_some() {
            return;
        }
        if reply::error_text(reply).is_some() {
            self.error = Some(reply.to_vec());
        } else if self.bytes.len() + reply.len() > REPLY_BYTES_MAX {
            self.error = Some(super::error(TOO_LARGE));
        } else if self.try_add(keys, reply).is_none() {
            self.error = Some(super::error(INCOMPREHENSIBLE));
        }
    }

    fn try_add(&mut self, keys: &[usize], reply: &[u8]) -> Option<()> {
        match self.merge {
            Merge::AllOk => {}
            Merge::Sum => self.sum = self.sum.saturating_add(reply::integer(reply)?),
            Merge::Concatenate => {
                let elements = reply::elements(reply)?;
                self.count += elements.len();
                elements.iter().for_each(|element| self.bytes.extend_from_slice(element));
            }
            Merge::ByKey => {
                let elements = reply::elements(reply).filter(|elements| elements.len() == keys.len())?;
                for (&key, element) in keys.iter().zip(elements) {
                    self.count += element.len();
                    self.by_key[key] = element.to_vec();
                }
                // The limit is on all of them together.
                (self.count <= REPLY_BYTES_MAX).then_some(())?;
            }
        }
        Some(())
    }

    fn finish(self, protocol: Protocol) -> Vec<u8> {
        if let Some(error) = self.error {
            return error;
        }
        let mut bytes = Vec::new();
        let mut writer = ReplyWriter::new(&mut bytes, protocol);
        match self.merge {
            Merge::Sum => writer.integer(self.sum),
            Merge::AllOk => writer.ok(),
            Merge::Concatenate => {
                writer.array(self.count);
                writer.raw(&self.bytes);
            }
            Merge::ByKey => {
                writer.array(self.by_key.len());
                self.by_key.iter().for_each(|element| writer.raw(element));
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(merge: Merge, parts: &[(&[usize], &str)], expected: &str) {
        let keys = parts.iter().map(|(keys, _)| keys.len()).sum();
        let mut merged = Merged::new(merge, keys);
        parts.iter().for_each(|(keys, reply)| merged.add(keys, reply.as_bytes()));
        assert_eq!(String::from_utf8_lossy(&merged.finish(Protocol::Resp2)), expected);
    }

    #[test]
    fn replies_of_parts_become_one() {
        check(Merge::Sum, &[(&[0], ":2\r\n"), (&[1], ":3\r\n")], ":5\r\n");
        check(Merge::AllOk, &[(&[0], "+OK\r\n"), (&[1], "+OK\r\n")], "+OK\r\n");
        let (odd, even) = ("*2\r\n$1\r\nb\r\n$-1\r\n", "*1\r\n$1\r\na\r\n");
        check(Merge::ByKey, &[(&[1, 2], odd), (&[0], even)], "*3\r\n$1\r\na\r\n$1\r\nb\r\n$-1\r\n");
        check(Merge::Concatenate, &[(&[], odd), (&[], "*0\r\n"), (&[], even)], "*3\r\n$1\r\nb\r\n$-1\r\n$1\r\na\r\n");
    }

    #[test]
    fn the_first_error_is_the_reply() {
        check(Merge::Sum, &[(&[0], ":2\r\n"), (&[1], "-ERR a\r\n"), (&[2], "-ERR b\r\n")], "-ERR a\r\n");
        check(Merge::Sum, &[(&[0], "+OK\r\n")], &format!("-{INCOMPREHENSIBLE}\r\n"));
        check(Merge::ByKey, &[(&[0], "*2\r\n:1\r\n:1\r\n")], &format!("-{INCOMPREHENSIBLE}\r\n"));
    }
}
