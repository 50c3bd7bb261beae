//! The loop around the decisions of a node that leaves, which are those of [`crate::cluster::draining`].

use crate::base::identity::{Incarnation, NodeId};
use crate::cluster::draining::{Drained, Draining, Next, Reason};
use crate::cluster::topology::raft::Consensus;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Between looks at the voters, who change without a change of the topology, and at the clock.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Before something is proposed again: doubled with every failure in a row, up to the last.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(100);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(3);

/// Gives away what this node holds, and leaves the topology. `patience`: how long it waits for a member that could take
/// slots, and for being let go once it holds nothing. `told_again` becomes true when it shall end at once.
pub(super) async fn drain(
    node: NodeId,
    incarnation: Incarnation,
    consensus: &Arc<dyn Consensus>,
    patience: Duration,
    mut told_again: watch::Receiver<bool>,
) -> Drained {
    let mut topologies = consensus.subscribe();
    let began = Instant::now();
    let mut draining = Draining::new(node, incarnation, patience.as_micros() as u64, 0);
    let mut proposals: JoinSet<bool> = JoinSet::new();
    let (mut failures, mut propose_at) = (0, Instant::now());
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let topology = Arc::clone(&topologies.borrow_and_update());
        if *told_again.borrow_and_update() {
            return draining.left(&topology, Reason::ToldAgain);
        }
        let votes = consensus.group().voters.iter().any(|voter| voter.node == node);
        match draining.look(&topology, votes, began.elapsed().as_micros() as u64) {
            Next::End(drained) => return drained,
            // One at a time, and aside: the looks go on while nobody answers.
            Next::Propose(change) if proposals.is_empty() && Instant::now() >= propose_at => {
                let consensus = Arc::clone(consensus);
                proposals.spawn(async move {
                    let proposed = consensus.propose(change).await;
                    proposed.inspect_err(|error| tracing::info!(%error, "leaving was not agreed on yet")).is_ok()
                });
            }
            Next::Warn { slots } => tracing::warn!(
                slots,
                "slots are still here and nothing moves; a second SIGTERM ends this node, and loses them"
            ),
            Next::Propose(_) | Next::Wait => {}
        }
        tokio::select! {
            Some(proposed) = proposals.join_next() => {
                failures = if matches!(proposed, Ok(true)) { 0 } else { failures + 1 };
                propose_at = Instant::now() + (RETRY_PAUSE_MIN * (1 << failures.min(5))).min(RETRY_PAUSE_MAX);
            }
            changed = topologies.changed() => if changed.is_err() {
                return draining.left(&topology, Reason::ToldAgain);
            },
            _ = looks.tick() => {}
            Ok(()) = told_again.changed() => {}
        }
    }
}
