//! Deleting entries: XDEL, XDELEX, XACKDEL and XTRIM, and what becomes of those that groups still need.

use super::parsing::{self, Trimming, strict_id};
use crate::commands::error::CommandError;
use crate::commands::parse::is;
use crate::commands::spec::CommandResult;
use crate::engine::{Keyspace, event};
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;
use crate::values::stream::{Edit, Id, Precision, References, Stream};
use std::collections::HashSet;

/// Answers of XDELEX and XACKDEL for an id.
const UNKNOWN: i64 = -1;
const DELETED: i64 = 1;
const NEEDED: i64 = 2;

/// Trims a stream, if there is one. Returns how many entries went.
pub(super) fn trim(keyspace: &mut Keyspace<'_>, key: &[u8], trimming: Trimming) -> Result<usize, CommandError> {
    let Some(stream) = keyspace.peek_collection::<Stream>(key)? else { return Ok(0) };
    let before = stream.len();
    let Some(bound) = stream.trim_bound(trimming.keep, trimming.precision) else { return Ok(0) };
    let mut edits = vec![Edit::Trim { through: bound }];
    let pendings;
    match trimming.references {
        References::Kept => {}
        References::Dropped => {
            let gone: Vec<Id> = stream.range(Id::MIN, bound).map(|entry| entry.id).collect();
            pendings = stream.pendings(&gone);
            edits.extend(gone.iter().flat_map(|id| pendings.acknowledge(*id)));
        }
        References::Respected => {
            let unneeded = stream.trim_unneeded(trimming.keep, trimming.precision).unwrap_or_default();
            edits = match unneeded.ids.last() {
                Some(last) if unneeded.is_front => vec![Edit::Trim { through: *last }],
                _ => unneeded.ids.iter().map(|id| Edit::Delete { id: *id }).collect(),
            };
            if edits.is_empty() {
                return Ok(0);
            }
        }
    }
    let count = if trimming.precision == Precision::Exact { 1 } else { before };
    keyspace.stream_edit(key, &edits, count.min(1), event::STREAM_TRIM)?;
    Ok(before - keyspace.peek_collection::<Stream>(key)?.map_or(0, Stream::len))
}

pub(super) fn xtrim(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let trimming = parsing::trimming(arguments, &keyspace.limits())?;
    reply.count(trim(keyspace, arguments.at(1), trimming)?);
    Ok(())
}

pub(super) fn xdel(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let key = arguments.at(1);
    let Some(stream) = keyspace.peek_collection::<Stream>(key)? else {
        reply.integer(0);
        return Ok(());
    };
    let ids: Vec<Id> = arguments.from(2).map(|id| strict_id(id, 0)).collect::<Result<_, _>>()?;
    let mut found: Vec<Id> = ids.into_iter().filter(|id| stream.get(*id).is_some()).collect();
    found.sort_unstable();
    found.dedup();
    let edits: Vec<Edit<'_>> = found.iter().map(|id| Edit::Delete { id: *id }).collect();
    if !edits.is_empty() {
        keyspace.stream_edit(key, &edits, edits.len(), event::STREAM_DELETE)?;
    }
    reply.count(edits.len());
    Ok(())
}

/// What XDELEX and XACKDEL are asked for, from the argument `first` on.
fn wanted(arguments: Arguments<'_>, first: usize) -> Result<(References, Vec<Id>), CommandError> {
    let (mut references, mut ids, mut index) = (None, None, first);
    while index < arguments.len() {
        let (word, count) = (arguments.at(index), arguments.get(index + 1));
        match (parsing::references(word), count) {
            (Some(found), _) if references.is_none() => {
                references = Some(found);
                index += 1;
            }
            (_, Some(count)) if is(word, "ids") && ids.is_none() => {
                let count = crate::base::number::parse_i64(count).and_then(|count| usize::try_from(count).ok());
                let count = count.filter(|count| *count > 0);
                let count = count.ok_or(CommandError::text("ERR Number of IDs must be a positive integer"))?;
                let (begin, left) = (index + 2, arguments.len() - index - 2);
                if count > left {
                    return Err(CommandError::text("ERR The `numids` parameter must match the number of arguments"));
                }
                index = begin + count;
                ids = Some(begin..index);
            }
            _ => return Err(CommandError::Syntax),
        }
    }
    let ids = ids.ok_or(CommandError::Syntax)?.map(|index| strict_id(arguments.at(index), 0));
    Ok((references.unwrap_or_default(), ids.collect::<Result<_, _>>()?))
}

