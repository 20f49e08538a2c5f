//! Why a request between nodes failed, in a form that survives gRPC: a word in the metadata beside the status.

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

const KEY: &str = "shoal-reason";

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
}
