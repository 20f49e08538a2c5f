//! A point in the log that is certainly not older than now: whoever has applied it has seen every acknowledged write.

use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError};
use shoal_model::NodeId;
use shoal_policy::cache::confirmed::Mandate;
use shoal_proto::raft as proto;
use tokio::time::Instant;
use tonic::Status;

use super::no_quorum::Loss;
use super::reason::Reason;
use super::status::Leadership;
use super::{ConfigLog, LOOK_AGAIN, ProposeError, lock};
use crate::planted;

impl ConfigLog {
    /// The index up to which entries were committed at some time during this call, confirmed by a majority. Waits for a
    /// leader as [`ConfigLog::propose`] does.
    pub async fn read_index(&self) -> Result<u64, ProposeError> {
        let started = Instant::now();
        loop {
            match self.try_read_index().await {
                Err(ProposeError::NoQuorum { lost_for, .. }) if self.waits_on(started, lost_for) => {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                answer => return answer,
            }
        }
    }

    /// [`ConfigLog::read_index`] in one attempt, while the same node leads: for those who ask again anyway.
    pub async fn try_read_index(&self) -> Result<u64, ProposeError> {
        if planted::reads_are_unconfirmed() {
            return Ok(*self.applied().borrow());
        }
        if let Some(divergence) = self.divergence() {
            return Err(ProposeError::Diverged { reason: divergence.to_string() });
        }
        let deadline = self.shared.timings.silence();
        let leader = match self.leadership() {
            Leadership::Here => return self.read_index_here(self.node_id()).await,
            Leadership::There(leader) => leader,
            Leadership::Deserted => return Err(self.loss().into()),
            Leadership::Nobody => {
                return Err(match self.deaf_for_want_of_room() {
                    Some(reason) => ProposeError::OutOfSpace { reason },
                    None => self.loss().into(),
                });
            }
            Leadership::Stopped => return Err(ProposeError::Broken { reason: self.status().broken }),
        };
        let mut client = self.peer(leader).map_err(|error| Loss::of_one_try(error.to_string()))?;
        let call = client.read_index(proto::ReadIndexRequest {});
        let answer = tokio::select! {
            biased;
            answer = tokio::time::timeout(deadline, call) => answer,
            () = self.not_led_by(leader) => {
                return Err(in_vain(format!("{} does not lead any more", self.called(leader))));
            }
        };
        let called = self.called(leader);
        match answer {
            Ok(Ok(response)) => Ok(response.into_inner().commit_index),
            Ok(Err(status)) => Err(match Reason::lost_for(&status) {
                Some(lost_for) => self.loss_of(leader, lost_for).into(),
                None => in_vain(format!("{called} answered {:?}: {:?}", status.code(), status.message())),
            }),
            Err(_) => Err(in_vain(format!("{called} did not answer in time"))),
        }
    }

    /// Answers `PeerService.ReadIndex` to `caller`, which has been checked to be that node; only a leader can, and it is not
    /// passed on.
    pub async fn answer_read_index(&self, caller: NodeId) -> Result<proto::ReadIndexResponse, Status> {
        match self.leadership() {
            Leadership::Here => {}
            Leadership::Deserted => return Err(ProposeError::from(self.loss()).to_status()),
            Leadership::There(_) | Leadership::Nobody | Leadership::Stopped => {
                return Err(Reason::NotLeader.status("this node does not lead"));
            }
        }
        match self.read_index_here(caller).await {
            Ok(commit_index) => Ok(proto::ReadIndexResponse { commit_index }),
            Err(error) => Err(Reason::NoQuorum.status(error.to_string())),
        }
    }

    async fn read_index_here(&self, asker: NodeId) -> Result<u64, ProposeError> {
        // Before it is looked: who waits for a purge relies on that.
        let term = self.metrics().current_term;
        self.shared.heard.may_confirm(Mandate { term, leader: self.node_id() });
        lock(&self.shared.askers).note(term, asker, self.shared.opened.elapsed());
        let deadline = self.shared.timings.silence();
        let Some(raft) = self.raft() else {
            return Err(ProposeError::Broken { reason: self.status().broken });
        };
        let read = Box::pin(raft.get_read_log_id(ReadPolicy::ReadIndex));
        match tokio::time::timeout(deadline, read).await {
            Ok(Ok((read, _applied))) => Ok(read.index()),
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_)))) => {
                Err(in_vain("this node does not lead any more"))
            }
            Ok(Err(error)) => Err(in_vain(error.to_string())),
            Err(_) => Err(in_vain("no majority answered in time")),
        }
    }
}

fn in_vain(reason: impl Into<String>) -> ProposeError {
    Loss::of_one_try(reason).into()
}
