//! CONFIG: the node's parameters while it runs.

use crate::config::Config;
use crate::services::Services;

/// Hands the configuration to the parts that keep their own copy of a parameter.
pub fn apply(services: &Services, config: &Config) {
    services.slowlog.configure(config.slowlog_log_slower_than, config.slowlog_max_len);
    services.latency.set_threshold_ms(config.latency_monitor_threshold);
}
