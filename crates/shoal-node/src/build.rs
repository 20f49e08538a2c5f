//! The composition root: one `build_*` per room, from the bottom up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use anyhow::Context;
use arc_swap::ArcSwap;
use shoal_cache::{Cache, CacheSettings, ClusterLink, UnconfirmedChange};
use shoal_cluster::channel::Peers;
use shoal_cluster::gossip::{Gossip, GossipSettings};
use shoal_cluster::identity::{Identity, Purpose};
use shoal_cluster::tls::Credentials;
use shoal_configlog::{Compaction, ConfigLog, LogSettings, Past, RaftRpc};
use shoal_model::state::{ClusterSetup, Timing};
use shoal_model::{ConfigView, NodeId, Revision};
use shoal_proxy::{
    AskedPurge, Checker, CheckerSettings, HealthEvent, Proxy, ProxySettings, RequestSpan, StickySeed,
    TicketSeed,
};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Mutex, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::activation::{Activation, Activator};
use crate::admin::{AdminListeners, MAX_PLANS, MAX_WARM_CALLS, MESSAGE_BYTES, WATCHERS, WATCHES};
use crate::backup::MAX_SAVES;
use crate::boot::Boot;
use crate::cache_disk::disk_settings;
use crate::catch_up::is_needless;
use crate::census::census;
use crate::certificates::Certificates;
use crate::crash_guard::CrashGuard;
use crate::descriptors;
use crate::drain::Drain;
use crate::effects::Effects;
use crate::health;
use crate::keys::{self, LookUps, OwnCertificate};
use crate::last_known_good::LastKnownGood;
use crate::lease;
use crate::levels;
use crate::news;
use crate::node::Node;
use crate::otlp::{self, ExportFigures};
use crate::peer::{PeerListener, PeerRpc};
use crate::poison;
use crate::purge_door;
use crate::purge_figures::PurgeFigures;
use crate::purge_forgetting;
use crate::purge_history::PurgeHistory;
use crate::purge_sweep;
use crate::purge_writes;
use crate::purging::PurgeRate;
use crate::ready_scopes::{self, ReadyScopes};
use crate::refusals::Refusals;
use crate::rehearsal::MAX_REHEARSALS;
use crate::removed;
use crate::rollout::{self, RolloutClock};
use crate::rollout_gate;
use crate::settings::RunSettings;
use crate::shares::Shares;
use crate::state_check;
use crate::twins;
use crate::upgrade::{Inherited, NodeSockets};
use crate::vital::VitalTasks;
use crate::watchdog::Suspicion;

/// Health facts on their way from the checkers to the gossip.
const HEALTH_QUEUE: usize = 1024;
/// How long a node that starts serves nothing for the sake of its log.
const LOG_PATIENCE: Duration = Duration::from_secs(2);
/// How long a node that starts serves nothing for the sake of what it has on disk.
const DISK_PATIENCE: Duration = Duration::from_secs(2);

/// Everything, built but not yet serving.
pub struct Built {
    /// The shared context.
    pub node: Arc<Node>,
    /// Consensus, for the cluster address.
    pub raft: RaftRpc,
    /// Bound sockets.
    pub listeners: Listeners,
    /// Bound doors for operators.
    pub admin: AdminListeners,
    /// What takes revisions into service.
    pub activation: Dormant,
}

/// What takes revisions into service, before it follows the log.
pub struct Dormant {
    activator: Activator,
    newest: watch::Receiver<Revision>,
    /// What was served last is served again, or could not be; nothing is left to wait for.
    pub has_resumed: bool,
}

impl Dormant {
    /// Serves the newest site known here, if nothing is served yet, and follows the log from then on. A node that has not
    /// `caught_up` cannot tell which of its sites is the newest: it serves the one it served last.
    pub async fn wake(self, node: &Node, caught_up: bool, tasks: &VitalTasks) {
        let Self { activator, newest, has_resumed } = self;
        let activator = Arc::new(activator);
        if !has_resumed {
            activator.clone().begin(&node.log, caught_up).await;
        }
        match node.log.status().broken.is_empty() {
            true => tasks.spawn_until_stop("activation", activator.run(node.log.clone(), newest)),
            false => tasks.spawn_until_stop("activation", activator.hold()),
        }
    }
}

/// Sockets that are bound before anything starts, so that a taken port ends the start.
pub struct Listeners {
    /// The cluster address.
    pub cluster: TcpListener,
    /// `/livez`, `/readyz`, `/metrics`.
    pub ops: TcpListener,
}

