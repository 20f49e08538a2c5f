//! The chunked coding (RFC 9112 §7.1).

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::ends::has_bare_line_feed;
use super::request_head::write_fields;
use super::{Malformed, Spelling};

/// Longest line that tells the size of a chunk, bytes.
const MAX_SIZE_LINE: usize = 4 << 10;
/// Bytes of extensions in a whole body: they are passed over, and somebody has to read them.
const MAX_EXTENSION_BYTES: usize = 16 << 10;
/// Bytes of trailers.
const MAX_TRAILER_BYTES: usize = 16 << 10;
/// Most trailers.
const MAX_TRAILERS: usize = 64;
/// Chunks of fewer bytes are joined with those that follow: whoever passes them on pays for each piece. Bytes.
const SMALL: usize = 512;
/// Bytes of small chunks that are joined at most.
const MAX_JOINED: usize = 8 << 10;
/// The end of a body without trailers.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Takes the chunks of one body apart.
#[derive(Debug, Default)]
pub struct Chunked {
    stage: Stage,
    extension_bytes: usize,
    count: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Size,
    /// So many bytes of this chunk are to come.
    Data(u64),
    /// The line end after the data.
    DataEnd,
    Trailers,
    End,
}

/// What a body is made of.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// Some of a chunk.
    Data(Bytes),
    /// What comes after all chunks; never empty.
    Trailers(HeaderMap),
    /// There is no more.
    End,
}

impl Chunked {
    /// Nothing more belongs to the body.
    pub fn is_end(&self) -> bool {
        self.stage == Stage::End
    }

    /// Chunks that have begun so far, the last one included.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Takes the next piece off `arrived`; `None` = more bytes are needed.
    ///
    /// # Errors
    /// The bytes are no chunks, or have more beside them than the limits allow.
    pub fn next(&mut self, arrived: &mut BytesMut) -> Result<Option<Piece>, Malformed> {
        loop {
            match self.stage {
                Stage::Size => {
                    let Some(size) = self.take_size(arrived)? else { return Ok(None) };
                    self.stage = if size == 0 { Stage::Trailers } else { Stage::Data(size) };
                }
                Stage::Data(_) if arrived.is_empty() => return Ok(None),
                Stage::Data(left) => {
                    let taken = left.min(arrived.len() as u64);
                    let data = arrived.split_to(taken as usize).freeze();
                    self.stage = if taken == left { Stage::DataEnd } else { Stage::Data(left - taken) };
                    self.look_ahead(arrived);
                    let is_alone = data.len() >= SMALL || self.stage != Stage::Size || arrived.is_empty();
                    let data = if is_alone { data } else { self.join(data, arrived) };
                    return Ok(Some(Piece::Data(data)));
                }
                Stage::DataEnd => match arrived.as_ref() {
                    [b'\r', b'\n', ..] => {
                        arrived.advance(2);
                        self.stage = Stage::Size;
                    }
                    [] | [b'\r'] => return Ok(None),
                    _ => return Err(Malformed::Chunk),
                },
                Stage::Trailers => {
                    let Some(trailers) = take_trailers(arrived)? else { return Ok(None) };
                    self.stage = Stage::End;
                    if !trailers.is_empty() {
                        return Ok(Some(Piece::Trailers(trailers)));
                    }
                }
                Stage::End => return Ok(Some(Piece::End)),
            }
        }
    }

    /// The small chunks that follow `first` and have come whole, in one piece with it. What is malformed behind them is found
    /// when it is asked for: they are good.
    fn join(&mut self, first: Bytes, arrived: &mut BytesMut) -> Bytes {
        let mut joined = Vec::from(first);
        while self.stage == Stage::Size && joined.len() < MAX_JOINED {
            let Ok(Some(size)) = self.take_size(arrived) else { break };
            self.stage = if size == 0 { Stage::Trailers } else { Stage::Data(size) };
            if size >= SMALL as u64 || (arrived.len() as u64) < size {
                break;
            }
            if size > 0 {
                joined.extend_from_slice(&arrived.split_to(size as usize));
                self.stage = Stage::DataEnd;
                self.look_ahead(arrived);
            }
        }
        joined.into()
    }

    /// Sees the end of the body with its last chunk, if it is there: nobody has to ask again.
    fn look_ahead(&mut self, arrived: &mut BytesMut) {
        if self.stage == Stage::DataEnd && arrived.starts_with(b"\r\n") {
            arrived.advance(2);
            self.stage = Stage::Size;
            if arrived.starts_with(LAST_CHUNK) {
                arrived.advance(LAST_CHUNK.len());
                self.stage = Stage::End;
            }
        }
    }

