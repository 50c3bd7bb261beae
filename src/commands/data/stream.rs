//! Streams: adding, reading by id, deleting and trimming. Waiting for entries is in `read`, what groups read in `read_group`.

use crate::commands::error::CommandError;
use crate::commands::parse::{self, is};
use crate::commands::spec::{
    Access, Arity::*, BLOCKING, Begin, CommandResult, CommandSpec, DENYOOM, FAST, Find, KeySpec, LOADING, MOVABLE_KEYS,
    READONLY, STALE, STREAM, WRITE, container, data, keys,
};
use crate::engine::{Keyspace, event};
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;
use crate::values::stream::{Edit, Entry, Fields, Id, Stream};

mod claim;
mod delete;
mod group;
mod info;
mod parsing;
mod read;
mod read_group;

use parsing::{NewId, bound_above, bound_below, strict_id};

/// XREAD: the first half of what follows STREAMS.
const READ_STREAMS: &[KeySpec] = &[streams(1)];
/// XREADGROUP: the same, behind GROUP.
const READ_GROUP_STREAMS: &[KeySpec] = &[streams(4)];
/// The key of a subcommand.
const INSERTED: &[KeySpec] = &[keys::one(2, Access::ReadWrite, "insert")];
const UPDATED: &[KeySpec] = &[keys::one(2, Access::ReadWrite, "update")];
const DELETED: &[KeySpec] = &[keys::one(2, Access::ReadWrite, "delete")];
/// XACKDEL.
const ACKNOWLEDGED: &[KeySpec] = &[keys::one(1, Access::ReadWrite, "update delete")];
const SHOWN: &[KeySpec] = &[keys::one(2, Access::ReadOnly, "access")];

const fn streams(from: i8) -> KeySpec {
    KeySpec {
        access: Access::ReadOnly,
        effects: "access",
        begin: Begin::Keyword("STREAMS", from),
        find: Find::Range { last: -1, step: 1, limit: 2 },
        notes: "",
    }
}

const UNKNOWN_ORDER: &[&str] = &["nondeterministic_output"];

pub const COMMANDS: &[CommandSpec] = &[
    data("xack", AtLeast(4), WRITE | FAST, STREAM, keys::UPDATE, group::xack),
    data("xackdel", AtLeast(6), WRITE | FAST, STREAM, ACKNOWLEDGED, delete::xackdel),
    data("xadd", AtLeast(5), WRITE | DENYOOM | FAST, STREAM, keys::UPDATE, xadd).tips(UNKNOWN_ORDER),
    data("xautoclaim", AtLeast(6), WRITE | FAST, STREAM, keys::DELETE, claim::xautoclaim).tips(UNKNOWN_ORDER),
    data("xclaim", AtLeast(6), WRITE | FAST, STREAM, keys::UPDATE, claim::xclaim).tips(UNKNOWN_ORDER),
    data("xdel", AtLeast(3), WRITE | FAST, STREAM, keys::DELETE, delete::xdel),
    data("xdelex", AtLeast(5), WRITE | FAST, STREAM, keys::DELETE, delete::xdelex),
    container("xgroup", 0, 0, GROUP),
    container("xinfo", 0, 0, INFO),
    data("xlen", Exactly(2), READONLY | FAST, STREAM, keys::LOOK, xlen),
    data("xpending", AtLeast(3), READONLY, STREAM, keys::READ, group::xpending).tips(UNKNOWN_ORDER),
    data("xrange", AtLeast(4), READONLY, STREAM, keys::READ, xrange),
    data("xread", AtLeast(4), READONLY | BLOCKING | MOVABLE_KEYS, STREAM, READ_STREAMS, read::xread),
    data("xreadgroup", AtLeast(7), WRITE | BLOCKING | MOVABLE_KEYS, STREAM, READ_GROUP_STREAMS, read_group::xreadgroup),
    data("xrevrange", AtLeast(4), READONLY, STREAM, keys::READ, xrevrange),
    data("xsetid", AtLeast(3), WRITE | DENYOOM | FAST, STREAM, keys::UPDATE, xsetid),
    data("xtrim", AtLeast(4), WRITE, STREAM, keys::DELETE, delete::xtrim).tips(UNKNOWN_ORDER),
];

const GROUP: &[CommandSpec] = &[
    data("create", AtLeast(5), WRITE | DENYOOM, STREAM, INSERTED, group::create),
    data("createconsumer", Exactly(5), WRITE | DENYOOM, STREAM, INSERTED, group::create_consumer),
    data("delconsumer", Exactly(5), WRITE, STREAM, DELETED, group::delete_consumer),
    data("destroy", Exactly(4), WRITE, STREAM, DELETED, group::destroy),
    data("help", Exactly(2), LOADING | STALE, STREAM, &[], group::group_help),
    data("setid", AtLeast(5), WRITE, STREAM, UPDATED, group::set_id),
];

const INFO: &[CommandSpec] = &[
    data("consumers", Exactly(4), READONLY, STREAM, SHOWN, info::consumers).tips(UNKNOWN_ORDER),
    data("groups", Exactly(3), READONLY, STREAM, SHOWN, info::groups),
    data("help", Exactly(2), LOADING | STALE, STREAM, &[], info::info_help),
    data("stream", AtLeast(3), READONLY, STREAM, SHOWN, info::stream_info),
];

