//! Unions, intersections and differences of sorted sets and sets.

use crate::commands::error::CommandError;
use crate::commands::parse::{self, is};
use crate::commands::spec::{
    Access, Arity::*, CommandResult, CommandSpec, DENYOOM, Find, KeySpec, MOVABLE_KEYS, READONLY, SORTED_SET, WRITE,
    data, keys,
};
use crate::engine::Keyspace;
use crate::engine::entry::Entry;
use crate::engine::event::{self, Event};
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;
use crate::values::Value;
use crate::values::sorted_set::SortedSet;
use crate::values::sorted_set::algebra::{self, Aggregate, Operand, Weighted};

use super::range::{begin_members, write_member};

const COUNTED: Find = Find::Count { count: 0, first: 1, step: 1 };
const READ: &[KeySpec] = &[keys::at(1, COUNTED, Access::ReadOnly, "access")];
const STORED: &[KeySpec] =
    &[keys::one(1, Access::Overwrite, "update"), keys::at(2, COUNTED, Access::ReadOnly, "access")];
const READS: u64 = READONLY | MOVABLE_KEYS;
const STORES: u64 = WRITE | DENYOOM | MOVABLE_KEYS;

pub const COMMANDS: &[CommandSpec] = &[
    data("zdiff", AtLeast(3), READS, SORTED_SET, READ, zdiff),
    data("zdiffstore", AtLeast(4), STORES, SORTED_SET, STORED, zdiffstore),
    data("zinter", AtLeast(3), READS, SORTED_SET, READ, zinter),
    data("zintercard", AtLeast(3), READS, SORTED_SET, READ, zintercard),
    data("zinterstore", AtLeast(4), STORES, SORTED_SET, STORED, zinterstore),
    data("zunion", AtLeast(3), READS, SORTED_SET, READ, zunion),
    data("zunionstore", AtLeast(4), STORES, SORTED_SET, STORED, zunionstore),
];

/// What a command computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Union,
    Intersection,
    Difference,
    /// Only the size of the intersection.
    Cardinality,
}

/// A command of the family.
#[derive(Clone, Copy)]
struct Command {
    name: &'static str,
    operation: Operation,
    /// It stores its result, under this event.
    stores: Option<Event>,
}

/// The words behind the keys.
struct Options {
    weights: Vec<f64>,
    aggregate: Aggregate,
    with_scores: bool,
    most: usize,
}

impl Options {
    /// # Errors
    /// Redis's own; which words there are depends on the command.
    fn parse(
        arguments: Arguments<'_>,
        first: usize,
        key_count: usize,
        command: Command,
    ) -> Result<Options, CommandError> {
        let counts = command.operation == Operation::Cardinality;
        let joins = matches!(command.operation, Operation::Union | Operation::Intersection);
        let mut options =
            Options { weights: vec![1.0; key_count], aggregate: Aggregate::Sum, with_scores: false, most: usize::MAX };
        let mut rest = arguments.from(first);
        while let Some(word) = rest.next() {
            match word {
                _ if joins && rest.len() >= key_count && is(word, "weights") => {
                    for weight in &mut options.weights {
                        let given = crate::base::number::parse_double(rest.next().unwrap_or_default());
                        *weight = given.ok_or(CommandError::text("ERR weight value is not a float"))?;
                    }
                }
                _ if joins && rest.len() >= 1 && is(word, "aggregate") => {
                    options.aggregate = match rest.next().unwrap_or_default() {
                        word if is(word, "sum") => Aggregate::Sum,
                        word if is(word, "min") => Aggregate::Min,
                        word if is(word, "max") => Aggregate::Max,
                        _ => return Err(CommandError::Syntax),
                    };
                }
                _ if command.stores.is_none() && !counts && is(word, "withscores") => options.with_scores = true,
                _ if counts && rest.len() >= 1 && is(word, "limit") => {
                    let most = parse::positive(rest.next().unwrap_or_default());
                    options.most = match most.map_err(|_| CommandError::text("ERR LIMIT can't be negative"))? {
                        0 => usize::MAX,
                        most => most,
                    };
                }
                _ => return Err(CommandError::Syntax),
            }
        }
        Ok(options)
    }
}

