//! `RankTree` against a sorted vector, with its shape.

use proptest::prelude::*;

use super::*;

/// Checks a node and returns its depth; counts the nodes.
fn check_node(node: &Node, nodes: &mut Nodes) -> usize {
    match node {
        Node::Leaf(leaf) => {
            nodes.leaves += 1;
            assert!((1..=LEAF_MAX).contains(&leaf.len));
            1
        }
        Node::Inner(children) => {
            nodes.inners += 1;
            assert!((1..=CHILDREN_MAX).contains(&children.len()));
            assert_eq!(children.capacity(), CHILDREN_MAX);
            let depths: Vec<_> = children.iter().map(|child| check_node(&child.node, nodes)).collect();
            assert!(depths.windows(2).all(|pair| pair[0] == pair[1]));
            for child in children {
                assert_eq!(child.count as usize, child.node.count());
                assert_eq!((child.score, child.handle), child.node.first());
            }
            depths[0] + 1
        }
    }
}

fn check(tree: &RankTree, model: &[(f64, u32)]) {
    let mut nodes = Nodes::default();
    if let Some(root) = &tree.root {
        assert!(check_node(root, &mut nodes) <= 8);
    }
    assert_eq!(nodes, tree.nodes);
    assert_eq!(tree.len(), model.len());
    assert!(tree.walk(0, usize::MAX, Direction::Up).eq(model.iter().copied()));
    let last = model.len().saturating_sub(1);
    assert!(tree.walk(last, usize::MAX, Direction::Down).eq(model.iter().rev().copied()));
}

fn insert(tree: &mut RankTree, model: &mut Vec<(f64, u32)>, score: f64, handle: u32) {
    let before = |other_score: f64, other: u32| (other_score, other) < (score, handle);
    let rank = model.partition_point(|pair| before(pair.0, pair.1));
    assert_eq!(tree.rank_of(before), rank);
    tree.insert(score, handle, before);
    model.insert(rank, (score, handle));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_tree_is_a_sorted_vector(
        phases in prop::collection::vec((0u8..6, 1usize..1_500, any::<u64>()), 1..8),
        scores in 1u64..2_000,
    ) {
        let (mut tree, mut model) = (RankTree::default(), Vec::new());
        let mut handle = 0;
        for (kind, amount, seed) in phases {
            let mut state = seed;
            for step in 0..amount {
                state = crate::values::hashing::mix(state);
                match kind {
                    0 | 1 => insert(&mut tree, &mut model, (state % scores) as f64, handle),
                    2 => insert(&mut tree, &mut model, step as f64 + 1e6, handle),
                    3 => insert(&mut tree, &mut model, -(step as f64), handle),
                    _ if model.is_empty() => break,
                    _ => {
                        let rank = if kind == 4 { 0 } else { state as usize % model.len() };
                        prop_assert_eq!(tree.walk(rank, 1, Direction::Up).next(), Some(model[rank]));
                        prop_assert_eq!(tree.remove(rank), Some(model.remove(rank)));
                    }
                }
                handle += 1;
            }
            check(&tree, &model);
        }
        let from = model.len() / 3;
        prop_assert!(tree.walk(from, 100, Direction::Up).eq(model.iter().skip(from).take(100).copied()));
        prop_assert_eq!(tree.walk(model.len(), 1, Direction::Down).next(), None);
        for rank in (0..model.len()).step_by(17) {
            model[rank].1 += 1_000_000;
            tree.rename(rank, model[rank].1);
        }
        check(&tree, &model);
        while tree.remove(model.len() / 2).is_some() {
            model.remove(model.len() / 2);
            if model.len() % 100 == 0 { check(&tree, &model); }
            if tree.remove(0).is_some() { model.remove(0); }
        }
        check(&tree, &model);
    }
}

#[test]
fn what_is_filled_in_order_fills_its_leaves() {
    let (mut tree, mut model) = (RankTree::default(), Vec::new());
    (0..10_000).for_each(|number| insert(&mut tree, &mut model, f64::from(number), number));
    check(&tree, &model);
    assert!(tree.allocation_bytes() < 10_000 * 14, "{}", tree.allocation_bytes());
}
