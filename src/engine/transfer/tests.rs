use super::*;
use crate::base::identity::Epoch;
use crate::engine::changes::{self, DATABASES, NOW_MS, group, key, perform};
use crate::engine::effect::encode;
use crate::engine::export::{Exports, RecordKind};
use crate::engine::log::{Behind, Chunk};
use proptest::prelude::*;
use std::sync::Arc;

fn same(left: &Engine, right: &Engine) -> Result<(), TestCaseError> {
    for database in 0..DATABASES {
        let contents = |engine| changes::contents(engine, database, Slot::all());
        prop_assert_eq!(contents(left), contents(right));
    }
    prop_assert_eq!(changes::positions(left), changes::positions(right));
    Ok(())
}

fn replay(engine: &Engine, chunks: &[Arc<Chunk>]) -> Result<(), ReplayError> {
    chunks.iter().flat_map(|chunk| chunk.groups()).try_for_each(|(group, _)| engine.replay(group))
}

proptest! {
    /// Whatever is done, the log alone makes the same of an empty engine: keys, deadlines and positions; and a group that
    /// comes twice, or is missing, is noticed.
    #[test]
    fn the_log_replayed_is_the_engine(groups in prop::collection::vec(group(), 1..150)) {
        let (engine, again) = (Arc::new(Engine::new(DATABASES)), Engine::new(DATABASES));
        let mut reader = engine.read_log(Behind::Lost);
        for (database, changes) in &groups {
            perform(&engine, *database, changes);
        }
        let chunks = reader.take(usize::MAX).expect("everything is kept");
        replay(&again, &chunks).expect("it is replayed");
        same(&engine, &again)?;
        let stamps: Vec<_> = chunks.iter().flat_map(|chunk| chunk.groups()).map(|(group, _)| group.stamp).collect();
        prop_assert!(stamps.is_sorted_by(|before, after| before < after), "stamps rise");
    }
}

#[test]
fn a_group_that_does_not_follow_is_refused_as_a_whole() {
    let (engine, again) = (Arc::new(Engine::new(1)), Engine::new(1));
    let mut reader = engine.read_log(Behind::Lost);
    let set = |keys: &mut Keyspace<'_>, number: u8| keys.set_string(&key(number), b"", Deadline::Clear);
    set(&mut engine.lock_all(0, NOW_MS), 1);
    {
        let mut keys = engine.lock_all(0, NOW_MS);
        set(&mut keys, 0);
        set(&mut keys, 1);
    }
    let chunks = reader.take(usize::MAX).expect("everything is kept");
    let groups: Vec<Group<'_>> = chunks.iter().flat_map(|chunk| chunk.groups()).map(|(group, _)| group).collect();
    let [first, second] = groups[..] else { panic!("two groups: {}", groups.len()) };
    let slot = Slot::of_key(&key(1));
    let gap = |seq| Err(ReplayError::Gap(slot, Position { epoch: Epoch(0), seq }));
    assert_eq!(again.replay(second), gap(2), "the first is missing");
    assert!(changes::contents(&again, 0, Slot::all()).is_empty(), "nothing of it is applied");
    assert_eq!(again.replay(first), Ok(()));
    assert_eq!(again.replay(first), gap(1), "it comes twice");
    assert_eq!(again.replay(second), Ok(()));
}

#[test]
fn bytes_that_are_no_effect_of_the_slot_are_refused() {
    let engine = Engine::new(1);
    let slot = Slot::of_key(b"{tag}");
    let (mut foreign, mut renamed, mut endless) = (Vec::new(), Vec::new(), Vec::new());
    encode::delete(&mut foreign, b"other");
    encode::rename(&mut renamed, b"{tag}", b"other");
    encode::set_range(&mut endless, b"{tag}", 1 << 40, b"x");
    for bytes in [&b""[..], b"\xff\x00", &foreign, &renamed, &endless] {
        let position = Position { epoch: Epoch(1), seq: 1 };
        assert_eq!(engine.apply(slot, [bytes].into_iter(), position), Err(ApplyError::Malformed), "{bytes:?}");
    }
}

