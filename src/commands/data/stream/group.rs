//! Consumer groups: XGROUP, XACK and XPENDING.

use super::parsing::{self, bound_above, bound_below, strict_id};
use super::write_id;
use crate::commands::error::CommandError;
use crate::commands::help;
use crate::commands::parse::{self, is};
use crate::commands::spec::CommandResult;
use crate::engine::{Keyspace, event};
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;
use crate::values::stream::{Consumer, Edit, Group, Id, Pending, Stream};

const NO_KEY: CommandError = CommandError::text(
    "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM option \
     to create an empty stream automatically.",
);

/// What Redis shows of a name in these errors: as much as C takes for its text.
pub(super) fn c_text(name: &[u8]) -> &[u8] {
    name.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// The error where a key or a group is missing; `where_to` ends the sentence.
pub(super) fn no_such_group(key: &[u8], group: &[u8], where_to: &[u8]) -> CommandError {
    let (key, group) = (c_text(key), c_text(group));
    CommandError::Bytes([b"NOGROUP No such key '", key, b"' or consumer group '", group, b"'", where_to].concat())
}

/// The error of commands for which a key that is there must have the group.
pub(super) fn no_group_in(key: &[u8], group: &[u8]) -> CommandError {
    let (key, group) = (c_text(key), c_text(group));
    CommandError::Bytes([b"NOGROUP No such consumer group '", group, b"' for key name '", key, b"'"].concat())
}

/// Notes what was given to a consumer, which is told as an event where the consumer is new.
pub(super) fn seen_by(
    keyspace: &mut Keyspace<'_>,
    key: &[u8],
    edits: &[Edit<'_>],
    count: usize,
    is_new: bool,
) -> CommandResult {
    keyspace.stream_note(key, edits, count + usize::from(is_new))?;
    if is_new {
        keyspace.happened(key, event::CONSUMER_CREATE);
    }
    Ok(())
}

/// The options behind the id of XGROUP CREATE and SETID.
struct Options {
    makes_stream: bool,
    read: Option<u64>,
}

fn options(arguments: Arguments<'_>, name: &str) -> Result<Options, CommandError> {
    let (mut options, mut index) = (Options { makes_stream: false, read: None }, 5);
    while index < arguments.len() {
        let word = arguments.at(index);
        if name == "create" && is(word, "mkstream") {
            options.makes_stream = true;
            index += 1;
        } else if is(word, "entriesread") && index + 1 < arguments.len() {
            let read = parse::integer(arguments.at(index + 1))?;
            if read < -1 {
                return Err(CommandError::text("ERR value for ENTRIESREAD must be positive or -1"));
            }
            options.read = u64::try_from(read).ok();
            index += 2;
        } else {
            return Err(wrong_arguments("XGROUP", arguments));
        }
    }
    Ok(options)
}

/// The error for a subcommand with arguments that it does not take.
pub(super) fn wrong_arguments(container: &str, arguments: Arguments<'_>) -> CommandError {
    let name = arguments.at(1);
    let name = c_text(&name[..name.len().min(128)]);
    let front = b"ERR unknown subcommand or wrong number of arguments for '".as_slice();
    CommandError::Bytes([front, name, b"'. Try ", container.as_bytes(), b" HELP."].concat())
}

pub(super) fn create(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let options = options(arguments, "create")?;
    let (key, group) = (arguments.at(2), arguments.at(3));
    let stream = keyspace.peek_collection::<Stream>(key)?;
    if stream.is_none() && !options.makes_stream {
        return Err(NO_KEY);
    }
    let last = match arguments.at(4) {
        b"$" => stream.map_or(Id::MIN, Stream::last_id),
        id => strict_id(id, 0)?,
    };
    if stream.is_some_and(|stream| stream.group(group).is_some()) {
        return Err(CommandError::text("BUSYGROUP Consumer Group name already exists"));
    }
    keyspace.stream_edit(key, &[Edit::Group { group, last, read: options.read }], 1, event::GROUP_CREATE)?;
    reply.ok();
    Ok(())
}

/// The group of a subcommand that must be there, and its stream.
fn known<'k>(
    keyspace: &'k mut Keyspace<'_>,
    arguments: Arguments<'_>,
) -> Result<(&'k Stream, &'k Group), CommandError> {
    let (key, name) = (arguments.at(2), arguments.at(3));
    let stream = keyspace.peek_collection::<Stream>(key)?.ok_or(NO_KEY)?;
    let group = stream.group(name).ok_or_else(|| no_group_in(key, name))?;
    Ok((stream, group))
}

pub(super) fn set_id(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let options = options(arguments, "setid")?;
    let (stream, _) = known(keyspace, arguments)?;
    let last = match arguments.at(4) {
        b"$" => stream.last_id(),
        id => parsing::id(id, 0)?,
    };
    let edit = Edit::Group { group: arguments.at(3), last, read: options.read };
    keyspace.stream_edit(arguments.at(2), &[edit], 1, event::GROUP_SET_ID)?;
    reply.ok();
    Ok(())
}

pub(super) fn destroy(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let (key, group) = (arguments.at(2), arguments.at(3));
    let stream = keyspace.peek_collection::<Stream>(key)?.ok_or(NO_KEY)?;
    let is_there = stream.group(group).is_some();
    if is_there {
        keyspace.stream_edit(key, &[Edit::DropGroup { group }], 1, event::GROUP_DESTROY)?;
    }
    reply.integer(i64::from(is_there));
    Ok(())
}

pub(super) fn create_consumer(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let (key, group, consumer) = (arguments.at(2), arguments.at(3), arguments.at(4));
    let is_new = known(keyspace, arguments)?.1.consumer(consumer).is_none();
    if is_new {
        let edit = Edit::Consumer { group, consumer, seen: keyspace.now_ms(), active: None };
        seen_by(keyspace, key, &[edit], 0, true)?;
    }
    reply.integer(i64::from(is_new));
    Ok(())
}

pub(super) fn delete_consumer(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let (key, group, consumer) = (arguments.at(2), arguments.at(3), arguments.at(4));
    let pending = known(keyspace, arguments)?.1.consumer(consumer).map(Consumer::pending_count);
    if pending.is_some() {
        keyspace.stream_edit(key, &[Edit::DropConsumer { group, consumer }], 1, event::CONSUMER_DELETE)?;
    }
    reply.count(pending.unwrap_or(0));
    Ok(())
}

pub(super) fn group_help(_: &mut Keyspace<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let lines = [
        "CREATE <key> <group> <id|$> [MKSTREAM] [ENTRIESREAD <count>]",
        "    Make a group that reads what comes behind an id; MKSTREAM makes the stream too.",
        "CREATECONSUMER <key> <group> <consumer>",
        "    Make a consumer.",
        "DELCONSUMER <key> <group> <consumer>",
        "    Remove a consumer, with what is pending for it.",
        "DESTROY <key> <group>",
        "    Remove a group.",
        "SETID <key> <group> <id|$> [ENTRIESREAD <count>]",
        "    Say what the group has read.",
    ];
    help::write(reply, "XGROUP", &lines);
    Ok(())
}

pub(super) fn xack(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let (key, name) = (arguments.at(1), arguments.at(2));
    let group = keyspace.peek_collection::<Stream>(key)?.and_then(|stream| stream.group(name));
    let Some(group) = group else {
        reply.integer(0);
        return Ok(());
    };
    let ids: Vec<Id> = arguments.from(3).map(|id| strict_id(id, 0)).collect::<Result<_, _>>()?;
    let mut known: Vec<Id> = ids.into_iter().filter(|id| group.pending(*id).is_some()).collect();
    known.sort_unstable();
    known.dedup();
    let edits: Vec<Edit<'_>> = known.iter().map(|id| Edit::Acknowledge { group: name, id: *id }).collect();
    keyspace.stream_note(key, &edits, edits.len())?;
    reply.count(edits.len());
    Ok(())
}

/// What XPENDING's long form is asked for.
struct Wanted<'a> {
    idle_ms: u64,
    first: Id,
    last: Id,
    count: usize,
    consumer: Option<&'a [u8]>,
}

