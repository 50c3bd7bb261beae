//! What is sent to copies: pieces of the log, woven with the entries of slots that they lack, when [`Feeding`] says so.

use super::feeding::{Answer, Feeding};
use super::lost::Start;
use super::messages::{CopyAnswer, CopyRequest, Left, encode, write_record};
use super::pace::Pace;
use super::progress::Progress;
use crate::base::clock;
use crate::base::identity::{Incarnation, NodeId, Position};
use crate::base::slot::Slot;
use crate::base::slot_ranges::SlotRanges;
use crate::cluster::topology::{NodeState, Topology};
use crate::engine::export::{BACKLOG_BYTES_MAX, Broken, Exports};
use crate::engine::log::LogOffset;
use crate::engine::log::copied::CopyState;
use crate::transport::Sender;
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A piece is sent when it has this many bytes; one record may make it longer.
const PIECE_BYTES: usize = 256 * 1024;
/// Between digests of two slots, each a look at all of one: ten in a second compare 5461 slots in nine minutes.
const COMPARE_PAUSE: Duration = Duration::from_millis(100);
/// Slots that a copy may have as they are, but for their positions, are looked at for so long at once: all of each is read.
const COMPARE_LIMIT: Duration = Duration::from_millis(10);
/// What is kept for a copy that does not ask is given up after this time.
const PARKED_LIMIT: Duration = Duration::from_secs(2);
/// Who makes writers wait and does not ask for so long is sent nothing more until it does: longer than an answer may take.
pub(in crate::moves) const SILENT_LIMIT: Duration = Duration::from_secs(5);
/// No more entries are read while this much waits for a copy: effects alone, whose writers wait earlier, never do.
const ENTRIES_BYTES_MAX: usize = 2 * BACKLOG_BYTES_MAX;
/// Bytes of one message at most: a long value goes in several.
const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The copies of this node's slots, as it sends to them.
#[derive(Default)]
pub(crate) struct Feeds {
    feeding: Feeding,
    streams: HashMap<u64, Feed>,
    /// Of slots that came here with an epoch: what it began with.
    starts: HashMap<Slot, Start>,
    /// What is kept for copies that are expected to ask soon, and since when.
    parked: HashMap<u64, Instant>,
    /// Of what copies lack, to all of them together.
    pace: Pace,
}

/// One stream.
struct Feed {
    /// The slots of which the entries have not begun to be sent, with the digest of what the copy has of them.
    waiting: VecDeque<(Slot, Option<u64>)>,
    unsent: BytesMut,
    /// Sent last, in case the answer is lost.
    last: Bytes,
    /// The hand-overs for which it was said that nothing comes behind.
    finished: HashSet<(Slot, u64)>,
    /// When a digest was sent last.
    compared_at: Instant,
    /// When the copy asked last.
    asked_at: Instant,
    progress: Progress,
    /// The copy has it on its disk so far.
    kept: LogOffset,
}

/// What a question comes to.
pub(crate) enum Fed {
    /// To be sent.
    Answer(Vec<u8>),
    /// There is nothing yet: the same is to be asked again in a moment, in this form.
    Nothing(CopyRequest),
}

impl Feeds {
    /// The version that is known here.
    pub(crate) fn version(&self) -> u64 {
        self.feeding.version()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.streams.is_empty()
    }

    /// A slot begins an epoch here with what it had in this position: who has the same lacks nothing, and what happens from now
    /// on is kept for its copies, which ask in a moment. `former`: its primary before, where this one was elected.
    pub(crate) fn begin_epoch(
        &mut self,
        exports: &mut Exports,
        slot: Slot,
        (position, former): (Position, Option<NodeId>),
        topology: &Topology,
    ) {
        self.starts.insert(slot, Start { position, former });
        for copy in topology.slot(slot).copies.iter().filter(|copy| !topology.is_lost(copy)) {
            let is_up = topology.nodes.get(&copy.node).is_some_and(|node| node.state == NodeState::Active);
            if is_up && !self.streams.contains_key(&copy.number) {
                self.parked.entry(copy.number).or_insert_with(Instant::now);
                exports.park(slot, copy.number);
            }
        }
    }

    /// Ends what is kept for copies that do not ask: nothing is kept for ever, and nobody waits for them.
    pub(crate) fn give_up_silent(&mut self, exports: &mut Exports, now: Instant) {
        let is_late = |since: Instant, limit: Duration| now.saturating_duration_since(since) >= limit;
        let silent = self.streams.iter().filter(|(_, feed)| is_late(feed.asked_at, SILENT_LIMIT));
        let silent: Vec<u64> = silent.map(|(number, _)| *number).filter(|number| exports.is_full(*number)).collect();
        for number in silent {
            tracing::info!(number, "a copy that writers wait for does not ask, it begins again when it does");
            self.end(exports, number);
            self.feeding.end(number);
        }
        self.parked.retain(|number, since| {
            let waits = !is_late(*since, PARKED_LIMIT);
            if !waits {
                exports.end(*number);
            }
            waits
        });
    }

