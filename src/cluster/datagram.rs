//! The envelope of every gossip datagram: which cluster, which life of which node, and proof of the shared secret.
//!
//! ```text
//! offset  bytes  field
//! 0       2      magic "SG"
//! 2       1      version of this layout, 1
//! 3       1      flags: bit 0 set when an authenticator ends the datagram
//! 4       16     cluster id
//! 20      4      generation (forced recoveries of the cluster)
//! 24      16     sender's node id
//! 40      8      sender's start: ms since 1970, greater in every later life of that node
//! 48      8      newest version of the topology that the sender knows
//! 56      n      payload
//! 56 + n  16     HMAC-SHA256 of all bytes before, its first 16 bytes (only with bit 0)
//! ```
//!
//! Numbers are big-endian. Nothing is encrypted: gossip holds addresses and liveness, no data. Whatever does not fit
//! is dropped as a [`Reject`] that says why, so that two clusters never merge by accident and no stranger can declare a
//! node dead. A replay within one life of the sender is accepted: what gossip carries may come twice.

use crate::base::identity::{ClusterId, NodeId};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// The longest datagram sent or read, in bytes: what IPv6 promises to carry unfragmented (1280), less IP and UDP headers.
pub const DATAGRAM_BYTES_MAX: usize = 1232;
/// How many bytes the envelope adds to a payload at most.
pub const ENVELOPE_BYTES_MAX: usize = HEADER_BYTES + AUTHENTICATOR_BYTES;
/// The longest payload, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = DATAGRAM_BYTES_MAX - ENVELOPE_BYTES_MAX;

const MAGIC: [u8; 2] = *b"SG";
const VERSION: u8 = 1;
const FLAG_AUTHENTICATED: u8 = 1;
const HEADER_BYTES: usize = 56;
const AUTHENTICATOR_BYTES: usize = 16;

/// The secret that all nodes of a cluster share. Its bytes never appear in logs.
#[derive(Clone)]
pub struct ClusterSecret {
    /// The keyed state, so that the key is hashed once and not per datagram.
    keyed: Arc<Hmac<Sha256>>,
}

impl ClusterSecret {
    /// A secret of any length. `None` where it is empty: an empty secret is no secret.
    pub fn new(secret: &[u8]) -> Option<ClusterSecret> {
        if secret.is_empty() {
            return None;
        }
        let keyed = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
        Some(ClusterSecret { keyed: Arc::new(keyed) })
    }

    /// Authenticates these bytes: the first 16 bytes of their HMAC-SHA256.
    pub fn authenticate(&self, bytes: &[u8]) -> [u8; AUTHENTICATOR_BYTES] {
        let mut mac = Hmac::clone(&self.keyed);
        mac.update(bytes);
        let full = mac.finalize().into_bytes();
        let mut truncated = [0; AUTHENTICATOR_BYTES];
        truncated.copy_from_slice(&full[..AUTHENTICATOR_BYTES]);
        truncated
    }

    /// Whether [`ClusterSecret::authenticate`] gives this for these bytes; compared in constant time.
    pub fn verifies(&self, bytes: &[u8], authenticator: &[u8]) -> bool {
        let mut mac = Hmac::clone(&self.keyed);
        mac.update(bytes);
        authenticator.len() == AUTHENTICATOR_BYTES && mac.verify_truncated_left(authenticator).is_ok()
    }
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecret(..)")
    }
}

/// Who speaks, and for which cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Envelope {
    pub cluster: ClusterId,
    /// How many forced recoveries the sender's cluster has had.
    pub generation: u32,
    pub sender: NodeId,
    /// Which life of the sender: ms since 1970 of its start, greater in every later life.
    pub sender_start_ms: u64,
    /// The newest version of the topology that the sender knows; 0 before its first.
    pub topology_version: u64,
}

/// What a receiver demands of a datagram.
#[derive(Clone, Debug)]
pub struct Expected {
    pub cluster: ClusterId,
    pub generation: u32,
    /// Without a secret, only peers on the loopback address are heard.
    pub secret: Option<ClusterSecret>,
}

/// Why a datagram was dropped. Nothing of the receiver's state has changed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reject {
    /// Not one of ours: too short, too long, or another magic.
    Foreign,
    /// A layout of the envelope that this version of Starling does not know.
    UnknownVersion(u8),
    /// The sender belongs to another cluster.
    OtherCluster(ClusterId),
    /// The sender has missed, or is ahead by, a forced recovery.
    OtherGeneration(u32),
    /// Its authenticator is wrong: another secret, or damage.
    BadAuthenticator,
    /// It has no authenticator, and this node has a secret.
    Unauthenticated,
    /// It has an authenticator, and this node has no secret to check it with.
    SecretMissing,
    /// This node has no secret, and the sender is not on the loopback address.
    NotLoopback,
    /// It bears this node's own id, from a later life than this one: a copied data directory.
    OwnIdentity,
    /// A later life of this sender is known: a delayed datagram, or a copied data directory.
    StaleLife,
    /// The envelope is right and what it holds cannot be read.
    Malformed,
}

