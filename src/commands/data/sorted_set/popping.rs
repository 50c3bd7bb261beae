//! Taking the lowest or highest members of sorted sets, at once or when there are some.

use crate::commands::data::blocking::{Patience, serve_or_wait};
use crate::commands::data::popping::PopMany;
use crate::commands::error::CommandError;
use crate::commands::parse::{self, is};
use crate::commands::spec::{
    Access, Arity::*, BLOCKING, CommandResult, CommandSpec, FAST, Find, KeySpec, MOVABLE_KEYS, NOSCRIPT, SORTED_SET,
    WRITE, data, keys,
};
use crate::engine::Keyspace;
use crate::engine::effect::Side;
use crate::engine::entry::Kind;
use crate::resp::arguments::Arguments;
use crate::resp::reply::{Protocol, ReplyWriter};
use crate::values::sorted_set::SortedSet;

/// BZPOPMIN and BZPOPMAX: all but the time-out.
const EVERY: &[KeySpec] =
    &[keys::at(1, Find::Range { last: -2, step: 1, limit: 0 }, Access::ReadWrite, "access delete")];
const COUNTED: Find = Find::Count { count: 0, first: 1, step: 1 };
const COUNTED_FIRST: &[KeySpec] = &[keys::at(1, COUNTED, Access::ReadWrite, "access delete")];
/// Behind the time-out.
const COUNTED_SECOND: &[KeySpec] = &[keys::at(2, COUNTED, Access::ReadWrite, "access delete")];

pub const COMMANDS: &[CommandSpec] = &[
    data("bzmpop", AtLeast(5), WRITE | BLOCKING | MOVABLE_KEYS, SORTED_SET, COUNTED_SECOND, bzmpop),
    data("bzpopmax", AtLeast(3), WRITE | NOSCRIPT | FAST | BLOCKING, SORTED_SET, EVERY, bzpopmax),
    data("bzpopmin", AtLeast(3), WRITE | NOSCRIPT | FAST | BLOCKING, SORTED_SET, EVERY, bzpopmin),
    data("zmpop", AtLeast(4), WRITE | MOVABLE_KEYS, SORTED_SET, COUNTED_FIRST, zmpop),
    data("zpopmax", AtLeast(2), WRITE | FAST, SORTED_SET, keys::READ_DELETE, zpopmax),
    data("zpopmin", AtLeast(2), WRITE | FAST, SORTED_SET, keys::READ_DELETE, zpopmin),
];

fn zpopmin(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    pop(keyspace, arguments, Side::Front, reply)
}

fn zpopmax(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    pop(keyspace, arguments, Side::Back, reply)
}

fn pop(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    side: Side,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let count = match arguments.len() {
        2 => None,
        3 => Some(parse::positive(arguments.at(2))?),
        _ => return Err(CommandError::Syntax),
    };
    let popped = keyspace.sorted_set_pop(arguments.at(1), side, count.unwrap_or(1))?;
    // RESP3 shows pairs where a count was given.
    let pairs = count.is_some() && reply.protocol() == Protocol::Resp3;
    reply.array(if pairs { popped.len() } else { popped.len() * 2 });
    for (member, score) in popped {
        if pairs {
            reply.array(2);
        }
        reply.bulk(&member);
        reply.double(score);
    }
    Ok(())
}

fn bzpopmin(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    pop_or_wait(keyspace, arguments, Side::Front, reply)
}

fn bzpopmax(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    pop_or_wait(keyspace, arguments, Side::Back, reply)
}

/// Pops from the first sorted set that has something, or waits until one has.
fn pop_or_wait(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    side: Side,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let last = arguments.len() - 1;
    let until_ms = parse::timeout(arguments.at(last), keyspace.now_ms())?;
    let keys = (1..last).map(|index| arguments.at(index));
    serve_or_wait(keyspace, keys, Patience::until(until_ms, Kind::SortedSet), reply, move |keyspace, key, reply| {
        let popped = keyspace.sorted_set_pop(key, side, 1)?;
        let Some((member, score)) = popped.first() else { return Ok(false) };
        reply.array(3);
        reply.bulk(key);
        reply.bulk(member);
        reply.double(*score);
        Ok(true)
    })
}

/// MIN or MAX.
fn side(argument: &[u8]) -> Result<Side, CommandError> {
    match argument {
        _ if is(argument, "min") => Ok(Side::Front),
        _ if is(argument, "max") => Ok(Side::Back),
        _ => Err(CommandError::Syntax),
    }
}

/// Pops members of a sorted set, and writes its key and pairs. False where there is none.
fn pop_many(
    keyspace: &mut Keyspace<'_>,
    key: &[u8],
    side: Side,
    count: usize,
    reply: &mut ReplyWriter<'_>,
) -> Result<bool, CommandError> {
    if keyspace.peek_collection::<SortedSet>(key)?.is_none() {
        return Ok(false);
    }
    let popped = keyspace.sorted_set_pop(key, side, count)?;
    reply.array(2);
    reply.bulk(key);
    reply.array(popped.len());
    for (member, score) in popped {
        reply.array(2);
        reply.bulk(&member);
        reply.double(score);
    }
    Ok(true)
}

fn zmpop(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let PopMany { keys, side, count } = PopMany::parse(arguments, 1, side)?;
    for index in keys {
        if pop_many(keyspace, arguments.at(index), side, count, reply)? {
            return Ok(());
        }
    }
    reply.null_array();
    Ok(())
}

fn bzmpop(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let PopMany { keys, side, count } = PopMany::parse(arguments, 2, side)?;
    let until_ms = parse::timeout(arguments.at(1), keyspace.now_ms())?;
    let keys = keys.map(|index| arguments.at(index));
    serve_or_wait(keyspace, keys, Patience::until(until_ms, Kind::SortedSet), reply, move |keyspace, key, reply| {
        pop_many(keyspace, key, side, count, reply)
    })
}
