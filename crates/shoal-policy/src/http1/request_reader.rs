//! The head of a request, read from what has arrived so far.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};

use super::ends::{ends_within, has_bare_line_feed};
use super::framing::{Framing, request_framing};
use super::known_fields::KnownFields;
use super::known_lines::line_end;
use super::odd_target::read_escaped;
use super::persistence::persists;
use super::spelling::WrittenLines;

/// Fields that are going to be added: room for them is made at once.
const ADDED_FIELDS: usize = 4;
/// Fields that are parsed without allocating.
const USUAL_FIELDS: usize = 100;
/// Longest method, bytes. Those that are registered have up to 17.
pub(super) const MAX_METHOD_BYTES: usize = 64;
/// Longest target, bytes: its type holds no longer one.
pub(super) const MAX_TARGET_BYTES: usize = u16::MAX as usize - 1;

/// How large a head may be.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Bytes of it, empty lines before it included.
    pub max_bytes: usize,
    /// Fields.
    pub max_fields: usize,
}

/// A head, and what its types have no place for.
#[derive(Debug)]
pub struct RequestHead {
    /// Method, target, version and fields.
    pub parts: Parts,
    /// What only the raw bytes show.
    pub wire: Wire,
    /// Of the body. Where it is in doubt it is until the end of the connection: the gate refuses the request.
    pub framing: Framing,
    /// The downstream may ask again on this connection (RFC 9112 §9.3).
    pub persists: bool,
    /// It waits for a 100 (Continue) before it sends the body.
    pub expects_continue: bool,
}

/// What only the raw bytes of a head show: the parser hides it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wire {
    /// A line ended in LF without CR.
    pub bare_line_feed: bool,
    /// The target has a `#`: the parser drops a fragment.
    pub fragment: bool,
}

impl Wire {
    /// Nothing is wrong with it.
    pub fn is_clean(self) -> bool {
        self == Self::default()
    }
}

/// Why there is no head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// No line ends where one should.
    LineEnd,
    /// The parser gives up.
    Malformed,
    /// The target is none.
    Target,
    /// The target is longer than any may be.
    TargetTooLong,
    /// It is larger than it may be.
    TooLarge,
}

/// Reads heads, one after another.
#[derive(Debug, Default)]
pub struct RequestReader {
    /// [`WrittenLines`] go with the heads.
    keeps_lines: bool,
    /// Bytes that were looked at, and do not make up a head.
    searched: usize,
    /// Bytes of empty lines before the head: they are passed over (RFC 9112 §2.2).
    skipped: usize,
    pub(super) known: KnownFields,
}

impl RequestReader {
    /// `keeps_lines`: [`WrittenLines`] go with the heads.
    pub fn new(keeps_lines: bool) -> Self {
        Self { keeps_lines, ..Self::default() }
    }

    /// Takes the head off `arrived`; `None` = it is not whole yet. What was asked with before is read at less cost.
    ///
    /// # Errors
    /// The bytes are no head, or one above the limits.
    pub fn read(
        &mut self,
        arrived: &mut BytesMut,
        limits: HeadLimits,
    ) -> Result<Option<RequestHead>, Unreadable> {
        self.skip_empty_lines(arrived)?;
        let room = limits.max_bytes.checked_sub(self.skipped).ok_or(Unreadable::TooLarge)?;
        // One that comes byte by byte is not parsed byte by byte.
        let may_end = self.searched == 0 || ends_within(arrived, self.searched);
        self.searched = arrived.len();
        if arrived.is_empty() {
            return Ok(None);
        }
        let head = if may_end { self.take(arrived, room, limits.max_fields)? } else { None };
        match head {
            Some(_) => (self.searched, self.skipped) = (0, 0),
            None if arrived.len() >= room => return Err(Unreadable::TooLarge),
            None => {}
        }
        Ok(head)
    }

