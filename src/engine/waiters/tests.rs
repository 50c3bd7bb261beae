use super::*;
use crate::base::identity::Epoch;
use crate::engine::effect::Side;
use crate::engine::shard::SlotState;
use crate::values::list::List;
use std::sync::atomic::{AtomicUsize, Ordering};

const KEYS: usize = 100;

fn key(number: usize) -> Vec<u8> {
    format!("key {number}").into_bytes()
}

/// A waiter for the first element of any of these lists; its reply is the element.
fn popper(keys: &[Vec<u8>]) -> Arc<Waiter> {
    let serve = |keyspace: &mut Keyspace<'_>, key: &[u8]| {
        keyspace.peek_collection::<List>(key).ok().flatten()?;
        let mut popped = Vec::new();
        keyspace.list_pop(key, Side::Front, 1, |element| popped = element.to_vec()).ok()?;
        Some(popped)
    };
    Waiter::new(0, keys.iter().map(Vec::as_slice), None, Box::new(serve))
}

fn push(engine: &Engine, key: &[u8], element: usize) {
    let mut keyspace = engine.lock_slot(Slot::of_key(key), 0, 1);
    keyspace.list_push(key, Side::Back, std::iter::once(element.to_string().as_bytes())).expect("a list");
}

fn enlist(engine: &Engine, keys: &[Vec<u8>]) -> Arc<Waiter> {
    let waiter = popper(keys);
    engine.lock_slots(keys.iter().map(|key| Slot::of_key(key)), 0, 1).enlist(&waiter);
    waiter
}

/// The element that a waiter was served with, and that it was served.
fn served(waiter: &Waiter) -> Option<usize> {
    match waiter.take_end()? {
        Ended::Served { reply, .. } => Some(String::from_utf8_lossy(&reply).parse().expect("a number")),
        _ => None,
    }
}

fn left(engine: &Engine) -> Vec<usize> {
    let mut keyspace = engine.lock_all(0, 1);
    let mut elements = Vec::new();
    for number in 0..KEYS {
        let list = keyspace.peek_collection::<List>(&key(number)).expect("a list");
        let bytes = list.into_iter().flat_map(|list| list.range(0, list.len()).map(|element| element.to_vec()));
        elements.extend(bytes.map(|bytes| String::from_utf8_lossy(&bytes).parse::<usize>().expect("a number")));
    }
    elements
}

#[test]
fn waiters_are_served_in_the_order_of_coming_and_once() {
    let engine = Engine::new(1);
    let (both, second) = (enlist(&engine, &[key(1), key(2)]), enlist(&engine, &[key(2)]));
    push(&engine, &key(1), 10);
    push(&engine, &key(2), 20);
    push(&engine, &key(2), 21);
    assert_eq!((served(&both), served(&second)), (Some(10), Some(20)));
    assert_eq!(left(&engine), [21]);
    let shard = engine.placement().shard(Slot::of_key(&key(2)));
    assert!(engine.shards[shard].lock().waiters.is_empty(), "nobody is remembered");
}

/// What is pushed and taken away under one set of locks never was, for those who wait.
#[test]
fn waiters_see_what_is_there_when_the_locks_are_released() {
    let engine = Engine::new(1);
    let waiter = enlist(&engine, &[key(1)]);
    {
        let mut keyspace = engine.lock_all(0, 1);
        keyspace.list_push(&key(1), Side::Back, [&b"1"[..], b"2"].into_iter()).expect("a list");
        keyspace.list_pop(&key(1), Side::Front, 1, |_| {}).expect("a list");
    }
    assert_eq!(served(&waiter), Some(2));
    let waiter = enlist(&engine, &[key(1)]);
    {
        let mut keyspace = engine.lock_all(0, 1);
        keyspace.list_push(&key(1), Side::Back, std::iter::once(&b"3"[..])).expect("a list");
        keyspace.delete(&key(1));
    }
    assert_eq!(waiter.take_end(), None);
    // Another kind of value does not serve it, and does not end it.
    engine.lock_all(0, 1).set_string(&key(1), b"4", crate::engine::Deadline::Clear);
    assert_eq!(waiter.take_end(), None);
    engine.lock_all(0, 1).delete(&key(1));
    push(&engine, &key(1), 5);
    assert_eq!(served(&waiter), Some(5));
}

#[test]
fn one_that_waits_no_more_is_passed_over() {
    let engine = Engine::new(1);
    let (gone, timed_out, waiting) =
        (enlist(&engine, &[key(1)]), enlist(&engine, &[key(1)]), enlist(&engine, &[key(1)]));
    assert!(gone.end(Ended::TimedOut));
    engine.forget_waiter(&gone);
    assert!(timed_out.end(Ended::TimedOut) && !timed_out.end(Ended::Again), "it ends once");
    push(&engine, &key(1), 1);
    assert_eq!((served(&gone), served(&timed_out), served(&waiting)), (None, None, Some(1)));
}

