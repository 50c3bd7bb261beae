//! The connection itself: who the client is, which protocol and database it uses.

use super::client::CLIENT;
use crate::base::number;
use crate::commands::context::{Control, Flow};
use crate::commands::error::CommandError;
use crate::commands::parse::{self, is};
use crate::commands::session::{ReplyMode, Session};
use crate::commands::spec::{
    ALLOW_BUSY, Arity::*, CONNECTION, CommandResult, CommandSpec, FAST, HIDDEN, IN_CLUSTER, LOADING, NO_AUTH, NOSCRIPT,
    NOT_PAUSED, NOT_QUEUED, SENTINEL, STALE, TELLS_CONDITION, WHILE_SUBSCRIBED, container, control,
};
use crate::resp::arguments::Arguments;
use crate::resp::reply::{Protocol, ReplyWriter};
use crate::services::Services;
use crate::services::pubsub::Space;
use subtle::ConstantTimeEq;

const BASIC: u64 = NOSCRIPT | LOADING | STALE | FAST | ALLOW_BUSY;

pub const COMMANDS: &[CommandSpec] = &[
    control("auth", AtLeast(2), BASIC | NO_AUTH | SENTINEL, CONNECTION, auth),
    container("client", SENTINEL, 0, CLIENT),
    control("echo", Exactly(2), LOADING | STALE | FAST, CONNECTION, echo),
    control("hello", AtLeast(1), BASIC | NO_AUTH | SENTINEL, CONNECTION, hello),
    control("ping", AtLeast(1), FAST | SENTINEL | WHILE_SUBSCRIBED | TELLS_CONDITION, CONNECTION, ping)
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"]),
    control("quit", AtLeast(1), BASIC | NO_AUTH | NOT_QUEUED | WHILE_SUBSCRIBED | NOT_PAUSED, CONNECTION, quit),
    control("readonly", Exactly(1), LOADING | STALE | FAST | IN_CLUSTER, CONNECTION, readonly),
    control("readwrite", Exactly(1), LOADING | STALE | FAST | IN_CLUSTER, CONNECTION, readwrite),
    control("reset", Exactly(1), BASIC | NO_AUTH | NOT_QUEUED | WHILE_SUBSCRIBED | NOT_PAUSED, CONNECTION, reset),
    control("select", Exactly(2), LOADING | STALE | FAST, CONNECTION, select),
    control("asking", Exactly(1), FAST | IN_CLUSTER, CONNECTION, asking),
    control("host:", AtLeast(1), NO_AUTH | NOT_QUEUED | HIDDEN, CONNECTION, refuse_http),
    control("post", AtLeast(1), NO_AUTH | NOT_QUEUED | HIDDEN, CONNECTION, refuse_http),
];

const WRONG_PASSWORD: CommandError =
    CommandError::text("WRONGPASS invalid username-password pair or user is disabled.");

fn ping(control: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    if arguments.len() > 2 {
        return Err(CommandError::WrongArity("ping".into()));
    }
    if control.session.is_limited_to_subscriber_commands() {
        reply.array(2);
        reply.bulk(b"pong");
        reply.bulk(arguments.at(1));
    } else {
        match arguments.get(1) {
            Some(message) => reply.bulk(message),
            None => reply.simple("PONG"),
        }
    }
    Ok(())
}

fn echo(_: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    reply.bulk(arguments.at(1));
    Ok(())
}

fn quit(control: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    reply.ok();
    control.flow = Flow::Close;
    Ok(())
}

fn select(control: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    // A cluster has database 0 only.
    let is_cluster = control.services.settings.load().cluster_enabled;
    let database = parse::database(arguments.at(1), control.services.engine.database_count())?;
    if is_cluster && database != 0 {
        return Err(CommandError::text("ERR SELECT is not allowed in cluster mode"));
    }
    control.session.select(database);
    reply.ok();
    Ok(())
}

fn readonly(control: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    set_readonly(control, true, reply)
}

fn readwrite(control: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    set_readonly(control, false, reply)
}

fn set_readonly(control: &mut Control<'_>, is_readonly: bool, reply: &mut ReplyWriter<'_>) -> CommandResult {
    control.session.client.readonly.store(is_readonly, std::sync::atomic::Ordering::Relaxed);
    reply.ok();
    Ok(())
}

fn asking(control: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    control.session.is_asking = true;
    reply.ok();
    Ok(())
}

