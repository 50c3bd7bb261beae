//! The topology as a state machine: pure, no clock, no randomness, no I/O.
//!
//! ```text
//!          HandOver                 Handoff               Settled
//!  Normal -----------> HandingOff -----------> Settling -----------> Normal
//!     ^                    |          (new primary, new epoch,
//!     +----AbortHandoff----+           the former one is a copy)
//!
//!  any of these --MarkDead--> Dead --its primary registers again (new epoch, empty)--> Normal
//!                             Dead --its primary was alive all the time, RaiseSupport (same epoch, with its keys)--> Normal
//!                             Dead --ForgetNode, GiveUpSlots: nobody's --Revive (new epoch, empty)--> Normal
//!  what has copies (`copies`): --BeginElection--> Electing --Promote (new epoch, a copy is the primary)--> Normal
//! ```
//!
//! A slot moves to a node by becoming a copy there (`copies`) that is handed the primary's role; the former primary's copy
//! leaves afterwards, where no plan wants it. A hand-over has a number, the index of its `HandOver`, and every step of it must
//! name that number: steps of an earlier one of the same slots, repeated or late, are refused. Hand-overs end where their
//! target registers again, leaves, or goes down (`AbortHandoff`, by the raft leader); a primary that is down or registers
//! again ends them too.

use super::change::{Applied, Refused, TopologyChange};
use super::copies::Copies;
use super::leases::LeaseVoters;
use super::probation::Probation;
use super::slot_records::SlotRecords;
use crate::base::identity::{ClusterId, Epoch, Incarnation, NodeId};
use crate::base::slot::Slot;
use crate::base::slot_ranges::SlotRanges;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

/// Events that are remembered; older ones are forgotten.
const EVENTS_MAX: usize = 1024;

/// What the cluster expects of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeState {
    /// It takes part.
    Active,
    /// It is fenced: a majority of the lease voters has withdrawn its support, so it has no lease. What it owned is dead until
    /// it is back or forgotten.
    Down,
}

/// A member, as it described itself when it registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub id: NodeId,
    /// Given by the topology; what a registration says here is ignored.
    pub incarnation: Incarnation,
    pub ip: IpAddr,
    /// Where clients connect.
    pub port: u16,
    /// Where nodes connect.
    pub cluster_port: u16,
    /// Empty: it announces none.
    pub hostname: String,
    pub weight: u32,
    pub zone: String,
    /// It votes, and has no slots and no copies, ever.
    pub arbiter: bool,
    /// Where clients connect whose requests shall be forwarded; 0: nowhere.
    pub proxy_port: u16,
    /// When its process started, ms since 1970: greater than in any life before.
    pub start_ms: u64,
    /// Given by the topology, like the incarnation. The number of the support that lease voters may give it, the index of the
    /// change that gave it: greater than any number before.
    pub support: u64,
    /// Given by the topology too.
    pub state: NodeState,
    /// It gives its slots away and will leave. Apart from the state, because a member that is believed to be down and comes
    /// back still wants to go. Its next life does not: that registers without it.
    pub leaving: bool,
    /// Given by the topology, and kept over its lives: whether it may lead slots.
    pub probation: Probation,
}

impl Node {
    /// Whether slots may be given to it.
    pub fn takes_slots(&self) -> bool {
        self.state == NodeState::Active && !self.leaving && !self.arbiter
    }

    /// Whether it may be made the primary of slots by the plan.
    pub fn leads_slots(&self) -> bool {
        self.takes_slots() && !self.probation.is_on
    }
}

/// Where a slot stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    Normal,
    /// Nobody serves it until the hand-off to a copy is committed or off.
    HandingOff {
        to: NodeId,
        /// The number of the hand-over.
        begun: u64,
    },
    /// The copy is the primary, and has not said yet that its log has everything: whoever has it has to keep it.
    Settling {
        from: NodeId,
        begun: u64,
    },
    /// Its primary is gone, with its keys.
    Dead,
    /// Its primary is gone; one of its copies is to be the next.
    Electing,
}

