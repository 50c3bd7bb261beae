//! What a node has of the keys, and what its log has kept of that when it comes back.
//!
//! The log is a list of what happened. What is kept of it is what a sync has reached; of the rest a crash leaves some from the
//! front. How that becomes bytes and back is tested in `persistence/recovery/tests`.

use crate::world::{Happening, World};
use rand::RngExt;
use starling::base::identity::{Epoch, NodeId, Position};
use starling::base::slot::{SLOT_COUNT, Slot};
use starling::base::slot_ranges::SlotRanges;
use std::collections::{BTreeMap, VecDeque};

/// How long a sync takes, and how long now and then.
const SYNC_US: u64 = 20_000;
const SLOW_SYNC_US: u64 = 2_000_000;

/// One change of what a node has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    /// A client's write, executed here.
    Executed {
        slot: Slot,
        write: u64,
    },
    /// A primary brought it to its copy; where it stands there.
    Copied {
        slot: Slot,
        write: u64,
        position: Position,
    },
    Cleared {
        slot: Slot,
    },
    /// What is here of the slot belongs to this epoch.
    Epoch {
        slot: Slot,
        epoch: Epoch,
    },
    /// A copy is complete in this position.
    Stands {
        slot: Slot,
        position: Position,
    },
}

/// The content of each slot, the list of its writes, and where it stands: the epoch that it belongs to, and how many writes there
/// were since that began.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys {
    contents: BTreeMap<Slot, Vec<u64>>,
    positions: BTreeMap<Slot, Position>,
}

impl Keys {
    pub(crate) fn of(&self, slot: Slot) -> &[u64] {
        self.contents.get(&slot).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn epoch(&self, slot: Slot) -> Option<Epoch> {
        self.positions.get(&slot).map(|position| position.epoch)
    }

    pub(crate) fn position(&self, slot: Slot) -> Position {
        self.positions.get(&slot).copied().unwrap_or_default()
    }

    /// By slot, the epoch that its keys belong to; 0 where they are a part of the slot.
    pub(crate) fn epochs(&self) -> Vec<Option<Epoch>> {
        let mut epochs = vec![None; SLOT_COUNT];
        let parts = self.contents.iter().filter(|(_, writes)| !writes.is_empty());
        parts.for_each(|(slot, _)| epochs[slot.index()] = Some(Epoch(0)));
        let stand = self.positions.iter().filter(|(_, position)| position.epoch.0 > 0);
        stand.for_each(|(slot, position)| epochs[slot.index()] = Some(position.epoch));
        epochs
    }

    /// The slots of which everything is here, up to some position.
    pub(crate) fn complete(&self) -> SlotRanges {
        self.positions.iter().filter(|(_, position)| position.epoch.0 > 0).map(|(slot, _)| *slot).collect()
    }

    pub(crate) fn change(&mut self, change: Change) {
        match change {
            Change::Executed { slot, write } => {
                self.contents.entry(slot).or_default().push(write);
                self.positions.entry(slot).or_default().seq += 1;
            }
            Change::Copied { slot, write, position } => {
                self.contents.entry(slot).or_default().push(write);
                self.positions.insert(slot, position);
            }
            Change::Stands { slot, position } => drop(self.positions.insert(slot, position)),
            Change::Cleared { slot } => {
                self.contents.remove(&slot);
                self.positions.remove(&slot);
            }
            Change::Epoch { slot, epoch } => drop(self.positions.insert(slot, Position { epoch, seq: 0 })),
        }
    }
}

/// The log of one node. Places in it are counted from its beginning.
#[derive(Debug, Default)]
pub(crate) struct Log {
    kept: Keys,
    kept_to: u64,
    rest: VecDeque<Change>,
    /// A sync is under way, and keeps it as far as this.
    pub(crate) syncing_to: Option<u64>,
}

impl Log {
    pub(crate) fn add(&mut self, change: Change) {
        self.rest.push_back(change);
    }

    pub(crate) fn end(&self) -> u64 {
        self.kept_to + self.rest.len() as u64
    }

    pub(crate) fn is_kept(&self, to: u64) -> bool {
        self.kept_to >= to
    }

    /// The sync that is under way, or all that is left to do, is done.
    pub(crate) fn keep(&mut self, to: u64) {
        while self.kept_to < to
            && let Some(change) = self.rest.pop_front()
        {
            self.kept.change(change);
            self.kept_to += 1;
        }
    }

    /// The process ends: so many of the changes that no sync has reached are there all the same. Gives what is there for the
    /// next start, and the writes that are not, with their slots where others have executed them.
    pub(crate) fn crash(mut self, survive: u64) -> (Keys, Vec<(u64, Option<Slot>)>) {
        self.keep(self.kept_to.saturating_add(survive));
        let written = |change: &Change| match change {
            Change::Executed { write, .. } => Some((*write, None)),
            Change::Copied { write, slot, .. } => Some((*write, Some(*slot))),
            _ => None,
        };
        (self.kept, self.rest.iter().filter_map(written).collect())
    }

    /// How many changes no sync has reached.
    pub(crate) fn unkept(&self) -> u64 {
        self.rest.len() as u64
    }

    /// Goes on with what a former life has left.
    pub(crate) fn after(kept: Keys) -> Log {
        Log { kept, ..Log::default() }
    }
}

impl World {
    /// What the log has is there for the next start.
    pub(crate) fn end_process(&mut self, number: usize, survive: u64) {
        let Some(process) = self.nodes[number].process.take() else { return };
        let own: NodeId = process.keeper.own;
        if let Some(log) = process.keeper.log {
            let (kept, lost) = log.crash(survive);
            self.nodes[number].disk.log = Some(kept);
            // What it was given as a copy, and has taken over with its slots, is in nobody's log yet.
            let is_its = |slot: Option<Slot>| slot.is_none_or(|slot| self.agreed.slot(slot).primary == Some(own));
            self.doubtful.extend(lost.into_iter().filter(|(_, slot)| is_its(*slot)).map(|(write, _)| write));
        }
    }

    /// A log is always synced where it has grown, as with `appendfsync always`.
    pub(crate) fn begin_sync(&mut self, number: usize) {
        let Some(process) = &mut self.nodes[number].process else { return };
        let life = process.life;
        let Some(log) = process.keeper.log.as_mut().filter(|log| log.unkept() > 0 && log.syncing_to.is_none()) else {
            return;
        };
        log.syncing_to = Some(log.end());
        let is_slow = self.random.random_bool(0.02);
        let longest_us = if is_slow { SLOW_SYNC_US } else { SYNC_US };
        let delay_us = self.random.random_range(1_000..longest_us);
        self.after(delay_us, Happening::Synced { node: number, life });
    }

    pub(crate) fn on_synced(&mut self, number: usize, life: u64) {
        let Some(process) = self.nodes[number].process.as_mut().filter(|process| process.life == life) else { return };
        let Some(log) = &mut process.keeper.log else { return };
        if let Some(to) = log.syncing_to.take() {
            log.keep(to);
        }
    }
}
