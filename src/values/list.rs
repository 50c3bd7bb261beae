//! The list: one packed chunk while small, a deque of packed chunks when large.
//!
//! Both ends are cheap, an index is found by the counts of the chunks from the nearer end, and a range is
//! read chunk by chunk. A chunk holds at most what `list-max-listpack-size` says, except a single element
//! that is larger than that. An element can be told to stand alone from a smaller size on. No chunk is ever empty.

use std::collections::VecDeque;
use std::slice;

use super::element::Element;
use super::limits::Limits;
use super::packed::{self, Packed};

/// An element is taken to cost this many bytes beside its own when a chunk's limit is judged, as in Redis.
const ELEMENT_OVERHEAD_BYTES: usize = 8;
/// Bound of a chunk whose limit is a number of elements, as in Redis.
const COUNTED_CHUNK_BYTES_MAX: usize = 8192;
/// A deque of chunks keeps room for this many before it gives memory back.
const CHUNKS_KEPT: usize = 16;

type Chunk = Packed<true>;

/// Where a list is pushed to and popped from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Index 0: the left end of LPUSH and LPOP.
    Head,
    /// The last index: the right end of RPUSH and RPOP.
    Tail,
}

/// A Redis list.
#[derive(Debug, Default, Clone)]
pub struct List {
    shape: Shape,
}

#[derive(Debug, Clone)]
enum Shape {
    Packed(Chunk),
    Chunks(Box<Chunks>),
}

#[derive(Debug, Clone)]
struct Chunks {
    chunks: VecDeque<Chunk>,
    /// Elements of all chunks.
    len: usize,
    /// Allocations of all chunks.
    bytes: usize,
}

/// Elements of a list from head to tail.
#[derive(Clone)]
pub struct Range<'a> {
    current: packed::Iter<'a, true>,
    rest: [slice::Iter<'a, Chunk>; 2],
    remaining: usize,
}

/// Elements of a list from tail to head.
#[derive(Clone)]
pub struct RangeReverse<'a> {
    current: Option<&'a Chunk>,
    /// End of what is left of `current`.
    offset: usize,
    rest: [slice::Iter<'a, Chunk>; 2],
    remaining: usize,
}

impl Default for Shape {
    fn default() -> Self {
        Self::Packed(Chunk::new())
    }
}

impl List {
    /// An empty list, which owns no memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of elements (LLEN).
    #[inline]
    pub fn len(&self) -> usize {
        match &self.shape {
            Shape::Packed(chunk) => chunk.len(),
            Shape::Chunks(large) => large.len,
        }
    }

