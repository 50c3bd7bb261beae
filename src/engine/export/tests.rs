mod throttling;

use super::*;
use crate::base::identity::Epoch;
use crate::engine::changes::{self, Change, NOW_MS, change};
use crate::engine::effect::encode;
use crate::engine::shard::SlotState;
use crate::engine::transfer::ApplyError;
use crate::engine::{Deadline, Keyspace, effect::Side};
use crate::values::hashing::table_hash;
use crate::values::segments::hash_position;
use crate::values::{Limits, Set, Value};
use proptest::prelude::*;

const MOVE: u64 = 7;

/// Keys of one slot.
fn key(number: u8) -> Vec<u8> {
    format!("{{tag}}{number}").into_bytes()
}

fn slot() -> Slot {
    Slot::of_key(b"{tag}")
}

#[derive(Clone, Debug)]
enum Step {
    Change(Change),
    /// The next entries are read.
    Read,
    /// The log is read.
    Follow,
    /// What waits is delivered, in part.
    Deliver(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => change().prop_map(Step::Change),
        2 => Just(Step::Read),
        1 => Just(Step::Follow),
        1 => any::<u16>().prop_map(Step::Deliver),
    ]
}

fn perform(engine: &Engine, change: &Change) {
    match change {
        Change::Expire(after) => {
            let later = NOW_MS + u64::from(*after);
            for number in 0..120 {
                engine.lock_slot(slot(), 0, later).exists(&key(number));
            }
        }
        _ => changes::make(&mut engine.lock_slot(slot(), 0, NOW_MS), change, &key),
    }
}

fn deliver(exports: &mut Exports, target: &Engine, bytes: usize) -> Result<(), ApplyError> {
    exports.take(MOVE, bytes).into_iter().try_for_each(|record| {
        let effects = Some(&*record.effect).filter(|effects| !effects.is_empty());
        target.apply(record.slot, effects.into_iter(), record.position)
    })
}

/// Changes of collections, a few of each kind, with so many elements that they go in pieces; often all are removed.
fn large_change() -> impl Strategy<Value = Change> {
    let many = || prop::collection::vec(0..60u8, 1..30);
    let pairs = || prop::collection::vec((0..60u8, any::<u8>()), 1..30);
    let side = || prop_oneof![Just(Side::Front), Just(Side::Back)];
    let any_key = || prop_oneof![0..3u8, 36..38u8, 40..43u8, 60..62u8, 80..82u8, 100..102u8];
    prop_oneof![
        6 => (40..43u8, side(), many()).prop_map(|(k, s, v)| Change::Push(k, s, v)),
        6 => (40..43u8, side(), 0..30u8).prop_map(|(k, s, c)| Change::Pop(k, s, c)),
        2 => (40..43u8, 0..60u8, any::<u8>()).prop_map(|(k, i, v)| Change::Insert(k, i, v)),
        2 => (40..43u8, 0..60u8, any::<u8>()).prop_map(|(k, i, v)| Change::SetAt(k, i, v)),
        2 => (40..43u8, 0..60u8, 1..9u8).prop_map(|(k, i, s)| Change::RemoveAt(k, i, s)),
        1 => (40..43u8, 0..9u8, 0..60u8).prop_map(|(k, i, c)| Change::Trim(k, i, c)),
        3 => (60..62u8, pairs()).prop_map(|(k, v)| Change::HashSet(k, v)),
        3 => (60..62u8, many()).prop_map(|(k, v)| Change::HashRemove(k, v)),
        3 => (80..82u8, many()).prop_map(|(k, v)| Change::SetAdd(k, v)),
        2 => (80..82u8, many()).prop_map(|(k, v)| Change::SetRemove(k, v)),
        1 => (80..82u8, 0..60u8).prop_map(|(k, c)| Change::SetPop(k, c)),
        3 => (100..102u8, pairs()).prop_map(|(k, v)| Change::Put(k, v)),
        2 => (100..102u8, many()).prop_map(|(k, v)| Change::Remove(k, v)),
        1 => (100..102u8, 0..60u8).prop_map(|(k, c)| Change::PopLowest(k, c)),
        6 => (36..38u8, changes::stream_edits(30)).prop_map(|(k, v)| Change::Stream(k, v)),
        3 => (any_key(), prop::option::of(any::<u16>())).prop_map(|(k, d)| Change::Deadline(k, d)),
        2 => any_key().prop_map(Change::Delete),
        1 => (any_key(), any::<u8>()).prop_map(|(k, v)| Change::Set(k, v, None)),
        1 => (any_key(), any::<u8>()).prop_map(|(k, v)| Change::Append(k, v)),
        4 => (0..3u8, any::<u8>()).prop_map(|(k, v)| Change::Append(k, v)),
        4 => (0..3u8, 0..60u8, any::<u8>()).prop_map(|(k, o, v)| Change::SetRange(k, o, v)),
        1 => (0..3u8, 1..60u8, prop::option::of(any::<u8>())).prop_map(|(k, l, v)| Change::Edit(k, l, v)),
        1 => (0..3u8, any::<i8>()).prop_map(|(k, v)| Change::Increment(k, v)),
        2 => (any_key(), any_key()).prop_map(|(k, t)| Change::Rename(k, t)),
        2 => (any_key(), any_key()).prop_map(|(k, t)| Change::Copy(k, t, 0)),
        1 => any_key().prop_map(|k| Change::Move(k, 0)),
        1 => any_key().prop_map(|k| Change::Push(k, Side::Back, vec![1])),
        1 => any::<u16>().prop_map(Change::Expire),
    ]
}

