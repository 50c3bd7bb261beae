//! A simulated node: what is on its disk, and what runs while it is up. Only pure cores.

use crate::agreement::{Leading, Purpose};
use crate::keeper::Keeper;
use crate::log::{Keys, Log};
use crate::network::address_of;
use starling::base::hlc::{HybridClock, Stamp};
use starling::base::identity::{ClusterId, Incarnation, NodeId};
use starling::cluster::datagram::ClusterSecret;
use starling::cluster::draining::Draining;
use starling::cluster::lease::Lease;
use starling::cluster::membership::{Life, MemberIdentity, MemberMetadata, Membership, MembershipOptions};
use starling::cluster::registration::Registration;
use starling::cluster::support::{Promises, Support};
use starling::cluster::topology::{self, NodeState, Topology};
use starling::cluster::view::is_current;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// The wall clock at the start of every run, ms since 1970.
pub(crate) const RUN_STARTS_UNIX_MS: u64 = 1_800_000_000_000;
/// The cluster that all nodes belong to, and one that strangers do.
pub(crate) const CLUSTER: ClusterId = ClusterId(0xC1 << 120);
pub(crate) const OTHER_CLUSTER: ClusterId = ClusterId(0xC2 << 120);

/// What survives a crash.
#[derive(Default)]
pub(crate) struct Disk {
    /// The start of its latest life, ms since 1970.
    pub(crate) start_ms: u64,
    /// The mark of its hybrid clock.
    pub(crate) mark_ms: u64,
    /// How much of what was agreed it has applied; only voters keep it.
    pub(crate) agreed: u64,
    /// What the log of its keys has, where it has kept one.
    pub(crate) log: Option<Keys>,
    /// What it has promised as a lease voter.
    pub(crate) promises: Promises,
    /// Its raft log is gone and the rest is not: the node does not start.
    pub(crate) lacks_raft_log: bool,
}

/// What a crash ends.
pub(crate) struct Process {
    pub(crate) life: u64,
    pub(crate) membership: Membership,
    pub(crate) hybrid_clock: HybridClock,
    /// Its share of the topology and of the keys.
    pub(crate) keeper: Keeper,
    pub(crate) registration: Registration,
    pub(crate) lease: Lease,
    pub(crate) support: Support,
    /// What it does for the cluster while it leads.
    pub(crate) leading: Leading,
    /// What it has proposed and not given up yet.
    pub(crate) proposals: BTreeMap<u64, Purpose>,
    /// It has come back with what its log had.
    pub(crate) returns: bool,
    /// It was told to stop, and gives its slots away.
    pub(crate) draining: Option<Draining>,
    /// When its next timer fires; an earlier wake in the queue is out of date.
    pub(crate) wake_us: u64,
    /// A mark is on its way to the disk.
    pub(crate) marking: bool,
}

pub(crate) struct Node {
    pub(crate) number: usize,
    /// How many disks it has lost: with each of them who it was.
    pub(crate) disks_lost: u32,
    /// Where it is, or was last.
    pub(crate) address: SocketAddr,
    pub(crate) disk: Disk,
    pub(crate) process: Option<Process>,
    /// It keeps a log, or will from its next start on.
    pub(crate) keeps_log: bool,
    /// How many lives it has had.
    pub(crate) lives: u64,
    /// How fast its boot-time clock runs, in thousandths.
    pub(crate) clock_rate: u64,
    /// Its wall clock is off by this much, in ms.
    pub(crate) clock_offset_ms: i64,
    /// Nothing reaches the process before this moment: the machine sleeps, or swaps.
    pub(crate) paused_until_us: u64,
}

impl Process {
    /// Whether the topology that it knows means this life.
    pub(crate) fn is_current(&self) -> bool {
        is_current(&self.keeper.topology, self.keeper.own, self.registration.incarnation())
    }
}

