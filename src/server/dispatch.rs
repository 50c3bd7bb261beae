//! The steps of every request, in order. This is the only place that sequences them, and it names no command: what a
//! command needs is said by the flags of its row.

use super::blocking;
use super::forwarding::{self, Proxied};
use super::output::{Reply, Told};
use super::routing::{self, Elsewhere};
use super::timing::Timing;
use crate::base::acknowledge::Acknowledge;
use crate::base::clock;
use crate::base::slot::Slot;
use crate::cluster::routing::Route;
use crate::commands::context::{Flow, Wait};
use crate::commands::error::CommandError;
use crate::commands::execution::{self, Executed, Keys, Manner};
use crate::commands::session::{Queued, Session, ShownBlocked};
use crate::commands::spec::{self, Handler};
use crate::commands::table::{self, Command};
use crate::engine;
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;
use crate::services::Services;
use crate::services::cluster::View;
use crate::services::condition::Condition;
use crate::services::pause::Paused;
use crate::services::statistics::{ThreadCounters, bump};
use arc_swap::Guard;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const OUT_OF_MEMORY: CommandError = CommandError::text("OOM command not allowed when used memory > 'maxmemory'.");
const NO_LEASE: CommandError =
    CommandError::text("CLUSTERDOWN This node has not heard a majority of the lease voters, and nothing was executed");
const NO_COPIES: CommandError = CommandError::text("NOREPLICAS Not enough good replicas to write.");
const LOADING: CommandError = CommandError::text("LOADING Redis is loading the dataset in memory");

/// What a thread knows while it works off what a connection has sent.
pub struct Batch<'a> {
    pub services: &'a Arc<Services>,
    pub counters: &'a ThreadCounters,
    /// Unix milliseconds, read once per batch.
    pub now_ms: u64,
    /// What is wrong with the node, and makes it refuse commands.
    pub condition: Condition,
    /// Of the requests decoded together.
    pub timing: Timing,
    /// Who owns which slot; `None` outside of a cluster.
    pub view: Option<Guard<Arc<View>>>,
    /// The connection's side of the proxy, if its requests are forwarded.
    pub proxied: Option<Rc<Proxied>>,
    /// The support under which this node may answer for its slots; `None`: its lease has ended. Nobody asks outside of a cluster.
    /// Looked at before the view: a lease is for the slots as they are shown.
    pub support: Option<u64>,
    /// What the reply that is being made tells.
    pub told: Told,
    /// The replies in the buffer; `None`: nobody asks.
    pub replies: Option<Vec<Reply>>,
    /// Whether replies wait for the log.
    pub is_gated: bool,
    /// What the connection asked for when it began.
    pub asks: Acknowledge,
}

/// A request that was looked at ahead of its turn, so that its key could be fetched into the cache.
#[derive(Debug)]
pub struct Prepared {
    command: &'static Command,
    keys: Option<Keys>,
}

/// Steps 1, 2 and 5, which depend on nothing but the request; `None` where it is no request that can be executed.
#[inline]
pub fn prepare(arguments: Arguments<'_>) -> Option<Prepared> {
    let command = find(arguments).ok()?;
    Some(Prepared { command, keys: execution::keys_of(command, arguments) })
}

impl Prepared {
    /// Slot and table hash of its one key.
    pub fn key(&self) -> Option<(Slot, u64)> {
        let keys = self.keys.as_ref()?;
        let ([slot], [hash]) = (&keys.slots[..], &keys.hashes[..]) else { return None };
        Some((*slot, *hash))
    }
}