fn large_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => large_change().prop_map(Step::Change),
        8 => Just(Step::Read),
        1 => Just(Step::Follow),
        1 => any::<u16>().prop_map(Step::Deliver),
    ]
}

/// Exports the slot while things happen to it, and afterwards: who applies that in order has the slot.
fn check(before: &[Change], during: &[Step], portion: Portion) -> Result<(), TestCaseError> {
    let (source, target) = (Arc::new(Engine::new(1)), Engine::new(1));
    if portion.elements < PORTION.elements {
        // Collections are small, and have their large forms all the same.
        source.set_limits(Limits {
            hash_max_listpack_entries: 4,
            list_max_listpack_size: 3,
            set_max_intset_entries: 4,
            set_max_listpack_entries: 4,
            zset_max_listpack_entries: 4,
            ..Limits::default()
        });
    }
    before.iter().for_each(|change| perform(&source, change));
    let mut exports = Exports::new(Arc::clone(&source));
    exports.portion = portion;
    exports.begin(slot(), MOVE);
    for step in during {
        match step {
            Step::Change(change) => perform(&source, change),
            Step::Read => exports.step(slot(), MOVE, NOW_MS).expect("the log is followed"),
            Step::Follow => exports.follow().expect("the log is followed"),
            Step::Deliver(bytes) => deliver(&mut exports, &target, *bytes as usize).expect("applied"),
        }
    }
    exports.follow().expect("the log is followed");
    while exports.unread(MOVE).is_some() {
        exports.step(slot(), MOVE, NOW_MS).expect("the log is followed");
    }
    deliver(&mut exports, &target, usize::MAX).expect("applied");
    before.iter().for_each(|change| perform(&source, change));
    exports.follow().expect("the log is followed");
    prop_assert!(exports.slots[&(slot(), MOVE)].is_complete && exports.unread(MOVE).is_none(), "for good");
    deliver(&mut exports, &target, usize::MAX).expect("applied");
    prop_assert_eq!(source.position(slot()), target.position(slot()));
    prop_assert_eq!(source.digest(slot()), target.digest(slot()));
    // Who has it lacks nothing, and is told so; who has something else is.
    let held = target.position(slot());
    exports.begin_following(MOVE + 1);
    prop_assert_eq!(exports.begin_at(slot(), MOVE + 1, held, None), Ok(true));
    exports.begin_following(MOVE + 2);
    let other = Position { seq: held.seq + 1, ..held };
    prop_assert_eq!(exports.begin_at(slot(), MOVE + 2, other, None), Ok(false));
    let all = |engine: &Engine| changes::contents(engine, 0, [slot()].into_iter());
    let unexpired = |engine: &Engine| {
        // An entry that has expired is not sent, and is removed by an effect of its own, some time.
        let mut keys = engine.lock_slot(slot(), 0, NOW_MS);
        let mut names = Vec::new();
        keys.visit_slot(slot(), |entry| names.push(entry.key().to_vec()));
        names.sort();
        names
    };
    prop_assert_eq!(all(&source), all(&target));
    prop_assert_eq!(unexpired(&source), unexpired(&target));
    prop_assert_eq!(exports.waiting_bytes(MOVE), 0);
    Ok(())
}

