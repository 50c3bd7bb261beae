//! The walk: it reads entries where they stand, some under each lock, and large ones in parts.

use super::saved::Saved;
use super::{Head, Record, Snapshot};
use crate::base::slot::Slot;
use crate::engine::entry::{Entry, Kind};
use crate::engine::portion::{Elements, PORTION, Portion, Resume};
use crate::engine::shard::is_large;
use crate::values::hashing::table_hash;

/// Entries that are read under one lock, at most.
const STEP_ENTRIES: usize = 256;
/// Bytes of entries after which no more are read under a lock.
const STEP_BYTES: usize = 128 * 1024;
/// Entries that are looked at under one lock, read or passed over, and what else is in the same segment.
const STEP_LOOKS: usize = 1024;
/// Slots that one step visits, at most, each under its own lock.
const STEP_SLOTS: usize = 64;
/// What is read of a large value under one lock. In tests all of them have several parts.
const PART: Portion = if cfg!(all(test, debug_assertions)) { Portion { elements: 2, bytes: 16 } } else { PORTION };

/// Where a walk goes on: slot, database (its number at the cut), position in hash order.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    pub(super) slot: usize,
    database: usize,
    position: u32,
}

/// A large value of which some has been handed out. Its entry is owed until all of it has.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) database: usize,
    pub(super) slot: Slot,
    pub(super) key: Box<[u8]>,
    kind: Kind,
    length: usize,
    deadline: Option<u64>,
    access: u32,
    /// Where the next part begins; `None`: it is the first.
    from: Option<Resume>,
}

/// What a walk reads of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    All,
    /// Other entries are left for their turn.
    Large,
}

/// What may still be read under one lock. One entry more than it has bytes for: an entry is read whole.
#[derive(Debug)]
struct Budget {
    entries: usize,
    bytes: usize,
    looks: usize,
}

impl Part {
    fn new(database: usize, slot: Slot, entry: &Entry) -> Part {
        let length = match (entry.as_value(), entry.as_string()) {
            (Some(value), _) => value.len(),
            (None, string) => string.map_or(0, |string| string.len()),
        };
        let (key, kind, deadline, access) = (entry.key().into(), entry.kind(), entry.deadline(), entry.access());
        Part { database, slot, key, kind, length, deadline, access, from: None }
    }

    fn head(&self) -> Head<'_> {
        let Part { database, slot, kind, length, deadline, access, .. } = *self;
        Head { database, slot, key: &self.key, kind, length, deadline, access }
    }

    /// Reads the next elements from the entry; false: they are the last.
    fn read(&mut self, entry: &Entry, elements: &mut Elements) -> bool {
        elements.clear();
        self.from = PART.read(entry, self.from.as_ref(), elements);
        self.from.is_some()
    }
}

