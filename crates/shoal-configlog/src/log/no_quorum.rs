//! That there is no quorum, and for how long: told in one way, whether this node leads and hears no majority, or hears nobody
//! who leads, or has been told so by who does.

use std::time::Duration;

use shoal_model::NodeId;

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
    /// What this node knows of it by itself.
    pub(super) fn loss(&self) -> Loss {
        let status = self.status();
        self.loss_of(status.leader, status.staleness)
    }

    /// The same where `leader`, the last one that is known of, has had no majority for so long.
    pub(super) fn loss_of(&self, leader: Option<NodeId>, lost_for: Duration) -> Loss {
        let voters = self.metrics().membership_config.membership().voter_ids().count();
        let seconds = lost_for.as_secs();
        let last = leader.map(|leader| format!("; the last one was {}", self.called(leader)));
        let last = last.unwrap_or_default();
        Loss {
            reason: format!("for {seconds} s no leader has had a majority of the {voters} voters{last}"),
            lost_for,
        }
    }
}
