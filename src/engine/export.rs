//! Slots on their way to another node: their entries, and what happens to them meanwhile, in one order.
//!
//! An export reads the entries of its slot in hash order, a few under one lock, and the log for what has changed. Keys
//! whose hash position has been passed are *sent*: what happens to them is sent too. What happens to others is not, for
//! they will be sent as they are then. Whoever applies everything in order has the slot.
//!
//! ```text
//!   step:  read the log to its end
//!          lock slot { read what little the log has got since: effects of keys below p go into the queue
//!                      read the next entries, from position p to q }
//!          the entries go into the queue; p = q
//! ```
//! The entries are read by whoever reads the log, so nothing else needs to know of exports: a change costs the same,
//! whether its slot is exported or not.
//!
//! An effect that makes a sent key of one that is not (RENAME, COPY) cannot be applied there: its key counts as *not sent*
//! again, and goes as a whole with a later step. So do entries for which there was no time under the lock: it is held for
//! one `Portion`. A value with more than that goes in pieces, one after the other (`part`).

mod part;
mod record;
mod slot;

use super::Engine;
use super::digest::{Compared, digest_of};
use super::effect::{Cause, Effect, encode};
use super::group::Run;
use super::keyspace::Keyspace;
use super::log::{Behind, Chunk, Log, LogOffset, Lost, Reader};
use super::portion::{PORTION, Portion};
use super::shard::SlotTable;
use crate::base::identity::Position;
use crate::base::slot::Slot;
use slot::{Export, next};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub use record::{Record, RecordKind};
pub(super) use slot::encode_entry;

/// Bytes that may wait for a copy that lacks something before the writers of its slots have to wait: where the copy began again
/// instead, writers that are faster than the link would keep it from its end for ever. What waits is what is still to be
/// sent when slots stand still to be handed over, so it is a bound of that time too.
pub const BACKLOG_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes that may wait for all copies together that lack nothing else; with more the one for which the most waits begins again.
const FOLLOWED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// So much has to be taken before writers that wait may go on: letting each of many slots go on has a cost.
const ROOM_BYTES: usize = 1024 * 1024;
/// Bytes of the log that may be read under the lock of a slot: 100 microseconds, about.
const LOCKED_LOG_BYTES: u64 = 64 * 1024;
/// How often the log is read before a slot is locked, while there is more than that afterwards.
const FOLLOWED_MAX: usize = 4;
/// Bytes of the log that are taken at once.
const TAKE_BYTES: usize = 4 * 1024 * 1024;

/// Why an export cannot go on; it has to begin again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The log was read too slowly.
    Lost,
    /// The log does not follow on what was read of this slot before.
    Gap(Slot, Position),
    Malformed,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Broken::Lost => Lost.fmt(f),
            Broken::Gap(slot, position) => write!(f, "the log of slot {slot} has a gap before {position:?}"),
            Broken::Malformed => f.write_str("the log holds what is no group of effects"),
        }
    }
}

impl std::error::Error for Broken {}

impl From<Lost> for Broken {
    fn from(_: Lost) -> Broken {
        Broken::Lost
    }
}

/// All exports of this node, and their reader of the log.
#[derive(Debug)]
pub struct Exports {
    engine: Arc<Engine>,
    /// While there are exports.
    reader: Option<Reader>,
    /// Taken from the log, and not read to the end.
    chunks: VecDeque<Arc<Chunk>>,
    /// So far the log has been read.
    read: LogOffset,
    /// By slot, and by the number of the copy that it is sent to.
    slots: BTreeMap<(Slot, u64), Export>,
    copies: BTreeMap<u64, Outgoing>,
    /// Slots of which the writers wait because a value in them was outgrown.
    held: BTreeSet<(Slot, u64)>,
    portion: Portion,
}

