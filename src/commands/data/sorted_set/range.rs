//! Ranges of sorted sets, by rank, by score and by member: one parser, and one way to find the ranks that a range means.

use crate::base::number;
use crate::commands::error::CommandError;
use crate::commands::parse::{self, is};
use crate::commands::spec::{
    Access, Arity::*, CommandResult, CommandSpec, DENYOOM, FAST, KeySpec, READONLY, SORTED_SET, WRITE, data, keys,
};
use crate::engine::Keyspace;
use crate::engine::event;
use crate::resp::arguments::Arguments;
use crate::resp::reply::{Protocol, ReplyWriter};
use crate::values::Value;
use crate::values::element::{Digits, Element};
use crate::values::sorted_set::{LexBound, SortedSet};
use std::ops::{Bound, Range};

const STORED: &[KeySpec] = &[keys::one(1, Access::Overwrite, "update"), keys::one(2, Access::ReadOnly, "access")];

pub const COMMANDS: &[CommandSpec] = &[
    data("zcount", Exactly(4), READONLY | FAST, SORTED_SET, keys::READ, zcount),
    data("zlexcount", Exactly(4), READONLY | FAST, SORTED_SET, keys::READ, zlexcount),
    data("zrange", AtLeast(4), READONLY, SORTED_SET, keys::READ, zrange),
    data("zrangebylex", AtLeast(4), READONLY, SORTED_SET, keys::READ, zrangebylex),
    data("zrangebyscore", AtLeast(4), READONLY, SORTED_SET, keys::READ, zrangebyscore),
    data("zrangestore", AtLeast(5), WRITE | DENYOOM, SORTED_SET, STORED, zrangestore),
    data("zremrangebylex", Exactly(4), WRITE, SORTED_SET, keys::DELETE, zremrangebylex),
    data("zremrangebyrank", Exactly(4), WRITE, SORTED_SET, keys::DELETE, zremrangebyrank),
    data("zremrangebyscore", Exactly(4), WRITE, SORTED_SET, keys::DELETE, zremrangebyscore),
    data("zrevrange", AtLeast(4), READONLY, SORTED_SET, keys::READ, zrevrange),
    data("zrevrangebylex", AtLeast(4), READONLY, SORTED_SET, keys::READ, zrevrangebylex),
    data("zrevrangebyscore", AtLeast(4), READONLY, SORTED_SET, keys::READ, zrevrangebyscore),
];

/// What the two ends of a range are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Rank,
    Score,
    Lex,
}

/// The two ends of a range, the lower one first.
enum Ends<'a> {
    /// Both included; negative ones count from the end. They count downwards where the range is read downwards.
    Ranks(i64, i64),
    Scores(Bound<f64>, Bound<f64>),
    Members(LexBound<'a>, LexBound<'a>),
}

impl<'a> Ends<'a> {
    /// # Errors
    /// Redis's own for an end that is none.
    fn parse(by: By, low: &'a [u8], high: &'a [u8]) -> Result<Ends<'a>, CommandError> {
        match by {
            By::Rank => Ok(Ends::Ranks(parse::integer(low)?, parse::integer(high)?)),
            By::Score => score_bound(low)
                .zip(score_bound(high))
                .map(|(low, high)| Ends::Scores(low, high))
                .ok_or(CommandError::text("ERR min or max is not a float")),
            By::Lex => lex_bound(low)
                .zip(lex_bound(high))
                .map(|(low, high)| Ends::Members(low, high))
                .ok_or(CommandError::text("ERR min or max not valid string range item")),
        }
    }

    /// The ranks of what lies between, counted from the lowest score.
    fn ranks(&self, sorted: &SortedSet, is_reverse: bool) -> Range<usize> {
        match *self {
            Ends::Ranks(start, stop) => {
                let length = sorted.len();
                let (start, count) = super::super::list::range(start, stop, length);
                if is_reverse { length - start - count..length - start } else { start..start + count }
            }
            Ends::Scores(low, high) => sorted.score_range(low, high),
            Ends::Members(low, high) => sorted.lex_range(low, high),
        }
    }
}

