//! Streams: nodes of entries, counters, and consumer groups with what is pending.
//!
//! ```text
//!  nodes | node ... | entries, last id | first id, greatest deleted id, entries added | groups | group ...
//!  node   id of its first entry (16 bytes, big endian, as a string), listpack:
//!           entries, deleted, fields, field ..., 0 | flags, ms and seq less those of the first,
//!           (SAME: value ... | else: fields, field, value ...), elements of the entry ...
//!  group  name, last id, entries read | pending | id (16 bytes), delivered (u64), count ...
//!                                     | consumers | name, seen (u64), active (u64), pending | id (16 bytes) ...
//! ```
//! Redis 5 has neither the second id and what follows it nor the entries read; `active` is Redis 7.2's. Written is what
//! Redis 7.0 writes.

use crate::rdb::length::Compression;
use crate::rdb::listpack::{self, Builder};
use crate::rdb::{Damaged, Reader, kind, length};
use crate::values::stream::{Edit, Entry, Fields, Group, Id, put_bytes};
use crate::values::{Element, Limits, Stream};
use std::collections::BTreeMap;

const DELETED: i64 = 1;
/// An entry has the fields of the first one.
const SAME: i64 = 2;
/// A node takes entries until it has so many, or so many bytes.
const NODE_ENTRIES: usize = 100;
const NODE_BYTES: usize = 4096;
/// "Not known", and "never".
const NONE: u64 = u64::MAX;

/// Appends a stream.
pub(super) fn write(out: &mut Vec<u8>, stream: &Stream, compression: Compression) {
    let (mut nodes, mut count, mut node) = (Vec::new(), 0u64, Node::default());
    for entry in stream.range(Id::MIN, Id::MAX) {
        if node.is_full() {
            count += u64::from(std::mem::take(&mut node).finish(&mut nodes, compression));
        }
        node.push(entry);
    }
    count += u64::from(node.finish(&mut nodes, compression));
    length::write(out, count);
    out.append(&mut nodes);
    length::write(out, stream.len() as u64);
    write_id(out, stream.last_id());
    write_id(out, stream.first().map_or(Id::MIN, |entry| entry.id));
    write_id(out, stream.max_deleted_id());
    length::write(out, stream.added());
    length::write(out, stream.group_count() as u64);
    for (name, group) in stream.groups() {
        length::write_string_as(out, name, compression);
        write_group(out, group, compression);
    }
}

/// An id as two numbers.
fn write_id(out: &mut Vec<u8>, id: Id) {
    length::write(out, id.ms);
    length::write(out, id.seq);
}

/// An id as 16 bytes, in whose order ids are.
fn id_bytes(id: Id) -> [u8; 16] {
    (u128::from(id.ms) << 64 | u128::from(id.seq)).to_be_bytes()
}

fn write_group(out: &mut Vec<u8>, group: &Group, compression: Compression) {
    write_id(out, group.last);
    length::write(out, group.read.unwrap_or(NONE));
    length::write(out, group.pending_count() as u64);
    for pending in group.pending_between(Id::MIN, Id::MAX) {
        out.extend_from_slice(&id_bytes(pending.id));
        out.extend_from_slice(&pending.delivered.to_le_bytes());
        length::write(out, pending.count);
    }
    length::write(out, group.consumer_count() as u64);
    for consumer in group.consumers() {
        length::write_string_as(out, &consumer.name, compression);
        out.extend_from_slice(&consumer.seen.to_le_bytes());
        length::write(out, consumer.pending_count() as u64);
        for pending in group.pending_of(&consumer.name, Id::MIN, Id::MAX) {
            out.extend_from_slice(&id_bytes(pending.id));
        }
    }
}

/// A node that is being written: the entries behind its head, which has their number.
#[derive(Default)]
struct Node<'a> {
    first: Option<Entry<'a>>,
    entries: Vec<Entry<'a>>,
    bytes: usize,
}

impl<'a> Node<'a> {
    fn is_full(&self) -> bool {
        self.entries.len() >= NODE_ENTRIES || self.bytes >= NODE_BYTES
    }

    fn push(&mut self, entry: Entry<'a>) {
        self.first.get_or_insert(entry);
        self.bytes += entry.fields.iter().map(|(field, value)| field.len() + value.len() + 4).sum::<usize>();
        self.entries.push(entry);
    }

    /// Appends it; whether there is anything in it.
    fn finish(self, out: &mut Vec<u8>, compression: Compression) -> bool {
        let Some(first) = self.first else { return false };
        let mut packed = Builder::default();
        let integer = |packed: &mut Builder, integer: i64| packed.push(Element::Integer(integer));
        let field_count = first.fields.len();
        integer(&mut packed, self.entries.len() as i64);
        integer(&mut packed, 0);
        integer(&mut packed, field_count as i64);
        first.fields.iter().for_each(|(field, _)| packed.push(Element::Bytes(field)));
        integer(&mut packed, 0);
        for entry in self.entries {
            let names = entry.fields.iter().map(|(field, _)| field);
            let is_same = names.eq(first.fields.iter().map(|(field, _)| field));
            integer(&mut packed, if is_same { SAME } else { 0 });
            integer(&mut packed, entry.id.ms.wrapping_sub(first.id.ms) as i64);
            integer(&mut packed, entry.id.seq.wrapping_sub(first.id.seq) as i64);
            if !is_same {
                integer(&mut packed, entry.fields.len() as i64);
            }
            for (field, value) in entry.fields.iter() {
                if !is_same {
                    packed.push(Element::Bytes(field));
                }
                packed.push(Element::Bytes(value));
            }
            let elements = if is_same { field_count + 3 } else { 2 * entry.fields.len() + 4 };
            integer(&mut packed, elements as i64);
        }
        length::write_string_as(out, &id_bytes(first.id), compression);
        length::write_string_as(out, &packed.finish(), compression);
        true
    }
}

