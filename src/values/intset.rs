//! A set of integers: a sorted vector of the narrowest width that holds them all.

use super::packed::size_class;

/// Sorted integers without repetition.
#[derive(Debug, Clone)]
pub(crate) enum IntSet {
    Narrow(Vec<i16>),
    Middle(Vec<i32>),
    Wide(Vec<i64>),
}

/// The same expression for whichever width a set has.
macro_rules! each_width {
    ($set:expr, $values:ident => $body:expr) => {
        match $set {
            IntSet::Narrow($values) => $body,
            IntSet::Middle($values) => $body,
            IntSet::Wide($values) => $body,
        }
    };
}

impl Default for IntSet {
    fn default() -> Self {
        Self::Narrow(Vec::new())
    }
}

impl IntSet {
    #[inline]
    pub(crate) fn len(&self) -> usize {
        each_width!(self, values => values.len())
    }

    pub(crate) fn allocation_bytes(&self) -> usize {
        let width = match self {
            Self::Narrow(_) => 2,
            Self::Middle(_) => 4,
            Self::Wide(_) => 8,
        };
        size_class(each_width!(self, values => values.capacity()) * width)
    }

    /// The integer at an index of the sorted order.
    #[inline]
    pub(crate) fn get(&self, index: usize) -> Option<i64> {
        each_width!(self, values => value_at(values, index))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = i64> + Clone + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    #[inline]
    pub(crate) fn contains(&self, integer: i64) -> bool {
        each_width!(self, values => search(values, integer).is_some_and(|(_, place)| place.is_ok()))
    }

    /// Adds an integer; whether it was absent.
    pub(crate) fn insert(&mut self, integer: i64) -> bool {
        self.widen(integer);
        each_width!(self, values => insert(values, integer))
    }

    /// Removes an integer; whether it was present.
    pub(crate) fn remove(&mut self, integer: i64) -> bool {
        each_width!(self, values => remove(values, integer))
    }

    /// Makes the set wide enough for an integer.
    fn widen(&mut self, integer: i64) {
        let wide = i32::try_from(integer).is_err();
        let middle = i16::try_from(integer).is_err();
        match self {
            Self::Narrow(values) if wide => *self = Self::Wide(values.iter().map(|it| i64::from(*it)).collect()),
            Self::Middle(values) if wide => *self = Self::Wide(values.iter().map(|it| i64::from(*it)).collect()),
            Self::Narrow(values) if middle => *self = Self::Middle(values.iter().map(|it| i32::from(*it)).collect()),
            _ => {}
        }
    }
}

fn value_at<W: Copy + Into<i64>>(values: &[W], index: usize) -> Option<i64> {
    values.get(index).map(|value| (*value).into())
}

/// An integer in this width, and where it is or would be; `None` if the width does not hold it.
fn search<W: Copy + Ord + TryFrom<i64>>(values: &[W], integer: i64) -> Option<(W, Result<usize, usize>)> {
    let value = W::try_from(integer).ok()?;
    Some((value, values.binary_search(&value)))
}

fn insert<W: Copy + Ord + TryFrom<i64>>(values: &mut Vec<W>, integer: i64) -> bool {
    let Some((value, Err(index))) = search(values, integer) else { return false };
    if values.len() == values.capacity() {
        // An eighth more: sets of integers are many and small, and moves are cheap.
        values.reserve_exact(values.len() / 8 + 4);
    }
    values.insert(index, value);
    true
}

fn remove<W: Copy + Ord + TryFrom<i64>>(values: &mut Vec<W>, integer: i64) -> bool {
    let Some((_, Ok(index))) = search(values, integer) else { return false };
    values.remove(index);
    if values.len() * 4 < values.capacity() {
        values.shrink_to(values.len() * 2);
    }
    true
}
