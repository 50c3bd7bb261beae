//! Writing the log to its segments. No thread, no clock: whoever drives it says when to write and when to sync.
//!
//! ```text
//!   chunks ──copy──> blocks ──write──> written ──sync──> kept       what is not kept yet stays in memory
//!                         └── failed: a new segment begins where the log was kept, and all of that is written again
//! ```
//! A file whose sync has failed is never written or synced again: the kernel may have dropped what it could not write, and
//! a later sync that succeeds would say nothing about it.
//!
//! An append makes the file longer, and a sync has to write that down as well. Where syncs are small and many, zeros are
//! written ahead of them ([`Journal::prepare`]): a sync of what is written over these takes two thirds of the time.
//!
//! What stays in memory is the blocks, not the chunks: writers get the memory of these back while it is still in the
//! processor's cache, and a second of the log is written where nobody waits for it.

use super::disk::{Disk, File};
use super::manifest::Names;
use super::segment::{self, BLOCK_HEADER_BYTES, HEADER_BYTES, Header, Owner};
use crate::base::hlc::Stamp;
use crate::engine::log::{Chunk, LogOffset};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

/// A segment that has reached this length is followed by another.
const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// Chunks are put into one block up to this length: it is copied, summed and written while the processor has it in its cache.
const BLOCK_BYTES: usize = 256 * 1024;

/// Zeros are written ahead in pieces of this length,
const AHEAD_BYTES: u64 = 1024 * 1024;
/// when there are fewer left than this: a sync that takes as much along has better things to wait for.
const AHEAD_MIN_BYTES: u64 = 256 * 1024;
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// Where a log on disk goes on: behind so many bytes of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// 0: before the first.
    pub segment: u32,
    pub bytes: u64,
}

/// The log of a node, as its segments are written. See the module.
#[derive(Debug)]
pub struct Journal {
    disk: Arc<dyn Disk>,
    names: Names,
    owner: Owner,
    segment: Option<Open>,
    /// What counts of the last segment, whether it is open or not: what is kept, or believed to be.
    place: Place,
    /// What is not known to be kept: the end of the log.
    pending: VecDeque<Pending>,
    /// How many of them are written.
    written: usize,
    kept: LogOffset,
    /// The stamp of the last group that was taken.
    stamp: Stamp,
    /// Writing or syncing has failed.
    has_failed: bool,
    /// Bytes of the segments that were finished since the snapshot that the log begins with.
    finished_bytes: u64,
}

/// A block that is not known to be kept.
#[derive(Debug)]
struct Pending {
    /// Room for its header, and its groups.
    bytes: Vec<u8>,
    end: LogOffset,
}

#[derive(Debug)]
struct Open {
    file: Box<dyn File>,
    end: u64,
    /// How much of it has been synced.
    synced: u64,
    /// How many bytes the last sync has taken along.
    taken_along: u64,
    /// Up to here it has been written, if only with zeros.
    ahead: u64,
}

impl Journal {
    /// A log that goes on behind this place, with what the log in memory has from `from` on. Nothing is written yet.
    pub fn new(disk: Arc<dyn Disk>, names: Names, owner: Owner, place: Place, from: LogOffset) -> Journal {
        Journal {
            disk,
            names,
            owner,
            segment: None,
            place,
            pending: VecDeque::new(),
            written: 0,
            kept: from,
            stamp: Stamp::default(),
            has_failed: false,
            finished_bytes: 0,
        }
    }

    /// How far the log is kept.
    pub fn kept(&self) -> LogOffset {
        self.kept
    }

    /// How far it is taken from the log in memory.
    pub fn taken(&self) -> LogOffset {
        self.pending.back().map_or(self.kept, |block| block.end)
    }

    /// Bytes in memory that are not known to be kept.
    pub fn pending_bytes(&self) -> u64 {
        self.taken().0 - self.kept.0
    }

    /// Bytes of the segments that belong to the log.
    pub fn bytes(&self) -> u64 {
        self.finished_bytes + self.segment.as_ref().map_or(0, |segment| segment.end)
    }

    /// The number of the last segment.
    pub fn segment_number(&self) -> u32 {
        self.place.segment
    }

    /// Takes over what chunks hold, which follow on what it has. Nothing is written.
    pub fn take(&mut self, chunks: &[Arc<Chunk>]) {
        let mut bytes: usize = chunks.iter().map(|chunk| chunk.bytes().len()).sum();
        for chunk in chunks {
            debug_assert_eq!(chunk.start(), self.taken(), "the log has no gap");
            let groups = chunk.bytes();
            let last = if self.pending.len() > self.written { self.pending.back_mut() } else { None };
            match last.filter(|block| block.bytes.len() + groups.len() <= BLOCK_BYTES) {
                Some(block) => block.add(chunk),
                None => {
                    let room = bytes.min(BLOCK_BYTES - BLOCK_HEADER_BYTES).max(groups.len());
                    let mut block =
                        Pending { bytes: Vec::with_capacity(BLOCK_HEADER_BYTES + room), end: chunk.start() };
                    block.bytes.resize(BLOCK_HEADER_BYTES, 0);
                    block.add(chunk);
                    self.pending.push_back(block);
                }
            }
            self.stamp = chunk.stamp();
            bytes -= groups.len();
        }
    }

