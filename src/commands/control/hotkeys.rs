//! HOTKEYS: the keys that take the most time and the most bytes, found while a session runs (Redis 8.6).

use super::info::cpu_seconds;
use crate::base::number;
use crate::base::slot::{SLOT_COUNT, Slot};
use crate::base::slot_ranges::SlotRanges;
use crate::commands::context::Control;
use crate::commands::error::CommandError;
use crate::commands::help;
use crate::commands::parse::is;
use crate::commands::spec::{
    ADMIN, Arity::*, CommandResult, CommandSpec, LOADING, NOSCRIPT, STALE, container, control,
};
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;
use crate::services::Services;
use crate::services::hotkeys::{Observed, Session, Top};

const BASIC: u64 = ADMIN | NOSCRIPT;

pub const COMMANDS: &[CommandSpec] = &[container("hotkeys", 0, 0, HOTKEYS)];

const HOTKEYS: &[CommandSpec] = &[
    control("get", Exactly(2), BASIC, 0, get),
    control("help", Exactly(2), LOADING | STALE, 0, hotkeys_help),
    control("reset", Exactly(2), BASIC, 0, reset),
    control("start", AtLeast(2), BASIC, 0, start),
    control("stop", Exactly(2), BASIC, 0, stop),
];

/// CPU and NET.
const METRICS_MAX: i64 = 2;
const COUNT_DEFAULT: usize = 10;
const COUNT_MAX: i64 = 64;
const DURATION_S_MAX: i64 = 1_000_000;
/// Redis keeps the ratio in an `int`.
const RATIO_MAX: i64 = i32::MAX as i64;

fn start(control: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    const RUNS: CommandError = CommandError::text("ERR hotkey tracking session already in progress");
    let services = control.services;
    // Redis looks at this before anything that was asked for.
    if services.hotkeys.session(control.now_ms).is_some_and(|session| session.is_running()) {
        return Err(RUNS);
    }
    let observed = parse(arguments, services)?;
    if !services.hotkeys.start(observed, control.now_ms) {
        return Err(RUNS);
    }
    reply.ok();
    Ok(())
}

/// METRICS count [CPU] [NET], and the options behind it.
fn parse(arguments: Arguments<'_>, services: &Services) -> Result<Observed, CommandError> {
    if arguments.len() < 4 || !is(arguments.at(2), "metrics") {
        return Err(CommandError::text("ERR METRICS parameter is required"));
    }
    let metrics = between(arguments.at(3), METRICS_MAX, "ERR METRICS count must be > 0 and <= 2")?;
    let [user, system, ..] = cpu_seconds("/proc/self/stat");
    let mut observed = Observed {
        cpu: false,
        net: false,
        count: COUNT_DEFAULT,
        duration_ms: None,
        sample_ratio: 1,
        slots: None,
        cpu_seconds: [user, system],
    };
    let mut index = 4 + metrics as usize;
    if arguments.len() < index {
        return Err(CommandError::text("ERR METRICS count does not match number of metric types provided"));
    }
    // A metric that is not known is one of a later version, and passed by.
    for metric in arguments.from(4).take(metrics as usize) {
        if is(metric, "cpu") && std::mem::replace(&mut observed.cpu, true) {
            return Err(CommandError::text("ERR METRICS CPU defined more than once!"));
        }
        if is(metric, "net") && std::mem::replace(&mut observed.net, true) {
            return Err(CommandError::text("ERR METRICS NET defined more than once!"));
        }
    }
    if !observed.cpu && !observed.net {
        return Err(CommandError::text("ERR METRICS no valid metrics passed. Supported: CPU|NET"));
    }
    while let Some(word) = arguments.get(index) {
        let given = arguments.get(index + 1).ok_or(CommandError::Syntax)?;
        index += 2;
        if is(word, "count") {
            observed.count = between(given, COUNT_MAX, "ERR COUNT must be between 1 and 64")? as usize;
        } else if is(word, "duration") {
            let seconds = between(given, DURATION_S_MAX, "ERR DURATION must be between 1 and 1000000")?;
            observed.duration_ms = Some(seconds * 1000);
        } else if is(word, "sample") {
            observed.sample_ratio = between(given, RATIO_MAX, "ERR SAMPLE ratio must be positive")?;
        } else if is(word, "slots") {
            if services.cluster.is_some() && observed.slots.is_some() {
                return Err(CommandError::text("ERR SLOTS parameter already specified"));
            }
            let slots = parse_slots(given, arguments.skip(index), services)?;
            index += slots.len();
            observed.slots = Some(slots);
        } else {
            return Err(CommandError::Syntax);
        }
    }
    Ok(observed)
}

/// So many slots, each once, all of them this node's.
fn parse_slots(count: &[u8], given: Arguments<'_>, services: &Services) -> Result<SlotRanges, CommandError> {
    let Some(cluster) = &services.cluster else {
        return Err(CommandError::text("ERR SLOTS parameter cannot be used in non-cluster mode"));
    };
    let count = between(count, SLOT_COUNT as i64, "ERR SLOTS count must be between 1 and 16384")? as usize;
    if given.len() < count {
        return Err(CommandError::text("ERR not enough slot numbers provided"));
    }
    let view = cluster.view();
    let own = view.slots_of(cluster.node());
    let (mut slots, mut is_repeated) = (SlotRanges::new(), false);
    for text in given.from(0).take(count) {
        let slot = number::parse_i64(text).and_then(|number| u64::try_from(number).ok()).and_then(Slot::new);
        let slot = slot.ok_or(CommandError::text("ERR Invalid or out of range slot"))?;
        if !own.contains(slot) {
            return Err(CommandError::Text(format!("ERR slot {} not handled by this node", slot.number()).into()));
        }
        is_repeated |= !slots.insert(slot);
    }
    if is_repeated {
        return Err(CommandError::text("ERR duplicate slot number"));
    }
    Ok(slots)
}

