//! The servers that keys come from or go to: one, or all nodes of a cluster.

use super::client::{Connection, range_of};
use crate::base::slot::{SLOT_COUNT, Slot};
use crate::files::transfer::Form;
use redis_protocol::resp2::types::OwnedFrame;
use std::io::{self, IsTerminal, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

/// For an answer about many keys, or large ones.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who the servers are told that this is.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Login {
    /// The password of the servers; REDISCLI_AUTH where it is not given.
    #[arg(short = 'a', long)]
    password: Option<String>,
    /// The user that it belongs to.
    #[arg(long)]
    user: Option<String>,
}

impl Login {
    fn open(&self, address: SocketAddr) -> io::Result<Connection> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{address}: {error}"));
        let mut connection = Connection::open(address).map_err(named)?;
        connection.set_patience(PATIENCE)?;
        let password = self.password.clone().or_else(|| std::env::var("REDISCLI_AUTH").ok());
        if let Some(password) = password {
            let words: Vec<&[u8]> = [&b"AUTH"[..]]
                .into_iter()
                .chain(self.user.as_deref().map(str::as_bytes))
                .chain([password.as_bytes()])
                .collect();
            succeeded(connection.call(&words).map_err(named)?).map_err(named)?;
        }
        Ok(connection)
    }
}

/// What is no error.
pub(super) fn succeeded(answer: OwnedFrame) -> io::Result<OwnedFrame> {
    match answer {
        OwnedFrame::Error(text) => Err(io::Error::other(text)),
        other => Ok(other),
    }
}

/// See the module.
pub(super) struct Servers {
    seed: SocketAddr,
    login: Login,
    /// Who has which slot; `None`: it is no cluster.
    owners: Option<Vec<Option<SocketAddr>>>,
}

impl Servers {
    /// Asks the server at this address whether it is one of a cluster.
    pub(super) fn find(address: &str, login: Login) -> io::Result<Servers> {
        let unknown = || io::Error::new(io::ErrorKind::InvalidInput, format!("{address}: there is no such address"));
        let seed = address.to_socket_addrs()?.next().ok_or_else(unknown)?;
        let mut servers = Servers { seed, login, owners: None };
        servers.look()?;
        Ok(servers)
    }

    /// Asks who has which slot. Whether that is another than before.
    pub(super) fn look(&mut self) -> io::Result<bool> {
        let ranges = match self.open(self.seed)?.call(&[b"CLUSTER", b"SLOTS"])? {
            OwnedFrame::Array(ranges) => ranges,
            OwnedFrame::Error(text)
                if text.contains("cluster support disabled") || text.contains("unknown command") =>
            {
                return Ok(false);
            }
            other => return Err(io::Error::other(format!("{}: {}", self.seed, shown(&other)))),
        };
        let mut owners = vec![None; SLOT_COUNT];
        for (first, last, owner) in ranges.iter().filter_map(range_of) {
            owners[first.min(SLOT_COUNT - 1)..=last.min(SLOT_COUNT - 1)].fill(Some(owner));
        }
        let is_new = self.owners.as_ref() != Some(&owners);
        self.owners = Some(owners);
        Ok(is_new)
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.owners.is_some()
    }

    /// The form of payloads that they read. Who may not ask takes it for Redis's.
    pub(super) fn form(&self) -> io::Result<Form> {
        let info = self.open(self.seed)?.text(&["INFO", "server"]).unwrap_or_default();
        Ok(if info.contains("\nvalkey_version:") { Form::Valkey } else { Form::Redis })
    }

    /// All of them.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        let Some(owners) = &self.owners else { return vec![self.seed] };
        let mut addresses: Vec<SocketAddr> = owners.iter().flatten().copied().collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    /// Who has the key; `None`: nobody.
    pub(super) fn owner_of(&self, key: &[u8]) -> Option<SocketAddr> {
        match &self.owners {
            None => Some(self.seed),
            Some(owners) => owners[Slot::of_key(key).index()],
        }
    }

    /// Somebody has said that the key is there.
    pub(super) fn set_owner(&mut self, key: &[u8], owner: SocketAddr) {
        if let Some(owners) = &mut self.owners {
            owners[Slot::of_key(key).index()] = Some(owner);
        }
    }

    pub(super) fn open(&self, address: SocketAddr) -> io::Result<Connection> {
        self.login.open(address)
    }
}

/// An answer that nobody has expected.
pub(super) fn shown(answer: &OwnedFrame) -> String {
    match answer {
        OwnedFrame::Error(text) => text.clone(),
        other => format!("an unexpected answer: {other:?}"),
    }
}

/// How far it is, on a line of a terminal that is written again and again.
pub(super) struct Bar {
    total: u64,
    is_shown: bool,
    shown_at: Option<Instant>,
}

impl Bar {
    /// Nothing is shown where errors do not go to a terminal.
    pub(super) fn new(total: u64) -> Bar {
        Bar { total, is_shown: io::stderr().is_terminal(), shown_at: None }
    }

    pub(super) fn show(&mut self, done: u64, keys: u64) {
        const EVERY: Duration = Duration::from_millis(100);
        const WIDTH: u64 = 40;
        if !self.is_shown || self.shown_at.is_some_and(|at| at.elapsed() < EVERY) {
            return;
        }
        self.shown_at = Some(Instant::now());
        let share = done.min(self.total) * WIDTH / self.total.max(1);
        let bar: String = (0..WIDTH).map(|at| if at < share { '#' } else { '.' }).collect();
        eprint!("\r[{bar}] {keys} keys ");
        let _ = io::stderr().flush();
    }

    /// Ends the line.
    pub(super) fn end(&mut self) {
        if self.shown_at.is_some() {
            eprintln!();
        }
    }
}
