//! A connection to an endpoint: sends a request, reads the head of its answer, and then the body.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::request::Parts as RequestHead;
use http::response::Parts;
use http::{StatusCode, Version};
use http_body::{Frame, SizeHint};
use hyper::ext::ReasonPhrase;
use shoal_model::site::HeaderCase;
use shoal_policy::forwarding::{Arrival, OwnFields};
use shoal_policy::http1::{
    Chunked, Framing, HeadReader, KnownHead, Malformed, Piece, ResponseHead, Spelling, request_framing,
    write_request_head,
};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::task::unconstrained;
use tokio_util::io::poll_read_buf;

use super::interim::Interim;
use super::rest::{Outcome, Rest};
use crate::outgoing::{Outgoing, SendError};
use crate::request_body::RequestBody;
use crate::upstream::wire::Wire;

/// Bytes asked for at first, and at most.
const FIRST_READ: usize = 8 << 10;
const MAX_READ: usize = 256 << 10;

/// A connection that speaks HTTP/1.1. Dropping it closes it, whatever it is doing.
pub(in crate::upstream) struct Connection {
    /// Shared with what sends the rest of a request.
    wire: Rc<RefCell<Wire>>,
    /// Has come, and is not made sense of yet.
    arrived: BytesMut,
    /// Bytes to ask for: as many as the last answer had.
    window: usize,
    heads: HeadReader,
    /// Shared with the other connections to this endpoint.
    known_head: Rc<RefCell<KnownHead>>,
    outgoing: Outgoing,
    header_case: HeaderCase,
    sending: Sending,
    incoming: Incoming,
    /// The head that has come, until somebody takes it.
    answer: Option<ResponseHead>,
    /// The endpoint keeps it open.
    persists: bool,
    /// The endpoint may take the body of the request for another one.
    is_in_doubt: bool,
}

/// How far the request is out.
enum Sending {
    Whole,
    /// Whoever waits for the head of the answer sends it.
    UnderWay,
    /// The endpoint takes no more, or has answered before it asked for the body.
    Refused,
    Rest(Rest),
}

/// What is to come of the answer.
enum Incoming {
    Head,
    Length(u64),
    Chunks(Chunked),
    UntilClose,
    Nothing,
}

/// Why there is no head of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) enum ExchangeError {
    /// Not a byte of the request went out.
    NotSent {
        /// Nobody has read from its body.
        body_untouched: bool,
    },
    /// The connection closed before an answer began.
    Closed,
    /// The same, but the endpoint took all of the request first.
    Taken,
    /// It closed within the head of the answer, or after an interim one.
    CutShort,
    /// What came is no HTTP/1.1.
    Malformed,
    /// The body of the request broke off.
    RequestBroken,
}

/// Why the body of an answer is cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) enum BodyError {
    /// The connection closed too early.
    Closed,
    /// What came is no HTTP/1.1.
    Malformed,
    /// The body of the request broke off.
    RequestBroken,
}

impl From<Malformed> for ExchangeError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl Connection {
    /// One that is open, to an endpoint that has answered with `known_head` before.
    pub(in crate::upstream) fn new(
        wire: Wire,
        header_case: HeaderCase,
        known_head: Rc<RefCell<KnownHead>>,
    ) -> Self {
        Self {
            wire: Rc::new(RefCell::new(wire)),
            arrived: BytesMut::new(),
            window: FIRST_READ,
            heads: HeadReader::default(),
            known_head,
            outgoing: Outgoing::default(),
            header_case,
            sending: Sending::Whole,
            incoming: Incoming::Nothing,
            answer: None,
            persists: true,
            is_in_doubt: false,
        }
    }

    /// The answers from now on keep how their names are spelled, or not.
    pub(in crate::upstream) fn keep_names(&mut self, keeps: bool) {
        self.heads.keep_lines(keeps);
    }

