//! The constants of the gossip protocol, and which of them grow with the cluster.
//!
//! They are chosen for about 1 KB/s per node: a probe and its answer each second, updates only while there is news, and
//! nothing that repeats with the number of members. The measured figures are in `docs/membership.md`.

use crate::cluster::datagram::PAYLOAD_BYTES_MAX;
use foca::{Config, PeriodicParams};
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

/// The longest payload of a broadcast, in bytes. foca keeps what does not fit a packet for ever without sending it; this
/// much fits beside the largest header.
pub const BROADCAST_BYTES_MAX: usize = 900;
/// How many broadcasts wait to be passed on at most. Later ones are refused, or heard and not passed on.
pub const BROADCAST_BACKLOG_MAX: usize = 64;

/// A random member is probed this often.
pub(super) const PROBE_PERIOD: Duration = Duration::from_secs(1);
/// Others are asked to probe it after this long without an answer.
const PROBE_ROUND_TRIP: Duration = Duration::from_millis(400);
/// A suspected member is dead after this long, times log10 of the members from 10 up.
const SUSPICION_SECS: f64 = 3.0;
/// How often a member is asked for all the members it knows.
const ANNOUNCE: Duration = Duration::from_secs(30);
/// News is passed on this often, while there is any.
const GOSSIP: Duration = Duration::from_millis(200);

/// Members, and those it asks to help or tells the news, at a time.
const FAN_OUT: usize = 3;

/// The settings for a cluster of this many members, the node itself included.
pub(super) fn config(members: usize) -> Config {
    Config {
        probe_period: PROBE_PERIOD,
        probe_rtt: PROBE_ROUND_TRIP,
        num_indirect_probes: count(FAN_OUT),
        max_transmissions: transmissions(members),
        suspect_to_down_after: Duration::from_secs_f64(SUSPICION_SECS * (members.max(10) as f64).log10()),
        // Membership forgets by itself: foca arms a timer of two days for each time that a member goes down.
        remove_down_after: None,
        max_packet_size: count(PAYLOAD_BYTES_MAX),
        notify_down_members: true,
        periodic_announce: Some(PeriodicParams { frequency: ANNOUNCE, num_members: count(1) }),
        // Membership does this too, more often and to more.
        periodic_announce_to_down_members: None,
        periodic_gossip: Some(PeriodicParams { frequency: GOSSIP, num_members: count(FAN_OUT) }),
    }
}

/// How often each piece of news is sent by each member that hears it: logarithmic, as epidemics spread, with two more
/// so that a small cluster survives lost datagrams.
fn transmissions(members: usize) -> NonZeroU8 {
    let times = 2 + (4.0 * (members as f64 + 1.0).log10()).ceil() as u8;
    NonZeroU8::new(times).unwrap_or(NonZeroU8::MIN)
}

fn count(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suspicion_and_transmissions_grow_slowly() {
        let check = |members, seconds, transmissions| {
            let config = config(members);
            assert_eq!(config.suspect_to_down_after.as_secs(), seconds, "{members} members");
            assert_eq!(config.max_transmissions.get(), transmissions, "{members} members");
        };
        check(1, 3, 4);
        check(3, 3, 5);
        check(10, 3, 7);
        check(100, 6, 11);
        check(1000, 9, 15);
    }

    #[test]
    fn sizes_may_change_at_run_time() {
        // foca refuses to change what these two have in common; equal values mean that it never needs to.
        let (small, large) = (config(1), config(1000));
        assert_eq!((small.probe_period, small.probe_rtt), (large.probe_period, large.probe_rtt));
        assert_eq!(small.max_packet_size, large.max_packet_size);
    }
}
