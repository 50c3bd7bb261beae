//! What a node knows of the topology and holds of the keys: the rules by which slots move, without a network.
//!
//! The content of a slot is the list of writes it has seen, so that a lost or doubled one shows. A newcomer asks for whole
//! contents until the primary says that it has stopped; it says for which `BeginHandoff`, because that answer may come
//! late, after an abort and another beginning of the same move.

use starling::base::identity::{Epoch, Incarnation, NodeId};
use starling::base::slot::Slot;
use starling::base::slot_ranges::SlotRanges;
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
    pub(crate) asked: SlotRanges,
    pub(crate) slots: BTreeMap<Slot, Content>,
    /// For the hand-offs begun at these indices, nothing will be added to these slots.
    pub(crate) stopped: Vec<(u64, SlotRanges)>,
}

/// What a node has to do about moves, by the other node.
#[derive(Clone, Default, Debug)]
pub(crate) struct Work {
    /// To be copied here.
    pub(crate) copying: BTreeMap<NodeId, SlotRanges>,
    /// Copied here, served there.
    pub(crate) ready: BTreeMap<NodeId, SlotRanges>,
    /// Coming here, served by nobody.
    pub(crate) handing_off: BTreeMap<NodeId, SlotRanges>,
    /// Gone from here.
    pub(crate) releasing: SlotRanges,
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
    /// The hand-offs seen to begin, by index.
    begun: BTreeMap<u64, SlotRanges>,
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
            begun: BTreeMap::new(),
        };
        keeper.work = keeper.find_work();
        keeper
    }

    /// Applies agreed changes.
    pub(crate) fn learn(&mut self, entries: &[(u64, TopologyChange)]) {
        for (index, change) in entries {
            let done = self.topology.apply(*index, change) == Applied::Done;
            match change {
                TopologyChange::BeginHandoff { slots, .. } if done => {
                    self.begun.insert(*index, slots.clone());
                }
                TopologyChange::Handoff { slots, to, .. } if done && *to == self.own => self.take_over(slots),
                _ => {}
            }
        }
        self.work = self.find_work();
        let (topology, own) = (&self.topology, self.own);
        let held =
            |slot: Slot, epoch: Epoch| topology.slot(slot).primary == Some(own) && topology.slot(slot).epoch == epoch;
        self.contents.retain(|slot, content| held(*slot, content.epoch));
        self.incoming.retain(|slot, _| target_of(topology.slot(*slot).phase) == Some(own));
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
    pub(crate) fn answer(&self, asker: NodeId, asked: &SlotRanges) -> Option<Contents> {
        let mine = |slot: Slot| self.topology.slot(slot).primary == Some(self.own);
        if !self.is_current() || !asked.slots().all(mine) {
            return None;
        }
        let slots = self.contents.iter().filter(|(slot, _)| asked.contains(**slot));
        let stops = |slot: &Slot| self.topology.slot(*slot).phase == Phase::HandingOff { to: asker };
        // The latest beginning that names a slot is the one it is in.
        let stopped = self.begun.iter().map(|(index, begun)| {
            let later = |slot: &Slot| self.begun.range(index + 1..).any(|(_, later)| later.contains(*slot));
            let slots = begun.slots().filter(|slot| asked.contains(*slot) && stops(slot) && !later(slot));
            (*index, slots.collect::<SlotRanges>())
        });
        Some(Contents {
            asked: asked.clone(),
            slots: slots.map(|(slot, content)| (*slot, content.clone())).collect(),
            stopped: stopped.filter(|(_, slots)| !slots.is_empty()).collect(),
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
            if target_of(record.phase) == Some(to) && record.epoch == content.epoch && newer {
                *known = content;
            }
        }
        let in_phase = |slots: &SlotRanges, phase: Phase| -> SlotRanges {
            slots.slots().filter(|slot| self.topology.slot(*slot).phase == phase).collect()
        };
        let copied = in_phase(&contents.asked, Phase::Copying { to });
        let mut changes = Vec::new();
        if !copied.is_empty() {
            changes.push(TopologyChange::CopyReady { slots: copied, to, incarnation });
        }
        for (index, stopped) in contents.stopped {
            let same_beginning =
                self.begun.get(&index).is_some_and(|begun| stopped.slots().all(|slot| begun.contains(slot)));
            let slots = in_phase(&stopped, Phase::HandingOff { to });
            if same_beginning && !slots.is_empty() {
                changes.push(TopologyChange::Handoff { slots, to, incarnation });
            }
        }
        changes
    }

    fn find_work(&self) -> Work {
        let mut work = Work::default();
        let mut lists: [BTreeMap<NodeId, Vec<Slot>>; 3] = Default::default();
        let mut releasing = Vec::new();
        for (slot, record) in Slot::all().zip(self.topology.slots()) {
            work.owned += usize::from(record.primary == Some(self.own));
            let list = match record.phase {
                Phase::Normal | Phase::Dead => continue,
                Phase::Releasing { from } => {
                    if from == self.own {
                        releasing.push(slot);
                    }
                    continue;
                }
                Phase::Copying { to } if to == self.own => &mut lists[0],
                Phase::Ready { to } if to == self.own => &mut lists[1],
                Phase::HandingOff { to } if to == self.own => &mut lists[2],
                _ => continue,
            };
            if let Some(primary) = record.primary {
                list.entry(primary).or_default().push(slot);
            }
        }
        let ranges = |list: BTreeMap<NodeId, Vec<Slot>>| {
            list.into_iter().map(|(node, slots)| (node, slots.into_iter().collect())).collect()
        };
        [work.copying, work.ready, work.handing_off] = lists.map(ranges);
        work.releasing = releasing.into_iter().collect();
        work
    }
}

/// Where a slot moves to.
pub(crate) fn target_of(phase: Phase) -> Option<NodeId> {
    match phase {
        Phase::Copying { to } | Phase::Ready { to } | Phase::HandingOff { to } => Some(to),
        Phase::Normal | Phase::Releasing { .. } | Phase::Dead => None,
    }
}
