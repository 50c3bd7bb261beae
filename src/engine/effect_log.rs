//! The effect log of a shard: who reads the effects, and up to where.
//!
//! Effects are published under the shard's lock, in the order in which they happened. The only readers so far are slot
//! moves: an *export* of one slot sends the slot's entries in hash order, and of the effects those that change what has
//! been sent already; what comes later in hash order will be sent as it is then. Both go through one queue, so the
//! receiver applies everything in order. Without a reader nothing is encoded: that costs one branch.

use super::effect::{Cause, Effect};
use crate::base::identity::Position;
use crate::base::slot::Slot;
use crate::values::segments::hash_position;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tracing::debug;

/// Encoded effects that may wait in the queues of one move before the writers of its slots have to wait. What the queues
/// hold is what is still to be sent when the slots stand still, so it is a bound of that time too.
pub const BACKLOG_BYTES_MAX: usize = 8 * 1024 * 1024;

/// One published effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub slot: Slot,
    pub position: Position,
    pub cause: Cause,
    /// Database number.
    pub database: u32,
    /// [`Effect::encode`]'s form.
    pub effect: Box<[u8]>,
}

impl Record {
    /// Bytes that it takes in a queue.
    fn size(&self) -> usize {
        self.effect.len() + size_of::<Record>()
    }
}

/// How many bytes wait in the queues of one move together.
#[derive(Debug, Default)]
pub struct Backlog {
    bytes: AtomicUsize,
}

impl Backlog {
    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether writers of the move's slots have to wait before they execute.
    pub fn is_full(&self) -> bool {
        self.bytes() > BACKLOG_BYTES_MAX
    }
}

/// What an export has published and its reader has not taken yet.
#[derive(Debug)]
pub struct ExportQueue {
    records: Mutex<VecDeque<Record>>,
    backlog: Arc<Backlog>,
    closed: AtomicBool,
}

impl ExportQueue {
    /// Takes what is there, in order, until it is this many bytes or more. Whoever takes everything at once, and faster
    /// than it can be sent, lifts the bound that makes writers wait.
    pub fn take(&self, bytes: usize) -> Vec<Record> {
        let mut records = self.records.lock();
        let (mut taken, mut size) = (Vec::new(), 0);
        while size < bytes
            && let Some(record) = records.pop_front()
        {
            size += record.size();
            taken.push(record);
        }
        self.backlog.bytes.fetch_sub(size, Ordering::Relaxed);
        taken
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.records.lock().is_empty()
    }

    /// Whether the export was ended by the shard.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn push(&self, record: Record) {
        let mut records = self.records.lock();
        self.backlog.bytes.fetch_add(record.size(), Ordering::Relaxed);
        records.push_back(record);
    }
}

/// A slot that is being sent elsewhere.
#[derive(Debug)]
struct Export {
    slot: Slot,
    /// Hash positions below this have been sent; `None`: all have.
    sent_below: Option<u32>,
    queue: Arc<ExportQueue>,
}

/// The readers of one shard's effects.
#[derive(Debug, Default)]
pub struct EffectLog {
    exports: Vec<Export>,
}

impl EffectLog {
    /// Whether anybody reads: if not, effects need not even be built.
    #[inline]
    pub fn is_read(&self) -> bool {
        !self.exports.is_empty()
    }

    /// Whether somebody reads this slot.
    pub fn is_slot_read(&self, slot: Slot) -> bool {
        self.exports.iter().any(|export| export.slot == slot)
    }

    /// Hands an effect to those who read its slot. `hash` is the table hash of its key, `None` for the whole slot.
    pub fn publish(
        &self,
        slot: Slot,
        position: Position,
        cause: Cause,
        database: u32,
        hash: Option<u64>,
        effect: &Effect<'_>,
    ) {
        for export in self.exports.iter().filter(|export| export.slot == slot) {
            let sent = match (hash, export.sent_below) {
                (Some(hash), Some(below)) => hash_position(hash) < below,
                _ => true,
            };
            if sent {
                let mut bytes = Vec::new();
                effect.encode(&mut bytes);
                export.queue.push(Record { slot, position, cause, database, effect: bytes.into_boxed_slice() });
            }
        }
    }

    /// Publishes an entry of a slot as it is now, as the effect that makes it.
    pub fn publish_entry(&self, slot: Slot, position: Position, effect: Box<[u8]>) {
        for export in self.exports.iter().filter(|export| export.slot == slot) {
            let record = Record { slot, position, cause: Cause::Move, database: 0, effect: effect.clone() };
            export.queue.push(record);
        }
    }

    /// Begins the export of a slot; one that was under way ends. All slots of a move have one backlog.
    pub fn begin_export(&mut self, slot: Slot, backlog: &Arc<Backlog>) -> Arc<ExportQueue> {
        self.end_export(slot);
        let (records, backlog) = (Mutex::default(), Arc::clone(backlog));
        let queue = Arc::new(ExportQueue { records, backlog, closed: AtomicBool::new(false) });
        self.exports.push(Export { slot, sent_below: Some(0), queue: Arc::clone(&queue) });
        queue
    }

    /// Ends the export of a slot: nothing more is published to it.
    pub fn end_export(&mut self, slot: Slot) {
        self.exports.retain(|export| {
            if export.slot == slot {
                debug!(%slot, "export ended");
                export.queue.closed.store(true, Ordering::Release);
            }
            export.slot != slot
        });
    }

    /// Says that the entries with hash positions below this have been published by the export itself.
    pub fn advance_export(&mut self, slot: Slot, sent_below: Option<u32>) {
        for export in self.exports.iter_mut().filter(|export| export.slot == slot) {
            export.sent_below = sent_below;
        }
    }

    /// Whether the move of the slot has so much waiting that its writers must wait too.
    pub fn is_congested(&self, slot: Slot) -> bool {
        self.exports.iter().any(|export| export.slot == slot && export.queue.backlog.is_full())
    }
}
