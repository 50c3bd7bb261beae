//! Effects: what a command did to a key, typed and deterministic.
//!
//! Whoever applies the effects of a slot in their order, beginning with an empty slot, ends with the same keys: a slot's
//! new owner, later a copy or a log on disk. Deadlines are absolute, popped and random members are named, floating point
//! increments are their results.
//!
//! The encoded form is a tag, then fields; byte strings have their length in front, integers are LEB128. Tags are
//! stable: a number is never given twice.

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

/// One change of one key, or of a whole slot.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect<'a> {
    /// The key holds this string and nothing else.
    SetString {
        key: &'a [u8],
        bytes: &'a [u8],
        deadline: Option<u64>,
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
    ListPush {
        key: &'a [u8],
        side: Side,
        element: &'a [u8],
    },
    ListPop {
        key: &'a [u8],
        side: Side,
        count: u64,
    },
    HashSet {
        key: &'a [u8],
        field: &'a [u8],
        value: &'a [u8],
    },
    HashRemove {
        key: &'a [u8],
        field: &'a [u8],
    },
    SetAdd {
        key: &'a [u8],
        member: &'a [u8],
    },
    SetRemove {
        key: &'a [u8],
        member: &'a [u8],
    },
    SortedSetPut {
        key: &'a [u8],
        member: &'a [u8],
        score: f64,
    },
    SortedSetRemove {
        key: &'a [u8],
        member: &'a [u8],
    },
    /// The key holds this collection and nothing else; `image` is what [`crate::values::Value::write_image`] writes.
    PutValue {
        key: &'a [u8],
        image: &'a [u8],
        deadline: Option<u64>,
    },
    /// The slot is empty in this database.
    FlushSlot,
}

const SET_STRING: u8 = 1;
const APPEND: u8 = 2;
const SET_RANGE: u8 = 3;
const SET_DEADLINE: u8 = 4;
const DELETE: u8 = 5;
const LIST_PUSH: u8 = 6;
const LIST_POP: u8 = 7;
const HASH_SET: u8 = 8;
const HASH_REMOVE: u8 = 9;
const SET_ADD: u8 = 10;
const SET_REMOVE: u8 = 11;
const SORTED_SET_PUT: u8 = 12;
const SORTED_SET_REMOVE: u8 = 13;
const PUT_VALUE: u8 = 14;
const FLUSH_SLOT: u8 = 15;

