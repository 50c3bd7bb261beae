//! Snapshots on disk: SAVE, BGSAVE, LASTSAVE.
//!
//! A thread of its own takes them: nobody waits but who has asked with SAVE, and only he. Redis makes everybody wait.

use crate::commands::context::{Control, Flow};
use crate::commands::error::CommandError;
use crate::commands::parse::is;
use crate::commands::spec::{
    ADMIN, ADMINS, Arity::*, CommandResult, CommandSpec, DANGEROUS, FAST, LOADING, NO_ASYNC_LOADING, NO_MULTI,
    NOSCRIPT, STALE, control,
};
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;
use crate::services::snapshots;

const SAVES: u64 = ADMIN | NOSCRIPT | NO_ASYNC_LOADING;

pub const COMMANDS: &[CommandSpec] = &[
    control("bgsave", AtLeast(1), SAVES, 0, bgsave),
    control("lastsave", Exactly(1), LOADING | STALE | FAST, ADMINS | DANGEROUS, lastsave)
        .tips(&["nondeterministic_output"]),
    control("save", Exactly(1), SAVES | NO_MULTI, 0, save),
];

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
