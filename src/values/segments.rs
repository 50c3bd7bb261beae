//! A hash table in hash order: a directory of small hashbrown tables ("segments").
//!
//! ```text
//!  bits of a hash   63..57        55..........24           ..0
//!                   hashbrown's   the position:            hashbrown's
//!                   tag           chooses the segment      home bucket
//! ```
//! The *position* of an element is 32 middle bits of its hash. A segment holds all elements of one
//! range of positions; when it is full it splits in two halves of that range (extendible hashing),
//! when it and its neighbour are sparse they merge. So no insert ever rehashes more than one segment,
//! memory never doubles, and a scan cursor is a position: a pure function of the element, which
//! splits and merges can neither hide nor repeat. Up to one segment there is no directory at all, and
//! an empty table owns no memory.
//!
//! The caller brings hashes and closures; the table never compares or hashes elements by itself.

use std::slice;

use hashbrown::HashTable;

use super::hashing::{below, mix};

/// Entries at which a segment splits: what hashbrown holds in 1024 buckets.
const ENTRIES_MAX: usize = 896;
/// Two neighbours merge when they hold no more than this together; far below `ENTRIES_MAX`, so that a
/// table at the edge does not split and merge in turns.
const ENTRIES_MERGED_MAX: usize = ENTRIES_MAX / 4;
/// A table shrinks when fewer than one bucket in this many is used.
const BUCKETS_PER_ENTRY_MAX: usize = 8;
/// Tables of so few buckets are not worth shrinking.
const BUCKETS_KEPT: usize = 16;
/// Bits of position a directory may use: 2^20 segments of 448 and more are half a billion elements. At the
/// bound segments grow instead of splitting, so that a broken hash cannot inflate the directory.
const DEPTH_MAX: u8 = 20;
/// A scan call visits at least this fraction of a segment: it has to look at all of it each time.
const SCAN_PIECES_MAX: u64 = 32;
/// Segments one scan call may pass without finding anything.
const SCAN_SEGMENTS_MAX: usize = 64;
/// Positions are 32 bits.
const POSITIONS: u64 = 1 << 32;
/// Random buckets tried before a random element is searched by counting.
const RANDOM_TRIES_MAX: usize = 64;

/// Elements of type `T` in hash order. See the module documentation.
#[derive(Clone)]
pub struct Segments<T> {
    shape: Shape<T>,
}

// One table in place, so that a slot of the keyspace costs 32 bytes and one hop less.
const _: () = assert!(size_of::<Segments<u64>>() == 32);

#[derive(Clone)]
enum Shape<T> {
    Single(HashTable<T>),
    Directory(Box<Directory<T>>),
}

#[derive(Clone)]
struct Directory<T> {
    /// Bits of the position which choose the entry of `index`.
    depth: u8,
    /// Segments whose own depth is `depth`; the directory halves when there are none.
    deepest: usize,
    len: usize,
    /// At least the buckets of the largest segment.
    buckets_max: usize,
    /// Allocations of all segments.
    tables_bytes: usize,
    /// 2^depth numbers of segments. Invariant: a segment of depth d fills 2^(depth - d) neighbouring
    /// entries, which are the range of its place.
    index: Vec<u32>,
    tables: Vec<HashTable<T>>,
    /// The place of each segment, beside `tables` so that these stay 32 bytes each.
    places: Vec<Place>,
}

/// A range of positions: the `2^(32 - depth)` from `start`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    start: u32,
    depth: u8,
}

/// Where an element stands, as [`Segments::find_index`] has found it; good until something is inserted or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Index {
    table: usize,
    bucket: usize,
}

/// The place of a hash in hash order, as used by `scan`.
#[inline]
pub fn hash_position(hash: u64) -> u32 {
    (hash >> 24) as u32
}

impl<T> Default for Segments<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Segments<T> {
    /// An empty table, which owns no memory.
    pub const fn new() -> Self {
        Self { shape: Shape::Single(HashTable::new()) }
    }

    /// The element with this hash for which `eq` holds.
    #[inline]
    pub fn find(&self, hash: u64, eq: impl FnMut(&T) -> bool) -> Option<&T> {
        self.table(hash).find(hash, eq)
    }

