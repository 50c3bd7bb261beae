//! The world of one run: a clock that jumps from happening to happening, a network, and nodes made of pure cores.
//!
//! One thread, one queue, one source of randomness: a run is a function of its seed. After every happening the
//! invariants look at the world.

use crate::consensus::{Consensus, is_majority};
use crate::electing::Histories;
pub(crate) use crate::happening::Happening;
use crate::invariants::{Invariants, Observation};
use crate::log::Log;
use crate::network::{Faults, Network, address_of};
use crate::node::{CLUSTER, Disk, Node, OTHER_CLUSTER};
use crate::quorum::Acknowledged;
use crate::trace::Trace;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use starling::base::hlc::Stamp;
use starling::base::identity::NodeId;
use starling::base::slot::Slot;
use starling::cluster::membership::{Input, MembershipEvent, Outputs};
use starling::cluster::topology::Topology;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::SocketAddr;

/// The nodes of the cluster; one more stands beside them, in another cluster and with their addresses as seeds.
pub(crate) const NODES: usize = 5;
const STRANGER: usize = NODES;
/// These stay where they are: their addresses are what every node is told to begin with.
pub(crate) const SEEDS: [usize; 2] = [0, 1];
/// The addresses of the others, and as many free ones.
const ADDRESSES: [usize; 6] = [2, 3, 4, 6, 7, 8];
/// Datagrams kept to be replayed.
const RECORDED: usize = 50;
/// How long the disk takes to make a mark durable.
const DISK_US: u64 = 5_000;

pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) now_us: u64,
    pub(crate) random: Xoshiro256PlusPlus,
    pub(crate) network: Network,
    pub(crate) nodes: Vec<Node>,
    pub(crate) trace: Trace,
    /// When the faults ended.
    pub(crate) ended_us: u64,
    /// How long after that all agreed.
    pub(crate) healed_us: u64,
    /// How long after that the topology was whole.
    pub(crate) settled_us: u64,
    pub(crate) consensus: Consensus,
    /// What is agreed, applied at once: what nodes come to know later.
    pub(crate) agreed: Topology,
    /// Raft snapshots, by index.
    pub(crate) snapshots: BTreeMap<u64, Vec<u8>>,
    /// How many changes were proposed, and questions asked.
    pub(crate) proposals: u64,
    pub(crate) questions: u64,
    /// A node that a person has told the cluster to forget.
    pub(crate) to_forget: Option<usize>,
    /// Who was on disks that are lost: they never come back.
    pub(crate) lost: BTreeSet<NodeId>,
    /// The writes of each slot that were executed and must still be there, but for some of `doubtful` at the end.
    pub(crate) executed: BTreeMap<Slot, Vec<u64>>,
    /// Writes that no client was acknowledged before the node that executed them crashed, and that its log had not. Whether
    /// they are there is shown by who serves their slot next: they may have moved with it.
    pub(crate) doubtful: BTreeSet<u64>,
    /// How many writes were executed.
    pub(crate) written: u64,
    /// How many nodes were fenced.
    pub(crate) fenced: u64,
    /// Clients write.
    pub(crate) writes: bool,
    /// How many processes ended without a word.
    pub(crate) crashes: u64,
    /// How many copies of each slot there shall be.
    pub(crate) replicas: usize,
    /// Replies wait for a quorum.
    pub(crate) quorum: bool,
    pub(crate) acknowledged: Acknowledged,
    pub(crate) histories: Histories,
    invariants: Invariants,
    /// Some of the datagrams sent so far, from any time.
    recorded: Vec<(usize, SocketAddr, SocketAddr, Vec<u8>)>,
    queue: BinaryHeap<Queued>,
    queued: u64,
    pub(crate) chaos: bool,
}

/// A happening to come. The earliest first; of those at one moment, the one queued first.
struct Queued {
    due_us: u64,
    number: u64,
    happening: Happening,
}

