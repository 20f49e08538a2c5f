//! Which side may end a connection, when, and what the other still gets.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use support::frames::{ACK, GOAWAY, HEADERS, PING, WINDOW_UPDATE, frame, get, greeting};
use support::outcome::{Outcome, next, outcome};
use support::{Downstream, Origin, Seen, Stage, ok, serve_raw, site};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn a_downstream_that_ends_its_side_gets_what_it_asked_for() {
    let origin = Origin::start(|seen: Seen| match seen.path() {
        "/large" => ok(&"x".repeat(8_000_000)),
        _ => ok("small"),
    })
    .await;
    let stage = Stage::start(&site(&[origin.address], "", ""));
    let large = GET.replace("/ ", "/large ");
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    for (requests, bodies) in [
        (GET.to_owned(), vec![5]),
        (post.to_owned(), vec![5]),
        (GET.repeat(3), vec![5, 5, 5]),
        (format!("{GET}{large}"), vec![5, 8_000_000]),
    ] {
        let mut downstream = stage.connect().await;
        downstream.send(&requests).await;
        downstream.stream.shutdown().await.unwrap();
        for expected in bodies {
            let answer = downstream.answer().await;
            assert_eq!(
                (answer.status, answer.body.len(), answer.complete),
                (200, expected, true),
                "{requests}"
            );
        }
        assert!(downstream.is_closed().await, "{requests}");
    }
    support::wait_until("the end of all", || stage.proxy.open_connections() == 0).await;
}