/// The slots of one copy: they go together, in one queue, and go on when everything has been read.
#[derive(Debug, Default)]
struct Outgoing {
    queue: VecDeque<Record>,
    /// Bytes that wait in it.
    bytes: usize,
    /// Where too much waits the writers of the slots wait too; else the copy begins again.
    is_bounded: bool,
    /// They wait.
    is_full: bool,
    /// Slots that are not complete: something of them has to be read yet, or that nothing has.
    unread: BTreeSet<Slot>,
    /// The slot of which the digest was sent last.
    compared: Option<Slot>,
}

impl Exports {
    pub fn new(engine: Arc<Engine>) -> Exports {
        let (chunks, read) = (VecDeque::new(), LogOffset::default());
        let (slots, copies, held) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Exports { engine, reader: None, chunks, read, slots, copies, held, portion: PORTION }
    }

    /// Begins the export of a slot, as one of those of a copy.
    pub fn begin(&mut self, slot: Slot, of: u64) {
        self.listen();
        self.slots.insert((slot, of), Export::new(self.portion));
        let outgoing = self.copies.entry(of).or_insert_with(Outgoing::bounded);
        // What it has of the slot is something else.
        outgoing.push_encoded(slot, self.engine.position(slot), encode::flush_slot);
        outgoing.unread.insert(slot);
        // Its writers as those of the other slots.
        if outgoing.is_full {
            self.engine.set_throttled(slot, true);
        }
    }

    /// Begins what a copy is sent: slots are added by [`Exports::begin`], and by [`Exports::begin_at`] where it has them already.
    pub fn begin_following(&mut self, of: u64) {
        self.end(of);
        self.listen();
        self.copies.insert(of, Outgoing::bounded());
    }

    /// Says whether writers of the slots wait where too much waits for a copy, or whether that begins again: as it does from its
    /// beginning on, or as one that lacks nothing else.
    pub fn set_bounded(&mut self, of: u64, is_bounded: bool) {
        if let Some(outgoing) = self.copies.get_mut(&of) {
            outgoing.is_bounded = is_bounded;
        }
    }

    /// Whether the writers of its slots wait for a copy.
    pub fn is_full(&self, of: u64) -> bool {
        let is_outgrown = |(_, held_for): &(Slot, u64)| *held_for == of;
        self.copies.get(&of).is_some_and(|outgoing| outgoing.is_full) || self.held.iter().any(is_outgrown)
    }

    /// Goes on with a slot that the node has as it is here, in this position; or in `start`, where nothing has happened
    /// here since the epoch began with that. False: it has something else.
    pub fn begin_at(&mut self, slot: Slot, of: u64, held: Position, start: Option<Position>) -> Result<bool, Broken> {
        self.begin_where(slot, of, |_, position| held == position || (position.seq == 0 && start == Some(held)))
    }

    /// Goes on with a slot of which the node has this digest, where it is that of what is here. False: it has something else.
    pub fn begin_alike(&mut self, slot: Slot, of: u64, digest: u64) -> Result<bool, Broken> {
        self.begin_where(slot, of, |table, _| digest_of(table) == Some(digest))
    }

    /// Goes on with a slot where the node has what is here, by its keys and where they stand.
    fn begin_where(
        &mut self,
        slot: Slot,
        of: u64,
        is_same: impl FnOnce(Option<&SlotTable>, Position) -> bool,
    ) -> Result<bool, Broken> {
        let engine = Arc::clone(&self.engine);
        let mut keyspace = self.lock_at_end(&engine, slot)?;
        let slot_in_shard = engine.placement().slot_in_shard(slot);
        let shard = keyspace.locks.shard(engine.placement().shard(slot));
        let meta = shard.meta(slot_in_shard);
        let followed = self.try_follow_to(Some(meta.last));
        let is_same = is_same(shard.table(0, slot_in_shard), meta.position);
        drop(keyspace);
        self.end_if_broken(followed)?;
        if is_same && let Some(outgoing) = self.copies.get_mut(&of) {
            self.slots.insert((slot, of), Export::complete(self.portion, meta.position));
            outgoing.push(Record::complete(slot, meta.position));
        }
        Ok(is_same)
    }

