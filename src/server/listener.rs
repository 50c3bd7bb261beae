//! The listener: accepts sockets and gives each to the worker with the fewest connections.

use super::socket::Incoming;
use super::worker::{Arrival, WorkerHandle};
use crate::services::Services;
use crate::services::clients::Address;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};
use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Opens a listening socket.
pub fn bind(address: SocketAddr, backlog: i32) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    Ok(socket.into())
}

/// A listening Unix socket. Its name is removed with this.
#[derive(Debug)]
pub struct LocalListener {
    listener: UnixListener,
    path: Arc<str>,
    /// Device and inode of the name: another server may have put its own there since.
    file: (u64, u64),
}

impl LocalListener {
    /// Opens the socket `path`. As in Redis, what an earlier process has left there makes way; what is no socket stays,
    /// since no server can have left it.
    pub fn bind(path: &str, mode: u32, backlog: i32) -> io::Result<LocalListener> {
        if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
            fs::remove_file(path)?;
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::unix(Path::new(path))?)?;
        let listener = LocalListener { listener: OwnedFd::from(socket).into(), path: path.into(), file: file(path)? };
        // Before it listens: nobody may connect in the meantime who must not.
        if mode != 0 {
            fs::set_permissions(path, Permissions::from_mode(mode))?;
        }
        SockRef::from(&listener.listener).listen(backlog)?;
        Ok(listener)
    }
}

impl Drop for LocalListener {
    fn drop(&mut self) {
        if file(&self.path).is_ok_and(|file| file == self.file)
            && let Err(error) = fs::remove_file(&*self.path)
        {
            tracing::warn!(%error, path = %self.path, "the Unix socket cannot be removed");
        }
    }
}

fn file(path: &str) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

/// Accepts connections until the task is dropped.
pub async fn accept(
    listener: std::net::TcpListener,
    services: Arc<Services>,
    workers: Arc<[WorkerHandle]>,
    is_proxied: bool,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let accepted = listener.accept().await;
        let incoming = accepted.and_then(|(stream, _)| stream.into_std()).map(Incoming::Tcp);
        welcome(incoming, &services, &workers, is_proxied).await;
    }
}

/// Accepts connections of a Unix socket until the task is dropped.
pub async fn accept_local(
    local: Arc<LocalListener>,
    services: Arc<Services>,
    workers: Arc<[WorkerHandle]>,
    is_proxied: bool,
) -> io::Result<()> {
    let listener = tokio::net::UnixListener::from_std(local.listener.try_clone()?)?;
    loop {
        let accepted = listener.accept().await;
        let incoming = accepted.and_then(|(stream, _)| stream.into_std());
        let incoming = incoming.map(|stream| Incoming::Unix(stream, Arc::clone(&local.path)));
        welcome(incoming, &services, &workers, is_proxied).await;
    }
}

/// Checks a new connection and hands it over.
async fn welcome(accepted: io::Result<Incoming>, services: &Services, workers: &[WorkerHandle], is_proxied: bool) {
    let socket = match accepted {
        Ok(socket) => socket,
        // Out of descriptors, most likely: others will close some.
        Err(error) => {
            tracing::warn!(%error, "accepting a connection failed");
            return tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    // Who is gone already has no address.
    let Ok((peer, _)) = socket.addresses() else { return };
    let config = services.settings.load_full();
    let statistics = &services.statistics;
    // Those too that have been handed over, and that their worker has not begun with.
    let connected: u64 = workers.iter().map(WorkerHandle::connections).sum();
    if connected >= config.maxclients {
        statistics.connections_rejected.fetch_add(1, Ordering::Relaxed);
        return socket.say("-ERR max number of clients reached\r\n");
    }
    if is_protected(&config, &peer) {
        statistics.connections_rejected.fetch_add(1, Ordering::Relaxed);
        return socket.say(PROTECTED);
    }
    if let Incoming::Tcp(stream) = &socket {
        let options = SockRef::from(stream);
        let _ = options.set_tcp_nodelay(true);
        if config.tcp_keepalive > 0 {
            let idle = Duration::from_secs(config.tcp_keepalive);
            let interval = Duration::from_secs((config.tcp_keepalive / 3).max(1));
            let keepalive = TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(3);
            let _ = options.set_tcp_keepalive(&keepalive);
        }
    }
    statistics.connections_received.fetch_add(1, Ordering::Relaxed);
    let Some(worker) = workers.iter().min_by_key(|worker| worker.connections()) else { return };
    let seat = worker.seat();
    if worker.arrivals.send(Arrival { socket, is_proxied, seat }).await.is_err() {
        tracing::warn!("a worker has ended");
    }
}

/// Redis's protected mode: without a password, and listening by default, only this machine may connect.
fn is_protected(config: &crate::config::Config, peer: &Address) -> bool {
    config.protected_mode && config.requirepass.is_empty() && !peer.is_local()
}

const PROTECTED: &str = "-DENIED Starling is running in protected mode because protected mode is enabled and no \
password is set. In this mode connections are only accepted from the loopback interface. To connect from other \
machines, set a password with 'requirepass', or, if no untrusted machine can reach this one, disable the mode with \
'protected-mode no' in the configuration, on the command line, or by CONFIG SET from this machine.\r\n";
