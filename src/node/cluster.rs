//! The cluster's parts of a node: how they are built, in which order, and how they end.
//!
//! ```text
//!  join():  identity on disk -> links -> the cluster is found or created -> raft -> the topology is known
//!  serve(): gossip, registration, leading, moves; the hash key of the topology must be set by then
//!  leave(): slots are given away -> out of the topology -> goodbye
//! ```

use super::Ending;
use super::described::{announced_ip, client_port, describe};
use super::drain;
use super::election::Elections;
use super::events::{hear, log_events};
use super::generation;
use super::handler::NodeHandler;
use super::leader;
use super::lease::Leases;
use super::seeds::Seeds;
use crate::base::acknowledge::Acknowledge;
use crate::base::clock::{Clock, SystemClock};
use crate::base::identity::{ClusterId, Epoch, Incarnation, NodeId};
use crate::base::slot::{SLOT_COUNT, Slot};
use crate::base::slot_ranges::SlotRanges;
use crate::cluster::datagram::ClusterSecret;
use crate::cluster::draining::{Drained, Reason};
use crate::cluster::duties::{ACKNOWLEDGE, REPLICAS};
use crate::cluster::forming::{Forming, Found};
use crate::cluster::identity_store::{IdentityStore, StoredIdentity};
use crate::cluster::membership::socket::{MembershipHandle, SocketOptions};
use crate::cluster::membership::{Life, MemberIdentity, MemberMetadata, MembershipEvent, MembershipOptions};
use crate::cluster::topology::control_thread::ControlThread;
use crate::cluster::topology::probation::PROBATION_SECONDS;
use crate::cluster::topology::raft::{Consensus, ProposeError, RaftLog, RaftOptions, RaftTopology};
use crate::cluster::topology::{PROBATION, Topology, TopologyChange};
use crate::config::Config;
use crate::engine::Engine;
use crate::moves::{Moves, MovesOptions};
use crate::persistence::segment::Owner;
use crate::services::append_log::{AppendLog, Returned};
use crate::services::clients::Clients;
use crate::services::cluster::{Cluster, ClusterParts, view_options};
use crate::transport::handshake::LocalIdentity;
use crate::transport::tcp::{TcpOptions, TcpTransport, system_nonces};
use crate::transport::{LinkSecret, Peer};
use parking_lot::Mutex;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How long raft may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(2);
/// Between looks whether the names in `join` mean other addresses.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(5);
/// Between lines in the log that say that the topology is waited for.
const WAITING_LINE: Duration = Duration::from_secs(5);

/// A node that belongs to a cluster and knows its topology; it serves nothing yet.
pub(super) struct Joined {
    config: Config,
    store: IdentityStore,
    control: ControlThread,
    slots: ControlThread,
    transport: Arc<TcpTransport>,
    handler: Arc<NodeHandler>,
    raft: RaftTopology,
    identity: LocalIdentity,
    address: SocketAddr,
    /// Where `join` says that others are.
    seeds: Vec<SocketAddr>,
    start_ms: u64,
}

/// The cluster's parts while the node runs.
pub(super) struct ClusterSide {
    pub(super) cluster: Arc<Cluster>,
    node: NodeId,
    transport: Arc<TcpTransport>,
    raft: RaftTopology,
    membership: Arc<MembershipHandle>,
    /// Held until the end: the moves listen to it.
    incarnation: watch::Sender<Option<Incarnation>>,
    leaving: Arc<AtomicBool>,
    /// It is an arbiter, and was refused as one.
    unwanted: watch::Receiver<bool>,
    control: ControlThread,
    /// Its thread ends with it.
    _slots: ControlThread,
    directory: PathBuf,
    _store: Arc<Mutex<IdentityStore>>,
}

