//! What openraft keeps: the raft log and the vote (`LogStore`), the topology and its snapshot (`StateStore`).
//!
//! The log is short, a thousand entries between snapshots, so all of it is also in memory and reads never touch the
//! disk. Writes go to `raft_disk`, and count only when they are synced.

use super::change::{Applied, TopologyChange};
use super::published::Published;
use super::raft::{Entry, LogId, Membership, NodeId, SnapshotMeta, TypeConfig, Vote};
use super::raft_disk::{RaftDisk, Record, Stored, Write};
use super::state::Topology;
use crate::base::identity;
use crate::transport::Blob;
use openraft::storage::{LogFlushed, LogState, RaftLogStorage, RaftStateMachine};
use openraft::{
    AnyError, BasicNode, CommittedLeaderId, EntryPayload, OptionalSend, RaftLogReader, RaftSnapshotBuilder, Snapshot,
    StorageError, StorageIOError,
};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::io::{self, Cursor};
use std::net::SocketAddr;
use std::ops::RangeBounds;
use std::path::Path;
use std::sync::Arc;

type Result<T> = std::result::Result<T, StorageError<NodeId>>;

/// What entries, records and the topology in snapshots are written in. Raised with every change of their shape.
const FORMAT: u16 = 7;

/// The raft log of a node as it is on the disk, opened. Nothing votes with it yet.
pub struct RaftLog {
    pub(super) log: LogStore,
    pub(super) state: StateStore,
    pub(super) disk: RaftDisk,
    pub(super) stored: Stored,
    pub(super) published: Arc<Published>,
}

impl RaftLog {
    /// Opens `raft.redb` in the node's directory. A node that never had one (`is_expected`: it had) gets it made; it is on
    /// the disk when this returns.
    ///
    /// # Errors
    /// It cannot be read or written; it is gone though the node had one; it is another node's, or of a later version.
    pub fn open(directory: &Path, node: identity::NodeId, is_expected: bool) -> io::Result<RaftLog> {
        let path = directory.join("raft.redb");
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        if is_expected && !path.try_exists().map_err(named)? {
            return Err(named(lost(directory, node)));
        }
        let format = |stored: &Stored| match stored.record(Record::Format) {
            Some(bytes) => check_format(bytes, directory, node),
            // Made by a version that wrote no such record; or made just now, where there was one before.
            None if is_expected => Err(lost(directory, node)),
            None => Ok(encode(&(FORMAT, node.0))),
        };
        let open = || {
            let published = Arc::new(Published::default());
            let (disk, stored) = RaftDisk::open(&path, format)?;
            let (log, state) = stores(disk.another(), &stored, &published)?;
            Ok(RaftLog { log, state, disk, stored, published })
        };
        open().map_err(named)
    }

    /// The generation of the cluster that it is of; 0: the first, or it was begun by joining a later one.
    pub fn generation(&self) -> io::Result<u32> {
        self.stored.record(Record::Generation).map_or(Ok(0), |bytes| decode(bytes, "generation record"))
    }
}

fn stores(disk: RaftDisk, stored: &Stored, published: &Arc<Published>) -> io::Result<(LogStore, StateStore)> {
    let log = LogStore { disk: disk.clone(), mirror: Arc::new(Mutex::new(Mirror::load(stored)?)) };
    let state = StateStore::load(disk, stored, Arc::clone(published))?;
    Ok((log, state))
}

/// The newest state that can be made of a raft log: all its entries are applied, agreed or not, for nobody knows which of them the
/// others have agreed on.
pub(super) struct Newest {
    pub(super) topology: Topology,
    /// The greatest term that this node has voted in, or has an entry of.
    pub(super) term: u64,
    /// The index of the last entry.
    last: u64,
}

impl Newest {
    /// The latest change that is in it, and index that is taken.
    pub(super) fn version(&self) -> u64 {
        self.topology.version.max(self.last)
    }
}

pub(super) fn newest(log: &LogStore, state: &StateStore) -> Newest {
    let (applied, mut topology) = {
        let machine = state.machine.lock();
        (machine.applied, machine.topology.clone())
    };
    let mirror = log.mirror.lock();
    for (index, entry) in mirror.log.range(applied.map_or(0, |id| id.index + 1)..) {
        if let EntryPayload::Normal(change) = &entry.payload {
            topology.apply(*index, change);
        }
    }
    let last = mirror.log.values().next_back().map(|entry| entry.log_id).max(mirror.purged).max(applied);
    let voted = mirror.vote.map_or(0, |vote| vote.leader_id().term);
    let term = voted.max(last.map_or(0, |id| id.leader_id.term));
    Newest { topology, term, last: last.map_or(0, |id| id.index) }
}

