//! Sets.

use crate::commands::error::CommandError;
use crate::commands::parse;
use crate::commands::spec::{
    Access, Arity::*, CommandResult, CommandSpec, DENYOOM, FAST, KeySpec, READONLY, SET, WRITE, data, keys,
};
use crate::engine::Keyspace;
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;
use crate::values::set::Set;

use super::keyspace::{ScanOptions, collection_cursor, write_scan};
use super::list::write_element;
use super::random::{self, Wish, draw_repeated};

pub mod algebra;

const MOVED: &[KeySpec] =
    &[keys::one(1, Access::ReadWrite, "access delete"), keys::one(2, Access::ReadWrite, "insert")];

pub const COMMANDS: &[CommandSpec] = &[
    data("sadd", AtLeast(3), WRITE | DENYOOM | FAST, SET, keys::INSERT, sadd),
    data("scard", Exactly(2), READONLY | FAST, SET, keys::LOOK, scard),
    data("sismember", Exactly(3), READONLY | FAST, SET, keys::LOOK, sismember),
    data("smembers", Exactly(2), READONLY, SET, keys::READ, smembers).tips(&["nondeterministic_output_order"]),
    data("smismember", AtLeast(3), READONLY | FAST, SET, keys::READ, smismember),
    data("smove", Exactly(4), WRITE | FAST, SET, MOVED, smove),
    data("spop", AtLeast(2), WRITE | FAST, SET, keys::READ_DELETE, spop).tips(&["nondeterministic_output"]),
    data("srandmember", AtLeast(2), READONLY, SET, keys::READ, srandmember).tips(&["nondeterministic_output"]),
    data("srem", AtLeast(3), WRITE | FAST, SET, keys::DELETE, srem),
    data("sscan", AtLeast(3), READONLY, SET, keys::READ, sscan).tips(&["nondeterministic_output"]),
];

fn sadd(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    reply.count(keyspace.set_add(arguments.at(1), arguments.from(2))?);
    Ok(())
}

fn srem(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    reply.count(keyspace.set_remove(arguments.at(1), arguments.from(2))?);
    Ok(())
}

fn scard(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    reply.count(keyspace.read_collection::<Set>(arguments.at(1))?.map_or(0, Set::len));
    Ok(())
}

fn sismember(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let set = keyspace.read_collection::<Set>(arguments.at(1))?;
    reply.integer(i64::from(set.is_some_and(|set| set.contains(arguments.at(2)))));
    Ok(())
}

fn smismember(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let set = keyspace.read_collection::<Set>(arguments.at(1))?;
    reply.array(arguments.len() - 2);
    for member in arguments.from(2) {
        reply.integer(i64::from(set.is_some_and(|set| set.contains(member))));
    }
    Ok(())
}

fn smembers(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let set = keyspace.read_collection::<Set>(arguments.at(1))?;
    reply.set(set.map_or(0, Set::len));
    set.into_iter().flat_map(Set::iter).for_each(|member| write_element(reply, member));
    Ok(())
}

fn spop(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let key = arguments.at(1);
    match arguments.len() {
        2 => match keyspace.set_pop(key, 1)?.and_then(|mut popped| popped.pop()) {
            Some(member) => reply.bulk(&member),
            None => reply.null(),
        },
        3 => {
            let count = parse::positive(arguments.at(2))?;
            let popped = keyspace.set_pop(key, count)?.unwrap_or_default();
            reply.set(popped.len());
            popped.iter().for_each(|member| reply.bulk(member));
        }
        _ => return Err(CommandError::Syntax),
    }
    Ok(())
}

fn smove(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let (from, to, member) = (arguments.at(1), arguments.at(2), arguments.at(3));
    let Some(is_there) = keyspace.peek_collection::<Set>(from)?.map(|set| set.contains(member)) else {
        reply.integer(0);
        return Ok(());
    };
    // Nothing is taken that cannot be put.
    keyspace.peek_collection::<Set>(to)?;
    if is_there && from != to {
        keyspace.set_remove(from, std::iter::once(member))?;
        keyspace.set_add(to, std::iter::once(member))?;
    }
    reply.integer(i64::from(is_there));
    Ok(())
}

fn srandmember(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let key = arguments.at(1);
    let wish = match (arguments.get(2), arguments.len()) {
        (None, _) => None,
        (Some(count), 3) => Some(Wish::parse(count)?),
        _ => return Err(CommandError::Syntax),
    };
    let mut numbers = random::numbers(keyspace);
    let set = keyspace.read_collection::<Set>(key)?;
    match (set, wish) {
        (None, None) => reply.null(),
        (None, Some(_)) => reply.array(0),
        (Some(set), None) => match set.random(numbers()) {
            Some(member) => write_element(reply, member),
            None => reply.null(),
        },
        (Some(set), Some(Wish::Different(count))) => {
            reply.array(count.min(set.len()));
            set.random_distinct(count, &mut numbers, |member| write_element(reply, member));
        }
        (Some(set), Some(Wish::Repeated(count))) => {
            reply.array(usize::try_from(count).unwrap_or(usize::MAX));
            draw_repeated(count, reply, |count, drawn| {
                set.random_repeated(count, &mut numbers, |member| drawn.write(|reply| write_element(reply, member)));
            })?;
        }
    }
    Ok(())
}

fn sscan(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let cursor = collection_cursor(arguments.at(2))?;
    let mut found = Vec::new();
    let Some(set) = keyspace.read_collection::<Set>(arguments.at(1))? else {
        write_scan(reply, None, &found);
        return Ok(());
    };
    let options = ScanOptions::parse(arguments, 3)?;
    let next = cursor.and_then(|position| {
        set.scan(position, options.count, |member| {
            let name = member.to_vec();
            if options.wants_name(&name) {
                found.push(name);
            }
        })
    });
    write_scan(reply, next, &found);
    Ok(())
}
