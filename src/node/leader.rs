//! What the raft leader does for the cluster, and each node for its own membership: short loops around pure decisions.

use crate::base::clock::{Clock, SystemClock};
use crate::base::identity::{Incarnation, NodeId};
use crate::cluster::duties::{self, Hint, SlotMove, Stage};
use crate::cluster::hints::{self, LinksHeard};
use crate::cluster::membership::MembersView;
use crate::cluster::membership::socket::MembershipHandle;
use crate::cluster::topology::raft::Consensus;
use crate::cluster::topology::{Applied, Node, NodeState, Refused, Topology, TopologyChange};
use crate::cluster::view::is_current;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Between looks of the raft leader, where nothing changes.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// A hand-off that takes longer than this is called off: nobody serves its slots meanwhile.
const HAND_OFF_LIMIT: Duration = Duration::from_secs(3);
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Leads, whenever this node is the raft leader, until the topology ends.
pub(super) async fn lead(node: NodeId, consensus: Arc<dyn Consensus>, membership: Arc<MembershipHandle>) {
    let mut topologies = consensus.subscribe();
    let mut watching = Watching::default();
    let mut done: Option<(u64, BTreeMap<NodeId, Hint>)> = None;
    loop {
        let topology = Arc::clone(&topologies.borrow_and_update());
        if consensus.group().leader == Some(node) {
            let (members, heard) = (membership.members(), consensus.links_heard());
            watching.name_unheard(&topology, &members, &heard);
            let hints = watching.hints(node, &topology, &members, &heard);
            let mut changes = watching.overdue(&topology);
            // The plan is the same for the same topology and hints.
            if done.as_ref().is_none_or(|(version, known)| *version != topology.version || *known != hints) {
                changes.extend(duties::leader_duties(&topology, &hints));
                done = Some((topology.version, hints));
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
            watching = Watching::default();
            done = None;
        }
        if let Ok(Err(_)) = tokio::time::timeout(LOOK_INTERVAL, topologies.changed()).await {
            return;
        }
    }
}

/// What the leader has to see for a while before it acts on it.
#[derive(Default)]
struct Watching {
    absent: HashMap<NodeId, Instant>,
    /// Heard over links only, at the last look.
    unheard: Vec<NodeId>,
    handing_off: HashMap<u64, Instant>,
}

impl Watching {
    /// What gossip and links say of the members.
    fn hints(
        &mut self,
        own: NodeId,
        topology: &Topology,
        members: &MembersView,
        heard: &LinksHeard,
    ) -> BTreeMap<NodeId, Hint> {
        let mut found = BTreeMap::new();
        for node in topology.nodes.values().filter(|node| node.id != own) {
            let member = members.member(node.id);
            let absent = match member {
                Some(_) => {
                    self.absent.remove(&node.id);
                    Duration::ZERO
                }
                None => self.absent.entry(node.id).or_insert_with(Instant::now).elapsed(),
            };
            if let Some(hint) = hints::hint(node, member, absent, heard.get(&node.id)) {
                found.insert(node.id, hint);
            }
        }
        found
    }

    /// Says once of each member that its gossip does not come through.
    fn name_unheard(&mut self, topology: &Topology, members: &MembersView, heard: &LinksHeard) {
        let unheard = hints::heard_by_links_only(topology, members, heard, SystemClock.unix_ms());
        for node in unheard.iter().filter(|node| !self.unheard.contains(node)) {
            let address = topology.nodes.get(node).map(cluster_address);
            tracing::warn!(%node, ?address, "a member is heard over TCP and not by gossip: is its UDP port blocked?");
        }
        self.unheard = unheard;
    }

    /// Hand-offs that take too long.
    fn overdue(&mut self, topology: &Topology) -> Vec<TopologyChange> {
        let moves = duties::moves(topology);
        let open: Vec<SlotMove> = moves.into_iter().filter(|one| one.stage == Stage::HandingOff).collect();
        self.handing_off.retain(|begun, _| open.iter().any(|one| one.begun == *begun));
        let late = open.into_iter().filter(|one| {
            let since = self.handing_off.entry(one.begun).or_insert_with(Instant::now);
            since.elapsed() > HAND_OFF_LIMIT
        });
        late.map(|one| TopologyChange::AbortHandoff { slots: one.slots, to: one.to, begun: one.begun }).collect()
    }
}

/// Keeps this life of the node registered, until it leaves.
pub(super) async fn stay_registered(
    node: Node,
    consensus: Arc<dyn Consensus>,
    incarnation: watch::Sender<Option<Incarnation>>,
    leaving: Arc<AtomicBool>,
) {
    let mut topologies = consensus.subscribe();
    loop {
        let topology = Arc::clone(&topologies.borrow_and_update());
        if leaving.load(Ordering::Acquire) {
            return;
        }
        let own = *incarnation.borrow();
        if is_current(&topology, node.id, own) {
            if topologies.changed().await.is_err() {
                return;
            }
            continue;
        }
        // Unknown: the same again. The same start said twice changes nothing, and nothing is served before it is known.
        match consensus.propose(TopologyChange::RegisterNode { node: node.clone() }).await {
            Ok(proposal) => match proposal.applied {
                Applied::Registered(given) => {
                    tracing::info!(node = %node.id, incarnation = given.0, "registered in the cluster");
                    incarnation.send_replace(Some(given));
                    let version = proposal.index;
                    if topologies.wait_for(|topology| topology.version >= version).await.is_err() {
                        return;
                    }
                }
                Applied::Refused(Refused::AddressTaken) => replace(&node, &consensus).await,
                other => tracing::warn!(?other, "this node was not registered"),
            },
            Err(error) => tracing::warn!(%error, "this node could not register"),
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// Another member is said to live at this node's address, which this node has bound: it is gone.
async fn replace(node: &Node, consensus: &Arc<dyn Consensus>) {
    let topology = Arc::clone(&consensus.subscribe().borrow());
    let at = |other: &&Node| (other.ip, other.cluster_port) == (node.ip, node.cluster_port) && other.id != node.id;
    for other in topology.nodes.values().filter(at).filter(|other| other.state != NodeState::Down) {
        tracing::warn!(former = %other.id, "another node had this address: it is down");
        let down =
            TopologyChange::SetMemberState { node: other.id, incarnation: other.incarnation, state: NodeState::Down };
        // Unknown: who calls this registers again after a pause, and comes here again where it is still so.
        if let Err(error) = consensus.propose(down).await {
            tracing::warn!(%error, "the former node at this address could not be declared down");
        }
    }
}

/// Where a member's links and gossip are.
pub(super) fn cluster_address(node: &Node) -> SocketAddr {
    SocketAddr::new(node.ip, node.cluster_port)
}
