//! What the rooms of one process share, and the questions that need several of them.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use shoal_cache::Cache;
use shoal_cluster::channel::{Peers, UnknownPeer};
use shoal_cluster::gossip::Gossip;
use shoal_cluster::identity::{Identity, sha256_hex};
use shoal_cluster::{NodeState, NodeView};
use shoal_configlog::ConfigLog;
use shoal_model::state::MemberRecord;
use shoal_model::units::{millis_u32, millis_u64};
use shoal_model::{ConfigView, NodeId, Revision};
use shoal_proto::raft::{AwaitAppliedRequest, ReportRequest};
use shoal_proxy::{Checker, Proxy};
use tokio::sync::{Mutex, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tonic::Request;

use crate::activation::Activation;
use crate::certificates::Certificates;
use crate::crash_guard::CrashGuard;
use crate::dns::DnsFigures;
use crate::drain::Drain;
use crate::keys::{LookUps, OwnCertificate, life_of};
use crate::otlp::ExportFigures;
use crate::purge_figures::PurgeFigures;
use crate::purge_history::PurgeHistory;
use crate::purging::PurgeRate;
use crate::readiness::judge;
use crate::ready_scopes::ReadyScopes;
use crate::refusals::Refusals;
use crate::report::{
    BakeReport, CacheReport, DetailsReport, DiskReport, NodeReport, NodeTrafficReport, Wanted, buckets,
};
use crate::rollout::{Overdue, RolloutClock};
use crate::room::{self, unless_full};
use crate::settings::RunSettings;
use crate::shares::Shares;
use crate::twins;
use crate::upgrade::NodeSockets;
use crate::watchdog::Suspicion;

/// For a peer's report.
const REPORT_TIMEOUT: Duration = Duration::from_millis(1500);

/// Between two looks at the log's membership.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Problems that are told.
const MAX_PROBLEMS: usize = 8;

/// One process.
pub struct Node {
    pub(crate) settings: RunSettings,
    pub(crate) identity: Arc<Identity>,
    pub(crate) log: Arc<ConfigLog>,
    pub(crate) gossip: Arc<Gossip>,
    pub(crate) peers: Peers,
    pub(crate) cache: Arc<Cache>,
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) config: Arc<ArcSwap<ConfigView>>,
    pub(crate) activation: watch::Receiver<Activation>,
    pub(crate) crash_guard: Arc<CrashGuard>,
    pub(crate) suspicion: Arc<Suspicion>,
    pub(crate) certificates: Certificates,
    pub(crate) own_certificate: OwnCertificate,
    /// Places for nodes that are looked up which the log here does not know.
    pub(crate) look_ups: LookUps,
    pub(crate) _checker: Checker,
    pub(crate) started: Instant,
    pub(crate) started_serving: AtomicBool,
    pub(crate) drain: Drain,
    pub(crate) ready_scopes: ReadyScopes,
    pub(crate) dns_figures: Arc<DnsFigures>,
    /// This node was removed from the cluster.
    pub(crate) removed: CancellationToken,
    /// Another process has this node's identity, and had it first.
    pub(crate) stand_back: CancellationToken,
    pub(crate) purge_figures: PurgeFigures,
    pub(crate) purge_history: Arc<PurgeHistory>,
    pub(crate) purge_rate: PurgeRate,
    pub(crate) export_figures: Arc<ExportFigures>,
    /// How often the state of this node was found to be another than that of the others.
    pub(crate) divergences: AtomicU64,
    /// Calls of operators whose role did not reach.
    pub(crate) refused_calls: AtomicU64,
    /// Changes that operators have asked for in vain.
    pub(crate) refused_changes: Refusals,
    /// Requests that came without an id and have got one.
    pub(crate) requests_named: AtomicU64,
    /// Places for operators who watch nodes go out of service and back.
    pub(crate) standing_watchers: Arc<Shares>,
    /// Places for operators who warm the cache by way of this node.
    pub(crate) warming: Arc<Semaphore>,
    /// The log index up to which all that is cached here was checked against purges.
    pub(crate) swept_seq: AtomicU64,
    /// How long the revision that waits to be confirmed still may.
    pub(crate) rollout_clock: RolloutClock,
    /// The wave of a rollout that this node watches over.
    pub(crate) bake: watch::Sender<Option<BakeReport>>,
    /// The revision that is not to be served for now, since there is no quorum.
    pub(crate) overdue: watch::Sender<Option<Overdue>>,
    /// Whose turn it is to change the site from here.
    pub(crate) writers: Mutex<()>,
    /// Held by whoever puts late renewals on the record, one after the other: the same one goes there once.
    pub(crate) late_renewals: Mutex<()>,
    /// Places for plans that are worked out here.
    pub(crate) planning: Arc<Semaphore>,
    /// Places for changes that are tried out here.
    pub(crate) rehearsing: Arc<Semaphore>,
    /// Places for snapshots that are saved.
    pub(crate) saving: Arc<Semaphore>,
    /// Places for those who follow the revisions by way of this node.
    pub(crate) watching: Arc<Shares>,
    /// Bytes of messages that operators send.
    pub(crate) messages: Arc<Shares>,
    /// The data directory is this process's until it is unlocked.
    pub(crate) lock: File,
    pub(crate) sockets: NodeSockets,
}

