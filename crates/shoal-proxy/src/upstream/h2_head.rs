//! The head of a request in the form of HTTP/2.

use http::header::{CONNECTION, HOST, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts as RequestHead;
use http::uri::{Authority, Parts, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Uri, Version};
use hyper::ext::Protocol;
use shoal_policy::forwarding::OwnFields;

use crate::request_body::RequestBody;

/// RFC 9113 §8.3.1: `Host` becomes `:authority`; the body is framed by the codec.
pub(super) fn to_h2(
    head: &RequestHead,
    own: Option<&OwnFields>,
    body: RequestBody,
    secure: bool,
) -> Request<RequestBody> {
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    let authority = head.headers.get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let target = authority.and_then(|authority| {
        let mut parts = Parts::default();
        parts.scheme = Some(if secure { Scheme::HTTPS } else { Scheme::HTTP });
        parts.authority = Some(authority);
        parts.path_and_query = Some(path_of(&head.uri));
        Uri::from_parts(parts).ok()
    });
    // Without an authority the codec sends `http`, and `Host` stays as it is.
    let keeps_host = target.is_none();
    *request.version_mut() = if keeps_host { Version::HTTP_11 } else { Version::HTTP_2 };
    *request.uri_mut() = target.unwrap_or_else(|| head.uri.clone());
    let headers = request.headers_mut();
    *headers = HeaderMap::with_capacity(head.headers.len());
    for (name, value) in &head.headers {
        if *name != TRANSFER_ENCODING && (keeps_host || *name != HOST) {
            headers.append(name.clone(), value.clone());
        }
    }
    if let Some(own) = own {
        own.add_to(headers);
    }
    request
}

/// The opening handshake of WebSocket becomes an extended CONNECT (RFC 8441 §5), which has no key.
pub(super) fn extended_connect(head: &RequestHead, secure: bool) -> Request<RequestBody> {
    let mut request = to_h2(head, None, RequestBody::Empty, secure);
    *request.method_mut() = Method::CONNECT;
    let headers = request.headers_mut();
    headers.remove(CONNECTION);
    headers.remove(UPGRADE);
    headers.remove("sec-websocket-key");
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    request
}

fn path_of(uri: &Uri) -> PathAndQuery {
    uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_is_part_of_the_target() {
        let check = |target: &str, host: &str, secure, expected: &str| {
            let request = Request::builder().uri(target).header("host", host).header("x", "1");
            let request = request.header("transfer-encoding", "chunked");
            let (head, ()) = request.body(()).unwrap().into_parts();
            let sent = to_h2(&head, None, RequestBody::Empty, secure);
            assert_eq!(sent.uri().to_string(), expected);
            assert_eq!(sent.version(), Version::HTTP_2);
            assert_eq!(sent.headers().keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["x"]);
        };
        check("/a/b?c=d", "shop.example", false, "http://shop.example/a/b?c=d");
        check("/", "shop.example:8443", true, "https://shop.example:8443/");
    }
}
