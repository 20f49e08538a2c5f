//! One carried connection, as metrics and the access log see it: counted when it ends, however it ends.

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use shoal_model::log_format::{LogField, LogFormat};
use shoal_model::site::Protocol;
use shoal_model::view::{ListenerView, UpstreamView};
use shoal_policy::failure::Failure;

use crate::access_log::{LogLine, Value, fill, to_json};
use crate::listener::WorkerListener;
use crate::trace::Trace;

/// One carried connection. Dropping it ends it.
pub(super) struct Journey {
    pub(super) listener: Rc<WorkerListener>,
    pub(super) view: Arc<ListenerView>,
    caller: IpAddr,
    started: Instant,
    /// As asked for in the TLS greeting.
    pub(super) server_name: Option<String>,
    pub(super) upstream: Option<Arc<UpstreamView>>,
    pub(super) trace: Trace,
    /// Bytes from the downstream.
    pub(super) received: Cell<u64>,
    /// Bytes to the downstream.
    pub(super) sent: Cell<u64>,
    pub(super) failure: Option<Failure>,
}

impl Journey {
    pub(super) fn begin(listener: Rc<WorkerListener>, view: Arc<ListenerView>, caller: IpAddr) -> Self {
        Self {
            listener,
            view,
            caller: caller.to_canonical(),
            started: Instant::now(),
            server_name: None,
            upstream: None,
            trace: Trace::default(),
            received: Cell::new(0),
            sent: Cell::new(0),
            // What it is unless it comes to its own end.
            failure: Some(Failure::Draining),
        }
    }

    /// Its line in the access log.
    fn line(&self) -> String {
        let us = |duration: Duration| duration.as_micros() as u64;
        let line = Line {
            time_ms: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64),
            node: &self.listener.worker.node_name,
            listener: &self.view.name,
            protocol: if self.view.protocol == Protocol::TlsPassthrough { "tls" } else { "tcp" },
            upstream: self.upstream.as_ref().map(|upstream| &*upstream.name),
            endpoint: self.trace.endpoint.as_deref(),
            tries: self.trace.tries,
            client_addr: self.caller.to_string(),
            server_name: self.server_name.as_deref(),
            reason: self.failure.map_or("ok", Failure::reason),
            detail: match self.failure {
                Some(Failure::UpstreamConnectFailed) => self.trace.detail,
                _ => None,
            },
            request_bytes: self.received.get(),
            response_bytes: self.sent.get(),
            connect_us: us(self.trace.connect),
            total_us: us(self.started.elapsed()),
        };
        match self.view.access_log.as_ref().map(|log| &log.format) {
            None | Some(LogFormat::Json) => to_json(&line),
            Some(LogFormat::Template(parts)) => fill(parts, |field| line.value(field)),
        }
    }
}

impl Drop for Journey {
    fn drop(&mut self) {
        let worker = &self.listener.worker;
        let (received, sent) = (self.received.get(), self.sent.get());
        self.listener.traffic.record_carried(received, sent);
        if let Some(upstream) = &self.trace.upstream {
            upstream.record_carried(received, sent);
        }
        if let Some(failure) = self.failure {
            worker.metrics.fail(failure);
        }
        let log = self.view.access_log.as_ref();
        let is_logged = match log {
            None => worker.logs_access(),
            Some(log) => log.sample.includes(worker.entropy()),
        };
        if is_logged {
            let path = log.and_then(|log| log.path.clone());
            worker.write_log(LogLine { text: self.line(), path });
        }
    }
}

/// One line. The names of requests' lines, where they mean the same.
#[derive(Serialize)]
struct Line<'a> {
    time_ms: u64,
    node: &'a str,
    listener: &'a str,
    protocol: &'static str,
    upstream: Option<&'a str>,
    endpoint: Option<&'a str>,
    tries: u32,
    client_addr: String,
    server_name: Option<&'a str>,
    reason: &'static str,
    /// Why no connection to the endpoint came about.
    detail: Option<&'static str>,
    request_bytes: u64,
    response_bytes: u64,
    connect_us: u64,
    total_us: u64,
}

impl Line<'_> {
    fn value(&self, field: LogField) -> Value<'_> {
        match field {
            LogField::TimeMs => self.time_ms.into(),
            LogField::Node => self.node.into(),
            LogField::Listener => self.listener.into(),
            LogField::Protocol => self.protocol.into(),
            LogField::Upstream => self.upstream.into(),
            LogField::Endpoint => self.endpoint.into(),
            LogField::Tries => u64::from(self.tries).into(),
            LogField::ClientAddr => self.client_addr.as_str().into(),
            LogField::ServerName => self.server_name.into(),
            LogField::Reason => self.reason.into(),
            LogField::Detail => self.detail.into(),
            LogField::RequestBytes => self.request_bytes.into(),
            LogField::ResponseBytes => self.response_bytes.into(),
            LogField::ConnectUs => self.connect_us.into(),
            LogField::TotalUs => self.total_us.into(),
            // Of requests; templates for connections do not have them.
            _ => Value::Text(None),
        }
    }
}
