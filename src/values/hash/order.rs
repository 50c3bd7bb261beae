//! The deadlines of a large hash in the order in which they pass.
//!
//! ```text
//!  key, 12 bytes    deadline: 48 bits, big endian | hash of the field: its upper 28 and its lower 20 bits
//!  chunks           [key ≤ key ≤ … ≤ key] ≤ [key ≤ … ≤ key] ≤ …      a sorted list, cut in pieces of up to 256
//! ```
//! A field is not named here a second time: those 48 bits of its hash choose its segment, its bucket and its tag
//! ([`Segments`](crate::values::Segments) looks at no others below 2^20 segments of 2^20 buckets), and the pair that is
//! found there knows its deadline. Fields that agree in all of it have equal keys, of which there is one for each.

use crate::values::packed::size_class;

/// The latest deadline that can be kept, in Unix milliseconds: 48 bits, in the year 10889. Redis keeps 46.
pub(super) const DEADLINE_MAX_MS: u64 = (1 << 48) - 1;
/// Keys at which a chunk is cut: an insert moves 1.5 KB at the average.
const CHUNK_KEYS_MAX: usize = 256;
/// A chunk grows by one in this many.
const GROWTH: usize = 8;

const HASH_UPPER: u64 = !0 << 36;
const HASH_LOWER: u64 = (1 << 20) - 1;

/// See the module.
#[derive(Debug, Default, Clone)]
pub(super) struct Order {
    /// None is empty.
    chunks: Vec<Vec<Key>>,
    /// Allocations of all chunks.
    bytes: usize,
}

/// A deadline, and where the field is that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key([u8; 12]);

impl Key {
    /// The key of a field with this hash; of later deadlines than `DEADLINE_MAX_MS` the upper bits are lost.
    pub(super) fn new(deadline: u64, hash: u64) -> Self {
        let hash = (hash & HASH_UPPER) >> 16 | hash & HASH_LOWER;
        let mut bytes = [0; 12];
        bytes[..6].copy_from_slice(&deadline.to_be_bytes()[2..]);
        bytes[6..].copy_from_slice(&hash.to_be_bytes()[2..]);
        Self(bytes)
    }

    pub(super) fn deadline(self) -> u64 {
        self.word(0)
    }

    /// A hash that leads to the field in a table.
    pub(super) fn hash(self) -> u64 {
        let hash = self.word(6);
        hash << 16 & HASH_UPPER | hash & HASH_LOWER
    }

    fn word(self, at: usize) -> u64 {
        self.0[at..at + 6].iter().fold(0, |word, byte| word << 8 | u64::from(*byte))
    }
}

impl Order {
    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Adds a key, beside equal ones.
    pub(super) fn insert(&mut self, key: Key) {
        let last = self.chunks.len().saturating_sub(1);
        let number = self.chunk_of(key).min(last);
        match self.chunks.get_mut(number) {
            None => self.chunks.push(Vec::new()),
            Some(chunk) if chunk.len() < CHUNK_KEYS_MAX => {}
            // Deadlines that come in order leave full chunks behind.
            Some(chunk) if number == last && chunk.last() <= Some(&key) => {
                self.chunks.push(Vec::new());
                return self.insert_into(number + 1, key);
            }
            Some(chunk) => {
                self.bytes -= allocation(chunk);
                let upper = chunk.split_off(CHUNK_KEYS_MAX / 2);
                resize(chunk);
                self.bytes += allocation(chunk) + allocation(&upper);
                let is_above = upper.first() < Some(&key);
                self.chunks.insert(number + 1, upper);
                return self.insert_into(number + usize::from(is_above), key);
            }
        }
        self.insert_into(number, key);
    }

    /// Takes a key away, one of those equal to it; whether it was there.
    pub(super) fn remove(&mut self, key: Key) -> bool {
        let number = self.chunk_of(key);
        let Some(chunk) = self.chunks.get_mut(number) else { return false };
        let Ok(at) = chunk.binary_search(&key) else { return false };
        chunk.remove(at);
        if chunk.len() * 2 <= chunk.capacity() {
            self.bytes -= allocation(chunk);
            resize(chunk);
            self.bytes += allocation(chunk);
        }
        if chunk.is_empty() {
            self.bytes -= allocation(chunk);
            self.chunks.remove(number);
        }
        true
    }

