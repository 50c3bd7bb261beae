//! Configuration: one table of parameters, from which everything else follows.
//!
//! A [`Config`] is a snapshot: the text of every parameter, and the values that the node reads often, ready to read.

pub mod directives;
mod environment;
pub mod load;
pub mod parameters;
pub mod value;

use crate::base::acknowledge::Acknowledge;
use crate::base::glob;
use parameters::{Change, Effect, PARAMETERS, Parameter, find};
use std::fmt::Write;

/// How much output a class of clients may leave waiting. Bytes; 0: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputLimit {
    pub hard: u64,
    pub soft: u64,
    /// How long it may stay over the soft limit.
    pub soft_seconds: u64,
}

impl OutputLimit {
    /// Whether this many waiting bytes are too many. Remembers since when they have been over the soft limit.
    pub fn exceeded(&self, waiting: usize, now_ms: u64, over_soft_since: &mut Option<u64>) -> bool {
        let waiting = waiting as u64;
        if self.hard != 0 && waiting >= self.hard {
            return true;
        }
        if self.soft == 0 || waiting < self.soft {
            *over_soft_since = None;
            return false;
        }
        let since = *over_soft_since.get_or_insert(now_ms);
        now_ms.saturating_sub(since) > self.soft_seconds * 1000
    }
}

/// What a node does on its main port with a request that belongs to another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routing {
    /// It answers MOVED, as Redis Cluster.
    Redirect,
    /// It forwards it.
    Proxy,
}

/// What concerns the cluster. Fields have the names of their parameters, without `cluster-`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// Client addresses of nodes to join, `host:port`.
    pub join: Vec<String>,
    /// So many new nodes create a cluster together; 0: this one does not.
    pub bootstrap_expect: usize,
    /// Empty: links and gossip are accepted from loopback only.
    pub secret: Vec<u8>,
    /// Where nodes connect (TCP) and gossip is heard (UDP): `cluster-port`, or the client port and 10000; 0: that is no port.
    pub port: u16,
    /// Empty: found out.
    pub announce_ip: String,
    /// 0: `port`.
    pub announce_port: u16,
    /// 0: the cluster port.
    pub announce_bus_port: u16,
    pub announce_hostname: String,
    /// `ip`, `hostname` or `unknown-endpoint`.
    pub preferred_endpoint_type: String,
    pub require_full_coverage: bool,
    pub allow_reads_when_down: bool,
    /// How many shares of the slots the node takes.
    pub weight: u32,
    pub zone: String,
    /// The node votes, and has no slots and no copies.
    pub arbiter: bool,
    /// Copies of every slot besides its primary that the nodes of a new cluster agree on.
    pub replicas: usize,
    /// What an acknowledgement means there.
    pub acknowledge: Acknowledge,
    /// Seconds within which three fences make a probation there, and that it lasts; 0: none.
    pub probation: u64,
    /// Seconds that a node may take to hand over its slots when it is told to end.
    pub shutdown_timeout: u64,
}

/// From a client port to the cluster port of the same node, as in Redis Cluster.
pub const CLUSTER_PORT_OFFSET: u16 = 10000;

