//! Small courses of events, written down: each once lost keys, or moved them for nothing.

use crate::keeper::{Keeper, Question, Reply};
use crate::log::Log;
use crate::network::address_of;
use crate::node::{description, node_id};
use starling::base::identity::{ClusterId, Incarnation, NodeId};
use starling::base::slot::Slot;
use starling::base::slot_ranges::SlotRanges;
use starling::cluster::duties;
use starling::cluster::topology::{Applied, NodeState, Phase, Topology, TopologyChange};
use starling::moves::coming::{Action, Event, Outcome, PullFailure, Step};

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
    begun: u64,
    now_us: u64,
    /// Steps that were proposed, given up, and may be committed yet.
    given_up: Vec<TopologyChange>,
    /// These are given up.
    withheld: Option<Step>,
    /// Nothing reaches the source.
    is_cut: bool,
    /// A sync of the target's log does not end.
    is_disk_slow: bool,
}

impl Pair {
    /// The move has begun; neither knows.
    fn new() -> Pair {
        let keeper = |number| Keeper::new(id(number), Default::default());
        let mut pair = Pair {
            log: Vec::new(),
            source: keeper(SOURCE),
            target: keeper(TARGET),
            begun: 0,
            now_us: 0,
            given_up: Vec::new(),
            withheld: None,
            is_cut: false,
            is_disk_slow: false,
        };
        pair.agree(TopologyChange::InitCluster { cluster: ClusterId(1), hash_key: 1 });
        pair.agree(TopologyChange::RegisterNode { node: description(id(SOURCE), address_of(SOURCE), 1) });
        pair.agree(TopologyChange::RegisterNode { node: description(id(TARGET), address_of(TARGET), 1) });
        pair.agree(TopologyChange::Revive { slots: Slot::all().collect(), to: id(SOURCE) });
        pair.source_learns();
        for slot in moving().slots() {
            WRITES.into_iter().for_each(|write| pair.source.write(slot, write));
        }
        let (from, to) = (id(SOURCE), id(TARGET));
        let decided_by = pair.log.len() as u64;
        pair.begun = pair.agree(TopologyChange::CopyAdd { slots: moving(), from, to, decided_by });
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
        if let Some(target) = self.target.coming.get(&self.begun) {
            let topology = &self.target.topology;
            let stage = duties::stage_of(topology, &target.one);
            self.drive(Event::Learned { version: topology.version, stage });
        }
    }

    /// Time passes, in the target.
    fn wait(&mut self) {
        for _ in 0..50 {
            self.now_us += 1_000_000;
            self.drive(Event::Tick);
        }
    }

    fn drive(&mut self, event: Event) {
        let mut events = vec![event];
        // A tick is one look at the clock: what follows from its answers is done, but time does not pass.
        while let Some(event) = events.pop() {
            // It looks for what it has brought about.
            let has_begun = matches!(event, Event::Proposed(Step::BeginHandoff, Outcome::Done { .. }));
            let Some(target) = self.target.coming.get_mut(&self.begun) else { return };
            for action in target.core.on(event, self.now_us) {
                events.extend(self.perform(action));
            }
            if has_begun {
                let news = self.news(&self.target);
                self.target.learn(&news);
                self.target.follow(Some(incarnation(TARGET)), 0);
                events.extend(self.target.coming.get(&self.begun).map(|target| {
                    let topology = &self.target.topology;
                    Event::Learned { version: topology.version, stage: duties::stage_of(topology, &target.one) }
                }));
            }
        }
    }

    fn perform(&mut self, action: Action) -> Option<Event> {
        let begun = self.begun;
        let target = self.target.coming.get_mut(&begun)?;
        match action {
            Action::Clear => {
                target.received = 0;
                self.target.clear(&moving());
                None
            }
            Action::Ask { .. } if self.is_cut => Some(Event::PullFailed(PullFailure::Lost)),
            Action::Ask { is_begin, attempt, version } => {
                let (slots, received) = (moving(), target.received);
                let question = match is_begin {
                    true => Question::Begin { begun, attempt, slots, version },
                    false => Question::Next { begun, attempt, received, version },
                };
                Some(match self.source.answer(id(TARGET), &question)? {
                    Reply::NotYet => Event::PullFailed(PullFailure::NotYet),
                    Reply::Again => Event::PullFailed(PullFailure::Broken),
                    Reply::Piece { records, is_copied, is_stopped } => {
                        target.received += records.len() as u64;
                        self.target.apply(&records);
                        Event::Piece { is_empty: records.is_empty(), is_copied, is_stopped }
                    }
                })
            }
            Action::Complete => {
                let end = self.target.complete(begun);
                if self.is_disk_slow {
                    return None;
                }
                if let Some(log) = &mut self.target.log {
                    log.keep(end);
                }
                Some(Event::Kept)
            }
            Action::Propose(step) => {
                let (slots, to, incarnation) = (moving(), id(TARGET), incarnation(TARGET));
                let change = match step {
                    Step::CopyReady => TopologyChange::CopyReady { slots, to, incarnation, begun },
                    Step::BeginHandoff => TopologyChange::BeginHandoff { slots, to, begun },
                    Step::Handoff => TopologyChange::Handoff { slots, to, incarnation, begun },
                };
                let outcome = if self.withheld == Some(step) {
                    self.given_up.push(change);
                    Outcome::Unknown
                } else {
                    let version = self.agree(change);
                    self.source_learns();
                    Outcome::Done { version }
                };
                Some(Event::Proposed(step, outcome))
            }
            Action::Tell { .. } => {
                self.source_learns();
                None
            }
            Action::End => {
                self.target.coming.remove(&begun);
                None
            }
        }
    }

