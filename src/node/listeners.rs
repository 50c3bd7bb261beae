//! The node's listening sockets, and how they move to other addresses while the node runs (CONFIG SET `port`, `bind`).

use crate::config::Config;
use crate::server::listener::{self, LocalListener};
use crate::server::worker;
use crate::services::Services;
use parking_lot::Mutex;
use socket2::SockRef;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener};
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

/// A socket on which connections are accepted.
struct Open {
    address: SocketAddr,
    /// A second handle of the socket that the task accepts from.
    socket: TcpListener,
    accepting: AbortHandle,
}

/// The sockets of the main port.
pub(super) struct Listeners {
    services: Arc<Services>,
    workers: Arc<[worker::WorkerHandle]>,
    is_proxy: bool,
    /// Where connections are accepted.
    runtime: Handle,
    open: Mutex<Vec<Open>>,
}

impl Listeners {
    /// Accepts connections on these sockets, on the runtime of the caller.
    pub(super) fn start(
        services: &Arc<Services>,
        workers: &Arc<[worker::WorkerHandle]>,
        is_proxy: bool,
        sockets: Vec<TcpListener>,
    ) -> io::Result<Listeners> {
        let listeners = Listeners {
            services: Arc::clone(services),
            workers: Arc::clone(workers),
            is_proxy,
            runtime: Handle::current(),
            open: Mutex::new(Vec::new()),
        };
        for socket in sockets {
            let second = socket.try_clone()?;
            let open = listeners.accept(socket.local_addr()?, socket, second);
            listeners.open.lock().push(open);
        }
        Ok(listeners)
    }

    fn accept(&self, address: SocketAddr, socket: TcpListener, second: TcpListener) -> Open {
        let accepting = accept(&self.runtime, second, &self.services, &self.workers, self.is_proxy);
        Open { address, socket, accepting }
    }

    /// Listens again on what was silenced. With a new task: to the old one's reactor the socket stays closed.
    fn resume(&self, open: &mut Open, config: &Config) {
        let resumed = SockRef::from(&open.socket).listen(config.tcp_backlog).and_then(|()| {
            let second = open.socket.try_clone()?;
            open.accepting = accept(&self.runtime, second, &self.services, &self.workers, self.is_proxy);
            Ok(())
        });
        if let Err(error) = resumed {
            tracing::error!(address = %open.address, %error, "a listener cannot be resumed");
        }
    }

    /// Listens where `config` says. New sockets are open before old ones close; connections that exist stay.
    ///
    /// # Errors
    /// An address is not available: then nothing has changed.
    pub(super) fn follow(&self, config: &Config) -> io::Result<()> {
        let wanted: Vec<SocketAddr> = match config.port {
            0 => Vec::new(),
            port => addresses(config)?.into_iter().map(|ip| SocketAddr::new(ip, port)).collect(),
        };
        let mut open = self.open.lock();
        let missing: Vec<SocketAddr> =
            wanted.iter().copied().filter(|address| open.iter().all(|open| open.address != *address)).collect();
        // With their second handles: once all are there, nothing can fail any more.
        let bind_all = || {
            let pair = |address: &SocketAddr| {
                let socket = bind(*address, config.tcp_backlog)?;
                let second = socket.try_clone()?;
                Ok((*address, socket, second))
            };
            missing.iter().map(pair).collect::<io::Result<Vec<_>>>()
        };
        // `*` and one address of it exclude each other on one port: there, old sockets must be quiet before new ones open.
        let is_in_the_way = |open: &Open| open.address.port() == config.port && !wanted.contains(&open.address);
        let sockets = match bind_all() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && open.iter().any(is_in_the_way) => {
                let in_the_way = || open.iter().filter(|open| is_in_the_way(open));
                in_the_way().for_each(silence);
                match bind_all() {
                    Ok(sockets) => sockets,
                    Err(error) => {
                        open.iter_mut().filter(|open| is_in_the_way(open)).for_each(|open| self.resume(open, config));
                        return Err(error);
                    }
                }
            }
            bound => bound?,
        };
        open.retain(|open| {
            let stays = wanted.contains(&open.address);
            if !stays {
                silence(open);
            }
            stays
        });
        open.extend(sockets.into_iter().map(|(address, socket, second)| self.accept(address, socket, second)));
        tracing::info!(addresses = ?wanted, "listening");
        Ok(())
    }
}

/// Accepts nobody any more, and keeps the address. The task ends soon, and owns a handle of the socket: hence the second
/// step, which acts at once.
fn silence(open: &Open) {
    open.accepting.abort();
    if let Err(error) = SockRef::from(&open.socket).shutdown(Shutdown::Both) {
        tracing::warn!(address = %open.address, %error, "a listener cannot be stopped");
    }
}

/// Opens the socket of `unixsocket`, if one is named.
pub(super) fn open_local(config: &Config) -> io::Result<Option<Arc<LocalListener>>> {
    if config.unixsocket.is_empty() {
        return Ok(None);
    }
    let opened = LocalListener::bind(&config.unixsocket, config.unixsocketperm, config.tcp_backlog);
    let said = |error: io::Error| {
        io::Error::new(error.kind(), format!("cannot listen on the Unix socket '{}': {error}", config.unixsocket))
    };
    opened.map(|listener| Some(Arc::new(listener))).map_err(said)
}

/// Accepts connections from the Unix socket.
pub(super) fn accept_local(
    socket: &Arc<LocalListener>,
    services: &Arc<Services>,
    workers: &Arc<[worker::WorkerHandle]>,
    is_proxied: bool,
) {
    let (socket, services, workers) = (Arc::clone(socket), Arc::clone(services), Arc::clone(workers));
    tokio::spawn(async move {
        if let Err(error) = listener::accept_local(socket, services, workers, is_proxied).await {
            tracing::error!(%error, "the listener of the Unix socket has ended");
        }
    });
}

/// Accepts connections from a socket until the task is aborted.
pub(super) fn accept(
    runtime: &Handle,
    socket: TcpListener,
    services: &Arc<Services>,
    workers: &Arc<[worker::WorkerHandle]>,
    is_proxied: bool,
) -> AbortHandle {
    let (services, workers) = (Arc::clone(services), Arc::clone(workers));
    let task = runtime.spawn(async move {
        if let Err(error) = listener::accept(socket, services, workers, is_proxied).await {
            tracing::error!(%error, "the listener has ended");
        }
    });
    task.abort_handle()
}

/// The addresses of `bind` that this machine has; those with a minus in front may be missing.
pub(super) fn addresses(config: &Config) -> io::Result<Vec<IpAddr>> {
    let mut found = Vec::new();
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
        match TcpListener::bind(SocketAddr::new(address, 0)) {
            Ok(_) => found.push(address),
            Err(error) if optional => tracing::debug!(%address, %error, "an optional address is not available"),
            Err(error) => return Err(io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))),
        }
    }
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "none of the addresses in 'bind' is available"));
    }
    Ok(found)
}

/// Opens a socket on each address; port 0: nowhere.
pub(super) fn open(addresses: &[IpAddr], port: u16, backlog: i32) -> io::Result<Vec<TcpListener>> {
    if port == 0 {
        return Ok(Vec::new());
    }
    addresses.iter().map(|address| bind(SocketAddr::new(*address, port), backlog)).collect()
}

fn bind(address: SocketAddr, backlog: i32) -> io::Result<TcpListener> {
    listener::bind(address, backlog)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))
}
