//! Effects: what a command did to keys, typed and deterministic.
//!
//! Whoever applies the effects of a slot in their order, beginning with an empty slot, ends with the same keys: a slot's
//! new owner, a copy, a log on disk. Deadlines are absolute, popped and random members are named, floating point
//! increments are their results. What a command does to many members of one key is one effect.
//!
//! The encoded form is a tag, then fields; byte strings have their length in front, lists their count, integers are
//! LEB128. Tags are stable: a number is never given twice. A command writes the encoded form directly ([`encode`]); it is
//! read back as an [`Effect`], which borrows from it.

pub mod encode;

use crate::base::identity::{Epoch, Position};
use crate::base::slot::Slot;
use crate::base::slot_ranges::SlotRanges;

/// Which end of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Front,
    Back,
}

/// Why a key changed: a merge after a split treats a user's delete and an expiry differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Cause {
    #[default]
    Client,
    Expire,
    Evict,
    /// The slot moved here, or is re-built from its history.
    Move,
}

impl Cause {
    /// Its number in the log; a number is never given twice.
    pub(super) fn tag(self) -> u8 {
        match self {
            Cause::Client => 0,
            Cause::Expire => 1,
            Cause::Evict => 2,
            Cause::Move => 3,
        }
    }

    pub(super) fn from_tag(tag: u8) -> Option<Cause> {
        [Cause::Client, Cause::Expire, Cause::Evict, Cause::Move].into_iter().find(|cause| cause.tag() == tag)
    }
}

/// One change: of a key, of two, of a slot, or of the node.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect<'a> {
    /// The key holds this string and nothing else.
    SetString {
        key: &'a [u8],
        bytes: &'a [u8],
        deadline: Option<u64>,
    },
    /// The key holds the decimal form of `result`, which `change` has made of what was there; its deadline stays.
    Increment {
        key: &'a [u8],
        change: i64,
        result: i64,
    },
    Append {
        key: &'a [u8],
        bytes: &'a [u8],
    },
    SetRange {
        key: &'a [u8],
        offset: u64,
        bytes: &'a [u8],
    },
    SetDeadline {
        key: &'a [u8],
        deadline: Option<u64>,
    },
    Delete {
        key: &'a [u8],
    },
    /// One after the other.
    ListPush {
        key: &'a [u8],
        side: Side,
        elements: Items<'a>,
    },
    ListPop {
        key: &'a [u8],
        side: Side,
        count: u64,
    },
    /// Before the element at the index; behind the last one where it is the length.
    ListInsert {
        key: &'a [u8],
        index: u64,
        element: &'a [u8],
    },
    ListSet {
        key: &'a [u8],
        index: u64,
        element: &'a [u8],
    },
    /// The elements at these indexes, as they were before.
    ListRemove {
        key: &'a [u8],
        indexes: Indexes<'a>,
    },
    /// Field, value, field, value, ...
    HashSet {
        key: &'a [u8],
        pairs: Items<'a>,
    },
    HashRemove {
        key: &'a [u8],
        fields: Items<'a>,
    },
    /// Fields that are there expire at these moments, or never.
    HashDeadlines {
        key: &'a [u8],
        fields: Deadlines<'a>,
    },
    SetAdd {
        key: &'a [u8],
        members: Items<'a>,
    },
    SetRemove {
        key: &'a [u8],
        members: Items<'a>,
    },
    SortedSetPut {
        key: &'a [u8],
        members: Scored<'a>,
    },
    SortedSetRemove {
        key: &'a [u8],
        members: Items<'a>,
    },
    /// Changes of a stream, one after the other, each as [`crate::values::stream::Edit`] encodes it; it is made where there
    /// is none.
    StreamEdit {
        key: &'a [u8],
        edits: Items<'a>,
    },
    /// The key holds this collection and nothing else; `image` is what [`crate::values::Value::write_image`] writes.
    PutValue {
        key: &'a [u8],
        image: &'a [u8],
        deadline: Option<u64>,
    },
    /// What the key holds goes to `to`, in place of what is there.
    Rename {
        key: &'a [u8],
        to: &'a [u8],
    },
    /// `to` in another database, or another key in this one, holds what the key holds.
    Copy {
        key: &'a [u8],
        to: &'a [u8],
        database: u32,
    },
    /// What the key holds goes to another database, where there is no such key.
    Move {
        key: &'a [u8],
        database: u32,
    },
    /// The slot is empty in this database.
    FlushSlot,
    /// These slots are empty in this database, or in all. Of the node; numbered in each of the slots.
    Flush {
        database: Option<u32>,
        slots: SlotRanges,
    },
    /// Two databases have changed places. Of the node; numbered in no slot.
    SwapDatabases {
        first: u32,
        second: u32,
    },
    /// The slot is no longer here, and none of its keys. The number is that of the next effect, if there is one.
    ClearSlot,
    /// The slot's history goes on after this position.
    BeginEpoch {
        after: Position,
    },
}

