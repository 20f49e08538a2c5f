//! Whether a connection goes on after a message (RFC 9112 §9.3).

use http::header::CONNECTION;
use http::{HeaderMap, Version};

/// Whether the sender of a message with these fields keeps the connection open.
pub fn persists(version: Version, headers: &HeaderMap) -> bool {
    let (mut closes, mut keeps) = (false, version == Version::HTTP_11);
    for value in headers.get_all(CONNECTION) {
        for token in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            closes |= token.eq_ignore_ascii_case(b"close");
            keeps |= token.eq_ignore_ascii_case(b"keep-alive");
        }
    }
    keeps && !closes
}
