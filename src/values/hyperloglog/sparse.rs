//! The sparse form of a sketch: runs of registers with the same value.
//!
//! ```text
//! 00nnnnnn            n + 1 registers are 0
//! 01nnnnnn nnnnnnnn   n + 1 registers are 0 (the higher bits first)
//! 1vvvvvnn            n + 1 registers are v + 1
//! ```
//!
//! To give the same bytes as Redis, a change does what Redis does: the run in which the register lies is split, and the
//! next few runs from the one before are merged where they have the same value.

use super::{Corrupted, HEADER_BYTES, Observation, REGISTERS};
use smallvec::SmallVec;
use std::ops::Range;

const SHORT_ZEROS_MAX: usize = 64;
const VALUES_MAX: usize = 4;
/// A greater value has no sparse form.
const VALUE_MAX: u8 = 32;
/// So many runs are looked at for a merge after a change.
const MERGE_SCAN: usize = 5;

/// A run of registers, as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Run {
    /// In one byte.
    Zeros(usize),
    /// In two.
    ManyZeros(usize),
    Values(u8, usize),
}

impl Run {
    /// The run at the front of these bytes; one that is cut off reads as one that goes beyond all registers.
    fn read(bytes: &[u8]) -> Option<Run> {
        let first = *bytes.first()?;
        Some(match first >> 6 {
            0 => Run::Zeros((first & 63) as usize + 1),
            1 => {
                let low = bytes.get(1).map_or(REGISTERS, |low| *low as usize);
                Run::ManyZeros((((first & 63) as usize) << 8) + low + 1)
            }
            _ => Run::Values((first >> 2 & 31) + 1, (first & 3) as usize + 1),
        })
    }

    fn length(self) -> usize {
        match self {
            Run::Zeros(length) | Run::ManyZeros(length) | Run::Values(_, length) => length,
        }
    }

    fn value(self) -> u8 {
        if let Run::Values(value, _) = self { value } else { 0 }
    }

    /// In bytes.
    fn size(self) -> usize {
        if let Run::ManyZeros(_) = self { 2 } else { 1 }
    }
}

fn value_byte(value: u8, length: usize) -> u8 {
    0x80 | (value - 1) << 2 | (length - 1) as u8
}

/// Appends a run of zeros, in the shortest form; none where there are none.
pub(super) fn put_zeros(out: &mut impl Extend<u8>, length: usize) {
    match length {
        0 => {}
        1..=SHORT_ZEROS_MAX => out.extend([(length - 1) as u8]),
        _ => out.extend([0x40 | ((length - 1) >> 8) as u8, (length - 1) as u8]),
    }
}

/// Visits the runs of a sparse sketch that are not zeros.
///
/// # Errors
/// The runs are not all registers; some may have been visited.
pub(super) fn each_run(sketch: &[u8], mut visit: impl FnMut(Range<usize>, u8)) -> Result<(), Corrupted> {
    let mut rest = sketch.get(HEADER_BYTES..).unwrap_or_default();
    let mut first = 0;
    while let Some(run) = Run::read(rest) {
        let end = first + run.length();
        if end > REGISTERS {
            return Err(Corrupted);
        }
        if let Run::Values(value, _) = run {
            visit(first..end, value);
        }
        first = end;
        rest = &rest[run.size()..];
    }
    if first == REGISTERS { Ok(()) } else { Err(Corrupted) }
}

/// The runs of a sparse sketch in words, for PFDEBUG DECODE: `z` and `Z` for zeros in one and two bytes.
pub fn describe(sketch: &[u8]) -> String {
    let mut rest = sketch.get(HEADER_BYTES..).unwrap_or_default();
    let mut words = Vec::new();
    while let Some(run) = Run::read(rest) {
        words.push(match run {
            Run::Zeros(length) => format!("z:{length}"),
            Run::ManyZeros(length) => format!("Z:{length}"),
            Run::Values(value, length) => format!("v:{value},{length}"),
        });
        rest = rest.get(run.size()..).unwrap_or_default();
    }
    words.join(" ")
}

/// What became of a sparse sketch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// The register is as great already.
    Nothing,
    Changed,
    /// It has to become dense first; nothing has changed.
    TooLong,
}

