//! The node: builds every part from its configuration, starts them, and stops them.

use crate::base::clock;
use crate::config::Config;
use crate::engine::Engine;
use crate::server::{listener, worker};
use crate::services::Services;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// A node that is built and listens.
pub struct Node {
    services: Arc<Services>,
    workers: Arc<[worker::WorkerHandle]>,
    listeners: Vec<std::net::TcpListener>,
}

impl Node {
    /// Builds the node and opens its sockets.
    pub fn start(config: Config) -> io::Result<Node> {
        if config.cluster_enabled {
            let reason = "'cluster-enabled yes' (--cluster): the cluster is not built yet; see CHANGELOG.md";
            return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
        }
        let engine = Arc::new(Engine::new(config.databases));
        let services = Arc::new(Services {
            cluster: None,
            engine,
            settings: crate::services::settings::Settings::new(config.clone()),
            clients: Default::default(),
            pubsub: Default::default(),
            slowlog: Default::default(),
            latency: Default::default(),
            statistics: Default::default(),
            pause: Default::default(),
            run_id: run_id(),
            started_at_ms: clock::unix_us() / 1000,
            shutdown: tokio::sync::Notify::new(),
        });
        crate::commands::control::config::apply(&services, &config);
        let listeners = open(&config)?;
        let count = match config.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let workers =
            (0..count).map(|index| worker::start(Arc::clone(&services), index, count)).collect::<io::Result<_>>()?;
        Ok(Node { services, workers, listeners })
    }

    /// What its connections share.
    pub fn services(&self) -> &Arc<Services> {
        &self.services
    }

    /// Serves until somebody asks it to end.
    pub async fn run(self) -> io::Result<()> {
        for socket in self.listeners {
            let (services, workers) = (Arc::clone(&self.services), Arc::clone(&self.workers));
            tokio::spawn(async move {
                if let Err(error) = listener::accept(socket, services, workers, false).await {
                    tracing::error!(%error, "the listener has ended");
                }
            });
        }
        tracing::info!("Ready to accept connections");
        tokio::spawn(crate::services::timer::run(Arc::clone(&self.services)));
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            _ = terminate.recv() => tracing::info!("Received SIGTERM, shutting down"),
            _ = tokio::signal::ctrl_c() => tracing::info!("Received SIGINT, shutting down"),
            () = self.services.shutdown.notified() => tracing::info!("Told to shut down by a client"),
        }
        tracing::info!("Bye bye");
        Ok(())
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

/// Opens a socket for each address of `bind`; those with a minus in front may be missing on this machine.
fn open(config: &Config) -> io::Result<Vec<std::net::TcpListener>> {
    let mut listeners = Vec::new();
    for name in &config.bind {
        let (optional, name) = match name.strip_prefix('-') {
            Some(name) => (true, name),
            None => (false, name.as_str()),
        };
        let address: IpAddr = match name {
            "*" => Ipv4Addr::UNSPECIFIED.into(),
            "::*" => Ipv6Addr::UNSPECIFIED.into(),
            name => name.parse().map_err(|_| {
                io::Error::new(io::ErrorKind::InvalidInput, format!("'{name}' in 'bind' is not an IP address"))
            })?,
        };
        match listener::bind(SocketAddr::new(address, config.port), config.tcp_backlog) {
            Ok(listener) => listeners.push(listener),
            Err(error) if optional => tracing::debug!(%address, %error, "an optional address is not available"),
            Err(error) => {
                return Err(io::Error::new(
                    error.kind(),
                    format!("cannot listen on {address}:{}: {error}", config.port),
                ));
            }
        }
    }
    if listeners.is_empty() {
        return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "none of the addresses in 'bind' is available"));
    }
    Ok(listeners)
}
