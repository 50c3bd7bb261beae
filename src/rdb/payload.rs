//! The payload of DUMP, RESTORE and MIGRATE: one value, the version of the format, and a checksum of both.

use super::value::{read, write};
use super::{Content, Damaged, Reader, Reading, checksum, kind, length};
use crate::values::{Limits, Value};

/// What is written: the version of Redis 7.0, so that it and everything later reads it.
pub const VERSION: u16 = 10;
/// The newest version of Redis's that is read: of kinds that are not known here a version says nothing.
pub(super) const REDIS_MAX: u16 = 16;
/// The versions of Valkey that are read, from 9 on; before, it had Redis's.
pub(super) const VALKEY: std::ops::RangeInclusive<u16> = 80..=89;
/// What is written for Valkey, where it has a form of its own.
const VALKEY_VERSION: u16 = *VALKEY.start();
const FOOTER_BYTES: usize = 10;
/// Beyond, a payload grows while it is written.
const ROOM_BYTES_MAX: usize = 1 << 20;

/// Whose a payload is. Hashes of which fields have deadlines differ, and neither server reads the other's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Redis,
    /// 9 or later.
    Valkey,
}

/// Why a payload was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A version that is not read here, or bytes that have changed on their way.
    VersionOrChecksum,
    /// It is what its writer wrote, and is no value.
    Format,
}

impl From<Damaged> for Refusal {
    fn from(_: Damaged) -> Refusal {
        Refusal::Format
    }
}

/// The payload of a string.
pub fn of_string(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 16 + FOOTER_BYTES);
    length::write_string_value(&mut out, bytes);
    finish(out, VERSION)
}

/// The payload of a collection, in Redis's form.
pub fn of_value(value: &Value) -> Vec<u8> {
    of_value_as(value, Form::Redis)
}

/// The payload of a collection.
pub fn of_value_as(value: &Value, form: Form) -> Vec<u8> {
    // About as much as the value takes: more only where it is small, or its numbers are written as text.
    let mut out = Vec::with_capacity((value.memory_bytes() + value.len()).min(ROOM_BYTES_MAX) + 2 * FOOTER_BYTES);
    match value {
        Value::Hash(hash) if form == Form::Valkey && hash.first_deadline().is_some() => {
            out.push(kind::HASH_DEADLINES);
            write::write_valkey_hash(&mut out, hash);
            return finish(out, VALKEY_VERSION);
        }
        _ => {}
    }
    out.push(write::kind_of(value));
    write::write(&mut out, value);
    finish(out, VERSION)
}

fn finish(mut out: Vec<u8>, version: u16) -> Vec<u8> {
    out.extend_from_slice(&version.to_le_bytes());
    out.extend_from_slice(&checksum::of(&out).to_le_bytes());
    out
}

/// The value of a payload. `now_ms` are Unix milliseconds: see [`Reading`].
///
/// # Errors
/// Where version or checksum are wrong, or the value is.
pub fn read(payload: &[u8], limits: &Limits, now_ms: u64) -> Result<Content, Refusal> {
    read_whole(payload, limits, now_ms, true)
}

/// The same, whatever the checksum is (DEBUG SET-SKIP-CHECKSUM-VALIDATION): for tests of damaged values.
pub fn read_unchecked(payload: &[u8], limits: &Limits, now_ms: u64) -> Result<Content, Refusal> {
    read_whole(payload, limits, now_ms, false)
}

fn read_whole(payload: &[u8], limits: &Limits, now_ms: u64, is_checked: bool) -> Result<Content, Refusal> {
    let split = payload.len().checked_sub(FOOTER_BYTES).map(|at| payload.split_at(at));
    let (body, mut footer) =
        split.map(|(body, footer)| (body, Reader::new(footer))).ok_or(Refusal::VersionOrChecksum)?;
    let version = u16::from_le_bytes(footer.array()?);
    let expected = u64::from_le_bytes(footer.array()?);
    let by_valkey = VALKEY.contains(&version);
    let is_whole = !is_checked || checksum::of(&payload[..body.len() + 2]) == expected;
    if !is_whole || version > REDIS_MAX && !by_valkey {
        return Err(Refusal::VersionOrChecksum);
    }
    let mut reader = Reader::new(body);
    let kind = reader.byte()?;
    let content = read::read(kind, &mut reader, &Reading { limits, now_ms, by_valkey })?;
    // What stands behind a value nobody has written.
    if reader.is_empty() { Ok(content) } else { Err(Refusal::Format) }
}
