//! Lists in the keyspace.

use crate::engine::effect::{Side, encode};
use crate::engine::event;
use crate::engine::keyspace::{Keyspace, WrongKind};
use crate::values::element::Element;
use crate::values::list::{End, List};

impl Keyspace<'_> {
    /// Pushes elements, one after the other. Returns the length of the list.
    pub fn list_push<'a>(
        &mut self,
        key: &[u8],
        side: Side,
        elements: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Result<usize, WrongKind> {
        let pushed = elements.clone();
        let length = self.edit_or_create::<List, _>(key, |list, limits| {
            pushed.for_each(|element| list.push(end(side), element, limits));
            list.len()
        })?;
        let place = self.place(key);
        let count = elements.clone().count();
        self.changed_by(count, place, key, event::list_push(side), |out| encode::list_push(out, key, side, elements));
        Ok(length)
    }

    /// Takes up to `count` elements off one end, each handed to `take`. Returns how many; `None` where there is no list.
    pub fn list_pop(
        &mut self,
        key: &[u8],
        side: Side,
        count: usize,
        mut take: impl FnMut(Element<'_>),
    ) -> Result<Option<usize>, WrongKind> {
        let popped = self.edit::<List, _>(key, |list, limits| {
            let most = count.min(list.len());
            for _ in 0..most {
                list.pop(end(side), limits, &mut take);
            }
            most
        })?;
        if let Some(count @ 1..) = popped {
            let place = self.place(key);
            self.changed_by(count, place, key, event::list_pop(side), |out| {
                encode::list_pop(out, key, side, count as u64);
            });
        }
        Ok(popped)
    }

    /// Inserts an element before the one at an index, or at the tail if the index is the length. Returns the length of the
    /// list; `None` where there is no list, or no such index.
    pub fn list_insert(&mut self, key: &[u8], index: usize, element: &[u8]) -> Result<Option<usize>, WrongKind> {
        let inserted =
            self.edit::<List, _>(key, |list, limits| list.insert(index, element, limits).then_some(list.len()))?;
        let Some(length) = inserted.flatten() else { return Ok(None) };
        let place = self.place(key);
        self.changed(place, key, event::LIST_INSERT, |out| encode::list_insert(out, key, index as u64, element));
        Ok(Some(length))
    }

    /// Puts another element at an index. False where there is no list, or no such index.
    pub fn list_set(&mut self, key: &[u8], index: usize, element: &[u8]) -> Result<bool, WrongKind> {
        let is_set = self.edit::<List, _>(key, |list, limits| list.set(index, element, limits))?;
        if is_set != Some(true) {
            return Ok(false);
        }
        let place = self.place(key);
        self.changed(place, key, event::LIST_SET, |out| encode::list_set(out, key, index as u64, element));
        Ok(true)
    }

    /// Removes the elements at these indexes of the list, which ascend.
    pub fn list_remove(&mut self, key: &[u8], indexes: &[usize]) -> Result<(), WrongKind> {
        if indexes.is_empty() {
            return Ok(());
        }
        let removed = self.edit::<List, _>(key, |list, limits| list.remove_at(indexes, limits))?;
        if let Some(count @ 1..) = removed {
            let place = self.place(key);
            self.changed_by(count, place, key, event::LIST_REMOVE, |out| {
                encode::list_remove(out, key, indexes.iter().map(|index| *index as u64));
            });
        }
        Ok(())
    }

    /// Keeps of the list what `range` makes of its length, as an index and a number of elements; the others go (LTRIM).
    pub fn list_trim(&mut self, key: &[u8], range: impl FnOnce(usize) -> (usize, usize)) -> Result<(), WrongKind> {
        let trimmed = self.edit::<List, _>(key, |list, limits| {
            let length = list.len();
            let (start, count) = match range(length) {
                (_, 0) => (length, 0),
                range => range,
            };
            list.trim(start, count, limits);
            let front = start.min(length);
            (front, length - front - list.len())
        })?;
        let Some((front, back)) = trimmed else { return Ok(()) };
        let place = self.place(key);
        let pop = |side: Side, count: usize| move |out: &mut Vec<u8>| encode::list_pop(out, key, side, count as u64);
        match (front, back) {
            (0, 0) => {
                // Redis tells those who watch the key, and those who listen, even where nothing goes.
                self.raise_watches(place, key, self.database);
                self.happened(key, event::LIST_TRIM);
            }
            (0, back) => self.changed_by(back, place, key, event::LIST_TRIM, pop(Side::Back, back)),
            (front, 0) => self.changed_by(front, place, key, event::LIST_TRIM, pop(Side::Front, front)),
            (front, back) => {
                self.publish(place, pop(Side::Back, back));
                self.changed_by(front + back, place, key, event::LIST_TRIM, pop(Side::Front, front));
            }
        }
        Ok(())
    }
}

fn end(side: Side) -> End {
    match side {
        Side::Front => End::Head,
        Side::Back => End::Tail,
    }
}
