//! Collections in the keyspace: each change is made, counted and published by one function.
//!
//! A collection that becomes empty takes its key with it; one that is not there is created by what adds to it.

use super::effect::{Side, encode};
use super::entry::Kind;
use super::event::{self, Event};
use super::keyspace::{Keyspace, WrongKind};
use crate::values::hash::{Hash, Stored};
use crate::values::list::{End, List};
use crate::values::set::Set;
use crate::values::sorted_set::SortedSet;
use crate::values::{Limits, Value};

/// What a closure on a collection of another kind would be: the entry's kind was compared before.
fn other_kind() -> ! {
    unreachable!("the entry's kind was compared with the collection's")
}

/// A kind of collection, and how to find it in a value.
pub trait Collection: Sized {
    const KIND: Kind;
    fn of(value: &Value) -> Option<&Self>;
    fn of_mut(value: &mut Value) -> Option<&mut Self>;
    fn into_value(self) -> Value;
    fn new() -> Self;
    fn has_none(&self) -> bool;
}

macro_rules! collection {
    ($name:ident) => {
        impl Collection for $name {
            const KIND: Kind = Kind::$name;

            fn of(value: &Value) -> Option<&Self> {
                if let Value::$name(collection) = value { Some(collection) } else { None }
            }

            fn of_mut(value: &mut Value) -> Option<&mut Self> {
                if let Value::$name(collection) = value { Some(collection) } else { None }
            }

            fn into_value(self) -> Value {
                Value::$name(self)
            }

            fn new() -> Self {
                $name::new()
            }

            fn has_none(&self) -> bool {
                self.is_empty()
            }
        }
    };
}

collection!(List);
collection!(Hash);
collection!(Set);
collection!(SortedSet);

impl Keyspace<'_> {
    /// The key's collection, for a command that reads it.
    pub fn read_collection<C: Collection>(&mut self, key: &[u8]) -> Result<Option<&C>, WrongKind> {
        match self.read(key) {
            None => Ok(None),
            Some(entry) => entry.as_value().and_then(C::of).map(Some).ok_or(WrongKind),
        }
    }

    /// The key's collection, for a command that will write it.
    pub fn peek_collection<C: Collection>(&mut self, key: &[u8]) -> Result<Option<&C>, WrongKind> {
        match self.peek(key) {
            None => Ok(None),
            Some(entry) => entry.as_value().and_then(C::of).map(Some).ok_or(WrongKind),
        }
    }

    /// Changes the key's collection where there is one; the caller publishes what it did.
    fn edit<C: Collection, R>(
        &mut self,
        key: &[u8],
        edit: impl FnOnce(&mut C, &Limits) -> R,
    ) -> Result<Option<R>, WrongKind> {
        let edit = |value: &mut Value, limits: &Limits| match C::of_mut(value) {
            Some(collection) => edit(collection, limits),
            None => other_kind(),
        };
        self.edit_entry(key, C::KIND, None, edit, |value| C::of(value).is_none_or(C::has_none))
    }

    /// Changes the key's collection, or a new one.
    fn edit_or_create<C: Collection, R>(
        &mut self,
        key: &[u8],
        edit: impl FnOnce(&mut C, &Limits) -> R,
    ) -> Result<R, WrongKind> {
        let edit = |value: &mut Value, limits: &Limits| match C::of_mut(value) {
            Some(collection) => edit(collection, limits),
            None => other_kind(),
        };
        let create = Some((|| C::new().into_value()) as fn() -> Value);
        self.edit_entry(key, C::KIND, create, edit, |value| C::of(value).is_none_or(C::has_none))
            .map(|result| result.unwrap_or_else(|| other_kind()))
    }

    /// Pushes elements, one after the other. Returns the length of the list.
    pub fn list_push<'a>(
        &mut self,
        key: &[u8],
        side: Side,
        elements: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Result<usize, WrongKind> {
        let pushed = elements.clone();
        let length = self.edit_or_create::<List, _>(key, |list, limits| {
            pushed.for_each(|element| list.push(end(side), element, limits));
            list.len()
        })?;
        let place = self.place(key);
        let count = elements.clone().count();
        self.changed_by(count, place, key, event::list_push(side), |out| encode::list_push(out, key, side, elements));
        Ok(length)
    }

    /// Takes up to `count` elements off one end, each handed to `take`. Returns how many; `None` where there is no list.
    pub fn list_pop(
        &mut self,
        key: &[u8],
        side: Side,
        count: usize,
        mut take: impl FnMut(crate::values::element::Element<'_>),
    ) -> Result<Option<usize>, WrongKind> {
        let popped = self.edit::<List, _>(key, |list, limits| {
            let most = count.min(list.len());
            for _ in 0..most {
                list.pop(end(side), limits, &mut take);
            }
            most
        })?;
        if let Some(count @ 1..) = popped {
            let place = self.place(key);
            self.changed_by(count, place, key, event::list_pop(side), |out| {
                encode::list_pop(out, key, side, count as u64);
            });
        }
        Ok(popped)
    }

    /// Sets fields of the hash. Returns how many are new.
    pub fn hash_set<'a>(
        &mut self,
        key: &[u8],
        pairs: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
    ) -> Result<usize, WrongKind> {
        let set = pairs.clone();
        let added = self.edit_or_create::<Hash, _>(key, |hash, limits| {
            set.filter(|(field, value)| matches!(hash.set(field, value, limits), Stored::Added)).count()
        })?;
        let place = self.place(key);
        let count = pairs.clone().count();
        self.changed_by(count, place, key, event::HASH_SET, |out| encode::hash_set(out, key, pairs));
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

    /// Adds members to the set. Returns how many are new.
    pub fn set_add<'a>(
        &mut self,
        key: &[u8],
        members: impl ExactSizeIterator<Item = &'a [u8]>,
    ) -> Result<usize, WrongKind> {
        let added: smallvec::SmallVec<[&[u8]; 8]> = self
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

    /// Takes up to `count` members off the low or the high end of the sorted set.
    pub fn sorted_set_pop(&mut self, key: &[u8], side: Side, count: usize) -> Result<Vec<(Vec<u8>, f64)>, WrongKind> {
        let popped = self
            .edit::<SortedSet, _>(key, |sorted, _| {
                let take = |member: crate::values::element::Element<'_>, score: f64| (member.to_vec(), score);
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

fn end(side: Side) -> End {
    match side {
        Side::Front => End::Head,
        Side::Back => End::Tail,
    }
}
