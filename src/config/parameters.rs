//! Every parameter, a row each: Redis 7's, and Starling's own.
//!
//! Names, types, bounds and defaults of Redis's parameters are what redis-server 7.0.15 answers to CONFIG GET and to
//! CONFIG SET with a wrong value; a test compares them. Thresholds of packed encodings are Redis 7.2's.
//! This file is long because it is one table.

use super::value::Kind;
use crate::base::acknowledge::Acknowledge;

/// When a parameter may be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// By CONFIG SET too.
    Anytime,
    /// By CONFIG SET only where `enable-protected-configs` allows it, which it never does here.
    Protected,
    /// Only before the start. Redis changes it at run time too, so CONFIG SET takes the value that it has.
    AtStart,
    /// Only before the start.
    Never,
}

/// What a parameter does here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Acts,
    /// Nothing. It would concern speed and memory only, so it is accepted, and named in the log.
    Advisory,
    /// Nothing, for this reason. A start accepts it and names it in the log; CONFIG SET refuses it, since somebody who
    /// sets it at run time relies on it.
    Missing(&'static str),
}

/// A row of the table.
#[derive(Debug)]
pub struct Parameter {
    pub name: &'static str,
    /// An older name for the same.
    pub alias: Option<&'static str>,
    pub kind: Kind,
    pub default: &'static str,
    pub change: Change,
    pub effect: Effect,
    /// Redis does not know it.
    pub is_own: bool,
    /// CONFIG GET shows it only to those who ask for its whole name, as Redis does.
    pub is_hidden: bool,
}

const fn acts(name: &'static str, kind: Kind, default: &'static str, change: Change) -> Parameter {
    Parameter { name, alias: None, kind, default, change, effect: Effect::Acts, is_own: false, is_hidden: false }
}

const fn advisory(name: &'static str, kind: Kind, default: &'static str, change: Change) -> Parameter {
    Parameter { name, alias: None, kind, default, change, effect: Effect::Advisory, is_own: false, is_hidden: false }
}

const fn missing(
    reason: &'static str,
    name: &'static str,
    kind: Kind,
    default: &'static str,
    change: Change,
) -> Parameter {
    Parameter {
        name,
        alias: None,
        kind,
        default,
        change,
        effect: Effect::Missing(reason),
        is_own: false,
        is_hidden: false,
    }
}

const fn own(name: &'static str, kind: Kind, default: &'static str, change: Change) -> Parameter {
    Parameter { name, alias: None, kind, default, change, effect: Effect::Acts, is_own: true, is_hidden: false }
}

// Why parameters have no effect: what CONFIG SET answers.
const ACL: &str = "this server has no access control lists yet";
const CLIENT_EVICTION: &str = "this server does not evict clients yet";
const CLUSTER: &str = "this server's cluster does this in its own way";
const CRASHES: &str = "this server writes no crash reports";
/// Redis's words where it is built without its own allocator.
const DEFRAGMENTATION: &str = "Active defragmentation cannot be enabled: it requires a Redis server compiled with a modified \
                               Jemalloc like the one shipped by default with the Redis source distribution";
const FOREGROUND: &str = "this server stays in the foreground";
const MODULES: &str = "this server has no modules";
const OOM_SCORE: &str = "this server does not adjust its OOM score yet";
const PROTECTED: &str = "this server never changes protected configs";
const LOG_FILES: &str = "this server removes files of its log that are of no use any more";
const LOG_FORM: &str = "the log of this server always begins with an RDB file";
const LOG_SYNCS: &str = "this server syncs its log as appendfsync says, whatever else it writes";
const REPLICATION: &str = "copies are the cluster's own, see `replicas`";
const SCRIPTS: &str = "this server runs no scripts yet";
const SOCKET: &str = "this server does not do this yet";
const SYSLOG: &str = "this server does not write to syslog";
const TITLE: &str = "this server does not set its title yet";
const TLS: &str = "this server has no TLS yet";
const TRACKING: &str = "this server does not track keys for clients yet";

