//! How nodes come to agree in the simulation: proposals, what each learns when, and what the leader proposes.

use crate::consensus::{VOTERS, leader};
use crate::invariants::Observation;
use crate::node::{CLUSTER, node_id};
use crate::world::{Happening, NODES, World};
use rand::RngExt;
use starling::base::identity::{Incarnation, NodeId};
use starling::base::slot::{SLOT_COUNT, Slot};
use starling::base::slot_ranges::SlotRanges;
use starling::cluster::planner::{self, PlanInput, PlanNode, plan};
use starling::cluster::topology::{Applied, Node, NodeState, Phase, Topology, TopologyChange};
use std::collections::BTreeMap;

/// A proposal is agreed within this time, or never: its link gives it up.
pub(crate) const PROPOSAL_LIMIT_US: u64 = 300_000;
/// A move that has not advanced for this long is off. Longer than any proposal of it can be underway.
const STUCK_US: u64 = 6_000_000;

impl World {
    /// Whether two nodes can exchange messages now.
    pub(crate) fn can_talk(&self, a: usize, b: usize) -> bool {
        let up = |node: usize| self.nodes[node].process.is_some() && self.nodes[node].paused_until_us <= self.now_us;
        up(a) && up(b) && !self.network.is_cut(a, b) && !self.network.is_cut(b, a)
    }

    pub(crate) fn leader(&self) -> Option<usize> {
        leader(|a, b| self.can_talk(a, b))
    }

    /// Sends a change to the leader; it may be lost, or come twice.
    pub(crate) fn propose(&mut self, from: usize, change: TopologyChange) {
        let Some(life) = self.nodes[from].process.as_ref().map(|process| process.life) else { return };
        let delay_us = self.random.random_range(500..PROPOSAL_LIMIT_US);
        let again_us = self.random.random_range(500..PROPOSAL_LIMIT_US);
        let lost = self.random.random_bool(self.network.faults.loss);
        let twice = self.random.random_bool(self.network.faults.duplication);
        if !lost {
            self.after(delay_us, Happening::Proposed { from, life, change: change.clone() });
        }
        if twice {
            self.after(again_us, Happening::Proposed { from, life, change });
        }
    }

    pub(crate) fn on_proposed(&mut self, from: usize, life: u64, change: TopologyChange) {
        let connected = self.nodes[from].process.as_ref().is_some_and(|process| process.life == life);
        let registers = matches!(change, TopologyChange::RegisterNode { .. });
        let Some(leader) = self.leader() else { return };
        // The connection of an ended process is closed; other changes may have been passed on already.
        if (registers && !connected) || (connected && !self.can_talk(from, leader)) {
            return;
        }
        let before = self.agreed.clone();
        let index = self.consensus.add(change.clone());
        let applied = self.agreed.apply(index, &change);
        self.trace.line(self.now_us, format_args!("agreed {index}, of node {from}: {change:?}: {applied:?}"));
        let after = std::mem::take(&mut self.agreed);
        let pairs = before.slots().iter().zip(after.slots().iter());
        let changed: Vec<Slot> =
            Slot::all().zip(pairs).filter(|(_, (old, new))| old != new).map(|(slot, _)| slot).collect();
        self.observe(Observation::Agreed {
            index,
            change: &change,
            applied: &applied,
            before: &before,
            after: &after,
            changed: &changed,
        });
        self.forget_lost_writes(&before, &change, &applied);
        self.agreed = after;
        if let Applied::Registered(incarnation) = applied {
            let answer = Happening::Registered { node: from, life, incarnation, index };
            if !self.random.random_bool(self.network.faults.loss) {
                let delay_us = self.random.random_range(200..50_000);
                self.after(delay_us, answer);
            }
        }
    }

    /// Changes that earlier lives proposed are proposed once more.
    pub(crate) fn propose_stale(&mut self) {
        for (_, change) in self.consensus.entries(0, self.consensus.length()) {
            let stale = incarnation_in(&change).is_some_and(|(node, incarnation)| {
                self.agreed.nodes.get(&node).is_none_or(|node| node.incarnation != incarnation)
            });
            if stale && self.random.random_bool(0.2) {
                // From nobody who is connected: life 0 is no process.
                self.after(0, Happening::Proposed { from: 0, life: 0, change });
            }
        }
    }

