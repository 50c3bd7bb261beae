//! XREAD and XREADGROUP: entries of several streams, now or when they come.

use super::super::blocking::{Patience, serve_or_wait};
use super::parsing::strict_id;
use super::write_entries;
use crate::commands::error::CommandError;
use crate::commands::parse::{self, is};
use crate::commands::spec::CommandResult;
use crate::engine::Keyspace;
use crate::engine::entry::Kind;
use crate::resp::arguments::Arguments;
use crate::resp::reply::{Protocol, ReplyWriter};
use crate::values::stream::{Id, Stream};
use std::sync::Arc;

/// Which command is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    Plain,
    Group,
}

/// What XREAD and XREADGROUP are asked for.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) arguments: Arguments<'a>,
    /// Where the keys begin, and how many there are: as many ids follow.
    pub(super) keys_at: usize,
    pub(super) keys: usize,
    /// Entries of each stream, at most.
    pub(super) count: usize,
    /// Whether it waits, and until when (`None`: for ever).
    pub(super) block: Option<Option<u64>>,
    /// Group and consumer.
    pub(super) group: Option<(&'a [u8], &'a [u8])>,
    pub(super) acknowledges: bool,
    /// What has been pending for so many milliseconds is taken too.
    pub(super) claim_ms: Option<u64>,
}

