//! The network of the simulation: a request goes straight into the service of the other node, when and if it arrives there.
//!
//! It is as bad as TCP can be: what is lost comes later, what is cut off is silent until somebody gives up the connection, and
//! whoever has given up may have been heard all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use rand::RngExt;
use rand::rngs::SmallRng;
use shoal_cluster::channel::UnknownPeer;
use shoal_cluster::tls::Caller;
use shoal_model::NodeId;
use shoal_proto::raft::peer_service_client::PeerServiceClient;
use shoal_proto::raft::peer_service_server::PeerServiceServer;
use shoal_proto::raft::raft_service_client::RaftServiceClient;
use shoal_proto::raft::raft_service_server::RaftServiceServer;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tonic::body::Body;
use tower_service::Service;

use super::seeded::dice;
use crate::log::ConfigLog;
use crate::network::RaftRpc;
use peer_rpc::PeerRpc;

#[path = "../../tests/support/peer_rpc.rs"]
mod peer_rpc;

/// After so much silence a connection is given up, as by pings that are not answered.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// Who gets no acknowledgements sends for no longer than that: of the first window of a connection, ten segments, a leader
/// uses one with each heartbeat (RFC 6928 §2).
const UNACKNOWLEDGED: Duration = Duration::from_secs(1);
/// Between two looks whether somebody can be reached again.
const LOOK_AGAIN: Duration = Duration::from_millis(40);

/// All nodes, and what is between them.
#[derive(Clone)]
pub struct Network {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    dice: SmallRng,
    /// Of the running ones.
    doors: BTreeMap<NodeId, Door>,
    /// From whom to whom nothing passes, and since when.
    cut: BTreeMap<(NodeId, NodeId), Instant>,
    /// These neither send nor hear, and do both later.
    asleep: BTreeSet<NodeId>,
    /// Per cent of what is sent that has to be sent again.
    loss: u32,
}

/// Where a running node hears others.
#[derive(Clone)]
struct Door {
    process: u64,
    raft: RaftServiceServer<RaftRpc>,
    peer: PeerServiceServer<PeerRpc>,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum NoAnswer {
    #[error("connection refused")]
    Refused,
    #[error("connection lost")]
    Lost,
}

impl Network {
    pub fn new() -> Self {
        let shared = Shared {
            dice: dice(),
            doors: BTreeMap::new(),
            cut: BTreeMap::new(),
            asleep: BTreeSet::new(),
            loss: 0,
        };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The way to others for the process of that number on `local`.
    pub fn peers(&self, local: NodeId, process: u64) -> Peers {
        Peers { network: self.clone(), local, process }
    }

    /// A process of a node is there to be asked.
    pub fn open(&self, node: NodeId, process: u64, log: &ConfigLog) {
        let raft = RaftServiceServer::new(log.raft_rpc());
        let peer = PeerServiceServer::new(PeerRpc { log: log.clone() });
        self.shared().doors.insert(node, Door { process, raft, peer });
    }

    /// It is not any more: nothing that it still says is heard, nor what is said to it.
    pub fn close(&self, node: NodeId) {
        self.shared().doors.remove(&node);
    }

    /// Nothing passes from one to the other any more.
    pub fn cut(&self, from: NodeId, to: NodeId) {
        self.shared().cut.entry((from, to)).or_insert_with(Instant::now);
    }

    /// A node does nothing that anybody would notice, until it wakes.
    pub fn lull(&self, node: NodeId) {
        self.shared().asleep.insert(node);
    }

    pub fn set_loss(&self, per_cent: u32) {
        self.shared().loss = per_cent;
    }

    /// Everything passes.
    pub fn mend(&self) {
        let mut shared = self.shared();
        shared.cut.clear();
        shared.asleep.clear();
        shared.loss = 0;
    }

    fn runs(&self, node: NodeId, process: u64) -> bool {
        self.shared().doors.get(&node).is_some_and(|door| door.process == process)
    }

    /// Until what is sent now arrives.
    async fn pass(&self, from: NodeId, to: NodeId) -> Result<(), NoAnswer> {
        let sent = Instant::now();
        loop {
            let (passes, millis) = {
                let mut shared = self.shared();
                let Shared { dice, cut, asleep, loss, .. } = &mut *shared;
                let is_unacknowledged =
                    cut.get(&(to, from)).is_some_and(|since| since.elapsed() >= UNACKNOWLEDGED);
                let passes = !cut.contains_key(&(from, to))
                    && !is_unacknowledged
                    && !asleep.contains(&from)
                    && !asleep.contains(&to);
                let is_lost = dice.random_range(0..100) < *loss;
                (passes, if is_lost { dice.random_range(150..450) } else { dice.random_range(0..3) })
            };
            if passes {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                return Ok(());
            }
            if sent.elapsed() > KEEP_ALIVE {
                return Err(NoAnswer::Lost);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn ask(
        self,
        (from, process): (NodeId, u64),
        to: NodeId,
        mut request: http::Request<Body>,
    ) -> Result<http::Response<Body>, NoAnswer> {
        self.pass(from, to).await?;
        let door = self.shared().doors.get(&to).cloned();
        let Some(mut door) = door.filter(|_| self.runs(from, process)) else {
            return Err(NoAnswer::Refused);
        };
        request.extensions_mut().insert(Caller::Node(from));
        let answer = match request.uri().path().starts_with("/shoal.raft.v1.RaftService/") {
            true => door.raft.call(request).await,
            false => door.peer.call(request).await,
        };
        if !self.runs(to, door.process) {
            return Err(NoAnswer::Lost);
        }
        self.pass(to, from).await?;
        answer.map_err(|never| match never {})
    }
}

/// The other nodes, as one process sees them.
#[derive(Clone)]
pub struct Peers {
    network: Network,
    local: NodeId,
    process: u64,
}

impl Peers {
    /// Everybody is known by name.
    pub fn address(&self, _node: NodeId) -> Option<SocketAddr> {
        Some(SocketAddr::from(([127, 0, 0, 1], 1)))
    }

    pub fn set_address(&self, _node: NodeId, _address: SocketAddr) {}

    fn channel(&self, node: NodeId) -> PeerChannel {
        PeerChannel { peers: self.clone(), node }
    }

    pub fn raft(&self, node: NodeId) -> Result<RaftServiceClient<PeerChannel>, UnknownPeer> {
        Ok(RaftServiceClient::new(self.channel(node)))
    }

    pub fn snapshot(&self, node: NodeId) -> Result<RaftServiceClient<PeerChannel>, UnknownPeer> {
        self.raft(node)
    }

    pub fn control(&self, node: NodeId) -> Result<PeerServiceClient<PeerChannel>, UnknownPeer> {
        Ok(PeerServiceClient::new(self.channel(node)))
    }
}

/// The way to one of them.
#[derive(Clone)]
pub struct PeerChannel {
    peers: Peers,
    node: NodeId,
}

impl Service<http::Request<Body>> for PeerChannel {
    type Response = http::Response<Body>;
    type Error = NoAnswer;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, NoAnswer>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NoAnswer>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let Peers { network, local, process } = self.peers.clone();
        let (answer, answered) = oneshot::channel();
        let asking = network.ask((local, process), self.node, request);
        // Of its own: who gives up waiting does not take back what is on its way.
        tokio::spawn(async move { answer.send(asking.await).ok() });
        Box::pin(async move { answered.await.unwrap_or(Err(NoAnswer::Lost)) })
    }
}
