//! Lists.

use crate::commands::error::CommandError;
use crate::commands::parse;
use crate::commands::spec::{Arity::*, CommandResult, CommandSpec, DENYOOM, FAST, LIST, READONLY, WRITE, data, keys};
use crate::engine::Keyspace;
use crate::engine::effect::Side;
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;
use crate::values::element::{Digits, Element};
use crate::values::list::List;

pub const COMMANDS: &[CommandSpec] = &[
    data("lindex", Exactly(3), READONLY, LIST, keys::READ, lindex),
    data("llen", Exactly(2), READONLY | FAST, LIST, keys::LOOK, llen),
    data("lpop", AtLeast(2), WRITE | FAST, LIST, keys::READ_DELETE, lpop),
    data("lpush", AtLeast(3), WRITE | DENYOOM | FAST, LIST, keys::INSERT, lpush),
    data("lpushx", AtLeast(3), WRITE | DENYOOM | FAST, LIST, keys::INSERT, lpushx),
    data("lrange", Exactly(4), READONLY, LIST, keys::READ, lrange),
    data("rpop", AtLeast(2), WRITE | FAST, LIST, keys::READ_DELETE, rpop),
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
