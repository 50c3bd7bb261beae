//! Lists.

use crate::base::slot::Slot;
use crate::commands::error::CommandError;
use crate::commands::parse::{self, is};
use crate::commands::spec::{
    Access, Arity::*, BLOCKING, CommandResult, CommandSpec, DENYOOM, FAST, Find, KeySpec, LIST, NOSCRIPT, READONLY,
    WRITE, data, keys,
};
use crate::engine::Keyspace;
use crate::engine::effect::Side;
use crate::engine::entry::Kind;
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;
use crate::values::element::{Digits, Element};
use crate::values::list::List;

use super::blocking::{Patience, serve_or_wait};

/// BLPOP and BRPOP: all but the time-out.
const EVERY_POPPED: &[KeySpec] =
    &[keys::at(1, Find::Range { last: -2, step: 1, limit: 0 }, Access::ReadWrite, "access delete")];
const MOVED: &[KeySpec] =
    &[keys::one(1, Access::ReadWrite, "access delete"), keys::one(2, Access::ReadWrite, "insert")];

pub const COMMANDS: &[CommandSpec] = &[
    data("blmove", Exactly(6), WRITE | DENYOOM | NOSCRIPT | BLOCKING, LIST, MOVED, blmove),
    data("blpop", AtLeast(3), WRITE | NOSCRIPT | BLOCKING, LIST, EVERY_POPPED, blpop),
    data("brpop", AtLeast(3), WRITE | NOSCRIPT | BLOCKING, LIST, EVERY_POPPED, brpop),
    data("brpoplpush", Exactly(4), WRITE | DENYOOM | NOSCRIPT | BLOCKING, LIST, MOVED, brpoplpush),
    data("lindex", Exactly(3), READONLY, LIST, keys::READ, lindex),
    data("llen", Exactly(2), READONLY | FAST, LIST, keys::LOOK, llen),
    data("lmove", Exactly(5), WRITE | DENYOOM, LIST, MOVED, lmove),
    data("lpop", AtLeast(2), WRITE | FAST, LIST, keys::READ_DELETE, lpop),
    data("lpush", AtLeast(3), WRITE | DENYOOM | FAST, LIST, keys::INSERT, lpush),
    data("lpushx", AtLeast(3), WRITE | DENYOOM | FAST, LIST, keys::INSERT, lpushx),
    data("lrange", Exactly(4), READONLY, LIST, keys::READ, lrange),
    data("rpop", AtLeast(2), WRITE | FAST, LIST, keys::READ_DELETE, rpop),
    data("rpoplpush", Exactly(3), WRITE | DENYOOM, LIST, MOVED, rpoplpush),
    data("rpush", AtLeast(3), WRITE | DENYOOM | FAST, LIST, keys::INSERT, rpush),
    data("rpushx", AtLeast(3), WRITE | DENYOOM | FAST, LIST, keys::INSERT, rpushx),
];

/// Writes an element as a bulk string.
#[inline]
pub fn write_element(reply: &mut ReplyWriter<'_>, element: Element<'_>) {
    reply.bulk(element.bytes(&mut Digits::new()));
}

fn lpush(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    push(keyspace, arguments, Side::Front, reply)
}

fn rpush(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    push(keyspace, arguments, Side::Back, reply)
}

fn push(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    side: Side,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let length = keyspace.list_push(arguments.at(1), side, arguments.from(2))?;
    reply.count(length);
    Ok(())
}

fn lpushx(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    push_if_present(keyspace, arguments, Side::Front, reply)
}

fn rpushx(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    push_if_present(keyspace, arguments, Side::Back, reply)
}

fn push_if_present(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    side: Side,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    if keyspace.peek_collection::<List>(arguments.at(1))?.is_none() {
        reply.integer(0);
        return Ok(());
    }
    push(keyspace, arguments, side, reply)
}

fn lpop(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    pop(keyspace, arguments, Side::Front, "lpop", reply)
}

fn rpop(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    pop(keyspace, arguments, Side::Back, "rpop", reply)
}

fn pop(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    side: Side,
    name: &'static str,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let key = arguments.at(1);
    match arguments.len() {
        2 => {
            let popped = keyspace.list_pop(key, side, 1, |element| write_element(reply, element))?;
            if popped.is_none() {
                reply.null();
            }
        }
        3 => {
            let count = parse::positive(arguments.at(2))?;
            let Some(length) = keyspace.peek_collection::<List>(key)?.map(List::len) else {
                reply.null_array();
                return Ok(());
            };
            reply.array(count.min(length));
            keyspace.list_pop(key, side, count, |element| write_element(reply, element))?;
        }
        _ => return Err(CommandError::WrongArity(name.into())),
    }
    Ok(())
}

fn blpop(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    pop_or_wait(keyspace, arguments, Side::Front, reply)
}

fn brpop(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    pop_or_wait(keyspace, arguments, Side::Back, reply)
}

