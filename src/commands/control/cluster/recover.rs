//! CLUSTER RECOVER, which is Starling's own: the nodes that answer go on where a majority of the voters is lost for good.

use super::cluster;
use crate::base::identity::NodeId;
use crate::cluster::topology::recovery::Recovery;
use crate::cluster::topology::{Phase, SlotRecord, Topology};
use crate::commands::context::{Control, Flow};
use crate::commands::error::CommandError;
use crate::commands::parse::is;
use crate::commands::spec::CommandResult;
use crate::resp::arguments::Arguments;
use crate::resp::reply::{Protocol, ReplyWriter};
use crate::services::cluster::Cluster;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How long an answer waits until slots that a living node has are served: the others have to follow first.
const SERVED_LIMIT: Duration = Duration::from_secs(15);

/// CLUSTER RECOVER [FORCE]: what would become of the cluster if the nodes that answer went on without the others. CONFIRM: they do.
/// FORCE may be said, also as --force, and means nothing more: nothing is done without CONFIRM.
pub(super) fn recover(control: &mut Control<'_>, arguments: Arguments<'_>, _: &mut ReplyWriter<'_>) -> CommandResult {
    let forced = arguments.get(2).is_some_and(|word| is(word, "force") || is(word, "--force"));
    let confirmed = match (arguments.get(2 + usize::from(forced)), arguments.len()) {
        (None, _) => false,
        (Some(word), count) if is(word, "confirm") && count == 3 + usize::from(forced) => true,
        _ => return Err(CommandError::Syntax),
    };
    let cluster = cluster(control)?;
    if control.in_transaction {
        return Err(CommandError::text("ERR CLUSTER RECOVER is not allowed in transactions"));
    }
    control.flow = Flow::Later(Box::pin(async move {
        if confirmed { begin(&cluster).await } else { answer(cluster.consensus().survey().await, would) }
    }));
    if confirmed {
        let client = &control.session.client.address;
        tracing::warn!(%client, "a client asks to recover the cluster without the nodes that do not answer");
    }
    Ok(())
}

async fn begin(cluster: &Arc<Cluster>) -> Vec<u8> {
    let begun = cluster.consensus().recover().await;
    if let Ok(recovery) = &begun {
        until_served(cluster, &recovery.after).await;
    }
    answer(begun, does)
}

fn answer<E: std::fmt::Display>(asked: Result<Recovery, E>, lines: fn(&Recovery) -> Vec<String>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut reply = ReplyWriter::new(&mut bytes, Protocol::Resp2);
    match asked {
        Ok(recovery) => {
            let lines = lines(&recovery);
            reply.array(lines.len());
            lines.iter().for_each(|line| reply.bulk(line.as_bytes()));
        }
        Err(error) => reply.error(format!("ERR {error}")),
    }
    bytes
}

fn would(recovery: &Recovery) -> Vec<String> {
    let mut lines = account(recovery);
    lines.push(
        "nothing has changed. A node that is given up must have ended for good: it serves nothing, and starts again only as a new \
         node. CLUSTER RECOVER FORCE CONFIRM does it"
            .to_owned(),
    );
    lines
}

fn does(recovery: &Recovery) -> Vec<String> {
    let mut lines = account(recovery);
    lines.push(format!("generation {} of the cluster has begun", recovery.after.generation));
    lines
}

/// Who goes on, who does not, and what becomes of the slots.
fn account(recovery: &Recovery) -> Vec<String> {
    let Recovery { before, after } = recovery;
    let place = |id: &NodeId| match before.nodes.get(id) {
        Some(node) => format!("{id} at {}", SocketAddr::from((node.ip, node.port))),
        None => id.to_string(),
    };
    let mut lines: Vec<String> = after.nodes.keys().map(|id| format!("kept: {}", place(id))).collect();
    let lost = before.nodes.keys().filter(|id| !after.nodes.contains_key(id));
    lines.extend(lost.map(|id| format!("given up for good: {}", place(id))));
    let empty = after.slots().iter().filter(|record| is_nobodys(record)).count();
    let kept = after.slots().iter().count() - empty;
    lines.push(format!("{kept} slots are served by nodes that are kept, with what these have"));
    lines.push(format!("{empty} slots begin empty: no node that is kept has their keys"));
    lines.push("what nodes that are given up have acknowledged last may be lost".to_owned());
    lines
}

fn is_nobodys(record: &SlotRecord) -> bool {
    record.primary.is_none() && record.phase != Phase::Electing
}

/// Ends when nothing is elected and nothing is nobody's any more, as this node knows it; or after a while.
async fn until_served(cluster: &Cluster, begun: &Topology) {
    let served = async {
        cluster.until_shown(begun.version, SERVED_LIMIT).await;
        loop {
            let view = cluster.view_full();
            if view.topology.slots().iter().all(|record| record.primary.is_some()) {
                return;
            }
            cluster.until_newer(view.topology.version, SERVED_LIMIT).await;
        }
    };
    // Where it takes longer they are served by and by.
    let _ = tokio::time::timeout(SERVED_LIMIT, served).await;
}
