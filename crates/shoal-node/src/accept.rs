//! The next connection of a listener, also when there is none to be had: without a free descriptor `accept` fails at once, and
//! would go on to.

use std::io;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream, unix};

use crate::refusals::Refusals;

/// After a failure: do not spin.
const PAUSE: Duration = Duration::from_millis(50);

/// Takes connections, and says when it cannot.
pub struct Accepting<L> {
    listener: L,
    /// As the log calls it.
    door: &'static str,
    failures: Refusals,
}

/// A bound socket.
pub trait Listens {
    /// A connection, and where it comes from.
    type Connection;

    /// Waits for the next one; nothing is lost by ceasing to.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Connection>> + Send;
}

impl<L: Listens> Accepting<L> {
    /// Of `listener`, which is called `door`.
    pub fn on(listener: L, door: &'static str) -> Self {
        Self { listener, door, failures: Refusals::default() }
    }

    /// Waits for the next connection.
    pub async fn next(&self) -> L::Connection {
        loop {
            match self.listener.accept().await {
                Ok(connection) => return connection,
                Err(error) => {
                    if let Some(unsaid) = self.failures.note(Instant::now()) {
                        tracing::warn!(door = self.door, %error, unsaid, "no connection can be taken");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

impl Listens for TcpListener {
    type Connection = (TcpStream, std::net::SocketAddr);

    async fn accept(&self) -> io::Result<Self::Connection> {
        Self::accept(self).await
    }
}

impl Listens for UnixListener {
    type Connection = (UnixStream, unix::SocketAddr);

    async fn accept(&self) -> io::Result<Self::Connection> {
        Self::accept(self).await
    }
}

/// Whether this very process is at the other end of a local socket: as a proxy, on behalf of whoever has asked it.
pub(crate) fn is_own(stream: &UnixStream) -> bool {
    let pid = stream.peer_cred().ok().and_then(|credentials| credentials.pid());
    pid.is_some_and(|pid| u32::try_from(pid) == Ok(std::process::id()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::*;

    /// Has no descriptor for the first few.
    struct Short {
        left: AtomicU32,
    }

    impl Listens for Short {
        type Connection = &'static str;

        async fn accept(&self) -> io::Result<Self::Connection> {
            match self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)) {
                Ok(_) => Err(io::Error::other("too many open files")),
                Err(_) => Ok("a connection"),
            }
        }
    }

    #[tokio::test]
    async fn a_failure_is_waited_out() {
        let accepting = Accepting::on(Short { left: AtomicU32::new(3) }, "test");
        let started = Instant::now();
        assert_eq!(accepting.next().await, "a connection");
        assert!(started.elapsed() >= 3 * PAUSE, "{:?}", started.elapsed());
    }
}
