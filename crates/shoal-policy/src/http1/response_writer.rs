//! The head of a response as it goes over the wire.

use http::header::{CONNECTION, CONTENT_LENGTH, DATE};
use http::response::Parts;
use http::{HeaderValue, Method, StatusCode, Version};

use super::SharedFields;
use super::Spelling;
use super::framing::Framing;
use super::request_head::{FIELD_BYTES, write_field, write_fields};
use crate::forwarding::X_REQUEST_ID;

/// What was asked, as far as it matters to how the answer goes out.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// It was HEAD: the answer has no body, whatever its head says of one.
    pub head_only: bool,
    /// The version of the request.
    pub version: Version,
    /// The connection may go on after the answer.
    pub persists: bool,
}

impl Asked {
    /// By a request of that method and version.
    pub fn new(method: &Method, version: Version, persists: bool) -> Self {
        Self { head_only: *method == Method::HEAD, version, persists }
    }
}

/// How the answer goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departure {
    /// Of its body.
    pub framing: Framing,
    /// The connection goes on after it.
    pub persists: bool,
}

/// What is said in the head of a response.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'a> {
    /// Its status and its fields.
    pub head: &'a Parts,
    /// Fields beside these: none of them is in both, and `Connection` is not among them.
    pub shared: Option<&'a SharedFields>,
    /// What `x-request-id` says, where the head does not.
    pub request_id: Option<&'a HeaderValue>,
    /// A phrase other than the usual one.
    pub reason: Option<&'a [u8]>,
    /// Bytes of the body, where that is known.
    pub length: Option<u64>,
}

/// Appends the status line and the fields of `answered`, and those that this hop alone is concerned with (RFC 9112 §6, §9).
/// Shared fields are written in lower case, whatever the `spelling`. `date` is what `Date` says where the head has none
/// (RFC 9110 §6.6.1).
pub fn write_response_head(
    out: &mut Vec<u8>,
    answered: Answered<'_>,
    asked: Asked,
    spelling: Spelling<'_>,
    date: impl FnOnce() -> [u8; 29],
) -> Departure {
    let Answered { head, shared, request_id, reason, length } = answered;
    let headers = &head.headers;
    let lines = shared.map_or(&[][..], SharedFields::lines);
    out.reserve(FIELD_BYTES * (headers.len() + 4) + lines.len());
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(head.status.as_str().as_bytes());
    out.push(b' ');
    let usual = || head.status.canonical_reason().unwrap_or_default().as_bytes();
    out.extend_from_slice(reason.unwrap_or_else(usual));
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(lines);
    write_fields(out, headers, spelling);
    if let Some(id) = request_id {
        write_field(out, X_REQUEST_ID.as_str(), id.as_bytes(), spelling);
    }
    let framing = framing(head, length, asked);
    let mut own = |name: &str, value: &[u8]| write_field(out, name, value, spelling);
    match framing {
        Framing::Length(length) => {
            if !shared.is_some_and(|shared| shared.has_length) && !headers.contains_key(CONTENT_LENGTH) {
                own(CONTENT_LENGTH.as_str(), length.to_string().as_bytes());
            }
        }
        Framing::Chunked => own("transfer-encoding", b"chunked"),
        Framing::Empty | Framing::UntilClose => {}
    }
    let has_date = shared.is_some_and(|shared| shared.has_date) || headers.contains_key(DATE);
    if !has_date && !head.status.is_informational() {
        own(DATE.as_str(), &date());
    }
    let said = headers.get(CONNECTION);
    let persists = asked.persists
        && framing != Framing::UntilClose
        && !said.is_some_and(|said| said.as_bytes().eq_ignore_ascii_case(b"close"));
    match (persists, said) {
        (_, Some(_)) => {}
        (false, None) => own(CONNECTION.as_str(), b"close"),
        (true, None) if asked.version < Version::HTTP_11 => own(CONNECTION.as_str(), b"keep-alive"),
        (true, None) => {}
    }
    out.extend_from_slice(b"\r\n");
    Departure { framing, persists }
}

/// RFC 9112 §6.3, from the side that writes. A `Content-Length` in the head speaks of a body that is not sent here, or it
/// is right: whoever made the answer has seen to that.
fn framing(head: &Parts, length: Option<u64>, asked: Asked) -> Framing {
    let has_none = head.status.is_informational()
        || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if has_none || asked.head_only {
        return Framing::Empty;
    }
    let said = || head.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok();
    match length.or_else(said) {
        Some(length) => Framing::Length(length),
        None if asked.version < Version::HTTP_11 => Framing::UntilClose,
        None => Framing::Chunked,
    }
}

#[cfg(test)]
mod tests {
    use http::Response;

    use super::*;

    #[test]
    fn heads() {
        let check = |status: u16, fields: &[(&str, &str)], length, asked: &str, expected: &str| {
            let mut response = Response::builder().status(status);
            for (name, value) in fields {
                response = response.header(*name, *value);
            }
            let (head, ()) = response.body(()).unwrap().into_parts();
            let asked = Asked {
                head_only: asked.contains("HEAD"),
                version: if asked.contains("1.0") { Version::HTTP_10 } else { Version::HTTP_11 },
                persists: !asked.contains("ends"),
            };
            let mut out = Vec::new();
            let date = || *b"Sun, 06 Nov 1994 08:49:37 GMT";
            let answered = Answered { head: &head, shared: None, request_id: None, reason: None, length };
            let departure = write_response_head(&mut out, answered, asked, Spelling::Lower, date);
            let text = String::from_utf8(out).unwrap().replace("\r\n", "|");
            let text = text.replace("date: Sun, 06 Nov 1994 08:49:37 GMT", "D");
            let text = format!("{text} {:?} {}", departure.framing, departure.persists);
            assert_eq!(text, format!("HTTP/1.1 {expected}"));
        };
        check(200, &[], Some(3), "", "200 OK|content-length: 3|D|| Length(3) true");
        check(200, &[], Some(0), "", "200 OK|content-length: 0|D|| Length(0) true");
        check(200, &[("date", "x")], None, "", "200 OK|date: x|transfer-encoding: chunked|| Chunked true");
        check(200, &[("content-length", "3")], None, "", "200 OK|content-length: 3|D|| Length(3) true");
        check(200, &[], None, "1.0", "200 OK|D|connection: close|| UntilClose false");
        check(200, &[], Some(3), "1.0", "200 OK|content-length: 3|D|connection: keep-alive|| Length(3) true");
        check(200, &[], Some(3), "ends", "200 OK|content-length: 3|D|connection: close|| Length(3) false");
        check(200, &[("connection", "close")], Some(0), "", {
            "200 OK|connection: close|content-length: 0|D|| Length(0) false"
        });
        check(200, &[("content-length", "9")], Some(0), "HEAD", {
            "200 OK|content-length: 9|D|| Empty true"
        });
        check(200, &[], Some(0), "HEAD", "200 OK|D|| Empty true");
        check(304, &[("etag", "a")], Some(0), "", "304 Not Modified|etag: a|D|| Empty true");
        check(204, &[], Some(0), "", "204 No Content|D|| Empty true");
        check(101, &[("connection", "upgrade")], Some(0), "", {
            "101 Switching Protocols|connection: upgrade|| Empty true"
        });
        check(799, &[], Some(0), "", "799 |content-length: 0|D|| Length(0) true");
    }
}
