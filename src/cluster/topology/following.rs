//! The two loops of a node's part in agreement: following the voters, and, on the raft leader, keeping the right voters.

use super::places::Rota;
use super::raft::Shared;
use super::voters::{VoterCandidate, desired_voters};
use super::{Node, Topology};
use crate::base::identity::NodeId;
use crate::transport::{Blob, Peer, Purpose, Refusal, Request, Response, TransportError};
use openraft::{BasicNode, ChangeMembers};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, timeout};

/// Between pings of the raft leader; and of all voters, as long as it answers.
const PING_INTERVAL: Duration = Duration::from_millis(100);
const VOTERS_EVERY: u32 = 10;
/// Who has not heard the raft leader for so long asks all voters.
const LED_WITHIN: Duration = Duration::from_millis(350);
/// Between looks that gossip brings about, for each member: so that all of them together ask the raft leader for a new
/// version 2,000 times a second at most.
const HINT_PAUSE_PER_MEMBER: Duration = Duration::from_micros(500);
const PING_TIMEOUT: Duration = Duration::from_millis(500);
const PULL_TIMEOUT: Duration = Duration::from_secs(5);
/// Nodes besides the voters that are asked at each of these, where the raft leader is not found.
const OTHERS_PER_LOOK: usize = 3;
/// A version that is known to exist is asked for so often, this far apart; then with the usual pings.
const WANTED_TRIES: u32 = 20;
const WANTED_PAUSE: Duration = Duration::from_millis(2);
/// Between looks of the raft leader at who votes.
const VOTERS_INTERVAL: Duration = Duration::from_millis(500);
/// A new voter must have caught up in this time, and is otherwise left alone for a while.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(10);
const AVOID_FOR: Duration = Duration::from_secs(30);

/// Pings the raft leader, every voter now and then, and pulls from one that knows a newer topology. One ping per voter is under way at a time, so
/// that one that hangs delays no other. Where that finds no raft leader, a few others are asked at each look, in turn: the
/// voters may have moved.
pub(super) async fn follow(shared: Arc<Shared>) {
    let under_way: Arc<Mutex<HashSet<Peer>>> = Arc::default();
    let mut rota = Rota::default();
    let mut ticks = tokio::time::interval(PING_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut turn, mut last) = (0u32, Instant::now());
    loop {
        let hint_pause = HINT_PAUSE_PER_MEMBER * shared.published.current().nodes.len() as u32;
        let hinted = async {
            shared.hint.notified().await;
            tokio::time::sleep_until(last + hint_pause).await;
        };
        let is_turn = tokio::select! {
            _ = ticks.tick() => true,
            () = shared.nudge.notified() => false,
            () = hinted => false,
            () = shared.until_stopped() => return,
        };
        last = Instant::now();
        turn = turn.wrapping_add(u32::from(is_turn));
        shared.refresh_right_to_elect();
        let others = rota.next(shared.others(), OTHERS_PER_LOOK);
        let mut peers = shared.peers();
        // The first of them is the raft leader.
        if shared.is_led_within(LED_WITHIN) && !(is_turn && turn.is_multiple_of(VOTERS_EVERY)) {
            peers.truncate(1);
        }
        for peer in peers.into_iter().chain(others) {
            if !under_way.lock().insert(peer) {
                continue;
            }
            let (shared, under_way) = (Arc::clone(&shared), Arc::clone(&under_way));
            tokio::spawn(async move {
                ping(&shared, peer).await;
                // An answer from before the version that is wanted; or one from a peer that does not have it yet.
                for _ in 0..WANTED_TRIES {
                    if shared.published.current().version >= shared.wanted.load(Ordering::Relaxed) {
                        break;
                    }
                    tokio::time::sleep(WANTED_PAUSE).await;
                    ping(&shared, peer).await;
                }
                under_way.lock().remove(&peer);
            });
        }
    }
}

async fn ping(shared: &Shared, peer: Peer) {
    let ping = Request::Ping(shared.heartbeat());
    let heartbeat = match shared.transport.request(peer, Purpose::Control, ping, PING_TIMEOUT).await {
        Ok(Response::Pong(heartbeat)) => heartbeat,
        Err(TransportError::Refused(Refusal::OtherGeneration)) => return shared.on_other_generation(peer).await,
        _ => return,
    };
    shared.on_answered(&heartbeat);
    shared.on_heard(heartbeat.group);
    // Rounds, because an answer holds a limited number of changes; each must bring something.
    loop {
        let since = shared.published.current().version;
        if since >= heartbeat.topology_version {
            return;
        }
        let pull = Request::PullTopology { since };
        match shared.transport.request(peer, Purpose::Control, pull, PULL_TIMEOUT).await {
            Ok(Response::Topology(Blob(bytes))) => shared.on_update(&bytes),
            _ => return,
        }
        if shared.published.current().version <= since {
            return;
        }
    }
}

