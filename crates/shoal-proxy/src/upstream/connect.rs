//! Opening a connection to an endpoint.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use shoal_model::view::EndpointAddress;
use shoal_policy::failure::Failure;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Upstream;
use super::endpoint::{Endpoint, Occupied};
use super::interim::{Awaited, EndpointStream};
use super::pool::Link;
use crate::body::RequestBody;
use crate::worker::Worker;

/// Largest response head, bytes.
const MAX_RESPONSE_HEAD: usize = 64 << 10;

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

/// A fresh TCP connection to `endpoint`, within the upstream's connect timeout.
async fn open(worker: &Worker, upstream: &Upstream, endpoint: &Endpoint) -> Result<TcpStream, Failure> {
    let connecting = async {
        let address = match &endpoint.address {
            EndpointAddress::Socket(address) => *address,
            EndpointAddress::Name { host, port } => {
                let resolved = worker.upstreams.resolver.resolve(host, *port, worker.clock.now_ms()).await;
                resolved
                    .map_err(|error| tracing::debug!(%error, "cannot resolve an endpoint"))
                    .map_err(|()| refused())?
            }
        };
        dial(address).await
    };
    match timeout(upstream.view.connect_timeout, connecting).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => {
            tracing::debug!(endpoint = %endpoint.text, %error, "cannot connect");
            Err(Failure::UpstreamConnectFailed)
        }
        Err(_) => Err(Failure::UpstreamConnectTimeout),
    }
}

fn refused() -> io::Error {
    io::ErrorKind::AddrNotAvailable.into()
}

/// Limits of the HTTP/1 codec towards endpoints.
fn codec() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.max_header_size(MAX_RESPONSE_HEAD);
    builder
}

/// What a connection is opened for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkKind {
    Plain,
    /// It may become a tunnel.
    Upgradable,
}

/// A fresh HTTP connection to `endpoint`; its task runs until it closes or the link is dropped.
pub(super) async fn open_link(
    worker: &Rc<Worker>,
    upstream: &Upstream,
    endpoint: &Endpoint,
    kind: LinkKind,
) -> Result<Link, Failure> {
    let occupied = Occupied::take(upstream, endpoint, worker)?;
    let stream = open(worker, upstream, endpoint).await?;
    let awaited = Awaited::default();
    let stream = EndpointStream::new(stream, awaited.clone());
    let shaken = codec().handshake::<_, RequestBody>(TokioIo::new(stream)).await;
    let (sender, connection) = shaken.map_err(|_| Failure::UpstreamConnectFailed)?;
    let task = tokio::task::spawn_local(async move {
        // Whoever waits for the answer is told the error, too.
        let _ = match kind {
            LinkKind::Plain => connection.await,
            LinkKind::Upgradable => connection.with_upgrades().await,
        };
    });
    Ok(Link::new(sender, task.abort_handle(), worker.clock.now_ms(), awaited, occupied))
}
