//! The hash: fields and values in turn in one packed sequence while small, a table of pairs when large.

use super::element::Element;
use super::hashing::{below, table_hash};
use super::limits::Limits;
use super::packed::{self, Needle, Packed, size_class};
use super::sampling;
use super::segments::Segments;

/// Field lengths from here on take four bytes, marked by the top bit of the first.
const FIELD_LONG: usize = 0x80;

/// A Redis hash.
#[derive(Debug, Default, Clone)]
pub struct Hash {
    shape: Shape,
}

#[derive(Debug, Clone)]
enum Shape {
    Packed(Packed<false>),
    Table(Box<Table>),
}

#[derive(Debug, Default, Clone)]
struct Table {
    pairs: Segments<Pair>,
    /// Allocations of all pairs.
    bytes: usize,
}

/// A field and its value in one allocation: length of the field, field, value.
#[derive(Clone)]
struct Pair(Box<[u8]>);

/// Fields and values of a hash.
pub struct Iter<'a> {
    shape: IterShape<'a>,
}

enum IterShape<'a> {
    Packed(packed::Iter<'a, false>),
    Table(Box<dyn Iterator<Item = &'a Pair> + 'a>),
}

/// What `Hash::set` did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// The field did not exist.
    Added,
    /// The field had a value, which was replaced.
    Replaced,
}

impl Default for Shape {
    fn default() -> Self {
        Self::Packed(Packed::new())
    }
}

impl Hash {
    /// An empty hash, which owns no memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of fields (HLEN).
    #[inline]
    pub fn len(&self) -> usize {
        match &self.shape {
            Shape::Packed(packed) => packed.len() / 2,
            Shape::Table(table) => table.pairs.len(),
        }
    }

    /// Whether there is no field; such a hash does not stay in a keyspace.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Redis's name of the encoding.
    pub fn encoding(&self) -> &'static str {
        match &self.shape {
            Shape::Packed(_) => "listpack",
            Shape::Table(_) => "hashtable",
        }
    }

    /// Bytes allocated, not walked.
    pub fn memory_bytes(&self) -> usize {
        match &self.shape {
            Shape::Packed(packed) => packed.allocation_bytes(),
            Shape::Table(table) => size_of::<Table>() + table.bytes + table.pairs.allocation_bytes(),
        }
    }

    /// Number of allocations, by which the cost of freeing is judged.
    pub fn allocation_count(&self) -> usize {
        match &self.shape {
            Shape::Packed(_) => 1,
            Shape::Table(table) => table.pairs.len(),
        }
    }

    /// The value of a field (HGET).
    #[inline]
    pub fn get(&self, field: &[u8]) -> Option<Element<'_>> {
        match &self.shape {
            Shape::Packed(packed) => {
                let offset = packed.find(0, &Needle::new(field), 2)?;
                Some(packed.get(packed.next(offset)))
            }
            Shape::Table(table) => table.find(field).map(|pair| Element::Bytes(pair.value())),
        }
    }

    /// Whether a field exists (HEXISTS).
    pub fn contains(&self, field: &[u8]) -> bool {
        self.get(field).is_some()
    }

    /// Sets a field to a value (HSET).
    pub fn set(&mut self, field: &[u8], value: &[u8], limits: &Limits) -> Stored {
        if let Shape::Packed(packed) = &self.shape
            && (field.len().max(value.len()) > limits.hash_max_listpack_value
                || !packed.has_room(field.len().saturating_add(value.len())))
        {
            self.become_table();
        }
        let stored = match &mut self.shape {
            Shape::Packed(packed) => match packed.find(0, &Needle::new(field), 2) {
                Some(offset) => {
                    packed.replace(packed.next(offset), value);
                    Stored::Replaced
                }
                None => {
                    packed.push(field);
                    packed.push(value);
                    Stored::Added
                }
            },
            Shape::Table(table) => table.set(field, value),
        };
        if stored == Stored::Added
            && let Shape::Packed(packed) = &self.shape
            && packed.len() / 2 > limits.hash_max_listpack_entries
        {
            self.become_table();
        }
        stored
    }

    /// Removes a field (HDEL); whether it existed.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        match &mut self.shape {
            Shape::Packed(packed) => {
                let found = packed.find(0, &Needle::new(field), 2);
                found.inspect(|offset| packed.remove(*offset, 2)).is_some()
            }
            Shape::Table(table) => {
                let removed = table.pairs.remove(table_hash(field), |pair| pair.field() == field, Pair::hash);
                removed.inspect(|pair| table.bytes -= size_class(pair.0.len())).is_some()
            }
        }
    }

    /// All fields and values: in order of insertion while packed, in no useful order later.
    pub fn iter(&self) -> Iter<'_> {
        let shape = match &self.shape {
            Shape::Packed(packed) => IterShape::Packed(packed.iter()),
            Shape::Table(table) => IterShape::Table(Box::new(table.pairs.iter())),
        };
        Iter { shape }
    }

    /// Visits a part of the hash in hash order, as [`Segments::scan`]; all of it while packed.
    pub fn scan(&self, position: u32, count: usize, mut visit: impl FnMut(Element<'_>, Element<'_>)) -> Option<u32> {
        match &self.shape {
            Shape::Packed(_) => {
                self.iter().for_each(|(field, value)| visit(field, value));
                None
            }
            Shape::Table(table) => table.pairs.scan(position, count, Pair::hash, |pair| {
                visit(Element::Bytes(pair.field()), Element::Bytes(pair.value()));
            }),
        }
    }

    /// One field and its value, each with the same probability (HRANDFIELD), by a random number.
    pub fn random(&self, random: u64) -> Option<(Element<'_>, Element<'_>)> {
        match &self.shape {
            Shape::Packed(_) if self.is_empty() => None,
            Shape::Packed(_) => self.iter().nth(below(random, self.len())),
            Shape::Table(table) => table.pairs.random(random).map(Pair::elements),
        }
    }

    /// Visits `count` different fields (or all), each choice with the same probability.
    pub fn random_distinct(
        &self,
        count: usize,
        random: &mut impl FnMut() -> u64,
        mut visit: impl FnMut(Element<'_>, Element<'_>),
    ) {
        match &self.shape {
            Shape::Packed(_) => sampling::choose(self.iter(), self.len(), count, random, |(field, value)| {
                visit(field, value);
            }),
            Shape::Table(table) => sampling::choose_from_table(&table.pairs, count, random, |pair| {
                visit(Element::Bytes(pair.field()), Element::Bytes(pair.value()));
            }),
        }
    }

    /// Visits `count` fields, each drawn from all of them.
    pub fn random_repeated(
        &self,
        count: usize,
        random: &mut impl FnMut() -> u64,
        mut visit: impl FnMut(Element<'_>, Element<'_>),
    ) {
        match &self.shape {
            Shape::Packed(_) => {
                let all: Vec<_> = self.iter().collect();
                sampling::repeat(&all, count, random, |(field, value)| visit(field, value));
            }
            Shape::Table(table) => (0..count).filter_map(|_| table.pairs.random(random())).for_each(|pair| {
                visit(Element::Bytes(pair.field()), Element::Bytes(pair.value()));
            }),
        }
    }

    fn become_table(&mut self) {
        let mut table = Box::<Table>::default();
        for (field, value) in self.iter() {
            let pair = Pair::new(&field.to_vec(), &value.to_vec());
            table.insert_unique(pair);
        }
        self.shape = Shape::Table(table);
    }
}