/// Builds every room. Nothing is served yet but what was served last, and that only where nobody can know better.
pub async fn build(
    settings: RunSettings,
    boot: Boot,
    mut inherited: Inherited,
    tasks: &VitalTasks,
) -> anyhow::Result<Built> {
    let identity = Arc::new(boot.identity);
    let credentials = Credentials::new(identity.as_ref().clone())?;
    let sockets = NodeSockets::open(&settings, &mut inherited)?;
    let listeners = Listeners {
        cluster: TcpListener::from_std(sockets.cluster.try_clone()?)?,
        ops: TcpListener::from_std(sockets.ops.try_clone()?)?,
    };
    let admin = AdminListeners {
        tcp: TcpListener::from_std(sockets.admin.try_clone()?)?,
        credentials: credentials.clone(),
        socket: UnixListener::from_std(sockets.local_admin.try_clone()?)?,
    };
    let peers = Peers::with(credentials);
    for (id, address) in &boot.peers {
        peers.set_address(*id, *address);
    }
    let gossip = Arc::new(build_gossip(&settings, &identity, &boot.peers, &sockets)?);
    let config = Arc::new(ArcSwap::from_pointee(ConfigView::default()));
    let (unconfirmed, unconfirmed_waiting) = mpsc::channel(purge_writes::MAX_WAITING);
    let cache = build_cache(&settings, &identity, &gossip, &config, &peers, unconfirmed);
    // What is asked for before that is fetched, though it may be there.
    _ = tokio::time::timeout(DISK_PATIENCE, cache.opened()).await;
    let (events, health_events) = mpsc::channel(HEALTH_QUEUE);
    let (spans, spans_waiting) = mpsc::channel(otlp::MAX_WAITING);
    let (purges, purges_waiting) = mpsc::channel(purge_door::MAX_WAITING);
    let reports = Reports { health_events: events.clone(), spans, purges };
    let proxy = Arc::new(build_proxy(&settings, &identity, &gossip, &config, &cache, reports)?);
    let (status, activation) = watch::channel(Activation::default());
    let kept = LastKnownGood::in_dir(&settings.data_dir);
    let (window, successor) = (settings.crash_guard, inherited.still_served);
    let (overdue, overdue_seen) = watch::channel(None);
    let crash_guard = Arc::new(CrashGuard::open(&settings.data_dir, window, kept.revision(), successor));
    let suspicion = Arc::new(Suspicion::default());
    let activator = Activator {
        identity: identity.clone(),
        proxy: proxy.clone(),
        kept,
        guard: crash_guard.clone(),
        suspicion: suspicion.clone(),
        overdue: overdue_seen,
        gossip: gossip.clone(),
        status,
        beside: AtomicU64::new(0),
    };
    let site_sockets = inherited.take_site();
    proxy.inherit(site_sockets, inherited.owner);
    let (newest, newest_seen) = watch::channel(Revision(0));
    let is_new = boot.bootstrap.is_some() || !boot.peers.is_empty();
    let past = if is_new { Past::MayBeNew } else { Past::Kept };
    let purge_history = Arc::<PurgeHistory>::default();
    let effects = Effects {
        peers: peers.clone(),
        gossip: gossip.clone(),
        cache: cache.clone(),
        purge_history: purge_history.clone(),
        identity: identity.clone(),
        newest,
    };
    let opening = Box::pin(build_log(&settings, &identity, past, boot.setup.timing, effects));
    let (log, mut has_resumed) = open_or_resume(opening, &activator, inherited.still_served).await?;
    let log = Arc::new(log);
    let drain = Drain::default();
    if log.with_state(|state| state.standing(identity.node_id)).standing.is_drained() {
        tracing::warn!("this node is drained: it serves nobody until `shoal node undrain`");
        drain.begin_drained(&proxy);
    }
    let needless = boot.bootstrap.is_some() || is_needless(identity.node_id, &log.status());
    if !has_resumed && (inherited.still_served || needless) {
        activator.resume();
        has_resumed = true;
    }
    let names = proxy.names().clone();
    let checker = Checker::start(CheckerSettings {
        config: config.clone(),
        cluster: gossip.view().clone(),
        names: names.clone(),
        events,
    });
    let export_figures = Arc::<ExportFigures>::default();
    let node = Arc::new(Node {
        settings,
        identity,
        log: log.clone(),
        gossip: gossip.clone(),
        peers,
        cache,
        proxy,
        config: config.clone(),
        activation,
        crash_guard,
        suspicion,
        certificates: Certificates::default(),
        own_certificate: OwnCertificate::default(),
        look_ups: LookUps::default(),
        _checker: checker,
        started: Instant::now(),
        started_serving: AtomicBool::new(false),
        drain,
        ready_scopes: ReadyScopes::inherited(&inherited.was_ready),
        dns_figures: Arc::default(),
        removed: CancellationToken::new(),
        stand_back: CancellationToken::new(),
        purge_figures: PurgeFigures::default(),
        purge_history,
        purge_rate: PurgeRate::default(),
        export_figures: export_figures.clone(),
        divergences: AtomicU64::default(),
        refused_calls: AtomicU64::default(),
        refused_changes: Refusals::default(),
        requests_named: AtomicU64::default(),
        warming: Arc::new(Semaphore::new(MAX_WARM_CALLS)),
        standing_watchers: Shares::of(WATCHERS),
        swept_seq: AtomicU64::new(0),
        rollout_clock: RolloutClock::default(),
        bake: watch::Sender::new(None),
        overdue,
        writers: Mutex::new(()),
        late_renewals: Mutex::new(()),
        planning: Arc::new(Semaphore::new(MAX_PLANS)),
        rehearsing: Arc::new(Semaphore::new(MAX_REHEARSALS)),
        watching: Shares::of(WATCHES),
        messages: Shares::of(MESSAGE_BYTES),
        saving: Arc::new(Semaphore::new(MAX_SAVES)),
        lock: boot.lock,
        sockets,
    });
    tasks.spawn_until_stop("health facts", health::publish(gossip, config, names, health_events));
    tasks.spawn_until_stop("span export", async {
        otlp::export(spans_waiting, export_figures).await;
        // The workers end before the node does.
        std::future::pending().await
    });
    // A process that has handed over has requests to end, which may still change something.
    tasks.spawn_for_good("purges of requests", purge_door::serve(node.clone(), purges_waiting));
    tasks.spawn_for_good("purges of changes", purge_writes::serve(node.clone(), unconfirmed_waiting));
    start_tasks(&node, boot.setup, tasks);
    let activation = Dormant { activator, newest: newest_seen, has_resumed };
    Ok(Built { raft: log.raft_rpc(), node, listeners, admin, activation })
}

