//! Files of Redis's format: the keys of a server, one behind the other. Pure, over anything that writes or reads bytes.
//!
//! ```text
//!  file   "REDIS" version (4 digits), or "VALKEY" version (3 digits) | record ... | EOF | checksum of all before (u64)
//!  record AUXILIARY name value | DATABASE number | SIZES keys, with deadlines | FUNCTION code
//!         | DEADLINE (i64), IDLE seconds or FREQUENCY (u8), as there are | kind, key, value
//! ```
//! Numbers without a size are written as lengths ([`super::length`]), names and keys as strings. A checksum of 0 is none;
//! versions below 5 have no place for one.
//!
//! Written is version 10, of Redis 7.0, and [`VERSION_FIELD_DEADLINES`] where a hash has fields with deadlines: that is
//! known only at the end, so the header is written again then ([`Writer::finish`]).

mod extent;
pub mod reader;
mod source;
#[cfg(test)]
mod tests;
pub mod writer;

pub use reader::{KeyRecord, Reader, Record};
pub use writer::Writer;

use std::io;

/// What Redis 7.0 and everything later reads.
pub const VERSION: u16 = super::payload::VERSION;
/// Redis 7.4's, the first that knows hashes of which fields have deadlines.
pub const VERSION_FIELD_DEADLINES: u16 = 12;

/// What stands in front of a record that is no key.
mod opcode {
    /// Of Valkey 9, a slot that was being imported; of Redis 8, what modules have noted of a key.
    pub(super) const SLOT_IMPORT_OR_KEY_NOTE: u8 = 243;
    /// How many keys the slot has of which keys follow: hints.
    pub(super) const SLOT_SIZES: u8 = 244;
    pub(super) const FUNCTION: u8 = 245;
    /// Of Redis 7.0's release candidates.
    pub(super) const FUNCTION_EARLY: u8 = 246;
    pub(super) const MODULE: u8 = 247;
    pub(super) const IDLE: u8 = 248;
    pub(super) const FREQUENCY: u8 = 249;
    pub(super) const AUXILIARY: u8 = 250;
    pub(super) const SIZES: u8 = 251;
    pub(super) const DEADLINE_MS: u8 = 252;
    pub(super) const DEADLINE_SECONDS: u8 = 253;
    pub(super) const DATABASE: u8 = 254;
    pub(super) const EOF: u8 = 255;
}

/// What is known of the accesses to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// So many seconds have passed since the last one.
    IdleSeconds(u64),
    /// Redis's logarithmic counter.
    Frequency(u8),
}

/// Why a file cannot be read, and where.
#[derive(Debug)]
pub struct ReadError {
    /// Bytes from the beginning of the file: of the record, where its value is damaged.
    pub offset: u64,
    pub fault: Fault,
}

/// What is wrong with a file.
#[derive(Debug)]
pub enum Fault {
    Io(io::Error),
    /// It ends in the middle.
    Ended,
    /// It does not begin as such a file does.
    Foreign,
    /// Of a version that is not read here.
    Version(u32),
    /// A kind of value, or of record, that nobody here knows.
    Kind(u8),
    /// Data of a module, which nobody here has.
    Module,
    /// A slot was on its way to the server that wrote the file.
    SlotImport,
    /// Functions of a release candidate.
    EarlyFunction,
    Damaged,
    /// Something has changed since it was written.
    Checksum,
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.fault {
            Fault::Io(error) => write!(f, "it cannot be read: {error}")?,
            Fault::Ended => f.write_str("it ends in the middle")?,
            Fault::Foreign => f.write_str("it is no RDB file")?,
            Fault::Version(version) => write!(f, "version {version} of the format is not known to this server")?,
            Fault::Kind(kind) => write!(f, "kind {kind} of values is not known to this server")?,
            Fault::Module => f.write_str("it holds data of a module, and this server has no modules")?,
            Fault::SlotImport => f.write_str("it was written while a slot was being imported")?,
            Fault::EarlyFunction => f.write_str("it holds functions of a release candidate of Redis 7.0")?,
            Fault::Damaged => f.write_str("it is damaged")?,
            // Redis says CRC error, and tools look for that.
            Fault::Checksum => f.write_str("its checksum is wrong (CRC error)")?,
        }
        write!(f, ", at byte {}", self.offset)
    }
}

impl std::error::Error for ReadError {}
