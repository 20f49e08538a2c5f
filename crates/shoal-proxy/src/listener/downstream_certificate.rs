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

use crate::metrics::{ClientOutcome, ClientRefusal};

/// RFC 9440 §2.2.
const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");
/// RFC 9440 §2.3.
const CLIENT_CERT_CHAIN: HeaderName = HeaderName::from_static("client-cert-chain");

/// The certificate that a downstream has shown, and that was verified.
#[derive(Debug)]
pub(crate) struct DownstreamCertificate {
    pub(crate) certificate: ClientCertificate,
    /// As endpoints are told; `None` = they are not.
    field: Option<HeaderValue>,
}

/// Whether a handshake failed for the certificate of the downstream, and why it was refused if there was one.
pub(super) fn refused(error: &io::Error) -> Option<(ClientOutcome, Option<ClientRefusal>)> {
    match error.get_ref()?.downcast_ref()? {
        rustls::Error::NoCertificatesPresented => Some((ClientOutcome::Missing, None)),
        rustls::Error::InvalidCertificate(error) => {
            Some((ClientOutcome::Refused, Some(ClientRefusal::of(error))))
        }
        _ => None,
    }
}

/// Who is at the other end of `session`, whether it is new or was resumed. Errs when the certificate is not good any more:
/// resuming verifies nothing.
pub(super) fn identify(
    session: &ServerConnection,
    auth: &ClientAuthView,
) -> io::Result<Option<Box<DownstreamCertificate>>> {
    let expired = || io::Error::other(rustls::Error::InvalidCertificate(CertificateError::Expired));
    let Some(leaf) = session.peer_certificates().and_then(<[_]>::first) else { return Ok(None) };
    let certificate = ClientCertificate::read(leaf).ok_or_else(expired)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if i64::try_from(now).is_ok_and(|now| certificate.not_after < now) {
        return Err(expired());
    }
    let field = || HeaderValue::try_from(format!(":{}:", STANDARD.encode(leaf))).ok();
    let field = if auth.forward { field() } else { None };
    Ok(Some(Box::new(DownstreamCertificate { certificate, field })))
}

/// Takes off what the downstream says of its certificate.
pub(super) fn forget(headers: &mut HeaderMap) {
    headers.remove(CLIENT_CERT);
    headers.remove(CLIENT_CERT_CHAIN);
}

impl DownstreamCertificate {
    /// Tells the endpoint, where that is wanted.
    pub(crate) fn introduce(&self, headers: &mut HeaderMap) {
        if let Some(field) = &self.field {
            headers.insert(CLIENT_CERT, field.clone());
        }
    }
}
