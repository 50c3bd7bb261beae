//! What a service manager is told (`supervised`): systemd's protocol, a datagram to the socket that `NOTIFY_SOCKET` names.

use crate::config::Config;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Where systemd says the name of its socket.
const VARIABLE: &str = "NOTIFY_SOCKET";

/// Says that the node serves.
pub const READY: &str = "STATUS=Ready to accept connections\nREADY=1\n";
/// Says that it ends.
pub const STOPPING: &str = "STOPPING=1\n";

/// Whether systemd supervises the node: because `supervised` says so, or is `auto` and systemd's socket is named.
pub fn is_by_systemd(config: &Config) -> bool {
    match config.text("supervised") {
        "systemd" => true,
        "auto" => std::env::var_os(VARIABLE).is_some(),
        _ => false,
    }
}

/// Tells the service manager, where one supervises the node.
pub fn tell(config: &Config, state: &str) {
    if !is_by_systemd(config) {
        return;
    }
    match std::env::var(VARIABLE) {
        Ok(socket) => {
            if let Err(error) = send(&socket, state) {
                tracing::warn!(%error, socket, "systemd does not hear this server");
            }
        }
        Err(_) => tracing::warn!("systemd supervision requested, but {VARIABLE} is not set"),
    }
}

/// Sends to a socket in the file system, or, behind `@`, in Linux's abstract namespace.
fn send(socket: &str, state: &str) -> io::Result<()> {
    let address = match socket.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let datagram = UnixDatagram::unbound()?;
    // Rather unheard than stuck: the other end may have stopped reading.
    datagram.set_nonblocking(true)?;
    datagram.send_to_addr(state.as_bytes(), &address).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_socket_are_reached() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify").display().to_string();
        // The directory's name is drawn at random: the abstract one is nobody else's either.
        let name = format!("starling{path}");
        let abstract_address = SocketAddr::from_abstract_name(&name).expect("an address");
        for (socket, address) in [
            (path.clone(), SocketAddr::from_pathname(&path).expect("an address")),
            (format!("@{name}"), abstract_address),
        ] {
            let heard = UnixDatagram::bind_addr(&address).expect("a socket");
            send(&socket, STOPPING).expect("sent");
            let mut text = [0; 64];
            let length = heard.recv(&mut text).expect("a datagram");
            assert_eq!(&text[..length], STOPPING.as_bytes());
        }
        assert!(send("@nobody-listens-here", READY).is_err());
    }
}
