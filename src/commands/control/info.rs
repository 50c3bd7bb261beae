//! INFO: the node in figures, in sections. What does not exist here is shown as Redis shows it when it is off.

use crate::base::clock;
use crate::commands::context::Control;
use crate::commands::parse::is;
use crate::commands::spec::{Arity::*, CommandResult, CommandSpec, DANGEROUS, HIDDEN, LOADING, STALE, control};
use crate::commands::table;
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;
use crate::services::condition::good_copies;
use crate::services::pubsub::Space;
use crate::services::{Services, memory};
use std::fmt::Write;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub const COMMANDS: &[CommandSpec] = &[control("info", AtLeast(1), LOADING | STALE, DANGEROUS, info).tips(&[
    "nondeterministic_output",
    "request_policy:all_shards",
    "response_policy:special",
])];

/// Writes the fields of a section.
type Fill = fn(&mut Section<'_>);

/// Name, heading, whether it belongs to those shown by default, and what fills it; in the order of the reply.
const SECTIONS: &[(&str, &str, bool, Fill)] = &[
    ("server", "Server", true, server),
    ("clients", "Clients", true, clients),
    ("memory", "Memory", true, memory_section),
    ("persistence", "Persistence", true, persistence),
    ("stats", "Stats", true, stats),
    ("replication", "Replication", true, replication),
    ("cpu", "CPU", true, cpu),
    ("modules", "Modules", true, |_| {}),
    ("commandstats", "Commandstats", false, commandstats),
    ("errorstats", "Errorstats", true, errorstats),
    ("latencystats", "Latencystats", false, latencystats),
    ("cluster", "Cluster", true, cluster),
    ("keyspace", "Keyspace", true, keyspace),
];

/// A section that is being written.
struct Section<'a> {
    text: &'a mut String,
    services: &'a Services,
    now_ms: u64,
}

impl Section<'_> {
    fn field(&mut self, name: &str, value: impl std::fmt::Display) {
        // Writing into a string cannot fail.
        let _ = write!(self.text, "{name}:{value}\r\n");
    }

    /// Fields of which each stands for something that does not exist or has not happened.
    fn zeros(&mut self, names: &[&str]) {
        names.iter().for_each(|name| self.field(name, 0));
    }

    /// A figure in bytes, and once more for people.
    fn bytes(&mut self, name: &str, bytes: u64) {
        self.field(name, bytes);
        self.field(&format!("{name}_human"), human(bytes));
    }
}

fn info(control: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    control.session.show();
    let asked = |name: &str| arguments.from(1).any(|word| is(word, name));
    let all = asked("all") || asked("everything");
    let default = arguments.len() == 1 || asked("default");
    let mut text = String::new();
    for (name, heading, by_default, fill) in SECTIONS {
        if !(all || (default && *by_default) || asked(name)) {
            continue;
        }
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        let _ = write!(text, "# {heading}\r\n");
        fill(&mut Section { text: &mut text, services: control.services, now_ms: control.now_ms });
    }
    reply.verbatim("txt", &text);
    Ok(())
}

/// `1.50M`, as Redis writes sizes for people.
fn human(bytes: u64) -> String {
    let units = ["K", "M", "G", "T", "P"];
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let power = (bytes.ilog2() as usize / 10).min(units.len());
    format!("{:.2}{}", bytes as f64 / (1u64 << (power * 10)) as f64, units[power - 1])
}

fn ratio(value: u64, of: u64) -> String {
    format!("{:.2}", value as f64 / of.max(1) as f64)
}

