//! Snapshots of the node on its disk: taken by a thread of their own, when a client or a rule asks for one, and at the end;
//! and loaded at the start.
//!
//! One is taken at a time. Whoever waits for it is told how it ended.

mod loading;

pub use loading::{Load, Loads, load, loading_options, prepare, reload};

use super::Services;
use super::pause::{self, Paused};
use crate::base::clock;
use crate::config::Config;
use crate::persistence::disk::Directory;
use crate::persistence::loading::Functions;
use crate::persistence::saving::{self, Compression, Options, Progress};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;

/// Seconds to wait after a snapshot that failed, before a rule asks for the next.
const RETRY_SECONDS: u64 = 5;

/// The snapshots of a node.
#[derive(Debug)]
pub struct Snapshots {
    state: Mutex<State>,
    /// Changes that are in the last file, as the engine counts them.
    kept_changes: AtomicU64,
    pub loads: Loads,
    functions: Mutex<Arc<Functions>>,
}

#[derive(Debug)]
struct State {
    running: Option<Running>,
    /// One is asked for when the running one has ended.
    is_scheduled: bool,
    has_failed: bool,
    /// Unix seconds: of the last file, and of the last try.
    saved_at: u64,
    tried_at: u64,
    /// Seconds that the last one took.
    took: Option<u64>,
    saves: u64,
}

/// A snapshot that is being taken.
#[derive(Debug)]
struct Running {
    progress: Arc<Progress>,
    /// Nobody waits for it.
    is_in_background: bool,
    began_us: u64,
    /// How it ended; an error is in the log.
    ended: watch::Receiver<Option<bool>>,
}

/// What is shown of them (INFO).
#[derive(Clone, Copy, Debug, Default)]
pub struct Shown {
    pub is_running: bool,
    pub keys: u64,
    pub total: u64,
    pub running_seconds: Option<u64>,
    pub took_seconds: Option<u64>,
    pub saved_at: u64,
    pub has_failed: bool,
    pub saves: u64,
}

/// Another one is being taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

/// A snapshot under way: whether it succeeds.
pub struct Saving(watch::Receiver<Option<bool>>);

impl Saving {
    pub async fn has_succeeded(mut self) -> bool {
        self.0.wait_for(Option::is_some).await.is_ok_and(|ended| *ended == Some(true))
    }
}

impl Default for Snapshots {
    fn default() -> Snapshots {
        let now = clock::unix_us() / 1_000_000;
        Snapshots {
            state: Mutex::new(State {
                running: None,
                is_scheduled: false,
                has_failed: false,
                saved_at: now,
                tried_at: 0,
                took: None,
                saves: 0,
            }),
            kept_changes: AtomicU64::new(0),
            loads: Loads::default(),
            functions: Mutex::default(),
        }
    }
}

impl Snapshots {
    pub fn shown(&self) -> Shown {
        let state = self.state.lock();
        let running = state.running.as_ref().filter(|running| running.is_in_background);
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Shown {
            is_running: running.is_some(),
            keys: running.map_or(0, |running| read(&running.progress.keys)),
            total: running.map_or(0, |running| read(&running.progress.total)),
            running_seconds: running.map(|running| clock::boot_us().saturating_sub(running.began_us) / 1_000_000),
            took_seconds: state.took,
            saved_at: state.saved_at,
            has_failed: state.has_failed,
            saves: state.saves,
        }
    }

    /// Asks for another one when the running one has ended.
    pub fn schedule(&self) {
        self.state.lock().is_scheduled = true;
    }

    /// Changes that are not in the last file.
    pub fn changes(&self, services: &Services) -> u64 {
        services.engine.statistics().changes.saturating_sub(self.kept_changes.load(Ordering::Relaxed))
    }

    /// All that has changed so far is in a file.
    pub fn note_kept(&self, changes: u64) {
        self.kept_changes.store(changes, Ordering::Relaxed);
    }

    /// Libraries of functions that were loaded: what is saved has them too.
    pub fn functions(&self) -> Arc<Functions> {
        Arc::clone(&self.functions.lock())
    }

