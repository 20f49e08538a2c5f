//! Passing a command on to the node that leads, and how other nodes are reached for that.

use std::time::Duration;

use shoal_cluster::channel::UnknownPeer;
use shoal_model::NodeId;
use shoal_model::state::Command;
use shoal_proto::raft as proto;
use shoal_proto::raft::peer_service_client::PeerServiceClient;
use shoal_proto::raft::raft_service_client::RaftServiceClient;
use tokio::time::Instant;
use tonic::{Code, Status};

use super::ConfigLog;
use super::propose::{Attempt, ProposeError, Proposed, may_be_repeated};
use super::reason::Reason;
use crate::network::{PeerChannel, decode, encode};

impl ConfigLog {
    /// A leader that is lost meanwhile is not waited for, if the next one may be asked the same: a dead connection is noticed
    /// later than a dead leader.
    pub(super) async fn forward(
        &self,
        leader: NodeId,
        command: &Command,
        hops: u32,
        deadline: Instant,
    ) -> Attempt {
        let repeatable = may_be_repeated(command);
        let command = match encode(command) {
            Ok(command) => command,
            Err(status) => {
                return Attempt::Failed(ProposeError::Broken { reason: status.message().to_owned() });
            }
        };
        let mut client = match self.peer(leader) {
            Ok(client) => client,
            Err(error) => return Attempt::not_written(error.to_string()),
        };
        let call = client.propose(proto::ProposeRequest { command, hops });
        let answer = tokio::select! {
            biased;
            answer = tokio::time::timeout_at(deadline, call) => answer,
            () = self.not_led_by(leader), if repeatable => {
                return Attempt::PerhapsWritten(format!("{} was lost before it answered", self.called(leader)));
            }
        };
        match answer {
            Ok(Ok(response)) => {
                let proto::ProposeResponse { reply, index, silences } = response.into_inner();
                let silences = silences
                    .into_iter()
                    .map(|silence| (NodeId(silence.node_id), Duration::from_millis(silence.at_least_ms)));
                match decode(&reply) {
                    Ok(reply) => Attempt::Done(Proposed { index, reply, silences: silences.collect() }),
                    Err(status) => {
                        Attempt::Failed(ProposeError::OutcomeUnknown { reason: status.message().to_owned() })
                    }
                }
            }
            Ok(Err(status)) => match Reason::lost_for(&status) {
                Some(lost_for) => Attempt::NotWritten(self.loss_of(leader, lost_for)),
                None => judge_refusal(self.called(leader), &status),
            },
            Err(_) => Attempt::PerhapsWritten(format!("{} did not answer in time", self.called(leader))),
        }
    }

    /// A client to another node.
    pub(super) fn peer(&self, node: NodeId) -> Result<PeerServiceClient<PeerChannel>, UnknownPeer> {
        self.shared.directory.peers_knowing(node, &self.membership_address(node)).control(node)
    }

    /// The same, to its service of consensus.
    pub(super) fn consensus_peer(&self, node: NodeId) -> Result<RaftServiceClient<PeerChannel>, UnknownPeer> {
        self.shared.directory.peers_knowing(node, &self.membership_address(node)).raft(node)
    }

    /// The same, on a connection that large transfers are for.
    pub(super) fn snapshot_peer(&self, node: NodeId) -> Result<RaftServiceClient<PeerChannel>, UnknownPeer> {
        self.shared.directory.peers_knowing(node, &self.membership_address(node)).snapshot(node)
    }

    fn membership_address(&self, node: NodeId) -> String {
        let metrics = self.metrics();
        metrics.membership_config.get_node(&node.0).map(|node| node.addr.clone()).unwrap_or_default()
    }
}

/// What another node's refusal means for the command.
fn judge_refusal(leader: String, status: &Status) -> Attempt {
    let text = format!("{leader} answered {:?}: {:?}", status.code(), status.message());
    match Reason::of(status) {
        Some(Reason::NoQuorum | Reason::NotLeader | Reason::Broken) => Attempt::not_written(text),
        Some(Reason::OutcomeUnknown) => Attempt::PerhapsWritten(text),
        Some(Reason::OutOfSpace) => Attempt::NoRoom(status.message().to_owned()),
        Some(Reason::TooLarge) => Attempt::Failed(ProposeError::Refused { leader, reason: text }),
        None => match status.code() {
            Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented | Code::InvalidArgument => {
                Attempt::Failed(ProposeError::Refused { leader, reason: text })
            }
            _ => Attempt::PerhapsWritten(text),
        },
    }
}
