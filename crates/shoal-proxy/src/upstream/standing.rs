//! What this node's traffic has shown of endpoints: shared by its workers, so that one ejects for all.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use rustc_hash::FxHashMap;
use shoal_cluster::ClusterView;
use shoal_model::EndpointId;
use shoal_model::view::{PassiveView, UpstreamView};
use shoal_policy::health::{
    Admittance, Availability, Ejection, EjectionChange, Outcome, Tally, may_eject, outliers,
};
use tokio::sync::mpsc;

use super::complaints::Complaints;
use super::offered::Offers;
use super::places::Places;
use crate::health_event::HealthEvent;
use crate::metrics;

/// The standings of all endpoints that had traffic.
pub(crate) struct Standings {
    by_id: Mutex<FxHashMap<EndpointId, Arc<Standing>>>,
    /// When the endpoints of an upstream were compared last, ms.
    compared_ms: Mutex<FxHashMap<Arc<str>, u64>>,
    events: mpsc::Sender<HealthEvent>,
    /// What comes in for upstreams of several regions.
    pub(crate) offers: Offers,
    /// Where tries went.
    pub(crate) places: Places,
}

/// What traffic has shown of one endpoint. While all is well nothing is locked.
pub(super) struct Standing {
    id: EndpointId,
    /// Errors were seen since the last success, or it is ejected.
    blemished: AtomicBool,
    ejected: AtomicBool,
    /// Clock of the last record, for trials that are given up.
    last_ms: AtomicU64,
    /// Since endpoints were compared last; counted only where they are.
    requests: AtomicU32,
    successes: AtomicU32,
    ejection: Mutex<Ejection>,
    /// What was said of it lately.
    pub(super) complaints: Complaints,
    events: mpsc::Sender<HealthEvent>,
}

impl Standings {
    pub(crate) fn new(events: mpsc::Sender<HealthEvent>) -> Self {
        Self {
            by_id: Mutex::default(),
            compared_ms: Mutex::default(),
            events,
            offers: Offers::default(),
            places: Places::default(),
        }
    }

    pub(super) fn of(&self, id: EndpointId) -> Arc<Standing> {
        let mut by_id = self.by_id.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            Arc::new(Standing {
                id,
                blemished: AtomicBool::new(false),
                ejected: AtomicBool::new(false),
                last_ms: AtomicU64::new(0),
                requests: AtomicU32::new(0),
                successes: AtomicU32::new(0),
                ejection: Mutex::default(),
                complaints: Complaints::default(),
                events: self.events.clone(),
            })
        };
        by_id.entry(id).or_insert_with(new).clone()
    }

    /// Compares `endpoints`, which are those of `view`, by how often they succeed, and ejects those that stand out: once
    /// in an interval, whichever worker comes first.
    pub(super) fn compare(&self, view: &UpstreamView, endpoints: &[&Standing], now_ms: u64) {
        let Some(rule) = &view.passive.success_rate else { return };
        let mut compared_ms = self.compared_ms.lock().unwrap_or_else(PoisonError::into_inner);
        let last_ms = compared_ms.entry(view.name.clone()).or_insert(now_ms);
        if u128::from(now_ms.saturating_sub(*last_ms)) < rule.interval.as_millis() {
            return;
        }
        *last_ms = now_ms;
        drop(compared_ms);
        let tallies: Vec<Tally> = endpoints.iter().map(|standing| standing.take_tally()).collect();
        for place in outliers(&tallies, rule) {
            let ejected = endpoints.iter().filter(|standing| standing.is_ejected()).count();
            endpoints[place].record_outlier(now_ms, &view.passive, ejected, endpoints.len());
        }
    }

    /// Appends what is known of every endpoint of `upstreams`, by traffic and by the cluster's checks. Standings of
    /// endpoints that are gone are forgotten here.
    pub(crate) fn render(&self, upstreams: &[Arc<UpstreamView>], cluster: &ClusterView, out: &mut String) {
        metrics::head(
            out,
            "shoal_endpoint_up",
            "gauge",
            "1 while an endpoint is taken to be up, by its source.",
        );
        let mut by_id = self.by_id.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen: FxHashMap<EndpointId, Arc<Standing>> = FxHashMap::default();
        for upstream in upstreams {
            for endpoint in &upstream.endpoints {
                let standing = by_id.get(&endpoint.id);
                let local = standing.is_none_or(|standing| !standing.is_ejected());
                let gossip = cluster.availability(endpoint.id) != Availability::Down;
                for (source, up) in [("local", local), ("gossip", gossip)] {
                    let labels = format!(
                        "upstream=\"{}\",endpoint=\"{}\",source=\"{source}\"",
                        metrics::escape(&upstream.name),
                        metrics::escape(&endpoint.text),
                    );
                    metrics::line(out, "shoal_endpoint_up", &labels, up.into());
                }
                seen.extend(standing.map(|standing| (endpoint.id, standing.clone())));
            }
        }
        by_id.retain(|id, standing| seen.contains_key(id) || Arc::strong_count(standing) > 1);
        drop(by_id);
        let mut compared_ms = self.compared_ms.lock().unwrap_or_else(PoisonError::into_inner);
        compared_ms.retain(|name, _| upstreams.iter().any(|upstream| upstream.name == *name));
        drop(compared_ms);
        self.places.render(out);
    }
}

