//! Putting commands into the log, from any node: here if this node leads, else through whoever does.

use std::collections::BTreeMap;
use std::time::Duration;

use openraft::errors::{ClientWriteError, RaftError};
use shoal_model::NodeId;
use shoal_model::state::{Command, Refusal, Reply, on_record_of};
use shoal_proto::raft as proto;
use tokio::time::Instant;
use tonic::Status;

use super::no_quorum::Loss;
use super::purge_batch::Turn;
use super::reason::Reason;
use super::status::Leadership;
use super::{ConfigLog, LOOK_AGAIN, lock};
use crate::levels::{check_passed_on, takes_level};
use crate::network::{MAX_ENTRY_BYTES, decode, encode, entry_bytes};

/// How long a proposal is pursued by the node it was made on.
const DEADLINE: Duration = Duration::from_secs(8);
/// How long by a node it was forwarded to: the first one has to hear of it.
const FORWARDED_DEADLINE: Duration = Duration::from_secs(6);
/// How often a proposal is passed on, at most.
const MAX_HOPS: u32 = 2;

/// A command that is in the log for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposed {
    /// Index of its entry.
    pub index: u64,
    /// What applying it answered.
    pub reply: Reply,
    /// Of a purge: for how long at least no leader has told a member how far the log is committed, as the leader knew it
    /// after the commit. Members that are not among them may have been told just now.
    pub silences: BTreeMap<NodeId, Duration>,
}

/// A command is not in the log, or not known to be.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProposeError {
    /// Nothing was written: no leader that a majority follows was found in time.
    #[error("no quorum: {reason}")]
    NoQuorum {
        /// What was found instead.
        reason: String,
        /// For how long it has been so; zero = that is not known.
        lost_for: Duration,
    },
    /// It may have been written. Trying again with the same request id is safe.
    #[error("the outcome is unknown: {reason}")]
    OutcomeUnknown {
        /// What happened.
        reason: String,
    },
    /// Nothing was written.
    #[error("a command of {bytes} bytes is too large for one entry; at most {MAX_ENTRY_BYTES} are allowed")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Nothing was written: nodes disagree about who leads.
    #[error("the proposal was passed on {MAX_HOPS} times without reaching the leader")]
    TooManyHops,
    /// Nothing was written: this node's log has stopped, or failed for good.
    #[error("the log of this node has stopped: {reason}")]
    Broken {
        /// Why.
        reason: String,
    },
    /// What this node would answer by is not what was agreed.
    #[error("{reason}")]
    Diverged {
        /// How that is known.
        reason: String,
    },
    /// Nothing was written: the leader has no room for it, and nobody else leads in time.
    #[error("{reason}")]
    OutOfSpace {
        /// Whose disk is full, and what to do.
        reason: String,
    },
    /// Nothing was written: members may be of a version that does not know it.
    #[error(
        "{command} takes level {needs}, and the cluster is at level {level} until the upgrade of all nodes is \
         finalized; see `shoal upgrade status`"
    )]
    NotFinalized {
        /// What was to be done.
        command: String,
        /// The level that knows it.
        needs: u32,
        /// That of the cluster.
        level: u32,
    },
    /// The leader would not talk to this node.
    #[error("{leader} refused the proposal: {reason}")]
    Refused {
        /// Who, as people call it.
        leader: String,
        /// Why.
        reason: String,
    },
}

/// What came of one attempt.
#[derive(Clone)]
pub(super) enum Attempt {
    Done(Proposed),
    Failed(ProposeError),
    /// Certainly not written: try again, unless there has been no quorum for long.
    NotWritten(Loss),
    /// The same, for want of room at the leader.
    NoRoom(String),
    /// Perhaps written: try again only what may be written twice.
    PerhapsWritten(String),
}

impl Attempt {
    /// Certainly not written, this time.
    pub(super) fn not_written(reason: impl Into<String>) -> Self {
        Self::NotWritten(Loss::of_one_try(reason))
    }
}

impl ConfigLog {
    /// Puts `command` into the log and returns what applying it answered. Follows changes of leadership for a few
    /// seconds; without a quorum it fails within three elections, and at once where it was lost longer ago than that. Who has
    /// asked for it (see [`on_behalf_of`]) is on the record.
    ///
    /// [`on_behalf_of`]: super::on_behalf_of
    pub async fn propose(&self, command: Command) -> Result<Proposed, ProposeError> {
        self.check_level(&command)?;
        self.pursue(self.on_record(command), 0, DEADLINE).await
    }

