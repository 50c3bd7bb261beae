//! The primary's part of copies, decided without the keys: which question is answered by what.
//!
//! ```text
//!   Begin of a copy the topology does not show here     NotYet
//!   ... or of slots that it gives to another life       NotYet
//!   Begin of a later attempt than before                a new stream, from its first piece
//!   Begin or Next after what was sent last              the next piece
//!   ... before it: the answer was lost                  the same piece again
//!   anything else                                       Again: what was sent does not fit together
//! ```
//!
//! A question may come late, after others of its asker: none of them begins a stream anew under the copy.
//!
//! Invariant: only the life that the topology means answers with pieces. One that has just started, and that the leader
//! takes for its former life, has nothing: a copy must not take that for all there was.

use crate::base::identity::{Incarnation, NodeId};
use crate::base::slot::Slot;
use crate::base::slot_ranges::SlotRanges;
use crate::cluster::duties::replicas;
use crate::cluster::topology::{NodeState, Phase, SlotCopy, Topology};
use crate::cluster::view::is_current;
use crate::engine::log::copied::CopiedGroup;
use std::collections::{BTreeMap, BTreeSet};

/// What a question is answered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The copy is not known here, or not yet.
    NotYet,
    /// Begin again.
    Again,
    /// What was sent last.
    Same,
    /// The next piece; `is_first`: of a stream that begins, what was there before is over.
    Next { is_first: bool },
}

/// The copies of slots of which this node is the primary.
#[derive(Debug, Default)]
pub struct Feeding {
    version: u64,
    /// The slots that are served here, by the copies that count.
    groups: Vec<CopiedGroup>,
    /// Those that the topology knows: on which node, in which life, and of which slots, by number.
    known: BTreeMap<u64, (NodeId, Incarnation, SlotRanges)>,
    /// Those of them that are not ready in all their slots, or that shall not stay: their slots move.
    coming: BTreeSet<u64>,
    streams: BTreeMap<u64, Stream>,
    /// Slots that stand still for the hand-over to a copy, by its number, with the number of the hand-over.
    finals: BTreeMap<u64, Vec<(Slot, u64)>>,
}

/// What was sent to one copy.
#[derive(Debug)]
struct Stream {
    slots: SlotRanges,
    attempt: u64,
    sent: u64,
    /// The length of the last piece.
    last: u64,
}

impl Feeding {
    /// The version that is known here.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Learns a topology by which the slots of this node are set already. Gives the streams that are over, and what is over of
    /// others: the copy has fewer slots than before.
    pub fn follow(
        &mut self,
        topology: &Topology,
        node: NodeId,
        incarnation: Option<Incarnation>,
    ) -> (Vec<u64>, Vec<(u64, SlotRanges)>) {
        self.version = topology.version;
        self.known.clear();
        self.coming.clear();
        let moves = replicas(topology) == 0;
        let mut groups: BTreeMap<Vec<u64>, SlotRanges> = BTreeMap::new();
        if is_current(topology, node, incarnation) {
            for (slot, record) in Slot::all().zip(topology.slots().iter()) {
                let is_served = !matches!(record.phase, Phase::Dead | Phase::Electing);
                if record.primary != Some(node) || !is_served {
                    continue;
                }
                // Who is down asks again when it is not: nothing is kept for it meanwhile.
                let asks = |copy: &&SlotCopy| {
                    !topology.is_lost(copy)
                        && topology.nodes.get(&copy.node).is_some_and(|node| node.state == NodeState::Active)
                };
                let ready = record.copies.iter().filter(|copy| copy.ready && !copy.retiring && asks(copy));
                groups.entry(ready.map(|copy| copy.number).collect()).or_default().extend([slot]);
                for copy in record.copies.iter().filter(asks) {
                    let known = self.known.entry(copy.number);
                    known.or_insert_with(|| (copy.node, copy.incarnation, SlotRanges::default())).2.extend([slot]);
                    if moves || !copy.ready {
                        self.coming.insert(copy.number);
                    }
                }
            }
        }
        self.groups = groups.into_iter().map(|(copies, slots)| CopiedGroup { copies, slots }).collect();
        let (mut over, mut shrunk) = (Vec::new(), Vec::new());
        for (number, stream) in &mut self.streams {
            match self.known.get(number) {
                Some((.., slots)) if slots.difference(&stream.slots).is_empty() => {
                    let gone = stream.slots.difference(slots);
                    if !gone.is_empty() {
                        stream.slots.clone_from(slots);
                        shrunk.push((*number, gone));
                    }
                }
                _ => over.push(*number),
            }
        }
        self.streams.retain(|number, _| !over.contains(number));
        self.finals.clear();
        for (slot, record) in topology.slots().moving().filter(|(_, record)| record.primary == Some(node)) {
            if let Phase::HandingOff { to, begun } = record.phase
                && let Some(copy) = record.copies.on(to)
            {
                self.finals.entry(copy.number).or_default().push((slot, begun));
            }
        }
        (over, shrunk)
    }

    /// The slots that are served here, by the copies that count for an acknowledgement.
    pub fn groups(&self) -> &[CopiedGroup] {
        &self.groups
    }

    /// Whether a copy is not ready in all its slots yet, or shall take them over.
    pub fn is_coming(&self, number: u64) -> bool {
        self.coming.contains(&number)
    }

