//! Groups: what one command, or one EXEC, has changed, as it stands in the log. A group is whole or absent for whoever
//! reads it.
//!
//! ```text
//!  group | length varint | stamp u64 | run ... |                      length: of what follows
//!  run   | slot u16 | cause u8 | database varint | epoch varint | first sequence number varint
//!        | effects varint | bytes varint | effect ... |
//! ```
//! A run ends where the slot, the database or the cause changes, or the numbers have a gap. Slot 0xffff is the node: its
//! effects concern several slots, are numbered in each of them, and their runs have no numbers of their own. Fixed
//! integers are little endian, varints LEB128, effects in the form of [`super::effect`].

use super::effect::{Cause, take, take_integer};
use crate::base::hlc::Stamp;
use crate::base::identity::{Epoch, Position};
use crate::base::slot::Slot;
use smallvec::SmallVec;

/// Stands for the node where a slot would stand.
const NODE: u16 = 0xffff;
/// A buffer that one large command has made longer than this is not kept.
const KEPT_BYTES: usize = 64 * 1024;

/// Bytes of a stamp.
const STAMP_BYTES: usize = size_of::<u64>();
/// The longest varint.
const INTEGER_BYTES: usize = 10;
/// Room for what stands before the effects of a group's first run: length, stamp and the run's header.
const FRONT_BYTES: usize = 64;

/// A group that is being written: effects encoded one behind the other, and where their runs begin.
///
/// Nearly all groups are one run. Their effects are encoded behind room for what stands before them, so such a group is
/// whole when that is filled in, backwards, and it is copied once.
#[derive(Debug)]
pub(super) struct Draft {
    /// The room, and the effects.
    bytes: Vec<u8>,
    runs: SmallVec<[DraftRun; 2]>,
    /// A group of several runs, put together.
    composed: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct DraftRun {
    slot: Option<Slot>,
    cause: Cause,
    database: u32,
    first: Position,
    count: u64,
    /// Where its effects begin.
    effects_at: usize,
}

/// A whole group, but for its stamp.
#[derive(Debug)]
pub(super) struct Sealed<'a> {
    group: &'a mut [u8],
    stamp_at: usize,
}

impl Sealed<'_> {
    /// The group with this stamp.
    #[inline]
    pub(super) fn stamped(&mut self, stamp: Stamp) -> &[u8] {
        self.group[self.stamp_at..][..STAMP_BYTES].copy_from_slice(&stamp.bits().to_le_bytes());
        self.group
    }
}

impl Default for Draft {
    fn default() -> Draft {
        Draft { bytes: vec![0; FRONT_BYTES], runs: SmallVec::new(), composed: Vec::new() }
    }
}

impl Draft {
    /// Adds an effect; `slot` is `None` where it is the node's, and then the position means nothing.
    #[inline]
    pub(super) fn add(
        &mut self,
        slot: Option<Slot>,
        position: Position,
        cause: Cause,
        database: u32,
        encode: impl FnOnce(&mut Vec<u8>),
    ) {
        let is_next = |run: &DraftRun| {
            let next = Position { epoch: run.first.epoch, seq: run.first.seq + run.count };
            (run.slot, run.cause, run.database) == (slot, cause, database) && (slot.is_none() || next == position)
        };
        match self.runs.last_mut() {
            Some(run) if is_next(run) => run.count += 1,
            _ => self.runs.push(DraftRun {
                slot,
                cause,
                database,
                first: if slot.is_some() { position } else { Position::default() },
                count: 1,
                effects_at: self.bytes.len(),
            }),
        }
        encode(&mut self.bytes);
    }

    /// The slots that it has changed, some of them perhaps several times.
    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> {
        self.runs.iter().filter_map(|run| run.slot)
    }

    /// Whether nothing was added.
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Whether something in it concerns more than the slots that it names.
    pub(super) fn has_node_effect(&self) -> bool {
        self.runs.iter().any(|run| run.slot.is_none())
    }

