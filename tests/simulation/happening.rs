//! Everything that can happen in a run.

use crate::copying::CopyHappening;
use crate::duty::Message;
use crate::node::number_of;
use crate::world::World;
use starling::base::identity::NodeId;
use starling::cluster::support::Promises;
use starling::cluster::topology::{Applied, TopologyChange};
use std::net::SocketAddr;

/// Everything that can happen.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    /// `sender`: who sent it, for whom the network may be cut.
    Datagram {
        sender: usize,
        from: SocketAddr,
        to: SocketAddr,
        bytes: Vec<u8>,
    },
    Timers {
        node: usize,
    },
    /// A message from node to node that carries a stamp, such as an effect of replication.
    Stamped {
        from: usize,
        to: usize,
        bits: u64,
    },
    /// A node does something that needs a stamp, and tells another.
    Stamp {
        node: usize,
    },
    /// The mark of this life's hybrid clock is on disk.
    MarkDurable {
        node: usize,
        life: u64,
        mark_ms: u64,
    },
    /// A node looks after its slots.
    Duty {
        node: usize,
    },
    /// A node says something to another about slots.
    Message {
        from: NodeId,
        to: NodeId,
        message: Message,
    },
    /// A change reaches the leader. A late one may come when its proposer is no more.
    Proposed {
        from: usize,
        life: u64,
        proposal: u64,
        is_late: bool,
        change: TopologyChange,
    },
    /// A node hears what became of its proposal; `None`: it gives it up.
    Outcome {
        node: usize,
        life: u64,
        proposal: u64,
        outcome: Option<(u64, Applied)>,
    },
    /// A sync of a node's log is done.
    Synced {
        node: usize,
        life: u64,
    },
    /// A node has heard that there is something new.
    Look {
        node: usize,
    },
    /// A node asks for what was agreed.
    Pull {
        node: usize,
    },
    /// Something about copies happens to a life of a node.
    Copy {
        node: usize,
        life: u64,
        what: CopyHappening,
    },
    /// A node asks the lease voters for support.
    Beat {
        node: usize,
    },
    /// A lease voter looks at whom it has not heard.
    Vote {
        node: usize,
    },
    /// What it promises is on its disk.
    Promised {
        node: usize,
        life: u64,
        promises: Promises,
    },
    /// The leader looks after the cluster.
    Lead,
    /// A client writes a key.
    Write,
    /// The next fault, or its end.
    Chaos,
}

impl World {
    /// The node in whose process this happens.
    pub(crate) fn acting_node(&self, happening: &Happening) -> Option<usize> {
        match happening {
            Happening::Datagram { to, .. } => self.holder(*to),
            Happening::Stamped { to, .. } => Some(*to),
            Happening::Message { to, .. } => Some(number_of(*to)),
            Happening::Timers { node }
            | Happening::Stamp { node }
            | Happening::MarkDurable { node, .. }
            | Happening::Duty { node }
            | Happening::Outcome { node, .. }
            | Happening::Synced { node, .. }
            | Happening::Look { node }
            | Happening::Beat { node }
            | Happening::Vote { node }
            | Happening::Promised { node, .. }
            | Happening::Copy { node, .. }
            | Happening::Pull { node } => Some(*node),
            Happening::Proposed { .. } | Happening::Lead | Happening::Write | Happening::Chaos => None,
        }
    }
}
