//! One stream of HTTP/2: a request, and its response as fast as the downstream takes it.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONTENT_LENGTH, DATE, EXPECT, TE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, request, response};
use http_body::{Body, Frame};
use shoal_policy::gate::has_padded_value;
use tokio::sync::oneshot;

use crate::answer::Answer;
use crate::awaited_continue::AwaitedContinue;
use crate::body::ResponseBody;
use crate::deadline::Deadline;
use crate::incoming::{Incoming, StreamBody};
use crate::listener::Connection;
use crate::listener::portions::Portions;
use crate::metrics::Limit;
use crate::room;
use crate::tunnel::StreamHalf;

/// Serves a request on a task of its own, which stays on its worker.
pub(super) fn begin(
    connection: &Rc<Connection>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    // The codec lets them pass.
    if has_padded_value(request.headers()) {
        return respond.send_reset(Reason::PROTOCOL_ERROR);
    }
    let connection = connection.clone();
    let (mut head, stream) = request.into_parts();
    let awaited_continue = waits(&head, &stream).then(Rc::<AwaitedContinue>::default);
    let (body, tunnel) = body_of(&head, stream, awaited_continue.clone());
    // The runtime moves a task about several times before it runs, and once after: better a small one.
    tokio::task::spawn_local(Box::pin(async move {
        let mut answer = Answer::begin(&connection);
        if serve(&connection, &mut head, body, awaited_continue.as_deref(), &mut respond, &mut answer).await {
            drop(head);
            send(&connection, &mut respond, tunnel, answer.head, &mut answer.body).await;
        }
    }));
}

/// Has the request answered; `false` = nobody is to be told. One that was taken back, or broken, before its turn came is as
/// if it had never been: it opens no connection to an endpoint.
async fn serve(
    connection: &Rc<Connection>,
    head: &mut request::Parts,
    body: Incoming,
    awaited_continue: Option<&AwaitedContinue>,
    respond: &mut SendResponse<Bytes>,
    answer: &mut Answer,
) -> bool {
    if poll_fn(|cx| Poll::Ready(respond.poll_reset(cx).is_ready())).await {
        return false;
    }
    let mut answering = pin!(crate::request::serve(connection, head, body, answer));
    poll_fn(|cx| {
        let polled = answering.as_mut().poll(cx);
        for (status, fields) in connection.hints.take() {
            say_before(respond, status, fields);
        }
        match polled {
            Poll::Ready(Ok(())) => Poll::Ready(true),
            Poll::Ready(Err(_)) => {
                respond.send_reset(Reason::INTERNAL_ERROR);
                Poll::Ready(false)
            }
            Poll::Pending => {
                if awaited_continue.is_some_and(|awaited_continue| awaited_continue.poll_asked(cx).is_ready())
                {
                    say_before(respond, StatusCode::CONTINUE, HeaderMap::new());
                }
                // Whoever takes a request back is not answered.
                respond.poll_reset(cx).map(|_| false)
            }
        }
    })
    .await
}

async fn send(
    connection: &Connection,
    respond: &mut SendResponse<Bytes>,
    tunnel: Option<Tunnel>,
    mut head: response::Parts,
    body: &mut ResponseBody,
) {
    complete(&mut head, body, connection);
    if let Some(tunnel) = tunnel
        && head.status.is_success()
    {
        if let Some(sending) = send_head(respond, head, false) {
            tunnel.open(sending);
        }
        return;
    }
    let is_end = body.is_end_stream();
    let Some(sending) = send_head(respond, head, is_end) else { return };
    if !is_end {
        let mut outgoing = Outgoing::new(connection, sending, body);
        poll_fn(|cx| outgoing.poll(cx)).await;
    }
}

/// What a CONNECT leads to when it is agreed to.
struct Tunnel {
    stream: RecvStream,
    taker: oneshot::Sender<StreamHalf>,
}

impl Tunnel {
    fn open(self, sending: SendStream<Bytes>) {
        // If nobody waits for it any more, the stream ends here.
        _ = self.taker.send(StreamHalf::new(sending, self.stream));
    }
}

/// The downstream sends the body when it is told to go on.
fn waits(head: &request::Parts, stream: &RecvStream) -> bool {
    !stream.is_end_stream() && head.headers.contains_key(EXPECT)
}

fn say_before(respond: &mut SendResponse<Bytes>, status: StatusCode, fields: HeaderMap) {
    let mut response = Response::new(());
    (*response.status_mut(), *response.headers_mut()) = (status, fields);
    // Whoever is gone need not be told.
    _ = respond.send_informational(response);
}

fn body_of(
    head: &request::Parts,
    stream: RecvStream,
    awaited_continue: Option<Rc<AwaitedContinue>>,
) -> (Incoming, Option<Tunnel>) {
    if head.method == Method::CONNECT {
        let (taker, taken) = oneshot::channel();
        return (Incoming::Tunnel(taken), Some(Tunnel { stream, taker }));
    }
    let body = match stream.is_end_stream() {
        true => Incoming::Empty,
        false => Incoming::Stream(StreamBody::new(stream, &head.headers, awaited_continue)),
    };
    (body, None)
}

