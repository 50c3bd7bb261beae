//! What nodes do about their slots: register, move, release, and serve writes.

use crate::agreement::PROPOSAL_LIMIT_US;
use crate::invariants::Observation;
use crate::keeper::Contents;
use crate::network::address_of;
use crate::node::node_id;
use crate::world::{Happening, NODES, World};
use rand::RngExt;
use starling::base::identity::{Incarnation, NodeId};
use starling::base::slot::{SLOT_COUNT, Slot};
use starling::base::slot_ranges::SlotRanges;
use starling::cluster::duties::{SlotMove, Stage};
use starling::cluster::topology::{Applied, Node, NodeState, Topology, TopologyChange};

/// Writes go to so many slots, so that each sees many.
const WRITTEN_SLOTS: u64 = 200;
/// A registration without an answer is repeated after this long: longer than one can be underway.
const REGISTER_AGAIN_US: u64 = 1_000_000;

/// What nodes say to each other about slots.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    Ask(u64, SlotRanges),
    Answer(Contents),
}

impl World {
    pub(crate) fn on_duty(&mut self, number: usize) {
        let again_us = self.random.random_range(50_000..150_000);
        self.after(again_us, Happening::Duty { node: number });
        let Some(process) = &mut self.nodes[number].process else { return };
        if process.keeper.is_fenced() {
            process.keeper.registered = None;
        }
        if process.keeper.registered.is_none() {
            if !process.draining && self.now_us >= process.register_at_us {
                process.register_at_us = self.now_us + REGISTER_AGAIN_US;
                let node = description(number, process.start_ms);
                self.propose(number, TopologyChange::RegisterNode { node });
            }
            return;
        }
        self.move_slots(number);
        self.drain(number);
    }

    fn move_slots(&mut self, number: usize) {
        let Some(process) = &self.nodes[number].process else { return };
        let (own, work) = (process.keeper.own, process.keeper.work.clone());
        let may_propose = self.now_us >= process.propose_at_us;
        for one in &work.coming {
            self.send(number, number_of(one.from), Message::Ask(one.begun, one.slots.clone()));
        }
        let ready = work.coming.into_iter().filter(|one| one.stage == Stage::Ready);
        let begin = |one: SlotMove| TopologyChange::BeginHandoff { slots: one.slots, to: own, begun: one.begun };
        let release = |one: SlotMove| TopologyChange::CopyRemove { slots: one.slots, node: own, begun: one.begun };
        let changes = ready.map(begin).chain(work.releasing.into_iter().map(release)).collect();
        if may_propose {
            self.propose_and_wait(number, changes);
        }
    }

    /// Proposes, and then nothing for as long as that may be underway.
    fn propose_and_wait(&mut self, number: usize, changes: Vec<TopologyChange>) {
        let pause_us = if changes.is_empty() { 0 } else { PROPOSAL_LIMIT_US };
        let now_us = self.now_us;
        if let Some(process) = &mut self.nodes[number].process {
            process.propose_at_us = process.propose_at_us.max(now_us + pause_us);
        }
        for change in changes {
            self.propose(number, change);
        }
    }

    /// A node that was told to stop gives its slots away first, leaves the topology, then says goodbye.
    fn drain(&mut self, number: usize) {
        let Some(process) = self.nodes[number].process.as_ref().filter(|process| process.draining) else { return };
        let keeper = &process.keeper;
        let Some((incarnation, _)) = keeper.registered else { return };
        let own = keeper.own;
        match keeper.topology.nodes.get(&own).map(|node| node.leaving) {
            Some(false) => self.propose(number, TopologyChange::Leaving { node: own, incarnation }),
            Some(true) if keeper.work.owned == 0 && keeper.work.releasing.is_empty() => {
                self.propose(number, TopologyChange::RemoveNode { node: own, incarnation });
            }
            Some(_) | None => {}
        }
    }

