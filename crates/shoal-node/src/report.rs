//! What a node tells the others of itself when `status`, `health` or `cache stats` asks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shoal_cache::{BOUNDS_US, FetchTimes};
use shoal_policy::recovery::LogEnd;
use shoal_proto::admin::{CacheCounters, ListenerStatus, NodeDetails};
use shoal_proto::raft::ReportRequest;
use shoal_proxy::{JudgedSum, TrafficSum};

use crate::drain::Progress;
use crate::purge_history::PurgeSeen;

/// What a report is to hold besides what every one does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// What goes through the node.
    pub traffic: bool,
    /// So many of the newest purges.
    pub purges: u32,
    /// This purge instead; 0 = none.
    pub purge_seq: u64,
    /// What describes the node.
    pub details: bool,
}

impl Wanted {
    /// The traffic.
    pub const TRAFFIC: Self = Self { traffic: true, purges: 0, purge_seq: 0, details: false };
    /// What describes the node.
    pub const DETAILS: Self = Self { traffic: false, purges: 0, purge_seq: 0, details: true };

    /// As a peer asks for it.
    pub const fn of(request: &ReportRequest) -> Self {
        let ReportRequest { traffic, purges, purge_seq, details, .. } = *request;
        Self { traffic, purges, purge_seq, details }
    }
}

/// One node about itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct NodeReport {
    /// The revision it serves.
    pub active_revision: u64,
    /// The log index it has applied.
    pub applied_index: u64,
    /// Why it does not serve the newest revision; empty = it does.
    pub refused: String,
    /// The revision that it serves, if that has proven itself there; 0 = it has not, or its version does not tell.
    #[serde(default)]
    pub proven_revision: u64,
    /// The revision that it has died of, and does not take up again; 0 = none.
    #[serde(default)]
    pub died_of: u64,
    /// Why its log takes no part in decisions; empty = it does.
    #[serde(default)]
    pub log_broken: String,
    /// Which other process has its identity; empty = none.
    #[serde(default)]
    pub twin: String,
    /// Files that it cannot write to, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// How far it is with leaving service.
    #[serde(default)]
    pub drain: DrainReport,
    /// The timing that its process goes by; empty = not told.
    #[serde(default)]
    pub timing: String,
    /// Its version.
    pub version: String,
    /// Since its start.
    pub uptime_seconds: u64,
    /// Requests answered since its start.
    pub requests: u64,
    /// Downstream connections open now.
    pub open_connections: u64,
    /// Unix seconds at which its own certificate expires; 0 = not told.
    #[serde(default)]
    pub certificate_not_after: i64,
    /// Unix seconds at which it was given.
    #[serde(default)]
    pub certificate_given: i64,
    /// SHA-256 of the authority that has signed it, hex.
    #[serde(default)]
    pub authority: String,
    /// Those of all authorities that it believes.
    #[serde(default)]
    pub believes: Vec<String>,
    /// Its part of the cache.
    pub cache: CacheReport,
    /// What goes through it; only when asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<NodeTrafficReport>,
    /// Purges that it has applied; only those that were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub purges: Vec<PurgeSeen>,
    /// What describes it; only when asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<DetailsReport>,
    /// The wave of a rollout that it watches over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bake: Option<BakeReport>,
}

/// What whoever leads sees of a wave.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BakeReport {
    /// Of this revision.
    pub revision: u64,
    /// From 1.
    pub wave: u32,
    /// Until it is over, at least.
    pub left_ms: u64,
    /// What can be said of it.
    pub evidence: String,
}

/// How far a node is with leaving service.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DrainReport {
    /// [`Phase::name`]; empty = its version does not tell.
    ///
    /// [`Phase::name`]: crate::drain::Phase::name
    pub phase: String,
    /// What did not go as it should, or was left out.
    pub notes: Vec<String>,
}

impl From<Progress> for DrainReport {
    fn from(progress: Progress) -> Self {
        Self { phase: progress.phase.name().to_owned(), notes: progress.notes }
    }
}

/// What a node tells of itself when it is to be described.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DetailsReport {
    /// It should be sent requests.
    pub ready: bool,
    /// Why, or why not, a line for each condition.
    pub readiness: String,
    /// Requests under way.
    pub in_flight: u64,
    /// For how long it may still serve hits without asking, milliseconds.
    pub lease_left_ms: u64,
    /// Requests of peers that its cache is answering.
    pub peers_under_way: u64,
    /// Open listeners: name, address, connections.
    pub listeners: Vec<(String, String, u64)>,
    /// How far its log is; `None` = it cannot be used, or its version does not tell.
    pub log: Option<LogEnd>,
}

impl From<DetailsReport> for NodeDetails {
    fn from(report: DetailsReport) -> Self {
        let listeners = report.listeners.into_iter();
        let listeners =
            listeners.map(|(name, address, connections)| ListenerStatus { name, address, connections });
        Self {
            ready: report.ready,
            readiness: report.readiness,
            in_flight: report.in_flight,
            lease_left_ms: report.lease_left_ms,
            peers_under_way: report.peers_under_way,
            listeners: listeners.collect(),
        }
    }
}

