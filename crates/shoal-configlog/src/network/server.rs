//! Answers the consensus RPCs of other nodes.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest};
use serde::de::DeserializeOwned;
use shoal_cluster::tls::Caller;
use shoal_model::NodeId;
use shoal_policy::cache::confirmed::Mandate;
use shoal_proto::raft as proto;
use shoal_proto::raft::raft_service_server::RaftService;
use tokio::sync::Semaphore;
use tonic::{Extensions, Request, Response, Status, Streaming};

use super::believable::{Reach, Said, why_not, why_not_term};
use super::client::SnapshotHead;
use super::heard::Heard;
use super::parts::{Part, collect, parts_of};
use super::wire::{decode, encode};
use crate::machine::{Raft, Snapshot, StateMachine};
use crate::types::{TypeConfig, Vote};

/// States on their way to other nodes at once.
const MAX_STATES: usize = 2;
/// How long one that asks for a state waits for this node to apply an entry.
const APPLY_WAIT: Duration = Duration::from_secs(3);

/// The consensus service of this node. Expects a verified [`Caller`] among the extensions of every request, and refuses
/// all but nodes.
#[derive(Clone)]
pub struct RaftRpc {
    /// Or why this node takes no part.
    raft: Result<Raft, String>,
    machine: StateMachine,
    heard: Arc<Heard>,
    sending: Arc<Semaphore>,
}

impl RaftRpc {
    pub(crate) fn new(raft: Result<Raft, String>, machine: StateMachine, heard: Arc<Heard>) -> Self {
        Self { raft, machine, heard, sending: Arc::new(Semaphore::new(MAX_STATES)) }
    }

    /// The node that sent a request, unless it was removed.
    fn calling_node(&self, extensions: &Extensions) -> Result<NodeId, Status> {
        let caller = proven_node(extensions)?;
        self.part()?;
        let applied = *self.machine.applied().borrow();
        let (was_removed, was_revoked) = {
            let state = self.machine.read();
            (state.was_removed(caller, applied), state.revoked.contains(&caller))
        };
        if was_revoked || (was_removed && !self.is_in_membership(caller)) {
            return Err(Status::permission_denied(format!("{caller} was removed from this cluster")));
        }
        Ok(caller)
    }

    /// What a node that was not removed asks in its own name.
    fn asked<Q: DeserializeOwned + Said>(
        &self,
        extensions: &Extensions,
        payload: &[u8],
        sender: impl FnOnce(&Q) -> Vote,
    ) -> Result<Q, Status> {
        let caller = self.calling_node(extensions)?;
        let request = decode(payload)?;
        check_sender(caller, &sender(&request))?;
        believed(caller, why_not(&request, self.reach()?))?;
        Ok(request)
    }

    /// How far this node has counted.
    fn reach(&self) -> Result<Reach, Status> {
        let metrics = self.part()?.metrics();
        let metrics = metrics.borrow_watched();
        Ok(Reach { term: metrics.current_term, index: metrics.last_log_index.unwrap_or(0) })
    }

    fn part(&self) -> Result<&Raft, Status> {
        let raft = self.raft.as_ref().map_err(stopped)?;
        // openraft would complain of every call, for ever.
        match &raft.metrics().borrow_watched().running_state {
            Ok(()) => {}
            Err(fatal) => return Err(stopped(fatal)),
        }
        Ok(raft)
    }

    /// A removed leader may still see its successor in.
    fn is_in_membership(&self, node: NodeId) -> bool {
        let is_in =
            |raft: &Raft| raft.metrics().borrow_watched().membership_config.get_node(&node.0).is_some();
        self.raft.as_ref().is_ok_and(is_in)
    }
}

/// The node whose certificate stands behind a request.
fn proven_node(extensions: &Extensions) -> Result<NodeId, Status> {
    match extensions.get::<Caller>() {
        Some(Caller::Node(node)) => Ok(*node),
        Some(Caller::Operator(_)) => Err(Status::permission_denied("only nodes take part in consensus")),
        None => Err(Status::unauthenticated("a certificate of this cluster is required")),
    }
}

/// Nobody speaks in another node's name.
fn check_sender(caller: NodeId, vote: &Vote) -> Result<(), Status> {
    match NodeId(vote.leader_id.node_id) {
        claimed if claimed == caller => Ok(()),
        claimed => Err(Status::permission_denied(format!("{caller} speaks in the name of {claimed}"))),
    }
}

/// Refuses what is not to be believed of a caller.
fn believed(caller: NodeId, why_not: Option<String>) -> Result<(), Status> {
    match why_not {
        None => Ok(()),
        Some(why) => Err(Status::permission_denied(format!("{caller} is not believed: {why}"))),
    }
}

fn mandate(vote: &Vote) -> Mandate {
    Mandate { term: vote.leader_id.term, leader: NodeId(vote.leader_id.node_id) }
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("the log of this node has stopped: {error}"))
}

#[tonic::async_trait]
impl RaftService for RaftRpc {
    async fn append_entries(
        &self,
        request: Request<proto::AppendEntriesRequest>,
    ) -> Result<Response<proto::AppendEntriesResponse>, Status> {
        let sender = |append: &AppendEntriesRequest<TypeConfig>| append.vote;
        let append = self.asked(request.extensions(), &request.get_ref().payload, sender)?;
        self.heard.may_confirm(mandate(&append.vote));
        let answer = Box::pin(self.part()?.append_entries(append)).await.map_err(stopped)?;
        match &answer {
            AppendEntriesResponse::Success
            | AppendEntriesResponse::PartialSuccess(_)
            | AppendEntriesResponse::Conflict => self.heard.note(),
            AppendEntriesResponse::HigherVote(_) => {}
        }
        Ok(Response::new(proto::AppendEntriesResponse { payload: encode(&answer)? }))
    }

