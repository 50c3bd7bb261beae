//! Bits of strings.

pub mod field;

use crate::commands::error::CommandError;
use crate::commands::parse::{self, is};
use crate::commands::spec::{
    Access, Arity::*, BITMAP, Begin, CommandResult, CommandSpec, DENYOOM, FAST, Find, KeySpec, READONLY, WRITE, data,
    keys,
};
use crate::engine::entry::Entry;
use crate::engine::{Deadline, Keyspace, WrongKind, event};
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;
use crate::values::bits::{self, Operation};
use std::borrow::Cow;
use std::ops::Range;

/// SETBIT answers with the bit that was there.
const SETBIT_KEY: &[KeySpec] = &[KeySpec {
    access: Access::ReadWrite,
    effects: "access update",
    begin: Begin::Index(1),
    find: Find::Range { last: 0, step: 1, limit: 0 },
    notes: "",
}];
const REST: KeySpec = keys::at(3, Find::Range { last: -1, step: 1, limit: 0 }, Access::ReadOnly, "access");
const BITOP_KEYS: &[KeySpec] = &[keys::one(2, Access::Overwrite, "update"), REST];

pub const COMMANDS: &[CommandSpec] = &[
    data("bitcount", AtLeast(2), READONLY, BITMAP, keys::READ, bitcount),
    data("bitop", AtLeast(4), WRITE | DENYOOM, BITMAP, BITOP_KEYS, bitop),
    data("bitpos", AtLeast(3), READONLY, BITMAP, keys::READ, bitpos),
    data("getbit", Exactly(3), READONLY | FAST, BITMAP, keys::READ, getbit),
    data("setbit", Exactly(4), WRITE | DENYOOM, BITMAP, SETBIT_KEY, setbit),
];

/// One bit more than a string of 512 MB has.
const BITS_MAX: u64 = 512 * 1024 * 1024 * 8;
const WRONG_OFFSET: CommandError = CommandError::text("ERR bit offset is not an integer or out of range");

fn offset(argument: &[u8]) -> Result<usize, CommandError> {
    let offset = crate::base::number::parse_i64(argument).ok_or(WRONG_OFFSET)?;
    u64::try_from(offset).ok().filter(|offset| *offset < BITS_MAX).map(|offset| offset as usize).ok_or(WRONG_OFFSET)
}

/// The bit at `offset`, the highest of a byte first; beyond the end all are 0.
fn bit(bytes: &[u8], offset: usize) -> i64 {
    i64::from(bytes.get(offset / 8).is_some_and(|byte| byte & (0x80 >> (offset % 8)) != 0))
}

fn getbit(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let offset = offset(arguments.at(2))?;
    let string = keyspace.read_string(arguments.at(1))?;
    reply.integer(string.map_or(0, |string| string.with_bytes(|bytes| bit(bytes, offset))));
    Ok(())
}

fn setbit(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let (key, offset) = (arguments.at(1), offset(arguments.at(2))?);
    let set = match parse::integer(arguments.at(3)) {
        Ok(0) => false,
        Ok(1) => true,
        _ => return Err(CommandError::text("ERR bit is not an integer or out of range")),
    };
    let string = keyspace.peek_string(key)?;
    let (old, byte) = string
        .map_or((0, None), |string| string.with_bytes(|bytes| (bit(bytes, offset), bytes.get(offset / 8).copied())));
    // A bit that is there and has the value already is no change, but the encoding becomes that of a changed string.
    if byte.is_some() {
        keyspace.hold_as_buffer(key)?;
    }
    if byte.is_none() || (old == 1) != set {
        let (byte, mask) = (byte.unwrap_or(0), 0x80 >> (offset % 8));
        let written = if set { byte | mask } else { byte & !mask };
        keyspace.set_range_as(key, offset / 8, &[written], event::SET_BIT)?;
    }
    reply.integer(old);
    Ok(())
}

/// Part of a string, as BITCOUNT and BITPOS are given it.
struct Part {
    start: i64,
    /// `None`: the last.
    end: Option<i64>,
    /// Both are numbers of bits, not of bytes.
    in_bits: bool,
}

impl Part {
    const WHOLE: Part = Part { start: 0, end: None, in_bits: false };

    /// The bits of a string of this length; numbers below 0 count from its end.
    fn bits(&self, length: usize) -> Range<u64> {
        let unit = if self.in_bits { 1 } else { 8 };
        let total = length as i64 * 8 / unit;
        let from_end = |index: i64| if index < 0 { (total + index).max(0) } else { index };
        let (start, end) = (from_end(self.start), from_end(self.end.unwrap_or(-1)).min(total - 1));
        if start > end { 0..0 } else { (start * unit) as u64..((end + 1) * unit) as u64 }
    }
}

