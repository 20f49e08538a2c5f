//! Listening sockets: one per worker on the same port, and none on a port that somebody else has.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// Binds `count` sockets to `address`, among which the kernel spreads new connections. Port 0 takes any free port, the
/// same for all. Unless the port is `ours` already, a foreign process on it is an error: with SO_REUSEPORT alone both
/// would get a share of the connections, silently.
pub(super) fn bind(address: SocketAddr, count: usize, ours: bool) -> io::Result<Vec<TcpListener>> {
    if !ours {
        probe(address)?;
    }
    let mut sockets: Vec<TcpListener> = Vec::with_capacity(count);
    let mut address = address;
    for _ in 0..count.max(1) {
        let listener: TcpListener = open(address, Sharing::WithOurOwn)?.into();
        address = listener.local_addr()?;
        sockets.push(listener);
    }
    Ok(sockets)
}

/// Whether `address` can be bound, by nobody else but us; it is free again when this returns.
pub(super) fn probe(address: SocketAddr) -> io::Result<()> {
    match address.port() {
        0 => Ok(()),
        _ => open(address, Sharing::Alone).map(drop),
    }
}

/// What is accepted on `socket` sends at once whatever it is given, as it inherits this: streamed frames would wait for up to
/// 40 ms otherwise.
pub(crate) fn set_nodelay(socket: &TcpListener) {
    // One that refuses only makes things slow.
    if let Err(error) = SockRef::from(socket).set_tcp_nodelay(true) {
        tracing::warn!(%error, "cannot turn off Nagle's algorithm");
    }
}

/// The kernel answers no SYN on this socket any more, so that what is waiting on it can be accepted to the last one. Who
/// comes asks again after a second, and is refused then, or finds whoever has the port.
pub(super) fn ignore_newcomers(socket: &tokio::net::TcpListener) -> io::Result<()> {
    // Classic BPF on the TCP header: of the flags, SYN without ACK is dropped.
    SockRef::from(socket).attach_filter(&[
        SockFilter::new(0x30, 0, 0, 13),   // A = byte 13, the flags
        SockFilter::new(0x54, 0, 0, 0x12), // A &= SYN | ACK
        SockFilter::new(0x15, 0, 1, 0x02), // A == SYN: the next one; else the one after it
        SockFilter::new(0x06, 0, 0, 0),    // drop
        SockFilter::new(0x06, 0, 0, u32::MAX),
    ])
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Alone,
    WithOurOwn,
}

fn open(address: SocketAddr, sharing: Sharing) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if sharing == Sharing::WithOurOwn {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(address.ip() != std::net::Ipv6Addr::UNSPECIFIED)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    if sharing == Sharing::WithOurOwn {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn lets_in_who_was_there_and_nobody_else() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let bound = bind(any, 1, false).unwrap().remove(0);
        let socket = tokio::net::TcpListener::from_std(bound).unwrap();
        let address = socket.local_addr().unwrap();
        let early = TcpStream::connect(address).unwrap();
        ignore_newcomers(&socket).unwrap();
        // The first repetition of a SYN comes after a second.
        let late = TcpStream::connect_timeout(&address, Duration::from_millis(100)).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        let (_, peer) = socket.accept().await.unwrap();
        assert_eq!(peer, early.local_addr().unwrap());
    }

    #[test]
    fn who_is_accepted_is_answered_at_once() {
        let socket = bind("127.0.0.1:0".parse().unwrap(), 1, false).unwrap().remove(0);
        set_nodelay(&socket);
        socket.set_nonblocking(false).unwrap();
        let _caller = TcpStream::connect(socket.local_addr().unwrap()).unwrap();
        assert!(socket.accept().unwrap().0.nodelay().unwrap());
    }

    #[test]
    fn shares_with_itself_and_with_nobody_else() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let sockets = bind(any, 3, false).unwrap();
        let address = sockets[0].local_addr().unwrap();
        assert!(sockets.iter().all(|socket| socket.local_addr().unwrap() == address));
        let error = bind(address, 1, false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(bind(address, 2, true).unwrap().len(), 2);
        drop(sockets);
        assert_eq!(bind(address, 1, false).unwrap().len(), 1);
    }
}
