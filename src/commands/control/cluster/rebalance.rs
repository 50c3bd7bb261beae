//! CLUSTER REBALANCE and CLUSTER LEAVE, which are Starling's own, and CLUSTER FAILOVER: what an operator says to the plan.

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

const PAUSED: &str = "ERR Nothing is moved while rebalancing is paused: CLUSTER REBALANCE RESUME";

/// Whether slots are moved by the plan, and roles levelled.
pub(super) fn stated(topology: &Topology) -> &'static str {
    match duties::kept_roles(topology) {
        Some(_) => "roles-kept",
        None if duties::is_paused(topology) => "paused",
        None => "running",
    }
}

/// CLUSTER REBALANCE: whether slots are moved by the plan. DRYRUN: what the plan would move. PAUSE, RESUME: for all nodes.
pub(super) fn rebalance(
    control: &mut Control<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let cluster = cluster(control)?;
    let Some(word) = arguments.get(2) else {
        reply.bulk(stated(&cluster.view().topology).as_bytes());
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

/// CLUSTER FAILOVER: this node takes the role of each slot that it has a copy of, and roles stay where they are then. Answered
/// when that is agreed; CLUSTER INFO tells how many slots it is the primary of.
pub(super) fn failover(control: &mut Control<'_>, arguments: Arguments<'_>, _: &mut ReplyWriter<'_>) -> CommandResult {
    match (arguments.get(2), arguments.len()) {
        (None, _) => {}
        // No primary is asked to help whose copies are to be elected: that they are, by themselves, is stronger.
        (Some(word), 3) if is(word, "force") => {}
        (Some(word), 3) if is(word, "takeover") => {
            return Err(CommandError::text(
                "ERR No role is taken without a majority: copies of a node that is down are elected by themselves, \
                 and of a node that is up CLUSTER FAILOVER takes it",
            ));
        }
        _ => return Err(CommandError::Syntax),
    }
    let cluster = cluster(control)?;
    let view = cluster.view_full();
    let asked = duties::KeptRoles::asked(&view.topology, cluster.node()).filter(|_| view.is_member);
    let Some(asked) = asked else {
        return Err(CommandError::text("ERR You should send CLUSTER FAILOVER to a replica"));
    };
    if duties::is_paused(&view.topology) {
        return Err(CommandError::text(PAUSED));
    }
    if control.in_transaction {
        return Err(CommandError::text("ERR CLUSTER FAILOVER is not allowed in transactions"));
    }
    tracing::warn!(client = %control.session.client.address, "a client asks this node to take the roles of its copies");
    control.flow = Flow::Later(Box::pin(agree(cluster, REBALANCE, asked.value())));
    Ok(())
}

/// CLUSTER LEAVE: this node hands everything over, leaves the cluster, and ends, as by SIGTERM. Answered at once; CLUSTER NODES
/// and the log tell how far it is.
pub(super) fn leave(control: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let cluster = cluster(control)?;
    let view = cluster.view();
    let is_alone = !view.topology.nodes.values().any(|node| node.id != cluster.node() && !node.arbiter);
    if is_alone {
        return Err(CommandError::text("ERR There is no other node that could take the slots: SHUTDOWN ends this one"));
    }
    if duties::is_paused(&cluster.view().topology) {
        return Err(CommandError::text(PAUSED));
    }
    tracing::warn!(client = %control.session.client.address, "a client asks this node to leave the cluster");
    control.services.shutdown.notify_one();
    reply.ok();
    Ok(())
}
