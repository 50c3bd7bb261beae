//! XINFO: what a stream is made of.

use super::group::{no_group_in, wrong_arguments};
use super::{write_entries, write_entry, write_id};
use crate::commands::error::CommandError;
use crate::commands::help;
use crate::commands::parse::{self, is};
use crate::commands::spec::CommandResult;
use crate::engine::Keyspace;
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;
use crate::values::stream::{Consumer, Group, Id, Pending, Stream};

/// Entries, and pending ones of each group and consumer, that XINFO STREAM FULL shows if nobody says.
const SHOWN: usize = 10;

/// The stream that must be there.
fn stream<'k>(keyspace: &'k mut Keyspace<'_>, key: &[u8]) -> Result<&'k Stream, CommandError> {
    keyspace.read_collection::<Stream>(key)?.ok_or(CommandError::NoSuchKey)
}

pub(super) fn consumers(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let (key, name, now_ms) = (arguments.at(2), arguments.at(3), keyspace.now_ms());
    let group = stream(keyspace, key)?.group(name).ok_or_else(|| no_group_in(key, name))?;
    reply.array(group.consumer_count());
    for consumer in group.consumers() {
        reply.map(4);
        reply.bulk(b"name");
        reply.bulk(&consumer.name);
        reply.bulk(b"pending");
        reply.count(consumer.pending_count());
        reply.bulk(b"idle");
        reply.integer(now_ms.saturating_sub(consumer.seen) as i64);
        reply.bulk(b"inactive");
        reply.integer(consumer.active.map_or(-1, |active| now_ms.saturating_sub(active) as i64));
    }
    Ok(())
}

pub(super) fn groups(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let stream = stream(keyspace, arguments.at(2))?;
    reply.array(stream.group_count());
    for (name, group) in stream.groups() {
        reply.map(6);
        reply.bulk(b"name");
        reply.bulk(name);
        reply.bulk(b"consumers");
        reply.count(group.consumer_count());
        reply.bulk(b"pending");
        reply.count(group.pending_count());
        write_progress(reply, stream, group);
    }
    Ok(())
}

/// What a group has read, and how much it has not.
fn write_progress(reply: &mut ReplyWriter<'_>, stream: &Stream, group: &Group) {
    let write = |reply: &mut ReplyWriter<'_>, number: Option<i64>| match number {
        Some(number) => reply.integer(number),
        None => reply.null(),
    };
    reply.bulk(b"last-delivered-id");
    write_id(reply, group.last);
    reply.bulk(b"entries-read");
    write(reply, group.read.map(|read| read as i64));
    reply.bulk(b"lag");
    let read = match group.read {
        _ if stream.added() == 0 => Some(0),
        Some(read) if !stream.has_gap_from(group.last) => Some(read),
        _ => stream.count_through(group.last),
    };
    write(reply, read.map(|read| (stream.added() as i64).wrapping_sub(read as i64)));
}

/// Whether FULL was asked for, and how much of it; 0 is all.
fn full(arguments: Arguments<'_>) -> Result<Option<usize>, CommandError> {
    match arguments.len() {
        3 => Ok(None),
        4 | 6 if is(arguments.at(3), "full") => {
            let Some(count) = arguments.get(5) else { return Ok(Some(SHOWN)) };
            if !is(arguments.at(4), "count") {
                return Err(wrong_arguments("XINFO", arguments));
            }
            let count = parse::integer(count)?;
            Ok(Some(usize::try_from(count).unwrap_or(SHOWN)))
        }
        _ => Err(wrong_arguments("XINFO", arguments)),
    }
}

pub(super) fn stream_info(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let stream = stream(keyspace, arguments.at(2))?;
    let full = full(arguments)?;
    reply.map(if full.is_some() { 9 } else { 10 });
    for (name, number) in [
        ("length", stream.len() as u64),
        ("radix-tree-keys", stream.node_count() as u64),
        ("radix-tree-nodes", 1 + stream.node_count() as u64),
    ] {
        reply.bulk(name.as_bytes());
        reply.integer(number as i64);
    }
    reply.bulk(b"last-generated-id");
    write_id(reply, stream.last_id());
    reply.bulk(b"max-deleted-entry-id");
    write_id(reply, stream.max_deleted_id());
    reply.bulk(b"entries-added");
    reply.integer(stream.added() as i64);
    reply.bulk(b"recorded-first-entry-id");
    write_id(reply, stream.first().map_or(Id::MIN, |entry| entry.id));
    match full {
        None => write_ends(reply, stream),
        Some(count) => write_full(reply, stream, if count == 0 { usize::MAX } else { count }),
    }
    Ok(())
}

fn write_ends(reply: &mut ReplyWriter<'_>, stream: &Stream) {
    reply.bulk(b"groups");
    reply.count(stream.group_count());
    for (name, entry) in [("first-entry", stream.first()), ("last-entry", stream.last())] {
        reply.bulk(name.as_bytes());
        match entry {
            Some(entry) => write_entry(reply, &entry),
            None => reply.null(),
        }
    }
}

fn write_full(reply: &mut ReplyWriter<'_>, stream: &Stream, count: usize) {
    reply.bulk(b"entries");
    write_entries(reply, stream.range(Id::MIN, Id::MAX), count);
    reply.bulk(b"groups");
    reply.array(stream.group_count());
    for (name, group) in stream.groups() {
        reply.map(7);
        reply.bulk(b"name");
        reply.bulk(name);
        write_progress(reply, stream, group);
        reply.bulk(b"pel-count");
        reply.count(group.pending_count());
        reply.bulk(b"pending");
        reply.array(group.pending_count().min(count));
        for Pending { id, consumer, delivered, count } in group.pending_between(Id::MIN, Id::MAX).take(count) {
            reply.array(4);
            write_id(reply, id);
            reply.bulk(consumer);
            reply.integer(delivered as i64);
            reply.integer(count as i64);
        }
        reply.bulk(b"consumers");
        reply.array(group.consumer_count());
        group.consumers().for_each(|consumer| write_consumer(reply, group, consumer, count));
    }
}

fn write_consumer(reply: &mut ReplyWriter<'_>, group: &Group, consumer: &Consumer, count: usize) {
    reply.map(5);
    reply.bulk(b"name");
    reply.bulk(&consumer.name);
    reply.bulk(b"seen-time");
    reply.integer(consumer.seen as i64);
    reply.bulk(b"active-time");
    reply.integer(consumer.active.map_or(-1, |active| active as i64));
    reply.bulk(b"pel-count");
    reply.count(consumer.pending_count());
    reply.bulk(b"pending");
    reply.array(consumer.pending_count().min(count));
    for Pending { id, delivered, count, .. } in group.pending_of(&consumer.name, Id::MIN, Id::MAX).take(count) {
        reply.array(3);
        write_id(reply, id);
        reply.integer(delivered as i64);
        reply.integer(count as i64);
    }
}

pub(super) fn info_help(_: &mut Keyspace<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let lines = [
        "CONSUMERS <key> <group>",
        "    Show the consumers of a group.",
        "GROUPS <key>",
        "    Show the groups of a stream.",
        "STREAM <key> [FULL [COUNT <count>]]",
        "    Show a stream, or all that is in it.",
    ];
    help::write(reply, "XINFO", &lines);
    Ok(())
}
