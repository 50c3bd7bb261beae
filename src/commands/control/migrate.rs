//! MIGRATE: keys to another server.
//!
//! No lock is held while the network is waited for, and no thread: only the connection that asks waits. A key may be
//! written meanwhile, so each that is sent is watched, and removed only if it is still what was sent; else it is sent
//! again, in place of what the target has got. Whatever fails, and whoever leaves, a key is removed here only after the
//! target has said that it has it: after a time-out it may be in both places.

mod source;

use crate::commands::context::{Control, Flow};
use crate::commands::error::CommandError;
use crate::commands::parse::{self, is};
use crate::commands::spec::{
    Access, Arity::*, Begin, CommandResult, CommandSpec, DANGEROUS, Find, KEYSPACE, KeySpec, MOVABLE_KEYS, WAITS,
    WRITE, control, keys,
};
use crate::commands::table;
use crate::resp::arguments::Arguments;
use crate::resp::reply::{Protocol, ReplyWriter};
use source::Source;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

const KEYS: &[KeySpec] = &[
    keys::one(3, Access::ReadWrite, "access delete"),
    KeySpec {
        access: Access::ReadWrite,
        effects: "access delete incomplete",
        begin: Begin::Keyword("KEYS", -2),
        find: Find::Range { last: -1, step: 1, limit: 0 },
        notes: "",
    },
];

pub const COMMANDS: &[CommandSpec] =
    &[control("migrate", AtLeast(6), WRITE | MOVABLE_KEYS | WAITS, KEYSPACE | DANGEROUS, migrate)
        .keys(KEYS)
        .keys_found_by(keys_of)
        .tips(&["nondeterministic_output"])];

/// The time of a step where none is given.
const STEP_MS: i64 = 1000;
/// Where the options begin.
const OPTIONS_AT: usize = 6;

/// Where the keys are: the one in its place, or, where that is empty, all behind KEYS.
fn keys_of(arguments: Arguments<'_>) -> Range<usize> {
    let mut index = OPTIONS_AT;
    while arguments.at(3).is_empty() && index < arguments.len() {
        match arguments.at(index) {
            word if is(word, "keys") => return index + 1..arguments.len(),
            // A password may be called so.
            word if is(word, "auth") => index += 2,
            word if is(word, "auth2") => index += 3,
            _ => index += 1,
        }
    }
    3..4
}

/// What is asked for.
#[derive(Debug)]
struct Options {
    host: String,
    port: u16,
    /// The target's database.
    database: i64,
    /// Of each step: connecting, a part that is written, a reply.
    step: Duration,
    copies: bool,
    replaces: bool,
    /// What AUTH is called with.
    login: Vec<Box<[u8]>>,
}

impl Options {
    /// # Errors
    /// Redis's own, in its order.
    fn parse(arguments: Arguments<'_>) -> Result<Options, CommandError> {
        let mut login = Vec::new();
        let (mut copies, mut replaces) = (false, false);
        let mut index = OPTIONS_AT;
        while index < arguments.len() {
            let (word, more) = (arguments.at(index), arguments.len() - 1 - index);
            let secrets = match word {
                _ if is(word, "copy") => {
                    copies = true;
                    0
                }
                _ if is(word, "replace") => {
                    replaces = true;
                    0
                }
                _ if is(word, "auth") && more >= 1 => 1,
                _ if is(word, "auth2") && more >= 2 => 2,
                _ if is(word, "keys") && arguments.at(3).is_empty() => break,
                _ if is(word, "keys") => {
                    return Err(CommandError::text(
                        "ERR When using MIGRATE KEYS option, the key argument must be set to the empty string",
                    ));
                }
                _ => return Err(CommandError::Syntax),
            };
            if secrets > 0 {
                login = (1..=secrets).map(|behind| arguments.at(index + behind).into()).collect();
            }
            index += 1 + secrets;
        }
        let step_ms = parse::integer(arguments.at(5))?;
        let database = parse::integer(arguments.at(4))?;
        let step_ms = if step_ms > 0 { step_ms } else { STEP_MS };
        let port = parse::integer(arguments.at(2)).ok().and_then(|port| u16::try_from(port).ok());
        Ok(Options {
            host: String::from_utf8_lossy(arguments.at(1)).into_owned(),
            // Nobody answers at what is no port.
            port: port.unwrap_or(0),
            database,
            step: Duration::from_millis(step_ms.unsigned_abs()),
            copies,
            replaces,
            login,
        })
    }
}

/// The places of what nobody else may see: the arguments of AUTH and AUTH2, also in a request that is refused.
fn secrets(arguments: Arguments<'_>) -> impl Iterator<Item = usize> {
    (OPTIONS_AT..arguments.len()).flat_map(move |index| match arguments.at(index) {
        word if is(word, "auth") => index + 1..index + 2,
        word if is(word, "auth2") => index + 1..index + 3,
        _ => 0..0,
    })
}

fn migrate(control: &mut Control<'_>, arguments: Arguments<'_>, _: &mut ReplyWriter<'_>) -> CommandResult {
    control.session.secrets.extend(secrets(arguments));
    let options = Options::parse(arguments)?;
    if control.in_transaction {
        // EXEC holds locks, and nothing may wait for a network under them.
        return Err(CommandError::text("ERR MIGRATE is not allowed inside a transaction"));
    }
    let keys = keys_of(arguments).map(|index| arguments.at(index).into()).collect();
    let source = Source::new(control.services, control.session.database, control.session.keeps_access);
    let services = Arc::clone(control.services);
    control.flow = Flow::Alone(Box::pin(async move {
        let mut bytes = Vec::new();
        let mut reply = ReplyWriter::new(&mut bytes, Protocol::Resp2);
        match source.send(keys, &options).await {
            Ok(text) => reply.simple(text),
            Err(error) => {
                services.statistics.count_error(table::all().len(), &error.to_string());
                error.write(&mut reply);
            }
        }
        bytes
    }));
    Ok(())
}
