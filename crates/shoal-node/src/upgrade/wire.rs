//! Messages and descriptors between two processes: packets of a Unix socket, each a line of JSON and at most one descriptor.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use super::Message;

/// Bytes of a message.
const MAX_PACKET: usize = 4 << 10;

/// One end.
#[derive(Debug)]
pub(super) struct Line(OwnedFd);

impl Line {
    /// Both ends.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(ours), theirs))
    }

    /// The end that this process was started with.
    pub(super) fn on(end: OwnedFd) -> Self {
        Self(end)
    }

    /// Blocks while the other end is behind.
    pub(super) fn send(&self, message: &Message, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut text = serde_json::to_vec(message)?;
        text.truncate(MAX_PACKET);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors: Vec<BorrowedFd<'_>> = descriptor.into_iter().collect();
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        sendmsg(self.0.as_fd(), &[IoSlice::new(&text)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Blocks for at most `patience`; the other end is gone = `UnexpectedEof`.
    pub(super) fn receive(&self, patience: Duration) -> io::Result<(Message, Option<OwnedFd>)> {
        set_socket_timeout(&self.0, Timeout::Recv, Some(patience))?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut text = [0; MAX_PACKET];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = recvmsg(self.0.as_fd(), &mut [IoSliceMut::new(&mut text)], &mut control, flags)?;
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::other("a descriptor did not arrive: the limit of open files is too low"));
        }
        let descriptors = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        });
        Ok((serde_json::from_slice(&text[..received.bytes])?, descriptors.flatten().next()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::super::Role;
    use super::*;

    #[test]
    fn a_socket_arrives_with_its_role_and_its_waiting_connections() {
        let (near, far) = Line::pair().unwrap();
        let far = Line::on(far);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut waiting = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        near.send(&Message::Socket(Role::Ops), Some(listener.as_fd())).unwrap();
        near.send(&Message::TakeOver, None).unwrap();
        drop((listener, near));

        let patience = Duration::from_secs(5);
        let (message, descriptor) = far.receive(patience).unwrap();
        assert_eq!(message, Message::Socket(Role::Ops));
        let (mut accepted, _) = TcpListener::from(descriptor.unwrap()).accept().unwrap();
        waiting.write_all(b"x").unwrap();
        assert_eq!(accepted.read(&mut [0; 8]).unwrap(), 1);
        let (message, descriptor) = far.receive(patience).unwrap();
        assert!(message == Message::TakeOver && descriptor.is_none());
        assert_eq!(far.receive(patience).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_silent_process_is_waited_for_no_longer_than_said() {
        let (near, _far) = Line::pair().unwrap();
        let kind = near.receive(Duration::from_millis(20)).unwrap_err().kind();
        assert_eq!(kind, io::ErrorKind::WouldBlock);
    }
}