impl Phase {
    /// Whom the slot is being handed over to.
    pub fn target(self) -> Option<NodeId> {
        match self {
            Phase::HandingOff { to, .. } => Some(to),
            Phase::Normal | Phase::Settling { .. } | Phase::Dead | Phase::Electing => None,
        }
    }

    /// Who was the primary before, as long as that one's keys may be needed.
    pub fn settling_from(self) -> Option<NodeId> {
        if let Phase::Settling { from, .. } = self { Some(from) } else { None }
    }

    /// The number of the hand-over that is under way.
    pub fn begun(self) -> Option<u64> {
        match self {
            Phase::HandingOff { begun, .. } | Phase::Settling { begun, .. } => Some(begun),
            Phase::Normal | Phase::Dead | Phase::Electing => None,
        }
    }
}

/// What is agreed about one slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotRecord {
    pub primary: Option<NodeId>,
    /// Raised by every change of the primary.
    pub epoch: Epoch,
    pub phase: Phase,
    /// The number of the copy that has become its primary in this epoch; `None`: it began anew there.
    pub moved: Option<u64>,
    /// The index of the latest change of this record, or of a return of its primary: what was decided before is over.
    /// That it was marked dead is no change in this sense: whoever saw its primary down had decided the same.
    pub changed: u64,
    /// Who has it besides its primary, or is to have it.
    pub copies: Copies,
}

impl SlotRecord {
    /// Whether a node is or was to be one of those who have the slot, in whichever life.
    fn refers_to(&self, node: NodeId) -> bool {
        let ends = [self.primary, self.phase.target(), self.phase.settling_from()];
        ends.contains(&Some(node)) || self.copies.on(node).is_some()
    }
}

/// Something that happened, in the same order everywhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The index of its change in the raft log.
    pub id: u64,
    pub kind: EventKind,
    pub node: Option<NodeId>,
    pub slots: SlotRanges,
}

/// What kinds of events there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventKind {
    ClusterCreated,
    NodeJoined,
    NodeRestarted,
    NodeDraining,
    NodeDown,
    NodeRemoved,
    MoveBegun,
    MoveDone,
    MoveAborted,
    SlotsDead,
    SlotsRevived,
    ConfigChanged,
    /// A copy is to take the primary's place.
    ElectionBegun,
    /// It has.
    Promoted,
    /// A person waits no more for members that are down: these slots are nobody's.
    SlotsGivenUp,
    /// A member was fenced too often: it has copies only from now on.
    ProbationBegun,
    ProbationOver,
    /// A majority of the voters is lost for good, and this member has begun another generation with those that are left.
    GenerationBegun,
}

/// Everything the cluster has agreed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    pub cluster: Option<ClusterId>,
    /// Counts forced recoveries.
    pub generation: u32,
    /// The key of the table hash.
    pub hash_key: u128,
    /// Index of the last change that was applied, refused ones among them.
    pub version: u64,
    last_incarnation: u64,
    pub nodes: BTreeMap<NodeId, Node>,
    /// Who supports leases.
    pub lease_voters: LeaseVoters,
    slots: SlotRecords,
    pub config: BTreeMap<String, String>,
    /// The latest events, ascending; shared by the versions that have them.
    #[serde(with = "shared_events")]
    pub events: VecDeque<Arc<Event>>,
}

impl Default for Topology {
    /// No cluster: nothing is owned.
    fn default() -> Topology {
        Topology {
            cluster: None,
            generation: 0,
            hash_key: 0,
            version: 0,
            last_incarnation: 0,
            nodes: BTreeMap::new(),
            lease_voters: LeaseVoters::default(),
            slots: SlotRecords::default(),
            config: BTreeMap::new(),
            events: VecDeque::new(),
        }
    }
}

