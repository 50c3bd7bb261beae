//! The raft log, the vote and the raft snapshot in one redb file, written by a thread of its own.
//!
//! A sync to the disk can take a second on a busy machine. Heartbeats must not wait for it: whoever writes hands the
//! write over and is told when it is on the disk. Writes that wait are committed together. After a write has failed
//! nothing is known about the file any more: every later write fails too, and is counted. The node goes on without a vote.

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, TableError};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");

/// Writes that wait for the disk. Raft waits for almost all of its writes, so few are ever under way.
const WRITES_MAX: usize = 1024;

/// A named record beside the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Record {
    Vote,
    Committed,
    Purged,
    Snapshot,
    /// Who votes, as this node last heard: where a node that does not vote asks after a restart.
    Group,
    /// What the records and entries are written in, and whose they are.
    Format,
    /// What this node stands by as a lease voter.
    Promises,
    /// The generation of the cluster that log and records are of; absent: the first, or the one that the node's identity says.
    Generation,
}

/// What a raft log of another generation has anew: who voted for whom, and what was agreed, was a matter of the one before.
const OF_A_GENERATION: [Record; 5] = [Record::Vote, Record::Committed, Record::Purged, Record::Snapshot, Record::Group];

impl Record {
    fn name(self) -> &'static str {
        match self {
            Record::Vote => "vote",
            Record::Committed => "committed",
            Record::Purged => "purged",
            Record::Snapshot => "snapshot",
            Record::Group => "group",
            Record::Format => "format",
            Record::Promises => "promises",
            Record::Generation => "generation",
        }
    }
}

/// What is to be written.
pub(super) enum Write {
    Put(Record, Vec<u8>),
    Append(Vec<(u64, Vec<u8>)>),
    /// Entries from this index on go.
    Truncate(u64),
    /// Entries up to this index go; the record says up to which log id.
    Purge(u64, Vec<u8>),
    /// All entries go, and what the records of a generation say; these records are there instead.
    Renew(Vec<(Record, Vec<u8>)>),
}

impl Write {
    /// Whether it must be on the disk before it is done. How far the log is committed can be found out again.
    fn is_durable(&self) -> bool {
        !matches!(self, Write::Put(Record::Committed, _))
    }
}

type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

struct Job {
    write: Write,
    done: Done,
    is_over: Arc<AtomicBool>,
}

/// Where writes go. The thread ends, and the file is closed, when the last clone is gone.
#[derive(Clone)]
pub(super) struct RaftDisk {
    jobs: SyncSender<Job>,
    failures: Arc<Failures>,
    /// Another handle has taken the place of this one and its clones: what they write is refused.
    is_over: Arc<AtomicBool>,
}

/// Writes that failed.
#[derive(Default)]
struct Failures {
    count: AtomicU64,
    /// What a test makes of the disk.
    #[cfg(test)]
    is_broken: AtomicBool,
}

impl fmt::Debug for RaftDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RaftDisk")
    }
}

/// What the file held when it was opened.
#[derive(Default)]
pub(super) struct Stored {
    pub(super) log: Vec<(u64, Vec<u8>)>,
    records: Vec<(String, Vec<u8>)>,
}

impl Stored {
    /// What a file holds that was renewed with these.
    pub(super) fn renewed(records: &[(Record, Vec<u8>)]) -> Stored {
        let records = records.iter().map(|(record, bytes)| (record.name().to_owned(), bytes.clone())).collect();
        Stored { log: Vec::new(), records }
    }

    pub(super) fn record(&self, record: Record) -> Option<&[u8]> {
        self.records.iter().find(|(name, _)| name == record.name()).map(|(_, bytes)| bytes.as_slice())
    }
}

impl RaftDisk {
    /// Opens the file, making it where it is missing, and starts its thread. `format` judges what the file holds, and
    /// gives the record that it must hold from now on: it and the file's place in the directory are on the disk when this
    /// returns.
    pub(super) fn open(
        path: &Path,
        format: impl FnOnce(&Stored) -> io::Result<Vec<u8>>,
    ) -> io::Result<(RaftDisk, Stored)> {
        let database = Database::create(path).map_err(other)?;
        let stored = load(&database).map_err(io::Error::other)?;
        let format = format(&stored)?;
        if stored.record(Record::Format) != Some(format.as_slice()) {
            begin(&database, &format).map_err(io::Error::other)?;
            if let Some(directory) = path.parent() {
                std::fs::File::open(directory)?.sync_all()?;
            }
        }
        let (jobs, waiting) = sync_channel(WRITES_MAX);
        let failures = Arc::<Failures>::default();
        let counted = Arc::clone(&failures);
        std::thread::Builder::new().name("raft-disk".into()).spawn(move || run(&database, &waiting, &counted))?;
        Ok((RaftDisk { jobs, failures, is_over: Arc::default() }, stored))
    }

    /// A handle of its own: ended without this one, or going on when this one has ended.
    pub(super) fn another(&self) -> RaftDisk {
        RaftDisk { is_over: Arc::default(), ..self.clone() }
    }

