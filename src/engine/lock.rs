//! Locked shards: one, a few, or all, always taken in the order of their numbers, so that no two holders wait for each
//! other.

use super::shard::Shard;
use parking_lot::MutexGuard;
use smallvec::SmallVec;

/// The guards of locked shards, with their numbers, ascending.
pub(super) enum Locks<'e> {
    One(usize, MutexGuard<'e, Shard>),
    Some(SmallVec<[(usize, MutexGuard<'e, Shard>); 4]>),
    All(Vec<MutexGuard<'e, Shard>>),
}

impl<'e> Locks<'e> {
    /// The shard with this number, which must be locked: a handler that touches a key which its command's key
    /// specification does not name is a bug.
    #[inline]
    pub(super) fn shard(&mut self, index: usize) -> &mut Shard {
        match self {
            Locks::One(locked, guard) if *locked == index => guard,
            Locks::One(..) => not_locked(),
            Locks::Some(guards) => match guards.binary_search_by_key(&index, |(locked, _)| *locked) {
                Ok(at) => &mut guards[at].1,
                Err(_) => not_locked(),
            },
            Locks::All(guards) => &mut guards[index],
        }
    }

    /// The numbers of the locked shards.
    pub(super) fn indexes(&self) -> impl Iterator<Item = usize> + use<> {
        let indexes: SmallVec<[usize; 4]> = match self {
            Locks::One(index, _) => SmallVec::from_slice(&[*index]),
            Locks::Some(guards) => guards.iter().map(|(index, _)| *index).collect(),
            Locks::All(guards) => (0..guards.len()).collect(),
        };
        indexes.into_iter()
    }
}

#[cold]
fn not_locked() -> ! {
    panic!("a command touched a key outside of its key specification")
}
