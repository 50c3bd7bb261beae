//! Membership: what gossip believes about who is in the cluster, where, and alive.
//!
//! ```text
//!  datagrams, time, wishes ──▶ Membership::step ──▶ datagrams to send, events
//!                                    │
//!                                  foca (SWIM: probe, suspect, spread)
//! ```
//!
//! A value without sockets, clock or threads: `step` takes one input and the time and gives what to send and what
//! happened; [`Membership::next_due_us`] says when it next wants to be woken. From equal inputs and an equal seed it does
//! equal things, so a simulation runs whole clusters of it. Its shell, with the socket and the thread, is [`socket`].
//!
//! Around foca it adds: the envelope with cluster and secret ([`crate::cluster::datagram`]), joining by address alone,
//! finding the others again after everybody was lost, fencing of earlier lives, and bounds on what is remembered.
//!
//! What it believes is a hint. "Down" never changes who owns a slot.

mod broadcasts;
mod identity;
mod settings;
pub mod socket;
#[cfg(test)]
mod tests;
mod timers;
mod view;

pub use broadcasts::{Broadcast, BroadcastError};
pub use identity::{Life, MemberIdentity, MemberMetadata};
pub use settings::{BROADCAST_BACKLOG_MAX, BROADCAST_BYTES_MAX};
pub use view::{MemberHealth, MemberView, MembersView, MembershipEvent};

use crate::base::identity::{ClusterId, NodeId};
use crate::cluster::datagram::{self, ClusterSecret, Envelope, Expected, Reject};
use broadcasts::{Backlog, BroadcastFilter};
use foca::{AccumulatingRuntime, Foca, Member, OwnedNotification, State, Timer};
use identity::{IdentityCodec, LifeAddressed};
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::IteratorRandom;
use rand::{RngExt, SeedableRng};
use std::cmp::Ordering;
use std::net::SocketAddr;
use std::sync::mpsc;
use timers::Timers;
use view::KnownMembers;

/// How often it looks after itself: alone? someone to forget?
const CHECK_US: u64 = 1_000_000;
/// Alone, it announces itself this often.
const ANNOUNCE_ALONE_US: u64 = 2_000_000;
/// A suspicion that lasts for so many times as long as it may has no end of its own.
const SUSPICIONS: u32 = 3;
/// Among others, it announces itself this often to some that are down, and to a seed that is not among them. It bounds
/// how long a healed partition goes unnoticed.
const ANNOUNCE_ABSENT_US: u64 = 5_000_000;
/// To how many members that are down at a time.
const ANNOUNCE_DOWN_TARGETS: usize = 2;
/// To how many seeds, and to how many former members, it announces itself at a time.
const ANNOUNCE_TARGETS: usize = 5;
/// Seeds kept at most.
const SEEDS_MAX: usize = 64;
/// A member that was down this long is forgotten: two days, so that a long repair is not a new node to anyone.
const FORGET_DOWN_US: u64 = 48 * 3600 * 1_000_000;
/// At most one event per kind of reject in this time.
const REJECT_EVENT_US: u64 = 10_000_000;
/// For so many seconds after joining it asks members for all they know: one answer holds about 27 of them.
const CATCH_UP_CHECKS: u8 = 10;

/// What a [`Membership`] is made of.
#[derive(Clone, Debug)]
pub struct MembershipOptions {
    /// The node: its `life.start_ms` must be greater than in any life before.
    pub identity: MemberIdentity,
    pub cluster: ClusterId,
    /// Forced recoveries of the cluster so far.
    pub generation: u32,
    /// Without one, only peers on the loopback address are heard.
    pub secret: Option<ClusterSecret>,
    /// Where other members may be: asked at the start, and whenever this node is alone.
    pub seeds: Vec<SocketAddr>,
    /// All randomness comes from this.
    pub random_seed: u64,
}