/// Byte strings that lie in an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Items<'a> {
    count: usize,
    /// Whole strings, each with its length in front.
    bytes: &'a [u8],
}

impl<'a> Items<'a> {
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + Clone {
        let mut rest = self.bytes;
        std::iter::repeat_with(move || take_bytes(&mut rest).unwrap_or_default()).take(self.count)
    }

    /// Two at a time.
    pub fn pairs(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone {
        let mut rest = self.bytes;
        let mut next = move || take_bytes(&mut rest).unwrap_or_default();
        std::iter::repeat_with(move || (next(), next())).take(self.count / 2)
    }

    fn read(bytes: &mut &'a [u8]) -> Option<Items<'a>> {
        let count = usize::try_from(take_integer(bytes)?).ok()?;
        let all = *bytes;
        for _ in 0..count {
            take_bytes(bytes)?;
        }
        Some(Items { count, bytes: &all[..all.len() - bytes.len()] })
    }

    fn read_pairs(bytes: &mut &'a [u8]) -> Option<Items<'a>> {
        Items::read(bytes).filter(|items| items.count.is_multiple_of(2))
    }
}

/// Ascending numbers that lie in an effect: the first, and how many are passed over before each of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Indexes<'a> {
    count: usize,
    bytes: &'a [u8],
}

impl<'a> Indexes<'a> {
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = u64> + Clone + use<'a> {
        let (mut rest, mut least) = (self.bytes, 0);
        let next = move || {
            let index = take_integer(&mut rest)?.checked_add(least)?;
            least = index.checked_add(1)?;
            Some(index)
        };
        std::iter::from_fn(next).take(self.count)
    }

    fn read(bytes: &mut &'a [u8]) -> Option<Indexes<'a>> {
        let count = usize::try_from(take_integer(bytes)?).ok()?;
        let (all, mut least) = (*bytes, 0u64);
        for _ in 0..count {
            least = take_integer(bytes)?.checked_add(least)?.checked_add(1)?;
        }
        Some(Indexes { count, bytes: &all[..all.len() - bytes.len()] })
    }
}

/// Members and their scores that lie in an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scored<'a> {
    count: usize,
    bytes: &'a [u8],
}

impl<'a> Scored<'a> {
    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], f64)> + Clone {
        let mut rest = self.bytes;
        std::iter::repeat_with(move || take_scored(&mut rest).unwrap_or_default()).take(self.count)
    }

    fn read(bytes: &mut &'a [u8]) -> Option<Scored<'a>> {
        let count = usize::try_from(take_integer(bytes)?).ok()?;
        let all = *bytes;
        for _ in 0..count {
            // A sorted set cannot order what is not a number.
            take_scored(bytes).filter(|(_, score)| !score.is_nan())?;
        }
        Some(Scored { count, bytes: &all[..all.len() - bytes.len()] })
    }
}

/// Fields and their deadlines that lie in an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines<'a> {
    count: usize,
    bytes: &'a [u8],
}

impl<'a> Deadlines<'a> {
    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], Option<u64>)> + Clone {
        let mut rest = self.bytes;
        std::iter::repeat_with(move || take_timed(&mut rest).unwrap_or_default()).take(self.count)
    }

    fn read(bytes: &mut &'a [u8]) -> Option<Deadlines<'a>> {
        let count = usize::try_from(take_integer(bytes)?).ok()?;
        let all = *bytes;
        for _ in 0..count {
            take_timed(bytes)?;
        }
        Some(Deadlines { count, bytes: &all[..all.len() - bytes.len()] })
    }
}

