//! The side of MIGRATE that has the keys: dumps, sends, and removes what has arrived.

use super::Options;
use crate::base::acknowledge::Acknowledge;
use crate::base::clock;
use crate::base::slot::Slot;
use crate::commands::control::transaction::forget_watches;
use crate::commands::error::CommandError;
use crate::engine::log::gate::{self, Gate, Shown};
use crate::engine::watches::Watch;
use crate::engine::{Admission, Keyspace, Wait};
use crate::rdb::payload;
use crate::services::Services;
use crate::services::target::{self, Target, TargetError};
use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// Keys that are dumped and sent together, and the bytes of payload from which no more are added: the memory that a
/// MIGRATE takes beside its largest value.
const BATCH_KEYS: usize = 128;
const BATCH_BYTES: usize = 1024 * 1024;
/// How often a key is sent that is written to all the while.
const ROUNDS_MAX: u32 = 64;
/// Before a shard or a slot is looked at again that others have.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// How long a hand-over of a slot is waited for.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

const MOVED: CommandError =
    CommandError::text("TRYAGAIN A slot has changed its node meanwhile: keys of it may be there and at the target");
const CHANGED: CommandError = CommandError::text(
    "ERR A key was written to all the while: it is still here, and at the target as it was at some moment",
);

/// Who sends the keys of a database.
pub(super) struct Source {
    services: Arc<Services>,
    database: usize,
    keeps_access: bool,
    /// The reply tells of what was done here: it leaves when the log is kept to here.
    shown: Cell<Shown>,
}

/// A key on its way.
struct Key {
    name: Box<[u8]>,
    /// How often it has been sent.
    rounds: u32,
}

/// A key that was sent.
struct Sent {
    key: Key,
    /// `None`: it is not to be removed here, or has gone already.
    watched: Option<Watched>,
}

/// A watch, as long as this lives.
struct Watched {
    services: Arc<Services>,
    database: usize,
    name: Box<[u8]>,
    flag: Watch,
}

impl Watched {
    fn has_changed(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // Who is told of a change is forgotten there.
        if !self.has_changed() {
            let name = std::mem::take(&mut self.name);
            forget_watches(&self.services.engine, vec![(self.database, name)], Arc::clone(&self.flag));
        }
    }
}

/// Requests that leave together.
#[derive(Default)]
struct Batch {
    requests: Vec<u8>,
    sent: Vec<Sent>,
}

/// Why nothing was done under a lock.
enum Hindrance {
    Busy,
    Frozen,
    Elsewhere,
    Full,
}

impl Source {
    pub(super) fn new(services: &Arc<Services>, database: usize, keeps_access: bool) -> Source {
        Source { services: Arc::clone(services), database, keeps_access, shown: Cell::default() }
    }

