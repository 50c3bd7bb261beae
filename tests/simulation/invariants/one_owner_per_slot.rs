//! Invariant 10, first half: every slot has one owner, who is a member, or is dead or elected; and has copies and moves only on other members.

use super::{Invariant, Observation};
use starling::base::slot::Slot;
use starling::cluster::topology::Phase;

pub(crate) struct OneOwnerPerSlot;

impl Invariant for OneOwnerPerSlot {
    fn name(&self) -> &'static str {
        "10, every slot has one owner or is dead"
    }

    fn observe(&mut self, observation: &Observation<'_>) -> Result<(), String> {
        let Observation::Agreed { before, after, changed, .. } = observation else { return Ok(()) };
        // Where a member left, a slot may be wrong that has not changed.
        let all: Vec<Slot> = if before.nodes.len() == after.nodes.len() { Vec::new() } else { Slot::all().collect() };
        for &slot in changed.iter().chain(&all) {
            let record = after.slot(slot);
            let owned = record.primary.is_some_and(|primary| after.nodes.contains_key(&primary));
            let dead = matches!(record.phase, Phase::Dead | Phase::Electing);
            let target = record.phase.target();
            let target_is_other = target.is_none_or(|to| Some(to) != record.primary && after.nodes.contains_key(&to));
            let copy_is_other = record.copies.iter().all(|copy| Some(copy.node) != record.primary);
            if (!owned && !dead) || !target_is_other || !copy_is_other {
                return Err(format!("{slot:?} is {record:?}"));
            }
        }
        Ok(())
    }
}
