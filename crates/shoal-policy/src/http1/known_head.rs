//! A head that an endpoint has answered with before: most that follow say the same again, but for a value or two.

use bytes::{Buf, Bytes, BytesMut};
use http::header::CONNECTION;
use http::{HeaderName, HeaderValue, Response, StatusCode, Version};

use super::keeper::Keeper;
use super::known_lines::{KnownLines, line_end};
use super::{Persistence, ResponseHead};
use crate::gate::{Present, survey};

/// The head that is kept of an endpoint, if there is one.
#[derive(Debug, Default)]
pub struct KnownHead(Keeper<Kept>);

/// A head, the status line of which is a part of the text of its lines.
#[derive(Debug)]
struct Kept {
    /// Without a `Connection` that is understood: it is taken off in any case.
    lines: KnownLines,
    status: StatusCode,
    version: Version,
    reason: Option<Bytes>,
    present: Present,
    said: Persistence,
}

impl KnownHead {
    /// Nothing is kept any more.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// Takes a head off `arrived`, if it is the one that is kept, other values apart. Answers with
    /// the lines that are kept, too; `None` says nothing of what has arrived.
    pub(super) fn take(&self, arrived: &mut BytesMut) -> Option<(ResponseHead, &KnownLines)> {
        let kept = self.0.kept()?;
        let seen = kept.lines.recognise(arrived)?;
        if seen.changed != 0 && self.0.note_difference() {
            return None;
        }
        let mut parts = Response::new(()).into_parts().0;
        (parts.status, parts.version, parts.headers) = (kept.status, kept.version, seen.fields);
        let head =
            ResponseHead { parts, reason: kept.reason.clone(), present: kept.present, said: kept.said };
        arrived.advance(seen.length);
        Some((head, &kept.lines))
    }

    /// Takes note of a head that was not known.
    pub(super) fn meet(&mut self, text: &Bytes, head: &ResponseHead) {
        if self.0.wants(1) {
            self.keep(text.clone(), head);
        }
    }

    fn keep(&mut self, text: Bytes, head: &ResponseHead) {
        let parts = &head.parts;
        if parts.status.is_informational() {
            return;
        }
        let mut said = Persistence::default();
        let is_kept = |name: &HeaderName, value: &HeaderValue| match persistence(name, value) {
            Some(persistence) => {
                said = persistence;
                false
            }
            None => true,
        };
        let Some(start) = line_end(&text) else { return };
        let Some(lines) = KnownLines::new(text, start + 1, &parts.headers, is_kept) else { return };
        self.0.keep(Kept {
            status: parts.status,
            version: parts.version,
            reason: head.reason.clone(),
            present: survey(&lines.fields),
            lines,
            said,
        });
    }
}

