//! Intersections, unions and differences of sets: as replies, as counts, and stored.

use crate::commands::error::CommandError;
use crate::commands::parse::{self, is};
use crate::commands::spec::{
    Access, Arity::*, CommandResult, CommandSpec, DENYOOM, Find, KeySpec, MOVABLE_KEYS, READONLY, SET, WRITE, data,
    keys,
};
use crate::engine::entry::Entry;
use crate::engine::{Keyspace, WrongKind, event};
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;
use crate::values::element::Element;
use crate::values::set::{self, Set};
use crate::values::{Limits, Value};
use smallvec::SmallVec;

use super::super::list::write_element;

const EVERY: &[KeySpec] = &[keys::all(Access::ReadOnly, "access")];
const REST: KeySpec = keys::at(2, Find::Range { last: -1, step: 1, limit: 0 }, Access::ReadOnly, "access");
const TO_UPDATED: &[KeySpec] = &[keys::one(1, Access::ReadWrite, "update"), REST];
const TO_OVERWRITTEN: &[KeySpec] = &[keys::one(1, Access::Overwrite, "update"), REST];
const COUNTED: &[KeySpec] = &[keys::at(1, Find::Count { count: 0, first: 1, step: 1 }, Access::ReadOnly, "access")];
const UNORDERED: &[&str] = &["nondeterministic_output_order"];

pub const COMMANDS: &[CommandSpec] = &[
    data("sdiff", AtLeast(2), READONLY, SET, EVERY, sdiff).tips(UNORDERED),
    data("sdiffstore", AtLeast(3), WRITE | DENYOOM, SET, TO_OVERWRITTEN, sdiffstore),
    data("sinter", AtLeast(2), READONLY, SET, EVERY, sinter).tips(UNORDERED),
    data("sintercard", AtLeast(3), READONLY | MOVABLE_KEYS, SET, COUNTED, sintercard),
    data("sinterstore", AtLeast(3), WRITE | DENYOOM, SET, TO_UPDATED, sinterstore),
    data("sunion", AtLeast(2), READONLY, SET, EVERY, sunion).tips(UNORDERED),
    data("sunionstore", AtLeast(3), WRITE | DENYOOM, SET, TO_OVERWRITTEN, sunionstore),
];

/// What several keys hold.
struct Operands<'a> {
    /// The set of the first key, if there is one.
    first: Option<&'a Set>,
    /// Those of the others.
    others: SmallVec<[&'a Set; 4]>,
    /// Whether some key holds nothing.
    has_absent: bool,
}

impl<'a> Operands<'a> {
    /// Reads the sets of these keys. A key that is named twice counts once behind the first: so the work is bounded by
    /// what the keys hold.
    fn read<'k>(
        keyspace: &'a mut Keyspace<'_>,
        keys: impl Iterator<Item = &'k [u8]>,
    ) -> Result<Operands<'a>, CommandError> {
        let set_of = |entry: &'a Entry| match entry.as_value() {
            Some(Value::Set(set)) => Ok(set),
            _ => Err(WrongKind),
        };
        let entries = keyspace.read_all(keys);
        let has_absent = entries.iter().any(Option::is_none);
        let mut entries = entries.into_iter();
        let first = entries.next().flatten().map(set_of).transpose()?;
        let mut others = entries.flatten().map(set_of).collect::<Result<SmallVec<[&Set; 4]>, WrongKind>>()?;
        others.sort_unstable_by_key(|set| std::ptr::from_ref(*set));
        others.dedup_by(|one, other| std::ptr::eq(*one, *other));
        Ok(Operands { first, others, has_absent })
    }

    /// Visits at most `count` members that all have.
    fn intersection(&self, count: usize, visit: impl FnMut(Element<'a>)) {
        if let Some(first) = self.first.filter(|_| !self.has_absent) {
            set::intersection(first, &self.others, count, visit);
        }
    }

    /// Visits the members that only the first has.
    fn difference(&self, visit: impl FnMut(Element<'a>)) {
        if let Some(first) = self.first {
            set::difference(first, &self.others, visit);
        }
    }

    fn union(&self, limits: &Limits) -> Set {
        let sets: SmallVec<[&Set; 5]> = self.first.into_iter().chain(self.others.iter().copied()).collect();
        set::union(&sets, limits)
    }
}

fn sinter(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let operands = Operands::read(keyspace, arguments.from(1))?;
    write_set(reply, |write| operands.intersection(usize::MAX, write));
    Ok(())
}

fn sdiff(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let operands = Operands::read(keyspace, arguments.from(1))?;
    write_set(reply, |write| operands.difference(write));
    Ok(())
}

fn sunion(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let limits = keyspace.limits();
    let union = Operands::read(keyspace, arguments.from(1))?.union(&limits);
    write_set(reply, |write| union.iter().for_each(write));
    Ok(())
}

/// A set reply of the members that are handed to the closure's closure.
fn write_set(reply: &mut ReplyWriter<'_>, members: impl FnOnce(&mut dyn FnMut(Element<'_>))) {
    let begun = reply.begin();
    let mut count = 0;
    members(&mut |member| {
        write_element(reply, member);
        count += 1;
    });
    reply.end_set(begun, count);
}

fn sinterstore(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let (limits, mut result) = (keyspace.limits(), Set::new());
    Operands::read(keyspace, arguments.from(2))?
        .intersection(usize::MAX, |member| _ = result.add_element(member, &limits));
    reply.count(keyspace.store(arguments.at(1), Value::Set(result), event::SET_INTERSECTION_STORE));
    Ok(())
}

fn sdiffstore(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let (limits, mut result) = (keyspace.limits(), Set::new());
    Operands::read(keyspace, arguments.from(2))?.difference(|member| _ = result.add_element(member, &limits));
    reply.count(keyspace.store(arguments.at(1), Value::Set(result), event::SET_DIFFERENCE_STORE));
    Ok(())
}

fn sunionstore(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let limits = keyspace.limits();
    let result = Operands::read(keyspace, arguments.from(2))?.union(&limits);
    reply.count(keyspace.store(arguments.at(1), Value::Set(result), event::SET_UNION_STORE));
    Ok(())
}

fn sintercard(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let keys = parse::counted_keys(arguments, 1)?;
    let (mut limit, mut index) = (usize::MAX, keys.end);
    while let Some(word) = arguments.get(index) {
        let given = arguments.get(index + 1).filter(|_| is(word, "limit")).ok_or(CommandError::Syntax)?;
        limit = match parse::integer(given) {
            Ok(0) => usize::MAX,
            Ok(given @ 1..) => usize::try_from(given).unwrap_or(usize::MAX),
            _ => return Err(CommandError::text("ERR LIMIT can't be negative")),
        };
        index += 2;
    }
    let operands = Operands::read(keyspace, keys.map(|index| arguments.at(index)))?;
    let mut count = 0;
    operands.intersection(limit, |_| count += 1);
    reply.count(count);
    Ok(())
}
