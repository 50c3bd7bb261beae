mod copies;
mod kept;

use super::*;
use crate::base::identity::{ClusterId, Epoch};
use crate::base::slot::SLOT_COUNT;
use crate::cluster::topology::{Applied, sample};
use std::collections::BTreeSet;

/// When members are killed, all of them, ms since 1970.
const FENCED_MS: u64 = 1_000_000;

/// A topology, and everything that the raft leader and the ends of moves do about it.
#[derive(Clone)]
struct Cluster {
    topology: Topology,
    gone: BTreeSet<NodeId>,
    /// Slots that have been handed over.
    handed_over: usize,
    joined: usize,
}

impl Cluster {
    fn new() -> Cluster {
        let mut cluster = Cluster { topology: Topology::default(), gone: BTreeSet::new(), handed_over: 0, joined: 0 };
        cluster.apply(&TopologyChange::InitCluster { cluster: ClusterId(1), hash_key: 2 });
        cluster
    }

    fn of(nodes: u8) -> Cluster {
        let mut cluster = Cluster::new();
        for number in 1..=nodes {
            cluster.start(number);
            cluster.settle();
        }
        cluster
    }

    fn apply(&mut self, change: &TopologyChange) -> Applied {
        self.topology.apply(self.topology.version + 1, change)
    }

    fn start(&mut self, number: u8) {
        self.start_as(number, |node| node);
    }

    fn start_as(&mut self, number: u8, described: impl FnOnce(Node) -> Node) {
        let id = NodeId(u128::from(number));
        let start_ms = self.topology.nodes.get(&id).map_or(1, |node| node.start_ms + 1);
        let node = Node { ip: [127, 0, 0, number].into(), start_ms, ..sample::node(id) };
        self.gone.remove(&id);
        let node = described(node);
        assert!(matches!(self.apply(&TopologyChange::RegisterNode { node }), Applied::Registered(_)));
    }

    fn kill(&mut self, number: u8) {
        let id = NodeId(u128::from(number));
        self.gone.insert(id);
        assert_eq!(self.apply(&self.topology.fence_of(id, FENCED_MS).expect("a member")), Applied::Done);
    }

    /// It was alive all the time.
    fn back(&mut self, number: u8) {
        let id = NodeId(u128::from(number));
        self.gone.remove(&id);
        assert_eq!(self.apply(&self.topology.raise_of(id).expect("a member")), Applied::Done);
    }

    /// Until nobody has anything to do. Elections are won by the first that may be asked.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut changes = leader_duties(&self.topology, false, &BTreeSet::new());
            changes.extend(moves(&self.topology).into_iter().filter_map(|one| self.next_step(one)));
            changes.extend(self.synced());
            changes.extend(self.elected());
            changes.extend(self.retired());
            if changes.is_empty() {
                self.check_level();
                return;
            }
            for change in &changes {
                let applied = self.apply(change);
                // A copy may have been told to leave since.
                let may_be_late = matches!(change, TopologyChange::CopyInSync { .. });
                assert!(applied == Applied::Done || may_be_late, "{change:?}: {applied:?}");
                if let TopologyChange::CopyJoin { slots, .. } = change {
                    self.joined += slots.len();
                }
                if let TopologyChange::HandOver { slots, .. } = change {
                    self.handed_over += slots.len();
                }
            }
        }
        panic!("it does not settle");
    }

    /// What is said to need no plan needs none, and without copies the other way round.
    fn check_level(&self) {
        let is_down = |id| self.topology.nodes[&id].state == NodeState::Down;
        let mut planned = planner::plan(&plan_input(&self.topology)).moves;
        planned.retain(|one| one.from.is_some_and(|from| !is_down(from)));
        // Roles that an operator has placed are not the plan's.
        let is_kept = kept_roles(&self.topology).is_some();
        planned.retain(|one| !is_kept || one.kind != planner::MoveKind::Primary);
        let is_level = level::is_level(&self.topology);
        assert!(planned.is_empty() || !is_level, "{planned:?}");
        let has_copies = self.topology.slots().iter().any(|record| !record.copies.is_empty());
        assert!(is_level || has_copies || !planned.is_empty() || is_kept);
    }

    /// What an end of a move does next, if it is alive.
    fn next_step(&self, one: SlotMove) -> Option<TopologyChange> {
        let SlotMove { begun, stage, from, to, slots } = one;
        let alive = |node: NodeId| !self.gone.contains(&node);
        let incarnation = self.topology.nodes.get(&to)?.incarnation;
        match stage {
            Stage::Settling => alive(to).then_some(TopologyChange::Settled { slots, from, begun }),
            Stage::HandingOff if alive(from) && alive(to) => {
                Some(TopologyChange::Handoff { slots, to, incarnation, begun })
            }
            _ => None,
        }
    }

    /// Live slots per node.
    fn owned(&self) -> Vec<usize> {
        let live = |id: &NodeId| {
            let records = self.topology.slots().iter();
            records.filter(|record| record.primary == Some(*id) && record.phase == Phase::Normal).count()
        };
        self.topology.nodes.keys().map(live).collect()
    }

    fn leave(&mut self, number: u8) {
        let node = NodeId(u128::from(number));
        let incarnation = self.topology.nodes[&node].incarnation;
        assert_eq!(self.apply(&TopologyChange::Leaving { node, incarnation }), Applied::Done);
    }
}

