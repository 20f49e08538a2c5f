//! Who a downstream has proved to be, once per connection.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};
use rustls::{CertificateError, ServerConnection};
use shoal_cluster::ClientCertificate;
use shoal_model::view::ClientAuthView;

/// RFC 9440 §2.2.
const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");
/// RFC 9440 §2.3.
const CLIENT_CERT_CHAIN: HeaderName = HeaderName::from_static("client-cert-chain");

/// The certificate that a downstream has shown, and that was verified.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) certificate: ClientCertificate,
    /// As endpoints are told; `None` = they are not.
    field: Option<HeaderValue>,
}

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

    /// Whether a handshake failed for the certificate of the downstream, and why.
    pub(super) fn of_failure(error: &io::Error) -> Option<Self> {
        match error.get_ref()?.downcast_ref()? {
            rustls::Error::NoCertificatesPresented => Some(Self::Missing),
            rustls::Error::InvalidCertificate(_) => Some(Self::Refused),
            _ => None,
        }
    }
}

/// Who is at the other end of `session`, whether it is new or was resumed. Errs when the certificate is not good any more:
/// resuming verifies nothing.
pub(super) fn identify(session: &ServerConnection, auth: &ClientAuthView) -> io::Result<Option<Box<Client>>> {
    let expired = || io::Error::other(rustls::Error::InvalidCertificate(CertificateError::Expired));
    let Some(leaf) = session.peer_certificates().and_then(<[_]>::first) else { return Ok(None) };
    let certificate = ClientCertificate::read(leaf).ok_or_else(expired)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if i64::try_from(now).is_ok_and(|now| certificate.not_after < now) {
        return Err(expired());
    }
    let field = || HeaderValue::try_from(format!(":{}:", STANDARD.encode(leaf))).ok();
    let field = if auth.forward { field() } else { None };
    Ok(Some(Box::new(Client { certificate, field })))
}

/// Takes off what the downstream says of its certificate.
pub(super) fn forget(headers: &mut HeaderMap) {
    headers.remove(CLIENT_CERT);
    headers.remove(CLIENT_CERT_CHAIN);
}

impl Client {
    /// Tells the endpoint, where that is wanted.
    pub(crate) fn introduce(&self, headers: &mut HeaderMap) {
        if let Some(field) = &self.field {
            headers.insert(CLIENT_CERT, field.clone());
        }
    }
}
