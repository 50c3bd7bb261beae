//! Eviction: keys that go because memory is short, the least useful first (maxmemory-policy).
//!
//! As in Redis the worst key is approximated: a few are drawn at random, and the worst of those drawn lately goes. What is
//! drawn is spread evenly over all keys, however they are spread over slots. Nothing is locked but one shard at a time.

use super::effect::Cause;
use super::entry::Entry;
use super::event;
use super::keyspace::Keyspace;
use super::shard::{Shard, SlotTable, add};
use super::{Engine, Wait};
use crate::base::slot::Slot;
use smallvec::SmallVec;
use std::sync::atomic::Ordering;

/// Candidates that are remembered (Redis: EVPOOL_SIZE).
const CANDIDATES_MAX: usize = 16;
/// Keys drawn before the shares of the shards are looked at again.
const DRAWS_PER_LOOK: u32 = 256;
/// Shards that are tried before the caller has to come again: they are busy, or what they had is gone.
const TRIES_MAX: usize = 64;
/// Keys drawn at a time, whatever maxmemory-samples says: they are drawn under one lock.
const SAMPLES_MAX: usize = 1024;
/// Entries looked at for one with a deadline, from a random place on.
const LOOKS_FOR_DEADLINE: usize = 64;

/// Which key goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The one that nobody has accessed for the longest time.
    Idle,
    /// The one that is accessed most seldom.
    Seldom,
    /// The one whose deadline is the nearest.
    Deadline,
    Random,
}

/// What may be evicted, and in which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub order: Order,
    /// Only keys with a deadline.
    pub volatile: bool,
}

/// What came of an attempt to evict one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evicted {
    One,
    /// There is no key that may go.
    Nothing,
    /// Shards were busy, or writers have to wait for the log: later.
    Later,
}

/// A key that may go.
#[derive(Debug)]
struct Candidate {
    /// The higher, the sooner it goes.
    score: u64,
    database: usize,
    slot: Slot,
    key: Box<[u8]>,
}

/// Draws keys, and remembers the worst of them: one per thread that evicts.
#[derive(Debug, Default)]
pub struct Evictor {
    /// The worst is the last one.
    candidates: Vec<Candidate>,
    /// Keys that may go, shards before this one and itself, database by database.
    shares: Vec<(u64, usize, usize)>,
    draws_left: u32,
    policy: Option<Policy>,
}

impl Engine {
    /// Evicts one key, or removes one that has expired: the worst of some that are drawn, `samples` of them now.
    pub fn evict(&self, evictor: &mut Evictor, policy: Policy, samples: usize, now_ms: u64) -> Evicted {
        if evictor.policy != Some(policy) {
            *evictor = Evictor { policy: Some(policy), ..Evictor::default() };
        }
        for _ in 0..TRIES_MAX {
            if self.log.is_full() {
                return Evicted::Later;
            }
            let Some((database, shard)) = evictor.shard(self, policy) else { return Evicted::Nothing };
            let Some(mut keyspace) = self.try_lock_shard(Wait::Shortly, shard, database, now_ms) else { continue };
            let wanted = if policy.order == Order::Random { 1 } else { samples };
            if !keyspace.draw(shard, policy, wanted, evictor) {
                evictor.draws_left = 0;
            }
            drop(keyspace);
            while let Some(worst) = evictor.candidates.pop() {
                match self.evict_candidate(&worst, policy, now_ms) {
                    Some(true) => return Evicted::One,
                    Some(false) => {}
                    None => break,
                }
            }
        }
        Evicted::Later
    }

    /// Evicts a key that was drawn, if it is still as bad as it was; `None`: its shard is busy.
    fn evict_candidate(&self, worst: &Candidate, policy: Policy, now_ms: u64) -> Option<bool> {
        let shard = self.placement.shard(worst.slot);
        let mut keyspace = self.try_lock_shard(Wait::Shortly, shard, worst.database, now_ms)?;
        let place = keyspace.place(&worst.key);
        let is_held = keyspace.shard(place).is_held(place.slot_in_shard);
        let Some(entry) = keyspace.peek(&worst.key).filter(|_| is_held) else {
            // The look has removed what had expired, which makes room too.
            return Some(worst.score == u64::MAX);
        };
        if self.score(entry, policy, now_ms).is_none_or(|score| score < worst.score) {
            return Some(false);
        }
        if !keyspace.drop_key(place, &worst.key, Cause::Evict, event::EVICTED) {
            return Some(false);
        }
        add(&keyspace.shard(place).counters.evicted, 1);
        Some(true)
    }