/// What every response has on HTTP/2.
fn complete(head: &mut response::Parts, body: &ResponseBody, connection: &Connection) {
    if body.keeps_trailers() {
        // It says nothing in a response, and the codec would choke on it.
        head.headers.remove(TE);
    }
    if !head.headers.contains_key(DATE) {
        let now = HeaderValue::from_bytes(&connection.worker.date.now());
        head.headers.insert(DATE, now.unwrap_or(HeaderValue::from_static("")));
    }
    if !body.is_end_stream()
        && let Some(length) = body.size_hint().exact()
        && !head.headers.contains_key(CONTENT_LENGTH)
    {
        head.headers.insert(CONTENT_LENGTH, length.into());
    }
}

/// `None` = the stream is gone, or the head cannot be said on HTTP/2.
fn send_head(
    respond: &mut SendResponse<Bytes>,
    head: response::Parts,
    is_end: bool,
) -> Option<SendStream<Bytes>> {
    match respond.send_response(Response::from_parts(head, ()), is_end) {
        Ok(sending) => Some(sending),
        Err(error) => {
            tracing::debug!(%error, "no response");
            respond.send_reset(Reason::INTERNAL_ERROR);
            None
        }
    }
}

/// The body of a response on its way. A stream that does not take it for too long is reset: what it holds is kept in memory
/// for as long as it lives.
struct Outgoing<'a> {
    connection: &'a Connection,
    sending: SendStream<Bytes>,
    body: &'a mut ResponseBody,
    /// What there is no room for yet.
    part: Option<Bytes>,
    portions: Portions,
    stalled: Option<Deadline>,
}

impl<'a> Outgoing<'a> {
    fn new(connection: &'a Connection, sending: SendStream<Bytes>, body: &'a mut ResponseBody) -> Self {
        let limits = &connection.settings.view.limits;
        let portions = Portions::new(limits.min_rate, limits.write_idle_timeout);
        Self { connection, sending, body, part: None, portions, stalled: None }
    }

    /// Ready when nothing more is to be sent, or nobody takes it.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now_ms = self.connection.worker.deadlines.now_ms();
        self.connection.portion.set(self.portions.next(now_ms) as usize);
        let mut parts = 0;
        let polled = self.poll_sent(cx, &mut parts);
        if polled.is_ready() || self.sending.poll_reset(cx).is_ready() {
            return Poll::Ready(());
        }
        self.watch(parts, now_ms);
        let Some(stalled) = &self.stalled else { return Poll::Pending };
        stalled.poll_passed(cx).map(|()| self.connection.worker.metrics.reach(Limit::WriteIdleTimeout))
    }

    /// Sends what there is, and room for; counts the parts that there were.
    fn poll_sent(&mut self, cx: &mut Context<'_>, parts: &mut u32) -> Poll<()> {
        loop {
            if self.part.is_some() && !ready!(room::poll_given(&mut self.sending, cx)) {
                return Poll::Ready(());
            }
            if let Some(part) = self.part.take()
                && self.send(part)
            {
                return Poll::Ready(());
            }
            let polled = ready!(Pin::new(&mut *self.body).poll_frame(cx));
            match polled.map(|polled| polled.map(Frame::into_data)) {
                None => {
                    // Whoever is gone misses nothing.
                    _ = self.sending.send_data(Bytes::new(), true);
                    return Poll::Ready(());
                }
                Some(Err(_)) => {
                    self.sending.send_reset(Reason::INTERNAL_ERROR);
                    return Poll::Ready(());
                }
                // It needs no room.
                Some(Ok(Ok(part))) if part.is_empty() => {
                    if self.send(part) {
                        return Poll::Ready(());
                    }
                }
                Some(Ok(Ok(part))) => {
                    *parts += 1;
                    room::ask(&mut self.sending);
                    self.part = Some(part);
                }
                Some(Ok(Err(frame))) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        self.sending.reserve_capacity(0);
                        _ = self.sending.send_trailers(trailers);
                    }
                    return Poll::Ready(());
                }
            }
        }
    }

    /// Sends one part; `true` = nothing more is to be sent.
    fn send(&mut self, part: Bytes) -> bool {
        let is_last = self.body.is_end_stream();
        self.sending.send_data(part, is_last).is_err() || is_last
    }

    /// Looks at what became of the parts of this turn.
    fn watch(&mut self, parts: u32, now_ms: u64) {
        match (&self.part, parts) {
            // It is the one of an earlier turn.
            (Some(_), 0) => {}
            // A part was there, and could not be followed by the next one: the window is closed.
            (Some(_), _) => {
                let wait = self.portions.wait(parts, now_ms);
                self.stalled = Some(self.connection.worker.deadlines.arm(wait));
            }
            (None, _) => {
                self.stalled = None;
                self.portions.drained(parts, now_ms);
            }
        }
    }
}
