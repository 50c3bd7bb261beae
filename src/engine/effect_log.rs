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

/// Encoded effects that may wait in the queue of one export before its slot's writers have to wait.
pub const EXPORT_QUEUE_BYTES: usize = 8 * 1024 * 1024;

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

/// What an export has published and its reader has not taken yet.
#[derive(Debug, Default)]
pub struct ExportQueue {
    records: Mutex<VecDeque<Record>>,
    bytes: AtomicUsize,
    closed: AtomicBool,
}

impl ExportQueue {
    /// Takes what is there, in order.
    pub fn take(&self) -> Vec<Record> {
        let mut records = self.records.lock();
        self.bytes.store(0, Ordering::Relaxed);
        records.drain(..).collect()
    }

    /// Bytes that wait.
    pub fn pending_bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether writers of the slot have to wait before they execute.
    pub fn is_full(&self) -> bool {
        self.pending_bytes() > EXPORT_QUEUE_BYTES
    }

    /// Whether the export was ended by the shard.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn push(&self, record: Record) {
        self.bytes.fetch_add(record.effect.len() + size_of::<Record>(), Ordering::Relaxed);
        self.records.lock().push_back(record);
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

    /// Begins the export of a slot; one that was under way ends.
    pub fn begin_export(&mut self, slot: Slot) -> Arc<ExportQueue> {
        self.end_export(slot);
        let queue = Arc::new(ExportQueue::default());
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

    /// Whether an export of the slot has so much waiting that its writers must wait too.
    pub fn is_congested(&self, slot: Slot) -> bool {
        self.exports.iter().any(|export| export.slot == slot && export.queue.is_full())
    }
}