fn server(section: &mut Section<'_>) {
    let (services, now_ms) = (section.services, section.now_ms);
    let config = services.settings.load_full();
    let system = rustix::system::uname();
    let (name, release, machine) = (system.sysname(), system.release(), system.machine());
    let os = [name, release, machine].map(|word| word.to_string_lossy().into_owned()).join(" ");
    let uptime = now_ms.saturating_sub(services.started_at_ms) / 1000;
    let executable = std::env::current_exe().map_or_else(|_| String::new(), |path| path.display().to_string());
    section.field("redis_version", crate::commands::REDIS_VERSION);
    section.field("starling_version", env!("CARGO_PKG_VERSION"));
    section.field("redis_git_sha1", "00000000");
    section.zeros(&["redis_git_dirty", "redis_build_id"]);
    section.field("redis_mode", if config.cluster_enabled { "cluster" } else { "standalone" });
    section.field("os", os);
    section.field("arch_bits", usize::BITS);
    section.field("monotonic_clock", "POSIX clock_gettime");
    section.field("multiplexing_api", "epoll");
    section.field("atomicvar_api", "rust-core");
    // What Redis shows where it was not built by GCC.
    section.field("gcc_version", "0.0.0");
    section.field("process_id", std::process::id());
    let is_supervised = crate::services::supervision::is_by_systemd(&config);
    section.field("process_supervised", if is_supervised { "systemd" } else { "no" });
    section.field("run_id", &services.run_id);
    section.field("tcp_port", config.port);
    section.field("server_time_usec", clock::unix_us());
    section.field("uptime_in_seconds", uptime);
    section.field("uptime_in_days", uptime / 86400);
    section.field("hz", config.hz);
    section.field("configured_hz", config.hz);
    section.field("lru_clock", clock::unix_us() / 1_000_000 % (1 << 24));
    section.field("executable", executable);
    section.field("config_file", config.file.as_deref().unwrap_or(""));
    section.zeros(&["io_threads_active"]);
}

fn clients(section: &mut Section<'_>) {
    let services = section.services;
    let list = services.clients.list();
    let greatest = |bytes: fn(&crate::services::clients::Client) -> usize| {
        list.iter().map(|client| bytes(client)).max().unwrap_or(0)
    };
    section.field("connected_clients", list.len());
    section.zeros(&["cluster_connections"]);
    section.field("maxclients", services.settings.load().maxclients);
    section.field("client_recent_max_input_buffer", greatest(|client| client.input_bytes.load(Ordering::Relaxed)));
    section.field(
        "client_recent_max_output_buffer",
        greatest(|client| client.output_bytes.load(Ordering::Relaxed) + client.inbox.bytes()),
    );
    section.field("blocked_clients", services.statistics.blocked_clients.load(Ordering::Relaxed));
    section.zeros(&["tracking_clients", "clients_in_timeout_table"]);
}

fn memory_section(section: &mut Section<'_>) {
    let services = section.services;
    let allocator = memory::allocator();
    let allocated = memory::used_bytes(services);
    let resident = memory::process_resident_bytes();
    let startup = memory::startup_bytes();
    let peak = services.statistics.peak_memory_bytes.fetch_max(allocated, Ordering::Relaxed).max(allocated);
    let entries = services.engine.statistics().entry_bytes;
    let config = services.settings.load_full();
    section.bytes("used_memory", allocated);
    section.bytes("used_memory_rss", resident);
    section.bytes("used_memory_peak", peak);
    section.field("used_memory_peak_perc", format!("{:.2}%", allocated as f64 * 100.0 / peak.max(1) as f64));
    section.field("used_memory_overhead", allocated.saturating_sub(entries));
    section.field("used_memory_startup", startup);
    section.field("used_memory_dataset", entries);
    let share = (entries as f64 * 100.0 / allocated.saturating_sub(startup).max(1) as f64).min(100.0);
    section.field("used_memory_dataset_perc", format!("{share:.2}%"));
    section.field("allocator_allocated", allocator.allocated);
    section.field("allocator_active", allocator.active);
    section.field("allocator_resident", allocator.resident);
    section.field("allocator_retained", allocator.retained);
    section.bytes("total_system_memory", memory::machine_bytes());
    section.zeros(&["used_memory_vm_eval"]);
    section.bytes("used_memory_lua", 0);
    section.zeros(&["used_memory_scripts_eval", "number_of_cached_scripts"]);
    section.zeros(&["number_of_functions", "number_of_libraries", "used_memory_vm_functions"]);
    section.bytes("used_memory_vm_total", 0);
    section.zeros(&["used_memory_functions"]);
    section.bytes("used_memory_scripts", 0);
    section.bytes("maxmemory", config.maxmemory);
    section.field("maxmemory_policy", &config.maxmemory_policy);
    section.field("allocator_frag_ratio", ratio(allocator.active, allocated));
    section.field("allocator_frag_bytes", allocator.active.saturating_sub(allocated));
    section.field("allocator_rss_ratio", ratio(allocator.resident, allocator.active));
    section.field("allocator_rss_bytes", allocator.resident.saturating_sub(allocator.active));
    section.field("rss_overhead_ratio", ratio(resident, allocator.resident));
    section.field("rss_overhead_bytes", resident as i64 - allocator.resident as i64);
    section.field("mem_fragmentation_ratio", ratio(resident, allocated));
    section.field("mem_fragmentation_bytes", resident as i64 - allocated as i64);
    section.field("mem_fragmentation_counted_for_evict", memory::between_bytes());
    section.zeros(&[
        "mem_not_counted_for_evict",
        "mem_replication_backlog",
        "mem_total_replication_buffers",
        "mem_clients_slaves",
    ]);
    let of_clients: usize = services.clients.list().iter().map(|client| client.memory_bytes()).sum();
    section.field("mem_clients_normal", of_clients);
    section.zeros(&["mem_cluster_links", "mem_aof_buffer"]);
    section.field("mem_allocator", "jemalloc-5.3.1");
    section.zeros(&["active_defrag_running"]);
    let (pending, freed) = services.engine.reclaimed_objects();
    section.field("lazyfree_pending_objects", pending);
    section.field("lazyfreed_objects", freed);
}

