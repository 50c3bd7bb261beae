//! Who waits, and who begins again, where what happens to a slot is more than what is sent of it.

use super::*;

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

/// A copy that lacks nothing else keeps nobody waiting: it begins again.
#[test]
fn who_only_follows_ends_where_too_much_waits() {
    let engine = Arc::new(Engine::new(1));
    let mut exports = exporting(&engine);
    let value = vec![b'x'; 1024 * 1024];
    exports.set_bounded(MOVE, false);
    let mut most = 0;
    while exports.has(MOVE) {
        most = most.max(exports.waiting_bytes(MOVE));
        assert!(!engine.lock_slot(slot(), 0, NOW_MS).is_congested(&[slot()]));
        set(&engine, 1, &value);
        exports.follow().expect("the log is followed");
    }
    assert!((FOLLOWED_BYTES_MAX - 2 * value.len()..=FOLLOWED_BYTES_MAX).contains(&most), "{most}");
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

/// A value of the key, made by `begin`, grows by `grow` after each step for ever, as long as it may: it is sent all the same.
fn check_growing(begin: impl Fn(&mut Keyspace<'_>), grow: impl Fn(&mut Keyspace<'_>)) {
    let engine = Arc::new(Engine::new(1));
    begin(&mut engine.lock_slot(slot(), 0, NOW_MS));
    let mut exports = Exports::new(Arc::clone(&engine));
    exports.begin(slot(), MOVE);
    let is_congested = || engine.lock_slot(slot(), 0, NOW_MS).is_congested(&[slot()]);
    let (mut steps, mut held) = (0, 0);
    while exports.unread(MOVE).is_some() {
        exports.step(slot(), MOVE, NOW_MS).expect("the log is followed");
        exports.take(MOVE, usize::MAX);
        match is_congested() {
            true => held += 1,
            false => grow(&mut engine.lock_slot(slot(), 0, NOW_MS)),
        }
        steps += 1;
        assert!(steps < 1_000, "it is never sent");
    }
    assert!(held > 0 && !is_congested(), "writers wait, and go on: {held} of {steps}");
    // So do those of a value that is deleted, and of a move that ends.
    begin(&mut engine.lock_slot(slot(), 0, NOW_MS));
    for ends in [false, true] {
        exports.end(MOVE);
        exports.begin(slot(), MOVE);
        while !is_congested() {
            exports.step(slot(), MOVE, NOW_MS).expect("the log is followed");
            grow(&mut engine.lock_slot(slot(), 0, NOW_MS));
            exports.take(MOVE, usize::MAX);
        }
        match ends {
            true => exports.end(MOVE),
            false => {
                engine.lock_slot(slot(), 0, NOW_MS).delete(&key(1));
                exports.follow().expect("the log is followed");
                begin(&mut engine.lock_slot(slot(), 0, NOW_MS));
            }
        }
        assert!(!is_congested());
    }
}

#[test]
fn writers_of_a_value_that_grows_faster_than_it_is_read_wait() {
    let elements: Vec<Vec<u8>> = (0..5_000u32).map(|number| number.to_string().into_bytes()).collect();
    let push = |keys: &mut Keyspace<'_>| {
        keys.list_push(&key(1), Side::Back, elements.iter().map(Vec::as_slice)).expect("a list");
    };
    check_growing(push, push);
    let append = |keys: &mut Keyspace<'_>| {
        keys.append(&key(1), &[b'x'; 300_000]).expect("a string");
    };
    check_growing(append, append);
}
