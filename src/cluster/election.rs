//! Which copy becomes the primary: of those that could be asked the one that knows the most. Pure.
//!
//! ```text
//!  Electing slots --> questions: Fence{slots, epoch, life} to every copy that had everything, still has it, and is not fenced
//!  answers        --> all have answered, or PATIENCE is over: Promote the greatest (epoch, sequence number)
//! ```
//!
//! Who is asked has it in memory, or from the log that it came back with (`topology/copies`).
//!
//! Where acknowledged means that a quorum has it, so many must have answered that one of any quorum is among them: an election
//! that lacks answers goes on, until a copy is back, has started again without its memory, or is given up by a person.
//!
//! Who has answered accepts nothing of an earlier epoch any more, so what it said stays true. An election that is begun again,
//! by another leader, asks again and is told the same.

use super::duties::is_quorum;
use super::topology::{Phase, SlotCopy, SlotRecord, Topology, TopologyChange};
use crate::base::identity::{Epoch, Incarnation, NodeId, Position};
use crate::base::slot::{QUORUM, Slot};
use crate::base::slot_ranges::SlotRanges;
use std::collections::BTreeMap;

/// How long copies that do not answer are waited for. With asynchronous acknowledgement a write that only they have may be
/// lost; a primary that is silent is not asked at all.
pub const PATIENCE_US: u64 = 1_000_000;

/// Slots that are elected together: of the same epoch, with copies on the same nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Electorate {
    pub epoch: Epoch,
    pub slots: SlotRanges,
    /// Whom to ask.
    pub lives: Vec<(NodeId, Incarnation)>,
    /// So many have to say what they have of a slot,
    pub needed: usize,
    /// or all of so many that they have, or have nothing: more will never be known.
    pub survivors: usize,
}

/// How many answers an election of a slot needs.
fn needed(topology: &Topology, record: &SlotRecord) -> usize {
    if !is_quorum(topology) {
        return 1;
    }
    // Also those that have lost their memory since: what was acknowledged may have been there.
    let members = record.copies.iter().filter(|copy| copy.counts).count();
    let survivors = topology.candidates(record).count();
    (members + 1).saturating_sub(QUORUM).min(survivors).max(1)
}

/// Every election that is under way.
pub fn electorates(topology: &Topology) -> Vec<Electorate> {
    let mut found = BTreeMap::new();
    let electing = Slot::all().zip(topology.slots().iter()).filter(|(_, record)| record.phase == Phase::Electing);
    for (slot, record) in electing {
        let is_up = |copy: &SlotCopy| {
            let state = topology.nodes.get(&copy.node).map(|node| node.state);
            state == Some(super::topology::NodeState::Active)
        };
        let copies = topology.candidates(record).filter(is_up);
        let mut lives: Vec<(NodeId, Incarnation)> = copies.map(|copy| (copy.node, copy.incarnation)).collect();
        lives.sort_unstable();
        if lives.is_empty() {
            // Nobody can be asked before the topology is another.
            continue;
        }
        let (needed, survivors) = (needed(topology, record), topology.candidates(record).count());
        let key = (record.epoch, lives.clone(), needed, survivors);
        let one = || Electorate { epoch: record.epoch, slots: SlotRanges::default(), lives, needed, survivors };
        found.entry(key).or_insert_with(one).slots.extend([slot]);
    }
    found.into_values().collect()
}

/// What the copies of an electorate have said, by node: the positions of its slots.
pub type Answers = BTreeMap<NodeId, Vec<Option<Position>>>;

