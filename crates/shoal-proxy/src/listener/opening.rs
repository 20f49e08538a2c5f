//! The socket of a TLS connection, which looks at its first byte: plain HTTP is told apart before TLS has complained of it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Content type of the first record of a TLS connection (RFC 8446 §5.1).
const HANDSHAKE: u8 = 22;

/// Whether a connection that begins with these bytes wants to speak TLS.
pub(super) fn is_tls(first: &[u8]) -> bool {
    first.first() == Some(&HANDSHAKE)
}

/// A stream that fails at once when the other side speaks plain HTTP.
pub(super) struct Opening<T> {
    stream: T,
    first: First,
}

/// The first byte.
#[derive(Clone, Copy, PartialEq, Eq)]
enum First {
    Unread,
    /// A letter, as every request of plain HTTP begins with one.
    Letter,
    Other,
}

impl<T> Opening<T> {
    pub(super) fn new(stream: T) -> Self {
        Self { stream, first: First::Unread }
    }

    /// The stream, if plain HTTP is spoken on it.
    pub(super) fn into_plain(self) -> Option<T> {
        (self.first == First::Letter).then_some(self.stream)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Opening<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first == First::Other {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if let Some(first) = buf.filled().get(before) {
            self.first = if first.is_ascii_alphabetic() { First::Letter } else { First::Other };
        }
        match self.first {
            First::Letter => Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
            First::Unread | First::Other => Poll::Ready(Ok(())),
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Opening<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
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