/// Finds or creates the cluster. Ends when the node knows its topology.
pub(super) async fn join(config: &Config, addresses: &[IpAddr]) -> io::Result<Joined> {
    let own = &config.cluster;
    if own.port == config.port || own.port == 0 || config.port == 0 {
        let reason = format!("no cluster port beside 'port' {}: set 'cluster-port'", config.port);
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    }
    let mut store = IdentityStore::open(Path::new("."), config.port).map_err(io::Error::other)?;
    let stored = match store.identity() {
        Some(stored) => stored,
        None => {
            let fresh = StoredIdentity { node: NodeId(random()?), cluster: None, generation: 0, has_raft_log: false };
            store.save(fresh).map_err(io::Error::other)?;
            fresh
        }
    };
    let log = RaftLog::open(store.directory(), stored.node, stored.has_raft_log)?;
    // Where a start was cut off between the two, the raft log knows of the later one.
    let generation = stored.generation.max(log.generation()?);
    // On the disk before this node can vote: with the mark and without the log it does not start.
    if !stored.has_raft_log {
        store.save(StoredIdentity { has_raft_log: true, ..stored }).map_err(io::Error::other)?;
    }
    let secret = LinkSecret::new(&own.secret);
    if secret.is_none() {
        tracing::warn!("no 'cluster-secret': links and gossip are accepted from this machine only");
    }
    let control = ControlThread::start("control")?;
    let slots = ControlThread::start("slots")?;
    let mut identity =
        LocalIdentity { node: stored.node, cluster: stored.cluster, generation, incarnation: Incarnation(0) };
    let transport = Arc::new(TcpTransport::new(TcpOptions {
        identity,
        secret,
        clock: Arc::new(SystemClock),
        nonces: system_nonces(),
        runtime: control.handle().clone(),
        slots: slots.handle().clone(),
    }));
    let announced_port = if own.announce_bus_port == 0 { own.port } else { own.announce_bus_port };
    let address = SocketAddr::new(announced_ip(config, addresses), announced_port);
    // Before anybody hears of this life, and before it votes.
    super::former::is_over(&store, &transport, &control, stored.node, address).await?;
    let start_ms = store.begin_life(SystemClock.unix_ms(), address).map_err(io::Error::other)?;
    let handler = NodeHandler::new(Forming::new(stored.node, address, own.bootstrap_expect as u32));
    for ip in addresses {
        let socket = crate::server::listener::bind(SocketAddr::new(*ip, own.port), config.tcp_backlog);
        let socket = socket.map_err(|error| not_free(&error, "TCP", SocketAddr::new(*ip, own.port)))?;
        transport.listen(socket, Arc::clone(&handler) as Arc<_>)?;
    }
    let named = Seeds::new(config);
    let mut seeds = named.addresses().await;
    let mut create = None;
    if identity.cluster.is_none() {
        match find(config, named.clone(), &handler, &transport, &control).await? {
            Found::Cluster(welcome) => {
                identity.cluster = Some(welcome.cluster);
                identity.generation = welcome.generation;
                seeds = welcome.members;
            }
            Found::Create => create = Some((ClusterId(random()?), random()?)),
        }
    }
    if create.is_none() {
        remember(&mut store, &transport, identity)?;
    }
    let peers = seed_peers(&seeds, address);
    let options = RaftOptions {
        node: identity.node,
        address,
        start_ms,
        log,
        generation: identity.generation,
        transport: Arc::clone(&transport) as Arc<_>,
        seeds: peers,
    };
    let raft = control.run(RaftTopology::start(options)).await.ok_or_else(ended)??;
    if let Some((cluster, hash_key)) = create {
        let creator = raft.clone();
        let replicas = (own.replicas > 0).then(|| (REPLICAS, own.replicas.to_string()));
        let asked = Some(own.acknowledge).filter(|asked| *asked != Acknowledge::Async);
        let quorum = asked.map(|asked| (ACKNOWLEDGE, asked.name().to_owned()));
        let probation = (own.probation != PROBATION_SECONDS).then(|| (PROBATION, own.probation.to_string()));
        let create = async move {
            creator.create(cluster, hash_key).await?;
            for (name, value) in [replicas, quorum, probation].into_iter().flatten() {
                set_agreed(&creator, name, value).await;
            }
            Ok::<(), ProposeError>(())
        };
        control.run(create).await.ok_or_else(ended)?.map_err(io::Error::other)?;
        // Where an earlier start was cut off before it could remember, the cluster is the one of its raft log.
        identity.cluster = raft.published().current().cluster.or(Some(cluster));
        remember(&mut store, &transport, identity)?;
        tracing::info!(cluster = ?identity.cluster, "a cluster was created");
    }
    handler.topology.set(raft.clone()).map_err(|_| ended())?;
    control.handle().spawn(resolve_again(named, raft.clone(), address));
    tokio::select! {
        () = until_known(&raft) => {}
        error = generation::until_given_up(&raft, store.directory()) => return Err(error),
    }
    Ok(Joined {
        config: config.clone(),
        store,
        control,
        slots,
        transport,
        handler,
        raft,
        identity,
        address,
        seeds,
        start_ms,
    })
}

