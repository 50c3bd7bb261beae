//! Step 6: whether a request is for this node, and what its client is told otherwise.

use crate::base::acknowledge::Acknowledge;
use crate::base::slot::Slot;
use crate::cluster::routing::{RequestTraits, Route, route};
use crate::commands::error::CommandError;
use crate::commands::execution::{self, Slots};
use crate::commands::session::{Session, Transaction};
use crate::commands::spec;
use crate::commands::table::Command;
use crate::services::Services;
use crate::services::cluster::View;
use std::sync::atomic::Ordering;

pub(super) const CROSS_SLOT: CommandError = CommandError::text("CROSSSLOT Keys in request don't hash to the same slot");

/// Why a request is not executed now.
#[derive(Debug)]
pub(super) enum Elsewhere {
    /// Its slot is being handed over.
    Wait,
    Redirect(CommandError),
    /// A copy here may answer it. Where there is none, this is its route.
    Copy(Route),
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
    let mut may_read_copy = !command.spec.has(spec::WRITE | spec::PUBSUB | spec::ALL_KEYS);
    let queued;
    let slots = match executed(session, command) {
        Some(transaction) => {
            let any = |flags| transaction.queue.iter().any(|queued| queued.command.spec.has(flags));
            request.write = any(spec::WRITE);
            may_read_copy = !any(spec::WRITE | spec::PUBSUB);
            queued = slots_of(transaction);
            &queued[..]
        }
        None => slots,
    };
    match route(slots, &view.routing, request) {
        Route::Local => None,
        route @ (Route::Moved { .. } | Route::Wait(_))
            if may_read_copy && session.client.readonly.load(Ordering::Relaxed) =>
        {
            Some(Elsewhere::Copy(route))
        }
        route => answer(route, view),
    }
}

/// What is done with a request that has this route.
pub(super) fn answer(route: Route, view: &View) -> Option<Elsewhere> {
    match route {
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

/// The transaction that the command executes. One that is spoilt is answered by anybody: nothing of it is looked at.
#[inline]
pub(super) fn executed<'s>(session: &'s Session, command: &Command) -> Option<&'s Transaction> {
    let ends = command.spec.has(spec::ENDS_TRANSACTION);
    session.transaction.as_ref().filter(|transaction| ends && !transaction.aborted)
}

const NO_QUORUM: CommandError =
    CommandError::text("NOREPLICAS Too few copies of the slot are there for a quorum, and nothing was executed");
const NO_DISK: CommandError =
    CommandError::text("NOREPLICAS This node keeps no log that is synced to disk, and nothing was executed");

/// Why the reply would wait in vain: for a quorum that is not there, or for a disk of this node that keeps nothing.
pub(super) fn lacks_quorum(
    services: &Services,
    session: &Session,
    command: &'static Command,
    slots: &[Slot],
) -> Option<CommandError> {
    let log = &services.engine.log;
    let asks = session.acknowledge().max(log.copied.asked_of_all());
    if asks == Acknowledge::QuorumFsync && !log.is_on_disk() {
        return Some(NO_DISK);
    }
    let lacks = |slots: &[Slot]| slots.iter().any(|slot| !log.copied.is_able(*slot));
    let lacks_any = || executed(session, command).map_or_else(|| lacks(slots), |queued| lacks(&slots_of(queued)));
    (asks >= Acknowledge::Quorum && lacks_any()).then_some(NO_QUORUM)
}

/// The slots of all queued commands.
fn slots_of(transaction: &Transaction) -> Slots {
    let of_one = |queued: &crate::commands::session::Queued| {
        execution::slots_of(queued.command, queued.arguments.borrow()).unwrap_or_default()
    };
    transaction.queue.iter().flat_map(of_one).collect()
}