/// How far a node got with an entry.
#[derive(Clone, Debug)]
pub struct Reached {
    /// The log index it has applied.
    pub applied_index: u64,
    /// The revision it serves.
    pub active: Revision,
    /// Why it does not serve the revision that was waited for.
    pub refused: Option<String>,
    /// What its log waits for on its disk, where it has not come so far for that.
    pub out_of_space: Option<String>,
}

impl Node {
    /// This node's id.
    pub fn id(&self) -> NodeId {
        self.identity.node_id
    }

    /// Every room is built and the first site is in force.
    pub fn has_started(&self) -> bool {
        self.started_serving.load(Ordering::Relaxed)
    }

    /// Waits until this node has applied `index` and serves `revision` (or refused it), or until `timeout`; not where the log
    /// has no room for what is to come.
    pub async fn await_applied(&self, index: u64, revision: Revision, timeout: Duration) -> Reached {
        let broken = self.log.status().broken;
        if !broken.is_empty() {
            let (applied_index, active) = (*self.log.applied().borrow(), self.activation.borrow().active);
            return Reached { applied_index, active, refused: Some(broken), out_of_space: None };
        }
        let mut applied = self.log.applied();
        let mut activation = self.activation.clone();
        let both = async {
            _ = applied.wait_for(|applied| *applied >= index).await;
            _ = activation.wait_for(|activation| activation.has_decided(revision)).await;
        };
        let both = unless_full(both, self.lacks_room_for(room::PATIENCE));
        let out_of_space = tokio::time::timeout(timeout, both).await.ok().and_then(Result::err);
        let activation = self.activation.borrow().clone();
        Reached {
            applied_index: *self.log.applied().borrow(),
            active: activation.active,
            refused: activation.refusal_of(revision),
            out_of_space,
        }
    }

    /// The same, asked of any node; where another process has taken the place of this one, that is asked for this node.
    pub async fn await_applied_on(
        &self,
        node: NodeId,
        index: u64,
        revision: Revision,
        timeout: Duration,
    ) -> Result<Reached, tonic::Status> {
        if node == self.id() && !self.log.is_passed_on() {
            return Ok(self.await_applied(index, revision, timeout).await);
        }
        let unknown = |error: UnknownPeer| tonic::Status::unavailable(error.to_string());
        let mut client = self.peers.control(node).map_err(unknown)?;
        let timeout_ms = millis_u32(timeout);
        let mut request = Request::new(AwaitAppliedRequest { index, revision: revision.0, timeout_ms });
        request.set_timeout(timeout + Duration::from_millis(500));
        let response = client.await_applied(request).await?.into_inner();
        Ok(Reached {
            applied_index: response.applied_index,
            active: Revision(response.active_revision),
            refused: Some(response.refused).filter(|why| !why.is_empty()),
            out_of_space: Some(response.out_of_space).filter(|why| !why.is_empty()),
        })
    }

