//! Choosing contiguous runs of slots, so that a table stays made of few ranges.
//!
//! Of all the runs that could go to a receiver, the best is the one that adds fewest ranges to the table: one that joins
//! two of the receiver's ranges, or that extends one, or that is a donor's whole range. Where a run must begin a new
//! range, it begins at the edge of a donor's range next to another donor, who will extend it, and there nearest to one
//! of the receiver's points on the ring.

use crate::base::slot::SLOT_COUNT;

/// Slots next to each other that one donor gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Run {
    pub first: usize,
    pub length: usize,
    pub donor: usize,
}

impl Run {
    pub(super) fn slots(self) -> std::ops::Range<usize> {
        self.first..self.first + self.length
    }
}

/// What one receiver could be given.
pub(super) struct Offer<'a, D, L, H> {
    /// Ascending first slots of segments, the first of them 0; what follows is the same for all slots of a segment.
    pub starts: &'a [usize],
    /// Who could give a slot, if anybody.
    pub donor: D,
    /// How many slots a donor gives at most; more than 0 for every donor named.
    pub limit: L,
    /// Whether the receiver has a slot already.
    pub held: H,
    /// Distance of every slot to the receiver's nearest point on the ring.
    pub distances: &'a [u16],
}

/// What makes a run worse than another, most important first.
type Cost = (i8, bool, u16, usize);

impl<D, L, H> Offer<'_, D, L, H>
where
    D: Fn(usize) -> Option<usize>,
    L: Fn(usize) -> usize,
    H: Fn(usize) -> bool,
{
    /// The best run on offer, `None` where there is none.
    pub(super) fn best(&self) -> Option<Run> {
        let mut best: Option<(Cost, Run)> = None;
        let (mut first, mut donor, mut before) = (0, None, None);
        let mut here = (self.donor)(0);
        for (&start, next) in self.starts.iter().zip(self.starts.iter().skip(1).map(Some).chain([None])) {
            if here != donor {
                (before, donor, first) = (donor, here, start);
            }
            let end = next.copied().unwrap_or(SLOT_COUNT);
            let after = next.and_then(|&next| (self.donor)(next));
            if let Some(donor) = donor.filter(|_| next.is_none() || after != here) {
                self.consider(donor, first, end, (before.is_some(), after.is_some()), &mut best);
            }
            here = after;
        }
        best.map(|(_, run)| run)
    }

    /// Compares what can be taken of the donor's slots from `first` up to `end` with the best run so far.
    fn consider(
        &self,
        donor: usize,
        first: usize,
        end: usize,
        (donor_before, donor_after): (bool, bool),
        best: &mut Option<(Cost, Run)>,
    ) {
        let most = (self.limit)(donor);
        let joins_left = i8::from(first > 0 && (self.held)(first - 1));
        let joins_right = i8::from(end < SLOT_COUNT && (self.held)(end));
        let mut compare = |ranges: i8, alone: bool, edge: usize, first: usize, length: usize| {
            let cost = (ranges, alone, self.distances[edge], first);
            if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                *best = Some((cost, Run { first, length, donor }));
            }
        };
        if end - first <= most {
            compare(-joins_left - joins_right, !donor_before && !donor_after, first, first, end - first);
        } else {
            compare(1 - joins_left, !donor_before, first, first, most);
            compare(1 - joins_right, !donor_after, end - 1, end - most, most);
        }
    }
}
