//! Entering a cluster: a token, the first node that answers, a certificate.

mod reach;
mod renew;
mod token;

use std::net::SocketAddr;

use rustls_pki_types::CertificateDer;
use shoal_model::NodeId;
use shoal_model::state::{ClusterSetup, SetupOrder};
use shoal_proto::raft::{JoinRequest, JoinResponse, RenewRequest};

use crate::identity::{ClusterSecret, Identity, IdentityError, KeyRing, NodeKey, Succession};
use crate::tls::{Caller, TlsError, caller, peer_server_config, pinned_client_config};

use reach::at_one_of;
pub use renew::{RenewError, renew, renewed};
pub use token::{ROLE_NODE, ROLE_PURGE, Token, TokenError, admits_nodes, same_text};

/// Authorities a new one is told of beside that of its certificate, at most.
const MAX_AUTHORITIES: usize = 4;
/// Nodes a new one is told of, at most.
const MAX_PEERS: usize = 1000;

/// How a node that joins describes itself.
#[derive(Clone, Debug, Default)]
pub struct Applicant {
    /// Its `--name`.
    pub name: String,
    /// Its `--region`.
    pub region: String,
    /// Its `--zone`.
    pub zone: String,
    /// Where peers reach it: gossip (UDP) and RPC (TCP).
    pub cluster_addr: String,
    /// Where operators reach it.
    pub admin_addr: String,
    /// What it was told of the cluster.
    pub setup: SetupOrder,
    /// The highest level of a cluster that its version can be a node of.
    pub knows_level: u32,
    /// The lowest one.
    pub oldest_level: u32,
}

/// An admitted node.
#[derive(Clone, Debug)]
pub struct Joined {
    /// Who it is from now on: to be saved before anything else is done.
    pub identity: Identity,
    /// Nodes to talk to first.
    pub peers: Vec<(NodeId, SocketAddr)>,
    /// What holds for the cluster as a whole.
    pub setup: ClusterSetup,
}

/// A node was not admitted.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The list of addresses is empty.
    #[error("no address to join at was given")]
    NoAddress,
    /// No address has an answer.
    #[error("no node can be reached to join: {0}")]
    Unreachable(String),
    /// Nobody has a place for this node at the moment.
    #[error("no node has a place for one more that joins: {0}")]
    Busy(String),
    /// Somebody answers, but not a node of the cluster the token is for. Nothing was sent to it.
    #[error(
        "{address} is not a node of the cluster this token is for, or its authority was replaced since, as by `shoal cluster \
         rotate ca` (make a new token then): {why}"
    )]
    OtherCluster {
        /// Where.
        address: SocketAddr,
        /// What TLS says.
        why: std::io::Error,
    },
    /// It is where operators call.
    #[error(
        "{0} is the admin address of a node, not its cluster address (`--cluster-addr`, port 7400 as a rule)"
    )]
    AdminAddress(SocketAddr),
    /// By the clock here nobody can believe what it shows. Nothing was sent to it.
    #[error("{address} cannot prove what it is: {why}")]
    Untimely {
        /// Where.
        address: SocketAddr,
        /// What it shows, and what time it is here.
        why: String,
    },
    /// The cluster said no.
    #[error("the cluster refused this node: {0}")]
    Refused(String),
    /// The cluster admitted this node, but what it sent cannot be used.
    #[error("the answer of {address} cannot be used: {message}")]
    BadAnswer {
        /// Whose.
        address: SocketAddr,
        /// Why.
        message: String,
    },
    /// The key cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Asks the nodes at `addresses`, one after the other, to admit this one. The token travels only to a node that has
/// proven, in the TLS handshake, to be of the cluster the token is for. Asking again with the same key is the same node; where
/// too many join at once, that is done for a minute.
pub async fn join(
    addresses: &[String],
    token: &Token,
    applicant: &Applicant,
    key: &NodeKey,
) -> Result<Joined, JoinError> {
    let request = JoinRequest {
        token: token.reveal(),
        csr: key.request()?,
        name: applicant.name.clone(),
        region: applicant.region.clone(),
        zone: applicant.zone.clone(),
        cluster_addr: applicant.cluster_addr.clone(),
        admin_addr: applicant.admin_addr.clone(),
        timing: applicant.setup.timing.map_or_else(String::new, |timing| timing.to_string()),
        max_voters: applicant.setup.max_voters.map_or(0, u32::from),
        knows_level: applicant.knows_level,
        oldest_level: applicant.oldest_level,
    };
    let tls = pinned_client_config(&token.ca_sha256, None)?;
    let (answer, address) =
        at_one_of(addresses, tls, async |mut client| client.join(request.clone()).await).await?;
    read_answer(answer, token, applicant, key, address)
}

