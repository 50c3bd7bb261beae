//! Slots: the 16384 partitions of the keyspace, and how a key finds its own.
//!
//! The function is Redis Cluster's (cluster specification, "Keys distribution model"):
//! CRC16-XMODEM of the key, or of its hash tag where it has one, modulo 16384.

use std::fmt;
use std::sync::LazyLock;

/// Members of a slot that have to have a write before it is acknowledged by quorum, the primary among them.
pub const QUORUM: usize = 2;

/// How many slots there are. Fixed by the Redis Cluster protocol.
pub const SLOT_COUNT: usize = 16384;

/// A slot number, always below [`SLOT_COUNT`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Slot(u16);

impl Slot {
    /// The slot with this number, or `None` where there is no such slot.
    pub const fn new(number: u64) -> Option<Slot> {
        if number < SLOT_COUNT as u64 { Some(Slot(number as u16)) } else { None }
    }

    /// The slot of a key: of its hash tag, the part between the first `{` and the next `}`, where that is not empty.
    pub fn of_key(key: &[u8]) -> Slot {
        Slot(crc16(hash_tag(key)) & (SLOT_COUNT as u16 - 1))
    }

    /// A hash tag whose keys are in the slot: the first and shortest of letters and digits.
    pub fn tag(self) -> &'static [u8] {
        let tag = &TAGS[self.index()];
        &tag[..tag.iter().position(|byte| *byte == 0).unwrap_or(tag.len())]
    }

    /// Its number, 0 to 16383.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// Its number as an index into a table of all slots.
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Every slot, in order.
    pub fn all() -> impl ExactSizeIterator<Item = Slot> + DoubleEndedIterator {
        (0..SLOT_COUNT as u16).map(Slot)
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {}", self.0)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The part of a key that decides its slot.
#[inline]
fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|&byte| byte == b'{') else { return key };
    match key[open + 1..].iter().position(|&byte| byte == b'}') {
        Some(length) if length > 0 => &key[open + 1..open + 1 + length],
        _ => key,
    }
}

/// A tag of each slot, filled up with zeros. Three characters are enough for all.
static TAGS: LazyLock<Box<[[u8; 3]]>> = LazyLock::new(|| {
    const CHARACTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut tags = vec![[0; 3]; SLOT_COUNT].into_boxed_slice();
    let mut take = |tag: [u8; 3], length: usize| {
        let place = &mut tags[Slot::of_key(&tag[..length]).index()];
        if place[0] == 0 {
            *place = tag;
        }
    };
    CHARACTERS.iter().for_each(|&first| take([first, 0, 0], 1));
    let pairs = CHARACTERS.iter().flat_map(|first| CHARACTERS.iter().map(|second| (*first, *second)));
    pairs.clone().for_each(|(first, second)| take([first, second, 0], 2));
    for (first, second) in pairs {
        CHARACTERS.iter().for_each(|&third| take([first, second, third], 3));
    }
    tags
});

/// Four tables, so that four bytes are folded in one step.
static CRC16: [[u16; 256]; 4] = crc16_tables();

const fn crc16_tables() -> [[u16; 256]; 4] {
    let mut tables = [[0u16; 256]; 4];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut level = 1;
    while level < 4 {
        let mut byte = 0;
        while byte < 256 {
            let previous = tables[level - 1][byte];
            tables[level][byte] = (previous << 8) ^ tables[0][(previous >> 8) as usize];
            byte += 1;
        }
        level += 1;
    }
    tables
}

fn crc16(bytes: &[u8]) -> u16 {
    let mut crc = 0u16;
    let mut chunks = bytes.chunks_exact(4);
    for chunk in &mut chunks {
        crc = CRC16[3][(chunk[0] ^ (crc >> 8) as u8) as usize]
            ^ CRC16[2][(chunk[1] ^ crc as u8) as usize]
            ^ CRC16[1][chunk[2] as usize]
            ^ CRC16[0][chunk[3] as usize];
    }
    for &byte in chunks.remainder() {
        crc = (crc << 8) ^ CRC16[0][((crc >> 8) as u8 ^ byte) as usize];
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(key: &str, slot: u16) {
        assert_eq!(Slot::of_key(key.as_bytes()).number(), slot, "slot of {key:?}");
    }

    #[test]
    fn slots_are_those_of_redis_cluster() {
        // From `redis-cli cluster keyslot` of redis-server 7.0.15.
        check("", 0);
        check("123456789", 12739);
        check("foo", 12182);
        check("bar", 5061);
        check("hello", 866);
        check("a", 15495);
        check("somekey", 11058);
    }

    #[test]
    fn every_slot_has_a_tag() {
        assert!(Slot::all().all(|slot| Slot::of_key(slot.tag()) == slot));
        // As in Valkey.
        for (number, tag) in [(0, "06S"), (1, "Qi"), (2, "5L5"), (100, "0or"), (8192, "8YG"), (16383, "6ZJ")] {
            assert_eq!(Slot::new(number).map(Slot::tag), Some(tag.as_bytes()));
        }
    }

    #[test]
    fn a_hash_tag_decides_alone() {
        check("{foo}.x", 12182);
        check("x{foo}{bar}", 12182);
        assert_eq!(Slot::of_key(b"{}foo"), Slot::new(u64::from(crc16(b"{}foo") & 16383)).expect("a slot"));
        assert_eq!(Slot::of_key(b"foo{{bar}}zap"), Slot::of_key(b"{bar"));
    }

    #[test]
    fn crc_in_fours_equals_crc_byte_by_byte() {
        let bytes: Vec<u8> = (0..100u8).map(|i| i.wrapping_mul(37)).collect();
        for length in 0..bytes.len() {
            let mut crc = 0u16;
            for &byte in &bytes[..length] {
                crc = (crc << 8) ^ CRC16[0][((crc >> 8) as u8 ^ byte) as usize];
            }
            assert_eq!(crc16(&bytes[..length]), crc, "length {length}");
        }
    }

    #[test]
    fn a_slot_is_below_16384() {
        assert_eq!(Slot::new(16383).map(Slot::number), Some(16383));
        assert_eq!(Slot::new(16384), None);
    }
}
