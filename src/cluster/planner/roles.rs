//! Balancing primaries without shipping anything: owners of a slot swap roles.
//!
//! A node with too many primaries hands some to another owner of the same slots. Where none of those has room, it goes
//! on from there: the shortest chain of such steps that ends at a node with too few.

use super::Draft;
use crate::cluster::quota::{self, Claim};
use crate::cluster::runs::Offer;
use std::collections::VecDeque;

impl Draft<'_> {
    /// Swaps roles among the holders of slots until the primaries are shared by weight as far as that goes.
    pub(super) fn balance_primaries(&mut self) {
        if self.owners.iter().all(|holders| holders.len() < 2) {
            return;
        }
        self.find_segments();
        let count = self.nodes.len();
        let mut primaries = vec![0usize; count];
        for holders in &self.owners {
            if let Some(&primary) = holders.first() {
                primaries[primary] += 1;
            }
        }
        let claims: Vec<Claim> = (0..count)
            .map(|node| Claim {
                weight: self.weight_as_primary(node),
                least: 0,
                most: self.held[node],
                held: primaries[node],
            })
            .collect();
        let goal = quota::divide(self.owners.iter().filter(|holders| !holders.is_empty()).count(), &claims);
        // By primary and copy: how many slots have this pair.
        let mut pairs = vec![0usize; count * count];
        for holders in &self.owners {
            for &copy in holders.iter().skip(1) {
                pairs[holders[0] * count + copy] += 1;
            }
        }
        while let Some(path) = chain(&primaries, &goal, &pairs) {
            let (from, to) = (path[0], path[path.len() - 1]);
            let narrowest = path.windows(2).map(|step| pairs[step[0] * count + step[1]]).min().unwrap_or(0);
            let amount = narrowest.min(primaries[from] - goal[from]).min(goal[to] - primaries[to]);
            // From the far end, so that nobody gets a slot in this chain that it would pass on in it.
            for step in path.windows(2).rev() {
                self.swap_roles(step[0], step[1], amount, &mut pairs);
            }
            primaries[from] -= amount;
            primaries[to] += amount;
        }
    }

    /// Makes `to` primary of this many slots that `from` is primary of and `to` holds.
    fn swap_roles(&mut self, from: usize, to: usize, amount: usize, pairs: &mut [usize]) {
        let count = self.nodes.len();
        let distances = self.distances(to);
        let mut open = amount;
        // Slots that change their primary in any case come first.
        let mut orphaned = true;
        while open > 0 {
            let offer = Offer {
                starts: &self.starts,
                donor: |slot: usize| {
                    let holders = &self.owners[slot];
                    let able = holders.first() == Some(&from) && holders.contains(&to);
                    (able && self.orphaned[slot] == orphaned).then_some(from)
                },
                limit: |_| open,
                held: |slot: usize| self.owners[slot].first() == Some(&to),
                distances: &distances,
            };
            let Some(run) = offer.best() else {
                if !orphaned {
                    break;
                }
                orphaned = false;
                continue;
            };
            open -= run.length;
            self.cut_segments(run);
            for slot in run.slots() {
                let holders = &mut self.owners[slot];
                for &copy in holders.iter().skip(1) {
                    pairs[from * count + copy] -= 1;
                }
                if let Some(at) = holders.iter().position(|&node| node == to) {
                    holders.swap(0, at);
                }
                for &copy in holders.iter().skip(1) {
                    pairs[to * count + copy] += 1;
                }
            }
        }
        self.distances[to] = Some(distances);
    }
}

/// The shortest chain of nodes from one with too many primaries to one with too few, each step a pair of primary and
/// copy that some slot has; `None` where there is none.
fn chain(primaries: &[usize], goal: &[usize], pairs: &[usize]) -> Option<Vec<usize>> {
    let count = primaries.len();
    for start in (0..count).filter(|&node| primaries[node] > goal[node]) {
        let mut reached_from: Vec<Option<usize>> = vec![None; count];
        reached_from[start] = Some(start);
        let mut queue = VecDeque::from([start]);
        while let Some(node) = queue.pop_front() {
            if primaries[node] < goal[node] {
                let mut path = vec![node];
                let mut at = node;
                while let Some(previous) = reached_from[at].filter(|&previous| previous != at) {
                    path.push(previous);
                    at = previous;
                }
                path.reverse();
                return Some(path);
            }
            for next in (0..count).filter(|&next| pairs[node * count + next] > 0) {
                if reached_from[next].is_none() {
                    reached_from[next] = Some(node);
                    queue.push_back(next);
                }
            }
        }
    }
    None
}
