//! Deadlines of the fields of a hash, as Redis 7.4 has them.

use std::collections::HashSet;

use crate::base::number;
use crate::commands::error::CommandError;
use crate::commands::parse::{self, is};
use crate::commands::spec::{Arity::*, CommandResult, CommandSpec, DENYOOM, FAST, HASH, READONLY, WRITE, data, keys};
use crate::engine::{Keyspace, event};
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;

pub const COMMANDS: &[CommandSpec] = &[
    data("hexpire", AtLeast(6), WRITE | DENYOOM | FAST, HASH, keys::UPDATE, hexpire),
    data("hexpireat", AtLeast(6), WRITE | DENYOOM | FAST, HASH, keys::UPDATE, hexpireat),
    data("hexpiretime", AtLeast(5), READONLY | FAST, HASH, keys::READ, hexpiretime),
    data("hpersist", AtLeast(5), WRITE | FAST, HASH, keys::UPDATE, hpersist),
    data("hpexpire", AtLeast(6), WRITE | DENYOOM | FAST, HASH, keys::UPDATE, hpexpire),
    data("hpexpireat", AtLeast(6), WRITE | DENYOOM | FAST, HASH, keys::UPDATE, hpexpireat),
    data("hpexpiretime", AtLeast(5), READONLY | FAST, HASH, keys::READ, hpexpiretime),
    data("hpttl", AtLeast(5), READONLY | FAST, HASH, keys::READ, hpttl),
    data("httl", AtLeast(5), READONLY | FAST, HASH, keys::READ, httl),
];

/// The greatest deadline of a field, in Unix milliseconds: Redis keeps 46 bits of it.
const DEADLINE_MAX_MS: i64 = (1 << 46) - 1;

const NOT_POSITIVE: &str = "ERR Number of fields must be a positive integer";

const NO_FIELD: i64 = -2;
const NO_DEADLINE: i64 = -1;

/// How a command names a moment: in how many milliseconds, and counted from when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    pub(super) unit_ms: i64,
    pub(super) since_ms: u64,
}

impl Scale {
    /// The moment that an argument names, in Unix milliseconds.
    ///
    /// # Errors
    /// Redis's own (parseExpireTime); `command` is named in one of them.
    pub(super) fn moment(self, argument: &[u8], command: &str) -> Result<u64, CommandError> {
        let time = parse::integer(argument)?;
        let time = u64::try_from(time).map_err(|_| CommandError::text("ERR invalid expire time, must be >= 0"))?;
        time.checked_mul(self.unit_ms.unsigned_abs())
            .and_then(|ms| ms.checked_add(self.since_ms))
            .filter(|ms| *ms <= DEADLINE_MAX_MS.unsigned_abs())
            .ok_or_else(|| CommandError::Text(format!("ERR invalid expire time in '{command}' command").into()))
    }
}

/// The fields that follow the word FIELDS, which is the argument `index`, and their number.
///
/// # Errors
/// Redis's own; `not_positive` is what it says of a number of fields that is none, or below 1.
pub(super) fn named_fields<'a>(
    arguments: Arguments<'a>,
    index: usize,
    not_positive: &'static str,
) -> Result<impl ExactSizeIterator<Item = &'a [u8]> + Clone, CommandError> {
    if !is(arguments.at(index), "fields") {
        return Err(CommandError::text("ERR Mandatory argument FIELDS is missing or not at the right position"));
    }
    let count = number::parse_i64(arguments.at(index + 1)).filter(|count| *count > 0);
    let count = count.ok_or(CommandError::text(not_positive))?;
    let fields = arguments.from(index + 2);
    if usize::try_from(count) != Ok(fields.len()) {
        return Err(CommandError::text("ERR The `numfields` parameter must match the number of arguments"));
    }
    Ok(fields)
}

/// The same with what Redis says nearly everywhere.
pub(super) fn fields_at<'a>(
    arguments: Arguments<'a>,
    index: usize,
) -> Result<impl ExactSizeIterator<Item = &'a [u8]> + Clone, CommandError> {
    named_fields(arguments, index, NOT_POSITIVE)
}

/// When a deadline may replace what a field has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Always,
    IfNone,
    IfAny,
    IfLater,
    IfEarlier,
}

impl Condition {
    /// What a word says; no condition where it says something else.
    fn parse(word: &[u8]) -> Condition {
        match word {
            _ if is(word, "nx") => Condition::IfNone,
            _ if is(word, "xx") => Condition::IfAny,
            _ if is(word, "gt") => Condition::IfLater,
            _ if is(word, "lt") => Condition::IfEarlier,
            _ => Condition::Always,
        }
    }

