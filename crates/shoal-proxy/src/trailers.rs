//! Trailers on their way through, in either direction.

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

/// Fields that may never come as trailers: they would change what was routed, framed or trusted.
const NOT_TRAILERS: [&str; 8] = [
    "host",
    "content-length",
    "transfer-encoding",
    "authorization",
    "cookie",
    "set-cookie",
    "forwarded",
    "trailer",
];

/// Trailers pass only where the route says so, and never with fields that mean something before the body.
pub(crate) fn admit_trailers(frame: Frame<Bytes>, keep: bool) -> Option<Frame<Bytes>> {
    let mut trailers: HeaderMap = frame.into_trailers().ok().filter(|_| keep)?;
    for name in NOT_TRAILERS {
        trailers.remove(name);
    }
    Some(Frame::trailers(trailers))
}