    /// A node learns some of what is agreed and can be known where it is.
    pub(crate) fn on_pull(&mut self, node: usize) {
        let again_us = self.random.random_range(20_000..250_000);
        self.after(again_us, Happening::Pull { node });
        let known =
            |node: usize| self.nodes[node].process.as_ref().map_or(0, |process| process.keeper.topology.version);
        let own = known(node);
        let reachable = match self.leader() {
            Some(leader) if self.can_talk(node, leader) => self.consensus.length(),
            _ => VOTERS.into_iter().filter(|&voter| self.can_talk(node, voter)).map(known).max().unwrap_or(0),
        };
        if reachable <= own || self.nodes[node].process.is_none() {
            return;
        }
        let to = if self.random.random_bool(0.7) { reachable } else { self.random.random_range(own + 1..=reachable) };
        let entries = self.consensus.entries(own, to);
        let Some(process) = &mut self.nodes[node].process else { return };
        process.keeper.learn(&entries);
        let topology = std::mem::take(&mut process.keeper.topology);
        self.observe(Observation::Learned { node, topology: &topology });
        if let Some(process) = &mut self.nodes[node].process {
            process.keeper.topology = topology;
        }
        self.nodes[node].disk.agreed = to;
    }

    /// What a restarted node finds on its disk: a raft snapshot of some index, and the log behind it.
    pub(crate) fn recover(&mut self, agreed: u64) -> Topology {
        let (at, snapshot) = self.snapshots.range(..=agreed).next_back().map_or((0, None), |(at, s)| (*at, Some(s)));
        let restored = snapshot.map(|bytes| postcard::from_bytes::<Topology>(bytes).expect("a snapshot reads back"));
        let mut topology = restored.unwrap_or_default();
        for (index, change) in self.consensus.entries(at, agreed) {
            topology.apply(index, &change);
        }
        topology
    }

    /// What the leader does about the cluster as a whole, by what it has applied itself.
    pub(crate) fn on_lead(&mut self) {
        let again_us = self.random.random_range(300_000..600_000);
        self.after(again_us, Happening::Lead);
        if self.random.random_bool(0.04) {
            let bytes = postcard::to_stdvec(&self.agreed).expect("a topology has an encoding");
            self.snapshots.insert(self.agreed.version, bytes);
        }
        let Some(leader) = self.leader() else { return };
        let Some(process) = &self.nodes[leader].process else { return };
        let topology = &process.keeper.topology;
        if topology.version < self.consensus.length() {
            return;
        }
        let mut changes = Vec::new();
        if topology.cluster.is_none() {
            changes.push(TopologyChange::InitCluster { cluster: CLUSTER, hash_key: 7 });
        }
        let moving = moving(topology);
        let believed: Vec<NodeId> = self.nodes[leader].live_members();
        let active = topology.nodes.values().filter(|node| node.state != NodeState::Down);
        let all_live = active.clone().all(|node| node.id == node_id(leader) || believed.contains(&node.id));
        let balanced = self.balanced_at == topology.version;
        if moving.is_empty() && all_live && self.to_forget.is_none() && !balanced {
            let state = |node: &Node| match node.takes_slots() {
                true => planner::NodeState::Live,
                false => planner::NodeState::Draining,
            };
            let as_planned = |node: &Node| PlanNode { id: node.id, weight: 1, zone: String::new(), state: state(node) };
            let input = PlanInput {
                nodes: active.map(as_planned).collect(),
                copies: 1,
                table: topology.slots().iter().map(|record| record.primary.into_iter().collect()).collect(),
            };
            let planned = plan(&input);
            self.balanced_at = if planned.moves.is_empty() { topology.version } else { 0 };
            changes.extend(planned.moves.iter().map(|one| match one.from {
                Some(from) => TopologyChange::CopyAdd { slots: one.slots.clone(), from, to: one.to },
                None => TopologyChange::Revive { slots: one.slots.clone(), to: one.to },
            }));
            self.observe(Observation::Planned { input: &input, plan: &planned });
        }
        self.abort_stuck(&moving, &mut changes);
        self.forget_node(leader, &mut changes);
        for change in changes {
            self.propose(leader, change);
        }
    }