    /// As `find`; what `eq` and the hash look at must not be changed through the reference.
    #[inline]
    pub fn find_mut(&mut self, hash: u64, eq: impl FnMut(&T) -> bool) -> Option<&mut T> {
        match &mut self.shape {
            Shape::Single(table) => table.find_mut(hash, eq),
            Shape::Directory(directory) => {
                let number = directory.number(hash_position(hash));
                directory.tables[number].find_mut(hash, eq)
            }
        }
    }

    /// The first element that may have this hash, by seven bits of it and without looking at it. For
    /// reading ahead over a batch of requests: it loads the control bytes and the element itself (a
    /// pointer, in the keyspace), so that independent misses overlap.
    #[inline]
    pub fn candidate(&self, hash: u64) -> Option<&T> {
        self.table(hash).find(hash, |_| true)
    }

    /// Adds an element that is known to be absent and returns it. `rehash` gives the hash of any element.
    #[inline]
    pub fn insert_unique(&mut self, hash: u64, value: T, rehash: impl Fn(&T) -> u64) -> &mut T {
        if let Shape::Single(table) = &mut self.shape
            && table.len() >= ENTRIES_MAX
        {
            self.shape = Shape::Directory(Box::new(Directory::of_one(std::mem::take(table))));
        }
        match &mut self.shape {
            Shape::Single(table) => table.insert_unique(hash, value, rehash).into_mut(),
            Shape::Directory(directory) => directory.insert_unique(hash, value, rehash),
        }
    }

    /// Where the element with this hash is for which `eq` holds: to look at it first, and then to change or remove it
    /// without a second search.
    #[inline(always)]
    pub fn find_index(&self, hash: u64, eq: impl FnMut(&T) -> bool) -> Option<Index> {
        let (number, table) = match &self.shape {
            Shape::Single(table) => (0, table),
            Shape::Directory(directory) => {
                let number = directory.number(hash_position(hash));
                (number, &directory.tables[number])
            }
        };
        Some(Index { table: number, bucket: table.find_bucket_index(hash, eq)? })
    }

    /// The element that stands there.
    #[inline]
    pub fn get(&self, at: Index) -> Option<&T> {
        match &self.shape {
            Shape::Single(table) => table.get_bucket(at.bucket),
            Shape::Directory(directory) => directory.tables.get(at.table)?.get_bucket(at.bucket),
        }
    }

    /// As `get`; what its hash looks at must not be changed through the reference.
    #[inline]
    pub fn get_mut(&mut self, at: Index) -> Option<&mut T> {
        match &mut self.shape {
            Shape::Single(table) => table.get_bucket_mut(at.bucket),
            Shape::Directory(directory) => directory.tables.get_mut(at.table)?.get_bucket_mut(at.bucket),
        }
    }

    /// Removes the element with this hash for which `eq` holds; sparse tables shrink and merge.
    #[inline]
    pub fn remove(&mut self, hash: u64, eq: impl FnMut(&T) -> bool, rehash: impl Fn(&T) -> u64) -> Option<T> {
        self.remove_at(self.find_index(hash, eq)?, rehash)
    }

    /// Removes the element that stands there; sparse tables shrink and merge.
    #[inline]
    pub fn remove_at(&mut self, at: Index, rehash: impl Fn(&T) -> u64) -> Option<T> {
        match &mut self.shape {
            Shape::Single(table) => {
                let (removed, _) = table.get_bucket_entry(at.bucket).ok()?.remove();
                shrink(table, &rehash);
                Some(removed)
            }
            Shape::Directory(directory) => {
                let (removed, _) = directory.tables.get_mut(at.table)?.get_bucket_entry(at.bucket).ok()?.remove();
                directory.len -= 1;
                directory.after_remove(at.table, &rehash);
                if directory.tables.len() == 1
                    && let Some(table) = directory.tables.pop()
                {
                    self.shape = Shape::Single(table);
                }
                Some(removed)
            }
        }
    }

    /// Number of elements.
    #[inline]
    pub fn len(&self) -> usize {
        match &self.shape {
            Shape::Single(table) => table.len(),
            Shape::Directory(directory) => directory.len,
        }
    }

