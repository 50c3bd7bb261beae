//! The cluster: who is a member, who owns which slot, and how slots move.
//!
//! Everything here that decides is pure; thin shells feed it.

pub mod datagram;
pub mod draining;
pub mod duties;
pub mod election;
pub mod fencing;
pub mod figures;
pub mod forming;
pub mod hints;
pub mod identity_store;
pub mod lease;
pub mod membership;
pub mod planner;
mod quota;
pub mod registration;
pub mod ring;
pub mod routing;
mod runs;
pub mod support;
pub mod topology;
pub mod view;
pub mod watching;
