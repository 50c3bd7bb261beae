//! What nodes say to each other about slots on the way, and the bytes of a piece.
//!
//! A piece is part of a stream of records: slot (2 bytes), epoch (4), sequence number (8), length of the effect (4), all
//! little endian, then the effect. A record may be cut by the end of a piece, so that no value is too long for a frame.

use crate::base::identity::{Epoch, Position};
use crate::base::slot::Slot;
use crate::base::slot_ranges::SlotRanges;
use crate::engine::export::Record;
use crate::transport::Blob;
use bytes::{BufMut, BytesMut};
use serde::{Deserialize, Serialize, Serializer};

const HEADER_BYTES: usize = 18;

/// What the target of a move asks its source for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum SlotRequest {
    /// The first piece of these slots. A greater attempt begins again, whatever was sent before; the same one, asked
    /// twice, is the same piece, so that a question that comes late does not begin a stream anew under the target.
    Begin { begun: u64, attempt: u64, slots: SlotRanges, version: u64 },
    /// The next piece of this attempt, after this many bytes.
    Next { begun: u64, attempt: u64, received: u64, version: u64 },
    /// There is a newer version of the topology.
    Look { version: u64 },
}

/// What the source answers. The bytes of a piece are borrowed at both ends: they may be long, and are copied into the
/// message once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum SlotAnswer<'a> {
    Piece {
        #[serde(serialize_with = "whole")]
        bytes: &'a [u8],
        /// All entries have been read; little follows, mostly effects.
        is_copied: bool,
        /// The slots are frozen for this move, and this is the end of the stream.
        is_stopped: bool,
    },
    /// It does not know this move, or not yet.
    NotYet,
    /// What was sent does not fit together: begin again.
    Again,
    Seen,
}

/// Bytes are encoded as one piece, not byte by byte.
fn whole<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

pub(super) fn encode<T: Serialize>(message: &T) -> Blob {
    Blob(postcard::to_stdvec(message).expect("plain values are encoded"))
}

/// Appends a record to a stream.
pub(super) fn write_record(stream: &mut BytesMut, record: &Record) {
    stream.reserve(HEADER_BYTES + record.effect.len());
    stream.put_u16_le(record.slot.number());
    stream.put_u32_le(record.position.epoch.0);
    stream.put_u64_le(record.position.seq);
    stream.put_u32_le(record.effect.len() as u32);
    stream.put_slice(&record.effect);
}

/// One record of a stream, borrowed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ReceivedRecord<'a> {
    pub(super) slot: Slot,
    pub(super) position: Position,
    pub(super) effect: &'a [u8],
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
    let position = Position { epoch: Epoch(number(2..6) as u32), seq: number(6..14) };
    let length = number(14..18) as usize;
    let Some(effect) = rest.get(..length) else { return Ok(None) };
    Ok(Some((ReceivedRecord { slot, position, effect }, HEADER_BYTES + length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_read_back_wherever_the_stream_is_cut() {
        let record = |number: u64, effect: &[u8]| Record {
            slot: Slot::new(number).expect("a slot"),
            position: Position { epoch: Epoch(number as u32 + 7), seq: u64::MAX - number },
            kind: crate::engine::export::RecordKind::Piece,
            effect: effect.into(),
        };
        let records = [record(16383, b""), record(0, b"effect"), record(258, &[7; 300])];
        let mut stream = BytesMut::new();
        records.iter().for_each(|record| write_record(&mut stream, record));
        for cut in 0..stream.len() {
            let (mut at, mut seen) = (0, 0);
            while let Some((read, length)) = read_record(&stream[at..cut.max(at)]).expect("well formed") {
                let expected = &records[seen];
                assert_eq!(
                    (read.slot, read.position, read.effect),
                    (expected.slot, expected.position, &*expected.effect)
                );
                (at, seen) = (at + length, seen + 1);
            }
            assert!(at <= cut);
        }
        assert_eq!(read_record(&[0xff; 40]), Err(Malformed));
    }

    /// Nodes of an older build send and understand the same bytes.
    #[test]
    fn a_piece_is_its_length_its_bytes_and_two_marks() {
        let answer = SlotAnswer::Piece { bytes: &[7; 200], is_copied: true, is_stopped: false };
        let encoded = encode(&answer).0;
        let expected = [&[0, 200, 1][..], &[7; 200], &[1, 0]].concat();
        assert_eq!(encoded, expected);
        assert_eq!(postcard::from_bytes::<SlotAnswer<'_>>(&encoded), Ok(answer));
    }
}
