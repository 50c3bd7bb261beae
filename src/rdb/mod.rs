//! Redis's format of values on disk and in DUMP payloads (RDB): bytes to values, and back. Pure.
//!
//! ```text
//!  payload   kind | value | version (u16) | checksum (u64)          DUMP, RESTORE, MIGRATE; numbers are little endian
//!  file      records of keys, with kind and value each              SAVE, loading (`file`)
//!  value     lengths and strings (`length`, `reader`); packed forms inside of strings (`listpack`, `ziplist`, `zipmap`)
//! ```
//! Written is what Redis 7.0 and everything later reads. Read is what Redis up to 8 and Valkey up to 9 write, and what
//! Redis wrote long ago. Bytes are not trusted: damaged ones are refused, and cost no more memory than they justify.

pub mod checksum;
pub mod file;
pub mod kind;
pub mod length;
pub mod listpack;
pub mod lzf;
pub mod payload;
pub mod reader;
pub mod value;
mod ziplist;
mod zipmap;

pub use reader::Reader;
pub use value::read::Reading;

use crate::values::Value;

/// The bytes are no value: cut short, contradictory, or of a kind that nobody here knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

/// What a key may hold.
#[derive(Clone, Debug)]
pub enum Content {
    String(Vec<u8>),
    /// Never empty, unless it is a stream.
    Collection(Value),
}
