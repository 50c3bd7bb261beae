//! What a key holds, as commands that make it.

use super::words::write_line;
use crate::base::number::format_double;
use crate::rdb::Content;
use crate::values::element::{Digits, Element};
use crate::values::hash::Hash;
use crate::values::stream::{Id, Stream};
use crate::values::{Limits, Value};
use std::io::{self, Write};

/// Elements in one command: a line stays readable.
const ELEMENTS_MAX: usize = 64;

/// Writes the commands that make the key.
pub(super) fn write_key(out: &mut impl Write, key: &[u8], content: &Content, deadline: Option<u64>) -> io::Result<()> {
    match content {
        Content::String(bytes) => write_line(out, [b"SET", key, bytes])?,
        Content::Collection(value) => write_value(out, key, value)?,
    }
    if let Some(deadline) = deadline {
        write_line(out, [b"PEXPIREAT", key, text(deadline).as_bytes()])?;
    }
    Ok(())
}

/// Writes what a collection holds, in the engine's form of an effect.
pub(super) fn write_image(out: &mut impl Write, key: &[u8], image: &[u8]) -> io::Result<()> {
    match Value::from_image(image, &Limits::default()) {
        Some(value) => write_value(out, key, &value),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "an effect holds something that is no collection")),
    }
}

fn write_value(out: &mut impl Write, key: &[u8], value: &Value) -> io::Result<()> {
    match value {
        Value::List(list) => write_elements(out, b"RPUSH", key, list.iter().map(bytes)),
        Value::Set(set) => write_elements(out, b"SADD", key, set.iter().map(bytes)),
        Value::SortedSet(set) => {
            let pairs = set.iter().flat_map(|(member, score)| [format_double(score).into_bytes(), bytes(member)]);
            write_elements(out, b"ZADD", key, pairs)
        }
        Value::Hash(hash) => write_hash(out, key, hash),
        Value::Stream(stream) => write_stream(out, key, stream),
    }
}

fn bytes(element: Element<'_>) -> Vec<u8> {
    element.bytes(&mut Digits::new()).to_vec()
}

fn text(number: u64) -> String {
    number.to_string()
}

/// One command for some elements, and so on.
fn write_elements(
    out: &mut impl Write,
    command: &[u8],
    key: &[u8],
    elements: impl Iterator<Item = Vec<u8>>,
) -> io::Result<()> {
    let mut elements = elements.peekable();
    while elements.peek().is_some() {
        let some: Vec<Vec<u8>> = elements.by_ref().take(ELEMENTS_MAX).collect();
        write_line(out, [command, key].into_iter().chain(some.iter().map(Vec::as_slice)))?;
    }
    Ok(())
}

fn write_hash(out: &mut impl Write, key: &[u8], hash: &Hash) -> io::Result<()> {
    write_elements(out, b"HSET", key, hash.iter().flat_map(|(field, value)| [bytes(field), bytes(value)]))?;
    for (field, _, deadline) in hash.iter_timed() {
        if let Some(deadline) = deadline {
            write_line(out, [b"HPEXPIREAT", key, text(deadline).as_bytes(), b"FIELDS", b"1", &bytes(field)])?;
        }
    }
    Ok(())
}

/// Pending entries that are not in the stream any more are lost: no command makes them.
fn write_stream(out: &mut impl Write, key: &[u8], stream: &Stream) -> io::Result<()> {
    for entry in stream.range(Id::MIN, Id::MAX) {
        let id = entry.id.to_string();
        let head = [&b"XADD"[..], key, id.as_bytes()];
        write_line(out, head.into_iter().chain(entry.fields.iter().flat_map(|(field, value)| [field, value])))?;
    }
    let last = stream.last_id().to_string();
    if stream.is_empty() {
        // A stream without entries comes into being by one that does not stay.
        let first = stream.last_id().max(Id::new(0, 1)).to_string();
        write_line(out, [b"XADD", key, b"MAXLEN", b"0", first.as_bytes(), b"x", b"y"])?;
    }
    let (added, deleted) = (text(stream.added()), stream.max_deleted_id().to_string());
    let counters = [b"ENTRIESADDED", added.as_bytes(), b"MAXDELETEDID", deleted.as_bytes()];
    write_line(out, [&b"XSETID"[..], key, last.as_bytes()].into_iter().chain(counters))?;
    for (name, group) in stream.groups() {
        let (last, read) = (group.last.to_string(), group.read.map_or_else(|| "-1".to_owned(), text));
        let head = [&b"XGROUP"[..], b"CREATE", key, name, last.as_bytes()];
        write_line(out, head.into_iter().chain([&b"ENTRIESREAD"[..], read.as_bytes()]))?;
        for consumer in group.consumers() {
            write_line(out, [&b"XGROUP"[..], b"CREATECONSUMER", key, name, &consumer.name])?;
        }
        for pending in group.pending_between(Id::MIN, Id::MAX) {
            let (id, time, count) = (pending.id.to_string(), text(pending.delivered), text(pending.count));
            let head = [&b"XCLAIM"[..], key, name, pending.consumer, b"0", id.as_bytes(), b"TIME", time.as_bytes()];
            write_line(out, head.into_iter().chain([&b"RETRYCOUNT"[..], count.as_bytes(), b"JUSTID", b"FORCE"]))?;
        }
    }
    Ok(())
}
