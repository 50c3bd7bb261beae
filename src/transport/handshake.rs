//! How a link begins: both ends show cluster, generation, node and incarnation, and prove that they know the secret.
//!
//! ```text
//! opener                                   acceptor
//!   Hello { who, wanted, nonce }   ---->
//!                                  <----   Welcome { who, nonce, proof of both }     or Refusal
//!   Proof { proof of both }        ---->                     or Refusal
//!                                  <----   Open                                      or Refusal
//! ```
//!
//! A proof is HMAC-SHA256 over hello and welcome with a word for the side, so neither can be replayed or mirrored.
//! Without a secret proofs are empty, and both ends must be on the loopback address. Pure: nonces are arguments.

use super::messages::{Purpose, VERSION};
use crate::base::identity::{ClusterId, Incarnation, NodeId};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::fmt;
use std::net::IpAddr;

/// Random bytes that make every handshake another one.
pub type Nonce = [u8; 32];

/// What a node says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LocalIdentity {
    pub node: NodeId,
    /// `None`: it belongs to no cluster yet.
    pub cluster: Option<ClusterId>,
    /// Forced recoveries of the cluster.
    pub generation: u32,
    /// 0: not registered in this life yet.
    pub incarnation: Incarnation,
}

/// The opener's first message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    pub version: u16,
    pub from: LocalIdentity,
    /// Whom it wants to reach, where it knows.
    pub wanted: Option<NodeId>,
    pub purpose: Purpose,
    pub nonce: Nonce,
}

/// The acceptor's answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Welcome {
    pub from: LocalIdentity,
    pub nonce: Nonce,
    pub proof: Vec<u8>,
}

/// The opener's proof.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Proof(pub Vec<u8>);

/// Why there is no link. Worded so that it is true at both ends.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Refusal {
    /// It speaks another version of this protocol.
    OtherVersion,
    /// It belongs to another cluster, or to none where one is needed.
    OtherCluster,
    /// One of the two has missed a forced recovery.
    OtherGeneration,
    /// Another node than the wanted one lives at this address.
    OtherNode,
    /// Its secret is another one.
    BadProof,
    /// There is no secret, and an end is not on the loopback address.
    NotLoopback,
    /// A later life of the node is known, or it bears this node's own id.
    StaleIncarnation,
    /// The topology does not know it.
    NotMember,
    /// There are as many links as may be.
    TooManyLinks,
    /// Only one of the two has a secret.
    OneSecret,
}

impl Refusal {
    /// Whether it may be right for a moment while nodes start, end and change places; the others last until somebody
    /// changes a configuration.
    pub fn is_passing(self) -> bool {
        match self {
            Refusal::OtherNode | Refusal::StaleIncarnation | Refusal::NotMember | Refusal::TooManyLinks => true,
            Refusal::OtherVersion
            | Refusal::OtherCluster
            | Refusal::OtherGeneration
            | Refusal::BadProof
            | Refusal::NotLoopback
            | Refusal::OneSecret => false,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::OtherVersion => "the two nodes speak different versions of the protocol",
            Refusal::OtherCluster => "the two nodes belong to different clusters",
            Refusal::OtherGeneration => "the two nodes belong to different generations of the cluster",
            Refusal::OtherNode => "another node lives at this address",
            Refusal::BadProof => "the two nodes have different values of cluster-secret",
            Refusal::NotLoopback => "without a cluster-secret, nodes have links on the loopback address only",
            Refusal::OneSecret => "only one of the two nodes has a cluster-secret",
            Refusal::StaleIncarnation => "a later life of the node is known",
            Refusal::NotMember => "not a member",
            Refusal::TooManyLinks => "too many links",
        })
    }
}

/// The secret of the cluster. Its bytes never appear in logs.
#[derive(Clone)]
pub struct LinkSecret {
    keyed: Hmac<Sha256>,
}

impl LinkSecret {
    /// A secret of any length; `None` where it is empty: an empty secret is no secret.
    pub fn new(secret: &[u8]) -> Option<LinkSecret> {
        if secret.is_empty() {
            return None;
        }
        let keyed = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
        Some(LinkSecret { keyed })
    }

    fn mac(&self, side: Side, hello: &Hello, from: &LocalIdentity, nonce: &Nonce) -> Hmac<Sha256> {
        let mut mac = self.keyed.clone();
        mac.update(match side {
            Side::Opener => b"starling link opener  ",
            Side::Acceptor => b"starling link acceptor",
        });
        // Fixed order and self-delimiting encoding: two different pairs never give the same bytes.
        let transcript = postcard::to_stdvec(&(hello, from, nonce)).expect("plain values of bounded size are encoded");
        mac.update(&transcript);
        mac
    }
}

