//! `starling import`: the keys of a snapshot or a log of Redis, to a server or to the nodes of a cluster.

use super::client::{Connection, append_request, moved_to};
use super::servers::{Bar, Login, Servers, shown};
use crate::base::clock;
use crate::files::transfer::{self, Entry, LeftOut};
use crate::files::{Kind, words};
use crate::persistence::redis_log::RedisLog;
use clap::Parser;
use redis_protocol::resp2::types::OwnedFrame;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Keys, and bytes, that a server is sent before its answers are read.
const KEYS_AT_ONCE: usize = 256;
const BYTES_AT_ONCE: usize = 1024 * 1024;
/// How often a key is sent again while its slot changes its node, and how long is waited before.
const ATTEMPTS_MAX: u32 = 50;
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Keys that are named; of the others there is the number.
const NAMED_MAX: u64 = 20;

/// Sends the keys of a snapshot (RDB), or of a log of Redis, to a server, or each to its node of a cluster. What has expired is
/// left out, and what expires keeps its moment.
#[derive(Parser)]
#[command(name = "starling import")]
struct Options {
    /// A snapshot, Redis's appendonlydir or its manifest, or an append-only file.
    file: PathBuf,
    /// The server, or any node of the cluster.
    #[arg(long, default_value = "127.0.0.1:6379")]
    to: String,
    /// Keys that are there are replaced. Without it they stay, and are named.
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    login: Login,
}

