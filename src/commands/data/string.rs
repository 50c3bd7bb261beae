//! Strings.

pub mod condition;

use crate::base::number;
use crate::commands::error::CommandError;
use crate::commands::parse::{self, is};
use crate::commands::spec::{
    Access, Arity::*, Begin, CommandResult, CommandSpec, DENYOOM, FAST, Find, KeySpec, READONLY, SPREAD, STRING, WRITE,
    data, keys,
};
use crate::engine::entry::{Entry, StringRef};
use crate::engine::event;
use crate::engine::{Deadline, Increment, Keyspace, STRING_BYTES_MAX};
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;
use condition::Condition;

/// SET reads the old value where it has GET, and deletes nothing but may expire: Redis says its flags vary.
const SET_KEY: &[KeySpec] = &[KeySpec {
    access: Access::ReadWrite,
    effects: "access update variable_flags",
    begin: Begin::Index(1),
    find: Find::Range { last: 0, step: 1, limit: 0 },
    notes: "RW and ACCESS due to the optional `GET` argument",
}];
/// GETEX may persist or expire.
const GETEX_KEY: &[KeySpec] = &[KeySpec {
    access: Access::ReadWrite,
    effects: "access update",
    begin: Begin::Index(1),
    find: Find::Range { last: 0, step: 1, limit: 0 },
    notes: "RW and UPDATE because it changes the TTL",
}];
const EVERY_READ: &[KeySpec] = &[keys::all(Access::ReadOnly, "access")];
const PAIRS: Find = Find::Range { last: -1, step: 2, limit: 0 };
const PAIRS_OVERWRITE: &[KeySpec] = &[keys::at(1, PAIRS, Access::Overwrite, "update")];
const PAIRS_INSERT: &[KeySpec] = &[keys::at(1, PAIRS, Access::Overwrite, "insert")];
const TWO_READ: &[KeySpec] = &[keys::at(1, Find::Range { last: 1, step: 1, limit: 0 }, Access::ReadOnly, "access")];
const MULTI_SHARD: &[&str] = &["request_policy:multi_shard"];
const MULTI_SHARD_LEAST: &[&str] = &["request_policy:multi_shard", "response_policy:agg_min"];
const MULTI_SHARD_SUCCEEDED: &[&str] = &["request_policy:multi_shard", "response_policy:all_succeeded"];

pub const COMMANDS: &[CommandSpec] = &[
    data("append", Exactly(3), WRITE | DENYOOM | FAST, STRING, keys::INSERT, append),
    data("decr", Exactly(2), WRITE | DENYOOM | FAST, STRING, keys::READ_UPDATE, decr),
    data("decrby", Exactly(3), WRITE | DENYOOM | FAST, STRING, keys::READ_UPDATE, decrby),
    data("get", Exactly(2), READONLY | FAST, STRING, keys::READ, get),
    data("getdel", Exactly(2), WRITE | FAST, STRING, keys::READ_DELETE, getdel),
    data("getex", AtLeast(2), WRITE | FAST, STRING, GETEX_KEY, getex),
    data("getrange", Exactly(4), READONLY, STRING, keys::READ, getrange),
    data("getset", Exactly(3), WRITE | DENYOOM | FAST, STRING, keys::READ_UPDATE, getset),
    data("incr", Exactly(2), WRITE | DENYOOM | FAST, STRING, keys::READ_UPDATE, incr),
    data("incrby", Exactly(3), WRITE | DENYOOM | FAST, STRING, keys::READ_UPDATE, incrby),
    data("incrbyfloat", Exactly(3), WRITE | DENYOOM | FAST, STRING, keys::READ_UPDATE, incrbyfloat),
    data("lcs", AtLeast(3), READONLY, STRING, TWO_READ, lcs),
    data("mget", AtLeast(2), READONLY | FAST | SPREAD, STRING, EVERY_READ, mget).tips(MULTI_SHARD),
    data("mset", AtLeast(3), WRITE | DENYOOM | SPREAD, STRING, PAIRS_OVERWRITE, mset)
        .tips(MULTI_SHARD_SUCCEEDED)
        .check(|arguments| check_pairs(arguments, "mset")),
    data("msetnx", AtLeast(3), WRITE | DENYOOM, STRING, PAIRS_INSERT, msetnx)
        .tips(MULTI_SHARD_LEAST)
        .check(|arguments| check_pairs(arguments, "msetnx")),
    data("psetex", Exactly(4), WRITE | DENYOOM, STRING, keys::OVERWRITE, psetex),
    data("set", AtLeast(3), WRITE | DENYOOM, STRING, SET_KEY, set),
    data("setex", Exactly(4), WRITE | DENYOOM, STRING, keys::OVERWRITE, setex),
    data("setnx", Exactly(3), WRITE | DENYOOM | FAST, STRING, &[keys::one(1, Access::Overwrite, "insert")], setnx),
    data("setrange", Exactly(4), WRITE | DENYOOM, STRING, keys::UPDATE, setrange),
    data("strlen", Exactly(2), READONLY | FAST, STRING, keys::LOOK, strlen),
    data("substr", Exactly(4), READONLY, STRING, keys::READ, getrange),
];