impl Node {
    pub(crate) fn new(number: usize) -> Node {
        Node {
            number,
            disks_lost: 0,
            address: address_of(number),
            disk: Disk::default(),
            process: None,
            keeps_log: false,
            lives: 0,
            clock_rate: 1000,
            clock_offset_ms: 0,
            paused_until_us: 0,
        }
    }

    pub(crate) fn id(&self) -> NodeId {
        node_id(self.number, self.disks_lost)
    }

    /// Its wall clock now.
    pub(crate) fn unix_ms(&self, now_us: u64) -> u64 {
        (RUN_STARTS_UNIX_MS + now_us / 1000).saturating_add_signed(self.clock_offset_ms)
    }

    /// Starts a process on what is on the disk.
    pub(crate) fn start(
        &mut self,
        cluster: ClusterId,
        seeds: &[usize],
        random_seed: u64,
        now_us: u64,
        topology: Topology,
    ) {
        self.disk.start_ms = self.unix_ms(now_us).max(self.disk.start_ms + 1);
        self.lives += 1;
        let identity = MemberIdentity {
            node: self.id(),
            address: self.address,
            life: Life { start_ms: self.disk.start_ms, renewals: 0 },
            metadata: MemberMetadata { client_port: 6379, weight_percent: 100, ..MemberMetadata::default() },
        };
        let options = MembershipOptions {
            identity,
            cluster,
            generation: 0,
            secret: ClusterSecret::new(b"the secret of all simulated clusters"),
            seeds: seeds.iter().map(|&seed| address_of(seed)).collect(),
            random_seed,
        };
        let found = self.disk.log.take_if(|_| self.keeps_log);
        let returns = found.is_some();
        let keys = found.unwrap_or_default();
        let log = self.keeps_log.then(|| Log::after(keys.clone()));
        self.process = Some(Process {
            life: self.lives,
            membership: Membership::new(options, now_us),
            hybrid_clock: HybridClock::restore(self.disk.mark_ms),
            keeper: Keeper::returned(self.id(), topology, keys, log),
            registration: Registration::new(description(self.id(), self.address, self.disk.start_ms)),
            lease: Lease::new(self.id()),
            support: Support::new(self.id(), self.disk.promises.clone(), self.boot_us(now_us)),
            leading: Leading::default(),
            proposals: BTreeMap::new(),
            returns,
            draining: None,
            wake_us: u64::MAX,
            marking: false,
        });
    }

    /// A stamp, unless the clock waits for its mark.
    pub(crate) fn stamp(&mut self, now_us: u64) -> Option<Stamp> {
        let unix_ms = self.unix_ms(now_us);
        self.process.as_mut()?.hybrid_clock.stamp(unix_ms).ok()
    }

    /// The nodes that its membership believes alive.
    pub(crate) fn live_members(&self) -> Vec<NodeId> {
        let view = self.process.as_ref().map(|process| process.membership.view());
        view.map(|view| view.live().map(|member| member.identity.node).collect()).unwrap_or_default()
    }
}

/// Who a node is after it has lost so many disks.
pub(crate) fn node_id(number: usize, disks_lost: u32) -> NodeId {
    NodeId((number as u128 + 1) << 96 | u128::from(disks_lost))
}

/// The node that has, or had, this identity.
pub(crate) fn number_of(node: NodeId) -> usize {
    (node.0 >> 96) as usize - 1
}

/// How a life of a node describes itself.
pub(crate) fn description(id: NodeId, address: SocketAddr, start_ms: u64) -> topology::Node {
    topology::Node {
        id,
        incarnation: Incarnation(0),
        ip: address.ip(),
        port: 6379,
        cluster_port: address.port(),
        hostname: String::new(),
        weight: 1,
        zone: String::new(),
        arbiter: false,
        proxy_port: 0,
        start_ms,
        support: 0,
        state: NodeState::Active,
        leaving: false,
        probation: topology::Probation::default(),
    }
}
