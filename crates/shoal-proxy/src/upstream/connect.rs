//! Opening a connection to an endpoint.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;

use shoal_cluster::identity::is_in_data_dir;
use shoal_model::site::UpstreamProtocol;
use shoal_model::view::EndpointAddress;
use shoal_policy::failure::Failure;
use shoal_policy::health::Reason;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::carrier::Carrier;
use super::connect_error::ConnectError;
use super::endpoint::Endpoint;
use super::http1::Connection;
use super::introduction::Introduction;
use super::occupied::Occupied;
use super::pool::Link;
use super::shared::SharedLink;
use super::wire::{Socket, Wire};
use super::{Security, Upstream};
use crate::liveness;
use crate::worker::Worker;

/// Opens a TCP connection to `address`.
pub(crate) async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    // The kernel connects a socket to itself when the port happens to be the one it gave us.
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A fresh connection to `endpoint`, introduced, within the upstream's connect timeout: for bytes that go as they are.
pub(super) async fn open(
    worker: &Worker,
    upstream: &Upstream,
    endpoint: &Endpoint,
    introduction: Option<&Introduction>,
) -> Result<Socket, Failure> {
    in_time(worker, upstream, endpoint, reach(worker, upstream, endpoint, introduction)).await
}

/// The same for HTTP: within TLS where the upstream has it.
async fn open_wire(
    worker: &Worker,
    upstream: &Upstream,
    endpoint: &Endpoint,
    introduction: Option<&Introduction>,
    kind: LinkKind,
) -> Result<Wire, Failure> {
    let opening = async {
        let socket = reach(worker, upstream, endpoint, introduction).await?;
        match &upstream.security {
            Security::Clear => Ok(Wire::Clear(socket)),
            // Handshakes are few, and what they keep is large.
            Security::Tls(tls) => {
                Box::pin(tls.shake_hands(socket, &endpoint.address, kind == LinkKind::Upgradable)).await
            }
            Security::Unusable => Err(ConnectError::from(io::Error::from(io::ErrorKind::InvalidInput))),
        }
    };
    in_time(worker, upstream, endpoint, opening).await
}

async fn reach(
    worker: &Worker,
    upstream: &Upstream,
    endpoint: &Endpoint,
    introduction: Option<&Introduction>,
) -> Result<Socket, ConnectError> {
    let address = match &endpoint.address {
        EndpointAddress::Socket(address) | EndpointAddress::Found { address, .. } => *address,
        name @ (EndpointAddress::Name { .. } | EndpointAddress::Service(_)) => {
            let found = worker.names.address_of(name, &upstream.view.resolver).await;
            found.map_err(ConnectError::unnamed)?
        }
        EndpointAddress::Unix(path) => {
            let mut stream = dial_local(path).await?;
            if let Some(introduction) = introduction {
                stream.write_all(introduction.bytes()).await?;
            }
            return Ok(Socket::Unix(stream));
        }
    };
    let mut stream = dial(address).await?;
    liveness::set(&stream, &upstream.view.liveness);
    if let Some(introduction) = introduction {
        stream.write_all(introduction.bytes()).await?;
    }
    Ok(Socket::Tcp(stream))
}

/// Never to what nodes keep for themselves: whoever calls there is an operator of the cluster, and nobody who changes the site, or
/// asks a listener for something, becomes one by that.
pub(crate) async fn dial_local(path: &Path) -> io::Result<UnixStream> {
    if is_in_data_dir(path) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is in the data directory of a node"));
    }
    UnixStream::connect(path).await
}

async fn in_time<T>(
    worker: &Worker,
    upstream: &Upstream,
    endpoint: &Endpoint,
    connecting: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, Failure> {
    match timeout(upstream.view.connect_timeout, connecting).await {
        Ok(Ok(stream)) => {
            endpoint.fault.set(None);
            Ok(stream)
        }
        Ok(Err(why)) => {
            note(worker, upstream, endpoint, why.reason, &|| why.told());
            Err(Failure::UpstreamConnectFailed)
        }
        Err(_) => Err(Failure::UpstreamConnectTimeout),
    }
}

/// Remembers why `endpoint` was not reached, and says it: what is wrong with its TLS is wrong until somebody mends it.
fn note(
    worker: &Worker,
    upstream: &Upstream,
    endpoint: &Endpoint,
    reason: Reason,
    told: &dyn Fn() -> String,
) {
    endpoint.fault.set(Some(reason));
    let standing = &endpoint.standing;
    let (upstream, endpoint, reason_name) = (&upstream.view.name, &endpoint.text, reason.name());
    if reason.is_of_tls() && standing.complaints.are_due(reason, worker.clock.now_ms()) {
        let error = told();
        tracing::warn!(%upstream, %endpoint, reason = reason_name, error, "no TLS with an endpoint");
    } else {
        tracing::debug!(%upstream, %endpoint, reason = reason_name, error = told(), "cannot connect");
    }
}

/// What a connection is opened for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkKind {
    Plain,
    /// It may become a tunnel.
    Upgradable,
}