    /// Whether `new` may replace `old`; no deadline counts as infinitely late.
    fn allows(self, old: Option<u64>, new: u64) -> bool {
        match self {
            Condition::Always => true,
            Condition::IfNone => old.is_none(),
            Condition::IfAny => old.is_some(),
            Condition::IfLater => old.is_some_and(|old| new > old),
            Condition::IfEarlier => old.is_none_or(|old| new < old),
        }
    }
}

fn hexpire(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let scale = Scale { unit_ms: 1000, since_ms: keyspace.now_ms() };
    set_deadlines(keyspace, arguments, scale, "hexpire", reply)
}

fn hexpireat(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    set_deadlines(keyspace, arguments, Scale { unit_ms: 1000, since_ms: 0 }, "hexpireat", reply)
}

fn hpexpire(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let scale = Scale { unit_ms: 1, since_ms: keyspace.now_ms() };
    set_deadlines(keyspace, arguments, scale, "hpexpire", reply)
}

fn hpexpireat(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    set_deadlines(keyspace, arguments, Scale { unit_ms: 1, since_ms: 0 }, "hpexpireat", reply)
}

/// Answers for each field: -2 there is none, 0 the condition is not met, 1 it has the deadline, 2 that has passed already
/// and the field is gone.
fn set_deadlines(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    scale: Scale,
    command: &'static str,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let (key, now_ms) = (arguments.at(1), keyspace.now_ms());
    let hash = keyspace.peek_hash(key)?;
    let deadline = scale.moment(arguments.at(2), command)?;
    let condition = Condition::parse(arguments.at(3));
    let index = if condition == Condition::Always { 3 } else { 4 };
    let fields = named_fields(arguments, index, "ERR Parameter `numFields` should be greater than 0")?;
    let is_past = deadline <= now_ms;
    reply.array(fields.len());
    // A field that is named twice is, the second time, what it was made the first time.
    let (mut changed, mut seen) = (Vec::new(), HashSet::new());
    for field in fields {
        let before = match seen.contains(field) {
            true => (!is_past).then_some(Some(deadline)),
            false => hash.and_then(|hash| hash.deadline(field)),
        };
        reply.integer(match before {
            None => NO_FIELD,
            Some(old) if !condition.allows(old, deadline) => 0,
            Some(_) => {
                seen.insert(field);
                changed.push(field);
                if is_past { 2 } else { 1 }
            }
        });
    }
    if is_past {
        keyspace.hash_remove(key, changed.into_iter())?;
    } else if !changed.is_empty() {
        let (count, timed) = (changed.len(), changed.into_iter().map(|field| (field, Some(deadline))));
        keyspace.hash_set_deadlines(key, timed, count, event::HASH_EXPIRE)?;
    }
    Ok(())
}

/// Answers for each field: -2 there is none, -1 it has no deadline, 1 it had one.
fn hpersist(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let key = arguments.at(1);
    let hash = keyspace.peek_hash(key)?;
    let fields = fields_at(arguments, 2)?;
    reply.array(fields.len());
    let mut changed = HashSet::new();
    for field in fields {
        reply.integer(match hash.and_then(|hash| hash.deadline(field)) {
            None => NO_FIELD,
            Some(Some(_)) if changed.insert(field) => 1,
            Some(_) => NO_DEADLINE,
        });
    }
    if !changed.is_empty() {
        keyspace.hash_set_deadlines(key, changed.iter().map(|field| (*field, None)), 1, event::HASH_PERSIST)?;
    }
    Ok(())
}

fn httl(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let now_ms = keyspace.now_ms();
    // Begun seconds count.
    write_deadlines(keyspace, arguments, reply, |deadline| deadline.saturating_sub(now_ms).div_ceil(1000))
}

fn hpttl(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let now_ms = keyspace.now_ms();
    write_deadlines(keyspace, arguments, reply, |deadline| deadline.saturating_sub(now_ms))
}

fn hexpiretime(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    write_deadlines(keyspace, arguments, reply, |deadline| deadline.div_ceil(1000))
}

fn hpexpiretime(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    write_deadlines(keyspace, arguments, reply, |deadline| deadline)
}

/// Answers for each field: -2 there is none, -1 it has no deadline, or what `show` makes of that.
fn write_deadlines(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
    show: impl Fn(u64) -> u64,
) -> CommandResult {
    let hash = keyspace.read_hash(arguments.at(1))?;
    let fields = fields_at(arguments, 2)?;
    reply.array(fields.len());
    for field in fields {
        reply.integer(match hash.and_then(|hash| hash.deadline(field)) {
            None => NO_FIELD,
            Some(None) => NO_DEADLINE,
            Some(Some(deadline)) => show(deadline).cast_signed(),
        });
    }
    Ok(())
}
