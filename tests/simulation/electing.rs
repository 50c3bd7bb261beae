//! Elections, as `node/election` holds them, and what becomes of writes that only the former primary had.
//!
//! Acknowledgement does not wait for copies, so an election may lose the last writes: what the winner has is what one copy had,
//! the beginning of a history of the slot. There may be several of those: a copy that nobody could ask goes on to have the end
//! of an older one, and wins where all the others are gone.

use crate::agreement::Purpose;
use crate::copying::{CopyHappening, CopyQuestion, CopyReply};
use crate::duty::Message;
use crate::invariants::Observation;
use crate::node::number_of;
use crate::world::{Happening, World};
use starling::base::identity::{Incarnation, NodeId};
use starling::base::slot::Slot;
use starling::cluster::election::{Answers, Electorate, PATIENCE_US, electorates, promotions};
use starling::cluster::topology::{Applied, Phase, SlotCopy, Topology, TopologyChange};
use starling::moves::copies::messages::CopyRequest;
use std::collections::{BTreeMap, BTreeSet};

/// One question to all copies of some slots.
pub(crate) struct Round {
    number: u64,
    one: Electorate,
    /// Who has said something, be it nothing.
    heard: BTreeSet<NodeId>,
    answers: Answers,
}

/// Histories of slots.
#[derive(Default)]
pub(crate) struct Histories {
    /// Those of which an election has cut something off, whole.
    former: BTreeMap<Slot, Vec<Vec<u64>>>,
    /// How many writes elections have cut off.
    pub(crate) lost: u64,
}

impl World {
    /// The leader asks, unless it does already.
    pub(crate) fn hold_elections(&mut self, leader: usize) {
        let Some(process) = &self.nodes[leader].process else { return };
        let is_proposing = process.proposals.values().any(|purpose| *purpose == Purpose::Elect);
        if is_proposing || !process.leading.rounds.is_empty() {
            return;
        }
        let (life, own, topology) = (process.life, process.keeper.own, process.keeper.topology.clone());
        for one in electorates(&topology) {
            self.questions += 1;
            let (number, lives) = (self.questions, one.lives.clone());
            let (slots, epoch, version) = (one.slots.clone(), one.epoch, topology.version);
            let round = Round { number, one, heard: BTreeSet::new(), answers: Answers::new() };
            if let Some(process) = &mut self.nodes[leader].process {
                process.leading.rounds.push(round);
            }
            for (node, asked) in lives {
                let request = CopyRequest::Fence { slots: slots.clone(), epoch, life: asked, version };
                let question = CopyQuestion { number, stream: (own, 0), incarnation: Incarnation(0), request };
                if node == own {
                    self.on_copy_question(leader, own, question.clone());
                } else {
                    self.send(leader, node, Message::AskCopy(question.clone()));
                }
            }
            let what = CopyHappening::ElectionOver { round: number };
            self.after(PATIENCE_US, Happening::Copy { node: leader, life, what });
        }
    }

    /// Whether this was the answer to a round.
    pub(crate) fn on_election_answer(&mut self, leader: usize, from: NodeId, number: u64, reply: &CopyReply) -> bool {
        let Some(process) = &mut self.nodes[leader].process else { return false };
        let Some(round) = process.leading.rounds.iter_mut().find(|round| round.number == number) else { return false };
        round.heard.insert(from);
        if let CopyReply::Positions(positions) = reply {
            round.answers.insert(from, positions.clone());
        }
        if round.one.lives.iter().all(|(node, _)| round.heard.contains(node)) {
            self.end_round(leader, number);
        }
        true
    }

    /// Proposes who has won by what was heard.
    pub(crate) fn end_round(&mut self, leader: usize, number: u64) {
        let Some(process) = &mut self.nodes[leader].process else { return };
        let rounds = &mut process.leading.rounds;
        let Some(index) = rounds.iter().position(|round| round.number == number) else { return };
        let round = rounds.swap_remove(index);
        for change in promotions(&round.one, &round.answers) {
            self.propose(leader, change, Purpose::Elect);
        }
    }

