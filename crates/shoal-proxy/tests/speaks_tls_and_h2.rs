//! TLS with many certificates, and HTTP/2 with the same gate as HTTP/1.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod support;

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, HandshakeKind, NamedGroup, RootCertStore};
use support::{Downstream, Origin, Seen, Stage, ok, site};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

struct Authority {
    roots: RootCertStore,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        Self { roots, issuer: rcgen::Issuer::new(params, key) }
    }

    /// Name, chain and key of a certificate for `names`.
    fn certificate(&self, name: &str, names: &[&str]) -> (String, String, String) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        (name.to_owned(), certificate.pem(), key.serialize_pem())
    }

    async fn connect(&self, stage: &Stage, name: &str, alpn: &[&str]) -> TlsStream<TcpStream> {
        connect(&self.client(alpn), stage, name).await
    }

    fn client(&self, alpn: &[&str]) -> Arc<ClientConfig> {
        let mut config =
            ClientConfig::builder().with_root_certificates(self.roots.clone()).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

async fn connect(client: &Arc<ClientConfig>, stage: &Stage, name: &str) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(stage.address("web")).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(client.clone()).connect(name, stream).await.unwrap()
}

fn https(endpoint: std::net::SocketAddr, certificates: &str) -> String {
    let listener = format!("protocol: https, certificates: [{certificates}] }}");
    site(&[endpoint], "", "").replace("protocol: http }", &listener)
}

/// The certificate that was shown is this one.
fn shown(stream: &TlsStream<TcpStream>, certificate: &(String, String, String)) -> bool {
    let wanted = CertificateDer::from_pem_slice(certificate.1.as_bytes()).unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0] == wanted
}

