//! Invariant 6, in elections: what a winner has is exactly what one copy had: the beginning of a history of the slot, with no write
//! missing in the middle and none twice. And who has answered an election applies nothing of an earlier epoch to its copy.

use super::{Invariant, Observation};
use starling::base::identity::{Epoch, NodeId};
use starling::base::slot::Slot;
use std::collections::BTreeMap;

#[derive(Default)]
pub(crate) struct ElectionsKeepPrefixes {
    /// By node, life and slot: the epoch of which somebody has asked.
    fences: BTreeMap<(NodeId, u64, Slot), Epoch>,
}

impl Invariant for ElectionsKeepPrefixes {
    fn name(&self) -> &'static str {
        "6, an election keeps what a copy had"
    }

    fn observe(&mut self, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Promoted { node, slot, found, expected } if found != expected => {
                Err(format!("{node:?} won {slot:?} with {found:?}; of what was executed is left {expected:?}"))
            }
            Observation::AnsweredElection { node, life, slots, epoch } => {
                for slot in slots.slots() {
                    let fence = self.fences.entry((*node, *life, slot)).or_insert(*epoch);
                    *fence = (*fence).max(*epoch);
                }
                Ok(())
            }
            Observation::CopyApplied { node, life, slot, epoch } => {
                match self.fences.get(&(*node, *life, *slot)).filter(|fence| *epoch < **fence) {
                    Some(fence) => {
                        Err(format!("{node:?} applied {epoch:?} to {slot:?} after it answered for {fence:?}"))
                    }
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}
