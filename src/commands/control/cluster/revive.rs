//! CLUSTER REVIVE, which is Starling's own: slots that wait for nodes that are down begin empty on those that are up.

use super::cluster;
use crate::base::identity::NodeId;
use crate::base::slot::Slot;
use crate::base::slot_ranges::SlotRanges;
use crate::cluster::topology::{Applied, Topology, TopologyChange};
use crate::commands::context::{Control, Flow};
use crate::commands::data::keyspace::slot_argument;
use crate::commands::error::CommandError;
use crate::commands::parse::is;
use crate::commands::spec::CommandResult;
use crate::resp::arguments::Arguments;
use crate::resp::reply::{Protocol, ReplyWriter};
use crate::services::cluster::Cluster;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long an answer waits until the slots that were given up have begun anew. The raft leader sees to that at once, where it
/// plans nothing else: on a busy machine that takes seconds.
const BEGUN_LIMIT: Duration = Duration::from_secs(10);

/// Slots that wait for the same members, all of them down.
struct Awaited {
    members: Vec<NodeId>,
    slots: SlotRanges,
}

/// CLUSTER REVIVE slot|ALL: a line for each group of slots that nobody serves before a node is back, and for which nodes they
/// wait. CONFIRM: they wait no more.
pub(super) fn revive(
    control: &mut Control<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let confirmed = match (arguments.get(3), arguments.len()) {
        (None, _) => false,
        (Some(word), 4) if is(word, "confirm") => true,
        _ => return Err(CommandError::Syntax),
    };
    let cluster = cluster(control)?;
    let view = cluster.view_full();
    let found = match arguments.at(2) {
        word if is(word, "all") => awaited(&view.topology, Slot::all()),
        word => {
            let slot = slot_argument(word)?;
            let found = awaited(&view.topology, [slot]);
            if found.is_empty() {
                return Err(CommandError::Text(format!("ERR {}", reason(&view.topology, slot)).into()));
            }
            found
        }
    };
    if !confirmed || found.is_empty() {
        write_lines(reply, &found, |one| may_be_lost(&view.topology, one));
        return Ok(());
    }
    if control.in_transaction {
        return Err(CommandError::text("ERR CLUSTER REVIVE is not allowed in transactions"));
    }
    tracing::warn!(client = %control.session.client.address, "a client gives up slots that wait for nodes that are down");
    control.flow = Flow::Later(Box::pin(give_up(cluster, found, view.topology.version)));
    Ok(())
}

/// Which of these slots wait for whom.
fn awaited(topology: &Topology, slots: impl IntoIterator<Item = Slot>) -> Vec<Awaited> {
    let mut found: BTreeMap<Vec<NodeId>, SlotRanges> = BTreeMap::new();
    for slot in slots {
        let members = topology.awaited_by(topology.slot(slot));
        if !members.is_empty() {
            found.entry(members).or_default().extend([slot]);
        }
    }
    found.into_iter().map(|(members, slots)| Awaited { members, slots }).collect()
}

/// Why a slot waits for nobody.
fn reason(topology: &Topology, slot: Slot) -> String {
    let (record, number) = (topology.slot(slot), slot.number());
    match record.primary {
        _ if topology.has_candidate(record) => format!(
            "Slot {number} is kept by a node that is up, and can be elected: a node that the election waits for is given \
             up by CLUSTER FORGET"
        ),
        Some(node) => format!("The primary of slot {number} is not agreed to be down: {node}"),
        None => format!("Slot {number} is nobody's: it begins empty by itself where a node takes slots"),
    }
}

fn write_lines(reply: &mut ReplyWriter<'_>, found: &[Awaited], line: impl Fn(&Awaited) -> String) {
    reply.array(found.len());
    found.iter().for_each(|one| reply.bulk(line(one).as_bytes()));
}

fn counted(one: &Awaited) -> String {
    format!("{} slots: {}", one.slots.len(), one.slots)
}

fn may_be_lost(topology: &Topology, one: &Awaited) -> String {
    let place = |id: &NodeId| match topology.nodes.get(id) {
        Some(node) => format!("{id} at {}", std::net::SocketAddr::from((node.ip, node.port))),
        None => id.to_string(),
    };
    let members: Vec<String> = one.members.iter().map(place).collect();
    let (are, back) = match members.len() {
        1 => ("is", "if it comes back with its disk they may be there"),
        _ => ("are", "if one of them comes back with its disk they may be there"),
    };
    format!("{}: their keys are on {}, which {are} down: {back}", counted(one), members.join(" and "))
}

/// Proposes it, and answers when the slots are served again.
async fn give_up(cluster: Arc<Cluster>, found: Vec<Awaited>, decided_by: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut reply = ReplyWriter::new(&mut bytes, Protocol::Resp2);
    let slots: SlotRanges = found.iter().flat_map(|one| one.slots.slots()).collect();
    let change = TopologyChange::GiveUpSlots { slots: slots.clone(), decided_by };
    match cluster.consensus().propose(change).await {
        Ok(agreed) if agreed.applied == Applied::Done => {
            until_begun(&cluster, agreed.index, &slots).await;
            write_lines(&mut reply, &found, |one| format!("{}: empty, on nodes that are up", counted(one)));
        }
        Ok(agreed) => reply.error(format!("ERR The cluster did not give up the slots: {:?}", agreed.applied)),
        // It names the version that was seen: said again it does nothing twice.
        Err(error) => reply.error(format!("ERR The cluster could not agree: {error}")),
    }
    bytes
}

/// Ends when this node knows who has the slots now, or after a while.
async fn until_begun(cluster: &Cluster, given_up: u64, slots: &SlotRanges) {
    let begun = async {
        cluster.until_shown(given_up, BEGUN_LIMIT).await;
        loop {
            let view = cluster.view_full();
            if slots.slots().all(|slot| view.topology.slot(slot).primary.is_some()) {
                return;
            }
            cluster.until_newer(view.topology.version, BEGUN_LIMIT).await;
        }
    };
    // Where it takes longer the slots are given up all the same, and begin anew by and by.
    let _ = tokio::time::timeout(BEGUN_LIMIT, begun).await;
}
