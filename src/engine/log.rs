//! The log of the node: what has changed, in order, for whoever reads it.
//!
//! ```text
//!  readers' cursors          v           v                    v
//!  [ chunk ][ chunk ][ chunk ][ chunk ][ tail: groups are appended ...
//!           sealed, immutable, shared             under the lock
//! ```
//! A group is encoded by its thread and appended before the locks of its shards are released; the tail's lock is the last
//! that anybody takes, nobody waits or is woken under it. A full tail is sealed by who fills it, a shorter one by a reader
//! that wants what is there; a sealed chunk is never changed, so readers hold it without a lock. A chunk holds whole
//! groups.
//!
//! Without readers nothing is encoded. A reader that must have everything holds the chunks until it has taken them; when
//! it is behind by more than its limit the log is *full*, and writers wait before they execute until it has caught up to
//! the half. A reader that can begin again loses its place instead.

pub mod copied;
pub mod gate;
mod kept;

use super::Engine;
use super::group::{Draft, Group};
use crate::base::acknowledge::Acknowledge;
use crate::base::hlc::{HybridClock, Stamp};
use copied::{Copied, CopiedGroup, CopyState, QUORUM_PATIENCE};
use gate::{Gate, Gates, Needed, Shown};
use kept::Kept;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::Notify;

/// A tail of this length is sealed.
const CHUNK_BYTES: usize = 256 * 1024;
/// Buffers of sealed chunks that are kept for the next tail: a fresh one costs a page fault every 4 KB.
const SPARE_MAX: usize = 4;
/// A chunk that fills less of its buffer than one part in this many is copied, so that the buffer stays.
const COPIED_ONE_IN: usize = 4;
/// What is kept for readers that can lose their place.
const KEPT_BYTES: u64 = 64 * 1024 * 1024;

/// Somebody reads.
const READ: u8 = 1;
/// A reader that must have everything is behind by more than its limit.
const FULL: u8 = 2;
/// Replies wait until what they show is kept.
const GATED: u8 = 4;
/// Somebody listens to key events: they share the flags, so that a change looks at one byte for all who may follow it.
const LISTENED: u8 = 16;
/// Too much waits for a snapshot to take it.
const SAVED: u8 = 8;
/// Replies wait until copies have what they show.
const QUORATE: u8 = 64;
/// A snapshot runs: whoever writes where something large is has to ask whether it is read already.
const SNAPSHOT: u8 = 32;

/// How many bytes the log has had since the process started: a place in it, which means nothing to others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct LogOffset(pub u64);

/// A part of the log that does not change any more.
#[derive(Debug)]
pub struct Chunk {
    start: LogOffset,
    stamp: Stamp,
    bytes: Vec<u8>,
}

impl Chunk {
    /// Where it begins.
    pub fn start(&self) -> LogOffset {
        self.start
    }

    /// Where the next one begins.
    pub fn end(&self) -> LogOffset {
        LogOffset(self.start.0 + self.bytes.len() as u64)
    }

    /// The stamp of its last group.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Its groups, one behind the other.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its groups, each with its end.
    pub fn groups(&self) -> impl Iterator<Item = (Group<'_>, LogOffset)> {
        let mut rest = &self.bytes[..];
        std::iter::from_fn(move || {
            let group = Group::read(&mut rest)?;
            Some((group, LogOffset(self.end().0 - rest.len() as u64)))
        })
    }
}

/// What a reader does that cannot keep up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// Writers wait when it is behind by more than so many bytes: it must have everything.
    Wait(u64),
    /// It loses its place, and begins again.
    Lost,
}

/// The reader's place is not kept any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the reader of the log was too slow, and has lost its place")
    }
}

impl std::error::Error for Lost {}

/// See the module.
#[derive(Debug)]
pub struct Log {
    flags: AtomicU8,
    tail: Mutex<Tail>,
    /// How far it is kept, where replies wait for that.
    pub gates: Gates,
    /// How far the copies of the slots have it.
    pub copied: Copied,
    /// Told when there is room again, and counted before: whoever has counted before it looked misses no word.
    room: Notify,
    rooms: AtomicU64,
    /// Told when there is much to read.
    bells: Mutex<Vec<Arc<Notify>>>,
    kept: Kept,
}

#[derive(Debug)]
struct Tail {
    bytes: Vec<u8>,
    start: u64,
    /// Where the last group ends that is the node's own.
    own_end: LogOffset,
    clock: HybridClock,
    sealed: VecDeque<Arc<Chunk>>,
    spare: Vec<Vec<u8>>,
    cursors: Vec<Cursor>,
    last_reader: u64,
}

#[derive(Debug)]
struct Cursor {
    reader: u64,
    at: u64,
    behind: Behind,
}

