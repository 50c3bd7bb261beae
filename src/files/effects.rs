//! Effects of our log, as lines for people: when, of which slot and at which position, why, and what.

use super::words::shown;
use super::{contents, moment};
use crate::engine::effect::{Effect, Side};
use crate::engine::{Group, Run};
use crate::values::stream::Edit;
use std::io::{self, Write};

fn wrong() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the log holds something that is no effect")
}

/// Writes one line for each effect of a group, and an empty one behind it.
pub(super) fn write_group(out: &mut impl Write, group: Group<'_>) -> io::Result<()> {
    let time = moment::shown(group.stamp.ms());
    for run in group.runs() {
        let run = run.ok_or_else(wrong)?;
        let mut rest = run.effects;
        for number in 0..run.count {
            let effect = Effect::decode(&mut rest).ok_or_else(wrong)?;
            write_head(out, &time, &run, number)?;
            write_effect(out, &effect)?;
        }
    }
    writeln!(out)
}

fn write_head(out: &mut impl Write, time: &str, run: &Run<'_>, number: u64) -> io::Result<()> {
    let cause = format!("{:?}", run.cause).to_lowercase();
    match run.slot {
        Some(slot) => {
            let (epoch, seq) = (run.first.epoch.0, run.first.seq.saturating_add(number));
            write!(out, "{time} slot {slot} at {epoch}:{seq} db {} {cause}: ", run.database)
        }
        None => write!(out, "{time} node db {} {cause}: ", run.database),
    }
}

/// A deadline as an option of a command.
fn until(deadline: Option<u64>) -> String {
    deadline.map(|deadline| format!(" PXAT {deadline}")).unwrap_or_default()
}

fn all<'a>(words: impl Iterator<Item = &'a [u8]>) -> String {
    words.flat_map(|word| [" ".to_owned(), shown(word)]).collect()
}

fn write_effect(out: &mut impl Write, effect: &Effect<'_>) -> io::Result<()> {
    let end = |side: Side| if side == Side::Front { 'L' } else { 'R' };
    match effect {
        Effect::SetString { key, bytes, deadline } => {
            writeln!(out, "SET {} {}{}", shown(key), shown(bytes), until(*deadline))
        }
        Effect::Increment { key, change, result } => writeln!(out, "INCRBY {} {change} (to {result})", shown(key)),
        Effect::Append { key, bytes } => writeln!(out, "APPEND {} {}", shown(key), shown(bytes)),
        Effect::SetRange { key, offset, bytes } => writeln!(out, "SETRANGE {} {offset} {}", shown(key), shown(bytes)),
        Effect::SetDeadline { key, deadline: Some(deadline) } => writeln!(out, "PEXPIREAT {} {deadline}", shown(key)),
        Effect::SetDeadline { key, deadline: None } => writeln!(out, "PERSIST {}", shown(key)),
        Effect::Delete { key } => writeln!(out, "DEL {}", shown(key)),
        Effect::ListPush { key, side, elements } => {
            writeln!(out, "{}PUSH {}{}", end(*side), shown(key), all(elements.iter()))
        }
        Effect::ListPop { key, side, count } => writeln!(out, "{}POP {} {count}", end(*side), shown(key)),
        Effect::ListInsert { key, index, element } => {
            writeln!(out, "(insert in list) {} at {index} {}", shown(key), shown(element))
        }
        Effect::ListSet { key, index, element } => writeln!(out, "LSET {} {index} {}", shown(key), shown(element)),
        Effect::ListRemove { key, indexes } => {
            let indexes: Vec<String> = indexes.iter().map(|index| index.to_string()).collect();
            writeln!(out, "(remove from list) {} at {}", shown(key), indexes.join(" "))
        }
        Effect::HashSet { key, pairs } => writeln!(out, "HSET {}{}", shown(key), all(pairs.iter())),
        Effect::HashRemove { key, fields } => writeln!(out, "HDEL {}{}", shown(key), all(fields.iter())),
        Effect::HashDeadlines { key, fields } => {
            let fields: String = fields
                .iter()
                .map(|(field, deadline)| match deadline {
                    Some(deadline) => format!(" {} at {deadline}", shown(field)),
                    None => format!(" {} never", shown(field)),
                })
                .collect();
            writeln!(out, "(fields expire) {}{fields}", shown(key))
        }
        Effect::SetAdd { key, members } => writeln!(out, "SADD {}{}", shown(key), all(members.iter())),
        Effect::SetRemove { key, members } => writeln!(out, "SREM {}{}", shown(key), all(members.iter())),
        Effect::SortedSetPut { key, members } => {
            let members: String = members.iter().map(|(member, score)| format!(" {score} {}", shown(member))).collect();
            writeln!(out, "ZADD {}{members}", shown(key))
        }
        Effect::SortedSetRemove { key, members } => writeln!(out, "ZREM {}{}", shown(key), all(members.iter())),
        Effect::StreamEdit { key, edits } => {
            write!(out, "(stream) {}", shown(key))?;
            for edit in edits.iter() {
                write_edit(out, &Edit::decode(edit).ok_or_else(wrong)?)?;
            }
            writeln!(out)
        }
        Effect::PutValue { key, image, deadline } => {
            writeln!(out, "(in place of what was there) {}{}", shown(key), until(*deadline))?;
            contents::write_image(out, key, image)
        }
        Effect::Rename { key, to } => writeln!(out, "RENAME {} {}", shown(key), shown(to)),
        Effect::Copy { key, to, database } => {
            writeln!(out, "COPY {} {} DB {database} REPLACE", shown(key), shown(to))
        }
        Effect::Move { key, database } => writeln!(out, "MOVE {} {database}", shown(key)),
        Effect::FlushSlot => writeln!(out, "(slot is empty)"),
        Effect::Flush { database: Some(_), slots } => writeln!(out, "FLUSHDB (slots {slots})"),
        Effect::Flush { database: None, slots } => writeln!(out, "FLUSHALL (slots {slots})"),
        Effect::SwapDatabases { first, second } => writeln!(out, "SWAPDB {first} {second}"),
        Effect::ClearSlot => writeln!(out, "(slot has left)"),
        Effect::BeginEpoch { after } => writeln!(out, "(history goes on after {}:{})", after.epoch.0, after.seq),
    }
}

fn write_edit(out: &mut impl Write, edit: &Edit<'_>) -> io::Result<()> {
    match *edit {
        Edit::Add { id, fields } => {
            write!(out, " add {id}{}", all(fields.iter().flat_map(|(field, value)| [field, value])))
        }
        Edit::Counters { last, max_deleted, added } => {
            write!(out, " last {last} deleted {max_deleted} added {added}")
        }
        Edit::Delete { id } => write!(out, " delete {id}"),
        Edit::Trim { through } => write!(out, " trim through {through}"),
        Edit::Group { group, last, .. } => write!(out, " group {} last {last}", shown(group)),
        Edit::DropGroup { group } => write!(out, " drop group {}", shown(group)),
        Edit::Consumer { group, consumer, .. } => write!(out, " consumer {} {}", shown(group), shown(consumer)),
        Edit::DropConsumer { group, consumer } => {
            write!(out, " drop consumer {} {}", shown(group), shown(consumer))
        }
        Edit::Pending { group, consumer, id, count, .. } => {
            write!(out, " pending {} {} {id} {count}", shown(group), shown(consumer))
        }
        Edit::Acknowledge { group, id } => write!(out, " acknowledge {} {id}", shown(group)),
    }
}
