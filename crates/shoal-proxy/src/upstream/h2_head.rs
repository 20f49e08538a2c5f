//! The head of a request in the form of HTTP/2, and back: another try may go over HTTP/1.1.

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, Parts, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Request, Uri, Version};
use http_body::Body;
use hyper::ext::Protocol;

use crate::body::RequestBody;

/// RFC 9113 §8.3.1: `Host` becomes `:authority`; the body is framed by the codec.
pub(super) fn to_h2(request: &mut Request<RequestBody>, secure: bool) {
    let authority = request.headers().get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    request.headers_mut().remove(TRANSFER_ENCODING);
    // Without an authority the codec sends `http` and leaves `Host` as it is.
    let Some(authority) = authority else { return };
    let mut parts = Parts::default();
    parts.scheme = Some(if secure { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(authority);
    parts.path_and_query = Some(path_of(request.uri()));
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_2;
        request.headers_mut().remove(HOST);
    }
}

/// The opening handshake of WebSocket becomes an extended CONNECT (RFC 8441 §5), which has no key.
pub(super) fn to_extended_connect(request: &mut Request<RequestBody>) {
    *request.method_mut() = Method::CONNECT;
    let headers = request.headers_mut();
    headers.remove(CONNECTION);
    headers.remove(UPGRADE);
    headers.remove("sec-websocket-key");
    request.extensions_mut().insert(Protocol::from_static("websocket"));
}

/// What [`to_h2`] did, undone.
pub(super) fn to_http1(request: &mut Request<RequestBody>) {
    let host = request.uri().authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
    if let Some(host) = host {
        request.headers_mut().insert(HOST, host);
    }
    *request.uri_mut() = Uri::from(path_of(request.uri()));
    *request.version_mut() = Version::HTTP_11;
    let is_chunked = request.body().has_bytes()
        && request.body().size_hint().exact().is_none()
        && !request.headers().contains_key(CONTENT_LENGTH);
    if is_chunked {
        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

fn path_of(uri: &Uri) -> PathAndQuery {
    uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let check = |target: &str, host: &str, secure, expected: &str| {
            let request = Request::builder().uri(target).header("host", host).header("x", "1");
            let mut request = request.body(RequestBody::Empty).unwrap();
            to_h2(&mut request, secure);
            assert_eq!(request.uri().to_string(), expected);
            assert_eq!(request.version(), Version::HTTP_2);
            assert!(!request.headers().contains_key("host"));
            to_http1(&mut request);
            assert_eq!(request.uri().to_string(), target);
            assert_eq!(request.headers()["host"], host);
            assert_eq!(request.headers()["x"], "1");
            assert_eq!(request.version(), Version::HTTP_11);
        };
        check("/a/b?c=d", "shop.example", false, "http://shop.example/a/b?c=d");
        check("/", "shop.example:8443", true, "https://shop.example:8443/");
    }
}