impl Parameter {
    const fn alias(mut self, alias: &'static str) -> Parameter {
        self.alias = Some(alias);
        self
    }

    const fn hidden(mut self) -> Parameter {
        self.is_hidden = true;
        self
    }

    /// What a parameter without effect may say truthfully: that what is missing is off.
    pub fn is_truth(&self, text: &str) -> bool {
        text == self.default
    }
}

/// All parameters, by name.
pub const PARAMETERS: &[Parameter] = &[
    missing(
        ACL,
        "acl-pubsub-default",
        Kind::Choice(&["allchannels", "resetchannels"]),
        "resetchannels",
        Change::Anytime,
    ),
    own("acknowledge", Kind::Choice(Acknowledge::NAMES), "async", Change::Anytime),
    missing(ACL, "aclfile", Kind::Text, "", Change::Never),
    missing(ACL, "acllog-max-len", Kind::Integer { least: 0, greatest: i64::MAX }, "128", Change::Anytime),
    advisory("active-defrag-cycle-max", Kind::Integer { least: 1, greatest: 99 }, "25", Change::Anytime),
    advisory("active-defrag-cycle-min", Kind::Integer { least: 1, greatest: 99 }, "1", Change::Anytime),
    advisory("active-defrag-ignore-bytes", Kind::Memory { least: 1, greatest: i64::MAX }, "104857600", Change::Anytime),
    advisory("active-defrag-max-scan-fields", Kind::Integer { least: 1, greatest: i64::MAX }, "1000", Change::Anytime),
    advisory("active-defrag-threshold-lower", Kind::Integer { least: 0, greatest: 1000 }, "10", Change::Anytime),
    advisory("active-defrag-threshold-upper", Kind::Integer { least: 0, greatest: 1000 }, "100", Change::Anytime),
    acts("active-expire-effort", Kind::Integer { least: 1, greatest: 10 }, "1", Change::Anytime),
    missing(DEFRAGMENTATION, "activedefrag", Kind::Bool, "no", Change::Anytime),
    advisory("activerehashing", Kind::Bool, "yes", Change::Anytime),
    advisory("always-show-logo", Kind::Bool, "no", Change::Never),
    missing(LOG_FILES, "aof-disable-auto-gc", Kind::Bool, "no", Change::Anytime),
    acts("aof-load-truncated", Kind::Bool, "yes", Change::Anytime),
    acts("aof-rewrite-incremental-fsync", Kind::Bool, "yes", Change::Anytime),
    advisory("aof-timestamp-enabled", Kind::Bool, "no", Change::Anytime),
    missing(LOG_FORM, "aof-use-rdb-preamble", Kind::Bool, "yes", Change::Anytime),
    advisory("aof_rewrite_cpulist", Kind::Text, "", Change::Never),
    acts("appenddirname", Kind::FileName, "appendonlydir", Change::Never),
    acts("appendfilename", Kind::FileName, "appendonly.aof", Change::Never),
    acts("appendfsync", Kind::Choice(&["everysec", "always", "no"]), "everysec", Change::Anytime),
    acts("appendonly", Kind::Bool, "no", Change::Anytime),
    own("arbiter", Kind::Bool, "no", Change::Never),
    acts("auto-aof-rewrite-min-size", Kind::Memory { least: 0, greatest: i64::MAX }, "67108864", Change::Anytime),
    acts("auto-aof-rewrite-percentage", Kind::Integer { least: 0, greatest: 2147483647 }, "100", Change::Anytime),
    advisory("bgsave_cpulist", Kind::Text, "", Change::Never),
    acts("bind", Kind::Words, "127.0.0.1 -::1", Change::Anytime),
    missing(REPLICATION, "bind-source-addr", Kind::Text, "", Change::Anytime),
    advisory("bio_cpulist", Kind::Text, "", Change::Never),
    own("bootstrap-expect", Kind::Integer { least: 0, greatest: 1000 }, "0", Change::Never),
    missing(SCRIPTS, "busy-reply-threshold", Kind::Integer { least: 0, greatest: i64::MAX }, "5000", Change::Anytime)
        .alias("lua-time-limit"),
    acts(
        "client-output-buffer-limit",
        Kind::OutputLimits,
        "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
        Change::Anytime,
    ),
    acts(
        "client-query-buffer-limit",
        Kind::Memory { least: 1048576, greatest: i64::MAX },
        "1073741824",
        Change::Anytime,
    ),
    missing(CLUSTER, "cluster-allow-pubsubshard-when-down", Kind::Bool, "yes", Change::Anytime),
    acts("cluster-allow-reads-when-down", Kind::Bool, "no", Change::Anytime),
    missing(CLUSTER, "cluster-allow-replica-migration", Kind::Bool, "yes", Change::Anytime),
    acts("cluster-announce-bus-port", Kind::Integer { least: 0, greatest: 65535 }, "0", Change::AtStart),
    acts("cluster-announce-hostname", Kind::Text, "", Change::AtStart),
    acts("cluster-announce-ip", Kind::Text, "", Change::AtStart),
    acts("cluster-announce-port", Kind::Integer { least: 0, greatest: 65535 }, "0", Change::AtStart),
    missing(TLS, "cluster-announce-tls-port", Kind::Integer { least: 0, greatest: 65535 }, "0", Change::Anytime),
    missing(CLUSTER, "cluster-config-file", Kind::Text, "nodes.conf", Change::Never),
    acts("cluster-enabled", Kind::Bool, "no", Change::Never),
    missing(CLUSTER, "cluster-link-sendbuf-limit", Kind::Memory { least: 0, greatest: i64::MAX }, "0", Change::Anytime),
    missing(
        CLUSTER,
        "cluster-migration-barrier",
        Kind::Integer { least: 0, greatest: 2147483647 },
        "1",
        Change::Anytime,
    ),
    own("cluster-move-rate", Kind::Memory { least: 0, greatest: i64::MAX }, "0", Change::Anytime),
    missing(CLUSTER, "cluster-node-timeout", Kind::Integer { least: 0, greatest: i64::MAX }, "15000", Change::Anytime),
    acts("cluster-port", Kind::Integer { least: 0, greatest: 65535 }, "0", Change::Never),
    acts(
        "cluster-preferred-endpoint-type",
        Kind::Choice(&["ip", "hostname", "unknown-endpoint"]),
        "ip",
        Change::Anytime,
    ),
    missing(CLUSTER, "cluster-replica-no-failover", Kind::Bool, "no", Change::Anytime)
        .alias("cluster-slave-no-failover"),
    missing(
        CLUSTER,
        "cluster-replica-validity-factor",
        Kind::Integer { least: 0, greatest: 2147483647 },
        "10",
        Change::Anytime,
    )
    .alias("cluster-slave-validity-factor"),
    acts("cluster-require-full-coverage", Kind::Bool, "no", Change::Anytime),
    own("cluster-secret", Kind::Text, "", Change::Never),
    missing(CRASHES, "crash-log-enabled", Kind::Bool, "yes", Change::Anytime),
    missing(CRASHES, "crash-memcheck-enabled", Kind::Bool, "yes", Change::Anytime),
    missing(FOREGROUND, "daemonize", Kind::Bool, "no", Change::Never),
    acts("databases", Kind::Integer { least: 1, greatest: 2147483647 }, "16", Change::Never),
    acts("dbfilename", Kind::FileName, "dump.rdb", Change::Protected),
    acts("dir", Kind::Text, ".", Change::Protected),
    advisory("disable-thp", Kind::Bool, "yes", Change::Never),
    advisory("dynamic-hz", Kind::Bool, "yes", Change::Anytime),
    acts("enable-debug-command", Kind::Choice(&["no", "yes", "local"]), "local", Change::Never),
    missing(MODULES, "enable-module-command", Kind::Choice(&["no", "yes", "local"]), "no", Change::Never),
    missing(PROTECTED, "enable-protected-configs", Kind::Choice(&["no", "yes", "local"]), "no", Change::Never),
    acts("hash-max-listpack-entries", Kind::Integer { least: 0, greatest: i64::MAX }, "512", Change::Anytime)
        .alias("hash-max-ziplist-entries"),
    acts("hash-max-listpack-value", Kind::Memory { least: 0, greatest: i64::MAX }, "64", Change::Anytime)
        .alias("hash-max-ziplist-value"),
    acts("hll-sparse-max-bytes", Kind::Memory { least: 0, greatest: i64::MAX }, "3000", Change::Anytime),
    acts("hz", Kind::Integer { least: 0, greatest: 2147483647 }, "10", Change::Anytime),
    advisory("ignore-warnings", Kind::Text, "", Change::Anytime),
    advisory("io-threads", Kind::Integer { least: 1, greatest: 128 }, "1", Change::Never),
    advisory("io-threads-do-reads", Kind::Bool, "no", Change::Never),
    advisory("jemalloc-bg-thread", Kind::Bool, "yes", Change::Anytime),
    own("join", Kind::Words, "", Change::Never),
    acts("latency-monitor-threshold", Kind::Integer { least: 0, greatest: i64::MAX }, "0", Change::Anytime),
    acts("latency-tracking", Kind::Bool, "yes", Change::Anytime),
    acts("latency-tracking-info-percentiles", Kind::Percentiles, "50 99 99.9", Change::Anytime),
    advisory("lazyfree-lazy-eviction", Kind::Bool, "no", Change::Anytime),
    advisory("lazyfree-lazy-expire", Kind::Bool, "no", Change::Anytime),
    advisory("lazyfree-lazy-server-del", Kind::Bool, "no", Change::Anytime),
    advisory("lazyfree-lazy-user-del", Kind::Bool, "no", Change::Anytime),
    advisory("lazyfree-lazy-user-flush", Kind::Bool, "no", Change::Anytime),
    acts("lfu-decay-time", Kind::Integer { least: 0, greatest: 2147483647 }, "1", Change::Anytime),
    acts("lfu-log-factor", Kind::Integer { least: 0, greatest: 2147483647 }, "10", Change::Anytime),
    advisory("list-compress-depth", Kind::Integer { least: 0, greatest: 2147483647 }, "0", Change::Anytime),
    acts("list-max-listpack-size", Kind::Integer { least: -2147483648, greatest: 2147483647 }, "-2", Change::Anytime)
        .alias("list-max-ziplist-size"),
    own("log-format", Kind::Choice(&["text", "json", "legacy", "logfmt"]), "text", Change::Never),
    acts("logfile", Kind::Text, "", Change::Never),
    acts("loglevel", Kind::Choice(&["debug", "verbose", "notice", "warning", "nothing"]), "notice", Change::Anytime),
    acts("masterauth", Kind::Text, "", Change::Anytime),
    acts("masteruser", Kind::Text, "", Change::Anytime),
    acts("maxclients", Kind::Integer { least: 1, greatest: 4294967295 }, "10000", Change::Anytime),
    acts("maxmemory", Kind::Memory { least: 0, greatest: i64::MAX }, "0", Change::Anytime),
    missing(CLIENT_EVICTION, "maxmemory-clients", Kind::Text, "0", Change::Anytime),
    acts("maxmemory-eviction-tenacity", Kind::Integer { least: 0, greatest: 100 }, "10", Change::Anytime),
    acts(
        "maxmemory-policy",
        Kind::Choice(&[
            "volatile-lru",
            "volatile-lfu",
            "volatile-random",
            "volatile-ttl",
            "allkeys-lru",
            "allkeys-lfu",
            "allkeys-random",
            "noeviction",
        ]),
        "noeviction",
        Change::Anytime,
    ),
    acts("maxmemory-samples", Kind::Integer { least: 1, greatest: 2147483647 }, "5", Change::Anytime),
    acts("min-replicas-max-lag", Kind::Integer { least: 0, greatest: 2147483647 }, "10", Change::Anytime)
        .alias("min-slaves-max-lag"),
    acts("min-replicas-to-write", Kind::Integer { least: 0, greatest: 2147483647 }, "0", Change::Anytime)
        .alias("min-slaves-to-write"),
    missing(LOG_SYNCS, "no-appendfsync-on-rewrite", Kind::Bool, "no", Change::Anytime),
    acts("notify-keyspace-events", Kind::EventClasses, "", Change::Anytime),
    missing(OOM_SCORE, "oom-score-adj", Kind::Choice(&["no", "yes", "relative", "absolute"]), "no", Change::Anytime),
    missing(OOM_SCORE, "oom-score-adj-values", Kind::Words, "0 200 800", Change::Anytime),
    acts("pidfile", Kind::Text, "", Change::Never),
    acts("port", Kind::Integer { least: 0, greatest: 65535 }, "6379", Change::Anytime),
    own("probation", Kind::Integer { least: 0, greatest: 86400 }, "300", Change::Anytime),
    missing(TITLE, "proc-title-template", Kind::Text, "{title} {listen-addr} {server-mode}", Change::Anytime),
    missing(
        REPLICATION,
        "propagation-error-behavior",
        Kind::Choice(&["ignore", "panic", "panic-on-replicas"]),
        "ignore",
        Change::Anytime,
    ),
    acts("protected-mode", Kind::Bool, "yes", Change::Anytime),
    acts("proto-max-bulk-len", Kind::Memory { least: 1048576, greatest: i64::MAX }, "536870912", Change::Anytime),
    own("proxy-port", Kind::Integer { least: 0, greatest: 65535 }, "0", Change::Never),
    missing(REPLICATION, "rdb-del-sync-files", Kind::Bool, "no", Change::Anytime),
    acts("rdb-key-save-delay", Kind::Integer { least: -2147483648, greatest: 2147483647 }, "0", Change::Anytime)
        .hidden(),
    acts("rdb-save-incremental-fsync", Kind::Bool, "yes", Change::Anytime),
    acts("rdbchecksum", Kind::Bool, "yes", Change::Never),
    acts("rdbcompression", Kind::Bool, "yes", Change::Anytime),
    missing(
        REPLICATION,
        "repl-backlog-size",
        Kind::Memory { least: 1, greatest: i64::MAX },
        "1048576",
        Change::Anytime,
    ),
    missing(REPLICATION, "repl-backlog-ttl", Kind::Integer { least: 0, greatest: i64::MAX }, "3600", Change::Anytime),
    missing(REPLICATION, "repl-disable-tcp-nodelay", Kind::Bool, "no", Change::Anytime),
    missing(
        REPLICATION,
        "repl-diskless-load",
        Kind::Choice(&["disabled", "on-empty-db", "swapdb", "flush-before-load"]),
        "disabled",
        Change::Anytime,
    ),
    missing(REPLICATION, "repl-diskless-sync", Kind::Bool, "yes", Change::Anytime),
    missing(
        REPLICATION,
        "repl-diskless-sync-delay",
        Kind::Integer { least: 0, greatest: 2147483647 },
        "5",
        Change::Anytime,
    ),
    missing(
        REPLICATION,
        "repl-diskless-sync-max-replicas",
        Kind::Integer { least: 0, greatest: 2147483647 },
        "0",
        Change::Anytime,
    ),
    missing(
        REPLICATION,
        "repl-ping-replica-period",
        Kind::Integer { least: 1, greatest: 2147483647 },
        "10",
        Change::Anytime,
    )
    .alias("repl-ping-slave-period"),
    missing(REPLICATION, "repl-timeout", Kind::Integer { least: 1, greatest: 2147483647 }, "60", Change::Anytime),
    missing(REPLICATION, "replica-announce-ip", Kind::Text, "", Change::Anytime).alias("slave-announce-ip"),
    missing(REPLICATION, "replica-announce-port", Kind::Integer { least: 0, greatest: 65535 }, "0", Change::Anytime)
        .alias("slave-announce-port"),
    missing(REPLICATION, "replica-announced", Kind::Bool, "yes", Change::Anytime),
    missing(REPLICATION, "replica-ignore-disk-write-errors", Kind::Bool, "no", Change::Anytime),
    missing(REPLICATION, "replica-ignore-maxmemory", Kind::Bool, "yes", Change::Anytime)
        .alias("slave-ignore-maxmemory"),
    missing(REPLICATION, "replica-lazy-flush", Kind::Bool, "no", Change::Anytime).alias("slave-lazy-flush"),
    missing(REPLICATION, "replica-priority", Kind::Integer { least: 0, greatest: 2147483647 }, "100", Change::Anytime)
        .alias("slave-priority"),
    missing(REPLICATION, "replica-read-only", Kind::Bool, "yes", Change::Anytime).alias("slave-read-only"),
    missing(REPLICATION, "replica-serve-stale-data", Kind::Bool, "yes", Change::Anytime)
        .alias("slave-serve-stale-data"),
    missing(REPLICATION, "replicaof", Kind::Text, "", Change::Never).alias("slaveof"),
    own("replicas", Kind::Integer { least: 0, greatest: 4 }, "2", Change::Anytime),
    acts("requirepass", Kind::Text, "", Change::Anytime),
    own("routing", Kind::Choice(&["redirect", "proxy"]), "redirect", Change::Never),
    // Payloads and files are always checked in full.
    advisory("sanitize-dump-payload", Kind::Choice(&["no", "yes", "clients"]), "no", Change::Anytime),
    acts("save", Kind::SavePoints, "3600 1 300 100 60 10000", Change::Anytime),
    advisory("server_cpulist", Kind::Text, "", Change::Never),
    acts("set-max-intset-entries", Kind::Integer { least: 0, greatest: i64::MAX }, "512", Change::Anytime),
    acts("set-max-listpack-entries", Kind::Integer { least: 0, greatest: i64::MAX }, "128", Change::Anytime),
    acts("set-max-listpack-value", Kind::Memory { least: 0, greatest: i64::MAX }, "64", Change::Anytime),
    missing(TITLE, "set-proc-title", Kind::Bool, "yes", Change::Never),
    acts(
        "shutdown-on-sigint",
        Kind::Choice(&["default", "save", "nosave", "now", "force"]),
        "default",
        Change::Anytime,
    ),
    acts(
        "shutdown-on-sigterm",
        Kind::Choice(&["default", "save", "nosave", "now", "force"]),
        "default",
        Change::Anytime,
    ),
    acts("shutdown-timeout", Kind::Integer { least: 0, greatest: 2147483647 }, "10", Change::Anytime),
    acts("slowlog-log-slower-than", Kind::Integer { least: -1, greatest: i64::MAX }, "10000", Change::Anytime),
    acts("slowlog-max-len", Kind::Integer { least: 0, greatest: i64::MAX }, "128", Change::Anytime),
    missing(SOCKET, "socket-mark-id", Kind::Integer { least: 0, greatest: 4294967295 }, "0", Change::Never),
    acts("stop-writes-on-bgsave-error", Kind::Bool, "yes", Change::Anytime),
    acts("stream-node-max-bytes", Kind::Memory { least: 0, greatest: i64::MAX }, "4096", Change::Anytime),
    acts("stream-node-max-entries", Kind::Integer { least: 0, greatest: i64::MAX }, "100", Change::Anytime),
    acts("supervised", Kind::Choice(&["no", "upstart", "systemd", "auto"]), "no", Change::Never),
    missing(SYSLOG, "syslog-enabled", Kind::Bool, "no", Change::Never),
    missing(SYSLOG, "syslog-facility", Kind::Text, "local0", Change::Never),
    missing(SYSLOG, "syslog-ident", Kind::Text, "starling", Change::Never),
    acts("tcp-backlog", Kind::Integer { least: 0, greatest: 2147483647 }, "511", Change::Never),
    acts("tcp-keepalive", Kind::Integer { least: 0, greatest: 2147483647 }, "300", Change::Anytime),
    own("threads", Kind::Integer { least: 0, greatest: 1024 }, "0", Change::Never),
    acts("timeout", Kind::Integer { least: 0, greatest: 2147483647 }, "0", Change::Anytime),
    missing(TLS, "tls-auth-clients", Kind::Choice(&["no", "yes", "optional"]), "yes", Change::Anytime),
    missing(TLS, "tls-ca-cert-dir", Kind::Text, "", Change::Anytime),
    missing(TLS, "tls-ca-cert-file", Kind::Text, "", Change::Anytime),
    missing(TLS, "tls-cert-file", Kind::Text, "", Change::Anytime),
    missing(TLS, "tls-ciphers", Kind::Text, "", Change::Anytime),
    missing(TLS, "tls-ciphersuites", Kind::Text, "", Change::Anytime),
    missing(TLS, "tls-client-cert-file", Kind::Text, "", Change::Anytime),
    missing(TLS, "tls-client-key-file", Kind::Text, "", Change::Anytime),
    missing(TLS, "tls-client-key-file-pass", Kind::Text, "", Change::Anytime),
    missing(TLS, "tls-cluster", Kind::Bool, "no", Change::Anytime),
    missing(TLS, "tls-dh-params-file", Kind::Text, "", Change::Anytime),
    missing(TLS, "tls-key-file", Kind::Text, "", Change::Anytime),
    missing(TLS, "tls-key-file-pass", Kind::Text, "", Change::Anytime),
    missing(TLS, "tls-port", Kind::Integer { least: 0, greatest: 65535 }, "0", Change::Anytime),
    missing(TLS, "tls-prefer-server-ciphers", Kind::Bool, "no", Change::Anytime),
    missing(TLS, "tls-protocols", Kind::Text, "", Change::Anytime),
    missing(TLS, "tls-replication", Kind::Bool, "no", Change::Anytime),
    missing(TLS, "tls-session-cache-size", Kind::Integer { least: 0, greatest: 2147483647 }, "20480", Change::Anytime),
    missing(TLS, "tls-session-cache-timeout", Kind::Integer { least: 0, greatest: 2147483647 }, "300", Change::Anytime),
    missing(TLS, "tls-session-caching", Kind::Bool, "yes", Change::Anytime),
    missing(
        TRACKING,
        "tracking-table-max-keys",
        Kind::Integer { least: 0, greatest: i64::MAX },
        "1000000",
        Change::Anytime,
    ),
    acts("unixsocket", Kind::Text, "", Change::Never),
    acts("unixsocketperm", Kind::Mode, "0", Change::Never),
    own("weight", Kind::Integer { least: 1, greatest: 100 }, "1", Change::Never),
    own("zone", Kind::Text, "", Change::Never),
    acts("zset-max-listpack-entries", Kind::Integer { least: 0, greatest: i64::MAX }, "128", Change::Anytime)
        .alias("zset-max-ziplist-entries"),
    acts("zset-max-listpack-value", Kind::Memory { least: 0, greatest: i64::MAX }, "64", Change::Anytime)
        .alias("zset-max-ziplist-value"),
];

/// Values with which the node does not start, since whoever sets them would wait for what never comes: name, value, and
/// what to do instead.
pub const REFUSED: &[(&str, &str, &str)] = &[
    (
        "daemonize",
        "yes",
        "This server stays in the foreground and would keep the script waiting that starts it. Say 'daemonize no', and let \
         a service manager run it ('supervised systemd'), or the shell: 'setsid starling ... &'",
    ),
    ("supervised", "upstart", "This server speaks to systemd only: say 'supervised systemd', 'auto' or 'no'"),
];

/// The index of the parameter with this name or alias, in any case.
pub fn find(name: &[u8]) -> Option<usize> {
    PARAMETERS.iter().position(|parameter| {
        parameter.name.as_bytes().eq_ignore_ascii_case(name)
            || parameter.alias.is_some_and(|alias| alias.as_bytes().eq_ignore_ascii_case(name))
    })
}