/// A waiter that needs another shard than that of its key is served by who pushes, before he goes on.
#[test]
fn a_waiter_may_need_a_shard_that_is_not_locked() {
    let engine = Engine::new(1);
    let serve = |keyspace: &mut Keyspace<'_>, from: &[u8]| {
        keyspace.peek_collection::<List>(from).ok().flatten()?;
        let mut moved = Vec::new();
        keyspace.list_pop(from, Side::Front, 1, |element| moved = element.to_vec()).ok()?;
        keyspace.list_push(&key(2), Side::Back, std::iter::once(&moved[..])).ok()?;
        Some(moved)
    };
    let also = Some(Slot::of_key(&key(2)));
    let mover = Waiter::new(0, std::iter::once(&key(1)[..]), also, Box::new(serve));
    engine.lock_slot(Slot::of_key(&key(1)), 0, 1).enlist(&mover);
    let (behind, chained) = (enlist(&engine, &[key(1)]), enlist(&engine, &[key(2)]));
    push(&engine, &key(1), 1);
    assert_eq!((served(&mover), served(&chained)), (Some(1), Some(1)), "what it pushes serves the next");
    assert_eq!(behind.take_end(), None);
    push(&engine, &key(1), 2);
    assert_eq!(served(&behind), Some(2));
}

#[test]
fn waiters_of_a_slot_that_goes_elsewhere_ask_again() {
    let engine = Engine::new(1);
    let (here, stays) = (enlist(&engine, &[key(1)]), enlist(&engine, &[key(2)]));
    engine.set_slot(Slot::of_key(&key(1)), SlotState::Frozen, Epoch(1));
    assert_eq!(here.take_end(), None, "it may stay");
    engine.set_slot(Slot::of_key(&key(1)), SlotState::Elsewhere, Epoch(2));
    assert_eq!((here.take_end(), stays.take_end()), (Some(Ended::Again), None));
}

/// 10,000 waiters on 100 keys; threads push one by one and several under one set of locks, others end waiters: whoever is
/// served is so in the order of coming, and no element is lost or comes twice.
#[test]
fn ten_thousand_waiters_lose_and_double_nothing() {
    const WAITERS: usize = 10_000;
    const PUSHERS: usize = 4;
    const PER_KEY: usize = 80;
    let engine = Arc::new(Engine::new(1));
    // Round robin, so that each key has waiters of its own in a known order; every seventh waits for a second key.
    let waiters: Vec<(usize, bool, Arc<Waiter>)> = (0..WAITERS)
        .map(|number| {
            let (own, has_two) = (number % KEYS, number % 7 == 0);
            let keys = if has_two { vec![key(own), key((own + 1) % KEYS)] } else { vec![key(own)] };
            (own, has_two, enlist(&engine, &keys))
        })
        .collect();
    let ended = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for pusher in 0..PUSHERS {
            let engine = &engine;
            scope.spawn(move || {
                // Each key has one pusher, whose elements rise.
                for round in 0..PER_KEY / 2 {
                    for own in (pusher..KEYS).step_by(PUSHERS) {
                        let element = own * PER_KEY + round * 2;
                        if round % 2 == 0 {
                            push(engine, &key(own), element);
                            push(engine, &key(own), element + 1);
                        } else {
                            let texts = [element.to_string(), (element + 1).to_string()];
                            let elements = texts.iter().map(|text| text.as_bytes());
                            engine.lock_all(0, 1).list_push(&key(own), Side::Back, elements).expect("a list");
                        }
                    }
                }
            });
        }
        for (_, _, waiter) in waiters.iter().skip(3).step_by(11) {
            if waiter.end(Ended::TimedOut) {
                ended.fetch_add(1, Ordering::Relaxed);
                engine.forget_waiter(waiter);
            }
        }
    });
    let mut seen: Vec<usize> = left(&engine);
    let mut last = [None; KEYS];
    for (own, has_two, waiter) in &waiters {
        let Some(element) = served(waiter) else { continue };
        seen.push(element);
        if !has_two {
            assert!(last[*own].is_none_or(|last| last < element), "key {own}: {element} after {:?}", last[*own]);
            last[*own] = Some(element);
        }
    }
    seen.sort_unstable();
    let all: Vec<usize> = (0..KEYS * PER_KEY).collect();
    assert!(seen == all, "{} of {} elements were seen", seen.len(), all.len());
    assert!(ended.load(Ordering::Relaxed) > 0);
}
