//! Invariant 18: whoever is fenced has no lease, whether it has heard of it or not.

use super::{Invariant, Observation};

pub(crate) struct FencedHasNoLease;

impl Invariant for FencedHasNoLease {
    fn name(&self) -> &'static str {
        "18, whoever is fenced has no lease"
    }

    fn observe(&mut self, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Fenced { node, has_lease: true } => Err(format!("{node:?} would answer clients")),
            _ => Ok(()),
        }
    }
}
