//! What a node says of itself to the others.

use crate::base::identity::{Incarnation, NodeId};
use crate::cluster::topology::{Node, NodeState, Probation};
use crate::config::Config;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

/// Where other nodes and clients reach this one.
pub(super) fn announced_ip(config: &Config, addresses: &[IpAddr]) -> IpAddr {
    if let Ok(ip) = config.cluster.announce_ip.parse() {
        return ip;
    }
    if let Some(ip) = addresses.iter().find(|ip| !ip.is_unspecified()) {
        return *ip;
    }
    // Bound to every address: the one from which the seeds are reached. No packet is sent for this.
    let outward = config.cluster.join.first().map_or("192.0.2.1:1", String::as_str);
    let found = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.connect(outward)?;
        socket.local_addr()
    });
    found.map_or(Ipv4Addr::LOCALHOST.into(), |address| address.ip())
}

/// Where clients are told to connect.
pub(super) fn client_port(config: &Config) -> u16 {
    if config.cluster.announce_port == 0 { config.port } else { config.cluster.announce_port }
}

/// The node as it registers.
pub(super) fn describe(config: &Config, id: NodeId, address: SocketAddr, start_ms: u64) -> Node {
    Node {
        id,
        incarnation: Incarnation(0),
        ip: address.ip(),
        port: client_port(config),
        cluster_port: address.port(),
        hostname: config.cluster.announce_hostname.clone(),
        weight: config.cluster.weight,
        zone: config.cluster.zone.clone(),
        arbiter: config.cluster.arbiter,
        proxy_port: config.proxy_port,
        start_ms,
        support: 0,
        state: NodeState::Active,
        leaving: false,
        probation: Probation::default(),
    }
}