fn write_answers(reply: &mut ReplyWriter<'_>, answers: &[i64]) {
    reply.array(answers.len());
    answers.iter().for_each(|answer| reply.integer(*answer));
}

/// Makes the edits of XDELEX or XACKDEL.
fn make(keyspace: &mut Keyspace<'_>, key: &[u8], edits: &[Edit<'_>], count: usize) -> CommandResult {
    if edits.iter().any(|edit| matches!(edit, Edit::Delete { .. })) {
        keyspace.stream_edit(key, edits, count, event::STREAM_DELETE)?;
    } else {
        keyspace.stream_note(key, edits, count)?;
    }
    Ok(())
}

pub(super) fn xdelex(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let (references, ids) = wanted(arguments, 2)?;
    let key = arguments.at(1);
    let Some(stream) = keyspace.peek_collection::<Stream>(key)? else {
        write_answers(reply, &vec![UNKNOWN; ids.len()]);
        return Ok(());
    };
    let pendings = (references != References::Kept).then(|| stream.pendings(&ids));
    let (mut edits, mut answers, mut seen, mut changed) = (Vec::new(), Vec::new(), HashSet::new(), 0);
    for id in ids {
        let before = edits.len();
        let is_new = seen.insert(id);
        answers.push(match &pendings {
            Some(pendings) if references == References::Respected && pendings.needs(id, None) => NEEDED,
            _ if !is_new => UNKNOWN,
            pendings => {
                // Also where there is no such entry any more.
                edits.extend(pendings.iter().flat_map(|pendings| pendings.acknowledge(id)));
                delete(stream, id, &mut edits)
            }
        });
        changed += usize::from(edits.len() > before);
    }
    make(keyspace, key, &edits, changed)?;
    write_answers(reply, &answers);
    Ok(())
}

/// The edit that deletes an entry, and the answer, if there is one.
fn delete(stream: &Stream, id: Id, edits: &mut Vec<Edit<'_>>) -> i64 {
    if stream.get(id).is_none() {
        return UNKNOWN;
    }
    edits.push(Edit::Delete { id });
    DELETED
}

pub(super) fn xackdel(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let (references, ids) = wanted(arguments, 3)?;
    let (key, name) = (arguments.at(1), arguments.at(2));
    let stream = keyspace.peek_collection::<Stream>(key)?;
    let Some((stream, group)) = stream.and_then(|stream| Some((stream, stream.group(name)?))) else {
        write_answers(reply, &vec![UNKNOWN; ids.len()]);
        return Ok(());
    };
    let pendings = (references != References::Kept).then(|| stream.pendings(&ids));
    let (mut edits, mut answers, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
    for id in ids {
        if group.pending(id).is_none() || !seen.insert(id) {
            answers.push(UNKNOWN);
            continue;
        }
        edits.push(Edit::Acknowledge { group: name, id });
        answers.push(match &pendings {
            Some(pendings) if references == References::Respected && pendings.needs(id, Some(name)) => NEEDED,
            pendings => {
                let dropped = pendings.iter().filter(|_| references == References::Dropped);
                let others = dropped.flat_map(|pendings| pendings.acknowledge(id));
                edits.extend(others.filter(|edit| !matches!(edit, Edit::Acknowledge { group, .. } if *group == name)));
                // It is done with, also where the entry has been deleted before.
                delete(stream, id, &mut edits);
                DELETED
            }
        });
    }
    make(keyspace, key, &edits, seen.len())?;
    write_answers(reply, &answers);
    Ok(())
}
