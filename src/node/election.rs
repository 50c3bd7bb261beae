//! Elections, as the raft leader holds them: asks the copies, and proposes who becomes the primary.

use crate::base::identity::{ClusterId, Incarnation, NodeId, Position};
use crate::cluster::election::{Answers, Electorate, PATIENCE_US, electorates, promotions};
use crate::cluster::support::FOLLOWED_US;
use crate::cluster::topology::Topology;
use crate::cluster::topology::raft::Consensus;
use crate::moves::Moves;
use crate::moves::copies::messages::{CopyAnswer, CopyRequest, encode};
use crate::transport::{Blob, Peer, Purpose, Request, Response, Sender, Transport};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Between looks whether this node leads.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Before an election that came to nothing is held again: doubled every time, up to the last.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(100);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);

/// Between questions to a member that has not followed into the generation yet.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// What elections are held with.
#[derive(Clone)]
pub(super) struct Elections {
    pub(super) node: NodeId,
    pub(super) consensus: Arc<dyn Consensus>,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) moves: Moves,
}

impl Elections {
    /// Holds elections whenever this node is the raft leader, until the topology ends.
    pub(super) async fn hold(self) {
        let mut topologies = self.consensus.subscribe();
        let mut pause = RETRY_PAUSE_MIN;
        let mut patience = Patience::new(&topologies.borrow());
        loop {
            let topology = Arc::clone(&topologies.borrow_and_update());
            patience.look(&topology);
            let leads = self.consensus.group().leader == Some(self.node);
            let open = if leads { electorates(&topology) } else { Vec::new() };
            if open.is_empty() {
                pause = RETRY_PAUSE_MIN;
                if let Ok(Err(_)) = tokio::time::timeout(LOOK_INTERVAL, topologies.changed()).await {
                    return;
                }
                continue;
            }
            let mut held = JoinSet::new();
            for one in open {
                let (elections, topology) = (self.clone(), Arc::clone(&topology));
                held.spawn(async move { elections.elect(&topology, &one, patience).await });
            }
            if held.join_all().await.into_iter().all(|has_ended| has_ended) {
                pause = RETRY_PAUSE_MIN;
            } else {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_PAUSE_MAX);
            }
        }
    }

    /// Whether all of these slots have a primary now, as far as is known.
    async fn elect(&self, topology: &Topology, one: &Electorate, patience: Patience) -> bool {
        let began = Instant::now();
        let answers = self.ask(topology, one, began + patience.left()).await;
        let mut elected = 0;
        let mut proposed = JoinSet::new();
        for change in promotions(one, &answers) {
            if let crate::cluster::topology::TopologyChange::Promote { slots, node, .. } = &change {
                elected += slots.len();
                tracing::info!(%slots, %node, epoch = one.epoch.0, took_ms = began.elapsed().as_millis() as u64, "a copy is elected");
            }
            let consensus = Arc::clone(&self.consensus);
            proposed.spawn(async move { consensus.propose(change).await });
        }
        // Unknown: it may be committed yet. The next look finds those slots elected, or asks again.
        if let Some(error) = proposed.join_all().await.into_iter().find_map(Result::err) {
            tracing::info!(%error, "an election was not agreed on");
            return false;
        }
        if elected < one.slots.len() {
            // Of how many slots each of those who answered has something.
            let said = |(node, said): (&NodeId, &Vec<Option<Position>>)| (*node, said.iter().flatten().count());
            let said: Vec<(NodeId, usize)> = answers.iter().map(said).collect();
            let (slots, needed, members) = (one.slots.len() - elected, one.needed, one.survivors);
            tracing::warn!(
                slots,
                needed,
                members,
                ?said,
                "too few members of these slots answer, their election goes on"
            );
        }
        elected == one.slots.len()
    }

    /// Asks all copies at once, and waits for those that answer. Of one that has no link before it is asked again.
    async fn ask(&self, topology: &Topology, one: &Electorate, asked_until: Instant) -> Answers {
        let patience = Duration::from_micros(PATIENCE_US);
        let mut asked = JoinSet::new();
        for (node, life) in one.lives.iter().copied() {
            let (slots, epoch, version) = (one.slots.clone(), one.epoch, topology.version);
            let request = CopyRequest::Fence { slots, epoch, life, version };
            let (moves, transport) = (self.moves.clone(), Arc::clone(&self.transport));
            let own = (node == self.node).then(|| sender(self.node, topology.cluster));
            let address = topology.nodes.get(&node).map(|node| SocketAddr::new(node.ip, node.cluster_port));
            asked.spawn(async move {
                let request = Blob(encode(&request));
                let response = match (own, address) {
                    (Some(own), _) => moves.answer(&own, &request).await,
                    (None, Some(address)) => loop {
                        let (peer, request) = (Peer { node: Some(node), address }, Request::Copy(request.clone()));
                        match transport.request(peer, Purpose::Copies, request, patience).await {
                            Ok(response) => break response,
                            Err(_) if Instant::now() + ASK_AGAIN < asked_until => tokio::time::sleep(ASK_AGAIN).await,
                            Err(_) => return None,
                        }
                    },
                    (None, None) => return None,
                };
                positions(&response).map(|positions| (node, positions))
            });
        }
        let mut answers = Answers::new();
        let until = asked_until.max(Instant::now() + patience);
        while let Ok(Some(answered)) = tokio::time::timeout_at(until, asked.join_next()).await {
            answers.extend(answered.ok().flatten());
        }
        answers
    }
}

/// How long members without a link are asked again: where another generation has just begun they follow in a moment, and may know the
/// most.
#[derive(Clone, Copy)]
struct Patience {
    generation: u32,
    until: Option<Instant>,
}

impl Patience {
    fn new(topology: &Topology) -> Patience {
        Patience { generation: topology.generation, until: None }
    }

    fn look(&mut self, topology: &Topology) {
        if std::mem::replace(&mut self.generation, topology.generation) != topology.generation {
            self.until = Some(Instant::now() + Duration::from_micros(FOLLOWED_US));
        }
    }

    fn left(self) -> Duration {
        self.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }
}

fn positions(response: &Response) -> Option<Vec<Option<Position>>> {
    let Response::Copy(Blob(bytes)) = response else { return None };
    match postcard::from_bytes(bytes) {
        Ok(CopyAnswer::Positions(positions)) => Some(positions),
        _ => None,
    }
}

/// This node, as it asks itself.
fn sender(node: NodeId, cluster: Option<ClusterId>) -> Sender {
    let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
    Sender { node, incarnation: Incarnation(0), cluster, ip, purpose: Purpose::Copies }
}
