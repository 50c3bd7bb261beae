//! Every parameter, a row each: Redis 7's, and Starling's own.
//!
//! Names, types, bounds and defaults of Redis's parameters are what redis-server 7.0.15 answers to CONFIG GET and to
//! CONFIG SET with a wrong value; a test compares them. Thresholds of packed encodings are Redis 7.2's.
//! This file is long because it is one table.

use super::value::Kind;

/// When a parameter may be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// By CONFIG SET too.
    Anytime,
    /// By CONFIG SET only where `enable-protected-configs` allows it, which it never does here.
    Protected,
    /// Only before the start.
    Never,
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
    /// False: accepted, because Redis knows it, but it changes nothing here.
    pub is_honoured: bool,
    /// Redis does not know it.
    pub is_own: bool,
}

const fn honoured(name: &'static str, kind: Kind, default: &'static str, change: Change) -> Parameter {
    Parameter { name, alias: None, kind, default, change, is_honoured: true, is_own: false }
}

const fn accepted(name: &'static str, kind: Kind, default: &'static str, change: Change) -> Parameter {
    Parameter { name, alias: None, kind, default, change, is_honoured: false, is_own: false }
}

const fn own(name: &'static str, kind: Kind, default: &'static str, change: Change) -> Parameter {
    Parameter { name, alias: None, kind, default, change, is_honoured: true, is_own: true }
}

impl Parameter {
    const fn alias(mut self, alias: &'static str) -> Parameter {
        self.alias = Some(alias);
        self
    }
}