#[tokio::test]
async fn an_end_within_a_request_is_the_end() {
    let origin = Origin::start(|_| ok("")).await;
    let stage = Stage::start(&site(&[origin.address], "", ""));
    for half in ["GET / HT", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab"] {
        let mut downstream = stage.connect().await;
        downstream.send(half).await;
        downstream.stream.shutdown().await.unwrap();
        let answer = String::from_utf8(downstream.read_to_end().await).unwrap();
        assert!(!answer.contains(" 200 "), "{half}: {answer}");
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn an_answer_may_come_long_after_the_downstream_has_ended_its_side() {
    let (asked, answer) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (counted, awaited) = (asked.clone(), answer.clone());
    let address = serve_raw(Default::default(), move |stream, _| {
        let (counted, awaited) = (counted.clone(), awaited.clone());
        async move {
            let mut stream = Downstream::new(stream);
            stream.read_head().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            awaited.notified().await;
            stream.send(ok("at last")).await;
            let _ = stream.stream.read(&mut [0; 16]).await;
        }
    })
    .await;
    let stage = Stage::start(&site(&[address], "", ""));
    let mut downstream = stage.connect().await;
    downstream.send(GET).await;
    downstream.stream.shutdown().await.unwrap();
    support::wait_until("the request", || asked.load(Ordering::SeqCst) == 1).await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    answer.notify_one();
    assert_eq!(downstream.answer().await.text(), "at last");
    assert!(downstream.is_closed().await);
}

#[tokio::test]
async fn a_connection_of_http_1_0_is_kept_only_if_the_end_of_the_answer_can_be_told() {
    let origin = Origin::start(|seen: Seen| match seen.path() {
        "/chunked" => {
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nmany\r\n0\r\n\r\n".to_owned()
        }
        _ => ok("four"),
    })
    .await;
    let stage = Stage::start(&site(&[origin.address], "", ""));
    for (path, length, connection) in [("/sized", Some("4"), "keep-alive"), ("/chunked", None, "close")] {
        let mut downstream = stage.connect().await;
        let request = format!("GET {path} HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
        downstream.send(&request).await;
        let answer = downstream.answer().await;
        let seen = (answer.field("content-length"), answer.field("connection"), answer.body.len());
        assert_eq!(seen, (length, Some(connection), 4), "{path}");
        if connection == "close" {
            assert!(downstream.is_closed().await, "{path}");
        } else {
            downstream.send(&request).await;
            assert_eq!(downstream.answer().await.status, 200, "{path}");
        }
    }
}

#[tokio::test]
async fn a_downstream_connection_ends_politely_with_age() {
    let origin = Origin::start(|_| ok("")).await;
    let text = site(&[origin.address], "", "")
        .replace("protocol: http }", "protocol: http, limits: { max_connection_age: 300ms } }");
    let stage = Stage::start(&text);
    let mut downstream = stage.connect().await;
    let deadline = Instant::now() + support::PATIENCE;
    let mut answered = 0;
    loop {
        downstream.send(GET).await;
        let answer = downstream.answer().await;
        assert_eq!((answer.status, answer.complete), (200, true));
        answered += 1;
        if answer.field("connection") == Some("close") {
            break;
        }
        assert!(Instant::now() < deadline, "it does not end");
    }
    assert!(downstream.is_closed().await);
    assert_eq!(origin.requests(), answered);

    // HTTP/2: the preface and empty SETTINGS; what comes in the end is GOAWAY without an error, and nothing asked is lost.
    let mut downstream = stage.connect().await;
    downstream.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    let bytes = downstream.read_to_end().await;
    let mut frames = &bytes[..];
    let mut goaways = Vec::new();
    while frames.len() >= 9 {
        let length = usize::from(frames[1]) << 8 | usize::from(frames[2]);
        if frames[3] == 7 {
            goaways.push(frames[9 + 7]);
        }
        frames = &frames[9 + length..];
    }
    assert!(!goaways.is_empty() && goaways.iter().all(|error| *error == 0), "{bytes:?}");
}

#[tokio::test]
async fn connections_to_endpoints_are_used_so_often_and_so_long() {
    // The setting, and how many requests an endpoint gets on each connection when five are sent without a pause.
    let check = async |setting: &str, expected: &[usize]| {
        let origin = Origin::start(|seen: Seen| ok(&seen.connection.to_string())).await;
        let stage = Stage::start(&site(&[origin.address], "", setting));
        let mut downstream = stage.connect().await;
        let mut counts = Vec::new();
        for _ in 0..5 {
            downstream.send(GET).await;
            let connection: usize = downstream.answer().await.text().parse().unwrap();
            counts.resize(counts.len().max(connection + 1), 0);
            counts[connection] += 1;
        }
        assert_eq!(counts, expected, "{setting}");
    };
    check("", &[5]).await;
    check(", max_requests_per_connection: 2", &[2, 2, 1]).await;
    check(", max_requests_per_connection: 1", &[1, 1, 1, 1, 1]).await;
    check(", max_connection_age: 1h, idle_timeout: 1h", &[5]).await;

    for setting in [", max_connection_age: 200ms", ", idle_timeout: 200ms"] {
        let closed = Arc::new(AtomicUsize::new(0));
        let counted = closed.clone();
        let endpoint = serve_raw(Arc::default(), move |stream, _| {
            let counted = counted.clone();
            async move {
                let mut stream = Downstream::new(stream);
                while stream.read_head().await.is_some() {
                    stream.send(ok("")).await;
                }
                counted.fetch_add(1, Ordering::SeqCst);
            }
        })
        .await;
        let stage = Stage::start(&site(&[endpoint], "", setting));
        assert_eq!(stage.ask(GET).await.status, 200);
        support::wait_until("the end of the connection", || closed.load(Ordering::SeqCst) == 1).await;
        assert_eq!(stage.ask(GET).await.status, 200, "{setting}");
    }
}

#[tokio::test]
async fn who_still_reads_an_answer_of_http2_may_say_so() {
    let origin = Origin::start(|_| ok("hello")).await;
    let site = site(&[origin.address], "", "")
        .replace("protocol: http }", "protocol: http, limits: { max_requests_per_connection: 1 } }");
    let stage = Stage::start(&site);
    let mut stream = TcpStream::connect(stage.address("web")).await.unwrap();
    stream.write_all(&[greeting(), get(1)].concat()).await.unwrap();
    while let Some((kind, payload)) = next(&mut stream).await {
        if kind == PING {
            stream.write_all(&frame(PING, ACK, 0, &payload)).await.unwrap();
        }
    }
    // The node has ended its side. A closed socket would answer the first with a reset, of which the second learns.
    for _ in 0..2 {
        stream.write_all(&frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])).await.unwrap();
    }
    drop(stream);
    support::wait_until("the end of the connection", || stage.proxy.open_connections() == 0).await;
}

#[tokio::test]
async fn what_was_queued_before_the_goodbye_was_heard_is_answered() {
    let origin = Origin::start(|_| ok("hello")).await;
    let stage = Stage::start(&site(&[origin.address], "", ""));
    let mut stream = TcpStream::connect(stage.address("web")).await.unwrap();
    stream.write_all(&[greeting(), get(1)].concat()).await.unwrap();
    assert_eq!(outcome(&mut stream).await, Outcome::Status(200));
    stage.proxy.retire();
    let (mut pings, mut answers, mut last_streams) = (0, 0, Vec::new());
    while let Some((kind, payload)) = next(&mut stream).await {
        match kind {
            // As hyper does: the answer goes first, and behind it what waited for the connection.
            PING => {
                pings += 1;
                let queued = if pings == 1 { get(3) } else { Vec::new() };
                stream.write_all(&[frame(PING, ACK, 0, &payload), queued].concat()).await.unwrap();
            }
            HEADERS => answers += 1,
            GOAWAY => last_streams.push(u32::from_be_bytes(payload[..4].try_into().unwrap())),
            _ => {}
        }
    }
    assert_eq!((answers, origin.requests()), (1, 2));
    assert_eq!((last_streams.first(), last_streams.last()), (Some(&(u32::MAX >> 1)), Some(&3)));
}
