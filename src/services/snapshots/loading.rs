//! The file is loaded when the node starts, and when a test asks for it (DEBUG RELOAD).

use super::Services;
use crate::base::clock;
use crate::persistence::loading::{self, LoadError, Loaded, Options, Progress};
use parking_lot::Mutex;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a node has loaded.
#[derive(Debug, Default)]
pub struct Loads {
    running: Mutex<Option<Running>>,
    pub expired: AtomicU64,
    pub keys: AtomicU64,
}

#[derive(Debug)]
struct Running {
    progress: Arc<Progress>,
    total_bytes: u64,
    began_at: u64,
    began_us: u64,
}

/// How far a load is (INFO).
#[derive(Clone, Copy, Debug)]
pub struct ShownLoad {
    /// Unix seconds.
    pub began_at: u64,
    pub total_bytes: u64,
    pub bytes: u64,
    pub elapsed_seconds: u64,
}

impl Loads {
    /// Ends the load that is under way, in the middle.
    pub fn give_up(&self) {
        if let Some(running) = &*self.running.lock() {
            running.progress.is_given_up.store(true, Ordering::Relaxed);
        }
    }

    /// The load that is under way.
    pub fn shown(&self) -> Option<ShownLoad> {
        let running = self.running.lock();
        running.as_ref().map(|running| ShownLoad {
            began_at: running.began_at,
            total_bytes: running.total_bytes,
            bytes: running.progress.bytes.load(Ordering::Relaxed),
            elapsed_seconds: clock::boot_us().saturating_sub(running.began_us) / 1_000_000,
        })
    }
}

/// The file of a node's snapshots: the process works in `dir`.
fn path(services: &Services) -> PathBuf {
    PathBuf::from(&services.settings.load().dbfilename)
}

/// Says that the node is loading, where there is a file to load.
pub fn prepare(services: &Services) {
    let path = path(services);
    if services.settings.load().appendonly && services.cluster.is_none() {
        return services.conditions.set_loading(true);
    }
    if !path.exists() {
        return;
    }
    if services.cluster.is_some() {
        return tracing::warn!("{} is not loaded: nodes of a cluster do not load files yet", path.display());
    }
    services.conditions.set_loading(true);
}

/// Loads the file, where there is one.
///
/// # Errors
/// Where the file cannot be read as a whole: its name and what is wrong. Some of its keys are there then.
pub fn load(services: &Services) -> io::Result<()> {
    let path = path(services);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            return Err(io::Error::new(error.kind(), format!("{} cannot be opened: {error}", path.display())));
        }
    };
    let loaded = run(services, file, loading_options()).map_err(|error| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{} was not loaded: {error}", path.display()))
    })?;
    services.snapshots.keep_functions(loaded.functions);
    Ok(())
}

/// Loads the file beside the keys that are there, which go first unless `keeps`. Nothing is asked of the keys meanwhile.
pub fn reload(services: &Services, keeps: bool, replaces: bool) -> Result<(), String> {
    if !keeps {
        services.engine.lock_all(0, clock::unix_us() / 1000).flush(None);
    }
    let file = File::open(path(services)).map_err(|error| error.to_string())?;
    let options = Options { replaces, now_ms: clock::unix_us() / 1000, threads: threads(), ..Options::default() };
    let loaded = run(services, file, options).map_err(|error| error.to_string())?;
    if !keeps || !loaded.functions.libraries.is_empty() {
        services.snapshots.keep_functions(loaded.functions);
    }
    Ok(())
}

/// One for each core: who finds the records has little to do beside them.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// How a file is loaded beside nothing else.
pub fn loading_options() -> Options {
    Options { sets_positions: true, now_ms: clock::unix_us() / 1000, threads: threads(), ..Options::default() }
}

/// A load that is shown while it is under way.
pub struct Load<'a> {
    loads: &'a Loads,
    pub progress: Arc<Progress>,
}

impl Load<'_> {
    /// `total_bytes`: of what is loaded.
    pub fn begin(loads: &Loads, total_bytes: u64) -> Load<'_> {
        let progress = Arc::new(Progress::default());
        let (began_at, began_us) = (clock::unix_us() / 1_000_000, clock::boot_us());
        *loads.running.lock() = Some(Running { progress: Arc::clone(&progress), total_bytes, began_at, began_us });
        Load { loads, progress }
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        *self.loads.running.lock() = None;
    }
}

fn run(services: &Services, file: File, options: Options) -> Result<Loaded, LoadError> {
    let began_us = clock::boot_us();
    let loads = &services.snapshots.loads;
    let load = Load::begin(loads, file.metadata().map_or(0, |metadata| metadata.len()));
    let loaded = loading::load(&services.engine, file, options, &load.progress);
    drop(load);
    let loaded = loaded?;
    loads.keys.store(loaded.keys, Ordering::Relaxed);
    loads.expired.store(loaded.expired, Ordering::Relaxed);
    services.snapshots.note_kept(services.engine.statistics().changes);
    if loaded.empty > 0 {
        tracing::info!(
            "Done loading RDB, keys loaded: {}, keys expired: {}, empty keys skipped: {}.",
            loaded.keys,
            loaded.expired,
            loaded.empty
        );
    } else {
        tracing::info!("Done loading RDB, keys loaded: {}, keys expired: {}.", loaded.keys, loaded.expired);
    }
    let seconds = clock::boot_us().saturating_sub(began_us) as f64 / 1e6;
    tracing::info!("DB loaded from disk: {seconds:.3} seconds");
    Ok(loaded)
}
