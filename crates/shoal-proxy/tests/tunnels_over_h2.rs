//! WebSocket over HTTP/2 (RFC 8441): streams that become tunnels, on either side and on both.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use h2::client::SendRequest;
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response, StatusCode};
use support::{Downstream, Origin, PATIENCE, Stage, field, ok, serve_raw, site, wait_until};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// The right answer to the key of a handshake (RFC 6455 §4.2.2).
fn accept_of(head: &str) -> String {
    let key = field(head, "sec-websocket-key").unwrap();
    assert_eq!(STANDARD.decode(key).unwrap().len(), 16, "{head}");
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    STANDARD.encode(digest)
}

/// Switches to a WebSocket by HTTP/1.1, with `more` in its head; answers the head it was asked with.
async fn switch(stream: &mut Downstream<TcpStream>, more: &str) -> String {
    let head = stream.read_head().await.unwrap();
    let accept = accept_of(&head);
    let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n";
    stream.send(format!("{answer}Sec-WebSocket-Accept: {accept}\r\n{more}\r\n")).await;
    head
}

/// An endpoint on HTTP/1.1 that tells what it was asked, echoes, and says `bye` when the other side ends.
async fn echo() -> SocketAddr {
    serve_raw(Default::default(), |stream, _| async move {
        let mut stream = Downstream::new(stream);
        let more = "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Extensions: permessage-deflate\r\n";
        let head = switch(&mut stream, more).await;
        stream.send(format!("{head}\r\n\r\n")).await;
        let got = stream.read_to_end().await;
        stream.send(got).await;
        stream.send(" bye").await;
    })
    .await
}

/// An endpoint on HTTP/2 that answers with `status`, and echoes. It allows extended CONNECT or not.
async fn echo_h2(allows: bool, status: StatusCode) -> SocketAddr {
    serve_raw(Default::default(), move |stream, _| async move {
        let mut builder = h2::server::Builder::new();
        if allows {
            builder.enable_connect_protocol();
        }
        let mut connection = builder.handshake::<_, Bytes>(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            assert_eq!(request.extensions().get::<Protocol>().map(Protocol::as_str), Some("websocket"));
            assert_eq!(request.uri().path(), "/chat");
            for ended_here in ["sec-websocket-key", "upgrade", "connection"] {
                assert!(!request.headers().contains_key(ended_here), "{ended_here}");
            }
            let offered = request.headers()["sec-websocket-protocol"].clone();
            let answer = Response::builder().status(status).header("sec-websocket-protocol", offered);
            let sender = respond.send_response(answer.body(()).unwrap(), false).unwrap();
            tokio::spawn(async move {
                let mut tunnel = Tunnel { sender, receiver: request.into_body() };
                let got = tunnel.read_to_end().await;
                tunnel.send(got);
                tunnel.sender.send_data(" bye".into(), true).unwrap();
            });
        }
    })
    .await
}

/// A downstream that speaks HTTP/2.
struct Caller(SendRequest<Bytes>);

impl Caller {
    async fn connect(stage: &Stage) -> Self {
        let stream = TcpStream::connect(stage.address("web")).await.unwrap();
        let (mut sender, connection) =
            h2::client::Builder::new().initial_window_size(WINDOW as u32).handshake(stream).await.unwrap();
        tokio::spawn(connection);
        // The settings have come when something was answered.
        let request = Request::get("http://a/settled").body(()).unwrap();
        sender.send_request(request, true).unwrap().0.await.unwrap();
        assert!(sender.is_extended_connect_protocol_enabled());
        Self(sender)
    }

    /// Asks for a tunnel to `path`; answers it whatever the status.
    async fn ask(&mut self, path: &str, protocol: &'static str, version: &str) -> (Response<()>, Tunnel) {
        let request = Request::connect(format!("http://a{path}"))
            .header("sec-websocket-version", version)
            .header("sec-websocket-protocol", "chat")
            .header("sec-websocket-extensions", "permessage-deflate")
            .extension(Protocol::from_static(protocol));
        let (answer, sender) = self.0.send_request(request.body(()).unwrap(), false).unwrap();
        let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
        let (head, receiver) = answer.into_parts();
        (Response::from_parts(head, ()), Tunnel { sender, receiver })
    }

