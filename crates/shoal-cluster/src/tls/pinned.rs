//! TLS for a node that joins, or finds back: it does not have the authority yet, only the hash of it, from its token.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use shoal_model::ClusterId;

use super::names::any_node_server_name;
use super::{ALPN_H2, TlsError, caller, provider};
use crate::identity::sha256_hex;
use crate::tls::Caller;

/// For calling a node of a cluster whose authority's certificate has this SHA-256 (hex), and no other. Who knows which `cluster`
/// that should be believes no node of another one.
pub(crate) fn pinned_client_config(
    ca_sha256: &str,
    cluster: Option<ClusterId>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider();
    let verifier = PinnedAuthority {
        ca_sha256: ca_sha256.to_owned(),
        name: cluster.map(any_node_server_name),
        provider: provider.clone(),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| TlsError::new("joining", error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Believes a node whose chain ends in the authority the token names: the chain must hold the authority's certificate
/// itself (its hash is all that is known), and the leaf must be signed by it, or by one that it has certified, and stand for a
/// node.
#[derive(Debug)]
struct PinnedAuthority {
    ca_sha256: String,
    /// Which all nodes of the cluster have.
    name: Option<ServerName<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = intermediates.iter().find(|certificate| sha256_hex(certificate) == self.ca_sha256);
        let authority = authority.ok_or(CertificateError::UnknownIssuer)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let leaf = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&leaf, &roots, intermediates, now, algorithms)?;
        self.name.as_ref().map_or(Ok(()), |name| verify_server_name(&leaf, name))?;
        match caller(std::slice::from_ref(end_entity)) {
            Some(Caller::Node(_)) => Ok(ServerCertVerified::assertion()),
            Some(Caller::Operator(_)) | None => Err(CertificateError::NotValidForName.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