    /// Whether there is no element.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All elements, in no useful order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.tables().iter().flat_map(HashTable::iter)
    }

    /// All elements; what their hash looks at must not be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        let tables = match &mut self.shape {
            Shape::Single(table) => slice::from_mut(table),
            Shape::Directory(directory) => directory.tables.as_mut_slice(),
        };
        tables.iter_mut().flat_map(HashTable::iter_mut)
    }

    /// Visits elements in ranges of hash order, beginning at `position` (0 at first), and returns the
    /// position to go on from, or `None` at the end.
    ///
    /// Every element whose own position lies in the range from `position` to the one returned is visited
    /// exactly once, whatever was inserted or removed between two calls. About `count` elements are
    /// visited, at times more (all elements of one position come together) or fewer; the work is bounded
    /// by one segment plus `count` elements and some empty segments.
    pub fn scan(
        &self,
        position: u32,
        count: usize,
        rehash: impl Fn(&T) -> u64,
        mut visit: impl FnMut(&T),
    ) -> Option<u32> {
        let mut from = u64::from(position);
        let mut visited = 0;
        for _ in 0..SCAN_SEGMENTS_MAX.saturating_add(count) {
            let (table, place) = self.segment(from as u32);
            let end = place.end();
            let to = scan_end(table.len(), place, from, count.saturating_sub(visited));
            if from == u64::from(place.start) && to == end {
                visited += table.len();
                table.iter().for_each(&mut visit);
            } else {
                let range = from..to;
                for element in table.iter().filter(|it| range.contains(&u64::from(hash_position(rehash(it))))) {
                    visited += 1;
                    visit(element);
                }
            }
            if to == POSITIONS {
                return None;
            }
            from = to;
            // A second look at a segment that was cut would cost as much as the first.
            if visited >= count || (visited > 0 && to < end) {
                break;
            }
        }
        Some(from as u32)
    }

    /// Visits all elements of the segment in which `position` lies (0 at first), to be changed in what their hash does not
    /// look at. Returns where the next segment begins, or `None` at the end. Splits and merges between two calls hide no
    /// element, but may show some again.
    pub fn visit_segment(&mut self, position: u32, visit: impl FnMut(&mut T)) -> Option<u32> {
        match &mut self.shape {
            Shape::Single(table) => {
                table.iter_mut().for_each(visit);
                None
            }
            Shape::Directory(directory) => {
                let number = directory.number(position);
                directory.tables[number].iter_mut().for_each(visit);
                u32::try_from(directory.places[number].end()).ok()
            }
        }
    }

    /// One element, each with the same probability, by a random number.
    pub fn random(&self, random: u64) -> Option<&T> {
        if self.is_empty() {
            return None;
        }
        let (tables, buckets_max) = (self.tables(), self.buckets_max());
        // A bucket of a table as large as the largest, drawn evenly; what is not there or empty is drawn again.
        let mut state = random;
        for _ in 0..RANDOM_TRIES_MAX {
            state = mix(state);
            let table = &tables[below(state, tables.len())];
            state = mix(state);
            let bucket = below(state, buckets_max);
            if bucket < table.num_buckets()
                && let Some(element) = table.get_bucket(bucket)
            {
                return Some(element);
            }
        }
        // A table this sparse is rare: count to a number drawn evenly.
        let mut skip = below(mix(state), self.len());
        for table in tables {
            if skip < table.len() {
                return table.iter().nth(skip);
            }
            skip -= table.len();
        }
        None
    }

    /// Visits up to `count` elements that stand together at a random place; for sampling (expiry, eviction),
    /// where a cheap rough choice will do. Looks at no more than 16 buckets for each one wanted.
    pub fn sample<'s>(&'s self, random: u64, count: usize, mut visit: impl FnMut(&'s T)) {
        let tables = self.tables();
        let table = &tables[below(mix(random), tables.len())];
        let buckets = table.num_buckets();
        if table.is_empty() {
            return;
        }
        let start = below(mix(random ^ 1), buckets);
        let looked_at = buckets.min(count.saturating_mul(16));
        (0..looked_at)
            .map(|step| if start + step < buckets { start + step } else { start + step - buckets })
            .filter_map(|bucket| table.get_bucket(bucket))
            .take(count)
            .for_each(&mut visit);
    }

    /// Bytes allocated for the table itself, without what the elements own; exact and not walked.
    #[inline]
    pub fn allocation_bytes(&self) -> usize {
        match &self.shape {
            Shape::Single(table) => table.allocation_size(),
            Shape::Directory(directory) => {
                size_of::<Directory<T>>()
                    + directory.tables_bytes
                    + directory.index.capacity() * size_of::<u32>()
                    + directory.tables.capacity() * size_of::<HashTable<T>>()
                    + directory.places.capacity() * size_of::<Place>()
            }
        }
    }

    /// The segments themselves, to be emptied or freed one bounded piece at a time.
    pub fn into_segments(self) -> impl Iterator<Item = HashTable<T>> + use<T> {
        let (single, many) = match self.shape {
            Shape::Single(table) => (Some(table), Vec::new()),
            Shape::Directory(directory) => (None, directory.tables),
        };
        single.into_iter().chain(many)
    }

    /// Number of segments; 1 for a small table.
    pub fn segment_count(&self) -> usize {
        self.tables().len()
    }

    #[inline]
    fn table(&self, hash: u64) -> &HashTable<T> {
        match &self.shape {
            Shape::Single(table) => table,
            Shape::Directory(directory) => &directory.tables[directory.number(hash_position(hash))],
        }
    }

    fn tables(&self) -> &[HashTable<T>] {
        match &self.shape {
            Shape::Single(table) => slice::from_ref(table),
            Shape::Directory(directory) => &directory.tables,
        }
    }

    fn segment(&self, position: u32) -> (&HashTable<T>, Place) {
        match &self.shape {
            Shape::Single(table) => (table, Place::ALL),
            Shape::Directory(directory) => {
                let number = directory.number(position);
                (&directory.tables[number], directory.places[number])
            }
        }
    }

    fn buckets_max(&self) -> usize {
        match &self.shape {
            Shape::Single(table) => table.num_buckets(),
            Shape::Directory(directory) => directory.buckets_max,
        }
    }
}

