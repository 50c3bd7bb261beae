//! How long slots wait for their copies when a node is killed: from the kill until somebody serves every slot again.

use crate::base::slot::SLOT_COUNT;
use crate::cli::observer::ClusterReport;
use parking_lot::Mutex;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between looks, which is how exact the time is.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// Slots without a copy wait until their node starts again.
const LIMIT: Duration = Duration::from_secs(60);

/// The latest kill.
#[derive(Clone, Default)]
pub(super) struct Failover(Arc<Mutex<Option<Watched>>>);

#[derive(Clone, Copy)]
struct Watched {
    killed: SocketAddr,
    at: Instant,
    end: End,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    NotYet,
    Served(Duration),
    GivenUp,
}

impl Failover {
    /// Watches these nodes, which live, from the moment of the kill on; an earlier kill is watched no more.
    pub(super) fn watch(&self, killed: SocketAddr, at: Instant, living: Vec<SocketAddr>) {
        *self.0.lock() = Some(Watched { killed, at, end: End::NotYet });
        let shared = self.clone();
        std::thread::spawn(move || {
            let end = until_served(killed, at, &living, || shared.is_watched(at));
            if let Some(watched) = shared.0.lock().as_mut().filter(|watched| watched.at == at) {
                watched.end = end;
            }
        });
    }

    fn is_watched(&self, at: Instant) -> bool {
        self.0.lock().is_some_and(|watched| watched.at == at)
    }

    /// Whether slots wait.
    pub(super) fn is_under_way(&self) -> bool {
        self.0.lock().is_some_and(|watched| watched.end == End::NotYet)
    }
}

impl fmt::Display for Failover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Watched { killed, at, end }) = *self.0.lock() else { return f.write_str("no failover yet") };
        match end {
            End::NotYet => write!(f, "{killed} was killed {:.1} s ago, its slots wait", at.elapsed().as_secs_f64()),
            End::Served(took) => {
                write!(f, "last failover: all slots were served {:.2} s after {killed} was killed", took.as_secs_f64())
            }
            End::GivenUp => write!(f, "not all slots were served a minute after {killed} was killed"),
        }
    }
}

fn until_served(killed: SocketAddr, at: Instant, living: &[SocketAddr], is_watched: impl Fn() -> bool) -> End {
    let mut was_gone = false;
    while is_watched() && at.elapsed() < LIMIT {
        if let Some(report) = living.iter().find_map(|node| ClusterReport::seen_by(*node).ok()) {
            was_gone |= is_gone(&report, killed);
            if was_gone && report.served() == SLOT_COUNT {
                return End::Served(at.elapsed());
            }
        }
        std::thread::sleep(LOOK_PAUSE);
    }
    End::GivenUp
}

/// Whether the others know that a node serves nothing. Just after the kill they believe that it does.
fn is_gone(report: &ClusterReport, killed: SocketAddr) -> bool {
    let serves = |node: &crate::cli::observer::NodeReport| !node.is_failed() && !node.slots.is_empty();
    !report.nodes.iter().any(|node| node.address == killed && serves(node))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::slot::Slot;
    use crate::base::slot_ranges::SlotRanges;
    use crate::cli::observer::NodeReport;

    #[test]
    fn a_killed_node_is_gone_when_others_know_it() {
        let node = |port: u16, flags: &str, slots| {
            let address = ([127, 0, 0, 1], port).into();
            NodeReport { id: port.to_string(), address, flags: flags.to_owned(), slots, own: None }
        };
        let half = || -> SlotRanges { Slot::all().take(SLOT_COUNT / 2).collect() };
        let killed = ([127, 0, 0, 1], 1).into();
        for (flags, slots, expected) in [
            ("master", half(), false),
            ("master,fail?", half(), false),
            ("master,fail", half(), true),
            ("master", SlotRanges::new(), true),
        ] {
            let report = ClusterReport { nodes: vec![node(1, flags, slots), node(2, "master", half())] };
            assert_eq!(is_gone(&report, killed), expected, "{flags}");
        }
    }

    #[test]
    fn a_failover_says_what_it_waits_for_and_how_long_it_took() {
        let failover = Failover::default();
        assert_eq!((failover.to_string().as_str(), failover.is_under_way()), ("no failover yet", false));
        let killed: SocketAddr = ([127, 0, 0, 1], 7000).into();
        let set = |end| *failover.0.lock() = Some(Watched { killed, at: Instant::now(), end });
        set(End::NotYet);
        assert!(failover.is_under_way());
        assert_eq!(failover.to_string(), "127.0.0.1:7000 was killed 0.0 s ago, its slots wait");
        set(End::Served(Duration::from_millis(934)));
        assert!(!failover.is_under_way());
        assert!(failover.to_string().ends_with("all slots were served 0.93 s after 127.0.0.1:7000 was killed"));
    }
}