mod tags {
    // 6 and 8 to 13 were effects with one member.
    pub(super) const SET_STRING: u8 = 1;
    pub(super) const APPEND: u8 = 2;
    pub(super) const SET_RANGE: u8 = 3;
    pub(super) const SET_DEADLINE: u8 = 4;
    pub(super) const DELETE: u8 = 5;
    pub(super) const LIST_POP: u8 = 7;
    pub(super) const PUT_VALUE: u8 = 14;
    pub(super) const FLUSH_SLOT: u8 = 15;
    pub(super) const INCREMENT: u8 = 16;
    pub(super) const LIST_PUSH: u8 = 17;
    pub(super) const HASH_SET: u8 = 18;
    pub(super) const HASH_REMOVE: u8 = 19;
    pub(super) const SET_ADD: u8 = 20;
    pub(super) const SET_REMOVE: u8 = 21;
    pub(super) const SORTED_SET_PUT: u8 = 22;
    pub(super) const SORTED_SET_REMOVE: u8 = 23;
    pub(super) const RENAME: u8 = 24;
    pub(super) const COPY: u8 = 25;
    pub(super) const MOVE: u8 = 26;
    pub(super) const FLUSH: u8 = 27;
    pub(super) const SWAP_DATABASES: u8 = 28;
    pub(super) const CLEAR_SLOT: u8 = 29;
    pub(super) const BEGIN_EPOCH: u8 = 30;
    pub(super) const LIST_INSERT: u8 = 31;
    pub(super) const LIST_SET: u8 = 32;
    pub(super) const LIST_REMOVE: u8 = 33;
    pub(super) const STREAM_EDIT: u8 = 45;
    pub(super) const HASH_DEADLINES: u8 = 70;
}

impl<'a> Effect<'a> {
    /// The key it changes, or takes what it changes another one to; `None` for slots and the node.
    pub fn key(&self) -> Option<&'a [u8]> {
        match self {
            Effect::SetString { key, .. }
            | Effect::Increment { key, .. }
            | Effect::Append { key, .. }
            | Effect::SetRange { key, .. }
            | Effect::SetDeadline { key, .. }
            | Effect::Delete { key }
            | Effect::ListPush { key, .. }
            | Effect::ListPop { key, .. }
            | Effect::ListInsert { key, .. }
            | Effect::ListSet { key, .. }
            | Effect::ListRemove { key, .. }
            | Effect::HashSet { key, .. }
            | Effect::HashRemove { key, .. }
            | Effect::HashDeadlines { key, .. }
            | Effect::SetAdd { key, .. }
            | Effect::SetRemove { key, .. }
            | Effect::SortedSetPut { key, .. }
            | Effect::SortedSetRemove { key, .. }
            | Effect::StreamEdit { key, .. }
            | Effect::PutValue { key, .. }
            | Effect::Rename { key, .. }
            | Effect::Copy { key, .. }
            | Effect::Move { key, .. } => Some(key),
            Effect::FlushSlot
            | Effect::Flush { .. }
            | Effect::SwapDatabases { .. }
            | Effect::ClearSlot
            | Effect::BeginEpoch { .. } => None,
        }
    }

    /// The second key of those that have two.
    pub fn second_key(&self) -> Option<&'a [u8]> {
        match self {
            Effect::Rename { to, .. } | Effect::Copy { to, .. } => Some(to),
            _ => None,
        }
    }

    /// Reads one effect off the front of `bytes`; `None` where they are not one.
    pub fn decode(bytes: &mut &'a [u8]) -> Option<Effect<'a>> {
        match take(bytes, 1)?[0] {
            tags::FLUSH_SLOT => Some(Effect::FlushSlot),
            tags::CLEAR_SLOT => Some(Effect::ClearSlot),
            tags::BEGIN_EPOCH => {
                let epoch = Epoch(take_u32(bytes)?);
                Some(Effect::BeginEpoch { after: Position { epoch, seq: take_integer(bytes)? } })
            }
            tags::SWAP_DATABASES => Some(Effect::SwapDatabases { first: take_u32(bytes)?, second: take_u32(bytes)? }),
            tags::FLUSH => {
                let database = u32::try_from(take_integer(bytes)?).ok()?.checked_sub(1);
                Some(Effect::Flush { database, slots: take_slots(bytes)? })
            }
            tag => Effect::decode_with_key(tag, bytes),
        }
    }

    fn decode_with_key(tag: u8, bytes: &mut &'a [u8]) -> Option<Effect<'a>> {
        let key = take_bytes(bytes)?;
        Some(match tag {
            tags::SET_STRING => Effect::SetString { key, bytes: take_bytes(bytes)?, deadline: take_deadline(bytes)? },
            tags::INCREMENT => Effect::Increment { key, change: take_signed(bytes)?, result: take_signed(bytes)? },
            tags::APPEND => Effect::Append { key, bytes: take_bytes(bytes)? },
            tags::SET_RANGE => {
                let written = take_bytes(bytes)?;
                Effect::SetRange { key, offset: take_integer(bytes)?, bytes: written }
            }
            tags::SET_DEADLINE => Effect::SetDeadline { key, deadline: take_deadline(bytes)? },
            tags::DELETE => Effect::Delete { key },
            tags::LIST_PUSH => Effect::ListPush { key, side: take_side(bytes)?, elements: Items::read(bytes)? },
            tags::LIST_POP => Effect::ListPop { key, side: take_side(bytes)?, count: take_integer(bytes)? },
            tags::LIST_INSERT => Effect::ListInsert { key, index: take_integer(bytes)?, element: take_bytes(bytes)? },
            tags::LIST_SET => Effect::ListSet { key, index: take_integer(bytes)?, element: take_bytes(bytes)? },
            tags::LIST_REMOVE => Effect::ListRemove { key, indexes: Indexes::read(bytes)? },
            tags::HASH_SET => Effect::HashSet { key, pairs: Items::read_pairs(bytes)? },
            tags::HASH_REMOVE => Effect::HashRemove { key, fields: Items::read(bytes)? },
            tags::HASH_DEADLINES => Effect::HashDeadlines { key, fields: Deadlines::read(bytes)? },
            tags::SET_ADD => Effect::SetAdd { key, members: Items::read(bytes)? },
            tags::SET_REMOVE => Effect::SetRemove { key, members: Items::read(bytes)? },
            tags::SORTED_SET_PUT => Effect::SortedSetPut { key, members: Scored::read(bytes)? },
            tags::SORTED_SET_REMOVE => Effect::SortedSetRemove { key, members: Items::read(bytes)? },
            tags::STREAM_EDIT => Effect::StreamEdit { key, edits: Items::read(bytes)? },
            tags::PUT_VALUE => Effect::PutValue { key, image: take_bytes(bytes)?, deadline: take_deadline(bytes)? },
            tags::RENAME => Effect::Rename { key, to: take_bytes(bytes)? },
            tags::COPY => Effect::Copy { key, to: take_bytes(bytes)?, database: take_u32(bytes)? },
            tags::MOVE => Effect::Move { key, database: take_u32(bytes)? },
            _ => return None,
        })
    }
}

/// Appends in LEB128.
#[inline]
pub(super) fn put_integer(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes so many bytes off the front.
pub(super) fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

/// Takes LEB128 off the front.
pub(super) fn take_integer(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    u32::try_from(take_integer(bytes)?).ok()
}

/// Small numbers of either sign are short (zigzag).
fn take_signed(bytes: &mut &[u8]) -> Option<i64> {
    let bits = take_integer(bytes)?;
    Some((bits >> 1).cast_signed() ^ -((bits & 1).cast_signed()))
}

fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take_integer(bytes)?).ok()?;
    take(bytes, length)
}

