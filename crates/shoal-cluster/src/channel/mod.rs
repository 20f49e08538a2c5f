//! Connections to other nodes: mutual TLS, cached, bounded in time, dropped at the first error.

mod belief;
mod connector;
mod cuttable;
mod peer_channel;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustc_hash::{FxHashMap, FxHashSet};
use shoal_model::{ClusterId, NodeId};
use shoal_proto::cache::cache_service_client::CacheServiceClient;
use shoal_proto::raft::peer_service_client::PeerServiceClient;
use shoal_proto::raft::raft_service_client::RaftServiceClient;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use crate::identity::Identity;
use crate::tls::{ClientSide, Credentials, Speaks, TlsError, names};
use crate::view::ClusterView;

pub use belief::Belief;
pub use connector::ConnectError;
pub(crate) use connector::{Connector, Target, connect_tls, wants_certificate};
pub use cuttable::Cuttable;
pub use peer_channel::PeerChannel;

/// For a connection to be made, TLS included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// From one HTTP/2 ping to the next, on idle connections too: a half-open connection must not go unnoticed.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// For the answer to a ping.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest message in either direction, bytes. Servers of these services should set the same.
pub const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// After this long a node is connected to anew, so that what certificates say is looked at again.
const MAX_CHANNEL_AGE: Duration = Duration::from_secs(20 * 3600);
/// Requests that may wait for one channel.
const CHANNEL_QUEUE: usize = 256;

/// What a channel is for. Each has its own connection, so that a large transfer does not delay a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Consensus: small and urgent.
    Raft,
    /// Everything else that is asked and answered.
    Control,
    /// Raft snapshots: large and rare.
    Snapshot,
}

impl Lane {
    /// Upper bound of one call; callers set shorter deadlines per request.
    const fn deadline(self) -> Duration {
        match self {
            Self::Raft => Duration::from_secs(5),
            Self::Control => Duration::from_secs(60),
            Self::Snapshot => Duration::from_secs(300),
        }
    }
}

/// Nothing is known of where a node can be reached.
#[derive(Debug, thiserror::Error)]
#[error("no address is known for node {0}")]
pub struct UnknownPeer(pub NodeId);

/// The other nodes, as seen from here. Clones share everything.
#[derive(Clone)]
pub struct Peers {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    cluster_id: ClusterId,
    credentials: Credentials,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    addresses: FxHashMap<NodeId, SocketAddr>,
    /// What members are known by (SHA-256 of the public key, hex), where the log has told.
    keys: FxHashMap<NodeId, String>,
    channels: FxHashMap<(NodeId, Lane), Cached>,
    /// Nodes that are not to be called any more, whoever says where they are.
    expelled: FxHashSet<NodeId>,
    /// Counts channels, so that an error of an old one does not drop its successor.
    made: u64,
}

struct Cached {
    serial: u64,
    made: Instant,
    /// Of the credentials with which it connects.
    generation: u64,
    channel: Channel,
    /// Ends its connection.
    cut: CancellationToken,
}

impl Peers {
    /// Knows nobody yet.
    pub fn new(identity: &Identity) -> Result<Self, TlsError> {
        Credentials::new(identity.clone()).map(Self::with)
    }

    /// The same with credentials that are replaced when they are about to end.
    pub fn with(credentials: Credentials) -> Self {
        let cluster_id = credentials.identity().cluster_id;
        Self { shared: Arc::new(Shared { cluster_id, credentials, book: Mutex::default() }) }
    }

    /// What this node proves itself with.
    pub fn credentials(&self) -> &Credentials {
        &self.shared.credentials
    }

    /// How to call a node with nothing to prove oneself with.
    pub(crate) fn door_of(&self, node: NodeId) -> Result<Target, UnknownPeer> {
        let address = self.address(node).ok_or(UnknownPeer(node))?;
        let name = names::node_server_name(node, self.shared.cluster_id);
        let tls = ClientSide::Of(self.shared.credentials.clone(), Speaks::Unproven);
        Ok(Target { address, name, tls, key: self.shared.with_book(|book| book.keys.get(&node).cloned()) })
    }

    /// Where a node can be reached from now on. Channels to another address of it are dropped.
    pub fn set_address(&self, node: NodeId, address: SocketAddr) {
        self.shared.with_book(|book| book.set_address(node, address));
    }

    /// The key that a node has to show from now on (SHA-256 of the public one, hex). Its channels are opened anew where it was another.
    pub fn set_key(&self, node: NodeId, key: &str) {
        self.shared.with_book(|book| book.set_key(node, key));
    }

