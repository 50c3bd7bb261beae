//! Invariant 12: a member that wants to leave goes on leaving, whatever is believed of it, until its life ends; and one that
//! ends because it has given everything away has. Slots that began anew with it, and of which it has not heard yet, have no
//! keys.

use super::{Invariant, Observation};
use starling::base::slot::Slot;
use starling::cluster::draining::Drained;

pub(crate) struct LeavingStays;

impl Invariant for LeavingStays {
    fn name(&self) -> &'static str {
        "12, a member that leaves goes on leaving"
    }

    fn observe(&mut self, observation: &Observation<'_>) -> Result<(), String> {
        let (change, before, after) = match observation {
            Observation::Agreed { change, before, after, .. } => (change, before, after),
            Observation::Drained { node, incarnation, drained: Drained::Everything, agreed, acknowledged } => {
                let has_keys = |slot: &Slot| acknowledged.get(slot).is_some_and(|writes| !writes.is_empty());
                let held = Slot::all().filter(has_keys).any(|slot| agreed.slot(slot).primary == Some(*node));
                let is_meant = agreed.nodes.get(node).map(|node| node.incarnation) == *incarnation;
                return if held && is_meant { Err(format!("{node:?} ended with keys")) } else { Ok(()) };
            }
            _ => return Ok(()),
        };
        for node in before.nodes.values().filter(|node| node.leaving) {
            let now = after.nodes.get(&node.id).filter(|now| now.incarnation == node.incarnation);
            if now.is_some_and(|now| !now.leaving) {
                return Err(format!("{:?} no longer leaves after {change:?}", node.id));
            }
        }
        Ok(())
    }
}
