//! Loads an RDB file: one thread finds where records begin and end, the others decode and add them.

use super::positions;
use super::saving::POSITIONS;
use crate::base::identity::Position;
use crate::base::slot::Slot;
use crate::engine::Engine;
use crate::engine::loading::{Access, Loaded as LoadedValue};
use crate::rdb::Content;
use crate::rdb::file::{self, KeyRecord, ReadError, Reader, Record};
use crossbeam::channel::{Receiver, bounded};
use parking_lot::Mutex;
use std::borrow::Cow;
use std::io::Read;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Keys and bytes that a thread is given at once.
const BATCH_KEYS: usize = 1024;
const BATCH_BYTES: usize = 128 * 1024;
/// Batches that wait for each thread.
const BATCHES_WAITING: usize = 2;

/// Of libraries of functions so many bytes are kept.
const FUNCTION_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How a file is loaded.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Keys that have expired are added too: what follows in a log may refer to them.
    pub keeps_expired: bool,
    /// The slots' histories go on where the file says.
    pub sets_positions: bool,
    /// Keys may be there already, and are replaced.
    pub replaces: bool,
    /// Unix milliseconds.
    pub now_ms: u64,
    /// Threads beside this one.
    pub threads: usize,
}

/// How far a load is, for whoever looks; and whether it shall go on.
#[derive(Debug, Default)]
pub struct Progress {
    pub bytes: AtomicU64,
    pub keys: AtomicU64,
    pub is_given_up: AtomicBool,
}

/// What was loaded.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    pub keys: u64,
    /// Keys that were left out because they had expired.
    pub expired: u64,
    /// Keys that held nothing, or nothing that had not expired.
    pub empty: u64,
    /// Where the slots' histories stood, by slot, where the file says so.
    pub positions: Option<Vec<Position>>,
    /// What is said about the file, but for that.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    pub functions: Functions,
}

/// Libraries of functions (FUNCTION LOAD). Nobody here runs them: they are kept as they are, for whoever loads what is saved.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Functions {
    /// The code of each.
    pub libraries: Vec<Vec<u8>>,
    bytes: usize,
    /// Libraries that would have been too much.
    pub left_out: u64,
}

impl Functions {
    fn add(&mut self, code: Cow<'_, [u8]>) {
        let bytes = self.bytes + code.len() + size_of::<Vec<u8>>();
        if bytes > FUNCTION_BYTES_MAX {
            self.left_out += 1;
            return;
        }
        self.bytes = bytes;
        self.libraries.push(code.into_owned());
    }
}

/// Why a file was not loaded as a whole. Some of its keys may have been.
#[derive(Debug)]
pub enum LoadError {
    Read(ReadError),
    /// It has keys of a database that this server has not.
    Database(u64),
    /// A key is there twice, or was there before.
    Twice {
        key: Vec<u8>,
        offset: u64,
    },
    GivenUp,
}

impl std::fmt::Display for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LoadError::Read(error) => error.fmt(f),
            LoadError::Database(number) => {
                write!(f, "it has keys of database {number}, and this server has not so many databases")
            }
            LoadError::Twice { key, offset } => {
                write!(f, "the key '{}' is there already, at byte {offset}", key.escape_ascii())
            }
            LoadError::GivenUp => f.write_str("loading was given up"),
        }
    }
}

impl std::error::Error for LoadError {}

impl From<ReadError> for LoadError {
    fn from(error: ReadError) -> LoadError {
        LoadError::Read(error)
    }
}

