//! CLUSTER: the cluster as Redis Cluster's clients and tools ask about it.

mod by_hand;
mod rebalance;
mod recover;
mod revive;

use crate::base::clock;
use crate::base::identity::NodeId;
use crate::base::slot::Slot;
use crate::cluster::hints::heard_by_links_only;
use crate::cluster::membership::{MemberHealth, MembersView};
use crate::cluster::routing::{PreferredEndpoint, RoutingNode, Service};
use crate::cluster::topology::{Applied, Node, NodeState, Refused, Topology, TopologyChange};
use crate::commands::context::{Control, Flow};
use crate::commands::data::keyspace::{count_keys_in_slot, get_keys_in_slot};
use crate::commands::error::CommandError;
use crate::commands::help;
use crate::commands::spec::{
    ADMIN, ALL_KEYS, Arity::*, CommandResult, CommandSpec, HIDDEN, IN_CLUSTER, LOADING, NO_ASYNC_LOADING, NOSCRIPT,
    ONE_SLOT, STALE, container, control, data,
};
use crate::resp::arguments::Arguments;
use crate::resp::reply::{Protocol, ReplyWriter};
use crate::services::cluster::{Cluster, View};
use crate::transport::Direction;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const BASIC: u64 = STALE | IN_CLUSTER;
const VARIES: &[&str] = &["nondeterministic_output"];

pub const COMMANDS: &[CommandSpec] = &[container("cluster", 0, 0, CLUSTER)];

const CLUSTER: &[CommandSpec] = &[
    control("addslots", AtLeast(3), BASIC | ADMIN | NO_ASYNC_LOADING, 0, by_hand::refuse),
    control("addslotsrange", AtLeast(4), BASIC | ADMIN | NO_ASYNC_LOADING, 0, by_hand::refuse),
    control("bumpepoch", Exactly(2), BASIC | ADMIN | NO_ASYNC_LOADING, 0, by_hand::refuse).tips(VARIES),
    data("countkeysinslot", Exactly(3), BASIC | ALL_KEYS | ONE_SLOT, 0, &[], count_keys_in_slot),
    control("delslots", AtLeast(3), BASIC | ADMIN | NO_ASYNC_LOADING, 0, by_hand::refuse),
    control("delslotsrange", AtLeast(4), BASIC | ADMIN | NO_ASYNC_LOADING, 0, by_hand::refuse),
    control("failover", AtLeast(2), BASIC | ADMIN | NO_ASYNC_LOADING, 0, rebalance::failover),
    control("flushslots", Exactly(2), BASIC | ADMIN | NO_ASYNC_LOADING, 0, by_hand::refuse),
    control("forget", Exactly(3), BASIC | ADMIN | NO_ASYNC_LOADING, 0, forget),
    data("getkeysinslot", Exactly(4), BASIC | ALL_KEYS | ONE_SLOT, 0, &[], get_keys_in_slot).tips(VARIES),
    control("help", Exactly(2), LOADING | STALE, 0, cluster_help),
    control("info", Exactly(2), BASIC, 0, info).tips(VARIES),
    control("keyslot", Exactly(3), BASIC, 0, key_slot),
    control("leave", Exactly(2), BASIC | ADMIN | HIDDEN, 0, rebalance::leave),
    control("links", Exactly(2), BASIC, 0, links).tips(VARIES),
    control("meet", AtLeast(4), BASIC | ADMIN | NO_ASYNC_LOADING, 0, by_hand::meet),
    control("myid", Exactly(2), BASIC, 0, my_id),
    control("nodes", Exactly(2), BASIC, 0, nodes).tips(VARIES),
    control("rebalance", AtLeast(2), BASIC | ADMIN | HIDDEN, 0, rebalance::rebalance),
    control("recover", AtLeast(2), BASIC | ADMIN | HIDDEN, 0, recover::recover),
    control("replicas", Exactly(3), BASIC | ADMIN, 0, replicas).tips(VARIES),
    control("replicate", Exactly(3), BASIC | ADMIN | NO_ASYNC_LOADING, 0, by_hand::refuse),
    control("reset", AtLeast(2), BASIC | ADMIN | NOSCRIPT, 0, by_hand::refuse),
    control("revive", AtLeast(3), BASIC | ADMIN | HIDDEN, 0, revive::revive),
    control("saveconfig", Exactly(2), BASIC | ADMIN | NO_ASYNC_LOADING, 0, by_hand::save_config),
    control("set-config-epoch", Exactly(3), BASIC | ADMIN | NO_ASYNC_LOADING, 0, by_hand::refuse),
    control("setslot", AtLeast(4), BASIC | ADMIN | NO_ASYNC_LOADING, 0, by_hand::refuse),
    control("shards", Exactly(2), BASIC, 0, shards).tips(VARIES),
    control("slaves", Exactly(3), BASIC | ADMIN, 0, replicas).tips(VARIES),
    control("slots", Exactly(2), BASIC, 0, slots).tips(VARIES),
];

