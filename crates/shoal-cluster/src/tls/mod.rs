//! TLS between nodes, and between operators and nodes: 1.3 only, both sides proven.

mod caller;
mod credentials;
pub mod names;
mod pinned;
mod trouble;

use std::sync::Arc;

use rustls::client::{Resumption, WantsClientCert};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::identity::{Identity, Operator};

pub use caller::{Caller, LOCAL, ProvenOperator, caller, peer_identity};
pub use credentials::Credentials;
pub(crate) use credentials::{ClientSide, Speaks};
pub(crate) use pinned::pinned_client_config;
pub use trouble::{CLOCK_HERE, cause_of, clock_trouble, deepest};

/// gRPC.
pub const ALPN_H2: &[u8] = b"h2";
/// Cache bodies.
pub const ALPN_HTTP1: &[u8] = b"http/1.1";

/// Epochs before the current one whose nodes are told that theirs has ended.
const MAX_LOWER_EPOCHS: u64 = 8;

/// What is spoken on a connection between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerProtocol {
    /// gRPC.
    Grpc,
    /// Cache bodies.
    Bodies,
    /// gRPC with who is of a lower epoch, or of none yet: only to be told so, and to join.
    Door,
}

impl PeerProtocol {
    /// The protocol that was negotiated with a node of `epoch`; `None` = none of ours.
    pub fn negotiated(alpn: Option<&[u8]>, epoch: u64) -> Option<Self> {
        let alpn = alpn?;
        if alpn == of_epoch(ALPN_H2, epoch) {
            Some(Self::Grpc)
        } else if alpn == of_epoch(ALPN_HTTP1, epoch) {
            Some(Self::Bodies)
        } else {
            (0..epoch).any(|lower| alpn == of_epoch(ALPN_H2, lower)).then_some(Self::Door)
        }
    }
}

/// A protocol as nodes of `epoch` name it: those of another cannot agree on it with them.
fn of_epoch(alpn: &[u8], epoch: u64) -> Vec<u8> {
    match epoch {
        0 => alpn.to_vec(),
        _ => [alpn, b";epoch=", epoch.to_string().as_bytes()].concat(),
    }
}

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
    let epoch = identity.cluster_epoch;
    let own = [of_epoch(ALPN_H2, epoch), of_epoch(ALPN_HTTP1, epoch)];
    // Strangers, who know of none, and those of the last few before, so that they can be told.
    let lower = std::iter::once(0).chain(epoch.saturating_sub(MAX_LOWER_EPOCHS).max(1)..epoch);
    let lower = lower.filter(|lower| *lower < epoch).map(|lower| of_epoch(ALPN_H2, lower));
    server_config("peers", identity, ClientAuth::Optional, own.into_iter().chain(lower).collect())
}

/// What the admin address serves: gRPC, to callers with a certificate of this cluster.
pub fn admin_server_config(identity: &Identity) -> Result<Arc<ServerConfig>, TlsError> {
    server_config("operators", identity, ClientAuth::Required, vec![ALPN_H2.to_vec()])
}

/// For calling other nodes. One configuration serves all of them: who is expected is said per connection, by
/// [`names::node_server_name`].
pub fn peer_client_config(identity: &Identity, alpn: &[u8]) -> Result<Arc<ClientConfig>, TlsError> {
    let chain = std::iter::once(&identity.cert_der).chain(&identity.succession.bridge).cloned().collect();
    let alpn = of_epoch(alpn, identity.cluster_epoch);
    client_config("peers", identity.authorities(), chain, identity.private_key(), &alpn)
}

/// For calling other nodes by one whose own certificate has ended: the door is all that is open to it.
pub(crate) fn unproven_client_config(identity: &Identity) -> Result<Arc<ClientConfig>, TlsError> {
    let builder = client_builder("the door", identity.authorities())?;
    Ok(finished(builder.with_no_client_auth(), ALPN_H2))
}

/// For an operator calling nodes. Any node of the cluster may answer: [`names::any_node_server_name`].
pub fn operator_client_config(operator: &Operator) -> Result<Arc<ClientConfig>, TlsError> {
    let key = PrivateKeyDer::Pkcs8(operator.key_der.clone_key());
    let authorities = std::iter::once(&operator.ca_der).chain(&operator.other_authorities);
    client_config("the operator", authorities, vec![operator.cert_der.clone()], key, ALPN_H2)
}

