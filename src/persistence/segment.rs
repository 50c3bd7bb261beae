//! Segments: files that hold the log, one behind the other. The bytes, and how an end is told from damage.
//!
//! ```text
//!  segment | header | block ... | whatever stood there before
//!  header  | "STARLOG\n" | format u32 | crc32c u32 | number u32 | 0 u32 | before u64 | stamp u64
//!          | cluster u128 | node u128 | 0 ...                                        in all 4096 bytes
//!  block   | magic u32 | crc32c u32 | segment u32 | 0 u32 | place u64 | kept u64 | length u64 | group ... |
//! ```
//! All little endian. `before`: how many bytes of the segment before belong to the log: what stands behind them there was
//! written again here, or never known to be written. `place`: where the block stands; `kept`: where the segment ended that
//! was known to survive a crash when the block was written. A checksum covers what stands behind it.
//!
//! A file may be longer than what was written to it: zeros were written ahead. A block counts only with this segment's
//! number, at its place; the first that does not is the end. Whether that end is *torn* (a crash took what nobody had been
//! promised) or *damaged* (something is missing that had been kept) is told by what comes behind it: a good block, or the
//! next segment's header, that knew of more being kept.

use crate::base::hlc::Stamp;
use crc_fast::{CrcAlgorithm, checksum};

/// The format that this build writes, and the only one so far.
pub const FORMAT: u32 = 1;
/// Bytes of a segment's header: its first block begins there.
pub const HEADER_BYTES: usize = 4096;
/// Bytes of a block in front of its groups.
pub const BLOCK_HEADER_BYTES: usize = 40;

const SEGMENT_MAGIC: [u8; 8] = *b"STARLOG\n";
const BLOCK_MAGIC: u32 = u32::from_le_bytes(*b"BLK1");
/// How many times a segment may be read to find out how it ends.
const READINGS_MAX: usize = 8;
/// Bytes of a header that say something.
const HEADER_USED_BYTES: usize = 72;

/// Whose log it is; zeros for a server without a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    pub cluster: u128,
    pub node: u128,
}

/// What stands at the head of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub number: u32,
    /// Bytes of the segment before that belong to the log.
    pub before: u64,
    /// When it was begun.
    pub stamp: Stamp,
    pub owner: Owner,
}

/// Why a file is no segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSegment {
    /// Too short, or it begins with something else.
    Foreign,
    /// It was written by a build that knows a later format.
    Newer(u32),
    Damaged,
}

impl std::fmt::Display for NoSegment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NoSegment::Foreign => f.write_str("it is no segment of a log"),
            NoSegment::Newer(format) => write!(f, "its format {format} is newer than this build's {FORMAT}"),
            NoSegment::Damaged => f.write_str("its header is damaged"),
        }
    }
}

impl std::error::Error for NoSegment {}

impl Header {
    /// Its bytes: [`HEADER_BYTES`] of them.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(&SEGMENT_MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.before.to_le_bytes());
        bytes.extend_from_slice(&self.stamp.bits().to_le_bytes());
        bytes.extend_from_slice(&self.owner.cluster.to_le_bytes());
        bytes.extend_from_slice(&self.owner.node.to_le_bytes());
        let checksum = crc32c(&bytes[16..]);
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        bytes.resize(HEADER_BYTES, 0);
        bytes
    }

    /// Reads what [`Header::encode`] has written.
    pub fn decode(bytes: &[u8]) -> Result<Header, NoSegment> {
        let bytes = bytes.get(..HEADER_USED_BYTES).ok_or(NoSegment::Foreign)?;
        if !bytes.starts_with(&SEGMENT_MAGIC) {
            return Err(NoSegment::Foreign);
        }
        let format = u32_at(bytes, 8);
        if format > FORMAT {
            return Err(NoSegment::Newer(format));
        }
        if format == 0 || u32_at(bytes, 12) != crc32c(&bytes[16..]) {
            return Err(NoSegment::Damaged);
        }
        Ok(Header {
            number: u32_at(bytes, 16),
            before: u64_at(bytes, 24),
            stamp: Stamp::from_bits(u64_at(bytes, 32)),
            owner: Owner { cluster: u128_at(bytes, 40), node: u128_at(bytes, 56) },
        })
    }
}

/// A block, as it stands in its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block<'a> {
    /// How much of the segment was known to be kept when it was written.
    pub kept: u64,
    /// Whole groups, to be read by [`crate::engine::Group::read`].
    pub groups: &'a [u8],
}