/// A number from 1 on; Redis has one error for all that is not.
fn between(text: &[u8], greatest: i64, error: &'static str) -> Result<u64, CommandError> {
    let number = number::parse_i64(text).filter(|number| (1..=greatest).contains(number));
    number.map(|number| number as u64).ok_or(CommandError::text(error))
}

fn stop(control: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    if control.services.hotkeys.stop(control.now_ms) {
        reply.ok();
    } else {
        reply.null();
    }
    Ok(())
}

fn reset(control: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    if !control.services.hotkeys.reset(control.now_ms) {
        return Err(CommandError::text("ERR hotkey tracking session in progress, stop tracking first"));
    }
    reply.ok();
    Ok(())
}

/// An array of one map, so that those of several nodes are put together easily.
fn get(control: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let Some(session) = control.services.hotkeys.session(control.now_ms) else {
        reply.null();
        return Ok(());
    };
    reply.array(1);
    let (begun, mut fields) = (reply.begin(), 3);
    write_integer(reply, "tracking-active", u64::from(session.is_running()));
    write_integer(reply, "sample-ratio", session.observed.sample_ratio);
    reply.bulk(b"selected-slots");
    match (&session.observed.slots, &control.services.cluster) {
        (Some(slots), _) => write_slots(reply, slots),
        (None, Some(cluster)) => write_slots(reply, cluster.view().slots_of(cluster.node())),
        (None, None) => write_slots(reply, &SlotRanges::all()),
    }
    fields += write_totals(reply, &session);
    write_integer(reply, "collection-start-time-unix-ms", session.started_at_ms);
    write_integer(reply, "collection-duration-ms", session.duration_ms(control.now_ms));
    fields += 2 + write_top(reply, &session);
    reply.end_map(begun, fields);
    Ok(())
}

/// The sums of commands; how many fields that are.
fn write_totals(reply: &mut ReplyWriter<'_>, session: &Session) -> usize {
    let (totals, selects) = (session.totals(), session.observed.slots.is_some());
    let fields = [
        ("sampled-commands-selected-slots-us", totals.sampled.us(), selects && session.observed.sample_ratio > 1),
        ("all-commands-selected-slots-us", totals.selected.us(), selects),
        ("all-commands-all-slots-us", totals.all.us(), true),
        (
            "net-bytes-sampled-commands-selected-slots",
            totals.sampled.bytes,
            selects && session.observed.sample_ratio > 1,
        ),
        ("net-bytes-all-commands-selected-slots", totals.selected.bytes, selects),
        ("net-bytes-all-commands-all-slots", totals.all.bytes, true),
    ];
    let shown = fields.into_iter().filter(|(_, _, is_shown)| *is_shown);
    shown.map(|(name, value, _)| write_integer(reply, name, value)).count()
}

/// What was asked for: times of the process, and the keys; how many fields that are.
fn write_top(reply: &mut ReplyWriter<'_>, session: &Session) -> usize {
    let (by_cpu, by_bytes) =
        (session.observed.cpu.then(|| session.by_cpu()), session.observed.net.then(|| session.by_bytes()));
    let mut fields = 0;
    if by_cpu.is_some() {
        let now = cpu_seconds("/proc/self/stat");
        let since =
            |index: usize| ((now[index] - session.observed.cpu_seconds[index]).max(0.0) * 1000.0).round() as u64;
        write_integer(reply, "total-cpu-time-user-ms", since(0));
        write_integer(reply, "total-cpu-time-sys-ms", since(1));
        fields += 2;
    }
    if let Some(top) = &by_bytes {
        write_integer(reply, "total-net-bytes", top.total);
        fields += 1;
    }
    for (name, top) in [("by-cpu-time-us", by_cpu), ("by-net-bytes", by_bytes)] {
        if let Some(top) = top {
            write_keys(reply, name, &top);
            fields += 1;
        }
    }
    fields
}

fn write_integer(reply: &mut ReplyWriter<'_>, name: &str, value: u64) {
    reply.bulk(name.as_bytes());
    reply.integer(value as i64);
}

fn write_keys(reply: &mut ReplyWriter<'_>, name: &str, top: &Top) {
    reply.bulk(name.as_bytes());
    reply.array(2 * top.keys.len());
    for (key, value) in &top.keys {
        reply.bulk(key);
        reply.integer(*value as i64);
    }
}

/// Ranges as pairs, single slots as arrays of one.
fn write_slots(reply: &mut ReplyWriter<'_>, slots: &SlotRanges) {
    reply.array(slots.ranges().len());
    for (first, last) in slots.ranges() {
        reply.array(if first == last { 1 } else { 2 });
        reply.integer(first.number().into());
        if first != last {
            reply.integer(last.number().into());
        }
    }
}

fn hotkeys_help(_: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    help::write(
        reply,
        "HOTKEYS",
        &[
            "START METRICS <count> [CPU] [NET] [COUNT <k>] [DURATION <seconds>] [SAMPLE <ratio>] [SLOTS <count> <slot> ...]",
            "    Begin to observe which keys take the most time (CPU) and bytes (NET): the first <k> of them (default: 10),",
            "    for so many seconds (default: until STOP), one command of <ratio> (default: all),",
            "    keys of these slots only (in a cluster; default: all).",
            "STOP",
            "    End the session. GET shows what it has found.",
            "GET",
            "    Show what the session has found, or the last one.",
            "RESET",
            "    Forget the last session.",
        ],
    );
    Ok(())
}