fn take_deadline(bytes: &mut &[u8]) -> Option<Option<u64>> {
    take_integer(bytes).map(|deadline| deadline.checked_sub(1))
}

fn take_side(bytes: &mut &[u8]) -> Option<Side> {
    match take(bytes, 1)?[0] {
        0 => Some(Side::Front),
        1 => Some(Side::Back),
        _ => None,
    }
}

fn take_timed<'a>(bytes: &mut &'a [u8]) -> Option<(&'a [u8], Option<u64>)> {
    Some((take_bytes(bytes)?, take_deadline(bytes)?))
}

fn take_scored<'a>(bytes: &mut &'a [u8]) -> Option<(&'a [u8], f64)> {
    let member = take_bytes(bytes)?;
    let bits = take(bytes, 8)?.try_into().ok()?;
    Some((member, f64::from_bits(u64::from_le_bytes(bits))))
}

/// Ranges in ascending order.
fn take_slots(bytes: &mut &[u8]) -> Option<SlotRanges> {
    let mut slots = Vec::new();
    for _ in 0..take_integer(bytes)? {
        let (first, last) = (Slot::new(take_integer(bytes)?)?, Slot::new(take_integer(bytes)?)?);
        if slots.last().is_some_and(|before| *before >= first) {
            return None;
        }
        slots.extend(Slot::all().skip(first.index()).take_while(|slot| *slot <= last));
    }
    Some(slots.into_iter().collect())
}

#[cfg(test)]
mod tests;
