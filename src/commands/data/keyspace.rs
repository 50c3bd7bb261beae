//! Whole databases: counting, searching, walking, emptying.

use crate::base::glob;
use crate::base::slot::{SLOT_COUNT, Slot};
use crate::commands::error::CommandError;
use crate::commands::parse::{self, is};
use crate::commands::spec::{
    ALL_KEYS, Arity::*, CommandResult, CommandSpec, DANGEROUS, FAST, KEYSPACE, READONLY, SPREAD, WRITE, data,
};
use crate::engine::Keyspace;
use crate::engine::entry::Entry;
use crate::engine::shard::SlotState;
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;

use super::generic::type_name;

pub const COMMANDS: &[CommandSpec] = &[
    data("dbsize", Exactly(1), READONLY | FAST | ALL_KEYS | SPREAD, KEYSPACE, &[], dbsize)
        .tips(&["request_policy:all_shards", "response_policy:agg_sum"]),
    data("flushall", AtLeast(1), WRITE | ALL_KEYS | SPREAD, KEYSPACE | DANGEROUS, &[], flushall)
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .check(check_flush_mode),
    data("flushdb", AtLeast(1), WRITE | ALL_KEYS | SPREAD, KEYSPACE | DANGEROUS, &[], flushdb)
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .check(check_flush_mode),
    data("keys", Exactly(2), READONLY | ALL_KEYS | SPREAD, KEYSPACE | DANGEROUS, &[], keys)
        .tips(&["request_policy:all_shards", "nondeterministic_output_order"]),
    data("randomkey", Exactly(1), READONLY | ALL_KEYS, KEYSPACE, &[], randomkey)
        .tips(&["request_policy:all_shards", "nondeterministic_output"]),
    data("scan", AtLeast(2), READONLY | ALL_KEYS | SPREAD, KEYSPACE, &[], scan)
        .tips(&["nondeterministic_output", "request_policy:special"])
        .check(check_scan),
    data("swapdb", Exactly(3), WRITE | FAST | ALL_KEYS, KEYSPACE | DANGEROUS, &[], swapdb),
];

fn dbsize(keyspace: &mut Keyspace<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    reply.integer(keyspace.key_count() as i64);
    Ok(())
}

/// FLUSHALL and FLUSHDB may say how the memory is freed: here always behind the locks, so both words mean the same.
fn check_flush_mode(arguments: Arguments<'_>) -> CommandResult {
    match arguments.get(1) {
        None => Ok(()),
        Some(word) if arguments.len() == 2 && (is(word, "sync") || is(word, "async")) => Ok(()),
        Some(_) => Err(CommandError::Syntax),
    }
}

fn flushall(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    check_flush_mode(arguments)?;
    keyspace.flush(None);
    reply.ok();
    Ok(())
}

fn flushdb(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    check_flush_mode(arguments)?;
    keyspace.flush(Some(keyspace.database()));
    reply.ok();
    Ok(())
}

fn swapdb(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let number = |argument: &[u8], invalid: &'static str| {
        let number = crate::base::number::parse_i64(argument).filter(|number| i32::try_from(*number).is_ok());
        number.ok_or(CommandError::text(invalid))
    };
    let first = number(arguments.at(1), "ERR invalid first DB index")?;
    let second = number(arguments.at(2), "ERR invalid second DB index")?;
    let index = |number: i64| {
        let database = usize::try_from(number).ok().filter(|database| *database < keyspace.database_count());
        database.ok_or(CommandError::text("ERR DB index is out of range"))
    };
    let (first, second) = (index(first)?, index(second)?);
    if first != second {
        keyspace.swap_databases(first, second);
    }
    reply.ok();
    Ok(())
}

fn keys(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let pattern = arguments.at(1);
    let begun = reply.begin();
    let mut count = 0;
    let mut visit = |entry: &Entry| {
        if pattern == b"*" || glob::matches(pattern, entry.key()) {
            reply.bulk(entry.key());
            count += 1;
        }
    };
    match only_slot(pattern) {
        Some(slot) => keyspace.visit_slot(slot, visit),
        None => Slot::all().for_each(|slot| keyspace.visit_slot(slot, &mut visit)),
    }
    reply.end_array(begun, count);
    Ok(())
}

/// The one slot that all keys matching the pattern are in: its hash tag stands before anything that may vary.
pub(super) fn only_slot(pattern: &[u8]) -> Option<Slot> {
    let open = pattern.iter().position(|&byte| byte == b'{')?;
    let length = pattern[open + 1..].iter().position(|&byte| byte == b'}')?;
    let is_fixed = |bytes: &[u8]| !bytes.iter().any(|byte| matches!(byte, b'*' | b'?' | b'[' | b'\\'));
    (length > 0 && is_fixed(&pattern[..open + 1 + length])).then(|| Slot::of_key(pattern))
}

