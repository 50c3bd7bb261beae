//! A field, its value and its deadline, in one allocation.
//!
//! ```text
//!  00..7f         + field + value                  a field of so many bytes
//!  80..fe + 3     + field + value                  a longer one: 31 bits, big endian
//!  ff + 6 bytes   + one of the above               a deadline in Unix milliseconds, big endian, before them
//! ```

use crate::values::element::Element;
use crate::values::hashing::table_hash;

/// Field lengths from here on take four bytes, marked by the top bit of the first.
const FIELD_LONG: usize = 0x80;
const FIELD_LONG_MARK: u32 = 0x8000_0000;
const TIMED: u8 = 0xff;
/// Bytes of a deadline, and the mark before them.
const TIMED_BYTES: usize = 7;

/// See the module.
#[derive(Clone, Default)]
pub(super) struct Pair(Box<[u8]>);

impl Pair {
    /// A pair without a deadline.
    pub(super) fn new(field: &[u8], value: &[u8]) -> Self {
        let long = field.len() >= FIELD_LONG;
        let mut bytes = Vec::with_capacity(if long { 4 } else { 1 } + field.len() + value.len());
        if long {
            bytes.extend_from_slice(&(field.len() as u32 | FIELD_LONG_MARK).to_be_bytes());
        } else {
            bytes.push(field.len() as u8);
        }
        bytes.extend_from_slice(field);
        bytes.extend_from_slice(value);
        Self(bytes.into_boxed_slice())
    }

    /// The pair with this deadline (48 bits, in Unix milliseconds) in place of the one it has, or without any.
    pub(super) fn with_deadline(mut self, deadline: Option<u64>) -> Self {
        if self.deadline() == deadline {
            return self;
        }
        let plain = self.plain_start();
        match deadline {
            Some(deadline) if plain == 0 => {
                let mut bytes = Vec::with_capacity(TIMED_BYTES + self.0.len());
                bytes.push(TIMED);
                bytes.extend_from_slice(&deadline.to_be_bytes()[2..]);
                bytes.extend_from_slice(&self.0);
                self.0 = bytes.into_boxed_slice();
            }
            Some(deadline) => self.0[1..TIMED_BYTES].copy_from_slice(&deadline.to_be_bytes()[2..]),
            None => self.0 = Box::from(&self.0[plain..]),
        }
        self
    }

    /// When the field expires, in Unix milliseconds.
    #[inline]
    pub(super) fn deadline(&self) -> Option<u64> {
        match self.0.as_ref() {
            [TIMED, rest @ ..] => Some(rest.iter().take(6).fold(0, |word, byte| word << 8 | u64::from(*byte))),
            _ => None,
        }
    }

    #[inline]
    pub(super) fn field(&self) -> &[u8] {
        let (start, end) = self.bounds();
        &self.0[start..end]
    }

    #[inline]
    pub(super) fn value(&self) -> &[u8] {
        &self.0[self.bounds().1..]
    }

    pub(super) fn value_mut(&mut self) -> &mut [u8] {
        let (_, end) = self.bounds();
        &mut self.0[end..]
    }

    #[inline]
    pub(super) fn elements(&self) -> (Element<'_>, Element<'_>) {
        (Element::Bytes(self.field()), Element::Bytes(self.value()))
    }

    pub(super) fn hash(&self) -> u64 {
        table_hash(self.field())
    }

    /// Bytes of all of it.
    #[inline]
    pub(super) fn byte_len(&self) -> usize {
        self.0.len()
    }

    fn plain_start(&self) -> usize {
        if self.0.first() == Some(&TIMED) { TIMED_BYTES } else { 0 }
    }

    /// Where the field begins and where it ends.
    #[inline]
    fn bounds(&self) -> (usize, usize) {
        match self.0.as_ref() {
            [first, ..] if usize::from(*first) < FIELD_LONG => (1, 1 + usize::from(*first)),
            [TIMED, ..] => {
                let (start, end) = long_bounds(&self.0[TIMED_BYTES..]);
                (TIMED_BYTES + start, TIMED_BYTES + end)
            }
            bytes => long_bounds(bytes),
        }
    }
}

/// The bounds of the field in a pair without a deadline.
fn long_bounds(plain: &[u8]) -> (usize, usize) {
    match plain {
        [first, ..] if usize::from(*first) < FIELD_LONG => (1, 1 + usize::from(*first)),
        [a, b, c, d, ..] => (4, 4 + (u32::from_be_bytes([*a, *b, *c, *d]) & !FIELD_LONG_MARK) as usize),
        _ => (0, 0),
    }
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}={}", self.field().escape_ascii(), self.value().escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_keeps_its_parts_whatever_its_deadline_becomes() {
        let (first, last) = (Some(1), Some((1 << 48) - 1));
        for field_len in [0, 1, 126, 127, 128, 129, 255, 256, 70_000] {
            for value_len in [0, 1, 300] {
                let (field, value) = (vec![b'f'; field_len], vec![b'v'; value_len]);
                let mut pair = Pair::new(&field, &value);
                let plain_len = pair.byte_len();
                for deadline in [None, first, first, last, None, last, None] {
                    pair = pair.with_deadline(deadline);
                    assert_eq!((pair.deadline(), pair.field(), pair.value()), (deadline, &field[..], &value[..]));
                    assert_eq!(pair.byte_len() - plain_len, deadline.map_or(0, |_| TIMED_BYTES));
                    assert_eq!(pair.hash(), table_hash(&field));
                }
            }
        }
    }
}
