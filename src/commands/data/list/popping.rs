//! Commands that take elements off lists: for the client, or for another list.

use crate::base::slot::Slot;
use crate::commands::error::CommandError;
use crate::commands::parse::{self, is};
use crate::commands::spec::CommandResult;
use crate::engine::Keyspace;
use crate::engine::effect::Side;
use crate::engine::entry::Kind;
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;
use crate::values::Digits;
use crate::values::list::List;
use smallvec::SmallVec;

use super::super::blocking::{Patience, serve_or_wait};
use super::super::popping::PopMany;
use super::write_element;

pub(super) fn lpop(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    pop(keyspace, arguments, Side::Front, "lpop", reply)
}

pub(super) fn rpop(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
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

pub(super) fn blpop(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    pop_or_wait(keyspace, arguments, Side::Front, reply)
}

pub(super) fn brpop(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
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

pub(super) fn lmpop(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let PopMany { keys, side, count } = PopMany::parse(arguments, 1, side)?;
    for key in keys.map(|index| arguments.at(index)) {
        if pop_many(keyspace, key, side, count, reply)? {
            return Ok(());
        }
    }
    reply.null_array();
    Ok(())
}

pub(super) fn blmpop(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let PopMany { keys, side, count } = PopMany::parse(arguments, 2, side)?;
    let until_ms = parse::timeout(arguments.at(1), keyspace.now_ms())?;
    let keys = keys.map(|index| arguments.at(index));
    serve_or_wait(keyspace, keys, Patience::until(until_ms, Kind::List), reply, move |keyspace, key, reply| {
        pop_many(keyspace, key, side, count, reply)
    })
}

/// Pops up to `count` elements and writes them behind their key. False where there is none.
fn pop_many(
    keyspace: &mut Keyspace<'_>,
    key: &[u8],
    side: Side,
    count: usize,
    reply: &mut ReplyWriter<'_>,
) -> Result<bool, CommandError> {
    let Some(length) = keyspace.peek_collection::<List>(key)?.map(List::len) else { return Ok(false) };
    reply.array(2);
    reply.bulk(key);
    reply.array(count.min(length));
    keyspace.list_pop(key, side, count, |element| write_element(reply, element))?;
    Ok(true)
}

/// Which end of which list goes to which end of which other.
#[derive(Clone, Copy)]
struct Ends {
    from: Side,
    to: Side,
}

const RIGHT_TO_LEFT: Ends = Ends { from: Side::Back, to: Side::Front };

/// LEFT or RIGHT.
fn side(argument: &[u8]) -> Result<Side, CommandError> {
    match argument {
        _ if is(argument, "left") => Ok(Side::Front),
        _ if is(argument, "right") => Ok(Side::Back),
        _ => Err(CommandError::Syntax),
    }
}

fn ends(arguments: Arguments<'_>) -> Result<Ends, CommandError> {
    Ok(Ends { from: side(arguments.at(3))?, to: side(arguments.at(4))? })
}

pub(super) fn lmove(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let ends = ends(arguments)?;
    if !move_element(keyspace, arguments.at(1), arguments.at(2), ends, reply)? {
        reply.null();
    }
    Ok(())
}

pub(super) fn rpoplpush(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    if !move_element(keyspace, arguments.at(1), arguments.at(2), RIGHT_TO_LEFT, reply)? {
        reply.null();
    }
    Ok(())
}

pub(super) fn blmove(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let ends = ends(arguments)?;
    move_or_wait(keyspace, arguments, ends, arguments.at(5), reply)
}

pub(super) fn brpoplpush(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
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
    if from == to {
        return keyspace.hinted(from, |keyspace| move_between(keyspace, from, from, ends, reply));
    }
    move_between(keyspace, from, to, ends, reply)
}

fn move_between(
    keyspace: &mut Keyspace<'_>,
    from: &[u8],
    to: &[u8],
    ends: Ends,
    reply: &mut ReplyWriter<'_>,
) -> Result<bool, CommandError> {
    let Some(list) = keyspace.peek_collection::<List>(from)? else { return Ok(false) };
    let at = if ends.from == Side::Front { 0 } else { list.len() - 1 };
    let element = list.get(at).map(|element| element.bytes(&mut Digits::new()).into());
    let moved: SmallVec<[u8; 64]> = element.unwrap_or_default();
    // Nothing is popped that cannot be pushed.
    keyspace.peek_collection::<List>(to)?;
    keyspace.list_push(to, ends.to, std::iter::once(&moved[..]))?;
    keyspace.list_pop(from, ends.from, 1, |_| {})?;
    reply.bulk(&moved);
    Ok(true)
}
