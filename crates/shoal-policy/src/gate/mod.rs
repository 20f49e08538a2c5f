//! The strict request gate: what is refused before routing, on HTTP/1 and HTTP/2 alike.
//!
//! The parser in front of it is safe but lenient. Whatever two parsers could read in two ways is refused here, so that
//! the route, the cache key and the endpoint all see the same request.

mod authority;
mod conduct;
mod error_code;
mod extended_connect;
mod field_block;
mod fields;
mod frames;
mod huffman;
mod path;
mod rule;
mod sent;

use std::borrow::Cow;

use http::header::{CONNECTION, EXPECT, HOST, UPGRADE};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Uri, Version};

pub use authority::canonical_authority;
pub use error_code::ErrorCode;
pub use fields::{Field, Present, survey};
pub use frames::{Flood, FrameLimits, FrameScan, Offence, Stopped};
pub use path::canonical_path;
pub use rule::{RULES, Rule};

use crate::http1::{Persistence, Wire, request_framing};

/// Fields that `Connection` may not name: taking one off would change what the request means.
const PROTECTED: [&str; 13] = [
    "host",
    "content-length",
    "transfer-encoding",
    "authorization",
    "cookie",
    "cache-control",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-real-ip",
    "x-request-id",
    "via",
];

const WEBSOCKET_KEY: &str = "sec-websocket-key";

/// What a listener demands of every request.
#[derive(Clone, Debug)]
pub struct Gate {
    /// The connection is encrypted.
    pub https: bool,
    /// Longest request target, bytes.
    pub max_uri_bytes: usize,
    /// Most fields of a request.
    pub max_field_count: usize,
    /// `Host` of an HTTP/1.0 request that has none: where it was sent (RFC 9112 §3.3).
    pub default_authority: HeaderValue,
}

/// A request that passed. Its head was brought into canonical form: origin-form target, canonical path, one `Host`.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// `Host`, lower case, the scheme's default port left out.
    pub authority: HeaderValue,
    /// Bytes of it before the port.
    host_len: usize,
    /// Which fields it has that somebody has to see to.
    pub present: Present,
    /// The connection shall become something else.
    pub upgrade: Option<Upgrade>,
    /// Fields dropped because of an underscore in their name.
    pub dropped_fields: usize,
}

impl Admitted {
    /// The host without the port: what routes are found by.
    pub fn host(&self) -> &str {
        self.authority_text().get(..self.host_len).unwrap_or_default()
    }

    /// Host and port, as text.
    pub fn authority_text(&self) -> &str {
        std::str::from_utf8(self.authority.as_bytes()).unwrap_or_default()
    }
}

/// A wish to change the protocol (RFC 9110 §7.8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// Lower case; never a list.
    pub protocol: Box<str>,
    /// `Sec-WebSocket-Key`, if the protocol is `websocket` and the wish was not an extended CONNECT.
    pub key: Option<HeaderValue>,
    /// It came as an extended CONNECT: a stream shall become the tunnel, not its connection.
    pub extended: bool,
}

impl Gate {
    /// Lets `head` through, in canonical form, or names the rule it breaks. `wire` is what only the raw bytes show.
    pub fn admit(&self, head: &mut Parts, wire: Wire, has_body: bool) -> Result<Admitted, Rule> {
        let present = survey(&head.headers);
        if wire.bare_line_feed {
            return Err(Rule::LineEnd);
        }
        if wire.fragment {
            return Err(Rule::Path);
        }
        if present.count > self.max_field_count {
            return Err(Rule::FieldCount);
        }
        check_framing(head, present, has_body)?;
        let authority = self.settle_authority(head, present)?;
        // `Host` counts, too, where only the target had it.
        if head.headers.len() > self.max_field_count {
            return Err(Rule::FieldCount);
        }
        self.settle_target(head)?;
        let dropped_fields =
            if present.has(Field::Underscored) { drop_underscored(&mut head.headers)? } else { 0 };
        if present.has(Field::Connection) {
            check_connection(&head.headers)?;
        }
        if present.has(Field::Expect) && !is_only(&head.headers, EXPECT.as_str(), "100-continue") {
            return Err(Rule::Expectation);
        }
        let upgrade = if present.has(Field::Upgrade) { read_upgrade(head, has_body)? } else { None };
        let host_len = authority::host_len(authority.as_bytes());
        Ok(Admitted { authority, host_len, present, upgrade, dropped_fields })
    }

