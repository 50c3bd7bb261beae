//! Effects that were executed elsewhere, or before: applied to a slot that moves here, or replayed from a log.
//!
//! Only database 0 moves: a cluster has no other.

use super::effect::{Cause, Effect, encode};
use super::event;
use super::group::{Group, Run};
use super::keyspace::{Deadline, Keyspace, WrongKind};
use super::shard::SlotState;
use super::{Engine, Increment, STRING_BYTES_MAX};
use crate::base::identity::{Epoch, Position};
use crate::base::slot::Slot;
use crate::values::Value;
use crate::values::stream::Edit;
use std::collections::HashMap;

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
        let is_elsewhere = state == SlotState::Elsewhere && !shard.waiters.is_empty();
        let ended = if is_elsewhere { shard.waiters.leave(slot) } else { Vec::new() };
        let has_new_epoch = shard.meta(slot_in_shard).position.epoch != epoch;
        ended.into_iter().for_each(|waiter| keyspace.afterwards.wake(waiter));
        if has_new_epoch {
            keyspace.go_on_after(slot, Position { epoch, seq: 0 });
            // What is shown of it from now on a quorum has when it has followed into this epoch.
            let end = self.log.end();
            keyspace.locks.shard(self.placement().shard(slot)).set_last(slot_in_shard, end);
        }
    }

    /// Shows who may read copies what is here of a slot that is elsewhere: everything up to its position. It is shown until
    /// it is hidden, cannot be changed as its primary says, is dropped, or the slot is this node's.
    pub fn show_copy(&self, slot: Slot) {
        let slot_in_shard = self.placement().slot_in_shard(slot);
        self.lock_slot(slot, 0, 0).locks.shard(self.placement().shard(slot)).set_copy(slot_in_shard, true);
    }

    /// Hides the copy of a slot from readers; those that wait for its keys ask again.
    pub fn hide_copy(&self, slot: Slot) {
        self.lock_slot(slot, 0, 0).hide(slot);
    }

    /// Drops the keys of a slot without an effect: they live elsewhere, or are lost. Returns how many there were.
    pub fn clear_slot(&self, slot: Slot) -> usize {
        self.lock_slot(slot, 0, 0).clear(slot)
    }

    /// Applies effects of a slot that were executed elsewhere, the last of which stands at this position, under one lock. Each
    /// of the bytes is one effect or several. Readers of copies are not shown a slot of which something could not be applied.
    pub fn apply<'a>(
        &self,
        slot: Slot,
        effects: impl Iterator<Item = &'a [u8]>,
        position: Position,
    ) -> Result<(), ApplyError> {
        // At time 0 nothing has expired: only the slot's primary decides that, by its own clock.
        let mut keyspace = self.lock_slot(slot, 0, 0);
        keyspace.set_cause(Cause::Move);
        if let Err(error) = keyspace.apply_encoded(slot, effects) {
            keyspace.hide(slot);
            return Err(error);
        }
        keyspace.go_on_after(slot, position);
        Ok(())
    }

    /// Applies a group that was read from a log, as a whole: nothing of it where it does not follow on what is here.
    pub fn replay(&self, group: Group<'_>) -> Result<(), ReplayError> {
        let mut effects = Vec::new();
        for run in group.runs() {
            let run = run.ok_or(ApplyError::Malformed)?;
            let mut rest = run.effects;
            for number in 0..run.count {
                let effect = Effect::decode(&mut rest).ok_or(ApplyError::Malformed)?;
                let position = Position { seq: run.first.seq + number, ..run.first };
                effects.push((run, position, effect));
            }
            if !rest.is_empty() {
                return Err(ApplyError::Malformed.into());
            }
        }
        let of_node = effects.iter().any(|(run, ..)| run.slot.is_none());
        let slots = effects.iter().filter_map(|(run, ..)| run.slot);
        let mut keyspace = match of_node {
            true => self.lock_all(0, 0),
            false => self.lock_slots(slots, 0, 0),
        };
        keyspace.follows(&effects)?;
        for (run, _, effect) in &effects {
            keyspace.set_cause(run.cause);
            keyspace.select(run.database as usize % self.database_count());
            keyspace.apply(run.slot, effect)?;
        }
        Ok(())
    }
}

/// Why a group was not replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayError {
    /// The slot's history does not go on at this position here.
    Gap(Slot, Position),
    Apply(ApplyError),
}

impl From<ApplyError> for ReplayError {
    fn from(error: ApplyError) -> ReplayError {
        ReplayError::Apply(error)
    }
}

