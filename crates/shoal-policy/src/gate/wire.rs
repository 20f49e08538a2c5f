//! What only the raw bytes of requests show: the parser hides it.

/// What the raw bytes of a head showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wire {
    /// A line ended in LF without CR.
    pub bare_line_feed: bool,
    /// `Content-Length` beside `Transfer-Encoding`: the parser drops the former.
    pub length_and_transfer_encoding: bool,
    /// `Content-Length` twice: of equal ones the parser drops the second.
    pub repeated_length: bool,
    /// Where the message before it ended could not be told.
    pub unclear_begin: bool,
    /// The request line has a `#`: the parser drops a fragment.
    pub fragment: bool,
}

impl Wire {
    /// Nothing is wrong with it.
    pub fn is_clean(self) -> bool {
        self == Self::default()
    }
}

/// The fields that frame a body, with their colons.
const LENGTH: &[u8] = b"content-length:";
const CODING: &[u8] = b"transfer-encoding:";
/// Most digits of a chunk size: as many as are worth something, and as many zeros before them.
const MAX_SIZE_DIGITS: u8 = 32;

/// Reads what a connection brings, in pieces of any size: head after head, and where each body ends. It stops at the
/// first head that is not clean, for the connection ends there, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WireScan {
    stage: Stage,
    /// Heads so far, the present one included.
    heads: u64,
    wire: Wire,
    previous: u8,
    /// Bytes of the line so far, without its end.
    line_len: usize,
    /// The line is the request line.
    is_first: bool,
    /// Which framing field the line may be, and how many bytes of its name have come.
    candidate: Option<Candidate>,
    length: Option<u64>,
    is_chunked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Candidate {
    Length(usize),
    Coding(usize),
    /// Within the value of `Content-Length`.
    LengthValue(u64),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Empty lines may come first (RFC 9112 §2.2).
    #[default]
    Before,
    Head,
    /// A body of known length: bytes that are left.
    Body(u64),
    /// A line with the size of a chunk: the size so far, its digits, and whether they have ended.
    ChunkSize(u64, u8, bool),
    /// A chunk and the CR LF behind it: bytes that are left.
    Chunk(u64),
    /// Trailers, up to an empty line.
    Trailers,
    /// Whatever comes is not looked at.
    Stopped,
}

impl WireScan {
    /// The first head that is not clean, counted from 1, and what it showed.
    pub fn fault(&self) -> Option<(u64, Wire)> {
        (!self.wire.is_clean()).then_some((self.heads, self.wire))
    }

    /// How many requests came whole, if nothing of another one has come.
    pub fn whole_requests(&self) -> Option<u64> {
        (self.stage == Stage::Before).then_some(self.heads)
    }