/// All parameters, by name.
pub const PARAMETERS: &[Parameter] = &[
    accepted("acl-pubsub-default", Kind::Choice(&["allchannels", "resetchannels"]), "resetchannels", Change::Anytime),
    accepted("aclfile", Kind::Text, "", Change::Never),
    accepted("acllog-max-len", Kind::Integer { least: 0, greatest: i64::MAX }, "128", Change::Anytime),
    accepted("active-defrag-cycle-max", Kind::Integer { least: 1, greatest: 99 }, "25", Change::Anytime),
    accepted("active-defrag-cycle-min", Kind::Integer { least: 1, greatest: 99 }, "1", Change::Anytime),
    accepted("active-defrag-ignore-bytes", Kind::Memory { least: 1, greatest: i64::MAX }, "104857600", Change::Anytime),
    accepted("active-defrag-max-scan-fields", Kind::Integer { least: 1, greatest: i64::MAX }, "1000", Change::Anytime),
    accepted("active-defrag-threshold-lower", Kind::Integer { least: 0, greatest: 1000 }, "10", Change::Anytime),
    accepted("active-defrag-threshold-upper", Kind::Integer { least: 0, greatest: 1000 }, "100", Change::Anytime),
    honoured("active-expire-effort", Kind::Integer { least: 1, greatest: 10 }, "1", Change::Anytime),
    accepted("activedefrag", Kind::Bool, "no", Change::Anytime),
    accepted("activerehashing", Kind::Bool, "yes", Change::Anytime),
    accepted("always-show-logo", Kind::Bool, "no", Change::Never),
    accepted("aof-disable-auto-gc", Kind::Bool, "no", Change::Anytime),
    accepted("aof-load-truncated", Kind::Bool, "yes", Change::Anytime),
    accepted("aof-rewrite-incremental-fsync", Kind::Bool, "yes", Change::Anytime),
    accepted("aof-timestamp-enabled", Kind::Bool, "no", Change::Anytime),
    accepted("aof-use-rdb-preamble", Kind::Bool, "yes", Change::Anytime),
    accepted("aof_rewrite_cpulist", Kind::Text, "", Change::Never),
    accepted("appenddirname", Kind::Text, "appendonlydir", Change::Never),
    accepted("appendfilename", Kind::Text, "appendonly.aof", Change::Never),
    accepted("appendfsync", Kind::Choice(&["everysec", "always", "no"]), "everysec", Change::Anytime),
    accepted("appendonly", Kind::Bool, "no", Change::Anytime),
    accepted("auto-aof-rewrite-min-size", Kind::Memory { least: 0, greatest: i64::MAX }, "67108864", Change::Anytime),
    accepted("auto-aof-rewrite-percentage", Kind::Integer { least: 0, greatest: 2147483647 }, "100", Change::Anytime),
    accepted("bgsave_cpulist", Kind::Text, "", Change::Never),
    honoured("bind", Kind::Words, "127.0.0.1 -::1", Change::Anytime),
    accepted("bind-source-addr", Kind::Text, "", Change::Anytime),
    accepted("bio_cpulist", Kind::Text, "", Change::Never),
    own("bootstrap-expect", Kind::Integer { least: 0, greatest: 1000 }, "0", Change::Never),
    accepted("busy-reply-threshold", Kind::Integer { least: 0, greatest: i64::MAX }, "5000", Change::Anytime)
        .alias("lua-time-limit"),
    honoured(
        "client-output-buffer-limit",
        Kind::OutputLimits,
        "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
        Change::Anytime,
    ),
    honoured(
        "client-query-buffer-limit",
        Kind::Memory { least: 1048576, greatest: i64::MAX },
        "1073741824",
        Change::Anytime,
    ),
    accepted("cluster-allow-pubsubshard-when-down", Kind::Bool, "yes", Change::Anytime),
    honoured("cluster-allow-reads-when-down", Kind::Bool, "no", Change::Anytime),
    accepted("cluster-allow-replica-migration", Kind::Bool, "yes", Change::Anytime),
    honoured("cluster-announce-bus-port", Kind::Integer { least: 0, greatest: 65535 }, "0", Change::Anytime),
    honoured("cluster-announce-hostname", Kind::Text, "", Change::Anytime),
    honoured("cluster-announce-ip", Kind::Text, "", Change::Anytime),
    honoured("cluster-announce-port", Kind::Integer { least: 0, greatest: 65535 }, "0", Change::Anytime),
    accepted("cluster-announce-tls-port", Kind::Integer { least: 0, greatest: 65535 }, "0", Change::Anytime),
    accepted("cluster-config-file", Kind::Text, "nodes.conf", Change::Never),
    honoured("cluster-enabled", Kind::Bool, "no", Change::Never),
    accepted("cluster-link-sendbuf-limit", Kind::Memory { least: 0, greatest: i64::MAX }, "0", Change::Anytime),
    accepted("cluster-migration-barrier", Kind::Integer { least: 0, greatest: 2147483647 }, "1", Change::Anytime),
    accepted("cluster-node-timeout", Kind::Integer { least: 0, greatest: i64::MAX }, "15000", Change::Anytime),
    honoured("cluster-port", Kind::Integer { least: 0, greatest: 65535 }, "0", Change::Never),
    honoured(
        "cluster-preferred-endpoint-type",
        Kind::Choice(&["ip", "hostname", "unknown-endpoint"]),
        "ip",
        Change::Anytime,
    ),
    accepted("cluster-replica-no-failover", Kind::Bool, "no", Change::Anytime).alias("cluster-slave-no-failover"),
    accepted(
        "cluster-replica-validity-factor",
        Kind::Integer { least: 0, greatest: 2147483647 },
        "10",
        Change::Anytime,
    )
    .alias("cluster-slave-validity-factor"),
    honoured("cluster-require-full-coverage", Kind::Bool, "no", Change::Anytime),
    own("cluster-secret", Kind::Text, "", Change::Never),
    accepted("crash-log-enabled", Kind::Bool, "yes", Change::Anytime),
    accepted("crash-memcheck-enabled", Kind::Bool, "yes", Change::Anytime),
    accepted("daemonize", Kind::Bool, "no", Change::Never),
    honoured("databases", Kind::Integer { least: 1, greatest: 2147483647 }, "16", Change::Never),
    accepted("dbfilename", Kind::Text, "dump.rdb", Change::Protected),
    honoured("dir", Kind::Text, ".", Change::Protected),
    accepted("disable-thp", Kind::Bool, "yes", Change::Never),
    accepted("dynamic-hz", Kind::Bool, "yes", Change::Anytime),
    honoured("enable-debug-command", Kind::Choice(&["no", "yes", "local"]), "local", Change::Never),
    accepted("enable-module-command", Kind::Choice(&["no", "yes", "local"]), "no", Change::Never),
    accepted("enable-protected-configs", Kind::Choice(&["no", "yes", "local"]), "no", Change::Never),
    honoured("hash-max-listpack-entries", Kind::Integer { least: 0, greatest: i64::MAX }, "512", Change::Anytime)
        .alias("hash-max-ziplist-entries"),
    honoured("hash-max-listpack-value", Kind::Memory { least: 0, greatest: i64::MAX }, "64", Change::Anytime)
        .alias("hash-max-ziplist-value"),
    accepted("hll-sparse-max-bytes", Kind::Memory { least: 0, greatest: i64::MAX }, "3000", Change::Anytime),
    honoured("hz", Kind::Integer { least: 0, greatest: 2147483647 }, "10", Change::Anytime),
    accepted("ignore-warnings", Kind::Text, "", Change::Anytime),
    accepted("io-threads", Kind::Integer { least: 1, greatest: 128 }, "1", Change::Never),
    accepted("io-threads-do-reads", Kind::Bool, "no", Change::Never),
    accepted("jemalloc-bg-thread", Kind::Bool, "yes", Change::Anytime),
    own("join", Kind::Words, "", Change::Never),
    honoured("latency-monitor-threshold", Kind::Integer { least: 0, greatest: i64::MAX }, "0", Change::Anytime),
    honoured("latency-tracking", Kind::Bool, "yes", Change::Anytime),
    accepted("latency-tracking-info-percentiles", Kind::Words, "50 99 99.9", Change::Anytime),
    accepted("lazyfree-lazy-eviction", Kind::Bool, "no", Change::Anytime),
    accepted("lazyfree-lazy-expire", Kind::Bool, "no", Change::Anytime),
    accepted("lazyfree-lazy-server-del", Kind::Bool, "no", Change::Anytime),
    accepted("lazyfree-lazy-user-del", Kind::Bool, "no", Change::Anytime),
    accepted("lazyfree-lazy-user-flush", Kind::Bool, "no", Change::Anytime),
    accepted("lfu-decay-time", Kind::Integer { least: 0, greatest: 2147483647 }, "1", Change::Anytime),
    accepted("lfu-log-factor", Kind::Integer { least: 0, greatest: 2147483647 }, "10", Change::Anytime),
    accepted("list-compress-depth", Kind::Integer { least: 0, greatest: 2147483647 }, "0", Change::Anytime),
    honoured(
        "list-max-listpack-size",
        Kind::Integer { least: -2147483648, greatest: 2147483647 },
        "-2",
        Change::Anytime,
    )
    .alias("list-max-ziplist-size"),
    own("log-format", Kind::Choice(&["text", "json", "legacy"]), "text", Change::Never),
    honoured("logfile", Kind::Text, "", Change::Never),
    honoured(
        "loglevel",
        Kind::Choice(&["debug", "verbose", "notice", "warning", "nothing"]),
        "notice",
        Change::Anytime,
    ),
    honoured("masterauth", Kind::Text, "", Change::Anytime),
    honoured("masteruser", Kind::Text, "", Change::Anytime),
    honoured("maxclients", Kind::Integer { least: 1, greatest: 4294967295 }, "10000", Change::Anytime),
    honoured("maxmemory", Kind::Memory { least: 0, greatest: i64::MAX }, "0", Change::Anytime),
    accepted("maxmemory-clients", Kind::Text, "0", Change::Anytime),
    accepted("maxmemory-eviction-tenacity", Kind::Integer { least: 0, greatest: 100 }, "10", Change::Anytime),
    accepted(
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
    accepted("maxmemory-samples", Kind::Integer { least: 1, greatest: 2147483647 }, "5", Change::Anytime),
    accepted("min-replicas-max-lag", Kind::Integer { least: 0, greatest: 2147483647 }, "10", Change::Anytime)
        .alias("min-slaves-max-lag"),
    accepted("min-replicas-to-write", Kind::Integer { least: 0, greatest: 2147483647 }, "0", Change::Anytime)
        .alias("min-slaves-to-write"),
    accepted("no-appendfsync-on-rewrite", Kind::Bool, "no", Change::Anytime),
    accepted("notify-keyspace-events", Kind::EventClasses, "", Change::Anytime),
    accepted("oom-score-adj", Kind::Choice(&["no", "yes", "relative", "absolute"]), "no", Change::Anytime),
    accepted("oom-score-adj-values", Kind::Words, "0 200 800", Change::Anytime),
    honoured("pidfile", Kind::Text, "", Change::Never),
    honoured("port", Kind::Integer { least: 0, greatest: 65535 }, "6379", Change::Anytime),
    accepted("proc-title-template", Kind::Text, "{title} {listen-addr} {server-mode}", Change::Anytime),
    accepted(
        "propagation-error-behavior",
        Kind::Choice(&["ignore", "panic", "panic-on-replicas"]),
        "ignore",
        Change::Anytime,
    ),
    honoured("protected-mode", Kind::Bool, "yes", Change::Anytime),
    honoured("proto-max-bulk-len", Kind::Memory { least: 1048576, greatest: i64::MAX }, "536870912", Change::Anytime),
    own("proxy-port", Kind::Integer { least: 0, greatest: 65535 }, "0", Change::Never),
    accepted("rdb-del-sync-files", Kind::Bool, "no", Change::Anytime),
    accepted("rdb-save-incremental-fsync", Kind::Bool, "yes", Change::Anytime),
    accepted("rdbchecksum", Kind::Bool, "yes", Change::Never),
    accepted("rdbcompression", Kind::Bool, "yes", Change::Anytime),
    accepted("repl-backlog-size", Kind::Memory { least: 1, greatest: i64::MAX }, "1048576", Change::Anytime),
    accepted("repl-backlog-ttl", Kind::Integer { least: 0, greatest: i64::MAX }, "3600", Change::Anytime),
    accepted("repl-disable-tcp-nodelay", Kind::Bool, "no", Change::Anytime),
    accepted(
        "repl-diskless-load",
        Kind::Choice(&["disabled", "on-empty-db", "swapdb", "flush-before-load"]),
        "disabled",
        Change::Anytime,
    ),
    accepted("repl-diskless-sync", Kind::Bool, "yes", Change::Anytime),
    accepted("repl-diskless-sync-delay", Kind::Integer { least: 0, greatest: 2147483647 }, "5", Change::Anytime),
    accepted("repl-diskless-sync-max-replicas", Kind::Integer { least: 0, greatest: 2147483647 }, "0", Change::Anytime),
    accepted("repl-ping-replica-period", Kind::Integer { least: 1, greatest: 2147483647 }, "10", Change::Anytime)
        .alias("repl-ping-slave-period"),
    accepted("repl-timeout", Kind::Integer { least: 1, greatest: 2147483647 }, "60", Change::Anytime),
    accepted("replica-announce-ip", Kind::Text, "", Change::Anytime).alias("slave-announce-ip"),
    accepted("replica-announce-port", Kind::Integer { least: 0, greatest: 65535 }, "0", Change::Anytime)
        .alias("slave-announce-port"),
    accepted("replica-announced", Kind::Bool, "yes", Change::Anytime),
    accepted("replica-ignore-disk-write-errors", Kind::Bool, "no", Change::Anytime),
    accepted("replica-ignore-maxmemory", Kind::Bool, "yes", Change::Anytime).alias("slave-ignore-maxmemory"),
    accepted("replica-lazy-flush", Kind::Bool, "no", Change::Anytime).alias("slave-lazy-flush"),
    accepted("replica-priority", Kind::Integer { least: 0, greatest: 2147483647 }, "100", Change::Anytime)
        .alias("slave-priority"),
    accepted("replica-read-only", Kind::Bool, "yes", Change::Anytime).alias("slave-read-only"),
    accepted("replica-serve-stale-data", Kind::Bool, "yes", Change::Anytime).alias("slave-serve-stale-data"),
    accepted("replicaof", Kind::Text, "", Change::Never).alias("slaveof"),
    honoured("requirepass", Kind::Text, "", Change::Anytime),
    own("routing", Kind::Choice(&["redirect", "proxy"]), "redirect", Change::Never),
    accepted("sanitize-dump-payload", Kind::Choice(&["no", "yes", "clients"]), "no", Change::Anytime),
    accepted("save", Kind::SavePoints, "3600 1 300 100 60 10000", Change::Anytime),
    accepted("server_cpulist", Kind::Text, "", Change::Never),
    honoured("set-max-intset-entries", Kind::Integer { least: 0, greatest: i64::MAX }, "512", Change::Anytime),
    honoured("set-max-listpack-entries", Kind::Integer { least: 0, greatest: i64::MAX }, "128", Change::Anytime),
    honoured("set-max-listpack-value", Kind::Memory { least: 0, greatest: i64::MAX }, "64", Change::Anytime),
    accepted("set-proc-title", Kind::Bool, "yes", Change::Never),
    accepted(
        "shutdown-on-sigint",
        Kind::Choice(&["default", "save", "nosave", "now", "force"]),
        "default",
        Change::Anytime,
    ),
    accepted(
        "shutdown-on-sigterm",
        Kind::Choice(&["default", "save", "nosave", "now", "force"]),
        "default",
        Change::Anytime,
    ),
    honoured("shutdown-timeout", Kind::Integer { least: 0, greatest: 2147483647 }, "10", Change::Anytime),
    honoured("slowlog-log-slower-than", Kind::Integer { least: -1, greatest: i64::MAX }, "10000", Change::Anytime),
    honoured("slowlog-max-len", Kind::Integer { least: 0, greatest: i64::MAX }, "128", Change::Anytime),
    accepted("socket-mark-id", Kind::Integer { least: 0, greatest: 4294967295 }, "0", Change::Never),
    accepted("stop-writes-on-bgsave-error", Kind::Bool, "yes", Change::Anytime),
    accepted("stream-node-max-bytes", Kind::Memory { least: 0, greatest: i64::MAX }, "4096", Change::Anytime),
    accepted("stream-node-max-entries", Kind::Integer { least: 0, greatest: i64::MAX }, "100", Change::Anytime),
    accepted("supervised", Kind::Choice(&["no", "upstart", "systemd", "auto"]), "no", Change::Never),
    accepted("syslog-enabled", Kind::Bool, "no", Change::Never),
    accepted("syslog-facility", Kind::Text, "local0", Change::Never),
    accepted("syslog-ident", Kind::Text, "starling", Change::Never),
    honoured("tcp-backlog", Kind::Integer { least: 0, greatest: 2147483647 }, "511", Change::Never),
    honoured("tcp-keepalive", Kind::Integer { least: 0, greatest: 2147483647 }, "300", Change::Anytime),
    own("threads", Kind::Integer { least: 0, greatest: 1024 }, "0", Change::Never),
    honoured("timeout", Kind::Integer { least: 0, greatest: 2147483647 }, "0", Change::Anytime),
    accepted("tls-auth-clients", Kind::Choice(&["no", "yes", "optional"]), "yes", Change::Anytime),
    accepted("tls-ca-cert-dir", Kind::Text, "", Change::Anytime),
    accepted("tls-ca-cert-file", Kind::Text, "", Change::Anytime),
    accepted("tls-cert-file", Kind::Text, "", Change::Anytime),
    accepted("tls-ciphers", Kind::Text, "", Change::Anytime),
    accepted("tls-ciphersuites", Kind::Text, "", Change::Anytime),
    accepted("tls-client-cert-file", Kind::Text, "", Change::Anytime),
    accepted("tls-client-key-file", Kind::Text, "", Change::Anytime),
    accepted("tls-client-key-file-pass", Kind::Text, "", Change::Anytime),
    accepted("tls-cluster", Kind::Bool, "no", Change::Anytime),
    accepted("tls-dh-params-file", Kind::Text, "", Change::Anytime),
    accepted("tls-key-file", Kind::Text, "", Change::Anytime),
    accepted("tls-key-file-pass", Kind::Text, "", Change::Anytime),
    accepted("tls-port", Kind::Integer { least: 0, greatest: 65535 }, "0", Change::Anytime),
    accepted("tls-prefer-server-ciphers", Kind::Bool, "no", Change::Anytime),
    accepted("tls-protocols", Kind::Text, "", Change::Anytime),
    accepted("tls-replication", Kind::Bool, "no", Change::Anytime),
    accepted("tls-session-cache-size", Kind::Integer { least: 0, greatest: 2147483647 }, "20480", Change::Anytime),
    accepted("tls-session-cache-timeout", Kind::Integer { least: 0, greatest: 2147483647 }, "300", Change::Anytime),
    accepted("tls-session-caching", Kind::Bool, "yes", Change::Anytime),
    accepted("tracking-table-max-keys", Kind::Integer { least: 0, greatest: i64::MAX }, "1000000", Change::Anytime),
    accepted("unixsocket", Kind::Text, "", Change::Never),
    accepted("unixsocketperm", Kind::Integer { least: 0, greatest: 511 }, "0", Change::Never),
    own("weight", Kind::Integer { least: 1, greatest: 100 }, "1", Change::Never),
    own("zone", Kind::Text, "", Change::Never),
    honoured("zset-max-listpack-entries", Kind::Integer { least: 0, greatest: i64::MAX }, "128", Change::Anytime)
        .alias("zset-max-ziplist-entries"),
    honoured("zset-max-listpack-value", Kind::Memory { least: 0, greatest: i64::MAX }, "64", Change::Anytime)
        .alias("zset-max-ziplist-value"),
];

/// The index of the parameter with this name or alias, in any case.
pub fn find(name: &[u8]) -> Option<usize> {
    PARAMETERS.iter().position(|parameter| {
        parameter.name.as_bytes().eq_ignore_ascii_case(name)
            || parameter.alias.is_some_and(|alias| alias.as_bytes().eq_ignore_ascii_case(name))
    })
}
