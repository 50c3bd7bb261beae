//! Lists.

use crate::commands::error::CommandError;
use crate::commands::parse::{self, is};
use crate::commands::spec::{
    Access, Arity::*, BLOCKING, CommandResult, CommandSpec, DENYOOM, FAST, Find, KeySpec, LIST, MOVABLE_KEYS, NOSCRIPT,
    READONLY, WRITE, data, keys,
};
use crate::engine::Keyspace;
use crate::engine::effect::Side;
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;
use crate::values::element::{Digits, Element};
use crate::values::list::List;

use popping::{blmove, blmpop, blpop, brpop, brpoplpush, lmove, lmpop, lpop, rpop, rpoplpush};

mod popping;

/// BLPOP and BRPOP: all but the time-out.
const EVERY_POPPED: &[KeySpec] =
    &[keys::at(1, Find::Range { last: -2, step: 1, limit: 0 }, Access::ReadWrite, "access delete")];
const COUNTED: Find = Find::Count { count: 0, first: 1, step: 1 };
const MOVED: &[KeySpec] =
    &[keys::one(1, Access::ReadWrite, "access delete"), keys::one(2, Access::ReadWrite, "insert")];

pub const COMMANDS: &[CommandSpec] = &[
    data("blmove", Exactly(6), WRITE | DENYOOM | NOSCRIPT | BLOCKING, LIST, MOVED, blmove),
    data(
        "blmpop",
        AtLeast(5),
        WRITE | BLOCKING | MOVABLE_KEYS,
        LIST,
        &[keys::at(2, COUNTED, Access::ReadWrite, "access delete")],
        blmpop,
    ),
    data("blpop", AtLeast(3), WRITE | NOSCRIPT | BLOCKING, LIST, EVERY_POPPED, blpop),
    data("brpop", AtLeast(3), WRITE | NOSCRIPT | BLOCKING, LIST, EVERY_POPPED, brpop),
    data("brpoplpush", Exactly(4), WRITE | DENYOOM | NOSCRIPT | BLOCKING, LIST, MOVED, brpoplpush),
    data("lindex", Exactly(3), READONLY, LIST, keys::READ, lindex),
    data("linsert", Exactly(5), WRITE | DENYOOM, LIST, keys::INSERT, linsert),
    data("llen", Exactly(2), READONLY | FAST, LIST, keys::LOOK, llen),
    data("lmove", Exactly(5), WRITE | DENYOOM, LIST, MOVED, lmove),
    data(
        "lmpop",
        AtLeast(4),
        WRITE | MOVABLE_KEYS,
        LIST,
        &[keys::at(1, COUNTED, Access::ReadWrite, "access delete")],
        lmpop,
    ),
    data("lpop", AtLeast(2), WRITE | FAST, LIST, keys::READ_DELETE, lpop),
    data("lpos", AtLeast(3), READONLY, LIST, keys::READ, lpos),
    data("lpush", AtLeast(3), WRITE | DENYOOM | FAST, LIST, keys::INSERT, lpush),
    data("lpushx", AtLeast(3), WRITE | DENYOOM | FAST, LIST, keys::INSERT, lpushx),
    data("lrange", Exactly(4), READONLY, LIST, keys::READ, lrange),
    data("lrem", Exactly(4), WRITE, LIST, keys::DELETE, lrem),
    data("lset", Exactly(4), WRITE | DENYOOM, LIST, keys::UPDATE, lset),
    data("ltrim", Exactly(4), WRITE, LIST, keys::DELETE, ltrim),
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
    match place(parse::integer(arguments.at(2))?, list.len()).and_then(|index| list.get(index)) {
        Some(element) => write_element(reply, element),
        None => reply.null(),
    }
    Ok(())
}

