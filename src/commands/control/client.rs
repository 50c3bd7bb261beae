//! CLIENT: the connections of this node, and what a client may say about its own.

use crate::base::acknowledge::Acknowledge;
use crate::base::number;
use crate::commands::context::{Control, Flow};
use crate::commands::error::CommandError;
use crate::commands::help;
use crate::commands::parse::{self, is};
use crate::commands::session::{QuorumAsked, ReplyMode};
use crate::commands::spec::{
    ADMIN, Arity::*, CONNECTION, CommandResult, CommandSpec, HIDDEN, IN_CLUSTER, LOADING, NOSCRIPT, NOT_PAUSED,
    SENTINEL, STALE, control,
};
use crate::commands::table;
use crate::engine::waiters::Ended;
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;
use crate::services::clients::{Address, Client};
use crate::services::pause::{self, Paused};
use std::sync::Arc;
use std::sync::atomic::Ordering;

const BASIC: u64 = NOSCRIPT | LOADING | STALE | SENTINEL;

pub const CLIENT: &[CommandSpec] = &[
    control("ack", Exactly(3), BASIC | HIDDEN | IN_CLUSTER, CONNECTION, acknowledgement),
    control("getname", Exactly(2), BASIC, CONNECTION, getname),
    control("getredir", Exactly(2), BASIC, CONNECTION, getredir),
    control("help", Exactly(2), LOADING | STALE | SENTINEL, CONNECTION, client_help),
    control("id", Exactly(2), BASIC, CONNECTION, id),
    control("info", Exactly(2), BASIC, CONNECTION, info).tips(&["nondeterministic_output"]),
    control("kill", AtLeast(3), BASIC | ADMIN, CONNECTION, kill),
    control("list", AtLeast(2), BASIC | ADMIN, CONNECTION, list).tips(&["nondeterministic_output"]),
    control("no-evict", Exactly(3), BASIC | ADMIN, CONNECTION, no_evict),
    control("no-touch", Exactly(3), BASIC, CONNECTION, no_touch),
    control("pause", AtLeast(3), BASIC | ADMIN | NOT_PAUSED, CONNECTION, pause_clients),
    control("reply", Exactly(3), BASIC, CONNECTION, reply_mode),
    control("routing", Exactly(3), BASIC | HIDDEN, CONNECTION, routing),
    control("setinfo", Exactly(4), BASIC, CONNECTION, setinfo)
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]),
    control("setname", Exactly(3), BASIC, CONNECTION, setname),
    control("unblock", AtLeast(3), BASIC | ADMIN, CONNECTION, unblock),
    control("unpause", Exactly(2), BASIC | ADMIN | NOT_PAUSED, CONNECTION, unpause),
];

/// A name without blanks and line ends, which would break the lines of CLIENT LIST.
pub(super) fn checked_name(name: &[u8]) -> Result<String, CommandError> {
    if name.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        Ok(String::from_utf8_lossy(name).into_owned())
    } else {
        Err(CommandError::text("ERR Client names cannot contain spaces, newlines or special characters."))
    }
}

fn id(control: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    reply.integer(control.session.client.id as i64);
    Ok(())
}

fn getname(control: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let labels = control.session.client.labels.lock();
    if labels.name.is_empty() {
        reply.null();
    } else {
        reply.bulk(labels.name.as_bytes());
    }
    Ok(())
}

fn setname(control: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    control.session.client.labels.lock().name = checked_name(arguments.at(2))?;
    reply.ok();
    Ok(())
}

fn setinfo(control: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let (attribute, value) = (arguments.at(2), arguments.at(3));
    let name = String::from_utf8_lossy(attribute).into_owned();
    if !is(attribute, "lib-name") && !is(attribute, "lib-ver") {
        return Err(CommandError::Text(format!("ERR Unrecognized option '{name}'").into()));
    }
    if !value.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        let text = format!("ERR {name} cannot contain spaces, newlines or special characters.");
        return Err(CommandError::Text(text.into()));
    }
    let value = String::from_utf8_lossy(value).into_owned();
    let mut labels = control.session.client.labels.lock();
    if is(attribute, "lib-name") {
        labels.library_name = value;
    } else {
        labels.library_version = value;
    }
    reply.ok();
    Ok(())
}

