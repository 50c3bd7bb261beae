//! Small courses of events, written down: each once lost keys, or moved them for nothing.

use crate::copying::CopyReply;
use crate::keeper::Keeper;
use crate::log::Log;
use crate::network::address_of;
use crate::node::{description, node_id};
use starling::base::identity::{ClusterId, Incarnation, NodeId};
use starling::base::slot::Slot;
use starling::base::slot_ranges::SlotRanges;
use starling::cluster::duties;
use starling::cluster::topology::{Applied, NodeState, Phase, Topology, TopologyChange};
use starling::moves::copies::messages::CopyRequest;

const SOURCE: usize = 0;
const TARGET: usize = 1;
/// What the source has of every slot.
const WRITES: [u64; 3] = [1, 2, 3];

fn id(number: usize) -> NodeId {
    node_id(number, 0)
}

fn incarnation(number: usize) -> Incarnation {
    Incarnation(number as u64 + 1)
}

fn moving() -> SlotRanges {
    Slot::all().take(4).collect()
}

/// A source with slots, a target they move to, and what was agreed.
struct Pair {
    log: Vec<TopologyChange>,
    source: Keeper,
    target: Keeper,
    /// The number of the target's copy.
    number: u64,
    attempt: u64,
}

impl Pair {
    /// The target is to be a copy; neither knows.
    fn new() -> Pair {
        let keeper = |number| Keeper::new(id(number), Default::default());
        let mut pair = Pair { log: Vec::new(), source: keeper(SOURCE), target: keeper(TARGET), number: 0, attempt: 0 };
        pair.agree(TopologyChange::InitCluster { cluster: ClusterId(1), hash_key: 1 });
        pair.agree(TopologyChange::RegisterNode { node: description(id(SOURCE), address_of(SOURCE), 1) });
        pair.agree(TopologyChange::RegisterNode { node: description(id(TARGET), address_of(TARGET), 1) });
        pair.agree(TopologyChange::Revive { slots: Slot::all().collect(), to: id(SOURCE) });
        pair.source_learns();
        for slot in moving().slots() {
            WRITES.into_iter().for_each(|write| pair.source.write(slot, write));
        }
        let join = TopologyChange::CopyJoin { slots: moving(), node: id(TARGET), incarnation: incarnation(TARGET) };
        pair.number = pair.agree(join);
        pair
    }

    fn agree(&mut self, change: TopologyChange) -> u64 {
        self.log.push(change);
        self.log.len() as u64
    }

    /// What is agreed.
    fn topology(&self) -> Topology {
        let mut topology = Topology::default();
        for (index, change) in (1..).zip(&self.log) {
            topology.apply(index, change);
        }
        topology
    }

    fn news(&self, keeper: &Keeper) -> Vec<(u64, TopologyChange)> {
        let known = keeper.topology.version;
        let entries = (1..).zip(self.log.iter().cloned());
        entries.filter(|(index, _)| *index > known).collect()
    }

    fn source_learns(&mut self) {
        let news = self.news(&self.source);
        self.source.learn(&news);
        self.source.follow(Some(incarnation(SOURCE)), 0);
    }

    fn target_learns(&mut self) {
        let news = self.news(&self.target);
        self.target.learn(&news);
        self.target.follow(Some(incarnation(TARGET)), 0);
    }

    /// The target asks for what it lacks, until there is nothing.
    fn pull(&mut self) {
        let (number, stream, asker) = (self.number, (id(SOURCE), self.number), (id(TARGET), incarnation(TARGET)));
        self.attempt += 1;
        let (attempt, version) = (self.attempt, self.target.topology.version);
        let held = self.target.held_of(stream);
        let mut request = CopyRequest::Begin { number, attempt, slots: moving(), held, left: Vec::new(), version };
        let mut received = 0;
        while let Ok(CopyReply::Piece(records)) = self.source.feeds.answer(&self.source.keys, asker, &request) {
            received += records.len() as u64;
            self.target.take_copy(stream, &records).expect("it follows on what is there");
            request = CopyRequest::Next { number, attempt, received, is_kept: false, version };
        }
    }

    /// What the target would propose.
    fn hand_overs(&self) -> Vec<TopologyChange> {
        self.target.copies.hand_overs(&self.target.topology, id(TARGET), incarnation(TARGET))
    }

    /// The target has everything, and the slots stand still to be handed over to it. Gives the number of that.
    fn begin_hand_over(&mut self) -> u64 {
        self.source_learns();
        self.target_learns();
        self.pull();
        let (slots, node, incarnation, number) = (moving(), id(TARGET), incarnation(TARGET), self.number);
        self.agree(TopologyChange::CopyInSync { slots: slots.clone(), node, incarnation, number });
        let begun = self.agree(TopologyChange::HandOver { slots, node, incarnation });
        self.source_learns();
        self.target_learns();
        begun
    }