/// A copy that readers are shown changes by its primary alone, and is shown only while it is a whole.
#[test]
fn a_copy_is_read_and_not_changed() {
    let engine = Engine::new(1);
    let (key, slot) = (b"key".as_slice(), Slot::of_key(b"key"));
    let is_shown = || engine.lock_slot(slot, 0, NOW_MS).has_copies(&[slot]);
    engine.lock_slot(slot, 0, NOW_MS).set_string(key, b"v", Deadline::At(NOW_MS + 5));
    engine.show_copy(slot);
    engine.set_slot(slot, SlotState::Elsewhere, Epoch(1));
    assert!(!is_shown(), "it was this node's when it was said");
    engine.show_copy(slot);
    assert!(is_shown());
    let before = engine.position(slot);
    let mut late = engine.lock_slot(slot, 0, NOW_MS + 10);
    assert!(late.read(key).is_none() && !late.may_note(key));
    drop(late);
    assert!(engine.lock_slot(slot, 0, NOW_MS).exists(key), "it stays until its primary removes it");
    assert_eq!(engine.position(slot), before);
    let malformed = [b"\xff".as_slice()];
    let ends: [&dyn Fn(); 4] = [
        &|| engine.hide_copy(slot),
        &|| assert!(engine.apply(slot, malformed.into_iter(), before).is_err()),
        &|| engine.set_slot(slot, SlotState::Serving, Epoch(2)),
        &|| assert_eq!(engine.clear_slot(slot), 1),
    ];
    for end in ends {
        engine.show_copy(slot);
        assert!(is_shown());
        end();
        engine.set_slot(slot, SlotState::Elsewhere, Epoch(2));
        assert!(!is_shown());
    }
}

/// What a transaction changes of a slot, and what it has removed because that had expired, is applied to a copy as one.
#[test]
fn what_a_transaction_changes_and_removes_is_one_run() {
    let engine = Arc::new(Engine::new(1));
    let [one, old, other] = [b"{k}one".as_slice(), b"{k}old", b"{k}other"];
    let slot = Slot::of_key(one);
    engine.lock_slot(slot, 0, NOW_MS).set_string(old, b"v", Deadline::At(NOW_MS + 5));
    let (mut exports, of) = (Exports::new(Arc::clone(&engine)), 1);
    exports.begin_following(of);
    assert!(exports.begin_at(slot, of, engine.position(slot), None).expect("nothing is lost"));
    let mut transaction = engine.lock_slot(slot, 0, NOW_MS + 10);
    transaction.set_string(one, b"1", Deadline::Clear);
    assert!(transaction.read(old).is_none());
    transaction.set_string(other, b"1", Deadline::Clear);
    drop(transaction);
    exports.follow().expect("nothing is lost");
    let records = exports.take(of, usize::MAX);
    let kinds: Vec<RecordKind> = records.iter().map(|record| record.kind).collect();
    assert_eq!(kinds, [RecordKind::Complete, RecordKind::Run { count: 3 }]);
    let copy = Engine::new(1);
    let last = records.last().expect("one");
    copy.apply(slot, std::iter::once(&*last.effect), last.position).expect("it is applied");
    assert_eq!((copy.digest(slot), copy.position(slot)), (engine.digest(slot), engine.position(slot)));
}

/// A slot begins an epoch, and who has a copy of it asks before anybody has read so in the log.
#[test]
fn what_is_kept_for_a_copy_begins_with_the_epoch() {
    let engine = Arc::new(Engine::new(1));
    let slot = Slot::of_key(b"k");
    let set = || engine.lock_slot(slot, 0, NOW_MS).set_string(b"k", b"v", Deadline::Clear);
    set();
    let (mut exports, of) = (Exports::new(Arc::clone(&engine)), 1);
    exports.park(slot, of);
    engine.set_slot(slot, SlotState::Serving, Epoch(9));
    exports.unpark(of, |_| true).expect("nothing is lost");
    set();
    exports.follow().expect("nothing is lost");
    let records = exports.take(of, usize::MAX);
    let at = |seq| Position { epoch: Epoch(9), seq };
    let sent: Vec<_> = records.iter().map(|record| (record.kind, record.position)).collect();
    assert_eq!(sent, [(RecordKind::Complete, at(0)), (RecordKind::Run { count: 1 }, at(1))]);
}