/// Starling's own: whether the replies of this connection wait until a quorum has what they show, also where the cluster does
/// not ask for it.
fn acknowledgement(control: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let asked = Acknowledge::of_name(arguments.at(2)).ok_or(CommandError::Syntax)?;
    if asked != Acknowledge::Async && control.session.is_proxied {
        return Err(CommandError::text(
            "ERR Forwarded requests are acknowledged as the cluster agrees on: see the parameter 'acknowledge'",
        ));
    }
    if asked != control.session.acknowledge() {
        let asks = Some(asked).filter(|asked| *asked != Acknowledge::Async);
        control.session.quorum = asks.map(|asked| QuorumAsked::new(&control.services.engine, asked));
    }
    // What has already been read behind it is acknowledged the new way too.
    control.flow = Flow::After(Box::pin(std::future::ready(())));
    reply.ok();
    Ok(())
}

/// Starling's own: what the node does with this connection's requests for keys of other nodes, whatever the listener.
fn routing(control: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let is_proxied = match arguments.at(2) {
        word if is(word, "proxy") => true,
        word if is(word, "redirect") => false,
        _ => return Err(CommandError::Syntax),
    };
    if control.services.cluster.is_none() {
        return Err(CommandError::text("ERR This instance has cluster support disabled"));
    }
    control.session.is_proxied = is_proxied;
    // What has already been read behind it goes the new way too.
    control.flow = Flow::After(Box::pin(std::future::ready(())));
    reply.ok();
    Ok(())
}

fn getredir(_: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    // -1: the client does not track keys.
    reply.integer(-1);
    Ok(())
}

fn info(control: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    control.session.show();
    reply.verbatim("txt", &line(&control.session.client, control.now_ms));
    Ok(())
}

/// A client's line in CLIENT LIST.
fn line(client: &Client, now_ms: u64) -> String {
    let load = |counter: &std::sync::atomic::AtomicUsize| counter.load(Ordering::Relaxed);
    let labels = client.labels.lock().clone();
    let mut flags = String::new();
    for (flag, raised) in [
        ('P', client.is_subscribed()),
        ('x', client.queued.load(Ordering::Relaxed) >= 0),
        ('b', client.is_blocked.load(Ordering::Relaxed)),
        ('c', client.closing.load(Ordering::Relaxed)),
        ('U', matches!(client.address, Address::Unix(_))),
        ('r', client.readonly.load(Ordering::Relaxed)),
        ('e', client.no_evict.load(Ordering::Relaxed)),
    ] {
        if raised {
            flags.push(flag);
        }
    }
    if flags.is_empty() {
        flags.push('N');
    }
    let command = table::all()
        .get(client.command.load(Ordering::Relaxed) as usize)
        .map_or("NULL", |command| command.name.as_str());
    let active = client.active_at_ms.load(Ordering::Relaxed);
    let (input, output) = (load(&client.input_bytes), load(&client.output_bytes) + client.inbox.bytes());
    let queue = load(&client.queue_bytes);
    format!(
        "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={flags} db={} sub={} psub={} ssub={} multi={} \
         qbuf={input} qbuf-free=0 argv-mem=0 multi-mem={queue} rbs=0 rbp=0 obl={output} oll=0 omem={output} \
         tot-mem={} events=r cmd={command} user=default redir=-1 resp={} lib-name={} lib-ver={}\n",
        client.id,
        client.address,
        client.local_address,
        client.descriptor,
        labels.name,
        now_ms.saturating_sub(client.connected_at_ms) / 1000,
        now_ms.saturating_sub(active) / 1000,
        load(&client.database),
        load(&client.subscriptions),
        load(&client.pattern_subscriptions),
        load(&client.shard_subscriptions),
        client.queued.load(Ordering::Relaxed),
        client.memory_bytes(),
        if client.resp3.load(Ordering::Relaxed) { 3 } else { 2 },
        labels.library_name,
        labels.library_version,
    )
}