/// Raises a register.
pub(super) fn add(sketch: &mut Vec<u8>, observation: Observation, longest: usize) -> Result<Added, Corrupted> {
    let Observation { register, rank } = observation;
    if rank > VALUE_MAX {
        return Ok(Added::TooLong);
    }
    let (mut at, mut before, mut first) = (HEADER_BYTES, HEADER_BYTES, 0);
    while let Some(length) = sketch.get(at..).and_then(many_runs::<4>)
        && register >= first + length
    {
        (before, at, first) = (at + 31, at + 32, first + length);
    }
    while let Some(length) = sketch.get(at..).and_then(many_runs::<1>)
        && register >= first + length
    {
        (before, at, first) = (at + 7, at + 8, first + length);
    }
    let run = loop {
        let run = Run::read(sketch.get(at..).unwrap_or_default()).ok_or(Corrupted)?;
        if register < first + run.length() {
            break run;
        }
        (before, at, first) = (at, at + run.size(), first + run.length());
    };
    if run.value() >= rank {
        return Ok(Added::Nothing);
    }
    let split = split(run, register - first, rank);
    let old = at..at + run.size();
    if old.end > sketch.len() {
        return Err(Corrupted);
    }
    if split.len() > old.len() && sketch.len() + split.len() - old.len() > longest {
        return Ok(Added::TooLong);
    }
    sketch.splice(old, split);
    merge_values(sketch, before);
    Ok(Added::Changed)
}

/// The registers of the next runs, eight for each of `WORDS` (at most four), where each of them is one byte: so most of a
/// sketch is passed by.
#[inline]
fn many_runs<const WORDS: usize>(bytes: &[u8]) -> Option<usize> {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let words = bytes.as_chunks::<8>().0.first_chunk::<WORDS>()?;
    let (mut lengths, mut are_two_bytes) = (0, 0);
    for word in words {
        let word = u64::from_le_bytes(*word);
        let is_value = word & (EACH * 0x80);
        are_two_bytes |= word << 1 & !word;
        // Six bits of zeros, two of values: one less than the length, of each byte. Four of them are below 256.
        lengths += word & (EACH * 0x3f) & !(is_value - (is_value >> 5));
    }
    if are_two_bytes & (EACH * 0x80) != 0 {
        return None;
    }
    let pairs = (lengths & 0x00ff_00ff_00ff_00ff) + (lengths >> 8 & 0x00ff_00ff_00ff_00ff);
    Some((pairs.wrapping_mul(0x0001_0001_0001_0001) >> 48) as usize + 8 * WORDS)
}

/// A run in which one register has another value.
fn split(run: Run, index: usize, value: u8) -> SmallVec<[u8; 5]> {
    let (left, right) = (index, run.length() - index - 1);
    let mut bytes = SmallVec::new();
    let put_rest = |bytes: &mut SmallVec<[u8; 5]>, length: usize| match run {
        Run::Values(old, _) if length > 0 => bytes.push(value_byte(old, length)),
        Run::Values(..) => {}
        _ => put_zeros(bytes, length),
    };
    put_rest(&mut bytes, left);
    bytes.push(value_byte(value, 1));
    put_rest(&mut bytes, right);
    bytes
}

/// Merges runs of the same value, from a place on, as far as Redis looks.
fn merge_values(sketch: &mut Vec<u8>, from: usize) {
    let mut at = from;
    for _ in 0..MERGE_SCAN {
        let Some(run) = Run::read(sketch.get(at..).unwrap_or_default()) else { return };
        let next = Run::read(sketch.get(at + run.size()..).unwrap_or_default());
        match (run, next) {
            (Run::Values(one, length), Some(Run::Values(other, more)))
                if one == other && length + more <= VALUES_MAX =>
            {
                sketch[at + 1] = value_byte(one, length + more);
                sketch.remove(at);
            }
            _ => at += run.size(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Run, many_runs};
    use proptest::prelude::*;

    fn expected(bytes: &[u8]) -> Option<usize> {
        let runs: Vec<Run> = bytes.iter().map(|byte| Run::read(&[*byte, 0]).expect("a run")).collect();
        let is_one_byte_each = runs.iter().all(|run| run.size() == 1);
        is_one_byte_each.then(|| runs.iter().map(|run| run.length()).sum())
    }

    #[test]
    fn the_longest_runs_are_counted() {
        assert_eq!(many_runs::<4>(&[63; 32]), Some(32 * 64));
        assert_eq!(many_runs::<4>(&[0xff; 32]), Some(32 * 4));
        assert_eq!(many_runs::<4>(&[63; 31]), None);
    }

    proptest! {
        #[test]
        fn many_runs_are_as_long_as_each_of_them(bytes in prop::array::uniform32(prop_oneof![60 => 0u8..64, 60 => 128u8.., 1 => 64u8..128])) {
            prop_assert_eq!(many_runs::<1>(&bytes), expected(&bytes[..8]));
            prop_assert_eq!(many_runs::<4>(&bytes), expected(&bytes));
        }
    }
}
