//! Slots that nobody serves and that nobody can be elected for, until a member comes back: what a person can do about them.
//!
//! ```text
//!  Dead with a member that is down  \
//!                                    --GiveUpSlots--> nobody's --Revive (new epoch, empty)--> Normal
//!  Electing among members all down  /
//! ```
//!
//! Their keys may be on the disks or in the memories of those who are down. Once the slots are given up these members have no
//! part in them: what they bring back is of an epoch that is over, and is dropped.

use super::change::Refused;
use super::copies::Copies;
use super::state::{EventKind, Node, Phase, SlotRecord, Topology};
use crate::base::identity::NodeId;
use crate::base::slot_ranges::SlotRanges;

impl Topology {
    /// The members whose return a slot waits for, all of them down: its primary, and those that had everything. Empty where it
    /// is served, or will be without a person: a copy that is up can be elected, or it is nobody's and begins anew.
    pub fn awaited_by(&self, record: &SlotRecord) -> Vec<NodeId> {
        if record.primary.is_some_and(|node| self.is_up(node)) || self.has_candidate(record) {
            return Vec::new();
        }
        record.primary.into_iter().chain(self.candidates(record).map(|copy| copy.node)).collect()
    }

    /// All of these slots wait for members that are down, and wait for them no more; or nothing changes.
    pub(super) fn give_up_slots(&mut self, slots: &SlotRanges, decided_by: u64) -> Result<(), Refused> {
        if !self.nodes.values().any(Node::takes_slots) {
            return Err(Refused::NotActive);
        }
        if slots.is_empty() || slots.slots().any(|slot| self.awaited_by(self.slot(slot)).is_empty()) {
            return Err(Refused::WrongPhase);
        }
        if slots.slots().any(|slot| !self.is_unchanged(slot, decided_by)) {
            return Err(Refused::DecidedBefore);
        }
        for slot in slots.slots() {
            let epoch = self.slot(slot).epoch;
            let (phase, copies) = (Phase::Dead, Copies::default());
            self.set_record(slot, SlotRecord { primary: None, epoch, phase, moved: None, changed: 0, copies });
        }
        self.record(EventKind::SlotsGivenUp, None, slots.clone());
        Ok(())
    }
}
