//! One slot that is exported: how far it has been read, and what of later effects concerns that.

use super::part::{Part, Passage};
use super::{Broken, Outgoing, Record, RecordKind};
use crate::base::identity::Position;
use crate::base::slot::Slot;
use crate::engine::effect::{Effect, encode};
use crate::engine::entry::Entry;
use crate::engine::group::Run;
use crate::engine::portion::Portion;
use crate::engine::shard::{SlotTable, hash_of_entry};
use crate::values::hashing::table_hash;
use crate::values::segments::hash_position;
use std::collections::BTreeSet;

/// Entries that are read under one lock, about.
const STEP_ENTRIES: usize = 32;

/// How far one slot has been read.
#[derive(Debug)]
pub(super) struct Export {
    /// Entries with hash positions below this have been read; `None`: all have.
    read_below: Option<u32>,
    /// Keys below it that count as not read.
    not_sent: BTreeSet<Box<[u8]>>,
    /// One more of them, of which some has been read.
    part: Option<Part>,
    portion: Portion,
    /// Of the last effect in the log that was read; `None`: none was, or the count began anew.
    pub(super) position: Option<Position>,
    /// Whoever follows has all of it: what happens goes on as it is.
    pub(super) is_complete: bool,
}

impl Export {
    /// Nothing has been read.
    pub(super) fn new(portion: Portion) -> Export {
        let (not_sent, is_complete) = (BTreeSet::new(), false);
        Export { read_below: Some(0), not_sent, part: None, portion, position: None, is_complete }
    }

    /// All of it is where it is sent to, as it is in this position.
    pub(super) fn complete(portion: Portion, position: Position) -> Export {
        Export { read_below: None, position: Some(position), is_complete: true, ..Export::new(portion) }
    }

    /// The effects of a run go on as they are: they have to follow on what was read before.
    pub(super) fn follow_run(&mut self, slot: Slot, run: &Run<'_>) -> Result<(), Broken> {
        if self.position.is_none_or(|before| next(before) != run.first) {
            return Err(Broken::Gap(slot, run.first));
        }
        self.position = Some(run.last());
        Ok(())
    }

    /// Whether all of it has been read.
    pub(super) fn is_read(&self) -> bool {
        self.read_below.is_none() && self.not_sent.is_empty() && self.part.is_none()
    }

    /// Whether the reading of entries has passed a key.
    fn is_passed(&self, key: &[u8]) -> bool {
        self.read_below.is_none_or(|below| hash_position(table_hash(key)) < below)
    }

    /// Whether what happens to a key is to be sent.
    fn is_sent(&self, key: &[u8]) -> bool {
        self.is_passed(key) && !self.not_sent.contains(key) && !self.is_part(key)
    }

    /// Whether the writers of the slot wait, because a value in it grows faster than it is read.
    pub(super) fn is_outgrown(&self) -> bool {
        self.part.as_ref().is_some_and(Part::is_outgrown)
    }

    /// Whether a key holds the value that is under way.
    fn is_part(&self, key: &[u8]) -> bool {
        self.part.as_ref().is_some_and(|part| *part.key == *key)
    }

    /// The value under way counts as not sent.
    fn begin_part_again(&mut self) {
        self.not_sent.extend(self.part.take().map(|part| part.key));
    }

    /// Compares the position of an effect with the last one. False where it changes only the count.
    pub(super) fn goes_on(&mut self, slot: Slot, position: Position, effect: &Effect<'_>) -> Result<bool, Broken> {
        let (reached, changes_keys) = match effect {
            Effect::ClearSlot => (None, false),
            Effect::BeginEpoch { after } => (Some(*after), false),
            _ if self.position.is_some_and(|before| next(before) != position) => {
                return Err(Broken::Gap(slot, position));
            }
            _ => (Some(position), true),
        };
        self.position = reached;
        Ok(changes_keys)
    }

    pub(super) fn flush(&mut self, slot: Slot, position: Position, outgoing: &mut Outgoing) {
        self.not_sent.clear();
        self.part = None;
        if self.is_complete {
            let mut effect = Vec::new();
            encode::flush_slot(&mut effect);
            let kind = RecordKind::Run { count: 1 };
            outgoing.push(Record { slot, position, kind, effect: effect.into_boxed_slice() });
        } else if self.read_below != Some(0) {
            outgoing.push_encoded(slot, position, encode::flush_slot);
        }
    }

