//! The gossip: what every node says of itself reaches every other within a second, without anybody in charge.

mod fold;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod guard;
mod hear;
mod keys;
mod members;
mod replay;
mod run;
mod seal;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod transport;
mod twin;
mod witness;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use shoal_model::{ClusterId, EndpointId, NodeId, UpstreamId};
use shoal_policy::agreement::StateHash;
use shoal_policy::health::{Fact, encode_shards};
use shoal_policy::readiness::ReadyIn;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::health::{FACT_REFRESH, Opinion, RegionFacts, Round, Verdict};
use crate::identity::{Identity, KeyRing};
use crate::view::{ClusterView, NodeState};
use keys::{HealthView, OwnKeys};
use members::Members;

pub use keys::MAX_PUBLIC_ADDRESSES;
pub use transport::GossipCounters;
pub use twin::Twin;

/// How this node takes part.
#[derive(Clone, Debug)]
pub struct GossipSettings {
    /// Which cluster.
    pub cluster_id: ClusterId,
    /// Raised by recovery: nodes of a lower one are not heard.
    pub cluster_epoch: u64,
    /// Seal what is sent, until others are given: see [`Gossip::set_keys`].
    pub keys: KeyRing,
    /// Who this node is.
    pub node_id: NodeId,
    /// Its `--name`.
    pub name: String,
    /// Where it receives, UDP. Port 0 = any, see [`Gossip::local_addr`].
    pub listen: SocketAddr,
    /// Where others reach it, if that is another address.
    pub advertise: Option<SocketAddr>,
    /// Where operators reach it.
    pub admin_addr: String,
    /// Its `--region`.
    pub region: String,
    /// Its `--zone`.
    pub zone: String,
    /// Its version.
    pub version: String,
    /// Where downstreams reach it; at most [`MAX_PUBLIC_ADDRESSES`] are told.
    pub public: Vec<IpAddr>,
    /// Whom to talk to first.
    pub seeds: Vec<SocketAddr>,
    /// How often.
    pub timing: GossipTiming,
}

impl GossipSettings {
    /// For this node, with everything else at its default.
    pub fn of(identity: &Identity, listen: SocketAddr) -> Self {
        Self {
            cluster_id: identity.cluster_id,
            cluster_epoch: identity.cluster_epoch,
            keys: identity.gossip_keys.clone().unwrap_or_else(|| KeyRing::of_secret(&identity.secret)),
            node_id: identity.node_id,
            name: identity.name.clone(),
            listen,
            advertise: None,
            admin_addr: String::new(),
            region: String::new(),
            zone: String::new(),
            version: String::new(),
            public: Vec::new(),
            seeds: Vec::new(),
            timing: GossipTiming::default(),
        }
    }
}

/// How fast the gossip is. A death is noticed after about 8 mean gaps between signs of life, and 4 rounds at least.
#[derive(Clone, Copy, Debug)]
pub struct GossipTiming {
    /// From one round to the next.
    pub interval: Duration,
    /// What the gaps are taken to be before any was measured.
    pub initial_interval: Duration,
    /// Gaps that long × this are a death.
    pub phi_threshold: f64,
}

impl Default for GossipTiming {
    fn default() -> Self {
        let interval = Duration::from_millis(500);
        Self { interval, initial_interval: interval, phi_threshold: 8.0 }
    }
}

/// The gossip cannot start.
#[derive(Debug, thiserror::Error)]
pub enum GossipError {
    /// The address cannot be bound.
    #[error("cannot receive gossip on {listen}/udp: {source}")]
    Bind {
        /// Which.
        listen: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The address is one for listening only.
    #[error("other nodes cannot reach {0}: choose the address of one interface")]
    Unreachable(SocketAddr),
}

/// This node's part in the gossip. It ends when this is dropped.
pub struct Gossip {
    shared: Arc<Shared>,
    local_addr: SocketAddr,
    interval: Duration,
    stop: CancellationToken,
    ended: CancellationToken,
}

/// What carries the messages, from one generation of the gossip to the next.
enum Wire {
    Udp(Arc<UdpSocket>),
    #[cfg(test)]
    Simulated(simulation::Air),
}

/// What the running gossip and its handle share. Locks are never held across an await.
struct Shared {
    own: Mutex<OwnKeys>,
    keys: Arc<ArcSwap<KeyRing>>,
    members: Arc<Mutex<Members>>,
    /// Something of the above has changed, or another node's keys have.
    wake: Notify,
    view: Arc<ArcSwap<ClusterView>>,
    changes: watch::Sender<Arc<ClusterView>>,
    twin: watch::Sender<Option<Twin>>,
    health: Mutex<HealthState>,
    counters: Arc<GossipCounters>,
}

/// What the last round knew of facts, for [`Gossip::opinions`] and [`Gossip::verdicts`].
#[derive(Default)]
struct HealthState {
    here: RegionFacts,
    elsewhere: BTreeMap<Arc<str>, RegionFacts>,
    fresh_for: Duration,
}

impl HealthState {
    fn round<'a>(&self, facts: &'a RegionFacts) -> Round<'a> {
        facts.round(self.fresh_for, true, 0)
    }
}