    /// The same for an extended CONNECT (RFC 8441), which asks for `protocol`: what passes is a GET, as on HTTP/1.1.
    pub fn admit_extended(&self, head: &mut Parts, wire: Wire, protocol: &str) -> Result<Admitted, Rule> {
        let upgrade = extended_connect::read(head, protocol)?;
        let admitted = self.admit(head, wire, false)?;
        Ok(Admitted { upgrade: Some(upgrade), ..admitted })
    }

    /// One authority, whether it came as `Host`, in an absolute-form target or as `:authority`.
    fn settle_authority(&self, head: &mut Parts, present: Present) -> Result<HeaderValue, Rule> {
        let named = head.uri.authority().map(|authority| authority.as_str());
        if present.has(Field::RepeatedHost) {
            return Err(Rule::HostRepeated);
        }
        let host = head.headers.get(HOST);
        let written = match (host, named) {
            (Some(host), Some(named)) if !self.is_same(host.as_bytes(), named.as_bytes()) => {
                return Err(Rule::HostMismatch);
            }
            (Some(host), _) => host.clone(),
            (None, Some(named)) if head.version == Version::HTTP_2 => {
                HeaderValue::from_str(named).map_err(|_| Rule::HostInvalid)?
            }
            (None, _) if head.version == Version::HTTP_10 => self.default_authority.clone(),
            (None, _) => return Err(Rule::HostMissing),
        };
        let canonical = match canonical_authority(written.as_bytes(), self.https).ok_or(Rule::HostInvalid)? {
            Cow::Borrowed(bytes) if bytes.len() == written.len() => {
                if host.is_some() {
                    return Ok(written);
                }
                written
            }
            changed => HeaderValue::from_bytes(&changed).map_err(|_| Rule::HostInvalid)?,
        };
        head.headers.insert(HOST, canonical.clone());
        Ok(canonical)
    }

    /// Two authorities are one, however they are written.
    fn is_same(&self, one: &[u8], other: &[u8]) -> bool {
        one.eq_ignore_ascii_case(other)
            || match (canonical_authority(one, self.https), canonical_authority(other, self.https)) {
                (Some(one), Some(other)) => one == other,
                _ => false,
            }
    }

    /// Origin form and a canonical path. Nothing is allocated for a target that is canonical already.
    fn settle_target(&self, head: &mut Parts) -> Result<(), Rule> {
        if let Some(scheme) = head.uri.scheme_str()
            && !scheme.eq_ignore_ascii_case(if self.https { "https" } else { "http" })
        {
            return Err(Rule::SchemeMismatch);
        }
        let target = head.uri.path_and_query().ok_or(Rule::Target)?;
        if head.method == Method::CONNECT || !target.as_str().starts_with('/') {
            return Err(Rule::Target);
        }
        if target.as_str().len() > self.max_uri_bytes {
            return Err(Rule::UriTooLong);
        }
        match canonical_path(target.path())? {
            Cow::Owned(mut path) => {
                if let Some(query) = target.query() {
                    path.push('?');
                    path.push_str(query);
                }
                head.uri = PathAndQuery::try_from(path).map(Uri::from).map_err(|_| Rule::Path)?;
            }
            Cow::Borrowed(_) if head.uri.authority().is_some() => head.uri = Uri::from(target.clone()),
            Cow::Borrowed(_) => {}
        }
        Ok(())
    }
}

/// A value begins or ends with a space or tab: on HTTP/2 such a message is malformed (RFC 9113 §8.2.1).
pub fn has_padded_value(headers: &HeaderMap) -> bool {
    let is_padding = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    headers.values().any(|value| is_padding(value.as_bytes().first()) || is_padding(value.as_bytes().last()))
}

