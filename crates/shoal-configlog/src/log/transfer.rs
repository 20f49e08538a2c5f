//! Handing leadership over because somebody asks for it, from any node: whoever leads decides who may take it.

use std::time::Duration;

use shoal_model::NodeId;
use shoal_proto::raft as proto;
use tonic::{Code, Status};

use super::no_quorum::Loss;
use super::reason::Reason;
use super::status::Leadership;
use super::{ConfigLog, MembershipError, ProposeError, Replication};
use crate::types::TypeConfig;

/// Entries that a voter may lack and still take over at once: it is waited for until it has them, and nothing is written
/// meanwhile.
const MAX_LAG: u64 = 250;

/// Why a node is not handed the lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Nothing is to be done.
    #[error("it leads already")]
    Leads,
    /// It only listens, or is not in the membership yet.
    #[error("it does not vote, and only a voter can lead")]
    Learner,
    /// The autopilot would take the lead from it.
    #[error("it is cordoned, drained or not to vote, and would hand the lead on at once")]
    OutOfService,
    /// Of a node that gossip takes for dead.
    #[error("it is not heard")]
    Unheard,
    /// Its log is stuck, or it has just died.
    #[error("its log does not answer the leader")]
    Silent,
    /// Nobody could write until it had these entries.
    #[error("it lacks {0} entries of the leader's log; try again once it has them")]
    Lagging(u64),
    /// The leader is the only voter.
    #[error("there is no other voter that could lead")]
    Alone,
    /// No voter answers, has the log and would keep the lead.
    #[error("no other voter that would keep the lead answers the leader and has its log")]
    Nobody,
}

/// Leadership was not handed over, or it is not known whether it was.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TransferError {
    /// Nothing has changed.
    #[error("{0}")]
    Unfit(String),
    /// The leader could not be asked, or did not answer.
    #[error(transparent)]
    Log(#[from] ProposeError),
}

impl From<Unfit> for TransferError {
    fn from(unfit: Unfit) -> Self {
        Self::Unfit(unfit.to_string())
    }
}

impl From<Loss> for TransferError {
    fn from(loss: Loss) -> Self {
        Self::Log(loss.into())
    }
}

/// Who leads, and since which term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Led {
    /// The leader.
    pub leader: NodeId,
    /// Its term.
    pub term: u64,
}

impl Replication {
    /// Of these voters the one that is closest behind; of equals the first. Who was taken out of service leads if nobody else
    /// can.
    pub(super) fn closest<'a>(
        &self,
        voters: impl DoubleEndedIterator<Item = &'a NodeId>,
        in_service: impl Fn(NodeId) -> bool,
    ) -> Option<NodeId> {
        // `max_by_key` takes the last of equals.
        voters.rev().max_by_key(|id| (in_service(**id), self.matched.get(*id))).copied()
    }

    /// Who takes over from `own`: the one that is wanted, or the closest that can.
    fn heir(
        &self,
        own: NodeId,
        wanted: Option<NodeId>,
        silence: Duration,
        in_service: impl Fn(NodeId) -> bool,
    ) -> Result<NodeId, Unfit> {
        let Some(wanted) = wanted else {
            if self.voters.iter().all(|id| *id == own) {
                return Err(Unfit::Alone);
            }
            // Who is out of service would hand the lead back to one that is not.
            let keeps_it = |id: NodeId| in_service(id) || !in_service(own);
            let fit = self.voters.iter().filter(|id| **id != own && self.check(**id, silence).is_ok());
            return self.closest(fit.filter(|id| keeps_it(**id)), &in_service).ok_or(Unfit::Nobody);
        };
        if wanted == own {
            return Err(Unfit::Leads);
        }
        if !self.voters.contains(&wanted) {
            return Err(Unfit::Learner);
        }
        if !in_service(wanted) {
            return Err(Unfit::OutOfService);
        }
        self.check(wanted, silence).map(|()| wanted)
    }

    /// Whether a voter answers and has what it needs in order to lead.
    fn check(&self, voter: NodeId, silence: Duration) -> Result<(), Unfit> {
        let answers = self.unanswered.get(&voter).is_some_and(|ago| *ago <= silence);
        let Some(matched) = self.matched.get(&voter).filter(|_| answers) else {
            return Err(Unfit::Silent);
        };
        match self.last.saturating_sub(*matched) {
            ..=MAX_LAG => Ok(()),
            lag => Err(Unfit::Lagging(lag)),
        }
    }
}

