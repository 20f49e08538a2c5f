//! TLS between nodes, and between operators and nodes: 1.3 only, both sides proven.

mod caller;
pub mod names;
mod pinned;

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::identity::{Identity, Operator};

pub use caller::{Caller, caller, peer_identity};
pub(crate) use pinned::pinned_client_config;

/// gRPC.
pub const ALPN_H2: &[u8] = b"h2";
/// Cache bodies.
pub const ALPN_HTTP1: &[u8] = b"http/1.1";

/// A TLS configuration cannot be made from an identity.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up tls for {what}: {message}")]
pub struct TlsError {
    what: &'static str,
    message: String,
}

impl TlsError {
    fn new(what: &'static str, error: impl std::fmt::Display) -> Self {
        Self { what, message: error.to_string() }
    }
}

/// What the cluster address serves: gRPC and cache bodies. A certificate is not demanded at this level, because
/// `PeerService.Join` is called without one; everything else must check [`peer_identity`].
pub fn peer_server_config(identity: &Identity) -> Result<Arc<ServerConfig>, TlsError> {
    server_config("peers", identity, ClientAuth::Optional, &[ALPN_H2, ALPN_HTTP1])
}

/// What the admin address serves: gRPC, to callers with a certificate of this cluster.
pub fn admin_server_config(identity: &Identity) -> Result<Arc<ServerConfig>, TlsError> {
    server_config("operators", identity, ClientAuth::Required, &[ALPN_H2])
}

/// For calling other nodes. One configuration serves all of them: who is expected is said per connection, by
/// [`names::node_server_name`].
pub fn peer_client_config(identity: &Identity, alpn: &[u8]) -> Result<Arc<ClientConfig>, TlsError> {
    let chain = vec![identity.cert_der.clone()];
    client_config("peers", &identity.ca_der, chain, identity.private_key(), alpn)
}

/// For an operator calling nodes. Any node of the cluster may answer: [`names::any_node_server_name`].
pub fn operator_client_config(operator: &Operator) -> Result<Arc<ClientConfig>, TlsError> {
    let key = PrivateKeyDer::Pkcs8(operator.key_der.clone_key());
    client_config("the operator", &operator.ca_der, vec![operator.cert_der.clone()], key, ALPN_H2)
}

enum ClientAuth {
    Optional,
    Required,
}

fn server_config(
    what: &'static str,
    identity: &Identity,
    client_auth: ClientAuth,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(what, &identity.ca_der)?, provider());
    let verifier = match client_auth {
        ClientAuth::Optional => verifier.allow_unauthenticated(),
        ClientAuth::Required => verifier,
    };
    let verifier = verifier.build().map_err(|error| TlsError::new(what, error))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| TlsError::new(what, error))?
        .with_client_cert_verifier(verifier)
        // The authority's own certificate goes along for nodes that join: they know only its hash.
        .with_single_cert(vec![identity.cert_der.clone(), identity.ca_der.clone()], identity.private_key())
        .map_err(|error| TlsError::new(what, error))?;
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    // Connections are few and long: each proves itself anew, so that an expired certificate cannot live on in a session.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn client_config(
    what: &'static str,
    ca_der: &CertificateDer<'static>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    alpn: &[u8],
) -> Result<Arc<ClientConfig>, TlsError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| TlsError::new(what, error))?
        .with_root_certificates(roots(what, ca_der)?)
        .with_client_auth_cert(chain, key)
        .map_err(|error| TlsError::new(what, error))?;
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn roots(what: &'static str, ca_der: &CertificateDer<'static>) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(ca_der.clone()).map_err(|error| TlsError::new(what, error))?;
    Ok(Arc::new(roots))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
