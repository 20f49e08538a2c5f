//! One request and its response, as metrics and the access log see them.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderValue, Method, Version};
use shoal_model::view::{CollectorView, RouteView};
use shoal_policy::failure::Failure;
use shoal_policy::forwarding::Span;

use crate::downstream_body::BodyProgress;
use crate::listener::Connection;
use crate::metrics::CacheUse;
use crate::spans::Tries;
use crate::trace::Trace;

/// One request and its response. Dropping it ends it, if nobody did before.
pub(crate) struct Exchange {
    pub(crate) connection: Rc<Connection>,
    pub(crate) started: Instant,
    /// From then to the answer, on its route: what comes later hangs on how fast the downstream reads. `None` = nobody asks.
    pub(crate) answered: Option<Duration>,
    pub(crate) status: u16,
    pub(crate) failure: Option<Failure>,
    pub(crate) route: Option<Arc<RouteView>>,
    pub(crate) request_body: Option<Rc<BodyProgress>>,
    pub(crate) response_bytes: u64,
    /// The response went out to its end.
    pub(crate) complete: bool,
    /// It asked for an upgrade: what follows on its connection may not be HTTP.
    pub(crate) asked_upgrade: bool,
    /// Its endpoint was asked for an upgrade.
    pub(crate) asked_switch: bool,
    /// It lives on as a tunnel, and ends with it.
    pub(crate) tunnel: Option<Rc<TunnelTally>>,
    /// The response carries already what every response of this node does.
    pub(crate) signed: bool,
    /// It is a gRPC call: trailers pass, and failures are told in its own words.
    pub(crate) grpc: bool,
    /// What the cache was for it.
    pub(crate) cached: CacheUse,
    pub(crate) trace: Trace,
    /// Only kept when it is logged, or its span is sent.
    pub(crate) record: Option<Box<Record>>,
    /// It is counted already.
    pub(crate) ended: bool,
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
    pub(crate) fn take_over(&self, exchange: &mut Exchange) {
        *self.exchange.borrow_mut() = Some(Exchange {
            connection: exchange.connection.clone(),
            started: exchange.started,
            answered: exchange.answered,
            status: exchange.status,
            failure: exchange.failure,
            route: exchange.route.take(),
            request_body: None,
            response_bytes: 0,
            complete: true,
            asked_upgrade: true,
            asked_switch: true,
            tunnel: None,
            signed: true,
            grpc: false,
            cached: CacheUse::None,
            trace: std::mem::take(&mut exchange.trace),
            record: exchange.record.take(),
            ended: false,
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
            answered: None,
            status: 0,
            failure: None,
            route: None,
            request_body: None,
            response_bytes: 0,
            complete: false,
            asked_upgrade: false,
            asked_switch: false,
            tunnel: None,
            signed: false,
            grpc: false,
            cached: CacheUse::None,
            trace: Trace::default(),
            record: None,
            ended: false,
        }
    }

    /// It failed. The first failure is the one that counts.
    pub(crate) fn fail(&mut self, failure: Failure) {
        self.failure.get_or_insert(failure);
    }

    /// Whether `span` is to be sent to somebody, and to whom. From here on its tries are noted then.
    pub(crate) fn follow(&mut self, span: Option<Span>) -> Option<Arc<CollectorView>> {
        let tracing = self.connection.settings.view.tracing.as_ref()?;
        let span = span.filter(Span::is_sampled)?;
        let collector = tracing.collector.clone()?;
        self.trace.spans = Some(Box::new(Tries::new(span, self.started)));
        Some(collector)
    }

    pub(crate) fn request_bytes(&self) -> u64 {
        self.request_body.as_ref().map_or(0, |progress| progress.bytes.get())
    }
}
