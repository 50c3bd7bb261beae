//! The node's log on disk, where it has one: begun and ended with the parameter `appendonly`, and asked while it runs.

use super::pause::Paused;
use super::snapshots::Pausing;
use super::{REDIS_VERSION, Services};
use crate::base::clock;
use crate::base::identity::Position;
use crate::base::slot::Slot;
use crate::config::Config;
use crate::engine::Engine;
use crate::engine::log::LogOffset;
use crate::persistence::directory::{self, Following, LogDirectory, Recovered};
use crate::persistence::keeper::{Figures, Fsync, Growth, Keeper, NotRewritten, Settings};
use crate::persistence::loading::Progress;
use crate::persistence::saving;
use crate::persistence::segment::Owner;
use parking_lot::Mutex;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// How long DEBUG LOADAOF waits for the disk.
const RELOAD_PATIENCE: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug, Default)]
pub struct AppendLog {
    keeper: Mutex<Option<Keeper>>,
    /// The node has what it came back with: from here on the log follows the parameters.
    has_begun: AtomicBool,
}

impl AppendLog {
    /// `None`: there is no log.
    pub fn figures(&self) -> Option<Figures> {
        self.keeper.lock().as_ref().map(Keeper::figures)
    }

    /// How far it is kept, whenever that changes; `None`: there is no log.
    pub fn kept(&self) -> Option<watch::Receiver<LogOffset>> {
        self.keeper.lock().as_ref().map(Keeper::kept)
    }

    /// Makes it shorter, and answers when that has begun; `None`: there is no log.
    pub fn rewrite(&self) -> Option<oneshot::Receiver<Result<(), NotRewritten>>> {
        self.keeper.lock().as_ref().map(Keeper::rewrite)
    }

    /// Makes it shorter as soon as that can be; false: there is no log.
    pub fn schedule(&self) -> bool {
        self.keeper.lock().as_ref().map(Keeper::schedule).is_some()
    }

    /// Writes and syncs what there is, and ends it: before the node does. What is written later is acknowledged to nobody.
    /// Whether there was a log, and all that was acknowledged is in it.
    pub fn end(&self) -> bool {
        let keeper = self.keeper.lock().take();
        keeper.is_some_and(Keeper::finish)
    }
}

/// Makes the keys that the node had: of its log where it keeps one, or else of its snapshot. It says that it is loading until
/// then. `other` loads another server's log, which takes commands to execute; whether there is one.
///
/// # Errors
/// Where what is there cannot be used: its name and what is wrong. Some of its keys are there then.
pub fn restore(services: &Arc<Services>, other: fn(&Services) -> io::Result<bool>) -> io::Result<()> {
    let config = services.settings.load_full();
    if config.appendonly && services.cluster.is_none() {
        restore_log(services, &config, other)?;
    } else {
        super::snapshots::load(services)?;
    }
    services.conditions.set_loading(false);
    begin(services);
    Ok(())
}

fn restore_log(services: &Arc<Services>, config: &Config, other: fn(&Services) -> io::Result<bool>) -> io::Result<()> {
    let directory = open(config, Owner::default())?;
    let load = super::snapshots::Load::begin(&services.snapshots.loads, directory.bytes()?);
    let mut recovered = read(&directory, &services.engine, config, &load.progress)?;
    drop(load);
    keep_functions(services, &mut recovered);
    // A log that begins now begins with what was there before.
    if recovered.is_none() && !other(services)? {
        super::snapshots::load(services)?;
    }
    let found = recovered.as_ref().map(|recovered| &recovered.found);
    let keeper = directory.follow(&services.engine).keep(found, settings(services, config))?;
    // Nothing of it is kept before it has a beginning: nobody may be told that it is.
    keeper.until_begun()?;
    *services.append_log.keeper.lock() = Some(keeper);
    Ok(())
}

