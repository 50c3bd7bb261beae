//! A node that keeps a log, and finds none of its own but one of Redis's, begins with what is in that. Nothing of it is
//! changed: the node's own log is written beside it, and goes before it from then on.
//!
//! | what is there | what happens |
//! |---|---|
//! | a manifest of Redis's in `appenddirname` | its base, and the commands of its other files |
//! | only a file `appendfilename` in `dir`, as before Redis 7.0 | a snapshot at its beginning, if there is one, and its commands |
//! | the last file ends in the middle of a command, or of a transaction | that does not count (`aof-load-truncated`) |
//! | another file does, or something is no command, or none that can be executed here | the node does not start: file and byte |

use crate::base::clock;
use crate::commands::replay::Replay;
use crate::engine::Engine;
use crate::persistence::disk::Directory;
use crate::persistence::loading::{self, Functions, Options, Progress};
use crate::persistence::redis_log::RedisLog;
use crate::persistence::redis_log::commands::{Commands, Fault, Item};
use crate::persistence::saving;
use crate::services::Services;
use crate::services::snapshots::{self, Load};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Databases of a log that is no server's: as many as are likely.
const DATABASES_MAX: usize = 256;
/// Commands between two looks at whether to go on.
const COMMANDS_UNWATCHED: u64 = 1024;

/// Loads Redis's log, where the configuration names one that is there; false: there is none.
///
/// # Errors
/// Where it cannot be used: file, byte, and what is wrong. Some of its keys are there then.
pub(super) fn load(services: &Services) -> io::Result<bool> {
    let config = services.settings.load_full();
    let directory = Path::new(&config.dir);
    let manifest = directory.join(&config.appenddirname).join(format!("{}.manifest", config.appendfilename));
    let single = directory.join(&config.appendfilename);
    let (path, log) = if manifest.exists() {
        let log = RedisLog::open(&manifest)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", manifest.display())))?;
        (manifest, log)
    } else if single.is_file() {
        let log = RedisLog::single(&single);
        (single, log)
    } else {
        return Ok(false);
    };
    tracing::info!("Loading the log of Redis, {}", path.display());
    load_files(services, &log, config.aof_load_truncated)?;
    Ok(true)
}

fn load_files(services: &Services, log: &RedisLog, cuts_torn: bool) -> io::Result<()> {
    let total: u64 = log.files().filter_map(|file| Some(file.metadata().ok()?.len())).sum();
    let began_us = clock::boot_us();
    let load = Load::begin(&services.snapshots.loads, total);
    let Replayed { keys, functions, replay } = replay_files(&services.engine, log, cuts_torn, &load.progress)?;
    services.snapshots.keep_functions(functions);
    services.snapshots.note_kept(services.engine.statistics().changes);
    if let Some(failure) = &replay.first_failure {
        let failed = replay.failed;
        tracing::warn!("{failed} commands of the log of Redis answered with an error, the first of them {failure}");
    }
    let seconds = clock::boot_us().saturating_sub(began_us) as f64 / 1e6;
    let commands = replay.executed;
    tracing::info!("DB loaded from the log of Redis: {seconds:.3} seconds ({keys} keys, {commands} commands)");
    Ok(())
}

/// Makes a snapshot of this name of what is in a log of Redis.
///
/// # Errors
/// As at the start of a node; a torn tail is left out.
pub fn to_snapshot(log: &RedisLog, directory: &Path, name: &str) -> io::Result<()> {
    let engine = Arc::new(Engine::new(DATABASES_MAX));
    let functions = Arc::new(replay_files(&engine, log, true, &Progress::default())?.functions);
    let mut snapshot = engine.begin_snapshot().map_err(io::Error::other)?;
    let options = saving::Options { with_checksum: true, functions, ..saving::Options::default() };
    saving::save(&engine, &mut snapshot, &Directory::open(directory)?, name, &options, &Default::default()).map(drop)
}

