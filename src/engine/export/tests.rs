use super::*;
use crate::base::identity::Epoch;
use crate::engine::changes::{self, Change, NOW_MS, change};
use crate::engine::shard::SlotState;
use crate::engine::transfer::ApplyError;
use crate::engine::{Deadline, effect::Side};
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
    exports
        .take(MOVE, bytes)
        .into_iter()
        .try_for_each(|record| target.apply(record.slot, [&*record.effect].into_iter(), record.position))
}

proptest! {
    /// Whatever is done while a slot is exported, who applies the export in order has the slot.
    #[test]
    fn an_export_applied_in_order_is_the_slot(
        before in prop::collection::vec(change(), 0..200),
        during in prop::collection::vec(step(), 0..300),
    ) {
        // Several exports of one slot, one after the other: the log has been read before, or not.
        let (source, target) = (Arc::new(Engine::new(1)), Engine::new(1));
        before.iter().for_each(|change| perform(&source, change));
        let mut exports = Exports::new(Arc::clone(&source));
        exports.begin(slot(), MOVE);
        for step in &during {
            match step {
                Step::Change(change) => perform(&source, change),
                Step::Read => exports.step(slot(), NOW_MS).expect("the log is followed"),
                Step::Follow => exports.follow().expect("the log is followed"),
                Step::Deliver(bytes) => deliver(&mut exports, &target, *bytes as usize).expect("applied"),
            }
        }
        exports.follow().expect("the log is followed");
        while exports.unread(MOVE).is_some() {
            exports.step(slot(), NOW_MS).expect("the log is followed");
        }
        deliver(&mut exports, &target, usize::MAX).expect("applied");
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
    }
}

fn exporting(engine: &Arc<Engine>) -> Exports {
    let mut exports = Exports::new(Arc::clone(engine));
    exports.begin(slot(), MOVE);
    while exports.unread(MOVE).is_some() {
        exports.step(slot(), NOW_MS).expect("the log is followed");
    }
    exports
}

fn set(engine: &Engine, number: u8, bytes: &[u8]) {
    engine.lock_slot(slot(), 0, NOW_MS).set_string(&key(number), bytes, Deadline::Clear);
}

#[test]
fn writers_of_a_slot_wait_while_too_much_of_it_waits() {
    let engine = Arc::new(Engine::new(1));
    let mut exports = exporting(&engine);
    let other = Slot::of_key(b"other");
    let is_congested = |slot: Slot| engine.lock_slot(slot, 0, NOW_MS).is_congested(&[slot]);
    let value = vec![b'x'; 1024 * 1024];
    while !is_congested(slot()) {
        set(&engine, 1, &value);
        exports.follow().expect("the log is followed");
        assert!(exports.waiting_bytes(MOVE) < 2 * BACKLOG_BYTES_MAX, "nobody waits");
    }
    assert!(!is_congested(other), "only the slot's own writers wait");
    let rooms = engine.log.rooms();
    exports.take(MOVE, 1);
    assert!(is_congested(slot()), "until some of it is sent");
    exports.take(MOVE, 2 * ROOM_BYTES);
    assert!(!is_congested(slot()) && engine.log.rooms() > rooms);
    // An export that ends lets them go.
    while !is_congested(slot()) {
        set(&engine, 1, &value);
        exports.follow().expect("the log is followed");
    }
    exports.end(MOVE);
    assert!(!is_congested(slot()));
    assert!(!engine.log.is_read(), "nobody reads any more");
}

#[test]
fn writers_of_a_slot_that_begins_while_too_much_waits_wait_too() {
    let engine = Arc::new(Engine::new(1));
    let mut exports = exporting(&engine);
    let is_congested = |slot: Slot| engine.lock_slot(slot, 0, NOW_MS).is_congested(&[slot]);
    while !is_congested(slot()) {
        set(&engine, 1, &vec![b'x'; 1024 * 1024]);
        exports.follow().expect("the log is followed");
    }
    let (of_move, of_another) = (Slot::of_key(b"other"), Slot::of_key(b"another"));
    exports.begin(of_move, MOVE);
    exports.begin(of_another, MOVE + 1);
    assert_eq!((is_congested(of_move), is_congested(of_another)), (true, false));
    exports.take(MOVE, usize::MAX);
    assert!(!is_congested(of_move), "until it is sent");
}

#[test]
fn an_export_that_is_too_slow_ends_and_costs_no_more_memory_than_is_kept() {
    let engine = Arc::new(Engine::new(1));
    let mut exports = exporting(&engine);
    let value = vec![b'x'; 1024 * 1024];
    for _ in 0..100 {
        set(&engine, 1, &value);
        assert!(engine.log.kept_bytes() < 70 * 1024 * 1024, "{} bytes", engine.log.kept_bytes());
    }
    assert!(!engine.lock_slot(slot(), 0, NOW_MS).is_congested(&[slot()]), "writers don't wait for it");
    assert_eq!(exports.follow(), Err(Broken::Lost));
    assert!(!exports.has(MOVE) && !engine.log.is_read());
    assert_eq!(exports.follow(), Ok(()), "and it can begin again");
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
    exports.follow().expect("the log is followed");
    assert_eq!(exports.take(MOVE, usize::MAX).len(), 1);
}
