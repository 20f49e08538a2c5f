//! Serving a connection that speaks HTTP/1.1: request after request, until one of both sides has enough.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, Version};
use http_body::{Body, Frame};
use hyper::ext::ReasonPhrase;
use shoal_model::site::HeaderCase;
use shoal_policy::http1::{
    Answered, Asked, HeadLimits, RequestHead, RequestReader, Spelling, Unreadable, write_fields,
    write_response_head,
};
use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;

use super::channel::{Channel, Heard};
use crate::answer::Answer;
use crate::body::ResponseBody;
use crate::listener::connection::Connection;
use crate::listener::io::Watched;
use crate::listener::stream::Stream;
use crate::listener::unheard::{Unheard, refuse};
use crate::listener::{ConnectionState, Order};
use crate::metrics::Limit;
use crate::outgoing::Outgoing;
use crate::request;
use crate::request_body::Broken;

/// How the work on a connection ends.
enum Ended {
    /// Nothing is asked for the time being: what working takes is given back.
    Resting,
    /// There is nothing more to say.
    Closing,
    /// Nobody is there.
    Gone,
    /// What came is no request.
    Unheard(Unheard),
    /// It becomes a tunnel.
    Tunnel(oneshot::Sender<Channel>),
}

/// Serves `stream`, of which `first` was read before, to its end.
pub(in crate::listener) async fn serve(
    connection: &Rc<Connection>,
    stream: Box<Watched<Stream>>,
    first: BytesMut,
) {
    let state = &connection.state;
    let channel = Channel::new(stream, state.clone(), first);
    let is_aborted = {
        let served = pin!(serve_channel(connection, channel.clone()));
        unless_aborted(state, served).await.is_none()
    };
    // Whoever waits for a tunnel holds the connection.
    drop(connection.tunnel.take());
    if is_aborted && state.limit() == Some(Limit::HeaderTimeout) {
        Box::pin(refuse(connection, channel, Unheard::Late)).await;
    }
}

async fn serve_channel(connection: &Rc<Connection>, mut channel: Channel) {
    let resting = &connection.worker.metrics.resting;
    loop {
        match Box::pin(work(connection, &channel)).await {
            Ended::Resting => {
                connection.state.set_resting(true);
                connection.caller.rest();
                resting.add(1);
                poll_fn(|cx| channel.poll_news(cx)).await;
                resting.subtract(1);
                connection.state.set_resting(false);
            }
            Ended::Closing => {
                if !channel.may_just_close() {
                    // Whoever does not listen goes without: it is aborted soon.
                    _ = channel.shutdown().await;
                }
                return;
            }
            Ended::Gone => return,
            Ended::Unheard(unheard) => return Box::pin(refuse(connection, channel, unheard)).await,
            Ended::Tunnel(tunnel) => {
                _ = tunnel.send(channel);
                return;
            }
        }
    }
}

/// Answers what is asked.
async fn work(connection: &Rc<Connection>, channel: &Channel) -> Ended {
    let limits = &connection.settings.view.limits;
    let limits = HeadLimits { max_bytes: limits.max_header_bytes, max_fields: limits.max_header_count };
    let (mut reader, mut outgoing) =
        (RequestReader::new(connection.settings.view.requests_keep_names), Outgoing::default());
    loop {
        let head = match poll_fn(|cx| channel.poll_head(&mut reader, limits, cx)).await {
            Heard::Head(head) => head,
            Heard::Resting => return Ended::Resting,
            Heard::Closing => return Ended::Closing,
            Heard::Gone => return Ended::Gone,
            Heard::Unreadable(unreadable) => {
                if unreadable == Unreadable::TooLarge {
                    connection.state.reached(Limit::MaxHeaderBytes);
                }
                return Ended::Unheard(unreadable.into());
            }
        };
        let mut answer = Answer::begin(connection);
        let asked = Asked::new(&head.parts.method, head.parts.version, head.persists);
        if !serve_one(connection, channel, head, &mut answer).await {
            return Ended::Gone;
        }
        match send(connection, channel, &mut outgoing, &mut answer, asked).await {
            After::GoOn => outgoing.shrink(),
            After::End(ended) => return ended,
        }
        // Whoever sends requests without waiting for answers waits for his turn instead: others have theirs.
        if channel.has_more() {
            tokio::task::yield_now().await;
        }
    }
}

