//! Between the dispatcher and the proxy: which requests of a forwarded connection go to other nodes, and how.
//!
//! ```text
//!  keys in one slot      -> here, or Forward to its owner
//!  keys in several slots -> spread, if the command's row says so, else -CROSSSLOT
//!  no keys               -> here; spread over all nodes, if the command's row says so
//!  MULTI                 -> queued here, sent as one block by EXEC; WATCH goes over a link of its own
//! ```
//!
//! How the replies of a spread command become one is said by its row's tips, which are those of Redis.

use super::dispatch::Batch;
use super::output::{Reply, Told, replace};
use super::routing::{CROSS_SLOT, Elsewhere};
use crate::base::clock;
use crate::base::slot::Slot;
use crate::cluster::routing::{self, DownReason, NodeIndex, RequestTraits, Route, RoutingNode};
use crate::commands::context::{Flow, LaterReply};
use crate::commands::control::transaction::unwatch_all;
use crate::commands::data::keyspace::{ScanCursor, ScanOptions};
use crate::commands::error::CommandError;
use crate::commands::execution::{self, Executed, Keys, Manner};
use crate::commands::session::Session;
use crate::commands::spec::{self, Find, Handler};
use crate::commands::table::{self, Command};
use crate::config::Config;
use crate::engine::Wait;
use crate::engine::log::gate::Shown;
use crate::proxy::forward::{Forward, Goal, Job};
use crate::proxy::lane::{Lane, Way};
use crate::proxy::scan::{self, Scan};
use crate::proxy::spread::{self, Everywhere, Keyed, Merge, Refusal};
use crate::proxy::transaction::{self, WatchLink};
use crate::proxy::{Credentials, Home, Peer, Place, Proxy};
use crate::resp::arguments::{Arguments, OwnedArguments};
use crate::resp::reply::{Protocol, ReplyWriter};
use crate::services::Services;
use crate::services::cluster::Cluster;
use crate::services::condition::Condition;
use std::cell::{OnceCell, RefCell};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// A flow, or nothing: the request is executed here, or queued.
type Decision = Result<Option<Flow>, Elsewhere>;

/// A connection's side of the proxy.
pub struct Proxied {
    proxy: Rc<Proxy>,
    lane: Rc<Lane>,
}

impl Proxied {
    pub fn new(proxy: Rc<Proxy>) -> Proxied {
        Proxied { proxy, lane: Rc::default() }
    }

    /// Whether replies will come soon from elsewhere.
    pub fn is_answering(&self) -> bool {
        self.lane.is_answering()
    }

    fn place(&self, slot: Slot, command: &Command) -> Place {
        self.proxy.home.place(slot, command.spec.has(spec::WRITE))
    }

    fn way(&self, session: &Session) -> Way {
        self.proxy.way(session.protocol)
    }

    /// The wait for what is under way, where the next request would overtake it.
    fn must_wait(&self, session: &Session) -> Option<Flow> {
        let way = self.way(session);
        self.lane.must_wait(way).then(|| Flow::Retry(Box::pin(self.lane.until_free(way))))
    }

    /// The wait for all that is under way.
    fn must_be_idle(&self) -> Option<Flow> {
        self.lane.is_busy().then(|| Flow::Retry(Box::pin(self.lane.until_idle())))
    }
}

/// Nobody serves it.
fn down(text: &'static str) -> Elsewhere {
    Elsewhere::Redirect(CommandError::text(text))
}

/// The proxy of a worker; `None`: there is no cluster.
pub fn proxy(services: &Arc<Services>) -> Option<Rc<Proxy>> {
    let cluster = Arc::clone(services.cluster.as_ref()?);
    let services = Arc::clone(services);
    let settings = RefCell::new(LinkSettings::of(services.settings.load_full()));
    Some(Proxy::new(Rc::new(ThisNode { services, cluster, settings })))
}