impl Topology {
    /// What is agreed about a slot.
    pub fn slot(&self, slot: Slot) -> &SlotRecord {
        self.slots.get(slot)
    }

    /// All slots, by number.
    pub fn slots(&self) -> &SlotRecords {
        &self.slots
    }

    /// The slots of which a node is the primary.
    pub fn owned_by(&self, node: NodeId) -> SlotRanges {
        Slot::all().filter(|slot| self.slot(*slot).primary == Some(node)).collect()
    }

    /// The slots that a node serves or has a copy of, and those of which its keys may be needed though they have moved.
    pub fn held_by(&self, node: NodeId) -> SlotRanges {
        let may_have = |record: &SlotRecord| {
            let SlotRecord { primary, phase, copies, .. } = record;
            let is_copy = copies.on(node).is_some_and(|copy| !self.is_lost(copy));
            is_copy || [*primary, phase.settling_from()].contains(&Some(node))
        };
        let held = Slot::all().zip(self.slots().iter()).filter(|(_, record)| may_have(record));
        held.map(|(slot, _)| slot).collect()
    }

    /// Applies the change at `index` of the raft log. Changes at or below the version were applied before, and do
    /// nothing.
    pub fn apply(&mut self, index: u64, change: &TopologyChange) -> Applied {
        if index <= self.version {
            return Applied::Refused(Refused::NoChange);
        }
        self.version = index;
        if self.cluster.is_none() && !matches!(change, TopologyChange::InitCluster { .. }) {
            return Applied::Refused(Refused::NoCluster);
        }
        self.change(change).unwrap_or_else(Applied::Refused)
    }

    fn change(&mut self, change: &TopologyChange) -> Result<Applied, Refused> {
        match change {
            TopologyChange::InitCluster { cluster, hash_key } => self.init(*cluster, *hash_key)?,
            TopologyChange::RegisterNode { node } => return self.register(node, None),
            TopologyChange::ReturnNode { node, kept } => return self.register(node, Some(kept)),
            TopologyChange::FenceNode { node, incarnation, support, config, at_ms } => {
                self.fence(*node, *incarnation, (*support, *config), *at_ms)?;
            }
            TopologyChange::RaiseSupport { node, incarnation, support } => {
                self.raise_support(*node, *incarnation, *support)?;
            }
            TopologyChange::SetLeaseVoters { config, votes } => self.set_lease_voters(*config, votes)?,
            TopologyChange::Handoff { slots, to, incarnation, begun } => {
                self.hand_off(slots, *to, *incarnation, *begun)?;
            }
            TopologyChange::AbortHandoff { slots, to, begun } => {
                self.end_phase(slots, Phase::HandingOff { to: *to, begun: *begun })?;
                self.record(EventKind::MoveAborted, Some(*to), slots.clone());
            }
            TopologyChange::Settled { slots, from, begun } => {
                self.end_phase(slots, Phase::Settling { from: *from, begun: *begun })?;
            }
            TopologyChange::MarkDead { slots, node, incarnation } => self.mark_dead(slots, *node, *incarnation)?,
            TopologyChange::Revive { slots, to } => self.revive(slots, *to)?,
            TopologyChange::SetConfig { name, value } => self.set_config(name, value)?,
            TopologyChange::RemoveNode { node, incarnation } => self.remove(*node, *incarnation)?,
            TopologyChange::Leaving { node, incarnation } => self.leave(*node, *incarnation)?,
            TopologyChange::ForgetNode { node, incarnation, decided_by } => {
                self.forget(*node, *incarnation, *decided_by)?;
            }
            TopologyChange::CopyJoin { slots, node, incarnation } => self.copy_join(slots, *node, *incarnation)?,
            TopologyChange::CopyInSync { slots, node, incarnation, number } => {
                self.copy_in_sync(slots, *node, *incarnation, *number)?;
            }
            TopologyChange::CopyLeave { slots, node, number } => self.copy_leave(slots, *node, *number)?,
            TopologyChange::BeginElection { slots, node, incarnation } => {
                self.begin_election(slots, *node, *incarnation)?;
            }
            TopologyChange::Promote { slots, epoch, node, incarnation } => {
                self.promote(slots, *epoch, *node, *incarnation)?;
            }
            TopologyChange::CopyRetire { slots, node, number } => self.copy_retire(slots, *node, *number)?,
            TopologyChange::CopyKeep { slots, node, number } => self.copy_keep(slots, *node, *number)?,
            TopologyChange::HandOver { slots, node, incarnation } => self.hand_over(slots, *node, *incarnation)?,
            TopologyChange::GiveUpSlots { slots, decided_by } => self.give_up_slots(slots, *decided_by)?,
            TopologyChange::EndProbation { node, fenced_ms } => self.end_probation(*node, *fenced_ms)?,
        }
        Ok(Applied::Done)
    }