    /// Writes what was taken. After an error nothing more is written or synced, but by [`Journal::resume`].
    pub fn write(&mut self) -> io::Result<()> {
        self.attempt(Journal::write_blocks)
    }

    /// Makes what was written survive a crash, and lets go of it. Returns how far the log is kept.
    pub fn sync(&mut self) -> io::Result<LogOffset> {
        self.attempt(Journal::sync_segment)?;
        Ok(self.kept)
    }

    /// Ends the segment, with what was taken, and begins the next: returns its number.
    pub fn begin_segment(&mut self) -> io::Result<u32> {
        self.attempt(|journal| {
            journal.write_blocks()?;
            journal.sync_segment()?;
            journal.open_segment()
        })?;
        Ok(self.place.segment)
    }

    /// After a failure: goes on in a new segment, with everything that is not known to be kept, and syncs it.
    pub fn resume(&mut self) -> io::Result<LogOffset> {
        self.has_failed = false;
        self.attempt(|journal| {
            journal.segment = None;
            journal.written = 0;
            journal.write_blocks()?;
            journal.sync_segment()
        })?;
        Ok(self.kept)
    }

    /// Writes zeros where small syncs will write next, if there are few left: to be called when nobody waits.
    pub fn prepare(&mut self) {
        let Some(segment) = self.segment.as_mut().filter(|_| !self.has_failed) else { return };
        let is_useful = segment.taken_along < AHEAD_MIN_BYTES && segment.end < SEGMENT_BYTES;
        if !is_useful || segment.ahead >= segment.end + AHEAD_MIN_BYTES {
            return;
        }
        let from = segment.ahead.max(segment.end);
        let mut places = (from..from + AHEAD_BYTES).step_by(ZEROS.len());
        segment.ahead = match places.try_for_each(|place| segment.file.write_at(&ZEROS, place)) {
            Ok(()) => from + AHEAD_BYTES,
            // There may be no room for so much. The log goes on as if it had not been tried, and tries no more in this segment.
            Err(_) => u64::MAX,
        };
    }

    /// Lets go of what was written, as if it were kept: for who has asked for no more than that.
    pub fn believe(&mut self) {
        if let Some(segment) = &self.segment {
            self.place.bytes = segment.end;
        }
        if let Some(block) = self.written.checked_sub(1).and_then(|last| self.pending.get(last)) {
            self.kept = block.end;
        }
        self.pending.drain(..self.written);
        self.written = 0;
    }

    /// Bytes of the segments before the last that belong to the log.
    pub fn finished_bytes(&self) -> u64 {
        self.finished_bytes
    }

    /// Counts so many bytes of segments that were there before.
    pub fn count(&mut self, finished_bytes: u64) {
        self.finished_bytes += finished_bytes;
    }

    /// So many bytes of the segments before the last do not belong to the log any more.
    pub fn forget(&mut self, finished_bytes: u64) {
        self.finished_bytes = self.finished_bytes.saturating_sub(finished_bytes);
    }

    fn attempt(&mut self, act: impl FnOnce(&mut Journal) -> io::Result<()>) -> io::Result<()> {
        if self.has_failed {
            return Err(io::Error::other("an earlier write to the log has failed"));
        }
        let outcome = act(self);
        self.has_failed = outcome.is_err();
        outcome
    }

    fn write_blocks(&mut self) -> io::Result<()> {
        while self.written < self.pending.len() {
            match &self.segment {
                Some(segment) if segment.end >= SEGMENT_BYTES => {
                    self.sync_segment()?;
                    self.open_segment()?;
                }
                Some(_) => {}
                None => self.open_segment()?,
            }
            self.write_block()?;
        }
        Ok(())
    }

    fn write_block(&mut self) -> io::Result<()> {
        let (Some(segment), Some(block)) = (&mut self.segment, self.pending.get_mut(self.written)) else {
            return Ok(());
        };
        segment::seal(&mut block.bytes, self.place.segment, segment.end, segment.synced);
        segment.file.write_at(&block.bytes, segment.end)?;
        segment.end += block.bytes.len() as u64;
        self.written += 1;
        Ok(())
    }

    fn sync_segment(&mut self) -> io::Result<()> {
        if let Some(segment) = &mut self.segment
            && segment.synced < segment.end
        {
            segment.file.sync()?;
            segment.taken_along = segment.end - segment.synced;
            segment.synced = segment.end;
        }
        self.believe();
        Ok(())
    }

    /// The next segment is there, and survives a crash, before anything is written to it.
    fn open_segment(&mut self) -> io::Result<()> {
        let number = self.place.segment + 1;
        let header = Header { number, before: self.place.bytes, stamp: self.stamp, owner: self.owner };
        let mut file = self.disk.create(&self.names.segment(number))?;
        file.write_at(&header.encode(), 0)?;
        file.sync()?;
        self.disk.sync()?;
        let end = HEADER_BYTES as u64;
        if let Some(finished) = self.segment.replace(Open { file, end, synced: end, taken_along: 0, ahead: end }) {
            self.finished_bytes += finished.end;
        }
        self.place = Place { segment: number, bytes: end };
        Ok(())
    }
}

impl Pending {
    fn add(&mut self, chunk: &Chunk) {
        self.bytes.extend_from_slice(chunk.bytes());
        self.end = chunk.end();
    }
}