/// The length of the body is beyond doubt (RFC 9112 §6.3).
fn check_framing(head: &Parts, present: Present, has_body: bool) -> Result<(), Rule> {
    if present.has(Field::TransferEncoding) || present.has(Field::ContentLength) {
        request_framing(head.version, &head.headers)?;
    }
    // TRACE never has a body (RFC 9110 §9.3.8).
    if has_body && head.method == Method::TRACE {
        return Err(Rule::BodyNotAllowed);
    }
    Ok(())
}

/// Some stacks read `_` as `-`: a field that would then mean framing, host or origin is an attack, others are dropped.
fn drop_underscored(headers: &mut HeaderMap) -> Result<usize, Rule> {
    let underscored: Vec<_> = headers.keys().filter(|name| name.as_str().contains('_')).cloned().collect();
    for name in &underscored {
        let read_as = name.as_str().replace('_', "-");
        if PROTECTED.contains(&read_as.as_str()) || read_as == "connection" || read_as == "upgrade" {
            return Err(Rule::UnderscoredField);
        }
        headers.remove(name);
    }
    Ok(underscored.len())
}

fn check_connection(headers: &HeaderMap) -> Result<(), Rule> {
    for value in headers.get_all(CONNECTION) {
        if Persistence::default().add(value.as_bytes()) {
            // It is about nothing else, as nearly always.
            continue;
        }
        let text = value.to_str().map_err(|_| Rule::ConnectionNames)?;
        let is_protected =
            |token: &str| PROTECTED.iter().any(|protected| protected.eq_ignore_ascii_case(token));
        if text.split(',').map(str::trim).any(is_protected) {
            return Err(Rule::ConnectionNames);
        }
    }
    Ok(())
}

/// The wish to upgrade, if it is one that may be granted; `h2c`, lists and half-hearted ones are as good as absent.
fn read_upgrade(head: &Parts, has_body: bool) -> Result<Option<Upgrade>, Rule> {
    let mut values = head.headers.get_all(UPGRADE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Ok(None) };
    let Ok(protocol) = value.to_str().map(str::trim) else { return Ok(None) };
    let asked = head.headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let meant =
        asked.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    let is_token = !protocol.is_empty() && protocol.bytes().all(|b| b.is_ascii_graphic() && b != b',');
    if head.version != Version::HTTP_11 || !meant || !is_token || protocol.eq_ignore_ascii_case("h2c") {
        return Ok(None);
    }
    let protocol: Box<str> = protocol.to_ascii_lowercase().into();
    if &*protocol != "websocket" {
        return Ok(if has_body { None } else { Some(Upgrade { protocol, key: None, extended: false }) });
    }
    // RFC 6455 §4.2.1.
    let key = head.headers.get(WEBSOCKET_KEY).filter(|key| is_websocket_key(key.as_bytes()));
    let key = key.cloned().ok_or(Rule::Upgrade)?;
    if head.method != Method::GET || has_body || !is_websocket_13(&head.headers) {
        return Err(Rule::Upgrade);
    }
    Ok(Some(Upgrade { protocol, key: Some(key), extended: false }))
}

/// The one version of WebSocket there is.
fn is_websocket_13(headers: &HeaderMap) -> bool {
    is_only(headers, "sec-websocket-version", "13")
}

/// Sixteen bytes in base64.
fn is_websocket_key(key: &[u8]) -> bool {
    key.len() == 24
        && key.ends_with(b"==")
        && key[..22].iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
}

/// The field occurs once and is this token.
fn is_only(headers: &HeaderMap, name: &str, token: &str) -> bool {
    let mut values = headers.get_all(name).iter();
    values.next().is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(token.as_bytes()))
        && values.next().is_none()
}