/// Decides about a request of a forwarded connection. `None`: it is executed here, or queued.
///
/// # Errors
/// It was not executed, and will not be.
pub(super) fn forward(
    proxied: &Proxied,
    batch: &Batch<'_>,
    session: &mut Session,
    command: &'static Command,
    arguments: Arguments<'_>,
    keys: &Keys,
) -> Decision {
    let decision = decide(proxied, batch, session, command, arguments, keys);
    if matches!(decision, Ok(Some(Flow::Later(_)))) {
        session.waiting_since_ms = None;
    }
    decision
}

fn decide(
    proxied: &Proxied,
    batch: &Batch<'_>,
    session: &mut Session,
    command: &'static Command,
    arguments: Arguments<'_>,
    keys: &Keys,
) -> Decision {
    let row = command.spec;
    if session.transaction.is_some() && !row.has(spec::NOT_QUEUED) {
        return queueable(proxied, command, keys).map(|()| None);
    }
    // A malformed request is one wherever its keys are, and however many nodes are gone.
    if let Some(check) = row.check {
        check(arguments).map_err(Elsewhere::Redirect)?;
    }
    match command.name.as_str() {
        "exec" => return exec(proxied, batch, session),
        "watch" => return watch(proxied, session, arguments, keys),
        // What is behind it is executed here: it must not overtake what is elsewhere.
        "client|routing" if proxied.lane.is_busy() => return Ok(proxied.must_be_idle()),
        _ => {}
    }
    let is_spread = row.has(spec::SPREAD);
    let Some((&slot, others)) = keys.slots.split_first() else {
        return if is_spread && row.keys.is_empty() {
            everywhere(proxied, session, command, arguments)
        } else {
            Ok(None)
        };
    };
    if let Some(wait) = proxied.must_wait(session) {
        return Ok(Some(wait));
    }
    if others.iter().any(|other| *other != slot) {
        if !is_spread {
            return Err(Elsewhere::Redirect(CROSS_SLOT));
        }
        return keyed(proxied, session, command, arguments, keys);
    }
    Ok(match proxied.place(slot, command) {
        Place::Here => None,
        Place::Soon => return Err(Elsewhere::Wait),
        Place::Nowhere(text) => return Err(down(text)),
        Place::At(peer) => Some(send(proxied, session, command, arguments, slot, peer)),
    })
}

/// Sends a request with keys in one slot to its owner.
fn send(
    proxied: &Proxied,
    session: &Session,
    command: &Command,
    arguments: Arguments<'_>,
    slot: Slot,
    peer: Peer,
) -> Flow {
    let blocks = command.spec.has(spec::BLOCKING | spec::WAITS);
    if blocks {
        // It goes by another link than what this client has sent before, and what it sends next.
        if let Some(wait) = proxied.must_be_idle() {
            return wait;
        }
    } else {
        let link = proxied.proxy.links.get(&*proxied.proxy.home, peer, session.protocol);
        if !link.has_room() {
            return Flow::Retry(Box::pin(link.until_room()));
        }
    }
    let job = Job {
        goal: Goal::Owner(slot),
        requests: vec![arguments.to_owned()],
        protocol: session.protocol,
        writes: !command.spec.has(spec::READONLY),
        blocks,
    };
    let ticket = proxied.lane.enter(proxied.way(session));
    let forward = Forward::start(&proxied.proxy, ticket, peer, job);
    if blocks {
        proxied.lane.block();
    }
    Flow::Later(Box::pin(forward.finish()))
}

/// How the replies to a spread command become one.
fn merge_of(command: &Command) -> Merge {
    let tip = |tip: &str| command.spec.tips.contains(&tip);
    match () {
        () if tip("response_policy:agg_sum") => Merge::Sum,
        () if tip("response_policy:all_succeeded") => Merge::AllOk,
        () if command.spec.keys.is_empty() => Merge::Concatenate,
        () => Merge::ByKey,
    }
}

