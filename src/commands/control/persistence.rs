//! Snapshots on disk: SAVE, BGSAVE, LASTSAVE; and the log of changes: BGREWRITEAOF, WAITAOF.
//!
//! A thread of its own takes them: nobody waits but who has asked with SAVE, and only he. Redis makes everybody wait.

use super::server::wait_timeout;
use crate::base::acknowledge::Acknowledge;
use crate::base::number;
use crate::commands::context::{Control, Flow};
use crate::commands::error::CommandError;
use crate::commands::parse::is;
use crate::commands::session::{QuorumAsked, ShownBlocked};
use crate::commands::spec::{
    ADMIN, ADMINS, Arity::*, CONNECTION, CommandResult, CommandSpec, DANGEROUS, FAST, LOADING, NO_ASYNC_LOADING,
    NO_MULTI, NOSCRIPT, STALE, control,
};
use crate::engine::log::LogOffset;
use crate::persistence::keeper::NotRewritten;
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;
use crate::services::snapshots;
use std::sync::Arc;
use tokio::sync::watch;

const SAVES: u64 = ADMIN | NOSCRIPT | NO_ASYNC_LOADING;

pub const COMMANDS: &[CommandSpec] = &[
    control("bgrewriteaof", Exactly(1), ADMIN | NOSCRIPT | NO_ASYNC_LOADING, 0, bgrewriteaof),
    control("bgsave", AtLeast(1), SAVES, 0, bgsave),
    control("lastsave", Exactly(1), LOADING | STALE | FAST, ADMINS | DANGEROUS, lastsave)
        .tips(&["nondeterministic_output"]),
    control("save", Exactly(1), SAVES | NO_MULTI, 0, save),
    control("waitaof", Exactly(4), NOSCRIPT, CONNECTION, waitaof)
        .tips(&["request_policy:all_shards", "response_policy:agg_min"]),
];

const NO_LOG: CommandError = CommandError::text("ERR this server keeps no log: set appendonly to yes");
const IN_PROGRESS: CommandError = CommandError::text("ERR Background save already in progress");

fn save(control: &mut Control<'_>, _: Arguments<'_>, _: &mut ReplyWriter<'_>) -> CommandResult {
    let saving = snapshots::begin(control.services, false).map_err(|snapshots::Busy| IN_PROGRESS)?;
    control.flow = Flow::Alone(Box::pin(async move {
        let reply: &[u8] = if saving.has_succeeded().await { b"+OK\r\n" } else { b"-ERR\r\n" };
        reply.to_vec()
    }));
    Ok(())
}

fn bgsave(control: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    match arguments.len() {
        1 => {}
        2 if is(arguments.at(1), "schedule") => {}
        _ => return Err(CommandError::Syntax),
    }
    if control.in_transaction && !control.services.snapshots.shown().is_running {
        // It is to have what the transaction does.
        control.services.snapshots.schedule();
        reply.simple("Background saving scheduled");
        return Ok(());
    }
    snapshots::begin(control.services, true).map_err(|snapshots::Busy| IN_PROGRESS)?;
    reply.simple("Background saving started");
    Ok(())
}

fn lastsave(control: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    reply.integer(control.services.snapshots.shown().saved_at as i64);
    Ok(())
}

fn bgrewriteaof(control: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    const SCHEDULED: &str = "Background append only file rewriting scheduled";
    let log = &control.services.append_log;
    if control.in_transaction {
        // It is to have what the transaction does.
        if !log.schedule() {
            return Err(NO_LOG);
        }
        reply.simple(SCHEDULED);
        return Ok(());
    }
    let begun = log.rewrite().ok_or(NO_LOG)?;
    control.flow = Flow::Alone(Box::pin(async move {
        let answer = match begun.await {
            Ok(Ok(())) => "+Background append only file rewriting started",
            Ok(Err(NotRewritten::Scheduled)) => "+Background append only file rewriting scheduled",
            Ok(Err(NotRewritten::Runs)) => "-ERR Background append only file rewriting already in progress",
            Ok(Err(NotRewritten::Failed)) | Err(_) => {
                "-ERR Can't execute an AOF background rewriting. Please check the server logs for more information."
            }
        };
        format!("{answer}\r\n").into_bytes()
    }));
    Ok(())
}

/// WAITAOF: whether the log of this node is kept as far as this connection has written, and on the disks of how many copies it is,
/// of the slots that have the fewest. All that anybody has written before is waited for.
fn waitaof(control: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let local = number::parse_i64(arguments.at(1)).ok_or(CommandError::NotAnInteger)?;
    if !(0..=1).contains(&local) {
        return Err(CommandError::text("ERR value is out of range, value must between 0 and 1"));
    }
    let replicas = number::parse_i64(arguments.at(2)).ok_or(CommandError::NotAnInteger)?;
    if replicas < 0 {
        return Err(CommandError::text("ERR value is out of range, must be positive"));
    }
    let timeout = wait_timeout(arguments.at(3))?;
    let kept = control.services.append_log.kept();
    if kept.is_none() && local > 0 {
        return Err(CommandError::text("ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled."));
    }
    let engine = Arc::clone(&control.services.engine);
    let (wanted, written) = (engine.log.end(), engine.log.own_end());
    let replicas = usize::try_from(replicas).unwrap_or(usize::MAX);
    let is_kept =
        move |kept: &Option<watch::Receiver<LogOffset>>| kept.as_ref().is_some_and(|kept| *kept.borrow() >= wanted);
    let (is_kept_now, copies_now) = (is_kept(&kept), engine.log.copied.count_kept(written));
    if control.in_transaction || copies_now >= replicas && (local == 0 || is_kept_now) {
        reply.array(2);
        reply.integer(i64::from(is_kept_now));
        reply.integer(copies_now as i64);
        return Ok(());
    }
    let shown = ShownBlocked::new(control.services, &control.session.client);
    // Copies say what is on their disks while somebody asks for that.
    let asked = (replicas > 0).then(|| QuorumAsked::new(&engine, Acknowledge::QuorumFsync));
    control.flow = Flow::Later(Box::pin(async move {
        let (_shown, _asked) = (shown, asked);
        let mut kept = kept;
        let all = async {
            if let Some(kept) = &mut kept {
                // A log that ends keeps nothing more.
                let _ = kept.wait_for(|kept| *kept >= wanted).await;
            }
            engine.log.copied.until_kept(replicas, written).await;
        };
        let _ = tokio::time::timeout(timeout, all).await;
        let copies = engine.log.copied.count_kept(written);
        format!("*2\r\n:{}\r\n:{copies}\r\n", u8::from(is_kept(&kept))).into_bytes()
    }));
    Ok(())
}
