//! A slot on its way from one node to another: its entries and effects out, in order, and in again.
//!
//! ```text
//!  source: begin_export -> export_step ... (entries in hash order, effects between them) -> freeze -> rest -> clear
//!  target: apply, apply, ... (commands are executed elsewhere) -> the slot is its own
//! ```
//!
//! Everything goes through one queue per slot, so that whoever applies it in order has the slot. Only database 0 moves:
//! a cluster has no other.

use super::Engine;
use super::effect::{Cause, Effect};
use super::effect_log::{Backlog, ExportQueue};
use super::entry::Entry;
use super::keyspace::{Deadline, Keyspace, WrongKind};
use super::reclaim::Garbage;
use super::shard::SlotState;
use super::shard::hash_of_entry;
use crate::base::identity::{Epoch, Position};
use crate::base::slot::Slot;
use crate::values::Value;
use std::sync::Arc;

/// Entries that are read under one lock.
const STEP_ENTRIES: usize = 32;

/// Why an effect could not be applied: what is here is not what the effect was made of. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplyError {
    /// The bytes are no effect.
    Malformed,
    /// The key holds another kind of value.
    WrongKind,
}

impl std::fmt::Display for ApplyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ApplyError::Malformed => "the bytes are no effect",
            ApplyError::WrongKind => "the key holds another kind of value",
        })
    }
}

impl std::error::Error for ApplyError {}

impl From<WrongKind> for ApplyError {
    fn from(_: WrongKind) -> ApplyError {
        ApplyError::WrongKind
    }
}

impl Engine {
    /// Begins the export of a slot; one that was under way ends. All slots of a move have one backlog.
    pub fn begin_export(&self, slot: Slot, backlog: &Arc<Backlog>) -> Arc<ExportQueue> {
        self.lock_slot(slot, 0, 0).locks.shard(self.placement().shard(slot)).log.begin_export(slot, backlog)
    }

    /// Publishes the next entries of a slot to its export, from this hash position on (0 at first). Gives the position to
    /// go on from; `None`: all have been published, and effects follow.
    pub fn export_step(&self, slot: Slot, position: u32, now_ms: u64) -> Option<u32> {
        let placement = self.placement();
        let (index, slot_in_shard) = (placement.shard(slot), placement.slot_in_shard(slot));
        let mut keyspace = self.lock_slot(slot, 0, now_ms);
        let shard = keyspace.locks.shard(index);
        let at = shard.meta(slot_in_shard).position;
        let mut entries: Vec<Vec<u8>> = Vec::new();
        let next = shard.table_mut(0, slot_in_shard).and_then(|table| {
            table.entries.scan(position, STEP_ENTRIES, hash_of_entry, |entry| {
                if !entry.is_expired(now_ms) {
                    entries.push(encode_entry(entry));
                }
            })
        });
        for entry in entries {
            shard.log.publish_entry(slot, at, entry.into_boxed_slice());
        }
        shard.log.advance_export(slot, next);
        next
    }

    /// Ends the export of a slot.
    pub fn end_export(&self, slot: Slot) {
        self.lock_slot(slot, 0, 0).locks.shard(self.placement().shard(slot)).log.end_export(slot);
    }

    /// Who executes commands on a slot.
    pub fn slot_state(&self, slot: Slot) -> SlotState {
        self.lock_slot(slot, 0, 0).slots_state(&[slot])
    }

    /// Says who executes commands on a slot, and in which epoch of its owners.
    pub fn set_slot(&self, slot: Slot, state: SlotState, epoch: Epoch) {
        let slot_in_shard = self.placement().slot_in_shard(slot);
        let mut keyspace = self.lock_slot(slot, 0, 0);
        let shard = keyspace.locks.shard(self.placement().shard(slot));
        shard.set_state(slot_in_shard, state);
        if shard.meta(slot_in_shard).position.epoch != epoch {
            shard.begin_epoch(slot_in_shard, epoch);
        }
    }

    /// Drops the keys of a slot without an effect: they live elsewhere, or are lost. Returns how many there were.
    pub fn clear_slot(&self, slot: Slot) -> usize {
        let slot_in_shard = self.placement().slot_in_shard(slot);
        let mut keyspace = self.lock_slot(slot, 0, 0);
        let shard = keyspace.locks.shard(self.placement().shard(slot));
        let Some(table) = shard.take_slot(0, slot_in_shard) else { return 0 };
        shard.watches.raise_where(|_, key, _| Slot::of_key(key) == slot);
        let count = table.entries.len();
        keyspace.garbage.push(Garbage::Slot(table));
        count
    }

