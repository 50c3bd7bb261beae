//! Commands that wait for keys (BLPOP and its kin), as their connection sees them.
//!
//! The request is not used up while it waits: it comes again when the wait is over, and finds here how that ended. Nothing
//! else is executed for the client meanwhile, no thread and no lock is held, and a client that leaves takes its waiter
//! with it.

use super::dispatch::Batch;
use super::output::Told;
use crate::base::clock;
use crate::commands::context::Flow;
use crate::commands::error::CommandError;
use crate::commands::execution;
use crate::commands::session::{Blocked, Session};
use crate::commands::table::Command;
use crate::engine::Wanted;
use crate::engine::log::gate;
use crate::engine::waiters::Ended;
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;
use crate::services::statistics::bump;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const UNBLOCKED: CommandError = CommandError::text("UNBLOCKED client unblocked via CLIENT UNBLOCK");

/// The command has found nothing: its request comes again when its waiter has ended.
pub(super) fn wait(batch: &Batch<'_>, session: &mut Session, mut wanted: Wanted) -> Flow {
    if let Some(until_ms) = session.gives_up_at.take() {
        // It has waited before: for all in all no longer than it said.
        wanted.until_ms = until_ms;
    }
    let (waiter, until_ms) = (Arc::clone(&wanted.waiter), wanted.until_ms);
    let again_ms = wanted.again_ms.filter(|again_ms| until_ms.is_none_or(|until_ms| *again_ms < until_ms));
    let ended = if again_ms.is_some() { Ended::Again } else { Ended::TimedOut };
    let left = again_ms.or(until_ms).map(|end_ms| Duration::from_millis(end_ms.saturating_sub(batch.now_ms)));
    let support = session.otherwise.is_none().then(|| batch.support.unwrap_or_default());
    session.blocked = Some(Blocked::new(wanted, support, batch.services, &session.client));
    Flow::Retry(Box::pin(async move {
        match left {
            None => waiter.until_ended().await,
            Some(left) => {
                if tokio::time::timeout(left, waiter.until_ended()).await.is_err() {
                    waiter.end(ended);
                }
            }
        }
    }))
}

/// Writes the reply of the command that has waited, and says whether it is an error; `None`: it is to be executed again.
pub(super) fn end(
    batch: &mut Batch<'_>,
    session: &mut Session,
    reply: &mut ReplyWriter<'_>,
) -> Option<Option<CommandError>> {
    let blocked = session.blocked.take()?;
    match blocked.wanted.waiter.take_end() {
        Some(Ended::Served { reply: bytes, shown }) => {
            if batch.is_gated && blocked.support.is_some() {
                gate::note(shown);
            }
            // Somebody else has executed it, at any time since.
            batch.told = match blocked.support {
                None => Told::Nothing,
                since if since == batch.support => Told::Wrote,
                _ => Told::Doubtful,
            };
            reply.raw(&bytes);
            Some(error_in(&bytes))
        }
        Some(Ended::TimedOut) => {
            reply.raw(&blocked.wanted.given_up);
            Some(None)
        }
        Some(Ended::Unblocked) => {
            UNBLOCKED.write(reply);
            Some(Some(UNBLOCKED))
        }
        Some(Ended::Again) | None => {
            session.gives_up_at = Some(blocked.wanted.until_ms);
            None
        }
    }
}

/// Tells the statistics and the slow log of a command that has waited and was answered: what handing out the reply took, in
/// Redis too. The wait is no work, and what served it was that of another command.
pub(super) fn note(batch: &Batch<'_>, session: &Session, command: &Command, arguments: Arguments<'_>, begun_ns: u64) {
    let took_ns = clock::boot_ns().saturating_sub(begun_ns);
    let counters = &batch.counters.commands[command.index as usize];
    bump(&counters.nanoseconds, took_ns);
    if !batch.services.statistics.latency_untracked.load(Ordering::Relaxed) {
        counters.latencies.record(took_ns, 1);
    }
    execution::observe(batch.services, session, command, arguments, batch.now_ms, took_ns / 1000);
}

/// The error that a reply is, if it is one.
fn error_in(reply: &[u8]) -> Option<CommandError> {
    let text = reply.strip_prefix(b"-")?;
    Some(CommandError::Bytes(text.trim_ascii_end().to_vec()))
}