    async fn open(&mut self) -> (HeaderMap, Tunnel) {
        let (answer, tunnel) = self.ask("/chat", "websocket", "13").await;
        assert_eq!(answer.status(), 200);
        (answer.headers().clone(), tunnel)
    }

    /// The status of a plain request.
    async fn get(&mut self, path: &str) -> u16 {
        let request = Request::get(format!("http://a{path}")).body(()).unwrap();
        let (answer, _) = self.0.send_request(request, true).unwrap();
        tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap().status().as_u16()
    }
}

/// Endpoints on HTTP/2. Nobody waits for settings any longer than they take.
const H2C: &str = ", protocol: h2c, connect_timeout: 1h";

/// What an HTTP/2 endpoint of the tests may send ahead, bytes.
const WINDOW: usize = 65_535;

struct Tunnel {
    sender: SendStream<Bytes>,
    receiver: RecvStream,
}

impl Tunnel {
    fn send(&mut self, bytes: impl Into<Bytes>) {
        self.sender.send_data(bytes.into(), false).unwrap();
    }

    fn end(&mut self) {
        self.sender.send_data(Bytes::new(), true).unwrap();
    }

    async fn part(&mut self) -> Option<Result<Bytes, h2::Error>> {
        let part = tokio::time::timeout(PATIENCE, self.receiver.data()).await;
        let part = part.expect("nothing came for long")?;
        if let Ok(part) = &part {
            self.receiver.flow_control().release_capacity(part.len()).unwrap();
        }
        Some(part)
    }

    async fn read_until(&mut self, end: &str) -> String {
        let mut text = String::new();
        while !text.ends_with(end) {
            text += std::str::from_utf8(&self.part().await.unwrap().unwrap()).unwrap();
        }
        text
    }

    async fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some(part) = self.part().await {
            bytes.extend(part.unwrap());
        }
        bytes
    }
}

/// A site with a route for tunnels to `endpoints`, and one for everything else.
async fn stage(endpoints: &[SocketAddr], route: &str, upstream: &str) -> Stage {
    let rest = Origin::start(|_| ok("")).await;
    let site = site(endpoints, route, upstream).replace(" all: {", " chat: { path: /chat,");
    let site = site.replace("upstreams:\n", "  rest: { upstream: rest }\nupstreams:\n");
    Stage::start(&format!("{site}  rest: {{ endpoints: [\"{}\"] }}\n", rest.address))
}

#[tokio::test]
async fn a_stream_becomes_a_websocket_of_http1() {
    let stage = stage(&[echo().await], "", "").await;
    let mut caller = Caller::connect(&stage).await;
    let (fields, mut tunnel) = caller.open().await;
    assert_eq!(fields["sec-websocket-protocol"], "chat");
    assert_eq!(fields["sec-websocket-extensions"], "permessage-deflate");
    for ended_here in ["sec-websocket-accept", "upgrade", "connection", "content-length"] {
        assert!(!fields.contains_key(ended_here), "{ended_here}");
    }
    let seen = tunnel.read_until("\r\n\r\n").await;
    assert!(seen.starts_with("GET /chat HTTP/1.1\r\n"), "{seen}");
    let expected = [
        ("host", "a"),
        ("upgrade", "websocket"),
        ("connection", "upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat"),
        ("sec-websocket-extensions", "permessage-deflate"),
        ("x-forwarded-for", "127.0.0.1"),
    ];
    for (name, value) in expected {
        assert_eq!(field(&seen, name), Some(value), "{name} in {seen}");
    }
    assert_eq!(caller.get("/other").await, 200, "other streams go on");
    let (_, mut second) = caller.open().await;
    tunnel.send("hello");
    tunnel.end();
    assert_eq!(tunnel.read_to_end().await, b"hello bye", "one direction goes on after the other has ended");
    second.end();
    assert!(second.read_to_end().await.ends_with(b" bye"));

    let log = stage.log_of(4).await;
    let tunnels: Vec<_> = log.iter().filter(|line| line["target"] == "/chat").collect();
    assert_eq!(tunnels.len(), 2, "{log:?}");
    assert_eq!((&tunnels[0]["status"], &tunnels[0]["method"]), (&200.into(), &"GET".into()));
    assert_eq!(tunnels[0]["request_bytes"], 5);
}