    /// Keeps what happens to a slot from now on for a node that is expected to have it as it is here. The log is read to its end,
    /// and nothing has happened to the slot since.
    pub fn park(&mut self, slot: Slot, of: u64) {
        self.listen();
        let position = self.engine.position(slot);
        self.copies.entry(of).or_default();
        self.slots.insert((slot, of), Export::complete(self.portion, position));
    }

    /// The node has come: it has these of the slots that were kept for it, of the others it is sent what it lacks.
    pub fn unpark(&mut self, of: u64, has_it: impl Fn(Slot) -> bool) -> Result<(), Broken> {
        // That the epoch has begun stands in the log, and may not have been read yet.
        self.follow_to(None)?;
        let Some(outgoing) = self.copies.get_mut(&of) else { return Ok(()) };
        let mut complete: BTreeMap<Slot, Position> = BTreeMap::new();
        self.slots.retain(|(slot, export_of), export| {
            if *export_of != of {
                return true;
            }
            if has_it(*slot) {
                // Its epoch began with what it has.
                let epoch = export.position.unwrap_or_default().epoch;
                complete.insert(*slot, Position { epoch, seq: 0 });
            }
            complete.contains_key(slot)
        });
        outgoing.queue.retain(|record| complete.contains_key(&record.slot));
        for (slot, position) in complete {
            outgoing.queue.push_front(Record::complete(slot, position));
        }
        outgoing.bytes = outgoing.queue.iter().map(Record::size).sum();
        Ok(())
    }

    /// Ends the export of one slot of several.
    pub fn end_slot(&mut self, slot: Slot, of: u64) {
        self.slots.remove(&(slot, of));
        if let Some(outgoing) = self.copies.get_mut(&of) {
            outgoing.unread.remove(&slot);
        }
        if self.held.remove(&(slot, of)) {
            self.engine.set_throttled(slot, self.is_throttled(slot));
            self.engine.log.tell_room();
        }
    }

    /// Whether a slot is sent to whoever this is for.
    pub fn has_slot(&self, slot: Slot, of: u64) -> bool {
        self.slots.contains_key(&(slot, of))
    }

    /// The slot stands still for a hand-over to the node that follows, which has or will have all of it: says so behind
    /// everything else. The log was read to its end since. False: it is not complete yet.
    pub fn finish(&mut self, slot: Slot, of: u64, begun: u64) -> bool {
        let export = self.slots.get(&(slot, of)).filter(|export| export.is_complete);
        let (Some(export), Some(outgoing)) = (export, self.copies.get_mut(&of)) else { return false };
        let position = export.position.unwrap_or_default();
        let kind = RecordKind::Final { begun };
        outgoing.push(Record { slot, position, kind, effect: Box::default() });
        true
    }

    /// Adds the digest of the next complete slot. The log was read to its end.
    pub fn compare_next(&mut self, of: u64) {
        let Some(outgoing) = self.copies.get_mut(&of) else { return };
        let is_complete = |((slot, export_of), export): (&(Slot, u64), &Export)| {
            (*export_of == of && export.is_complete).then_some((*slot, export.position))
        };
        let behind = outgoing.compared.map_or((Slot::default(), 0), |slot| (slot, u64::MAX));
        let next = self.slots.range(behind..).find_map(is_complete);
        outgoing.compared = next.map(|(slot, _)| slot);
        if let Some((slot, read)) = next
            && let (position, Some(digest)) = self.engine.digest(slot)
            && read == Some(position)
        {
            outgoing.push(Record { slot, position, kind: RecordKind::Digest { digest }, effect: Box::default() });
        }
    }

    fn listen(&mut self) {
        if self.reader.is_none() {
            let reader = self.engine.read_log(Behind::Lost);
            // What was before is in the slots as they are now.
            self.read = self.read.max(reader.begin());
            self.reader = Some(reader);
        }
    }

