//! Lengths and strings, as they are written.
//!
//! ```text
//!  00aaaaaa            a length below 64
//!  01aaaaaa bbbbbbbb   below 16384, the high bits first
//!  10000000 (4 bytes)  below 2^32, big endian
//!  10000001 (8 bytes)  any, big endian
//!  110000ee            no length: a string of its own form: an integer of 1, 2 or 4 bytes, little endian, or LZF
//! ```
//! A string is its length and its bytes, or one of the forms.

use super::{kind, lzf};
use crate::base::number::parse_i64;

/// What stands at the head of a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    Length(u64),
    Form(Form),
}

/// A string that is not written as its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Integer8,
    Integer16,
    Integer32,
    /// Two lengths, compressed and not, and the compressed bytes.
    Compressed,
}

pub(super) const LENGTH_32: u8 = 0x80;
pub(super) const LENGTH_64: u8 = 0x81;
pub(super) const FORM: u8 = 0xc0;

/// Appends a length.
pub fn write(out: &mut Vec<u8>, length: u64) {
    match length {
        0..0x40 => out.push(length as u8),
        0x40..0x4000 => out.extend_from_slice(&(length as u16 | 0x4000).to_be_bytes()),
        0x4000..=0xffff_ffff => {
            out.push(LENGTH_32);
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
        _ => {
            out.push(LENGTH_64);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
}

/// Shorter strings are not compressed, as in Redis.
const COMPRESSED_FROM: usize = 21;

/// Whether strings are compressed: the parameter `rdbcompression`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    #[default]
    WhereSmaller,
    None,
}

/// Appends a string: the canonical form of an integer of up to 32 bits as the integer, and compressed what is smaller so.
pub fn write_string(out: &mut Vec<u8>, bytes: &[u8]) {
    write_string_as(out, bytes, Compression::default());
}

/// The same, and compressed only where that is wanted.
pub fn write_string_as(out: &mut Vec<u8>, bytes: &[u8], compression: Compression) {
    // "-2147483648" has eleven.
    let integer = if bytes.len() <= 11 { parse_i64(bytes) } else { None };
    match integer {
        Some(integer @ -0x80..0x80) => out.extend_from_slice(&[FORM, integer as u8]),
        Some(integer @ -0x8000..0x8000) => {
            out.push(FORM | 1);
            out.extend_from_slice(&(integer as i16).to_le_bytes());
        }
        Some(integer @ -0x8000_0000..0x8000_0000) => {
            out.push(FORM | 2);
            out.extend_from_slice(&(integer as i32).to_le_bytes());
        }
        _ => match Some(bytes).filter(|bytes| is_compressed(bytes, compression)).and_then(lzf::compress) {
            Some(compressed) => {
                out.push(FORM | 3);
                write(out, compressed.len() as u64);
                write(out, bytes.len() as u64);
                out.extend_from_slice(&compressed);
            }
            None => {
                write(out, bytes.len() as u64);
                out.extend_from_slice(bytes);
            }
        },
    }
}

fn is_compressed(bytes: &[u8], compression: Compression) -> bool {
    compression == Compression::WhereSmaller && bytes.len() >= COMPRESSED_FROM
}

/// A string of a key: its kind, and itself.
pub fn write_string_value(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(kind::STRING);
    write_string(out, bytes);
}