/// What became of a group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Appended {
    /// The end of the group.
    pub(super) end: LogOffset,
    /// Readers may want to know: a chunk is full.
    pub(super) is_sealed: bool,
}

impl Default for Log {
    fn default() -> Log {
        Log {
            flags: AtomicU8::new(0),
            tail: Mutex::new(Tail {
                bytes: Vec::new(),
                start: 0,
                own_end: LogOffset(0),
                clock: HybridClock::restore(0),
                sealed: VecDeque::new(),
                spare: Vec::new(),
                cursors: Vec::new(),
                last_reader: 0,
            }),
            gates: Gates::default(),
            copied: Copied::default(),
            room: Notify::new(),
            rooms: AtomicU64::new(0),
            bells: Mutex::default(),
            kept: Kept::default(),
        }
    }
}

impl Log {
    /// Whether anybody may follow a change: reads it, or listens to its event.
    #[inline]
    pub(super) fn is_followed(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & (READ | LISTENED) != 0
    }

    /// Whether anybody listens to key events.
    #[inline]
    pub(super) fn is_listened_to(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & LISTENED != 0
    }

    pub(super) fn set_listened_to(&self, is_listened_to: bool) {
        match is_listened_to {
            true => self.flags.fetch_or(LISTENED, Ordering::Relaxed),
            false => self.flags.fetch_and(!LISTENED, Ordering::Relaxed),
        };
    }

    /// Whether anybody reads: if not, effects need not even be built. To be asked under the lock of a shard.
    #[inline]
    pub fn is_read(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & READ != 0
    }