    /// Takes over the addresses that nodes gossip of themselves. Those of nodes not in the view are kept: they may be
    /// known from the log.
    pub fn learn_from(&self, view: &ClusterView) {
        self.shared.with_book(|book| {
            for node in view.nodes.iter().filter(|node| node.id != view.local) {
                book.set_address(node.id, node.cluster_addr);
            }
        });
    }

    /// Never calls these nodes again: their connections are cut, with all that is under way on them.
    pub fn expel(&self, nodes: impl IntoIterator<Item = NodeId>) {
        self.shared.with_book(|book| {
            for node in nodes {
                book.expelled.insert(node);
                book.addresses.remove(&node);
                for (_, cached) in book.channels.extract_if(|(of, _), _| *of == node) {
                    cached.cut.cancel();
                }
            }
        });
    }

    /// Where a node can be reached.
    pub fn address(&self, node: NodeId) -> Option<SocketAddr> {
        self.shared.with_book(|book| book.addresses.get(&node).copied())
    }

    /// The channel to a node. It connects when first used, and is replaced at the first transport error. Must be called
    /// within a tokio runtime, on which the channel then lives.
    pub fn channel(&self, node: NodeId, lane: Lane) -> Result<PeerChannel, UnknownPeer> {
        let shared = &self.shared;
        shared.with_book(|book| {
            let address = *book.addresses.get(&node).ok_or(UnknownPeer(node))?;
            let Book { channels, made, keys, .. } = book;
            let generation = shared.credentials.generation();
            // What is under way on it goes on.
            let is_outdated = |cached: &mut Cached| {
                cached.generation != generation || cached.made.elapsed() > MAX_CHANNEL_AGE
            };
            if channels.get_mut(&(node, lane)).is_some_and(is_outdated) {
                channels.remove(&(node, lane));
            }
            let cached = channels.entry((node, lane)).or_insert_with(|| {
                *made += 1;
                let cut = CancellationToken::new();
                let channel = shared.open(node, address, keys.get(&node).cloned(), lane, cut.clone());
                Cached { serial: *made, made: Instant::now(), generation, channel, cut }
            });
            let (serial, channel) = (cached.serial, cached.channel.clone());
            Ok(PeerChannel::new(channel, Arc::downgrade(shared), node, lane, serial))
        })
    }

    /// Consensus with a node, on [`Lane::Raft`].
    pub fn raft(&self, node: NodeId) -> Result<RaftServiceClient<PeerChannel>, UnknownPeer> {
        self.channel(node, Lane::Raft).map(sized_raft)
    }

    /// Raft snapshots to a node, on [`Lane::Snapshot`].
    pub fn snapshot(&self, node: NodeId) -> Result<RaftServiceClient<PeerChannel>, UnknownPeer> {
        self.channel(node, Lane::Snapshot).map(sized_raft)
    }

    /// Everything else asked of a node, on [`Lane::Control`].
    pub fn control(&self, node: NodeId) -> Result<PeerServiceClient<PeerChannel>, UnknownPeer> {
        self.channel(node, Lane::Control).map(|channel| {
            PeerServiceClient::new(channel)
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES)
        })
    }

    /// The cache index of a node, on [`Lane::Control`].
    pub fn cache(&self, node: NodeId) -> Result<CacheServiceClient<PeerChannel>, UnknownPeer> {
        self.channel(node, Lane::Control).map(|channel| {
            CacheServiceClient::new(channel)
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES)
        })
    }

    /// A connection of the caller's own to a node, for HTTP/1.1. It lives on the runtime it is made on: any worker may.
    pub async fn connect_http1(&self, node: NodeId) -> Result<TlsStream<TcpStream>, ConnectError> {
        let address = self.address(node).ok_or(UnknownPeer(node))?;
        let name = names::node_server_name(node, self.shared.cluster_id);
        let tls = ClientSide::Of(self.shared.credentials.clone(), Speaks::Http1);
        let key = self.shared.with_book(|book| book.keys.get(&node).cloned());
        connect_tls(&Target { address, name, tls, key }).await
    }
}

impl Shared {
    fn open(
        &self,
        node: NodeId,
        address: SocketAddr,
        key: Option<String>,
        lane: Lane,
        cut: CancellationToken,
    ) -> Channel {
        let name = names::node_server_name(node, self.cluster_id);
        let tls = ClientSide::Of(self.credentials.clone(), Speaks::Http2);
        let target = Target { address, name, tls, key };
        endpoint(lane.deadline()).connect_with_connector_lazy(Connector::to(target, cut))
    }

    /// Drops a channel that failed, unless it was replaced already.
    pub(crate) fn discard(&self, node: NodeId, lane: Lane, serial: u64) {
        self.with_book(|book| {
            if book.channels.get(&(node, lane)).is_some_and(|cached| cached.serial == serial) {
                book.channels.remove(&(node, lane));
            }
        });
    }

