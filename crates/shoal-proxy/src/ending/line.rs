//! What the access log says of a request.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderValue, Method, Version};
use serde::Serialize;
use shoal_model::log_format::{LogField, LogFormat};
use shoal_policy::failure::Failure;

use crate::access_log::{Value, fill, to_json};
use crate::exchange::{Exchange, Record};
use crate::listener::Connection;

/// One line.
#[derive(Serialize)]
struct Line<'a> {
    time_ms: u64,
    node: &'a str,
    listener: &'a str,
    route: Option<&'a str>,
    upstream: Option<&'a str>,
    endpoint: Option<&'a str>,
    tries: u32,
    client_addr: String,
    method: Option<&'a str>,
    host: Option<String>,
    target: &'a str,
    version: &'static str,
    status: u16,
    reason: &'static str,
    /// The rule of the gate that a refused request broke.
    rule: Option<&'static str>,
    /// Why no connection to the endpoint came about.
    detail: Option<&'static str>,
    request_bytes: u64,
    response_bytes: u64,
    connect_us: u64,
    first_byte_us: Option<u64>,
    total_us: u64,
    cache: Option<String>,
    user_agent: Option<String>,
    request_id: Option<String>,
    trace_id: Option<String>,
    span_id: Option<String>,
    parent_id: Option<String>,
    client_cert_subject: Option<&'a str>,
    client_cert_sha256: Option<&'a str>,
}

/// The line of a request that has ended.
pub(super) fn line(connection: &Connection, exchange: &Exchange, record: &Record, total: Duration) -> String {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let us = |duration: Duration| duration.as_micros() as u64;
    let line = Line {
        time_ms: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64),
        node: &connection.worker.node_name,
        listener: &connection.settings.view.name,
        route: exchange.route.as_ref().map(|route| &*route.name),
        upstream: exchange.route.as_ref().map(|route| &*route.upstream.name),
        endpoint: exchange.trace.endpoint.as_deref(),
        tries: exchange.trace.tries,
        client_addr: record.client_addr.unwrap_or(connection.caller.address).to_string(),
        method: record.method.as_ref().map(Method::as_str),
        host: record.host.as_ref().map(text),
        target: &record.target,
        version: version_text(record.version),
        status: exchange.status,
        rule: match exchange.failure {
            Some(Failure::BadRequest(rule)) => Some(rule),
            _ => None,
        },
        detail: match exchange.failure {
            Some(Failure::UpstreamConnectFailed | Failure::UpstreamResponseTimeout) => exchange.trace.detail,
            _ => None,
        },
        reason: exchange.failure.map_or("ok", Failure::reason),
        request_bytes: exchange.request_bytes(),
        response_bytes: exchange.response_bytes,
        connect_us: us(exchange.trace.connect),
        first_byte_us: exchange.trace.first_byte.map(us),
        total_us: us(total),
        cache: record.cache_status.as_ref().map(text),
        user_agent: record.user_agent.as_ref().map(text),
        request_id: record.request_id.as_ref().map(text),
        trace_id: record.span.map(|span| format!("{:032x}", span.trace_id)),
        span_id: record.span.map(|span| format!("{:016x}", span.span_id)),
        parent_id: record.span.and_then(|span| span.parent_id).map(|id| format!("{id:016x}")),
        client_cert_subject: connection
            .downstream_certificate
            .as_ref()
            .map(|shown| &*shown.certificate.subject),
        client_cert_sha256: connection
            .downstream_certificate
            .as_ref()
            .map(|shown| &*shown.certificate.sha256),
    };
    match connection.settings.view.access_log.as_ref().map(|log| &log.format) {
        None | Some(LogFormat::Json) => to_json(&line),
        Some(LogFormat::Template(parts)) => fill(parts, |field| line.value(field)),
    }
}

impl Line<'_> {
    fn value(&self, field: LogField) -> Value<'_> {
        match field {
            LogField::TimeMs => self.time_ms.into(),
            LogField::Tries => u64::from(self.tries).into(),
            LogField::Status => u64::from(self.status).into(),
            LogField::RequestBytes => self.request_bytes.into(),
            LogField::ResponseBytes => self.response_bytes.into(),
            LogField::ConnectUs => self.connect_us.into(),
            LogField::TotalUs => self.total_us.into(),
            LogField::FirstByteUs => self.first_byte_us.map_or(Value::Text(None), Value::Number),
            LogField::Node => self.node.into(),
            LogField::Listener => self.listener.into(),
            LogField::Route => self.route.into(),
            LogField::Upstream => self.upstream.into(),
            LogField::Endpoint => self.endpoint.into(),
            LogField::ClientAddr => self.client_addr.as_str().into(),
            LogField::Method => self.method.into(),
            LogField::Host => self.host.as_deref().into(),
            LogField::Target => self.target.into(),
            LogField::Version => self.version.into(),
            LogField::Reason => self.reason.into(),
            LogField::Rule => self.rule.into(),
            LogField::Detail => self.detail.into(),
            LogField::Cache => self.cache.as_deref().into(),
            LogField::UserAgent => self.user_agent.as_deref().into(),
            LogField::RequestId => self.request_id.as_deref().into(),
            LogField::TraceId => self.trace_id.as_deref().into(),
            LogField::SpanId => self.span_id.as_deref().into(),
            LogField::ParentId => self.parent_id.as_deref().into(),
            LogField::ClientCertSubject => self.client_cert_subject.into(),
            LogField::ClientCertSha256 => self.client_cert_sha256.into(),
            // Of connections; templates for requests do not have them.
            LogField::Protocol | LogField::ServerName => Value::Text(None),
        }
    }
}

fn version_text(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}