impl Snapshot {
    /// Reads entries where they stand until there are enough for one step.
    pub(super) fn walk(&mut self, visit: &mut impl FnMut(Record<'_>)) {
        let mut budget = Budget::new();
        for _ in 0..STEP_SLOTS {
            let Some(slot) = Slot::new(self.place.slot as u64) else { return };
            let mut place = self.place;
            let is_read = self.walk_slot(&mut place, Reads::All, &mut budget, visit);
            self.place = place;
            if !is_read {
                return;
            }
            self.finish_large(slot);
            self.place = Place { slot: self.place.slot + 1, ..Place::default() };
        }
    }

    /// Looks for what is large in a slot whose writers wait for that. False where there is none.
    pub(super) fn read_ahead(&mut self, visit: &mut impl FnMut(Record<'_>)) -> bool {
        let wanted = || self.engine.snapshots.next_wanted();
        let begin = |slot: Slot| Place { slot: slot.index(), ..Place::default() };
        let Some(mut place) = self.ahead.take().or_else(|| wanted().map(begin)) else { return false };
        if !self.walk_slot(&mut place, Reads::Large, &mut Budget::new(), visit) {
            self.ahead = Some(place);
        } else if let Some(slot) = Slot::new(place.slot as u64) {
            self.finish_large(slot);
        }
        true
    }

    /// Lets those go on who wait for what is large in a slot.
    fn finish_large(&self, slot: Slot) {
        if self.engine.snapshots.set_large_done(slot) {
            self.engine.log.tell_room();
        }
    }

    /// Reads entries of a slot under its lock, up to a large one. False where there is more.
    fn walk_slot(
        &mut self,
        place: &mut Place,
        reads: Reads,
        budget: &mut Budget,
        visit: &mut impl FnMut(Record<'_>),
    ) -> bool {
        let (engine, mark, part) = (&self.engine, self.mark, &mut self.part);
        let Some(slot) = Slot::new(place.slot as u64) else { return true };
        let mut keyspace = engine.lock_slot(slot, 0, 0);
        let slot_in_shard = engine.placement().slot_in_shard(slot);
        let shard = keyspace.locks.shard(engine.placement().shard(slot));
        while place.database < engine.database_count() {
            let database = place.database;
            let number = engine.snapshots.owed(slot.index(), database);
            let table = number.and_then(|number| shard.table_mut(number, slot_in_shard));
            if let Some(table) = table.filter(|table| reads == Reads::All || table.large > 0) {
                let mut next = Some(place.position);
                while let Some(position) = next {
                    place.position = position;
                    if budget.looks == 0 {
                        return false;
                    }
                    next = table.entries.visit_segment(position, |entry| {
                        budget.looks = budget.looks.saturating_sub(1);
                        if entry.mark() == mark || part.is_some() {
                        } else if is_large(entry.memory_bytes()) {
                            *part = Some(Part::new(database, slot, entry));
                        } else if reads == Reads::All && budget.spend(entry) {
                            visit(Record::Entry { database, slot, entry });
                            entry.set_mark(mark);
                        }
                    });
                    if part.is_some() || budget.is_exceeded() {
                        return false;
                    }
                }
            }
            if reads == Reads::All {
                engine.snapshots.state.lock().set_done(slot.index(), database);
            }
            (place.database, place.position) = (database + 1, 0);
        }
        true
    }

    /// Hands out the next part of a large value, and all that is left of it where it has been saved meanwhile.
    pub(super) fn read_part(&mut self, mut part: Part, visit: &mut impl FnMut(Record<'_>)) {
        if part.from.is_none() {
            visit(Record::Begin(part.head()));
        }
        let Some(has_more) = self.read_part_in_place(&mut part) else {
            return self.read_saved(part, visit);
        };
        visit(Record::Part(&self.elements));
        if has_more {
            self.part = Some(part);
        } else {
            visit(Record::End);
        }
    }

    /// Reads the next part under the lock of its slot. False: it is the last; `None`: the value has been saved.
    fn read_part_in_place(&mut self, part: &mut Part) -> Option<bool> {
        let (engine, mark) = (&self.engine, self.mark);
        let mut keyspace = engine.lock_slot(part.slot, 0, 0);
        let shard = keyspace.locks.shard(engine.placement().shard(part.slot));
        let number = engine.snapshots.owed(part.slot.index(), part.database)?;
        let table = shard.table_mut(number, engine.placement().slot_in_shard(part.slot))?;
        let is_it = |entry: &Entry| entry.key() == &*part.key;
        let entry = table.entries.find_mut(table_hash(&part.key), is_it).filter(|entry| entry.mark() != mark)?;
        let has_more = part.read(entry, &mut self.elements);
        if !has_more {
            entry.set_mark(mark);
        }
        Some(has_more)
    }

    /// Reads the rest of a large value where it has been saved, and hands out what else has been. Nothing is locked.
    fn read_saved(&mut self, mut part: Part, visit: &mut impl FnMut(Record<'_>)) {
        let (mark, mut saved) = (self.mark, self.take_saved());
        let entry = saved.iter_mut().find_map(|saved: &mut Saved| saved.find(mark, &part));
        let entry = entry.expect("what is owed stands in its place, or has been saved");
        loop {
            let has_more = part.read(entry, &mut self.elements);
            visit(Record::Part(&self.elements));
            if !has_more {
                break;
            }
        }
        entry.set_mark(mark);
        visit(Record::End);
        saved.iter().for_each(|saved| saved.hand_out(mark, visit));
    }
}

impl Budget {
    fn new() -> Budget {
        Budget { entries: STEP_ENTRIES, bytes: STEP_BYTES, looks: STEP_LOOKS }
    }

    /// Whether the entry may be read. If not, the budget is exceeded.
    fn spend(&mut self, entry: &Entry) -> bool {
        if self.entries == 0 || self.bytes == 0 {
            self.entries = usize::MAX;
            return false;
        }
        if self.is_exceeded() {
            return false;
        }
        self.entries -= 1;
        self.bytes = self.bytes.saturating_sub(entry.memory_bytes());
        true
    }

    /// Whether something was not read for its sake.
    fn is_exceeded(&self) -> bool {
        self.entries == usize::MAX
    }
}
