//! A cluster of config logs in one process: real files, real TLS on loopback, everything else left out.

mod peer_rpc;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use shoal_cluster::channel::Peers;
use shoal_cluster::identity::{Authority, Identity, NODE_VALIDITY, NodeKey};
use shoal_cluster::tls::{caller, peer_server_config};
use shoal_configlog::{Applied, Compaction, ConfigLog, LogSettings, Past, Timings};
use shoal_model::NodeId;
use shoal_model::state::{
    Admission, COMMANDS, ClusterSetup, Command, MemberRecord, Reply, SiteText, Terms, TokenRecord,
};
use shoal_proto::raft::peer_service_server::PeerServiceServer;
use shoal_proto::raft::raft_service_server::RaftServiceServer;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tonic::{Request, Status};

use peer_rpc::PeerRpc;

pub const TIMINGS: Timings = Timings {
    heartbeat: Duration::from_millis(100),
    election_min: Duration::from_millis(400),
    election_max: Duration::from_millis(800),
    stable: Duration::from_secs(4),
};
/// Everything here takes a second or two; a busy machine may need longer.
const DEADLINE: Duration = Duration::from_secs(40);

/// Waits until `is_so`, or fails with what was waited for.
pub async fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < DEADLINE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

type Alive = Arc<Mutex<BTreeSet<NodeId>>>;

/// Some nodes, and what they would need from outside.
pub struct Cluster {
    first: Identity,
    authority: Authority,
    alive: Alive,
    compaction: Compaction,
    pub nodes: BTreeMap<NodeId, Node>,
}

/// One node: what it keeps while it is stopped, and its log while it runs.
pub struct Node {
    pub dir: TempDir,
    identity: Arc<Identity>,
    address: String,
    /// Everything it was told, as text.
    pub told: Arc<Mutex<Vec<String>>>,
    running: Option<Running>,
}

struct Running {
    log: ConfigLog,
    stop: oneshot::Sender<()>,
}

impl Node {
    pub fn log(&self) -> &ConfigLog {
        &self.running.as_ref().expect("the node runs").log
    }

    pub fn revision(&self) -> u64 {
        self.log().with_state(|state| state.revisions.active().0.0)
    }
}

impl Cluster {
    /// One node that has bootstrapped the cluster.
    pub async fn of_one(compaction: Compaction) -> Self {
        let (first, authority) = Identity::bootstrap("n1").unwrap();
        let mut cluster =
            Self { authority, compaction, alive: Alive::default(), nodes: BTreeMap::new(), first };
        let address = cluster.add(NodeId(1)).await;
        let log = cluster.log(1);
        log.bootstrap().await.unwrap();
        let command = Command::Bootstrap {
            cluster_id: cluster.first.cluster_id,
            ca_certificate: vec![1],
            ca_key_sealed: vec![2],
            node: record("n1", &address),
            setup: ClusterSetup::default(),
            level: COMMANDS,
        };
        assert_eq!(log.propose(command).await.unwrap().reply, Reply::Admitted(NodeId(1)));
        cluster
    }

    /// As many voters as `members` nodes have.
    pub async fn of(members: usize, voters: usize, compaction: Compaction) -> Self {
        let mut cluster = Self::of_one(compaction).await;
        while cluster.nodes.len() < members {
            cluster.join().await;
        }
        // Who has not heard of it would ask for the votes of those before.
        let knows = |(_, node): (NodeId, &Node)| node.log().status().voters.len() == voters;
        wait_until("enough nodes vote", || cluster.running().all(knows)).await;
        cluster
    }

    /// Admits a node and starts it; it is not waited for.
    pub async fn join(&mut self) -> NodeId {
        let name = format!("n{}", self.nodes.len() + 1);
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
        let log = self.leader().await;
        let token = TokenRecord {
            secret_sha256: "s".into(),
            expires_at_ms: u64::MAX,
            uses_left: 1,
            ..Default::default()
        };
        log.propose(Command::CreateToken { id: name.clone(), token }).await.unwrap();
        let node = record(&name, &address);
        let admission = Admission { token_id: name, secret_sha256: "s".into(), at_ms: 1, node };
        let Reply::Admitted(id) = log.propose(Command::Admit(admission)).await.unwrap().reply else {
            panic!("not admitted");
        };
        self.create(id, address);
        self.start(id).await;
        id
    }

    async fn add(&mut self, id: NodeId) -> String {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
        self.create(id, address.clone());
        self.start(id).await;
        address
    }

    fn create(&mut self, id: NodeId, address: String) {
        let key = NodeKey::generate().unwrap();
        let cert_der = self.authority.sign_node(&key.request().unwrap(), id, NODE_VALIDITY).unwrap();
        let identity =
            Arc::new(Identity { node_id: id, cert_der, key_der: key.key_der(), ..self.first.clone() });
        let dir = tempfile::tempdir().unwrap();
        self.nodes.insert(id, Node { dir, identity, address, told: Arc::default(), running: None });
    }

