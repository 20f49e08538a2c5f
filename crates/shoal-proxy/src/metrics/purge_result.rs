//! Requests with the method `PURGE`.

/// What came of a `PURGE` request on a route that takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PurgeResult {
    Done,
    Failed,
    Forbidden,
    Malformed,
}

impl PurgeResult {
    pub(crate) const ALL: [Self; 4] = [Self::Done, Self::Failed, Self::Forbidden, Self::Malformed];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Forbidden => "forbidden",
            Self::Malformed => "malformed",
        }
    }
}
