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

/// The elements of a list, the last one first. What is no text is an element that says nothing.
pub(super) fn from_the_right<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a str> + use<'a> {
    let lines = headers.get_all(name).iter().map(|value| value.to_str().unwrap_or_default());
    lines.rev().flat_map(|line| line.rsplit(outside_quotes(',')))
}

/// Finds `separator`, unless it stands in a quoted string.
fn outside_quotes(separator: char) -> impl FnMut(char) -> bool {
    let mut is_quoted = false;
    move |c| {
        is_quoted ^= c == '"';
        c == separator && !is_quoted
    }
}

/// The value of a parameter of an element (RFC 7239 §4), without quotes.
pub(super) fn parameter<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = element.split(outside_quotes(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim_matches('"'))
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