/// The node's cluster: dispatch lets nobody come here without.
fn cluster(control: &Control<'_>) -> Result<Arc<Cluster>, CommandError> {
    let disabled = CommandError::text("ERR This instance has cluster support disabled");
    control.services.cluster.clone().ok_or(disabled)
}

fn my_id(control: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    reply.bulk(cluster(control)?.node().to_string().as_bytes());
    Ok(())
}

fn key_slot(_: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    reply.integer(i64::from(Slot::of_key(arguments.at(2)).number()));
    Ok(())
}

// ---- SLOTS ----

fn slots(control: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let view = cluster(control)?.view_full();
    let protocol = reply.protocol();
    let made = view.slots_reply[usize::from(protocol == Protocol::Resp3)].get_or_init(|| {
        let mut bytes = Vec::new();
        write_slots(&view, &mut ReplyWriter::new(&mut bytes, protocol));
        bytes.into_boxed_slice()
    });
    reply.raw(made);
    Ok(())
}

fn write_slots(view: &View, reply: &mut ReplyWriter<'_>) {
    let routing = &view.routing;
    // Clients refuse to start where a slot has no owner: what a node had that is gone stays with it until another has it.
    let ranges = routing.listed_ranges();
    reply.array(ranges.len());
    for range in ranges {
        reply.array(2 + range.owners.len());
        reply.integer(i64::from(range.first.number()));
        reply.integer(i64::from(range.last.number()));
        for owner in range.owners {
            let node = routing.node(*owner);
            let (endpoint, details) = endpoint(node, routing.preferred_endpoint());
            reply.array(4);
            match endpoint {
                Some(endpoint) => reply.bulk(endpoint.as_bytes()),
                None => reply.null(),
            }
            reply.integer(i64::from(node.port));
            reply.bulk(node.id.to_string().as_bytes());
            reply.map(details.len());
            for (name, text) in details {
                reply.bulk(name.as_bytes());
                reply.bulk(text.as_bytes());
            }
        }
    }
}

