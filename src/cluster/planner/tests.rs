use super::*;
use proptest::prelude::*;

fn node(number: u128) -> NodeId {
    NodeId(number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
}

fn nodes(count: u128) -> Vec<Candidate> {
    (1..=count).map(|number| Candidate { id: node(number), weight: 1 }).collect()
}

fn counts(candidates: &[Candidate], table: &Table) -> Vec<usize> {
    candidates.iter().map(|c| table.iter().filter(|owner| **owner == Some(c.id)).count()).collect()
}

fn moved(plan: &Plan) -> usize {
    plan.moves.iter().map(|step| step.slots.len()).sum()
}

/// What must hold of every plan.
fn check(candidates: &[Candidate], table: &Table) -> Plan {
    let plan = plan(candidates, table);
    let total: u64 = candidates.iter().map(|c| u64::from(c.weight)).sum();
    let mut fewest = 0;
    for (candidate, count) in candidates.iter().zip(counts(candidates, &plan.table)) {
        let share = SLOT_COUNT as f64 * f64::from(candidate.weight) / total as f64;
        assert!((count as f64 - share).abs() < 1.0, "{:?} has {count} of {share}", candidate.id);
        let before = table.iter().filter(|owner| **owner == Some(candidate.id)).count();
        fewest += count.saturating_sub(before);
    }
    assert!(plan.table.iter().all(Option::is_some), "every slot has an owner");
    assert_eq!(moved(&plan), fewest, "no slot moves that need not");
    assert!(super::plan(candidates, &plan.table).moves.is_empty(), "planning again changes nothing");
    let mut reversed = candidates.to_vec();
    reversed.reverse();
    assert_eq!(super::plan(&reversed, table), plan, "the order of the nodes does not matter");
    plan
}

fn ranges(table: &Table) -> usize {
    table.windows(2).filter(|pair| pair[0] != pair[1]).count() + 1
}

#[test]
fn one_node_owns_everything() {
    let plan = check(&nodes(1), &vec![None; SLOT_COUNT]);
    assert_eq!(ranges(&plan.table), 1);
}

#[test]
fn grown_one_by_one_the_table_stays_short() {
    let mut table = vec![None; SLOT_COUNT];
    for count in 1..=100 {
        table = check(&nodes(count), &table).table;
        let most = match count {
            3 => 100,
            10 => 400,
            100 => 5000,
            _ => SLOT_COUNT,
        };
        let ranges = ranges(&table);
        assert!(ranges <= most, "{ranges} ranges at {count} nodes");
    }
}

#[test]
fn a_node_that_leaves_gives_everything_and_nobody_else_moves() {
    let mut table = vec![None; SLOT_COUNT];
    for count in 1..=10 {
        table = plan(&nodes(count), &table).table;
    }
    let mut left = nodes(10);
    left[4].weight = 0;
    let plan = check(&left, &table);
    assert!(plan.moves.iter().all(|step| step.from == Some(left[4].id)));
}

#[test]
fn without_anybody_to_own_nothing_changes() {
    let table = vec![Some(node(1)); SLOT_COUNT];
    assert!(plan(&[], &table).moves.is_empty());
    assert!(plan(&[Candidate { id: node(1), weight: 0 }], &table).moves.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    /// Joins, leaves and changes of weight in any order.
    #[test]
    fn any_history_stays_balanced(steps in prop::collection::vec((1u128..12, 0u32..4), 1..12)) {
        let mut candidates: Vec<Candidate> = vec![Candidate { id: node(100), weight: 1 }];
        let mut table = vec![None; SLOT_COUNT];
        for (number, weight) in steps {
            candidates.retain(|candidate| candidate.id != node(number));
            candidates.push(Candidate { id: node(number), weight });
            table = check(&candidates, &table).table;
        }
    }
}
