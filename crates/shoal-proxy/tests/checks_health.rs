//! Active checks: the first at once, verdicts told once, endpoints of other nodes left alone.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use arc_swap::ArcSwap;
use shoal_cluster::ClusterView;
use shoal_model::{ConfigView, EndpointId};
use shoal_policy::health::{Reason, Verdict};
use shoal_proxy::{Checker, CheckerSettings, HealthEvent};
use support::{Origin, PATIENCE, Seen, Stage, nowhere, site};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::time::timeout;

const HEALTH: &str = ", health: { http: { path: /healthz }, interval: 50ms, timeout: 5s, fall: 2, rise: 2 }";

fn check(config: &Arc<ArcSwap<ConfigView>>, cluster: ClusterView) -> (Checker, mpsc::Receiver<HealthEvent>) {
    let (events, received) = mpsc::channel(64);
    let cluster = Arc::new(ArcSwap::from_pointee(cluster));
    (Checker::start(CheckerSettings { config: config.clone(), cluster, events }), received)
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
    let (_checker, mut events) = check(&stage.config, ClusterView::default());
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
    let (_checker, mut events) = check(&stage.config, ClusterView::default());
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
    let (_checker, mut events) = check(&stage.config, ClusterView::default());
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
    let (_checker, mut events) = check(&stage.config, ClusterView::default());
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