#[tokio::test]
async fn what_is_refused_ends_only_its_stream() {
    let stage = stage(&[echo().await], "", "").await;
    let mut caller = Caller::connect(&stage).await;
    let mut check =
        async |path: &'static str, protocol: &'static str, version: &'static str, expected: u16| {
            let (answer, _) = caller.ask(path, protocol, version).await;
            assert_eq!(answer.status(), expected, "{protocol} {version} {path}");
            assert_eq!(caller.get("/other").await, 200, "after {protocol} {version} {path}");
        };
    check("/chat", "connect-udp", "13", 501).await;
    check("/chat", "webtransport", "13", 501).await;
    check("/chat", "websocket", "8", 400).await;
    check("/chat", "websocket", "13", 200).await;
    assert_eq!(stage.metric("shoal_gate_refusals_total{rule=\"protocol\"}"), 2);
}

#[tokio::test]
async fn routes_that_allow_no_upgrade_refuse() {
    let stage = stage(&[echo().await], ", upgrades: []", "").await;
    let mut caller = Caller::connect(&stage).await;
    assert_eq!(caller.ask("/chat", "websocket", "13").await.0.status(), 501);
    assert_eq!(caller.get("/other").await, 200);
}

#[tokio::test]
async fn only_a_proper_handshake_of_the_endpoint_is_a_yes() {
    let check = async |answer: &'static str, expected: u16, body: &str| {
        let origin = Origin::start(move |_| answer).await;
        let stage = stage(&[origin.address], "", "").await;
        let mut caller = Caller::connect(&stage).await;
        let (seen, mut tunnel) = caller.ask("/chat", "websocket", "13").await;
        assert_eq!(seen.status(), expected, "{answer}");
        let text = String::from_utf8(tunnel.read_to_end().await).unwrap();
        assert!(text.starts_with(body), "{answer}: {text}");
        assert_eq!(caller.get("/other").await, 200, "{answer}");
    };
    check("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", 502, "502 ").await;
    check("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno", 403, "no").await;
    check("HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n", 302, "").await;
    let wrong = "HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\nx";
    check(wrong, 502, "502 ").await;
}

#[tokio::test]
async fn a_stream_that_is_not_read_holds_up_its_endpoint_and_nothing_else() {
    const ALL: usize = 32 << 20;
    let written = Arc::new(AtomicUsize::new(0));
    let counted = written.clone();
    let endpoint = serve_raw(Default::default(), move |stream, _| {
        let counted = counted.clone();
        async move {
            let mut stream = Downstream::new(stream);
            switch(&mut stream, "").await;
            let part = [b'x'; 64 << 10];
            while counted.load(Ordering::SeqCst) < ALL {
                stream.stream.write_all(&part).await.unwrap();
                counted.fetch_add(part.len(), Ordering::SeqCst);
            }
        }
    })
    .await;
    let stage = stage(&[endpoint], "", "").await;
    let mut caller = Caller::connect(&stage).await;
    let (_, mut tunnel) = caller.open().await;
    // What fits into the buffers of the sockets is on its way; then nothing moves any more.
    let mut before = usize::MAX;
    while std::mem::replace(&mut before, written.load(Ordering::SeqCst)) != written.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(before < ALL / 2, "{before} bytes went out, and nobody takes them");
    assert_eq!(caller.get("/other").await, 200, "other streams go on");
    let mut got = 0;
    while got < ALL {
        got += tunnel.part().await.unwrap().unwrap().len();
    }
    assert_eq!(got, ALL);
}