    fn take(
        &mut self,
        arrived: &mut BytesMut,
        room: usize,
        max_fields: usize,
    ) -> Result<Option<RequestHead>, Unreadable> {
        if let Some((mut head, kept)) = self.known.take(arrived, room) {
            if self.keeps_lines {
                WrittenLines::attach(&kept.text, &mut head.parts.extensions);
            }
            return Ok(Some(head));
        }
        let Some((lines, mut head)) = parse(arrived, room, max_fields)? else { return Ok(None) };
        if self.keeps_lines {
            WrittenLines::attach(&lines, &mut head.parts.extensions);
        }
        self.known.meet(lines, &head);
        Ok(Some(head))
    }

    fn skip_empty_lines(&mut self, arrived: &mut BytesMut) -> Result<(), Unreadable> {
        while let [b'\r' | b'\n', ..] = arrived.as_ref() {
            match arrived.as_ref() {
                [b'\r', b'\n', ..] => arrived.advance(2),
                [b'\r'] => return Ok(()),
                _ => return Err(Unreadable::LineEnd),
            }
            self.skipped += 2;
        }
        Ok(())
    }
}

/// Takes off a head of at most `room` bytes; answers with the lines of its fields, too.
fn parse(
    arrived: &mut BytesMut,
    room: usize,
    max_fields: usize,
) -> Result<Option<(Bytes, RequestHead)>, Unreadable> {
    let mut usual = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; USUAL_FIELDS];
    let mut many = Vec::new();
    let fields = match usual.get_mut(..max_fields) {
        Some(fields) => fields,
        None => {
            many.resize_with(max_fields, MaybeUninit::uninit);
            &mut many[..]
        }
    };
    let mut request = httparse::Request::new(&mut []);
    let parsed =
        httparse::ParserConfig::default().parse_request_with_uninit_headers(&mut request, arrived, fields);
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) if length <= room => length,
        Ok(httparse::Status::Complete(_)) | Err(httparse::Error::TooManyHeaders) => {
            return Err(Unreadable::TooLarge);
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Unreadable::Malformed),
    };
    let base = arrived.as_ptr() as usize;
    let place = |part: &[u8]| {
        let start = part.as_ptr() as usize - base;
        start..start + part.len()
    };
    let method = request.method.unwrap_or_default();
    if method.len() > MAX_METHOD_BYTES {
        return Err(Unreadable::Malformed);
    }
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| Unreadable::Malformed)?;
    let version = if request.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let target = place(request.path.unwrap_or_default().as_bytes());
    // Whoever keeps a field shall not keep all that was read with it.
    let head = Bytes::copy_from_slice(&arrived[..length]);
    let mut read = Read::with_capacity(request.headers.len() + ADDED_FIELDS);
    for field in request.headers.iter() {
        read.add(HeaderName::from_bytes(field.name.as_bytes()), head.slice(place(field.value)))?;
    }
    let wire =
        Wire { bare_line_feed: has_bare_line_feed(&head), fragment: head[target.clone()].contains(&b'#') };
    arrived.advance(length);
    if target.len() > MAX_TARGET_BYTES {
        return Err(Unreadable::TargetTooLong);
    }
    let mut parts = Request::new(()).into_parts().0;
    parts.uri = match Uri::from_maybe_shared(head.slice(target.clone())) {
        Ok(uri) => uri,
        Err(_) => read_escaped(&head[target])?,
    };
    (parts.method, parts.version) = (method, version);
    let lines = line_end(&head).map_or_else(Bytes::new, |end| head.slice(end + 1..));
    Ok(Some((lines, read.finish(parts, wire))))
}

/// The fields so far, and which of those that matter here are among them.
struct Read {
    headers: HeaderMap,
    is_framed: bool,
    has_connection: bool,
    has_expect: bool,
}

impl Read {
    fn with_capacity(fields: usize) -> Self {
        let headers = HeaderMap::with_capacity(fields);
        Self { headers, is_framed: false, has_connection: false, has_expect: false }
    }