impl Standing {
    pub(super) fn is_ejected(&self) -> bool {
        self.ejected.load(Relaxed)
    }

    /// Nothing speaks against it.
    pub(super) fn is_spotless(&self) -> bool {
        !self.blemished.load(Relaxed)
    }

    /// A request may go there, if only on trial.
    pub(super) fn admits(&self, now_ms: u64) -> bool {
        !self.is_ejected() || self.ejection().admittance(now_ms) != Admittance::Closed
    }

    pub(super) fn begin_trial(&self, now_ms: u64) -> bool {
        self.is_ejected() && self.ejection().begin_trial(now_ms)
    }

    pub(super) fn abandon_trial(&self) {
        let last_ms = self.last_ms.load(Relaxed);
        self.ejection().abandon_trial(last_ms);
    }

    pub(super) fn record(
        &self,
        outcome: Outcome,
        now_ms: u64,
        rule: &PassiveView,
        ejected: usize,
        total: usize,
    ) {
        self.last_ms.fetch_max(now_ms, Relaxed);
        let spare = may_eject(ejected, total, rule.max_ejected_percent);
        let mut ejection = self.ejection();
        let change = ejection.record(outcome, now_ms, rule, spare);
        self.ejected.store(ejection.is_ejected(), Relaxed);
        self.blemished.store(outcome != Outcome::Success || ejection.is_ejected(), Relaxed);
        drop(ejection);
        self.tell(change);
    }

    fn record_outlier(&self, now_ms: u64, rule: &PassiveView, ejected: usize, total: usize) {
        let spare = may_eject(ejected, total, rule.max_ejected_percent);
        let mut ejection = self.ejection();
        let change = ejection.record_outlier(now_ms, rule, spare);
        self.ejected.store(ejection.is_ejected(), Relaxed);
        self.blemished.fetch_or(ejection.is_ejected(), Relaxed);
        drop(ejection);
        self.tell(change);
    }

    /// Counts a request for the next comparison.
    pub(super) fn count(&self, success: bool) {
        self.requests.fetch_add(1, Relaxed);
        self.successes.fetch_add(success.into(), Relaxed);
    }

    /// What was counted since the last comparison.
    fn take_tally(&self) -> Tally {
        let requests = self.requests.swap(0, Relaxed);
        Tally { requests, successes: self.successes.swap(0, Relaxed).min(requests) }
    }

    fn tell(&self, change: Option<EjectionChange>) {
        let event = match change {
            Some(EjectionChange::Ejected) => HealthEvent::Ejected { endpoint: self.id },
            Some(EjectionChange::Readmitted) => HealthEvent::Readmitted { endpoint: self.id },
            None => return,
        };
        // Others learn of it a little later if the channel is full; this node has acted already.
        let _ = self.events.try_send(event);
    }

    fn ejection(&self) -> std::sync::MutexGuard<'_, Ejection> {
        self.ejection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
