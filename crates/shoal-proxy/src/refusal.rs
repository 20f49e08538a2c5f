//! The one place where failures become responses.

use std::time::SystemTime;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use shoal_model::site::HeaderCase;
use shoal_policy::failure::{Failure, Side};
use shoal_policy::forwarding::OwnName;
use shoal_policy::gate::Rule;
use shoal_policy::grpc;
use shoal_policy::http1::write_fields;

use crate::body::Payload;

/// RFC 9209.
static PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// A small answer that says what went wrong, and by which request it can be found in the logs.
pub(crate) fn response(failure: Failure, request_id: &HeaderValue, own: &OwnName) -> Response<Payload> {
    let status = StatusCode::from_u16(failure.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let rule = match failure {
        Failure::BadRequest(rule) => rule,
        _ => "",
    };
    let text = format!(
        "{} {}: {}{}{rule}\nrequest id {}\n",
        status.as_str(),
        status.canonical_reason().unwrap_or_default(),
        failure.reason(),
        if rule.is_empty() { "" } else { ": " },
        request_id.to_str().unwrap_or_default(),
    );
    let mut response = Response::new(Payload::Text(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(error) = failure.proxy_error()
        && let Ok(member) = HeaderValue::try_from(format!("{}; error={error}", own.name()))
    {
        headers.insert(PROXY_STATUS.clone(), member);
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// The same as bytes of HTTP/1.1, for a downstream that no codec serves: `rule` was broken before there was a request. The
/// connection ends after it. Answers how many of the bytes are its body, too.
pub(crate) fn last_words(
    failure: Failure,
    rule: Option<Rule>,
    request_id: HeaderValue,
    own: &OwnName,
    case: HeaderCase,
) -> (Vec<u8>, usize) {
    let mut response = response(failure, &request_id, own);
    own.sign(response.headers_mut());
    own.set_request_id(response.headers_mut(), request_id);
    let mut text = match response.body() {
        Payload::Text(text) => text.to_vec(),
        Payload::Empty | Payload::Upstream(_) | Payload::Cache(_) => Vec::new(),
    };
    if let Some(advice) = rule.and_then(Rule::advice) {
        text.extend_from_slice(advice.as_bytes());
        text.push(b'\n');
    }
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
    if let Ok(now) = HeaderValue::try_from(httpdate::fmt_http_date(SystemTime::now())) {
        headers.insert(DATE, now);
    }
    let mut bytes = format!("HTTP/1.1 {}\r\n", response.status()).into_bytes();
    write_fields(&mut bytes, response.headers(), case.into());
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&text);
    (bytes, text.len())
}

/// The same for a gRPC call: a head that is trailers at once.
pub(crate) fn grpc_response(failure: Failure) -> Response<Payload> {
    let mut response = Response::new(Payload::Empty);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    grpc::write_status(headers, failure);
    response
}

/// After what the downstream did wrong nothing more is read from its connection. On HTTP/2 only the stream ends: the others
/// have nothing to do with it.
pub(crate) fn closes_connection(failure: Failure, is_h2: bool) -> bool {
    !is_h2
        && failure.side() == Side::Downstream
        && !matches!(failure, Failure::NotCached | Failure::UnknownProtocol)
}
