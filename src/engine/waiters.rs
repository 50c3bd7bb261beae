//! Who waits for which keys of a shard (BLPOP and its kin).
//!
//! A waiter is enlisted under the locks under which its command found nothing, in the order of coming. When a key with
//! waiters changes, they are served before the locks are released, one after the other, in groups of their own behind the
//! one that made the key ready; none is woken under a lock. A waiter on several keys is served once: whoever serves it, or
//! ends it, changes its state first, and other keys forget it when they meet it. One that needs a shard that is not locked
//! is served, by the same thread, as soon as the locks are released and others have been taken.
//!
//! When its slot goes elsewhere a waiter is told to ask again.

use super::Engine;
use super::effect::Cause;
use super::keyspace::{Keyspace, Place};
use super::log::gate::Shown;
use crate::base::slot::Slot;
use crate::values::hashing::table_hash;
use hashbrown::HashTable;
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::Notify;

/// Waiters of one key before those that wait no more are looked for.
const SWEEP_FROM: usize = 16;

/// Tries to serve a waiter by one of its keys: its reply, or nothing where the key does not hold what it waits for.
pub type Serve = Box<dyn Fn(&mut Keyspace<'_>, &[u8]) -> Option<Vec<u8>> + Send + Sync>;

/// How waiting has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this reply, which leaves when what it shows is kept.
    Served {
        reply: Vec<u8>,
        shown: Shown,
    },
    TimedOut,
    /// Somebody has ended it (CLIENT UNBLOCK .. ERROR).
    Unblocked,
    /// The command is to be executed again: the keys may be somewhere else.
    Again,
}

/// A command that waits.
pub struct Waiter {
    database: usize,
    keys: SmallVec<[Box<[u8]>; 1]>,
    /// A slot that serving it needs besides that of the key.
    also: Option<Slot>,
    serve: Serve,
    state: Mutex<State>,
    bell: Notify,
}

#[derive(Debug)]
enum State {
    Waiting,
    Ended(Ended),
    /// The end has been taken.
    Over,
}

impl std::fmt::Debug for Waiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Waiter({} keys)", self.keys.len())
    }
}

impl Waiter {
    /// A command that waits for one of these keys, and perhaps changes a key of another slot when it is served.
    pub fn new<'a>(
        database: usize,
        keys: impl Iterator<Item = &'a [u8]>,
        also: Option<Slot>,
        serve: Serve,
    ) -> Arc<Waiter> {
        let keys = keys.map(Box::from).collect();
        let (state, bell) = (Mutex::new(State::Waiting), Notify::new());
        Arc::new(Waiter { database, keys, also, serve, state, bell })
    }

    /// Over when it waits no more.
    pub async fn until_ended(&self) {
        while matches!(*self.state.lock(), State::Waiting) {
            self.bell.notified().await;
        }
    }

    /// Ends the waiting, and tells who waits. False where it has ended before.
    pub fn end(&self, ended: Ended) -> bool {
        let has_ended = self.end_silently(ended);
        if has_ended {
            self.wake();
        }
        has_ended
    }

    /// How it has ended; asked once.
    pub fn take_end(&self) -> Option<Ended> {
        let mut state = self.state.lock();
        match std::mem::replace(&mut *state, State::Over) {
            State::Ended(ended) => Some(ended),
            State::Waiting => {
                *state = State::Waiting;
                None
            }
            State::Over => None,
        }
    }

    fn end_silently(&self, ended: Ended) -> bool {
        let mut state = self.state.lock();
        let is_waiting = matches!(*state, State::Waiting);
        if is_waiting {
            *state = State::Ended(ended);
        }
        is_waiting
    }

    pub(super) fn wake(&self) {
        self.bell.notify_one();
    }

    fn is_waiting(&self) -> bool {
        matches!(*self.state.lock(), State::Waiting)
    }
}

/// A key that somebody waits for.
#[derive(Debug)]
struct WaitedKey {
    hash: u64,
    database: usize,
    slot: Slot,
    key: Box<[u8]>,
    queue: VecDeque<Arc<Waiter>>,
    /// The length at which those that wait no more are looked for next.
    sweep_at: usize,
}

impl WaitedKey {
    fn is(&self, hash: u64, database: usize, key: &[u8]) -> bool {
        self.hash == hash && self.database == database && *self.key == *key
    }
}

/// The keys of one shard that are waited for.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    keys: HashTable<WaitedKey>,
}

impl Waiters {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether a key is waited for.
    pub(super) fn has(&self, hash: u64, database: usize, key: &[u8]) -> bool {
        self.keys.find(hash, |other| other.is(hash, database, key)).is_some()
    }

    /// The keys of a database that are waited for.
    pub(super) fn of_database(&self, database: usize) -> impl Iterator<Item = (u64, Slot, &[u8])> {
        let of_database = self.keys.iter().filter(move |waited| waited.database == database);
        of_database.map(|waited| (waited.hash, waited.slot, &*waited.key))
    }

    fn add(&mut self, hash: u64, slot: Slot, key: &[u8], waiter: &Arc<Waiter>) {
        let database = waiter.database;
        let found = self.keys.entry(hash, |other| other.is(hash, database, key), |other| other.hash);
        let new = || WaitedKey { hash, database, slot, key: key.into(), queue: VecDeque::new(), sweep_at: SWEEP_FROM };
        let mut entry = found.or_insert_with(new);
        let waited = entry.get_mut();
        if waited.queue.len() >= waited.sweep_at {
            waited.queue.retain(|waiter| waiter.is_waiting());
            waited.sweep_at = SWEEP_FROM.max(waited.queue.len() * 2);
        }
        waited.queue.push_back(Arc::clone(waiter));
    }

