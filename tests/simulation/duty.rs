//! What nodes do about their slots: register, move, release, and serve writes. What is decided is decided by cores.

use crate::agreement::Purpose;
use crate::copying::{CopyQuestion, CopyReply};
use crate::invariants::Observation;
use crate::node::number_of;
use crate::world::{Happening, NODES, World};
use rand::RngExt;
use starling::base::identity::NodeId;
use starling::base::slot::{SLOT_COUNT, Slot};
use starling::cluster::draining::{Draining, Next};
use starling::cluster::duties::SlotMove;
use starling::cluster::lease::{Beat, BeatAnswer};
use starling::cluster::registration;
use starling::cluster::topology::{Applied, Phase, Topology, TopologyChange};
use starling::moves::copies::following;
use starling::transport::messages::LeaseReport;

/// Writes go to so many slots, so that each sees many.
const WRITTEN_SLOTS: u64 = 200;
/// How long a node that leaves waits for somebody who could take its slots.
const DRAIN_PATIENCE_US: u64 = 10_000_000;

/// What nodes say to each other about slots.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    /// A node asks for support.
    Beat(Beat),
    BeatAnswer(BeatAnswer),
    /// What a lease voter tells the raft leader.
    Report(LeaseReport),
    AskCopy(CopyQuestion),
    AnswerCopy {
        number: u64,
        stream: (NodeId, u64),
        reply: CopyReply,
    },
}

impl World {
    pub(crate) fn on_duty(&mut self, number: usize) {
        let again_us = self.random.random_range(50_000..150_000);
        self.after(again_us, Happening::Duty { node: number });
        self.register(number, registration::Event::Look);
        self.settle(number);
        self.take_over(number);
        self.acknowledge(number);
        self.remove_retiring(number);
        self.drain(number);
    }

    /// Tells the registration of a node what happened, and does what follows.
    pub(crate) fn register(&mut self, number: usize, event: registration::Event) {
        let now_us = self.now_us;
        let Some(process) = &mut self.nodes[number].process else { return };
        let before = process.registration.incarnation();
        // Who leaves does not come back.
        let registers = process.draining.is_none() && process.registration.on(event, &process.keeper.topology, now_us);
        let known = process.registration.incarnation();
        let (node, returns) = (process.registration.node().clone(), process.returns);
        if registers {
            let change = match returns {
                true => TopologyChange::ReturnNode { node, kept: process.keeper.keys.complete() },
                false => TopologyChange::RegisterNode { node },
            };
            self.propose(number, change, Purpose::Register);
        }
        if known != before {
            self.follow(number);
        }
    }

    /// A node does what follows from the topology it knows, and its moves learn of it.
    pub(crate) fn follow(&mut self, number: usize) {
        let Some(process) = &mut self.nodes[number].process else { return };
        let now_us = self.now_us;
        process.keeper.follow(process.registration.incarnation(), now_us);
        self.follow_copies(number);
    }

    /// What a proposal came to, if its proposer still waits. `None`: it has given it up.
    pub(crate) fn on_outcome(&mut self, number: usize, life: u64, proposal: u64, outcome: Option<(u64, Applied)>) {
        let process = self.nodes[number].process.as_mut().filter(|process| process.life == life);
        let Some(purpose) = process.and_then(|process| process.proposals.remove(&proposal)) else { return };
        if outcome.is_some() {
            self.look_soon(number);
        }
        match purpose {
            Purpose::Nothing | Purpose::Drain | Purpose::Elect | Purpose::TakeOver | Purpose::Retire => {}
            Purpose::Copy { stream } => self.drive_copy(number, stream, following::Event::Proposed),
            Purpose::Lead => {
                if let Some(process) = self.nodes[number].process.as_mut().filter(|_| outcome.is_none()) {
                    process.leading.forget_done();
                }
            }
            Purpose::Register => {
                let event = match outcome {
                    Some((version, Applied::Registered(incarnation))) => {
                        registration::Event::Registered { incarnation, version }
                    }
                    _ => registration::Event::Failed,
                };
                self.register(number, event);
            }
        }
    }