    /// What is agreed about elections: what the winner does not have is lost.
    pub(crate) fn look_at_elections(
        &mut self,
        change: &TopologyChange,
        applied: &Applied,
        (before, after): (&Topology, &Topology),
        changed: &[Slot],
    ) {
        for slot in changed.iter().filter(|slot| after.slot(**slot).phase == Phase::Electing) {
            if before.slot(*slot).epoch != after.slot(*slot).epoch {
                self.doubtful.extend(self.executed.get(slot).into_iter().flatten());
            }
        }
        let (TopologyChange::Promote { node, incarnation, .. }, Applied::Done) = (change, applied) else { return };
        let process = self.nodes[number_of(*node)].process.as_ref();
        let lives = |process: &&crate::node::Process| {
            process.keeper.own == *node && process.registration.incarnation() == Some(*incarnation)
        };
        // Who has ended meanwhile may be back with some of it: the next write shows with what.
        let Some(winner) = process.filter(lives) else { return };
        let won: Vec<(Slot, Vec<u64>)> =
            changed.iter().map(|slot| (*slot, winner.keeper.held(*slot).to_vec())).collect();
        for (slot, held) in won {
            self.look_at_quorum(before, slot, &held);
            self.settle_history(slot, &held);
            let expected = self.executed.get(&slot).cloned().unwrap_or_default();
            let (found, expected) = (held.as_slice(), expected.as_slice());
            self.observe(Observation::Promoted { node: *node, slot, found, expected });
            self.doubtful.retain(|write| !held.contains(write));
        }
    }

    /// Who serves a slot has this: what is not there and need not be is over.
    pub(crate) fn settle_history(&mut self, slot: Slot, held: &[u64]) {
        let executed = self.executed.entry(slot).or_default();
        let common = executed.iter().zip(held).take_while(|(one, other)| one == other).count();
        let is_lost = executed[common..].iter().all(|write| self.doubtful.contains(write));
        if executed.len() == common && held.len() == common || !is_lost {
            return;
        }
        let former = self.histories.former.entry(slot).or_default();
        if common == held.len() || former.iter().any(|history| history.starts_with(held)) {
            self.histories.lost += (executed.len() - common) as u64;
            former.push(std::mem::replace(executed, held.to_vec()));
        }
    }

    /// Nothing is left of these slots.
    pub(crate) fn forget_histories(&mut self, is_lost: impl Fn(Slot) -> bool) {
        self.executed.retain(|slot, _| !is_lost(*slot));
        self.histories.former.retain(|slot, _| !is_lost(*slot));
    }

    /// At the end: every copy has what its primary has, and where nothing was fenced and nobody crashed, nothing is lost.
    pub(crate) fn audit_copies(&self) {
        let held = |node: NodeId, slot| self.nodes[number_of(node)].process.as_ref().map(|one| one.keeper.held(slot));
        for slot in Slot::all() {
            let record = self.agreed.slot(slot);
            let of_primary = record.primary.and_then(|primary| held(primary, slot));
            for copy in record.copies.iter() {
                let of_copy = held(copy.node, slot);
                if of_copy != of_primary {
                    self.fail(&format!("{slot:?} is {of_primary:?} at its primary; at {copy:?} it is {of_copy:?}"));
                }
            }
        }
        if self.fenced == 0 && self.crashes == 0 && self.histories.lost > 0 {
            self.fail(&format!("{} writes are lost, and nothing has happened", self.histories.lost));
        }
    }

    /// Whether every slot has its copies, which are ready, where there shall be some.
    pub(crate) fn has_copies(&self) -> bool {
        self.agreed.slots().iter().all(|record| {
            let is_there = |copy: &SlotCopy| copy.ready && !self.agreed.is_lost(copy);
            record.copies.len() == self.replicas && record.copies.iter().all(is_there)
        })
    }
}
