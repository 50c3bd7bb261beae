//! What the raft leader does for the cluster, and each node for its own membership: short loops around pure decisions.

use crate::base::clock::{Clock, SystemClock};
use crate::base::identity::{Incarnation, NodeId};
use crate::base::slot_ranges::SlotRanges;
use crate::cluster::duties;
use crate::cluster::fencing::Fencing;
use crate::cluster::membership::socket::MembershipHandle;
use crate::cluster::registration::{Event, Registration};
use crate::cluster::topology::raft::Consensus;
use crate::cluster::topology::{Applied, Node, Refused, Topology, TopologyChange};
use crate::cluster::watching::Watching;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Between looks of the raft leader, where nothing changes.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Leads, whenever this node is the raft leader, until the topology ends.
pub(super) async fn lead(node: NodeId, consensus: Arc<dyn Consensus>, membership: Arc<MembershipHandle>) {
    let mut topologies = consensus.subscribe();
    let (mut watching, mut fencing, began) = (Watching::default(), Fencing::default(), Instant::now());
    let mut done: Option<(u64, bool, BTreeSet<NodeId>)> = None;
    loop {
        let topology = Arc::clone(&topologies.borrow_and_update());
        if consensus.group().leader == Some(node) {
            let (members, heard) = (membership.members(), consensus.links_heard());
            for unheard in watching.newly_unheard(&topology, &members, &heard, SystemClock.unix_ms()) {
                let address = topology.nodes.get(&unheard).map(cluster_address);
                tracing::warn!(node = %unheard, ?address, "a member is heard over TCP and not by gossip: is its UDP port blocked?");
            }
            let now_us = began.elapsed().as_micros() as u64;
            consensus.lease_reports().into_iter().for_each(|(voter, report)| fencing.heard(voter, report));
            let now_ms = SystemClock.unix_ms();
            let mut changes = fencing.fences(&topology, now_ms);
            let raft_voters = consensus.group().voters.iter().map(|voter| voter.node).collect();
            changes.extend(fencing.next_voters(&topology, &raft_voters, now_us));
            changes.extend(watching.overdue(&topology, now_us));
            changes.extend(topology.probations_over(now_ms));
            let gathering = watching.is_gathering(&topology, now_us) || duties::is_paused(&topology);
            // The plan is the same for the same topology.
            let given_up = watching.given_up(&topology, now_us);
            let decided_by = Some((topology.version, gathering, given_up.clone()));
            if done != decided_by {
                changes.extend(planned(&topology, gathering, given_up).await);
                done = decided_by;
            }
            let mut refused = false;
            for change in changes {
                tracing::debug!(?change, "the raft leader proposes");
                // Unknown: it may be committed yet. The next look decides anew by the newest topology; every change names
                // what it was decided by, and is refused where that is over.
                match consensus.propose(change).await {
                    Ok(proposal) => refused |= matches!(proposal.applied, Applied::Refused(_)),
                    Err(error) => {
                        tracing::info!(%error, "a change of the topology was not agreed on");
                        done = None;
                        break;
                    }
                }
            }
            if refused {
                // A refusal is a new version of the topology too, so the next look would come at once: one that is always
                // refused must not fill the raft log.
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        } else {
            (watching, fencing) = (Watching::default(), Fencing::default());
            done = None;
        }
        if let Ok(Err(_)) = tokio::time::timeout(LOOK_INTERVAL, topologies.changed()).await {
            return;
        }
    }
}

/// What the plan asks for. Elsewhere than on the thread of the heartbeats: with copies a plan takes tens of milliseconds.
async fn planned(topology: &Arc<Topology>, gathering: bool, given_up: BTreeSet<NodeId>) -> Vec<TopologyChange> {
    let topology = Arc::clone(topology);
    let plan = move || duties::leader_duties(&topology, gathering, &given_up);
    // A panic ends the process.
    tokio::task::spawn_blocking(plan).await.unwrap_or_default()
}

/// Keeps this life of the node registered, until it leaves. `kept`: it has what it owned in its
/// former life, and everything of these slots. `unwanted` becomes
/// true where it is an arbiter and may not be one.
pub(super) async fn stay_registered(
    node: Node,
    kept: Option<SlotRanges>,
    consensus: Arc<dyn Consensus>,
    incarnation: watch::Sender<Option<Incarnation>>,
    leaving: Arc<AtomicBool>,
    unwanted: watch::Sender<bool>,
) {
    let mut topologies = consensus.subscribe();
    let mut registration = Registration::new(node.clone());
    let began = Instant::now();
    let (mut event, mut has_warned) = (Event::Look, false);
    loop {
        let topology = Arc::clone(&topologies.borrow_and_update());
        if registration.is_elsewhere(&topology) && !std::mem::replace(&mut has_warned, true) {
            tracing::warn!(
                "this node was at another address, and may still answer there: waiting until the others have not heard it"
            );
        }
        if leaving.load(Ordering::Acquire) {
            return;
        }
        let registers = registration.on(event, &topology, began.elapsed().as_micros() as u64);
        if *incarnation.borrow() != registration.incarnation() {
            incarnation.send_replace(registration.incarnation());
        }
        event = Event::Look;
        if registers {
            event = register(&node, kept.as_ref(), &consensus, &unwanted).await;
            continue;
        }
        let wake_at = registration.wake_at_us(&topology).map(|at_us| began + Duration::from_micros(at_us));
        let changed = match wake_at {
            Some(at) => tokio::time::timeout_at(at.into(), topologies.changed()).await.unwrap_or(Ok(())),
            None => topologies.changed().await,
        };
        if changed.is_err() {
            return;
        }
    }
}

async fn register(
    node: &Node,
    kept: Option<&SlotRanges>,
    consensus: &Arc<dyn Consensus>,
    unwanted: &watch::Sender<bool>,
) -> Event {
    let node = node.clone();
    let id = node.id;
    let change = match kept {
        Some(kept) => TopologyChange::ReturnNode { node, kept: kept.clone() },
        None => TopologyChange::RegisterNode { node },
    };
    match consensus.propose(change).await {
        Ok(proposal) => match proposal.applied {
            Applied::Registered(incarnation) => {
                tracing::info!(node = %id, incarnation = incarnation.0, "registered in the cluster");
                Event::Registered { incarnation, version: proposal.index }
            }
            Applied::Refused(Refused::AddressTaken) => {
                // This node has bound it: the other one is fenced in a moment.
                tracing::warn!(
                    "another member is said to be at this node's address: waiting until it is known to be gone"
                );
                Event::Failed
            }
            Applied::Refused(Refused::OwnsSlots) => {
                unwanted.send_replace(true);
                Event::Failed
            }
            other => {
                tracing::warn!(?other, "this node was not registered");
                Event::Failed
            }
        },
        Err(error) => {
            tracing::warn!(%error, "this node could not register");
            Event::Failed
        }
    }
}

/// Where a member's links and gossip are.
pub(super) fn cluster_address(node: &Node) -> SocketAddr {
    SocketAddr::new(node.ip, node.cluster_port)
}
