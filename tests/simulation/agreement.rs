//! How nodes come to agree in the simulation: proposals, what each learns when, and what the leader proposes.

use crate::consensus::is_majority;
use crate::electing::Round;
use crate::invariants::Observation;
use crate::node::{CLUSTER, Node, number_of};
use crate::world::{Happening, NODES, World};
use rand::RngExt;
use starling::base::identity::{Incarnation, NodeId};
use starling::base::slot::{SLOT_COUNT, Slot};
use starling::cluster::duties;
use starling::cluster::fencing::Fencing;
use starling::cluster::planner;
use starling::cluster::registration;
use starling::cluster::topology::voters::{VoterCandidate, desired_voters};
use starling::cluster::topology::{self, NodeState, Phase, Topology, TopologyChange};
use starling::cluster::watching::Watching;
use starling::transport::messages::LeaseReport;
use std::collections::BTreeSet;

/// A proposal is usually agreed within this time, or never.
const PROPOSAL_US: u64 = 300_000;
/// Its proposer gives it up after this long, and does not know what became of it.
const GIVEN_UP_US: u64 = 2_000_000;
/// Some are agreed long after that: until this long after they were made.
const LATE_US: u64 = 20_000_000;

/// Whom a proposal's outcome concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Nobody waits for it.
    Nothing,
    Register,
    /// The raft leader.
    Lead,
    /// A node that leaves.
    Drain,
    /// The raft leader, for an election.
    Elect,
    /// A hand-over to its proposer.
    TakeOver,
    /// The removal of a copy that retires, by its primary.
    Retire,
    /// A copy of its proposer.
    Copy {
        stream: (NodeId, u64),
    },
}

/// What a node remembers of its leading.
#[derive(Default)]
pub(crate) struct Leading {
    watching: Watching,
    fencing: Fencing,
    /// By what it proposed last.
    done: Option<(u64, bool, BTreeSet<NodeId>)>,
    /// Elections that it holds.
    pub(crate) rounds: Vec<Round>,
}

impl Leading {
    /// Something that it proposed came to nothing, as far as it knows: the same look is due again.
    pub(crate) fn forget_done(&mut self) {
        self.done = None;
    }

    /// A lease voter has reported.
    pub(crate) fn heard(&mut self, voter: NodeId, report: LeaseReport) {
        self.fencing.heard(voter, report);
    }
}

impl World {
    /// Whether two nodes can exchange messages now.
    pub(crate) fn can_talk(&self, a: usize, b: usize) -> bool {
        let up = |node: usize| self.nodes[node].process.is_some() && self.nodes[node].paused_until_us <= self.now_us;
        up(a) && up(b) && !self.network.is_cut(a, b) && !self.network.is_cut(b, a)
    }

    pub(crate) fn leader(&self) -> Option<usize> {
        let voters = self.voters();
        let reached = |voter: usize| voters.iter().filter(|&&other| self.can_talk(voter, other)).count();
        voters.iter().copied().find(|&voter| is_majority(reached(voter), self.consensus.voters().len()))
    }

    /// The voters that have what they voted by.
    pub(crate) fn voters(&self) -> Vec<usize> {
        let has_log = |id: &&NodeId| {
            let node = &self.nodes[number_of(**id)];
            node.id() == **id && !node.disk.lacks_raft_log
        };
        self.consensus.voters().iter().filter(has_log).map(|id| number_of(*id)).collect()
    }

    /// Sends a change to the leader; it may be lost, come twice, or be agreed long after it was given up.
    pub(crate) fn propose(&mut self, from: usize, change: TopologyChange, purpose: Purpose) {
        let proposal = self.proposals + 1;
        let Some(process) = &mut self.nodes[from].process else { return };
        let life = process.life;
        process.proposals.insert(proposal, purpose);
        self.proposals = proposal;
        let delay_us = self.random.random_range(500..PROPOSAL_US);
        let again_us = self.random.random_range(500..PROPOSAL_US);
        let late_us = self.random.random_range(GIVEN_UP_US..LATE_US);
        let lost = self.random.random_bool(self.network.faults.loss);
        let twice = self.random.random_bool(self.network.faults.duplication);
        let is_late = self.random.random_bool(self.network.faults.late_proposals);
        let proposed = |change| Happening::Proposed { from, life, proposal, is_late, change };
        if !lost {
            self.after(if is_late { late_us } else { delay_us }, proposed(change.clone()));
        }
        if twice {
            self.after(again_us, proposed(change));
        }
        self.after(GIVEN_UP_US, Happening::Outcome { node: from, life, proposal, outcome: None });
    }

    pub(crate) fn on_proposed(&mut self, from: usize, life: u64, proposal: u64, is_late: bool, change: TopologyChange) {
        let connected = self.nodes[from].process.as_ref().is_some_and(|process| process.life == life);
        let Some(leader) = self.leader() else { return };
        // What is late lies with the leader already, whatever became of its proposer.
        if !is_late && connected && !self.can_talk(from, leader) {
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
        self.forget_lost_writes((&before, &after), &change, &applied);
        self.look_at_elections(&change, &applied, (&before, &after), &changed);
        self.look_at_fence(&change, &applied);
        self.agreed = after;
        if !is_late && !self.random.random_bool(self.network.faults.loss) {
            let delay_us = self.random.random_range(200..50_000);
            self.after(delay_us, Happening::Outcome { node: from, life, proposal, outcome: Some((index, applied)) });
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
                self.after(0, Happening::Proposed { from: 0, life: 0, proposal: 0, is_late: true, change });
            }
        }
    }

