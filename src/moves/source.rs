//! The source of moves: sends slots in pieces, whenever the target asks for the next one.

use super::Shared;
use super::messages::{SlotAnswer, SlotRequest, encode, write_record};
use crate::base::clock;
use crate::base::identity::NodeId;
use crate::base::slot::Slot;
use crate::base::slot_ranges::SlotRanges;
use crate::cluster::duties::{SlotMove, Stage};
use crate::engine::Engine;
use crate::engine::effect_log::{BACKLOG_BYTES_MAX, Backlog, ExportQueue};
use crate::transport::{Blob, Response, Sender};
use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;

/// A piece is sent when it has this many bytes; one record may make it longer. Nothing is taken from the queues beyond it:
/// what is not sent yet waits there, where it makes writers wait.
const PIECE_BYTES: usize = 256 * 1024;
/// No more entries are read while this much waits in the queues: effects alone, whose writers wait earlier, never do.
const ENTRIES_BYTES_MAX: usize = 2 * BACKLOG_BYTES_MAX;
/// Bytes of one message at most: a long value goes in several.
const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The slots that this node is sending.
#[derive(Default)]
pub(super) struct Source {
    exports: HashMap<u64, Export>,
    /// The moves from here that the topology knows, and their stages, by number.
    known: HashMap<u64, SlotMove>,
    version: u64,
}

/// One move, seen from its source.
struct Export {
    target: NodeId,
    /// The target's count of its beginnings.
    attempt: u64,
    /// The slots that have not begun.
    waiting: VecDeque<Slot>,
    reading: Option<Reading>,
    /// The queues of those that have; the one to be taken from first comes first.
    queues: VecDeque<Arc<ExportQueue>>,
    /// What waits in them.
    backlog: Arc<Backlog>,
    slots: SlotRanges,
    /// The stream behind what was sent.
    stream: VecDeque<u8>,
    sent: u64,
    /// Sent last, in case the answer is lost.
    last: Vec<u8>,
}

/// The slot that is being read, and the hash position to go on from.
struct Reading {
    slot: Slot,
    position: u32,
    queue: Arc<ExportQueue>,
}

/// Answers a target.
pub(super) fn answer(shared: &Shared, sender: &Sender, Blob(bytes): &Blob) -> Response {
    let Ok(request) = postcard::from_bytes::<SlotRequest>(bytes) else {
        return Response::Failed("a malformed message about slots".into());
    };
    let version = match &request {
        SlotRequest::Begin { version, .. } | SlotRequest::Next { version, .. } | SlotRequest::Look { version } => {
            *version
        }
    };
    let mut source = shared.source.lock();
    if version > source.version {
        (shared.nudge)(version);
    }
    let answer = match request {
        SlotRequest::Begin { begun, attempt, slots, .. } => {
            source.begin(&shared.engine, sender.node, (begun, attempt), &slots)
        }
        SlotRequest::Next { begun, attempt, received, .. } => {
            source.next(&shared.engine, sender.node, (begun, attempt), received)
        }
        SlotRequest::Look { .. } => SlotAnswer::Seen,
    };
    Response::Slot(encode(&answer))
}

impl Source {
    /// Ends the exports of moves that are over. The states of the slots have been set before.
    /// `moves`: all that are under way in this version of the topology.
    pub(super) fn follow(&mut self, version: u64, moves: &[SlotMove], node: NodeId, engine: &Engine) {
        self.version = version;
        let from_here = |one: &&SlotMove| one.from == node && one.stage != Stage::Releasing;
        self.known = moves.iter().filter(from_here).map(|one| (one.begun, one.clone())).collect();
        self.exports.retain(|begun, export| {
            let goes_on = self.known.contains_key(begun);
            if !goes_on {
                export.end(engine);
            }
            goes_on
        });
    }