    /// Sends a request, whose head says how its body is framed, with fields of this node, and waits for the head of the
    /// answer, which is then here to be taken. Interim answers are passed over, but for the one that switches protocols. Nobody
    /// looks at the body before the endpoint says 100 (Continue), or `interim` is tired of waiting for that. What is left of
    /// the request when it is answered is sent by a task, unless it is a body that still waits: that is not sent.
    pub(in crate::upstream) async fn exchange(
        &mut self,
        head: &RequestHead,
        own: Option<&OwnFields>,
        body: &mut RequestBody,
        mut interim: Interim<'_>,
    ) -> Result<StatusCode, ExchangeError> {
        let own = own.map_or(&[][..], |own| own.text(self.header_case));
        let spelling = Spelling::of(self.header_case, &head.extensions);
        self.outgoing.begin(|text| {
            write_request_head(text, head, own, spelling);
            framing_of(head, body)
        });
        self.sending = Sending::UnderWay;
        self.incoming = Incoming::Head;
        self.answer = None;
        self.persists = false;
        let status = poll_fn(|cx| self.poll_exchange(body, &mut interim, cx)).await?;
        self.is_in_doubt = interim.is_unasked();
        if matches!(self.sending, Sending::UnderWay) {
            if interim.holds_body() {
                self.sending = Sending::Refused;
                return Ok(status);
            }
            let body = std::mem::replace(body, RequestBody::Empty);
            self.sending =
                Sending::Rest(Rest::send(std::mem::take(&mut self.outgoing), body, self.wire.clone()));
        }
        Ok(status)
    }

    fn poll_exchange(
        &mut self,
        body: &mut RequestBody,
        interim: &mut Interim<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<StatusCode, ExchangeError>> {
        self.send(body, interim, cx)?;
        loop {
            if !self.arrived.is_empty() {
                let before = self.arrived.len();
                self.answer = self.heads.read(&mut self.arrived, &mut self.known_head.borrow_mut())?;
                if let Some(head) = &self.answer {
                    let status = head.parts.status;
                    if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
                        return Poll::Ready(Ok(status));
                    }
                }
                if let Some(head) = self.answer.take() {
                    if interim.take_in(head, before - self.arrived.len())? {
                        self.send(body, interim, cx)?;
                    }
                    continue;
                }
            }
            match ready!(self.poll_fill(cx)) {
                Ok(1..) => {}
                Err(error) if is_malformed(&error) => return Poll::Ready(Err(ExchangeError::Malformed)),
                Ok(0)
                    if self.arrived.is_empty()
                        && interim.is_none()
                        && matches!(self.sending, Sending::Whole)
                        && self.wire.borrow().is_acknowledged() =>
                {
                    return Poll::Ready(Err(ExchangeError::Taken));
                }
                Ok(0) | Err(_) if self.arrived.is_empty() && interim.is_none() => {
                    return Poll::Ready(Err(ExchangeError::Closed));
                }
                Ok(0) | Err(_) => return Poll::Ready(Err(ExchangeError::CutShort)),
            }
        }
    }

    /// Sends what can be sent of the request, and may be.
    fn send(
        &mut self,
        body: &mut RequestBody,
        interim: &mut Interim<'_>,
        cx: &mut Context<'_>,
    ) -> Result<(), ExchangeError> {
        if !matches!(self.sending, Sending::UnderWay) {
            return Ok(());
        }
        // In a statement of its own: what follows looks at the wire, too.
        let sent = match interim.poll_hold(cx) {
            Poll::Ready(()) => self.outgoing.poll(&mut *self.wire.borrow_mut(), body, cx),
            Poll::Pending => match self.outgoing.poll_head(&mut *self.wire.borrow_mut(), cx) {
                // There is more to come.
                Poll::Ready(Ok(())) => Poll::Pending,
                polled => polled,
            },
        };
        match sent {
            Poll::Ready(Ok(())) => self.sending = Sending::Whole,
            Poll::Ready(Err(SendError::Body)) => return Err(ExchangeError::RequestBroken),
            // Within TLS some may have gone out before the error came.
            Poll::Ready(Err(SendError::Wire)) if self.is_clear() && !self.outgoing.has_begun() => {
                return Err(ExchangeError::NotSent { body_untouched: !self.outgoing.has_taken() });
            }
            // It may have answered before it closed.
            Poll::Ready(Err(SendError::Wire)) => self.sending = Sending::Refused,
            Poll::Pending => {}
        }
        Ok(())
    }

