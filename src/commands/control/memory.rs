//! MEMORY: where the memory goes, by key and for the whole process.

use crate::commands::context::Control;
use crate::commands::error::CommandError;
use crate::commands::help;
use crate::commands::parse::{self, is};
use crate::commands::spec::{
    Access, Arity::*, CommandResult, CommandSpec, KeySpec, LOADING, READONLY, STALE, container, control, data, keys,
};
use crate::engine::Keyspace;
use crate::engine::entry::Entry;
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;
use crate::services::memory::{self, Allocator};
use std::sync::atomic::Ordering;

const SECOND: &[KeySpec] = &[keys::one(2, Access::ReadOnly, "")];
const FIGURES: &[&str] = &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"];

pub const COMMANDS: &[CommandSpec] = &[container("memory", 0, 0, MEMORY)];

const MEMORY: &[CommandSpec] = &[
    control("doctor", Exactly(2), 0, 0, doctor).tips(FIGURES),
    control("help", Exactly(2), LOADING | STALE, 0, memory_help),
    control("malloc-stats", Exactly(2), 0, 0, malloc_stats).tips(FIGURES),
    control("purge", Exactly(2), 0, 0, purge).tips(&["request_policy:all_shards", "response_policy:all_succeeded"]),
    control("stats", Exactly(2), 0, 0, stats).tips(FIGURES),
    data("usage", AtLeast(3), READONLY, 0, SECOND, usage),
];

/// What a key takes in the table of its slot: its pointer and a control byte.
const TABLE_SHARE: usize = size_of::<Entry>() + 1;

/// Below this, the figures say more about the allocator than about the keys.
const DOCTOR_BYTES_MIN: u64 = 5 * 1024 * 1024;

fn usage(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    // Redis estimates a collection from samples; here its size is known, and the number of samples only checked.
    let mut rest = arguments.from(3);
    while let Some(word) = rest.next() {
        let samples = rest.next().filter(|_| is(word, "samples")).ok_or(CommandError::Syntax)?;
        if parse::integer(samples)? < 0 {
            return Err(CommandError::Syntax);
        }
    }
    match keyspace.peek(arguments.at(2)) {
        Some(entry) => reply.count(entry.memory_bytes() + TABLE_SHARE),
        None => reply.null(),
    }
    Ok(())
}

fn doctor(control: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let allocator = memory::allocator();
    let statistics = control.services.engine.statistics();
    let resident = memory::process_resident_bytes();
    let peak = control.services.statistics.peak_memory_bytes.load(Ordering::Relaxed);
    let mut findings = Vec::new();
    if allocator.allocated < DOCTOR_BYTES_MIN {
        findings.push("There is too little in memory for a diagnosis.".to_owned());
    } else {
        if peak > allocator.allocated * 3 / 2 {
            findings.push(format!(
                "Memory in use was {peak} bytes at its peak and is {} now: the allocator may keep pages for a while. \
                 MEMORY PURGE gives them back.",
                allocator.allocated
            ));
        }
        if allocator.active > allocator.allocated * 7 / 5 {
            findings.push(format!(
                "{} bytes are lost to fragmentation inside the allocator's pages.",
                allocator.active - allocator.allocated
            ));
        }
        if resident > allocator.allocated * 3 / 2 {
            findings
                .push(format!("The process occupies {resident} bytes for {} that are allocated.", allocator.allocated));
        }
        if statistics.entry_bytes * 2 < allocator.allocated {
            findings.push(format!(
                "Only {} of {} bytes are keys and values: look at the buffers of clients (CLIENT LIST).",
                statistics.entry_bytes, allocator.allocated
            ));
        }
    }
    if findings.is_empty() {
        findings.push("No memory problem was found.".to_owned());
    }
    let mut text = findings.join("\n");
    text.push('\n');
    reply.verbatim("txt", &text);
    Ok(())
}

fn malloc_stats(_: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    reply.verbatim("txt", &memory::allocator_report());
    Ok(())
}

fn purge(_: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    memory::purge();
    reply.ok();
    Ok(())
}

/// A figure of MEMORY STATS.
enum Figure {
    Count(u64),
    Ratio(f64),
}

