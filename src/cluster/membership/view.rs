//! What a node believes of the other members, and what changed since it last looked.

use super::{Broadcast, Life, MemberIdentity};
use crate::base::identity::NodeId;
use crate::cluster::datagram::Reject;
use foca::{Member, State};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// What gossip believes of a member's health. Never a reason to take slots from it: leases and the topology do that.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum MemberHealth {
    Alive,
    /// It did not answer a probe, and has a few seconds to answer.
    Suspected,
    /// It left, or did not answer in time.
    Down,
}

/// A member as this node sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemberView {
    pub identity: MemberIdentity,
    pub health: MemberHealth,
    /// The newest version of the topology that it was heard to know; 0 before its first datagram.
    pub topology_version: u64,
    /// When its health last changed, in microseconds of the boot-time clock.
    pub since_us: u64,
}

/// All that a node believes of its cluster at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MembersView {
    /// The node itself.
    pub own: MemberIdentity,
    /// Whether it knows a live member.
    pub connected: bool,
    /// The others, those that are down among them, by node id.
    pub members: Vec<MemberView>,
}

impl MembersView {
    /// The others that are not down.
    pub fn live(&self) -> impl Iterator<Item = &MemberView> {
        self.members.iter().filter(|member| member.health != MemberHealth::Down)
    }

    /// One of the others.
    pub fn member(&self, node: NodeId) -> Option<&MemberView> {
        let at = self.members.binary_search_by_key(&node, |member| member.identity.node).ok()?;
        self.members.get(at)
    }
}

/// What happened in the cluster, as this node believes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MembershipEvent {
    /// A member that was unknown or down is alive.
    MemberUp(MemberIdentity),
    /// A member did not answer; it is dead in a few seconds unless it does.
    MemberSuspected(MemberIdentity),
    /// A suspected member has answered.
    MemberTrusted(MemberIdentity),
    /// A member left, or is believed dead.
    MemberDown(MemberIdentity),
    /// A member that was not known to be down runs in a new process: links to its old life are worthless.
    MemberRestarted { before: Life, member: MemberIdentity },
    /// A member that was down for long, or was removed, is no longer remembered.
    MemberForgotten(NodeId),
    /// This node has found a live member.
    Connected,
    /// No live member is known any more.
    Alone,
    /// The cluster had declared this node dead; it has taken a new identity and goes on.
    Rejoined(Life),
    /// The cluster has declared this node dead, and it can take no other identity.
    Defunct,
    /// A member has a newer version of the topology than any seen before.
    TopologyVersionSeen { member: NodeId, version: u64 },
    /// A message that a member sent to all.
    BroadcastReceived(Broadcast),
    /// Datagrams were dropped. Raised at most once per kind of reason and ten seconds.
    Rejected {
        reason: Reject,
        /// Where the last one came from.
        from: SocketAddr,
        /// How many of this kind since the event was last raised.
        count: u64,
    },
}

/// The members seen at the last look.
#[derive(Default)]
pub(super) struct KnownMembers {
    members: BTreeMap<NodeId, MemberView>,
}

impl KnownMembers {
    pub(super) fn get(&self, node: NodeId) -> Option<&MemberView> {
        self.members.get(&node)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &MemberView> {
        self.members.values()
    }

    pub(super) fn live(&self) -> impl Iterator<Item = &MemberView> {
        self.iter().filter(|member| member.health != MemberHealth::Down)
    }

    /// Notes the version of the topology that a member knows. Whether that changed.
    pub(super) fn heard_version(&mut self, node: NodeId, version: u64) -> bool {
        let Some(member) = self.members.get_mut(&node).filter(|member| member.topology_version < version) else {
            return false;
        };
        member.topology_version = version;
        true
    }

    /// Compares with what foca believes now, and raises an event for each difference. Whether there was any.
    pub(super) fn refresh<'a>(
        &mut self,
        own: NodeId,
        state: impl Iterator<Item = &'a Member<MemberIdentity>>,
        now_us: u64,
        events: &mut Vec<MembershipEvent>,
    ) -> bool {
        let mut changed = false;
        // foca remembers this node's own earlier identities as members that are down.
        for member in state.filter(|member| member.id().node != own) {
            let identity = *member.id();
            let health = health_of(member.state());
            match self.members.get_mut(&identity.node) {
                None => {
                    let view = MemberView { identity, health, topology_version: 0, since_us: now_us };
                    self.members.insert(identity.node, view);
                    changed = true;
                    if health != MemberHealth::Down {
                        events.push(MembershipEvent::MemberUp(identity));
                    }
                    if health == MemberHealth::Suspected {
                        events.push(MembershipEvent::MemberSuspected(identity));
                    }
                }
                Some(known) if known.identity != identity || known.health != health => {
                    changed = true;
                    let before = *known;
                    known.identity = identity;
                    known.health = health;
                    if before.health != health {
                        known.since_us = now_us;
                    }
                    raise_changes(&before, known, events);
                }
                Some(_) => {}
            }
        }
        changed
    }

    pub(super) fn forget(&mut self, node: NodeId) {
        self.members.remove(&node);
    }
}

fn health_of(state: State) -> MemberHealth {
    match state {
        State::Alive => MemberHealth::Alive,
        State::Suspect => MemberHealth::Suspected,
        State::Down => MemberHealth::Down,
    }
}

fn raise_changes(before: &MemberView, after: &MemberView, events: &mut Vec<MembershipEvent>) {
    use MemberHealth::{Alive, Down, Suspected};
    let member = after.identity;
    let restarted = before.identity.life.start_ms != member.life.start_ms;
    if restarted && before.health != Down && after.health != Down {
        events.push(MembershipEvent::MemberRestarted { before: before.identity.life, member });
    }
    match (before.health, after.health) {
        (Down, Alive) => events.push(MembershipEvent::MemberUp(member)),
        (Down, Suspected) => {
            events.push(MembershipEvent::MemberUp(member));
            events.push(MembershipEvent::MemberSuspected(member));
        }
        (Alive, Suspected) => events.push(MembershipEvent::MemberSuspected(member)),
        (Suspected, Alive) => events.push(MembershipEvent::MemberTrusted(member)),
        (Alive | Suspected, Down) => events.push(MembershipEvent::MemberDown(member)),
        (Alive, Alive) | (Suspected, Suspected) | (Down, Down) => {}
    }
}