    /// Sends an effect on, or what of it concerns keys that are sent.
    pub(super) fn read_effect(
        &mut self,
        slot: Slot,
        position: Position,
        effect: &Effect<'_>,
        encoded: &[u8],
        outgoing: &mut Outgoing,
    ) {
        if let Some(part) = self.part.as_mut().filter(|part| effect.key() == Some(&*part.key)) {
            match (effect, part.pass(effect)) {
                // Nothing happens to it.
                (Effect::Copy { .. }, _) | (_, Passage::Nothing) => {}
                (_, Passage::Cut(effect)) => outgoing.push(Record::piece(slot, position, effect.into_boxed_slice())),
                (_, Passage::Replaces) => self.part = None,
                (_, Passage::Again) => self.begin_part_again(),
            }
        }
        if effect.second_key().is_some_and(|to| self.is_part(to))
            && !matches!(effect, Effect::Copy { database: 1.., .. })
        {
            self.part = None;
        }
        let mut send = |write: &dyn Fn(&mut Vec<u8>)| outgoing.push_encoded(slot, position, write);
        let whole = |out: &mut Vec<u8>| out.extend_from_slice(encoded);
        match effect {
            Effect::FlushSlot => self.flush(slot, position, outgoing),
            Effect::Rename { key, to } | Effect::Copy { key, to, database: 0 } => {
                let takes = matches!(effect, Effect::Rename { .. });
                match (self.is_sent(key), self.is_passed(to)) {
                    (true, true) => {
                        self.not_sent.remove(*to);
                        send(&whole);
                    }
                    (false, true) => drop(self.not_sent.insert((*to).into())),
                    (true, false) if takes => send(&|out| encode::delete(out, key)),
                    (_, false) => {}
                }
            }
            // Other databases are not exported.
            Effect::Copy { .. } => {}
            Effect::Move { key, .. } if self.is_sent(key) => send(&|out| encode::delete(out, key)),
            Effect::Move { .. } => {}
            // It would be applied under one lock, whatever it has: a portion of short elements, or more.
            Effect::PutValue { key, image, .. } if image.len() > 16 * self.portion.elements && self.is_sent(key) => {
                self.not_sent.insert((*key).into());
            }
            other if other.key().is_some_and(|key| self.is_sent(key)) => send(&whole),
            _ => {}
        }
    }

    /// Reads, as effects, what is next in the slot: the value under way; or else keys that count as not sent; and
    /// new ones when there are no more of those. The log has been read up to this moment.
    pub(super) fn read(&mut self, table: Option<&SlotTable>, now_ms: u64) -> Vec<Vec<u8>> {
        let find = |key: &[u8]| table.and_then(|table| table.entries.find(table_hash(key), |entry| entry.key() == key));
        let (mut effects, mut left) = (Vec::new(), self.portion);
        if let Some(part) = &mut self.part {
            match find(&part.key).map(|entry| part.read(entry, self.portion, &mut effects)) {
                Some(Some(false)) => {}
                // All elements were removed, which has been sent.
                None | Some(Some(true)) => self.part = None,
                Some(None) => self.begin_part_again(),
            }
            return effects;
        }
        for _ in 0..STEP_ENTRIES {
            let Some(key) = self.not_sent.first() else { break };
            let entry = find(key);
            match entry {
                Some(entry) if self.portion.is_less_than(entry) => {
                    // A lock of its own.
                    if effects.is_empty() {
                        effects.push(encode_delete(key));
                        self.not_sent.pop_first();
                        let mut part = Part::new(entry);
                        let is_last = part.read(entry, self.portion, &mut effects);
                        self.part = Some(part).filter(|_| is_last != Some(true));
                    }
                    return effects;
                }
                Some(entry) if left.spend(entry) || effects.is_empty() => effects.push(encode_entry(entry)),
                Some(_) => return effects,
                None => effects.push(encode_delete(key)),
            }
            self.not_sent.pop_first();
        }
        if let Some(from) = self.read_below
            && self.not_sent.is_empty()
        {
            self.read_below = table.and_then(|table| {
                table.entries.scan(from, STEP_ENTRIES, hash_of_entry, |entry| match entry {
                    entry if entry.is_expired(now_ms) => {}
                    entry if left.spend(entry) => effects.push(encode_entry(entry)),
                    entry => drop(self.not_sent.insert(entry.key().into())),
                })
            });
        }
        effects
    }
}

impl Portion {
    /// Elements and bytes of an entry.
    fn of(entry: &Entry) -> (usize, usize) {
        match (entry.as_value(), entry.as_string()) {
            (Some(value), _) => (value.len(), value.memory_bytes()),
            (None, string) => (1, string.map_or(0, |string| string.len())),
        }
    }

    /// Whether an entry has more than this.
    fn is_less_than(&self, entry: &Entry) -> bool {
        let (elements, bytes) = Portion::of(entry);
        elements > self.elements || bytes > self.bytes
    }

    /// Takes what an entry has from what is left; false where it has more.
    fn spend(&mut self, entry: &Entry) -> bool {
        let (elements, bytes) = Portion::of(entry);
        let is_enough = elements <= self.elements && bytes <= self.bytes;
        if is_enough {
            *self = Portion { elements: self.elements - elements, bytes: self.bytes - bytes };
        }
        is_enough
    }
}

pub(super) fn next(position: Position) -> Position {
    Position { seq: position.seq + 1, ..position }
}

/// An entry as the effect that makes it.
pub(in crate::engine) fn encode_entry(entry: &Entry) -> Vec<u8> {
    let (key, deadline) = (entry.key(), entry.deadline());
    let mut encoded = Vec::new();
    match entry.as_value() {
        Some(value) => encode::put_value(&mut encoded, key, deadline, |out| value.write_image(out)),
        None => match entry.as_string() {
            Some(string) => string.with_bytes(|bytes| encode::set_string(&mut encoded, key, bytes, deadline)),
            None => encode::set_string(&mut encoded, key, b"", deadline),
        },
    }
    encoded
}

fn encode_delete(key: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    encode::delete(&mut encoded, key);
    encoded
}
