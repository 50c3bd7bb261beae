//! CLUSTER REBALANCE and CLUSTER LEAVE: what an operator says to the plan. Starling's own.

use super::cluster;
use crate::cluster::duties::{self, REBALANCE};
use crate::cluster::planner::{self, MoveKind};
use crate::cluster::topology::Topology;
use crate::commands::context::{Control, Flow};
use crate::commands::control::config::agreed::agree;
use crate::commands::error::CommandError;
use crate::commands::parse::is;
use crate::commands::spec::CommandResult;
use crate::resp::arguments::Arguments;
use crate::resp::reply::{Protocol, ReplyWriter};
use crate::services::cluster::Cluster;
use std::sync::Arc;

/// CLUSTER REBALANCE: whether slots are moved by the plan. DRYRUN: what the plan would move. PAUSE, RESUME: for all nodes.
pub(super) fn rebalance(
    control: &mut Control<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let cluster = cluster(control)?;
    let Some(word) = arguments.get(2) else {
        let is_paused = duties::is_paused(&cluster.view().topology);
        reply.bulk(if is_paused { b"paused" } else { b"running" });
        return Ok(());
    };
    let value = match word {
        word if is(word, "dryrun") => {
            control.flow = Flow::Later(Box::pin(dry_run(cluster)));
            return Ok(());
        }
        word if is(word, "pause") => "paused",
        // No value: as from the beginning.
        word if is(word, "resume") => "",
        _ => return Err(CommandError::Syntax),
    };
    if control.in_transaction {
        return Err(CommandError::text("ERR CLUSTER REBALANCE is not allowed in transactions"));
    }
    control.flow = Flow::Later(Box::pin(agree(cluster, REBALANCE, value.to_owned())));
    Ok(())
}

/// A line for each move of the plan, in the order of the plan.
async fn dry_run(cluster: Arc<Cluster>) -> Vec<u8> {
    let topology = Arc::clone(&cluster.view_full().topology);
    // With copies a plan takes tens of milliseconds; a panic ends the process.
    let lines = tokio::task::spawn_blocking(move || planned(&topology)).await.unwrap_or_default();
    let mut bytes = Vec::new();
    let mut reply = ReplyWriter::new(&mut bytes, Protocol::Resp2);
    reply.array(lines.len());
    lines.iter().for_each(|line| reply.bulk(line.as_bytes()));
    bytes
}

fn planned(topology: &Topology) -> Vec<String> {
    let line = |one: planner::Move| {
        let what = match one.kind {
            MoveKind::Copy => "copy",
            MoveKind::Primary => "primary",
            MoveKind::Revive => "begins anew",
        };
        let from = one.from.map_or_else(|| "-".to_owned(), |from| from.to_string());
        format!("{what} from {from} to {}: {} slots: {}", one.to, one.slots.len(), one.slots)
    };
    planner::plan(&duties::plan_input(topology)).moves.into_iter().map(line).collect()
}

/// CLUSTER LEAVE: this node hands everything over, leaves the cluster, and ends, as by SIGTERM. Answered at once; CLUSTER NODES
/// and the log tell how far it is.
pub(super) fn leave(control: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let cluster = cluster(control)?;
    let is_alone = cluster.view().topology.nodes.len() < 2;
    if is_alone {
        return Err(CommandError::text("ERR There is no other node that could take the slots: SHUTDOWN ends this one"));
    }
    if duties::is_paused(&cluster.view().topology) {
        return Err(CommandError::text("ERR Nothing is moved while rebalancing is paused: CLUSTER REBALANCE RESUME"));
    }
    tracing::warn!(client = %control.session.client.address, "a client asks this node to leave the cluster");
    control.services.shutdown.notify_one();
    reply.ok();
    Ok(())
}
