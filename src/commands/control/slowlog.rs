//! SLOWLOG: the last commands that took longer than `slowlog-log-slower-than`.

use crate::base::number;
use crate::commands::context::Control;
use crate::commands::error::CommandError;
use crate::commands::help;
use crate::commands::spec::{ADMIN, Arity::*, CommandResult, CommandSpec, LOADING, STALE, container, control};
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;

const BASIC: u64 = ADMIN | LOADING | STALE;

pub const COMMANDS: &[CommandSpec] = &[container("slowlog", 0, 0, SLOWLOG)];

const SLOWLOG: &[CommandSpec] = &[
    control("get", AtLeast(2), BASIC, 0, get).tips(&["request_policy:all_nodes", "nondeterministic_output"]),
    control("help", Exactly(2), LOADING | STALE, 0, slowlog_help),
    control("len", Exactly(2), BASIC, 0, len).tips(&[
        "request_policy:all_nodes",
        "response_policy:agg_sum",
        "nondeterministic_output",
    ]),
    control("reset", Exactly(2), BASIC, 0, reset).tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]),
];

/// Commands that GET shows where no number is given.
const SHOWN: usize = 10;

fn get(control: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    if arguments.len() > 3 {
        return Err(CommandError::text("ERR wrong number of arguments for 'slowlog|get' command"));
    }
    let count = match arguments.get(2) {
        None => SHOWN,
        Some(argument) => match number::parse_i64(argument) {
            Some(-1) => usize::MAX,
            Some(count) if count >= 0 => count as usize,
            _ => return Err(CommandError::text("ERR count should be greater than or equal to -1")),
        },
    };
    let entries = control.services.slowlog.latest(count);
    reply.array(entries.len());
    for entry in entries {
        reply.array(6);
        reply.integer(entry.id as i64);
        reply.integer(entry.at as i64);
        reply.integer(entry.duration_us as i64);
        reply.array(entry.arguments.len());
        entry.arguments.iter().for_each(|argument| reply.bulk(argument));
        reply.bulk(entry.client_address.as_bytes());
        reply.bulk(entry.client_name.as_bytes());
    }
    Ok(())
}

fn len(control: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    reply.count(control.services.slowlog.len());
    Ok(())
}

fn reset(control: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    control.services.slowlog.reset();
    reply.ok();
    Ok(())
}

fn slowlog_help(_: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    help::write(
        reply,
        "SLOWLOG",
        &[
            "GET [<count>]",
            "    Show the latest <count> slow commands, the newest first (default: 10, -1: all).",
            "    Of each: id, Unix time, microseconds, arguments, client address, client name.",
            "LEN",
            "    Return the length of the slow log.",
            "RESET",
            "    Forget all slow commands.",
        ],
    );
    Ok(())
}
