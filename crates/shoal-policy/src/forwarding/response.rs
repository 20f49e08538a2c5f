//! The head of a response as the downstream shall see it.

use http::header::{CONTENT_LENGTH, Entry, TRANSFER_ENCODING, VIA};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};

use super::request::drop_prefixed;
use super::{OWN_PREFIX, OwnName, X_REQUEST_ID, hops};
use crate::cache::targeted::SHOAL_CACHE_CONTROL;
use crate::failure::Failure;
use crate::gate::{Field, Present, survey};
use crate::http1::{Framing, ResponseHead, plain_number};

/// What the head of a response says of the connection it came on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Of the body, if it came over HTTP/1.1.
    pub framing: Framing,
    /// The endpoint keeps the connection open for another request (RFC 9112 §9.3).
    pub persists: bool,
}

/// Checks an endpoint's response to a request of method `asked`, and takes off what ends at this hop. What could be framed
/// in two ways, and a 101 that nobody asked for, is a protocol error: the connection it came on must not be used again.
pub fn prepare_response(
    head: &mut ResponseHead,
    asked: &Method,
    keep_trailers: bool,
) -> Result<Arrival, Failure> {
    let (present, said, head) = (head.present, head.said, &mut head.parts);
    if head.status.is_informational() || !matches!(head.version, Version::HTTP_10 | Version::HTTP_11) {
        return Err(Failure::UpstreamProtocol);
    }
    let headers = &mut head.headers;
    let mut persists = said.and(hops::strip(headers, present, keep_trailers)).lasts(head.version);
    let framing = if *asked == Method::HEAD
        || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
    {
        // A 204 announces no body. One that does may send it all the same.
        persists &= head.status != StatusCode::NO_CONTENT || !announces_body(headers, present);
        strip_framing(headers, head.status);
        Framing::Empty
    } else {
        take_framing(headers, present, head.status, head.version)?
    };
    drop_own(headers, present);
    Ok(Arrival { framing, persists: persists && framing != Framing::UntilClose })
}

/// How the body ends, if there may be one (RFC 9112 §6.3).
fn take_framing(
    headers: &mut HeaderMap,
    present: Present,
    status: StatusCode,
    version: Version,
) -> Result<Framing, Failure> {
    match (present.has(Field::TransferEncoding), present.has(Field::ContentLength)) {
        (false, false) => Ok(Framing::UntilClose),
        (false, true) => Ok(Framing::Length(take_length(headers, status)?)),
        (true, false) if version == Version::HTTP_11 => {
            let framing = coded_framing(headers)?;
            headers.remove(TRANSFER_ENCODING);
            Ok(framing)
        }
        (true, true | false) => Err(Failure::UpstreamProtocol),
    }
}

fn announces_body(headers: &HeaderMap, present: Present) -> bool {
    let is_nothing = |length: &HeaderValue| plain_number(length) == Some(0);
    present.has(Field::TransferEncoding) || !headers.get_all(CONTENT_LENGTH).iter().all(is_nothing)
}

/// Where there is no body, nothing that speaks of its framing counts (RFC 9112 §6.3, rule 1): a length that is one goes on.
fn strip_framing(headers: &mut HeaderMap, status: StatusCode) {
    headers.remove(TRANSFER_ENCODING);
    if take_length(headers, status).is_err() {
        headers.remove(CONTENT_LENGTH);
    }
}

/// How a body ends that has transfer codings (RFC 9112 §6.3): `chunked` and nothing else is undone here. Where it is not the
/// last one, the body ends with the connection, and goes on as it is; where others come before it, nobody further
/// on would know of them.
fn coded_framing(headers: &HeaderMap) -> Result<Framing, Failure> {
    let lines = headers.get_all(TRANSFER_ENCODING);
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let mut each = lines.iter();
    if each.next().is_some_and(|line| is_chunked(line.as_bytes())) && each.next().is_none() {
        return Ok(Framing::Chunked);
    }
    let mut codings = lines.iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let names = |coding: &[u8]| {
        coding.split(|byte| *byte == b';').next().is_some_and(|name| is_chunked(name.trim_ascii()))
    };
    if codings.any(names) { Err(Failure::UpstreamProtocol) } else { Ok(Framing::UntilClose) }
}

