//! Listeners below HTTP: bytes are carried as they are, to the right upstream, and each connection has its line.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use shoal_proxy::Ports;
use support::{Stage, nowhere, serve_raw};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// An endpoint that says `name`, sends everything back, and says `bye` when the other side has ended.
async fn echo(name: &'static str) -> SocketAddr {
    serve_raw(Arc::default(), move |mut stream, _| async move {
        stream.write_all(name.as_bytes()).await.unwrap();
        let (mut reader, mut writer) = stream.split();
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
        let _ = writer.write_all(b" bye").await;
    })
    .await
}

fn tcp(endpoints: &[SocketAddr], listener: &str, upstream: &str) -> String {
    let endpoints: Vec<String> = endpoints.iter().map(|address| format!("\"{address}\"")).collect();
    format!(
        "listeners:\n  web: {{ address: \"127.0.0.1:1\", protocol: tcp, upstream: app{listener} }}\n\
         upstreams:\n  app: {{ endpoints: [{}]{upstream} }}\n",
        endpoints.join(", ")
    )
}

#[tokio::test]
async fn bytes_flow_both_ways_and_half_closes_are_passed_on() {
    let endpoint = echo("hello ").await;
    let stage = Stage::start(&tcp(&[endpoint], "", ""));
    let mut downstream = stage.connect().await;
    assert_eq!(downstream.read_until(b"hello ").await.unwrap(), b"hello ", "the endpoint may speak first");
    let sent: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
    let (mut reader, mut writer) = downstream.stream.split();
    let mut got = Vec::new();
    let writing = async {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let (_, read) = tokio::join!(writing, reader.read_to_end(&mut got));
    read.unwrap();
    assert_eq!(got, [&sent[..], b" bye"].concat());
    let line = &stage.log_of(1).await[0];
    assert_eq!(line["protocol"], "tcp");
    assert_eq!((line["reason"].as_str(), line["tries"].as_u64()), (Some("ok"), Some(1)));
    assert_eq!(line["endpoint"].as_str(), Some(&*endpoint.to_string()));
    assert_eq!(line["client_addr"], "127.0.0.1");
    assert_eq!(line["request_bytes"].as_u64(), Some(300_000));
    assert_eq!(line["response_bytes"].as_u64(), Some(300_010));
    for (metric, value) in [
        ("shoal_listener_carried_connections_total{listener=\"web\"}", 1),
        ("shoal_upstream_carried_connections_total{upstream=\"app\"}", 1),
        ("shoal_listener_request_bytes_total{listener=\"web\"}", 300_000),
        ("shoal_upstream_response_bytes_total{upstream=\"app\"}", 300_010),
    ] {
        assert_eq!(stage.metric(metric), value, "{metric}");
    }
    assert_eq!(stage.proxy.figures().requests, 0, "it was no request");
}

#[tokio::test]
async fn another_endpoint_is_tried_and_a_lost_cause_is_closed() {
    let dead = nowhere().await;
    let stage = Stage::start(&tcp(&[dead, echo("here").await], "", ""));
    for _ in 0..4 {
        let mut downstream = stage.connect().await;
        assert_eq!(downstream.read_until(b"here").await.unwrap(), b"here");
    }
    let lines = stage.log_of(4).await;
    assert!(lines.iter().any(|line| line["tries"] == 2), "{lines:?}");

    let stage = Stage::start(&tcp(&[dead], "", ""));
    assert!(stage.connect().await.is_closed().await);
    let line = &stage.log_of(1).await[0];
    assert_eq!(line["reason"], "upstream_connect_failed");
    assert_eq!(stage.metric("shoal_failures_total{reason=\"upstream_connect_failed\"}"), 1);
}

#[tokio::test]
async fn a_line_is_written_where_and_how_the_listener_says() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tcp.log");
    let format = "${listener} ${protocol} ${server_name} ${upstream} ${reason} ${detail} ${response_bytes}";
    let log = format!(", access_log: {{ path: {path:?}, format: \"{format}\" }}");
    let stage = Stage::start(&tcp(&[echo("hello").await], &log, ""));
    let mut downstream = stage.connect().await;
    downstream.read_until(b"hello").await.unwrap();
    downstream.stream.shutdown().await.unwrap();
    downstream.read_to_end().await;
    let read = || std::fs::read_to_string(&path).unwrap_or_default();
    support::wait_until("the line", || !read().is_empty()).await;
    assert_eq!(read(), "web tcp - app ok - 9\n");
    assert!(stage.log().is_empty(), "and nowhere else");

    let lost = Stage::start(&tcp(&[nowhere().await], ", access_log: { format: json }", ""));
    assert!(lost.connect().await.is_closed().await);
    assert_eq!(lost.log_of(1).await[0]["detail"], "connection refused");
    let silent = Stage::start(&tcp(&[nowhere().await], ", access_log: { sample: 0 }", ""));
    assert!(silent.connect().await.is_closed().await);
    support::wait_until("the end", || silent.metric("shoal_listener_carried_connections_total") == 1).await;
    assert!(silent.log().is_empty());
}