impl<'a> Request<'a> {
    pub(super) fn parse(arguments: Arguments<'a>, reader: Reader, now_ms: u64) -> Result<Request<'a>, CommandError> {
        let (keys_at, keys, count) = (0, 0, usize::MAX);
        let (block, group, acknowledges, claim_ms) = (None, None, false, None);
        let mut request = Request { arguments, keys_at, keys, count, block, group, acknowledges, claim_ms };
        let mut index = 1;
        while index < arguments.len() {
            let (word, more) = (arguments.at(index), arguments.len() - index - 1);
            if is(word, "block") && more > 0 {
                request.block = Some(milliseconds(arguments.at(index + 1), now_ms)?);
                index += 2;
            } else if is(word, "count") && more > 0 {
                let count = parse::integer(arguments.at(index + 1))?;
                request.count = usize::try_from(count).ok().filter(|count| *count > 0).unwrap_or(usize::MAX);
                index += 2;
            } else if is(word, "streams") && more > 0 {
                (request.keys_at, request.keys) = (index + 1, more / 2);
                if more % 2 == 1 {
                    return Err(UNBALANCED);
                }
                break;
            } else if is(word, "group") && more >= 2 {
                refuse(reader, "ERR The GROUP option is only supported by XREADGROUP. You called XREAD instead.")?;
                request.group = Some((arguments.at(index + 1), arguments.at(index + 2)));
                index += 3;
            } else if is(word, "claim") && more > 0 {
                refuse(reader, "ERR The CLAIM option is only supported by XREADGROUP. You called XREAD instead.")?;
                request.claim_ms = Some(idle_milliseconds(arguments.at(index + 1))?);
                index += 2;
            } else if is(word, "noack") {
                refuse(reader, "ERR The NOACK option is only supported by XREADGROUP. You called XREAD instead.")?;
                request.acknowledges = true;
                index += 1;
            } else {
                return Err(CommandError::Syntax);
            }
        }
        if request.keys_at == 0 {
            return Err(CommandError::Syntax);
        }
        if reader == Reader::Group && request.group.is_none() {
            return Err(CommandError::text("ERR Missing GROUP option for XREADGROUP"));
        }
        Ok(request)
    }

    /// Each key with the text of its id.
    pub(super) fn streams(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone + use<'a> {
        let (arguments, keys_at, keys) = (self.arguments, self.keys_at, self.keys);
        (keys_at..keys_at + keys).map(move |index| (arguments.at(index), arguments.at(index + keys)))
    }
}

fn refuse(reader: Reader, text: &'static str) -> CommandResult {
    if reader == Reader::Plain { Err(CommandError::text(text)) } else { Ok(()) }
}

const UNBALANCED: CommandError =
    CommandError::text("ERR Unbalanced XREAD list of streams: for each stream key an ID or '$' must be specified.");

/// The time-out of BLOCK, in milliseconds, as the Unix milliseconds at which it is over; `None`: never.
fn milliseconds(argument: &[u8], now_ms: u64) -> Result<Option<u64>, CommandError> {
    let ms = crate::base::number::parse_i64(argument)
        .ok_or(CommandError::text("ERR timeout is not an integer or out of range"))?;
    let ms = u64::try_from(ms).map_err(|_| CommandError::text("ERR timeout is negative"))?;
    let until = ms.checked_add(now_ms).filter(|until| i64::try_from(*until).is_ok());
    match ms {
        0 => Ok(None),
        _ => until.map(Some).ok_or(CommandError::text("ERR timeout is out of range")),
    }
}

/// The time of CLAIM.
fn idle_milliseconds(argument: &[u8]) -> Result<u64, CommandError> {
    let ms =
        crate::base::number::parse_i64(argument).ok_or(CommandError::text("ERR min-idle-time is not an integer"))?;
    u64::try_from(ms).map_err(|_| CommandError::text("ERR min-idle-time must be a positive integer"))
}

/// Begins what is read of one stream; the entries follow.
pub(super) fn begin_stream(reply: &mut ReplyWriter<'_>, key: &[u8]) {
    if reply.protocol() == Protocol::Resp2 {
        reply.array(2);
    }
    reply.bulk(key);
}

/// Ends what has been read of some streams: an array, or a map.
pub(super) fn end_streams(reply: &mut ReplyWriter<'_>, begun: crate::resp::reply::Deferred, count: usize) {
    match reply.protocol() {
        Protocol::Resp2 => reply.end_array(begun, count),
        Protocol::Resp3 => reply.end_map(begun, count),
    }
}

pub(super) fn xread(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let request = Request::parse(arguments, Reader::Plain, keyspace.now_ms())?;
    let mut after = Vec::with_capacity(request.keys);
    for (key, id) in request.streams() {
        // Redis looks at the type of a key before it looks at what is asked of it.
        keyspace.peek_collection::<Stream>(key)?;
        let id = match id {
            b"$" => keyspace.peek_collection::<Stream>(key)?.map_or(Id::MIN, Stream::last_id),
            // The last entry, or the next one where there is none.
            b"+" => {
                let stream = keyspace.peek_collection::<Stream>(key)?;
                let before_last =
                    |stream: &Stream| stream.last().map_or(Some(stream.last_id()), |last| last.id.previous());
                stream.and_then(before_last).unwrap_or(Id::MIN)
            }
            b">" => {
                return Err(CommandError::text(
                    "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option.",
                ));
            }
            _ => strict_id(id, 0)?,
        };
        after.push(id);
    }
    let (begun, mut served) = (reply.begin(), 0);
    for ((key, _), after) in request.streams().zip(&after) {
        served += usize::from(read_after(keyspace, key, *after, request.count, reply)?);
    }
    if served > 0 {
        end_streams(reply, begun, served);
        return Ok(());
    }
    let Some(until_ms) = request.block else {
        reply.null_array();
        return Ok(());
    };
    let keys = request.streams().map(|(key, _)| key);
    let wanted: Arc<[(Box<[u8]>, Id)]> = keys.clone().map(Box::from).zip(after).collect();
    let count = request.count;
    serve_or_wait(keyspace, keys, Patience::until(until_ms, Kind::Stream), reply, move |keyspace, key, reply| {
        let Some((_, after)) = wanted.iter().find(|(other, _)| **other == *key) else { return Ok(false) };
        let begun = reply.begin();
        let is_served = read_after(keyspace, key, *after, count, reply)?;
        if is_served {
            end_streams(reply, begun, 1);
        }
        Ok(is_served)
    })
}

/// Writes a stream's entries behind an id. False where there are none.
fn read_after(
    keyspace: &mut Keyspace<'_>,
    key: &[u8],
    after: Id,
    count: usize,
    reply: &mut ReplyWriter<'_>,
) -> Result<bool, CommandError> {
    let Some(stream) = keyspace.read_collection::<Stream>(key)? else { return Ok(false) };
    let Some(from) = after.next().filter(|from| stream.range(*from, Id::MAX).next().is_some()) else {
        return Ok(false);
    };
    begin_stream(reply, key);
    write_entries(reply, stream.range(from, Id::MAX), count);
    Ok(true)
}