enum ClientAuth {
    Optional,
    Required,
}

fn server_config(
    what: &'static str,
    identity: &Identity,
    client_auth: ClientAuth,
    alpn: Vec<Vec<u8>>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots(what, identity.authorities())?, provider());
    let verifier = match client_auth {
        ClientAuth::Optional => verifier.allow_unauthenticated(),
        ClientAuth::Required => verifier,
    };
    let verifier = verifier.build().map_err(|error| TlsError::new(what, error))?;
    // The authorities' own certificates go along for nodes that join: they know only the hash of one.
    let chain = std::iter::once(&identity.cert_der).chain(&identity.succession.bridge);
    let chain = chain.chain(identity.authorities()).cloned().collect();
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| TlsError::new(what, error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, identity.private_key())
        .map_err(|error| TlsError::new(what, error))?;
    config.alpn_protocols = alpn;
    // Connections are few and long: each proves itself anew, so that an expired certificate cannot live on in a session.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn client_config<'a>(
    what: &'static str,
    authorities: impl IntoIterator<Item = &'a CertificateDer<'static>>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    alpn: &[u8],
) -> Result<Arc<ClientConfig>, TlsError> {
    let config = client_builder(what, authorities)?.with_client_auth_cert(chain, key);
    Ok(finished(config.map_err(|error| TlsError::new(what, error))?, alpn))
}

fn client_builder<'a>(
    what: &'static str,
    authorities: impl IntoIterator<Item = &'a CertificateDer<'static>>,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| TlsError::new(what, error))?;
    Ok(builder.with_root_certificates(roots(what, authorities)?))
}

fn finished(mut config: ClientConfig, alpn: &[u8]) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

