//! The source of moves: sends slots in pieces, whenever the target asks for the next one and [`Going`] says so.

use super::Shared;
use super::going::{Answer, Going};
use super::messages::{SlotAnswer, SlotRequest, encode, write_record};
use crate::base::clock;
use crate::base::identity::{Incarnation, NodeId};
use crate::base::slot::Slot;
use crate::base::slot_ranges::SlotRanges;
use crate::cluster::duties::SlotMove;
use crate::cluster::topology::Topology;
use crate::engine::Engine;
use crate::engine::effect_log::{BACKLOG_BYTES_MAX, Backlog, ExportQueue};
use crate::transport::{Blob, Response, Sender};
use bytes::{Bytes, BytesMut};
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
    going: Going,
    exports: HashMap<u64, Export>,
}

/// The stream of one move.
struct Export {
    /// The slots that have not begun.
    waiting: VecDeque<Slot>,
    reading: Option<Reading>,
    /// The queues of those that have; the one to be taken from first comes first.
    queues: VecDeque<Arc<ExportQueue>>,
    /// What waits in them.
    backlog: Arc<Backlog>,
    slots: SlotRanges,
    /// The stream behind what was sent.
    stream: BytesMut,
    /// Sent last, in case the answer is lost.
    last: Bytes,
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
    if version > source.going.version() {
        (shared.nudge)(version);
    }
    Response::Slot(match request {
        SlotRequest::Begin { begun, attempt, slots, .. } => {
            let answer = source.going.begin(sender.node, begun, attempt, &slots);
            source.answer(&shared.engine, begun, answer)
        }
        SlotRequest::Next { begun, attempt, received, .. } => {
            let answer = source.going.next(sender.node, begun, attempt, received);
            source.answer(&shared.engine, begun, answer)
        }
        SlotRequest::Look { .. } => encode(&SlotAnswer::Seen),
    })
}

impl Source {
    /// Ends the exports of moves that are over. The states of the slots have been set before.
    /// `moves`: all that are under way in this version of the topology.
    pub(super) fn follow(
        &mut self,
        topology: &Topology,
        node: NodeId,
        incarnation: Option<Incarnation>,
        moves: &[SlotMove],
        engine: &Engine,
    ) {
        for begun in self.going.follow(topology, node, incarnation, moves) {
            if let Some(mut export) = self.exports.remove(&begun) {
                export.end(engine);
            }
        }
    }

    /// The answer, encoded.
    fn answer(&mut self, engine: &Engine, begun: u64, answer: Answer) -> Blob {
        let (is_first, is_frozen) = match answer {
            Answer::NotYet => return encode(&SlotAnswer::NotYet),
            Answer::Again => return encode(&SlotAnswer::Again),
            Answer::Same => {
                let bytes = self.exports.get(&begun).map_or(&[][..], |export| &export.last);
                return encode(&SlotAnswer::Piece { bytes, is_copied: false, is_stopped: false });
            }
            Answer::Next { is_first, is_frozen } => (is_first, is_frozen),
        };
        if is_first {
            let slots = self.going.slots(begun);
            if let Some(mut before) = self.exports.insert(begun, Export::new(slots)) {
                before.end(engine);
            }
        }
        let Some(export) = self.exports.get_mut(&begun) else { return encode(&SlotAnswer::Again) };
        export.read(engine);
        let length = export.stream.len().min(MESSAGE_BYTES_MAX);
        export.last = export.stream.split_to(length).freeze();
        let (is_copied, is_stopped) = (export.is_copied(), is_frozen && export.is_sent());
        self.going.sent(begun, length as u64);
        encode(&SlotAnswer::Piece { bytes: &export.last, is_copied, is_stopped })
    }
}

impl Export {
    fn new(slots: SlotRanges) -> Export {
        Export {
            waiting: slots.slots().collect(),
            reading: None,
            queues: VecDeque::new(),
            backlog: Arc::default(),
            slots,
            stream: BytesMut::new(),
            last: Bytes::new(),
        }
    }

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
        for record in queue.take(room) {
            if self.stream.is_empty() {
                // The buffer before went with what was sent; this one grows only for a long record.
                self.stream.reserve(PIECE_BYTES);
            }
            write_record(&mut self.stream, &record);
        }
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