    fn init(&mut self, cluster: ClusterId, hash_key: u128) -> Result<(), Refused> {
        match self.cluster {
            Some(known) if known == cluster => Err(Refused::NoChange),
            Some(_) => Err(Refused::OtherCluster),
            None => {
                self.cluster = Some(cluster);
                self.hash_key = hash_key;
                self.record(EventKind::ClusterCreated, None, SlotRanges::default());
                Ok(())
            }
        }
    }

    /// `kept`: it returns with what it owned, and its log has everything of these slots.
    fn register(&mut self, node: &Node, kept: Option<&SlotRanges>) -> Result<Applied, Refused> {
        let same_place = |other: &Node| (other.ip, other.cluster_port) == (node.ip, node.cluster_port);
        if self.nodes.values().any(|other| other.id != node.id && other.state != NodeState::Down && same_place(other)) {
            return Err(Refused::AddressTaken);
        }
        if let Some(known) = self.nodes.get(&node.id) {
            match node.start_ms.cmp(&known.start_ms) {
                Ordering::Less => return Err(Refused::StaleIncarnation),
                Ordering::Equal => return Ok(Applied::Registered(known.incarnation)),
                Ordering::Greater => {}
            }
        }
        // Before anything changes: it would keep what it has from those who could serve it.
        if node.arbiter && self.slots.iter().any(|record| record.refers_to(node.id)) {
            return Err(Refused::OwnsSlots);
        }
        self.last_incarnation += 1;
        let incarnation = Incarnation(self.last_incarnation);
        let probation = self.nodes.get(&node.id).map(|known| known.probation.clone()).unwrap_or_default();
        let (support, state, leaving) = (self.version, NodeState::Active, false);
        let given = Node { incarnation, support, state, leaving, probation, ..node.clone() };
        let known = self.nodes.insert(node.id, given);
        self.lease_voters.begin(node.id, self.version);
        // Hand-overs to it are off: what it had is gone.
        let moving: SlotRanges = Slot::all().filter(|slot| self.target(*slot) == Some(node.id)).collect();
        for slot in moving.slots() {
            self.set_phase(slot, Phase::Normal);
        }
        // What others have of its slots counts, not what is here.
        self.elect_for_restarted(node.id, kept);
        let owned = self.owned_by(node.id);
        let returns = kept.is_some();
        if let Some(kept) = kept {
            self.come_back(node.id, kept);
            // Hand-overs from it are off: what it had to send is not known any more.
            for slot in owned.slots() {
                self.set_phase(slot, Phase::Normal);
            }
        } else {
            self.begin_anew(&owned, node.id);
        }
        if known.is_some() {
            self.record(EventKind::NodeRestarted, Some(node.id), SlotRanges::default());
        } else {
            self.record(EventKind::NodeJoined, Some(node.id), SlotRanges::default());
        }
        if !owned.is_empty() && !returns {
            self.record(EventKind::SlotsRevived, Some(node.id), owned);
        }
        Ok(Applied::Registered(incarnation))
    }

