//! HTTP/2 towards endpoints: connections that are shared, used up, full and left, and what becomes of the streams on them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::h2_endpoint::Endpoint;
use support::{Stage, serve_raw, site};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Asks over HTTP/2, all at once, on one connection: one worker serves it.
async fn ask_together(stage: &Stage, count: usize, path: &str) {
    let stream = TcpStream::connect(stage.address("web")).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let asked = (0..count).map(|_| {
        let mut sender = sender.clone();
        let request = Request::get(format!("http://a.example{path}")).body(Full::<Bytes>::default()).unwrap();
        tokio::spawn(async move { sender.send_request(request).await.unwrap().status().as_u16() })
    });
    for asked in asked.collect::<Vec<_>>() {
        let status = tokio::time::timeout(support::PATIENCE, asked).await.expect("an answer");
        assert_eq!(status.unwrap(), 200);
    }
}

#[tokio::test]
async fn a_shared_connection_ends_when_its_endpoint_is_left() {
    let (left, kept) = (Endpoint::new(1, 100), Endpoint::new(1, 100));
    let (ended, watched) = (Arc::new(AtomicUsize::new(0)), left.clone());
    let counted = ended.clone();
    let address = serve_raw(left.connections.clone(), move |stream, _| {
        let (endpoint, counted) = (watched.clone(), counted.clone());
        async move {
            endpoint.serve_h2(stream).await;
            counted.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let h2c = ", protocol: h2c, idle_timeout: 1h";
    let stage = Stage::start(&site(&[address], "", h2c));
    ask_together(&stage, 4, "/").await;
    assert!(left.connections() > 0 && ended.load(Ordering::SeqCst) == 0);
    stage.proxy.apply(stage.compile(2, &site(&[kept.start().await], "", h2c))).unwrap();
    support::wait_until("the end of its connections", || ended.load(Ordering::SeqCst) == left.connections())
        .await;
}

#[tokio::test]
async fn h2c_requests_share_a_connection() {
    let endpoint = Endpoint::new(1, 100);
    let stage = Stage::start(&site(&[endpoint.start().await], "", ", protocol: h2c"));
    let mut downstream = stage.connect().await;
    downstream.send("GET /a?b=c HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    assert_eq!(downstream.answer().await.text(), "HTTP/2.0 GET http://a.example/a?b=c  false");
    downstream
        .send("POST /p HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n")
        .await;
    assert_eq!(downstream.answer().await.text(), "HTTP/2.0 POST http://a.example/p hi false");
    downstream.send("POST /p HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\n\r\nho").await;
    assert_eq!(downstream.answer().await.text(), "HTTP/2.0 POST http://a.example/p ho false");
    assert_eq!(endpoint.connections(), 1);
}

#[tokio::test]
async fn shared_connections_are_used_so_often_and_so_long() {
    let check = async |setting: &str, expected: usize| {
        let endpoint = Endpoint::new(1, 100);
        let upstream = format!(", protocol: h2c{setting}");
        let stage = Stage::start(&site(&[endpoint.start().await], "", &upstream));
        let mut downstream = stage.connect().await;
        for _ in 0..6 {
            downstream.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
            assert_eq!(downstream.answer().await.status, 200, "{setting}");
        }
        assert_eq!(endpoint.connections(), expected, "{setting}");
    };
    check(", max_requests_per_connection: 2", 3).await;
    check(", max_connection_age: 1h, idle_timeout: 1h", 1).await;
    for setting in [", max_connection_age: 200ms", ", idle_timeout: 200ms"] {
        let (endpoint, ended) = (Endpoint::new(1, 100), Arc::new(AtomicUsize::new(0)));
        let (serving, counted) = (endpoint.clone(), ended.clone());
        let address = serve_raw(endpoint.connections.clone(), move |stream, _| {
            let (endpoint, ended) = (serving.clone(), counted.clone());
            async move {
                endpoint.serve_h2(stream).await;
                ended.fetch_add(1, Ordering::SeqCst);
            }
        })
        .await;
        let stage = Stage::start(&site(&[address], "", &format!(", protocol: h2c{setting}")));
        for connections in 1..=2 {
            ask_together(&stage, 1, "/").await;
            support::wait_until("its end", || ended.load(Ordering::SeqCst) == connections).await;
        }
        assert_eq!(endpoint.connections(), 2, "{setting}");
    }
}

#[tokio::test]
async fn another_connection_is_opened_when_all_are_full() {
    let endpoint = Endpoint::new(25, 100);
    let upstream = ", protocol: h2c, max_streams_per_connection: 10";
    let stage = Stage::start(&site(&[endpoint.start().await], "", upstream));
    ask_together(&stage, 25, "/together").await;
    assert_eq!(endpoint.connections(), 3);
}

#[tokio::test]
async fn an_endpoint_that_allows_fewer_streams_is_obeyed() {
    let endpoint = Endpoint::new(8, 4);
    let stage = Stage::start(&site(&[endpoint.start().await], "", ", protocol: h2c"));
    let stream = TcpStream::connect(stage.address("web")).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request =
        |path: &str| Request::get(format!("http://a.example{path}")).body(Full::<Bytes>::default()).unwrap();
    // The endpoint's limit is known with its first answer.
    assert_eq!(sender.send_request(request("/")).await.unwrap().status(), 200);
    let asked = (0..8).map(|_| tokio::spawn(sender.send_request(request("/together"))));
    for asked in asked.collect::<Vec<_>>() {
        let answered = tokio::time::timeout(support::PATIENCE, asked).await.expect("an answer");
        assert_eq!(answered.unwrap().unwrap().status(), 200);
    }
    assert_eq!(endpoint.connections(), 2);
}

/// Reads what a downstream begins with, up to its first request.
async fn read_first_request(stream: &mut TcpStream) {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await.unwrap();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        stream.read_exact(&mut vec![0; length]).await.unwrap();
        if head[3] == 1 {
            return;
        }
    }
}

#[tokio::test]
async fn what_was_not_looked_at_goes_again() {
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    // The last stream that was looked at is 0.
    const GOAWAY: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // REFUSED_STREAM.
    const RST_STREAM: &[u8] = &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 7];
    // INTERNAL_ERROR.
    const FAILED: &[u8] = &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 2];
    let check = async |method: &str, first: &'static [u8], status: u16, connections: usize| {
        let endpoint = Endpoint::new(1, 100);
        let serving = endpoint.clone();
        let address = serve_raw(endpoint.connections.clone(), move |mut stream, connection| {
            let serving = serving.clone();
            async move {
                if connection > 0 {
                    return serving.serve_h2(stream).await;
                }
                read_first_request(&mut stream).await;
                stream.write_all(&[SETTINGS, first].concat()).await.unwrap();
                // Until the other side closes it.
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        })
        .await;
        let stage = Stage::start(&site(&[address], "", ", protocol: h2c"));
        let answer = stage.ask(&format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!(answer.status, status, "{method} {first:?}");
        assert_eq!(endpoint.connections(), connections, "{method} {first:?}");
    };
    check("GET", GOAWAY, 200, 2).await;
    check("POST", GOAWAY, 200, 2).await;
    check("GET", RST_STREAM, 200, 2).await;
    check("POST", RST_STREAM, 200, 2).await;
    check("POST", FAILED, 502, 1).await;
}

#[tokio::test]
async fn a_cancelled_answer_is_not_a_whole_one() {
    let address = serve_raw(Arc::default(), |stream, _| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            body.send_data(Bytes::from_static(b"half"), false).unwrap();
            tokio::spawn(async move {
                // The first part is out once there is room for another.
                body.reserve_capacity(1);
                std::future::poll_fn(|cx| body.poll_capacity(cx)).await.unwrap().unwrap();
                body.send_reset(h2::Reason::CANCEL);
            });
        }
    })
    .await;
    let stage = Stage::start(&site(&[address], "", ", protocol: h2c"));
    let mut downstream = stage.connect().await;
    downstream.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let whole = match downstream.read_head().await {
        Some(head) if head.starts_with("HTTP/1.1 200") => downstream.read_body(&head).await.2,
        Some(_) | None => false,
    };
    assert!(!whole);
}

#[tokio::test]
async fn checks_speak_what_requests_do() {
    let endpoint = Endpoint::new(1, 100);
    let health = ", protocol: h2c, health: { http: { path: /up }, interval: 50ms, rise: 1 }";
    let stage = Stage::start(&site(&[endpoint.start().await], "", health));
    let (sender, mut verdicts) = tokio::sync::mpsc::channel(8);
    let _checker = shoal_proxy::Checker::start(shoal_proxy::CheckerSettings {
        config: stage.config.clone(),
        cluster: stage.cluster.clone(),
        names: stage.proxy.names().clone(),
        events: sender,
    });
    let event = tokio::time::timeout(support::PATIENCE, verdicts.recv()).await.expect("a verdict");
    let up = format!("{:?}", event.unwrap());
    assert!(up.contains("Up") || up.contains("Healthy"), "{up}");
}
