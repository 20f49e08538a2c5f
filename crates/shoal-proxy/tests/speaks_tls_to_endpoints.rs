//! TLS towards endpoints: who they are, who they are told that we are, what is agreed on in the handshake, and what is kept of
//! it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use shoal_policy::health::Verdict;
use shoal_proxy::HealthEvent;
use support::h2_endpoint::Endpoint;
use support::{Downstream, Stage, serve_raw, site};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

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
        secure_endpoint(&chain, &key, protocols, ask.then_some(&self.der)).await
    }
}

/// An endpoint with a certificate and its key that offers `protocols`, and wants to see a certificate of `asked`.
async fn secure_endpoint(
    chain: &str,
    key: &str,
    protocols: &[&str],
    asked: Option<&CertificateDer<'static>>,
) -> SecureEndpoint {
    let builder = if let Some(asked) = asked {
        let mut roots = RootCertStore::empty();
        roots.add(asked.clone()).unwrap();
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
    let check = async |upstream: String, expected: Result<(), Option<&str>>| {
        let stage = Stage::start(&site(&[endpoint.address], "", &upstream));
        let answer = stage.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(answer.status, if expected.is_ok() { 200 } else { 502 }, "{upstream}");
        let line = &stage.log_of(1).await[0];
        assert_eq!(line["detail"].as_str(), expected.err().flatten(), "{upstream}: {line}");
    };
    let (untrusted, wrong_name) = (Err(Some("tls: certificate not trusted")), Err(Some("tls: wrong name")));
    check(tls(&authority, ", server_name: app.internal"), Ok(())).await;
    check(tls(&other, ", server_name: app.internal"), untrusted).await;
    check(tls(&authority, ", server_name: other.internal"), wrong_name).await;
    check(tls(&authority, ""), wrong_name).await;
    check(", tls: { server_name: app.internal }".to_owned(), untrusted).await;
    check(", tls: { verify: false }".to_owned(), Ok(())).await;
    // It was reached: what comes then is no TLS.
    check(String::new(), Err(None)).await;
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
        let stage = Stage::with_certificates(&site(&[endpoint.address], "", &upstream), certificates);
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
        let stage = Stage::start(&site(&[endpoint.address], "", &upstream));
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
async fn checks_say_what_is_wrong_with_tls() {
    let (authority, other) = (Authority::new(), Authority::new());
    let endpoint = authority.endpoint(&["http/1.1"], false).await;
    let clear = serve_raw(Arc::default(), |mut stream, _| async move {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        // It stays until the other side has seen that.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let unknown = shoal_model::site::Pin([7; 32]);
    let check = async |address: SocketAddr, upstream: String, expected: &str| {
        let health = ", health: { http: { path: / }, interval: 50ms, fall: 1 }";
        let stage = Stage::start(&site(&[address], "", &format!("{upstream}{health}")));
        let (sender, mut verdicts) = tokio::sync::mpsc::channel(8);
        let _checker = shoal_proxy::Checker::start(shoal_proxy::CheckerSettings {
            config: stage.config.clone(),
            cluster: stage.cluster.clone(),
            names: stage.proxy.names().clone(),
            events: sender,
        });
        let event = tokio::time::timeout(support::PATIENCE, verdicts.recv()).await.expect("a verdict");
        let Some(HealthEvent::Verdict { verdict: Verdict::Down(reason), .. }) = event else {
            panic!("{upstream}: {event:?}")
        };
        assert_eq!(reason.name(), expected, "{upstream}");
    };
    let (address, named) = (endpoint.address, ", server_name: app.internal");
    check(address, tls(&other, named), "tls: certificate not trusted").await;
    check(address, tls(&authority, ", server_name: b.internal"), "tls: wrong name").await;
    check(address, tls(&authority, &format!("{named}, pins: [\"{unknown}\"]")), "tls: wrong pin").await;
    check(address, format!("{}, protocol: h2", tls(&authority, named)), "tls: http/2 not offered").await;
    check(clear, tls(&authority, named), "tls: handshake failed").await;
}

#[tokio::test]
async fn a_certificate_among_the_authorities_is_an_endpoint_by_itself() {
    let authority = Authority::new();
    let check = async |name: &str, expires: i32, more: &str, expected: Result<(), &str>| {
        // As `openssl req -x509` makes them: an authority, and signed by itself.
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = rcgen::date_time_ymd(expires, 1, 1);
        let certificate = params.self_signed(&key).unwrap();
        let endpoint = secure_endpoint(&certificate.pem(), &key.serialize_pem(), &[], None).await;
        let known = if more.is_empty() { certificate.pem() } else { more.to_owned() };
        let upstream = format!(", tls: {{ ca_pem: {known:?}, server_name: app.internal }}");
        let stage = Stage::start(&site(&[endpoint.address], "", &upstream));
        let answer = stage.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(answer.status, if expected.is_ok() { 200 } else { 502 }, "{name} {expires}");
        assert_eq!(stage.log_of(1).await[0]["detail"].as_str(), expected.err(), "{name} {expires}");
    };
    check("app.internal", 2099, "", Ok(())).await;
    check("other.internal", 2099, "", Err("tls: wrong name")).await;
    check("app.internal", 2020, "", Err("tls: certificate out of date")).await;
    check("app.internal", 2099, &authority.pem, Err("tls: certificate not trusted")).await;
}

#[tokio::test]
async fn a_certificate_that_is_no_authority_vouches_for_nobody_else() {
    let vouched = async |is_ca: IsCa| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["other.internal".to_owned()]).unwrap();
        params.is_ca = is_ca;
        let certificate = params.self_signed(&key).unwrap();
        let (pem, der) = (certificate.pem(), certificate.der().clone());
        let signer = Authority { issuer: Issuer::new(params, key), pem, der };
        let endpoint = signer.endpoint(&[], false).await;
        let stage =
            Stage::start(&site(&[endpoint.address], "", &tls(&signer, ", server_name: app.internal")));
        stage.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.status
    };
    assert_eq!(vouched(IsCa::Ca(BasicConstraints::Unconstrained)).await, 200);
    assert_eq!(vouched(IsCa::ExplicitNoCa).await, 502);
    assert_eq!(vouched(IsCa::NoCa).await, 502, "it says nothing of it");
}

#[tokio::test]
async fn sessions_are_resumed() {
    let authority = Authority::new();
    let endpoint = authority.endpoint(&[], false).await;
    let upstream =
        format!("{}, max_requests_per_connection: 1", tls(&authority, ", server_name: app.internal"));
    let stage = Stage::start(&site(&[endpoint.address], "", &upstream));
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
        let stage = Stage::start(&site(&[endpoint.address], "", &upstream));
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
