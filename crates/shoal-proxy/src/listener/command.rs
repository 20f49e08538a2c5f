//! What a worker is told by others, of the connections and sockets that come to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::Listener;
use super::spread::Seat;

/// What a worker is told to do.
pub(crate) enum Command {
    /// Accept on this socket.
    Open(Arc<Listener>, std::net::TcpListener),
    /// Serve this connection, which another worker has accepted.
    Adopt(Arrival),
    /// Every answer is the last one of its connection.
    Retire,
    /// Let what is open end politely, at most for so long; then answer with what is left.
    Drain(Duration, AfterDrain, oneshot::Sender<usize>),
    /// Connections may stay again: what was to end as a drain goes on, and nobody new is told to go.
    Resume,
}

/// What a worker does when nothing is open any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterDrain {
    /// It ends.
    End,
    /// It waits for listeners to come.
    Rest,
}

/// A connection that was accepted elsewhere. Until it is served it counts among those on their way.
pub(crate) struct Arrival {
    pub(crate) listener: Arc<Listener>,
    pub(crate) stream: std::net::TcpStream,
    pub(crate) peer: SocketAddr,
    pub(crate) seat: Seat,
}
