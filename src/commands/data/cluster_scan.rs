//! CLUSTERSCAN: a walk over the keys of all nodes, slot after slot.
//!
//! A cursor is `fingerprint-{tag}-position`. The hash tag names the slot, so that whoever routes keys routes the request to
//! the node that has it. The position counts where the fingerprint says that it was made in this order; else the slot
//! begins anew. `0` is both the beginning and the end.

use super::keyspace::{ScanCursor, ScanOptions, only_slot, walk};
use crate::base::slot::{SLOT_COUNT, Slot};
use crate::commands::error::CommandError;
use crate::commands::parse::{self, is};
use crate::commands::spec::{
    ALL_KEYS, Access, Arity::*, CommandResult, CommandSpec, IN_CLUSTER, KEYSPACE, KeySpec, READONLY, data, keys,
};
use crate::engine::Keyspace;
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;

pub const COMMANDS: &[CommandSpec] =
    &[data("clusterscan", AtLeast(2), READONLY | ALL_KEYS | IN_CLUSTER, KEYSPACE, CURSOR, clusterscan).tips(&[
        "nondeterministic_output",
        "request_policy:special",
        "response_policy:special",
    ])];

const CURSOR: &[KeySpec] = &[keys::one(1, Access::ReadOnly, "not_key")];

/// Of positions in hash order, which is the same on all nodes of a cluster.
const FINGERPRINT: &[u8] = b"1";
/// Of a cursor at the beginning of a slot.
const NO_FINGERPRINT: &[u8] = b"0";
const KINDS: [&str; 6] = ["string", "list", "set", "zset", "hash", "stream"];

/// Reads a cursor; `None`: the beginning.
fn cursor(text: &[u8]) -> Result<Option<ScanCursor>, CommandError> {
    const INVALID: CommandError = CommandError::text("ERR Invalid cursor");
    if text == b"0" {
        return Ok(None);
    }
    let parts = || {
        let (fingerprint, rest) = split(text, b"-{")?;
        let (tag, position) = split(rest, b"}-")?;
        let is_cursor = !fingerprint.contains(&b'{') && !tag.is_empty() && !tag.contains(&b'}');
        let is_number = !position.is_empty() && position.iter().all(u8::is_ascii_digit);
        (is_cursor && is_number).then_some((fingerprint, tag, position))
    };
    let (fingerprint, tag, position) = parts().ok_or(INVALID)?;
    let position = crate::base::number::parse_i64(position).and_then(|position| u32::try_from(position).ok());
    let position = position.filter(|_| fingerprint == FINGERPRINT).unwrap_or(0);
    Ok(Some(ScanCursor { slot: Slot::of_key(tag).number(), position }))
}

/// What is in front of a mark, and what is behind it.
fn split<'a>(text: &'a [u8], mark: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = text.windows(mark.len()).position(|bytes| bytes == mark)?;
    Some((text.get(..at)?, text.get(at + mark.len()..)?))
}

/// Reads the options, and the slot that SLOT names.
fn options(arguments: Arguments<'_>) -> Result<(ScanOptions<'_>, Option<Slot>), CommandError> {
    let (mut options, mut only) = (ScanOptions::new(), None);
    let mut rest = arguments.from(2);
    while let Some(word) = rest.next() {
        let value = rest.next().ok_or(CommandError::Syntax)?;
        match word {
            _ if options.read(word, value)? => {}
            _ if is(word, "type") => {
                if !KINDS.iter().any(|kind| is(value, kind)) {
                    return Err(CommandError::Bytes([b"ERR unknown type name '", value, b"'"].concat()));
                }
                options.kind = Some(value);
            }
            _ if is(word, "slot") => {
                if only.is_some() {
                    return Err(CommandError::text("ERR SLOT option can only be specified once"));
                }
                let slot = parse::integer(value).ok().and_then(|slot| Slot::new(u64::try_from(slot).ok()?));
                only = Some(slot.ok_or(CommandError::text("ERR Invalid or out of range slot"))?);
            }
            _ => return Err(CommandError::Syntax),
        }
    }
    Ok((options, only))
}

fn clusterscan(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let begin = cursor(arguments.at(1))?;
    let (mut options, only) = options(arguments)?;
    if let (Some(begin), Some(only)) = (begin, only)
        && begin.slot != only.number()
    {
        return Err(CommandError::text("ERR Cursor slot mismatch"));
    }
    let matching = options.pattern.and_then(only_slot);
    let start = |slot: Slot| Some(ScanCursor { slot: slot.number(), position: 0 });
    let (next, found) = match (begin, matching) {
        // No key of the slot can match.
        (_, Some(matching)) if only.is_some_and(|only| only != matching) => (None, Vec::new()),
        (None, _) => (start(only.or(matching).unwrap_or_default()), Vec::new()),
        (Some(begin), Some(matching)) if begin.slot < matching.number() => (start(matching), Vec::new()),
        (Some(begin), Some(matching)) if begin.slot > matching.number() => (None, Vec::new()),
        (Some(_), _) => {
            let last = only.map_or(SLOT_COUNT as u16 - 1, Slot::number);
            options.until_slot = Some(last);
            let (next, found) = walk(keyspace, begin, &options)?;
            (next.filter(|next| next.slot <= last), found)
        }
    };
    reply.array(2);
    write_cursor(reply, next);
    reply.array(found.len());
    found.iter().for_each(|key| reply.bulk(key));
    Ok(())
}

fn write_cursor(reply: &mut ReplyWriter<'_>, next: Option<ScanCursor>) {
    let place = next.and_then(|next| Some((Slot::new(u64::from(next.slot))?, next.position)));
    let Some((slot, position)) = place else { return reply.bulk(b"0") };
    let fingerprint = if position == 0 { NO_FINGERPRINT } else { FINGERPRINT };
    let mut digits = itoa::Buffer::new();
    reply.bulk(&[fingerprint, b"-{", slot.tag(), b"}-", digits.format(position).as_bytes()].concat());
}