#[test]
fn nodes_that_join_one_by_one_end_with_equal_shares() {
    let mut cluster = Cluster::new();
    for nodes in 1u8..=5 {
        cluster.start(nodes);
        cluster.settle();
        let owned = cluster.owned();
        let (least, most) = (SLOT_COUNT / usize::from(nodes), SLOT_COUNT.div_ceil(usize::from(nodes)));
        assert_eq!(owned.iter().sum::<usize>(), SLOT_COUNT);
        assert!(owned.iter().all(|count| (least..=most).contains(count)), "{owned:?}");
    }
}

#[test]
fn a_draining_node_gives_everything_away() {
    let mut cluster = Cluster::of(4);
    cluster.leave(2);
    cluster.settle();
    let owned = cluster.owned();
    assert_eq!(owned[1], 0);
    assert_eq!(owned.iter().sum::<usize>(), SLOT_COUNT);
}

#[test]
fn a_draining_node_that_was_believed_dead_goes_on_draining_when_it_is_back() {
    let mut cluster = Cluster::of(4);
    cluster.leave(2);
    cluster.kill(2);
    cluster.settle();
    cluster.back(2);
    cluster.settle();
    let owned = cluster.owned();
    assert_eq!((owned[1], owned.iter().sum::<usize>()), (0, SLOT_COUNT));
}

#[test]
fn the_slots_of_a_killed_node_stay_dead_until_it_is_back() {
    let mut cluster = Cluster::of(3);
    let before = cluster.owned();
    cluster.kill(2);
    cluster.settle();
    assert_eq!(cluster.owned(), [before[0], 0, before[2]]);
    cluster.start(2);
    cluster.settle();
    assert_eq!(cluster.owned(), before);
}

#[test]
fn a_node_that_was_only_believed_dead_has_its_slots_back_in_the_same_epoch() {
    let mut cluster = Cluster::of(3);
    let (before, slots) = (cluster.owned(), cluster.topology.slots().clone());
    cluster.kill(2);
    cluster.settle();
    cluster.back(2);
    cluster.settle();
    assert_eq!(cluster.owned(), before);
    for (now, before) in cluster.topology.slots().iter().zip(slots.iter()) {
        assert_eq!(*now, SlotRecord { changed: now.changed, ..before.clone() });
    }
}

#[test]
fn a_forgotten_nodes_slots_begin_anew_on_the_others() {
    let mut cluster = Cluster::of(3);
    cluster.kill(2);
    cluster.kill(3);
    cluster.settle();
    let (node, incarnation) = (NodeId(2), cluster.topology.nodes[&NodeId(2)].incarnation);
    assert_eq!(cluster.apply(&TopologyChange::ForgetNode { node, incarnation, decided_by: u64::MAX }), Applied::Done);
    cluster.settle();
    let owned = cluster.owned();
    assert_eq!(owned.len(), 2);
    assert!(owned[0] > SLOT_COUNT * 2 / 3 - 2, "what the other dead node owns stays dead: {owned:?}");
}

