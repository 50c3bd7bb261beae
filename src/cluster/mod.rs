//! The cluster: which node owns which slot, and how that changes.
//!
//! The parts here are pure functions of their input. They read no clock and do no I/O, so that every node computes the
//! same answer, and a simulation can hold them to their invariants.

pub mod figures;
pub mod planner;
mod quota;
pub mod ring;
mod runs;