impl ConfigLog {
    /// Has `heir` lead, or the voter that the leader chooses, whichever node is asked; returns once this node knows who does.
    pub async fn request_transfer(&self, heir: Option<NodeId>) -> Result<Led, TransferError> {
        let term = self.metrics().current_term;
        match self.leadership() {
            Leadership::Here => self.transfer_here(heir).await?,
            Leadership::There(leader) => self.ask_for_transfer(leader, heir).await?,
            Leadership::Deserted | Leadership::Nobody => return Err(self.loss().into()),
            Leadership::Stopped => return Err(self.stopped().into()),
        }
        let raft = self.raft().ok_or_else(|| self.stopped())?;
        let patience = self.shared.timings.patience();
        let led_anew = move |metrics: &openraft::RaftMetrics<TypeConfig>| {
            metrics.current_term > term && metrics.current_leader.is_some()
        };
        let changes = raft.wait(Some(patience));
        let found = changes.metrics(led_anew, "another term has a leader").await.ok();
        let led = found.and_then(|metrics| Some((metrics.current_leader?, metrics.current_term)));
        let unheard = || unknown(format!("this node has not heard of another leader within {patience:?}"));
        led.map(|(leader, term)| Led { leader: NodeId(leader), term }).ok_or_else(unheard)
    }

    /// Answers `PeerService.HandOver`; only a leader can, and it is not passed on.
    pub async fn answer_hand_over(
        &self,
        request: &proto::HandOverRequest,
    ) -> Result<proto::HandOverResponse, Status> {
        let heir = (request.node_id != 0).then_some(NodeId(request.node_id));
        match Box::pin(self.transfer_here(heir)).await {
            Ok(()) => Ok(proto::HandOverResponse {}),
            Err(TransferError::Unfit(why)) => Err(Status::failed_precondition(why)),
            Err(TransferError::Log(error)) => Err(error.to_status()),
        }
    }

    async fn transfer_here(&self, heir: Option<NodeId>) -> Result<(), TransferError> {
        let does_not_lead = || Loss::of_one_try("this node does not lead, or no majority follows it");
        let replication = self.replication().ok_or_else(does_not_lead)?;
        let (own, silence) = (self.node_id(), self.shared.timings.silence());
        let heir = replication.heir(own, heir, silence, |id| self.is_in_service(id))?;
        match Box::pin(self.transfer_leader(Some(heir))).await {
            Ok(()) => Ok(()),
            Err(MembershipError::NotLeader) => Err(does_not_lead().into()),
            Err(MembershipError::NoHeir) => Err(Unfit::Alone.into()),
            Err(MembershipError::Timeout(patience)) => Err(unknown(format!(
                "{} was to lead, and nobody has taken over within {patience:?}",
                self.called(heir)
            ))),
            Err(MembershipError::Refused(reason)) => Err(ProposeError::Broken { reason }.into()),
        }
    }

    async fn ask_for_transfer(&self, leader: NodeId, heir: Option<NodeId>) -> Result<(), TransferError> {
        let mut client = self.peer(leader).map_err(|error| Loss::of_one_try(error.to_string()))?;
        let request = proto::HandOverRequest { node_id: heir.map_or(0, |id| id.0) };
        // The leader waits by itself for somebody to take over.
        let patience = self.shared.timings.patience() + self.shared.timings.silence();
        let called = self.called(leader);
        match tokio::time::timeout(patience, client.hand_over(request)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) => Err(judge_refusal(called, &status)),
            Err(_) => Err(unknown(format!("{called} did not answer in time"))),
        }
    }

    fn stopped(&self) -> ProposeError {
        ProposeError::Broken { reason: self.status().broken }
    }
}

fn unknown(reason: String) -> TransferError {
    ProposeError::OutcomeUnknown { reason }.into()
}