#[test]
fn moves_to_and_from_a_node_that_dies_end() {
    let mut cluster = Cluster::of(2);
    cluster.start(3);
    // It becomes a copy, has everything, and is handed its roles.
    for _ in 0..2 {
        let mut changes = leader_duties(&cluster.topology, false, &BTreeSet::new());
        changes.extend(cluster.synced());
        for change in &changes {
            cluster.apply(change);
        }
        let synced = cluster.synced();
        for change in &synced {
            cluster.apply(change);
        }
    }
    assert!(!moves(&cluster.topology).is_empty());
    cluster.kill(3);
    cluster.settle();
    assert!(moves(&cluster.topology).is_empty());
    assert_eq!(cluster.owned().iter().sum::<usize>(), SLOT_COUNT);
}

#[test]
fn few_slots_are_sent_to_a_node_at_a_time_and_few_stand_still() {
    let mut cluster = Cluster::of(1);
    cluster.start(2);
    let mut joined = SlotRanges::default();
    for _ in 0..2 {
        for change in leader_duties(&cluster.topology, false, &BTreeSet::new()) {
            let TopologyChange::CopyJoin { slots, .. } = &change else { panic!("{change:?}") };
            joined.extend(slots.slots());
            cluster.apply(&change);
        }
    }
    assert_eq!(joined.len(), super::copies::SLOTS_COMING);
    // Of a slot whose primary is down nothing comes: others do.
    cluster.start(3);
    cluster.kill(3);
    let synced = cluster.synced();
    for change in &synced {
        cluster.apply(change);
    }
    let changes = leader_duties(&cluster.topology, false, &BTreeSet::new());
    let [TopologyChange::HandOver { slots, .. }, TopologyChange::CopyJoin { slots: more, .. }] = &changes[..] else {
        panic!("{changes:?}")
    };
    assert_eq!((slots.clone(), more.len()), (joined, super::copies::SLOTS_COMING));
    assert!(slots.len() <= SLOTS_HANDED_OVER);
}

/// What has been handed over stays there, though its former primary still has it and counts for more than its share.
#[test]
fn no_slot_moves_twice() {
    let mut cluster = Cluster::of(1);
    for nodes in 2..=5 {
        (cluster.handed_over, cluster.joined) = (0, 0);
        cluster.start(nodes);
        cluster.settle();
        let most = SLOT_COUNT.div_ceil(usize::from(nodes));
        assert!(cluster.handed_over <= most, "{nodes}: {}", cluster.handed_over);
        assert!(cluster.joined <= most + most / 50, "{nodes}: {}", cluster.joined);
    }
    cluster.handed_over = 0;
    let share = cluster.owned()[3];
    cluster.leave(4);
    cluster.settle();
    assert_eq!(cluster.handed_over, share);
}

#[test]
fn while_members_are_coming_only_slots_without_an_owner_are_given_out() {
    let mut cluster = Cluster::new();
    cluster.start(1);
    cluster.start(2);
    let changes = leader_duties(&cluster.topology, true, &BTreeSet::new());
    assert!(!changes.is_empty() && changes.iter().all(|change| matches!(change, TopologyChange::Revive { .. })));
    cluster.settle();
    cluster.start(3);
    assert_eq!(leader_duties(&cluster.topology, true, &BTreeSet::new()), []);
    let changes = leader_duties(&cluster.topology, false, &BTreeSet::new());
    assert!(changes.iter().any(|change| matches!(change, TopologyChange::CopyJoin { .. })));
}

#[test]
fn slots_that_are_given_up_are_shared_by_who_is_up_and_stay_there() {
    let mut cluster = Cluster::of(3);
    cluster.kill(3);
    cluster.settle();
    let (lost, decided_by) = (cluster.topology.owned_by(NodeId(3)), cluster.topology.version);
    assert_eq!(leader_duties(&cluster.topology, false, &BTreeSet::new()), [], "nobody takes them by itself");
    assert_eq!(cluster.apply(&TopologyChange::GiveUpSlots { slots: lost.clone(), decided_by }), Applied::Done);
    cluster.settle();
    let owned = cluster.owned();
    assert!(owned[2] == 0 && owned[0].abs_diff(owned[1]) <= 1, "{owned:?}");
    cluster.back(3);
    let changes = leader_duties(&cluster.topology, false, &BTreeSet::new());
    assert!(changes.iter().all(|change| matches!(change, TopologyChange::CopyJoin { .. })), "it begins as any other");
}