impl std::fmt::Display for ReplayError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ReplayError::Gap(slot, position) => write!(f, "the log of slot {slot} has a gap before {position:?}"),
            ReplayError::Apply(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ReplayError {}

impl Keyspace<'_> {
    /// The slot's history goes on after this position.
    pub(super) fn go_on_after(&mut self, slot: Slot, after: Position) {
        let placement = self.engine.placement();
        let (shard, slot_in_shard) = (self.locks.shard(placement.shard(slot)), placement.slot_in_shard(slot));
        if shard.meta(slot_in_shard).position == after {
            return;
        }
        shard.set_position(slot_in_shard, after);
        self.set_cause(Cause::Move);
        if self.engine.log.is_read() {
            self.record(Some((slot, after)), |out| encode::begin_epoch(out, after));
        }
    }

    /// Applies effects of a slot, up to the first that cannot be.
    fn apply_encoded<'a>(&mut self, slot: Slot, effects: impl Iterator<Item = &'a [u8]>) -> Result<(), ApplyError> {
        for mut bytes in effects {
            loop {
                let effect = Effect::decode(&mut bytes).ok_or(ApplyError::Malformed)?;
                self.apply(Some(slot), &effect)?;
                if bytes.is_empty() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Readers are not shown the copy of a slot any more.
    fn hide(&mut self, slot: Slot) {
        let placement = self.engine.placement();
        let (shard, slot_in_shard) = (self.locks.shard(placement.shard(slot)), placement.slot_in_shard(slot));
        if shard.meta(slot_in_shard).has_copy {
            shard.set_copy(slot_in_shard, false);
            let ended = shard.waiters.leave(slot);
            ended.into_iter().for_each(|waiter| self.afterwards.wake(waiter));
        }
    }

    /// Drops the keys of a slot, which is no longer here: they have not changed. It stands at no position any more. Returns how many
    /// there were.
    fn clear(&mut self, slot: Slot) -> usize {
        let placement = self.engine.placement();
        let (shard, slot_in_shard) = (self.locks.shard(placement.shard(slot)), placement.slot_in_shard(slot));
        let (taken, position) = (shard.take_slot(0, slot_in_shard), shard.meta(slot_in_shard).position);
        self.hide(slot);
        let Some(table) = taken else {
            self.go_on_after(slot, Position::default());
            return 0;
        };
        let shard = self.locks.shard(placement.shard(slot));
        shard.watches.raise_where(|_, key, _| Slot::of_key(key) == slot);
        let count = table.entries.len();
        self.discard_slot(slot, 0, table);
        self.set_cause(Cause::Move);
        if self.engine.log.is_read() {
            self.record(Some((slot, position)), encode::clear_slot);
        }
        self.go_on_after(slot, Position::default());
        count
    }

    /// Empties a slot in one database, as an effect of the slot.
    fn flush_slot(&mut self, slot: Slot, database: usize) {
        let place = self.place_in(slot, 0);
        let taken = self.shard(place).take_slot(database, place.slot_in_shard);
        if let Some(taken) = taken {
            self.discard_slot(slot, database, taken);
        }
        self.publish(place, encode::flush_slot);
    }

    /// Whether effects, each with its run and its position, go on where their slots stand.
    fn follows(&mut self, effects: &[(Run<'_>, Position, Effect<'_>)]) -> Result<(), ReplayError> {
        let placement = self.engine.placement();
        let locks = &mut self.locks;
        let mut here = |slot: Slot| locks.shard(placement.shard(slot)).meta(placement.slot_in_shard(slot)).position;
        let mut reached: HashMap<Slot, Position> = HashMap::new();
        for (run, position, effect) in effects {
            let Some(slot) = run.slot else {
                // The node's effects are numbered in the slots that they change.
                let of_keys = [effect.key(), effect.second_key()].into_iter().flatten().map(Slot::of_key);
                let flushed = if let Effect::Flush { slots, .. } = effect { Some(slots.slots()) } else { None };
                for slot in of_keys.chain(flushed.into_iter().flatten()) {
                    reached.entry(slot).or_insert_with(|| here(slot)).seq += 1;
                }
                continue;
            };
            let before = *reached.entry(slot).or_insert_with(|| here(slot));
            let after = match effect {
                Effect::BeginEpoch { after } => *after,
                Effect::ClearSlot => before,
                _ if *position == (Position { seq: before.seq + 1, ..before }) => *position,
                _ => return Err(ReplayError::Gap(slot, *position)),
            };
            reached.insert(slot, after);
        }
        Ok(())
    }

    /// Applies one effect to the selected database. `slot` is the one it is of; `None`: it is the node's.
    fn apply(&mut self, slot: Option<Slot>, effect: &Effect<'_>) -> Result<(), ApplyError> {
        let keys = [effect.key(), effect.second_key()];
        if slot.is_some_and(|slot| keys.into_iter().flatten().any(|key| Slot::of_key(key) != slot)) {
            return Err(ApplyError::Malformed);
        }
        let deadline_of = |deadline: Option<u64>| deadline.map_or(Deadline::Clear, Deadline::At);
        match *effect {
            Effect::SetString { key, bytes, deadline } => self.set_string(key, bytes, deadline_of(deadline)),
            Effect::Increment { key, change, result } => {
                self.update_integer(key, |_| Ok::<_, WrongKind>(Increment { change, result }))?;
            }
            Effect::Append { key, bytes } => {
                self.append(key, bytes)?;
            }
            Effect::SetRange { key, offset, bytes } => {
                let offset = usize::try_from(offset).map_err(|_| ApplyError::Malformed)?;
                // What is in front of it would be made, whatever it takes.
                if offset.saturating_add(bytes.len()) > STRING_BYTES_MAX {
                    return Err(ApplyError::Malformed);
                }
                self.set_range(key, offset, bytes)?;
            }
            Effect::SetDeadline { key, deadline } => {
                self.set_deadline(key, deadline);
            }
            Effect::Delete { key } => {
                self.delete(key);
            }
            Effect::ListPush { key, side, elements } => {
                self.list_push(key, side, elements.iter())?;
            }
            Effect::ListPop { key, side, count } => {
                self.list_pop(key, side, usize::try_from(count).unwrap_or(usize::MAX), |_| {})?;
            }
            Effect::ListInsert { key, index, element } => {
                let index = usize::try_from(index).map_err(|_| ApplyError::Malformed)?;
                self.list_insert(key, index, element)?.ok_or(ApplyError::Malformed)?;
            }
            Effect::ListSet { key, index, element } => {
                let index = usize::try_from(index).map_err(|_| ApplyError::Malformed)?;
                self.list_set(key, index, element)?.then_some(()).ok_or(ApplyError::Malformed)?;
            }
            Effect::ListRemove { key, indexes } => {
                let indexes: Result<Vec<usize>, _> = indexes.iter().map(usize::try_from).collect();
                self.list_remove(key, &indexes.map_err(|_| ApplyError::Malformed)?)?;
            }
            Effect::HashSet { key, pairs } => {
                self.hash_set(key, pairs.pairs())?;
            }
            Effect::HashRemove { key, fields } => {
                self.hash_remove(key, fields.iter())?;
            }
            Effect::HashDeadlines { key, fields } => {
                self.hash_set_deadlines(key, fields.iter(), 0, event::HASH_EXPIRE)?;
            }
            Effect::SetAdd { key, members } => {
                let members: Vec<&[u8]> = members.iter().collect();
                self.set_add(key, members.into_iter())?;
            }
            Effect::SetRemove { key, members } => {
                self.set_remove(key, members.iter())?;
            }
            Effect::SortedSetPut { key, members } => {
                let members: Vec<(&[u8], f64)> = members.iter().collect();
                self.sorted_set_put(key, &members, event::SORTED_SET_PUT)?;
            }
            Effect::SortedSetRemove { key, members } => {
                self.sorted_set_remove(key, members.iter())?;
            }
            Effect::StreamEdit { key, edits } => {
                let decoded: Option<Vec<Edit<'_>>> = edits.iter().map(Edit::decode).collect();
                let edits = decoded.ok_or(ApplyError::Malformed)?;
                self.stream_edit(key, &edits, edits.len(), event::STREAM_ADD)?;
            }
            Effect::PutValue { key, image, deadline } => {
                let value = Value::from_image(image, &self.limits()).ok_or(ApplyError::Malformed)?;
                self.put_value(key, value, deadline, event::RESTORE);
            }
            Effect::Rename { key, to } => {
                self.rename(key, to);
            }
            Effect::Copy { key, to, database } => {
                self.copy(key, to, self.known(database)?);
            }
            Effect::Move { key, database } => {
                self.move_to(key, self.known(database)?);
            }
            Effect::FlushSlot => {
                let slot = slot.ok_or(ApplyError::Malformed)?;
                let database = self.database();
                self.flush_slot(slot, database);
            }
            Effect::Flush { database, ref slots } => {
                let database = database.map(|database| self.known(database)).transpose()?;
                self.flush_slots(database, slots);
            }
            Effect::SwapDatabases { first, second } => self.swap_databases(self.known(first)?, self.known(second)?),
            Effect::ClearSlot => {
                let slot = slot.ok_or(ApplyError::Malformed)?;
                self.clear(slot);
            }
            Effect::BeginEpoch { after } => self.go_on_after(slot.ok_or(ApplyError::Malformed)?, after),
        }
        Ok(())
    }

    /// The number of a database that an effect names.
    fn known(&self, database: u32) -> Result<usize, ApplyError> {
        let database = usize::try_from(database).ok().filter(|database| *database < self.database_count());
        database.ok_or(ApplyError::Malformed)
    }
}

#[cfg(test)]
mod tests;