    /// Makes a group of what was added: what is left to do is to copy it.
    pub(super) fn seal(&mut self) -> Sealed<'_> {
        let (bytes, header_at) = match &self.runs[..] {
            [run] => {
                let bytes = &mut self.bytes[..];
                let length = bytes.len() - FRONT_BYTES;
                let header_at = match bytes.first_chunk_mut() {
                    Some(front) => run.put_header_before(front, length),
                    None => 0,
                };
                (bytes, header_at)
            }
            _ => {
                self.compose();
                (&mut self.composed[..], INTEGER_BYTES + STAMP_BYTES)
            }
        };
        let stamp_at = header_at - STAMP_BYTES;
        let length = (bytes.len() - stamp_at) as u64;
        let start = put_integer_before(bytes, stamp_at, length);
        Sealed { group: &mut bytes[start..], stamp_at: stamp_at - start }
    }

    /// Puts the runs one behind the other, behind room for length and stamp.
    fn compose(&mut self) {
        let ends = self.runs.iter().skip(1).map(|run| run.effects_at).chain([self.bytes.len()]);
        self.composed.clear();
        self.composed.resize(INTEGER_BYTES + STAMP_BYTES, 0);
        for (run, end) in self.runs.iter().zip(ends) {
            let mut header = [0; FRONT_BYTES];
            let header_at = run.put_header_before(&mut header, end - run.effects_at);
            self.composed.extend_from_slice(&header[header_at..]);
            self.composed.extend_from_slice(&self.bytes[run.effects_at..end]);
        }
    }

    /// Makes it ready for the next command.
    pub(super) fn clear(&mut self) {
        self.runs.clear();
        self.bytes.truncate(FRONT_BYTES);
        self.composed.clear();
        for buffer in [&mut self.bytes, &mut self.composed] {
            if buffer.capacity() > KEPT_BYTES {
                buffer.shrink_to(KEPT_BYTES);
            }
        }
    }
}

impl DraftRun {
    /// Writes its header so that it ends where `front` does, for effects of this length. Gives where it begins.
    fn put_header_before(&self, front: &mut [u8; FRONT_BYTES], length: usize) -> usize {
        let mut at = FRONT_BYTES;
        for value in [length as u64, self.count, self.first.seq, self.first.epoch.0.into(), self.database.into()] {
            at = put_integer_before(front, at, value);
        }
        front[at - 1] = self.cause.tag();
        front[at - 3..at - 1].copy_from_slice(&self.slot.map_or(NODE, Slot::number).to_le_bytes());
        at - 3
    }
}

/// Writes LEB128 so that it ends in front of `end`. Gives where it begins.
#[inline]
fn put_integer_before(bytes: &mut [u8], end: usize, value: u64) -> usize {
    if value < 0x80 {
        bytes[end - 1] = value as u8;
        return end - 1;
    }
    let start = end - (u64::BITS - value.leading_zeros()).div_ceil(7) as usize;
    for (index, byte) in bytes[start..end].iter_mut().enumerate() {
        *byte = (value >> (7 * index)) as u8 | 0x80;
    }
    bytes[end - 1] &= 0x7f;
    start
}

/// A group that is read, borrowed from a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group<'a> {
    /// When it happened.
    pub stamp: Stamp,
    runs: &'a [u8],
}

/// Effects of one slot, or of the node, that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run<'a> {
    /// `None`: of the node.
    pub slot: Option<Slot>,
    pub cause: Cause,
    /// Database number.
    pub database: u32,
    /// The position of the first effect.
    pub first: Position,
    /// How many effects there are.
    pub count: u64,
    /// The effects, to be read by [`super::effect::Effect::decode`].
    pub effects: &'a [u8],
}

impl Run<'_> {
    /// The position of the last effect.
    pub fn last(&self) -> Position {
        Position { epoch: self.first.epoch, seq: self.first.seq + self.count.saturating_sub(1) }
    }
}

impl<'a> Group<'a> {
    /// Reads one group off the front of `bytes`; `None` where it is cut off, or they are none.
    pub fn read(bytes: &mut &'a [u8]) -> Option<Group<'a>> {
        let mut rest = *bytes;
        let length = usize::try_from(take_integer(&mut rest)?).ok()?;
        let mut group = take(&mut rest, length)?;
        let stamp = take(&mut group, size_of::<u64>())?.try_into().ok()?;
        *bytes = rest;
        Some(Group { stamp: Stamp::from_bits(u64::from_le_bytes(stamp)), runs: group })
    }

    /// Its runs; `None` in place of what is malformed, and then nothing more.
    pub fn runs(self) -> impl Iterator<Item = Option<Run<'a>>> {
        let mut rest = self.runs;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let run = read_run(&mut rest);
            if run.is_none() {
                rest = &[];
            }
            Some(run)
        })
    }
}

