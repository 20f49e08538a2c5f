//! Spans of sampled requests: noted while a request is served, handed over when it ends, sent by somebody else.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, HeaderValue, Method, Version};
use shoal_model::view::CollectorView;
use shoal_policy::failure::Failure;
use shoal_policy::forwarding::Span;

use crate::exchange::{Exchange, Record};
use crate::listener::Connection;

/// Tries that one request has spans of at most.
const MAX_TRIES: usize = 16;
/// Bytes of a text from the network that are kept.
const MAX_TEXT: usize = 1 << 10;

/// A request that has ended, as its span says.
#[derive(Clone, Debug)]
pub struct RequestSpan {
    /// Who is to be sent it.
    pub collector: Arc<CollectorView>,
    /// Its place in the trace.
    pub span: Span,
    /// When it was over.
    pub ended: SystemTime,
    /// How long it took.
    pub duration: Duration,
    /// The node that served it.
    pub node: Arc<str>,
    /// The listener it came to.
    pub listener: Arc<str>,
    /// The route that matched.
    pub route: Option<Arc<str>>,
    /// Where the route leads.
    pub upstream: Option<Arc<str>>,
    /// `None` = it could not be read.
    pub method: Option<Method>,
    /// It came over TLS.
    pub https: bool,
    /// Version it was asked in.
    pub version: Version,
    /// Path, and query behind a `?`.
    pub target: Box<str>,
    /// The authority that was asked for.
    pub host: Option<Box<str>>,
    /// Who asked.
    pub client_addr: IpAddr,
    /// As the downstream says.
    pub user_agent: Option<Box<str>>,
    /// `x-request-id`.
    pub request_id: Option<Box<str>>,
    /// `Cache-Status` of the response.
    pub cache_status: Option<Box<str>>,
    /// Status of the response.
    pub status: u16,
    /// What went wrong.
    pub failure: Option<Failure>,
    /// Bytes of the request body.
    pub request_bytes: u64,
    /// Bytes of the response body.
    pub response_bytes: u64,
    /// What was tried at endpoints, in turn.
    pub tries: Vec<TrySpan>,
}

/// One try at an endpoint: to the response head, or to what came instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrySpan {
    /// What the endpoint was told as its parent.
    pub span_id: u64,
    /// Where it went.
    pub endpoint: Box<str>,
    /// After the request began.
    pub began: Duration,
    /// How long it took.
    pub lasted: Duration,
    /// Status of the answer, or why there is none.
    pub outcome: Result<u16, Failure>,
}

/// The tries of a request that is sampled, so far.
#[derive(Debug)]
pub(crate) struct Tries {
    span: Span,
    started: Instant,
    under_way: Option<(u64, Instant)>,
    ended: Vec<TrySpan>,
}

impl Tries {
    /// A try begins: the endpoint is told its span as the parent of its own.
    pub(crate) fn begin(&mut self, span_id: u64, fields: &mut HeaderMap) {
        let span_id = span_id.max(1);
        self.under_way = Some((span_id, Instant::now()));
        self.span.enter_child(span_id, fields);
    }

    /// The try is over.
    pub(crate) fn end(&mut self, endpoint: Option<&str>, outcome: Result<u16, Failure>) {
        if let Some((span_id, began)) = self.under_way.take()
            && self.ended.len() < MAX_TRIES
        {
            self.ended.push(TrySpan {
                span_id,
                endpoint: endpoint.unwrap_or_default().into(),
                began: began.saturating_duration_since(self.started),
                lasted: began.elapsed(),
                outcome,
            });
        }
    }

    /// All of them. One that is under way ends with the request: nobody waits for it any more.
    fn finish(mut self, endpoint: Option<&str>) -> Vec<TrySpan> {
        self.end(endpoint, Err(Failure::DownstreamReset));
        self.ended
    }
}

/// Whether `span` is to be sent to somebody, and to whom. From here on the tries of `exchange` are noted then.
pub(crate) fn follow(
    exchange: &mut Exchange,
    connection: &Connection,
    span: Option<Span>,
) -> Option<Arc<CollectorView>> {
    let tracing = connection.settings.view.tracing.as_ref()?;
    let span = span.filter(Span::is_sampled)?;
    let collector = tracing.collector.clone()?;
    let (under_way, ended) = (None, Vec::new());
    exchange.trace.spans = Some(Box::new(Tries { span, started: exchange.started, under_way, ended }));
    Some(collector)
}

/// What is sent of an exchange that has ended.
pub(crate) fn finish(
    connection: &Connection,
    exchange: &mut Exchange,
    record: &Record,
    duration: Duration,
) -> Option<Box<RequestSpan>> {
    let (collector, span) = (record.collector.clone()?, record.span?);
    let tries = exchange.trace.spans.take();
    let text = |value: &HeaderValue| cut(&String::from_utf8_lossy(value.as_bytes()));
    Some(Box::new(RequestSpan {
        collector,
        span,
        ended: SystemTime::now(),
        duration,
        node: connection.worker.node_name.clone(),
        listener: connection.settings.view.name.clone(),
        route: exchange.route.as_ref().map(|route| route.name.clone()),
        upstream: exchange.route.as_ref().map(|route| route.upstream.name.clone()),
        method: record.method.clone(),
        https: connection.settings.gate.https,
        version: record.version,
        target: cut(&record.target),
        host: record.host.as_ref().map(text),
        client_addr: record.client_addr.unwrap_or(connection.caller.address),
        user_agent: record.user_agent.as_ref().map(text),
        request_id: record.request_id.as_ref().map(text),
        cache_status: record.cache_status.as_ref().map(text),
        status: exchange.status,
        failure: exchange.failure,
        request_bytes: exchange.request_bytes(),
        response_bytes: exchange.response_bytes,
        tries: tries.map_or_else(Vec::new, |tries| tries.finish(exchange.trace.endpoint.as_deref())),
    }))
}

/// A copy: what came from the network is part of larger buffers.
fn cut(text: &str) -> Box<str> {
    text[..text.floor_char_boundary(MAX_TEXT)].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        let check = |text: &str, length| assert_eq!(cut(text).len(), length, "{}", text.len());
        check("", 0);
        check("abc", 3);
        check(&"a".repeat(2000), MAX_TEXT);
        check(&format!("{}é", "a".repeat(MAX_TEXT - 1)), MAX_TEXT - 1);
    }

    #[test]
    fn tries_are_noted_and_bounded() {
        let span = Span { trace_id: 1, span_id: 2, parent_id: None, flags: 1 };
        let mut tries = Tries { span, started: Instant::now(), under_way: None, ended: Vec::new() };
        let mut fields = HeaderMap::new();
        tries.begin(0x77, &mut fields);
        let expected = "00-00000000000000000000000000000001-0000000000000077-01";
        assert_eq!(fields["traceparent"], expected);
        tries.end(Some("a:1"), Err(Failure::UpstreamReset));
        tries.end(Some("a:1"), Ok(200));
        for n in 0..40 {
            tries.begin(n, &mut fields);
            tries.end(Some("b:1"), Ok(200));
        }
        tries.begin(9, &mut fields);
        let ended = tries.finish(Some("b:1"));
        assert_eq!(ended.len(), MAX_TRIES);
        assert_eq!((&*ended[0].endpoint, &ended[0].outcome), ("a:1", &Err(Failure::UpstreamReset)));
    }
}
