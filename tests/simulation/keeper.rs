//! What a node knows of the topology and holds of the keys: the rules by which slots move, without a network.
//!
//! The content of a slot is the list of writes it has seen, so that a lost or doubled one shows. A newcomer asks for whole
//! contents until the primary says that it has stopped. Every message names the move it belongs to, because it may come
//! late, after an abort and another beginning of a move of the same slots.

use starling::base::identity::{Epoch, Incarnation, NodeId};
use starling::base::slot::Slot;
use starling::base::slot_ranges::SlotRanges;
use starling::cluster::duties::{self, SlotMove, Stage};
use starling::cluster::topology::{Applied, Phase, Topology, TopologyChange};
use std::collections::BTreeMap;

/// What one slot holds.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Content {
    pub(crate) epoch: Epoch,
    pub(crate) writes: Vec<u64>,
}

/// An answer of a primary to a newcomer. Slots that are asked for and not listed are empty.
#[derive(Clone, Debug)]
pub(crate) struct Contents {
    /// The number of the move.
    pub(crate) begun: u64,
    pub(crate) asked: SlotRanges,
    pub(crate) slots: BTreeMap<Slot, Content>,
    /// Nothing will be added to these slots in this move.
    pub(crate) stopped: bool,
}

/// What a node has to do about moves.
#[derive(Clone, Default, Debug)]
pub(crate) struct Work {
    /// Moves that come here and are not done.
    pub(crate) coming: Vec<SlotMove>,
    /// Moves that are done, of slots that may still be held here.
    pub(crate) releasing: Vec<SlotMove>,
    /// How many slots this node is the primary of.
    pub(crate) owned: usize,
}

pub(crate) struct Keeper {
    pub(crate) own: NodeId,
    pub(crate) topology: Topology,
    /// What the topology gave this process, and at which index.
    pub(crate) registered: Option<(Incarnation, u64)>,
    pub(crate) work: Work,
    contents: BTreeMap<Slot, Content>,
    incoming: BTreeMap<Slot, Content>,
}

impl Keeper {
    pub(crate) fn new(own: NodeId, topology: Topology) -> Keeper {
        let mut keeper = Keeper {
            own,
            topology,
            registered: None,
            work: Work::default(),
            contents: BTreeMap::new(),
            incoming: BTreeMap::new(),
        };
        keeper.work = keeper.find_work();
        keeper
    }

    /// Applies agreed changes.
    pub(crate) fn learn(&mut self, entries: &[(u64, TopologyChange)]) {
        for (index, change) in entries {
            let done = self.topology.apply(*index, change) == Applied::Done;
            match change {
                TopologyChange::Handoff { slots, to, .. } if done && *to == self.own => self.take_over(slots),
                _ => {}
            }
        }
        self.work = self.find_work();
        let (topology, own) = (&self.topology, self.own);
        let held =
            |slot: Slot, epoch: Epoch| topology.slot(slot).primary == Some(own) && topology.slot(slot).epoch == epoch;
        self.contents.retain(|slot, content| held(*slot, content.epoch));
        self.incoming.retain(|slot, _| topology.slot(*slot).phase.target() == Some(own));
    }

    /// The newcomer becomes the primary with what it has copied.
    fn take_over(&mut self, slots: &SlotRanges) {
        for slot in slots.slots() {
            let epoch = self.topology.slot(slot).epoch;
            if let Some(content) = self.incoming.remove(&slot).filter(|content| content.epoch.0 + 1 == epoch.0) {
                self.contents.insert(slot, Content { epoch, ..content });
            }
        }
    }

    /// Whether this process is the one that the topology means by this node.
    pub(crate) fn is_current(&self) -> bool {
        let node = self.topology.nodes.get(&self.own);
        node.is_some_and(|node| self.registered.is_some_and(|(incarnation, _)| node.incarnation == incarnation))
    }

    /// Whether its registration was superseded, or the node removed: it must register again, with nothing.
    pub(crate) fn is_fenced(&self) -> bool {
        let Some((incarnation, index)) = self.registered else { return false };
        self.topology.version >= index
            && self.topology.nodes.get(&self.own).is_none_or(|node| node.incarnation != incarnation)
    }

    /// Whether it may execute commands on a slot.
    pub(crate) fn serves(&self, slot: Slot) -> bool {
        let record = self.topology.slot(slot);
        let stopped = matches!(record.phase, Phase::HandingOff { .. } | Phase::Dead);
        self.is_current() && record.primary == Some(self.own) && !stopped
    }

    /// The content of a slot that it serves.
    pub(crate) fn content(&mut self, slot: Slot) -> &mut Content {
        let epoch = self.topology.slot(slot).epoch;
        self.contents.entry(slot).or_insert(Content { epoch, writes: Vec::new() })
    }

    /// Answers a newcomer, if it is the primary of all that is asked for.
    pub(crate) fn answer(&self, asker: NodeId, begun: u64, asked: &SlotRanges) -> Option<Contents> {
        let mine = |slot: Slot| self.topology.slot(slot).primary == Some(self.own);
        if !self.is_current() || !asked.slots().all(mine) {
            return None;
        }
        let slots = self.contents.iter().filter(|(slot, _)| asked.contains(**slot));
        let stops = |slot: Slot| self.topology.slot(slot).phase == Phase::HandingOff { to: asker, begun };
        Some(Contents {
            begun,
            asked: asked.clone(),
            slots: slots.map(|(slot, content)| (*slot, content.clone())).collect(),
            stopped: asked.slots().all(stops),
        })
    }

    /// Takes in what a primary answered. Gives the changes that follow.
    pub(crate) fn take_in(&mut self, contents: Contents) -> Vec<TopologyChange> {
        let Some((incarnation, _)) = self.registered.filter(|_| self.is_current()) else { return Vec::new() };
        let to = self.own;
        for (slot, content) in contents.slots {
            let record = self.topology.slot(slot);
            let known = self.incoming.entry(slot).or_default();
            let newer = (content.epoch, content.writes.len()) >= (known.epoch, known.writes.len());
            if record.phase.target() == Some(to) && record.epoch == content.epoch && newer {
                *known = content;
            }
        }
        let in_phase = |slots: &SlotRanges, phase: Phase| -> SlotRanges {
            slots.slots().filter(|slot| self.topology.slot(*slot).phase == phase).collect()
        };
        let begun = contents.begun;
        let copied = in_phase(&contents.asked, Phase::Copying { to, begun });
        let mut changes = Vec::new();
        if !copied.is_empty() {
            changes.push(TopologyChange::CopyReady { slots: copied, to, incarnation, begun });
        }
        let stopped = in_phase(&contents.asked, Phase::HandingOff { to, begun });
        if contents.stopped && !stopped.is_empty() {
            changes.push(TopologyChange::Handoff { slots: stopped, to, incarnation, begun });
        }
        changes
    }

    fn find_work(&self) -> Work {
        let owned = self.topology.slots().iter().filter(|record| record.primary == Some(self.own)).count();
        let (mut coming, mut releasing) = (Vec::new(), Vec::new());
        for one in duties::moves(&self.topology) {
            match one.stage {
                Stage::Releasing if one.from == self.own => releasing.push(one),
                Stage::Copying | Stage::Ready | Stage::HandingOff if one.to == self.own => coming.push(one),
                _ => {}
            }
        }
        Work { coming, releasing, owned }
    }
}
