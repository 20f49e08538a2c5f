//! The authority of a request: host and port, strict.

use std::borrow::Cow;

/// Longest host name, bytes (RFC 1035 §2.3.4).
const MAX_HOST_BYTES: usize = 255;

/// `text` in lower case, without the scheme's default port and without the dot at the end of an absolute name: what is
/// routed, cached and forwarded. `None` = it is no `host` or `host:port`. User info, spaces, empty hosts, empty labels,
/// escapes and bad ports are refused.
pub fn canonical_authority(text: &[u8], https: bool) -> Option<Cow<'_, [u8]>> {
    if is_canonical(text, https) {
        return Some(Cow::Borrowed(text));
    }
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

/// Whether it is a name or an IPv4 address as it should be, as nearly always. `false` says nothing.
fn is_canonical(text: &[u8], https: bool) -> bool {
    let default: &[u8] = if https { b"443" } else { b"80" };
    let (mut end, mut before) = (0, b'.');
    for &byte in text {
        if !IS_PLAIN[usize::from(byte)] || (byte == b'.' && before == b'.') {
            break;
        }
        (end, before) = (end + 1, byte);
    }
    let is_port = match &text[end..] {
        [] => true,
        [b':', port @ ..] => port != default && is_port(port),
        _ => false,
    };
    before != b'.' && end <= MAX_HOST_BYTES && is_port
}

/// What a host is written with that is no address in brackets, in lower case.
const IS_PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0;
    while byte < plain.len() {
        plain[byte] = matches!(byte as u8, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_');
        byte += 1;
    }
    plain
};

/// A number from 1 to 65535, written in the one way that a number should be.
fn is_port(port: &[u8]) -> bool {
    let mut number = 0;
    for digit in port {
        if !digit.is_ascii_digit() || port.len() > 5 {
            return false;
        }
        number = 10 * number + u32::from(digit - b'0');
    }
    number <= u16::MAX.into() && matches!(port, [b'1'..=b'9', ..])
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

/// Bytes of a canonical authority before the port.
pub(super) fn host_len(authority: &[u8]) -> usize {
    match authority.iter().rposition(|byte| *byte == b':') {
        Some(colon) if !authority.ends_with(b"]") => colon,
        _ => authority.len(),
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
        check("10.0.0.1:8080", false, Some("10.0.0.1:8080"));
        check("a_b-c.org:65535", false, Some("a_b-c.org:65535"));
        check(&"a".repeat(255), false, Some(&"a".repeat(255)));
        check(&format!("{}:81", "a".repeat(255)), false, Some(&format!("{}:81", "a".repeat(255))));
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
            "a:100000",
            "a:4294967297",
            "a.:x",
        ] {
            check(bad, false, None);
        }
        check(&"a".repeat(256), false, None);
        check(&format!("{}:81", "a".repeat(256)), false, None);
    }

    #[test]
    fn hosts() {
        let check = |text: &str, expected: &str| {
            assert_eq!(&text[..host_len(text.as_bytes())], expected);
        };
        check("a.example", "a.example");
        check("a.example:81", "a.example");
        check("[::1]", "[::1]");
        check("[::1]:81", "[::1]");
    }
}