/// A spread command with keys in several slots.
fn keyed(
    proxied: &Proxied,
    session: &Session,
    command: &'static Command,
    arguments: Arguments<'_>,
    keys: &Keys,
) -> Decision {
    if keys.slots.iter().all(|slot| proxied.place(*slot, command) == Place::Here) {
        return Ok(None);
    }
    let mut places = Vec::with_capacity(keys.slots.len());
    command.spec.visit_keys(arguments, |index, _| places.push(index));
    let step = match command.spec.keys.first().map(|spec| spec.find) {
        Some(Find::Range { step, .. }) => usize::from(step.max(1)),
        _ => 1,
    };
    let request = Keyed {
        arguments,
        keys: places.into_iter().zip(keys.slots.iter().copied()).collect(),
        step,
        merge: merge_of(command),
        protocol: session.protocol,
        writes: command.spec.has(spec::WRITE),
    };
    let result = spread::keyed(&proxied.proxy, &proxied.lane, request);
    later(proxied, session, result.map(|reply| Box::pin(reply) as LaterReply))
}

/// A spread command without keys.
fn everywhere(proxied: &Proxied, session: &Session, command: &'static Command, arguments: Arguments<'_>) -> Decision {
    if command.spec.tips.contains(&"request_policy:special") {
        return walk(proxied, session, arguments);
    }
    if let Some(wait) = proxied.must_wait(session) {
        return Ok(Some(wait));
    }
    let request = Everywhere {
        request: arguments.to_owned(),
        merge: merge_of(command),
        protocol: session.protocol,
        writes: command.spec.has(spec::WRITE),
    };
    let result = spread::everywhere(&proxied.proxy, &proxied.lane, request);
    later(proxied, session, result.map(|reply| Box::pin(reply) as LaterReply))
}

/// SCAN.
fn walk(proxied: &Proxied, session: &Session, arguments: Arguments<'_>) -> Decision {
    let Some(cursor) = ScanCursor::parse(arguments.at(1)).map_err(Elsewhere::Redirect)? else { return Ok(None) };
    let options = ScanOptions::parse(arguments, 2).map_err(Elsewhere::Redirect)?;
    if let Some(wait) = proxied.must_be_idle() {
        return Ok(Some(wait));
    }
    let request = Scan {
        request: arguments.to_owned(),
        cursor: cursor.number(),
        count: options.count,
        protocol: session.protocol,
    };
    // It sees none of what the client sends behind it.
    let ticket = proxied.lane.enter(proxied.way(session));
    proxied.lane.close();
    Ok(Some(Flow::Later(Box::pin(scan::scan(Rc::clone(&proxied.proxy), ticket, request)))))
}

/// What comes of a request that was to be spread.
fn later(proxied: &Proxied, session: &Session, result: Result<LaterReply, Refusal>) -> Decision {
    Ok(Some(match result {
        Ok(reply) => Flow::Later(reply),
        Err(Refusal::Soon) => return Err(Elsewhere::Wait),
        Err(Refusal::Down(text)) => return Err(down(text)),
        Err(Refusal::Full(peer)) => {
            let link = proxied.proxy.links.get(&*proxied.proxy.home, peer, session.protocol);
            Flow::Retry(Box::pin(link.until_room()))
        }
    }))
}

/// Whether a command may be queued. Where its keys are is looked at by EXEC: until then they may move.
fn queueable(proxied: &Proxied, command: &'static Command, keys: &Keys) -> Result<(), Elsewhere> {
    let Some((&slot, others)) = keys.slots.split_first() else { return Ok(()) };
    if others.iter().any(|other| *other != slot) {
        return Err(Elsewhere::Redirect(CROSS_SLOT));
    }
    match proxied.place(slot, command) {
        Place::Nowhere(text) => Err(down(text)),
        _ => Ok(()),
    }
}