/// What a command has computed.
enum Computed {
    Members(SortedSet),
    Count(usize),
}

/// Computes a command whose number of keys is the argument `index`.
///
/// # Errors
/// Redis's own, in its order: the number of keys, what they hold, and then the words behind them.
fn compute(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    index: usize,
    command: Command,
) -> Result<(Computed, Options), CommandError> {
    let count = parse::integer(arguments.at(index))?;
    if count < 1 {
        let name = command.name;
        return Err(CommandError::Text(format!("ERR at least 1 input key is needed for '{name}' command").into()));
    }
    let left = arguments.len() - index - 1;
    let count = usize::try_from(count).ok().filter(|count| *count <= left).ok_or(CommandError::Syntax)?;
    let limits = keyspace.limits();
    let entries = keyspace.read_all(arguments.from(index + 1).take(count));
    let operands = entries.iter().map(|entry| operand(*entry)).collect::<Result<Vec<_>, _>>()?;
    let options = Options::parse(arguments, index + 1 + count, count, command)?;
    let weighted: Vec<Weighted<'_>> = operands
        .iter()
        .zip(&options.weights)
        .map(|(operand, weight)| Weighted { operand: *operand, weight: *weight })
        .collect();
    let computed = match command.operation {
        Operation::Union => Computed::Members(algebra::union(&weighted, options.aggregate, &limits)),
        Operation::Intersection => Computed::Members(algebra::intersection(&weighted, options.aggregate, &limits)),
        Operation::Difference => Computed::Members(algebra::difference(&operands, &limits)),
        Operation::Cardinality => Computed::Count(algebra::intersection_len(&operands, options.most)),
    };
    Ok((computed, options))
}

fn operand(entry: Option<&Entry>) -> Result<Operand<'_>, CommandError> {
    match entry {
        None => Ok(Operand::Nothing),
        Some(entry) => entry.as_value().and_then(Operand::of).ok_or(CommandError::WrongType),
    }
}

/// A command that answers with what it has computed.
fn read(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    (name, operation): (&'static str, Operation),
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let (computed, options) = compute(keyspace, arguments, 1, Command { name, operation, stores: None })?;
    match computed {
        Computed::Count(count) => reply.count(count),
        Computed::Members(sorted) => {
            begin_members(reply, sorted.len(), options.with_scores);
            let write = |(member, score)| write_member(reply, member, options.with_scores.then_some(score));
            sorted.iter().for_each(write);
        }
    }
    Ok(())
}

/// A command that stores what it has computed.
fn store(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    (name, operation): (&'static str, Operation),
    event: Event,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let (computed, _) = compute(keyspace, arguments, 2, Command { name, operation, stores: Some(event) })?;
    if let Computed::Members(sorted) = computed {
        reply.count(keyspace.store(arguments.at(1), Value::SortedSet(sorted), event));
    }
    Ok(())
}

fn zunion(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    read(keyspace, arguments, ("zunion", Operation::Union), reply)
}

fn zinter(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    read(keyspace, arguments, ("zinter", Operation::Intersection), reply)
}

fn zdiff(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    read(keyspace, arguments, ("zdiff", Operation::Difference), reply)
}

fn zintercard(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    read(keyspace, arguments, ("zintercard", Operation::Cardinality), reply)
}

fn zunionstore(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    store(keyspace, arguments, ("zunionstore", Operation::Union), event::SORTED_SET_UNION_STORE, reply)
}

fn zinterstore(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    store(keyspace, arguments, ("zinterstore", Operation::Intersection), event::SORTED_SET_INTERSECTION_STORE, reply)
}

fn zdiffstore(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    store(keyspace, arguments, ("zdiffstore", Operation::Difference), event::SORTED_SET_DIFFERENCE_STORE, reply)
}