    /// Takes in the next bytes.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = match self.stage {
                Stage::Stopped => return,
                Stage::Before | Stage::Head => self.feed_head(bytes),
                Stage::Body(left) => {
                    let taken = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                    self.stage = match left - taken as u64 {
                        0 => Stage::Before,
                        left => Stage::Body(left),
                    };
                    taken
                }
                Stage::Chunk(left) => {
                    let taken = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                    self.stage = match left - taken as u64 {
                        0 => Stage::ChunkSize(0, 0, false),
                        left => Stage::Chunk(left),
                    };
                    taken
                }
                Stage::ChunkSize(size, digits, ended) => {
                    self.feed_size(bytes[0], size, digits, ended);
                    1
                }
                Stage::Trailers => {
                    self.feed_trailers(bytes[0]);
                    1
                }
            };
            bytes = &bytes[taken..];
        }
    }

    /// Reads up to the end of a head; answers how many bytes that took.
    fn feed_head(&mut self, bytes: &[u8]) -> usize {
        let mut place = 0;
        while let Some(byte) = bytes.get(place).copied() {
            place += 1;
            match byte {
                b'\n' => {
                    if self.previous != b'\r' {
                        return self.meet_bare_line_feed(bytes.len());
                    }
                    let is_end = self.line_len == 0 && self.stage == Stage::Head;
                    self.end_line();
                    if is_end {
                        self.end_head();
                        return place;
                    }
                }
                b'\r' => {}
                byte => self.feed_line(byte),
            }
            self.previous = byte;
            if self.candidate.is_none() && self.line_len > 0 {
                // Nothing in the rest of the line matters but its end.
                let rest = &bytes[place..];
                let skipped = rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
                self.wire.fragment |= self.is_first && rest[..skipped].contains(&b'#');
                self.previous = rest[..skipped].last().copied().unwrap_or(self.previous);
                place += skipped;
            }
        }
        place
    }

    /// It may stand before a head, too: then it is the head's.
    fn meet_bare_line_feed(&mut self, taken: usize) -> usize {
        self.heads += u64::from(self.stage == Stage::Before);
        self.wire.bare_line_feed = true;
        self.stage = Stage::Stopped;
        taken
    }

    fn feed_line(&mut self, byte: u8) {
        if self.stage == Stage::Before {
            (self.length, self.is_chunked, self.candidate) = (None, false, None);
            self.heads += 1;
            self.stage = Stage::Head;
            self.is_first = true;
        }
        self.wire.fragment |= self.is_first && byte == b'#';
        let lower = byte.to_ascii_lowercase();
        if self.line_len == 0 {
            self.candidate = match lower {
                b'c' => Some(Candidate::Length(1)),
                b't' => Some(Candidate::Coding(1)),
                _ => None,
            };
        } else if let Some(candidate) = self.candidate {
            self.candidate = match candidate {
                Candidate::Length(seen) if lower != LENGTH[seen] => None,
                Candidate::Length(seen) if seen + 1 < LENGTH.len() => Some(Candidate::Length(seen + 1)),
                Candidate::Length(_) => Some(Candidate::LengthValue(0)),
                Candidate::Coding(seen) if lower != CODING[seen] => None,
                Candidate::Coding(seen) if seen + 1 < CODING.len() => Some(Candidate::Coding(seen + 1)),
                Candidate::Coding(_) => {
                    self.is_chunked = true;
                    None
                }
                // What is no plain number is refused by the parser or by the gate.
                Candidate::LengthValue(value) => Some(Candidate::LengthValue(match byte {
                    b'0'..=b'9' => value.saturating_mul(10).saturating_add(u64::from(byte - b'0')),
                    _ => value,
                })),
            };
        }
        self.line_len += 1;
    }

    fn end_line(&mut self) {
        if let Some(Candidate::LengthValue(value)) = self.candidate.take() {
            self.wire.repeated_length |= self.length.is_some();
            self.length = Some(value);
        }
        self.line_len = 0;
        self.is_first = false;
    }

    fn end_head(&mut self) {
        // Nothing before the next head is the beginning of a line end.
        self.previous = b'\n';
        self.wire.length_and_transfer_encoding |= self.is_chunked && self.length.is_some();
        self.stage = match self.length {
            _ if !self.wire.is_clean() => Stage::Stopped,
            _ if self.is_chunked => Stage::ChunkSize(0, 0, false),
            None | Some(0) => Stage::Before,
            Some(length) => Stage::Body(length),
        };
    }

    fn feed_size(&mut self, byte: u8, size: u64, digits: u8, ended: bool) {
        let digit = char::from(byte).to_digit(16).map(u64::from);
        self.stage = match (byte, digit) {
            (b'\n', _) if digits > 0 && self.previous == b'\r' => {
                if size == 0 {
                    self.line_len = 0;
                    Stage::Trailers
                } else {
                    Stage::Chunk(size.saturating_add(2))
                }
            }
            (b'\n', _) => return self.lose(),
            (_, Some(digit)) if !ended && digits < MAX_SIZE_DIGITS && size <= u64::MAX >> 4 => {
                Stage::ChunkSize(size << 4 | digit, digits + 1, false)
            }
            (_, Some(_)) if !ended => return self.lose(),
            _ => Stage::ChunkSize(size, digits, true),
        };
        self.previous = byte;
    }

    fn feed_trailers(&mut self, byte: u8) {
        match byte {
            b'\n' if self.previous != b'\r' => return self.lose(),
            b'\n' if self.line_len == 0 => self.stage = Stage::Before,
            b'\n' => self.line_len = 0,
            b'\r' => {}
            _ => self.line_len += 1,
        }
        self.previous = byte;
    }

    /// The body is not what it should be. The parser will find that, too; if it does not, the next head is refused.
    fn lose(&mut self) {
        self.heads += 1;
        self.wire.unclear_begin = true;
        self.stage = Stage::Stopped;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wrong with `text`, fed in pieces of any size: the number of the head, and the flags of its [`Wire`].
    fn check(text: &str, expected: Option<(u64, &str)>) {
        for piece in [1, 2, 3, 7, 1000] {
            let mut scan = WireScan::default();
            text.as_bytes().chunks(piece).for_each(|bytes| scan.feed(bytes));
            let flags = |wire: Wire| {
                let flag = |set: bool, name: &'static str| if set { name } else { "" };
                flag(wire.bare_line_feed, "L").to_owned()
                    + flag(wire.length_and_transfer_encoding, "T")
                    + flag(wire.repeated_length, "R")
                    + flag(wire.unclear_begin, "?")
                    + flag(wire.fragment, "#")
            };
            let seen = scan.fault().map(|(head, wire)| (head, flags(wire)));
            let expected = expected.map(|(head, flags)| (head, flags.to_owned()));
            assert_eq!(seen, expected, "{text:?} by {piece}");
        }
    }

    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    #[test]
    fn sees_heads_in_any_pieces() {
        check(GET, None);
        check(&format!("\r\n{GET}"), None);
        check("GET / HTTP/1.1\nHost: a\r\n\r\n", Some((1, "L")));
        check("GET / HTTP/1.1\r\nHost: a\r\n\n", Some((1, "L")));
        check("\nGET / HTTP/1.1\r\n", Some((1, "L")));
        check("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", Some((1, "#")));
        check("TRACE # HTTP/1.1\r\nHost: a\r\n\r\n", Some((1, "#")));
        check("GET / HTTP/1.1\r\nx: #\r\nc: #\r\n\r\n", None);
        check(&format!("{GET}GET /#b HTTP/1.1\r\nHost: a\r\n\r\n"), Some((2, "#")));
        check("POST / HTTP/1.1\r\ncontent-LENGTH: 5\r\n\r\nab\ncd", None);
        check("POST / HTTP/1.1\r\nx-content-length: 5\r\ncontent-length: 0\r\n\r\n", None);
        check("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", Some((1, "R")));
        check("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", Some((1, "T")));
        check("POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: x\r\n\r\n", Some((1, "T")));
    }

    #[test]
    fn sees_heads_behind_others() {
        let behind = |first: &str, expected: Option<(u64, &str)>| {
            check(&format!("{first}{GET}"), None);
            check(&format!("{first}GET / HTTP/1.1\nHost: a\r\n\r\n"), expected);
        };
        behind(GET, Some((2, "L")));
        behind(&format!("{GET}{GET}\r\n"), Some((3, "L")));
        behind("POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\n\n\n\n\n", Some((2, "L")));
        behind("POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\n123\r", Some((2, "L")));
        for first in [GET, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n1\r"] {
            check(&format!("{first}\n{GET}"), Some((2, "L")));
        }
        let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        behind(&format!("{chunked}0\r\n\r\n"), Some((2, "L")));
        behind(&format!("{chunked}3;x=1\r\na\nb\r\nA\r\n0123456789\r\n0\r\nx: y\r\n\r\n"), Some((2, "L")));
    }

    #[test]
    fn knows_when_requests_are_whole() {
        let check = |text: &str, expected: Option<u64>| {
            let mut scan = WireScan::default();
            scan.feed(text.as_bytes());
            assert_eq!(scan.whole_requests(), expected, "{text:?}");
        };
        check("", Some(0));
        check("G", None);
        check(GET, Some(1));
        check(&format!("{GET}{GET}\r\n"), Some(2));
        check(&format!("{GET}GET /"), None);
        check("POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\na", None);
        check("POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nab", Some(1));
        check("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", None);
        check("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Some(1));
    }

    #[test]
    fn bodies_without_a_clear_end_leave_the_next_head_in_doubt() {
        let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        for body in ["3\nabc\r\n", "\r\n", "11112222333344445\r\n", "0\r\nx: y\n\r\n"] {
            check(&format!("{chunked}{body}"), Some((2, "?")));
        }
        // Zeros before a size say nothing, up to a bound.
        let after = |size: &str, expected: Option<(u64, &str)>| {
            check(&format!("{chunked}{size}\r\nabc\r\n0\r\n\r\n{GET}"), expected);
        };
        after(&format!("{:016}", 3), None);
        after(&format!("{:032}", 3), None);
        after(&format!("{:033}", 3), Some((2, "?")));
        check(&format!("{chunked}{:032}\r\n\r\n{GET}", 0), None);
        check(&format!("{chunked}{:015}ffffffffffffffff\r\n", 0), None);
        check(&format!("{chunked}{:015}10000000000000000\r\n", 0), Some((2, "?")));
    }
}
