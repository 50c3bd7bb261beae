//! Copies of slots, and what becomes of a slot whose primary is gone, as far as it is agreed.
//!
//! ```text
//!  CopyJoin --> in the list, not ready --CopyInSync--> ready: it has everything, and may be asked in an election
//!      ^                                                 |
//!      |   its node registers again: the memory is gone (lost); it joins again in its place
//!      +-------------------------------------------------+
//!
//!  primary fenced, or started again --BeginElection--> Electing (epoch + 1) --Promote--> Normal: a copy is the primary
//! ```
//!
//! Every copy has a number, the index of its `CopyJoin`: streams, and steps that come late, name it, and so concern no other
//! copy. Fencing and forgetting change no list: whether a copy is *lost* follows from its incarnation.
//!
//! A node that comes back with its log may still have what its lost copies had: it says so, and they are *kept* until it joins
//! anew. Who is kept follows nobody and acknowledges nothing, but may be elected: with all members of a slot restarted one after the
//! other there is nobody else.

use super::change::Refused;
use super::state::{EventKind, NodeState, Phase, SlotRecord, Topology};
use crate::base::identity::{Epoch, Incarnation, NodeId};
use crate::base::slot::Slot;
use crate::base::slot_ranges::SlotRanges;
use crate::cluster::duties::is_quorum;
use serde::{Deserialize, Serialize};
use std::ops::Deref;
use std::sync::Arc;

/// Copies of a slot besides its primary: as many as `replicas` may ask for, and one that takes the place of another.
pub const COPIES_MAX: usize = 5;

/// A member that has a slot besides its primary, or is to have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotCopy {
    pub node: NodeId,
    /// The life of the node that has it.
    pub incarnation: Incarnation,
    /// The index of the change that made it a copy.
    pub number: u64,
    /// It has had everything, and follows.
    pub ready: bool,
    /// An election has to reckon with it: it was ready, or takes the place of one that was and has lost its memory since.
    pub counts: bool,
    /// It is to go: nothing is acknowledged by it any more.
    pub retiring: bool,
    /// A later life of the node has everything that this one had up to some position, from its log.
    pub kept: Option<Incarnation>,
}

impl SlotCopy {
    /// One that has everything.
    pub fn ready(node: NodeId, incarnation: Incarnation, number: u64) -> SlotCopy {
        SlotCopy { node, incarnation, number, ready: true, counts: true, retiring: false, kept: None }
    }
}

/// The copies of one slot, in the order in which they came. Slots that have the same share one list.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Vec<SlotCopy>", into = "Vec<SlotCopy>")]
pub struct Copies(Option<Arc<[SlotCopy]>>);

impl Deref for Copies {
    type Target = [SlotCopy];

    fn deref(&self) -> &[SlotCopy] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl FromIterator<SlotCopy> for Copies {
    fn from_iter<I: IntoIterator<Item = SlotCopy>>(copies: I) -> Copies {
        let list: Vec<SlotCopy> = copies.into_iter().collect();
        Copies((!list.is_empty()).then(|| list.into()))
    }
}

impl From<Vec<SlotCopy>> for Copies {
    fn from(list: Vec<SlotCopy>) -> Copies {
        list.into_iter().collect()
    }
}

impl From<Copies> for Vec<SlotCopy> {
    fn from(copies: Copies) -> Vec<SlotCopy> {
        copies.to_vec()
    }
}

impl Copies {
    /// The copy on a node.
    pub fn on(&self, node: NodeId) -> Option<&SlotCopy> {
        self.iter().find(|copy| copy.node == node)
    }

    pub(super) fn without(&self, node: NodeId) -> Copies {
        self.iter().filter(|copy| copy.node != node).copied().collect()
    }

    fn with(&self, added: SlotCopy) -> Copies {
        self.iter().filter(|copy| copy.node != added.node).copied().chain([added]).collect()
    }
}

/// Makes the same list of the same list only once, so that neighbours share it.
#[derive(Default)]
pub(super) struct Shared {
    last: Option<(Copies, Copies)>,
}

impl Shared {
    pub(super) fn change(&mut self, before: &Copies, change: impl FnOnce(&Copies) -> Copies) -> Copies {
        match &self.last {
            Some((of, made)) if of == before => made.clone(),
            _ => {
                let made = change(before);
                self.last = Some((before.clone(), made.clone()));
                made
            }
        }
    }
}

impl Topology {
    /// Whether the memory that was this copy is gone: its node has started again since, or is no member.
    pub fn is_lost(&self, copy: &SlotCopy) -> bool {
        self.nodes.get(&copy.node).is_none_or(|node| node.incarnation != copy.incarnation)
    }