impl<T> std::fmt::Debug for Segments<T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Segments({} in {})", self.len(), self.segment_count())
    }
}

impl Place {
    const ALL: Self = Self { start: 0, depth: 0 };

    fn width(self) -> u64 {
        POSITIONS >> self.depth
    }

    fn end(self) -> u64 {
        u64::from(self.start) + self.width()
    }
}

impl<T> Directory<T> {
    /// A directory over one table; the next insert splits it.
    fn of_one(table: HashTable<T>) -> Self {
        Self {
            depth: 0,
            deepest: 1,
            len: table.len(),
            buckets_max: table.num_buckets(),
            tables_bytes: table.allocation_size(),
            index: vec![0],
            tables: vec![table],
            places: vec![Place::ALL],
        }
    }

    #[inline]
    fn number(&self, position: u32) -> usize {
        self.index[(u64::from(position) >> (32 - self.depth)) as usize] as usize
    }

    /// The entries of `index` that stand for a place.
    fn entries(&self, place: Place) -> std::ops::Range<usize> {
        let first = (u64::from(place.start) >> (32 - self.depth)) as usize;
        first..first + (1 << (self.depth - place.depth))
    }

    fn insert_unique(&mut self, hash: u64, value: T, rehash: impl Fn(&T) -> u64) -> &mut T {
        let mut number = self.number(hash_position(hash));
        if self.tables[number].len() >= ENTRIES_MAX {
            self.split(number, &rehash);
            number = self.number(hash_position(hash));
        }
        self.len += 1;
        let table = &mut self.tables[number];
        if table.len() == table.capacity() {
            let before = table.allocation_size();
            table.reserve(1, &rehash);
            self.tables_bytes = self.tables_bytes + table.allocation_size() - before;
            self.buckets_max = self.buckets_max.max(table.num_buckets());
        }
        table.insert_unique(hash, value, rehash).into_mut()
    }