/// Whether a part is given in bits.
fn unit(word: &[u8]) -> Result<bool, CommandError> {
    match word {
        _ if is(word, "bit") => Ok(true),
        _ if is(word, "byte") => Ok(false),
        _ => Err(CommandError::Syntax),
    }
}

fn bitcount(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    // Redis 7.0 does not look at the range where there is no key, nor at the unit where the range is empty.
    let Some(string) = keyspace.read_string(arguments.at(1))? else {
        reply.integer(0);
        return Ok(());
    };
    let part = match arguments.len() {
        2 => Part::WHOLE,
        4 | 5 => {
            let (start, end) = (parse::integer(arguments.at(2))?, parse::integer(arguments.at(3))?);
            if start < 0 && end < 0 && start > end {
                reply.integer(0);
                return Ok(());
            }
            Part { start, end: Some(end), in_bits: arguments.get(4).map_or(Ok(false), unit)? }
        }
        _ => return Err(CommandError::Syntax),
    };
    let count = string.with_bytes(|bytes| bits::count(bytes, part.bits(bytes.len())));
    reply.integer(count as i64);
    Ok(())
}

fn bitpos(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let wanted = match parse::integer(arguments.at(2))? {
        0 => false,
        1 => true,
        _ => return Err(CommandError::text("ERR The bit argument must be 1 or 0.")),
    };
    // A missing key is zeros without an end, whatever the range.
    let Some(string) = keyspace.read_string(arguments.at(1))? else {
        reply.integer(if wanted { -1 } else { 0 });
        return Ok(());
    };
    if arguments.len() > 6 {
        return Err(CommandError::Syntax);
    }
    let start = arguments.get(3).map_or(Ok(0), parse::integer)?;
    let in_bits = arguments.get(5).map_or(Ok(false), unit)?;
    let end = arguments.get(4).map(parse::integer).transpose()?;
    let part = Part { start, end, in_bits };
    let found = string.with_bytes(|bytes| {
        let range = part.bits(bytes.len());
        // Behind a string without a given end there are zeros.
        let zero_behind = (!wanted && end.is_none() && !range.is_empty()).then_some(range.end);
        bits::position(bytes, range, wanted).or(zero_behind)
    });
    reply.integer(found.map_or(-1, |at| at as i64));
    Ok(())
}

/// The operation of a name, and from how many strings on it makes sense.
fn operation(name: &[u8]) -> Option<(Operation, &'static str, usize)> {
    Some(match name {
        _ if is(name, "and") => (Operation::And, "AND", 1),
        _ if is(name, "or") => (Operation::Or, "OR", 1),
        _ if is(name, "xor") => (Operation::Xor, "XOR", 1),
        _ if is(name, "not") => (Operation::Not, "NOT", 1),
        _ if is(name, "diff") => (Operation::Diff, "DIFF", 2),
        _ if is(name, "diff1") => (Operation::Diff1, "DIFF1", 2),
        _ if is(name, "andor") => (Operation::AndOr, "ANDOR", 2),
        _ if is(name, "one") => (Operation::One, "ONE", 1),
        _ => return None,
    })
}

/// What an entry holds; nothing where there is none.
fn string_of(entry: Option<&Entry>) -> Result<Cow<'_, [u8]>, WrongKind> {
    match entry.map(Entry::as_string) {
        None => Ok(Cow::Borrowed(&[])),
        Some(string) => string.map(|string| string.to_bytes()).ok_or(WrongKind),
    }
}

fn bitop(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let (operation, name, least) = operation(arguments.at(1)).ok_or(CommandError::Syntax)?;
    let count = arguments.len() - 3;
    if operation == Operation::Not && count != 1 {
        return Err(CommandError::text("ERR BITOP NOT must be called with a single source key."));
    }
    if count < least {
        return Err(CommandError::Text(
            format!("ERR BITOP {name} must be called with at least two source keys.").into(),
        ));
    }
    let entries = keyspace.read_all(arguments.from(3));
    let strings: Vec<Cow<'_, [u8]>> = entries.iter().map(|entry| string_of(*entry)).collect::<Result<_, _>>()?;
    let sources: Vec<&[u8]> = strings.iter().map(AsRef::as_ref).collect();
    let result = bits::combine(operation, &sources);
    drop(entries);
    reply.count(result.len());
    let destination = arguments.at(2);
    if result.is_empty() {
        keyspace.delete(destination);
    } else {
        keyspace.set_buffer(destination, result, Deadline::Clear, event::SET);
    }
    Ok(())
}
