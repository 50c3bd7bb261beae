//! DEBUG: what tests need to look inside and to provoke. Only the subcommands that mean something here are known.
//!
//! `enable-debug-command` is `local` by default, where Redis says `no`: a client on the same machine may use it, others
//! not. Nothing here reads the process's memory; DEBUG PANIC ends it, as a fault in a handler would.

use super::transaction;
use crate::base::slot::Slot;
use crate::commands::context::{Control, Flow};
use crate::commands::error::CommandError;
use crate::commands::help;
use crate::commands::parse::is;
use crate::commands::spec::{ADMIN, Arity::*, CommandResult, CommandSpec, LOADING, NOSCRIPT, STALE, control};
use crate::config::value::parse_memory;
use crate::engine::Keyspace;
use crate::engine::entry::StringRef;
use crate::resp::arguments::Arguments;
use crate::resp::reply::{Protocol, ReplyWriter};
use crate::services::append_log;
use crate::services::pause::Paused;
use crate::services::snapshots::{self, Pausing};
use crate::values::Limits;
use std::sync::Arc;
use std::time::Duration;

pub const COMMANDS: &[CommandSpec] = &[control("debug", AtLeast(2), ADMIN | NOSCRIPT | LOADING | STALE, 0, debug)];

/// The largest DEBUG QUICKLIST-PACKED-THRESHOLD, as in Redis.
const LONE_ELEMENT_BYTES_MAX: usize = (4 << 30) - (1 << 20);
/// The longest DEBUG SLEEP.
const SLEEP_MAX: Duration = Duration::from_secs(3600);

fn debug(control: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    if !is_allowed(control) {
        return Err(CommandError::text(
            "ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you can run it \
             from a local connection, otherwise you need to set this option in the configuration file, and then \
             restart the server.",
        ));
    }
    let (word, count) = (arguments.at(1), arguments.len());
    match word {
        _ if is(word, "help") && count == 2 => debug_help(reply),
        _ if is(word, "panic") && count == 2 => panic!("DEBUG PANIC"),
        _ if is(word, "sleep") && count == 3 => sleep(arguments.at(2), reply),
        _ if is(word, "set-active-expire") && count == 3 => {
            control.services.settings.set_active_expire(arguments.at(2) == b"1");
            reply.ok();
        }
        _ if is(word, "set-skip-checksum-validation") && count == 3 => {
            control.services.engine.set_skips_checksums(arguments.at(2) == b"1");
            reply.ok();
        }
        _ if is(word, "object") && count >= 3 => return object(control, arguments.at(2), reply),
        _ if is(word, "error") && count == 3 => reply.error(arguments.at(2)),
        _ if is(word, "log") && count == 3 => {
            tracing::warn!("DEBUG LOG: {}", String::from_utf8_lossy(arguments.at(2)));
            reply.ok();
        }
        _ if is(word, "log-reader") && count == 3 => return log_reader(control, arguments.at(2), reply),
        _ if is(word, "quicklist-packed-threshold") && count == 3 => {
            return list_lone_element(control, arguments.at(2), reply);
        }
        _ if is(word, "reload") => return reload(control, arguments),
        _ if is(word, "loadaof") && count == 2 => return load_log(control),
        _ if is(word, "protocol") && count == 3 => return protocol(arguments.at(2), reply),
        _ => {
            let word = String::from_utf8_lossy(&word[..word.len().min(128)]);
            let text = format!("ERR unknown subcommand or wrong number of arguments for '{word}'. Try DEBUG HELP.");
            return Err(CommandError::Text(text.into()));
        }
    }
    Ok(())
}

/// What `enable-debug-command` says of this client.
fn is_allowed(control: &Control<'_>) -> bool {
    let config = control.services.settings.load_full();
    match config.get(&[b"enable-debug-command"]).first().map(|(_, text)| *text) {
        Some("yes") => true,
        Some("local") => control.session.client.address.is_local(),
        _ => false,
    }
}

/// From which size on elements of lists have chunks of their own, those that are added from now on; 0: as always, which
/// is what a chunk may hold. For tests of such lists without such elements.
fn list_lone_element(control: &mut Control<'_>, size: &[u8], reply: &mut ReplyWriter<'_>) -> CommandResult {
    let bytes = std::str::from_utf8(size).ok().and_then(parse_memory).and_then(|bytes| usize::try_from(bytes).ok());
    let Some(bytes) = bytes.filter(|bytes| *bytes <= LONE_ELEMENT_BYTES_MAX) else {
        return Err(CommandError::text("ERR argument must be a memory value bigger than 1 and smaller than 4gb"));
    };
    let engine = &control.services.engine;
    let list_lone_element_bytes = if bytes == 0 { usize::MAX } else { bytes };
    engine.set_limits(Limits { list_lone_element_bytes, ..engine.limits() });
    reply.ok();
    Ok(())
}