fn read_run<'a>(bytes: &mut &'a [u8]) -> Option<Run<'a>> {
    let number = u16::from_le_bytes(take(bytes, 2)?.try_into().ok()?);
    let slot = if number == NODE { None } else { Some(Slot::new(u64::from(number))?) };
    let cause = Cause::from_tag(take(bytes, 1)?[0])?;
    let database = u32::try_from(take_integer(bytes)?).ok()?;
    let epoch = Epoch(u32::try_from(take_integer(bytes)?).ok()?);
    let first = Position { epoch, seq: take_integer(bytes)? };
    let count = take_integer(bytes)?;
    let length = usize::try_from(take_integer(bytes)?).ok()?;
    Some(Run { slot, cause, database, first, count, effects: take(bytes, length)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seq: u64) -> Position {
        Position { epoch: Epoch(7), seq }
    }

    fn slot(number: u64) -> Option<Slot> {
        Slot::new(number)
    }

    /// Slot, sequence number, database, bytes.
    type Added<'a> = (Option<Slot>, u64, u32, &'a [u8]);
    /// Slot, first sequence number, database, count, bytes.
    type Seen<'a> = (Option<Slot>, u64, u32, u64, &'a [u8]);

    /// Writes effects and reads them back in runs.
    fn check(effects: &[Added<'_>], runs: &[Seen<'_>]) {
        let mut draft = Draft::default();
        for (slot, seq, database, bytes) in effects {
            draft.add(*slot, at(*seq), Cause::Client, *database, |out| out.extend_from_slice(bytes));
        }
        let mut sealed = draft.seal();
        let out = [sealed.stamped(Stamp::at_ms(5)).to_vec(), sealed.stamped(Stamp::at_ms(6)).to_vec()].concat();
        let mut rest = &out[..];
        for stamp in [5, 6] {
            let group = Group::read(&mut rest).expect("a group");
            assert_eq!(group.stamp, Stamp::at_ms(stamp));
            let read: Vec<_> = group.runs().map(|run| run.expect("a run")).collect();
            let shown: Vec<_> =
                read.iter().map(|run| (run.slot, run.first.seq, run.database, run.count, run.effects)).collect();
            assert_eq!(shown, runs);
            assert!(read.iter().all(|run| run.slot.is_none() || run.first.epoch == Epoch(7)));
        }
        assert!(rest.is_empty());
        // Cut anywhere, it is no group.
        for cut in 0..out.len() / 2 {
            let mut rest = &out[..cut];
            assert_eq!(Group::read(&mut rest), None);
            assert_eq!(rest.len(), cut, "nothing is taken");
        }
    }

    #[test]
    fn runs_end_where_the_slot_or_the_database_changes_or_numbers_have_a_gap() {
        check(&[(slot(3), 1, 0, b"a")], &[(slot(3), 1, 0, 1, b"a")]);
        check(&[(slot(3), 1, 0, b"a"), (slot(3), 2, 0, b"bc")], &[(slot(3), 1, 0, 2, b"abc")]);
        check(
            &[(slot(3), 1, 0, b"a"), (slot(4), 2, 0, b"b"), (slot(3), 2, 0, b"c")],
            &[(slot(3), 1, 0, 1, b"a"), (slot(4), 2, 0, 1, b"b"), (slot(3), 2, 0, 1, b"c")],
        );
        check(
            &[(slot(3), 1, 0, b"a"), (slot(3), 2, 9, b"b"), (slot(3), 4, 9, b"")],
            &[(slot(3), 1, 0, 1, b"a"), (slot(3), 2, 9, 1, b"b"), (slot(3), 4, 9, 1, b"")],
        );
        check(&[(None, 8, 0, b"a"), (None, 3, 0, b"b")], &[(None, 0, 0, 2, b"ab")]);
        check(&[], &[]);
    }

    /// Sequence numbers, lengths and databases of all sizes; the longest header fits the room before the effects.
    #[test]
    fn headers_of_every_length_read_back() {
        let long = vec![b'x'; 20_000];
        for shift in 0..64 {
            for seq in [1 << shift, (1 << shift) - 1] {
                for bytes in [&long[..0], &long[..127], &long[..128], &long] {
                    check(&[(slot(16_383), seq, u32::MAX, bytes)], &[(slot(16_383), seq, u32::MAX, 1, bytes)]);
                }
            }
        }
        let mut front = [0; FRONT_BYTES];
        let run = DraftRun {
            slot: None,
            cause: Cause::Client,
            database: u32::MAX,
            first: Position { epoch: Epoch(u32::MAX), seq: u64::MAX },
            count: u64::MAX,
            effects_at: 0,
        };
        assert!(run.put_header_before(&mut front, usize::MAX) >= INTEGER_BYTES + STAMP_BYTES);
    }

    #[test]
    fn runs_that_are_cut_or_of_an_unknown_kind_are_malformed() {
        let mut draft = Draft::default();
        draft.add(slot(300), at(70_000), Cause::Expire, 12, |out| out.extend_from_slice(b"effect"));
        let out = draft.seal().stamped(Stamp::at_ms(5)).to_vec();
        let runs = Group::read(&mut &out[..]).expect("a group").runs;
        for cut in 1..runs.len() {
            let group = Group { stamp: Stamp::at_ms(5), runs: &runs[..cut] };
            assert_eq!(group.runs().collect::<Vec<_>>(), [None], "cut at {cut}");
        }
        let mut unknown = runs.to_vec();
        unknown[2] = 200;
        assert_eq!(Group { stamp: Stamp::at_ms(5), runs: &unknown }.runs().collect::<Vec<_>>(), [None]);
    }
}
