//! Names of the things a cluster is made of (CLUSTER protocol, "Names and numbers").

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A node for life: drawn at random when its data directory is made, and kept there. A wiped disk is a new node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u128);

/// A cluster: drawn at random by the node that creates it. Nodes of different clusters never talk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub u128);

/// One life of a node's process, given by the topology at each registration; a restarted node has a greater one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

/// Counts the changes of a slot's owner.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize)]
pub struct Epoch(pub u32);

/// A place in the history of one slot. Compared as a pair: a later epoch is later, whatever the sequence numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize)]
pub struct Position {
    pub epoch: Epoch,
    pub seq: u64,
}

/// Redis Cluster's node names have 40 hexadecimal digits: the 32 of the id, then eight zeros.
/// The padding stands last because tools abbreviate names to their first eight digits.
impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}00000000", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {:08x}", self.0 >> 96)
    }
}

impl FromStr for NodeId {
    type Err = ();

    /// Reads the name that [`fmt::Display`] writes.
    fn from_str(text: &str) -> Result<NodeId, ()> {
        if text.len() != 40 || !text.ends_with("00000000") || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(());
        }
        u128::from_str_radix(&text[..32], 16).map(NodeId).map_err(|_| ())
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cluster {:08x}", self.0 >> 96)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_name_reads_back() {
        let id = NodeId(0x0123_4567_89ab_cdef_0011_2233_4455_6677);
        let name = id.to_string();
        assert_eq!(name.len(), 40);
        assert_eq!(name.parse(), Ok(id));
        assert_eq!("nonsense".parse::<NodeId>(), Err(()));
        assert_eq!("é".repeat(20).parse::<NodeId>(), Err(()));
    }
}