fn list(control: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    control.session.show();
    let mut clients = control.services.clients.list();
    match arguments.get(2) {
        None => {}
        Some(word) if is(word, "type") && arguments.len() == 4 => {
            let class = class_of(arguments.at(3))?;
            clients.retain(|client| client.class() == class);
        }
        Some(word) if is(word, "id") && arguments.len() > 3 => {
            let ids = arguments.from(3).map(client_id).collect::<Result<Vec<_>, _>>()?;
            clients = ids.into_iter().filter_map(|id| control.services.clients.get(id)).collect();
        }
        Some(_) => return Err(CommandError::Syntax),
    }
    let text: String = clients.iter().map(|client| line(client, control.now_ms)).collect();
    reply.verbatim("txt", &text);
    Ok(())
}

fn client_id(argument: &[u8]) -> Result<u64, CommandError> {
    number::parse_i64(argument)
        .and_then(|id| u64::try_from(id).ok())
        .filter(|id| *id > 0)
        .ok_or(CommandError::text("ERR Invalid client ID"))
}

fn class_of(argument: &[u8]) -> Result<&'static str, CommandError> {
    ["normal", "pubsub", "master", "replica", "slave"]
        .into_iter()
        .find(|class| is(argument, class))
        .map(|class| if class == "slave" { "replica" } else { class })
        .ok_or_else(|| {
            CommandError::Text(format!("ERR Unknown client type '{}'", String::from_utf8_lossy(argument)).into())
        })
}

/// Which clients CLIENT KILL means.
#[derive(Default)]
struct KillFilter {
    id: Option<u64>,
    address: Option<Vec<u8>>,
    local_address: Option<Vec<u8>>,
    class: Option<&'static str>,
    user: Option<Vec<u8>>,
    spare_me: bool,
}

impl KillFilter {
    fn parse(arguments: Arguments<'_>) -> Result<KillFilter, CommandError> {
        let mut filter = KillFilter { spare_me: true, ..KillFilter::default() };
        let mut rest = arguments.from(2);
        while let Some(word) = rest.next() {
            let value = rest.next().ok_or(CommandError::Syntax)?;
            match word {
                _ if is(word, "id") => {
                    filter.id = Some(
                        client_id(value).map_err(|_| CommandError::text("ERR client-id should be greater than 0"))?,
                    );
                }
                _ if is(word, "addr") => filter.address = Some(value.to_vec()),
                _ if is(word, "laddr") => filter.local_address = Some(value.to_vec()),
                _ if is(word, "type") => filter.class = Some(class_of(value)?),
                _ if is(word, "user") => {
                    if value != b"default" {
                        let user = String::from_utf8_lossy(value);
                        return Err(CommandError::Text(format!("ERR No such user '{user}'").into()));
                    }
                    filter.user = Some(value.to_vec());
                }
                _ if is(word, "skipme") && is(value, "yes") => filter.spare_me = true,
                _ if is(word, "skipme") && is(value, "no") => filter.spare_me = false,
                _ => return Err(CommandError::Syntax),
            }
        }
        Ok(filter)
    }

    fn means(&self, client: &Client, me: u64) -> bool {
        self.id.is_none_or(|id| client.id == id)
            && self.address.as_ref().is_none_or(|address| client.address.to_string().as_bytes() == address)
            && self.local_address.as_ref().is_none_or(|address| client.local_address.to_string().as_bytes() == address)
            && self.class.is_none_or(|class| client.class() == class)
            && !(self.spare_me && client.id == me)
    }
}

fn kill(control: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let is_old_form = arguments.len() == 3;
    let filter = if is_old_form {
        KillFilter { address: Some(arguments.at(2).to_vec()), ..KillFilter::default() }
    } else {
        KillFilter::parse(arguments)?
    };
    control.session.show();
    let me = control.session.client.id;
    let meant: Vec<Arc<Client>> =
        control.services.clients.list().into_iter().filter(|client| filter.means(client, me)).collect();
    for client in &meant {
        // One's own connection closes when the reply is sent, others at once.
        if client.id == me {
            control.flow = crate::commands::context::Flow::Close;
        } else {
            client.close();
        }
    }
    match (is_old_form, meant.len()) {
        (true, 0) => return Err(CommandError::text("ERR No such client")),
        (true, _) => reply.ok(),
        (false, count) => reply.count(count),
    }
    Ok(())
}