/// A fresh HTTP/1.1 connection to `endpoint`.
pub(super) async fn open_link(
    worker: &Rc<Worker>,
    upstream: &Upstream,
    endpoint: &Endpoint,
    kind: LinkKind,
    introduction: Option<&Introduction>,
) -> Result<Carrier, Failure> {
    let occupied = Occupied::take(upstream, endpoint, worker)?;
    let wire = open_wire(worker, upstream, endpoint, introduction, kind).await?;
    Ok(speak_http1(worker, upstream, endpoint, wire, occupied))
}

fn speak_http1(
    worker: &Worker,
    upstream: &Upstream,
    endpoint: &Endpoint,
    wire: Wire,
    occupied: Occupied,
) -> Carrier {
    let connection = Connection::new(wire, upstream.view.transport.header_case, endpoint.known_head.clone());
    Carrier::Own(Box::new(Link::new(connection, worker.clock.now_ms(), occupied)))
}

/// What carries a request to `endpoint` when no connection has room for it: a fresh one, in the version of HTTP that the
/// endpoint speaks.
pub(super) async fn open_carrier(
    worker: &Rc<Worker>,
    upstream: &Upstream,
    endpoint: &Endpoint,
    introduction: Option<&Introduction>,
) -> Result<Carrier, Failure> {
    let shared = &endpoint.shared;
    if !upstream.view.transport.may_share() || shared.declined.get() {
        return open_link(worker, upstream, endpoint, LinkKind::Plain, introduction).await;
    }
    Box::pin(open_shared(worker, upstream, endpoint, introduction)).await
}

/// What carries a request that wants to become a tunnel to `endpoint`: a connection of its own where HTTP/1.1 may be
/// spoken, else a stream.
pub(super) async fn open_tunnel(
    worker: &Rc<Worker>,
    upstream: &Upstream,
    endpoint: &Endpoint,
    introduction: Option<&Introduction>,
) -> Result<Carrier, Failure> {
    if upstream.view.transport.may_switch() {
        return open_link(worker, upstream, endpoint, LinkKind::Upgradable, introduction).await;
    }
    match endpoint.shared.take(worker.clock.now_ms(), &upstream.view) {
        Some(stream) => Ok(Carrier::Shared(stream)),
        None => open_carrier(worker, upstream, endpoint, introduction).await,
    }
}

/// Requests that find no room open one connection between them, and share it.
async fn open_shared(
    worker: &Rc<Worker>,
    upstream: &Upstream,
    endpoint: &Endpoint,
    introduction: Option<&Introduction>,
) -> Result<Carrier, Failure> {
    let (shared, view) = (&endpoint.shared, &upstream.view);
    let turn = timeout(view.connect_timeout, shared.opening.lock()).await;
    let turn = turn.map_err(|_| Failure::UpstreamConnectTimeout)?;
    if let Some(stream) = shared.take(worker.clock.now_ms(), view) {
        return Ok(Carrier::Shared(stream));
    }
    if shared.declined.get() {
        drop(turn);
        return open_link(worker, upstream, endpoint, LinkKind::Plain, introduction).await;
    }
    if shared.is_full() {
        upstream.traffic.overflows.add(1);
        return Err(Failure::Overflow);
    }
    let occupied = Occupied::take(upstream, endpoint, worker)?;
    let wire = open_wire(worker, upstream, endpoint, introduction, LinkKind::Plain).await?;
    let now_ms = worker.clock.now_ms();
    if view.transport.protocol == UpstreamProtocol::H2c || wire.has_agreed_on_h2() {
        let link = SharedLink::open(wire, view, now_ms, occupied).await?;
        return Ok(Carrier::Shared(shared.add(link, now_ms)));
    }
    if view.transport.protocol == UpstreamProtocol::H2 {
        note(worker, upstream, endpoint, Reason::TlsNoHttp2, &|| "it speaks TLS, but not HTTP/2".to_owned());
        return Err(Failure::UpstreamConnectFailed);
    }
    shared.declined.set(true);
    Ok(speak_http1(worker, upstream, endpoint, wire, occupied))
}
