//! The head of a response as the downstream shall see it.

use http::header::{CONTENT_LENGTH, HeaderName, TRANSFER_ENCODING, VIA};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, Version};

use super::request::drop_prefixed;
use super::{OWN_PREFIX, OwnName, hops};
use crate::failure::Failure;
use crate::gate::{Field, Present, survey};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Checks an endpoint's response and takes off what ends at this hop. What could be framed in two ways, and a 101 that
/// nobody asked for, is a protocol error: the connection it came on must not be used again.
pub fn prepare_response(head: &mut Parts, keep_trailers: bool) -> Result<(), Failure> {
    if head.status.is_informational() || !matches!(head.version, Version::HTTP_10 | Version::HTTP_11) {
        return Err(Failure::UpstreamProtocol);
    }
    let present = survey(&head.headers);
    let headers = &mut head.headers;
    if present.has(Field::TransferEncoding) {
        let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
        let chunked = codings.next().is_some_and(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
        if !chunked || codings.next().is_some() || present.has(Field::ContentLength) {
            return Err(Failure::UpstreamProtocol);
        }
        headers.remove(TRANSFER_ENCODING);
    }
    if present.has(Field::ContentLength) {
        let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
        let first = lengths.next().cloned().ok_or(Failure::UpstreamProtocol)?;
        let digits = first.as_bytes();
        let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        if !is_number || lengths.any(|length| *length != first) {
            return Err(Failure::UpstreamProtocol);
        }
        if head.status == StatusCode::NO_CONTENT {
            headers.remove(CONTENT_LENGTH);
        } else {
            headers.insert(CONTENT_LENGTH, first);
        }
    }
    hops::strip(headers, present, keep_trailers);
    drop_own(headers, present);
    Ok(())
}

/// Takes off a 101 what ends at this hop, and what would frame a body: there is none.
pub fn strip_switch(headers: &mut HeaderMap) {
    let present = survey(headers);
    hops::strip(headers, present, false);
    drop_own(headers, present);
    headers.remove(TRANSFER_ENCODING);
    headers.remove(CONTENT_LENGTH);
}

/// Between nodes our own fields mean something: an origin may not speak for one.
fn drop_own(headers: &mut HeaderMap, present: Present) {
    if present.has(Field::Forbidden) {
        drop_prefixed(headers, OWN_PREFIX);
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
    use super::*;

    #[test]
    fn responses() {
        let check = |status: u16, fields: &str, expected: Option<&str>| {
            let mut response = http::Response::builder().status(status);
            for field in fields.lines() {
                let (name, value) = field.split_once(": ").unwrap();
                response = response.header(name, value);
            }
            let (mut head, ()) = response.body(()).unwrap().into_parts();
            let seen = prepare_response(&mut head, false).map(|()| {
                let line = |(name, value): (&HeaderName, &HeaderValue)| {
                    format!("{name}: {}", value.to_str().unwrap())
                };
                head.headers.iter().map(line).collect::<Vec<_>>().join("\n")
            });
            assert_eq!(
                seen,
                expected.map(str::to_owned).ok_or(Failure::UpstreamProtocol),
                "{status} {fields}"
            );
        };
        check(200, "content-length: 3\nx: 1", Some("content-length: 3\nx: 1"));
        check(200, "transfer-encoding: chunked\nx: 1", Some("x: 1"));
        check(200, "transfer-encoding: cow", None);
        check(200, "transfer-encoding: gzip, chunked", None);
        check(200, "transfer-encoding: chunked\ncontent-length: 3", None);
        check(200, "content-length: 3\ncontent-length: 3", Some("content-length: 3"));
        check(200, "content-length: 3\ncontent-length: 4", None);
        check(200, "content-length: 3, 3", None);
        check(200, "content-length: ", None);
        check(204, "content-length: 0", Some(""));
        check(200, "shoal-peer: n1\nx: 1", Some("x: 1"));
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
}