/// What goes on for as long as the node runs. It was started with what is in `setup`.
fn start_tasks(node: &Arc<Node>, setup: ClusterSetup, tasks: &VitalTasks) {
    tasks.spawn_until_stop("scopes of readiness", ready_scopes::watch(node.clone()));
    tasks.spawn_until_stop("census", census(node.clone(), setup));
    tasks.spawn_until_stop("notice of removal", removed::notice(node.clone()));
    tasks.spawn_until_stop(
        "notice of twins",
        twins::notice(node.gossip.twin(), node.identity.clone(), node.stand_back.clone()),
    );
    tasks.spawn_until_stop("news", news::tell(node.clone()));
    tasks.spawn_until_stop("the lease of the cache", lease::keep(node.clone()));
    tasks.spawn_until_stop("the renewal of the certificate", keys::keep(node.clone()));
    tasks.spawn_until_stop("the succession of authorities", keys::keep_succession(node.clone()));
    tasks.spawn_until_stop("the look at others' authority", keys::notice_unknown_authority(node.clone()));
    tasks.spawn_until_stop("the keys of the gossip", keys::keep_gossip_keys(node.clone()));
    tasks.spawn_until_stop("the sweep of the cache", purge_sweep::sweep(node.clone()));
    tasks.spawn_until_stop("the forgetting of purges", purge_forgetting::forget(node.clone()));
    tasks.spawn_until_stop("the raising of the level", levels::raise(node.clone()));
    tasks.spawn_until_stop("the watch over unconfirmed revisions", rollout::watch(node.clone()));
    tasks.spawn_until_stop("the look at what this node cannot live with", poison::watch(node.clone()));
    tasks.spawn_until_stop("the gate of revisions that are tried", rollout_gate::watch(node.clone()));
    tasks.spawn_until_stop("the comparison of states", state_check::watch(node.clone()));
    tasks.spawn_until_stop("gossip", gossip_lost(node.clone()));
}

/// Resolves when the gossip has ended before this node said goodbye.
async fn gossip_lost(node: Arc<Node>) {
    node.gossip.ended().await;
    if node.is_stopping() {
        std::future::pending().await
    }
}

/// A log that takes its time to open keeps nobody waiting for long: what was served last does not need it. Unless another
/// process still serves it: a connection that is taken from that one must not be lost when the log cannot be opened.
/// Answers whether that site was resumed.
async fn open_or_resume(
    mut opening: impl Future<Output = anyhow::Result<ConfigLog>> + Unpin,
    activator: &Activator,
    still_served: bool,
) -> anyhow::Result<(ConfigLog, bool)> {
    if still_served {
        return Ok((opening.await?, false));
    }
    match tokio::time::timeout(LOG_PATIENCE, &mut opening).await {
        Ok(log) => Ok((log?, false)),
        Err(_) => {
            tracing::warn!("the log takes its time to open: going on with what was served last");
            activator.resume();
            Ok((opening.await?, true))
        }
    }
}

