//! HTTP/2 connections to an endpoint: many requests share one, and another is opened when all are full.

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http::Request;
use hyper::client::conn::http2::{Builder, Connection, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use shoal_model::view::UpstreamView;
use shoal_policy::age::is_over_age;
use shoal_policy::failure::Failure;
use shoal_policy::retry::Progress;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use super::answered::{Answered, Unanswered};
use super::occupied::Occupied;
use super::wire::Wire;
use crate::request_body::RequestBody;

/// HTTP/2 connections to one endpoint on one worker.
const MAX_CONNECTIONS: usize = 64;
/// Response bytes an endpoint may send ahead, a stream. The window of a connection has room for all of its streams: one
/// that nobody reads must not hold up the others.
const STREAM_WINDOW: u32 = 256 << 10;
/// Largest window of a connection.
const MAX_CONNECTION_WINDOW: u32 = 1 << 30;
/// Request bytes kept unsent, a stream.
const SEND_BUFFER: usize = 64 << 10;
/// Largest response head, bytes.
const MAX_RESPONSE_HEAD: u32 = 64 << 10;
/// Streams the codec believes to have room for until the endpoint's settings say it: no number that they can say.
const UNSETTLED: usize = usize::MAX - 1;
/// How long the settings of an endpoint are left alone before they are looked at again.
const SETTINGS_PAUSE: Duration = Duration::from_millis(2);

/// The tasks of a connection stay on its worker.
#[derive(Clone, Copy)]
struct OnWorker;

impl<F: Future + 'static> hyper::rt::Executor<F> for OnWorker {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

type Codec = Connection<TokioIo<Wire>, RequestBody, OnWorker>;

/// The HTTP/2 connections of one endpoint on one worker.
#[derive(Default)]
pub(super) struct Shared {
    open: RefCell<Vec<Rc<SharedLink>>>,
    /// Held by who opens the next one: others wait for it instead of opening theirs.
    pub(super) opening: Mutex<()>,
    /// The endpoint was asked for HTTP/2, and speaks HTTP/1.1.
    pub(super) declined: Cell<bool>,
    /// None is kept: the endpoint gets no more requests.
    closed: Cell<bool>,
}

/// An HTTP/2 connection. It ends with its last stream once nobody holds it.
pub(super) struct SharedLink {
    sender: RefCell<SendRequest<RequestBody>>,
    /// `None` = it takes no more requests.
    codec: Rc<RefCell<Option<Codec>>>,
    /// Requests go to it as `https`.
    pub(super) secure: bool,
    born_ms: u64,
    used_ms: Cell<u64>,
    in_flight: Cell<u32>,
    served: Cell<u64>,
    /// It may be dead, or is about to close: no more requests.
    retired: Cell<bool>,
    _occupied: Occupied,
}

impl SharedLink {
    /// Speaks HTTP/2 over `wire`.
    pub(super) async fn open(
        wire: Wire,
        view: &UpstreamView,
        now_ms: u64,
        occupied: Occupied,
    ) -> Result<Rc<Self>, Failure> {
        let secure = matches!(wire, Wire::Tls(_));
        let transport = &view.transport;
        let window = STREAM_WINDOW.saturating_mul(transport.max_streams).min(MAX_CONNECTION_WINDOW);
        let mut builder = Builder::new(OnWorker);
        builder
            .timer(TokioTimer::new())
            .initial_max_send_streams(UNSETTLED)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(window)
            .max_send_buf_size(SEND_BUFFER)
            .max_header_list_size(MAX_RESPONSE_HEAD)
            .keep_alive_interval(transport.ping_interval)
            .keep_alive_timeout(transport.ping_timeout);
        let shaken = builder.handshake(TokioIo::new(wire)).await;
        let (sender, codec) = shaken.map_err(|_| Failure::UpstreamConnectFailed)?;
        let codec = Rc::new(RefCell::new(Some(codec)));
        tokio::task::spawn_local(run(codec.clone()));
        Ok(Rc::new(Self {
            sender: RefCell::new(sender),
            codec,
            secure,
            born_ms: now_ms,
            used_ms: Cell::new(now_ms),
            in_flight: Cell::new(0),
            served: Cell::new(0),
            retired: Cell::new(false),
            _occupied: occupied,
        }))
    }

    /// It may serve more, if not at once.
    fn is_fit(&self, now_ms: u64, view: &UpstreamView) -> bool {
        !self.retired.get()
            && self.codec.borrow().is_some()
            && !self.sender.borrow().is_closed()
            && self.served.get() < view.max_requests_per_connection
            && !is_over_age(self.born_ms, now_ms, view.max_connection_age)
    }

    /// Streams it has room for: what the site says, or the endpoint if that is less.
    fn max_streams(&self, view: &UpstreamView) -> u32 {
        let allowed = self.codec.borrow().as_ref().map_or(0, Connection::current_max_send_streams);
        view.transport.max_streams.min(u32::try_from(allowed).unwrap_or(u32::MAX))
    }
}

/// Runs a connection until it takes no more requests. The streams it has opened run on by themselves.
async fn run(codec: Rc<RefCell<Option<Codec>>>) {
    poll_fn(|cx| {
        let mut place = codec.borrow_mut();
        let Some(open) = place.as_mut() else { return Poll::Ready(()) };
        let Poll::Ready(ended) = Pin::new(open).poll(cx) else { return Poll::Pending };
        if let Err(error) = ended {
            tracing::debug!(%error, "an HTTP/2 connection to an endpoint has ended");
        }
        // What still waited in it is given back to the senders.
        let ended = place.take();
        drop(place);
        drop(ended);
        Poll::Ready(())
    })
    .await;
}

/// The endpoint has sent its settings.
fn is_settled(codec: &Codec) -> bool {
    codec.current_max_send_streams() != UNSETTLED
}

/// Where the next stream goes: to the connection with the fewest, among those (streams, most streams) that have room.
fn least_loaded(links: impl Iterator<Item = (u32, u32)>) -> Option<usize> {
    let with_room = links.enumerate().filter(|(_, (in_flight, max))| in_flight < max);
    with_room.min_by_key(|(_, (in_flight, _))| *in_flight).map(|(place, _)| place)
}

impl Shared {
    /// A place on one of the connections.
    pub(super) fn take(&self, now_ms: u64, view: &UpstreamView) -> Option<Stream> {
        let mut open = self.open.borrow_mut();
        open.retain(|link| link.is_fit(now_ms, view));
        let place = least_loaded(open.iter().map(|link| (link.in_flight.get(), link.max_streams(view))))?;
        Some(Stream::begin(open[place].clone(), now_ms))
    }

    /// There are as many connections as there may be.
    pub(super) fn is_full(&self) -> bool {
        self.open.borrow().len() >= MAX_CONNECTIONS
    }

    /// Takes in a new connection, with its first request.
    pub(super) fn add(&self, link: Rc<SharedLink>, now_ms: u64) -> Stream {
        if !self.closed.get() {
            self.open.borrow_mut().push(link.clone());
        }
        Stream::begin(link, now_ms)
    }

    /// Says whether connections are kept; else those that carry nothing are closed now, and others with their last stream.
    pub(super) fn set_closed(&self, closed: bool) {
        self.closed.set(closed);
        if closed {
            self.open.borrow_mut().clear();
        }
    }

    /// Lets go of one that carries nothing; `false` = there is none.
    pub(super) fn close_unused(&self) -> bool {
        let mut open = self.open.borrow_mut();
        let unused = open.iter().position(|link| link.in_flight.get() == 0);
        unused.map(|place| open.swap_remove(place)).is_some()
    }

    /// Lets go of those that wait for too long, or may serve no more.
    pub(super) fn close_stale(&self, now_ms: u64, view: &UpstreamView) {
        let timeout_ms = view.idle_timeout.as_millis();
        self.open.borrow_mut().retain(|link| {
            if link.in_flight.get() > 0 {
                link.used_ms.set(now_ms);
            }
            let idle_ms = u128::from(now_ms.saturating_sub(link.used_ms.get()));
            idle_ms < timeout_ms && link.is_fit(now_ms, view)
        });
    }
}

/// The place of one request on an HTTP/2 connection, until dropped.
pub(super) struct Stream {
    link: Rc<SharedLink>,
}

impl Stream {
    fn begin(link: Rc<SharedLink>, now_ms: u64) -> Self {
        link.in_flight.set(link.in_flight.get() + 1);
        link.used_ms.set(now_ms);
        Self { link }
    }

    pub(super) fn is_secure(&self) -> bool {
        self.link.secure
    }

    /// Requests its connection has served before.
    pub(super) fn served(&self) -> u64 {
        self.link.served.get()
    }

    /// Sends a request whose head is that of HTTP/2, and waits for the head of the answer.
    pub(super) async fn exchange(
        &self,
        request: Request<RequestBody>,
        reused: bool,
    ) -> Result<Answered, Box<Unanswered>> {
        self.link.served.set(self.link.served.get() + 1);
        let sent = self.link.sender.borrow_mut().try_send_request(request);
        let mut error = match sent.await {
            Ok(response) => return Ok(Answered::Streamed(Box::new(response))),
            Err(error) => error,
        };
        if let Some(request) = error.take_message() {
            self.retire();
            let (failure, progress) = (Failure::UpstreamReset, Progress::NotStarted);
            return Err(Box::new(Unanswered { failure, progress, body: Some(request.into_body()) }));
        }
        let (failure, progress) = judge(error.error(), reused);
        if progress == Progress::NotStarted {
            self.retire();
        }
        Err(Unanswered::lost(failure, progress))
    }

    /// The endpoint allows that a stream becomes a tunnel (RFC 8441 §3); what it allows is waited for this long.
    pub(super) async fn may_become_tunnel(&self, patience: Duration) -> bool {
        let codec = &self.link.codec;
        let waiting = async {
            // The codec tells nobody when they come. Only the first streams of a connection have to ask again.
            while codec.borrow().as_ref().is_some_and(|codec| !is_settled(codec)) {
                sleep(SETTINGS_PAUSE).await;
            }
        };
        let _ = timeout(patience, waiting).await;
        codec.borrow().as_ref().is_some_and(Connection::is_extended_connect_protocol_enabled)
    }

    /// Its connection takes no more requests; those under way go on.
    pub(super) fn retire(&self) {
        self.link.retired.set(true);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.link.in_flight.set(self.link.in_flight.get() - 1);
    }
}

/// What an error before the response head means, on a connection that had served others before or not.
fn judge(error: &hyper::Error, reused: bool) -> (Failure, Progress) {
    let cause = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    match cause {
        // RFC 9113 §6.8, §8.7: streams above the last one of a GOAWAY, and refused ones, were not looked at.
        Some(cause) if cause.is_go_away() && cause.is_remote() => {
            (Failure::UpstreamReset, Progress::NotStarted)
        }
        Some(cause) if cause.is_reset() && cause.reason() == Some(h2::Reason::REFUSED_STREAM) => {
            (Failure::UpstreamReset, Progress::NotStarted)
        }
        Some(cause) if cause.is_reset() && cause.is_remote() => {
            (Failure::UpstreamReset, Progress::SentOnFresh)
        }
        Some(cause) if cause.is_library() => (Failure::UpstreamProtocol, Progress::Answered),
        Some(_) | None if reused => (Failure::UpstreamReset, Progress::SentOnReused),
        Some(_) | None => (Failure::UpstreamReset, Progress::SentOnFresh),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_go_where_the_fewest_are() {
        let check = |links: &[(u32, u32)], expected| {
            assert_eq!(least_loaded(links.iter().copied()), expected, "{links:?}");
        };
        check(&[], None);
        check(&[(0, 100)], Some(0));
        check(&[(3, 100), (1, 100), (2, 100)], Some(1));
        check(&[(2, 2), (5, 100)], Some(1));
        check(&[(2, 2), (7, 7)], None);
        check(&[(0, 0), (1, 2)], Some(1));
    }
}