    /// Whether there is no element; such a list does not stay in a keyspace.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Redis's name of the encoding.
    pub fn encoding(&self) -> &'static str {
        match &self.shape {
            Shape::Packed(_) => "listpack",
            Shape::Chunks(_) => "quicklist",
        }
    }

    /// Bytes allocated, not walked.
    pub fn memory_bytes(&self) -> usize {
        match &self.shape {
            Shape::Packed(chunk) => chunk.allocation_bytes(),
            Shape::Chunks(large) => size_of::<Chunks>() + large.bytes + large.chunks.capacity() * size_of::<Chunk>(),
        }
    }

    /// Number of allocations, by which the cost of freeing is judged.
    pub fn allocation_count(&self) -> usize {
        self.chunk_count()
    }

    /// Adds an element at an end.
    pub fn push(&mut self, end: End, bytes: &[u8], limits: &Limits) {
        self.make_room(bytes.len(), limits);
        let number = match end {
            End::Head => 0,
            End::Tail => self.chunk_count().saturating_sub(1),
        };
        match &mut self.shape {
            Shape::Packed(chunk) => {
                chunk.insert(if end == End::Head { 0 } else { chunk.end() }, bytes);
            }
            Shape::Chunks(large) => {
                let full = large.chunks.get(number).is_none_or(|chunk| exceeds(limits, chunk, bytes.len(), 1));
                if full {
                    match end {
                        End::Head => large.chunks.push_front(Chunk::new()),
                        End::Tail => large.chunks.push_back(Chunk::new()),
                    }
                }
                let number = if end == End::Tail { large.chunks.len() - 1 } else { 0 };
                large.edit(number, |chunk| chunk.insert(if end == End::Head { 0 } else { chunk.end() }, bytes));
            }
        }
    }

    /// Removes the element at an end, after showing it to `take`.
    pub fn pop<R>(&mut self, end: End, limits: &Limits, take: impl FnOnce(Element<'_>) -> R) -> Option<R> {
        if self.is_empty() {
            return None;
        }
        let number = if end == End::Head { 0 } else { self.chunk_count() - 1 };
        let taken = self.edit(number, |chunk| {
            let offset = if end == End::Head { 0 } else { chunk.previous(chunk.end()) };
            let taken = take(chunk.get(offset));
            chunk.remove(offset, 1);
            taken
        });
        self.after_removal(limits);
        Some(taken)
    }

    /// The element at an index from the head (LINDEX).
    pub fn get(&self, index: usize) -> Option<Element<'_>> {
        if index >= self.len() {
            return None;
        }
        let (number, within) = self.locate(index);
        let chunk = self.chunk(number);
        Some(chunk.get(chunk.seek(within)))
    }

    /// Elements from an index on, towards the tail.
    pub fn range(&self, start: usize, count: usize) -> Range<'_> {
        let remaining = count.min(self.len().saturating_sub(start));
        let (number, within) = if remaining == 0 { (0, 0) } else { self.locate(start) };
        let mut rest = self.chunks_between(number, self.chunk_count());
        let current = match next_of(&mut rest) {
            Some(chunk) => chunk.iter_from(chunk.seek(within)),
            None => packed::Iter::default(),
        };
        Range { current, rest, remaining }
    }

    /// Elements from an index on, towards the head; `start` counts from the tail, 0 being the last element.
    pub fn range_reverse(&self, start: usize, count: usize) -> RangeReverse<'_> {
        let remaining = count.min(self.len().saturating_sub(start));
        if remaining == 0 {
            let rest = [[].iter(), [].iter()];
            return RangeReverse { current: None, offset: 0, rest, remaining };
        }
        let (number, within) = self.locate(self.len() - 1 - start);
        let chunk = self.chunk(number);
        let rest = self.chunks_between(0, number);
        RangeReverse { current: Some(chunk), offset: chunk.seek(within + 1), rest, remaining }
    }

    /// All elements.
    pub fn iter(&self) -> Range<'_> {
        self.range(0, usize::MAX)
    }

    /// Puts another element at an index (LSET); whether there is such an index.
    pub fn set(&mut self, index: usize, bytes: &[u8], limits: &Limits) -> bool {
        if index >= self.len() {
            return false;
        }
        let (number, within) = self.locate(index);
        let chunk = self.chunk(number);
        let grows = bytes.len() > chunk.get(chunk.seek(within)).byte_len();
        if grows && chunk.len() > 1 && exceeds(limits, chunk, bytes.len(), 0) {
            self.edit(number, |chunk| chunk.remove(chunk.seek(within), 1));
            self.insert(index, bytes, limits);
        } else {
            self.edit(number, |chunk| chunk.replace(chunk.seek(within), bytes));
            if grows {
                self.make_room(0, limits);
            }
        }
        true
    }

    /// Inserts before the element at an index, or at the tail if the index is the length (LINSERT); whether
    /// the index is at most that.
    pub fn insert(&mut self, index: usize, bytes: &[u8], limits: &Limits) -> bool {
        if index == 0 || index >= self.len() {
            let end = if index == 0 { End::Head } else { End::Tail };
            if index <= self.len() {
                self.push(end, bytes, limits);
                return true;
            }
            return false;
        }
        self.make_room(bytes.len(), limits);
        let (number, within) = self.locate(index);
        match &mut self.shape {
            Shape::Packed(chunk) => {
                chunk.insert(chunk.seek(within), bytes);
            }
            Shape::Chunks(large) => large.insert(number, within, bytes, limits),
        }
        true
    }

    /// Removes the elements at these indexes, which ascend (LREM); those behind the end are passed over. Returns how many
    /// went.
    pub fn remove_at(&mut self, indexes: &[usize], limits: &Limits) -> usize {
        let before = self.len();
        // `passed`: elements of the chunks behind us, as they were.
        let (mut rest, mut passed, mut number) = (indexes, 0, 0);
        for _ in 0..self.chunk_count() {
            let length = self.chunk(number).len();
            let (here, later) = rest.split_at(rest.partition_point(|index| *index < passed + length));
            let emptied = !here.is_empty()
                && self.edit(number, |chunk| {
                    remove_in(chunk, here, passed);
                    chunk.is_empty()
                });
            rest = later;
            if rest.is_empty() {
                break;
            }
            passed += length;
            number += usize::from(!emptied);
        }
        if self.len() < before {
            self.after_removal(limits);
        }
        before - self.len()
    }

    /// Keeps `count` elements from `start` on and removes all others (LTRIM).
    pub fn trim(&mut self, start: usize, count: usize, limits: &Limits) {
        let start = start.min(self.len());
        let behind = (self.len() - start).saturating_sub(count);
        self.remove_at_end(End::Tail, behind);
        self.remove_at_end(End::Head, start);
        self.after_removal(limits);
    }

    /// Index of the first element equal to `value`.
    pub fn position(&self, value: &[u8]) -> Option<usize> {
        let needle = Element::parse(value);
        self.iter().position(|element| element == needle)
    }

    /// Visits the indexes of elements equal to `value` in the order of a LPOS search: from the `rank`-th match
    /// on (1 the first; negative ranks search from the tail; 0 is taken as 1), at most `count` matches among at
    /// most `compared_max` elements.
    pub fn positions(&self, value: &[u8], rank: i64, count: usize, compared_max: usize, visit: impl FnMut(usize)) {
        let needle = Element::parse(value);
        let skipped = usize::try_from(rank.unsigned_abs().max(1) - 1).unwrap_or(usize::MAX);
        if rank < 0 {
            let last = self.len().saturating_sub(1);
            let matches = self.range_reverse(0, compared_max).enumerate().filter(|(_, it)| *it == needle);
            matches.map(|(at, _)| last - at).skip(skipped).take(count).for_each(visit);
        } else {
            let matches = self.range(0, compared_max).enumerate().filter(|(_, it)| *it == needle);
            matches.map(|(at, _)| at).skip(skipped).take(count).for_each(visit);
        }
    }

    fn chunk_count(&self) -> usize {
        match &self.shape {
            Shape::Packed(_) => 1,
            Shape::Chunks(large) => large.chunks.len(),
        }
    }

    fn chunk(&self, number: usize) -> &Chunk {
        match &self.shape {
            Shape::Packed(chunk) => chunk,
            Shape::Chunks(large) => &large.chunks[number],
        }
    }

    /// The chunks with these numbers, as two slices.
    fn chunks_between(&self, from: usize, to: usize) -> [slice::Iter<'_, Chunk>; 2] {
        match &self.shape {
            Shape::Packed(chunk) => [slice::from_ref(chunk)[from..to].iter(), [].iter()],
            Shape::Chunks(large) => {
                let (front, back) = large.chunks.as_slices();
                let cut = |number: usize| (number.min(front.len()), number.saturating_sub(front.len()));
                let ((from_front, from_back), (to_front, to_back)) = (cut(from), cut(to));
                [front[from_front..to_front].iter(), back[from_back..to_back].iter()]
            }
        }
    }

    /// The chunk of an existing index and the index within it.
    fn locate(&self, index: usize) -> (usize, usize) {
        match &self.shape {
            Shape::Packed(_) => (0, index),
            Shape::Chunks(large) => large.locate(index),
        }
    }

    fn edit<R>(&mut self, number: usize, change: impl FnOnce(&mut Chunk) -> R) -> R {
        match &mut self.shape {
            Shape::Packed(chunk) => change(chunk),
            Shape::Chunks(large) => large.edit(number, change),
        }
    }

    /// Makes a packed list large if another element of so many bytes would pass the limit.
    fn make_room(&mut self, additional: usize, limits: &Limits) {
        if let Shape::Packed(chunk) = &mut self.shape
            && exceeds(limits, chunk, additional, usize::from(additional > 0))
        {
            let chunk = std::mem::take(chunk);
            let (len, bytes) = (chunk.len(), chunk.allocation_bytes());
            let chunks = if chunk.is_empty() { VecDeque::new() } else { VecDeque::from([chunk]) };
            self.shape = Shape::Chunks(Box::new(Chunks { chunks, len, bytes }));
        }
    }

    /// Packs a large list again once it is one chunk of at most half a chunk's limit, as Redis does.
    fn after_removal(&mut self, limits: &Limits) {
        if let Shape::Chunks(large) = &mut self.shape {
            let half = large.chunks.len() <= 1
                && large.chunks.front().is_none_or(|chunk| {
                    !over(limits, chunk.used_bytes().saturating_mul(2), chunk.len().saturating_mul(2))
                        && !stands_alone(limits, chunk)
                });
            if half {
                self.shape = Shape::Packed(large.chunks.pop_front().unwrap_or_default());
            } else if large.chunks.capacity() > CHUNKS_KEPT && large.chunks.capacity() > large.chunks.len() * 4 {
                large.chunks.shrink_to(large.chunks.len() * 2);
            }
        }
    }

    fn remove_at_end(&mut self, end: End, mut count: usize) {
        while count > 0 && !self.is_empty() {
            let number = if end == End::Head { 0 } else { self.chunk_count() - 1 };
            let within = self.chunk(number).len().min(count);
            count -= within;
            self.edit(number, |chunk| match end {
                End::Head => chunk.remove(0, within),
                End::Tail => chunk.truncate(chunk.seek(chunk.len() - within)),
            });
        }
    }
}