/// Pops from the first list that has something, or waits until one has.
fn pop_or_wait(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    side: Side,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let last = arguments.len() - 1;
    let until_ms = parse::timeout(arguments.at(last), keyspace.now_ms())?;
    let keys = (1..last).map(|index| arguments.at(index));
    serve_or_wait(keyspace, keys, Patience::until(until_ms, Kind::List), reply, move |keyspace, key, reply| {
        if keyspace.peek_collection::<List>(key)?.is_none() {
            return Ok(false);
        }
        reply.array(2);
        reply.bulk(key);
        keyspace.list_pop(key, side, 1, |element| write_element(reply, element))?;
        Ok(true)
    })
}

/// Which end of which list goes to which end of which other.
#[derive(Clone, Copy)]
struct Ends {
    from: Side,
    to: Side,
}

const RIGHT_TO_LEFT: Ends = Ends { from: Side::Back, to: Side::Front };

fn ends(arguments: Arguments<'_>) -> Result<Ends, CommandError> {
    let side = |argument: &[u8]| match argument {
        _ if is(argument, "left") => Ok(Side::Front),
        _ if is(argument, "right") => Ok(Side::Back),
        _ => Err(CommandError::Syntax),
    };
    Ok(Ends { from: side(arguments.at(3))?, to: side(arguments.at(4))? })
}

fn lmove(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let ends = ends(arguments)?;
    if !move_element(keyspace, arguments.at(1), arguments.at(2), ends, reply)? {
        reply.null();
    }
    Ok(())
}

fn rpoplpush(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    if !move_element(keyspace, arguments.at(1), arguments.at(2), RIGHT_TO_LEFT, reply)? {
        reply.null();
    }
    Ok(())
}

fn blmove(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let ends = ends(arguments)?;
    move_or_wait(keyspace, arguments, ends, arguments.at(5), reply)
}

fn brpoplpush(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    move_or_wait(keyspace, arguments, RIGHT_TO_LEFT, arguments.at(3), reply)
}

fn move_or_wait(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    ends: Ends,
    timeout: &[u8],
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let (from, to): (&[u8], Box<[u8]>) = (arguments.at(1), arguments.at(2).into());
    let patience = Patience {
        also: Some(Slot::of_key(&to)),
        without_waiting: |reply| reply.null(),
        ..Patience::until(parse::timeout(timeout, keyspace.now_ms())?, Kind::List)
    };
    serve_or_wait(keyspace, std::iter::once(from), patience, reply, move |keyspace, from, reply| {
        move_element(keyspace, from, &to, ends, reply)
    })
}

/// Moves an element, and writes it. False where there is none.
fn move_element(
    keyspace: &mut Keyspace<'_>,
    from: &[u8],
    to: &[u8],
    ends: Ends,
    reply: &mut ReplyWriter<'_>,
) -> Result<bool, CommandError> {
    let Some(list) = keyspace.peek_collection::<List>(from)? else { return Ok(false) };
    let at = if ends.from == Side::Front { 0 } else { list.len() - 1 };
    let moved = list.get(at).map(|element| element.to_vec()).unwrap_or_default();
    // Nothing is popped that cannot be pushed.
    keyspace.peek_collection::<List>(to)?;
    keyspace.list_push(to, ends.to, std::iter::once(&moved[..]))?;
    keyspace.list_pop(from, ends.from, 1, |_| {})?;
    reply.bulk(&moved);
    Ok(true)
}

fn llen(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    reply.count(keyspace.read_collection::<List>(arguments.at(1))?.map_or(0, List::len));
    Ok(())
}

fn lindex(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let list = keyspace.read_collection::<List>(arguments.at(1))?;
    let Some(list) = list else {
        reply.null();
        return Ok(());
    };
    let index = parse::integer(arguments.at(2))?;
    let index = if index < 0 { index + list.len() as i64 } else { index };
    match usize::try_from(index).ok().and_then(|index| list.get(index)) {
        Some(element) => write_element(reply, element),
        None => reply.null(),
    }
    Ok(())
}

fn lrange(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let (start, stop) = (parse::integer(arguments.at(2))?, parse::integer(arguments.at(3))?);
    let Some(list) = keyspace.read_collection::<List>(arguments.at(1))? else {
        reply.array(0);
        return Ok(());
    };
    let (start, count) = range(start, stop, list.len());
    reply.array(count);
    list.range(start, count).for_each(|element| write_element(reply, element));
    Ok(())
}

/// The first index and the number of elements from `start` to `stop`, both included; negative ones count from the end.
pub fn range(start: i64, stop: i64, length: usize) -> (usize, usize) {
    let length = length as i64;
    let from_end = |index: i64| if index < 0 { index.saturating_add(length) } else { index };
    let (start, stop) = (from_end(start).max(0), from_end(stop).min(length - 1));
    if start > stop { (0, 0) } else { (start as usize, (stop - start + 1) as usize) }
}