/// Makes a block of what stands in `buffer` behind the first [`BLOCK_HEADER_BYTES`], which are left for this.
pub fn seal(buffer: &mut [u8], segment: u32, place: u64, kept: u64) {
    let length = (buffer.len() - BLOCK_HEADER_BYTES) as u64;
    buffer[..4].copy_from_slice(&BLOCK_MAGIC.to_le_bytes());
    buffer[8..12].copy_from_slice(&segment.to_le_bytes());
    buffer[12..16].fill(0);
    buffer[16..24].copy_from_slice(&place.to_le_bytes());
    buffer[24..32].copy_from_slice(&kept.to_le_bytes());
    buffer[32..40].copy_from_slice(&length.to_le_bytes());
    let checksum = crc32c(&buffer[8..]);
    buffer[4..8].copy_from_slice(&checksum.to_le_bytes());
}

/// How the log ends in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing stands behind it but what was written ahead.
    Clean,
    /// A crash has taken what stood behind it, or a part of that: so many bytes are left of it.
    Torn { bytes: u64 },
    /// What was kept behind it is not there any more.
    Damaged,
}

/// The blocks of a segment that is in memory.
#[derive(Clone, Copy, Debug)]
pub struct Blocks<'a> {
    bytes: &'a [u8],
    segment: u32,
    place: usize,
}

impl<'a> Blocks<'a> {
    /// `bytes`: the whole file.
    pub fn new(bytes: &'a [u8], segment: u32) -> Blocks<'a> {
        Blocks { bytes, segment, place: HEADER_BYTES }
    }

    /// Where the next block begins, or would.
    pub fn place(&self) -> u64 {
        self.place as u64
    }

    fn at(&self, place: usize) -> Option<Block<'a>> {
        let bytes = self.bytes.get(place..)?;
        let header = bytes.get(..BLOCK_HEADER_BYTES)?;
        let is_here =
            u32_at(header, 0) == BLOCK_MAGIC && u32_at(header, 8) == self.segment && u64_at(header, 16) == place as u64;
        let length = is_here.then(|| usize::try_from(u64_at(header, 32)).ok())??;
        let block = bytes.get(..BLOCK_HEADER_BYTES.checked_add(length)?)?;
        let groups = &block[BLOCK_HEADER_BYTES..];
        (u32_at(header, 4) == crc32c(&block[8..])).then_some(Block { kept: u64_at(header, 24), groups })
    }

    /// How it ends where [`Iterator::next`] has found no block, if it is the last segment.
    pub fn end(&self) -> End {
        let rest = self.bytes.get(self.place..).unwrap_or_default();
        // Who has written the file may have meant harm: to look at it may not take longer than to read it some times.
        let mut budget = READINGS_MAX.saturating_mul(rest.len());
        for at in memchr::memmem::find_iter(rest, &BLOCK_MAGIC.to_le_bytes()) {
            let claimed =
                rest.get(at + 32..).and_then(|length| length.first_chunk()).map_or(0, |l| u64::from_le_bytes(*l));
            budget = budget.saturating_sub(usize::try_from(claimed).unwrap_or(usize::MAX).min(rest.len() - at));
            let knows_more = self.at(self.place + at).is_some_and(|block| block.kept > self.place());
            if knows_more || budget == 0 {
                return End::Damaged;
            }
        }
        match rest.iter().rposition(|byte| *byte != 0) {
            None => End::Clean,
            Some(last) => End::Torn { bytes: last as u64 + 1 },
        }
    }
}

impl<'a> Iterator for Blocks<'a> {
    type Item = Block<'a>;

    fn next(&mut self) -> Option<Block<'a>> {
        let block = self.at(self.place)?;
        self.place += BLOCK_HEADER_BYTES + block.groups.len();
        Some(block)
    }
}