impl Chunks {
    fn locate(&self, index: usize) -> (usize, usize) {
        if index <= self.len / 2 {
            let mut within = index;
            for (number, chunk) in self.chunks.iter().enumerate() {
                if within < chunk.len() {
                    return (number, within);
                }
                within -= chunk.len();
            }
        }
        let mut behind = self.len - index;
        for (number, chunk) in self.chunks.iter().enumerate().rev() {
            if behind <= chunk.len() {
                return (number, chunk.len() - behind);
            }
            behind -= chunk.len();
        }
        (0, 0)
    }

    /// Changes one chunk, keeps the counters, and drops the chunk if it became empty.
    #[inline]
    fn edit<R>(&mut self, number: usize, change: impl FnOnce(&mut Chunk) -> R) -> R {
        let chunk = &mut self.chunks[number];
        let (len, bytes) = (chunk.len(), chunk.allocation_bytes());
        let result = change(chunk);
        self.len = self.len + chunk.len() - len;
        self.bytes = self.bytes + chunk.allocation_bytes() - bytes;
        if chunk.is_empty() {
            self.chunks.remove(number);
        }
        result
    }

    /// Inserts within a chunk that is neither first place of the list nor behind its end.
    fn insert(&mut self, number: usize, within: usize, bytes: &[u8], limits: &Limits) {
        if !exceeds(limits, &self.chunks[number], bytes.len(), 1) {
            self.edit(number, |chunk| chunk.insert(chunk.seek(within), bytes));
        } else if within == 0 && number > 0 && !exceeds(limits, &self.chunks[number - 1], bytes.len(), 1) {
            self.edit(number - 1, |chunk| chunk.insert(chunk.end(), bytes));
        } else {
            let tail =
                if within == 0 { Chunk::new() } else { self.edit(number, |chunk| chunk.split_off(chunk.seek(within))) };
            let number = if within == 0 { number } else { number + 1 };
            if !tail.is_empty() {
                self.put(number, tail);
            }
            // The new element joins the shorter of its neighbours, or stands alone.
            let before = number.checked_sub(1).filter(|it| !exceeds(limits, &self.chunks[*it], bytes.len(), 1));
            match before {
                Some(before) => self.edit(before, |chunk| chunk.insert(chunk.end(), bytes)),
                None if within > 0 && !exceeds(limits, &self.chunks[number], bytes.len(), 1) => {
                    self.edit(number, |chunk| chunk.insert(0, bytes))
                }
                None => {
                    let mut alone = Chunk::new();
                    let end = alone.insert(0, bytes);
                    self.put(number, alone);
                    end
                }
            };
        }
    }

