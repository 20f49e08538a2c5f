//! Sockets that the service manager has bound (systemd socket activation: descriptors from 3 on).

use std::env;
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};

use anyhow::{Context, bail};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::sockopt::{socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketType};

/// The first of them.
const FIRST: RawFd = 3;
/// At most so many.
const MAX_SOCKETS: usize = 1024;

/// What can be done with a socket that was passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketKind {
    /// Listens on an address.
    Tcp,
    /// Receives datagrams on an address.
    Udp,
    /// Listens on a path.
    Local,
}

/// The sockets that were passed to this process; none without a service manager. To be called once, before anything else
/// opens files.
pub fn take() -> anyhow::Result<Vec<(SocketKind, OwnedFd)>> {
    let variable = |name| env::var(name).ok();
    let count =
        count(variable("LISTEN_PID").as_deref(), variable("LISTEN_FDS").as_deref(), std::process::id())?;
    let sockets = (0..count).map(|n| {
        let number = FIRST + RawFd::try_from(n)?;
        let socket = claim(number).with_context(|| format!("descriptor {number} was not passed"))?;
        let kind = kind_of(&socket).with_context(|| format!("descriptor {number} is no socket of use"))?;
        Ok((kind, socket))
    });
    sockets.collect()
}

/// The process before was passed sockets: they are held by the service manager still.
pub fn was_predecessor() -> bool {
    env::var_os("LISTEN_FDS").is_some()
}

/// How many are meant for the process `own`: variables are inherited by those that they are not about.
fn count(pid: Option<&str>, count: Option<&str>, own: u32) -> anyhow::Result<usize> {
    let (Some(pid), Some(count)) = (pid, count) else { return Ok(0) };
    if pid.parse() != Ok(own) {
        return Ok(0);
    }
    match count.parse() {
        Ok(count) if count <= MAX_SOCKETS => Ok(count),
        _ => bail!("LISTEN_FDS is {count:?}, which is no number up to {MAX_SOCKETS}"),
    }
}

#[allow(unsafe_code, reason = "descriptors that were passed are known by their numbers only")]
fn claim(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: `LISTEN_PID` says that this number was opened for this process, and nobody else here claims it.
    let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
    fcntl_setfd(borrowed, FdFlags::CLOEXEC)?;
    // SAFETY: as above, and it is open: the call before would have failed.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn kind_of(socket: &OwnedFd) -> anyhow::Result<SocketKind> {
    let socket = socket.as_fd();
    match (socket_type(socket)?, socket_domain(socket)?) {
        (SocketType::STREAM, AddressFamily::INET | AddressFamily::INET6) => Ok(SocketKind::Tcp),
        (SocketType::DGRAM, AddressFamily::INET | AddressFamily::INET6) => Ok(SocketKind::Udp),
        (SocketType::STREAM, AddressFamily::UNIX) => Ok(SocketKind::Local),
        (kind, domain) => bail!("type {kind:?} of family {domain:?}"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use super::*;

    #[test]
    fn only_what_is_meant_for_this_process_counts() {
        let check = |pid: Option<&str>, fds: Option<&str>, expected: Option<usize>| {
            assert_eq!(count(pid, fds, 7).ok(), expected, "{pid:?} {fds:?}");
        };
        check(None, None, Some(0));
        check(Some("7"), Some("2"), Some(2));
        check(Some("8"), Some("2"), Some(0));
        check(Some("7"), None, Some(0));
        check(Some("x"), Some("2"), Some(0));
        check(Some("7"), Some("-1"), None);
        check(Some("7"), Some("1000000"), None);
    }

    #[test]
    fn sockets_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let check = |socket: OwnedFd, expected: Option<SocketKind>| {
            assert_eq!(kind_of(&socket).ok(), expected);
        };
        check(TcpListener::bind("127.0.0.1:0").unwrap().into(), Some(SocketKind::Tcp));
        check(UdpSocket::bind("127.0.0.1:0").unwrap().into(), Some(SocketKind::Udp));
        let local = UnixListener::bind(directory.path().join("s")).unwrap();
        check(local.into(), Some(SocketKind::Local));
        check(UnixDatagram::unbound().unwrap().into(), None);
        check(std::fs::File::open("/dev/null").unwrap().into(), None);
    }
}
