//! The listpack: elements one behind the other in one string, as Redis keeps small collections.
//!
//! ```text
//!  bytes in all (u32) | elements (u16; 65535: count them) | element ... | 0xff
//!  an element is its form and content, and then its own length in groups of seven bits, to be read backwards:
//!    0iiiiiii 7 bits, not negative   10llllll string below 64      110iiiii i 13 bits   1110llll l string below 4096
//!    11110000 (4) string             11110001 (2) 11110010 (3) 11110011 (4) 11110100 (8) integers of so many bytes
//! ```

use super::{Damaged, Reader};
use crate::values::{Digits, Element};

const END: u8 = 0xff;
/// The count of elements where there are too many to say.
const UNCOUNTED: u16 = u16::MAX;
const HEADER_BYTES: usize = 6;

/// The elements of a listpack. It ends with an error where they are not what the header says.
#[derive(Debug)]
pub struct Elements<'a> {
    reader: Reader<'a>,
    counted: u16,
    seen: usize,
    has_ended: bool,
}

impl<'a> Elements<'a> {
    /// Reads a listpack, which these bytes are and nothing else.
    ///
    /// # Errors
    /// Where the header says otherwise.
    pub fn new(bytes: &'a [u8]) -> Result<Elements<'a>, Damaged> {
        let mut reader = Reader::new(bytes);
        let total = u32::from_le_bytes(reader.array()?);
        let counted = u16::from_le_bytes(reader.array()?);
        if total as usize != bytes.len() {
            return Err(Damaged);
        }
        Ok(Elements { reader, counted, seen: 0, has_ended: false })
    }

    fn element(&mut self) -> Result<Option<Element<'a>>, Damaged> {
        let before = self.reader.rest().len();
        let reader = &mut self.reader;
        let first = reader.byte()?;
        let element = match first {
            0..0x80 => Element::Integer(i64::from(first)),
            0x80..0xc0 => Element::Bytes(reader.take(usize::from(first & 0x3f))?),
            0xc0..0xe0 => {
                let bits = u16::from(first & 0x1f) << 8 | u16::from(reader.byte()?);
                Element::Integer(i64::from((bits << 3) as i16 >> 3))
            }
            0xe0..0xf0 => {
                let length = usize::from(first & 0x0f) << 8 | usize::from(reader.byte()?);
                Element::Bytes(reader.take(length)?)
            }
            0xf0 => {
                let length = u32::from_le_bytes(reader.array()?);
                Element::Bytes(reader.take(length as usize)?)
            }
            0xf1 => Element::Integer(i16::from_le_bytes(reader.array()?).into()),
            0xf2 => {
                let [a, b, c] = reader.array()?;
                Element::Integer((i32::from_le_bytes([0, a, b, c]) >> 8).into())
            }
            0xf3 => Element::Integer(i32::from_le_bytes(reader.array()?).into()),
            0xf4 => Element::Integer(i64::from_le_bytes(reader.array()?)),
            END if reader.is_empty() => {
                let is_right = self.counted == UNCOUNTED || usize::from(self.counted) == self.seen;
                return if is_right { Ok(None) } else { Err(Damaged) };
            }
            _ => return Err(Damaged),
        };
        let length = before - reader.rest().len();
        let mut behind = [0; 5];
        let behind = length_behind(length, &mut behind);
        if reader.take(behind.len())? != behind {
            return Err(Damaged);
        }
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

/// The length of an element as it stands behind it: the highest group first, and all others say that more come before.
fn length_behind(length: usize, place: &mut [u8; 5]) -> &[u8] {
    // Redis takes a byte more than it must for the greatest number of each size.
    let groups = match length {
        0..=0x7f => 1,
        0x80..0x3fff => 2,
        0x3fff..0x1f_ffff => 3,
        0x1f_ffff..0x0fff_ffff => 4,
        _ => 5,
    };
    let place = &mut place[..groups];
    for (group, byte) in place.iter_mut().rev().enumerate() {
        *byte = (length >> (7 * group)) as u8 & 0x7f | 0x80;
    }
    place[0] &= 0x7f;
    place
}

/// A listpack that is being written.
#[derive(Debug)]
pub struct Builder {
    bytes: Vec<u8>,
    count: usize,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder { bytes: vec![0; HEADER_BYTES], count: 0 }
    }
}

impl Builder {
    /// One with room for so many bytes of elements.
    pub fn with_capacity(bytes: usize) -> Builder {
        let mut builder = Builder { bytes: Vec::with_capacity(HEADER_BYTES + bytes + 1), count: 0 };
        builder.bytes.resize(HEADER_BYTES, 0);
        builder
    }

