//! Copies of slots: what is written is there too, and is what an election finds.

use super::*;
use crate::cluster::election::{Answers, electorates, promotions};
use crate::cluster::topology::Node;
use crate::engine::effect::Side;
use crate::moves::copies::messages::{CopyAnswer, CopyRequest, encode};

impl Pair {
    /// Waits until both have the same.
    async fn until_equal(&self) {
        let equal = async {
            while moving().slots().any(|slot| self.source.digest(slot) != self.target.digest(slot)) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let is_equal = tokio::time::timeout(LIMIT, equal).await.is_ok();
        let one = |slot| (slot, self.source.digest(slot), self.target.digest(slot));
        let different = moving().slots().map(one).find(|(_, source, target)| source != target);
        assert!(is_equal, "the copy does not catch up: {different:?}");
    }

    async fn elect(&self) {
        let topology = Arc::clone(&self.agreement.topology.borrow());
        let [one] = &electorates(&topology)[..] else { panic!("one election") };
        let version = topology.version;
        let mut answers = Answers::new();
        for (node, moves) in [(SOURCE, &self.links.source), (TARGET, &self.links.target)] {
            let Some((_, life)) = one.lives.iter().copied().find(|(id, _)| *id == node) else { continue };
            let (slots, epoch) = (one.slots.clone(), one.epoch);
            let asked = Blob(encode(&CopyRequest::Fence { slots, epoch, life, version }));
            let moves = moves.lock().clone().expect("started");
            let answer = moves.answer(&sender(node), &asked).await;
            let Response::Copy(Blob(bytes)) = answer else { panic!("{answer:?}") };
            let Ok(CopyAnswer::Positions(positions)) = postcard::from_bytes(&bytes) else { panic!("no positions") };
            answers.insert(node, positions);
        }
        for change in promotions(one, &answers) {
            assert_eq!(self.agreement.commit(&change).applied, Applied::Done);
        }
    }

    fn fence(&self, node: NodeId) {
        let fence = self.agreement.topology.borrow().fence_of(node, 0).expect("a member");
        self.agreement.commit(&fence);
        let incarnation = Incarnation(node.0 as u64);
        self.agreement.commit(&TopologyChange::BeginElection { slots: moving(), node, incarnation });
    }
}

/// In how many of the moving slots those who read at copies find everything, or the primary.
fn shown(engine: &Engine) -> usize {
    moving().slots().filter(|slot| engine.lock_slot(*slot, 0, 0).has_copies(&[*slot])).count()
}

/// What the slots of an engine have.
fn contents(engine: &Engine) -> Vec<Option<u64>> {
    moving().slots().map(|slot| engine.digest(slot).1).collect()
}

/// Changes of all kinds, on the keys of the moving slots.
fn change(engine: &Engine, round: usize) {
    let now_ms = clock::unix_us() / 1000;
    for (number, (key, slot)) in keys().enumerate().filter(|(number, _)| number % 7 == round % 7) {
        let mut keyspace = engine.lock_slot(slot, 0, now_ms);
        let value = format!("{round}");
        match number % 4 {
            0 => drop(keyspace.delete(key.as_bytes())),
            1 => keyspace.set_string(key.as_bytes(), value.as_bytes(), Deadline::At(now_ms + 1_000_000)),
            2 => {
                keyspace.delete(key.as_bytes());
                let elements = (0..600).map(|_| value.as_bytes());
                keyspace.list_push(key.as_bytes(), Side::Back, elements).expect("a list");
            }
            _ => {
                keyspace.delete(key.as_bytes());
                keyspace.set_add(key.as_bytes(), [value.as_bytes(), b"x"].into_iter()).expect("a set");
            }
        }
    }
}

#[tokio::test]
async fn a_copy_has_what_was_there_and_what_is_written() {
    let pair = Pair::start(|_| false).await;
    (0..3).for_each(|round| change(&pair.source, round));
    assert_eq!(shown(&pair.target), 0);
    pair.join();
    for round in 3..20 {
        change(&pair.source, round);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    pair.until_ready(TARGET).await;
    (20..40).for_each(|round| change(&pair.source, round));
    pair.until_equal().await;
    assert_eq!(shown(&pair.target), moving().len());
    assert!(contents(&pair.source).iter().all(|digest| digest.is_some_and(|digest| digest != 0)));
}

#[tokio::test]
async fn an_elected_copy_goes_on_with_the_keys_and_the_former_primary_follows_it() {
    let mut pair = Pair::start(|_| false).await;
    pair.join();
    pair.until_ready(TARGET).await;
    change(&pair.source, 1);
    pair.until_equal().await;
    let before = contents(&pair.source);
    pair.fence(SOURCE);
    pair.elect().await;
    pair.settle().await;
    assert!(contents(&pair.target) == before);
    let slot = moving().slots().next().expect("a slot");
    assert_eq!(pair.target.slot_state(slot), SlotState::Serving);
    // It is back; what it would write now nobody has.
    let raise = pair.agreement.topology.borrow().raise_of(SOURCE).expect("a member");
    pair.agreement.commit(&raise);
    change(&pair.target, 2);
    pair.until_equal().await;
    assert_eq!(pair.source.slot_state(slot), SlotState::Elsewhere);
    assert_eq!(shown(&pair.source), moving().len(), "it answers readers as the copy that it is");
}

impl Pair {
    /// Hands the moving slots over to a node, and waits until it is their primary.
    async fn hand_over(&mut self, node: NodeId) {
        let incarnation = Incarnation(node.0 as u64);
        let change = TopologyChange::HandOver { slots: moving(), node, incarnation };
        assert_eq!(self.agreement.commit(&change).applied, Applied::Done);
        let mut topologies = self.agreement.subscribe();
        let is_its = |topology: &Arc<Topology>| moving().slots().all(|slot| topology.slot(slot).primary == Some(node));
        let done = tokio::time::timeout(LIMIT, topologies.wait_for(is_its)).await;
        done.expect("it is handed over").expect("the agreement lives");
        self.settle().await;
    }
}

/// Appends to a list wherever its slot is served; who is asked while nobody serves it has to ask again.
fn append(pair: &Pair, appended: &mut u64) {
    for engine in [&pair.source, &pair.target] {
        for (key, slot) in keys().take(50) {
            let mut keyspace = engine.lock_slot(slot, 0, clock::unix_us() / 1000);
            if keyspace.slots_state(&[slot]) == SlotState::Serving {
                let number = appended.to_string();
                let list = format!("list:{{{key}}}");
                keyspace.list_push(list.as_bytes(), Side::Back, [number.as_bytes()].into_iter()).expect("a list");
                *appended += 1;
            }
        }
    }
}

#[tokio::test]
async fn roles_change_hands_and_back_while_clients_write() {
    let mut pair = Pair::start(|_| false).await;
    pair.join();
    pair.until_ready(TARGET).await;
    let mut appended = 0;
    for round in 0..6 {
        let node = if round % 2 == 0 { TARGET } else { SOURCE };
        append(&pair, &mut appended);
        pair.hand_over(node).await;
        append(&pair, &mut appended);
        let slot = moving().slots().next().expect("a slot");
        let serving = |engine: &Engine| engine.slot_state(slot) == SlotState::Serving;
        assert_eq!((serving(&pair.source), serving(&pair.target)), (node == SOURCE, node == TARGET), "round {round}");
        pair.until_equal().await;
    }
    let mut found = 0;
    for (key, slot) in keys().take(50) {
        let mut keyspace = pair.source.lock_slot(slot, 0, 0);
        let list = format!("list:{{{key}}}");
        keyspace.visit_slot(slot, |entry| {
            if entry.key() == list.as_bytes() {
                found += entry.as_value().map_or(0, |value| value.len() as u64);
            }
        });
    }
    assert_eq!(found, appended);
}

/// What only the former primary had is gone where it was not asked, and it is not kept there.
#[tokio::test]
async fn a_divergent_suffix_is_dropped() {
    let mut pair = Pair::start(|_| false).await;
    pair.join();
    pair.until_ready(TARGET).await;
    pair.until_equal().await;
    pair.fence(SOURCE);
    change(&pair.source, 1);
    pair.elect().await;
    pair.settle().await;
    let raise = pair.agreement.topology.borrow().raise_of(SOURCE).expect("a member");
    pair.agreement.commit(&raise);
    pair.until_equal().await;
}

/// A stream that breaks begins again, and a copy whose primary starts anew begins anew too.
#[tokio::test]
async fn who_is_no_copy_any_more_keeps_nothing() {
    let mut pair = Pair::start(|_| false).await;
    pair.join();
    pair.until_ready(TARGET).await;
    assert_eq!(count(&pair.target), KEYS);
    pair.leave(TARGET);
    pair.settle().await;
    assert_eq!((count(&pair.source), count(&pair.target), shown(&pair.target)), (KEYS, 0, 0));
}

#[tokio::test]
async fn what_a_copy_lacks_is_sent_no_faster_than_is_allowed() {
    let pair = Pair::start(|_| false).await;
    pair.source.move_rate.store(1, std::sync::atomic::Ordering::Relaxed);
    pair.join();
    let some = async {
        while count(&pair.target) == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(LIMIT, some).await.expect("something is sent at once");
    assert!(count(&pair.target) < KEYS / 2, "a byte in a second is allowed");
    pair.source.move_rate.store(0, std::sync::atomic::Ordering::Relaxed);
    pair.until_ready(TARGET).await;
    pair.until_equal().await;
}

impl Pair {
    /// The target ends.
    fn end_target(&mut self) {
        *self.links.target.lock() = None;
        // Nobody holds the former one's other end any more: its tasks end.
        self.lives[1] = watch::Sender::default();
    }

    /// The target begins another life, in which it finds on its disk what it had.
    fn start_target_again(&mut self) {
        let again = TopologyChange::ReturnNode { node: Node { start_ms: 2, ..node(TARGET) }, kept: SlotRanges::all() };
        let Applied::Registered(incarnation) = self.agreement.commit(&again).applied else { panic!("it is refused") };
        *self.links.target_life.lock() = incarnation;
        // In a new process readers have been shown nothing yet.
        moving().slots().for_each(|slot| self.target.hide_copy(slot));
        let held = Slot::all().map(|slot| Some(self.target.position(slot).epoch)).collect();
        let life = (TARGET, incarnation);
        let (moves, life, followed) = start(&self.agreement, &self.links, &self.target, life, held);
        *self.links.target.lock() = Some(moves);
        (self.lives[1], self.followed) = (life, followed);
    }
}

#[tokio::test]
async fn a_copy_that_starts_again_is_sent_only_slots_that_have_changed() {
    let mut pair = Pair::start(|_| false).await;
    pair.join();
    pair.until_ready(TARGET).await;
    pair.until_equal().await;
    let sent = |pair: &Pair| {
        let load = |count: &std::sync::atomic::AtomicU64| count.load(std::sync::atomic::Ordering::Relaxed);
        (load(&pair.source.compared.alike), load(&pair.source.compared.sent))
    };
    assert_eq!(sent(&pair), (0, moving().len() as u64));
    pair.end_target();
    let changed: SlotRanges = keys().map(|(_, slot)| slot).filter(|slot| slot.index() % 20 == 3).collect();
    for (key, slot) in keys().filter(|(_, slot)| changed.contains(*slot)) {
        pair.source.lock_slot(slot, 0, 0).set_string(key.as_bytes(), b"later", Deadline::Clear);
    }
    // And one that changed and is what it was: it stands elsewhere, and has the same.
    let (key, slot) = keys().find(|(_, slot)| !changed.contains(*slot)).expect("a key");
    for value in [&b"other"[..], b"v"] {
        pair.source.lock_slot(slot, 0, 0).set_string(key.as_bytes(), value, Deadline::Clear);
    }
    pair.start_target_again();
    pair.settle().await;
    assert_eq!(shown(&pair.target), 0, "nobody is shown what may be old");
    pair.join();
    pair.until_ready(TARGET).await;
    pair.until_equal().await;
    let (all, anew) = (moving().len() as u64, changed.len() as u64);
    assert_eq!(sent(&pair), (all - anew, all + anew));
    assert_eq!(shown(&pair.target), moving().len());
    // They follow each other from there.
    (0..8).for_each(|round| change(&pair.source, round));
    pair.until_equal().await;
}