fn persistence(section: &mut Section<'_>) {
    let services = section.services;
    let (shown, load) = (services.snapshots.shown(), services.snapshots.loads.shown());
    let seconds = |seconds: Option<u64>| seconds.map_or(-1, |seconds| seconds as i64);
    section.field("loading", u8::from(services.conditions.is_loading()));
    section.zeros(&["async_loading", "current_cow_peak", "current_cow_size", "current_cow_size_age"]);
    section.field("current_fork_perc", "0.00");
    section.field("current_save_keys_processed", shown.keys);
    section.field("current_save_keys_total", shown.total);
    section.field("rdb_changes_since_last_save", services.snapshots.changes(services));
    section.field("rdb_bgsave_in_progress", u8::from(shown.is_running));
    section.field("rdb_last_save_time", shown.saved_at);
    section.field("rdb_last_bgsave_status", if shown.has_failed { "err" } else { "ok" });
    section.field("rdb_last_bgsave_time_sec", seconds(shown.took_seconds));
    section.field("rdb_current_bgsave_time_sec", seconds(shown.running_seconds));
    section.field("rdb_saves", shown.saves);
    section.zeros(&["rdb_last_cow_size"]);
    section.field("rdb_last_load_keys_expired", services.snapshots.loads.expired.load(Ordering::Relaxed));
    section.field("rdb_last_load_keys_loaded", services.snapshots.loads.keys.load(Ordering::Relaxed));
    append_log(section);
    section.zeros(&["aof_last_cow_size", "module_fork_in_progress", "module_fork_last_cow_size"]);
    if let Some(load) = load.filter(|_| services.conditions.is_loading()) {
        section.field("loading_start_time", load.began_at);
        section.field("loading_total_bytes", load.total_bytes);
        section.zeros(&["loading_rdb_used_mem"]);
        section.field("loading_loaded_bytes", load.bytes);
        section
            .field("loading_loaded_perc", format!("{:.2}", load.bytes as f64 * 100.0 / load.total_bytes.max(1) as f64));
        let left = load.elapsed_seconds * load.total_bytes.saturating_sub(load.bytes) / load.bytes.max(1);
        section.field("loading_eta_seconds", left.max(1));
    }
}

fn append_log(section: &mut Section<'_>) {
    let log = section.services.append_log.figures();
    let (is_on, log) = (log.is_some(), log.unwrap_or_default());
    let status = |has_failed: bool| if has_failed { "err" } else { "ok" };
    let seconds = |took: Option<Duration>| took.map_or(-1, |took| took.as_secs() as i64);
    section.field("aof_enabled", u8::from(is_on));
    section.field("aof_rewrite_in_progress", u8::from(log.rewriting_since.is_some()));
    section.field("aof_rewrite_scheduled", u8::from(log.is_rewriting_scheduled));
    section.field("aof_last_rewrite_time_sec", seconds(log.last_rewriting));
    section.field("aof_current_rewrite_time_sec", seconds(log.rewriting_since.map(|since| since.elapsed())));
    section.field("aof_last_bgrewrite_status", status(log.last_rewriting_failed));
    section.field("aof_rewrites", log.rewritings);
    section.field("aof_rewrites_consecutive_failures", log.failed_in_a_row);
    section.field("aof_last_write_status", status(log.failure.is_some()));
    if !is_on {
        return;
    }
    section.field("aof_current_size", log.bytes);
    section.field("aof_base_size", log.base_bytes);
    section.field("aof_pending_rewrite", u8::from(log.is_rewriting_scheduled));
    section.field("aof_buffer_length", log.pending_bytes);
    section.zeros(&["aof_pending_bio_fsync", "aof_delayed_fsync"]);
    section.field("aof_syncs", log.syncs);
    section.field("aof_last_sync_usec", log.last_sync.as_micros());
}