    /// Takes a line with the size of a chunk; extensions are passed over.
    fn take_size(&mut self, arrived: &mut BytesMut) -> Result<Option<u64>, Malformed> {
        let window = &arrived[..arrived.len().min(MAX_SIZE_LINE)];
        let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
            return if window.len() < MAX_SIZE_LINE { Ok(None) } else { Err(Malformed::ChunkOverhead) };
        };
        let line = window[..end].strip_suffix(b"\r").ok_or(Malformed::Chunk)?;
        let digits = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
        let (digits, extension) = line.split_at(digits);
        let size = std::str::from_utf8(digits).ok().and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let size = size.ok_or(Malformed::Chunk)?;
        if !is_extension(extension) {
            return Err(Malformed::Chunk);
        }
        self.extension_bytes += extension.len();
        if self.extension_bytes > MAX_EXTENSION_BYTES {
            return Err(Malformed::ChunkOverhead);
        }
        arrived.advance(end + 1);
        self.count += 1;
        Ok(Some(size))
    }
}

/// Blanks, and then perhaps `;` with anything but control characters.
fn is_extension(bytes: &[u8]) -> bool {
    let blanks = bytes.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let rest = &bytes[blanks..];
    rest.is_empty() || (rest[0] == b';' && rest.iter().all(|byte| *byte == b'\t' || !byte.is_ascii_control()))
}

/// Takes the trailers and the empty line after them.
fn take_trailers(arrived: &mut BytesMut) -> Result<Option<HeaderMap>, Malformed> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_TRAILERS];
    match httparse::parse_headers(arrived, &mut fields) {
        Ok(httparse::Status::Complete((length, _))) if has_bare_line_feed(&arrived[..length]) => {
            Err(Malformed::Chunk)
        }
        Ok(httparse::Status::Complete((length, fields))) if length <= MAX_TRAILER_BYTES => {
            let mut trailers = HeaderMap::with_capacity(fields.len());
            for field in fields {
                let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed::Chunk)?;
                let value = HeaderValue::from_bytes(field.value).map_err(|_| Malformed::Chunk)?;
                trailers.append(name, value);
            }
            arrived.advance(length);
            Ok(Some(trailers))
        }
        Ok(httparse::Status::Partial) if arrived.len() < MAX_TRAILER_BYTES => Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => Err(Malformed::ChunkOverhead),
        Err(_) => Err(Malformed::Chunk),
    }
}