    /// The lock is never held across an await.
    fn with_book<T>(&self, read: impl FnOnce(&mut Book) -> T) -> T {
        read(&mut self.book.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Book {
    fn set_address(&mut self, node: NodeId, address: SocketAddr) {
        if !self.expelled.contains(&node) && self.addresses.insert(node, address) != Some(address) {
            self.channels.retain(|(of, _), _| *of != node);
        }
    }

    fn set_key(&mut self, node: NodeId, key: &str) {
        if key.is_empty() || self.keys.get(&node).is_some_and(|known| known == key) {
            return;
        }
        self.keys.insert(node, key.to_owned());
        // Whoever is at their other end has not been asked for it.
        self.channels.retain(|(of, _), _| *of != node);
    }
}

fn sized_raft(channel: PeerChannel) -> RaftServiceClient<PeerChannel> {
    RaftServiceClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// HTTP/2 as it is spoken between nodes. TLS is the connector's, which knows whom to expect: the address here is only
/// what the `:authority` says.
pub(crate) fn endpoint(deadline: Duration) -> Endpoint {
    Endpoint::from_static("http://shoal.internal")
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(deadline)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .buffer_size(CHANNEL_QUEUE)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http_body_util::Full;
    use hyper::body::Bytes;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use shoal_proto::raft::ReadIndexRequest;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::identity::{Authority, NODE_VALIDITY, NodeKey, key_of};
    use crate::tls::{Caller, peer_identity, peer_server_config};

    fn member(of: &Identity, authority: &Authority, node_id: u64) -> Identity {
        let key = NodeKey::generate().unwrap();
        let node_id = NodeId(node_id);
        let cert_der = authority.sign_node(&key.request().unwrap(), node_id, NODE_VALIDITY).unwrap();
        Identity { node_id, cert_der, key_der: key.key_der(), ..of.clone() }
    }

    /// A node that answers every gRPC call with an empty message, and tells who connected.
    struct Node {
        address: SocketAddr,
        connections: Arc<AtomicUsize>,
        callers: tokio::sync::mpsc::UnboundedReceiver<Option<Caller>>,
    }

    async fn serve(identity: &Identity) -> Node {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(peer_server_config(identity).unwrap());
        let connections = Arc::new(AtomicUsize::new(0));
        let (told, callers) = tokio::sync::mpsc::unbounded_channel();
        let counted = connections.clone();
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let Ok(tls) = acceptor.accept(tcp).await else { continue };
                let _ = told.send(peer_identity(tls.get_ref().1));
                // Every odd connection is closed at once, as by a node that restarts.
                if counted.fetch_add(1, Ordering::Relaxed) % 2 == 1 {
                    continue;
                }
                let answer = hyper::service::service_fn(async |_request| {
                    let response = http::Response::builder()
                        .header("content-type", "application/grpc")
                        .header("grpc-status", "5")
                        .body(Full::new(Bytes::new()));
                    Ok::<_, Infallible>(response.unwrap())
                });
                tokio::spawn(
                    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(tls), answer),
                );
            }
        });
        Node { address, connections, callers }
    }

    #[tokio::test]
    async fn nodes_prove_themselves_to_each_other() {
        let (one, authority) = Identity::bootstrap("one").unwrap();
        let mut node = serve(&member(&one, &authority, 2)).await;
        let peers = Peers::new(&one).unwrap();
        assert!(peers.channel(NodeId(2), Lane::Raft).is_err());
        peers.set_address(NodeId(2), node.address);
        let status = peers.control(NodeId(2)).unwrap().read_index(ReadIndexRequest {}).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::NotFound, "{status:?}");
        assert_eq!(node.callers.recv().await, Some(Some(Caller::Node(NodeId(1)))));

