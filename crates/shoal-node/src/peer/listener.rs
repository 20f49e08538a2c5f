//! Accepts TLS on the cluster address and hands each connection on by its ALPN protocol.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shoal_cluster::channel::{Cuttable, MAX_MESSAGE_BYTES};
use shoal_cluster::identity::not_after;
use shoal_cluster::tls::{Caller, PeerProtocol, peer_identity};
use shoal_configlog::RaftRpc;
use shoal_proto::cache::cache_service_server::CacheServiceServer;
use shoal_proto::raft::peer_service_server::PeerServiceServer;
use shoal_proto::raft::raft_service_server::RaftServiceServer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::{Request, Status};

use super::PeerRpc;
use crate::accept::Accepting;
use crate::crowd::{Crowd, shake_hands};
use crate::incoming::{CallerIo, Connection, Origin};
use crate::keys::{Recognition, key_shown_on};
use crate::node::{Node, now_ms};

/// TLS handshakes under way at once.
const MAX_HANDSHAKES: usize = 1024;
/// And of one address.
const MAX_HANDSHAKES_OF_ONE: usize = 512;
/// Connections accepted but not yet taken by the gRPC server.
const MAX_PENDING: usize = 64;
/// Connections of strangers and of nodes that were removed, which may only ask to join, and are told what has become of them.
const MAX_STRANGERS: usize = 32;
/// And of one address.
const MAX_STRANGERS_OF_ONE: usize = 16;
/// How long such a connection may last.
const STRANGER_TIMEOUT: Duration = Duration::from_secs(20);
/// After that it is told to end, and after this it is cut.
const STRANGER_GRACE: Duration = Duration::from_secs(2);
/// A connection of a node is that old at most: then it is told to end, so that what certificates say is looked at again.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);
/// For calls under way to end then.
const AGE_GRACE: Duration = Duration::from_secs(60);
/// Largest message of a stranger: a token and a certificate request.
const MAX_STRANGER_MESSAGE: usize = 64 << 10;
/// Calls of a stranger at once.
const MAX_STRANGER_CALLS: u32 = 2;

/// Everything that is served on the cluster address.
pub struct PeerListener {
    /// Bound by the caller, so that a taken port is an error at start.
    pub socket: TcpListener,
    /// Consensus.
    pub raft: RaftRpc,
    /// Everything else between nodes.
    pub peer: PeerRpc,
    /// Bodies over HTTP/1.1, and the index over gRPC; and who is a member.
    pub node: Arc<Node>,
}

/// Serves until `stop`; then lets running calls end.
pub async fn serve(listener: PeerListener, stop: CancellationToken) -> anyhow::Result<()> {
    let PeerListener { socket, raft, peer, node } = listener;
    let (nodes, from_nodes) = mpsc::channel(MAX_PENDING);
    let (strangers, from_strangers) = mpsc::channel(MAX_PENDING);
    let limits = MAX_MESSAGE_BYTES;
    let raft =
        RaftServiceServer::new(raft).max_decoding_message_size(limits).max_encoding_message_size(limits);
    let index = CacheServiceServer::new(node.cache.service());
    let peer = Arc::new(peer);
    let door = PeerServiceServer::from_arc(peer.clone()).max_decoding_message_size(MAX_STRANGER_MESSAGE);
    let peer =
        PeerServiceServer::from_arc(peer).max_decoding_message_size(limits).max_encoding_message_size(limits);
    let stopped = || stop.clone().cancelled_owned();
    let house = server()
        .max_connection_age(MAX_AGE)
        .max_connection_age_grace(AGE_GRACE)
        .add_service(InterceptedService::new(raft, only_nodes))
        .add_service(InterceptedService::new(index, OnlyMembers(node.clone())))
        .add_service(peer)
        .serve_with_incoming_shutdown(ReceiverStream::new(from_nodes), stopped());
    let door = server()
        .max_concurrent_streams(MAX_STRANGER_CALLS)
        .timeout(STRANGER_TIMEOUT)
        .max_connection_age(STRANGER_TIMEOUT)
        .max_connection_age_grace(STRANGER_GRACE)
        .add_service(door)
        .serve_with_incoming_shutdown(ReceiverStream::new(from_strangers), stopped());
    let places = Arc::new(Mutex::new(Crowd::new(MAX_STRANGERS, MAX_STRANGERS_OF_ONE)));
    let entrance = Entrance { node, nodes, strangers, places };
    let (in_house, at_door, ()) = tokio::join!(house, door, accept(socket, entrance, stop.clone()));
    in_house?;
    Ok(at_door?)
}

fn server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(5)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)))
}

type Incoming = std::io::Result<CallerIo<Cuttable<TlsStream<TcpStream>>>>;

/// Where connections go once it is known who is at their other end.
#[derive(Clone)]
struct Entrance {
    node: Arc<Node>,
    nodes: mpsc::Sender<Incoming>,
    strangers: mpsc::Sender<Incoming>,
    places: Arc<Mutex<Crowd>>,
}