/// What the leader's refusal means.
fn judge_refusal(leader: String, status: &Status) -> TransferError {
    let text = format!("{leader} answered {:?}: {:?}", status.code(), status.message());
    match Reason::of(status) {
        Some(Reason::NoQuorum | Reason::NotLeader | Reason::Broken) => Loss::of_one_try(text).into(),
        Some(Reason::OutcomeUnknown | Reason::TooLarge | Reason::OutOfSpace) => unknown(text),
        None => match status.code() {
            Code::FailedPrecondition => TransferError::Unfit(status.message().to_owned()),
            Code::Unimplemented => {
                let reason = "its version cannot be asked for it; upgrade it first".to_owned();
                ProposeError::Refused { leader, reason }.into()
            }
            Code::PermissionDenied | Code::Unauthenticated => {
                ProposeError::Refused { leader, reason: text }.into()
            }
            _ => unknown(text),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: Duration = Duration::from_secs(1);

    /// Words `id`, `~` has not answered for 2 s, `?` never did, `<` lacks 251 entries, `=` 250, `-` one, `c` cordoned or drained.
    /// The first one leads.
    fn check(voters: &str, wanted: Option<u64>, expected: Result<u64, Unfit>) {
        let mut known = Replication { last: 1_000, ..Replication::default() };
        let mut cordoned = Vec::new();
        let mut own = None;
        for word in voters.split_whitespace() {
            let marks = word.trim_start_matches(|c: char| c.is_ascii_digit());
            let id = NodeId(word.strip_suffix(marks).unwrap().parse().unwrap());
            own.get_or_insert(id);
            known.voters.insert(id);
            let lag = match marks {
                _ if marks.contains('<') => MAX_LAG + 1,
                _ if marks.contains('=') => MAX_LAG,
                _ if marks.contains('-') => 1,
                _ => 0,
            };
            if !marks.contains('?') {
                let ms = if marks.contains('~') { 2_000 } else { 100 };
                known.matched.insert(id, known.last - lag);
                known.unanswered.insert(id, Duration::from_millis(ms));
            }
            if marks.contains('c') {
                cordoned.push(id);
            }
        }
        let heir = known.heir(own.unwrap(), wanted.map(NodeId), SILENCE, |id| !cordoned.contains(&id));
        assert_eq!(heir, expected.map(NodeId), "{voters} {wanted:?}");
    }

    #[test]
    fn whoever_is_named_leads_if_it_can() {
        check("1 2 3", Some(3), Ok(3));
        check("3 1 2-", Some(2), Ok(2));
        check("1 2 3", Some(1), Err(Unfit::Leads));
        check("1 2 3", Some(4), Err(Unfit::Learner));
        check("1", Some(2), Err(Unfit::Learner));
        check("1 2c 3", Some(2), Err(Unfit::OutOfService));
        check("1 2~ 3", Some(2), Err(Unfit::Silent));
        check("1 2? 3", Some(2), Err(Unfit::Silent)); // a new leader does not know yet
        check("1 2= 3", Some(2), Ok(2));
        check("1 2< 3", Some(2), Err(Unfit::Lagging(251)));
    }

    #[test]
    fn of_those_that_can_the_closest_leads() {
        check("1 2 3", None, Ok(2));
        check("2 1 3", None, Ok(1));
        check("1 2- 3", None, Ok(3));
        check("1 2c 3-", None, Ok(3));
        check("1 2c 3c", None, Err(Unfit::Nobody));
        check("1c 2c 3c", None, Ok(2));
        check("1 2~ 3=", None, Ok(3));
        check("1 2? 3~ 4<", None, Err(Unfit::Nobody));
        check("1", None, Err(Unfit::Alone));
    }

    #[test]
    fn what_the_leader_says_is_told() {
        let check = |status: Status, expected: &str| {
            assert!(judge_refusal("n1".to_owned(), &status).to_string().contains(expected), "{status:?}");
        };
        check(Status::failed_precondition("it leads already"), "it leads already");
        check(Reason::NotLeader.status("not me"), "no quorum: n1 answered");
        check(Reason::OutcomeUnknown.status("late"), "the outcome is unknown: n1 answered");
        check(Status::unimplemented(""), "n1 refused the proposal: its version cannot be asked");
        check(Status::unavailable("gone"), "the outcome is unknown: n1 answered");
    }
}
