//! How a new node finds its cluster: through members, or together with other new nodes.
//!
//! ```text
//!  --cluster            creates a cluster of one
//!  --join seeds         asks the seeds until one of them is a member; never creates
//!  --bootstrap-expect N asks the seeds until N new nodes all see each other: the one with the lowest id creates
//! ```
//!
//! A member's answer always wins, so a node that has a cluster vetoes the creation of another one by being heard. What
//! new nodes tell each other spreads: two that know a third find each other through it. The decision is pure.

use crate::base::identity::{ClusterId, NodeId};
use crate::transport::{Blob, Peer, Purpose, Request, Response, Transport};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Between two rounds of questions.
const ROUND_PAUSE: Duration = Duration::from_millis(200);
/// How long a seed may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// Rounds between two lines in the log that say what is waited for.
const ROUNDS_PER_LOG_LINE: u32 = 25;
/// New nodes that are remembered: more than anybody starts at once.
const FRESH_MAX: usize = 1024;

/// What a new node tells when it asks to be let in, or is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreshNode {
    pub node: NodeId,
    /// Its cluster port.
    pub address: SocketAddr,
    /// How many new nodes it wants to create a cluster with; 0: it joins only.
    pub expects: u32,
    /// The new nodes that it has heard of, itself among them, and where they are.
    pub sees: BTreeMap<NodeId, SocketAddr>,
}

/// What a node without a cluster must know to become a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    pub cluster: ClusterId,
    pub generation: u32,
    /// The key of the table hash.
    pub hash_key: u128,
    /// The cluster ports of some members, the answering one first.
    pub members: Vec<SocketAddr>,
}

/// The answer to a new node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinAnswer {
    Welcome(Welcome),
    /// The one that was asked is new itself.
    Fresh(FreshNode),
}

/// How a search ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A cluster, and who let this node in.
    Cluster(Welcome),
    /// None, and this node is the one that creates it.
    Create,
}

/// What a new node knows of others like it. Shared between the search and the answers to others.
#[derive(Debug)]
pub struct Forming {
    own: Mutex<FreshNode>,
}

impl Forming {
    /// A new node that knows nobody.
    pub fn new(node: NodeId, address: SocketAddr, expects: u32) -> Forming {
        let sees = BTreeMap::from([(node, address)]);
        Forming { own: Mutex::new(FreshNode { node, address, expects, sees }) }
    }

    /// What it tells of itself.
    pub fn own(&self) -> FreshNode {
        self.own.lock().clone()
    }

    /// Answers another new node, and remembers it.
    pub fn answer(&self, Blob(bytes): &Blob) -> Response {
        match postcard::from_bytes::<FreshNode>(bytes) {
            Ok(asker) => {
                self.remember(&asker);
                Response::Join(JoinAnswer::Fresh(self.own()).encode())
            }
            Err(_) => Response::Failed("a malformed request to join".into()),
        }
    }

    /// Another new node was heard of, and those it knows.
    fn remember(&self, other: &FreshNode) {
        let mut own = self.own.lock();
        let known = other.sees.iter().map(|(node, address)| (*node, *address));
        for (node, address) in known.chain([(other.node, other.address)]) {
            if own.sees.len() < FRESH_MAX {
                own.sees.entry(node).or_insert(address);
            }
        }
    }

    /// Asks until the cluster is found. `seeds` gives the addresses of a round: names may resolve to others later.
    pub async fn search<S>(&self, transport: Arc<dyn Transport>, mut seeds: impl FnMut() -> S) -> Found
    where
        S: Future<Output = Vec<SocketAddr>>,
    {
        let mut round = 0u32;
        loop {
            let own = self.own();
            let mut addresses: BTreeSet<SocketAddr> = seeds().await.into_iter().collect();
            addresses.extend(own.sees.values());
            addresses.remove(&own.address);
            let answers = self.ask(&transport, &own, &addresses).await;
            match decide(&own, &answers) {
                Some(found) => return found,
                None if round.is_multiple_of(ROUNDS_PER_LOG_LINE) => {
                    let (seen, expects) = (own.sees.len(), own.expects);
                    tracing::info!(seeds = ?addresses, new_nodes_seen = seen, expects, "looking for the cluster");
                }
                None => {}
            }
            round = round.wrapping_add(1);
            tokio::time::sleep(ROUND_PAUSE).await;
        }
    }