    /// The slots are this node's, empty, in a new epoch.
    fn begin_anew(&mut self, slots: &SlotRanges, node: NodeId) {
        for slot in slots.slots() {
            let epoch = Epoch(self.slot(slot).epoch.0.saturating_add(1));
            let copies = self.slot(slot).copies.without(node);
            let record =
                SlotRecord { primary: Some(node), epoch, phase: Phase::Normal, moved: None, changed: 0, copies };
            self.set_record(slot, record);
        }
    }

    fn leave(&mut self, id: NodeId, incarnation: Incarnation) -> Result<(), Refused> {
        self.current(id, incarnation)?;
        let node = self.nodes.get_mut(&id).ok_or(Refused::UnknownNode)?;
        if std::mem::replace(&mut node.leaving, true) {
            return Err(Refused::NoChange);
        }
        self.record(EventKind::NodeDraining, Some(id), SlotRanges::default());
        Ok(())
    }

    fn mark_dead(&mut self, slots: &SlotRanges, node: NodeId, incarnation: Incarnation) -> Result<(), Refused> {
        self.current(node, incarnation)?;
        if self.nodes.get(&node).is_none_or(|node| node.state != NodeState::Down) {
            return Err(Refused::NotDown);
        }
        if slots.slots().any(|slot| self.slot(slot).primary != Some(node)) {
            return Err(Refused::NotThePrimary);
        }
        if slots.slots().all(|slot| self.slot(slot).phase == Phase::Dead) {
            return Err(Refused::NoChange);
        }
        for slot in slots.slots() {
            self.slots.set(slot, SlotRecord { phase: Phase::Dead, ..self.slot(slot).clone() });
        }
        self.record(EventKind::SlotsDead, Some(node), slots.clone());
        Ok(())
    }

    fn revive(&mut self, slots: &SlotRanges, to: NodeId) -> Result<(), Refused> {
        let target = self.nodes.get(&to).ok_or(Refused::UnknownNode)?;
        if !target.takes_slots() {
            return Err(Refused::NotActive);
        }
        if slots.slots().any(|slot| self.slot(slot).primary.is_some()) {
            return Err(Refused::NotThePrimary);
        }
        let is_lost = |record: &SlotRecord| match record.phase {
            Phase::Dead => true,
            Phase::Electing => self.candidates(record).next().is_none(),
            _ => false,
        };
        if slots.is_empty() || slots.slots().any(|slot| !is_lost(self.slot(slot))) {
            return Err(Refused::WrongPhase);
        }
        self.begin_anew(slots, to);
        self.record(EventKind::SlotsRevived, Some(to), slots.clone());
        Ok(())
    }

    fn set_config(&mut self, name: &str, value: &str) -> Result<(), Refused> {
        let changed = if value.is_empty() {
            self.config.remove(name).is_some()
        } else {
            self.config.insert(name.to_owned(), value.to_owned()).as_deref() != Some(value)
        };
        if !changed {
            return Err(Refused::NoChange);
        }
        self.record(EventKind::ConfigChanged, None, SlotRanges::default());
        Ok(())
    }

    fn remove(&mut self, id: NodeId, incarnation: Incarnation) -> Result<(), Refused> {
        self.current(id, incarnation)?;
        if !self.nodes.get(&id).ok_or(Refused::UnknownNode)?.leaving {
            return Err(Refused::NotLeaving);
        }
        let refers = |record: &SlotRecord| {
            let is_copy = record.copies.on(id).is_some_and(|copy| !self.is_lost(copy));
            is_copy || record.primary == Some(id)
        };
        if self.slots.iter().any(refers) {
            return Err(Refused::OwnsSlots);
        }
        if self.lease_voters.votes.contains(&id) && self.nodes.len() > 1 {
            return Err(Refused::SupportsLeases);
        }
        self.take_out(id);
        Ok(())
    }