/// What was in a log.
struct Replayed<'a> {
    /// Of the snapshot at its beginning.
    keys: u64,
    functions: Functions,
    /// The commands behind it.
    replay: Replay<'a>,
}

fn replay_files<'a>(
    engine: &'a Engine,
    log: &RedisLog,
    cuts_torn: bool,
    progress: &Progress,
) -> io::Result<Replayed<'a>> {
    let files: Vec<&Path> = log.files().collect();
    let replayed = Replayed { keys: 0, functions: Functions::default(), replay: Replay::new(engine) };
    let mut loading = Loading { engine, progress, replayed, done: 0 };
    for (number, file) in files.iter().enumerate() {
        let may_be_torn = cuts_torn && number + 1 == files.len();
        loading
            .load_file(file, may_be_torn)
            .map_err(|error| io::Error::new(error.kind(), format!("{} was not loaded: {error}", file.display())))?;
    }
    Ok(loading.replayed)
}

struct Loading<'a, 'p> {
    engine: &'a Engine,
    progress: &'p Progress,
    replayed: Replayed<'a>,
    /// Bytes of the files before.
    done: u64,
}

fn wrong(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

impl Loading<'_, '_> {
    /// A snapshot, commands, or one and then the other.
    fn load_file(&mut self, path: &Path, may_be_torn: bool) -> io::Result<()> {
        let mut file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let mut first = Vec::new();
        Read::by_ref(&mut file).take(6).read_to_end(&mut first)?;
        file.seek(SeekFrom::Start(0))?;
        let mut begin = 0;
        if first.starts_with(b"REDIS") || first == *b"VALKEY" {
            // Commands may be about keys that have expired since.
            let options = Options { keeps_expired: true, sets_positions: false, ..snapshots::loading_options() };
            let progress = Progress::default();
            let loaded = loading::load(self.engine, &mut file, options, &progress).map_err(wrong)?;
            self.replayed.keys += loaded.keys;
            if !loaded.functions.libraries.is_empty() {
                self.replayed.functions = loaded.functions;
            }
            begin = progress.bytes.load(Ordering::Relaxed);
            file.seek(SeekFrom::Start(begin))?;
        }
        self.load_commands(file, begin, may_be_torn)?;
        self.done += bytes;
        Ok(())
    }

    fn load_commands(&mut self, input: File, begin: u64, may_be_torn: bool) -> io::Result<()> {
        let mut commands = Commands::new(input, begin);
        self.replayed.replay.begin_file();
        let mut count = 0;
        // Where it can be used up to: an open transaction does not count.
        let mut whole = begin;
        loop {
            if count % COMMANDS_UNWATCHED == 0 {
                self.progress.bytes.store(self.done + commands.offset(), Ordering::Relaxed);
                if self.progress.is_given_up.load(Ordering::Relaxed) {
                    return Err(wrong("loading was given up"));
                }
            }
            match commands.next_item() {
                Ok(Some(Item::Note(_))) => {}
                Ok(Some(Item::Command(words))) => {
                    count += 1;
                    let executed = self.replayed.replay.execute(&words);
                    executed.map_err(|error| wrong(format!("{error}, at byte {}", commands.begin())))?;
                }
                Ok(None) if !self.replayed.replay.is_in_transaction() => return Ok(()),
                Ok(None) if may_be_torn => {
                    tracing::warn!(
                        "The log of Redis ends in the middle of a transaction, which is left out: behind byte {whole}"
                    );
                    return Ok(());
                }
                Ok(None) => return Err(wrong(format!("it ends in the middle of a transaction, at byte {whole}"))),
                Err(error) if may_be_torn && matches!(error.fault, Fault::Ended) => {
                    tracing::warn!("The log of Redis has a torn tail, which is left out: behind byte {whole}");
                    return Ok(());
                }
                Err(error) => return Err(wrong(error)),
            }
            if !self.replayed.replay.is_in_transaction() {
                whole = commands.offset();
            }
        }
    }
}