#[tokio::test]
async fn silence_ends_a_connection() {
    let endpoint = echo("hello ").await;
    let stage = Stage::start(&tcp(&[endpoint], ", limits: { tunnel_idle_timeout: 1s }", ""));
    let mut downstream = stage.connect().await;
    downstream.read_until(b"hello ").await.unwrap();
    assert!(downstream.is_closed().await);
    assert_eq!(stage.log_of(1).await[0]["reason"], "downstream_timeout");
}

#[tokio::test]
async fn a_broken_endpoint_is_named_as_the_cause() {
    let endpoint = serve_raw(Arc::default(), |mut stream, _| async move {
        stream.read_u8().await.unwrap();
        // Closing with bytes unread resets the connection.
        stream.readable().await.unwrap();
    })
    .await;
    let stage = Stage::start(&tcp(&[endpoint], "", ""));
    let mut downstream = stage.connect().await;
    downstream.send(vec![0; 100_000]).await;
    let mut rest = Vec::new();
    let _ = downstream.stream.read_to_end(&mut rest).await;
    assert_eq!(stage.log_of(1).await[0]["reason"], "upstream_reset");
}

#[tokio::test]
async fn a_connection_outlives_its_listener_and_a_drain_waits_for_it() {
    let site = tcp(&[echo("hello ").await], "", "");
    let stage = Stage::start(&site);
    let mut downstream = stage.connect().await;
    downstream.read_until(b"hello ").await.unwrap();
    let other = site.replace("web:", "other:").replace("127.0.0.1:1", "127.0.0.2:1");
    stage.proxy.apply(stage.compile(2, &other)).unwrap();
    downstream.send("still here").await;
    assert_eq!(downstream.read_until(b"still here").await.unwrap(), b"still here");

    let proxy = stage.proxy.clone();
    let drained = tokio::spawn(async move { proxy.drain(Duration::from_secs(20), Ports::Closed).await });
    downstream.send(" and here").await;
    assert_eq!(downstream.read_until(b" and here").await.unwrap(), b" and here");
    downstream.stream.shutdown().await.unwrap();
    assert_eq!(downstream.read_to_end().await, b" bye");
    assert_eq!(drained.await.unwrap(), 0, "nothing was cut off");
}

#[tokio::test]
async fn a_drain_cuts_off_what_does_not_end() {
    let stage = Stage::start(&tcp(&[echo("hello ").await], "", ""));
    let mut downstream = stage.connect().await;
    downstream.read_until(b"hello ").await.unwrap();
    assert_eq!(stage.proxy.drain(Duration::from_millis(100), Ports::Closed).await, 1);
    assert!(downstream.is_closed().await);
    assert_eq!(stage.log_of(1).await[0]["reason"], "node_draining");
}

#[tokio::test]
async fn endpoints_are_told_who_called() {
    let endpoint = serve_raw(Arc::default(), |mut stream, _| async move {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
    })
    .await;
    let check = async |version: &str, expected: &dyn Fn(SocketAddr, SocketAddr) -> Vec<u8>| {
        let stage = Stage::start(&tcp(&[endpoint], "", &format!(", proxy_protocol: {version}")));
        let mut downstream = stage.connect().await;
        let ends = (downstream.stream.local_addr().unwrap(), downstream.stream.peer_addr().unwrap());
        downstream.send("data").await;
        downstream.stream.shutdown().await.unwrap();
        let expected = [expected(ends.0, ends.1), b"data".to_vec()].concat();
        assert_eq!(downstream.read_to_end().await, expected, "{version}");
    };
    check("v1", &|source, destination| {
        format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", source.port(), destination.port()).into_bytes()
    })
    .await;
    check("v2", &|source, destination| {
        let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01".to_vec();
        header.extend(source.port().to_be_bytes());
        header.extend(destination.port().to_be_bytes());
        header
    })
    .await;
}

