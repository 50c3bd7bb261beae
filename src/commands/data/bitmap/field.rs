//! Strings as arrays of integers of any width: BITFIELD.

use super::{BITS_MAX, WRONG_OFFSET};
use crate::base::number;
use crate::commands::error::CommandError;
use crate::commands::parse::{self, is};
use crate::commands::spec::{
    Access, Arity::*, BITMAP, Begin, CommandResult, CommandSpec, DENYOOM, FAST, Find, KeySpec, READONLY, WRITE, data,
    keys,
};
use crate::engine::entry::StringRef;
use crate::engine::{Keyspace, event};
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;
use crate::values::bits::{Field, Overflow};
use smallvec::SmallVec;

/// BITFIELD may only read: Redis says its flags vary.
const FIELD_KEY: &[KeySpec] = &[KeySpec {
    access: Access::ReadWrite,
    effects: "access update variable_flags",
    begin: Begin::Index(1),
    find: Find::Range { last: 0, step: 1, limit: 0 },
    notes: "This command allows both access and modification of the key",
}];

pub const COMMANDS: &[CommandSpec] = &[
    data("bitfield", AtLeast(2), WRITE | DENYOOM, BITMAP, FIELD_KEY, bitfield),
    data("bitfield_ro", AtLeast(2), READONLY | FAST, BITMAP, keys::READ, bitfield_ro),
];

/// One operation on one field.
#[derive(Clone, Copy, Debug)]
struct Operation {
    field: Field,
    action: Action,
    overflow: Overflow,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Get,
    Set(i64),
    Add(i64),
}

impl Operation {
    /// Writes the field; gives the reply, which is `None` where the value does not fit and is not written. `is_written` hears
    /// whether it was.
    fn perform(&self, bytes: &mut [u8], is_written: &mut dyn FnMut(bool)) -> Option<i64> {
        let old = self.field.read(bytes);
        let (new, answer) = match self.action {
            Action::Get => return Some(old),
            Action::Set(value) => (self.field.fit(value, 0, self.overflow)?, None),
            Action::Add(increment) => {
                let new = self.field.fit(old, increment, self.overflow)?;
                (new, Some(new))
            }
        };
        self.field.write(bytes, new);
        is_written(old != new);
        Some(answer.unwrap_or(old))
    }
}

type Operations = SmallVec<[Operation; 4]>;

fn parse_operations(arguments: Arguments<'_>) -> Result<Operations, CommandError> {
    let (mut operations, mut overflow) = (Operations::new(), Overflow::default());
    let mut rest = arguments.from(2);
    while let Some(word) = rest.next() {
        if is(word, "overflow") && rest.len() >= 1 {
            overflow = parse_overflow(rest.next().unwrap_or_default())?;
            continue;
        }
        let is_get = is(word, "get");
        let is_known = is_get || is(word, "set") || is(word, "incrby");
        if !is_known || rest.len() < if is_get { 2 } else { 3 } {
            return Err(CommandError::Syntax);
        }
        let field = parse_field(rest.next().unwrap_or_default(), rest.next().unwrap_or_default())?;
        let action = match is_get {
            true => Action::Get,
            false => {
                let value = parse::integer(rest.next().unwrap_or_default())?;
                if is(word, "set") { Action::Set(value) } else { Action::Add(value) }
            }
        };
        operations.push(Operation { field, action, overflow });
    }
    Ok(operations)
}

fn parse_overflow(word: &[u8]) -> Result<Overflow, CommandError> {
    match word {
        _ if is(word, "wrap") => Ok(Overflow::Wrap),
        _ if is(word, "sat") => Ok(Overflow::Saturate),
        _ if is(word, "fail") => Ok(Overflow::Fail),
        _ => Err(CommandError::text("ERR Invalid OVERFLOW type specified")),
    }
}

/// A type (`i16`, `u8`) and an offset, in bits or, behind `#`, in fields of this type.
fn parse_field(kind: &[u8], offset: &[u8]) -> Result<Field, CommandError> {
    const WRONG_TYPE: CommandError = CommandError::text(
        "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.",
    );
    let (signed, greatest, bits) = match kind {
        [b'i', bits @ ..] => (true, 64, bits),
        [b'u', bits @ ..] => (false, 63, bits),
        _ => return Err(WRONG_TYPE),
    };
    let bits = number::parse_i64(bits).filter(|bits| (1..=greatest).contains(bits)).ok_or(WRONG_TYPE)?;
    let (offset, scale) = match offset {
        [b'#', offset @ ..] => (offset, bits),
        _ => (offset, 1),
    };
    let offset = number::parse_i64(offset).and_then(|offset| offset.checked_mul(scale));
    let offset = offset.and_then(|offset| u64::try_from(offset).ok()).filter(|offset| *offset < BITS_MAX);
    Ok(Field { offset: offset.ok_or(WRONG_OFFSET)?, bits: bits as u32, signed })
}

fn bitfield(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let operations = parse_operations(arguments)?;
    let is_writing = |operation: &&Operation| !matches!(operation.action, Action::Get);
    // The string reaches as far as the last field that may be written, also where it is not written then.
    let Some(least) = operations.iter().filter(is_writing).map(|operation| operation.field.bytes().end).max() else {
        return read_fields(keyspace.read_string(arguments.at(1))?, &operations, reply);
    };
    keyspace.edit_string(arguments.at(1), least, event::SET_BIT, |bytes, edit| {
        reply.array(operations.len());
        for operation in &operations {
            let mut changed = false;
            match operation.perform(bytes, &mut |differs| changed = differs || edit.has_grown) {
                Some(value) => reply.integer(value),
                None => reply.null(),
            }
            if changed {
                let place = operation.field.bytes();
                edit.wrote(place.start, &bytes[place]);
            }
        }
    })?;
    Ok(())
}

fn bitfield_ro(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let operations = parse_operations(arguments)?;
    if operations.iter().any(|operation| !matches!(operation.action, Action::Get)) {
        return Err(CommandError::text("ERR BITFIELD_RO only supports the GET subcommand"));
    }
    read_fields(keyspace.read_string(arguments.at(1))?, &operations, reply)
}

/// The fields of a string, or of none, which is zeros.
fn read_fields(string: Option<StringRef<'_>>, operations: &[Operation], reply: &mut ReplyWriter<'_>) -> CommandResult {
    let string = string.unwrap_or(StringRef::Bytes(b""));
    reply.array(operations.len());
    string.with_bytes(|bytes| operations.iter().for_each(|operation| reply.integer(operation.field.read(bytes))));
    Ok(())
}
