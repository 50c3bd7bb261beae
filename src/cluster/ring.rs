//! The ring: 256 virtual nodes per unit of weight, and slots at fixed places between them.
//!
//! The points of a node depend on its id alone, so every node computes the same ring, and a join or a leave moves only
//! what lies at its own points. The ring says where a node's runs of slots should begin; how many it gets is the
//! planner's business.

use crate::base::identity::NodeId;
use crate::base::slot::{SLOT_COUNT, Slot};
use xxhash_rust::xxh3::xxh3_64;

/// Points of a node of weight 1.
pub const POINTS_PER_WEIGHT: u32 = 256;

/// The points of some nodes, in ring order.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    points: Vec<(u64, NodeId)>,
}

/// Where a node's point `index` stands. Stable across versions: moving it would move data.
fn point(node: NodeId, index: u32) -> u64 {
    let mut bytes = [0; 20];
    bytes[..16].copy_from_slice(&node.0.to_be_bytes());
    bytes[16..].copy_from_slice(&index.to_be_bytes());
    xxh3_64(&bytes)
}

/// Where a slot stands: slots divide the ring evenly, in their own order.
fn place(slot: Slot) -> u64 {
    (slot.index() as u64) << (64 - SLOT_COUNT.trailing_zeros())
}

/// The slot at or before a place.
fn slot_at(place: u64) -> Slot {
    Slot::new(place >> (64 - SLOT_COUNT.trailing_zeros())).unwrap_or_default()
}

impl Ring {
    /// The ring of these nodes, with their weights.
    pub fn new(nodes: impl IntoIterator<Item = (NodeId, u32)>) -> Ring {
        let mut points: Vec<(u64, NodeId)> = nodes
            .into_iter()
            .flat_map(|(node, weight)| (0..weight * POINTS_PER_WEIGHT).map(move |index| (point(node, index), node)))
            .collect();
        points.sort_unstable();
        Ring { points }
    }

    /// The nodes that a slot prefers, each once: those of the points that follow its place.
    pub fn preference(&self, slot: Slot) -> impl Iterator<Item = NodeId> + '_ {
        let start = self.points.partition_point(|(at, _)| *at < place(slot));
        let mut seen: Vec<NodeId> = Vec::new();
        (0..self.points.len()).filter_map(move |step| {
            let (_, node) = self.points[(start + step) % self.points.len()];
            if seen.contains(&node) {
                return None;
            }
            seen.push(node);
            Some(node)
        })
    }

    /// How far, in slots, a slot is from the nearest point of a node; the number of slots where it has none.
    pub fn distance(&self, slot: Slot, points_of_node: &[Slot]) -> usize {
        let behind = points_of_node.partition_point(|point| *point < slot);
        let near = [points_of_node.get(behind), behind.checked_sub(1).and_then(|index| points_of_node.get(index))];
        near.into_iter().flatten().map(|point| point.index().abs_diff(slot.index())).min().unwrap_or(SLOT_COUNT)
    }

    /// The slots at a node's points, ascending.
    pub fn points_of(&self, node: NodeId) -> Vec<Slot> {
        self.points.iter().filter(|(_, owner)| *owner == node).map(|(at, _)| slot_at(*at)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_never_move() {
        assert_eq!(point(NodeId(1), 0), 9_312_942_327_275_588_066);
        assert_eq!(point(NodeId(1), 1), 12_471_551_547_131_296_157);
    }

    #[test]
    fn every_node_is_preferred_once() {
        let ring = Ring::new((1..=5).map(|id| (NodeId(id << 100), 1)));
        for slot in Slot::all().step_by(997) {
            let mut order: Vec<NodeId> = ring.preference(slot).collect();
            assert_eq!(order.len(), 5);
            order.sort_unstable();
            order.dedup();
            assert_eq!(order.len(), 5);
        }
    }

    #[test]
    fn weight_is_the_number_of_points() {
        let ring = Ring::new([(NodeId(1), 1), (NodeId(2), 3), (NodeId(3), 0)]);
        assert_eq!(ring.points_of(NodeId(1)).len(), 256);
        assert_eq!(ring.points_of(NodeId(2)).len(), 768);
        assert_eq!(ring.points_of(NodeId(3)).len(), 0);
    }
}