    /// Whether writers have to wait before they execute: for readers, or for a snapshot.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & (FULL | SAVED) != 0
    }

    /// Whether writers may have to wait, for any reason that concerns the whole node: if not, nothing more need be asked.
    #[inline]
    pub(super) fn may_be_full(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & (FULL | SAVED | SNAPSHOT) != 0
    }

    /// Says whether a snapshot runs.
    pub(super) fn set_snapshot(&self, runs: bool) {
        if runs {
            self.flags.fetch_or(SNAPSHOT, Ordering::Relaxed);
        } else {
            self.flags.fetch_and(!SNAPSHOT, Ordering::Relaxed);
        }
    }

    /// Makes writers wait for a snapshot as they wait for readers, or lets them go on: they are to be told then.
    pub(super) fn set_saved_full(&self, is_full: bool) {
        if is_full {
            self.flags.fetch_or(SAVED, Ordering::Relaxed);
        } else {
            self.flags.fetch_and(!SAVED, Ordering::Relaxed);
        }
    }

    /// Whether replies wait until what they show is kept, on a disk or by copies.
    #[inline]
    pub fn is_gated(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & (GATED | QUORATE) != 0
    }

    /// Whether replies that need this may leave.
    pub fn look(&self, needed: Needed) -> Gate {
        let is_kept = needed.on_disk || self.flags.load(Ordering::Relaxed) & GATED != 0;
        match if is_kept { self.gates.look(needed.shown.gate) } else { Gate::Open } {
            Gate::Open => self.copied.look(needed),
            Gate::Closed if needed.on_disk => {
                // It may be synced once in a second otherwise.
                self.want_kept(needed.shown.gate);
                Gate::Closed
            }
            other => other,
        }
    }

    /// What replies need from now on that tell of this, on a connection that asks for so much itself.
    pub fn needed(&self, shown: Shown, asks: Acknowledge) -> Needed {
        let asks = asks.max(self.copied.asked_of_all());
        let until = (asks >= Acknowledge::Quorum).then(|| Instant::now() + QUORUM_PATIENCE);
        Needed { shown, copies_until: until, on_disk: asks == Acknowledge::QuorumFsync }
    }

    /// See [`Copied`]: what a copy has.
    pub fn copy_has(&self, number: u64, state: CopyState) {
        if self.copied.heard(number, state) {
            self.gates.tell();
        }
    }

    /// See [`Copied`]: the slots of this node, by their copies.
    pub fn set_copied_groups(&self, groups: Vec<CopiedGroup>) {
        if self.copied.set_groups(groups) {
            self.gates.tell();
        }
    }

    /// How often there has been room again: to be asked before it is asked whether there is.
    pub fn rooms(&self) -> u64 {
        self.rooms.load(Ordering::SeqCst)
    }

    /// Over when there has been room again more often than so.
    pub async fn until_room(&self, rooms: u64) {
        let mut room = std::pin::pin!(self.room.notified());
        room.as_mut().enable();
        if self.rooms() == rooms {
            room.await;
        }
    }

    /// Tells writers that wait to look again. No lock may be held.
    pub fn tell_room(&self) {
        self.rooms.fetch_add(1, Ordering::SeqCst);
        self.room.notify_waiters();
    }

    /// A bell that rings when readers are asked to read; it is theirs until this is dropped.
    pub fn listen(&self) -> Arc<Notify> {
        let bell = Arc::new(Notify::new());
        let mut bells = self.bells.lock();
        bells.retain(|other| Arc::strong_count(other) > 1);
        bells.push(Arc::clone(&bell));
        bell
    }

    /// Asks the readers to read: a chunk is full, or replies wait. No lock may be held.
    pub fn ask(&self) {
        self.bells.lock().iter().for_each(|bell| bell.notify_one());
    }

    /// Goes on with stamps above this one: it stands in a log that was replayed.
    pub fn go_on_after(&self, stamp: Stamp) {
        let mut tail = self.tail.lock();
        if tail.clock.last() < stamp {
            tail.clock = HybridClock::restore(stamp.ms() + 1);
        }
    }

    /// The end of the log, where a new chunk begins.
    pub(super) fn cut(&self) -> LogOffset {
        let mut tail = self.tail.lock();
        tail.seal();
        tail.end()
    }

    /// The end of what has happened here: what is behind it has happened to copies, elsewhere before.
    pub fn own_end(&self) -> LogOffset {
        self.tail.lock().own_end
    }

    /// The end of the log.
    pub fn end(&self) -> LogOffset {
        self.tail.lock().end()
    }

    /// Bytes that are kept for readers.
    pub fn kept_bytes(&self) -> u64 {
        let tail = self.tail.lock();
        tail.end().0 - tail.kept_from()
    }

    /// Appends a group; the locks of its shards are held. `is_own`: it has happened here, not elsewhere before.
    pub(super) fn append(&self, draft: &mut Draft, now_ms: u64, is_own: bool) -> Appended {
        let mut group = draft.seal();
        let mut tail = self.tail.lock();
        let tail = &mut *tail;
        let stamp = tail.clock.stamp(now_ms).or_else(|needed| {
            // A restarted node begins above what its log on disk has ([`Log::go_on_after`]), so no mark is needed there.
            tail.clock.marked(needed.mark_ms);
            tail.clock.stamp(now_ms)
        });
        tail.bytes.extend_from_slice(group.stamped(stamp.unwrap_or_default()));
        let is_sealed = tail.bytes.len() >= CHUNK_BYTES;
        if is_sealed {
            tail.seal();
        }
        let end = tail.end();
        if is_own {
            tail.own_end = end;
        }
        if tail.cursors.iter().any(|cursor| cursor.is_beyond(end.0)) {
            self.flags.fetch_or(FULL, Ordering::Relaxed);
        }
        Appended { end, is_sealed }
    }

    /// Takes what comes after the reader's cursor, up to the end or to a chunk that brings it to this many bytes.
    fn take(&self, reader: u64, bytes_max: usize) -> Result<Vec<Arc<Chunk>>, Lost> {
        let mut taken = Vec::new();
        let has_room;
        {
            let mut tail = self.tail.lock();
            let tail = &mut *tail;
            let Some(cursor) = tail.cursors.iter().position(|cursor| cursor.reader == reader) else { return Err(Lost) };
            let at = tail.cursors[cursor].at;
            if at < tail.kept_from() {
                return Err(Lost);
            }
            tail.seal();
            let from = tail.sealed.partition_point(|chunk| chunk.start.0 < at);
            let mut bytes = 0;
            for chunk in tail.sealed.range(from..) {
                bytes += chunk.bytes.len();
                taken.push(Arc::clone(chunk));
                if bytes >= bytes_max {
                    break;
                }
            }
            tail.cursors[cursor].at = taken.last().map_or(at, |chunk| chunk.end().0);
            tail.trim();
            has_room = self.make_room(tail);
        }
        if has_room {
            self.tell_room();
        }
        Ok(taken)
    }

    /// There is room again when every reader has caught up to the half of its limit. Whether there is now, and was not.
    fn make_room(&self, tail: &Tail) -> bool {
        let end = tail.end().0;
        let was_full = self.flags.load(Ordering::Relaxed) & FULL != 0;
        let has_room = was_full && !tail.cursors.iter().any(|cursor| cursor.is_beyond_half(end));
        if has_room {
            self.flags.fetch_and(!FULL, Ordering::Relaxed);
        }
        has_room
    }

    fn register(&self, behind: Behind) -> (u64, LogOffset) {
        let mut tail = self.tail.lock();
        tail.seal();
        tail.last_reader += 1;
        let (reader, at) = (tail.last_reader, tail.end().0);
        tail.cursors.push(Cursor { reader, at, behind });
        self.flags.fetch_or(READ, Ordering::Relaxed);
        (reader, LogOffset(at))
    }

    fn forget(&self, reader: u64) {
        let has_room;
        {
            let mut tail = self.tail.lock();
            tail.cursors.retain(|cursor| cursor.reader != reader);
            if tail.cursors.is_empty() {
                self.flags.fetch_and(!READ, Ordering::Relaxed);
            }
            tail.trim();
            has_room = self.make_room(&tail);
        }
        if has_room {
            self.tell_room();
        }
    }
}

