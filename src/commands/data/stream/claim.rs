//! XCLAIM and XAUTOCLAIM: what is pending for one consumer goes to another.

use super::group::{c_text, no_such_group, seen_by};
use super::parsing::{bound_below, strict_id};
use super::{write_entry, write_id};
use crate::commands::error::CommandError;
use crate::commands::parse::{self, is};
use crate::commands::spec::CommandResult;
use crate::engine::Keyspace;
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;
use crate::values::stream::{Edit, Group, Id, Stream};

/// What XCLAIM is asked for.
#[derive(Default)]
struct Claim {
    idle_ms: u64,
    ids: Vec<Id>,
    delivered: Option<i64>,
    count: Option<u64>,
    makes_pending: bool,
    only_ids: bool,
    last: Id,
}

fn number(text: &[u8], error: &'static str) -> Result<i64, CommandError> {
    crate::base::number::parse_i64(text).ok_or(CommandError::text(error))
}

fn claim(arguments: Arguments<'_>, now_ms: u64) -> Result<Claim, CommandError> {
    let idle_ms = number(arguments.at(4), "ERR Invalid min-idle-time argument for XCLAIM")?;
    let mut claim = Claim { idle_ms: u64::try_from(idle_ms).unwrap_or(0), ..Claim::default() };
    let mut index = 5;
    while let Some(id) = arguments.get(index).and_then(|id| Id::parse(id, 0)) {
        claim.ids.push(id);
        index += 1;
    }
    while index < arguments.len() {
        let (word, value) = (arguments.at(index), arguments.get(index + 1));
        index += 2;
        match value {
            _ if is(word, "force") => {
                claim.makes_pending = true;
                index -= 1;
            }
            _ if is(word, "justid") => {
                claim.only_ids = true;
                index -= 1;
            }
            Some(value) if is(word, "idle") => {
                let idle = number(value, "ERR Invalid IDLE option argument for XCLAIM")?;
                claim.delivered = Some((now_ms as i64).wrapping_sub(idle));
            }
            Some(value) if is(word, "time") => {
                claim.delivered = Some(number(value, "ERR Invalid TIME option argument for XCLAIM")?);
            }
            Some(value) if is(word, "retrycount") => {
                let count = number(value, "ERR Invalid RETRYCOUNT option argument for XCLAIM")?;
                claim.count = u64::try_from(count).ok();
            }
            Some(value) if is(word, "lastid") => claim.last = strict_id(value, 0)?,
            _ => {
                return Err(CommandError::Bytes([b"ERR Unrecognized XCLAIM option '", c_text(word), b"'"].concat()));
            }
        }
    }
    Ok(claim)
}

pub(super) fn xclaim(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let (key, name, consumer, now_ms) = (arguments.at(1), arguments.at(2), arguments.at(3), keyspace.now_ms());
    let (stream, group) = known(keyspace, key, name)?;
    let claim = claim(arguments, now_ms)?;
    // What lies ahead, or before all time, is now.
    let delivered = claim.delivered.and_then(|delivered| u64::try_from(delivered).ok());
    let delivered = delivered.filter(|delivered| *delivered <= now_ms).unwrap_or(now_ms);
    let mut claims = Claims::new(stream, group, name, consumer, now_ms);
    if claim.last > group.last {
        claims.edits.push(Edit::Group { group: name, last: claim.last, read: group.read });
    }
    let begun = reply.begin();
    for id in claim.ids {
        let pending = claims.pending(id);
        if stream.get(id).is_none() {
            if pending.is_some() {
                claims.forget(id);
            }
            continue;
        }
        let before = match pending {
            Some((delivered, _)) if now_ms.saturating_sub(delivered) < claim.idle_ms => continue,
            Some((_, count)) => count,
            None if claim.makes_pending => 1,
            None => continue,
        };
        let count = claim.count.unwrap_or(if claim.only_ids { before } else { before + 1 });
        claims.take(id, delivered, count, claim.only_ids, reply);
    }
    let written = claims.written;
    let (edits, count, is_new) = claims.finish();
    reply.end_array(begun, written);
    seen_by(keyspace, key, &edits, count, is_new)
}