const TOO_LONG: CommandError = CommandError::text("ERR string exceeds maximum allowed size (proto-max-bulk-len)");

fn get(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    write_string(keyspace, arguments.at(1), reply)
}

/// The key's string, or null.
fn write_string(keyspace: &mut Keyspace<'_>, key: &[u8], reply: &mut ReplyWriter<'_>) -> CommandResult {
    match keyspace.read_string(key)? {
        Some(string) => string.with_bytes(|bytes| reply.bulk(bytes)),
        None => reply.null(),
    }
    Ok(())
}

/// What the options of SET and GETEX say.
#[derive(Default)]
struct SetOptions<'a> {
    /// A time to live, looked at when all words are known to be right.
    time: Option<(TimeUnit, &'a [u8])>,
    keep_ttl: bool,
    persist: bool,
    condition: Option<Condition<'a>>,
    if_absent: bool,
    if_present: bool,
    get: bool,
}

/// Which words are options.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Accepts {
    Set,
    GetEx,
    MsetEx,
}

impl<'a> SetOptions<'a> {
    fn parse(arguments: Arguments<'a>, from: usize, accepts: Accepts) -> Result<SetOptions<'a>, CommandError> {
        let mut options = SetOptions::default();
        let mut rest = arguments.from(from);
        while let Some(word) = rest.next() {
            let accepted = match TimeUnit::from_option(word) {
                Some(unit) => match rest.next() {
                    Some(time) if options.time.is_none() && !options.keep_ttl && !options.persist => {
                        options.time = Some((unit, time));
                        true
                    }
                    _ => false,
                },
                None => options.take_word(word, accepts) || options.take_condition(word, &mut rest, accepts),
            };
            if !accepted {
                return Err(CommandError::Syntax);
            }
        }
        Ok(options)
    }

    /// Takes a word without an argument; false where it may not stand here.
    fn take_word(&mut self, word: &[u8], accepts: Accepts) -> bool {
        let (sets, free) = (accepts != Accepts::GetEx, self.condition.is_none());
        match word {
            _ if sets && is(word, "nx") && !self.if_present && free => self.if_absent = true,
            _ if sets && is(word, "xx") && !self.if_absent && free => self.if_present = true,
            _ if accepts == Accepts::Set && is(word, "get") => self.get = true,
            _ if sets && is(word, "keepttl") && self.time.is_none() => self.keep_ttl = true,
            _ if !sets && is(word, "persist") && self.time.is_none() => self.persist = true,
            _ => return false,
        }
        true
    }

    /// Takes a word that says what the string must be, and what it is compared with; false where they may not stand here.
    fn take_condition(&mut self, word: &[u8], rest: &mut impl Iterator<Item = &'a [u8]>, accepts: Accepts) -> bool {
        if accepts != Accepts::Set || self.condition.is_some() || self.if_absent || self.if_present {
            return false;
        }
        self.condition = rest.next().and_then(|operand| Condition::parse(word, operand));
        self.condition.is_some()
    }

    /// What becomes of the deadline of a key that is set.
    fn when(&self, now_ms: u64, command: &str) -> Result<Deadline, CommandError> {
        Ok(match self.deadline(now_ms, command)? {
            // Also one in the past: the key is there, and expired, until somebody looks.
            Some(at) => Deadline::At(at),
            None if self.keep_ttl => Deadline::Keep,
            None => Deadline::Clear,
        })
    }

    /// The deadline that the time means; `None` where there is no time.
    fn deadline(&self, now_ms: u64, command: &str) -> Result<Option<u64>, CommandError> {
        self.time.map(|(unit, time)| unit.deadline(time, now_ms, command)).transpose()
    }
}

/// How a time to live is given.
#[derive(Clone, Copy)]
enum TimeUnit {
    Seconds,
    Milliseconds,
    UnixSeconds,
    UnixMilliseconds,
}

impl TimeUnit {
    fn from_option(word: &[u8]) -> Option<TimeUnit> {
        match word {
            _ if is(word, "ex") => Some(TimeUnit::Seconds),
            _ if is(word, "px") => Some(TimeUnit::Milliseconds),
            _ if is(word, "exat") => Some(TimeUnit::UnixSeconds),
            _ if is(word, "pxat") => Some(TimeUnit::UnixMilliseconds),
            _ => None,
        }
    }