/// Writes an id as a bulk string.
pub fn write_id(reply: &mut ReplyWriter<'_>, id: Id) {
    reply.bulk(id.to_string().as_bytes());
}

/// Writes an entry: its id, and its fields and values.
pub fn write_entry(reply: &mut ReplyWriter<'_>, entry: &Entry<'_>) {
    reply.array(2);
    write_parts(reply, entry);
}

/// Writes what an entry consists of, without the head of an array.
fn write_parts(reply: &mut ReplyWriter<'_>, entry: &Entry<'_>) {
    write_id(reply, entry.id);
    reply.array(2 * entry.fields.len());
    for (field, value) in entry.fields.iter() {
        reply.bulk(field);
        reply.bulk(value);
    }
}

/// Writes entries, no more than `count`.
fn write_entries<'a>(reply: &mut ReplyWriter<'_>, entries: impl Iterator<Item = Entry<'a>>, count: usize) {
    let (begun, mut written) = (reply.begin(), 0);
    for entry in entries.take(count) {
        write_entry(reply, &entry);
        written += 1;
    }
    reply.end_array(begun, written);
}

fn xadd(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let adding = parsing::adding(arguments, &keyspace.limits())?;
    let pairs = arguments.len() - adding.fields_at;
    if pairs < 2 || pairs % 2 == 1 {
        return Err(CommandError::WrongArity("xadd".into()));
    }
    if adding.id == NewId::Given(Id::MIN) {
        return Err(CommandError::text("ERR The ID specified in XADD must be greater than 0-0"));
    }
    let (key, now_ms) = (arguments.at(1), keyspace.now_ms());
    let last = keyspace.peek_collection::<Stream>(key)?.map(Stream::last_id);
    if last.is_none() && !adding.makes_stream {
        reply.null();
        return Ok(());
    }
    let id = adding.id.after(last.unwrap_or_default(), now_ms)?;
    let mut items = Vec::with_capacity(arguments.total_bytes());
    arguments.from(adding.fields_at).for_each(|item| crate::values::stream::put_bytes(&mut items, item));
    let fields = Fields::of_items(&items).ok_or(CommandError::Syntax)?;
    keyspace.stream_edit(key, &[Edit::Add { id, fields }], 1, event::STREAM_ADD)?;
    if let Some(trimming) = adding.trimming {
        delete::trim(keyspace, key, trimming)?;
    }
    write_id(reply, id);
    Ok(())
}

fn xlen(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    reply.count(keyspace.read_collection::<Stream>(arguments.at(1))?.map_or(0, Stream::len));
    Ok(())
}

fn xrange(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    range(keyspace, arguments, false, reply)
}

fn xrevrange(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    range(keyspace, arguments, true, reply)
}

fn range(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    is_back: bool,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let (low, high) = if is_back { (3, 2) } else { (2, 3) };
    let (low, high) = (bound_below(arguments.at(low))?, bound_above(arguments.at(high))?);
    let mut count = usize::MAX;
    let mut index = 4;
    while index < arguments.len() {
        if !is(arguments.at(index), "count") || index + 1 == arguments.len() {
            return Err(CommandError::Syntax);
        }
        count = usize::try_from(parse::integer(arguments.at(index + 1))?).unwrap_or(0);
        index += 2;
    }
    let stream = keyspace.read_collection::<Stream>(arguments.at(1))?;
    match stream {
        None => reply.array(0),
        Some(_) if count == 0 => reply.null_array(),
        Some(stream) if is_back => write_entries(reply, stream.range_back(low, high), count),
        Some(stream) => write_entries(reply, stream.range(low, high), count),
    }
    Ok(())
}

fn xsetid(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let id = strict_id(arguments.at(2), 0)?;
    let (mut added, mut max_deleted) = (None, Id::MIN);
    let mut index = 3;
    while index < arguments.len() {
        let (option, value) = (arguments.at(index), arguments.get(index + 1).ok_or(CommandError::Syntax)?);
        if is(option, "entriesadded") {
            let count = u64::try_from(parse::integer(value)?);
            added = Some(count.map_err(|_| CommandError::text("ERR entries_added must be positive"))?);
        } else if is(option, "maxdeletedid") {
            max_deleted = strict_id(value, 0)?;
            if id < max_deleted {
                return Err(CommandError::text(
                    "ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id",
                ));
            }
        } else {
            return Err(CommandError::Syntax);
        }
        index += 2;
    }
    let key = arguments.at(1);
    let stream = keyspace.peek_collection::<Stream>(key)?.ok_or(CommandError::NoSuchKey)?;
    if stream.last().is_some_and(|top| id < top.id) {
        return Err(CommandError::text("ERR The ID specified in XSETID is smaller than the target stream top item"));
    }
    if !stream.is_empty() && added.is_some_and(|added| added < stream.len() as u64) {
        return Err(CommandError::text(
            "ERR The entries_added specified in XSETID is smaller than the target stream length",
        ));
    }
    if id < stream.max_deleted_id() {
        return Err(CommandError::text("ERR The ID specified in XSETID is smaller than current max_deleted_entry_id"));
    }
    let max_deleted = if max_deleted == Id::MIN { stream.max_deleted_id() } else { max_deleted };
    let counters = Edit::Counters { last: id, max_deleted, added: added.unwrap_or(stream.added()) };
    keyspace.stream_edit(key, &[counters], 1, event::STREAM_SET_ID)?;
    reply.ok();
    Ok(())
}