    /// What somebody has to mend, on this machine for the most part, a line each.
    pub fn problems(&self) -> Vec<String> {
        let broken = self.proxy.broken_access_logs().into_iter();
        let told = broken.take(MAX_PROBLEMS).map(|(path, why)| {
            format!("the access log {} cannot be written, its lines are lost: {why}", path.display())
        });
        let divergence = self.log.divergence().map(|divergence| divergence.to_string());
        let full = Some(self.log.status().out_of_space).filter(|why| !why.is_empty());
        let life = life_of(&self.peers.credentials().identity());
        let unkept = self.activation.borrow().unkept.clone();
        let of_log = full.into_iter().chain(self.log.weight_problem()).chain(self.log.learners_problem());
        let told = of_log.chain(unkept).chain(told).chain(self.own_certificate.problem(life));
        divergence.into_iter().chain(told).collect()
    }

    /// This node about itself.
    pub fn report(&self) -> NodeReport {
        let activation = self.activation.borrow().clone();
        let counters = self.cache.counters();
        let figures = self.proxy.figures();
        let identity = self.peers.credentials().identity();
        let life = life_of(&identity);
        NodeReport {
            active_revision: activation.active.0,
            applied_index: *self.log.applied().borrow(),
            refused: activation.refused.map(|(_, why)| why).unwrap_or_default(),
            proven_revision: self.crash_guard.proven(activation.active).unwrap_or_default().0,
            died_of: self.crash_guard.refused().unwrap_or_default().0,
            log_broken: self.log.status().broken,
            twin: twins::warning(&self.gossip, &self.identity),
            problems: self.problems(),
            drain: self.drain.progress().into(),
            timing: self.log.timings().timing().map_or_else(String::new, |timing| timing.to_string()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: self.started.elapsed().as_secs(),
            requests: figures.requests,
            open_connections: figures.open_connections as u64,
            certificate_not_after: life.map_or(0, |life| (life.to_ms / 1000) as i64),
            certificate_given: life.map_or(0, |life| (life.from_ms / 1000) as i64),
            authority: sha256_hex(&identity.ca_der),
            believes: identity.authorities().map(|authority| sha256_hex(authority)).collect(),
            cache: CacheReport {
                objects: counters.objects,
                bytes: counters.bytes,
                budget_bytes: counters.budget_bytes,
                hits: counters.hits,
                misses: counters.misses,
                stale: counters.stale,
                coalesced: counters.coalesced,
                peer_hits: counters.peer_hits,
                peer_errors: counters.peer_errors,
                origin_fetches: counters.origin_fetches,
                replicas_sent: counters.replicas_sent,
                replicas_received: counters.replicas_received,
                evictions: counters.evictions,
                purge_seq: counters.purge_seq,
                disk: DiskReport {
                    objects: counters.disk_objects,
                    bytes: counters.disk_bytes,
                    budget_bytes: counters.disk_budget_bytes,
                    hits: counters.disk_hits,
                    written: counters.disk_written,
                    dropped: counters.disk_dropped,
                    evictions: counters.disk_evictions,
                    damaged: counters.disk_damaged,
                    errors: counters.disk_errors,
                },
            },
            traffic: None,
            purges: Vec::new(),
            details: None,
            bake: self.bake.borrow().clone(),
        }
    }

    /// The same, and what else is wanted.
    pub fn full_report(&self, wanted: Wanted) -> NodeReport {
        let purges = match wanted.purge_seq {
            0 => self.purge_history.newest(wanted.purges as usize),
            seq => self.purge_history.find(seq).into_iter().collect(),
        };
        let traffic = wanted.traffic.then(|| self.traffic_report());
        let details = wanted.details.then(|| self.details_report());
        NodeReport { traffic, purges, details, ..self.report() }
    }

    fn details_report(&self) -> DetailsReport {
        let readiness = judge(&self.readiness_facts(None), true);
        let listeners = self.proxy.connections_by_listener().into_iter();
        let listeners = listeners.map(|(name, bound, connections)| {
            (name.to_string(), bound.to_string(), u64::try_from(connections).unwrap_or(u64::MAX))
        });
        DetailsReport {
            ready: readiness.is_ready(),
            readiness: readiness.text,
            in_flight: self.proxy.figures().in_flight,
            lease_left_ms: millis_u64(self.cache.lease_left()),
            peers_under_way: self.cache.peers_under_way() as u64,
            listeners: listeners.collect(),
            log: self.log.end(),
        }
    }

    fn traffic_report(&self) -> NodeTrafficReport {
        let figures = self.proxy.traffic();
        let routes = figures.routes.into_iter().map(|(name, sum)| (name.to_string(), sum.into()));
        let cache = self.cache.counters();
        NodeTrafficReport {
            at_ms: millis_u64(self.started.elapsed()),
            in_flight: self.proxy.figures().in_flight,
            total: figures.total.into(),
            unconnected: figures.unconnected,
            routes: routes.collect(),
            origin_times: buckets(&cache.origin_times),
            peer_times: buckets(&cache.peer_times),
        }
    }

    /// Any node about itself, with what else is wanted; `None` when it does not answer.
    pub async fn report_of(&self, node: NodeId, wanted: Wanted) -> Option<NodeReport> {
        if node == self.id() {
            return Some(self.full_report(wanted));
        }
        let mut client = self.peers.control(node).ok()?;
        let mut request = Request::new(ReportRequest {
            health: true,
            cache: true,
            traffic: wanted.traffic,
            purges: wanted.purges,
            purge_seq: wanted.purge_seq,
            details: wanted.details,
        });
        request.set_timeout(REPORT_TIMEOUT);
        let response = client.report(request);
        let response = tokio::time::timeout(REPORT_TIMEOUT, response).await.ok()?.ok()?;
        serde_json::from_slice(&response.into_inner().report).ok()
    }

    /// This node was not removed. Ids are indexes of the log: one that is not applied here yet may belong to a member
    /// that this node, which is catching up, has still to hear of.
    pub fn is_member(&self, id: NodeId) -> bool {
        let applied = *self.log.applied().borrow();
        !self.log.with_state(|state| state.was_removed(id, applied))
    }

    /// This node is a member, as the log says here; a log that has not begun knows nobody, and refuses nobody.
    pub fn knows(&self, id: NodeId) -> bool {
        self.log.with_state(|state| state.nodes.is_empty() || state.nodes.contains_key(&id))
    }

    /// Resolves when a member is removed.
    pub async fn removal_of(&self, id: NodeId) {
        let mut applied = self.log.applied();
        while self.is_member(id) {
            if applied.changed().await.is_err() {
                std::future::pending().await
            }
        }
    }

    /// Nothing of a node is listened to any more: it was revoked, or was removed and has left the log's membership as well.
    pub fn is_expelled(&self, id: NodeId) -> bool {
        self.log.has_left(id) || self.log.with_state(|state| state.revoked.contains(&id))
    }

    /// Resolves when it is so.
    pub async fn expulsion_of(&self, id: NodeId) {
        self.removal_of(id).await;
        while !self.is_expelled(id) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Everyone who was admitted and not removed; who is heard, where the log cannot tell.
    pub fn members(&self) -> BTreeMap<NodeId, MemberRecord> {
        let members = self.log.with_state(|state| state.nodes.clone());
        if !members.is_empty() {
            return members;
        }
        let heard = |node: &NodeView| MemberRecord {
            name: node.name.to_string(),
            region: node.region.to_string(),
            zone: node.zone.to_string(),
            cluster_addr: node.cluster_addr.to_string(),
            admin_addr: node.admin_addr.clone(),
            public_key_sha256: String::new(),
            purge_lease_ms: 0,
        };
        self.gossip.view().load().nodes.iter().map(|node| (node.id, heard(node))).collect()
    }

    /// This node leads, and a majority follows it: what it sees of the others is what the cluster goes by.
    pub fn leads(&self) -> bool {
        let log = self.log.status();
        log.quorum && log.leader == Some(self.id())
    }

    /// Members that are heard now and have not said goodbye, this node included, by id and name.
    pub fn live_members(&self) -> Vec<(NodeId, String)> {
        let view = self.gossip.view().load_full();
        let is_there = |node: &NodeView| node.alive && node.state != NodeState::Left;
        let alive = |id: NodeId| id == self.id() || view.node(id).is_some_and(is_there);
        let live = self.members().into_iter().filter(|(id, _)| alive(*id));
        live.map(|(id, member)| (id, member.name)).collect()
    }
}

/// Unix milliseconds by this node's clock.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