    /// A drained node has learned that it was removed.
    pub(crate) fn leave_if_drained(&mut self, number: usize) {
        let process = self.nodes[number].process.as_ref();
        if process.is_some_and(|process| process.draining && process.keeper.is_fenced()) {
            self.leave(number);
        }
    }

    pub(crate) fn on_registered(&mut self, number: usize, life: u64, incarnation: Incarnation, index: u64) {
        let process = self.nodes[number].process.as_mut().filter(|process| process.life == life);
        if let Some(process) =
            process.filter(|process| process.keeper.registered.is_none_or(|(known, _)| known < incarnation))
        {
            process.keeper.registered = Some((incarnation, index));
        }
    }

    fn send(&mut self, from: usize, to: usize, message: Message) {
        for delay_us in self.network.arrivals(from, to, &mut self.random) {
            self.after(delay_us, Happening::Message { from, to, message: message.clone() });
        }
    }

    pub(crate) fn on_message(&mut self, from: usize, to: usize, message: Message) {
        if self.network.is_cut(from, to) {
            return;
        }
        let Some(process) = &mut self.nodes[to].process else { return };
        match message {
            Message::Ask(begun, slots) => {
                if let Some(contents) = process.keeper.answer(node_id(from), begun, &slots) {
                    self.send(to, from, Message::Answer(contents));
                }
            }
            Message::Answer(contents) => {
                let changes = process.keeper.take_in(contents);
                if self.now_us >= process.propose_at_us {
                    self.propose_and_wait(to, changes);
                }
            }
        }
    }

    /// A client writes, wherever some node believes the slot's primary to be.
    pub(crate) fn on_write(&mut self) {
        let pause_us = self.random.random_range(2_000..30_000);
        self.after(pause_us, Happening::Write);
        let step = SLOT_COUNT as u64 / WRITTEN_SLOTS;
        let slot = Slot::new(self.random.random_range(0..WRITTEN_SLOTS) * step).unwrap_or_default();
        let guide = self.random.random_range(0..NODES);
        let primary = self.nodes[guide].process.as_ref().and_then(|process| process.keeper.topology.slot(slot).primary);
        // Now and then to anyone: a node must know what it does not own.
        let to = match primary {
            Some(primary) if self.random.random_bool(0.9) => number_of(primary),
            _ => guide,
        };
        let paused = self.nodes[to].paused_until_us > self.now_us;
        let Some(process) = self.nodes[to].process.as_mut().filter(|process| !paused && process.keeper.serves(slot))
        else {
            return;
        };
        self.written += 1;
        let content = process.keeper.content(slot);
        let (epoch, before) = (content.epoch, content.writes.clone());
        content.writes.push(self.written);
        let acknowledged = self.acknowledged.entry(slot).or_default();
        let expected = acknowledged.clone();
        acknowledged.push(self.written);
        let (found, expected) = (before.as_slice(), expected.as_slice());
        self.observe(Observation::Executed { node: to, slot, epoch, found, expected });
    }

    /// What a crashed node held is lost with one copy, and known to be: its slots begin anew.
    pub(crate) fn forget_lost_writes(&mut self, before: &Topology, change: &TopologyChange, applied: &Applied) {
        let lost = match (change, applied) {
            (TopologyChange::RegisterNode { node }, Applied::Registered(_)) => before.owned_by(node.id),
            (TopologyChange::Revive { slots, .. }, Applied::Done) => slots.clone(),
            _ => return,
        };
        self.acknowledged.retain(|slot, _| !lost.contains(*slot));
    }
}

fn description(number: usize, start_ms: u64) -> Node {
    let address = address_of(number);
    Node {
        id: node_id(number),
        incarnation: Incarnation(0),
        ip: address.ip(),
        port: 6379,
        cluster_port: address.port(),
        hostname: String::new(),
        weight: 1,
        zone: String::new(),
        proxy_port: 0,
        start_ms,
        state: NodeState::Active,
        leaving: false,
    }
}

pub(crate) fn number_of(node: NodeId) -> usize {
    (node.0 >> 96) as usize - 1
}
