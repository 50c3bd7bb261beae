//! Writes the encoded form of effects: one function for each, named as the effect.

use super::{Side, put_integer, tags};
use crate::base::identity::Position;
use crate::base::slot_ranges::SlotRanges;

pub fn set_string(out: &mut Vec<u8>, key: &[u8], bytes: &[u8], deadline: Option<u64>) {
    // The most frequent effect: grown once.
    out.reserve(32 + key.len() + bytes.len());
    begin(out, tags::SET_STRING, key);
    put_bytes(out, bytes);
    put_deadline(out, deadline);
}

pub fn increment(out: &mut Vec<u8>, key: &[u8], change: i64, result: i64) {
    begin(out, tags::INCREMENT, key);
    put_signed(out, change);
    put_signed(out, result);
}

pub fn append(out: &mut Vec<u8>, key: &[u8], bytes: &[u8]) {
    begin(out, tags::APPEND, key);
    put_bytes(out, bytes);
}

pub fn set_range(out: &mut Vec<u8>, key: &[u8], offset: u64, bytes: &[u8]) {
    begin(out, tags::SET_RANGE, key);
    put_bytes(out, bytes);
    put_integer(out, offset);
}

pub fn set_deadline(out: &mut Vec<u8>, key: &[u8], deadline: Option<u64>) {
    begin(out, tags::SET_DEADLINE, key);
    put_deadline(out, deadline);
}

pub fn delete(out: &mut Vec<u8>, key: &[u8]) {
    begin(out, tags::DELETE, key);
}

pub fn list_push<'a>(out: &mut Vec<u8>, key: &[u8], side: Side, elements: impl Iterator<Item = &'a [u8]>) {
    begin(out, tags::LIST_PUSH, key);
    out.push(side_tag(side));
    put_items(out, elements);
}

pub fn list_pop(out: &mut Vec<u8>, key: &[u8], side: Side, count: u64) {
    begin(out, tags::LIST_POP, key);
    out.push(side_tag(side));
    put_integer(out, count);
}

pub fn list_insert(out: &mut Vec<u8>, key: &[u8], index: u64, element: &[u8]) {
    begin(out, tags::LIST_INSERT, key);
    put_integer(out, index);
    put_bytes(out, element);
}

pub fn list_set(out: &mut Vec<u8>, key: &[u8], index: u64, element: &[u8]) {
    begin(out, tags::LIST_SET, key);
    put_integer(out, index);
    put_bytes(out, element);
}

/// `indexes` ascend.
pub fn list_remove(out: &mut Vec<u8>, key: &[u8], indexes: impl Iterator<Item = u64>) {
    begin(out, tags::LIST_REMOVE, key);
    counted(out, |out| {
        let (mut count, mut least) = (0, 0);
        for index in indexes {
            put_integer(out, index - least);
            least = index + 1;
            count += 1;
        }
        count
    });
}

pub fn hash_set<'a>(out: &mut Vec<u8>, key: &[u8], pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>) {
    begin(out, tags::HASH_SET, key);
    put_items(out, pairs.flat_map(|(field, value)| [field, value]));
}

pub fn hash_remove<'a>(out: &mut Vec<u8>, key: &[u8], fields: impl Iterator<Item = &'a [u8]>) {
    begin(out, tags::HASH_REMOVE, key);
    put_items(out, fields);
}

/// `None`: it never expires.
pub fn hash_deadlines<'a>(out: &mut Vec<u8>, key: &[u8], fields: impl Iterator<Item = (&'a [u8], Option<u64>)>) {
    begin(out, tags::HASH_DEADLINES, key);
    counted(out, |out| {
        let mut count = 0;
        for (field, deadline) in fields {
            put_bytes(out, field);
            put_deadline(out, deadline);
            count += 1;
        }
        count
    });
}

pub fn set_add<'a>(out: &mut Vec<u8>, key: &[u8], members: impl Iterator<Item = &'a [u8]>) {
    begin(out, tags::SET_ADD, key);
    put_items(out, members);
}

