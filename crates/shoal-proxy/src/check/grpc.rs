//! The gRPC health checking protocol: `grpc.health.v1.Health/Check`, its two messages written out by hand.
//!
//! ```proto
//! message HealthCheckRequest { string service = 1; }
//! message HealthCheckResponse { enum ServingStatus { UNKNOWN = 0; SERVING = 1; NOT_SERVING = 2; SERVICE_UNKNOWN = 3; }
//!                               ServingStatus status = 1; }
//! ```

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE, USER_AGENT};
use http::{Request, StatusCode, Version};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use shoal_policy::grpc::is_grpc;
use shoal_policy::health::Reason;

use super::{MAX_HEAD, USER_AGENT as US};
use crate::upstream::Wire;

/// Largest body of an answer, bytes: its message has two.
const MAX_BODY: usize = 4 << 10;
/// Before each message: whether it is compressed, and its length (gRPC over HTTP/2).
const PREFIX: usize = 5;
/// Tags of field 1 of the request, a text, and of field 1 of the answer, a number.
const SERVICE: u8 = 1 << 3 | 2;
const STATUS: u64 = 1 << 3;
/// `ServingStatus.SERVING`.
const SERVING: u64 = 1;

/// Asks whether `service` (empty = the server as a whole) is serving.
pub(super) async fn ask(stream: Wire, service: &str, host: &str) -> Result<(), Reason> {
    let scheme = if matches!(stream, Wire::Tls(_)) { "https" } else { "http" };
    let request = Request::post(format!("{scheme}://{host}/grpc.health.v1.Health/Check"))
        .version(Version::HTTP_2)
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header(USER_AGENT, US)
        .body(Full::new(Bytes::from(request(service))))
        .map_err(|_| Reason::Other)?;
    let mut codec = http2::Builder::new(TokioExecutor::new());
    codec.max_header_list_size(MAX_HEAD as u32);
    let (mut sender, connection) = codec.handshake(TokioIo::new(stream)).await.map_err(|_| Reason::Reset)?;
    let asked = async {
        let answer = sender.send_request(request).await.map_err(|_| Reason::Protocol)?;
        verdict(answer).await
    };
    tokio::pin!(asked);
    // The connection moves only while somebody polls it. It may deliver the answer and end in one go.
    tokio::select! {
        biased;
        verdict = &mut asked => verdict,
        _ = connection => asked.await,
    }
}

/// Serving is what says so in full: by its HTTP status, its message and its trailers.
async fn verdict(answer: http::Response<Incoming>) -> Result<(), Reason> {
    let (head, body) = answer.into_parts();
    if head.status != StatusCode::OK {
        return Err(Reason::Status);
    }
    if !head.headers.get(CONTENT_TYPE).is_some_and(is_grpc) {
        return Err(Reason::Protocol);
    }
    let body = Limited::new(body, MAX_BODY).collect().await.map_err(|_| Reason::Protocol)?;
    // An answer without a message has its trailers in its head.
    let is_ok = |fields: &HeaderMap<HeaderValue>| fields.get("grpc-status").map(|status| status == "0");
    let called = body.trailers().and_then(is_ok).or_else(|| is_ok(&head.headers));
    match called {
        None => Err(Reason::Protocol),
        Some(false) => Err(Reason::Status),
        Some(true) => match status(&body.to_bytes()).ok_or(Reason::Protocol)? {
            SERVING => Ok(()),
            _ => Err(Reason::Status),
        },
    }
}

/// A `HealthCheckRequest`, framed.
fn request(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    // A text that is empty is left out.
    if !service.is_empty() {
        message.push(SERVICE);
        push_varint(&mut message, service.len() as u64);
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.append(&mut message);
    framed
}

/// The status in a framed `HealthCheckResponse`; `None` = it is none, or more than one.
fn status(body: &[u8]) -> Option<u64> {
    let (prefix, mut message) = body.split_at_checked(PREFIX)?;
    let length = u32::from_be_bytes(prefix.get(1..)?.try_into().ok()?);
    if prefix[0] != 0 || length as usize != message.len() {
        return None;
    }
    // Left out, it is 0. Fields of later versions are passed over, and of several the last one counts.
    let mut status = 0;
    while !message.is_empty() {
        match take_varint(&mut message)? {
            STATUS => status = take_varint(&mut message)?,
            other => skip(&mut message, other & 7)?,
        }
    }
    Some(status)
}

/// Passes over a field by the type of its tag.
fn skip(message: &mut &[u8], form: u64) -> Option<()> {
    let length = match form {
        0 => return take_varint(message).map(|_| ()),
        1 => 8,
        2 => usize::try_from(take_varint(message)?).ok()?,
        5 => 4,
        _ => return None,
    };
    *message = message.get(length..)?;
    Some(())
}

fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_framed() {
        assert_eq!(request(""), [0, 0, 0, 0, 0]);
        assert_eq!(request("a.B"), [&[0, 0, 0, 0, 5, 10, 3][..], b"a.B"].concat());
        let long = "x".repeat(200);
        assert_eq!(request(&long), [&[0, 0, 0, 0, 203, 10, 0xc8, 1][..], long.as_bytes()].concat());
    }

    #[test]
    fn statuses_are_read() {
        let check = |body: &[u8], expected| assert_eq!(status(body), expected, "{body:?}");
        check(&[0, 0, 0, 0, 2, 8, 1], Some(1));
        check(&[0, 0, 0, 0, 2, 8, 2], Some(2));
        check(&[0, 0, 0, 0, 0], Some(0));
        check(&[0, 0, 0, 0, 4, 8, 2, 8, 1], Some(1));
        // Fields of a later version: a text, eight bytes, four bytes, a number.
        check(&[0, 0, 0, 0, 6, 18, 2, 8, 2, 8, 1], Some(1));
        check(&[0, 0, 0, 0, 11, 17, 0, 0, 0, 0, 0, 0, 0, 0, 8, 1], Some(1));
        check(&[0, 0, 0, 0, 10, 21, 0, 0, 0, 0, 24, 0x80, 1, 8, 1], Some(1));
        // Cut, too long, compressed, without an end, of an unknown form.
        check(&[], None);
        check(&[0, 0, 0, 0], None);
        check(&[0, 0, 0, 0, 2, 8], None);
        check(&[0, 0, 0, 0, 1, 8], None);
        check(&[0, 0, 0, 0, 2, 8, 1, 0], None);
        check(&[1, 0, 0, 0, 2, 8, 1], None);
        check(&[0, 0, 0, 0, 11, 8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255], None);
        check(&[0, 0, 0, 0, 3, 18, 9, 1], None);
        check(&[0, 0, 0, 0, 1, 11], None);
    }
}
