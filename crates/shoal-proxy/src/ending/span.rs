//! The span of a request that has ended.

use std::time::{Duration, SystemTime};

use http::HeaderValue;

use crate::exchange::{Exchange, Record};
use crate::listener::Connection;
use crate::spans::RequestSpan;

/// Bytes of a text from the network that are kept.
const MAX_TEXT: usize = 1 << 10;

/// What is sent of an exchange that has ended.
pub(super) fn finish(
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
}
