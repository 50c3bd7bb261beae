//! Values as bytes that other servers read: DUMP and RESTORE.

use crate::commands::error::CommandError;
use crate::commands::parse::{self, is};
use crate::commands::spec::{
    ASKING, Arity::*, CommandResult, CommandSpec, DANGEROUS, DENYOOM, KEYSPACE, READONLY, WRITE, data, keys,
};
use crate::engine::{Deadline, Keyspace, event};
use crate::rdb::Content;
use crate::rdb::payload::{self, Refusal};
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;

const RESTORED: u32 = KEYSPACE | DANGEROUS;

pub const COMMANDS: &[CommandSpec] = &[
    data("dump", Exactly(2), READONLY, KEYSPACE, keys::READ, dump).tips(&["nondeterministic_output"]),
    data("restore", AtLeast(4), WRITE | DENYOOM, RESTORED, keys::OVERWRITE, restore),
    data("restore-asking", AtLeast(4), WRITE | DENYOOM | ASKING, RESTORED, keys::OVERWRITE, restore),
];

fn dump(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let Some(entry) = keyspace.read(arguments.at(1)) else {
        reply.null();
        return Ok(());
    };
    match (entry.as_string(), entry.as_value()) {
        (Some(string), _) => reply.bulk(&string.with_bytes(payload::of_string)),
        (None, Some(value)) => reply.bulk(&payload::of_value(value)),
        (None, None) => reply.null(),
    }
    Ok(())
}

/// What is said of a key's last access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accessed {
    Now,
    SecondsAgo(u64),
    Often(u8),
}

/// The options of RESTORE.
#[derive(Debug)]
struct Options {
    replaces: bool,
    /// The time to live is a moment.
    is_absolute: bool,
    accessed: Accessed,
}

impl Options {
    fn parse<'a>(mut words: impl Iterator<Item = &'a [u8]>) -> Result<Options, CommandError> {
        let mut options = Options { replaces: false, is_absolute: false, accessed: Accessed::Now };
        while let Some(word) = words.next() {
            if is(word, "replace") {
                options.replaces = true;
            } else if is(word, "absttl") {
                options.is_absolute = true;
            } else if is(word, "idletime") && !matches!(options.accessed, Accessed::Often(_)) {
                let seconds = parse::integer(words.next().ok_or(CommandError::Syntax)?)?;
                options.accessed = Accessed::SecondsAgo(
                    u64::try_from(seconds)
                        .map_err(|_| CommandError::text("ERR Invalid IDLETIME value, must be >= 0"))?,
                );
            } else if is(word, "freq") && !matches!(options.accessed, Accessed::SecondsAgo(_)) {
                let counter = parse::integer(words.next().ok_or(CommandError::Syntax)?)?;
                options.accessed = Accessed::Often(
                    u8::try_from(counter)
                        .map_err(|_| CommandError::text("ERR Invalid FREQ value, must be >= 0 and <= 255"))?,
                );
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(options)
    }
}

fn restore(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let (key, options) = (arguments.at(1), Options::parse(arguments.from(4))?);
    if !options.replaces && keyspace.exists(key) {
        return Err(CommandError::text("BUSYKEY Target key name already exists."));
    }
    let deadline = deadline(arguments.at(2), options.is_absolute, keyspace.now_ms())?;
    let read = if keyspace.skips_checksums() { payload::read_unchecked } else { payload::read };
    let content = read(arguments.at(3), &keyspace.limits(), keyspace.now_ms()).map_err(|refusal| {
        CommandError::text(match refusal {
            Refusal::VersionOrChecksum => "ERR DUMP payload version or checksum are wrong",
            Refusal::Format => "ERR Bad data format",
        })
    })?;
    if deadline.is_some_and(|deadline| deadline <= keyspace.now_ms()) {
        // It is over already: what was there goes all the same.
        keyspace.delete(key);
        reply.ok();
        return Ok(());
    }
    match content {
        Content::String(bytes) => {
            let deadline = deadline.map_or(Deadline::Clear, Deadline::At);
            keyspace.set_string_as(key, &bytes, deadline, event::RESTORE);
        }
        Content::Collection(value) => keyspace.put_value(key, value, deadline, event::RESTORE),
    }
    match options.accessed {
        Accessed::Now => {}
        Accessed::SecondsAgo(seconds) => keyspace.set_idle_seconds(key, seconds),
        Accessed::Often(counter) => keyspace.set_frequency(key, counter),
    }
    reply.ok();
    Ok(())
}

/// The deadline in Unix milliseconds that a time to live stands for; 0 is none.
fn deadline(argument: &[u8], is_absolute: bool, now_ms: u64) -> Result<Option<u64>, CommandError> {
    let ms = u64::try_from(parse::integer(argument)?)
        .map_err(|_| CommandError::text("ERR Invalid TTL value, must be >= 0"))?;
    Ok(match ms {
        0 => None,
        at if is_absolute => Some(at),
        ms => Some(ms.saturating_add(now_ms).min(i64::MAX as u64)),
    })
}
