//! Small vocabulary shared by every layer: no I/O, no state.

pub mod acknowledge;
pub mod clock;
pub mod glob;
pub mod hlc;
pub mod identity;
pub mod number;
pub mod slot;
pub mod slot_ranges;
