//! Upgraded connections: opened only by a proper handshake, relayed to the end of both directions.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use support::{Downstream, Origin, Stage, ok, serve_raw, site};
use tokio::io::AsyncWriteExt;

const ASK: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// An endpoint that switches with this `Sec-WebSocket-Accept`, then echoes, and says `bye` when the other side ends.
async fn echo(accept: &'static str) -> std::net::SocketAddr {
    echo_counted(accept, Arc::default()).await
}

async fn echo_counted(accept: &'static str, connections: Arc<AtomicUsize>) -> std::net::SocketAddr {
    serve_raw(connections, move |stream, _| async move {
        let mut stream = Downstream::new(stream);
        let head = stream.read_head().await.unwrap();
        assert_eq!(support::field(&head, "upgrade"), Some("websocket"));
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\r\nfirst "
        );
        stream.send(answer).await;
        let got = stream.read_to_end().await;
        stream.send(got).await;
        stream.send(" bye").await;
    })
    .await
}

#[tokio::test]
async fn half_closes_are_relayed() {
    let stage = Stage::start(&site(&[echo("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=").await], "", ""));
    let mut downstream = stage.connect().await;
    downstream.send(ASK).await;
    let head = downstream.read_head().await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert_eq!(support::field(&head, "upgrade"), Some("websocket"));
    for ended_here in ["x-hop", "keep-alive"] {
        assert_eq!(support::field(&head, ended_here), None);
    }
    assert_eq!(downstream.read_until(b"first ").await.unwrap(), b"first ");
    downstream.send("hello").await;
    downstream.stream.shutdown().await.unwrap();
    assert_eq!(
        downstream.read_to_end().await,
        b"hello bye",
        "the other direction goes on after the first has ended"
    );
}

#[tokio::test]
async fn a_wrong_answer_to_the_key_is_a_502() {
    let stage = Stage::start(&site(&[echo("AAAAAAAAAAAAAAAAAAAAAAAAAAA=").await], "", ""));
    let mut downstream = stage.connect().await;
    downstream.send(ASK).await;
    let answer = downstream.answer().await;
    assert_eq!(answer.status, 502);
    assert!(!answer.text().contains("first"), "not a byte is relayed");
}

