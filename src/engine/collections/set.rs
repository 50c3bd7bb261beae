//! Sets in the keyspace.

use crate::engine::effect::encode;
use crate::engine::event;
use crate::engine::keyspace::{Keyspace, WrongKind};
use crate::values::set::Set;
use smallvec::SmallVec;

impl Keyspace<'_> {
    /// Adds members to the set. Returns how many are new.
    pub fn set_add<'a>(
        &mut self,
        key: &[u8],
        members: impl ExactSizeIterator<Item = &'a [u8]>,
    ) -> Result<usize, WrongKind> {
        let added: SmallVec<[&[u8]; 8]> = self
            .edit_or_create::<Set, _>(key, |set, limits| members.filter(|member| set.add(member, limits)).collect())?;
        let place = self.place(key);
        if !added.is_empty() {
            self.changed_by(added.len(), place, key, event::SET_ADD, |out| {
                encode::set_add(out, key, added.iter().copied());
            });
        }
        Ok(added.len())
    }

    /// Removes members of the set. Returns how many there were.
    pub fn set_remove<'a>(&mut self, key: &[u8], members: impl Iterator<Item = &'a [u8]>) -> Result<usize, WrongKind> {
        let removed: Vec<&[u8]> = self
            .edit::<Set, _>(key, |set, _| members.filter(|member| set.remove(member)).collect())?
            .unwrap_or_default();
        let place = self.place(key);
        if !removed.is_empty() {
            self.changed_by(removed.len(), place, key, event::SET_REMOVE, |out| {
                encode::set_remove(out, key, removed.iter().copied());
            });
        }
        Ok(removed.len())
    }

    /// Takes up to `count` members at random out of the set.
    pub fn set_pop(&mut self, key: &[u8], count: usize) -> Result<Option<Vec<Vec<u8>>>, WrongKind> {
        let engine = self.engine;
        let popped = self.edit::<Set, _>(key, |set, _| {
            (0..count.min(set.len())).filter_map(|_| set.pop_random(engine.random())).collect::<Vec<_>>()
        })?;
        let place = self.place(key);
        if let Some(popped) = popped.as_ref().filter(|popped| !popped.is_empty()) {
            self.changed_by(popped.len(), place, key, event::SET_POP, |out| {
                encode::set_remove(out, key, popped.iter().map(Vec::as_slice))
            });
        }
        Ok(popped)
    }
}
