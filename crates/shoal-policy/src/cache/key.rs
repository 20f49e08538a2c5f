//! What names an object, and what names the scopes that purges speak of.
//!
//! The text of a key is a URL, and behind it the name of the route that the request took: two routes may lead the same URL
//! to different places. Only the URL is hashed, so whatever speaks of a URL (placement, purges, invalidations) means the
//! objects of all its routes; the whole text is compared, so no route ever answers for another.

use std::fmt;

use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_seed};

use crate::gate::{canonical_authority, canonical_path};

/// Ends the URL in the text of a key: no URL of a request has one inside.
const URL_END: char = ' ';

/// An object's key: a keyed hash of its URL. The text is compared on every hit, so a collision is a miss.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey(pub u128);

impl ObjectKey {
    /// Hashes a URL as [`write_key`] writes it.
    pub fn of(seed: u64, url: &[u8]) -> Self {
        Self(xxh3_128_with_seed(url, seed))
    }

    /// Hashes the URL in the text of a key.
    pub fn of_text(seed: u64, text: &str) -> Self {
        Self::of(seed, url_of(text).as_bytes())
    }

    /// As it travels: big endian.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// Reads what [`Self::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(u128::from_be_bytes(bytes.try_into().ok()?)))
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectKey({self})")
    }
}

/// Writes the URL of a key: scheme, host, path and query as they are, nothing decoded and nothing normalised.
/// `host` is in lower case, without the scheme's default port.
pub fn write_key(text: &mut Vec<u8>, https: bool, host: &str, path_and_query: &str) {
    text.extend_from_slice(if https { b"https://" } else { b"http://" });
    text.extend_from_slice(host.as_bytes());
    text.extend_from_slice(path_and_query.as_bytes());
}

/// Writes the route behind the URL.
pub fn write_route(text: &mut Vec<u8>, route: &str) {
    text.push(URL_END as u8);
    text.extend_from_slice(route.as_bytes());
}

/// The URL in the text of a key.
pub fn url_of(text: &str) -> &str {
    text.split_once(URL_END).map_or(text, |(url, _)| url)
}

/// The route in the text of a key.
pub fn route_of(text: &str) -> &str {
    text.split_once(URL_END).map_or("", |(_, route)| route)
}

/// A URL as somebody writes it, in the form of a key: host and path as the gate makes those of requests canonical, the
/// query as it is. `None` = not an absolute http or https URL, or one that no request can have.
pub fn key_of_url(url: &str) -> Option<Vec<u8>> {
    let (scheme, rest) = url.trim().split_once("://")?;
    let https = match scheme.to_ascii_lowercase().as_str() {
        "https" => true,
        "http" => false,
        _ => return None,
    };
    let rest = rest.split('#').next().unwrap_or(rest);
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = canonical_authority(authority.as_bytes(), https)?;
    let (path, query) = path.split_at(path.find('?').unwrap_or(path.len()));
    let path = canonical_path(if path.is_empty() { "/" } else { path }).ok()?;
    let mut text = Vec::with_capacity(url.len() + 1);
    write_key(&mut text, https, std::str::from_utf8(&host).ok()?, &path);
    text.extend_from_slice(query.as_bytes());
    Some(text)
}

/// The parts of a key's text that purges look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyParts<'a> {
    /// Without port: a purge of a host means all its ports.
    pub host: &'a str,
    /// Without query.
    pub path: &'a str,
}

impl<'a> KeyParts<'a> {
    /// Takes the text of a key apart.
    pub fn of(text: &'a str) -> Self {
        let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
        let rest = rest.split('?').next().unwrap_or(rest);
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        Self { host: without_port(authority), path }
    }

    /// The scheme and authority: what "same origin" compares.
    pub fn origin(text: &str) -> &str {
        let start = text.find("://").map_or(0, |at| at + 3);
        let end = text[start..].find('/').map_or(text.len(), |at| start + at);
        &text[..end]
    }
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        Some(_) | None => authority,
    }
}