impl Entrance {
    async fn hand_on(self, stream: TlsStream<TcpStream>, from: SocketAddr) {
        // Behind whom no authority stands that is believed, he is a stranger, whatever he has shown.
        let proof = self.node.proof_on(stream.get_ref().1);
        let caller = proof.is_some().then(|| peer_identity(stream.get_ref().1)).flatten();
        let shown = key_shown_on(stream.get_ref().1);
        let recognition = match &caller {
            Some(Caller::Node(peer)) => Box::pin(self.node.recognition_of(*peer, shown.as_deref())).await,
            Some(Caller::Operator(_)) | None => Recognition::AsItSays,
        };
        let in_doubt = match (&caller, recognition) {
            (_, Recognition::NotNow) => return,
            (Some(Caller::Node(peer)), Recognition::InDoubt) => Some(*peer),
            _ => None,
        };
        let caller = caller.filter(|_| recognition != Recognition::Forged);
        let (proven, epoch) = (proven_for(stream.get_ref().1), self.node.identity.cluster_epoch);
        let (node, doubtful) = (self.node.clone(), self.node.clone());
        let disbelieved = async move {
            match proof {
                Some(proof) => node.disbelief_in(proof).await,
                None => std::future::pending().await,
            }
        };
        let exposed = async move {
            match in_doubt {
                Some(peer) => doubtful.exposure_of(peer, shown).await,
                None => std::future::pending().await,
            }
        };
        let disproven = async move {
            tokio::select! {
                () = disbelieved => {}
                () = exposed => {}
            }
        };
        match (PeerProtocol::negotiated(stream.get_ref().1.alpn_protocol(), epoch), caller) {
            (Some(PeerProtocol::Bodies), Some(Caller::Node(peer))) if self.node.knows(peer) => {
                tokio::select! {
                    () = self.node.cache.clone().serve_peer(stream, peer, MAX_AGE.min(proven)) => {}
                    () = self.node.removal_of(peer) => {}
                    () = disproven => {}
                    () = tokio::time::sleep(proven) => {}
                }
            }
            (Some(PeerProtocol::Grpc), Some(Caller::Node(peer))) if !self.node.is_expelled(peer) => {
                let node = self.node.clone();
                let stream = Cuttable::until(stream, async move {
                    tokio::select! {
                        () = node.expulsion_of(peer) => {}
                        () = disproven => {}
                        () = tokio::time::sleep(proven) => {}
                    }
                });
                let caller = Some(Caller::Node(peer));
                _ = self.nodes.send(Ok(CallerIo::new(stream, caller, Origin::Address(from)))).await;
            }
            // A copy of a member, of before the cluster was recovered.
            (Some(PeerProtocol::Door), Some(Caller::Node(peer))) if self.node.is_member(peer) => {}
            // Who is not of the cluster any more is told so, at the door.
            (Some(PeerProtocol::Grpc | PeerProtocol::Door), caller) => {
                let place = self.places.lock().unwrap_or_else(PoisonError::into_inner).admit(from.ip());
                let stream = Cuttable::until(stream, place.given_up());
                _ = self.strangers.send(Ok(CallerIo::of_stranger(stream, caller, from, place))).await;
            }
            _ => {}
        }
    }
}

/// How long what the other side has shown is good.
fn proven_for(connection: &rustls::ServerConnection) -> Duration {
    let shown = connection.peer_certificates().and_then(<[_]>::first);
    let ends = shown.and_then(|certificate| not_after(certificate)).unwrap_or_default();
    Duration::from_secs(u64::try_from(ends).unwrap_or_default())
        .saturating_sub(Duration::from_millis(now_ms()))
}

async fn accept(socket: TcpListener, entrance: Entrance, stop: CancellationToken) {
    let mut handshakes = Crowd::new(MAX_HANDSHAKES, MAX_HANDSHAKES_OF_ONE);
    let socket = Accepting::on(socket, "the cluster address");
    loop {
        let (tcp, from) = tokio::select! {
            () = stop.cancelled() => return,
            accepted = socket.next() => accepted,
        };
        _ = tcp.set_nodelay(true);
        // Asks for a certificate, and lets strangers through to the door.
        let tls = TlsAcceptor::from(entrance.node.peers.credentials().peer_server());
        let (entrance, place) = (entrance.clone(), handshakes.admit(from.ip()));
        tokio::spawn(async move {
            if let Some(stream) = shake_hands(tls, tcp, place).await {
                entrance.hand_on(stream, from).await;
            }
        });
    }
}

/// Lets a request through when a node's certificate stands behind it. Who was removed is for consensus itself to say:
/// a node that is catching up does not know its leader yet.
fn only_nodes(mut request: Request<()>) -> Result<Request<()>, Status> {
    let caller = request.extensions().get::<Connection>().and_then(|connection| connection.caller.clone());
    match caller {
        Some(Caller::Node(id)) => {
            request.extensions_mut().insert(Caller::Node(id));
            Ok(request)
        }
        _ => Err(Status::unauthenticated("only nodes of this cluster may call this")),
    }
}

/// Lets a request through when a member's certificate stands behind it.
#[derive(Clone)]
struct OnlyMembers(Arc<Node>);

impl Interceptor for OnlyMembers {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let request = only_nodes(request)?;
        match request.extensions().get::<Caller>() {
            Some(Caller::Node(id)) if self.0.knows(*id) => Ok(request),
            _ => Err(Status::permission_denied(
                "this node was removed from the cluster, or is not known here yet",
            )),
        }
    }
}
