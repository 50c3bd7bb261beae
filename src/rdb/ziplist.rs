//! The ziplist: what Redis had before the listpack. Read only.
//!
//! ```text
//!  bytes in all (u32) | offset of the last element (u32) | elements (u16; 65535: count them) | element ... | 0xff
//!  an element is the length of the one before (one byte, or 0xfe and four), its form, and its content:
//!    00llllll string   01llllll l string   10______ (4, big endian) string
//!    11000000 (2) 11010000 (4) 11100000 (8) 11110000 (3) 11111110 (1) integers of so many bytes   1111vvvv v - 1
//! ```

use super::{Damaged, Reader};
use crate::values::Element;

const END: u8 = 0xff;
const LONG: u8 = 0xfe;
const UNCOUNTED: u16 = u16::MAX;

/// The elements of a ziplist. It ends with an error where they are not what the header says.
#[derive(Debug)]
pub(super) struct Elements<'a> {
    reader: Reader<'a>,
    total: usize,
    last_offset: usize,
    counted: u16,
    seen: usize,
    /// Where the element before begins, and its length.
    before: (usize, usize),
    has_ended: bool,
}

impl<'a> Elements<'a> {
    /// Reads a ziplist, which these bytes are and nothing else.
    pub(super) fn new(bytes: &'a [u8]) -> Result<Elements<'a>, Damaged> {
        let mut reader = Reader::new(bytes);
        let total = u32::from_le_bytes(reader.array()?) as usize;
        let last_offset = u32::from_le_bytes(reader.array()?) as usize;
        let counted = u16::from_le_bytes(reader.array()?);
        if total != bytes.len() {
            return Err(Damaged);
        }
        let before = (total - reader.rest().len(), 0);
        Ok(Elements { reader, total, last_offset, counted, seen: 0, before, has_ended: false })
    }

    fn element(&mut self) -> Result<Option<Element<'a>>, Damaged> {
        let start = self.total - self.reader.rest().len();
        let reader = &mut self.reader;
        let length_before = match reader.byte()? {
            END if reader.is_empty() => {
                let is_counted = self.counted == UNCOUNTED || usize::from(self.counted) == self.seen;
                return if is_counted && self.last_offset == self.before.0 { Ok(None) } else { Err(Damaged) };
            }
            END => return Err(Damaged),
            LONG => u32::from_le_bytes(reader.array()?) as usize,
            length => usize::from(length),
        };
        if length_before != self.before.1 {
            return Err(Damaged);
        }
        let first = reader.byte()?;
        let element = match first {
            0..0x40 => Element::Bytes(reader.take(usize::from(first))?),
            0x40..0x80 => {
                let length = usize::from(first & 0x3f) << 8 | usize::from(reader.byte()?);
                Element::Bytes(reader.take(length)?)
            }
            0x80..0xc0 => {
                let length = u32::from_be_bytes(reader.array()?);
                Element::Bytes(reader.take(length as usize)?)
            }
            0xc0 => Element::Integer(i16::from_le_bytes(reader.array()?).into()),
            0xd0 => Element::Integer(i32::from_le_bytes(reader.array()?).into()),
            0xe0 => Element::Integer(i64::from_le_bytes(reader.array()?)),
            0xf0 => {
                let [a, b, c] = reader.array()?;
                Element::Integer((i32::from_le_bytes([0, a, b, c]) >> 8).into())
            }
            0xfe => Element::Integer(i8::from_le_bytes(reader.array()?).into()),
            0xf1..=0xfd => Element::Integer(i64::from(first & 0x0f) - 1),
            _ => return Err(Damaged),
        };
        self.before = (start, self.total - reader.rest().len() - start);
        self.seen += 1;
        Ok(Some(element))
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<Element<'a>, Damaged>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_ended {
            return None;
        }
        let element = self.element();
        self.has_ended = !matches!(element, Ok(Some(_)));
        element.transpose()
    }
}
