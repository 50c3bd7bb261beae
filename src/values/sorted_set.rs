//! The sorted set: members and scores in turn in one packed sequence while small; a table and a tree when large.
//!
//! ```text
//!   table  hash of member -> handle        (u32, in hash order)
//!   slots  handle -> (score, member)       the only copy of a member
//!   tree   (score, handle) by score, then by member, with counts
//! ```
//! Every range (by rank, score or member) is first turned into a range of ranks; one way to read and one way
//! to remove ranks then serves them all, in both directions. A score is never NaN: callers refuse it.

use std::cmp::Ordering;
use std::ops::{Bound, ControlFlow, Range};

use super::element::{Digits, Element};
use super::hashing::below;
use super::limits::Limits;
use super::packed::{Needle, Packed};
use super::rank_tree::{Direction, Walk};
use super::sampling;
use ranked::Ranked;

pub mod algebra;
mod ranked;

/// A Redis sorted set.
#[derive(Debug, Default, Clone)]
pub struct SortedSet {
    shape: Shape,
}

#[derive(Debug, Clone)]
enum Shape {
    Packed(Packed<false>),
    Ranked(Box<Ranked>),
}

/// What `SortedSet::insert` did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Placed {
    /// The member was not there.
    Added,
    /// The member had this other score.
    Moved(f64),
    /// The member had this very score.
    Unchanged,
}

/// One end of a range of members that all have the same score (ZRANGEBYLEX).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LexBound<'a> {
    /// `-`: before every member.
    Lowest,
    /// `[member`
    Included(&'a [u8]),
    /// `(member`
    Excluded(&'a [u8]),
    /// `+`: behind every member.
    Highest,
}

/// Members and scores by rank, upwards or downwards.
pub struct Members<'a> {
    shape: MembersShape<'a>,
}

enum MembersShape<'a> {
    Packed { packed: &'a Packed<false>, offsets: PackedOffsets },
    Ranked(&'a Ranked, Walk<'a>),
}

/// Where the next pairs of a packed set stand: walked upwards, collected before it is walked downwards.
enum PackedOffsets {
    Up { offset: usize, remaining: usize },
    Down(Vec<u32>),
}

impl Default for Shape {
    fn default() -> Self {
        Self::Packed(Packed::new())
    }
}

impl SortedSet {
    /// An empty sorted set, which owns no memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of members (ZCARD).
    #[inline]
    pub fn len(&self) -> usize {
        match &self.shape {
            Shape::Packed(packed) => packed.len() / 2,
            Shape::Ranked(ranked) => ranked.len(),
        }
    }