/// Appends the line before a chunk of `size` bytes; after the chunk comes a line end.
pub fn write_chunk_size(out: &mut Vec<u8>, size: usize) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let first = size.checked_ilog2().unwrap_or(0) / 4;
    for place in (0..=first).rev() {
        out.push(DIGITS[(size >> (4 * place)) & 15]);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the end of a body, with its trailers.
pub fn write_last_chunk(out: &mut Vec<u8>, trailers: &HeaderMap) {
    out.extend_from_slice(b"0\r\n");
    write_fields(out, trailers, Spelling::Lower);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `text`, which arrives in pieces; answers with the data, the trailers and what is left over.
    fn read_in_pieces(text: &[u8], piece: usize) -> Result<Option<(String, String, usize)>, Malformed> {
        let (mut chunked, mut arrived) = (Chunked::default(), BytesMut::new());
        let (mut data, mut trailers) = (Vec::new(), String::new());
        let mut pieces = text.chunks(piece);
        loop {
            while let Some(next) = chunked.next(&mut arrived)? {
                match next {
                    Piece::Data(bytes) => data.extend_from_slice(&bytes),
                    Piece::Trailers(fields) => {
                        for (name, value) in &fields {
                            trailers += &format!("{name}={};", value.to_str().unwrap());
                        }
                    }
                    Piece::End => {
                        let left = arrived.len() + pieces.map(<[u8]>::len).sum::<usize>();
                        return Ok(Some((String::from_utf8(data).unwrap(), trailers, left)));
                    }
                }
            }
            match pieces.next() {
                Some(bytes) => arrived.extend_from_slice(bytes),
                None => return Ok(None),
            }
        }
    }

    #[test]
    fn what_came_before_something_malformed_is_good() {
        for malformed in ["x", "1;\u{1}\r\n", "\r\n"] {
            let mut arrived = BytesMut::from(format!("1\r\na\r\n2\r\nbc\r\n{malformed}\r\n").as_str());
            let mut chunked = Chunked::default();
            let first = chunked.next(&mut arrived);
            assert!(
                matches!(&first, Ok(Some(Piece::Data(data))) if data == "abc"),
                "{malformed:?}: {first:?}"
            );
            assert_eq!(chunked.next(&mut arrived).err(), Some(Malformed::Chunk), "{malformed:?}");
        }
    }

    #[test]
    fn bodies() {
        let check = |text: &str, expected: Result<Option<(&str, &str, usize)>, Malformed>| {
            for piece in [1, 2, 3, 5, text.len()] {
                let seen = read_in_pieces(text.as_bytes(), piece);
                let expected =
                    expected.map(|body| body.map(|(data, fields, left)| (data.into(), fields.into(), left)));
                assert_eq!(seen, expected, "{text:?} by {piece}");
            }
        };
        check("0\r\n\r\n", Ok(Some(("", "", 0))));
        check("5\r\nhello\r\n0\r\n\r\n", Ok(Some(("hello", "", 0))));
        check("5\r\nhello\r\nA\r\n, world!!!\r\n000\r\n\r\nmore", Ok(Some(("hello, world!!!", "", 4))));
        check("5;a=b;c=\"d\"\r\nhello\r\n0;x\r\n\r\n", Ok(Some(("hello", "", 0))));
        check("5 \t\r\nhello\r\n0 ;x\r\n\r\n", Ok(Some(("hello", "", 0))));
        check("1\r\na\r\n0\r\nDigest: b\r\nX: c\r\n\r\n", Ok(Some(("a", "digest=b;x=c;", 0))));
        check("5\r\nhel", Ok(None));
        check("5\r\nhello\r\n0\r\nX: c\r\n", Ok(None));
        for malformed in [
            "\r\n",
            "x\r\n",
            "-1\r\na\r\n",
            "0x1\r\na\r\n",
            "1\na\r\n",
            "1\r\nab\r\n",
            "1\r\na\n0\r\n\r\n",
            " 1\r\na\r\n",
            "1 1\r\na\r\n",
            "1;\x01\r\na\r\n",
            "1;\r\r\na\r\n",
            "10000000000000000\r\na",
            "0\r\nno colon\r\n\r\n",
        ] {
            check(malformed, Err(Malformed::Chunk));
        }
    }

    #[test]
    fn what_is_beside_the_chunks_has_limits() {
        let check = |text: String, expected: Option<Malformed>| {
            for piece in [1000, text.len()] {
                assert_eq!(read_in_pieces(text.as_bytes(), piece).err(), expected, "{piece}");
            }
        };
        let extended = |bytes: usize| format!("1;{}\r\na\r\n", "x".repeat(bytes));
        check(extended(4000) + "0\r\n\r\n", None);
        check(extended(5000), Some(Malformed::ChunkOverhead));
        check(extended(4000).repeat(5), Some(Malformed::ChunkOverhead));
        check(format!("0\r\nX: {}\r\n\r\n", "x".repeat(16_000)), None);
        check(format!("0\r\nX: {}\r\n\r\n", "x".repeat(17_000)), Some(Malformed::ChunkOverhead));
        check(format!("0\r\n{}\r\n", "x: y\r\n".repeat(65)), Some(Malformed::ChunkOverhead));
    }

    #[test]
    fn small_chunks_come_together() {
        let check = |text: String, expected: &[usize]| {
            let (mut chunked, mut arrived) = (Chunked::default(), BytesMut::from(text.as_str()));
            let pieces = std::iter::from_fn(|| match chunked.next(&mut arrived).unwrap() {
                Some(Piece::Data(data)) => Some(data.len()),
                Some(Piece::Trailers(_) | Piece::End) | None => None,
            });
            assert_eq!(pieces.collect::<Vec<_>>(), expected, "{text:.40}");
        };
        let tiny = |count: usize| "1\r\na\r\n".repeat(count);
        let large = format!("{SMALL:x}\r\n{}\r\n", "b".repeat(SMALL));
        check(tiny(100) + "0\r\n\r\n", &[100]);
        check(tiny(100) + "0\r\nX: y\r\n\r\n", &[100]);
        check(tiny(100), &[100]);
        check(tiny(3) + "5\r\nhel", &[3, 3]);
        check(tiny(2) + &large + &tiny(2), &[2, SMALL, 2]);
        check(tiny(2 * MAX_JOINED), &[MAX_JOINED, MAX_JOINED]);
    }

    #[test]
    fn the_end_is_seen_with_the_last_chunk() {
        let mut chunked = Chunked::default();
        let mut arrived = BytesMut::from("5\r\nhello\r\n0\r\n\r\n");
        assert_eq!(chunked.next(&mut arrived), Ok(Some(Piece::Data(Bytes::from_static(b"hello")))));
        assert!(chunked.is_end() && arrived.is_empty());
    }

    #[test]
    fn what_is_written_is_read() {
        for size in [1, 9, 10, 15, 16, 255, 256, 4096, 70_000] {
            let mut out = Vec::new();
            write_chunk_size(&mut out, size);
            assert_eq!(out, format!("{size:x}\r\n").into_bytes());
            out.extend(vec![b'a'; size]);
            out.extend_from_slice(b"\r\n");
            let trailers =
                HeaderMap::from_iter([(HeaderName::from_static("x"), HeaderValue::from_static("1"))]);
            write_last_chunk(&mut out, &trailers);
            assert_eq!(read_in_pieces(&out, 999), Ok(Some(("a".repeat(size), "x=1;".into(), 0))));
        }
    }
}
