//! Which slots this node serves, by the newest topology: the only part that sets the states of slots.
//!
//! Invariant: a slot is served only with the keys that belong to its epoch: those that were here all the time, those
//! that arrived complete for exactly the hand-off that was agreed, or none where the slot begins anew.

use super::target::Arrivals;
use crate::base::identity::{Epoch, Incarnation, NodeId};
use crate::base::slot::{SLOT_COUNT, Slot};
use crate::cluster::topology::slot_records::Slots;
use crate::cluster::topology::{Phase, SlotRecord, Topology};
use crate::cluster::view::is_current;
use crate::engine::Engine;
use crate::engine::shard::SlotState;
use std::sync::Arc;

/// What this node does with its slots.
pub(super) struct Ownership {
    node: NodeId,
    engine: Arc<Engine>,
    /// As they were set last.
    states: Vec<SlotState>,
    /// The epoch to which the keys here belong; `None`: there are none, or they are still arriving.
    held: Vec<Option<Epoch>>,
    /// The version that was followed last, and whether it meant this life of the node.
    followed: Option<(Arc<Topology>, bool)>,
}

impl Ownership {
    /// Every slot is somebody else's.
    pub(super) fn new(node: NodeId, engine: Arc<Engine>) -> Ownership {
        engine.set_slot_states(Slot::all().map(|slot| (slot, SlotState::Elsewhere)));
        let (states, held) = (vec![SlotState::Elsewhere; SLOT_COUNT], vec![None; SLOT_COUNT]);
        Ownership { node, engine, states, held, followed: None }
    }

    /// Sets every slot as this topology has it. Gives the slots whose keys are to be dropped: they are out of service.
    pub(super) fn follow(
        &mut self,
        topology: &Arc<Topology>,
        incarnation: Option<Incarnation>,
        arrivals: &mut Arrivals,
    ) -> Vec<Slot> {
        let current = is_current(topology, self.node, incarnation);
        let pieces: Vec<Slots> = match self.followed.replace((Arc::clone(topology), current)) {
            Some((before, was_current)) if was_current == current => {
                topology.slots().changed_since(before.slots()).collect()
            }
            _ => Slots::all().collect(),
        };
        let mut released = Vec::new();
        for slot in pieces.into_iter().flat_map(Slots::iter) {
            let record = topology.slot(slot);
            let mine = record.primary == Some(self.node);
            if mine && current {
                self.take(slot, record, arrivals);
            } else if self.held[slot.index()].take_if(|_| !mine).is_some() {
                released.push(slot);
            }
            let state = match record.phase {
                _ if !mine || !current => SlotState::Elsewhere,
                Phase::Dead => SlotState::Elsewhere,
                Phase::HandingOff { .. } => SlotState::Frozen,
                Phase::Normal | Phase::Copying { .. } | Phase::Ready { .. } | Phase::Releasing { .. } => {
                    SlotState::Serving
                }
            };
            if self.states[slot.index()] != state {
                self.states[slot.index()] = state;
                self.engine.set_slot(slot, state, record.epoch);
            }
        }
        released
    }

    /// Whether the keys of a slot that are here belong to it.
    pub(super) fn holds(&self, slot: Slot) -> bool {
        self.held[slot.index()].is_some()
    }

    /// Makes sure that what is here is what belongs to the slot.
    fn take(&mut self, slot: Slot, record: &SlotRecord, arrivals: &mut Arrivals) {
        let held = &mut self.held[slot.index()];
        if *held == Some(record.epoch) {
            return;
        }
        if !arrivals.take(slot, record) {
            // It begins anew: what may be here is of another epoch.
            let dropped = self.engine.clear_slot(slot);
            if dropped > 0 {
                tracing::warn!(%slot, dropped, "a slot begins anew, its keys are dropped");
            }
        }
        *held = Some(record.epoch);
    }
}
