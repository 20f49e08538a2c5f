//! Serving one downstream connection: TLS, version, codec, and its polite or impolite end.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use bytes::BytesMut;
use shoal_model::view::ListenerView;
use shoal_policy::forwarding::Caller;
use shoal_policy::tcp::proxy_header::Ends;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::accept::Place;
use super::coalesced::Coalesced;
use super::connection::{Connection, WorkerListener};
use super::downstream_certificate::{self, DownstreamCertificate};
use super::io::Watched;
use super::opening::{Opening, is_tls};
use super::preface::{self, Version};
use super::stream::{SecureStream, Stream};
use super::unheard::{Unheard, refuse};
use super::{ConnectionState, ListenerSettings, proxy_protocol};
use super::{http1, http2};
use crate::carriage;
use crate::hints::Hints;
use crate::liveness;
use crate::metrics::{ClientOutcome, ClientRefusal, Limit, TurnedAway};
use crate::worker::Worker;

/// Serves one connection to its end. One task's memory holds it for as long as the connection lasts: each kind of
/// connection has one that is as large as it needs.
pub(super) type Serving = Pin<Box<dyn Future<Output = ()>>>;

/// A connection that was accepted.
pub(super) struct Accepted {
    pub(super) listener: Rc<WorkerListener>,
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    /// Held for as long as the connection lasts.
    pub(super) place: Place,
}

/// How `accepted` is served; `None` = it is turned away.
pub(super) fn serve(mut accepted: Accepted) -> Option<Serving> {
    let settings = accepted.listener.shared.settings.load_full();
    if settings.view.proxy_protocol.is_none() {
        return welcome(accepted, settings, None);
    }
    Some(Box::pin(async move {
        if let Ok(ends) = introduced(&mut accepted, &settings.view).await
            && let Some(serving) = welcome(accepted, settings, ends)
        {
            serving.await;
        }
    }))
}

/// Waits for the PROXY header.
async fn introduced(accepted: &mut Accepted, view: &ListenerView) -> Result<Option<Ends>, ()> {
    let Some(proxy_protocol) = &view.proxy_protocol else { return Ok(None) };
    let peer = accepted.peer;
    proxy_protocol::receive(&mut accepted.stream, peer, proxy_protocol).await.map_err(|error| {
        tracing::debug!(%peer, %error, "no PROXY header");
        accepted.listener.worker.metrics.turn_away(TurnedAway::ProxyHeader);
    })
}

/// `ends` = what a PROXY header has said.
fn welcome(accepted: Accepted, settings: Arc<ListenerSettings>, ends: Option<Ends>) -> Option<Serving> {
    let Accepted { listener, stream, peer, place } = accepted;
    let view = &settings.view;
    let worker = &listener.worker;
    let admission = &listener.shared.admission;
    let source = ends.map_or(peer, |ends| ends.source);
    if let Some(rate) = view.limits.max_connection_rate_per_address
        && !admission.by_address_lately.admits(source.ip(), worker.clock.now_ms(), rate)
    {
        worker.metrics.turn_away(TurnedAway::AddressTooFast);
        return None;
    }
    let mut address_place = None;
    if let Some(limit) = view.limits.max_connections_per_address {
        address_place = admission.take_place(source.ip(), limit);
        if address_place.is_none() {
            worker.metrics.turn_away(TurnedAway::AddressFull);
            return None;
        }
    }
    liveness::set(&stream, &view.limits.liveness);
    if view.carriage.is_some() {
        let ends = ends.unwrap_or(Ends { source, destination: listener.shared.bound });
        return Some(Box::pin(async move {
            if let Some(carriage) = &settings.view.carriage {
                carriage::serve(listener, settings.clone(), carriage, stream, ends).await;
            }
            drop((place, address_place));
        }));
    }
    let named = || stream.local_addr().ok().map(|destination| Ends { source, destination });
    let ends = ends.or_else(|| if view.names_callers { named() } else { None });
    let connection = Connection {
        worker: worker.clone(),
        state: ConnectionState::new(worker.clock.clone()),
        caller: Caller::new(source.ip(), settings.gate.https, &view.trusted_proxies),
        ends,
        _place: address_place,
        certificate: None,
        downstream_certificate: None,
        tunnel: Cell::new(None),
        place: Cell::new(None),
        portion: Cell::new(usize::MAX),
        has_named_request_id: Cell::new(false),
        hints: Hints::default(),
        listener,
        settings,
    };
    Some(match connection.settings.tls {
        None => Box::pin(async move {
            serve_clear(Rc::new(connection), stream).await;
            drop(place);
        }),
        Some(_) => Box::pin(async move {
            // Boxed: the task would have room for it as long as it lasts.
            let secured = Box::pin(shake_hands(connection, stream, source)).await;
            if let Some(Secured { connection, stream, version }) = secured {
                let _registered = connection.listener.lobby.connections.register(&connection);
                serve_version(connection, stream, BytesMut::new(), version).await;
            }
            drop(place);
        }),
    })
}

/// What comes of a handshake.
struct Secured {
    connection: Rc<Connection>,
    stream: Stream,
    version: Version,
}

/// Shakes hands with whoever is there. `None` = it came to nothing: that is counted and logged, and plain HTTP was told that
/// it is none here.
async fn shake_hands(mut connection: Connection, stream: TcpStream, peer: SocketAddr) -> Option<Secured> {
    let settings = connection.settings.clone();
    let tls = settings.tls.as_ref()?;
    let handshake = TlsAcceptor::from(tls.config.clone()).accept(Opening::new(stream));
    let shaken = timeout(settings.view.limits.tls_handshake_timeout, handshake.into_fallible());
    let shaken = match shaken.await {
        Ok(Ok(shaken)) => Ok(shaken),
        Ok(Err((error, stream))) => match stream.into_plain() {
            Some(stream) => {
                let connection = Rc::new(connection);
                let _registered = connection.listener.lobby.connections.register(&connection);
                let stream = Box::new(watched(&connection, Stream::Clear(stream)));
                refuse(&connection, stream, Unheard::PLAIN_HTTP).await;
                return None;
            }
            None => Err(error),
        },
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    };
    let metrics = &connection.worker.metrics;
    let (stream, shown) =
        match shaken.and_then(|stream| identified(&connection.worker, &settings.view, stream)) {
            Ok(identified) => identified,
            Err(error) => {
                metrics.handshakes_failed.add(1);
                if error.kind() == io::ErrorKind::TimedOut {
                    metrics.reach(Limit::TlsHandshakeTimeout);
                }
                let mut reason = None;
                if let Some((outcome, refusal)) = downstream_certificate::refused(&error) {
                    metrics.ask_client(outcome);
                    if let Some(refusal) = refusal {
                        metrics.refuse_client(refusal);
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
    connection.certificate = Some(tls.certificates.find(session.server_name()));
    connection.downstream_certificate = shown;
    Some(Secured { connection: Rc::new(connection), stream: Stream::Tls(stream), version })
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
        // What has come already is answered, as closing would reset the connection.
        if let Poll::Ready(told) = preface::poll_version(Pin::new(&mut stream), &mut first, cx) {
            return Poll::Ready(Some(told));
        }
        connection.state.poll_finishing(cx).map(|()| None)
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