impl Joined {
    /// The key of the table hash that all nodes of the cluster share.
    pub(super) fn hash_key(&self) -> u128 {
        self.raft.published().current().hash_key
    }

    /// Reads what a former life of this node has left, into the empty engine.
    pub(super) async fn read_log(&self, engine: &Arc<Engine>) -> io::Result<Option<Returned>> {
        let cluster = self.identity.cluster.map_or(0, |cluster| cluster.0);
        let owner = Owner { cluster, node: self.identity.node.0 };
        let (engine, config) = (Arc::clone(engine), self.config.clone());
        let read = tokio::task::spawn_blocking(move || Returned::read(&engine, &config, owner));
        read.await.map_err(io::Error::other)?
    }

    /// Starts gossip, moves and registration. `has_log`: the engine has what a former life has left.
    pub(super) fn serve(self, engine: &Arc<Engine>, has_log: bool) -> io::Result<ClusterSide> {
        let Joined { config, store, control, slots, transport, handler, raft, mut identity, address, seeds, start_ms } =
            self;
        identity.generation = *raft.generation().borrow();
        let directory = store.directory().to_owned();
        let store = Arc::new(Mutex::new(store));
        let consensus: Arc<dyn Consensus> = Arc::new(raft.clone());
        let (membership, events) = start_membership(&config, &raft, &identity, address, &seeds, start_ms)?;
        let membership = Arc::new(membership);
        let parts = ClusterParts {
            node: identity.node,
            lease: Arc::default(),
            consensus: Arc::clone(&consensus),
            membership: Arc::clone(&membership),
            transport: Arc::clone(&transport) as Arc<_>,
            options: view_options(&config),
        };
        let cluster = Arc::new(Cluster::new(parts, raft.published().current()).map_err(io::Error::other)?);
        let (given, incarnation) = watch::channel(None);
        let leases = Leases::new(
            identity.node,
            raft.clone(),
            Arc::clone(&transport) as Arc<_>,
            incarnation.clone(),
            Arc::clone(&cluster),
        );
        let leaving = Arc::new(AtomicBool::new(false));
        let (refused, unwanted) = watch::channel(false);
        let held = if has_log { held(engine) } else { vec![None; SLOT_COUNT] };
        let kept = has_log.then(|| kept(&held));
        let moves = Moves::start(
            MovesOptions {
                node: identity.node,
                engine: Arc::clone(engine),
                consensus: Arc::clone(&consensus),
                transport: Arc::clone(&transport) as Arc<_>,
                incarnation,
                held,
                nudge: nudge(&raft),
                show: shower(&cluster, &membership, &transport),
            },
            slots.handle().clone(),
        );
        handler.moves.set(moves.clone()).map_err(|_| ended())?;
        handler.leases.set(Arc::clone(&leases)).map_err(|_| ended())?;
        let node = describe(&config, identity.node, address, start_ms);
        let spawn = control.handle();
        spawn.spawn(leader::stay_registered(
            node,
            kept,
            Arc::clone(&consensus),
            given.clone(),
            Arc::clone(&leaving),
            refused,
        ));
        spawn.spawn(Arc::clone(&leases).hold());
        spawn.spawn(leases.vote());
        spawn.spawn(leader::lead(identity.node, Arc::clone(&consensus), Arc::clone(&membership)));
        let elections = Elections {
            node: identity.node,
            consensus: Arc::clone(&consensus),
            transport: Arc::clone(&transport) as Arc<_>,
            moves,
        };
        spawn.spawn(elections.hold());
        spawn.spawn(hear(events, raft.clone()));
        spawn.spawn(generation::keep(raft.clone(), Arc::clone(&store), Arc::clone(&membership)));
        let node = identity.node;
        Ok(ClusterSide {
            cluster,
            node,
            transport,
            raft,
            membership,
            incarnation: given,
            leaving,
            unwanted,
            control,
            _slots: slots,
            directory,
            _store: store,
        })
    }
}

