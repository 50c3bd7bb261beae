//! What a node knows of the topology and holds of the keys: the cores of `src/moves` and what they act on.
//!
//! The content of a slot is the list of writes it has seen, so that a lost or doubled one shows. There is one content per
//! slot, whoever it belongs to, as in the engine: what a move brings lies where what is served lies.

use crate::copying::{Feeds, Follow};
use crate::log::{Change, Keys, Log};
use starling::base::identity::{Epoch, Incarnation, NodeId, Position};
use starling::base::slot::{SLOT_COUNT, Slot};
use starling::base::slot_ranges::SlotRanges;
use starling::cluster::duties::{self, SlotMove, Stage};
use starling::cluster::topology::{Topology, TopologyChange};
use starling::engine::shard::SlotState;
use starling::moves::coming::Coming;
use starling::moves::copies::CopyTable;
use starling::moves::going::{Answer, Going};
use starling::moves::ownership::{Action, Arrivals, Followed, Ownership};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Slots of which one piece brings something, at most.
const PIECE_SLOTS: usize = 48;

/// One write on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    slot: Slot,
    write: u64,
    /// Of the slot, at its source.
    position: Position,
}

/// What a target asks a source.
#[derive(Clone, Debug)]
pub(crate) enum Question {
    Begin { begun: u64, attempt: u64, slots: SlotRanges, version: u64 },
    Next { begun: u64, attempt: u64, received: u64, version: u64 },
    Look { version: u64 },
}

/// What a source answers.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    NotYet,
    Again,
    Piece { records: Vec<Record>, is_copied: bool, is_stopped: bool },
}

/// One move to this node.
pub(crate) struct Target {
    pub(crate) one: SlotMove,
    pub(crate) epochs: Vec<(Slot, Epoch)>,
    pub(crate) core: Coming,
    /// Records of the stream.
    pub(crate) received: u64,
    /// The question under way; answers to others come too late.
    pub(crate) question: u64,
    /// When its next tick is due.
    pub(crate) wake_us: Option<u64>,
}

/// What was published of one move from here.
#[derive(Default)]
struct Stream {
    /// Slots that have not been read yet.
    waiting: BTreeSet<Slot>,
    /// How many writes of each of the others were published.
    published: BTreeMap<Slot, usize>,
    last: Vec<Record>,
}