/// Who becomes the primary of what, by what was answered. Where several know as much, neighbouring slots go to the same, and
/// each gets as many.
pub fn promotions(one: &Electorate, answers: &Answers) -> Vec<TopologyChange> {
    let mut equals: BTreeMap<Vec<NodeId>, Vec<Slot>> = BTreeMap::new();
    for (index, slot) in one.slots.slots().enumerate() {
        let said = |(node, _): &(NodeId, Incarnation)| {
            let position = answers.get(node)?.get(index).copied()??;
            Some((position, *node))
        };
        let said: Vec<(Position, NodeId)> = one.lives.iter().filter_map(said).collect();
        let have_answered = one.lives.iter().filter(|(node, _)| answers.contains_key(node)).count();
        if said.len() < one.needed && have_answered < one.survivors {
            continue;
        }
        let Some(most) = said.iter().map(|(position, _)| *position).max() else { continue };
        let best = said.iter().filter(|(position, _)| *position == most).map(|(_, node)| *node).collect();
        equals.entry(best).or_default().push(slot);
    }
    let mut won: BTreeMap<NodeId, SlotRanges> = BTreeMap::new();
    for (nodes, slots) in equals {
        let share = slots.len().div_ceil(nodes.len().max(1));
        for (node, slots) in nodes.iter().zip(slots.chunks(share.max(1))) {
            won.entry(*node).or_default().extend(slots.iter().copied());
        }
    }
    let promote = |(node, slots)| {
        let (_, incarnation) = *one.lives.iter().find(|(life, _)| *life == node)?;
        Some(TopologyChange::Promote { slots, epoch: one.epoch, node, incarnation })
    };
    won.into_iter().filter_map(promote).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: u32, seq: u64) -> Option<Position> {
        Some(Position { epoch: Epoch(epoch), seq })
    }

    /// By node what it says of four slots, and who wins which.
    fn check(said: &[(u128, [Option<Position>; 4])], won: &[(u128, &str)]) {
        check_needed(1, said, won);
    }

    fn check_needed(needed: usize, said: &[(u128, [Option<Position>; 4])], won: &[(u128, &str)]) {
        let life = |node: u128| (NodeId(node), Incarnation(node as u64));
        let lives = [1, 2, 3].map(life).to_vec();
        let slots = Slot::all().take(4).collect();
        let one = Electorate { epoch: Epoch(9), slots, lives, needed, survivors: 3 };
        let answers: Answers = said.iter().map(|(node, said)| (NodeId(*node), said.to_vec())).collect();
        let promotions = promotions(&one, &answers);
        let shown: Vec<(u128, String)> = promotions
            .iter()
            .map(|change| match change {
                TopologyChange::Promote { slots, epoch: Epoch(9), node, incarnation }
                    if incarnation.0 == node.0 as u64 =>
                {
                    (node.0, slots.to_string())
                }
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(shown, won.iter().map(|(node, slots)| (*node, (*slots).to_owned())).collect::<Vec<_>>());
    }

    /// Slots of which every copy is down wait for a change of the topology: asking nobody again and again tells nothing.
    #[test]
    fn an_election_without_anybody_to_ask_is_not_held() {
        use super::super::topology::sample;
        use crate::base::identity::ClusterId;
        let (primary, copy, slots) = (NodeId(1), NodeId(2), Slot::all().take(3).collect::<SlotRanges>());
        let mut topology = Topology::default();
        let agree = |topology: &mut Topology, change| topology.apply(topology.version + 1, &change);
        agree(&mut topology, TopologyChange::InitCluster { cluster: ClusterId(1), hash_key: 1 });
        for id in [primary, copy] {
            agree(&mut topology, TopologyChange::RegisterNode { node: sample::node(id) });
        }
        agree(&mut topology, TopologyChange::Revive { slots: SlotRanges::all(), to: primary });
        let life = Incarnation(2);
        agree(&mut topology, TopologyChange::CopyJoin { slots: slots.clone(), node: copy, incarnation: life });
        let number = topology.version;
        agree(
            &mut topology,
            TopologyChange::CopyInSync { slots: slots.clone(), node: copy, incarnation: life, number },
        );
        let fence = topology.fence_of(primary, 0).expect("a member");
        agree(&mut topology, fence);
        let begin = TopologyChange::BeginElection { slots: slots.clone(), node: primary, incarnation: Incarnation(1) };
        agree(&mut topology, begin);
        let [one] = &electorates(&topology)[..] else { panic!("one election") };
        assert_eq!((&one.slots, &one.lives[..]), (&slots, &[(copy, life)][..]));
        let fence = topology.fence_of(copy, 0).expect("a member");
        agree(&mut topology, fence);
        assert_eq!(electorates(&topology), []);
    }

    #[test]
    fn the_greatest_position_wins_and_equals_share() {
        check(&[], &[]);
        check(&[(2, [at(5, 1); 4])], &[(2, "0-3")]);
        check(&[(2, [at(5, 1); 4]), (3, [at(5, 1), at(5, 2), at(4, 9), None])], &[(2, "0 2-3"), (3, "1")]);
        check(&[(2, [at(5, 1); 4]), (3, [at(5, 1); 4])], &[(2, "0-1"), (3, "2-3")]);
        check(&[(1, [at(6, 0); 4]), (2, [at(5, 7); 4])], &[(1, "0-3")]);
        // Nobody knows anything of a slot: it waits.
        check(&[(1, [None, at(1, 1), None, None])], &[(1, "1")]);
        check(&[(9, [at(7, 7); 4])], &[]);
    }

    #[test]
    fn a_quorum_is_elected_by_so_many_that_one_of_any_quorum_is_among_them() {
        check_needed(2, &[(2, [at(5, 1); 4])], &[]);
        check_needed(2, &[(2, [at(5, 1); 4]), (3, [at(5, 2), None, at(4, 1), at(5, 1)])], &[(2, "2-3"), (3, "0")]);
        // Everybody has said what there is.
        let nothing = [None; 4];
        check_needed(2, &[(1, nothing), (2, [at(5, 1), at(5, 1), None, at(5, 1)]), (3, nothing)], &[(2, "0-1 3")]);
    }
}