/// Writes what there is, drops all keys, and makes them again of the log on disk, as a start does (DEBUG LOADAOF). Clients wait
/// meanwhile, and nothing expires.
///
/// # Errors
/// Where there is no log, or the disk does not keep it: then nothing has changed.
///
/// # Panics
/// Where what is on disk cannot be read: a start would end the process too.
pub async fn reload(services: &Arc<Services>) -> Result<(), String> {
    if services.cluster.is_some() {
        return Err("a node of a cluster reads its log at its start only".to_owned());
    }
    let _pausing = Pausing::begin(services, Paused::All);
    services.snapshots.give_up().await;
    services.conditions.set_loading(true);
    let reloaded = reload_alone(services).await;
    services.conditions.set_loading(false);
    reloaded
}

async fn reload_alone(services: &Arc<Services>) -> Result<(), String> {
    let mut kept = services.append_log.kept().ok_or("there is no log: 'appendonly' is 'no'")?;
    let all = services.engine.log.end();
    match tokio::time::timeout(RELOAD_PATIENCE, kept.wait_for(|kept| *kept >= all)).await {
        Ok(Ok(_)) => {}
        _ => return Err("the disk does not keep the log".to_owned()),
    }
    let services = Arc::clone(services);
    let read = tokio::task::spawn_blocking(move || {
        let keeper = services.append_log.keeper.lock().take().ok_or("there is no log any more")?;
        if let Err(error) = keeper.until_begun() {
            *services.append_log.keeper.lock() = Some(keeper);
            return Err(error.to_string());
        }
        drop(keeper);
        services.engine.lock_all(0, clock::unix_us() / 1000).flush(None);
        // What is read begins where the histories of the slots did.
        Slot::all().for_each(|slot| services.engine.set_position(slot, Position::default()));
        let restored = restore_log(&services, &services.settings.load_full(), |_| Ok(false));
        restored.unwrap_or_else(|error| panic!("the log that was written cannot be read: {error}"));
        Ok(())
    });
    read.await.map_err(|error| error.to_string())?
}

/// What a node of a cluster has come back with, before it has learned what is still its own.
pub struct Returned {
    following: Following,
    recovered: Option<Recovered>,
}

impl Returned {
    /// Reads the log of this node, where it keeps one, into the empty engine. Where it keeps none, a log of a former life is
    /// set aside: it says nothing of what happens now, and must not count in a later life.
    pub fn read(engine: &Arc<Engine>, config: &Config, owner: Owner) -> io::Result<Option<Returned>> {
        if !config.appendonly {
            let path = Path::new(&config.appenddirname);
            if let Some(aside) = directory::set_aside(path, &config.appendfilename, owner)? {
                let (path, aside) = (path.display(), aside.display());
                tracing::warn!(
                    "This node runs without a log ('appendonly no'): the one in {path} does not count any more, and is \
                     {aside} from now on"
                );
            }
            return Ok(None);
        }
        let directory = open(config, owner)?;
        let recovered = read(&directory, engine, config, &Progress::default())?;
        Ok(Some(Returned { following: directory.follow(engine), recovered }))
    }

    /// Whether there was a log.
    pub fn has_log(&self) -> bool {
        self.recovered.is_some()
    }

    /// Goes on with it.
    pub fn keep(mut self, services: &Arc<Services>, config: &Config) -> io::Result<()> {
        keep_functions(services, &mut self.recovered);
        let found = self.recovered.as_ref().map(|recovered| &recovered.found);
        let keeper = self.following.keep(found, settings(services, config))?;
        *services.append_log.keeper.lock() = Some(keeper);
        Ok(())
    }
}

fn keep_functions(services: &Services, recovered: &mut Option<Recovered>) {
    if let Some(recovered) = recovered {
        services.snapshots.keep_functions(std::mem::take(&mut recovered.base.functions));
    }
}

