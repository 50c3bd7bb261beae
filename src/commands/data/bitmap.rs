//! Bits of strings.

use crate::commands::error::CommandError;
use crate::commands::parse;
use crate::commands::spec::{
    Access, Arity::*, BITMAP, Begin, CommandResult, CommandSpec, DENYOOM, FAST, Find, KeySpec, READONLY, WRITE, data,
    keys,
};
use crate::engine::Keyspace;
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;

/// SETBIT answers with the bit that was there.
const SETBIT_KEY: &[KeySpec] = &[KeySpec {
    access: Access::ReadWrite,
    effects: "access update",
    begin: Begin::Index(1),
    find: Find::Range { last: 0, step: 1, limit: 0 },
    notes: "",
}];

pub const COMMANDS: &[CommandSpec] = &[
    data("getbit", Exactly(3), READONLY | FAST, BITMAP, keys::READ, getbit),
    data("setbit", Exactly(4), WRITE | DENYOOM, BITMAP, SETBIT_KEY, setbit),
];

/// One bit more than a string of 512 MB has.
const BITS_MAX: u64 = 512 * 1024 * 1024 * 8;

fn offset(argument: &[u8]) -> Result<usize, CommandError> {
    const WRONG: CommandError = CommandError::text("ERR bit offset is not an integer or out of range");
    let offset = crate::base::number::parse_i64(argument).ok_or(WRONG)?;
    u64::try_from(offset).ok().filter(|offset| *offset < BITS_MAX).map(|offset| offset as usize).ok_or(WRONG)
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
        keyspace.set_range(key, offset / 8, &[if set { byte | mask } else { byte & !mask }])?;
    }
    reply.integer(old);
    Ok(())
}
