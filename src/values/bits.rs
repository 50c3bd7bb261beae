//! Bits in byte strings: counted, found, combined, and read and written as integers (BITCOUNT, BITPOS, BITOP, BITFIELD).
//!
//! Bit 0 is the highest bit of the first byte, as in Redis. What goes through whole strings goes in words, in loops that
//! the compiler makes vector instructions of.

use smallvec::SmallVec;
use std::ops::{Not, Range};

/// Bytes that are combined at a time: what is combined stays in the nearest cache while one source after another comes.
const BLOCK_BYTES: usize = 8192;

/// How many bits are 1 in a range of bits, which lies inside the string.
pub fn count(bytes: &[u8], range: Range<u64>) -> u64 {
    let Some(edges) = Edges::of(bytes, &range) else { return 0 };
    let Edges { first, middle, last } = edges;
    let edges = first.0.count_ones() + last.map_or(0, |last| last.0.count_ones());
    u64::from(edges) + count_whole(middle)
}

fn count_whole(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let counted: u64 = words.iter().map(|word| u64::from(u64::from_le_bytes(*word).count_ones())).sum();
    counted + rest.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>()
}

/// Where the first bit of this value is in a range of bits, which lies inside the string.
pub fn position(bytes: &[u8], range: Range<u64>, bit: bool) -> Option<u64> {
    let Edges { first, middle, last } = Edges::of(bytes, &range)?;
    let byte_of = |edge: u8| if bit { edge } else { !edge };
    // What lies outside the range must not be found, whatever is looked for.
    let found = byte_of(first.0) & first.1;
    let begin = range.start / 8;
    if found != 0 {
        return Some(begin * 8 + u64::from(found.leading_zeros()));
    }
    if let Some(at) = position_whole(middle, bit) {
        return Some((begin + 1) * 8 + at);
    }
    let last = last?;
    let found = byte_of(last.0) & last.1;
    (found != 0).then(|| (begin + 1 + middle.len() as u64) * 8 + u64::from(found.leading_zeros()))
}

fn position_whole(bytes: &[u8], bit: bool) -> Option<u64> {
    let skipped = if bit { 0 } else { 0xff };
    let (blocks, _) = bytes.as_chunks::<64>();
    // No early end inside a block: so it is compared as vectors.
    let is_skipped = |block: &&[u8; 64]| block.iter().fold(0, |found, byte| found | (byte ^ skipped)) == 0;
    let passed = blocks.iter().take_while(is_skipped).count() * 64;
    let at = passed + bytes[passed..].iter().position(|byte| *byte != skipped)?;
    Some(at as u64 * 8 + u64::from((bytes[at] ^ skipped).leading_zeros()))
}

/// A range of bits as bytes: the first and the last one, of which only some bits count, and those between.
struct Edges<'a> {
    /// The bits that count, others 0; and which these are.
    first: (u8, u8),
    middle: &'a [u8],
    /// `None` where the range ends in the byte in which it begins.
    last: Option<(u8, u8)>,
}

impl<'a> Edges<'a> {
    /// `None` where the range is empty.
    fn of(bytes: &'a [u8], range: &Range<u64>) -> Option<Edges<'a>> {
        if range.is_empty() {
            return None;
        }
        let (begin, end) = ((range.start / 8) as usize, ((range.end - 1) / 8) as usize);
        let from = 0xff >> (range.start % 8);
        let until = 0xff << (7 - (range.end - 1) % 8);
        if begin == end {
            let mask = from & until;
            return Some(Edges { first: (bytes.get(begin)? & mask, mask), middle: &[], last: None });
        }
        let (first, last) = (bytes.get(begin)? & from, bytes.get(end)? & until);
        Some(Edges { first: (first, from), middle: &bytes[begin + 1..end], last: Some((last, until)) })
    }
}

/// How BITOP combines strings, the shorter ones filled up with zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    And,
    Or,
    Xor,
    /// Of one string.
    Not,
    /// What the first has and none of the others (Redis 8.2, as all that follow).
    Diff,
    /// What some of the others have and the first has not.
    Diff1,
    /// What the first has and some of the others too.
    AndOr,
    /// What exactly one has.
    One,
}

