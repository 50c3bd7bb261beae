//! `List` against a plain vector, across its encodings.

use proptest::prelude::*;

use super::*;

fn collect(list: &List) -> Vec<Vec<u8>> {
    list.iter().map(|element| element.to_vec()).collect()
}

fn check_shape(list: &List, limits: &Limits) {
    for number in 0..list.chunk_count() {
        let (chunk, lone) = (list.chunk(number), limits.list_lone_element_bytes);
        assert!(chunk.len() <= 1 || chunk.iter().all(|element| element.byte_len() < lone), "{chunk:?}");
    }
    if let Shape::Chunks(large) = &list.shape {
        assert!(large.chunks.iter().all(|chunk| !chunk.is_empty()));
        assert_eq!(large.len, large.chunks.iter().map(Chunk::len).sum::<usize>());
        assert_eq!(large.bytes, large.chunks.iter().map(Chunk::allocation_bytes).sum::<usize>());
    }
}

#[derive(Debug, Clone)]
enum Step {
    Push(bool, Vec<Vec<u8>>),
    Pop(bool, usize),
    Set(usize, Vec<u8>),
    Insert(usize, Vec<u8>),
    Remove(i64, Vec<u8>),
    RemoveEvery(usize, usize),
    Trim(usize, usize),
}

fn element() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => (0i64..12).prop_map(|it| it.to_string().into_bytes()),
        3 => any::<i64>().prop_map(|it| it.to_string().into_bytes()),
        3 => prop::collection::vec(any::<u8>(), 0..100),
        1 => (8_000usize..9_000).prop_map(|len| vec![b'x'; len]),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any::<bool>(), prop::collection::vec(element(), 0..60)).prop_map(|(end, all)| Step::Push(end, all)),
        2 => (any::<bool>(), 0usize..80).prop_map(|(end, count)| Step::Pop(end, count)),
        3 => (any::<usize>(), element()).prop_map(|(at, bytes)| Step::Set(at, bytes)),
        4 => (any::<usize>(), element()).prop_map(|(at, bytes)| Step::Insert(at, bytes)),
        2 => (-3i64..4, element()).prop_map(|(count, bytes)| Step::Remove(count, bytes)),
        2 => (0usize..40, 1usize..4).prop_map(|(start, stride)| Step::RemoveEvery(start, stride)),
        1 => (0usize..40, 0usize..300).prop_map(|(start, count)| Step::Trim(start, count)),
    ]
}

fn apply(list: &mut List, model: &mut Vec<Vec<u8>>, step: &Step, limits: &Limits) {
    match step {
        Step::Push(head, all) => {
            for bytes in all {
                list.push(if *head { End::Head } else { End::Tail }, bytes, limits);
                model.insert(if *head { 0 } else { model.len() }, bytes.clone());
            }
        }
        Step::Pop(head, count) => {
            for _ in 0..*count {
                let popped = list.pop(if *head { End::Head } else { End::Tail }, limits, |it| it.to_vec());
                let expected =
                    if model.is_empty() { None } else { Some(model.remove(if *head { 0 } else { model.len() - 1 })) };
                assert_eq!(popped, expected);
            }
        }
        Step::Set(at, bytes) => {
            let at = at % (model.len() + 1);
            assert_eq!(list.set(at, bytes, limits), at < model.len());
            if let Some(place) = model.get_mut(at) {
                *place = bytes.clone();
            }
        }
        Step::Insert(at, bytes) => {
            let at = at % (model.len() + 2);
            assert_eq!(list.insert(at, bytes, limits), at <= model.len());
            if at <= model.len() {
                model.insert(at, bytes.clone());
            }
        }
        Step::Remove(count, bytes) => {
            let wanted = if *count == 0 { usize::MAX } else { count.unsigned_abs() as usize };
            let mut matching: Vec<usize> = (0..model.len()).filter(|at| model[*at] == *bytes).collect();
            if *count < 0 {
                matching.reverse();
            }
            matching.truncate(wanted);
            let mut found = Vec::new();
            list.positions(bytes, count.signum(), wanted, usize::MAX, |at| found.push(at));
            assert_eq!(found, matching);
            matching.sort_unstable();
            // What is behind the end is passed over.
            found.sort_unstable();
            found.push(model.len() + 1);
            assert_eq!(list.remove_at(&found, limits), matching.len());
            matching.iter().rev().for_each(|at| drop(model.remove(*at)));
        }
        Step::RemoveEvery(start, stride) => {
            let indexes: Vec<usize> = (*start..model.len()).step_by(*stride).collect();
            assert_eq!(list.remove_at(&indexes, limits), indexes.len());
            indexes.iter().rev().for_each(|at| drop(model.remove(*at)));
        }
        Step::Trim(start, count) => {
            list.trim(*start, *count, limits);
            *model = model.iter().skip(*start).take(*count).cloned().collect();
        }
    }
}

