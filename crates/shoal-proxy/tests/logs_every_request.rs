//! Every request has a line in the access log, also one that was refused, and a tunnel has it when it ends.

mod support;

use support::{Downstream, Origin, Stage, ok, serve_raw, site};
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn refusals_have_a_line_with_their_reason() {
    let origin = Origin::start(|_| ok("")).await;
    let limits = "protocol: http, limits: { max_body_bytes: 8B, body_idle_timeout: 100ms } }";
    let stage =
        Stage::start(&site(&[origin.address], ", hosts: [a]", "").replace("protocol: http }", limits));
    let table = [
        ("GET /x HTTP/1.1\r\n\r\n".to_owned(), 400, "downstream_bad_request", Some("host_missing")),
        ("GET /x HTTP/1.1\nHost: a\r\n\r\n".to_owned(), 400, "downstream_bad_request", Some("line_end")),
        ("GET /x HTTP/1.1\r\nX : y\r\n\r\n".to_owned(), 400, "downstream_bad_request", Some("unparsable")),
        ("GET /x HTTP/1.1\r\nHost: b\r\n\r\n".to_owned(), 404, "node_no_route", None),
        (
            "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na".to_owned(),
            408,
            "downstream_timeout",
            None,
        ),
        (
            "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n".to_owned(),
            413,
            "downstream_body_too_large",
            None,
        ),
        (
            format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(9000)),
            414,
            "downstream_uri_too_long",
            None,
        ),
        (
            "GET /x HTTP/1.1\r\nHost: a\r\nExpect: wonders\r\n\r\n".to_owned(),
            417,
            "downstream_expectation",
            None,
        ),
        (
            format!("GET /x HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(40_000)),
            431,
            "downstream_head_too_large",
            None,
        ),
    ];
    for (number, (request, status, reason, rule)) in table.iter().enumerate() {
        assert_eq!(stage.ask(request).await.status, *status);
        let log = stage.log_of(number + 1).await;
        let line = &log[number];
        assert_eq!((line["status"].as_u64(), line["reason"].as_str()), (Some(*status as u64), Some(*reason)));
        assert_eq!(line["rule"].as_str(), *rule, "{line}");
        assert_eq!(line["client_addr"], "127.0.0.1");
        assert!(line["request_id"].is_string(), "{line}");
        if *rule != Some("unparsable") && *status != 431 {
            assert!(line["target"].as_str().unwrap().starts_with("/x"), "{line}");
        }
    }
}

#[tokio::test]
async fn answers_with_trailers_are_whole() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 6\r\n\r\n";
    let origin = Origin::start(move |_| chunked).await;
    let stage = Stage::start(&site(&[origin.address], ", trailers: true", ""));
    let answer = stage.ask("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: te\r\n\r\n").await;
    assert!(answer.complete);
    let line = &stage.log_of(1).await[0];
    assert_eq!((line["reason"].as_str(), line["response_bytes"].as_u64()), (Some("ok"), Some(3)));
}

#[tokio::test]
async fn a_tunnel_has_its_line_when_it_ends() {
    let address = serve_raw(Default::default(), |stream, _| async move {
        let mut stream = Downstream::new(stream);
        stream.read_head().await.unwrap();
        stream
            .send(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nfirst",
            )
            .await;
        stream.read_to_end().await;
        stream.send("bye").await;
    })
    .await;
    let stage = Stage::start(&site(&[address], "", ""));
    let mut downstream = stage.connect().await;
    downstream
        .send(
            "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .await;
    downstream.read_until(b"first").await.unwrap();
    assert_eq!(stage.log().len(), 0, "it has not ended");
    assert_eq!(stage.proxy.figures().in_flight, 1);
    downstream.send("hello").await;
    downstream.stream.shutdown().await.unwrap();
    assert_eq!(downstream.read_to_end().await, b"bye");
    let line = &stage.log_of(1).await[0];
    assert_eq!((line["status"].as_u64(), line["reason"].as_str()), (Some(101), Some("ok")));
    assert_eq!((line["request_bytes"].as_u64(), line["response_bytes"].as_u64()), (Some(5), Some(8)));
    assert_eq!(line["endpoint"].as_str(), Some(&*address.to_string()));
}

#[tokio::test]
async fn a_request_that_fills_the_cache_says_what_the_origin_was_asked() {
    let answer = "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 2\r\n\r\nhi";
    let origin = Origin::start(move |_| answer).await;
    let stage = Stage::start(&site(&[origin.address], ", cache: {}", ""));
    for number in 0..2 {
        assert_eq!(stage.ask("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await.text(), "hi");
        stage.log_of(number + 1).await;
    }
    let [filled, hit] = &stage.log()[..] else { panic!("two requests, two lines") };
    assert_eq!(
        (filled["tries"].as_u64(), filled["endpoint"].as_str()),
        (Some(1), Some(&*origin.address.to_string()))
    );
    assert_eq!((filled["upstream"].as_str(), filled["reason"].as_str()), (Some("app"), Some("ok")));
    let first_byte = filled["first_byte_us"].as_u64().unwrap();
    assert!(filled["connect_us"].as_u64().unwrap() > 0, "the connection was new: {filled}");
    assert!(first_byte > 0 && first_byte <= filled["total_us"].as_u64().unwrap(), "{filled}");
    assert_eq!((hit["tries"].as_u64(), hit["endpoint"].as_str()), (Some(0), None), "nobody was asked: {hit}");
    assert!(hit["first_byte_us"].is_null());
    assert_eq!(stage.metric("shoal_route_requests_total{route=\"all\",code_class=\"2xx\"}"), 2);
    assert_eq!(stage.metric("shoal_upstream_requests_total{upstream=\"app\",code_class=\"2xx\"}"), 1);
}

#[tokio::test]
async fn a_fill_that_fails_says_where_it_was_tried() {
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let stage = Stage::start(&site(&[closed], ", cache: {}", ""));
    assert_eq!(stage.ask("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await.status, 502);
    let line = &stage.log_of(1).await[0];
    assert_eq!(line["reason"], "upstream_connect_failed");
    assert_eq!(line["endpoint"].as_str(), Some(&*closed.to_string()));
    assert!(line["tries"].as_u64().unwrap() >= 1 && line["first_byte_us"].is_null(), "{line}");
}
