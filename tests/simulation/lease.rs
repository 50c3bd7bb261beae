//! Leases in the simulation: every node asks the voters, voters withdraw, the raft leader hears of it. By clocks that run apart.

use crate::agreement::Purpose;
use crate::duty::Message;
use crate::invariants::Observation;
use crate::node::{Node, number_of};
use crate::world::{Happening, NODES, World};
use rand::RngExt;
use starling::base::identity::NodeId;
use starling::cluster::lease::{BEAT_US, Beat, BeatAnswer};
use starling::cluster::support::Promises;
use starling::cluster::topology::{Applied, TopologyChange};
use std::collections::BTreeSet;

/// Between a voter's looks.
const LOOK_US: u64 = 50_000;
/// How long its promises take to the disk.
const DISK_US: u64 = 20_000;

impl Node {
    /// Its boot-time clock, which never jumps, and runs a little too fast or too slow.
    pub(crate) fn boot_us(&self, now_us: u64) -> u64 {
        1_000_000 + now_us / 1000 * self.clock_rate
    }
}

impl World {
    /// A node asks for support.
    pub(crate) fn on_beat_due(&mut self, number: usize) {
        self.after(BEAT_US, Happening::Beat { node: number });
        let boot_us = self.nodes[number].boot_us(self.now_us);
        let Some(process) = &self.nodes[number].process else { return };
        let topology = &process.keeper.topology;
        let voters: BTreeSet<NodeId> = topology.lease_voters.votes.iter().copied().collect();
        if let Some(beat) = process.lease.beat(topology, process.registration.incarnation(), boot_us) {
            let own = process.keeper.own;
            for voter in voters.into_iter().filter(|voter| *voter != own) {
                self.send(number, voter, Message::Beat(beat));
            }
        }
        self.raise(number);
    }

    pub(crate) fn on_beat(&mut self, number: usize, sender: NodeId, beat: &Beat) {
        let boot_us = self.nodes[number].boot_us(self.now_us);
        let Some(process) = &mut self.nodes[number].process else { return };
        let answer = process.support.on_beat(beat, &process.keeper.topology, boot_us);
        self.send(number, sender, Message::BeatAnswer(answer));
    }

    pub(crate) fn on_beat_answer(&mut self, number: usize, voter: NodeId, answer: BeatAnswer) {
        if let Some(process) = &mut self.nodes[number].process {
            process.lease.answered(voter, answer);
            self.raise(number);
        }
    }

    fn raise(&mut self, number: usize) {
        let boot_us = self.nodes[number].boot_us(self.now_us);
        let Some(process) = &mut self.nodes[number].process else { return };
        let (topology, incarnation) = (&process.keeper.topology, process.registration.incarnation());
        let change = process.lease.raise(topology, incarnation, boot_us).then(|| topology.raise_of(process.keeper.own));
        if let Some(change) = change.flatten() {
            self.propose(number, change, Purpose::Nothing);
        }
    }

    /// A voter looks at whom it has not heard, and tells the raft leader.
    pub(crate) fn on_vote(&mut self, number: usize) {
        let again_us = self.random.random_range(LOOK_US / 2..LOOK_US * 2);
        self.after(again_us, Happening::Vote { node: number });
        let boot_us = self.nodes[number].boot_us(self.now_us);
        let Some(process) = &mut self.nodes[number].process else { return };
        let (life, topology) = (process.life, &process.keeper.topology);
        if let Some(promises) = process.support.look(topology, boot_us) {
            self.after(DISK_US, Happening::Promised { node: number, life, promises });
        }
        let Some(process) = &self.nodes[number].process else { return };
        let report = process.support.report(&process.keeper.topology);
        if let Some(leader) = self.leader() {
            self.send(number, self.nodes[leader].id(), Message::Report(report));
        }
    }

    /// What a voter promises is on its disk.
    pub(crate) fn on_promised(&mut self, number: usize, life: u64, promises: Promises) {
        let node = &mut self.nodes[number];
        if let Some(process) = node.process.as_mut().filter(|process| process.life == life) {
            node.disk.promises.clone_from(&promises);
            process.support.kept(promises);
        }
    }

    /// Whether a node would answer clients now.
    pub(crate) fn has_lease(&self, number: usize) -> bool {
        let node = &self.nodes[number];
        node.process.as_ref().is_some_and(|process| {
            let until_us = process.lease.until_us(&process.keeper.topology, process.registration.incarnation());
            node.boot_us(self.now_us) < until_us
        })
    }

    /// Whoever is fenced has no lease at that moment, whether it knows or not.
    pub(crate) fn look_at_fence(&mut self, change: &TopologyChange, applied: &Applied) {
        if let (TopologyChange::FenceNode { node, incarnation, .. }, Applied::Done) = (change, applied) {
            let number = number_of(*node);
            let lives = self.nodes[number].process.as_ref().is_some_and(|process| {
                process.keeper.own == *node && process.registration.incarnation() == Some(*incarnation)
            });
            let has_lease = lives && self.has_lease(number);
            self.fenced += 1;
            self.observe(Observation::Fenced { node: *node, has_lease });
        }
    }

    /// Begins the turns of every node.
    pub(crate) fn begin_leases(&mut self) {
        for node in 0..NODES {
            // Within what two clocks may differ: a tenth.
            self.nodes[node].clock_rate = self.random.random_range(953..=1048);
            self.after(0, Happening::Beat { node });
            self.after(0, Happening::Vote { node });
        }
    }
}
