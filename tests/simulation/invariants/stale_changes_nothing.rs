//! Invariant 8: a stale life, or another cluster, changes nothing anywhere.
//!
//! Datagrams straggle in this network for longer than a restart takes, so earlier lives speak often; and a node of
//! another cluster announces itself to everyone all the time.

use super::{Invariant, Observation};
use crate::agreement::incarnation_in;
use crate::node::{CLUSTER, node_id};
use crate::world::NODES;
use starling::base::identity::{ClusterId, NodeId};
use starling::base::slot::Slot;
use starling::cluster::membership::{Life, MembersView, MembershipEvent};
use starling::cluster::topology::{Applied, Topology, TopologyChange};
use std::collections::BTreeMap;

#[derive(Default)]
pub(crate) struct StaleChangesNothing {
    /// The latest life in which each node (first) has seen each member (second), with the life of the observer.
    seen: BTreeMap<(usize, NodeId), (Life, Life)>,
}

impl Invariant for StaleChangesNothing {
    fn name(&self) -> &'static str {
        "8, a stale life or another cluster changes nothing"
    }

    fn observe(&mut self, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Heard { node, datagram, before, after } => {
                let stranger = *node == NODES;
                if (cluster_of(datagram) == Some(CLUSTER)) == stranger && before != after {
                    return Err(format!("node {node} changed its view by a datagram of another cluster"));
                }
                if is_stale(datagram, before) && before != after {
                    return Err(format!("node {node} changed its view by a datagram of an earlier life"));
                }
                self.lives_only_rise(*node, after)
            }
            Observation::DiskLost { node } => {
                self.seen.retain(|(observer, _), _| observer != node);
                Ok(())
            }
            Observation::Event { node, event: MembershipEvent::MemberUp(member) } => {
                let stranger = node_id(NODES, 0);
                let mixed = (member.node == stranger) != (*node == NODES);
                if mixed { Err(format!("node {node} took {:?} of another cluster in", member.node)) } else { Ok(()) }
            }
            Observation::Agreed { change, applied, before, after, changed, .. } => {
                stale_change(change, applied, (before, after), changed)
            }
            _ => Ok(()),
        }
    }
}

/// A change that speaks of an earlier incarnation is refused, and one that is refused leaves everything as it was.
fn stale_change(
    change: &TopologyChange,
    applied: &Applied,
    (before, after): (&Topology, &Topology),
    changed: &[Slot],
) -> Result<(), String> {
    let stale = incarnation_in(change)
        .is_some_and(|(node, incarnation)| before.nodes.get(&node).is_none_or(|node| node.incarnation != incarnation));
    let refused = matches!(applied, Applied::Refused(_));
    if stale && !refused {
        return Err(format!("a stale incarnation was listened to: {change:?}"));
    }
    let unchanged = changed.is_empty() && before.nodes == after.nodes && before.config == after.config;
    if refused && !unchanged { Err(format!("refused, and yet made: {change:?}")) } else { Ok(()) }
}

impl StaleChangesNothing {
    /// While a node's process lives, it never goes back to an earlier life of a member.
    fn lives_only_rise(&mut self, node: usize, after: &MembersView) -> Result<(), String> {
        for member in &after.members {
            let key = (node, member.identity.node);
            let observer = after.own.life;
            if let Some((life, before_observer)) = self.seen.get(&key)
                && before_observer.start_ms == observer.start_ms
                && *life > member.identity.life
            {
                let now = member.identity.life;
                return Err(format!("node {node} saw {:?} in {life:?} and now in {now:?}", member.identity.node));
            }
            self.seen.insert(key, (member.identity.life, observer));
        }
        Ok(())
    }
}

// The layout of `cluster::datagram`, read here on its own: a mistake there would otherwise hide itself.
fn cluster_of(datagram: &[u8]) -> Option<ClusterId> {
    datagram.get(4..20)?.try_into().ok().map(|bytes| ClusterId(u128::from_be_bytes(bytes)))
}

fn is_stale(datagram: &[u8], view: &MembersView) -> bool {
    let sender = datagram.get(24..40).and_then(|bytes| bytes.try_into().ok()).map(u128::from_be_bytes);
    let start_ms = datagram.get(40..48).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
    let (Some(sender), Some(start_ms)) = (sender, start_ms) else { return false };
    view.member(NodeId(sender)).is_some_and(|member| start_ms < member.identity.life.start_ms)
}
