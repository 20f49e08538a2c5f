//! More than a node can do: it refuses early and cheaply, and what was begun comes to its end.

mod support;

use http_body_util::Empty;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::{Downstream, Origin, Seen, Stage, field, ok, site, wait_until};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

const ASK: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
/// Of the process: a test has more at any time.
const NO_MEMORY: &str = "overload: { max_memory: 1MiB }";
const NO_LIMITS: &str = "overload: { max_queue_delay: 0s }";

fn site_with(origin: &Origin, setting: &str, route: &str) -> String {
    let listener = format!("protocol: http, {setting} }}");
    site(&[origin.address], route, "").replace("protocol: http }", &listener)
}

/// Asks until the answer has `status`: workers look around ten times a second.
async fn ask_until(stage: &Stage, status: u16) -> support::Answer {
    let began = std::time::Instant::now();
    loop {
        let answer = stage.ask(ASK).await;
        if answer.status == status {
            return answer;
        }
        assert!(began.elapsed() < support::PATIENCE, "still {}", answer.status);
    }
}

#[tokio::test]
async fn without_memory_new_requests_are_refused_and_the_cache_goes_on() {
    let origin = Origin::start(|seen: Seen| match seen.path() {
        "/kept" => "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 4\r\n\r\nkept".to_owned(),
        _ => ok("hello"),
    })
    .await;
    let stage = Stage::start(&site_with(&origin, NO_LIMITS, ", cache: {}"));
    let kept = ASK.replace(" / ", " /kept ");
    assert_eq!(stage.ask(&kept).await.text(), "kept");
    assert_eq!(stage.ask(ASK).await.status, 200);

    stage.proxy.apply(stage.compile(2, &site_with(&origin, NO_MEMORY, ", cache: {}"))).unwrap();
    let refused = ask_until(&stage, 503).await;
    assert_eq!(refused.field("retry-after"), Some("1"));
    assert_eq!(refused.field("connection"), Some("close"), "whoever stays keeps memory");
    assert!(refused.text().contains("node_overload"), "{}", refused.text());
    assert!(stage.metric("shoal_requests_shed_total{cause=\"memory\"}") >= 1);
    assert_eq!(stage.metric("shoal_requests_shed_total{cause=\"queue\"}"), 0);
    wait_until("a line that says why", || {
        stage.log().iter().any(|line| line["reason"] == "node_overload" && line["status"] == 503)
    })
    .await;
    let hit = stage.ask(&kept).await;
    assert_eq!((hit.status, hit.text().as_str()), (200, "kept"), "it costs next to nothing");

    stage.proxy.apply(stage.compile(3, &site_with(&origin, NO_LIMITS, ""))).unwrap();
    ask_until(&stage, 200).await;
}

#[tokio::test]
async fn what_is_under_way_is_not_hurt() {
    let gate = std::sync::Arc::new(Semaphore::new(0));
    let opened = gate.clone();
    let address = support::serve_raw(Default::default(), move |stream, _| {
        let gate = opened.clone();
        async move {
            let mut stream = Downstream::new(stream);
            let Some(head) = stream.read_head().await else { return };
            if field(&head, "upgrade").is_some() {
                stream
                    .send(
                        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nfirst",
                    )
                    .await;
                let last = stream.read_to_end().await;
                stream.send(last).await;
                return;
            }
            let _permit = gate.acquire().await;
            stream.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow").await;
        }
    })
    .await;
    let with = |setting: &str| {
        site(&[address], "", "").replace("protocol: http }", &format!("protocol: http, {setting} }}"))
    };
    let stage = Stage::start(&with(NO_LIMITS));
    let mut tunnel = stage.connect().await;
    tunnel
        .send(
            "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .await;
    tunnel.read_until(b"first").await.unwrap();
    let mut slow = stage.connect().await;
    slow.send(ASK).await;
    wait_until("the slow request is under way", || stage.proxy.figures().in_flight == 2).await;

    stage.proxy.apply(stage.compile(2, &with(NO_MEMORY))).unwrap();
    gate.add_permits(1);
    // Answers of the gate are all there is now, and the slow one.
    let refused = stage.metric("shoal_requests_shed_total{cause=\"memory\"}");
    while stage.metric("shoal_requests_shed_total{cause=\"memory\"}") == refused {
        gate.add_permits(1);
        stage.ask(ASK).await;
    }
    assert_eq!(slow.answer().await.text(), "slow");
    tunnel.send("last words").await;
    tunnel.stream.shutdown().await.unwrap();
    assert_eq!(tunnel.read_to_end().await, b"last words");
}

#[tokio::test]
async fn a_stream_is_refused_by_itself() {
    let origin = Origin::start(|_| ok("hello")).await;
    let stage = Stage::start(&site_with(&origin, NO_MEMORY, ""));
    // Workers look around one after the other.
    let answer = loop {
        let stream = TcpStream::connect(stage.address("web")).await.unwrap();
        let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
            .handshake::<_, Empty<bytes::Bytes>>(TokioIo::new(stream))
            .await
            .unwrap();
        let driven = tokio::spawn(connection);
        let request = http::Request::get("http://a/").body(Empty::new()).unwrap();
        let answer = sender.send_request(request).await.unwrap().map(drop);
        drop(sender);
        driven.await.unwrap().unwrap();
        if answer.status() != 200 {
            break answer;
        }
    };
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()["retry-after"], "1");
}

#[tokio::test]
async fn a_queue_that_stands_is_shortened() {
    let origin = Origin::start(|_| ok("hello")).await;
    let stage = Stage::start(&site_with(&origin, "overload: { max_queue_delay: 1ms }", ", hosts: [a]"));
    // Every connection always has the next request ready, and none of them leads to an origin: the workers never rest.
    let mut busy = Vec::new();
    for _ in 0..96 {
        let stream = TcpStream::connect(stage.address("web")).await.unwrap();
        busy.push(tokio::spawn(async move {
            let (mut read, mut write) = stream.into_split();
            let requests = "GET /x HTTP/1.1\r\nHost: nobody\r\n\r\n".repeat(500);
            let writing = async move { while write.write_all(requests.as_bytes()).await.is_ok() {} };
            let reading = async move {
                let _ = tokio::io::copy(&mut read, &mut tokio::io::sink()).await;
            };
            tokio::join!(writing, reading);
        }));
    }
    let refused = ask_until(&stage, 503).await;
    assert_eq!((refused.field("retry-after"), refused.field("connection")), (Some("1"), None));
    assert!(stage.metric("shoal_requests_shed_total{cause=\"queue\"}") >= 1);
    assert_eq!(stage.metric("shoal_requests_shed_total{cause=\"memory\"}"), 0);
    busy.iter().for_each(tokio::task::JoinHandle::abort);
    ask_until(&stage, 200).await;
}
