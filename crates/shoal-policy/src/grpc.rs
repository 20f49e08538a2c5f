//! gRPC as a proxy needs to know it: which requests it is, how long they may take, how failures are told.

use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Version};

use crate::failure::Failure;

const GRPC: &[u8] = b"application/grpc";
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// Digits of a `grpc-timeout`.
const MAX_DIGITS: usize = 8;

/// A call by gRPC: it lives on trailers, which only HTTP/2 has for certain.
pub fn is_call(version: Version, method: &Method, headers: &HeaderMap) -> bool {
    version == Version::HTTP_2 && *method == Method::POST && headers.get(CONTENT_TYPE).is_some_and(is_grpc)
}

/// `application/grpc`, alone or with the encoding of its messages; not `application/grpc-web`.
pub fn is_grpc(content_type: &HeaderValue) -> bool {
    let text = content_type.as_bytes();
    text.get(..GRPC.len()).is_some_and(|start| start.eq_ignore_ascii_case(GRPC))
        && matches!(text.get(GRPC.len()), None | Some(b'+' | b';' | b' '))
}

/// How long the caller waits: `grpc-timeout`. What is malformed says nothing.
pub fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > MAX_DIGITS || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// The status code that a gRPC caller is told of `failure`. `UNAVAILABLE` (14) says that another try may help.
pub const fn status(failure: Failure) -> u16 {
    match failure {
        Failure::DownstreamReset => 1,
        Failure::DownstreamTimeout
        | Failure::UpstreamResponseTimeout
        | Failure::UpstreamConnectTimeout
        | Failure::Unverified
        | Failure::NotCached => 4,
        Failure::BodyTooLarge | Failure::HeadTooLarge | Failure::UriTooLong => 8,
        Failure::NoRoute | Failure::UnknownProtocol => 12,
        Failure::BadRequest(_)
        | Failure::ExpectationFailed
        | Failure::UpstreamProtocol
        | Failure::Loop
        | Failure::Internal => 13,
        Failure::UpstreamConnectFailed
        | Failure::UpstreamReset
        | Failure::NoEndpoint
        | Failure::Overflow
        | Failure::Overload
        | Failure::Draining
        | Failure::Misdirected => 14,
    }
}

/// Writes into `fields`, a head without a body or trailers, how the call has failed.
pub fn write_status(fields: &mut HeaderMap, failure: Failure) {
    fields.insert(GRPC_STATUS, HeaderValue::from(status(failure)));
    fields.insert(GRPC_MESSAGE, HeaderValue::from_static(failure.reason()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_known_by_their_content_type() {
        let check = |content_type: &'static str, expected| {
            assert_eq!(is_grpc(&HeaderValue::from_static(content_type)), expected, "{content_type}");
        };
        check("application/grpc", true);
        check("application/grpc+proto", true);
        check("Application/gRPC; x=1", true);
        check("application/grpc-web", false);
        check("application/grp", false);
        check("application/json", false);

        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        assert!(is_call(Version::HTTP_2, &Method::POST, &headers));
        assert!(!is_call(Version::HTTP_11, &Method::POST, &headers));
        assert!(!is_call(Version::HTTP_2, &Method::GET, &headers));
    }

    #[test]
    fn timeouts() {
        let check = |text: &'static str, expected: Option<Duration>| {
            let mut headers = HeaderMap::new();
            headers.insert(GRPC_TIMEOUT, HeaderValue::from_static(text));
            assert_eq!(timeout(&headers), expected, "{text}");
        };
        check("1H", Some(Duration::from_secs(3600)));
        check("2M", Some(Duration::from_secs(120)));
        check("3S", Some(Duration::from_secs(3)));
        check("99999999m", Some(Duration::from_millis(99_999_999)));
        check("5u", Some(Duration::from_micros(5)));
        check("0n", Some(Duration::ZERO));
        check("", None);
        check("S", None);
        check("1", None);
        check("-1S", None);
        check("+1S", None);
        check("100000000S", None);
        check("1s", None);
    }

    #[test]
    fn failures_are_told_in_its_own_words() {
        let check = |failure, code, reason: &str| {
            let mut fields = HeaderMap::new();
            write_status(&mut fields, failure);
            assert_eq!(
                (status(failure), &fields["grpc-message"]),
                (code, &HeaderValue::from_str(reason).unwrap())
            );
            assert_eq!(fields["grpc-status"], code.to_string());
        };
        check(Failure::NoRoute, 12, "node_no_route");
        check(Failure::UpstreamConnectFailed, 14, "upstream_connect_failed");
        check(Failure::UpstreamResponseTimeout, 4, "upstream_response_timeout");
        check(Failure::UpstreamProtocol, 13, "upstream_protocol");
    }
}
