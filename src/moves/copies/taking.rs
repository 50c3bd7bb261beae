//! Hand-overs to copies of this node: proposed when everything has come, and again until the topology shows what became of it.

use crate::base::identity::Incarnation;
use crate::base::slot_ranges::SlotRanges;
use crate::cluster::topology::{Phase, Topology, TopologyChange};
use crate::moves::Shared;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Before the same is proposed again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Proposes hand-overs until the node ends.
pub(in crate::moves) async fn take_over(shared: Arc<Shared>, incarnation: watch::Receiver<Option<Incarnation>>) {
    let mut topologies = shared.shown.subscribe();
    loop {
        let topology = Arc::clone(&topologies.borrow_and_update());
        let life = *incarnation.borrow();
        let ready = life.map_or_else(Vec::new, |life| changes(&shared, &topology, life));
        let pause = if ready.is_empty() { Duration::from_secs(3600) } else { RETRY_PAUSE };
        for change in ready {
            // Whatever it comes to, the topology shows it: until then nothing that is here is touched, and nothing served.
            if let Ok(proposal) = shared.consensus.propose(change).await {
                (shared.nudge)(proposal.index);
            }
        }
        tokio::select! {
            changed = topologies.changed() => if changed.is_err() {
                return;
            },
            () = shared.finished.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// The hand-overs to this node of which everything is here, in all their slots.
fn changes(shared: &Shared, topology: &Topology, incarnation: Incarnation) -> Vec<TopologyChange> {
    let mut coming: BTreeMap<u64, (SlotRanges, bool)> = BTreeMap::new();
    let copies = shared.copies.lock();
    for (slot, record) in topology.slots().moving() {
        if let Phase::HandingOff { to, begun } = record.phase
            && to == shared.node
            && record.copies.on(to).is_some_and(|copy| copy.incarnation == incarnation)
        {
            let (slots, is_finished) = coming.entry(begun).or_insert_with(|| (SlotRanges::default(), true));
            slots.extend([slot]);
            *is_finished &= copies.is_finished(slot, begun);
        }
    }
    let finished = coming.into_iter().filter(|(_, (_, is_finished))| *is_finished);
    let change = |(begun, (slots, _))| TopologyChange::Handoff { slots, to: shared.node, incarnation, begun };
    finished.map(change).collect()
}
