//! Serving one downstream connection: TLS, version, codec, and its polite or impolite end.

use std::cell::Cell;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Request;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use shoal_model::view::ListenerView;
use shoal_policy::forwarding::Caller;
use shoal_policy::gate::ErrorCode;
use shoal_policy::tcp::proxy_header::Ends;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::client::{self, Client};
use super::coalesced::{Coalesced, Witness};
use super::connection::{Connection, WorkerListener};
use super::http1;
use super::io::Watched;
use super::last_words;
use super::opening::{Opening, is_tls};
use super::portions::{Offered, Portions};
use super::preface::{self, Version};
use super::state::Order;
use super::stream::{SecureStream, Stream};
use super::unheard::{FAREWELL, Unheard, refuse};
use super::{ConnectionState, proxy_protocol};
use crate::carriage;
use crate::deadline::Deadline;
use crate::incoming::Incoming;
use crate::liveness;
use crate::metrics::{ClientOutcome, Limit, TurnedAway};
use crate::request;
use crate::worker::Worker;

const H2_STREAM_WINDOW: u32 = 256 << 10;
const H2_CONNECTION_WINDOW: u32 = 1 << 20;
const H2_MAX_HEADER_LIST: u32 = 32 << 10;
/// Unsent response bytes kept per stream.
const H2_SEND_BUFFER: usize = 64 << 10;
/// Streams that were reset before they were accepted (CVE-2023-44487).
const H2_MAX_PENDING_RESETS: usize = 20;
/// Streams that we reset for what the downstream did wrong (CVE-2025-8671).
const H2_MAX_LOCAL_RESETS: usize = 256;
const H2_PING_INTERVAL: Duration = Duration::from_secs(20);
const H2_PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Serves one accepted connection to its end.
pub(super) async fn serve(listener: Rc<WorkerListener>, mut stream: TcpStream, peer: SocketAddr) {
    let settings = listener.shared.settings.load_full();
    let worker = listener.worker.clone();
    let place;
    let mut ends = None;
    let view = &settings.view;
    if let Some(proxy_protocol) = &view.proxy_protocol {
        match Box::pin(proxy_protocol::receive(&mut stream, peer, proxy_protocol)).await {
            Ok(received) => ends = received,
            Err(error) => {
                tracing::debug!(%peer, %error, "no PROXY header");
                return worker.metrics.turn_away(TurnedAway::ProxyHeader);
            }
        }
    }
    let source = ends.map_or(peer, |ends| ends.source);
    if let Some(rate) = view.limits.max_connection_rate_per_address
        && !listener.shared.admission.by_address_lately.admits(source.ip(), worker.clock.now_ms(), rate)
    {
        return worker.metrics.turn_away(TurnedAway::AddressTooFast);
    }
    match view.limits.max_connections_per_address {
        None => place = None,
        Some(limit) => match listener.shared.admission.take_place(source.ip(), limit) {
            Some(taken) => place = Some(taken),
            None => return worker.metrics.turn_away(TurnedAway::AddressFull),
        },
    }
    // Streamed frames would wait for up to 40 ms otherwise. A socket that refuses is about to fail anyway.
    let _ = stream.set_nodelay(true);
    liveness::set(&stream, &view.limits.liveness);
    if view.names_callers && ends.is_none() {
        ends = stream.local_addr().ok().map(|destination| Ends { source, destination });
    }
    if let Some(carriage) = &view.carriage {
        let ends = ends.unwrap_or(Ends { source, destination: listener.shared.bound });
        return Box::pin(carriage::serve(listener, settings.clone(), carriage, stream, ends)).await;
    }
    let state = ConnectionState::new(worker.clock.clone());
    let caller = Caller::new(source.ip(), settings.gate.https, &settings.view.trusted_proxies);
    let connection = |certificate, client| {
        let (settings, state) = (settings.clone(), state.clone());
        let (worker, listener) = (worker.clone(), listener.clone());
        Rc::new(Connection {
            worker,
            listener,
            settings,
            state,
            caller,
            ends,
            _place: place,
            certificate,
            client,
            tunnel: Cell::new(None),
            place: Cell::new(None),
            offered: Cell::new(None),
            portion: Cell::new(usize::MAX),
            has_named_request_id: Cell::new(false),
        })
    };
    match &settings.tls {
        None => serve_clear(connection(None, None), stream).await,
        Some(tls) => {
            let handshake = TlsAcceptor::from(tls.config.clone()).accept(Opening::new(stream));
            // Boxed, as what lasts longer than it would carry its room along.
            let shaken = timeout(settings.view.limits.tls_handshake_timeout, handshake.into_fallible());
            let shaken = match Box::pin(shaken).await {
                Ok(Ok(shaken)) => Ok(shaken),
                Ok(Err((error, stream))) => match stream.into_plain() {
                    Some(stream) => {
                        let connection = connection(None, None);
                        let _registered = connection.listener.lobby.connections.register(&connection);
                        let stream = watched(&connection, Stream::Clear(stream), Bytes::new());
                        return Box::pin(refuse(&connection, stream, Unheard::PLAIN_HTTP)).await;
                    }
                    None => Err(error),
                },
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            };
            let (stream, client) = match shaken.and_then(|stream| identified(&worker, view, stream)) {
                Ok(identified) => identified,
                Err(error) => {
                    worker.metrics.handshakes_failed.add(1);
                    if error.kind() == io::ErrorKind::TimedOut {
                        worker.metrics.reach(Limit::TlsHandshakeTimeout);
                    }
                    if let Some(outcome) = client::refused(&error) {
                        worker.metrics.ask_client(outcome);
                    }
                    return;
                }
            };
            let (_, session) = stream.get_ref();
            let version =
                if session.alpn_protocol() == Some(b"h2") { Version::Http2 } else { Version::Http1 };
            let certificate = tls.certificates.find(session.server_name());
            let connection = connection(Some(certificate), client);
            let _registered = connection.listener.lobby.connections.register(&connection);
            serve_version(connection, Stream::Tls(stream), BytesMut::new(), version).await;
        }
    }
}