    /// [`propose`], written by this node as the leader, now, or not at all: what a leader has decided by what it has seen is
    /// void where a majority follows another.
    ///
    /// [`propose`]: Self::propose
    pub async fn propose_as_leader(&self, command: Command) -> Result<Proposed, ProposeError> {
        self.check_level(&command)?;
        if self.leadership() != Leadership::Here {
            return Err(Loss::of_one_try("this node does not lead, or no majority follows it").into());
        }
        if let Some(reason) = self.out_of_space() {
            return Err(ProposeError::OutOfSpace { reason });
        }
        match Box::pin(self.write_in_turn(self.on_record(command), Instant::now() + DEADLINE)).await {
            Attempt::Done(proposed) => Ok(proposed),
            Attempt::Failed(error) => Err(error),
            Attempt::NotWritten(loss) => Err(loss.into()),
            Attempt::NoRoom(reason) => Err(ProposeError::OutOfSpace { reason }),
            Attempt::PerhapsWritten(reason) => Err(ProposeError::OutcomeUnknown { reason }),
        }
    }

    /// Refuses what some members may not know yet.
    fn check_level(&self, command: &Command) -> Result<(), ProposeError> {
        let level = self.with_state(|state| state.level.number);
        match takes_level(command) {
            // The first entry of a cluster says at which level it begins.
            Some(needs) if needs > level && !matches!(command.innermost(), Command::Bootstrap { .. }) => {
                Err(ProposeError::NotFinalized { command: command.to_string(), needs, level })
            }
            _ => Ok(()),
        }
    }

    /// Answers `PeerService.Propose` of `caller`, which has been checked to be a node, at `now_ms`.
    pub async fn answer_propose(
        &self,
        caller: NodeId,
        request: proto::ProposeRequest,
        now_ms: u64,
    ) -> Result<proto::ProposeResponse, Status> {
        let command: Command = decode(&request.command)?;
        check_passed_on(&command).map_err(Status::invalid_argument)?;
        // Of what goes by way of a third node that one seems to be the caller: it is refused, and proposed again.
        let own = self.with_state(|state| {
            state.check_own(caller, &command).map(|()| on_record_of(caller, command, now_ms, state))
        });
        let command = own.map_err(|refusal| Status::invalid_argument(refusal.to_string()))?;
        match self.pursue(command, request.hops, FORWARDED_DEADLINE).await {
            Ok(proposed) => {
                let Proposed { index, reply, silences } = proposed;
                let silences = silences.iter().map(|(node, silence)| proto::Silence {
                    node_id: node.0,
                    at_least_ms: silence.as_millis() as u64,
                });
                let reply = encode(&reply)?;
                Ok(proto::ProposeResponse { reply, index, silences: silences.collect() })
            }
            Err(error) => Err(error.to_status()),
        }
    }

    async fn pursue(
        &self,
        command: Command,
        hops: u32,
        patience: Duration,
    ) -> Result<Proposed, ProposeError> {
        let bytes = entry_bytes(&command);
        if bytes > MAX_ENTRY_BYTES {
            return Err(ProposeError::TooLarge { bytes });
        }
        let started = Instant::now();
        let deadline = started + patience;
        let repeatable = may_be_repeated(&command);
        let mut perhaps_written: Option<String> = None;
        let mut is_full;
        let mut changes = self.leader_changes();
        loop {
            let attempt = match self.leadership() {
                Leadership::Here => match self.out_of_space() {
                    Some(why) => Attempt::NoRoom(format!("{} leads, and {why}", self.called(self.node_id()))),
                    None => Box::pin(self.write_in_turn(command.clone(), deadline)).await,
                },
                Leadership::There(_) if hops >= MAX_HOPS => {
                    Attempt::not_written(ProposeError::TooManyHops.to_string())
                }
                Leadership::There(leader) => {
                    Box::pin(self.forward(leader, &command, hops + 1, deadline)).await
                }
                Leadership::Deserted => Attempt::NotWritten(self.loss()),
                // Who cannot write what the leader sends answers nothing, and so hears nothing.
                Leadership::Nobody => match self.deaf_for_want_of_room() {
                    Some(why) => Attempt::NoRoom(why),
                    None => Attempt::NotWritten(self.loss()),
                },
                Leadership::Stopped => Attempt::Failed(ProposeError::Broken { reason: self.status().broken }),
            };
            is_full = matches!(attempt, Attempt::NoRoom(_));
            let loss = match attempt {
                Attempt::Done(proposed) => return Ok(proposed),
                // What is certain of this try is not of one before it.
                Attempt::Failed(error) => {
                    return Err(match perhaps_written {
                        Some(before) => {
                            ProposeError::OutcomeUnknown { reason: format!("{before}; after that: {error}") }
                        }
                        None => error,
                    });
                }
                Attempt::NotWritten(loss) => loss,
                Attempt::NoRoom(reason) => Loss::of_one_try(reason),
                Attempt::PerhapsWritten(reason) if !repeatable => {
                    return Err(ProposeError::OutcomeUnknown { reason });
                }
                Attempt::PerhapsWritten(reason) => {
                    perhaps_written = Some(reason.clone());
                    Loss::of_one_try(reason)
                }
            };
            // Only the first node waits for a leader; one that was asked wrongly says so at once.
            let waits = hops == 0 && self.waits_on(started, loss.lost_for);
            if !waits || Instant::now() >= deadline {
                return Err(match perhaps_written {
                    Some(reason) => ProposeError::OutcomeUnknown { reason },
                    None if is_full => ProposeError::OutOfSpace { reason: loss.reason },
                    None => loss.into(),
                });
            }
            tracing::debug!(%command, reason = loss.reason, "proposing again");
            changes.next().await;
        }
    }