    /// How soon an entry goes; `None` where it may not.
    fn score(&self, entry: &Entry, policy: Policy, now_ms: u64) -> Option<u64> {
        let deadline = entry.deadline();
        if policy.volatile && deadline.is_none() {
            return None;
        }
        if deadline.is_some_and(|deadline| deadline <= now_ms) {
            return Some(u64::MAX);
        }
        Some(match policy.order {
            Order::Idle => u64::from(self.idle_seconds(entry.access()).unwrap_or(0)),
            Order::Seldom => u64::from(u8::MAX - self.frequency(entry.access()).unwrap_or(u8::MAX)),
            Order::Deadline => u64::MAX - deadline.unwrap_or(u64::MAX),
            Order::Random => 0,
        })
    }
}

impl Evictor {
    /// A database and a shard, each as often as it has keys that may go; `None`: there are none.
    fn shard(&mut self, engine: &Engine, policy: Policy) -> Option<(usize, usize)> {
        if self.draws_left == 0 {
            self.look(engine, policy);
        }
        self.draws_left -= 1;
        let total = self.shares.last()?.0;
        let drawn = engine.random() % total;
        let at = self.shares.partition_point(|(before, ..)| *before <= drawn);
        self.shares.get(at).map(|(_, database, shard)| (*database, *shard))
    }

    /// Adds up how many keys each shard has that may go.
    fn look(&mut self, engine: &Engine, policy: Policy) {
        self.draws_left = DRAWS_PER_LOOK;
        self.shares.clear();
        let mut total = 0;
        for database in 0..engine.database_count() {
            for (shard, counters) in engine.counters.iter().enumerate() {
                let counters = &counters.databases[database];
                let count = if policy.volatile { &counters.volatile } else { &counters.keys };
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    total += count;
                    self.shares.push((total, database, shard));
                }
            }
        }
    }

    /// Remembers a key, unless it is known, or better than all that are.
    fn offer(&mut self, database: usize, slot: Slot, key: &[u8], score: u64) {
        let is_full = self.candidates.len() == CANDIDATES_MAX;
        if is_full && self.candidates.first().is_some_and(|best| score <= best.score) {
            return;
        }
        if self.candidates.iter().any(|known| known.database == database && *known.key == *key) {
            return;
        }
        if is_full {
            self.candidates.remove(0);
        }
        let at = self.candidates.partition_point(|known| known.score <= score);
        self.candidates.insert(at, Candidate { score, database, slot, key: key.into() });
    }
}

impl Keyspace<'_> {
    /// Draws keys of a locked shard, and offers them. False where there is none that may go.
    fn draw(&mut self, shard: usize, policy: Policy, samples: usize, evictor: &mut Evictor) -> bool {
        let (engine, database, now_ms) = (self.engine, self.database, self.now_ms);
        let placement = engine.placement();
        let locked = &*self.locks.shard(shard);
        let total: u64 = tables(locked, database).map(|(_, table)| weight(table, policy)).sum();
        if total == 0 {
            return false;
        }
        let mut drawn: SmallVec<[u64; 16]> = (0..samples.min(SAMPLES_MAX)).map(|_| engine.random() % total).collect();
        drawn.sort_unstable();
        let (mut before, mut next) = (0, drawn.into_iter().peekable());
        for (slot_in_shard, table) in tables(locked, database) {
            before += weight(table, policy);
            while next.next_if(|drawn| *drawn < before).is_some() {
                if let Some(entry) = draw_entry(table, policy, engine.random())
                    && let Some(score) = engine.score(entry, policy, now_ms)
                {
                    evictor.offer(database, placement.slot(shard, slot_in_shard), entry.key(), score);
                }
            }
        }
        true
    }
}

/// The slots of a shard that this node serves, with their keys in a database.
fn tables(shard: &Shard, database: usize) -> impl Iterator<Item = (usize, &SlotTable)> {
    (0..shard.slot_count())
        .filter(|slot_in_shard| shard.is_held(*slot_in_shard))
        .filter_map(move |slot_in_shard| Some((slot_in_shard, shard.table(database, slot_in_shard)?)))
}

/// How many keys of a slot may go.
fn weight(table: &SlotTable, policy: Policy) -> u64 {
    if policy.volatile { u64::from(table.volatile) } else { table.entries.len() as u64 }
}