fn randomkey(keyspace: &mut Keyspace<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    match keyspace.random_key() {
        Some(key) => reply.bulk(&key),
        None => reply.null(),
    }
    Ok(())
}

/// CLUSTER COUNTKEYSINSLOT: how many keys a slot has here.
pub fn count_keys_in_slot(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let slot = slot_argument(arguments.at(2))?;
    reply.count(keyspace.slot_key_count(slot));
    Ok(())
}

/// CLUSTER GETKEYSINSLOT: the first keys of a slot, at most as many as asked for.
pub fn get_keys_in_slot(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    const INVALID: CommandError = CommandError::text("ERR Invalid slot or number of keys");
    let number = parse::integer(arguments.at(2))?;
    let count = parse::integer(arguments.at(3))?;
    let slot = u64::try_from(number).ok().and_then(Slot::new).ok_or(INVALID)?;
    let count = usize::try_from(count).map_err(|_| INVALID)?;
    let begun = reply.begin();
    let (mut written, mut position) = (0, Some(0));
    while let Some(at) = position.filter(|_| written < count) {
        position = keyspace.scan_slot(slot, at, count - written, |entry| {
            if written < count {
                reply.bulk(entry.key());
                written += 1;
            }
        });
    }
    reply.end_array(begun, written);
    Ok(())
}

/// A slot by its number.
pub(in crate::commands) fn slot_argument(text: &[u8]) -> Result<Slot, CommandError> {
    let number = parse::integer(text)?;
    u64::try_from(number).ok().and_then(Slot::new).ok_or(CommandError::text("ERR Invalid slot"))
}

/// A place in the walk over all keys: the slot, and the position in hash order within it.
///
/// Printed as one number below 2^53, for some clients keep it in a double: 14 bits of slot, 32 of position. Hash order is
/// the same on all nodes of a cluster, so a cursor stays good when a slot moves. 0 is both the beginning and the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanCursor {
    pub slot: u16,
    pub position: u32,
}

impl ScanCursor {
    /// Reads it; what is no cursor of ours walks nothing.
    pub fn parse(text: &[u8]) -> Result<Option<ScanCursor>, CommandError> {
        let number = cursor_number(text)?;
        let slot = number >> 32;
        Ok((slot < SLOT_COUNT as u64).then_some(ScanCursor { slot: slot as u16, position: number as u32 }))
    }

    /// The number that a client sees.
    pub fn number(self) -> u64 {
        u64::from(self.slot) << 32 | u64::from(self.position)
    }
}

/// What SCAN and its relatives are asked for.
#[derive(Clone, Copy)]
pub struct ScanOptions<'a> {
    pub count: usize,
    /// Starling's own, for a walk over several nodes: the last slot of this one's part. It stops before a slot that is
    /// not served here, where it would otherwise pass it over.
    pub(super) until_slot: Option<u16>,
    pub(super) pattern: Option<&'a [u8]>,
    pub(super) kind: Option<&'a [u8]>,
    /// Of a hash only the fields.
    pub(super) no_values: bool,
}

