//! One check of one endpoint: connect, and perhaps ask.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use shoal_model::view::{EndpointAddress, EndpointView, HealthView, ProbeView};
use shoal_policy::health::{Observation, Reason};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::upstream::{dial, is_allowed};

const USER_AGENT: &str = "shoal-health";
/// Largest head of an answer, bytes.
const MAX_HEAD: usize = 16 << 10;

/// Checks `endpoint` once.
pub(super) async fn probe(endpoint: &EndpointView, health: &HealthView) -> Observation {
    let mut connected = false;
    let observed = async {
        let stream = connect(&endpoint.address).await?;
        connected = true;
        match &health.probe {
            ProbeView::Tcp => Ok(()),
            ProbeView::Http { path, host, status } => {
                let answered = ask(stream, path, host.as_deref().unwrap_or(&endpoint.text)).await?;
                let good = if status.is_empty() {
                    (200..400).contains(&answered)
                } else {
                    status.contains(&answered)
                };
                if good { Ok(()) } else { Err(Reason::Status) }
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

async fn connect(address: &EndpointAddress) -> Result<TcpStream, Reason> {
    let address = match address {
        EndpointAddress::Socket(address) => *address,
        EndpointAddress::Name { host, port } => lookup(host, *port).await?,
    };
    dial(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => Reason::ConnectRefused,
        io::ErrorKind::TimedOut => Reason::ConnectTimeout,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Reason::Unreachable,
        io::ErrorKind::ConnectionReset => Reason::Reset,
        _ => Reason::Other,
    })
}

async fn lookup(host: &str, port: u16) -> Result<SocketAddr, Reason> {
    let found = tokio::net::lookup_host((host, port)).await.map_err(|_| Reason::NameNotResolved)?;
    found.into_iter().find(|address| is_allowed(host, address.ip())).ok_or(Reason::NameNotResolved)
}

/// The status of the answer to a GET.
async fn ask(stream: TcpStream, path: &str, host: &str) -> Result<u16, Reason> {
    let request = Request::get(path)
        .header("host", host)
        .header("user-agent", USER_AGENT)
        .header("connection", "close")
        .body(Empty::<Bytes>::new())
        .map_err(|_| Reason::Other)?;
    let mut codec = http1::Builder::new();
    codec.max_header_size(MAX_HEAD);
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