    /// Whether there is no member; such a set does not stay in a keyspace.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Redis's name of the encoding.
    pub fn encoding(&self) -> &'static str {
        match &self.shape {
            Shape::Packed(_) => "listpack",
            Shape::Ranked(_) => "skiplist",
        }
    }

    /// Bytes allocated, not walked.
    pub fn memory_bytes(&self) -> usize {
        match &self.shape {
            Shape::Packed(packed) => packed.allocation_bytes(),
            Shape::Ranked(ranked) => ranked.memory_bytes(),
        }
    }

    /// Number of allocations, by which the cost of freeing is judged.
    pub fn allocation_count(&self) -> usize {
        match &self.shape {
            Shape::Packed(_) => 1,
            Shape::Ranked(ranked) => ranked.allocation_count(),
        }
    }

    /// The score of a member (ZSCORE).
    #[inline]
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        match &self.shape {
            Shape::Packed(packed) => {
                let offset = packed.find(0, &Needle::new(member), 2)?;
                Some(packed.score(packed.next(offset)))
            }
            Shape::Ranked(ranked) => ranked.score(member),
        }
    }

    /// Gives a member a score, which is not NaN (ZADD).
    pub fn insert(&mut self, member: &[u8], score: f64, limits: &Limits) -> Placed {
        debug_assert!(!score.is_nan(), "callers refuse scores that are not numbers");
        let packed = match &mut self.shape {
            Shape::Packed(packed) => packed,
            Shape::Ranked(ranked) => return ranked.insert(member, score),
        };
        let found = packed.find(0, &Needle::new(member), 2);
        let placed = match found.map(|offset| packed.score(packed.next(offset))) {
            Some(old) if old == score => return Placed::Unchanged,
            Some(old) => Placed::Moved(old),
            None => Placed::Added,
        };
        if let Some(offset) = found {
            packed.remove(offset, 2);
        } else if packed.len() / 2 >= limits.zset_max_listpack_entries
            || member.len() > limits.zset_max_listpack_value
            || !packed.has_room(member.len())
        {
            self.become_ranked();
            return self.insert(member, score, limits);
        }
        let offset =
            place(packed, |other_score, other| other_score < score || other_score == score && precedes(other, member));
        let offset = packed.insert(offset, member);
        // A packed score that is an integer is stored as one, and there is no integer -0 (Redis: zzlInsertAt).
        packed.insert_score(offset, if score == 0.0 { 0.0 } else { score });
        placed
    }

    /// Removes a member (ZREM); returns the score it had.
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        match &mut self.shape {
            Shape::Packed(packed) => {
                let offset = packed.find(0, &Needle::new(member), 2)?;
                let score = packed.score(packed.next(offset));
                packed.remove(offset, 2);
                Some(score)
            }
            Shape::Ranked(ranked) => ranked.remove(member),
        }
    }

    /// Rank (from the lowest score, 0 first) and score of a member (ZRANK).
    pub fn rank(&self, member: &[u8]) -> Option<(usize, f64)> {
        match &self.shape {
            Shape::Packed(packed) => {
                let needle = Needle::new(member);
                let mut offset = 0;
                for rank in 0..self.len() {
                    let behind = packed.next(offset);
                    if packed.equals(offset, &needle) {
                        return Some((rank, packed.score(behind)));
                    }
                    offset = packed.next(behind);
                }
                None
            }
            Shape::Ranked(ranked) => ranked.rank(member),
        }
    }

    /// Members and scores upwards from a rank (ZRANGE).
    pub fn range(&self, rank: usize, count: usize) -> Members<'_> {
        let shape = match &self.shape {
            Shape::Packed(packed) => {
                let remaining = count.min(self.len().saturating_sub(rank));
                let offset = packed.skip(0, rank.saturating_mul(2));
                MembersShape::Packed { packed, offsets: PackedOffsets::Up { offset, remaining } }
            }
            Shape::Ranked(ranked) => MembersShape::Ranked(ranked, ranked.walk(rank, count, Direction::Up)),
        };
        Members { shape }
    }

    /// Members and scores downwards; `rank` counts from the highest score, 0 first (ZREVRANGE).
    pub fn range_reverse(&self, rank: usize, count: usize) -> Members<'_> {
        let count = count.min(self.len().saturating_sub(rank));
        let shape = match &self.shape {
            Shape::Packed(packed) => {
                let lowest = self.len() - rank.min(self.len()) - count;
                let mut offset = packed.skip(0, lowest * 2);
                let mut offsets = Vec::with_capacity(count);
                for _ in 0..count {
                    offsets.push(offset as u32);
                    offset = packed.skip(offset, 2);
                }
                MembersShape::Packed { packed, offsets: PackedOffsets::Down(offsets) }
            }
            Shape::Ranked(ranked) => {
                let from = (self.len() - 1).saturating_sub(rank);
                MembersShape::Ranked(ranked, ranked.walk(from, count, Direction::Down))
            }
        };
        Members { shape }
    }

    /// All members and scores, lowest first.
    pub fn iter(&self) -> Members<'_> {
        self.range(0, usize::MAX)
    }

    /// The ranks of all scores between two bounds (ZRANGEBYSCORE, ZCOUNT); empty if there are none.
    pub fn score_range(&self, min: Bound<f64>, max: Bound<f64>) -> Range<usize> {
        let start = match min {
            Bound::Unbounded => 0,
            Bound::Included(min) => self.rank_of(|score, _| score < min),
            Bound::Excluded(min) => self.rank_of(|score, _| score <= min),
        };
        let end = match max {
            Bound::Unbounded => self.len(),
            Bound::Included(max) => self.rank_of(|score, _| score <= max),
            Bound::Excluded(max) => self.rank_of(|score, _| score < max),
        };
        start..end.max(start)
    }

    /// Visits run after run the pairs whose scores are from its first on and before its second number, until `visit` ends
    /// that.
    pub fn visit_runs<'a>(
        &'a self,
        runs: &[(f64, f64)],
        mut visit: impl FnMut(Element<'a>, f64) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        // A packed set is walked once for all runs.
        let pairs: Option<Vec<_>> = matches!(self.shape, Shape::Packed(_)).then(|| self.iter().collect());
        for (first, behind) in runs.iter().copied() {
            if let Some(pairs) = &pairs {
                let start = pairs.partition_point(|(_, score)| *score < first);
                let mut found = pairs[start..].iter().take_while(|(_, score)| *score < behind);
                found.try_for_each(|(member, score)| visit(*member, *score))?;
            } else {
                let ranks = self.score_range(Bound::Included(first), Bound::Excluded(behind));
                self.range(ranks.start, ranks.len()).try_for_each(|(member, score)| visit(member, score))?;
            }
        }
        ControlFlow::Continue(())
    }

    /// The ranks of all members between two bounds, if all have the same score (ZRANGEBYLEX, ZLEXCOUNT).
    pub fn lex_range(&self, min: LexBound<'_>, max: LexBound<'_>) -> Range<usize> {
        let start = match min {
            LexBound::Lowest => 0,
            LexBound::Included(min) => self.rank_of(|_, member| precedes(member, min)),
            LexBound::Excluded(min) => self.rank_of(|_, member| !follows(member, min)),
            LexBound::Highest => self.len(),
        };
        let end = match max {
            LexBound::Lowest => 0,
            LexBound::Included(max) => self.rank_of(|_, member| !follows(member, max)),
            LexBound::Excluded(max) => self.rank_of(|_, member| precedes(member, max)),
            LexBound::Highest => self.len(),
        };
        start..end.max(start)
    }

    /// Removes a range of ranks (ZREMRANGEBYRANK and its kin) and shows what is removed, lowest first.
    pub fn remove_range(&mut self, ranks: Range<usize>, mut visit: impl FnMut(Element<'_>, f64)) {
        let ranks = ranks.start..ranks.end.min(self.len());
        match &mut self.shape {
            Shape::Packed(_) if ranks.is_empty() => {}
            Shape::Packed(packed) => {
                let start = packed.skip(0, ranks.start * 2);
                let mut offset = start;
                for _ in ranks.clone() {
                    let behind = packed.next(offset);
                    visit(packed.get(offset), packed.score(behind));
                    offset = packed.next(behind);
                }
                packed.remove(start, ranks.len() * 2);
            }
            Shape::Ranked(ranked) => {
                for _ in ranks.clone() {
                    ranked.remove_rank(ranks.start, |member, score| visit(Element::Bytes(member), score));
                }
            }
        }
    }

    /// Removes the lowest member (ZPOPMIN), after showing it to `take`.
    pub fn pop_min<R>(&mut self, take: impl FnOnce(Element<'_>, f64) -> R) -> Option<R> {
        self.pop(0, take)
    }

    /// Removes the highest member (ZPOPMAX), after showing it to `take`.
    pub fn pop_max<R>(&mut self, take: impl FnOnce(Element<'_>, f64) -> R) -> Option<R> {
        self.pop(self.len().checked_sub(1)?, take)
    }

    /// Visits a part of the set in hash order, as [`Segments::scan`](super::segments::Segments::scan); all of
    /// it while packed.
    pub fn scan(&self, position: u32, count: usize, mut visit: impl FnMut(Element<'_>, f64)) -> Option<u32> {
        match &self.shape {
            Shape::Packed(_) => {
                self.iter().for_each(|(member, score)| visit(member, score));
                None
            }
            Shape::Ranked(ranked) => ranked.scan(position, count, |member, score| visit(Element::Bytes(member), score)),
        }
    }

    /// One member and its score, each with the same probability (ZRANDMEMBER), by a random number.
    pub fn random(&self, random: u64) -> Option<(Element<'_>, f64)> {
        if self.is_empty() { None } else { self.range(below(random, self.len()), 1).next() }
    }

    /// Visits `count` different members (or all), each choice with the same probability.
    pub fn random_distinct(
        &self,
        count: usize,
        random: &mut impl FnMut() -> u64,
        mut visit: impl FnMut(Element<'_>, f64),
    ) {
        match &self.shape {
            Shape::Packed(_) => {
                sampling::choose(self.iter(), self.len(), count, random, |(member, score)| visit(member, score));
            }
            Shape::Ranked(ranked) => {
                ranked.random_distinct(count, random, |member, score| visit(Element::Bytes(member), score));
            }
        }
    }

    /// Visits `count` members, each drawn from all of them.
    pub fn random_repeated(
        &self,
        count: usize,
        random: &mut impl FnMut() -> u64,
        mut visit: impl FnMut(Element<'_>, f64),
    ) {
        match &self.shape {
            Shape::Packed(_) => {
                let all: Vec<_> = self.iter().collect();
                sampling::repeat(&all, count, random, |(member, score)| visit(member, score));
            }
            Shape::Ranked(_) => {
                let drawn = (0..count).filter_map(|_| self.random(random()));
                drawn.for_each(|(member, score)| visit(member, score));
            }
        }
    }

    /// Number of pairs for which `before` holds; it holds for none behind the first for which it does not.
    fn rank_of(&self, before: impl Fn(f64, Element<'_>) -> bool) -> usize {
        match &self.shape {
            Shape::Packed(_) => self.iter().take_while(|(member, score)| before(*score, *member)).count(),
            Shape::Ranked(ranked) => ranked.rank_of(|score, member| before(score, Element::Bytes(member))),
        }
    }

    fn pop<R>(&mut self, rank: usize, take: impl FnOnce(Element<'_>, f64) -> R) -> Option<R> {
        let mut take = Some(take);
        let mut taken = None;
        self.remove_range(rank..rank + 1, |member, score| taken = take.take().map(|take| take(member, score)));
        taken
    }

    fn become_ranked(&mut self) {
        let mut ranked = Box::<Ranked>::default();
        for (member, score) in self.iter() {
            ranked.insert(member.bytes(&mut Digits::new()), score);
        }
        self.shape = Shape::Ranked(ranked);
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = (Element<'a>, f64);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.shape {
            MembersShape::Ranked(ranked, walk) => {
                walk.next().map(|(score, handle)| (Element::Bytes(ranked.member(handle)), score))
            }
            MembersShape::Packed { packed, offsets } => {
                let offset = match offsets {
                    PackedOffsets::Up { remaining: 0, .. } => return None,
                    PackedOffsets::Up { offset, .. } => *offset,
                    PackedOffsets::Down(offsets) => offsets.pop()? as usize,
                };
                let (member, behind) = packed.read(offset);
                if let PackedOffsets::Up { offset, remaining } = offsets {
                    (*offset, *remaining) = (packed.next(behind), *remaining - 1);
                }
                Some((member, packed.score(behind)))
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let remaining = match &self.shape {
            MembersShape::Ranked(_, walk) => walk.size_hint().0,
            MembersShape::Packed { offsets: PackedOffsets::Up { remaining, .. }, .. } => *remaining,
            MembersShape::Packed { offsets: PackedOffsets::Down(offsets), .. } => offsets.len(),
        };
        (remaining, Some(remaining))
    }
}

impl ExactSizeIterator for Members<'_> {}

/// Offset of the first pair for which `before` does not hold.
fn place(packed: &Packed<false>, before: impl Fn(f64, Element<'_>) -> bool) -> usize {
    let mut offset = 0;
    while offset < packed.end() {
        let (member, behind) = packed.read(offset);
        if !before(packed.score(behind), member) {
            break;
        }
        offset = packed.next(behind);
    }
    offset
}

fn precedes(member: Element<'_>, other: &[u8]) -> bool {
    member.compare(other) == Ordering::Less
}

fn follows(member: Element<'_>, other: &[u8]) -> bool {
    member.compare(other) == Ordering::Greater
}

#[cfg(test)]
mod tests;
