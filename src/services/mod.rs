//! What the connections of a node share, besides its keys: who is connected, who listens to which channel, what was
//! slow, what was counted.
//!
//! Control commands see these services; nothing here knows a command or a socket.

pub mod append_log;
pub mod clients;
pub mod cluster;
pub mod condition;
pub mod descriptors;
pub mod eviction;
pub mod hotkeys;
pub mod inbox;
pub mod latency;
pub mod log;
pub mod log_reader;
pub mod memory;
pub mod notifications;
pub mod pause;
pub mod pubsub;
pub mod settings;
pub mod slowlog;
pub mod snapshots;
pub mod statistics;
pub mod supervision;
pub mod target;
pub mod timer;

use crate::engine::Engine;
use std::sync::Arc;

/// The version of Redis whose behaviour clients may expect: they choose their features by it.
pub const REDIS_VERSION: &str = "7.2.4";

/// The services of one node.
pub struct Services {
    pub engine: Arc<Engine>,
    pub settings: settings::Settings,
    pub clients: clients::Clients,
    pub pubsub: pubsub::PubSub,
    pub slowlog: slowlog::Slowlog,
    pub hotkeys: hotkeys::Hotkeys,
    pub latency: latency::LatencyMonitor,
    pub statistics: statistics::Statistics,
    /// Bytes that connections hold, as their workers have told.
    pub held: memory::Held,
    pub eviction: eviction::Eviction,
    pub pause: pause::Pause,
    pub conditions: condition::Conditions,
    pub snapshots: snapshots::Snapshots,
    pub append_log: append_log::AppendLog,
    /// Counts what is in the log, where somebody wants to know what that costs.
    pub log_reader: log_reader::LogReader,
    pub notifications: notifications::Notifications,
    /// `None`: a standalone server.
    pub cluster: Option<Arc<cluster::Cluster>>,
    /// 40 hexadecimal digits, drawn at every start.
    pub run_id: String,
    /// Unix milliseconds.
    pub started_at_ms: u64,
    /// Raised when the process shall end (SHUTDOWN, SIGTERM).
    pub shutdown: tokio::sync::Notify,
}