/// Runs `starling import`. Fails where a key was refused.
pub(super) fn run(arguments: &[String]) -> ExitCode {
    let words = std::iter::once("starling import").chain(arguments.iter().map(String::as_str));
    let options = match Options::try_parse_from(words) {
        Ok(options) => options,
        Err(error) => return super::usage(&error),
    };
    let mut import = match Servers::find(&options.to, options.login.clone()) {
        Ok(servers) => Import { servers, targets: HashMap::new(), replaces: options.replace, restored: 0, refused: 0 },
        Err(error) => {
            eprintln!("nothing was imported: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = import_file(&options.file, &mut import);
    let Import { restored, refused, .. } = import;
    match ended {
        Ok(LeftOut { expired, empty, functions }) => {
            println!("{restored} keys imported, {refused} refused; left out: {expired} expired, {empty} empty");
            if functions > 0 {
                println!("{functions} libraries of functions were left out");
            }
            if refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("{}: {error}; {restored} keys were imported before, {refused} refused", options.file.display());
            ExitCode::FAILURE
        }
    }
}

fn import_file(path: &Path, import: &mut Import) -> io::Result<LeftOut> {
    let log = match Kind::of(path)? {
        Some(Kind::Rdb) if path.extension().is_none_or(|ending| ending != "aof") => {
            return import_snapshot(path, import);
        }
        Some(Kind::Rdb | Kind::Commands) => RedisLog::single(path),
        Some(Kind::RedisLog { manifest }) => RedisLog::open(&manifest)?,
        Some(Kind::Log { .. } | Kind::Segment) => {
            return Err(io::Error::other("a log of this server is loaded by starting it there, not imported"));
        }
        None => return Err(io::Error::other("no snapshot, and no log of Redis")),
    };
    // Commands say what a key holds only when all of them are executed.
    let place = std::env::temp_dir().join(format!("starling-import-{}", std::process::id()));
    std::fs::create_dir(&place)?;
    let made = crate::node::to_snapshot(&log, &place, "import.rdb");
    let imported = made.and_then(|()| import_snapshot(&place.join("import.rdb"), import));
    std::fs::remove_dir_all(&place)?;
    imported
}

fn import_snapshot(path: &Path, import: &mut Import) -> io::Result<LeftOut> {
    let mut bar = Bar::new(path.metadata()?.len());
    let left_out = transfer::read(path, clock::unix_us() / 1000, import.servers.form()?, |entry, at| {
        import.put(entry)?;
        bar.show(at, import.restored);
        Ok(())
    })?;
    import.flush_all()?;
    bar.end();
    Ok(left_out)
}

/// Keys that wait to be sent to one server.
struct Target {
    connection: Connection,
    /// What the connection has selected.
    database: u64,
    waiting: Vec<Entry>,
    bytes: usize,
}

struct Import {
    servers: Servers,
    targets: HashMap<SocketAddr, Target>,
    replaces: bool,
    restored: u64,
    refused: u64,
}

impl Import {
    fn put(&mut self, entry: Entry) -> io::Result<()> {
        if self.servers.is_cluster() && entry.database > 0 {
            let key = words::shown(&entry.key);
            let text = format!("the key {key} is in database {}, and a cluster has only database 0", entry.database);
            return Err(io::Error::other(text));
        }
        let address = self.place(entry)?;
        let target = &self.targets[&address];
        if target.waiting.len() >= KEYS_AT_ONCE || target.bytes >= BYTES_AT_ONCE {
            let again = self.flush(address)?;
            self.send_again(again)?;
        }
        Ok(())
    }

    fn flush_all(&mut self) -> io::Result<()> {
        let mut again = Vec::new();
        for address in self.targets.keys().copied().collect::<Vec<_>>() {
            again.extend(self.flush(address)?);
        }
        self.send_again(again)
    }

    /// Puts a key where it is to be sent: returns to whom.
    fn place(&mut self, entry: Entry) -> io::Result<SocketAddr> {
        let nobody = || io::Error::other(format!("nobody serves the slot of the key {}", words::shown(&entry.key)));
        let address = self.servers.owner_of(&entry.key).ok_or_else(nobody)?;
        if !self.targets.contains_key(&address) {
            let connection = self.servers.open(address)?;
            self.targets.insert(address, Target { connection, database: 0, waiting: Vec::new(), bytes: 0 });
        }
        if let Some(target) = self.targets.get_mut(&address) {
            target.bytes += entry.key.len() + entry.payload.len();
            target.waiting.push(entry);
        }
        Ok(address)
    }

    /// Sends what waits for a server. Returns what has to be sent again, for it has moved.
    fn flush(&mut self, address: SocketAddr) -> io::Result<Vec<Entry>> {
        let Some(target) = self.targets.get_mut(&address) else { return Ok(Vec::new()) };
        let entries = std::mem::take(&mut target.waiting);
        target.bytes = 0;
        let (mut requests, mut owners) = (Vec::new(), Vec::new());
        for (number, entry) in entries.iter().enumerate() {
            if entry.database != target.database {
                append_request(&mut requests, &[b"SELECT", entry.database.to_string().as_bytes()]);
                target.database = entry.database;
                owners.push(None);
            }
            let deadline = entry.deadline.unwrap_or(0).to_string();
            let mut words: Vec<&[u8]> = vec![b"RESTORE", &entry.key, deadline.as_bytes(), &entry.payload, b"ABSTTL"];
            if self.replaces {
                words.push(b"REPLACE");
            }
            append_request(&mut requests, &words);
            owners.push(Some(number));
        }
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{address}: {error}"));
        let answers = target.connection.pipeline(&requests, owners.len()).map_err(named)?;
        let mut moved = vec![false; entries.len()];
        for (owner, answer) in owners.into_iter().zip(answers) {
            match (owner, answer) {
                (Some(_), OwnedFrame::SimpleString(_)) => self.restored += 1,
                (Some(number), OwnedFrame::Error(text)) if let Some(owner) = moved_to(&text) => {
                    self.servers.set_owner(&entries[number].key, owner);
                    moved[number] = true;
                }
                (Some(number), OwnedFrame::Error(text))
                    if ["TRYAGAIN", "CLUSTERDOWN", "ASK ", "LOADING"].iter().any(|word| text.starts_with(word)) =>
                {
                    moved[number] = true;
                }
                (Some(number), answer) => self.refuse(&entries[number].key, &answer),
                (None, OwnedFrame::SimpleString(_)) => {}
                // What follows would go to another database.
                (None, answer) => return Err(named(io::Error::other(shown(&answer)))),
            }
        }
        Ok(entries.into_iter().zip(moved).filter_map(|(entry, moved)| moved.then_some(entry)).collect())
    }

    fn send_again(&mut self, mut again: Vec<Entry>) -> io::Result<()> {
        for attempt in 0..ATTEMPTS_MAX {
            if again.is_empty() {
                return Ok(());
            }
            if attempt > 0 {
                std::thread::sleep(LOOK_AGAIN);
                self.servers.look()?;
            }
            let mut addresses = Vec::new();
            for entry in again {
                addresses.push(self.place(entry)?);
            }
            addresses.sort_unstable();
            addresses.dedup();
            again = Vec::new();
            for address in addresses {
                again.extend(self.flush(address)?);
            }
        }
        match again.first() {
            None => Ok(()),
            Some(entry) => Err(io::Error::other(format!("nobody takes the key {}", words::shown(&entry.key)))),
        }
    }

    fn refuse(&mut self, key: &[u8], answer: &OwnedFrame) {
        self.refused += 1;
        if self.refused <= NAMED_MAX {
            eprintln!("the key {}: {}", words::shown(key), shown(answer));
        }
    }
}