/// Combines strings; the result is as long as the longest of them.
pub fn combine(operation: Operation, sources: &[&[u8]]) -> Vec<u8> {
    let length = sources.iter().map(|source| source.len()).max().unwrap_or(0);
    let mut result = vec![0; length];
    let Some((first, others)) = sources.split_first() else { return result };
    if operation == Operation::And {
        // Behind the end of the shortest all are 0.
        let shortest = sources.iter().map(|source| source.len()).min().unwrap_or(0);
        each_block(&mut result[..shortest], others, |block, others, at| {
            block.copy_from_slice(&first[at..at + block.len()]);
            others.iter().for_each(|other| merge(block, &other[at..], |a, b| a & b));
        });
        return result;
    }
    // The longest first, so that those that have ended are not looked at again.
    let mut others: SmallVec<[&[u8]; 8]> = others.iter().copied().collect();
    others.sort_unstable_by_key(|other| std::cmp::Reverse(other.len()));
    let mut more = [0; BLOCK_BYTES];
    each_block(&mut result, &others, |block, others, at| {
        let first = first.get(at..).unwrap_or_default();
        let others = others.iter().map(|other| &other[at..]);
        match operation {
            Operation::And | Operation::Or => {
                std::iter::once(first).chain(others).for_each(|other| merge(block, other, |a, b| a | b));
            }
            Operation::Xor => std::iter::once(first).chain(others).for_each(|other| merge(block, other, |a, b| a ^ b)),
            Operation::Not => {
                merge(block, first, |_, b| b);
                block.iter_mut().for_each(|byte| *byte = byte.not());
            }
            Operation::Diff => {
                others.for_each(|other| merge(block, other, |a, b| a | b));
                merge_padded(block, first, |a, b| b & !a);
            }
            Operation::Diff1 => {
                others.for_each(|other| merge(block, other, |a, b| a | b));
                merge(block, first, |a, b| a & !b);
            }
            Operation::AndOr => {
                others.for_each(|other| merge(block, other, |a, b| a | b));
                merge_padded(block, first, |a, b| a & b);
            }
            Operation::One => {
                let more = &mut more[..block.len()];
                more.fill(0);
                for other in std::iter::once(first).chain(others) {
                    for ((more, once), byte) in more.iter_mut().zip(block.iter_mut()).zip(other) {
                        *more |= *once & byte;
                        *once ^= byte;
                    }
                }
                merge(block, more, |once, more| once & !more);
            }
        }
    });
    result
}

/// Calls `fill` for one block of the result after another, with those of the sources that reach there, and where it begins.
fn each_block(result: &mut [u8], sources: &[&[u8]], mut fill: impl FnMut(&mut [u8], &[&[u8]], usize)) {
    let mut reaching = sources.len();
    for (index, block) in result.chunks_mut(BLOCK_BYTES).enumerate() {
        let at = index * BLOCK_BYTES;
        while reaching > 0 && sources[reaching - 1].len() <= at {
            reaching -= 1;
        }
        fill(block, &sources[..reaching], at);
    }
}

/// Changes the bytes of a block by those of a source, as far as it reaches.
fn merge(block: &mut [u8], source: &[u8], change: impl Fn(u8, u8) -> u8) {
    block.iter_mut().zip(source).for_each(|(byte, other)| *byte = change(*byte, *other));
}

/// The same, with zeros behind the end of the source.
fn merge_padded(block: &mut [u8], source: &[u8], change: impl Fn(u8, u8) -> u8) {
    let reached = block.len().min(source.len());
    merge(block, source, &change);
    block[reached..].iter_mut().for_each(|byte| *byte = change(*byte, 0));
}

/// An integer of 1 to 64 bits in a string (BITFIELD).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its first bit.
    pub offset: u64,
    /// An unsigned one has at most 63.
    pub bits: u32,
    pub signed: bool,
}

/// What becomes of a value that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Overflow {
    /// Its lowest bits are kept.
    #[default]
    Wrap,
    /// The nearest value that fits.
    Saturate,
    /// Nothing is written.
    Fail,
}

impl Field {
    /// Where its bytes lie: at most 9.
    pub fn bytes(&self) -> Range<usize> {
        (self.offset / 8) as usize..(self.offset + u64::from(self.bits)).div_ceil(8) as usize
    }

    /// The value, with zeros behind the end of the string.
    pub fn read(&self, bytes: &[u8]) -> i64 {
        let Range { start, end } = self.bytes();
        let mut window = [0; 16];
        let present = bytes.get(start..end.min(bytes.len())).unwrap_or_default();
        window[..present.len()].copy_from_slice(present);
        let aligned = u128::from_be_bytes(window) << (self.offset % 8);
        if self.signed {
            (aligned.cast_signed() >> (128 - self.bits)) as i64
        } else {
            (aligned >> (128 - self.bits)) as i64
        }
    }