/// The text of every parameter, and what the node reads often. Fields have the names of their parameters.
#[derive(Clone, Debug)]
pub struct Config {
    /// By index in the table.
    texts: Vec<String>,
    pub port: u16,
    pub bind: Vec<String>,
    pub protected_mode: bool,
    pub requirepass: Vec<u8>,
    pub dir: String,
    /// The file of snapshots, in that directory.
    pub dbfilename: String,
    pub rdbchecksum: bool,
    pub rdbcompression: bool,
    /// What changes is written to a log, in a directory of that directory.
    pub appendonly: bool,
    pub appenddirname: String,
    /// What the names of its files begin with.
    pub appendfilename: String,
    /// When it is synced: `always`, `everysec`, `no`.
    pub appendfsync: String,
    pub aof_load_truncated: bool,
    pub aof_rewrite_incremental_fsync: bool,
    /// It is made shorter when it has grown by so much; 0: never.
    pub auto_aof_rewrite_percentage: u64,
    /// And has so many bytes.
    pub auto_aof_rewrite_min_size: u64,
    pub rdb_save_incremental_fsync: bool,
    /// Microseconds for each key that is saved: for tests.
    pub rdb_key_save_delay: u64,
    /// When snapshots are taken without being asked for.
    pub save: Vec<SaveRule>,
    pub stop_writes_on_bgsave_error: bool,
    pub shutdown_on_sigint: String,
    pub shutdown_on_sigterm: String,
    pub maxclients: u64,
    /// Seconds; 0: idle clients stay.
    pub timeout: u64,
    /// Seconds; 0: off.
    pub tcp_keepalive: u64,
    pub tcp_backlog: i32,
    /// A path; empty: no Unix socket.
    pub unixsocket: String,
    /// 0: what the process's mask leaves.
    pub unixsocketperm: u32,
    pub databases: usize,
    pub proto_max_bulk_len: u64,
    pub client_query_buffer_limit: u64,
    pub output_limit_normal: OutputLimit,
    pub output_limit_pubsub: OutputLimit,
    /// Microseconds; negative: nothing is logged.
    pub slowlog_log_slower_than: i64,
    pub slowlog_max_len: usize,
    /// Letters of the classes and channels of key events.
    pub notify_keyspace_events: String,
    /// Milliseconds; 0: off.
    pub latency_monitor_threshold: u64,
    pub latency_tracking: bool,
    /// Bytes per second; 0: no limit.
    pub cluster_move_rate: u64,
    pub min_replicas_to_write: usize,
    /// Seconds.
    pub min_replicas_max_lag: u64,
    pub hz: u64,
    pub active_expire_effort: u64,
    /// Bytes; 0: no limit.
    pub maxmemory: u64,
    pub maxmemory_policy: String,
    /// Keys drawn for each that is evicted.
    pub maxmemory_samples: usize,
    pub maxmemory_eviction_tenacity: u64,
    pub lfu_log_factor: u32,
    /// Minutes.
    pub lfu_decay_time: u32,
    pub limits: EncodingLimits,
    /// 0: one per core.
    pub threads: usize,
    /// `cluster-enabled yes`, or a parameter that makes no sense without: `join`, `bootstrap-expect`.
    pub cluster_enabled: bool,
    pub cluster: ClusterConfig,
    /// Where clients connect whose requests are forwarded; 0: nowhere.
    pub proxy_port: u16,
    pub routing: Routing,
    pub loglevel: String,
    pub logfile: String,
    pub pidfile: String,
    pub log_json: bool,
    /// The file it was read from, where there was one.
    pub file: Option<String>,
}

/// A snapshot is taken so many seconds after the last one, if there were so many changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaveRule {
    pub seconds: u64,
    pub changes: u64,
}

/// The rules of a text, which was checked.
fn save_rules(text: &str) -> Vec<SaveRule> {
    let numbers: Vec<u64> = text.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect();
    let (pairs, _) = numbers.as_chunks();
    pairs.iter().map(|&[seconds, changes]| SaveRule { seconds, changes }).collect()
}

/// Thresholds of the packed encodings, by the names of their parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodingLimits {
    pub hash_max_listpack_entries: usize,
    pub hash_max_listpack_value: usize,
    pub hll_sparse_max_bytes: usize,
    pub list_max_listpack_size: i32,
    pub set_max_intset_entries: usize,
    pub set_max_listpack_entries: usize,
    pub set_max_listpack_value: usize,
    pub zset_max_listpack_entries: usize,
    pub zset_max_listpack_value: usize,
    pub stream_node_max_bytes: usize,
    pub stream_node_max_entries: usize,
}

/// Why a configuration was refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    Unknown(String),
    Duplicate(String),
    /// The parameter, and what is wrong.
    Invalid {
        name: String,
        reason: String,
    },
}

impl std::fmt::Display for ConfigError {
    /// As Redis answers CONFIG SET, without the code.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ConfigError::Unknown(name) => {
                write!(f, "Unknown option or number of arguments for CONFIG SET - '{name}'")
            }
            ConfigError::Duplicate(name) => {
                write!(f, "CONFIG SET failed (possibly related to argument '{name}') - duplicate parameter")
            }
            ConfigError::Invalid { name, reason } => {
                write!(f, "CONFIG SET failed (possibly related to argument '{name}') - {reason}")
            }
        }
    }
}

impl std::error::Error for ConfigError {}

impl Default for Config {
    fn default() -> Config {
        Config::from_texts(PARAMETERS.iter().map(|parameter| parameter.default.to_owned()).collect(), None)
    }
}

