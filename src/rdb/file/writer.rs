//! Writes a file. Records are appended to a buffer, by functions that wait for nothing; a [`Writer`] takes them from there.

use super::{Access, VERSION, opcode};
use crate::rdb::checksum::Sum;
use crate::rdb::length::{self, Compression};
use std::io::{self, Write};

/// The header of a file.
pub fn header(version: u16) -> [u8; 9] {
    let mut header = *b"REDIS0000";
    let digits = format!("{version:04}");
    header[5..].copy_from_slice(&digits.as_bytes()[..4]);
    header
}

/// Something about the file; who does not know the name passes over it.
pub fn auxiliary(out: &mut Vec<u8>, name: &str, value: &[u8], compression: Compression) {
    out.push(opcode::AUXILIARY);
    length::write_string_as(out, name.as_bytes(), compression);
    length::write_string_as(out, value, compression);
}

/// The keys that follow are of this database.
pub fn database(out: &mut Vec<u8>, number: usize) {
    out.push(opcode::DATABASE);
    length::write(out, number as u64);
}

/// So many keys of the database follow, and so many of them have a deadline: a hint.
pub fn sizes(out: &mut Vec<u8>, keys: u64, volatile: u64) {
    out.push(opcode::SIZES);
    length::write(out, keys);
    length::write(out, volatile);
}

/// A library of functions.
pub fn function(out: &mut Vec<u8>, code: &[u8], compression: Compression) {
    out.push(opcode::FUNCTION);
    length::write_string_as(out, code, compression);
}

/// A key, in front of its value, which is of this kind.
pub fn key(
    out: &mut Vec<u8>,
    kind: u8,
    key: &[u8],
    deadline: Option<u64>,
    access: Option<Access>,
    compression: Compression,
) {
    if let Some(deadline) = deadline {
        out.push(opcode::DEADLINE_MS);
        out.extend_from_slice(&deadline.to_le_bytes());
    }
    match access {
        None => {}
        Some(Access::IdleSeconds(seconds)) => {
            out.push(opcode::IDLE);
            length::write(out, seconds);
        }
        Some(Access::Frequency(counter)) => out.extend_from_slice(&[opcode::FREQUENCY, counter]),
    }
    out.push(kind);
    length::write_string_as(out, key, compression);
}

/// A file that is being written.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    /// Of what is behind the header, which may change; `None`: the file gets none.
    sum: Option<Sum>,
    bytes: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a file, of [`VERSION`] so far.
    pub fn new(mut out: W, with_checksum: bool) -> io::Result<Writer<W>> {
        out.write_all(&header(VERSION))?;
        Ok(Writer { out, sum: with_checksum.then(Sum::default), bytes: header(VERSION).len() as u64 })
    }

    /// Bytes that have been written.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where they are written to.
    pub fn out(&mut self) -> &mut W {
        &mut self.out
    }

    /// Writes records.
    pub fn put(&mut self, records: &[u8]) -> io::Result<()> {
        if let Some(sum) = &mut self.sum {
            sum.add(records);
        }
        self.bytes += records.len() as u64;
        self.out.write_all(records)
    }

    /// Ends the file. Gives the header that belongs to its beginning, in place of what stands there if `version` is another.
    pub fn finish(mut self, version: u16) -> io::Result<(W, [u8; 9])> {
        self.put(&[opcode::EOF])?;
        let header = header(version);
        let checksum = self.sum.map_or(0, |behind| Sum::of(&header).followed_by(&behind));
        self.out.write_all(&checksum.to_le_bytes())?;
        self.out.flush()?;
        Ok((self.out, header))
    }
}