fn unblock(control: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    const REASON: CommandError = CommandError::text("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR");
    if arguments.len() > 4 {
        return Err(CommandError::text(
            "ERR unknown subcommand or wrong number of arguments for 'unblock'. Try CLIENT HELP.",
        ));
    }
    let ended = match arguments.get(3) {
        None => Ended::TimedOut,
        Some(word) if is(word, "timeout") => Ended::TimedOut,
        Some(word) if is(word, "error") => Ended::Unblocked,
        Some(_) => return Err(REASON),
    };
    let id = parse::integer(arguments.at(2))?;
    let meant = control.services.clients.list().into_iter().find(|client| i64::try_from(client.id) == Ok(id));
    let waiter = meant.and_then(|client| client.waiter.lock().clone());
    reply.integer(i64::from(waiter.is_some_and(|waiter| waiter.end(ended))));
    Ok(())
}

fn no_evict(control: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let on = switch(arguments.at(2))?;
    control.session.client.no_evict.store(on, Ordering::Relaxed);
    reply.ok();
    Ok(())
}

fn no_touch(control: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    control.session.keeps_access = switch(arguments.at(2))?;
    reply.ok();
    Ok(())
}

fn switch(argument: &[u8]) -> Result<bool, CommandError> {
    match argument {
        _ if is(argument, "on") => Ok(true),
        _ if is(argument, "off") => Ok(false),
        _ => Err(CommandError::Syntax),
    }
}

fn reply_mode(control: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let mode = arguments.at(2);
    control.session.reply_mode = match mode {
        _ if is(mode, "on") => {
            reply.ok();
            ReplyMode::On
        }
        _ if is(mode, "off") => ReplyMode::Off,
        _ if is(mode, "skip") => match control.session.reply_mode {
            ReplyMode::Off => ReplyMode::Off,
            _ => ReplyMode::SkipNext,
        },
        _ => return Err(CommandError::Syntax),
    };
    Ok(())
}

fn pause_clients(control: &mut Control<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let who = match arguments.get(3) {
        None => Paused::All,
        Some(word) if is(word, "all") && arguments.len() == 4 => Paused::All,
        Some(word) if is(word, "write") && arguments.len() == 4 => Paused::Writes,
        Some(_) => return Err(CommandError::text("ERR CLIENT PAUSE mode must be WRITE or ALL")),
    };
    let timeout = number::parse_i64(arguments.at(2))
        .ok_or(CommandError::text("ERR timeout is not an integer or out of range"))?;
    if timeout < 0 {
        return Err(CommandError::text("ERR timeout is negative"));
    }
    let until = control
        .now_ms
        .checked_add(timeout as u64)
        .filter(|until| i64::try_from(*until).is_ok())
        .ok_or(CommandError::text("ERR timeout is out of range"))?;
    pause::begin(control.services, who, until, control.now_ms);
    reply.ok();
    Ok(())
}

fn unpause(control: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    pause::end(control.services);
    reply.ok();
    Ok(())
}

fn client_help(_: &mut Control<'_>, _: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    help::write(
        reply,
        "CLIENT",
        &[
            "GETNAME",
            "    Return the name of the current connection.",
            "GETREDIR",
            "    Return the client ID we are redirecting to when tracking is enabled.",
            "ID",
            "    Return the ID of the current connection.",
            "INFO",
            "    Return information about the current client connection.",
            "KILL <ip:port>",
            "    Kill connection made from <ip:port>.",
            "KILL <option> <value> [<option> <value> [...]]",
            "    Kill connections. Options are ADDR, LADDR, TYPE, USER, SKIPME, ID.",
            "LIST [options ...]",
            "    Return information about client connections. Options are TYPE, ID.",
            "NO-EVICT (ON|OFF)",
            "    Protect current client connection from eviction.",
            "NO-TOUCH (ON|OFF)",
            "    Will not touch LRU/LFU stats when this mode is on.",
            "PAUSE <timeout> [WRITE|ALL]",
            "    Suspend all, or just write, clients for <timeout> milliseconds.",
            "REPLY (ON|OFF|SKIP)",
            "    Control the replies sent to the current connection.",
            "SETINFO <LIB-NAME|LIB-VER> <value>",
            "    Set information about the client library.",
            "SETNAME <name>",
            "    Assign the name <name> to the current connection.",
            "UNPAUSE",
            "    Stop the current client pause, resuming traffic.",
        ],
    );
    Ok(())
}
