//! XREADGROUP: what nobody in the group has had yet (and, with CLAIM, what others have had for too long), or again what is
//! pending for a consumer.

use super::super::blocking::{Patience, serve_or_wait};
use super::group::{no_such_group, seen_by};
use super::parsing::strict_id;
use super::read::{Reader, Request, begin_stream, end_streams};
use super::{write_entry, write_id, write_parts};
use crate::commands::error::CommandError;
use crate::commands::spec::CommandResult;
use crate::engine::Keyspace;
use crate::engine::entry::Kind;
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;
use crate::values::stream::{Edit, Entry, Group, Id, Pending, Stream};

/// How often, at most, a command looks for itself whether something has become idle.
const LOOK_AGAIN_MS: u64 = 10;

/// Who reads, and how.
#[derive(Clone, Copy)]
struct Reading<'a> {
    group: &'a [u8],
    consumer: &'a [u8],
    count: usize,
    /// What is delivered is not pending.
    acknowledges: bool,
    /// What has been pending for so many milliseconds is taken first.
    claim_ms: Option<u64>,
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
    let Request { count, acknowledges, claim_ms, .. } = request;
    let reading = Reading { group, consumer, count, acknowledges, claim_ms };
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
    let again_ms = claim_ms.and_then(|idle_ms| next_claim(keyspace, keys.clone(), group, idle_ms));
    let (group, consumer): (Box<[u8]>, Box<[u8]>) = (group.into(), consumer.into());
    // A key that goes, or a group, ends the waiting.
    let patience = Patience { kind: None, again_ms, ..Patience::until(until_ms, Kind::Stream) };
    serve_or_wait(keyspace, keys, patience, reply, move |keyspace, key, reply| {
        let Ok(Some(stream)) = keyspace.peek_collection::<Stream>(key) else {
            return Err(CommandError::text("UNBLOCKED the stream key no longer exists"));
        };
        if stream.group(&group).is_none() {
            return Err(CommandError::text("NOGROUP the consumer group this client was blocked on no longer exists"));
        }
        let begun = reply.begin();
        let reading = Reading { group: &group, consumer: &consumer, count, acknowledges, claim_ms };
        let is_served = deliver(keyspace, key, reading, reply)?;
        if is_served {
            end_streams(reply, begun, 1);
        }
        Ok(is_served)
    })
}

/// When something that is pending in the group may have been idle for so long, in Unix milliseconds.
fn next_claim<'a>(
    keyspace: &mut Keyspace<'_>,
    keys: impl Iterator<Item = &'a [u8]>,
    name: &[u8],
    idle_ms: u64,
) -> Option<u64> {
    let now_ms = keyspace.now_ms();
    // What is delivered from now on is not idle before that.
    let mut next = now_ms.checked_add(idle_ms)?;
    for key in keys {
        let Ok(Some(stream)) = keyspace.peek_collection::<Stream>(key) else { continue };
        let after = now_ms.checked_sub(idle_ms);
        let delivered = stream.group(name).and_then(|group| group.next_delivery(after?));
        next = next.min(delivered.map_or(next, |delivered| delivered.saturating_add(idle_ms)));
    }
    Some(next.max(now_ms + LOOK_AGAIN_MS))
}

/// What has been pending for so long, and is still there; what has waited longest in front.
fn idle<'s>(stream: &'s Stream, group: &'s Group, until_ms: u64, count: usize) -> Vec<(Pending<'s>, Entry<'s>)> {
    let pending = group.pending_until(until_ms).filter_map(|pending| Some((pending, stream.get(pending.id)?)));
    pending.take(count).collect()
}

/// Writes an entry; where something may be claimed, with how long it has been idle and how often it was delivered.
fn write_delivered(reply: &mut ReplyWriter<'_>, entry: &Entry<'_>, before: Option<(u64, u64)>) {
    let Some((idle_ms, count)) = before else { return write_entry(reply, entry) };
    reply.array(4);
    write_parts(reply, entry);
    reply.integer(idle_ms as i64);
    reply.integer(count as i64);
}

/// Writes and delivers entries that have been idle for too long, and those that nobody in the group has had. False where
/// there are none.
fn deliver(
    keyspace: &mut Keyspace<'_>,
    key: &[u8],
    reading: Reading<'_>,
    reply: &mut ReplyWriter<'_>,
) -> Result<bool, CommandError> {
    let Reading { group: name, consumer, count, acknowledges, claim_ms } = reading;
    let now_ms = keyspace.now_ms();
    let Some(stream) = keyspace.read_collection::<Stream>(key)? else { return Ok(false) };
    let Some(group) = stream.group(name) else { return Ok(false) };
    let idle_until = claim_ms.and_then(|idle_ms| now_ms.checked_sub(idle_ms));
    let claimed = idle_until.map_or_else(Vec::new, |until_ms| idle(stream, group, until_ms, count));
    let left = count - claimed.len();
    let from = group.last.next().filter(|from| left > 0 && stream.range(*from, Id::MAX).next().is_some());
    if claimed.is_empty() && from.is_none() {
        return Ok(false);
    }
    let (mut last, mut read, mut delivered) = (group.last, group.read, Vec::new());
    let is_new = group.consumer(consumer).is_none();
    let mut edits = vec![Edit::Consumer { group: name, consumer, seen: now_ms, active: Some(now_ms) }];
    begin_stream(reply, key);
    let begun = reply.begin();
    for (Pending { id, delivered, count, .. }, entry) in &claimed {
        write_delivered(reply, entry, Some((now_ms.saturating_sub(*delivered), *count)));
        edits.push(Edit::Pending { group: name, consumer, id: *id, delivered: now_ms, count: count.saturating_add(1) });
    }
    for entry in from.into_iter().flat_map(|from| stream.range(from, Id::MAX)).take(left) {
        write_delivered(reply, &entry, claim_ms.map(|_| (0, 0)));
        read = match read {
            Some(read) if !stream.has_gap_from(entry.id) => Some(read + 1),
            _ => stream.count_through(entry.id),
        };
        last = entry.id;
        delivered.push(entry.id);
    }
    let written = claimed.len() + delivered.len();
    reply.end_array(begun, written);
    if !acknowledges {
        let pending = |id: &Id| Edit::Pending { group: name, consumer, id: *id, delivered: now_ms, count: 1 };
        edits.extend(delivered.iter().map(pending));
    }
    if !delivered.is_empty() {
        edits.push(Edit::Group { group: name, last, read });
    }
    seen_by(keyspace, key, &edits, written, is_new)?;
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
