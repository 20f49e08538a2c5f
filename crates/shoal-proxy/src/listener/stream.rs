//! The byte stream of a downstream connection: in clear text or within TLS.

use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::opening::Opening;
use crate::carried::carry_bytes;

/// On the heap: connections in clear text would have room for it, too.
pub(super) type SecureStream = Box<TlsStream<Opening<TcpStream>>>;

/// What HTTP is spoken on.
pub(super) enum Stream {
    Clear(TcpStream),
    Tls(SecureStream),
}

impl Stream {
    /// There is nothing to be said before it is closed.
    pub(super) fn ends_without_words(&self) -> bool {
        matches!(self, Self::Clear(_))
    }
}

carry_bytes!(Stream, Stream::Clear | Stream::Tls);
