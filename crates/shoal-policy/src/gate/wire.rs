//! What only the raw bytes of a request head show: the parser hides it.

/// What the raw bytes of a head showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wire {
    /// A line ended in LF without CR.
    pub bare_line_feed: bool,
    /// There was a `Content-Length`; the parser drops it beside `Transfer-Encoding`.
    pub has_content_length: bool,
}

/// The field that is looked for, with its colon.
const NAME: &[u8] = b"content-length:";

/// Reads a head as it arrives, in pieces of any size, and stops at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeadScan {
    wire: Wire,
    stage: Stage,
    previous: u8,
    /// Bytes of the line so far, without its end.
    line_len: usize,
    /// How many of them are those of [`NAME`].
    matched: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Empty lines may come first (RFC 9112 §2.2).
    #[default]
    Before,
    Within,
    After,
}

impl HeadScan {
    /// What it saw so far.
    pub fn wire(&self) -> Wire {
        self.wire
    }

    /// Takes in the next bytes; those after the head are not looked at.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.stage == Stage::After {
            return;
        }
        for byte in bytes {
            match *byte {
                b'\n' => {
                    self.wire.bare_line_feed |= self.previous != b'\r';
                    if self.line_len == 0 && self.stage == Stage::Within {
                        self.stage = Stage::After;
                        return;
                    }
                    (self.line_len, self.matched) = (0, 0);
                }
                b'\r' => {}
                byte => {
                    if self.line_len == self.matched
                        && NAME.get(self.matched).is_some_and(|b| *b == byte.to_ascii_lowercase())
                    {
                        self.matched += 1;
                        self.wire.has_content_length |= self.matched == NAME.len();
                    }
                    self.line_len += 1;
                    self.stage = Stage::Within;
                }
            }
            self.previous = *byte;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_heads_in_any_pieces() {
        let check = |head: &str, bare_line_feed, has_content_length| {
            for piece in [1, 2, 3, 7, 1000] {
                let mut scan = HeadScan::default();
                head.as_bytes().chunks(piece).for_each(|bytes| scan.feed(bytes));
                assert_eq!(scan.wire(), Wire { bare_line_feed, has_content_length }, "{head:?} by {piece}");
            }
        };
        check("GET / HTTP/1.1\r\nHost: a\r\n\r\n", false, false);
        check("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", false, false);
        check("GET / HTTP/1.1\nHost: a\r\n\r\n", true, false);
        check("GET / HTTP/1.1\r\nHost: a\r\n\n", true, false);
        check("POST / HTTP/1.1\r\ncontent-LENGTH: 5\r\n\r\nab\ncd", false, true);
        check("POST / HTTP/1.1\r\nx-content-length: 5\r\n\r\n", false, false);
        check("POST / HTTP/1.1\r\nHost: a\r\n\r\ncontent-length: 1\r\n", false, false);
    }
}
