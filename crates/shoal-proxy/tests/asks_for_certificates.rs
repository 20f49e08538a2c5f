//! Downstreams that must show who they are: whom a listener lets in, what endpoints learn of it, what a session is good
//! for later.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair, RevokedCertParams, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use support::{Downstream, Origin, Seen, Stage, ok, site};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const NAME: &str = "a.example";

struct Authority {
    pem: String,
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key.
struct Pair {
    chain: String,
    key: String,
    der: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let (pem, der) = (certificate.pem(), certificate.der().clone());
        Self { pem, der, issuer: Issuer::new(params, key) }
    }

    fn certificate(&self, name: &str, serial: u64, expired: bool) -> Pair {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.serial_number = Some(SerialNumber::from(serial));
        params.distinguished_name.push(DnType::CommonName, name);
        if expired {
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Pair { chain: certificate.pem(), key: key.serialize_pem(), der: certificate.der().clone() }
    }

    fn revokes(&self, serials: &[u64]) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: rcgen::date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2024, 1, 1),
            next_update: rcgen::date_time_ymd(2099, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    /// A downstream that believes this authority and shows `certificate`, with a memory of its sessions.
    fn client(&self, certificate: Option<&Pair>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots);
        Arc::new(match certificate {
            None => config.with_no_client_auth(),
            Some(pair) => {
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
                config.with_client_auth_cert(vec![pair.der.clone()], key).unwrap()
            }
        })
    }
}

/// A proxy whose listeners need certificates, with an origin that tells which field it got.
struct Scene {
    stage: Stage,
    origin: Origin,
    servers: Authority,
}

impl Scene {
    async fn start(listener: &str) -> Self {
        let servers = Authority::new();
        let origin = Origin::start(|seen: Seen| {
            let field = |name| seen.field(name).unwrap_or("none").to_owned();
            ok(&format!("{} {}", field("client-cert"), field("client-cert-chain")))
        })
        .await;
        let server = servers.certificate(NAME, 1, false);
        let certificates = vec![("c".to_owned(), server.chain, server.key)];
        let stage = Stage::with_certificates(&text(&origin, listener), certificates);
        Self { stage, origin, servers }
    }

    fn change(&self, revision: u64, listener: &str) {
        self.stage.proxy.apply(self.stage.compile(revision, &text(&self.origin, listener))).unwrap();
    }

    /// Asks on a connection of its own. `None` = it was refused.
    async fn ask(&self, client: &Arc<ClientConfig>, fields: &str) -> Option<(HandshakeKind, String)> {
        let stream = TcpStream::connect(self.stage.address("web")).await.unwrap();
        let name = ServerName::try_from(NAME).unwrap();
        let stream = TlsConnector::from(client.clone()).connect(name, stream).await.ok()?;
        let mut downstream = Downstream::new(stream);
        // In TLS 1.3 who is refused learns it after the handshake, perhaps while it asks.
        let request = format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n{fields}\r\n");
        tokio::io::AsyncWriteExt::write_all(&mut downstream.stream, request.as_bytes()).await.ok()?;
        let head = downstream.read_head().await?;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let (body, ..) = downstream.read_body(&head).await;
        let kind = downstream.stream.get_ref().1.handshake_kind().unwrap();
        Some((kind, String::from_utf8(body).unwrap()))
    }

    fn counted(&self, result: &str) -> u64 {
        self.stage.metric(&format!("shoal_tls_client_certificates_total{{result=\"{result}\"}}"))
    }
}

fn text(origin: &Origin, listener: &str) -> String {
    let listener = format!("protocol: https, certificates: [c]{listener} }}");
    site(&[origin.address], "", "").replace("protocol: http }", &listener)
}

fn client_auth(authority: &Authority, more: &str) -> String {
    format!(", client_auth: {{ ca_pem: {:?}{more} }}", authority.pem)
}

fn field_of(pair: &Pair) -> String {
    format!(":{}:", STANDARD.encode(&pair.der))
}

