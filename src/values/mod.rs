//! Pure data structures of the values: no keys, clock, slots or RESP.

pub mod element;
pub mod hashing;
pub mod limits;
pub mod list;
pub mod packed;
pub mod segments;
