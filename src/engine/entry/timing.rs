//! What of an entry expires, and what has.

use super::Entry;
use crate::values::{Hash, Value};

/// Which deadlines an entry has: what its table counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::engine) struct Timing {
    /// The key has one.
    pub(in crate::engine) key: bool,
    /// It is a hash, and fields have some.
    pub(in crate::engine) fields: bool,
}

/// What has expired of an entry at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Life {
    Whole,
    /// Fields of the hash.
    Parted,
    /// All of it.
    Expired,
}

impl Entry {
    /// The value, where it is a hash.
    #[inline]
    pub(in crate::engine) fn as_hash(&self) -> Option<&Hash> {
        if let Some(Value::Hash(hash)) = self.as_value() { Some(hash) } else { None }
    }

    #[inline]
    pub(in crate::engine) fn timing(&self) -> Timing {
        let has_timed_fields = |hash: &Hash| hash.first_deadline().is_some();
        Timing { key: self.deadline().is_some(), fields: self.as_hash().is_some_and(has_timed_fields) }
    }

    /// What has expired at this moment, in Unix milliseconds.
    #[inline]
    pub(in crate::engine) fn life(&self, now_ms: u64) -> Life {
        if self.is_expired(now_ms) {
            return Life::Expired;
        }
        let first = self.as_hash().and_then(Hash::first_deadline);
        if first.is_some_and(|first| first <= now_ms) { Life::Parted } else { Life::Whole }
    }
}
