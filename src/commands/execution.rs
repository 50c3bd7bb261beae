//! Executes one command: takes the locks of its keys, runs its handler, and makes an error of it if it fails.

use super::context::{Control, Flow};
use super::error::CommandError;
use super::parse;
use super::session::Session;
use super::spec::{ALL_KEYS, FAST, Handler, ONE_SLOT, SKIP_SLOWLOG, WRITE};
use super::table::Command;
use crate::base::slot::Slot;
use crate::engine::{Admission, Keyspace, Wait, Wanted};
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;
use crate::services::Services;
use crate::services::hotkeys::Cost;
use crate::values::hashing::table_hash;
use smallvec::SmallVec;
use std::cell::Cell;
use std::sync::Arc;

thread_local! {
    static BEGUN: Cell<Option<&'static Command>> = const { Cell::new(None) };
}

/// The command that this thread has begun last: what a panic's last words name.
pub fn last_begun() -> Option<&'static Command> {
    BEGUN.get()
}

/// The slots of a command's keys.
pub type Slots = SmallVec<[Slot; 4]>;

/// What is known of the keys of a request before it is executed.
#[derive(Debug, Default)]
pub struct Keys {
    pub slots: Slots,
    /// The table hashes of the first of them.
    pub hashes: SmallVec<[u64; 1]>,
    /// Where the first stands among the arguments.
    first: usize,
}

/// So many keys of a request are fetched into the cache together.
const HASHES_MAX: usize = 32;

/// The keys of a request; `None` where it does not say what they are.
#[inline(always)]
pub fn keys_of(command: &Command, arguments: Arguments<'_>) -> Option<Keys> {
    if command.spec.first_key_only
        && let Some(key) = arguments.get(1)
    {
        let slots = Slots::from_slice(&[Slot::of_key(key)]);
        return Some(Keys { slots, hashes: SmallVec::from_buf([table_hash(key)]), first: 1 });
    }
    let mut keys = Keys::default();
    let is_known = visit_keys(command, arguments, |index, key| {
        if keys.slots.is_empty() {
            keys.first = index;
        }
        if keys.hashes.len() < HASHES_MAX {
            keys.hashes.push(table_hash(key));
        }
        keys.slots.push(Slot::of_key(key));
    });
    is_known.then_some(keys)
}

/// The slots of the keys of a request, in the order of the keys; `None` where the request does not say what they are.
pub fn slots_of(command: &Command, arguments: Arguments<'_>) -> Option<Slots> {
    let mut slots = Slots::new();
    visit_keys(command, arguments, |_, key| slots.push(Slot::of_key(key))).then_some(slots)
}

/// Visits the keys of a request and their places among the arguments. False where it does not say what they are.
fn visit_keys<'a>(command: &Command, arguments: Arguments<'a>, mut visit: impl FnMut(usize, &'a [u8])) -> bool {
    command.spec.visit_keys(arguments, |index, spec| {
        // What is no key names a slot by its hash tag, if it names one (the cursor of CLUSTERSCAN).
        let argument = arguments.at(index);
        if !spec.effects.contains("not_key") || argument.contains(&b'{') {
            visit(index, argument);
        }
    })
}

/// What came of an attempt to execute.
pub enum Executed {
    /// The reply is written.
    Done,
    /// It failed, and the error is written.
    Failed(CommandError),
    /// A shard of it is held by others for long; nothing was executed.
    Busy,
    /// A slot of it is being handed over; nothing was executed.
    Frozen,
    /// A slot of it is no longer here; nothing was executed.
    Elsewhere,
    /// It has found nothing, and waits; nothing was executed.
    Waits(Wanted),
    /// Readers of the log are behind, and writers wait for them; nothing was executed. There may be room when the log has
    /// told so more often than this.
    Full(u64),
}

/// Locks what a data command needs; `None` where that is busy for longer than `wait`.
#[inline]
fn lock<'e>(
    command: &Command,
    arguments: Arguments<'_>,
    slots: &[Slot],
    database: usize,
    services: &'e Services,
    now_ms: u64,
    wait: Wait,
) -> Option<Keyspace<'e>> {
    let engine = &services.engine;
    if services.cluster.is_none() && command.spec.spans(arguments) {
        let mut keyspace = engine.try_lock_all(wait, database, now_ms)?;
        keyspace.span_slots();
        return Some(keyspace);
    }
    if command.spec.has(ALL_KEYS) {
        if command.spec.has(ONE_SLOT)
            && let Some(slot) = number(arguments.at(2))
        {
            return engine.try_lock_slot(wait, slot, database, now_ms);
        }
        // What only looks promises no common moment of all keys.
        return if command.spec.has(WRITE) {
            engine.try_lock_all(wait, database, now_ms)
        } else {
            Some(engine.walk(database, now_ms))
        };
    }
    match slots {
        [slot] => engine.try_lock_slot(wait, *slot, database, now_ms),
        _ => engine.try_lock_slots(wait, slots.iter().copied(), database, now_ms),
    }
}

/// The slot with this number, if it is one.
fn number(text: &[u8]) -> Option<Slot> {
    let number = parse::integer(text).ok()?;
    Slot::new(u64::try_from(number).ok()?)
}

/// How a command is to be executed, besides what it says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// The access bits of entries stay as they are.
    pub keeps_access: bool,
    /// It only reads, and a copy of its slot may answer it.
    pub reads_copies: bool,
}

