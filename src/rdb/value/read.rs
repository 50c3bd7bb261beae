//! Values from bytes, in every form that Redis and Valkey write or have written.

use super::stream;
use crate::base::number::parse_double;
use crate::rdb::{Content, Damaged, Reader, kind, listpack, ziplist, zipmap};
use crate::values::hash::Stored;
use crate::values::list::End;
use crate::values::sorted_set::Placed;
use crate::values::{Digits, Element, Hash, Limits, List, Set, SortedSet, Value};

/// What stands in front of a node of a list: it is one element, or a listpack.
const PLAIN_NODE: u64 = 1;
const PACKED_NODE: u64 = 2;
/// The latest deadline of a field, in Unix milliseconds: Redis keeps them in 48 bits.
const FIELD_DEADLINE_MAX: u64 = (1 << 48) - 2;
/// "No deadline", where every field has one.
pub(super) const VALKEY_NONE: u64 = u64::MAX;

/// What a reader has to know beside the bytes.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'a> {
    /// Choose the encoding of a collection.
    pub limits: &'a Limits,
    /// Unix milliseconds: fields of hashes whose deadline has passed are left out.
    pub now_ms: u64,
    /// Valkey 9 or later has written it.
    pub by_valkey: bool,
}

/// Reads the value that stands behind its kind.
///
/// # Errors
/// Where it is damaged, holds nothing, has a member twice, or is of a kind that is not known.
pub fn read(kind: u8, reader: &mut Reader<'_>, reading: &Reading<'_>) -> Result<Content, Damaged> {
    read_present(kind, reader, reading)?.ok_or(Damaged)
}

/// The same; `None` where it holds nothing, or nothing that has not expired.
///
/// # Errors
/// Where it is damaged, has a member twice, or is of a kind that is not known.
pub fn read_present(kind: u8, reader: &mut Reader<'_>, reading: &Reading<'_>) -> Result<Option<Content>, Damaged> {
    let collection = match kind {
        kind::STRING => return Ok(Some(Content::String(reader.string()?.into_owned()))),
        kind::LIST | kind::LIST_ZIPLIST | kind::LIST_QUICKLIST | kind::LIST_QUICKLIST_2 => {
            Value::List(read_list(kind, reader, reading)?)
        }
        kind::SET | kind::SET_INTSET | kind::SET_LISTPACK => Value::Set(read_set(kind, reader, reading)?),
        kind::SORTED_SET_TEXT | kind::SORTED_SET | kind::SORTED_SET_ZIPLIST | kind::SORTED_SET_LISTPACK => {
            Value::SortedSet(read_sorted_set(kind, reader, reading)?)
        }
        kind::STREAM_5 | kind::STREAM | kind::STREAM_7_2 => {
            Value::Stream(Box::new(stream::read(kind, reader, reading.limits)?))
        }
        _ => Value::Hash(read_hash(kind, reader, reading)?),
    };
    Ok((!collection.is_empty()).then_some(Content::Collection(collection)))
}

fn read_list(kind: u8, reader: &mut Reader<'_>, reading: &Reading<'_>) -> Result<List, Damaged> {
    let mut list = List::new();
    if kind == kind::LIST_ZIPLIST {
        push_all(&mut list, ziplist::Elements::new(&reader.string()?)?, reading.limits)?;
        return Ok(list);
    }
    for _ in 0..reader.length()? {
        let node = if kind == kind::LIST_QUICKLIST_2 { reader.length()? } else { PLAIN_NODE };
        let string = reader.string()?;
        match node {
            _ if kind == kind::LIST_QUICKLIST => {
                push_all(&mut list, ziplist::Elements::new(&string)?, reading.limits)?;
            }
            // An empty element has never had a node of its own.
            PLAIN_NODE if kind == kind::LIST_QUICKLIST_2 && string.is_empty() => return Err(Damaged),
            PLAIN_NODE => list.push(End::Tail, &string, reading.limits),
            PACKED_NODE => push_all(&mut list, listpack::Elements::new(&string)?, reading.limits)?,
            _ => return Err(Damaged),
        }
    }
    Ok(list)
}

fn push_all<'a>(
    list: &mut List,
    elements: impl Iterator<Item = Result<Element<'a>, Damaged>>,
    limits: &Limits,
) -> Result<(), Damaged> {
    for element in elements {
        list.push(End::Tail, element?.bytes(&mut Digits::new()), limits);
    }
    Ok(())
}

fn read_set(kind: u8, reader: &mut Reader<'_>, reading: &Reading<'_>) -> Result<Set, Damaged> {
    let mut set = Set::new();
    let mut add = |member: Element<'_>| match set.add_element(member, reading.limits) {
        true => Ok(()),
        false => Err(Damaged),
    };
    match kind {
        kind::SET_INTSET => read_integers(&reader.string()?, |integer| add(Element::Integer(integer)))?,
        kind::SET_LISTPACK => {
            for member in listpack::Elements::new(&reader.string()?)? {
                add(member?)?;
            }
        }
        _ => {
            for _ in 0..reader.length()? {
                add(Element::Bytes(&reader.string()?))?;
            }
        }
    }
    Ok(set)
}

