//! What the raft leader has to see for a while before it acts on it. Pure: time is given.

use super::duties::{self, SlotMove, Stage};
use super::hints::{self, LinksHeard};
use super::membership::MembersView;
use super::topology::{NodeState, Topology, TopologyChange};
use crate::base::identity::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// A hand-off that takes longer than this is called off: nobody serves its slots meanwhile.
const HAND_OFF_LIMIT_US: u64 = 3_000_000;
/// Members that come within so long of each other are planned for together, for so long at most.
const GATHERING_PAUSE_US: u64 = 400_000;
const GATHERING_LIMIT_US: u64 = 4_000_000;
/// A member that is down for so long has its copies made elsewhere.
const REBUILD_DELAY_US: u64 = 60_000_000;
/// Where more of the members with slots are down than one of so many, nobody is given up: what goes together mostly comes back
/// together, and those who are left have enough to do. Slots that only their primary has are copied all the same.
const STORM_SHARE: usize = 3;

/// What a leader has seen since it leads.
#[derive(Debug, Default)]
pub struct Watching {
    /// Heard over links only, at the last look.
    unheard: Vec<NodeId>,
    /// Since when hand-offs are under way.
    handing_off: BTreeMap<u64, u64>,
    /// How many members there were at the last look.
    members: Option<usize>,
    gathering: Option<Gathering>,
    /// Since when members are down.
    down: BTreeMap<NodeId, u64>,
}

/// Members that come one after the other.
#[derive(Clone, Copy, Debug)]
struct Gathering {
    since_us: u64,
    latest_us: u64,
}

impl Watching {
    /// Members whose gossip does not come through, each of them once.
    pub fn newly_unheard(
        &mut self,
        topology: &Topology,
        members: &MembersView,
        heard: &LinksHeard,
        unix_ms: u64,
    ) -> Vec<NodeId> {
        let unheard = hints::heard_by_links_only(topology, members, heard, unix_ms);
        let before = std::mem::replace(&mut self.unheard, unheard);
        self.unheard.iter().filter(|node| !before.contains(node)).copied().collect()
    }

    /// Whether members are still coming: what is moved now would move again with the next of them.
    pub fn is_gathering(&mut self, topology: &Topology, now_us: u64) -> bool {
        let members = topology.nodes.len();
        // Who was there when this node began to lead has been there for a while.
        let before = self.members.replace(members).unwrap_or(members);
        if members > before {
            self.gathering.get_or_insert(Gathering { since_us: now_us, latest_us: now_us }).latest_us = now_us;
        }
        self.gathering = self.gathering.filter(|gathering| now_us < gathering.latest_us + GATHERING_PAUSE_US);
        self.gathering.is_some_and(|gathering| now_us < gathering.since_us + GATHERING_LIMIT_US)
    }

    /// Members that are down for so long that others take their place as copies. None in a storm.
    pub fn given_up(&mut self, topology: &Topology, now_us: u64) -> BTreeSet<NodeId> {
        let is_down = |id: &NodeId| topology.nodes.get(id).is_some_and(|node| node.state == NodeState::Down);
        self.down.retain(|id, _| is_down(id));
        for id in topology.nodes.keys().filter(|id| is_down(id)) {
            self.down.entry(*id).or_insert(now_us);
        }
        let members = topology.nodes.values().filter(|node| !node.arbiter);
        if members.clone().filter(|node| node.state == NodeState::Down).count() * STORM_SHARE > members.count() {
            return BTreeSet::new();
        }
        let late = self.down.iter().filter(|(_, since_us)| now_us - **since_us >= REBUILD_DELAY_US);
        late.map(|(id, _)| *id).collect()
    }

