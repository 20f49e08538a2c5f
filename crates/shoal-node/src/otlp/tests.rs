//! A small collector, and what arrives there.

use std::net::SocketAddr;
use std::time::SystemTime;

use axum::http::{Method, Version};
use serde_json::{Value, json};
use shoal_policy::failure::Failure;
use shoal_policy::forwarding::Span;
use shoal_proxy::TrySpan;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use super::*;

/// Answers one message with `status`; gives its head and what it says.
async fn collect(listener: &TcpListener, status: &str) -> (String, Value) {
    let (stream, _) = listener.accept().await.unwrap();
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(stream.read_line(&mut head).await.unwrap() > 0, "{head}");
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{{}}");
    stream.get_mut().write_all(answer.as_bytes()).await.unwrap();
    (head, serde_json::from_slice(&body).unwrap())
}

fn request_for(address: SocketAddr) -> RequestSpan {
    RequestSpan {
        collector: Arc::new(CollectorView {
            host: address.ip().to_string().into(),
            port: address.port(),
            path: "/v1/traces".into(),
            service_name: "edge".into(),
            timeout: Duration::from_secs(20),
        }),
        span: Span { trace_id: 0xabc, span_id: 0x12, parent_id: Some(0x34), flags: 1 },
        ended: SystemTime::UNIX_EPOCH + Duration::from_nanos(2_000_000_500),
        duration: Duration::from_millis(1500),
        node: "one".into(),
        listener: "web".into(),
        route: Some("shop".into()),
        upstream: Some("app".into()),
        method: Some(Method::GET),
        https: true,
        version: Version::HTTP_2,
        target: "/a?b=\"c\"".into(),
        host: Some("shop.example:8443".into()),
        client_addr: [192, 0, 2, 7].into(),
        user_agent: None,
        request_id: Some("r1".into()),
        cache_status: None,
        status: 200,
        failure: None,
        request_bytes: 3,
        response_bytes: 5,
        tries: vec![
            TrySpan {
                span_id: 0x56,
                endpoint: "[::1]:9000".into(),
                began: Duration::from_millis(100),
                lasted: Duration::from_millis(200),
                outcome: Err(Failure::UpstreamReset),
            },
            TrySpan {
                span_id: 0x78,
                endpoint: "10.0.0.2:9000".into(),
                began: Duration::from_millis(300),
                lasted: Duration::from_millis(400),
                outcome: Ok(200),
            },
        ],
    }
}

/// The attributes of a span as one object.
fn attributes(span: &Value) -> Value {
    let pair = |attribute: &Value| {
        let value = attribute["value"].as_object().unwrap().values().next().unwrap();
        (attribute["key"].as_str().unwrap().to_owned(), value.clone())
    };
    span["attributes"].as_array().unwrap().iter().map(pair).collect::<serde_json::Map<_, _>>().into()
}

#[tokio::test]
async fn a_collector_is_told_of_the_request_and_of_each_try() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (sender, spans) = mpsc::channel(4);
    sender.send(Box::new(request_for(listener.local_addr().unwrap()))).await.unwrap();
    drop(sender);
    let figures = Arc::<ExportFigures>::default();
    let exporting = tokio::spawn(export(spans, figures.clone()));
    let (head, message) = collect(&listener, "200 OK").await;
    exporting.await.unwrap();
    assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("content-type: application/json\r\n"), "{head}");
    assert_eq!((figures.sent.load(Relaxed), figures.failed.load(Relaxed)), (1, 0));

    let resource = &message["resourceSpans"][0];
    let named = attributes(&resource["resource"]);
    assert_eq!((&named["service.name"], &named["service.instance.id"]), (&json!("edge"), &json!("one")));
    let spans = resource["scopeSpans"][0]["spans"].as_array().unwrap();
    let [request, first, second] = &spans[..] else { panic!("{spans:?}") };

    assert_eq!(request["traceId"], "00000000000000000000000000000abc");
    assert_eq!(
        (&request["spanId"], &request["parentSpanId"]),
        (&json!("0000000000000012"), &json!("0000000000000034"))
    );
    assert_eq!((&request["name"], &request["kind"]), (&json!("GET shop"), &json!(2)));
    assert_eq!(request["startTimeUnixNano"], "500000500");
    assert_eq!(request["endTimeUnixNano"], "2000000500");
    assert_eq!(request["status"], json!({}));
    let expected = json!({
        "http.request.method": "GET", "url.scheme": "https", "url.path": "/a", "url.query": "b=\"c\"",
        "network.protocol.name": "http", "network.protocol.version": "2", "client.address": "192.0.2.7",
        "http.response.status_code": "200", "http.request.body.size": "3", "http.response.body.size": "5",
        "server.address": "shop.example", "server.port": "8443", "shoal.listener": "web", "shoal.reason": "ok",
        "shoal.route": "shop", "shoal.upstream": "app", "shoal.request_id": "r1",
    });
    assert_eq!(attributes(request), expected);

    for tried in [first, second] {
        assert_eq!((&tried["traceId"], &tried["parentSpanId"]), (&request["traceId"], &request["spanId"]));
        assert_eq!((&tried["name"], &tried["kind"]), (&json!("GET"), &json!(3)));
    }
    assert_eq!(
        (&first["spanId"], &first["startTimeUnixNano"]),
        (&json!("0000000000000056"), &json!("600000500"))
    );
    assert_eq!(first["status"], json!({ "code": 2 }));
    let expected = json!({
        "http.request.method": "GET", "server.address": "::1", "server.port": "9000", "shoal.upstream": "app",
        "error.type": "upstream_reset",
    });
    assert_eq!(attributes(first), expected);
    assert_eq!(attributes(second)["http.request.resend_count"], "1");
    assert_eq!(attributes(second)["http.response.status_code"], "200");
    assert_eq!(second["endTimeUnixNano"], "1200000500");
}

#[tokio::test]
async fn batches_are_bounded_and_what_is_refused_is_counted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, spans) = mpsc::channel(MAX_WAITING);
    for _ in 0..MAX_BATCH * 2 + 1 {
        sender.try_send(Box::new(request_for(address))).unwrap();
    }
    drop(sender);
    let figures = Arc::<ExportFigures>::default();
    let exporting = tokio::spawn(export(spans, figures.clone()));
    let (_, message) = collect(&listener, "200 OK").await;
    let count = message["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().len();
    assert_eq!(count, MAX_BATCH * 3, "each request has three spans");
    collect(&listener, "503 Service Unavailable").await;
    exporting.await.unwrap();
    let mut text = String::new();
    figures.render(&mut text);
    assert!(text.contains("shoal_trace_requests_exported_total{result=\"sent\"} 512\n"), "{text}");
    assert!(text.contains("shoal_trace_requests_exported_total{result=\"failed\"} 513\n"), "{text}");
}

#[tokio::test]
async fn a_collector_that_is_not_there_holds_up_nobody() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (sender, spans) = mpsc::channel(4);
    for address in [gone, listener.local_addr().unwrap()] {
        sender.send(Box::new(request_for(address))).await.unwrap();
    }
    drop(sender);
    let figures = Arc::<ExportFigures>::default();
    let exporting = tokio::spawn(export(spans, figures.clone()));
    collect(&listener, "200 OK").await;
    exporting.await.unwrap();
    assert_eq!((figures.sent.load(Relaxed), figures.failed.load(Relaxed)), (1, 1));
}