    /// Ends the exports of a copy.
    pub fn end(&mut self, of: u64) {
        let Some(outgoing) = self.copies.remove(&of) else { return };
        let mut throttled = Vec::new();
        let held = &mut self.held;
        self.slots.retain(|(slot, export_of), _| {
            if *export_of == of && (held.remove(&(*slot, of)) || outgoing.is_full) {
                throttled.push(*slot);
            }
            *export_of != of
        });
        for slot in &throttled {
            self.engine.set_throttled(*slot, self.is_throttled(*slot));
        }
        if self.copies.is_empty() {
            self.reader = None;
            self.chunks.clear();
        }
        if !throttled.is_empty() {
            self.engine.log.tell_room();
        }
    }

    /// Whether the writers of a slot wait for any of those that it is sent to.
    fn is_throttled(&self, slot: Slot) -> bool {
        let exports = self.slots.range((slot, 0)..=(slot, u64::MAX));
        let is_full = |of: u64| self.copies.get(&of).is_some_and(|outgoing| outgoing.is_full);
        exports.map(|((_, of), _)| *of).any(|of| is_full(of) || self.held.contains(&(slot, of)))
    }

    /// Whether the exports of a copy go on: those that have lost their place in the log have ended.
    pub fn has(&self, of: u64) -> bool {
        self.copies.contains_key(&of)
    }

    /// A slot of a copy that is not complete: the next to be read.
    pub fn unread(&self, of: u64) -> Option<Slot> {
        self.copies.get(&of)?.unread.first().copied()
    }

    /// What comparing and sending have come to.
    pub fn compared(&self) -> &Compared {
        &self.engine.compared
    }

    /// The log that is read here.
    pub fn log(&self) -> &Log {
        &self.engine.log
    }

    /// Bytes of entries that may be sent in a second; 0: as many as there are.
    pub fn move_rate(&self) -> u64 {
        self.engine.move_rate.load(Ordering::Relaxed)
    }

    /// So far it has been read: what was before is in the queues, or was taken from them.
    pub fn read_to(&self) -> LogOffset {
        self.read
    }

    /// Records that wait to be taken of a copy.
    pub fn waiting(&self, of: u64) -> usize {
        self.copies.get(&of).map_or(0, |outgoing| outgoing.queue.len())
    }

    /// Bytes that wait to be taken of a copy.
    pub fn waiting_bytes(&self, of: u64) -> usize {
        self.copies.get(&of).map_or(0, |outgoing| outgoing.bytes)
    }

    /// Takes what waits of a copy, in order, until it is this many bytes or more.
    pub fn take(&mut self, of: u64, bytes: usize) -> Vec<Record> {
        let (mut taken, mut size) = (Vec::new(), 0);
        let Some(outgoing) = self.copies.get_mut(&of) else { return taken };
        while size < bytes
            && let Some(record) = outgoing.queue.pop_front()
        {
            size += record.size();
            taken.push(record);
        }
        outgoing.bytes -= size;
        self.throttle();
        taken
    }

    /// Makes the writers of slots wait of which too much waits, until some of it has been taken, and lets those go on whose
    /// value was outgrown and has been read since. Ends copies that take too little.
    fn throttle(&mut self) {
        let slots = &self.slots;
        let is_outgrown = |one: &(Slot, u64)| slots.get(one).is_some_and(Export::is_outgrown);
        let read: Vec<(Slot, u64)> = self.held.iter().filter(|one| !is_outgrown(one)).copied().collect();
        for one in read {
            self.held.remove(&one);
            self.engine.set_throttled(one.0, self.is_throttled(one.0));
            self.engine.log.tell_room();
        }
        let mut changed = Vec::new();
        for (of, outgoing) in &mut self.copies {
            let limit = if outgoing.is_full { BACKLOG_BYTES_MAX - ROOM_BYTES } else { BACKLOG_BYTES_MAX };
            let is_full = outgoing.is_bounded && outgoing.bytes > limit;
            if std::mem::replace(&mut outgoing.is_full, is_full) != is_full {
                changed.push((*of, is_full));
            }
        }
        for (of, is_full) in changed {
            let of_it = self.slots.keys().filter(|(_, export_of)| *export_of == of).map(|(slot, _)| *slot);
            of_it.for_each(|slot| self.engine.set_throttled(slot, self.is_throttled(slot)));
            if !is_full {
                self.engine.log.tell_room();
            }
        }
        self.end_slowest();
    }