    /// The slots that stand still for the hand-over to a copy, each with the number of the hand-over.
    pub fn finals(&self, number: u64) -> &[(Slot, u64)] {
        self.finals.get(&number).map_or(&[], Vec::as_slice)
    }

    /// A copy asks for what it lacks.
    pub fn begin(
        &mut self,
        (node, incarnation): (NodeId, Incarnation),
        number: u64,
        attempt: u64,
        slots: &SlotRanges,
    ) -> Answer {
        let is_known =
            |known: &&(NodeId, Incarnation, SlotRanges)| (known.0, known.1) == (node, incarnation) && known.2 == *slots;
        if self.known.get(&number).filter(is_known).is_none() {
            return Answer::NotYet;
        }
        if self.streams.get(&number).is_some_and(|stream| attempt <= stream.attempt) {
            return self.next(node, number, attempt, 0);
        }
        self.streams.insert(number, Stream { slots: slots.clone(), attempt, sent: 0, last: 0 });
        Answer::Next { is_first: true }
    }

    /// A copy asks for what comes after so many bytes.
    pub fn next(&mut self, node: NodeId, number: u64, attempt: u64, received: u64) -> Answer {
        if self.known.get(&number).is_none_or(|known| known.0 != node) {
            return Answer::NotYet;
        }
        match self.streams.get(&number).filter(|stream| stream.attempt == attempt) {
            Some(stream) if received == stream.sent => Answer::Next { is_first: false },
            Some(stream) if received.checked_add(stream.last) == Some(stream.sent) => Answer::Same,
            Some(_) | None => Answer::Again,
        }
    }

    /// The next piece of a stream has this length.
    pub fn sent(&mut self, number: u64, length: u64) {
        if let Some(stream) = self.streams.get_mut(&number) {
            stream.sent += length;
            stream.last = length;
        }
    }

    /// A stream cannot go on.
    pub fn end(&mut self, number: u64) {
        // The attempt stays known: a question of it that comes late does not begin anew.
        if let Some(stream) = self.streams.get_mut(&number) {
            (stream.sent, stream.last) = (u64::MAX, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::identity::ClusterId;
    use crate::cluster::topology::{Node, TopologyChange, sample};

    const PRIMARY: NodeId = NodeId(1);
    const COPY: NodeId = NodeId(2);

    #[test]
    fn questions_are_answered_in_their_order_and_by_the_life_that_is_meant() {
        let slots: SlotRanges = Slot::all().take(4).collect();
        let mut topology = Topology::default();
        let mut agree = |change| topology.apply(topology.version + 1, &change);
        agree(TopologyChange::InitCluster { cluster: ClusterId(1), hash_key: 1 });
        for id in [PRIMARY, COPY] {
            agree(TopologyChange::RegisterNode { node: Node { start_ms: 1, ..sample::node(id) } });
        }
        agree(TopologyChange::Revive { slots: Slot::all().collect(), to: PRIMARY });
        let copy = (COPY, Incarnation(2));
        agree(TopologyChange::CopyJoin { slots: slots.clone(), node: COPY, incarnation: copy.1 });
        let number = topology.version;
        let mut feeding = Feeding::default();
        for incarnation in [None, Some(Incarnation(9))] {
            feeding.follow(&topology, PRIMARY, incarnation);
            assert_eq!(feeding.begin(copy, number, 1, &slots), Answer::NotYet, "another life is meant");
        }
        feeding.follow(&topology, PRIMARY, Some(Incarnation(1)));
        assert_eq!(feeding.begin((COPY, Incarnation(3)), number, 1, &slots), Answer::NotYet);
        assert_eq!(feeding.begin(copy, number, 1, &Slot::all().take(3).collect()), Answer::NotYet, "it knows less");
        assert_eq!(feeding.begin(copy, number, 1, &slots), Answer::Next { is_first: true });
        feeding.sent(number, 10);
        assert_eq!(feeding.begin(copy, number, 1, &slots), Answer::Same, "the answer was lost");
        assert_eq!(feeding.next(COPY, number, 1, 10), Answer::Next { is_first: false });
        feeding.sent(number, 5);
        assert_eq!(feeding.next(COPY, number, 1, 10), Answer::Same);
        assert_eq!(feeding.next(COPY, number, 1, 3), Answer::Again);
        assert_eq!(feeding.next(COPY, number, 2, 15), Answer::Again, "of no attempt that began");
        assert_eq!(feeding.begin(copy, number, 2, &slots), Answer::Next { is_first: true });
        assert_eq!(feeding.begin(copy, number, 1, &slots), Answer::Again, "it comes late");
        feeding.end(number);
        assert_eq!(feeding.next(COPY, number, 2, 0), Answer::Again);
        assert_eq!(feeding.begin(copy, number, 3, &slots), Answer::Next { is_first: true });
        // With fewer slots the stream goes on; another life has none.
        let gone: SlotRanges = Slot::all().take(1).collect();
        topology.apply(number + 1, &TopologyChange::CopyLeave { slots: gone.clone(), node: COPY, number });
        assert_eq!(feeding.follow(&topology, PRIMARY, Some(Incarnation(1))), (vec![], vec![(number, gone)]));
        assert_eq!(feeding.next(COPY, number, 3, 0), Answer::Next { is_first: false });
        assert_eq!(feeding.follow(&topology, PRIMARY, Some(Incarnation(4))), (vec![number], vec![]));
    }
}