/// Takes one request through all steps.
pub fn dispatch(
    batch: &mut Batch<'_>,
    session: &mut Session,
    arguments: Arguments<'_>,
    prepared: Option<Prepared>,
    reply: &mut ReplyWriter<'_>,
) -> Flow {
    // 1, 2 and 5: look up, arity, keys to slots.
    let (command, keys) = match prepared {
        Some(prepared) => (prepared.command, prepared.keys),
        None => match find(arguments) {
            Ok(command) => (command, execution::keys_of(command, arguments)),
            Err((command, error)) => return refuse(batch, session, command, error, reply),
        },
    };
    session.client.command.store(command.index, Ordering::Relaxed);
    if session.blocked.is_some() {
        let begun_ns = clock::boot_ns();
        if let Some(error) = blocking::end(batch, session, reply) {
            answered(batch, command, error);
            blocking::note(batch, session, command, arguments, begun_ns);
            return Flow::Continue;
        }
    }
    // 3 and 4: permission, state.
    if let Some(error) = forbidden(batch, session, command) {
        return refuse(batch, session, Some(command), error, reply);
    }
    if let Some(wait) = pause(batch, session, command) {
        return Flow::Retry(wait);
    }
    // 6: route. A request that does not say what its keys are touches none: its handler says what is wrong with it.
    let keys = keys.unwrap_or_default();
    let elsewhere = match (&batch.proxied, &batch.view) {
        (Some(proxied), _) => match forwarding::forward(proxied, batch, session, command, arguments, &keys) {
            Ok(None) => {
                if !batch.condition.is_well()
                    && let Some(error) = refused_here(batch.services, batch.condition, queue(session), command)
                {
                    return refuse(batch, session, Some(command), error, reply);
                }
                None
            }
            Ok(Some(flow)) => return flow,
            Err(elsewhere) => Some(elsewhere),
        },
        (None, Some(view)) => routing::elsewhere(view, session, command, &keys.slots),
        (None, None) => None,
    };
    match elsewhere {
        None => {}
        Some(Elsewhere::Wait) => return wait_for_slot(batch, session, command, reply),
        Some(Elsewhere::Redirect(error)) => return redirect(batch, session, command, error, reply),
        Some(Elsewhere::Copy(route)) => return read_copy(batch, session, command, arguments, &keys, route, reply),
    }
    let has_keys = !keys.slots.is_empty() || routing::executed(session, command).is_some();
    if batch.support.is_none() && has_keys {
        return wait_for_slot(batch, session, command, reply);
    }
    if batch.is_gated
        && has_keys
        && let Some(error) = routing::lacks_quorum(batch.services, session, command, &keys.slots)
    {
        return refuse(batch, session, Some(command), error, reply);
    }
    if queues(session, command) {
        return enqueue(session, command, arguments, reply);
    }
    // 7 to 10: execute, publish, follow up, reply.
    if has_keys {
        let is_read = !command.spec.has(spec::WRITE | spec::ENDS_TRANSACTION);
        batch.told = if is_read { Told::Read } else { Told::Wrote };
    }
    execute(batch, session, command, arguments, &keys, reply)
}

/// Whether a command waits for EXEC.
fn queues(session: &Session, command: &'static Command) -> bool {
    session.transaction.is_some() && !command.spec.has(spec::NOT_QUEUED)
}

fn enqueue(
    session: &mut Session,
    command: &'static Command,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> Flow {
    session.enqueue(Queued { command, arguments: arguments.to_owned() });
    reply.simple("QUEUED");
    Flow::Continue
}

/// Executes what only reads at a copy of its slot here. That may be old, so it tells nothing for which a lease is needed.
/// Where there is no complete copy the request goes where it would go otherwise.
#[inline(never)]
fn read_copy(
    batch: &mut Batch<'_>,
    session: &mut Session,
    command: &'static Command,
    arguments: Arguments<'_>,
    keys: &Keys,
    otherwise: Route,
    reply: &mut ReplyWriter<'_>,
) -> Flow {
    session.otherwise = Some(otherwise);
    let queues = queues(session, command);
    // A data command looks itself, under its locks.
    if (queues || !matches!(command.spec.handler, Handler::Data(_))) && !has_copies(batch, session, &keys.slots) {
        return wait_for_slot(batch, session, command, reply);
    }
    if queues {
        session.otherwise = None;
        return enqueue(session, command, arguments, reply);
    }
    let flow = execute(batch, session, command, arguments, keys, reply);
    session.otherwise = None;
    flow
}

/// Whether there are copies of these slots here; who finds a shard busy looks again when it executes.
fn has_copies(batch: &Batch<'_>, session: &Session, slots: &[Slot]) -> bool {
    let engine = &batch.services.engine;
    let locked = engine.try_lock_slots(engine::Wait::Shortly, slots.iter().copied(), session.database, batch.now_ms);
    locked.is_none_or(|mut keyspace| keyspace.has_copies(slots))
}

/// Counts a command that has waited, and has its reply now.
fn answered(batch: &Batch<'_>, command: &'static Command, error: Option<CommandError>) {
    let counters = &batch.counters.commands[command.index as usize];
    bump(&counters.calls, 1);
    if let Some(error) = error {
        bump(&counters.failed, 1);
        batch.counters.count_error(&error.to_string());
    }
}

