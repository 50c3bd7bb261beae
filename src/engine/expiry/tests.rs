use super::*;
use crate::base::slot::Slot;
use crate::engine::Deadline;
use crate::engine::changes::NOW_MS;
use crate::engine::log::Behind;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A cycle without time for more than one shard must not begin at the same one every time.
#[test]
fn short_cycles_reach_every_shard() {
    let engine = Engine::new(1);
    for number in 0..2000 {
        let key = format!("key {number}").into_bytes();
        let slot = crate::base::slot::Slot::of_key(&key);
        engine.lock_slot(slot, 0, 1).set_string(&key, b"", Deadline::At(5));
    }
    let (mut turn, mut removed) = (0, 0);
    // One step per cycle: 128 shards of 128 slots each.
    for _ in 0..20_000 {
        removed += engine.expire_cycle(0, 1, &mut turn, 10, 0).removed;
    }
    assert_eq!(removed, 2000);
}

/// A database full of expired keys keeps the cycles coming; one with few of them lets them rest.
#[test]
fn cycles_are_behind_while_many_keys_are_stale() {
    let engine = Engine::new(1);
    let set = |range: std::ops::Range<usize>, deadline| {
        for number in range {
            let key = format!("key {number}").into_bytes();
            let slot = crate::base::slot::Slot::of_key(&key);
            engine.lock_slot(slot, 0, 1).set_string(&key, b"", Deadline::At(deadline));
        }
    };
    set(0..10_000, 5);
    let (mut turn, mut removed, mut cycles) = (0, 0, 0);
    while removed < 9_000 {
        let cycle = engine.expire_cycle(0, 1, &mut turn, 10, 0);
        removed += cycle.removed;
        cycles += 1;
        assert!(cycle.removed == 0 || cycle.is_behind, "cycle {cycles} removed {} and rests", cycle.removed);
        assert!(cycles < 20_000, "{removed} keys after {cycles} cycles");
    }
    while engine.statistics().databases[0].0 > 0 {
        engine.expire_cycle(0, 1, &mut turn, 10, 1_000_000);
    }
    set(0..10_000, 1_000);
    assert_eq!(engine.expire_cycle(0, 1, &mut turn, 10, 1_000_000), Cycle { removed: 0, is_behind: false });
}

fn keys(engine: &Engine, now_ms: u64) -> Keyspace<'_> {
    engine.lock_slot(Slot::of_key(b"h"), 0, now_ms)
}

/// A hash with so many fields, of which those with the first numbers expire at NOW_MS + 10.
fn hash(engine: &Engine, fields: usize, timed: usize) {
    let names: Vec<String> = (0..fields).map(|number| number.to_string()).collect();
    let mut keys = keys(engine, NOW_MS);
    keys.hash_set(b"h", names.iter().map(|name| (name.as_bytes(), &b"value"[..]))).expect("a hash");
    let timed = names[..timed].iter().map(|name| (name.as_bytes(), Some(NOW_MS + 10)));
    keys.hash_set_deadlines(b"h", timed, 1, event::HASH_EXPIRE).expect("a hash");
}

fn stored(engine: &Engine) -> Option<usize> {
    // At time 0 nothing has expired.
    keys(engine, 0).peek(b"h").and_then(Entry::as_hash).map(Hash::len)
}

/// Fields that have expired are not seen, however many there are, and whoever comes by removes some of them.
#[test]
fn expired_fields_are_gone_at_their_moment_and_removed_little_by_little() {
    let engine = Arc::new(Engine::new(1));
    hash(&engine, 1000, 999);
    let length = |now_ms| keys(&engine, now_ms).read_hash(b"h").expect("a hash").map(|view| view.len());
    assert_eq!((length(NOW_MS + 9), stored(&engine)), (Some(1000), Some(1000)));
    assert_eq!((length(NOW_MS + 10), stored(&engine)), (Some(1), Some(1000 - FIELDS)));
    assert_eq!((length(NOW_MS + 10), stored(&engine)), (Some(1), Some(1000 - 2 * FIELDS)));
    // What has expired and still lies there does not count for writers either.
    let fields = [&b"998"[..], b"999", b"none"];
    let mut later = keys(&engine, NOW_MS + 10);
    assert_eq!(later.hash_set(b"h", std::iter::once((&b"997"[..], &b"new"[..]))), Ok(1));
    assert_eq!(later.hash_remove(b"h", fields.into_iter()), Ok(1));
    drop(later);
    assert_eq!(length(NOW_MS + 10), Some(1));
}

/// The cycle finds hashes of which fields have expired, and the last field takes the key with it; the log says all of it.
#[test]
fn cycles_remove_expired_fields() {
    let (engine, again) = (Arc::new(Engine::new(1)), Engine::new(1));
    let mut reader = engine.read_log(Behind::Lost);
    hash(&engine, 1000, 1000);
    let mut turn = 0;
    let expires = || engine.counters.iter().any(|shard| shard.databases[0].expires());
    assert_eq!(engine.expire_cycle(0, 1, &mut turn, NOW_MS, 1_000_000).removed, 0);
    while expires() {
        assert!(engine.expire_cycle(0, 1, &mut turn, NOW_MS + 10, 1_000_000).is_behind);
    }
    assert_eq!(stored(&engine), None);
    let expired = engine.counters.iter().map(|shard| shard.expired_fields.load(Ordering::Relaxed)).sum::<u64>();
    assert_eq!(expired, 1000);
    for chunk in reader.take(usize::MAX).expect("everything is kept") {
        for (group, _) in chunk.groups() {
            again.replay(group).expect("it is replayed");
        }
    }
    assert_eq!(stored(&again), None);
}
