//! Copies: what a primary sends, and what a copy takes, around the cores of `moves/copies`.
//!
//! A stream is a list of records as on the wire: of a slot that the copy lacks "it is empty", its writes, and that it is complete;
//! then one run for every write; and "nothing comes behind" where it is handed over. Each has the slot's position: its epoch, and
//! how many writes there were since that began. A long stream is cut wherever a piece is full.

use crate::agreement::Purpose;
use crate::duty::Message;
use crate::invariants::Observation;
use crate::keeper::Keeper;
use crate::log::{Change, Keys};
use crate::quorum::Quorum;
use crate::world::{Happening, World};
use rand::RngExt;
use starling::base::identity::{Epoch, Incarnation, NodeId, Position};
use starling::base::slot::Slot;
use starling::base::slot_ranges::SlotRanges;
use starling::cluster::topology::{NodeState, Topology, TopologyChange};
use starling::engine::export::RecordKind;
use starling::engine::log::LogOffset;
use starling::moves::copies::feeding::{Answer, Feeding};
use starling::moves::copies::following;
use starling::moves::copies::following::{Action, Event, Following, PullFailure};
use starling::moves::copies::messages::CopyRequest;
use starling::moves::copies::progress::Progress;
use starling::moves::copies::table::{Step, Unfit};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Records of one piece at most.
const PIECE_RECORDS: usize = 512;
/// How long the primary may take to answer, and how long it waits where there is nothing.
const ANSWER_LIMIT_US: u64 = 3_000_000;
const ANSWER_WITHIN_US: u64 = 300_000;
/// What is kept for a copy that does not ask is given up after this time.
const PARKED_LIMIT_US: u64 = 2_000_000;
/// Attempts of one life of a stream, as in `moves`.
const ATTEMPT_BITS: u32 = 20;

/// One record of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CopyRecord {
    slot: Slot,
    kind: RecordKind,
    position: Position,
    /// Of a piece without one: the slot is empty.
    write: Option<u64>,
}

/// What a primary, or a copy that is asked in an election, answers.
#[derive(Clone, Debug)]
pub(crate) enum CopyReply {
    Piece(Vec<CopyRecord>),
    NotYet,
    Again,
    Positions(Vec<Option<Position>>),
}

/// A question about copies on its way.
#[derive(Clone, Debug)]
pub(crate) struct CopyQuestion {
    pub(crate) number: u64,
    /// The stream: its primary, and the number of the copy.
    pub(crate) stream: (NodeId, u64),
    /// The life that asks.
    pub(crate) incarnation: Incarnation,
    pub(crate) request: CopyRequest,
}

/// What happens to a life of a node about copies.
#[derive(Clone, Debug)]
pub(crate) enum CopyHappening {
    Tick {
        stream: (NodeId, u64),
    },
    Unanswered {
        stream: (NodeId, u64),
        question: u64,
    },
    /// A question for which there was nothing is looked at again.
    Asked {
        from: NodeId,
        question: CopyQuestion,
        until_us: u64,
    },
    /// The leader waits no longer for the answers of this round.
    ElectionOver {
        round: u64,
    },
}

/// What a node sends to the copies of its slots, as `moves/copies/feeds`.
#[derive(Default)]
pub(crate) struct Feeds {
    feeding: Feeding,
    streams: BTreeMap<u64, Feed>,
    /// Of slots that came here with an epoch: where they stood before.
    starts: BTreeMap<Slot, Position>,
    /// What is kept for copies that are expected to ask soon, and since when.
    parked: BTreeMap<u64, (u64, BTreeSet<Slot>)>,
    pub(crate) quorum: Quorum,
}

#[derive(Default)]
struct Feed {
    waiting: VecDeque<Slot>,
    /// Of the others: the epoch, and how many writes were read.
    read: BTreeMap<Slot, (Epoch, usize)>,
    /// Of these something may have happened since.
    changed: BTreeSet<Slot>,
    unsent: VecDeque<CopyRecord>,
    last: Vec<CopyRecord>,
    finished: BTreeSet<(Slot, u64)>,
    progress: Progress,
}

impl Feeds {
    /// A slot begins an epoch here with what it had in this position.
    pub(crate) fn begin_epoch(&mut self, slot: Slot, start: Position, topology: &Topology, now_us: u64) {
        self.starts.insert(slot, start);
        for copy in topology.slot(slot).copies.iter().filter(|copy| !topology.is_lost(copy)) {
            let is_up = topology.nodes.get(&copy.node).is_some_and(|node| node.state == NodeState::Active);
            if is_up && !self.streams.contains_key(&copy.number) {
                self.parked.entry(copy.number).or_insert_with(|| (now_us, BTreeSet::new())).1.insert(slot);
            }
        }
    }

