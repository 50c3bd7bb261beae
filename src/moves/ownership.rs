//! What a node does about its slots when it learns a topology, decided without the keys.
//!
//! Invariant: a slot is served only with the keys that belong to its epoch: those that were here all the time, those of
//! exactly the copy that was agreed to be the primary, or none where the slot begins anew.

use crate::base::identity::{Epoch, Incarnation, NodeId};
use crate::base::slot::{SLOT_COUNT, Slot};
use crate::cluster::topology::slot_records::Slots;
use crate::cluster::topology::{Phase, SlotRecord, Topology};
use crate::cluster::view::is_current;
use crate::engine::shard::SlotState;
use crate::moves::copies::{CopyTable, is_kept, own_number};
use std::sync::Arc;

/// What is to be done about a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It begins anew: what is here of it is of another epoch, and is dropped.
    BeginAnew(Slot),
    Set {
        slot: Slot,
        state: SlotState,
        epoch: Epoch,
    },
    /// Somebody else's slot: whether those who may read copies are shown what is here of it.
    ShowCopy {
        slot: Slot,
        is_complete: bool,
    },
}

/// What follows from a version of the topology.
#[derive(Debug, Default)]
pub struct Followed {
    /// In this order, before requests see the version.
    pub actions: Vec<Action>,
    /// Slots of which nothing is to be kept, once requests see the version: this node has no part in them any more.
    pub dropped: Vec<Slot>,
}

/// What this node does with its slots.
#[derive(Debug)]
pub struct Ownership {
    node: NodeId,
    /// As they were set last.
    states: Vec<SlotState>,
    /// The epoch of which this node has the keys as the primary; `None`: of none.
    held: Vec<Option<Epoch>>,
    /// The version that was followed last, and whether it meant this life of the node.
    followed: Option<(Arc<Topology>, bool)>,
}

impl Ownership {
    /// Every slot is somebody else's, as far as is known. `held`: by slot, the epoch whose keys a former life has left here;
    /// they count where the slot is still this node's, in that epoch.
    pub fn new(node: NodeId, held: Vec<Option<Epoch>>) -> Ownership {
        let states = vec![SlotState::Elsewhere; SLOT_COUNT];
        Ownership { node, states, held, followed: None }
    }

    /// What follows from the newest topology, known to this life of the node.
    pub fn follow(
        &mut self,
        topology: &Arc<Topology>,
        incarnation: Option<Incarnation>,
        copies: &mut CopyTable,
    ) -> Followed {
        let mut followed = Followed::default();
        let current = is_current(topology, self.node, incarnation);
        let pieces: Vec<Slots> = match self.followed.replace((Arc::clone(topology), current)) {
            Some((before, was_current)) if was_current == current => {
                topology.slots().changed_since(before.slots()).collect()
            }
            _ => Slots::all().collect(),
        };
        for slot in pieces.into_iter().flat_map(Slots::iter) {
            let record = topology.slot(slot);
            let mine = record.primary == Some(self.node);
            // A version that does not know this life may be older than what the former one has left.
            if mine && current {
                self.take(slot, record, copies, &mut followed.actions);
            } else if current {
                let number = own_number(record, self.node, incarnation);
                let own = record.copies.on(self.node);
                let is_kept = own.is_some_and(|copy| is_kept(copy, incarnation));
                let held = self.held[slot.index()].take();
                let has_all = held.is_some_and(|epoch| epoch.0 > 0) || is_kept && copies.has_left_of(slot);
                // What a log has of a slot that begins to be copied may be a part of it.
                let is_ready = number.is_some() && own.is_some_and(|copy| copy.ready);
                if held.is_some() && !is_ready {
                    copies.leave(slot);
                }
                match number {
                    Some(number) => keep_copy(slot, number, has_all && is_ready, copies),
                    // It will join anew, and mostly has what is sent then.
                    None if is_kept && copies.leave_again(slot) => {}
                    None if copies.end_copy(slot) => followed.dropped.push(slot),
                    None => {}
                }
            }
            let state = match record.phase {
                _ if !mine || !current => SlotState::Elsewhere,
                Phase::Dead | Phase::Electing => SlotState::Elsewhere,
                Phase::HandingOff { .. } => SlotState::Frozen,
                Phase::Normal | Phase::Settling { .. } => SlotState::Serving,
            };
            if std::mem::replace(&mut self.states[slot.index()], state) != state {
                followed.actions.push(Action::Set { slot, state, epoch: record.epoch });
            }
            if !(mine && current)
                && let Some(number) = copies.number(slot)
            {
                let is_complete = current && copies.is_complete(slot, number);
                followed.actions.push(Action::ShowCopy { slot, is_complete });
            }
        }
        followed
    }