    /// The copies that had everything once, still have it in memory, and follow.
    pub fn survivors<'a>(&'a self, record: &'a SlotRecord) -> impl Iterator<Item = &'a SlotCopy> {
        record.copies.iter().filter(|copy| copy.ready && !self.is_lost(copy))
    }

    /// The copies that an election may ask, in the lives that have them: survivors, and those that are kept.
    pub fn candidates<'a>(&'a self, record: &'a SlotRecord) -> impl Iterator<Item = SlotCopy> + 'a {
        record.copies.iter().filter(|copy| copy.ready).filter_map(|copy| {
            let incarnation = self.nodes.get(&copy.node)?.incarnation;
            (copy.incarnation == incarnation || copy.kept == Some(incarnation))
                .then_some(SlotCopy { incarnation, ..*copy })
        })
    }

    /// Whether somebody who can be elected answers.
    pub fn has_candidate(&self, record: &SlotRecord) -> bool {
        self.candidates(record).any(|copy| self.is_up(copy.node))
    }

    pub(super) fn is_up(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.state == NodeState::Active)
    }

    /// Does to each slot what may be done to it, and leaves the others out. Refused where nothing is left.
    fn each_slot(
        &mut self,
        slots: &SlotRanges,
        mut next: impl FnMut(&Topology, &SlotRecord) -> Option<SlotRecord>,
    ) -> Result<SlotRanges, Refused> {
        let mut changed = SlotRanges::default();
        for slot in slots.slots() {
            if let Some(record) = next(self, self.slot(slot)) {
                self.set_record(slot, record);
                changed.extend([slot]);
            }
        }
        if changed.is_empty() { Err(Refused::WrongPhase) } else { Ok(changed) }
    }

    pub(super) fn copy_join(
        &mut self,
        slots: &SlotRanges,
        id: NodeId,
        incarnation: Incarnation,
    ) -> Result<(), Refused> {
        self.current(id, incarnation)?;
        if !self.nodes.get(&id).is_some_and(super::state::Node::takes_slots) {
            return Err(Refused::NotActive);
        }
        let number = self.version;
        let mut shared = Shared::default();
        self.each_slot(slots, |topology, record| {
            let is_served = record.primary.is_some() && !matches!(record.phase, Phase::Dead | Phase::Electing);
            let is_other = record.primary != Some(id) && record.phase.target() != Some(id);
            let is_new = record.copies.on(id).is_none_or(|known| topology.is_lost(known));
            let is_room = record.copies.len() < COPIES_MAX || record.copies.on(id).is_some();
            let joins = is_served && is_other && is_new && is_room;
            let copies = |before: &Copies| {
                // It takes the place of what was lost, until it is ready itself.
                let counts = before.on(id).is_some_and(|lost| lost.counts);
                before.with(SlotCopy { ready: false, counts, ..SlotCopy::ready(id, incarnation, number) })
            };
            joins.then(|| SlotRecord { copies: shared.change(&record.copies, copies), ..record.clone() })
        })?;
        Ok(())
    }

    pub(super) fn copy_in_sync(
        &mut self,
        slots: &SlotRanges,
        id: NodeId,
        incarnation: Incarnation,
        number: u64,
    ) -> Result<(), Refused> {
        self.current(id, incarnation)?;
        let mut shared = Shared::default();
        self.each_slot(slots, |topology, record| {
            let copy = *record.copies.on(id).filter(|copy| copy.number == number && !copy.ready)?;
            let may = record.phase != Phase::Electing && !topology.is_lost(&copy);
            let ready = |before: &Copies| {
                let set = |one: &SlotCopy| match one.node == id {
                    true => SlotCopy { ready: true, counts: true, ..*one },
                    false => *one,
                };
                before.iter().map(set).collect()
            };
            may.then(|| SlotRecord { copies: shared.change(&record.copies, ready), ..record.clone() })
        })?;
        Ok(())
    }

    pub(super) fn copy_leave(&mut self, slots: &SlotRanges, id: NodeId, number: u64) -> Result<(), Refused> {
        let mut shared = Shared::default();
        let is_quorum = is_quorum(self);
        self.each_slot(slots, |_, record| {
            let copy = record.copies.on(id).filter(|copy| copy.number == number)?;
            if is_quorum && copy.counts && !copy.retiring {
                // What only it and the primary have may be acknowledged.
                return None;
            }
            // An election may have to ask it; and what has just come to its primary may be kept nowhere else.
            let is_needed = matches!(record.phase, Phase::Electing | Phase::Settling { .. });
            let may = !is_needed && record.phase.target() != Some(id);
            let copies = |before: &Copies| before.without(id);
            may.then(|| SlotRecord { copies: shared.change(&record.copies, copies), ..record.clone() })
        })?;
        Ok(())
    }

