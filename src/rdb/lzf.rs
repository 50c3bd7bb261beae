//! LZF: Redis's compression of strings.
//!
//! ```text
//!  000LLLLL                    L + 1 bytes follow as they are
//!  LLLooooo (1 byte if L is 7) oooooooo   L + 2 bytes that stand o + 1 before, L 7 and more; they may overlap
//! ```

use super::Damaged;
use std::cell::RefCell;

/// A reference of three bytes stands for at most 264: nothing expands more.
const EXPANSION_MAX: usize = 88;
const REFERENCE_BYTES_MAX: usize = 264;
const LITERAL_BYTES_MAX: usize = 32;
/// How far before a reference may point.
const OFFSET_MAX: usize = 8192;
/// What compression has to save, as in Redis: less is not worth the way back.
const SAVED_BYTES_MIN: usize = 4;
/// Places that are remembered, as a power of two: no more than there are bytes.
const TABLE_BITS_MAX: u32 = 14;
/// After so many bytes in which nothing was found, as a power of two, one more is passed by at each step.
const PATIENCE_BITS: u32 = 5;

thread_local! {
    static TABLE: RefCell<Table> = const { RefCell::new(Table { places: Vec::new(), begin: 1 }) };
}

/// Where three bytes have stood last, by their hash. It is kept by its thread (64 KB), and not cleared for the next string:
/// places of strings before are below `begin`.
struct Table {
    places: Vec<u32>,
    /// The place of the first byte of the string.
    begin: u32,
}

impl Table {
    /// Room for the places of a string of so many bytes. All but the last string of 4 GB find the table as it is.
    fn begin(&mut self, bytes: u32) -> u32 {
        if self.places.is_empty() || self.begin.checked_add(bytes).is_none() {
            self.places = vec![0; 1 << TABLE_BITS_MAX];
            self.begin = 1;
        }
        self.begin
    }
}

/// The compressed form; `None` where it is not smaller by four bytes at least. Takes time in proportion to the length.
///
/// Four bytes that have stood somewhere are looked for where a table of their hashes has them last; what is found is made as
/// long as it gets, without a look for something longer. Where nothing is found for long, not every byte is looked at.
pub fn compress(input: &[u8]) -> Option<Vec<u8>> {
    let bytes_max = input.len().checked_sub(SAVED_BYTES_MIN)?;
    let bytes = u32::try_from(input.len()).ok().filter(|bytes| *bytes < u32::MAX)?;
    TABLE.with_borrow_mut(|table| {
        let begin = table.begin(bytes);
        table.begin = begin + bytes;
        compress_with(&mut table.places, begin, input, bytes_max)
    })
}

fn compress_with(places: &mut [u32], begin: u32, input: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    let places: &mut [u32; 1 << TABLE_BITS_MAX] = places.try_into().ok()?;
    let shift = u32::BITS - input.len().next_power_of_two().ilog2().clamp(1, TABLE_BITS_MAX);
    let mut out = Vec::with_capacity(input.len() + input.len() / LITERAL_BYTES_MAX + 1);
    let (mut at, mut literals_from) = (0, 0);
    while let Some(word) = word_at(input, at) {
        let here = begin + at as u32;
        let distance = (here - std::mem::replace(&mut places[hash(word, shift)], here)) as usize;
        if distance > at.min(OFFSET_MAX) || word_at(input, at - distance) != Some(word) {
            at += 1 + ((at - literals_from) >> PATIENCE_BITS);
            continue;
        }
        let (from, count) = widen(input, at, distance, literals_from);
        write_literals(&mut out, &input[literals_from..from]);
        write_reference(&mut out, count, distance);
        if out.len() > bytes_max {
            return None;
        }
        let end = from + count;
        // What follows often repeats the end of this.
        if let Some(word) = word_at(input, end - 1) {
            places[hash(word, shift)] = begin + end as u32 - 1;
        }
        (at, literals_from) = (end, end);
    }
    write_literals(&mut out, &input[literals_from..]);
    (out.len() <= bytes_max).then_some(out)
}

#[inline]
fn word_at(input: &[u8], at: usize) -> Option<u32> {
    input.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

/// Fibonacci hashing.
#[inline]
fn hash(word: u32, shift: u32) -> usize {
    (word.wrapping_mul(0x9e37_79b1) >> shift) as usize & ((1 << TABLE_BITS_MAX) - 1)
}

/// Four bytes stand at `at` and `distance` before: all that do, from which place on and how many, as far as a reference
/// reaches. It begins where the literals do at the earliest.
#[inline]
fn widen(input: &[u8], at: usize, distance: usize, literals_from: usize) -> (usize, usize) {
    let (mut from, before) = (at, at - distance);
    while from > literals_from.max(distance) && input[from - 1] == input[from - 1 - distance] {
        from -= 1;
    }
    let most = (input.len() - at).min(REFERENCE_BYTES_MAX.saturating_sub(at - from));
    let count = at - from + repeated(&input[at..at + most], &input[before..before + most]);
    (from, count.min(REFERENCE_BYTES_MAX))
}

/// How many bytes two strings of the same length have in common at the front.
#[inline]
fn repeated(here: &[u8], there: &[u8]) -> usize {
    let (words, rest) = here.as_chunks::<8>();
    let (words_there, rest_there) = there.as_chunks::<8>();
    for (index, (one, other)) in words.iter().zip(words_there).enumerate() {
        let differing = u64::from_le_bytes(*one) ^ u64::from_le_bytes(*other);
        if differing != 0 {
            return index * 8 + differing.trailing_zeros() as usize / 8;
        }
    }
    words.len() * 8 + rest.iter().zip(rest_there).take_while(|(one, other)| one == other).count()
}

#[inline]
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
