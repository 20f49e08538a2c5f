//! Trailers on their way through, in either direction.

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use http_body::Frame;

/// Fields that may never come as trailers: they would change what was routed, framed, trusted or understood already, for
/// those who make one list of both (RFC 9110 §6.5.1).
const NOT_TRAILERS: [&str; 28] = [
    "age",
    "authorization",
    "cache-control",
    "cdn-loop",
    "client-cert",
    "client-cert-chain",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "max-forwards",
    "proxy",
    "proxy-authorization",
    "proxy-connection",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "vary",
];
/// Families of such fields.
const NOT_TRAILER_PREFIXES: [&str; 5] =
    ["shoal-", "x-forwarded", "x-http-method", "x-original-", "x-rewrite-"];
/// What some endpoints believe as they believe the others.
const NOT_TRAILERS_EITHER: [&str; 4] = ["x-host", "x-method-override", "x-real-ip", "x-request-id"];

/// Trailers pass only where the route says so, and never with fields that mean something before the body: `reserved` is
/// another one of those.
pub(crate) fn admit_trailers(
    frame: Frame<Bytes>,
    keep: bool,
    reserved: Option<&HeaderName>,
) -> Option<Frame<Bytes>> {
    let mut trailers: HeaderMap = frame.into_trailers().ok().filter(|_| keep)?;
    let refused: Vec<HeaderName> =
        trailers.keys().filter(|name| !is_trailer(name) || Some(*name) == reserved).cloned().collect();
    for name in refused {
        trailers.remove(name);
    }
    Some(Frame::trailers(trailers))
}

/// A name with an underscore is one with a hyphen to some.
fn is_trailer(name: &HeaderName) -> bool {
    let name = name.as_str();
    !NOT_TRAILERS.contains(&name)
        && !NOT_TRAILERS_EITHER.contains(&name)
        && !NOT_TRAILER_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        && !name.contains('_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_before_the_body_is_no_trailer() {
        let reserved = HeaderName::from_static("true-client-ip");
        let check = |name: &str, expected: bool| {
            let fields = [(name.parse().unwrap(), "1".parse().unwrap())];
            let admitted =
                admit_trailers(Frame::trailers(fields.into_iter().collect()), true, Some(&reserved)).unwrap();
            assert_eq!(admitted.trailers_ref().unwrap().contains_key(name), expected, "{name}");
        };
        for name in ["grpc-status", "grpc-message", "x-checksum", "digest", "server-timing", "etag"] {
            check(name, true);
        }
        for name in [
            "true-client-ip",
            "host",
            "X-Real-IP",
            "x-forwarded-for",
            "x-forwarded",
            "shoal-peer",
            "content_length",
        ] {
            check(name, false);
        }
        for name in ["client-cert", "x-http-method-override", "connection", "content-type", "set-cookie"] {
            check(name, false);
        }
    }
}