/// Saves all keys, drops them, and loads them again; everybody waits meanwhile.
fn reload(control: &mut Control<'_>, arguments: Arguments<'_>) -> CommandResult {
    let (mut replaces, mut keeps, mut saves) = (false, false, true);
    for word in arguments.from(2) {
        match word {
            _ if is(word, "merge") => replaces = true,
            _ if is(word, "noflush") => keeps = true,
            _ if is(word, "nosave") => saves = false,
            _ => {
                return Err(CommandError::text(
                    "ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.",
                ));
            }
        }
    }
    if control.in_transaction {
        return Err(CommandError::text("ERR DEBUG RELOAD is not allowed inside a transaction"));
    }
    let services = Arc::clone(control.services);
    control.flow = Flow::Alone(Box::pin(async move {
        let _pausing = Pausing::begin(&services, Paused::All);
        if saves && !snapshots::save_now(&services).await {
            return b"-ERR\r\n".to_vec();
        }
        let loader = Arc::clone(&services);
        let loaded = tokio::task::spawn_blocking(move || snapshots::reload(&loader, keeps, replaces)).await;
        let error = match loaded {
            Ok(Ok(())) => {
                tracing::warn!("DB reloaded by DEBUG RELOAD");
                return b"+OK\r\n".to_vec();
            }
            Ok(Err(error)) => error,
            Err(error) => error.to_string(),
        };
        tracing::warn!("DEBUG RELOAD failed: {error}");
        b"-ERR Error trying to load the RDB dump, check server logs.\r\n".to_vec()
    }));
    Ok(())
}

/// Drops all keys, and makes them again of the log on disk; everybody waits meanwhile.
fn load_log(control: &mut Control<'_>) -> CommandResult {
    if control.in_transaction {
        return Err(CommandError::text("ERR DEBUG LOADAOF is not allowed inside a transaction"));
    }
    let services = Arc::clone(control.services);
    control.flow = Flow::Alone(Box::pin(async move {
        match append_log::reload(&services).await {
            Ok(()) => {
                tracing::warn!("Append Only File loaded by DEBUG LOADAOF");
                b"+OK\r\n".to_vec()
            }
            Err(error) => format!("-ERR {error}\r\n").into_bytes(),
        }
    }));
    Ok(())
}

/// Redis stops altogether for this time. Here it is the thread of this connection that stops, and every connection that
/// lives on it: with `threads 1` that is the whole server, and a command is as slow as the slow log and the latency
/// monitor are told it was. Inside a transaction the keys of the transaction stay locked as well.
fn sleep(seconds: &[u8], reply: &mut ReplyWriter<'_>) {
    // Redis reads what is no number as 0.
    let seconds = crate::base::number::parse_double(seconds).unwrap_or(0.0);
    let time = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO).min(SLEEP_MAX);
    reply.ok();
    std::thread::sleep(time);
}

/// A reader of the log that counts: what readers cost can be measured with it, and what happens when one stands still.
fn log_reader(control: &mut Control<'_>, word: &[u8], reply: &mut ReplyWriter<'_>) -> CommandResult {
    let (reader, engine) = (&control.services.log_reader, &control.services.engine);
    if control.in_transaction {
        // Its place is taken under the locks of all shards.
        return Err(CommandError::text("ERR DEBUG LOG-READER is not allowed inside a transaction"));
    }
    match word {
        _ if is(word, "on") => {
            reader.start(engine).map_err(|error| CommandError::Text(format!("ERR no reader: {error}").into()))?;
            reply.ok();
        }
        _ if is(word, "stand") => {
            reader.stand();
            reply.ok();
        }
        _ if is(word, "off") => {
            reader.stop();
            reply.ok();
        }
        _ if is(word, "status") => {
            let (kept, is_full) = (engine.log.kept_bytes(), engine.log.is_full());
            let groups = reader.groups().map_or(-1, |groups| groups as i64);
            reply.bulk(format!("groups={groups} kept_bytes={kept} full={}", u8::from(is_full)).as_bytes());
        }
        _ => return Err(CommandError::Syntax),
    }
    Ok(())
}

fn object(control: &mut Control<'_>, key: &[u8], reply: &mut ReplyWriter<'_>) -> CommandResult {
    if control.in_transaction {
        // EXEC holds locks, and the key of DEBUG OBJECT is not among those it knows of.
        return Err(CommandError::text("ERR DEBUG OBJECT is not allowed inside a transaction"));
    }
    let engine = &control.services.engine;
    let (wait, since_ms) = control.session.wait(control.now_ms);
    let database = control.session.database;
    let Some(mut keyspace) = engine.try_lock_slot(wait, Slot::of_key(key), database, control.now_ms) else {
        control.flow = transaction::busy(control.session, since_ms);
        return Ok(());
    };
    let text = describe(&mut keyspace, key).ok_or(CommandError::NoSuchKey)?;
    reply.simple(&text);
    Ok(())
}

