//! Plain HTTP for machines that watch: `/livez`, `/readyz`, `/metrics`; and for programs that purge.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use shoal_cache::{BOUNDS_US, Counters, FetchTimes};
use shoal_cluster::ClusterView;
use shoal_model::units::Period;
use shoal_model::{NodeId, Revision};
use shoal_policy::readiness::{Look, Scope};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::admin::is_in_panic;
use crate::dns::count_candidates;
use crate::gossip_figures;
use crate::headcount;
use crate::node::Node;
use crate::ops_listener::{self, OpsLimits};
use crate::process_figures::ProcessFigures;
use crate::purge_api;
use crate::purge_figures::PurgeCounts;
use crate::readiness::{Asked, Facts, judge, tell};

/// Serves until `stop`.
pub async fn serve(node: Arc<Node>, socket: TcpListener, stop: CancellationToken) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .merge(purge_api::routes())
        .with_state(node);
    let serving = ops_listener::serve(socket, router, OpsLimits::default());
    match stop.run_until_cancelled_owned(serving).await {
        None => Ok(()),
        Some(never) => match never {},
    }
}

async fn livez(State(node): State<Arc<Node>>) -> Response {
    match node.suspicion.words() {
        None => "alive\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn readyz(State(node): State<Arc<Node>>, Query(query): Query<HashMap<String, String>>) -> Response {
    match ReadyQuery::read(&query) {
        Err(why) => (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response(),
        Ok(query) => answer_readyz(&node, &query),
    }
}

/// What is asked of `/readyz`.
struct ReadyQuery {
    scope: Option<Scope>,
    min_ready: Duration,
    max_staleness: Option<Duration>,
    verbose: bool,
    json: bool,
}

impl ReadyQuery {
    fn read(query: &HashMap<String, String>) -> Result<Self, String> {
        let value = |name: &str| query.get(name).map(String::as_str);
        let scope = value("scope").map(|text| text.parse::<Scope>().map_err(|why| why.to_string()));
        let scope = scope.transpose()?;
        let seconds =
            |text: &str| text.parse().map_err(|_| "min_ready_s: not a number of seconds".to_owned());
        let min_ready = value("min_ready_s").map(seconds).transpose()?;
        if min_ready.is_some() && scope.is_none() {
            return Err("min_ready_s: only with a scope".to_owned());
        }
        let max_staleness = value("max_staleness").map(Period::parse).transpose();
        let json = match value("format") {
            None => scope.is_some(),
            Some("json") => true,
            Some("text") if scope.is_none() => false,
            Some(_) => return Err("format: json, or without a scope text".to_owned()),
        };
        Ok(Self {
            scope,
            min_ready: Duration::from_secs(min_ready.unwrap_or_default()),
            max_staleness: max_staleness
                .map_err(|why| format!("max_staleness: {why}"))?
                .map(|period| period.0),
            verbose: value("verbose").is_some_and(|value| value != "0" && value != "false"),
            json,
        })
    }
}

fn answer_readyz(node: &Node, query: &ReadyQuery) -> Response {
    let facts = node.readiness_facts(query.max_staleness);
    if !query.json {
        let answer = judge(&facts, query.verbose);
        let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        return (status, answer.text).into_response();
    }
    let asked = query.scope.map(|scope| Asked {
        scope,
        standing: node.standing_in(scope),
        min_ready: query.min_ready,
    });
    let told = tell(&facts, asked.as_ref());
    let status = if told.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let text = serde_json::to_string(&told).unwrap_or_default() + "\n";
    (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}

async fn metrics(State(node): State<Arc<Node>>) -> impl IntoResponse {
    let mut text = String::with_capacity(64 << 10);
    node.proxy.render_metrics(&mut text);
    node.export_figures.render(&mut text);
    node.render_cluster_metrics(&mut text);
    node.render_readiness(&mut text);
    node.dns_figures.render(&mut text, count_candidates(&node.gossip.view().load()));
    let process = tokio::task::spawn_blocking(ProcessFigures::read).await;
    process.unwrap_or_default().render(&mut text);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

impl Node {
    /// What `/readyz` is judged by.
    pub fn readiness_facts(&self, max_staleness: Option<Duration>) -> Facts {
        let view = self.gossip.view().load_full();
        let (known, newest) =
            self.log.with_state(|state| (state.nodes.len().max(1), state.revisions.served_by(self.id())));
        let heard = view.nodes.iter().filter(|node| node.alive || node.id == self.id()).count().max(1);
        let activation = self.activation.borrow().clone();
        let log = self.log.status();
        let drain = self.drain.progress().phase.reason();
        let look = Look {
            // A node whose log cannot be used does not know of any site but the one it serves.
            serves: self.has_started()
                && !activation.serves_nothing(newest)
                && (log.broken.is_empty() || activation.active != Revision(0)),
            activates_first: activation.activates_first(newest) && log.broken.is_empty(),
            drains: drain.is_some(),
            members: (heard, known),
            uptime: self.started.elapsed(),
            staleness: log.staleness,
            expired: self.ready_scopes.expired(),
        };
        Facts {
            look,
            revision: activation.active.0,
            drain,
            quorum: log.quorum,
            max_staleness,
            refused: activation.refused.map(|(revision, why)| format!("{revision}: {why}")),
            log_broken: Some(log.broken).filter(|why| !why.is_empty()),
            problems: self.problems(),
        }
    }

    fn render_cluster_metrics(&self, text: &mut String) {
        let log = self.log.status();
        let view = self.gossip.view().load_full();
        let activation = self.activation.borrow().clone();
        let newest = self.log.with_state(|state| state.revisions.active().0);
        let cache = self.cache.counters();
        let gauge = |text: &mut String, name: &str, help: &str, value: u64| {
            _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
        };
        let counter = |text: &mut String, name: &str, help: &str, value: u64| {
            _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {value}");
        };
        let (name, version) = ("shoal_build_info", env!("CARGO_PKG_VERSION"));
        let help = "Always 1; the version of this node.";
        _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name}{{version=\"{version}\"}} 1");
        gauge(text, "shoal_raft_term", "Raft term.", log.term);
        gauge(
            text,
            "shoal_raft_is_leader",
            "1 on the Raft leader.",
            u64::from(log.leader == Some(self.id())),
        );
        gauge(text, "shoal_raft_has_quorum", "1 while a majority of voters is known.", u64::from(log.quorum));
        let broken = u64::from(!log.broken.is_empty());
        gauge(text, "shoal_raft_broken", "1 while the log of this node cannot be used.", broken);
        let full = u64::from(!log.out_of_space.is_empty());
        gauge(
            text,
            "shoal_raft_out_of_space",
            "1 while the log of this node waits for room on its disk.",
            full,
        );
        gauge(text, "shoal_raft_commit_index", "Newest committed log index.", log.committed);
        gauge(text, "shoal_raft_applied_index", "Newest applied log index.", *self.log.applied().borrow());
        let help = "Log index up to which the newest snapshot of this node goes; 0 = it has none.";
        gauge(text, "shoal_raft_last_snapshot_index", help, log.snapshot);
        let differs = u64::from(self.log.divergence().is_some());
        let help = "1 while the replicated state of this node is another than that of the others.";
        gauge(text, "shoal_raft_state_differs", help, differs);
        let help =
            "How often the replicated state of this node was found to be another than that of the others.";
        counter(text, "shoal_raft_state_differences_total", help, self.divergences.load(Ordering::Relaxed));
        gauge(text, "shoal_config_version", "Newest revision known here.", newest.0);
        gauge(text, "shoal_config_applied_version", "Revision served here.", activation.active.0);
        gauge(text, "shoal_config_stale_seconds", "Seconds without a quorum.", log.staleness.as_secs());
        let refused = u64::from(activation.refused.is_some());
        gauge(text, "shoal_config_refused", "1 while the newest revision is refused here.", refused);
        let help = "Revisions that this node has refused to serve, again where it was for another reason.";
        counter(text, "shoal_config_apply_errors_total", help, activation.refusals);
        let unkept = u64::from(activation.unkept.is_some());
        let help = "1 while the revision served here could not be written to last-known-good.json.";
        gauge(text, "shoal_config_last_known_good_failed", help, unkept);
        let members = headcount::count(self.members().into_keys(), &view, self.started.elapsed());
        gauge(text, "shoal_gossip_members", "Members that are heard, this node included.", members.heard);
        let help =
            "Members that are not heard and have not left on purpose; 0 in the first 10 s of a process.";
        gauge(text, "shoal_gossip_dead_members", help, members.dead);
        gauge(text, "shoal_gossip_left_members", "Members that have left on purpose.", members.left);
        let sent = self.gossip.counters().sent_bytes.load(Ordering::Relaxed);
        counter(text, "shoal_gossip_sent_bytes_total", "Bytes of gossip sent to other nodes.", sent);
        let level = self.log.with_state(|state| state.level.number);
        gauge(text, "shoal_cluster_level", "Commands up to this number may be written.", level.into());
        let help = "1 while another process is heard that has this node's identity.";
        gauge(text, "shoal_node_has_twin", help, u64::from(self.gossip.twin().borrow().is_some()));
        gossip_figures::render(&self.gossip, text);
        self.render_purge_metrics(text);
        render_peer_lag(text, &view, log.committed, self.id());
        self.render_panic_metrics(text, &view);
        gauge(text, "shoal_cache_objects", "Objects in memory.", cache.objects);
        gauge(text, "shoal_cache_bytes", "Bytes of objects in memory.", cache.bytes);
        gauge(text, "shoal_cache_budget_bytes", "Bytes of objects that may be kept.", cache.budget_bytes);
        gauge(text, "shoal_cache_purge_seq", "Newest purge applied.", cache.purge_seq);
        let help = "Purges that are remembered, by scope.";
        gauge(text, "shoal_cache_purge_records", help, cache.purge_records);
        let help = "Log index up to which purges are forgotten: what is older and unchecked is validated.";
        gauge(text, "shoal_cache_purge_floor", help, cache.purge_floor);
        let help = "Log index up to which all that is cached here was checked against purges.";
        gauge(text, "shoal_cache_purge_checked", help, self.swept_seq.load(Ordering::Relaxed));
        let lease = u64::from(self.cache.has_lease());
        gauge(text, "shoal_cache_lease", "1 while no purge can have been missed here.", lease);
        counter(text, "shoal_cache_hits_total", "Answers from an object.", cache.hits);
        counter(
            text,
            "shoal_cache_misses_total",
            "Answers that this node had not: they came from another node or the origin.",
            cache.misses,
        );
        counter(text, "shoal_cache_stale_total", "Answers from a stale object.", cache.stale);
        counter(text, "shoal_cache_coalesced_total", "Requests that joined a running fill.", cache.coalesced);
        counter(text, "shoal_cache_peer_hits_total", "Answers that a peer had.", cache.peer_hits);
        counter(text, "shoal_cache_peer_errors_total", "Peers that did not answer.", cache.peer_errors);
        counter(text, "shoal_cache_origin_fetches_total", "Requests to origins.", cache.origin_fetches);
        counter(text, "shoal_cache_evictions_total", "Objects that had to make room.", cache.evictions);
        let name = "shoal_cache_replicas_sent_total";
        counter(text, name, "Copies of objects given to another owner.", cache.replicas_sent);
        let name = "shoal_cache_replicas_received_total";
        counter(text, name, "Copies of objects taken from another owner.", cache.replicas_received);
        let name = "shoal_cache_replicas_refused_total";
        let help = "Copies of objects that there was no room to read.";
        counter(text, name, help, cache.replicas_refused);
        let help = "From the request of an origin by the cache to the head of its answer.";
        render_times(text, "shoal_cache_origin_fetch_seconds", help, &cache.origin_times);
        let help = "From the question to another node to the head of its answer, whatever it says.";
        render_times(text, "shoal_cache_peer_fetch_seconds", help, &cache.peer_times);
        render_disk_metrics(text, &cache);
        let help = "Calls of operators whose role did not allow them.";
        counter(text, "shoal_admin_refused_total", help, self.refused_calls.load(Ordering::Relaxed));
        self.render_own_certificate(text);
        self.render_certificate_metrics(text);
    }

    fn render_purge_metrics(&self, text: &mut String) {
        let PurgeCounts { purges, acknowledged, waited, refused } = self.purge_figures.counts();
        let name = "shoal_cache_purges_total";
        _ = writeln!(
            text,
            "# HELP {name} Purges that this node was asked for.\n# TYPE {name} counter\n{name} {purges}"
        );
        let name = "shoal_cache_purges_refused_total";
        let help = "Purges that were refused, since too many were asked for.";
        _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {refused}");
        let name = "shoal_cache_purge_ack_seconds";
        let help = "From the request for a purge to the moment when no node serves what it forgets.";
        _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} summary");
        _ = writeln!(text, "{name}_sum {}\n{name}_count {acknowledged}", waited.as_secs_f64());
    }

    fn render_panic_metrics(&self, text: &mut String, view: &ClusterView) {
        let name = "shoal_upstream_panic";
        _ = writeln!(text, "# HELP {name} 1 while health is ignored and all are used.\n# TYPE {name} gauge");
        for upstream in self.proxy.names().upstreams(&self.config.load()) {
            let panic = u8::from(is_in_panic(&upstream, view));
            _ = writeln!(text, "{name}{{upstream=\"{}\"}} {panic}", upstream.name);
        }
    }

    fn render_certificate_metrics(&self, text: &mut String) {
        let name = "shoal_tls_cert_not_after_seconds";
        _ = writeln!(text, "# HELP {name} Unix seconds at which a certificate expires.\n# TYPE {name} gauge");
        let certificates = self.certificates.of(&self.config.load());
        for certificate in certificates.iter().filter(|certificate| certificate.not_after != 0) {
            _ = writeln!(text, "{name}{{certificate=\"{}\"}} {}", certificate.name, certificate.not_after);
        }
    }
}

fn render_times(text: &mut String, name: &str, help: &str, times: &FetchTimes) {
    _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} histogram");
    let bounds = BOUNDS_US.iter().map(|bound| (*bound as f64 / 1e6).to_string()).chain(["+Inf".to_owned()]);
    let mut total = 0;
    for (bound, count) in bounds.zip(times.buckets) {
        total += count;
        _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {total}");
    }
    _ = writeln!(text, "{name}_sum {}\n{name}_count {total}", times.sum_us as f64 / 1e6);
}

/// What the cache has on disk.
fn render_disk_metrics(text: &mut String, cache: &Counters) {
    for (name, kind, help, value) in [
        ("objects", "gauge", "Objects on disk.", cache.disk_objects),
        ("bytes", "gauge", "Bytes of the files of objects on disk.", cache.disk_bytes),
        ("budget_bytes", "gauge", "Bytes of disk that may be used; 0 = none is.", cache.disk_budget_bytes),
        ("open_milliseconds", "gauge", "How long reading the lists took at the start.", cache.disk_open_ms),
        ("hits_total", "counter", "Answers from an object on disk.", cache.disk_hits),
        ("read_bytes_total", "counter", "Bytes of bodies that were read.", cache.disk_read_bytes),
        ("written_total", "counter", "Objects that were written.", cache.disk_written),
        ("dropped_total", "counter", "Objects that the disk was too slow or full for.", cache.disk_dropped),
        ("evictions_total", "counter", "Objects on disk that had to make room.", cache.disk_evictions),
        ("damaged_total", "counter", "Objects that were not what was written.", cache.disk_damaged),
        ("errors_total", "counter", "Reads and writes that failed.", cache.disk_errors),
    ] {
        let name = format!("shoal_cache_disk_{name}");
        _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
    }
}

/// What the others have still to apply, by what they gossip: a figure up to two rounds of gossip old.
fn render_peer_lag(text: &mut String, view: &ClusterView, committed: u64, local: NodeId) {
    let name = "shoal_raft_peer_lag";
    let help = "Committed log entries that a member had not applied when it was last heard.";
    _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
    for peer in view.nodes.iter().filter(|peer| peer.id != local) {
        let lag = committed.saturating_sub(peer.applied_index);
        _ = writeln!(text, "{name}{{node=\"{}\"}} {lag}", peer.name);
    }
}
