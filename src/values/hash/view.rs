//! A hash at a moment: what has expired by then is not there, removed or not.

use super::Hash;
use super::deadlines::Deadlines;
use crate::values::element::{Digits, Element};
use crate::values::hashing::below;
use crate::values::sampling;

/// The fields of a hash whose deadline has not passed. Where none has, which is nearly always, it is the hash itself.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    hash: &'a Hash,
    /// Where some are past.
    past: Option<&'a Deadlines>,
    now_ms: u64,
}

impl<'a> View<'a> {
    /// The hash at this moment, in Unix milliseconds.
    #[inline]
    pub(super) fn new(hash: &'a Hash, now_ms: u64) -> Self {
        let past = hash.deadlines().filter(|deadlines| deadlines.first().is_some_and(|first| first <= now_ms));
        Self { hash, past, now_ms }
    }

    #[inline]
    fn has(&self, field: Element<'_>) -> bool {
        let is_past = |deadlines: &Deadlines| {
            let deadline = deadlines.get(field.bytes(&mut Digits::new()));
            deadline.is_some_and(|deadline| deadline <= self.now_ms)
        };
        !self.past.is_some_and(is_past)
    }

    /// Number of fields (HLEN).
    #[inline]
    pub fn len(&self) -> usize {
        self.hash.len() - self.past.map_or(0, |deadlines| deadlines.due(self.now_ms).count())
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of a field (HGET).
    #[inline]
    pub fn get(&self, field: &[u8]) -> Option<Element<'a>> {
        self.hash.get(field).filter(|_| self.has(Element::Bytes(field)))
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
    pub fn iter(self) -> impl Iterator<Item = (Element<'a>, Element<'a>)> {
        self.hash.iter().filter(move |(field, _)| self.has(*field))
    }

    /// Visits a part of the hash, as [`Hash::scan`].
    pub fn scan(&self, position: u32, count: usize, mut visit: impl FnMut(Element<'_>, Element<'_>)) -> Option<u32> {
        self.hash.scan(position, count, |field, value| {
            if self.has(field) {
                visit(field, value);
            }
        })
    }

    /// One field and its value, each with the same probability (HRANDFIELD), by a random number.
    pub fn random(&self, random: u64) -> Option<(Element<'a>, Element<'a>)> {
        match (self.past, self.len()) {
            (None, _) => self.hash.random(random),
            (Some(_), 0) => None,
            (Some(_), count) => self.iter().nth(below(random, count)),
        }
    }

    /// Visits `count` different fields (or all), each choice with the same probability.
    pub fn random_distinct(
        &self,
        count: usize,
        random: &mut impl FnMut() -> u64,
        mut visit: impl FnMut(Element<'_>, Element<'_>),
    ) {
        if self.past.is_none() {
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
        if self.past.is_none() {
            return self.hash.random_repeated(count, random, visit);
        }
        let all: Vec<_> = self.iter().collect();
        sampling::repeat(&all, count, random, |(field, value)| visit(field, value));
    }
}