impl fmt::Debug for LinkSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkSecret(..)")
    }
}

#[derive(Clone, Copy)]
enum Side {
    Opener,
    Acceptor,
}

/// Whether an address may have a link at all.
pub fn check_address(secret: Option<&LinkSecret>, ip: IpAddr) -> Result<(), Refusal> {
    if secret.is_some() || ip.to_canonical().is_loopback() { Ok(()) } else { Err(Refusal::NotLoopback) }
}

/// The opener's first message.
pub fn hello(own: &LocalIdentity, wanted: Option<NodeId>, purpose: Purpose, nonce: Nonce) -> Hello {
    Hello { version: VERSION, from: *own, wanted, purpose, nonce }
}

/// The acceptor's answer to a hello.
pub fn welcome(
    own: &LocalIdentity,
    secret: Option<&LinkSecret>,
    hello: &Hello,
    nonce: Nonce,
) -> Result<Welcome, Refusal> {
    if hello.version != VERSION {
        return Err(Refusal::OtherVersion);
    }
    if hello.wanted.is_some_and(|wanted| wanted != own.node) {
        return Err(Refusal::OtherNode);
    }
    if hello.from.node == own.node {
        return Err(Refusal::StaleIncarnation);
    }
    check_cluster(own, &hello.from, hello.purpose)?;
    let proof = prove(secret, Side::Acceptor, hello, own, &nonce);
    Ok(Welcome { from: *own, nonce, proof })
}

/// The opener's judgement of a welcome, and its own proof.
pub fn prove_opener(
    own: &LocalIdentity,
    secret: Option<&LinkSecret>,
    hello: &Hello,
    welcome: &Welcome,
) -> Result<Proof, Refusal> {
    if hello.wanted.is_some_and(|wanted| wanted != welcome.from.node) {
        return Err(Refusal::OtherNode);
    }
    check_cluster(own, &welcome.from, hello.purpose)?;
    check(secret, Side::Acceptor, hello, welcome, &welcome.proof)?;
    Ok(Proof(prove(secret, Side::Opener, hello, &welcome.from, &welcome.nonce)))
}

/// The acceptor's judgement of the opener's proof.
pub fn check_opener(
    secret: Option<&LinkSecret>,
    hello: &Hello,
    welcome: &Welcome,
    proof: &Proof,
) -> Result<(), Refusal> {
    check(secret, Side::Opener, hello, welcome, &proof.0)
}

/// Joining links connect any two nodes that are not of two different clusters; others need the same cluster and generation,
/// those about recoveries the same cluster.
fn check_cluster(own: &LocalIdentity, other: &LocalIdentity, purpose: Purpose) -> Result<(), Refusal> {
    match (own.cluster, other.cluster) {
        (Some(ours), Some(theirs)) if ours == theirs && own.generation == other.generation => Ok(()),
        (Some(ours), Some(theirs)) if ours == theirs && purpose == Purpose::Recovery => Ok(()),
        (Some(ours), Some(theirs)) if ours == theirs => Err(Refusal::OtherGeneration),
        (Some(_), Some(_)) => Err(Refusal::OtherCluster),
        _ if purpose == Purpose::Join => Ok(()),
        _ => Err(Refusal::OtherCluster),
    }
}

fn prove(secret: Option<&LinkSecret>, side: Side, hello: &Hello, from: &LocalIdentity, nonce: &Nonce) -> Vec<u8> {
    secret.map_or_else(Vec::new, |secret| secret.mac(side, hello, from, nonce).finalize().into_bytes().to_vec())
}