    /// Writes the lowest bits of a value; the string must reach as far.
    pub fn write(&self, bytes: &mut [u8], value: i64) {
        let bytes = &mut bytes[self.bytes()];
        let mut window = [0; 16];
        window[..bytes.len()].copy_from_slice(bytes);
        let mask = (u128::MAX << (128 - self.bits)) >> (self.offset % 8);
        let value = (u128::from(value.cast_unsigned()) << (128 - self.bits)) >> (self.offset % 8);
        let written = (u128::from_be_bytes(window) & !mask) | value;
        bytes.copy_from_slice(&written.to_be_bytes()[..bytes.len()]);
    }

    /// What a sum becomes in this field, and whether it did not fit; the value is `None` where nothing is to be written.
    pub fn fit(&self, value: i64, increment: i64, overflow: Overflow) -> Option<i64> {
        let (least, greatest) = self.bounds();
        let side = if self.signed { self.signed_side(value, increment) } else { self.unsigned_side(value, increment) };
        let sum = value.wrapping_add(increment);
        match (side, overflow) {
            (Side::Inside, _) => Some(sum),
            (_, Overflow::Wrap) => Some(self.wrapped(sum)),
            (Side::Above, Overflow::Saturate) => Some(greatest),
            (Side::Below, Overflow::Saturate) => Some(least),
            (_, Overflow::Fail) => None,
        }
    }

    fn bounds(&self) -> (i64, i64) {
        if self.signed {
            (i64::MIN >> (64 - self.bits), i64::MAX >> (64 - self.bits))
        } else {
            (0, (u64::MAX >> (64 - self.bits)) as i64)
        }
    }

    fn wrapped(&self, value: i64) -> i64 {
        let unused = 64 - self.bits;
        if self.signed { value << unused >> unused } else { ((value as u64) << unused >> unused) as i64 }
    }

    /// Redis reads a negative value as a great one where the field is unsigned (`SET u8 0 -1`).
    fn unsigned_side(&self, value: i64, increment: i64) -> Side {
        let (_, greatest) = self.bounds();
        match u64::try_from(i128::from(value as u64) + i128::from(increment)) {
            _ if value as u64 > greatest as u64 => Side::Above,
            Ok(sum) if sum > greatest as u64 => Side::Above,
            Ok(_) => Side::Inside,
            Err(_) if increment < 0 => Side::Below,
            Err(_) => Side::Above,
        }
    }

    /// Redis takes the room between a value and the bounds in 64 bits, where it may wrap: with 63 bits and fewer, a value
    /// far below the least one (`SET i8 0 -9223372036854775808`) is too great for it.
    fn signed_side(&self, value: i64, increment: i64) -> Side {
        let (least, greatest) = self.bounds();
        let (above, below) = (greatest.wrapping_sub(value), least.wrapping_sub(value));
        let is_narrow = self.bits != 64;
        if value > greatest || increment > above && (is_narrow || value >= 0 && increment > 0) {
            Side::Above
        } else if value < least || increment < below && (is_narrow || value < 0 && increment < 0) {
            Side::Below
        } else {
            Side::Inside
        }
    }
}

/// Where a value lies, seen from what fits.
enum Side {
    Inside,
    Above,
    Below,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bit(bytes: &[u8], at: u64) -> bool {
        bytes.get(at as usize / 8).is_some_and(|byte| byte & (0x80 >> (at % 8)) != 0)
    }

    /// Strings in which runs are as frequent as noise.
    fn strings() -> impl Strategy<Value = Vec<u8>> {
        let run = (prop_oneof![Just(0u8), Just(0xff), any::<u8>()], 0..200usize);
        prop::collection::vec(run, 0..6)
            .prop_map(|runs| runs.into_iter().flat_map(|(byte, count)| std::iter::repeat_n(byte, count)).collect())
    }

    fn combined(operation: Operation, bits: &[bool]) -> bool {
        let any = bits[1..].contains(&true);
        match operation {
            Operation::And => !bits.contains(&false),
            Operation::Or => bits.contains(&true),
            Operation::Xor => bits.iter().filter(|bit| **bit).count() % 2 == 1,
            Operation::Not => !bits[0],
            Operation::Diff => bits[0] && !any,
            Operation::Diff1 => !bits[0] && any,
            Operation::AndOr => bits[0] && any,
            Operation::One => bits.iter().filter(|bit| **bit).count() == 1,
        }
    }

