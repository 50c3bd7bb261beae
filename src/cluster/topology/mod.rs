//! The topology: what the cluster has agreed on. Who is a member, who owns which slot, what moves where.
//!
//! `state` is a deterministic state machine: the same changes in the same order give the same topology everywhere.

pub mod change;
mod consensus;
pub mod control_thread;
pub mod copies;
mod following;
mod generations;
mod given_up;
mod heard;
pub mod leases;
mod places;
pub mod probation;
pub mod published;
pub mod raft;
mod raft_disk;
mod raft_network;
mod raft_storage;
pub mod recovery;
#[cfg(test)]
pub(crate) mod sample;
pub mod slot_records;
pub mod state;
pub mod voters;

pub use change::{Applied, Refused, TopologyChange};
pub use copies::{COPIES_MAX, Copies, SlotCopy};
pub use leases::LeaseVoters;
pub use probation::{PROBATION, Probation};
pub use state::{Node, NodeState, Phase, SlotRecord, Topology};
