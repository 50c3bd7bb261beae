//! Pure data structures: what keys hold. They know no keys, no time, no slots, no RESP.

pub mod hashing;
pub mod segments;

#[derive(Debug, Clone)]
pub struct List(std::convert::Infallible);
#[derive(Debug, Clone, Default)]
pub struct Limits {}
#[derive(Debug, Clone)]
pub enum Value { List(List), Set(List), SortedSet(List), Hash(List) }
impl Value { pub fn memory_bytes(&self) -> usize { 0 } pub fn encoding(&self) -> &'static str { "" } }