impl Ord for Queued {
    fn cmp(&self, other: &Queued) -> Ordering {
        (other.due_us, other.number).cmp(&(self.due_us, self.number))
    }
}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Queued) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Queued {
    fn eq(&self, other: &Queued) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Queued {}

impl World {
    pub(crate) fn new(seed: u64) -> World {
        World {
            seed,
            now_us: 0,
            random: Xoshiro256PlusPlus::seed_from_u64(seed),
            network: Network::new(),
            nodes: (0..=NODES).map(Node::new).collect(),
            trace: Trace::new(),
            ended_us: 0,
            healed_us: 0,
            settled_us: 0,
            consensus: Consensus::new(),
            agreed: Topology::default(),
            snapshots: BTreeMap::new(),
            proposals: 0,
            questions: 0,
            to_forget: None,
            lost: BTreeSet::new(),
            executed: BTreeMap::new(),
            doubtful: BTreeSet::new(),
            written: 0,
            fenced: 0,
            writes: true,
            crashes: 0,
            replicas: 0,
            quorum: false,
            acknowledged: Acknowledged::default(),
            histories: Histories::default(),
            invariants: Invariants::new(),
            recorded: Vec::new(),
            queue: BinaryHeap::new(),
            queued: 0,
            chaos: false,
        }
    }

    /// Nodes one after another come up, knowing a few addresses; the stranger knows all.
    pub(crate) fn start(&mut self) {
        // No node keeps a log, all do, or some.
        let share = [0.0, 1.0, 0.5][self.random.random_range(0..3)];
        for node in &mut self.nodes {
            node.keeps_log = self.random.random_bool(share);
        }
        // Seldom: runs with copies take several times as long.
        self.replicas = if self.random.random_bool(0.2) { self.random.random_range(1..=2) } else { 0 };
        for node in 0..NODES {
            self.start_node(node);
            self.after(0, Happening::Stamp { node });
            self.after(0, Happening::Duty { node });
            self.after(0, Happening::Pull { node });
        }
        self.begin_leases();
        self.after(0, Happening::Lead);
        self.after(0, Happening::Write);
        self.start_node(STRANGER);
    }

    pub(crate) fn start_node(&mut self, number: usize) {
        if self.nodes[number].disk.lacks_raft_log {
            self.trace.line(self.now_us, format_args!("node {number} does not start: its raft log is gone"));
            return;
        }
        let random_seed = self.random.random();
        let (cluster, seeds): (_, Vec<usize>) =
            if number == STRANGER { (OTHER_CLUSTER, (0..NODES).collect()) } else { (CLUSTER, SEEDS.to_vec()) };
        // A voter finds on its disk what it had applied; the others begin with nothing.
        let agreed = if self.voters().contains(&number) { self.nodes[number].disk.agreed } else { 0 };
        let topology = self.recover(agreed);
        if self.holder(self.nodes[number].address).is_some() {
            self.move_away(number);
        }
        self.nodes[number].start(cluster, &seeds, random_seed, self.now_us, topology);
        self.trace.line(self.now_us, format_args!("node {number} starts life {}", self.nodes[number].lives));
        self.write_mark(number);
        self.arm(number);
    }

    /// The node whose process is at this address.
    pub(crate) fn holder(&self, address: SocketAddr) -> Option<usize> {
        self.nodes.iter().position(|node| node.process.is_some() && node.address == address)
    }

    /// A node that is down will start at another address, at which others may have been before.
    pub(crate) fn move_away(&mut self, number: usize) {
        let others = ADDRESSES.map(address_of).into_iter().filter(|address| *address != self.nodes[number].address);
        let free: Vec<SocketAddr> = others.filter(|address| self.holder(*address).is_none()).collect();
        let address = free[self.random.random_range(0..free.len())];
        self.trace.line(self.now_us, format_args!("node {number} moves to {address}"));
        self.nodes[number].address = address;
    }

    /// The process ends without a word. Of what its log had not kept some is there all the same.
    pub(crate) fn crash(&mut self, number: usize) {
        let log = self.nodes[number].process.as_ref().and_then(|process| process.keeper.log.as_ref());
        let unkept = log.map_or(0, Log::unkept);
        let survive = self.random.random_range(0..=unkept);
        self.trace.line(self.now_us, format_args!("node {number} crashes, {survive} of {unkept} changes survive"));
        self.crashes += 1;
        self.end_process(number, survive);
    }

    /// Whether the cluster outlives it that this node loses what it voted by.
    pub(crate) fn may_lose_disk(&self, number: usize) -> bool {
        let others = self.voters().into_iter().filter(|voter| *voter != number).count();
        // Votes for leases that nobody has any more come back by nobody either.
        let is_there = |voter: &NodeId| *voter != self.nodes[number].id() && !self.lost.contains(voter);
        is_majority(others, self.consensus.voters().len()) && self.agreed.lease_voters.has_majority(is_there)
    }

    /// The process ends, and its raft log is gone: it does not start again.
    pub(crate) fn lose_raft_log(&mut self, number: usize) {
        self.crash(number);
        self.trace.line(self.now_us, format_args!("node {number} loses its raft log"));
        self.nodes[number].disk.lacks_raft_log = true;
    }

    /// The process ends, and its disk is empty, or is emptied: what starts here is another node.
    pub(crate) fn lose_disk(&mut self, number: usize) {
        self.crash(number);
        let node = &mut self.nodes[number];
        self.lost.insert(node.id());
        node.disk = Disk::default();
        node.disks_lost += 1;
        self.trace.line(self.now_us, format_args!("the disk of node {number} is empty: it is {:?} now", node.id()));
        self.observe(Observation::DiskLost { node: number });
    }

    /// The process says goodbye and ends.
    pub(crate) fn leave(&mut self, number: usize) {
        self.trace.line(self.now_us, format_args!("node {number} leaves"));
        self.step(number, Input::Leave, None);
        // Its log is synced before it ends.
        self.end_process(number, u64::MAX);
    }

    /// Datagrams of any time before come again, from wherever they came, to whomever.
    pub(crate) fn replay(&mut self) {
        self.trace.line(self.now_us, format_args!("datagrams of before come again"));
        for (sender, from, to, bytes) in self.recorded.clone() {
            let to = if self.random.random_bool(0.8) {
                to
            } else {
                let node = self.random.random_range(0..NODES);
                self.nodes[node].address
            };
            self.after(0, Happening::Datagram { sender, from, to, bytes });
        }
    }

    /// Faults begin: from now on [`crate::chaos`] is asked what happens next.
    pub(crate) fn begin_chaos(&mut self) {
        self.chaos = true;
        self.after(0, Happening::Chaos);
    }

    /// Faults end: the network is whole, clocks are right, and all nodes run.
    pub(crate) fn end_chaos(&mut self) {
        self.trace.line(self.now_us, format_args!("faults end"));
        self.chaos = false;
        self.ended_us = self.now_us;
        self.network.heal();
        self.network.faults = Faults::NONE;
        self.to_forget = None;
        for number in 0..NODES {
            self.nodes[number].clock_offset_ms = 0;
            self.nodes[number].paused_until_us = 0;
            // Whoever is on its way out comes back.
            if self.nodes[number].process.as_ref().is_some_and(|process| process.draining.is_some()) {
                self.crash(number);
            }
            // As the message of the node that does not start says.
            if self.nodes[number].disk.lacks_raft_log {
                self.lose_disk(number);
            }
            if self.nodes[number].process.is_none() {
                self.start_node(number);
            }
        }
    }

    /// Lets what is due happen, until this much time has passed or the condition holds. Whether it holds.
    pub(crate) fn run_until(&mut self, limit_us: u64, condition: impl Fn(&World) -> bool) -> bool {
        let end_us = self.now_us + limit_us;
        while !condition(self) {
            if self.queue.peek().is_none_or(|next| next.due_us > end_us) {
                self.now_us = end_us;
                return condition(self);
            }
            let Some(next) = self.queue.pop() else { return false };
            self.now_us = next.due_us;
            self.happen(next.happening);
        }
        true
    }

    /// Whether every node runs and believes exactly all the others alive.
    pub(crate) fn all_agree(&self) -> bool {
        self.nodes[..NODES].iter().all(|node| {
            let others = self.nodes[..NODES].iter().filter(|other| other.number != node.number);
            node.process.is_some() && others.map(Node::id).eq(node.live_members())
        })
    }

    pub(crate) fn after(&mut self, delay_us: u64, happening: Happening) {
        self.queued += 1;
        self.queue.push(Queued { due_us: self.now_us + delay_us, number: self.queued, happening });
    }

    fn happen(&mut self, happening: Happening) {
        self.act(happening);
        for number in 0..NODES {
            self.begin_sync(number);
        }
    }

    fn act(&mut self, happening: Happening) {
        if let Some(node) = self.acting_node(&happening) {
            let paused_until_us = self.nodes[node].paused_until_us;
            if paused_until_us > self.now_us {
                // Not lost: it waits in the machine, in order.
                self.after(paused_until_us - self.now_us, happening);
                return;
            }
        }
        match happening {
            Happening::Datagram { sender, from, to, bytes } => self.deliver(sender, from, to, &bytes),
            Happening::Timers { node } => {
                let due = self.nodes[node].process.as_ref().is_some_and(|process| process.wake_us <= self.now_us);
                if due {
                    self.step(node, Input::TimersDue, None);
                }
            }
            Happening::Stamp { node } => self.on_stamp(node),
            Happening::Stamped { from, to, bits } => self.on_stamped(from, to, Stamp::from_bits(bits)),
            Happening::MarkDurable { node, life, mark_ms } => self.on_mark_durable(node, life, mark_ms),
            Happening::Duty { node } => self.on_duty(node),
            Happening::Message { from, to, message } => self.on_message(from, to, message),
            Happening::Proposed { from, life, proposal, is_late, change } => {
                self.on_proposed(from, life, proposal, is_late, change);
            }
            Happening::Outcome { node, life, proposal, outcome } => self.on_outcome(node, life, proposal, outcome),
            Happening::Synced { node, life } => self.on_synced(node, life),
            Happening::Look { node } => self.look(node),
            Happening::Pull { node } => self.on_pull(node),
            Happening::Beat { node } => self.on_beat_due(node),
            Happening::Vote { node } => self.on_vote(node),
            Happening::Promised { node, life, promises } => self.on_promised(node, life, promises),
            Happening::Copy { node, life, what } => self.on_copy(node, life, what),
            Happening::Lead => self.on_lead(),
            Happening::Write => self.on_write(),
            Happening::Chaos if self.chaos => {
                let delay_us = crate::chaos::strike(self);
                self.after(delay_us, Happening::Chaos);
            }
            Happening::Chaos => {}
        }
    }

    fn deliver(&mut self, sender: usize, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        if let Some(to) = self.holder(to).filter(|to| !self.network.is_cut(sender, *to)) {
            self.step(to, Input::Datagram { from, bytes }, Some(bytes));
        }
    }

    fn step(&mut self, number: usize, input: Input<'_>, datagram: Option<&[u8]>) {
        let Some(process) = &mut self.nodes[number].process else { return };
        let before = datagram.map(|_| process.membership.view());
        let outputs = process.membership.step(input, self.now_us);
        if let (Some(before), Some(bytes)) = (before, datagram) {
            let after = process.membership.view();
            self.observe(Observation::Heard { node: number, datagram: bytes, before: &before, after: &after });
        }
        self.perform(number, outputs);
        self.arm(number);
    }

    fn perform(&mut self, number: usize, outputs: Outputs) {
        for event in outputs.events {
            self.on_event(number, &event);
        }
        for (to, bytes) in outputs.datagrams {
            let from = self.nodes[number].address;
            self.record(number, from, to, &bytes);
            // Nobody may be there by now, and somebody when it arrives.
            let receiver = self.holder(to).unwrap_or(number);
            for delay_us in self.network.arrivals(number, receiver, &mut self.random) {
                self.after(delay_us, Happening::Datagram { sender: number, from, to, bytes: bytes.clone() });
            }
        }
    }

    /// Keeps one datagram in ten, in place of any other.
    fn record(&mut self, sender: usize, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        if self.random.random_bool(0.1) {
            if self.recorded.len() < RECORDED {
                self.recorded.push((sender, from, to, bytes.to_vec()));
            } else {
                let at = self.random.random_range(0..RECORDED);
                self.recorded[at] = (sender, from, to, bytes.to_vec());
            }
        }
    }

    fn on_event(&mut self, number: usize, event: &MembershipEvent) {
        self.trace.line(self.now_us, format_args!("node {number}: {event:?}"));
        self.observe(Observation::Event { node: number, event });
    }

    fn arm(&mut self, number: usize) {
        let now_us = self.now_us;
        let Some(process) = &mut self.nodes[number].process else { return };
        let due_us = process.membership.next_due_us().unwrap_or(u64::MAX).max(now_us);
        if due_us != process.wake_us && due_us != u64::MAX {
            process.wake_us = due_us;
            self.after(due_us - now_us, Happening::Timers { node: number });
        }
    }

    fn on_stamp(&mut self, node: usize) {
        let pause_us = self.random.random_range(1_000..200_000);
        self.after(pause_us, Happening::Stamp { node });
        let to = self.random.random_range(0..NODES);
        if let Some(stamp) = self.nodes[node].stamp(self.now_us) {
            self.observe(Observation::Stamped { node, stamp });
            for delay_us in self.network.arrivals(node, to, &mut self.random) {
                self.after(delay_us, Happening::Stamped { from: node, to, bits: stamp.bits() });
            }
        }
        self.write_mark(node);
    }

    fn on_stamped(&mut self, from: usize, to: usize, stamp: Stamp) {
        let unix_ms = self.nodes[to].unix_ms(self.now_us);
        let Some(process) = &mut self.nodes[to].process else { return };
        let believed = process.hybrid_clock.observe(stamp, unix_ms).is_ok();
        self.observe(Observation::HeardStamp { node: to, stamp, believed, unix_ms });
        if !believed {
            self.trace.line(self.now_us, format_args!("node {to} does not believe {stamp:?} of node {from}"));
        }
    }

    /// Sends the mark to the disk if one is due. What a crash overtakes is lost.
    fn write_mark(&mut self, number: usize) {
        let unix_ms = self.nodes[number].unix_ms(self.now_us);
        let Some(process) = &mut self.nodes[number].process else { return };
        let life = process.life;
        if let Some(mark_ms) = process.hybrid_clock.mark_due(unix_ms).filter(|_| !process.marking) {
            process.marking = true;
            self.after(DISK_US, Happening::MarkDurable { node: number, life, mark_ms });
        }
    }

    fn on_mark_durable(&mut self, number: usize, life: u64, mark_ms: u64) {
        let node = &mut self.nodes[number];
        if let Some(process) = node.process.as_mut().filter(|process| process.life == life) {
            node.disk.mark_ms = node.disk.mark_ms.max(mark_ms);
            process.hybrid_clock.marked(mark_ms);
            process.marking = false;
        }
    }

    pub(crate) fn observe(&mut self, observation: Observation<'_>) {
        if let Err(broken) = self.invariants.observe(&observation) {
            self.fail(&broken);
        }
    }

    /// Ends the run with what is needed to see it again.
    pub(crate) fn fail(&self, what: &str) -> ! {
        panic!(
            "{what}\n\nlast events:\n{}\nSee it again: REPLICAS={} QUORUM={} make sim SEED={}\n",
            self.trace.last_lines(),
            self.replicas,
            u8::from(self.quorum),
            self.seed
        )
    }
}