    pub(crate) fn follow(&mut self, topology: &Topology, node: NodeId, life: Option<Incarnation>, now_us: u64) {
        let (over, shrunk) = self.feeding.follow(topology, node, life);
        self.quorum.follow(self.feeding.groups(), &over);
        for number in over {
            self.streams.remove(&number);
            self.parked.remove(&number);
        }
        for (number, gone) in shrunk {
            if let Some(feed) = self.streams.get_mut(&number) {
                feed.waiting.retain(|slot| !gone.contains(*slot));
                feed.read.retain(|slot, _| !gone.contains(*slot));
            }
        }
        self.starts.retain(|slot, _| topology.slot(*slot).primary == Some(node));
        self.parked.retain(|_, (since_us, _)| now_us - *since_us < PARKED_LIMIT_US);
    }

    /// Something has happened to a slot.
    pub(crate) fn changed(&mut self, slot: Slot) {
        self.quorum.changed();
        for feed in self.streams.values_mut().filter(|feed| feed.read.contains_key(&slot)) {
            feed.changed.insert(slot);
        }
    }

    /// The answer to a copy; or the question that is to be asked again in a moment.
    pub(crate) fn answer(
        &mut self,
        keys: &Keys,
        (node, incarnation): (NodeId, Incarnation),
        request: &CopyRequest,
    ) -> Result<CopyReply, CopyRequest> {
        let (number, attempt, received, version, answer) = match request {
            CopyRequest::Begin { number, attempt, slots, version, .. } => {
                (*number, *attempt, 0, *version, self.feeding.begin((node, incarnation), *number, *attempt, slots))
            }
            CopyRequest::Next { number, attempt, received, version, .. } => {
                let answer = self.feeding.next(node, *number, *attempt, *received);
                (*number, *attempt, *received, *version, answer)
            }
            CopyRequest::Fence { .. } => return Ok(CopyReply::Again),
        };
        match answer {
            Answer::NotYet => return Ok(CopyReply::NotYet),
            Answer::Again => return Ok(CopyReply::Again),
            Answer::Same => {
                return Ok(CopyReply::Piece(self.streams.get(&number).map_or_else(Vec::new, |feed| feed.last.clone())));
            }
            Answer::Next { is_first } => {
                if let (true, CopyRequest::Begin { slots, held, .. }) = (is_first, request) {
                    self.begin(keys, number, slots, held);
                }
            }
        }
        let finals = self.feeding.finals(number);
        let (end, quorum) = (self.quorum.end(), &mut self.quorum);
        let piece = self.streams.get_mut(&number).and_then(|feed| {
            feed.read(keys, finals, end).then(|| {
                quorum.copy_has(node, number, feed.progress.received(received));
                feed.piece()
            })
        });
        let Some(records) = piece else {
            self.streams.remove(&number);
            self.quorum.ended(number);
            self.feeding.end(number);
            return Ok(CopyReply::Again);
        };
        self.feeding.sent(number, records.len() as u64);
        match records.is_empty() {
            true => Err(CopyRequest::Next { number, attempt, received, is_kept: false, version }),
            false => Ok(CopyReply::Piece(records)),
        }
    }

    /// Slots that the copy has as they are follow at once, of the others everything is sent.
    fn begin(&mut self, keys: &Keys, number: u64, slots: &SlotRanges, held: &[Option<Position>]) {
        let (_, parked) = self.parked.remove(&number).unwrap_or_default();
        let mut feed = Feed::default();
        for (slot, held) in slots.slots().zip(held) {
            let (here, start, length) = (keys.position(slot), self.starts.get(&slot), keys.of(slot).len());
            let had_start = held.is_some() && held.as_ref() == start;
            if parked.contains(&slot) && had_start {
                // Its epoch began with what it has, and what has happened since was kept.
                let begun = Position { epoch: here.epoch, seq: 0 };
                feed.complete(slot, begun, length - here.seq as usize);
                feed.changed.insert(slot);
            } else if *held == Some(here) || (here.seq == 0 && had_start) {
                feed.complete(slot, here, length);
            } else {
                feed.waiting.push_back(slot);
            }
        }
        self.streams.insert(number, feed);
    }
}

impl Feed {
    fn complete(&mut self, slot: Slot, position: Position, length: usize) {
        self.unsent.push_back(CopyRecord { slot, kind: RecordKind::Complete, position, write: None });
        self.read.insert(slot, (position.epoch, length));
    }