/// An endpoint that speaks TLS as `name`, and says so.
async fn tls_endpoint(name: &'static str, roots: &mut RootCertStore) -> SocketAddr {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    roots.add(made.cert.der().clone()).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    serve_raw(Arc::default(), move |stream, _| {
        let acceptor = acceptor.clone();
        async move {
            let mut stream = acceptor.accept(stream).await.unwrap();
            stream.write_all(name.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    })
    .await
}

#[tokio::test]
async fn tls_goes_where_its_server_name_leads() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut roots = RootCertStore::empty();
    let shop = tls_endpoint("shop.example", &mut roots).await;
    let deep = tls_endpoint("a.b.example", &mut roots).await;
    let stage = Stage::start(&format!(
        "listeners:\n  web:\n    address: \"127.0.0.1:1\"\n    protocol: tls_passthrough\n\
         \x20   sni: {{ shop.example: shop, \"*.example\": nobody, \"*.b.example\": deep }}\n\
         upstreams:\n  shop: {{ endpoints: [\"{shop}\"] }}\n  deep: {{ endpoints: [\"{deep}\"] }}\n\
         \x20 nobody: {{ endpoints: [\"{}\"] }}\n",
        nowhere().await
    ));
    let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(client));
    let connect = async |name: &'static str| {
        let stream = TcpStream::connect(stage.address("web")).await.unwrap();
        connector.connect(ServerName::try_from(name).unwrap(), stream).await
    };
    for (number, name) in ["shop.example", "a.b.example"].into_iter().enumerate() {
        let mut stream = connect(name).await.unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, name);
        drop(stream);
        let line = &stage.log_of(number + 1).await[number];
        assert_eq!((line["protocol"].as_str(), line["server_name"].as_str()), (Some("tls"), Some(name)));
    }
    assert!(connect("other.example").await.is_err());
    assert_eq!(stage.log_of(3).await[2]["upstream"], "nobody");
    let refused = connect("elsewhere.test").await.unwrap_err();
    assert!(refused.to_string().contains("UnrecognisedName"), "{refused}");
    assert_eq!(stage.log_of(4).await[3]["reason"], "node_no_route");

    let mut plain = stage.connect().await;
    plain.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n").await;
    let mut rest = Vec::new();
    let _ = plain.stream.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
    assert_eq!(stage.log_of(5).await[4]["reason"], "downstream_bad_request");
}

#[tokio::test]
async fn a_greeting_may_come_in_pieces_and_not_for_ever() {
    let endpoint = echo("").await;
    let site = format!(
        "listeners:\n  web:\n    address: \"127.0.0.1:1\"\n    protocol: tls_passthrough\n    upstream: app\n\
         \x20   sni: {{ a.example: app }}\n    limits: {{ tls_handshake_timeout: 20s }}\n\
         upstreams:\n  app: {{ endpoints: [\"{endpoint}\"] }}\n"
    );
    let stage = Stage::start(&site);
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let config = ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let name = ServerName::try_from("b.example").unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    let mut downstream = stage.connect().await;
    downstream.stream.set_nodelay(true).unwrap();
    for part in hello.chunks(hello.len() / 3) {
        downstream.send(part).await;
        tokio::task::yield_now().await;
    }
    downstream.stream.shutdown().await.unwrap();
    let expected = [&hello[..], b" bye"].concat();
    assert_eq!(downstream.read_to_end().await, expected, "not a byte is lost or changed");

    let stage = Stage::start(&site.replace("20s", "300ms"));
    let mut slow = stage.connect().await;
    slow.send(&hello[..20]).await;
    assert_eq!(stage.log_of(1).await[0]["reason"], "downstream_timeout");
    assert!(slow.is_closed().await);
}
