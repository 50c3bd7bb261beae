//! `Segments` against a plain set: its content, its directory, and the promise of its scan.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::values::hashing::table_hash;

fn hash(value: &u64) -> u64 {
    table_hash(&value.to_le_bytes())
}

fn insert(table: &mut Segments<u64>, value: u64) -> bool {
    let absent = table.find(hash(&value), |it| *it == value).is_none();
    if absent {
        table.insert_unique(hash(&value), value, hash);
    }
    absent
}

fn remove(table: &mut Segments<u64>, value: u64) -> bool {
    table.remove(hash(&value), |it| *it == value, hash).is_some()
}

/// Every invariant of the directory, by walking all of it.
fn check_shape(table: &Segments<u64>) {
    let Shape::Directory(directory) = &table.shape else { return };
    assert_eq!(directory.index.len(), 1 << directory.depth);
    assert_eq!(directory.places.len(), directory.tables.len());
    assert!(directory.tables.len() > 1);
    assert_eq!(directory.len, directory.tables.iter().map(HashTable::len).sum::<usize>());
    assert_eq!(directory.tables_bytes, directory.tables.iter().map(HashTable::allocation_size).sum::<usize>());
    assert!(directory.tables.iter().all(|it| it.num_buckets() <= directory.buckets_max));
    assert_eq!(directory.deepest, directory.places.iter().filter(|it| it.depth == directory.depth).count());
    assert!(directory.deepest > 0);
    let mut covered = 0;
    for (number, place) in directory.places.iter().enumerate() {
        let entries = directory.entries(*place);
        covered += entries.len();
        assert!(directory.index[entries].iter().all(|entry| *entry as usize == number));
        let range = u64::from(place.start)..place.end();
        assert!(directory.tables[number].iter().all(|it| range.contains(&u64::from(hash_position(hash(it))))));
    }
    assert_eq!(covered, directory.index.len());
}

#[test]
fn a_table_grows_into_segments_and_shrinks_back_to_nothing() {
    let mut table = Segments::new();
    assert_eq!(table.allocation_bytes(), 0);
    for value in 0..50_000 {
        assert!(insert(&mut table, value));
        if value % 5_000 == 0 {
            check_shape(&table);
        }
    }
    assert!(table.segment_count() >= 50_000 / ENTRIES_MAX);
    assert!((0..50_000).all(|value| table.find(hash(&value), |it| *it == value) == Some(&value)));
    assert!((50_000..60_000).all(|value| table.find(hash(&value), |it| *it == value).is_none()));
    assert_eq!(table.iter().copied().collect::<BTreeSet<_>>(), (0..50_000).collect());
    for value in 0..50_000 {
        assert!(remove(&mut table, value));
        if value % 5_000 == 0 || value > 49_500 {
            check_shape(&table);
        }
    }
    assert!(table.is_empty());
    assert_eq!(table.segment_count(), 1);
    assert!(table.allocation_bytes() < 1_000, "{}", table.allocation_bytes());
}

#[test]
fn a_hash_that_is_broken_grows_one_segment_and_loses_nothing() {
    let mut table = Segments::new();
    let broken = |value: &u64| hash(value) & !(0xffff_ffff << 24);
    for value in 0..3_000 {
        table.insert_unique(broken(&value), value, broken);
    }
    assert!((0..3_000).all(|value| table.find(broken(&value), |it| *it == value).is_some()));
    let mut seen = 0;
    let mut cursor = Some(0);
    while let Some(position) = cursor {
        cursor = table.scan(position, 10, broken, |_| seen += 1);
    }
    assert_eq!(seen, 3_000);
}

#[test]
fn random_elements_are_drawn_evenly() {
    for len in [1, 7, 300, 3_000] {
        let mut table = Segments::new();
        (0..len).for_each(|value| assert!(insert(&mut table, value)));
        let mut drawn = BTreeMap::<u64, u32>::new();
        for draw in 0..len * 100 {
            *drawn.entry(*table.random(mix(draw)).expect("not empty")).or_default() += 1;
        }
        assert_eq!(drawn.len() as u64, len);
        // 100 expected each, standard deviation 10.
        assert!(drawn.values().all(|count| len == 1 || (45..=170).contains(count)), "{drawn:?}");
    }
}

#[test]
fn a_sample_shows_distinct_elements() {
    let mut table = Segments::new();
    (0..5_000).for_each(|value| assert!(insert(&mut table, value)));
    for random in 0..200 {
        let mut seen = BTreeSet::new();
        table.sample(random, 20, |it| assert!(seen.insert(*it)));
        assert!((1..=20).contains(&seen.len()));
    }
}

#[test]
fn pieces_hold_every_element_once() {
    let mut table = Segments::new();
    (0..5_000).for_each(|value| assert!(insert(&mut table, value)));
    let mut values: Vec<u64> = table.into_segments().flatten().collect();
    values.sort_unstable();
    assert_eq!(values, (0..5_000).collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Phases of inserts and removes of random size, and a scan step between small batches of them.
    #[test]
    fn a_scan_shows_once_what_stays_while_the_table_grows_and_shrinks(
        stable in 1u64..4_000,
        phases in prop::collection::vec((any::<bool>(), 1u64..6_000), 1..8),
        count in 1usize..300,
        batch in 1u64..500,
    ) {
        let mut table = Segments::new();
        let mut present: BTreeSet<u64> = (0..stable).collect();
        present.iter().for_each(|value| assert!(insert(&mut table, *value)));
        let mut seen = BTreeMap::<u64, u32>::new();
        let mut cursor = Some(0);
        let mut steps = 0;
        'scan: for (grow, amount) in phases.iter().cycle() {
            for step in 0..*amount {
                let value = stable + step;
                if *grow {
                    prop_assert_eq!(insert(&mut table, value), present.insert(value));
                } else {
                    prop_assert_eq!(remove(&mut table, value), present.remove(&value));
                }
                if step % batch == 0 {
                    let Some(position) = cursor else { break 'scan };
                    cursor = table.scan(position, count, hash, |it| *seen.entry(*it).or_default() += 1);
                    prop_assert!(cursor.is_none_or(|next| next > position));
                    steps += 1;
                    prop_assert!(steps < 100_000);
                }
            }
        }
        check_shape(&table);
        for value in 0..stable {
            prop_assert_eq!(seen.get(&value), Some(&1));
        }
        prop_assert_eq!(table.len(), present.len());
        prop_assert_eq!(table.iter().copied().collect::<BTreeSet<_>>(), present);
    }
}
