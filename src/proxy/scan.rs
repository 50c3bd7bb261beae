//! SCAN over the cluster: a walk through the slots in their order, each with its owner.
//!
//! A cursor is a slot and a position in it, equal on all nodes. Each owner is asked for its run of slots only
//! (`UNTIL-SLOT`); it stops before a slot that it does not serve, so a slot that changes hands during the walk is gone
//! on with at its new owner, and none is passed over.

use super::forward::{Forward, Goal, Job};
use super::lane::Ticket;
use super::reply;
use super::{Place, Proxy};
use crate::base::slot::{SLOT_COUNT, Slot};
use crate::resp::arguments::OwnedArguments;
use crate::resp::reply::{Protocol, ReplyWriter};
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;

/// The word that bounds a SCAN: the number of the last slot stands behind it.
pub const UNTIL_SLOT: &[u8] = b"UNTIL-SLOT";
/// Runs of slots that one call passes at most: each costs a round trip.
const RUNS_MAX: usize = 64;
/// How long a slot may be without an owner before the call fails: as long as other requests may wait for a hand-off.
const SETTLED_AFTER: Duration = Duration::from_secs(1);
/// How long to wait for a newer view before the next try.
const PAUSE: Duration = Duration::from_millis(20);
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
    let mut count = 0;
    let mut unsettled_since = None;
    let mut runs = 0;
    while runs < RUNS_MAX {
        let Some(slot) = Slot::new(cursor >> 32) else { break };
        let last = proxy.home.run_end(slot);
        let reply = match ask(&proxy, &ticket, &scan, cursor, slot, last).await {
            Ok(reply) => reply,
            Err(error) if unsettled_since.get_or_insert_with(Instant::now).elapsed() > SETTLED_AFTER => return error,
            Err(_) => {
                proxy.home.until_newer(proxy.home.version(), PAUSE).await;
                continue;
            }
        };
        (unsettled_since, runs) = (None, runs + 1);
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

/// One step of the walk. An error may pass: nobody serves the slot, or its owner is not the one that we know.
async fn ask(
    proxy: &Rc<Proxy>,
    ticket: &Ticket,
    scan: &Scan,
    cursor: u64,
    slot: Slot,
    last: Slot,
) -> Result<Vec<u8>, Vec<u8>> {
    let mut digits = itoa::Buffer::new();
    let mut request = OwnedArguments::default();
    for (place, argument) in scan.request.borrow().from(0).enumerate() {
        request.push(if place == 1 { digits.format(cursor).as_bytes() } else { argument });
    }
    request.push(UNTIL_SLOT);
    request.push(digits.format(last.index()).as_bytes());
    let reply = match proxy.home.place(slot, false) {
        Place::Here => {
            let done = proxy.home.execute(request.borrow(), scan.protocol);
            done.ok_or_else(|| super::error(UNSETTLED))?
        }
        Place::Soon => return Err(super::error(UNSETTLED)),
        Place::Nowhere(text) => return Err(super::error(text)),
        Place::At(peer) => {
            let link = proxy.links.get(&*proxy.home, peer, scan.protocol);
            link.until_room().await;
            let job = Job {
                goal: Goal::Owner(slot),
                requests: vec![request],
                protocol: scan.protocol,
                writes: false,
                blocks: false,
            };
            Forward::start(proxy, ticket.another(), peer, job).finish().await
        }
    };
    let is_passing = |text: &[u8]| text.starts_with(b"TRYAGAIN") || text.starts_with(b"CLUSTERDOWN");
    if reply::error_text(&reply).is_some_and(is_passing) { Err(reply) } else { Ok(reply) }
}

/// Cursor and elements of a reply to SCAN.
fn parse(reply: &[u8]) -> Option<(u64, Vec<&[u8]>)> {
    let parts = reply::elements(reply)?;
    let [cursor, elements] = parts.as_slice() else { return None };
    let cursor = std::str::from_utf8(reply::bulk(cursor)?).ok()?.parse().ok()?;
    Some((cursor, reply::elements(elements)?))
}
