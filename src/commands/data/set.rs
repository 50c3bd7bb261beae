//! Sets.

use crate::commands::error::CommandError;
use crate::commands::parse;
use crate::commands::spec::{Arity::*, CommandResult, CommandSpec, DENYOOM, FAST, READONLY, SET, WRITE, data, keys};
use crate::engine::Keyspace;
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;
use crate::values::set::Set;

use super::keyspace::{ScanOptions, collection_cursor, write_scan};
use super::list::write_element;

pub const COMMANDS: &[CommandSpec] = &[
    data("sadd", AtLeast(3), WRITE | DENYOOM | FAST, SET, keys::INSERT, sadd),
    data("scard", Exactly(2), READONLY | FAST, SET, keys::LOOK, scard),
    data("sismember", Exactly(3), READONLY | FAST, SET, keys::LOOK, sismember),
    data("smembers", Exactly(2), READONLY, SET, keys::READ, smembers).tips(&["nondeterministic_output_order"]),
    data("smismember", AtLeast(3), READONLY | FAST, SET, keys::READ, smismember),
    data("spop", AtLeast(2), WRITE | FAST, SET, keys::READ_DELETE, spop).tips(&["nondeterministic_output"]),
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
