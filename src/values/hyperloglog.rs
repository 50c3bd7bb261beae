//! HyperLogLog: how many different elements were added, to within a percent, in at most 12 KiB.
//!
//! A sketch is a string that is byte for byte Redis's, so that either reads the other's:
//!
//! ```text
//! | "HYLL" | encoding u8 | 0 0 0 | cardinality u64, little endian | registers ... |
//! ```
//!
//! The cardinality is what was counted last; its highest bit says that it is out of date. The registers are 16384 numbers:
//! dense, 6 bits each, the lowest first; or sparse ([`sparse`]), while that is short. An element is hashed: 14 bits choose
//! its register, which keeps the greatest count of zeros (plus one) that the other bits ended in.
//!
//! The estimate is Otmar Ertl's ("New cardinality estimation algorithms for HyperLogLog sketches", 2017), as in Redis.

pub mod sparse;

use std::ops::Range;

/// Bits of a hash that choose the register.
const INDEX_BITS: u32 = 14;
pub const REGISTERS: usize = 1 << INDEX_BITS;
/// The other bits; a register is at most one more.
const RANK_BITS: u32 = 64 - INDEX_BITS;
pub const HEADER_BYTES: usize = 16;
pub const DENSE_BYTES: usize = HEADER_BYTES + REGISTERS * 6 / 8;
const DENSE: u8 = 0;
const SPARSE: u8 = 1;
/// Where the encoding stands.
const ENCODING: usize = 4;
/// Where the cardinality stands.
pub const CARDINALITY: Range<usize> = 8..16;
/// The byte that says, by its highest bit, that the cardinality is out of date.
pub const STALE: usize = 15;
/// Redis's seed.
const SEED: u64 = 0xadc8_3b19;

/// The registers of a sketch, a byte each.
pub type Registers = [u8; REGISTERS];

/// The string has the header of a sketch, but what follows is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupted;

/// What an element is to a sketch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    pub register: usize,
    pub rank: u8,
}

impl Observation {
    pub fn of(element: &[u8]) -> Observation {
        let hash = murmur64(element);
        // One bit more is set, so that there is always one to be found.
        let rest = (hash >> INDEX_BITS) | (1 << RANK_BITS);
        Observation { register: hash as usize % REGISTERS, rank: rest.trailing_zeros() as u8 + 1 }
    }
}

/// MurmurHash64A of bytes.
fn murmur64(bytes: &[u8]) -> u64 {
    const FACTOR: u64 = 0xc6a4_a793_5bd1_e995;
    let (words, rest) = bytes.as_chunks::<8>();
    let mut hash = SEED ^ (bytes.len() as u64).wrapping_mul(FACTOR);
    for word in words {
        let word = u64::from_le_bytes(*word).wrapping_mul(FACTOR);
        hash = (hash ^ (word ^ (word >> 47)).wrapping_mul(FACTOR)).wrapping_mul(FACTOR);
    }
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        hash = (hash ^ u64::from_le_bytes(last)).wrapping_mul(FACTOR);
    }
    hash = (hash ^ (hash >> 47)).wrapping_mul(FACTOR);
    hash ^ (hash >> 47)
}

/// A sketch of nothing.
pub fn empty() -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    bytes[..ENCODING].copy_from_slice(b"HYLL");
    bytes[ENCODING] = SPARSE;
    sparse::put_zeros(&mut bytes, REGISTERS);
    bytes
}

/// Whether a string looks like a sketch; its registers may be [`Corrupted`] nevertheless where it is sparse.
pub fn is_sketch(bytes: &[u8]) -> bool {
    bytes.len() >= HEADER_BYTES
        && bytes.starts_with(b"HYLL")
        && (bytes[ENCODING] == SPARSE || bytes[ENCODING] == DENSE && bytes.len() == DENSE_BYTES)
}

/// Whether a sketch is sparse.
pub fn is_sparse(sketch: &[u8]) -> bool {
    sketch.get(ENCODING) == Some(&SPARSE)
}

/// The cardinality that stands in a sketch, unless it is out of date.
pub fn cached_count(sketch: &[u8]) -> Option<u64> {
    let bytes = sketch.get(CARDINALITY)?.try_into().ok()?;
    Some(u64::from_le_bytes(bytes)).filter(|_| sketch[STALE] & 0x80 == 0)
}

/// Says that the cardinality that stands in a sketch is out of date.
pub fn forget_count(sketch: &mut [u8]) {
    sketch[STALE] |= 0x80;
}

/// Adds what an element is; a sparse sketch becomes dense where it would be longer than `sparse_max` bytes. Says whether
/// a register has changed.
///
/// # Errors
/// It is not a sketch all through; it may have changed.
pub fn add(sketch: &mut Vec<u8>, observation: Observation, sparse_max: usize) -> Result<bool, Corrupted> {
    if !is_sparse(sketch) {
        return Ok(add_dense(sketch, observation).is_some());
    }
    match sparse::add(sketch, observation, sparse_max)? {
        sparse::Added::Nothing => Ok(false),
        sparse::Added::Changed => {
            forget_count(sketch);
            Ok(true)
        }
        sparse::Added::TooLong => {
            *sketch = to_dense(sketch)?;
            Ok(add_dense(sketch, observation).is_some())
        }
    }
}

