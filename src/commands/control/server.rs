//! The server as a whole: its clock, its role, its version, and its end.

use crate::base::{clock, number};
use crate::commands::context::{Control, Flow};
use crate::commands::error::CommandError;
use crate::commands::parse::is;
use crate::commands::session::ShownBlocked;
use crate::commands::spec::{
    ADMIN, ADMINS, ALLOW_BUSY, Arity::*, CONNECTION, CommandResult, CommandSpec, DANGEROUS, FAST, LOADING, NO_MULTI,
    NOSCRIPT, NOT_PAUSED, READONLY, STALE, control,
};
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;
use crate::services::snapshots;
use std::sync::Arc;
use std::time::Duration;

pub const COMMANDS: &[CommandSpec] = &[
    control("lolwut", AtLeast(1), READONLY | FAST, 0, lolwut),
    control("role", Exactly(1), NOSCRIPT | LOADING | STALE | FAST, ADMINS | DANGEROUS, role),
    control(
        "shutdown",
        AtLeast(1),
        ADMIN | NOSCRIPT | LOADING | STALE | NO_MULTI | ALLOW_BUSY | NOT_PAUSED,
        0,
        shutdown,
    ),
    control("time", Exactly(1), LOADING | STALE | FAST, 0, time).tips(&["nondeterministic_output"]),
    control("wait", Exactly(3), NOSCRIPT, CONNECTION, wait)
        .tips(&["request_policy:all_shards", "response_policy:agg_min"]),
];

fn time(_: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let now_us = clock::unix_us();
    reply.array(2);
    reply.bulk_integer((now_us / 1_000_000) as i64);
    reply.bulk_integer((now_us % 1_000_000) as i64);
    Ok(())
}

/// A master always; its replicas are the nodes that have copies of its slots, with the offsets of INFO.
fn role(control: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let replicas = control.services.cluster.as_ref().map(|cluster| cluster.own_replicas()).unwrap_or_default();
    reply.array(3);
    let log = &control.services.engine.log;
    let end = log.own_end();
    reply.bulk(b"master");
    reply.integer(end.0 as i64);
    reply.array(replicas.len());
    for (node, ip, port, _) in replicas {
        let has = log.copied.state_of(node).map_or(0, |copy| copy.has.0.min(end.0));
        reply.array(3);
        reply.bulk(ip.to_string().as_bytes());
        reply.bulk_integer(i64::from(port));
        reply.bulk_integer(has as i64);
    }
    Ok(())
}

fn lolwut(_: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    // VERSION asks for the drawing of that version; here all versions have the same.
    if let Some(word) = arguments.get(1)
        && is(word, "version")
        && let Some(version) = arguments.get(2)
    {
        number::parse_i64(version).ok_or(CommandError::NotAnInteger)?;
    }
    let text = format!("Redis ver. {}\nStarling ver. {}\n", crate::commands::REDIS_VERSION, env!("CARGO_PKG_VERSION"));
    reply.verbatim("txt", &text);
    Ok(())
}

/// The last snapshot is taken first, where SAVE says so, or rules do and NOSAVE does not; where that fails, the server goes on,
/// unless FORCE says otherwise. NOW concerns replicas that lag, of which there are none.
fn shutdown(control: &mut Control<'_>, arguments: Arguments<'_>, _: &mut ReplyWriter<'_>) -> CommandResult {
    let (mut save, mut no_save, mut now, mut force, mut abort) = (false, false, false, false, false);
    for word in arguments.from(1) {
        match word {
            _ if is(word, "save") => save = true,
            _ if is(word, "nosave") => no_save = true,
            _ if is(word, "now") => now = true,
            _ if is(word, "force") => force = true,
            _ if is(word, "abort") => abort = true,
            _ => return Err(CommandError::Syntax),
        }
    }
    if (save && no_save) || (abort && (save || no_save || now || force)) {
        return Err(CommandError::Syntax);
    }
    if abort {
        return Err(CommandError::text("ERR No shutdown in progress."));
    }
    tracing::warn!(client = %control.session.client.address, "User requested shutdown...");
    let saves = if save { Some(true) } else { no_save.then_some(false) };
    if !snapshots::saves_before_end(control.services, saves) {
        // Whoever waits for the end next will find it: a permit is kept if nobody waits now.
        control.services.shutdown.notify_one();
        control.flow = Flow::Close;
        return Ok(());
    }
    let services = Arc::clone(control.services);
    control.flow = Flow::Alone(Box::pin(async move {
        if !snapshots::save_before_end(&services, saves, force).await {
            return b"-ERR Errors trying to SHUTDOWN. Check logs.\r\n".to_vec();
        }
        services.shutdown.notify_one();
        Vec::new()
    }));
    Ok(())
}

/// How long WAIT and WAITAOF wait: milliseconds; 0 is for ever.
pub(super) fn wait_timeout(argument: &[u8]) -> Result<Duration, CommandError> {
    match number::parse_i64(argument) {
        None => Err(CommandError::text("ERR timeout is not an integer or out of range")),
        Some(..0) => Err(CommandError::text("ERR timeout is negative")),
        Some(0) => Ok(Duration::MAX),
        Some(milliseconds) => Ok(Duration::from_millis(milliseconds as u64)),
    }
}

/// WAIT: how many copies have everything that was written on this node so far, what this connection has among it; of the slots
/// that have the fewest. A timeout of 0 is none: then the reply may never come. Commands behind it are executed meanwhile.
fn wait(control: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let replicas = number::parse_i64(arguments.at(1)).ok_or(CommandError::NotAnInteger)?;
    let timeout = wait_timeout(arguments.at(2))?;
    // Inside a transaction nothing may wait.
    let engine = Arc::clone(&control.services.engine);
    let written = engine.log.own_end();
    let have = engine.log.copied.count(written);
    let wanted = usize::try_from(replicas).unwrap_or(0);
    if have >= wanted || control.in_transaction {
        reply.integer(have as i64);
        return Ok(());
    }
    let shown = ShownBlocked::new(control.services, &control.session.client);
    control.flow = Flow::Later(Box::pin(async move {
        let _shown = shown;
        engine.log.ask();
        // What has come by then is the answer.
        let _ = tokio::time::timeout(timeout, engine.log.copied.until(wanted, written)).await;
        format!(":{}\r\n", engine.log.copied.count(written)).into_bytes()
    }));
    Ok(())
}
