//! One check of one endpoint: connect, and perhaps ask.

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::Empty;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use shoal_model::site::{HeaderCase, UpstreamProtocol};
use shoal_model::view::{EndpointAddress, EndpointView, HealthView, ProbeView};
use shoal_policy::health::{Observation, Reason};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::{MAX_HEAD, USER_AGENT, grpc};
use crate::names::Names;
use crate::upstream::{ClientTls, ConnectError, Introduction, Socket, Wire, dial, dial_local};

/// What is checked, and by what.
pub(super) struct Probed<'a> {
    pub(super) endpoint: &'a EndpointView,
    pub(super) health: &'a HealthView,
    /// Holds `None` where there is none to be used, and is `None` where it cannot be.
    pub(super) tls: Option<&'a Option<ClientTls>>,
    pub(super) names: &'a Names,
    /// Is told why TLS did not come about.
    pub(super) complain: &'a (dyn Fn(&ConnectError) + Sync),
}

/// Checks an endpoint once.
pub(super) async fn probe(probed: Probed<'_>) -> Observation {
    let Probed { endpoint, health, names, .. } = probed;
    let mut connected = false;
    let observed = async {
        let mut stream = connect(endpoint, health, names).await.map_err(|why| why.reason)?;
        connected = true;
        if let Some(introduction) = Introduction::of(health.proxy_protocol, None) {
            stream.write_all(introduction.bytes()).await.map_err(|_| Reason::Reset)?;
        }
        match &health.probe {
            ProbeView::Tcp => Ok(()),
            ProbeView::Http { path, host, status } => {
                let wire = secure(stream, &probed).await?;
                let host = host.as_deref().unwrap_or(own_host(endpoint));
                let is_h2 = health.transport.protocol == UpstreamProtocol::H2c || wire.has_agreed_on_h2();
                // Requests would not be sent there, either.
                if health.transport.protocol == UpstreamProtocol::H2 && !is_h2 {
                    return Err(Reason::TlsNoHttp2);
                }
                let answered = match is_h2 {
                    true => ask_h2(wire, path, host).await?,
                    false => ask(wire, path, host, health.transport.header_case).await?,
                };
                let good = if status.is_empty() {
                    (200..400).contains(&answered)
                } else {
                    status.contains(&answered)
                };
                if good { Ok(()) } else { Err(Reason::Status) }
            }
            ProbeView::Grpc { service, host } => {
                let wire = secure(stream, &probed).await?;
                // Where the version is settled in the handshake, it may be the wrong one.
                if health.transport.tls.is_some() && !wire.has_agreed_on_h2() {
                    return Err(Reason::Protocol);
                }
                grpc::ask(wire, service, host.as_deref().unwrap_or(own_host(endpoint))).await
            }
        }
    };
    let observed = timeout(health.timeout, observed).await;
    match observed {
        Ok(Ok(())) => Observation::Healthy,
        Ok(Err(reason)) => Observation::Failing(reason),
        Err(_) if connected => Observation::Failing(Reason::ResponseTimeout),
        Err(_) => Observation::Failing(Reason::ConnectTimeout),
    }
}

/// What it is called in a request.
fn own_host(endpoint: &EndpointView) -> &str {
    match &endpoint.address {
        EndpointAddress::Unix(_) => "localhost",
        EndpointAddress::Service(name) => name,
        _ => &endpoint.text,
    }
}

async fn connect(
    endpoint: &EndpointView,
    health: &HealthView,
    names: &Names,
) -> Result<Socket, ConnectError> {
    let address = match &endpoint.address {
        EndpointAddress::Socket(address) | EndpointAddress::Found { address, .. } => *address,
        name @ (EndpointAddress::Name { .. } | EndpointAddress::Service(_)) => {
            names.address_of(name, &health.resolver).await.map_err(ConnectError::unnamed)?
        }
        EndpointAddress::Unix(path) => return Ok(Socket::Unix(dial_local(path).await?)),
    };
    Ok(Socket::Tcp(dial(address).await?))
}

async fn secure(socket: Socket, probed: &Probed<'_>) -> Result<Wire, Reason> {
    match probed.tls {
        None => Err(Reason::Other),
        Some(None) => Ok(Wire::Clear(socket)),
        Some(Some(tls)) => {
            let shaken = tls.shake_hands(socket, &probed.endpoint.address, false).await;
            shaken.map_err(|why| {
                (probed.complain)(&why);
                why.reason
            })
        }
    }
}

/// The status of the answer to a GET.
async fn ask(stream: Wire, path: &str, host: &str, case: HeaderCase) -> Result<u16, Reason> {
    let request = Request::get(path)
        .header("host", host)
        .header("user-agent", USER_AGENT)
        .header("connection", "close")
        .body(Empty::<Bytes>::new())
        .map_err(|_| Reason::Other)?;
    let mut codec = http1::Builder::new();
    codec.max_header_size(MAX_HEAD).title_case_headers(case != HeaderCase::Lower);
    let (mut sender, connection) = codec.handshake(TokioIo::new(stream)).await.map_err(|_| Reason::Reset)?;
    let asked = async {
        let answer = sender.send_request(request).await;
        answer.map(|answer| answer.status().as_u16()).map_err(|error| match error.is_parse() {
            true => Reason::Protocol,
            false => Reason::Reset,
        })
    };
    tokio::pin!(asked);
    // The connection moves only while somebody polls it; what follows the head is of no interest. It may deliver the
    // answer and end in one go.
    tokio::select! {
        biased;
        status = &mut asked => status,
        _ = connection => asked.await,
    }
}

/// The same by HTTP/2.
async fn ask_h2(stream: Wire, path: &str, host: &str) -> Result<u16, Reason> {
    let scheme = if matches!(stream, Wire::Tls(_)) { "https" } else { "http" };
    let request = Request::get(format!("{scheme}://{host}{path}"))
        .version(Version::HTTP_2)
        .header("user-agent", USER_AGENT)
        .body(Empty::<Bytes>::new())
        .map_err(|_| Reason::Other)?;
    let mut codec = http2::Builder::new(TokioExecutor::new());
    codec.max_header_list_size(MAX_HEAD as u32);
    let (mut sender, connection) = codec.handshake(TokioIo::new(stream)).await.map_err(|_| Reason::Reset)?;
    let asked = async {
        let answer = sender.send_request(request).await;
        answer.map(|answer| answer.status().as_u16()).map_err(|_| Reason::Protocol)
    };
    tokio::pin!(asked);
    tokio::select! {
        biased;
        status = &mut asked => status,
        _ = connection => asked.await,
    }
}
