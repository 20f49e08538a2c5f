//! Upgraded connections: WebSocket, and what else a route allows. After the endpoint's 101 bytes flow as they come.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONNECTION, HeaderName, HeaderValue, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, Request, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use shoal_model::view::RouteView;
use shoal_policy::failure::Failure;
use shoal_policy::forwarding::strip_switch;
use shoal_policy::gate::Upgrade;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};

use crate::body::{Payload, RequestBody};
use crate::connections::Connections;
use crate::exchange::{Exchange, TunnelTally};
use crate::listener::{Connection, Place};
use crate::upstream::{Switch, Switched, forward_upgrade};
use crate::worker::Worker;

const ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
/// RFC 6455 §1.3.
const WEBSOCKET_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The downstream half of a connection that may become a tunnel.
pub(crate) struct Upgradable(OnUpgrade);

/// Takes the downstream half out of the request, so that it does not travel on.
pub(crate) fn take_upgradable(head: &mut Parts) -> Option<Upgradable> {
    head.extensions.remove::<OnUpgrade>().map(Upgradable)
}

/// Asks the endpoint to upgrade. If it does, the tunnel runs on its own once the 101 is out; any other answer is an
/// ordinary one.
pub(crate) async fn open(
    connection: &Rc<Connection>,
    route: &Arc<RouteView>,
    mut head: Parts,
    upgrade: &Upgrade,
    downstream: Upgradable,
    exchange: &mut Exchange,
) -> Result<Response<Payload>, Failure> {
    let protocol = HeaderValue::from_str(&upgrade.protocol).map_err(|_| Failure::BadRequest("upgrade"))?;
    head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    head.headers.insert(UPGRADE, protocol.clone());
    let request = Request::from_parts(head, RequestBody::Empty);
    let worker = &connection.worker;
    let Switch { mut response, attempt, occupied } =
        match forward_upgrade(worker, route, request, &mut exchange.trace).await? {
            Switched::No(ordinary) => return Ok(ordinary.map(Payload::Upstream)),
            Switched::Yes(switch) => switch,
        };
    check_switch(response.headers(), upgrade)?;
    let upstream = hyper::upgrade::on(&mut response);
    let limits = &connection.settings.view.limits;
    connection.state.set_tunnel();
    let tally = Rc::<TunnelTally>::default();
    exchange.tunnel = Some(tally.clone());
    let relayed = relay(worker.clone(), downstream.0, upstream, limits.tunnel_idle_timeout, tally);
    let (place, _) = Place::take(&connection.listener);
    tokio::task::spawn_local(async move {
        relayed.await;
        // Until now it counted among the connections of the listener, and among the endpoint's requests.
        drop((place, attempt, occupied));
    });

    let (mut answer, _) = response.into_parts();
    strip_switch(&mut answer.headers);
    answer.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    answer.headers.insert(UPGRADE, protocol);
    answer.extensions = http::Extensions::new();
    Ok(Response::from_parts(answer, Payload::Empty))
}

/// The 101 must be meant for this request: the right protocol and, for WebSocket, the right answer to its key.
fn check_switch(headers: &HeaderMap, upgrade: &Upgrade) -> Result<(), Failure> {
    let protocol = headers.get(UPGRADE).map_or(&b""[..], HeaderValue::as_bytes);
    if !protocol.eq_ignore_ascii_case(upgrade.protocol.as_bytes()) {
        return Err(Failure::UpstreamProtocol);
    }
    match &upgrade.key {
        None => Ok(()),
        Some(key) => {
            let accept = headers.get(ACCEPT).map_or(&b""[..], HeaderValue::as_bytes);
            if accept == accept_of(key.as_bytes()).as_bytes() {
                Ok(())
            } else {
                Err(Failure::UpstreamProtocol)
            }
        }
    }
}

/// RFC 6455 §4.2.2. SHA-1 is what the protocol says; nothing is kept secret by it.
fn accept_of(key: &[u8]) -> String {
    let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY);
    digest.update(key);
    digest.update(WEBSOCKET_GUID);
    STANDARD.encode(digest.finish())
}

/// Carries bytes both ways until both sides have ended, one breaks, or nothing moves for too long. The end of one
/// direction is passed on, and the other goes on.
async fn relay(
    worker: Rc<Worker>,
    downstream: OnUpgrade,
    upstream: OnUpgrade,
    idle_timeout: Duration,
    tally: Rc<TunnelTally>,
) {
    let _registered = Connections::register_tunnel(&worker);
    let (Ok(downstream), Ok(upstream)) = tokio::join!(downstream, upstream) else { return };
    let moved = || tally.received.get() + tally.sent.get();
    let mut downstream = Counted { io: TokioIo::new(downstream), tally: &tally };
    let mut upstream = TokioIo::new(upstream);
    let mut copying = pin!(copy_bidirectional(&mut downstream, &mut upstream));
    let idle = worker.deadlines.arm(idle_timeout);
    let mut last = 0;
    poll_fn(|cx| {
        if copying.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        while idle.poll_passed(cx).is_ready() {
            if moved() == last {
                return Poll::Ready(());
            }
            last = moved();
            idle.reset(idle_timeout);
        }
        Poll::Pending
    })
    .await;
}

/// The downstream half, counted.
struct Counted<'a, T> {
    io: T,
    tally: &'a TunnelTally,
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<'_, T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        self.tally.received.set(self.tally.received.get() + read as u64);
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<'_, T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = polled {
            self.tally.sent.set(self.tally.sent.get() + written as u64);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_only_the_right_switch() {
        assert_eq!(accept_of(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "RFC 6455 §1.3");
        let websocket = Upgrade {
            protocol: "websocket".into(),
            key: Some(HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==")),
        };
        let check = |protocol: &'static str, accept: &'static str, good: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(UPGRADE, HeaderValue::from_static(protocol));
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(check_switch(&headers, &websocket).is_ok(), good, "{protocol} {accept}");
        };
        check("WebSocket", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", true);
        check("websocket", "s3pPLMBiTxaQ9kYGzzhZRbK+xOa=", false);
        check("websocket", "", false);
        check("h2c", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", false);
    }
}