    /// A node learns some of what is agreed and can be known where it is.
    pub(crate) fn on_pull(&mut self, node: usize) {
        let again_us = self.random.random_range(20_000..250_000);
        self.after(again_us, Happening::Pull { node });
        self.look(node);
    }

    /// A node asks for what was agreed before its next turn.
    pub(crate) fn look_soon(&mut self, node: usize) {
        let delay_us = self.random.random_range(200..3_000);
        self.after(delay_us, Happening::Look { node });
    }

    pub(crate) fn look(&mut self, node: usize) {
        let known =
            |node: usize| self.nodes[node].process.as_ref().map_or(0, |process| process.keeper.topology.version);
        let own = known(node);
        let reachable = match self.leader() {
            Some(leader) if self.can_talk(node, leader) => self.consensus.length(),
            _ => self.voters().into_iter().filter(|&voter| self.can_talk(node, voter)).map(known).max().unwrap_or(0),
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
        self.follow(node);
        self.register(node, registration::Event::Look);
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
        let leader = self.leader();
        for number in (0..NODES).filter(|number| Some(*number) != leader) {
            if let Some(process) = &mut self.nodes[number].process {
                process.leading = Leading::default();
            }
        }
        let Some(leader) = leader else { return };
        self.lead(leader);
        self.hold_elections(leader);
        // Not at once: a voter that is believed down is back before, now and then, and leads.
        if self.random.random_bool(0.1) {
            self.choose_voters(leader);
        }
        self.forget_nodes(leader);
    }

    /// What `topology::raft` does about the voters. Who is to vote must know all that is agreed, and say yes to it: most of
    /// those before, and most of those after.
    fn choose_voters(&mut self, leader: usize) {
        let Some(process) = self.nodes[leader].process.as_ref() else { return };
        let candidate = |member: &topology::Node| VoterCandidate {
            id: member.id,
            zone: member.zone.clone(),
            arbiter: member.arbiter,
            state: member.state,
            leaving: member.leaving,
            can_write: true,
            avoided: false,
        };
        let members: Vec<VoterCandidate> = process.keeper.topology.nodes.values().map(candidate).collect();
        let desired = desired_voters(&members, self.consensus.voters(), process.keeper.own);
        if desired.is_empty() || desired == *self.consensus.voters() {
            return;
        }
        let knows_all = |id: &&NodeId| {
            let node = &self.nodes[number_of(**id)];
            let process = node.process.as_ref().filter(|process| process.keeper.own == **id);
            self.can_talk(leader, node.number)
                && process.is_some_and(|process| process.keeper.topology.version == self.consensus.length())
        };
        let agree = |voters: &BTreeSet<NodeId>| is_majority(voters.iter().filter(knows_all).count(), voters.len());
        let fresh = desired.difference(self.consensus.voters());
        if agree(self.consensus.voters()) && agree(&desired) && fresh.into_iter().all(|id| knows_all(&id)) {
            self.trace.line(self.now_us, format_args!("voters: {desired:?}"));
            self.consensus.change_voters(desired);
        }
    }

    /// What `node::leader::lead` does: one look of the raft leader.
    fn lead(&mut self, leader: usize) {
        let now_us = self.now_us;
        let boot_us = self.nodes[leader].boot_us(now_us);
        let own = self.nodes[leader].id();
        let quorum = self.nodes[leader].process.as_ref().and_then(|it| self.ask_for_quorum(&it.keeper.topology));
        let Some(process) = &mut self.nodes[leader].process else { return };
        let topology = &process.keeper.topology;
        let waits = process.proposals.values().any(|purpose| *purpose == Purpose::Lead);
        if waits || topology.version < self.consensus.length() {
            return;
        }
        process.leading.fencing.heard(own, process.support.report(topology));
        let Leading { watching, fencing, done, .. } = &mut process.leading;
        let mut changes = Vec::new();
        if topology.cluster.is_none() {
            changes.push(TopologyChange::InitCluster { cluster: CLUSTER, hash_key: 7 });
        }
        let now_ms = now_us / 1000;
        changes.extend(fencing.fences(topology, now_ms));
        changes.extend(fencing.next_voters(topology, self.consensus.voters(), boot_us));
        changes.extend(watching.overdue(topology, now_us));
        changes.extend(topology.probations_over(now_ms));
        let gathering = watching.is_gathering(topology, now_us);
        if self.replicas > 0 && topology.cluster.is_some() && duties::replicas(topology) != self.replicas {
            let (name, value) = (duties::REPLICAS.to_owned(), self.replicas.to_string());
            changes.push(TopologyChange::SetConfig { name, value });
        }
        changes.extend(quorum);
        let given_up = watching.given_up(topology, now_us);
        let decided_by = Some((topology.version, gathering, given_up.clone()));
        if *done != decided_by {
            changes.extend(duties::leader_duties(topology, gathering, &given_up));
            *done = decided_by;
            // The same plan once more, seldom: it is what takes most of a run's time. With copies too long; and what is on its
            // way is with two members, which no plan begins with.
            if self.replicas == 0 && topology.slots().iter().all(|record| record.copies.is_empty()) {
                let input = duties::plan_input(topology);
                let plan = planner::plan(&input);
                self.observe(Observation::Planned { input: &input, plan: &plan });
            }
        }
        for change in changes {
            self.propose(leader, change, Purpose::Lead);
        }
    }

    /// A person says CLUSTER FORGET: of a node that is gone for a while, and, when it occurs to them, of those whose disks
    /// are lost.
    fn forget_nodes(&mut self, leader: usize) {
        let mut forgotten: Vec<NodeId> = Vec::new();
        if let Some(number) = self.to_forget {
            match &self.nodes[number].process {
                None => forgotten.push(self.nodes[number].id()),
                Some(_) => self.to_forget = None,
            }
        }
        if !self.chaos || self.random.random_bool(0.05) {
            forgotten.extend(&self.lost);
        }
        let Some(process) = &self.nodes[leader].process else { return };
        let topology = &process.keeper.topology;
        let down = |id| topology.nodes.get(id).filter(|node| node.state == NodeState::Down);
        let change = |node: &topology::Node| TopologyChange::ForgetNode {
            node: node.id,
            incarnation: node.incarnation,
            decided_by: topology.version,
        };
        let changes: Vec<TopologyChange> = forgotten.iter().filter_map(down).map(change).collect();
        if self.to_forget.is_some_and(|number| !topology.nodes.contains_key(&self.nodes[number].id())) {
            self.to_forget = None;
        }
        for change in changes {
            self.propose(leader, change, Purpose::Nothing);
        }
    }

    /// What keeps the cluster from being whole, for whoever reads of a failure.
    pub(crate) fn shares(&self) -> String {
        let of_node = |node: &Node| {
            let member = self.agreed.nodes.get(&node.id()).map(|member| (member.state, member.leaving));
            let known = node
                .process
                .as_ref()
                .map(|process| (process.keeper.topology.version, process.is_current(), process.keeper.owned));
            format!("node {}: state, leaving: {member:?}; knows, is current, owns: {known:?}\n", node.number)
        };
        let nodes: String = self.nodes[..NODES].iter().map(of_node).collect();
        let lost: Vec<_> = self.lost.iter().map(|id| (id, self.agreed.nodes.get(id).map(|node| node.state))).collect();
        let (length, moves) = (self.consensus.length(), duties::moves(&self.agreed));
        let wrong = Slot::all()
            .zip(self.agreed.slots().iter())
            .filter(|(_, record)| record.phase != Phase::Normal || record.copies.len() != self.replicas);
        let wrong: Vec<_> = wrong.take(2).collect();
        format!(
            "{nodes}slots: {wrong:?}\nvoters: {:?}; lost: {lost:?}\nagreed: {length}; moves: {moves:?}",
            self.consensus.voters()
        )
    }

    /// Whether the cluster is whole: every node knows all that is agreed, is registered in this life, owns its share, and
    /// nothing moves.
    pub(crate) fn is_settled(&self) -> bool {
        let share = SLOT_COUNT / NODES;
        self.nodes[..NODES].iter().all(|node| {
            node.process.as_ref().is_some_and(|process| {
                let keeper = &process.keeper;
                let current = keeper.topology.version == self.consensus.length() && process.is_current();
                current && (share..=share + 1).contains(&keeper.owned)
            })
        }) && self.has_copies()
            && self.agreed.slots().iter().all(|record| record.phase == Phase::Normal)
            && self.lost.iter().all(|id| !self.agreed.nodes.contains_key(id))
    }
}

/// The incarnation that a change speaks of, and whose.
pub(crate) fn incarnation_in(change: &TopologyChange) -> Option<(NodeId, Incarnation)> {
    match change {
        TopologyChange::FenceNode { node, incarnation, .. } => Some((*node, *incarnation)),
        TopologyChange::RaiseSupport { node, incarnation, .. } => Some((*node, *incarnation)),
        TopologyChange::Handoff { to, incarnation, .. } => Some((*to, *incarnation)),
        TopologyChange::CopyJoin { node, incarnation, .. }
        | TopologyChange::CopyInSync { node, incarnation, .. }
        | TopologyChange::BeginElection { node, incarnation, .. }
        | TopologyChange::Promote { node, incarnation, .. }
        | TopologyChange::HandOver { node, incarnation, .. } => Some((*node, *incarnation)),
        TopologyChange::MarkDead { node, incarnation, .. } => Some((*node, *incarnation)),
        TopologyChange::RemoveNode { node, incarnation }
        | TopologyChange::Leaving { node, incarnation }
        | TopologyChange::ForgetNode { node, incarnation, .. } => Some((*node, *incarnation)),
        _ => None,
    }
}