    /// Hand-offs that take too long.
    pub fn overdue(&mut self, topology: &Topology, now_us: u64) -> Vec<TopologyChange> {
        let moves = duties::moves(topology);
        let open: Vec<SlotMove> = moves.into_iter().filter(|one| one.stage == Stage::HandingOff).collect();
        self.handing_off.retain(|begun, _| open.iter().any(|one| one.begun == *begun));
        let late = open.into_iter().filter(|one| {
            let since_us = *self.handing_off.entry(one.begun).or_insert(now_us);
            now_us - since_us > HAND_OFF_LIMIT_US
        });
        late.map(|one| TopologyChange::AbortHandoff { slots: one.slots, to: one.to, begun: one.begun }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::identity::ClusterId;
    use crate::base::slot::Slot;
    use crate::base::slot_ranges::SlotRanges;
    use crate::cluster::hints::HeardByLink;
    use crate::cluster::membership::{Life, MemberHealth, MemberIdentity, MemberMetadata, MemberView};
    use crate::cluster::topology::{Node, sample};
    use std::time::Duration;

    const START_MS: u64 = 1_000_000;
    const OWN: NodeId = NodeId(1);
    const OTHER: NodeId = NodeId(2);

    fn node(id: NodeId) -> Node {
        Node { start_ms: START_MS, ..sample::node(id) }
    }

    /// Two nodes; the first leads, and has all slots.
    struct Pair {
        topology: Topology,
        watching: Watching,
    }

    impl Pair {
        fn new() -> Pair {
            let mut pair = Pair { topology: Topology::default(), watching: Watching::default() };
            pair.agree(TopologyChange::InitCluster { cluster: ClusterId(1), hash_key: 1 });
            pair.agree(TopologyChange::RegisterNode { node: node(OWN) });
            pair.agree(TopologyChange::RegisterNode { node: node(OTHER) });
            pair.agree(TopologyChange::Revive { slots: Slot::all().collect(), to: OWN });
            pair
        }

        fn agree(&mut self, change: TopologyChange) -> u64 {
            self.topology.apply(self.topology.version + 1, &change);
            self.topology.version
        }

        /// Hands these slots over to the other, up to where nobody serves them.
        fn hand_off(&mut self, slots: &SlotRanges) -> u64 {
            let (node, incarnation) = (OTHER, self.topology.nodes[&OTHER].incarnation);
            let number = self.agree(TopologyChange::CopyJoin { slots: slots.clone(), node, incarnation });
            self.agree(TopologyChange::CopyInSync { slots: slots.clone(), node, incarnation, number });
            self.agree(TopologyChange::HandOver { slots: slots.clone(), node, incarnation })
        }
    }

    fn view(gossip: Option<MemberHealth>) -> MembersView {
        let identity = |node: NodeId| MemberIdentity {
            node,
            address: ([127, 0, 0, 1], 10_000 + node.0 as u16).into(),
            life: Life { start_ms: START_MS, renewals: 0 },
            metadata: MemberMetadata { client_port: 1, proxy_port: 0, weight_percent: 100, zone: 0 },
        };
        let member = |health| MemberView { identity: identity(OTHER), health, topology_version: 0, since_us: 0 };
        MembersView { own: identity(OWN), connected: true, members: gossip.map(member).into_iter().collect() }
    }

    #[test]
    fn a_member_without_gossip_is_named_once_and_again_when_it_recurs() {
        let mut pair = Pair::new();
        let links: LinksHeard = [(OTHER, HeardByLink { age: Duration::ZERO, start_ms: START_MS })].into();
        let mut named = |health| pair.watching.newly_unheard(&pair.topology, &view(Some(health)), &links, START_MS);
        assert_eq!(named(MemberHealth::Down), [OTHER]);
        assert_eq!(named(MemberHealth::Down), []);
        assert_eq!(named(MemberHealth::Alive), []);
        assert_eq!(named(MemberHealth::Down), [OTHER]);
    }

    #[test]
    fn a_hand_off_is_called_off_when_it_takes_too_long_and_the_next_has_its_own_time() {
        let mut pair = Pair::new();
        let slots: SlotRanges = Slot::all().take(4).collect();
        let begun = pair.hand_off(&slots);
        assert_eq!(pair.watching.overdue(&pair.topology, 0), []);
        assert_eq!(pair.watching.overdue(&pair.topology, HAND_OFF_LIMIT_US), []);
        let abort = |begun| TopologyChange::AbortHandoff { slots: slots.clone(), to: OTHER, begun };
        assert_eq!(pair.watching.overdue(&pair.topology, HAND_OFF_LIMIT_US + 1), [abort(begun)]);
        pair.agree(abort(begun));
        assert_eq!(pair.watching.overdue(&pair.topology, HAND_OFF_LIMIT_US + 2), []);
        let begun = pair.hand_off(&slots);
        assert_eq!(pair.watching.overdue(&pair.topology, HAND_OFF_LIMIT_US + 3), []);
        assert_eq!(pair.watching.overdue(&pair.topology, 2 * HAND_OFF_LIMIT_US + 4), [abort(begun)]);
    }

    #[test]
    fn members_that_are_down_for_long_are_given_up_but_not_in_a_storm() {
        let mut pair = Pair::new();
        for id in 3..=6 {
            pair.agree(TopologyChange::RegisterNode { node: node(NodeId(id)) });
        }
        let kill = |pair: &mut Pair, id| {
            let fence = pair.topology.fence_of(NodeId(id), 0).expect("a member");
            pair.agree(fence);
        };
        let ids = |ids: &[u128]| ids.iter().copied().map(NodeId).collect::<BTreeSet<_>>();
        kill(&mut pair, 2);
        assert_eq!(pair.watching.given_up(&pair.topology, 0), ids(&[]));
        kill(&mut pair, 3);
        assert_eq!(pair.watching.given_up(&pair.topology, 1), ids(&[]));
        assert_eq!(pair.watching.given_up(&pair.topology, REBUILD_DELAY_US), ids(&[2]));
        assert_eq!(pair.watching.given_up(&pair.topology, REBUILD_DELAY_US + 1), ids(&[2, 3]));
        kill(&mut pair, 4);
        assert_eq!(pair.watching.given_up(&pair.topology, REBUILD_DELAY_US + 2), ids(&[]), "half of them are down");
        let back = pair.topology.raise_of(NodeId(2)).expect("a member");
        pair.agree(back);
        assert_eq!(pair.watching.given_up(&pair.topology, REBUILD_DELAY_US + 3), ids(&[3]));
    }

    #[test]
    fn members_that_come_together_are_waited_for_up_to_a_limit() {
        let (mut pair, mut id) = (Pair::new(), 2);
        assert!(!pair.watching.is_gathering(&pair.topology, 0), "they were there before");
        let mut join = |pair: &mut Pair| {
            id += 1;
            pair.agree(TopologyChange::RegisterNode { node: node(NodeId(id)) });
        };
        join(&mut pair);
        let gathers = |pair: &mut Pair, now_us| pair.watching.is_gathering(&pair.topology, now_us);
        assert!(gathers(&mut pair, 1_000_000) && gathers(&mut pair, 1_399_999));
        assert!(!gathers(&mut pair, 1_400_000), "nobody else has come");
        let waited = (0..100).filter(|round| {
            join(&mut pair);
            gathers(&mut pair, 2_000_000 + round * 100_000)
        });
        assert_eq!(waited.count(), 40, "those who come without end are not waited for");
    }
}