/// A score, behind `(` where it is not part of the range.
fn score_bound(text: &[u8]) -> Option<Bound<f64>> {
    match text.strip_prefix(b"(") {
        Some(score) => number::parse_bound(score).map(Bound::Excluded),
        None => number::parse_bound(text).map(Bound::Included),
    }
}

/// `-`, `+`, or a member behind `[` or `(`.
fn lex_bound(text: &[u8]) -> Option<LexBound<'_>> {
    match text {
        b"-" => Some(LexBound::Lowest),
        b"+" => Some(LexBound::Highest),
        [b'[', member @ ..] => Some(LexBound::Included(member)),
        [b'(', member @ ..] => Some(LexBound::Excluded(member)),
        _ => None,
    }
}

/// What a command's name says about its range; what it leaves open may be said by words behind the range.
#[derive(Clone, Copy)]
struct Named {
    by: Option<By>,
    is_reverse: Option<bool>,
    /// ZRANGESTORE shows nothing, and so takes no WITHSCORES.
    stores: bool,
}

/// A range as it was asked for.
struct Selection<'a> {
    ends: Ends<'a>,
    is_reverse: bool,
    /// How many to pass over first; with a negative number nothing is left.
    offset: i64,
    /// How many at most; all, if negative.
    limit: i64,
    with_scores: bool,
}

