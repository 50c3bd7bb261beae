//! Consumer groups: what was delivered to whom, and not acknowledged.

use super::id::Id;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// What an entry that is pending takes in its three trees, about.
const PENDING_BYTES: usize = 136;
/// What a consumer takes beside its name, which is held twice.
const CONSUMER_BYTES: usize = 160;
/// What a group takes beside its name.
pub(super) const GROUP_BYTES: usize = 224;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// The last id that was delivered.
    pub last: Id,
    /// Entries that were read, up to `last`; `None` where that is not known.
    pub read: Option<u64>,
    pending: BTreeMap<Id, Delivery>,
    /// The same by the time of delivery, so that who asks for what has been idle for long need not go through all.
    by_time: BTreeSet<(u64, Id)>,
    /// By their names; the numbers are places in `consumers`.
    numbers: BTreeMap<Box<[u8]>, u32>,
    consumers: Vec<Option<Consumer>>,
    free: Vec<u32>,
    name_bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct Delivery {
    consumer: u32,
    delivered: u64,
    count: u64,
}

/// A consumer of a group.
#[derive(Clone, Debug)]
pub struct Consumer {
    pub name: Box<[u8]>,
    /// When it last asked for something, in Unix milliseconds.
    pub seen: u64,
    /// When it last got something; `None`: never.
    pub active: Option<u64>,
    pending: BTreeSet<Id>,
}

/// An entry that is pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending<'a> {
    pub id: Id,
    pub consumer: &'a [u8],
    /// Unix milliseconds.
    pub delivered: u64,
    /// How often it was delivered.
    pub count: u64,
}

impl Consumer {
    /// How many entries are pending for it.
    pub fn pending_count(&self) -> usize {
        self.pending.len()
    }
}

impl Group {
    /// How many entries are pending.
    pub fn pending_count(&self) -> usize {
        self.pending.len()
    }

    /// The least id that is pending.
    pub fn first_pending(&self) -> Option<Id> {
        self.pending.first_key_value().map(|(id, _)| *id)
    }

    /// The greatest one.
    pub fn last_pending(&self) -> Option<Id> {
        self.pending.last_key_value().map(|(id, _)| *id)
    }

    pub fn consumer_count(&self) -> usize {
        self.numbers.len()
    }

    /// In the order of their names.
    pub fn consumers(&self) -> impl Iterator<Item = &Consumer> {
        self.numbers.values().filter_map(|number| self.at(*number))
    }

    /// Those with this name and the ones behind it.
    pub(super) fn consumers_from(&self, name: &[u8]) -> impl Iterator<Item = &Consumer> {
        let range = (Bound::Included(name), Bound::Unbounded);
        self.numbers.range::<[u8], _>(range).filter_map(|(_, number)| self.at(*number))
    }

    pub fn consumer(&self, name: &[u8]) -> Option<&Consumer> {
        self.at(*self.numbers.get(name)?)
    }

    fn at(&self, number: u32) -> Option<&Consumer> {
        self.consumers.get(number as usize)?.as_ref()
    }

    fn at_mut(&mut self, number: u32) -> Option<&mut Consumer> {
        self.consumers.get_mut(number as usize)?.as_mut()
    }

