//! A hash at a moment: what has expired by then is not there, removed or not.

use super::{Hash, Iter, IterTimed};
use crate::values::element::Element;
use crate::values::hashing::below;
use crate::values::sampling;

/// The fields of a hash whose deadline has not passed. Where none has, which is nearly always, it is the hash itself.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    hash: &'a Hash,
    /// Some are past.
    has_past: bool,
    now_ms: u64,
}

/// Fields and values of a hash that are there at a moment.
pub enum IterLive<'a> {
    /// All of them are.
    All(Iter<'a>),
    /// Those whose deadline is later than this.
    Live(IterTimed<'a>, u64),
}

impl<'a> View<'a> {
    /// The hash at this moment, in Unix milliseconds.
    #[inline]
    pub(super) fn new(hash: &'a Hash, now_ms: u64) -> Self {
        Self { hash, has_past: hash.first_deadline().is_some_and(|first| first <= now_ms), now_ms }
    }

    #[inline]
    fn has(&self, deadline: Option<u64>) -> bool {
        deadline.is_none_or(|deadline| deadline > self.now_ms)
    }

    /// Number of fields (HLEN).
    #[inline]
    pub fn len(&self) -> usize {
        self.hash.len() - if self.has_past { self.hash.due_count(self.now_ms) } else { 0 }
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of a field (HGET).
    #[inline]
    pub fn get(&self, field: &[u8]) -> Option<Element<'a>> {
        self.hash.get(field).filter(|_| !self.has_past || self.has(self.hash.deadline(field)))
    }

    /// Whether a field exists (HEXISTS).
    pub fn contains(&self, field: &[u8]) -> bool {
        self.get(field).is_some()
    }

    /// When a field expires, in Unix milliseconds, if it does (HPEXPIRETIME); `None`: there is no such field.
    pub fn deadline(&self, field: &[u8]) -> Option<Option<u64>> {
        self.contains(field).then(|| self.hash.deadline(field))
    }

    /// All fields and values, as [`Hash::iter`].
    pub fn iter(self) -> IterLive<'a> {
        if self.has_past {
            IterLive::Live(self.hash.iter_timed(), self.now_ms)
        } else {
            IterLive::All(self.hash.iter())
        }
    }

    /// Visits a part of the hash, as [`Hash::scan`].
    pub fn scan(&self, position: u32, count: usize, mut visit: impl FnMut(Element<'_>, Element<'_>)) -> Option<u32> {
        if !self.has_past {
            return self.hash.scan(position, count, visit);
        }
        self.hash.scan_timed(position, count, |field, value, deadline| {
            if self.has(deadline) {
                visit(field, value);
            }
        })
    }

    /// One field and its value, each with the same probability (HRANDFIELD), by a random number.
    pub fn random(&self, random: u64) -> Option<(Element<'a>, Element<'a>)> {
        match (self.has_past, self.len()) {
            (false, _) => self.hash.random(random),
            (true, 0) => None,
            (true, count) => self.iter().nth(below(random, count)),
        }
    }

    /// Visits `count` different fields (or all), each choice with the same probability.
    pub fn random_distinct(
        &self,
        count: usize,
        random: &mut impl FnMut() -> u64,
        mut visit: impl FnMut(Element<'_>, Element<'_>),
    ) {
        if !self.has_past {
            return self.hash.random_distinct(count, random, visit);
        }
        sampling::choose(self.iter(), self.len(), count, random, |(field, value)| visit(field, value));
    }

    /// Visits `count` fields, each drawn from all of them.
    pub fn random_repeated(
        &self,
        count: usize,
        random: &mut impl FnMut() -> u64,
        mut visit: impl FnMut(Element<'_>, Element<'_>),
    ) {
        if !self.has_past {
            return self.hash.random_repeated(count, random, visit);
        }
        let all: Vec<_> = self.iter().collect();
        sampling::repeat(&all, count, random, |(field, value)| visit(field, value));
    }
}

impl<'a> Iterator for IterLive<'a> {
    type Item = (Element<'a>, Element<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::All(pairs) => pairs.next(),
            Self::Live(pairs, now_ms) => {
                let is_live = |deadline: &Option<u64>| deadline.is_none_or(|deadline| deadline > *now_ms);
                pairs.find(|(_, _, deadline)| is_live(deadline)).map(|(field, value, _)| (field, value))
            }
        }
    }
}
