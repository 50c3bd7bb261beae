//! The set: sorted integers, or a packed sequence while small, or a table of members.
//!
//! The rules by which a set changes its encoding are Redis 7.2's: integers only stay an `intset` up to their
//! own limit; the first other member makes it packed if the limits of that allow, otherwise a table.

use super::element::{Digits, Element, parse_integer};
use super::hashing::{below, table_hash};
use super::intset::IntSet;
use super::limits::Limits;
use super::packed::{self, Needle, Packed, size_class};
use super::sampling;
use super::segments::Segments;
use intersection::Common;
use smallvec::SmallVec;

mod intersection;

/// A Redis set.
#[derive(Debug, Default, Clone)]
pub struct Set {
    shape: Shape,
}

#[derive(Debug, Clone)]
enum Shape {
    Integers(IntSet),
    Packed(Packed<false>),
    Table(Box<Table>),
}

#[derive(Debug, Default, Clone)]
struct Table {
    members: Segments<Box<[u8]>>,
    /// Allocations of all members.
    bytes: usize,
}

/// Members of a set.
pub struct Iter<'a> {
    shape: IterShape<'a>,
}

enum IterShape<'a> {
    Integers(&'a IntSet, usize),
    Packed(packed::Iter<'a, false>),
    Table(Box<dyn Iterator<Item = &'a Box<[u8]>> + 'a>),
}

impl Default for Shape {
    fn default() -> Self {
        Self::Integers(IntSet::default())
    }
}

impl Set {
    /// An empty set, which owns no memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty set that will get about `count` members beginning with `first` (SADD with many): it starts in the
    /// encoding which those would lead to.
    pub fn for_members(first: &[u8], count: usize, limits: &Limits) -> Self {
        let shape = if parse_integer(first).is_some() && count <= limits.set_max_intset_entries {
            Shape::Integers(IntSet::default())
        } else if count <= limits.set_max_listpack_entries {
            Shape::Packed(Packed::new())
        } else {
            Shape::Table(Box::default())
        };
        Self { shape }
    }

    /// Number of members (SCARD).
    #[inline]
    pub fn len(&self) -> usize {
        match &self.shape {
            Shape::Integers(integers) => integers.len(),
            Shape::Packed(packed) => packed.len(),
            Shape::Table(table) => table.members.len(),
        }
    }

    /// Whether there is no member; such a set does not stay in a keyspace.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Redis's name of the encoding.
    pub fn encoding(&self) -> &'static str {
        match &self.shape {
            Shape::Integers(_) => "intset",
            Shape::Packed(_) => "listpack",
            Shape::Table(_) => "hashtable",
        }
    }

    /// Bytes allocated, not walked.
    pub fn memory_bytes(&self) -> usize {
        match &self.shape {
            Shape::Integers(integers) => integers.allocation_bytes(),
            Shape::Packed(packed) => packed.allocation_bytes(),
            Shape::Table(table) => size_of::<Table>() + table.bytes + table.members.allocation_bytes(),
        }
    }

    /// Number of allocations, by which the cost of freeing is judged.
    pub fn allocation_count(&self) -> usize {
        match &self.shape {
            Shape::Table(table) => table.members.len(),
            _ => 1,
        }
    }

    /// Whether a member is present (SISMEMBER).
    #[inline]
    pub fn contains(&self, member: &[u8]) -> bool {
        match &self.shape {
            Shape::Integers(integers) => parse_integer(member).is_some_and(|integer| integers.contains(integer)),
            Shape::Packed(packed) => packed.find(0, &Needle::new(member), 1).is_some(),
            Shape::Table(table) => table.contains(member),
        }
    }

    /// As `contains`, for a member of another set.
    pub fn contains_element(&self, member: Element<'_>) -> bool {
        match (&self.shape, member) {
            (Shape::Integers(integers), Element::Integer(integer)) => integers.contains(integer),
            (Shape::Packed(packed), Element::Integer(_)) => packed.find(0, &Needle::of(member), 1).is_some(),
            _ => self.contains(member.bytes(&mut Digits::new())),
        }
    }

    /// Adds a member (SADD); whether it was absent.
    pub fn add(&mut self, member: &[u8], limits: &Limits) -> bool {
        match &mut self.shape {
            Shape::Integers(integers) => {
                if let Some(integer) = parse_integer(member) {
                    let added = integers.insert(integer);
                    if integers.len() > limits.set_max_intset_entries {
                        self.become_table();
                    }
                    return added;
                }
                self.leave_integers(member.len(), limits);
                self.add(member, limits)
            }
            Shape::Packed(packed) => {
                if packed.find(0, &Needle::new(member), 1).is_some() {
                    return false;
                }
                if packed.len() < limits.set_max_listpack_entries
                    && member.len() <= limits.set_max_listpack_value
                    && packed.has_room(member.len())
                {
                    packed.push(member);
                    return true;
                }
                self.become_table();
                self.add(member, limits)
            }
            Shape::Table(table) => table.add(member),
        }
    }

    /// As `add`, for a member of another set.
    pub fn add_element(&mut self, member: Element<'_>, limits: &Limits) -> bool {
        self.add(member.bytes(&mut Digits::new()), limits)
    }

    /// Removes a member (SREM); whether it was present.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        match &mut self.shape {
            Shape::Integers(integers) => parse_integer(member).is_some_and(|integer| integers.remove(integer)),
            Shape::Packed(packed) => {
                let found = packed.find(0, &Needle::new(member), 1);
                found.inspect(|offset| packed.remove(*offset, 1)).is_some()
            }
            Shape::Table(table) => {
                let removed = table.members.remove(table_hash(member), |it| **it == *member, |it| table_hash(it));
                removed.inspect(|it| table.bytes -= size_class(it.len())).is_some()
            }
        }
    }

    /// One member, each with the same probability (SRANDMEMBER), by a random number.
    pub fn random(&self, random: u64) -> Option<Element<'_>> {
        if self.is_empty() {
            return None;
        }
        match &self.shape {
            Shape::Integers(integers) => integers.get(below(random, integers.len())).map(Element::Integer),
            Shape::Packed(packed) => packed.iter().nth(below(random, packed.len())),
            Shape::Table(table) => table.members.random(random).map(|it| Element::Bytes(it)),
        }
    }

    /// Removes and returns one member, each with the same probability (SPOP), by a random number.
    pub fn pop_random(&mut self, random: u64) -> Option<Vec<u8>> {
        let member = self.random(random)?.to_vec();
        self.remove(&member);
        Some(member)
    }

    /// Visits `count` different members (or all), each choice with the same probability.
    pub fn random_distinct(&self, count: usize, random: &mut impl FnMut() -> u64, mut visit: impl FnMut(Element<'_>)) {
        match &self.shape {
            Shape::Table(table) => {
                sampling::choose_from_table(&table.members, count, random, |it| visit(Element::Bytes(it)));
            }
            _ => sampling::choose(self.iter(), self.len(), count, random, visit),
        }
    }

    /// Visits `count` members, each drawn from all of them.
    pub fn random_repeated(&self, count: usize, random: &mut impl FnMut() -> u64, visit: impl FnMut(Element<'_>)) {
        match &self.shape {
            Shape::Packed(packed) => {
                let all: Vec<_> = packed.iter().collect();
                sampling::repeat(&all, count, random, visit);
            }
            _ => (0..count).filter_map(|_| self.random(random())).for_each(visit),
        }
    }

    /// All members: sorted if they are integers, in order of insertion while packed, otherwise in no useful order.
    pub fn iter(&self) -> Iter<'_> {
        let shape = match &self.shape {
            Shape::Integers(integers) => IterShape::Integers(integers, 0),
            Shape::Packed(packed) => IterShape::Packed(packed.iter()),
            Shape::Table(table) => IterShape::Table(Box::new(table.members.iter())),
        };
        Iter { shape }
    }

    /// Visits a part of the set in hash order, as [`Segments::scan`]; all of it unless it is a table.
    pub fn scan(&self, position: u32, count: usize, mut visit: impl FnMut(Element<'_>)) -> Option<u32> {
        match &self.shape {
            Shape::Table(table) => {
                table.members.scan(position, count, |it| table_hash(it), |it| visit(Element::Bytes(it)))
            }
            _ => {
                self.iter().for_each(visit);
                None
            }
        }
    }

    /// Makes room for a member that is no integer, of so many bytes.
    fn leave_integers(&mut self, member_bytes: usize, limits: &Limits) {
        let Shape::Integers(integers) = &self.shape else { return };
        let count = integers.len();
        let ends = [count.checked_sub(1), (count > 0).then_some(0)];
        let longest = ends.into_iter().flatten().filter_map(|index| integers.get(index));
        let longest = longest.map(|integer| Element::Integer(integer).byte_len()).max().unwrap_or(0);
        let packs = count < limits.set_max_listpack_entries
            && longest.max(member_bytes) <= limits.set_max_listpack_value
            && longest.saturating_mul(count).saturating_add(member_bytes) <= packed::PACKED_BYTES_MAX;
        if packs {
            let mut packed = Packed::new();
            for integer in integers.iter() {
                packed.insert_element(packed.end(), Element::Integer(integer));
            }
            self.shape = Shape::Packed(packed);
        } else {
            self.become_table();
        }
    }

    fn become_table(&mut self) {
        let mut table = Box::<Table>::default();
        for member in self.iter() {
            let mut digits = Digits::new();
            let member = member.bytes(&mut digits);
            table.insert_unique(table_hash(member), member);
        }
        self.shape = Shape::Table(table);
    }
}

/// Visits what is in `first` and in all of `others` (SINTER), at most `count` members.
pub fn intersection<'a>(first: &'a Set, others: &[&'a Set], count: usize, visit: impl FnMut(Element<'a>)) {
    // Each lookup may end the check of a member: walk the smallest set, ask the small ones first.
    let mut sets: SmallVec<[&Set; 8]> = others.iter().copied().chain([first]).collect();
    sets.sort_by_key(|set| set.len());
    let Some((smallest, larger)) = sets.split_first() else { return };
    // Those that are packed are the first of the larger ones: tables have more members, unless limits have changed.
    let packed = larger.iter().map_while(|set| match &set.shape {
        Shape::Packed(packed) => Some(packed),
        _ => None,
    });
    let packed: SmallVec<[&Packed<false>; 8]> = packed.collect();
    let is_in = |sets: &[&Set], member: Element<'a>| sets.iter().all(|set| set.contains_element(member));
    if packed.is_empty() || matches!(smallest.shape, Shape::Table(_)) || !Common::suits(smallest.len()) {
        return smallest.iter().filter(|member| is_in(larger, *member)).take(count).for_each(visit);
    }
    let others = &larger[packed.len()..];
    let mut members = Common::new(smallest.iter());
    for (index, set) in packed.iter().enumerate() {
        let found = members.among(set);
        let left =
            members.into_members().into_iter().zip(found).filter_map(|(member, is_found)| is_found.then_some(member));
        if index + 1 == packed.len() {
            return left.filter(|member| is_in(others, *member)).take(count).for_each(visit);
        }
        members = Common::new(left);
    }
}

