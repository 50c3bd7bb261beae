//! The hash: fields and values in turn in one packed sequence while small, a table of pairs when large. While fields have
//! deadlines, a list of these stands beside the sequence (`timed`); in a table they are in the pairs, and in order beside
//! it (`order`).

mod iter;
mod order;
mod pair;
mod table;
mod timed;
mod view;

pub use iter::{Iter, IterTimed};
pub use view::View;

use order::DEADLINE_MAX_MS;
use pair::Pair;
use table::Table;
use timed::{NEVER, Timed};

use super::element::Element;
use super::hashing::below;
use super::limits::Limits;
use super::packed::{Needle, Packed};
use super::sampling;

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
    Timed(Timed),
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
            Form::Timed(_) => "listpackex",
        }
    }

    /// Bytes allocated, not walked.
    #[inline]
    pub fn memory_bytes(&self) -> usize {
        match self.form() {
            Form::Packed(packed) => packed.allocation_bytes(),
            Form::Table(table) => size_of::<Large>() + table.memory_bytes(),
            Form::Timed(timed) => size_of::<Large>() + timed.memory_bytes(),
        }
    }

    /// Number of allocations, by which the cost of freeing is judged.
    pub fn allocation_count(&self) -> usize {
        match self.form() {
            Form::Packed(_) => 1,
            Form::Table(table) => table.allocation_count(),
            Form::Timed(_) => 3,
        }
    }

    /// The value of a field (HGET).
    #[inline]
    pub fn get(&self, field: &[u8]) -> Option<Element<'_>> {
        let packed = match self.form() {
            Form::Packed(packed) => packed,
            Form::Table(table) => return table.find(field).map(|pair| Element::Bytes(pair.value())),
            Form::Timed(timed) => &timed.pairs,
        };
        let offset = packed.find(0, &Needle::new(field), 2)?;
        Some(packed.get(packed.next(offset)))
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
            && is_too_large(packed, field, value, limits)
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
            FormMut::Table(table) => table.set(field, value, now_ms),
            FormMut::Timed(_) => return self.set_timed(field, value, limits, now_ms),
        };
        if stored == Stored::Added
            && let Shape::Packed(packed) = &self.shape
            && packed.len() / 2 > limits.hash_max_listpack_entries
        {
            self.become_table();
        }
        stored
    }

    /// The same for a packed hash in which fields have deadlines.
    #[cold]
    #[inline(never)]
    fn set_timed(&mut self, field: &[u8], value: &[u8], limits: &Limits, now_ms: u64) -> Stored {
        if let FormMut::Timed(timed) = self.form_mut()
            && !is_too_large(&timed.pairs, field, value, limits)
        {
            let stored = timed.set(field, value, now_ms);
            if stored == Stored::Added && timed.len() > limits.hash_max_listpack_entries {
                self.become_table();
            }
            self.drop_timed();
            return stored;
        }
        self.become_table();
        self.set_at(field, value, limits, now_ms)
    }

    /// Removes a field, and its deadline (HDEL); whether it existed.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        match self.form_mut() {
            FormMut::Packed(packed) => {
                let found = packed.find(0, &Needle::new(field), 2);
                found.inspect(|offset| packed.remove(*offset, 2)).is_some()
            }
            FormMut::Table(table) => table.remove(field),
            FormMut::Timed(timed) => {
                let is_removed = timed.remove(field);
                self.drop_timed();
                is_removed
            }
        }
    }

    /// All fields and values: in order of insertion while packed, in no useful order later.
    pub fn iter(&self) -> Iter<'_> {
        match self.form() {
            Form::Packed(packed) => Iter::packed(packed),
            Form::Table(table) => Iter::table(table),
            Form::Timed(timed) => Iter::packed(&timed.pairs),
        }
    }

    /// The same with their deadlines, in Unix milliseconds.
    pub fn iter_timed(&self) -> IterTimed<'_> {
        match self.form() {
            Form::Packed(packed) => IterTimed::packed(packed, &[]),
            Form::Table(table) => IterTimed::table(table),
            Form::Timed(timed) => IterTimed::packed(&timed.pairs, timed.deadlines()),
        }
    }

    /// Visits a part of the hash in hash order, as [`Segments::scan`](super::Segments::scan); all of it while packed.
    pub fn scan(&self, position: u32, count: usize, mut visit: impl FnMut(Element<'_>, Element<'_>)) -> Option<u32> {
        match self.form() {
            Form::Packed(_) | Form::Timed(_) => {
                self.iter().for_each(|(field, value)| visit(field, value));
                None
            }
            Form::Table(table) => table.pairs.scan(position, count, Pair::hash, |pair| {
                visit(Element::Bytes(pair.field()), Element::Bytes(pair.value()));
            }),
        }
    }

    /// The same with deadlines, in Unix milliseconds.
    pub fn scan_timed(
        &self,
        position: u32,
        count: usize,
        mut visit: impl FnMut(Element<'_>, Element<'_>, Option<u64>),
    ) -> Option<u32> {
        match self.form() {
            Form::Packed(_) | Form::Timed(_) => {
                self.iter_timed().for_each(|(field, value, deadline)| visit(field, value, deadline));
                None
            }
            Form::Table(table) => table.pairs.scan(position, count, Pair::hash, |pair| {
                visit(Element::Bytes(pair.field()), Element::Bytes(pair.value()), pair.deadline());
            }),
        }
    }

    /// One field and its value, each with the same probability (HRANDFIELD), by a random number.
    pub fn random(&self, random: u64) -> Option<(Element<'_>, Element<'_>)> {
        match self.form() {
            Form::Packed(_) if self.is_empty() => None,
            Form::Packed(_) | Form::Timed(_) => self.iter().nth(below(random, self.len())),
            Form::Table(table) => table.pairs.random(random).map(Pair::elements),
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
            Form::Packed(_) | Form::Timed(_) => {
                sampling::choose(self.iter(), self.len(), count, random, |(field, value)| {
                    visit(field, value);
                })
            }
            Form::Table(table) => sampling::choose_from_table(&table.pairs, count, random, |pair| {
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
        match self.form() {
            Form::Packed(_) | Form::Timed(_) => {
                let all: Vec<_> = self.iter().collect();
                sampling::repeat(&all, count, random, |(field, value)| visit(field, value));
            }
            Form::Table(table) => (0..count).filter_map(|_| table.pairs.random(random())).for_each(|pair| {
                visit(Element::Bytes(pair.field()), Element::Bytes(pair.value()));
            }),
        }
    }

    // ---- deadlines of fields ----

    /// The hash as it is at a moment, in Unix milliseconds: everything else here sees expired fields too.
    #[inline]
    pub fn at(&self, now_ms: u64) -> View<'_> {
        View::new(self, now_ms)
    }

    /// When a field expires, in Unix milliseconds (HPEXPIRETIME).
    #[inline]
    pub fn deadline(&self, field: &[u8]) -> Option<u64> {
        match self.form() {
            Form::Packed(_) => None,
            Form::Table(table) => table.order.as_ref().and_then(|_| table.find(field)?.deadline()),
            Form::Timed(timed) => Some(timed.deadline(field)).filter(|deadline| *deadline != NEVER),
        }
    }

    /// When the first field expires; `None`: none ever does.
    #[inline]
    pub fn first_deadline(&self) -> Option<u64> {
        match self.form() {
            Form::Packed(_) => None,
            Form::Table(table) => table.first_deadline(),
            Form::Timed(timed) => Some(timed.first()),
        }
    }

    /// Sets or clears the deadline of a field, in Unix milliseconds (HPEXPIREAT, HPERSIST): one after the year 10889
    /// becomes that. False where there is no such field.
    pub fn set_deadline(&mut self, field: &[u8], deadline: Option<u64>) -> bool {
        let deadline = deadline.map(|deadline| deadline.min(DEADLINE_MAX_MS));
        if let Shape::Packed(packed) = &mut self.shape {
            let exists = packed.find(0, &Needle::new(field), 2).is_some();
            if deadline.is_none() || !exists {
                return exists;
            }
            let pairs = std::mem::take(packed);
            self.shape = Shape::Large(Box::new(Large::Timed(Timed::new(pairs))));
        }
        let exists = match self.form_mut() {
            FormMut::Packed(_) => false,
            FormMut::Table(table) => table.set_deadline(field, deadline),
            FormMut::Timed(timed) => timed.set_deadline(field, deadline.unwrap_or(NEVER)),
        };
        if deadline.is_none() {
            self.drop_timed();
        }
        exists
    }

    /// Removes fields whose deadline has passed at this moment, the first so many of them. Gives their names.
    pub fn remove_due(&mut self, now_ms: u64, count: usize) -> Vec<Box<[u8]>> {
        match self.form_mut() {
            FormMut::Packed(_) => Vec::new(),
            FormMut::Table(table) => (0..count).map_while(|_| table.remove_first_due(now_ms)).collect(),
            FormMut::Timed(_) => {
                let timed = self.iter_timed().filter_map(|(field, _, deadline)| Some((deadline?, field)));
                let mut due: Vec<(u64, Element<'_>)> = timed.filter(|(deadline, _)| *deadline <= now_ms).collect();
                due.sort_by_key(|(deadline, _)| *deadline);
                let due: Vec<Box<[u8]>> = due.iter().take(count).map(|(_, field)| field.to_vec().into()).collect();
                for field in &due {
                    self.remove(field);
                }
                due
            }
        }
    }

    /// How many fields' deadlines have passed.
    fn due_count(&self, now_ms: u64) -> usize {
        match self.form() {
            Form::Packed(_) => 0,
            Form::Table(table) => table.order.as_ref().map_or(0, |order| order.due_count(now_ms)),
            Form::Timed(timed) => timed.deadlines().iter().filter(|deadline| **deadline <= now_ms).count(),
        }
    }

    /// A packed hash without any deadline does not pay for them.
    fn drop_timed(&mut self) {
        if let FormMut::Timed(timed) = self.form_mut()
            && timed.first() == NEVER
        {
            self.shape = Shape::Packed(std::mem::take(&mut timed.pairs));
        }
    }

    fn become_table(&mut self) {
        let mut table = Table::default();
        for (field, value, deadline) in self.iter_timed() {
            let field = field.to_vec();
            table.insert_unique(Pair::new(&field, &value.to_vec()));
            if deadline.is_some() {
                table.set_deadline(&field, deadline);
            }
        }
        self.shape = Shape::Large(Box::new(Large::Table(table)));
    }
}

/// Whether a field and its value, because of their size, keep a hash from being packed.
#[inline]
fn is_too_large(packed: &Packed<false>, field: &[u8], value: &[u8], limits: &Limits) -> bool {
    field.len().max(value.len()) > limits.hash_max_listpack_value
        || !packed.has_room(field.len().saturating_add(value.len()))
}

#[cfg(test)]
mod tests;