    /// Adds what has happened, and then slots until there is a piece. False: it does not follow on what was sent.
    fn read(&mut self, keys: &Keys, finals: &[(Slot, u64)], end: LogOffset) -> bool {
        for slot in std::mem::take(&mut self.changed) {
            let (here, writes) = (keys.position(slot), keys.of(slot));
            let Some((epoch, length)) = self.read.get_mut(&slot) else { continue };
            if *epoch != here.epoch || *length > writes.len() {
                return false;
            }
            for (index, write) in writes.iter().enumerate().skip(*length) {
                let position = Position { seq: here.seq - (writes.len() - 1 - index) as u64, ..here };
                let kind = RecordKind::Run { count: 1 };
                self.unsent.push_back(CopyRecord { slot, kind, position, write: Some(*write) });
            }
            *length = writes.len();
        }
        if self.waiting.is_empty() {
            self.progress.read(end, self.unsent.len());
        }
        for (slot, begun) in finals {
            if self.read.contains_key(slot) && self.finished.insert((*slot, *begun)) {
                let (kind, position) = (RecordKind::Final { begun: *begun }, keys.position(*slot));
                self.unsent.push_back(CopyRecord { slot: *slot, kind, position, write: None });
            }
        }
        while self.unsent.len() < PIECE_RECORDS
            && let Some(slot) = self.waiting.pop_front()
        {
            let (position, writes) = (keys.position(slot), keys.of(slot));
            let piece = |write| CopyRecord { slot, kind: RecordKind::Piece, position, write };
            self.unsent.push_back(piece(None));
            self.unsent.extend(writes.iter().map(|write| piece(Some(*write))));
            self.complete(slot, position, writes.len());
        }
        true
    }

    fn piece(&mut self) -> Vec<CopyRecord> {
        let length = self.unsent.len().min(PIECE_RECORDS);
        self.last = self.unsent.drain(..length).collect();
        // A record is one byte here.
        self.last.iter().for_each(|_| self.progress.written(1));
        self.last.clone()
    }
}

/// One stream to this node, as `moves/copies/following`.
pub(crate) struct Follow {
    /// They may become fewer while it follows.
    slots: SlotRanges,
    core: Following,
    /// Records of the stream.
    received: u64,
    /// The question under way; answers to others come too late.
    question: u64,
    /// When its next tick is due.
    wake_us: Option<u64>,
}

impl Keeper {
    /// Ends the streams of copies that are none any more, or that have another primary or other slots, as `moves` does.
    pub(crate) fn end_copies(&mut self, incarnation: Option<Incarnation>) {
        let wanted = following(&self.topology, self.own, incarnation);
        self.following.retain(|stream, follow| match wanted.get(stream) {
            Some(wanted) if wanted.difference(&follow.slots).is_empty() => {
                follow.slots.clone_from(wanted);
                true
            }
            _ => false,
        });
    }

    pub(crate) fn begin_copies(&mut self, incarnation: Option<Incarnation>) {
        let attempt = self.topology.version << ATTEMPT_BITS;
        for (stream, slots) in following(&self.topology, self.own, incarnation) {
            let core = Following::new(attempt);
            self.following.entry(stream).or_insert(Follow { slots, core, received: 0, question: 0, wake_us: None });
        }
    }

    fn learned(&self, follow: &Follow) -> Event {
        let is_ready = |slot: Slot| self.topology.slot(slot).copies.on(self.own).is_some_and(|copy| copy.ready);
        Event::Learned { version: self.topology.version, is_ready: follow.slots.slots().all(is_ready) }
    }

    /// Applies records of a stream, up to the first that does not follow from what is here. Gives what was written.
    pub(crate) fn take_copy(
        &mut self,
        stream: (NodeId, u64),
        records: &[CopyRecord],
    ) -> Result<Vec<(Slot, Epoch)>, Unfit> {
        let Some(follow) = self.following.get_mut(&stream) else { return Ok(Vec::new()) };
        follow.received += records.len() as u64;
        let slots = follow.slots.clone();
        let mut applied = Vec::new();
        for CopyRecord { slot, kind, position, write } in records.iter().copied().filter(|one| slots.contains(one.slot))
        {
            let here = self.keys.position(slot);
            match self.copies.take(slot, stream.1, (kind, position), here)? {
                Step::Apply | Step::Replace => {
                    applied.push((slot, position.epoch));
                    // Only a slot that is complete stands at a position.
                    let position = if kind == RecordKind::Piece { Position::default() } else { position };
                    self.change(match write {
                        Some(write) => Change::Copied { slot, write, position },
                        None => Change::Cleared { slot },
                    });
                }
                Step::Stand if here != position => self.change(Change::Stands { slot, position }),
                Step::Stand | Step::Finished | Step::Compare { .. } | Step::Nothing => {}
            }
        }
        Ok(applied)
    }