    /// A copy is to go: its primary acknowledges nothing by it any more, and removes it when the others have everything. One of a
    /// slot at a time, or each would wait for what the other takes away.
    pub(super) fn copy_retire(&mut self, slots: &SlotRanges, id: NodeId, number: u64) -> Result<(), Refused> {
        let mut shared = Shared::default();
        self.each_slot(slots, |_, record| {
            record.copies.on(id).filter(|copy| copy.number == number && copy.counts)?;
            let is_needed = record.phase == Phase::Electing || record.phase.target() == Some(id);
            let may = !is_needed && !record.copies.iter().any(|copy| copy.retiring);
            let set = |one: &SlotCopy| SlotCopy { retiring: one.retiring || one.node == id, ..*one };
            let copies = |before: &Copies| before.iter().map(set).collect();
            may.then(|| SlotRecord { copies: shared.change(&record.copies, copies), ..record.clone() })
        })?;
        Ok(())
    }

    /// It stays after all, under a number of its own: what it has said under the former one counts for nothing.
    pub(super) fn copy_keep(&mut self, slots: &SlotRanges, id: NodeId, number: u64) -> Result<(), Refused> {
        let (mut shared, next) = (Shared::default(), self.version);
        self.each_slot(slots, |_, record| {
            record.copies.on(id).filter(|copy| copy.number == number && copy.retiring)?;
            let may = record.phase != Phase::Electing;
            let set = |one: &SlotCopy| match one.node == id {
                true => SlotCopy { retiring: false, number: next, ..*one },
                false => *one,
            };
            let copies = |before: &Copies| before.iter().map(set).collect();
            may.then(|| SlotRecord { copies: shared.change(&record.copies, copies), ..record.clone() })
        })?;
        Ok(())
    }

    /// Slots of which the primary is fenced, and that somebody else has, are to be given to one of those.
    pub(super) fn begin_election(
        &mut self,
        slots: &SlotRanges,
        id: NodeId,
        incarnation: Incarnation,
    ) -> Result<(), Refused> {
        self.current(id, incarnation)?;
        if self.is_up(id) {
            return Err(Refused::NotDown);
        }
        let former = SlotCopy::ready(id, incarnation, self.version);
        let mut shared = Shared::default();
        let elected = self.each_slot(slots, |topology, record| {
            let is_its = record.primary == Some(id) && topology.has_candidate(record);
            // What it knows may be the newest: it is asked too, if it is back in time.
            let copies = |before: &Copies| before.with(former);
            is_its.then(|| electing(record, shared.change(&record.copies, copies)))
        })?;
        self.record(EventKind::ElectionBegun, Some(id), elected);
        Ok(())
    }

    /// A copy is the primary of these slots, all of which are elected in this epoch.
    pub(super) fn promote(
        &mut self,
        slots: &SlotRanges,
        epoch: Epoch,
        id: NodeId,
        incarnation: Incarnation,
    ) -> Result<(), Refused> {
        self.current(id, incarnation)?;
        if !self.is_up(id) {
            return Err(Refused::NotActive);
        }
        let mut shared = Shared::default();
        let promoted = self.each_slot(slots, |topology, record| {
            if record.phase != Phase::Electing || record.epoch != epoch {
                return None;
            }
            let winner = topology.candidates(record).find(|copy| copy.node == id)?;
            // The others stay what they are: the next election compares what they have by then.
            let copies = |before: &Copies| before.without(id);
            Some(SlotRecord {
                primary: Some(id),
                phase: Phase::Normal,
                moved: Some(winner.number),
                copies: shared.change(&record.copies, copies),
                ..record.clone()
            })
        })?;
        self.record(EventKind::Promoted, Some(id), promoted);
        Ok(())
    }

    pub(super) fn hand_over(
        &mut self,
        slots: &SlotRanges,
        id: NodeId,
        incarnation: Incarnation,
    ) -> Result<(), Refused> {
        self.current(id, incarnation)?;
        if !self.nodes.get(&id).is_some_and(super::state::Node::takes_slots) {
            return Err(Refused::NotActive);
        }
        let begun = self.version;
        let handed_over = self.each_slot(slots, |topology, record| {
            let is_ready = topology.survivors(record).any(|copy| copy.node == id);
            let may =
                record.phase == Phase::Normal && is_ready && record.primary.is_some_and(|node| topology.is_up(node));
            may.then(|| SlotRecord { phase: Phase::HandingOff { to: id, begun }, ..record.clone() })
        })?;
        self.record(EventKind::MoveBegun, Some(id), handed_over);
        Ok(())
    }

