//! Who is connected: the records that CLIENT LIST shows and CLIENT KILL finds.

use super::inbox::{Inbox, Message};
use crate::engine::waiters::Waiter;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU16, AtomicU64, AtomicUsize, Ordering};

/// Where a client comes from, or what it has connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Ip(SocketAddr),
    /// The name of the Unix socket: of both sides, since the client's has none.
    Unix(Arc<str>),
}

impl Address {
    /// Whether this machine is meant.
    pub fn is_local(&self) -> bool {
        match self {
            Address::Ip(address) => address.ip().to_canonical().is_loopback(),
            Address::Unix(_) => true,
        }
    }
}

impl std::fmt::Display for Address {
    /// As Redis shows it: a Unix socket has port 0.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Ip(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "{path}:0"),
        }
    }
}

/// Text that a client gives about itself.
#[derive(Clone, Debug, Default)]
pub struct Labels {
    pub name: String,
    pub library_name: String,
    pub library_version: String,
}

/// What others may know of a connection. Written by the connection alone, except for `inbox` and `labels`.
#[derive(Debug)]
pub struct Client {
    pub id: u64,
    pub address: Address,
    pub local_address: Address,
    pub descriptor: i32,
    /// Unix milliseconds.
    pub connected_at_ms: u64,
    pub labels: Mutex<Labels>,
    pub inbox: Inbox,
    /// What its command waits with, while it waits for keys.
    pub waiter: Mutex<Option<Arc<Waiter>>>,
    /// Whether its command waits for its reply.
    pub is_blocked: AtomicBool,
    /// Unix milliseconds of the last request.
    pub active_at_ms: AtomicU64,
    pub database: AtomicUsize,
    pub subscriptions: AtomicUsize,
    pub pattern_subscriptions: AtomicUsize,
    pub shard_subscriptions: AtomicUsize,
    /// Commands queued by MULTI, -1 outside.
    pub queued: AtomicI64,
    /// Bytes of those commands.
    pub queue_bytes: AtomicUsize,
    pub watched: AtomicUsize,
    /// Index of the last command in the table; `u16::MAX` before the first.
    pub command: AtomicU16,
    pub input_bytes: AtomicUsize,
    pub output_bytes: AtomicUsize,
    pub resp3: AtomicBool,
    pub no_evict: AtomicBool,
    pub readonly: AtomicBool,
    pub closing: AtomicBool,
}

/// A client as it was accepted.
#[derive(Clone, Debug)]
pub struct Accepted {
    pub address: Address,
    pub local_address: Address,
    pub descriptor: i32,
    pub now_ms: u64,
}

impl Client {
    fn new(id: u64, accepted: Accepted) -> Client {
        Client {
            id,
            address: accepted.address,
            local_address: accepted.local_address,
            descriptor: accepted.descriptor,
            connected_at_ms: accepted.now_ms,
            labels: Mutex::default(),
            waiter: Mutex::default(),
            is_blocked: AtomicBool::new(false),
            inbox: Inbox::default(),
            active_at_ms: AtomicU64::new(accepted.now_ms),
            database: AtomicUsize::new(0),
            subscriptions: AtomicUsize::new(0),
            pattern_subscriptions: AtomicUsize::new(0),
            shard_subscriptions: AtomicUsize::new(0),
            queued: AtomicI64::new(-1),
            queue_bytes: AtomicUsize::new(0),
            watched: AtomicUsize::new(0),
            command: AtomicU16::new(u16::MAX),
            input_bytes: AtomicUsize::new(0),
            output_bytes: AtomicUsize::new(0),
            resp3: AtomicBool::new(false),
            no_evict: AtomicBool::new(false),
            readonly: AtomicBool::new(false),
            closing: AtomicBool::new(false),
        }
    }

    /// A record that stands in no registry, for tests.
    pub fn detached() -> Arc<Client> {
        let nowhere = Address::Ip(SocketAddr::from(([127, 0, 0, 1], 0)));
        let local_address = nowhere.clone();
        Arc::new(Client::new(0, Accepted { address: nowhere, local_address, descriptor: -1, now_ms: 0 }))
    }

    /// Whether it listens to channels or patterns.
    pub fn is_subscribed(&self) -> bool {
        self.subscriptions.load(Ordering::Relaxed)
            + self.pattern_subscriptions.load(Ordering::Relaxed)
            + self.shard_subscriptions.load(Ordering::Relaxed)
            > 0
    }

    /// `normal` or `pubsub`, as CLIENT LIST TYPE and the output limits call it.
    pub fn class(&self) -> &'static str {
        if self.is_subscribed() { "pubsub" } else { "normal" }
    }

    /// Bytes that the connection takes: its record, what waits in either direction, and what waits for EXEC.
    pub fn memory_bytes(&self) -> usize {
        let buffers = self.input_bytes.load(Ordering::Relaxed) + self.output_bytes.load(Ordering::Relaxed);
        buffers + self.queue_bytes.load(Ordering::Relaxed) + self.inbox.bytes() + size_of::<Client>()
    }

    /// Asks the connection to close.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.inbox.put(Message::Close);
    }
}

/// The connected clients of a node.
#[derive(Debug, Default)]
pub struct Clients {
    connected: Mutex<BTreeMap<u64, Arc<Client>>>,
    count: AtomicUsize,
    last_id: AtomicU64,
}

impl Clients {
    /// Enters a client, with an id that no other ever had.
    pub fn enter(&self, accepted: Accepted) -> Arc<Client> {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let client = Arc::new(Client::new(id, accepted));
        self.connected.lock().insert(id, Arc::clone(&client));
        self.count.fetch_add(1, Ordering::Relaxed);
        client
    }

    /// Strikes a client out.
    pub fn leave(&self, id: u64) {
        if self.connected.lock().remove(&id).is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// All of them, by id.
    pub fn list(&self) -> Vec<Arc<Client>> {
        self.connected.lock().values().cloned().collect()
    }

    pub fn get(&self, id: u64) -> Option<Arc<Client>> {
        self.connected.lock().get(&id).cloned()
    }

    /// Wakes every connection.
    pub fn wake_all(&self) {
        self.connected.lock().values().for_each(|client| client.inbox.wake());
    }
}