    /// What is written by this handle or its clones from now on is refused.
    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::Release);
    }

    /// How many writes have failed. From the first on nothing more is written.
    pub(super) fn write_failures(&self) -> u64 {
        self.failures.count.load(Ordering::Relaxed)
    }

    /// From now on the disk takes nothing.
    #[cfg(test)]
    pub(super) fn break_it(&self) {
        self.failures.is_broken.store(true, Ordering::Relaxed);
    }

    /// Hands a write over; `done` is called by the disk's thread.
    pub(super) fn write(&self, write: Write, done: impl FnOnce(io::Result<()>) + Send + 'static) {
        let job = Job { write, done: Box::new(done), is_over: Arc::clone(&self.is_over) };
        if let Err(error) = self.jobs.try_send(job) {
            let (job, why) = match error {
                TrySendError::Full(job) => (job, "too many writes wait for the raft log"),
                TrySendError::Disconnected(job) => (job, "the raft log's thread has ended"),
            };
            (job.done)(Err(io::Error::other(why)));
        }
    }

    /// Writes and waits until it is on the disk.
    pub(super) async fn write_and_wait(&self, write: Write) -> io::Result<()> {
        let (done, written) = tokio::sync::oneshot::channel();
        self.write(write, move |result| {
            // Who waited may be gone.
            let _ = done.send(result);
        });
        written.await.unwrap_or_else(|_| Err(io::Error::other("the raft log's thread has ended")))
    }
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

/// The tables, and the record of their format.
fn begin(database: &Database, format: &[u8]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(LOG)?;
    transaction.open_table(RECORDS)?.insert(Record::Format.name(), format)?;
    transaction.commit()?;
    Ok(())
}

fn load(database: &Database) -> Result<Stored, redb::Error> {
    let transaction = database.begin_read()?;
    let mut stored = Stored::default();
    let records = match transaction.open_table(RECORDS) {
        Ok(records) => records,
        // A new file.
        Err(TableError::TableDoesNotExist(_)) => return Ok(stored),
        Err(error) => return Err(error.into()),
    };
    for record in records.iter()? {
        let (name, bytes) = record?;
        stored.records.push((name.value().to_owned(), bytes.value().to_vec()));
    }
    for entry in transaction.open_table(LOG)?.iter()? {
        let (index, bytes) = entry?;
        stored.log.push((index.value(), bytes.value().to_vec()));
    }
    Ok(stored)
}

fn run(database: &Database, waiting: &Receiver<Job>, failures: &Failures) {
    let mut failed: Option<String> = None;
    while let Ok(first) = waiting.recv() {
        let mut jobs = vec![first];
        while jobs.len() < WRITES_MAX
            && let Ok(job) = waiting.try_recv()
        {
            jobs.push(job);
        }
        // Looked at behind the queue: whoever ends a handle has its successor's first write behind all that counts.
        let (late, jobs): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(|job| job.is_over.load(Ordering::Acquire));
        for job in late {
            (job.done)(Err(io::Error::other("this raft log is of a generation that is over")));
        }
        if failed.is_none()
            && !jobs.is_empty()
            && let Err(error) = commit(database, &jobs, failures)
        {
            tracing::error!(%error, "the raft log cannot be written: this node has no vote until it is started again");
            failed = Some(error.to_string());
        }
        if failed.is_some() {
            failures.count.fetch_add(jobs.len() as u64, Ordering::Relaxed);
        }
        for job in jobs {
            (job.done)(failed.as_ref().map_or(Ok(()), |error| Err(io::Error::other(error.clone()))));
        }
    }
}

/// All of them in one transaction, in their order.
fn commit(database: &Database, jobs: &[Job], _failures: &Failures) -> Result<(), redb::Error> {
    #[cfg(test)]
    if _failures.is_broken.load(Ordering::Relaxed) {
        return Err(redb::Error::Io(io::Error::other("a test has broken the disk")));
    }
    let mut transaction = database.begin_write()?;
    if !jobs.iter().any(|job| job.write.is_durable()) {
        transaction.set_durability(Durability::None)?;
    }
    {
        let mut log = transaction.open_table(LOG)?;
        let mut records = transaction.open_table(RECORDS)?;
        for job in jobs {
            match &job.write {
                Write::Put(record, bytes) => {
                    records.insert(record.name(), bytes.as_slice())?;
                }
                Write::Append(entries) => {
                    for (index, bytes) in entries {
                        log.insert(index, bytes.as_slice())?;
                    }
                }
                Write::Truncate(from) => log.retain_in(*from.., |_, _| false)?,
                Write::Purge(upto, id) => {
                    log.retain_in(..=*upto, |_, _| false)?;
                    records.insert(Record::Purged.name(), id.as_slice())?;
                }
                Write::Renew(anew) => {
                    log.retain(|_, _| false)?;
                    for record in OF_A_GENERATION {
                        records.remove(record.name())?;
                    }
                    for (record, bytes) in anew {
                        records.insert(record.name(), bytes.as_slice())?;
                    }
                }
            }
        }
    }
    transaction.commit()?;
    Ok(())
}
