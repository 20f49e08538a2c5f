//! Extended CONNECT (RFC 8441): how a stream of HTTP/2 asks to become a WebSocket.

use http::Method;
use http::header::CONTENT_LENGTH;
use http::request::Parts;

use super::{Rule, Upgrade, WEBSOCKET_KEY, is_websocket_13};

/// Turns `head`, which asks for `protocol`, into the GET that means the same on HTTP/1.1.
pub(super) fn read(head: &mut Parts, protocol: &str) -> Result<Upgrade, Rule> {
    if !protocol.eq_ignore_ascii_case("websocket") {
        return Err(Rule::Protocol);
    }
    if head.method != Method::CONNECT || !is_websocket_13(&head.headers) {
        return Err(Rule::Upgrade);
    }
    head.method = Method::GET;
    // RFC 8441 §5: nothing is agreed on by a key here, and bytes that follow are no body.
    head.headers.remove(WEBSOCKET_KEY);
    head.headers.remove(CONTENT_LENGTH);
    Ok(Upgrade { protocol: "websocket".into(), key: None, extended: true })
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Version};

    use super::super::Gate;
    use super::*;
    use crate::http1::Wire;

    #[test]
    fn only_websockets_pass() {
        let gate = Gate {
            https: true,
            max_uri_bytes: 64,
            max_field_count: 8,
            default_authority: HeaderValue::from_static("10.0.0.1:443"),
        };
        let check = |target: &str, fields: &[(&str, &str)], protocol: &str, expected: Result<&str, Rule>| {
            let mut request = http::Request::builder().method("CONNECT").uri(target).version(Version::HTTP_2);
            for (name, value) in fields {
                request = request.header(*name, *value);
            }
            let (mut head, ()) = request.body(()).unwrap().into_parts();
            let admitted = gate.admit_extended(&mut head, Wire::default(), protocol);
            let seen = admitted.map(|admitted| {
                let upgrade = admitted.upgrade.unwrap();
                assert_eq!(upgrade, Upgrade { protocol: "websocket".into(), key: None, extended: true });
                assert_eq!((admitted.authority.as_bytes(), &head.method), (&b"a.example"[..], &Method::GET));
                assert!(!head.headers.contains_key(WEBSOCKET_KEY), "{fields:?}");
                head.uri.to_string()
            });
            assert_eq!(seen.as_deref(), expected.as_deref(), "{protocol} {target} {fields:?}");
        };
        let version = ("sec-websocket-version", "13");
        let key = (WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==");
        check("https://a.example/chat?x", &[version], "websocket", Ok("/chat?x"));
        check("https://A.example:443/a/../chat", &[version, key], "WebSocket", Ok("/chat"));
        check("https://a.example/", &[], "websocket", Err(Rule::Upgrade));
        check("https://a.example/", &[("sec-websocket-version", "8")], "websocket", Err(Rule::Upgrade));
        check("https://a.example/", &[version], "connect-udp", Err(Rule::Protocol));
        check("https://a.example/", &[version], "", Err(Rule::Protocol));
        check("http://a.example/", &[version], "websocket", Err(Rule::SchemeMismatch));
        check("https://a.example/%zz", &[version], "websocket", Err(Rule::Path));
    }
}
