//! Invariant 10, second half: a hand-off neither loses nor doubles a key.
//!
//! Whoever executes a write finds exactly the writes that clients were acknowledged, in their order, since the slot last
//! began empty: which it does only when its primary's memory is gone.

use super::{Invariant, Observation};

pub(crate) struct HandOffsKeepKeys;

impl Invariant for HandOffsKeepKeys {
    fn name(&self) -> &'static str {
        "10, a hand-off neither loses nor doubles a key"
    }

    fn observe(&mut self, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Executed { node, slot, epoch, found, expected } if found != expected => {
                Err(format!("{node:?} finds {found:?} in {slot:?}, {epoch:?}; acknowledged were {expected:?}"))
            }
            _ => Ok(()),
        }
    }
}
