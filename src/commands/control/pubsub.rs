//! Channels and patterns.
//!
//! Within the node, also in a cluster: a message reaches those who have subscribed on the node that executes PUBLISH, and
//! PUBLISH and PUBSUB count only these. Redis Cluster sends it to every node. COMMAND DOCS says what Redis says of PUBLISH,
//! which leaves this open.

use crate::commands::context::Control;
use crate::commands::error::CommandError;
use crate::commands::help;
use crate::commands::spec::{
    Arity::*, CommandResult, CommandSpec, FAST, LOADING, MAY_REPLICATE, NOSCRIPT, PUBSUB, PUSHES, SENTINEL, SLOW,
    STALE, WHILE_SUBSCRIBED, container, control,
};
use crate::resp::arguments::Arguments;
use crate::resp::reply::{Protocol, ReplyWriter};
use crate::services::clients::Client;
use crate::services::pubsub::Space;

const BASIC: u64 = PUBSUB | NOSCRIPT | LOADING | STALE | SENTINEL | WHILE_SUBSCRIBED | PUSHES;

pub const COMMANDS: &[CommandSpec] = &[
    control("psubscribe", AtLeast(2), BASIC, SLOW, psubscribe),
    control("publish", Exactly(3), PUBSUB | LOADING | STALE | FAST | MAY_REPLICATE | SENTINEL, 0, publish),
    container("pubsub", 0, SLOW, PUBSUB_COMMANDS),
    control("punsubscribe", AtLeast(1), BASIC, SLOW, punsubscribe),
    control("subscribe", AtLeast(2), BASIC, SLOW, subscribe),
    control("unsubscribe", AtLeast(1), BASIC, SLOW, unsubscribe),
];

const PUBSUB_COMMANDS: &[CommandSpec] = &[
    control("channels", AtLeast(2), PUBSUB | LOADING | STALE, SLOW, channels),
    control("help", Exactly(2), LOADING | STALE, SLOW, pubsub_help),
    control("numpat", Exactly(2), PUBSUB | LOADING | STALE, SLOW, numpat),
    control("numsub", AtLeast(2), PUBSUB | LOADING | STALE, SLOW, numsub),
];

fn subscribe(control: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    subscribe_in(control, Space::Channel, "subscribe", arguments, reply)
}

fn psubscribe(control: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    subscribe_in(control, Space::Pattern, "psubscribe", arguments, reply)
}

fn subscribe_in(
    control: &mut Control<'_>,
    space: Space,
    kind: &str,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    if control.in_transaction && control.session.protocol == Protocol::Resp2 {
        return Err(CommandError::Text(
            format!("ERR {} isn't allowed in MULTI with RESP2", kind.to_uppercase()).into(),
        ));
    }
    for channel in arguments.from(1) {
        if control.session.subscriptions.space(space).insert(channel.into()) {
            control.services.pubsub.subscribe(space, channel, &control.session.client);
        }
        confirm(control, kind, Some(channel), reply);
    }
    control.session.show();
    Ok(())
}

fn unsubscribe(control: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    unsubscribe_in(control, Space::Channel, "unsubscribe", arguments, reply)
}

fn punsubscribe(control: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    unsubscribe_in(control, Space::Pattern, "punsubscribe", arguments, reply)
}

fn unsubscribe_in(
    control: &mut Control<'_>,
    space: Space,
    kind: &str,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let channels: Vec<Box<[u8]>> = if arguments.len() > 1 {
        arguments.from(1).map(Box::from).collect()
    } else {
        control.session.subscriptions.space(space).iter().cloned().collect()
    };
    for channel in &channels {
        if control.session.subscriptions.space(space).remove(channel) {
            control.services.pubsub.unsubscribe(space, channel, &control.session.client);
            // Behind the confirmation no message of the channel may come.
            control.deliver(reply);
        }
        confirm(control, kind, Some(channel), reply);
    }
    if channels.is_empty() {
        confirm(control, kind, None, reply);
    }
    control.session.show();
    Ok(())
}

/// Every channel is confirmed by a message of its own.
fn confirm(control: &Control<'_>, kind: &str, channel: Option<&[u8]>, reply: &mut ReplyWriter<'_>) {
    reply.push(3);
    reply.bulk(kind.as_bytes());
    match channel {
        Some(channel) => reply.bulk(channel),
        None => reply.null(),
    }
    reply.count(control.session.subscriptions.count());
}

/// To the subscribers on this node. In a transaction that the proxy has sent on, that is the node that has its keys, not
/// the one that the client is connected to.
fn publish(control: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let limit = control.services.settings.load().output_limit_pubsub;
    let over_limit = |_: &Client, waiting: usize| limit.hard != 0 && waiting as u64 >= limit.hard;
    let receivers = control.services.pubsub.publish(arguments.at(1), arguments.at(2), over_limit);
    if !control.session.subscriptions.is_empty() {
        // Redis sends the message to a client that has published it itself before the reply.
        control.deliver(reply);
    }
    reply.count(receivers);
    Ok(())
}

fn channels(control: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    if arguments.len() > 3 {
        return Err(CommandError::Text(
            "ERR unknown subcommand or wrong number of arguments for 'channels'. Try PUBSUB HELP.".into(),
        ));
    }
    let channels = control.services.pubsub.channels(Space::Channel, arguments.get(2));
    reply.array(channels.len());
    channels.iter().for_each(|channel| reply.bulk(channel));
    Ok(())
}

fn numsub(control: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    reply.array((arguments.len() - 2) * 2);
    for channel in arguments.from(2) {
        reply.bulk(channel);
        reply.count(control.services.pubsub.subscriber_count(Space::Channel, channel));
    }
    Ok(())
}

fn numpat(control: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    reply.count(control.services.pubsub.pattern_count());
    Ok(())
}

fn pubsub_help(_: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    help::write(
        reply,
        "PUBSUB",
        &[
            "CHANNELS [<pattern>]",
            "    Return the currently active channels matching a <pattern> (default: '*').",
            "NUMPAT",
            "    Return number of subscriptions to patterns.",
            "NUMSUB [<channel> ...]",
            "    Return the number of subscribers for the specified channels, excluding",
            "    pattern subscriptions(default: no channels).",
        ],
    );
    Ok(())
}