    fn abort_stuck(&mut self, moving: &BTreeMap<(u8, NodeId, u64), SlotRanges>, changes: &mut Vec<TopologyChange>) {
        let now_us = self.now_us;
        self.moving_since.retain(|key, (slots, _)| moving.get(key) == Some(slots));
        for (key, slots) in moving {
            let (_, since_us) = self.moving_since.entry(*key).or_insert_with(|| (slots.clone(), now_us));
            let (phase, to, begun) = *key;
            if phase != RELEASING && now_us - *since_us > STUCK_US {
                changes.push(TopologyChange::AbortHandoff { slots: slots.clone(), to, begun });
            }
        }
    }

    /// A person has said CLUSTER FORGET of a node that is gone.
    fn forget_node(&mut self, leader: usize, changes: &mut Vec<TopologyChange>) {
        let Some(number) = self.to_forget else { return };
        let Some(process) = &self.nodes[leader].process else { return };
        let topology = &process.keeper.topology;
        let node = topology.nodes.get(&node_id(number));
        let (Some(node), None) = (node, &self.nodes[number].process) else {
            self.to_forget = None;
            return;
        };
        let (id, incarnation) = (node.id, node.incarnation);
        if node.state == NodeState::Down {
            changes.push(TopologyChange::MarkDead { slots: topology.owned_by(id), node: id, incarnation });
            changes.push(TopologyChange::ForgetNode { node: id, incarnation });
        } else {
            changes.push(TopologyChange::SetMemberState { node: id, incarnation, state: NodeState::Down });
        }
    }

    /// Whether the cluster is whole: every node knows all that is agreed, is registered in this life, owns its share, and
    /// nothing moves.
    pub(crate) fn is_settled(&self) -> bool {
        let share = SLOT_COUNT / NODES;
        self.nodes[..NODES].iter().all(|node| {
            node.process.as_ref().is_some_and(|process| {
                let keeper = &process.keeper;
                let current = keeper.topology.version == self.consensus.length() && keeper.is_current();
                current && (share..=share + 1).contains(&keeper.work.owned)
            })
        }) && self.agreed.slots().iter().all(|record| record.phase == Phase::Normal)
    }
}

const RELEASING: u8 = 3;

/// The incarnation that a change speaks of, and whose.
pub(crate) fn incarnation_in(change: &TopologyChange) -> Option<(NodeId, Incarnation)> {
    match change {
        TopologyChange::SetMemberState { node, incarnation, .. } => Some((*node, *incarnation)),
        TopologyChange::CopyReady { to, incarnation, .. } => Some((*to, *incarnation)),
        TopologyChange::Handoff { to, incarnation, .. } => Some((*to, *incarnation)),
        TopologyChange::MarkDead { node, incarnation, .. } => Some((*node, *incarnation)),
        TopologyChange::RemoveNode { node, incarnation }
        | TopologyChange::Leaving { node, incarnation }
        | TopologyChange::ForgetNode { node, incarnation } => Some((*node, *incarnation)),
        _ => None,
    }
}

/// The slots in motion, by phase and the node they go to (or, when released, the one they come from).
fn moving(topology: &Topology) -> BTreeMap<(u8, NodeId, u64), SlotRanges> {
    let mut lists: BTreeMap<(u8, NodeId, u64), Vec<Slot>> = BTreeMap::new();
    for (slot, record) in Slot::all().zip(topology.slots().iter()) {
        let key = match record.phase {
            Phase::Normal | Phase::Dead => continue,
            Phase::Copying { to, begun } => (0, to, begun),
            Phase::Ready { to, begun } => (1, to, begun),
            Phase::HandingOff { to, begun } => (2, to, begun),
            Phase::Releasing { from, begun } => (RELEASING, from, begun),
        };
        lists.entry(key).or_default().push(slot);
    }
    lists.into_iter().map(|(key, slots)| (key, slots.into_iter().collect())).collect()
}