/// A browser that was made to talk to us: its requests would be inline commands. The connection closes at once.
fn refuse_http(control: &mut Control<'_>, _: Arguments<'_>, _: &mut ReplyWriter<'_>) -> CommandResult {
    tracing::warn!(client = %control.session.client.address, "possible cross-protocol attack: HTTP on a Redis port");
    control.flow = Flow::Abort;
    Ok(())
}

/// Checks a name and a password. Without `requirepass` the default user has none, and any will do.
fn authenticate(control: &mut Control<'_>, name: &[u8], password: &[u8]) -> CommandResult {
    let config = control.services.settings.load_full();
    let right = config.requirepass.is_empty() || bool::from(config.requirepass.as_slice().ct_eq(password));
    if name != b"default" || !right {
        return Err(WRONG_PASSWORD);
    }
    control.session.is_authenticated = true;
    Ok(())
}

fn auth(control: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    control.session.secrets.extend(1..arguments.len().min(3));
    match arguments.len() {
        2 if control.services.settings.load().requirepass.is_empty() => {
            return Err(CommandError::text(
                "ERR AUTH <password> called without any password configured for the default user. Are you sure your \
                 configuration is correct?",
            ));
        }
        2 => authenticate(control, b"default", arguments.at(1))?,
        3 => authenticate(control, arguments.at(1), arguments.at(2))?,
        _ => return Err(CommandError::Syntax),
    }
    reply.ok();
    Ok(())
}

fn hello(control: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let mut protocol = control.session.protocol;
    if let Some(version) = arguments.get(1) {
        protocol = match number::parse_i64(version) {
            Some(2) => Protocol::Resp2,
            Some(3) => Protocol::Resp3,
            Some(_) => return Err(CommandError::text("NOPROTO unsupported protocol version")),
            None => return Err(CommandError::text("ERR Protocol version is not an integer or out of range")),
        };
    }
    let mut index = 2;
    let mut name = None;
    while let Some(word) = arguments.get(index) {
        if is(word, "auth") && index + 2 < arguments.len() {
            control.session.secrets.extend([index + 1, index + 2]);
            authenticate(control, arguments.at(index + 1), arguments.at(index + 2))?;
            index += 3;
        } else if is(word, "setname") && index + 1 < arguments.len() {
            name = Some(super::client::checked_name(arguments.at(index + 1))?);
            index += 2;
        } else {
            let word = String::from_utf8_lossy(word);
            return Err(CommandError::Text(format!("ERR Syntax error in HELLO option '{word}'").into()));
        }
    }
    if !control.session.is_authenticated {
        return Err(CommandError::text(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH \
             <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the \
             same time",
        ));
    }
    if let Some(name) = name {
        control.session.client.labels.lock().name = name;
    }
    if protocol != control.session.protocol {
        // Messages in the former protocol come before the reply that changes it, those in the new one behind it.
        control.services.pubsub.pause(|| {
            control.deliver(reply);
            control.session.set_protocol(protocol);
        });
        reply.set_protocol(protocol);
    }
    let mode = if control.services.settings.load().cluster_enabled { "cluster" } else { "standalone" };
    reply.map(7);
    for (field, value) in [("server", "redis"), ("version", crate::commands::REDIS_VERSION)] {
        reply.bulk(field.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"proto");
    reply.integer(if protocol == Protocol::Resp3 { 3 } else { 2 });
    reply.bulk(b"id");
    reply.integer(control.session.client.id as i64);
    for (field, value) in [("mode", mode), ("role", "master")] {
        reply.bulk(field.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"modules");
    reply.array(0);
    Ok(())
}

fn reset(control: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    forget(control.session, control.services);
    control.deliver(reply);
    let session = &mut *control.session;
    session.select(0);
    session.reply_mode = ReplyMode::On;
    session.client.readonly.store(false, std::sync::atomic::Ordering::Relaxed);
    session.is_asking = false;
    session.quorum = None;
    session.keeps_access = false;
    session.client.no_evict.store(false, std::sync::atomic::Ordering::Relaxed);
    session.client.labels.lock().name.clear();
    session.is_authenticated = control.services.settings.load().requirepass.is_empty();
    session.set_protocol(Protocol::Resp2);
    reply.set_protocol(Protocol::Resp2);
    reply.simple("RESET");
    Ok(())
}

/// Ends what the session has begun: its transaction, watches and subscriptions. Also when the connection is over.
pub fn forget(session: &mut Session, services: &Services) {
    session.end_transaction();
    super::transaction::unwatch_all(session, services);
    for space in [Space::Channel, Space::Pattern, Space::Shard] {
        for channel in std::mem::take(session.subscriptions.space(space)) {
            services.pubsub.unsubscribe(space, &channel, &session.client);
        }
    }
    session.show();
}