    /// Bytes written so far.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Appends an element, as an integer if it is one.
    pub fn push(&mut self, element: Element<'_>) {
        self.count += 1;
        let start = self.bytes.len();
        let out = &mut self.bytes;
        if let Element::Bytes(bytes @ ([b'A'..=b'~', ..] | [])) = element
            && let length @ 0..0x40 = bytes.len()
        {
            // Most elements: short, and no integer.
            out.reserve(length + 2);
            out.push(0x80 | length as u8);
            out.extend_from_slice(bytes);
            out.push(length as u8 + 1);
            return;
        }
        match element.integer() {
            Some(integer) => write_integer(out, integer),
            None => write_bytes(out, element.bytes(&mut Digits::new())),
        }
        let mut place = [0; 5];
        let length = out.len() - start;
        out.extend_from_slice(length_behind(length, &mut place));
    }

    /// The whole listpack.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.push(END);
        let total = self.bytes.len() as u32;
        let count = u16::try_from(self.count).unwrap_or(UNCOUNTED);
        self.bytes[..4].copy_from_slice(&total.to_le_bytes());
        self.bytes[4..HEADER_BYTES].copy_from_slice(&count.to_le_bytes());
        self.bytes
    }
}

fn write_integer(out: &mut Vec<u8>, integer: i64) {
    let bytes = integer.to_le_bytes();
    match integer {
        0..0x80 => out.push(bytes[0]),
        -0x1000..0x1000 => out.extend_from_slice(&[bytes[1] & 0x1f | 0xc0, bytes[0]]),
        -0x8000..0x8000 => {
            out.push(0xf1);
            out.extend_from_slice(&bytes[..2]);
        }
        -0x80_0000..0x80_0000 => {
            out.push(0xf2);
            out.extend_from_slice(&bytes[..3]);
        }
        -0x8000_0000..0x8000_0000 => {
            out.push(0xf3);
            out.extend_from_slice(&bytes[..4]);
        }
        _ => {
            out.push(0xf4);
            out.extend_from_slice(&bytes);
        }
    }
}

fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    match bytes.len() {
        length @ 0..0x40 => out.push(0x80 | length as u8),
        length @ 0x40..0x1000 => out.extend_from_slice(&(0xe000 | length as u16).to_be_bytes()),
        length => {
            out.push(0xf0);
            out.extend_from_slice(&(length as u32).to_le_bytes());
        }
    }
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_stand_behind_as_redis_writes_them() {
        let cases: [(usize, &[u8]); 6] = [
            (1, &[1]),
            (127, &[127]),
            (128, &[0x01, 0x80]),
            (16_382, &[0x7f, 0xfe]),
            (16_383, &[0x00, 0xff, 0xff]),
            (16_384, &[0x01, 0x80, 0x80]),
        ];
        for (length, expected) in cases {
            assert_eq!(length_behind(length, &mut [0; 5]), expected, "{length}");
        }
    }

    proptest! {
        #[test]
        fn elements_come_back(elements in prop::collection::vec(prop_oneof![
            prop::collection::vec(any::<u8>(), 0..5000),
            any::<i64>().prop_map(|it| it.to_string().into_bytes()),
            (0u32..63, any::<bool>()).prop_map(|(bits, down)| {
                let edge = 1i64 << bits;
                (if down { -edge - 1 } else { edge - 1 }).to_string().into_bytes()
            }),
        ], 0..20)) {
            let mut builder = Builder::default();
            elements.iter().for_each(|element| builder.push(Element::Bytes(element)));
            let bytes = builder.finish();
            let back: Result<Vec<_>, _> = Elements::new(&bytes).expect("a header").map(|it| it.map(|it| it.to_vec())).collect();
            prop_assert_eq!(back, Ok(elements));
        }

        #[test]
        fn any_bytes_do_no_harm(mut bytes in prop::collection::vec(any::<u8>(), 6..80)) {
            let total = bytes.len() as u32;
            bytes[..4].copy_from_slice(&total.to_le_bytes());
            if let Ok(elements) = Elements::new(&bytes) {
                elements.for_each(drop);
            }
        }
    }
}