/// Executes a data command on the slots of its keys.
#[allow(clippy::too_many_arguments)] // What a request is and where it goes; each caller has them apart.
pub fn execute_data(
    command: &'static Command,
    arguments: Arguments<'_>,
    keys: &Keys,
    database: usize,
    services: &Services,
    now_ms: u64,
    wait: Wait,
    manner: Manner,
    reply: &mut ReplyWriter<'_>,
) -> Executed {
    let slots = &keys.slots[..];
    if slots.len() > 1 {
        fetch(keys, database, services);
    }
    // Counted before it is asked whether there is room, so that no word of it is missed.
    let rooms = services.engine.log.rooms();
    let Some(mut keyspace) = lock(command, arguments, slots, database, services, now_ms, wait) else {
        return Executed::Busy;
    };
    let writes = command.spec.has(WRITE);
    match keyspace.admits(slots, writes) {
        Admission::Executes if writes && command.spec.has(ALL_KEYS) && keyspace.has_frozen() => {
            return Executed::Frozen;
        }
        Admission::Executes => {}
        Admission::Full => return Executed::Full(rooms),
        Admission::Frozen => return Executed::Frozen,
        Admission::Elsewhere if manner.reads_copies && keyspace.has_copies(slots) => {}
        Admission::Elsewhere => return Executed::Elsewhere,
    }
    keyspace.keep_access(manner.keeps_access);
    if let ([slot], [hash]) = (slots, &keys.hashes[..]) {
        keyspace.hint(arguments.at(keys.first), *slot, *hash);
    }
    match run_data(command, arguments, &mut keyspace, reply) {
        Ok(()) => match keyspace.take_wanted() {
            None => Executed::Done,
            Some(wanted) => {
                // Under the locks under which it found nothing: what comes now finds it waiting.
                keyspace.enlist(&wanted.waiter);
                Executed::Waits(wanted)
            }
        },
        Err(error) => Executed::Failed(error),
    }
}

/// Fetches the places of several keys into the processor's cache, so that the waits for them overlap.
fn fetch(keys: &Keys, database: usize, services: &Services) {
    let places: SmallVec<[(Slot, u64); HASHES_MAX]> =
        keys.slots.iter().copied().zip(keys.hashes.iter().copied()).collect();
    services.engine.prefetch(&places, database);
}

/// The request comes again when readers of the log have caught up. It has no other end: its client may leave.
#[cold]
pub fn until_room(services: &Arc<Services>, rooms: u64) -> Flow {
    let services = Arc::clone(services);
    Flow::Retry(Box::pin(async move { services.engine.log.until_room(rooms).await }))
}

/// Runs a data handler on locked keys; an error replaces what it wrote.
pub fn run_data(
    command: &'static Command,
    arguments: Arguments<'_>,
    keyspace: &mut Keyspace<'_>,
    reply: &mut ReplyWriter<'_>,
) -> Result<(), CommandError> {
    let Handler::Data(handler) = command.spec.handler else { return Ok(()) };
    BEGUN.set(Some(command));
    let mark = reply.len();
    handler(keyspace, arguments, reply).inspect_err(|error| {
        reply.truncate(mark);
        error.write(reply);
    })
}

/// Runs a control handler; an error replaces what it wrote.
pub fn run_control(
    command: &'static Command,
    arguments: Arguments<'_>,
    session: &mut Session,
    services: &Arc<Services>,
    now_ms: u64,
    reply: &mut ReplyWriter<'_>,
    in_transaction: bool,
) -> (Flow, Result<(), CommandError>) {
    let Handler::Control(handler) = command.spec.handler else { return (Flow::Continue, Ok(())) };
    BEGUN.set(Some(command));
    let mark = reply.len();
    let mut control = Control { session, services, command, now_ms, flow: Flow::Continue, in_transaction };
    let result = handler(&mut control, arguments, reply);
    let flow = control.flow;
    if let Err(error) = &result {
        reply.truncate(mark);
        error.write(reply);
    }
    (flow, result)
}

/// Tells HOTKEYS which keys a command has had, what it took, and the bytes of its reply.
#[cold]
pub fn note_keys(
    services: &Services,
    command: &Command,
    arguments: Arguments<'_>,
    now_ms: u64,
    took_ns: u64,
    reply_bytes: usize,
) {
    let mut keys: SmallVec<[&[u8]; 8]> = SmallVec::new();
    command.spec.visit_keys(arguments, |index, spec| {
        if !spec.effects.contains("not_key") {
            keys.push(arguments.at(index));
        }
    });
    let cost = Cost { ns: took_ns, bytes: (arguments.encoded_bytes() + reply_bytes) as u64 };
    services.hotkeys.record(keys.iter().copied(), cost, now_ms);
}

/// Enters a command that took long into the slow log and the latency monitor.
pub fn observe(
    services: &Services,
    session: &Session,
    command: &Command,
    arguments: Arguments<'_>,
    now_ms: u64,
    took_us: u64,
) {
    let now_s = now_ms / 1000;
    if services.latency.is_on() {
        let event = if command.spec.has(FAST) { "fast-command" } else { "command" };
        services.latency.observe(event, now_s, took_us / 1000);
    }
    if services.slowlog.threshold_us().is_none_or(|slow_us| took_us < slow_us) || command.spec.has(SKIP_SLOWLOG) {
        return;
    }
    let client = &session.client;
    let name = client.labels.lock().name.clone();
    let shown = arguments
        .from(0)
        .enumerate()
        .map(|(place, argument)| if session.secrets.contains(&place) { b"(redacted)".as_slice() } else { argument });
    services.slowlog.record(now_s, took_us, shown, client.address.to_string(), name);
}
