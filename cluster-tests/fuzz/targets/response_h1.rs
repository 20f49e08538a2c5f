//! Bytes of an endpoint on HTTP/1: answers are read alike in whatever pieces they come, each ends at one place only, and
//! what is read of them can be written, and is read again.
#![no_main]

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::response::Parts;
use http::{HeaderMap, HeaderName, Method, StatusCode, Version};
use libfuzzer_sys::fuzz_target;
use shoal_fuzz::chunks_length;
use shoal_policy::forwarding::{prepare_response, strip_interim};
use shoal_policy::http1::{
    Chunked, Framing, HeadReader, KnownHead, Malformed, Piece, ResponseHead, write_chunk_size,
    write_last_chunk,
};

/// Stands for many of the byte before it: short inputs reach the limits.
const MANY: u8 = 0xff;
const MANY_BYTES: usize = 1_000;
const MAX_BYTES: usize = 200 << 10;
/// Pieces of one input: what waits is looked at again with each.
const MAX_PIECES: usize = 2_000;
/// Most bytes that wait for more.
const MAX_WAITING: usize = 64 << 10;
/// Up to here nothing is near a limit.
const FEW_BYTES: usize = 8 << 10;
/// Ends a head that is not whole: it may be known before that it is malformed, or only then.
const HEAD_END: &[u8] = b"\r\n\r\n";

fuzz_target!(|bytes: &[u8]| {
    let [asked, piece, bytes @ ..] = bytes else { return };
    let asked = if *asked == b'H' { Method::HEAD } else { Method::GET };
    let bytes = expand(bytes);
    let (first, rest) = bytes.split_at(usize::from(*piece).min(bytes.len()));
    let whole = read([&bytes[..], HEAD_END], &asked);
    assert_eq!(read([first, rest, HEAD_END], &asked), whole, "cut at {piece}");
    let piece = usize::from(*piece).max(bytes.len() / MAX_PIECES).max(1);
    assert_eq!(read(bytes.chunks(piece).chain([HEAD_END]), &asked), whole, "by {piece}");
    chunks_end_in_one_place(&bytes);
    if bytes.len() <= FEW_BYTES {
        whole.answers.iter().filter(|answer| answer.is_whole).for_each(|answer| check_again(answer, &asked));
    }
});

fn expand(bytes: &[u8]) -> Vec<u8> {
    let mut expanded = Vec::new();
    for byte in bytes {
        match expanded.last() {
            Some(last) if *byte == MANY => expanded.resize(expanded.len() + MANY_BYTES, *last),
            _ => expanded.push(*byte),
        }
    }
    expanded.truncate(MAX_BYTES);
    expanded
}

/// What is read of a connection.
#[derive(Debug, Default, PartialEq, Eq)]
struct Reading {
    answers: Vec<Answer>,
    is_malformed: bool,
    /// Bytes that nobody has read.
    left: usize,
}

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: StatusCode,
    reason: Option<Bytes>,
    /// Without those that end here.
    fields: HeaderMap,
    framing: Framing,
    data: Vec<u8>,
    trailers: HeaderMap,
    is_whole: bool,
}

/// Reads one answer after another, for as long as the endpoint keeps the connection open.
fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, asked: &'a Method) -> Reading {
    let mut connection = Connection {
        asked,
        came: Vec::new(),
        arrived: BytesMut::new(),
        heads: HeadReader::default(),
        known_head: KnownHead::default(),
        incoming: Incoming::Head,
        persists: true,
        reading: Reading::default(),
    };
    for piece in pieces {
        connection.came.extend_from_slice(piece);
        connection.arrived.extend_from_slice(piece);
        if connection.take().is_err() {
            connection.reading.is_malformed = true;
            return connection.reading;
        }
        let is_read = !matches!(connection.incoming, Incoming::Nothing);
        assert!(!is_read || connection.arrived.len() < MAX_WAITING, "what waits is bounded");
    }
    let mut reading = connection.reading;
    reading.left = connection.arrived.len();
    if let (Incoming::UntilClose, Some(last)) = (&connection.incoming, reading.answers.last_mut()) {
        last.is_whole = true;
    }
    reading
}