    /// The pending entry with this id.
    pub fn pending(&self, id: Id) -> Option<Pending<'_>> {
        self.show(id, self.pending.get(&id)?)
    }

    /// What is pending between two ids, both included, in order.
    pub fn pending_between(&self, first: Id, last: Id) -> impl Iterator<Item = Pending<'_>> {
        let most = if first <= last { usize::MAX } else { 0 };
        // A range that ends before it begins is a mistake to a tree.
        let range = self.pending.range(first..=last.max(first)).take(most);
        range.filter_map(|(id, delivery)| self.show(*id, delivery))
    }

    /// What was delivered up to this time (Unix milliseconds), what has waited longest in front.
    pub fn pending_until(&self, delivered: u64) -> impl Iterator<Item = Pending<'_>> {
        self.by_time.range(..=(delivered, Id::MAX)).filter_map(|(_, id)| self.pending(*id))
    }

    /// When the first of those that were delivered after this time was delivered.
    pub fn next_delivery(&self, after: u64) -> Option<u64> {
        let behind = (Bound::Excluded((after, Id::MAX)), Bound::Unbounded);
        self.by_time.range(behind).next().map(|(delivered, _)| *delivered)
    }

    /// What is pending for one consumer between two ids.
    pub fn pending_of<'a>(&'a self, name: &[u8], first: Id, last: Id) -> impl Iterator<Item = Pending<'a>> {
        let consumer = self.consumer(name).filter(|_| first <= last);
        let ids = consumer.into_iter().flat_map(move |consumer| consumer.pending.range(first..=last.max(first)));
        ids.filter_map(|id| self.pending(*id))
    }

    fn show(&self, id: Id, delivery: &Delivery) -> Option<Pending<'_>> {
        let consumer = &*self.at(delivery.consumer)?.name;
        Some(Pending { id, consumer, delivered: delivery.delivered, count: delivery.count })
    }

    /// The consumer's number; one that is not there is made, seen at this time.
    fn number(&mut self, name: &[u8], seen: u64) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let consumer = Consumer { name: name.into(), seen, active: None, pending: BTreeSet::new() };
        let number = self.free.pop().unwrap_or_else(|| {
            self.consumers.push(None);
            self.consumers.len() as u32 - 1
        });
        if let Some(place) = self.consumers.get_mut(number as usize) {
            *place = Some(consumer);
        }
        self.numbers.insert(name.into(), number);
        self.name_bytes += 2 * name.len();
        number
    }

    pub(super) fn put_consumer(&mut self, name: &[u8], seen: u64, active: Option<u64>) {
        let number = self.number(name, seen);
        if let Some(consumer) = self.at_mut(number) {
            (consumer.seen, consumer.active) = (seen, active);
        }
    }

    /// False where there is none.
    pub(super) fn drop_consumer(&mut self, name: &[u8]) -> bool {
        let Some(number) = self.numbers.remove(name) else { return false };
        if let Some(consumer) = self.consumers.get_mut(number as usize).and_then(Option::take) {
            for id in &consumer.pending {
                if let Some(delivery) = self.pending.remove(id) {
                    self.by_time.remove(&(delivery.delivered, *id));
                }
            }
        }
        self.free.push(number);
        self.name_bytes -= 2 * name.len();
        true
    }

    pub(super) fn put_pending(&mut self, name: &[u8], id: Id, delivered: u64, count: u64) {
        let consumer = self.number(name, delivered);
        let before = self.pending.insert(id, Delivery { consumer, delivered, count });
        if let Some(before) = before {
            self.by_time.remove(&(before.delivered, id));
        }
        self.by_time.insert((delivered, id));
        if let Some(before) = before.filter(|before| before.consumer != consumer)
            && let Some(owner) = self.at_mut(before.consumer)
        {
            owner.pending.remove(&id);
        }
        if let Some(owner) = self.at_mut(consumer) {
            owner.pending.insert(id);
        }
    }

    /// False where it was not pending.
    pub(super) fn acknowledge(&mut self, id: Id) -> bool {
        let Some(delivery) = self.pending.remove(&id) else { return false };
        self.by_time.remove(&(delivery.delivered, id));
        if let Some(owner) = self.at_mut(delivery.consumer) {
            owner.pending.remove(&id);
        }
        true
    }

    /// How many things are in it.
    pub(super) fn element_count(&self) -> usize {
        1 + self.numbers.len() + self.pending.len()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        GROUP_BYTES + self.name_bytes + self.consumers.capacity() * CONSUMER_BYTES + self.pending.len() * PENDING_BYTES
    }
}
