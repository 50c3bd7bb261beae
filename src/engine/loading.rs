//! Keys that come from a file: as they were, and nobody is told.

use super::effect::{Cause, encode};
use super::entry::Entry;
use super::keyspace::Keyspace;
use super::remembering::access_bits;
use super::{Engine, event};
use crate::base::identity::Position;
use crate::base::slot::Slot;
use crate::values::Value;
use std::sync::atomic::Ordering;

/// A value that was read.
#[derive(Debug)]
pub enum Loaded {
    String(Vec<u8>),
    /// Not empty, unless it is a stream.
    Collection(Value),
}

/// What is known of the accesses to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Seconds since the last one. It counts where maxmemory-policy goes by that, or by nothing.
    IdleSeconds(u64),
    /// Redis's logarithmic counter. It counts where maxmemory-policy goes by frequency.
    Frequency(u8),
}

impl Engine {
    /// Adds a key with a value that was read from a file, and its deadline in Unix milliseconds, which may have passed. False,
    /// and nothing has changed, where the key is there already and may not be replaced.
    pub fn load(
        &self,
        database: usize,
        key: &[u8],
        value: Loaded,
        deadline: Option<u64>,
        access: Option<Access>,
        replaces: bool,
    ) -> bool {
        // At time 0 nothing has expired.
        let mut keyspace = self.lock_slot(Slot::of_key(key), database, 0);
        keyspace.set_cause(Cause::Move);
        keyspace.load(key, value, deadline, access, replaces)
    }

    /// Where a slot's history stands.
    pub fn position(&self, slot: Slot) -> Position {
        let mut keyspace = self.lock_slot(slot, 0, 0);
        let placement = self.placement();
        keyspace.locks.shard(placement.shard(slot)).meta(placement.slot_in_shard(slot)).position
    }

    /// A slot's history goes on after this position.
    pub fn set_position(&self, slot: Slot, position: Position) {
        self.lock_slot(slot, 0, 0).go_on_after(slot, position);
    }
}

impl Keyspace<'_> {
    /// Whether payloads are taken whatever their checksum is.
    pub fn skips_checksums(&self) -> bool {
        self.engine.skips_checksums.load(Ordering::Relaxed)
    }

    fn load(
        &mut self,
        key: &[u8],
        value: Loaded,
        deadline: Option<u64>,
        access: Option<Access>,
        replaces: bool,
    ) -> bool {
        let place = self.place(key);
        let is_read = self.engine.log.is_read();
        let bits = access.and_then(|access| access_bits(self.engine, access));
        let bits = bits.unwrap_or_else(|| self.engine.access_clock());
        let mut found = self.lookup(place, key);
        if found.entry().is_some() && !replaces {
            return false;
        }
        let mut encoded = Vec::new();
        let entry = match value {
            Loaded::String(bytes) => {
                if is_read {
                    encode::set_string(&mut encoded, key, &bytes, deadline);
                }
                Entry::string(key, &bytes, deadline, bits)
            }
            Loaded::Collection(value) => {
                if is_read {
                    encode::put_value(&mut encoded, key, deadline, |out| value.write_image(out));
                }
                Entry::value(key, value, deadline, bits)
            }
        };
        found.put(entry);
        self.changed(place, key, event::RESTORE, |out| out.extend_from_slice(&encoded));
        true
    }
}
