//! LZF: Redis's compression of strings.
//!
//! ```text
//!  000LLLLL                    L + 1 bytes follow as they are
//!  LLLooooo (1 byte if L is 7) oooooooo   L + 2 bytes that stand o + 1 before, L 7 and more; they may overlap
//! ```

use super::Damaged;

/// A reference of three bytes stands for at most 264: nothing expands more.
const EXPANSION_MAX: usize = 88;
const REFERENCE_BYTES_MAX: usize = 264;
/// A shorter repetition is not worth its reference.
const REFERENCE_BYTES_MIN: usize = 3;
const LITERAL_BYTES_MAX: usize = 32;
/// How far before a reference may point.
const OFFSET_MAX: usize = 8192;
/// What compression has to save, as in Redis: less is not worth the way back.
const SAVED_BYTES_MIN: usize = 4;
/// Places that are remembered, as a power of two: no more than there are, and 64 KB at most.
const TABLE_BITS_MAX: u32 = 14;

/// The compressed form; `None` where it is not smaller by four bytes at least. Takes time in proportion to the length.
///
/// Three bytes that have stood somewhere are looked for where a table of their hashes has them last; what is found is made as
/// long as it gets, without a look for something longer.
pub fn compress(input: &[u8]) -> Option<Vec<u8>> {
    let bytes_max = input.len().checked_sub(SAVED_BYTES_MIN).filter(|_| u32::try_from(input.len()).is_ok())?;
    let bits = input.len().next_power_of_two().ilog2().clamp(1, TABLE_BITS_MAX);
    // Place and one; 0 is none.
    let mut table = vec![0u32; 1 << bits];
    let mut out = Vec::with_capacity(bytes_max);
    let (mut at, mut literals_from) = (0, 0);
    while let Some(three) = input[at..].first_chunk() {
        let before = std::mem::replace(&mut table[hash(three, bits)], at as u32 + 1) as usize;
        let count = if before == 0 { 0 } else { repeated(input, before - 1, at) };
        if count < REFERENCE_BYTES_MIN {
            at += 1;
            continue;
        }
        write_literals(&mut out, &input[literals_from..at]);
        write_reference(&mut out, count, at + 1 - before);
        if out.len() > bytes_max {
            return None;
        }
        let end = at + count;
        // What follows often repeats the end of this.
        for inside in (at + 1..end).rev().take(2) {
            if let Some(three) = input[inside..].first_chunk() {
                table[hash(three, bits)] = inside as u32 + 1;
            }
        }
        (at, literals_from) = (end, end);
    }
    write_literals(&mut out, &input[literals_from..]);
    (out.len() <= bytes_max).then_some(out)
}

/// Fibonacci hashing of three bytes.
fn hash(three: &[u8; 3], bits: u32) -> usize {
    let word = u32::from_le_bytes([three[0], three[1], three[2], 0]);
    (word.wrapping_mul(0x9e37_79b1) >> (u32::BITS - bits)) as usize
}

/// How many bytes from here on stand there too, as far as a reference reaches.
fn repeated(input: &[u8], before: usize, at: usize) -> usize {
    if at - before > OFFSET_MAX {
        return 0;
    }
    let here = input[at..].iter().take(REFERENCE_BYTES_MAX);
    here.zip(&input[before..]).take_while(|(here, there)| here == there).count()
}

fn write_literals(out: &mut Vec<u8>, literals: &[u8]) {
    for part in literals.chunks(LITERAL_BYTES_MAX) {
        out.push(part.len() as u8 - 1);
        out.extend_from_slice(part);
    }
}

/// A reference to so many bytes, `distance` before, both at least what they have to be.
fn write_reference(out: &mut Vec<u8>, count: usize, distance: usize) {
    let (count, offset) = (count - 2, distance - 1);
    let high = (offset >> 8) as u8;
    match count {
        ..7 => out.push((count as u8) << 5 | high),
        _ => out.extend_from_slice(&[7 << 5 | high, (count - 7) as u8]),
    }
    out.push(offset as u8);
}

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

    #[track_caller]
    fn check(input: &[u8], compressed_max: Option<usize>) {
        let compressed = compress(input);
        assert_eq!(compressed.is_some(), compressed_max.is_some(), "{} bytes", input.len());
        if let (Some(compressed), Some(most)) = (compressed, compressed_max) {
            assert!(compressed.len() <= most, "{} of {} bytes", compressed.len(), input.len());
            assert_eq!(decompress(&compressed, input.len()).as_deref(), Ok(input));
        }
    }

    #[test]
    fn repetitions_are_compressed_and_nothing_grows() {
        check(b"", None);
        check(b"aaaa", None);
        check(b"aaaaaaaaa", Some(5));
        check(b"0123456789abcdefghijklmnopqrstuvwxyz", None);
        check(&[b'x'; 1000], Some(20));
        check(&b"the same again, ".repeat(100), Some(50));
        check(&[b'x'; 1_000_000], Some(12_000));
        // As far apart as a reference reaches, and one further.
        let mut seed = 1u32;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        })
        .take(OFFSET_MAX + 1)
        .collect();
        check(&noise, None);
        check(&[&noise[..OFFSET_MAX], &noise[..2000]].concat(), Some(OFFSET_MAX + 600));
        check(&[&noise[..], &noise[..2000]].concat(), None);
    }

    proptest! {
        #[test]
        fn what_is_compressed_comes_back(
            parts in prop::collection::vec((prop::collection::vec(0u8..4, 0..40), 1usize..60), 0..20),
        ) {
            let input: Vec<u8> = parts.iter().flat_map(|(part, times)| part.repeat(*times)).collect();
            if let Some(compressed) = compress(&input) {
                prop_assert!(compressed.len() + SAVED_BYTES_MIN <= input.len());
                prop_assert_eq!(decompress(&compressed, input.len()), Ok(input));
            }
        }

        #[test]
        fn any_bytes_do_no_harm(input in prop::collection::vec(any::<u8>(), 0..80), length in 0usize..9000) {
            if let Ok(out) = decompress(&input, length) {
                prop_assert_eq!(out.len(), length);
            }
        }
    }
}
