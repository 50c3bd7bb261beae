//! The listener: accepts sockets and gives each to the worker with the fewest connections.

use super::worker::{Arrival, WorkerHandle};
use crate::services::Services;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::TcpListener;

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

/// Accepts connections until the task is dropped.
pub async fn accept(
    listener: std::net::TcpListener,
    services: Arc<Services>,
    workers: Arc<[WorkerHandle]>,
    is_proxied: bool,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if let Ok(stream) = stream.into_std() {
                    welcome(stream, peer, &services, &workers, is_proxied).await;
                }
            }
            // Out of descriptors, most likely: others will close some.
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Checks a new connection and hands it over.
async fn welcome(stream: TcpStream, peer: SocketAddr, services: &Services, workers: &[WorkerHandle], is_proxied: bool) {
    let config = services.settings.load_full();
    let statistics = &services.statistics;
    if services.clients.count() >= config.maxclients as usize {
        statistics.connections_rejected.fetch_add(1, Ordering::Relaxed);
        return refuse(stream, "-ERR max number of clients reached\r\n");
    }
    if is_protected(&config, peer.ip()) {
        statistics.connections_rejected.fetch_add(1, Ordering::Relaxed);
        return refuse(stream, PROTECTED);
    }
    let socket = SockRef::from(&stream);
    let _ = socket.set_tcp_nodelay(true);
    if config.tcp_keepalive > 0 {
        let idle = Duration::from_secs(config.tcp_keepalive);
        let interval = Duration::from_secs((config.tcp_keepalive / 3).max(1));
        let keepalive = TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(3);
        let _ = socket.set_tcp_keepalive(&keepalive);
    }
    statistics.connections_received.fetch_add(1, Ordering::Relaxed);
    let Some(worker) = workers.iter().min_by_key(|worker| worker.connections()) else { return };
    let seat = worker.seat();
    if worker.arrivals.send(Arrival { stream, is_proxied, seat }).await.is_err() {
        tracing::warn!("a worker has ended");
    }
}

/// Redis's protected mode: without a password, and listening by default, only this machine may connect.
fn is_protected(config: &crate::config::Config, peer: IpAddr) -> bool {
    config.protected_mode && config.requirepass.is_empty() && !peer.to_canonical().is_loopback()
}

const PROTECTED: &str = "-DENIED Starling is running in protected mode because protected mode is enabled and no \
password is set. In this mode connections are only accepted from the loopback interface. To connect from other \
machines, set a password with 'requirepass', or, if no untrusted machine can reach this one, disable the mode with \
'protected-mode no' in the configuration, on the command line, or by CONFIG SET from this machine.\r\n";

/// Says why, as far as the socket takes it at once, and closes.
fn refuse(mut stream: TcpStream, text: &str) {
    let _ = stream.write(text.as_bytes());
}
