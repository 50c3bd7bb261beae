//! The directory of a log: who may use it, what is in it, and how a node comes back from it.

use super::disk::{Directory, Disk, Reading};
use super::journal::{Journal, Place};
use super::keeper::{Keeper, Settings, clean};
use super::loading::{self, Loaded};
use super::manifest::{Manifest, Names};
use super::recovery::{self, Broken, Found};
use super::segment::{HEADER_BYTES, Header, Owner};
use crate::base::identity::Position;
use crate::base::slot::Slot;
use crate::engine::Engine;
use crate::engine::log::{Behind, Reader};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Whoever holds it has the directory to itself.
const LOCK: &str = "lock";
/// The log may be so far ahead of its file before writers wait.
const BEHIND_BYTES: u64 = 64 * 1024 * 1024;

/// See the module. Nobody else can open it meanwhile.
#[derive(Debug)]
pub struct LogDirectory {
    disk: Arc<dyn Disk>,
    names: Names,
    owner: Owner,
    manifest: Option<Manifest>,
    /// Locked for as long as it is open.
    lock: std::fs::File,
}

/// What a node came back with.
#[derive(Debug)]
pub struct Recovered {
    /// What the snapshot had.
    pub base: Loaded,
    /// What the segments had.
    pub found: Found,
}

impl LogDirectory {
    /// Opens the directory, and makes it where there is none.
    ///
    /// # Errors
    /// Also where another server has it open, and where its manifest makes no sense.
    pub fn open(path: &Path, appendfilename: &str, owner: Owner) -> io::Result<LogDirectory> {
        let disk = Directory::provide(path).map_err(|error| named(path, &error))?;
        let lock = lock(path)?;
        let names = Names::new(appendfilename);
        let manifest = Manifest::read(&disk, &names)?;
        Ok(LogDirectory { disk: Arc::new(disk), names, owner, manifest, lock })
    }

    /// Bytes of the snapshot and the segments of the log; 0: there is none.
    pub fn bytes(&self) -> io::Result<u64> {
        let Some(manifest) = self.manifest else { return Ok(0) };
        let is_part = |name: &&String| {
            self.names.base_number(name) == Some(manifest.base)
                || self.names.segment_number(name).is_some_and(|number| number >= manifest.first)
        };
        let names = self.disk.names()?;
        names.iter().filter(is_part).map(|name| self.disk.open(name)?.length()).sum()
    }

    /// Makes the keys, and the slots' positions, of what is in the directory. Nobody may change anything meanwhile. A torn
    /// tail is cut where `cuts_torn` says so.
    pub fn recover(
        &self,
        engine: &Engine,
        cuts_torn: bool,
        options: loading::Options,
        progress: &loading::Progress,
    ) -> Result<Option<Recovered>, Broken> {
        let Some(manifest) = self.manifest else { return Ok(None) };
        let (disk, names) = (&*self.disk, &self.names);
        let mut base = Loaded::default();
        if manifest.base > 0 {
            let file = names.base(manifest.base);
            let input = disk.open(&file).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => Broken::Missing { file: file.clone() },
                _ => Broken::Disk { file: file.clone(), error },
            })?;
            let options = loading::Options { keeps_expired: true, sets_positions: true, ..options };
            let loaded = loading::load(engine, Reading::new(input), options, progress);
            base = loaded.map_err(|error| Broken::Base { file, error: error.to_string() })?;
        }
        let replay =
            |group: crate::engine::Group<'_>, _: &str, _| engine.replay(group).map_err(|error| error.to_string());
        let found = recovery::read(disk, names, self.owner, manifest.first, replay)?;
        if let Some(torn) = &found.torn {
            if !cuts_torn {
                return Err(Broken::Torn(torn.clone()));
            }
            let (file, at, bytes) = (&torn.file, torn.at, torn.bytes);
            tracing::warn!("The log has a torn tail, which is cut: {bytes} bytes behind byte {at} of {file}");
        }
        recovery::settle(disk, names, &found)?;
        engine.log.go_on_after(found.stamp);
        Ok(Some(Recovered { base, found }))
    }

    /// Reads the log of the engine from here on: nothing of what happens now is missing from the directory later.
    pub fn follow(self, engine: &Arc<Engine>) -> Following {
        let reader = engine.read_log(Behind::Wait(BEHIND_BYTES));
        // Where nothing has ever happened, there is nothing to begin with.
        let is_fresh = Slot::all().all(|slot| engine.position(slot) == Position::default())
            && engine.statistics().databases.iter().all(|(keys, _)| *keys == 0);
        Following { directory: self, engine: Arc::clone(engine), reader, is_fresh }
    }
}

