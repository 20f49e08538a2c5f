//! The client side of TLS: whom to believe, what to show, which version of HTTP to ask for.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use shoal_model::site::UpstreamProtocol;
use shoal_model::view::{CertificateView, EndpointAddress, TransportView, UpstreamTlsView, host_of_service};
use tokio_rustls::TlsConnector;

use super::connect_error::ConnectError;
use super::verifier::Verifier;
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
    ) -> Result<Wire, ConnectError> {
        let name = self.name_of(address).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let config = if for_tunnel { &self.tunnels } else { &self.requests };
        let shaken = TlsConnector::from(config.clone()).connect(name, socket).await;
        Ok(Wire::Tls(Box::new(shaken.map_err(ConnectError::in_handshake)?)))
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
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let verifier = Verifier::build(view).map_err(TlsError::Authorities)?;
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    match &view.client_certificate {
        None => Ok(builder.with_no_client_auth()),
        Some(certificate) => {
            let (chain, key) = client_pair(certificate).map_err(TlsError::ClientCertificate)?;
            Ok(builder.with_client_auth_cert(chain, key)?)
        }
    }
}

fn client_pair(
    certificate: &CertificateView,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let chain = CertificateDer::pem_slice_iter(certificate.chain_pem.as_bytes()).collect::<Result<_, _>>();
    let key = PrivateKeyDer::from_pem_slice(certificate.key_pem.as_bytes());
    Ok((chain.map_err(|error| error.to_string())?, key.map_err(|error| error.to_string())?))
}
