//! The planner: from the nodes and the table of now to the table that should be.
//!
//! A pure function, the same on every node. It changes as little as possible: the dead leave, a live copy takes over
//! where a primary died, vacancies are filled in the order the ring prefers, and beyond that only what a node holds
//! above its quota moves to nodes below theirs, in contiguous runs. Primaries are then balanced by swapping roles among
//! the copies of a slot, which ships nothing. Planning again from its own result changes nothing.
//! `docs/planner.md` explains the rules and has the figures.

pub use super::figures::figures;
use super::quota::{self, Member};
use super::ring::{self, Ring};
use super::runs::{Offer, Run};
use crate::base::identity::NodeId;
use crate::base::slot::{SLOT_COUNT, Slot};
use crate::base::slot_ranges::SlotRanges;
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet};

/// The nodes that hold a slot: the primary first, then its copies. Empty where nobody does.
pub type Owners = SmallVec<[NodeId; 3]>;

/// How far a node can be counted on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum NodeState {
    /// Holds its share.
    Live,
    /// Holds its share, and leads no slot that somebody else can lead: it is gone too often.
    Following,
    /// Still serves what it holds, and gives it up as soon as somebody else can hold it.
    Draining,
    /// Gone, with everything it held.
    Dead,
}

/// A node as the planner sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlanNode {
    pub id: NodeId,
    /// Its share relative to the others'; a node of weight 0 is treated as draining.
    pub weight: u32,
    /// Copies of a slot stand in different zones where there are enough of them.
    pub zone: String,
    pub state: NodeState,
}

/// What a plan depends on; the order of the nodes does not matter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlanInput {
    /// Every node known; of two with the same id one counts. Owners that are not among them are taken for dead.
    pub nodes: Vec<PlanNode>,
    /// Nodes per slot, the primary included; as many as there are where there are fewer.
    pub copies: usize,
    /// Owners by slot; slots beyond its end have none.
    pub table: Vec<Owners>,
}

/// What a move means for the slots in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum MoveKind {
    /// `to` becomes primary in place of a primary that was lost. It already serves the slot where it holds a copy, and
    /// begins empty where nobody does.
    Revive,
    /// The primary `from` hands over to `to`, which may hold a copy already.
    Primary,
    /// `to` gets a copy from the primary `from`.
    Copy,
}

/// One step of the way to the new table. Owners that are only dropped need no move.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Move {
    pub slots: SlotRanges,
    /// Who has the data: the live primary of the old table, or the copy that took over. `None` where it is lost, and
    /// for [`MoveKind::Revive`].
    pub from: Option<NodeId>,
    pub to: NodeId,
    pub kind: MoveKind,
}

/// The next table and the way there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Owners of each of the 16384 slots.
    pub table: Vec<Owners>,
    /// By kind, source and destination; no slot is in two moves to the same node.
    pub moves: Vec<Move>,
}

/// Plans the next table. Deterministic; linear in the slots times the nodes that change.
pub fn plan(input: &PlanInput) -> Plan {
    let mut draft = Draft::new(input);
    let current = draft.owners.clone();
    draft.settle(input.copies);
    let table: Vec<Owners> = draft.owners.iter().map(|owners| draft.named(owners)).collect();
    let moves = draft.moves(&current);
    Plan { table, moves }
}

/// Rounds of improvement. One is enough for balance; further ones only confirm that nothing is left to do.
const ROUNDS: usize = 4;

/// Holders by index into the nodes, the primary first.
type Holders = SmallVec<[usize; 4]>;

/// A table being worked on.
struct Draft<'a> {
    /// By id, without the dead.
    nodes: Vec<&'a PlanNode>,
    /// Their zones, numbered.
    zones: Vec<usize>,
    owners: Vec<Holders>,
    /// Whether the slot's primary was lost, so that whoever takes over is new in the role anyway.
    orphaned: Vec<bool>,
    /// Ascending first slots of segments that have the same owners throughout.
    starts: Vec<usize>,
    /// How many slots each node holds.
    held: Vec<usize>,
    /// How many it should hold.
    quota: Vec<usize>,
    /// Distances of slots to each node's points on the ring, for those that had to receive.
    distances: Vec<Option<Vec<u16>>>,
}