    fn is_copied(&self, stream: (NodeId, u64)) -> bool {
        let is_complete = |slot| self.copies.is_complete(slot, stream.1);
        self.following.get(&stream).is_some_and(|follow| follow.slots.slots().all(is_complete))
    }

    pub(crate) fn held_of(&self, stream: (NodeId, u64)) -> Vec<Option<Position>> {
        let position = |slot| self.copies.is_complete(slot, stream.1).then(|| self.keys.position(slot));
        self.following.get(&stream).map_or_else(Vec::new, |follow| follow.slots.slots().map(position).collect())
    }
}

impl World {
    /// A node has learned a topology: its streams hear of it.
    pub(crate) fn follow_copies(&mut self, number: usize) {
        let Some(process) = &self.nodes[number].process else { return };
        let keeper = &process.keeper;
        let learned: Vec<_> = keeper.following.iter().map(|(stream, one)| (*stream, keeper.learned(one))).collect();
        for (stream, event) in learned {
            self.drive_copy(number, stream, event);
        }
    }

    /// Tells a stream to this node what happened, and does what follows.
    pub(crate) fn drive_copy(&mut self, number: usize, stream: (NodeId, u64), event: Event) {
        let now_us = self.now_us;
        let Some(process) = &mut self.nodes[number].process else { return };
        let life = process.life;
        let Some(follow) = process.keeper.following.get_mut(&stream) else { return };
        for action in follow.core.on(event, now_us) {
            self.perform_copy(number, life, stream, action);
        }
        let Some(follow) = self.stream(number, stream) else { return };
        let wake_us = follow.core.wake_at_us().map(|at_us| at_us.max(now_us));
        if follow.wake_us != wake_us {
            follow.wake_us = wake_us;
            if let Some(at_us) = wake_us {
                let what = CopyHappening::Tick { stream };
                self.after(at_us - now_us, Happening::Copy { node: number, life, what });
            }
        }
    }

    fn stream(&mut self, number: usize, stream: (NodeId, u64)) -> Option<&mut Follow> {
        self.nodes[number].process.as_mut()?.keeper.following.get_mut(&stream)
    }

    fn perform_copy(&mut self, number: usize, life: u64, stream: (NodeId, u64), action: Action) {
        let question = self.questions + 1;
        let Some(process) = &mut self.nodes[number].process else { return };
        let Some(incarnation) = process.registration.incarnation() else { return };
        let keeper = &mut process.keeper;
        let held = keeper.held_of(stream);
        let (node, (_, copy)) = (keeper.own, stream);
        let Some(follow) = keeper.following.get_mut(&stream) else { return };
        let slots = follow.slots.clone();
        let request = match action {
            Action::Begin { attempt, version } => {
                follow.received = 0;
                CopyRequest::Begin { number: copy, attempt, slots, held, left: Vec::new(), version }
            }
            Action::Next { attempt, version } => {
                CopyRequest::Next { number: copy, attempt, received: follow.received, is_kept: false, version }
            }
            Action::Propose => {
                let change = TopologyChange::CopyInSync { slots, node, incarnation, number: copy };
                self.propose(number, change, Purpose::Copy { stream });
                return;
            }
        };
        follow.question = question;
        self.questions = question;
        let asked = CopyQuestion { number: question, stream, incarnation, request };
        self.send(number, stream.0, Message::AskCopy(asked));
        let what = CopyHappening::Unanswered { stream, question };
        self.after(ANSWER_LIMIT_US, Happening::Copy { node: number, life, what });
    }

    pub(crate) fn on_copy(&mut self, number: usize, life: u64, what: CopyHappening) {
        let now_us = self.now_us;
        if self.nodes[number].process.as_ref().is_none_or(|process| process.life != life) {
            return;
        }
        match what {
            CopyHappening::Tick { stream } => {
                let follow = self.stream(number, stream);
                if let Some(follow) = follow.filter(|one| one.wake_us.is_some_and(|at_us| at_us <= now_us)) {
                    follow.wake_us = None;
                    self.drive_copy(number, stream, Event::Tick);
                }
            }
            CopyHappening::Unanswered { stream, question } => {
                if self.takes_copy_answer(number, stream, question) {
                    self.drive_copy(number, stream, Event::Failed(PullFailure::Lost));
                }
            }
            CopyHappening::Asked { from, question, until_us } => self.answer_copy(number, from, question, until_us),
            CopyHappening::ElectionOver { round } => self.end_round(number, round),
        }
    }