impl<'a> ScanOptions<'a> {
    pub(super) fn new() -> ScanOptions<'a> {
        ScanOptions { count: 10, until_slot: None, pattern: None, kind: None, no_values: false }
    }

    /// Reads the words from the argument `first` on; only SCAN itself knows TYPE, only HSCAN NOVALUES.
    pub fn parse(arguments: Arguments<'a>, first: usize) -> Result<ScanOptions<'a>, CommandError> {
        let mut options = ScanOptions::new();
        let mut rest = arguments.from(first);
        while let Some(word) = rest.next() {
            if is(word, "novalues") {
                if !is(arguments.at(0), "hscan") {
                    return Err(CommandError::text("ERR NOVALUES option can only be used in HSCAN"));
                }
                options.no_values = true;
                continue;
            }
            let value = rest.next().ok_or(CommandError::Syntax)?;
            match word {
                _ if options.read(word, value)? => {}
                _ if is(word, "type") && first == 2 => options.kind = Some(value),
                _ if is(word, "until-slot") && first == 2 => {
                    let slot = parse::integer(value)?;
                    let slot =
                        u64::try_from(slot).ok().and_then(Slot::new).ok_or(CommandError::text("ERR Invalid slot"))?;
                    options.until_slot = Some(slot.number());
                }
                _ => return Err(CommandError::Syntax),
            }
        }
        Ok(options)
    }

    /// Reads COUNT or MATCH. False where the word is neither.
    pub(super) fn read(&mut self, word: &[u8], value: &'a [u8]) -> Result<bool, CommandError> {
        if is(word, "count") {
            let count = parse::integer(value)?;
            if count < 1 {
                return Err(CommandError::Syntax);
            }
            self.count = count as usize;
        } else if is(word, "match") {
            self.pattern = Some(value).filter(|pattern| *pattern != b"*");
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn wants(&self, entry: &Entry) -> bool {
        self.kind.is_none_or(|kind| is(kind, type_name(entry.kind()))) && self.wants_name(entry.key())
    }

    /// Whether a key, field or member matches the pattern.
    pub fn wants_name(&self, name: &[u8]) -> bool {
        self.pattern.is_none_or(|pattern| glob::matches(pattern, name))
    }
}

fn check_scan(arguments: Arguments<'_>) -> CommandResult {
    ScanCursor::parse(arguments.at(1))?;
    ScanOptions::parse(arguments, 2).map(drop)
}

fn scan(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let cursor = ScanCursor::parse(arguments.at(1))?;
    let (next, found) = walk(keyspace, cursor, &ScanOptions::parse(arguments, 2)?)?;
    reply.array(2);
    let mut digits = itoa::Buffer::new();
    reply.bulk(digits.format(next.map_or(0, ScanCursor::number)).as_bytes());
    reply.array(found.len());
    found.iter().for_each(|key| reply.bulk(key));
    Ok(())
}

/// Where a walk goes on, and the keys that it has found.
pub(super) type Walked = (Option<ScanCursor>, Vec<Box<[u8]>>);

/// Walks over some keys from a place on.
pub(super) fn walk(
    keyspace: &mut Keyspace<'_>,
    cursor: Option<ScanCursor>,
    options: &ScanOptions<'_>,
) -> Result<Walked, CommandError> {
    let mut found: Vec<Box<[u8]>> = Vec::new();
    let mut seen = 0;
    let only = options.pattern.and_then(only_slot);
    let mut next = cursor;
    // Every slot is passed at most once in a call; empty ones cost a few nanoseconds each.
    while let Some(at) = next {
        if let Some(only) = only
            && at.slot != only.number()
        {
            let jump = ScanCursor { slot: only.number(), position: 0 };
            next = (at.slot < only.number()).then_some(jump);
            continue;
        }
        let Some(slot) = Slot::new(u64::from(at.slot)) else { break };
        // A call may find as little as it likes: better than to wait for who holds the slot.
        if next != cursor && keyspace.is_busy(slot) {
            break;
        }
        if let Some(until) = options.until_slot {
            if at.slot > until {
                break;
            }
            if keyspace.slots_state(&[slot]) != SlotState::Serving {
                if next == cursor {
                    return Err(CommandError::text("TRYAGAIN The slot of the cursor is not served here"));
                }
                break;
            }
        }
        let left = options.count.saturating_sub(seen).max(1);
        let position = keyspace.scan_slot(slot, at.position, left, |entry| {
            seen += 1;
            if options.wants(entry) {
                found.push(entry.key().into());
            }
        });
        next = match position {
            Some(position) => Some(ScanCursor { slot: at.slot, position }),
            None if (at.slot as usize) + 1 < SLOT_COUNT => Some(ScanCursor { slot: at.slot + 1, position: 0 }),
            None => None,
        };
        if seen >= options.count {
            break;
        }
    }
    Ok((next, found))
}

/// The position in hash order that a cursor of HSCAN, SSCAN or ZSCAN names; `None` where it is none of ours.
pub fn collection_cursor(text: &[u8]) -> Result<Option<u32>, CommandError> {
    Ok(u32::try_from(cursor_number(text)?).ok())
}

/// A cursor as a number: what C's strtoul reads, for that is what Redis accepts. No digits are 0, and a minus wraps.
fn cursor_number(text: &[u8]) -> Result<u64, CommandError> {
    const INVALID: CommandError = CommandError::text("ERR invalid cursor");
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if text.is_empty() {
        return Ok(0);
    }
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(INVALID);
    }
    let number: u64 = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).ok_or(INVALID)?;
    Ok(if negative { number.wrapping_neg() } else { number })
}

/// Writes what a step through a collection has found: the next cursor, and the elements.
pub fn write_scan(reply: &mut ReplyWriter<'_>, next: Option<u32>, found: &[Vec<u8>]) {
    reply.array(2);
    let mut digits = itoa::Buffer::new();
    reply.bulk(digits.format(next.unwrap_or(0)).as_bytes());
    reply.array(found.len());
    found.iter().for_each(|element| reply.bulk(element));
}
