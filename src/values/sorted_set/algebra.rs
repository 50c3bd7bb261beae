//! Unions, intersections and differences of sorted sets (ZUNION and its kin), in which a set may stand for a sorted set
//! whose scores are all 1.
//!
//! Sums of floating point numbers depend on their order, and so on that of the operands: as in Redis, smaller ones come
//! first, in unions and in intersections.

use super::SortedSet;
use crate::values::Value;
use crate::values::element::{Digits, Element};
use crate::values::limits::Limits;
use crate::values::set::Set;

/// A collection of members with scores; `Nothing` where there is no key.
#[derive(Debug, Clone, Copy)]
pub enum Operand<'a> {
    Nothing,
    Sorted(&'a SortedSet),
    Set(&'a Set),
}

/// An operand, and by what its scores are multiplied.
#[derive(Debug, Clone, Copy)]
pub struct Weighted<'a> {
    pub operand: Operand<'a>,
    pub weight: f64,
}

/// What becomes of the scores of a member that several operands have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregate {
    Sum,
    Min,
    Max,
}

impl<'a> Operand<'a> {
    /// What a key holds, if it can be an operand.
    pub fn of(value: &'a Value) -> Option<Self> {
        match value {
            Value::SortedSet(sorted) => Some(Self::Sorted(sorted)),
            Value::Set(set) => Some(Self::Set(set)),
            _ => None,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Sorted(sorted) => sorted.len(),
            Self::Set(set) => set.len(),
        }
    }

    fn score(&self, member: Element<'_>) -> Option<f64> {
        match self {
            Self::Nothing => None,
            Self::Sorted(sorted) => sorted.score(member.bytes(&mut Digits::new())),
            Self::Set(set) => set.contains_element(member).then_some(1.0),
        }
    }

    fn iter(&self) -> Box<dyn Iterator<Item = (Element<'a>, f64)> + 'a> {
        match *self {
            Self::Nothing => Box::new(std::iter::empty()),
            Self::Sorted(sorted) => Box::new(sorted.iter()),
            Self::Set(set) => Box::new(set.iter().map(|member| (member, 1.0))),
        }
    }
}

impl Weighted<'_> {
    /// A score with its weight. Infinite times 0 is 0.
    fn weigh(&self, score: f64) -> f64 {
        let weighed = self.weight * score;
        if weighed.is_nan() { 0.0 } else { weighed }
    }
}

impl Aggregate {
    /// Joins two scores. Of opposite infinities the sum is 0.
    fn join(self, left: f64, right: f64) -> f64 {
        match self {
            Self::Sum if (left + right).is_nan() => 0.0,
            Self::Sum => left + right,
            Self::Min if right < left => right,
            Self::Max if right > left => right,
            Self::Min | Self::Max => left,
        }
    }
}