    /// Everything has come, and Handoff was proposed and given up.
    fn until_hand_off_is_unknown(mut self) -> Pair {
        self.run_to_hand_off();
        assert!(!self.given_up.is_empty(), "the hand-off was proposed");
        self
    }

    /// Until Handoff is proposed, which is given up, or for long.
    fn run_to_hand_off(&mut self) {
        self.withheld = Some(Step::Handoff);
        self.source_learns();
        self.target_learns();
        for _ in 0..50 {
            if self.given_up.is_empty() {
                self.now_us += 1_000_000;
                self.drive(Event::Tick);
            }
        }
    }

    /// The hand-off is called off, its source is given up, and all slots begin anew on the target.
    fn source_is_forgotten(&mut self) {
        let (node, to, begun) = (id(SOURCE), id(TARGET), self.begun);
        let incarnation = incarnation(SOURCE);
        self.agree(TopologyChange::AbortHandoff { slots: moving(), to, begun });
        let fence = self.topology().fence_of(node).expect("a member");
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

    /// The target crashes, and is there again with what its log has kept; it knows nothing yet.
    fn target_returns(&mut self) {
        let log = self.target.log.take().expect("it has a log");
        let (kept, _) = log.crash(0);
        let log = Some(Log::after(kept.clone()));
        self.target = Keeper::returned(id(TARGET), Topology::default(), kept, log);
        let description = description(id(TARGET), address_of(TARGET), 3);
        let index = self.agree(TopologyChange::ReturnNode { node: description });
        let news = self.news(&self.target);
        self.target.learn(&news);
        let incarnation = self.target.topology.nodes[&id(TARGET)].incarnation;
        assert_eq!(self.target.topology.version, index);
        self.target.follow(Some(incarnation), 0);
    }

    /// What the target has of the slots, and whether it serves them.
    fn at_target(&mut self) -> Vec<(bool, Vec<u64>)> {
        let slots: Vec<Slot> = moving().slots().collect();
        slots.into_iter().map(|slot| (self.target.serves(slot), self.target.held(slot).to_vec())).collect()
    }
}

#[test]
fn a_hand_off_that_commits_after_it_was_given_up_has_everything() {
    let mut pair = Pair::new().until_hand_off_is_unknown();
    // Nobody answers the target meanwhile, so that it could not copy once more.
    pair.is_cut = true;
    pair.wait();
    let late = pair.given_up[0].clone();
    pair.agree(late);
    pair.target_learns();
    assert_eq!(pair.at_target(), vec![(true, WRITES.to_vec()); 4]);
}

#[test]
fn what_an_abandoned_move_brought_is_not_taken_for_a_slot_that_begins_anew() {
    let mut pair = Pair::new().until_hand_off_is_unknown();
    // The target stands still and learns all of it at once.
    pair.source_is_forgotten();
    pair.target_learns();
    assert_eq!(pair.at_target(), vec![(true, Vec::new()); 4]);
}

#[test]
fn a_copy_add_that_is_agreed_late_moves_nothing() {
    let mut pair = Pair::new();
    let first = pair.log[pair.begun as usize - 1].clone();
    // The move is done, and its slots go back: then what began it is agreed once more.
    pair.source_learns();
    pair.target_learns();
    pair.wait();
    pair.target_learns();
    assert_eq!(pair.target.topology.owned_by(id(TARGET)), moving());
    pair.agree(TopologyChange::CopyRemove { slots: moving(), node: id(SOURCE), begun: pair.begun });
    let (from, to, incarnation) = (id(TARGET), id(SOURCE), incarnation(SOURCE));
    let decided_by = pair.log.len() as u64;
    let begun = pair.agree(TopologyChange::CopyAdd { slots: moving(), from, to, decided_by });
    pair.agree(TopologyChange::CopyReady { slots: moving(), to, incarnation, begun });
    pair.agree(TopologyChange::BeginHandoff { slots: moving(), to, begun });
    pair.agree(TopologyChange::Handoff { slots: moving(), to, incarnation, begun });
    pair.agree(TopologyChange::CopyRemove { slots: moving(), node: from, begun });
    pair.agree(first);
    pair.source_learns();
    pair.target_learns();
    let topology = &pair.target.topology;
    assert_eq!(topology.owned_by(id(TARGET)), SlotRanges::default());
    assert_eq!(duties::moves(topology), []);
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
    pair.wait();
    assert!(pair.given_up.is_empty() && pair.at_target().iter().all(|(serves, _)| !serves), "nothing was handed over");
    pair.agree(TopologyChange::RegisterNode { node: description(id(SOURCE), address_of(SOURCE), 2) });
    pair.target_learns();
    let slots: Vec<Slot> = moving().slots().collect();
    let record = pair.target.topology.slot(slots[0]);
    assert_eq!((record.primary, record.phase), (Some(id(SOURCE)), Phase::Normal));
}

#[test]
fn a_member_that_leaves_and_is_believed_dead_for_a_while_gives_its_slots_away() {
    let mut pair = Pair::new();
    let (node, incarnation) = (id(SOURCE), incarnation(SOURCE));
    pair.agree(TopologyChange::Leaving { node, incarnation });
    let mut topology = Topology::default();
    // Without the move that the pair begins with.
    let log = pair.log.iter().filter(|change| !matches!(change, TopologyChange::CopyAdd { .. }));
    for (index, change) in (1..).zip(log) {
        topology.apply(index, change);
    }
    // It is fenced for a while, and says nothing any more.
    for change in [Topology::fence_of, Topology::raise_of] {
        let change = change(&topology, node).expect("a member");
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
    let mut pair = Pair::new().with_log().until_hand_off_is_unknown();
    let late = pair.given_up[0].clone();
    pair.agree(late);
    pair.target_returns();
    assert_eq!(pair.at_target(), vec![(true, WRITES.to_vec()); 4]);
}

#[test]
fn a_hand_off_waits_for_the_log_of_its_target() {
    let mut pair = Pair::new().with_log();
    pair.is_disk_slow = true;
    pair.run_to_hand_off();
    assert_eq!(pair.given_up, [], "the source would drop the only keys that survive a crash");
    pair.drive(Event::Kept);
    assert_eq!(pair.given_up.len(), 1);
}

/// It was started without its log in between: what happened to its slots then is lost, and so is what was before.
#[test]
fn what_a_log_has_of_an_epoch_before_is_not_taken_for_the_slots() {
    let mut pair = Pair::new().with_log().until_hand_off_is_unknown();
    let late = pair.given_up[0].clone();
    pair.agree(late);
    pair.agree(TopologyChange::RegisterNode { node: description(id(TARGET), address_of(TARGET), 2) });
    pair.target_returns();
    assert_eq!(pair.at_target(), vec![(true, Vec::new()); 4]);
}

/// Its log says in advance to which epoch belongs what a move brings: the hand-off is called off, and the slot begins anew.
#[test]
fn what_an_abandoned_move_left_in_a_log_is_not_taken_for_a_slot_that_begins_anew() {
    let mut pair = Pair::new().with_log().until_hand_off_is_unknown();
    pair.source_is_forgotten();
    pair.target_returns();
    assert_eq!(pair.at_target(), vec![(true, Vec::new()); 4]);
}

#[test]
fn a_source_that_returns_goes_on_with_its_slots_and_calls_its_moves_off() {
    let mut pair = Pair::new().with_log().until_hand_off_is_unknown();
    pair.agree(TopologyChange::ReturnNode { node: description(id(SOURCE), address_of(SOURCE), 2) });
    let late = pair.given_up[0].clone();
    pair.agree(late);
    pair.target_returns();
    assert!(pair.at_target().iter().all(|(serves, has)| !serves && has.is_empty()), "it is the source's");
}

/// As a seed of the simulation did: whoever is asked first may lag behind what the former life knew.
#[test]
fn a_node_that_returns_drops_nothing_by_a_topology_that_is_older_than_its_keys() {
    // Whether it has heard meanwhile that it is registered.
    for incarnation in [None, Some(Incarnation(3))] {
        let mut pair = Pair::new().with_log().until_hand_off_is_unknown();
        let late = pair.given_up[0].clone();
        pair.agree(late);
        let (kept, _) = pair.target.log.take().expect("it has a log").crash(0);
        pair.target = Keeper::returned(id(TARGET), Topology::default(), kept, Some(Log::default()));
        pair.is_cut = true;
        let older = pair.news(&pair.target)[..pair.begun as usize].to_vec();
        pair.target.learn(&older);
        pair.target.follow(incarnation, 0);
        pair.drive(Event::Tick);
        pair.agree(TopologyChange::ReturnNode { node: description(id(TARGET), address_of(TARGET), 2) });
        let news = pair.news(&pair.target);
        pair.target.learn(&news);
        pair.target.follow(Some(Incarnation(3)), 0);
        assert_eq!(pair.at_target(), vec![(true, WRITES.to_vec()); 4], "{incarnation:?}");
    }
}
