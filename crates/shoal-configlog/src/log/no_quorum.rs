//! That there is no quorum, and for how long: told in one way, whether this node leads and hears no majority, or hears nobody
//! who leads, or has been told so by who does.

use std::time::Duration;

use shoal_model::NodeId;
use tokio::time::Instant;

use super::{ConfigLog, ProposeError};

/// Nothing was written, or confirmed.
#[derive(Clone, Debug)]
pub(super) struct Loss {
    pub(super) reason: String,
    /// For how long there has been no quorum; zero = that is not known.
    pub(super) lost_for: Duration,
}

impl Loss {
    /// A try was in vain, which says nothing of the next one.
    pub(super) fn of_one_try(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), lost_for: Duration::ZERO }
    }
}

impl From<Loss> for ProposeError {
    fn from(Loss { reason, lost_for }: Loss) -> Self {
        Self::NoQuorum { reason, lost_for }
    }
}

impl ConfigLog {
    /// Whether what has been in vain since then is tried again, there having been no quorum for `lost_for`.
    pub(super) fn waits_on(&self, since: Instant, lost_for: Duration) -> bool {
        self.shared.timings.waits_on(since.elapsed(), lost_for, self.may_elect())
    }

    /// A majority has voted lately, this node included, or was asked to: somebody may lead any moment.
    fn may_elect(&self) -> bool {
        let (own, silence) = (self.node_id(), self.shared.timings.silence());
        let voters: Vec<_> = self.status().voters;
        let votes = |voter: &&NodeId| **voter == own || self.shared.heard.votes_since(**voter, silence);
        voters.iter().filter(votes).count() * 2 > voters.len()
    }

    /// What this node knows of it by itself.
    pub(super) fn loss(&self) -> Loss {
        let status = self.status();
        let last = status.leader.map(|leader| format!("; the last one was {}", self.called(leader)));
        let (voters, seconds) = (self.voters(), status.staleness.as_secs());
        let last = last.unwrap_or_default();
        let reason = format!(
            "this node has known of no leader that a majority of the {voters} follows for {seconds} s{last}"
        );
        Loss { reason, lost_for: status.staleness }
    }

    /// What `leader` has said: that no majority has followed it for so long.
    pub(super) fn loss_of(&self, leader: NodeId, lost_for: Duration) -> Loss {
        let (leader, voters, seconds) = (self.called(leader), self.voters(), lost_for.as_secs());
        let reason =
            format!("{leader} leads, and says that no majority of the {voters} follows it for {seconds} s");
        Loss { reason, lost_for }
    }

    fn voters(&self) -> String {
        match self.status().voters.len() {
            0 => "voters".to_owned(),
            count => format!("{count} voters"),
        }
    }
}
