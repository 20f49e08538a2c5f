//! Interim answers (1xx): what a downstream that waits is told, and what an endpoint says in between.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod support;

use bytes::Bytes;
use http::Request;
use support::{Origin, PATIENCE, Seen, Stage, ok, site};
use tokio::net::TcpStream;

/// An origin that tells what it was sent, after `interim`.
async fn origin(interim: &'static str) -> Origin {
    Origin::start(move |seen: Seen| {
        let expect = seen.field("expect").unwrap_or("nothing").to_owned();
        let body = String::from_utf8(seen.body).unwrap();
        format!("{interim}{}", ok(&format!("{body}, expecting {expect}")))
    })
    .await
}

#[tokio::test]
async fn what_is_refused_is_refused_before_its_body() {
    let origin = origin("").await;
    let text = site(&[origin.address], ", path: /known", "")
        .replace("protocol: http }", "protocol: http, limits: { max_body_bytes: 8 } }");
    let stage = Stage::start(&text);
    let check = async |target: &str, length: usize, expect: &str, expected: u16| {
        let mut downstream = stage.connect().await;
        let fields = format!("Host: a\r\nContent-Length: {length}\r\nExpect: {expect}");
        downstream.send(format!("POST {target} HTTP/1.1\r\n{fields}\r\n\r\n")).await;
        let answer = downstream.answer().await;
        assert_eq!(answer.status, expected, "{target} {length} {expect}: the first answer");
    };
    check("/known", 9, "100-continue", 413).await;
    check("/known", 8, "wonders", 417).await;
    check("/unknown", 8, "100-continue", 404).await;
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn streams_of_http2_need_not_wait() {
    let origin = origin("").await;
    let stage = Stage::start(&site(&[origin.address], "", ""));
    let stream = TcpStream::connect(stage.address("web")).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post("http://a/").header("expect", "100-continue").body(()).unwrap();
    let (answer, mut body) = sender.send_request(request, false).unwrap();
    body.send_data(Bytes::from_static(b"body"), true).unwrap();
    let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    let told = answer.into_body().data().await.unwrap().unwrap();
    assert_eq!(told, "body, expecting nothing");
}

#[tokio::test]
async fn what_an_endpoint_says_in_between_ends_here() {
    let interim =
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
    let origin = origin(interim).await;
    let stage = Stage::start(&site(&[origin.address], "", ""));
    let mut downstream = stage.connect().await;
    for _ in 0..2 {
        downstream.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answer = downstream.answer().await;
        assert_eq!(answer.status, 200, "the first answer is the last");
        assert_eq!(answer.field("link"), None);
    }
    assert_eq!(origin.connections(), 1, "its connection goes on");
}
