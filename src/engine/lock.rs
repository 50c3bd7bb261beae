//! Locked shards: one, a few, or all, always taken in the order of their numbers, so that no two holders wait for each
//! other; or each in its turn, by who looks at all keys and needs no two of them at the same moment.
//!
//! A worker serves many connections, so it waits for a busy shard only shortly: then the one connection waits, and the
//! worker goes on ([`Wait`]). Whoever needs several shards lets go of those it has got before it comes again, or
//! everybody would wait for the slowest.

use super::shard::Shard;
use crossbeam::utils::CachePadded;
use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;
use std::time::Duration;

/// How long a worker waits for a shard: longer than nearly all commands hold one, shorter than anybody notices.
const SHORTLY: Duration = Duration::from_micros(100);

/// How long to wait for shards that others hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// A moment: whoever asks has others to serve, and comes again.
    Shortly,
    UntilFree,
}

impl Wait {
    #[inline]
    pub(super) fn lock(self, shard: &Mutex<Shard>) -> Option<MutexGuard<'_, Shard>> {
        match self {
            Wait::Shortly => shard.try_lock_for(SHORTLY),
            Wait::UntilFree => Some(shard.lock()),
        }
    }
}

/// The guards of locked shards, with their numbers, ascending.
pub(super) enum Locks<'e> {
    One(usize, MutexGuard<'e, Shard>),
    Some(SmallVec<[(usize, MutexGuard<'e, Shard>); 4]>),
    All(Vec<MutexGuard<'e, Shard>>),
    /// Any of these, one at a time.
    Each {
        shards: &'e [CachePadded<Mutex<Shard>>],
        current: Option<(usize, MutexGuard<'e, Shard>)>,
    },
}

impl<'e> Locks<'e> {
    /// The shard with this number, which must be locked: a handler that touches a key which its command's key
    /// specification does not name is a bug.
    #[inline]
    pub(super) fn shard(&mut self, index: usize) -> &mut Shard {
        match self {
            Locks::One(locked, guard) if *locked == index => guard,
            Locks::One(..) => not_locked(),
            Locks::Some(guards) => find(guards, index),
            Locks::All(guards) => &mut guards[index],
            Locks::Each { shards, current } => pass_to(shards, current, index),
        }
    }

    /// The same, to read several at a time; not for who passes from one to the next.
    pub(super) fn shard_ref(&self, index: usize) -> &Shard {
        match self {
            Locks::One(locked, guard) if *locked == index => guard,
            Locks::Some(guards) => match guards.binary_search_by_key(&index, |(locked, _)| *locked) {
                Ok(at) => &guards[at].1,
                Err(_) => not_locked(),
            },
            Locks::All(guards) => &guards[index],
            Locks::One(..) | Locks::Each { .. } => not_locked(),
        }
    }

    /// Whether a shard is locked.
    pub(super) fn has(&self, index: usize) -> bool {
        match self {
            Locks::One(locked, _) => *locked == index,
            Locks::Some(guards) => guards.binary_search_by_key(&index, |(locked, _)| *locked).is_ok(),
            Locks::All(_) => true,
            Locks::Each { current, .. } => current.as_ref().is_some_and(|(locked, _)| *locked == index),
        }
    }

    /// Whether a shard is let go of when the next one is looked at.
    #[inline]
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Locks::Each { .. })
    }

    /// Whether a shard is held by somebody else for so long that whoever walks over all of them had better stop here.
    pub(super) fn is_busy(&mut self, index: usize) -> bool {
        let Locks::Each { shards, current } = self else { return false };
        if current.as_ref().is_none_or(|(locked, _)| *locked != index) {
            drop(current.take());
            *current = Wait::Shortly.lock(&shards[index]).map(|guard| (index, guard));
        }
        current.is_none()
    }

    /// The numbers of the locked shards.
    pub(super) fn indexes(&self) -> impl Iterator<Item = usize> + use<> {
        let indexes: SmallVec<[usize; 4]> = match self {
            Locks::One(index, _) => SmallVec::from_slice(&[*index]),
            Locks::Some(guards) => guards.iter().map(|(index, _)| *index).collect(),
            Locks::All(guards) => (0..guards.len()).collect(),
            Locks::Each { shards, .. } => (0..shards.len()).collect(),
        };
        indexes.into_iter()
    }
}

fn find<'s>(guards: &'s mut [(usize, MutexGuard<'_, Shard>)], index: usize) -> &'s mut Shard {
    match guards.binary_search_by_key(&index, |(locked, _)| *locked) {
        Ok(at) => &mut guards[at].1,
        Err(_) => not_locked(),
    }
}

fn pass_to<'s, 'e>(
    shards: &'e [CachePadded<Mutex<Shard>>],
    current: &'s mut Option<(usize, MutexGuard<'e, Shard>)>,
    index: usize,
) -> &'s mut Shard {
    if current.as_ref().is_none_or(|(locked, _)| *locked != index) {
        // Let go first: nobody who holds one may wait for another.
        drop(current.take());
        *current = Some((index, shards[index].lock()));
    }
    match current {
        Some((_, guard)) => guard,
        None => not_locked(),
    }
}

#[cold]
fn not_locked() -> ! {
    panic!("a command touched a key outside of its key specification")
}

#[cfg(test)]
mod tests {
    use crate::base::slot::Slot;
    use crate::engine::{Deadline, Engine, Wait};

    fn engine_with(keys: usize) -> Engine {
        let engine = Engine::new(1);
        for number in 0..keys {
            let key = format!("key {number}").into_bytes();
            engine.lock_slot(Slot::of_key(&key), 0, 1).set_string(&key, b"", Deadline::Clear);
        }
        engine
    }

    /// Who wants several shards and finds one busy lets go of the others, so that nobody waits for him.
    #[test]
    fn a_busy_shard_holds_up_only_those_who_need_it() {
        let engine = engine_with(1000);
        let last = Slot::new(127).expect("a slot of the last shard");
        let busy = engine.lock_slot(last, 0, 1);
        let first = Slot::new(0).expect("a slot of the first shard");
        assert!(engine.try_lock_all(Wait::Shortly, 0, 1).is_none());
        assert!(engine.try_lock_slots(Wait::Shortly, [first, last].into_iter(), 0, 1).is_none());
        assert!(engine.try_lock_slot(Wait::Shortly, last, 0, 1).is_none());
        assert!(engine.try_lock_slot(Wait::Shortly, first, 0, 1).is_some(), "nobody holds it");
        drop(busy);
        assert!(engine.try_lock_all(Wait::Shortly, 0, 1).is_some());
    }

    /// Keys are counted, and drawn at random, without the lock that somebody holds.
    #[test]
    fn counting_and_drawing_pass_a_busy_shard() {
        let engine = engine_with(1000);
        let busy = engine.lock_slot(Slot::new(127).expect("a slot"), 0, 1);
        let mut walk = engine.walk(0, 1);
        assert_eq!(walk.key_count(), 1000);
        assert!((0..1000).all(|_| walk.random_key().is_some_and(|key| Slot::of_key(&key).index() & 127 != 127)));
        assert!(walk.is_busy(Slot::new(127).expect("a slot")));
        drop((busy, walk));
        assert!(!engine.walk(0, 1).is_busy(Slot::new(127).expect("a slot")));
    }
}
