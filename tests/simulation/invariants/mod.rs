//! What must hold after every happening, one file per invariant. Their numbers are those of `docs/simulation.md`.

mod stale_changes_nothing;
mod stamps_rise;

use starling::base::hlc::Stamp;
use starling::cluster::membership::{MembersView, MembershipEvent};

/// What the invariants are shown.
pub(crate) enum Observation<'a> {
    /// A node took in a datagram: what it believed before and after.
    Heard { node: usize, datagram: &'a [u8], before: &'a MembersView, after: &'a MembersView },
    /// A node's membership says that something happened.
    Event { node: usize, event: &'a MembershipEvent },
    /// A node gave a stamp.
    Stamped { node: usize, stamp: Stamp },
    /// A stamp reached a node, whose wall clock shows this.
    HeardStamp { node: usize, stamp: Stamp, believed: bool, unix_ms: u64 },
}

/// One thing that must always hold. It remembers what it needs of the past.
pub(crate) trait Invariant {
    /// What the failure is called.
    fn name(&self) -> &'static str;
    /// `Err` says how it is broken.
    fn observe(&mut self, observation: &Observation<'_>) -> Result<(), String>;
}

/// All of them.
pub(crate) struct Invariants {
    all: Vec<Box<dyn Invariant>>,
}

impl Invariants {
    pub(crate) fn new() -> Invariants {
        Invariants {
            all: vec![
                Box::new(stale_changes_nothing::StaleChangesNothing::default()),
                Box::new(stamps_rise::StampsRise::default()),
            ],
        }
    }

    pub(crate) fn observe(&mut self, observation: &Observation<'_>) -> Result<(), String> {
        for invariant in &mut self.all {
            let name = invariant.name();
            invariant.observe(observation).map_err(|how| format!("broken: {name}: {how}"))?;
        }
        Ok(())
    }
}