    /// The deadline in Unix milliseconds; must lie behind the year 1970, and fit.
    fn deadline(self, time: &[u8], now_ms: u64, command: &str) -> Result<u64, CommandError> {
        let invalid = || CommandError::Text(format!("ERR invalid expire time in '{command}' command").into());
        let time = parse::integer(time)?;
        if time <= 0 {
            return Err(invalid());
        }
        let scale = if matches!(self, TimeUnit::Seconds | TimeUnit::UnixSeconds) { 1000 } else { 1 };
        let since = if matches!(self, TimeUnit::Seconds | TimeUnit::Milliseconds) { now_ms as i64 } else { 0 };
        let deadline = time.checked_mul(scale).and_then(|ms| ms.checked_add(since)).ok_or_else(invalid)?;
        Ok(deadline as u64)
    }
}

fn set(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let (key, value) = (arguments.at(1), arguments.at(2));
    if arguments.len() == 3 {
        keyspace.set_string(key, value, Deadline::Clear);
        reply.ok();
        return Ok(());
    }
    let options = SetOptions::parse(arguments, 3, Accepts::Set)?;
    let deadline = options.when(keyspace.now_ms(), "set")?;
    let is_as_it_must_be = match options.condition {
        Some(condition) => condition.holds(keyspace.peek(key))?,
        None => true,
    };
    if options.get {
        write_string(keyspace, key, reply)?;
    }
    let is_wanted = |before: Option<&Entry>| match before {
        _ if !is_as_it_must_be => false,
        Some(_) => !options.if_absent,
        None => !options.if_present,
    };
    let is_set =
        keyspace.set_string_if(key, value, deadline, event::SET, |before| Ok::<_, CommandError>(is_wanted(before)))?;
    if is_set && matches!(deadline, Deadline::At(_)) {
        keyspace.happened(key, event::EXPIRE);
    }
    match is_set {
        _ if options.get => {}
        true => reply.ok(),
        false => reply.null(),
    }
    Ok(())
}

fn setnx(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let (key, value) = (arguments.at(1), arguments.at(2));
    let is_absent = |before: Option<&Entry>| Ok::<_, CommandError>(before.is_none());
    let is_set = keyspace.set_string_if(key, value, Deadline::Clear, event::SET, is_absent)?;
    reply.integer(i64::from(is_set));
    Ok(())
}

fn setex(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    set_with_time(keyspace, arguments, TimeUnit::Seconds, "setex", reply)
}

fn psetex(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    set_with_time(keyspace, arguments, TimeUnit::Milliseconds, "psetex", reply)
}

fn set_with_time(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    unit: TimeUnit,
    command: &str,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let deadline = unit.deadline(arguments.at(2), keyspace.now_ms(), command)?;
    keyspace.set_string(arguments.at(1), arguments.at(3), Deadline::At(deadline));
    keyspace.happened(arguments.at(1), event::EXPIRE);
    reply.ok();
    Ok(())
}

fn getset(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    write_string(keyspace, arguments.at(1), reply)?;
    keyspace.set_string(arguments.at(1), arguments.at(2), Deadline::Clear);
    Ok(())
}

fn getdel(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    write_string(keyspace, arguments.at(1), reply)?;
    keyspace.delete(arguments.at(1));
    Ok(())
}

fn getex(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let options = SetOptions::parse(arguments, 2, Accepts::GetEx)?;
    let key = arguments.at(1);
    if !keyspace.exists(key) {
        reply.null();
        return Ok(());
    }
    write_string(keyspace, key, reply)?;
    match options.deadline(keyspace.now_ms(), "getex")? {
        Some(at) if at <= keyspace.now_ms() => {
            keyspace.delete(key);
        }
        Some(at) => {
            keyspace.set_deadline(key, Some(at));
        }
        None if options.persist && keyspace.peek(key).is_some_and(|entry| entry.deadline().is_some()) => {
            keyspace.set_deadline(key, None);
        }
        None => {}
    }
    Ok(())
}

fn mget(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    reply.array(arguments.len() - 1);
    for key in arguments.from(1) {
        match keyspace.read_string(key) {
            Ok(Some(string)) => string.with_bytes(|bytes| reply.bulk(bytes)),
            // A key of another kind counts as missing.
            Ok(None) | Err(_) => reply.null(),
        }
    }
    Ok(())
}

/// Every key of MSET has a value.
fn check_pairs(arguments: Arguments<'_>, name: &'static str) -> CommandResult {
    if arguments.len().is_multiple_of(2) { Err(CommandError::WrongArity(name.into())) } else { Ok(()) }
}

/// The pairs of MSET.
fn pairs<'a>(
    arguments: Arguments<'a>,
    name: &'static str,
) -> Result<impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone, CommandError> {
    check_pairs(arguments, name)?;
    Ok((1..arguments.len()).step_by(2).map(move |index| (arguments.at(index), arguments.at(index + 1))))
}