fn stats(section: &mut Section<'_>) {
    let services = section.services;
    let (statistics, engine) = (&services.statistics, services.engine.statistics());
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let kilobytes = |bytes: u64| format!("{:.2}", bytes as f64 / 1024.0);
    section.field("total_connections_received", load(&statistics.connections_received));
    section.field("total_commands_processed", statistics.commands_processed());
    section.field("instantaneous_ops_per_sec", load(&statistics.operations_per_second));
    section.field("total_net_input_bytes", statistics.sum(|thread| load(&thread.input_bytes)));
    section.field("total_net_output_bytes", statistics.sum(|thread| load(&thread.output_bytes)));
    section.zeros(&["total_net_repl_input_bytes", "total_net_repl_output_bytes"]);
    section.field("instantaneous_input_kbps", kilobytes(load(&statistics.input_bytes_per_second)));
    section.field("instantaneous_output_kbps", kilobytes(load(&statistics.output_bytes_per_second)));
    section.field("instantaneous_input_repl_kbps", "0.00");
    section.field("instantaneous_output_repl_kbps", "0.00");
    section.field("rejected_connections", load(&statistics.connections_rejected));
    section.zeros(&["sync_full", "sync_partial_ok", "sync_partial_err"]);
    section.field("expired_keys", engine.expired);
    section.field("expired_subkeys", engine.expired_fields);
    section.field("expired_stale_perc", "0.00");
    section.zeros(&["expired_time_cap_reached_count", "expire_cycle_cpu_milliseconds"]);
    section.field("evicted_keys", engine.evicted);
    section.zeros(&["evicted_clients"]);
    let (total, current) = services.eviction.exceeded_ms();
    section.field("total_eviction_exceeded_time", total);
    section.field("current_eviction_exceeded_time", current);
    section.field("keyspace_hits", engine.hits);
    section.field("keyspace_misses", engine.misses);
    section.field("pubsub_channels", services.pubsub.channel_count(Space::Channel));
    section.field("pubsub_patterns", services.pubsub.pattern_count());
    section.field("pubsubshard_channels", services.pubsub.channel_count(Space::Shard));
    section.zeros(&["latest_fork_usec", "total_forks", "migrate_cached_sockets", "slave_expires_tracked_keys"]);
    section.zeros(&["active_defrag_hits", "active_defrag_misses", "active_defrag_key_hits"]);
    section.zeros(&["active_defrag_key_misses", "total_active_defrag_time", "current_active_defrag_time"]);
    section.zeros(&["tracking_total_keys", "tracking_total_items", "tracking_total_prefixes"]);
    section.zeros(&["unexpected_error_replies"]);
    section.field("total_error_replies", statistics.error_replies());
    section.zeros(&["dump_payload_sanitizations"]);
    section.field("total_reads_processed", statistics.sum(|thread| load(&thread.reads)));
    section.field("total_writes_processed", statistics.sum(|thread| load(&thread.writes)));
    // There are no threads for input and output alone, and no reply buffers of a size of their own.
    section.zeros(&["io_threaded_reads_processed", "io_threaded_writes_processed"]);
    section.zeros(&["reply_buffer_shrinks", "reply_buffer_expands"]);
    section.field("client_query_buffer_limit_disconnections", load(&statistics.input_limit_disconnections));
    section.field("client_output_buffer_limit_disconnections", load(&statistics.output_limit_disconnections));
}

/// Every node is a master, and those that have copies of its slots are its replicas. Offsets are places in the log of this
/// node: a replica has it up to there, of the slots that it has copies of; 0 while it is sent something older.
fn replication(section: &mut Section<'_>) {
    let replicas = section.services.cluster.as_ref().map(|cluster| cluster.own_replicas()).unwrap_or_default();
    section.field("role", "master");
    section.field("connected_slaves", replicas.len());
    let log = &section.services.engine.log;
    // Before what the replicas have, so that none has more.
    let end = log.own_end();
    if section.services.settings.load().min_replicas_to_write > 0 {
        section.field("min_slaves_good_slaves", good_copies(section.services));
    }
    for (index, (node, ip, port, slots)) in replicas.iter().enumerate() {
        let (offset, lag) = log
            .copied
            .state_of(*node)
            .map_or((0, -1), |copy| (copy.has.0.min(end.0), copy.heard.elapsed().as_secs() as i64));
        let state = if offset > 0 { "online" } else { "wait_bgsave" };
        section.field(
            &format!("slave{index}"),
            format_args!("ip={ip},port={port},state={state},offset={offset},lag={lag},slots={slots}"),
        );
    }
    section.field("master_failover_state", "no-failover");
    section.field("master_replid", &section.services.run_id);
    section.field("master_replid2", "0".repeat(40));
    section.field("master_repl_offset", end.0);
    section.field("second_repl_offset", -1);
    section.zeros(&["repl_backlog_active", "repl_backlog_size"]);
    section.zeros(&["repl_backlog_first_byte_offset", "repl_backlog_histlen"]);
    section.field("starling_writes_lost", section.services.engine.compared.lost.load(Ordering::Relaxed));
}