    proptest! {
        #[test]
        fn bits_are_counted_and_found_as_one_by_one(bytes in strings(), from in any::<u64>(), to in any::<u64>()) {
            let total = bytes.len() as u64 * 8;
            let (from, to) = (from % (total + 1), to % (total + 1));
            prop_assert_eq!(count(&bytes, from..to), (from..to).filter(|at| bit(&bytes, *at)).count() as u64);
            for wanted in [false, true] {
                let expected = (from..to).find(|at| bit(&bytes, *at) == wanted);
                prop_assert_eq!(position(&bytes, from..to, wanted), expected);
            }
        }

        #[test]
        fn fields_are_read_and_written_bit_by_bit(
            bytes in prop::collection::vec(any::<u8>(), 20), offset in 0..96u64, bits in 1..=64u32, value: i64,
        ) {
            let field = Field { offset, bits, signed: true };
            let mut written = bytes.clone();
            field.write(&mut written, value);
            for at in 0..160 {
                let inside = (offset..offset + u64::from(bits)).contains(&at);
                let expected = if inside { value >> (offset + u64::from(bits) - 1 - at) & 1 == 1 } else { bit(&bytes, at) };
                prop_assert_eq!(bit(&written, at), expected, "bit {}", at);
            }
            prop_assert_eq!(field.read(&written), field.wrapped(value));
            if bits < 64 {
                let unsigned = Field { signed: false, ..field };
                prop_assert_eq!(unsigned.read(&written), unsigned.wrapped(value));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn strings_are_combined_as_bit_by_bit(
            sources in prop::collection::vec(strings(), 1..5), stretch in prop_oneof![3 => Just(1usize), 1 => Just(25)],
        ) {
            use Operation::{And, AndOr, Diff, Diff1, Not, One, Or, Xor};
            let sources: Vec<Vec<u8>> = sources.iter().map(|source| source.repeat(stretch)).collect();
            let all: Vec<&[u8]> = sources.iter().map(|source| &source[..]).collect();
            for operation in [And, Or, Xor, Not, Diff, Diff1, AndOr, One] {
                let taken = if operation == Not { &all[..1] } else { &all[..] };
                let result = combine(operation, taken);
                prop_assert_eq!(result.len(), taken.iter().map(|source| source.len()).max().unwrap_or(0));
                for at in 0..result.len() as u64 * 8 {
                    let bits: Vec<bool> = taken.iter().map(|source| bit(source, at)).collect();
                    prop_assert_eq!(bit(&result, at), combined(operation, &bits), "{:?} at {}", operation, at);
                }
            }
        }
    }

    #[test]
    fn values_that_do_not_fit_wrap_saturate_or_fail() {
        let check = |signed, bits, value, increment, expected: [Option<i64>; 3]| {
            let field = Field { offset: 0, bits, signed };
            let fitted = [Overflow::Wrap, Overflow::Saturate, Overflow::Fail].map(|o| field.fit(value, increment, o));
            assert_eq!(fitted, expected, "{field:?} {value} {increment}");
        };
        check(false, 8, 250, 5, [Some(255); 3]);
        check(false, 8, 250, 10, [Some(4), Some(255), None]);
        check(false, 8, 5, -10, [Some(251), Some(0), None]);
        check(false, 8, -1, 0, [Some(255), Some(255), None]);
        check(true, 8, 127, 1, [Some(-128), Some(127), None]);
        check(true, 8, -128, -1, [Some(127), Some(-128), None]);
        check(true, 64, i64::MAX, 1, [Some(i64::MIN), Some(i64::MAX), None]);
        check(true, 64, i64::MIN, -1, [Some(i64::MAX), Some(i64::MIN), None]);
        check(true, 64, i64::MIN, i64::MAX, [Some(-1); 3]);
        check(true, 8, i64::MIN, 0, [Some(0), Some(127), None]);
        check(false, 63, i64::MAX, 1, [Some(0), Some(i64::MAX), None]);
    }

    #[test]
    fn beyond_the_end_of_a_string_fields_are_zero() {
        assert_eq!(Field { offset: 4, bits: 8, signed: false }.read(&[0x0f]), 0xf0);
        assert_eq!(Field { offset: 1 << 32, bits: 64, signed: true }.read(&[0xff]), 0);
        assert_eq!(Field { offset: 0, bits: 1, signed: true }.read(&[0x80]), -1);
    }
}