/// WATCH: here, or over a link of its own to the owner.
fn watch(proxied: &Proxied, session: &mut Session, arguments: Arguments<'_>, keys: &Keys) -> Decision {
    if session.transaction.is_some() {
        // Its handler says what is wrong. Over the link that all share it would watch for everybody.
        return Ok(None);
    }
    let mut slots: BTreeSet<Slot> = keys.slots.iter().copied().collect();
    slots.extend(watched_slots(session));
    let (Some(&slot), 1) = (slots.first(), slots.len()) else {
        return Err(Elsewhere::Redirect(CROSS_SLOT));
    };
    if let Some(wait) = proxied.must_be_idle() {
        return Ok(Some(wait));
    }
    let watching = watch_link(session);
    let peer = match proxied.proxy.home.place(slot, false) {
        Place::Soon => return Err(Elsewhere::Wait),
        Place::Nowhere(text) => return Err(down(text)),
        Place::Here if watching.is_none() => return Ok(None),
        // It watches there already; EXEC will find out that the slot has moved.
        Place::Here => proxied.proxy.home.own_address(),
        Place::At(peer) => Some(peer),
    };
    let Some(peer) = peer else { return Ok(None) };
    let link = watching.unwrap_or_else(|| Rc::new(WatchLink::open(&proxied.proxy, peer, slot, session.protocol)));
    let reply = link.add(&proxied.lane, proxied.way(session), arguments.to_owned());
    session.watching.elsewhere = Some(link);
    Ok(Some(Flow::Later(Box::pin(reply))))
}

/// The link over which a client watches.
fn watch_link(session: &Session) -> Option<Rc<WatchLink>> {
    session.watching.elsewhere.clone()?.downcast().ok()
}

/// The slots of the keys that a client watches, here or elsewhere.
fn watched_slots(session: &Session) -> BTreeSet<Slot> {
    let elsewhere = watch_link(session).map(|link| link.slot);
    session.watching.keys.iter().map(|(_, key)| Slot::of_key(key)).chain(elsewhere).collect()
}

/// EXEC: here, or at the owner of the one slot of all keys.
fn exec(proxied: &Proxied, batch: &Batch<'_>, session: &mut Session) -> Decision {
    let Some(transaction) = session.transaction.as_ref().filter(|transaction| !transaction.aborted) else {
        // Its handler says what is wrong.
        return Ok(None);
    };
    let mut slots = watched_slots(session);
    for queued in &transaction.queue {
        slots.extend(execution::slots_of(queued.command, queued.arguments.borrow()).unwrap_or_default());
    }
    let Some(&slot) = slots.first() else { return Ok(None) };
    let writes = transaction.queue.iter().any(|queued| queued.command.spec.has(spec::WRITE));
    let was_watching_here = !session.watching.keys.is_empty();
    let link = watch_link(session);
    let place = proxied.proxy.home.place(slot, writes);
    match place {
        _ if slots.len() > 1 => return Err(Elsewhere::Redirect(CROSS_SLOT)),
        Place::Nowhere(text) => return Err(down(text)),
        Place::Soon => return Err(Elsewhere::Wait),
        _ => {}
    }
    // The watch stands on another link than what the client has sent before.
    let is_watching = was_watching_here || link.is_some();
    let wait = if is_watching { proxied.must_be_idle() } else { proxied.must_wait(session) };
    if let Some(wait) = wait {
        return Ok(Some(wait));
    }
    if place == Place::Here && link.is_none() {
        return Ok(None);
    }
    if let Some(queued) = transaction.queue.iter().find(|queued| is_about_connection(queued.command)) {
        return Err(Elsewhere::Redirect(not_elsewhere(queued.command)));
    }
    let queue = session.end_transaction().map(|transaction| transaction.queue).unwrap_or_default();
    unwatch_all(session, batch.services);
    let queue: Vec<OwnedArguments> = queue.into_iter().map(|queued| queued.arguments).collect();
    let (lane, protocol) = (&proxied.lane, session.protocol);
    Ok(Some(match (link, place) {
        (Some(link), _) if !was_watching_here => Flow::Later(Box::pin(link.execute(lane, proxied.way(session), queue))),
        (None, Place::At(peer)) if !was_watching_here => {
            Flow::Later(Box::pin(transaction::execute(&proxied.proxy, lane, peer, slot, queue, protocol)))
        }
        // What was watched here has moved: whether it has changed since, nobody knows.
        _ => Flow::Later(Box::pin(std::future::ready(transaction::aborted(protocol)))),
    }))
}

