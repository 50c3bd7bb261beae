//! MULTI, EXEC, DISCARD, WATCH: commands queued, then executed under the locks of all their keys at once.

use crate::base::clock;
use crate::base::slot::Slot;
use crate::commands::context::{Control, Flow};
use crate::commands::error::CommandError;
use crate::commands::execution;
use crate::commands::session::{Queued, Session, Transaction};
use crate::commands::spec::{
    ALL_KEYS, ALLOW_BUSY, Access, Arity::*, CommandResult, CommandSpec, ENDS_TRANSACTION, FAST, Handler, KeySpec,
    LOADING, NOSCRIPT, NOT_QUEUED, SKIP_SLOWLOG, STALE, TRANSACTION, WRITE, control, keys,
};
use crate::commands::table;
use crate::engine::Admission;
use crate::engine::watches::Watch;
use crate::engine::{Engine, Keyspace, Wait};
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;
use crate::services::Services;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// Before a busy shard is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

const BASIC: u64 = NOSCRIPT | LOADING | STALE | NOT_QUEUED;
const WATCHED: &[KeySpec] = &[keys::all(Access::ReadOnly, "")];

pub const COMMANDS: &[CommandSpec] = &[
    control("discard", Exactly(1), BASIC | FAST | ALLOW_BUSY, TRANSACTION, discard),
    control("exec", Exactly(1), BASIC | SKIP_SLOWLOG | ENDS_TRANSACTION, TRANSACTION, exec),
    control("multi", Exactly(1), BASIC | FAST | ALLOW_BUSY, TRANSACTION, multi),
    control("unwatch", Exactly(1), NOSCRIPT | LOADING | STALE | FAST | ALLOW_BUSY, TRANSACTION, unwatch),
    control("watch", AtLeast(2), BASIC | FAST | ALLOW_BUSY, TRANSACTION, watch).keys(WATCHED),
];

fn multi(control: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    if control.session.transaction.is_some() {
        return Err(CommandError::text("ERR MULTI calls can not be nested"));
    }
    control.session.begin_transaction(Transaction::default());
    reply.ok();
    Ok(())
}

fn discard(control: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    if control.session.end_transaction().is_none() {
        return Err(CommandError::text("ERR DISCARD without MULTI"));
    }
    unwatch_all(control.session, control.services);
    reply.ok();
    Ok(())
}

fn watch(control: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    if control.session.transaction.is_some() {
        return Err(CommandError::text("ERR WATCH inside MULTI is not allowed"));
    }
    let database = control.session.database;
    let slots = arguments.from(1).map(Slot::of_key);
    let (wait, since_ms) = control.session.wait(control.now_ms);
    let Some(mut keyspace) = control.services.engine.try_lock_slots(wait, slots, database, control.now_ms) else {
        control.flow = busy(control.session, since_ms);
        return Ok(());
    };
    for key in arguments.from(1) {
        // What has expired already is gone before the watch begins.
        keyspace.exists(key);
        if control.session.watching.keys.insert((database, key.into())) {
            keyspace.watch(key, control.session.watching.flag());
        }
    }
    reply.ok();
    Ok(())
}

fn unwatch(control: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    if !control.in_transaction {
        unwatch_all(control.session, control.services);
    }
    reply.ok();
    Ok(())
}

/// Ends all watches of a session. From here on nobody looks at its flag: the watches are only in the way, so those in a
/// shard that others hold for long are taken away later, and nobody waits for that.
pub fn unwatch_all(session: &mut Session, services: &Services) {
    session.watching.elsewhere = None;
    let Some(flag) = session.watching.changed.take() else { return };
    let keys = std::mem::take(&mut session.watching.keys).into_iter().collect();
    forget_watches(&services.engine, keys, flag);
}

/// Takes watches away, now or soon.
pub(super) fn forget_watches(engine: &Arc<Engine>, mut keys: Vec<(usize, Box<[u8]>)>, flag: Watch) {
    if take_away(engine, &mut keys, &flag, Wait::Shortly) {
        return;
    }
    let engine = Arc::clone(engine);
    match Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn(async move {
            while !take_away(&engine, &mut keys, &flag, Wait::Shortly) {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        })),
        // The worker is ending, and so is what it serves.
        Err(_) => _ = take_away(&engine, &mut keys, &flag, Wait::UntilFree),
    }
}

/// Takes watches away, and their keys out of the list, until all are gone or one is in a busy shard; whether all are.
fn take_away(engine: &Engine, keys: &mut Vec<(usize, Box<[u8]>)>, flag: &Watch, wait: Wait) -> bool {
    while let Some((database, key)) = keys.last() {
        let Some(mut keyspace) = engine.try_lock_slot(wait, Slot::of_key(key), *database, 0) else { return false };
        keyspace.unwatch(key, flag);
        drop(keyspace);
        keys.pop();
    }
    true
}

fn exec(control: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let Some(transaction) = control.session.end_transaction() else {
        return Err(CommandError::text("ERR EXEC without MULTI"));
    };
    if transaction.aborted {
        unwatch_all(control.session, control.services);
        return Err(CommandError::text("EXECABORT Transaction discarded because of previous errors."));
    }
    let mark = reply.len();
    match execute(control, &transaction.queue, reply) {
        Outcome::Done => {
            // Messages of channels that a queued command has left, and those that one has published.
            control.deliver_before(mark, reply);
            unwatch_all(control.session, control.services);
        }
        Outcome::Frozen => {
            // A slot is being handed over, or has been: EXEC is tried again, with the queue as it was.
            control.session.begin_transaction(transaction);
            control.session.waiting_since_ms = Some(control.now_ms);
            control.flow = Flow::Retry(Box::pin(tokio::time::sleep(Duration::from_millis(1))));
        }
        Outcome::Full(rooms) => {
            control.session.begin_transaction(transaction);
            control.flow = execution::until_room(control.services, rooms);
        }
        Outcome::Busy { since_ms } => {
            control.session.begin_transaction(transaction);
            control.flow = busy(control.session, since_ms);
        }
    }
    Ok(())
}