/// The place that an index names; negative ones count from the end. It may be behind the end.
fn place(index: i64, length: usize) -> Option<usize> {
    let index = if index < 0 { index + length as i64 } else { index };
    usize::try_from(index).ok()
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

fn linsert(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let behind = match arguments.at(2) {
        word if is(word, "before") => 0,
        word if is(word, "after") => 1,
        _ => return Err(CommandError::Syntax),
    };
    let (key, pivot, element) = (arguments.at(1), arguments.at(3), arguments.at(4));
    let Some(list) = keyspace.peek_collection::<List>(key)? else {
        reply.integer(0);
        return Ok(());
    };
    let Some(index) = list.position(pivot) else {
        reply.integer(-1);
        return Ok(());
    };
    reply.count(keyspace.list_insert(key, index + behind, element)?.unwrap_or_default());
    Ok(())
}

fn lset(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let key = arguments.at(1);
    let list = keyspace.peek_collection::<List>(key)?.ok_or(CommandError::NoSuchKey)?;
    let length = list.len();
    let index = place(parse::integer(arguments.at(2))?, length).filter(|index| *index < length);
    keyspace.list_set(key, index.ok_or(CommandError::OutOfRange)?, arguments.at(3))?;
    reply.ok();
    Ok(())
}

fn lrem(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let (key, count, element) = (arguments.at(1), parse::integer(arguments.at(2))?, arguments.at(3));
    let mut indexes = Vec::new();
    if let Some(list) = keyspace.peek_collection::<List>(key)? {
        let wanted = match count {
            0 => usize::MAX,
            count => usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX),
        };
        let rank = if count < 0 { -1 } else { 1 };
        list.positions(element, rank, wanted, usize::MAX, |index| indexes.push(index));
    }
    if count < 0 {
        indexes.reverse();
    }
    keyspace.list_remove(key, &indexes)?;
    reply.count(indexes.len());
    Ok(())
}

fn ltrim(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let (start, stop) = (parse::integer(arguments.at(2))?, parse::integer(arguments.at(3))?);
    keyspace.list_trim(arguments.at(1), |length| range(start, stop, length))?;
    reply.ok();
    Ok(())
}

/// The words behind LPOS's element.
struct Search {
    /// The first match that counts; negative ones are counted from the tail.
    rank: i64,
    /// How many are wanted, as an array; `None`: one, by itself.
    count: Option<usize>,
    /// How many elements are compared at most.
    compared_max: usize,
}

impl Search {
    fn parse(arguments: Arguments<'_>) -> Result<Search, CommandError> {
        let mut search = Search { rank: 1, count: None, compared_max: usize::MAX };
        // A count of 0 stands for all.
        let count = |argument: &[u8], refusal: &'static str| match parse::integer(argument) {
            Ok(0) => Ok(usize::MAX),
            Ok(count @ 1..) => Ok(usize::try_from(count).unwrap_or(usize::MAX)),
            _ => Err(CommandError::text(refusal)),
        };
        let mut index = 3;
        while let Some(word) = arguments.get(index) {
            let value = arguments.get(index + 1).ok_or(CommandError::Syntax)?;
            match word {
                _ if is(word, "rank") => search.rank = rank(value)?,
                _ if is(word, "count") => search.count = Some(count(value, "ERR COUNT can't be negative")?),
                _ if is(word, "maxlen") => search.compared_max = count(value, "ERR MAXLEN can't be negative")?,
                _ => return Err(CommandError::Syntax),
            }
            index += 2;
        }
        Ok(search)
    }
}

fn rank(argument: &[u8]) -> Result<i64, CommandError> {
    match parse::integer(argument)? {
        0 => Err(CommandError::text(
            "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to \
             start from the end of the list",
        )),
        rank => Ok(rank),
    }
}

fn lpos(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let (search, element) = (Search::parse(arguments)?, arguments.at(2));
    let list = keyspace.read_collection::<List>(arguments.at(1))?;
    let mut found = 0;
    let begun = search.count.map(|_| reply.begin());
    if let Some(list) = list {
        list.positions(element, search.rank, search.count.unwrap_or(1), search.compared_max, |index| {
            reply.count(index);
            found += 1;
        });
    }
    match begun {
        Some(begun) => reply.end_array(begun, found),
        None if found == 0 => reply.null(),
        None => {}
    }
    Ok(())
}