/// A random entry of a slot that may go, if one is found soon.
fn draw_entry(table: &SlotTable, policy: Policy, random: u64) -> Option<&Entry> {
    if !policy.volatile {
        return table.entries.random(random);
    }
    let mut found = None;
    table.entries.sample(random, LOOKS_FOR_DEADLINE, |entry| {
        if found.is_none() && entry.deadline().is_some() {
            found = Some(entry);
        }
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Deadline;

    const SECOND: u64 = 1000;

    fn policy(order: Order, volatile: bool) -> Policy {
        Policy { order, volatile }
    }

    /// Keys `0..count`; `deadline` and the moment of the last access by number.
    fn engine_with(count: u64, deadline: impl Fn(u64) -> Deadline, accessed_ms: impl Fn(u64) -> u64) -> Engine {
        let engine = Engine::new(2);
        for number in 0..count {
            let key = number.to_string();
            engine.wind_access_clock(accessed_ms(number));
            let mut keyspace = engine.lock_slot(Slot::of_key(key.as_bytes()), 0, 1);
            keyspace.set_string(key.as_bytes(), b"", deadline(number));
        }
        engine
    }

    fn evict(engine: &Engine, policy: Policy, count: usize, now_ms: u64) {
        let mut evictor = Evictor::default();
        for _ in 0..count {
            assert_eq!(engine.evict(&mut evictor, policy, 5, now_ms), Evicted::One);
        }
    }

    fn left(engine: &Engine, count: u64) -> Vec<u64> {
        (0..count)
            .filter(|number| {
                let key = number.to_string();
                engine.lock_slot(Slot::of_key(key.as_bytes()), 0, 1).exists(key.as_bytes())
            })
            .collect()
    }

    #[test]
    fn the_worst_go_first() {
        // The first half has the worst keys: idle the longest, with the nearest deadlines.
        let cases = [policy(Order::Idle, false), policy(Order::Idle, true), policy(Order::Deadline, true)];
        for policy in cases {
            let deadline = |number| Deadline::At((20_000 + number) * SECOND);
            let engine = engine_with(2000, deadline, |number| number * SECOND);
            evict(&engine, policy, 1000, 2000 * SECOND);
            let left = left(&engine, 2000);
            let kept = left.iter().filter(|number| **number >= 1000).count();
            assert_eq!(left.len(), 1000);
            assert!(kept > 850, "{policy:?}: {kept} of the better half are left");
        }
    }

    #[test]
    fn what_is_accessed_often_stays() {
        let engine = engine_with(1000, |_| Deadline::Clear, |_| SECOND);
        engine.set_frequency(true, 10, 1, 60 * SECOND);
        for number in 500..1000u64 {
            let key = number.to_string();
            let mut keyspace = engine.lock_slot(Slot::of_key(key.as_bytes()), 0, 1);
            (0..200).for_each(|_| assert!(keyspace.read(key.as_bytes()).is_some()));
        }
        evict(&engine, policy(Order::Seldom, false), 500, 60 * SECOND);
        let kept = left(&engine, 1000).iter().filter(|number| **number >= 500).count();
        assert!(kept > 400, "{kept} of the better half are left");
    }

    #[test]
    fn only_keys_with_a_deadline_go_where_the_policy_says_so() {
        let deadline = |number| if number % 20 == 0 { Deadline::At(1_000_000) } else { Deadline::Clear };
        let engine = engine_with(2000, deadline, |_| SECOND);
        for order in [Order::Idle, Order::Random, Order::Deadline, Order::Seldom] {
            evict(&engine, policy(order, true), 25, SECOND);
        }
        let mut evictor = Evictor::default();
        assert_eq!(engine.evict(&mut evictor, policy(Order::Idle, true), 5, SECOND), Evicted::Nothing);
        assert_eq!(left(&engine, 2000).len(), 1900);
        assert_eq!(engine.statistics().evicted, 100);
    }

    /// A slot with most of the keys (a hash tag) gives most of those that go.
    #[test]
    fn keys_are_drawn_evenly_whatever_their_slots() {
        let engine = engine_with(1000, |_| Deadline::Clear, |_| SECOND);
        for number in 0..9000u64 {
            let key = format!("{{tag}}{number}");
            engine.lock_slot(Slot::of_key(key.as_bytes()), 0, 1).set_string(key.as_bytes(), b"", Deadline::Clear);
        }
        evict(&engine, policy(Order::Random, false), 5000, SECOND);
        let left = left(&engine, 1000).len();
        assert!((430..570).contains(&left), "{left} of 1000 are left, of all a half");
    }

    #[test]
    fn what_has_expired_is_no_eviction_and_nothing_is_evicted_of_slots_that_are_elsewhere() {
        let engine = engine_with(100, |_| Deadline::At(10), |_| SECOND);
        let mut evictor = Evictor::default();
        while engine.evict(&mut evictor, policy(Order::Idle, false), 5, SECOND) == Evicted::One {}
        assert_eq!((engine.statistics().evicted, engine.statistics().expired), (0, 100));
        let engine = engine_with(100, |_| Deadline::Clear, |_| SECOND);
        engine.set_slot_states(Slot::all().map(|slot| (slot, crate::engine::shard::SlotState::Elsewhere)));
        assert_eq!(engine.evict(&mut Evictor::default(), policy(Order::Idle, false), 5, SECOND), Evicted::Later);
    }
}
