//! A node's identity on disk: `<dir>/node-<port>/identity`, and the lock that keeps a second process out.
//!
//! ```text
//! starling identity 1
//! node 0123...                32 hexadecimal digits
//! cluster 4567...             or "none"
//! generation 0
//! raft-log yes                it has a raft log, and must not vote without; absent until it has, and in older files
//! checksum 89ab...            of all lines before: SHA-256, its first 16 digits
//! ```
//!
//! The file is replaced whole (written aside, synced, renamed, directory synced), so a crash leaves the old or the new
//! one. A file that does not read back stops the start: a node must not become another one by damage.

use crate::base::identity::{ClusterId, NodeId};
use sha2::{Digest, Sha256};
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

const HEADER: &str = "starling identity 1";
/// Longer than any identity: what is read at most.
const FILE_BYTES_MAX: u64 = 4096;

/// What a node remembers of who it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoredIdentity {
    pub node: NodeId,
    /// `None`: it has not joined a cluster.
    pub cluster: Option<ClusterId>,
    /// Forced recoveries of the cluster.
    pub generation: u32,
    /// Its raft log has been on the disk. A node that lost it has forgotten whom it elected and what it agreed to: voting
    /// again it could undo what was agreed.
    pub has_raft_log: bool,
}

/// A life of a node, as its directory knows it: the name of its file, and what is in it.
const LIFE: &str = "life";

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FormerLife {
    /// When it began, ms since 1970.
    pub start_ms: u64,
    /// Where other nodes reached it; `None` in files of older versions.
    pub address: Option<SocketAddr>,
}

