//! Directives that are no parameters here: those of Redis 7.0 that are none there either, those that came with Redis 8.0
//! and Valkey 9.1, and second names.
//!
//! Names and defaults are those of the `config.c` and the configuration files of Redis 7.0.15, Redis 8.0.6 and Valkey
//! 9.1.2, hidden parameters among them. A configuration written for those servers starts this one.

/// Directives that are no parameters and change nothing here.
const OTHERS: &[&str] = &["loadmodule", "rename-command", "user"];

/// Second names of parameters, where a later version gave them one.
const SYNONYMS: &[(&str, &str)] = &[
    ("aof-rewrite-cpulist", "aof_rewrite_cpulist"),
    ("bgsave-cpulist", "bgsave_cpulist"),
    ("bio-cpulist", "bio_cpulist"),
    ("commandlog-execution-slower-than", "slowlog-log-slower-than"),
    ("commandlog-slow-execution-max-len", "slowlog-max-len"),
    ("primaryauth", "masterauth"),
    ("primaryuser", "masteruser"),
    ("server-cpulist", "server_cpulist"),
];

/// Name, default and the first version of those three that has it. None has an effect here.
const WITHOUT_EFFECT: &[(&str, &str, &str)] = &[
    ("active-defrag-cycle-us", "500", "Valkey 9.1"),
    ("availability-zone", "", "Valkey 9.1"),
    ("client-default-resp", "2", "Redis 8.0"),
    ("cluster-announce-client-ipv4", "", "Valkey 9.1"),
    ("cluster-announce-client-ipv6", "", "Valkey 9.1"),
    ("cluster-announce-client-port", "0", "Valkey 9.1"),
    ("cluster-announce-client-tls-port", "0", "Valkey 9.1"),
    ("cluster-announce-human-nodename", "", "Redis 8.0"),
    ("cluster-blacklist-ttl", "60", "Valkey 9.1"),
    ("cluster-compatibility-sample-ratio", "0", "Redis 8.0"),
    ("cluster-config-save-behavior", "sync", "Valkey 9.1"),
    ("cluster-databases", "1", "Valkey 9.1"),
    ("cluster-manual-failover-timeout", "5000", "Valkey 9.1"),
    ("cluster-message-gossip-perc", "10", "Valkey 9.1"),
    ("cluster-ping-interval", "0", "Redis 8.0"),
    ("cluster-slot-migration-log-max-len", "1000", "Valkey 9.1"),
    ("cluster-slot-stats-enabled", "no", "Valkey 9.1"),
    ("commandlog-large-reply-max-len", "128", "Valkey 9.1"),
    ("commandlog-large-request-max-len", "128", "Valkey 9.1"),
    ("commandlog-reply-larger-than", "1048576", "Valkey 9.1"),
    ("commandlog-request-larger-than", "1048576", "Valkey 9.1"),
    ("debug-context", "", "Valkey 9.1"),
    ("dual-channel-replication-enabled", "no", "Valkey 9.1"),
    ("enable-debug-assert", "no", "Valkey 9.1"),
    ("extended-redis-compatibility", "no", "Valkey 9.1"),
    ("hash-seed", "", "Valkey 9.1"),
    ("hide-user-data-from-log", "no", "Redis 8.0"),
    ("import-mode", "no", "Valkey 9.1"),
    ("io-threads-always-active", "no", "Valkey 9.1"),
    ("key-load-delay", "0", "Redis 7.0"),
    ("loading-process-events-interval-bytes", "2097152", "Redis 7.0"),
    ("locale-collate", "", "Redis 8.0"),
    ("log-timestamp-format", "legacy", "Valkey 9.1"),
    ("lua-enable-deprecated-api", "no", "Redis 8.0"),
    ("lua-enable-insecure-api", "no", "Valkey 9.1"),
    ("max-new-connections-per-cycle", "10", "Redis 8.0"),
    ("max-new-tls-connections-per-cycle", "1", "Redis 8.0"),
    ("min-io-threads-avoid-copy-reply", "7", "Valkey 9.1"),
    ("min-string-size-avoid-copy-reply", "16384", "Valkey 9.1"),
    ("min-string-size-avoid-copy-reply-threaded", "65536", "Valkey 9.1"),
    ("mptcp", "no", "Valkey 9.1"),
    ("prefetch-batch-max-size", "16", "Valkey 9.1"),
    ("rdb-version-check", "strict", "Valkey 9.1"),
    ("rdma-bind", "", "Valkey 9.1"),
    ("rdma-completion-vector", "-1", "Valkey 9.1"),
    ("rdma-port", "0", "Valkey 9.1"),
    ("rdma-rx-size", "1048576", "Valkey 9.1"),
    ("repl-mptcp", "no", "Valkey 9.1"),
    ("repl-rdb-channel", "yes", "Redis 8.0"),
    ("replica-full-sync-buffer-limit", "0", "Redis 8.0"),
    ("req-res-logfile", "", "Redis 8.0"),
    ("slot-migration-max-failover-repl-bytes", "0", "Valkey 9.1"),
    ("tls-auth-clients-user", "off", "Valkey 9.1"),
    ("tls-auto-reload-interval", "0", "Valkey 9.1"),
    ("unixsocketgroup", "", "Valkey 9.1"),
    ("use-exit-on-panic", "no", "Redis 7.0"),
    ("watchdog-period", "0", "Redis 7.0"),
];

/// Whether a directive is known, is no parameter, and changes nothing. In any case of letters.
pub fn is_without_effect(name: &str) -> bool {
    let is = |known: &str| known.eq_ignore_ascii_case(name);
    OTHERS.iter().any(|known| is(known)) || WITHOUT_EFFECT.iter().any(|(known, _, _)| is(known))
}

/// The default of a directive that later versions have as a parameter, and that has no effect here.
pub fn default_of(name: &[u8]) -> Option<&'static str> {
    WITHOUT_EFFECT.iter().find(|(known, _, _)| known.as_bytes().eq_ignore_ascii_case(name)).map(|row| row.1)
}

/// The parameter that a directive means: itself, or what it is a second name of.
pub fn canonical(name: &str) -> &str {
    SYNONYMS.iter().find(|(synonym, _)| synonym.eq_ignore_ascii_case(name)).map_or(name, |(_, parameter)| parameter)
}

/// Second names, and the parameters that they mean.
pub fn second_names() -> impl Iterator<Item = (&'static str, &'static str)> {
    SYNONYMS.iter().copied()
}

/// Rows of the page about the configuration: name, default, and since when.
pub fn rows() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    WITHOUT_EFFECT.iter().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parameters;

    #[test]
    fn no_directive_is_a_parameter_as_well() {
        for (name, _, _) in WITHOUT_EFFECT {
            assert!(parameters::find(name.as_bytes()).is_none(), "{name}");
        }
        for (synonym, parameter) in SYNONYMS {
            assert!(parameters::find(synonym.as_bytes()).is_none(), "{synonym}");
            assert!(parameters::find(parameter.as_bytes()).is_some(), "{parameter}");
        }
    }
}
