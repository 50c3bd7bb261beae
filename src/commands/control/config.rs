//! CONFIG: the node's parameters while it runs.

pub(super) mod agreed;

use crate::commands::context::{Control, Flow};
use crate::commands::error::CommandError;
use crate::commands::help;
use crate::commands::parse::is;
use crate::commands::spec::{
    ADMIN, Arity::*, CommandResult, CommandSpec, LOADING, NOSCRIPT, STALE, container, control,
};
use crate::config::{Config, ConfigError};
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;
use crate::services::cluster::view_options;
use crate::services::{Services, append_log};
use crate::values::Limits;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Parameters whose values no log shows.
const SECRETS: &[&str] = &["masteruser", "masterauth", "requirepass", "tls-key-file-pass", "tls-client-key-file-pass"];

const BASIC: u64 = ADMIN | NOSCRIPT | LOADING | STALE;

pub const COMMANDS: &[CommandSpec] = &[container("config", 0, 0, CONFIG)];

const CONFIG: &[CommandSpec] = &[
    control("get", AtLeast(3), BASIC, 0, get),
    control("help", Exactly(2), LOADING | STALE, 0, config_help),
    control("resetstat", Exactly(2), BASIC, 0, resetstat),
    control("set", AtLeast(4), BASIC, 0, set).tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]),
];

fn get(control: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let config = control.services.settings.load_full();
    let patterns: Vec<&[u8]> = arguments.from(2).collect();
    let found = agreed::shown(control.services, config.get(&patterns));
    reply.map(found.len());
    for (name, text) in found {
        reply.bulk(name.as_bytes());
        reply.bulk(text.as_bytes());
    }
    Ok(())
}

fn set(control: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    if arguments.len() % 2 == 1 {
        return Err(CommandError::WrongArity("config|set".into()));
    }
    let is_secret = |index: &usize| SECRETS.iter().any(|name| is(arguments.at(index - 1), name));
    control.session.secrets.extend((3..arguments.len()).step_by(2).filter(is_secret));
    let changes: Vec<(&[u8], &[u8])> =
        (2..arguments.len()).step_by(2).map(|index| (arguments.at(index), arguments.at(index + 1))).collect();
    if let Some(agreement) = agreed::agreement(control, &changes)? {
        control.flow = Flow::Later(agreement);
        return Ok(());
    }
    let (services, holds_shards) = (control.services, control.in_transaction);
    let change = |before: &Config| {
        let config = before.changed(&changes)?;
        if holds_shards && config.appendonly != before.appendonly {
            // All shards are needed for it.
            let reason = "it is not changed inside a transaction".to_owned();
            return Err(ConfigError::Invalid { name: "appendonly".to_owned(), reason });
        }
        provide_descriptors(before, &config)?;
        listen(services, before, &config)?;
        save_alone(before, &config)?;
        keep_log(services, &config)?;
        apply(services, &config);
        if config.loglevel != before.loglevel {
            crate::services::log::set_level(&config.loglevel);
        }
        for name in config.advisory(before, &changes) {
            tracing::info!("CONFIG SET {name}: accepted, has no effect here");
        }
        Ok(config)
    };
    let changed = match holds_shards {
        true => services
            .settings
            .try_change(change)
            .ok_or_else(|| CommandError::text("ERR CONFIG SET failed - another CONFIG SET is under way"))?,
        false => services.settings.change(change),
    };
    changed.map_err(refused)?;
    reply.ok();
    Ok(())
}

fn refused(error: ConfigError) -> CommandError {
    CommandError::Text(format!("ERR {error}").into())
}

/// Makes room for more clients if `maxclients` grew.
fn provide_descriptors(before: &Config, config: &Config) -> Result<(), ConfigError> {
    if config.maxclients <= before.maxclients {
        return Ok(());
    }
    let fit = crate::services::descriptors::provide(config).maxclients;
    if fit == config.maxclients {
        return Ok(());
    }
    let reason = format!("The operating system is not able to handle the specified number of clients, try with {fit}");
    Err(ConfigError::Invalid { name: "maxclients".to_owned(), reason })
}

