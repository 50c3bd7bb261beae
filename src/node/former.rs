//! Whether the former life of a node is over, or goes on elsewhere: then this directory is a copy of its.
//!
//! Two processes of one identity would vote twice in the raft group, and each would answer for the other's slots. A lock keeps them
//! apart in one directory; nothing does where it was copied. So a node that starts at another address than before asks at the
//! former one. Where nobody answers it starts: its machine may be gone.

use crate::base::identity::NodeId;
use crate::cluster::identity_store::IdentityStore;
use crate::cluster::topology::control_thread::ControlThread;
use crate::transport::messages::Heartbeat;
use crate::transport::tcp::TcpTransport;
use crate::transport::{Peer, Purpose, Refusal, Request, Transport, TransportError};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How long whoever is at the former address may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// Ends when the former life of this node is over, as far as can be known.
///
/// # Errors
/// It answers at another address than this one, or the directory cannot be read.
pub(super) async fn is_over(
    store: &IdentityStore,
    transport: &Arc<TcpTransport>,
    control: &ControlThread,
    node: NodeId,
    address: SocketAddr,
) -> io::Result<()> {
    let former = store.former_life().map_err(io::Error::other)?.address;
    let Some(former) = former.filter(|former| *former != address) else { return Ok(()) };
    let (transport, peer) = (Arc::clone(transport), Peer { node: Some(node), address: former });
    let asked = async move {
        transport.request(peer, Purpose::Control, Request::Ping(Heartbeat::default()), ANSWER_LIMIT).await
    };
    match control.run(asked).await {
        // Nobody has a link with himself: this is how a node answers its own identity, and nobody else does.
        Some(Err(TransportError::Refused(Refusal::StaleIncarnation))) => Err(io::Error::other(format!(
            "another process runs as this node at {former}, and {} is a copy of its directory; without it a start here is \
             that of a new node",
            store.directory().display()
        ))),
        _ => Ok(()),
    }
}
