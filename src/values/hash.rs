//! The hash: fields and values in turn in one packed sequence while small, a table of pairs when large; beside either, while
//! fields have deadlines, those.

mod deadlines;
mod view;

pub use view::View;

use deadlines::Deadlines;

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
    Large(Box<Large>),
}

/// What stands behind a pointer, so that a hash takes three words.
#[derive(Debug, Clone)]
enum Large {
    Table(Table),
    Timed(Box<Timed>),
}

/// A look at any shape.
enum Form<'a> {
    Packed(&'a Packed<false>),
    Table(&'a Table),
    Timed(&'a Timed),
}

/// The same, to change it.
enum FormMut<'a> {
    Packed(&'a mut Packed<false>),
    Table(&'a mut Table),
    Timed(&'a mut Timed),
}

/// A hash of which some fields have deadlines: the pairs are in one of the other shapes.
#[derive(Debug, Default, Clone)]
struct Timed {
    pairs: Hash,
    deadlines: Deadlines,
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

    #[inline]
    fn form(&self) -> Form<'_> {
        match &self.shape {
            Shape::Packed(packed) => Form::Packed(packed),
            Shape::Large(large) => match &**large {
                Large::Table(table) => Form::Table(table),
                Large::Timed(timed) => Form::Timed(timed),
            },
        }
    }

    #[inline]
    fn form_mut(&mut self) -> FormMut<'_> {
        match &mut self.shape {
            Shape::Packed(packed) => FormMut::Packed(packed),
            Shape::Large(large) => match &mut **large {
                Large::Table(table) => FormMut::Table(table),
                Large::Timed(timed) => FormMut::Timed(timed),
            },
        }
    }

    /// Number of fields (HLEN).
    #[inline]
    pub fn len(&self) -> usize {
        match self.form() {
            Form::Packed(packed) => packed.len() / 2,
            Form::Table(table) => table.pairs.len(),
            Form::Timed(timed) => timed.len(),
        }
    }

    /// Whether there is no field; such a hash does not stay in a keyspace.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Redis's name of the encoding.
    pub fn encoding(&self) -> &'static str {
        match self.form() {
            Form::Packed(_) => "listpack",
            Form::Table(_) => "hashtable",
            Form::Timed(timed) if matches!(timed.pairs.shape, Shape::Packed(_)) => "listpackex",
            Form::Timed(_) => "hashtable",
        }
    }

    /// Bytes allocated, not walked.
    #[inline]
    pub fn memory_bytes(&self) -> usize {
        match self.form() {
            Form::Packed(packed) => packed.allocation_bytes(),
            Form::Table(table) => size_of::<Large>() + table.bytes + table.pairs.allocation_bytes(),
            Form::Timed(timed) => timed.memory_bytes(),
        }
    }

    /// Number of allocations, by which the cost of freeing is judged.
    pub fn allocation_count(&self) -> usize {
        match self.form() {
            Form::Packed(_) => 1,
            Form::Table(table) => table.pairs.len(),
            Form::Timed(timed) => timed.pairs.allocation_count() + timed.deadlines.allocation_count(),
        }
    }

    /// The value of a field (HGET).
    #[inline]
    pub fn get(&self, field: &[u8]) -> Option<Element<'_>> {
        match self.form() {
            Form::Packed(packed) => {
                let offset = packed.find(0, &Needle::new(field), 2)?;
                Some(packed.get(packed.next(offset)))
            }
            Form::Table(table) => table.find(field).map(|pair| Element::Bytes(pair.value())),
            Form::Timed(timed) => timed.get(field),
        }
    }

    /// Whether a field exists (HEXISTS).
    pub fn contains(&self, field: &[u8]) -> bool {
        self.get(field).is_some()
    }

    /// Sets a field to a value (HSET); a deadline it has goes.
    pub fn set(&mut self, field: &[u8], value: &[u8], limits: &Limits) -> Stored {
        self.set_at(field, value, limits, 0)
    }

    /// The same at a moment, in Unix milliseconds: a field that has expired by then counts as added.
    pub fn set_at(&mut self, field: &[u8], value: &[u8], limits: &Limits, now_ms: u64) -> Stored {
        if let Shape::Packed(packed) = &self.shape
            && (field.len().max(value.len()) > limits.hash_max_listpack_value
                || !packed.has_room(field.len().saturating_add(value.len())))
        {
            self.become_table();
        }
        let stored = match self.form_mut() {
            FormMut::Packed(packed) => match packed.find(0, &Needle::new(field), 2) {
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
            FormMut::Table(table) => table.set(field, value),
            FormMut::Timed(timed) => {
                let stored = timed.set_at(field, value, limits, now_ms);
                self.set_deadline(field, None);
                stored
            }
        };
        if stored == Stored::Added
            && let Shape::Packed(packed) = &self.shape
            && packed.len() / 2 > limits.hash_max_listpack_entries
        {
            self.become_table();
        }
        stored
    }

    /// Removes a field, and its deadline (HDEL); whether it existed.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        match self.form_mut() {
            FormMut::Packed(packed) => {
                let found = packed.find(0, &Needle::new(field), 2);
                found.inspect(|offset| packed.remove(*offset, 2)).is_some()
            }
            FormMut::Table(table) => {
                let removed = table.pairs.remove(table_hash(field), |pair| pair.field() == field, Pair::hash);
                removed.inspect(|pair| table.bytes -= size_class(pair.0.len())).is_some()
            }
            FormMut::Timed(timed) => {
                let is_removed = timed.remove(field);
                self.set_deadline(field, None);
                is_removed
            }
        }
    }

    /// All fields and values: in order of insertion while packed, in no useful order later.
    pub fn iter(&self) -> Iter<'_> {
        let shape = match self.form() {
            Form::Packed(packed) => IterShape::Packed(packed.iter()),
            Form::Table(table) => IterShape::Table(Box::new(table.pairs.iter())),
            Form::Timed(timed) => return timed.pairs.iter(),
        };
        Iter { shape }
    }

    /// Visits a part of the hash in hash order, as [`Segments::scan`]; all of it while packed.
    pub fn scan(&self, position: u32, count: usize, mut visit: impl FnMut(Element<'_>, Element<'_>)) -> Option<u32> {
        match self.form() {
            Form::Packed(_) => {
                self.iter().for_each(|(field, value)| visit(field, value));
                None
            }
            Form::Table(table) => table.pairs.scan(position, count, Pair::hash, |pair| {
                visit(Element::Bytes(pair.field()), Element::Bytes(pair.value()));
            }),
            Form::Timed(timed) => timed.pairs.scan(position, count, visit),
        }
    }

    /// One field and its value, each with the same probability (HRANDFIELD), by a random number.
    pub fn random(&self, random: u64) -> Option<(Element<'_>, Element<'_>)> {
        match self.form() {
            Form::Packed(_) if self.is_empty() => None,
            Form::Packed(_) => self.iter().nth(below(random, self.len())),
            Form::Table(table) => table.pairs.random(random).map(Pair::elements),
            Form::Timed(timed) => timed.pairs.random(random),
        }
    }

    /// Visits `count` different fields (or all), each choice with the same probability.
    pub fn random_distinct(
        &self,
        count: usize,
        random: &mut impl FnMut() -> u64,
        mut visit: impl FnMut(Element<'_>, Element<'_>),
    ) {
        match self.form() {
            Form::Packed(_) => sampling::choose(self.iter(), self.len(), count, random, |(field, value)| {
                visit(field, value);
            }),
            Form::Table(table) => sampling::choose_from_table(&table.pairs, count, random, |pair| {
                visit(Element::Bytes(pair.field()), Element::Bytes(pair.value()));
            }),
            Form::Timed(timed) => timed.pairs.random_distinct(count, random, visit),
        }
    }

    /// Visits `count` fields, each drawn from all of them.
    pub fn random_repeated(
        &self,
        count: usize,
        random: &mut impl FnMut() -> u64,
        mut visit: impl FnMut(Element<'_>, Element<'_>),
    ) {
        match self.form() {
            Form::Packed(_) => {
                let all: Vec<_> = self.iter().collect();
                sampling::repeat(&all, count, random, |(field, value)| visit(field, value));
            }
            Form::Table(table) => (0..count).filter_map(|_| table.pairs.random(random())).for_each(|pair| {
                visit(Element::Bytes(pair.field()), Element::Bytes(pair.value()));
            }),
            Form::Timed(timed) => timed.pairs.random_repeated(count, random, visit),
        }
    }

    // ---- deadlines of fields ----

    /// The hash as it is at a moment, in Unix milliseconds: everything else here sees expired fields too.
    #[inline]
    pub fn at(&self, now_ms: u64) -> View<'_> {
        View::new(self, now_ms)
    }

    #[inline]
    fn deadlines(&self) -> Option<&Deadlines> {
        if let Form::Timed(timed) = self.form() { Some(&timed.deadlines) } else { None }
    }

    /// When a field expires, in Unix milliseconds (HPEXPIRETIME).
    #[inline]
    pub fn deadline(&self, field: &[u8]) -> Option<u64> {
        self.deadlines()?.get(field)
    }

    /// When the first field expires; `None`: none ever does.
    #[inline]
    pub fn first_deadline(&self) -> Option<u64> {
        self.deadlines()?.first()
    }

    /// Sets or clears the deadline of a field, in Unix milliseconds (HPEXPIREAT, HPERSIST). False where there is no such
    /// field.
    pub fn set_deadline(&mut self, field: &[u8], deadline: Option<u64>) -> bool {
        if deadline.is_some() && !self.contains(field) {
            return false;
        }
        if deadline.is_some() && self.deadlines().is_none() {
            let pairs = std::mem::take(self);
            self.shape =
                Shape::Large(Box::new(Large::Timed(Box::new(Timed { pairs, deadlines: Deadlines::default() }))));
        }
        if let FormMut::Timed(timed) = self.form_mut() {
            match deadline {
                Some(deadline) => timed.deadlines.set(field, deadline),
                None => drop(timed.deadlines.remove(field)),
            }
            // A hash without any does not pay for them.
            if timed.deadlines.is_empty() {
                *self = std::mem::take(&mut timed.pairs);
            }
        }
        deadline.is_some() || self.contains(field)
    }

    /// Removes fields whose deadline has passed at this moment, the first so many of them. Gives their names.
    pub fn remove_due(&mut self, now_ms: u64, count: usize) -> Vec<Box<[u8]>> {
        let Some(deadlines) = self.deadlines() else { return Vec::new() };
        let due: Vec<Box<[u8]>> = deadlines.due(now_ms).take(count).map(Box::from).collect();
        for field in &due {
            self.remove(field);
        }
        due
    }

    fn become_table(&mut self) {
        let mut table = Table::default();
        for (field, value) in self.iter() {
            let pair = Pair::new(&field.to_vec(), &value.to_vec());
            table.insert_unique(pair);
        }
        self.shape = Shape::Large(Box::new(Large::Table(table)));
    }
}

/// Calls of their own, so that they cost hashes without deadlines nothing.
impl Timed {
    #[cold]
    #[inline(never)]
    fn len(&self) -> usize {
        self.pairs.len()
    }

    #[cold]
    #[inline(never)]
    fn memory_bytes(&self) -> usize {
        size_of::<Large>() + size_of::<Self>() + self.pairs.memory_bytes() + self.deadlines.memory_bytes()
    }

    #[cold]
    #[inline(never)]
    fn get(&self, field: &[u8]) -> Option<Element<'_>> {
        self.pairs.get(field)
    }

    #[cold]
    #[inline(never)]
    fn set_at(&mut self, field: &[u8], value: &[u8], limits: &Limits, now_ms: u64) -> Stored {
        let is_past = self.deadlines.get(field).is_some_and(|deadline| deadline <= now_ms);
        let stored = self.pairs.set(field, value, limits);
        if is_past { Stored::Added } else { stored }
    }

    #[cold]
    #[inline(never)]
    fn remove(&mut self, field: &[u8]) -> bool {
        self.pairs.remove(field)
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
