//! Which members small sets have in common, found by walking each of them once.
//!
//! A packed set is searched from its front, so asking it for each member of another one costs the product of both
//! lengths. Here the members of the smallest are put into a table of hashes, and the larger ones are walked past it.

use super::{Element, Packed};
use crate::values::packed::Classes;

/// Fewer members are looked for one by one.
const MEMBERS_MIN: usize = 3;
/// More are not put together either: where limits let packed sets grow beyond, memory is not taken for an answer.
const MEMBERS_MAX: usize = 1024;
/// Bits of a hash that stand beside a member's index, so that what differs is seldom compared.
const TAG_BITS: u32 = 16;

/// Members of packed sets or sets of integers: each integer is an [`Element::Integer`].
pub(super) struct Common<'a> {
    members: Vec<Element<'a>>,
    /// By hash, each in its place or the next free one: tag and index + 1; 0 where there is none.
    places: Vec<u32>,
    /// The classes of all members: most members of a large set are in none of those of a small one.
    classes: Classes,
}

impl<'a> Common<'a> {
    /// Whether so many members are worth it.
    pub(super) fn suits(count: usize) -> bool {
        (MEMBERS_MIN..=MEMBERS_MAX).contains(&count)
    }

    /// Begins with these, which are all different.
    pub(super) fn new(members: impl Iterator<Item = Element<'a>>) -> Self {
        let members: Vec<_> = members.collect();
        let mut places = vec![0; (members.len() * 2).next_power_of_two()];
        let mut classes = Classes::default();
        for (index, member) in members.iter().enumerate() {
            let (mut place, tag) = place(*member, places.len());
            while places[place] != 0 {
                place = (place + 1) % places.len();
            }
            places[place] = tag << TAG_BITS | (index + 1) as u32;
            classes.add(*member);
        }
        Self { members, places, classes }
    }

    /// Which members are in a packed set, by index.
    pub(super) fn among(&self, packed: &Packed<false>) -> Vec<bool> {
        let mut found = vec![false; self.members.len()];
        packed.each_of(self.classes, |other| {
            if let Some(index) = self.index_of(other) {
                found[index] = true;
            }
        });
        found
    }

    fn index_of(&self, other: Element<'_>) -> Option<usize> {
        let (mut place, tag) = place(other, self.places.len());
        loop {
            let held = self.places[place];
            if held == 0 {
                return None;
            }
            let index = (held & ((1 << TAG_BITS) - 1)) as usize - 1;
            if held >> TAG_BITS == tag && self.members[index] == other {
                return Some(index);
            }
            place = (place + 1) % self.places.len();
        }
    }

    pub(super) fn into_members(self) -> Vec<Element<'a>> {
        self.members
    }
}

/// The place of an element in a table of `count` places, a power of two, and its tag.
///
/// Of a long string only both ends are hashed: strings that have them in common cost a comparison each, as they would
/// without a table.
#[inline]
fn place(element: Element<'_>, count: usize) -> (usize, u32) {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let (first, last) = match element {
        Element::Integer(integer) => (integer as u64, 1 << 32),
        Element::Bytes(bytes) => ends(bytes),
    };
    let mixed = (first ^ last.rotate_left(29)).wrapping_mul(FACTOR);
    let mixed = (mixed ^ mixed >> 32).wrapping_mul(FACTOR);
    ((mixed >> 48) as usize & (count - 1), (mixed >> 32) as u32 & ((1 << TAG_BITS) - 1))
}

/// The first and the last eight bytes, or what there is, with the length.
#[inline]
fn ends(bytes: &[u8]) -> (u64, u64) {
    let length = (bytes.len() as u64) << 56;
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        return (u64::from_le_bytes(*first), u64::from_le_bytes(*last) ^ length);
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        return (u32::from_le_bytes(*first).into(), u64::from(u32::from_le_bytes(*last)) ^ length);
    }
    (bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)), length)
}
