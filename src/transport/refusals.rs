//! Links that two nodes refuse each other, in the log: a warning per peer and reason once a minute, and a count of all.
//!
//! Who starts a node with another secret looks into the log of either node. Both try again several times a second, so all
//! but the first of a minute are only counted.

use super::handshake::Refusal;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

const QUIET_US: u64 = 60_000_000;
/// Peers and reasons that are remembered. Beyond them all are forgotten, which costs some more lines.
const REMEMBERED_MAX: usize = 1024;

/// When this was last said, and how often it has happened since.
#[derive(Debug)]
struct Said {
    at_us: u64,
    since: u64,
}

/// The refusals of one transport.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    total: AtomicU64,
    said: Mutex<HashMap<(SocketAddr, Refusal), Said>>,
}

impl Refusals {
    /// Counts a refusal. How many like it there were since the last warning, this one included, where one is due.
    pub(super) fn note(&self, peer: SocketAddr, refusal: Refusal, now_us: u64) -> Option<u64> {
        self.total.fetch_add(1, Ordering::Relaxed);
        let mut said = self.said.lock();
        if said.len() >= REMEMBERED_MAX && !said.contains_key(&(peer, refusal)) {
            said.clear();
        }
        let entry = said.entry((peer, refusal)).or_insert(Said { at_us: 0, since: 0 });
        entry.since += 1;
        // `now_us` counts from the machine's start, which may be less than a minute ago.
        if entry.at_us != 0 && now_us < entry.at_us + QUIET_US {
            return None;
        }
        entry.at_us = now_us.max(1);
        Some(std::mem::take(&mut entry.since))
    }

    /// All of them.
    pub(super) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_said_once_a_minute_for_each_peer_and_reason() {
        let refusals = Refusals::default();
        let [one, other] = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        assert_eq!(refusals.note(one, Refusal::BadProof, 5), Some(1));
        assert_eq!(refusals.note(one, Refusal::BadProof, QUIET_US), None);
        assert_eq!(refusals.note(other, Refusal::BadProof, QUIET_US), Some(1));
        assert_eq!(refusals.note(one, Refusal::OtherCluster, QUIET_US), Some(1));
        assert_eq!(refusals.note(one, Refusal::BadProof, QUIET_US + 5), Some(2));
        assert_eq!(refusals.total(), 5);
        for port in 0..2000 {
            let _ = refusals.note(([127, 0, 0, 1], port).into(), Refusal::BadProof, 7);
        }
        assert!(refusals.said.lock().len() <= REMEMBERED_MAX);
    }
}
