//! The state of one client: who it is, what it has selected, what it has begun.

use crate::base::acknowledge::Acknowledge;
use crate::cluster::routing::Route;
use crate::engine::waiters::Ended;
use crate::engine::watches::Watch;
use crate::engine::{Engine, Wait, Wanted};
use crate::resp::arguments::OwnedArguments;
use crate::resp::reply::Protocol;
use crate::services::Services;
use crate::services::clients::Client;
use crate::services::pubsub::Space;
use std::any::Any;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::table::Command;

/// Which replies the client wants (CLIENT REPLY).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ReplyMode {
    #[default]
    On,
    Off,
    /// Not the next one.
    SkipNext,
    /// Not this one.
    Skip,
}

/// A command that waits for EXEC.
#[derive(Debug)]
pub struct Queued {
    pub command: &'static Command,
    pub arguments: OwnedArguments,
}

/// Between MULTI and EXEC.
#[derive(Debug, Default)]
pub struct Transaction {
    pub queue: Vec<Queued>,
    /// A command was refused when it was queued: EXEC will refuse them all.
    pub aborted: bool,
    /// Bytes of the queue.
    bytes: usize,
}

/// What the client watches.
#[derive(Debug, Default)]
pub struct Watching {
    /// Database and key.
    pub keys: HashSet<(usize, Box<[u8]>)>,
    /// Keys that had expired, unnoticed, when they were watched: their removal is no change.
    pub changed: Option<Watch>,
    /// What stands for keys that are watched on another node; without it they are watched no more. The proxy knows it.
    pub elsewhere: Option<Rc<dyn Any>>,
}

impl Watching {
    /// Whether a watched key has changed, as far as this node knows: what is watched on another node may have.
    pub fn is_dirty(&self) -> bool {
        self.elsewhere.is_some() || self.changed.as_ref().is_some_and(|changed| changed.load(Ordering::Acquire))
    }

    /// The flag that a change of a watched key raises.
    pub fn flag(&mut self) -> Watch {
        Arc::clone(self.changed.get_or_insert_with(|| Arc::new(AtomicBool::new(false))))
    }
}

/// What the client listens to.
#[derive(Debug, Default)]
pub struct Subscriptions {
    pub channels: HashSet<Box<[u8]>>,
    pub patterns: HashSet<Box<[u8]>>,
    pub shards: HashSet<Box<[u8]>>,
}

impl Subscriptions {
    pub fn space(&mut self, space: Space) -> &mut HashSet<Box<[u8]>> {
        match space {
            Space::Channel => &mut self.channels,
            Space::Pattern => &mut self.patterns,
            Space::Shard => &mut self.shards,
        }
    }

    /// Channels and patterns: what Redis counts in its confirmations.
    pub fn count(&self) -> usize {
        self.channels.len() + self.patterns.len()
    }

    pub fn is_empty(&self) -> bool {
        self.channels.is_empty() && self.patterns.is_empty() && self.shards.is_empty()
    }
}

/// A command that waits. Whoever drops it, waits no more.
pub struct Blocked {
    pub wanted: Wanted,
    /// The support under which it began to wait; `None`: at a copy, whose answers need none.
    pub support: Option<u64>,
    services: Arc<Services>,
    shown: ShownBlocked,
}

impl Blocked {
    pub fn new(wanted: Wanted, support: Option<u64>, services: &Arc<Services>, client: &Arc<Client>) -> Blocked {
        let shown = ShownBlocked::new(services, client);
        *client.waiter.lock() = Some(Arc::clone(&wanted.waiter));
        Blocked { wanted, support, services: Arc::clone(services), shown }
    }
}

/// Shows others that a client's command waits for its reply, until this is dropped (CLIENT LIST, INFO).
pub struct ShownBlocked {
    services: Arc<Services>,
    client: Arc<Client>,
}

impl ShownBlocked {
    pub fn new(services: &Arc<Services>, client: &Arc<Client>) -> ShownBlocked {
        services.statistics.blocked_clients.fetch_add(1, Ordering::Relaxed);
        client.is_blocked.store(true, Ordering::Relaxed);
        ShownBlocked { services: Arc::clone(services), client: Arc::clone(client) }
    }
}