    /// What is not written although it could be: a state has to fit through the door of a node that joins. Only the leader
    /// knows of all that come at once.
    fn refusal_of(&self, command: &Command) -> Option<Refusal> {
        let command = match command {
            Command::AskedBy { command, .. } => &**command,
            command => command,
        };
        let Command::UploadPart { text, at_ms, .. } = command else { return None };
        self.with_state(|state| state.examine_part(text.len(), *at_ms))
    }

    /// Before it is written, which it is not.
    fn refused(&self, refusal: Refusal) -> Attempt {
        let index = *self.applied().borrow();
        Attempt::Done(Proposed { index, reply: Reply::Refused(refusal), silences: BTreeMap::new() })
    }

    /// Purges wait for the one that is being written, and go together then.
    async fn write_in_turn(&self, command: Command, deadline: Instant) -> Attempt {
        if let Some(refusal) = self.refusal_of(&command) {
            return self.refused(refusal);
        }
        let writing =
            self.shared.purges.write(command, |command| Box::pin(self.write_here(command, deadline)));
        match tokio::time::timeout_at(deadline, writing).await {
            Ok(Turn::Written(attempt)) => attempt,
            Ok(Turn::TooMany) => self.refused(Refusal::TooManyPurges),
            Ok(Turn::Abandoned) => {
                Attempt::PerhapsWritten("whoever was to write it gave up on the way".to_owned())
            }
            Err(_) => Attempt::PerhapsWritten("the purges before it were not written in time".to_owned()),
        }
    }

