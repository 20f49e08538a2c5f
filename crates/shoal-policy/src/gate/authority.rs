//! The authority of a request: host and port, strict.

use std::borrow::Cow;

use http::HeaderValue;

/// Longest host name, bytes (RFC 1035 §2.3.4).
const MAX_HOST_BYTES: usize = 255;

/// `text` in lower case, without the scheme's default port and without the dot at the end of an absolute name: what is
/// routed, cached and forwarded. `None` = it is no `host` or `host:port`. User info, spaces, empty hosts, empty labels,
/// escapes and bad ports are refused.
pub fn canonical_authority(text: &[u8], https: bool) -> Option<Cow<'_, [u8]>> {
    let (host, port) = split(text)?;
    let is_default = port == Some(if https { b"443" } else { b"80" });
    let port = port.filter(|_| !is_default);
    if port.is_some_and(|port| !is_port(port)) {
        return None;
    }
    let relative = host.strip_suffix(b".").unwrap_or(host);
    let is_name = host.first() != Some(&b'[');
    if is_name && relative.split(|b| *b == b'.').any(<[u8]>::is_empty) {
        return None;
    }
    let kept = match port {
        None => relative,
        Some(_) if relative.len() == host.len() => text,
        Some(port) => return Some(Cow::Owned([relative, b":", port].concat().to_ascii_lowercase())),
    };
    if kept.iter().any(u8::is_ascii_uppercase) {
        return Some(Cow::Owned(kept.to_ascii_lowercase()));
    }
    Some(Cow::Borrowed(kept))
}

/// A number from 1 to 65535, written in the one way that a number should be.
fn is_port(port: &[u8]) -> bool {
    let number = std::str::from_utf8(port).ok().and_then(|port| port.parse::<u16>().ok());
    port.first().is_some_and(|first| (b'1'..=b'9').contains(first)) && number.is_some()
}

/// Host and port. The host is a name, an IPv4 address, or an IPv6 address in brackets.
fn split(text: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let host_len = if text.first() == Some(&b'[') {
        let end = text.iter().position(|b| *b == b']')?;
        let address = std::str::from_utf8(&text[1..end]).ok()?;
        address.parse::<std::net::Ipv6Addr>().ok()?;
        end + 1
    } else {
        let end = text.iter().position(|b| *b == b':').unwrap_or(text.len());
        let fits = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        if end == 0 || end > MAX_HOST_BYTES || !text[..end].iter().all(fits) {
            return None;
        }
        end
    };
    let (host, rest) = text.split_at(host_len);
    match rest {
        [] => Some((host, None)),
        [b':', port @ ..] => Some((host, Some(port))),
        _ => None,
    }
}

/// The host of a canonical authority, without the port.
pub fn host_of(authority: &HeaderValue) -> &str {
    let text = authority.to_str().unwrap_or_default();
    match text.rfind(':') {
        Some(colon) if !text.ends_with(']') => &text[..colon],
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities() {
        let check = |text: &str, https: bool, expected: Option<&str>| {
            let seen = canonical_authority(text.as_bytes(), https);
            assert_eq!(seen.as_deref(), expected.map(str::as_bytes), "{text:?}");
        };
        check("shop.example.com", false, Some("shop.example.com"));
        check("Shop.Example.com:80", false, Some("shop.example.com"));
        check("shop:80", true, Some("shop:80"));
        check("a.org.", false, Some("a.org"));
        check("A.org.:80", false, Some("a.org"));
        check("A.org.:8080", false, Some("a.org:8080"));
        check("a.org.:443", true, Some("a.org"));
        check("shop:443", true, Some("shop"));
        check("[2001:DB8::1]:8443", true, Some("[2001:db8::1]:8443"));
        for bad in [
            "",
            ":80",
            "a:",
            "a:0",
            "a:65536",
            "a:+80",
            "a:8 0",
            "a@b",
            "a b",
            "a/b",
            "a,b",
            "[::1",
            "[x]",
            "[::1]x",
            "ä",
            "a%41",
            ".",
            "..",
            "a..",
            "a..org",
            ".a.org",
            "a.org..:80",
            "a:080",
            "a:+80",
        ] {
            check(bad, false, None);
        }
        check(&"a".repeat(256), false, None);
    }

    #[test]
    fn hosts() {
        let check = |text: &'static str, expected: &str| {
            assert_eq!(host_of(&HeaderValue::from_static(text)), expected);
        };
        check("a.example", "a.example");
        check("a.example:81", "a.example");
        check("[::1]", "[::1]");
        check("[::1]:81", "[::1]");
    }
}
