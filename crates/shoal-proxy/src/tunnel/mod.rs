//! Upgraded connections and streams: WebSocket, and what else a route allows. Once the endpoint has agreed, bytes flow as
//! they come.

mod handshake;
mod relay;
mod stream_half;

use std::rc::Rc;
use std::sync::Arc;

use h2::ext::Protocol;
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::request::Parts;
use http::{Method, StatusCode};
use shoal_model::view::RouteView;
use shoal_policy::failure::Failure;
use shoal_policy::forwarding::strip_interim;
use shoal_policy::gate::Upgrade;
use tokio::sync::oneshot;

use handshake::{ACCEPT, KEY, accept_of, check_switch, new_key};
use relay::{DownstreamSide, relay};

pub(crate) use stream_half::StreamHalf;

use crate::answer::Answer;
use crate::body::Payload;
use crate::exchange::TunnelTally;
use crate::incoming::Incoming;
use crate::listener::{Connection, Place};
use crate::upstream::{Switch, Switched, forward_upgrade};

/// The downstream half of what may become a tunnel.
pub(crate) enum Upgradable {
    /// The connection, once the answer is out.
    Connection,
    /// A stream of HTTP/2.
    Stream(oneshot::Receiver<StreamHalf>),
}

/// Takes the downstream half out of the request, so that it does not travel on.
pub(crate) fn take_upgradable(incoming: &mut Incoming, connection: &Connection) -> Option<Upgradable> {
    match connection.state.is_h2() {
        true => incoming.take_tunnel().map(Upgradable::Stream),
        false => Some(Upgradable::Connection),
    }
}

/// What an extended CONNECT (RFC 8441) asks for.
pub(crate) fn take_protocol(head: &mut Parts) -> Option<Protocol> {
    if head.method == Method::CONNECT { head.extensions.remove() } else { None }
}

/// The route allows it, and its endpoints can be asked: HTTP/2 knows nothing but WebSocket.
pub(crate) fn is_possible(route: &RouteView, upgrade: &Upgrade) -> bool {
    let is_known = route.upstream.transport.may_switch() || &*upgrade.protocol == "websocket";
    is_known && route.upgrades.contains(&upgrade.protocol)
}

/// Asks the endpoint to upgrade. If it does, the tunnel runs on its own once the answer is out; any other answer is an
/// ordinary one.
pub(crate) async fn open(
    connection: &Rc<Connection>,
    route: &Arc<RouteView>,
    head: &mut Parts,
    upgrade: &Upgrade,
    downstream: Upgradable,
    answer: &mut Answer,
) -> Result<(), Failure> {
    let worker = &connection.worker;
    let protocol = HeaderValue::from_str(&upgrade.protocol).map_err(|_| Failure::BadRequest("upgrade"))?;
    // Each hop agrees by a key of its own, if it is one of HTTP/1.1.
    let key = match upgrade.extended {
        true => Some(new_key([worker.entropy(), worker.entropy()])),
        false => upgrade.key.clone(),
    };
    head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    head.headers.insert(UPGRADE, protocol.clone());
    if let Some(key) = &key {
        head.headers.insert(KEY, key.clone());
    }
    let exchange = &mut answer.body.exchange;
    exchange.asked_switch = true;
    let Switch { head: mut agreed, side, held } = match forward_upgrade(
        worker,
        &connection.listener.sources.upstreams,
        route,
        head,
        &mut exchange.trace,
    )
    .await?
    {
        // To the caller of an extended CONNECT it would mean yes.
        Switched::No(ordinary) if upgrade.extended && ordinary.status().is_success() => {
            return Err(Failure::UpstreamProtocol);
        }
        Switched::No(ordinary) => {
            answer.put(ordinary, Payload::Upstream);
            return Ok(());
        }
        Switched::Yes(switch) => switch,
    };
    if agreed.status == StatusCode::SWITCHING_PROTOCOLS {
        check_switch(&agreed.headers, &upgrade.protocol, key.as_ref())?;
    }
    let limits = &connection.settings.view.limits;
    let tally = Rc::<TunnelTally>::default();
    exchange.tunnel = Some(tally.clone());
    // A connection that becomes a tunnel still counts as one, of the worker, of the listener and of its address. A stream
    // belongs to its connection.
    let counted = (!upgrade.extended).then(|| {
        connection.state.set_tunnel();
        (
            Place::take(&connection.listener),
            connection.listener.lobby.connections.register_tunnel(),
            connection.clone(),
        )
    });
    let downstream = match downstream {
        Upgradable::Stream(stream) => DownstreamSide::Stream(stream),
        Upgradable::Connection => {
            let (give, taken) = oneshot::channel();
            connection.tunnel.set(Some(give));
            DownstreamSide::Connection(taken)
        }
    };
    let relayed = relay(worker.clone(), downstream, side, limits.tunnel_idle_timeout, tally);
    let cut = connection.listener.lobby.connections.cut();
    tokio::task::spawn_local(async move {
        cut.run_until_cancelled_owned(relayed).await;
        // Until now the endpoint was busy with it.
        drop((counted, held));
    });

    strip_interim(&mut agreed.headers);
    agreed.extensions = http::Extensions::new();
    if upgrade.extended {
        agreed.status = StatusCode::OK;
        agreed.headers.remove(ACCEPT);
    } else {
        agreed.status = StatusCode::SWITCHING_PROTOCOLS;
        agreed.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        agreed.headers.insert(UPGRADE, protocol);
        if let Some(key) = &key {
            agreed.headers.insert(ACCEPT, accept_of(key));
        }
    }
    answer.head = agreed;
    Ok(())
}