    /// Applies effects of a slot that were executed elsewhere, the last of which stands at this position.
    pub fn apply<'a>(
        &self,
        slot: Slot,
        effects: impl Iterator<Item = &'a [u8]>,
        position: Position,
    ) -> Result<(), ApplyError> {
        // At time 0 nothing has expired: only the slot's primary decides that, by its own clock.
        let mut keyspace = self.lock_slot(slot, 0, 0);
        keyspace.set_cause(Cause::Move);
        for mut bytes in effects {
            let effect = Effect::decode(&mut bytes).filter(|_| bytes.is_empty()).ok_or(ApplyError::Malformed)?;
            if effect.key().is_some_and(|key| Slot::of_key(key) != slot) {
                return Err(ApplyError::Malformed);
            }
            keyspace.apply(slot, effect)?;
        }
        let slot_in_shard = self.placement().slot_in_shard(slot);
        keyspace.locks.shard(self.placement().shard(slot)).set_position(slot_in_shard, position);
        Ok(())
    }
}

impl Keyspace<'_> {
    fn apply(&mut self, slot: Slot, effect: Effect<'_>) -> Result<(), ApplyError> {
        let deadline_of = |deadline: Option<u64>| deadline.map_or(Deadline::Clear, Deadline::At);
        match effect {
            Effect::SetString { key, bytes, deadline } => {
                self.set_string(key, bytes, deadline_of(deadline));
            }
            Effect::Append { key, bytes } => {
                self.append(key, bytes)?;
            }
            Effect::SetRange { key, offset, bytes } => {
                let offset = usize::try_from(offset).map_err(|_| ApplyError::Malformed)?;
                self.set_range(key, offset, bytes)?;
            }
            Effect::SetDeadline { key, deadline } => {
                self.set_deadline(key, deadline);
            }
            Effect::Delete { key } => {
                self.delete(key);
            }
            Effect::ListPush { key, side, element } => {
                self.list_push(key, side, std::iter::once(element))?;
            }
            Effect::ListPop { key, side, count } => {
                self.list_pop(key, side, usize::try_from(count).unwrap_or(usize::MAX), |_| {})?;
            }
            Effect::HashSet { key, field, value } => {
                self.hash_set(key, std::iter::once((field, value)))?;
            }
            Effect::HashRemove { key, field } => {
                self.hash_remove(key, std::iter::once(field))?;
            }
            Effect::SetAdd { key, member } => {
                self.set_add(key, std::iter::once(member))?;
            }
            Effect::SetRemove { key, member } => {
                self.set_remove(key, std::iter::once(member))?;
            }
            Effect::SortedSetPut { key, member, score } => self.sorted_set_put(key, &[(member, score)])?,
            Effect::SortedSetRemove { key, member } => {
                self.sorted_set_remove(key, std::iter::once(member))?;
            }
            Effect::PutValue { key, image, deadline } => {
                let value = Value::from_image(image, &self.limits()).ok_or(ApplyError::Malformed)?;
                self.put(Entry::value(key, value, deadline, self.engine.access_clock()));
            }
            Effect::FlushSlot => {
                let slot_in_shard = self.engine.placement().slot_in_shard(slot);
                let taken = self.locks.shard(self.engine.placement().shard(slot)).take_slot(0, slot_in_shard);
                if let Some(taken) = taken {
                    self.garbage.push(Garbage::Slot(taken));
                }
            }
        }
        Ok(())
    }
}

/// An entry as the effect that makes it.
fn encode_entry(entry: &Entry) -> Vec<u8> {
    let (key, deadline) = (entry.key(), entry.deadline());
    let mut encoded = Vec::new();
    match entry.as_value() {
        Some(value) => {
            let mut image = Vec::new();
            value.write_image(&mut image);
            Effect::PutValue { key, image: &image, deadline }.encode(&mut encoded);
        }
        None => {
            let string = entry.as_string();
            let mut encode = |bytes: &[u8]| Effect::SetString { key, bytes, deadline }.encode(&mut encoded);
            match string {
                Some(string) => string.with_bytes(&mut encode),
                None => encode(b""),
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests;