/// Has one request answered; `false` = nobody is there to read it.
async fn serve_one(
    connection: &Rc<Connection>,
    channel: &Channel,
    mut head: Box<RequestHead>,
    answer: &mut Answer,
) -> bool {
    if !head.wire.is_clean() {
        head.parts.extensions.insert(head.wire);
    }
    let body = channel.begin_body(head.framing, head.expects_continue);
    let version = head.parts.version;
    let mut serving = pin!(request::serve(connection, &mut head.parts, body, answer));
    poll_fn(|cx| {
        let polled = serving.as_mut().poll(cx);
        for (status, fields) in connection.hints.take() {
            // Before HTTP/1.1 nobody knows what that is.
            if version == Version::HTTP_11 {
                channel.say_before(&interim(status, &fields, connection.settings.view.header_case));
            }
        }
        match polled {
            Poll::Ready(served) => Poll::Ready(served.is_ok()),
            Poll::Pending if channel.poll_unsaid(cx).is_ready() => Poll::Ready(false),
            Poll::Pending => channel.poll_gone(cx).map(|()| false),
        }
    })
    .await
}

fn interim(status: StatusCode, fields: &HeaderMap, case: HeaderCase) -> Vec<u8> {
    let reason = status.canonical_reason().unwrap_or_default();
    let mut text = format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).into_bytes();
    write_fields(&mut text, fields, case.into());
    text.extend_from_slice(b"\r\n");
    text
}

/// What follows an answer.
enum After {
    GoOn,
    End(Ended),
}

async fn send(
    connection: &Rc<Connection>,
    channel: &Channel,
    outgoing: &mut Outgoing,
    answer: &mut Answer,
    mut asked: Asked,
) -> After {
    // Who has not sent the body learns that it will not be read (RFC 9110 §10.1.1).
    asked.persists &= !channel.begin_answer();
    let Answer { head, shared, request_id, body } = answer;
    let mut persists = false;
    outgoing.begin(|text| {
        let reason = head.extensions.get::<ReasonPhrase>().map(ReasonPhrase::as_bytes);
        let spelling = Spelling::of(connection.settings.view.header_case, &head.extensions);
        let (shared, request_id) = (shared.as_deref(), request_id.as_ref());
        let answered = Answered { head, shared, request_id, reason, length: body.length() };
        let date = || connection.worker.date.now();
        let departure = write_response_head(text, answered, asked, spelling, date);
        persists = departure.persists;
        departure.framing
    });
    let mut body = Ending::of(body);
    let mut writer = channel.clone();
    let is_out = poll_fn(|cx| match outgoing.poll(&mut writer, &mut body, cx) {
        Poll::Ready(sent) => Poll::Ready(sent.is_ok()),
        Poll::Pending => channel.poll_gone(cx).map(|()| false),
    });
    if !is_out.await {
        return After::End(Ended::Gone);
    }
    body.0.end();
    if head.status == StatusCode::SWITCHING_PROTOCOLS
        && let Some(tunnel) = connection.tunnel.take()
    {
        return After::End(Ended::Tunnel(tunnel));
    }
    let has_come = channel.end_body();
    if has_come && persists && connection.state.order() < Order::Finish {
        return After::GoOn;
    }
    connection.state.set_unread(!has_come || channel.has_more());
    After::End(Ended::Closing)
}

/// A body whose exchange ends as soon as all of it has been taken: whoever has got the whole answer finds it counted.
struct Ending<'a>(&'a mut ResponseBody);

impl<'a> Ending<'a> {
    fn of(body: &'a mut ResponseBody) -> Self {
        if body.is_end_stream() {
            body.end();
        }
        Self(body)
    }
}

impl Body for Ending<'_> {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let polled = Pin::new(&mut *self.0).poll_frame(cx);
        if matches!(polled, Poll::Ready(None)) || (polled.is_ready() && self.0.is_end_stream()) {
            self.0.end();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}

/// Runs `work` to its end; `None` = the connection was told to end at once.
async fn unless_aborted<F: Future>(state: &ConnectionState, mut work: Pin<&mut F>) -> Option<F::Output> {
    let mut is_registered = false;
    poll_fn(|cx| {
        // A task has one waker for life.
        if !std::mem::replace(&mut is_registered, true) {
            state.register(cx.waker());
        }
        match work.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if state.order() == Order::Abort => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
