//! Invariant 12: a member that wants to leave goes on leaving, whatever is believed of it, until its life ends.

use super::{Invariant, Observation};

pub(crate) struct LeavingStays;

impl Invariant for LeavingStays {
    fn name(&self) -> &'static str {
        "12, a member that leaves goes on leaving"
    }

    fn observe(&mut self, observation: &Observation<'_>) -> Result<(), String> {
        let Observation::Agreed { change, before, after, .. } = observation else { return Ok(()) };
        for node in before.nodes.values().filter(|node| node.leaving) {
            let now = after.nodes.get(&node.id).filter(|now| now.incarnation == node.incarnation);
            if now.is_some_and(|now| !now.leaving) {
                return Err(format!("{:?} no longer leaves after {change:?}", node.id));
            }
        }
        Ok(())
    }
}
