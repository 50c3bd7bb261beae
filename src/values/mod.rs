//! Pure data structures of the values: no keys, clock, slots or RESP.

pub mod hashing;
pub mod segments;
