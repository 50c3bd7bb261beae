//! Keys of any kind.

use crate::commands::error::CommandError;
use crate::commands::parse::{self, is};
use crate::commands::spec::{
    Access, Arity::*, CommandResult, CommandSpec, DENYOOM, FAST, KEYSPACE, KeySpec, READONLY, SPREAD, WRITE, container,
    data, keys,
};
use crate::engine::Keyspace;
use crate::engine::entry::{Entry, Kind};
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;

const EVERY_DELETED: &[KeySpec] = &[keys::all(Access::Remove, "delete")];
const EVERY_LOOKED_AT: &[KeySpec] = &[keys::all(Access::ReadOnly, "")];
const RENAMED: &[KeySpec] =
    &[keys::one(1, Access::ReadWrite, "access delete"), keys::one(2, Access::Overwrite, "update")];
const RENAMED_IF_FREE: &[KeySpec] =
    &[keys::one(1, Access::ReadWrite, "access delete"), keys::one(2, Access::Overwrite, "insert")];
const COPIED: &[KeySpec] = &[keys::one(1, Access::ReadOnly, "access"), keys::one(2, Access::Overwrite, "update")];
const MOVED: &[KeySpec] = &[keys::one(1, Access::ReadWrite, "access update")];
const SECOND_LOOKED_AT: &[KeySpec] = &[keys::one(2, Access::ReadOnly, "")];
const SUM: &[&str] = &["request_policy:multi_shard", "response_policy:agg_sum"];
const RANDOM: &[&str] = &["nondeterministic_output"];

pub const COMMANDS: &[CommandSpec] = &[
    data("copy", AtLeast(3), WRITE | DENYOOM, KEYSPACE, COPIED, copy),
    data("del", AtLeast(2), WRITE | SPREAD, KEYSPACE, EVERY_DELETED, del).tips(SUM),
    data("exists", AtLeast(2), READONLY | FAST | SPREAD, KEYSPACE, EVERY_LOOKED_AT, exists).tips(SUM),
    data("move", Exactly(3), WRITE | FAST, KEYSPACE, MOVED, r#move),
    container("object", 0, 0, OBJECT),
    data("rename", Exactly(3), WRITE, KEYSPACE, RENAMED, rename),
    data("renamenx", Exactly(3), WRITE | FAST, KEYSPACE, RENAMED_IF_FREE, renamenx),
    data("touch", AtLeast(2), READONLY | FAST | SPREAD, KEYSPACE, EVERY_LOOKED_AT, touch).tips(SUM),
    data("type", Exactly(2), READONLY | FAST, KEYSPACE, keys::LOOK, r#type),
    data("unlink", AtLeast(2), WRITE | FAST | SPREAD, KEYSPACE, EVERY_DELETED, del).tips(SUM),
];

const OBJECT: &[CommandSpec] = &[
    data("encoding", Exactly(3), READONLY, KEYSPACE, SECOND_LOOKED_AT, object_encoding).tips(RANDOM),
    data("freq", Exactly(3), READONLY, KEYSPACE, SECOND_LOOKED_AT, object_freq).tips(RANDOM),
    data("help", Exactly(2), crate::commands::spec::LOADING | crate::commands::spec::STALE, KEYSPACE, &[], object_help),
    data("idletime", Exactly(3), READONLY, KEYSPACE, SECOND_LOOKED_AT, object_idletime).tips(RANDOM),
    data("refcount", Exactly(3), READONLY, KEYSPACE, SECOND_LOOKED_AT, object_refcount).tips(RANDOM),
];

fn del(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let deleted = arguments.from(1).filter(|key| keyspace.delete(key)).count();
    reply.count(deleted);
    Ok(())
}

fn exists(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let count = arguments.from(1).filter(|key| keyspace.look(key).is_some()).count();
    reply.count(count);
    Ok(())
}

fn touch(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    // It is there to touch, whatever CLIENT NO-TOUCH says.
    keyspace.keep_access(false);
    let count = arguments.from(1).filter(|key| keyspace.read(key).is_some()).count();
    reply.count(count);
    Ok(())
}

/// What TYPE calls a kind of value.
pub fn type_name(kind: Kind) -> &'static str {
    match kind {
        Kind::String => "string",
        Kind::List => "list",
        Kind::Set => "set",
        Kind::SortedSet => "zset",
        Kind::Hash => "hash",
        Kind::Stream => "stream",
    }
}

fn r#type(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    reply.simple(keyspace.look(arguments.at(1)).map_or("none", |entry| type_name(entry.kind())));
    Ok(())
}