/// The command of a request, its number of arguments checked.
fn find(arguments: Arguments<'_>) -> Result<&'static Command, (Option<&'static Command>, CommandError)> {
    let mut command = table::lookup(arguments.at(0)).ok_or_else(|| (None, unknown(arguments)))?;
    if arguments.len() > 1 && !command.subcommands.is_empty() {
        command = command.subcommand(arguments.at(1)).ok_or_else(|| (None, unknown_subcommand(command, arguments)))?;
    }
    if !command.spec.arity.accepts(arguments.len()) || matches!(command.spec.handler, Handler::Container) {
        return Err((Some(command), CommandError::WrongArity(command.name.as_str().into())));
    }
    Ok(command)
}

#[cold]
fn unknown(arguments: Arguments<'_>) -> CommandError {
    // Redis shows at most 128 bytes of the name and of the arguments.
    const SHOWN_BYTES_MAX: usize = 128;
    let mut beginning = Vec::new();
    for argument in arguments.from(1) {
        if beginning.len() >= SHOWN_BYTES_MAX {
            break;
        }
        let shown = shown(argument, SHOWN_BYTES_MAX - beginning.len());
        beginning.extend_from_slice(&[b"'", shown, b"' "].concat());
    }
    let name = shown(arguments.at(0), SHOWN_BYTES_MAX);
    CommandError::Bytes(
        [b"ERR unknown command '", name, b"', with args beginning with: ", beginning.as_slice()].concat(),
    )
}

/// The part of an argument that Redis shows in an error: a C string ends at the first zero.
fn shown(bytes: &[u8], most: usize) -> &[u8] {
    let bytes = &bytes[..bytes.len().min(most)];
    &bytes[..bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len())]
}

#[cold]
fn unknown_subcommand(command: &Command, arguments: Arguments<'_>) -> CommandError {
    let container = command.spec.name.to_uppercase();
    let given = shown(arguments.at(1), 128);
    CommandError::Bytes([b"ERR unknown subcommand '", given, b"'. Try ", container.as_bytes(), b" HELP."].concat())
}

/// Why the client may not execute the command now.
fn forbidden(batch: &Batch<'_>, session: &Session, command: &'static Command) -> Option<CommandError> {
    let spec = command.spec;
    if !session.is_authenticated && !spec.has(spec::NO_AUTH) {
        return Some(CommandError::text("NOAUTH Authentication required."));
    }
    if session.transaction.is_some() && spec.has(spec::NO_MULTI) {
        return Some(CommandError::text("ERR Command not allowed inside a transaction"));
    }
    if session.is_limited_to_subscriber_commands() && !spec.has(spec::WHILE_SUBSCRIBED) {
        let name = &command.name;
        return Some(CommandError::Text(
            format!(
                "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed \
                 in this context"
            )
            .into(),
        ));
    }
    if spec.has(spec::IN_CLUSTER) && batch.view.is_none() {
        return Some(CommandError::text("ERR This instance has cluster support disabled"));
    }
    if !batch.condition.is_well() {
        return unwell(batch, session, command);
    }
    None
}

/// Why the command is not executed, or not even queued, by a node with which something is wrong.
#[cold]
fn unwell(batch: &Batch<'_>, session: &Session, command: &'static Command) -> Option<CommandError> {
    // The queue of a transaction takes memory, whatever is queued.
    let queues = session.transaction.is_some() && !command.spec.has(spec::NOT_QUEUED);
    if queues && batch.condition.is_out_of_memory() {
        return Some(OUT_OF_MEMORY);
    }
    // What is forwarded is the other node's affair.
    if batch.proxied.is_some() {
        return None;
    }
    refused_here(batch.services, batch.condition, queue(session), command)
}

/// What the transaction has queued.
fn queue(session: &Session) -> &[Queued] {
    session.transaction.as_ref().map(|transaction| transaction.queue.as_slice()).unwrap_or_default()
}