/// Shows the integers of an intset, which ascend.
fn read_integers(bytes: &[u8], mut visit: impl FnMut(i64) -> Result<(), Damaged>) -> Result<(), Damaged> {
    let mut reader = Reader::new(bytes);
    let width = u32::from_le_bytes(reader.array()?);
    let count = u32::from_le_bytes(reader.array()?);
    let mut before = None;
    for _ in 0..count {
        let integer = match width {
            2 => i16::from_le_bytes(reader.array()?).into(),
            4 => i32::from_le_bytes(reader.array()?).into(),
            8 => i64::from_le_bytes(reader.array()?),
            _ => return Err(Damaged),
        };
        if before.is_some_and(|before| before >= integer) {
            return Err(Damaged);
        }
        before = Some(integer);
        visit(integer)?;
    }
    if reader.is_empty() { Ok(()) } else { Err(Damaged) }
}

fn read_sorted_set(kind: u8, reader: &mut Reader<'_>, reading: &Reading<'_>) -> Result<SortedSet, Damaged> {
    let mut sorted_set = SortedSet::new();
    let mut put = |member: Element<'_>, score: f64| match sorted_set.insert(
        member.bytes(&mut Digits::new()),
        score,
        reading.limits,
    ) {
        Placed::Added => Ok(()),
        _ => Err(Damaged),
    };
    match kind {
        kind::SORTED_SET_ZIPLIST => {
            pairs(ziplist::Elements::new(&reader.string()?)?, |member, score| put(member, number(score)?))?;
        }
        kind::SORTED_SET_LISTPACK => {
            pairs(listpack::Elements::new(&reader.string()?)?, |member, score| put(member, number(score)?))?;
        }
        _ => {
            for _ in 0..reader.length()? {
                let member = reader.string()?;
                let score = if kind == kind::SORTED_SET { reader.double()? } else { reader.double_text()? };
                put(Element::Bytes(&member), score)?;
            }
        }
    }
    Ok(sorted_set)
}

fn number(element: Element<'_>) -> Result<f64, Damaged> {
    match element {
        Element::Integer(integer) => Ok(integer as f64),
        Element::Bytes(text) => parse_double(text).ok_or(Damaged),
    }
}

fn pairs<'a>(
    mut elements: impl Iterator<Item = Result<Element<'a>, Damaged>>,
    mut visit: impl FnMut(Element<'a>, Element<'a>) -> Result<(), Damaged>,
) -> Result<(), Damaged> {
    while let Some(first) = elements.next() {
        visit(first?, elements.next().ok_or(Damaged)??)?;
    }
    Ok(())
}

fn read_hash(kind: u8, reader: &mut Reader<'_>, reading: &Reading<'_>) -> Result<Hash, Damaged> {
    let mut hash = Hash::new();
    // What has passed its deadline is left out.
    let mut put = |field: Element<'_>, value: Element<'_>, deadline: Option<u64>| {
        if deadline.is_some_and(|deadline| deadline > FIELD_DEADLINE_MAX) {
            return Err(Damaged);
        }
        if deadline.is_some_and(|deadline| deadline <= reading.now_ms) {
            return Ok(());
        }
        let (field_digits, value_digits) = (&mut Digits::new(), &mut Digits::new());
        let field = field.bytes(field_digits);
        match hash.set(field, value.bytes(value_digits), reading.limits) {
            Stored::Added if deadline.is_none() || hash.set_deadline(field, deadline) => Ok(()),
            _ => Err(Damaged),
        }
    };
    match kind {
        kind::HASH => {
            for _ in 0..reader.length()? {
                put(Element::Bytes(&reader.string()?), Element::Bytes(&reader.string()?), None)?;
            }
        }
        kind::HASH_ZIPMAP => {
            zipmap::read(&reader.string()?, |field, value| put(Element::Bytes(field), Element::Bytes(value), None))?
        }
        kind::HASH_ZIPLIST => {
            pairs(ziplist::Elements::new(&reader.string()?)?, |field, value| put(field, value, None))?;
        }
        kind::HASH_LISTPACK => {
            pairs(listpack::Elements::new(&reader.string()?)?, |field, value| put(field, value, None))?;
        }
        kind::HASH_DEADLINES if reading.by_valkey => {
            for _ in 0..reader.length()? {
                let (field, value) = (reader.string()?, reader.string()?);
                let deadline = Some(u64::from_le_bytes(reader.array()?)).filter(|at| *at != VALKEY_NONE);
                put(Element::Bytes(&field), Element::Bytes(&value), deadline)?;
            }
        }
        kind::HASH_DEADLINES | kind::HASH_DEADLINES_FROM => {
            // Deadlines count from the earliest one, which is 1; 0 is none.
            let from = if kind == kind::HASH_DEADLINES { 1 } else { u64::from_le_bytes(reader.array()?) };
            for _ in 0..reader.length()? {
                let deadline = match reader.length()? {
                    0 => None,
                    behind => Some(from.saturating_add(behind - 1)),
                };
                put(Element::Bytes(&reader.string()?), Element::Bytes(&reader.string()?), deadline)?;
            }
        }
        kind::HASH_LISTPACK_DEADLINES_EARLY | kind::HASH_LISTPACK_DEADLINES => {
            if kind == kind::HASH_LISTPACK_DEADLINES {
                // The earliest deadline.
                reader.take(8)?;
            }
            let packed = reader.string()?;
            let mut elements = listpack::Elements::new(&packed)?;
            while let Some(field) = elements.next() {
                let (value, deadline) = (elements.next().ok_or(Damaged)??, elements.next().ok_or(Damaged)??);
                let deadline = deadline.integer().and_then(|at| u64::try_from(at).ok()).ok_or(Damaged)?;
                put(field?, value, Some(deadline).filter(|at| *at != 0))?;
            }
        }
        _ => return Err(Damaged),
    }
    Ok(hash)
}