/// The stream with who is at its other end, where that is asked.
fn identified(
    worker: &Worker,
    view: &ListenerView,
    stream: TlsStream<Opening<TcpStream>>,
) -> io::Result<(SecureStream, Option<Box<Client>>)> {
    let stream = Box::new(stream);
    let Some(auth) = &view.client_auth else { return Ok((stream, None)) };
    let client = client::identify(stream.get_ref().1, auth)?;
    worker.metrics.ask_client(if client.is_some() { ClientOutcome::Verified } else { ClientOutcome::Absent });
    Ok((stream, client))
}

async fn serve_clear(connection: Rc<Connection>, mut stream: TcpStream) {
    let _registered = connection.listener.lobby.connections.register(&connection);
    let mut first = BytesMut::new();
    let told = poll_fn(|cx| {
        // Nothing was asked yet.
        if connection.state.poll_finishing(cx).is_ready() {
            return Poll::Ready(None);
        }
        preface::poll_version(Pin::new(&mut stream), &mut first, cx).map(Some)
    });
    match told.await {
        Some(Ok(_)) if is_tls(&first) => {
            let stream = watched(&connection, Stream::Clear(stream), Bytes::new());
            Box::pin(refuse(&connection, stream, Unheard::UNEXPECTED_TLS)).await;
        }
        Some(Ok(version)) if !first.is_empty() => {
            serve_version(connection, Stream::Clear(stream), first, version).await;
        }
        Some(_) => {}
        None => reach(&connection, None),
    }
}

async fn serve_version(connection: Rc<Connection>, stream: Stream, first: BytesMut, version: Version) {
    match version {
        Version::Http1 => {
            let stream = watched(&connection, stream, Bytes::new());
            http1::serve(&connection, stream, first).await;
            reach(&connection, None);
        }
        Version::Http2 => {
            let stream = Coalesced::new(watched(&connection, stream, first.freeze()));
            let ended = Box::pin(serve_http2(&connection, stream)).await;
            reach(&connection, ended.as_ref().err().and_then(limit_of));
            let error = connection.state.error().or_else(|| error_of(ended.as_ref().err()?));
            if let Some(code) = error {
                connection.worker.metrics.end_h2(code);
            }
        }
    }
}

/// Counts the limit that has ended the connection: the one that its state knows of, or the codec's.
fn reach(connection: &Connection, of_codec: Option<Limit>) {
    if let Some(limit) = connection.state.limit().or(of_codec) {
        connection.worker.metrics.reach(limit);
    }
}

fn watched(connection: &Connection, stream: Stream, first: Bytes) -> Box<Watched<Stream>> {
    Box::new(Watched::new(stream, first, connection.state.clone(), &connection.settings.view.limits))
}

/// The error with which the codec has ended a connection by itself.
fn error_of(error: &hyper::Error) -> Option<ErrorCode> {
    let cause = error.source()?.downcast_ref::<h2::Error>()?;
    if cause.is_library() { ErrorCode::numbered(cause.reason()?.into()) } else { None }
}

