//! Sorted sets.

use crate::commands::error::CommandError;
use crate::commands::parse::{self, is};
use crate::commands::spec::{
    Arity::*, CommandResult, CommandSpec, DENYOOM, FAST, READONLY, SORTED_SET, WRITE, data, keys,
};
use crate::engine::Keyspace;
use crate::engine::event;
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;
use crate::values::sorted_set::SortedSet;
use smallvec::SmallVec;
use std::collections::HashMap;

pub mod algebra;
pub mod popping;
pub mod range;
pub mod sampling;

use super::keyspace::{ScanOptions, collection_cursor, write_scan};

pub const COMMANDS: &[CommandSpec] = &[
    data("zadd", AtLeast(4), WRITE | DENYOOM | FAST, SORTED_SET, keys::UPDATE, zadd),
    data("zcard", Exactly(2), READONLY | FAST, SORTED_SET, keys::LOOK, zcard),
    data("zincrby", Exactly(4), WRITE | DENYOOM | FAST, SORTED_SET, keys::READ_UPDATE, zincrby),
    data("zmscore", AtLeast(3), READONLY | FAST, SORTED_SET, keys::READ, zmscore),
    data("zrank", AtLeast(3), READONLY | FAST, SORTED_SET, keys::READ, zrank),
    data("zrem", AtLeast(3), WRITE | FAST, SORTED_SET, keys::DELETE, zrem),
    data("zrevrank", AtLeast(3), READONLY | FAST, SORTED_SET, keys::READ, zrevrank),
    data("zscore", Exactly(3), READONLY | FAST, SORTED_SET, keys::READ, zscore),
    data("zscan", AtLeast(3), READONLY, SORTED_SET, keys::READ, zscan).tips(&["nondeterministic_output"]),
];

const NOT_A_NUMBER: CommandError = CommandError::text("ERR resulting score is not a number (NaN)");

/// The words between ZADD's key and its first score.
#[derive(Clone, Copy, Default)]
pub(super) struct AddOptions {
    pub if_absent: bool,
    pub if_present: bool,
    if_greater: bool,
    if_less: bool,
    pub count_changed: bool,
    increment: bool,
}

impl AddOptions {
    /// The options, and the index of the first score.
    fn parse(arguments: Arguments<'_>) -> Result<(AddOptions, usize), CommandError> {
        let mut options = AddOptions::default();
        let mut index = 2;
        while let Some(word) = arguments.get(index) {
            match word {
                _ if is(word, "nx") => options.if_absent = true,
                _ if is(word, "xx") => options.if_present = true,
                _ if is(word, "gt") => options.if_greater = true,
                _ if is(word, "lt") => options.if_less = true,
                _ if is(word, "ch") => options.count_changed = true,
                _ if is(word, "incr") => options.increment = true,
                _ => break,
            }
            index += 1;
        }
        let pairs = arguments.len() - index;
        if pairs == 0 || pairs % 2 == 1 {
            return Err(CommandError::Syntax);
        }
        if options.if_absent && options.if_present {
            return Err(CommandError::text("ERR XX and NX options at the same time are not compatible"));
        }
        let both = options.if_greater && options.if_less;
        if both || options.if_absent && (options.if_greater || options.if_less) {
            return Err(CommandError::text("ERR GT, LT, and/or NX options at the same time are not compatible"));
        }
        if options.increment && pairs > 2 {
            return Err(CommandError::text("ERR INCR option supports a single increment-element pair"));
        }
        Ok((options, index))
    }

    /// The score that a member gets, if any.
    fn score(&self, old: Option<f64>, given: f64) -> Result<Option<f64>, CommandError> {
        let Some(old) = old else { return Ok((!self.if_present).then_some(given)) };
        if self.if_absent {
            return Ok(None);
        }
        let new = if self.increment { old + given } else { given };
        if new.is_nan() {
            return Err(NOT_A_NUMBER);
        }
        let unwanted = self.if_less && new >= old || self.if_greater && new <= old;
        Ok((!unwanted).then_some(new))
    }
}

fn zadd(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let (options, first) = AddOptions::parse(arguments)?;
    let pairs = (first..arguments.len())
        .step_by(2)
        .map(|index| Ok((parse::float(arguments.at(index))?, arguments.at(index + 1))))
        .collect::<Result<SmallVec<[_; 8]>, CommandError>>()?;
    add(keyspace, arguments.at(1), &pairs, options, reply)
}

fn zincrby(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    // A word that ZADD knows stands for itself here too, and leaves too few arguments.
    AddOptions::parse(arguments)?;
    let options = AddOptions { increment: true, ..AddOptions::default() };
    let pair = (parse::float(arguments.at(2))?, arguments.at(3));
    add(keyspace, arguments.at(1), &[pair], options, reply)
}