#[tokio::test]
async fn a_reset_ends_the_tunnel_on_both_sides() {
    let ended = Arc::new(AtomicUsize::new(0));
    let counted = ended.clone();
    let endpoint = serve_raw(Default::default(), move |stream, _| {
        let counted = counted.clone();
        async move {
            let mut stream = Downstream::new(stream);
            switch(&mut stream, "").await;
            stream.read_to_end().await;
            counted.fetch_add(1, Ordering::SeqCst);
            // It never ends its own side.
            std::future::pending::<()>().await;
        }
    })
    .await;
    let stage = stage(&[endpoint], "", "").await;
    let mut caller = Caller::connect(&stage).await;
    let (_, mut tunnel) = caller.open().await;
    tunnel.send("x");
    tunnel.sender.send_reset(Reason::CANCEL);
    wait_until("the end at the endpoint", || ended.load(Ordering::SeqCst) == 1).await;
    // The tunnel is over, though the endpoint has not said so.
    assert_eq!(stage.log_of(2).await[1]["target"], "/chat");
    assert_eq!(caller.get("/other").await, 200);

    let (_, tunnel) = caller.open().await;
    drop((tunnel, caller));
    wait_until("the end at the endpoint", || ended.load(Ordering::SeqCst) == 2).await;
}

#[tokio::test]
async fn silent_streams_end() {
    let rest = Origin::start(|_| ok("")).await;
    let text = site(&[echo().await], "", "")
        .replace("protocol: http }", "protocol: http, limits: { tunnel_idle_timeout: 300ms } }")
        .replace(" all: {", " rest: { path: /settled, upstream: rest }\n  chat: {");
    let stage = Stage::start(&format!("{text}  rest: {{ endpoints: [\"{}\"] }}\n", rest.address));
    let mut caller = Caller::connect(&stage).await;
    let (_, mut tunnel) = caller.open().await;
    tunnel.read_until("\r\n\r\n").await;
    assert_eq!(tunnel.read_to_end().await, b"");
    assert_eq!(caller.get("/settled").await, 200);
}

#[tokio::test]
async fn endpoints_on_h2_are_asked_by_extended_connect() {
    let stage = stage(&[echo_h2(true, StatusCode::OK).await], "", H2C).await;
    let mut caller = Caller::connect(&stage).await;
    let (fields, mut tunnel) = caller.open().await;
    assert_eq!(fields["sec-websocket-protocol"], "chat");
    tunnel.send("hello");
    tunnel.end();
    assert_eq!(tunnel.read_to_end().await, b"hello bye");

    let mut downstream = stage.connect().await;
    downstream.send(ASK).await;
    let head = downstream.read_head().await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert_eq!(field(&head, "sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(field(&head, "sec-websocket-protocol"), Some("chat"));
    assert_eq!(field(&head, "upgrade"), Some("websocket"));
    downstream.send("hello").await;
    downstream.stream.shutdown().await.unwrap();
    assert_eq!(downstream.read_to_end().await, b"hello bye");
}

#[tokio::test]
async fn endpoints_on_h2_may_refuse() {
    let check = async |allows: bool, status: StatusCode, expected: u16, on_http1: u16| {
        let stage = stage(&[echo_h2(allows, status).await], "", H2C).await;
        let mut caller = Caller::connect(&stage).await;
        assert_eq!(caller.ask("/chat", "websocket", "13").await.0.status(), expected);
        assert_eq!(caller.get("/other").await, 200);
        let mut downstream = stage.connect().await;
        downstream.send(ASK).await;
        let head = downstream.read_head().await.unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {on_http1} ")), "{head}");
    };
    check(true, StatusCode::FORBIDDEN, 403, 403).await;
    // An answer like any other is only a yes to who asks by CONNECT.
    check(true, StatusCode::NO_CONTENT, 502, 204).await;
    check(false, StatusCode::OK, 502, 502).await;
}

const ASK: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: chat\r\n\r\n";