/// The scope of a host.
pub fn host_scope(seed: u64, host: &str) -> u64 {
    xxh3_64_with_seed(without_port(host).to_ascii_lowercase().as_bytes(), seed)
}

/// The scope of a path of a host and everything below it, by whole segments. `path` is without its final slash.
pub fn prefix_scope(seed: u64, host: &str, path: &str) -> u64 {
    let mut text = without_port(host).to_ascii_lowercase().into_bytes();
    text.extend_from_slice(path.as_bytes());
    xxh3_64_with_seed(&text, seed)
}

/// The scopes of every prefix a path lies under, itself included, longest first.
pub fn prefix_scopes<'a>(seed: u64, parts: KeyParts<'a>) -> impl Iterator<Item = u64> + 'a {
    let mut rest = Some(parts.path.strip_suffix('/').unwrap_or(parts.path));
    std::iter::from_fn(move || {
        let path = rest.filter(|path| !path.is_empty())?;
        rest = path.rfind('/').map(|slash| &path[..slash]);
        Some(prefix_scope(seed, parts.host, path))
    })
}

/// The scope of a tag, which is bytes: they need not be text.
pub fn tag_scope(seed: u64, tag: impl AsRef<[u8]>) -> u64 {
    xxh3_64_with_seed(tag.as_ref(), seed)
}

/// The scope of a cache group: a tag that means only objects of one origin (RFC 9875).
pub fn group_scope(seed: u64, origin: &str, group: &str) -> u64 {
    let mut text = origin.as_bytes().to_vec();
    text.push(0);
    text.extend_from_slice(group.as_bytes());
    xxh3_64_with_seed(&text, seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_the_key_of_the_request_it_names() {
        for (url, key) in [
            ("http://Shop.Example.com/a?b=c", Some("http://shop.example.com/a?b=c")),
            ("https://shop.example.com:443", Some("https://shop.example.com/")),
            ("http://shop.example.com:8080/x#part", Some("http://shop.example.com:8080/x")),
            ("http://shop.example.com?q", Some("http://shop.example.com/?q")),
            ("HTTP://a/", Some("http://a/")),
            (
                "http://shop.example.com./%7Eu/./x/../y%2fz?%7e/../",
                Some("http://shop.example.com/~u/y%2Fz?%7e/../"),
            ),
            ("http://a/%zz", None),
            ("http://u@a/", None),
            ("http://a:0/", None),
            ("shop.example.com/a", None),
            ("ftp://a/", None),
            ("http:///a", None),
        ] {
            assert_eq!(key_of_url(url).map(|text| String::from_utf8(text).unwrap()).as_deref(), key, "{url}");
        }
    }

    #[test]
    fn routes_share_the_key_of_a_url_but_not_its_text() {
        let text = |route| {
            let mut text = Vec::new();
            write_key(&mut text, false, "a.org", "/x?y");
            write_route(&mut text, route);
            String::from_utf8(text).unwrap()
        };
        let (public, internal) = (text("public"), text("internal"));
        assert_ne!(public, internal);
        assert_eq!((url_of(&public), route_of(&public)), ("http://a.org/x?y", "public"));
        assert_eq!(ObjectKey::of_text(7, &public), ObjectKey::of_text(7, &internal));
        assert_eq!(
            ObjectKey::of_text(7, &public),
            ObjectKey::of(7, &key_of_url("http://A.org/x?y").unwrap())
        );
    }

    #[test]
    fn prefixes_end_at_segments() {
        let scopes: Vec<u64> = prefix_scopes(7, KeyParts::of("http://a.org:81/x/y/z.html?q=/w")).collect();
        assert_eq!(scopes, ["/x/y/z.html", "/x/y", "/x"].map(|path| prefix_scope(7, "a.org", path)));
        assert_eq!(prefix_scopes(7, KeyParts::of("http://a.org/")).count(), 0);
        assert_eq!(KeyParts::origin("http://a.org:81/x"), "http://a.org:81");
    }
}