    /// The same, and everything has come. Gives what the target proposes: whoever does not agree on it at once has given it up.
    fn until_hand_off(&mut self) -> (u64, TopologyChange) {
        let begun = self.begin_hand_over();
        self.pull();
        let [hand_off] = &self.hand_overs()[..] else { panic!("the hand-off is proposed") };
        (begun, hand_off.clone())
    }

    /// The slots are the target's, its log has them, and nobody else.
    fn move_over(&mut self) {
        let (begun, hand_off) = self.until_hand_off();
        let number = self.agree(hand_off);
        self.target_learns();
        self.sync();
        let from = id(SOURCE);
        self.agree(TopologyChange::Settled { slots: moving(), from, begun });
        self.agree(TopologyChange::CopyLeave { slots: moving(), node: from, number });
    }

    /// The hand-over is called off, the target is no copy any more, its source is given up, and all slots begin anew there.
    fn source_is_forgotten(&mut self, begun: u64) {
        let (node, to, number) = (id(SOURCE), id(TARGET), self.number);
        let incarnation = incarnation(SOURCE);
        self.agree(TopologyChange::AbortHandoff { slots: moving(), to, begun });
        self.agree(TopologyChange::CopyLeave { slots: moving(), node: to, number });
        let fence = self.topology().fence_of(node, 0).expect("a member");
        self.agree(fence);
        self.agree(TopologyChange::MarkDead { slots: Slot::all().collect(), node, incarnation });
        self.agree(TopologyChange::ForgetNode { node, incarnation, decided_by: u64::MAX });
        self.agree(TopologyChange::Revive { slots: Slot::all().collect(), to });
    }

    /// The target has a log from here on.
    fn with_log(mut self) -> Pair {
        self.target.log = Some(Log::default());
        self
    }

    /// The target's log keeps all it has.
    fn sync(&mut self) {
        if let Some(log) = &mut self.target.log {
            log.keep(log.end());
        }
    }

    /// The target crashes, and is there again with what its log has kept; it knows nothing yet.
    fn target_returns(&mut self) {
        let log = self.target.log.take().expect("it has a log");
        let (kept, _) = log.crash(0);
        let log = Some(Log::after(kept.clone()));
        self.target = Keeper::returned(id(TARGET), Topology::default(), kept, log);
        let description = description(id(TARGET), address_of(TARGET), 3);
        let index = self.agree(TopologyChange::ReturnNode { node: description, kept: SlotRanges::all() });
        let news = self.news(&self.target);
        self.target.learn(&news);
        let incarnation = self.target.topology.nodes[&id(TARGET)].incarnation;
        assert_eq!(self.target.topology.version, index);
        self.target.follow(Some(incarnation), 0);
    }

    /// What the target has of the slots, and whether it serves them.
    fn at_target(&self) -> Vec<(bool, Vec<u64>)> {
        moving().slots().map(|slot| (self.target.serves(slot), self.target.held(slot).to_vec())).collect()
    }

    /// The phase of the slots.
    fn phase(&self) -> Phase {
        self.topology().slot(Slot::default()).phase
    }
}

#[test]
fn a_hand_off_that_commits_after_it_was_given_up_has_everything() {
    let mut pair = Pair::new();
    let (_, late) = pair.until_hand_off();
    assert_eq!(pair.hand_overs(), vec![late.clone()], "the same is proposed until the topology shows it");
    pair.agree(late);
    pair.target_learns();
    assert_eq!(pair.at_target(), vec![(true, WRITES.to_vec()); 4]);
}

#[test]
fn a_hand_off_waits_for_what_was_written_last() {
    let mut pair = Pair::new();
    pair.begin_hand_over();
    assert_eq!(pair.hand_overs(), [], "nobody has said that nothing comes behind");
    pair.pull();
    assert_eq!(pair.hand_overs().len(), 1);
}

#[test]
fn what_an_abandoned_copy_brought_is_not_taken_for_a_slot_that_begins_anew() {
    let mut pair = Pair::new();
    let (begun, _) = pair.until_hand_off();
    // The target stands still and learns all of it at once.
    pair.source_is_forgotten(begun);
    pair.target_learns();
    assert_eq!(pair.at_target(), vec![(true, Vec::new()); 4]);
}

/// As a seed of the simulation once did.
#[test]
fn a_source_that_came_back_with_nothing_is_not_taken_for_one_that_has_sent_everything() {
    let mut pair = Pair::new();
    // It crashes and is back before anybody knows: what is agreed still means its former life.
    pair.source = Keeper::new(id(SOURCE), Default::default());
    let news = pair.news(&pair.source);
    pair.source.learn(&news);
    pair.source.follow(None, 0);
    pair.target_learns();
    pair.pull();
    let is_complete = |slot| pair.target.copies.is_complete(slot, pair.number);
    assert!(!moving().slots().any(is_complete), "nothing may be handed over");
    pair.agree(TopologyChange::RegisterNode { node: description(id(SOURCE), address_of(SOURCE), 2) });
    pair.target_learns();
    let record = pair.target.topology.slot(Slot::default());
    assert_eq!((record.primary, record.phase), (Some(id(SOURCE)), Phase::Normal));
}

