//! Acknowledgement by quorum, around the cores that decide it: what copies have (`engine/log/copied`), by what they have received
//! (`moves/copies/progress`), and the removal of copies that retire (`moves/copies/retiring`).
//!
//! The log of a node is a number here, which every change of its slots raises. A write waits for its quorum as its reply would;
//! who is elected has everything that was acknowledged so and that a member which could be asked still has.

use crate::agreement::Purpose;
use crate::world::World;
use rand::RngExt;
use starling::base::identity::NodeId;
use starling::base::slot::Slot;
use starling::base::slot_ranges::SlotRanges;
use starling::cluster::duties::{self, is_quorum};
use starling::cluster::topology::{SlotCopy, Topology, TopologyChange};
use starling::engine::log::copied::{CopiedGroup, CopyState};
use starling::engine::log::gate::{Gate, Needed, Shown};
use starling::engine::log::{Log, LogOffset};
use starling::moves::copies::retiring::retiring;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Longer than a run takes: what gives up is not looked at here.
const FOR_EVER: Duration = Duration::from_secs(1 << 20);

/// What a node knows of its copies.
#[derive(Default)]
pub(crate) struct Quorum {
    log: Log,
    /// Its log is so long.
    end: u64,
    waiting: Vec<Waiting>,
    /// Copies that retire: of which slots, and since which place of the log they are counted no more.
    since: BTreeMap<(NodeId, u64), (SlotRanges, LogOffset)>,
}

/// A write that is not acknowledged yet.
struct Waiting {
    slot: Slot,
    write: u64,
    needed: Needed,
    /// The support under which it was executed.
    support: u64,
}

/// Writes that are.
#[derive(Default)]
pub(crate) struct Acknowledged {
    pub(crate) writes: BTreeMap<Slot, Vec<u64>>,
    pub(crate) count: u64,
}

impl Quorum {
    pub(crate) fn end(&self) -> LogOffset {
        LogOffset(self.end)
    }

    pub(crate) fn changed(&mut self) {
        self.end += 1;
    }

    pub(crate) fn follow(&mut self, groups: &[CopiedGroup], over: &[u64]) {
        over.iter().for_each(|number| self.log.copied.ended(*number));
        self.log.set_copied_groups(groups.to_vec());
    }

    pub(crate) fn ended(&mut self, number: u64) {
        self.log.copied.ended(number);
    }

    pub(crate) fn copy_has(&mut self, node: NodeId, number: u64, has: LogOffset) {
        self.log.copy_has(number, CopyState { node, has, kept: has, heard: Instant::now() });
    }

    /// A write was executed, and is the last in the log.
    pub(crate) fn written(&mut self, slot: Slot, write: u64, support: u64) {
        if self.log.copied.is_able(slot) {
            let shown = Shown { gate: self.end(), groups: self.log.copied.group(slot), wrote: true };
            let needed = Needed { shown, copies_until: Some(Instant::now() + FOR_EVER), on_disk: false };
            self.waiting.push(Waiting { slot, write, needed, support });
        }
    }

    /// Takes out what need not wait any longer. Those of other supports are in doubt: nobody was told.
    fn take(&mut self, support: Option<u64>) -> Vec<(Slot, u64)> {
        let log = &self.log;
        let mut told = Vec::new();
        self.waiting.retain(|one| match log.look(one.needed) {
            Gate::Closed => true,
            gate => {
                if gate == Gate::Open && Some(one.support) == support {
                    told.push((one.slot, one.write));
                }
                false
            }
        });
        told
    }

    /// Retiring copies that the others can do without.
    fn gone(&mut self, found: BTreeMap<(NodeId, u64), SlotRanges>) -> Vec<TopologyChange> {
        self.since.retain(|key, (slots, _)| found.get(key).is_some_and(|found| found.difference(slots).is_empty()));
        let mut gone = Vec::new();
        for ((node, number), slots) in found {
            let (_, to) = self.since.entry((node, number)).or_insert_with(|| (slots.clone(), LogOffset(self.end)));
            if self.log.copied.have(&slots, *to) {
                gone.push(TopologyChange::CopyLeave { slots, node, number });
            }
        }
        gone
    }
}

impl World {
    /// In half of the runs with copies.
    pub(crate) fn draw_quorum(&mut self) {
        self.quorum = self.replicas > 0 && self.random.random_bool(0.5);
    }

    /// What the leader proposes where the cluster has not agreed on it.
    pub(crate) fn ask_for_quorum(&self, topology: &Topology) -> Option<TopologyChange> {
        let (name, value) = (duties::ACKNOWLEDGE.to_owned(), "quorum".to_owned());
        let lacks = self.quorum && topology.cluster.is_some() && !is_quorum(topology);
        lacks.then_some(TopologyChange::SetConfig { name, value })
    }

    /// A client's write was executed.
    pub(crate) fn wait_for_quorum(&mut self, number: usize, slot: Slot, write: u64) {
        let Some(process) = &mut self.nodes[number].process else { return };
        let keeper = &mut process.keeper;
        let support = keeper.topology.nodes.get(&keeper.own).map_or(0, |node| node.support);
        if is_quorum(&keeper.topology) {
            keeper.feeds.quorum.written(slot, write, support);
        }
    }

    /// Tells clients what a quorum has by now, while this node has the lease that it had then.
    pub(crate) fn acknowledge(&mut self, number: usize) {
        let has_lease = self.has_lease(number);
        let Some(process) = &mut self.nodes[number].process else { return };
        let keeper = &mut process.keeper;
        let support = keeper.topology.nodes.get(&keeper.own).map(|node| node.support);
        for (slot, write) in keeper.feeds.quorum.take(support.filter(|_| has_lease)) {
            self.acknowledged.writes.entry(slot).or_default().push(write);
            self.acknowledged.count += 1;
        }
    }

    /// Removes copies that retire, as `moves/copies/retiring` does.
    pub(crate) fn remove_retiring(&mut self, number: usize) {
        let Some(process) = &mut self.nodes[number].process else { return };
        let is_proposing = process.proposals.values().any(|purpose| *purpose == Purpose::Retire);
        if is_proposing || process.registration.incarnation().is_none() {
            return;
        }
        let keeper = &mut process.keeper;
        for change in keeper.feeds.quorum.gone(retiring(&keeper.topology, keeper.own)) {
            self.propose(number, change, Purpose::Retire);
        }
    }

    /// A slot has a new primary with this content: whatever was acknowledged by quorum and is still with a member that an election
    /// may ask is there too.
    pub(crate) fn look_at_quorum(&self, before: &Topology, slot: Slot, held: &[u64]) {
        let Some(writes) = self.acknowledged.writes.get(&slot) else { return };
        for copy in before.survivors(before.slot(slot)) {
            let of_it = self.complete_of(copy, slot);
            let missing = writes.iter().find(|write| of_it.contains(write) && !held.contains(write));
            if let Some(write) = missing {
                self.fail(&format!(
                    "write {write} of {slot:?} was acknowledged by quorum, {copy:?} has it, and who is elected does not: {held:?}"
                ));
            }
        }
    }

    /// What a copy has of a slot; nothing where its process is another, or it is being sent the slot anew.
    fn complete_of(&self, copy: &SlotCopy, slot: Slot) -> &[u64] {
        let processes = self.nodes.iter().filter_map(|node| node.process.as_ref());
        let mut of_it = processes.filter(|process| {
            process.keeper.own == copy.node && process.registration.incarnation() == Some(copy.incarnation)
        });
        let process = of_it.find(|process| process.keeper.copies.is_complete(slot, copy.number));
        process.map_or(&[], |process| process.keeper.held(slot))
    }
}