proptest! {
    /// Whatever is done while a slot is exported, who applies the export in order has the slot.
    #[test]
    fn an_export_applied_in_order_is_the_slot(
        before in prop::collection::vec(change(), 0..200),
        during in prop::collection::vec(step(), 0..300),
    ) {
        check(&before, &during, PORTION)?;
    }

    /// And so it is when collections go in pieces, while elements come and go on both sides of what is sent.
    #[test]
    fn an_export_in_pieces_applied_in_order_is_the_slot(
        before in prop::collection::vec(large_change(), 0..40),
        during in prop::collection::vec(large_step(), 0..120),
        elements in 1..8usize,
        bytes in prop_oneof![1..30usize, 1..2000usize],
    ) {
        check(&before, &during, Portion { elements, bytes })?;
    }
}

fn exporting(engine: &Arc<Engine>) -> Exports {
    let mut exports = Exports::new(Arc::clone(engine));
    exports.begin(slot(), MOVE);
    while exports.unread(MOVE).is_some() {
        exports.step(slot(), MOVE, NOW_MS).expect("the log is followed");
    }
    exports
}

fn set(engine: &Engine, number: u8, bytes: &[u8]) {
    engine.lock_slot(slot(), 0, NOW_MS).set_string(&key(number), bytes, Deadline::Clear);
}

/// What was under way is gone before it was read to its end: nothing is left to be read, and that is said all the same.
#[test]
fn a_slot_whose_last_value_is_deleted_on_its_way_is_complete() {
    let engine = Arc::new(Engine::new(1));
    set(&engine, 1, &vec![b'x'; 10 * PORTION.bytes]);
    let mut exports = Exports::new(Arc::clone(&engine));
    exports.begin(slot(), MOVE);
    while exports.slots[&(slot(), MOVE)].is_read() || exports.waiting(MOVE) < 3 {
        exports.step(slot(), MOVE, NOW_MS).expect("the log is followed");
    }
    engine.lock_slot(slot(), 0, NOW_MS).delete(&key(1));
    exports.follow().expect("the log is followed");
    while exports.unread(MOVE).is_some() {
        exports.step(slot(), MOVE, NOW_MS).expect("the log is followed");
    }
    let last = exports.take(MOVE, usize::MAX).pop();
    assert_eq!(last.map(|record| record.kind), Some(RecordKind::Complete));
}

#[test]
fn a_gap_in_a_slots_history_is_found() {
    let engine = Arc::new(Engine::new(1));
    let mut exports = exporting(&engine);
    set(&engine, 1, b"1");
    exports.follow().expect("the log is followed");
    let (shard, at) = (engine.placement().shard(slot()), engine.placement().slot_in_shard(slot()));
    engine.lock_slot(slot(), 0, 0).locks.shard(shard).advance(at);
    set(&engine, 1, b"2");
    assert!(matches!(exports.follow(), Err(Broken::Gap(gap, _)) if gap == slot()));
}

#[test]
fn a_slot_that_is_elsewhere_is_neither_counted_nor_walked() {
    let engine = Engine::new(1);
    // Keys that are counted, and keys that are found.
    let count = || {
        let counted = engine.lock_all(0, NOW_MS).key_count();
        (counted, changes::contents(&engine, 0, Slot::all()).len())
    };
    set(&engine, 1, b"1");
    assert_eq!(count(), (1, 1));
    engine.set_slot(slot(), SlotState::Elsewhere, Epoch(2));
    let mut keys = engine.lock_all(0, NOW_MS);
    assert_eq!((keys.key_count(), keys.slot_key_count(slot()), keys.random_key()), (0, 0, None));
    assert_eq!(keys.flush(Some(0)), 0);
    drop(keys);
    engine.set_slot(slot(), SlotState::Serving, Epoch(3));
    assert_eq!(count(), (1, 1));
    assert_eq!(engine.clear_slot(slot()), 1);
    assert_eq!(count(), (0, 0));
}