impl Gossip {
    /// Starts on the current tokio runtime. The first view has this node in it, in the state `joining`.
    pub async fn start(settings: GossipSettings) -> Result<Self, GossipError> {
        let failed = |source| GossipError::Bind { listen: settings.listen, source };
        let socket = std::net::UdpSocket::bind(settings.listen).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        Self::start_on(socket, settings)
    }

    /// The same on a socket that is bound to [`GossipSettings::listen`] already, and does not block.
    pub fn start_on(socket: std::net::UdpSocket, settings: GossipSettings) -> Result<Self, GossipError> {
        let failed = |source| GossipError::Bind { listen: settings.listen, source };
        let socket = UdpSocket::from_std(socket).map_err(failed)?;
        let local_addr = socket.local_addr().map_err(failed)?;
        let advertise = settings.advertise.unwrap_or(local_addr);
        if advertise.ip().is_unspecified() {
            return Err(GossipError::Unreachable(advertise));
        }
        Ok(Self::start_over(Wire::Udp(Arc::new(socket)), local_addr, settings))
    }

    /// The same over any wire that leads to `local_addr`.
    fn start_over(wire: Wire, local_addr: SocketAddr, settings: GossipSettings) -> Self {
        let advertise = settings.advertise.unwrap_or(local_addr);
        let interval = settings.timing.interval;
        let (changes, _) = watch::channel(Arc::default());
        let shared = Arc::new(Shared {
            own: Mutex::new(own_keys(&settings)),
            keys: Arc::new(ArcSwap::from_pointee(settings.keys.clone())),
            members: Arc::default(),
            wake: Notify::new(),
            view: Arc::default(),
            changes,
            twin: watch::Sender::new(None),
            health: Mutex::default(),
            counters: Arc::default(),
        });
        let stop = CancellationToken::new();
        let runner = run::Runner::new(settings, advertise, wire, shared.clone());
        let (stopped, ended) = (stop.clone(), CancellationToken::new());
        let guard = ended.clone().drop_guard();
        tokio::spawn(async move {
            let _tells_even_if_it_panics = guard;
            tokio::select! {
                () = runner.run() => {}
                () = stopped.cancelled() => {}
            }
        });
        Self { shared, local_addr, interval, stop, ended }
    }

    /// Where this node receives.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// What is known of the cluster, always the latest.
    pub fn view(&self) -> &Arc<ArcSwap<ClusterView>> {
        &self.shared.view
    }

    /// Every new view. Slow readers miss those in between.
    pub fn subscribe(&self) -> watch::Receiver<Arc<ClusterView>> {
        self.shared.changes.subscribe()
    }

    /// Another process that speaks with this node's identity, as long as it is heard.
    pub fn twin(&self) -> watch::Receiver<Option<Twin>> {
        self.shared.twin.subscribe()
    }

    /// The nodes of the log's table as of the entry at `through`, with their cluster addresses: others are ignored from now on,
    /// those that were removed neither heard nor told anything, and these are called again and again while they are silent.
    pub fn set_members(&self, members: impl IntoIterator<Item = (NodeId, SocketAddr)>, through: u64) {
        self.shared.members.lock().unwrap_or_else(PoisonError::into_inner).replace(members, through);
        self.shared.wake.notify_one();
    }

    /// What is sealed with from now on, and what else is believed. Nobody falls silent for it, as long as all that are heard
    /// believe what is sealed with.
    pub fn set_keys(&self, keys: KeyRing) {
        if **self.shared.keys.load() != keys {
            self.shared.keys.store(Arc::new(keys));
        }
    }

    /// What is sealed with, and what else is believed.
    pub fn keys(&self) -> Arc<KeyRing> {
        self.shared.keys.load_full()
    }

    /// What this node is doing.
    pub fn set_state(&self, state: NodeState) {
        self.set_own(keys::STATE, keys::state_name(state).to_owned());
    }

    /// Requests in flight. Told in coarse steps; call it once a second at most.
    pub fn set_load(&self, requests: u32) {
        self.set_own(keys::LOAD, keys::coarse(requests).to_string());
    }

    /// Requests a second that reach this node for upstreams with endpoints in several regions. Call it once a second at
    /// most.
    pub fn set_offered(&self, rates: impl IntoIterator<Item = (UpstreamId, u32)>) {
        self.set_own(keys::OFFERED, keys::encode_offers(rates));
    }

    /// The revision this node serves.
    pub fn set_active_revision(&self, revision: u64) {
        self.set_own(keys::REVISION, revision.to_string());
    }

    /// The log index this node has applied.
    pub fn set_applied_index(&self, index: u64) {
        self.set_own(keys::APPLIED, index.to_string());
    }

