//! RPCs to other nodes, as openraft asks for them.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, OptionalSend, RPCTypes};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shoal_model::NodeId;
use shoal_proto::raft as proto;
use shoal_proto::raft::raft_service_client::RaftServiceClient;
use tonic::{Code, Status};

use super::PeerChannel;
use super::believable::{Reach, Said, why_not};
use super::directory::Directory;
use super::heard::Heard;
use super::parts::parts_of;
use super::wire::{decode, encode};
use crate::machine::{Header, Snapshot, StateDocument};
use crate::types::{TypeConfig, Vote};

/// How long entries may take to be on the follower's disk. openraft would give them one heartbeat, and take a large
/// entry for a dead follower; heartbeats themselves have their own connection and deadline.
const APPEND_DEADLINE: Duration = Duration::from_secs(3);

/// Makes clients to other nodes.
pub struct Dialer {
    pub local: u64,
    pub directory: Directory,
    pub heard: Arc<Heard>,
}

impl Dialer {
    fn client(&self, target: u64, node: &BasicNode, kind: Kind) -> Client {
        let (local, directory, heard) = (self.local, self.directory.clone(), self.heard.clone());
        Client { local, target, first_address: node.addr.clone(), directory, heard, kind }
    }
}

impl RaftNetworkFactory<TypeConfig> for Dialer {
    type Network = Client;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Client {
        self.client(target, node, Kind::Control)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &BasicNode) -> Client {
        self.client(target, node, Kind::Snapshot)
    }
}

/// A way to one other node.
pub struct Client {
    local: u64,
    target: u64,
    first_address: String,
    directory: Directory,
    heard: Arc<Heard>,
    kind: Kind,
}

/// What it carries. A snapshot must not delay heartbeats, so it has a connection of its own.
#[derive(Clone, Copy)]
enum Kind {
    Control,
    Snapshot,
}

/// What went wrong on the way, before it is put into openraft's words.
enum CallError {
    Timeout(Duration),
    /// Nothing there: back off.
    Unreachable(String),
    /// Something there, but it failed: try again soon.
    Failed(String),
}

impl Client {
    fn service(&self) -> Result<RaftServiceClient<PeerChannel>, CallError> {
        let node = NodeId(self.target);
        if self.directory.was_revoked(node) {
            return Err(CallError::Unreachable(format!("{node} was revoked")));
        }
        let peers = self.directory.peers_knowing(node, &self.first_address);
        let client = match self.kind {
            Kind::Control => peers.raft(node),
            Kind::Snapshot => peers.snapshot(node),
        };
        client.map_err(|error| CallError::Unreachable(error.to_string()))
    }

    /// Asks with one message and is answered with one, each of which is a payload.
    async fn ask<
        Q: Serialize + Said,
        A: DeserializeOwned + Said,
        F: Future<Output = Result<Vec<u8>, Status>>,
    >(
        &self,
        action: RPCTypes,
        deadline: Duration,
        request: &Q,
        send: impl FnOnce(RaftServiceClient<PeerChannel>, Vec<u8>) -> F,
    ) -> Result<A, RPCError<TypeConfig>> {
        let asked = Reach::of(request);
        let call = async {
            let payload = to_bytes(request)?;
            let answer = self.answer(deadline, send(self.service()?, payload)).await?;
            believed(from_bytes(&answer)?, asked)
        };
        call.await.map_err(|error| self.error(error, action))
    }

    /// Waits for an answer, at most until the deadline.
    async fn answer<T>(
        &self,
        deadline: Duration,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, CallError> {
        match tokio::time::timeout(deadline, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(status)) => Err(judge(&status)),
            Err(_) => Err(CallError::Timeout(deadline)),
        }
    }

    fn error(&self, error: CallError, action: RPCTypes) -> RPCError<TypeConfig> {
        match error {
            CallError::Timeout(timeout) => {
                RPCError::Timeout(Timeout { action, id: self.local, target: self.target, timeout })
            }
            CallError::Unreachable(text) => RPCError::Unreachable(Unreachable::from_string(text)),
            CallError::Failed(text) => RPCError::Network(NetworkError::from_string(text)),
        }
    }

    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: Snapshot,
        deadline: Duration,
    ) -> Result<SnapshotResponse<TypeConfig>, CallError> {
        let mut client = self.service()?;
        let header = Header::of(snapshot.meta, &snapshot.snapshot);
        let head = SnapshotHead { vote, header };
        let header = to_bytes(&head)?;
        let parts = parts_of(header, &snapshot.snapshot).map(proto::InstallSnapshotRequest::from);
        let parts = tokio_stream::iter(parts);
        let answer = self.answer(deadline, client.install_snapshot(parts)).await?;
        believed(from_bytes(&answer.get_ref().payload)?, Reach::of(&head))
    }
}

/// `answer`, unless nobody comes as far as it says who was asked by one who is at `asked`.
fn believed<A: Said>(answer: A, asked: Reach) -> Result<A, CallError> {
    match why_not(&answer, asked) {
        None => Ok(answer),
        Some(why) => Err(CallError::Unreachable(format!("the answer is not believed: {why}"))),
    }
}

fn judge(status: &Status) -> CallError {
    let text = format!("{:?}: {:?}", status.code(), status.message());
    match status.code() {
        Code::Unavailable
        | Code::Unknown
        | Code::Cancelled
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::Unimplemented => CallError::Unreachable(text),
        _ => CallError::Failed(text),
    }
}

/// What the first part of a snapshot says before any data.
#[derive(Serialize, serde::Deserialize)]
pub struct SnapshotHead {
    pub vote: Vote,
    pub header: Header,
}

impl AsRef<Header> for SnapshotHead {
    fn as_ref(&self) -> &Header {
        &self.header
    }
}

fn to_bytes<T: Serialize>(value: &T) -> Result<Vec<u8>, CallError> {
    encode(value).map_err(|status| CallError::Failed(status.message().to_owned()))
}

fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CallError> {
    decode(bytes).map_err(|status| CallError::Failed(status.message().to_owned()))
}

impl RaftNetworkV2<TypeConfig> for Client {
    type SnapshotData = StateDocument;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let deadline = match request.entries.is_empty() {
            true => option.soft_ttl(),
            false => option.soft_ttl().max(APPEND_DEADLINE),
        };
        self.ask(RPCTypes::AppendEntries, deadline, &request, |mut client, payload| async move {
            let answer = client.append_entries(proto::AppendEntriesRequest { payload }).await?;
            Ok(answer.into_inner().payload)
        })
        .await
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask(RPCTypes::Vote, option.soft_ttl(), &request, |mut client, payload| async move {
            let answer = client.vote(proto::VoteRequest { payload }).await?;
            Ok(answer.into_inner().payload)
        })
        .await
        .inspect(|_| self.heard.note_vote(NodeId(self.target)))
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask(RPCTypes::Vote, option.soft_ttl(), &request, |mut client, payload| async move {
            let answer = client.pre_vote(proto::PreVoteRequest { payload }).await?;
            Ok(answer.into_inner().payload)
        })
        .await
        .inspect(|_| self.heard.note_vote(NodeId(self.target)))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            biased;
            closed = cancel => Err(closed.into()),
            sent = self.send_snapshot(vote, snapshot, option.soft_ttl()) => {
                sent.map_err(|error| self.error(error, RPCTypes::InstallSnapshot).into())
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask(RPCTypes::TransferLeader, option.soft_ttl(), &request, |mut client, payload| async move {
            let answer = client.transfer_leader(proto::TransferLeaderRequest { payload }).await?;
            Ok(answer.into_inner().payload)
        })
        .await
    }
}