pub fn set_remove<'a>(out: &mut Vec<u8>, key: &[u8], members: impl Iterator<Item = &'a [u8]>) {
    begin(out, tags::SET_REMOVE, key);
    put_items(out, members);
}

pub fn sorted_set_put<'a>(out: &mut Vec<u8>, key: &[u8], members: impl Iterator<Item = (&'a [u8], f64)>) {
    begin(out, tags::SORTED_SET_PUT, key);
    counted(out, |out| {
        let mut count = 0;
        for (member, score) in members {
            put_bytes(out, member);
            out.extend_from_slice(&score.to_bits().to_le_bytes());
            count += 1;
        }
        count
    });
}

pub fn sorted_set_remove<'a>(out: &mut Vec<u8>, key: &[u8], members: impl Iterator<Item = &'a [u8]>) {
    begin(out, tags::SORTED_SET_REMOVE, key);
    put_items(out, members);
}

pub fn stream_edit<'a>(out: &mut Vec<u8>, key: &[u8], edits: impl Iterator<Item = &'a [u8]>) {
    begin(out, tags::STREAM_EDIT, key);
    put_items(out, edits);
}

/// `image` appends the image of the value.
pub fn put_value(out: &mut Vec<u8>, key: &[u8], deadline: Option<u64>, image: impl FnOnce(&mut Vec<u8>)) {
    begin(out, tags::PUT_VALUE, key);
    counted(out, |out| {
        let from = out.len();
        image(out);
        (out.len() - from) as u64
    });
    put_deadline(out, deadline);
}

pub fn rename(out: &mut Vec<u8>, key: &[u8], to: &[u8]) {
    begin(out, tags::RENAME, key);
    put_bytes(out, to);
}

pub fn copy(out: &mut Vec<u8>, key: &[u8], to: &[u8], database: u32) {
    begin(out, tags::COPY, key);
    put_bytes(out, to);
    put_integer(out, u64::from(database));
}

/// MOVE.
pub fn move_to(out: &mut Vec<u8>, key: &[u8], database: u32) {
    begin(out, tags::MOVE, key);
    put_integer(out, u64::from(database));
}

pub fn flush_slot(out: &mut Vec<u8>) {
    out.push(tags::FLUSH_SLOT);
}

pub fn flush(out: &mut Vec<u8>, database: Option<u32>, slots: &SlotRanges) {
    out.push(tags::FLUSH);
    put_integer(out, database.map_or(0, |database| u64::from(database) + 1));
    let ranges = slots.ranges();
    put_integer(out, ranges.len() as u64);
    for (first, last) in ranges {
        put_integer(out, u64::from(first.number()));
        put_integer(out, u64::from(last.number()));
    }
}

pub fn swap_databases(out: &mut Vec<u8>, first: u32, second: u32) {
    out.push(tags::SWAP_DATABASES);
    put_integer(out, u64::from(first));
    put_integer(out, u64::from(second));
}

pub fn clear_slot(out: &mut Vec<u8>) {
    out.push(tags::CLEAR_SLOT);
}

pub fn begin_epoch(out: &mut Vec<u8>, after: Position) {
    out.push(tags::BEGIN_EPOCH);
    put_integer(out, u64::from(after.epoch.0));
    put_integer(out, after.seq);
}

#[inline]
fn begin(out: &mut Vec<u8>, tag: u8, key: &[u8]) {
    out.push(tag);
    put_bytes(out, key);
}

#[inline]
fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_integer(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_items<'a>(out: &mut Vec<u8>, items: impl Iterator<Item = &'a [u8]>) {
    counted(out, |out| {
        let mut count = 0;
        for item in items {
            put_bytes(out, item);
            count += 1;
        }
        count
    });
}

/// Puts a number in front of what `write` appends, which says what the number is: it need not be known before.
fn counted(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> u64) {
    let at = out.len();
    out.push(0);
    let number = write(out);
    if number < 0x80 {
        out[at] = number as u8;
        return;
    }
    let mut encoded = Vec::with_capacity(10);
    put_integer(&mut encoded, number);
    out.splice(at..=at, encoded);
}

fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_integer(out, (value << 1 ^ value >> 63).cast_unsigned());
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
