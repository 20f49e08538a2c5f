//! Active checks: the first at once, verdicts told once, endpoints of other nodes left alone.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod support;

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use shoal_cluster::ClusterView;
use shoal_model::EndpointId;
use shoal_policy::health::{Reason, Verdict};
use shoal_proxy::{Checker, CheckerSettings, HealthEvent};
use support::{Origin, PATIENCE, Seen, Stage, nowhere, site};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::server::{NamedService, UnaryService};
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower_service::Service;

const HEALTH: &str = ", health: { http: { path: /healthz }, interval: 50ms, timeout: 5s, fall: 2, rise: 2 }";

fn check(stage: &Stage, cluster: ClusterView) -> (Checker, mpsc::Receiver<HealthEvent>) {
    let (events, received) = mpsc::channel(64);
    let (config, cluster) = (stage.config.clone(), Arc::new(ArcSwap::from_pointee(cluster)));
    let names = stage.proxy.names().clone();
    (Checker::start(CheckerSettings { config, cluster, names, events }), received)
}

async fn next(events: &mut mpsc::Receiver<HealthEvent>) -> HealthEvent {
    timeout(PATIENCE, events.recv()).await.expect("no event came").unwrap()
}

#[tokio::test]
async fn verdicts_follow_the_endpoint() {
    static STATUS: AtomicU16 = AtomicU16::new(200);
    let origin = Origin::start(|seen: Seen| {
        assert_eq!((seen.path(), seen.field("user-agent")), ("/healthz", Some("shoal-health")));
        format!("HTTP/1.1 {} X\r\ncontent-length: 0\r\n\r\n", STATUS.load(Ordering::SeqCst))
    })
    .await;
    let stage = Stage::start(&site(&[origin.address], "", HEALTH));
    let endpoint = EndpointId::of("app", &origin.address.to_string());
    let (_checker, mut events) = check(&stage, ClusterView::default());
    assert_eq!(next(&mut events).await, HealthEvent::Verdict { endpoint, verdict: Verdict::Up });
    STATUS.store(500, Ordering::SeqCst);
    assert_eq!(
        next(&mut events).await,
        HealthEvent::Verdict { endpoint, verdict: Verdict::Down(Reason::Status) }
    );
    STATUS.store(204, Ordering::SeqCst);
    assert_eq!(next(&mut events).await, HealthEvent::Verdict { endpoint, verdict: Verdict::Up });
    stage.proxy.apply(stage.compile(2, &site(&[nowhere().await], "", ""))).unwrap();
    assert_eq!(next(&mut events).await, HealthEvent::Unassigned { endpoint });
}

#[tokio::test]
async fn a_dead_endpoint_is_down_at_once() {
    let dead = nowhere().await;
    let stage = Stage::start(&site(&[dead], "", ", health: { tcp: {}, interval: 1h }"));
    let endpoint = EndpointId::of("app", &dead.to_string());
    let (_checker, mut events) = check(&stage, ClusterView::default());
    let verdict = Verdict::Down(Reason::ConnectRefused);
    assert_eq!(next(&mut events).await, HealthEvent::Verdict { endpoint, verdict });
}

#[tokio::test]
async fn checks_introduce_themselves_where_endpoints_want_it() {
    let address = support::serve_raw(Arc::default(), |stream, _| async move {
        let mut stream = support::Downstream::new(stream);
        let introduced = stream.read_until(b"\r\n").await;
        assert_eq!(introduced.as_deref(), Some(&b"PROXY UNKNOWN\r\n"[..]));
        stream.read_head().await.unwrap();
        stream.send(support::ok("")).await;
    })
    .await;
    let stage = Stage::start(&site(&[address], "", &format!("{HEALTH}, proxy_protocol: v1")));
    let endpoint = EndpointId::of("app", &address.to_string());
    let (_checker, mut events) = check(&stage, ClusterView::default());
    assert_eq!(next(&mut events).await, HealthEvent::Verdict { endpoint, verdict: Verdict::Up });
}

/// A site whose one endpoint is `endpoint`, checked by HTTP.
fn checked(endpoint: &str, upstream: &str) -> String {
    let nowhere = ([127, 0, 0, 1], 9).into();
    site(&[nowhere], "", &format!("{HEALTH}{upstream}")).replace("127.0.0.1:9\"", &format!("{endpoint}\""))
}

#[tokio::test]
async fn unix_sockets_are_checked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.sock");
    let text = format!("unix:{}", path.display());
    let stage = Stage::start(&checked(&text, ""));
    let endpoint = EndpointId::of("app", &text);
    let (_checker, mut events) = check(&stage, ClusterView::default());
    let refused = Verdict::Down(Reason::ConnectRefused);
    assert_eq!(next(&mut events).await, HealthEvent::Verdict { endpoint, verdict: refused });
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = support::Downstream::new(stream);
            let head = stream.read_head().await.unwrap();
            assert!(head.starts_with("GET /healthz HTTP/1.1\r\n"), "{head}");
            assert_eq!(support::field(&head, "host"), Some("localhost"));
            stream.send(support::ok("")).await;
        }
    });
    assert_eq!(next(&mut events).await, HealthEvent::Verdict { endpoint, verdict: Verdict::Up });
}

/// `grpc.health.v1.Health`, as far as it is asked.
#[derive(Clone)]
struct Health(Arc<AtomicU16>);

/// `ServingStatus.SERVING` and `NOT_SERVING`.
const SERVING: u16 = 1;
const NOT_SERVING: u16 = 2;

