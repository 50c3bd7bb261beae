//! The cluster: who is a member, who owns which slot, and how slots move.
//!
//! Everything here that decides is pure; thin shells feed it.

pub mod datagram;
pub mod membership;
pub mod planner;
pub mod ring;
pub mod topology;
