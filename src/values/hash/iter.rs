//! Iteration over a hash in any of its forms.

use super::pair::Pair;
use super::table::Table;
use super::timed::NEVER;
use crate::values::element::Element;
use crate::values::packed::{self, Packed};

/// Fields and values of a hash.
pub struct Iter<'a> {
    shape: Shape<'a>,
}

/// Fields, values and deadlines of a hash, these in Unix milliseconds.
pub struct IterTimed<'a> {
    shape: Shape<'a>,
    /// Those of packed pairs; all later pairs have none.
    deadlines: &'a [u64],
}

enum Shape<'a> {
    Packed(packed::Iter<'a, false>),
    Table(Box<dyn Iterator<Item = &'a Pair> + 'a>),
}

impl<'a> Iter<'a> {
    #[inline]
    pub(super) fn packed(pairs: &'a Packed<false>) -> Self {
        Self { shape: Shape::Packed(pairs.iter()) }
    }

    pub(super) fn table(table: &'a Table) -> Self {
        Self { shape: Shape::Table(Box::new(table.pairs.iter())) }
    }
}

impl<'a> IterTimed<'a> {
    pub(super) fn packed(pairs: &'a Packed<false>, deadlines: &'a [u64]) -> Self {
        Self { shape: Shape::Packed(pairs.iter()), deadlines }
    }

    pub(super) fn table(table: &'a Table) -> Self {
        Self { shape: Shape::Table(Box::new(table.pairs.iter())), deadlines: &[] }
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = (Element<'a>, Element<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.shape {
            Shape::Packed(elements) => Some((elements.next()?, elements.next()?)),
            Shape::Table(pairs) => pairs.next().map(Pair::elements),
        }
    }
}

impl<'a> Iterator for IterTimed<'a> {
    type Item = (Element<'a>, Element<'a>, Option<u64>);

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.shape {
            Shape::Packed(elements) => {
                let (field, value) = (elements.next()?, elements.next()?);
                let deadline = self.deadlines.split_off_first().filter(|deadline| **deadline != NEVER);
                Some((field, value, deadline.copied()))
            }
            Shape::Table(pairs) => pairs.next().map(|pair| {
                let (field, value) = pair.elements();
                (field, value, pair.deadline())
            }),
        }
    }
}
