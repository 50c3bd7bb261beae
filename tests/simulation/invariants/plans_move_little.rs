//! Invariant 11: a plan moves at most 1.1 x the optimum + 16 slots.
//!
//! The optimum is what no plan can avoid: all slots of nodes that should have none, and of the others what is beyond
//! their share rounded up, or what those who lack slots lack of theirs rounded down, whichever is more.

use super::{Invariant, Observation};
use starling::base::identity::NodeId;
use starling::base::slot::SLOT_COUNT;
use starling::cluster::planner::{NodeState, PlanNode};
use std::collections::BTreeMap;

pub(crate) struct PlansMoveLittle;

impl Invariant for PlansMoveLittle {
    fn name(&self) -> &'static str {
        "11, a plan moves at most 1.1 x the optimum + 16 slots"
    }

    fn observe(&mut self, observation: &Observation<'_>) -> Result<(), String> {
        let Observation::Planned { input, plan } = observation else { return Ok(()) };
        let weight = |node: &PlanNode| if node.state == NodeState::Live { node.weight as usize } else { 0 };
        let total: usize = input.nodes.iter().map(weight).sum();
        if total == 0 {
            return Ok(());
        }
        let mut owned: BTreeMap<NodeId, usize> = BTreeMap::new();
        let mut free = 0;
        for owners in &input.table {
            match owners.first() {
                Some(owner) => *owned.entry(*owner).or_default() += 1,
                None => free += 1,
            }
        }
        let (mut beyond, mut lacking) = (0, 0);
        for node in &input.nodes {
            let share = SLOT_COUNT * weight(node);
            let has = owned.remove(&node.id).unwrap_or(0);
            beyond += has.saturating_sub(share.div_ceil(total));
            lacking += (share / total).saturating_sub(has);
        }
        // Whoever is left owns slots and is no candidate.
        let optimum = (beyond + owned.values().sum::<usize>()).max(lacking.saturating_sub(free));
        let moved: usize = plan.moves.iter().filter(|one| one.from.is_some()).map(|one| one.slots.len()).sum();
        if moved as f64 > 1.1 * optimum as f64 + 16.0 {
            return Err(format!("{moved} slots, and {optimum} would do"));
        }
        Ok(())
    }
}