impl<'a> Draft<'a> {
    /// The table without the dead; the first live owner of a slot is its primary.
    fn new(input: &'a PlanInput) -> Draft<'a> {
        let mut nodes: Vec<&PlanNode> = input.nodes.iter().collect();
        nodes.sort_by(|a, b| (a.id, a.state, a.weight, &a.zone).cmp(&(b.id, b.state, b.weight, &b.zone)));
        nodes.dedup_by_key(|node| node.id);
        nodes.retain(|node| node.state != NodeState::Dead);
        let mut held = vec![0; nodes.len()];
        let mut owners = vec![Holders::new(); SLOT_COUNT];
        let mut orphaned = vec![true; SLOT_COUNT];
        for (slot, (holders, ids)) in owners.iter_mut().zip(&input.table).enumerate() {
            for (position, id) in ids.iter().enumerate() {
                if let Ok(index) = nodes.binary_search_by_key(id, |node| node.id)
                    && !holders.contains(&index)
                {
                    holders.push(index);
                    held[index] += 1;
                    orphaned[slot] &= position > 0;
                }
            }
        }
        let names: BTreeSet<&str> = nodes.iter().map(|node| node.zone.as_str()).collect();
        let zones = nodes.iter().map(|node| names.range(..node.zone.as_str()).count()).collect();
        let quota = vec![0; nodes.len()];
        let distances = vec![None; nodes.len()];
        Draft { nodes, zones, owners, orphaned, starts: Vec::new(), held, quota, distances }
    }

    /// The weight that counts: none for a node that is to hold nothing.
    fn weight(&self, node: usize) -> u64 {
        let node = self.nodes[node];
        if matches!(node.state, NodeState::Live | NodeState::Following) { u64::from(node.weight) } else { 0 }
    }

    /// The weight that counts where primaries are shared. Where everybody is gone too often, somebody has to lead.
    fn weight_as_primary(&self, node: usize) -> u64 {
        let leads = |node: usize| self.nodes[node].state == NodeState::Live && self.weight(node) > 0;
        if leads(node) || !(0..self.nodes.len()).any(leads) { self.weight(node) } else { 0 }
    }

    fn settle(&mut self, copies: usize) {
        let able = (0..self.nodes.len()).filter(|&node| self.weight(node) > 0).count();
        let copies = copies.min(able);
        if copies == 0 {
            return; // Nobody to move to: those who are leaving keep what they have.
        }
        for _ in 0..ROUNDS {
            let before = self.owners.clone();
            self.set_quotas(copies);
            self.drop_surplus(copies);
            self.fill_vacancies(copies);
            self.level_all();
            self.separate_zones(copies);
            self.balance_primaries();
            if self.owners == before {
                return;
            }
        }
    }

    fn set_quotas(&mut self, copies: usize) {
        let members: Vec<Member<'_>> = (0..self.nodes.len())
            .map(|node| Member { weight: self.weight(node), zone: &self.nodes[node].zone, held: self.held[node] })
            .collect();
        self.quota = quota::quotas(&members, copies);
    }

    fn excess(&self, node: usize) -> usize {
        self.held[node].saturating_sub(self.quota[node])
    }

    fn deficit(&self, node: usize) -> usize {
        self.quota[node].saturating_sub(self.held[node])
    }

    /// Drops owners beyond the number of copies: those that are leaving first, then those above their quota.
    fn drop_surplus(&mut self, copies: usize) {
        for slot in 0..SLOT_COUNT {
            while self.owners[slot].len() > copies {
                let rank = |&at: &usize| {
                    let node = self.owners[slot][at];
                    (self.weight(node) > 0, self.excess(node) == 0, at == 0, node)
                };
                let Some(at) = (0..self.owners[slot].len()).min_by_key(rank) else { break };
                let node = self.owners[slot].remove(at);
                self.held[node] -= 1;
            }
        }
    }

    /// Gives every slot its number of copies: by extending a neighbour's run, else as the ring prefers.
    fn fill_vacancies(&mut self, copies: usize) {
        if self.owners.iter().all(|holders| holders.len() >= copies) {
            return;
        }
        let ring = Ring::new((0..self.nodes.len()).filter(|&node| self.weight(node) > 0).map(|node| {
            let node = self.nodes[node];
            (node.id, node.weight, node.zone.as_str())
        }));
        let zones = self.able_zones();
        for pass in 0..copies {
            // Round by round, so that nobody fills up with primaries and leaves only copies to others.
            let most: Vec<usize> = self.quota.iter().map(|quota| (quota * (pass + 1)).div_ceil(copies)).collect();
            for backwards in [false, true] {
                for step in 1..SLOT_COUNT {
                    let slot = if backwards { SLOT_COUNT - 1 - step } else { step };
                    let neighbour = if backwards { slot + 1 } else { slot - 1 };
                    if self.owners[slot].len() <= pass
                        && let Some(&node) = self.owners[neighbour].get(self.owners[slot].len())
                        && self.held[node] < most[node]
                        && self.suits(node, slot, zones)
                    {
                        self.add(node, slot);
                    }
                }
            }
            let mut last = None;
            for slot in Slot::all() {
                if self.owners[slot.index()].len() > pass {
                    continue;
                }
                let fits = |node: &usize| self.held[*node] < most[*node] && self.suits(*node, slot.index(), zones);
                let node = last.filter(fits).or_else(|| self.preferred(&ring, slot, &most));
                if let Some(node) = node {
                    self.add(node, slot.index());
                }
                last = node;
            }
        }
    }

    /// Who should fill a vacancy of the slot: the first in its preference order that is below quota and in a new zone,
    /// or else below quota, or else in a new zone, or else that does not hold it yet.
    fn preferred(&self, ring: &Ring, slot: Slot, most: &[usize]) -> Option<usize> {
        let order: Vec<usize> = ring
            .preference(slot)
            .into_iter()
            .filter_map(|id| self.nodes.binary_search_by_key(&id, |node| node.id).ok())
            .filter(|node| !self.owners[slot.index()].contains(node))
            .collect();
        order.into_iter().min_by_key(|&node| (self.held[node] >= most[node], !self.welcome(node, slot.index())))
    }

    /// Whether the node would bring the slot to a new zone.
    fn welcome(&self, node: usize, slot: usize) -> bool {
        self.owners[slot].iter().all(|&other| self.zones[other] != self.zones[node])
    }

    /// Whether the node may fill a vacancy of the slot: in a new zone, as long as there is one among so many.
    fn suits(&self, node: usize, slot: usize, zones: usize) -> bool {
        let holders = &self.owners[slot];
        let different = (0..holders.len()).filter(|&at| !self.is_doubled(slot, at)).count();
        !holders.contains(&node) && (different >= zones || self.welcome(node, slot))
    }

    /// How many zones have a node that can hold slots.
    fn able_zones(&self) -> usize {
        let able = (0..self.nodes.len()).filter(|&node| self.weight(node) > 0);
        able.map(|node| self.zones[node]).collect::<BTreeSet<_>>().len()
    }

    fn add(&mut self, node: usize, slot: usize) {
        self.owners[slot].push(node);
        self.held[node] += 1;
    }

    /// Whether `to` may take the place of the holder at this position without two zones becoming one.
    fn may_replace(&self, slot: usize, position: usize, to: usize, zones_matter: bool) -> bool {
        let holders = &self.owners[slot];
        if holders.contains(&to) {
            return false;
        }
        let others_in =
            |zone: usize| holders.iter().enumerate().any(|(at, &other)| at != position && self.zones[other] == zone);
        !zones_matter || !others_in(self.zones[to]) || others_in(self.zones[holders[position]])
    }

    fn level_all(&mut self) {
        self.find_segments();
        for zones_matter in [true, false] {
            self.level(zones_matter);
            self.level_through_others(zones_matter);
        }
    }

    /// Moves the excess of some to the deficit of others.
    fn level(&mut self, zones_matter: bool) {
        for receiver in 0..self.nodes.len() {
            while self.deficit(receiver) > 0 {
                let Some(run) = self.best_run(receiver, self.deficit(receiver), zones_matter) else { break };
                self.give(run, receiver);
            }
        }
    }

    /// Where a receiver cannot take what others have too much of, a third node takes that, and gives of its own.
    fn level_through_others(&mut self, zones_matter: bool) {
        for receiver in 0..self.nodes.len() {
            for middle in (0..self.nodes.len()).filter(|&middle| middle != receiver) {
                while self.deficit(receiver) > 0 {
                    let Some(gives) = self.best_run_of(middle, receiver, self.deficit(receiver), zones_matter) else {
                        break;
                    };
                    let Some(takes) = self.best_run(middle, gives.length, zones_matter) else { break };
                    self.give(takes, middle);
                    self.give(Run { length: takes.length, ..gives }, receiver);
                }
            }
        }
    }

    /// The best run of at most this many slots that nodes above their quota can give to the receiver.
    fn best_run(&mut self, receiver: usize, most: usize, zones_matter: bool) -> Option<Run> {
        let distances = self.distances(receiver);
        let offer = Offer {
            starts: &self.starts,
            donor: |slot: usize| self.donor(slot, receiver, zones_matter),
            limit: |donor: usize| self.excess(donor).min(most),
            held: |slot: usize| self.owners[slot].contains(&receiver),
            distances: &distances,
        };
        let best = offer.best();
        self.distances[receiver] = Some(distances);
        best
    }

    /// The best run of at most this many slots that this one donor, whatever its quota, can give to the receiver.
    fn best_run_of(&mut self, donor: usize, receiver: usize, most: usize, zones_matter: bool) -> Option<Run> {
        let distances = self.distances(receiver);
        let offer = Offer {
            starts: &self.starts,
            donor: |slot: usize| {
                let position = self.owners[slot].iter().position(|&node| node == donor)?;
                self.may_replace(slot, position, receiver, zones_matter).then_some(donor)
            },
            limit: |_| most,
            held: |slot: usize| self.owners[slot].contains(&receiver),
            distances: &distances,
        };
        let best = offer.best();
        self.distances[receiver] = Some(distances);
        best
    }

    /// Brings copies of a slot that share a zone into different ones, as far as quotas allow.
    fn separate_zones(&mut self, copies: usize) {
        let unavoidable = SLOT_COUNT * copies.saturating_sub(self.able_zones());
        let mut together = self.zones_shared();
        while together > unavoidable {
            let before = (self.owners.clone(), self.held.clone());
            self.force_apart();
            self.level_all();
            let left = self.zones_shared();
            if left >= together {
                (self.owners, self.held) = before;
                self.find_segments();
                return;
            }
            together = left;
        }
    }

    /// How many copies stand in a zone that another owner of their slot is in.
    fn zones_shared(&self) -> usize {
        (0..SLOT_COUNT).map(|slot| (0..self.owners[slot].len()).filter(|&at| self.is_doubled(slot, at)).count()).sum()
    }

    /// Whether the owner at this position stands in the zone of one before it.
    fn is_doubled(&self, slot: usize, position: usize) -> bool {
        let holders = &self.owners[slot];
        holders[..position].iter().any(|&other| self.zones[other] == self.zones[holders[position]])
    }

    /// Replaces copies in a zone that their slot has already by nodes of other zones, without regard to quotas.
    fn force_apart(&mut self) {
        let mut last = None;
        for slot in 0..SLOT_COUNT {
            for position in 0..self.owners[slot].len() {
                if !self.is_doubled(slot, position) {
                    continue;
                }
                let able = |node: &usize| self.weight(*node) > 0 && self.welcome(*node, slot);
                let room = |&node: &usize| (self.held[node] as i64 - self.quota[node] as i64, node);
                let heir = last.filter(able).or_else(|| (0..self.nodes.len()).filter(able).min_by_key(room));
                if let Some(heir) = heir {
                    let donor = std::mem::replace(&mut self.owners[slot][position], heir);
                    self.held[donor] -= 1;
                    self.held[heir] += 1;
                }
                last = heir.filter(|&heir| self.deficit(heir) > 0);
            }
        }
    }

    fn find_segments(&mut self) {
        let state = |slot: usize| (&self.owners[slot], self.orphaned[slot]);
        let differ = |&slot: &usize| slot == 0 || state(slot) != state(slot - 1);
        self.starts = (0..SLOT_COUNT).filter(differ).collect();
    }

    /// Keeps the segments uniform when the owners of a run change.
    fn cut_segments(&mut self, run: Run) {
        for at in [run.first, run.first + run.length] {
            if let Err(index) = self.starts.binary_search(&at)
                && at < SLOT_COUNT
            {
                self.starts.insert(index, at);
            }
        }
    }

    /// Who of the slot's holders gives it to the receiver: one with a copy rather than the primary.
    fn donor(&self, slot: usize, receiver: usize, zones_matter: bool) -> Option<usize> {
        let holders = self.owners[slot].iter().copied().enumerate();
        holders
            .rev()
            .find(|&(at, node)| self.excess(node) > 0 && self.may_replace(slot, at, receiver, zones_matter))
            .map(|(_, node)| node)
    }

    fn give(&mut self, run: Run, receiver: usize) {
        self.cut_segments(run);
        for slot in run.slots() {
            if let Some(holder) = self.owners[slot].iter_mut().find(|node| **node == run.donor) {
                *holder = receiver;
                self.held[run.donor] -= 1;
                self.held[receiver] += 1;
            }
        }
    }

    /// Takes the distances of a receiver out of the store, to be put back after use.
    fn distances(&mut self, node: usize) -> Vec<u16> {
        let known = self.distances[node].take();
        known.unwrap_or_else(|| ring::distances(self.nodes[node].id, self.nodes[node].weight))
    }

    fn named(&self, holders: &Holders) -> Owners {
        holders.iter().map(|&node| self.nodes[node].id).collect()
    }

    /// The moves from the table as it stood without the dead (`current`) to the draft.
    fn moves(&self, current: &[Holders]) -> Vec<Move> {
        let mut moves: BTreeMap<(MoveKind, Option<NodeId>, NodeId), SlotRanges> = BTreeMap::new();
        for slot in Slot::all() {
            let (old, new) = (&current[slot.index()], &self.owners[slot.index()]);
            let Some(&primary) = new.first() else { continue };
            // A copy that takes over does so at once; if the role then goes to a node without data, it hands it over.
            let mut source = old.first().copied();
            let mut add = |kind, from: Option<usize>, to: usize| {
                let key = (kind, from.map(|node| self.nodes[node].id), self.nodes[to].id);
                moves.entry(key).or_default().extend([slot]);
            };
            if self.orphaned[slot.index()] {
                source = if old.is_empty() || old.contains(&primary) { Some(primary) } else { source };
                if let Some(heir) = source {
                    add(MoveKind::Revive, None, heir);
                }
            }
            if source != Some(primary) {
                add(MoveKind::Primary, source, primary);
            }
            for &copy in new.iter().skip(1).filter(|copy| !old.contains(copy)) {
                add(MoveKind::Copy, source, copy);
            }
        }
        moves.into_iter().map(|((kind, from, to), slots)| Move { slots, from, to, kind }).collect()
    }
}

mod roles;
#[cfg(test)]
mod tests;