    fn forget(&mut self, id: NodeId, incarnation: Incarnation, decided_by: u64) -> Result<(), Refused> {
        self.current(id, incarnation)?;
        if self.nodes.get(&id).ok_or(Refused::UnknownNode)?.state != NodeState::Down {
            return Err(Refused::NotDown);
        }
        if Slot::all().any(|slot| self.slot(slot).primary == Some(id) && !self.is_unchanged(slot, decided_by)) {
            return Err(Refused::DecidedBefore);
        }
        self.take_out(id);
        Ok(())
    }

    /// It is no member any more; what it owned is nobody's.
    fn take_out(&mut self, id: NodeId) {
        self.nodes.remove(&id);
        let elected = self.take_out_copies(id);
        for slot in Slot::all() {
            let SlotRecord { primary, epoch, phase, ref copies, .. } = *self.slot(slot);
            if primary == Some(id) {
                let (phase, copies) = (Phase::Dead, copies.clone());
                self.set_record(slot, SlotRecord { primary: None, epoch, phase, moved: None, changed: 0, copies });
            } else if phase.target() == Some(id) || phase.settling_from() == Some(id) {
                self.set_phase(slot, Phase::Normal);
            }
        }
        self.record(EventKind::NodeRemoved, Some(id), SlotRanges::default());
        if !elected.is_empty() {
            self.record(EventKind::ElectionBegun, Some(id), elected);
        }
    }

    /// All of these slots are in that phase, and are so no more; or nothing changes.
    fn end_phase(&mut self, slots: &SlotRanges, phase: Phase) -> Result<(), Refused> {
        if slots.is_empty() || slots.slots().any(|slot| self.slot(slot).phase != phase) {
            return Err(Refused::WrongPhase);
        }
        slots.slots().for_each(|slot| self.set_phase(slot, Phase::Normal));
        Ok(())
    }

    /// Whether this is still the life of the node that somebody has seen.
    pub(super) fn current(&self, node: NodeId, incarnation: Incarnation) -> Result<(), Refused> {
        let node = self.nodes.get(&node).ok_or(Refused::UnknownNode)?;
        if node.incarnation == incarnation { Ok(()) } else { Err(Refused::StaleIncarnation) }
    }

    pub(super) fn set_phase(&mut self, slot: Slot, phase: Phase) {
        self.set_record(slot, SlotRecord { phase, ..self.slot(slot).clone() });
    }

    /// Changes a record, which says since when it is so.
    pub(super) fn set_record(&mut self, slot: Slot, record: SlotRecord) {
        self.slots.set(slot, SlotRecord { changed: self.version, ..record });
    }

    /// Whether a slot is still what somebody saw in that version.
    pub(super) fn is_unchanged(&self, slot: Slot, decided_by: u64) -> bool {
        self.slot(slot).changed <= decided_by
    }

    /// Incarnations that are given from now on are greater by this much: others may have been given unheard.
    pub(super) fn skip_incarnations(&mut self, count: u64) {
        self.last_incarnation = self.last_incarnation.saturating_add(count);
    }

    /// Whom a slot is being handed over to.
    fn target(&self, slot: Slot) -> Option<NodeId> {
        self.slot(slot).phase.target()
    }

    pub(super) fn record(&mut self, kind: EventKind, node: Option<NodeId>, slots: SlotRanges) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(Arc::new(Event { id: self.version, kind, node, slots }));
    }
}

/// Events are written as what they are; that versions share them means nothing to a reader.
mod shared_events {
    use super::Event;
    use serde::{Deserialize, Deserializer, Serializer};
    use std::collections::VecDeque;
    use std::sync::Arc;

    pub(super) fn serialize<S: Serializer>(events: &VecDeque<Arc<Event>>, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(events.iter().map(Arc::as_ref))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<VecDeque<Arc<Event>>, D::Error> {
        Ok(Vec::<Event>::deserialize(from)?.into_iter().map(Arc::new).collect())
    }
}

#[cfg(test)]
mod tests;