pub(super) fn xautoclaim(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let (key, name, consumer, now_ms) = (arguments.at(1), arguments.at(2), arguments.at(3), keyspace.now_ms());
    let idle_ms = number(arguments.at(4), "ERR Invalid min-idle-time argument for XAUTOCLAIM")?;
    let idle_ms = u64::try_from(idle_ms).unwrap_or(0);
    let from = bound_below(arguments.at(5))?;
    let (mut count, mut only_ids, mut index) = (100usize, false, 6);
    while index < arguments.len() {
        let word = arguments.at(index);
        if is(word, "count") && index + 1 < arguments.len() {
            let most = parse::integer(arguments.at(index + 1)).unwrap_or(0);
            // Ten times as many are looked at.
            let most = usize::try_from(most).ok().filter(|most| (1..=i64::MAX as usize / 16).contains(most));
            count = most.ok_or(CommandError::text("ERR COUNT must be > 0"))?;
            index += 2;
        } else if is(word, "justid") {
            only_ids = true;
            index += 1;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    let (stream, group) = known(keyspace, key, name)?;
    let mut claims = Claims::new(stream, group, name, consumer, now_ms);
    reply.array(3);
    let mut claimed = Vec::new();
    let mut writer = ReplyWriter::new(&mut claimed, reply.protocol());
    let (mut attempts, mut left, mut gone) = (count.saturating_mul(10), count, Vec::new());
    let mut pending = group.pending_between(from, Id::MAX).peekable();
    while attempts > 0
        && left > 0
        && let Some(next) = pending.next()
    {
        attempts -= 1;
        if stream.get(next.id).is_none() {
            claims.forget(next.id);
            gone.push(next.id);
            left -= 1;
        } else if now_ms.saturating_sub(next.delivered) >= idle_ms {
            let delivered_before = next.count + u64::from(!only_ids);
            claims.take(next.id, now_ms, delivered_before, only_ids, &mut writer);
            left -= 1;
        }
    }
    write_id(reply, pending.peek().map_or(Id::MIN, |next| next.id));
    drop(pending);
    reply.array(claims.written);
    reply.raw(&claimed);
    reply.array(gone.len());
    gone.iter().for_each(|id| write_id(reply, *id));
    let (edits, count, is_new) = claims.finish();
    seen_by(keyspace, key, &edits, count, is_new)
}

fn known<'k>(keyspace: &'k mut Keyspace<'_>, key: &[u8], name: &[u8]) -> Result<(&'k Stream, &'k Group), CommandError> {
    let stream = keyspace.peek_collection::<Stream>(key)?;
    let known = stream.and_then(|stream| Some((stream, stream.group(name)?)));
    known.ok_or_else(|| no_such_group(key, name, b""))
}

/// What has been claimed so far.
struct Claims<'a, 's> {
    stream: &'s Stream,
    group: &'s Group,
    name: &'a [u8],
    consumer: &'a [u8],
    now_ms: u64,
    edits: Vec<Edit<'a>>,
    /// What edits have made of pending entries: delivered, and how often; `None`: they are not pending any more.
    changed: std::collections::HashMap<Id, Option<(u64, u64)>>,
    written: usize,
}

impl<'a, 's> Claims<'a, 's> {
    fn new(stream: &'s Stream, group: &'s Group, name: &'a [u8], consumer: &'a [u8], now_ms: u64) -> Claims<'a, 's> {
        let (edits, changed) = (Vec::new(), std::collections::HashMap::new());
        Claims { stream, group, name, consumer, now_ms, edits, changed, written: 0 }
    }

    /// When an entry was delivered, and how often, if it is pending.
    fn pending(&self, id: Id) -> Option<(u64, u64)> {
        let before = || self.group.pending(id).map(|pending| (pending.delivered, pending.count));
        self.changed.get(&id).copied().unwrap_or_else(before)
    }

    /// An entry that is no more is not pending either.
    fn forget(&mut self, id: Id) {
        self.edits.push(Edit::Acknowledge { group: self.name, id });
        self.changed.insert(id, None);
    }

    /// Gives a pending entry to the consumer, and writes it.
    fn take(&mut self, id: Id, delivered: u64, count: u64, only_ids: bool, reply: &mut ReplyWriter<'_>) {
        if self.written == 0 {
            let (group, consumer, seen) = (self.name, self.consumer, self.now_ms);
            self.edits.push(Edit::Consumer { group, consumer, seen, active: Some(seen) });
        }
        self.edits.push(Edit::Pending { group: self.name, consumer: self.consumer, id, delivered, count });
        self.changed.insert(id, Some((delivered, count)));
        self.written += 1;
        match self.stream.get(id) {
            Some(entry) if !only_ids => write_entry(reply, &entry),
            _ => write_id(reply, id),
        }
    }

    /// The edits, how many changes they are to Redis, and whether the consumer is new.
    fn finish(self) -> (Vec<Edit<'a>>, usize, bool) {
        let is_new = self.written > 0 && self.group.consumer(self.consumer).is_none();
        let count = self.changed.len();
        (self.edits, count, is_new)
    }
}
