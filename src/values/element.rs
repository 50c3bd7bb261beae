//! One element of a collection, as it is stored: bytes, or an integer that prints as them.
//!
//! Packed collections keep the canonical decimal form of an integer as the integer. A reader sees which
//! and writes it without an intermediate copy; who needs bytes brings a buffer for the digits.

use std::cmp::Ordering;

/// The longest decimal form of an `i64`.
const DIGITS_MAX: usize = 20;

/// Room for the digits of an element that is an integer; see [`Element::bytes`].
pub type Digits = itoa::Buffer;

/// An element borrowed from its collection.
#[derive(Debug, Clone, Copy)]
pub enum Element<'a> {
    /// Any byte string, also an integer in a collection that is not packed.
    Bytes(&'a [u8]),
    /// An integer, standing for its decimal form.
    Integer(i64),
}

impl<'a> Element<'a> {
    /// The packed view of a byte string: an integer if it is the canonical form of one.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Self {
        parse_integer(bytes).map_or(Self::Bytes(bytes), Self::Integer)
    }

    /// The byte string itself; `digits` holds it if it is an integer.
    #[inline]
    pub fn bytes<'b>(&self, digits: &'b mut Digits) -> &'b [u8]
    where
        'a: 'b,
    {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Integer(integer) => digits.format(*integer).as_bytes(),
        }
    }

    /// The integer of which this is the canonical form.
    #[inline]
    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Bytes(bytes) => parse_integer(bytes),
            Self::Integer(integer) => Some(*integer),
        }
    }

    /// A copy of the byte string.
    pub fn to_vec(&self) -> Vec<u8> {
        self.bytes(&mut Digits::new()).to_vec()
    }

    /// Bytes of the byte string.
    pub fn byte_len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Integer(integer) => {
                let digits = integer.unsigned_abs().checked_ilog10().unwrap_or(0) as usize + 1;
                digits + usize::from(*integer < 0)
            }
        }
    }

    /// Order of the byte strings, as of `memcmp` and then length.
    #[inline]
    pub fn compare(&self, other: &[u8]) -> Ordering {
        self.bytes(&mut Digits::new()).cmp(other)
    }
}

impl PartialEq<[u8]> for Element<'_> {
    #[inline]
    fn eq(&self, other: &[u8]) -> bool {
        match self {
            Self::Bytes(bytes) => *bytes == other,
            Self::Integer(integer) => parse_integer(other) == Some(*integer),
        }
    }
}

impl PartialEq for Element<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Integer(left), Self::Integer(right)) => left == right,
            (_, Self::Bytes(bytes)) => self == *bytes,
            (Self::Bytes(bytes), _) => other == *bytes,
        }
    }
}

impl Eq for Element<'_> {}

/// The integer of which these bytes are the only decimal form (no `+`, no leading zero, no `-0`).
#[inline]
pub(crate) fn parse_integer(bytes: &[u8]) -> Option<i64> {
    let (&first, rest) = bytes.split_first()?;
    if bytes.len() > DIGITS_MAX {
        return None;
    }
    match first {
        b'0' => rest.is_empty().then_some(0),
        b'1'..=b'9' => digits(rest, i64::from(first - b'0'), i64::checked_add),
        b'-' => match rest.split_first()? {
            (&leading @ b'1'..=b'9', rest) => digits(rest, -i64::from(leading - b'0'), i64::checked_sub),
            _ => None,
        },
        _ => None,
    }
}

#[inline]
fn digits(bytes: &[u8], first: i64, join: impl Fn(i64, i64) -> Option<i64>) -> Option<i64> {
    bytes.iter().try_fold(first, |value, byte| {
        if byte.is_ascii_digit() { join(value.checked_mul(10)?, i64::from(byte - b'0')) } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_form_is_an_integer() {
        for integer in [0, 1, -1, 9, 10, -10, 127, 128, 65_536, i64::MAX, i64::MIN, i64::MAX - 1, i64::MIN + 1] {
            let text = integer.to_string();
            assert_eq!(parse_integer(text.as_bytes()), Some(integer));
            assert_eq!(Element::Integer(integer).byte_len(), text.len());
            assert_eq!(Element::Integer(integer), *text.as_bytes());
        }
        for text in ["", "-", "+1", "01", "-0", "-01", "1 ", " 1", "1a", "9223372036854775808", "-9223372036854775809"]
        {
            assert_eq!(parse_integer(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(parse_integer(b"100000000000000000000000"), None);
    }
}
