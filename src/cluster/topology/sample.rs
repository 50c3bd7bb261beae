//! A node as tests need one: what a test is not about stands here once.

use super::{Node, NodeState, Probation};
use crate::base::identity::{Incarnation, NodeId};

/// A node on this machine that asks to be registered; its ports follow from its id. A test that cares for one of the fields
/// sets that: `Node { start_ms, ..sample::node(id) }`.
pub(crate) fn node(id: NodeId) -> Node {
    Node {
        id,
        incarnation: Incarnation(0),
        ip: [127, 0, 0, 1].into(),
        port: id.0 as u16,
        cluster_port: 10_000 + id.0 as u16,
        hostname: String::new(),
        weight: 1,
        zone: String::new(),
        arbiter: false,
        proxy_port: 0,
        start_ms: 1,
        support: 0,
        state: NodeState::Active,
        leaving: false,
        probation: Probation::default(),
    }
}
