//! The opening handshake of WebSocket on HTTP/1.1 (RFC 6455 §4): a key, and the one right answer to it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue, UPGRADE};
use shoal_policy::failure::Failure;

pub(super) const KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
pub(super) const ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
/// RFC 6455 §1.3.
const WEBSOCKET_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A key for a handshake of ours: sixteen random bytes.
pub(super) fn new_key(entropy: [u64; 2]) -> HeaderValue {
    let bytes: Vec<u8> = entropy.iter().flat_map(|part| part.to_ne_bytes()).collect();
    field_of(&bytes)
}

/// The 101 must be meant for this request: the right protocol and, for WebSocket, the right answer to its key.
pub(super) fn check_switch(
    headers: &HeaderMap,
    protocol: &str,
    key: Option<&HeaderValue>,
) -> Result<(), Failure> {
    let agreed = headers.get(UPGRADE).map_or(&b""[..], HeaderValue::as_bytes);
    let is_accepted = key.is_none_or(|key| headers.get(ACCEPT) == Some(&accept_of(key)));
    if agreed.eq_ignore_ascii_case(protocol.as_bytes()) && is_accepted {
        Ok(())
    } else {
        Err(Failure::UpstreamProtocol)
    }
}

/// RFC 6455 §4.2.2. SHA-1 is what the protocol says; nothing is kept secret by it.
pub(super) fn accept_of(key: &HeaderValue) -> HeaderValue {
    let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY);
    digest.update(key.as_bytes());
    digest.update(WEBSOCKET_GUID);
    field_of(digest.finish().as_ref())
}

fn field_of(bytes: &[u8]) -> HeaderValue {
    HeaderValue::try_from(STANDARD.encode(bytes)).expect("base64 is a field value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_only_the_right_switch() {
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept_of(&key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "RFC 6455 §1.3");
        let check = |protocol: &'static str, accept: &'static str, good: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(UPGRADE, HeaderValue::from_static(protocol));
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            let checked = check_switch(&headers, "websocket", Some(&key));
            assert_eq!(checked.is_ok(), good, "{protocol} {accept}");
        };
        check("WebSocket", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", true);
        check("websocket", "s3pPLMBiTxaQ9kYGzzhZRbK+xOa=", false);
        check("websocket", "", false);
        check("h2c", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", false);
    }

    #[test]
    fn keys_are_sixteen_bytes() {
        let key = new_key([1, 2]);
        assert_eq!((key.len(), STANDARD.decode(key.as_bytes()).map(|bytes| bytes.len())), (24, Ok(16)));
        assert_ne!(key, new_key([2, 1]));
    }
}
