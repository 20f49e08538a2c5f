//! Spans as OTLP/JSON: `ExportTraceServiceRequest` of opentelemetry-proto 1.x by the JSON mapping of OTLP, where ids are
//! hexadecimal, 64-bit numbers text and enums numbers. Attributes are named by the semantic conventions for HTTP.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::Version;
use serde::{Serialize, Serializer};
use shoal_policy::failure::Failure;
use shoal_proxy::{RequestSpan, TrySpan};

const SERVER: u8 = 2;
const CLIENT: u8 = 3;
const STATUS_ERROR: u8 = 2;
/// Methods that are named as they are; others are `_OTHER`.
const METHODS: [&str; 9] = ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"];

/// The message that carries `requests`.
pub fn of(service_name: &str, requests: &[Box<RequestSpan>]) -> Vec<u8> {
    let node = requests.first().map_or("", |request| &request.node);
    let resource = Resource {
        attributes: vec![
            text("service.name", service_name),
            text("service.instance.id", node),
            text("service.version", env!("CARGO_PKG_VERSION")),
        ],
    };
    let spans = requests.iter().flat_map(|request| spans_of(request)).collect();
    let scope = Scope { name: "shoal", version: env!("CARGO_PKG_VERSION") };
    let message =
        Message { resource_spans: [ResourceSpans { resource, scope_spans: [ScopeSpans { scope, spans }] }] };
    // Strings and numbers only.
    serde_json::to_vec(&message).unwrap_or_default()
}

/// The span of the request, and one for each try.
fn spans_of(request: &RequestSpan) -> Vec<SpanDocument<'_>> {
    let began = request.ended - request.duration.min(since_epoch(request.ended));
    let tries = request.tries.iter().enumerate();
    let tries = tries.map(|(number, tried)| try_span(request, began, number, tried));
    std::iter::once(server_span(request, began)).chain(tries).collect()
}

fn server_span(request: &RequestSpan, began: SystemTime) -> SpanDocument<'_> {
    let method = known_method(request);
    let mut attributes = vec![
        text("http.request.method", method),
        text("url.scheme", if request.https { "https" } else { "http" }),
        text("network.protocol.name", "http"),
        text("network.protocol.version", version(request.version)),
        text("client.address", request.client_addr.to_string()),
        number("http.response.status_code", request.status.into()),
        number("http.request.body.size", request.request_bytes),
        number("http.response.body.size", request.response_bytes),
        text("shoal.listener", &*request.listener),
        text("shoal.reason", request.failure.map_or("ok", Failure::reason)),
    ];
    let (path, query) = match request.target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (&*request.target, None),
    };
    let original = request.method.as_ref().map(axum::http::Method::as_str);
    let optional = [
        ("http.request.method_original", original.filter(|original| *original != method)),
        ("url.path", Some(path)),
        ("url.query", query),
        ("user_agent.original", request.user_agent.as_deref()),
        ("shoal.route", request.route.as_deref()),
        ("shoal.upstream", request.upstream.as_deref()),
        ("shoal.request_id", request.request_id.as_deref()),
        ("shoal.cache_status", request.cache_status.as_deref()),
    ];
    attributes.extend(optional.into_iter().filter_map(|(key, value)| Some(text(key, value?))));
    attributes.extend(request.host.as_deref().into_iter().flat_map(server_attributes));
    let failed = request.status >= 500 || request.failure.is_some();
    attributes.extend(failed.then(|| error_type(request.failure, request.status)));
    SpanDocument {
        trace_id: format!("{:032x}", request.span.trace_id),
        span_id: format!("{:016x}", request.span.span_id),
        parent_span_id: request.span.parent_id.map(|id| format!("{id:016x}")),
        flags: request.span.flags,
        name: match &request.route {
            Some(route) => format!("{method} {route}"),
            None => method.to_owned(),
        },
        kind: SERVER,
        start_time_unix_nano: Nanos(began),
        end_time_unix_nano: Nanos(request.ended),
        attributes,
        // What the downstream did wrong is no error of the server's span.
        status: Status::of(request.status >= 500),
    }
}

