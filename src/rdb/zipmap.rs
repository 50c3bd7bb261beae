//! The zipmap: how Redis kept small hashes before 2.6. Read only.
//!
//! ```text
//!  pairs (u8; 254 and more: count them) | pair ... | 0xff
//!  a pair: length, field, length, unused bytes (u8), value, the unused bytes; a length is one byte, or 0xfe and four
//! ```

use super::{Damaged, Reader};

const END: u8 = 0xff;
const LONG: u8 = 0xfe;

/// Shows each field and its value.
pub(super) fn read<'a>(
    bytes: &'a [u8],
    mut visit: impl FnMut(&'a [u8], &'a [u8]) -> Result<(), Damaged>,
) -> Result<(), Damaged> {
    let mut reader = Reader::new(bytes);
    let counted = reader.byte()?;
    let mut seen = 0usize;
    while let Some(length) = length(&mut reader)? {
        let field = reader.take(length)?;
        let length = self::length(&mut reader)?.ok_or(Damaged)?;
        let unused = reader.byte()?;
        let value = reader.take(length)?;
        reader.take(usize::from(unused))?;
        visit(field, value)?;
        seen += 1;
    }
    let is_counted = counted >= LONG || usize::from(counted) == seen;
    if is_counted && reader.is_empty() { Ok(()) } else { Err(Damaged) }
}

/// A length; `None` at the end.
fn length(reader: &mut Reader<'_>) -> Result<Option<usize>, Damaged> {
    match reader.byte()? {
        END => Ok(None),
        LONG => Ok(Some(u32::from_le_bytes(reader.array()?) as usize)),
        length => Ok(Some(usize::from(length))),
    }
}
