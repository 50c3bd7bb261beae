//! Changes of the topology: what the raft log holds.
//!
//! Each is typed, idempotent, and checked when it is applied: a change whose check fails is a no-op with a reason, the
//! same on every node. The order of variants is the encoding: new ones go to the end, and a change of their shape is a new
//! format of the raft log (`raft_storage`) and of the links.
//!
//! A change may be committed long after it was decided, whatever has happened meanwhile, so each names what it was decided
//! by, and is refused where that is over:
//!
//! - what concerns a life of a member (its support, its leaving, what it has of slots): the incarnation;
//! - what concerns a copy, or a hand-over: its number, so that a step does nothing to a later one of the same slots;
//! - what ends what somebody owns for good (`ForgetNode`, `GiveUpSlots`): the version of the topology, and the records of those slots must
//!   be the same since;
//! - what gives away what is nobody's (`Revive`): nothing. No keys are lost, and the next plan sets the shares right.

use super::state::Node;
use crate::base::identity::{ClusterId, Epoch, Incarnation, NodeId};
use crate::base::slot_ranges::SlotRanges;
use serde::{Deserialize, Serialize};

/// One entry of the raft log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TopologyChange {
    /// The cluster begins. `hash_key` is the key of the table hash: the same hash order on all nodes.
    InitCluster { cluster: ClusterId, hash_key: u128 },
    /// A node has started and joins, or joins again. A later start than the one known is given its own incarnation, and
    /// what it owned is revived empty, because its memory is gone; the same start said twice changes nothing. An arbiter that owns
    /// slots, or has copies, is refused.
    RegisterNode { node: Node },
    /// A member is gone: a majority of the lease voters of this list has withdrawn this support. Proposed only then, and
    /// refused where either is another by now. `at_ms`: when that was, by the raft leader's clock, ms since 1970; it decides
    /// nothing but whether the member is on probation.
    FenceNode { node: NodeId, incarnation: Incarnation, support: u64, config: u64, at_ms: u64 },
    /// The copy that these slots were handed over to has everything and is their primary, in a new epoch; the former primary
    /// is a copy.
    Handoff { slots: SlotRanges, to: NodeId, incarnation: Incarnation, begun: u64 },
    /// The hand-over is off: the primary serves again.
    AbortHandoff { slots: SlotRanges, to: NodeId, begun: u64 },
    /// The new primary's log has what was handed over, where it keeps one: no copy is needed for that any more. `from`: the
    /// former primary.
    Settled { slots: SlotRanges, from: NodeId, begun: u64 },
    /// Their primary is down: they are served by nobody. Only while it is down, so that what comes late does not take
    /// slots from a member that is back in the same life.
    MarkDead { slots: SlotRanges, node: NodeId, incarnation: Incarnation },
    /// They begin anew, empty, on this node. Only slots that are nobody's: what a member owns, dead or not, is its own
    /// until it is removed.
    Revive { slots: SlotRanges, to: NodeId },
    /// A setting for all nodes; an empty value takes it back.
    SetConfig { name: String, value: String },
    /// A member that wanted to leave is gone for good. It must own nothing, dead or not, and nothing may be on its way to
    /// it: proposed by the member itself, this may be committed long after it looked.
    RemoveNode { node: NodeId, incarnation: Incarnation },
    /// A member gives its slots away from now on, and wants to leave. Stands for the rest of this life.
    Leaving { node: NodeId, incarnation: Incarnation },
    /// A person gives up a member that is down, and the keys of its slots with it. Only while its slots are as they were in
    /// the version that it was decided by: one that was back meanwhile has keys that nobody has given up.
    ForgetNode { node: NodeId, incarnation: Incarnation, decided_by: u64 },
    /// As [`TopologyChange::RegisterNode`], but what the node owned is its own as it was: it has come back with what its disk
    /// has kept. Owners and epochs have not changed since it was there, so nobody else has served these slots.
    /// `kept`: slots of which its log has everything up to some position: where it had a copy it may be elected.
    ReturnNode { node: Node, kept: SlotRanges },
    /// A member whose support was withdrawn is there all the same, in the same life: it asks for the number after this one.
    /// Where it was fenced it has what it owned.
    RaiseSupport { node: NodeId, incarnation: Incarnation, support: u64 },
    /// Others support leases from now on, one vote more or less than in the list of this number; sorted.
    SetLeaseVoters { config: u64, votes: Vec<NodeId> },
    /// A member begins to copy these slots besides their primaries; the index of this change is the number of the copy. Of
    /// this and what follows slots are left out that it does not fit any more.
    CopyJoin { slots: SlotRanges, node: NodeId, incarnation: Incarnation },
    /// That copy has everything, and follows.
    CopyInSync { slots: SlotRanges, node: NodeId, incarnation: Incarnation, number: u64 },
    /// It is a copy no more.
    CopyLeave { slots: SlotRanges, node: NodeId, number: u64 },
    /// The primary of these slots is fenced: one of their copies is to be the next, in a new epoch.
    BeginElection { slots: SlotRanges, node: NodeId, incarnation: Incarnation },
    /// This copy is, for it knew the most of those that could be asked.
    Promote { slots: SlotRanges, epoch: Epoch, node: NodeId, incarnation: Incarnation },
    /// Copies that are ready take over from the primaries of these slots: nobody serves them until that is committed or off.
    /// The index of this change is the number of the hand-over: its later steps name it.
    HandOver { slots: SlotRanges, node: NodeId, incarnation: Incarnation },
    /// With acknowledgement by quorum: this copy is to go. Its primary removes it when it is needed no more.
    CopyRetire { slots: SlotRanges, node: NodeId, number: u64 },
    /// It stays after all.
    CopyKeep { slots: SlotRanges, node: NodeId, number: u64 },
    /// A person gives up what members that are down have of slots that nobody else can serve: they are nobody's, and begin
    /// anew. Members that come back have no part in them. Only while they are as they were in the version that it was decided
    /// by, and still nobody can be elected for any of them.
    GiveUpSlots { slots: SlotRanges, decided_by: u64 },
    /// A member has not been fenced for long: it may be the primary of slots again. Only while its latest fence was then.
    EndProbation { node: NodeId, fenced_ms: u64 },
}

/// Why a change was not made. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refused {
    /// There is no cluster yet.
    NoCluster,
    /// There is a cluster already, and it is another one.
    OtherCluster,
    UnknownNode,
    /// The node has started again since.
    StaleIncarnation,
    /// Another member has this address.
    AddressTaken,
    /// A slot of it belongs to somebody else.
    NotThePrimary,
    /// A slot of it is changing hands already, or not at this step of that.
    WrongPhase,
    /// The node owns slots, or has copies of some.
    OwnsSlots,
    /// The node is not in a state in which it may own slots.
    NotActive,
    /// Nothing would change.
    NoChange,
    /// The node is not down.
    NotDown,
    /// The node has not said that it leaves.
    NotLeaving,
    /// A slot of it has changed since this was decided.
    DecidedBefore,
    /// It names another support, or another list of lease voters, than there is now.
    OtherNumber,
    /// The member still supports leases.
    SupportsLeases,
}

/// What applying a change came to: the same on every node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Applied {
    Done,
    /// The node's incarnation from now on.
    Registered(Incarnation),
    Refused(Refused),
}
