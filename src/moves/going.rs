//! The source's part of moves, decided without the keys: which question is answered by what.
//!
//! ```text
//!   Begin of a move the topology does not show here     NotYet
//!   ... or that it gives to another life of this node   NotYet
//!   Begin of a later attempt than before                a new stream, from its first piece
//!   Begin or Next after what was sent last              the next piece
//!   ... before it: the answer was lost                  the same piece again
//!   anything else                                       Again: what was sent does not fit together
//! ```
//!
//! A question may come late, after others of its asker: none of them begins a stream anew under the target.
//!
//! Invariant: only the life that the topology means answers with pieces. One that has just started, and that the leader
//! takes for its former life, has nothing: a target must not take that for all there was.

use crate::base::identity::{Incarnation, NodeId};
use crate::base::slot_ranges::SlotRanges;
use crate::cluster::duties::{SlotMove, Stage};
use crate::cluster::topology::Topology;
use crate::cluster::view::is_current;
use std::collections::BTreeMap;

/// What a question is answered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The move is not known here, or not yet.
    NotYet,
    /// Begin again.
    Again,
    /// What was sent last.
    Same,
    Next {
        /// It is the first of a stream: what an earlier attempt published is over.
        is_first: bool,
        /// The slots stand still: nothing is added behind what has happened.
        is_frozen: bool,
    },
}

/// The moves from here.
#[derive(Debug, Default)]
pub struct Going {
    version: u64,
    /// Those that the topology knows, and their stages, by number.
    known: BTreeMap<u64, SlotMove>,
    streams: BTreeMap<u64, Stream>,
}

/// What was sent of one move.
#[derive(Debug)]
struct Stream {
    target: NodeId,
    /// The target's count of its beginnings.
    attempt: u64,
    sent: u64,
    /// The length of the last piece.
    last: u64,
}

impl Going {
    /// The version that is known here.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Learns a topology by which the slots of this node are set already, as this life of it knows it, and all moves that
    /// are under way in it. Gives the streams that are over.
    pub fn follow(
        &mut self,
        topology: &Topology,
        node: NodeId,
        incarnation: Option<Incarnation>,
        moves: &[SlotMove],
    ) -> Vec<u64> {
        self.version = topology.version;
        let current = is_current(topology, node, incarnation);
        let from_here = |one: &&SlotMove| current && one.from == node && one.stage != Stage::Releasing;
        self.known = moves.iter().filter(from_here).map(|one| (one.begun, one.clone())).collect();
        let over: Vec<u64> = self.streams.keys().filter(|begun| !self.known.contains_key(begun)).copied().collect();
        self.streams.retain(|begun, _| self.known.contains_key(begun));
        over
    }

    /// The target asks for the first piece.
    pub fn begin(&mut self, target: NodeId, begun: u64, attempt: u64, slots: &SlotRanges) -> Answer {
        if self.known.get(&begun).is_none_or(|known| known.to != target || known.slots != *slots) {
            return Answer::NotYet;
        }
        if self.streams.get(&begun).is_some_and(|stream| attempt <= stream.attempt) {
            return self.next(target, begun, attempt, 0);
        }
        self.streams.insert(begun, Stream { target, attempt, sent: 0, last: 0 });
        Answer::Next { is_first: true, is_frozen: self.is_frozen(begun) }
    }

    /// The target asks for what comes after so many bytes.
    pub fn next(&mut self, target: NodeId, begun: u64, attempt: u64, received: u64) -> Answer {
        let of_this = |stream: &&Stream| (stream.target, stream.attempt) == (target, attempt);
        match self.streams.get(&begun).filter(of_this) {
            Some(stream) if received == stream.sent => {
                Answer::Next { is_first: false, is_frozen: self.is_frozen(begun) }
            }
            Some(stream) if received + stream.last == stream.sent => Answer::Same,
            Some(_) | None => Answer::Again,
        }
    }

    /// The next piece of a stream has this length.
    pub fn sent(&mut self, begun: u64, length: u64) {
        if let Some(stream) = self.streams.get_mut(&begun) {
            stream.sent += length;
            stream.last = length;
        }
    }

    /// The slots of a move.
    pub fn slots(&self, begun: u64) -> SlotRanges {
        self.known.get(&begun).map(|known| known.slots.clone()).unwrap_or_default()
    }

    fn is_frozen(&self, begun: u64) -> bool {
        self.known.get(&begun).is_some_and(|known| known.stage == Stage::HandingOff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::identity::ClusterId;
    use crate::base::slot::Slot;
    use crate::cluster::duties;
    use crate::cluster::topology::{Applied, Node, TopologyChange, sample};

    const SOURCE: NodeId = NodeId(1);
    const TARGET: NodeId = NodeId(2);

    fn life(id: NodeId, start_ms: u64) -> TopologyChange {
        let node = Node { start_ms, ..sample::node(id) };
        TopologyChange::RegisterNode { node }
    }

    #[test]
    fn only_the_life_that_the_topology_means_sends_its_slots() {
        let slots: SlotRanges = Slot::all().take(4).collect();
        let mut topology = Topology::default();
        let mut agree = |change| topology.apply(topology.version + 1, &change);
        agree(TopologyChange::InitCluster { cluster: ClusterId(1), hash_key: 1 });
        let Applied::Registered(former) = agree(life(SOURCE, 1)) else { panic!("it registers") };
        agree(life(TARGET, 1));
        agree(TopologyChange::Revive { slots: Slot::all().collect(), to: SOURCE });
        agree(TopologyChange::CopyAdd { slots: slots.clone(), from: SOURCE, to: TARGET, decided_by: u64::MAX });
        let (begun, moves) = (topology.version, duties::moves(&topology));
        let later = Incarnation(former.0 + 10);
        let mut going = Going::default();
        // A new life that is not registered yet, or whose registration is not known here yet, and the one that is meant.
        for (incarnation, sends) in [(None, false), (Some(later), false), (Some(former), true)] {
            assert!(going.follow(&topology, SOURCE, incarnation, &moves).is_empty());
            let answer = going.begin(TARGET, begun, 1, &slots);
            assert_eq!(answer != Answer::NotYet, sends, "{incarnation:?}: {answer:?}");
            assert_eq!(going.version(), topology.version, "{incarnation:?}");
        }
        // What was sent is over as soon as another life is meant, though the move goes on.
        assert_eq!(going.follow(&topology, SOURCE, Some(later), &moves), [begun]);
        assert_eq!(going.next(TARGET, begun, 1, 0), Answer::Again);
    }
}
