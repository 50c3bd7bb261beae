//! How many slots each node should hold: shares in proportion to weight, as whole numbers, within limits.
//!
//! A share is rounded down or up, never further. Who is rounded up is decided by what the nodes hold already, so that
//! a balanced table stays as it is.

use crate::base::slot::SLOT_COUNT;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// One that gets a share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub weight: u64,
    /// Least and most it may get. A claim of weight 0 gets the least.
    pub least: usize,
    pub most: usize,
    /// What it has now.
    pub held: usize,
}

/// Divides `total` among the claims. Where their limits leave no other way, the sum falls short of the total.
pub(super) fn divide(total: usize, claims: &[Claim]) -> Vec<usize> {
    let mut shares: Vec<Option<usize>> =
        claims.iter().map(|claim| (claim.weight == 0).then_some(claim.least)).collect();
    loop {
        let free: Vec<usize> = (0..claims.len()).filter(|&index| shares[index].is_none()).collect();
        let weights: i128 = free.iter().map(|&index| i128::from(claims[index].weight)).sum();
        let rest = total.saturating_sub(shares.iter().flatten().sum()) as i128;
        // Everything here is multiplied by the sum of the weights, so that it stays whole.
        let share = |index: usize| rest * i128::from(claims[index].weight);
        let above = |index: usize| (share(index) - claims[index].most as i128 * weights).max(0);
        let below = |index: usize| (claims[index].least as i128 * weights - share(index)).max(0);
        let (excess, lack) = free.iter().fold((0, 0), |(a, b), &index| (a + above(index), b + below(index)));
        if excess == 0 && lack == 0 {
            round(rest, weights, claims, &free, &mut shares);
            return shares.into_iter().map(|share| share.unwrap_or(0)).collect();
        }
        for index in free {
            if excess >= lack && above(index) > 0 {
                shares[index] = Some(claims[index].most);
            } else if excess < lack && below(index) > 0 {
                shares[index] = Some(claims[index].least);
            }
        }
    }
}

/// Rounds the shares of the `free` claims; those that hold most above their rounded-down share are rounded up.
fn round(rest: i128, weights: i128, claims: &[Claim], free: &[usize], shares: &mut [Option<usize>]) {
    let mut open = rest;
    let mut fractions = Vec::new();
    for &index in free {
        let exact = rest * i128::from(claims[index].weight);
        let floor = (exact / weights) as usize;
        shares[index] = Some(floor);
        open -= floor as i128;
        if exact % weights != 0 && floor < claims[index].most {
            fractions.push((Reverse(claims[index].held.saturating_sub(floor)), index));
        }
    }
    fractions.sort_unstable();
    for &(_, index) in fractions.iter().take(open.max(0) as usize) {
        shares[index] = shares[index].map(|floor| floor + 1);
    }
}

/// A node as far as quotas go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member<'a> {
    /// 0 for a node that is to hold nothing.
    pub weight: u64,
    pub zone: &'a str,
    pub held: usize,
}

/// How many slots each member should hold when every slot has `copies` of them, no more than the members with a weight.
///
/// A zone with little weight still gets as many as it takes to have the copies of a slot in different zones.
pub(super) fn quotas(members: &[Member<'_>], copies: usize) -> Vec<usize> {
    let total = copies * SLOT_COUNT;
    let mut zones: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, member) in members.iter().enumerate().filter(|(_, member)| member.weight > 0) {
        zones.entry(member.zone).or_default().push(index);
    }
    let everyone: Vec<usize> = (0..members.len()).collect();
    let mut quotas = vec![0; members.len()];
    if copies <= 1 || zones.len() <= 1 {
        share_out(total, members, &everyone, &mut quotas);
        return quotas;
    }
    let (per_zone, least) = if zones.len() >= copies {
        (1, if zones.len() == copies { SLOT_COUNT } else { 0 })
    } else {
        (copies - zones.len() + 1, SLOT_COUNT)
    };
    let claims: Vec<Claim> = zones
        .values()
        .map(|indices| Claim {
            weight: indices.iter().map(|&index| members[index].weight).sum(),
            least,
            most: per_zone.min(indices.len()) * SLOT_COUNT,
            held: indices.iter().map(|&index| members[index].held).sum(),
        })
        .collect();
    for (share, indices) in divide(total, &claims).into_iter().zip(zones.values()) {
        share_out(share, members, indices, &mut quotas);
    }
    quotas
}

fn share_out(total: usize, members: &[Member<'_>], indices: &[usize], quotas: &mut [usize]) {
    let claims: Vec<Claim> = indices
        .iter()
        .map(|&index| Claim { weight: members[index].weight, least: 0, most: SLOT_COUNT, held: members[index].held })
        .collect();
    for (share, &index) in divide(total, &claims).into_iter().zip(indices) {
        quotas[index] = share;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn claim(weight: u64, held: usize) -> Claim {
        Claim { weight, least: 0, most: SLOT_COUNT, held }
    }

    #[test]
    fn whoever_holds_more_is_rounded_up() {
        assert_eq!(divide(10, &[claim(1, 0), claim(1, 9), claim(1, 1)]), [3, 4, 3]);
        assert_eq!(divide(10, &[claim(1, 0), claim(3, 0), claim(0, 5)]), [3, 7, 0]);
        assert_eq!(divide(10, &[]), [0usize; 0]);
    }

    #[test]
    fn limits_hold_and_the_rest_is_shared() {
        let capped = Claim { weight: 10, least: 0, most: 4, held: 0 };
        assert_eq!(divide(10, &[capped, claim(1, 0), claim(1, 0)]), [4, 3, 3]);
        let lifted = Claim { weight: 1, least: 6, most: 9, held: 0 };
        assert_eq!(divide(10, &[lifted, claim(9, 0)]), [6, 4]);
    }

    #[test]
    fn a_light_zone_gets_one_copy_of_every_slot() {
        let member = |zone| Member { weight: 1, zone, held: 0 };
        let members = [member("a"), member("a"), member("a"), member("b")];
        let quotas = quotas(&members, 2);
        assert_eq!((quotas[3], quotas.iter().sum::<usize>()), (SLOT_COUNT, 2 * SLOT_COUNT));
    }

    proptest! {
        #[test]
        fn shares_add_up_and_are_off_by_less_than_one(
            weights in prop::collection::vec(0u64..1000, 1..50), total in 0usize..40_000,
        ) {
            prop_assume!(weights.iter().any(|&weight| weight > 0));
            let claims: Vec<Claim> =
                weights.iter().map(|&weight| Claim { weight, least: 0, most: usize::MAX / 2, held: weight as usize % 7 }).collect();
            let shares = divide(total, &claims);
            prop_assert_eq!(shares.iter().sum::<usize>(), total);
            let sum: u64 = weights.iter().sum();
            for (share, weight) in shares.iter().zip(&weights) {
                let exact = total as f64 * *weight as f64 / sum as f64;
                prop_assert!((*share as f64 - exact).abs() < 1.0);
            }
        }
    }
}
