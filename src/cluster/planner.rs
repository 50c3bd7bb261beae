//! The planner: who should own which slot, given who is there and who owns what now. Pure and deterministic.
//!
//! Goal: every node owns its share, to the slot; as few slots as possible move; and the table stays a short list of
//! ranges, because clients ask for it whole (CLUSTER SLOTS).
//!
//! Method. (1) Each node's target is its share rounded down or up; who already has more gets the rounding up, so that
//! only true excess moves. (2) Slots without an owner are filled first: they cost nothing. (3) Then each node below its
//! target takes runs of slots from the edges of the donors' runs. Of all edges it takes the one that adds the fewest
//! ranges to the table, then the one that gives the longest run, then the one nearest a point of its own on the ring.
//! It stops when every node has its target; planning again changes nothing.

use super::ring::Ring;
use crate::base::identity::NodeId;
use crate::base::slot::{SLOT_COUNT, Slot};
use crate::base::slot_ranges::SlotRanges;
use std::collections::BTreeMap;

/// A node that may own slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub id: NodeId,
    /// Its share is proportional to this; 0, and while it drains: it owns nothing.
    pub weight: u32,
}

/// Slots that should go from one owner to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    pub slots: SlotRanges,
    /// `None`: nobody has them, they begin empty.
    pub from: Option<NodeId>,
    pub to: NodeId,
}

/// The owner of every slot, by number.
pub type Table = Vec<Option<NodeId>>;

/// What the table should become, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub table: Table,
    /// By owners, ascending.
    pub moves: Vec<Move>,
}

/// Plans the next table. Owners in `table` that are no candidates give everything away: slots of nodes that may come
/// back must not be passed in as owned by somebody who is not listed.
pub fn plan(candidates: &[Candidate], table: &Table) -> Plan {
    assert_eq!(table.len(), SLOT_COUNT, "a table has an owner, or none, for every slot");
    let mut candidates: Vec<Candidate> = candidates.to_vec();
    candidates.sort_unstable_by_key(|candidate| candidate.id);
    candidates.dedup_by_key(|candidate| candidate.id);
    if candidates.iter().all(|candidate| candidate.weight == 0) {
        return Plan { table: table.clone(), moves: Vec::new() };
    }
    let mut line = Line::new(&candidates, table);
    line.fill();
    line.balance();
    let next = line.table(&candidates, table);
    let moves = moves(table, &next);
    Plan { table: next, moves }
}

/// The differences between two tables, by owners.
fn moves(from: &Table, to: &Table) -> Vec<Move> {
    let mut by_owners: BTreeMap<(Option<NodeId>, NodeId), Vec<Slot>> = BTreeMap::new();
    for (slot, (old, new)) in Slot::all().zip(from.iter().zip(to)) {
        if let Some(new) = new
            && old.as_ref() != Some(new)
        {
            by_owners.entry((*old, *new)).or_default().push(slot);
        }
    }
    let as_move = |((from, to), slots): ((_, _), Vec<Slot>)| Move { slots: slots.into_iter().collect(), from, to };
    by_owners.into_iter().map(as_move).collect()
}

/// How many slots each candidate should own, in their order: shares rounded so that the fewest slots move.
fn targets(candidates: &[Candidate], owned: &[usize]) -> Vec<usize> {
    let total: u64 = candidates.iter().map(|candidate| u64::from(candidate.weight)).sum();
    let share = |candidate: &Candidate| SLOT_COUNT as u64 * u64::from(candidate.weight);
    let mut targets: Vec<usize> = candidates.iter().map(|candidate| (share(candidate) / total) as usize).collect();
    let left = SLOT_COUNT - targets.iter().sum::<usize>();
    // Who has most beyond the rounded share keeps one more; among equals, the larger fraction, then the smaller id.
    let mut order: Vec<usize> =
        (0..candidates.len()).filter(|&index| !share(&candidates[index]).is_multiple_of(total)).collect();
    order.sort_by_key(|&index| {
        let beyond = owned[index].saturating_sub(targets[index]).min(1);
        let fraction = share(&candidates[index]) % total;
        (std::cmp::Reverse(beyond), std::cmp::Reverse(fraction), index)
    });
    for &index in order.iter().take(left) {
        targets[index] += 1;
    }
    targets
}

/// A run of slots with one owner, an index into the candidates; `None`: nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    owner: Option<usize>,
    start: usize,
    length: usize,
}

/// Which end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Edge {
    Left,
    Right,
}

/// All slots as runs, while they are being redistributed.
struct Line {
    runs: Vec<Run>,
    owned: Vec<usize>,
    targets: Vec<usize>,
    ring: Ring,
    points: Vec<Vec<Slot>>,
}

impl Line {
    fn new(candidates: &[Candidate], table: &Table) -> Line {
        let index_of = |owner: &Option<NodeId>| {
            let owner = (*owner)?;
            candidates.binary_search_by_key(&owner, |candidate| candidate.id).ok()
        };
        let mut runs: Vec<Run> = Vec::new();
        let mut owned = vec![0; candidates.len()];
        for (start, owner) in table.iter().map(index_of).enumerate() {
            if let Some(owner) = owner {
                owned[owner] += 1;
            }
            match runs.last_mut() {
                Some(run) if run.owner == owner => run.length += 1,
                _ => runs.push(Run { owner, start, length: 1 }),
            }
        }
        let ring = Ring::new(candidates.iter().map(|candidate| (candidate.id, candidate.weight)));
        let points = candidates.iter().map(|candidate| ring.points_of(candidate.id)).collect();
        let targets = targets(candidates, &owned);
        Line { runs, owned, targets, ring, points }
    }

