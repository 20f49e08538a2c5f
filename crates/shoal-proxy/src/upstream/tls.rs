//! The client side of TLS: whom to believe, what to show, which version of HTTP to ask for.

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use shoal_model::site::UpstreamProtocol;
use shoal_model::view::{CertificateView, EndpointAddress, TransportView, UpstreamTlsView, host_of_service};
use tokio_rustls::TlsConnector;

use super::pinned::Pinned;
use super::wire::{Socket, Wire};

/// Why an upstream's TLS settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("the authorities cannot be read: {0}")]
    Authorities(String),
    #[error("the client certificate cannot be used: {0}")]
    ClientCertificate(String),
    #[error("{0}")]
    Settings(#[from] rustls::Error),
}

/// TLS towards the endpoints of an upstream. Sessions are remembered, so that later handshakes are short.
#[derive(Clone)]
pub(crate) struct ClientTls {
    /// Offers what the upstream is said to speak.
    requests: Arc<ClientConfig>,
    /// Offers HTTP/1.1 only: what may become a tunnel.
    tunnels: Arc<ClientConfig>,
    server_name: Option<Box<str>>,
}

impl ClientTls {
    /// `None` = clear text.
    pub(crate) fn build(transport: &TransportView) -> Result<Option<Self>, TlsError> {
        let Some(view) = &transport.tls else { return Ok(None) };
        let mut tunnels = settings(view)?;
        tunnels.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut requests = tunnels.clone();
        match transport.protocol {
            UpstreamProtocol::H2 => requests.alpn_protocols = vec![b"h2".to_vec()],
            UpstreamProtocol::Auto => requests.alpn_protocols.insert(0, b"h2".to_vec()),
            UpstreamProtocol::Http1 | UpstreamProtocol::H2c => {}
        }
        let server_name = view.server_name.clone();
        Ok(Some(Self { requests: Arc::new(requests), tunnels: Arc::new(tunnels), server_name }))
    }

    /// Shakes hands over `socket` with the endpoint at `address`.
    pub(crate) async fn shake_hands(
        &self,
        socket: Socket,
        address: &EndpointAddress,
        for_tunnel: bool,
    ) -> io::Result<Wire> {
        let name = self.name_of(address).ok_or(io::ErrorKind::InvalidInput)?;
        let config = if for_tunnel { &self.tunnels } else { &self.requests };
        let stream = TlsConnector::from(config.clone()).connect(name, socket).await?;
        Ok(Wire::Tls(Box::new(stream)))
    }

    fn name_of(&self, address: &EndpointAddress) -> Option<ServerName<'static>> {
        match (&self.server_name, address) {
            (Some(name), _) => ServerName::try_from(name.to_string()).ok(),
            (None, EndpointAddress::Socket(address)) => Some(ServerName::IpAddress(address.ip().into())),
            (None, EndpointAddress::Name { host, .. } | EndpointAddress::Found { host, .. }) => {
                ServerName::try_from(host.to_string()).ok()
            }
            (None, EndpointAddress::Service(name)) => {
                ServerName::try_from(host_of_service(name).to_owned()).ok()
            }
            (None, EndpointAddress::Unix(_)) => None,
        }
    }
}

fn settings(view: &UpstreamTlsView) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let roots = match (view.verify, &view.ca_pem) {
        (false, _) => None,
        (true, Some(pem)) => Some(Arc::new(authorities(pem)?)),
        (true, None) => Some(system_roots().clone()),
    };
    let builder = match (roots, view.pins.as_slice()) {
        (Some(roots), []) => builder.with_root_certificates(roots),
        (None, []) => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(BelieveAnybody(provider)))
        }
        (roots, pins) => {
            let inner: Arc<dyn ServerCertVerifier> = match roots {
                None => Arc::new(BelieveAnybody(provider)),
                Some(roots) => WebPkiServerVerifier::builder_with_provider(roots, provider)
                    .build()
                    .map_err(|error| TlsError::Authorities(error.to_string()))?,
            };
            let verifier = Pinned { inner, pins: pins.to_vec() };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
    };
    match &view.client_certificate {
        None => Ok(builder.with_no_client_auth()),
        Some(certificate) => {
            let (chain, key) = client_pair(certificate).map_err(TlsError::ClientCertificate)?;
            Ok(builder.with_client_auth_cert(chain, key)?)
        }
    }
}

fn authorities(pem: &str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let authority = authority.map_err(|error| TlsError::Authorities(error.to_string()))?;
        roots.add(authority).map_err(|error| TlsError::Authorities(error.to_string()))?;
    }
    Ok(roots)
}

/// The authorities this machine believes, read once. Those that cannot be read are left out.
pub(crate) fn system_roots() -> &'static Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "cannot read some of the system's certificate authorities");
        }
        let (_, ignored) = roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            tracing::warn!(
                ignored,
                "the system has no certificate authorities: upstreams need `tls.ca_file`"
            );
        }
        Arc::new(roots)
    })
}

fn client_pair(
    certificate: &CertificateView,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let chain = CertificateDer::pem_slice_iter(certificate.chain_pem.as_bytes()).collect::<Result<_, _>>();
    let key = PrivateKeyDer::from_pem_slice(certificate.key_pem.as_bytes());
    Ok((chain.map_err(|error| error.to_string())?, key.map_err(|error| error.to_string())?))
}

/// `verify: false`: any certificate will do, if only its key is there.
struct BelieveAnybody(Arc<CryptoProvider>);

impl fmt::Debug for BelieveAnybody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BelieveAnybody")
    }
}

impl ServerCertVerifier for BelieveAnybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
