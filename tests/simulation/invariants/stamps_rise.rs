//! Invariant 17: the stamps of a node rise, across restarts, clocks set back, and marks lost in a crash.
//!
//! And what hybrid logical clocks are for: a node that believed a stamp gives only later ones, and believes none that is
//! more than 500 ms ahead of its own clock.

use super::{Invariant, Observation};
use starling::base::hlc::Stamp;
use std::collections::BTreeMap;

#[derive(Default)]
pub(crate) struct StampsRise {
    last: BTreeMap<usize, Stamp>,
}

impl Invariant for StampsRise {
    fn name(&self) -> &'static str {
        "17, stamps rise per node across restarts"
    }

    fn observe(&mut self, observation: &Observation<'_>) -> Result<(), String> {
        match *observation {
            Observation::Stamped { node, stamp } => {
                let last = self.last.insert(node, stamp);
                if last >= Some(stamp) { Err(format!("node {node} gave {stamp:?} after {last:?}")) } else { Ok(()) }
            }
            Observation::DiskLost { node } => {
                self.last.remove(&node);
                Ok(())
            }
            Observation::HeardStamp { node, stamp, believed, unix_ms } => {
                let far_ahead = stamp.ms() > unix_ms + 500;
                if believed == far_ahead {
                    return Err(format!("node {node} at {unix_ms} heard {stamp:?}; believed it: {believed}"));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