/// Takes a directory that is there for this process alone, for as long as the file is open.
fn lock(path: &Path) -> io::Result<std::fs::File> {
    let mut options = std::fs::OpenOptions::new();
    let lock = options.write(true).create(true).truncate(false).open(path.join(LOCK));
    let lock = lock.map_err(|error| named(path, &error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(std::fs::TryLockError::WouldBlock) => {
            let text = format!("{}: another server keeps its log in this directory", path.display());
            Err(io::Error::new(io::ErrorKind::ResourceBusy, text))
        }
        Err(std::fs::TryLockError::Error(error)) => Err(named(path, &error)),
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Gives the directory another name where it has a log of this owner, which runs without one from here on: what the log
/// misses of that would be taken for what the owner has, when it comes back to it. Returns the name. The directory is as it
/// was where it is not there, where nothing in it is of this owner, and where another server keeps its log there.
///
/// # Errors
/// Where it cannot be renamed, and that be made to survive a crash.
pub fn set_aside(path: &Path, appendfilename: &str, owner: Owner) -> io::Result<Option<PathBuf>> {
    let names = Names::new(appendfilename);
    let disk = match Directory::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|error| named(path, &error))?,
    };
    // Its owner would have the lock of its identity, and does not run: whoever has this one is somebody else.
    let _lock = match lock(path) {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => return Ok(None),
        other => other?,
    };
    if !has_segment_of(owner, &disk, &names).map_err(|error| named(path, &error))? {
        return Ok(None);
    }
    let mut aside = PathBuf::new();
    for number in 1.. {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".set-aside-{number}"));
        aside = name.into();
        if !aside.try_exists()? {
            break;
        }
    }
    disk.move_to(&aside).map_err(|error| named(path, &error))?;
    Ok(Some(aside))
}

/// Whether there is a segment with a header that can be read, and says that it is the owner's.
fn has_segment_of(owner: Owner, disk: &Directory, names: &Names) -> io::Result<bool> {
    for name in disk.names()?.iter().filter(|name| names.segment_number(name).is_some()) {
        let mut bytes = vec![0; HEADER_BYTES];
        let length = disk.open(name)?.read_at(&mut bytes, 0)?;
        if Header::decode(&bytes[..length]).is_ok_and(|header| header.owner == owner) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A directory whose log is read, and not written yet.
#[derive(Debug)]
pub struct Following {
    directory: LogDirectory,
    engine: Arc<Engine>,
    reader: Reader,
    is_fresh: bool,
}

impl Following {
    /// Keeps what has happened since, behind what was recovered. Where there was no log, it begins with the keys that are
    /// there: it is one when they are written, which is what its thread does first.
    pub fn keep(self, recovered: Option<&Found>, settings: Settings) -> io::Result<Keeper> {
        let Following { directory, engine, reader, is_fresh } = self;
        let LogDirectory { disk, names, owner, manifest, lock } = directory;
        let place = match recovered {
            Some(found) => found.place,
            None => Place { segment: last_number(&*disk, &names)?, bytes: 0 },
        };
        let mut journal = Journal::new(Arc::clone(&disk), names.clone(), owner, place, reader.begin());
        if let (Some(found), Some(manifest)) = (recovered, manifest) {
            journal.count(found.finished_bytes + found.place.bytes);
            clean(&*disk, &names, manifest);
            return Keeper::start(&engine, disk, names, journal, reader, manifest, settings, true, lock);
        }
        let is_fresh = is_fresh && (settings.saving)().functions.libraries.is_empty();
        let manifest = Manifest { base: 0, first: journal.begin_segment()? };
        if is_fresh {
            manifest.write(&*disk, &names)?;
        }
        Keeper::start(&engine, disk, names, journal, reader, manifest, settings, is_fresh, lock)
    }
}

/// The number of the last segment that some log has left.
fn last_number(disk: &dyn Disk, names: &Names) -> io::Result<u32> {
    Ok(disk.names()?.iter().filter_map(|name| names.segment_number(name)).max().unwrap_or(0))
}
