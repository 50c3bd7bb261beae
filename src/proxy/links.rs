//! The links of one worker thread: one per other node, protocol version and user, opened when it is first used.
//!
//! A link that breaks is replaced by the next request for that node; where the node does not let links in, the attempts
//! become rarer, and requests fail at once in between.

use super::link::{Link, LinkKey};
use super::{Credentials, Home, Peer};
use crate::resp::reply::Protocol;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;

/// The shortest and the longest time between two attempts to connect.
const BACKOFF_MIN: Duration = Duration::from_millis(25);
const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// Nodes that are gone for this long are forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(300);

#[derive(Default)]
pub struct Links {
    links: RefCell<HashMap<(Peer, bool), Pooled>>,
    /// How often a link was replaced that had not failed.
    replaced: Cell<u64>,
}

struct Pooled {
    link: Rc<Link>,
    credentials: Rc<Credentials>,
    /// Attempts in a row that were in vain.
    failures: u32,
    opened_at: Instant,
}

impl Links {
    /// The link to a node. It may be broken: then it is too early for another one.
    pub fn get(&self, home: &dyn Home, peer: Peer, protocol: Protocol) -> Rc<Link> {
        let credentials = home.credentials();
        let mut links = self.links.borrow_mut();
        let place = (peer, protocol == Protocol::Resp3);
        let open = |failures, credentials: Rc<Credentials>| Pooled {
            link: Rc::new(Link::open(key(&credentials, peer, protocol), Some(home.patience()))),
            credentials,
            failures,
            opened_at: Instant::now(),
        };
        let Some(pooled) = links.get_mut(&place) else {
            links.retain(|_, pooled| !pooled.link.is_closed() || pooled.opened_at.elapsed() < FORGOTTEN_AFTER);
            return Rc::clone(&links.entry(place).or_insert_with(|| open(0, credentials)).link);
        };
        let is_same_user = Rc::ptr_eq(&pooled.credentials, &credentials) || pooled.credentials == credentials;
        if !is_same_user {
            self.replaced.set(self.replaced.get() + 1);
            *pooled = open(0, credentials);
        } else if pooled.link.is_closed() {
            let failures = if pooled.link.was_established() { 0 } else { pooled.failures + 1 };
            if pooled.opened_at.elapsed() >= backoff(failures) {
                *pooled = open(failures, credentials);
            }
        }
        Rc::clone(&pooled.link)
    }

    /// How often a link was replaced that may have had requests under way. Those of a link that has failed are known to
    /// their lanes.
    pub fn replaced(&self) -> u64 {
        self.replaced.get()
    }

    /// Whether a node has not let links in several times in a row.
    pub fn is_given_up(&self, peer: Peer, protocol: Protocol) -> bool {
        const FAILURES: u32 = 3;
        let links = self.links.borrow();
        links.get(&(peer, protocol == Protocol::Resp3)).is_some_and(|pooled| pooled.failures >= FAILURES)
    }

    /// A link that nobody else uses, for a client whose requests leave a state behind (WATCH) or may take forever.
    pub fn own(&self, home: &dyn Home, peer: Peer, protocol: Protocol) -> Link {
        Link::open(key(&home.credentials(), peer, protocol), None)
    }
}

fn key(credentials: &Credentials, peer: Peer, protocol: Protocol) -> LinkKey {
    LinkKey { peer, resp3: protocol == Protocol::Resp3, credentials: credentials.clone() }
}

fn backoff(failures: u32) -> Duration {
    BACKOFF_MAX.min(BACKOFF_MIN * 2u32.saturating_pow(failures.min(16)))
}
