//! The large form of a sorted set: table, slots and tree.
//!
//! A handle is the number of a slot. Removed slots are reused; when more than half are empty, each removal
//! also moves the last member down, so that memory follows the size of the set without a stall.

use crate::values::hashing::table_hash;
use crate::values::packed::size_class;
use crate::values::rank_tree::{Direction, RankTree, Walk};
use crate::values::sampling;
use crate::values::segments::Segments;

use super::Placed;

/// Slots of one allocation.
const BLOCK_SLOTS: usize = 256;
/// Slots a removal moves or drops at most when the slots are sparse.
const COMPACTED_PER_REMOVAL: usize = 4;
/// Room for handles of empty slots that is always kept.
const EMPTY_KEPT: usize = 64;

#[derive(Debug, Default, Clone)]
pub(super) struct Ranked {
    table: Segments<u32>,
    tree: RankTree,
    slots: Slots,
}

#[derive(Debug, Default, Clone)]
struct Slots {
    /// All blocks but the last are full.
    blocks: Vec<Vec<Slot>>,
    /// Handles of empty slots, and some that are no more: each is looked at before use.
    empty: Vec<u32>,
    /// Members present.
    used: usize,
    /// Allocations of members.
    bytes: usize,
}

#[derive(Debug, Clone)]
struct Slot {
    /// NaN marks an empty slot.
    score: f64,
    member: Box<[u8]>,
}

impl Ranked {
    pub(super) fn len(&self) -> usize {
        self.tree.len()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.table.allocation_bytes() + self.tree.allocation_bytes() + self.slots.memory_bytes()
    }

    pub(super) fn allocation_count(&self) -> usize {
        self.len() + self.tree.node_count() + self.slots.blocks.len() + self.table.segment_count()
    }

    #[inline]
    pub(super) fn member(&self, handle: u32) -> &[u8] {
        &self.slots.get(handle).member
    }

    pub(super) fn score(&self, member: &[u8]) -> Option<f64> {
        self.find(member).map(|handle| self.slots.get(handle).score)
    }

    pub(super) fn rank(&self, member: &[u8]) -> Option<(usize, f64)> {
        let score = self.score(member)?;
        Some((self.tree.rank_of(before(&self.slots, score, member)), score))
    }

    pub(super) fn rank_of(&self, before: impl Fn(f64, &[u8]) -> bool) -> usize {
        self.tree.rank_of(|score, handle| before(score, self.member(handle)))
    }

    pub(super) fn walk(&self, rank: usize, count: usize, direction: Direction) -> Walk<'_> {
        self.tree.walk(rank, count, direction)
    }

    pub(super) fn insert(&mut self, member: &[u8], score: f64) -> Placed {
        let hash = table_hash(member);
        let slots = &mut self.slots;
        if let Some(&handle) = self.table.find(hash, |handle| *slots.get(*handle).member == *member) {
            let old = slots.get(handle).score;
            if old == score {
                return Placed::Unchanged;
            }
            let rank = self.tree.rank_of(before(slots, old, member));
            self.tree.remove(rank);
            slots.get_mut(handle).score = score;
            self.tree.insert(score, handle, before(slots, score, member));
            return Placed::Moved(old);
        }
        let handle = slots.add(score, member);
        let slots = &self.slots;
        self.tree.insert(score, handle, before(slots, score, member));
        self.table.insert_unique(hash, handle, |handle| table_hash(&slots.get(*handle).member));
        Placed::Added
    }

    pub(super) fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let (rank, score) = self.rank(member)?;
        self.remove_rank(rank, |_, _| ());
        Some(score)
    }

    /// Removes the member of a rank and shows it.
    pub(super) fn remove_rank(&mut self, rank: usize, visit: impl FnOnce(&[u8], f64)) {
        let Some((_, handle)) = self.tree.remove(rank) else { return };
        let slots = &self.slots;
        let hash = table_hash(&slots.get(handle).member);
        self.table.remove(hash, |it| *it == handle, |it| table_hash(&slots.get(*it).member));
        let removed = self.slots.remove(handle);
        visit(&removed.member, removed.score);
        self.compact();
    }

    pub(super) fn scan(&self, position: u32, count: usize, mut visit: impl FnMut(&[u8], f64)) -> Option<u32> {
        let rehash = |handle: &u32| table_hash(self.member(*handle));
        self.table.scan(position, count, rehash, |handle| {
            let slot = self.slots.get(*handle);
            visit(&slot.member, slot.score);
        })
    }

    pub(super) fn random_distinct(
        &self,
        count: usize,
        random: &mut impl FnMut() -> u64,
        mut visit: impl FnMut(&[u8], f64),
    ) {
        sampling::choose_from_table(&self.table, count, random, |handle| {
            let slot = self.slots.get(*handle);
            visit(&slot.member, slot.score);
        });
    }

    #[inline]
    fn find(&self, member: &[u8]) -> Option<u32> {
        self.table.find(table_hash(member), |handle| *self.member(*handle) == *member).copied()
    }

    /// A bounded step towards slots without holes, once most are holes.
    fn compact(&mut self) {
        for _ in 0..COMPACTED_PER_REMOVAL {
            let len = self.slots.len();
            if len <= BLOCK_SLOTS || self.slots.used * 2 >= len {
                return;
            }
            let last = len as u32 - 1;
            if self.slots.get(last).is_empty() {
                self.slots.drop_last();
                continue;
            }
            let Some(hole) = self.slots.take_empty() else { return };
            let slots = &self.slots;
            let slot = slots.get(last);
            let rank = self.tree.rank_of(before(slots, slot.score, &slot.member));
            self.tree.rename(rank, hole);
            if let Some(handle) = self.table.find_mut(table_hash(&slot.member), |it| *it == last) {
                *handle = hole;
            }
            if let Some(moved) = self.slots.drop_last() {
                *self.slots.get_mut(hole) = moved;
            }
        }
    }
}

