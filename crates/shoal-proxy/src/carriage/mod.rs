//! Connections that are carried as they are: bytes to an endpoint and back, whatever they say.

mod greeting;
mod journey;
mod relay;

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use shoal_model::site::Protocol;
use shoal_model::view::CarriageView;
use shoal_policy::failure::Failure;
use shoal_policy::tcp::proxy_header::Ends;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::listener::{ListenerSettings, WorkerListener};
use crate::upstream::{Introduction, open_stream};
use journey::Journey;

/// Bytes of both directions that one connection keeps at most, each.
const BUFFER: usize = 16 << 10;

/// Carries one accepted connection, whose ends are `ends`, to its end.
pub(crate) async fn serve(
    listener: Rc<WorkerListener>,
    settings: Arc<ListenerSettings>,
    carriage: &CarriageView,
    mut stream: TcpStream,
    ends: Ends,
) {
    // It is left alone until the node goes, and waited for then.
    let _registered = listener.lobby.connections.register_tunnel();
    let cut = listener.lobby.connections.cut();
    let mut journey = Journey::begin(listener, settings.view.clone(), ends.source.ip());
    if let Some(carried) = cut.run_until_cancelled(carry(carriage, &mut stream, ends, &mut journey)).await {
        journey.failure = carried.err();
    }
}

async fn carry(
    carriage: &CarriageView,
    stream: &mut TcpStream,
    ends: Ends,
    journey: &mut Journey,
) -> Result<(), Failure> {
    let view = journey.view.clone();
    let worker = journey.listener.worker.clone();
    let mut first = Bytes::new();
    if view.protocol == Protocol::TlsPassthrough {
        let hello = timeout(view.limits.tls_handshake_timeout, greeting::read(stream)).await;
        let (hello, bytes) = hello.map_err(|_| Failure::DownstreamTimeout)??;
        journey.server_name = hello.server_name;
        first = bytes;
    }
    let Some(upstream) = carriage.find(journey.server_name.as_deref()) else {
        // Only a name can lead nowhere: without names there is one upstream for all.
        greeting::refuse(stream).await;
        return Err(Failure::NoRoute);
    };
    journey.upstream = Some(upstream.clone());
    let introduction = Introduction::of(upstream.proxy_protocol, Some(&ends));
    let mut opened = open_stream(
        &worker,
        &journey.listener.sources.upstreams,
        upstream,
        ends.source.ip(),
        introduction.as_ref(),
        &mut journey.trace,
    )
    .await?;
    let greeted = timeout(upstream.connect_timeout, opened.stream.write_all(&first)).await;
    greeted.map_err(|_| Failure::UpstreamReset)?.map_err(|_| Failure::UpstreamReset)?;
    journey.received.set(first.len() as u64);
    let idle_timeout = view.limits.tunnel_idle_timeout;
    relay::relay(&worker, stream, &mut opened.stream, idle_timeout, journey).await
}
