//! LZF: Redis's compression of strings. Read only: what is written here is not compressed.
//!
//! ```text
//!  000LLLLL                    L + 1 bytes follow as they are
//!  LLLooooo (1 byte if L is 7) oooooooo   L + 2 bytes that stand o + 1 before, L 7 and more; they may overlap
//! ```

use super::Damaged;

/// A reference of three bytes stands for at most 264: nothing expands more.
const EXPANSION_MAX: usize = 88;

/// The `length` bytes that were compressed.
///
/// # Errors
/// Where the bytes are not the compressed form of exactly so many.
pub fn decompress(mut input: &[u8], length: usize) -> Result<Vec<u8>, Damaged> {
    if length > input.len().saturating_mul(EXPANSION_MAX) {
        return Err(Damaged);
    }
    let mut out = Vec::with_capacity(length);
    while let Some((&control, rest)) = input.split_first() {
        if control < 0x20 {
            let (literal, rest) = rest.split_at_checked(usize::from(control) + 1).ok_or(Damaged)?;
            out.extend_from_slice(literal);
            input = rest;
        } else {
            let (count, offset, rest) = reference(control, rest).ok_or(Damaged)?;
            input = rest;
            let from = out.len().checked_sub(offset).ok_or(Damaged)?;
            if offset >= count {
                out.extend_from_within(from..from + count);
            } else {
                // It repeats what it has written itself.
                (from..from + count).for_each(|index| out.push(out[index]));
            }
        }
        if out.len() > length {
            return Err(Damaged);
        }
    }
    if out.len() == length { Ok(out) } else { Err(Damaged) }
}

/// How many bytes a reference stands for, how far before, and what is behind it.
fn reference(control: u8, rest: &[u8]) -> Option<(usize, usize, &[u8])> {
    let (mut count, mut rest) = (usize::from(control >> 5), rest);
    if count == 7 {
        let (&more, behind) = rest.split_first()?;
        (count, rest) = (count + usize::from(more), behind);
    }
    let (&low, rest) = rest.split_first()?;
    Some((count + 2, (usize::from(control & 0x1f) << 8 | usize::from(low)) + 1, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn literals_and_references_are_expanded() {
        assert_eq!(decompress(b"\x01ab\x20\x01", 5).as_deref(), Ok(b"ababa".as_slice()));
        // A run of one byte, of 264 in all behind the first.
        assert_eq!(decompress(b"\x00a\xe0\xff\x00", 265), Ok(vec![b'a'; 265]));
        assert_eq!(decompress(b"", 0).as_deref(), Ok(b"".as_slice()));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let cases: [(&[u8], usize); 7] = [
            (b"\x01a", 2),          // a literal that is cut short
            (b"\x00a\x20\x01", 4),  // before the beginning
            (b"\x00a\xe0", 265),    // a reference that is cut short
            (b"\x01ab", 1),         // longer than said
            (b"\x01ab", 3),         // shorter than said
            (b"\x00a", usize::MAX), // as large as no input makes it
            (b"", 1),
        ];
        for (input, length) in cases {
            assert_eq!(decompress(input, length), Err(Damaged), "{input:?} {length}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_do_no_harm(input in prop::collection::vec(any::<u8>(), 0..80), length in 0usize..9000) {
            if let Ok(out) = decompress(&input, length) {
                prop_assert_eq!(out.len(), length);
            }
        }
    }
}