/// What a `Connection` says that says nothing else.
fn persistence(name: &HeaderName, value: &HeaderValue) -> Option<Persistence> {
    let mut said = Persistence::default();
    (*name == CONNECTION && said.add(value.as_bytes())).then_some(said)
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::super::keeper::PATIENCE;
    use super::super::known_lines::MAX_BYTES;
    use super::super::{HeadReader, Malformed};
    use super::*;
    use crate::forwarding::prepare_response;

    const FIRST: &str = "HTTP/1.1 200 OK\r\nServer: a\r\nDate:  Mon \r\nContent-Length: 10\r\nX:\r\n\r\n";

    /// What is read of `text` by somebody who knows the head of `first`, and what is left over.
    fn read_after(first: &str, text: &str) -> (Result<Option<String>, Malformed>, String, bool) {
        let mut known = KnownHead::default();
        let mut arrived = BytesMut::from(first);
        HeadReader::default().read(&mut arrived, &mut known).unwrap();
        let mut arrived = BytesMut::from(text);
        let is_known = known.take(&mut arrived.clone()).is_some();
        let read = HeadReader::default().read(&mut arrived, &mut known);
        (read.map(|head| head.map(|head| format!("{head:?}"))), format!("{arrived:?}"), is_known)
    }

    #[test]
    fn who_knows_a_head_reads_others_no_differently() {
        let check = |text: &str, expected: bool| {
            let (read, left, is_known) = read_after(FIRST, text);
            let (plain, plain_left, _) = read_after("HTTP/1.1 204 No Content\r\nA: b\r\n\r\n", text);
            assert_eq!((read, left), (plain, plain_left), "{text:?}");
            assert_eq!(is_known, expected, "{text:?}");
        };
        let with = |from: &str, to: &str| FIRST.replace(from, to);
        check(FIRST, true);
        check(&format!("{FIRST}body"), true);
        check(&with("Server: a", "Server: b"), true);
        check(&with("10", "1024"), true);
        check(&with("10", "1"), true);
        check(&with("10", ""), true);
        check(&with("10", "  10\t"), false);
        check(&with("10", "\t 11"), true);
        check(&with("X:\r\n", "X: y\r\n"), true);
        check(&with("Mon", "Tue"), true);
        check(&with("Mon", "\u{e9}"), true);
        check(&with("Mon ", "Mon"), false);
        check(&with("10", "a\0b"), false);
        check(&with("10", "a\rb"), false);
        check(&with("10", "10\r"), false);
        check(&with("10\r\n", "10\n"), false);
        check(&with("10\r\n", "10\r\n folded\r\n"), false);
        check(&with("10\r\n", "10\r\nY: z\r\n"), false);
        check(&with("X:", "Y:"), false);
        check(&with("X:", "X :"), false);
        check(&with("Server", "server"), false);
        check(&with("200 OK", "404 Not Found"), false);
        check(&with("200 OK", "200 Fine"), false);
        check(&with("X:\r\n\r\n", "X:\r\n"), false);
        check(&FIRST[..FIRST.len() - 1], false);
        check(&FIRST[..20], false);
        check("", false);
    }

    #[test]
    fn what_the_connection_was_told_is_told_again() {
        for said in ["keep-alive", "Close", "close, x", "x, Keep-Alive", "upgrade", ""] {
            for version in ["HTTP/1.1", "HTTP/1.0"] {
                let text =
                    format!("{version} 200 OK\r\nX: y\r\nConnection: {said}\r\nContent-Length: 3\r\n\r\n");
                let mut known = KnownHead::default();
                let mut read = || {
                    let arrived = &mut BytesMut::from(text.as_str());
                    let mut head = HeadReader::default().read(arrived, &mut known).unwrap().unwrap();
                    (prepare_response(&mut head, &Method::GET, false), head.parts.headers)
                };
                assert_eq!(read(), read(), "{text:?}");
                assert!(known.take(&mut BytesMut::from(text.as_str())).is_some());
            }
        }
    }

    #[test]
    fn what_is_kept_is_what_most_heads_are_like() {
        let mut known = KnownHead::default();
        let mut read = |text: &str| {
            HeadReader::default().read(&mut BytesMut::from(text), &mut known).unwrap().unwrap();
            known.0.kept().map(|kept| String::from_utf8_lossy(&kept.lines.text).into_owned())
        };
        let head = |field: &str| format!("HTTP/1.1 200 OK\r\n{field}\r\n\r\n");
        for unfit in ["Set-Cookie: a\r\nSet-Cookie: b".into(), format!("A: {}", "b".repeat(MAX_BYTES))] {
            assert_eq!(read(&head(&unfit)), None);
        }
        let (one, same, other) = (head("A: b"), head("A: c"), head("B: b"));
        assert_eq!(read(&one).as_ref(), Some(&one));
        let mut kept = one;
        for new in [same, other] {
            for _ in 1..PATIENCE {
                assert_eq!(read(&new).as_ref(), Some(&kept));
            }
            assert_eq!(read(&new).as_ref(), Some(&new));
            kept = new;
        }
        known.forget();
        assert!(known.0.kept().is_none());
    }
}
