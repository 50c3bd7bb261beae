//! `Hash` against a map, across its encodings.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::values::hashing::mix;
use crate::values::packed::size_class;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn collect(hash: &Hash) -> Model {
    hash.iter().map(|(field, value)| (field.to_vec(), value.to_vec())).collect()
}

fn check_shape(hash: &Hash) {
    if let Form::Table(table) = hash.form() {
        let deadlines = table.pairs.iter().filter_map(|pair| pair.deadline());
        assert_eq!(table.order.as_ref().map_or(0, |order| order.due_count(u64::MAX)), deadlines.count());
        assert_eq!(table.bytes, table.pairs.iter().map(|pair| size_class(pair.byte_len())).sum::<usize>());
    }
}

fn field() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => (0u32..300).prop_map(|it| it.to_string().into_bytes()),
        4 => (0u32..300).prop_map(|it| format!("field{it}").into_bytes()),
        1 => (120usize..140).prop_map(|len| vec![b'f'; len]),
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        20 => any::<i32>().prop_map(|it| it.to_string().into_bytes()),
        20 => prop::collection::vec(any::<u8>(), 0..64),
        1 => prop::collection::vec(any::<u8>(), 60..70),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_hash_is_a_map(
        steps in prop::collection::vec((0u8..4, field(), value()), 1..600),
        entries in prop_oneof![Just(128usize), 0usize..20],
        seed in any::<u64>(),
    ) {
        let limits = Limits { hash_max_listpack_entries: entries, ..Limits::default() };
        let (mut hash, mut model) = (Hash::new(), Model::new());
        let mut large = false;
        for (kind, field, value) in &steps {
            if *kind == 0 {
                prop_assert_eq!(hash.remove(field), model.remove(field).is_some());
            } else {
                let stored = hash.set(field, value, &limits);
                prop_assert_eq!(stored == Stored::Added, model.insert(field.clone(), value.clone()).is_none());
                large |= model.len() > entries || field.len().max(value.len()) > limits.hash_max_listpack_value;
            }
            prop_assert_eq!(hash.encoding(), if large { "hashtable" } else { "listpack" });
            prop_assert_eq!(hash.get(field).map(|it| it.to_vec()), model.get(field).cloned());
            prop_assert_eq!(hash.len(), model.len());
        }
        check_shape(&hash);
        let mut scanned = Model::new();
        let mut cursor = Some(0);
        while let Some(position) = cursor {
            cursor = hash.scan(position, 10, |field, value| {
                assert!(scanned.insert(field.to_vec(), value.to_vec()).is_none());
            });
        }
        prop_assert_eq!(&scanned, &model);
        prop_assert_eq!(collect(&hash), model.clone());

        let mut state = seed;
        let mut random = || { state = mix(state); state };
        prop_assert_eq!(hash.random(random()).is_some(), !model.is_empty());
        let mut distinct = BTreeSet::new();
        hash.random_distinct(7, &mut random, |field, value| {
            assert_eq!(model.get(&field.to_vec()), Some(&value.to_vec()));
            assert!(distinct.insert(field.to_vec()));
        });
        prop_assert_eq!(distinct.len(), model.len().min(7));
        let mut repeated = 0;
        hash.random_repeated(9, &mut random, |field, _| {
            assert!(model.contains_key(&field.to_vec()));
            repeated += 1;
        });
        prop_assert_eq!(repeated, if model.is_empty() { 0 } else { 9 });
    }
}

#[test]
fn a_hash_of_ten_small_fields_is_one_allocation_of_160_bytes() {
    let mut hash = Hash::new();
    for number in 0..10 {
        hash.set(format!("field{number}").as_bytes(), b"abcdefgh", &Limits::default());
    }
    assert_eq!((hash.memory_bytes(), hash.allocation_count()), (160, 1));
    assert_eq!(size_of::<Hash>(), 24);
}

#[test]
fn a_large_hash_scans_and_draws_evenly() {
    let limits = Limits::default();
    let mut hash = Hash::new();
    for number in 0..20_000 {
        hash.set(format!("field{number}").as_bytes(), b"1", &limits);
    }
    let mut seen = BTreeSet::new();
    let (mut cursor, mut calls) = (Some(0), 0);
    while let Some(position) = cursor {
        calls += 1;
        cursor = hash.scan(position, 100, |field, _| assert!(seen.insert(field.to_vec())));
    }
    assert_eq!(seen.len(), 20_000);
    assert!((100..500).contains(&calls), "{calls}");
    for number in 0..20_000 {
        assert!(hash.remove(format!("field{number}").as_bytes()));
    }
    check_shape(&hash);
    assert!(hash.is_empty() && hash.random(1).is_none());
}

mod deadlines;