/// While this node leads the raft group: makes it the group it should be, one step at a time.
pub(super) async fn lead(shared: Arc<Shared>) {
    let mut avoided: BTreeMap<NodeId, Instant> = BTreeMap::new();
    let mut ticks = tokio::time::interval(VOTERS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shared.until_stopped() => return,
        }
        avoided.retain(|_, until| *until > Instant::now());
        if shared.is_leader() {
            tokio::select! {
                () = step(&shared, &mut avoided) => {}
                () = shared.until_stopped() => return,
            }
        }
    }
}

async fn step(shared: &Shared, avoided: &mut BTreeMap<NodeId, Instant>) {
    let topology = shared.published.current();
    let membership = shared.raft().metrics().borrow().membership_config.membership().clone();
    let voters: BTreeSet<NodeId> = membership.voter_ids().map(NodeId).collect();
    let learners: BTreeSet<NodeId> = membership.learner_ids().map(NodeId).collect();
    let members = candidates(&topology, |node| shared.can_write(node), |node| avoided.contains_key(&node));
    let desired = desired_voters(&members, &voters, shared.own.node);
    if desired != voters || membership.get_joint_config().len() > 1 {
        for id in desired.difference(&voters).filter(|id| !learners.contains(id)) {
            let Some(address) = shared.published.address(*id) else { return };
            let raft = shared.raft();
            let added = raft.add_learner(id.0, BasicNode::new(address), true);
            match timeout(CATCH_UP_TIMEOUT, added).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return tracing::info!(node = ?id, %error, "a node could not become a learner"),
                Err(_) => {
                    tracing::info!(node = ?id, "a node did not catch up: it does not become a voter now");
                    avoided.insert(*id, Instant::now() + AVOID_FOR);
                    return;
                }
            }
        }
        let ids: BTreeSet<u128> = desired.iter().map(|id| id.0).collect();
        change(shared, ChangeMembers::ReplaceAllVoters(ids)).await;
    } else if !learners.is_empty() {
        // Left over from an attempt that failed.
        change(shared, ChangeMembers::RemoveNodes(learners.iter().map(|id| id.0).collect())).await;
    }
}

/// The members, as far as voting goes.
fn candidates(
    topology: &Topology,
    can_write: impl Fn(NodeId) -> bool,
    is_avoided: impl Fn(NodeId) -> bool,
) -> Vec<VoterCandidate> {
    let is_handing_over = topology.slots().moving().any(|(_, record)| record.phase.target().is_some());
    let candidate = |node: &Node| VoterCandidate {
        id: node.id,
        zone: node.zone.clone(),
        arbiter: node.arbiter,
        state: node.state,
        // Last of all: while another raft leader is chosen no slot can move, and requests would wait for theirs.
        leaving: node.leaving && !is_handing_over && topology.held_by(node.id).is_empty(),
        can_write: can_write(node.id),
        avoided: is_avoided(node.id),
    };
    topology.nodes.values().map(candidate).collect()
}

async fn change(shared: &Shared, members: ChangeMembers<u128, BasicNode>) {
    tracing::info!(?members, "the raft group changes");
    match timeout(CATCH_UP_TIMEOUT, shared.raft().change_membership(members, false)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::info!(%error, "the raft group did not change"),
        Err(_) => tracing::info!("the raft group did not change in time"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::identity::ClusterId;
    use crate::base::slot_ranges::SlotRanges;
    use crate::cluster::topology::{TopologyChange, sample};

    #[test]
    fn a_member_that_leaves_gives_its_vote_away_after_its_slots() {
        let mut topology = Topology::default();
        let nodes = [NodeId(1), NodeId(2)];
        let mut changes = vec![TopologyChange::InitCluster { cluster: ClusterId(7), hash_key: 1 }];
        changes.extend(nodes.map(|id| TopologyChange::RegisterNode { node: sample::node(id) }));
        changes.push(TopologyChange::Revive { slots: SlotRanges::all(), to: NodeId(1) });
        for (change, index) in changes.iter().zip(1..) {
            topology.apply(index, change);
        }
        for (node, index) in nodes.into_iter().zip(10..) {
            let incarnation = topology.nodes[&node].incarnation;
            topology.apply(index, &TopologyChange::Leaving { node, incarnation });
        }
        let leaving: Vec<bool> = candidates(&topology, |_| true, |_| false).iter().map(|it| it.leaving).collect();
        assert!(topology.nodes.values().all(|node| node.leaving) && !topology.owned_by(NodeId(1)).is_empty());
        assert_eq!(leaving, [false, true]);
    }
}
