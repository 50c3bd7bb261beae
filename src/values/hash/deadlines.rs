//! Deadlines of fields: by field, and in the order in which they pass.
//!
//! A hash of which no field has one has none of this. A field that has one is named here a second time; both orders share
//! that name.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::values::hashing::table_hash;
use crate::values::packed::size_class;
use crate::values::segments::Segments;

/// What a place among the deadlines in order takes, about: nodes of that tree are three quarters full.
const ORDERED_BYTES: usize = size_of::<Stamp>() * 4 / 3;
/// The counts in front of a shared name.
const SHARED_BYTES: usize = 16;

/// See the module.
#[derive(Debug, Default, Clone)]
pub(super) struct Deadlines {
    by_field: Segments<Stamp>,
    in_order: BTreeSet<Stamp>,
    /// Allocations of all names.
    name_bytes: usize,
}

/// When a field expires; ordered by that.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Stamp {
    deadline: u64,
    field: Arc<[u8]>,
}

impl Stamp {
    fn hash(&self) -> u64 {
        table_hash(&self.field)
    }

    fn name_bytes(&self) -> usize {
        size_class(SHARED_BYTES + self.field.len())
    }
}

impl Deadlines {
    pub(super) fn is_empty(&self) -> bool {
        self.in_order.is_empty()
    }

    /// The deadline of a field, if it has one.
    pub(super) fn get(&self, field: &[u8]) -> Option<u64> {
        self.by_field.find(table_hash(field), |stamp| *stamp.field == *field).map(|stamp| stamp.deadline)
    }

    /// Gives a field a deadline, in place of the one it has.
    pub(super) fn set(&mut self, field: &[u8], deadline: u64) {
        match self.by_field.find_mut(table_hash(field), |stamp| *stamp.field == *field) {
            Some(stamp) if stamp.deadline == deadline => {}
            Some(stamp) => {
                self.in_order.remove(stamp);
                stamp.deadline = deadline;
                self.in_order.insert(stamp.clone());
            }
            None => {
                let stamp = Stamp { deadline, field: field.into() };
                self.name_bytes += stamp.name_bytes();
                self.in_order.insert(stamp.clone());
                self.by_field.insert_unique(stamp.hash(), stamp, Stamp::hash);
            }
        }
    }

    /// Takes the deadline of a field away; whether it had one.
    pub(super) fn remove(&mut self, field: &[u8]) -> bool {
        let removed = self.by_field.remove(table_hash(field), |stamp| *stamp.field == *field, Stamp::hash);
        let Some(stamp) = removed else { return false };
        self.in_order.remove(&stamp);
        self.name_bytes -= stamp.name_bytes();
        true
    }

    /// The first of all deadlines.
    pub(super) fn first(&self) -> Option<u64> {
        self.in_order.first().map(|stamp| stamp.deadline)
    }

    /// The fields whose deadline has passed, in the order in which they did.
    pub(super) fn due(&self, now_ms: u64) -> impl Iterator<Item = &[u8]> {
        self.in_order.iter().take_while(move |stamp| stamp.deadline <= now_ms).map(|stamp| &*stamp.field)
    }

    /// Bytes allocated, not walked.
    pub(super) fn memory_bytes(&self) -> usize {
        self.by_field.allocation_bytes() + self.name_bytes + self.in_order.len() * ORDERED_BYTES
    }

    pub(super) fn allocation_count(&self) -> usize {
        self.in_order.len()
    }
}