    fn add<E>(&mut self, name: Result<HeaderName, E>, value: Bytes) -> Result<(), Unreadable> {
        let name = name.map_err(|_| Unreadable::Malformed)?;
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| Unreadable::Malformed)?;
        self.is_framed |= name == CONTENT_LENGTH || name == TRANSFER_ENCODING;
        self.has_connection |= name == CONNECTION;
        self.has_expect |= name == EXPECT;
        self.headers.append(name, value);
        Ok(())
    }

    fn finish(self, mut parts: Parts, wire: Wire) -> RequestHead {
        let framing = match self.is_framed {
            true => request_framing(parts.version, &self.headers).ok(),
            false => Some(Framing::Empty),
        };
        let persists = match self.has_connection {
            true => persists(parts.version, &self.headers),
            false => parts.version == Version::HTTP_11,
        };
        let expects_continue = self.has_expect
            && parts.version == Version::HTTP_11
            && self
                .headers
                .get(EXPECT)
                .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        parts.headers = self.headers;
        RequestHead {
            persists: persists && framing.is_some() && wire.is_clean(),
            framing: framing.unwrap_or(Framing::UntilClose),
            parts,
            wire,
            expects_continue,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { max_bytes: 200, max_fields: 4 };

    /// Reads `text`, which arrives in pieces of `piece` bytes; answers with the head as a line, and what is left over.
    fn read_in_pieces(text: &str, piece: usize) -> Result<Option<(String, String)>, Unreadable> {
        let (mut reader, mut arrived) = (RequestReader::default(), BytesMut::new());
        let mut pieces = text.as_bytes().chunks(piece);
        while let Some(bytes) = pieces.next() {
            arrived.extend_from_slice(bytes);
            if let Some(head) = reader.read(&mut arrived, LIMITS)? {
                let mut line = format!("{} {} {:?}", head.parts.method, head.parts.uri, head.framing);
                for (is_so, word) in [
                    (head.parts.version == Version::HTTP_10, " 1.0"),
                    (!head.persists, " ends"),
                    (head.expects_continue, " waits"),
                    (head.wire.bare_line_feed, " bare"),
                    (head.wire.fragment, " fragment"),
                ] {
                    line += if is_so { word } else { "" };
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

    fn check(text: &str, expected: Result<Option<(&str, &str)>, Unreadable>) {
        for piece in [1, 2, 3, 7, text.len().max(1)] {
            let seen = read_in_pieces(text, piece);
            let seen = seen.as_ref().map(|head| head.as_ref().map(|(a, b)| (a.as_str(), b.as_str())));
            assert_eq!(seen, expected.as_ref().map(|head| *head), "{text:?} by {piece}");
        }
    }

    #[test]
    fn heads() {
        let check = |text: &str, line: &str, left: &str| check(text, Ok(Some((line, left))));
        check("GET / HTTP/1.1\r\n\r\n", "GET / Empty", "");
        check("GET / HTTP/1.0\r\n\r\nrest", "GET / Empty 1.0 ends", "rest");
        check("\r\n\r\nGET / HTTP/1.1\r\nA: b \r\n\r\n", "GET / Empty a=b", "");
        check("GET http://b/a?c HTTP/1.1\r\n\r\n", "GET http://b/a?c Empty", "");
        check("OPTIONS * HTTP/1.1\r\n\r\n", "OPTIONS * Empty", "");
        check("GET /a?\"b\" HTTP/1.1\r\n\r\n", "GET /a?%22b%22 Empty", "");
        check("GET /a#b HTTP/1.1\r\n\r\n", "GET /a Empty ends fragment", "");
        check("GET / HTTP/1.1\nA: b\r\n\r\n", "GET / Empty ends bare a=b", "");
        check("GET / HTTP/1.1\r\nA: b\n\r\n", "GET / Empty ends bare a=b", "");
        check("GET / HTTP/1.1\r\nA: b\r\n\n", "GET / Empty ends bare a=b", "");
    }

    #[test]
    fn connections_persist_where_both_say_so() {
        let check = |version: &str, connection: &str, expected: &str| {
            let text = format!("GET / HTTP/{version}\r\nConnection: {connection}\r\n\r\n");
            check(&text, Ok(Some((&format!("GET / Empty{expected} connection={connection}"), ""))));
        };
        check("1.1", "keep-alive", "");
        check("1.1", "x, Close", " ends");
        check("1.1", "closed", "");
        check("1.1", "keep-alive, close", " ends");
        check("1.0", "Keep-Alive", " 1.0");
        check("1.0", "close", " 1.0 ends");
        check("1.0", "upgrade", " 1.0 ends");
    }

    #[test]
    fn bodies_are_framed_beyond_doubt() {
        let check = |version: &str, fields: &str, expected: &str| {
            let text = format!("PUT / HTTP/{version}\r\n{fields}\r\n\r\n");
            for piece in [1, text.len()] {
                let (line, _) = read_in_pieces(&text, piece).unwrap().unwrap();
                assert!(line.starts_with(&format!("PUT / {expected} ")), "{line} of {text:?}");
            }
        };
        check("1.1", "Content-Length: 0", "Length(0)");
        check("1.1", "Content-Length: 12", "Length(12)");
        check("1.1", "Content-Length: 12\r\nExpect: 100-Continue", "Length(12) waits");
        check("1.0", "Content-Length: 12\r\nExpect: 100-Continue", "Length(12) 1.0 ends");
        check("1.1", "Transfer-Encoding: Chunked", "Chunked");
        // The gate refuses these.
        check("1.0", "Transfer-Encoding: chunked", "UntilClose 1.0 ends");
        check("1.1", "Transfer-Encoding: gzip, chunked", "UntilClose ends");
        check("1.1", "Transfer-Encoding: chunked\r\nContent-Length: 1", "UntilClose ends");
        check("1.1", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "UntilClose ends");
        check("1.1", "Content-Length: 1\r\nContent-Length: 1", "UntilClose ends");
        check("1.1", "Content-Length: 1, 1", "UntilClose ends");
        check("1.1", "Content-Length: +1", "UntilClose ends");
        check("1.1", "Content-Length: 99999999999999999999", "UntilClose ends");
    }

    #[test]
    fn what_is_no_head_is_refused() {
        let long = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "b".repeat(200));
        let endless = format!("GET /{}", "a".repeat(200));
        let empty = "\r\n".repeat(101);
        for (text, expected) in [
            (" GET / HTTP/1.1\r\n\r\n", Unreadable::Malformed),
            ("GET / HTTP/2.0\r\n\r\n", Unreadable::Malformed),
            ("GET  / HTTP/1.1\r\n\r\n", Unreadable::Malformed),
            ("GET / HTTP/1.1\r\nA : b\r\n\r\n", Unreadable::Malformed),
            ("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", Unreadable::Malformed),
            ("GET / HTTP/1.1\r\nA: b\0\r\n\r\n", Unreadable::Malformed),
            ("GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", Unreadable::Malformed),
            ("GET http:// HTTP/1.1\r\n\r\n", Unreadable::Target),
            ("GET /<a> HTTP/1.1\r\n\r\n", Unreadable::Target),
            ("\nGET / HTTP/1.1\r\n\r\n", Unreadable::LineEnd),
            ("\rGET / HTTP/1.1\r\n\r\n", Unreadable::LineEnd),
            ("GET / HTTP/1.1\r\nA: 1\r\nA: 1\r\nA: 1\r\nA: 1\r\nA: 1\r\n\r\n", Unreadable::TooLarge),
            (long.as_str(), Unreadable::TooLarge),
            (endless.as_str(), Unreadable::TooLarge),
            (empty.as_str(), Unreadable::TooLarge),
        ] {
            check(text, Err(expected));
        }
        check("GET / HTTP/1.1\r\nA: b\r\n", Ok(None));
        check("\r\n\r", Ok(None));
        check("", Ok(None));
    }

    #[test]
    fn many_fields_are_read_where_they_may_be() {
        let text = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(150));
        let check = |max_fields, expected| {
            let limits = HeadLimits { max_bytes: 10_000, max_fields };
            let head = RequestReader::default().read(&mut BytesMut::from(text.as_str()), limits);
            assert_eq!(head.is_ok_and(|head| head.is_some()), expected, "{max_fields}");
        };
        check(149, false);
        check(150, true);
    }
}