#[test]
fn a_member_that_leaves_and_is_believed_dead_for_a_while_gives_its_slots_away() {
    let mut pair = Pair::new();
    let (node, incarnation) = (id(SOURCE), incarnation(SOURCE));
    pair.agree(TopologyChange::Leaving { node, incarnation });
    let mut topology = Topology::default();
    // Without the copy that the pair begins with.
    let log = pair.log.iter().filter(|change| !matches!(change, TopologyChange::CopyJoin { .. }));
    for (index, change) in (1..).zip(log) {
        topology.apply(index, change);
    }
    // It is fenced for a while, and says nothing any more.
    for is_back in [false, true] {
        let change = if is_back { topology.raise_of(node) } else { topology.fence_of(node, 0) }.expect("a member");
        assert_eq!(topology.apply(topology.version + 1, &change), Applied::Done);
    }
    let mut moved = false;
    for _ in 0..20 {
        for change in duties::leader_duties(&topology, false, &Default::default()) {
            let done = topology.apply(topology.version + 1, &change) == Applied::Done;
            moved |= done && matches!(change, TopologyChange::CopyJoin { .. });
        }
    }
    let member = &topology.nodes[&node];
    assert!(member.state == NodeState::Active && member.leaving, "{member:?}");
    assert!(moved, "its slots move");
}

#[test]
fn a_target_that_returns_has_what_its_hand_off_brought() {
    let mut pair = Pair::new().with_log();
    pair.move_over();
    pair.target_returns();
    assert_eq!(pair.at_target(), vec![(true, WRITES.to_vec()); 4]);
}

/// The former primary would have dropped the only keys that survive a crash.
#[test]
fn no_copy_leaves_before_the_log_of_the_new_primary_has_everything() {
    let mut pair = Pair::new().with_log();
    let (_, hand_off) = pair.until_hand_off();
    let number = pair.agree(hand_off);
    pair.target_learns();
    pair.agree(TopologyChange::CopyLeave { slots: moving(), node: id(SOURCE), number });
    pair.target_returns();
    assert_eq!(pair.phase(), Phase::Electing, "the former primary is asked");
    assert!(pair.at_target().iter().all(|(serves, _)| !serves));
}

/// It was started without its log in between: what happened to its slots then is lost, and so is what was before.
#[test]
fn what_a_log_has_of_an_epoch_before_is_not_taken_for_the_slots() {
    let mut pair = Pair::new().with_log();
    pair.move_over();
    pair.agree(TopologyChange::RegisterNode { node: description(id(TARGET), address_of(TARGET), 2) });
    pair.target_returns();
    assert_eq!(pair.at_target(), vec![(true, Vec::new()); 4]);
}

#[test]
fn what_an_abandoned_copy_left_in_a_log_is_not_taken_for_a_slot_that_begins_anew() {
    let mut pair = Pair::new().with_log();
    let (begun, _) = pair.until_hand_off();
    pair.sync();
    pair.source_is_forgotten(begun);
    pair.target_returns();
    assert_eq!(pair.at_target(), vec![(true, Vec::new()); 4]);
}

#[test]
fn a_hand_off_that_is_agreed_after_its_source_has_returned_does_nothing() {
    let mut pair = Pair::new().with_log();
    let (_, late) = pair.until_hand_off();
    pair.agree(TopologyChange::ReturnNode {
        node: description(id(SOURCE), address_of(SOURCE), 2),
        kept: SlotRanges::all(),
    });
    assert_eq!(pair.phase(), Phase::Electing, "what the target has may be newer");
    pair.agree(late);
    pair.target_learns();
    assert_eq!(pair.phase(), Phase::Electing);
    assert!(pair.at_target().iter().all(|(serves, has)| !serves && *has == WRITES), "it is asked");
}

/// As a seed of the simulation did: whoever is asked first may lag behind what the former life knew.
#[test]
fn a_node_that_returns_drops_nothing_by_a_topology_that_is_older_than_its_keys() {
    // Whether it has heard meanwhile that it is registered.
    for incarnation in [None, Some(Incarnation(3))] {
        let mut pair = Pair::new().with_log();
        pair.move_over();
        let (kept, _) = pair.target.log.take().expect("it has a log").crash(0);
        pair.target = Keeper::returned(id(TARGET), Topology::default(), kept, Some(Log::default()));
        let older = pair.news(&pair.target)[..pair.number as usize].to_vec();
        pair.target.learn(&older);
        pair.target.follow(incarnation, 0);
        pair.agree(TopologyChange::ReturnNode {
            node: description(id(TARGET), address_of(TARGET), 2),
            kept: SlotRanges::all(),
        });
        let news = pair.news(&pair.target);
        pair.target.learn(&news);
        pair.target.follow(Some(Incarnation(3)), 0);
        assert_eq!(pair.at_target(), vec![(true, WRITES.to_vec()); 4], "{incarnation:?}");
    }
}
