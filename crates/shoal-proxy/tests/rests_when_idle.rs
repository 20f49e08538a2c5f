//! Idle connections do without a codec, and nobody who asks again notices.

mod support;

use std::time::Duration;

use shoal_proxy::Ports;
use support::{Origin, Stage, ok, site, wait_until};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

async fn rests(stage: &Stage, connections: u64) {
    wait_until("they rest", || stage.metric("shoal_connections_resting") == connections).await;
}

#[tokio::test]
async fn a_rested_connection_serves_as_before() {
    let origin = Origin::start(|seen| ok(seen.path())).await;
    let stage = Stage::start(&site(&[origin.address], "", ""));
    let mut downstream = stage.connect().await;
    downstream.send(GET).await;
    assert_eq!(downstream.answer().await.status, 200);

    // Asked again at once, in two pieces, and with two requests in one.
    for (pieces, answers) in
        [(&[GET][..], 1), (&["GET /x HT", "TP/1.1\r\nHost: a\r\n\r\n"], 1), (&[GET, GET], 2)]
    {
        rests(&stage, 1).await;
        for piece in pieces {
            downstream.send(piece).await;
        }
        for _ in 0..answers {
            assert_eq!(downstream.answer().await.status, 200);
        }
        rests(&stage, 1).await;
    }

    let mut other = stage.connect().await;
    other.send(GET).await;
    assert_eq!(other.answer().await.status, 200);
    rests(&stage, 2).await;
    drop(downstream);
    rests(&stage, 1).await;

    // It hears orders, too.
    let proxy = stage.proxy.clone();
    let drained = tokio::spawn(async move { proxy.drain(Duration::from_secs(1), Ports::Closed).await });
    assert!(other.is_closed().await);
    assert_eq!(drained.await.unwrap(), 0);
}

#[tokio::test]
async fn a_rested_connection_ends_when_its_time_is_over() {
    let origin = Origin::start(|_| ok("done")).await;
    let site = site(&[origin.address], "", "")
        .replace("protocol: http", "protocol: http, limits: { keepalive_timeout: 3s }");
    let stage = Stage::start(&site);
    let mut downstream = stage.connect().await;
    downstream.send(GET).await;
    assert_eq!(downstream.answer().await.status, 200);
    rests(&stage, 1).await;
    assert!(downstream.is_closed().await);
    rests(&stage, 0).await;
}
