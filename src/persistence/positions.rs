//! Where the histories of all slots stand, as a few bytes in a file: runs of slots that stand at the same place.
//!
//! ```text
//!  format u8 | slots, epoch, seq | slots, epoch, seq | ...      lengths of RDB; 16384 slots in all
//! ```

use crate::base::identity::{Epoch, Position};
use crate::base::slot::SLOT_COUNT;
use crate::rdb::{Damaged, Reader, length};

const FORMAT: u8 = 1;

/// The positions of all slots, in their order.
pub(super) fn encode(positions: &[Position]) -> Vec<u8> {
    let mut out = vec![FORMAT];
    for run in positions.chunk_by(|a, b| a == b) {
        length::write(&mut out, run.len() as u64);
        length::write(&mut out, u64::from(run[0].epoch.0));
        length::write(&mut out, run[0].seq);
    }
    out
}

/// The positions that were encoded.
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<Position>, Damaged> {
    let mut reader = Reader::new(bytes);
    if reader.byte()? != FORMAT {
        return Err(Damaged);
    }
    let mut positions = Vec::with_capacity(SLOT_COUNT);
    while positions.len() < SLOT_COUNT {
        let (count, epoch, seq) = (reader.length()?, reader.length()?, reader.length()?);
        let epoch = Epoch(u32::try_from(epoch).map_err(|_| Damaged)?);
        let rest = SLOT_COUNT - positions.len();
        let count = usize::try_from(count).ok().filter(|count| (1..=rest).contains(count)).ok_or(Damaged)?;
        positions.resize(positions.len() + count, Position { epoch, seq });
    }
    if reader.is_empty() { Ok(positions) } else { Err(Damaged) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_come_back() {
        let at = |epoch, seq| Position { epoch: Epoch(epoch), seq };
        let mut positions = vec![Position::default(); SLOT_COUNT];
        assert_eq!(encode(&positions).len(), 8);
        positions[7] = at(3, 1 << 40);
        positions[8..900].fill(at(u32::MAX, u64::MAX));
        positions[SLOT_COUNT - 1] = at(0, 1);
        assert_eq!(decode(&encode(&positions)), Ok(positions));
    }

    #[test]
    fn what_is_not_of_all_slots_is_refused() {
        let cases: [&[u8]; 6] = [
            b"",
            b"\x02\x80\0\0\x40\0\0\0",
            b"\x01\x05\0\0",
            b"\x01\0\0\0",
            b"\x01\x80\0\0\x40\x01\0\0",
            b"\x01\x80\0\0\x40\0\0\0\0",
        ];
        for case in cases {
            assert_eq!(decode(case), Err(Damaged), "{}", case.escape_ascii());
        }
    }
}
