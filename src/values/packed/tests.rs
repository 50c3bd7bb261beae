//! `Packed` against a plain vector, and the bytes its forms take.

use proptest::prelude::*;

use super::*;

fn collect<const BACKWARD: bool>(packed: &Packed<BACKWARD>) -> Vec<Vec<u8>> {
    packed.iter().map(|element| element.to_vec()).collect()
}

fn interesting_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => any::<i64>().prop_map(|it| it.to_string().into_bytes()),
        4 => (-70_000i64..70_000).prop_map(|it| it.to_string().into_bytes()),
        4 => prop::collection::vec(any::<u8>(), 0..12),
        1 => (0usize..3).prop_flat_map(|class| {
            let around = [62..67, 4_090..4_100, 16_370..16_400usize][class].clone();
            (around, any::<u8>()).prop_map(|(len, byte)| vec![byte; len])
        }),
    ]
}

#[test]
fn each_form_takes_the_bytes_it_should() {
    let cases: [(&[u8], usize); 18] = [
        (b"0", 1),
        (b"127", 1),
        (b"128", 2),
        (b"-1", 2),
        (b"4095", 2),
        (b"-4096", 2),
        (b"4096", 3),
        (b"-32768", 3),
        (b"32768", 4),
        (b"-8388608", 4),
        (b"8388608", 5),
        (b"2147483647", 5),
        (b"2147483648", 6),
        (b"9223372036854775807", 9),
        (b"-9223372036854775808", 9),
        (b"", 1),
        (b"field0", 7),
        (&[b'x'; 64], 66),
    ];
    for (bytes, size) in cases {
        let mut forward = Packed::<false>::new();
        forward.push(bytes);
        assert_eq!(forward.used_bytes(), size, "{bytes:?}");
        assert_eq!(collect(&forward), [bytes]);
        let mut backward = Packed::<true>::new();
        backward.push(bytes);
        assert_eq!(backward.used_bytes(), size + 1, "{bytes:?}");
        assert_eq!(backward.previous(backward.end()), 0);
    }
}

#[test]
fn ten_fields_of_eight_bytes_fit_an_allocation_of_160() {
    let mut packed = Packed::<false>::new();
    for number in 0..10 {
        packed.push(format!("field{number}").as_bytes());
        packed.push(b"abcdefgh");
    }
    assert_eq!((packed.used_bytes(), packed.allocation_bytes()), (160, 160));
    assert_eq!(size_of_val(&packed), 24);
}

#[test]
fn scores_come_back_bit_by_bit() {
    for score in [0.0, -0.0, 1.0, -1.0, 0.1, 1e300, f64::INFINITY, f64::NEG_INFINITY, 9e15, 9.1e15, 5e-324, 123_456.0] {
        let mut packed = Packed::<false>::new();
        packed.insert_score(0, score);
        assert_eq!(packed.score(0).to_bits(), score.to_bits());
    }
}

#[test]
fn size_classes_are_those_of_the_allocator() {
    for (bytes, class) in [(1, 8), (9, 16), (128, 128), (129, 160), (161, 192), (257, 320), (4_097, 5_120)] {
        assert_eq!(size_class(bytes), class);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Insert(usize, Vec<u8>),
    Replace(usize, Vec<u8>),
    Remove(usize, usize),
    SplitAndAppend(usize),
    Truncate(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (any::<usize>(), interesting_bytes()).prop_map(|(at, bytes)| Step::Insert(at, bytes)),
        3 => (any::<usize>(), interesting_bytes()).prop_map(|(at, bytes)| Step::Replace(at, bytes)),
        2 => (any::<usize>(), 0usize..4).prop_map(|(at, count)| Step::Remove(at, count)),
        1 => any::<usize>().prop_map(Step::SplitAndAppend),
        1 => any::<usize>().prop_map(Step::Truncate),
    ];
    prop::collection::vec(step, 1..80)
}

fn run<const BACKWARD: bool>(steps: &[Step]) -> (Packed<BACKWARD>, Vec<Vec<u8>>) {
    let mut packed = Packed::<BACKWARD>::new();
    let mut model: Vec<Vec<u8>> = Vec::new();
    for step in steps {
        match step {
            Step::Insert(at, bytes) => {
                let at = at % (model.len() + 1);
                let offset = packed.skip(0, at);
                let behind = packed.insert(offset, bytes);
                assert_eq!(behind, packed.next(offset));
                model.insert(at, bytes.clone());
            }
            Step::Replace(at, bytes) if !model.is_empty() => {
                let at = at % model.len();
                packed.replace(packed.skip(0, at), bytes);
                model[at] = bytes.clone();
            }
            Step::Remove(at, count) if !model.is_empty() => {
                let at = at % model.len();
                packed.remove(packed.skip(0, at), *count);
                model.drain(at..(at + count).min(model.len()));
            }
            Step::SplitAndAppend(at) => {
                let offset = packed.skip(0, at % (model.len() + 1));
                let tail = packed.split_off(offset);
                assert_eq!(packed.len() + tail.len(), model.len());
                packed.append(&tail);
            }
            Step::Truncate(at) if at % 7 == 0 => {
                let at = at % (model.len() + 1);
                packed.truncate(packed.skip(0, at));
                model.truncate(at);
            }
            _ => {}
        }
        assert_eq!(packed.len(), model.len());
        assert!(packed.allocation_bytes() <= 2 * size_class(packed.used_bytes()).max(8));
    }
    assert_eq!(collect(&packed), model);
    for (index, bytes) in model.iter().enumerate() {
        let found = packed.find(0, &Needle::new(bytes), 1).expect("a stored element is found");
        let expected = model.iter().position(|it| it == bytes).expect("itself");
        assert_eq!(found, packed.skip(0, expected), "element {index}");
        assert_eq!(packed.get(found), Element::Bytes(bytes));
    }
    (packed, model)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_packed_sequence_is_a_vector(steps in steps()) {
        run::<false>(&steps);
        let (packed, model) = run::<true>(&steps);
        let mut offset = packed.end();
        for (index, bytes) in model.iter().enumerate().rev() {
            offset = packed.previous(offset);
            prop_assert_eq!(packed.get(offset).to_vec(), bytes.clone());
            prop_assert_eq!(packed.seek(index), offset);
        }
        prop_assert_eq!(offset, 0);
    }

    #[test]
    fn a_search_with_a_stride_sees_only_every_other(keys in prop::collection::vec(0u8..20, 0..30), needle in 0u8..20) {
        let mut packed = Packed::<false>::new();
        for key in &keys {
            packed.push(key.to_string().as_bytes());
            packed.push(needle.to_string().as_bytes());
        }
        let found = packed.find(0, &Needle::new(needle.to_string().as_bytes()), 2);
        prop_assert_eq!(found, keys.iter().position(|it| *it == needle).map(|at| packed.skip(0, at * 2)));
    }
}