impl<'a> Effect<'a> {
    /// The key it changes; `None` for the whole slot.
    pub fn key(&self) -> Option<&'a [u8]> {
        match self {
            Effect::SetString { key, .. }
            | Effect::Append { key, .. }
            | Effect::SetRange { key, .. }
            | Effect::SetDeadline { key, .. }
            | Effect::Delete { key }
            | Effect::ListPush { key, .. }
            | Effect::ListPop { key, .. }
            | Effect::HashSet { key, .. }
            | Effect::HashRemove { key, .. }
            | Effect::SetAdd { key, .. }
            | Effect::SetRemove { key, .. }
            | Effect::SortedSetPut { key, .. }
            | Effect::SortedSetRemove { key, .. }
            | Effect::PutValue { key, .. } => Some(key),
            Effect::FlushSlot => None,
        }
    }

    /// Appends the encoded form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Effect::SetString { key, bytes, deadline } => {
                put(out, SET_STRING, &[key, bytes]);
                put_deadline(out, *deadline);
            }
            Effect::Append { key, bytes } => put(out, APPEND, &[key, bytes]),
            Effect::SetRange { key, offset, bytes } => {
                put(out, SET_RANGE, &[key, bytes]);
                put_integer(out, *offset);
            }
            Effect::SetDeadline { key, deadline } => {
                put(out, SET_DEADLINE, &[key]);
                put_deadline(out, *deadline);
            }
            Effect::Delete { key } => put(out, DELETE, &[key]),
            Effect::ListPush { key, side, element } => {
                put(out, LIST_PUSH, &[key, element]);
                out.push(side_tag(*side));
            }
            Effect::ListPop { key, side, count } => {
                put(out, LIST_POP, &[key]);
                out.push(side_tag(*side));
                put_integer(out, *count);
            }
            Effect::HashSet { key, field, value } => put(out, HASH_SET, &[key, field, value]),
            Effect::HashRemove { key, field } => put(out, HASH_REMOVE, &[key, field]),
            Effect::SetAdd { key, member } => put(out, SET_ADD, &[key, member]),
            Effect::SetRemove { key, member } => put(out, SET_REMOVE, &[key, member]),
            Effect::SortedSetPut { key, member, score } => {
                put(out, SORTED_SET_PUT, &[key, member]);
                out.extend_from_slice(&score.to_bits().to_le_bytes());
            }
            Effect::SortedSetRemove { key, member } => put(out, SORTED_SET_REMOVE, &[key, member]),
            Effect::PutValue { key, image, deadline } => {
                put(out, PUT_VALUE, &[key, image]);
                put_deadline(out, *deadline);
            }
            Effect::FlushSlot => out.push(FLUSH_SLOT),
        }
    }

    /// Reads one effect off the front of `bytes`; `None` where they are not one.
    pub fn decode(bytes: &mut &'a [u8]) -> Option<Effect<'a>> {
        let tag = take(bytes, 1)?[0];
        if tag == FLUSH_SLOT {
            return Some(Effect::FlushSlot);
        }
        let key = take_bytes(bytes)?;
        Some(match tag {
            SET_STRING => Effect::SetString { key, bytes: take_bytes(bytes)?, deadline: take_deadline(bytes)? },
            APPEND => Effect::Append { key, bytes: take_bytes(bytes)? },
            SET_RANGE => {
                let written = take_bytes(bytes)?;
                Effect::SetRange { key, offset: take_integer(bytes)?, bytes: written }
            }
            SET_DEADLINE => Effect::SetDeadline { key, deadline: take_deadline(bytes)? },
            DELETE => Effect::Delete { key },
            LIST_PUSH => {
                let element = take_bytes(bytes)?;
                Effect::ListPush { key, side: take_side(bytes)?, element }
            }
            LIST_POP => Effect::ListPop { key, side: take_side(bytes)?, count: take_integer(bytes)? },
            HASH_SET => Effect::HashSet { key, field: take_bytes(bytes)?, value: take_bytes(bytes)? },
            HASH_REMOVE => Effect::HashRemove { key, field: take_bytes(bytes)? },
            SET_ADD => Effect::SetAdd { key, member: take_bytes(bytes)? },
            SET_REMOVE => Effect::SetRemove { key, member: take_bytes(bytes)? },
            SORTED_SET_PUT => Effect::SortedSetPut { key, member: take_bytes(bytes)?, score: take_double(bytes)? },
            SORTED_SET_REMOVE => Effect::SortedSetRemove { key, member: take_bytes(bytes)? },
            PUT_VALUE => Effect::PutValue { key, image: take_bytes(bytes)?, deadline: take_deadline(bytes)? },
            _ => return None,
        })
    }
}

fn put(out: &mut Vec<u8>, tag: u8, fields: &[&[u8]]) {
    out.push(tag);
    for field in fields {
        put_bytes(out, field);
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_integer(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// LEB128.
fn put_integer(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// 0 for none, else one more than the deadline.
fn put_deadline(out: &mut Vec<u8>, deadline: Option<u64>) {
    put_integer(out, deadline.map_or(0, |deadline| deadline.saturating_add(1)));
}

fn side_tag(side: Side) -> u8 {
    match side {
        Side::Front => 0,
        Side::Back => 1,
    }
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn take_integer(bytes: &mut &[u8]) -> Option<u64> {
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

fn take_double(bytes: &mut &[u8]) -> Option<f64> {
    let bits = take(bytes, 8)?.try_into().ok()?;
    Some(f64::from_bits(u64::from_le_bytes(bits)))
}
