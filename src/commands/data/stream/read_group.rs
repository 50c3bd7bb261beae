//! XREADGROUP: what nobody in the group has had yet, or again what is pending for a consumer.

use super::super::blocking::{Patience, serve_or_wait};
use super::group::{no_such_group, seen_by};
use super::parsing::strict_id;
use super::read::{Reader, Request, begin_stream, end_streams};
use super::{write_entry, write_id};
use crate::commands::error::CommandError;
use crate::commands::spec::CommandResult;
use crate::engine::Keyspace;
use crate::engine::entry::Kind;
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;
use crate::values::stream::{Edit, Id, Pending, Stream};

/// Who reads, and how.
#[derive(Clone, Copy)]
struct Reading<'a> {
    group: &'a [u8],
    consumer: &'a [u8],
    count: usize,
    /// What is delivered is not pending.
    acknowledges: bool,
}

pub(super) fn xreadgroup(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let request = Request::parse(arguments, Reader::Group, keyspace.now_ms())?;
    let (group, consumer) = request.group.unwrap_or_default();
    let mut from = Vec::with_capacity(request.keys);
    for (key, id) in request.streams() {
        let stream = keyspace.peek_collection::<Stream>(key)?;
        if stream.is_none_or(|stream| stream.group(group).is_none()) {
            let option: &[u8] = b" in XREADGROUP with GROUP option";
            return Err(no_such_group(key, group, option));
        }
        from.push(match id {
            b"$" => {
                return Err(CommandError::text(
                    "ERR The $ ID is meaningless in the context of XREADGROUP: you want to read the history of this \
                     consumer by specifying a proper ID, or use the > ID to get new messages. The $ ID would just \
                     return an empty result set.",
                ));
            }
            b">" => None,
            _ => Some(strict_id(id, 0)?),
        });
    }
    let reading = Reading { group, consumer, count: request.count, acknowledges: request.acknowledges };
    let (begun, mut served) = (reply.begin(), 0);
    for ((key, _), from) in request.streams().zip(&from) {
        served += usize::from(match from {
            None => deliver(keyspace, key, reading, reply)?,
            Some(after) => {
                show_history(keyspace, key, reading, *after, reply)?;
                true
            }
        });
    }
    if served > 0 {
        end_streams(reply, begun, served);
        return Ok(());
    }
    let Some(until_ms) = request.block else {
        reply.null_array();
        return Ok(());
    };
    let keys = request.streams().map(|(key, _)| key);
    let (group, consumer): (Box<[u8]>, Box<[u8]>) = (group.into(), consumer.into());
    let (count, acknowledges) = (request.count, request.acknowledges);
    // A key that goes, or a group, ends the waiting.
    let patience = Patience { kind: None, ..Patience::until(until_ms, Kind::Stream) };
    serve_or_wait(keyspace, keys, patience, reply, move |keyspace, key, reply| {
        let Ok(Some(stream)) = keyspace.peek_collection::<Stream>(key) else {
            return Err(CommandError::text("UNBLOCKED the stream key no longer exists"));
        };
        if stream.group(&group).is_none() {
            return Err(CommandError::text("NOGROUP the consumer group this client was blocked on no longer exists"));
        }
        let begun = reply.begin();
        let reading = Reading { group: &group, consumer: &consumer, count, acknowledges };
        let is_served = deliver(keyspace, key, reading, reply)?;
        if is_served {
            end_streams(reply, begun, 1);
        }
        Ok(is_served)
    })
}

/// Writes and delivers entries that nobody in the group has had. False where there are none.
fn deliver(
    keyspace: &mut Keyspace<'_>,
    key: &[u8],
    reading: Reading<'_>,
    reply: &mut ReplyWriter<'_>,
) -> Result<bool, CommandError> {
    let Reading { group: name, consumer, count, acknowledges } = reading;
    let now_ms = keyspace.now_ms();
    let Some(stream) = keyspace.read_collection::<Stream>(key)? else { return Ok(false) };
    let Some(group) = stream.group(name) else { return Ok(false) };
    let Some(from) = group.last.next().filter(|from| stream.range(*from, Id::MAX).next().is_some()) else {
        return Ok(false);
    };
    let (mut last, mut read, mut delivered) = (group.last, group.read, Vec::new());
    let is_new = group.consumer(consumer).is_none();
    begin_stream(reply, key);
    let begun = reply.begin();
    for entry in stream.range(from, Id::MAX).take(count) {
        write_entry(reply, &entry);
        read = match read {
            Some(read) if !stream.has_gap_from(entry.id) => Some(read + 1),
            _ => stream.count_through(entry.id),
        };
        last = entry.id;
        delivered.push(entry.id);
    }
    reply.end_array(begun, delivered.len());
    let mut edits = vec![Edit::Consumer { group: name, consumer, seen: now_ms, active: Some(now_ms) }];
    if !acknowledges {
        let pending = |id: &Id| Edit::Pending { group: name, consumer, id: *id, delivered: now_ms, count: 1 };
        edits.extend(delivered.iter().map(pending));
    }
    edits.push(Edit::Group { group: name, last, read });
    seen_by(keyspace, key, &edits, delivered.len(), is_new)?;
    Ok(true)
}

/// Writes what is pending for the consumer behind an id, and delivers it again.
fn show_history(
    keyspace: &mut Keyspace<'_>,
    key: &[u8],
    reading: Reading<'_>,
    after: Id,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let Reading { group: name, consumer, count, .. } = reading;
    let now_ms = keyspace.now_ms();
    let Some(stream) = keyspace.read_collection::<Stream>(key)? else { return Ok(()) };
    let Some(group) = stream.group(name) else { return Ok(()) };
    let known = group.consumer(consumer);
    let active = known.and_then(|known| known.active);
    let is_new = known.is_none();
    let mut edits = vec![Edit::Consumer { group: name, consumer, seen: now_ms, active }];
    begin_stream(reply, key);
    let (begun, mut written) = (reply.begin(), 0);
    let pending = after.next().into_iter().flat_map(|from| group.pending_of(consumer, from, Id::MAX));
    for Pending { id, count, .. } in pending.take(count) {
        written += 1;
        match stream.get(id) {
            Some(entry) => {
                write_entry(reply, &entry);
                edits.push(Edit::Pending { group: name, consumer, id, delivered: now_ms, count: count + 1 });
            }
            // It was deleted, or trimmed.
            None => {
                reply.array(2);
                write_id(reply, id);
                reply.null_array();
            }
        }
    }
    reply.end_array(begun, written);
    seen_by(keyspace, key, &edits, 0, is_new)
}