async fn h2(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> SendRequest<Full<Bytes>> {
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn get(url: &str) -> http::request::Builder {
    Request::get(url).version(Version::HTTP_2)
}

async fn ask(
    sender: &mut SendRequest<Full<Bytes>>,
    request: http::request::Builder,
    body: &str,
) -> (u16, String) {
    let request = request.body(Full::from(body.to_owned())).unwrap();
    let response: Response<Incoming> = sender.send_request(request).await.unwrap();
    let status = response.status().as_u16();
    (status, String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

#[tokio::test]
async fn certificates_are_chosen_by_name() {
    let authority = Authority::new();
    let first = authority.certificate("first", &["a.example"]);
    let second = authority.certificate("second", &["b.example", "*.c.example"]);
    let origin = Origin::start(|seen: Seen| ok(seen.field("x-forwarded-proto").unwrap())).await;
    let stage = Stage::with_certificates(
        &https(origin.address, "first, second"),
        vec![first.clone(), second.clone()],
    );
    for (name, expected) in [("a.example", &first), ("b.example", &second), ("x.c.example", &second)] {
        let stream = authority.connect(&stage, name, &["http/1.1"]).await;
        assert!(shown(&stream, expected), "{name}");
        let mut downstream = Downstream::new(stream);
        downstream.send(format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n")).await;
        assert_eq!(downstream.answer().await.text(), "https");
    }
}

#[tokio::test]
async fn certificates_change_under_open_connections() {
    let authority = Authority::new();
    let (old, mut new) =
        (authority.certificate("c", &["a.example"]), authority.certificate("c", &["a.example"]));
    new.0 = "d".into();
    let origin = Origin::start(|_| ok("")).await;
    let stage = Stage::with_certificates(&https(origin.address, "c"), vec![old.clone(), new.clone()]);
    let stream = authority.connect(&stage, "a.example", &[]).await;
    assert!(shown(&stream, &old));
    let mut downstream = Downstream::new(stream);
    stage.proxy.apply(stage.compile(2, &https(origin.address, "d"))).unwrap();
    downstream.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    assert_eq!(downstream.answer().await.status, 200, "the connection goes on");
    assert!(shown(&authority.connect(&stage, "a.example", &[]).await, &new));
    assert!(PrivateKeyDer::from_pem_slice(old.2.as_bytes()).is_ok());
}

#[tokio::test]
async fn h2_is_negotiated_and_multiplexed() {
    let authority = Authority::new();
    let certificate = authority.certificate("c", &["a.example"]);
    let other = authority.certificate("o", &["o.example"]);
    let origin = Origin::start(|seen: Seen| {
        let body = String::from_utf8(seen.body.clone()).unwrap();
        ok(&format!("{} {} {}", seen.field("host").unwrap(), seen.path(), body))
    })
    .await;
    let stage = Stage::with_certificates(&https(origin.address, "c, o"), vec![certificate, other]);
    let stream = authority.connect(&stage, "a.example", &["h2", "http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let sender = h2(stream).await;
    let asked = (0..50).map(|n| {
        let mut sender = sender.clone();
        tokio::spawn(async move {
            let request = Request::post(format!("https://a.example/{n}"));
            assert_eq!(ask(&mut sender, request, "body").await, (200, format!("a.example /{n} body")));
        })
    });
    for done in asked.collect::<Vec<_>>() {
        done.await.unwrap();
    }
    let (status, _) = ask(&mut sender.clone(), get("https://o.example/"), "").await;
    assert_eq!(status, 421, "another certificate's host does not belong on this connection");
}

#[tokio::test]
async fn h2_in_clear_text_passes_the_same_gate() {
    let origin = Origin::start(|_| ok("fine")).await;
    let stage = Stage::start(&site(&[origin.address], "", ""));
    let web = stage.address("web");
    let table: Vec<(http::request::Builder, u16)> = vec![
        (get("http://a.example/"), 200),
        (get("http://a.example/").header("host", "a.example"), 200),
        (get("http://a.example/").header("host", "b.example"), 400),
        (get("https://a.example/"), 400),
        (get("http://a.example/%00"), 400),
        (get("http://a.example/").header("x_forwarded_for", "1"), 400),
        (get("http://a.example/").header("via", "1.1 shoal-one"), 508),
    ];
    for (request, status) in table {
        let shown = format!("{request:?}");
        let mut sender = h2(TcpStream::connect(web).await.unwrap()).await;
        assert_eq!(ask(&mut sender, request, "").await.0, status, "{shown}");
    }
}

#[tokio::test]
async fn a_truncated_body_resets_the_stream() {
    let origin = Origin::start(|_| {
        support::and_close("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n")
    })
    .await;
    let stage = Stage::start(&site(&[origin.address], "", ""));
    let mut sender = h2(TcpStream::connect(stage.address("web")).await.unwrap()).await;
    let response = sender.send_request(get("http://a/").body(Full::default()).unwrap()).await.unwrap();
    assert!(response.into_body().collect().await.is_err());
}

#[tokio::test]
async fn sessions_are_resumed_on_another_node() {
    let origin = Origin::start(|_| ok("")).await;
    let authority = Authority::new();
    let certificate = authority.certificate("a", &["a.org"]);
    let site = https(origin.address, "a");
    let nodes = [(); 2].map(|()| Stage::with_certificates(&site, vec![certificate.clone()]));
    let client = authority.client(&["http/1.1"]);
    for (node, kind) in nodes.iter().zip([HandshakeKind::Full, HandshakeKind::Resumed]) {
        let mut stream = Downstream::new(connect(&client, node, "a.org").await);
        assert_eq!(stream.stream.get_ref().1.handshake_kind(), Some(kind));
        stream.send("GET / HTTP/1.1\r\nHost: a.org\r\n\r\n").await;
        assert_eq!(stream.answer().await.status, 200);
    }
}

#[tokio::test]
async fn keys_are_exchanged_as_quantum_computers_could_not_follow() {
    let origin = Origin::start(|_| ok("")).await;
    let authority = Authority::new();
    let certificate = authority.certificate("a", &["a.org"]);
    let stage = Stage::with_certificates(&https(origin.address, "a"), vec![certificate]);
    let stream = authority.connect(&stage, "a.org", &["http/1.1"]).await;
    let group = stream.get_ref().1.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
}

#[tokio::test]
async fn sessions_are_resumed_after_a_change_of_the_site() {
    let origin = Origin::start(|_| ok("")).await;
    let authority = Authority::new();
    let certificate = authority.certificate("a", &["a.org"]);
    let site = https(origin.address, "a");
    let stage = Stage::with_certificates(&site, vec![certificate]);
    let client = authority.client(&["http/1.1"]);
    let kinds = [HandshakeKind::Full, HandshakeKind::Resumed];
    for (revision, kind) in (2..).zip(kinds) {
        let mut stream = Downstream::new(connect(&client, &stage, "a.org").await);
        assert_eq!(stream.stream.get_ref().1.handshake_kind(), Some(kind));
        // The tickets come with the first answer.
        stream.send("GET / HTTP/1.1\r\nHost: a.org\r\n\r\n").await;
        assert_eq!(stream.answer().await.status, 200);
        stage.proxy.apply(stage.compile(revision, &site)).unwrap();
    }
}

#[tokio::test]
async fn streams_that_nobody_reads_are_reset() {
    let origin = Origin::start(|seen: Seen| ok(&"x".repeat(seen.path()[1..].parse().unwrap()))).await;
    let limits = "protocol: http, limits: { write_idle_timeout: 300ms } }";
    let stage = Stage::start(&site(&[origin.address], "", "").replace("protocol: http }", limits));
    let stream = TcpStream::connect(stage.address("web")).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(65_535)
        .initial_connection_window_size(1 << 20)
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = get("http://a/3000000").body(Full::<Bytes>::default()).unwrap();
    let unread = sender.send_request(request).await.unwrap();
    support::wait_until("the reset", || {
        stage.metric("shoal_failures_total{reason=\"downstream_reset\"}") == 1
    })
    .await;
    assert_eq!(ask(&mut sender, get("http://a/5"), "").await, (200, "xxxxx".to_owned()), "others go on");
    assert!(unread.into_body().collect().await.is_err());
}

#[tokio::test]
async fn a_node_that_goes_says_so_on_http2() {
    let origin = Origin::start(|_| ok("")).await;
    let stage = Stage::start(&site(&[origin.address], "", ""));
    let open = async || {
        let stream = TcpStream::connect(stage.address("web")).await.unwrap();
        let (sender, connection) =
            handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        (sender, tokio::spawn(connection))
    };
    let (mut used, used_ends) = open().await;
    assert_eq!(ask(&mut used, get("http://a/"), "").await.0, 200);
    stage.proxy.retire();
    tokio::time::timeout(support::PATIENCE, used_ends).await.expect("GOAWAY").unwrap().unwrap();
    let (mut late, late_ends) = open().await;
    assert_eq!(ask(&mut late, get("http://a/"), "").await.0, 200, "the first request is still served");
    tokio::time::timeout(support::PATIENCE, late_ends).await.expect("GOAWAY").unwrap().unwrap();
}

#[tokio::test]
async fn plain_http_on_a_tls_port_is_told_so() {
    let certificate = Authority::new().certificate("c", &["a.example"]);
    let origin = Origin::start(|_| ok("")).await;
    let stage = Stage::with_certificates(&https(origin.address, "c"), vec![certificate]);
    let answer = stage.ask("GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    assert_eq!((answer.status, answer.field("connection")), (400, Some("close")));
    assert!(answer.text().contains("plain HTTP was sent to a port that speaks TLS"), "{}", answer.text());
    let line = &stage.log_of(1).await[0];
    assert_eq!(line["reason"].as_str(), Some("downstream_bad_request"));
    assert_eq!(
        (line["rule"].as_str(), line["client_addr"].as_str()),
        (Some("plain_http_on_tls_port"), Some("127.0.0.1"))
    );
    assert_eq!(stage.metric("shoal_gate_refusals_total{rule=\"plain_http_on_tls_port\"}"), 1);
    assert_eq!((stage.metric("shoal_tls_handshakes_failed_total"), origin.requests()), (0, 0));
    // What is neither gets an alert, as before.
    let mut downstream = stage.connect().await;
    downstream.send([0; 64]).await;
    assert_eq!(downstream.read_to_end().await.first(), Some(&21));
    // The alert is out before it is counted.
    support::wait_until("its count", || stage.metric("shoal_tls_handshakes_failed_total") == 1).await;
}

#[tokio::test]
async fn sessions_over_tls_are_for_tls_alone() {
    let origin = Origin::start(|_| ok("")).await;
    let authority = Authority::new();
    let site = https(origin.address, "a").replace("endpoints:", "sticky: { name: app }, endpoints:");
    let node = Stage::with_certificates(&site, vec![authority.certificate("a", &["a.org"])]);
    let mut downstream = Downstream::new(connect(&authority.client(&["http/1.1"]), &node, "a.org").await);
    downstream.send("GET / HTTP/1.1\r\nHost: a.org\r\n\r\n").await;
    let answer = downstream.answer().await;
    let cookie = answer.field("set-cookie").unwrap();
    assert!(cookie.starts_with("app=") && cookie.ends_with("; Secure"), "{cookie}");
}