    /// Keeps what was loaded, in place of what was before.
    pub fn keep_functions(&self, functions: Functions) {
        let Functions { libraries, left_out, .. } = &functions;
        if !libraries.is_empty() {
            let count = libraries.len();
            tracing::warn!("{count} libraries of functions are kept for what is saved: this server runs none yet");
        }
        if *left_out > 0 {
            tracing::warn!("{left_out} libraries of functions were left out: together they are too long");
        }
        *self.functions.lock() = Arc::new(functions);
    }

    /// Gives up the one that is being taken, and waits until that is done.
    pub async fn give_up(&self) {
        let ended = self.state.lock().running.as_ref().map(|running| {
            running.progress.is_given_up.store(true, Ordering::Relaxed);
            running.ended.clone()
        });
        if let Some(ended) = ended {
            Saving(ended).has_succeeded().await;
        }
    }
}

/// Begins a snapshot.
///
/// # Errors
/// Where one is under way.
pub fn begin(services: &Arc<Services>, is_in_background: bool) -> Result<Saving, Busy> {
    let (sender, ended) = watch::channel(None);
    let progress = Arc::new(Progress::default());
    {
        let mut state = services.snapshots.state.lock();
        if state.running.is_some() {
            return Err(Busy);
        }
        let began_us = clock::boot_us();
        state.is_scheduled = false;
        state.tried_at = clock::unix_us() / 1_000_000;
        state.running =
            Some(Running { progress: Arc::clone(&progress), is_in_background, began_us, ended: ended.clone() });
    }
    if is_in_background {
        tracing::info!("Background saving started");
    }
    let taker = Arc::clone(services);
    let spawned = std::thread::Builder::new().name("snapshot".to_owned()).spawn(move || {
        let result = take(&taker, &progress, is_in_background);
        finish(&taker, result, &sender);
    });
    if let Err(error) = spawned {
        // The sender went with the thread that is not there: who waits is told that it failed.
        let (sender, _) = watch::channel(None);
        finish(services, Err(error), &sender);
    }
    Ok(Saving(ended))
}

/// Takes a snapshot of all keys, and gives the changes that are in it.
fn take(services: &Services, progress: &Progress, is_in_background: bool) -> io::Result<u64> {
    let config = services.settings.load_full();
    // The process works in `dir`.
    let disk = Directory::open(".")?;
    // What changes between this and the cut is in the file, and counts as if it were not.
    let changes = services.engine.statistics().changes;
    let mut snapshot = services.engine.begin_snapshot().map_err(io::Error::other)?;
    let options = Options {
        redis_version: super::REDIS_VERSION,
        used_memory: super::memory::counted_bytes(services),
        is_base: false,
        with_checksum: config.rdbchecksum,
        compression: compression(&config),
        with_idle: config.maxmemory_policy.ends_with("lru"),
        syncs_often: config.rdb_save_incremental_fsync,
        // Nobody waits for it, then.
        key_delay_us: if is_in_background { config.rdb_key_save_delay } else { 0 },
        fields: services.cluster.as_ref().map(|cluster| cluster.names()).unwrap_or_default(),
        functions: services.snapshots.functions(),
    };
    saving::save(&services.engine, &mut snapshot, &disk, &config.dbfilename, &options, progress)?;
    Ok(changes)
}

/// What `rdbcompression` says.
pub fn compression(config: &Config) -> Compression {
    if config.rdbcompression { Compression::WhereSmaller } else { Compression::None }
}

/// Notes how a snapshot ended, and tells who waits.
fn finish(services: &Services, result: io::Result<u64>, sender: &watch::Sender<Option<bool>>) {
    let has_succeeded = result.is_ok();
    {
        let mut state = services.snapshots.state.lock();
        let running = state.running.take();
        let is_in_background = running.as_ref().is_some_and(|running| running.is_in_background);
        let is_given_up = running.as_ref().is_some_and(|running| running.progress.is_given_up.load(Ordering::Relaxed));
        let began_us = running.map_or(0, |running| running.began_us);
        match &result {
            Ok(changes) => {
                services.snapshots.note_kept(*changes);
                state.saved_at = clock::unix_us() / 1_000_000;
                tracing::info!("DB saved on disk");
                if is_in_background {
                    tracing::info!("Background saving terminated with success");
                }
            }
            Err(error) if is_given_up => tracing::warn!("The snapshot was given up: {error}"),
            Err(error) => tracing::warn!("Error saving the DB on disk: {error}"),
        }
        if is_in_background {
            state.saves += 1;
            state.took = Some(clock::boot_us().saturating_sub(began_us) / 1_000_000);
        }
        // Who waits for one is told how it ended, and writes go on, as in Redis; what was given up says nothing about the disk.
        let is_noted = has_succeeded || is_in_background && !is_given_up;
        if is_noted {
            state.has_failed = !has_succeeded;
        }
        // Before anybody sees how it ended.
        let stops = stops_writes(&services.settings.load());
        services.conditions.set_snapshots_broken(stops && state.has_failed);
    }
    sender.send_replace(Some(has_succeeded));
}

