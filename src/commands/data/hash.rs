//! Hashes.

pub mod combined;
pub mod expiry;

use crate::base::number;
use crate::commands::error::CommandError;
use crate::commands::parse::{self, is};
use crate::commands::spec::{Arity::*, CommandResult, CommandSpec, DENYOOM, FAST, HASH, READONLY, WRITE, data, keys};
use crate::engine::{Keyspace, event};
use crate::resp::arguments::Arguments;
use crate::resp::reply::{Protocol, ReplyWriter};
use crate::values::element::Element;
use crate::values::hash::View;

use super::keyspace::{ScanOptions, collection_cursor, write_scan};
use super::list::write_element;
use super::random::{self, TOO_MANY, Wish, draw_repeated};

const UNORDERED: &[&str] = &["nondeterministic_output_order"];

pub const COMMANDS: &[CommandSpec] = &[
    data("hdel", AtLeast(3), WRITE | FAST, HASH, keys::DELETE, hdel),
    data("hexists", Exactly(3), READONLY | FAST, HASH, keys::LOOK, hexists),
    data("hget", Exactly(3), READONLY | FAST, HASH, keys::READ, hget),
    data("hgetall", Exactly(2), READONLY, HASH, keys::READ, hgetall).tips(UNORDERED),
    data("hincrby", Exactly(4), WRITE | DENYOOM | FAST, HASH, keys::READ_UPDATE, hincrby),
    data("hincrbyfloat", Exactly(4), WRITE | DENYOOM | FAST, HASH, keys::READ_UPDATE, hincrbyfloat),
    data("hkeys", Exactly(2), READONLY, HASH, keys::READ, hkeys).tips(UNORDERED),
    data("hlen", Exactly(2), READONLY | FAST, HASH, keys::LOOK, hlen),
    data("hmget", AtLeast(3), READONLY | FAST, HASH, keys::READ, hmget),
    data("hmset", AtLeast(4), WRITE | DENYOOM | FAST, HASH, keys::UPDATE, hmset),
    data("hrandfield", AtLeast(2), READONLY, HASH, keys::READ, hrandfield).tips(&["nondeterministic_output"]),
    data("hset", AtLeast(4), WRITE | DENYOOM | FAST, HASH, keys::UPDATE, hset),
    data("hsetnx", Exactly(4), WRITE | DENYOOM | FAST, HASH, keys::INSERT, hsetnx),
    data("hstrlen", Exactly(3), READONLY | FAST, HASH, keys::LOOK, hstrlen),
    data("hvals", Exactly(2), READONLY, HASH, keys::READ, hvals).tips(UNORDERED),
    data("hscan", AtLeast(3), READONLY, HASH, keys::READ, hscan).tips(&["nondeterministic_output"]),
];

/// Sets the fields that the arguments name; returns how many are new.
fn set_fields(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    name: &'static str,
) -> Result<usize, CommandError> {
    if arguments.len() % 2 == 1 {
        return Err(CommandError::WrongArity(name.into()));
    }
    let pairs = (2..arguments.len()).step_by(2).map(|index| (arguments.at(index), arguments.at(index + 1)));
    Ok(keyspace.hash_set(arguments.at(1), pairs)?)
}

fn hset(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    reply.count(set_fields(keyspace, arguments, "hset")?);
    Ok(())
}

fn hmset(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    set_fields(keyspace, arguments, "hmset")?;
    reply.ok();
    Ok(())
}

fn hsetnx(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let (key, field, value) = (arguments.at(1), arguments.at(2), arguments.at(3));
    let absent = keyspace.peek_hash(key)?.is_none_or(|hash| !hash.contains(field));
    if absent {
        keyspace.hash_set(key, std::iter::once((field, value)))?;
    }
    reply.integer(i64::from(absent));
    Ok(())
}

fn hincrby(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let (key, field, increment) = (arguments.at(1), arguments.at(2), parse::integer(arguments.at(3))?);
    let value = match keyspace.peek_hash(key)?.and_then(|hash| hash.get(field)) {
        Some(value) => value.integer().ok_or(CommandError::text("ERR hash value is not an integer"))?,
        None => 0,
    };
    let sum = value.checked_add(increment);
    let sum = sum.ok_or(CommandError::text("ERR increment or decrement would overflow"))?;
    let text = sum.to_string();
    keyspace.hash_set_keeping(key, std::iter::once((field, text.as_bytes())), event::HASH_INCREMENT)?;
    reply.integer(sum);
    Ok(())
}

fn hincrbyfloat(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let (key, field, increment) = (arguments.at(1), arguments.at(2), arguments.at(3));
    if !number::is_decimal(increment) {
        return Err(CommandError::NotAFloat);
    }
    if number::parse_double(increment).is_some_and(f64::is_infinite) {
        return Err(CommandError::text("ERR value is NaN or Infinity"));
    }
    let hash = keyspace.peek_hash(key)?;
    let value = hash.and_then(|hash| hash.get(field)).map_or_else(|| b"0".to_vec(), |value| value.to_vec());
    if !number::is_decimal(&value) {
        return Err(CommandError::text("ERR hash value is not a float"));
    }
    let sum = number::add_decimal(&value, increment)
        .ok_or(CommandError::text("ERR increment would produce NaN or Infinity"))?;
    keyspace.hash_set_keeping(key, std::iter::once((field, sum.as_bytes())), event::HASH_INCREMENT_FLOAT)?;
    reply.bulk(sum.as_bytes());
    Ok(())
}