#[test]
fn a_list_of_many_elements_is_one_effect() {
    let engine = Arc::new(Engine::new(1));
    let mut exports = exporting(&engine);
    let elements: Vec<Vec<u8>> = (0..1000).map(|number: u32| number.to_string().into_bytes()).collect();
    let pushed = elements.iter().map(Vec::as_slice);
    engine.lock_slot(slot(), 0, NOW_MS).list_push(&key(1), Side::Back, pushed).expect("a list");
    exports.take(MOVE, usize::MAX);
    exports.follow().expect("the log is followed");
    assert_eq!(exports.take(MOVE, usize::MAX).len(), 1);
}

/// Elements in all effects that wait, and the most in one; effects that add nothing have none.
fn waiting_elements(exports: &mut Exports) -> (usize, usize) {
    let counts: Vec<usize> = exports
        .take(MOVE, usize::MAX)
        .iter()
        .map(|record| match Effect::decode(&mut &*record.effect) {
            Some(Effect::SetAdd { members, .. }) => members.len(),
            Some(Effect::PutValue { .. }) => panic!("a collection that goes whole"),
            _ => 0,
        })
        .collect();
    (counts.iter().sum(), counts.into_iter().max().unwrap_or(0))
}

#[test]
fn a_large_set_goes_in_pieces_and_what_concerns_the_rest_does_not_go_twice() {
    let engine = Arc::new(Engine::new(1));
    let member = |number: u32| number.to_string().into_bytes();
    let members: Vec<Vec<u8>> = (0..10_000).map(member).collect();
    let names = |of: &'static str, members: &[Vec<u8>]| {
        let members: Vec<&[u8]> = members.iter().map(Vec::as_slice).collect();
        let mut keys = engine.lock_slot(slot(), 0, NOW_MS);
        match of {
            "add" => keys.set_add(&key(1), members.into_iter()),
            _ => keys.set_remove(&key(1), members.into_iter()),
        }
        .expect("a set")
    };
    names("add", &members);
    let mut exports = Exports::new(Arc::clone(&engine));
    exports.begin(slot(), MOVE);
    // The key is found; then the first half of its members is read.
    let mut sent = 0;
    while sent < 5_000 {
        exports.step(slot(), MOVE, NOW_MS).expect("the log is followed");
        let (elements, most) = waiting_elements(&mut exports);
        assert!(most <= 2 * PORTION.elements, "{most} under one lock");
        sent += elements;
    }
    // All members come anew: only those that are sent go at once.
    names("remove", &members[1..]);
    names("add", &members[1..]);
    exports.follow().expect("the log is followed");
    let (again, _) = waiting_elements(&mut exports);
    assert!((sent - 1..=sent).contains(&again), "{again} of {sent}");
    while exports.unread(MOVE).is_some() {
        exports.step(slot(), MOVE, NOW_MS).expect("the log is followed");
        sent += waiting_elements(&mut exports).0;
    }
    assert_eq!(sent, members.len());
}

#[test]
fn a_long_string_goes_in_pieces_and_what_is_written_behind_them_goes_once() {
    let (engine, target) = (Arc::new(Engine::new(1)), Engine::new(1));
    let mut exports = exporting(&engine);
    let bytes: Vec<u8> = (0..1_000_000u32).map(|at| (at / 7) as u8).collect();
    set(&engine, 1, &bytes);
    exports.end(MOVE);
    exports.begin(slot(), MOVE);
    let mut sent = Vec::new();
    let mut longest = 0;
    while exports.unread(MOVE).is_some() {
        exports.step(slot(), MOVE, NOW_MS).expect("the log is followed");
        // Written where something is sent, where nothing is, and at the end.
        let mut keys = engine.lock_slot(slot(), 0, NOW_MS);
        keys.set_range(&key(1), 10, b"early").expect("a string");
        keys.set_range(&key(1), 999_000, b"late").expect("a string");
        keys.append(&key(1), b"behind").expect("a string");
        drop(keys);
        exports.follow().expect("the log is followed");
        for record in exports.take(MOVE, usize::MAX) {
            longest = longest.max(record.effect.len());
            sent.push(record);
        }
    }
    assert!(longest < 2 * PORTION.bytes, "{longest} bytes under one lock");
    let all: usize = sent.iter().map(|record| record.effect.len()).sum();
    assert!(all < bytes.len() + PORTION.bytes, "{all} bytes for {}", bytes.len());
    for record in sent.into_iter().filter(|record| !record.effect.is_empty()) {
        target.apply(slot(), [&*record.effect].into_iter(), record.position).expect("applied");
    }
    let contents = |engine: &Engine| changes::contents(engine, 0, [slot()].into_iter());
    assert!(contents(&engine) == contents(&target));
}