/// Adds what an element is to a dense sketch. Gives the place of the bytes that have changed, if any.
pub fn add_dense(sketch: &mut [u8], observation: Observation) -> Option<Range<usize>> {
    let bit = observation.register * 6;
    let place = HEADER_BYTES + bit / 8..(HEADER_BYTES + bit / 8 + 2).min(DENSE_BYTES);
    let bytes = sketch.get_mut(place.clone())?;
    let mut pair = [0; 2];
    pair[..bytes.len()].copy_from_slice(bytes);
    let pair = u16::from_le_bytes(pair);
    if (pair >> (bit % 8)) as u8 & 63 >= observation.rank {
        return None;
    }
    let pair = pair & !(63 << (bit % 8)) | u16::from(observation.rank) << (bit % 8);
    bytes.copy_from_slice(&pair.to_le_bytes()[..bytes.len()]);
    Some(place)
}

/// Visits the registers of a dense sketch, four at a time.
fn each_four(sketch: &[u8], mut visit: impl FnMut(usize, [u8; 4])) {
    let (packed, _) = sketch.get(HEADER_BYTES..).unwrap_or_default().as_chunks::<3>();
    for (four, bytes) in packed.iter().enumerate() {
        let word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]);
        visit(four * 4, [word, word >> 6, word >> 12, word >> 18].map(|value| value as u8 & 63));
    }
}

/// Raises registers to those of a sketch.
///
/// # Errors
/// It is not a sketch all through; some registers may be raised.
pub fn merge(registers: &mut Registers, sketch: &[u8]) -> Result<(), Corrupted> {
    if is_sparse(sketch) {
        return sparse::each_run(sketch, |run, value| {
            registers[run].iter_mut().for_each(|register| *register = value.max(*register));
        });
    }
    each_four(sketch, |first, values| {
        let four = registers[first..].iter_mut().zip(values);
        four.for_each(|(register, value)| *register = value.max(*register));
    });
    Ok(())
}

/// The same sketch, dense.
///
/// # Errors
/// It is not a sketch all through.
pub fn to_dense(sketch: &[u8]) -> Result<Vec<u8>, Corrupted> {
    if !is_sparse(sketch) {
        return Ok(sketch.to_vec());
    }
    let mut dense = vec![0; DENSE_BYTES];
    dense[..HEADER_BYTES].copy_from_slice(&sketch[..HEADER_BYTES]);
    dense[ENCODING] = DENSE;
    sparse::each_run(sketch, |run, rank| {
        run.for_each(|register| _ = add_dense(&mut dense, Observation { register, rank }));
    })?;
    Ok(dense)
}

/// How many different elements were added to a sketch, about.
///
/// # Errors
/// It is not a sketch all through.
pub fn count(sketch: &[u8]) -> Result<u64, Corrupted> {
    let mut histogram = [0; 64];
    if is_sparse(sketch) {
        sparse::each_run(sketch, |run, value| histogram[value as usize & 63] += run.len() as u32)?;
        histogram[0] = REGISTERS as u32 - histogram.iter().sum::<u32>();
    } else {
        // Four that do not wait for each other: neighbours often have the same value.
        let mut four = [[0u32; 64]; 4];
        each_four(sketch, |_, values| {
            four.iter_mut().zip(values).for_each(|(counts, value)| counts[value as usize & 63] += 1);
        });
        histogram = std::array::from_fn(|value| four.iter().map(|counts| counts[value]).sum());
    }
    Ok(estimate(&histogram))
}

/// The same for registers.
pub fn count_registers(registers: &Registers) -> u64 {
    let mut histogram = [0; 64];
    registers.iter().for_each(|value| histogram[*value as usize & 63] += 1);
    estimate(&histogram)
}

/// The estimate, from how many registers have each value.
fn estimate(histogram: &[u32; 64]) -> u64 {
    /// 1 / (2 ln 2).
    const ALPHA: f64 = 0.721_347_520_444_481_7;
    let all = REGISTERS as f64;
    let greatest = f64::from(histogram[RANK_BITS as usize + 1]);
    let mut z = all * tau((all - greatest) / all);
    for value in (1..=RANK_BITS as usize).rev() {
        z = (z + f64::from(histogram[value])) * 0.5;
    }
    z += all * sigma(f64::from(histogram[0]) / all);
    (ALPHA * all * all / z).round() as u64
}

/// What registers that are full add.
fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        y *= 0.5;
        let before = z;
        z -= (1.0 - x).powi(2) * y;
        if z == before {
            return z / 3.0;
        }
    }
}

/// What registers that are empty add.
fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

#[cfg(test)]
mod tests;
