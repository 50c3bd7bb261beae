//! A collection as bytes: how a slot snapshot carries it.
//!
//! A kind, a count, and the elements in order, each with its length in front. The encoding in memory is not part of it:
//! the receiver chooses its own.

use super::effect::{put_bytes, put_integer, take, take_bytes, take_double, take_integer};
use crate::values::element::{Digits, Element};
use crate::values::hash::Hash;
use crate::values::list::{End, List};
use crate::values::set::Set;
use crate::values::sorted_set::SortedSet;
use crate::values::{Limits, Value};

const LIST: u8 = 1;
const SET: u8 = 2;
const SORTED_SET: u8 = 3;
const HASH: u8 = 4;

/// Appends a collection as bytes from which [`decode`] makes an equal one.
pub fn encode(value: &Value, out: &mut Vec<u8>) {
    let element = |out: &mut Vec<u8>, element: Element<'_>| put_bytes(out, element.bytes(&mut Digits::new()));
    match value {
        Value::List(list) => {
            out.push(LIST);
            put_integer(out, list.len() as u64);
            list.iter().for_each(|item| element(out, item));
        }
        Value::Set(set) => {
            out.push(SET);
            put_integer(out, set.len() as u64);
            set.iter().for_each(|member| element(out, member));
        }
        Value::SortedSet(sorted) => {
            out.push(SORTED_SET);
            put_integer(out, sorted.len() as u64);
            for (member, score) in sorted.iter() {
                element(out, member);
                out.extend_from_slice(&score.to_bits().to_le_bytes());
            }
        }
        Value::Hash(hash) => {
            out.push(HASH);
            put_integer(out, hash.len() as u64);
            for (field, value) in hash.iter() {
                element(out, field);
                element(out, value);
            }
        }
    }
}

/// An equal collection.
pub fn copy(value: &Value) -> Value {
    // Elements that are small enough for one of the packed encodings stay as they are; the thresholds cannot matter to
    // what the collection holds.
    let mut image = Vec::new();
    encode(value, &mut image);
    decode(&image, &Limits::default()).expect("an image of a collection in the keyspace, which is never empty")
}

/// Makes a collection of its image; `None` where the bytes are not one, or it would be empty.
pub fn decode(image: &[u8], limits: &Limits) -> Option<Value> {
    let rest = &mut &*image;
    let kind = take(rest, 1)?[0];
    let count = take_integer(rest)?;
    let mut value = match kind {
        LIST => Value::List(List::new()),
        SET => Value::Set(Set::new()),
        SORTED_SET => Value::SortedSet(SortedSet::new()),
        HASH => Value::Hash(Hash::new()),
        _ => return None,
    };
    for _ in 0..count {
        let first = take_bytes(rest)?;
        match &mut value {
            Value::List(list) => list.push(End::Tail, first, limits),
            Value::Set(set) => {
                set.add(first, limits);
            }
            Value::SortedSet(sorted) => {
                sorted.insert(first, take_double(rest).filter(|score| !score.is_nan())?, limits);
            }
            Value::Hash(hash) => {
                hash.set(first, take_bytes(rest)?, limits);
            }
        }
    }
    (count > 0 && rest.is_empty()).then_some(value)
}