/// In constant time, as `verify_slice` promises.
fn check(
    secret: Option<&LinkSecret>,
    side: Side,
    hello: &Hello,
    welcome: &Welcome,
    proof: &[u8],
) -> Result<(), Refusal> {
    match secret {
        Some(_) if proof.is_empty() => Err(Refusal::OneSecret),
        Some(secret) => {
            secret.mac(side, hello, &welcome.from, &welcome.nonce).verify_slice(proof).map_err(|_| Refusal::BadProof)
        }
        None if proof.is_empty() => Ok(()),
        None => Err(Refusal::OneSecret),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u128, cluster: Option<u128>) -> LocalIdentity {
        LocalIdentity { node: NodeId(id), cluster: cluster.map(ClusterId), generation: 0, incarnation: Incarnation(1) }
    }

    fn secret(text: &str) -> Option<LinkSecret> {
        LinkSecret::new(text.as_bytes())
    }

    fn greet(
        opener: &LocalIdentity,
        acceptor: &LocalIdentity,
        purpose: Purpose,
        secrets: (&str, &str),
    ) -> Result<(), Refusal> {
        let (ours, theirs) = (secret(secrets.0), secret(secrets.1));
        let hello = hello(opener, None, purpose, [1; 32]);
        let welcome = welcome(acceptor, theirs.as_ref(), &hello, [2; 32])?;
        let proof = prove_opener(opener, ours.as_ref(), &hello, &welcome)?;
        check_opener(theirs.as_ref(), &hello, &welcome, &proof)
    }

    #[test]
    fn only_nodes_of_one_cluster_and_one_secret_have_links() {
        let (a, b) = (node(1, Some(9)), node(2, Some(9)));
        let cases = [
            (a, b, Purpose::Raft, ("s", "s"), Ok(())),
            (a, b, Purpose::Raft, ("", ""), Ok(())),
            (a, b, Purpose::Raft, ("s", "t"), Err(Refusal::BadProof)),
            (a, b, Purpose::Raft, ("s", ""), Err(Refusal::OneSecret)),
            (a, b, Purpose::Raft, ("", "s"), Err(Refusal::OneSecret)),
            (a, node(2, Some(8)), Purpose::Join, ("s", "s"), Err(Refusal::OtherCluster)),
            (a, node(2, None), Purpose::Control, ("s", "s"), Err(Refusal::OtherCluster)),
            (node(1, None), b, Purpose::Join, ("s", "s"), Ok(())),
            (node(1, None), b, Purpose::Copies, ("s", "s"), Err(Refusal::OtherCluster)),
            (node(1, None), node(2, None), Purpose::Join, ("s", "s"), Ok(())),
            (a, node(1, Some(9)), Purpose::Raft, ("s", "s"), Err(Refusal::StaleIncarnation)),
            (a, LocalIdentity { generation: 1, ..b }, Purpose::Raft, ("s", "s"), Err(Refusal::OtherGeneration)),
            (a, LocalIdentity { generation: 1, ..b }, Purpose::Recovery, ("s", "s"), Ok(())),
            (a, LocalIdentity { generation: 1, ..b }, Purpose::Recovery, ("s", "t"), Err(Refusal::BadProof)),
            (a, node(2, Some(8)), Purpose::Recovery, ("s", "s"), Err(Refusal::OtherCluster)),
        ];
        for (opener, acceptor, purpose, secrets, expected) in cases {
            assert_eq!(greet(&opener, &acceptor, purpose, secrets), expected, "{opener:?} {acceptor:?} {purpose:?}");
        }
    }

    #[test]
    fn a_proof_serves_for_one_handshake_and_one_side() {
        let (a, b, key) = (node(1, Some(9)), node(2, Some(9)), secret("s"));
        let first = hello(&a, Some(b.node), Purpose::Raft, [1; 32]);
        let answer = welcome(&b, key.as_ref(), &first, [2; 32]).expect("welcome");
        let proof = prove_opener(&a, key.as_ref(), &first, &answer).expect("proved");
        assert_eq!(check_opener(key.as_ref(), &first, &answer, &Proof(answer.proof.clone())), Err(Refusal::BadProof));
        let other = welcome(&b, key.as_ref(), &first, [3; 32]).expect("welcome");
        assert_eq!(check_opener(key.as_ref(), &first, &other, &proof), Err(Refusal::BadProof));
        let claimed = Hello { from: node(3, Some(9)), ..first };
        assert_eq!(check_opener(key.as_ref(), &claimed, &answer, &proof), Err(Refusal::BadProof));
        let elsewhere = hello(&a, Some(NodeId(7)), Purpose::Raft, [1; 32]);
        assert_eq!(welcome(&b, key.as_ref(), &elsewhere, [2; 32]), Err(Refusal::OtherNode));
    }

    #[test]
    fn without_a_secret_only_loopback() {
        let far: IpAddr = [10, 0, 0, 1].into();
        let near: IpAddr = [127, 0, 0, 1].into();
        assert_eq!(check_address(None, far), Err(Refusal::NotLoopback));
        assert_eq!(check_address(None, near), Ok(()));
        assert_eq!(check_address(secret("s").as_ref(), far), Ok(()));
    }
}
