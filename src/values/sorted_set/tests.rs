//! `SortedSet` against a sorted vector, across its encodings.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::values::hashing::mix;

type Model = Vec<(f64, Vec<u8>)>;

fn collect<'a>(members: impl Iterator<Item = (Element<'a>, f64)>) -> Model {
    members.map(|(member, score)| (score, member.to_vec())).collect()
}

fn check_shape(set: &SortedSet) {
    if let Shape::Ranked(ranked) = &set.shape {
        ranked.check();
    }
}

fn member() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => (0u32..500).prop_map(|it| it.to_string().into_bytes()),
        6 => (0u32..500).prop_map(|it| format!("member:{it}").into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..66),
    ]
}

fn score() -> impl Strategy<Value = f64> {
    prop_oneof![
        (-5i32..5).prop_map(f64::from),
        any::<i32>().prop_map(f64::from),
        (-1e3f64..1e3),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
        Just(-0.0),
    ]
}

fn model_insert(model: &mut Model, member: &[u8], score: f64) -> Placed {
    let old = model.iter().position(|pair| pair.1 == member);
    let old = match old {
        Some(at) if model[at].0 == score => return Placed::Unchanged,
        Some(at) => Some(model.remove(at).0),
        None => None,
    };
    let at = model.partition_point(|pair| pair.0 < score || pair.0 == score && pair.1.as_slice() < member);
    model.insert(at, (score, member.to_vec()));
    old.map_or(Placed::Added, Placed::Moved)
}