    /// Sends the keys that exist, and removes them unless they are copied. The reply of success.
    ///
    /// # Errors
    /// As in Redis where the target cannot be reached, or refuses some: the others have gone there all the same.
    pub(super) async fn send(&self, keys: Vec<Box<[u8]>>, options: &Options) -> Result<&'static str, CommandError> {
        let mut waiting: VecDeque<Key> = keys.into_iter().map(|name| Key { name, rounds: 0 }).collect();
        let (mut target, mut refusal) = (None, None);
        while !waiting.is_empty() {
            let batch = self.next_batch(&mut waiting, options).await?;
            if batch.sent.is_empty() {
                continue;
            }
            let target = match &mut target {
                Some(target) => target,
                None => target.insert(connect(options).await?),
            };
            target.send(&batch.requests).await.map_err(broken)?;
            for sent in batch.sent {
                match target.reply().await.map_err(broken)? {
                    Ok(()) => waiting.extend(self.settle(sent).await?),
                    Err(text) => drop(refusal.get_or_insert(text)),
                }
            }
        }
        self.until_kept().await?;
        match (target, refusal) {
            (_, Some(text)) => Err(refused(&text)),
            (None, None) => Ok("NOKEY"),
            (Some(_), None) => Ok("OK"),
        }
    }

    /// The next keys, as they are now.
    async fn next_batch(&self, waiting: &mut VecDeque<Key>, options: &Options) -> Result<Batch, CommandError> {
        let mut batch = Batch::default();
        while batch.sent.len() < BATCH_KEYS && batch.requests.len() < BATCH_BYTES {
            let Some(key) = waiting.pop_front() else { break };
            let dumped = self.locked(&key.name, false, |keyspace| self.dump(keyspace, &key, options)).await?;
            let Some((request, watched)) = dumped else { continue };
            batch.requests.extend_from_slice(&request);
            batch.sent.push(Sent { key: Key { rounds: key.rounds + 1, ..key }, watched });
        }
        Ok(batch)
    }

    /// The request that makes a key at the target what it is here; `None`: there is none, and there was none.
    fn dump(&self, keyspace: &mut Keyspace<'_>, key: &Key, options: &Options) -> Option<(Vec<u8>, Option<Watched>)> {
        keyspace.keep_access(self.keeps_access);
        let now_ms = keyspace.now_ms();
        let dumped = keyspace.read(&key.name).and_then(|entry| {
            let ttl = entry.deadline().map_or(0, |deadline| deadline.saturating_sub(now_ms).max(1));
            let payload = match (entry.as_string(), entry.as_value()) {
                (Some(string), _) => string.with_bytes(payload::of_string),
                (None, value) => payload::of_value(value?),
            };
            Some((payload, ttl))
        });
        let was_sent = key.rounds > 0;
        let command: &[u8] = if self.services.cluster.is_some() { b"RESTORE-ASKING" } else { b"RESTORE" };
        let mut request = Vec::new();
        let Some((payload, ttl)) = dumped else {
            if !was_sent {
                return None;
            }
            // It has gone here since it was sent. In place of it comes what is over: the target has none then.
            let over = [command, &key.name, b"1", &payload::of_string(b""), b"REPLACE", b"ABSTTL"];
            target::encode(&over, &mut request);
            return Some((request, None));
        };
        let ttl = ttl.to_string();
        let arguments: [&[u8]; 5] = [command, &key.name, ttl.as_bytes(), &payload, b"REPLACE"];
        let count = if options.replaces || was_sent { 5 } else { 4 };
        target::encode(&arguments[..count], &mut request);
        Some((request, (!options.copies).then(|| self.watch(keyspace, &key.name))))
    }

    fn watch(&self, keyspace: &mut Keyspace<'_>, name: &[u8]) -> Watched {
        let flag = Watch::default();
        keyspace.watch(name, Arc::clone(&flag));
        Watched { services: Arc::clone(&self.services), database: self.database, name: name.into(), flag }
    }

    /// Removes a key that has arrived; where it is no more what was sent, it is to be sent again.
    async fn settle(&self, sent: Sent) -> Result<Option<Key>, CommandError> {
        let Sent { key, watched: Some(watched) } = sent else { return Ok(None) };
        let is_settled = self
            .locked(&key.name, true, |keyspace| {
                // What has expired meanwhile has changed, whether or not somebody has met it.
                keyspace.exists(&key.name);
                let has_changed = watched.has_changed();
                if !has_changed {
                    keyspace.unwatch(&key.name, &watched.flag);
                    watched.flag.store(true, Ordering::Release);
                    keyspace.delete(&key.name);
                }
                !has_changed
            })
            .await?;
        match is_settled {
            true => Ok(None),
            false if key.rounds >= ROUNDS_MAX => Err(CHANGED),
            false => Ok(Some(key)),
        }
    }

    /// Does something under the lock of a key, as soon as it may be done.
    async fn locked<R>(
        &self,
        key: &[u8],
        writes: bool,
        mut act: impl FnMut(&mut Keyspace<'_>) -> R,
    ) -> Result<R, CommandError> {
        let (slot, begun, log) = (Slot::of_key(key), Instant::now(), &self.services.engine.log);
        loop {
            let rooms = log.rooms();
            match self.attempt(slot, writes, &mut act) {
                Ok(done) => return Ok(done),
                Err(Hindrance::Full) => log.until_room(rooms).await,
                Err(Hindrance::Elsewhere) => return Err(MOVED),
                Err(Hindrance::Frozen) if begun.elapsed() > SETTLED_AFTER => return Err(MOVED),
                Err(Hindrance::Busy | Hindrance::Frozen) => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    }

    fn attempt<R>(
        &self,
        slot: Slot,
        writes: bool,
        act: &mut impl FnMut(&mut Keyspace<'_>) -> R,
    ) -> Result<R, Hindrance> {
        let now_ms = clock::unix_us() / 1000;
        if writes && self.services.pause.current(now_ms).is_some() {
            return Err(Hindrance::Busy);
        }
        let locked = self.services.engine.try_lock_slot(Wait::Shortly, slot, self.database, now_ms);
        let mut keyspace = locked.ok_or(Hindrance::Busy)?;
        match keyspace.admits(&[slot], writes) {
            Admission::Executes => {}
            Admission::Full => return Err(Hindrance::Full),
            Admission::Frozen => return Err(Hindrance::Frozen),
            Admission::Elsewhere => return Err(Hindrance::Elsewhere),
        }
        let done = act(&mut keyspace);
        drop(keyspace);
        self.shown.set(self.shown.get().and(gate::take_shown()));
        Ok(done)
    }

    /// Waits until what was done here is kept, where replies wait for that.
    async fn until_kept(&self) -> Result<(), CommandError> {
        let log = &self.services.engine.log;
        let needed = log.needed(self.shown.get(), Acknowledge::Async);
        loop {
            match log.look(needed) {
                Gate::Open => return Ok(()),
                Gate::Closed => log.ask(),
                Gate::Failed(reason, _) => {
                    let text = format!("INDOUBT The command was executed, and may be lost: {reason}");
                    return Err(CommandError::Text(text.into()));
                }
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

/// Connects, and takes the target to where the keys go.
async fn connect(options: &Options) -> Result<Target, CommandError> {
    let mut target = Target::connect(&options.host, options.port, options.step).await.map_err(broken)?;
    let (mut requests, mut count) = (Vec::new(), 1);
    if !options.login.is_empty() {
        let login = std::iter::once(b"AUTH".as_slice()).chain(options.login.iter().map(|word| &**word));
        target::encode(&login.collect::<Vec<_>>(), &mut requests);
        count += 1;
    }
    target::encode(&[b"SELECT", options.database.to_string().as_bytes()], &mut requests);
    target.send(&requests).await.map_err(broken)?;
    for _ in 0..count {
        target.reply().await.map_err(broken)?.map_err(|text| refused(&text))?;
    }
    Ok(target)
}

fn broken(error: TargetError) -> CommandError {
    CommandError::text(match error {
        TargetError::Connecting => "IOERR error or timeout connecting to the client",
        TargetError::Writing => "IOERR error or timeout writing to target instance",
        TargetError::Reading => "IOERR error or timeout reading to target instance",
    })
}

fn refused(text: &[u8]) -> CommandError {
    CommandError::Bytes([b"ERR Target instance replied with error: ", text].concat())
}