/// Why a node with which something is wrong does not execute the command, or what it would execute of a queue.
#[cold]
pub(super) fn refused_here(
    services: &Services,
    condition: Condition,
    queue: &[Queued],
    command: &'static Command,
) -> Option<CommandError> {
    let queue = if command.spec.has(spec::ENDS_TRANSACTION) { queue } else { &[] };
    let any = |is_so: fn(&Command) -> bool| is_so(command) || queue.iter().any(|queued| is_so(queued.command));
    if condition.is_out_of_memory() && any(|command| command.spec.has(spec::DENYOOM)) {
        return Some(OUT_OF_MEMORY);
    }
    if condition.lacks_copies() && any(|command| command.spec.has(spec::WRITE)) {
        return Some(NO_COPIES);
    }
    if condition.refuses_writes() && any(|command| command.spec.has(spec::WRITE | spec::TELLS_CONDITION)) {
        return Some(CommandError::Text(services.conditions.reason().into()));
    }
    if condition.is_loading() && any(|command| !command.spec.has(spec::LOADING)) {
        return Some(LOADING);
    }
    None
}

/// CLIENT PAUSE: what the command has to wait for.
#[inline]
fn pause(batch: &Batch<'_>, session: &Session, command: &'static Command) -> Option<Wait> {
    let (who, until_ms) = batch.services.pause.current(batch.now_ms)?;
    let writes = spec::WRITE | spec::MAY_REPLICATE;
    let concerned = match who {
        _ if command.spec.has(spec::NOT_PAUSED) => false,
        Paused::All => true,
        Paused::Writes => {
            let executes_queue = command.spec.has(spec::NOT_QUEUED)
                && session
                    .transaction
                    .as_ref()
                    .is_some_and(|transaction| transaction.queue.iter().any(|queued| queued.command.spec.has(writes)));
            let is_queued = session.transaction.is_some() && !command.spec.has(spec::NOT_QUEUED);
            executes_queue || (command.spec.has(writes) && !is_queued)
        }
    };
    if !concerned {
        return None;
    }
    let left = Duration::from_millis(until_ms - batch.now_ms);
    let services = Arc::clone(batch.services);
    let shown = ShownBlocked::new(batch.services, &session.client);
    // CLIENT UNPAUSE ends it early: look again often enough that nobody notices.
    Some(Box::pin(async move {
        let _shown = shown;
        let until = tokio::time::Instant::now() + left;
        while tokio::time::Instant::now() < until {
            let slice = (until - tokio::time::Instant::now()).min(Duration::from_millis(5));
            tokio::time::sleep(slice).await;
            if services.pause.current(clock::unix_us() / 1000).is_none() {
                break;
            }
        }
    }))
}

/// Answers a request that was not executed; a transaction that is being queued is spoilt by it.
#[cold]
fn refuse(
    batch: &Batch<'_>,
    session: &mut Session,
    command: Option<&'static Command>,
    error: CommandError,
    reply: &mut ReplyWriter<'_>,
) -> Flow {
    let mut error = error;
    if command.is_some_and(|command| command.spec.has(spec::ENDS_TRANSACTION)) {
        session.end_transaction();
        crate::commands::control::transaction::unwatch_all(session, batch.services);
        let text = error.to_string();
        let reason = text.strip_prefix("ERR ").unwrap_or(&text);
        error = CommandError::Text(format!("EXECABORT Transaction discarded because of: {reason}").into());
    } else if let Some(transaction) = &mut session.transaction {
        transaction.aborted = true;
    }
    if let Some(command) = command {
        bump(&batch.counters.commands[command.index as usize].rejected, 1);
    }
    batch.counters.count_error(&error.to_string());
    error.write(reply);
    Flow::Continue
}