    /// The head of the answer to the last request; `None` = it has none, or it was taken before.
    pub(in crate::upstream) fn answer(&mut self) -> Option<&mut ResponseHead> {
        self.answer.as_mut()
    }

    /// Moves it to `head`, if there is one.
    pub(in crate::upstream) fn take_answer(&mut self, head: &mut Parts) -> Option<()> {
        let answer = self.answer.as_mut()?;
        // A reason phrase of its own goes on as it came.
        if let Some(reason) = answer.reason.take().and_then(|reason| ReasonPhrase::try_from(reason).ok()) {
            answer.parts.extensions.insert(reason);
        }
        std::mem::swap(head, &mut answer.parts);
        self.answer = None;
        Some(())
    }

    /// The head of the answer says how its body arrives.
    pub(in crate::upstream) fn expect_body(&mut self, arrival: Arrival) {
        self.persists = arrival.persists;
        self.incoming = match arrival.framing {
            Framing::Empty | Framing::Length(0) => Incoming::Nothing,
            Framing::Length(length) => Incoming::Length(length),
            Framing::Chunked => Incoming::Chunks(Chunked::default()),
            Framing::UntilClose => Incoming::UntilClose,
        };
        if let Framing::Length(length) = arrival.framing {
            self.window = usize::try_from(length).unwrap_or(MAX_READ).clamp(FIRST_READ, MAX_READ);
        }
    }

    /// Nothing more of the answer is to come.
    pub(in crate::upstream) fn is_end(&self) -> bool {
        matches!(self.incoming, Incoming::Nothing)
    }

    /// What is known of the rest of the body.
    pub(in crate::upstream) fn size_hint(&self) -> SizeHint {
        match self.incoming {
            Incoming::Nothing => SizeHint::with_exact(0),
            Incoming::Length(left) => SizeHint::with_exact(left),
            Incoming::Head | Incoming::Chunks(_) | Incoming::UntilClose => SizeHint::new(),
        }
    }