/// What goes through a node: counters since its start.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeTrafficReport {
    /// Milliseconds since its start.
    pub at_ms: u64,
    /// Requests under way.
    pub in_flight: u64,
    /// All listeners.
    pub total: TrafficReport,
    /// Requests for which no endpoint could be connected to.
    pub unconnected: u64,
    /// By route.
    pub routes: BTreeMap<String, TrafficReport>,
    /// How long origins took to answer the cache: upper bound in µs, and how many lie between it and the one before.
    pub origin_times: Vec<(Option<u64>, u64)>,
    /// How long other nodes took, likewise.
    pub peer_times: Vec<(Option<u64>, u64)>,
}

/// Buckets with their bounds.
pub fn buckets(times: &FetchTimes) -> Vec<(Option<u64>, u64)> {
    let bounds = BOUNDS_US.iter().copied().map(Some).chain([None]);
    bounds.zip(times.buckets).collect()
}

/// Requests, how many of them failed, and how long they took.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TrafficReport {
    /// All that have ended.
    pub requests: u64,
    /// Answered with a status from 500.
    pub errors: u64,
    /// Of those, what the downstream has not brought about by itself: nodes of older versions judge by that.
    pub faults: u64,
    /// What says something of what is served; of older versions nothing.
    pub judged: JudgedReport,
    /// Upper bound in µs and how many lie between it and the one before.
    pub durations: Vec<(Option<u64>, u64)>,
    /// Answered by the cache; routes only.
    pub cache_hits: u64,
    /// Answered by an origin that the cache had to ask.
    pub cache_misses: u64,
    /// Bytes of bodies that the cache sent in the place of an origin.
    pub cache_hit_bytes: u64,
}

/// Requests that say something of what is served.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct JudgedReport {
    /// All of them.
    pub requests: u64,
    /// Of those, what speaks against it.
    pub faults: u64,
    /// How long answers took: upper bound in µs and how many lie between it and the one before.
    pub times: Vec<(Option<u64>, u64)>,
}

impl From<JudgedSum> for JudgedReport {
    fn from(JudgedSum { requests, faults, times }: JudgedSum) -> Self {
        Self { requests, faults, times }
    }
}

impl From<TrafficSum> for TrafficReport {
    fn from(sum: TrafficSum) -> Self {
        Self {
            requests: sum.requests,
            errors: sum.errors,
            faults: sum.judged.faults,
            judged: sum.judged.into(),
            durations: sum.durations,
            cache_hits: sum.cache_hits,
            cache_misses: sum.cache_misses,
            cache_hit_bytes: sum.cache_hit_bytes,
        }
    }
}

/// The counters of a node's cache.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheReport {
    /// Objects in memory.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that may be used.
    pub budget_bytes: u64,
    /// Answers from an object.
    pub hits: u64,
    /// Answers that needed the origin.
    pub misses: u64,
    /// Answers from a stale object.
    pub stale: u64,
    /// Requests that joined a running fill.
    pub coalesced: u64,
    /// Answers that a peer had.
    pub peer_hits: u64,
    /// Peers that did not answer.
    pub peer_errors: u64,
    /// Requests to the origin.
    pub origin_fetches: u64,
    /// Copies given to another owner.
    pub replicas_sent: u64,
    /// Copies taken from another owner.
    pub replicas_received: u64,
    /// Objects that had to make room.
    pub evictions: u64,
    /// The newest purge.
    pub purge_seq: u64,
    /// What is on disk.
    #[serde(default)]
    pub disk: DiskReport,
}

/// The same of what is on disk.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct DiskReport {
    /// Objects on disk.
    pub objects: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// Bytes that may be used.
    pub budget_bytes: u64,
    /// Answers from there.
    pub hits: u64,
    /// Objects written.
    pub written: u64,
    /// Objects that the disk was too slow or too full for.
    pub dropped: u64,
    /// Objects that had to make room.
    pub evictions: u64,
    /// Objects that were not what was written.
    pub damaged: u64,
    /// Reads and writes that failed.
    pub errors: u64,
}

impl From<CacheReport> for CacheCounters {
    fn from(report: CacheReport) -> Self {
        Self {
            objects: report.objects,
            bytes: report.bytes,
            budget_bytes: report.budget_bytes,
            hits: report.hits,
            misses: report.misses,
            stale: report.stale,
            coalesced: report.coalesced,
            peer_hits: report.peer_hits,
            peer_errors: report.peer_errors,
            origin_fetches: report.origin_fetches,
            replicas_sent: report.replicas_sent,
            replicas_received: report.replicas_received,
            evictions: report.evictions,
            purge_seq: report.purge_seq,
            disk_objects: report.disk.objects,
            disk_bytes: report.disk.bytes,
            disk_budget_bytes: report.disk.budget_bytes,
            disk_hits: report.disk.hits,
            disk_written: report.disk.written,
            disk_dropped: report.disk.dropped,
            disk_evictions: report.disk.evictions,
            disk_damaged: report.disk.damaged,
            disk_errors: report.disk.errors,
        }
    }
}