/// Takes over what the configuration says.
pub fn configure(services: &Services, config: &Config) {
    let state = services.snapshots.state.lock();
    services.conditions.set_snapshots_broken(stops_writes(config) && state.has_failed);
}

/// Whether writes stop where snapshots fail.
fn stops_writes(config: &Config) -> bool {
    config.stop_writes_on_bgsave_error && has_rules(config)
}

/// Whether snapshots are taken without being asked for. Nodes of a cluster do not load what they have saved, so far: by
/// themselves they save nothing.
pub fn has_rules(config: &Config) -> bool {
    !config.save.is_empty() && !config.cluster_enabled
}

/// Begins a snapshot where a rule asks for it, or a client has. Called now and then.
pub fn keep_rules(services: &Arc<Services>) {
    let config = services.settings.load();
    let now = clock::unix_us() / 1_000_000;
    {
        let state = services.snapshots.state.lock();
        if state.running.is_some() || services.conditions.is_loading() {
            return;
        }
        if !state.is_scheduled {
            if !has_rules(&config) || state.has_failed && now.saturating_sub(state.tried_at) <= RETRY_SECONDS {
                return;
            }
            let changes = services.snapshots.changes(services);
            let since = now.saturating_sub(state.saved_at);
            let due = config.save.iter().find(|rule| changes >= rule.changes && since > rule.seconds);
            let Some(due) = due else { return };
            tracing::info!("{} changes in {} seconds. Saving...", due.changes, due.seconds);
        }
    }
    drop(config);
    // Somebody may have been faster.
    let _ = begin(services, true);
}

/// Takes a snapshot in place of one under way. Whether it succeeds.
pub async fn save_now(services: &Arc<Services>) -> bool {
    loop {
        services.snapshots.give_up().await;
        if let Ok(saving) = begin(services, false) {
            return saving.has_succeeded().await;
        }
    }
}

/// Whether the node takes a snapshot before it ends: if somebody says so, or there are rules.
pub fn saves_before_end(services: &Services, saves: Option<bool>) -> bool {
    // What is loaded is in a file, and what was loaded so far is less.
    !services.conditions.is_loading() && saves.unwrap_or_else(|| has_rules(&services.settings.load()))
}

/// Takes the last snapshot before the node ends, where one is wanted; nobody writes from here on. False: it failed, and the
/// node goes on, unless the end is forced.
pub async fn save_before_end(services: &Arc<Services>, saves: Option<bool>, is_forced: bool) -> bool {
    if !saves_before_end(services, saves) {
        services.snapshots.give_up().await;
        return true;
    }
    tracing::info!("Saving the final RDB snapshot before exiting.");
    let pausing = Pausing::begin(services, Paused::Writes);
    if save_now(services).await || is_forced {
        // Until the very end.
        std::mem::forget(pausing);
        return true;
    }
    tracing::warn!("Error trying to save the DB, can't exit.");
    false
}

/// Clients wait for as long as this lives.
pub struct Pausing {
    services: Arc<Services>,
}

impl Pausing {
    /// Longer than anything takes that clients are to wait for.
    const MILLISECONDS: u64 = 24 * 3600 * 1000;

    pub fn begin(services: &Arc<Services>, who: Paused) -> Pausing {
        let now_ms = clock::unix_us() / 1000;
        pause::begin(services, who, now_ms + Pausing::MILLISECONDS, now_ms);
        Pausing { services: Arc::clone(services) }
    }
}

impl Drop for Pausing {
    fn drop(&mut self) {
        pause::end(&self.services);
    }
}