impl Listeners {
    /// The cluster address with everything that is served on it, and the ops address.
    pub fn split(self, raft: RaftRpc, node: &Arc<Node>) -> (PeerListener, TcpListener) {
        let listener =
            PeerListener { socket: self.cluster, raft, peer: PeerRpc::new(node.clone()), node: node.clone() };
        (listener, self.ops)
    }
}

fn build_gossip(
    settings: &RunSettings,
    identity: &Identity,
    peers: &[(NodeId, SocketAddr)],
    sockets: &NodeSockets,
) -> anyhow::Result<Gossip> {
    let settings = GossipSettings {
        admin_addr: settings.admin_addr.to_string(),
        region: settings.region.clone(),
        zone: settings.zone.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        public: settings.public_addresses.clone(),
        seeds: peers.iter().map(|(_, address)| *address).collect(),
        ..GossipSettings::of(identity, settings.cluster_addr)
    };
    Ok(Gossip::start_on(sockets.gossip.try_clone()?, settings)?)
}

fn build_cache(
    settings: &RunSettings,
    identity: &Identity,
    gossip: &Gossip,
    config: &Arc<ArcSwap<ConfigView>>,
    peers: &Peers,
    unconfirmed: mpsc::Sender<UnconfirmedChange>,
) -> Arc<Cache> {
    // What was stored in an epoch before has other keys: nobody finds it.
    let epoch = match identity.cluster_epoch {
        0 => Vec::new(),
        epoch => epoch.to_be_bytes().to_vec(),
    };
    let key = identity.secret.derive(Purpose::CacheKeys, &epoch);
    Cache::new(CacheSettings {
        node: identity.node_id,
        name: identity.name.as_str().into(),
        ram_bytes: settings.cache_memory_bytes,
        intake_bytes: settings.cache_intake_bytes,
        disk: disk_settings(settings),
        key_seed: u64::from_be_bytes(*key.first_chunk().expect("a derived key has 32 bytes")),
        cluster: gossip.view().clone(),
        config: config.clone(),
        peers: Arc::new(ClusterLink(Arc::new(peers.clone()))),
        unconfirmed,
    })
}

/// What the proxy tells others, who may be behind: then it is dropped.
struct Reports {
    health_events: mpsc::Sender<HealthEvent>,
    spans: mpsc::Sender<Box<RequestSpan>>,
    purges: mpsc::Sender<AskedPurge>,
}

fn build_proxy(
    settings: &RunSettings,
    identity: &Identity,
    gossip: &Gossip,
    config: &Arc<ArcSwap<ConfigView>>,
    cache: &Arc<Cache>,
    reports: Reports,
) -> anyhow::Result<Proxy> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let access_log: Option<Box<dyn std::io::Write + Send>> =
        if settings.access_log { Some(Box::new(std::io::stderr())) } else { None };
    let proxy = Proxy::start(ProxySettings {
        max_connections: descriptors::room_for_connections(),
        workers: settings.workers.unwrap_or(cores),
        listen_ip: settings.listen_ip,
        node_name: identity.name.as_str().into(),
        config: config.clone(),
        cluster: gossip.view().clone(),
        cache: cache.clone(),
        health_events: reports.health_events,
        spans: reports.spans,
        purges: reports.purges,
        ticket_seed: TicketSeed(identity.secret.derive(Purpose::SessionTickets, b"")),
        sticky_seed: StickySeed(identity.secret.derive(Purpose::SessionCookies, b"")),
        access_log,
        trim_memory: settings.trim_memory,
    });
    proxy.context("cannot start the worker threads")
}

async fn build_log(
    settings: &RunSettings,
    identity: &Identity,
    past: Past,
    timing: Option<Timing>,
    effects: Effects,
) -> anyhow::Result<ConfigLog> {
    let view = effects.gossip.view().clone();
    let local = identity.node_id;
    let alive = move || {
        let view = view.load();
        let heard = view.nodes.iter().filter(|node| node.alive || node.id == local);
        heard.map(|node| node.id).collect()
    };
    let log = ConfigLog::open(LogSettings {
        dir: settings.data_dir.clone(),
        past,
        node_id: local,
        cluster_id: identity.cluster_id,
        address: settings.cluster_addr.to_string(),
        timing,
        timings: None,
        compaction: Compaction::default(),
        peers: effects.peers.clone(),
        liveness: Arc::new(alive),
        on_applied: Arc::new(move |applied| effects.follow(&applied)),
    });
    Ok(log.await?)
}