/// Asks the nodes at `addresses`, one after the other, to certify the key of a member anew whose authority none of them believes
/// any more. `token` was made since, and names the one that they believe; the member stays who it is.
pub async fn find_back(
    addresses: &[String],
    token: &Token,
    identity: &Identity,
) -> Result<Identity, JoinError> {
    let request = RenewRequest {
        csr: identity.certificate_request()?,
        token: token.reveal(),
        ..RenewRequest::default()
    };
    let tls = pinned_client_config(&token.ca_sha256, Some(identity.cluster_id))?;
    let (answer, address) =
        at_one_of(addresses, tls, async |mut client| client.renew(request.clone()).await).await?;
    let bad = |message: String| JoinError::BadAnswer { address, message };
    if !token.is_for(&answer.ca_certificate) {
        return Err(bad("its authority is not the one of the token".to_owned()));
    }
    let mut believing = identity.clone();
    believing.succession.others.push(CertificateDer::from(answer.ca_certificate.clone()));
    renewed(&believing, answer).map_err(|error| bad(error.to_string()))
}

fn read_answer(
    answer: JoinResponse,
    token: &Token,
    applicant: &Applicant,
    key: &NodeKey,
    address: SocketAddr,
) -> Result<Joined, JoinError> {
    let bad = |message: &str| JoinError::BadAnswer { address, message: message.to_owned() };
    let others = answer.other_authorities.into_iter().take(MAX_AUTHORITIES).map(CertificateDer::from);
    let succession = Succession {
        others: others.collect(),
        bridge: Some(answer.bridge).filter(|bridge| !bridge.is_empty()).map(CertificateDer::from),
        former: Vec::new(),
    };
    if !token.is_for(&answer.ca_certificate) && !succession.others.iter().any(|other| token.is_for(other)) {
        return Err(bad("its authority is not the one of the token"));
    }
    let cluster_id = answer.cluster_id.parse().map_err(|_| bad("its cluster id is malformed"))?;
    let node_id = NodeId(answer.node_id);
    let cert_der = CertificateDer::from(answer.certificate);
    if caller(std::slice::from_ref(&cert_der)) != Some(Caller::Node(node_id)) {
        return Err(bad("the certificate is not for this node"));
    }
    let secret = ClusterSecret::from_bytes(&answer.cluster_secret);
    let identity = Identity {
        cluster_id,
        cluster_epoch: answer.cluster_epoch,
        node_id,
        name: applicant.name.clone(),
        ca_der: CertificateDer::from(answer.ca_certificate),
        succession,
        cert_der,
        key_der: key.key_der(),
        gossip_keys: KeyRing::of_keys(answer.gossip_keys.iter().map(Vec::as_slice)),
        secret: secret.ok_or_else(|| bad("the cluster's secret has the wrong length"))?,
    };
    // A certificate for another key is found here, not at the first connection.
    peer_server_config(&identity)?;
    let peers = answer.peers.iter().take(MAX_PEERS).filter_map(|peer| {
        let (id, address) = peer.split_once('=')?;
        Some((id.parse().ok()?, address.parse().ok()?))
    });
    // A timing that is not known here is of a later version: the disk decides, as where nobody has said anything.
    let told = SetupOrder {
        timing: answer.timing.parse().ok(),
        max_voters: u8::try_from(answer.max_voters).ok().filter(|most| *most > 0),
    };
    Ok(Joined { peers: peers.collect(), identity, setup: ClusterSetup::default().with(told) })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use shoal_model::state::Timing;
    use shoal_proto::raft::peer_service_server::{PeerService, PeerServiceServer};
    use shoal_proto::raft::{
        AwaitAppliedRequest, AwaitAppliedResponse, HandOverRequest, HandOverResponse, ProposeRequest,
        ProposeResponse, ReadIndexRequest, ReadIndexResponse, RehearseRequest, RehearseResponse,
        RenewResponse, ReportRequest, ReportResponse, VouchRequest, VouchResponse,
    };
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;
    use tokio_stream::StreamExt;
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::{Request, Response, Status};

    use super::*;
    use crate::identity::{Authority, NODE_VALIDITY};
    use crate::tls::admin_server_config;

    /// A node that admits whoever brings the right secret, as node 2.
    struct Door {
        identity: Identity,
        authority: Authority,
        secret_sha256: String,
        told: Mutex<Vec<JoinRequest>>,
    }

    /// What the tests below share of it.
    #[derive(Clone)]
    struct Shared(Arc<Door>);

    #[tonic::async_trait]
    impl PeerService for Shared {
        async fn propose(&self, _: Request<ProposeRequest>) -> Result<Response<ProposeResponse>, Status> {
            Err(Status::unimplemented(""))
        }

        async fn read_index(
            &self,
            _: Request<ReadIndexRequest>,
        ) -> Result<Response<ReadIndexResponse>, Status> {
            Err(Status::unimplemented(""))
        }

        async fn await_applied(
            &self,
            _: Request<AwaitAppliedRequest>,
        ) -> Result<Response<AwaitAppliedResponse>, Status> {
            Err(Status::unimplemented(""))
        }

        async fn report(&self, _: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
            Err(Status::unimplemented(""))
        }

        async fn rehearse(&self, _: Request<RehearseRequest>) -> Result<Response<RehearseResponse>, Status> {
            Err(Status::unimplemented(""))
        }

        async fn hand_over(&self, _: Request<HandOverRequest>) -> Result<Response<HandOverResponse>, Status> {
            Err(Status::unimplemented(""))
        }

        async fn vouch(&self, _: Request<VouchRequest>) -> Result<Response<VouchResponse>, Status> {
            Err(Status::unimplemented(""))
        }

        async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
            let Door { authority, secret_sha256, .. } = &*self.0;
            let RenewRequest { csr, token, .. } = request.into_inner();
            let token: Token = token.parse().map_err(|_| Status::invalid_argument("no token"))?;
            if !same_text(&token.secret_sha256(), secret_sha256) {
                return Err(Status::permission_denied("the token is unknown or used up"));
            }
            Ok(Response::new(RenewResponse {
                certificate: authority.sign_node(&csr, NodeId(1), NODE_VALIDITY).unwrap().to_vec(),
                ca_certificate: authority.certificate().to_vec(),
            }))
        }

        async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
            let Door { identity, authority, secret_sha256, told } = &*self.0;
            let request = request.into_inner();
            told.lock().unwrap().push(request.clone());
            let token: Token = request.token.parse().map_err(|_| Status::invalid_argument("no token"))?;
            if !same_text(&token.secret_sha256(), secret_sha256) {
                return Err(Status::permission_denied("the token is unknown or used up"));
            }
            Ok(Response::new(JoinResponse {
                node_id: 2,
                cluster_id: identity.cluster_id.to_string(),
                certificate: authority.sign_node(&request.csr, NodeId(2), NODE_VALIDITY).unwrap().to_vec(),
                ca_certificate: identity.ca_der.to_vec(),
                cluster_secret: identity.secret.expose().to_vec(),
                gossip_keys: vec![vec![5; 32]],
                other_authorities: Vec::new(),
                bridge: Vec::new(),
                peers: vec!["1=127.0.0.1:7400".to_owned(), "garbage".to_owned()],
                cluster_epoch: 3,
                timing: "wan".to_owned(),
                max_voters: 7,
            }))
        }
    }

    async fn open_door() -> (Shared, Token, String) {
        let (identity, authority) = Identity::bootstrap("one").unwrap();
        let token = Token::create(&identity.ca_der, ROLE_NODE);
        let acceptor = TlsAcceptor::from(peer_server_config(&identity).unwrap());
        let secret_sha256 = token.secret_sha256();
        let door = Shared(Arc::new(Door { identity, authority, secret_sha256, told: Mutex::default() }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let incoming = TcpListenerStream::new(listener).then(move |tcp| {
            let acceptor = acceptor.clone();
            async move { acceptor.accept(tcp?).await }
        });
        // What fails in the handshake is not the end of the server.
        let incoming = incoming.filter(Result::is_ok);
        let server = tonic::transport::Server::builder().add_service(PeerServiceServer::new(door.clone()));
        tokio::spawn(server.serve_with_incoming(incoming));
        (door, token, address)
    }

    fn applicant() -> Applicant {
        Applicant {
            name: "two".to_owned(),
            cluster_addr: "127.0.0.1:7410".to_owned(),
            setup: SetupOrder { timing: Some(Timing::Wan), max_voters: None },
            ..Applicant::default()
        }
    }

    #[tokio::test]
    async fn a_token_opens_the_door() {
        let (door, token, address) = open_door().await;
        let key = NodeKey::generate().unwrap();
        // Nobody answers at the first address.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
        let joined = join(&[silent, address], &token, &applicant(), &key).await.unwrap();
        assert_eq!(joined.identity.node_id, NodeId(2));
        assert_eq!((joined.identity.name.as_str(), joined.identity.cluster_epoch), ("two", 3));
        assert_eq!(joined.identity.secret, door.0.identity.secret);
        assert_eq!(joined.identity.gossip_keys, KeyRing::of_keys([[5; 32].as_slice()]));
        assert_eq!(joined.identity.public_key_sha256().unwrap(), key.public_key_sha256());
        assert_eq!(joined.peers, [(NodeId(1), SocketAddr::from(([127, 0, 0, 1], 7400)))]);
        assert_eq!(joined.setup, ClusterSetup { timing: Some(Timing::Wan), max_voters: 7 });
        let told = door.0.told.lock().unwrap()[0].clone();
        assert_eq!((&*told.cluster_addr, &*told.timing, told.max_voters), ("127.0.0.1:7410", "wan", 0));
    }

    #[tokio::test]
    async fn refusals_say_what_is_wrong() {
        let (door, token, address) = open_door().await;
        let key = NodeKey::generate().unwrap();
        let check = async |addresses: &[String], token: &Token, expected: &str| {
            let message = join(addresses, token, &applicant(), &key).await.unwrap_err().to_string();
            assert!(message.contains(expected), "{message:?} does not say {expected:?}");
        };
        let foreign = Token::create(b"another authority", ROLE_NODE);
        check(std::slice::from_ref(&address), &foreign, "is not a node of the cluster this token is for")
            .await;
        assert!(door.0.told.lock().unwrap().is_empty(), "a stranger was told a token");
        let wrong = Token::create(&door.0.identity.ca_der, ROLE_NODE);
        check(std::slice::from_ref(&address), &wrong, "the token is unknown or used up").await;
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
        check(&[silent], &token, "no node can be reached to join").await;
        check(&[], &token, "no address to join at").await;
        check(&["not an address".to_owned()], &token, "no node can be reached to join: not an address").await;
    }

    #[tokio::test]
    async fn the_address_of_operators_is_told_from_that_of_nodes() {
        let (identity, _) = Identity::bootstrap("one").unwrap();
        let token = Token::create(&identity.ca_der, ROLE_NODE);
        let acceptor = TlsAcceptor::from(admin_server_config(&identity).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                _ = acceptor.accept(tcp).await;
            }
        });
        let key = NodeKey::generate().unwrap();
        let error = join(&[address.to_string()], &token, &applicant(), &key).await.unwrap_err();
        assert!(matches!(error, JoinError::AdminAddress(told) if told == address), "{error}");
    }

    #[tokio::test]
    async fn a_member_finds_back_by_a_token_of_the_authority_of_now() {
        let (door, token, address) = open_door().await;
        // The authority of its certificate is none that the door believes.
        let (lost, _) = Identity::bootstrap("two").unwrap();
        let stranger = lost.clone();
        let lost = Identity { cluster_id: door.0.identity.cluster_id, ..lost };
        let addresses = [address];
        let found = find_back(&addresses, &token, &lost).await.unwrap();
        assert_eq!(found.ca_der, door.0.identity.ca_der);
        assert_eq!((found.node_id, &found.succession.others), (lost.node_id, &vec![lost.ca_der.clone()]));
        assert_eq!(found.public_key_sha256().unwrap(), lost.public_key_sha256().unwrap());
        let check = async |identity: &Identity, token: &Token, expected: &str| {
            let message = find_back(&addresses, token, identity).await.unwrap_err().to_string();
            assert!(message.contains(expected), "{message:?} does not say {expected:?}");
        };
        check(&stranger, &token, "is not a node of the cluster this token is for").await;
        let wrong = Token::create(&door.0.identity.ca_der, ROLE_NODE);
        check(&lost, &wrong, "the token is unknown or used up").await;
    }
}