    async fn vote(
        &self,
        request: Request<proto::VoteRequest>,
    ) -> Result<Response<proto::VoteResponse>, Status> {
        let sender = |vote: &VoteRequest<TypeConfig>| vote.vote;
        let vote = self.asked(request.extensions(), &request.get_ref().payload, sender)?;
        self.heard.note_vote(mandate(&vote.vote).leader);
        let answer = Box::pin(self.part()?.vote(vote)).await.map_err(stopped)?;
        Ok(Response::new(proto::VoteResponse { payload: encode(&answer)? }))
    }

    async fn pre_vote(
        &self,
        request: Request<proto::PreVoteRequest>,
    ) -> Result<Response<proto::PreVoteResponse>, Status> {
        let sender = |vote: &VoteRequest<TypeConfig>| vote.vote;
        let vote = self.asked(request.extensions(), &request.get_ref().payload, sender)?;
        self.heard.note_vote(mandate(&vote.vote).leader);
        let answer = Box::pin(self.part()?.pre_vote(vote)).await.map_err(stopped)?;
        Ok(Response::new(proto::PreVoteResponse { payload: encode(&answer)? }))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<proto::InstallSnapshotRequest>>,
    ) -> Result<Response<proto::InstallSnapshotResponse>, Status> {
        let caller = self.calling_node(request.extensions())?;
        let parts = request.into_inner().map(|part| part.map(Part::from));
        let (head, document): (SnapshotHead, _) = collect(parts).await?;
        check_sender(caller, &head.vote)?;
        believed(caller, why_not(&head, self.reach()?))?;
        self.heard.may_confirm(mandate(&head.vote));
        let snapshot = Snapshot { meta: head.header.meta, snapshot: document };
        let answer =
            Box::pin(self.part()?.install_full_snapshot(head.vote, snapshot)).await.map_err(stopped)?;
        self.heard.note();
        Ok(Response::new(proto::InstallSnapshotResponse { payload: encode(&answer)? }))
    }

    async fn transfer_leader(
        &self,
        request: Request<proto::TransferLeaderRequest>,
    ) -> Result<Response<proto::TransferLeaderResponse>, Status> {
        let sender = |transfer: &TransferLeaderRequest<TypeConfig>| *transfer.from_leader();
        let transfer = self.asked(request.extensions(), &request.get_ref().payload, sender)?;
        let answer = Box::pin(self.part()?.handle_transfer_leader(transfer)).await.map_err(stopped)?;
        Ok(Response::new(proto::TransferLeaderResponse { payload: encode(&answer)? }))
    }

    async fn last_confirmed(
        &self,
        request: Request<proto::LastConfirmedRequest>,
    ) -> Result<Response<proto::LastConfirmedResponse>, Status> {
        let asking =
            Mandate { term: request.get_ref().term, leader: self.calling_node(request.extensions())? };
        believed(asking.leader, why_not_term(asking.term, self.reach()?.term))?;
        // As it is on the disk: this node is bound to it whatever happens. To be looked at first: what is confirmed until
        // then has been noted.
        let bound_to = mandate(&self.part()?.metrics().borrow_watched().vote);
        let silent = self.heard.confirmed_none_before(asking).filter(|_| bound_to >= asking);
        match silent {
            Some(silent) => {
                Ok(Response::new(proto::LastConfirmedResponse { at_least_ms: silent.as_millis() as u64 }))
            }
            None => {
                Err(Status::failed_precondition(format!("this node is bound to {bound_to}, not to {asking}")))
            }
        }
    }

    type FetchStateStream = Pin<Box<dyn Stream<Item = Result<proto::FetchStateResponse, Status>> + Send>>;

    async fn fetch_state(
        &self,
        request: Request<proto::FetchStateRequest>,
    ) -> Result<Response<Self::FetchStateStream>, Status> {
        let caller = self.calling_node(request.extensions())?;
        if !self.machine.read().nodes.contains_key(&caller) {
            return Err(Status::failed_precondition(format!("{caller} is not known here")));
        }
        let place = Arc::clone(&self.sending).try_acquire_owned();
        let place =
            place.map_err(|_| Status::resource_exhausted("others are being sent the state; try again"))?;
        if let Some(divergence) = self.machine.divergence() {
            return Err(Status::failed_precondition(divergence.to_string()));
        }
        let at_least = request.get_ref().at_least;
        let mut applied = self.machine.applied();
        let catching_up = tokio::time::timeout(APPLY_WAIT, applied.wait_for(|index| *index >= at_least));
        let has_caught_up = catching_up.await.is_ok_and(|applied| applied.is_ok());
        if !has_caught_up {
            return Err(Status::failed_precondition(format!("entry {at_least} is not applied here")));
        }
        let failed = |error: std::io::Error| Status::internal(error.to_string());
        let (header, document) = self.machine.document().await.map_err(failed)?;
        let parts = parts_of(encode(&header)?, &document).map(move |part| {
            let _taken = &place;
            Ok(part.into())
        });
        Ok(Response::new(Box::pin(tokio_stream::iter(parts))))
    }
}
