//! TLS connections for tonic that know who called.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use shoal_cluster::tls::Caller;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

use crate::crowd::Place;
use crate::shares::Share;

/// Who is at the other end of a connection; lands in the extensions of every request on it.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Proven by a certificate, or by the rights of the local socket; `None` = a stranger.
    pub caller: Option<Caller>,
    /// Where it comes from.
    pub from: Origin,
    /// Of somebody who is nobody here (any more): one of few places, which is given back when the connection ends.
    pub place: Option<Place>,
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Another machine, or this one.
    Address(SocketAddr),
    /// The local socket, and the user behind it, if the system tells.
    Socket {
        /// Its number.
        uid: Option<u32>,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Socket { uid: Some(uid) } => write!(f, "socket, uid {uid}"),
            Self::Socket { uid: None } => f.write_str("socket"),
        }
    }
}

/// A byte stream with its caller.
pub struct CallerIo<IO> {
    io: IO,
    connection: Connection,
    /// Of the connections that there may be; given back when it ends.
    _share: Option<Share>,
}

impl<IO> CallerIo<IO> {
    /// `io`, called by `caller` from `from`.
    pub fn new(io: IO, caller: Option<Caller>, from: Origin) -> Self {
        Self { io, connection: Connection { caller, from, place: None }, _share: None }
    }

    /// The same, which counts as `share`.
    pub fn counted(self, share: Share) -> Self {
        Self { _share: Some(share), ..self }
    }

    /// `io` of somebody who is nobody here (any more), which takes up one of few places.
    pub fn of_stranger(io: IO, caller: Option<Caller>, from: SocketAddr, place: Place) -> Self {
        let connection = Connection { caller, from: Origin::Address(from), place: Some(place) };
        Self { io, connection, _share: None }
    }
}

impl<IO> Connected for CallerIo<IO> {
    type ConnectInfo = Connection;

    fn connect_info(&self) -> Connection {
        self.connection.clone()
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for CallerIo<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for CallerIo<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