    /// A question has come.
    pub(crate) fn on_copy_question(&mut self, number: usize, from: NodeId, question: CopyQuestion) {
        let until_us = self.now_us + ANSWER_WITHIN_US;
        self.answer_copy(number, from, question, until_us);
    }

    fn answer_copy(&mut self, number: usize, from: NodeId, mut question: CopyQuestion, until_us: u64) {
        let waits = self.now_us < until_us;
        let Some(process) = &mut self.nodes[number].process else { return };
        let (known, life, keeper) = (process.registration.incarnation(), process.life, &mut process.keeper);
        let answer = match &question.request {
            CopyRequest::Fence { slots, epoch, life, version } => {
                match keeper.topology.version >= *version && known == Some(*life) {
                    true => Ok(CopyReply::Positions(keeper.answer_election(slots, *epoch))),
                    false if waits => Err(question.request.clone()),
                    false => Ok(CopyReply::NotYet),
                }
            }
            request => keeper.feeds.answer(&keeper.keys, (from, question.incarnation), request),
        };
        if question.request.version() > keeper.topology.version {
            self.look_soon(number);
        }
        if let (CopyRequest::Fence { slots, epoch, .. }, Ok(CopyReply::Positions(_))) = (&question.request, &answer) {
            let node = self.nodes[number].id();
            self.observe(Observation::AnsweredElection { node, life, slots, epoch: *epoch });
        }
        let reply = match answer {
            Ok(reply) => reply,
            Err(again) if waits => {
                question.request = again;
                let pause_us = self.random.random_range(5_000..40_000);
                let what = CopyHappening::Asked { from, question, until_us };
                self.after(pause_us, Happening::Copy { node: number, life, what });
                return;
            }
            Err(_) => CopyReply::Piece(Vec::new()),
        };
        self.send(number, from, Message::AnswerCopy { number: question.number, stream: question.stream, reply });
        self.acknowledge(number);
    }

    /// Whether that question was still open; it is no more.
    fn takes_copy_answer(&mut self, number: usize, stream: (NodeId, u64), question: u64) -> bool {
        let open = self.stream(number, stream).filter(|follow| follow.question == question);
        open.map(|follow| follow.question = 0).is_some()
    }

    /// An answer has come.
    pub(crate) fn on_copy_answer(
        &mut self,
        number: usize,
        from: NodeId,
        question: u64,
        stream: (NodeId, u64),
        reply: CopyReply,
    ) {
        if let CopyReply::Positions(_) | CopyReply::NotYet = reply
            && self.on_election_answer(number, from, question, &reply)
        {
            return;
        }
        if !self.takes_copy_answer(number, stream, question) {
            return;
        }
        let Some(process) = &mut self.nodes[number].process else { return };
        let (life, keeper) = (process.life, &mut process.keeper);
        let mut written = Vec::new();
        let event = match reply {
            CopyReply::NotYet => Event::Failed(PullFailure::NotYet),
            CopyReply::Again | CopyReply::Positions(_) => Event::Failed(PullFailure::Broken),
            CopyReply::Piece(records) => match keeper.take_copy(stream, &records) {
                Ok(applied) => {
                    written = applied;
                    Event::Piece { is_complete: keeper.is_copied(stream) }
                }
                Err(_) => Event::Failed(PullFailure::Broken),
            },
        };
        let node = keeper.own;
        for (slot, epoch) in written {
            self.observe(Observation::CopyApplied { node, life, slot, epoch });
        }
        self.drive_copy(number, stream, event);
        self.take_over(number);
    }

    /// Proposes the hand-overs to this node of which everything is here, as `moves/copies/taking` does.
    pub(crate) fn take_over(&mut self, number: usize) {
        let Some(process) = &self.nodes[number].process else { return };
        let is_proposing = process.proposals.values().any(|purpose| *purpose == Purpose::TakeOver);
        let Some(incarnation) = process.registration.incarnation().filter(|_| !is_proposing) else { return };
        let keeper = &process.keeper;
        for change in keeper.copies.hand_overs(&keeper.topology, keeper.own, incarnation) {
            self.propose(number, change, Purpose::TakeOver);
        }
    }
}