fn hdel(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    reply.count(keyspace.hash_remove(arguments.at(1), arguments.from(2))?);
    Ok(())
}

fn hexists(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let hash = keyspace.read_hash(arguments.at(1))?;
    reply.integer(i64::from(hash.is_some_and(|hash| hash.contains(arguments.at(2)))));
    Ok(())
}

fn hlen(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    reply.count(keyspace.read_hash(arguments.at(1))?.map_or(0, |hash| hash.len()));
    Ok(())
}

fn hstrlen(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let hash = keyspace.read_hash(arguments.at(1))?;
    reply.count(hash.and_then(|hash| hash.get(arguments.at(2))).map_or(0, |value| value.byte_len()));
    Ok(())
}

fn hget(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let hash = keyspace.read_hash(arguments.at(1))?;
    match hash.and_then(|hash| hash.get(arguments.at(2))) {
        Some(value) => write_element(reply, value),
        None => reply.null(),
    }
    Ok(())
}

fn hmget(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let hash = keyspace.read_hash(arguments.at(1))?;
    reply.array(arguments.len() - 2);
    for field in arguments.from(2) {
        match hash.and_then(|hash| hash.get(field)) {
            Some(value) => write_element(reply, value),
            None => reply.null(),
        }
    }
    Ok(())
}

fn hgetall(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let hash = keyspace.read_hash(arguments.at(1))?;
    reply.map(hash.map_or(0, |hash| hash.len()));
    for (field, value) in hash.into_iter().flat_map(View::iter) {
        write_element(reply, field);
        write_element(reply, value);
    }
    Ok(())
}

fn hkeys(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let hash = keyspace.read_hash(arguments.at(1))?;
    reply.array(hash.map_or(0, |hash| hash.len()));
    hash.into_iter().flat_map(View::iter).for_each(|(field, _)| write_element(reply, field));
    Ok(())
}

fn hvals(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let hash = keyspace.read_hash(arguments.at(1))?;
    reply.array(hash.map_or(0, |hash| hash.len()));
    hash.into_iter().flat_map(View::iter).for_each(|(_, value)| write_element(reply, value));
    Ok(())
}

fn hrandfield(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let key = arguments.at(1);
    let Some(count) = arguments.get(2) else {
        let number = keyspace.random();
        match keyspace.read_hash(key)?.and_then(|hash| hash.random(number)) {
            Some((field, _)) => write_element(reply, field),
            None => reply.null(),
        }
        return Ok(());
    };
    let wish = Wish::parse(count)?;
    let with_values = match (arguments.get(3), arguments.len()) {
        (None, _) => false,
        (Some(word), 4) if is(word, "withvalues") => true,
        _ => return Err(CommandError::Syntax),
    };
    if with_values && wish.count() > i64::MAX as u64 / 2 {
        return Err(TOO_MANY);
    }
    let mut numbers = random::numbers(keyspace);
    let Some(hash) = keyspace.read_hash(key)? else {
        reply.array(0);
        return Ok(());
    };
    match wish {
        Wish::Different(count) => {
            begin_fields(reply, count.min(hash.len()), with_values);
            hash.random_distinct(count, &mut numbers, |field, value| {
                write_field(reply, field, with_values.then_some(value));
            });
            Ok(())
        }
        Wish::Repeated(count) => {
            begin_fields(reply, usize::try_from(count).unwrap_or(usize::MAX), with_values);
            draw_repeated(count, reply, |count, drawn| {
                hash.random_repeated(count, &mut numbers, |field, value| {
                    drawn.write(|reply| write_field(reply, field, with_values.then_some(value)));
                });
            })
        }
    }
}

/// The header of so many fields: with their values they are pairs in RESP3, and one behind the other in RESP2.
fn begin_fields(reply: &mut ReplyWriter<'_>, count: usize, with_values: bool) {
    let is_flat = with_values && reply.protocol() == Protocol::Resp2;
    reply.array(if is_flat { count.saturating_mul(2) } else { count });
}

fn write_field(reply: &mut ReplyWriter<'_>, field: Element<'_>, value: Option<Element<'_>>) {
    if value.is_some() && reply.protocol() == Protocol::Resp3 {
        reply.array(2);
    }
    write_element(reply, field);
    if let Some(value) = value {
        write_element(reply, value);
    }
}

fn hscan(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let cursor = collection_cursor(arguments.at(2))?;
    let mut found = Vec::new();
    let Some(hash) = keyspace.read_hash(arguments.at(1))? else {
        write_scan(reply, None, &found);
        return Ok(());
    };
    let options = ScanOptions::parse(arguments, 3)?;
    let next = cursor.and_then(|position| {
        hash.scan(position, options.count, |field, value| {
            let name = field.to_vec();
            if options.wants_name(&name) {
                found.push(name);
                if !options.no_values {
                    found.push(value.to_vec());
                }
            }
        })
    });
    write_scan(reply, next, &found);
    Ok(())
}
