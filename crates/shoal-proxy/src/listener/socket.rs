//! Listening sockets: one per worker on the same port, and none on a port that somebody else has.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// Binds `count` sockets to `address`, among which the kernel spreads new connections. Port 0 takes any free port, the
/// same for all. Unless the port is `ours` already, a foreign process on it is an error: with SO_REUSEPORT alone both
/// would get a share of the connections, silently.
pub(super) fn bind(address: SocketAddr, count: usize, ours: bool) -> io::Result<Vec<TcpListener>> {
    if !ours && address.port() != 0 {
        open(address, Sharing::Alone)?;
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
    use super::*;

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