/// The limit because of which the codec gave up: a flood that it counts itself.
fn limit_of(error: &hyper::Error) -> Option<Limit> {
    (error_of(error) == Some(ErrorCode::EnhanceYourCalm)).then_some(Limit::H2Codec)
}

async fn serve_http2<T>(connection: &Rc<Connection>, io: Coalesced<T>) -> hyper::Result<()>
where
    T: AsyncRead + AsyncWrite + Witness + Unpin + 'static,
{
    connection.state.set_h2();
    let limits = &connection.settings.view.limits;
    let mut builder = http2::Builder::new(Streams(connection.clone()));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.h2_max_streams)
        .enable_connect_protocol()
        .max_header_list_size(H2_MAX_HEADER_LIST.min(limits.max_header_bytes.try_into().unwrap_or(u32::MAX)))
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .max_send_buf_size(H2_SEND_BUFFER)
        .max_pending_accept_reset_streams(H2_MAX_PENDING_RESETS)
        .max_local_error_reset_streams(H2_MAX_LOCAL_RESETS)
        .keep_alive_interval(H2_PING_INTERVAL)
        .keep_alive_timeout(H2_PING_TIMEOUT);
    let served = connection.clone();
    let service =
        service_fn(move |request: Request<_>| request::serve(served.clone(), request.map(Incoming::Stream)));
    let ended = {
        let codec = pin!(builder.serve_connection(TokioIo::new(io.clone()), service));
        let written = |cx: &mut Context<'_>| io.poll_written(cx);
        drive(codec, &connection.state, |codec| codec.graceful_shutdown(), written).await
    };
    if ended.is_ok()
        && let Some(code) = connection.state.error()
    {
        io.add(&last_words::goaway(connection.state.last_stream(), code.number()));
        // Whoever does not listen goes without.
        let mut io = io;
        _ = timeout(FAREWELL, io.shutdown()).await;
    }
    ended
}

/// Runs the codec and obeys the orders that the connection is given. Whenever the codec waits, what it has put off is
/// `written`; when that fails, the connection is over.
async fn drive<C>(
    mut codec: Pin<&mut C>,
    state: &ConnectionState,
    finish: impl Fn(Pin<&mut C>),
    written: impl Fn(&mut Context<'_>) -> Poll<io::Result<()>>,
) -> hyper::Result<()>
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut registered = false;
    let mut finishing = false;
    poll_fn(|cx| {
        // A task has one waker for life.
        if !std::mem::replace(&mut registered, true) {
            state.register(cx.waker());
        }
        loop {
            if let Poll::Ready(ended) = codec.as_mut().poll(cx) {
                // The last words, if they can be said at once.
                _ = written(cx);
                return Poll::Ready(ended);
            }
            if let Poll::Ready(Err(_)) = written(cx) {
                return Poll::Ready(Ok(()));
            }
            let shall_finish = match state.order() {
                Order::GoOn => false,
                Order::Retire => state.may_say_goodbye(),
                Order::Finish => true,
                Order::Abort => return Poll::Ready(Ok(())),
            };
            if !shall_finish || finishing {
                return Poll::Pending;
            }
            finishing = true;
            finish(codec.as_mut());
        }
    })
    .await
}

/// Streams of an HTTP/2 connection stay on its worker. One whose response nobody takes for too long is reset: what it
/// holds is kept in memory for as long as it lives.
#[derive(Clone)]
struct Streams(Rc<Connection>);

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let connection = self.0.clone();
        // The runtime moves a task about several times before it runs, and once after: better a small one.
        let mut stream = Box::pin(stream);
        tokio::task::spawn_local(async move {
            let limits = &connection.settings.view.limits;
            let deadlines = &connection.worker.deadlines;
            let mut portions = Portions::new(limits.min_rate, limits.write_idle_timeout);
            let mut stalled: Option<Deadline> = None;
            let is_stalled = poll_fn(|cx| {
                connection.offered.set(None);
                connection.portion.set(portions.next(deadlines.now_ms()) as usize);
                if stream.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(false);
                }
                match connection.offered.get() {
                    None => {}
                    // A part was there, and could not be followed by the next one: the window is closed.
                    Some(Offered { parts, is_more: true }) => {
                        stalled = Some(deadlines.arm(portions.wait(parts, deadlines.now_ms())));
                    }
                    Some(Offered { parts, is_more: false }) => {
                        stalled = None;
                        portions.drained(parts, deadlines.now_ms());
                    }
                }
                stalled.as_ref().map_or(Poll::Pending, |stalled| stalled.poll_passed(cx).map(|()| true))
            })
            .await;
            if is_stalled {
                connection.worker.metrics.reach(Limit::WriteIdleTimeout);
            }
        });
    }
}