enum Outcome {
    Done,
    Frozen,
    /// Writers wait for readers of the log; nothing was executed.
    Full(u64),
    /// A shard is held by others for long; nothing was executed.
    Busy {
        since_ms: u64,
    },
}

/// The request, which has found its shards busy since then, comes again when whoever holds them may have let go.
pub fn busy(session: &mut Session, since_ms: u64) -> Flow {
    session.busy_since_ms = Some(since_ms);
    Flow::Retry(Box::pin(tokio::time::sleep(LOOK_AGAIN)))
}

/// The slots of all queued commands, and whether one may touch any key.
fn locks_of(queue: &[Queued], watched: impl Iterator<Item = Slot>) -> (Vec<Slot>, bool) {
    let mut all = queue.iter().any(|queued| queued.command.spec.has(ALL_KEYS));
    let mut slots: Vec<Slot> = watched.collect();
    for queued in queue {
        match execution::slots_of(queued.command, queued.arguments.borrow()) {
            Some(found) => slots.extend(found),
            None => all |= matches!(queued.command.spec.handler, Handler::Data(_)),
        }
    }
    (slots, all)
}

fn execute(control: &mut Control<'_>, queue: &[Queued], reply: &mut ReplyWriter<'_>) -> Outcome {
    let watched: Vec<(usize, Box<[u8]>)> = control.session.watching.keys.iter().cloned().collect();
    let (slots, mut all) = locks_of(queue, watched.iter().map(|(_, key)| Slot::of_key(key)));
    let services = control.services.clone();
    let spans = |queued: &Queued| queued.command.spec.spans(queued.arguments.borrow());
    let spans_slots = services.cluster.is_none() && queue.iter().any(spans);
    all |= spans_slots;
    let (now_ms, database) = (control.now_ms, control.session.database);
    let (wait, since_ms) = control.session.wait(now_ms);
    let rooms = services.engine.log.rooms();
    let locked = if all {
        services.engine.try_lock_all(wait, database, now_ms)
    } else {
        services.engine.try_lock_slots(wait, slots.iter().copied(), database, now_ms)
    };
    let Some(mut keyspace) = locked else { return Outcome::Busy { since_ms } };
    if spans_slots {
        keyspace.span_slots();
    }
    let writes = queue.iter().any(|queued| queued.command.spec.has(WRITE));
    match keyspace.admits(&slots, writes) {
        Admission::Executes if !(all && keyspace.has_frozen()) => {}
        Admission::Elsewhere if control.session.otherwise.is_some() && keyspace.has_copies(&slots) => {}
        Admission::Full => return Outcome::Full(rooms),
        _ => return Outcome::Frozen,
    }
    // Under the locks, nothing can change any more: this is the moment at which WATCH looks.
    expire_watched(&mut keyspace, &watched, database);
    if control.session.watching.is_dirty() {
        reply.null_array();
        return Outcome::Done;
    }
    reply.array(queue.len());
    for queued in queue {
        run(control, queued, &mut keyspace, reply);
    }
    Outcome::Done
}

/// A watched key that has expired since is a change, though nobody has removed it yet.
fn expire_watched(keyspace: &mut Keyspace<'_>, watched: &[(usize, Box<[u8]>)], database: usize) {
    for (watched_in, key) in watched {
        keyspace.select(*watched_in);
        keyspace.exists(key);
    }
    keyspace.select(database);
}

/// Runs one queued command; its error does not keep the others from running.
fn run(control: &mut Control<'_>, queued: &Queued, keyspace: &mut Keyspace<'_>, reply: &mut ReplyWriter<'_>) {
    let (command, arguments) = (queued.command, queued.arguments.borrow());
    control.session.secrets.clear();
    let (started_ns, reply_from) = (clock::boot_ns(), reply.len());
    let result = match command.spec.handler {
        Handler::Data(_) => {
            keyspace.select(control.session.database);
            keyspace.keep_access(control.session.keeps_access);
            let result = execution::run_data(command, arguments, keyspace, reply);
            if let Some(wanted) = keyspace.take_wanted() {
                // Nothing waits between the commands of a transaction.
                reply.raw(&wanted.without_waiting);
            }
            result
        }
        _ => {
            let session = &mut *control.session;
            let (flow, result) =
                execution::run_control(command, arguments, session, control.services, control.now_ms, reply, true);
            if let Flow::Close = flow {
                control.flow = Flow::Close;
            }
            result
        }
    };
    let took_ns = clock::boot_ns().saturating_sub(started_ns);
    let statistics = &control.services.statistics;
    statistics.count_call(table::all().len(), command.index as usize, took_ns, result.is_err());
    if let Err(error) = result {
        statistics.count_error(table::all().len(), &error.to_string());
    }
    if control.services.hotkeys.is_on() {
        let reply_bytes = reply.len().saturating_sub(reply_from);
        execution::note_keys(control.services, command, arguments, control.now_ms, took_ns, reply_bytes);
    }
    execution::observe(control.services, control.session, command, arguments, control.now_ms, took_ns / 1000);
}
