//! Bytes of an HTTP/1 connection: what the parser and the scan of the wire see of them must be the same messages, and what
//! the gate lets through must mean one thing only.
#![no_main]

use http::request::Parts;
use http::{HeaderName, HeaderValue, Request, Version};
use libfuzzer_sys::fuzz_target;
use shoal_fuzz::{admitted, chunks_length};
use shoal_policy::gate::{Wire, WireScan};

fuzz_target!(|bytes: &[u8]| {
    pieces_do_not_matter(bytes);
    let (mut scan, mut rest, mut heads) = (WireScan::default(), bytes, 0);
    while let Some((mut head, length)) = parse(rest) {
        heads += 1;
        scan.feed(&rest[..length]);
        rest = &rest[length..];
        let wire = scan.fault().map_or(Wire::default(), |(at, wire)| {
            assert_eq!(at, heads, "it was heard of earlier");
            wire
        });
        let Some(body) = framing(&head) else { return };
        let has_body = body != Body::Length(0);
        let gate = admitted::gate(false);
        let Ok(passed) = gate.admit(&mut head, wire, has_body) else { return };
        admitted::check(&gate, &head, &passed, has_body);
        let Some(length) = body.length_in(rest) else { return };
        // A line feed is nothing within a body, and refused where a head begins.
        if length > 0 {
            scan.feed(&rest[..length - 1]);
            scan.feed(&rest[length - 1..length]);
        }
        assert_eq!(scan.fault(), None, "the body is well");
        let mut probed = scan;
        probed.feed(b"\n");
        let bare = Wire { bare_line_feed: true, ..Wire::default() };
        assert_eq!(probed.fault(), Some((heads + 1, bare)), "the next head begins here");
        rest = &rest[length..];
    }
});

fn pieces_do_not_matter(bytes: &[u8]) {
    let first = bytes.first().map_or(1, |byte| usize::from(*byte % 13) + 1);
    for piece in [1, first] {
        let (mut whole, mut parts) = (WireScan::default(), WireScan::default());
        whole.feed(bytes);
        bytes.chunks(piece).for_each(|part| parts.feed(part));
        for more in [&b""[..], b"\r\n", b"\r\n\r\nGET / HTTP/1.1\r\nA: b\n"] {
            whole.feed(more);
            parts.feed(more);
            assert_eq!(parts.fault(), whole.fault(), "by {piece}");
        }
    }
}

/// The head at the beginning of `bytes`, as the codec's parser reads it, and its length.
fn parse(bytes: &[u8]) -> Option<(Parts, usize)> {
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let mut parsed = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(length) = parsed.parse(bytes).ok()? else { return None };
    let version = if parsed.version? == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    let mut request = Request::builder().method(parsed.method?).uri(parsed.path?).version(version);
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        request = request.header(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    Some((request.body(()).ok()?.into_parts().0, length))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Body {
    Length(usize),
    Chunked,
}

/// How a recipient has to read the body (RFC 9112 §6.3); `None` = it must refuse.
fn framing(head: &Parts) -> Option<Body> {
    if head.headers.contains_key("transfer-encoding") {
        let last = head.headers.get_all("transfer-encoding").iter().next_back()?;
        let last = last.as_bytes().rsplit(|byte| *byte == b',').next()?.trim_ascii();
        return last.eq_ignore_ascii_case(b"chunked").then_some(Body::Chunked);
    }
    match head.headers.get("content-length") {
        None => Some(Body::Length(0)),
        Some(length) => length.to_str().ok()?.parse().ok().map(Body::Length),
    }
}

impl Body {
    /// How many of `bytes` it has; `None` = it is broken or not all there.
    fn length_in(self, bytes: &[u8]) -> Option<usize> {
        match self {
            Self::Length(length) => (length <= bytes.len()).then_some(length),
            Self::Chunked => chunks_length(bytes),
        }
    }
}