/// Visits what is in `first` and in none of `others` (SDIFF).
pub fn difference<'a>(first: &'a Set, others: &[&'a Set], visit: impl FnMut(Element<'a>)) {
    // Each member asks the others one by one, unless they are many and small: these are put together first.
    const ASKED_MAX: usize = 8;
    let members = others.iter().map(|set| set.len()).fold(0, usize::saturating_add);
    let together = others.len() > ASKED_MAX && members < first.len().saturating_mul(others.len());
    let excluded = together.then(|| union(others, &Limits::default()));
    let is_excluded = |member: Element<'_>| match &excluded {
        Some(excluded) => excluded.contains_element(member),
        None => others.iter().any(|set| set.contains_element(member)),
    };
    first.iter().filter(|member| !is_excluded(*member)).for_each(visit);
}

/// All members of all sets (SUNION).
pub fn union(sets: &[&Set], limits: &Limits) -> Set {
    let mut all = Set::new();
    for set in sets {
        for member in set.iter() {
            all.add_element(member, limits);
        }
    }
    all
}

impl Table {
    #[inline]
    fn contains(&self, member: &[u8]) -> bool {
        self.members.find(table_hash(member), |it| **it == *member).is_some()
    }

    fn add(&mut self, member: &[u8]) -> bool {
        let hash = table_hash(member);
        let absent = self.members.find(hash, |it| **it == *member).is_none();
        if absent {
            self.insert_unique(hash, member);
        }
        absent
    }

    fn insert_unique(&mut self, hash: u64, member: &[u8]) {
        self.bytes += size_class(member.len());
        self.members.insert_unique(hash, member.into(), |it| table_hash(it));
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = Element<'a>;

    #[inline]
    fn next(&mut self) -> Option<Element<'a>> {
        match &mut self.shape {
            IterShape::Integers(integers, index) => {
                *index += 1;
                integers.get(*index - 1).map(Element::Integer)
            }
            IterShape::Packed(elements) => elements.next(),
            IterShape::Table(members) => members.next().map(|it| Element::Bytes(it)),
        }
    }
}

#[cfg(test)]
mod tests;
