//! The source of moves: sends slots in pieces, whenever the target asks for the next one.

use super::Shared;
use super::messages::{SlotAnswer, SlotRequest, encode, write_record};
use crate::base::clock;
use crate::base::identity::NodeId;
use crate::base::slot::Slot;
use crate::base::slot_ranges::SlotRanges;
use crate::cluster::duties::{self, SlotMove, Stage};
use crate::cluster::topology::Topology;
use crate::engine::Engine;
use crate::engine::effect_log::ExportQueue;
use crate::transport::{Blob, Response, Sender};
use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;

/// A piece is sent when it has this many bytes; one step of a slot may make it longer.
const PIECE_BYTES: usize = 256 * 1024;
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
    /// The slot that is being read, and the hash position to go on from.
    reading: Option<(Slot, u32)>,
    /// The queues of those that have.
    queues: Vec<Arc<ExportQueue>>,
    slots: SlotRanges,
    /// The stream behind what was sent.
    stream: VecDeque<u8>,
    sent: u64,
    /// Sent last, in case the answer is lost.
    last: Vec<u8>,
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
    pub(super) fn follow(&mut self, topology: &Topology, node: NodeId, engine: &Engine) {
        self.version = topology.version;
        let from_here = |one: &SlotMove| one.from == node && one.stage != Stage::Releasing;
        self.known = duties::moves(topology).into_iter().filter(from_here).map(|one| (one.begun, one)).collect();
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
            queues: Vec::new(),
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
        let is_copied = export.is_copied() && export.stream.is_empty();
        SlotAnswer::Piece { bytes: Blob(bytes), is_copied, is_stopped: is_copied && frozen }
    }
}

impl Export {
    /// Adds to the stream what has happened, and then entries until there is a piece.
    fn read(&mut self, engine: &Engine) {
        self.drain();
        while self.stream.len() < PIECE_BYTES {
            let Some((slot, position)) = self.reading else {
                let Some(slot) = self.waiting.pop_front() else { return };
                self.queues.push(engine.begin_export(slot));
                self.reading = Some((slot, 0));
                continue;
            };
            let next = engine.export_step(slot, position, clock::unix_us() / 1000);
            self.reading = next.map(|position| (slot, position));
            if let Some(queue) = self.queues.last() {
                append(&mut self.stream, queue);
            }
        }
    }

    fn drain(&mut self) {
        for queue in &self.queues {
            append(&mut self.stream, queue);
        }
    }

    fn is_copied(&self) -> bool {
        self.waiting.is_empty() && self.reading.is_none()
    }

    fn end(&mut self, engine: &Engine) {
        for slot in self.slots.slots() {
            engine.end_export(slot);
        }
    }
}

/// Takes what waits in a queue into the stream.
fn append(stream: &mut VecDeque<u8>, queue: &ExportQueue) {
    let mut bytes = Vec::new();
    for record in queue.take() {
        write_record(&mut bytes, &record);
    }
    stream.extend(bytes);
}
