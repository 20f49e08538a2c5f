//! Serving one downstream connection: TLS, version, codec, and its polite or impolite end.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use bytes::BytesMut;
use shoal_model::view::ListenerView;
use shoal_policy::forwarding::Caller;
use shoal_policy::tcp::proxy_header::Ends;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::coalesced::Coalesced;
use super::connection::{Connection, WorkerListener};
use super::downstream_certificate::{self, DownstreamCertificate};
use super::io::Watched;
use super::opening::{Opening, is_tls};
use super::preface::{self, Version};
use super::stream::{SecureStream, Stream};
use super::unheard::{Unheard, refuse};
use super::{ConnectionState, ListenerSettings, Tls, proxy_protocol};
use super::{http1, http2};
use crate::carriage;
use crate::hints::Hints;
use crate::liveness;
use crate::metrics::{ClientOutcome, ClientRefusal, Limit, TurnedAway};
use crate::worker::Worker;

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
    let connection = |certificate, downstream_certificate| {
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
            downstream_certificate,
            tunnel: Cell::new(None),
            place: Cell::new(None),
            portion: Cell::new(usize::MAX),
            has_named_request_id: Cell::new(false),
            hints: Hints::default(),
        })
    };
    match &settings.tls {
        None => serve_clear(connection(None, None), stream).await,
        Some(tls) => {
            let arrived = Arrived { worker: &worker, settings: &settings, tls, peer: source };
            // Boxed: the tasks of connections would have room for it as long as they last.
            let secured = Box::pin(shake_hands(arrived, stream, connection)).await;
            if let Some(Secured { connection, stream, version }) = secured {
                let _registered = connection.listener.lobby.connections.register(&connection);
                serve_version(connection, stream, BytesMut::new(), version).await;
            }
        }
    }
}

/// A connection that shall be encrypted.
struct Arrived<'a> {
    worker: &'a Worker,
    settings: &'a ListenerSettings,
    tls: &'a Tls,
    peer: SocketAddr,
}

/// What comes of a handshake.
struct Secured {
    connection: Rc<Connection>,
    stream: Stream,
    version: Version,
}

/// Shakes hands with whoever is there. `None` = it came to nothing: that is counted and logged, and plain HTTP was told that
/// it is none here.
async fn shake_hands(
    arrived: Arrived<'_>,
    stream: TcpStream,
    connection: impl FnOnce(Option<usize>, Option<Box<DownstreamCertificate>>) -> Rc<Connection>,
) -> Option<Secured> {
    let Arrived { worker, settings, tls, peer } = arrived;
    let handshake = TlsAcceptor::from(tls.config.clone()).accept(Opening::new(stream));
    let shaken = timeout(settings.view.limits.tls_handshake_timeout, handshake.into_fallible());
    let shaken = match shaken.await {
        Ok(Ok(shaken)) => Ok(shaken),
        Ok(Err((error, stream))) => match stream.into_plain() {
            Some(stream) => {
                let connection = connection(None, None);
                let _registered = connection.listener.lobby.connections.register(&connection);
                let stream = Box::new(watched(&connection, Stream::Clear(stream)));
                refuse(&connection, stream, Unheard::PLAIN_HTTP).await;
                return None;
            }
            None => Err(error),
        },
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    };
    let (stream, shown) = match shaken.and_then(|stream| identified(worker, &settings.view, stream)) {
        Ok(identified) => identified,
        Err(error) => {
            worker.metrics.handshakes_failed.add(1);
            if error.kind() == io::ErrorKind::TimedOut {
                worker.metrics.reach(Limit::TlsHandshakeTimeout);
            }
            let mut reason = None;
            if let Some((outcome, refusal)) = downstream_certificate::refused(&error) {
                worker.metrics.ask_client(outcome);
                if let Some(refusal) = refusal {
                    worker.metrics.refuse_client(refusal);
                }
                reason = Some(refusal.map_or(outcome.name(), ClientRefusal::name));
            }
            tracing::debug!(
                listener = %settings.view.name,
                %peer,
                client_certificate = reason,
                error = %error.to_string().escape_debug(),
                "a TLS handshake failed"
            );
            return None;
        }
    };
    let (_, session) = stream.get_ref();
    let version = if session.alpn_protocol() == Some(b"h2") { Version::Http2 } else { Version::Http1 };
    let certificate = tls.certificates.find(session.server_name());
    let connection = connection(Some(certificate), shown);
    Some(Secured { connection, stream: Stream::Tls(stream), version })
}

/// The stream with who is at its other end, where that is asked.
fn identified(
    worker: &Worker,
    view: &ListenerView,
    stream: TlsStream<Opening<TcpStream>>,
) -> io::Result<(SecureStream, Option<Box<DownstreamCertificate>>)> {
    let stream = Box::new(stream);
    let Some(auth) = &view.client_auth else { return Ok((stream, None)) };
    let shown = downstream_certificate::identify(stream.get_ref().1, auth)?;
    worker.metrics.ask_client(if shown.is_some() { ClientOutcome::Verified } else { ClientOutcome::Absent });
    Ok((stream, shown))
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
            let stream = Box::new(watched(&connection, Stream::Clear(stream)));
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
            let stream = Box::new(watched(&connection, stream));
            http1::serve(&connection, stream, first).await;
            reach(&connection, None);
        }
        Version::Http2 => {
            let stream = watched(&connection, stream);
            let stream = stream.of_frames(first.freeze(), &connection.settings.view.limits);
            let stream = Coalesced::new(Box::new(stream));
            let ended = Box::pin(http2::serve(&connection, stream)).await;
            reach(&connection, ended.as_ref().err().and_then(http2::limit_of));
            let error = connection.state.h2().error().or_else(|| http2::error_of(ended.as_ref().err()?));
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

fn watched(connection: &Connection, stream: Stream) -> Watched<Stream> {
    Watched::new(stream, connection.state.clone(), &connection.settings.view.limits)
}
