//! The exit codes of the command line, which a node sends with each refusal.

use std::process::ExitCode;

/// Metadata of a refusal in which a node says which code the verb ends with, as ASCII digits.
pub const EXIT_METADATA: &str = "shoal-exit";
/// Metadata of a refusal in which a node says what it is called.
pub const NODE_METADATA: &str = "shoal-node";
/// Metadata of a refusal in which a node says which revision it is about, as ASCII digits.
pub const REVISION_METADATA: &str = "shoal-revision";

/// The exit codes of every verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done; for `plan` and `diff`: no difference.
    Done = 0,
    /// Wrong usage, a bad file, a refused site: nothing was asked of the cluster, or it would not have helped.
    Local = 1,
    /// The node could not be reached, or failed.
    Remote = 2,
    /// `plan` or `diff` found differences.
    Differences = 3,
    /// The active revision is not the one that was expected.
    Conflict = 4,
    /// In the log, but not every live node has acknowledged it.
    Unacknowledged = 5,
    /// The cluster has no quorum, so nothing can be written.
    NoQuorum = 6,
}

impl Exit {
    /// The exit of a code that a node sent.
    pub fn from_code(code: u8) -> Option<Self> {
        [
            Self::Done,
            Self::Local,
            Self::Remote,
            Self::Differences,
            Self::Conflict,
            Self::Unacknowledged,
            Self::NoQuorum,
        ]
        .into_iter()
        .find(|exit| *exit as u8 == code)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