struct Connection<'a> {
    asked: &'a Method,
    /// All that has come, and what is left of it.
    came: Vec<u8>,
    arrived: BytesMut,
    heads: HeadReader,
    known_head: KnownHead,
    incoming: Incoming,
    persists: bool,
    reading: Reading,
}

/// What comes next.
enum Incoming {
    Head,
    Length(u64),
    Chunks(Chunked),
    UntilClose,
    Nothing,
}

impl Connection<'_> {
    /// Takes all that can be taken.
    fn take(&mut self) -> Result<(), Malformed> {
        while match self.incoming {
            Incoming::Head => self.take_head()?,
            Incoming::Nothing => false,
            _ => self.take_body()?,
        } {}
        Ok(())
    }

    /// Whether there was one.
    fn take_head(&mut self) -> Result<bool, Malformed> {
        let begin = self.came.len() - self.arrived.len();
        let Some(mut head) = self.heads.read(&mut self.arrived, &mut self.known_head)? else {
            return Ok(false);
        };
        let raw = &self.came[begin..self.came.len() - self.arrived.len()];
        check_framing_fields(raw, &head.parts.headers);
        let status = head.parts.status;
        let is_switch = status == StatusCode::SWITCHING_PROTOCOLS;
        let mut framing = Framing::Empty;
        if is_switch {
            strip_interim(&mut head.parts.headers);
            assert!(!head.parts.headers.contains_key(CONTENT_LENGTH));
            self.persists = false;
        } else if !status.is_informational() {
            let expected = expected_framing(&head.parts, self.asked);
            let prepared = prepare_response(&mut head, self.asked, false);
            assert_eq!(prepared.map(|arrival| arrival.framing).ok(), expected);
            let arrival = prepared.map_err(|_| Malformed::Head)?;
            check_prepared(head.parts.clone(), arrival.framing, self.asked);
            assert!(!arrival.persists || arrival.framing != Framing::UntilClose);
            (framing, self.persists) = (arrival.framing, arrival.persists);
        }
        if is_switch || !status.is_informational() {
            assert!(head.parts.headers.keys().all(|name| !ends_here(name)), "{:?}", head.parts.headers);
        }
        self.incoming = match framing {
            Framing::Empty => Incoming::Length(0),
            Framing::Length(length) => Incoming::Length(length),
            Framing::Chunked => Incoming::Chunks(Chunked::default()),
            Framing::UntilClose => Incoming::UntilClose,
        };
        let (data, trailers, is_whole) = (Vec::new(), HeaderMap::new(), false);
        let (fields, reason) = (head.parts.headers, head.reason);
        self.reading.answers.push(Answer { status, reason, fields, framing, data, trailers, is_whole });
        Ok(true)
    }

    /// Whether it came to its end, or goes on with what is there.
    fn take_body(&mut self) -> Result<bool, Malformed> {
        let answer = self.reading.answers.last_mut().expect("its head was read");
        let is_end = match &mut self.incoming {
            Incoming::Length(left) => {
                let taken = (*left).min(self.arrived.len() as u64);
                answer.data.extend_from_slice(&self.arrived.split_to(taken as usize));
                *left -= taken;
                if *left > 0 {
                    return Ok(false);
                }
                true
            }
            Incoming::Chunks(chunked) => match chunked.next(&mut self.arrived)? {
                None => return Ok(false),
                Some(Piece::Data(data)) => {
                    assert!(!data.is_empty(), "it goes on");
                    answer.data.extend_from_slice(&data);
                    chunked.is_end()
                }
                Some(Piece::Trailers(trailers)) => {
                    assert!(!trailers.is_empty() && chunked.is_end());
                    answer.trailers = trailers;
                    true
                }
                Some(Piece::End) => true,
            },
            Incoming::UntilClose => {
                answer.data.extend_from_slice(&self.arrived.split());
                return Ok(false);
            }
            Incoming::Head | Incoming::Nothing => return Ok(false),
        };
        if is_end {
            answer.is_whole = true;
            self.incoming = if self.persists { Incoming::Head } else { Incoming::Nothing };
        }
        Ok(true)
    }
}

