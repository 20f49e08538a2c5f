//! Which endpoints are believed to be who they should be.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use shoal_cluster::identity::{Authorities, public_key_sha256, validity};
use shoal_model::site::Pin;
use shoal_model::view::UpstreamTlsView;

use super::system_roots::SystemRoots;

/// Verifies the certificates of endpoints as an upstream's `tls` says.
pub(super) struct Verifier {
    belief: Belief,
    /// Keys one of which an endpoint must have; empty = any.
    pins: Vec<Pin>,
    provider: Arc<CryptoProvider>,
}

enum Belief {
    /// `verify: false`: any certificate will do, if only its key is there.
    Anybody,
    /// Whom the system's authorities vouch for, as they are when it matters.
    System,
    /// Whom those of these certificates vouch for that are authorities, and these certificates themselves.
    Written { authorities: Option<Arc<WebPkiServerVerifier>>, known: Vec<CertificateDer<'static>> },
}

impl Verifier {
    /// The error is one line.
    pub(super) fn build(view: &UpstreamTlsView) -> Result<Self, String> {
        let belief = match (view.verify, &view.ca_pem) {
            (false, _) => Belief::Anybody,
            (true, None) => {
                // Read now, and not while a worker waits.
                SystemRoots::current();
                Belief::System
            }
            (true, Some(pem)) => Belief::written(pem)?,
        };
        Ok(Self { belief, pins: view.pins.clone(), provider: Arc::new(default_provider()) })
    }
}

impl Belief {
    fn written(pem: &str) -> Result<Self, String> {
        let Authorities { roots, certificates: known } = Authorities::read(pem)?;
        let build = |roots| {
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider())).build()
        };
        let roots = (!roots.is_empty()).then_some(roots);
        let authorities = roots.map(build).transpose().map_err(|error| error.to_string())?;
        Ok(Self::Written { authorities, known })
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let by = |authorities: &Arc<WebPkiServerVerifier>| {
            authorities.verify_server_cert(leaf, intermediates, name, ocsp, now)
        };
        let unknown = || Err(CertificateError::UnknownIssuer.into());
        match self {
            Self::Anybody => Ok(ServerCertVerified::assertion()),
            Self::System => SystemRoots::current().verifier().map_or_else(unknown, by),
            // One that vouches for itself may be an authority, and would as such not be taken for an endpoint.
            Self::Written { known, .. } if known.contains(leaf) => verify_known(leaf, name, now),
            Self::Written { authorities, .. } => authorities.as_ref().map_or_else(unknown, by),
        }
    }
}

/// A certificate that is trusted by itself still has to be for this endpoint, and for today.
fn verify_known(
    leaf: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<ServerCertVerified, Error> {
    let (not_before, not_after) = validity(leaf).ok_or(CertificateError::BadEncoding)?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < not_before {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > not_after {
        return Err(CertificateError::Expired.into());
    }
    verify_server_name(&ParsedCertificate::try_from(leaf)?, name)?;
    Ok(ServerCertVerified::assertion())
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("pins", &self.pins).finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.belief.verify(leaf, intermediates, name, ocsp, now)?;
        let is_pinned = || public_key_sha256(leaf).is_some_and(|key| self.pins.contains(&Pin(key)));
        match self.pins.is_empty() || is_pinned() {
            true => Ok(verified),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
