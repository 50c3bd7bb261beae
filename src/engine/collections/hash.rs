//! Hashes in the keyspace.

use crate::engine::effect::encode;
use crate::engine::event::{self, Event};
use crate::engine::keyspace::{Keyspace, WrongKind};
use crate::values::hash::{Hash, Stored};

impl Keyspace<'_> {
    /// Sets fields of the hash. Returns how many are new.
    pub fn hash_set<'a>(
        &mut self,
        key: &[u8],
        pairs: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
    ) -> Result<usize, WrongKind> {
        self.hash_set_as(key, pairs, event::HASH_SET)
    }

    /// The same, told as this event.
    pub fn hash_set_as<'a>(
        &mut self,
        key: &[u8],
        pairs: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
        event: Event,
    ) -> Result<usize, WrongKind> {
        let set = pairs.clone();
        let added = self.edit_or_create::<Hash, _>(key, |hash, limits| {
            set.filter(|(field, value)| matches!(hash.set(field, value, limits), Stored::Added)).count()
        })?;
        let place = self.place(key);
        let count = pairs.clone().count();
        self.changed_by(count, place, key, event, |out| encode::hash_set(out, key, pairs));
        Ok(added)
    }

    /// Removes fields of the hash. Returns how many there were.
    pub fn hash_remove<'a>(&mut self, key: &[u8], fields: impl Iterator<Item = &'a [u8]>) -> Result<usize, WrongKind> {
        let removed: Vec<&[u8]> = self
            .edit::<Hash, _>(key, |hash, _| fields.filter(|field| hash.remove(field)).collect())?
            .unwrap_or_default();
        let place = self.place(key);
        if !removed.is_empty() {
            self.changed_by(removed.len(), place, key, event::HASH_REMOVE, |out| {
                encode::hash_remove(out, key, removed.iter().copied());
            });
        }
        Ok(removed.len())
    }
}