    /// Ends what is followed too slowly.
    fn end_slowest(&mut self) {
        loop {
            let following = || self.copies.iter().filter(|(_, outgoing)| !outgoing.is_bounded);
            let waiting: usize = following().map(|(_, outgoing)| outgoing.bytes).sum();
            let slowest = following().max_by_key(|(_, outgoing)| outgoing.bytes).map(|(of, _)| *of);
            match slowest.filter(|_| waiting > FOLLOWED_BYTES_MAX) {
                Some(of) => self.end(of),
                None => return,
            }
        }
    }

    /// Reads the log to its end. Everything that was executed before is in the queues then. Where the log cannot be
    /// followed, all exports end.
    pub fn follow(&mut self) -> Result<(), Broken> {
        self.follow_to(None)?;
        self.throttle();
        Ok(())
    }

    /// Reads the log, and the next entries of a slot as they are then. Where the log cannot be followed, all exports end.
    pub fn step(&mut self, slot: Slot, of: u64, now_ms: u64) -> Result<(), Broken> {
        let engine = Arc::clone(&self.engine);
        let mut keyspace = self.lock_at_end(&engine, slot)?;
        let slot_in_shard = engine.placement().slot_in_shard(slot);
        let shard = keyspace.locks.shard(engine.placement().shard(slot));
        let meta = shard.meta(slot_in_shard);
        let (until, position) = (meta.last, meta.position);
        // The effects of this slot up to now, of which there are few. Nobody waits for room that this reader makes: it is
        // none of those that must have everything.
        let followed = self.try_follow_to(Some(until));
        let read = match (&followed, self.slots.get_mut(&(slot, of))) {
            (Ok(()), Some(export)) => export.read(shard.table(0, slot_in_shard), now_ms),
            _ => Vec::new(),
        };
        drop(keyspace);
        self.end_if_broken(followed)?;
        let Some(export) = self.slots.get_mut(&(slot, of)) else { return Ok(()) };
        export.position.get_or_insert(position);
        if export.is_outgrown() && self.held.insert((slot, of)) {
            engine.set_throttled(slot, true);
        }
        if let Some(outgoing) = self.copies.get_mut(&of) {
            for effect in read {
                outgoing.push(Record::piece(slot, position, effect.into_boxed_slice()));
            }
            if export.is_read() && !std::mem::replace(&mut export.is_complete, true) {
                outgoing.unread.remove(&slot);
                outgoing.push(Record::complete(slot, position));
            }
        }
        self.throttle();
        Ok(())
    }