        // The same channel again: no new connection.
        let again = peers.control(NodeId(2)).unwrap().read_index(ReadIndexRequest {}).await;
        assert_eq!(again.unwrap_err().code(), tonic::Code::NotFound);
        assert_eq!(node.connections.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_node_cannot_stand_in_for_another() {
        let (one, authority) = Identity::bootstrap("one").unwrap();
        let node = serve(&member(&one, &authority, 2)).await;
        let (stranger, _) = Identity::bootstrap("stranger").unwrap();
        let check = async |identity: &Identity, expected_id: u64| {
            let peers = Peers::new(identity).unwrap();
            peers.set_address(NodeId(expected_id), node.address);
            let status = peers.control(NodeId(expected_id)).unwrap().read_index(ReadIndexRequest {}).await;
            assert_eq!(status.unwrap_err().code(), tonic::Code::Unavailable);
            assert!(peers.connect_http1(NodeId(expected_id)).await.is_err());
        };
        check(&one, 3).await;
        check(&stranger, 2).await;
        assert_eq!(node.connections.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn who_is_expelled_is_cut_off() {
        let (one, authority) = Identity::bootstrap("one").unwrap();
        let node = serve(&member(&one, &authority, 2)).await;
        let peers = Peers::new(&one).unwrap();
        peers.set_address(NodeId(2), node.address);
        let mut client = peers.control(NodeId(2)).unwrap();
        let answered = client.read_index(ReadIndexRequest {}).await.unwrap_err();
        assert_eq!(answered.code(), tonic::Code::NotFound);
        peers.expel([NodeId(2)]);
        // What has a channel already can do no more with it: at most it connects in vain.
        let cut = client.read_index(ReadIndexRequest {}).await.unwrap_err();
        assert_ne!(cut.code(), tonic::Code::NotFound, "{cut:?}");
    }

    #[tokio::test]
    async fn who_shows_another_key_is_not_spoken_to() {
        let (one, authority) = Identity::bootstrap("one").unwrap();
        let [known, forged] = [(); 2].map(|()| member(&one, &authority, 2));
        let peers = Peers::new(&one).unwrap();
        let answer_of = async |identity: &Identity| {
            let node = serve(identity).await;
            peers.set_address(NodeId(2), node.address);
            let asked = peers.control(NodeId(2)).unwrap().read_index(ReadIndexRequest {}).await;
            asked.unwrap_err().code()
        };
        assert_eq!(answer_of(&forged).await, tonic::Code::NotFound, "nothing is known of its key");
        peers.set_key(NodeId(2), &key_of(&known.cert_der).unwrap());
        assert_ne!(answer_of(&forged).await, tonic::Code::NotFound);
        assert_eq!(answer_of(&known).await, tonic::Code::NotFound);
    }

    #[tokio::test]
    async fn a_broken_channel_is_replaced() {
        let (one, authority) = Identity::bootstrap("one").unwrap();
        let node = serve(&member(&one, &authority, 2)).await;
        // The first connection is used up here, so that the next one is closed at once.
        let peers = Peers::new(&one).unwrap();
        peers.set_address(NodeId(2), node.address);
        drop(peers.connect_http1(NodeId(2)).await.unwrap());
        let broken = peers.control(NodeId(2)).unwrap().read_index(ReadIndexRequest {}).await.unwrap_err();
        assert_ne!(broken.code(), tonic::Code::NotFound, "{broken:?}");
        let replaced = peers.control(NodeId(2)).unwrap().read_index(ReadIndexRequest {}).await.unwrap_err();
        assert_eq!(replaced.code(), tonic::Code::NotFound, "{replaced:?}");
    }

    #[tokio::test]
    async fn a_new_certificate_needs_no_new_process() {
        let (one, authority) = Identity::bootstrap("one").unwrap();
        let mut node = serve(&member(&one, &authority, 2)).await;
        let credentials = Credentials::new(one.clone()).unwrap();
        let peers = Peers::with(credentials.clone());
        peers.set_address(NodeId(2), node.address);
        let mut client = peers.control(NodeId(2)).unwrap();
        let status = client.read_index(ReadIndexRequest {}).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::NotFound, "{status:?}");
        assert_eq!(node.callers.recv().await, Some(Some(Caller::Node(NodeId(1)))));
        let before = peers.channel(NodeId(2), Lane::Control).unwrap().serial();
        credentials.replace(member(&one, &authority, 7)).unwrap();
        assert_ne!(peers.channel(NodeId(2), Lane::Control).unwrap().serial(), before);
        // The second connection is one that is closed at once; who calls is told before.
        drop(peers.control(NodeId(2)).unwrap().read_index(ReadIndexRequest {}).await);
        assert_eq!(node.callers.recv().await, Some(Some(Caller::Node(NodeId(7)))));
        // What is under way on the old channel goes on.
        let status = client.read_index(ReadIndexRequest {}).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::NotFound, "{status:?}");
    }

    #[tokio::test]
    async fn changed_addresses_drop_channels() {
        let (one, _) = Identity::bootstrap("one").unwrap();
        let peers = Peers::new(&one).unwrap();
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let serial = |peers: &Peers| peers.channel(NodeId(2), Lane::Raft).unwrap().serial();
        peers.set_address(NodeId(2), address(1));
        let first = serial(&peers);
        peers.set_address(NodeId(2), address(1));
        assert_eq!(serial(&peers), first);
        peers.set_address(NodeId(2), address(2));
        assert_ne!(serial(&peers), first);
        peers.expel([NodeId(2)]);
        peers.set_address(NodeId(2), address(3));
        assert!(peers.channel(NodeId(2), Lane::Raft).is_err());
    }
}