    /// Says of what has come here that it is kept, until the topology shows it.
    fn settle(&mut self, number: usize) {
        let Some(process) = self.nodes[number].process.as_ref() else { return };
        if process.proposals.values().any(|purpose| matches!(purpose, Purpose::Nothing)) {
            return;
        }
        let keeper = &process.keeper;
        let is_kept = |end: u64| keeper.log.as_ref().is_none_or(|log| log.is_kept(end));
        let kept = keeper.settling.values().filter(|(_, end)| is_kept(*end)).map(|(one, _)| one.clone());
        for SlotMove { slots, from, begun, .. } in kept.collect::<Vec<_>>() {
            self.propose(number, TopologyChange::Settled { slots, from, begun }, Purpose::Nothing);
        }
    }

    /// A node is told to stop: it gives its slots away first, unless nobody knows it yet.
    pub(crate) fn tell_to_stop(&mut self, number: usize) {
        let now_us = self.now_us;
        let Some(process) = self.nodes[number].process.as_mut().filter(|process| process.draining.is_none()) else {
            return;
        };
        self.trace.line(now_us, format_args!("node {number} is told to stop"));
        match process.registration.incarnation() {
            Some(incarnation) => {
                process.draining = Some(Draining::new(process.keeper.own, incarnation, DRAIN_PATIENCE_US, now_us));
            }
            None => self.leave(number),
        }
    }

    /// What `node::drain` does: one look of a node that leaves.
    fn drain(&mut self, number: usize) {
        let now_us = self.now_us;
        let Some(process) = &mut self.nodes[number].process else { return };
        let Some(draining) = &mut process.draining else { return };
        let is_proposing = process.proposals.values().any(|purpose| *purpose == Purpose::Drain);
        // Voters stay voters here, and may leave all the same.
        match draining.look(&process.keeper.topology, false, now_us) {
            Next::Propose(change) if !is_proposing => self.propose(number, change, Purpose::Drain),
            Next::Propose(_) | Next::Wait | Next::Warn { .. } => {}
            Next::End(drained) => {
                self.trace.line(now_us, format_args!("node {number} ends: {drained:?}"));
                let (node, incarnation) = (process.keeper.own, process.registration.incarnation());
                let has_slots = self.executed.keys().map(|slot| (*slot, self.expected(*slot).to_vec()));
                let (agreed, acknowledged) = (&self.agreed.clone(), &has_slots.collect());
                self.observe(Observation::Drained { node, incarnation, drained: &drained, agreed, acknowledged });
                self.leave(number);
            }
        }
    }

    pub(crate) fn send(&mut self, from: usize, to: NodeId, message: Message) {
        let delays_us = self.network.arrivals(from, number_of(to), &mut self.random);
        let from = self.nodes[from].id();
        for delay_us in delays_us {
            self.after(delay_us, Happening::Message { from, to, message: message.clone() });
        }
    }

    pub(crate) fn on_message(&mut self, sender: NodeId, receiver: NodeId, message: Message) {
        let (from, to) = (number_of(sender), number_of(receiver));
        // A link checks who is at its ends.
        if self.network.is_cut(from, to) || self.nodes[to].id() != receiver || self.nodes[from].id() != sender {
            return;
        }
        let Some(process) = &mut self.nodes[to].process else { return };
        match message {
            Message::Beat(beat) => self.on_beat(to, sender, &beat),
            Message::BeatAnswer(answer) => self.on_beat_answer(to, sender, answer),
            Message::Report(report) => process.leading.heard(sender, report),
            Message::AskCopy(question) => self.on_copy_question(to, sender, question),
            Message::AnswerCopy { number, stream, reply } => self.on_copy_answer(to, sender, number, stream, reply),
        }
    }

