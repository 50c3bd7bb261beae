//! The hash ring: where each node's runs of slots begin, and who comes next for a slot.
//!
//! Every node puts 256 points per unit of weight on a circle of 2^64 positions; slot *i* sits at *i*/16384 of it. Going
//! round from a slot, the nodes in the order in which their points are met are its preference order. The positions come
//! from a hash that is the same in every version and on every machine, so nodes never disagree about the ring.

use crate::base::identity::NodeId;
use crate::base::slot::{SLOT_COUNT, Slot};
use std::collections::{BTreeMap, BTreeSet};
use xxhash_rust::xxh3::xxh3_64;

/// Points on the ring for one unit of weight.
pub const POINTS_PER_WEIGHT: u32 = 256;

/// Weights above this put no further points on the ring, which bounds its size; quotas still follow the full weight.
const MAX_RING_WEIGHT: u32 = 64;

/// The distance between two neighbouring slots on the circle.
const SLOT_DISTANCE: u64 = 1 << (64 - SLOT_COUNT.trailing_zeros());

/// The points of all nodes, in the order in which they stand on the circle.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    points: Vec<(u64, NodeId)>,
    zones: BTreeMap<NodeId, String>,
}

impl Ring {
    /// The ring of these nodes: id, weight, and zone of each. A node of weight 0 has no points.
    pub fn new<'a>(nodes: impl IntoIterator<Item = (NodeId, u32, &'a str)>) -> Ring {
        let mut ring = Ring::default();
        for (id, weight, zone) in nodes {
            if ring.zones.insert(id, zone.to_owned()).is_none() {
                ring.points.extend(node_points(id, weight).map(|position| (position, id)));
            }
        }
        ring.points.sort_unstable();
        ring
    }

    /// All nodes with points, each once, as met when going round from the slot: the first of every zone, then the rest.
    pub fn preference(&self, slot: Slot) -> Vec<NodeId> {
        let (mut first_of_zone, mut others) = (Vec::new(), Vec::new());
        let (mut seen, mut zones) = (BTreeSet::new(), BTreeSet::new());
        let start = self.points.partition_point(|&(position, _)| position < slot_position(slot));
        for &(_, id) in self.points[start..].iter().chain(&self.points[..start]) {
            if !seen.insert(id) {
                continue;
            }
            let new_zone = self.zones.get(&id).is_some_and(|zone| zones.insert(zone.as_str()));
            if new_zone {
                first_of_zone.push(id)
            } else {
                others.push(id)
            }
            if seen.len() == self.zones.len() {
                break;
            }
        }
        first_of_zone.append(&mut others);
        first_of_zone
    }
}

/// For every slot, how many slots away the nearest point of this node is.
pub fn distances(id: NodeId, weight: u32) -> Vec<u16> {
    let far = SLOT_COUNT as u16;
    let mut distances = vec![far; SLOT_COUNT];
    for position in node_points(id, weight) {
        distances[(position / SLOT_DISTANCE) as usize] = 0;
    }
    // Twice round in both directions, so that the shortest way across the end of the table is found too.
    for lap in [0..2 * SLOT_COUNT, 0..2 * SLOT_COUNT] {
        let mut nearest = far;
        for step in lap {
            let distance = &mut distances[step % SLOT_COUNT];
            nearest = nearest.saturating_add(1).min(*distance).min(far);
            *distance = nearest;
        }
        distances.reverse();
    }
    distances
}

/// Where a slot sits on the circle.
fn slot_position(slot: Slot) -> u64 {
    u64::from(slot.number()) * SLOT_DISTANCE
}

/// The positions of a node's points: the hash of its id (16 bytes, most significant first) and the point's index (4 bytes).
fn node_points(id: NodeId, weight: u32) -> impl Iterator<Item = u64> {
    (0..weight.min(MAX_RING_WEIGHT) * POINTS_PER_WEIGHT).map(move |index| {
        let mut bytes = [0u8; 20];
        bytes[..16].copy_from_slice(&id.0.to_be_bytes());
        bytes[16..].copy_from_slice(&index.to_be_bytes());
        xxh3_64(&bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(number: u16) -> Slot {
        Slot::new(u64::from(number)).expect("a slot")
    }

    /// A change of these numbers would make a new version place slots elsewhere than the version before it.
    #[test]
    fn the_hash_never_changes() {
        let points: Vec<u64> = node_points(NodeId(0x0123_4567_89ab_cdef_0011_2233_4455_6677), 1).take(3).collect();
        assert_eq!(points, PINNED);
    }

    const PINNED: [u64; 3] = [12464367232340764215, 3198209022246547458, 3736264085714103323];

    #[test]
    fn every_node_is_preferred_once_and_zones_come_first() {
        let zone = |id: u128| ["a", "b", "c"][id as usize % 3];
        let ring = Ring::new((1..=9).map(|id| (NodeId(id), 1, zone(id))));
        for number in [0, 1, 8191, 16383] {
            let order = ring.preference(slot(number));
            let zones: BTreeSet<&str> = order[..3].iter().map(|id| zone(id.0)).collect();
            assert_eq!((order.len(), zones.len()), (9, 3));
            assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), 9);
        }
    }

    #[test]
    fn the_first_preference_owns_the_next_point() {
        let ring = Ring::new((1..=5).map(|id| (NodeId(id), 2, "")));
        for at in Slot::all().step_by(97) {
            let next = ring.points.iter().find(|point| point.0 >= slot_position(at)).unwrap_or(&ring.points[0]);
            assert_eq!(ring.preference(at)[0], next.1);
        }
    }

    #[test]
    fn a_ring_may_be_empty() {
        assert!(Ring::default().preference(slot(5)).is_empty());
        assert!(Ring::new([(NodeId(1), 0, "a")]).preference(slot(5)).is_empty());
        assert!(distances(NodeId(1), 0).iter().all(|&distance| distance == SLOT_COUNT as u16));
    }

    #[test]
    fn distances_are_the_shortest_way_round() {
        let points: Vec<i64> = node_points(NodeId(7), 1).map(|position| (position / SLOT_DISTANCE) as i64).collect();
        let distances = distances(NodeId(7), 1);
        for number in (0..SLOT_COUNT as i64).step_by(61).chain([0, 16383]) {
            let apart = |point: &i64| (point - number).abs().min(SLOT_COUNT as i64 - (point - number).abs());
            assert_eq!(i64::from(distances[number as usize]), points.iter().map(apart).min().expect("has points"));
        }
    }
}