fn try_span<'a>(
    request: &'a RequestSpan,
    began: SystemTime,
    place: usize,
    tried: &'a TrySpan,
) -> SpanDocument<'a> {
    let method = known_method(request);
    let mut attributes = vec![text("http.request.method", method)];
    attributes.extend(server_attributes(&tried.endpoint));
    attributes.extend(request.upstream.as_deref().map(|upstream| text("shoal.upstream", upstream)));
    if place > 0 {
        attributes.push(number("http.request.resend_count", place as u64));
    }
    let (failure, status) = match tried.outcome {
        Ok(status) => (None, status),
        Err(failure) => (Some(failure), 0),
    };
    if failure.is_none() {
        attributes.push(number("http.response.status_code", status.into()));
    }
    let failed = failure.is_some() || status >= 400;
    attributes.extend(failed.then(|| error_type(failure, status)));
    let start = began + tried.began;
    SpanDocument {
        trace_id: format!("{:032x}", request.span.trace_id),
        span_id: format!("{:016x}", tried.span_id),
        parent_span_id: Some(format!("{:016x}", request.span.span_id)),
        flags: request.span.flags,
        name: method.to_owned(),
        kind: CLIENT,
        start_time_unix_nano: Nanos(start),
        end_time_unix_nano: Nanos(start + tried.lasted),
        attributes,
        status: Status::of(failed),
    }
}

fn known_method(request: &RequestSpan) -> &str {
    let method = request.method.as_ref().map_or("_OTHER", axum::http::Method::as_str);
    if METHODS.contains(&method) { method } else { "_OTHER" }
}

/// `server.address` and, where it is written, `server.port` of an authority or endpoint.
fn server_attributes(authority: &str) -> impl Iterator<Item = Attribute<'_>> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()),
        _ => (authority, None),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    [Some(text("server.address", host)), port.map(|port: u16| number("server.port", port.into()))]
        .into_iter()
        .flatten()
}

/// A name of ours where we have one, else the status.
fn error_type<'a>(failure: Option<Failure>, status: u16) -> Attribute<'a> {
    match failure {
        Some(failure) => text("error.type", failure.reason()),
        None => text("error.type", status.to_string()),
    }
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Message<'a> {
    resource_spans: [ResourceSpans<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans<'a> {
    resource: Resource<'a>,
    scope_spans: [ScopeSpans<'a>; 1],
}

#[derive(Serialize)]
struct Resource<'a> {
    attributes: Vec<Attribute<'a>>,
}

#[derive(Serialize)]
struct ScopeSpans<'a> {
    scope: Scope,
    spans: Vec<SpanDocument<'a>>,
}

#[derive(Serialize)]
struct Scope {
    name: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SpanDocument<'a> {
    trace_id: String,
    span_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<String>,
    flags: u8,
    name: String,
    kind: u8,
    start_time_unix_nano: Nanos,
    end_time_unix_nano: Nanos,
    attributes: Vec<Attribute<'a>>,
    status: Status,
}

/// Empty = nothing is said.
#[derive(Serialize)]
struct Status {
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u8>,
}

impl Status {
    fn of(failed: bool) -> Self {
        Self { code: failed.then_some(STATUS_ERROR) }
    }
}

/// Nanoseconds since 1970, as text.
struct Nanos(SystemTime);

impl Serialize for Nanos {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&since_epoch(self.0).as_nanos())
    }
}

#[derive(Serialize)]
struct Attribute<'a> {
    key: &'static str,
    value: Value<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Value<'a> {
    StringValue(std::borrow::Cow<'a, str>),
    /// A 64-bit number is text in JSON.
    IntValue(String),
}

fn text<'a>(key: &'static str, value: impl Into<std::borrow::Cow<'a, str>>) -> Attribute<'a> {
    Attribute { key, value: Value::StringValue(value.into()) }
}

fn number<'a>(key: &'static str, value: u64) -> Attribute<'a> {
    Attribute { key, value: Value::IntValue(value.to_string()) }
}
