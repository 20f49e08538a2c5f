//! The field `Forwarded` (RFC 7239), and lists of addresses like it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue};

/// Bytes of an element beside the host: a guess that saves growing.
const ELEMENT_BYTES: usize = 80;

/// One hop (RFC 7239 §4).
#[derive(Clone, Copy, Debug)]
pub(super) struct Element<'a> {
    /// Who called.
    pub address: IpAddr,
    /// Which host was asked.
    pub host: Option<&'a HeaderValue>,
    /// By which scheme.
    pub scheme: Option<&'a str>,
}

impl Element<'_> {
    /// Appends it to `text`.
    pub fn write(&self, text: &mut Vec<u8>) {
        let mut add = |parts: &[&[u8]]| parts.iter().for_each(|part| text.extend_from_slice(part));
        let address = super::caller::text_of(self.address);
        match self.address {
            IpAddr::V4(_) => add(&[b"for=", address.as_bytes()]),
            IpAddr::V6(_) => add(&[b"for=\"[", address.as_bytes(), b"]\""]),
        }
        // An authority has nothing in it that would end a quoted string.
        if let Some(host) = self.host {
            let quote: &[u8] = if host.as_bytes().contains(&b':') { b"\"" } else { b"" };
            add(&[b";host=", quote, host.as_bytes(), quote]);
        }
        if let Some(scheme) = self.scheme {
            add(&[b";proto=", scheme.as_bytes()]);
        }
    }
}

/// The hops of `elements` as a field value.
pub(super) fn value_of(elements: &[Element<'_>]) -> HeaderValue {
    let mut text = Vec::with_capacity(elements.len() * ELEMENT_BYTES);
    for element in elements {
        if !text.is_empty() {
            text.extend_from_slice(b", ");
        }
        element.write(&mut text);
    }
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("for=unknown"))
}

/// The elements of a list, the last one first. One that is no text says nothing.
pub(super) fn from_the_right<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a str> + use<'a> {
    let lines = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    lines.rev().flat_map(elements_from_the_right).map(|element| str::from_utf8(element).unwrap_or_default())
}

/// The elements of one line, the last one first. Whoever wrote on the left of it can open a quoted string there, but none that
/// reaches to what was written behind.
fn elements_from_the_right(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let line = rest?;
        let mut is_quoted = false;
        let comma = (0..line.len()).rev().find(|&at| {
            is_quoted ^= line[at] == b'"' && !is_escaped(line, at);
            line[at] == b',' && !is_quoted
        });
        rest = comma.map(|comma| &line[..comma]);
        Some(comma.map_or(line, |comma| &line[comma + 1..]))
    })
}

/// What stands at `at` is the second half of a quoted pair (RFC 9110 §5.6.4).
fn is_escaped(line: &[u8], at: usize) -> bool {
    line[..at].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// Whoever reads from the left finds the same quoted strings: each that is opened is closed.
pub(super) fn is_balanced(line: &[u8]) -> bool {
    let quotes = (0..line.len()).filter(|&at| line[at] == b'"' && !is_escaped(line, at)).count();
    quotes % 2 == 0
}

/// The value of a parameter of an element (RFC 7239 §4), without quotes. What is escaped in it stays so: no address and no
/// scheme needs that.
pub(super) fn parameter<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    let (bytes, mut is_quoted, mut start) = (element.as_bytes(), false, 0);
    for at in 0..=bytes.len() {
        if at < bytes.len() {
            is_quoted ^= bytes[at] == b'"' && !is_escaped(bytes, at);
            if bytes[at] != b';' || is_quoted {
                continue;
            }
        }
        if let Some((key, value)) = element[start..at].trim().split_once('=')
            && key.eq_ignore_ascii_case(name)
        {
            return Some(value.trim_matches('"'));
        }
        start = at + 1;
    }
    None
}

/// The address of a node, with or without a port (RFC 7239 §6).
pub(super) fn node(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let address = text.parse::<IpAddr>().ok().or_else(with_port).or_else(bracketed)?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements() {
        let check = |address: &str, host: &'static str, expected: &str| {
            let host = HeaderValue::from_static(host);
            let address = address.parse().unwrap();
            let element = Element { address, host: Some(&host), scheme: Some("https") };
            assert_eq!(value_of(&[element]), expected);
            let both = value_of(&[element, Element { address, host: None, scheme: None }]);
            assert_eq!(both.to_str().unwrap().strip_prefix(expected).unwrap().get(..6), Some(", for="));
        };
        check("1.2.3.4", "a.example", "for=1.2.3.4;host=a.example;proto=https");
        check("2001:db8::1", "a:81", "for=\"[2001:db8::1]\";host=\"a:81\";proto=https");
    }
}
