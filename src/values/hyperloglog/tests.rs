use super::*;
use proptest::prelude::*;

fn sketch_of(elements: impl Iterator<Item = u64>, sparse_max: usize) -> Vec<u8> {
    let mut sketch = empty();
    for element in elements {
        add(&mut sketch, Observation::of(&element.to_le_bytes()), sparse_max).expect("a sketch");
    }
    sketch
}

#[test]
fn an_empty_sketch_is_eighteen_bytes() {
    let sketch = empty();
    assert_eq!(&sketch[..5], b"HYLL\x01");
    assert_eq!(&sketch[16..], [0x7f, 0xff]);
    assert_eq!((count(&sketch), cached_count(&sketch)), (Ok(0), Some(0)));
    assert!(is_sketch(&sketch) && is_sparse(&sketch));
}

#[test]
fn the_estimate_is_within_a_few_percent() {
    for elements in [1u64, 10, 100, 1000, 10_000, 200_000] {
        let sketch = sketch_of(0..elements, 3000);
        let counted = count(&sketch).expect("a sketch") as f64;
        assert!((counted - elements as f64).abs() <= (elements as f64 * 0.03).max(0.1), "{elements}: {counted}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Sparse or dense, the registers are those of a plain array.
    #[test]
    fn forms_hold_the_same_registers(elements in prop::collection::vec(any::<u64>(), 0..800), sparse_max in 0..4000usize) {
        let sketch = sketch_of(elements.iter().copied(), sparse_max);
        let dense = sketch_of(elements.iter().copied(), 0);
        let mut expected = [0; REGISTERS];
        for element in &elements {
            let Observation { register, rank } = Observation::of(&element.to_le_bytes());
            expected[register] = rank.max(expected[register]);
        }
        prop_assert!(!is_sparse(&sketch) || sketch.len() <= sparse_max.max(18));
        for form in [&sketch, &dense, &to_dense(&sketch).expect("a sketch")] {
            let mut registers = [0; REGISTERS];
            merge(&mut registers, form).expect("a sketch");
            prop_assert!(registers == expected);
            prop_assert_eq!(count(form), Ok(count_registers(&expected)));
        }
    }

    /// Whatever stands behind the header, nothing breaks.
    #[test]
    fn noise_is_refused_or_counted(noise in prop::collection::vec(any::<u8>(), 0..300), element: u64) {
        let mut sketch = [&empty()[..HEADER_BYTES], &noise].concat();
        let (mut registers, counted) = ([0; REGISTERS], count(&sketch));
        prop_assert_eq!(merge(&mut registers, &sketch).is_err(), counted.is_err());
        prop_assert_eq!(to_dense(&sketch).is_err(), counted.is_err());
        sparse::describe(&sketch);
        let _ = add(&mut sketch, Observation::of(&element.to_le_bytes()), 100);
    }
}

#[test]
fn neighbours_with_the_same_value_become_one_run() {
    let mut sketch = empty();
    for register in [10, 12, 11, 13, 14] {
        assert_eq!(add(&mut sketch, Observation { register, rank: 3 }, 3000), Ok(true));
    }
    assert_eq!(sparse::describe(&sketch), "z:10 v:3,4 v:3,1 Z:16369");
    assert_eq!(add(&mut sketch, Observation { register: 11, rank: 2 }, 3000), Ok(false));
    assert_eq!(add(&mut sketch, Observation { register: 11, rank: 9 }, 3000), Ok(true));
    assert_eq!(sparse::describe(&sketch), "z:10 v:3,1 v:9,1 v:3,3 Z:16369");
    assert_eq!(cached_count(&sketch), None);
}