/// What clients shall connect to, `None`: whatever they are connected to; and what they may be told besides.
fn endpoint(node: &RoutingNode, preferred: PreferredEndpoint) -> (Option<String>, Vec<(&'static str, String)>) {
    let ip = || ("ip", node.ip.to_string());
    let hostname = || (!node.hostname.is_empty()).then(|| ("hostname", node.hostname.clone()));
    match preferred {
        PreferredEndpoint::Ip => (Some(node.ip.to_string()), hostname().into_iter().collect()),
        PreferredEndpoint::Hostname if node.hostname.is_empty() => (Some("?".to_owned()), vec![ip()]),
        PreferredEndpoint::Hostname => (Some(node.hostname.clone()), vec![ip()]),
        PreferredEndpoint::Unknown => (None, [ip()].into_iter().chain(hostname()).collect()),
    }
}

// ---- SHARDS ----

/// A shard for every node, which is its primary. Copies are left out: here each node has some of several shards, and clients
/// that read this (rueidis) know a node in one place, and would take it for a replica only.
fn shards(control: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let cluster = cluster(control)?;
    let (view, members) = (cluster.view_full(), cluster.membership().members());
    let routing = &view.routing;
    reply.array(routing.nodes().len());
    for (_, node) in routing.nodes() {
        let slots = view.slots_of(node.id);
        reply.map(2);
        reply.bulk(b"slots");
        reply.array(slots.ranges().len() * 2);
        for (first, last) in slots.ranges() {
            reply.integer(i64::from(first.number()));
            reply.integer(i64::from(last.number()));
        }
        reply.bulk(b"nodes");
        reply.array(1);
        write_shard_node(control, &view, &members, node, reply);
    }
    Ok(())
}

fn write_shard_node(
    control: &Control<'_>,
    view: &View,
    members: &MembersView,
    node: &RoutingNode,
    reply: &mut ReplyWriter<'_>,
) {
    let (endpoint, _) = endpoint(node, view.routing.preferred_endpoint());
    let health = match view.topology.nodes.get(&node.id) {
        Some(agreed) if is_failed(agreed) => "fail",
        _ => "online",
    };
    let offset = if members.own.node == node.id { control.services.engine.statistics().changes } else { 0 };
    reply.map(if node.hostname.is_empty() { 7 } else { 8 });
    let mut text = |name: &str, text: &str| {
        reply.bulk(name.as_bytes());
        reply.bulk(text.as_bytes());
    };
    text("id", &node.id.to_string());
    text("ip", &node.ip.to_string());
    text("endpoint", endpoint.as_deref().unwrap_or(""));
    if !node.hostname.is_empty() {
        text("hostname", &node.hostname);
    }
    text("role", "master");
    text("health", health);
    for (name, number) in [("port", i64::from(node.port)), ("replication-offset", offset as i64)] {
        reply.bulk(name.as_bytes());
        reply.integer(number);
    }
}

/// Whether the cluster has agreed that a node is down. That gossip believes it is a suspicion: links may hear the node.
fn is_failed(node: &Node) -> bool {
    node.state == NodeState::Down
}

/// Whether gossip does not hear a node that is not agreed to be down.
fn is_suspected(node: &Node, members: &MembersView) -> bool {
    let is_unheard = members.member(node.id).is_some_and(|member| member.health != MemberHealth::Alive);
    is_unheard && !is_failed(node)
}

// ---- NODES ----

fn nodes(control: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let cluster = cluster(control)?;
    let (view, members) = (cluster.view_full(), cluster.membership().members());
    let mut text = String::new();
    for node in view.topology.nodes.values() {
        write_node_line(&mut text, node, &view, &members, cluster.node());
        text.push('\n');
    }
    reply.verbatim("txt", &text);
    Ok(())
}

/// The nodes that have copies of a node's slots. Their lines say `master`, which each of them is too.
fn replicas(control: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let cluster = cluster(control)?;
    let (view, members) = (cluster.view_full(), cluster.membership().members());
    let primary = node_named(arguments.at(2))?;
    if !view.topology.nodes.contains_key(&primary) {
        return Err(unknown(arguments.at(2)));
    }
    let copies = view.copies_of(primary);
    let holders: Vec<&Node> = copies.keys().filter_map(|node| view.topology.nodes.get(node)).collect();
    reply.array(holders.len());
    for node in holders {
        let mut text = String::new();
        write_node_line(&mut text, node, &view, &members, cluster.node());
        reply.bulk(text.as_bytes());
    }
    Ok(())
}

fn node_named(name: &[u8]) -> Result<NodeId, CommandError> {
    std::str::from_utf8(name).ok().and_then(|name| name.parse().ok()).ok_or_else(|| unknown(name))
}

fn unknown(name: &[u8]) -> CommandError {
    CommandError::Text(format!("ERR Unknown node {}", String::from_utf8_lossy(name)).into())
}

/// `<id> <ip:port@cport[,hostname]> <flags> <master> <ping-sent> <pong-recv> <config-epoch> <link-state> <slot> ...`
fn write_node_line(text: &mut String, node: &Node, view: &View, members: &MembersView, own: NodeId) {
    let member = members.member(node.id);
    let failed = is_failed(node);
    let flags = match (node.id == own, failed, is_suspected(node, members)) {
        (true, ..) => "myself,master",
        (_, true, _) => "master,fail",
        (_, _, true) => "master,fail?",
        _ => "master",
    };
    // Where it is itself it knows better than a topology in which it may not have registered yet: who joins asks for that.
    let (ip, port, cluster_port) = match &members.own {
        here if node.id == own => (here.address.ip(), here.metadata.client_port, here.address.port()),
        _ => (node.ip, node.port, node.cluster_port),
    };
    let _ = write!(text, "{} {ip}:{port}@{cluster_port}", node.id);
    if !node.hostname.is_empty() {
        let _ = write!(text, ",{}", node.hostname);
    }
    // Gossip probes members in turn and tells no time of the last answer: an alive one is heard from all the time.
    let heard_ms = if node.id == own || failed { 0 } else { clock::unix_us() / 1000 };
    let link = if node.id == own || (!failed && member.is_some()) { "connected" } else { "disconnected" };
    let _ = write!(text, " {flags} - 0 {heard_ms} {} {link}", view.epoch_of(node.id));
    let slots = view.slots_of(node.id);
    if !slots.is_empty() {
        let _ = write!(text, " {slots}");
    }
}

// ---- INFO ----

fn info(control: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let cluster = cluster(control)?;
    let (view, members) = (cluster.view_full(), cluster.membership().members());
    let topology = &view.topology;
    let served = view.served_count();
    let is_ok = view.is_member && view.routing.service() == Service::All && served > 0;
    let suspected: usize = topology
        .nodes
        .values()
        .filter(|node| is_suspected(node, &members))
        .map(|node| view.slots_of(node.id).len())
        .sum();
    let size = topology.nodes.keys().filter(|node| !view.slots_of(**node).is_empty()).count();
    let epoch = topology.slots().iter().map(|record| record.epoch.0).max().unwrap_or(0);
    let counters = cluster.membership().counters();
    let counted = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let mut text = String::new();
    let mut field = |name: &str, value: &dyn std::fmt::Display| {
        let _ = write!(text, "{name}:{value}\r\n");
    };
    field("cluster_state", &if is_ok { "ok" } else { "fail" });
    field("cluster_slots_assigned", &view.assigned_count());
    field("cluster_slots_ok", &served.saturating_sub(suspected));
    field("cluster_slots_pfail", &suspected);
    field("cluster_slots_fail", &(view.dead_count() + view.electing_count()));
    field("cluster_known_nodes", &topology.nodes.len());
    field("cluster_size", &size);
    field("cluster_current_epoch", &epoch);
    field("cluster_my_epoch", &view.epoch_of(cluster.node()));
    field("cluster_stats_messages_sent", &counted(&counters.datagrams_out));
    field("cluster_stats_messages_received", &counted(&counters.datagrams_in));
    field("starling_gossip_bytes_sent", &counted(&counters.bytes_out));
    field("starling_gossip_bytes_received", &counted(&counters.bytes_in));
    field("total_cluster_links_buffer_limit_exceeded", &0);
    field("starling_topology_version", &topology.version);
    field("starling_rebalance", &rebalance::stated(topology));
    let copies = view.copy_counts();
    field("starling_replicas", &copies.replicas);
    field("starling_copies_ready", &copies.ready);
    field("starling_copies_missing", &copies.missing);
    let compared = &control.services.engine.compared;
    field("starling_copies_compared", &counted(&compared.slots));
    field("starling_copies_different", &counted(&compared.different));
    field("starling_copies_alike", &counted(&compared.alike));
    field("starling_copies_sent", &counted(&compared.sent));
    field("starling_copies_bytes", &counted(&compared.bytes));
    field("starling_writes_lost", &counted(&compared.lost));
    field("starling_slots_electing", &view.electing_count());
    let group = cluster.consensus().group();
    let leader: Vec<NodeId> = group.leader.into_iter().collect();
    let voters: Vec<NodeId> = group.voters.iter().map(|voter| voter.node).collect();
    field("starling_raft_leader", &names(&leader));
    field("starling_raft_voters", &names(&voters));
    field("starling_lease_voters", &names(&topology.lease_voters.votes));
    let arbiters: Vec<NodeId> = topology.nodes.values().filter(|node| node.arbiter).map(|node| node.id).collect();
    field("starling_arbiters", &names(&arbiters));
    let on_probation: Vec<NodeId> =
        topology.nodes.values().filter(|node| node.probation.is_on).map(|node| node.id).collect();
    field("starling_on_probation", &names(&on_probation));
    field("starling_raft_write_failures", &cluster.consensus().write_failures());
    field("starling_nodes_without_udp", &without_udp(&cluster, topology, &members));
    field("starling_links_refused", &cluster.transport().refusals());
    field("starling_datagrams_refused", &counters.rejects.iter().map(counted).sum::<u64>());
    reply.verbatim("txt", &text);
    Ok(())
}

/// The nodes that this one hears over TCP only.
fn without_udp(cluster: &Cluster, topology: &Topology, members: &MembersView) -> String {
    let heard = cluster.consensus().links_heard();
    let unheard = heard_by_links_only(topology, members, &heard, clock::unix_us() / 1000);
    names(&unheard)
}

/// Nodes as CLUSTER NODES names them: clients (redis-py) split every line of CLUSTER INFO at each colon, so no value may
/// have one, and addresses do.
fn names(nodes: &[NodeId]) -> String {
    nodes.iter().map(NodeId::to_string).collect::<Vec<_>>().join(",")
}

// ---- LINKS ----

fn links(control: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let mut links = cluster(control)?.transport().links();
    links.retain(|link| link.connected_at_ms != 0);
    reply.array(links.len());
    for link in links {
        reply.map(6);
        reply.bulk(b"direction");
        reply.bulk(if link.direction == Direction::Outgoing { b"to" } else { b"from" });
        reply.bulk(b"node");
        reply.bulk(link.node.map(|node| node.to_string()).unwrap_or_default().as_bytes());
        reply.bulk(b"create-time");
        reply.integer(link.connected_at_ms as i64);
        reply.bulk(b"events");
        reply.bulk(if link.bytes_queued > 0 { b"rw" } else { b"r" });
        reply.bulk(b"send-buffer-allocated");
        reply.integer(link.bytes_queued as i64);
        reply.bulk(b"send-buffer-used");
        reply.integer(link.bytes_queued as i64);
    }
    Ok(())
}

// ---- FORGET ----

/// Removes a node that is gone. What it owned begins anew, empty, on the others.
fn forget(control: &mut Control<'_>, arguments: Arguments<'_>, _: &mut ReplyWriter<'_>) -> CommandResult {
    let cluster = cluster(control)?;
    let node = node_named(arguments.at(2))?;
    if node == cluster.node() {
        return Err(CommandError::text("ERR I tried hard but I can't forget myself..."));
    }
    let view = cluster.view_full();
    let agreed = view.topology.nodes.get(&node).cloned().ok_or_else(|| unknown(arguments.at(2)))?;
    if !is_failed(&agreed) {
        return Err(CommandError::text(
            "ERR The node is alive: end it with SIGTERM, so that it hands over its slots first and leaves by itself",
        ));
    }
    if control.in_transaction {
        return Err(CommandError::text("ERR CLUSTER FORGET is not allowed in transactions"));
    }
    control.flow = Flow::Later(Box::pin(async move {
        let mut bytes = Vec::new();
        let mut reply = ReplyWriter::new(&mut bytes, Protocol::Resp2);
        // Where the outcome is unknown the client is told, and may say it again: the change names the life and the version
        // that were seen, does nothing twice, and nothing to a node that was back before it was agreed.
        let (node, incarnation, decided_by) = (agreed.id, agreed.incarnation, view.topology.version);
        let change = TopologyChange::ForgetNode { node, incarnation, decided_by };
        match cluster.consensus().propose(change).await.map(|proposal| proposal.applied) {
            Ok(Applied::Refused(reason)) if reason != Refused::UnknownNode => {
                reply.error(format!("ERR The cluster did not forget the node: {reason:?}"));
            }
            Ok(_) => {
                let _ = cluster.membership().forget(agreed.id);
                reply.ok();
            }
            Err(error) => reply.error(format!("ERR The cluster could not agree: {error}")),
        }
        bytes
    }));
    Ok(())
}

fn cluster_help(control: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    cluster(control)?;
    help::write(
        reply,
        "CLUSTER",
        &[
            "COUNTKEYSINSLOT <slot>",
            "    Return the number of keys in <slot>.",
            "FAILOVER [FORCE]",
            "    Take the role of each slot that this node has a copy of; roles stay so until CLUSTER REBALANCE RESUME.",
            "FORGET <node-id>",
            "    Remove a node that is down; its slots begin anew, empty, on the others.",
            "GETKEYSINSLOT <slot> <count>",
            "    Return key names stored by current node in a slot.",
            "INFO",
            "    Return information about the cluster.",
            "KEYSLOT <key>",
            "    Return the hash slot for <key>.",
            "LEAVE",
            "    Hand over everything that this node has, leave the cluster, and end.",
            "LINKS",
            "    Return information about all network links between this node and its peers.",
            "MEET <ip> <port> [<bus-port>]",
            "    Whether a node of this cluster is at that address. Nodes join by themselves, where --join says.",
            "MYID",
            "    Return the node id.",
            "NODES",
            "    Return cluster configuration seen by node.",
            "REBALANCE [DRYRUN|PAUSE|RESUME]",
            "    Whether slots are moved by the plan; what it would move; for all nodes: no more, or again, and roles too.",
            "RECOVER [FORCE] [CONFIRM]",
            "    Which nodes would go on where most voters are lost for good. CONFIRM: they do, without the others.",
            "REPLICAS <node-id>",
            "    Return the nodes that have copies of the slots of <node-id>.",
            "REVIVE <slot>|ALL [CONFIRM]",
            "    Which slots wait for nodes that are down, and for which. CONFIRM: they begin empty on nodes that are up.",
            "SAVECONFIG",
            "    Whatever nodes agree on is on their disks before it is.",
            "SHARDS",
            "    Return information about slot range mappings and the nodes associated with them.",
            "SLOTS",
            "    Return information about slots range mappings.",
        ],
    );
    Ok(())
}