fn mset(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    for (key, value) in pairs(arguments, "mset")? {
        keyspace.set_string(key, value, Deadline::Clear);
    }
    reply.ok();
    Ok(())
}

fn msetnx(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let pairs = pairs(arguments, "msetnx")?;
    let all_absent = pairs.clone().all(|(key, _)| !keyspace.exists(key));
    if all_absent {
        for (key, value) in pairs {
            keyspace.set_string(key, value, Deadline::Clear);
        }
    }
    reply.integer(i64::from(all_absent));
    Ok(())
}

fn strlen(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let length = keyspace.read_string(arguments.at(1))?.map_or(0, |string| string.len());
    reply.count(length);
    Ok(())
}

fn append(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let (key, tail) = (arguments.at(1), arguments.at(2));
    let length = keyspace.peek_string(key)?.map(|string| string.len());
    let length = match length {
        // A new string is set whole, so that a number stays a number.
        None => {
            keyspace.set_string_as(key, tail, Deadline::Clear, event::APPEND);
            tail.len()
        }
        Some(length) if length + tail.len() > STRING_BYTES_MAX => return Err(TOO_LONG),
        Some(_) => keyspace.append(key, tail)?,
    };
    reply.count(length);
    Ok(())
}

fn setrange(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let (key, value) = (arguments.at(1), arguments.at(3));
    let offset = parse::integer(arguments.at(2))?;
    if offset < 0 {
        return Err(CommandError::text("ERR offset is out of range"));
    }
    let length = keyspace.peek_string(key)?.map_or(0, |string| string.len());
    if value.is_empty() {
        reply.count(length);
        return Ok(());
    }
    if (offset as usize).saturating_add(value.len()) > STRING_BYTES_MAX {
        return Err(TOO_LONG);
    }
    let length = keyspace.set_range(key, offset as usize, value)?;
    reply.count(length);
    Ok(())
}

fn getrange(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let start = parse::integer(arguments.at(2))?;
    let end = parse::integer(arguments.at(3))?;
    match keyspace.read_string(arguments.at(1))? {
        None => reply.bulk(b""),
        Some(string) => string.with_bytes(|bytes| reply.bulk(slice(bytes, start, end))),
    }
    Ok(())
}

/// The bytes from `start` to `end`, both included; negative ones count from the end.
fn slice(bytes: &[u8], start: i64, end: i64) -> &[u8] {
    let length = bytes.len() as i64;
    if start < 0 && end < 0 && start > end {
        return b"";
    }
    let from_end = |index: i64| if index < 0 { (length + index).max(0) } else { index };
    let (start, end) = (from_end(start), from_end(end).min(length - 1));
    if start > end || length == 0 { b"" } else { &bytes[start as usize..=end as usize] }
}

fn incr(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    add(keyspace, arguments.at(1), 1, reply)
}

fn decr(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    add(keyspace, arguments.at(1), -1, reply)
}

fn incrby(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    add(keyspace, arguments.at(1), parse::integer(arguments.at(2))?, reply)
}

fn decrby(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let decrement = parse::integer(arguments.at(2))?;
    let increment = decrement.checked_neg().ok_or(CommandError::text("ERR decrement would overflow"))?;
    add(keyspace, arguments.at(1), increment, reply)
}

fn add(keyspace: &mut Keyspace<'_>, key: &[u8], increment: i64, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let sum = keyspace.update_integer(key, |string| {
        let value = match string {
            None => 0,
            Some(StringRef::Integer(value)) => value,
            Some(string) => string.with_bytes(parse::integer)?,
        };
        let sum = value.checked_add(increment);
        let result = sum.ok_or(CommandError::text("ERR increment or decrement would overflow"))?;
        Ok::<_, CommandError>(Increment { change: increment, result })
    })?;
    reply.integer(sum);
    Ok(())
}

