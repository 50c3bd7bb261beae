//! LATENCY: the moments at which something took longer than `latency-monitor-threshold`, and how long commands take.

use crate::commands::context::Control;
use crate::commands::error::CommandError;
use crate::commands::help;
use crate::commands::spec::{
    ADMIN, Arity::*, CommandResult, CommandSpec, LOADING, NOSCRIPT, STALE, container, control,
};
use crate::commands::table::{self, Command};
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;
use crate::services::latency::EventHistory;

const BASIC: u64 = ADMIN | NOSCRIPT | LOADING | STALE;
const FIGURES: &[&str] = &["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"];

pub const COMMANDS: &[CommandSpec] = &[container("latency", 0, 0, LATENCY)];

const LATENCY: &[CommandSpec] = &[
    control("doctor", Exactly(2), BASIC, 0, doctor).tips(FIGURES),
    control("graph", Exactly(3), BASIC, 0, graph).tips(FIGURES),
    control("help", Exactly(2), LOADING | STALE, 0, latency_help),
    control("histogram", AtLeast(2), BASIC, 0, histogram).tips(FIGURES),
    control("history", Exactly(3), BASIC, 0, history).tips(FIGURES),
    control("latest", Exactly(2), BASIC, 0, latest).tips(FIGURES),
    control("reset", AtLeast(2), BASIC, 0, reset).tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]),
];

fn history(control: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let event = String::from_utf8_lossy(arguments.at(2));
    let samples = control.services.latency.history(&event).unwrap_or_default().samples;
    reply.array(samples.len());
    for (at, milliseconds) in samples {
        reply.array(2);
        reply.integer(at as i64);
        reply.integer(milliseconds as i64);
    }
    Ok(())
}

fn latest(control: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let histories = control.services.latency.histories();
    reply.array(histories.len());
    for (event, history) in histories {
        let (at, milliseconds) = history.samples.back().copied().unwrap_or_default();
        reply.array(4);
        reply.bulk(event.as_bytes());
        reply.integer(at as i64);
        reply.integer(milliseconds as i64);
        reply.integer(history.worst_ms as i64);
    }
    Ok(())
}

fn reset(control: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let latency = &control.services.latency;
    let forgotten = match arguments.len() {
        2 => latency.reset(None),
        _ => arguments.from(2).map(|event| latency.reset(Some(&String::from_utf8_lossy(event)))).sum(),
    };
    reply.count(forgotten);
    Ok(())
}

/// Of each command that was timed: calls, and how many took at most how many microseconds. Of a container, those of its
/// subcommands.
fn histogram(control: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let mut commands: Vec<&Command> = Vec::new();
    if arguments.len() == 2 {
        commands.extend(table::all());
    }
    for command in arguments.from(2).filter_map(table::lookup_full) {
        commands.push(command);
        commands.extend(&command.subcommands);
    }
    let begun = reply.begin();
    let mut shown = 0;
    for command in commands {
        let latencies = control.services.statistics.latencies(command.index as usize);
        let classes = latencies.cumulative();
        if classes.is_empty() {
            continue;
        }
        shown += 1;
        reply.bulk(command.name.as_bytes());
        reply.map(2);
        reply.bulk(b"calls");
        reply.integer(latencies.count() as i64);
        reply.bulk(b"histogram_usec");
        reply.map(classes.len());
        for (microseconds, count) in classes {
            reply.integer(microseconds as i64);
            reply.integer(count as i64);
        }
    }
    reply.end_map(begun, shown);
    Ok(())
}

fn graph(control: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let event = String::from_utf8_lossy(arguments.at(2));
    let history = control.services.latency.history(&event).filter(|history| !history.samples.is_empty());
    let history =
        history.ok_or_else(|| CommandError::Text(format!("ERR No samples available for event '{event}'").into()))?;
    reply.verbatim("txt", &draw(&event, &history, control.now_ms / 1000));
    Ok(())
}

/// Rows of a graph.
const GRAPH_ROWS: u64 = 4;
/// Heights within a row, the lowest first.
const GRAPH_MARKS: [char; 3] = ['_', 'o', '#'];

