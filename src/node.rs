//! The node: builds every part from its configuration, starts them, and stops them.

mod cluster;
mod described;
mod drain;
mod election;
mod ending;
mod events;
mod former;
mod generation;
mod handler;
mod leader;
mod lease;
mod listeners;
mod redis_log;
mod seeds;

use crate::base::clock;
use crate::config::{Config, Routing};
use crate::engine::Engine;
use crate::server::listener::LocalListener;
use crate::server::worker;
/// The log is the process's, and begins before its node.
pub use crate::services::log;
use crate::services::{Services, append_log, supervision};
use listeners::{Listeners, addresses, open, open_local};
pub use redis_log::to_snapshot;
use std::io;
use std::sync::Arc;

/// How a node has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Nothing was lost by it that is not lost by every end of a standalone server.
    Clean,
    /// It was the only member of its cluster that had some slots, and others, or keys, lose by it.
    WithLoss,
}

/// A node that is built and listens.
pub struct Node {
    services: Arc<Services>,
    workers: Arc<[worker::WorkerHandle]>,
    listeners: Vec<std::net::TcpListener>,
    /// Those whose clients' requests are forwarded.
    proxy_listeners: Vec<std::net::TcpListener>,
    local_listener: Option<Arc<LocalListener>>,
    cluster: Option<cluster::ClusterSide>,
}

impl Node {
    /// Builds the node and opens its sockets. In a cluster this ends when the node has found it.
    pub async fn start(config: Config) -> io::Result<Node> {
        let maxclients = crate::services::descriptors::provide_at_start(&config)?.to_string();
        let config = config.changed(&[(b"maxclients", maxclients.as_bytes())]).map_err(io::Error::other)?;
        let addresses = addresses(&config)?;
        let joined = match config.cluster_enabled {
            true => Some(cluster::join(&config, &addresses).await?),
            false => None,
        };
        if let Some(joined) = &joined {
            // Before the first key is hashed, so that hash order is the same on all nodes.
            crate::values::hashing::set_hash_key(joined.hash_key()).map_err(io::Error::other)?;
        }
        // A cluster has database 0 only.
        let engine = Arc::new(Engine::new(if config.cluster_enabled { 1 } else { config.databases }));
        // Before the node learns which slots are still its own.
        let returned = match &joined {
            Some(joined) => joined.read_log(&engine).await?,
            None => None,
        };
        let has_log = returned.as_ref().is_some_and(append_log::Returned::has_log);
        let cluster = joined.map(|joined| joined.serve(&engine, has_log)).transpose()?;
        let services = Arc::new(Services {
            engine,
            settings: crate::services::settings::Settings::new(config.clone()),
            clients: Default::default(),
            pubsub: Default::default(),
            slowlog: Default::default(),
            hotkeys: Default::default(),
            latency: Default::default(),
            statistics: Default::default(),
            held: Default::default(),
            pause: Default::default(),
            conditions: Default::default(),
            snapshots: Default::default(),
            append_log: Default::default(),
            eviction: Default::default(),
            cluster: cluster.as_ref().map(|side| Arc::clone(&side.cluster)),
            run_id: run_id(),
            started_at_ms: clock::unix_us() / 1000,
            shutdown: tokio::sync::Notify::new(),
            notifications: Default::default(),
            log_reader: Default::default(),
        });
        crate::services::notifications::listen(&services);
        if let Some(returned) = returned {
            returned.keep(&services, &config)?;
        }
        crate::commands::control::config::apply(&services, &config);
        let listeners = open(&addresses, config.port, config.tcp_backlog)?;
        let proxy_listeners = open(&addresses, config.proxy_port, config.tcp_backlog)?;
        let local_listener = open_local(&config)?;
        if listeners.is_empty() && proxy_listeners.is_empty() && local_listener.is_none() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "nobody could connect: 'port' is 0, and neither 'proxy-port' nor 'unixsocket' is set",
            ));
        }
        let count = match config.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let workers =
            (0..count).map(|index| worker::start(Arc::clone(&services), index, count)).collect::<io::Result<_>>()?;
        Ok(Node { services, workers, listeners, proxy_listeners, local_listener, cluster })
    }

    /// What its connections share.
    pub fn services(&self) -> &Arc<Services> {
        &self.services
    }

    /// Serves until somebody asks it to end.
    pub async fn run(self) -> io::Result<Ending> {
        let mut signals = ending::Signals::new()?;
        // Said before the first client can ask: none finds the keys missing.
        crate::services::snapshots::prepare(&self.services);
        let is_proxy = self.services.settings.load().routing == Routing::Proxy;
        let main = Listeners::start(&self.services, &self.workers, is_proxy, self.listeners)?;
        self.services.settings.set_listen(Box::new(move |config| main.follow(config)));
        for socket in self.proxy_listeners {
            listeners::accept(&tokio::runtime::Handle::current(), socket, &self.services, &self.workers, true);
        }
        if let Some(socket) = &self.local_listener {
            listeners::accept_local(socket, &self.services, &self.workers, is_proxy);
        }
        tokio::spawn(crate::services::timer::run(Arc::clone(&self.services)));
        if !self.services.conditions.is_loading() {
            append_log::begin(&self.services);
        } else if !ending::load(&self.services, &mut signals).await? {
            return Ok(Ending::Clean);
        }
        tracing::info!("Ready to accept connections");
        supervision::tell(&self.services.settings.load(), supervision::READY);
        let unwanted = async {
            match &self.cluster {
                Some(cluster) => cluster.until_unwanted().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = ending::wait(&self.services, &mut signals) => {}
            error = unwanted => return Err(error),
        }
        supervision::tell(&self.services.settings.load(), supervision::STOPPING);
        let mut ending = Ending::Clean;
        if let Some(cluster) = self.cluster {
            let patience = std::time::Duration::from_secs(self.services.settings.load().cluster.shutdown_timeout);
            let (again, told_again) = tokio::sync::watch::channel(false);
            let leave = cluster.leave(
                patience,
                &self.services.clients,
                &self.services.engine,
                &self.services.append_log,
                told_again,
            );
            tokio::pin!(leave);
            loop {
                tokio::select! {
                    ended = &mut leave => {
                        ending = ended;
                        break;
                    }
                    name = signals.next() => {
                        tracing::warn!("Received {name} again, ending at once");
                        // Saying goodbye takes a moment; who asks a third time does not even wait for that.
                        if again.send_replace(true) {
                            ending = Ending::WithLoss;
                            break;
                        }
                    }
                }
            }
        }
        self.services.append_log.end();
        tracing::info!("The server is now ready to exit, bye bye...");
        Ok(ending)
    }
}

/// 40 random hexadecimal digits.
fn run_id() -> String {
    let mut bytes = [0u8; 20];
    // Without randomness the start time is still different every time.
    if getrandom::fill(&mut bytes).is_err() {
        bytes[..8].copy_from_slice(&clock::unix_us().to_le_bytes());
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
