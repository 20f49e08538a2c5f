//! Why the certificate of a downstream was refused.

use rustls::CertificateError;

/// Why the certificate of a downstream was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientRefusal {
    /// No authority that is believed has issued it, or not for this.
    Untrusted,
    /// It has expired, or is not valid yet.
    OutOfDate,
    /// It was revoked, or nobody can tell whether it was.
    Revoked,
    /// It is X.509, but not of version 3.
    Version,
    /// It cannot be read.
    Malformed,
    Other,
}

impl ClientRefusal {
    pub(crate) const ALL: [Self; 6] =
        [Self::Untrusted, Self::OutOfDate, Self::Revoked, Self::Version, Self::Malformed, Self::Other];

    pub(crate) fn of(error: &CertificateError) -> Self {
        use CertificateError as E;
        match error {
            E::UnknownIssuer | E::BadSignature | E::InvalidPurpose | E::InvalidPurposeContext { .. } => {
                Self::Untrusted
            }
            E::Expired | E::ExpiredContext { .. } | E::NotValidYet | E::NotValidYetContext { .. } => {
                Self::OutOfDate
            }
            E::Revoked
            | E::UnknownRevocationStatus
            | E::ExpiredRevocationList
            | E::ExpiredRevocationListContext { .. } => Self::Revoked,
            E::BadEncoding | E::UnhandledCriticalExtension => Self::Malformed,
            // The verifier tells it by name only.
            E::Other(other) if other.to_string() == "UnsupportedCertVersion" => Self::Version,
            _ => Self::Other,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Untrusted => "untrusted",
            Self::OutOfDate => "out_of_date",
            Self::Revoked => "revoked",
            Self::Version => "version",
            Self::Malformed => "malformed",
            Self::Other => "other",
        }
    }
}