    /// How many slots a candidate lacks.
    fn need(&self, owner: usize) -> usize {
        self.targets[owner].saturating_sub(self.owned[owner])
    }

    /// How many slots may be taken from an owner; all of those that nobody owns.
    fn surplus(&self, owner: Option<usize>) -> usize {
        owner.map_or(SLOT_COUNT, |owner| self.owned[owner].saturating_sub(self.targets[owner]))
    }

    /// Gives the slots that nobody owns to those who lack some.
    fn fill(&mut self) {
        while let Some(at) = self.runs.iter().position(|run| run.owner.is_none()) {
            let run = self.runs[at];
            // A neighbour that grows makes no new range; else whoever the ring prefers.
            let neighbour = |index: Option<usize>| index.and_then(|i| self.runs.get(i)).and_then(|run| run.owner);
            let left = neighbour(at.checked_sub(1)).filter(|owner| self.need(*owner) > 0);
            let right = neighbour(Some(at + 1)).filter(|owner| self.need(*owner) > 0);
            let (taker, edge) = match (left, right) {
                (Some(left), _) => (left, Edge::Left),
                (None, Some(right)) => (right, Edge::Right),
                (None, None) => match self.preferred(run) {
                    Some(taker) => (taker, Edge::Left),
                    None => return,
                },
            };
            let count = run.length.min(self.need(taker));
            self.take(at, edge, count, taker);
        }
    }

    /// Who should have a run that nobody owns: of those who lack slots, the one with a point nearest to it, unless one
    /// lacks just as many as it has.
    fn preferred(&self, run: Run) -> Option<usize> {
        let start = Slot::new(run.start as u64).unwrap_or_default();
        (0..self.owned.len()).filter(|&owner| self.need(owner) > 0).min_by_key(|&owner| {
            (self.need(owner) != run.length, self.ring.distance(start, &self.points[owner]), owner)
        })
    }

    /// Moves what is beyond the targets to those who lack slots.
    fn balance(&mut self) {
        loop {
            // The neediest first: it finds the longest runs.
            let taker = (0..self.owned.len())
                .filter(|&owner| self.need(owner) > 0)
                .max_by_key(|&owner| (self.need(owner), std::cmp::Reverse(owner)));
            let Some(taker) = taker else { return };
            let Some((at, edge, count)) = self.best_edge(taker) else { return };
            self.take(at, edge, count, taker);
        }
    }

    /// The edge from which a node should take slots, and how many.
    fn best_edge(&self, taker: usize) -> Option<(usize, Edge, usize)> {
        let need = self.need(taker);
        let mut best = None;
        for (at, run) in self.runs.iter().enumerate() {
            let available =
                if run.owner == Some(taker) { 0 } else { self.surplus(run.owner).min(run.length).min(need) };
            if available == 0 {
                continue;
            }
            for edge in [Edge::Left, Edge::Right] {
                let place = if edge == Edge::Left { run.start } else { run.start + run.length - available };
                let slot = Slot::new(place as u64).unwrap_or_default();
                let distance = self.ring.distance(slot, &self.points[taker]);
                let key = (self.added_ranges(at, edge, available, taker), need - available, distance, at, edge);
                if best.as_ref().is_none_or(|(known, _)| key < *known) {
                    best = Some((key, (at, edge, available)));
                }
            }
        }
        best.map(|(_, choice)| choice)
    }

    /// How many ranges the table gains, or loses, by such a step.
    fn added_ranges(&self, at: usize, edge: Edge, count: usize, taker: usize) -> i32 {
        let is_taker =
            |index: Option<usize>| index.and_then(|i| self.runs.get(i)).is_some_and(|r| r.owner == Some(taker));
        let (left, right) = (is_taker(at.checked_sub(1)), is_taker(Some(at + 1)));
        if count == self.runs[at].length {
            return -i32::from(left) - i32::from(right);
        }
        let joins = if edge == Edge::Left { left } else { right };
        i32::from(!joins)
    }

    /// Gives `count` slots at an edge of a run to a node.
    fn take(&mut self, at: usize, edge: Edge, count: usize, taker: usize) {
        let run = self.runs[at];
        if let Some(owner) = run.owner {
            self.owned[owner] -= count;
        }
        self.owned[taker] += count;
        let taken_start = if edge == Edge::Left { run.start } else { run.start + run.length - count };
        let taken = Run { owner: Some(taker), start: taken_start, length: count };
        let rest_start = if edge == Edge::Left { run.start + count } else { run.start };
        let rest = Run { owner: run.owner, start: rest_start, length: run.length - count };
        let mut pieces = if edge == Edge::Left { vec![taken, rest] } else { vec![rest, taken] };
        pieces.retain(|piece| piece.length > 0);
        self.runs.splice(at..=at, pieces);
        // The taken run may now touch another of the taker's.
        let from = at.saturating_sub(1);
        let mut index = from;
        while index + 1 < self.runs.len() && index <= at + 2 {
            if self.runs[index].owner == self.runs[index + 1].owner {
                self.runs[index].length += self.runs[index + 1].length;
                self.runs.remove(index + 1);
            } else {
                index += 1;
            }
        }
    }

    /// The runs as a table. A slot that nobody could be given keeps its owner.
    fn table(&self, candidates: &[Candidate], old: &Table) -> Table {
        let mut table = old.clone();
        for run in &self.runs {
            if let Some(owner) = run.owner {
                table[run.start..run.start + run.length].fill(Some(candidates[owner].id));
            }
        }
        table
    }
}

#[cfg(test)]
mod tests;
