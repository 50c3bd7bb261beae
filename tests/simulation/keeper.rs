//! What a node knows of the topology and holds of the keys: the cores of `src/moves` and what they act on.
//!
//! The content of a slot is the list of writes it has seen, so that a lost or doubled one shows. There is one content per
//! slot, whoever it belongs to, as in the engine: what a copy has lies where what is served lies.

use crate::copying::{Feeds, Follow};
use crate::log::{Change, Keys, Log};
use starling::base::identity::{Epoch, Incarnation, NodeId, Position};
use starling::base::slot::{SLOT_COUNT, Slot};
use starling::base::slot_ranges::SlotRanges;
use starling::cluster::duties::{self, SlotMove, Stage};
use starling::cluster::topology::{Topology, TopologyChange};
use starling::engine::shard::SlotState;
use starling::moves::copies::CopyTable;
use starling::moves::ownership::{Action, Followed, Ownership};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) struct Keeper {
    pub(crate) own: NodeId,
    pub(crate) topology: Topology,
    /// Hand-overs to here that are done, and where the log has to be kept to before others need not have their slots.
    pub(crate) settling: BTreeMap<u64, (SlotMove, u64)>,
    /// How many slots this node is the primary of.
    pub(crate) owned: usize,
    ownership: Ownership,
    pub(crate) copies: CopyTable,
    pub(crate) feeds: Feeds,
    /// The streams to copies of this node, by their primaries and numbers.
    pub(crate) following: BTreeMap<(NodeId, u64), Follow>,
    states: Vec<SlotState>,
    pub(crate) keys: Keys,
    /// `None`: it keeps none.
    pub(crate) log: Option<Log>,
}

impl Keeper {
    /// A node that has nothing, and no log.
    pub(crate) fn new(own: NodeId, topology: Topology) -> Keeper {
        Keeper::returned(own, topology, Keys::default(), None)
    }

    /// A node with what its log has kept.
    pub(crate) fn returned(own: NodeId, topology: Topology, keys: Keys, log: Option<Log>) -> Keeper {
        Keeper {
            own,
            topology,
            settling: BTreeMap::new(),
            owned: 0,
            ownership: Ownership::new(own, keys.epochs()),
            copies: CopyTable::default(),
            feeds: Feeds::default(),
            following: BTreeMap::new(),
            states: vec![SlotState::Elsewhere; SLOT_COUNT],
            keys,
            log,
        }
    }

    /// Applies agreed changes.
    pub(crate) fn learn(&mut self, entries: &[(u64, TopologyChange)]) {
        for (index, change) in entries {
            self.topology.apply(*index, change);
        }
    }

    /// Does what follows from the topology, as `moves::Follower` does.
    pub(crate) fn follow(&mut self, incarnation: Option<Incarnation>, now_us: u64) {
        let (topology, moves) = (Arc::new(self.topology.clone()), duties::moves(&self.topology));
        let Followed { actions, dropped } = self.ownership.follow(&topology, incarnation, &mut self.copies);
        self.end_copies(incarnation);
        let mut anew = None;
        for action in actions {
            match action {
                Action::BeginAnew(slot) => {
                    anew = Some(slot);
                    self.clear_slot(slot);
                }
                Action::Set { slot, state, epoch } => {
                    self.states[slot.index()] = state;
                    let start = self.keys.position(slot);
                    // What is here of a slot that is somebody else's stands where it stood.
                    if state != SlotState::Elsewhere && start.epoch != epoch {
                        if anew != Some(slot) {
                            self.feeds.begin_epoch(slot, start, &topology, now_us);
                        }
                        self.set_epoch(slot, epoch);
                    }
                }
                Action::ShowCopy { .. } => {}
            }
        }
        self.feeds.follow(&topology, self.own, incarnation, now_us);
        for slot in dropped {
            self.clear_slot(slot);
        }
        self.begin_copies(incarnation);
        let has_come = |one: &&SlotMove| one.stage == Stage::Settling && one.to == self.own;
        let come: BTreeMap<u64, &SlotMove> = moves.iter().filter(has_come).map(|one| (one.begun, one)).collect();
        self.settling.retain(|begun, _| come.contains_key(begun));
        let end = self.log.as_ref().map_or(0, Log::end);
        for (begun, one) in come {
            self.settling.entry(begun).or_insert_with(|| (one.clone(), end));
        }
        self.owned = self.topology.slots().iter().filter(|record| record.primary == Some(self.own)).count();
    }

    /// Whether it executes commands on a slot.
    pub(crate) fn serves(&self, slot: Slot) -> bool {
        self.states[slot.index()] == SlotState::Serving
    }

    /// What is here of a slot.
    pub(crate) fn held(&self, slot: Slot) -> &[u64] {
        self.keys.of(slot)
    }

    /// A client's write.
    pub(crate) fn write(&mut self, slot: Slot, write: u64) {
        self.change(Change::Executed { slot, write });
    }

    fn clear_slot(&mut self, slot: Slot) {
        if !self.held(slot).is_empty() {
            self.change(Change::Cleared { slot });
        }
    }

    fn set_epoch(&mut self, slot: Slot, epoch: Epoch) {
        if self.keys.epoch(slot) != Some(epoch) {
            self.change(Change::Epoch { slot, epoch });
        }
    }

    pub(crate) fn change(&mut self, change: Change) {
        self.keys.change(change);
        if let Change::Executed { slot, .. } | Change::Cleared { slot } | Change::Epoch { slot, .. } = change {
            self.feeds.changed(slot);
        }
        if let Some(log) = &mut self.log {
            log.add(change);
        }
    }

    /// Answers an election: where its copies stand.
    pub(crate) fn answer_election(&mut self, slots: &SlotRanges, epoch: Epoch) -> Vec<Option<Position>> {
        self.copies.answer_election(&self.topology, slots, epoch, |slot| self.keys.position(slot))
    }
}