    fn put(&mut self, number: usize, chunk: Chunk) {
        self.len += chunk.len();
        self.bytes += chunk.allocation_bytes();
        self.chunks.insert(number, chunk);
    }
}

impl<'a> Iterator for Range<'a> {
    type Item = Element<'a>;

    #[inline]
    fn next(&mut self) -> Option<Element<'a>> {
        if self.remaining == 0 {
            return None;
        }
        self.remaining -= 1;
        loop {
            if let Some(element) = self.current.next() {
                return Some(element);
            }
            self.current = next_of(&mut self.rest)?.iter();
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining, Some(self.remaining))
    }
}

impl ExactSizeIterator for Range<'_> {}

impl<'a> Iterator for RangeReverse<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        if self.remaining == 0 {
            return None;
        }
        self.remaining -= 1;
        if self.offset == 0 {
            let [front, back] = &mut self.rest;
            self.current = back.next_back().or_else(|| front.next_back());
            self.offset = self.current?.end();
        }
        let chunk = self.current?;
        self.offset = chunk.previous(self.offset);
        Some(chunk.get(self.offset))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining, Some(self.remaining))
    }
}

impl ExactSizeIterator for RangeReverse<'_> {}

fn next_of<'a>(rest: &mut [slice::Iter<'a, Chunk>; 2]) -> Option<&'a Chunk> {
    let [front, back] = rest;
    front.next().or_else(|| back.next())
}