fn roots<'a>(
    what: &'static str,
    authorities: impl IntoIterator<Item = &'a CertificateDer<'static>>,
) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    let mut unreadable = None;
    for authority in authorities {
        // One that nobody can read must not take the others with it, least of all at a start.
        if let Err(error) = roots.add(authority.clone()) {
            tracing::error!(what, %error, "an authority cannot be read, and is not believed");
            unreadable = Some(error);
        }
    }
    match unreadable {
        Some(error) if roots.is_empty() => Err(TlsError::new(what, error)),
        _ => Ok(Arc::new(roots)),
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::ServerName;
    use shoal_model::{ClusterId, NodeId, Role};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;
    use crate::identity::{Authority, NODE_VALIDITY, Succession, not_after, serial, sha256_hex};

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
    async fn nodes_of_another_epoch_get_no_further_than_the_door() {
        let (one, _) = Identity::bootstrap("one").unwrap();
        let of = |epoch| Identity { cluster_epoch: epoch, ..one.clone() };
        let negotiated = async |from: u64, alpn: &[u8], to: u64| {
            let (near, far) = duplex(64 * 1024);
            let (client, server) = (peer_client_config(&of(from), alpn), peer_server_config(&of(to)));
            let name = names::node_server_name(NodeId(1), one.cluster_id);
            let serving = TlsAcceptor::from(server.unwrap()).accept(far);
            let calling = TlsConnector::from(client.unwrap()).connect(name, near);
            let (served, called) = tokio::join!(serving, calling);
            called.ok()?;
            PeerProtocol::negotiated(served.ok()?.get_ref().1.alpn_protocol(), to)
        };
        use PeerProtocol::{Bodies, Door, Grpc};
        for (from, to, grpc, bodies) in [
            (0, 0, Some(Grpc), Some(Bodies)),
            (1, 1, Some(Grpc), Some(Bodies)),
            (0, 1, Some(Door), None),
            (1, 0, None, None),
            (1, 3, Some(Door), None),
            (3, 1, None, None),
        ] {
            assert_eq!(negotiated(from, ALPN_H2, to).await, grpc, "{from} calls {to}");
            assert_eq!(negotiated(from, ALPN_HTTP1, to).await, bodies, "{from} calls {to}");
        }
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
            let roots = roots("a test", [&one.ca_der]).unwrap();
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
        let check = async |authority: &[u8], cluster, server: &Identity, expected: bool| {
            let client = pinned_client_config(&sha256_hex(authority), cluster).unwrap();
            let name = names::any_node_server_name(ClusterId(0));
            let seen = handshake(client, name, peer_server_config(server).unwrap()).await;
            assert_eq!(seen.is_ok(), expected, "{seen:?}");
        };
        check(&one.ca_der, None, &one, true).await;
        check(&one.ca_der, None, &other, false).await;
        check(&one.ca_der, None, &forged, false).await;
        // The hash of the leaf is not the hash of an authority.
        check(&one.cert_der, None, &one, false).await;
        check(b"", None, &one, false).await;
        // Who is of a cluster already believes no other one.
        check(&one.ca_der, Some(one.cluster_id), &one, true).await;
        check(&one.ca_der, Some(other.cluster_id), &one, false).await;
    }

    /// Nodes before, within and after a succession, each with the other, and an operator and a token of before it.
    #[tokio::test]
    async fn one_authority_succeeds_another() {
        let (old, authority) = Identity::bootstrap("one").unwrap();
        let (next, bridge) = authority.successor().unwrap();
        let others = |other: &Authority| vec![other.certificate().clone()];
        let spreading = Identity {
            succession: Succession { others: others(&next), ..Succession::default() },
            ..old.clone()
        };
        let cert_der = next.sign_node(&old.certificate_request().unwrap(), NodeId(1), NODE_VALIDITY).unwrap();
        let switched = Identity {
            ca_der: next.certificate().clone(),
            succession: Succession {
                others: others(&authority),
                bridge: Some(bridge),
                ..Succession::default()
            },
            cert_der,
            ..old.clone()
        };
        let retired = Identity { succession: Succession::default(), ..switched.clone() };
        let name = || names::node_server_name(NodeId(1), old.cluster_id);
        let check = async |client: &Identity, server: &Identity, expected: bool| {
            let client = peer_client_config(client, ALPN_H2).unwrap();
            let seen = handshake(client, name(), peer_server_config(server).unwrap()).await;
            assert_eq!(seen.is_ok_and(|caller| caller.is_some()), expected);
        };
        for (client, server, expected) in [
            (&old, &spreading, true),
            (&spreading, &old, true),
            (&old, &switched, true), // away since before it began
            (&switched, &old, true),
            (&spreading, &switched, true),
            (&switched, &spreading, true),
            (&switched, &retired, true),
            (&retired, &switched, true),
            (&old, &retired, false),
            (&retired, &spreading, false),
        ] {
            check(client, server, expected).await;
        }
        let operator = operator_client_config(&authority.issue_operator("grace").unwrap()).unwrap();
        for (server, expected) in [(&old, true), (&spreading, true), (&switched, true), (&retired, false)] {
            let any = names::any_node_server_name(old.cluster_id);
            let seen = handshake(operator.clone(), any, admin_server_config(server).unwrap()).await;
            assert_eq!(seen.is_ok(), expected, "{seen:?}");
        }
        let token =
            |authority: &Authority| pinned_client_config(&sha256_hex(authority.certificate()), None).unwrap();
        for (of, server, expected) in [
            (&authority, &spreading, true),
            (&authority, &switched, true),
            (&next, &switched, true),
            (&next, &retired, true),
            (&authority, &retired, false),
        ] {
            let name = names::any_node_server_name(ClusterId(0));
            let seen = handshake(token(of), name, peer_server_config(server).unwrap()).await;
            assert_eq!(seen.is_ok(), expected, "{seen:?}");
        }
    }

    #[tokio::test]
    async fn old_tls_is_refused() {
        let (one, _) = Identity::bootstrap("one").unwrap();
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS12]).unwrap();
        let old =
            builder.with_root_certificates(roots("a test", [&one.ca_der]).unwrap()).with_no_client_auth();
        let name = names::any_node_server_name(one.cluster_id);
        assert!(handshake(Arc::new(old), name, peer_server_config(&one).unwrap()).await.is_err());
    }
}
