//! What a node hears of the others over links, and whom it asks by that.

use super::places::MOVED_MAX;
use super::raft::Shared;
use super::raft_disk::{Record, Write};
use crate::base::identity::NodeId;
use crate::cluster::hints::{HeardByLink, LinksHeard};
use crate::transport::messages::{GroupView, Heartbeat, LeaseReport, Voter, Whereabouts};
use crate::transport::{Peer, Purpose};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// Voters in a view that is believed: five, and as many again while the group changes, with room.
const VOTERS_MAX: usize = 16;
/// After so long without a word of the raft leader others are asked for it: longer than a quick election.
pub(super) const LOST_AFTER: Duration = Duration::from_secs(1);
/// Nodes whose last word is remembered; when there are more, those that are silent for so long are not.
const HEARD_OF_MAX: usize = 1024;
const HEARD_OF_KEPT: Duration = Duration::from_secs(60);

/// What a node said of itself.
#[derive(Clone)]
pub(super) struct Said {
    at: Instant,
    start_ms: u64,
    pub(super) cannot_write: bool,
    lease: LeaseReport,
}

impl Shared {
    pub(super) fn on_place(&self, heard: Whereabouts) {
        let before = self.published.address(heard.node);
        if heard.node != self.own.node && self.published.learn_place(heard) && before != Some(heard.address) {
            tracing::info!(node = %heard.node, address = %heard.address, ?before, "a node was found at this address");
            self.nudge.notify_one();
        }
    }

    /// A node has sent a ping, over a link on which it showed that it is that node.
    pub(super) fn on_called(&self, caller: NodeId, heartbeat: &Heartbeat) {
        let Some(from) = heartbeat.from.filter(|from| from.node == caller) else { return };
        self.on_said(from, heartbeat);
    }

    /// A ping was answered.
    pub(super) fn on_answered(&self, heartbeat: &Heartbeat) {
        let Some(from) = heartbeat.from else { return };
        self.on_said(from, heartbeat);
        if heartbeat.group.leader == Some(from.node) {
            *self.led_at.lock() = Some(Instant::now());
        }
    }

    fn on_said(&self, from: Whereabouts, heartbeat: &Heartbeat) {
        heartbeat.moved.iter().copied().take(MOVED_MAX).chain([from]).for_each(|one| self.on_place(one));
        let mut heard_of = self.heard_of.lock();
        if heard_of.len() >= HEARD_OF_MAX && !heard_of.contains_key(&from.node) {
            heard_of.retain(|_, said| said.at.elapsed() < HEARD_OF_KEPT);
        }
        let said = Said {
            at: Instant::now(),
            start_ms: from.start_ms,
            cannot_write: heartbeat.cannot_write,
            lease: heartbeat.lease.clone(),
        };
        // A word of an earlier life may come late.
        if heard_of.get(&from.node).is_none_or(|known| known.start_ms <= said.start_ms) {
            heard_of.insert(from.node, said);
        }
    }

    /// Nodes that are connected, and when they last spoke.
    pub(super) fn links_heard(&self) -> LinksHeard {
        let links = self.transport.links();
        let linked = links.iter().filter(|link| link.connected_at_ms != 0 && link.purpose == Purpose::Control);
        let linked: BTreeSet<NodeId> = linked.filter_map(|link| link.node).collect();
        let heard_of = self.heard_of.lock();
        let heard = |node: NodeId| {
            let said = heard_of.get(&node)?;
            Some((node, HeardByLink { age: said.at.elapsed(), start_ms: said.start_ms }))
        };
        linked.into_iter().filter_map(heard).collect()
    }

    /// Whether the raft leader has answered in this time.
    pub(super) fn is_led_within(&self, time: Duration) -> bool {
        self.led_at.lock().is_some_and(|at| at.elapsed() < time)
    }

    pub(super) fn is_lost(&self) -> bool {
        !self.is_led_within(LOST_AFTER) && !self.leads()
    }

    /// Whom to ask besides the voters. Where no raft leader is found: seeds, and wherever a member is known to be. The raft
    /// leader itself: members that it does not hear, for they may not know where it is.
    pub(super) fn others(&self) -> Vec<Peer> {
        let is_lost = self.is_lost();
        if !is_lost && !self.is_leader() {
            return Vec::new();
        }
        let heard_of = self.heard_of.lock().clone();
        let is_silent = |node: NodeId| heard_of.get(&node).is_none_or(|said| said.at.elapsed() > LOST_AFTER);
        let topology = self.published.current();
        let members = topology.nodes.keys().copied().filter(|node| is_lost || is_silent(*node));
        let known = members.filter(|node| *node != self.own.node).filter_map(|node| {
            let address = self.published.address(node)?;
            Some(Peer { node: Some(node), address })
        });
        let mut others: Vec<Peer> = known.collect();
        if is_lost {
            others.extend(self.seeds.lock().iter());
            others.extend(self.published.moved().iter().map(|one| Peer { node: Some(one.node), address: one.address }));
        }
        others
    }

    /// Another node has told what it knows of the group.
    pub(super) fn on_heard(&self, group: GroupView) {
        let mut heard = self.heard.lock();
        if group.voters.len() > VOTERS_MAX || !group.is_newer_than(&heard) {
            return;
        }
        let other_voters = group.voters != heard.voters;
        *heard = group;
        if other_voters {
            let bytes = postcard::to_stdvec(&*heard).expect("plain values are encoded");
            // A stale list after a crash only costs a few more questions.
            self.disk.write(Write::Put(Record::Group, bytes), |_| {});
        }
    }

    /// Who has lost its vote while it was away does not know, and must not disturb the group with elections.
    pub(super) fn refresh_right_to_elect(&self) {
        let own_index = self.own_view().voters_index;
        let heard = self.heard.lock();
        let lost = heard.voters_index > own_index && heard.voters.iter().all(|voter| voter.node != self.own.node);
        self.raft().runtime_config().elect(!lost && self.votes_now());
    }

    /// Whether it may vote: it has asked, and was not given up.
    pub(super) fn votes_now(&self) -> bool {
        self.may_vote.load(Ordering::Acquire) && self.given_up.borrow().is_none()
    }

    /// Whom to ask: the raft leader first, then every voter, or the seeds while no voter is known.
    pub(super) fn peers(&self) -> Vec<Peer> {
        let group = self.group();
        let mut voters: Vec<&Voter> = group.voters.iter().filter(|voter| voter.node != self.own.node).collect();
        voters.sort_by_key(|voter| Some(voter.node) != group.leader);
        let peer = |voter: &Voter| Peer {
            node: Some(voter.node),
            address: self.published.address(voter.node).unwrap_or(voter.address),
        };
        let known: Vec<Peer> = voters.into_iter().map(peer).collect();
        if known.is_empty() { self.seeds.lock().clone() } else { known }
    }

    /// What nodes have said that they promised as lease voters, this one among them.
    pub(super) fn lease_reports(&self) -> BTreeMap<NodeId, LeaseReport> {
        let heard_of = self.heard_of.lock();
        let others = heard_of.iter().map(|(node, said)| (*node, said.lease.clone()));
        others.chain([(self.own.node, self.report.lock().clone())]).collect()
    }
}
