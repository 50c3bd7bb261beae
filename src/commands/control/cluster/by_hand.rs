//! What Redis Cluster is put together with by hand: here nodes do that by themselves. What means something is done, and the
//! rest says what to do instead.

use super::cluster;
use crate::commands::context::Control;
use crate::commands::error::CommandError;
use crate::commands::parse::{integer, is};
use crate::commands::spec::CommandResult;
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;
use std::net::IpAddr;

const SLOTS: &str = "slots are given out by the plan: CLUSTER REBALANCE DRYRUN shows it, CLUSTER FAILOVER takes roles, \
                     the parameter 'weight' of a node is its share";
const EPOCHS: &str = "every slot has an epoch of its own, which all nodes agree on: there is none to set";

/// What to do instead of what a tool does to nodes of Redis Cluster.
const INSTEAD: &[(&str, &str)] = &[
    ("addslots", SLOTS),
    ("addslotsrange", SLOTS),
    ("bumpepoch", EPOCHS),
    ("delslots", SLOTS),
    ("delslotsrange", SLOTS),
    ("flushslots", SLOTS),
    (
        "replicate",
        "every node has copies of others' slots, by the plan: CONFIG SET replicas says how many each slot has",
    ),
    (
        "reset",
        "CLUSTER LEAVE hands everything over and ends the node; without its directory node-<port> it starts as a new one",
    ),
    ("set-config-epoch", EPOCHS),
    ("setslot", SLOTS),
];

/// A subcommand that changes by hand what nodes agree on.
pub(super) fn refuse(control: &mut Control<'_>, arguments: Arguments<'_>, _: &mut ReplyWriter<'_>) -> CommandResult {
    cluster(control)?;
    let named = INSTEAD.iter().find(|(name, _)| is(arguments.at(1), name));
    let (name, instead) = named.copied().unwrap_or(("", SLOTS));
    Err(CommandError::Text(format!("ERR CLUSTER {} is not done by hand: {instead}", name.to_uppercase()).into()))
}

/// CLUSTER SAVECONFIG: what is agreed is on disk before it is.
pub(super) fn save_config(control: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    cluster(control)?;
    reply.ok();
    Ok(())
}

/// CLUSTER MEET: whether a member is at that address. A node joins where it is told to when it starts.
pub(super) fn meet(control: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let cluster = cluster(control)?;
    let text = |index: usize| String::from_utf8_lossy(arguments.at(index)).into_owned();
    let error = |text: String| CommandError::Text(text.into());
    if arguments.len() > 5 {
        return Err(error(format!(
            "ERR unknown subcommand or wrong number of arguments for '{}'. Try CLUSTER HELP.",
            text(1)
        )));
    }
    let number = |index, what| {
        integer(arguments.at(index)).map_err(|_| error(format!("ERR Invalid {what} port specified: {}", text(index))))
    };
    let base = number(3, "base")?;
    let bus = if arguments.len() == 5 { number(4, "bus")? } else { base.saturating_add(10_000) };
    let port = |number: i64| u16::try_from(number).ok().filter(|port| *port > 0);
    let place = text(2).parse::<IpAddr>().ok().zip(port(base)).filter(|_| port(bus).is_some());
    let Some(place) = place else {
        return Err(error(format!("ERR Invalid node address specified: {}:{}", text(2), text(3))));
    };
    let view = cluster.view_full();
    if !view.topology.nodes.values().any(|node| (node.ip, node.port) == place) {
        return Err(CommandError::text(
            "ERR No member of this cluster is there: start the node with --join and the address of a member",
        ));
    }
    reply.ok();
    Ok(())
}