/// The records of a raft log that begins with this state, and whose only voter is this node. `term`: greater than any before.
pub(super) fn records_of_one(
    topology: &Topology,
    own: NodeId,
    address: SocketAddr,
    term: u64,
) -> Vec<(Record, Vec<u8>)> {
    let id = LogId::new(CommittedLeaderId::new(term, own), topology.version);
    let voters = BTreeMap::from([(own, BasicNode::new(address))]);
    let membership = Membership::new(Some(id), openraft::Membership::new(vec![BTreeSet::from([own])], voters));
    let meta = SnapshotMeta {
        last_log_id: Some(id),
        last_membership: membership,
        snapshot_id: format!("{term}-{}", id.index),
    };
    vec![
        (Record::Vote, encode(&Vote::new(term, own))),
        (Record::Committed, encode(&Some(id))),
        (Record::Purged, encode(&id)),
        (Record::Snapshot, encode(&(meta, Blob(encode(topology))))),
    ]
}

/// Takes the place of a raft log that was: these records and no entry, of that generation. When this returns it is on the disk. The
/// instance that wrote the former one has been shut down; what it still writes is refused.
pub(super) async fn renewed(
    former: &LogStore,
    generation: u32,
    mut records: Vec<(Record, Vec<u8>)>,
    published: &Arc<Published>,
) -> io::Result<(LogStore, StateStore)> {
    records.push((Record::Generation, encode(&generation)));
    let stored = Stored::renewed(&records);
    let disk = former.disk.another();
    former.disk.end();
    disk.write_and_wait(Write::Renew(records)).await?;
    stores(disk, &stored, published)
}

/// The record of a file that this node may go on with.
fn check_format(bytes: &[u8], directory: &Path, node: identity::NodeId) -> io::Result<Vec<u8>> {
    let refused = |why: String| Err(io::Error::new(io::ErrorKind::InvalidData, why));
    // The version comes first whatever follows it.
    let (version, rest) = postcard::take_from_bytes::<u16>(bytes).map_err(io::Error::other)?;
    if version != FORMAT {
        return refused(format!(
            "it is written in format {version}, and this version of starling reads format {FORMAT}: start the version that \
             wrote it"
        ));
    }
    let owner: NodeId = decode(rest, "format record")?;
    if owner != node.0 {
        return refused(format!(
            "it is the raft log of node {}, and this is node {node}: restore the file of this node, or remove {} to start as a \
             new node",
            identity::NodeId(owner),
            directory.display()
        ));
    }
    Ok(bytes.to_vec())
}

/// A node that has voted, and does not know how any more, would help to undo what was agreed.
fn lost(directory: &Path, node: identity::NodeId) -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        format!(
            "the raft log is missing or empty, and this node has had one: without it, it could vote against what was agreed. \
             Restore the file; or remove {}, start it as a new node with 'join', and say CLUSTER FORGET {node} to another node",
            directory.display()
        ),
    )
}

fn decode<T: DeserializeOwned>(bytes: &[u8], what: &str) -> io::Result<T> {
    postcard::from_bytes(bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("the {what} is damaged")))
}

fn encode<T: serde::Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("plain values are encoded")
}

fn failed(error: impl std::error::Error + 'static) -> StorageError<NodeId> {
    StorageError::from(StorageIOError::write(AnyError::new(&error)))
}

/// The raft log and the vote.
#[derive(Clone, Debug)]
pub(super) struct LogStore {
    disk: RaftDisk,
    mirror: Arc<Mutex<Mirror>>,
}

/// What is on the disk, or on its way there.
#[derive(Debug)]
struct Mirror {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    log: BTreeMap<u64, Entry>,
}

