//! SCAN over the cluster: a walk through the slots in their order, each with its owner.
//!
//! A cursor is a slot and a position in it, equal on all nodes. Each owner is asked for its run of slots only
//! (`UNTIL-SLOT`); it stops before a slot that it does not serve, so a slot that changes hands during the walk is gone
//! on with at its new owner, and none is passed over.

use super::forward::{Forward, Goal, Job};
use super::lane::Ticket;
use super::reply;
use super::{HOPS_MAX, Place, Proxy};
use crate::base::slot::{SLOT_COUNT, Slot};
use crate::resp::arguments::OwnedArguments;
use crate::resp::reply::{Protocol, ReplyWriter};
use std::rc::Rc;
use std::time::Duration;

/// The word that bounds a SCAN: the number of the last slot stands behind it.
pub const UNTIL_SLOT: &[u8] = b"UNTIL-SLOT";
/// Runs of slots that one call passes at most: each costs a round trip.
const RUNS_MAX: usize = 64;
/// How long a slot may be without an owner before the call fails.
const PAUSE: Duration = Duration::from_millis(50);
const UNSETTLED: &str = "TRYAGAIN The slot of the cursor is changing hands";
const INCOMPREHENSIBLE: &str = "ERR a node has answered SCAN with something else";

/// A call of SCAN by a client.
pub struct Scan {
    /// As the client sent it.
    pub request: OwnedArguments,
    /// The slot in the upper half and the position in the lower one; below `SLOT_COUNT << 32`.
    pub cursor: u64,
    /// Elements after which the call is over.
    pub count: usize,
    pub protocol: Protocol,
}

/// Walks on from the cursor until enough was seen. It takes several steps: the client's next requests should wait.
pub async fn scan(proxy: Rc<Proxy>, ticket: Ticket, scan: Scan) -> Vec<u8> {
    let mut cursor = scan.cursor;
    let mut found: Vec<u8> = Vec::new();
    let (mut count, mut tries) = (0, 0);
    for _ in 0..RUNS_MAX {
        let Some(slot) = Slot::new(cursor >> 32) else { break };
        let last = proxy.home.run_end(slot);
        let reply = match ask(&proxy, &ticket, &scan, cursor, slot, last).await {
            Ok(reply) => reply,
            Err(wait) if tries < HOPS_MAX && wait.is_none() => {
                tries += 1;
                proxy.home.until_newer(proxy.home.version(), PAUSE).await;
                continue;
            }
            Err(error) => return error.unwrap_or_else(|| super::error(UNSETTLED)),
        };
        tries = 0;
        if reply::error_text(&reply).is_some() {
            return reply;
        }
        let Some((next, elements)) = parse(&reply) else { return super::error(INCOMPREHENSIBLE) };
        count += elements.len();
        elements.iter().for_each(|element| found.extend_from_slice(element));
        // Behind the last slot of the run the next owner goes on; behind the very last one the walk is over.
        cursor = match next {
            0 => (last.index() as u64 + 1) << 32,
            next => next,
        };
        if count >= scan.count || cursor >> 32 >= SLOT_COUNT as u64 {
            break;
        }
    }
    let next = if cursor >> 32 >= SLOT_COUNT as u64 { 0 } else { cursor };
    let mut bytes = Vec::new();
    let mut writer = ReplyWriter::new(&mut bytes, scan.protocol);
    writer.array(2);
    let mut digits = itoa::Buffer::new();
    writer.bulk(digits.format(next).as_bytes());
    writer.array(count);
    writer.raw(&found);
    bytes
}

/// One step of the walk. Without an error's reply: nobody serves the slot yet.
async fn ask(
    proxy: &Rc<Proxy>,
    ticket: &Ticket,
    scan: &Scan,
    cursor: u64,
    slot: Slot,
    last: Slot,
) -> Result<Vec<u8>, Option<Vec<u8>>> {
    let mut digits = itoa::Buffer::new();
    let mut request = OwnedArguments::default();
    for (place, argument) in scan.request.borrow().from(0).enumerate() {
        request.push(if place == 1 { digits.format(cursor).as_bytes() } else { argument });
    }
    request.push(UNTIL_SLOT);
    request.push(digits.format(last.index()).as_bytes());
    let reply = match proxy.home.place(slot, false) {
        Place::Here => proxy.home.execute(request.borrow(), scan.protocol).ok_or(None)?,
        Place::Soon => return Err(None),
        Place::Nowhere(text) => return Err(Some(super::error(text))),
        Place::At(peer) => {
            let link = proxy.links.get(&*proxy.home, peer, scan.protocol);
            link.until_room().await;
            let job = Job {
                goal: Goal::Node(peer),
                requests: vec![request],
                protocol: scan.protocol,
                writes: false,
                blocks: false,
            };
            Forward::start(proxy, ticket.another(), peer, job).finish().await
        }
    };
    // It does not serve the slot of the cursor: our view is behind.
    if reply::error_text(&reply).is_some_and(|text| text.starts_with(b"TRYAGAIN")) { Err(None) } else { Ok(reply) }
}

/// Cursor and elements of a reply to SCAN.
fn parse(reply: &[u8]) -> Option<(u64, Vec<&[u8]>)> {
    let parts = reply::elements(reply)?;
    let [cursor, elements] = parts.as_slice() else { return None };
    let cursor = std::str::from_utf8(reply::bulk(cursor)?).ok()?.parse().ok()?;
    Some((cursor, reply::elements(elements)?))
}
