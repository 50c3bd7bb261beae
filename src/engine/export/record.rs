//! What goes to a copy: entries, what happens, and words about a slot, each with its place in the slot's history.

use super::slot::next;
use crate::base::identity::Position;
use crate::base::slot::Slot;
use crate::engine::group::Run;

/// One thing that happened to a slot, or one entry of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub slot: Slot,
    /// Of the last of its effects.
    pub position: Position,
    pub kind: RecordKind,
    /// The encoded [`Effect`](crate::engine::effect::Effect); of a run several, one behind the other.
    pub effect: Box<[u8]>,
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// An entry, or what happened to one that was sent: the slot is not complete.
    Piece,
    /// So many effects of a slot that is complete: all of them, or none.
    Run { count: u32 },
    /// The slot is complete from here on. No effect.
    Complete,
    /// The slot stands still for the hand-over of this number: nothing comes behind. No effect.
    Final { begun: u64 },
    /// What the slot has in this position. No effect.
    Digest { digest: u64 },
}

impl Record {
    /// Bytes that it takes in a queue.
    pub fn size(&self) -> usize {
        self.effect.len() + size_of::<Record>()
    }

    pub(super) fn piece(slot: Slot, position: Position, effect: Box<[u8]>) -> Record {
        Record { slot, position, kind: RecordKind::Piece, effect }
    }

    pub(super) fn complete(slot: Slot, position: Position) -> Record {
        Record { slot, position, kind: RecordKind::Complete, effect: Box::default() }
    }

    /// Adds a run to one of the same slot that it goes on behind: whoever applies this has both or neither. False: it is another.
    pub(super) fn extend(&mut self, run: &Run<'_>, effects: &[u8]) -> bool {
        let RecordKind::Run { count } = &mut self.kind else { return false };
        let added = u32::try_from(run.count).ok().and_then(|added| count.checked_add(added));
        let goes_on = run.slot == Some(self.slot) && next(self.position) == run.first;
        let Some(sum) = added.filter(|_| goes_on) else { return false };
        *count = sum;
        self.position = run.last();
        self.effect = [&*self.effect, effects].concat().into_boxed_slice();
        true
    }
}
