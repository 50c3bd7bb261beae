//! File descriptors: as many as `maxclients` needs, or as many as the system gives (`ulimit -n`).

use crate::config::Config;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files, listeners, and what the runtime of the main thread needs; as many as Redis keeps.
const RESERVED: u64 = 32;
/// What the runtime of a worker needs.
const RESERVED_PER_THREAD: u64 = 4;
/// Links to other nodes, and the topology's files.
const RESERVED_IN_CLUSTER: u64 = 64;

/// What the system gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Provided {
    /// The limit that was found, and the one that holds now.
    pub before: u64,
    pub limit: u64,
    /// How many descriptors the configuration needs.
    pub needed: u64,
    /// How many clients fit; `maxclients`, or fewer.
    pub maxclients: u64,
}

/// Descriptors that no client may take.
fn reserved(config: &Config) -> u64 {
    let threads = match config.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let of_cluster = if config.cluster_enabled { RESERVED_IN_CLUSTER } else { 0 };
    RESERVED + RESERVED_PER_THREAD * threads as u64 + of_cluster
}

/// Raises the limit to what `maxclients` needs, as far as the system allows.
pub fn provide(config: &Config) -> Provided {
    let reserved = reserved(config);
    let needed = config.maxclients + reserved;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // None: no limit.
    let before = current.unwrap_or(u64::MAX);
    let mut limit = before;
    if before < needed {
        let most = maximum.unwrap_or(u64::MAX);
        // Who may raise the maximum as well gets all; everybody gets the maximum.
        for wanted in [needed, needed.min(most)] {
            let raised = Rlimit { current: Some(wanted), maximum: Some(most.max(wanted)) };
            if limit < wanted && setrlimit(Resource::Nofile, raised).is_ok() {
                limit = wanted;
            }
        }
    }
    Provided { before, limit, needed, maxclients: config.maxclients.min(limit.saturating_sub(reserved)) }
}

/// Raises the limit at the start and says in the log, in Redis's words, what is not to be had: the clients that fit.
///
/// # Errors
/// None fits.
pub fn provide_at_start(config: &Config) -> std::io::Result<u64> {
    let Provided { before, limit, needed, maxclients } = provide(config);
    if maxclients == 0 {
        return Err(std::io::Error::other(format!(
            "Your current 'ulimit -n' of {before} is not enough for the server to start. Please increase your open file \
             limit to at least {needed}. Exiting."
        )));
    }
    if maxclients < config.maxclients {
        let asked = config.maxclients;
        tracing::warn!("You requested maxclients of {asked} requiring at least {needed} max file descriptors.");
        tracing::warn!(
            "Current maximum open files is {limit}. maxclients has been reduced to {maxclients} to compensate for low \
             ulimit. If you need higher maxclients increase 'ulimit -n'."
        );
    } else if limit > before {
        tracing::info!("Increased maximum number of open files to {limit} (it was originally set to {before}).");
    }
    Ok(maxclients)
}
