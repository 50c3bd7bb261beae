//! Numbers, byte strings and ids in the bytes of nodes and edits: LEB128, and lengths in front.

use super::id::Id;

pub(super) fn put_integer(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn take_integer(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = take_byte(bytes)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

pub(super) fn take_byte(bytes: &mut &[u8]) -> Option<u8> {
    let (&byte, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(byte)
}

/// Appends a byte string with its length in front.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_integer(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(super) fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take_integer(bytes)?).ok()?;
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

pub(super) fn put_id(out: &mut Vec<u8>, id: Id) {
    put_integer(out, id.ms);
    put_integer(out, id.seq);
}

pub(super) fn take_id(bytes: &mut &[u8]) -> Option<Id> {
    Some(Id { ms: take_integer(bytes)?, seq: take_integer(bytes)? })
}

/// 0 for none, else one more.
pub(super) fn put_optional(out: &mut Vec<u8>, value: Option<u64>) {
    put_integer(out, value.map_or(0, |value| value.saturating_add(1)));
}

pub(super) fn take_optional(bytes: &mut &[u8]) -> Option<Option<u64>> {
    take_integer(bytes).map(|value| value.checked_sub(1))
}
