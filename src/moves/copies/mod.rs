//! Copies: slots that this node has besides their primaries, and what it sends to those that have copies of its own.
//!
//! ```text
//!   copy                                               primary
//!     Begin {slots, what it has of each}   ---->       equal: Complete at once; else all entries, then Complete
//!     Next {bytes it has}                  ---->       the runs of the log, as they come (or after a moment: nothing)
//!     all Complete: CopyInSync is agreed
//! ```
//!
//! One stream for each copy of one number from one primary. What is asked is what was received and applied: a question is an
//! acknowledgement. A slot is *complete* when it is what the primary had in some position; only that counts in an election.
//! Until then, and while it is sent anew, it is nothing. Whoever is asked by a raft leader (`Fence`) accepts nothing of an
//! earlier epoch any more.

pub mod feeding;
mod feeds;
pub mod following;
pub mod messages;
pub(super) mod taking;

pub(super) use feeds::Feeds;

use super::Shared;
use crate::base::identity::{Epoch, Incarnation, NodeId, Position};
use crate::base::slot::{SLOT_COUNT, Slot};
use crate::base::slot_ranges::SlotRanges;
use crate::cluster::topology::{Phase, SlotRecord, Topology};
use crate::cluster::view::is_current;
use crate::transport::{Blob, Response, Sender};
use feeds::Fed;
use messages::{CopyAnswer, CopyRequest};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A question for which there is nothing is answered after this time.
const ANSWER_WITHIN: Duration = Duration::from_millis(300);
/// Between looks whether there is something: doubled while there is not.
const LOOK_PAUSE_MIN: Duration = Duration::from_millis(1);
const LOOK_PAUSE_MAX: Duration = Duration::from_millis(20);

/// What this node has of slots that it is not the primary of.
#[derive(Debug)]
pub struct CopyTable {
    copies: BTreeMap<Slot, Copy>,
    /// By slot, the greatest epoch that an election asked about: what is older is refused.
    fences: Vec<Epoch>,
}

/// One slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Copy {
    number: u64,
    is_complete: bool,
    /// The hand-over to this node before which nothing more comes.
    finished: Option<u64>,
}

impl Default for CopyTable {
    fn default() -> CopyTable {
        CopyTable { copies: BTreeMap::new(), fences: vec![Epoch(0); SLOT_COUNT] }
    }
}

impl CopyTable {
    /// What is here of a slot belongs to the copy of this number from now on.
    pub fn keep(&mut self, slot: Slot, number: u64, is_complete: bool) {
        self.copies.insert(slot, Copy { number, is_complete, finished: None });
    }

    /// Nothing of it is here. Whether there was something.
    pub fn drop_slot(&mut self, slot: Slot) -> bool {
        self.copies.remove(&slot).is_some()
    }

    /// The number of the copy that is here.
    pub fn number(&self, slot: Slot) -> Option<u64> {
        self.copies.get(&slot).map(|copy| copy.number)
    }

    /// Whether the copy of this number has everything up to its position.
    pub fn is_complete(&self, slot: Slot, number: u64) -> bool {
        self.copies.get(&slot).is_some_and(|copy| copy.number == number && copy.is_complete)
    }

    /// Whether something of that epoch may be applied to the copy of this number.
    pub(super) fn accepts(&self, slot: Slot, number: u64, epoch: Epoch) -> bool {
        self.number(slot) == Some(number) && epoch >= self.fences[slot.index()]
    }

    fn set_complete(&mut self, slot: Slot, is_complete: bool) {
        if let Some(copy) = self.copies.get_mut(&slot) {
            (copy.is_complete, copy.finished) = (is_complete, None);
        }
    }

    /// Everything is here of a slot that is handed over to this node.
    fn finish(&mut self, slot: Slot, begun: u64) {
        if let Some(copy) = self.copies.get_mut(&slot) {
            copy.finished = Some(begun);
        }
    }

    /// Something came behind: the hand-over was called off.
    fn go_on(&mut self, slot: Slot) {
        if let Some(copy) = self.copies.get_mut(&slot) {
            copy.finished = None;
        }
    }

