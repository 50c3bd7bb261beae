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
pub(super) mod lost;
pub mod messages;
mod pace;
pub mod progress;
pub mod retiring;
pub mod table;
pub(super) mod taking;

pub(super) use feeds::Feeds;
#[cfg(test)]
pub(super) use feeds::SILENT_LIMIT;
pub use table::CopyTable;

use super::Shared;
use crate::base::acknowledge::Acknowledge;
use crate::base::identity::{Epoch, Incarnation, NodeId};
use crate::base::slot::Slot;
use crate::base::slot_ranges::SlotRanges;
use crate::cluster::duties::acknowledge;
use crate::cluster::topology::{Phase, SlotCopy, SlotRecord, Topology};
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

/// The number under which this life of a node has a copy of a slot. One that is kept counts while there is an election.
pub fn own_number(record: &SlotRecord, node: NodeId, incarnation: Option<Incarnation>) -> Option<u64> {
    let is_its = |copy: &&SlotCopy| {
        Some(copy.incarnation) == incarnation || record.phase == Phase::Electing && is_kept(copy, incarnation)
    };
    record.copies.on(node).filter(is_its).map(|copy| copy.number)
}

/// Whether this life of the node has what a former one had of a copy, from its log.
pub fn is_kept(copy: &SlotCopy, incarnation: Option<Incarnation>) -> bool {
    copy.kept.is_some() && copy.kept == incarnation
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
    if let CopyRequest::Fence { slots, epoch, life, version } = &request {
        return Response::Copy(Blob(messages::encode(&fence(shared, slots, *epoch, *life, *version).await)));
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
            let keep = shared.engine.log.copied.are_disks_asked();
            return Response::Copy(Blob(messages::encode(&CopyAnswer::Piece { bytes: &[], keep })));
        }
        tokio::select! {
            () = bell.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(LOOK_PAUSE_MAX);
    }
}

/// Answers an election: where these slots stand here. A later life than the one that is asked says nothing: what it has come back
/// with is not known before it has registered, and "nothing" would be an answer.
async fn fence(
    shared: &Shared,
    slots: &SlotRanges,
    epoch: Epoch,
    life: Incarnation,
    version: u64,
) -> CopyAnswer<'static> {
    let mut shown = shared.shown.subscribe();
    let is_known = |topology: &Arc<Topology>| topology.version >= version && *shared.life.lock() == Some(life);
    let known = tokio::time::timeout(ANSWER_WITHIN, shown.wait_for(is_known)).await;
    let Ok(Ok(topology)) = known.map(|known| known.map(|topology| Arc::clone(&topology))) else {
        return CopyAnswer::NotYet;
    };
    let position = |slot| shared.engine.position(slot);
    let positions = shared.copies.lock().answer_election(&topology, slots, epoch, position);
    if acknowledge(&topology) == Acknowledge::QuorumFsync {
        // Whoever is elected answers for it as for its own: what a quorum of disks had must not be in its memory only.
        let kept = shared.engine.log.until_kept(shared.engine.log.end());
        if tokio::time::timeout(ANSWER_WITHIN, kept).await.is_err() {
            return CopyAnswer::NotYet;
        }
    }
    CopyAnswer::Positions(positions)
}