/// The scores that one command gives. Few are searched one by one, many by their hash: the cost stays in proportion to
/// what the client sends.
#[derive(Default)]
struct Puts<'a> {
    in_order: SmallVec<[(&'a [u8], f64); 8]>,
    /// The newest score of each member, once there are more than [`Puts::SEARCHED_MAX`].
    by_member: HashMap<&'a [u8], f64>,
}

impl<'a> Puts<'a> {
    const SEARCHED_MAX: usize = 8;

    fn score(&self, member: &[u8]) -> Option<f64> {
        if self.by_member.is_empty() {
            return self.in_order.iter().rev().find(|(put, _)| *put == member).map(|(_, score)| *score);
        }
        self.by_member.get(member).copied()
    }

    fn push(&mut self, member: &'a [u8], score: f64) {
        self.in_order.push((member, score));
        if !self.by_member.is_empty() {
            self.by_member.insert(member, score);
        } else if self.in_order.len() > Self::SEARCHED_MAX {
            self.by_member.extend(self.in_order.iter().copied());
        }
    }
}

/// Gives members of a sorted set scores, as the options say, and answers as ZADD does.
pub(super) fn add(
    keyspace: &mut Keyspace<'_>,
    key: &[u8],
    pairs: &[(f64, &[u8])],
    options: AddOptions,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let (mut added, mut changed) = (0, 0);
    let mut result = None;
    let mut puts = Puts::default();
    let sorted = keyspace.peek_collection::<SortedSet>(key)?;
    for &(given, member) in pairs {
        // A member named twice meets the score it was just given.
        let old = puts.score(member).or_else(|| sorted.and_then(|sorted| sorted.score(member)));
        let Some(new) = options.score(old, given)? else { continue };
        result = Some(new);
        match old {
            None => added += 1,
            Some(old) if old != new => changed += 1,
            Some(_) => continue,
        }
        puts.push(member, new);
    }
    if !puts.in_order.is_empty() {
        let event = if options.increment { event::SORTED_SET_INCREMENT } else { event::SORTED_SET_PUT };
        keyspace.sorted_set_put(key, &puts.in_order, event)?;
    }
    match result {
        Some(score) if options.increment => reply.double(score),
        None if options.increment => reply.null(),
        _ => reply.count(if options.count_changed { added + changed } else { added }),
    }
    Ok(())
}

fn zrem(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    reply.count(keyspace.sorted_set_remove(arguments.at(1), arguments.from(2))?);
    Ok(())
}

fn zcard(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    reply.count(keyspace.read_collection::<SortedSet>(arguments.at(1))?.map_or(0, SortedSet::len));
    Ok(())
}

fn zscore(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let sorted = keyspace.read_collection::<SortedSet>(arguments.at(1))?;
    match sorted.and_then(|sorted| sorted.score(arguments.at(2))) {
        Some(score) => reply.double(score),
        None => reply.null(),
    }
    Ok(())
}

fn zmscore(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let sorted = keyspace.read_collection::<SortedSet>(arguments.at(1))?;
    reply.array(arguments.len() - 2);
    for member in arguments.from(2) {
        match sorted.and_then(|sorted| sorted.score(member)) {
            Some(score) => reply.double(score),
            None => reply.null(),
        }
    }
    Ok(())
}

fn zrank(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    rank(keyspace, arguments, reply, "zrank", |rank, _| rank)
}

fn zrevrank(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    rank(keyspace, arguments, reply, "zrevrank", |rank, length| length - 1 - rank)
}

fn rank(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
    name: &'static str,
    show: impl Fn(usize, usize) -> usize,
) -> CommandResult {
    let with_score = match (arguments.get(3), arguments.len()) {
        (None, _) => false,
        (Some(word), 4) if is(word, "withscore") => true,
        (_, 4) => return Err(CommandError::Syntax),
        _ => return Err(CommandError::WrongArity(name.into())),
    };
    let sorted = keyspace.read_collection::<SortedSet>(arguments.at(1))?;
    match sorted.and_then(|sorted| Some((sorted.rank(arguments.at(2))?, sorted.len()))) {
        Some(((rank, score), length)) if with_score => {
            reply.array(2);
            reply.count(show(rank, length));
            reply.double(score);
        }
        Some(((rank, _), length)) => reply.count(show(rank, length)),
        None if with_score => reply.null_array(),
        None => reply.null(),
    }
    Ok(())
}

fn zscan(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let cursor = collection_cursor(arguments.at(2))?;
    let mut found = Vec::new();
    let Some(sorted) = keyspace.read_collection::<SortedSet>(arguments.at(1))? else {
        write_scan(reply, None, &found);
        return Ok(());
    };
    let options = ScanOptions::parse(arguments, 3)?;
    let next = cursor.and_then(|position| {
        sorted.scan(position, options.count, |member, score| {
            let name = member.to_vec();
            if options.wants_name(&name) {
                found.push(name);
                found.push(crate::base::number::format_double(score).into_bytes());
            }
        })
    });
    write_scan(reply, next, &found);
    Ok(())
}
