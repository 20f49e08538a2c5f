//! Why a connection to an endpoint did not come about.

use std::io;

use rustls::CertificateError;
use shoal_policy::health::Reason;

/// Longest account of an error, in characters: it may quote what the endpoint has sent.
const MAX_TOLD: usize = 300;

/// A connection did not come about.
#[derive(Debug)]
pub(crate) struct ConnectError {
    pub(crate) reason: Reason,
    error: io::Error,
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        Self { reason: reason_of(error.kind()), error }
    }
}

impl ConnectError {
    /// Its name leads nowhere.
    pub(crate) fn unnamed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { reason: Reason::NameNotResolved, error: io::Error::other(error) }
    }

    /// It was reached, and then the TLS handshake failed.
    pub(super) fn in_handshake(error: io::Error) -> Self {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref());
        Self { reason: tls.map_or(Reason::TlsHandshake, reason_of_tls), error }
    }

    /// One line without control characters.
    pub(crate) fn told(&self) -> String {
        let text = self.error.to_string();
        let told: String = text.chars().take(MAX_TOLD).flat_map(char::escape_debug).collect();
        if text.chars().nth(MAX_TOLD).is_some() { told + "…" } else { told }
    }
}

fn reason_of(kind: io::ErrorKind) -> Reason {
    match kind {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Reason::ConnectRefused,
        io::ErrorKind::TimedOut => Reason::ConnectTimeout,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Reason::Unreachable,
        io::ErrorKind::ConnectionReset => Reason::Reset,
        _ => Reason::Other,
    }
}

fn reason_of_tls(error: &rustls::Error) -> Reason {
    use CertificateError as C;
    match error {
        rustls::Error::InvalidCertificate(error) => match error {
            C::NotValidForName | C::NotValidForNameContext { .. } => Reason::TlsWrongName,
            // So says our own verifier of a key that is not pinned.
            C::ApplicationVerificationFailure => Reason::TlsWrongPin,
            C::Expired | C::ExpiredContext { .. } | C::NotValidYet | C::NotValidYetContext { .. } => {
                Reason::TlsExpired
            }
            _ => Reason::TlsNotTrusted,
        },
        rustls::Error::NoApplicationProtocol => Reason::TlsNoHttp2,
        rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol) => Reason::TlsNoHttp2,
        _ => Reason::TlsHandshake,
    }
}

#[cfg(test)]
mod tests {
    use rustls::{AlertDescription, Error};

    use super::*;

    #[test]
    fn what_went_wrong_in_a_handshake_has_a_name() {
        let check = |error: Error, expected: &str| {
            assert_eq!(ConnectError::in_handshake(io::Error::other(error)).reason.name(), expected);
        };
        check(CertificateError::UnknownIssuer.into(), "tls: certificate not trusted");
        check(CertificateError::BadSignature.into(), "tls: certificate not trusted");
        check(CertificateError::NotValidForName.into(), "tls: wrong name");
        check(CertificateError::ApplicationVerificationFailure.into(), "tls: wrong pin");
        check(CertificateError::Expired.into(), "tls: certificate out of date");
        check(CertificateError::NotValidYet.into(), "tls: certificate out of date");
        check(Error::AlertReceived(AlertDescription::HandshakeFailure), "tls: handshake failed");
        check(Error::AlertReceived(AlertDescription::NoApplicationProtocol), "tls: http/2 not offered");
        let eof = ConnectError::in_handshake(io::ErrorKind::UnexpectedEof.into());
        assert_eq!(eof.reason.name(), "tls: handshake failed");
    }

    #[test]
    fn what_an_endpoint_sent_cannot_break_the_line() {
        let told = |text: &str| ConnectError::from(io::Error::other(text.to_owned())).told();
        assert_eq!(told("a\nb\u{1b}[1m"), "a\\nb\\u{1b}[1m");
        assert_eq!(told(&"x".repeat(MAX_TOLD)), "x".repeat(MAX_TOLD));
        assert_eq!(told(&"x".repeat(9000)), "x".repeat(MAX_TOLD) + "…");
    }
}
