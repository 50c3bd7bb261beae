//! Sorted sets in the keyspace.

use crate::engine::effect::{Side, encode};
use crate::engine::event::{self, Event};
use crate::engine::keyspace::{Keyspace, WrongKind};
use crate::values::element::Element;
use crate::values::sorted_set::SortedSet;
use std::ops::Range;

impl Keyspace<'_> {
    /// Gives members of the sorted set these scores, which must not be NaN.
    pub fn sorted_set_put(&mut self, key: &[u8], members: &[(&[u8], f64)], event: Event) -> Result<(), WrongKind> {
        self.edit_or_create::<SortedSet, _>(key, |sorted, limits| {
            for (member, score) in members {
                sorted.insert(member, *score, limits);
            }
        })?;
        let place = self.place(key);
        if !members.is_empty() {
            self.changed_by(members.len(), place, key, event, |out| {
                encode::sorted_set_put(out, key, members.iter().copied());
            });
        }
        Ok(())
    }

    /// Removes members of the sorted set. Returns how many there were.
    pub fn sorted_set_remove<'a>(
        &mut self,
        key: &[u8],
        members: impl Iterator<Item = &'a [u8]>,
    ) -> Result<usize, WrongKind> {
        let removed: Vec<&[u8]> = self
            .edit::<SortedSet, _>(key, |sorted, _| members.filter(|member| sorted.remove(member).is_some()).collect())?
            .unwrap_or_default();
        let place = self.place(key);
        if !removed.is_empty() {
            self.changed_by(removed.len(), place, key, event::SORTED_SET_REMOVE, |out| {
                encode::sorted_set_remove(out, key, removed.iter().copied())
            });
        }
        Ok(removed.len())
    }

    /// Removes the members whose ranks `select` finds. Returns how many there were.
    pub fn sorted_set_remove_range(
        &mut self,
        key: &[u8],
        select: impl FnOnce(&SortedSet) -> Range<usize>,
        event: Event,
    ) -> Result<usize, WrongKind> {
        let mut removed = Vec::new();
        self.edit::<SortedSet, _>(key, |sorted, _| {
            sorted.remove_range(select(sorted), |member, _| removed.push(member.to_vec()));
        })?;
        let place = self.place(key);
        if !removed.is_empty() {
            self.changed_by(removed.len(), place, key, event, |out| {
                encode::sorted_set_remove(out, key, removed.iter().map(Vec::as_slice));
            });
        }
        Ok(removed.len())
    }

    /// Takes up to `count` members off the low or the high end of the sorted set.
    pub fn sorted_set_pop(&mut self, key: &[u8], side: Side, count: usize) -> Result<Vec<(Vec<u8>, f64)>, WrongKind> {
        let popped = self
            .edit::<SortedSet, _>(key, |sorted, _| {
                let take = |member: Element<'_>, score: f64| (member.to_vec(), score);
                (0..count.min(sorted.len()))
                    .filter_map(|_| match side {
                        Side::Front => sorted.pop_min(take),
                        Side::Back => sorted.pop_max(take),
                    })
                    .collect::<Vec<_>>()
            })?
            .unwrap_or_default();
        let place = self.place(key);
        if !popped.is_empty() {
            let members = popped.iter().map(|(member, _)| member.as_slice());
            self.changed_by(popped.len(), place, key, event::sorted_set_pop(side), |out| {
                encode::sorted_set_remove(out, key, members);
            });
        }
        Ok(popped)
    }
}