impl Config {
    /// Reads the fields off the texts, which were checked.
    fn from_texts(texts: Vec<String>, file: Option<String>) -> Config {
        let text = |name: &str| find(name.as_bytes()).and_then(|index| texts.get(index)).map_or("", String::as_str);
        let signed = |name: &str| text(name).parse::<i64>().unwrap_or(0);
        let number = |name: &str| text(name).parse::<u64>().unwrap_or(0);
        let size = |name: &str| number(name) as usize;
        let yes = |name: &str| text(name) == "yes";
        let limits: Vec<&str> = text("client-output-buffer-limit").split(' ').collect();
        let output_limit = |class: &str| {
            let at = limits.iter().position(|word| *word == class).unwrap_or(usize::MAX - 3);
            let number = |offset: usize| limits.get(at + offset).and_then(|n| n.parse().ok()).unwrap_or(0);
            OutputLimit { hard: number(1), soft: number(2), soft_seconds: number(3) }
        };
        Config {
            port: number("port") as u16,
            bind: text("bind").split_ascii_whitespace().map(str::to_owned).collect(),
            protected_mode: yes("protected-mode"),
            requirepass: text("requirepass").as_bytes().to_vec(),
            dir: text("dir").to_owned(),
            dbfilename: text("dbfilename").to_owned(),
            rdbchecksum: yes("rdbchecksum"),
            rdbcompression: yes("rdbcompression"),
            appendonly: yes("appendonly"),
            appenddirname: text("appenddirname").to_owned(),
            appendfilename: text("appendfilename").to_owned(),
            appendfsync: text("appendfsync").to_owned(),
            aof_load_truncated: yes("aof-load-truncated"),
            aof_rewrite_incremental_fsync: yes("aof-rewrite-incremental-fsync"),
            auto_aof_rewrite_percentage: number("auto-aof-rewrite-percentage"),
            auto_aof_rewrite_min_size: number("auto-aof-rewrite-min-size"),
            rdb_save_incremental_fsync: yes("rdb-save-incremental-fsync"),
            rdb_key_save_delay: number("rdb-key-save-delay"),
            save: save_rules(text("save")),
            stop_writes_on_bgsave_error: yes("stop-writes-on-bgsave-error"),
            shutdown_on_sigint: text("shutdown-on-sigint").to_owned(),
            shutdown_on_sigterm: text("shutdown-on-sigterm").to_owned(),
            maxclients: number("maxclients"),
            timeout: number("timeout"),
            tcp_keepalive: number("tcp-keepalive"),
            tcp_backlog: signed("tcp-backlog") as i32,
            unixsocket: text("unixsocket").to_owned(),
            unixsocketperm: u32::from_str_radix(text("unixsocketperm"), 8).unwrap_or(0),
            databases: size("databases"),
            proto_max_bulk_len: number("proto-max-bulk-len"),
            client_query_buffer_limit: number("client-query-buffer-limit"),
            output_limit_normal: output_limit("normal"),
            output_limit_pubsub: output_limit("pubsub"),
            slowlog_log_slower_than: signed("slowlog-log-slower-than"),
            slowlog_max_len: size("slowlog-max-len"),
            notify_keyspace_events: text("notify-keyspace-events").to_owned(),
            latency_monitor_threshold: number("latency-monitor-threshold"),
            latency_tracking: yes("latency-tracking"),
            cluster_move_rate: number("cluster-move-rate"),
            min_replicas_to_write: size("min-replicas-to-write"),
            min_replicas_max_lag: number("min-replicas-max-lag"),
            hz: number("hz"),
            active_expire_effort: number("active-expire-effort"),
            maxmemory: number("maxmemory"),
            maxmemory_policy: text("maxmemory-policy").to_owned(),
            maxmemory_samples: size("maxmemory-samples"),
            maxmemory_eviction_tenacity: number("maxmemory-eviction-tenacity"),
            lfu_log_factor: number("lfu-log-factor") as u32,
            lfu_decay_time: number("lfu-decay-time") as u32,
            limits: EncodingLimits {
                hash_max_listpack_entries: size("hash-max-listpack-entries"),
                hash_max_listpack_value: size("hash-max-listpack-value"),
                hll_sparse_max_bytes: size("hll-sparse-max-bytes"),
                list_max_listpack_size: signed("list-max-listpack-size") as i32,
                set_max_intset_entries: size("set-max-intset-entries"),
                set_max_listpack_entries: size("set-max-listpack-entries"),
                set_max_listpack_value: size("set-max-listpack-value"),
                zset_max_listpack_entries: size("zset-max-listpack-entries"),
                zset_max_listpack_value: size("zset-max-listpack-value"),
                stream_node_max_bytes: size("stream-node-max-bytes"),
                stream_node_max_entries: size("stream-node-max-entries"),
            },
            threads: size("threads"),
            cluster_enabled: yes("cluster-enabled") || !text("join").is_empty() || size("bootstrap-expect") > 0,
            cluster: ClusterConfig {
                join: text("join").split([' ', ',']).filter(|seed| !seed.is_empty()).map(str::to_owned).collect(),
                bootstrap_expect: size("bootstrap-expect"),
                secret: text("cluster-secret").as_bytes().to_vec(),
                port: match number("cluster-port") as u16 {
                    0 => (number("port") as u16).checked_add(CLUSTER_PORT_OFFSET).unwrap_or(0),
                    port => port,
                },
                announce_ip: text("cluster-announce-ip").to_owned(),
                announce_port: number("cluster-announce-port") as u16,
                announce_bus_port: number("cluster-announce-bus-port") as u16,
                announce_hostname: text("cluster-announce-hostname").to_owned(),
                preferred_endpoint_type: text("cluster-preferred-endpoint-type").to_owned(),
                require_full_coverage: yes("cluster-require-full-coverage"),
                allow_reads_when_down: yes("cluster-allow-reads-when-down"),
                weight: number("weight") as u32,
                zone: text("zone").to_owned(),
                arbiter: yes("arbiter"),
                replicas: size("replicas"),
                acknowledge: Acknowledge::of_name(text("acknowledge").as_bytes()).unwrap_or_default(),
                probation: number("probation"),
                shutdown_timeout: number("shutdown-timeout"),
            },
            proxy_port: number("proxy-port") as u16,
            routing: if text("routing") == "proxy" { Routing::Proxy } else { Routing::Redirect },
            loglevel: text("loglevel").to_owned(),
            logfile: text("logfile").to_owned(),
            pidfile: text("pidfile").to_owned(),
            log_json: text("log-format") == "json",
            file,
            texts,
        }
    }