/// Makes the keys of what is in the directory.
fn read(
    directory: &LogDirectory,
    engine: &Engine,
    config: &Config,
    progress: &Progress,
) -> io::Result<Option<Recovered>> {
    let began_us = clock::boot_us();
    let options = super::snapshots::loading_options();
    let recovered = directory
        .recover(engine, config.aof_load_truncated, options, progress)
        .map_err(|broken| io::Error::new(io::ErrorKind::InvalidData, broken.to_string()))?;
    if let Some(Recovered { base, found }) = &recovered {
        let seconds = clock::boot_us().saturating_sub(began_us) as f64 / 1e6;
        let (keys, groups) = (base.keys, found.groups);
        tracing::info!("DB loaded from append only file: {seconds:.3} seconds ({keys} keys, {groups} changes)");
    }
    Ok(recovered)
}

fn open(config: &Config, owner: Owner) -> io::Result<LogDirectory> {
    // The process stands in `dir`.
    LogDirectory::open(Path::new(&config.appenddirname), &config.appendfilename, owner)
}

/// The node has what it came back with.
pub fn begin(services: &Services) {
    services.append_log.has_begun.store(true, Ordering::SeqCst);
}

/// Takes over what the configuration says. To be called by who changes it, and holds no shard where `appendonly` changes.
///
/// # Errors
/// Where the log cannot be begun: then there is none, as before.
pub fn configure(services: &Arc<Services>, config: &Config) -> io::Result<()> {
    let log = &services.append_log;
    if !log.has_begun.load(Ordering::SeqCst) {
        return Ok(());
    }
    let is_kept = match &*log.keeper.lock() {
        keeper if services.cluster.is_some() && config.appendonly != keeper.is_some() => {
            // What a log has missed would be taken for what the node has when it comes back.
            return Err(io::Error::other("a node of a cluster begins and ends its log at its start only"));
        }
        Some(keeper) if config.appendonly => {
            keeper.set_fsync(fsync(config));
            keeper.set_growth(growth(config));
            return Ok(());
        }
        keeper => keeper.is_some(),
    };
    // One at a time comes here, and both wait for shards: an EXEC that holds some may ask for the keeper meanwhile.
    let next = match config.appendonly {
        true => {
            let following = open(config, Owner::default())?.follow(&services.engine);
            Some(following.keep(None, settings(services, config))?)
        }
        false if is_kept => None,
        false => return Ok(()),
    };
    let last = std::mem::replace(&mut *log.keeper.lock(), next);
    drop(last);
    Ok(())
}

fn fsync(config: &Config) -> Fsync {
    match config.appendfsync.as_str() {
        "always" => Fsync::Always,
        "no" => Fsync::No,
        _ => Fsync::EverySecond,
    }
}

fn growth(config: &Config) -> Growth {
    Growth { percentage: config.auto_aof_rewrite_percentage, bytes_min: config.auto_aof_rewrite_min_size }
}

fn settings(services: &Arc<Services>, config: &Config) -> Settings {
    let (of_saving, of_condition) = (Arc::downgrade(services), Arc::downgrade(services));
    let saving = move || of_saving.upgrade().map(|services| saving_options(&services)).unwrap_or_default();
    let broken = move |error: Option<&str>| {
        if let Some(services) = of_condition.upgrade() {
            services.conditions.set_log_broken(error.map(str::to_owned));
        }
    };
    Settings { fsync: fsync(config), growth: growth(config), saving: Box::new(saving), broken: Box::new(broken) }
}

/// How the snapshots are written that a log begins with.
fn saving_options(services: &Services) -> saving::Options {
    let config = services.settings.load();
    saving::Options {
        redis_version: REDIS_VERSION,
        used_memory: super::memory::counted_bytes(services),
        is_base: true,
        with_checksum: config.rdbchecksum,
        compression: super::snapshots::compression(&config),
        with_idle: config.maxmemory_policy.ends_with("lru"),
        syncs_often: config.aof_rewrite_incremental_fsync,
        functions: services.snapshots.functions(),
        ..saving::Options::default()
    }
}