/// The line of DEBUG OBJECT. The address is not shown: it is of no use but to an attacker. `serializedlength` is what
/// the value needs in memory, or the length of a string: nothing is serialized here.
fn describe(keyspace: &mut Keyspace<'_>, key: &[u8]) -> Option<String> {
    let entry = keyspace.peek(key)?;
    let length = match entry.as_string() {
        Some(StringRef::Integer(value)) => StringRef::Integer(value).len(),
        Some(StringRef::Bytes(bytes)) => bytes.len() + 1,
        None => entry.memory_bytes(),
    };
    let (access, encoding) = (entry.access(), entry.encoding());
    let idle = keyspace.idle_seconds(access).unwrap_or(0);
    Some(format!(
        "Value at:0x0 refcount:1 encoding:{encoding} serializedlength:{length} lru:{access} lru_seconds_idle:{idle}"
    ))
}

/// A reply of the kind that is asked for, with the values Redis gives: clients test their parsers with them.
fn protocol(kind: &[u8], reply: &mut ReplyWriter<'_>) -> CommandResult {
    let is_resp3 = reply.protocol() == Protocol::Resp3;
    match kind {
        _ if is(kind, "string") => reply.bulk(b"Hello World"),
        _ if is(kind, "integer") => reply.integer(12345),
        // Redis's own sample, which is not meant to be pi.
        _ if is(kind, "double") => reply.double(3141.0 / 1000.0),
        _ if is(kind, "null") => reply.null(),
        _ if is(kind, "array") => {
            reply.array(3);
            (0..3).for_each(|value| reply.integer(value));
        }
        _ if is(kind, "set") => {
            reply.set(3);
            (0..3).for_each(|value| reply.integer(value));
        }
        _ if is(kind, "map") => {
            reply.map(3);
            for value in 0..3 {
                reply.integer(value);
                reply.boolean(value == 1);
            }
        }
        _ if is(kind, "attrib") => {
            if is_resp3 {
                reply.raw(b"|1\r\n$14\r\nkey-popularity\r\n*2\r\n$7\r\nkey:123\r\n:90\r\n");
            }
            reply.bulk(b"Some real reply following the attribute");
        }
        _ if is(kind, "push") => {
            if !is_resp3 {
                return Err(CommandError::text("ERR RESP2 is not supported by this command"));
            }
            reply.push(2);
            reply.bulk(b"server-cpu-usage");
            reply.integer(42);
            reply.bulk(b"Some real reply following the push reply");
        }
        _ if is(kind, "verbatim") => reply.verbatim("txt", "This is a verbatim\nstring"),
        _ if is(kind, "true") => reply.boolean(true),
        _ if is(kind, "false") => reply.boolean(false),
        _ if is(kind, "bignum") => match is_resp3 {
            true => reply.raw(b"(1234567999999999999999999999999999999\r\n"),
            false => reply.bulk(b"1234567999999999999999999999999999999"),
        },
        _ => {
            return Err(CommandError::text(
                "ERR Wrong protocol type name. Please use one of the following: \
                 string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false",
            ));
        }
    }
    Ok(())
}

fn debug_help(reply: &mut ReplyWriter<'_>) {
    help::write(
        reply,
        "DEBUG",
        &[
            "ERROR <string>",
            "    Answer with an error of this text.",
            "LOADAOF",
            "    Write what the log has to have, drop all keys, and make them again of the log on disk.",
            "LOG <message>",
            "    Write <message> to the server's log.",
            "LOG-READER ON|STAND|OFF|STATUS",
            "    A reader of the effect log that counts, or stands still until writers wait.",
            "OBJECT <key>",
            "    Show how the value of <key> is held.",
            "PANIC",
            "    End the server as a fault in it would: with a last line in its log, and no chance to clean up.",
            "PROTOCOL <type>",
            "    Answer with a value of this type: string, integer, double, bignum, null, array, set, map, attrib,",
            "    push, verbatim, true, false.",
            "QUICKLIST-PACKED-THRESHOLD <size>",
            "    Elements of lists of at least <size> have chunks of their own; 0: those that no chunk has room for.",
            "RELOAD [MERGE] [NOFLUSH] [NOSAVE]",
            "    Save all keys, drop them, and load them again; without saving, without dropping, replacing those that are there.",
            "SET-ACTIVE-EXPIRE <0|1>",
            "    Whether keys that expire are removed before somebody asks for them.",
            "SET-SKIP-CHECKSUM-VALIDATION <0|1>",
            "    Whether RESTORE takes payloads whose checksum is wrong.",
            "SLEEP <seconds>",
            "    Stop the thread of this connection for <seconds>. Decimals allowed.",
        ],
    );
}
