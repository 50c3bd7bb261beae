//! What a node has of the copies that are its own, decided without the keys: what it takes, what it answers an election, and
//! which hand-overs it may propose.

use crate::base::identity::{Epoch, Incarnation, NodeId, Position};
use crate::base::slot::{SLOT_COUNT, Slot};
use crate::base::slot_ranges::SlotRanges;
use crate::cluster::topology::{Phase, Topology, TopologyChange};
use crate::engine::export::RecordKind;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What is to be done about the keys of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The effects are applied, and the slot stands at the record's position.
    Apply,
    /// The same, and what is here is no more what the primary had in any position: it is sent anew.
    Replace,
    /// It stands at the record's position.
    Stand,
    /// Nothing: everything is here for a hand-over.
    Finished,
    /// The digest of the keys is to be this.
    Compare {
        digest: u64,
    },
    Nothing,
}

/// A record that does not follow from what is here: the copy begins again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// There is no such copy, or the epoch is over.
    Over(Slot),
    /// Between what is here and the record something is missing.
    Gap(Slot, Position, Position),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfit::Over(slot) => write!(f, "a record of slot {slot} of an epoch that is over"),
            Unfit::Gap(slot, here, next) => write!(f, "a gap in slot {slot} between {here:?} and {next:?}"),
        }
    }
}

impl std::error::Error for Unfit {}

/// What this node has of slots that it is not the primary of.
#[derive(Debug)]
pub struct CopyTable {
    copies: BTreeMap<Slot, Copy>,
    /// Slots of which a former life has left keys here, and that this one has no part in yet: mostly it becomes a copy again in
    /// a moment, and what has not changed meanwhile need not be sent.
    left: BTreeSet<Slot>,
    /// By slot, the greatest epoch that an election asked about: what is older is refused.
    fences: Vec<Epoch>,
}

/// One slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Copy {
    number: u64,
    is_complete: bool,
    /// Not complete, but what is here was left by a former life, and nothing has been added: it may be what the primary has.
    is_left: bool,
    /// The hand-over to this node before which nothing more comes.
    finished: Option<u64>,
}

impl Default for CopyTable {
    fn default() -> CopyTable {
        CopyTable { copies: BTreeMap::new(), left: BTreeSet::new(), fences: vec![Epoch(0); SLOT_COUNT] }
    }
}

impl CopyTable {
    /// What is here of a slot belongs to the copy of this number from now on.
    pub fn keep(&mut self, slot: Slot, number: u64, is_complete: bool) {
        let was_left = self.left.remove(&slot) || self.copies.get(&slot).is_some_and(|copy| copy.is_left);
        let is_left = was_left && !is_complete;
        self.copies.insert(slot, Copy { number, is_complete, is_left, finished: None });
    }

    /// A former life has left something of a slot here.
    pub fn leave(&mut self, slot: Slot) {
        self.left.insert(slot);
    }

    /// Whether a former life has left something of it that no copy has taken up yet.
    pub fn has_left_of(&self, slot: Slot) -> bool {
        self.left.contains(&slot)
    }

    /// What is here of a complete copy is what a former life has left, again: an election is over that was to choose it. False:
    /// there is no such copy.
    pub fn leave_again(&mut self, slot: Slot) -> bool {
        if self.left.contains(&slot) {
            return true;
        }
        if !self.copies.get(&slot).is_some_and(|copy| copy.is_complete) {
            return false;
        }
        self.copies.remove(&slot);
        self.left.insert(slot)
    }

    /// Whether this copy has what a former life has left, as it was.
    pub fn is_left(&self, slot: Slot, number: u64) -> bool {
        self.copies.get(&slot).is_some_and(|copy| copy.number == number && copy.is_left)
    }

    /// Whether a former life has left something that this one has no part in.
    pub fn has_left(&self) -> bool {
        !self.left.is_empty()
    }

    /// What a former life has left of slots that this one has no part in: nothing of it is to be kept any more.
    pub fn give_up_left(&mut self) -> BTreeSet<Slot> {
        std::mem::take(&mut self.left)
    }

    /// Nothing of it is here. Whether there was something.
    pub fn drop_slot(&mut self, slot: Slot) -> bool {
        self.left.remove(&slot) | self.copies.remove(&slot).is_some()
    }

    /// This node has no copy of it. Whether there was one: what a former life has left stays.
    pub fn end_copy(&mut self, slot: Slot) -> bool {
        self.copies.remove(&slot).is_some()
    }

    /// The number of the copy that is here.
    pub fn number(&self, slot: Slot) -> Option<u64> {
        self.copies.get(&slot).map(|copy| copy.number)
    }

    /// Whether the copy of this number has everything up to its position.
    pub fn is_complete(&self, slot: Slot, number: u64) -> bool {
        self.copies.get(&slot).is_some_and(|copy| copy.number == number && copy.is_complete)
    }