    /// Whether everything is here of a slot for the hand-over of this number.
    pub fn is_finished(&self, slot: Slot, begun: u64) -> bool {
        self.copies.get(&slot).is_some_and(|copy| copy.is_complete && copy.finished == Some(begun))
    }

    /// Answers an election: where a slot stands here, if it is complete. Nothing of an earlier epoch is accepted from now on.
    pub fn fence(&mut self, slot: Slot, epoch: Epoch) -> bool {
        let fence = &mut self.fences[slot.index()];
        if *fence > epoch {
            return false;
        }
        *fence = epoch;
        self.copies.get(&slot).is_some_and(|copy| copy.is_complete)
    }
}

/// The number under which this life of a node has a copy of a slot.
pub fn own_number(record: &SlotRecord, node: NodeId, incarnation: Option<Incarnation>) -> Option<u64> {
    record.copies.on(node).filter(|copy| Some(copy.incarnation) == incarnation).map(|copy| copy.number)
}

/// The copies of this node, by their primaries and numbers.
pub fn following(
    topology: &Topology,
    node: NodeId,
    incarnation: Option<Incarnation>,
) -> BTreeMap<(NodeId, u64), SlotRanges> {
    let mut streams: BTreeMap<(NodeId, u64), SlotRanges> = BTreeMap::new();
    if !is_current(topology, node, incarnation) {
        return streams;
    }
    for (slot, record) in Slot::all().zip(topology.slots().iter()) {
        let is_served = !matches!(record.phase, Phase::Dead | Phase::Electing);
        if let (Some(primary), Some(number), true) = (record.primary, own_number(record, node, incarnation), is_served)
        {
            streams.entry((primary, number)).or_default().extend([slot]);
        }
    }
    streams
}

/// Answers another node's message. Where a copy asks and there is nothing new, it waits for a moment.
pub(super) async fn answer(shared: &Arc<Shared>, sender: &Sender, Blob(bytes): &Blob) -> Response {
    let Some(mut request) = CopyRequest::decode(bytes) else {
        return Response::Failed("a malformed message about copies".into());
    };
    if request.version() > shared.source.lock().feeds.version() {
        (shared.nudge)(request.version());
    }
    if let CopyRequest::Fence { slots, epoch, version } = &request {
        return Response::Copy(Blob(messages::encode(&fence(shared, slots, *epoch, *version).await)));
    }
    let bell = shared.engine.log.listen();
    let until = tokio::time::Instant::now() + ANSWER_WITHIN;
    let mut pause = LOOK_PAUSE_MIN;
    loop {
        {
            let mut source = shared.source.lock();
            let source = &mut *source;
            match source.feeds.answer(&mut source.exports, sender, request) {
                Fed::Answer(bytes) => return Response::Copy(Blob(bytes)),
                Fed::Nothing(again) => request = again,
            }
        }
        if tokio::time::Instant::now() >= until {
            return Response::Copy(Blob(messages::encode(&CopyAnswer::Piece { bytes: &[] })));
        }
        tokio::select! {
            () = bell.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(LOOK_PAUSE_MAX);
    }
}

/// Answers an election: where these slots stand here.
async fn fence(shared: &Shared, slots: &SlotRanges, epoch: Epoch, version: u64) -> CopyAnswer<'static> {
    let mut shown = shared.shown.subscribe();
    let known = tokio::time::timeout(ANSWER_WITHIN, shown.wait_for(|topology| topology.version >= version)).await;
    let Ok(Ok(topology)) = known.map(|known| known.map(|topology| Arc::clone(&topology))) else {
        return CopyAnswer::NotYet;
    };
    let mut copies = shared.copies.lock();
    let mut position = |slot: Slot| {
        let record = topology.slot(slot);
        let is_asked = record.phase == Phase::Electing && record.epoch == epoch;
        copies.number(slot).filter(|_| is_asked)?;
        // Where it is not complete it is the last that anybody would choose.
        Some(if copies.fence(slot, epoch) { shared.engine.position(slot) } else { Position::default() })
    };
    CopyAnswer::Positions(slots.slots().map(&mut position).collect())
}
