//! What endpoints are spoken to in: HTTP/2 in clear text and over TLS, Unix sockets, with certificates on both sides.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use support::{Downstream, Stage, serve_raw};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener};
use tokio::sync::Barrier;
use tokio_rustls::TlsAcceptor;

/// A site whose one endpoint is `endpoint`; `upstream` follows it.
fn site(endpoint: &str, upstream: &str) -> String {
    format!(
        "listeners:\n  web: {{ address: \"127.0.0.1:1\", protocol: http }}\n\
         routes:\n  all: {{ upstream: app }}\n\
         upstreams:\n  app: {{ endpoints: [\"{endpoint}\"]{upstream} }}\n"
    )
}

/// An endpoint with HTTP/2 that tells what it saw: version, target, host and body.
#[derive(Clone)]
struct Endpoint {
    connections: Arc<AtomicUsize>,
    /// Requests to `/together` wait for one another here.
    together: Arc<Barrier>,
    max_streams: u32,
}

impl Endpoint {
    fn new(together: usize, max_streams: u32) -> Self {
        Self { connections: Arc::default(), together: Arc::new(Barrier::new(together)), max_streams }
    }

    async fn start(&self) -> SocketAddr {
        let this = self.clone();
        serve_raw(self.connections.clone(), move |stream, _| {
            let this = this.clone();
            async move { this.serve_h2(stream).await }
        })
        .await
    }