    /// The text of a parameter; empty for what is none.
    pub fn text(&self, name: &str) -> &str {
        find(name.as_bytes()).map_or("", |index| &self.texts[index])
    }

    /// Names and texts of the parameters of which the name matches a pattern (CONFIG GET). An alias matches by itself.
    /// What only later versions know, and what Redis hides, is shown to those who ask for it by its whole name.
    pub fn get(&self, patterns: &[&[u8]]) -> Vec<(&'static str, &str)> {
        let wanted = |name: &str| patterns.iter().any(|pattern| glob::matches_any_case(pattern, name.as_bytes()));
        let is_asked_for = |name: &str| patterns.iter().any(|pattern| pattern.eq_ignore_ascii_case(name.as_bytes()));
        let mut found = Vec::new();
        for (parameter, text) in PARAMETERS.iter().zip(&self.texts) {
            let names = std::iter::once(parameter.name).chain(parameter.alias);
            let names = names.filter(|name| !parameter.is_hidden || is_asked_for(name));
            found.extend(names.filter(|name| wanted(name)).map(|name| (name, text.as_str())));
        }
        let second = directives::second_names().filter(|(name, _)| is_asked_for(name));
        found.extend(second.map(|(name, parameter)| (name, self.text(parameter))));
        found.extend(
            directives::rows().filter(|(name, ..)| is_asked_for(name)).map(|(name, default, _)| (name, default)),
        );
        found
    }

    /// The configuration with these parameters changed at run time (CONFIG SET): all of them or none.
    pub fn changed(&self, changes: &[(&[u8], &[u8])]) -> Result<Config, ConfigError> {
        let mut texts = self.texts.clone();
        let mut seen: Vec<usize> = Vec::new();
        for (name, value) in changes {
            let shown = String::from_utf8_lossy(name).into_owned();
            let Some(index) = find(directives::canonical(&shown).as_bytes()) else {
                let default = directives::default_of(name).ok_or_else(|| ConfigError::Unknown(shown.clone()))?;
                if *value == default.as_bytes() {
                    continue;
                }
                return Err(ConfigError::Invalid { name: shown, reason: "it has no effect on this server".to_owned() });
            };
            if seen.contains(&index) {
                return Err(ConfigError::Duplicate(known_name(index, name)));
            }
            seen.push(index);
        }
        for (name, value) in changes {
            let shown = String::from_utf8_lossy(name);
            let Some(index) = find(directives::canonical(&shown).as_bytes()) else { continue };
            let value = String::from_utf8_lossy(value).into_owned();
            let text = changed_text(&PARAMETERS[index], value, &texts[index]);
            texts[index] = text.map_err(|reason| ConfigError::Invalid { name: known_name(index, name), reason })?;
        }
        Ok(Config::from_texts(texts, self.file.clone()))
    }

