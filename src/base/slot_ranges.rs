//! Sets of slots as sorted, disjoint, inclusive ranges.
//!
//! A node's slots come in contiguous runs, so a few pairs of numbers stand for thousands of slots: in the orders to move
//! them, in what nodes tell each other, and in the notation of `CLUSTER NODES` (`0-5460 7000`).
//! Two ranges never touch: adjacent ones are merged, so that equal sets are equal values.

use crate::base::slot::{SLOT_COUNT, Slot};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A set of slots.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<(u16, u16)>", into = "Vec<(u16, u16)>")]
pub struct SlotRanges {
    /// First and last slot of each range, ascending, with at least one slot missing between two ranges.
    ranges: Vec<(u16, u16)>,
}

/// Why ranges read from elsewhere are not a set of slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InvalidRanges;

impl SlotRanges {
    /// The empty set.
    pub const fn new() -> SlotRanges {
        SlotRanges { ranges: Vec::new() }
    }

    /// Every slot there is.
    pub fn all() -> SlotRanges {
        SlotRanges { ranges: vec![(0, SLOT_COUNT as u16 - 1)] }
    }

    /// The slots from `first` to `last`, both included; empty where `last` comes before `first`.
    pub fn between(first: Slot, last: Slot) -> SlotRanges {
        let ranges = if first <= last { vec![(first.number(), last.number())] } else { Vec::new() };
        SlotRanges { ranges }
    }

    /// How many slots are in the set.
    pub fn len(&self) -> usize {
        self.ranges.iter().map(|&(first, last)| usize::from(last - first) + 1).sum()
    }

    /// Whether the set has no slot.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether the slot is in the set.
    pub fn contains(&self, slot: Slot) -> bool {
        let number = slot.number();
        let after = self.ranges.partition_point(|&(first, _)| first <= number);
        after > 0 && self.ranges[after - 1].1 >= number
    }

    /// Adds a slot; tells whether it was absent.
    pub fn insert(&mut self, slot: Slot) -> bool {
        if self.contains(slot) {
            return false;
        }
        let number = slot.number();
        let after = self.ranges.partition_point(|&(first, _)| first < number);
        let joins_left = after > 0 && self.ranges[after - 1].1 + 1 == number;
        let joins_right = after < self.ranges.len() && self.ranges[after].0 == number + 1;
        match (joins_left, joins_right) {
            (true, true) => {
                self.ranges[after - 1].1 = self.ranges[after].1;
                self.ranges.remove(after);
            }
            (true, false) => self.ranges[after - 1].1 = number,
            (false, true) => self.ranges[after].0 = number,
            (false, false) => self.ranges.insert(after, (number, number)),
        }
        true
    }

    /// Takes a slot out; tells whether it was present.
    pub fn remove(&mut self, slot: Slot) -> bool {
        if !self.contains(slot) {
            return false;
        }
        let number = slot.number();
        let index = self.ranges.partition_point(|&(first, _)| first <= number) - 1;
        let (first, last) = self.ranges[index];
        match (first == number, last == number) {
            (true, true) => {
                self.ranges.remove(index);
            }
            (true, false) => self.ranges[index].0 = number + 1,
            (false, true) => self.ranges[index].1 = number - 1,
            (false, false) => {
                self.ranges[index].1 = number - 1;
                self.ranges.insert(index + 1, (number + 1, last));
            }
        }
        true
    }

    /// The slots in either set.
    pub fn union(&self, other: &SlotRanges) -> SlotRanges {
        let mut sorted: Vec<(u16, u16)> = self.ranges.iter().chain(&other.ranges).copied().collect();
        sorted.sort_unstable();
        let mut union = SlotRanges::new();
        for (first, last) in sorted {
            union.append(first, last);
        }
        union
    }

    /// The slots of this set that are not in the other.
    pub fn difference(&self, other: &SlotRanges) -> SlotRanges {
        let mut left = SlotRanges::new();
        let mut holes = other.ranges.iter().copied().peekable();
        for &(first, last) in &self.ranges {
            let mut from = first;
            while holes.next_if(|hole| hole.1 < first).is_some() {}
            let mut covered = false;
            while let Some(&(hole_first, hole_last)) = holes.peek().filter(|hole| hole.0 <= last) {
                if hole_first > from {
                    left.append(from, hole_first - 1);
                }
                if hole_last >= last {
                    covered = true;
                    break;
                }
                from = hole_last + 1;
                holes.next();
            }
            if !covered {
                left.append(from, last);
            }
        }
        left
    }

    /// Every slot of the set, ascending.
    pub fn slots(&self) -> impl DoubleEndedIterator<Item = Slot> + '_ {
        self.ranges.iter().flat_map(|&(first, last)| (first..=last).filter_map(|number| Slot::new(u64::from(number))))
    }

    /// First and last slot of each range, ascending.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = (Slot, Slot)> + DoubleEndedIterator + '_ {
        let slot = |number: u16| Slot::new(u64::from(number)).expect("a set holds only slots");
        self.ranges.iter().map(move |&(first, last)| (slot(first), slot(last)))
    }

    /// Adds a range that begins no earlier than the last one did.
    fn append(&mut self, first: u16, last: u16) {
        match self.ranges.last_mut() {
            Some(previous) if previous.1 + 1 >= first => previous.1 = previous.1.max(last),
            _ => self.ranges.push((first, last)),
        }
    }
}