    /// Asks all of them at once.
    async fn ask(
        &self,
        transport: &Arc<dyn Transport>,
        own: &FreshNode,
        addresses: &BTreeSet<SocketAddr>,
    ) -> Vec<JoinAnswer> {
        let mut questions = tokio::task::JoinSet::new();
        for &address in addresses {
            let (transport, request) = (Arc::clone(transport), Request::Join(encode(own)));
            let peer = Peer { node: None, address };
            questions.spawn(async move { transport.request(peer, Purpose::Join, request, ANSWER_TIMEOUT).await });
        }
        let mut answers = Vec::new();
        while let Some(answer) = questions.join_next().await {
            match answer {
                Ok(Ok(Response::Join(Blob(bytes)))) => {
                    if let Ok(answer) = postcard::from_bytes::<JoinAnswer>(&bytes) {
                        if let JoinAnswer::Fresh(other) = &answer {
                            self.remember(other);
                        }
                        answers.push(answer);
                    }
                }
                Ok(Err(error)) => tracing::debug!(%error, "a seed did not answer"),
                Ok(Ok(_)) | Err(_) => {}
            }
        }
        answers
    }
}

impl JoinAnswer {
    /// As it travels.
    pub fn encode(&self) -> Blob {
        encode(self)
    }
}

fn encode<T: Serialize>(message: &T) -> Blob {
    Blob(postcard::to_stdvec(message).expect("plain values are encoded"))
}

/// What a round of answers comes to; `None`: ask again.
fn decide(own: &FreshNode, answers: &[JoinAnswer]) -> Option<Found> {
    let mut fresh: BTreeMap<NodeId, &FreshNode> = BTreeMap::from([(own.node, own)]);
    for answer in answers {
        match answer {
            JoinAnswer::Welcome(welcome) => return Some(Found::Cluster(welcome.clone())),
            JoinAnswer::Fresh(other) if other.expects > 0 => {
                fresh.insert(other.node, other);
            }
            JoinAnswer::Fresh(_) => {}
        }
    }
    let enough = own.expects > 0 && fresh.len() >= own.expects as usize;
    let is_first = fresh.keys().next() == Some(&own.node);
    let all_see_all = || fresh.values().all(|one| fresh.keys().all(|node| one.sees.contains_key(node)));
    (enough && is_first && all_see_all()).then_some(Found::Create)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh(node: u128, expects: u32, sees: &[u128]) -> FreshNode {
        let address = |node: u128| SocketAddr::from(([127, 0, 0, 1], 17000 + node as u16));
        let sees = sees.iter().chain([&node]).map(|&node| (NodeId(node), address(node))).collect();
        FreshNode { node: NodeId(node), address: address(node), expects, sees }
    }

    fn welcome() -> Welcome {
        Welcome { cluster: ClusterId(7), generation: 0, hash_key: 9, members: Vec::new() }
    }

    #[test]
    fn the_lowest_of_enough_nodes_that_see_each_other_creates() {
        let check = |own: FreshNode, others: &[FreshNode], expected: Option<Found>| {
            let answers: Vec<JoinAnswer> = others.iter().cloned().map(JoinAnswer::Fresh).collect();
            assert_eq!(decide(&own, &answers), expected, "{own:?} with {others:?}");
        };
        let (two, three) = (fresh(2, 3, &[1, 3]), fresh(3, 3, &[1, 2]));
        check(fresh(1, 3, &[2, 3]), &[two.clone(), three.clone()], Some(Found::Create));
        check(fresh(2, 3, &[1, 3]), &[fresh(1, 3, &[2, 3]), three.clone()], None);
        check(fresh(1, 3, &[2, 3]), &[two.clone(), fresh(3, 3, &[1])], None);
        check(fresh(1, 3, &[2]), std::slice::from_ref(&two), None);
        // Who only joins neither creates nor counts.
        check(fresh(1, 0, &[2, 3]), &[two.clone(), three.clone()], None);
        check(fresh(1, 2, &[2]), &[fresh(2, 0, &[1])], None);
        check(fresh(1, 1, &[]), &[], Some(Found::Create));
    }

    #[test]
    fn a_member_vetoes_the_creation_of_another_cluster() {
        let answers = [JoinAnswer::Fresh(fresh(2, 2, &[1])), JoinAnswer::Welcome(welcome())];
        assert_eq!(decide(&fresh(1, 2, &[2]), &answers), Some(Found::Cluster(welcome())));
        assert_eq!(decide(&fresh(1, 0, &[]), &answers[1..]), Some(Found::Cluster(welcome())));
    }

    #[test]
    fn new_nodes_find_each_other_through_a_third() {
        let forming = Forming::new(NodeId(1), ([127, 0, 0, 1], 17001).into(), 3);
        let answer = forming.answer(&encode(&fresh(2, 3, &[3])));
        assert!(matches!(answer, Response::Join(_)));
        assert_eq!(forming.own().sees.len(), 3);
        assert!(matches!(forming.answer(&Blob(vec![1])), Response::Failed(_)));
    }
}
