//! `Set` against an ordered set, across its encodings, and the algebra.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::values::hashing::mix;

type Model = BTreeSet<Vec<u8>>;

fn collect(set: &Set) -> Model {
    set.iter().map(|member| member.to_vec()).collect()
}

fn check_shape(set: &Set) {
    if let Shape::Table(table) = &set.shape {
        assert_eq!(table.bytes, table.members.iter().map(|it| size_class(it.len())).sum::<usize>());
    }
}

fn member() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        200 => (0i64..400).prop_map(|it| it.to_string().into_bytes()),
        20 => (-40_000i64..40_000).prop_map(|it| it.to_string().into_bytes()),
        2 => any::<i64>().prop_map(|it| it.to_string().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..70),
    ]
}

fn any_set() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop_oneof![
        prop::collection::vec((0i64..400).prop_map(|it| it.to_string().into_bytes()), 0..300),
        prop::collection::vec((0i64..400).prop_map(|it| format!("m{it}").into_bytes()), 0..300),
        prop::collection::vec(member(), 0..300),
    ]
}

fn build(members: &[Vec<u8>], limits: &Limits) -> (Set, Model) {
    let mut set = Set::new();
    for member in members {
        set.add(member, limits);
    }
    (set, members.iter().cloned().collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_set_is_a_set(
        steps in prop::collection::vec((0u8..5, member()), 1..900),
        integers in prop_oneof![Just(512usize), 0usize..100],
        entries in prop_oneof![Just(128usize), 0usize..20],
        seed in any::<u64>(),
    ) {
        let limits = Limits { set_max_intset_entries: integers, set_max_listpack_entries: entries, ..Limits::default() };
        let (mut set, mut model) = (Set::new(), Model::new());
        for (kind, member) in &steps {
            if *kind == 0 {
                prop_assert_eq!(set.remove(member), model.remove(member));
            } else {
                prop_assert_eq!(set.add(member, &limits), model.insert(member.clone()));
            }
            prop_assert_eq!(set.contains(member), model.contains(member));
            prop_assert_eq!(set.len(), model.len());
        }
        check_shape(&set);
        let mut scanned = Model::new();
        let mut cursor = Some(0);
        while let Some(position) = cursor {
            cursor = set.scan(position, 10, |member| assert!(scanned.insert(member.to_vec())));
        }
        prop_assert_eq!(&scanned, &model);
        prop_assert_eq!(collect(&set), model.clone());

        let mut state = seed;
        let mut random = || { state = mix(state); state };
        for count in [3, 50, 2_000] {
            let mut distinct = Model::new();
            set.random_distinct(count, &mut random, |member| assert!(distinct.insert(member.to_vec())));
            prop_assert!(distinct.len() == model.len().min(count) && distinct.is_subset(&model));
        }
        let mut repeated = 0;
        set.random_repeated(9, &mut random, |member| {
            assert!(model.contains(&member.to_vec()));
            repeated += 1;
        });
        prop_assert_eq!(repeated, if model.is_empty() { 0 } else { 9 });
        while let Some(member) = set.pop_random(random()) {
            prop_assert!(model.remove(&member));
        }
        prop_assert!(model.is_empty());
        check_shape(&set);
    }

    #[test]
    fn the_algebra_is_that_of_sets(sets in prop::collection::vec(any_set(), 1..4), count in 0usize..400) {
        let limits = Limits::default();
        let (built, models): (Vec<Set>, Vec<Model>) = sets.iter().map(|members| build(members, &limits)).unzip();
        let others: Vec<&Set> = built[1..].iter().collect();
        let common: Model =
            models[0].iter().filter(|it| models[1..].iter().all(|model| model.contains(*it))).cloned().collect();
        let mut found = Model::new();
        intersection(&built[0], &others, usize::MAX, |member| assert!(found.insert(member.to_vec())));
        prop_assert_eq!(&found, &common);
        let mut counted = 0;
        intersection(&built[0], &others, count, |_| counted += 1);
        prop_assert_eq!(counted, common.len().min(count));
        let rest: Model =
            models[0].iter().filter(|it| !models[1..].iter().any(|model| model.contains(*it))).cloned().collect();
        found.clear();
        difference(&built[0], &others, |member| assert!(found.insert(member.to_vec())));
        prop_assert_eq!(found, rest);
        let all: Model = models.iter().flatten().cloned().collect();
        prop_assert_eq!(collect(&union(&built.iter().collect::<Vec<_>>(), &limits)), all);
    }
}

#[test]
fn encodings_change_where_redis_changes_them() {
    let limits = Limits::default();
    let numbers = |count: usize| (0..count).map(|it| it.to_string().into_bytes()).collect::<Vec<_>>();
    assert_eq!(build(&numbers(512), &limits).0.encoding(), "intset");
    assert_eq!(build(&numbers(513), &limits).0.encoding(), "hashtable");
    let mut set = build(&numbers(127), &limits).0;
    set.add(b"x", &limits);
    assert_eq!(set.encoding(), "listpack");
    set.add(b"y", &limits);
    assert_eq!(set.encoding(), "hashtable");
    let mut set = build(&numbers(128), &limits).0;
    set.add(b"x", &limits);
    assert_eq!(set.encoding(), "hashtable");
    let mut set = build(&numbers(3), &limits).0;
    set.add(&[b'x'; 65], &limits);
    assert_eq!(set.encoding(), "hashtable");
    assert_eq!(Set::for_members(b"1", 512, &limits).encoding(), "intset");
    assert_eq!(Set::for_members(b"a", 128, &limits).encoding(), "listpack");
    assert_eq!(Set::for_members(b"1", 513, &limits).encoding(), "hashtable");
}

#[test]
fn integers_take_the_narrowest_width() {
    let limits = Limits::default();
    let mut set = Set::new();
    for (member, bytes) in [(b"1".as_slice(), 2), (b"70000", 4), (b"5000000000", 8)] {
        set.add(member, &limits);
        let Shape::Integers(integers) = &set.shape else { panic!("still integers") };
        assert!((bytes * set.len()..=bytes * 8).contains(&integers.allocation_bytes()));
    }
    assert!(size_of::<Set>() <= 32);
}

#[test]
fn many_small_sets_are_taken_from_a_large_one() {
    let limits = Limits::default();
    let of = |members: std::ops::Range<u32>| {
        let mut set = Set::new();
        members.for_each(|member| _ = set.add(member.to_string().as_bytes(), &limits));
        set
    };
    let (first, small): (Set, Vec<Set>) =
        (of(0..1000), (0..400).map(|number| of(2 * number..2 * number + 1)).collect());
    let mut left = Vec::new();
    difference(&first, &small.iter().collect::<Vec<_>>(), |member| left.push(member.to_vec()));
    let expected: Vec<String> =
        (0..1000).filter(|member| member % 2 == 1 || *member >= 800).map(|it| it.to_string()).collect();
    left.sort();
    let mut expected: Vec<Vec<u8>> = expected.into_iter().map(String::into_bytes).collect();
    expected.sort();
    assert_eq!(left, expected);
}
