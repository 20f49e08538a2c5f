//! The byte stream of a downstream connection, watched.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use shoal_model::view::Limits;
use shoal_policy::gate::{FrameLimits, FrameScan};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::coalesced::Witness;
use super::{ConnectionState, Order};
use crate::joined::poll_write_joined;
use crate::metrics::Limit;
use crate::pace::{MinRate, Pace};

/// A stream that tells its [`ConnectionState`] what moves, and that may begin, with HTTP/2, with bytes read before.
pub(super) struct Watched<T> {
    stream: T,
    first: Bytes,
    /// Of HTTP/2; on the heap, as connections on HTTP/1 would have room for it, too.
    frames: Option<Box<FrameScan>>,
    state: Rc<ConnectionState>,
    end: End,
    pace: Pace,
    min_rate: MinRate,
}

/// How far the end of the stream has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    /// Nothing more is written; what still comes is read and thrown away.
    Lingering,
    Closed,
}

/// Bytes read at once beside the codec.
const SCRATCH: usize = 8 << 10;

impl<T> Watched<T> {
    /// As HTTP/1 has it.
    pub(super) fn new(stream: T, state: Rc<ConnectionState>, limits: &Limits) -> Self {
        let pace = Pace::default();
        let min_rate = MinRate { bytes_per_second: limits.min_rate, window: limits.min_rate_window };
        Self { stream, first: Bytes::new(), frames: None, state, end: End::Open, pace, min_rate }
    }

    /// As HTTP/2 has it, which begins with bytes that were read before.
    pub(super) fn of_frames(self, first: Bytes, limits: &Limits) -> Self {
        let limits = FrameLimits { idle_frames: limits.h2_max_idle_frames, resets: limits.h2_max_resets };
        Self { first, frames: Some(Box::new(FrameScan::new(limits))), ..self }
    }

    pub(super) fn stream(&self) -> &T {
        &self.stream
    }

    /// Whoever takes a response slower than it may is not waited for.
    fn wrote(&mut self, polled: &Poll<io::Result<usize>>) {
        self.state.write_blocked(polled.is_pending());
        match polled {
            Poll::Pending => self.pace.wait(self.state.now_ms()),
            Poll::Ready(Ok(bytes)) => {
                let is_fast = self.pace.moved(*bytes as u64, self.state.now_ms(), self.min_rate);
                if !is_fast && !self.state.is_tunnel() {
                    self.state.end(Limit::MinRate, Order::Abort);
                }
                self.state.wrote();
            }
            Poll::Ready(Err(_)) => {}
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let Some(frames) = &mut this.frames else { return Pin::new(&mut this.stream).poll_read(cx, buf) };
        if this.state.h2().error().is_some() {
            // The connection's task has been told to end it.
            return Poll::Pending;
        }
        // The codec asks for more when it has read everything.
        frames.was_read();
        if this.first.is_empty() {
            std::task::ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        } else {
            let count = this.first.len().min(buf.remaining());
            buf.put_slice(&this.first[..count]);
            this.first.advance(count);
            if this.first.is_empty() {
                this.first = Bytes::new();
            }
        }
        let read = &buf.filled()[before..];
        let all = read.len();
        let good = this.state.received(read, frames);
        if good < all {
            buf.set_filled(before + good);
            // Nothing at all would mean that the downstream has ended.
            return if good == 0 { Poll::Pending } else { Poll::Ready(Ok(())) };
        }
        Poll::Ready(Ok(()))
    }
}

impl<T> Witness for Box<Watched<T>> {
    fn sees(&mut self, bytes: &[u8]) {
        if let Some(frames) = &mut self.frames {
            let refused = frames.sent(bytes, self.state.h2().taken_up.get());
            self.state.h2().refused_heads(refused);
        }
    }

    fn code_of_end(&mut self, code: u32) -> u32 {
        let named = self.frames.as_ref().and_then(|frames| frames.name_of(code));
        let Some(named) = named else { return code };
        self.state.h2().end_with_error(named);
        named.number()
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.wrote(&polled);
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = poll_write_joined(Pin::new(&mut this.stream), cx, bufs);
        this.wrote(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_flush(cx);
        // Within TLS it is only now that the last bytes are taken, or not.
        this.state.write_blocked(polled.is_pending());
        if polled.is_pending() {
            this.pace.wait(this.state.now_ms());
        }
        polled
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.end == End::Open {
            std::task::ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            this.end = if this.state.begins_to_linger() { End::Lingering } else { End::Closed };
        }
        while this.end == End::Lingering {
            let mut scratch = [MaybeUninit::uninit(); SCRATCH];
            let mut scratch = ReadBuf::uninit(&mut scratch);
            let read = std::task::ready!(Pin::new(&mut this.stream).poll_read(cx, &mut scratch));
            if read.is_err() || scratch.filled().is_empty() {
                this.end = End::Closed;
            }
        }
        Poll::Ready(Ok(()))
    }
}