    /// Ends the streams of copies that are none any more, or of other slots than before.
    pub(crate) fn follow(
        &mut self,
        exports: &mut Exports,
        topology: &Topology,
        node: NodeId,
        incarnation: Option<Incarnation>,
    ) {
        let (over, shrunk) = self.feeding.follow(topology, node, incarnation);
        over.into_iter().for_each(|number| self.end(exports, number));
        exports.log().set_copied_groups(self.feeding.groups().to_vec());
        for (number, gone) in shrunk {
            if let Some(feed) = self.streams.get_mut(&number) {
                feed.waiting.retain(|(slot, _)| !gone.contains(*slot));
            }
            gone.slots().for_each(|slot| exports.end_slot(slot, number));
        }
        self.starts.retain(|slot, _| topology.slot(*slot).primary == Some(node));
    }

    fn end(&mut self, exports: &mut Exports, number: u64) {
        self.streams.remove(&number);
        exports.log().copied.ended(number);
        exports.end(number);
    }

    /// The answer to a copy.
    pub(crate) fn answer(&mut self, exports: &mut Exports, sender: &Sender, request: CopyRequest) -> Fed {
        let again = Fed::Answer(encode(&CopyAnswer::Again));
        let keep = exports.log().copied.are_disks_asked();
        let (number, attempt, version) = match request {
            CopyRequest::Begin { number, attempt, version, .. }
            | CopyRequest::Next { number, attempt, version, .. } => (number, attempt, version),
            CopyRequest::Fence { .. } => return again,
        };
        let answer = match &request {
            CopyRequest::Begin { slots, held, left, .. } if held.len() == slots.len() && left.len() == slots.len() => {
                self.feeding.begin((sender.node, sender.incarnation), number, attempt, slots)
            }
            CopyRequest::Next { received, .. } => self.feeding.next(sender.node, number, attempt, *received),
            _ => return again,
        };
        let is_first = match answer {
            Answer::NotYet => return Fed::Answer(encode(&CopyAnswer::NotYet)),
            Answer::Again => return again,
            Answer::Same => {
                let bytes = self.streams.get(&number).map_or(&[][..], |feed| &feed.last);
                return Fed::Answer(encode(&CopyAnswer::Piece { bytes, keep }));
            }
            Answer::Next { is_first } => is_first,
        };
        let (received, is_kept) = match request {
            CopyRequest::Next { received, is_kept, .. } => (received, is_kept),
            _ => (0, false),
        };
        let begun = match &request {
            CopyRequest::Begin { slots, held, left, .. } if is_first => {
                self.count_lost(exports, sender.node, slots, (held, left));
                self.begin(exports, number, slots, (held, left))
            }
            _ => Ok(()),
        };
        let (finals, is_coming) = (self.feeding.finals(number), self.feeding.is_coming(number));
        let piece = begun.and_then(|()| match self.streams.get_mut(&number) {
            Some(feed) => feed.read(number, exports, finals, is_coming, &mut self.pace).map(|()| {
                // Also what has just been read, where none of it was for this copy.
                let has = feed.progress.received(received);
                if is_kept {
                    feed.kept = has;
                }
                let state = CopyState { node: sender.node, has, kept: feed.kept, heard: Instant::now() };
                exports.log().copy_has(number, state);
                feed.piece()
            }),
            None => Err(Broken::Lost),
        });
        match piece {
            Ok(bytes) => {
                self.feeding.sent(number, bytes.len() as u64);
                if bytes.is_empty() {
                    // The question has arrived: what is asked again is what comes behind it.
                    return Fed::Nothing(CopyRequest::Next { number, attempt, received, is_kept, version });
                }
                Fed::Answer(encode(&CopyAnswer::Piece { bytes: &bytes, keep }))
            }
            Err(reason) => {
                tracing::info!(number, to = %sender.node, %reason, "a copy begins again");
                self.end(exports, number);
                self.feeding.end(number);
                again
            }
        }
    }

    /// A node says where its slots stand. If it was their primary until this one was elected, what nobody else had is told.
    fn count_lost(
        &mut self,
        exports: &Exports,
        node: NodeId,
        slots: &SlotRanges,
        (held, left): (&[Option<Position>], &[Option<Left>]),
    ) {
        let (mut lost, mut of_slots) = (0, 0);
        for (slot, (held, left)) in slots.slots().zip(held.iter().zip(left)) {
            let stands = held.or(left.map(|left| left.position));
            if let (Some(start), Some(stands)) = (self.starts.get_mut(&slot), stands)
                && let Some(more) = start.lost(node, stands)
            {
                (lost, of_slots) = (lost + more, of_slots + 1);
            }
        }
        if lost > 0 {
            exports.compared().lost.fetch_add(lost, Ordering::Relaxed);
            tracing::warn!(
                %node,
                lost,
                slots = of_slots,
                "writes of a node that was given up had not reached the copies that took its place, and are gone"
            );
        }
    }