impl Table {
    #[inline]
    fn find(&self, field: &[u8]) -> Option<&Pair> {
        self.pairs.find(table_hash(field), |pair| pair.field() == field)
    }

    fn set(&mut self, field: &[u8], value: &[u8]) -> Stored {
        if let Some(pair) = self.pairs.find_mut(table_hash(field), |pair| pair.field() == field) {
            let old = pair.value_mut();
            if old.len() == value.len() {
                old.copy_from_slice(value);
            } else {
                self.bytes -= size_class(pair.0.len());
                *pair = Pair::new(field, value);
                self.bytes += size_class(pair.0.len());
            }
            return Stored::Replaced;
        }
        self.insert_unique(Pair::new(field, value));
        Stored::Added
    }

    fn insert_unique(&mut self, pair: Pair) {
        self.bytes += size_class(pair.0.len());
        self.pairs.insert_unique(pair.hash(), pair, Pair::hash);
    }
}

impl Pair {
    fn new(field: &[u8], value: &[u8]) -> Self {
        let long = field.len() >= FIELD_LONG;
        let mut bytes = Vec::with_capacity(if long { 4 } else { 1 } + field.len() + value.len());
        if long {
            bytes.extend_from_slice(&(field.len() as u32 | 0x8000_0000).to_be_bytes());
        } else {
            bytes.push(field.len() as u8);
        }
        bytes.extend_from_slice(field);
        bytes.extend_from_slice(value);
        Self(bytes.into_boxed_slice())
    }

    /// Where the field begins and where it ends.
    #[inline]
    fn bounds(&self) -> (usize, usize) {
        match self.0.as_ref() {
            [first, ..] if usize::from(*first) < FIELD_LONG => (1, 1 + usize::from(*first)),
            [a, b, c, d, ..] => (4, 4 + (u32::from_be_bytes([*a, *b, *c, *d]) & 0x7fff_ffff) as usize),
            _ => (0, 0),
        }
    }

    #[inline]
    fn field(&self) -> &[u8] {
        let (start, end) = self.bounds();
        &self.0[start..end]
    }

    #[inline]
    fn value(&self) -> &[u8] {
        &self.0[self.bounds().1..]
    }

    fn value_mut(&mut self) -> &mut [u8] {
        let (_, end) = self.bounds();
        &mut self.0[end..]
    }

    fn elements(&self) -> (Element<'_>, Element<'_>) {
        (Element::Bytes(self.field()), Element::Bytes(self.value()))
    }

    fn hash(&self) -> u64 {
        table_hash(self.field())
    }
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}={}", self.field().escape_ascii(), self.value().escape_ascii())
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = (Element<'a>, Element<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.shape {
            IterShape::Packed(elements) => Some((elements.next()?, elements.next()?)),
            IterShape::Table(pairs) => pairs.next().map(Pair::elements),
        }
    }
}

#[cfg(test)]
mod tests;