    /// Starts a node that is stopped.
    pub async fn start(&mut self, id: NodeId) {
        let (alive, compaction) = (Arc::clone(&self.alive), self.compaction);
        let node = self.nodes.get_mut(&id).unwrap();
        let told = Arc::clone(&node.told);
        let settings = LogSettings {
            dir: node.dir.path().to_owned(),
            past: if node.dir.path().join("raft.redb").exists() { Past::Kept } else { Past::MayBeNew },
            node_id: id,
            cluster_id: node.identity.cluster_id,
            address: node.address.clone(),
            timing: None,
            timings: Some(TIMINGS),
            compaction,
            peers: Peers::new(&node.identity).unwrap(),
            liveness: Arc::new(move || alive.lock().unwrap().clone()),
            on_applied: Arc::new(move |applied| told.lock().unwrap().push(describe(&applied))),
        };
        let log = ConfigLog::open(settings).await.unwrap();
        let stop = serve(&node.address, &node.identity, &log).await;
        node.running = Some(Running { log, stop });
        self.alive.lock().unwrap().insert(id);
    }

    /// Stops a node without a word to the others.
    pub async fn stop(&mut self, id: NodeId) {
        let running = self.nodes.get_mut(&id).unwrap().running.take().expect("the node runs");
        self.alive.lock().unwrap().remove(&id);
        running.stop.send(()).unwrap();
        running.log.shutdown().await;
    }

    pub fn log(&self, id: u64) -> ConfigLog {
        self.nodes[&NodeId(id)].log().clone()
    }

    pub fn running(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().filter(|(_, node)| node.running.is_some()).map(|(id, node)| (*id, node))
    }

    /// The leader's log, once there is one.
    pub async fn leader(&self) -> ConfigLog {
        let leads = |node: &Node| {
            let status = node.log().status();
            status.quorum && status.leader == Some(node.log().node_id())
        };
        wait_until("somebody leads", || self.running().any(|(_, node)| leads(node))).await;
        self.running().find(|(_, node)| leads(node)).expect("just seen").1.log().clone()
    }

    /// A running node that does not lead.
    pub async fn follower(&self) -> ConfigLog {
        let leader = self.leader().await.node_id();
        self.running().find(|(id, _)| *id != leader).expect("not alone").1.log().clone()
    }

    /// Every running node has this revision.
    pub async fn wait_for_revision(&self, revision: u64) {
        wait_until("every node has the revision", || {
            self.running().all(|(_, node)| node.revision() == revision)
        })
        .await;
    }
}

pub fn publish(request_id: &str, site: &str) -> Command {
    Command::Publish {
        request_id: request_id.into(),
        expected: None,
        site: SiteText::Inline(site.into()),
        author: "ann".into(),
        message: String::new(),
        at_ms: 1,
        counts: [1, 0, 0],
        terms: Terms::default(),
    }
}

fn record(name: &str, address: &str) -> MemberRecord {
    MemberRecord {
        name: name.into(),
        region: "default".into(),
        zone: "default".into(),
        cluster_addr: address.into(),
        admin_addr: address.into(),
        public_key_sha256: name.into(),
        ..MemberRecord::default()
    }
}

fn describe(applied: &Applied<'_>) -> String {
    match applied {
        Applied::Revision { revision, site, .. } => format!("revision {revision} {site}"),
        Applied::Purge { scopes, kind, .. } => format!("purge {scopes:?} {kind:?}"),
        Applied::PurgesForgotten { up_to, .. } => format!("purges up to {up_to} forgotten"),
        Applied::Members { nodes, .. } => format!("{} members", nodes.len()),
        Applied::Keys { keys } => format!("certificates of nodes last {} s", keys.node_seconds()),
        Applied::Snapshot { state, .. } => format!("snapshot at revision {}", state.revisions.active().0),
    }
}

async fn serve(address: &str, identity: &Identity, log: &ConfigLog) -> oneshot::Sender<()> {
    let listener = TcpListener::bind(address).await.unwrap();
    let acceptor = TlsAcceptor::from(peer_server_config(identity).unwrap());
    let (stop, mut stopped) = oneshot::channel();
    let (accepted, incoming) = mpsc::channel::<std::io::Result<TlsStream<TcpStream>>>(8);
    let serving = tonic::transport::Server::builder()
        .add_service(InterceptedService::new(RaftServiceServer::new(log.raft_rpc()), with_caller))
        .add_service(InterceptedService::new(
            PeerServiceServer::new(PeerRpc { log: log.clone() }),
            with_caller,
        ))
        .serve_with_incoming(ReceiverStream::new(incoming));
    let serving = tokio::spawn(serving);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = &mut stopped => break serving.abort(),
                connection = listener.accept() => {
                    let (tcp, _) = connection.unwrap();
                    tcp.set_nodelay(true).unwrap();
                    let (acceptor, accepted) = (acceptor.clone(), accepted.clone());
                    tokio::spawn(async move {
                        if let Ok(tls) = acceptor.accept(tcp).await {
                            accepted.send(Ok(tls)).await.ok();
                        }
                    });
                }
            }
        }
    });
    stop
}

fn with_caller(mut request: Request<()>) -> Result<Request<()>, Status> {
    let info = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>();
    let chain = info.and_then(|info| info.peer_certs());
    if let Some(caller) = chain.and_then(|chain| caller(&chain)) {
        request.extensions_mut().insert(caller);
    }
    Ok(request)
}