pub(crate) struct Keeper {
    pub(crate) own: NodeId,
    pub(crate) topology: Topology,
    pub(crate) coming: BTreeMap<u64, Target>,
    /// Moves to here that are done, and where the log has to be kept to before others need not have their slots.
    pub(crate) releasing: BTreeMap<u64, (SlotMove, u64)>,
    /// How many slots this node is the primary of.
    pub(crate) owned: usize,
    ownership: Ownership,
    pub(crate) arrivals: Arrivals,
    pub(crate) copies: CopyTable,
    pub(crate) feeds: Feeds,
    /// The streams to copies of this node, by their primaries and numbers.
    pub(crate) following: BTreeMap<(NodeId, u64), Follow>,
    going: Going,
    streams: BTreeMap<u64, Stream>,
    states: Vec<SlotState>,
    pub(crate) keys: Keys,
    /// `None`: it keeps none.
    pub(crate) log: Option<Log>,
    /// Moves to here that are complete, and where the log has to be kept to before that may be proposed.
    pub(crate) keeping: Vec<(u64, u64)>,
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
            coming: BTreeMap::new(),
            releasing: BTreeMap::new(),
            owned: 0,
            ownership: Ownership::new(own, keys.epochs()),
            arrivals: Arrivals::default(),
            copies: CopyTable::default(),
            feeds: Feeds::default(),
            following: BTreeMap::new(),
            going: Going::default(),
            streams: BTreeMap::new(),
            states: vec![SlotState::Elsewhere; SLOT_COUNT],
            keys,
            log,
            keeping: Vec::new(),
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
        let Followed { actions, ended, dropped, begun } =
            self.ownership.follow(&topology, incarnation, &moves, &mut self.arrivals, &mut self.copies);
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
        for over in self.going.follow(&topology, self.own, incarnation, &moves) {
            self.streams.remove(&over);
        }
        for number in ended {
            self.coming.remove(&number);
        }
        for slot in dropped {
            self.clear_slot(slot);
        }
        for (one, epochs) in begun {
            let core = Coming::new(one.begun);
            let target = Target { core, epochs, received: 0, question: 0, wake_us: None, one };
            self.coming.insert(target.one.begun, target);
        }
        self.begin_copies(incarnation);
        let has_come = |one: &&SlotMove| one.stage == Stage::Releasing && one.to == self.own;
        let come: BTreeMap<u64, &SlotMove> = moves.iter().filter(has_come).map(|one| (one.begun, one)).collect();
        self.releasing.retain(|begun, _| come.contains_key(begun));
        let end = self.log.as_ref().map_or(0, Log::end);
        for (begun, one) in come {
            self.releasing.entry(begun).or_insert_with(|| (one.clone(), end));
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

    /// Drops what is here of these slots.
    pub(crate) fn clear(&mut self, slots: &SlotRanges) {
        slots.slots().for_each(|slot| self.clear_slot(slot));
    }

    /// Takes in records of a stream, in order.
    pub(crate) fn apply(&mut self, records: &[Record]) {
        for Record { slot, write, position } in records {
            // As in the engine: a change comes with the position that it has at its source.
            self.change(Change::Copied { slot: *slot, write: *write, position: *position });
        }
    }

    /// Everything has arrived: says in advance to which epoch it will belong, as `moves::target` does. Gives where the log
    /// has to be kept to.
    pub(crate) fn complete(&mut self, begun: u64) -> u64 {
        let epochs = self.coming.get(&begun).map_or_else(Vec::new, |target| target.epochs.clone());
        self.arrivals.add(begun, &epochs);
        for (slot, before) in epochs {
            self.set_epoch(slot, Epoch(before.0 + 1));
        }
        self.log.as_ref().map_or(0, Log::end)
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

    /// The version that it answers by.
    pub(crate) fn version(&self) -> u64 {
        self.going.version()
    }

    /// Answers a target, as `moves::source` does.
    pub(crate) fn answer(&mut self, asker: NodeId, question: &Question) -> Option<Reply> {
        let (begun, answer) = match question {
            Question::Begin { begun, attempt, slots, .. } => (*begun, self.going.begin(asker, *begun, *attempt, slots)),
            Question::Next { begun, attempt, received, .. } => {
                (*begun, self.going.next(asker, *begun, *attempt, *received))
            }
            Question::Look { .. } => return None,
        };
        Some(match answer {
            Answer::NotYet => Reply::NotYet,
            Answer::Again => Reply::Again,
            Answer::Same => {
                let records = self.streams.get(&begun).map_or_else(Vec::new, |stream| stream.last.clone());
                Reply::Piece { records, is_copied: false, is_stopped: false }
            }
            Answer::Next { is_first, is_frozen } => {
                if is_first {
                    let waiting = self.going.slots(begun).slots().collect();
                    self.streams.insert(begun, Stream { waiting, ..Stream::default() });
                }
                self.piece(begun, is_frozen)
            }
        })
    }

    /// The next piece: effects on what was read, and slots that were not.
    fn piece(&mut self, begun: u64, is_frozen: bool) -> Reply {
        let Some(stream) = self.streams.get_mut(&begun) else { return Reply::Again };
        let next: Vec<Slot> = stream.waiting.iter().take(PIECE_SLOTS).copied().collect();
        for slot in next {
            stream.waiting.remove(&slot);
            stream.published.insert(slot, 0);
        }
        let mut records = Vec::new();
        for (slot, published) in &mut stream.published {
            let (writes, position) = (self.keys.of(*slot), self.keys.position(*slot));
            records.extend(writes[*published..].iter().map(|write| Record { slot: *slot, write: *write, position }));
            *published = writes.len();
        }
        stream.last.clone_from(&records);
        let is_copied = stream.waiting.is_empty();
        self.going.sent(begun, records.len() as u64);
        Reply::Piece { records, is_copied, is_stopped: is_copied && is_frozen }
    }
}
