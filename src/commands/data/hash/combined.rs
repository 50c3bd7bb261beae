//! Commands that read or set fields and change their deadlines, or take them away, at once, as Redis 8.0 has them.

use std::collections::HashSet;

use super::expiry::{Scale, fields_at};
use crate::base::number;
use crate::commands::data::list::write_element;
use crate::commands::error::CommandError;
use crate::commands::parse::is;
use crate::commands::spec::{Arity::*, CommandResult, CommandSpec, DENYOOM, FAST, HASH, WRITE, data, keys};
use crate::engine::{Keyspace, event};
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;

pub const COMMANDS: &[CommandSpec] = &[
    data("hgetdel", AtLeast(5), WRITE | FAST, HASH, keys::READ_DELETE, hgetdel),
    data("hgetex", AtLeast(5), WRITE | FAST, HASH, keys::READ_UPDATE, hgetex),
    data("hsetex", AtLeast(6), WRITE | DENYOOM | FAST, HASH, keys::UPDATE, hsetex),
];

/// The scale of the word that a moment follows.
fn scale_of(word: &[u8], now_ms: u64) -> Option<Scale> {
    match word {
        _ if is(word, "ex") => Some(Scale { unit_ms: 1000, since_ms: now_ms }),
        _ if is(word, "px") => Some(Scale { unit_ms: 1, since_ms: now_ms }),
        _ if is(word, "exat") => Some(Scale { unit_ms: 1000, since_ms: 0 }),
        _ if is(word, "pxat") => Some(Scale { unit_ms: 1, since_ms: 0 }),
        _ => None,
    }
}

fn hgetdel(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let key = arguments.at(1);
    let hash = keyspace.peek_hash(key)?;
    let fields = fields_at(arguments, 2)?;
    reply.array(fields.len());
    let mut taken = HashSet::new();
    for field in fields.clone() {
        match hash.and_then(|hash| hash.get(field)) {
            Some(value) if taken.insert(field) => write_element(reply, value),
            _ => reply.null(),
        }
    }
    keyspace.hash_remove(key, fields)?;
    Ok(())
}

fn hgetex(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let (key, now_ms) = (arguments.at(1), keyspace.now_ms());
    let hash = keyspace.peek_hash(key)?;
    let scale = scale_of(arguments.at(2), now_ms);
    let deadline = scale.map(|scale| scale.moment(arguments.at(3), "hgetex")).transpose()?;
    let persists = is(arguments.at(2), "persist");
    let fields = fields_at(arguments, if deadline.is_some() { 4 } else { 2 + usize::from(persists) })?;
    let is_past = deadline.is_some_and(|deadline| deadline <= now_ms);
    reply.array(fields.len());
    let (mut changed, mut seen) = (Vec::new(), HashSet::new());
    for field in fields {
        let value = hash.and_then(|hash| hash.get(field)).filter(|_| !(is_past && seen.contains(field)));
        let Some(value) = value else {
            reply.null();
            continue;
        };
        write_element(reply, value);
        let has_deadline = hash.and_then(|hash| hash.deadline(field)).flatten().is_some();
        if deadline.is_some() || persists && has_deadline && !seen.contains(field) {
            changed.push(field);
            seen.insert(field);
        }
    }
    if is_past {
        keyspace.hash_remove(key, changed.into_iter())?;
    } else if !changed.is_empty() {
        let event = if persists { event::HASH_PERSIST } else { event::HASH_EXPIRE };
        let (count, timed) = (changed.len(), changed.into_iter().map(|field| (field, deadline)));
        keyspace.hash_set_deadlines(key, timed, count, event)?;
    }
    Ok(())
}

/// What HSETEX is to do.
#[derive(Debug, Default, PartialEq, Eq)]
struct SetOptions {
    /// Only if all fields exist, or none does.
    if_all: bool,
    if_none: bool,
    /// In Unix milliseconds.
    deadline: Option<u64>,
    keeps_deadlines: bool,
    /// The argument that is the first field.
    first: usize,
}

impl SetOptions {
    fn parse(arguments: Arguments<'_>, now_ms: u64) -> Result<SetOptions, CommandError> {
        let mut options = SetOptions::default();
        let mut index = 2;
        while let Some(word) = arguments.get(index) {
            if is(word, "fields") {
                options.first = index + 2;
                check_count(arguments, options.first)?;
                return Ok(options);
            }
            let scale = scale_of(word, now_ms);
            if scale.is_some() || is(word, "keepttl") {
                if options.deadline.is_some() || options.keeps_deadlines {
                    let text = "ERR Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be specified";
                    return Err(CommandError::text(text));
                }
                if let Some(scale) = scale {
                    index += 1;
                    let time = arguments.get(index).ok_or(CommandError::text("ERR missing expire time"))?;
                    options.deadline = Some(scale.moment(time, "hsetex")?);
                } else {
                    options.keeps_deadlines = true;
                }
            } else if is(word, "fxx") || is(word, "fnx") {
                if options.if_all || options.if_none {
                    return Err(CommandError::text("ERR Only one of FXX or FNX arguments can be specified"));
                }
                (options.if_all, options.if_none) = (is(word, "fxx"), is(word, "fnx"));
            } else {
                return Err(CommandError::Bytes([b"ERR unknown argument: ", word].concat()));
            }
            index += 1;
        }
        Err(CommandError::WrongArity("hsetex".into()))
    }
}

/// Whether as many fields with their values follow from `first` on as the argument before says.
fn check_count(arguments: Arguments<'_>, first: usize) -> CommandResult {
    const WRONG_ARITY: CommandError = CommandError::WrongArity(std::borrow::Cow::Borrowed("hsetex"));
    let rest = arguments.from(first).len();
    if rest < 2 {
        return Err(WRONG_ARITY);
    }
    let count = number::parse_i64(arguments.at(first - 1)).and_then(|count| i32::try_from(count).ok());
    let count = count.filter(|count| *count > 0).ok_or(CommandError::text("ERR invalid number of fields"))?;
    match rest.is_multiple_of(2) && usize::try_from(count) == Ok(rest / 2) {
        true => Ok(()),
        false => Err(WRONG_ARITY),
    }
}

fn hsetex(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let (key, now_ms) = (arguments.at(1), keyspace.now_ms());
    let options = SetOptions::parse(arguments, now_ms)?;
    let pairs = (options.first..arguments.len()).step_by(2).map(|at| (arguments.at(at), arguments.at(at + 1)));
    let hash = keyspace.peek_hash(key)?;
    let exists = |field: &[u8]| hash.is_some_and(|hash| hash.contains(field));
    let is_refused = options.if_all && !pairs.clone().all(|(field, _)| exists(field))
        || options.if_none && pairs.clone().any(|(field, _)| exists(field));
    reply.integer(i64::from(!is_refused));
    if is_refused {
        return Ok(());
    }
    if options.keeps_deadlines {
        return Ok(keyspace.hash_set_keeping(key, pairs, event::HASH_SET)?);
    }
    keyspace.hash_set(key, pairs.clone())?;
    let fields = pairs.map(|(field, _)| field);
    match options.deadline {
        None => {}
        // Set and gone at once, as the events say.
        Some(deadline) if deadline <= now_ms => _ = keyspace.hash_remove(key, fields)?,
        Some(deadline) => {
            let timed = fields.map(|field| (field, Some(deadline)));
            // Setting the fields is what counts as a change.
            keyspace.hash_set_deadlines(key, timed, 0, event::HASH_EXPIRE)?;
        }
    }
    Ok(())
}