    fn begin(
        &mut self,
        engine: &Engine,
        target: NodeId,
        (begun, attempt): (u64, u64),
        slots: &SlotRanges,
    ) -> SlotAnswer {
        if self.known.get(&begun).is_none_or(|known| known.to != target || known.slots != *slots) {
            return SlotAnswer::NotYet;
        }
        if self.exports.get(&begun).is_some_and(|export| attempt <= export.attempt) {
            return self.next(engine, target, (begun, attempt), 0);
        }
        let export = Export {
            target,
            attempt,
            waiting: slots.slots().collect(),
            reading: None,
            queues: VecDeque::new(),
            backlog: Arc::default(),
            slots: slots.clone(),
            stream: VecDeque::new(),
            sent: 0,
            last: Vec::new(),
        };
        if let Some(mut before) = self.exports.insert(begun, export) {
            before.end(engine);
        }
        self.next(engine, target, (begun, attempt), 0)
    }

    fn next(&mut self, engine: &Engine, target: NodeId, (begun, attempt): (u64, u64), received: u64) -> SlotAnswer {
        let of_this = |export: &&mut Export| (export.target, export.attempt) == (target, attempt);
        let Some(export) = self.exports.get_mut(&begun).filter(of_this) else {
            return SlotAnswer::Again;
        };
        let frozen = self.known.get(&begun).is_some_and(|known| known.stage == Stage::HandingOff);
        if received + export.last.len() as u64 == export.sent && !export.last.is_empty() {
            // The answer was lost on the way.
            return SlotAnswer::Piece { bytes: Blob(export.last.clone()), is_copied: false, is_stopped: false };
        }
        if received != export.sent {
            return SlotAnswer::Again;
        }
        export.read(engine);
        let length = export.stream.len().min(MESSAGE_BYTES_MAX);
        let bytes: Vec<u8> = export.stream.drain(..length).collect();
        export.sent += length as u64;
        export.last.clone_from(&bytes);
        let (is_copied, is_stopped) = (export.is_copied(), frozen && export.is_sent());
        SlotAnswer::Piece { bytes: Blob(bytes), is_copied, is_stopped }
    }
}

impl Export {
    /// Adds to the stream what has happened, and then entries until there is a piece. Some entries are read each time:
    /// writers that are faster than the link must not keep the copy from its end.
    fn read(&mut self, engine: &Engine) {
        self.take_from_all();
        while self.backlog.bytes() < ENTRIES_BYTES_MAX && !self.is_read() {
            self.read_entries(engine);
            if self.stream.len() >= PIECE_BYTES {
                return;
            }
        }
    }

    /// Publishes the next entries, and takes them into the stream where there is room.
    fn read_entries(&mut self, engine: &Engine) {
        let Some(Reading { slot, position, queue }) = self.reading.take().or_else(|| self.begin_slot(engine)) else {
            return;
        };
        let next = engine.export_step(slot, position, clock::unix_us() / 1000);
        self.take(&queue);
        self.reading = next.map(|position| Reading { slot, position, queue });
    }

    fn begin_slot(&mut self, engine: &Engine) -> Option<Reading> {
        let slot = self.waiting.pop_front()?;
        let queue = engine.begin_export(slot, &self.backlog);
        self.queues.push_back(Arc::clone(&queue));
        Some(Reading { slot, position: 0, queue })
    }

    /// Takes from every queue in turn, while there is room. Every time another one is the first.
    fn take_from_all(&mut self) {
        for _ in 0..self.queues.len() {
            if self.stream.len() >= PIECE_BYTES {
                return;
            }
            if let Some(queue) = self.queues.pop_front() {
                self.take(&queue);
                self.queues.push_back(queue);
            }
        }
    }

    fn take(&mut self, queue: &ExportQueue) {
        let room = PIECE_BYTES.saturating_sub(self.stream.len());
        let mut bytes = Vec::new();
        for record in queue.take(room) {
            write_record(&mut bytes, &record);
        }
        self.stream.extend(bytes);
    }

    /// Whether all entries have been published.
    fn is_read(&self) -> bool {
        self.waiting.is_empty() && self.reading.is_none()
    }

    /// Whether the slots may stand still for what is left to be sent: it has a bound then.
    fn is_copied(&self) -> bool {
        self.is_read() && self.stream.is_empty() && self.backlog.bytes() < ENTRIES_BYTES_MAX
    }

    /// Whether everything was sent that has happened.
    fn is_sent(&self) -> bool {
        self.is_read() && self.stream.is_empty() && self.queues.iter().all(|queue| queue.is_empty())
    }

    fn end(&mut self, engine: &Engine) {
        for slot in self.slots.slots() {
            engine.end_export(slot);
        }
    }
}