/// Reads a stream of one of the three kinds.
pub(super) fn read(kind: u8, reader: &mut Reader<'_>, limits: &Limits) -> Result<Stream, Damaged> {
    let mut stream = Stream::new();
    for _ in 0..reader.length()? {
        let first: [u8; 16] = (*reader.string()?).try_into().map_err(|_| Damaged)?;
        read_node(&mut stream, id_of(first), &reader.string()?, limits)?;
    }
    let length = reader.length()?;
    let last = read_id(reader)?;
    let (mut max_deleted, mut added) = (Id::MIN, length);
    if kind != kind::STREAM_5 {
        // The first entry's.
        read_id(reader)?;
        (max_deleted, added) = (read_id(reader)?, reader.length()?);
    }
    if length != stream.len() as u64 || last < stream.last_id() || max_deleted > last || added < length {
        return Err(Damaged);
    }
    stream.apply(&Edit::Counters { last, max_deleted, added }, limits);
    for _ in 0..reader.length()? {
        read_group(&mut stream, kind, reader, limits)?;
    }
    Ok(stream)
}

fn id_of(bytes: [u8; 16]) -> Id {
    let number = u128::from_be_bytes(bytes);
    Id::new((number >> 64) as u64, number as u64)
}

fn read_id(reader: &mut Reader<'_>) -> Result<Id, Damaged> {
    Ok(Id::new(reader.length()?, reader.length()?))
}

fn read_node(stream: &mut Stream, first: Id, packed: &[u8], limits: &Limits) -> Result<(), Damaged> {
    let mut elements = listpack::Elements::new(packed)?;
    let mut next = || elements.next().ok_or(Damaged)?;
    let count = |element: Element<'_>| element.integer().and_then(|it| u64::try_from(it).ok()).ok_or(Damaged);
    let (live, deleted) = (count(next()?)?, count(next()?)?);
    let mut masters = Vec::new();
    for _ in 0..count(next()?)? {
        masters.push(next()?.to_vec());
    }
    if next()?.integer() != Some(0) {
        return Err(Damaged);
    }
    let (mut live_seen, mut items) = (0, Vec::new());
    for _ in 0..live.checked_add(deleted).ok_or(Damaged)? {
        items.clear();
        let flags = next()?.integer().filter(|flags| (0..4).contains(flags)).ok_or(Damaged)?;
        let (ms, seq) = (next()?.integer().ok_or(Damaged)?, next()?.integer().ok_or(Damaged)?);
        let id = Id::new(first.ms.wrapping_add(ms as u64), first.seq.wrapping_add(seq as u64));
        let mut taken = 3;
        if flags & SAME != 0 {
            for field in &masters {
                put_bytes(&mut items, field);
                put_bytes(&mut items, &next()?.to_vec());
                taken += 1;
            }
        } else {
            taken += 1;
            for _ in 0..count(next()?)? {
                put_bytes(&mut items, &next()?.to_vec());
                put_bytes(&mut items, &next()?.to_vec());
                taken += 2;
            }
        }
        if next()?.integer() != Some(taken) {
            return Err(Damaged);
        }
        if flags & DELETED == 0 {
            live_seen += 1;
            let fields = Fields::of_items(&items).filter(|fields| !fields.is_empty()).ok_or(Damaged)?;
            if !stream.apply(&Edit::Add { id, fields }, limits) {
                return Err(Damaged);
            }
        }
    }
    if live_seen == live && elements.next().is_none() { Ok(()) } else { Err(Damaged) }
}

fn read_group(stream: &mut Stream, kind: u8, reader: &mut Reader<'_>, limits: &Limits) -> Result<(), Damaged> {
    let name = reader.string()?;
    let last = read_id(reader)?;
    if stream.group(&name).is_some() {
        return Err(Damaged);
    }
    let read = match kind {
        kind::STREAM_5 => stream.count_through(last),
        _ => Some(reader.length()?).filter(|read| *read != NONE),
    };
    stream.apply(&Edit::Group { group: &name, last, read }, limits);
    let mut pending = BTreeMap::new();
    for _ in 0..reader.length()? {
        let id = id_of(reader.array()?);
        if pending.insert(id, (time(reader)?, reader.length()?)).is_some() {
            return Err(Damaged);
        }
    }
    for _ in 0..reader.length()? {
        let consumer = reader.string()?;
        let seen = time(reader)?;
        let active = match kind {
            kind::STREAM_7_2 => Some(u64::from_le_bytes(reader.array()?)).filter(|at| i64::try_from(*at).is_ok()),
            _ => Some(seen),
        };
        if stream.group(&name).is_none_or(|group| group.consumer(&consumer).is_some()) {
            return Err(Damaged);
        }
        stream.apply(&Edit::Consumer { group: &name, consumer: &consumer, seen, active }, limits);
        for _ in 0..reader.length()? {
            let id = id_of(reader.array()?);
            let (delivered, count) = pending.remove(&id).ok_or(Damaged)?;
            stream.apply(&Edit::Pending { group: &name, consumer: &consumer, id, delivered, count }, limits);
        }
    }
    // What is pending is so for somebody.
    if pending.is_empty() { Ok(()) } else { Err(Damaged) }
}

/// Unix milliseconds; what is before 1970 is 0.
fn time(reader: &mut Reader<'_>) -> Result<u64, Damaged> {
    Ok(i64::from_le_bytes(reader.array()?).max(0) as u64)
}
