//! HyperLogLog: sketches that say how many different elements were added to them.
//!
//! A sketch is a string, the same bytes as in Redis. What a command does to a dense one is written in place; a sparse one
//! is short, and written whole.

use crate::commands::error::CommandError;
use crate::commands::parse::is;
use crate::commands::spec::{
    ADMIN, Access, Arity::*, Begin, CommandResult, CommandSpec, DENYOOM, FAST, Find, HYPERLOGLOG, KeySpec,
    MAY_REPLICATE, READONLY, WRITE, data, keys,
};
use crate::engine::entry::{Entry, StringRef};
use crate::engine::{Deadline, Keyspace, event};
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;
use crate::values::hyperloglog::{self as sketch, Corrupted, Observation, REGISTERS, Registers, sparse};

const ALL: Find = Find::Range { last: -1, step: 1, limit: 0 };
/// PFCOUNT may note in the key what it has counted.
const COUNTED: &[KeySpec] = &[KeySpec {
    access: Access::ReadWrite,
    effects: "access",
    begin: Begin::Index(1),
    find: ALL,
    notes: "RW because it may change the internal representation of the key, and propagate to replicas",
}];
const MERGED: &[KeySpec] =
    &[keys::one(1, Access::ReadWrite, "access insert"), keys::at(2, ALL, Access::ReadOnly, "access")];
const EXAMINED: &[KeySpec] = &[keys::one(2, Access::ReadWrite, "access")];

pub const COMMANDS: &[CommandSpec] = &[
    data("pfadd", AtLeast(2), WRITE | DENYOOM | FAST, HYPERLOGLOG, keys::INSERT, pfadd),
    data("pfcount", AtLeast(2), READONLY | MAY_REPLICATE, HYPERLOGLOG, COUNTED, pfcount),
    data("pfdebug", Exactly(3), WRITE | DENYOOM | ADMIN, HYPERLOGLOG, EXAMINED, pfdebug),
    data("pfmerge", AtLeast(2), WRITE | DENYOOM, HYPERLOGLOG, MERGED, pfmerge),
    data("pfselftest", Exactly(1), ADMIN, HYPERLOGLOG, &[], pfselftest),
];

const NO_SKETCH: CommandError = CommandError::text("WRONGTYPE Key is not a valid HyperLogLog string value.");

impl From<Corrupted> for CommandError {
    fn from(_: Corrupted) -> CommandError {
        CommandError::text("INVALIDOBJ Corrupted HLL object detected")
    }
}

/// The sketch of an entry, if there is one.
fn sketch_of(entry: Option<&Entry>) -> Result<Option<&[u8]>, CommandError> {
    match entry.map(Entry::as_string) {
        None => Ok(None),
        Some(None) => Err(CommandError::WrongType),
        Some(Some(StringRef::Bytes(bytes))) if sketch::is_sketch(bytes) => Ok(Some(bytes)),
        Some(Some(_)) => Err(NO_SKETCH),
    }
}

fn pfadd(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let (key, longest) = (arguments.at(1), keyspace.limits().hll_sparse_max_bytes);
    let observations = arguments.from(2).map(Observation::of);
    let found = sketch_of(keyspace.peek(key))?;
    // A new key is a change even where nothing is added.
    let (mut bytes, mut changes) = match found {
        Some(found) if !sketch::is_sparse(found) => {
            reply.integer(i64::from(add_dense(keyspace, key, observations)?));
            return Ok(());
        }
        Some(found) => (found.to_vec(), 0),
        None => (sketch::empty(), 1),
    };
    for observation in observations {
        changes += usize::from(sketch::add(&mut bytes, observation, longest)?);
    }
    reply.integer(i64::from(changes > 0));
    if changes > 0 {
        sketch::forget_count(&mut bytes);
        keyspace.set_buffer_by(changes, key, bytes, Deadline::Keep, event::HYPERLOGLOG_ADD);
    } else {
        keyspace.hold_as_buffer(key)?;
    }
    Ok(())
}

/// Adds to a key's dense sketch, where it lies. Says whether it has changed.
fn add_dense(
    keyspace: &mut Keyspace<'_>,
    key: &[u8],
    observations: impl Iterator<Item = Observation>,
) -> Result<bool, CommandError> {
    let mut has_changed = false;
    keyspace.edit_string(key, 0, event::HYPERLOGLOG_ADD, |bytes, edit| {
        for observation in observations {
            if let Some(place) = sketch::add_dense(bytes, observation) {
                edit.wrote(place.start, &bytes[place]);
                has_changed = true;
            }
        }
        if has_changed {
            sketch::forget_count(bytes);
            edit.also_wrote(sketch::STALE, &bytes[sketch::STALE..=sketch::STALE]);
        }
    })?;
    Ok(has_changed)
}