fn check_ranges(set: &SortedSet, model: &Model, low: f64, high: f64) {
    let expected: Model = model.iter().filter(|pair| (low..=high).contains(&pair.0)).cloned().collect();
    let ranks = set.score_range(Bound::Included(low), Bound::Included(high));
    assert_eq!(ranks.len(), expected.len());
    assert_eq!(collect(set.range(ranks.start, ranks.len())), expected);
    let ranks = set.score_range(Bound::Excluded(low), Bound::Excluded(high));
    assert_eq!(ranks.len(), model.iter().filter(|pair| pair.0 > low && pair.0 < high).count());
    let half = model.len() / 2;
    let reverse: Model = model.iter().rev().skip(half).take(7).cloned().collect();
    assert_eq!(collect(set.range_reverse(half, 7)), reverse);
    assert_eq!(collect(set.range_reverse(0, usize::MAX)), model.iter().rev().cloned().collect::<Model>());
    assert_eq!(set.range(model.len(), 5).count() + set.range_reverse(model.len(), 5).count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_sorted_set_is_a_sorted_vector(
        steps in prop::collection::vec((0u8..12, member(), score()), 1..1_200),
        entries in prop_oneof![Just(128usize), 0usize..20],
        range in (score(), score()),
        seed in any::<u64>(),
    ) {
        let limits = Limits { zset_max_listpack_entries: entries, ..Limits::default() };
        let (mut set, mut model) = (SortedSet::new(), Model::new());
        let mut large = false;
        for (kind, member, score) in &steps {
            match kind {
                0 => {
                    let expected = model.iter().position(|pair| pair.1 == *member).map(|at| model.remove(at).0);
                    prop_assert_eq!(set.remove(member), expected);
                }
                1 => {
                    let popped = set.pop_min(|member, score| (score, member.to_vec()));
                    prop_assert_eq!(popped, if model.is_empty() { None } else { Some(model.remove(0)) });
                }
                2 => {
                    let popped = set.pop_max(|member, score| (score, member.to_vec()));
                    prop_assert_eq!(popped, model.pop());
                }
                _ => {
                    prop_assert_eq!(set.insert(member, *score, &limits), model_insert(&mut model, member, *score));
                    large |= model.len() > entries || member.len() > limits.zset_max_listpack_value;
                }
            }
            prop_assert_eq!(set.len(), model.len());
            prop_assert_eq!(set.encoding(), if large { "skiplist" } else { "listpack" });
            let rank = model.iter().position(|pair| pair.1 == *member);
            prop_assert_eq!(set.rank(member), rank.map(|rank| (rank, model[rank].0)));
            prop_assert_eq!(set.score(member), rank.map(|rank| model[rank].0));
        }
        check_shape(&set);
        prop_assert_eq!(collect(set.iter()), model.clone());
        check_ranges(&set, &model, range.0, range.1);

        let mut scanned = BTreeSet::new();
        let mut cursor = Some(0);
        while let Some(position) = cursor {
            cursor = set.scan(position, 10, |member, _| assert!(scanned.insert(member.to_vec())));
        }
        prop_assert_eq!(scanned.len(), model.len());
        let mut state = seed;
        let mut random = || { state = mix(state); state };
        for count in [3, 50, 2_000] {
            let mut distinct = BTreeSet::new();
            set.random_distinct(count, &mut random, |member, _| assert!(distinct.insert(member.to_vec())));
            prop_assert_eq!(distinct.len(), model.len().min(count));
        }
        let mut repeated = 0;
        set.random_repeated(9, &mut random, |_, _| repeated += 1);
        prop_assert_eq!(repeated, if model.is_empty() { 0 } else { 9 });

        let (start, end) = (model.len() / 5, model.len() / 5 * 4);
        let mut removed = Model::new();
        set.remove_range(start..end, |member, score| removed.push((score, member.to_vec())));
        prop_assert_eq!(removed, model.drain(start..end).collect::<Model>());
        prop_assert_eq!(collect(set.iter()), model);
        check_shape(&set);
    }

    #[test]
    fn members_of_one_score_are_ranged_by_their_bytes(
        members in prop::collection::btree_set(member(), 0..300),
        bounds in (member(), member()),
    ) {
        let limits = Limits { zset_max_listpack_value: 100, ..Limits::default() };
        let mut set = SortedSet::new();
        for member in &members {
            set.insert(member, 1.0, &limits);
        }
        let (low, high) = (bounds.0.as_slice(), bounds.1.as_slice());
        let between = |keep: &dyn Fn(&[u8]) -> bool| members.iter().filter(|it| keep(it)).count();
        let range = |min, max| set.lex_range(min, max).len();
        prop_assert_eq!(range(LexBound::Lowest, LexBound::Highest), members.len());
        prop_assert_eq!(range(LexBound::Highest, LexBound::Lowest), 0);
        prop_assert_eq!(range(LexBound::Included(low), LexBound::Highest), between(&|it| it >= low));
        prop_assert_eq!(range(LexBound::Lowest, LexBound::Excluded(high)), between(&|it| it < high));
        prop_assert_eq!(
            range(LexBound::Excluded(low), LexBound::Included(high)),
            between(&|it| it > low && it <= high)
        );
    }
}

#[test]
fn slots_are_compacted_while_a_large_set_shrinks() {
    let limits = Limits::default();
    let mut set = SortedSet::new();
    for number in 0..20_000u64 {
        set.insert(format!("member:{number}").as_bytes(), (mix(number) % 1_000) as f64, &limits);
    }
    check_shape(&set);
    let full = set.memory_bytes();
    assert!(full < 20_000 * 90, "{full}");
    for number in 0..19_900 {
        assert!(set.remove(format!("member:{number}").as_bytes()).is_some());
        if number % 1_999 == 0 {
            check_shape(&set);
        }
    }
    assert!(set.memory_bytes() < full / 50, "{}", set.memory_bytes());
    for number in 0..1_000 {
        set.insert(format!("new:{number}").as_bytes(), f64::from(number), &limits);
    }
    check_shape(&set);
    assert_eq!(set.len(), 1_100);
}

#[test]
fn ten_members_with_scores_are_one_small_allocation() {
    let mut set = SortedSet::new();
    for number in 0..10 {
        set.insert(format!("member:{number}").as_bytes(), f64::from(900_000_000 + number), &Limits::default());
    }
    assert_eq!(set.memory_bytes(), 160);
    assert_eq!(size_of::<SortedSet>(), 24);
}

/// A packed score has no sign where it is zero, and keeps none when it is ranked later (Redis stores it as an integer).
#[test]
fn a_packed_score_is_never_minus_zero() {
    let mut sorted = SortedSet::new();
    sorted.insert(b"member", -0.0, &Limits::default());
    assert!(sorted.score(b"member").is_some_and(f64::is_sign_positive));
    let none_packed = Limits { zset_max_listpack_entries: 0, ..Limits::default() };
    sorted.insert(b"other", -0.0, &none_packed);
    assert!(sorted.score(b"member").is_some_and(f64::is_sign_positive));
    assert!(sorted.score(b"other").is_some_and(f64::is_sign_negative));
}