    /// A slot that is handed over to its copy on this node: the two change their roles. `None`: it has none there.
    fn swapped(&self, record: &SlotRecord, to: NodeId) -> Option<SlotRecord> {
        let copy = record.copies.on(to).filter(|copy| !self.is_lost(copy))?;
        let former = record.primary.and_then(|id| self.nodes.get(&id));
        let former = former.map(|node| SlotCopy::ready(node.id, node.incarnation, self.version));
        let others = record.copies.iter().filter(|copy| copy.node != to).copied();
        Some(SlotRecord {
            primary: Some(to),
            epoch: Epoch(record.epoch.0.saturating_add(1)),
            phase: former
                .zip(record.phase.begun())
                .map_or(Phase::Normal, |(former, begun)| Phase::Settling { from: former.node, begun }),
            moved: Some(copy.number),
            changed: 0,
            copies: others.chain(former).collect(),
        })
    }

    /// The copy of that life has everything: in all these slots, or in none, it is the primary.
    pub(super) fn hand_off(
        &mut self,
        slots: &SlotRanges,
        to: NodeId,
        incarnation: Incarnation,
        begun: u64,
    ) -> Result<(), Refused> {
        self.current(to, incarnation)?;
        if slots.is_empty() || slots.slots().any(|slot| self.slot(slot).phase != (Phase::HandingOff { to, begun })) {
            return Err(Refused::WrongPhase);
        }
        let handed_over = self.each_slot(slots, |topology, record| topology.swapped(record, to))?;
        self.record(EventKind::MoveDone, Some(to), handed_over);
        Ok(())
    }

    /// A node has started again. Gives those of its slots that others have: one of those is to be elected, or this node itself
    /// where its disk has kept them.
    pub(super) fn elect_for_restarted(&mut self, id: NodeId, kept: Option<&SlotRanges>) -> SlotRanges {
        let Some(incarnation) = self.nodes.get(&id).map(|node| node.incarnation) else { return SlotRanges::default() };
        let returned = SlotCopy::ready(id, incarnation, self.version);
        // What its former life had acknowledged by quorum has to be reckoned with: so many others have to answer.
        let lost = SlotCopy::ready(id, Incarnation(0), self.version);
        let is_quorum = is_quorum(self);
        let owned = self.owned_by(id);
        let gone = kept.map_or_else(|| owned.clone(), |kept| owned.difference(kept));
        let mut elected = SlotRanges::default();
        for (slots, is_here) in [(owned.difference(&gone), true), (gone, false)] {
            let mut shared = Shared::default();
            let begun = self.each_slot(&slots, |topology, record| {
                let is_elsewhere = topology.candidates(record).next().is_some();
                let copies = |before: &Copies| match is_here {
                    true => before.with(returned),
                    false if is_quorum => before.with(lost),
                    false => before.without(id),
                };
                is_elsewhere.then(|| electing(record, shared.change(&record.copies, copies)))
            });
            elected.extend(begun.unwrap_or_default().slots());
        }
        if !elected.is_empty() {
            self.record(EventKind::ElectionBegun, Some(id), elected.clone());
        }
        elected
    }

    /// A node has come back with what its log has of these slots: what it had copies of it may be elected for.
    pub(super) fn come_back(&mut self, id: NodeId, slots: &SlotRanges) {
        let Some(incarnation) = self.nodes.get(&id).map(|node| node.incarnation) else { return };
        let mut shared = Shared::default();
        let set = |one: &SlotCopy| match one.node == id {
            true => SlotCopy { kept: Some(incarnation), ..*one },
            false => *one,
        };
        // It may have had none.
        let _ = self.each_slot(slots, |topology, record| {
            record.copies.on(id).filter(|copy| copy.ready && topology.is_lost(copy))?;
            let copies = shared.change(&record.copies, |before| before.iter().map(set).collect());
            Some(SlotRecord { copies, ..record.clone() })
        });
    }

    /// It is no member any more, and no copy. Gives the slots that it was the primary of and that others have.
    pub(super) fn take_out_copies(&mut self, id: NodeId) -> SlotRanges {
        let (mut shared, mut elected) = (Shared::default(), SlotRanges::default());
        for slot in Slot::all() {
            let record = self.slot(slot);
            let copies = match record.copies.on(id) {
                Some(_) => shared.change(&record.copies, |before| before.without(id)),
                None => record.copies.clone(),
            };
            if record.primary == Some(id) && self.candidates(record).any(|copy| copy.node != id) {
                let record = electing(record, copies);
                self.set_record(slot, record);
                elected.extend([slot]);
            } else if copies != record.copies {
                let record = SlotRecord { copies, ..record.clone() };
                self.set_record(slot, record);
            }
        }
        elected
    }
}

/// The record of a slot whose primary is gone, in an epoch of its own.
pub(super) fn electing(record: &SlotRecord, copies: Copies) -> SlotRecord {
    let epoch = Epoch(record.epoch.0.saturating_add(1));
    SlotRecord { primary: None, epoch, phase: Phase::Electing, moved: None, changed: 0, copies }
}

#[cfg(test)]
mod tests;