impl Slots {
    fn len(&self) -> usize {
        self.blocks.last().map_or(0, |last| (self.blocks.len() - 1) * BLOCK_SLOTS + last.len())
    }

    fn memory_bytes(&self) -> usize {
        // All blocks but the first are allocated whole, and the first is whole once there is a second.
        let slots = match self.blocks.as_slice() {
            [only] => only.capacity(),
            blocks => blocks.len() * BLOCK_SLOTS,
        };
        let handles = self.empty.capacity() * size_of::<u32>();
        self.bytes + slots * size_of::<Slot>() + self.blocks.capacity() * size_of::<Vec<Slot>>() + handles
    }

    #[inline]
    fn get(&self, handle: u32) -> &Slot {
        &self.blocks[handle as usize / BLOCK_SLOTS][handle as usize % BLOCK_SLOTS]
    }

    #[inline]
    fn get_mut(&mut self, handle: u32) -> &mut Slot {
        &mut self.blocks[handle as usize / BLOCK_SLOTS][handle as usize % BLOCK_SLOTS]
    }

    fn add(&mut self, score: f64, member: &[u8]) -> u32 {
        self.used += 1;
        self.bytes += size_class(member.len());
        let slot = Slot { score, member: member.into() };
        if let Some(handle) = self.take_empty() {
            *self.get_mut(handle) = slot;
            return handle;
        }
        // Invariant: 2^32 members would take far more memory than one value may have.
        let handle = self.len() as u32;
        match self.blocks.last_mut() {
            Some(block) if block.len() < BLOCK_SLOTS => block.push(slot),
            Some(_) => {
                let mut block = Vec::with_capacity(BLOCK_SLOTS);
                block.push(slot);
                self.blocks.push(block);
            }
            None => self.blocks.push(vec![slot]),
        }
        handle
    }

    fn remove(&mut self, handle: u32) -> Slot {
        self.used -= 1;
        self.empty.push(handle);
        self.forget_what_is_gone();
        let removed = std::mem::replace(self.get_mut(handle), Slot { score: f64::NAN, member: Box::default() });
        self.bytes -= size_class(removed.member.len());
        removed
    }

    /// Cleans `empty` once it is large for the slots there are: most of it was used or names what was dropped.
    fn forget_what_is_gone(&mut self) {
        let holes = self.len() - self.used;
        if self.empty.capacity() > EMPTY_KEPT + holes * 4 {
            let len = self.len();
            let mut empty = std::mem::take(&mut self.empty);
            empty.retain(|handle| (*handle as usize) < len && self.get(*handle).is_empty());
            empty.sort_unstable();
            empty.dedup();
            empty.shrink_to_fit();
            self.empty = empty;
        }
    }

    /// An empty slot, if there is one.
    fn take_empty(&mut self) -> Option<u32> {
        let len = self.len();
        while let Some(handle) = self.empty.pop() {
            if (handle as usize) < len && self.get(handle).is_empty() {
                return Some(handle);
            }
        }
        self.empty = Vec::new();
        None
    }

    fn drop_last(&mut self) -> Option<Slot> {
        let block = self.blocks.last_mut()?;
        let slot = block.pop();
        if block.is_empty() {
            self.blocks.pop();
        }
        slot
    }
}

impl Slot {
    fn is_empty(&self) -> bool {
        self.score.is_nan()
    }
}

/// Whether a pair of the tree comes before a score and member.
fn before<'a>(slots: &'a Slots, score: f64, member: &'a [u8]) -> impl Fn(f64, u32) -> bool + 'a {
    move |other_score, other| other_score < score || (other_score == score && *slots.get(other).member < *member)
}

#[cfg(test)]
impl Ranked {
    /// Checks that table, slots and tree say the same, by walking all of them.
    pub(super) fn check(&self) {
        assert_eq!(self.table.len(), self.tree.len());
        assert_eq!(self.slots.used, self.tree.len());
        for (score, handle) in self.walk(0, usize::MAX, Direction::Up) {
            assert_eq!(self.slots.get(handle).score, score);
            assert_eq!(self.find(self.member(handle)), Some(handle));
        }
        let all = || self.slots.blocks.iter().flatten();
        assert_eq!(all().filter(|slot| !slot.is_empty()).count(), self.slots.used);
        assert_eq!(all().map(|slot| size_class(slot.member.len())).sum::<usize>(), self.slots.bytes);
        let (last, full) = self.slots.blocks.split_last().expect("a large set was filled");
        assert!(full.iter().all(|block| block.len() == BLOCK_SLOTS) && !last.is_empty());
    }
}
