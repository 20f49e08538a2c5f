//! The bytes of a connection, shared by its task, by whoever reads the body of the present request, and by the tunnel that
//! it may become.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use shoal_policy::failure::Failure;
use shoal_policy::http1::{Chunked, Framing, HeadLimits, Piece, RequestHead, RequestReader, Unreadable};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use crate::incoming::{BodySource, Incoming, OfConnection};
use crate::listener::io::Watched;
use crate::listener::reading::poll_read_some;
use crate::listener::stream::Stream;
use crate::listener::{ConnectionState, Order};

/// Bytes of a body that are asked for at first, and at most.
const FIRST_READ: usize = 8 << 10;
const MAX_READ: usize = 256 << 10;
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A handle to the bytes of a connection.
#[derive(Clone)]
pub(crate) struct Channel(Rc<RefCell<Inner>>);

/// What a connection has said, and how to answer it.
struct Inner {
    stream: Box<Watched<Stream>>,
    state: Rc<ConnectionState>,
    /// Has come, and is not made sense of yet.
    arrived: BytesMut,
    /// The downstream has ended its side.
    has_ended: bool,
    /// Tells the present request from those that are over.
    request: u64,
    body: Body,
    /// Of how many chunks that has been made.
    chunks: u64,
    /// Whoever waits for more of the body, perhaps in a task of its own: that is told when nothing more is to come.
    reader: Option<Waker>,
    /// Bytes of the body to ask for.
    window: usize,
    /// The downstream waits for a 100 (Continue).
    waits: bool,
    /// The answer has begun.
    is_answering: bool,
    /// What of interim answers is still to be written.
    interim: BytesMut,
}

/// What is to come of the body of the present request.
enum Body {
    Nothing,
    Length(u64),
    Chunks(Chunked),
    /// Nobody can tell: the request is refused, and whatever comes thrown away.
    Doubtful,
}

/// What reading a head comes to.
pub(super) enum Heard {
    Head(Box<RequestHead>),
    /// It cannot be read.
    Unreadable(Unreadable),
    /// Nothing is asked, and has not been for a while.
    Resting,
    /// Nothing more is to come.
    Closing,
    /// The connection is broken.
    Gone,
}

impl Channel {
    /// `arrived` was read from `stream` before.
    pub(super) fn new(stream: Box<Watched<Stream>>, state: Rc<ConnectionState>, arrived: BytesMut) -> Self {
        Self(Rc::new(RefCell::new(Inner {
            stream,
            state,
            arrived,
            has_ended: false,
            request: 0,
            body: Body::Nothing,
            chunks: 0,
            reader: None,
            window: FIRST_READ,
            waits: false,
            is_answering: false,
            interim: BytesMut::new(),
        })))
    }

    /// Waits for the next head.
    pub(super) fn poll_head(
        &self,
        reader: &mut RequestReader,
        limits: HeadLimits,
        cx: &mut Context<'_>,
    ) -> Poll<Heard> {
        self.0.borrow_mut().poll_head(reader, limits, cx)
    }

    /// Waits, without anybody to read a head, until there is something to read or to do.
    pub(super) fn poll_news(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.0.borrow_mut();
        if inner.state.order() >= Order::Finish || !inner.arrived.is_empty() {
            return Poll::Ready(());
        }
        // Whatever became of it is still so when the next head is waited for.
        inner.poll_read_some(cx).map(|_| ())
    }

    /// The body of the request whose head was read last.
    pub(super) fn begin_body(&self, framing: Framing, waits: bool) -> Incoming {
        let mut inner = self.0.borrow_mut();
        inner.request += 1;
        inner.body = match framing {
            Framing::Length(length @ 1..) => {
                inner.window = usize::try_from(length).unwrap_or(MAX_READ).clamp(FIRST_READ, MAX_READ);
                Body::Length(length)
            }
            Framing::Chunked => {
                (inner.window, inner.chunks) = (FIRST_READ, 0);
                Body::Chunks(Chunked::default())
            }
            Framing::UntilClose => {
                inner.body = Body::Doubtful;
                return Incoming::Empty;
            }
            Framing::Empty | Framing::Length(0) => return Incoming::Empty,
        };
        (inner.waits, inner.is_answering) = (waits, false);
        let source: Rc<dyn BodySource> = self.0.clone();
        Incoming::Connection(OfConnection::new(Rc::downgrade(&source), inner.request))
    }

