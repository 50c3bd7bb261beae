//! How a view is made: by asking about every slot, or from the view before and what has changed since.

use super::{
    NOBODY, NODES_MAX, NodeIndex, Range, RoutingError, RoutingNode, RoutingParts, RoutingView, SlotPlace, address,
};
use crate::base::identity::NodeId;
use crate::base::slot::{SLOT_COUNT, Slot};
use crate::base::slot_ranges::SlotRanges;
use smallvec::SmallVec;
use std::collections::BTreeMap;

/// A view that is being made, slot by slot in ascending order.
pub(super) struct Building {
    view: RoutingView,
    index_of: BTreeMap<NodeId, NodeIndex>,
    /// The node that was looked up last: neighbouring slots mostly have the same owner.
    found: Option<(NodeId, NodeIndex)>,
    handing_off: SlotRanges,
}

impl Building {
    pub(super) fn new(parts: RoutingParts) -> Result<Building, RoutingError> {
        let RoutingParts { version, this_node, mut nodes, preferred_endpoint, service } = parts;
        let index_of = index_nodes(&mut nodes)?;
        let view = RoutingView {
            version,
            this_node: index_of.get(&this_node).copied(),
            preferred_endpoint,
            service,
            addresses: nodes.iter().map(|node| address(node, preferred_endpoint)).collect(),
            nodes,
            primaries: vec![NOBODY; SLOT_COUNT].into_boxed_slice(),
            handing_off: SlotRanges::default(),
            ranges: Vec::new(),
            lost: Vec::new(),
            owners: Vec::new(),
        };
        Ok(Building { view, index_of, found: None, handing_off: SlotRanges::default() })
    }

    fn index(&mut self, slot: Slot, id: NodeId) -> Result<NodeIndex, RoutingError> {
        if let Some((found, index)) = self.found
            && found == id
        {
            return Ok(index);
        }
        let index = *self.index_of.get(&id).ok_or(RoutingError::UnknownOwner(slot, id))?;
        self.found = Some((id, index));
        Ok(index)
    }

    pub(super) fn ask(
        &mut self,
        slots: impl Iterator<Item = Slot>,
        mut place: impl FnMut(Slot) -> SlotPlace,
    ) -> Result<(), RoutingError> {
        let mut owners: SmallVec<[NodeIndex; 4]> = SmallVec::new();
        for slot in slots {
            let SlotPlace { primary, copies, last_owner, handing_off } = place(slot);
            if handing_off {
                self.handing_off.extend([slot]);
            }
            let Some(primary) = primary else {
                if let Some(last) = last_owner {
                    let last = self.index(slot, last)?;
                    append(&mut self.view.lost, &mut self.view.owners, (slot, slot), &[last]);
                }
                continue;
            };
            owners.clear();
            for id in std::iter::once(primary).chain(copies) {
                owners.push(self.index(slot, id)?);
            }
            self.view.primaries[slot.index()] = owners[0].0;
            append(&mut self.view.ranges, &mut self.view.owners, (slot, slot), &owners);
        }
        Ok(())
    }

    /// Takes over what another view says about the slots from `first` up to, and without, `end`.
    pub(super) fn keep(&mut self, former: &RoutingView, first: usize, end: usize) -> Result<(), RoutingError> {
        if first >= end {
            return Ok(());
        }
        let mut owners: SmallVec<[NodeIndex; 4]> = SmallVec::new();
        for is_lost in [false, true] {
            let ranges = if is_lost { &former.lost } else { &former.ranges };
            let from = ranges.partition_point(|range| range.last.index() < first);
            for range in ranges[from..].iter().take_while(|range| range.first.index() < end) {
                owners.clear();
                for owner in &former.owners[range.owners_start..range.owners_end] {
                    owners.push(self.index(range.first, former.node(*owner).id)?);
                }
                let low = if range.first.index() < first { Slot::new(first as u64) } else { Some(range.first) };
                let high = if range.last.index() < end { Some(range.last) } else { Slot::new(end as u64 - 1) };
                let (Some(low), Some(high)) = (low, high) else { continue };
                if is_lost {
                    append(&mut self.view.lost, &mut self.view.owners, (low, high), &owners);
                } else {
                    append(&mut self.view.ranges, &mut self.view.owners, (low, high), &owners);
                    self.view.primaries[low.index()..=high.index()].fill(owners[0].0);
                }
            }
        }
        let kept = |slot: &Slot| (first..end).contains(&slot.index());
        self.handing_off.extend(former.handing_off.slots().filter(kept));
        Ok(())
    }

    pub(super) fn finish(mut self) -> RoutingView {
        self.view.handing_off = self.handing_off;
        self.view
    }
}

/// Adds slots behind those so far: to the last range if they continue that one.
fn append(ranges: &mut Vec<Range>, all_owners: &mut Vec<NodeIndex>, (first, last): (Slot, Slot), owners: &[NodeIndex]) {
    if let Some(range) = ranges.last_mut()
        && range.last.index() + 1 == first.index()
        && all_owners[range.owners_start..range.owners_end] == *owners
    {
        range.last = last;
        return;
    }
    let owners_start = all_owners.len();
    all_owners.extend_from_slice(owners);
    ranges.push(Range { first, last, owners_start, owners_end: all_owners.len() });
}

/// Sorts the nodes by id and tells where each stands.
fn index_nodes(nodes: &mut [RoutingNode]) -> Result<BTreeMap<NodeId, NodeIndex>, RoutingError> {
    if nodes.len() > NODES_MAX {
        return Err(RoutingError::TooManyNodes(nodes.len()));
    }
    nodes.sort_unstable_by_key(|node| node.id);
    let mut index_of = BTreeMap::new();
    for (index, node) in nodes.iter().enumerate() {
        if index_of.insert(node.id, NodeIndex(index as u16)).is_some() {
            return Err(RoutingError::NodeListedTwice(node.id));
        }
    }
    Ok(index_of)
}