    /// A client writes, wherever some node believes the slot's primary to be.
    pub(crate) fn on_write(&mut self) {
        let pause_us = self.random.random_range(2_000..30_000);
        self.after(pause_us, Happening::Write);
        if !self.writes {
            return;
        }
        let step = SLOT_COUNT as u64 / WRITTEN_SLOTS;
        let slot = Slot::new(self.random.random_range(0..WRITTEN_SLOTS) * step).unwrap_or_default();
        let guide = self.random.random_range(0..NODES);
        let primary = self.nodes[guide].process.as_ref().and_then(|process| process.keeper.topology.slot(slot).primary);
        // Now and then to anyone: a node must know what it does not own.
        let to = match primary {
            Some(primary) if self.random.random_bool(0.9) => number_of(primary),
            _ => guide,
        };
        let is_able = self.nodes[to].paused_until_us <= self.now_us && self.has_lease(to);
        let Some(process) = self.nodes[to].process.as_mut().filter(|process| is_able && process.keeper.serves(slot))
        else {
            return;
        };
        self.written += 1;
        let (node, epoch) = (process.keeper.own, process.keeper.topology.slot(slot).epoch);
        let before = process.keeper.held(slot).to_vec();
        process.keeper.write(slot, self.written);
        self.wait_for_quorum(to, slot, self.written);
        self.settle_history(slot, &before);
        let executed = self.executed.entry(slot).or_default();
        let expected = executed.clone();
        executed.push(self.written);
        let (found, expected) = (before.as_slice(), expected.as_slice());
        self.observe(Observation::Executed { node, slot, epoch, found, expected });
        // Those that are there are there to stay.
        self.doubtful.retain(|write| !before.contains(write));
    }

    /// The writes of a slot that must be there, without those that may be lost.
    fn expected(&self, slot: Slot) -> &[u64] {
        let executed = self.executed.get(&slot).map_or(&[][..], Vec::as_slice);
        let last = executed.iter().rposition(|write| !self.doubtful.contains(write));
        &executed[..last.map_or(0, |last| last + 1)]
    }

    /// At the end: every slot is served by its owner, by nobody else, and has there what clients were acknowledged.
    pub(crate) fn audit(&mut self) {
        for slot in Slot::all() {
            let owner = self.agreed.slot(slot).primary.and_then(|owner| self.nodes[number_of(owner)].process.as_ref());
            if let Some(held) = owner.map(|owner| owner.keeper.held(slot).to_vec()) {
                self.settle_history(slot, &held);
            }
        }
        self.audit_copies();
        for slot in Slot::all() {
            let servers: Vec<_> = self.nodes[..NODES]
                .iter()
                .filter_map(|node| Some(&node.process.as_ref()?.keeper))
                .filter(|keeper| keeper.serves(slot))
                .collect();
            let owner = self.agreed.slot(slot).primary;
            let executed = self.executed.get(&slot).map_or(&[][..], Vec::as_slice);
            let expected = self.expected(slot);
            let is_whole = |held: &[u64]| executed.starts_with(held) && held.starts_with(expected);
            match servers.as_slice() {
                [one] if Some(one.own) == owner && is_whole(one.held(slot)) => {}
                others => {
                    let held: Vec<_> = others.iter().map(|keeper| (keeper.own, keeper.held(slot))).collect();
                    self.fail(&format!(
                        "{slot:?} of {owner:?} is served with {held:?}; acknowledged were {expected:?}"
                    ));
                }
            }
        }
    }

    /// What a crashed node without a log held is lost where there is no copy, and known to be: its slots begin anew.
    pub(crate) fn forget_lost_writes(
        &mut self,
        (before, after): (&Topology, &Topology),
        change: &TopologyChange,
        applied: &Applied,
    ) {
        let lost = match (change, applied) {
            (TopologyChange::RegisterNode { node }, Applied::Registered(_)) => {
                let same = before.nodes.get(&node.id).is_some_and(|known| known.start_ms == node.start_ms);
                if same {
                    return;
                }
                before.owned_by(node.id)
            }
            (TopologyChange::Revive { slots, .. }, Applied::Done) => slots.clone(),
            _ => return,
        };
        // Of those that are elected a copy has something.
        self.forget_histories(|slot| lost.contains(slot) && after.slot(slot).phase != Phase::Electing);
    }
}