/// Everything that can happen to a [`Membership`].
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// A datagram has come from this address.
    Datagram { from: SocketAddr, bytes: &'a [u8] },
    /// The time of [`Membership::next_due_us`] has come.
    TimersDue,
    /// Find the cluster through these addresses, besides the seeds so far.
    Join { seeds: &'a [SocketAddr] },
    /// Members that a trustworthy source named, such as the answer to a join request or the topology.
    Learn { members: &'a [MemberIdentity] },
    /// The topology has removed this node: forget it, if it is down.
    Forget(NodeId),
    /// This node now knows this version of the topology; every datagram carries it.
    TopologyVersion(u64),
    /// The cluster has had another forced recovery.
    Generation(u32),
    /// Say goodbye. Nothing is sent or heard after this step.
    Leave,
}

/// What a step wants done.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Outputs {
    /// Datagrams to send, in order.
    pub datagrams: Vec<(SocketAddr, Vec<u8>)>,
    /// What happened, in order.
    pub events: Vec<MembershipEvent>,
    /// Whether [`Membership::view`] differs from before the step.
    pub view_changed: bool,
}

/// One node's membership.
pub struct Membership {
    foca: Foca<MemberIdentity, IdentityCodec, Xoshiro256PlusPlus, BroadcastFilter>,
    runtime: AccumulatingRuntime<MemberIdentity>,
    timers: Timers,
    known: KnownMembers,
    expected: Expected,
    seeds: Vec<SocketAddr>,
    random: Xoshiro256PlusPlus,
    own_topology_version: u64,
    greatest_topology_version: u64,
    addressed: LifeAddressed,
    broadcast_backlog: Backlog,
    broadcast_inbox: mpsc::Receiver<Broadcast>,
    broadcasts_sent: u64,
    rejects: [RejectCount; Reject::KINDS],
    /// The number of live members, this node included, that foca's settings are for.
    configured_for: usize,
    connected: bool,
    left: bool,
    catch_up: u8,
    next_check_us: u64,
    next_announce_us: u64,
    /// When it may next pass a later life of itself that peers remember.
    next_overtake_us: u64,
}

#[derive(Clone, Copy, Default)]
struct RejectCount {
    total: u64,
    since_event: u64,
    next_event_us: u64,
}

impl Membership {
    /// A node that knows nobody yet. Its first [`Input::TimersDue`], due at once, announces it to the seeds.
    pub fn new(options: MembershipOptions, now_us: u64) -> Membership {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(options.random_seed);
        let addressed = LifeAddressed::default();
        let broadcast_backlog = Backlog::default();
        let (inbox_sender, broadcast_inbox) = mpsc::channel();
        let codec = IdentityCodec { own: options.identity.node, addressed: addressed.clone() };
        let filter = BroadcastFilter::new(broadcast_backlog.clone(), inbox_sender);
        let foca_random = Xoshiro256PlusPlus::seed_from_u64(random.random());
        let foca = Foca::with_custom_broadcast(options.identity, settings::config(1), foca_random, codec, filter);
        let mut membership = Membership {
            foca,
            runtime: AccumulatingRuntime::new(),
            timers: Timers::default(),
            known: KnownMembers::default(),
            expected: Expected { cluster: options.cluster, generation: options.generation, secret: options.secret },
            seeds: Vec::new(),
            random,
            own_topology_version: 0,
            greatest_topology_version: 0,
            addressed,
            broadcast_backlog,
            broadcast_inbox,
            broadcasts_sent: 0,
            rejects: [RejectCount::default(); Reject::KINDS],
            configured_for: 1,
            connected: false,
            left: false,
            catch_up: 0,
            next_check_us: now_us,
            next_announce_us: now_us,
            next_overtake_us: 0,
        };
        membership.add_seeds(&options.seeds);
        membership
    }

    /// Takes one input at this moment of the boot-time clock.
    pub fn step(&mut self, input: Input<'_>, now_us: u64) -> Outputs {
        let mut outputs = Outputs::default();
        if self.left {
            return outputs;
        }
        self.broadcast_backlog.set(self.foca.custom_broadcast_backlog());
        match input {
            Input::Datagram { from, bytes } => self.on_datagram(from, bytes, now_us, &mut outputs),
            Input::TimersDue => self.on_timers(now_us),
            Input::Join { seeds } => {
                self.add_seeds(seeds);
                self.announce_around();
                self.next_announce_us = now_us + ANNOUNCE_ALONE_US;
            }
            Input::Learn { members } => self.on_learn(members),
            Input::Forget(node) => self.forget(node, &mut outputs),
            Input::TopologyVersion(version) => {
                self.own_topology_version = self.own_topology_version.max(version);
                self.greatest_topology_version = self.greatest_topology_version.max(version);
            }
            Input::Generation(generation) => self.expected.generation = generation,
            Input::Leave => return self.leave(outputs),
        }
        self.settle(now_us, &mut outputs);
        outputs
    }

    /// Sends a message to all members, as [`MembershipEvent::BroadcastReceived`]. Most get it within a second, and
    /// some may not: it is for what can be missed. Not raised on this node itself.
    pub fn broadcast(&mut self, payload: &[u8], now_us: u64) -> Result<Outputs, BroadcastError> {
        check_broadcast(payload)?;
        if self.left {
            return Err(BroadcastError::Left);
        }
        let backlog = self.foca.custom_broadcast_backlog();
        if backlog >= BROADCAST_BACKLOG_MAX {
            return Err(BroadcastError::Busy);
        }
        self.broadcast_backlog.set(backlog);
        self.broadcasts_sent += 1;
        let own = *self.foca.identity();
        let bytes = Broadcast::encode(own.node, own.life, self.broadcasts_sent, payload);
        let added = self.foca.add_broadcast(&bytes);
        debug_assert!(matches!(added, Ok(true)), "{added:?}");
        let sent = self.foca.broadcast(&mut self.runtime);
        log_failure("broadcast", sent);
        let mut outputs = Outputs::default();
        self.settle(now_us, &mut outputs);
        Ok(outputs)
    }

    /// When the next [`Input::TimersDue`] is wanted, in microseconds of the boot-time clock; `None` after leaving.
    /// Later is fine, never is not.
    pub fn next_due_us(&self) -> Option<u64> {
        if self.left {
            return None;
        }
        Some(self.timers.next_due_us().map_or(self.next_check_us, |due| due.min(self.next_check_us)))
    }

    /// What it believes now.
    pub fn view(&self) -> MembersView {
        MembersView {
            own: *self.foca.identity(),
            connected: self.connected,
            members: self.known.iter().copied().collect(),
        }
    }

    /// How many datagrams were dropped, by [`Reject::kind`].
    pub fn rejects(&self) -> [u64; Reject::KINDS] {
        self.rejects.map(|count| count.total)
    }

    fn on_datagram(&mut self, from: SocketAddr, bytes: &[u8], now_us: u64, outputs: &mut Outputs) {
        match self.accept(from, bytes) {
            Ok(Some((envelope, payload))) => {
                if self.foca.handle_data(payload, &mut self.runtime).is_err() {
                    self.reject(Reject::Malformed, from, now_us, outputs);
                    return;
                }
                self.hear_version(&envelope, outputs);
                self.overtake(now_us, outputs);
            }
            Ok(None) => {}
            Err(reason) => self.reject(reason, from, now_us, outputs),
        }
    }

    /// The envelope and payload of a datagram that may be listened to; `None` for this node's own.
    fn accept<'a>(&self, from: SocketAddr, bytes: &'a [u8]) -> Result<Option<(Envelope, &'a [u8])>, Reject> {
        let (envelope, payload) = datagram::open(bytes, from.ip(), &self.expected)?;
        let own = self.foca.identity();
        if envelope.sender == own.node {
            // A seed list may hold this node's own address by another name.
            return match envelope.sender_start_ms.cmp(&own.life.start_ms) {
                Ordering::Equal => Ok(None),
                Ordering::Less => Err(Reject::StaleLife),
                Ordering::Greater => Err(Reject::OwnIdentity),
            };
        }
        let known_start_ms = self.known.get(envelope.sender).map_or(0, |member| member.identity.life.start_ms);
        if envelope.sender_start_ms < known_start_ms {
            return Err(Reject::StaleLife);
        }
        Ok(Some((envelope, payload)))
    }

    fn reject(&mut self, reason: Reject, from: SocketAddr, now_us: u64, outputs: &mut Outputs) {
        let count = &mut self.rejects[reason.kind()];
        count.total += 1;
        count.since_event += 1;
        if now_us >= count.next_event_us {
            outputs.events.push(MembershipEvent::Rejected { reason, from, count: count.since_event });
            count.since_event = 0;
            count.next_event_us = now_us + REJECT_EVENT_US;
        }
    }

    fn hear_version(&mut self, envelope: &Envelope, outputs: &mut Outputs) {
        let version = envelope.topology_version;
        outputs.view_changed |= self.known.heard_version(envelope.sender, version);
        if version > self.greatest_topology_version {
            self.greatest_topology_version = version;
            outputs.events.push(MembershipEvent::TopologyVersionSeen { member: envelope.sender, version });
        }
    }

    /// Takes a life later than the one that peers remember of this node, if they remember a later one: see
    /// [`LifeAddressed`]. At most once a second, so that two copies of a directory do not drive each other up fast.
    fn overtake(&mut self, now_us: u64, outputs: &mut Outputs) {
        let own = *self.foca.identity();
        let addressed_ms = self.addressed.start_ms();
        if addressed_ms <= own.life.start_ms || now_us < self.next_overtake_us {
            return;
        }
        let Some(start_ms) = addressed_ms.checked_add(1) else { return };
        self.next_overtake_us = now_us + 1_000_000;
        let life = Life { start_ms, renewals: 0 };
        let changed = self.foca.change_identity(MemberIdentity { life, ..own }, &mut self.runtime);
        log_failure("change of identity", changed);
        self.connected = false;
        self.next_announce_us = 0;
        outputs.view_changed = true;
        outputs.events.push(MembershipEvent::Rejoined(life));
        self.announce_around();
    }

    fn on_timers(&mut self, now_us: u64) {
        while let Some(timer) = self.timers.take_due(now_us) {
            let handled = self.foca.handle_timer(timer, &mut self.runtime);
            log_failure("timer", handled);
        }
        if now_us >= self.next_check_us {
            self.next_check_us = now_us + CHECK_US;
            self.check(now_us);
        }
    }

    /// What foca does not do: it sends nothing while it knows no live member, and never asks seeds again.
    fn check(&mut self, now_us: u64) {
        let alone = !self.connected || self.known.live().next().is_none();
        if alone && now_us >= self.next_announce_us {
            self.next_announce_us = now_us + ANNOUNCE_ALONE_US;
            self.announce_around();
        } else if !alone && now_us >= self.next_announce_us {
            self.next_announce_us = now_us + ANNOUNCE_ABSENT_US;
            self.announce_to_absent();
        }
        if !alone && self.catch_up > 0 {
            self.catch_up -= 1;
            let chosen = self.known.live().map(|member| member.identity).choose(&mut self.random);
            chosen.into_iter().for_each(|member| self.announce(member));
        }
        self.end_suspicions(now_us);
    }

    /// Only who has probed a member in vain measures how long it is suspected, and forgets to do so where it is believed to be
    /// down itself meanwhile; and a member that was cut off while it was told of has not heard that it is to object. So it is
    /// said to be down: if it is alive it hears that with its next message, and comes back.
    fn end_suspicions(&mut self, now_us: u64) {
        let limit = settings::config(self.configured_for).suspect_to_down_after * SUSPICIONS;
        let is_over = |member: &MemberView| {
            let lasts_us = now_us.saturating_sub(member.since_us);
            member.health == MemberHealth::Suspected && lasts_us >= limit.as_micros() as u64
        };
        let over = |member: &&Member<MemberIdentity>| {
            member.state() == State::Suspect && self.known.get(member.id().node).is_some_and(is_over)
        };
        let ended = self.foca.iter_membership_state().filter(over);
        let down: Vec<_> = ended.map(|member| Member::new(*member.id(), member.incarnation(), State::Down)).collect();
        let applied = self.foca.apply_many(down.into_iter(), true, &mut self.runtime);
        log_failure("the end of suspicions", applied);
    }

    fn on_learn(&mut self, members: &[MemberIdentity]) {
        let own = self.foca.identity().node;
        let others = members.iter().filter(|member| member.node != own && member.node != identity::WHOEVER);
        let updates: Vec<_> = others.map(|&member| Member::alive(member)).collect();
        let learned = self.foca.apply_many(updates.into_iter(), false, &mut self.runtime);
        log_failure("learning members", learned);
        // They do not know this node yet.
        self.announce_around();
    }

    fn forget(&mut self, node: NodeId, outputs: &mut Outputs) {
        let Some(member) = self.known.get(node).filter(|member| member.health == MemberHealth::Down) else { return };
        let identity = member.identity;
        let forgotten = self.foca.handle_timer(Timer::RemoveDown(identity), &mut self.runtime);
        log_failure("forgetting", forgotten);
        self.known.forget(node);
        outputs.view_changed = true;
        outputs.events.push(MembershipEvent::MemberForgotten(node));
    }

    fn leave(&mut self, mut outputs: Outputs) -> Outputs {
        let left = self.foca.leave_cluster(&mut self.runtime);
        log_failure("leaving", left);
        // Once more: nobody asks again for what got lost, and then they take seconds to find out.
        let again = self.foca.gossip(&mut self.runtime);
        log_failure("leaving", again);
        self.drain_datagrams(&mut outputs);
        self.left = true;
        self.connected = false;
        outputs.view_changed = true;
        outputs
    }

    fn add_seeds(&mut self, seeds: &[SocketAddr]) {
        let own = self.foca.identity().address;
        for seed in seeds {
            if self.seeds.len() < SEEDS_MAX && *seed != own && !self.seeds.contains(seed) {
                self.seeds.push(*seed);
            }
        }
    }

    /// Announces this node to some seeds and to some of all members ever known.
    fn announce_around(&mut self) {
        let mut targets: Vec<MemberIdentity> = Vec::new();
        let seeds = self.seeds.iter().copied().sample(&mut self.random, ANNOUNCE_TARGETS);
        targets.extend(seeds.into_iter().map(MemberIdentity::seed));
        let members = self.known.iter().map(|member| member.identity);
        targets.extend(members.sample(&mut self.random, ANNOUNCE_TARGETS));
        for target in targets {
            self.announce(target);
        }
    }

    /// Announces this node to whom it cannot hear, lest two parts of a cluster live on beside each other. foca could do
    /// so for members that are down; but it counts this node's own former identities among them.
    fn announce_to_absent(&mut self) {
        let absent = |seed: &SocketAddr| self.known.live().all(|member| member.identity.address != *seed);
        let seed = self.seeds.iter().copied().filter(absent).choose(&mut self.random);
        let down = self.known.iter().filter(|member| member.health == MemberHealth::Down);
        let mut targets = down.map(|member| member.identity).sample(&mut self.random, ANNOUNCE_DOWN_TARGETS);
        targets.extend(seed.map(MemberIdentity::seed));
        for target in targets {
            self.announce(target);
        }
    }

    fn announce(&mut self, target: MemberIdentity) {
        let announced = self.foca.announce(target, &mut self.runtime);
        log_failure("announce", announced);
    }

    /// After every input: takes from foca what it wants done, and says what changed.
    fn settle(&mut self, now_us: u64, outputs: &mut Outputs) {
        self.drain_notifications(outputs);
        self.drain_broadcasts(outputs);
        let own = self.foca.identity().node;
        let state = self.foca.iter_membership_state();
        outputs.view_changed |= self.known.refresh(own, state, now_us, &mut outputs.events);
        self.forget_old(now_us, outputs);
        self.drain_datagrams(outputs);
        while let Some((after, timer)) = self.runtime.to_schedule() {
            self.timers.arm(now_us.saturating_add(after.as_micros() as u64), timer);
        }
        let live = self.known.live().count() + 1;
        if live != self.configured_for {
            self.configured_for = live;
            let set = self.foca.set_config(settings::config(live));
            log_failure("settings", set);
        }
    }

    fn drain_notifications(&mut self, outputs: &mut Outputs) {
        let mut announce = false;
        while let Some(notification) = self.runtime.to_notify() {
            match notification {
                OwnedNotification::Active => {
                    self.connected = true;
                    self.catch_up = CATCH_UP_CHECKS;
                    outputs.events.push(MembershipEvent::Connected);
                }
                OwnedNotification::Idle => {
                    self.connected = false;
                    self.next_announce_us = 0;
                    outputs.events.push(MembershipEvent::Alone);
                }
                OwnedNotification::Rejoin(identity) => {
                    self.connected = false;
                    // Should what is sent now get lost, the next check repeats it.
                    self.next_announce_us = 0;
                    announce = true;
                    outputs.events.push(MembershipEvent::Rejoined(identity.life));
                }
                OwnedNotification::Defunct => {
                    self.connected = false;
                    outputs.events.push(MembershipEvent::Defunct);
                }
                // Members are compared as a whole afterwards: the events then always agree with the view.
                OwnedNotification::MemberUp(_) | OwnedNotification::MemberDown(_) | OwnedNotification::Rename(..) => {
                    continue;
                }
            }
            outputs.view_changed = true;
        }
        if announce {
            self.announce_around();
        }
    }

    /// Hands over broadcasts of others, and passes new ones on at once rather than with the next probe.
    fn drain_broadcasts(&mut self, outputs: &mut Outputs) {
        let heard: Vec<Broadcast> = self.broadcast_inbox.try_iter().collect();
        if !heard.is_empty() {
            let passed_on = self.foca.broadcast(&mut self.runtime);
            log_failure("broadcast", passed_on);
        }
        outputs.events.extend(heard.into_iter().map(MembershipEvent::BroadcastReceived));
    }

    fn forget_old(&mut self, now_us: u64, outputs: &mut Outputs) {
        let old = |member: &&MemberView| {
            member.health == MemberHealth::Down && now_us.saturating_sub(member.since_us) >= FORGET_DOWN_US
        };
        let forgotten: Vec<NodeId> = self.known.iter().filter(old).map(|member| member.identity.node).collect();
        forgotten.into_iter().for_each(|node| self.forget(node, outputs));
    }

    fn drain_datagrams(&mut self, outputs: &mut Outputs) {
        let own = *self.foca.identity();
        let envelope = Envelope {
            cluster: self.expected.cluster,
            generation: self.expected.generation,
            sender: own.node,
            sender_start_ms: own.life.start_ms,
            topology_version: self.own_topology_version,
        };
        while let Some((to, payload)) = self.runtime.to_send() {
            // foca keeps this node's former identities among the members.
            if to.node != own.node {
                let mut bytes = Vec::with_capacity(payload.len() + datagram::ENVELOPE_BYTES_MAX);
                datagram::seal(&envelope, &payload, self.expected.secret.as_ref(), &mut bytes);
                outputs.datagrams.push((to.address, bytes));
            }
        }
    }
}

/// Whether a payload may be broadcast, by its size.
fn check_broadcast(payload: &[u8]) -> Result<(), BroadcastError> {
    let fits = (1..=BROADCAST_BYTES_MAX).contains(&payload.len());
    if fits { Ok(()) } else { Err(BroadcastError::Size(payload.len())) }
}

/// foca's errors here mean a datagram not sent or a timer without effect; it goes on from either by itself.
fn log_failure<T>(what: &str, result: Result<T, foca::Error>) {
    if let Err(error) = result {
        tracing::debug!(what, %error, "gossip step failed");
    }
}