impl ClusterSide {
    /// Until it is known that this node must not run, or not be what its configuration says: why not.
    pub(super) async fn until_unwanted(&self) -> io::Error {
        let given_up = generation::until_given_up(&self.raft, &self.directory);
        tokio::select! {
            error = self.until_no_arbiter() => error,
            error = given_up => error,
        }
    }

    async fn until_no_arbiter(&self) -> io::Error {
        let mut unwanted = self.unwanted.clone();
        if unwanted.wait_for(|unwanted| *unwanted).await.is_err() {
            // The control thread has ended, and whoever waits for that does so elsewhere.
            std::future::pending::<()>().await;
        }
        io::Error::new(
            io::ErrorKind::InvalidInput,
            "'arbiter yes', and this node has slots or copies of slots in its cluster: start it without, let it give them away \
             (CLUSTER LEAVE), and start it as an arbiter then",
        )
    }

    /// Gives away what this node holds, tells its clients where that is, and says goodbye. `patience`: how long it waits
    /// for a member that could take its slots. When `told_again` becomes true it ends with what it has.
    pub(super) async fn leave(
        self,
        patience: Duration,
        clients: &Clients,
        engine: &Engine,
        log: &AppendLog,
        told_again: watch::Receiver<bool>,
    ) -> Ending {
        let consensus: Arc<dyn Consensus> = Arc::new(self.raft.clone());
        let incarnation = *self.incarnation.borrow();
        self.leaving.store(true, Ordering::Release);
        let mut ending = Ending::Clean;
        if let Some(incarnation) = incarnation {
            let (node, is_told) = (self.node, told_again.clone());
            let drain = async move { drain::drain(node, incarnation, &consensus, patience, is_told).await };
            match self.control.run(drain).await {
                Some(Drained::Everything) => {
                    tracing::info!("all slots are with other nodes");
                    linger(clients, &told_again).await;
                }
                Some(Drained::Left { slots, reason }) => {
                    // First: what is counted then is what the log has, and nobody is told of more.
                    let is_kept = log.end();
                    let keys: usize = slots.slots().map(|slot| engine.lock_slot(slot, 0, 0).slot_key_count(slot)).sum();
                    let count = slots.len();
                    match reason {
                        Reason::Forgotten => {
                            tracing::warn!(slots = count, keys, "this node was given up, its keys are lost")
                        }
                        _ if is_kept => {
                            tracing::info!(
                                slots = count,
                                keys,
                                ?reason,
                                "slots and keys are kept on disk for the next start"
                            );
                        }
                        _ => tracing::warn!(
                            slots = count,
                            keys,
                            ?reason,
                            "this node ends with slots and keys that nobody else has"
                        ),
                    }
                    if reason.loses(keys, is_kept) {
                        ending = Ending::WithLoss;
                    }
                }
                // The control thread has ended, which a panic does: the process ends with it.
                None => ending = Ending::WithLoss,
            }
        }
        self.membership.leave();
        let raft = self.raft.clone();
        // Every change that is agreed is on the disk already: this only ends the writing in good order.
        let _ = self.control.run(tokio::time::timeout(STOP_LIMIT, async move { raft.shutdown().await })).await;
        self.transport.close();
        ending
    }
}