    async fn serve_h2<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: T) {
        let this = self.clone();
        let service = service_fn(move |request| answer(this.clone(), request));
        let mut codec = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        codec.max_concurrent_streams(self.max_streams);
        let _ = codec.serve_connection(TokioIo::new(stream), service).await;
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn answer(endpoint: Endpoint, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() == "/together" {
        endpoint.together.wait().await;
    }
    let (head, body) = request.into_parts();
    let fields = head.headers.get("host").is_some() || head.headers.get("transfer-encoding").is_some();
    let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    let text = format!("{:?} {} {} {body} {fields}", head.version, head.method, head.uri);
    Ok(Response::new(Full::from(text)))
}

/// Asks over HTTP/2, all at once, on one connection: one worker serves it.
async fn ask_together(stage: &Stage, count: usize, path: &str) {
    let stream = TcpStream::connect(stage.address("web")).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let asked = (0..count).map(|_| {
        let mut sender = sender.clone();
        let request = Request::get(format!("http://a.example{path}")).body(Full::<Bytes>::default()).unwrap();
        tokio::spawn(async move { sender.send_request(request).await.unwrap().status().as_u16() })
    });
    for asked in asked.collect::<Vec<_>>() {
        let status = tokio::time::timeout(support::PATIENCE, asked).await.expect("an answer");
        assert_eq!(status.unwrap(), 200);
    }
}

#[tokio::test]
async fn a_shared_connection_ends_when_its_endpoint_is_left() {
    let (left, kept) = (Endpoint::new(1, 100), Endpoint::new(1, 100));
    let (ended, watched) = (Arc::new(AtomicUsize::new(0)), left.clone());
    let counted = ended.clone();
    let address = serve_raw(left.connections.clone(), move |stream, _| {
        let (endpoint, counted) = (watched.clone(), counted.clone());
        async move {
            endpoint.serve_h2(stream).await;
            counted.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let h2c = ", protocol: h2c, idle_timeout: 1h";
    let stage = Stage::start(&site(&address.to_string(), h2c));
    ask_together(&stage, 4, "/").await;
    assert!(left.connections() > 0 && ended.load(Ordering::SeqCst) == 0);
    stage.proxy.apply(stage.compile(2, &site(&kept.start().await.to_string(), h2c))).unwrap();
    support::wait_until("the end of its connections", || ended.load(Ordering::SeqCst) == left.connections())
        .await;
}

#[tokio::test]
async fn h2c_requests_share_a_connection() {
    let endpoint = Endpoint::new(1, 100);
    let stage = Stage::start(&site(&endpoint.start().await.to_string(), ", protocol: h2c"));
    let mut downstream = stage.connect().await;
    downstream.send("GET /a?b=c HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    assert_eq!(downstream.answer().await.text(), "HTTP/2.0 GET http://a.example/a?b=c  false");
    downstream
        .send("POST /p HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n")
        .await;
    assert_eq!(downstream.answer().await.text(), "HTTP/2.0 POST http://a.example/p hi false");
    downstream.send("POST /p HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\n\r\nho").await;
    assert_eq!(downstream.answer().await.text(), "HTTP/2.0 POST http://a.example/p ho false");
    assert_eq!(endpoint.connections(), 1);
}

#[tokio::test]
async fn shared_connections_are_used_so_often_and_so_long() {
    let check = async |setting: &str, expected: usize| {
        let endpoint = Endpoint::new(1, 100);
        let upstream = format!(", protocol: h2c{setting}");
        let stage = Stage::start(&site(&endpoint.start().await.to_string(), &upstream));
        let mut downstream = stage.connect().await;
        for _ in 0..6 {
            downstream.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
            assert_eq!(downstream.answer().await.status, 200, "{setting}");
        }
        assert_eq!(endpoint.connections(), expected, "{setting}");
    };
    check(", max_requests_per_connection: 2", 3).await;
    check(", max_connection_age: 1h, idle_timeout: 1h", 1).await;
    for setting in [", max_connection_age: 200ms", ", idle_timeout: 200ms"] {
        let (endpoint, ended) = (Endpoint::new(1, 100), Arc::new(AtomicUsize::new(0)));
        let (serving, counted) = (endpoint.clone(), ended.clone());
        let address = serve_raw(endpoint.connections.clone(), move |stream, _| {
            let (endpoint, ended) = (serving.clone(), counted.clone());
            async move {
                endpoint.serve_h2(stream).await;
                ended.fetch_add(1, Ordering::SeqCst);
            }
        })
        .await;
        let stage = Stage::start(&site(&address.to_string(), &format!(", protocol: h2c{setting}")));
        for connections in 1..=2 {
            ask_together(&stage, 1, "/").await;
            support::wait_until("its end", || ended.load(Ordering::SeqCst) == connections).await;
        }
        assert_eq!(endpoint.connections(), 2, "{setting}");
    }
}

#[tokio::test]
async fn another_connection_is_opened_when_all_are_full() {
    let endpoint = Endpoint::new(25, 100);
    let upstream = ", protocol: h2c, max_streams_per_connection: 10";
    let stage = Stage::start(&site(&endpoint.start().await.to_string(), upstream));
    ask_together(&stage, 25, "/together").await;
    assert_eq!(endpoint.connections(), 3);
}

#[tokio::test]
async fn an_endpoint_that_allows_fewer_streams_is_obeyed() {
    let endpoint = Endpoint::new(8, 4);
    let stage = Stage::start(&site(&endpoint.start().await.to_string(), ", protocol: h2c"));
    let stream = TcpStream::connect(stage.address("web")).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request =
        |path: &str| Request::get(format!("http://a.example{path}")).body(Full::<Bytes>::default()).unwrap();
    // The endpoint's limit is known with its first answer.
    assert_eq!(sender.send_request(request("/")).await.unwrap().status(), 200);
    let asked = (0..8).map(|_| tokio::spawn(sender.send_request(request("/together"))));
    for asked in asked.collect::<Vec<_>>() {
        let answered = tokio::time::timeout(support::PATIENCE, asked).await.expect("an answer");
        assert_eq!(answered.unwrap().unwrap().status(), 200);
    }
    assert_eq!(endpoint.connections(), 2);
}

/// Reads what a downstream begins with, up to its first request.
async fn read_first_request(stream: &mut TcpStream) {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await.unwrap();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        stream.read_exact(&mut vec![0; length]).await.unwrap();
        if head[3] == 1 {
            return;
        }
    }
}

#[tokio::test]
async fn what_was_not_looked_at_goes_again() {
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    // The last stream that was looked at is 0.
    const GOAWAY: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // REFUSED_STREAM.
    const RST_STREAM: &[u8] = &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 7];
    // INTERNAL_ERROR.
    const FAILED: &[u8] = &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 2];
    let check = async |method: &str, first: &'static [u8], status: u16, connections: usize| {
        let endpoint = Endpoint::new(1, 100);
        let serving = endpoint.clone();
        let address = serve_raw(endpoint.connections.clone(), move |mut stream, connection| {
            let serving = serving.clone();
            async move {
                if connection > 0 {
                    return serving.serve_h2(stream).await;
                }
                read_first_request(&mut stream).await;
                stream.write_all(&[SETTINGS, first].concat()).await.unwrap();
                // Until the other side closes it.
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        })
        .await;
        let stage = Stage::start(&site(&address.to_string(), ", protocol: h2c"));
        let answer = stage.ask(&format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!(answer.status, status, "{method} {first:?}");
        assert_eq!(endpoint.connections(), connections, "{method} {first:?}");
    };
    check("GET", GOAWAY, 200, 2).await;
    check("POST", GOAWAY, 200, 2).await;
    check("GET", RST_STREAM, 200, 2).await;
    check("POST", RST_STREAM, 200, 2).await;
    check("POST", FAILED, 502, 1).await;
}

#[tokio::test]
async fn a_cancelled_answer_is_not_a_whole_one() {
    let address = serve_raw(Arc::default(), |stream, _| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            body.send_data(Bytes::from_static(b"half"), false).unwrap();
            tokio::spawn(async move {
                // The first part is out once there is room for another.
                body.reserve_capacity(1);
                std::future::poll_fn(|cx| body.poll_capacity(cx)).await.unwrap().unwrap();
                body.send_reset(h2::Reason::CANCEL);
            });
        }
    })
    .await;
    let stage = Stage::start(&site(&address.to_string(), ", protocol: h2c"));
    let mut downstream = stage.connect().await;
    downstream.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let whole = match downstream.read_head().await {
        Some(head) if head.starts_with("HTTP/1.1 200") => downstream.read_body(&head).await.2,
        Some(_) | None => false,
    };
    assert!(!whole);
}

#[tokio::test]
async fn unix_sockets_are_endpoints_like_others() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.sock");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut stream = Downstream::new(stream);
                while let Some(head) = stream.read_head().await {
                    stream.send(support::ok(head.lines().next().unwrap())).await;
                }
            });
        }
    });
    let stage = Stage::start(&site(&format!("unix:{}", path.display()), ""));
    let answer = stage.ask("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "GET /x HTTP/1.1"));
    drop(directory);
    let gone = Stage::start(&site("unix:/nonexistent/app.sock", ""));
    assert_eq!(gone.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.status, 502);
}