    /// The waiter at this place of a key's queue.
    fn at(&self, hash: u64, database: usize, key: &[u8], index: usize) -> Option<Arc<Waiter>> {
        self.keys.find(hash, |other| other.is(hash, database, key))?.queue.get(index).cloned()
    }

    /// Takes a waiter out of a key's queue.
    fn remove(&mut self, hash: u64, database: usize, key: &[u8], waiter: &Arc<Waiter>) {
        let Ok(mut entry) = self.keys.find_entry(hash, |other| other.is(hash, database, key)) else { return };
        let queue = &mut entry.get_mut().queue;
        match queue.front() {
            // Those that are served are the first, mostly.
            Some(first) if Arc::ptr_eq(first, waiter) => drop(queue.pop_front()),
            _ => queue.retain(|other| !Arc::ptr_eq(other, waiter)),
        }
        if queue.is_empty() {
            entry.remove();
        }
    }

    /// Ends the waiting for keys of a slot, which goes elsewhere: those are to be woken when the lock is released.
    pub(super) fn leave(&mut self, slot: Slot) -> Vec<Arc<Waiter>> {
        let mut ended = Vec::new();
        for waited in self.keys.extract_if(|waited| waited.slot == slot) {
            ended.extend(waited.queue.into_iter().filter(|waiter| waiter.end_silently(Ended::Again)));
        }
        ended
    }
}

/// A key with waiters that has changed.
#[derive(Debug)]
pub(super) struct ReadyKey {
    pub(super) place: Place,
    pub(super) database: usize,
    pub(super) key: Box<[u8]>,
}

/// Waiters that need more shards than were locked when their key changed.
#[derive(Debug)]
pub(super) struct LaterServed {
    ready: ReadyKey,
    also: Slot,
    now_ms: u64,
}

impl LaterServed {
    /// Serves them with the locks that they need. No lock may be held.
    pub(super) fn serve(self, engine: &Engine) {
        let LaterServed { ready, also, now_ms } = self;
        let mut keyspace = engine.lock_slots([ready.place.slot, also].into_iter(), ready.database, now_ms);
        keyspace.pending().ready.push(ready);
    }
}

impl Keyspace<'_> {
    /// Lets a waiter wait for its keys, which are locked and do not hold what it waits for.
    pub fn enlist(&mut self, waiter: &Arc<Waiter>) {
        for key in &waiter.keys {
            let place = self.place(key);
            self.shard(place).waiters.add(place.hash, place.slot, key, waiter);
        }
    }

    /// Serves those who wait for keys that have changed, and for those that change by that.
    #[cold]
    pub(super) fn serve_ready(&mut self) {
        let (database, cause) = (self.database, self.cause);
        // In the order in which they became ready; what serving makes ready comes behind.
        while let Some(ready) = self.pending.as_mut().map(|pending| std::mem::take(&mut pending.ready))
            && !ready.is_empty()
        {
            ready.into_iter().for_each(|ready| self.serve_key(ready));
        }
        (self.database, self.cause) = (database, cause);
    }

    fn serve_key(&mut self, ready: ReadyKey) {
        let ReadyKey { place, database, ref key } = ready;
        (self.database, self.cause) = (database, Cause::Client);
        let mut index = 0;
        while let Some(waiter) = self.shard(place).waiters.at(place.hash, database, key, index) {
            if let Some(also) = waiter.also
                && !self.locks.has(self.engine.placement().shard(also))
            {
                // Those behind it wait for it.
                self.afterwards.serve(LaterServed { ready, also, now_ms: self.now_ms });
                return;
            }
            if self.serve_waiter(&waiter, key) {
                self.shard(place).waiters.remove(place.hash, database, key, &waiter);
            } else if self.exists(key) {
                // It waits for another kind of value.
                index += 1;
            } else {
                return;
            }
        }
    }

    /// Serves one waiter. True where it waits no more.
    fn serve_waiter(&mut self, waiter: &Arc<Waiter>, key: &[u8]) -> bool {
        let mut state = waiter.state.lock();
        if !matches!(*state, State::Waiting) {
            return true;
        }
        let Some(reply) = (waiter.serve)(self, key) else { return false };
        self.append_group();
        self.tell_events();
        *state = State::Ended(Ended::Served { reply, shown: Shown { wrote: true, ..self.shown } });
        drop(state);
        self.afterwards.wake(Arc::clone(waiter));
        true
    }
}

impl Engine {
    /// Takes a waiter that waits no more out of the queues of its keys. Where a shard is busy it stays until somebody meets
    /// it there.
    pub fn forget_waiter(&self, waiter: &Arc<Waiter>) {
        for key in &waiter.keys {
            let slot = Slot::of_key(key);
            if let Some(mut keyspace) = self.try_lock_slot(super::Wait::Shortly, slot, waiter.database, 0) {
                let (hash, database) = (table_hash(key), waiter.database);
                let shard = keyspace.locks.shard(self.placement().shard(slot));
                shard.waiters.remove(hash, database, key, waiter);
            }
        }
    }
}

#[cfg(test)]
mod tests;