/// The members that any operand has (ZUNION).
pub fn union(operands: &[Weighted<'_>], aggregate: Aggregate, limits: &Limits) -> SortedSet {
    let mut all = SortedSet::new();
    for weighted in smallest_first(operands) {
        for (member, score) in weighted.operand.iter() {
            let (score, mut digits) = (weighted.weigh(score), Digits::new());
            let member = member.bytes(&mut digits);
            let joined = all.score(member).map_or(score, |old| aggregate.join(old, score));
            all.insert(member, joined, limits);
        }
    }
    all
}

/// The members that all operands have (ZINTER).
pub fn intersection(operands: &[Weighted<'_>], aggregate: Aggregate, limits: &Limits) -> SortedSet {
    let mut common = SortedSet::new();
    let sorted = smallest_first(operands);
    let Some((first, others)) = sorted.split_first() else { return common };
    for (member, score) in first.operand.iter() {
        let joined = others.iter().try_fold(first.weigh(score), |joined, other| {
            Some(aggregate.join(joined, other.weight * other.operand.score(member)?))
        });
        if let Some(joined) = joined {
            common.insert(member.bytes(&mut Digits::new()), joined, limits);
        }
    }
    common
}

/// How many members all operands have; counted up to `most` (ZINTERCARD).
pub fn intersection_len(operands: &[Operand<'_>], most: usize) -> usize {
    let mut sorted = operands.to_vec();
    sorted.sort_by_key(Operand::len);
    let Some((first, others)) = sorted.split_first() else { return 0 };
    let common = first.iter().filter(|(member, _)| others.iter().all(|other| other.score(*member).is_some()));
    common.take(most).count()
}

/// The members of the first operand that no other has, with their scores (ZDIFF).
pub fn difference(operands: &[Operand<'_>], limits: &Limits) -> SortedSet {
    let mut rest = SortedSet::new();
    let Some((first, others)) = operands.split_first() else { return rest };
    for (member, score) in first.iter() {
        if others.iter().all(|other| other.score(member).is_none()) {
            rest.insert(member.bytes(&mut Digits::new()), score, limits);
        }
    }
    rest
}

fn smallest_first<'s, 'a>(operands: &'s [Weighted<'a>]) -> Vec<&'s Weighted<'a>> {
    let mut sorted: Vec<_> = operands.iter().collect();
    sorted.sort_by_key(|weighted| weighted.operand.len());
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    type Model = BTreeMap<Vec<u8>, f64>;

    fn sorted(model: &Model) -> SortedSet {
        let mut sorted = SortedSet::new();
        for (member, score) in model {
            sorted.insert(member, *score, &Limits::default());
        }
        sorted
    }

    fn contents(sorted: &SortedSet) -> Model {
        sorted.iter().map(|(member, score)| (member.to_vec(), score)).collect()
    }

    fn model() -> impl Strategy<Value = Model> {
        let member = (0u8..20).prop_map(|it| if it < 10 { vec![b'0' + it] } else { vec![b'a' + it; 3] });
        prop::collection::btree_map(member, (-20i32..20).prop_map(f64::from), 0..15)
    }

    proptest! {
        #[test]
        fn algebra_is_that_of_maps(models in prop::collection::vec((model(), -2i32..3), 1..4), as_sets in any::<u8>()) {
            let limits = Limits::default();
            let mut models = models;
            for (index, (model, _)) in models.iter_mut().enumerate() {
                if as_sets & 1 << index != 0 {
                    model.values_mut().for_each(|score| *score = 1.0);
                }
            }
            let sorteds: Vec<SortedSet> = models.iter().map(|(model, _)| sorted(model)).collect();
            let sets: Vec<Set> = models.iter().map(|(model, _)| {
                let mut set = Set::new();
                model.keys().for_each(|member| _ = set.add(member, &limits));
                set
            }).collect();
            let operands: Vec<Operand<'_>> = (0..models.len()).map(|index| match as_sets & 1 << index {
                0 => Operand::Sorted(&sorteds[index]),
                _ => Operand::Set(&sets[index]),
            }).collect();
            let weighted: Vec<Weighted<'_>> = operands.iter().zip(&models)
                .map(|(operand, (_, weight))| Weighted { operand: *operand, weight: f64::from(*weight) }).collect();
            let all: BTreeSet<Vec<u8>> = models.iter().flat_map(|(model, _)| model.keys().cloned()).collect();
            let scores = |member: &[u8]| models.iter()
                .filter_map(|(model, weight)| Some(model.get(member)? * f64::from(*weight))).collect::<Vec<_>>();
            for (aggregate, join) in [
                (Aggregate::Sum, &(|scores: &[f64]| scores.iter().sum::<f64>()) as &dyn Fn(&[f64]) -> f64),
                (Aggregate::Min, &|scores: &[f64]| scores.iter().copied().fold(f64::INFINITY, f64::min)),
                (Aggregate::Max, &|scores: &[f64]| scores.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
            ] {
                let expected: Model = all.iter().map(|member| (member.clone(), join(&scores(member)))).collect();
                prop_assert_eq!(contents(&union(&weighted, aggregate, &limits)), expected.clone());
                let common: Model = expected.into_iter()
                    .filter(|(member, _)| models.iter().all(|(model, _)| model.contains_key(member))).collect();
                prop_assert_eq!(intersection_len(&operands, usize::MAX), common.len());
                prop_assert_eq!(intersection_len(&operands, 2), common.len().min(2));
                prop_assert_eq!(contents(&intersection(&weighted, aggregate, &limits)), common);
            }
            let mut rest = models[0].0.clone();
            rest.retain(|member, _| models[1..].iter().all(|(model, _)| !model.contains_key(member)));
            prop_assert_eq!(contents(&difference(&operands, &limits)), rest);
        }
    }

    #[test]
    fn what_would_be_no_number_is_zero() {
        let one = |score: f64| sorted(&Model::from([(b"a".to_vec(), score)]));
        let (high, low) = (one(f64::INFINITY), one(f64::NEG_INFINITY));
        let weighted = |operand, weight| Weighted { operand: Operand::Sorted(operand), weight };
        for (left, right) in [(weighted(&high, 1.0), weighted(&low, 1.0)), (weighted(&high, 0.0), weighted(&low, 0.0))]
        {
            for made in [union, intersection] {
                let made = made(&[left, right], Aggregate::Sum, &Limits::default());
                assert_eq!(made.score(b"a"), Some(0.0));
            }
        }
    }
}
