//! The byte stream to an endpoint: TCP or a Unix socket, in clear text or within TLS.

use std::io;
use std::task::{Context, Poll};

use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use crate::carried::carry_bytes;

/// A socket.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A socket as HTTP uses it.
pub(crate) enum Wire {
    Clear(Socket),
    /// On the heap: its buffers are large, and most connections have none.
    Tls(Box<TlsStream<Socket>>),
}

impl Socket {
    /// Reads what is there, without waiting. What has never been announced is not asked for.
    pub(crate) fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(buf),
            Self::Unix(stream) => stream.try_read(buf),
        }
    }

    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
        }
    }

    /// All that was sent has arrived at the other end. Whoever closes with something unread sends a reset, so that an
    /// orderly end after that means that it was read (RFC 9293 §3.10.4).
    fn is_acknowledged(&self) -> bool {
        match self {
            Self::Tcp(stream) => unacknowledged_bytes(stream) == Some(0),
            Self::Unix(_) => false,
        }
    }
}

/// Bytes of a TCP connection that were sent, or are to be, and that the other end has not acknowledged (`SIOCOUTQ`).
#[allow(unsafe_code, reason = "the system call has no safe form")]
fn unacknowledged_bytes(stream: &TcpStream) -> Option<i32> {
    const SIOCOUTQ: rustix::ioctl::Opcode = 0x5411;
    // SAFETY: for a TCP socket this writes one `int`, and nothing else (tcp(7)).
    unsafe { rustix::ioctl::ioctl(stream, rustix::ioctl::Getter::<SIOCOUTQ, i32>::new()) }.ok()
}

impl Wire {
    /// Ready when reading may be worth it. Within TLS only reading can tell.
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Clear(socket) => socket.poll_read_ready(cx),
            Self::Tls(_) => Poll::Ready(Ok(())),
        }
    }

    /// The other end has taken all that was sent.
    pub(crate) fn is_acknowledged(&self) -> bool {
        match self {
            Self::Clear(socket) => socket.is_acknowledged(),
            Self::Tls(stream) => stream.get_ref().0.is_acknowledged(),
        }
    }

    /// The TLS handshake has settled on HTTP/2.
    pub(crate) fn has_agreed_on_h2(&self) -> bool {
        matches!(self, Self::Tls(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2"))
    }
}

carry_bytes!(Socket, Socket::Tcp | Socket::Unix);
carry_bytes!(Wire, Wire::Clear | Wire::Tls);
