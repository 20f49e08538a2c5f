//! Requests that are refused because there is too much to do.

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShedCause {
    /// The worker's queue is too long.
    Queue = 0,
    /// There is no memory left.
    Memory = 1,
}

impl ShedCause {
    /// One of each, in the order of their numbers.
    pub(crate) const ALL: [Self; 2] = [Self::Queue, Self::Memory];

    /// As metrics name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Memory => "memory",
        }
    }
}
