//! Figures of the data plane: cells that one worker writes and a scrape reads.

mod cells;
mod render;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustc_hash::FxHashMap;
use shoal_model::view::RouteView;
use shoal_policy::failure::Failure;
use shoal_policy::gate::Rule;

pub(crate) use cells::{Cell64, Sample, Traffic};
pub(crate) use render::{escape, head, line, render};

use cells::{FAILURES, GATE_RULES, place_of};

/// Names with their cells, kept for as long as the process lives, so that counters never fall.
type ByName = Mutex<FxHashMap<Arc<str>, Arc<Traffic>>>;

/// The cells of one worker.
#[derive(Default)]
pub(crate) struct WorkerMetrics {
    listeners: ByName,
    routes: ByName,
    upstreams: ByName,
    in_flight: Cell64,
    requests: Cell64,
    failures: [Cell64; FAILURES],
    refusals: [Cell64; GATE_RULES],
    /// Connections turned away because a listener had too many.
    pub(crate) connections_refused: Cell64,
    /// TLS handshakes that failed or took too long.
    pub(crate) handshakes_failed: Cell64,
    /// Lines of the access log that were dropped because the writer was behind.
    pub(crate) log_lines_dropped: Cell64,
}

impl WorkerMetrics {
    pub(crate) fn listener(&self, name: &Arc<str>) -> Arc<Traffic> {
        cell_of(&self.listeners, name)
    }

    pub(crate) fn upstream(&self, name: &Arc<str>) -> Arc<Traffic> {
        cell_of(&self.upstreams, name)
    }

    pub(crate) fn begin_request(&self) {
        self.requests.add(1);
        self.in_flight.add(1);
    }

    /// A request has ended.
    pub(crate) fn end_request(
        &self,
        listener: &Traffic,
        route: Option<&RouteView>,
        sample: &Sample,
        failure: Option<Failure>,
    ) {
        self.in_flight.subtract(1);
        listener.record(sample);
        if let Some(route) = route {
            self.record_route(route, sample);
        }
        if let Some(failure) = failure {
            self.failures[place_of(failure)].add(1);
        }
    }

    fn record_route(&self, route: &RouteView, sample: &Sample) {
        // Only a scrape contends for the lock, once in a while and for microseconds.
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        match routes.get(&route.name) {
            Some(traffic) => traffic.record(sample),
            None => routes.entry(route.name.clone()).or_default().record(sample),
        }
    }

    pub(crate) fn refuse(&self, rule: Rule) {
        self.refusals[rule.index()].add(1);
    }

    /// Requests under way.
    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight.read()
    }

    /// Requests since the start.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.read()
    }
}

fn cell_of(cells: &ByName, name: &Arc<str>) -> Arc<Traffic> {
    let mut cells = cells.lock().unwrap_or_else(PoisonError::into_inner);
    cells.entry(name.clone()).or_default().clone()
}

/// A figure that everybody may change: connections of a listener, which all workers accept.
#[derive(Default)]
pub(crate) struct Gauge(AtomicUsize);

impl Gauge {
    /// One more; answers how many there are now.
    pub(crate) fn enter(&self) -> usize {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn leave(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}