#[test]
fn many_collections_of_middle_size_are_not_read_under_one_lock() {
    let engine = Arc::new(Engine::new(1));
    let members: Vec<Vec<u8>> = (0..400u32).map(|number| format!("member {number}").into_bytes()).collect();
    for number in 0..20 {
        let members: Vec<&[u8]> = members.iter().map(Vec::as_slice).collect();
        engine.lock_slot(slot(), 0, NOW_MS).set_add(&key(number), members.into_iter()).expect("a set");
    }
    let mut exports = Exports::new(Arc::clone(&engine));
    exports.begin(slot(), MOVE);
    let mut keys = Vec::new();
    while exports.unread(MOVE).is_some() {
        exports.step(slot(), MOVE, NOW_MS).expect("the log is followed");
        let is_entry = |record: &Record| matches!(Effect::decode(&mut &*record.effect), Some(Effect::PutValue { .. }));
        keys.push(exports.take(MOVE, usize::MAX).iter().filter(|record| is_entry(record)).count());
    }
    assert_eq!((keys.iter().sum::<usize>(), keys.iter().max()), (20, Some(&1)), "{keys:?}");
}

#[test]
fn a_large_value_that_replaces_a_key_goes_in_pieces_too() {
    let (engine, target) = (Arc::new(Engine::new(1)), Engine::new(1));
    (0..200).for_each(|number| set(&engine, number, b"before"));
    let mut exports = Exports::new(Arc::clone(&engine));
    exports.begin(slot(), MOVE);
    // The first of them is sent, and others are not.
    exports.step(slot(), MOVE, NOW_MS).expect("the log is followed");
    let first = (0..200).map(key).min_by_key(|key| hash_position(table_hash(key))).expect("a key");
    let (mut members, mut put) = (Set::new(), Vec::new());
    for number in 0..20_000u32 {
        members.add(number.to_string().as_bytes(), &Limits::default());
    }
    encode::put_value(&mut put, &first, Some(NOW_MS * 2), |out| Value::Set(members).write_image(out));
    let before = engine.position(slot());
    engine.apply(slot(), [&*put].into_iter(), Position { seq: before.seq + 1, ..before }).expect("applied");
    exports.follow().expect("the log is followed");
    while exports.unread(MOVE).is_some() {
        exports.step(slot(), MOVE, NOW_MS).expect("the log is followed");
        assert!(exports.waiting_bytes(MOVE) < 2 * PORTION.bytes);
        deliver(&mut exports, &target, usize::MAX).expect("applied");
    }
    let all = |engine: &Engine| changes::contents(engine, 0, [slot()].into_iter());
    assert!(all(&engine) == all(&target), "the sets differ");
}

/// Effects come into the log between the moment when it was read and the one when the slot is locked.
#[test]
fn a_list_that_changes_at_both_ends_from_another_thread_is_the_same_afterwards() {
    let (engine, target) = (Arc::new(Engine::new(1)), Engine::new(1));
    let push = |side: Side, number: u32| {
        let element = number.to_string();
        let mut keys = engine.lock_slot(slot(), 0, NOW_MS);
        keys.list_push(&key(1), side, [element.as_bytes()].into_iter()).expect("a list");
    };
    let pop = |side: Side| {
        engine.lock_slot(slot(), 0, NOW_MS).list_pop(&key(1), side, 1, |_| {}).expect("a list");
    };
    (0..10_000).for_each(|number| push(Side::Back, number));
    let mut exports = Exports::new(Arc::clone(&engine));
    exports.portion = Portion { elements: 16, bytes: 1000 };
    exports.begin(slot(), MOVE);
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 10_000.. {
                let (here, there) = if number % 3 == 0 { (Side::Back, Side::Front) } else { (Side::Front, Side::Back) };
                push(here, number);
                pop(there);
                if is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
            }
        });
        while exports.unread(MOVE).is_some() {
            exports.step(slot(), MOVE, NOW_MS).expect("the log is followed");
            deliver(&mut exports, &target, usize::MAX).expect("applied");
        }
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    exports.follow().expect("the log is followed");
    deliver(&mut exports, &target, usize::MAX).expect("applied");
    let all = |engine: &Engine| changes::contents(engine, 0, [slot()].into_iter());
    assert!(all(&engine) == all(&target), "the lists differ");
}

