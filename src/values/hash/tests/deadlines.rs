//! Deadlines of fields, against a map with a clock.

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Set(Vec<u8>, Vec<u8>),
    Remove(Vec<u8>),
    Deadline(Vec<u8>, Option<u64>),
    /// Time passes.
    Wait(u64),
    /// So many of what has expired is removed.
    RemoveDue(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let few = || (0u32..40).prop_map(|it| format!("field{it}").into_bytes());
    prop_oneof![
        4 => (few(), value()).prop_map(|(field, value)| Step::Set(field, value)),
        1 => few().prop_map(Step::Remove),
        4 => (few(), prop::option::weighted(0.8, 0u64..100)).prop_map(|(field, after)| Step::Deadline(field, after)),
        1 => (0u64..20).prop_map(Step::Wait),
        1 => (0usize..8).prop_map(Step::RemoveDue),
    ]
}

/// Whether it keeps what only deadlines need.
fn is_timed(hash: &Hash) -> bool {
    match hash.form() {
        Form::Packed(_) => false,
        Form::Table(table) => table.order.is_some(),
        Form::Timed(_) => true,
    }
}

type Clocked = BTreeMap<Vec<u8>, (Vec<u8>, Option<u64>)>;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_hash_with_deadlines_is_a_map_with_a_clock(
        steps in prop::collection::vec(step(), 1..300),
        entries in prop_oneof![Just(128usize), 0usize..20],
        seed in any::<u64>(),
    ) {
        let limits = Limits { hash_max_listpack_entries: entries, ..Limits::default() };
        let (mut hash, mut model, mut now, mut random) = (Hash::new(), Clocked::new(), 1000u64, seed);
        for step in steps {
            match step {
                Step::Set(field, value) => {
                    let is_new = model.insert(field.clone(), (value.clone(), None)).is_none();
                    prop_assert_eq!(hash.set(&field, &value, &limits) == Stored::Added, is_new);
                }
                Step::Remove(field) => prop_assert_eq!(hash.remove(&field), model.remove(&field).is_some()),
                Step::Deadline(field, after) => {
                    let deadline = after.map(|after| now + after);
                    let entry = model.get_mut(&field).map(|(_, old)| *old = deadline);
                    prop_assert_eq!(hash.set_deadline(&field, deadline), entry.is_some());
                }
                Step::Wait(after) => now += after,
                Step::RemoveDue(count) => {
                    let mut due: Vec<(u64, Vec<u8>)> =
                        model.iter().filter_map(|(field, (_, at))| Some(((*at)?, field.clone()))).collect();
                    due.retain(|(deadline, _)| *deadline <= now);
                    due.sort();
                    due.truncate(count);
                    // Those whose deadline passed first, any of them where they passed together.
                    let removed = hash.remove_due(now, count);
                    let of_removed = removed.iter().map(|field| model.remove(&**field).and_then(|(_, deadline)| deadline));
                    prop_assert!(of_removed.eq(due.iter().map(|(deadline, _)| Some(*deadline))));
                }
            }
            let first = model.values().filter_map(|(_, deadline)| *deadline).min();
            prop_assert_eq!(hash.first_deadline(), first);
            // What never expires pays nothing.
            prop_assert_eq!(is_timed(&hash), first.is_some());
            check_shape(&hash);
            prop_assert_eq!(hash.len(), model.len());
        }
        let live: Model = model
            .iter()
            .filter(|(_, (_, deadline))| deadline.is_none_or(|deadline| deadline > now))
            .map(|(field, (value, _))| (field.clone(), value.clone()))
            .collect();
        let view = hash.at(now);
        prop_assert_eq!(view.len(), live.len());
        prop_assert_eq!(view.iter().map(|(f, v)| (f.to_vec(), v.to_vec())).collect::<Model>(), live.clone());
        for (field, (_, deadline)) in &model {
            let expected = live.contains_key(field).then_some(*deadline);
            prop_assert_eq!(view.deadline(field), expected);
            prop_assert_eq!(view.get(field).map(|it| it.to_vec()), live.get(field).cloned());
        }
        let mut seen = Model::new();
        let mut position = Some(0);
        while let Some(from) = position {
            position = view.scan(from, 3, |field, value| drop(seen.insert(field.to_vec(), value.to_vec())));
        }
        prop_assert_eq!(&seen, &live);
        let mut next = || { random = mix(random); random };
        prop_assert_eq!(view.random(next()).is_none(), live.is_empty());
        let (mut distinct, mut repeated) = (BTreeSet::new(), 0);
        view.random_distinct(5, &mut next, |field, _| _ = distinct.insert(field.to_vec()));
        prop_assert_eq!(distinct.len(), live.len().min(5));
        prop_assert!(distinct.iter().all(|field| live.contains_key(field)));
        let mut strangers = 0;
        view.random_repeated(7, &mut next, |field, _| {
            repeated += 1;
            strangers += usize::from(!live.contains_key(&field.to_vec()));
        });
        prop_assert_eq!((repeated, strangers), (if live.is_empty() { 0 } else { 7 }, 0));
        // Whatever has been through it, without deadlines and fields it is as new.
        model.keys().for_each(|field| assert!(hash.remove(field)));
        prop_assert!(hash.is_empty() && !is_timed(&hash));
    }
}

#[test]
fn encodings_have_the_names_of_redis() {
    let limits = Limits { hash_max_listpack_entries: 2, ..Limits::default() };
    let mut hash = Hash::new();
    hash.set(b"a", b"1", &limits);
    assert!(!hash.set_deadline(b"b", Some(5)));
    assert_eq!(hash.encoding(), "listpack");
    let plain = hash.memory_bytes();
    assert!(hash.set_deadline(b"a", Some(5)));
    assert_eq!(hash.encoding(), "listpackex");
    assert!(hash.memory_bytes() > plain);
    hash.set(b"b", b"2", &limits);
    hash.set(b"c", b"3", &limits);
    assert_eq!((hash.encoding(), hash.deadline(b"a")), ("hashtable", Some(5)));
    assert!(hash.set_deadline(b"a", None));
    assert_eq!((hash.encoding(), hash.deadline(b"a")), ("hashtable", None));
}

#[test]
fn deadlines_take_8_bytes_of_a_packed_field_and_no_more_than_24_of_a_large_one() {
    let limits = Limits::default();
    for (count, allowed) in [(10, 8 * 10 + size_of::<Large>()), (1000, 24 * 1000)] {
        let mut hash = Hash::new();
        for number in 0..count {
            hash.set(format!("field{number}").as_bytes(), b"abcdefgh", &limits);
        }
        let plain = hash.memory_bytes();
        for number in 0..count {
            assert!(hash.set_deadline(format!("field{number}").as_bytes(), Some(1_800_000_000_000)));
        }
        let added = hash.memory_bytes() - plain;
        assert!(added <= allowed, "{added} bytes of {count} fields");
    }
}
