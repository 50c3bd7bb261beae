//! Hand-overs to copies of this node: proposed when everything has come, and again until the topology shows what became of it.

use crate::base::identity::Incarnation;
use crate::moves::Shared;
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
        let ready = life.map_or_else(Vec::new, |life| shared.copies.lock().hand_overs(&topology, shared.node, life));
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