/// Somebody who vouches for endpoints and for those who call them.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let (pem, der) = (certificate.pem(), certificate.der().clone());
        Self { issuer: Issuer::new(params, key), pem, der }
    }

    fn certificate(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// An endpoint called `app.internal` that offers `protocols`; `ask` = it wants to see a certificate of this authority.
    async fn endpoint(&self, protocols: &[&str], ask: bool) -> SecureEndpoint {
        let (chain, key) = self.certificate("app.internal");
        let builder = if ask {
            let mut roots = RootCertStore::empty();
            roots.add(self.der.clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
            ServerConfig::builder().with_client_cert_verifier(verifier)
        } else {
            ServerConfig::builder().with_no_client_auth()
        };
        let chain = vec![CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let certificate = chain[0].clone();
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let handshakes: Handshakes = Arc::default();
        let seen = handshakes.clone();
        let address = serve_raw(Arc::default(), move |stream, _| {
            let (acceptor, seen) = (acceptor.clone(), seen.clone());
            async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let (_, session) = stream.get_ref();
                let kind = session.handshake_kind().unwrap();
                seen.lock().unwrap().push((session.server_name().map(str::to_owned), kind));
                if session.alpn_protocol() == Some(b"h2") {
                    return Endpoint::new(1, 100).serve_h2(stream).await;
                }
                let mut stream = Downstream::new(stream);
                while stream.read_head().await.is_some() {
                    stream.send(support::ok("HTTP/1.1")).await;
                }
            }
        })
        .await;
        SecureEndpoint { address, certificate, handshakes }
    }
}

type Handshakes = Arc<Mutex<Vec<(Option<String>, HandshakeKind)>>>;

struct SecureEndpoint {
    address: SocketAddr,
    certificate: CertificateDer<'static>,
    handshakes: Handshakes,
}

/// The setting `tls` with these authorities.
fn tls(authority: &Authority, more: &str) -> String {
    format!(", tls: {{ ca_pem: {:?}{more} }}", authority.pem)
}

#[tokio::test]
async fn endpoints_are_verified() {
    let (authority, other) = (Authority::new(), Authority::new());
    let endpoint = authority.endpoint(&[], false).await;
    let check = async |upstream: String, status: u16| {
        let stage = Stage::start(&site(&endpoint.address.to_string(), &upstream));
        let answer = stage.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(answer.status, status, "{upstream}");
    };
    check(tls(&authority, ", server_name: app.internal"), 200).await;
    check(tls(&other, ", server_name: app.internal"), 502).await;
    check(tls(&authority, ", server_name: other.internal"), 502).await;
    check(tls(&authority, ""), 502).await;
    check(", tls: { server_name: app.internal }".to_owned(), 502).await;
    check(", tls: { verify: false }".to_owned(), 200).await;
    check(String::new(), 502).await;
    let names: Vec<_> = endpoint.handshakes.lock().unwrap().iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(names[0].as_deref(), Some("app.internal"), "SNI");
}

#[tokio::test]
async fn endpoints_see_the_client_certificate() {
    let authority = Authority::new();
    let endpoint = authority.endpoint(&["h2"], true).await;
    let (chain, key) = authority.certificate("proxy.internal");
    let check = async |more: &str, status: u16| {
        let upstream = format!("{}, protocol: h2", tls(&authority, more));
        let certificates = vec![("me".to_owned(), chain.clone(), key.clone())];
        let stage = Stage::with_certificates(&site(&endpoint.address.to_string(), &upstream), certificates);
        let answer = stage.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(answer.status, status, "{more}");
    };
    check(", server_name: app.internal, client_certificate: me", 200).await;
    check(", server_name: app.internal", 502).await;
}

#[tokio::test]
async fn the_version_is_settled_in_the_handshake() {
    let authority = Authority::new();
    let check = async |offered: &[&str], protocol: &str, expected: Result<&str, u16>| {
        let endpoint = authority.endpoint(offered, false).await;
        let upstream = format!("{}, protocol: {protocol}", tls(&authority, ", server_name: app.internal"));
        let stage = Stage::start(&site(&endpoint.address.to_string(), &upstream));
        let mut downstream = stage.connect().await;
        for _ in 0..3 {
            downstream.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
            let answer = downstream.answer().await;
            match expected {
                Ok(start) => assert!(answer.text().starts_with(start), "{offered:?} {protocol}: {answer:?}"),
                Err(status) => assert_eq!(answer.status, status, "{offered:?} {protocol}"),
            }
        }
        if expected.is_ok() {
            assert_eq!(endpoint.handshakes.lock().unwrap().len(), 1, "{offered:?} {protocol}: kept open");
        }
    };
    check(&["h2", "http/1.1"], "auto", Ok("HTTP/2.0 GET https://a/x")).await;
    check(&["http/1.1"], "auto", Ok("HTTP/1.1")).await;
    check(&[], "auto", Ok("HTTP/1.1")).await;
    check(&["h2", "http/1.1"], "http1", Ok("HTTP/1.1")).await;
    check(&["h2", "http/1.1"], "h2", Ok("HTTP/2.0 GET https://a/x")).await;
    check(&["http/1.1"], "h2", Err(502)).await;
}

#[tokio::test]
async fn sessions_are_resumed() {
    let authority = Authority::new();
    let endpoint = authority.endpoint(&[], false).await;
    let upstream =
        format!("{}, max_requests_per_connection: 1", tls(&authority, ", server_name: app.internal"));
    let stage = Stage::start(&site(&endpoint.address.to_string(), &upstream));
    let mut downstream = stage.connect().await;
    for _ in 0..2 {
        downstream.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(downstream.answer().await.status, 200);
    }
    let kinds: Vec<_> = endpoint.handshakes.lock().unwrap().iter().map(|(_, kind)| *kind).collect();
    assert_eq!(kinds[0], HandshakeKind::Full);
    assert_eq!(kinds[1], HandshakeKind::Resumed);
}

#[tokio::test]
async fn checks_speak_what_requests_do() {
    let endpoint = Endpoint::new(1, 100);
    let health = ", protocol: h2c, health: { http: { path: /up }, interval: 50ms, rise: 1 }";
    let stage = Stage::start(&site(&endpoint.start().await.to_string(), health));
    let (sender, mut verdicts) = tokio::sync::mpsc::channel(8);
    let _checker = shoal_proxy::Checker::start(shoal_proxy::CheckerSettings {
        config: stage.config.clone(),
        cluster: stage.cluster.clone(),
        names: stage.proxy.names().clone(),
        events: sender,
    });
    let event = tokio::time::timeout(support::PATIENCE, verdicts.recv()).await.expect("a verdict");
    let up = format!("{:?}", event.unwrap());
    assert!(up.contains("Up") || up.contains("Healthy"), "{up}");
}

#[tokio::test]
async fn only_endpoints_with_a_known_key_are_spoken_to() {
    let authority = Authority::new();
    let endpoint = authority.endpoint(&[], false).await;
    let pin = |certificate: &[u8]| {
        let key = shoal_cluster::identity::public_key_sha256(certificate).unwrap();
        shoal_model::site::Pin(key).to_string()
    };
    let known = pin(&endpoint.certificate);
    let other = pin(&CertificateDer::from_pem_slice(authority.certificate("b").0.as_bytes()).unwrap());
    let check = async |more: String, status: u16| {
        let upstream =
            format!(", tls: {{ server_name: app.internal{more} }}, max_requests_per_connection: 1");
        let stage = Stage::start(&site(&endpoint.address.to_string(), &upstream));
        let mut downstream = stage.connect().await;
        for _ in 0..2 {
            downstream.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            assert_eq!(downstream.answer().await.status, status, "{more}");
        }
    };
    let verified = format!(", ca_pem: {:?}", authority.pem);
    check(format!("{verified}, pins: [{known:?}]"), 200).await;
    assert_eq!(endpoint.handshakes.lock().unwrap().last().unwrap().1, HandshakeKind::Resumed);
    check(format!("{verified}, pins: [\"sha256//{other}\", {known:?}]"), 200).await;
    check(format!("{verified}, pins: [{other:?}]"), 502).await;
    check(format!(", verify: false, pins: [{known:?}]"), 200).await;
    check(format!(", verify: false, pins: [{other:?}]"), 502).await;
    let stranger = format!(", ca_pem: {:?}", Authority::new().pem);
    check(format!("{stranger}, pins: [{known:?}]"), 502).await;
}
