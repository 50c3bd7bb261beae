//! A disk in memory that does to files what crashes and broken disks do, from a seed.

use super::{Disk, File};
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

/// A page of the cache: a crash keeps or loses each by itself.
const PAGE: usize = 512;

/// The files, and what of them would survive a crash.
#[derive(Clone, Debug)]
pub(crate) struct SimulatedDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    random: SmallRng,
    /// The directory as everybody sees it.
    names: BTreeMap<String, usize>,
    /// As a crash leaves it.
    kept_names: BTreeMap<String, usize>,
    files: Vec<Contents>,
    /// One in so many writes, syncs and changes of the directory fails; 0: none.
    fails_one_in: u32,
    /// Bytes that may still be written.
    room: u64,
    /// No file with a name that begins so can be made.
    refused: Option<&'static str>,
}

#[derive(Clone, Debug, Default)]
struct Contents {
    seen: Vec<u8>,
    kept: Vec<u8>,
    /// Pages that were written and not synced since. A sync that fails forgets them too: a later one says that all is well.
    dirty: BTreeSet<usize>,
}

#[derive(Debug)]
struct SimulatedFile {
    state: Arc<Mutex<State>>,
    number: usize,
}

impl SimulatedDisk {
    pub(crate) fn new(seed: u64) -> SimulatedDisk {
        let state = State {
            random: SmallRng::seed_from_u64(seed),
            names: BTreeMap::new(),
            kept_names: BTreeMap::new(),
            files: Vec::new(),
            fails_one_in: 0,
            room: u64::MAX,
            refused: None,
        };
        SimulatedDisk { state: Arc::new(Mutex::new(state)) }
    }

    /// From here on one in so many operations fails; 0: none.
    pub(crate) fn fail_one_in(&self, operations: u32) {
        self.state.lock().fails_one_in = operations;
    }

    /// From here on so many bytes can be written.
    pub(crate) fn fill_up(&self, room: u64) {
        self.state.lock().room = room;
    }

    /// From here on no file can be made with a name that begins so; `None`: all can.
    pub(crate) fn refuse(&self, beginning: Option<&'static str>) {
        self.state.lock().refused = beginning;
    }

    /// The machine loses power and comes back: each page that was not synced is there or not, and so is each change of the
    /// directory from some moment on.
    pub(crate) fn crash(&self) {
        let state = &mut *self.state.lock();
        for contents in &mut state.files {
            state.random.lose(contents);
            contents.seen = contents.kept.clone();
        }
        if state.random.random_bool(0.5) {
            state.kept_names = state.names.clone();
        }
        state.names = state.kept_names.clone();
    }

    /// Changes a byte of a file where it lies.
    pub(crate) fn damage(&self, name: &str, at: usize) {
        let state = &mut *self.state.lock();
        let contents = &mut state.files[state.names[name]];
        contents.seen[at] ^= 0x55;
        contents.kept = contents.seen.clone();
    }
}

/// What chance does to files.
trait Loss {
    /// Some pages that were not synced reach the disk, others do not.
    fn lose(&mut self, contents: &mut Contents);
}

impl Loss for SmallRng {
    fn lose(&mut self, contents: &mut Contents) {
        let share = self.random_range(0.0..=1.0);
        for page in std::mem::take(&mut contents.dirty) {
            if self.random_bool(share) {
                contents.keep(page);
            }
        }
    }
}

impl Contents {
    fn keep(&mut self, page: usize) {
        let end = ((page + 1) * PAGE).min(self.seen.len());
        if self.kept.len() < end {
            self.kept.resize(end, 0);
        }
        self.kept[page * PAGE..end].copy_from_slice(&self.seen[page * PAGE..end]);
    }
}

impl State {
    fn attempt(&mut self) -> io::Result<()> {
        let fails = self.fails_one_in > 0 && self.random.random_ratio(1, self.fails_one_in);
        if fails { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
    }
}

impl Disk for SimulatedDisk {
    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let mut state = self.state.lock();
        state.attempt()?;
        if state.refused.is_some_and(|beginning| name.starts_with(beginning)) {
            return Err(io::Error::from_raw_os_error(28));
        }
        state.files.push(Contents::default());
        let number = state.files.len() - 1;
        state.names.insert(name.to_owned(), number);
        Ok(Box::new(SimulatedFile { state: Arc::clone(&self.state), number }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        let number = self.state.lock().names.get(name).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(SimulatedFile { state: Arc::clone(&self.state), number }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.attempt()?;
        let number = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), number);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.attempt()?;
        state.names.remove(name).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.state.lock().names.keys().cloned().collect())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        state.attempt()?;
        state.kept_names = state.names.clone();
        Ok(())
    }

    fn place(&self) -> String {
        "simulated".to_owned()
    }
}

impl File for SimulatedFile {
    fn write_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        let state = &mut *self.state.lock();
        let mut written = bytes.len();
        let mut outcome = state.attempt();
        if outcome.is_err() {
            written = state.random.random_range(0..=bytes.len());
        }
        if written as u64 > state.room {
            written = state.room as usize;
            outcome = Err(io::Error::from_raw_os_error(28));
        }
        state.room -= written as u64;
        let Contents { seen, dirty, .. } = &mut state.files[self.number];
        let end = at as usize + written;
        dirty.extend(at as usize / PAGE..end.div_ceil(PAGE));
        if seen.len() < end {
            seen.resize(end, 0);
        }
        seen[at as usize..end].copy_from_slice(&bytes[..written]);
        outcome
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        let state = self.state.lock();
        let rest = state.files[self.number].seen.get(at as usize..).unwrap_or_default();
        let length = rest.len().min(bytes.len());
        bytes[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.state.lock().files[self.number].seen.len() as u64)
    }

    fn sync(&mut self) -> io::Result<()> {
        let state = &mut *self.state.lock();
        let outcome = state.attempt();
        let contents = &mut state.files[self.number];
        match outcome {
            Ok(()) => std::mem::take(&mut contents.dirty).into_iter().for_each(|page| contents.keep(page)),
            // What could not be written is forgotten, while everybody goes on seeing it until the machine goes down.
            Err(_) => state.random.lose(contents),
        }
        outcome
    }
}
