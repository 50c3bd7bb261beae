//! The id of an entry: when it was added, and a number among those of the same millisecond.

use std::fmt;

/// `ms-seq`, ordered by both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// Unix milliseconds, unless a client chose otherwise.
    pub ms: u64,
    pub seq: u64,
}

impl Id {
    /// Below all ids that entries have.
    pub const MIN: Id = Id { ms: 0, seq: 0 };
    pub const MAX: Id = Id { ms: u64::MAX, seq: u64::MAX };

    pub const fn new(ms: u64, seq: u64) -> Id {
        Id { ms, seq }
    }

    /// The least id above; `None` behind the last one.
    pub fn next(self) -> Option<Id> {
        match self.seq.checked_add(1) {
            Some(seq) => Some(Id { ms: self.ms, seq }),
            None => self.ms.checked_add(1).map(|ms| Id { ms, seq: 0 }),
        }
    }

    /// The greatest id below; `None` before the first one.
    pub fn previous(self) -> Option<Id> {
        match self.seq.checked_sub(1) {
            Some(seq) => Some(Id { ms: self.ms, seq }),
            None => self.ms.checked_sub(1).map(|ms| Id { ms, seq: u64::MAX }),
        }
    }

    /// Reads `ms-seq`, or `ms` alone, for which the caller says the sequence number.
    pub fn parse(text: &[u8], missing_seq: u64) -> Option<Id> {
        match text.iter().position(|byte| *byte == b'-') {
            Some(dash) => Some(Id { ms: number(&text[..dash])?, seq: number(&text[dash + 1..])? }),
            None => Some(Id { ms: number(text)?, seq: missing_seq }),
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// One half of an id. Redis reads it as C does: blanks and a sign in front, and leading zeros, are no error.
pub fn number(text: &[u8]) -> Option<u64> {
    let text = text.trim_ascii_start();
    let digits = text.strip_prefix(b"+").unwrap_or(text);
    if digits.is_empty() || digits.len() > 64 {
        return None;
    }
    digits.iter().try_fold(0u64, |value, digit| match digit {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_and_have_neighbours() {
        let cases = [
            ("5", Some(Id::new(5, 9))),
            ("5-1", Some(Id::new(5, 1))),
            ("18446744073709551615-18446744073709551615", Some(Id::MAX)),
            ("18446744073709551616", None),
            ("05-+01", Some(Id::new(5, 1))),
            ("", None),
            ("-", None),
            ("-1", None),
            ("1-", None),
            ("1-2-3", None),
            ("a", None),
        ];
        for (text, expected) in cases {
            assert_eq!(Id::parse(text.as_bytes(), 9), expected, "{text}");
        }
        assert_eq!(Id::new(1, u64::MAX).next(), Some(Id::new(2, 0)));
        assert_eq!(Id::new(2, 0).previous(), Some(Id::new(1, u64::MAX)));
        assert_eq!((Id::MAX.next(), Id::MIN.previous()), (None, None));
        assert_eq!(Id::new(3, 4).to_string(), "3-4");
    }
}
