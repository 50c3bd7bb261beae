//! Deadlines of keys.

use crate::commands::error::CommandError;
use crate::commands::parse::{self, is};
use crate::commands::spec::{Arity::*, CommandResult, CommandSpec, FAST, KEYSPACE, READONLY, WRITE, data, keys};
use crate::engine::Keyspace;
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;

const RANDOM: &[&str] = &["nondeterministic_output"];

pub const COMMANDS: &[CommandSpec] = &[
    data("expire", AtLeast(3), WRITE | FAST, KEYSPACE, keys::UPDATE, expire),
    data("expireat", AtLeast(3), WRITE | FAST, KEYSPACE, keys::UPDATE, expireat),
    data("expiretime", Exactly(2), READONLY | FAST, KEYSPACE, keys::READ, expiretime),
    data("persist", Exactly(2), WRITE | FAST, KEYSPACE, keys::UPDATE, persist),
    data("pexpire", AtLeast(3), WRITE | FAST, KEYSPACE, keys::UPDATE, pexpire),
    data("pexpireat", AtLeast(3), WRITE | FAST, KEYSPACE, keys::UPDATE, pexpireat),
    data("pexpiretime", Exactly(2), READONLY | FAST, KEYSPACE, keys::READ, pexpiretime),
    data("pttl", Exactly(2), READONLY | FAST, KEYSPACE, keys::READ, pttl).tips(RANDOM),
    data("ttl", Exactly(2), READONLY | FAST, KEYSPACE, keys::READ, ttl).tips(RANDOM),
];

fn expire(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let since = keyspace.now_ms();
    set_deadline(keyspace, arguments, since, 1000, "expire", reply)
}

fn expireat(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    set_deadline(keyspace, arguments, 0, 1000, "expireat", reply)
}

fn pexpire(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let since = keyspace.now_ms();
    set_deadline(keyspace, arguments, since, 1, "pexpire", reply)
}

fn pexpireat(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    set_deadline(keyspace, arguments, 0, 1, "pexpireat", reply)
}

/// When a deadline may replace the one that is there.
#[derive(Default)]
struct Conditions {
    if_none: bool,
    if_any: bool,
    if_later: bool,
    if_earlier: bool,
}

impl Conditions {
    fn parse(arguments: Arguments<'_>) -> Result<Conditions, CommandError> {
        let mut conditions = Conditions::default();
        for word in arguments.from(3) {
            match word {
                _ if is(word, "nx") => conditions.if_none = true,
                _ if is(word, "xx") => conditions.if_any = true,
                _ if is(word, "gt") => conditions.if_later = true,
                _ if is(word, "lt") => conditions.if_earlier = true,
                _ => {
                    let word = String::from_utf8_lossy(word);
                    return Err(CommandError::Text(format!("ERR Unsupported option {word}").into()));
                }
            }
        }
        if conditions.if_none && (conditions.if_any || conditions.if_later || conditions.if_earlier) {
            return Err(CommandError::text("ERR NX and XX, GT or LT options at the same time are not compatible"));
        }
        if conditions.if_later && conditions.if_earlier {
            return Err(CommandError::text("ERR GT and LT options at the same time are not compatible"));
        }
        Ok(conditions)
    }

    /// Whether `new` may replace `old`; no deadline counts as infinitely late.
    fn allow(&self, old: Option<u64>, new: i64) -> bool {
        let old = old.map(|old| old as i64);
        !(self.if_none && old.is_some()
            || self.if_any && old.is_none()
            || self.if_later && old.is_none_or(|old| new <= old)
            || self.if_earlier && old.is_some_and(|old| new >= old))
    }
}

fn set_deadline(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    since_ms: u64,
    scale: i64,
    command: &str,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let key = arguments.at(1);
    let conditions = Conditions::parse(arguments)?;
    let time = parse::integer(arguments.at(2))?;
    let deadline = time
        .checked_mul(scale)
        .and_then(|ms| ms.checked_add(since_ms as i64))
        .ok_or_else(|| CommandError::Text(format!("ERR invalid expire time in '{command}' command").into()))?;
    let Some(old) = keyspace.peek(key).map(|entry| entry.deadline()) else {
        reply.integer(0);
        return Ok(());
    };
    let allowed = conditions.allow(old, deadline);
    if allowed {
        if deadline <= keyspace.now_ms() as i64 {
            keyspace.delete(key);
        } else {
            keyspace.set_deadline(key, Some(deadline as u64));
        }
    }
    reply.integer(i64::from(allowed));
    Ok(())
}

fn persist(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let key = arguments.at(1);
    let has_deadline = keyspace.peek(key).is_some_and(|entry| entry.deadline().is_some());
    if has_deadline {
        keyspace.set_deadline(key, None);
    }
    reply.integer(i64::from(has_deadline));
    Ok(())
}

fn ttl(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let now_ms = keyspace.now_ms();
    // Redis rounds to the nearest second.
    write_deadline(keyspace, arguments, reply, |deadline| (deadline.saturating_sub(now_ms) + 500) / 1000)
}

fn pttl(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let now_ms = keyspace.now_ms();
    write_deadline(keyspace, arguments, reply, |deadline| deadline.saturating_sub(now_ms))
}

fn expiretime(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    write_deadline(keyspace, arguments, reply, |deadline| (deadline + 500) / 1000)
}

fn pexpiretime(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    write_deadline(keyspace, arguments, reply, |deadline| deadline)
}

/// -2: no such key; -1: no deadline.
fn write_deadline(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
    show: impl Fn(u64) -> u64,
) -> CommandResult {
    match keyspace.peek(arguments.at(1)).map(|entry| entry.deadline()) {
        None => reply.integer(-2),
        Some(None) => reply.integer(-1),
        Some(Some(deadline)) => reply.integer(show(deadline) as i64),
    }
    Ok(())
}
