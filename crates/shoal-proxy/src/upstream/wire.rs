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
}

impl Wire {
    /// Ready when reading may be worth it. Within TLS only reading can tell.
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Clear(socket) => socket.poll_read_ready(cx),
            Self::Tls(_) => Poll::Ready(Ok(())),
        }
    }

    /// The TLS handshake has settled on HTTP/2.
    pub(crate) fn has_agreed_on_h2(&self) -> bool {
        matches!(self, Self::Tls(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2"))
    }
}

carry_bytes!(Socket, Socket::Tcp | Socket::Unix);
carry_bytes!(Wire, Wire::Clear | Wire::Tls);