impl Reject {
    /// How many kinds there are.
    pub const KINDS: usize = 11;

    /// A number for its kind, below [`Reject::KINDS`]; whatever it carries makes no difference.
    pub fn kind(self) -> usize {
        match self {
            Reject::Foreign => 0,
            Reject::UnknownVersion(_) => 1,
            Reject::OtherCluster(_) => 2,
            Reject::OtherGeneration(_) => 3,
            Reject::BadAuthenticator => 4,
            Reject::Unauthenticated => 5,
            Reject::SecretMissing => 6,
            Reject::NotLoopback => 7,
            Reject::OwnIdentity => 8,
            Reject::StaleLife => 9,
            Reject::Malformed => 10,
        }
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reject::Foreign => f.write_str("not a Starling datagram"),
            Reject::UnknownVersion(version) => write!(f, "unknown version {version} of the datagram layout"),
            Reject::OtherCluster(cluster) => write!(f, "from another cluster, {cluster}"),
            Reject::OtherGeneration(generation) => write!(f, "from generation {generation} of this cluster"),
            Reject::BadAuthenticator => {
                f.write_str("wrong authenticator: does the sender have another cluster-secret?")
            }
            Reject::Unauthenticated => f.write_str("no authenticator: the sender has no cluster-secret"),
            Reject::SecretMissing => f.write_str("authenticated, and this node has no cluster-secret to check it with"),
            Reject::NotLoopback => f.write_str("not from the loopback address, and this node has no cluster-secret"),
            Reject::OwnIdentity => f.write_str("another process uses this node's id: a copied data directory?"),
            Reject::StaleLife => f.write_str("from an earlier life of its sender: delayed, or a copied data directory"),
            Reject::Malformed => f.write_str("its contents cannot be read"),
        }
    }
}

/// Writes a datagram to `out`, which is cleared first.
pub fn seal(envelope: &Envelope, payload: &[u8], secret: Option<&ClusterSecret>, out: &mut Vec<u8>) {
    debug_assert!(payload.len() <= PAYLOAD_BYTES_MAX, "a payload of {} bytes", payload.len());
    out.clear();
    out.extend_from_slice(&MAGIC);
    out.push(VERSION);
    out.push(if secret.is_some() { FLAG_AUTHENTICATED } else { 0 });
    out.extend_from_slice(&envelope.cluster.0.to_be_bytes());
    out.extend_from_slice(&envelope.generation.to_be_bytes());
    out.extend_from_slice(&envelope.sender.0.to_be_bytes());
    out.extend_from_slice(&envelope.sender_start_ms.to_be_bytes());
    out.extend_from_slice(&envelope.topology_version.to_be_bytes());
    debug_assert_eq!(out.len(), HEADER_BYTES);
    out.extend_from_slice(payload);
    if let Some(secret) = secret {
        let authenticator = secret.authenticate(out);
        out.extend_from_slice(&authenticator);
    }
}

/// Reads a datagram that came from this address: its envelope, and the payload in it.
///
/// The cluster is checked before the authenticator, because "another cluster" helps whoever reads the log more than
/// "wrong authenticator" does, and a drop needs no proof.
pub fn open<'a>(datagram: &'a [u8], from: IpAddr, expected: &Expected) -> Result<(Envelope, &'a [u8]), Reject> {
    if datagram.len() > DATAGRAM_BYTES_MAX {
        return Err(Reject::Foreign);
    }
    let mut fields = Fields { rest: datagram };
    if fields.take::<2>()? != MAGIC {
        return Err(Reject::Foreign);
    }
    let [version, flags] = fields.take::<2>()?;
    if version != VERSION {
        return Err(Reject::UnknownVersion(version));
    }
    let envelope = Envelope {
        cluster: ClusterId(u128::from_be_bytes(fields.take()?)),
        generation: u32::from_be_bytes(fields.take()?),
        sender: NodeId(u128::from_be_bytes(fields.take()?)),
        sender_start_ms: u64::from_be_bytes(fields.take()?),
        topology_version: u64::from_be_bytes(fields.take()?),
    };
    if envelope.cluster != expected.cluster {
        return Err(Reject::OtherCluster(envelope.cluster));
    }
    let authenticated = flags & FLAG_AUTHENTICATED != 0;
    let payload = match (&expected.secret, authenticated) {
        (Some(secret), true) => {
            let length = datagram.len().checked_sub(AUTHENTICATOR_BYTES).ok_or(Reject::Foreign)?;
            let (signed, authenticator) = datagram.split_at(length);
            if !secret.verifies(signed, authenticator) {
                return Err(Reject::BadAuthenticator);
            }
            signed.get(HEADER_BYTES..).ok_or(Reject::Foreign)?
        }
        (Some(_), false) => return Err(Reject::Unauthenticated),
        (None, true) => return Err(Reject::SecretMissing),
        (None, false) if !is_loopback(from) => return Err(Reject::NotLoopback),
        (None, false) => fields.rest,
    };
    if envelope.generation != expected.generation {
        return Err(Reject::OtherGeneration(envelope.generation));
    }
    Ok((envelope, payload))
}