    /// Makes sure that what is here is what belongs to the slot.
    fn take(&mut self, slot: Slot, record: &SlotRecord, copies: &mut CopyTable, actions: &mut Vec<Action>) {
        let held = &mut self.held[slot.index()];
        if *held == Some(record.epoch) {
            return;
        }
        // The copy that was elected, or that it was handed over to.
        let is_copy = record.moved.is_some() && copies.number(slot) == record.moved;
        copies.drop_slot(slot);
        if !is_copy {
            actions.push(Action::BeginAnew(slot));
        }
        *held = Some(record.epoch);
    }
}

/// What is here of a slot belongs to its copy of this number. `has_all`: it was the primary's until now, or a log has all of it.
fn keep_copy(slot: Slot, number: u64, has_all: bool, copies: &mut CopyTable) {
    if has_all {
        copies.keep(slot, number, true);
    } else if copies.number(slot) != Some(number) {
        // Another copy of the same life had it: nothing has been dropped since.
        let is_complete = copies.number(slot).is_some_and(|before| copies.is_complete(slot, before));
        copies.keep(slot, number, is_complete);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::identity::ClusterId;
    use crate::base::slot_ranges::SlotRanges;
    use crate::cluster::topology::sample::node;
    use crate::cluster::topology::{Applied, Node, TopologyChange};

    /// What a former life has left counts where the slot is this node's, in the epoch of what it has left; the rest is
    /// dropped, and nothing is served before this life has registered.
    #[test]
    fn what_a_former_life_has_left_counts_in_its_epoch() {
        let own = NodeId(1);
        let mut topology = Topology::default();
        let all = SlotRanges::all();
        let changes = [
            TopologyChange::InitCluster { cluster: ClusterId(7), hash_key: 1 },
            TopologyChange::RegisterNode { node: node(own) },
            TopologyChange::RegisterNode { node: node(NodeId(2)) },
            TopologyChange::Revive { slots: all.clone(), to: own },
        ];
        for (index, change) in changes.iter().enumerate() {
            topology.apply(index as u64 + 1, change);
        }
        let slot = |number| Slot::new(number).expect("a slot");
        let epoch = topology.slot(slot(0)).epoch;
        let mut held = vec![None; SLOT_COUNT];
        (held[0], held[1]) = (Some(epoch), Some(Epoch(epoch.0 + 7)));
        let mut ownership = Ownership::new(own, held);
        let before = ownership.follow(&Arc::new(topology.clone()), None, &mut CopyTable::default());
        assert!(before.actions.is_empty() && before.dropped.is_empty(), "{before:?}");
        let (node, kept) = (Node { start_ms: 2, ..node(own) }, SlotRanges::all());
        let again = TopologyChange::ReturnNode { node, kept };
        let Applied::Registered(incarnation) = topology.apply(5, &again) else { panic!("it is refused") };
        let followed = ownership.follow(&Arc::new(topology), Some(incarnation), &mut CopyTable::default());
        let of = |number| {
            let of_slot = move |action: &&Action| match action {
                Action::BeginAnew(of) | Action::Set { slot: of, .. } | Action::ShowCopy { slot: of, .. } => {
                    *of == slot(number)
                }
            };
            followed.actions.iter().filter(of_slot).copied().collect::<Vec<_>>()
        };
        let set = |number| Action::Set { slot: slot(number), state: SlotState::Serving, epoch };
        assert_eq!(of(0), [set(0)], "it goes on with its keys");
        for number in [1, 2] {
            assert_eq!(of(number), [Action::BeginAnew(slot(number)), set(number)], "slot {number}");
        }
    }

    /// A node was killed while it was sent a slot: what its log has is a part of it, whatever position that says.
    #[test]
    fn what_a_log_has_of_a_slot_that_begins_to_be_copied_is_not_complete() {
        let (own, primary) = (NodeId(1), NodeId(2));
        let mut topology = Topology::default();
        let changes = [
            TopologyChange::InitCluster { cluster: ClusterId(7), hash_key: 1 },
            TopologyChange::RegisterNode { node: node(primary) },
            TopologyChange::Revive { slots: SlotRanges::all(), to: primary },
            TopologyChange::ReturnNode { node: node(own), kept: SlotRanges::all() },
            TopologyChange::CopyJoin { slots: SlotRanges::all(), node: own, incarnation: Incarnation(2) },
        ];
        for (index, change) in changes.iter().enumerate() {
            topology.apply(index as u64 + 1, change);
        }
        let slot = Slot::default();
        let mut ownership = Ownership::new(own, vec![Some(topology.slot(slot).epoch); SLOT_COUNT]);
        let (mut copies, topology) = (CopyTable::default(), Arc::new(topology));
        ownership.follow(&topology, Some(Incarnation(2)), &mut copies);
        let number = copies.number(slot).expect("it is a copy");
        assert!(!copies.is_complete(slot, number));
    }
}
