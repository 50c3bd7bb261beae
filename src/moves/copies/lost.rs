//! Writes that only a former primary had: counted when it is back, by the primary that was elected in its place.
//!
//! ```text
//!  the former one, in epoch 7:  1 ... m ...... n    it dies, or is cut off
//!  who was elected, epoch 8:    1 ... m             what is behind m is nowhere else
//! ```
//!
//! Only its primary gives positions in an epoch, so n - m changes are gone, exactly. Where the former primary does not know its
//! n any more, or m is of another epoch than n, nothing is said.

use crate::base::identity::{Epoch, NodeId, Position};
use crate::base::slot::Slot;
use crate::cluster::topology::slot_records::Slots;
use crate::cluster::topology::{Phase, Topology};
use std::collections::HashMap;

/// Who was the primary of the slots that are being elected: the topology does not say it any more.
#[derive(Debug, Default)]
pub(in crate::moves) struct Former(HashMap<Slot, (Epoch, NodeId)>);

impl Former {
    /// Learns what a version of the topology has changed. Some versions may never be seen here.
    pub(in crate::moves) fn follow(&mut self, before: &Topology, topology: &Topology) {
        for slot in topology.slots().changed_since(before.slots()).flat_map(Slots::iter) {
            let (was, record) = (before.slot(slot), topology.slot(slot));
            if record.phase != Phase::Electing {
                self.0.remove(&slot);
            } else if let Some(primary) = was.primary
                && was.epoch.0.checked_add(1) == Some(record.epoch.0)
            {
                self.0.insert(slot, (record.epoch, primary));
            }
        }
    }

    /// Who was the primary until this epoch was to be elected.
    pub(in crate::moves) fn of(&self, slot: Slot, epoch: Epoch) -> Option<NodeId> {
        self.0.get(&slot).filter(|(elected, _)| *elected == epoch).map(|(_, primary)| *primary)
    }
}

/// What a slot began its epoch with here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) position: Position,
    /// Its primary before, if this one was elected and that one has not been heard since.
    pub(super) former: Option<NodeId>,
}

impl Start {
    /// A node says where the slot stands there. How many of its changes are nowhere else, where that is known: once.
    pub(super) fn lost(&mut self, node: NodeId, stands: Position) -> Option<u64> {
        self.former.take_if(|former| *former == node)?;
        let is_known = stands.epoch == self.position.epoch && stands.seq > self.position.seq;
        is_known.then(|| stands.seq - self.position.seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::identity::{ClusterId, Incarnation};
    use crate::base::slot_ranges::SlotRanges;
    use crate::cluster::topology::sample::node;
    use crate::cluster::topology::{Node, TopologyChange};

    const FORMER: NodeId = NodeId(1);
    const COPY: NodeId = NodeId(2);

    fn at(epoch: u32, seq: u64) -> Position {
        Position { epoch: Epoch(epoch), seq }
    }

    #[test]
    fn what_a_former_primary_had_more_of_its_epoch_is_counted_once() {
        let check = |node: NodeId, stands: Position, expected: Option<u64>| {
            let mut start = Start { position: at(7, 10), former: Some(FORMER) };
            assert_eq!(start.lost(node, stands), expected, "{node} at {stands:?}");
            if node == FORMER {
                assert_eq!(start.lost(node, at(7, 99)), None, "a second time");
            } else {
                assert_eq!(start.lost(FORMER, at(7, 11)), Some(1));
            }
        };
        check(FORMER, at(7, 15), Some(5));
        check(FORMER, at(7, 10), None);
        check(FORMER, at(7, 3), None);
        check(FORMER, at(6, 15), None);
        check(FORMER, at(8, 15), None);
        // Another copy that was not asked in time: what it has came from the former primary, which counts it.
        check(COPY, at(7, 15), None);
    }

    #[test]
    fn the_former_primary_is_remembered_while_its_slots_are_elected() {
        let mut versions = vec![Topology::default()];
        let mut agree = |change: TopologyChange| {
            let mut topology = versions.last().expect("the first").clone();
            topology.apply(topology.version + 1, &change);
            versions.push(topology);
        };
        let slots: SlotRanges = Slot::all().take(2).collect();
        agree(TopologyChange::InitCluster { cluster: ClusterId(7), hash_key: 1 });
        for id in [FORMER, COPY] {
            agree(TopologyChange::RegisterNode { node: Node { start_ms: 1, ..node(id) } });
        }
        agree(TopologyChange::Revive { slots: SlotRanges::all(), to: FORMER });
        agree(TopologyChange::CopyJoin { slots: slots.clone(), node: COPY, incarnation: Incarnation(2) });
        let copy = (slots.clone(), COPY, Incarnation(2));
        agree(TopologyChange::CopyInSync { slots: copy.0, node: copy.1, incarnation: copy.2, number: 5 });
        agree(TopologyChange::RegisterNode { node: Node { start_ms: 2, ..node(FORMER) } });
        let (first, last) = (Slot::default(), Slot::all().last().expect("the last"));
        let electing = versions.last().expect("the last").clone();
        assert_eq!(electing.slot(first).phase, Phase::Electing);
        let epoch = electing.slot(first).epoch;
        // All versions, or only the last two of them.
        for seen in [&versions[..], &versions[versions.len() - 2..]] {
            let mut former = Former::default();
            seen.windows(2).for_each(|pair| former.follow(&pair[0], &pair[1]));
            assert_eq!(former.of(first, epoch), Some(FORMER));
            assert_eq!(former.of(first, Epoch(epoch.0 + 1)), None, "of another election");
            assert_eq!(former.of(last, epoch), None, "it has no copy");
        }
        let mut former = Former::default();
        former.follow(&electing, &electing);
        assert_eq!(former.of(first, epoch), None, "nothing was seen before");
    }
}
