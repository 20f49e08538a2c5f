//! How many connections a listener takes, of all, of one address, and how fast.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod support;

use support::{Downstream, Origin, Stage, ok, serve_raw, site, wait_until};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

async fn stage(listener: &str) -> Stage {
    let origin = Origin::start(|_| ok("served")).await;
    let listener = format!("protocol: http, {listener} }}");
    Stage::start(&site(&[origin.address], "", "").replace("protocol: http }", &listener))
}

/// A connection that was served once and stays open; `None` = it was closed.
async fn served(stage: &Stage, first: &str) -> Option<Downstream<TcpStream>> {
    use tokio::io::AsyncWriteExt;
    let mut downstream = stage.connect().await;
    // Whoever is turned away may be so before this is sent.
    let _ = downstream.stream.write_all(format!("{first}{REQUEST}").as_bytes()).await;
    let mut byte = [0];
    match downstream.stream.peek(&mut byte).await {
        Ok(1) => {
            assert_eq!(downstream.answer().await.text(), "served");
            Some(downstream)
        }
        _ => {
            let mut rest = Vec::new();
            let _ = downstream.stream.read_to_end(&mut rest).await;
            assert!(rest.is_empty());
            None
        }
    }
}

#[tokio::test]
async fn an_address_has_so_many_connections_and_no_more() {
    let stage = stage("limits: { max_connections_per_address: 2 }").await;
    let first = served(&stage, "").await.unwrap();
    let _second = served(&stage, "").await.unwrap();
    assert!(served(&stage, "").await.is_none());
    assert_eq!(stage.metric("shoal_connections_refused_total{reason=\"address_full\"}"), 1);
    drop(first);
    wait_until("the place of the first", || stage.proxy.open_connections() == 1).await;
    assert!(served(&stage, "").await.is_some());
}

#[tokio::test]
async fn a_tunnel_keeps_the_place_of_its_connection() {
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    let endpoint = serve_raw(Default::default(), move |stream, _| async move {
        let mut stream = Downstream::new(stream);
        let head = stream.read_head().await.unwrap();
        let asks_to_switch = support::field(&head, "upgrade").is_some();
        stream.send(if asks_to_switch { switch.to_owned() } else { ok("served") }).await;
        stream.read_to_end().await;
    })
    .await;
    let listener = "protocol: http, limits: { max_connections_per_address: 1, tunnel_idle_timeout: 1s } }";
    let stage = Stage::start(&site(&[endpoint], "", "").replace("protocol: http }", listener));
    let mut tunnel = stage.connect().await;
    let asked = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    tunnel.send(asked).await;
    assert!(tunnel.read_head().await.unwrap().starts_with("HTTP/1.1 101"));
    assert!(served(&stage, "").await.is_none(), "the address has its one connection");
    // It says nothing for too long.
    assert!(tunnel.is_closed().await);
    let idle = || stage.metric("shoal_limits_reached_total{limit=\"tunnel_idle_timeout\"}") == 1;
    wait_until("the count of the tunnel", idle).await;
    wait_until("its end", || stage.proxy.open_connections() == 0).await;
    assert!(served(&stage, "").await.is_some());
}

#[tokio::test]
async fn behind_a_balancer_it_is_the_callers_address_that_counts() {
    let listener = "proxy_protocol: { trusted: [127.0.0.0/8] }, limits: { max_connections_per_address: 1 }";
    let stage = stage(listener).await;
    let header = |caller: &str| format!("PROXY TCP4 {caller} 198.51.100.1 4711 80\r\n");
    let _one = served(&stage, &header("203.0.113.1")).await.unwrap();
    let _two = served(&stage, &header("203.0.113.2")).await.unwrap();
    assert!(served(&stage, &header("203.0.113.1")).await.is_none());
}

#[tokio::test]
async fn a_listener_has_so_many_connections_and_no_more() {
    let stage = stage("limits: { max_connections: 1 }").await;
    let _first = served(&stage, "").await.unwrap();
    assert!(served(&stage, "").await.is_none());
    assert_eq!(stage.metric("shoal_connections_refused_total{reason=\"listener_full\"}"), 1);
}

#[tokio::test]
async fn those_of_one_address_come_no_faster_than_they_may() {
    let listener =
        "proxy_protocol: { trusted: [127.0.0.0/8] }, limits: { max_connection_rate_per_address: 3 }";
    let stage = stage(listener).await;
    let header = |caller: &str| format!("PROXY TCP4 {caller} 198.51.100.1 4711 80\r\n");
    let mut admitted = 0;
    while stage.metric("shoal_connections_refused_total{reason=\"address_too_fast\"}") < 5 {
        admitted += u64::from(served(&stage, &header("203.0.113.1")).await.is_some());
        assert!(admitted < 1000, "nobody is ever too fast");
    }
    assert!(admitted >= 3, "a burst of one second's worth is let in, and not {admitted}");
    assert!(served(&stage, &header("203.0.113.2")).await.is_some(), "another address is another's affair");
}

#[tokio::test]
async fn when_it_gets_crowded_the_greediest_lose_idle_connections() {
    let listener = "proxy_protocol: { trusted: [127.0.0.0/8] }, limits: { max_connections: 50 }";
    let stage = stage(listener).await;
    let header = |caller: &str| format!("PROXY TCP4 {caller} 198.51.100.1 4711 80\r\n");
    let mut modest = served(&stage, &header("203.0.113.2")).await.unwrap();
    let mut greedy = Vec::new();
    for _ in 0..49 {
        greedy.push(served(&stage, &header("203.0.113.1")).await.unwrap());
    }
    // A fifth of the room is for others, whatever share of it each worker makes.
    wait_until("room for others", || stage.proxy.open_connections() <= 40).await;
    let counted = || stage.metric("shoal_limits_reached_total{limit=\"crowded\"}") >= 10;
    wait_until("the count of those that had to go", counted).await;
    assert!(served(&stage, &header("203.0.113.3")).await.is_some());
    modest.send(REQUEST).await;
    assert_eq!(modest.answer().await.text(), "served", "who has few keeps them");
}

#[tokio::test]
async fn new_connections_come_no_faster_than_they_may() {
    let stage = stage("limits: { max_connection_rate: 3 }").await;
    let mut admitted = 0;
    while stage.metric("shoal_connections_refused_total{reason=\"too_fast\"}") < 5 {
        admitted += u64::from(served(&stage, "").await.is_some());
        assert!(admitted < 1000, "nobody is ever too fast");
    }
    assert!(admitted >= 3, "a burst of one second's worth is let in, and not {admitted}");
}
