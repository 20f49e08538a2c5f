//! The one place where failures become responses.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use shoal_policy::failure::{Failure, Side};
use shoal_policy::grpc;

use crate::body::Payload;

/// A small answer that says what went wrong, and by which request it can be found in the logs.
pub(crate) fn response(failure: Failure, request_id: &HeaderValue) -> Response<Payload> {
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
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
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
