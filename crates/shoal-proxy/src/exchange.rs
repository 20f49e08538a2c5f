//! One request and its response, as metrics and the access log see them: counted when it ends, however it ends.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderValue, Method, Version};
use shoal_model::view::RouteView;
use shoal_policy::failure::Failure;

use crate::access_log;
use crate::body::BodyProgress;
use crate::listener::Connection;
use crate::metrics::{Sample, Traffic};

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
    /// It lives on as a tunnel: no response is broken off.
    pub(crate) upgraded: bool,
    pub(crate) trace: Trace,
    /// Only kept when the access log is on.
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
}

/// What the access log says of a request.
pub(crate) struct Record {
    pub(crate) method: Method,
    pub(crate) version: Version,
    pub(crate) target: String,
    pub(crate) host: HeaderValue,
    pub(crate) client_addr: IpAddr,
    pub(crate) request_id: HeaderValue,
    pub(crate) cache_status: Option<HeaderValue>,
    pub(crate) user_agent: Option<HeaderValue>,
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
            upgraded: false,
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
        let connection = self.connection.clone();
        if !self.complete && !self.upgraded {
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
        connection.worker.metrics.end_request(
            &connection.listener.traffic,
            self.route.as_deref(),
            &sample,
            self.failure,
        );
        if let Some(record) = &self.record {
            connection.worker.access_log(access_log::line(&connection, self, record, sample.duration));
        }
        if self.request_body.as_ref().is_some_and(|body| body.done.get()) {
            connection.state.set_unread(false);
        }
        connection.state.request_ended();
    }
}