#[cfg(test)]
mod tests {
    use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};

    use super::*;

    fn gate() -> Gate {
        Gate {
            https: false,
            max_uri_bytes: 64,
            max_field_count: 8,
            default_authority: HeaderValue::from_static("10.0.0.1:80"),
        }
    }

    /// `text`: a request line and fields, one a line; the version tells HTTP/2 from HTTP/1.
    fn admit_with(text: &str, wire: Wire) -> (Result<Admitted, Rule>, Parts) {
        let mut lines = text.lines();
        let mut line = lines.next().unwrap().split(' ');
        let (method, target, version) = (line.next().unwrap(), line.next().unwrap(), line.next().unwrap());
        let version = match version {
            "1.0" => Version::HTTP_10,
            "1.1" => Version::HTTP_11,
            _ => Version::HTTP_2,
        };
        let mut request = http::Request::builder().method(method).uri(target).version(version);
        for field in lines {
            let (name, value) = field.split_once(':').unwrap();
            request = request.header(name, value.trim());
        }
        let (mut head, ()) = request.body(()).unwrap().into_parts();
        let has_body =
            head.headers.contains_key(CONTENT_LENGTH) || head.headers.contains_key(TRANSFER_ENCODING);
        (gate().admit(&mut head, wire, has_body), head)
    }

    #[test]
    fn refuses() {
        let check = |text: &str, expected: Option<Rule>| {
            let (result, _) = admit_with(text, Wire::default());
            assert_eq!(result.err(), expected, "{text}");
        };
        check("GET / 1.1\nhost: a", None);
        check("POST / 1.1\nhost: a\ntransfer-encoding: chunked", None);
        check("POST / 1.1\nhost: a\ntransfer-encoding: Chunked", None);
        check("POST / 1.1\nhost: a\ntransfer-encoding: gzip, chunked", Some(Rule::TransferEncoding));
        check("POST / 1.1\nhost: a\ntransfer-encoding: chunked, chunked", Some(Rule::TransferEncoding));
        check(
            "POST / 1.1\nhost: a\ntransfer-encoding: identity\ntransfer-encoding: chunked",
            Some(Rule::TransferEncoding),
        );
        check("POST / 1.0\nhost: a\ntransfer-encoding: chunked", Some(Rule::TransferEncoding));
        check(
            "POST / 1.1\nhost: a\ntransfer-encoding: chunked\ncontent-length: 3",
            Some(Rule::LengthAndTransferEncoding),
        );
        check("POST / 1.1\nhost: a\ncontent-length: 5, 5", Some(Rule::ContentLength));
        check("POST / 1.1\nhost: a\ncontent-length: +5", Some(Rule::ContentLength));
        check("POST / 1.1\nhost: a\ncontent-length: 5\ncontent-length: 5", Some(Rule::ContentLength));
        check("TRACE / 1.1\nhost: a\ncontent-length: 5", Some(Rule::BodyNotAllowed));
        check("GET / 1.1", Some(Rule::HostMissing));
        check("GET / 1.0", None);
        check("GET / 1.1\nhost: a\nhost: a", Some(Rule::HostRepeated));
        check("GET / 1.1\nhost: a@b", Some(Rule::HostInvalid));
        check("GET / 1.1\nhost: a b", Some(Rule::HostInvalid));
        check("GET / 1.1\nhost: a:99999", Some(Rule::HostInvalid));
        check("GET http://a/ 1.1\nhost: b", Some(Rule::HostMismatch));
        check("GET http://a/ 1.1\nhost: A", None);
        check("GET http://a:80/ 1.1\nhost: a.", None);
        check("GET http://a:81/ 1.1\nhost: a", Some(Rule::HostMismatch));
        check("GET http://a/ 1.1", Some(Rule::HostMissing));
        check("GET https://a/ 1.1\nhost: a", Some(Rule::SchemeMismatch));
        check("GET http://a/ 2", None);
        check("GET http://a/ 2\nhost: b", Some(Rule::HostMismatch));
        check("GET http://u@a/ 2", Some(Rule::HostInvalid));
        check("OPTIONS * 1.1\nhost: a", Some(Rule::Target));
        check("CONNECT a:80 1.1\nhost: a:80", Some(Rule::Target));
        check("GET /%zz 1.1\nhost: a", Some(Rule::Path));
        check(&format!("GET /{} 1.1\nhost: a", "x".repeat(64)), Some(Rule::UriTooLong));
        check(&format!("GET / 2\nhost: a{}", "\ncookie: x".repeat(8)), Some(Rule::FieldCount));
        check(&format!("GET http://a/ 2{}", "\ncookie: x".repeat(8)), Some(Rule::FieldCount));
        check(&format!("GET http://a/ 2{}", "\ncookie: x".repeat(7)), None);
        check("GET / 1.1\nhost: a\ntransfer_encoding: chunked", Some(Rule::UnderscoredField));
        check("GET / 1.1\nhost: a\nx_forwarded-for: chunked", Some(Rule::UnderscoredField));
        check("GET / 1.1\nhost: a\nx_y: 1", None);
        check("GET / 1.1\nhost: a\nconnection: close, Authorization", Some(Rule::ConnectionNames));
        check("GET / 1.1\nhost: a\nconnection: x-mine", None);
        check("POST / 1.1\nhost: a\nexpect: 100-Continue", None);
        check("POST / 1.1\nhost: a\nexpect: wonders", Some(Rule::Expectation));
        check("GET / 1.1\nhost: a\nconnection: upgrade\nupgrade: websocket", Some(Rule::Upgrade));
    }

    #[test]
    fn padding_is_part_of_no_value() {
        for (value, expected) in
            [("a", false), ("", false), ("a b\tc", false), (" a", true), ("a\t", true), ("\t", true)]
        {
            let fields = [(HOST, HeaderValue::from_static("a")), (EXPECT, HeaderValue::from_static(value))];
            assert_eq!(has_padded_value(&fields.into_iter().collect()), expected, "{value:?}");
        }
    }

    #[test]
    fn refuses_what_only_the_wire_shows() {
        let fragment = Wire { fragment: true, ..Wire::default() };
        assert_eq!(admit_with("GET / 1.1\nhost: a", fragment).0.err(), Some(Rule::Path));
        let bare = Wire { bare_line_feed: true, ..Wire::default() };
        assert_eq!(admit_with("GET / 1.1\nhost: a", bare).0.err(), Some(Rule::LineEnd));
    }

    #[test]
    fn brings_into_canonical_form() {
        let check = |text: &str, host: &str, authority: &str, target: &str| {
            let (result, head) = admit_with(text, Wire::default());
            let admitted = result.unwrap();
            let seen = (admitted.host(), admitted.authority.to_str().unwrap(), head.uri.to_string());
            assert_eq!(seen, (host, authority, target.to_owned()), "{text}");
            assert_eq!(head.headers[HOST], admitted.authority, "{text}");
        };
        check("GET /a?b=/../c 1.1\nhost: a.example", "a.example", "a.example", "/a?b=/../c");
        check("GET /a/%2e%2e/b?q 1.1\nhost: A.Example:80", "a.example", "a.example", "/b?q");
        check("GET http://a:8080/x?y 1.1\nhost: a:8080", "a", "a:8080", "/x?y");
        check("GET http://a 2", "a", "a", "/");
        check("GET http://a.org.:80/ 2", "a.org", "a.org", "/");
        check("GET / 1.1\nhost: A.org.:8080", "a.org", "a.org:8080", "/");
        check("GET /x 1.0", "10.0.0.1", "10.0.0.1", "/x");
        check("GET /x 1.1\nhost: [::1]:8080", "[::1]", "[::1]:8080", "/x");
    }

    #[test]
    fn drops_fields_with_underscores() {
        for name in ["x_y", "x-forwarded-client_cert", "x-forwarded-_or", "shoal-x_y"] {
            let (result, head) = admit_with(&format!("GET / 1.1\nhost: a\n{name}: 1"), Wire::default());
            assert_eq!((result.unwrap().dropped_fields, head.headers.len()), (1, 1), "{name}");
        }
    }

    #[test]
    fn reads_upgrades() {
        let check = |fields: &str, expected: Option<&str>| {
            let (result, _) = admit_with(&format!("GET / 1.1\nhost: a\n{fields}"), Wire::default());
            assert_eq!(
                result.unwrap().upgrade.map(|upgrade| upgrade.protocol).as_deref(),
                expected,
                "{fields}"
            );
        };
        let key = "sec-websocket-version: 13\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==";
        check(&format!("connection: keep-alive, Upgrade\nupgrade: WebSocket\n{key}"), Some("websocket"));
        check(&format!("upgrade: websocket\n{key}"), None);
        check("connection: upgrade\nupgrade: h2c", None);
        check("connection: upgrade\nupgrade: websocket, h2c", None);
        check("connection: upgrade\nupgrade: spdy/3", Some("spdy/3"));
    }
}