/// Why the identity could not be read or written.
#[derive(Debug)]
pub enum IdentityError {
    /// Another process runs on this directory.
    InUse(PathBuf),
    /// The file is there, and is not what this version writes.
    Damaged {
        path: PathBuf,
        line: &'static str,
    },
    Io {
        path: PathBuf,
        error: io::Error,
    },
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IdentityError::InUse(path) => write!(f, "another process runs on {}", path.display()),
            IdentityError::Damaged { path, line } => {
                write!(f, "{} is damaged at '{line}'; restore it, or remove it to become a new node", path.display())
            }
            IdentityError::Io { path, error } => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for IdentityError {}

/// The directory of one node, held by this process alone.
#[derive(Debug)]
pub struct IdentityStore {
    directory: PathBuf,
    /// Locked as long as it is open; the system lets go of it however the process ends.
    _lock: File,
    identity: Option<StoredIdentity>,
}

impl IdentityStore {
    /// Opens `<base>/node-<port>`, making it where it is missing, and takes its lock.
    pub fn open(base: &Path, port: u16) -> Result<IdentityStore, IdentityError> {
        let directory = base.join(format!("node-{port}"));
        let failed = |error| IdentityError::Io { path: directory.clone(), error };
        fs::create_dir_all(&directory).map_err(failed)?;
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).open(directory.join("lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(IdentityError::InUse(directory)),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let identity = read(&directory.join("identity"))?;
        Ok(IdentityStore { directory, _lock: lock, identity })
    }

    /// Where the node's files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Who the node is; `None`: it has never run.
    pub fn identity(&self) -> Option<StoredIdentity> {
        self.identity
    }

    /// Begins a life of the node at an address: gives its start, ms since 1970, greater than in any life before even where the
    /// clock was set back. When this returns it is on disk.
    pub fn begin_life(&self, now_ms: u64, address: SocketAddr) -> Result<u64, IdentityError> {
        let path = self.directory.join(LIFE);
        let start_ms = now_ms.max(self.former_life()?.start_ms.saturating_add(1));
        let text = format!("{start_ms}\n{address}\n");
        replace(&self.directory, &path, text.as_bytes()).map_err(|error| IdentityError::Io { path, error })?;
        Ok(start_ms)
    }

    /// The life that began here last; that of a directory in which none has begun is at the beginning of time.
    pub fn former_life(&self) -> Result<FormerLife, IdentityError> {
        let path = self.directory.join(LIFE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(FormerLife::default()),
            Err(error) => return Err(IdentityError::Io { path, error }),
        };
        let mut lines = text.lines();
        let start_ms = lines.next().and_then(|line| line.parse().ok());
        let address = lines.next().map(str::parse).transpose();
        match (start_ms, address) {
            (Some(start_ms), Ok(address)) => Ok(FormerLife { start_ms, address }),
            _ => Err(IdentityError::Damaged { path, line: LIFE }),
        }
    }

    /// Remembers who the node is. When this returns it is on disk.
    pub fn save(&mut self, identity: StoredIdentity) -> Result<(), IdentityError> {
        let path = self.directory.join("identity");
        replace(&self.directory, &path, text(&identity).as_bytes())
            .map_err(|error| IdentityError::Io { path, error })?;
        self.identity = Some(identity);
        Ok(())
    }
}

/// Replaces a file whole, so that a crash leaves the old or the new one.
fn replace(directory: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = path.with_extension("new");
    let mut file = File::create(&aside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    File::open(directory)?.sync_all()
}

fn text(identity: &StoredIdentity) -> String {
    let cluster = identity.cluster.map_or("none".to_owned(), |cluster| cluster.to_string());
    let raft_log = if identity.has_raft_log { "raft-log yes\n" } else { "" };
    let StoredIdentity { node, generation, .. } = identity;
    let lines = format!("{HEADER}\nnode {:032x}\ncluster {cluster}\ngeneration {generation}\n{raft_log}", node.0);
    let checksum = checksum(&lines);
    format!("{lines}checksum {checksum}\n")
}

fn checksum(lines: &str) -> String {
    Sha256::digest(lines.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn read(path: &Path) -> Result<Option<StoredIdentity>, IdentityError> {
    let mut text = String::new();
    match File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(IdentityError::Io { path: path.to_owned(), error }),
    }
    parse(&text).map(Some).map_err(|line| IdentityError::Damaged { path: path.to_owned(), line })
}

/// Reads what [`text`] writes; an error is the name of the line that is wrong.
fn parse(text: &str) -> Result<StoredIdentity, &'static str> {
    let (lines, last) = text.rsplit_once("checksum ").ok_or("checksum")?;
    if last != format!("{}\n", checksum(lines)) {
        return Err("checksum");
    }
    let mut lines = lines.lines();
    if lines.next() != Some(HEADER) {
        return Err("starling identity");
    }
    let mut field = |name: &'static str| {
        let line = lines.next().ok_or(name)?;
        line.strip_prefix(name).and_then(|rest| rest.strip_prefix(' ')).ok_or(name)
    };
    let node = u128::from_str_radix(field("node")?, 16).map_err(|_| "node")?;
    let cluster = match field("cluster")? {
        "none" => None,
        digits => Some(ClusterId(u128::from_str_radix(digits, 16).map_err(|_| "cluster")?)),
    };
    let generation = field("generation")?.parse().map_err(|_| "generation")?;
    let has_raft_log = match lines.next() {
        None => false,
        Some("raft-log yes") => true,
        Some(_) => return Err("raft-log"),
    };
    Ok(StoredIdentity { node: NodeId(node), cluster, generation, has_raft_log })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_life_begins_later_than_the_one_before() {
        let base = tempfile::tempdir().expect("a directory");
        let store = IdentityStore::open(base.path(), 7000).expect("opened");
        let address = SocketAddr::from(([127, 0, 0, 1], 17000));
        let starts = [1000, 999, 999, 5000].map(|now_ms| store.begin_life(now_ms, address).expect("written"));
        assert_eq!(starts, [1000, 1001, 1002, 5000]);
    }

    #[test]
    fn a_life_says_where_it_was() {
        let base = tempfile::tempdir().expect("a directory");
        let store = IdentityStore::open(base.path(), 7000).expect("opened");
        assert_eq!(store.former_life().expect("none"), FormerLife::default());
        let address = SocketAddr::from(([127, 0, 0, 1], 17000));
        store.begin_life(1000, address).expect("written");
        assert_eq!(store.former_life().expect("read"), FormerLife { start_ms: 1000, address: Some(address) });
        let check = |text: &str, life: Option<FormerLife>| {
            fs::write(store.directory().join(LIFE), text).expect("written");
            assert_eq!(store.former_life().ok(), life, "{text:?}");
        };
        check("77\n", Some(FormerLife { start_ms: 77, address: None }));
        for damaged in ["", "x\n", "77\nx\n"] {
            check(damaged, None);
        }
    }

    #[test]
    fn an_identity_survives_and_the_port_keeps_nodes_apart() {
        let base = tempfile::tempdir().expect("a directory");
        let mut store = IdentityStore::open(base.path(), 7000).expect("opened");
        assert_eq!(store.identity(), None);
        let mut identity = StoredIdentity { node: NodeId(7), cluster: None, generation: 0, has_raft_log: false };
        store.save(identity).expect("saved");
        identity.cluster = Some(ClusterId(u128::MAX));
        identity.generation = 3;
        identity.has_raft_log = true;
        store.save(identity).expect("saved");
        drop(store);
        assert_eq!(IdentityStore::open(base.path(), 7000).expect("opened").identity(), Some(identity));
        assert_eq!(IdentityStore::open(base.path(), 7001).expect("opened").identity(), None);
    }

    #[test]
    fn a_second_process_is_refused() {
        let base = tempfile::tempdir().expect("a directory");
        let store = IdentityStore::open(base.path(), 1).expect("opened");
        assert!(matches!(IdentityStore::open(base.path(), 1), Err(IdentityError::InUse(_))));
        drop(store);
        assert!(IdentityStore::open(base.path(), 1).is_ok());
    }

    #[test]
    fn an_identity_of_before_raft_logs_were_noted_is_read() {
        let lines = format!("{HEADER}\nnode {:032x}\ncluster none\ngeneration 4\n", 5);
        let read = parse(&format!("{lines}checksum {}\n", checksum(&lines)));
        let identity = StoredIdentity { node: NodeId(5), cluster: None, generation: 4, has_raft_log: false };
        assert_eq!(read, Ok(identity));
    }

    #[test]
    fn every_damaged_byte_is_noticed() {
        let cluster = Some(ClusterId(2));
        let good = text(&StoredIdentity { node: NodeId(1), cluster, generation: 3, has_raft_log: true });
        assert!(parse(&good).is_ok());
        for at in 0..good.len() {
            let mut bytes = good.clone().into_bytes();
            bytes[at] ^= 1;
            let damaged = String::from_utf8(bytes).expect("still ASCII");
            assert!(parse(&damaged).is_err(), "byte {at}");
            assert!(parse(&good[..at]).is_err(), "cut at {at}");
        }
    }
}