    /// The first of all keys.
    #[inline]
    pub(super) fn first(&self) -> Option<Key> {
        self.chunks.first()?.first().copied()
    }

    /// How many deadlines have passed.
    pub(super) fn due_count(&self, now_ms: u64) -> usize {
        let is_due = |key: &Key| key.deadline() <= now_ms;
        let whole = self.chunks.partition_point(|chunk| chunk.last().is_some_and(is_due));
        let part = self.chunks.get(whole).map_or(0, |chunk| chunk.partition_point(is_due));
        self.chunks[..whole].iter().map(Vec::len).sum::<usize>() + part
    }

    /// Bytes allocated, not walked.
    pub(super) fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.chunks.capacity() * size_of::<Vec<Key>>() + self.bytes
    }

    pub(super) fn allocation_count(&self) -> usize {
        self.chunks.len()
    }

    /// The number of the first chunk that ends with this key or a later one.
    fn chunk_of(&self, key: Key) -> usize {
        self.chunks.partition_point(|chunk| chunk.last() < Some(&key))
    }

    fn insert_into(&mut self, number: usize, key: Key) {
        let chunk = &mut self.chunks[number];
        if chunk.len() == chunk.capacity() {
            self.bytes -= allocation(chunk);
            resize(chunk);
            self.bytes += allocation(chunk);
        }
        let at = chunk.partition_point(|it| *it < key);
        chunk.insert(at, key);
    }
}

/// Gives a chunk room for a key and a few more, up to the allocator's next size class.
fn resize(chunk: &mut Vec<Key>) {
    let wanted = (chunk.len() + 1 + chunk.len() / GROWTH).min(CHUNK_KEYS_MAX.max(chunk.len()));
    let capacity = size_class(wanted * size_of::<Key>()) / size_of::<Key>();
    chunk.shrink_to(capacity);
    chunk.reserve_exact(capacity.saturating_sub(chunk.len()));
}

fn allocation(chunk: &Vec<Key>) -> usize {
    size_class(chunk.capacity() * size_of::<Key>())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::values::hashing::mix;

    #[test]
    fn a_key_keeps_what_a_table_looks_at() {
        for (deadline, hash) in [(0, 0), (1, !0), (DEADLINE_MAX_MS, mix(7)), (1 << 47, 1 << 63)] {
            let key = Key::new(deadline, hash);
            assert_eq!((key.deadline(), key.hash()), (deadline, hash & (HASH_UPPER | HASH_LOWER)));
        }
        assert!(Key::new(1, !0) < Key::new(2, 0) && Key::new(255, 0) < Key::new(256, 0));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// With few deadlines many keys are equal, with many none.
        #[test]
        fn an_order_is_a_sorted_list(
            steps in prop::collection::vec((0u8..3, any::<u64>()), 1..3000),
            deadlines in prop_oneof![Just(1u64), Just(40), Just(1 << 40)],
            ascending in any::<bool>(),
        ) {
            let (mut order, mut model) = (Order::default(), Vec::<Key>::new());
            for (number, (kind, random)) in steps.into_iter().enumerate() {
                let deadline = if ascending { number as u64 } else { random % deadlines };
                let key = Key::new(deadline, random % 8);
                if kind == 0 {
                    let victim = model.get(random as usize % model.len().max(1)).copied().unwrap_or(key);
                    let at = model.binary_search(&victim);
                    prop_assert_eq!(order.remove(victim), at.is_ok());
                    if let Ok(at) = at {
                        model.remove(at);
                    }
                } else {
                    order.insert(key);
                    model.insert(model.partition_point(|it| *it < key), key);
                }
                prop_assert_eq!(order.first(), model.first().copied());
                prop_assert_eq!(order.is_empty(), model.is_empty());
            }
            prop_assert!(order.chunks.iter().flatten().eq(&model));
            prop_assert!(order.chunks.iter().all(|chunk| (1..=CHUNK_KEYS_MAX).contains(&chunk.len())));
            prop_assert_eq!(order.bytes, order.chunks.iter().map(allocation).sum::<usize>());
            for now in [0, 20, 1 << 39] {
                let due = model.iter().filter(|key| key.deadline() <= now).count();
                prop_assert_eq!(order.due_count(now), due);
            }
        }
    }
}
