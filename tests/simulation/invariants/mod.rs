//! What must hold after every happening, one file per invariant. Their numbers are those of `docs/simulation.md`.

mod elections_keep_prefixes;
mod equal_index_equal_topology;
mod fenced_has_no_lease;
mod hand_offs_keep_keys;
mod leaving_stays;
mod one_owner_per_slot;
mod one_primary_per_epoch;
mod plans_move_little;
mod stale_changes_nothing;
mod stamps_rise;

use starling::base::hlc::Stamp;
use starling::base::identity::{Epoch, Incarnation, NodeId};
use starling::base::slot::Slot;
use starling::base::slot_ranges::SlotRanges;
use starling::cluster::draining::Drained;
use starling::cluster::membership::{MembersView, MembershipEvent};
use starling::cluster::planner::{Plan, PlanInput};
use starling::cluster::topology::{Applied, Topology, TopologyChange};
use std::collections::BTreeMap;

/// What the invariants are shown.
pub(crate) enum Observation<'a> {
    /// A node took in a datagram: what it believed before and after.
    Heard { node: usize, datagram: &'a [u8], before: &'a MembersView, after: &'a MembersView },
    /// A node's membership says that something happened.
    Event { node: usize, event: &'a MembershipEvent },
    /// A node has lost its disk: what is there from now on is another node.
    DiskLost { node: usize },
    /// A node gave a stamp.
    Stamped { node: usize, stamp: Stamp },
    /// A stamp reached a node, whose wall clock shows this.
    HeardStamp { node: usize, stamp: Stamp, believed: bool, unix_ms: u64 },
    /// The cluster has agreed on a change: the topology before and after, and the slots that differ.
    Agreed {
        index: u64,
        change: &'a TopologyChange,
        applied: &'a Applied,
        before: &'a Topology,
        after: &'a Topology,
        changed: &'a [Slot],
    },
    /// A node is fenced by what was agreed; whether it would answer clients all the same.
    Fenced { node: NodeId, has_lease: bool },
    /// A node has applied what it learned.
    Learned { node: usize, topology: &'a Topology },
    /// The leader has made a plan for these.
    Planned { input: &'a PlanInput, plan: &'a Plan },
    /// A node executes a write: what it finds in the slot, and what clients were acknowledged.
    Executed { node: NodeId, slot: Slot, epoch: Epoch, found: &'a [u64], expected: &'a [u64] },
    /// A copy is elected: what it has, and what of all that was executed is left.
    Promoted { node: NodeId, slot: Slot, found: &'a [u64], expected: &'a [u64] },
    /// A life of a node has said where its copies of these slots stand, for an election of this epoch.
    AnsweredElection { node: NodeId, life: u64, slots: &'a SlotRanges, epoch: Epoch },
    /// A life of a node has applied something of this epoch to its copy.
    CopyApplied { node: NodeId, life: u64, slot: Slot, epoch: Epoch },
    /// A life that left ends, while this is agreed, and these are the writes that must still be there.
    Drained {
        node: NodeId,
        incarnation: Option<Incarnation>,
        drained: &'a Drained,
        agreed: &'a Topology,
        acknowledged: &'a BTreeMap<Slot, Vec<u64>>,
    },
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
                Box::new(elections_keep_prefixes::ElectionsKeepPrefixes::default()),
                Box::new(one_primary_per_epoch::OnePrimaryPerEpoch::default()),
                Box::new(equal_index_equal_topology::EqualIndexEqualTopology::default()),
                Box::new(one_owner_per_slot::OneOwnerPerSlot),
                Box::new(fenced_has_no_lease::FencedHasNoLease),
                Box::new(hand_offs_keep_keys::HandOffsKeepKeys),
                Box::new(leaving_stays::LeavingStays),
                Box::new(plans_move_little::PlansMoveLittle),
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