/// A column per sample, the oldest first, with its age below it, to be read downwards.
fn draw(event: &str, history: &EventHistory, now_s: u64) -> String {
    let values = || history.samples.iter().map(|(_, milliseconds)| *milliseconds);
    let (low, high) = (values().min().unwrap_or(0), values().max().unwrap_or(0));
    let steps = GRAPH_ROWS * GRAPH_MARKS.len() as u64;
    let heights: Vec<u64> =
        values().map(|value| ((value - low) * steps / (high - low).max(1)).min(steps - 1)).collect();
    let mut text = format!("{event} - high {high} ms, low {low} ms (all time high {} ms)\n", history.worst_ms);
    text.push_str(&"-".repeat(80));
    text.push('\n');
    for row in (0..GRAPH_ROWS).rev() {
        let bottom = row * GRAPH_MARKS.len() as u64;
        text.extend(heights.iter().map(|height| match height.checked_sub(bottom) {
            None => ' ',
            Some(above) => GRAPH_MARKS.get(above as usize).copied().unwrap_or('|'),
        }));
        text.push('\n');
    }
    text.push('\n');
    let ages: Vec<Vec<char>> =
        history.samples.iter().map(|(at, _)| age(now_s.saturating_sub(*at)).chars().collect()).collect();
    for line in 0..ages.iter().map(Vec::len).max().unwrap_or(0) {
        text.extend(ages.iter().map(|age| age.get(line).copied().unwrap_or(' ')));
        text.push('\n');
    }
    text
}

/// `12s`, `3m`, `5h`, `7d`.
fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

fn doctor(control: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let services = control.services;
    let histories = services.latency.histories();
    let mut text = String::new();
    if !services.latency.is_on() && histories.is_empty() {
        text.push_str(
            "The latency monitor is off. CONFIG SET latency-monitor-threshold <milliseconds> turns it on: what takes \
             longer is remembered from then on.\n",
        );
    } else if histories.is_empty() {
        text.push_str("Nothing has taken longer than latency-monitor-threshold.\n");
    } else {
        histories.iter().for_each(|(event, history)| text.push_str(&summary(event, history)));
        text.push_str(&advice(
            &histories,
            services.slowlog.threshold_us(),
            services.settings.load().latency_monitor_threshold,
        ));
    }
    reply.verbatim("txt", &text);
    Ok(())
}

/// A line on an event: how often, how long, how regularly.
fn summary(event: &str, history: &EventHistory) -> String {
    let count = history.samples.len() as u64;
    let average = history.samples.iter().map(|(_, milliseconds)| milliseconds).sum::<u64>() / count.max(1);
    let deviation =
        history.samples.iter().map(|(_, milliseconds)| milliseconds.abs_diff(average)).sum::<u64>() / count.max(1);
    let span = match (history.samples.front(), history.samples.back()) {
        (Some((first, _)), Some((last, _))) => last.saturating_sub(*first),
        _ => 0,
    };
    let period = span as f64 / count.saturating_sub(1).max(1) as f64;
    format!(
        "{event}: {count} latency spikes (average {average}ms, mean deviation {deviation}ms, period {period:.2} sec). \
         Worst all time event {}ms.\n",
        history.worst_ms
    )
}

/// What to do about it.
fn advice(histories: &[(&'static str, EventHistory)], slow_us: Option<u64>, threshold_ms: u64) -> String {
    let mut text = String::new();
    let has = |name: &str| histories.iter().any(|(event, _)| *event == name);
    if has("command") || has("fast-command") {
        match slow_us {
            Some(slow_us) if slow_us <= threshold_ms.max(1) * 1000 => {
                text.push_str("- SLOWLOG GET shows which commands they were.\n");
            }
            _ => text.push_str(&format!(
                "- The slow log does not have commands as short as these: CONFIG SET slowlog-log-slower-than {}.\n",
                threshold_ms.max(1) * 1000
            )),
        }
        text.push_str("- Commands on large values take long in one piece: split the values, or read them by SCAN.\n");
    }
    if has("fast-command") {
        text.push_str("- Commands that are always fast were not: the machine may be short of CPU or memory.\n");
    }
    if has("expire-cycle") {
        text.push_str("- Many keys expire in the same moment: spread their deadlines.\n");
    }
    text
}

fn latency_help(_: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    help::write(
        reply,
        "LATENCY",
        &[
            "DOCTOR",
            "    Say in words what was slow, and what to do about it.",
            "GRAPH <event>",
            "    Draw the latencies of <event>.",
            "HISTORY <event>",
            "    Return times and latencies of <event>.",
            "LATEST",
            "    Return the latest latency of every event.",
            "RESET [<event> ...]",
            "    Forget these events, or all.",
            "HISTOGRAM [COMMAND ...]",
            "    Return how many calls of these commands, or of all, took how many microseconds.",
        ],
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_has_a_column_per_sample() {
        let history = EventHistory { samples: [(94, 10), (99, 200)].into_iter().collect(), worst_ms: 200 };
        let expected = format!(
            "command - high 200 ms, low 10 ms (all time high 200 ms)\n{}\n #\n |\n |\n_|\n\n61\nss\n",
            "-".repeat(80)
        );
        assert_eq!(draw("command", &history, 100), expected);
    }
}
