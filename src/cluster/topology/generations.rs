//! Generations: what becomes of the topology where a majority of the voters is lost for good, and a person lets the others go on.
//!
//! ```text
//!  its primary goes on        as it was, in the same epoch; hand-overs are off
//!  a ready copy goes on       Electing, in an epoch of its own
//!  one has started again      Dead, and that node's: what its disk has kept counts when it registers
//!  nobody has it              nobody's: it begins anew, empty
//! ```
//!
//! A generation is no change in the raft log: there is nobody who could agree on it. It begins as a whole new state, the raft
//! snapshot of a group of one (`recovery`), so that at no moment that group decides in the generation before.
//!
//! Nobody knows what the lost voters have agreed on last. So numbers go on far behind all that are known: versions, and with them the
//! numbers of copies, hand-overs, supports and lists of lease voters; incarnations; and epochs of slots whose primary does not go
//! on. None means one thing in one generation and another in the next.

use super::copies::{self, Copies, electing};
use super::leases::LeaseVoters;
use super::state::{EventKind, Phase, SlotRecord, Topology};
use crate::base::identity::{Epoch, NodeId};
use crate::base::slot::Slot;
use crate::base::slot_ranges::SlotRanges;
use std::collections::BTreeMap;

/// How far versions, incarnations and epochs begin behind those that are known: more than any majority agrees on unheard.
pub(super) const VERSIONS_SKIPPED: u64 = 1 << 20;
const INCARNATIONS_SKIPPED: u64 = 1 << 16;
const EPOCHS_SKIPPED: u32 = 1 << 16;

/// The members that go on, and when the process of each began, ms since 1970.
pub(super) type Kept = BTreeMap<NodeId, u64>;

impl Topology {
    /// This state goes on with these members alone, in the next generation, as of that version; the one that begins it decides alone.
    /// All others are removed, at once: a person has said that they are gone.
    pub(super) fn next_generation(&self, begun_by: NodeId, kept: &Kept, version: u64) -> Topology {
        let mut next = self.clone();
        next.version = version;
        next.generation = self.generation.saturating_add(1);
        next.skip_incarnations(INCARNATIONS_SKIPPED);
        next.record(EventKind::GenerationBegun, Some(begun_by), SlotRanges::default());
        let elected = next.slots_go_on(self, kept);
        for node in self.nodes.keys().filter(|node| !kept.contains_key(node)) {
            next.nodes.remove(node);
            next.record(EventKind::NodeRemoved, Some(*node), SlotRanges::default());
        }
        // Under new numbers: what voters have withdrawn, or were asked for, is of the generation before.
        next.nodes.values_mut().for_each(|node| node.support = version);
        next.lease_voters = LeaseVoters::alone(begun_by, version);
        if !elected.is_empty() {
            next.record(EventKind::ElectionBegun, None, elected);
        }
        next
    }

    /// Every slot goes on as it can. Gives those that are elected.
    fn slots_go_on(&mut self, before: &Topology, kept: &Kept) -> SlotRanges {
        let (mut shared, mut elected) = (copies::Shared::default(), SlotRanges::default());
        let stay = |copies: &Copies| copies.iter().filter(|copy| kept.contains_key(&copy.node)).copied().collect();
        for slot in Slot::all() {
            let record = before.slot(slot);
            let copies = shared.change(&record.copies, stay);
            let next = before.goes_on(record, copies, kept);
            if next.phase == Phase::Electing {
                elected.extend([slot]);
            }
            if next != *record {
                self.set_record(slot, next);
            }
        }
        elected
    }

    fn goes_on(&self, record: &SlotRecord, copies: Copies, kept: &Kept) -> SlotRecord {
        if record.primary.is_some_and(|node| kept.contains_key(&node)) {
            let phase = match record.phase {
                Phase::HandingOff { .. } => Phase::Normal,
                Phase::Settling { from, .. } if !kept.contains_key(&from) => Phase::Normal,
                phase => phase,
            };
            return SlotRecord { phase, copies, ..record.clone() };
        }
        let epoch = Epoch(record.epoch.0.saturating_add(EPOCHS_SKIPPED));
        let has_it = |copy: &&copies::SlotCopy| copy.ready && !self.is_lost(copy);
        if copies.iter().filter(has_it).any(|copy| self.is_same_life(copy.node, kept)) {
            return SlotRecord { epoch, ..electing(record, copies) };
        }
        // Its memory is gone, and its disk may have it, in the epoch that was.
        if let Some(node) = copies.iter().find(has_it).map(|copy| copy.node) {
            let copies = copies.without(node);
            let epoch = record.epoch;
            return SlotRecord { primary: Some(node), epoch, phase: Phase::Dead, moved: None, changed: 0, copies };
        }
        let copies = Copies::default();
        SlotRecord { primary: None, epoch, phase: Phase::Dead, moved: None, changed: 0, copies }
    }

    /// Whether the life of a member that goes on is the one that is registered.
    fn is_same_life(&self, node: NodeId, kept: &Kept) -> bool {
        self.nodes.get(&node).is_some_and(|known| kept.get(&node) == Some(&known.start_ms))
    }
}

#[cfg(test)]
mod tests;
