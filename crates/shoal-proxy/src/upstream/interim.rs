//! Interim answers of an endpoint (1xx): a few short ones are skipped, more end the connection. The codec would skip them
//! for ever.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::joined::poll_write_joined;

/// Interim answers to one request.
const MAX_INTERIM: u32 = 10;
/// Bytes of them all, and of empty lines before any answer.
const MAX_INTERIM_BYTES: usize = 64 << 10;
/// Where the status stands in `HTTP/1.1 200`.
const STATUS_AT: u8 = 9;

/// Looks at the beginnings of answers until there is a final one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct InterimScan {
    stage: Stage,
    count: u32,
    /// Everything before the status of the final answer is known.
    bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// So many bytes of a status line, and the status so far.
    StatusLine(u8, u16),
    /// The rest of an interim answer; the line so far is empty.
    Fields(bool),
    Final,
}

impl InterimScan {
    const START: Self = Self { stage: Stage::StatusLine(0, 0), count: 0, bytes: 0 };

    /// Takes in the next bytes; `false` = too many interim answers, or too long ones.
    fn feed(&mut self, bytes: &[u8]) -> bool {
        for byte in bytes {
            self.stage = match self.stage {
                Stage::Final => break,
                // The codec skips empty lines before an answer.
                Stage::StatusLine(0, _) if matches!(byte, b'\r' | b'\n') => Stage::StatusLine(0, 0),
                Stage::StatusLine(place, status) if place < STATUS_AT + 2 => {
                    let digit = u16::from(byte.wrapping_sub(b'0')) * u16::from(place >= STATUS_AT);
                    Stage::StatusLine(place + 1, status * 10 + digit)
                }
                Stage::StatusLine(_, status) => match status * 10 + u16::from(byte.wrapping_sub(b'0')) {
                    100 | 102..=199 => {
                        self.count += 1;
                        Stage::Fields(false)
                    }
                    _ => Stage::Final,
                },
                Stage::Fields(true) if *byte == b'\n' => Stage::StatusLine(0, 0),
                Stage::Fields(empty) => Stage::Fields(*byte == b'\n' || empty && *byte == b'\r'),
            };
            self.bytes += 1;
        }
        self.count <= MAX_INTERIM && self.bytes <= MAX_INTERIM_BYTES
    }
}

/// Tells the stream of a connection that an answer is awaited.
#[derive(Clone, Default)]
pub(super) struct Awaited(Arc<AtomicBool>);

impl Awaited {
    pub(super) fn set(&self) {
        self.0.store(true, Relaxed);
    }
}

/// The byte stream of a connection to an endpoint: counts interim answers, and joins short writes.
pub(super) struct EndpointStream<T> {
    stream: T,
    awaited: Awaited,
    scan: InterimScan,
}

impl<T> EndpointStream<T> {
    pub(super) fn new(stream: T, awaited: Awaited) -> Self {
        Self { stream, awaited, scan: InterimScan::START }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for EndpointStream<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        if this.awaited.0.load(Relaxed) {
            this.awaited.0.store(false, Relaxed);
            this.scan = InterimScan::START;
        }
        if this.scan.feed(&buf.filled()[before..]) {
            Poll::Ready(Ok(()))
        } else {
            Poll::Ready(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "too many or too long interim answers",
            )))
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for EndpointStream<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        poll_write_joined(Pin::new(&mut self.stream), cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_interim_answers_pass() {
        let check = |answers: &str, expected: bool| {
            for piece in [1, 2, 5, 10_000] {
                let mut scan = InterimScan::START;
                let good = answers.as_bytes().chunks(piece).all(|bytes| scan.feed(bytes));
                assert_eq!(good, expected, "{answers:?} by {piece}");
            }
        };
        let hints = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
        let last = "HTTP/1.1 200 OK\r\n\r\n";
        check(last, true);
        check(&format!("{}{last}", hints.repeat(10)), true);
        check(&hints.repeat(11), false);
        check(&format!("{}{last}", hints.repeat(11)), false);
        check(&"HTTP/1.1 100 \r\n\r\n".repeat(11), false);
        check(&format!("{last}{}", hints.repeat(20)), true);
        check(&format!("HTTP/1.1 101 Switching\r\n\r\n{}", hints.repeat(20)), true);
        // Empty lines before an answer hide none of it.
        for empty in ["\r\n", "\n", "\r\n\r\n"] {
            check(&format!("{empty}{last}"), true);
            check(&format!("{}{empty}{last}", format!("{empty}{hints}").repeat(10)), true);
            check(&format!("{empty}{hints}").repeat(11), false);
        }
        let long = |bytes: usize| format!("HTTP/1.1 103 Early Hints\r\nlink: {}\r\n\r\n", "x".repeat(bytes));
        check(&format!("{}{last}", long(60_000)), true);
        check(&long(66_000), false);
        check(&long(7_000).repeat(10), false);
        check(&"\r\n".repeat(40_000), false);
        check(&format!("{last}{}", "x".repeat(100_000)), true);
    }
}