impl Mirror {
    fn load(stored: &Stored) -> io::Result<Mirror> {
        let mut log = BTreeMap::new();
        for (index, bytes) in &stored.log {
            log.insert(*index, decode(bytes, "raft log")?);
        }
        Ok(Mirror {
            vote: stored.record(Record::Vote).map(|bytes| decode(bytes, "vote")).transpose()?,
            committed: stored.record(Record::Committed).map_or(Ok(None), |bytes| decode(bytes, "commit record"))?,
            purged: stored.record(Record::Purged).map(|bytes| decode(bytes, "purge record")).transpose()?,
            log,
        })
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>> {
        Ok(self.mirror.lock().log.range(range).map(|(_, entry)| entry.clone()).collect())
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>> {
        let mirror = self.mirror.lock();
        let last = mirror.log.values().next_back().map(|entry| entry.log_id);
        Ok(LogState { last_purged_log_id: mirror.purged, last_log_id: last.or(mirror.purged) })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<()> {
        self.disk.write_and_wait(Write::Put(Record::Vote, encode(vote))).await.map_err(failed)?;
        self.mirror.lock().vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>> {
        Ok(self.mirror.lock().vote)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<()> {
        self.mirror.lock().committed = committed;
        // Lost in a crash, it is found out again from the other voters: nobody waits for it.
        self.disk.write(Write::Put(Record::Committed, encode(&committed)), |_| {});
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>> {
        Ok(self.mirror.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut encoded = Vec::new();
        {
            let mut mirror = self.mirror.lock();
            for entry in entries {
                encoded.push((entry.log_id.index, encode(&entry)));
                mirror.log.insert(entry.log_id.index, entry);
            }
        }
        self.disk.write(Write::Append(encoded), move |result| callback.log_io_completed(result));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<()> {
        self.mirror.lock().log.split_off(&log_id.index);
        self.disk.write_and_wait(Write::Truncate(log_id.index)).await.map_err(failed)
    }

    async fn purge(&mut self, log_id: LogId) -> Result<()> {
        {
            let mut mirror = self.mirror.lock();
            mirror.log = mirror.log.split_off(&(log_id.index + 1));
            mirror.purged = Some(log_id);
        }
        self.disk.write_and_wait(Write::Purge(log_id.index, encode(&log_id))).await.map_err(failed)
    }
}

/// The topology as raft has applied it.
#[derive(Clone, Debug)]
pub(super) struct StateStore {
    disk: RaftDisk,
    published: Arc<Published>,
    machine: Arc<Mutex<Machine>>,
}

#[derive(Clone, Debug, Default)]
struct Machine {
    applied: Option<LogId>,
    membership: Membership,
    topology: Topology,
    snapshot: Option<(SnapshotMeta, Arc<Vec<u8>>)>,
}

impl StateStore {
    fn load(disk: RaftDisk, stored: &Stored, published: Arc<Published>) -> io::Result<StateStore> {
        let mut machine = Machine::default();
        if let Some(bytes) = stored.record(Record::Snapshot) {
            let (meta, Blob(data)): (SnapshotMeta, Blob) = decode(bytes, "raft snapshot")?;
            machine.topology = topology(&data)?;
            machine.applied = meta.last_log_id;
            machine.membership = meta.last_membership.clone();
            machine.snapshot = Some((meta, Arc::new(data)));
            published.on_whole(&machine.topology);
        }
        Ok(StateStore { disk, published, machine: Arc::new(Mutex::new(machine)) })
    }

    /// Who votes, as of the last applied entry.
    pub(super) fn membership(&self) -> Membership {
        self.machine.lock().membership.clone()
    }

    /// Keeps a snapshot, unless a later one is kept; returns when it is on the disk. Building and installing may
    /// overlap: the place in the disk's queue is taken under the same lock that decides which is later.
    async fn keep(&self, meta: &SnapshotMeta, data: Vec<u8>) -> io::Result<()> {
        let (done, written) = tokio::sync::oneshot::channel();
        {
            let mut machine = self.machine.lock();
            if machine.snapshot.as_ref().is_some_and(|(kept, _)| kept.last_log_id > meta.last_log_id) {
                return Ok(());
            }
            let data = Blob(data);
            let write = Write::Put(Record::Snapshot, encode(&(meta, &data)));
            machine.snapshot = Some((meta.clone(), Arc::new(data.0)));
            self.disk.write(write, move |result| {
                // Who waited may be gone.
                let _ = done.send(result);
            });
        }
        written.await.unwrap_or_else(|_| Err(io::Error::other("the raft log's thread has ended")))
    }
}

/// The topology in a snapshot.
fn topology(data: &[u8]) -> io::Result<Topology> {
    decode(data, "raft snapshot")
}

impl RaftSnapshotBuilder<TypeConfig> for StateStore {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>> {
        let (meta, data) = {
            let machine = self.machine.lock();
            let snapshot_id = match machine.applied {
                Some(applied) => format!("{}-{}", applied.leader_id.term, applied.index),
                None => "0-0".to_owned(),
            };
            let meta =
                SnapshotMeta { last_log_id: machine.applied, last_membership: machine.membership.clone(), snapshot_id };
            (meta, encode(&machine.topology))
        };
        self.keep(&meta, data.clone()).await.map_err(failed)?;
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(data)) })
    }
}

impl RaftStateMachine<TypeConfig> for StateStore {
    type SnapshotBuilder = StateStore;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership)> {
        let machine = self.machine.lock();
        Ok((machine.applied, machine.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Applied>>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let (mut answers, mut changes): (Vec<Applied>, Vec<(u64, TopologyChange)>) = Default::default();
        let mut machine = self.machine.lock();
        for entry in entries {
            machine.applied = Some(entry.log_id);
            answers.push(match entry.payload {
                EntryPayload::Blank => Applied::Done,
                EntryPayload::Membership(membership) => {
                    machine.membership = Membership::new(Some(entry.log_id), membership);
                    Applied::Done
                }
                EntryPayload::Normal(change) => {
                    let applied = machine.topology.apply(entry.log_id.index, &change);
                    if let Applied::Refused(reason) = &applied {
                        tracing::debug!(index = entry.log_id.index, ?reason, ?change, "a topology change was refused");
                    }
                    changes.push((entry.log_id.index, change));
                    applied
                }
            });
        }
        if !changes.is_empty() {
            self.published.on_applied(changes, &machine.topology);
        }
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> StateStore {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>> {
        Ok(Box::default())
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Box<Cursor<Vec<u8>>>) -> Result<()> {
        let data = snapshot.into_inner();
        let topology = topology(&data).map_err(failed)?;
        self.keep(meta, data).await.map_err(failed)?;
        let mut machine = self.machine.lock();
        machine.applied = meta.last_log_id;
        machine.membership = meta.last_membership.clone();
        machine.topology = topology;
        self.published.on_whole(&machine.topology);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>> {
        let machine = self.machine.lock();
        Ok(machine.snapshot.as_ref().map(|(meta, data)| Snapshot {
            meta: meta.clone(),
            snapshot: Box::new(Cursor::new(data.as_ref().clone())),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openraft::testing::{StoreBuilder, Suite};

    struct InTemporaryDirectory;

    impl StoreBuilder<TypeConfig, LogStore, StateStore, tempfile::TempDir> for InTemporaryDirectory {
        async fn build(&self) -> Result<(tempfile::TempDir, LogStore, StateStore)> {
            let directory = tempfile::tempdir().map_err(failed)?;
            let RaftLog { log, state, .. } = RaftLog::open(directory.path(), NODE, false).map_err(failed)?;
            Ok((directory, log, state))
        }
    }

    const NODE: identity::NodeId = identity::NodeId(7);

    /// Opens it as soon as its last user's thread has let go of it.
    fn open(directory: &Path, node: identity::NodeId, is_expected: bool) -> std::result::Result<(), String> {
        loop {
            match RaftLog::open(directory, node, is_expected) {
                Ok(_) => return Ok(()),
                Err(error) if error.to_string().contains("already open") => std::thread::yield_now(),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    #[test]
    fn a_raft_log_that_was_lost_is_not_begun_anew() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("raft.redb");
        open(directory.path(), NODE, false).expect("made");
        open(directory.path(), NODE, true).expect("it is there");
        for remains in [None, Some("")] {
            std::fs::remove_file(&path).expect("it is there");
            if let Some(text) = remains {
                std::fs::write(&path, text).expect("written");
            }
            // Each start is refused, not only the first.
            for _ in 0..2 {
                let error = open(directory.path(), NODE, true).expect_err("lost");
                assert!(error.contains("missing or empty") && error.contains("CLUSTER FORGET 0000"), "{error}");
            }
            assert_eq!(path.exists(), remains.is_some());
            std::fs::write(&path, "").expect("written");
        }
    }

    #[test]
    fn another_nodes_raft_log_and_one_of_another_version_are_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        open(directory.path(), NODE, false).expect("made");
        let error = open(directory.path(), identity::NodeId(8), true).expect_err("another node's");
        assert!(error.contains("is the raft log of node"), "{error}");
        for other in [FORMAT - 1, FORMAT + 1] {
            let written = encode(&(other, "whatever another version has here"));
            let error = check_format(&written, directory.path(), NODE).expect_err("another version");
            assert!(error.to_string().contains(&format!("written in format {other}")), "{error}");
        }
    }

    #[test]
    fn the_stores_keep_what_openraft_demands() {
        Suite::test_all(InTemporaryDirectory).expect("openraft's own suite passes");
    }
}
