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
}

fn end(side: Side) -> End {
    match side {
        Side::Front => End::Head,
        Side::Back => End::Tail,
    }
}
