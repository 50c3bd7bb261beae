//! Sets of slots, held as ranges: what a cluster moves and hands over is mostly contiguous.

use super::slot::{SLOT_COUNT, Slot};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// A set of slots. Invariant: ranges are ascending, disjoint and not adjacent; both ends are included.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct SlotRanges {
    ranges: Vec<(u16, u16)>,
}

impl SlotRanges {
    /// Every slot there is.
    pub fn all() -> SlotRanges {
        SlotRanges { ranges: vec![(0, SLOT_COUNT as u16 - 1)] }
    }

    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many slots.
    pub fn len(&self) -> usize {
        self.ranges.iter().map(|(first, last)| (last - first) as usize + 1).sum()
    }

    /// First and last slot of each range, ascending.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = (Slot, Slot)> + '_ {
        self.ranges.iter().map(|&(first, last)| (slot(first), slot(last)))
    }

    /// Every slot, ascending.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        self.ranges.iter().flat_map(|&(first, last)| (first..=last).map(slot))
    }

    pub fn contains(&self, slot: Slot) -> bool {
        let number = slot.number();
        let behind = self.ranges.partition_point(|&(first, _)| first <= number);
        behind > 0 && self.ranges[behind - 1].1 >= number
    }

    /// The slots of either.
    pub fn union(&self, other: &SlotRanges) -> SlotRanges {
        let mut ranges: Vec<(u16, u16)> = self.ranges.iter().chain(&other.ranges).copied().collect();
        ranges.sort_unstable();
        SlotRanges { ranges: joined(ranges) }
    }

    /// The slots of this one that the other does not have.
    pub fn difference(&self, other: &SlotRanges) -> SlotRanges {
        self.slots().filter(|slot| !other.contains(*slot)).collect()
    }
}

/// Numbers in a [`SlotRanges`] are below [`SLOT_COUNT`] by construction.
fn slot(number: u16) -> Slot {
    Slot::new(u64::from(number)).unwrap_or_default()
}

/// Ascending ranges, with those that touch or overlap joined.
fn joined(ranges: Vec<(u16, u16)>) -> Vec<(u16, u16)> {
    let mut joined: Vec<(u16, u16)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match joined.last_mut() {
            Some((_, end)) if u32::from(first) <= u32::from(*end) + 1 => *end = (*end).max(last),
            _ => joined.push((first, last)),
        }
    }
    joined
}

impl FromIterator<Slot> for SlotRanges {
    fn from_iter<I: IntoIterator<Item = Slot>>(slots: I) -> SlotRanges {
        let mut ranges: Vec<(u16, u16)> = slots.into_iter().map(|slot| (slot.number(), slot.number())).collect();
        ranges.sort_unstable();
        SlotRanges { ranges: joined(ranges) }
    }
}

impl fmt::Display for SlotRanges {
    /// As CLUSTER NODES writes them: `0-5460 7000`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.ranges.iter().enumerate() {
            let blank = if index == 0 { "" } else { " " };
            if first == last {
                write!(f, "{blank}{first}")?;
            } else {
                write!(f, "{blank}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for SlotRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{self}]")
    }
}

impl Serialize for SlotRanges {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.ranges.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SlotRanges {
    /// Whatever stands in the bytes, the result keeps the invariant; numbers that are no slots are refused.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SlotRanges, D::Error> {
        let mut ranges: Vec<(u16, u16)> = Vec::deserialize(deserializer)?;
        if ranges.iter().any(|&(first, last)| first > last || last as usize >= SLOT_COUNT) {
            return Err(serde::de::Error::custom("a range of slots that do not exist"));
        }
        ranges.sort_unstable();
        Ok(SlotRanges { ranges: joined(ranges) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn set(numbers: &BTreeSet<u16>) -> SlotRanges {
        numbers.iter().copied().map(slot).collect()
    }

    #[test]
    fn ranges_are_shown_as_cluster_nodes_shows_them() {
        assert_eq!(set(&BTreeSet::from([5, 0, 1, 2, 7, 6, 100])).to_string(), "0-2 5-7 100");
        assert_eq!(SlotRanges::default().to_string(), "");
        assert_eq!(SlotRanges::all().len(), SLOT_COUNT);
    }

    #[test]
    fn what_is_no_slot_is_not_read() {
        let bytes = postcard::to_stdvec(&vec![(0u16, 16384u16)]).expect("encoded");
        assert!(postcard::from_bytes::<SlotRanges>(&bytes).is_err());
    }

    proptest! {
        #[test]
        fn a_set_of_ranges_is_a_set(a in prop::collection::btree_set(0u16..60, 0..40), b in prop::collection::btree_set(0u16..60, 0..40)) {
            let (x, y) = (set(&a), set(&b));
            let numbers = |set: &SlotRanges| set.slots().map(Slot::number).collect::<Vec<_>>();
            prop_assert_eq!(numbers(&x), a.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(x.len(), a.len());
            prop_assert_eq!(numbers(&x.union(&y)), a.union(&b).copied().collect::<Vec<_>>());
            prop_assert_eq!(numbers(&x.difference(&y)), a.difference(&b).copied().collect::<Vec<_>>());
            prop_assert!((0..60).all(|n| x.contains(slot(n)) == a.contains(&n)));
            let bytes = postcard::to_stdvec(&x).expect("encoded");
            prop_assert_eq!(postcard::from_bytes::<SlotRanges>(&bytes).expect("decoded"), x);
        }
    }
}
