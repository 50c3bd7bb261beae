//! The source of moves: sends slots in pieces, whenever the target asks for the next one and [`Going`] says so.

use super::Shared;
use super::copies::Feeds;
use super::going::{Answer, Going};
use super::messages::{SlotAnswer, SlotRequest, encode, write_record};
use crate::base::clock;
use crate::base::identity::{Incarnation, NodeId};
use crate::base::slot::Slot;
use crate::cluster::duties::SlotMove;
use crate::cluster::topology::Topology;
use crate::engine::Engine;
use crate::engine::export::{BACKLOG_BYTES_MAX, Broken, Exports};
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
pub(super) struct Source {
    going: Going,
    pub(super) exports: Exports,
    streams: HashMap<u64, Stream>,
    pub(super) feeds: Feeds,
}

/// The stream of one move.
struct Stream {
    /// The slots that have not begun.
    waiting: VecDeque<Slot>,
    /// What was read and is not sent.
    unsent: BytesMut,
    /// Sent last, in case the answer is lost.
    last: Bytes,
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
            source.answer(begun, answer)
        }
        SlotRequest::Next { begun, attempt, received, .. } => {
            let answer = source.going.next(sender.node, begun, attempt, received);
            source.answer(begun, answer)
        }
        SlotRequest::Look { .. } => encode(&SlotAnswer::Seen),
    })
}

/// Reads the log whenever there is much of it, so that it need not be kept, and that writers which are faster than the
/// link are made to wait.
pub(super) async fn follow_log(shared: Arc<Shared>) {
    let bell = shared.engine.log.listen();
    loop {
        bell.notified().await;
        let mut source = shared.source.lock();
        if !source.streams.is_empty() || !source.feeds.is_idle() {
            let followed = source.exports.follow();
            note_broken(followed);
        }
    }
}

fn note_broken(followed: Result<(), Broken>) {
    if let Err(reason) = followed {
        tracing::warn!(%reason, "slots on their way elsewhere begin again");
    }
}

impl Source {
    pub(super) fn new(engine: Arc<Engine>) -> Source {
        let (going, exports) = (Going::default(), Exports::new(engine));
        Source { going, exports, streams: HashMap::new(), feeds: Feeds::default() }
    }

    /// Ends the exports of moves that are over. The states of the slots have been set before.
    /// `moves`: all that are under way in this version of the topology.
    pub(super) fn follow(
        &mut self,
        topology: &Topology,
        node: NodeId,
        incarnation: Option<Incarnation>,
        moves: &[SlotMove],
    ) {
        for begun in self.going.follow(topology, node, incarnation, moves) {
            self.end(begun);
        }
        self.feeds.follow(&mut self.exports, topology, node, incarnation);
    }

    fn end(&mut self, begun: u64) {
        self.streams.remove(&begun);
        self.exports.end(begun);
    }

    /// The answer, encoded.
    fn answer(&mut self, begun: u64, answer: Answer) -> Blob {
        let (is_first, is_frozen) = match answer {
            Answer::NotYet => return encode(&SlotAnswer::NotYet),
            Answer::Again => return encode(&SlotAnswer::Again),
            Answer::Same => {
                let bytes = self.streams.get(&begun).map_or(&[][..], |stream| &stream.last);
                return encode(&SlotAnswer::Piece { bytes, is_copied: false, is_stopped: false });
            }
            Answer::Next { is_first, is_frozen } => (is_first, is_frozen),
        };
        if is_first {
            self.end(begun);
            let mut waiting: VecDeque<Slot> = self.going.slots(begun).slots().collect();
            if let Some(first) = waiting.pop_front() {
                self.exports.begin(first, begun);
            }
            self.streams.insert(begun, Stream { waiting, unsent: BytesMut::new(), last: Bytes::new() });
        }
        let Some(stream) = self.streams.get_mut(&begun) else { return encode(&SlotAnswer::Again) };
        if let Err(reason) = stream.read(begun, &mut self.exports) {
            note_broken(Err(reason));
            return encode(&SlotAnswer::Again);
        }
        let length = stream.unsent.len().min(MESSAGE_BYTES_MAX);
        stream.last = stream.unsent.split_to(length).freeze();
        let waits = self.exports.waiting_bytes(begun);
        // The slots may stand still for what is left to be sent: it has a bound then.
        let is_empty = stream.waiting.is_empty() && self.exports.unread(begun).is_none() && stream.unsent.is_empty();
        let (is_copied, is_stopped) = (is_empty && waits < ENTRIES_BYTES_MAX, is_frozen && is_empty && waits == 0);
        self.going.sent(begun, length as u64);
        encode(&SlotAnswer::Piece { bytes: &stream.last, is_copied, is_stopped })
    }
}

impl Stream {
    /// Adds to the stream what has happened, and then entries until there is a piece. Some entries are read each time:
    /// writers that are faster than the link must not keep the copy from its end.
    fn read(&mut self, begun: u64, exports: &mut Exports) -> Result<(), Broken> {
        if !exports.has(begun) {
            // They have ended with all others, at a moment when this one was not asked for.
            return Err(Broken::Lost);
        }
        exports.follow()?;
        self.take(begun, exports);
        while exports.waiting_bytes(begun) < ENTRIES_BYTES_MAX {
            let Some(slot) = exports.unread(begun).or_else(|| self.begin_slot(begun, exports)) else { return Ok(()) };
            exports.step(slot, begun, clock::unix_us() / 1000)?;
            self.take(begun, exports);
            if self.unsent.len() >= PIECE_BYTES {
                return Ok(());
            }
        }
        Ok(())
    }

    fn begin_slot(&mut self, begun: u64, exports: &mut Exports) -> Option<Slot> {
        let slot = self.waiting.pop_front()?;
        exports.begin(slot, begun);
        Some(slot)
    }

    fn take(&mut self, begun: u64, exports: &mut Exports) {
        let room = PIECE_BYTES.saturating_sub(self.unsent.len());
        for record in exports.take(begun, room) {
            if self.unsent.is_empty() {
                // The buffer before went with what was sent; this one grows only for a long record.
                self.unsent.reserve(PIECE_BYTES);
            }
            write_record(&mut self.unsent, &record);
        }
    }
}
