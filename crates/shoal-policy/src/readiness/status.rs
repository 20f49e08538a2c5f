//! What a node is, in one word, and what a look at it has found.

use std::time::Duration;

use super::steady::Finding;

/// A node that hears nobody is ready all the same after this time: it serves, and it may be the only one left. Long
/// enough to hear what the others say of endpoints before the first request comes.
const LONELY_AFTER: Duration = Duration::from_secs(2);

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Every listener of the active revision is bound.
    pub serves: bool,
    /// The first revision is on its way into force: nothing of it is served yet, and nothing stands in its way.
    pub activates_first: bool,
    /// It is on its way out of service, or out of it.
    pub drains: bool,
    /// Members heard now, this node included, and members known.
    pub members: (usize, usize),
    /// Since the process started.
    pub uptime: Duration,
    /// For how long the site may have changed without this node knowing.
    pub staleness: Duration,
    /// Every certificate of the site is out of date by this node's clock.
    pub expired: bool,
}

/// What a node is, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Its process runs, and it does not serve, or not well.
    Alive,
    /// Nothing is amiss.
    Ready,
    /// It is on its way out of service, or out of it.
    Draining,
    /// It serves, and may not know of changes.
    Stale,
    /// It serves, and hears none of the others.
    Isolated,
}

impl Status {
    /// As it is told.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Stale => "stale",
            Self::Isolated => "isolated",
        }
    }
}

impl Look {
    /// It has heard others, or has had the time to.
    pub fn has_joined(&self) -> bool {
        !self.hears_nobody() || self.uptime > LONELY_AFTER
    }

    /// There are others, and none of them is heard.
    pub const fn hears_nobody(&self) -> bool {
        self.members.0 <= 1 && self.members.1 > 1
    }

    /// What it is.
    pub fn status(&self) -> Status {
        match () {
            () if self.drains => Status::Draining,
            () if !self.serves || !self.has_joined() || self.expired => Status::Alive,
            () if self.hears_nobody() => Status::Isolated,
            () if !self.staleness.is_zero() => Status::Stale,
            () => Status::Ready,
        }
    }

    /// What it has found. A node that is stale or isolated serves: the others may be gone, and the site is as good as it was.
    pub fn finding(&self) -> Finding {
        match () {
            () if self.drains => Finding::Out,
            // A look may fall into the moment between a decision and its coming into force.
            () if !self.serves && self.activates_first => Finding::Bad,
            () if !self.serves => Finding::Out,
            () if !self.has_joined() || self.expired => Finding::Bad,
            () => Finding::Good,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_its_word() {
        let seconds = Duration::from_secs;
        let good = Look {
            serves: true,
            activates_first: false,
            drains: false,
            members: (3, 3),
            uptime: seconds(1),
            staleness: Duration::ZERO,
            expired: false,
        };
        for (look, status, finding) in [
            (good, Status::Ready, Finding::Good),
            (Look { members: (1, 1), ..good }, Status::Ready, Finding::Good),
            (Look { members: (2, 3), ..good }, Status::Ready, Finding::Good),
            (Look { drains: true, ..good }, Status::Draining, Finding::Out),
            (Look { drains: true, serves: false, ..good }, Status::Draining, Finding::Out),
            (Look { serves: false, ..good }, Status::Alive, Finding::Out),
            (Look { serves: false, activates_first: true, ..good }, Status::Alive, Finding::Bad),
            (Look { drains: true, activates_first: true, ..good }, Status::Draining, Finding::Out),
            (Look { members: (1, 3), ..good }, Status::Alive, Finding::Bad),
            (Look { members: (1, 3), uptime: seconds(4), ..good }, Status::Isolated, Finding::Good),
            (
                Look { members: (1, 3), uptime: seconds(4), staleness: seconds(1), ..good },
                Status::Isolated,
                Finding::Good,
            ),
            (Look { staleness: seconds(1), ..good }, Status::Stale, Finding::Good),
            (Look { expired: true, ..good }, Status::Alive, Finding::Bad),
        ] {
            assert_eq!((look.status(), look.finding()), (status, finding), "{look:?}");
        }
    }
}