    fn split(&mut self, number: usize, rehash: &impl Fn(&T) -> u64) {
        let Place { start, depth } = self.places[number];
        if depth == DEPTH_MAX {
            return;
        }
        if depth == self.depth {
            self.index = self.index.iter().flat_map(|&entry| [entry, entry]).collect();
            self.depth += 1;
            self.deepest = 0;
        }
        let half = 1 << (31 - depth);
        let old = std::mem::take(&mut self.tables[number]);
        self.tables_bytes -= old.allocation_size();
        let hashed: Vec<(u64, T)> = old.into_iter().map(|element| (rehash(&element), element)).collect();
        let upper_len = hashed.iter().filter(|(hash, _)| hash_position(*hash) & half != 0).count();
        let mut lower = HashTable::with_capacity(hashed.len() - upper_len);
        let mut upper = HashTable::with_capacity(upper_len);
        for (hash, element) in hashed {
            let table = if hash_position(hash) & half == 0 { &mut lower } else { &mut upper };
            table.insert_unique(hash, element, rehash);
        }
        self.tables_bytes += lower.allocation_size() + upper.allocation_size();
        self.tables[number] = lower;
        self.places[number].depth = depth + 1;
        let place = Place { start: start | half, depth: depth + 1 };
        let entries = self.entries(place);
        self.index[entries].fill(self.tables.len() as u32);
        self.tables.push(upper);
        self.places.push(place);
        if depth + 1 == self.depth {
            self.deepest += 2;
        }
    }

    /// Keeps the table from being mostly empty: merges the segment with its neighbour, or shrinks it.
    fn after_remove(&mut self, number: usize, rehash: &impl Fn(&T) -> u64) {
        let len = self.tables[number].len();
        if len <= ENTRIES_MERGED_MAX && self.places[number].depth > 0 {
            let place = self.places[number];
            let neighbour = self.number(place.start ^ (1 << (32 - place.depth)));
            if self.places[neighbour].depth == place.depth && len + self.tables[neighbour].len() <= ENTRIES_MERGED_MAX {
                return self.merge(number, neighbour, rehash);
            }
        }
        let table = &mut self.tables[number];
        let before = table.allocation_size();
        shrink(table, rehash);
        self.tables_bytes = self.tables_bytes + table.allocation_size() - before;
    }

    /// Moves the elements of segment `from` into its neighbour `into` and forgets `from`.
    fn merge(&mut self, from: usize, into: usize, rehash: &impl Fn(&T) -> u64) {
        let place = self.places[from];
        let entries = self.entries(place);
        self.index[entries].fill(into as u32);
        let moved = std::mem::take(&mut self.tables[from]);
        let table = &mut self.tables[into];
        self.tables_bytes -= moved.allocation_size() + table.allocation_size();
        for element in moved {
            table.insert_unique(rehash(&element), element, rehash);
        }
        shrink(table, rehash);
        self.tables_bytes += table.allocation_size();
        self.buckets_max = self.buckets_max.max(table.num_buckets());
        self.places[into] = Place { start: place.start & !(1 << (32 - place.depth)), depth: place.depth - 1 };
        self.forget(from);
        if place.depth == self.depth {
            self.deepest -= 2;
        }
        while self.deepest == 0 && self.depth > 0 {
            self.depth -= 1;
            self.index = self.index.iter().step_by(2).copied().collect();
            self.deepest = self.places.iter().filter(|it| it.depth == self.depth).count();
            self.tables.shrink_to(self.tables.len() * 2);
            self.places.shrink_to(self.places.len() * 2);
        }
    }

    /// Drops an empty segment that no entry of the index names; the last segment takes its number.
    fn forget(&mut self, number: usize) {
        self.tables.swap_remove(number);
        self.places.swap_remove(number);
        if let Some(&place) = self.places.get(number) {
            let entries = self.entries(place);
            self.index[entries].fill(number as u32);
        }
    }
}

fn shrink<T>(table: &mut HashTable<T>, rehash: impl Fn(&T) -> u64) {
    if table.num_buckets() > BUCKETS_KEPT && table.len() * BUCKETS_PER_ENTRY_MAX < table.num_buckets() {
        table.shrink_to(table.len() * 2, rehash);
    }
}

/// Where a scan that wants `wanted` more elements of a segment of `len` stops: positions are even, so a share
/// of the range is a share of the elements.
fn scan_end(len: usize, place: Place, from: u64, wanted: usize) -> u64 {
    let width = place.width();
    if wanted >= len {
        return place.end();
    }
    let step = (u128::from(width) * wanted as u128 / len as u128) as u64;
    (from + step.max(width / SCAN_PIECES_MAX).max(1)).min(place.end())
}

#[cfg(test)]
mod tests;