    /// The same, where the process stands in `directory`: what CONFIG GET shows as `dir`, wherever the client stands.
    pub fn standing_in(&self, directory: String) -> Config {
        let mut texts = self.texts.clone();
        if let Some(index) = find(b"dir") {
            texts[index] = directory;
        }
        Config::from_texts(texts, self.file.clone())
    }

    /// Parameters of these changes that were accepted and do nothing.
    pub fn advisory<'a>(&self, before: &Config, changes: &[(&'a [u8], &'a [u8])]) -> Vec<&'static str> {
        let is_advisory =
            |index: &usize| PARAMETERS[*index].effect == Effect::Advisory && self.texts[*index] != before.texts[*index];
        let found = changes.iter().filter_map(|(name, _)| find(name)).filter(is_advisory);
        found.map(|index| PARAMETERS[index].name).collect()
    }
}

/// The new text of a parameter at run time. What would not act is refused, in words.
fn changed_text(parameter: &Parameter, value: String, current: &str) -> Result<String, String> {
    // Tools set every parameter to what it is; that is no change.
    if parameter.is_own && value == current {
        return Ok(value);
    }
    match parameter.change {
        Change::Anytime | Change::AtStart => {}
        Change::Protected => return Err("can't set protected config".to_owned()),
        Change::Never => return Err("can't set immutable config".to_owned()),
    }
    let text = value::check(parameter.kind, &[value], current)?;
    if text == current {
        return Ok(text);
    }
    match parameter.effect {
        _ if parameter.change == Change::AtStart => Err("this server takes it at its start only".to_owned()),
        Effect::Missing(reason) if !parameter.is_truth(&text) => Err(reason.to_owned()),
        Effect::Acts | Effect::Advisory | Effect::Missing(_) => Ok(text),
    }
}

/// The name or alias that was meant, as the table writes it: what errors show.
fn known_name(index: usize, given: &[u8]) -> String {
    let parameter = &PARAMETERS[index];
    let alias = parameter.alias.filter(|alias| alias.as_bytes().eq_ignore_ascii_case(given));
    alias.unwrap_or(parameter.name).to_owned()
}

/// The reference of all parameters, as Markdown: `docs/configuration.md`.
pub fn documentation() -> String {
    let mut page = String::from(
        "# Configuration\n\n\
         Generated from the table of parameters (`src/config/parameters.rs`); `tests/tidy.rs` compares.\n\n\
         Starling reads `redis.conf` (`starling /path/redis.conf`), environment variables (`STARLING_MAXMEMORY=1gb`) and \
         the command line (`--maxmemory 1gb`); the later one wins. Every directive of Redis 7.0, Redis 8.0 and Valkey 9.1 is \
         known: it acts, or it is accepted and named once in the log because it has no effect here. CONFIG SET refuses what \
         would have no effect, and says why, except what is *advisory*: that only concerns speed and memory, and is accepted \
         and named in the log. To set what already holds (`appendonly no`) is always accepted. A name that they do not \
         know stops the start; a variable of such a name is only a warning, and variables that Kubernetes sets for a \
         service named `starling` (`STARLING_PORT=tcp://...`, `STARLING_SERVICE_HOST`) are ignored.\n\n\
         | parameter | default | changed by CONFIG SET | here |\n|---|---|---|---|\n",
    );
    for parameter in PARAMETERS {
        let is_refused = matches!(parameter.effect, Effect::Missing(_)) || parameter.change != Change::Anytime;
        let change = if is_refused { "no" } else { "yes" };
        let here = match (parameter.is_own, parameter.effect) {
            (true, _) => "Starling's own",
            (false, Effect::Acts) => "acts",
            (false, Effect::Advisory) => "advisory: accepted, no effect",
            (false, Effect::Missing(reason)) => &format!("no effect: {reason}"),
        };
        let default = if parameter.default.is_empty() { "(empty)" } else { parameter.default };
        let alias = parameter.alias.map_or(String::new(), |alias| format!(" (`{alias}`)"));
        let _ = writeln!(page, "| `{}`{alias} | `{default}` | {change} | {here} |", parameter.name);
    }
    page.push_str("\n## Directives of later versions\n\nAccepted at the start, named once in the log, and without effect. CONFIG GET shows the \
                   default to those who ask for the whole name; CONFIG SET takes nothing else.\n\n");
    page.push_str("| directive | since |\n|---|---|\n");
    for (name, _, since) in directives::rows() {
        let _ = writeln!(page, "| `{name}` | {since} |");
    }
    page
}