/// No line of a head that anybody could take for one of those that frame it is lost.
fn check_framing_fields(raw: &[u8], fields: &HeaderMap) {
    for name in [&CONTENT_LENGTH, &TRANSFER_ENCODING] {
        let is_that = |line: &&[u8]| {
            let before_colon = line.split(|byte| *byte == b':').next().unwrap_or_default();
            before_colon.trim_ascii().eq_ignore_ascii_case(name.as_str().as_bytes())
        };
        let lines = raw.split(|byte| matches!(byte, b'\r' | b'\n')).filter(is_that).count();
        assert_eq!(fields.get_all(name).iter().count(), lines, "{}", raw.escape_ascii());
    }
}

/// How an answer has to be read (RFC 9112 §6.3); `None` = it must be refused.
fn expected_framing(head: &Parts, asked: &Method) -> Option<Framing> {
    let lines = |name| head.headers.get_all(name).iter().map(|value| value.as_bytes()).collect::<Vec<_>>();
    let framing = match (&lines(&TRANSFER_ENCODING)[..], &lines(&CONTENT_LENGTH)[..]) {
        ([], []) => Framing::UntilClose,
        ([coding], []) if coding.eq_ignore_ascii_case(b"chunked") && head.version == Version::HTTP_11 => {
            Framing::Chunked
        }
        ([], [length, others @ ..]) if others.iter().all(|other| other == length) => {
            let digits = std::str::from_utf8(length).ok().filter(|text| !text.starts_with('+'))?;
            Framing::Length(digits.parse().ok()?)
        }
        _ => return None,
    };
    let is_empty = *asked == Method::HEAD || [204, 304].contains(&head.status.as_u16());
    Some(if is_empty { Framing::Empty } else { framing })
}

/// What the downstream is told of the length is what is read, and nothing is left to do.
fn check_prepared(head: Parts, framing: Framing, asked: &Method) {
    let lengths: Vec<_> = head.headers.get_all(CONTENT_LENGTH).iter().map(|length| length.to_str()).collect();
    match (framing, &lengths[..]) {
        (Framing::Empty, [] | [Ok(_)]) | (Framing::Chunked | Framing::UntilClose, []) => {}
        (Framing::Length(length), [Ok(text)]) => assert_eq!(text.parse(), Ok(length)),
        _ => panic!("{framing:?}, but {lengths:?}"),
    }
    let fields = head.headers.clone();
    let mut head = ResponseHead::from(head);
    prepare_response(&mut head, asked, false).expect("what passed, passes");
    assert_eq!(head.parts.headers, fields);
}

fn ends_here(name: &HeaderName) -> bool {
    let name = name.as_str();
    let hop =
        ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];
    hop.contains(&name) || name.starts_with("shoal-")
}

/// Writes an answer and reads it.
fn check_again(answer: &Answer, asked: &Method) {
    let reason = answer.status.canonical_reason().unwrap_or_default().as_bytes();
    let reason = answer.reason.as_deref().unwrap_or(reason);
    let mut text = [b"HTTP/1.1 ", answer.status.as_str().as_bytes(), b" ", reason, b"\r\n"].concat();
    for (name, value) in &answer.fields {
        text.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    if answer.framing == Framing::Chunked {
        text.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    text.extend_from_slice(b"\r\n");
    match answer.framing {
        Framing::Chunked => {
            for data in answer.data.chunks(100) {
                write_chunk_size(&mut text, data.len());
                text.extend_from_slice(data);
                text.extend_from_slice(b"\r\n");
            }
            write_last_chunk(&mut text, &answer.trailers);
        }
        _ => text.extend_from_slice(&answer.data),
    }
    let again = read([&text[..]], asked);
    assert!(!again.is_malformed && again.left == 0, "{}", text.escape_ascii());
    assert_eq!(again.answers.iter().collect::<Vec<_>>(), [answer], "{}", text.escape_ascii());
}

/// A narrow reader of chunks does not find another end.
fn chunks_end_in_one_place(bytes: &[u8]) {
    let (mut chunked, mut arrived) = (Chunked::default(), BytesMut::from(bytes));
    let end = loop {
        match chunked.next(&mut arrived) {
            Ok(Some(Piece::End)) => break Some(bytes.len() - arrived.len()),
            Ok(Some(Piece::Data(_) | Piece::Trailers(_))) => {}
            Ok(None) => break None,
            Err(_) => return,
        }
    };
    if let Some(narrow) = chunks_length(bytes) {
        assert_eq!(end, Some(narrow));
    }
}
