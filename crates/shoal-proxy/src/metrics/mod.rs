//! Figures of the data plane: cells that one worker writes and a scrape reads.

mod cells;
mod client_outcome;
mod client_refusal;
mod figures;
mod limit;
mod purge_result;
mod render;
mod route_cells;
mod series;
mod shed_cause;
mod turned_away;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use shoal_policy::failure::Failure;
use shoal_policy::gate::{ErrorCode, Rule};

pub use figures::{JudgedSum, TrafficFigures, TrafficSum};
pub use series::OTHER;

pub(crate) use cells::{CacheUse, Cell64, Sample, Traffic};
pub(crate) use client_outcome::ClientOutcome;
pub(crate) use client_refusal::ClientRefusal;
pub(crate) use limit::Limit;
pub(crate) use purge_result::PurgeResult;
pub(crate) use render::{escape, head, line, render, render_ticks};
pub(crate) use route_cells::RouteCells;
pub(crate) use series::Names;
pub(crate) use shed_cause::ShedCause;
pub(crate) use turned_away::TurnedAway;

use series::Series;

use crate::pulse::Pulse;

use cells::{FAILURES, GATE_RULES, place_of};

/// The cells of one worker.
#[derive(Default)]
pub(crate) struct WorkerMetrics {
    listeners: Series,
    routes: Series,
    upstreams: Series,
    in_flight: Cell64,
    requests: Cell64,
    failures: [Cell64; FAILURES],
    refusals: [Cell64; GATE_RULES],
    turned_away: [Cell64; TurnedAway::ALL.len()],
    shed: [Cell64; ShedCause::ALL.len()],
    /// Its signs of life.
    pub(crate) pulse: Arc<Pulse>,
    /// How long its queue let things wait when it was looked at last.
    pub(crate) queue_delay_us: Cell64,
    /// Connections it gave to other workers as soon as it had accepted them.
    pub(crate) handed_over: Cell64,
    /// Connections that are idle now, and kept at the least cost.
    pub(crate) resting: Cell64,
    clients: [Cell64; ClientOutcome::ALL.len()],
    client_refusals: [Cell64; ClientRefusal::ALL.len()],
    limits: [Cell64; Limit::ALL.len()],
    purges: [Cell64; PurgeResult::ALL.len()],
    /// HTTP/2 connections that ended with an error.
    h2_errors: [Cell64; ErrorCode::ALL.len()],
    /// TLS handshakes that failed or took too long.
    pub(crate) handshakes_failed: Cell64,
    /// Spans that were dropped because whoever sends them was behind.
    pub(crate) spans_dropped: Cell64,
}

impl WorkerMetrics {
    /// The cells of a worker that shares `names` with the others.
    pub(crate) fn new(names: &Names) -> Self {
        Self {
            listeners: Series::new(&names.listeners),
            routes: Series::new(&names.routes),
            upstreams: Series::new(&names.upstreams),
            ..Self::default()
        }
    }

    pub(crate) fn listener(&self, name: &Arc<str>) -> Arc<Traffic> {
        self.listeners.of(name)
    }

    pub(crate) fn upstream(&self, name: &Arc<str>) -> Arc<Traffic> {
        self.upstreams.of(name)
    }

    pub(crate) fn route(&self, name: &Arc<str>) -> Arc<Traffic> {
        self.routes.of(name)
    }

    pub(crate) fn begin_request(&self) {
        self.requests.add(1);
        self.in_flight.add(1);
    }

    /// A request has ended.
    pub(crate) fn end_request(&self, listener: &Traffic, sample: &Sample, failure: Option<Failure>) {
        self.in_flight.subtract(1);
        listener.record(sample);
        if let Some(failure) = failure {
            self.failures[place_of(failure)].add(1);
        }
    }

    /// A connection was closed before it was served.
    pub(crate) fn turn_away(&self, why: TurnedAway) {
        self.turned_away[why as usize].add(1);
    }

    /// A downstream was asked for its certificate.
    pub(crate) fn ask_client(&self, outcome: ClientOutcome) {
        self.clients[outcome as usize].add(1);
    }

    /// The certificate of a downstream was refused.
    pub(crate) fn refuse_client(&self, why: ClientRefusal) {
        self.client_refusals[why as usize].add(1);
    }

    /// A request was refused because there is too much to do.
    pub(crate) fn shed(&self, cause: ShedCause) {
        self.shed[cause as usize].add(1);
    }

    /// Something failed that was no request.
    pub(crate) fn fail(&self, failure: Failure) {
        self.failures[place_of(failure)].add(1);
    }

    /// A limit has ended something.
    pub(crate) fn reach(&self, limit: Limit) {
        self.limits[limit as usize].add(1);
    }

    /// A `PURGE` request was answered.
    pub(crate) fn purge(&self, result: PurgeResult) {
        self.purges[result as usize].add(1);
    }

    /// An HTTP/2 connection was ended because of what its downstream sent.
    pub(crate) fn end_h2(&self, code: ErrorCode) {
        self.h2_errors[code as usize].add(1);
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