#[derive(Clone, PartialEq, prost::Message)]
struct Question {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Standing {
    #[prost(int32, tag = "1")]
    status: i32,
}

impl NamedService for Health {
    const NAME: &'static str = "grpc.health.v1.Health";
}

impl UnaryService<Question> for Health {
    type Response = Standing;
    type Future = Ready<Result<Response<Standing>, Status>>;

    fn call(&mut self, request: Request<Question>) -> Self::Future {
        ready(match request.into_inner().service.as_str() {
            "shop.Cart" => Ok(Response::new(Standing { status: self.0.load(Ordering::SeqCst).into() })),
            other => Err(Status::not_found(other.to_owned())),
        })
    }
}

impl Service<http::Request<Body>> for Health {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        let health = self.clone();
        Box::pin(async move {
            let codec = ProstCodec::<Standing, Question>::default();
            Ok(tonic::server::Grpc::new(codec).unary(health, request).await)
        })
    }
}

/// A gRPC server whose health is `status`.
async fn serve_health(status: Arc<AtomicU16>, tls: Option<Identity>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut server = Server::builder();
    if let Some(identity) = tls {
        server = server.tls_config(ServerTlsConfig::new().identity(identity)).unwrap();
    }
    let serving = server.add_service(Health(status));
    tokio::spawn(serving.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

fn asks_for(service: &str) -> String {
    format!(", health: {{ grpc: {{ service: {service} }}, interval: 50ms, timeout: 5s, fall: 1, rise: 1 }}")
}

#[tokio::test]
async fn grpc_servers_say_whether_they_serve() {
    let status = Arc::new(AtomicU16::new(SERVING));
    let address = serve_health(status.clone(), None).await;
    let stage = Stage::start(&site(&[address], "", &format!("{}, protocol: h2c", asks_for("shop.Cart"))));
    let endpoint = EndpointId::of("app", &address.to_string());
    let (_checker, mut events) = check(&stage, ClusterView::default());
    assert_eq!(next(&mut events).await, HealthEvent::Verdict { endpoint, verdict: Verdict::Up });
    let down = Verdict::Down(Reason::Status);
    // Unknown, not serving, and what a later version may say.
    for other in [0, NOT_SERVING, 3, 300] {
        status.store(other, Ordering::SeqCst);
        assert_eq!(next(&mut events).await, HealthEvent::Verdict { endpoint, verdict: down });
        status.store(SERVING, Ordering::SeqCst);
        assert_eq!(next(&mut events).await, HealthEvent::Verdict { endpoint, verdict: Verdict::Up });
    }
    let unknown = site(&[address], "", &format!("{}, protocol: h2c", asks_for("shop.Other")));
    stage.proxy.apply(stage.compile(2, &unknown)).unwrap();
    assert_eq!(next(&mut events).await, HealthEvent::Verdict { endpoint, verdict: down });
}

#[tokio::test]
async fn grpc_servers_are_asked_over_tls() {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["app.test".to_owned()]).unwrap().self_signed(&key).unwrap();
    let identity = Identity::from_pem(certificate.pem(), key.serialize_pem());
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let status = Arc::new(AtomicU16::new(SERVING));
    let address = serve_health(status.clone(), Some(identity)).await;
    let tls = "protocol: auto, tls: { server_name: app.test, verify: false }";
    let stage = Stage::start(&site(&[address], "", &format!("{}, {tls}", asks_for("shop.Cart"))));
    let endpoint = EndpointId::of("app", &address.to_string());
    let (_checker, mut events) = check(&stage, ClusterView::default());
    assert_eq!(next(&mut events).await, HealthEvent::Verdict { endpoint, verdict: Verdict::Up });
    status.store(NOT_SERVING, Ordering::SeqCst);
    let down = Verdict::Down(Reason::Status);
    assert_eq!(next(&mut events).await, HealthEvent::Verdict { endpoint, verdict: down });
}

#[tokio::test]
async fn a_name_is_checked_at_every_address_it_leads_to() {
    let dns = support::dns::NameServer::start().await;
    let origin = Origin::start(|_: Seen| support::ok("")).await;
    let port = origin.address.port();
    dns.set_addresses("app.test", 0, &["127.0.0.1"]);
    let resolver =
        format!(", resolver: {{ servers: [\"{}\"], allow_loopback: true, min_ttl: 100ms }}", dns.address);
    let stage = Stage::start(&checked(&format!("app.test:{port}"), &resolver));
    let first = EndpointId::of("app", &format!("127.0.0.1:{port}"));
    // Nothing listens there.
    let second = EndpointId::of("app", &format!("127.0.0.9:{port}"));
    let name = EndpointId::of("app", &format!("app.test:{port}"));
    let (_checker, mut events) = check(&stage, ClusterView::default());
    let mut of = async |wanted: EndpointId| loop {
        match next(&mut events).await {
            HealthEvent::Verdict { endpoint, verdict } if endpoint == wanted => return Some(verdict),
            HealthEvent::Unassigned { endpoint } if endpoint == wanted => return None,
            // Until it was found it was checked under its name.
            HealthEvent::Verdict { endpoint, .. } | HealthEvent::Unassigned { endpoint } => {
                assert!(endpoint == name || endpoint == first, "{endpoint:?}");
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(of(first).await, Some(Verdict::Up));
    dns.set_addresses("app.test", 0, &["127.0.0.1", "127.0.0.9"]);
    assert_eq!(of(second).await, Some(Verdict::Down(Reason::ConnectRefused)));
    dns.set_addresses("app.test", 0, &["127.0.0.9"]);
    assert_eq!(of(first).await, None, "it is not checked any more");
}
