//! What a node hears of the others by gossip (UDP) and over links (TCP), and where the two disagree. Pure. It decides nothing:
//! who is gone, the lease voters say.

use super::membership::{MemberHealth, MembersView};
use super::topology::{Node, Topology};
use crate::base::identity::NodeId;
use std::collections::BTreeMap;
use std::time::Duration;

/// A member that gossip has not heard of for so long should have been heard of.
const ABSENT_LIMIT: Duration = Duration::from_secs(15);
/// Links that brought nothing for so long are silent: several pings did not come.
const LINK_SILENCE: Duration = Duration::from_secs(2);

/// What was last heard of a node over links that are still connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeardByLink {
    /// How long ago.
    pub age: Duration,
    /// The life that spoke, ms since 1970.
    pub start_ms: u64,
}

/// Everything that is heard over links.
pub type LinksHeard = BTreeMap<NodeId, HeardByLink>;

/// The life in which a member speaks over a link now; not one that is over.
fn speaks(node: &Node, by_link: Option<&HeardByLink>) -> Option<u64> {
    let heard = by_link.filter(|heard| heard.age < LINK_SILENCE && heard.start_ms >= node.start_ms)?;
    Some(heard.start_ms)
}

/// Members that are heard over links and not by gossip, though there was time: their UDP port may be blocked.
pub fn heard_by_links_only(
    topology: &Topology,
    members: &MembersView,
    heard: &LinksHeard,
    unix_ms: u64,
) -> Vec<NodeId> {
    let is_unheard = |node: &Node| match members.member(node.id) {
        Some(member) if member.identity.life.start_ms >= node.start_ms => member.health == MemberHealth::Down,
        _ => {
            let since_ms = node.start_ms.max(members.own.life.start_ms);
            u128::from(unix_ms.saturating_sub(since_ms)) > ABSENT_LIMIT.as_millis()
        }
    };
    let others = topology.nodes.values().filter(|node| node.id != members.own.node);
    others.filter(|node| speaks(node, heard.get(&node.id)).is_some() && is_unheard(node)).map(|node| node.id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::membership::{Life, MemberIdentity, MemberMetadata, MemberView};
    use crate::cluster::topology::{TopologyChange, sample};

    const START_MS: u64 = 1_000_000;

    fn node(id: u128) -> Node {
        Node { start_ms: START_MS, ..sample::node(NodeId(id)) }
    }

    fn identity(id: u128, start_ms: u64) -> MemberIdentity {
        let metadata = MemberMetadata { client_port: 1, proxy_port: 0, weight_percent: 100, zone: 0 };
        let address = ([127, 0, 0, 1], 10_000 + id as u16).into();
        MemberIdentity { node: NodeId(id), address, life: Life { start_ms, renewals: 0 }, metadata }
    }

    fn member(id: u128, start_ms: u64, health: MemberHealth) -> MemberView {
        MemberView { identity: identity(id, start_ms), health, topology_version: 0, since_us: 0 }
    }

    fn heard(seconds: u64, start_ms: u64) -> HeardByLink {
        HeardByLink { age: Duration::from_secs(seconds), start_ms }
    }

    #[test]
    fn members_without_gossip_are_named() {
        let mut topology = Topology::default();
        let mut version = 0;
        let mut apply = |change| {
            version += 1;
            topology.apply(version, &change);
        };
        apply(TopologyChange::InitCluster { cluster: crate::base::identity::ClusterId(1), hash_key: 1 });
        for id in 1..=5 {
            apply(TopologyChange::RegisterNode { node: node(id) });
        }
        let members = vec![
            member(2, START_MS, MemberHealth::Alive),
            member(3, START_MS, MemberHealth::Down),
            member(4, START_MS, MemberHealth::Down),
        ];
        let view = MembersView { own: identity(1, START_MS), connected: true, members };
        let links: LinksHeard = [2, 3, 5].map(|id| (NodeId(id), heard(0, START_MS))).into();
        let named = |after_ms| heard_by_links_only(&topology, &view, &links, START_MS + after_ms);
        assert_eq!(named(1000), [NodeId(3)], "there was no time yet to hear of the fifth");
        assert_eq!(named(16_000), [NodeId(3), NodeId(5)]);
    }
}
