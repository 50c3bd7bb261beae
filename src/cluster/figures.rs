//! What the planner achieves, in figures: the table of `docs/planner.md`, computed.

use super::planner::{NodeState, Owners, PlanInput, PlanNode, plan};
use crate::base::identity::NodeId;
use crate::base::slot::SLOT_COUNT;
use std::collections::BTreeMap;
use std::fmt::Write;
use xxhash_rust::xxh3::xxh3_128;

/// A cluster of nodes of weight 1, all in one zone, that grew one node at a time.
#[derive(Clone, Debug)]
pub struct Grown {
    input: PlanInput,
}

impl Grown {
    /// No nodes yet.
    pub fn new(copies: usize) -> Grown {
        Grown { input: PlanInput { nodes: Vec::new(), copies, table: vec![Owners::new(); SLOT_COUNT] } }
    }

    /// Nodes, and the table they have.
    pub fn input(&self) -> &PlanInput {
        &self.input
    }

    /// Adds the next node and plans; tells how many slots (with all their copies) were shipped.
    pub fn join(&mut self) -> usize {
        let index = self.input.nodes.len();
        let id = NodeId(xxh3_128(&index.to_be_bytes()));
        self.input.nodes.push(PlanNode { id, weight: 1, zone: String::new(), state: NodeState::Live });
        self.advance()
    }

    /// Takes a node out, as if it died, and plans; tells how many slots were shipped or begun anew.
    pub fn leave(&mut self, index: usize) -> usize {
        self.input.nodes[index].state = NodeState::Dead;
        let shipped = self.advance();
        self.input.nodes.remove(index);
        shipped
    }

    fn advance(&mut self) -> usize {
        let next = plan(&self.input).table;
        let shipped = shipped(&self.input.table, &next);
        self.input.table = next;
        shipped
    }
}

/// How many owners of slots are new, that is, how many slots (with all their copies) must be shipped.
pub fn shipped(before: &[Owners], after: &[Owners]) -> usize {
    before.iter().zip(after).map(|(old, new)| new.iter().filter(|id| !old.contains(id)).count()).sum()
}

/// How many contiguous ranges of slots have the same primary.
pub fn primary_ranges(table: &[Owners]) -> usize {
    usize::from(!table.is_empty()) + table.windows(2).filter(|pair| pair[0].first() != pair[1].first()).count()
}

/// The primaries of the busiest node, relative to the mean of all that have any.
pub fn imbalance(table: &[Owners]) -> f64 {
    let mut counts: BTreeMap<NodeId, usize> = BTreeMap::new();
    for primary in table.iter().filter_map(|owners| owners.first()) {
        *counts.entry(*primary).or_default() += 1;
    }
    let most = counts.values().max().copied().unwrap_or(0);
    most as f64 * counts.len() as f64 / SLOT_COUNT as f64
}

/// Bytes of the reply to `CLUSTER SLOTS` (RESP2) when the nodes are 10.0.0.1, 10.0.0.2 and so on at port 6379: per
/// range first and last slot, and per owner address, port, name and an empty list of further names.
pub fn reply_bytes(input: &PlanInput) -> usize {
    let bulk = |length: usize| format!("${length}\r\n").len() + length + 2;
    let addresses: BTreeMap<NodeId, usize> =
        input.nodes.iter().enumerate().map(|(index, node)| (node.id, format!("10.0.0.{}", index + 1).len())).collect();
    let (mut bytes, mut ranges, mut first) = (0, 0, 0);
    for end in 1..=input.table.len() {
        let owners = &input.table[first];
        if input.table.get(end) == Some(owners) {
            continue;
        }
        if !owners.is_empty() {
            ranges += 1;
            bytes += format!("*{}\r\n:{first}\r\n:{}\r\n", 2 + owners.len(), end - 1).len();
            for owner in owners {
                let address = addresses.get(owner).copied().unwrap_or(0);
                bytes += "*4\r\n".len() + bulk(address) + ":6379\r\n".len() + bulk(40) + "*0\r\n".len();
            }
        }
        first = end;
    }
    bytes + format!("*{ranges}\r\n").len()
}

/// The table of figures of `docs/planner.md`: one copy and three, clusters grown to 3, 10, 50 and 100 nodes.
pub fn figures() -> String {
    let mut text = String::from(
        "| Copies | Nodes | Primaries, max/mean | Join, shipped/optimum | Leave, shipped/optimum | Ranges of primaries | CLUSTER SLOTS, bytes |\n\
         |---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for copies in [1, 3] {
        let mut cluster = Grown::new(copies);
        for count in 1..=100usize {
            let shipped = cluster.join();
            if ![3, 10, 50, 100].contains(&count) {
                continue;
            }
            let total = copies * SLOT_COUNT;
            let join = shipped as f64 / (total as f64 / count as f64);
            let table = &cluster.input.table;
            let held = |id: NodeId| table.iter().filter(|owners| owners.contains(&id)).count();
            let lost = held(cluster.input.nodes[count / 2].id);
            let leave = if count > copies {
                format!("{:.3}", cluster.clone().leave(count / 2) as f64 / lost as f64)
            } else {
                "nothing to ship".to_owned()
            };
            let (balance, ranges, bytes) = (imbalance(table), primary_ranges(table), reply_bytes(&cluster.input));
            writeln!(text, "| {copies} | {count} | {balance:.4} | {join:.3} | {leave} | {ranges} | {bytes} |")
                .expect("a string takes everything");
        }
    }
    text
}