/// Whether a chunk with `count` more elements of `bytes` in all would pass the limit.
fn exceeds(limits: &Limits, chunk: &Chunk, bytes: usize, count: usize) -> bool {
    over(limits, chunk.used_bytes() + bytes + count * ELEMENT_OVERHEAD_BYTES, chunk.len() + count)
        || bytes >= limits.list_lone_element_bytes
        || stands_alone(limits, chunk)
}

/// Whether a chunk is one element of the size from which they have chunks of their own.
#[inline]
fn stands_alone(limits: &Limits, chunk: &Chunk) -> bool {
    chunk.len() == 1 && chunk.get(0).byte_len() >= limits.list_lone_element_bytes
}

fn over(limits: &Limits, bytes: usize, count: usize) -> bool {
    match limits.list_max_listpack_size {
        elements @ 0.. => bytes > COUNTED_CHUNK_BYTES_MAX || count > elements.max(1) as usize,
        class => bytes > 2048 << class.unsigned_abs().min(5),
    }
}

/// Removes the elements at these ascending indexes from one chunk, of which the first element has the index `at`.
fn remove_in(chunk: &mut Chunk, mut indexes: &[usize], mut at: usize) {
    let mut offset = 0;
    while let Some(&first) = indexes.first() {
        // Neighbours go together: what is behind them moves once.
        let run = indexes.iter().enumerate().take_while(|(number, index)| **index == first + number).count();
        offset = chunk.skip(offset, first - at);
        chunk.remove(offset, run);
        at = first + run;
        indexes = &indexes[run..];
    }
}

#[cfg(test)]
mod tests;
