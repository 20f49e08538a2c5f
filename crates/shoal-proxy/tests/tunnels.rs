//! Upgraded connections: opened only by a proper handshake, relayed to the end of both directions.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod support;

use std::sync::Arc;

use support::{Downstream, Origin, Stage, ok, serve_raw, site};
use tokio::io::AsyncWriteExt;

const ASK: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// An endpoint that switches with this `Sec-WebSocket-Accept`, then echoes, and says `bye` when the other side ends.
async fn echo(accept: &'static str) -> std::net::SocketAddr {
    serve_raw(Arc::default(), move |stream, _| async move {
        let mut stream = Downstream::new(stream);
        let head = stream.read_head().await.unwrap();
        assert_eq!(support::field(&head, "upgrade"), Some("websocket"));
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\nfirst "
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
    let answer = stage.ask(ASK).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "no websocket here"));
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