impl Drop for ShownBlocked {
    fn drop(&mut self) {
        self.services.statistics.blocked_clients.fetch_sub(1, Ordering::Relaxed);
        self.client.is_blocked.store(false, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Blocked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.wanted.fmt(f)
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        *self.shown.client.waiter.lock() = None;
        // It may have left without an end, and it may stand in the queues of other keys than the one that served it.
        self.wanted.waiter.end(Ended::TimedOut);
        self.services.engine.forget_waiter(&self.wanted.waiter);
    }
}

/// A connection whose replies wait for a quorum, until this is dropped.
#[derive(Debug)]
pub struct QuorumAsked {
    engine: Arc<Engine>,
    acknowledge: Acknowledge,
}

impl QuorumAsked {
    pub fn new(engine: &Arc<Engine>, acknowledge: Acknowledge) -> QuorumAsked {
        engine.ask_for(acknowledge, true);
        QuorumAsked { engine: Arc::clone(engine), acknowledge }
    }
}

impl Session {
    /// What the replies of this connection wait for, whatever the cluster asks for.
    #[inline]
    pub fn acknowledge(&self) -> Acknowledge {
        self.quorum.as_ref().map_or(Acknowledge::Async, |asked| asked.acknowledge)
    }
}

impl Drop for QuorumAsked {
    fn drop(&mut self) {
        self.engine.ask_for(self.acknowledge, false);
    }
}

/// Owned by the connection.
#[derive(Debug)]
pub struct Session {
    pub client: Arc<Client>,
    pub protocol: Protocol,
    pub database: usize,
    pub is_authenticated: bool,
    pub reply_mode: ReplyMode,
    pub transaction: Option<Transaction>,
    pub watching: Watching,
    pub subscriptions: Subscriptions,
    /// CLIENT NO-TOUCH: what it reads and writes is not touched.
    pub keeps_access: bool,
    /// ASKING: the next command may touch a slot that is arriving.
    pub is_asking: bool,
    /// Whether it came in by the proxy listener.
    pub is_proxied: bool,
    /// CLIENT ACK: its replies wait until a quorum has what they show.
    pub quorum: Option<QuorumAsked>,
    /// Since when, in Unix milliseconds, the current command has waited for its slot to be handed over.
    pub waiting_since_ms: Option<u64>,
    /// Since when the current command has found its shards busy.
    pub busy_since_ms: Option<u64>,
    /// The current command waits for its reply, or has waited; no other is executed meanwhile.
    pub blocked: Option<Blocked>,
    /// When the current command gives up, in Unix milliseconds, where it has waited before and is executed again.
    pub gives_up_at: Option<Option<u64>>,
    /// Where the current command goes that is executed at a copy of its slot here, if there is none after all.
    pub otherwise: Option<Route>,
    /// Arguments of the current command that are secrets, by their places: no log shows them.
    pub secrets: Vec<usize>,
}

impl Session {
    /// A client that has just connected.
    pub fn new(client: Arc<Client>, is_authenticated: bool) -> Session {
        Session {
            client,
            protocol: Protocol::Resp2,
            database: 0,
            is_authenticated,
            reply_mode: ReplyMode::On,
            transaction: None,
            watching: Watching::default(),
            subscriptions: Subscriptions::default(),
            keeps_access: false,
            is_asking: false,
            is_proxied: false,
            quorum: None,
            waiting_since_ms: None,
            busy_since_ms: None,
            blocked: None,
            gives_up_at: None,
            otherwise: None,
            secrets: Vec::new(),
        }
    }

    /// How long the current command waits for shards that others hold, and since when it has, in Unix milliseconds.
    /// Shortly; but one that has come back in vain for a while stays until it has them, or others who need fewer would
    /// always be there first.
    #[inline]
    pub fn wait(&mut self, now_ms: u64) -> (Wait, u64) {
        const PATIENCE_MS: u64 = 100;
        let since_ms = self.busy_since_ms.take().unwrap_or(now_ms);
        (if now_ms >= since_ms + PATIENCE_MS { Wait::UntilFree } else { Wait::Shortly }, since_ms)
    }

    pub fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
        self.client.resp3.store(protocol == Protocol::Resp3, Ordering::Relaxed);
    }

    pub fn select(&mut self, database: usize) {
        self.database = database;
        self.client.database.store(database, Ordering::Relaxed);
    }

    /// Begins to queue commands, or goes on with what `end_transaction` gave.
    pub fn begin_transaction(&mut self, transaction: Transaction) {
        self.transaction = Some(transaction);
        self.show_transaction();
    }

    /// Queues a command, if it is in a transaction.
    pub fn enqueue(&mut self, queued: Queued) {
        if let Some(transaction) = &mut self.transaction {
            transaction.bytes += size_of::<Queued>() + queued.arguments.memory_bytes();
            transaction.queue.push(queued);
            self.show_transaction();
        }
    }

    /// Ends the transaction, if it is in one.
    pub fn end_transaction(&mut self) -> Option<Transaction> {
        let transaction = self.transaction.take();
        if transaction.is_some() {
            self.show_transaction();
        }
        transaction
    }

    /// Bytes of the commands that wait for EXEC.
    pub fn queue_bytes(&self) -> usize {
        self.transaction.as_ref().map_or(0, |transaction| transaction.bytes)
    }

    fn show_transaction(&self) {
        let queued = self.transaction.as_ref().map_or(-1, |transaction| transaction.queue.len() as i64);
        self.client.queued.store(queued, Ordering::Relaxed);
        self.client.queue_bytes.store(self.queue_bytes(), Ordering::Relaxed);
    }

    /// Whether it may use only the commands of a subscriber: RESP3 tells messages from replies and has no such limit.
    pub fn is_limited_to_subscriber_commands(&self) -> bool {
        self.protocol == Protocol::Resp2 && !self.subscriptions.is_empty()
    }

    /// Shows others how many subscriptions and watched keys there are.
    pub fn show(&self) {
        let client = &self.client;
        client.subscriptions.store(self.subscriptions.channels.len(), Ordering::Relaxed);
        client.pattern_subscriptions.store(self.subscriptions.patterns.len(), Ordering::Relaxed);
        client.shard_subscriptions.store(self.subscriptions.shards.len(), Ordering::Relaxed);
        client.watched.store(self.watching.keys.len(), Ordering::Relaxed);
    }
}