/// What `Content-Length` says, which is then said once. A 204 does not say it (RFC 9110 §8.6).
fn take_length(headers: &mut HeaderMap, status: StatusCode) -> Result<u64, Failure> {
    let Entry::Occupied(mut field) = headers.entry(CONTENT_LENGTH) else {
        return Err(Failure::UpstreamProtocol);
    };
    let first = field.get();
    let length = plain_number(first).ok_or(Failure::UpstreamProtocol)?;
    let mut others = field.iter().skip(1).peekable();
    let is_repeated = others.peek().is_some();
    if others.any(|other| other != first) {
        return Err(Failure::UpstreamProtocol);
    }
    if status == StatusCode::NO_CONTENT {
        field.remove();
    } else if is_repeated {
        let first = first.clone();
        field.insert(first);
    }
    Ok(length)
}

/// Takes off an interim answer (1xx) what ends at this hop, and what would frame a body: there is none.
pub fn strip_interim(headers: &mut HeaderMap) {
    let present = survey(headers);
    hops::strip(headers, present, false);
    drop_own(headers, present);
    headers.remove(TRANSFER_ENCODING);
    headers.remove(CONTENT_LENGTH);
}

/// Between nodes our own fields mean something: an origin may not speak for one, with an underscore neither. Only what it
/// says to our cache is its own to say (RFC 9213), and goes on to caches further downstream.
fn drop_own(headers: &mut HeaderMap, present: Present) {
    if present.has_any(&[Field::Forbidden, Field::Underscored]) {
        let targeted: Vec<HeaderValue> = headers.get_all(SHOAL_CACHE_CONTROL).iter().cloned().collect();
        drop_prefixed(headers, OWN_PREFIX);
        for line in targeted {
            headers.append(SHOAL_CACHE_CONTROL, line);
        }
    }
}

impl OwnName {
    /// Writes `Via` into a response, whoever made it.
    pub fn sign(&self, headers: &mut HeaderMap) {
        headers.append(VIA, self.via(Version::HTTP_11).clone());
    }

