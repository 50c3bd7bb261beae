//! Collections in the keyspace: each change is made, counted and published by one function.
//!
//! A collection that becomes empty takes its key with it; one that is not there is created by what adds to it.

use super::entry::Kind;
use super::keyspace::{Keyspace, WrongKind};
use crate::values::hash::Hash;
use crate::values::list::List;
use crate::values::set::Set;
use crate::values::sorted_set::SortedSet;
use crate::values::stream::Stream;
use crate::values::{Limits, Value};

mod hash;
mod list;
mod set;
mod sorted_set;
mod stream;

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

impl Collection for Stream {
    const KIND: Kind = Kind::Stream;

    fn of(value: &Value) -> Option<&Self> {
        if let Value::Stream(stream) = value { Some(stream) } else { None }
    }

    fn of_mut(value: &mut Value) -> Option<&mut Self> {
        if let Value::Stream(stream) = value { Some(stream) } else { None }
    }

    fn into_value(self) -> Value {
        Value::Stream(Box::new(self))
    }

    fn new() -> Self {
        Stream::new()
    }

    /// A stream without entries stays.
    fn has_none(&self) -> bool {
        false
    }
}

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
}