/// The loopback network, also as an IPv6 socket shows an IPv4 peer (`::ffff:127.0.0.1`).
fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// What is left to read of the fixed fields.
struct Fields<'a> {
    rest: &'a [u8],
}

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Reject> {
        let (field, rest) = self.rest.split_first_chunk::<N>().ok_or(Reject::Foreign)?;
        self.rest = rest;
        Ok(*field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

    fn envelope() -> Envelope {
        Envelope {
            cluster: ClusterId(7),
            generation: 2,
            sender: NodeId(99),
            sender_start_ms: 1_700_000_000_000,
            topology_version: 41,
        }
    }

    fn expected(secret: Option<&str>) -> Expected {
        Expected { cluster: ClusterId(7), generation: 2, secret: secret.and_then(|text| secret_of(text.as_bytes())) }
    }

    fn secret_of(bytes: &[u8]) -> Option<ClusterSecret> {
        ClusterSecret::new(bytes)
    }

    fn sealed(secret: Option<&str>) -> Vec<u8> {
        let mut out = Vec::new();
        seal(&envelope(), b"payload", secret.and_then(|text| secret_of(text.as_bytes())).as_ref(), &mut out);
        out
    }

    #[test]
    fn what_is_sealed_opens() {
        for secret in [None, Some("secret")] {
            let datagram = sealed(secret);
            let (read, payload) = open(&datagram, HERE, &expected(secret)).expect("opens");
            assert_eq!((read, payload), (envelope(), &b"payload"[..]));
        }
    }

    #[test]
    fn each_mismatch_has_its_reason() {
        let check = |datagram: &[u8], from, expected: Expected, reject| {
            assert_eq!(open(datagram, from, &expected).err(), Some(reject));
        };
        check(b"", HERE, expected(None), Reject::Foreign);
        check(&[0; 4000], HERE, expected(None), Reject::Foreign);
        check(&sealed(None)[..HEADER_BYTES - 1], HERE, expected(None), Reject::Foreign);
        check(&sealed(None), ELSEWHERE, expected(None), Reject::NotLoopback);
        check(&sealed(None), HERE, expected(Some("secret")), Reject::Unauthenticated);
        check(&sealed(Some("secret")), HERE, expected(None), Reject::SecretMissing);
        check(&sealed(Some("guess")), HERE, expected(Some("secret")), Reject::BadAuthenticator);
        let mut other = expected(None);
        other.cluster = ClusterId(8);
        check(&sealed(None), HERE, other, Reject::OtherCluster(ClusterId(7)));
        let mut later = expected(None);
        later.generation = 3;
        check(&sealed(None), HERE, later, Reject::OtherGeneration(2));
        let mut future = sealed(None);
        future[2] = 9;
        check(&future, HERE, expected(None), Reject::UnknownVersion(9));
    }

    #[test]
    fn with_a_secret_peers_may_be_anywhere() {
        assert!(open(&sealed(Some("secret")), ELSEWHERE, &expected(Some("secret"))).is_ok());
        assert!(open(&sealed(None), "::ffff:127.0.0.1".parse().expect("an address"), &expected(None)).is_ok());
    }

    #[test]
    fn an_empty_secret_is_none() {
        assert!(ClusterSecret::new(b"").is_none());
        assert_eq!(format!("{:?}", ClusterSecret::new(b"x")), "Some(ClusterSecret(..))");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_rejected(bytes in proptest::collection::vec(any::<u8>(), 0..200), secret: bool) {
            let _ = open(&bytes, HERE, &expected(secret.then_some("secret")));
        }

        #[test]
        fn one_changed_bit_of_an_authenticated_datagram_is_noticed(at in 0usize..79, bit in 0u8..8) {
            let mut datagram = sealed(Some("secret"));
            prop_assert_eq!(datagram.len(), 79);
            datagram[at] ^= 1 << bit;
            // Bits 1 to 7 of the flags have no meaning yet, but are under the authenticator like everything else.
            prop_assert!(open(&datagram, HERE, &expected(Some("secret"))).is_err());
        }

        #[test]
        fn a_cut_datagram_is_noticed(length in 0usize..79) {
            prop_assert!(open(&sealed(Some("secret"))[..length], HERE, &expected(Some("secret"))).is_err());
        }
    }
}