    /// Writes the `x-request-id` of the request into its response.
    pub fn set_request_id(&self, headers: &mut HeaderMap, request_id: HeaderValue) {
        headers.insert(X_REQUEST_ID, request_id);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    #[test]
    fn responses() {
        let check = |status: u16, fields: &str, expected: Option<&str>| {
            let mut response = http::Response::builder().status(status);
            for field in fields.lines() {
                let (name, value) = field.split_once(": ").unwrap();
                response = response.header(name, value);
            }
            let mut head = ResponseHead::from(response.body(()).unwrap().into_parts().0);
            let seen = prepare_response(&mut head, &Method::GET, false).map(|_| {
                let line = |(name, value): (&HeaderName, &HeaderValue)| {
                    format!("{name}: {}", value.to_str().unwrap())
                };
                head.parts.headers.iter().map(line).collect::<Vec<_>>().join("\n")
            });
            assert_eq!(
                seen,
                expected.map(str::to_owned).ok_or(Failure::UpstreamProtocol),
                "{status} {fields}"
            );
        };
        check(200, "content-length: 3\nx: 1", Some("content-length: 3\nx: 1"));
        check(200, "transfer-encoding: chunked\nx: 1", Some("x: 1"));
        check(200, "transfer-encoding: cow\nx: 1", Some("x: 1"));
        check(200, "transfer-encoding: cow\ncontent-length: 3", None);
        check(304, "transfer-encoding: gzip\ncontent-length: 3", Some("content-length: 3"));
        check(304, "content-length: 36, 36\nx: 1", Some("x: 1"));
        check(204, "content-length: -1\nx: 1", Some("x: 1"));
        check(200, "transfer-encoding: chunked, chunked", None);
        check(200, "transfer-encoding: chunked, cow", None);
        check(200, "transfer-encoding: gzip, chunked", None);
        check(200, "transfer-encoding: chunked\ncontent-length: 3", None);
        check(200, "content-length: 3\ncontent-length: 3", Some("content-length: 3"));
        check(200, "content-length: 3\ncontent-length: 4", None);
        check(200, "content-length: 3, 3", None);
        check(200, "content-length: ", None);
        check(204, "content-length: 0", Some(""));
        check(200, "shoal-peer: n1\nx: 1", Some("x: 1"));
        let targeted = "shoal-cache-control: max-age=1\nshoal-cache-control: public";
        check(200, &format!("{targeted}\nshoal-peer: n1"), Some(targeted));
        check(200, "shoal-pe_er: n1\nx_y: 1", Some("x_y: 1"));
        check(304, "content-length: 9", Some("content-length: 9"));
        check(101, "", None);
        // What keeps an answer out of the cache is not for this hop alone.
        let private = "content-length: 3\ncache-control: private\nset-cookie: a=1\nvary: *";
        let named = "connection: Cache-Control, set-cookie, vary, content-length";
        check(200, &format!("{private}\n{named}"), Some(private));
        check(
            200,
            "connection: x-y, close\nx-y: 1\nkeep-alive: 5\nupgrade: h2\ntrailer: a\nx: 1",
            Some("x: 1"),
        );
    }

    #[test]
    fn bodies_are_framed_in_one_way() {
        let check = |asked: &str, version: Version, status: u16, fields: &str, expected| {
            let mut response = http::Response::builder().status(status).version(version);
            for field in fields.lines() {
                let (name, value) = field.split_once(": ").unwrap();
                response = response.header(name, value);
            }
            let mut head = ResponseHead::from(response.body(()).unwrap().into_parts().0);
            let seen = prepare_response(&mut head, &asked.parse().unwrap(), false).ok();
            let seen = seen.map(|arrival| (arrival.framing, arrival.persists));
            assert_eq!(seen, expected, "{asked} {version:?} {status} {fields:?}");
        };
        let (new, old) = (Version::HTTP_11, Version::HTTP_10);
        check("GET", new, 200, "content-length: 3", Some((Framing::Length(3), true)));
        check("GET", new, 200, "content-length: 0", Some((Framing::Length(0), true)));
        check("GET", new, 200, "transfer-encoding: Chunked", Some((Framing::Chunked, true)));
        check("GET", new, 200, "", Some((Framing::UntilClose, false)));
        check("GET", new, 200, "transfer-encoding: cow", Some((Framing::UntilClose, false)));
        check("GET", old, 200, "transfer-encoding: cow", None);
        check(
            "GET",
            new,
            200,
            "content-length: 18446744073709551615",
            Some((Framing::Length(u64::MAX), true)),
        );
        check("GET", new, 200, "content-length: 18446744073709551616", None);
        check("GET", new, 200, "content-length: +3", None);
        check("HEAD", new, 200, "content-length: 3", Some((Framing::Empty, true)));
        check("HEAD", new, 200, "transfer-encoding: chunked", Some((Framing::Empty, true)));
        check("GET", new, 204, "content-length: 3", Some((Framing::Empty, false)));
        check("GET", new, 204, "transfer-encoding: chunked", Some((Framing::Empty, false)));
        check("HEAD", new, 200, "transfer-encoding: cow", Some((Framing::Empty, true)));
        check("GET", new, 204, "content-length: cow", Some((Framing::Empty, false)));
        check("GET", new, 204, "content-length: 0", Some((Framing::Empty, true)));
        check("HEAD", new, 204, "", Some((Framing::Empty, true)));
        check("GET", new, 304, "content-length: 3", Some((Framing::Empty, true)));
        let three = "content-length: 3";
        let check_persists = |version, connection: &str, expected: bool| {
            let fields = format!("{three}\n{connection}");
            check("GET", version, 200, fields.trim_end(), Some((Framing::Length(3), expected)));
        };
        check_persists(new, "connection: close", false);
        check_persists(new, "connection: x-a, Close", false);
        check_persists(new, "connection: keep-alive\nconnection: close", false);
        check_persists(new, "connection: x-a", true);
        check_persists(old, "", false);
        check_persists(old, "connection: Keep-Alive", true);
        check_persists(old, "connection: keep-alive, close", false);
        check("GET", old, 200, "transfer-encoding: chunked", None);
        check("GET", old, 200, "", Some((Framing::UntilClose, false)));
    }
}
