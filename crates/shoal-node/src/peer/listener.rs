//! Accepts TLS on the cluster address and hands each connection on by its ALPN protocol.

use std::sync::Arc;
use std::time::Duration;

use shoal_cluster::channel::MAX_MESSAGE_BYTES;
use shoal_cluster::tls::{Caller, peer_identity};
use shoal_configlog::RaftRpc;
use shoal_proto::cache::cache_service_server::CacheServiceServer;
use shoal_proto::raft::peer_service_server::PeerServiceServer;
use shoal_proto::raft::raft_service_server::RaftServiceServer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Status};

use super::PeerRpc;
use crate::incoming::{CallerIo, Connection};
use crate::node::Node;

/// TLS handshakes under way at once; more wait in the kernel's queue.
const MAX_HANDSHAKES: usize = 64;
/// Time for a handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections accepted but not yet taken by the gRPC server.
const MAX_PENDING: usize = 64;

/// Everything that is served on the cluster address.
pub struct PeerListener {
    /// Bound by the caller, so that a taken port is an error at start.
    pub socket: TcpListener,
    /// Asks for a client certificate and lets strangers through to [`PeerRpc`]'s `join` alone.
    pub tls: Arc<rustls::ServerConfig>,
    /// Consensus.
    pub raft: RaftRpc,
    /// Everything else between nodes.
    pub peer: PeerRpc,
    /// Bodies over HTTP/1.1, and the index over gRPC; and who is a member.
    pub node: Arc<Node>,
}

/// Serves until `stop`; then lets running calls end.
pub async fn serve(listener: PeerListener, stop: CancellationToken) -> anyhow::Result<()> {
    let PeerListener { socket, tls, raft, peer, node } = listener;
    let (grpc, incoming) = mpsc::channel::<std::io::Result<CallerIo<TlsStream<TcpStream>>>>(MAX_PENDING);
    let limits = MAX_MESSAGE_BYTES;
    let raft =
        RaftServiceServer::new(raft).max_decoding_message_size(limits).max_encoding_message_size(limits);
    let index = CacheServiceServer::new(node.cache.service());
    let peer =
        PeerServiceServer::new(peer).max_decoding_message_size(limits).max_encoding_message_size(limits);
    let server = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(5)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)))
        .add_service(InterceptedService::new(raft, OnlyMembers(node.clone())))
        .add_service(InterceptedService::new(index, OnlyMembers(node.clone())))
        .add_service(peer)
        .serve_with_incoming_shutdown(ReceiverStream::new(incoming), stop.clone().cancelled_owned());
    let accepting = accept(socket, TlsAcceptor::from(tls), node, grpc, stop);
    let (served, ()) = tokio::join!(server, accepting);
    Ok(served?)
}

async fn accept(
    socket: TcpListener,
    tls: TlsAcceptor,
    node: Arc<Node>,
    grpc: mpsc::Sender<std::io::Result<CallerIo<TlsStream<TcpStream>>>>,
    stop: CancellationToken,
) {
    let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    loop {
        let Ok(permit) = handshakes.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = socket.accept() => accepted,
        };
        let Ok((tcp, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await; // out of descriptors: do not spin
            continue;
        };
        _ = tcp.set_nodelay(true);
        let (tls, node, grpc) = (tls.clone(), node.clone(), grpc.clone());
        tokio::spawn(async move {
            let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(tcp)).await;
            drop(permit);
            if let Ok(Ok(stream)) = handshake {
                hand_on(stream, &node, grpc).await;
            }
        });
    }
}

async fn hand_on(
    stream: TlsStream<TcpStream>,
    node: &Node,
    grpc: mpsc::Sender<std::io::Result<CallerIo<TlsStream<TcpStream>>>>,
) {
    let caller = peer_identity(stream.get_ref().1);
    match (stream.get_ref().1.alpn_protocol(), caller) {
        (Some(b"http/1.1"), Some(Caller::Node(peer))) if node.is_member(peer) => {
            node.cache.clone().serve_peer(stream, peer).await;
        }
        (Some(b"h2"), caller) => _ = grpc.send(Ok(CallerIo::new(stream, caller))).await,
        _ => {}
    }
}

/// Lets a request through when a member's certificate stands behind it.
#[derive(Clone)]
struct OnlyMembers(Arc<Node>);

impl Interceptor for OnlyMembers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let caller =
            request.extensions().get::<Connection>().and_then(|connection| connection.caller.clone());
        match caller {
            Some(Caller::Node(id)) if self.0.is_member(id) => {
                request.extensions_mut().insert(Caller::Node(id));
                Ok(request)
            }
            _ => Err(Status::unauthenticated("only nodes of this cluster may call this")),
        }
    }
}
