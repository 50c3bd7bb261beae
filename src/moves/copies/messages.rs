//! What nodes say to each other about copies, and the bytes of a piece.
//!
//! A piece is part of a stream of records: slot (2 bytes), kind (1), epoch (4), sequence number (8), effects (4), length (4), all
//! little endian, then the effects. A record may be cut by the end of a piece, so that no value is too long for a frame.

use crate::base::identity::{Epoch, Incarnation, Position};
use crate::base::slot::Slot;
use crate::base::slot_ranges::SlotRanges;
use crate::engine::export::{Record, RecordKind};
use bytes::{BufMut, BytesMut};
use serde::{Deserialize, Serialize, Serializer};

const HEADER_BYTES: usize = 23;

/// What one node asks of another about copies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CopyRequest {
    /// The copy of this number asks its primary for what it lacks. `held`: the position of each of the slots, where it has a
    /// complete state of it. `left`: of the others what a former life has left here, if it has. A greater attempt begins again,
    /// whatever was sent before.
    Begin {
        number: u64,
        attempt: u64,
        slots: SlotRanges,
        held: Vec<Option<Position>>,
        left: Vec<Option<Left>>,
        version: u64,
    },
    /// What comes after this many bytes; it has those, and on its disk where `is_kept` says so.
    Next { number: u64, attempt: u64, received: u64, is_kept: bool, version: u64 },
    /// The raft leader asks what this life of a member has of slots that are being elected in this epoch. It accepts nothing of an
    /// earlier epoch from now on.
    Fence { slots: SlotRanges, epoch: Epoch, life: Incarnation, version: u64 },
}

/// What a former life has left of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Where it stood when that life ended, in an epoch in which others may have gone on since.
    pub position: Position,
    /// `None`: there is too much.
    pub digest: Option<u64>,
}

impl CopyRequest {
    /// The version of the topology that the asker goes by.
    pub fn version(&self) -> u64 {
        match self {
            CopyRequest::Begin { version, .. }
            | CopyRequest::Next { version, .. }
            | CopyRequest::Fence { version, .. } => *version,
        }
    }

    pub fn decode(bytes: &[u8]) -> Option<CopyRequest> {
        postcard::from_bytes(bytes).ok()
    }
}

/// What is answered. The bytes of a piece are borrowed at both ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CopyAnswer<'a> {
    Piece {
        #[serde(serialize_with = "whole")]
        bytes: &'a [u8],
        /// Somebody waits until it is on the copy's disk: it is to ask for more when it is.
        keep: bool,
    },
    /// It does not know such a copy, or not yet.
    NotYet,
    /// What was sent does not fit together: begin again.
    Again,
    /// Where each of the slots stands here; `None`: there is nothing complete.
    Positions(Vec<Option<Position>>),
}

/// Bytes are encoded as one piece, not byte by byte.
fn whole<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    postcard::to_stdvec(message).expect("plain values are encoded")
}

/// Appends a record to a stream.
pub(super) fn write_record(stream: &mut BytesMut, record: &Record) {
    let mut effect = &record.effect[..];
    let number;
    let (kind, count) = match record.kind {
        RecordKind::Piece => (0, 1),
        RecordKind::Run { count } => (1, count),
        RecordKind::Complete => (2, 0),
        RecordKind::Final { begun } => {
            number = begun.to_le_bytes();
            effect = &number;
            (3, 0)
        }
        RecordKind::Digest { digest } => {
            number = digest.to_le_bytes();
            effect = &number;
            (4, 0)
        }
    };
    stream.reserve(HEADER_BYTES + effect.len());
    stream.put_u16_le(record.slot.number());
    stream.put_u8(kind);
    stream.put_u32_le(record.position.epoch.0);
    stream.put_u64_le(record.position.seq);
    stream.put_u32_le(count);
    stream.put_u32_le(effect.len() as u32);
    stream.put_slice(effect);
}

/// One record of a stream, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReceivedRecord<'a> {
    pub(super) slot: Slot,
    pub(super) kind: RecordKind,
    pub(super) position: Position,
    pub(super) effects: &'a [u8],
}

/// The bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Reads the record at the front of `bytes` and how long it is; `None`: it is not complete.
pub(super) fn read_record(bytes: &[u8]) -> Result<Option<(ReceivedRecord<'_>, usize)>, Malformed> {
    let Some((header, rest)) = bytes.split_at_checked(HEADER_BYTES) else { return Ok(None) };
    let number = |range: std::ops::Range<usize>| {
        header[range].iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte))
    };
    let slot = Slot::new(number(0..2)).ok_or(Malformed)?;
    let position = Position { epoch: Epoch(number(3..7) as u32), seq: number(7..15) };
    let length = number(19..23) as usize;
    let Some(mut effects) = rest.get(..length) else { return Ok(None) };
    let kind = match header[2] {
        0 => RecordKind::Piece,
        1 => RecordKind::Run { count: number(15..19) as u32 },
        2 => RecordKind::Complete,
        kind @ (3 | 4) => {
            let number = u64::from_le_bytes(effects.try_into().map_err(|_| Malformed)?);
            effects = &[];
            if kind == 3 { RecordKind::Final { begun: number } } else { RecordKind::Digest { digest: number } }
        }
        _ => return Err(Malformed),
    };
    Ok(Some((ReceivedRecord { slot, kind, position, effects }, HEADER_BYTES + length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_read_back_wherever_the_stream_is_cut() {
        let record = |number: u64, kind, effect: &[u8]| Record {
            slot: Slot::new(number).expect("a slot"),
            position: Position { epoch: Epoch(number as u32 + 7), seq: u64::MAX - number },
            kind,
            effect: effect.into(),
        };
        let records = [
            record(16383, RecordKind::Complete, b""),
            record(0, RecordKind::Piece, b"effect"),
            record(258, RecordKind::Run { count: 70_000 }, &[7; 300]),
            record(9, RecordKind::Final { begun: u64::MAX - 7 }, b""),
            record(10, RecordKind::Digest { digest: 1 << 63 }, b""),
        ];
        let mut stream = BytesMut::new();
        records.iter().for_each(|record| write_record(&mut stream, record));
        for cut in 0..=stream.len() {
            let (mut at, mut seen) = (0, 0);
            while let Some((read, length)) = read_record(&stream[at..cut.max(at)]).expect("well formed") {
                let Record { slot, position, kind, effect } = &records[seen];
                let expected = ReceivedRecord { slot: *slot, kind: *kind, position: *position, effects: effect };
                assert_eq!(read, expected);
                (at, seen) = (at + length, seen + 1);
            }
            assert!(at <= cut && (cut < stream.len() || seen == records.len()));
        }
        let mut unknown = vec![0; HEADER_BYTES];
        unknown[2] = 9;
        assert_eq!(read_record(&unknown), Err(Malformed));
        assert_eq!(read_record(&[0xff; 40]), Err(Malformed));
    }
}
