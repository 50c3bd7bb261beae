//! Copies that are to go, where acknowledged means that a quorum has it: their primary removes them when the others have what
//! they may be the only ones to have.

use crate::base::identity::NodeId;
use crate::base::slot::Slot;
use crate::base::slot_ranges::SlotRanges;
use crate::cluster::topology::{Phase, Topology, TopologyChange};
use crate::engine::log::LogOffset;
use crate::moves::Shared;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Between looks whether the others have everything, and before the same is proposed again.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// The copies that this node removes, by their nodes and numbers.
pub fn retiring(topology: &Topology, node: NodeId) -> BTreeMap<(NodeId, u64), SlotRanges> {
    let mut found: BTreeMap<(NodeId, u64), SlotRanges> = BTreeMap::new();
    for (slot, record) in Slot::all().zip(topology.slots().iter()) {
        if record.primary == Some(node) && record.phase == Phase::Normal {
            for copy in record.copies.iter().filter(|copy| copy.retiring) {
                found.entry((copy.node, copy.number)).or_default().extend([slot]);
            }
        }
    }
    found
}

/// Removes them until the node ends.
pub(in crate::moves) async fn remove(shared: Arc<Shared>) {
    let mut topologies = shared.shown.subscribe();
    // Since when nothing is acknowledged by a copy any more: of these slots, from this place of the log on.
    let mut since: BTreeMap<(NodeId, u64), (SlotRanges, LogOffset)> = BTreeMap::new();
    loop {
        let topology = Arc::clone(&topologies.borrow_and_update());
        let found = retiring(&topology, shared.node);
        since.retain(|key, (slots, _)| found.get(key).is_some_and(|found| found.difference(slots).is_empty()));
        // Before the groups of slots are those of this topology it may still be counted.
        if shared.source.lock().feeds.version() >= topology.version {
            for (key, slots) in &found {
                since.entry(*key).or_insert_with(|| (slots.clone(), shared.engine.log.end()));
            }
        }
        let log = &shared.engine.log;
        let mut has_proposed = false;
        for ((node, number), slots) in &found {
            let has_gone = since.get(&(*node, *number)).is_some_and(|(_, to)| log.copied.have(slots, *to));
            if has_gone {
                has_proposed = true;
                let change = TopologyChange::CopyLeave { slots: slots.clone(), node: *node, number: *number };
                // Whatever it comes to, the topology shows it; until then it is not counted.
                if let Ok(proposal) = shared.consensus.propose(change).await {
                    (shared.nudge)(proposal.index);
                }
            } else {
                // Their streams are to read the log to its end.
                log.ask();
            }
        }
        if has_proposed {
            // A refusal is a new version too: one that is refused must not fill the raft log.
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        let pause = if found.is_empty() { Duration::from_secs(3600) } else { LOOK_PAUSE };
        if let Ok(Err(_)) = tokio::time::timeout(pause, topologies.changed()).await {
            return;
        }
    }
}