/// Whether a command is about the client's own connection. On another node it would be about the link, which all clients
/// share: one of them could silence it for the others.
fn is_about_connection(command: &Command) -> bool {
    let is_bare = matches!(command.name.as_str(), "ping" | "echo");
    command.spec.has(spec::PUSHES) || (command.spec.categories & spec::CONNECTION != 0 && !is_bare)
}

/// Why a transaction with such a command is not executed on another node.
fn not_elsewhere(command: &Command) -> CommandError {
    let name = &command.name;
    let reason = format!("'{name}' is about this connection, and the keys are on another node");
    CommandError::Text(format!("EXECABORT Transaction discarded because of: {reason}").into())
}

/// The node as its proxy sees it.
struct ThisNode {
    services: Arc<Services>,
    cluster: Arc<Cluster>,
    settings: RefCell<LinkSettings>,
}

/// What the configuration says about links, read again when it has changed.
struct LinkSettings {
    config: Arc<Config>,
    credentials: OnceCell<Rc<Credentials>>,
    patience: OnceCell<Duration>,
}

impl LinkSettings {
    fn of(config: Arc<Config>) -> LinkSettings {
        LinkSettings { config, credentials: OnceCell::new(), patience: OnceCell::new() }
    }

    fn text(&self, name: &str) -> &str {
        self.config.get(&[name.as_bytes()]).first().map_or("", |(_, text)| *text)
    }

    /// The node's own password is that of all nodes, unless `masterauth` says otherwise.
    fn credentials(&self) -> &Rc<Credentials> {
        self.credentials.get_or_init(|| {
            let (user, password) = (self.text("masteruser"), self.text("masterauth"));
            let password = if password.is_empty() { self.text("requirepass") } else { password };
            Rc::new(Credentials { user: user.to_owned(), password: password.to_owned() })
        })
    }

    fn patience(&self) -> Duration {
        *self.patience.get_or_init(|| {
            const LEAST_MS: u64 = 1000;
            let ms = self.text("cluster-node-timeout").parse().unwrap_or(0);
            Duration::from_millis(LEAST_MS.max(ms))
        })
    }
}

impl ThisNode {
    fn settings<R>(&self, read: impl FnOnce(&LinkSettings) -> R) -> R {
        let mut settings = self.settings.borrow_mut();
        if !Arc::ptr_eq(&settings.config, &self.services.settings.load()) {
            *settings = LinkSettings::of(self.services.settings.load_full());
        }
        read(&settings)
    }
}

fn address(node: &RoutingNode) -> Peer {
    SocketAddr::new(node.ip, node.port)
}

impl Home for ThisNode {
    fn version(&self) -> u64 {
        self.cluster.view().routing.version()
    }

    fn place(&self, slot: Slot, writes: bool) -> Place {
        let view = self.cluster.view();
        let traits = RequestTraits { write: writes };
        match routing::route(&[slot], &view.routing, traits) {
            Route::Local => Place::Here,
            Route::Moved { node, .. } => Place::At(address(view.routing.node(node))),
            Route::Wait(_) => Place::Soon,
            Route::Down(reason) => Place::Nowhere(reason.message()),
            Route::CrossSlot => Place::Nowhere("ERR one slot is several"),
        }
    }

    fn run_end(&self, slot: Slot) -> Slot {
        let view = self.cluster.view();
        let owner = view.routing.primary(slot);
        let following = Slot::all().skip(slot.index());
        following.take_while(|slot| view.routing.primary(*slot) == owner).last().unwrap_or(slot)
    }

