//! temporary
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputLimit { pub hard: u64, pub soft: u64, pub soft_seconds: u64 }
impl OutputLimit {
    /// Whether this many waiting bytes are too many. Remembers since when they have been over the soft limit.
    pub fn exceeded(&self, waiting: usize, now_ms: u64, over_soft_since: &mut Option<u64>) -> bool {
        let waiting = waiting as u64;
        if self.hard != 0 && waiting >= self.hard { return true; }
        if self.soft == 0 || waiting < self.soft { *over_soft_since = None; return false; }
        let since = *over_soft_since.get_or_insert(now_ms);
        now_ms.saturating_sub(since) > self.soft_seconds * 1000
    }
}
#[derive(Clone, Debug)]
pub struct Config {
    pub port: u16, pub bind: Vec<String>, pub protected_mode: bool, pub requirepass: Vec<u8>, pub dir: String,
    pub maxclients: u64, pub timeout: u64, pub tcp_keepalive: u64, pub tcp_backlog: i32, pub databases: usize,
    pub proto_max_bulk_len: u64, pub client_query_buffer_limit: u64, pub output_limit_normal: OutputLimit,
    pub output_limit_pubsub: OutputLimit, pub slowlog_log_slower_than: i64, pub slowlog_max_len: usize,
    pub latency_monitor_threshold: u64, pub hz: u64, pub active_expire_effort: u64, pub maxmemory: u64,
    pub threads: usize, pub cluster_enabled: bool, pub loglevel: String,
}
impl Default for Config { fn default() -> Config { Config {
    port: 6379, bind: vec!["127.0.0.1".into(), "-::1".into()], protected_mode: true, requirepass: Vec::new(), dir: ".".into(),
    maxclients: 10000, timeout: 0, tcp_keepalive: 300, tcp_backlog: 511, databases: 16, proto_max_bulk_len: 512 << 20,
    client_query_buffer_limit: 1 << 30, output_limit_normal: OutputLimit::default(),
    output_limit_pubsub: OutputLimit { hard: 32 << 20, soft: 8 << 20, soft_seconds: 60 },
    slowlog_log_slower_than: 10000, slowlog_max_len: 128, latency_monitor_threshold: 0, hz: 10, active_expire_effort: 1,
    maxmemory: 0, threads: 0, cluster_enabled: false, loglevel: "notice".into() } } }
