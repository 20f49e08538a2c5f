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

pub use caller::{Caller, ProvenOperator, caller, peer_identity};
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

#[cfg(test)]
mod tests {
    use rustls_pki_types::ServerName;
    use shoal_model::{NodeId, Role};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;
    use crate::identity::{not_after, serial, sha256_hex};

    /// Who the server sees, or that one side refused the other.
    async fn handshake(
        client: Arc<ClientConfig>,
        name: ServerName<'static>,
        server: Arc<ServerConfig>,
    ) -> Result<Option<Caller>, std::io::Error> {
        let (near, far) = duplex(64 * 1024);
        let serve = async {
            let mut tls = TlsAcceptor::from(server).accept(far).await?;
            tls.write_all(b"x").await?;
            tls.shutdown().await?;
            Ok::<_, std::io::Error>(peer_identity(tls.get_ref().1))
        };
        let call = async {
            let mut tls = TlsConnector::from(client).connect(name, near).await?;
            // A refusal of the client's certificate arrives only with the first read.
            tls.read_u8().await
        };
        let (served, called) = tokio::join!(serve, call);
        called?;
        served
    }

    #[tokio::test]
    async fn each_side_proves_itself() {
        let (one, authority) = Identity::bootstrap("one").unwrap();
        let (other, other_authority) = Identity::bootstrap("other").unwrap();
        let operator = authority.issue_operator("grace").unwrap();
        let other_operator = other_authority.issue_operator("eve").unwrap();
        let posing = Identity {
            cert_der: operator.cert_der.clone(),
            key_der: operator.key_der.clone_key(),
            ..one.clone()
        };
        let stranger = || {
            let roots = roots("a test", &one.ca_der).unwrap();
            let builder = ClientConfig::builder_with_provider(provider());
            let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
            Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
        };
        let node_name = |id| names::node_server_name(NodeId(id), one.cluster_id);
        let any_name = || names::any_node_server_name(one.cluster_id);
        let node = |identity| peer_client_config(identity, ALPN_H2).unwrap();
        let admin = || admin_server_config(&one).unwrap();
        let peer = || peer_server_config(&one).unwrap();
        let check = async |what, client, name, server, expected: Option<Option<Caller>>| {
            let seen = handshake(client, name, server).await;
            assert_eq!(seen.as_ref().ok(), expected.as_ref(), "{what}: {seen:?}");
        };
        let grace = || {
            let (serial, ends_at) = (serial(&operator.cert_der), not_after(&operator.cert_der));
            let (name, role) = ("grace".to_owned(), Role::Admin);
            Some(Some(Caller::Operator(ProvenOperator { name, role, serial, ends_at })))
        };
        check("node to itself", node(&one), node_name(1), peer(), Some(Some(Caller::Node(NodeId(1))))).await;
        check("node expecting another", node(&one), node_name(2), peer(), None).await;
        check("node of another cluster", node(&other), node_name(1), peer(), None).await;
        check("stranger to a peer", stranger(), node_name(1), peer(), Some(None)).await;
        check("stranger to admin", stranger(), any_name(), admin(), None).await;
        check("operator", operator_client_config(&operator).unwrap(), any_name(), admin(), grace()).await;
        let foreign = operator_client_config(&other_operator).unwrap();
        check("operator of another cluster", foreign, any_name(), admin(), None).await;
        let poser = peer_server_config(&posing).unwrap();
        check(
            "operator posing as a node",
            node(&one),
            names::any_node_server_name(one.cluster_id),
            poser,
            None,
        )
        .await;
    }

    #[tokio::test]
    async fn a_joining_node_believes_only_the_authority_of_its_token() {
        let (one, _) = Identity::bootstrap("one").unwrap();
        let (other, _) = Identity::bootstrap("other").unwrap();
        // It sends along the right authority, which did not sign it.
        let forged = Identity { ca_der: one.ca_der.clone(), ..other.clone() };
        let check = async |authority: &[u8], server: &Identity, expected: bool| {
            let client = pinned_client_config(&sha256_hex(authority)).unwrap();
            let name = names::any_node_server_name(shoal_model::ClusterId(0));
            let seen = handshake(client, name, peer_server_config(server).unwrap()).await;
            assert_eq!(seen.is_ok(), expected, "{seen:?}");
        };
        check(&one.ca_der, &one, true).await;
        check(&one.ca_der, &other, false).await;
        check(&one.ca_der, &forged, false).await;
        // The hash of the leaf is not the hash of an authority.
        check(&one.cert_der, &one, false).await;
        check(b"", &one, false).await;
    }

    #[tokio::test]
    async fn old_tls_is_refused() {
        let (one, _) = Identity::bootstrap("one").unwrap();
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS12]).unwrap();
        let old = builder.with_root_certificates(roots("a test", &one.ca_der).unwrap()).with_no_client_auth();
        let name = names::any_node_server_name(one.cluster_id);
        assert!(handshake(Arc::new(old), name, peer_server_config(&one).unwrap()).await.is_err());
    }
}
