//! Invariant 2: one primary per (slot, epoch), ever: in what is agreed, and among those who execute.

use super::{Invariant, Observation};
use starling::base::identity::{Epoch, NodeId};
use starling::base::slot::Slot;
use starling::cluster::topology::Phase;
use std::collections::BTreeMap;

#[derive(Default)]
pub(crate) struct OnePrimaryPerEpoch {
    executed: BTreeMap<(Slot, Epoch), NodeId>,
}

impl Invariant for OnePrimaryPerEpoch {
    fn name(&self) -> &'static str {
        "2, one primary per slot and epoch"
    }

    fn observe(&mut self, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Agreed { before, after, changed, .. } => {
                // Epochs never fall and a new primary has a new one, which began with it, or with its election: so no pair ever
                // comes again with another primary.
                for &slot in *changed {
                    let (old, new) = (before.slot(slot), after.slot(slot));
                    let new_primary = new.primary.is_some() && new.primary != old.primary;
                    let is_elected = old.phase == Phase::Electing;
                    let begins = !is_elected && (new_primary || new.phase == Phase::Electing);
                    if new.epoch < old.epoch || (begins && new.epoch == old.epoch) {
                        return Err(format!("{slot:?} went from {old:?} to {new:?}"));
                    }
                }
                Ok(())
            }
            Observation::Executed { node, slot, epoch, .. } => {
                let first = *self.executed.entry((*slot, *epoch)).or_insert(*node);
                if first == *node {
                    return Ok(());
                }
                Err(format!("{first:?} and {node:?} both executed on {slot:?} in {epoch:?}"))
            }
            _ => Ok(()),
        }
    }
}
