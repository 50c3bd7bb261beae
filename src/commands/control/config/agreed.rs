//! `replicas`, `acknowledge` and `probation`: no node's own parameters, all nodes of a cluster agree on one value.
//!
//! What a node was started with counts only where it creates the cluster. CONFIG SET proposes to the raft group, and is
//! answered when the change is agreed and this node knows it; CONFIG GET shows what is agreed.

use super::refused;
use crate::base::acknowledge::Acknowledge;
use crate::cluster::duties::{ACKNOWLEDGE, REPLICAS, acknowledge, replicas};
use crate::cluster::topology::{Applied, PROBATION, Refused, Topology, TopologyChange};
use crate::commands::context::{Control, LaterReply};
use crate::commands::error::CommandError;
use crate::commands::parse::is;
use crate::config::ConfigError;
use crate::resp::reply::{Protocol, ReplyWriter};
use crate::services::Services;
use crate::services::cluster::Cluster;
use std::sync::Arc;
use std::time::Duration;

/// How long an answer waits for this node to hear what the raft group has agreed on.
const HEARD_LIMIT: Duration = Duration::from_secs(1);

/// Whether the nodes agree on a parameter, and on what.
fn agreed(topology: &Topology, name: &str) -> Option<String> {
    match name {
        REPLICAS => Some(replicas(topology).to_string()),
        ACKNOWLEDGE => Some(acknowledge(topology).name().to_owned()),
        PROBATION => Some(topology.probation_seconds().to_string()),
        _ => None,
    }
}

/// Parameters as CONFIG GET shows them: what is agreed, in place of what this node was started with.
pub(super) fn shown<'a>(services: &Services, found: Vec<(&'a str, &'a str)>) -> Vec<(&'a str, String)> {
    let view = services.cluster.as_ref().map(|cluster| cluster.view());
    let text = |(name, text): (&'a str, &str)| {
        let agreed = view.as_ref().and_then(|view| agreed(&view.topology, name));
        (name, agreed.unwrap_or_else(|| text.to_owned()))
    };
    found.into_iter().map(text).collect()
}

/// The reply of a CONFIG SET on which the cluster has to agree; `None`: it changes nothing of that kind.
///
/// # Errors
/// This server is in no cluster, or the command changes more: an agreement is not taken back where the rest fails.
pub(super) fn agreement(control: &Control<'_>, changes: &[(&[u8], &[u8])]) -> Result<Option<LaterReply>, CommandError> {
    let named = |name: &&str| changes.iter().any(|(changed, _)| is(changed, name));
    let mut names = [REPLICAS, ACKNOWLEDGE, PROBATION].into_iter().filter(named).peekable();
    if names.peek().is_none() {
        return Ok(None);
    }
    let before = control.services.settings.load_full();
    let after = before.changed(changes).map_err(refused)?;
    let cluster = control.services.cluster.clone();
    let held = |name| {
        let view = cluster.as_ref().map(|cluster| cluster.view());
        view.and_then(|view| agreed(&view.topology, name)).unwrap_or_else(|| before.text(name).to_owned())
    };
    let Some(name) = names.find(|name| after.text(name) != held(name)) else { return Ok(None) };
    let reason = match cluster {
        None => "this server is no node of a cluster: nobody else could have copies",
        Some(_) if changes.len() > 1 => "all nodes of the cluster agree on it: set it by itself",
        Some(_) if control.in_transaction => "it is not changed inside a transaction",
        Some(_)
            if name == ACKNOWLEDGE
                && after.cluster.acknowledge == Acknowledge::QuorumFsync
                && !control.services.engine.log.is_on_disk() =>
        {
            "it needs a log that is synced to disk, on every node: appendonly yes, and appendfsync always or everysec"
        }
        Some(cluster) => return Ok(Some(Box::pin(agree(cluster, name, after.text(name).to_owned())))),
    };
    Err(refused(ConfigError::Invalid { name: name.to_owned(), reason: reason.to_owned() }))
}

/// Proposes a setting of the cluster, and answers when it is agreed and this node knows it.
pub(in crate::commands::control) async fn agree(cluster: Arc<Cluster>, name: &'static str, value: String) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut reply = ReplyWriter::new(&mut bytes, Protocol::Resp2);
    let change = TopologyChange::SetConfig { name: name.to_owned(), value };
    match cluster.consensus().propose(change).await {
        // Proposed twice, or by another client too: it is so.
        Ok(agreed) if matches!(agreed.applied, Applied::Done | Applied::Refused(Refused::NoChange)) => {
            cluster.until_shown(agreed.index, HEARD_LIMIT).await;
            reply.ok();
        }
        Ok(agreed) => reply.error(format!("ERR The cluster did not change '{name}': {:?}", agreed.applied)),
        Err(error) => reply.error(format!("ERR The cluster could not agree on '{name}': {error}")),
    }
    bytes
}