fn execute(
    batch: &mut Batch<'_>,
    session: &mut Session,
    command: &'static Command,
    arguments: Arguments<'_>,
    keys: &Keys,
    reply: &mut ReplyWriter<'_>,
) -> Flow {
    if !session.secrets.is_empty() {
        session.secrets.clear();
    }
    let counters = &batch.counters.commands[command.index as usize];
    let notes_keys = batch.services.hotkeys.is_on();
    // For the keys' sake each call is measured.
    let slow_us = if notes_keys { 0 } else { batch.services.slowlog.threshold_us().unwrap_or(u64::MAX) };
    let reply_from = reply.len();
    let begun = batch.timing.begin(command, counters, arguments.len(), slow_us, reply_from);
    let mut flow = Flow::Continue;
    let waited = session.waiting_since_ms.take();
    let result = match command.spec.handler {
        Handler::Data(_) => {
            let (wait, since_ms) = session.wait(batch.now_ms);
            match execution::execute_data(
                command,
                arguments,
                keys,
                session.database,
                batch.services,
                batch.now_ms,
                wait,
                Manner { keeps_access: session.keeps_access, reads_copies: session.otherwise.is_some() },
                reply,
            ) {
                Executed::Done => Ok(()),
                Executed::Failed(error) => Err(error),
                Executed::Busy => {
                    session.waiting_since_ms = waited;
                    return crate::commands::control::transaction::busy(session, since_ms);
                }
                Executed::Waits(wanted) => return blocking::wait(batch, session, wanted),
                Executed::Full(rooms) => {
                    session.waiting_since_ms = waited;
                    return execution::until_room(batch.services, rooms);
                }
                // The owner changes in this very moment: routing knows in the next.
                Executed::Frozen | Executed::Elsewhere => {
                    session.waiting_since_ms = waited;
                    return wait_for_slot(batch, session, command, reply);
                }
            }
        }
        Handler::Control(_) => {
            let done = execution::run_control(command, arguments, session, batch.services, batch.now_ms, reply, false);
            flow = done.0;
            if let Flow::Retry(_) = flow {
                // It knows when to come again, unless it has found a slot standing still.
                let is_frozen = session.waiting_since_ms.is_some();
                session.waiting_since_ms = waited;
                return if is_frozen { wait_for_slot(batch, session, command, reply) } else { flow };
            }
            done.1
        }
        Handler::Container => Ok(()),
    };
    bump(&counters.calls, 1);
    if let Err(error) = &result {
        bump(&counters.failed, 1);
        batch.counters.count_error(&error.to_string());
    }
    let is_tracked = !batch.services.statistics.latency_untracked.load(Ordering::Relaxed);
    if let Some(took_ns) = batch.timing.end(begun, counters, is_tracked, reply.len()) {
        if notes_keys {
            let reply_bytes = reply.len().saturating_sub(reply_from);
            execution::note_keys(batch.services, command, arguments, batch.now_ms, took_ns, reply_bytes);
        }
        execution::observe(batch.services, session, command, arguments, batch.now_ms, took_ns / 1000);
    }
    flow
}

/// The request is tried again when its slot may have found its owner, or this node its lease: a hand-over takes
/// milliseconds, and so does hearing the voters again.
#[cold]
fn wait_for_slot(
    batch: &mut Batch<'_>,
    session: &mut Session,
    command: &'static Command,
    reply: &mut ReplyWriter<'_>,
) -> Flow {
    const LOOK_AGAIN: Duration = Duration::from_millis(20);
    const WAIT_MS_MAX: u64 = 1000;
    batch.told = Told::Nothing;
    if let (Some(route), Some(view)) = (session.otherwise.take(), &batch.view)
        && let Some(Elsewhere::Redirect(error)) = routing::answer(route, view)
    {
        return redirect(batch, session, command, error, reply);
    }
    const TRY_AGAIN: &str = "TRYAGAIN The slot is changing its node, and nothing was executed";
    let since_ms = *session.waiting_since_ms.get_or_insert(batch.now_ms);
    if batch.now_ms >= since_ms + WAIT_MS_MAX {
        let error = if batch.support.is_some() { CommandError::text(TRY_AGAIN) } else { NO_LEASE };
        return redirect(batch, session, command, error, reply);
    }
    let (Some(cluster), Some(view)) = (&batch.services.cluster, &batch.view) else {
        return Flow::Retry(Box::pin(tokio::time::sleep(Duration::from_millis(1))));
    };
    Flow::Retry(Box::pin(cluster.until_newer(view.routing.version(), LOOK_AGAIN)))
}

/// Answers a request that some other node must answer. A transaction is over, or spoilt, as in Redis.
#[cold]
fn redirect(
    batch: &Batch<'_>,
    session: &mut Session,
    command: &'static Command,
    error: CommandError,
    reply: &mut ReplyWriter<'_>,
) -> Flow {
    session.waiting_since_ms = None;
    if command.spec.has(spec::ENDS_TRANSACTION) {
        session.end_transaction();
        crate::commands::control::transaction::unwatch_all(session, batch.services);
    } else if let Some(transaction) = &mut session.transaction {
        transaction.aborted = true;
    }
    bump(&batch.counters.commands[command.index as usize].rejected, 1);
    batch.counters.count_error(&error.to_string());
    error.write(reply);
    Flow::Continue
}