fn crc32c(bytes: &[u8]) -> u32 {
    checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// Fields of a header whose length was looked at.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn u128_at(bytes: &[u8], at: usize) -> u128 {
    bytes[at..].first_chunk().map_or(0, |bytes| u128::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header =
        Header { number: 7, before: 12_345, stamp: Stamp::at_ms(99), owner: Owner { cluster: 3, node: 1 << 100 } };

    fn block(groups: &[u8], place: usize, kept: usize) -> Vec<u8> {
        let mut bytes = vec![0; BLOCK_HEADER_BYTES];
        bytes.extend_from_slice(groups);
        seal(&mut bytes, 7, place as u64, kept as u64);
        bytes
    }

    /// A segment of these contents, each kept when the next but one was written; and where they begin.
    fn segment(contents: &[&[u8]]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut places) = (HEADER.encode(), Vec::new());
        for groups in contents {
            let kept = places.last().copied().unwrap_or(0);
            places.push(bytes.len());
            bytes.extend_from_slice(&block(groups, bytes.len(), kept));
        }
        (bytes, places)
    }

    fn read(bytes: &[u8]) -> (Vec<&[u8]>, End) {
        let mut blocks = Blocks::new(bytes, 7);
        let groups = blocks.by_ref().map(|block| block.groups).collect();
        (groups, blocks.end())
    }

    #[test]
    fn a_header_reads_back_and_says_what_is_wrong() {
        let bytes = HEADER.encode();
        assert_eq!(bytes.len(), HEADER_BYTES);
        assert_eq!(Header::decode(&bytes), Ok(HEADER));
        assert_eq!(Header::decode(&bytes[..HEADER_USED_BYTES - 1]), Err(NoSegment::Foreign));
        assert_eq!(Header::decode(&[b'R'; HEADER_BYTES]), Err(NoSegment::Foreign));
        let changed = |at: usize, to: u8| {
            let mut bytes = HEADER.encode();
            bytes[at] = to;
            Header::decode(&bytes)
        };
        assert_eq!(changed(8, 2), Err(NoSegment::Newer(2)));
        assert_eq!(changed(8, 0), Err(NoSegment::Damaged));
        for at in 16..HEADER_USED_BYTES {
            assert_eq!(changed(at, 0xaa), Err(NoSegment::Damaged), "{at}");
        }
    }

    #[test]
    fn blocks_read_back_to_the_end_of_what_was_written() {
        let (bytes, _) = segment(&[b"one", b"", b"three"]);
        let all: Vec<&[u8]> = vec![b"one", b"", b"three"];
        assert_eq!(read(&bytes), (all.clone(), End::Clean));
        // Zeros were written ahead.
        assert_eq!(read(&[&bytes[..], &[0; 1000]].concat()), (all, End::Clean));
    }

    #[test]
    fn what_is_cut_off_is_torn() {
        let (bytes, places) = segment(&[b"one", b"two"]);
        for cut in places[1] + 1..bytes.len() {
            let ahead = [&bytes[..cut], &[0; 64]].concat();
            for bytes in [&bytes[..cut], &ahead] {
                let (groups, end) = read(bytes);
                assert_eq!(groups, [b"one"], "cut at {cut}");
                assert!(matches!(end, End::Torn { bytes } if bytes <= (cut - places[1]) as u64), "{end:?} at {cut}");
            }
        }
    }

    #[test]
    fn what_was_kept_and_is_not_there_is_damage() {
        let (bytes, places) = segment(&[b"one", b"two", b"three", b"four"]);
        // The third was written when the first was kept, and the fourth when the second was.
        for (at, end) in [(places[0], End::Damaged), (places[1], End::Damaged)] {
            let mut bytes = bytes.clone();
            bytes[at + BLOCK_HEADER_BYTES] ^= 1;
            assert_eq!(read(&bytes).1, end, "at {at}");
        }
        // Nobody knew whether the third was: a crash may have taken it and left the fourth.
        let mut torn = bytes.clone();
        torn[places[2] + BLOCK_HEADER_BYTES] ^= 1;
        assert_eq!(read(&torn), (vec![&b"one"[..], b"two"], End::Torn { bytes: (bytes.len() - places[2]) as u64 }));
    }

    /// Blocks of another segment, or from another place, are none of this one.
    #[test]
    fn a_block_counts_only_in_its_segment_at_its_place() {
        let (mut bytes, places) = segment(&[b"one", b"two"]);
        let second = bytes[places[1]..].to_vec();
        bytes.extend_from_slice(&second);
        assert_eq!(read(&bytes).0, [b"one", b"two"]);
        assert_eq!(Blocks::new(&bytes, 8).next(), None);
    }

    /// A file of many heads, each of which claims all that stands behind it, is looked at for a bounded time.
    #[test]
    fn a_hostile_file_is_looked_at_for_a_bounded_time() {
        let mut bytes = HEADER.encode();
        bytes.extend_from_slice(b"x");
        for number in 0..50_000u64 {
            let place = bytes.len() as u64;
            bytes.extend_from_slice(&block(b"", place as usize, 0));
            let end = bytes.len();
            bytes[end - 8..].copy_from_slice(&((50_000 - number) * BLOCK_HEADER_BYTES as u64).to_le_bytes());
        }
        assert_eq!(read(&bytes), (vec![], End::Damaged));
    }
}