impl Cursor {
    fn is_beyond(&self, end: u64) -> bool {
        matches!(self.behind, Behind::Wait(limit) if end - self.at > limit)
    }

    fn is_beyond_half(&self, end: u64) -> bool {
        matches!(self.behind, Behind::Wait(limit) if end - self.at > limit / 2)
    }
}

impl Tail {
    fn end(&self) -> LogOffset {
        LogOffset(self.start + self.bytes.len() as u64)
    }

    /// Where what is kept begins.
    fn kept_from(&self) -> u64 {
        self.sealed.front().map_or(self.start, |chunk| chunk.start.0)
    }

    /// Makes a chunk of what has been appended.
    fn seal(&mut self) {
        if self.bytes.is_empty() {
            return;
        }
        let start = LogOffset(self.start);
        self.start = self.end().0;
        let bytes = if self.bytes.len() < self.bytes.capacity() / COPIED_ONE_IN {
            let bytes = self.bytes.as_slice().to_vec();
            self.bytes.clear();
            bytes
        } else {
            let fresh = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 4));
            std::mem::replace(&mut self.bytes, fresh)
        };
        self.sealed.push_back(Arc::new(Chunk { start, stamp: self.clock.last(), bytes }));
        self.trim();
    }

    /// Lets go of what no reader has a claim to.
    fn trim(&mut self) {
        let end = self.end().0;
        let claim = |cursor: &Cursor| match cursor.behind {
            Behind::Wait(_) => cursor.at,
            Behind::Lost => cursor.at.max(end.saturating_sub(KEPT_BYTES)),
        };
        let from = self.cursors.iter().map(claim).min().unwrap_or(end);
        while self.sealed.front().is_some_and(|chunk| chunk.end().0 <= from)
            && let Some(chunk) = self.sealed.pop_front()
        {
            if let Some(buffer) = chunk_buffer(chunk) {
                self.spare(buffer);
            }
        }
    }

    /// Keeps a buffer for the next tail, if it has too few. Gives back one that it has no use for.
    fn spare(&mut self, buffer: Vec<u8>) -> Option<Vec<u8>> {
        if self.spare.len() >= SPARE_MAX {
            return Some(buffer);
        }
        self.spare.push(buffer);
        None
    }
}

/// The buffer of a chunk that nobody else holds, if it is one for a tail.
fn chunk_buffer(chunk: Arc<Chunk>) -> Option<Vec<u8>> {
    let mut bytes = Arc::try_unwrap(chunk).ok()?.bytes;
    bytes.clear();
    (CHUNK_BYTES..=2 * CHUNK_BYTES).contains(&bytes.capacity()).then_some(bytes)
}

/// Reads the log from where it stood when the reader came.
#[derive(Debug)]
pub struct Reader {
    engine: Arc<Engine>,
    number: u64,
    begin: LogOffset,
}

impl Engine {
    /// A reader of everything that happens from here on.
    pub fn read_log(self: &Arc<Engine>, behind: Behind) -> Reader {
        let (number, begin) = self.log.register(behind);
        // A writer that has not seen the flag holds the lock of a shard: afterwards everybody publishes.
        for shard in &self.shards {
            drop(shard.lock());
        }
        Reader { engine: Arc::clone(self), number, begin }
    }
}

impl Reader {
    /// Where it began.
    pub fn begin(&self) -> LogOffset {
        self.begin
    }

    /// What has been appended since the last time, in order: up to the end, or until it is this many bytes or more.
    /// Everything about a change that was seen in a shard before is in it.
    pub fn take(&mut self, bytes_max: usize) -> Result<Vec<Arc<Chunk>>, Lost> {
        self.engine.log.take(self.number, bytes_max)
    }

    /// Gives back chunks that it has no use for any more: writers go on in their memory, which the processor still has in
    /// its cache.
    pub fn give_back(&mut self, chunks: Vec<Arc<Chunk>>) {
        let buffers: Vec<Vec<u8>> = chunks.into_iter().filter_map(chunk_buffer).collect();
        if buffers.is_empty() {
            return;
        }
        let mut tail = self.engine.log.tail.lock();
        let superfluous: Vec<_> = buffers.into_iter().filter_map(|buffer| tail.spare(buffer)).collect();
        drop(tail);
        drop(superfluous);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.engine.log.forget(self.number);
    }
}

#[cfg(test)]
mod tests;
