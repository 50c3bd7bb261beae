//! Agreement as the rest of a node sees it, whatever brings it about.

use super::change::{Applied, TopologyChange};
use super::recovery::{Recovery, RecoveryError};
use super::state::Topology;
use crate::base::identity::NodeId;
use crate::cluster::hints::LinksHeard;
use crate::transport::messages::{GroupView, LeaseReport};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use tokio::sync::watch;

/// A proposal that was committed: what it came to, which may be a refusal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Proposal {
    /// Its index in the raft log; the topology of this version has it.
    pub index: u64,
    pub applied: Applied,
}

/// Why a proposal has no outcome.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ProposeError {
    /// No raft leader was found in time: it was not proposed, as far as this node knows.
    NoLeader,
    /// It was proposed and no answer came in time: it may have been committed, or still be. Look at the topology.
    Unknown,
    /// This node's raft instance has stopped before it could begin: its disk failed.
    Stopped(String),
}

impl fmt::Display for ProposeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProposeError::NoLeader => f.write_str("no raft leader was found in time"),
            ProposeError::Unknown => f.write_str("the raft leader did not answer in time: it may have been committed"),
            ProposeError::Stopped(why) => write!(f, "raft has stopped on this node: {why}"),
        }
    }
}

impl std::error::Error for ProposeError {}

/// Agreement on topology changes, whatever brings it about.
#[async_trait]
pub trait Consensus: Send + Sync {
    /// Proposes a change and waits until it is committed and applied on the raft leader. It is tried again after a
    /// failure, so it may be applied twice: changes are idempotent, and a repeated one is refused by its check.
    async fn propose(&self, change: TopologyChange) -> Result<Proposal, ProposeError>;

    /// The newest topology this node knows, always.
    fn subscribe(&self) -> watch::Receiver<Arc<Topology>>;

    /// What this node knows of the group.
    fn group(&self) -> GroupView;

    /// Which nodes this one hears over links.
    fn links_heard(&self) -> LinksHeard {
        LinksHeard::new()
    }

    /// What nodes have said that they promised as lease voters, this one among them.
    fn lease_reports(&self) -> BTreeMap<NodeId, LeaseReport> {
        BTreeMap::new()
    }

    /// Writes of this node's raft log that failed.
    fn write_failures(&self) -> u64 {
        0
    }

    /// What this node would begin where a majority of the voters is lost for good. Changes nothing.
    async fn survey(&self) -> Result<Recovery, RecoveryError> {
        Err(RecoveryError::NoMember)
    }

    /// Begins the next generation of the cluster with the members that answer now; done when this node leads them.
    async fn recover(&self) -> Result<Recovery, RecoveryError> {
        Err(RecoveryError::NoMember)
    }
}
