//! Step 6: whether a request is for this node, and what its client is told otherwise.

use crate::base::slot::Slot;
use crate::cluster::routing::{RequestTraits, Route, route};
use crate::commands::error::CommandError;
use crate::commands::execution::{self, Slots};
use crate::commands::session::{Session, Transaction};
use crate::commands::spec;
use crate::commands::table::Command;
use crate::services::cluster::View;

pub(super) const CROSS_SLOT: CommandError = CommandError::text("CROSSSLOT Keys in request don't hash to the same slot");

/// Why a request is not executed now.
#[derive(Debug)]
pub(super) enum Elsewhere {
    /// Its slot is being handed over.
    Wait,
    Redirect(CommandError),
}

/// Where a request goes that is not executed here; `None`: it is.
#[inline]
pub(super) fn elsewhere(
    view: &View,
    session: &Session,
    command: &'static Command,
    slots: &[Slot],
) -> Option<Elsewhere> {
    let mut request = RequestTraits { write: command.spec.has(spec::WRITE) };
    let queued;
    let slots = match &session.transaction {
        Some(transaction) if command.spec.has(spec::ENDS_TRANSACTION) && !transaction.aborted => {
            request.write = transaction.queue.iter().any(|queued| queued.command.spec.has(spec::WRITE));
            queued = slots_of(transaction);
            &queued[..]
        }
        _ => slots,
    };
    match route(slots, &view.routing, request) {
        Route::Local => None,
        Route::Wait(_) => Some(Elsewhere::Wait),
        Route::Moved { slot, node } => {
            let moved = format!("MOVED {slot} {}", view.address(node));
            Some(Elsewhere::Redirect(CommandError::Text(moved.into())))
        }
        Route::CrossSlot => Some(Elsewhere::Redirect(CROSS_SLOT)),
        Route::Down(reason) => Some(Elsewhere::Redirect(CommandError::text(reason.message()))),
    }
}

/// The slots of all queued commands.
fn slots_of(transaction: &Transaction) -> Slots {
    let of_one = |queued: &crate::commands::session::Queued| {
        execution::slots_of(queued.command, queued.arguments.borrow()).unwrap_or_default()
    };
    transaction.queue.iter().flat_map(of_one).collect()
}
