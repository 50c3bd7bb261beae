//! Hashes in the keyspace.
//!
//! Fields whose deadline has passed are not there, though some may not have been removed yet.

use crate::engine::effect::encode;
use crate::engine::event::{self, Event};
use crate::engine::keyspace::{Keyspace, WrongKind};
use crate::values::hash::{Hash, Stored, View};

impl Keyspace<'_> {
    /// The key's hash at the command's moment, for a command that reads it.
    pub fn read_hash(&mut self, key: &[u8]) -> Result<Option<View<'_>>, WrongKind> {
        let now_ms = self.now_ms;
        Ok(self.read_collection::<Hash>(key)?.map(|hash| hash.at(now_ms)))
    }

    /// The same for a command that will write it.
    pub fn peek_hash(&mut self, key: &[u8]) -> Result<Option<View<'_>>, WrongKind> {
        let now_ms = self.now_ms;
        Ok(self.peek_collection::<Hash>(key)?.map(|hash| hash.at(now_ms)))
    }

    /// Sets fields of the hash; deadlines that they have go. Returns how many are new.
    pub fn hash_set<'a>(
        &mut self,
        key: &[u8],
        pairs: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
    ) -> Result<usize, WrongKind> {
        let now_ms = self.now_ms;
        let set = pairs.clone();
        let added = self.edit_or_create::<Hash, _>(key, |hash, limits| {
            set.filter(|(field, value)| matches!(hash.set_at(field, value, limits, now_ms), Stored::Added)).count()
        })?;
        let place = self.place(key);
        let count = pairs.clone().count();
        self.changed_by(count, place, key, event::HASH_SET, |out| encode::hash_set(out, key, pairs));
        Ok(added)
    }

    /// Sets fields of the hash; deadlines that they have stay. Told as this event.
    pub fn hash_set_keeping<'a>(
        &mut self,
        key: &[u8],
        pairs: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
        event: Event,
    ) -> Result<(), WrongKind> {
        let now_ms = self.now_ms;
        let set = pairs.clone();
        let kept = self.edit_or_create::<Hash, _>(key, |hash, limits| {
            let mut kept = Vec::new();
            for (field, value) in set {
                let deadline = hash.deadline(field).filter(|deadline| *deadline > now_ms);
                hash.set(field, value, limits);
                if deadline.is_some() {
                    hash.set_deadline(field, deadline);
                    kept.push((field, deadline));
                }
            }
            kept
        })?;
        let place = self.place(key);
        let count = pairs.clone().count();
        self.changed_by(count, place, key, event, |out| encode::hash_set(out, key, pairs));
        if !kept.is_empty() {
            self.publish(place, |out| encode::hash_deadlines(out, key, kept.into_iter()));
        }
        Ok(())
    }

    /// Sets or clears deadlines of fields, in Unix milliseconds: of those that are there. Counted as so many changes, and
    /// told as this event.
    pub fn hash_set_deadlines<'a>(
        &mut self,
        key: &[u8],
        fields: impl Iterator<Item = (&'a [u8], Option<u64>)> + Clone,
        count: usize,
        event: Event,
    ) -> Result<(), WrongKind> {
        let set = fields.clone();
        let edit = |hash: &mut Hash| set.for_each(|(field, deadline)| _ = hash.set_deadline(field, deadline));
        if self.edit::<Hash, _>(key, |hash, _| edit(hash))?.is_some() {
            let place = self.place(key);
            self.changed_by(count, place, key, event, |out| encode::hash_deadlines(out, key, fields));
        }
        Ok(())
    }

    /// Removes fields of the hash. Returns how many there were.
    pub fn hash_remove<'a>(&mut self, key: &[u8], fields: impl Iterator<Item = &'a [u8]>) -> Result<usize, WrongKind> {
        let now_ms = self.now_ms;
        let remove = |hash: &mut Hash, field: &[u8]| {
            let is_past = hash.deadline(field).is_some_and(|deadline| deadline <= now_ms);
            !is_past && hash.remove(field)
        };
        let removed: Vec<&[u8]> = self
            .edit::<Hash, _>(key, |hash, _| fields.filter(|field| remove(hash, field)).collect())?
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
