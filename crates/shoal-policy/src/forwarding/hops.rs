//! Fields that end at this hop (RFC 9110 §7.6.1).

use http::HeaderMap;
use http::header::{
    CONNECTION, Entry, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, UPGRADE,
};

use crate::gate::{Field, Present};
use crate::http1::Persistence;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
/// It belongs to an upgrade to `h2c`, which is never granted (RFC 7540 §3.2.1).
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Fields that are meant for everybody behind this hop, and so never for it alone: `Connection` may not name them (RFC 9110
/// §7.6.1). Without them a message would be framed, routed, authorized, cached or read otherwise than it was meant.
const END_TO_END: [&str; 52] = [
    "accept",
    "age",
    "allow",
    "alt-svc",
    "authentication-info",
    "authorization",
    "cache-control",
    "cache-status",
    "cache-tag",
    "cdn-cache-control",
    "cdn-loop",
    "clear-site-data",
    "client-cert",
    "client-cert-chain",
    "cookie",
    "cross-origin-embedder-policy",
    "cross-origin-opener-policy",
    "cross-origin-resource-policy",
    "date",
    "etag",
    "expect",
    "expires",
    "forwarded",
    "grpc-encoding",
    "grpc-message",
    "grpc-status",
    "grpc-timeout",
    "host",
    "last-modified",
    "location",
    "max-forwards",
    "origin",
    "permissions-policy",
    "pragma",
    "range",
    "referrer-policy",
    "refresh",
    "retry-after",
    "server",
    "set-cookie",
    "strict-transport-security",
    "surrogate-control",
    "surrogate-key",
    "traceparent",
    "tracestate",
    "transfer-encoding",
    "user-agent",
    "vary",
    "via",
    "www-authenticate",
    "x-real-ip",
    "x-request-id",
];
/// Families of such fields.
const END_TO_END_PREFIXES: [&str; 7] =
    ["accept-", "access-control-", "content-", "if-", "sec-", "x-content-", "x-forwarded-"];

/// Takes off `Connection`, every field it may name and does name, and the fields that are hop-by-hop by definition.
/// `Transfer-Encoding` stays: it belongs to the framing, which the codec writes anew.
pub(super) fn strip(headers: &mut HeaderMap, present: Present, keep_trailers: bool) -> Persistence {
    let said = if present.has(Field::Connection) { strip_named(headers) } else { Persistence::default() };
    if present.has(Field::Hop) {
        for name in
            [&KEEP_ALIVE, &PROXY_CONNECTION, &PROXY_AUTHENTICATE, &PROXY_AUTHORIZATION, &HTTP2_SETTINGS]
        {
            headers.remove(name);
        }
    }
    if present.has(Field::Te) {
        let trailers = keep_trailers
            && headers.get(TE).is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
        if !trailers {
            headers.remove(TE);
        }
    }
    if present.has(Field::Trailer) && !keep_trailers {
        headers.remove(TRAILER);
    }
    if present.has(Field::Upgrade) {
        headers.remove(UPGRADE);
    }
    said
}

/// `name` is in lower case, as every parsed name is.
fn is_end_to_end(name: &HeaderName) -> bool {
    let name = name.as_str();
    END_TO_END.contains(&name) || END_TO_END_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn strip_named(headers: &mut HeaderMap) -> Persistence {
    let mut said = Persistence::default();
    let mut named: Vec<HeaderName> = Vec::new();
    let Entry::Occupied(connection) = headers.entry(CONNECTION) else { return said };
    let tokens = connection.iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    for token in tokens.map(<[u8]>::trim_ascii) {
        let is = |common: &[u8]| common.eq_ignore_ascii_case(token);
        if !said.add(token) && !is(b"upgrade") && !is(b"te") {
            named.extend(HeaderName::from_bytes(token).ok().filter(|name| !is_end_to_end(name)));
        }
    }
    connection.remove();
    for name in named {
        headers.remove(name);
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::survey;

    #[test]
    fn connection_takes_off_what_it_names_and_may_name() {
        let check = |named: &str, stays: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(CONNECTION, format!("close, {named}").parse().unwrap());
            let name: HeaderName = named.parse().unwrap();
            headers.insert(name.clone(), "1".parse().unwrap());
            let present = survey(&headers);
            strip(&mut headers, present, false);
            assert_eq!(headers.contains_key(&name), stays, "{named}");
            assert!(!headers.contains_key(CONNECTION));
        };
        for named in [
            "x-mine",
            "X-Hop",
            "keep-alive",
            "te",
            "trailer",
            "upgrade",
            "proxy-authenticate",
            "http2-settings",
        ] {
            check(named, false);
        }
        for named in
            ["Cache-Control", "set-cookie", "Vary", "expires", "AGE", "date", "etag", "cdn-cache-control"]
        {
            check(named, true);
        }
        for named in
            ["host", "authorization", "Content-Length", "content-encoding", "x-forwarded-for", "range"]
        {
            check(named, true);
        }
        for named in
            ["if-none-match", "sec-websocket-accept", "accept-encoding", "location", "www-authenticate"]
        {
            check(named, true);
        }
    }
}
