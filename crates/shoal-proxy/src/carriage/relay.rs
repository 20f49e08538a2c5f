//! Bytes both ways until both sides have ended, one breaks, or nothing moves for too long.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use shoal_policy::failure::Failure;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};

use super::BUFFER;
use super::journey::Journey;
use crate::metrics::Limit;
use crate::worker::Worker;

/// Relays. The end of one direction is passed on, and the other goes on.
pub(super) async fn relay(
    worker: &Worker,
    downstream: impl AsyncRead + AsyncWrite + Unpin,
    upstream: impl AsyncRead + AsyncWrite + Unpin,
    idle_timeout: Duration,
    journey: &Journey,
) -> Result<(), Failure> {
    let broken = Cell::new(None);
    let mut downstream = Side {
        io: downstream,
        received: &journey.received,
        failure: Failure::DownstreamReset,
        broken: &broken,
    };
    let mut upstream =
        Side { io: upstream, received: &journey.sent, failure: Failure::UpstreamReset, broken: &broken };
    let mut copying = pin!(copy_bidirectional_with_sizes(&mut downstream, &mut upstream, BUFFER, BUFFER));
    let idle = worker.deadlines.arm(idle_timeout);
    let moved = || (journey.received.get(), journey.sent.get());
    let mut last = moved();
    poll_fn(|cx| {
        if let Poll::Ready(copied) = copying.as_mut().poll(cx) {
            return Poll::Ready(copied.map(|_| ()).map_err(|_| broken.get().unwrap_or(Failure::Internal)));
        }
        while idle.poll_passed(cx).is_ready() {
            if moved() == last {
                worker.metrics.reach(Limit::TunnelIdleTimeout);
                return Poll::Ready(Err(Failure::DownstreamTimeout));
            }
            last = moved();
            idle.reset(idle_timeout);
        }
        Poll::Pending
    })
    .await
}

/// One side: what comes from it is counted, and whether it broke is remembered.
struct Side<'a, T> {
    io: T,
    received: &'a Cell<u64>,
    failure: Failure,
    broken: &'a Cell<Option<Failure>>,
}

impl<T> Side<'_, T> {
    fn note<R>(&self, polled: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if let (Poll::Ready(Err(_)), None) = (&polled, self.broken.get()) {
            self.broken.set(Some(self.failure));
        }
        polled
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Side<'_, T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        self.received.set(self.received.get() + read as u64);
        self.note(polled)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Side<'_, T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.note(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.note(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_shutdown(cx);
        self.note(polled)
    }
}