    /// Begins a stream: slots that the copy has as they are follow at once, of the others the entries are sent.
    fn begin(
        &mut self,
        exports: &mut Exports,
        number: u64,
        slots: &SlotRanges,
        (held, left): (&[Option<Position>], &[Option<Left>]),
    ) -> Result<(), Broken> {
        self.streams.remove(&number);
        let held: BTreeMap<Slot, Position> =
            slots.slots().zip(held).filter_map(|(slot, held)| Some((slot, (*held)?))).collect();
        if self.parked.remove(&number).is_some() && exports.has(number) {
            let starts = &self.starts;
            exports.unpark(number, |slot| {
                held.contains_key(&slot) && held.get(&slot) == starts.get(&slot).map(|start| &start.position)
            })?;
        } else {
            exports.begin_following(number);
        }
        let mut waiting = VecDeque::new();
        for (slot, left) in slots.slots().zip(left) {
            if exports.has_slot(slot, number) {
                continue;
            }
            let start = self.starts.get(&slot).map(|start| start.position);
            let has_it = match held.get(&slot) {
                Some(held) => exports.begin_at(slot, number, *held, start)?,
                None => false,
            };
            if !has_it {
                waiting.push_back((slot, left.and_then(|left| left.digest)));
            }
        }
        tracing::debug!(number, slots = slots.len(), lacking = waiting.len(), "a copy begins to follow");
        let (unsent, last, finished) = (BytesMut::new(), Bytes::new(), HashSet::new());
        let (now, progress) = (Instant::now(), Progress::default());
        let (compared_at, asked_at) = (now, now);
        let kept = LogOffset(0);
        self.streams.insert(number, Feed { waiting, unsent, last, finished, compared_at, asked_at, progress, kept });
        Ok(())
    }
}

impl Feed {
    /// Adds what has happened, and then entries until there is a piece. Some entries are read each time: writers that are
    /// faster than the link must not keep the copy from its end. `is_coming`: it is not ready yet, or shall not stay a copy.
    fn read(
        &mut self,
        number: u64,
        exports: &mut Exports,
        finals: &[(Slot, u64)],
        is_coming: bool,
        pace: &mut Pace,
    ) -> Result<(), Broken> {
        self.asked_at = Instant::now();
        if !exports.has(number) {
            return Err(Broken::Lost);
        }
        exports.follow()?;
        let has_all = self.waiting.is_empty() && exports.unread(number).is_none();
        if has_all {
            self.progress.read(exports.read_to(), exports.waiting(number));
        }
        exports.set_bounded(number, is_coming || !has_all);
        for (slot, begun) in finals {
            // The slot stood still before this was known here, and the log has been read since.
            if !self.finished.contains(&(*slot, *begun)) && exports.finish(*slot, number, *begun) {
                self.finished.insert((*slot, *begun));
            }
        }
        if exports.waiting_bytes(number) == 0 && self.compared_at.elapsed() >= COMPARE_PAUSE {
            self.compared_at = Instant::now();
            exports.compare_next(number);
        }
        self.take(number, exports);
        let rate = exports.move_rate();
        while exports.waiting_bytes(number) < ENTRIES_BYTES_MAX && pace.may_send(rate, Instant::now()) {
            let Some(slot) = self.next_unread(number, exports)? else { break };
            let before = exports.waiting_bytes(number);
            exports.step(slot, number, clock::unix_us() / 1000)?;
            pace.sent(exports.waiting_bytes(number).saturating_sub(before));
            self.take(number, exports);
            if self.unsent.len() >= PIECE_BYTES {
                break;
            }
        }
        if exports.has(number) { Ok(()) } else { Err(Broken::Lost) }
    }

    /// The slot of which entries are to be sent now. Where the copy has the same keys, none are: it follows from here on.
    fn next_unread(&mut self, number: u64, exports: &mut Exports) -> Result<Option<Slot>, Broken> {
        let since = Instant::now();
        loop {
            if let Some(slot) = exports.unread(number) {
                return Ok(Some(slot));
            }
            let Some(&(slot, left)) = self.waiting.front() else { return Ok(None) };
            if since.elapsed() >= COMPARE_LIMIT {
                return Ok(None);
            }
            self.waiting.pop_front();
            match left {
                Some(digest) if exports.begin_alike(slot, number, digest)? => {
                    exports.compared().alike.fetch_add(1, Ordering::Relaxed);
                }
                _ => {
                    exports.compared().sent.fetch_add(1, Ordering::Relaxed);
                    exports.begin(slot, number);
                }
            }
        }
    }

    fn take(&mut self, number: u64, exports: &mut Exports) {
        let room = PIECE_BYTES.saturating_sub(self.unsent.len());
        for record in exports.take(number, room) {
            let before = self.unsent.len();
            write_record(&mut self.unsent, &record);
            self.progress.written(self.unsent.len() - before);
            exports.compared().bytes.fetch_add((self.unsent.len() - before) as u64, Ordering::Relaxed);
        }
    }

    fn piece(&mut self) -> Bytes {
        let length = self.unsent.len().min(MESSAGE_BYTES_MAX);
        self.last = self.unsent.split_to(length).freeze();
        self.last.clone()
    }
}