/// Moves the listeners if `port` or `bind` changed. Where they cannot, nothing has changed.
fn listen(services: &Services, before: &Config, config: &Config) -> Result<(), ConfigError> {
    let is_moved = (config.port != before.port, config.bind != before.bind);
    let (name, reason) = match is_moved {
        (false, false) => return Ok(()),
        (true, _) => ("port", "Unable to listen on this port. Check server logs."),
        (false, true) => ("bind", "Failed to bind to specified addresses."),
    };
    let fail = |reason: &str| ConfigError::Invalid { name: name.to_owned(), reason: reason.to_owned() };
    if config.cluster_enabled {
        return Err(fail("the other nodes of the cluster know this one by it"));
    }
    services.settings.listen(config).map_err(|error| {
        tracing::warn!(%error, "the listeners stay where they are");
        fail(reason)
    })
}

/// Nodes of a cluster load no snapshots, so no rule makes them take any.
fn save_alone(before: &Config, config: &Config) -> Result<(), ConfigError> {
    if !config.cluster_enabled || config.save.is_empty() || config.save == before.save {
        return Ok(());
    }
    let reason = "nodes of a cluster load no snapshots yet: appendonly keeps what they have".to_owned();
    Err(ConfigError::Invalid { name: "save".to_owned(), reason })
}

/// Begins or ends the log, or tells it how to go on. Where it cannot be begun, nothing has changed.
fn keep_log(services: &Arc<Services>, config: &Config) -> Result<(), ConfigError> {
    append_log::configure(services, config).map_err(|error| {
        tracing::warn!(%error, "no log is kept on disk");
        let reason = match services.cluster {
            // Nothing has failed: it is not done there.
            Some(_) => error.to_string(),
            None => "Unable to turn on AOF. Check server logs.".to_owned(),
        };
        ConfigError::Invalid { name: "appendonly".to_owned(), reason }
    })
}

fn resetstat(control: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    control.services.statistics.reset();
    control.services.engine.reset_statistics();
    reply.ok();
    Ok(())
}

fn config_help(_: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    help::write(
        reply,
        "CONFIG",
        &[
            "GET <pattern>",
            "    Return parameters matching the glob-like <pattern> and their values.",
            "SET <directive> <value>",
            "    Set the configuration <directive> to <value>.",
            "RESETSTAT",
            "    Reset statistics reported by the INFO command.",
        ],
    );
    Ok(())
}

/// Hands the configuration to the parts that keep their own copy of a parameter.
pub fn apply(services: &Services, config: &Config) {
    services.slowlog.configure(config.slowlog_log_slower_than, config.slowlog_max_len);
    services.latency.set_threshold_ms(config.latency_monitor_threshold);
    services.statistics.latency_untracked.store(!config.latency_tracking, Ordering::Relaxed);
    crate::services::notifications::configure(services, &config.notify_keyspace_events);
    crate::services::eviction::configure(services, config);
    crate::services::snapshots::configure(services, config);
    services.engine.move_rate.store(config.cluster_move_rate, Ordering::Relaxed);
    let asks_for_copies = config.min_replicas_to_write > 0 && config.min_replicas_max_lag > 0;
    services.conditions.set_asks_for_copies(asks_for_copies);
    if let Some(cluster) = &services.cluster {
        cluster.set_options(view_options(config));
    }
    let limits = &config.limits;
    services.engine.set_limits(Limits {
        hash_max_listpack_entries: limits.hash_max_listpack_entries,
        hash_max_listpack_value: limits.hash_max_listpack_value,
        hll_sparse_max_bytes: limits.hll_sparse_max_bytes,
        list_max_listpack_size: limits.list_max_listpack_size,
        list_lone_element_bytes: services.engine.limits().list_lone_element_bytes,
        set_max_intset_entries: limits.set_max_intset_entries,
        set_max_listpack_entries: limits.set_max_listpack_entries,
        set_max_listpack_value: limits.set_max_listpack_value,
        zset_max_listpack_entries: limits.zset_max_listpack_entries,
        zset_max_listpack_value: limits.zset_max_listpack_value,
        stream_node_max_bytes: limits.stream_node_max_bytes,
        stream_node_max_entries: limits.stream_node_max_entries,
    });
}
