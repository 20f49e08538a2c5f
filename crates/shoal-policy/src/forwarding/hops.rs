//! Fields that end at this hop (RFC 9110 §7.6.1).

use http::HeaderMap;
use http::header::{CONNECTION, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, UPGRADE};

use crate::gate::{Field, Present};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Takes off `Connection`, every field it names, and the fields that are hop-by-hop by definition. `Transfer-Encoding`
/// stays: it belongs to the framing, which the codec writes anew.
pub(super) fn strip(headers: &mut HeaderMap, present: Present, keep_trailers: bool) {
    if present.has(Field::Connection) {
        strip_named(headers);
    }
    if present.has(Field::Hop) {
        for name in [&KEEP_ALIVE, &PROXY_CONNECTION, &PROXY_AUTHENTICATE, &PROXY_AUTHORIZATION] {
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
}

fn strip_named(headers: &mut HeaderMap) {
    let is_common = |token: &str| {
        ["close", "keep-alive", "upgrade", "te"].iter().any(|common| common.eq_ignore_ascii_case(token))
    };
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty() && !is_common(token))
        .filter_map(|token| token.parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    headers.remove(CONNECTION);
}