fn stats(control: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let services = control.services;
    let engine = services.engine.statistics();
    let allocator = memory::allocator();
    let figures = figures(
        Allocator { allocated: memory::used_bytes(services), ..allocator },
        services.statistics.peak_memory_bytes.load(Ordering::Relaxed),
        engine.entry_bytes,
        engine.databases.iter().map(|(keys, _)| keys).sum(),
        services.clients.list().iter().map(|client| client.memory_bytes() as u64).sum(),
    );
    let databases: Vec<(usize, u64, u64)> = engine
        .databases
        .iter()
        .enumerate()
        .filter(|(_, (keys, _))| *keys > 0)
        .map(|(database, (keys, volatile))| (database, *keys, *volatile))
        .collect();
    reply.map(figures.len() + databases.len());
    for (name, figure) in figures {
        reply.bulk(name.as_bytes());
        match figure {
            Figure::Count(count) => reply.integer(count as i64),
            Figure::Ratio(ratio) => reply.double(ratio),
        }
    }
    for (database, keys, _) in databases {
        reply.bulk(format!("db.{database}").as_bytes());
        reply.map(3);
        // Deadlines lie in the entries, and slots are the tables: neither needs a table of its own.
        for (name, bytes) in [
            ("overhead.hashtable.main", keys * TABLE_SHARE as u64),
            ("overhead.hashtable.expires", 0),
            ("overhead.hashtable.slot-to-keys", 0),
        ] {
            reply.bulk(name.as_bytes());
            reply.integer(bytes as i64);
        }
    }
    Ok(())
}

fn figures(allocator: Allocator, peak: u64, entries: u64, keys: u64, clients: u64) -> Vec<(&'static str, Figure)> {
    use Figure::{Count, Ratio};
    let (allocated, startup) = (allocator.allocated, memory::startup_bytes());
    let peak = peak.max(allocated);
    let resident = memory::process_resident_bytes();
    let net = allocated.saturating_sub(startup).max(1);
    let ratio = |value: u64, of: u64| value as f64 / of.max(1) as f64;
    let difference = |value: u64, of: u64| Count(value.saturating_sub(of));
    vec![
        ("peak.allocated", Count(peak)),
        ("total.allocated", Count(allocated)),
        ("startup.allocated", Count(startup)),
        ("replication.backlog", Count(0)),
        ("clients.slaves", Count(0)),
        ("clients.normal", Count(clients)),
        ("cluster.links", Count(0)),
        ("aof.buffer", Count(0)),
        ("lua.caches", Count(0)),
        ("functions.caches", Count(0)),
        ("overhead.total", difference(allocated, entries)),
        ("keys.count", Count(keys)),
        ("keys.bytes-per-key", Count(net.checked_div(keys).unwrap_or(0))),
        ("dataset.bytes", Count(entries)),
        ("dataset.percentage", Ratio((ratio(entries, net) * 100.0).min(100.0))),
        ("peak.percentage", Ratio(ratio(allocated, peak) * 100.0)),
        ("allocator.allocated", Count(allocated)),
        ("allocator.active", Count(allocator.active)),
        ("allocator.resident", Count(allocator.resident)),
        ("allocator-fragmentation.ratio", Ratio(ratio(allocator.active, allocated))),
        ("allocator-fragmentation.bytes", difference(allocator.active, allocated)),
        ("allocator-rss.ratio", Ratio(ratio(allocator.resident, allocator.active))),
        ("allocator-rss.bytes", difference(allocator.resident, allocator.active)),
        ("rss-overhead.ratio", Ratio(ratio(resident, allocator.resident))),
        ("rss-overhead.bytes", difference(resident, allocator.resident)),
        ("fragmentation", Ratio(ratio(resident, allocated))),
        ("fragmentation.bytes", difference(resident, allocated)),
    ]
}

fn memory_help(_: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    help::write(
        reply,
        "MEMORY",
        &[
            "DOCTOR",
            "    Say what is unusual about the memory in use.",
            "MALLOC-STATS",
            "    Return the allocator's own report.",
            "PURGE",
            "    Give pages that the allocator keeps back to the system.",
            "STATS",
            "    Return figures of the memory in use.",
            "USAGE <key> [SAMPLES <count>]",
            "    Return the bytes that <key> and its value take. The number of samples has no effect.",
        ],
    );
    Ok(())
}