    /// The answer begins: from now on nobody is told to go on. `true` = somebody still waits for that, and need not send the
    /// body any more.
    pub(super) fn begin_answer(&self) -> bool {
        let mut inner = self.0.borrow_mut();
        inner.is_answering = true;
        std::mem::take(&mut inner.waits) && inner.arrived.is_empty() && !matches!(inner.body, Body::Nothing)
    }

    /// Says `text` before the answer.
    pub(super) fn say_before(&self, text: &[u8]) {
        self.0.borrow_mut().interim.extend_from_slice(text);
    }

    /// Writes what is to be said before the answer; ready when that cannot be done.
    pub(super) fn poll_unsaid(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self.0.borrow_mut().poll_interim(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(()),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }

    /// While the request is answered: ready when nobody is there any more to read it.
    pub(super) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.borrow_mut().poll_gone(cx)
    }

    /// The answer is out. `false` = the connection cannot go on: some of the request is still to come.
    pub(super) fn end_body(&self) -> bool {
        let mut inner = self.0.borrow_mut();
        // Whoever still reads it for somebody is told that it breaks off.
        inner.request += 1;
        if !matches!(inner.body, Body::Nothing) {
            inner.wake_reader();
        }
        while !matches!(inner.body, Body::Nothing) {
            match inner.take_part() {
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break,
            }
        }
        let has_come = matches!(inner.body, Body::Nothing);
        if has_come && inner.arrived.is_empty() {
            // One that waits needs no memory.
            inner.arrived = BytesMut::new();
        }
        has_come
    }

    /// Nothing is left to be said or heard: closing the socket is enough of an end.
    pub(super) fn may_just_close(&self) -> bool {
        let inner = self.0.borrow();
        inner.stream.stream().ends_without_words() && !inner.state.is_unread()
    }

    /// Something was read that nobody has made sense of.
    pub(super) fn has_more(&self) -> bool {
        !self.0.borrow().arrived.is_empty()
    }
}

