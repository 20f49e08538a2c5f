//! One request and its response, as metrics and the access log see them: counted when it ends, however it ends.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderValue, Method, Version};
use shoal_cache::FetchNotes;
use shoal_model::view::{CollectorView, RouteView};
use shoal_policy::failure::Failure;
use shoal_policy::forwarding::Span;

use crate::access_log::{self, LogLine};
use crate::body::BodyProgress;
use crate::listener::Connection;
use crate::metrics::{Sample, Traffic};
use crate::spans::{self, Tries};

/// One request and its response. Dropping it ends it.
pub(crate) struct Exchange {
    pub(crate) connection: Rc<Connection>,
    pub(crate) started: Instant,
    pub(crate) status: u16,
    pub(crate) failure: Option<Failure>,
    pub(crate) route: Option<Arc<RouteView>>,
    pub(crate) request_body: Option<Rc<BodyProgress>>,
    pub(crate) response_bytes: u64,
    /// The response went out to its end.
    pub(crate) complete: bool,
    /// It asked for an upgrade: what follows on its connection may not be HTTP.
    pub(crate) asked_upgrade: bool,
    /// It lives on as a tunnel, and ends with it.
    pub(crate) tunnel: Option<Rc<TunnelTally>>,
    /// The response carries already what every response of this node does.
    pub(crate) signed: bool,
    /// It is a gRPC call: trailers pass, and failures are told in its own words.
    pub(crate) grpc: bool,
    pub(crate) trace: Trace,
    /// Only kept when it is logged, or its span is sent.
    pub(crate) record: Option<Box<Record>>,
}

/// What forwarding did.
#[derive(Default)]
pub(crate) struct Trace {
    /// Where the last try went.
    pub(crate) endpoint: Option<Rc<str>>,
    /// The cells of the upstream.
    pub(crate) upstream: Option<Arc<Traffic>>,
    pub(crate) tries: u32,
    /// Time spent on connecting.
    pub(crate) connect: Duration,
    /// From the start of the exchange to the response head.
    pub(crate) first_byte: Option<Duration>,
    /// Every try, if the span of the request is sent.
    pub(crate) spans: Option<Box<Tries>>,
}

impl Trace {
    /// Takes over what a fill of the cache noted on behalf of this exchange. Its traffic is counted by the fetch.
    pub(crate) fn adopt(&mut self, notes: FetchNotes, started: Instant) {
        if notes.tries > 0 {
            self.endpoint = notes.endpoint.map(Rc::from);
            self.tries = notes.tries;
            self.connect = notes.connect;
            self.first_byte = notes.first_byte.map(|at| at.saturating_duration_since(started));
        }
    }
}

/// An exchange that has become a tunnel, and what went through it. Both the response that opens it and the tunnel hold it:
/// the exchange ends when both are gone.
#[derive(Default)]
pub(crate) struct TunnelTally {
    /// Bytes from the downstream.
    pub(crate) received: Cell<u64>,
    /// Bytes to the downstream.
    pub(crate) sent: Cell<u64>,
    exchange: RefCell<Option<Exchange>>,
}

impl TunnelTally {
    fn take_over(&self, exchange: &mut Exchange) {
        *self.exchange.borrow_mut() = Some(Exchange {
            connection: exchange.connection.clone(),
            started: exchange.started,
            status: exchange.status,
            failure: exchange.failure,
            route: exchange.route.take(),
            request_body: None,
            response_bytes: 0,
            complete: true,
            asked_upgrade: true,
            tunnel: None,
            signed: true,
            grpc: false,
            trace: std::mem::take(&mut exchange.trace),
            record: exchange.record.take(),
        });
    }
}

impl Drop for TunnelTally {
    fn drop(&mut self) {
        if let Some(exchange) = self.exchange.get_mut() {
            let received = BodyProgress::default();
            received.bytes.set(self.received.get());
            exchange.request_body = Some(Rc::new(received));
            exchange.response_bytes = self.sent.get();
        }
    }
}

/// What the access log and a span say of a request.
#[derive(Default)]
pub(crate) struct Record {
    /// It has a line in the access log.
    pub(crate) logged: bool,
    /// Who is sent its span.
    pub(crate) collector: Option<Arc<CollectorView>>,
    /// `None` = the parser gave up before.
    pub(crate) method: Option<Method>,
    pub(crate) version: Version,
    pub(crate) target: String,
    pub(crate) host: Option<HeaderValue>,
    pub(crate) client_addr: Option<IpAddr>,
    pub(crate) request_id: Option<HeaderValue>,
    pub(crate) cache_status: Option<HeaderValue>,
    pub(crate) user_agent: Option<HeaderValue>,
    pub(crate) span: Option<Span>,
}

impl Exchange {
    pub(crate) fn begin(connection: &Rc<Connection>) -> Self {
        connection.state.request_began();
        connection.worker.metrics.begin_request();
        Self {
            connection: connection.clone(),
            started: Instant::now(),
            status: 0,
            failure: None,
            route: None,
            request_body: None,
            response_bytes: 0,
            complete: false,
            asked_upgrade: false,
            tunnel: None,
            signed: false,
            grpc: false,
            trace: Trace::default(),
            record: None,
        }
    }

    /// It failed. The first failure is the one that counts.
    pub(crate) fn fail(&mut self, failure: Failure) {
        self.failure.get_or_insert(failure);
    }

    pub(crate) fn request_bytes(&self) -> u64 {
        self.request_body.as_ref().map_or(0, |progress| progress.bytes.get())
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(tunnel) = self.tunnel.take() {
            return tunnel.take_over(self);
        }
        let connection = self.connection.clone();
        if !self.complete {
            self.fail(Failure::DownstreamReset);
        }
        let sample = Sample {
            status: self.status,
            https: connection.settings.gate.https,
            duration: self.started.elapsed(),
            request_bytes: self.request_bytes(),
            response_bytes: self.response_bytes,
        };
        if let Some(upstream) = &self.trace.upstream {
            upstream.record(&sample);
        }
        if let Some(route) = &self.route {
            connection.worker.routes.record(route, &sample);
        }
        connection.worker.metrics.end_request(&connection.listener.traffic, &sample, self.failure);
        let record = self.record.take();
        if let Some(record) = record.as_ref().filter(|record| record.logged) {
            let text = access_log::line(&connection, self, record, sample.duration);
            let path = connection.settings.view.access_log.as_ref().and_then(|log| log.path.clone());
            connection.worker.write_log(LogLine { text, path });
        }
        if let Some(span) =
            record.and_then(|record| spans::finish(&connection, self, &record, sample.duration))
        {
            connection.worker.send_span(span);
        }
        if self.request_body.as_ref().is_some_and(|body| body.done.get()) {
            connection.state.set_unread(false);
        }
        connection.state.request_ended();
    }
}