fn rename(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let (from, to) = (arguments.at(1), arguments.at(2));
    if !keyspace.exists(from) {
        return Err(CommandError::NoSuchKey);
    }
    if from != to {
        keyspace.rename(from, to);
    }
    reply.ok();
    Ok(())
}

fn renamenx(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let (from, to) = (arguments.at(1), arguments.at(2));
    if !keyspace.exists(from) {
        return Err(CommandError::NoSuchKey);
    }
    let free = !keyspace.exists(to);
    if free {
        keyspace.rename(from, to);
    }
    reply.integer(i64::from(free));
    Ok(())
}

fn r#move(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let (key, here) = (arguments.at(1), keyspace.database());
    let there = parse::database(arguments.at(2), keyspace.database_count())?;
    if here == there {
        return Err(CommandError::text("ERR source and destination objects are the same"));
    }
    keyspace.select(there);
    let taken = keyspace.exists(key);
    keyspace.select(here);
    let moved = !taken && keyspace.move_to(key, there);
    reply.integer(i64::from(moved));
    Ok(())
}

fn copy(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let (from, to, here) = (arguments.at(1), arguments.at(2), keyspace.database());
    let (mut there, mut replace) = (here, false);
    let mut rest = arguments.from(3);
    while let Some(word) = rest.next() {
        if is(word, "replace") {
            replace = true;
        } else if is(word, "db") {
            let database = rest.next().ok_or(CommandError::Syntax)?;
            there = parse::database(database, keyspace.database_count())?;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    if from == to && here == there {
        return Err(CommandError::text("ERR source and destination objects are the same"));
    }
    let is_there = keyspace.read(from).is_some();
    keyspace.select(there);
    let is_free = is_there && (replace || !keyspace.exists(to));
    keyspace.select(here);
    let done = is_free && keyspace.copy(from, to, there);
    reply.integer(i64::from(done));
    Ok(())
}

/// Answers with something about an entry; a missing key is null.
fn about(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
    show: impl FnOnce(&Entry, &mut ReplyWriter<'_>),
) -> CommandResult {
    match keyspace.peek(arguments.at(2)) {
        Some(entry) => show(entry, reply),
        None => reply.null(),
    }
    Ok(())
}

fn object_encoding(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    about(keyspace, arguments, reply, |entry, reply| reply.bulk(entry.encoding().as_bytes()))
}

fn object_refcount(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    // Values are never shared here.
    about(keyspace, arguments, reply, |_, reply| reply.integer(1))
}

fn object_idletime(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let Some(access) = keyspace.peek(arguments.at(2)).map(Entry::access) else {
        reply.null();
        return Ok(());
    };
    let idle = keyspace.idle_seconds(access).ok_or(CommandError::text(
        "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching between \
         policies at runtime LRU and LFU data will take some time to adjust.",
    ))?;
    reply.integer(i64::from(idle));
    Ok(())
}

fn object_freq(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let Some(access) = keyspace.peek(arguments.at(2)).map(Entry::access) else {
        reply.null();
        return Ok(());
    };
    let frequency = keyspace.frequency(access).ok_or(CommandError::text(
        "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching \
         between policies at runtime LRU and LFU data will take some time to adjust.",
    ))?;
    reply.integer(i64::from(frequency));
    Ok(())
}

fn object_help(_: &mut Keyspace<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    crate::commands::help::write(
        reply,
        "OBJECT",
        &[
            "ENCODING <key>",
            "    Return the kind of internal representation used in order to store the value",
            "    associated with a <key>.",
            "FREQ <key>",
            "    Return the access frequency index of the <key>. The returned integer is",
            "    proportional to the logarithm of the recent access frequency of the key.",
            "IDLETIME <key>",
            "    Return the idle time of the <key>, that is the approximated number of",
            "    seconds elapsed since the last access to the key.",
            "REFCOUNT <key>",
            "    Return the number of references of the value associated with the specified",
            "    <key>.",
        ],
    );
    Ok(())
}
