//! Spans of sampled requests: noted while a request is served, handed over when it ends, sent by somebody else.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, Method, Version};
use shoal_model::view::CollectorView;
use shoal_policy::failure::Failure;
use shoal_policy::forwarding::Span;

/// Tries that one request has spans of at most.
const MAX_TRIES: usize = 16;

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
    /// None yet, of a request that began at `started`.
    pub(crate) fn new(span: Span, started: Instant) -> Self {
        Self { span, started, under_way: None, ended: Vec::new() }
    }

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
    pub(crate) fn finish(mut self, endpoint: Option<&str>) -> Vec<TrySpan> {
        self.end(endpoint, Err(Failure::DownstreamReset));
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_are_noted_and_bounded() {
        let span = Span { trace_id: 1, span_id: 2, parent_id: None, flags: 1 };
        let mut tries = Tries::new(span, Instant::now());
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
