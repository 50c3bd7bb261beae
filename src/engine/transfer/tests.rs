use super::*;
use crate::engine::effect::Side;
use proptest::prelude::*;
use std::collections::BTreeMap;

const NOW_MS: u64 = 1_000_000;

/// Keys of one slot.
fn key(number: u8) -> Vec<u8> {
    format!("{{tag}}{number}").into_bytes()
}

fn slot() -> Slot {
    Slot::of_key(b"{tag}")
}

#[derive(Clone, Debug)]
enum Step {
    Set(u8, u8),
    Append(u8, u8),
    Delete(u8),
    Push(u8, u8),
    Pop(u8),
    HashSet(u8, u8),
    SetAdd(u8, u8),
    Put(u8, u8),
    Deadline(u8, u16),
    Flush,
    /// The export goes on.
    Export,
}

fn step() -> impl Strategy<Value = Step> {
    let small = 0..40u8;
    prop_oneof![
        4 => (small.clone(), any::<u8>()).prop_map(|(k, v)| Step::Set(k, v)),
        2 => (small.clone(), any::<u8>()).prop_map(|(k, v)| Step::Append(k, v)),
        2 => small.clone().prop_map(Step::Delete),
        2 => (40..60u8, any::<u8>()).prop_map(|(k, v)| Step::Push(k, v)),
        1 => (40..60u8).prop_map(Step::Pop),
        2 => (60..80u8, any::<u8>()).prop_map(|(k, v)| Step::HashSet(k, v)),
        2 => (80..100u8, any::<u8>()).prop_map(|(k, v)| Step::SetAdd(k, v)),
        2 => (100..120u8, any::<u8>()).prop_map(|(k, v)| Step::Put(k, v)),
        1 => (0..120u8, any::<u16>()).prop_map(|(k, d)| Step::Deadline(k, d)),
        1 => Just(Step::Flush),
        6 => Just(Step::Export),
    ]
}

fn perform(engine: &Engine, step: &Step) {
    let mut keys = engine.lock_slot(slot(), 0, NOW_MS);
    match step {
        Step::Set(k, v) => keys.set_string(&key(*k), &[*v], Deadline::Clear),
        Step::Append(k, v) => drop(keys.append(&key(*k), &[*v])),
        Step::Delete(k) => drop(keys.delete(&key(*k))),
        Step::Push(k, v) => drop(keys.list_push(&key(*k), Side::Front, [&[*v][..]].into_iter())),
        Step::Pop(k) => drop(keys.list_pop(&key(*k), Side::Back, 1, |_| {})),
        Step::HashSet(k, v) => drop(keys.hash_set(&key(*k), [(&[*v % 8][..], &[*v][..])].into_iter())),
        Step::SetAdd(k, v) => drop(keys.set_add(&key(*k), [&[*v][..]].into_iter())),
        Step::Put(k, v) => drop(keys.sorted_set_put(&key(*k), &[(&[*v % 8][..], f64::from(*v))])),
        Step::Deadline(k, after) => drop(keys.set_deadline(&key(*k), Some(NOW_MS + 1 + u64::from(*after)))),
        Step::Flush => drop(keys.flush(0)),
        Step::Export => {}
    }
}

/// Every key of the slot, as the effect that makes it; unordered collections in a fixed order.
fn contents(engine: &Engine) -> BTreeMap<Vec<u8>, Vec<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut keys = engine.lock_slot(slot(), 0, NOW_MS);
    keys.visit_slot(slot(), |entry| {
        let mut parts = vec![format!("{:?}", entry.deadline()).into_bytes()];
        match entry.as_value() {
            Some(Value::Set(set)) => {
                let mut members: Vec<Vec<u8>> = set.iter().map(|member| member.to_vec()).collect();
                members.sort();
                parts.extend(members);
            }
            Some(Value::Hash(hash)) => {
                let mut pairs: Vec<Vec<u8>> =
                    hash.iter().map(|(field, value)| [field.to_vec(), value.to_vec()].concat()).collect();
                pairs.sort();
                parts.extend(pairs);
            }
            _ => parts.push(encode_entry(entry)),
        }
        found.insert(entry.key().to_vec(), parts);
    });
    found
}

proptest! {
    /// Whatever is written while a slot is exported, who applies the export in order has the slot.
    #[test]
    fn an_export_applied_in_order_is_the_slot(
        before in prop::collection::vec(step(), 0..200),
        during in prop::collection::vec(step(), 0..200),
    ) {
        let (source, target) = (Engine::new(1), Engine::new(1));
        before.iter().for_each(|step| perform(&source, step));
        let queue = source.begin_export(slot(), &Arc::default());
        let mut position = Some(0);
        let deliver = || -> Result<(), ApplyError> {
            for record in queue.take(usize::MAX) {
                target.apply(record.slot, [&*record.effect].into_iter(), record.position)?;
            }
            Ok(())
        };
        for step in &during {
            match (step, position) {
                (Step::Export, Some(at)) => position = source.export_step(slot(), at, NOW_MS),
                (Step::Export, None) => deliver().expect("applied"),
                _ => perform(&source, step),
            }
        }
        while let Some(at) = position {
            position = source.export_step(slot(), at, NOW_MS);
        }
        deliver().expect("applied");
        prop_assert_eq!(contents(&source), contents(&target));
    }
}

/// Keys that are counted, and keys that are found.
fn count(engine: &Engine) -> (u64, usize) {
    let counted = engine.lock_all(0, NOW_MS).key_count();
    (counted, contents(engine).len())
}

#[test]
fn a_slot_that_is_elsewhere_is_neither_counted_nor_walked() {
    let engine = Engine::new(1);
    perform(&engine, &Step::Set(1, 1));
    assert_eq!(count(&engine), (1, 1));
    engine.set_slot(slot(), SlotState::Elsewhere, Epoch(2));
    let mut keys = engine.lock_all(0, NOW_MS);
    assert_eq!((keys.key_count(), keys.slot_key_count(slot()), keys.random_key()), (0, 0, None));
    assert_eq!(keys.flush(0), 0);
    drop(keys);
    engine.set_slot(slot(), SlotState::Serving, Epoch(3));
    assert_eq!(count(&engine), (1, 1));
    assert_eq!(engine.clear_slot(slot()), 1);
    assert!(contents(&engine).is_empty());
}

#[test]
fn bytes_that_are_no_effect_of_the_slot_are_refused() {
    let engine = Engine::new(1);
    let mut foreign = Vec::new();
    Effect::Delete { key: b"other" }.encode(&mut foreign);
    for bytes in [&b""[..], b"\xff\x00", &foreign] {
        let position = Position { epoch: Epoch(1), seq: 1 };
        assert_eq!(engine.apply(slot(), [bytes].into_iter(), position), Err(ApplyError::Malformed), "{bytes:?}");
    }
}