/// Agrees on a setting of the new cluster.
async fn set_agreed(raft: &RaftTopology, name: &str, value: String) {
    let change = TopologyChange::SetConfig { name: name.to_owned(), value: value.clone() };
    // Alone it decides by itself: what fails here is its disk, which has more to say soon.
    if let Err(error) = raft.propose(change).await {
        tracing::warn!(%error, name, value, "the cluster has not agreed on a setting: say CONFIG SET");
    }
}

/// Clients learn by MOVED that a slot has left, each when it next asks for it. Those that are connected have a moment to
/// do so; who comes later would find nobody.
async fn linger(clients: &Clients, told_again: &watch::Receiver<bool>) {
    const MOMENT: Duration = Duration::from_secs(2);
    const LOOK_AGAIN: Duration = Duration::from_millis(50);
    let until = tokio::time::Instant::now() + MOMENT;
    while clients.count() > 0 && !*told_again.borrow() && tokio::time::Instant::now() < until {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// By slot, the epoch that its keys in the engine belong to; 0 where they are a part of the slot.
fn held(engine: &Engine) -> Vec<Option<Epoch>> {
    // The topology begins with epoch 1.
    let epoch = |slot| Some(engine.position(slot).epoch).filter(|epoch| epoch.0 > 0);
    let part = |slot: Slot| (engine.lock_slot(slot, 0, 0).slot_key_count(slot) > 0).then_some(Epoch(0));
    Slot::all().map(|slot| epoch(slot).or_else(|| part(slot))).collect()
}

/// The slots of which the engine has everything, up to some position.
fn kept(held: &[Option<Epoch>]) -> SlotRanges {
    Slot::all().zip(held).filter(|(_, epoch)| epoch.is_some_and(|epoch| epoch.0 > 0)).map(|(slot, _)| slot).collect()
}

fn ended() -> io::Error {
    io::Error::other("the control thread has ended")
}

fn random() -> io::Result<u128> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(u128::from_le_bytes(bytes))
}

/// Keeps on disk, and tells on links, which cluster the node belongs to.
fn remember(store: &mut IdentityStore, transport: &TcpTransport, identity: LocalIdentity) -> io::Result<()> {
    let LocalIdentity { node, cluster, generation, .. } = identity;
    let known = StoredIdentity { node, cluster, generation, has_raft_log: true };
    if store.identity() != Some(known) {
        store.save(known).map_err(io::Error::other)?;
    }
    transport.set_identity(identity);
    Ok(())
}

/// The cluster of a node that has none.
async fn find(
    config: &Config,
    named: Seeds,
    handler: &Arc<NodeHandler>,
    transport: &Arc<TcpTransport>,
    control: &ControlThread,
) -> io::Result<Found> {
    let own = &config.cluster;
    if own.join.is_empty() && own.bootstrap_expect <= 1 {
        return Ok(Found::Create);
    }
    let (handler, transport) = (Arc::clone(handler), Arc::clone(transport));
    let search = async move { handler.forming.search(transport, || named.addresses()).await };
    control.run(search).await.ok_or_else(ended)
}

fn seed_peers(seeds: &[SocketAddr], own: SocketAddr) -> Vec<Peer> {
    seeds.iter().filter(|seed| **seed != own).map(|&address| Peer { node: None, address }).collect()
}

/// Names may mean other addresses than before: they are asked again for as long as no raft leader is found.
async fn resolve_again(named: Seeds, raft: RaftTopology, own: SocketAddr) {
    while !named.is_empty() {
        tokio::time::sleep(RESOLVE_INTERVAL).await;
        if raft.is_lost() {
            let found = named.addresses().await;
            if !found.is_empty() {
                raft.set_seeds(seed_peers(&found, own));
            }
        }
    }
}

/// Waits until the topology has been loaded, or pulled from somebody.
async fn until_known(raft: &RaftTopology) {
    let mut topologies = raft.subscribe();
    loop {
        let known = topologies.wait_for(|topology| topology.cluster.is_some());
        match tokio::time::timeout(WAITING_LINE, known).await {
            Ok(_) => return,
            Err(_) => tracing::info!(peers = ?raft.group().voters, "waiting for the cluster's topology"),
        }
    }
}

fn start_membership(
    config: &Config,
    raft: &RaftTopology,
    identity: &LocalIdentity,
    address: SocketAddr,
    named: &[SocketAddr],
    start_ms: u64,
) -> io::Result<(MembershipHandle, mpsc::Receiver<MembershipEvent>)> {
    let topology = raft.published().current();
    let known = topology.nodes.values().map(leader::cluster_address);
    let voters = raft.group().voters.into_iter().map(|voter| voter.address);
    let others = known.chain(voters).chain(named.iter().copied());
    let mut seeds: Vec<SocketAddr> = others.filter(|seed| *seed != address).collect();
    seeds.sort_unstable();
    seeds.dedup();
    let bind_ip = if config.bind.iter().any(|name| name == "*") { Ipv4Addr::UNSPECIFIED.into() } else { address.ip() };
    let bind_ip = if config.cluster.announce_ip.is_empty() { bind_ip } else { Ipv4Addr::UNSPECIFIED.into() };
    let options = MembershipOptions {
        identity: MemberIdentity {
            node: identity.node,
            address,
            life: Life { start_ms, renewals: 0 },
            metadata: MemberMetadata {
                client_port: client_port(config),
                proxy_port: config.proxy_port,
                weight_percent: (config.cluster.weight * 100) as u16,
                zone: 0,
            },
        },
        cluster: identity.cluster.unwrap_or(ClusterId(0)),
        generation: identity.generation,
        secret: ClusterSecret::new(&config.cluster.secret),
        seeds,
        random_seed: random()? as u64,
    };
    let bind = SocketAddr::new(bind_ip, config.cluster.port);
    MembershipHandle::start(SocketOptions { bind, membership: options, clock: Arc::new(SystemClock) })
        .map_err(|error| not_free(&error, "UDP", bind))
}

/// Why the node cannot hear others, and what can be done about it.
fn not_free(error: &io::Error, protocol: &str, address: SocketAddr) -> io::Error {
    // Linux gives the ports from here on to outgoing connections of any program.
    const OUTGOING_PORTS: u16 = 32768;
    let port = address.port();
    let mut text = format!("cannot hear other nodes on {address} ({protocol}, 'cluster-port' {port}): {error}");
    if error.kind() == io::ErrorKind::AddrInUse && port >= OUTGOING_PORTS {
        text.push_str(". An outgoing connection may have it: a 'cluster-port' below 32768 stays free");
    }
    io::Error::new(error.kind(), text)
}

fn nudge(raft: &RaftTopology) -> Arc<dyn Fn(u64) + Send + Sync> {
    let raft = raft.clone();
    Arc::new(move |version| raft.nudge(version))
}

/// What makes a topology visible: to requests, to gossip, to links, to the log.
fn shower(
    cluster: &Arc<Cluster>,
    membership: &Arc<MembershipHandle>,
    transport: &Arc<TcpTransport>,
) -> crate::moves::Show {
    let (cluster, membership, transport) = (Arc::clone(cluster), Arc::clone(membership), Arc::clone(transport));
    let shown = parking_lot::Mutex::new(0u64);
    Box::new(move |topology, incarnation| {
        cluster.show(Arc::clone(topology), incarnation);
        membership.set_topology_version(topology.version);
        if let Some(incarnation) = incarnation
            && transport.identity().incarnation != incarnation
        {
            transport.set_incarnation(incarnation);
        }
        let mut shown = shown.lock();
        // What happened before this node came is history.
        if *shown > 0 {
            log_events(topology, *shown);
        }
        *shown = topology.version;
        forget_removed(topology, &membership);
    })
}

/// Members that the topology does not know and gossip believes dead are gone for good.
fn forget_removed(topology: &Topology, membership: &MembershipHandle) {
    let members = membership.members();
    for member in &members.members {
        let node = member.identity.node;
        if member.health == crate::cluster::membership::MemberHealth::Down && !topology.nodes.contains_key(&node) {
            let _ = membership.forget(node);
        }
    }
}