    /// Whether something of that epoch may be applied to the copy of this number.
    fn accepts(&self, slot: Slot, number: u64, epoch: Epoch) -> bool {
        self.number(slot) == Some(number) && epoch >= self.fences[slot.index()]
    }

    /// Whether everything is here of a slot for the hand-over of this number.
    fn is_finished(&self, slot: Slot, begun: u64) -> bool {
        self.copies.get(&slot).is_some_and(|copy| copy.is_complete && copy.finished == Some(begun))
    }

    /// Takes a record of a stream for the copy of this number, which stands at `here`: says what is to be done about the keys,
    /// or why they do not follow from what is here. To be called under the lock under which that is done: who answers an
    /// election is given nothing of an earlier epoch afterwards.
    pub fn take(
        &mut self,
        slot: Slot,
        number: u64,
        (kind, position): (RecordKind, Position),
        here: Position,
    ) -> Result<Step, Unfit> {
        if !self.accepts(slot, number, position.epoch) {
            return Err(Unfit::Over(slot));
        }
        let Some(copy) = self.copies.get_mut(&slot) else { return Err(Unfit::Over(slot)) };
        match kind {
            RecordKind::Piece => {
                (copy.finished, copy.is_left) = (None, false);
                let was_complete = std::mem::replace(&mut copy.is_complete, false);
                Ok(if was_complete { Step::Replace } else { Step::Apply })
            }
            RecordKind::Complete => {
                (copy.is_complete, copy.is_left, copy.finished) = (true, false, None);
                Ok(Step::Stand)
            }
            RecordKind::Run { count } => {
                let after = Position { seq: here.seq + u64::from(count), ..here };
                if !copy.is_complete || after != position {
                    return Err(Unfit::Gap(slot, here, position));
                }
                // If it was handed over to here, that was called off.
                copy.finished = None;
                Ok(Step::Apply)
            }
            // Said of another position it says nothing.
            RecordKind::Digest { digest } if here == position => Ok(Step::Compare { digest }),
            RecordKind::Digest { .. } => Ok(Step::Nothing),
            RecordKind::Final { begun } => {
                if !copy.is_complete || here != position {
                    return Err(Unfit::Gap(slot, here, position));
                }
                copy.finished = Some(begun);
                Ok(Step::Finished)
            }
        }
    }

    /// What a record said could not be done: the slot is no more what the primary had.
    pub(super) fn broken(&mut self, slot: Slot) {
        if let Some(copy) = self.copies.get_mut(&slot) {
            (copy.is_complete, copy.is_left, copy.finished) = (false, false, None);
        }
    }

    /// Answers an election of these slots: where each stands here, and nothing where it is not known here. From now on nothing
    /// of an earlier epoch is taken.
    pub fn answer_election(
        &mut self,
        topology: &Topology,
        slots: &SlotRanges,
        epoch: Epoch,
        position: impl Fn(Slot) -> Position,
    ) -> Vec<Option<Position>> {
        let mut answer = |slot: Slot| {
            let record = topology.slot(slot);
            let is_asked = record.phase == Phase::Electing && record.epoch == epoch;
            self.number(slot).filter(|_| is_asked)?;
            // Where it is not complete it is the last that anybody would choose.
            Some(if self.fence(slot, epoch) { position(slot) } else { Position::default() })
        };
        slots.slots().map(&mut answer).collect()
    }

    /// The hand-overs to this life of a node of which everything is here, in all their slots.
    pub fn hand_overs(&self, topology: &Topology, node: NodeId, incarnation: Incarnation) -> Vec<TopologyChange> {
        let mut coming: BTreeMap<u64, (SlotRanges, bool)> = BTreeMap::new();
        for (slot, record) in topology.slots().moving() {
            if let Phase::HandingOff { to, begun } = record.phase
                && to == node
                && record.copies.on(to).is_some_and(|copy| copy.incarnation == incarnation)
            {
                let (slots, is_finished) = coming.entry(begun).or_insert_with(|| (SlotRanges::default(), true));
                slots.extend([slot]);
                *is_finished &= self.is_finished(slot, begun);
            }
        }
        let finished = coming.into_iter().filter(|(_, (_, is_finished))| *is_finished);
        finished.map(|(begun, (slots, _))| TopologyChange::Handoff { slots, to: node, incarnation, begun }).collect()
    }

    /// Answers an election: whether a slot is complete here. Nothing of an earlier epoch is accepted from now on.
    fn fence(&mut self, slot: Slot, epoch: Epoch) -> bool {
        let fence = &mut self.fences[slot.index()];
        if *fence > epoch {
            return false;
        }
        *fence = epoch;
        self.copies.get(&slot).is_some_and(|copy| copy.is_complete)
    }
}
