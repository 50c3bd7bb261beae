//! What is sent to copies: pieces of the log, woven with the entries of slots that they lack, when [`Feeding`] says so.

use super::feeding::{Answer, Feeding};
use super::messages::{CopyAnswer, CopyRequest, encode, write_record};
use crate::base::clock;
use crate::base::identity::{Incarnation, NodeId, Position};
use crate::base::slot::Slot;
use crate::base::slot_ranges::SlotRanges;
use crate::cluster::topology::Topology;
use crate::engine::export::{BACKLOG_BYTES_MAX, Broken, Exports};
use crate::transport::Sender;
use bytes::{Bytes, BytesMut};
use std::collections::{HashMap, VecDeque};

/// A piece is sent when it has this many bytes; one record may make it longer.
const PIECE_BYTES: usize = 256 * 1024;
/// Bytes of one message at most: a long value goes in several.
const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The copies of this node's slots, as it sends to them.
#[derive(Default)]
pub(crate) struct Feeds {
    feeding: Feeding,
    streams: HashMap<u64, Feed>,
    /// Of slots that came here with an epoch: where they stood before.
    starts: HashMap<Slot, Position>,
}

/// One stream.
struct Feed {
    /// The slots of which the entries have not begun to be sent.
    waiting: VecDeque<Slot>,
    unsent: BytesMut,
    /// Sent last, in case the answer is lost.
    last: Bytes,
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

    /// A slot begins an epoch here with what it had in this position: who has the same lacks nothing.
    pub(crate) fn begin_epoch(&mut self, slot: Slot, start: Position) {
        self.starts.insert(slot, start);
    }

    /// Ends the streams of copies that are none any more, or of other slots than before.
    pub(crate) fn follow(
        &mut self,
        exports: &mut Exports,
        topology: &Topology,
        node: NodeId,
        incarnation: Option<Incarnation>,
    ) {
        for number in self.feeding.follow(topology, node, incarnation) {
            self.end(exports, number);
        }
        self.starts.retain(|slot, _| topology.slot(*slot).primary == Some(node));
    }

    fn end(&mut self, exports: &mut Exports, number: u64) {
        self.streams.remove(&number);
        exports.end(number);
    }

    /// The answer to a copy.
    pub(crate) fn answer(&mut self, exports: &mut Exports, sender: &Sender, request: CopyRequest) -> Fed {
        let again = Fed::Answer(encode(&CopyAnswer::Again));
        let (number, attempt, version) = match request {
            CopyRequest::Begin { number, attempt, version, .. }
            | CopyRequest::Next { number, attempt, version, .. } => (number, attempt, version),
            CopyRequest::Fence { .. } => return again,
        };
        let answer = match &request {
            CopyRequest::Begin { slots, held, .. } if held.len() == slots.len() => {
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
                return Fed::Answer(encode(&CopyAnswer::Piece { bytes }));
            }
            Answer::Next { is_first } => is_first,
        };
        let begun = match &request {
            CopyRequest::Begin { slots, held, .. } if is_first => self.begin(exports, number, slots, held),
            _ => Ok(()),
        };
        let piece = begun.and_then(|()| match self.streams.get_mut(&number) {
            Some(feed) => feed.read(number, exports).map(|()| feed.piece()),
            None => Err(Broken::Lost),
        });
        match piece {
            Ok(bytes) => {
                self.feeding.sent(number, bytes.len() as u64);
                if bytes.is_empty() {
                    // The question has arrived: what is asked again is what comes behind it.
                    let received = if let CopyRequest::Next { received, .. } = request { received } else { 0 };
                    return Fed::Nothing(CopyRequest::Next { number, attempt, received, version });
                }
                Fed::Answer(encode(&CopyAnswer::Piece { bytes: &bytes }))
            }
            Err(reason) => {
                tracing::info!(number, to = %sender.node, %reason, "a copy begins again");
                self.end(exports, number);
                self.feeding.end(number);
                again
            }
        }
    }

    /// Begins a stream: slots that the copy has as they are follow at once, of the others the entries are sent.
    fn begin(
        &mut self,
        exports: &mut Exports,
        number: u64,
        slots: &SlotRanges,
        held: &[Option<Position>],
    ) -> Result<(), Broken> {
        self.streams.remove(&number);
        exports.begin_following(number);
        let mut waiting = VecDeque::new();
        for (slot, held) in slots.slots().zip(held) {
            let start = self.starts.get(&slot).copied();
            let has_it = match held {
                Some(held) => exports.begin_at(slot, number, *held, start)?,
                None => false,
            };
            if !has_it {
                waiting.push_back(slot);
            }
        }
        tracing::debug!(number, slots = slots.len(), lacking = waiting.len(), "a copy begins to follow");
        self.streams.insert(number, Feed { waiting, unsent: BytesMut::new(), last: Bytes::new() });
        Ok(())
    }
}

impl Feed {
    /// Adds what has happened, and then entries until there is a piece.
    fn read(&mut self, number: u64, exports: &mut Exports) -> Result<(), Broken> {
        if !exports.has(number) {
            return Err(Broken::Lost);
        }
        exports.follow()?;
        self.take(number, exports);
        while self.unsent.len() < PIECE_BYTES && exports.waiting_bytes(number) < BACKLOG_BYTES_MAX {
            let next = exports.unread(number).or_else(|| {
                let slot = self.waiting.pop_front()?;
                exports.begin(slot, number);
                Some(slot)
            });
            let Some(slot) = next else { break };
            exports.step(slot, number, clock::unix_us() / 1000)?;
            self.take(number, exports);
        }
        if exports.has(number) { Ok(()) } else { Err(Broken::Lost) }
    }

    fn take(&mut self, number: u64, exports: &mut Exports) {
        let room = PIECE_BYTES.saturating_sub(self.unsent.len());
        for record in exports.take(number, room) {
            write_record(&mut self.unsent, &record);
        }
    }

    fn piece(&mut self) -> Bytes {
        let length = self.unsent.len().min(MESSAGE_BYTES_MAX);
        self.last = self.unsent.split_to(length).freeze();
        self.last.clone()
    }
}
