//! The digest of a slot: equal where two nodes have the same keys with the same contents and deadlines.
//!
//! Elements of sets and hashes count in any order, entries too: the order in which things were added is no content. The hash
//! is that of tables, whose key all nodes of a cluster share.

use super::Engine;
use super::entry::Entry;
use super::export::encode_entry;
use super::shard::SlotTable;
use crate::base::identity::Position;
use crate::base::slot::Slot;
use crate::values::Value;
use crate::values::element::{Digits, Element};
use crate::values::hashing::{mix, table_hash};
use std::sync::atomic::AtomicU64;

/// Bytes of a slot that are looked at under its lock: a millisecond, about.
pub const DIGESTED_BYTES_MAX: u64 = 1024 * 1024;

/// What comparing copies with their primaries has come to since the process started.
#[derive(Debug, Default)]
pub struct Compared {
    /// Slots that were compared, each time.
    pub slots: AtomicU64,
    /// Those that were not the same. They are sent anew.
    pub different: AtomicU64,
    /// Slots of which a copy had lost its place, but had the same keys as its primary: none of their entries were sent.
    pub alike: AtomicU64,
    /// Slots of which the entries were sent to a copy.
    pub sent: AtomicU64,
    /// Writes of former primaries that were in none of the copies that took their places, as far as that is known.
    pub lost: AtomicU64,
    /// The bytes of all that was sent to copies.
    pub bytes: AtomicU64,
}

impl Engine {
    /// Where a slot stands, and the digest of what it has there; `None` for the digest of one that has more than can be looked
    /// at under its lock.
    pub fn digest(&self, slot: Slot) -> (Position, Option<u64>) {
        let (shard, slot_in_shard) = (self.placement().shard(slot), self.placement().slot_in_shard(slot));
        let mut keyspace = self.lock_slot(slot, 0, 0);
        let shard = keyspace.locks.shard(shard);
        (shard.meta(slot_in_shard).position, digest_of(shard.table(0, slot_in_shard)))
    }
}

/// The digest of what a slot has, which is locked; `None`: it is too much.
pub(super) fn digest_of(table: Option<&SlotTable>) -> Option<u64> {
    match table {
        Some(table) if table.bytes > DIGESTED_BYTES_MAX => None,
        Some(table) => Some(table.entries.iter().map(entry_digest).fold(0, u64::wrapping_add)),
        None => Some(0),
    }
}

fn entry_digest(entry: &Entry) -> u64 {
    let hash = |element: Element<'_>| table_hash(element.bytes(&mut Digits::new()));
    let contents = match entry.as_value() {
        Some(Value::Set(set)) => set.iter().map(hash).fold(1, u64::wrapping_add),
        Some(Value::Hash(fields)) => {
            let pairs = fields.iter().map(|(field, value)| {
                let deadline = fields.deadline(field.bytes(&mut Digits::new())).unwrap_or(0);
                mix(mix(hash(field)).wrapping_add(hash(value))).wrapping_add(mix(deadline))
            });
            pairs.fold(2, u64::wrapping_add)
        }
        _ => table_hash(&encode_entry(entry)),
    };
    let key = mix(table_hash(entry.key())).wrapping_add(entry.deadline().map_or(0, |deadline| mix(deadline + 1)));
    mix(key ^ contents.rotate_left(17))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::keyspace::Deadline;

    #[test]
    fn equal_contents_have_equal_digests_whatever_their_history() {
        let slot = Slot::of_key(b"k");
        let with = |changes: &[&dyn Fn(&mut crate::engine::keyspace::Keyspace<'_>)]| {
            let engine = Engine::new(1);
            changes.iter().for_each(|change| change(&mut engine.lock_slot(slot, 0, 0)));
            engine.digest(slot).1
        };
        let add = |members: &'static [&'static [u8]]| {
            move |keyspace: &mut crate::engine::keyspace::Keyspace<'_>| {
                keyspace.set_add(b"k", members.iter().copied()).expect("a set");
            }
        };
        let set = |value: &'static [u8], deadline| {
            move |keyspace: &mut crate::engine::keyspace::Keyspace<'_>| keyspace.set_string(b"k", value, deadline)
        };
        assert_eq!(with(&[]), Some(0));
        assert_eq!(with(&[&add(&[b"a", b"b"])]), with(&[&add(&[b"b"]), &add(&[b"a"])]));
        assert_ne!(with(&[&add(&[b"a", b"b"])]), with(&[&add(&[b"a"])]));
        assert_eq!(
            with(&[&set(b"1", Deadline::Clear)]),
            with(&[&set(b"2", Deadline::At(5)), &set(b"1", Deadline::Clear)])
        );
        assert_ne!(with(&[&set(b"1", Deadline::Clear)]), with(&[&set(b"1", Deadline::At(5))]));
        assert_ne!(with(&[&set(b"1", Deadline::Clear)]), with(&[&set(b"2", Deadline::Clear)]));
        let large = vec![b'x'; DIGESTED_BYTES_MAX as usize + 1];
        let engine = Engine::new(1);
        engine.lock_slot(slot, 0, 0).set_string(b"k", &large, Deadline::Clear);
        assert_eq!(engine.digest(slot).1, None);
    }
}