    /// The log index up to which all that this node has cached was checked against purges.
    pub fn set_checked_seq(&self, seq: u64) {
        self.set_own(keys::CHECKED, seq.to_string());
    }

    /// Whether this node should be sent requests; it says no until it is told.
    pub fn set_ready(&self, ready: ReadyIn) {
        self.set_own(keys::READY, ready.to_string());
    }

    /// Which commands of the log this node knows.
    pub fn set_commands(&self, known: u32) {
        self.set_own(keys::COMMANDS, known.to_string());
    }

    /// What the state of this node is after an entry after which all are compared; `None` = it is not to be compared.
    pub fn set_state_hash(&self, hash: Option<StateHash>) {
        self.set_own(keys::STATE_HASH, hash.map(|hash| hash.to_string()).unwrap_or_default());
    }

    /// What this node's checks and traffic found, exceptions only; what is not among `facts` is fine. Once every
    /// endpoint this node checks under [`ClusterView::placement_id`] has a verdict, `checked_through` says so; until then
    /// it is `None`, and what was said before stands.
    ///
    /// To be called at each change and at least every [`FACT_REFRESH`]: a checker that stops calling is soon not believed.
    pub fn publish_facts(&self, facts: impl IntoIterator<Item = Fact>, checked_through: Option<u64>) {
        let shards = encode_shards(facts);
        let beat = transport::unix_ms() / 1000 / FACT_REFRESH.as_secs();
        self.shared.with_own(|own| {
            let before = own.get(keys::HEALTH_VIEW).and_then(|text| HealthView::decode(text));
            let checked_through = checked_through.or(before.unwrap_or_default().checked_through);
            own.insert(keys::HEALTH_VIEW, HealthView { checked_through, beat }.encode());
            for (key, shard) in keys::HEALTH_SHARDS.into_iter().zip(shards) {
                // An absent key needs no deletion marker: an empty one says the same.
                if !shard.is_empty() || own.contains_key(key) {
                    own.insert(key, shard);
                }
            }
        });
    }

    /// Who in this node's region says what of an endpoint, and since when.
    pub fn opinions(&self, endpoint: EndpointId) -> Vec<Opinion> {
        let health = self.shared.health();
        health.round(&health.here).opinions(endpoint)
    }

    /// What each region says of an endpoint, this node's first, the others by name; empty where all nodes are of one. It is for
    /// people: requests go by what the own region says.
    pub fn verdicts(&self, endpoint: EndpointId) -> Vec<Verdict> {
        let view = self.shared.view.load();
        let health = self.shared.health();
        let Some(own) = view.node(view.local).filter(|_| !health.elsewhere.is_empty()) else {
            return Vec::new();
        };
        let known = view.endpoints.get(&endpoint).map(|state| state.availability);
        let here = health.round(&health.here).verdict(&own.region, endpoint, known);
        let elsewhere = health.elsewhere.iter();
        let elsewhere = elsewhere.map(|(region, facts)| health.round(facts).verdict(region, endpoint, None));
        std::iter::once(here).chain(elsewhere).collect()
    }

    /// Bytes of all that this node says of itself.
    pub fn own_bytes(&self) -> u64 {
        let own = self.shared.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum()
    }

    /// What was sent, received and dropped so far.
    pub fn counters(&self) -> &GossipCounters {
        &self.shared.counters
    }

    /// Says goodbye, and stops once the others had time to hear it.
    pub async fn leave(&self) {
        self.set_state(NodeState::Left);
        tokio::time::sleep(3 * self.interval).await;
        self.stop.cancel();
    }

    /// Stops without a goodbye: another process speaks for this node from now on.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.ended.cancelled().await;
    }

    /// Resolves when the gossip runs no more: after [`Gossip::leave`] or [`Gossip::stop`], or because of a defect. What ends inside it by itself
    /// is started again without a word from here.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    fn set_own(&self, key: &'static str, value: String) {
        self.shared.with_own(|own| {
            own.insert(key, value);
        });
    }
}

impl Drop for Gossip {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Shared {
    fn health(&self) -> MutexGuard<'_, HealthState> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_own(&self, change: impl FnOnce(&mut OwnKeys)) {
        change(&mut self.own.lock().unwrap_or_else(PoisonError::into_inner));
        self.wake.notify_one();
    }
}

fn own_keys(settings: &GossipSettings) -> OwnKeys {
    let (ready, public) = (ReadyIn::default().to_string(), keys::encode_addresses(&settings.public));
    [
        (keys::NAME, settings.name.as_str()),
        (keys::ADMIN, &settings.admin_addr),
        (keys::REGION, &settings.region),
        (keys::ZONE, &settings.zone),
        (keys::VERSION, &settings.version),
        (keys::STATE, keys::state_name(NodeState::Joining)),
        (keys::READY, &ready),
        (keys::PUBLIC, &public),
        (keys::MISSED, ""),
    ]
    .map(|(key, value)| (key, value.to_owned()))
    .into()
}
