//! Which entries groups still need: those that are pending in one, and those that one has not had yet.

use super::{Edit, Group, Id, Keep, Precision, Stream};

/// Entries of a stream that are looked at together.
const CHUNK: usize = 1024;

/// What becomes of an entry that groups need, and of their notes of it, when it is to be deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum References {
    /// The entry goes, the notes stay (KEEPREF).
    #[default]
    Kept,
    /// Both go (DELREF).
    Dropped,
    /// Both stay (ACKED).
    Respected,
}

/// Where some entries are pending.
#[derive(Debug)]
pub struct Pendings {
    /// The groups that are meant by numbers.
    groups: Vec<Box<[u8]>>,
    /// In order.
    places: Vec<(Id, usize)>,
    /// Every group has had the entries up to this id.
    delivered: Id,
}

impl Pendings {
    /// The groups in which an entry is pending.
    pub fn groups(&self, id: Id) -> impl Iterator<Item = &[u8]> {
        let first = self.places.partition_point(|(other, _)| *other < id);
        let places = self.places.get(first..).unwrap_or_default().iter().take_while(move |(other, _)| *other == id);
        places.filter_map(|(_, group)| self.groups.get(*group).map(|group| &**group))
    }

    /// The edits after which an entry is pending in no group.
    pub fn acknowledge(&self, id: Id) -> impl Iterator<Item = Edit<'_>> {
        self.groups(id).map(move |group| Edit::Acknowledge { group, id })
    }

    /// Whether a group needs an entry; what is pending in the group `except` does not count.
    pub fn needs(&self, id: Id, except: Option<&[u8]>) -> bool {
        id > self.delivered || self.groups(id).any(|group| Some(group) != except)
    }
}

/// What trimming takes where entries that groups need stay.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Unneeded {
    pub ids: Vec<Id>,
    /// They are the first of the stream: nothing in front of them stays.
    pub is_front: bool,
}

impl Stream {
    /// Where these entries, which need not be there, are pending.
    pub fn pendings(&self, ids: &[Id]) -> Pendings {
        let mut sorted = ids.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let (mut groups, mut places) = (Vec::new(), Vec::new());
        for (name, group) in self.groups() {
            let (number, before) = (groups.len(), places.len());
            // Whichever are fewer are gone through.
            if group.pending_count() <= sorted.len() {
                let pending = group.pending_between(Id::MIN, Id::MAX).map(|pending| pending.id);
                places.extend(pending.filter(|id| sorted.binary_search(id).is_ok()).map(|id| (id, number)));
            } else {
                places.extend(sorted.iter().filter(|id| group.pending(**id).is_some()).map(|id| (*id, number)));
            }
            if places.len() > before {
                groups.push(name.into());
            }
        }
        places.sort_unstable();
        Pendings { groups, places, delivered: self.delivered_to_all() }
    }

    /// The last entry that every group has had; the greatest id where there are no groups.
    fn delivered_to_all(&self) -> Id {
        self.groups.values().map(|group: &Group| group.last).min().unwrap_or(Id::MAX)
    }

    /// Entries that trimming takes while groups need none of them. The length that is to be kept ends it, also where
    /// older entries stay. `None`: there is nothing to trim.
    pub fn trim_unneeded(&self, keep: Keep, precision: Precision) -> Option<Unneeded> {
        let bound = self.trim_bound(keep, precision)?;
        let through = match (precision, keep) {
            (Precision::Exact, Keep::Newest(_)) => Id::MAX,
            _ => bound,
        };
        let most = match (precision, keep) {
            (Precision::Exact, Keep::Newest(kept)) => (self.length as u64).saturating_sub(kept),
            _ => u64::MAX,
        };
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let mut unneeded = Unneeded { ids: Vec::new(), is_front: true };
        let mut entries = self.range(Id::MIN, through.min(self.delivered_to_all())).map(|entry| entry.id);
        let mut has_kept = false;
        loop {
            let chunk: Vec<Id> = entries.by_ref().take(CHUNK).collect();
            let pendings = self.pendings(&chunk);
            for id in &chunk {
                if unneeded.ids.len() == most {
                    return Some(unneeded);
                }
                if pendings.needs(*id, None) {
                    has_kept = true;
                } else {
                    unneeded.is_front &= !has_kept;
                    unneeded.ids.push(*id);
                }
            }
            if chunk.len() < CHUNK {
                return Some(unneeded);
            }
        }
    }
}

#[cfg(test)]
mod tests;
