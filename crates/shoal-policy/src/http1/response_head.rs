//! The head of a response, read from what has arrived so far.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version};

use super::ends::ends_within;
use super::{KnownHead, Malformed, Persistence, WrittenLines};
use crate::gate::{Present, survey};

/// Largest head of a response, bytes.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// Fields that are going to be added: room for them is made at once.
const ADDED_FIELDS: usize = 4;
/// Most fields of a head.
const MAX_FIELDS: usize = 128;

/// A head, and what its types have no place for.
#[derive(Debug)]
pub struct ResponseHead {
    /// Status, version and fields.
    pub parts: Parts,
    /// The reason phrase, where it is not the usual one of the status.
    pub reason: Option<Bytes>,
    /// Which fields it has that somebody has to see to.
    pub present: Present,
    /// What a `Connection` said that is not among the fields any more.
    pub said: Persistence,
}

impl From<Parts> for ResponseHead {
    fn from(parts: Parts) -> Self {
        let present = survey(&parts.headers);
        Self { parts, reason: None, present, said: Persistence::default() }
    }
}

/// Reads heads, one after another.
#[derive(Debug, Default)]
pub struct HeadReader {
    /// [`WrittenLines`] go with the heads.
    keeps_lines: bool,
    /// Bytes that were looked at, and do not make up a head.
    searched: usize,
    /// Bytes of empty lines before the head: they are passed over (RFC 9112 §2.2 does so with requests).
    skipped: usize,
}

impl HeadReader {
    /// From now on [`WrittenLines`] go with the heads, or not.
    pub fn keep_lines(&mut self, keeps_lines: bool) {
        self.keeps_lines = keeps_lines;
    }

    /// Takes the head off `arrived`; `None` = it is not whole yet. Values share memory of its size. What this endpoint has
    /// said before is read at less cost.
    ///
    /// # Errors
    /// The bytes are no head, or one above the limits.
    pub fn read(
        &mut self,
        arrived: &mut BytesMut,
        known: &mut KnownHead,
    ) -> Result<Option<ResponseHead>, Malformed> {
        if self.searched == 0
            && self.skipped == 0
            && let Some((mut head, kept)) = known.take(arrived)
        {
            if self.keeps_lines {
                WrittenLines::attach(&kept.text, &mut head.parts.extensions);
            }
            return Ok(Some(head));
        }
        let empty = arrived.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        if empty > 0 {
            arrived.advance(empty);
            self.skipped += empty;
        }
        if arrived.is_empty() && self.skipped < MAX_HEAD_BYTES {
            return Ok(None);
        }
        // One that comes byte by byte is not parsed byte by byte.
        let may_end = self.searched == 0 || ends_within(arrived, self.searched);
        self.searched = arrived.len();
        let room = MAX_HEAD_BYTES.saturating_sub(self.skipped);
        match if may_end { parse(arrived, room)? } else { None } {
            Some((text, mut head)) => {
                (self.searched, self.skipped) = (0, 0);
                if self.keeps_lines {
                    WrittenLines::attach(&text, &mut head.parts.extensions);
                }
                known.meet(&text, &head);
                Ok(Some(head))
            }
            None if arrived.len() >= room => Err(Malformed::HeadTooLarge),
            None => Ok(None),
        }
    }
}

