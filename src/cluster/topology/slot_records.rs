//! What is agreed about every slot, in pieces that versions of the topology share.
//!
//! A change names a few slots. So a copy of the records costs a few counters, a change copies only the pieces that it
//! touches, and two versions tell which slots may differ by comparing pointers: with a hundred nodes, each of which
//! follows thousands of changes, nobody can afford to look at 16384 slots for every one of them.

use super::copies::Copies;
use super::state::{Phase, SlotRecord};
use crate::base::identity::Epoch;
use crate::base::slot::{SLOT_COUNT, Slot};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Slots in one piece.
const PIECE_SLOTS: usize = 128;

/// The records of all slots.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(u16, SlotRecord)>", into = "Vec<(u16, SlotRecord)>")]
pub struct SlotRecords {
    pieces: Box<[Arc<Piece>]>,
}

#[derive(Clone, PartialEq, Eq)]
struct Piece {
    records: [SlotRecord; PIECE_SLOTS],
    /// How many of them are in no phase that lasts: they change hands, or have just done so.
    moving: usize,
}

/// The records read from elsewhere are not one for each slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WrongCount;

impl std::fmt::Display for WrongCount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not one record for each slot")
    }
}

fn is_moving(record: &SlotRecord) -> bool {
    !matches!(record.phase, Phase::Normal | Phase::Dead | Phase::Electing)
}

impl Default for SlotRecords {
    /// Nobody owns anything.
    fn default() -> SlotRecords {
        let free = || SlotRecord {
            primary: None,
            epoch: Epoch(0),
            phase: Phase::Dead,
            moved: None,
            changed: 0,
            copies: Copies::default(),
        };
        let piece = Arc::new(Piece { records: std::array::from_fn(|_| free()), moving: 0 });
        SlotRecords { pieces: vec![piece; SLOT_COUNT / PIECE_SLOTS].into_boxed_slice() }
    }
}

impl SlotRecords {
    /// What is agreed about a slot.
    #[inline]
    pub fn get(&self, slot: Slot) -> &SlotRecord {
        &self.pieces[slot.index() / PIECE_SLOTS].records[slot.index() % PIECE_SLOTS]
    }

    /// Agrees on something else about a slot.
    pub(super) fn set(&mut self, slot: Slot, record: SlotRecord) {
        let piece = Arc::make_mut(&mut self.pieces[slot.index() / PIECE_SLOTS]);
        let moves = usize::from(is_moving(&record));
        let before = std::mem::replace(&mut piece.records[slot.index() % PIECE_SLOTS], record);
        piece.moving = piece.moving + moves - usize::from(is_moving(&before));
    }

    /// All records, by slot.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &SlotRecord> + '_ {
        self.pieces.iter().flat_map(|piece| &piece.records)
    }

    /// The slots that change hands or have just done so, ascending.
    pub fn moving(&self) -> impl Iterator<Item = (Slot, &SlotRecord)> + '_ {
        let numbered = Slots::all().zip(self.pieces.iter()).filter(|(_, piece)| piece.moving > 0);
        numbered.flat_map(|(slots, piece)| slots.iter().zip(&piece.records)).filter(|(_, record)| is_moving(record))
    }

    /// The slots whose records may differ from those of another version, ascending; all others are the same.
    pub fn changed_since<'a>(&'a self, other: &'a SlotRecords) -> impl Iterator<Item = Slots> + 'a {
        let pairs = self.pieces.iter().zip(other.pieces.iter());
        Slots::all().zip(pairs).filter(|(_, (one, other))| !Arc::ptr_eq(one, other)).map(|(slots, _)| slots)
    }
}

/// Slots that stand in one piece of the records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slots {
    first: u16,
}

impl Slots {
    /// Every slot there is, piece by piece.
    pub fn all() -> impl Iterator<Item = Slots> {
        (0..SLOT_COUNT).step_by(PIECE_SLOTS).map(|first| Slots { first: first as u16 })
    }

    /// The slots, ascending.
    pub fn iter(self) -> impl Iterator<Item = Slot> {
        let numbers = u64::from(self.first)..u64::from(self.first) + PIECE_SLOTS as u64;
        numbers.filter_map(Slot::new)
    }
}

/// Records that follow each other and are the same are written once, with their number.
impl TryFrom<Vec<(u16, SlotRecord)>> for SlotRecords {
    type Error = WrongCount;

    fn try_from(runs: Vec<(u16, SlotRecord)>) -> Result<SlotRecords, WrongCount> {
        if runs.iter().map(|(count, _)| usize::from(*count)).sum::<usize>() != SLOT_COUNT {
            return Err(WrongCount);
        }
        let mut table = SlotRecords::default();
        let records = runs.iter().flat_map(|(count, record)| std::iter::repeat_n(record, usize::from(*count)));
        for (slot, record) in Slot::all().zip(records) {
            table.set(slot, record.clone());
        }
        Ok(table)
    }
}

impl From<SlotRecords> for Vec<(u16, SlotRecord)> {
    fn from(table: SlotRecords) -> Vec<(u16, SlotRecord)> {
        let mut runs: Vec<(u16, SlotRecord)> = Vec::new();
        for record in table.iter() {
            match runs.last_mut() {
                Some((count, last)) if last == record => *count += 1,
                _ => runs.push((1, record.clone())),
            }
        }
        runs
    }
}

/// As a list of records: the pieces mean nothing to a reader.
impl std::fmt::Debug for SlotRecords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
