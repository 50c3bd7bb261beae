//! A member's identity, as every gossip message carries it, and its bytes.
//!
//! To foca a member is its node id; what else the identity holds may change from life to life. Of two identities with
//! the same node id the later life wins, everywhere, so a restarted or renewed node replaces what was known of it.

use crate::base::identity::NodeId;
use bytes::{Buf, BufMut};
use foca::{Codec, Header, Member, PostcardCodec};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One life of a member, ordered: by the start of its process, then by how often gossip declared it dead wrongly.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Life {
    /// When the process started, ms since 1970. Whoever starts a node makes it greater than at any start before, also
    /// when the clock was set back (it is kept in the data directory).
    pub start_ms: u64,
    /// How often this process took a new identity because the old one was declared dead. Never wraps.
    pub renewals: u32,
}

/// What every member tells of itself: small, and unchanged while its process lives. Large things are in the topology.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug, Serialize, Deserialize)]
pub struct MemberMetadata {
    /// Where clients connect.
    pub client_port: u16,
    /// Where clients that want requests forwarded connect; 0 when off.
    pub proxy_port: u16,
    /// Share of the slots, in hundredths: 100 is the usual share, 200 twice it.
    pub weight_percent: u16,
    /// Hash of the zone's name; 0 without a zone. Equal zones have equal hashes.
    pub zone: u32,
}

/// A member as gossip names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MemberIdentity {
    #[serde(with = "fixed_width")]
    pub node: NodeId,
    /// Where its gossip (UDP) is heard; its node links (TCP) use the same port.
    pub address: SocketAddr,
    pub life: Life,
    pub metadata: MemberMetadata,
}

/// The node id of a seed of which only the address is known: whoever listens there takes it as its own.
pub(super) const WHOEVER: NodeId = NodeId(0);

impl MemberIdentity {
    /// Stands for whoever listens at this address.
    pub(super) fn seed(address: SocketAddr) -> MemberIdentity {
        let life = Life { start_ms: 0, renewals: 0 };
        MemberIdentity { node: WHOEVER, address, life, metadata: MemberMetadata::default() }
    }
}

impl foca::Identity for MemberIdentity {
    type Addr = NodeId;

    /// The same process, one renewal later: what foca takes up when the cluster has declared it dead.
    fn renew(&self) -> Option<MemberIdentity> {
        let life = Life { renewals: self.life.renewals.checked_add(1)?, ..self.life };
        Some(MemberIdentity { life, ..*self })
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    /// The later life wins. The rest decides only between copies of a data directory that started in the same
    /// millisecond: any order will do, if all members have the same.
    fn win_addr_conflict(&self, adversary: &MemberIdentity) -> bool {
        (self.life, self.address, self.metadata) > (adversary.life, adversary.address, adversary.metadata)
    }
}

/// Node ids as 16 bytes: as a variable-length number, a random one takes 19.
mod fixed_width {
    use super::NodeId;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(node: &NodeId, serializer: S) -> Result<S::Ok, S::Error> {
        node.0.to_be_bytes().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NodeId, D::Error> {
        <[u8; 16]>::deserialize(deserializer).map(|bytes| NodeId(u128::from_be_bytes(bytes)))
    }
}

/// foca's messages as postcard bytes, with two things that only the codec can see.
pub(super) struct IdentityCodec {
    pub(super) own: NodeId,
    pub(super) addressed: LifeAddressed,
}

/// The latest start by which anyone has addressed this node, in ms since 1970.
///
/// If it is later than the node's own start, peers remember a later life: the clock was set back between two starts.
/// Peers drop what this node says, so the address on what they send to its later life is all it ever learns of that.
#[derive(Clone, Debug, Default)]
pub(super) struct LifeAddressed {
    start_ms: Arc<AtomicU64>,
}

impl LifeAddressed {
    pub(super) fn start_ms(&self) -> u64 {
        self.start_ms.load(Ordering::Relaxed)
    }
}

impl Codec<MemberIdentity> for IdentityCodec {
    type Error = postcard::Error;

    fn encode_header(&mut self, header: &Header<MemberIdentity>, buffer: impl BufMut) -> Result<(), Self::Error> {
        PostcardCodec.encode_header(header, buffer)
    }

    fn decode_header(&mut self, buffer: impl Buf) -> Result<Header<MemberIdentity>, Self::Error> {
        let mut header: Header<MemberIdentity> = PostcardCodec.decode_header(buffer)?;
        if header.dst.node == WHOEVER {
            header.dst.node = self.own;
        } else if header.dst.node == self.own {
            self.addressed.start_ms.fetch_max(header.dst.life.start_ms, Ordering::Relaxed);
        }
        Ok(header)
    }

    fn encode_member(&mut self, member: &Member<MemberIdentity>, buffer: impl BufMut) -> Result<(), Self::Error> {
        PostcardCodec.encode_member(member, buffer)
    }

    fn decode_member(&mut self, buffer: impl Buf) -> Result<Member<MemberIdentity>, Self::Error> {
        PostcardCodec.decode_member(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foca::Identity;

    fn identity(start_ms: u64, renewals: u32) -> MemberIdentity {
        MemberIdentity {
            node: NodeId(u128::MAX),
            address: "127.0.0.1:17000".parse().expect("an address"),
            life: Life { start_ms, renewals },
            metadata: MemberMetadata { client_port: 7000, proxy_port: 0, weight_percent: 100, zone: 0 },
        }
    }

    #[test]
    fn a_renewed_identity_wins_and_never_wraps() {
        let first = identity(5, 0);
        let second = first.renew().expect("renews");
        assert!(second.win_addr_conflict(&first) && !first.win_addr_conflict(&second));
        assert_eq!(identity(5, u32::MAX).renew(), None);
    }

    #[test]
    fn a_restart_wins_over_any_renewal() {
        assert!(identity(6, 0).win_addr_conflict(&identity(5, u32::MAX)));
    }

    #[test]
    fn an_identity_is_small_on_the_wire() {
        let bytes = postcard::to_stdvec(&identity(1_700_000_000_000, 1)).expect("encodes");
        assert!(bytes.len() <= 40, "{} bytes", bytes.len());
        assert_eq!(postcard::from_bytes::<MemberIdentity>(&bytes), Ok(identity(1_700_000_000_000, 1)));
    }
}