fn cpu(section: &mut Section<'_>) {
    let [user, system, user_children, system_children] = cpu_seconds("/proc/self/stat");
    let [user_main, system_main, ..] = cpu_seconds("/proc/thread-self/stat");
    for (name, seconds) in [
        ("used_cpu_sys", system),
        ("used_cpu_user", user),
        ("used_cpu_sys_children", system_children),
        ("used_cpu_user_children", user_children),
        ("used_cpu_sys_main_thread", system_main),
        ("used_cpu_user_main_thread", user_main),
    ] {
        section.field(name, format!("{seconds:.6}"));
    }
}

/// User and system time of a process or thread and of its ended children, in seconds; zeros where the system does not
/// say. Connections live on many threads: as the "main" one, the thread that answers is shown.
pub(super) fn cpu_seconds(path: &str) -> [f64; 4] {
    // The kernel counts in hundredths of a second, whatever its own clock (USER_HZ).
    const TICKS_PER_SECOND: f64 = 100.0;
    let text = std::fs::read_to_string(path).unwrap_or_default();
    // The name of the program stands in brackets and may contain blanks; the times are the 12th to 15th field behind.
    let behind = text.rsplit_once(')').map_or("", |(_, behind)| behind);
    let mut times = behind.split_ascii_whitespace().skip(11);
    std::array::from_fn(|_| times.next().and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(0.0) / TICKS_PER_SECOND)
}

fn commandstats(section: &mut Section<'_>) {
    for command in table::all() {
        let [calls, microseconds, rejected, failed] = section.services.statistics.command(command.index as usize);
        // What the client takes for a command and is none ("HOST:") has a row, but no name.
        if calls + rejected + failed == 0 || command.spec.has(HIDDEN) {
            continue;
        }
        let each = microseconds as f64 / calls.max(1) as f64;
        section.field(
            &format!("cmdstat_{}", command.name),
            format_args!(
                "calls={calls},usec={microseconds},usec_per_call={each:.2},rejected_calls={rejected},\
                 failed_calls={failed}"
            ),
        );
    }
}

fn errorstats(section: &mut Section<'_>) {
    for (code, count) in section.services.statistics.errors() {
        section.field(&format!("errorstat_{code}"), format_args!("count={count}"));
    }
}

fn latencystats(section: &mut Section<'_>) {
    let config = section.services.settings.load_full();
    if !config.latency_tracking {
        return;
    }
    let words = config.text("latency-tracking-info-percentiles").split_ascii_whitespace();
    let percentiles: Vec<(&str, f64)> =
        words.map(|text| (text, text.parse::<f64>().map_or(1.0, |percent| percent / 100.0))).collect();
    for command in table::all() {
        let latencies = section.services.statistics.latencies(command.index as usize);
        if latencies.count() == 0 || command.spec.has(HIDDEN) {
            continue;
        }
        let shown = percentiles.iter().map(|(text, share)| format!("p{text}={}.000", latencies.quantile(*share)));
        let shown = shown.collect::<Vec<_>>().join(",");
        section.field(&format!("latency_percentiles_usec_{}", command.name), shown);
    }
}

fn cluster(section: &mut Section<'_>) {
    section.field("cluster_enabled", u8::from(section.services.settings.load().cluster_enabled));
}

fn keyspace(section: &mut Section<'_>) {
    let statistics = section.services.engine.statistics();
    for (database, (keys, volatile)) in statistics.databases.iter().enumerate().filter(|(_, (keys, _))| *keys > 0) {
        section.field(&format!("db{database}"), format_args!("keys={keys},expires={volatile},avg_ttl=0"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_for_people() {
        for (bytes, text) in
            [(0, "0B"), (1023, "1023B"), (1024, "1.00K"), (1 << 20, "1.00M"), (23_540_000_000, "21.92G")]
        {
            assert_eq!(human(bytes), text);
        }
    }
}