#[tokio::test]
async fn refusals_of_the_endpoint_are_ordinary_answers() {
    let origin = Origin::start(|_| ok("no websocket here")).await;
    let stage = Stage::start(&site(&[origin.address], "", ""));
    let mut downstream = stage.connect().await;
    downstream.send(format!("{ASK}GET /surplus HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    let answer = downstream.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "no websocket here"));
    assert_eq!(answer.field("connection"), Some("close"), "what follows may not be HTTP");
    downstream.read_to_end().await;
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn upgrades_that_the_route_does_not_allow_are_ordinary_requests() {
    let origin = Origin::start(|seen: support::Seen| ok(seen.field("upgrade").unwrap_or("none"))).await;
    let stage = Stage::start(&site(&[origin.address], ", upgrades: []", ""));
    assert_eq!(stage.ask(ASK).await.text(), "none");
}

#[tokio::test]
async fn dead_endpoints_are_passed_over() {
    let endpoints = [support::nowhere().await, echo("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=").await];
    let stage = Stage::start(&site(&endpoints, "", ""));
    for _ in 0..4 {
        let mut downstream = stage.connect().await;
        downstream.send(ASK).await;
        assert!(downstream.read_head().await.unwrap().starts_with("HTTP/1.1 101"));
    }
}

#[tokio::test]
async fn silent_tunnels_end() {
    let text = site(&[echo("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=").await], "", "")
        .replace("protocol: http }", "protocol: http, limits: { tunnel_idle_timeout: 300ms } }");
    let stage = Stage::start(&text);
    let mut downstream = stage.connect().await;
    downstream.send(ASK).await;
    assert!(downstream.read_head().await.unwrap().starts_with("HTTP/1.1 101"));
    assert_eq!(downstream.read_to_end().await, b"first ");
}

#[tokio::test]
async fn tunnels_count_among_the_connections() {
    let site = site(&[echo("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=").await], "", "")
        .replace("protocol: http }", "protocol: http, limits: { max_connections: 1 } }");
    let stage = Stage::start(&site);
    let mut tunnel = stage.connect().await;
    tunnel.send(ASK).await;
    assert_eq!(tunnel.read_until(b"first ").await.map(|_| ()), Some(()));
    assert_eq!(stage.proxy.open_connections(), 1);
    let mut second = stage.connect().await;
    second.send(ASK).await;
    assert!(second.is_closed().await, "there is one place, and a tunnel has it");
    drop(tunnel);
    support::wait_until("the end of the tunnel", || stage.proxy.open_connections() == 0).await;
}

#[tokio::test]
async fn a_tunnel_that_nobody_takes_up_leaves_nothing_behind() {
    let (asked, mut is_asked) = tokio::sync::mpsc::unbounded_channel();
    let go = Arc::new(tokio::sync::Semaphore::new(0));
    let may_answer = go.clone();
    let endpoint = serve_raw(Default::default(), move |stream, _| {
        let (asked, may_answer) = (asked.clone(), may_answer.clone());
        async move {
            let mut stream = Downstream::new(stream);
            stream.read_head().await.unwrap();
            asked.send(()).unwrap();
            _ = may_answer.acquire().await.unwrap();
            let accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
            stream
                .send(format!(
                    "HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n{accept}\r\n\r\n"
                ))
                .await;
            assert!(stream.is_closed().await);
        }
    })
    .await;
    let stage = Stage::start(&site(&[endpoint], "", ""));
    let mut downstream = stage.connect().await;
    // More than it asks: nobody reads on to see whether it is still there.
    downstream.send(format!("{ASK}XX")).await;
    is_asked.recv().await.unwrap();
    socket2::SockRef::from(&downstream.stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(downstream);
    go.add_permits(1);
    support::wait_until("the end of all", || {
        stage.proxy.open_connections() == 0 && stage.metric("shoal_requests_in_flight") == 0
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_is_busy_with_its_tunnels() {
    let counts: [Arc<AtomicUsize>; 2] = Default::default();
    let accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
    let endpoints =
        [echo_counted(accept, counts[0].clone()).await, echo_counted(accept, counts[1].clone()).await];
    let stage = Stage::start(&site(&endpoints, "", ", balance: least_requests"));
    let mut tunnels = Vec::new();
    for _ in 0..40 {
        let mut tunnel = stage.connect().await;
        tunnel.send(ASK).await;
        assert!(tunnel.read_until(b"first ").await.is_some());
        tunnels.push(tunnel);
    }
    // Each of the two workers spreads its own evenly.
    let shares = counts.map(|count| count.load(Ordering::SeqCst));
    assert!(shares.iter().all(|share| *share >= 19), "{shares:?}");
}

#[tokio::test]
async fn the_wait_for_a_tunnel_is_bounded() {
    let silent = serve_raw(Default::default(), |stream, _| async move {
        Downstream::new(stream).read_to_end().await;
    })
    .await;
    let stage = Stage::start(&site(&[silent], ", timeouts: { total: 200ms }", ""));
    assert_eq!(stage.ask(ASK).await.status, 504);
}

#[tokio::test]
async fn unused_connections_make_room_for_a_tunnel() {
    let endpoint = serve_raw(Default::default(), |stream, _| async move {
        let mut stream = Downstream::new(stream);
        while let Some(head) = stream.read_head().await {
            if support::field(&head, "upgrade").is_some() {
                let accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
                let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket";
                stream.send(format!("{switch}\r\nSec-WebSocket-Accept: {accept}\r\n\r\nfirst ")).await;
                stream.read_until(b"there?").await;
                return stream.send("still here").await;
            }
            stream.send(ok("plain")).await;
        }
    })
    .await;
    // One for each of the two workers.
    let stage = Stage::start(&site(&[endpoint], "", ", max_connections: 2"));
    let plain = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut downstream = stage.connect().await;
    downstream.send(plain).await;
    assert_eq!(downstream.answer().await.text(), "plain");
    downstream.send(ASK).await;
    let head = downstream.read_head().await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(downstream.read_until(b"first ").await.is_some());
    // The worker that carries the tunnel has no place for anything else.
    let mut answers = Vec::new();
    for _ in 0..20 {
        answers.push(stage.ask(plain).await.status);
    }
    assert!(answers.iter().all(|status| matches!(status, 200 | 503)), "{answers:?}");
    downstream.send("there?").await;
    assert_eq!(downstream.read_to_end().await, b"still here", "what is in use is not closed");
}
