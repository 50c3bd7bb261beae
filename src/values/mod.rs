//! Pure data structures of the values: no keys, clock, slots or RESP.
//!
//! Every collection is packed into one allocation while small (`packed`, `intset`) and changes for good into
//! its large form when it passes a threshold (`limits`); only a list packs again. Encodings have Redis's names.
//!
//! ```text
//!   List       packed -> deque of packed chunks
//!   Hash       packed -> Segments of pairs; either with deadlines of fields, while there are some
//!   Set        intset -> packed -> Segments of members
//!   SortedSet  packed -> Segments of handles + slots + rank tree
//!   Stream     a tree of packed nodes; groups
//! ```
//! Memory is counted, never walked. Random numbers are arguments. `Segments` is also the table of the keyspace.

pub mod bits;
pub mod element;
pub mod geo;
pub mod hash;
pub mod hashing;
pub mod hyperloglog;
mod image;
mod intset;
pub mod limits;
pub mod list;
pub mod packed;
mod rank_tree;
mod sampling;
pub mod segments;
pub mod set;
pub mod sorted_set;
pub mod stream;

pub use element::{Digits, Element};
pub use hash::Hash;
pub use limits::Limits;
pub use list::List;
pub use segments::Segments;
pub use set::Set;
pub use sorted_set::SortedSet;
pub use stream::Stream;

/// A value that is a collection.
#[derive(Debug, Clone)]
pub enum Value {
    /// LPUSH and its kin.
    List(List),
    /// HSET and its kin.
    Hash(Hash),
    /// SADD and its kin.
    Set(Set),
    /// ZADD and its kin.
    SortedSet(SortedSet),
    /// XADD and its kin.
    Stream(Box<Stream>),
}

// What an entry of the keyspace pays for any collection in place.
const _: () = assert!(size_of::<Value>() == 32);

impl Value {
    /// The name of the type as TYPE and the TYPE option of SCAN have it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::List(_) => "list",
            Self::Hash(_) => "hash",
            Self::Set(_) => "set",
            Self::SortedSet(_) => "zset",
            Self::Stream(_) => "stream",
        }
    }

    /// The name of the encoding as OBJECT ENCODING of Redis 7.2 has it.
    pub fn encoding(&self) -> &'static str {
        match self {
            Self::List(list) => list.encoding(),
            Self::Hash(hash) => hash.encoding(),
            Self::Set(set) => set.encoding(),
            Self::SortedSet(sorted_set) => sorted_set.encoding(),
            Self::Stream(stream) => stream.encoding(),
        }
    }

    /// Number of elements, fields or members; of a stream, entries and what its groups hold. A collection without any does
    /// not stay in a keyspace, but for a stream.
    pub fn len(&self) -> usize {
        match self {
            Self::List(list) => list.len(),
            Self::Hash(hash) => hash.len(),
            Self::Set(set) => set.len(),
            Self::SortedSet(sorted_set) => sorted_set.len(),
            Self::Stream(stream) => stream.element_count(),
        }
    }

    /// Whether there is nothing in the collection. A stream always has something: its last id.
    pub fn is_empty(&self) -> bool {
        !matches!(self, Self::Stream(_)) && self.len() == 0
    }

    /// Bytes allocated by the value, beside the value itself. From counters: costs nothing.
    pub fn memory_bytes(&self) -> usize {
        match self {
            Self::List(list) => list.memory_bytes(),
            Self::Hash(hash) => hash.memory_bytes(),
            Self::Set(set) => set.memory_bytes(),
            Self::SortedSet(sorted_set) => sorted_set.memory_bytes(),
            Self::Stream(stream) => stream.memory_bytes(),
        }
    }

    /// Allocations to free when the value goes, about: what is better dropped on another thread has many.
    pub fn allocation_count(&self) -> usize {
        match self {
            Self::List(list) => list.allocation_count(),
            Self::Hash(hash) => hash.allocation_count(),
            Self::Set(set) => set.allocation_count(),
            Self::SortedSet(sorted_set) => sorted_set.allocation_count(),
            Self::Stream(stream) => stream.allocation_count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_encodings_have_the_names_of_redis() {
        let cases = [
            (Value::List(List::new()), "list", "listpack"),
            (Value::Hash(Hash::new()), "hash", "listpack"),
            (Value::Set(Set::new()), "set", "intset"),
            (Value::SortedSet(SortedSet::new()), "zset", "listpack"),
        ];
        for (value, type_name, encoding) in cases {
            assert_eq!((value.type_name(), value.encoding()), (type_name, encoding));
            assert!(value.is_empty());
            assert_eq!(value.memory_bytes(), 0);
        }
    }
}