impl Inner {
    fn poll_head(
        &mut self,
        reader: &mut RequestReader,
        limits: HeadLimits,
        cx: &mut Context<'_>,
    ) -> Poll<Heard> {
        loop {
            if !self.arrived.is_empty() {
                match reader.read(&mut self.arrived, limits) {
                    Ok(Some(head)) => return Poll::Ready(Heard::Head(Box::new(head))),
                    // An empty line after a body is nothing (RFC 9112 §2.2).
                    Ok(None) if self.arrived.is_empty() && self.state.requests() > 0 => {}
                    Ok(None) => self.state.head_began(),
                    Err(unreadable) => return Poll::Ready(Heard::Unreadable(unreadable)),
                }
            }
            if self.has_ended {
                return Poll::Ready(Heard::Closing);
            }
            match self.poll_read_some(cx) {
                Poll::Ready(Ok(0)) => self.has_ended = true,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Heard::Gone),
                // What had come already is answered, as closing would reset the connection.
                Poll::Pending if self.state.order() >= Order::Finish && self.state.is_idle() => {
                    return Poll::Ready(Heard::Closing);
                }
                Poll::Pending if self.state.may_rest() => return Poll::Ready(Heard::Resting),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn poll_read_some(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        poll_read_some(Pin::new(&mut *self.stream), cx, &mut self.arrived)
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // While its body comes, whoever reads that learns of it. More than one request ahead is not read.
        if self.has_ended || !self.arrived.is_empty() || !matches!(self.body, Body::Nothing) {
            return Poll::Pending;
        }
        match ready!(self.poll_read_some(cx)) {
            Ok(0) => {
                // It may still want the answer.
                self.has_ended = true;
                self.state.half_closed();
                Poll::Pending
            }
            Ok(_) => Poll::Pending,
            Err(_) => Poll::Ready(()),
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        if self.waits && self.arrived.is_empty() {
            self.waits = false;
            self.interim.extend_from_slice(CONTINUE);
        }
        loop {
            match self.take_part() {
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(None) if matches!(self.body, Body::Nothing) => return Poll::Ready(None),
                Ok(None) => {}
                Err(failure) => return Poll::Ready(Some(Err(failure))),
            }
            // From then on it goes before the answer: a socket wakes one writer.
            if !self.is_answering
                && let Poll::Ready(Err(_)) = self.poll_interim(cx)
            {
                return Poll::Ready(Some(Err(Failure::DownstreamReset)));
            }
            match ready!(self.poll_fill(cx)) {
                Ok(0) => {
                    self.has_ended = true;
                    return Poll::Ready(Some(Err(Failure::DownstreamReset)));
                }
                Ok(_) => {}
                Err(_) => return Poll::Ready(Some(Err(Failure::DownstreamReset))),
            }
        }
    }

    /// Takes what has arrived of the body; `None` = nothing has, or nothing more is to come.
    fn take_part(&mut self) -> Result<Option<Frame<Bytes>>, Failure> {
        match &mut self.body {
            Body::Length(_) if self.arrived.is_empty() => Ok(None),
            Body::Length(left) => {
                let taken = (*left).min(self.arrived.len() as u64);
                *left -= taken;
                if *left == 0 {
                    self.body = Body::Nothing;
                }
                Ok(Some(Frame::data(self.arrived.split_to(taken as usize).freeze())))
            }
            Body::Chunks(chunked) => {
                let piece = chunked.next(&mut self.arrived).map_err(|_| Failure::BadRequest("chunk"))?;
                self.chunks = chunked.count();
                if chunked.is_end() {
                    self.body = Body::Nothing;
                }
                Ok(match piece {
                    Some(Piece::Data(data)) => Some(Frame::data(data)),
                    Some(Piece::Trailers(trailers)) => Some(Frame::trailers(trailers)),
                    Some(Piece::End) | None => None,
                })
            }
            Body::Nothing | Body::Doubtful => Ok(None),
        }
    }

    /// Reads some of the body.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.arrived.capacity() - self.arrived.len() < self.window / 2 {
            self.arrived.reserve(self.window);
        }
        let asked = self.arrived.capacity() - self.arrived.len();
        let read = ready!(poll_read_buf(Pin::new(&mut *self.stream), cx, &mut self.arrived))?;
        if read == asked {
            self.window = (self.window * 4).min(MAX_READ);
        }
        Poll::Ready(Ok(read))
    }

    fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.interim.is_empty() {
            let written = ready!(Pin::new(&mut *self.stream).poll_write(cx, &self.interim))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.interim.advance(written);
            if self.interim.is_empty() {
                self.interim = BytesMut::new();
                return Pin::new(&mut *self.stream).poll_flush(cx);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.wake_reader();
    }
}

impl BodySource for RefCell<Inner> {
    fn poll_frame(&self, request: u64, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let mut inner = self.borrow_mut();
        if inner.request != request {
            return Poll::Ready(Some(Err(Failure::DownstreamReset)));
        }
        let polled = inner.poll_body(cx);
        if polled.is_pending() && !inner.reader.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            inner.reader = Some(cx.waker().clone());
        }
        if matches!(inner.body, Body::Nothing) || matches!(polled, Poll::Ready(Some(Err(_)))) {
            // From here on the connection's task looks whether the downstream is still there.
            inner.state.wake_from(cx.waker());
        }
        polled
    }

    fn chunks(&self) -> u64 {
        self.borrow().chunks
    }

    fn left(&self, request: u64) -> SizeHint {
        let inner = self.borrow();
        match &inner.body {
            _ if inner.request != request => SizeHint::new(),
            Body::Nothing => SizeHint::with_exact(0),
            Body::Length(left) => SizeHint::with_exact(*left),
            Body::Chunks(_) | Body::Doubtful => SizeHint::new(),
        }
    }
}

/// As a tunnel reads it: what has arrived comes first.
impl AsyncRead for Channel {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        if inner.arrived.is_empty() {
            return Pin::new(&mut *inner.stream).poll_read(cx, buf);
        }
        let taken = inner.arrived.len().min(buf.remaining());
        buf.put_slice(&inner.arrived.split_to(taken));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Channel {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = self.0.borrow_mut();
        ready!(inner.poll_interim(cx))?;
        Pin::new(&mut *inner.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.0.borrow_mut();
        ready!(inner.poll_interim(cx))?;
        Pin::new(&mut *inner.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut().stream).poll_shutdown(cx)
    }
}