fn check_reads(list: &List, model: &[Vec<u8>], probe: usize) {
    assert_eq!(list.get(model.len()), None);
    let start = probe % (model.len() + 2);
    let count = probe / 7 % (model.len() + 2);
    let range: Vec<_> = list.range(start, count).map(|it| it.to_vec()).collect();
    assert_eq!(range, model.iter().skip(start).take(count).cloned().collect::<Vec<_>>());
    let reverse: Vec<_> = list.range_reverse(start, count).map(|it| it.to_vec()).collect();
    assert_eq!(reverse, model.iter().rev().skip(start).take(count).cloned().collect::<Vec<_>>());
    if let Some(bytes) = model.get(start) {
        assert_eq!(list.get(start).map(|it| it.to_vec()), Some(bytes.clone()));
        assert_eq!(list.position(bytes), model.iter().position(|it| it == bytes));
        let matching: Vec<usize> = (0..model.len()).filter(|at| model[*at] == *bytes).collect();
        let mut found = Vec::new();
        list.positions(bytes, 2, 3, usize::MAX, |at| found.push(at));
        assert_eq!(found, matching.iter().copied().skip(1).take(3).collect::<Vec<_>>());
        found.clear();
        list.positions(bytes, -1, usize::MAX, count, |at| found.push(at));
        let expected: Vec<_> = matching.iter().copied().rev().filter(|at| *at + count >= model.len()).collect();
        assert_eq!(found, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_list_is_a_vector(
        steps in prop::collection::vec((step(), any::<usize>()), 1..40),
        size in prop_oneof![Just(-2), Just(-1), Just(0), 1i32..40, Just(-5)],
        lone in prop_oneof![2 => Just(usize::MAX), 1 => 1usize..60],
    ) {
        let limits = Limits { list_max_listpack_size: size, list_lone_element_bytes: lone, ..Limits::default() };
        let (mut list, mut model) = (List::new(), Vec::new());
        for (step, probe) in &steps {
            apply(&mut list, &mut model, step, &limits);
            check_shape(&list, &limits);
            prop_assert_eq!(list.len(), model.len());
            check_reads(&list, &model, *probe);
        }
        prop_assert_eq!(collect(&list), model);
    }
}

#[test]
fn a_list_becomes_large_at_its_limit_and_packed_again_at_half_of_it() {
    let limits = Limits { list_max_listpack_size: 10, ..Limits::default() };
    let mut list = List::new();
    (0..10).for_each(|_| list.push(End::Tail, b"x", &limits));
    assert_eq!(list.encoding(), "listpack");
    list.push(End::Tail, b"x", &limits);
    assert_eq!(list.encoding(), "quicklist");
    while list.len() > 6 {
        list.pop(End::Tail, &limits, |_| ());
    }
    assert_eq!(list.encoding(), "quicklist");
    list.pop(End::Tail, &limits, |_| ());
    assert_eq!(list.encoding(), "listpack");
}

#[test]
fn the_chunks_of_a_queue_are_freed_behind_it() {
    let limits = Limits::default();
    let mut list = List::new();
    (0..200_000u32).for_each(|number| list.push(End::Head, number.to_string().as_bytes(), &limits));
    let full = list.memory_bytes();
    assert!(full < 200_000 * 8, "{full}");
    (0..199_990).for_each(|_| assert!(list.pop(End::Tail, &limits, |_| ()).is_some()));
    assert_eq!(list.encoding(), "listpack");
    assert!(list.memory_bytes() < 128);
}

#[test]
fn an_element_of_the_size_for_it_stands_alone_wherever_it_comes_from() {
    type Make = fn(&mut List, &Limits);
    const LARGE: &[u8] = b"xxxxxxxxxx";
    fn check(make: Make, chunks: &[usize]) {
        let limits = Limits { list_lone_element_bytes: 10, ..Limits::default() };
        let mut list = List::new();
        (0..4).for_each(|_| list.push(End::Tail, b"small", &limits));
        make(&mut list, &limits);
        let found: Vec<usize> = (0..list.chunk_count()).map(|number| list.chunk(number).len()).collect();
        assert_eq!(found, chunks);
        assert_eq!(list.encoding(), "quicklist");
    }
    check(|list, limits| list.push(End::Tail, LARGE, limits), &[4, 1]);
    check(|list, limits| list.push(End::Head, LARGE, limits), &[1, 4]);
    check(|list, limits| assert!(list.insert(2, LARGE, limits)), &[2, 1, 2]);
    check(|list, limits| assert!(list.set(2, LARGE, limits)), &[2, 1, 1]);
    check(
        |list, limits| {
            list.push(End::Tail, LARGE, limits);
            list.push(End::Tail, b"small", limits);
        },
        &[4, 1, 1],
    );
    check(
        |list, limits| {
            list.push(End::Tail, LARGE, limits);
            list.trim(4, 1, limits);
        },
        &[1],
    );
    check(
        |list, limits| {
            list.trim(0, 1, limits);
            assert!(list.set(0, LARGE, limits));
        },
        &[1],
    );
}
