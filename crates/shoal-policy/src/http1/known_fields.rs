//! Fields that a downstream has asked with before: whoever goes on asking on a connection mostly says the same again.

use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONNECTION, EXPECT};
use http::{Method, Request, Uri, Version};

use super::keeper::Keeper;
use super::known_lines::KnownLines;
use super::request_reader::{MAX_METHOD_BYTES, MAX_TARGET_BYTES};
use super::{Framing, RequestHead, Wire};

/// Many connections ask but once: the fields of the first head are not kept.
const FIRST_KEPT: u8 = 2;
const END_OF_LINE: &[u8] = b" HTTP/1.1\r\n";

/// The fields that are kept of a connection, if there are any.
#[derive(Debug, Default)]
pub(super) struct KnownFields(Keeper<Kept>);

/// The fields of a request of HTTP/1.1 that has no body.
#[derive(Debug)]
struct Kept {
    lines: KnownLines,
    /// Of which fields the value was read already: with another one the head is read anew.
    settled: u32,
    persists: bool,
}

impl KnownFields {
    /// Takes a head of at most `room` bytes off `arrived`, if it has the fields that are kept, other values apart, behind a
    /// plain request line. Answers with the lines that are kept, too; `None` says nothing of what has arrived.
    pub(super) fn take(&self, arrived: &mut BytesMut, room: usize) -> Option<(RequestHead, &KnownLines)> {
        let kept = self.0.kept()?;
        let line = RequestLine::read(arrived)?;
        let seen = kept.lines.recognise(&arrived[line.end..])?;
        let length = line.end + seen.length;
        if seen.changed & kept.settled != 0 || length > room {
            return None;
        }
        if seen.changed != 0 && self.0.note_difference() {
            return None;
        }
        let mut parts = Request::new(()).into_parts().0;
        parts.uri = Uri::from_maybe_shared(Bytes::copy_from_slice(&arrived[line.target])).ok()?;
        (parts.method, parts.headers) = (line.method, seen.fields);
        arrived.advance(length);
        let head = RequestHead {
            parts,
            wire: Wire::default(),
            framing: Framing::Empty,
            persists: kept.persists,
            expects_continue: false,
        };
        Some((head, &kept.lines))
    }

    /// Takes note of a head that was not known; `lines` are those of its fields.
    pub(super) fn meet(&mut self, lines: Bytes, head: &RequestHead) {
        let is_plain = head.framing == Framing::Empty
            && head.parts.version == Version::HTTP_11
            && head.wire.is_clean()
            && !head.expects_continue;
        if !self.0.wants(FIRST_KEPT) || !is_plain {
            return;
        }
        let Some(lines) = KnownLines::new(lines, 0, &head.parts.headers, |_, _| true) else { return };
        let mut settled = 0;
        for (number, name) in lines.fields.keys().enumerate() {
            settled |= u32::from(*name == CONNECTION || *name == EXPECT) << number;
        }
        self.0.keep(Kept { lines, settled, persists: head.persists });
    }
}

/// A request line as nearly all are.
struct RequestLine {
    method: Method,
    target: Range<usize>,
    /// Where the fields begin.
    end: usize,
}

impl RequestLine {
    /// `None` = it is not whole, or there is something about it that wants a closer look.
    fn read(arrived: &[u8]) -> Option<Self> {
        let method = arrived.iter().take(MAX_METHOD_BYTES + 1).position(|byte| *byte == b' ')?;
        let start = method + 1;
        let length = arrived[start..].iter().position(|byte| !IS_PLAIN[usize::from(*byte)])?;
        let target = start..start + length;
        let is_whole = length <= MAX_TARGET_BYTES && arrived[target.end..].starts_with(END_OF_LINE);
        let method = Method::from_bytes(&arrived[..method]).ok()?;
        is_whole.then(|| Self { method, end: target.end + END_OF_LINE.len(), target })
    }
}

