//! Downstreams that are asked for a certificate.

/// What came of asking a downstream for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientOutcome {
    Verified,
    /// None was shown, and none is needed.
    Absent,
    /// None was shown: the handshake has failed.
    Missing,
    /// It is not believed, or expired while its session was not used.
    Refused,
}

impl ClientOutcome {
    pub(crate) const ALL: [Self; 4] = [Self::Verified, Self::Absent, Self::Missing, Self::Refused];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Absent => "absent",
            Self::Missing => "missing",
            Self::Refused => "refused",
        }
    }
}
