//! Who takes nothing of a response is not waited for, and within TLS no longer than in clear text: there the last bytes are
//! taken at once, and wait behind the codec.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use support::{Downstream, Stage, serve_raw, site, wait_until};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Mutex, mpsc};
use tokio_rustls::TlsConnector;

/// Much less than TLS holds back for a socket that takes nothing.
const PART: usize = 16 << 10;

/// An endpoint whose one answer never ends, and comes in parts of the sizes that it is told.
async fn dripping() -> (SocketAddr, mpsc::UnboundedSender<usize>) {
    let (sizes, told) = mpsc::unbounded_channel();
    let told = Arc::new(Mutex::new(told));
    let address = serve_raw(Arc::default(), move |stream, _| {
        let told = told.clone();
        async move {
            let mut stream = Downstream::new(stream);
            stream.read_head().await.unwrap();
            stream.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            while let Some(size) = told.lock().await.recv().await {
                let chunk = format!("{size:x}\r\n{}\r\n", "x".repeat(size));
                // Nobody may be there any more.
                _ = stream.stream.write_all(chunk.as_bytes()).await;
            }
        }
    })
    .await;
    (address, sizes)
}

/// A stage that speaks TLS or not, with these limits.
fn stage(endpoint: SocketAddr, is_secure: bool, limits: &str) -> (Stage, Arc<ClientConfig>) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["a".to_owned()]).unwrap().self_signed(&key).unwrap();
    let protocol = if is_secure { "https, certificates: [own]" } else { "http" };
    let listener = format!("protocol: {protocol}, limits: {{ {limits} }} }}");
    let text = site(&[endpoint], ", timeouts: { idle: 1h }", "").replace("protocol: http }", &listener);
    let own = ("own".to_owned(), certificate.pem(), key.serialize_pem());
    let stage = Stage::with_certificates(&text, if is_secure { vec![own] } else { Vec::new() });
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    (stage, Arc::new(client))
}

/// What the kernel holds for a connection to the port `server`, bytes: some waits to be sent, and some to be read.
fn held(server: u16, client: u16) -> usize {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let port = |end: &str| u16::from_str_radix(end.split_once(':').unwrap().1, 16).unwrap();
    let waits = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (to_send, to_read) = fields[4].split_once(':').unwrap();
        let waits = match (port(fields[1]), port(fields[2])) {
            ends if ends == (server, client) => to_send,
            ends if ends == (client, server) => to_read,
            _ => "0",
        };
        usize::from_str_radix(waits, 16).unwrap()
    };
    table.lines().skip(1).map(waits).sum()
}

/// Asks, and reads nothing of the answer, which comes part by part until the kernel takes no more of it. Whoever is answered
/// holds the connection.
async fn fill<T: AsyncRead + AsyncWrite + Unpin>(
    stream: T,
    ports: (u16, u16),
    sizes: &mpsc::UnboundedSender<usize>,
) -> Downstream<T> {
    let mut downstream = Downstream::new(stream);
    downstream.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut sent = 0;
    loop {
        sizes.send(PART).unwrap();
        sent += PART;
        let taken = wait_until("the kernel to take it", || held(ports.0, ports.1) >= sent);
        if tokio::time::timeout(Duration::from_secs(2), taken).await.is_err() {
            return downstream;
        }
    }
}

/// A connection that takes in little.
async fn connect(stage: &Stage) -> (TcpStream, (u16, u16)) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    let stream = socket.connect(stage.address("web")).await.unwrap();
    let ports = (stage.address("web").port(), stream.local_addr().unwrap().port());
    (stream, ports)
}

#[tokio::test]
async fn a_connection_that_takes_nothing_is_closed() {
    for is_secure in [false, true] {
        let (endpoint, sizes) = dripping().await;
        let (stage, client) = stage(endpoint, is_secure, "write_idle_timeout: 1s, min_rate: 0");
        let (stream, ports) = connect(&stage).await;
        let reached = || stage.metric("shoal_limits_reached_total{limit=\"write_idle_timeout\"}");
        let ended = || reached() == 1 && stage.proxy.open_connections() == 0;
        let end = wait_until("the end of the connection", ended);
        if is_secure {
            let name = ServerName::try_from("a").unwrap();
            let stream = TlsConnector::from(client).connect(name, stream).await.unwrap();
            let _held = fill(stream, ports, &sizes).await;
            end.await;
        } else {
            let _held = fill(stream, ports, &sizes).await;
            end.await;
        }
        wait_until("the end of the request", || stage.metric("shoal_requests_in_flight") == 0).await;
    }
}

#[tokio::test]
async fn what_tls_holds_back_counts_as_waiting() {
    let (endpoint, sizes) = dripping().await;
    let limits = "write_idle_timeout: 1h, min_rate: 1MiB, min_rate_window: 1s";
    let (stage, client) = stage(endpoint, true, limits);
    let (stream, ports) = connect(&stage).await;
    let name = ServerName::try_from("a").unwrap();
    let stream = TlsConnector::from(client).connect(name, stream).await.unwrap();
    let _held = fill(stream, ports, &sizes).await;
    // Little more comes, which TLS takes at once.
    let ended = || {
        _ = sizes.send(1);
        stage.metric("shoal_limits_reached_total{limit=\"min_rate\"}") == 1
    };
    wait_until("the end of the connection", ended).await;
}
