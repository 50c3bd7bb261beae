//! Collections to bytes, in forms that Redis 7.0 reads; a hash of which fields have deadlines, in the one of Redis 7.4.

use super::read::VALKEY_NONE;
use super::stream;
use crate::base::number::format_double;
use crate::rdb::length::Compression;
use crate::rdb::listpack::Builder;
use crate::rdb::{kind, length};
use crate::values::{Digits, Element, Hash, List, Set, SortedSet, Value};

/// A listpack of a list takes elements until it has so many bytes, as in Redis.
const NODE_BYTES: usize = 8192;
/// What stands in front of a node: it is a listpack.
const PACKED_NODE: u64 = 2;

/// The kind that [`write`] writes a collection in.
pub fn kind_of(value: &Value) -> u8 {
    match value {
        Value::List(_) => kind::LIST_QUICKLIST_2,
        Value::Hash(hash) if hash.first_deadline().is_some() => kind::HASH_DEADLINES_FROM,
        Value::Hash(hash) if is_packed(hash.encoding()) => kind::HASH_LISTPACK,
        Value::Hash(_) => kind::HASH,
        Value::Set(set) if set.encoding() == "intset" => kind::SET_INTSET,
        Value::Set(_) => kind::SET,
        Value::SortedSet(sorted_set) if is_packed(sorted_set.encoding()) => kind::SORTED_SET_LISTPACK,
        Value::SortedSet(_) => kind::SORTED_SET,
        Value::Stream(_) => kind::STREAM,
    }
}

fn is_packed(encoding: &str) -> bool {
    encoding == "listpack"
}

/// Appends a collection, without its kind.
pub fn write(out: &mut Vec<u8>, value: &Value) {
    write_as(out, value, Compression::default());
}

/// The same, and its strings compressed only where that is wanted.
pub fn write_as(out: &mut Vec<u8>, value: &Value, compression: Compression) {
    let kind = kind_of(value);
    match value {
        Value::List(list) => write_list(out, list, compression),
        Value::Hash(hash) if kind == kind::HASH_LISTPACK => {
            let mut packed = Builder::with_capacity(hash.memory_bytes() + 2 * hash.len());
            for (field, value) in hash.iter() {
                packed.push(field);
                packed.push(value);
            }
            write_packed(out, packed, compression);
        }
        Value::Hash(hash) => write_hash(out, hash, compression),
        Value::Set(set) if kind == kind::SET_INTSET => write_integers(out, set, compression),
        Value::Set(set) => {
            length::write(out, set.len() as u64);
            set.iter().for_each(|member| write_element(out, member, compression));
        }
        Value::SortedSet(sorted_set) if kind == kind::SORTED_SET_LISTPACK => {
            let mut packed = Builder::with_capacity(sorted_set.memory_bytes() + 2 * sorted_set.len());
            for (member, score) in sorted_set.iter() {
                packed.push(member);
                packed.push(Element::Bytes(format_double(score).as_bytes()));
            }
            write_packed(out, packed, compression);
        }
        Value::SortedSet(sorted_set) => write_sorted_set(out, sorted_set, compression),
        Value::Stream(stream) => stream::write(out, stream, compression),
    }
}

fn write_element(out: &mut Vec<u8>, element: Element<'_>, compression: Compression) {
    length::write_string_as(out, element.bytes(&mut Digits::new()), compression);
}

fn write_packed(out: &mut Vec<u8>, packed: Builder, compression: Compression) {
    length::write_string_as(out, &packed.finish(), compression);
}

fn write_list(out: &mut Vec<u8>, list: &List, compression: Compression) {
    let (mut nodes, mut count, mut node) = (Vec::new(), 0u64, Builder::default());
    let mut end = |node: Builder| {
        length::write(&mut nodes, PACKED_NODE);
        write_packed(&mut nodes, node, compression);
        count += 1;
    };
    for element in list.iter() {
        if !node.is_empty() && node.byte_len() + element.byte_len() > NODE_BYTES {
            end(std::mem::take(&mut node));
        }
        node.push(element);
    }
    if !node.is_empty() {
        end(node);
    }
    length::write(out, count);
    out.append(&mut nodes);
}

/// Where fields have deadlines: the first of them, and before each field how far behind its own is, and 1; 0 for none.
fn write_hash(out: &mut Vec<u8>, hash: &Hash, compression: Compression) {
    let first = hash.first_deadline();
    out.extend_from_slice(first.map(u64::to_le_bytes).as_ref().map_or(&[], |bytes| bytes));
    length::write(out, hash.len() as u64);
    for (field, value, deadline) in hash.iter_timed() {
        if let Some(first) = first {
            length::write(out, deadline.map_or(0, |deadline| deadline.saturating_sub(first).saturating_add(1)));
        }
        write_element(out, field, compression);
        write_element(out, value, compression);
    }
}

/// Appends a hash as Valkey does where fields have deadlines: behind each its own, in Unix milliseconds, or -1.
pub fn write_valkey_hash(out: &mut Vec<u8>, hash: &Hash) {
    length::write(out, hash.len() as u64);
    for (field, value, deadline) in hash.iter_timed() {
        write_element(out, field, Compression::default());
        write_element(out, value, Compression::default());
        out.extend_from_slice(&deadline.unwrap_or(VALKEY_NONE).to_le_bytes());
    }
}

/// A string of: bytes of each (u32), how many (u32), the integers, lowest first.
fn write_integers(out: &mut Vec<u8>, set: &Set, compression: Compression) {
    let integers = || set.iter().filter_map(|member| member.integer());
    let fits = |bits: u32| integers().all(|integer| integer >= -1 << (bits - 1) && integer < 1 << (bits - 1));
    let width = if fits(16) {
        2
    } else if fits(32) {
        4
    } else {
        8
    };
    let mut bytes = Vec::with_capacity(8 + width * set.len());
    bytes.extend_from_slice(&(width as u32).to_le_bytes());
    bytes.extend_from_slice(&(set.len() as u32).to_le_bytes());
    for integer in integers() {
        bytes.extend_from_slice(&integer.to_le_bytes()[..width]);
    }
    length::write_string_as(out, &bytes, compression);
}

fn write_sorted_set(out: &mut Vec<u8>, sorted_set: &SortedSet, compression: Compression) {
    length::write(out, sorted_set.len() as u64);
    // Highest first, as Redis does: a skip list is filled from its front.
    for (member, score) in sorted_set.range_reverse(0, sorted_set.len()) {
        write_element(out, member, compression);
        out.extend_from_slice(&score.to_le_bytes());
    }
}