/// Adds the keys of a file to the engine. Who asks for the keys meanwhile finds some of them.
pub fn load(engine: &Engine, input: impl Read, options: Options, progress: &Progress) -> Result<Loaded, LoadError> {
    let mut reader = Reader::new(input)?;
    let threads = options.threads.max(1);
    let loading = Loading { engine, options, progress, counts: Default::default(), failed: Default::default() };
    let (sender, receiver) = bounded::<Batch>(threads * BATCHES_WAITING);
    let mut loaded = Loaded::default();
    let read = std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| loading.add_all(&receiver));
        }
        let mut batch = Batch::default();
        let mut database = 0;
        while let Some(record) = reader.next_record()? {
            match record {
                Record::Auxiliary { name, value } if *name == *POSITIONS.as_bytes() => {
                    // Of a later format: then they are not known, as where there are none.
                    loaded.positions = positions::decode(&value).ok();
                }
                Record::Auxiliary { name, value } => {
                    loaded.fields.push((name.into_owned(), value.into_owned()));
                }
                Record::Function(code) => loaded.functions.add(code),
                Record::Sizes { .. } => {}
                Record::Database(number) => {
                    let known = usize::try_from(number).ok().filter(|number| *number < engine.database_count());
                    database = known.ok_or(LoadError::Database(number))?;
                }
                Record::Key(key) => batch.put(database, &key),
            }
            if batch.is_full() {
                loading.look()?;
                progress.bytes.store(reader.offset(), Ordering::Relaxed);
                if sender.send(std::mem::take(&mut batch)).is_err() {
                    break;
                }
            }
        }
        // The receivers live as long as this does.
        let _ = sender.send(batch);
        drop(sender);
        Ok(())
    });
    // A thread found what is wrong where it stopped this one.
    read.and(loading.look())?;
    let Counts { keys, expired, empty } = loading.counts;
    (loaded.keys, loaded.expired, loaded.empty) = (keys.into_inner(), expired.into_inner(), empty.into_inner());
    progress.bytes.store(reader.offset(), Ordering::Relaxed);
    if let Some(positions) = loaded.positions.as_ref().filter(|_| options.sets_positions) {
        Slot::all().zip(positions).for_each(|(slot, position)| engine.set_position(slot, *position));
    }
    Ok(loaded)
}

/// Keys that one thread adds.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    keys: Vec<Key>,
}

/// A key record of which the bytes lie in a batch.
#[derive(Debug)]
struct Key {
    database: usize,
    key: Range<usize>,
    image: Range<usize>,
    offset: u64,
    deadline: Option<u64>,
    access: Option<file::Access>,
    kind: u8,
    by_valkey: bool,
}

impl Batch {
    fn put(&mut self, database: usize, record: &KeyRecord<'_>) {
        let mut add = |bytes: &[u8]| {
            let from = self.bytes.len();
            self.bytes.extend_from_slice(bytes);
            from..self.bytes.len()
        };
        let (key, image) = (add(&record.key), add(record.image));
        let KeyRecord { offset, deadline, access, kind, by_valkey, .. } = *record;
        self.keys.push(Key { database, key, image, offset, deadline, access, kind, by_valkey });
    }

    fn is_full(&self) -> bool {
        self.keys.len() >= BATCH_KEYS || self.bytes.len() >= BATCH_BYTES
    }
}

#[derive(Debug, Default)]
struct Counts {
    keys: AtomicU64,
    expired: AtomicU64,
    empty: AtomicU64,
}

/// What the threads share.
struct Loading<'a> {
    engine: &'a Engine,
    options: Options,
    progress: &'a Progress,
    counts: Counts,
    failed: Mutex<Option<LoadError>>,
}

impl Loading<'_> {
    /// Whether it shall go on.
    fn look(&self) -> Result<(), LoadError> {
        if self.progress.is_given_up.load(Ordering::Relaxed) {
            return Err(LoadError::GivenUp);
        }
        self.failed.lock().take().map_or(Ok(()), Err)
    }

    fn add_all(&self, batches: &Receiver<Batch>) {
        for batch in batches {
            for key in &batch.keys {
                if let Err(error) = self.add(&batch, key) {
                    self.failed.lock().get_or_insert(error);
                    break;
                }
            }
            self.progress.keys.fetch_add(batch.keys.len() as u64, Ordering::Relaxed);
        }
    }

    fn add(&self, batch: &Batch, key: &Key) -> Result<(), LoadError> {
        let Options { now_ms, keeps_expired, replaces, .. } = self.options;
        if !keeps_expired && key.deadline.is_some_and(|deadline| deadline <= now_ms) {
            self.counts.expired.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        let &Key { database, offset, deadline, access, kind, by_valkey, .. } = key;
        let (name, image) = (&batch.bytes[key.key.clone()], &batch.bytes[key.image.clone()]);
        let record = KeyRecord { offset, key: Cow::Borrowed(name), deadline, access, kind, image, by_valkey };
        let now_ms = if keeps_expired { 0 } else { now_ms };
        let value = match record.read(&self.engine.limits(), now_ms)? {
            None => {
                self.counts.empty.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            Some(Content::String(bytes)) => LoadedValue::String(bytes),
            Some(Content::Collection(value)) => LoadedValue::Collection(value),
        };
        let access = access.map(|access| match access {
            file::Access::IdleSeconds(seconds) => Access::IdleSeconds(seconds),
            file::Access::Frequency(counter) => Access::Frequency(counter),
        });
        match self.engine.load(database, name, value, deadline, access, replaces) {
            true => {
                self.counts.keys.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            false => Err(LoadError::Twice { key: name.to_vec(), offset }),
        }
    }
}
