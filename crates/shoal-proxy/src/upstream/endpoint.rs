//! One endpoint as one worker sees it, and one try of a request there.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use shoal_model::EndpointId;
use shoal_model::view::{EndpointAddress, EndpointView};
use shoal_policy::balance::Ewma;
use shoal_policy::failure::Failure;
use shoal_policy::health::{Outcome, Reason};
use shoal_policy::http1::KnownHead;

use super::Upstream;
use super::occupied::Occupied;
use super::pool::Idle;
use super::shared::Shared;
use super::standing::Standing;
use crate::worker::Worker;

/// One endpoint as one worker sees it.
pub(super) struct Endpoint {
    pub(super) id: EndpointId,
    /// As written.
    pub(super) text: Rc<str>,
    pub(super) address: EndpointAddress,
    pub(super) idle: Idle,
    /// HTTP/2.
    pub(super) shared: Shared,
    pub(super) in_flight: Cell<u32>,
    /// Open connections, tunnels included.
    pub(super) connections: Rc<Cell<usize>>,
    /// What it has answered with before, over HTTP/1.1.
    pub(super) known_head: Rc<RefCell<KnownHead>>,
    pub(super) latency: Cell<Ewma>,
    /// Since when it can be used, ms; 0 = it always could.
    pub(super) up_since_ms: Cell<u64>,
    /// Why the last connection that did not come about did not.
    pub(super) fault: Cell<Option<Reason>>,
    /// Shared by all workers of the node.
    pub(super) standing: Arc<Standing>,
}

impl Endpoint {
    pub(super) fn new(view: &EndpointView, standing: Arc<Standing>) -> Self {
        Self {
            id: view.id,
            text: Rc::from(&*view.text),
            address: view.address.clone(),
            idle: Idle::default(),
            shared: Shared::default(),
            in_flight: Cell::new(0),
            connections: Rc::default(),
            known_head: Rc::default(),
            latency: Cell::default(),
            up_since_ms: Cell::new(0),
            fault: Cell::new(None),
            standing,
        }
    }

    /// Says whether requests still come; else it keeps no connection that nobody uses.
    pub(super) fn set_closed(&self, closed: bool) {
        self.idle.set_closed(closed);
        self.shared.set_closed(closed);
    }

    /// Without a connection it needs no memory.
    pub(super) fn forget_if_unused(&self) {
        if self.connections.get() == 0 {
            self.known_head.borrow_mut().forget();
        }
    }

    /// Takes in how long a response head took.
    pub(super) fn record_latency(&self, latency: Duration, now_ms: u64) {
        let mut average = self.latency.get();
        average.record(latency.as_micros() as f32, now_ms);
        self.latency.set(average);
    }
}

impl Occupied {
    /// Takes a place, if this worker's share of them is not used up. What nobody uses makes room.
    pub(super) fn take(upstream: &Upstream, endpoint: &Endpoint, worker: &Worker) -> Result<Self, Failure> {
        let most = upstream.share(worker, upstream.view.max_connections);
        let is_full = || endpoint.connections.get() >= most;
        while is_full() && (endpoint.idle.close_oldest() || endpoint.shared.close_unused()) {}
        if is_full() {
            upstream.traffic.overflows.add(1);
            return Err(Failure::Overflow);
        }
        Ok(Self::one_of(&endpoint.connections))
    }
}

/// A request that waits for a connection, until dropped.
pub(super) struct Pending<'a>(&'a Upstream);

impl<'a> Pending<'a> {
    /// One more, if this worker's share of them is not used up.
    pub(super) fn begin(upstream: &'a Upstream, worker: &Worker) -> Result<Self, Failure> {
        if upstream.pending.get() >= upstream.share(worker, upstream.view.max_pending_requests) {
            upstream.traffic.overflows.add(1);
            return Err(Failure::Overflow);
        }
        upstream.pending.set(upstream.pending.get() + 1);
        Ok(Self(upstream))
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.pending.set(self.0.pending.get() - 1);
    }
}

/// A request that is under way to an endpoint: counted until dropped.
pub(crate) struct Attempt {
    pub(super) upstream: Rc<Upstream>,
    pub(super) endpoint: Rc<Endpoint>,
    /// Of the endpoint in the upstream.
    pub(super) place: usize,
    /// It is the one that finds out whether an ejected endpoint is well again.
    trial: bool,
}

impl Attempt {
    pub(super) fn begin(upstream: &Rc<Upstream>, place: usize, now_ms: u64) -> Option<Self> {
        let endpoint = upstream.endpoints.get(place)?.clone();
        let trial = endpoint.standing.begin_trial(now_ms);
        if let Some(tries) = upstream.places.as_ref().and_then(|places| places.get(place)) {
            tries.fetch_add(1, Relaxed);
        }
        endpoint.in_flight.set(endpoint.in_flight.get() + 1);
        Some(Self { upstream: upstream.clone(), endpoint, place, trial })
    }

    /// Reports how it went at the endpoint. What the downstream did wrong is not reported.
    pub(super) fn report(&mut self, outcome: Outcome, now_ms: u64) {
        self.trial = false;
        self.upstream.report(&self.endpoint, outcome, now_ms);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.endpoint.in_flight.set(self.endpoint.in_flight.get() - 1);
        if self.upstream.view.max_requests.is_some() {
            self.upstream.queue.advance();
        }
        if self.trial {
            self.endpoint.standing.abandon_trial();
        }
    }
}
