//! One request (or a block of them that belongs together) to the owner of one slot, until it is executed or cannot be.
//!
//! What answers MOVED or TRYAGAIN was not executed and is sent again, by the newest view. After a broken link a request
//! that was not sent is sent again, and a read too; for a write that was sent the client has to be told that nobody
//! knows. The first attempt is made at once, so that requests leave in the order in which they came.

use super::lane::Ticket;
use super::link::{Answer, LinkError};
use super::reply::{self, Elsewhere};
use super::{HOPS_MAX, Peer, Place, Proxy};
use crate::base::slot::Slot;
use crate::resp::arguments::OwnedArguments;
use crate::resp::reply::Protocol;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;

/// What a client is told of a write on a broken link.
pub const UNKNOWN_OUTCOME: &str =
    "ERR the link to the node that owns the key broke: the command may have been executed";
/// What it is told where nobody has executed a request.
const UNREACHABLE: &str = "CLUSTERDOWN The node that owns the key cannot be reached; the command was not executed";
const UNSETTLED: &str = "TRYAGAIN The slot is changing hands; the command was not executed";
const ASTRAY: &str = "CLUSTERDOWN The nodes do not agree on who owns the slot; the command was not executed";
/// How long a request may look for a node that can be reached. Those behind it have looked meanwhile, by the same view.
const REACH: Duration = Duration::from_millis(400);
/// How long a hand-off that this node takes part in may last.
const SETTLED_AFTER: Duration = Duration::from_secs(1);
/// The pause before the second attempt; it doubles.
const PAUSE: Duration = Duration::from_millis(25);

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// To whoever owns the slot.
    Owner(Slot),
    /// To this node, whatever it owns.
    Node(Peer),
}

/// A request as it is sent, and what may be done with it.
#[derive(Clone, Debug)]
pub struct Job {
    pub goal: Goal,
    /// One request, or a transaction.
    pub requests: Vec<OwnedArguments>,
    pub protocol: Protocol,
    pub writes: bool,
    /// It may take as long as it likes: nobody else's requests may stand behind it.
    pub blocks: bool,
}

/// A job under way.
pub struct Forward {
    proxy: Rc<Proxy>,
    job: Job,
    ticket: Ticket,
    sent: Sent,
    started: Instant,
}

/// An attempt.
struct Sent {
    answer: Answer,
    peer: Peer,
    version: u64,
}

impl Forward {
    /// Sends a job to a peer, for now.
    pub fn start(proxy: &Rc<Proxy>, ticket: Ticket, peer: Peer, job: Job) -> Forward {
        let sent = send(proxy, &job, &ticket, peer, proxy.home.version());
        Forward { proxy: Rc::clone(proxy), job, ticket, sent, started: Instant::now() }
    }

    /// The reply, in the end.
    pub async fn finish(mut self) -> Vec<u8> {
        for hop in 1.. {
            let outcome = (&mut self.sent.answer).await;
            let moved_to = match &outcome {
                Ok(bytes) => match first_refusal(bytes, self.job.requests.len()) {
                    None => return outcome.unwrap_or_default(),
                    Some(Elsewhere::Moved(endpoint)) => self.proxy.home.peer_named(endpoint),
                    // What was sent behind it may have been executed already.
                    Some(Elsewhere::TryAgain) if !self.ticket.is_last() => return outcome.unwrap_or_default(),
                    Some(Elsewhere::TryAgain) => None,
                },
                Err(LinkError::NotSent) if self.is_hopeless() => return super::error(UNREACHABLE),
                Err(LinkError::NotSent) => None,
                Err(LinkError::Lost) if !self.job.writes && self.ticket.is_last() => None,
                Err(LinkError::Lost) => return super::error(UNKNOWN_OUTCOME),
            };
            if hop >= HOPS_MAX {
                return match outcome {
                    Ok(bytes) if first_refusal(&bytes, self.job.requests.len()) == Some(Elsewhere::TryAgain) => {
                        super::error(UNSETTLED)
                    }
                    Ok(_) => super::error(ASTRAY),
                    Err(_) => super::error(UNREACHABLE),
                };
            }
            // Later ones of this client must not overtake it on its new way.
            self.ticket.lane().disturb();
            let pause = PAUSE * 2u32.pow(hop - 1);
            // Who has just handed over a slot knows where it is; nodes that send a request in a circle need time.
            if hop > 1 || moved_to.is_none() {
                self.until_not(Place::At(self.sent.peer), pause).await;
            }
            self.sent = match self.resend(moved_to).await {
                Ok(sent) => sent,
                Err(reply) => return reply,
            };
        }
        super::error(ASTRAY)
    }

