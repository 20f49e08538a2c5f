//! A message of HTTP/1.1 on its way out: the head, then the body as it comes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::Body;
use shoal_policy::http1::{Framing, write_chunk_size, write_last_chunk};
use tokio::io::AsyncWrite;

use crate::joined::poll_write_joined;

/// Memory for heads that a connection keeps, bytes.
const MAX_KEPT: usize = 4 << 10;
/// After so many bytes others have their turn.
const TURN_BYTES: usize = 1 << 20;
/// What a part of a body costs at least, as bytes.
const PART_BYTES: usize = 8 << 10;
const CHUNK_END: &[u8] = b"\r\n";
const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

/// What is still to be sent of a message.
#[derive(Default)]
pub(crate) struct Outgoing {
    /// Goes first: the head, or the line before a chunk.
    text: Vec<u8>,
    /// How much of it is out.
    text_sent: usize,
    data: Bytes,
    /// Goes last: the end of a chunk.
    tail: &'static [u8],
    left: Left,
    /// Some of the message is out.
    has_begun: bool,
    /// Some of the body was taken.
    has_taken: bool,
}

/// What of the body is still to come.
#[derive(Clone, Copy, Default)]
enum Left {
    #[default]
    Nothing,
    Length(u64),
    Chunks,
    /// Whatever comes; the connection ends after it.
    Unknown,
}

/// Why a message cannot be sent to its end.
pub(crate) enum SendError {
    /// The other side takes no more.
    Wire,
    /// Its body breaks off, or is not as long as its head says.
    Body,
}

impl Outgoing {
    /// Begins a message: `write_head` writes its head, and says how the body is framed.
    pub(crate) fn begin(&mut self, write_head: impl FnOnce(&mut Vec<u8>) -> Framing) {
        self.text.clear();
        self.left = match write_head(&mut self.text) {
            Framing::Empty => Left::Nothing,
            Framing::Length(length) => Left::Length(length),
            Framing::Chunked => Left::Chunks,
            Framing::UntilClose => Left::Unknown,
        };
        self.text_sent = 0;
        self.data = Bytes::new();
        self.tail = b"";
        self.has_begun = false;
        self.has_taken = false;
    }

    /// Gives back what an unusually long head took.
    pub(crate) fn shrink(&mut self) {
        if self.text.capacity() > MAX_KEPT {
            self.text = Vec::new();
        }
    }

    /// Some of the message is out.
    pub(crate) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Some of the body was taken.
    pub(crate) fn has_taken(&self) -> bool {
        self.has_taken
    }

    /// Sends the head alone: nobody may look at the body yet. Ready when it is out.
    pub(crate) fn poll_head(
        &mut self,
        wire: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), SendError>> {
        ready!(self.poll_write(wire, cx)).map_err(|_| SendError::Wire)?;
        Pin::new(wire).poll_flush(cx).map_err(|_| SendError::Wire)
    }

    /// Sends what can be sent; ready when the whole message is out.
    pub(crate) fn poll(
        &mut self,
        wire: &mut (impl AsyncWrite + Unpin),
        body: &mut (impl Body<Data = Bytes> + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), SendError>> {
        let mut taken = 0;
        loop {
            // A head waits for the first part of the body, if that is there.
            if self.text_sent > 0 || !self.data.is_empty() || !self.tail.is_empty() {
                ready!(self.poll_write(wire, cx)).map_err(|_| SendError::Wire)?;
            }
            if taken > TURN_BYTES {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if matches!(self.left, Left::Nothing) {
                ready!(self.poll_write(wire, cx)).map_err(|_| SendError::Wire)?;
                return Pin::new(wire).poll_flush(cx).map_err(|_| SendError::Wire);
            }
            match self.poll_next(body, cx) {
                Poll::Ready(next) => {
                    next?;
                    taken += self.data.len().max(PART_BYTES);
                }
                Poll::Pending => {
                    ready!(self.poll_write(wire, cx)).map_err(|_| SendError::Wire)?;
                    let _ = Pin::new(wire).poll_flush(cx).map_err(|_| SendError::Wire)?;
                    return Poll::Pending;
                }
            }
        }
    }

    /// Takes the next part of the body.
    fn poll_next(
        &mut self,
        body: &mut (impl Body<Data = Bytes> + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), SendError>> {
        let next = ready!(Pin::new(&mut *body).poll_frame(cx));
        self.has_taken = true;
        let frame = match next {
            None => return Poll::Ready(self.end(&HeaderMap::new())),
            Some(Err(_)) => return Poll::Ready(Err(SendError::Body)),
            Some(Ok(frame)) => frame,
        };
        let is_last = body.is_end_stream();
        match (frame.into_data(), self.left) {
            (Ok(data), _) if data.is_empty() && !is_last => {}
            (Ok(data), Left::Length(left)) => {
                let left = left.checked_sub(data.len() as u64).ok_or(SendError::Body)?;
                self.data = data;
                self.left = Left::Length(left);
                if is_last {
                    return Poll::Ready(self.end(&HeaderMap::new()));
                }
            }
            (Ok(data), Left::Unknown) => {
                self.data = data;
                if is_last {
                    return Poll::Ready(self.end(&HeaderMap::new()));
                }
            }
            (Ok(data), _) if data.is_empty() => return Poll::Ready(self.end(&HeaderMap::new())),
            (Ok(data), _) => {
                write_chunk_size(&mut self.text, data.len());
                self.data = data;
                (self.tail, self.left) =
                    if is_last { (LAST_CHUNK, Left::Nothing) } else { (CHUNK_END, Left::Chunks) };
            }
            (Err(frame), Left::Chunks) => {
                return Poll::Ready(self.end(&frame.into_trailers().unwrap_or_default()));
            }
            // Behind a body whose length is given there is no place for trailers.
            (Err(_), _) if is_last => return Poll::Ready(self.end(&HeaderMap::new())),
            (Err(_), _) => {}
        }
        Poll::Ready(Ok(()))
    }

    /// The body has ended.
    fn end(&mut self, trailers: &HeaderMap) -> Result<(), SendError> {
        match std::mem::take(&mut self.left) {
            Left::Length(1..) => return Err(SendError::Body),
            Left::Chunks => write_last_chunk(&mut self.text, trailers),
            Left::Length(0) | Left::Unknown | Left::Nothing => {}
        }
        Ok(())
    }

    fn poll_write(
        &mut self,
        wire: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let parts = [&self.text[self.text_sent..], &self.data, self.tail];
            let first = match parts.iter().position(|part| !part.is_empty()) {
                Some(first) => first,
                None => break,
            };
            let last = parts.iter().rposition(|part| !part.is_empty()).unwrap_or(first);
            let slices = parts.map(IoSlice::new);
            let written = ready!(poll_write_joined(Pin::new(&mut *wire), cx, &slices[first..=last]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.has_begun = true;
            self.advance(written);
        }
        self.text.clear();
        self.text_sent = 0;
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, written: usize) {
        let of_text = written.min(self.text.len() - self.text_sent);
        let of_data = (written - of_text).min(self.data.len());
        self.text_sent += of_text;
        self.data.advance(of_data);
        self.tail = &self.tail[written - of_text - of_data..];
    }
}
