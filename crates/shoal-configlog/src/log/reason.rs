//! Why a request between nodes failed, in a form that survives gRPC: a word in the metadata beside the status.

use std::time::Duration;

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

const KEY: &str = "shoal-reason";
/// Beside [`Reason::NoQuorum`]: for so many milliseconds it has been so. Older versions leave it out.
const LOST_FOR: &str = "shoal-lost-for-ms";

/// What the node that was asked means by its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nothing was written, because no leader with a majority was there.
    NoQuorum,
    /// It may have been written.
    OutcomeUnknown,
    /// It was refused for its size.
    TooLarge,
    /// It was passed on too often, or to a node that does not lead.
    NotLeader,
    /// The log of the node that was asked has failed.
    Broken,
    /// Nothing was written: the leader has no room on its disk.
    OutOfSpace,
}

impl Reason {
    const ALL: [Self; 6] = [
        Self::NoQuorum,
        Self::OutcomeUnknown,
        Self::TooLarge,
        Self::NotLeader,
        Self::Broken,
        Self::OutOfSpace,
    ];

    const fn word(self) -> &'static str {
        match self {
            Self::NoQuorum => "no-quorum",
            Self::OutcomeUnknown => "outcome-unknown",
            Self::TooLarge => "too-large",
            Self::NotLeader => "not-leader",
            Self::Broken => "broken",
            Self::OutOfSpace => "out-of-space",
        }
    }

    const fn code(self) -> Code {
        match self {
            Self::NoQuorum | Self::NotLeader => Code::Unavailable,
            Self::OutcomeUnknown => Code::DeadlineExceeded,
            Self::TooLarge => Code::InvalidArgument,
            Self::Broken => Code::Internal,
            Self::OutOfSpace => Code::ResourceExhausted,
        }
    }

    /// A status that says this.
    pub fn status(self, message: impl Into<String>) -> Status {
        let mut status = Status::new(self.code(), message);
        status.metadata_mut().insert(KEY, MetadataValue::from_static(self.word()));
        status
    }

    /// [`Reason::NoQuorum`], and for how long it has been so; zero = nobody knows.
    pub fn no_quorum(message: impl Into<String>, lost_for: Duration) -> Status {
        let mut status = Self::NoQuorum.status(message);
        let ms = u64::try_from(lost_for.as_millis()).unwrap_or(u64::MAX);
        status.metadata_mut().insert(LOST_FOR, MetadataValue::from(ms));
        status
    }

    /// For how long there has been no quorum, if a status says that there is none, and whoever says it knows.
    pub fn lost_for(status: &Status) -> Option<Duration> {
        if Self::of(status) != Some(Self::NoQuorum) {
            return None;
        }
        let ms: u64 = status.metadata().get(LOST_FOR)?.to_str().ok()?.parse().ok()?;
        (ms > 0).then(|| Duration::from_millis(ms))
    }

    /// What a status says, if a log said it.
    pub fn of(status: &Status) -> Option<Self> {
        let word = status.metadata().get(KEY)?.to_str().ok()?;
        Self::ALL.into_iter().find(|reason| reason.word() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_survive_a_status() {
        for reason in Reason::ALL {
            assert_eq!(Reason::of(&reason.status("why")), Some(reason));
        }
        assert_eq!(Reason::of(&Status::unavailable("connection refused")), None);
    }

    #[test]
    fn for_how_long_it_was_lost_survives_too() {
        let seconds = Duration::from_secs;
        let lost = Reason::no_quorum("why", seconds(9));
        assert_eq!((Reason::of(&lost), Reason::lost_for(&lost)), (Some(Reason::NoQuorum), Some(seconds(9))));
        for unknown in [Reason::no_quorum("why", Duration::ZERO), Reason::NoQuorum.status("why")] {
            assert_eq!(Reason::lost_for(&unknown), None);
        }
        let mut other = Reason::OutcomeUnknown.status("why");
        other.metadata_mut().insert(LOST_FOR, MetadataValue::from(9_u64));
        assert_eq!(Reason::lost_for(&other), None, "it may have been written");
    }
}
