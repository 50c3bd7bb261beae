//! Strings that are changed where they are what the client thinks: SET's and DELEX's conditions and DIGEST of Redis 8.4,
//! DELIFEQ of Valkey 9; and MSETEX.

use super::{Accepts, SetOptions};
use crate::commands::error::CommandError;
use crate::commands::parse::is;
use crate::commands::spec::{
    Access, Arity::*, CommandResult, CommandSpec, DENYOOM, FAST, Find, KeySpec, MOVABLE_KEYS, READONLY, STRING, WRITE,
    data, keys,
};
use crate::engine::entry::{Entry, StringRef};
use crate::engine::{Deadline, Keyspace, event};
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;
use xxhash_rust::xxh3::xxh3_64;

const COUNTED_PAIRS: &[KeySpec] =
    &[keys::at(1, Find::Count { count: 0, first: 1, step: 2 }, Access::Overwrite, "update")];

pub const COMMANDS: &[CommandSpec] = &[
    data("delex", AtLeast(2), WRITE | FAST, STRING, keys::DELETE, delex),
    data("delifeq", Exactly(3), WRITE | FAST, STRING, keys::DELETE, delifeq),
    data("digest", Exactly(2), READONLY | FAST, STRING, keys::READ, digest),
    data("msetex", AtLeast(4), WRITE | DENYOOM | MOVABLE_KEYS, STRING, COUNTED_PAIRS, msetex),
];

/// Digits of a digest.
const DIGEST_DIGITS: usize = 16;

/// What a string must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition<'a> {
    /// The string it is compared with, or its digest.
    operand: &'a [u8],
    by_digest: bool,
    /// It must be the same; otherwise another one.
    same: bool,
}

impl<'a> Condition<'a> {
    /// The condition of these words, if the first is one.
    pub(super) fn parse(word: &[u8], operand: &'a [u8]) -> Option<Condition<'a>> {
        let (by_digest, same) = match word {
            _ if is(word, "ifeq") => (false, true),
            _ if is(word, "ifne") => (false, false),
            _ if is(word, "ifdeq") => (true, true),
            _ if is(word, "ifdne") => (true, false),
            _ => return None,
        };
        Some(Condition { operand, by_digest, same })
    }

    /// Whether an entry is as it must be; one that is missing is another one than any.
    ///
    /// # Errors
    /// It is no string, or the operand no digest: Redis looks at that only where there is a key.
    pub(super) fn holds(&self, entry: Option<&Entry>) -> Result<bool, CommandError> {
        let Some(entry) = entry else { return Ok(!self.same) };
        let string = entry.as_string().ok_or(CommandError::WrongType)?;
        if !self.by_digest {
            return Ok(string.with_bytes(|bytes| bytes == self.operand) == self.same);
        }
        if self.operand.len() != DIGEST_DIGITS {
            return Err(CommandError::text("ERR must be exactly 16 hexadecimal characters"));
        }
        Ok(digest_of(string).as_bytes().eq_ignore_ascii_case(self.operand) == self.same)
    }
}

/// The digest of a string: XXH3 in hexadecimal.
fn digest_of(string: StringRef<'_>) -> String {
    format!("{:016x}", string.with_bytes(xxh3_64))
}

fn digest(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    match keyspace.read_string(arguments.at(1))? {
        Some(string) => reply.bulk(digest_of(string).as_bytes()),
        None => reply.null(),
    }
    Ok(())
}

fn delex(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let key = arguments.at(1);
    let is_wanted = match arguments.len() {
        2 => true,
        4 => {
            let condition = Condition::parse(arguments.at(2), arguments.at(3))
                .ok_or(CommandError::text("ERR Invalid condition. Use IFEQ, IFNE, IFDEQ, or IFDNE"))?;
            let entry = keyspace.peek(key);
            if entry.is_some_and(|entry| entry.as_string().is_none()) {
                return Err(CommandError::text("ERR Key should be of string type if conditions are specified"));
            }
            condition.holds(entry)?
        }
        _ => return Err(CommandError::WrongArity("delex".into())),
    };
    reply.integer(i64::from(is_wanted && keyspace.delete(key)));
    Ok(())
}

fn delifeq(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let key = arguments.at(1);
    let condition = Condition { operand: arguments.at(2), by_digest: false, same: true };
    let is_wanted = condition.holds(keyspace.peek(key))?;
    reply.integer(i64::from(is_wanted && keyspace.delete(key)));
    Ok(())
}

fn msetex(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let count = crate::base::number::parse_i64(arguments.at(1)).and_then(|count| i32::try_from(count).ok());
    let count = count.filter(|count| *count > 0).ok_or(CommandError::text("ERR invalid numkeys value"))?;
    let end = 2 + count as usize * 2;
    if end > arguments.len() {
        return Err(CommandError::text("ERR wrong number of key-value pairs"));
    }
    let options = SetOptions::parse(arguments, end, Accepts::MsetEx)?;
    let deadline = options.when(keyspace.now_ms(), "msetex")?;
    let pairs = (2..end).step_by(2).map(|index| (arguments.at(index), arguments.at(index + 1)));
    let is_wanted = (!options.if_absent && !options.if_present)
        || pairs.clone().all(|(key, _)| keyspace.exists(key) == options.if_present);
    if is_wanted {
        for (key, value) in pairs {
            keyspace.set_string(key, value, deadline);
            if matches!(deadline, Deadline::At(_)) {
                keyspace.happened(key, event::EXPIRE);
            }
        }
    }
    reply.integer(i64::from(is_wanted));
    Ok(())
}