    /// The next part of the body.
    pub(in crate::upstream) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            match self.take_part() {
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(None) if self.is_end() => return Poll::Ready(None),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            let Poll::Ready(filled) = self.poll_fill(cx) else { return self.poll_request(cx) };
            match filled {
                Ok(0) if matches!(self.incoming, Incoming::UntilClose) => {
                    self.incoming = Incoming::Nothing;
                    return Poll::Ready(None);
                }
                Ok(0) => return Poll::Ready(Some(Err(BodyError::Closed))),
                Ok(_) => {}
                Err(error) if is_malformed(&error) => {
                    return Poll::Ready(Some(Err(BodyError::Malformed)));
                }
                Err(_) => return Poll::Ready(Some(Err(BodyError::Closed))),
            }
        }
    }

    /// Takes what has arrived of the body; `None` = nothing has, or nothing more is to come.
    fn take_part(&mut self) -> Result<Option<Frame<Bytes>>, BodyError> {
        let has_arrived = !self.arrived.is_empty();
        match &mut self.incoming {
            Incoming::Length(left) if has_arrived => {
                let taken = (*left).min(self.arrived.len() as u64);
                *left -= taken;
                if *left == 0 {
                    self.incoming = Incoming::Nothing;
                }
                Ok(Some(Frame::data(self.arrived.split_to(taken as usize).freeze())))
            }
            Incoming::Chunks(chunked) => {
                let piece = chunked.next(&mut self.arrived).map_err(|_| BodyError::Malformed)?;
                if chunked.is_end() {
                    self.incoming = Incoming::Nothing;
                }
                Ok(match piece {
                    Some(Piece::Data(data)) => Some(Frame::data(data)),
                    Some(Piece::Trailers(trailers)) => Some(Frame::trailers(trailers)),
                    Some(Piece::End) | None => None,
                })
            }
            Incoming::UntilClose if has_arrived => Ok(Some(Frame::data(self.arrived.split().freeze()))),
            Incoming::Head | Incoming::Length(_) | Incoming::UntilClose | Incoming::Nothing => Ok(None),
        }
    }

    /// While nothing comes: has the request broken off?
    fn poll_request(&self, cx: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Sending::Rest(rest) = &self.sending {
            if rest.outcome() == Outcome::Broken {
                return Poll::Ready(Some(Err(BodyError::RequestBroken)));
            }
            rest.watch(cx);
        }
        Poll::Pending
    }

    /// Reads what is there. Without anything to read there is no need for a buffer.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut wire = self.wire.borrow_mut();
        ready!(wire.poll_read_ready(cx))?;
        let spare = self.arrived.capacity() - self.arrived.len();
        if spare < self.window / 2 {
            self.arrived.reserve(self.window);
        }
        let asked = self.arrived.capacity() - self.arrived.len();
        let read = ready!(poll_read_buf(Pin::new(&mut *wire), cx, &mut self.arrived))?;
        if read == asked {
            self.window = (self.window * 4).min(MAX_READ);
        }
        Poll::Ready(Ok(read))
    }

    /// The answer has ended: `true` = the connection is as good as before.
    pub(in crate::upstream) fn settle(&mut self) -> bool {
        let is_sent = match &self.sending {
            Sending::Whole => true,
            Sending::UnderWay | Sending::Refused => false,
            Sending::Rest(rest) => rest.outcome() == Outcome::Sent,
        };
        let is_whole =
            is_sent && self.persists && !self.is_in_doubt && self.is_end() && self.arrived.is_empty();
        // One that waits needs no memory.
        self.arrived = BytesMut::new();
        self.outgoing.shrink();
        if !self.is_clear() {
            // Nobody can tell when reading is worth a buffer: it waits with one.
            self.window = FIRST_READ;
        }
        self.sending = Sending::Whole;
        is_whole
    }

    /// The endpoint has neither closed it nor said anything while nothing was asked.
    pub(in crate::upstream) fn is_quiet(&self) -> bool {
        match &mut *self.wire.borrow_mut() {
            Wire::Clear(socket) => {
                matches!(socket.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
            // Its records are not all for us to see: tickets come late.
            Wire::Tls(stream) => {
                let mut byte = [0];
                let mut bytes = ReadBuf::new(&mut byte);
                // Whatever else this turn has read: pending must mean that nothing is there.
                let read = unconstrained(poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, &mut bytes)));
                pin!(read).poll(&mut Context::from_waker(Waker::noop())).is_pending()
            }
        }
    }

    fn is_clear(&self) -> bool {
        matches!(&*self.wire.borrow(), Wire::Clear(_))
    }

    /// The bytes that follow a 101, those that have come already first; `None` = the request is not out.
    pub(in crate::upstream) fn into_tunnel(self) -> Option<(Bytes, Wire)> {
        let wire = Rc::into_inner(self.wire)?;
        Some((self.arrived.freeze(), wire.into_inner()))
    }
}

/// What came are no records of TLS, or none that fit.
fn is_malformed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput)
}

/// What the head says of `body`; the gate, or whoever framed it, has seen to it that it says something.
fn framing_of(head: &RequestHead, body: &RequestBody) -> Framing {
    match body {
        RequestBody::Empty => Framing::Empty,
        _ => request_framing(Version::HTTP_11, &head.headers).unwrap_or(Framing::Empty),
    }
}