fn incrbyfloat(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let (key, increment) = (arguments.at(1), arguments.at(2));
    let value = keyspace.peek_string(key)?.map_or_else(|| b"0".to_vec(), |string| string.to_vec());
    if !number::is_decimal(&value) || !number::is_decimal(increment) {
        return Err(CommandError::NotAFloat);
    }
    let sum = number::add_decimal(&value, increment)
        .ok_or(CommandError::text("ERR increment would produce NaN or Infinity"))?;
    keyspace.set_string_as(key, sum.as_bytes(), Deadline::Keep, event::INCREMENT_FLOAT);
    reply.bulk(sum.as_bytes());
    Ok(())
}

/// What LCS is asked for.
#[derive(Default)]
struct LcsOptions {
    length_only: bool,
    matches: bool,
    with_length: bool,
    shortest: i64,
}

fn lcs(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    const WRONG: CommandError = CommandError::text("ERR The specified keys must contain string values");
    let first = keyspace.read_string(arguments.at(1)).map_err(|_| WRONG)?.map_or_else(Vec::new, |s| s.to_vec());
    let second = keyspace.read_string(arguments.at(2)).map_err(|_| WRONG)?.map_or_else(Vec::new, |s| s.to_vec());
    let mut options = LcsOptions::default();
    let mut rest = arguments.from(3);
    while let Some(word) = rest.next() {
        match word {
            _ if is(word, "len") => options.length_only = true,
            _ if is(word, "idx") => options.matches = true,
            _ if is(word, "withmatchlen") => options.with_length = true,
            _ if is(word, "minmatchlen") => {
                options.shortest = parse::integer(rest.next().ok_or(CommandError::Syntax)?)?.max(0);
            }
            _ => return Err(CommandError::Syntax),
        }
    }
    if options.length_only && options.matches {
        return Err(CommandError::text("ERR If you want both the length and indexes, please just use IDX."));
    }
    let cells = (first.len() as u64 + 1) * (second.len() as u64 + 1);
    if cells * 4 > STRING_BYTES_MAX as u64 {
        return Err(CommandError::text("ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len"));
    }
    write_lcs(&first, &second, &options, reply);
    Ok(())
}

/// The classic table of lengths, then the way back through it.
fn write_lcs(first: &[u8], second: &[u8], options: &LcsOptions, reply: &mut ReplyWriter<'_>) {
    let width = second.len() + 1;
    let mut lengths = vec![0u32; (first.len() + 1) * width];
    for (i, a) in first.iter().enumerate() {
        for (j, b) in second.iter().enumerate() {
            lengths[(i + 1) * width + j + 1] = if a == b {
                lengths[i * width + j] + 1
            } else {
                lengths[i * width + j + 1].max(lengths[(i + 1) * width + j])
            };
        }
    }
    let total = lengths[first.len() * width + second.len()];
    if options.length_only {
        reply.integer(i64::from(total));
        return;
    }
    let (mut i, mut j) = (first.len(), second.len());
    let mut common = Vec::with_capacity(total as usize);
    // Runs of matching bytes as (start in first, start in second, length), the last one first.
    let mut runs: Vec<(usize, usize, usize)> = Vec::new();
    while i > 0 && j > 0 {
        if first[i - 1] == second[j - 1] {
            common.push(first[i - 1]);
            i -= 1;
            j -= 1;
            match runs.last_mut() {
                Some((a, b, length)) if *a == i + 1 && *b == j + 1 => (*a, *b, *length) = (i, j, *length + 1),
                _ => runs.push((i, j, 1)),
            }
        } else if lengths[(i - 1) * width + j] > lengths[i * width + j - 1] {
            i -= 1;
        } else {
            j -= 1;
        }
    }
    if !options.matches {
        common.reverse();
        reply.bulk(&common);
        return;
    }
    reply.map(2);
    reply.bulk(b"matches");
    runs.retain(|run| run.2 as i64 >= options.shortest);
    reply.array(runs.len());
    for (a, b, length) in runs {
        reply.array(if options.with_length { 3 } else { 2 });
        for start in [a, b] {
            reply.array(2);
            reply.count(start);
            reply.count(start + length - 1);
        }
        if options.with_length {
            reply.count(length);
        }
    }
    reply.bulk(b"len");
    reply.integer(i64::from(total));
}