fn pfcount(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    if arguments.len() > 2 {
        let (registers, _) = merged(keyspace, arguments)?;
        reply.integer(sketch::count_registers(&registers) as i64);
        return Ok(());
    }
    let key = arguments.at(1);
    let Some(found) = sketch_of(keyspace.read(key))? else {
        reply.integer(0);
        return Ok(());
    };
    if let Some(count) = sketch::cached_count(found) {
        reply.integer(count as i64);
        return Ok(());
    }
    let count = sketch::count(found)?;
    reply.integer(count as i64);
    // Noted in the key, as a change that nobody hears of. It is not needed: it waits where writers do, and a copy
    // goes without.
    if keyspace.may_note(key) {
        keyspace.edit_string(key, 0, event::SILENT, |bytes, edit| {
            bytes[sketch::CARDINALITY].copy_from_slice(&count.to_le_bytes());
            edit.wrote(sketch::CARDINALITY.start, &count.to_le_bytes());
        })?;
    }
    Ok(())
}

/// The greatest registers of all these keys, and whether one of them is dense.
fn merged(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>) -> Result<(Box<Registers>, bool), CommandError> {
    let (mut registers, mut has_dense) = (Box::new([0; REGISTERS]), false);
    for key in arguments.from(1) {
        if let Some(found) = sketch_of(keyspace.read(key))? {
            has_dense |= !sketch::is_sparse(found);
            sketch::merge(&mut registers, found)?;
        }
    }
    Ok((registers, has_dense))
}

fn pfmerge(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let (key, longest) = (arguments.at(1), keyspace.limits().hll_sparse_max_bytes);
    let (registers, has_dense) = merged(keyspace, arguments)?;
    let mut bytes = sketch_of(keyspace.peek(key))?.map_or_else(sketch::empty, <[u8]>::to_vec);
    if has_dense {
        bytes = sketch::to_dense(&bytes)?;
    }
    // Register by register, as Redis: so the sparse form is the same.
    for (register, rank) in registers.iter().copied().enumerate().filter(|(_, rank)| *rank > 0) {
        sketch::add(&mut bytes, Observation { register, rank }, longest)?;
    }
    sketch::forget_count(&mut bytes);
    keyspace.set_buffer(key, bytes, Deadline::Keep, event::HYPERLOGLOG_ADD);
    reply.ok();
    Ok(())
}

fn pfdebug(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let (word, key) = (arguments.at(1), arguments.at(2));
    let found = sketch_of(keyspace.peek(key))?;
    let found = found.ok_or(CommandError::text("ERR The specified key does not exist"))?;
    let is_sparse = sketch::is_sparse(found);
    match word {
        _ if is(word, "getreg") || is(word, "todense") => {
            let dense = sketch::to_dense(found)?;
            let mut registers = [0; REGISTERS];
            sketch::merge(&mut registers, &dense)?;
            if is_sparse {
                keyspace.set_buffer(key, dense, Deadline::Keep, event::SILENT);
            }
            if is(word, "todense") {
                reply.integer(i64::from(is_sparse));
            } else {
                reply.array(REGISTERS);
                registers.iter().for_each(|register| reply.integer(i64::from(*register)));
            }
        }
        _ if is(word, "decode") => match is_sparse {
            true => reply.bulk(sparse::describe(found).as_bytes()),
            false => return Err(CommandError::text("ERR HLL encoding is not sparse")),
        },
        _ if is(word, "encoding") => reply.simple(if is_sparse { "sparse" } else { "dense" }),
        _ => return Err(CommandError::Bytes([b"ERR Unknown PFDEBUG subcommand '", word, b"'"].concat())),
    }
    Ok(())
}

/// Counts up to this many elements, which are different ones.
const SELF_TEST_ELEMENTS: u64 = 100_000;

fn pfselftest(_: &mut Keyspace<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let (mut small, mut dense) = (sketch::empty(), sketch::to_dense(&sketch::empty())?);
    for element in 1..=SELF_TEST_ELEMENTS {
        let observation = Observation::of(&element.to_le_bytes());
        sketch::add(&mut small, observation, 3000)?;
        sketch::add(&mut dense, observation, 0)?;
        if !element.is_power_of_two() && element != SELF_TEST_ELEMENTS {
            continue;
        }
        let counted = sketch::count(&dense)?;
        if sketch::count(&small)? != counted {
            return Err(CommandError::text("ERR TESTFAILED dense/sparse disagree"));
        }
        // Four times the standard error, and one element for the smallest.
        if counted.abs_diff(element) as f64 > (element as f64 * 0.0325).max(1.0) {
            let failed = format!("ERR TESTFAILED Too big error. card:{element} abserr:{}", counted.abs_diff(element));
            return Err(CommandError::Text(failed.into()));
        }
    }
    reply.ok();
    Ok(())
}
