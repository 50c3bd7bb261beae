//! Raft's messages, as opaque bytes over the node links.

use super::published::Published;
use super::raft::{NodeId, TypeConfig};
use crate::base::identity;
use crate::transport::{Blob, Peer, Purpose, Request, Response, Transport, TransportError};
use openraft::error::{InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Timeout, Unreachable};
use openraft::network::{Backoff, RPCOption, RPCTypes};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use openraft::{BasicNode, Raft, RaftNetwork, RaftNetworkFactory};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How long raft leaves a voter alone that cannot be reached.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Makes the way to each voter.
pub(super) struct RaftLinks {
    pub(super) own: NodeId,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) published: Arc<Published>,
}

/// The way to one voter.
pub(super) struct RaftLink {
    own: NodeId,
    target: NodeId,
    /// Its address when it became a member of the group.
    first_address: Option<SocketAddr>,
    transport: Arc<dyn Transport>,
    published: Arc<Published>,
}

impl RaftNetworkFactory<TypeConfig> for RaftLinks {
    type Network = RaftLink;

    async fn new_client(&mut self, target: NodeId, node: &BasicNode) -> RaftLink {
        RaftLink {
            own: self.own,
            target,
            first_address: node.addr.parse().ok(),
            transport: Arc::clone(&self.transport),
            published: Arc::clone(&self.published),
        }
    }
}

type RpcError<E> = RPCError<NodeId, BasicNode, RaftError<NodeId, E>>;

impl RaftLink {
    /// Where the voter is: as it registered last, for it may have moved since it became a voter.
    fn peer(&self) -> Option<Peer> {
        let node = identity::NodeId(self.target);
        let address = self.published.address(node).or(self.first_address)?;
        Some(Peer { node: Some(node), address })
    }

    async fn call<T, E>(&self, kind: RPCTypes, request: Request, option: &RPCOption) -> Result<T, RpcError<E>>
    where
        T: DeserializeOwned,
        E: std::error::Error + DeserializeOwned,
    {
        let unreachable = |error: &dyn std::error::Error| {
            RPCError::Unreachable(Unreachable::new(&io::Error::other(error.to_string())))
        };
        let Some(peer) = self.peer() else {
            return Err(unreachable(&io::Error::other("its address is not known")));
        };
        let timeout = option.hard_ttl();
        let blob = match self.transport.request(peer, Purpose::Raft, request, timeout).await {
            Ok(Response::Raft(blob)) => blob,
            Ok(_) => return Err(RPCError::Network(NetworkError::new(&io::Error::other("not an answer of raft")))),
            Err(TransportError::TimedOut) => {
                return Err(RPCError::Timeout(Timeout { action: kind, id: self.own, target: self.target, timeout }));
            }
            Err(error @ (TransportError::Unreachable(_) | TransportError::Refused(_))) => {
                return Err(unreachable(&error));
            }
            Err(error) => return Err(RPCError::Network(NetworkError::new(&error))),
        };
        match postcard::from_bytes::<Result<T, RaftError<NodeId, E>>>(&blob.0) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(RPCError::RemoteError(RemoteError::new(self.target, error))),
            Err(error) => Err(RPCError::Network(NetworkError::new(&error))),
        }
    }
}

impl RaftNetwork<TypeConfig> for RaftLink {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, RpcError<openraft::error::Infallible>> {
        self.call(RPCTypes::AppendEntries, Request::RaftAppend(blob(&rpc)), &option).await
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<NodeId>, RpcError<InstallSnapshotError>> {
        self.call(RPCTypes::InstallSnapshot, Request::RaftSnapshot(blob(&rpc)), &option).await
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<NodeId>,
        option: RPCOption,
    ) -> Result<VoteResponse<NodeId>, RpcError<openraft::error::Infallible>> {
        self.call(RPCTypes::Vote, Request::RaftVote(blob(&rpc)), &option).await
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(RETRY_AFTER))
    }
}

/// Gives a message of another voter to raft. Requests that are not raft's come back.
pub(super) async fn answer(raft: &Raft<TypeConfig>, request: Request) -> Result<Response, Request> {
    let answer = match &request {
        Request::RaftAppend(Blob(bytes)) => match postcard::from_bytes(bytes) {
            Ok(rpc) => blob(&raft.append_entries(rpc).await),
            Err(_) => return Ok(malformed()),
        },
        Request::RaftVote(Blob(bytes)) => match postcard::from_bytes(bytes) {
            Ok(rpc) => blob(&raft.vote(rpc).await),
            Err(_) => return Ok(malformed()),
        },
        Request::RaftSnapshot(Blob(bytes)) => match postcard::from_bytes(bytes) {
            Ok(rpc) => blob(&raft.install_snapshot(rpc).await),
            Err(_) => return Ok(malformed()),
        },
        _ => return Err(request),
    };
    Ok(Response::Raft(answer))
}

fn malformed() -> Response {
    Response::Failed("a malformed message of raft".into())
}

fn blob<T: Serialize>(message: &T) -> Blob {
    Blob(postcard::to_stdvec(message).expect("plain values are encoded"))
}