    fn unserved(&self, writes: bool) -> Option<&'static str> {
        let view = self.cluster.view();
        let traits = RequestTraits { write: writes };
        routing::down_for_all(&view.routing, traits).map(DownReason::message)
    }

    fn peers(&self) -> Vec<Peer> {
        let view = self.cluster.view();
        let routing = &view.routing;
        let owners: BTreeSet<NodeIndex> = routing.ranges().filter_map(|range| range.owners.first().copied()).collect();
        let others = owners.into_iter().filter(|owner| Some(*owner) != routing.this_node());
        others.map(|owner| address(routing.node(owner))).collect()
    }

    fn own_address(&self) -> Option<Peer> {
        let view = self.cluster.view();
        view.routing.this_node().map(|here| address(view.routing.node(here)))
    }

    fn peer_named(&self, endpoint: &str) -> Option<Peer> {
        let view = self.cluster.view();
        let named = view.routing.nodes().find(|(index, _)| view.routing.address(*index) == endpoint);
        named.map(|(_, node)| address(node)).or_else(|| {
            // A node that this one has not heard of yet.
            let (host, port) = endpoint.rsplit_once(':')?;
            Some(SocketAddr::new(host.parse::<IpAddr>().ok()?, port.parse().ok()?))
        })
    }

    fn until_newer(&self, version: u64, at_most: Duration) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(self.cluster.until_newer(version, at_most))
    }

    fn execute(&self, request: Arguments<'_>, protocol: Protocol) -> Option<Vec<u8>> {
        let mut command = table::lookup(request.at(0))?;
        if !command.subcommands.is_empty() {
            command = command.subcommand(request.at(1))?;
        }
        // The others need their client's session: they come over a link to this very node.
        let Handler::Data(_) = command.spec.handler else { return None };
        if self.services.engine.log.is_gated() || command.spec.has(spec::BLOCKING) {
            // A link holds the reply back until it may leave, or waits for it.
            return None;
        }
        let condition = Condition::of(&self.services);
        if !condition.is_well()
            && let Some(error) = super::dispatch::refused_here(&self.services, condition, &[], command)
        {
            let mut bytes = Vec::new();
            error.write(&mut ReplyWriter::new(&mut bytes, protocol));
            return Some(bytes);
        }
        // Without a lease it comes over a link to this very node, and waits there.
        let support = self.cluster.lease().begin(clock::boot_us())?;
        let keys = execution::keys_of(command, request).unwrap_or_default();
        let now_ms = clock::unix_us() / 1000;
        let started_ns = clock::boot_ns();
        let mut bytes = Vec::new();
        let mut reply = ReplyWriter::new(&mut bytes, protocol);
        let services = &self.services;
        let failed = match execution::execute_data(
            command,
            request,
            &keys,
            0,
            services,
            now_ms,
            Wait::Shortly,
            Manner::default(),
            &mut reply,
        ) {
            Executed::Done => false,
            Executed::Failed(_) => true,
            Executed::Busy | Executed::Frozen | Executed::Elsewhere | Executed::Full(_) | Executed::Waits(_) => {
                return None;
            }
        };
        let took_ns = clock::boot_ns().saturating_sub(started_ns);
        self.services.statistics.count_call(table::all().len(), command.index as usize, took_ns, failed);
        if !self.cluster.lease().allows(support, clock::boot_us()) {
            let told = if command.spec.has(spec::WRITE) { Told::Wrote } else { Told::Read };
            let reply = Reply { end: bytes.len(), shown: Shown::default(), told };
            replace(&mut bytes, &mut [reply], Reply::without_lease);
        }
        Some(bytes)
    }

    fn credentials(&self) -> Rc<Credentials> {
        self.settings(|settings| Rc::clone(settings.credentials()))
    }

    fn patience(&self) -> Duration {
        self.settings(LinkSettings::patience)
    }
}
