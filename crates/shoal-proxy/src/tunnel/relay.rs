//! Bytes both ways, until both sides have ended.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::sync::oneshot;

use super::StreamHalf;
use crate::exchange::TunnelTally;
use crate::listener::Channel;
use crate::metrics::Limit;
use crate::upstream::{UpstreamSide, Wire};
use crate::worker::Worker;

/// The downstream's side of a tunnel, which it is once the answer is out.
pub(super) enum DownstreamSide {
    /// A whole connection.
    Connection(oneshot::Receiver<Channel>),
    /// A stream of HTTP/2.
    Stream(oneshot::Receiver<StreamHalf>),
}

/// Carries bytes both ways until both sides have ended, one breaks, or nothing moves for too long. The end of one
/// direction is passed on, and the other goes on. What one side does not take is not read from the other.
pub(super) async fn relay(
    worker: Rc<Worker>,
    downstream: DownstreamSide,
    upstream: UpstreamSide,
    idle_timeout: Duration,
    tally: Rc<TunnelTally>,
) {
    match downstream {
        DownstreamSide::Connection(taken) => {
            let Ok(channel) = taken.await else { return };
            relay_to(&worker, channel, upstream, idle_timeout, &tally).await;
        }
        DownstreamSide::Stream(stream) => {
            let Ok(stream) = stream.await else { return };
            relay_to(&worker, stream, upstream, idle_timeout, &tally).await;
        }
    }
}

async fn relay_to(
    worker: &Worker,
    downstream: impl AsyncRead + AsyncWrite + Unpin,
    upstream: UpstreamSide,
    idle_timeout: Duration,
    tally: &TunnelTally,
) {
    match upstream {
        UpstreamSide::Own(arrived, wire) => {
            carry(worker, downstream, Rewound { arrived, wire }, idle_timeout, tally).await;
        }
        UpstreamSide::Shared(upstream) => {
            let Ok(upstream) = upstream.await else { return };
            carry(worker, downstream, TokioIo::new(upstream), idle_timeout, tally).await;
        }
    }
}

async fn carry(
    worker: &Worker,
    downstream: impl AsyncRead + AsyncWrite + Unpin,
    upstream: impl AsyncRead + AsyncWrite + Unpin,
    idle_timeout: Duration,
    tally: &TunnelTally,
) {
    let moved = || tally.received.get() + tally.sent.get();
    let mut downstream = Half::new(downstream, Some(tally));
    let mut upstream = Half::new(upstream, None);
    let mut copying = pin!(copy_bidirectional(&mut downstream, &mut upstream));
    let idle = worker.deadlines.arm(idle_timeout);
    let mut last = 0;
    poll_fn(|cx| {
        if copying.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        while idle.poll_passed(cx).is_ready() {
            if moved() == last {
                worker.metrics.reach(Limit::TunnelIdleTimeout);
                return Poll::Ready(());
            }
            last = moved();
            idle.reset(idle_timeout);
        }
        Poll::Pending
    })
    .await;
}

/// A connection some of whose bytes were read already.
struct Rewound {
    arrived: Bytes,
    wire: Wire,
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.arrived.is_empty() {
            return Pin::new(&mut self.wire).poll_read(cx, buf);
        }
        let taken = self.arrived.len().min(buf.remaining());
        buf.put_slice(&self.arrived.split_to(taken));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }
}

/// One side; the downstream's is counted.
struct Half<'a, T> {
    io: T,
    tally: Option<&'a TunnelTally>,
    has_ended: bool,
}

impl<'a, T: AsyncWrite + Unpin> Half<'a, T> {
    fn new(io: T, tally: Option<&'a TunnelTally>) -> Self {
        Self { io, tally, has_ended: false }
    }

    /// A stream of HTTP/2 that was reset reads as one that has ended. Its writing half knows better, one turn later.
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.has_ended, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match Pin::new(&mut self.io).poll_flush(cx) {
            Poll::Ready(flushed) => Poll::Ready(flushed),
            Poll::Pending => Poll::Ready(Ok(())),
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Half<'_, T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        if read == 0 && buf.remaining() > 0 {
            return self.poll_reset(cx);
        }
        if let Some(tally) = self.tally {
            tally.received.set(tally.received.get() + read as u64);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Half<'_, T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        if let (Poll::Ready(Ok(written)), Some(tally)) = (&polled, self.tally) {
            tally.sent.set(tally.sent.get() + *written as u64);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
