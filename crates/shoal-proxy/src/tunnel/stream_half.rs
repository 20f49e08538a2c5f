//! A stream of HTTP/2 as the downstream half of a tunnel (RFC 8441).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::room;

/// Both directions of a stream whose CONNECT was agreed to.
pub(crate) struct StreamHalf {
    sending: SendStream<Bytes>,
    receiving: RecvStream,
    /// What has arrived and was not read yet.
    arrived: Bytes,
    /// Room for what is to be written was asked for.
    has_asked: bool,
    has_ended: bool,
}

impl StreamHalf {
    pub(crate) fn new(sending: SendStream<Bytes>, receiving: RecvStream) -> Self {
        Self { sending, receiving, arrived: Bytes::new(), has_asked: false, has_ended: false }
    }

    /// The stream takes nothing any more: why?
    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.sending.poll_reset(cx).map(|reset| match reset {
            Ok(Reason::NO_ERROR | Reason::CANCEL | Reason::STREAM_CLOSED) => io::ErrorKind::BrokenPipe.into(),
            Ok(reason) => io::Error::other(h2::Error::from(reason)),
            Err(error) => error_of(error),
        })
    }
}

impl Drop for StreamHalf {
    /// However the tunnel ends, its stream ends in order.
    fn drop(&mut self) {
        if !self.has_ended {
            // Nobody waits for the end of a stream that is gone.
            _ = self.sending.send_data(Bytes::new(), true);
        }
    }
}

impl AsyncRead for StreamHalf {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.arrived.is_empty() {
            match ready!(this.receiving.poll_data(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Ok(data)) if data.is_empty() && this.receiving.is_end_stream() => {
                    return Poll::Ready(Ok(()));
                }
                Some(Ok(data)) => this.arrived = data,
                Some(Err(error)) => {
                    return Poll::Ready(match error.reason() {
                        // Whether that was meant well is told to whoever writes.
                        Some(Reason::NO_ERROR | Reason::CANCEL) => Ok(()),
                        Some(Reason::STREAM_CLOSED) => Err(io::ErrorKind::BrokenPipe.into()),
                        _ => Err(error_of(error)),
                    });
                }
            }
        }
        let taken = this.arrived.len().min(buf.remaining());
        buf.put_slice(&this.arrived[..taken]);
        this.arrived.advance(taken);
        // A stream that is gone has no window to open.
        _ = this.receiving.flow_control().release_capacity(taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for StreamHalf {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if !std::mem::replace(&mut this.has_asked, true) {
            room::ask(&mut this.sending);
        }
        if !ready!(room::poll_given(&mut this.sending, cx)) {
            return this.poll_broken(cx).map(Err);
        }
        this.has_asked = false;
        match this.sending.send_data(Bytes::copy_from_slice(buf), false) {
            Ok(()) => Poll::Ready(Ok(buf.len())),
            Err(error) => Poll::Ready(Err(error_of(error))),
        }
    }

    /// What is written is on its way at once; a stream that was reset fails here.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut().poll_broken(cx) {
            Poll::Ready(error) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if std::mem::replace(&mut this.has_ended, true) {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(this.sending.send_data(Bytes::new(), true).map_err(error_of))
    }
}

fn error_of(error: h2::Error) -> io::Error {
    if error.is_io() {
        error.into_io().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into())
    } else {
        io::Error::other(error)
    }
}