/// What a target is written with (RFC 3986 §2), but for the `#`, which it may not have.
const IS_PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let marks = b"%:/?[]@!$&'()*+,;=-._~";
    let mut byte = 0;
    while byte < plain.len() {
        plain[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut mark = 0;
    while mark < marks.len() {
        plain[marks[mark] as usize] = true;
        mark += 1;
    }
    plain
};

#[cfg(test)]
mod tests {
    use super::super::keeper::PATIENCE;
    use super::super::known_lines::MAX_BYTES;
    use super::super::{HeadLimits, RequestReader, Unreadable};
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { max_bytes: 8000, max_fields: 40 };
    const FIRST: &str = "GET /a HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nX:  y\r\n\r\n";

    /// What is read of `text` after as many heads like `first`, and whether it was known.
    fn read_after(
        first: &str,
        times: usize,
        text: &str,
    ) -> (Result<Option<String>, Unreadable>, String, bool) {
        let mut reader = RequestReader::default();
        for _ in 0..times {
            reader.read(&mut BytesMut::from(first), LIMITS).unwrap();
        }
        let mut arrived = BytesMut::from(text);
        let is_known = reader.known.take(&mut arrived.clone(), LIMITS.max_bytes).is_some();
        let read = reader.read(&mut arrived, LIMITS);
        (read.map(|head| head.map(|head| format!("{head:?}"))), format!("{arrived:?}"), is_known)
    }

    #[test]
    fn who_knows_the_fields_reads_others_no_differently() {
        let check = |text: &str, expected: bool| {
            let (read, left, is_known) = read_after(FIRST, 2, text);
            let (plain, plain_left, _) = read_after(FIRST, 0, text);
            assert_eq!((read, left), (plain, plain_left), "{text:?}");
            assert_eq!(is_known, expected, "{text:?}");
        };
        let with = |from: &str, to: &str| FIRST.replace(from, to);
        check(FIRST, true);
        check(&format!("{FIRST}GET /b"), true);
        check(&with("GET /a", "OPTIONS *"), true);
        check(&with("GET /a", "PROPFIND http://b/%2f?c=~[]"), true);
        check(&with("Host: a", "Host: b.example"), true);
        check(&with("X:  y", "X:  y, z"), true);
        check(&with("X:  y", "X:  \u{e9}"), true);
        check(&with("X:  y", "X: y"), false);
        check(&with("X:  y", "X:  y\0"), false);
        check(&with("X:  y", "X:  y\n z"), false);
        check(&with("X:  y", "X:  y\r\nHost: b"), false);
        check(&with("X:  y", "X:  y\r\nContent-Length: 3"), false);
        check(&with("X:  y\r\n", "X:  y\n"), false);
        check(&with("y\r\n\r\n", "y\r\n\n"), false);
        check(&with("X:", "X :"), false);
        check(&with("X:", "Expect:"), false);
        check(&with("X:", "Transfer-Encoding:"), false);
        check(&with("keep-alive", "close"), false);
        check(&with("HTTP/1.1\r\n", "HTTP/1.0\r\n"), false);
        check(&with("HTTP/1.1\r\n", "HTTP/1.1\n"), false);
        check(&with("GET /a", "GET  /a"), false);
        check(&with("GET /a", "GET /a#b"), false);
        check(&with("GET /a", "GET /\u{e9}"), false);
        check(&with("GET /a", "GET /\""), false);
        check(&with("GET /a", "G@T /a"), false);
        check(&with("GET /a", "GET http://"), false);
        check(&with("GET /a", &format!("{} /a", "M".repeat(MAX_METHOD_BYTES))), true);
        check(&with("GET /a", &format!("{} /a", "M".repeat(MAX_METHOD_BYTES + 1))), false);
        check(&with("GET /a", &format!("GET /{}", "a".repeat(LIMITS.max_bytes))), false);
        check(&with("X:  y", &format!("X:  {}", "y".repeat(LIMITS.max_bytes))), false);
        check(&FIRST[..FIRST.len() - 1], false);
        check(&FIRST[..20], false);
        check("", false);
    }

    #[test]
    fn what_has_a_body_or_waits_is_never_known() {
        let check = |fields: &str, expected: bool| {
            for version in ["1.1", "1.0"] {
                let text = format!("PUT / HTTP/{version}\r\n{fields}\r\n\r\n");
                let (_, _, is_known) = read_after(&text, 3, &text);
                assert_eq!(is_known, expected && version == "1.1", "{text:?}");
            }
        };
        check("A: b", true);
        check("Connection: close", true);
        check("Expect: 200-ok", true);
        check("Expect: 100-continue", false);
        check("Content-Length: 0", false);
        check("Content-Length: 1", false);
        check("Transfer-Encoding: chunked", false);
        check("A: b\nC: d", false);
        check("A: b\r\nA: c", false);
        check(&format!("A: {}", "b".repeat(MAX_BYTES)), false);
    }

    #[test]
    fn what_is_kept_is_what_most_requests_are_like() {
        let mut reader = RequestReader::default();
        let mut read = |text: &str| {
            reader.read(&mut BytesMut::from(text), LIMITS).unwrap().unwrap();
            reader.known.0.kept().map(|kept| String::from_utf8_lossy(&kept.lines.text).into_owned())
        };
        let head = |fields: &str| format!("GET / HTTP/1.1\r\n{fields}");
        let (one, same, other) = ("A: b\r\n\r\n", "A: c\r\n\r\n", "B: b\r\n\r\n");
        assert_eq!(read(&head(one)), None);
        assert_eq!(read(&head(one)).as_deref(), Some(one));
        let mut kept = one;
        for new in [same, other] {
            for _ in 1..PATIENCE {
                assert_eq!(read(&head(new)).as_deref(), Some(kept));
            }
            assert_eq!(read(&head(new)).as_deref(), Some(new));
            kept = new;
        }
    }
}