impl FromIterator<Slot> for SlotRanges {
    fn from_iter<I: IntoIterator<Item = Slot>>(slots: I) -> SlotRanges {
        let mut set = SlotRanges::new();
        set.extend(slots);
        set
    }
}

impl Extend<Slot> for SlotRanges {
    fn extend<I: IntoIterator<Item = Slot>>(&mut self, slots: I) {
        for slot in slots {
            // Ascending input, by far the most common, needs no search.
            match self.ranges.last() {
                Some(&(first, _)) if slot.number() < first => {
                    self.insert(slot);
                }
                _ => self.append(slot.number(), slot.number()),
            }
        }
    }
}

impl TryFrom<Vec<(u16, u16)>> for SlotRanges {
    type Error = InvalidRanges;

    /// Accepts ranges as this type writes them: ascending, apart from each other, and of slots that exist.
    fn try_from(ranges: Vec<(u16, u16)>) -> Result<SlotRanges, InvalidRanges> {
        let sound = ranges.iter().all(|&(first, last)| first <= last && usize::from(last) < SLOT_COUNT)
            && ranges.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0);
        if sound { Ok(SlotRanges { ranges }) } else { Err(InvalidRanges) }
    }
}

impl From<SlotRanges> for Vec<(u16, u16)> {
    fn from(set: SlotRanges) -> Vec<(u16, u16)> {
        set.ranges
    }
}

impl fmt::Display for InvalidRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("slot ranges overlap, touch, are out of order or name a slot that does not exist")
    }
}

impl std::error::Error for InvalidRanges {}

/// As `CLUSTER NODES` writes them, `0-5460 7000`; nothing for the empty set.
impl fmt::Display for SlotRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, &(first, last)) in self.ranges.iter().enumerate() {
            let blank = if index > 0 { " " } else { "" };
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
        write!(f, "slots {self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn slot(number: u16) -> Slot {
        Slot::new(u64::from(number)).expect("a slot")
    }

    fn sets(numbers: &[u16]) -> (SlotRanges, BTreeSet<Slot>) {
        (numbers.iter().map(|&n| slot(n)).collect(), numbers.iter().map(|&n| slot(n)).collect())
    }

    fn check(set: &SlotRanges, model: &BTreeSet<Slot>) {
        assert_eq!(set.slots().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
        assert_eq!((set.len(), set.is_empty()), (model.len(), model.is_empty()));
        assert_eq!(SlotRanges::try_from(set.ranges.clone()).as_ref(), Ok(set), "ranges are in normal form");
    }

    /// Numbers close together, so that ranges grow, meet and split, at both ends of the slots.
    fn number() -> impl Strategy<Value = u16> {
        prop_oneof![0u16..60, 16350u16..16384]
    }

    proptest! {
        #[test]
        fn insert_and_remove_are_those_of_a_set(steps in prop::collection::vec((any::<bool>(), number()), 0..300)) {
            let (mut set, mut model) = (SlotRanges::new(), BTreeSet::new());
            for (insert, number) in steps {
                if insert {
                    prop_assert_eq!(set.insert(slot(number)), model.insert(slot(number)));
                } else {
                    prop_assert_eq!(set.remove(slot(number)), model.remove(&slot(number)));
                }
                check(&set, &model);
                prop_assert_eq!(set.contains(slot(number)), insert);
            }
        }

        #[test]
        fn union_and_difference_are_those_of_sets(
            left in prop::collection::vec(number(), 0..80),
            right in prop::collection::vec(number(), 0..80),
        ) {
            let ((left, left_model), (right, right_model)) = (sets(&left), sets(&right));
            check(&left, &left_model);
            check(&left.union(&right), &left_model.union(&right_model).copied().collect());
            check(&left.difference(&right), &left_model.difference(&right_model).copied().collect());
            let bytes = postcard::to_stdvec(&left).expect("encodes");
            prop_assert_eq!(postcard::from_bytes::<SlotRanges>(&bytes).expect("decodes"), left);
        }
    }

    #[test]
    fn ranges_print_as_cluster_nodes_does() {
        let mut set = SlotRanges::between(slot(0), slot(5460));
        set.insert(slot(7000));
        assert_eq!(set.to_string(), "0-5460 7000");
        assert_eq!(SlotRanges::new().to_string(), "");
        assert_eq!(SlotRanges::all().len(), SLOT_COUNT);
        assert!(SlotRanges::between(slot(2), slot(1)).is_empty());
    }

    #[test]
    fn ranges_from_elsewhere_are_checked() {
        for bad in
            [vec![(2u16, 1u16)], vec![(0, 16384)], vec![(0, 3), (4, 5)], vec![(9, 9), (1, 2)], vec![(0, 5), (3, 8)]]
        {
            let bytes = postcard::to_stdvec(&bad).expect("encodes");
            assert!(postcard::from_bytes::<SlotRanges>(&bytes).is_err(), "{bad:?} is no set of slots");
        }
    }
}