fn wanted(arguments: Arguments<'_>) -> Result<Wanted<'_>, CommandError> {
    let (mut at, mut idle_ms) = (3, 0);
    if is(arguments.at(3), "idle") {
        idle_ms = u64::try_from(parse::integer(arguments.at(4))?).unwrap_or(0);
        if arguments.len() < 8 {
            return Err(CommandError::Syntax);
        }
        at = 5;
    }
    let count = usize::try_from(parse::integer(arguments.at(at + 2))?).unwrap_or(0);
    let (first, last) = (bound_below(arguments.at(at))?, bound_above(arguments.at(at + 1))?);
    Ok(Wanted { idle_ms, first, last, count, consumer: arguments.get(at + 3) })
}

pub(super) fn xpending(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let (key, name, now_ms) = (arguments.at(1), arguments.at(2), keyspace.now_ms());
    if !matches!(arguments.len(), 3 | 6..=9) {
        return Err(CommandError::Syntax);
    }
    let wanted = if arguments.len() == 3 { None } else { Some(wanted(arguments)?) };
    let group = keyspace.read_collection::<Stream>(key)?.and_then(|stream| stream.group(name));
    let group = group.ok_or_else(|| no_such_group(key, name, b""))?;
    let Some(wanted) = wanted else {
        write_summary(reply, group);
        return Ok(());
    };
    let (begun, mut written) = (reply.begin(), 0);
    let mut write = |pending: Pending<'_>| {
        reply.array(4);
        write_id(reply, pending.id);
        reply.bulk(pending.consumer);
        reply.integer(now_ms.saturating_sub(pending.delivered) as i64);
        reply.integer(pending.count as i64);
        written += 1;
    };
    let is_idle = |pending: &Pending<'_>| now_ms.saturating_sub(pending.delivered) >= wanted.idle_ms;
    let Wanted { first, last, count, .. } = wanted;
    match wanted.consumer {
        None => group.pending_between(first, last).filter(is_idle).take(count).for_each(&mut write),
        Some(name) => group.pending_of(name, first, last).filter(is_idle).take(count).for_each(&mut write),
    }
    reply.end_array(begun, written);
    Ok(())
}

/// XPENDING's short form: how many, from where to where, and of whom.
fn write_summary(reply: &mut ReplyWriter<'_>, group: &Group) {
    reply.array(4);
    reply.count(group.pending_count());
    let (Some(first), Some(last)) = (group.first_pending(), group.last_pending()) else {
        reply.null();
        reply.null();
        reply.null_array();
        return;
    };
    write_id(reply, first);
    write_id(reply, last);
    let (begun, mut written) = (reply.begin(), 0);
    for consumer in group.consumers().filter(|consumer| consumer.pending_count() > 0) {
        reply.array(2);
        reply.bulk(&consumer.name);
        reply.bulk_integer(consumer.pending_count() as i64);
        written += 1;
    }
    reply.end_array(begun, written);
}