#[tokio::test]
async fn only_who_is_vouched_for_is_let_in() {
    let (clients, strangers) = (Authority::new(), Authority::new());
    let good = clients.certificate("good", 7, false);
    let revoked = clients.certificate("revoked", 8, false);
    let expired = clients.certificate("expired", 9, true);
    let stranger = strangers.certificate("stranger", 7, false);
    let list = format!(", crl_pem: {:?}", clients.revokes(&[8]));
    let scene = Scene::start("").await;
    let mut revision = 1;
    let mut check = async |more: &str, shown: Option<&Pair>, expected: Result<&str, &str>| {
        revision += 1;
        scene.change(revision, &client_auth(&clients, more));
        let result = expected.unwrap_or_else(|result| result);
        let before = scene.counted(result);
        let answer = scene.ask(&scene.servers.client(shown), "").await;
        assert_eq!(answer.is_some(), expected.is_ok(), "{result} {more}: {answer:?}");
        support::wait_until(result, || scene.counted(result) == before + 1).await;
    };
    check("", Some(&good), Ok("verified")).await;
    check("", None, Err("missing")).await;
    check("", Some(&stranger), Err("refused")).await;
    check("", Some(&expired), Err("refused")).await;
    check("", Some(&revoked), Ok("verified")).await;
    check(&list, Some(&revoked), Err("refused")).await;
    check(&list, Some(&good), Ok("verified")).await;
    check(", mode: optional", None, Ok("absent")).await;
    check(", mode: optional", Some(&good), Ok("verified")).await;
    check(", mode: optional", Some(&stranger), Err("refused")).await;
}

#[tokio::test]
async fn endpoints_learn_of_it_from_this_node_alone() {
    let clients = Authority::new();
    let good = clients.certificate("good", 7, false);
    let scene = Scene::start("").await;
    let forged = "Client-Cert: :Zm9yZ2Vk:\r\nClient-Cert-Chain: :Zm9yZ2Vk:\r\n";
    let hidden = "Connection: Client-Cert\r\n";
    let told = format!("{} none", field_of(&good));
    let mut revision = 1;
    let mut check = async |listener: &str, shown: Option<&Pair>, fields: &str, expected: &str| {
        revision += 1;
        scene.change(revision, listener);
        let (_, seen) = scene.ask(&scene.servers.client(shown), fields).await.unwrap();
        assert_eq!(seen, expected, "{fields} {listener}");
    };
    let silent = client_auth(&clients, ", mode: optional");
    let telling = client_auth(&clients, ", mode: optional, forward: true");
    let trusting = ", trusted_proxies: [127.0.0.0/8]";
    for fields in ["", forged, hidden] {
        check(&telling, Some(&good), fields, &told).await;
        check(&format!("{telling}{trusting}"), Some(&good), fields, &told).await;
        check(&telling, None, fields, "none none").await;
        check(&format!("{telling}{trusting}"), None, fields, "none none").await;
        check(&silent, Some(&good), fields, "none none").await;
        check("", Some(&good), fields, "none none").await;
    }
    check(trusting, None, forged, ":Zm9yZ2Vk: :Zm9yZ2Vk:").await;
    let line = &scene.stage.log_of(1).await[0];
    assert!(line["client_cert_subject"].as_str().unwrap().contains("CN=good"), "{line}");
    assert_eq!(line["client_cert_sha256"].as_str().unwrap().len(), 64);
}

#[tokio::test]
async fn sessions_are_good_only_where_they_would_begin_the_same() {
    let (clients, others) = (Authority::new(), Authority::new());
    let good = clients.certificate("good", 7, false);
    let told = format!("{} none", field_of(&good));
    let forward = ", forward: true";
    let scene = Scene::start(&client_auth(&clients, forward)).await;
    let client = scene.servers.client(Some(&good));
    let (full, resumed) = (HandshakeKind::Full, HandshakeKind::Resumed);
    let (kind, seen) = scene.ask(&client, "").await.unwrap();
    assert_eq!((kind, &seen), (full, &told));
    let (kind, seen) = scene.ask(&client, "").await.unwrap();
    assert_eq!((kind, &seen), (resumed, &told), "the identity is that of the session");
    scene.change(2, &client_auth(&clients, ""));
    let (kind, _) = scene.ask(&client, "").await.unwrap();
    assert_eq!(kind, resumed, "whom endpoints are told of does not matter");
    // Now the same certificate would be refused, so a session that began with it must be, too.
    let list = format!(", crl_pem: {:?}", clients.revokes(&[7]));
    for (revision, listener) in [(3, client_auth(&clients, &list)), (4, client_auth(&others, forward))] {
        scene.change(revision, &listener);
        assert!(scene.ask(&client, "").await.is_none(), "{listener}");
    }
    // And who was asked for nothing has proved nothing.
    let anonymous = scene.servers.client(None);
    scene.change(5, "");
    scene.ask(&anonymous, "").await.unwrap();
    scene.change(6, &client_auth(&clients, ", mode: optional"));
    let (kind, _) = scene.ask(&anonymous, "").await.unwrap();
    assert_eq!(kind, full, "it had not been asked");
    scene.change(7, &client_auth(&clients, ""));
    assert!(scene.ask(&anonymous, "").await.is_none(), "optional is not enough");
}