    /// Whether a node that could not be reached will not be in the next moment.
    fn is_hopeless(&self) -> bool {
        let is_given_up =
            self.started.elapsed() > REACH || self.proxy.links.is_given_up(self.sent.peer, self.job.protocol);
        is_given_up && self.proxy.home.version() == self.sent.version
    }

    /// Another attempt, or the reply that makes one superfluous.
    async fn resend(&self, moved_to: Option<Peer>) -> Result<Sent, Vec<u8>> {
        let home = &self.proxy.home;
        let version = home.version();
        let peer = match self.job.goal {
            Goal::Node(peer) => peer,
            Goal::Owner(slot) => {
                let mut place = home.place(slot, self.job.writes);
                if place == Place::Soon {
                    self.until_not(Place::Soon, SETTLED_AFTER).await;
                    place = home.place(slot, self.job.writes);
                }
                match (moved_to, place) {
                    // Who owned it a moment ago knows better than a view that still has it there.
                    (Some(peer), Place::At(former)) if former == self.sent.peer => peer,
                    (_, Place::At(peer)) => peer,
                    (_, Place::Here) => self.bring_home()?,
                    (_, Place::Soon) => return Err(super::error(UNSETTLED)),
                    (_, Place::Nowhere(text)) => return Err(super::error(text)),
                }
            }
        };
        Ok(send(&self.proxy, &self.job, &self.ticket, peer, version))
    }

    /// Waits until the slot is not at this place, at most this long. A newer view may be about other slots.
    async fn until_not(&self, place: Place, at_most: Duration) {
        let home = &self.proxy.home;
        let is_there = || match self.job.goal {
            Goal::Owner(slot) => home.place(slot, self.job.writes) == place,
            Goal::Node(_) => true,
        };
        let until = Instant::now() + at_most;
        while is_there() && Instant::now() < until {
            home.until_newer(home.version(), until.saturating_duration_since(Instant::now())).await;
        }
    }

    /// The slot has come here. What cannot be executed directly goes over a link to this very node.
    fn bring_home(&self) -> Result<Peer, Vec<u8>> {
        let home = &self.proxy.home;
        if let [request] = self.job.requests.as_slice()
            && let Some(reply) = home.execute(request.borrow(), self.job.protocol)
        {
            return Err(reply);
        }
        home.own_address().ok_or_else(|| super::error(UNSETTLED))
    }
}

fn send(proxy: &Proxy, job: &Job, ticket: &Ticket, peer: Peer, version: u64) -> Sent {
    let (links, home) = (&proxy.links, &*proxy.home);
    let answer = if job.blocks {
        links.own(home, peer, job.protocol).submit(&job.requests, ticket.lane())
    } else {
        links.get(home, peer, job.protocol).submit(&job.requests, ticket.lane())
    };
    Sent { answer, peer, version }
}

/// Why the node did not execute the requests: of a transaction, any of them may say so.
fn first_refusal(replies: &[u8], requests: usize) -> Option<Elsewhere<'_>> {
    if requests == 1 {
        return reply::elsewhere(replies);
    }
    reply::split(replies)?.into_iter().find_map(reply::elsewhere)
}