    /// Locks a slot of which the log holds little that has not been read.
    fn lock_at_end<'e>(&mut self, engine: &'e Engine, slot: Slot) -> Result<Keyspace<'e>, Broken> {
        for tries in 1.. {
            self.follow_to(None)?;
            // At time 0 nothing has expired: an entry is removed by an effect of its own.
            let mut keyspace = engine.lock_slot(slot, 0, 0);
            let shard = keyspace.locks.shard(engine.placement().shard(slot));
            let last = shard.meta(engine.placement().slot_in_shard(slot)).last;
            if last.0.saturating_sub(self.read.0) <= LOCKED_LOG_BYTES || tries == FOLLOWED_MAX {
                return Ok(keyspace);
            }
        }
        unreachable!("the last try returns")
    }

    fn follow_to(&mut self, until: Option<LogOffset>) -> Result<(), Broken> {
        let followed = self.try_follow_to(until);
        self.end_if_broken(followed)
    }

    /// No lock may be held.
    fn end_if_broken(&mut self, followed: Result<(), Broken>) -> Result<(), Broken> {
        if followed.is_err() {
            // What comes next does not follow on what is in the queues.
            let copies: Vec<u64> = self.copies.keys().copied().collect();
            copies.into_iter().for_each(|of| self.end(of));
        }
        followed
    }

    fn try_follow_to(&mut self, until: Option<LogOffset>) -> Result<(), Broken> {
        loop {
            while let Some(chunk) = self.chunks.front().cloned() {
                self.read_chunk(&chunk, until)?;
                if self.read < chunk.end() {
                    return Ok(());
                }
                self.chunks.pop_front();
            }
            if until.is_some_and(|until| self.read >= until) {
                return Ok(());
            }
            let Some(reader) = &mut self.reader else { return Ok(()) };
            self.chunks.extend(reader.take(TAKE_BYTES)?);
            if self.chunks.is_empty() {
                return Ok(());
            }
        }
    }

    /// Goes on in a chunk, up to its end or to `until`.
    fn read_chunk(&mut self, chunk: &Chunk, until: Option<LogOffset>) -> Result<(), Broken> {
        for (group, end) in chunk.groups() {
            if end <= self.read {
                continue;
            }
            if until.is_some_and(|until| end > until) {
                return Ok(());
            }
            let mut is_first = true;
            for run in group.runs() {
                self.read_run(&run.ok_or(Broken::Malformed)?, is_first)?;
                is_first = false;
            }
            self.read = end;
        }
        self.read = chunk.end();
        Ok(())
    }

    /// `is_first`: of its group; what comes behind it in the group is applied with it.
    fn read_run(&mut self, run: &Run<'_>, is_first: bool) -> Result<(), Broken> {
        let Some(slot) = run.slot else { return self.read_node_run(run) };
        for ((_, of), export) in self.slots.range_mut((slot, 0)..=(slot, u64::MAX)) {
            let Some(outgoing) = self.copies.get_mut(of) else { continue };
            if export.is_complete && run.cause != Cause::Move {
                export.follow_run(slot, run)?;
                let kind = RecordKind::Run { count: u32::try_from(run.count).unwrap_or(u32::MAX) };
                // Other databases are not exported.
                let effects = if run.database == 0 { run.effects } else { &[] };
                if !is_first && outgoing.queue.back_mut().is_some_and(|last| last.extend(run, effects)) {
                    outgoing.bytes += effects.len();
                    continue;
                }
                outgoing.push(Record { slot, position: run.last(), kind, effect: effects.into() });
                continue;
            }
            let (mut position, mut effects) = (run.first, run.effects);
            while !effects.is_empty() {
                let before = effects;
                let effect = Effect::decode(&mut effects).ok_or(Broken::Malformed)?;
                let encoded = &before[..before.len() - effects.len()];
                if export.goes_on(slot, position, &effect)? {
                    export.read_effect(slot, position, &effect, encoded, outgoing);
                }
                position.seq += 1;
            }
        }
        Ok(())
    }

    /// Of the effects of the node only FLUSHALL and FLUSHDB concern slots of a cluster, which has one database.
    fn read_node_run(&mut self, run: &Run<'_>) -> Result<(), Broken> {
        let mut effects = run.effects;
        while !effects.is_empty() {
            let effect = Effect::decode(&mut effects).ok_or(Broken::Malformed)?;
            let Effect::Flush { database: None | Some(0), slots } = effect else { continue };
            for ((slot, of), export) in self.slots.iter_mut().filter(|((slot, _), _)| slots.contains(*slot)) {
                let Some(outgoing) = self.copies.get_mut(of) else { continue };
                export.position = export.position.map(next);
                export.flush(*slot, export.position.unwrap_or_default(), outgoing);
            }
        }
        Ok(())
    }
}

impl Outgoing {
    fn bounded() -> Outgoing {
        Outgoing { is_bounded: true, ..Outgoing::default() }
    }

    fn push(&mut self, record: Record) {
        self.bytes += record.size();
        self.queue.push_back(record);
    }

    fn push_encoded(&mut self, slot: Slot, position: Position, write: impl FnOnce(&mut Vec<u8>)) {
        let mut effect = Vec::new();
        write(&mut effect);
        self.push(Record::piece(slot, position, effect.into_boxed_slice()));
    }
}

#[cfg(test)]
mod tests;