/// Takes off a head of at most `room` bytes.
fn parse(arrived: &mut BytesMut, room: usize) -> Result<Option<(Bytes, ResponseHead)>, Malformed> {
    let mut fields = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let mut parser = httparse::ParserConfig::default();
    // White space before a colon is taken off (RFC 9112 §5.1).
    parser.allow_spaces_after_header_name_in_responses(true);
    let parsed = parser.parse_response_with_uninit_headers(&mut response, arrived, &mut fields);
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) if length <= room => length,
        Ok(httparse::Status::Complete(_)) | Err(httparse::Error::TooManyHeaders) => {
            return Err(Malformed::HeadTooLarge);
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Malformed::Head),
    };
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Malformed::Head)?;
    let version = if response.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let reason = response.reason.filter(|reason| Some(*reason) != status.canonical_reason());
    let reason = reason.map(|reason| Bytes::copy_from_slice(reason.as_bytes()));
    // Whoever keeps a field shall not keep all that was read with it.
    let text = Bytes::copy_from_slice(&arrived[..length]);
    let mut headers = HeaderMap::with_capacity(response.headers.len() + ADDED_FIELDS);
    let start = arrived.as_ptr() as usize;
    for field in response.headers.iter() {
        let at = field.value.as_ptr() as usize - start;
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_maybe_shared(text.slice(at..at + field.value.len()));
        headers.append(name.map_err(|_| Malformed::Head)?, value.map_err(|_| Malformed::Head)?);
    }
    arrived.advance(length);
    let mut parts = Response::new(()).into_parts().0;
    (parts.status, parts.version, parts.headers) = (status, version, headers);
    Ok(Some((text, ResponseHead { reason, ..ResponseHead::from(parts) })))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `text`, which arrives in pieces of `piece` bytes; answers with the head as a line, and what is left over.
    fn read_in_pieces(text: &str, piece: usize) -> Result<Option<(String, String)>, Malformed> {
        let (mut reader, mut arrived) = (HeadReader::default(), BytesMut::new());
        let mut pieces = text.as_bytes().chunks(piece);
        while let Some(bytes) = pieces.next() {
            arrived.extend_from_slice(bytes);
            if let Some(head) = reader.read(&mut arrived, &mut KnownHead::default())? {
                let mut line = format!("{:?} {}", head.parts.version, head.parts.status.as_u16());
                if let Some(reason) = head.reason {
                    line += &format!(" ({})", reason.escape_ascii());
                }
                for (name, value) in &head.parts.headers {
                    line += &format!(" {name}={}", value.as_bytes().escape_ascii());
                }
                let left: Vec<u8> = arrived.iter().chain(pieces.flatten()).copied().collect();
                return Ok(Some((line, left.escape_ascii().to_string())));
            }
        }
        Ok(None)
    }

    #[test]
    fn heads() {
        let check = |text: &str, expected: Result<Option<(&str, &str)>, Malformed>| {
            for piece in [1, 2, 3, 7, text.len().max(1)] {
                let seen = read_in_pieces(text, piece);
                let seen = seen.as_ref().map(|head| head.as_ref().map(|(a, b)| (a.as_str(), b.as_str())));
                assert_eq!(seen, expected.as_ref().map(|head| *head), "{text:?} by {piece}");
            }
        };
        check("HTTP/1.1 200 OK\r\n\r\n", Ok(Some(("HTTP/1.1 200", ""))));
        check("HTTP/1.1 200\r\n\r\n", Ok(Some(("HTTP/1.1 200 ()", ""))));
        check("HTTP/1.0 404 Not Found\r\nA: b \r\n\r\nrest", Ok(Some(("HTTP/1.0 404 a=b", "rest"))));
        check("HTTP/1.1 200 Fine\r\nSet-Cookie: a\r\nset-cookie: b\r\n\r\n", {
            Ok(Some(("HTTP/1.1 200 (Fine) set-cookie=a set-cookie=b", "")))
        });
        check("\r\nHTTP/1.1 204 No Content\r\n\r\n", Ok(Some(("HTTP/1.1 204", ""))));
        check("HTTP/1.1 200 OK\nA: b\n\nrest", Ok(Some(("HTTP/1.1 200 a=b", "rest"))));
        check("HTTP/1.1 200 OK\r\nA: \u{e9}\r\n\r\n", Ok(Some(("HTTP/1.1 200 a=\\xc3\\xa9", ""))));
        check("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", Ok(Some(("HTTP/1.1 200 a=b", ""))));
        check("HTTP/1.1 999 Odd\r\n\r\n", Ok(Some(("HTTP/1.1 999 (Odd)", ""))));
        check("HTTP/1.1 200 OK\r\nA: b\r\n", Ok(None));
        check("", Ok(None));
        for malformed in [
            "HTTP/1.1 099 Low\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "ICY 200 OK\r\n\r\n",
            "hello, world\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n",
            "HTTP/1.1 200 OK\r\n: b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        ] {
            check(malformed, Err(Malformed::Head));
        }
    }

    #[test]
    fn heads_have_limits() {
        let check = |fields: usize, bytes: usize, expected: bool| {
            let text =
                format!("HTTP/1.1 200 OK\r\n{}\r\n", format!("A: {}\r\n", "b".repeat(bytes)).repeat(fields));
            for piece in [1000, text.len()] {
                let seen = read_in_pieces(&text, piece);
                match expected {
                    true => assert!(matches!(seen, Ok(Some(_))), "{fields} x {bytes}"),
                    false => assert_eq!(seen, Err(Malformed::HeadTooLarge), "{fields} x {bytes}"),
                }
            }
        };
        check(MAX_FIELDS, 1, true);
        check(MAX_FIELDS + 1, 1, false);
        check(1, MAX_HEAD_BYTES - 100, true);
        check(1, MAX_HEAD_BYTES + 1, false);
    }

    #[test]
    fn what_is_before_a_head_counts_as_it_does() {
        let check = |empty: usize, expected: bool| {
            let head = "HTTP/1.1 200 OK\r\nA: b\r\n\r\n";
            let text = "\n".repeat(empty) + head;
            for piece in [10, 1000, text.len()] {
                assert_eq!(read_in_pieces(&text, piece).is_ok(), expected, "{empty} by {piece}");
            }
        };
        check(MAX_HEAD_BYTES - 25, true);
        check(MAX_HEAD_BYTES - 24, false);
        check(MAX_HEAD_BYTES + 1, false);
    }

    #[test]
    fn a_head_keeps_nothing_but_itself() {
        let mut arrived = BytesMut::from("HTTP/1.1 200 OK\r\nA: b\r\n\r\nrest");
        let head = HeadReader::default().read(&mut arrived, &mut KnownHead::default()).unwrap().unwrap();
        assert!(arrived.freeze().is_unique());
        assert_eq!(head.parts.headers["a"], "b");
    }

    #[test]
    fn a_head_without_end_is_not_read_for_ever() {
        let (mut reader, mut arrived) = (HeadReader::default(), BytesMut::new());
        let mut ended = None;
        for _ in 0..=MAX_HEAD_BYTES {
            arrived.extend_from_slice(b"\n");
            if let Err(malformed) = reader.read(&mut arrived, &mut KnownHead::default()) {
                ended = Some(malformed);
                break;
            }
        }
        assert_eq!(ended, Some(Malformed::HeadTooLarge));
    }
}