/// The longest times on a processor, in microseconds; a step's are those of its lock and a little more.
#[test]
#[ignore = "a measurement: CARGO_PROFILE_TEST_OPT_LEVEL=3 cargo test --lib longest_locks -- --ignored --nocapture"]
fn longest_locks_of_large_collections_on_their_way() {
    const MILLION: u32 = 1_000_000;
    type Fill = fn(&mut Keyspace<'_>, std::ops::Range<u32>);
    fn names(numbers: std::ops::Range<u32>) -> Vec<String> {
        // In no order: neighbours in time are none in the tree of a sorted set.
        numbers.map(|number| format!("member:{}", number.wrapping_mul(2_654_435_761))).collect()
    }
    let set: Fill = |keys, numbers| {
        let names = names(numbers);
        keys.set_add(&key(1), names.iter().map(String::as_bytes)).expect("a set");
    };
    let hash: Fill = |keys, numbers| {
        let names = names(numbers);
        keys.hash_set(&key(1), names.iter().map(|name| (name.as_bytes(), &b"some value"[..]))).expect("a hash");
    };
    let list: Fill = |keys, numbers| {
        let names = names(numbers);
        keys.list_push(&key(1), Side::Back, names.iter().map(String::as_bytes)).expect("a list");
    };
    let sorted: Fill = |keys, numbers| {
        let names = names(numbers.clone());
        let scored: Vec<_> = names.iter().map(String::as_bytes).zip(numbers.map(f64::from)).collect();
        keys.sorted_set_put(&key(1), &scored, crate::engine::event::SORTED_SET_PUT).expect("a sorted set");
    };
    let same_score: Fill = |keys, numbers| {
        let names = names(numbers);
        let scored: Vec<_> = names.iter().map(|name| (name.as_bytes(), 1.0)).collect();
        keys.sorted_set_put(&key(1), &scored, crate::engine::event::SORTED_SET_PUT).expect("a sorted set");
    };
    let processor_us = || {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        now.tv_sec * 1_000_000 + now.tv_nsec / 1000
    };
    let cases: [(&str, Fill, u32); 5] = [
        ("set", set, 2 * MILLION),
        ("hash", hash, MILLION),
        ("list", list, 2 * MILLION),
        ("zset", sorted, MILLION),
        ("zset of one score", same_score, MILLION),
    ];
    for (name, fill, length) in cases {
        let (engine, target) = (Arc::new(Engine::new(1)), Engine::new(1));
        for from in (0..length).step_by(1000) {
            fill(&mut engine.lock_slot(slot(), 0, NOW_MS), from..from + 1000);
        }
        let mut exports = Exports::new(Arc::clone(&engine));
        exports.begin(slot(), MOVE);
        let (mut steps, mut applied) = (Vec::new(), Vec::new());
        while exports.unread(MOVE).is_some() {
            let before = processor_us();
            exports.step(slot(), MOVE, NOW_MS).expect("the log is followed");
            steps.push(processor_us() - before);
            let sent = exports.take(MOVE, usize::MAX);
            for record in sent.into_iter().filter(|record| !record.effect.is_empty()) {
                let before = processor_us();
                target.apply(record.slot, [&*record.effect].into_iter(), record.position).expect("applied");
                applied.push(processor_us() - before);
            }
        }
        for (what, mut times) in [("read", steps), ("applied", applied)] {
            times.sort_unstable();
            let (count, median) = (times.len(), times[times.len() / 2]);
            let high = times[times.len() * 999 / 1000];
            let longest: Vec<_> = times.iter().rev().take(5).collect();
            println!(
                "{name} of {length}, {what}: {count} times, median {median}, 99.9 % {high}, longest {longest:?} us"
            );
        }
    }
}