impl<'a> Selection<'a> {
    /// Reads the two ends, of which the first is the argument `index`, and the words behind them.
    ///
    /// # Errors
    /// Redis's own, in its order: words, then how they go together, then the ends.
    fn parse(arguments: Arguments<'a>, index: usize, named: Named) -> Result<Selection<'a>, CommandError> {
        let (mut by, mut is_reverse) = (named.by, named.is_reverse);
        let (mut offset, mut limit, mut with_scores) = (0, -1, false);
        let mut rest = arguments.from(index + 2);
        while let Some(word) = rest.next() {
            match word {
                _ if !named.stores && is(word, "withscores") => with_scores = true,
                _ if is(word, "limit") && rest.len() >= 2 => {
                    offset = parse::integer(rest.next().unwrap_or_default())?;
                    limit = parse::integer(rest.next().unwrap_or_default())?;
                }
                _ if is_reverse.is_none() && is(word, "rev") => is_reverse = Some(true),
                _ if by.is_none() && is(word, "bylex") => by = Some(By::Lex),
                _ if by.is_none() && is(word, "byscore") => by = Some(By::Score),
                _ => return Err(CommandError::Syntax),
            }
        }
        let (by, is_reverse) = (by.unwrap_or(By::Rank), is_reverse.unwrap_or(false));
        if limit != -1 && by == By::Rank {
            return Err(CommandError::text(
                "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
            ));
        }
        if with_scores && by == By::Lex {
            return Err(CommandError::text("ERR syntax error, WITHSCORES not supported in combination with BYLEX"));
        }
        let (mut low, mut high) = (arguments.at(index), arguments.at(index + 1));
        if is_reverse && by != By::Rank {
            (low, high) = (high, low);
        }
        Ok(Selection { ends: Ends::parse(by, low, high)?, is_reverse, offset, limit, with_scores })
    }

    /// The ranks that are asked for, counted from the lowest score.
    fn ranks(&self, sorted: &SortedSet) -> Range<usize> {
        let found = self.ends.ranks(sorted, self.is_reverse);
        // Ranks take no limit: LIMIT .. -1 says nothing there.
        if matches!(self.ends, Ends::Ranks(..)) {
            return found;
        }
        let passed = usize::try_from(self.offset).map_or(found.len(), |offset| offset.min(found.len()));
        let left = found.len() - passed;
        let count = usize::try_from(self.limit).map_or(left, |limit| limit.min(left));
        match self.is_reverse {
            true => found.end - passed - count..found.end - passed,
            false => found.start + passed..found.start + passed + count,
        }
    }
}

/// Writes members with these ranks; with scores as pairs of their own in RESP3.
fn write_ranks(sorted: &SortedSet, ranks: Range<usize>, selection: &Selection<'_>, reply: &mut ReplyWriter<'_>) {
    begin_members(reply, ranks.len(), selection.with_scores);
    let members = match selection.is_reverse {
        true => sorted.range_reverse(sorted.len() - ranks.end, ranks.len()),
        false => sorted.range(ranks.start, ranks.len()),
    };
    members.for_each(|(member, score)| write_member(reply, member, selection.with_scores.then_some(score)));
}

/// Begins a reply of so many members.
pub(super) fn begin_members(reply: &mut ReplyWriter<'_>, count: usize, with_scores: bool) {
    let is_flat = with_scores && reply.protocol() == Protocol::Resp2;
    reply.array(if is_flat { count * 2 } else { count });
}

/// Writes a member, with its score where that is to be shown.
pub(super) fn write_member(reply: &mut ReplyWriter<'_>, member: Element<'_>, score: Option<f64>) {
    if score.is_some() && reply.protocol() == Protocol::Resp3 {
        reply.array(2);
    }
    reply.bulk(member.bytes(&mut Digits::new()));
    if let Some(score) = score {
        reply.double(score);
    }
}

fn zrange(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    read(keyspace, arguments, None, None, reply)
}

fn zrevrange(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    read(keyspace, arguments, Some(By::Rank), Some(true), reply)
}

fn zrangebyscore(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    read(keyspace, arguments, Some(By::Score), Some(false), reply)
}

fn zrevrangebyscore(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    read(keyspace, arguments, Some(By::Score), Some(true), reply)
}

fn zrangebylex(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    read(keyspace, arguments, Some(By::Lex), Some(false), reply)
}

fn zrevrangebylex(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    read(keyspace, arguments, Some(By::Lex), Some(true), reply)
}

fn read(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    by: Option<By>,
    is_reverse: Option<bool>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let selection = Selection::parse(arguments, 2, Named { by, is_reverse, stores: false })?;
    match keyspace.read_collection::<SortedSet>(arguments.at(1))? {
        Some(sorted) => write_ranks(sorted, selection.ranks(sorted), &selection, reply),
        None => reply.array(0),
    }
    Ok(())
}

fn zrangestore(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let selection = Selection::parse(arguments, 3, Named { by: None, is_reverse: None, stores: true })?;
    let limits = keyspace.limits();
    let mut kept = SortedSet::new();
    if let Some(sorted) = keyspace.read_collection::<SortedSet>(arguments.at(2))? {
        let ranks = selection.ranks(sorted);
        for (member, score) in sorted.range(ranks.start, ranks.len()) {
            kept.insert(member.bytes(&mut Digits::new()), score, &limits);
        }
    }
    reply.count(keyspace.store(arguments.at(1), Value::SortedSet(kept), event::SORTED_SET_RANGE_STORE));
    Ok(())
}

fn zcount(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    count(keyspace, arguments, By::Score, reply)
}

fn zlexcount(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    count(keyspace, arguments, By::Lex, reply)
}

fn count(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, by: By, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let ends = Ends::parse(by, arguments.at(2), arguments.at(3))?;
    let sorted = keyspace.read_collection::<SortedSet>(arguments.at(1))?;
    reply.count(sorted.map_or(0, |sorted| ends.ranks(sorted, false).len()));
    Ok(())
}

fn zremrangebyrank(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    remove(keyspace, arguments, By::Rank, reply)
}

fn zremrangebyscore(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    remove(keyspace, arguments, By::Score, reply)
}

fn zremrangebylex(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    remove(keyspace, arguments, By::Lex, reply)
}

fn remove(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, by: By, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let ends = Ends::parse(by, arguments.at(2), arguments.at(3))?;
    let event = match by {
        By::Rank => event::SORTED_SET_REMOVE_RANKS,
        By::Score => event::SORTED_SET_REMOVE_SCORES,
        By::Lex => event::SORTED_SET_REMOVE_MEMBERS,
    };
    reply.count(keyspace.sorted_set_remove_range(arguments.at(1), |sorted| ends.ranks(sorted, false), event)?);
    Ok(())
}