    async fn write_here(&self, command: Command, deadline: Instant) -> Attempt {
        let Some(raft) = self.raft() else {
            return Attempt::Failed(ProposeError::Broken { reason: self.status().broken });
        };
        // Also for others, who may be ahead of this node for a moment.
        if let Err(error) = self.check_level(&command) {
            return Attempt::not_written(error.to_string());
        }
        let command = match takes_level(&command) {
            Some(needs) if !matches!(command.innermost(), Command::Bootstrap { .. }) => command.sealed(needs),
            _ => command,
        };
        let write = raft.client_write(command);
        let written = tokio::select! {
            biased;
            written = Box::pin(write) => written,
            () = tokio::time::sleep_until(deadline) => {
                return Attempt::PerhapsWritten("the cluster did not acknowledge it in time".to_owned());
            }
            () = self.deserted() => {
                return Attempt::PerhapsWritten("the quorum was lost before it was acknowledged".to_owned());
            }
            why = self.full() => return Attempt::PerhapsWritten(why),
        };
        match written {
            Ok(response) => {
                let (id, reply) = (response.log_id, response.data);
                let silences = match reply {
                    Reply::Purged { .. } => Box::pin(self.silences(id.leader_id.term)).await,
                    _ => BTreeMap::new(),
                };
                Attempt::Done(Proposed { index: id.index, reply, silences })
            }
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                Attempt::not_written(format!("this node does not lead any more ({:?})", forward.reason))
            }
            Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_))) => {
                Attempt::PerhapsWritten("the leader changed before it was acknowledged".to_owned())
            }
            Err(RaftError::APIError(error)) => {
                Attempt::Failed(ProposeError::Broken { reason: error.to_string() })
            }
            Err(RaftError::Fatal(error)) => Attempt::Failed(ProposeError::OutcomeUnknown {
                reason: format!("the log of this node failed on the way: {error}"),
            }),
        }
    }

    /// How long each member has been silent as this node knows it, which has led in `term` a moment ago.
    async fn silences(&self, term: u64) -> BTreeMap<NodeId, Duration> {
        self.settle_askers(term).await;
        let members: Vec<NodeId> = self.with_state(|state| state.nodes.keys().copied().collect());
        let now = self.shared.opened.elapsed();
        let mut askers = lock(&self.shared.askers);
        members.into_iter().map(|node| (node, askers.silent_for(term, node, now))).collect()
    }

    /// Resolves once `leader` is not this node's leader any more, or was silent for so long that it cannot be for long.
    pub(super) async fn not_led_by(&self, leader: NodeId) {
        let mut changes = self.leader_changes();
        while self.leadership() == Leadership::There(leader) {
            changes.next().await;
        }
    }

    /// Resolves once this node has not been a followed leader for as long as an election may take.
    async fn deserted(&self) {
        let mut since = Instant::now();
        loop {
            tokio::time::sleep(LOOK_AGAIN).await;
            if self.leadership() == Leadership::Here {
                since = Instant::now();
            } else if since.elapsed() > self.shared.timings.silence() {
                return;
            }
        }
    }

    /// What is missing on the disk and what to do, if it has been so for longer than a passing moment.
    fn out_of_space(&self) -> Option<String> {
        self.lacks_room_for(LOOK_AGAIN)
    }

    /// Why nobody is heard, if it is for that.
    pub(super) fn deaf_for_want_of_room(&self) -> Option<String> {
        let why = self.out_of_space()?;
        Some(format!("{} hears no leader, and {why}", self.called(self.node_id())))
    }

    /// Resolves once this node, without which nothing can be acknowledged, has no room.
    async fn full(&self) -> String {
        loop {
            tokio::time::sleep(LOOK_AGAIN).await;
            let Some(why) = self.out_of_space() else { continue };
            if self.status().voters == [self.shared.node_id] {
                let own = self.called(self.node_id());
                return format!("{own} leads, and {why}; what was asked for is done then");
            }
        }
    }
}

/// Whether writing a command twice does the same as writing it once.
pub(super) fn may_be_repeated(command: &Command) -> bool {
    match command {
        Command::Publish { request_id, .. }
        | Command::Rollout { request_id, .. }
        | Command::Purge { request_id, .. } => !request_id.is_empty(),
        Command::AskedBy { command, .. } => may_be_repeated(command),
        Command::UploadPart { .. }
        | Command::SetRolloutPolicy { .. }
        | Command::Quarantine { .. }
        | Command::ForgetPurges { .. }
        | Command::CreateToken { .. }
        | Command::Admit(_)
        | Command::UpdateNode { .. }
        // The second time it is refused, since there is no such node: for who wants it gone that is the same.
        | Command::RemoveNode { .. }
        | Command::SetStanding(_)
        | Command::SetVote { .. }
        | Command::ChangeSetup(_)
        | Command::RevokeNode { .. }
        | Command::GiveCertificate { .. }
        | Command::RevokeOperator { .. }
        | Command::Recover { .. }
        | Command::HoldLevel { .. }
        | Command::CompareStates
        | Command::KeepKeys(_) => true,
        // The second time it is refused.
        Command::Bootstrap { .. } | Command::SetLevel { .. } | Command::Later(_) => false,
    }
}

impl ProposeError {
    pub(super) fn to_status(&self) -> Status {
        let reason = match self {
            Self::NoQuorum { lost_for, .. } => return Reason::no_quorum(self.to_string(), *lost_for),
            Self::OutcomeUnknown { .. } => Reason::OutcomeUnknown,
            Self::TooLarge { .. } => Reason::TooLarge,
            Self::TooManyHops | Self::Refused { .. } | Self::NotFinalized { .. } => Reason::NotLeader,
            Self::Broken { .. } | Self::Diverged { .. } => Reason::Broken,
            Self::OutOfSpace { .. } => Reason::OutOfSpace,
        };
        reason.status(self.to_string())
    }
}
