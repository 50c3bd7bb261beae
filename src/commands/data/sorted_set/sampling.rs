//! Members of sorted sets at random.

use crate::commands::error::CommandError;
use crate::commands::parse::{self, is};
use crate::commands::spec::{Arity::*, CommandResult, CommandSpec, READONLY, SORTED_SET, data, keys};
use crate::engine::Keyspace;
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;
use crate::values::sorted_set::SortedSet;

use super::range::{begin_members, write_member};

pub const COMMANDS: &[CommandSpec] =
    &[data("zrandmember", AtLeast(2), READONLY, SORTED_SET, keys::READ, zrandmember)
        .tips(&["nondeterministic_output"])];

/// The most members that are drawn with repetition: the reply is built under the lock of the key, and in memory. Redis
/// goes on until the client's output has reached its limit.
const REPEATED_MAX: u64 = 1 << 24;

fn zrandmember(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let key = arguments.at(1);
    let Some(count) = arguments.get(2) else {
        let random = keyspace.random();
        match keyspace.read_collection::<SortedSet>(key)?.and_then(|sorted| sorted.random(random)) {
            Some((member, _)) => write_member(reply, member, None),
            None => reply.null(),
        }
        return Ok(());
    };
    let count = parse::integer(count)?;
    if count == i64::MIN {
        return Err(CommandError::text(
            "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
        ));
    }
    let with_scores = match (arguments.get(3), arguments.len()) {
        (None, _) => false,
        (Some(word), 4) if is(word, "withscores") => true,
        _ => return Err(CommandError::Syntax),
    };
    if with_scores && count.unsigned_abs() > i64::MAX as u64 / 2 || count < 0 && count.unsigned_abs() > REPEATED_MAX {
        return Err(CommandError::text("ERR value is out of range"));
    }
    let mut seed = keyspace.random();
    let Some(sorted) = keyspace.read_collection::<SortedSet>(key)? else {
        reply.array(0);
        return Ok(());
    };
    let mut random = || {
        seed = seed.wrapping_add(1);
        crate::values::hashing::mix(seed)
    };
    let wanted = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    let drawn = if count < 0 { wanted } else { wanted.min(sorted.len()) };
    begin_members(reply, drawn, with_scores);
    let write = |member: crate::values::element::Element<'_>, score: f64| {
        write_member(reply, member, with_scores.then_some(score));
    };
    match count {
        0.. => sorted.random_distinct(drawn, &mut random, write),
        _ => sorted.random_repeated(drawn, &mut random, write),
    }
    Ok(())
}
